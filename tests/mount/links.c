/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/links.c - hard links, symlinks, and files without any link
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

#define MAX_LINKS 65000

/* --- hard links
 * --------------------------------------------------------------- */

MTEST(link, names_one_inode)
{
	put("a", "text");
	OK(link("a", "b"));
	EQ(lstat_of("a").st_ino, lstat_of("b").st_ino);
	EQ(nlink_of("a"), 2);
	put("b", "other");
	must_hold("a", "other");
	OK(unlink("a"));
	EQ(nlink_of("b"), 1);
	must_hold("b", "other");
}

MTEST(link, refusals)
{
	touch("f");
	touch("g");
	OK(mkdir("d", 0755));
	FAILS(EEXIST, link("f", "g"));
	FAILS(EEXIST, link("f", "f"));
	FAILS(EEXIST, link("f", "d"));
	FAILS(ENOENT, link("x", "y"));
	FAILS(ENOENT, link("f", "x/y"));
	FAILS(ENOTDIR, link("f", "g/x"));
	FAILS(EPERM, link("d", "e"));
	FAILS(EXDEV, link("f", "/tmp/foliofs-test-link"));
	EQ(nlink_of("f"), 1);
}

MTEST(link, of_a_symlink_links_the_symlink)
{
	touch("f");
	OK(symlink("f", "l"));
	OK(link("l", "m"));
	CHECK(S_ISLNK(lstat_of("m").st_mode), "m is no symlink");
	EQ(nlink_of("l"), 2);
	EQ(nlink_of("f"), 1);
	OK(linkat(AT_FDCWD, "l", AT_FDCWD, "n", AT_SYMLINK_FOLLOW));
	EQ(lstat_of("n").st_ino, lstat_of("f").st_ino);
}

MTEST(link, of_special_files)
{
	OK(mknod("fifo", S_IFIFO | 0600, 0));
	OK(mknod("chr", S_IFCHR | 0600, 0x103));
	OK(link("fifo", "fifo2"));
	OK(link("chr", "chr2"));
	EQ(nlink_of("fifo"), 2);
	EQ(lstat_of("chr2").st_rdev, 0x103);
}

MTEST(link, moves_ctime_of_the_file_and_times_of_the_parent)
{
	struct stat file, dir;

	OK(mkdir("d", 0755));
	put("f", "x");
	file = lstat_of("f");
	dir = lstat_of("d");
	tick();
	OK(link("f", "d/l"));
	CHECK(time_before(file.st_ctim, lstat_of("f").st_ctim),
	      "ctime of the file did not move");
	CHECK(time_equal(file.st_mtim, lstat_of("f").st_mtim),
	      "mtime of the file moved");
	CHECK(time_before(dir.st_mtim, lstat_of("d").st_mtim),
	      "mtime of the parent did not move");
	file = lstat_of("f");
	tick();
	OK(unlink("d/l"));
	CHECK(time_before(file.st_ctim, lstat_of("f").st_ctim),
	      "ctime did not move at the unlink");
}

MTEST(link, to_a_file_without_links_is_enoent)
{
	char path[32];
	int fd;

	touch("f");
	fd = open_ok("f", O_RDWR);
	OK(unlink("f"));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	FAILS(ENOENT, linkat(AT_FDCWD, path, AT_FDCWD, "g", AT_SYMLINK_FOLLOW));
	close_ok(fd);
}

MTEST(link, a_file_may_have_65000, .timeout = 90)
{
	char name[16];

	put("f", "x");
	for (int i = 1; i < MAX_LINKS; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		CHECK(!link("f", name), "link %d: %s", i, mtest_errname(errno));
	}
	EQ(nlink_of("f"), MAX_LINKS);
	if (on(MNT_FOLIOFS | MNT_EXT4))
		FAILS(EMLINK, link("f", "more"));
	else
		OK(link("f", "more"));
	unlink("more");
	if (on(MNT_REMOUNT))
		remount(NULL);
	EQ(nlink_of("f"), MAX_LINKS);
	OK(unlink("l77"));
	OK(link("f", "again"));
	for (int i = 1; i < MAX_LINKS; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		unlink(name);
	}
	EQ(nlink_of("f"), 2);
	must_hold("again", "x");
}

/* --- symlinks
 * ----------------------------------------------------------------- */

static void fill_target(char *target, size_t len)
{
	for (size_t i = 0; i < len; i++)
		target[i] = (char)("/abc\xff"[i % 5]);
	target[len] = '\0';
}

static void check_symlink(const char *name, size_t len)
{
	char want[PATH_MAX + 1], got[PATH_MAX + 1];
	struct stat st = lstat_of(name);

	fill_target(want, len);
	EQ(st.st_size, len);
	CHECK(S_ISLNK(st.st_mode), "%s is no symlink", name);
	EQ(readlink(name, got, sizeof(got)), len);
	MEMEQ(got, want, len);
}

MTEST(symlink, keeps_targets_of_every_length)
{
	static const size_t more[] = { 255,  256,  257,	 1023, 1024,
				       2000, 4000, 4094, 4095 };
	char target[PATH_MAX], name[16];

	for (size_t len = 1; len < 200; len++) {
		fill_target(target, len);
		snprintf(name, sizeof(name), "l%zu", len);
		OK(symlink(target, name));
	}
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
		fill_target(target, more[i]);
		snprintf(name, sizeof(name), "l%zu", more[i]);
		if (symlink(target, name)) {
			/* XFS stops at 1024. */
			EQ(errno, ENAMETOOLONG);
			CHECK(on(MNT_XFS), "length %zu: %s", more[i],
			      mtest_errname(errno));
			break;
		}
	}
	for (int round = 0; round < 2; round++) {
		for (size_t len = 1; len < 200; len++) {
			snprintf(name, sizeof(name), "l%zu", len);
			check_symlink(name, len);
		}
		for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
			snprintf(name, sizeof(name), "l%zu", more[i]);
			if (exists(name))
				check_symlink(name, more[i]);
		}
		if (on(MNT_REMOUNT))
			remount(NULL);
	}
}

MTEST(symlink, refusals)
{
	char target[5000];

	touch("f");
	OK(mkdir("d", 0755));
	FAILS(EEXIST, symlink("x", "f"));
	FAILS(EEXIST, symlink("x", "d"));
	FAILS(ENOENT, symlink("", "l"));
	FAILS(ENOENT, symlink("x", "y/z"));
	FAILS(ENOTDIR, symlink("x", "f/z"));
	memset(target, 'x', sizeof(target));
	target[4096] = '\0';
	FAILS(ENAMETOOLONG, symlink(target, "l"));
	FAILS(EINVAL, readlink("f", target, sizeof(target)));
	FAILS(EINVAL, readlink("d", target, sizeof(target)));
}

MTEST(symlink, readlink_cuts_to_the_buffer)
{
	char buf[8] = "........";

	OK(symlink("0123456789", "l"));
	EQ(readlink("l", buf, 4), 4);
	MEMEQ(buf, "0123....", 8);
}

MTEST(symlink, loops_are_eloop)
{
	char from[8], to[8];

	OK(symlink("b", "a"));
	OK(symlink("a", "b"));
	OK(symlink("self", "self"));
	FAILS(ELOOP, open("a", O_RDONLY));
	FAILS(ELOOP, open("self", O_RDONLY));
	FAILS(ELOOP, open("self/x", O_RDONLY));
	FAILS(ELOOP, chmod("a", 0600));
	put("c0", "end");
	for (int i = 1; i <= 41; i++) {
		snprintf(from, sizeof(from), "c%d", i);
		snprintf(to, sizeof(to), "c%d", i - 1);
		OK(symlink(to, from));
	}
	must_hold("c40", "end");
	FAILS(ELOOP, open("c41", O_RDONLY));
}

MTEST(symlink, has_mode_and_owner_of_its_own)
{
	put("f", "x");
	OK(chown("f", 1, 2));
	OK(symlink("f", "l"));
	EQ(mode_of("l"), 0777);
	OK(lchown("l", 3, 4));
	EQ(lstat_of("l").st_uid, 3);
	EQ(lstat_of("l").st_gid, 4);
	EQ(lstat_of("f").st_uid, 1);
	EQ(nlink_of("l"), 1);
	OK(chmod("l", 0600));
	EQ(mode_of("f"), 0600);
	EQ(mode_of("l"), 0777);
}

MTEST(symlink, leads_through_directories)
{
	OK(mkdir("d", 0755));
	OK(mkdir("d/e", 0755));
	put("d/e/f", "deep");
	OK(symlink("d/e", "l"));
	must_hold("l/f", "deep");
	OK(symlink("../../d", "d/e/up"));
	must_hold("l/up/e/f", "deep");
	OK(rename("d/e", "d/g"));
	FAILS(ENOENT, open("l/f", O_RDONLY));
}

MTEST(symlink, of_a_name_that_is_made_again_is_new)
{
	char buf[16];

	for (int i = 0; i < 50; i++) {
		const char *target = i % 2 ? "odd" : "even";

		OK(symlink(target, "l"));
		EQ(readlink("l", buf, sizeof(buf)), strlen(target));
		MEMEQ(buf, target, strlen(target));
		OK(unlink("l"));
	}
}

/* --- files without links
 * -------------------------------------------------------- */

MTEST(unlinked, file_lives_until_the_last_close)
{
	int fd = pattern_file("f", 300000, 1), fd2;

	fd2 = open_ok("f", O_RDWR);
	OK(unlink("f"));
	CHECK(!exists("f"), "the name is still there");
	EQ(fstat_of(fd).st_nlink, 0);
	check_pattern(fd, 0, 300000, 1);
	write_pattern(fd, 300000, 100000, 1);
	close_ok(fd);
	check_pattern(fd2, 0, 400000, 1);
	EQ(fstat_of(fd2).st_size, 400000);
	close_ok(fd2);
}

MTEST(unlinked, file_obeys_all_operations)
{
	struct timespec ts[2] = { { 5, 6 }, { 7, 8 } };
	int fd = pattern_file("f", 10000, 1);
	char buf[8];

	OK(unlink("f"));
	OK(fchmod(fd, 0640));
	OK(fchown(fd, 7, 8));
	OK(futimens(fd, ts));
	EQ(fstat_of(fd).st_mtim.tv_nsec, 8);
	EQ(fstat_of(fd).st_mode & 07777, 0640);
	EQ(fstat_of(fd).st_uid, 7);
	OK(ftruncate(fd, 5000));
	OK(ftruncate(fd, 20000));
	check_pattern(fd, 0, 5000, 1);
	check_zero(fd, 5000, 15000);
	OK(fallocate(fd, 0, 0, 40000));
	EQ(fstat_of(fd).st_size, 40000);
	OK(fsync(fd));
	OK(fsetxattr(fd, "user.x", "abc", 3, 0));
	EQ(fgetxattr(fd, "user.x", buf, sizeof(buf)), 3);
	EQ(fstat_of(fd).st_nlink, 0);
	close_ok(fd);
}

MTEST(unlinked, name_can_be_used_again_at_once)
{
	int fd = pattern_file("f", 5000, 1);
	ino_t ino = fstat_of(fd).st_ino;

	OK(unlink("f"));
	put("f", "new");
	NE(lstat_of("f").st_ino, ino);
	must_hold("f", "new");
	check_pattern(fd, 0, 5000, 1);
	close_ok(fd);
	must_hold("f", "new");
}

MTEST(unlinked, space_comes_back_at_the_last_close)
{
	int fd = pattern_file("f", 16 * MIB, 1);
	uint64_t before, after;

	settle();
	OK(fsync(fd));
	before = free_bytes();
	OK(unlink("f"));
	settle();
	CHECK(free_bytes() < before + 8 * MIB, "freed while it was open");
	check_pattern(fd, 0, 100000, 1);
	close_ok(fd);
	/* XFS frees in the background, FUSE releases in the background. */
	for (int i = 0; i < 200; i++) {
		settle();
		after = free_bytes();
		if (after >= before + 15 * MIB)
			return;
		tick();
	}
	FAIL("free before %llu, after %llu", (unsigned long long)before,
	     (unsigned long long)after);
}

MTEST(unlinked, mapping_keeps_the_file)
{
	int fd = pattern_file("f", 8192, 1);
	unsigned char want[8192];
	unsigned char *p;

	p = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED, "mmap: %s", mtest_errname(errno));
	close_ok(fd);
	OK(unlink("f"));
	put("g", "something else that wants blocks");
	pattern(want, 0, sizeof(want), 1);
	MEMEQ(p, want, sizeof(want));
	OK(munmap(p, 8192));
}

MTEST(unlinked, thousand_files_at_once)
{
	static int fds[1000];
	char name[16];

	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		fds[i] = pattern_file(name, 5000, (uint64_t)i);
		OK(unlink(name));
	}
	EQ(count_entries("."), 0);
	for (int i = 0; i < 1000; i++) {
		check_pattern(fds[i], 0, 5000, (uint64_t)i);
		close_ok(fds[i]);
	}
}

MTEST(unlinked, by_rename_over_it)
{
	int fd = pattern_file("f", 9000, 1);

	for (int i = 0; i < 100; i++) {
		put("g", "x");
		OK(rename("g", "f"));
	}
	check_pattern(fd, 0, 9000, 1);
	close_ok(fd);
}

MTEST(unlinked, files_are_gone_after_a_crash, .needs = MNT_CRASH)
{
	uint64_t before = free_bytes();

	for (int i = 0; i < 10; i++) {
		IN_CHILD
		{
			int fd = pattern_file("f", MIB, 1);

			OK(unlink("f"));
			settle();
			close_ok(fd);
		}
	}
	IN_CHILD
	{
		/* Open in the moment of the crash. */
		int fd = pattern_file("f", 16 * MIB, 1);

		OK(unlink("f"));
		settle();
		OK(chdir("/"));
		OK(mnt_kill(mnt));
		close(fd);
	}
	crash_and_remount(NULL);
	EQ(count_entries("."), 0);
	LE(before, free_bytes() + 2 * MIB);
}

MTEST(tmpfile, has_no_name_until_linked)
{
	char path[32];
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);

	if (fd < 0) {
		CHECK(errno == EOPNOTSUPP, "O_TMPFILE: %s",
		      mtest_errname(errno));
		SKIP("no O_TMPFILE");
	}
	EQ(fstat_of(fd).st_nlink, 0);
	EQ(count_entries("."), 0);
	write_pattern(fd, 0, 10000, 3);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	OK(linkat(AT_FDCWD, path, AT_FDCWD, "f", AT_SYMLINK_FOLLOW));
	EQ(nlink_of("f"), 1);
	check_pattern(fd, 0, 10000, 3);
	close_ok(fd);
}
