/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/dirs.c - names: making, finding, listing and removing them
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"

static const char *long_name(size_t len, char fill)
{
	static char name[8][PATH_MAX];
	static unsigned int turn;
	char *p = name[turn++ % 8];

	memset(p, fill, len);
	p[len] = '\0';
	return p;
}

/* --- lookup -----------------------------------------------------------------
 */

MTEST(lookup, missing_name_is_enoent)
{
	struct stat st;

	FAILS(ENOENT, stat("x", &st));
	FAILS(ENOENT, open("x", O_RDONLY));
	FAILS(ENOENT, open("x", O_RDWR));
	FAILS(ENOENT, unlink("x"));
	FAILS(ENOENT, rmdir("x"));
	FAILS(ENOENT, chmod("x", 0600));
	FAILS(ENOENT, truncate("x", 0));
	FAILS(ENOENT, open("x/y", O_CREAT | O_WRONLY, 0600));
	FAILS(ENOENT, open("", O_RDONLY));
}

MTEST(lookup, file_in_the_middle_is_enotdir)
{
	struct stat st;

	touch("f");
	FAILS(ENOTDIR, stat("f/x", &st));
	FAILS(ENOTDIR, stat("f/", &st));
	FAILS(ENOTDIR, open("f/x", O_CREAT | O_WRONLY, 0600));
	FAILS(ENOTDIR, mkdir("f/x", 0700));
	FAILS(ENOTDIR, unlink("f/x"));
	FAILS(ENOTDIR, open("f", O_RDONLY | O_DIRECTORY));
	FAILS(ENOTDIR, rmdir("f"));
	CHECK(!opendir("f") && errno == ENOTDIR, "opendir of a file: %s",
	      mtest_errname(errno));
}

MTEST(lookup, a_name_appears_after_it_was_missing)
{
	for (int i = 0; i < 100; i++) {
		CHECK(!exists("x"), "x exists before it was made");
		touch("x");
		CHECK(exists("x"), "x was made and does not exist");
		OK(unlink("x"));
	}
}

MTEST(lookup, case_matters)
{
	put("name", "small");
	put("NAME", "large");
	must_hold("name", "small");
	must_hold("NAME", "large");
	FAILS(ENOENT, unlink("Name"));
}

MTEST(lookup, dotdot_leads_up_from_everywhere)
{
	struct stat here = lstat_of(".");
	struct stat up;

	OK(mkdir("a", 0755));
	OK(mkdir("a/b", 0755));
	up = lstat_of("a/b/../..");
	EQ(up.st_ino, here.st_ino);
	OK(rename("a/b", "b"));
	up = lstat_of("b/..");
	EQ(up.st_ino, here.st_ino);
}

/* --- names ------------------------------------------------------------------
 */

MTEST(names, of_255_bytes_work)
{
	const char *name = long_name(255, 'n'), *other = long_name(255, 'o');

	put(name, "long");
	must_hold(name, "long");
	CHECK(has_entry(".", name), "the long name is not listed");
	OK(link(name, other));
	OK(unlink(name));
	OK(rename(other, name));
	must_hold(name, "long");
	OK(unlink(name));
	OK(mkdir(name, 0755));
	OK(rmdir(name));
	OK(symlink("x", name));
	OK(unlink(name));
	OK(mknod(name, S_IFIFO | 0600, 0));
	OK(unlink(name));
	EQ(count_entries("."), 0);
}

MTEST(names, of_256_bytes_are_enametoolong)
{
	const char *name = long_name(256, 'n');
	struct stat st;

	touch("f");
	FAILS(ENAMETOOLONG, stat(name, &st));
	FAILS(ENAMETOOLONG, open(name, O_CREAT | O_WRONLY, 0600));
	FAILS(ENAMETOOLONG, mkdir(name, 0700));
	FAILS(ENAMETOOLONG, symlink("x", name));
	FAILS(ENAMETOOLONG, mknod(name, S_IFIFO | 0600, 0));
	FAILS(ENAMETOOLONG, link("f", name));
	FAILS(ENAMETOOLONG, rename("f", name));
	FAILS(ENAMETOOLONG, rename(name, "f"));
	FAILS(ENAMETOOLONG, unlink(name));
	FAILS(ENAMETOOLONG, rmdir(name));
	FAILS(ENAMETOOLONG, open(long_name(1000, 'x'), O_RDONLY));
	EQ(count_entries("."), 1);
}

MTEST(names, of_every_length_are_told_apart)
{
	for (size_t len = 1; len <= 255; len++)
		touch(long_name(len, 'x'));
	EQ(count_entries("."), 255);
	for (size_t len = 1; len <= 255; len += 2)
		OK(unlink(long_name(len, 'x')));
	EQ(count_entries("."), 127);
	for (size_t len = 1; len <= 255; len++)
		EQ(exists(long_name(len, 'x')), len % 2 == 0);
}

MTEST(names, may_hold_any_byte_but_slash_and_nul)
{
	char name[4] = "a?z";

	for (int c = 1; c < 256; c++) {
		name[1] = (char)c;
		if (c != '/')
			touch(name);
	}
	EQ(count_entries("."), 254);
	for (int c = 1; c < 256; c++) {
		name[1] = (char)c;
		if (c != '/')
			CHECK(has_entry(".", name), "byte %#x is lost", c);
	}
	if (on(MNT_REMOUNT))
		remount(NULL);
	for (int c = 1; c < 256; c++) {
		name[1] = (char)c;
		if (c != '/')
			OK(unlink(name));
	}
}

MTEST(names, need_not_be_utf8)
{
	static const char *const bad[] = { "\xff",	   "\xc3\x28",
					   "\xed\xa0\x80", "caf\xe9",
					   "\xf5\x80",	   "\xc0\xaf" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put(bad[i], "x");
		CHECK(has_entry(".", bad[i]), "name %zu is not listed", i);
	}
	EQ(count_entries("."), sizeof(bad) / sizeof(bad[0]));
}

/* --- create -----------------------------------------------------------------
 */

MTEST(create, excl_refuses_what_exists)
{
	touch("f");
	OK(mkdir("d", 0755));
	OK(symlink("nowhere", "l"));
	FAILS(EEXIST, open("f", O_CREAT | O_EXCL | O_WRONLY, 0600));
	FAILS(EEXIST, open("d", O_CREAT | O_EXCL | O_WRONLY, 0600));
	FAILS(EEXIST, open("l", O_CREAT | O_EXCL | O_WRONLY, 0600));
	CHECK(!exists("nowhere"), "O_EXCL followed a symlink");
}

MTEST(create, without_excl_opens_what_exists)
{
	int fd;

	put("f", "text");
	fd = open_ok("f", O_CREAT | O_RDWR);
	EQ(fstat_of(fd).st_size, 4);
	close_ok(fd);
	must_hold("f", "text");
}

MTEST(create, follows_a_dangling_symlink)
{
	OK(symlink("target", "l"));
	put("l", "through");
	must_hold("target", "through");
}

MTEST(create, on_a_directory_is_eisdir)
{
	OK(mkdir("d", 0755));
	FAILS(EISDIR, open("d", O_CREAT | O_WRONLY, 0600));
	FAILS(EISDIR, open("d", O_WRONLY));
	FAILS(EISDIR, open("d", O_RDWR));
	FAILS(EISDIR, open("d", O_RDONLY | O_TRUNC));
	FAILS(EISDIR, open("x/", O_CREAT | O_WRONLY, 0600));
}

MTEST(create, nofollow_on_a_symlink_is_eloop)
{
	touch("f");
	OK(symlink("f", "l"));
	FAILS(ELOOP, open("l", O_RDONLY | O_NOFOLLOW));
	FAILS(ELOOP, open("l", O_CREAT | O_WRONLY | O_NOFOLLOW, 0600));
}

MTEST(create, mode_0_leaves_the_descriptor_usable)
{
	int fd = (int)OK(open("f", O_CREAT | O_RDWR | O_EXCL, 0));
	char buf[4];

	pwrite_ok(fd, "abcd", 4, 0);
	EQ(pread_ok(fd, buf, 4, 0), 4);
	MEMEQ(buf, "abcd", 4);
	close_ok(fd);
	EQ(mode_of("f"), 0);
}

MTEST(create, many_processes_make_one_file_exactly_once)
{
	int won = 0;

	for (int round = 0; round < 50; round++) {
		char name[16];
		int status, fd;

		snprintf(name, sizeof(name), "f%d", round);
		for (int i = 0; i < 4; i++) {
			if (fork())
				continue;
			fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
			_exit(fd >= 0 ? 1 : errno == EEXIST ? 0 : 2);
		}
		while (wait(&status) > 0) {
			NE(WEXITSTATUS(status), 2);
			won += WEXITSTATUS(status);
		}
		EQ(won, round + 1);
	}
}

/* --- mkdir, rmdir, unlink ---------------------------------------------------
 */

MTEST(mkdir, refuses_what_exists)
{
	touch("f");
	OK(mkdir("d", 0755));
	OK(symlink("nowhere", "l"));
	FAILS(EEXIST, mkdir("f", 0755));
	FAILS(EEXIST, mkdir("d", 0755));
	FAILS(EEXIST, mkdir("l", 0755));
	FAILS(EEXIST, mkdir(".", 0755));
	FAILS(EEXIST, mkdir("d/..", 0755));
	FAILS(ENOENT, mkdir("x/y", 0755));
}

MTEST(mkdir, counts_links_of_the_parent)
{
	nlink_t before = nlink_of(".");

	OK(mkdir("d", 0755));
	EQ(nlink_of("d"), 2);
	EQ(nlink_of("."), before + 1);
	OK(mkdir("d/e", 0755));
	EQ(nlink_of("d"), 3);
	touch("d/f");
	EQ(nlink_of("d"), 3);
	OK(rmdir("d/e"));
	EQ(nlink_of("d"), 2);
	OK(unlink("d/f"));
	OK(rmdir("d"));
	EQ(nlink_of("."), before);
}

MTEST(mkdir, gives_mode_less_umask)
{
	umask(027);
	OK(mkdir("a", 0777));
	EQ(mode_of("a"), 0750);
	OK(mkdir("b", 01777));
	EQ(mode_of("b"), 01750);
	umask(0);
	OK(mkdir("c", 0777));
	EQ(mode_of("c"), 0777);
}

MTEST(rmdir, refuses_what_is_not_an_empty_directory)
{
	touch("f");
	OK(mkdir("d", 0755));
	touch("d/x");
	OK(symlink("d", "l"));
	FAILS(ENOTEMPTY, rmdir("d"));
	FAILS(ENOTDIR, rmdir("f"));
	FAILS(ENOTDIR, rmdir("l"));
	FAILS(EINVAL, rmdir("."));
	FAILS(ENOTEMPTY, rmdir("d/.."));
	OK(unlink("d/x"));
	OK(rmdir("d"));
	FAILS(ENOENT, rmdir("d"));
}

MTEST(rmdir, of_a_directory_that_was_full_once)
{
	char name[32];

	OK(mkdir("d", 0755));
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "d/file-%d", i);
		touch(name);
	}
	for (int i = 0; i < 500; i++) {
		FAILS(ENOTEMPTY, rmdir("d"));
		snprintf(name, sizeof(name), "d/file-%d", i);
		OK(unlink(name));
	}
	OK(rmdir("d"));
}

MTEST(rmdir, leaves_a_dead_directory_to_whoever_is_in_it)
{
	struct stat st;
	int fd;

	OK(mkdir("d", 0755));
	fd = open_ok("d", O_RDONLY | O_DIRECTORY);
	OK(rmdir("d"));
	OK(fstat(fd, &st));
	EQ(st.st_nlink, 0);
	FAILS(ENOENT, openat(fd, "x", O_CREAT | O_WRONLY, 0600));
	FAILS(ENOENT, mkdirat(fd, "x", 0700));
	FAILS(ENOENT, fstatat(fd, "x", &st, 0));
	FAILS(ENOENT, symlinkat("a", fd, "x"));
	touch("f");
	FAILS(ENOENT, linkat(AT_FDCWD, "f", fd, "x", 0));
	FAILS(ENOENT, renameat(AT_FDCWD, "f", fd, "x"));
	close_ok(fd);
}

MTEST(rmdir, makes_the_name_free_at_once)
{
	for (int i = 0; i < 100; i++) {
		OK(mkdir("d", 0755));
		OK(rmdir("d"));
		touch("d");
		OK(unlink("d"));
	}
	EQ(count_entries("."), 0);
}

MTEST(unlink, refuses_directories_and_what_is_missing)
{
	OK(mkdir("d", 0755));
	FAILS(EISDIR, unlink("d"));
	FAILS(EISDIR, unlink("."));
	FAILS(ENOENT, unlink("x"));
	touch("f");
	FAILS(ENOTDIR, unlinkat(AT_FDCWD, "f", AT_REMOVEDIR));
	FAILS(ENOTDIR, unlink("f/"));
}

MTEST(unlink, removes_links_not_targets)
{
	put("f", "text");
	OK(symlink("f", "l"));
	OK(unlink("l"));
	must_hold("f", "text");
}

MTEST(unlink, of_every_type)
{
	touch("file");
	OK(symlink("x", "link"));
	OK(mknod("fifo", S_IFIFO | 0600, 0));
	OK(mknod("sock", S_IFSOCK | 0600, 0));
	OK(mknod("chr", S_IFCHR | 0600, 0x103));
	OK(unlink("file"));
	OK(unlink("link"));
	OK(unlink("fifo"));
	OK(unlink("sock"));
	OK(unlink("chr"));
	EQ(count_entries("."), 0);
}

/* --- readdir ----------------------------------------------------------------
 */

static unsigned char type_of(mode_t mode)
{
	return (unsigned char)IFTODT(mode);
}

MTEST(readdir, tells_name_number_and_type)
{
	struct dirent *de;
	int nr = 0;
	DIR *d;

	touch("file");
	OK(mkdir("dir", 0755));
	OK(symlink("x", "link"));
	OK(mknod("fifo", S_IFIFO | 0600, 0));
	OK(mknod("sock", S_IFSOCK | 0600, 0));
	OK(mknod("chr", S_IFCHR | 0600, 0x103));
	OK(mknod("blk", S_IFBLK | 0600, 0x700));
	d = opendir(".");
	while ((de = readdir(d))) {
		struct stat st = lstat_of(de->d_name);

		nr++;
		EQ(de->d_type, type_of(st.st_mode));
		/* The kernel shows .. of a mount's root differently. */
		if (strcmp(de->d_name, ".."))
			EQ(de->d_ino, st.st_ino);
	}
	EQ(nr, 9);
	closedir(d);
}

MTEST(readdir, of_an_empty_directory_is_two_dots)
{
	struct dirent *de;
	DIR *d;
	int dots = 0;

	OK(mkdir("d", 0755));
	d = opendir("d");
	while ((de = readdir(d))) {
		CHECK(!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."),
		      "unexpected entry %s", de->d_name);
		dots++;
	}
	EQ(dots, 2);
	closedir(d);
}

#define NR_SEEK 1000

MTEST(readdir, every_position_can_be_sought_again)
{
	static char names[NR_SEEK + 2][16];
	static long pos[NR_SEEK + 3];
	struct dirent *de;
	uint64_t state = 7;
	char name[16];
	int nr = 0;
	DIR *d;

	for (int i = 0; i < NR_SEEK; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		touch(name);
	}
	d = opendir(".");
	for (; pos[nr] = telldir(d), (de = readdir(d)); nr++) {
		LT(nr, NR_SEEK + 2);
		snprintf(names[nr], sizeof(names[nr]), "%.15s", de->d_name);
	}
	EQ(nr, NR_SEEK + 2);
	for (int i = 0; i < 300; i++) {
		int n = (int)(rnd(&state) % (NR_SEEK + 2));

		seekdir(d, pos[n]);
		de = readdir(d);
		CHECK(de, "nothing at position %ld", pos[n]);
		STREQ(de->d_name, names[n]);
	}
	seekdir(d, pos[nr]);
	CHECK(!readdir(d), "something after the end");
	closedir(d);
}

MTEST(readdir, a_position_survives_removals_before_it)
{
	static char names[202][16];
	struct dirent *de;
	char name[16];
	long middle;
	int nr = 0;
	DIR *d;

	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		touch(name);
	}
	d = opendir(".");
	for (; (de = readdir(d)); nr++)
		snprintf(names[nr], sizeof(names[nr]), "%.15s", de->d_name);
	EQ(nr, 202);
	rewinddir(d);
	for (int i = 0; i < 100; i++)
		readdir(d);
	middle = telldir(d);
	for (int i = 0; i < 100; i++)
		if (names[i][0] == 'n')
			OK(unlink(names[i]));
	seekdir(d, middle);
	for (int i = 100; i < 202; i++) {
		de = readdir(d);
		CHECK(de, "entry %d of 202 is gone", i);
		STREQ(de->d_name, names[i]);
	}
	closedir(d);
}

MTEST(readdir, rewind_sees_what_is_new)
{
	struct dirent *de;
	bool found = false;
	DIR *d = opendir(".");

	while (readdir(d))
		;
	touch("new");
	rewinddir(d);
	while ((de = readdir(d)))
		found |= !strcmp(de->d_name, "new");
	CHECK(found, "the new entry is not seen after rewinddir");
	OK(unlink("new"));
	rewinddir(d);
	while ((de = readdir(d)))
		CHECK(strcmp(de->d_name, "new"), "the old entry is still seen");
	closedir(d);
}

static long getdents(int fd, void *buf, size_t len)
{
	return syscall(SYS_getdents64, fd, buf, len);
}

struct dirent_raw {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

MTEST(readdir, works_with_the_smallest_buffers)
{
	char buf[48] __attribute__((aligned(8)));
	char name[8];
	int nr = 0, fd;
	long n;

	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		touch(name);
	}
	fd = open_ok(".", O_RDONLY | O_DIRECTORY);
	FAILS(EINVAL, getdents(fd, buf, 8));
	while ((n = OK(getdents(fd, buf, sizeof(buf)))) > 0) {
		for (long at = 0; at < n; nr++) {
			struct dirent_raw *de = (void *)(buf + at);

			at += de->reclen;
		}
	}
	EQ(nr, 102);
	close_ok(fd);
}

MTEST(readdir, and_unlink_in_turn_empties_a_directory)
{
	struct dirent *de;
	char name[32];
	DIR *d;

	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "a-longer-name-%d", i);
		touch(name);
	}
	d = opendir(".");
	while ((de = readdir(d)))
		if (de->d_name[0] != '.')
			OK(unlink(de->d_name));
	closedir(d);
	EQ(count_entries("."), 0);
}

MTEST(readdir, of_a_removed_directory_finds_nothing)
{
	char buf[1024];
	int fd;
	long n;

	OK(mkdir("d", 0755));
	fd = open_ok("d", O_RDONLY | O_DIRECTORY);
	OK(rmdir("d"));
	n = getdents(fd, buf, sizeof(buf));
	CHECK(n == 0 || (n < 0 && errno == ENOENT) || n == 48,
	      "getdents of a removed directory: %ld, %s", n,
	      mtest_errname(errno));
	close_ok(fd);
}

/* Make and remove names until the parent says stop. */
static void churn(volatile int *stop, int who)
{
	uint64_t state = (uint64_t)who;
	char name[32];

	while (!*stop) {
		snprintf(name, sizeof(name), "churn-%d-%d", who,
			 (int)(rnd(&state) % 200));
		if (rnd(&state) % 2)
			close(open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
		else
			unlink(name);
	}
}

#define NR_STABLE 500

static void count_stable(void)
{
	unsigned char seen[NR_STABLE] = { 0 };
	struct dirent *de;
	DIR *d = opendir(".");
	int nr;

	CHECK(d, "opendir: %s", mtest_errname(errno));
	while ((de = readdir(d)))
		if (sscanf(de->d_name, "stable-%d", &nr) == 1)
			seen[nr]++;
	closedir(d);
	for (nr = 0; nr < NR_STABLE; nr++)
		CHECK(seen[nr] == 1, "stable-%d was listed %d times", nr,
		      seen[nr]);
}

MTEST(readdir, lists_what_stays_once_while_others_come_and_go)
{
	volatile int *stop = sandbox_shared(sizeof(*stop));
	char name[32];
	int status;

	for (int i = 0; i < NR_STABLE; i++) {
		snprintf(name, sizeof(name), "stable-%d", i);
		touch(name);
		snprintf(name, sizeof(name), "churn-0-%d", i % 200);
		touch(name);
	}
	for (int i = 0; i < 2; i++) {
		if (fork())
			continue;
		churn(stop, i);
		_exit(0);
	}
	for (int i = 0; i < 200; i++)
		count_stable();
	*stop = 1;
	while (wait(&status) > 0)
		EQ(status, 0);
}

/* --- large directories -------------------------------------------------------
 */

#define NR_LARGE 100000

static void large_name(char *name, int i)
{
	sprintf(name, "big/entry-number-%d", i);
}

MTEST(large, directory_of_100000_entries, .timeout = 120, .size = 1ull << 30)
{
	char name[64];
	int fd;

	OK(mkdir("big", 0755));
	for (int i = 0; i < NR_LARGE; i++) {
		large_name(name, i);
		fd = open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
		CHECK(fd >= 0, "create %s: %s", name, mtest_errname(errno));
		close(fd);
	}
	EQ(count_entries("big"), NR_LARGE);
	for (int i = 0; i < NR_LARGE; i += 97) {
		large_name(name, i);
		FAILS(EEXIST, mkdir(name, 0700));
	}
	CHECK(!exists("big/entry-number-100000"), "a name that was not made");
	for (int i = 0; i < NR_LARGE; i += 2) {
		large_name(name, i);
		OK(unlink(name));
	}
	EQ(count_entries("big"), NR_LARGE / 2);
	if (on(MNT_REMOUNT))
		remount(NULL);
	EQ(count_entries("big"), NR_LARGE / 2);
	for (int i = 0; i < NR_LARGE; i++) {
		large_name(name, i);
		EQ(unlink(name), i % 2 ? 0 : -1);
	}
	OK(rmdir("big"));
}

MTEST(large, tree_1000_levels_deep)
{
	int fd = open_ok(".", O_RDONLY | O_DIRECTORY);

	for (int i = 0; i < 1000; i++) {
		OK(mkdir("d", 0755));
		OK(chdir("d"));
	}
	put("bottom", "x");
	for (int i = 0; i < 1000; i++)
		OK(chdir(".."));
	EQ(lstat_of(".").st_ino, fstat_of(fd).st_ino);
	close_ok(fd);
}

MTEST(large, many_directories, .size = 512ull << 20)
{
	nlink_t before = nlink_of(".");
	char name[32];

	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		OK(mkdir(name, 0755));
	}
	EQ(nlink_of("."), before + 5000);
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		OK(rmdir(name));
	}
	EQ(nlink_of("."), before);
}
