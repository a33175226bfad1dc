/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/space.c - how much there is, and life on a full device
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

#define SMALL .size = 64ull << 20

/* Write until there is no space; gives how much went in. */
static off_t fill_device(const char *name)
{
	static char buf[65536];
	int fd = open_ok(name, O_WRONLY | O_CREAT);
	size_t len = sizeof(buf);
	off_t pos = 0;

	pattern(buf, 0, sizeof(buf), 9);
	while (len >= 512) {
		ssize_t n = pwrite(fd, buf, len, pos);

		if (n > 0 && !fdatasync(fd)) {
			pos += n;
			continue;
		}
		CHECK(errno == ENOSPC, "write: %s", mtest_errname(errno));
		len /= 2;
	}
	/* With a write-back cache the last error may still be pending. */
	close(fd);
	return pos;
}

static void fill_with_small_files(void)
{
	char name[16];

	for (int i = 0; i < 1000000; i++) {
		int fd;

		snprintf(name, sizeof(name), "s%d", i);
		fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0) {
			EQ(errno, ENOSPC);
			return;
		}
		if (pwrite(fd, "x", 1, 0) != 1 || fdatasync(fd)) {
			EQ(errno, ENOSPC);
			close(fd);
			return;
		}
		close(fd);
	}
	FAIL("a million files fit into 64 MiB");
}

MTEST(statfs, tells_the_size_of_the_device)
{
	struct statvfs sv;

	OK(statvfs(".", &sv));
	EQ(sv.f_namemax, 255);
	LE(sv.f_bfree, sv.f_blocks);
	LE(sv.f_bavail, sv.f_bfree);
	if (mnt_kind_flags(mnt->kind)) {
		LE(sv.f_blocks * sv.f_frsize, mnt->size);
		LE(mnt->size * 7 / 10, sv.f_blocks * sv.f_frsize);
	}
	LE(1, sv.f_files);
	LE(1, sv.f_ffree);
}

MTEST(statfs, follows_what_is_written_and_removed)
{
	uint64_t before, full, after;
	int fd;

	settle();
	before = free_bytes();
	fd = pattern_file("f", 20 * MIB, 1);
	OK(fsync(fd));
	close_ok(fd);
	settle();
	full = free_bytes();
	LE(full, before - 20 * MIB);
	LE(before - 21 * MIB, full);
	OK(unlink("f"));
	for (int i = 0; i < 200; i++) {
		settle();
		after = free_bytes();
		if (after + MIB >= before)
			return;
		tick();
	}
	FAIL("%llu bytes free before, %llu after", (unsigned long long)before,
	     (unsigned long long)after);
}

MTEST(statfs, counts_files)
{
	struct statvfs a, b;
	char name[16];

	OK(statvfs(".", &a));
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		touch(name);
	}
	OK(statvfs(".", &b));
	EQ((b.f_files - b.f_ffree) - (a.f_files - a.f_ffree), 100);
}

MTEST(st_blocks, follows_the_data)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	EQ(blocks_of(fd), 0);
	write_pattern(fd, 0, 1, 1);
	EQ(blocks_of(fd), 8);
	write_pattern(fd, 0, 4096, 1);
	EQ(blocks_of(fd), 8);
	write_pattern(fd, 0, 8 * MIB, 1);
	LE(8 * MIB / 512, blocks_of(fd));
	LE(blocks_of(fd), 8 * MIB / 512 + 128);
	OK(ftruncate(fd, 0));
	EQ(blocks_of(fd), 0);
	EQ(fstat_of(fd).st_blksize % 512, 0);
	close_ok(fd);
}

/* XFS drops at the last close what it had set aside beyond the end. */
MTEST(st_blocks, is_the_same_after_remount, .needs = MNT_REMOUNT,
      .not_on = MNT_XFS)
{
	blkcnt_t blocks;
	int fd = open_ok("f", O_RDWR | O_CREAT);

	for (int i = 0; i < 20; i++)
		write_pattern(fd, i * 33 * MIB, 10000, 1);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 33 * MIB,
		     33 * MIB));
	blocks = blocks_of(fd);
	close_ok(fd);
	remount(NULL);
	EQ(lstat_of("f").st_blocks, blocks);
}

MTEST(full, write_gives_enospc_and_keeps_what_fitted, SMALL)
{
	off_t size = fill_device("f");
	int fd = open_ok("f", O_RDWR);

	LE((off_t)(mnt->size / 2), size);
	for (off_t pos = 0; pos + 65536 <= size; pos += 65536) {
		unsigned char want[64], got[64];

		pattern(want, 0, sizeof(want), 9);
		EQ(pread_ok(fd, got, sizeof(got), pos), sizeof(got));
		MEMEQ(got, want, sizeof(want));
	}
	/* Data that has its block can still be written, unless in a copy. */
	if (!variant("data=cow")) {
		write_pattern(fd, 4096, 4096, 1);
		OK(fsync(fd));
		check_pattern(fd, 4096, 4096, 1);
	}
	close_ok(fd);
}

MTEST(full, unlink_makes_room, SMALL)
{
	for (int i = 0; i < 3; i++) {
		off_t size;

		put("other", "x");
		size = fill_device("f");
		LE((off_t)(mnt->size / 2), size);
		OK(unlink("f"));
		OK(unlink("other"));
		settle();
	}
	put("g", "there is space");
	must_hold("g", "there is space");
}

MTEST(full, truncate_makes_room, SMALL)
{
	int fd;

	fill_device("f");
	OK(truncate("f", MIB + 5));
	settle();
	fd = pattern_file("g", 20 * MIB, 1);
	OK(fsync(fd));
	check_pattern(fd, 0, 20 * MIB, 1);
	close_ok(fd);
}

MTEST(full, punching_makes_room, SMALL)
{
	off_t size = fill_device("f");
	int fd = open_ok("f", O_RDWR);

	/* Not at block borders, so that blocks at both ends change. */
	for (off_t pos = 1000; pos + 200000 < size; pos += MIB)
		OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			     pos, 100000));
	close_ok(fd);
	settle();
	fd = pattern_file("g", 2 * MIB, 1);
	OK(fsync(fd));
	check_pattern(fd, 0, 2 * MIB, 1);
	close_ok(fd);
}

MTEST(full, rename_works, SMALL)
{
	OK(mkdir("d", 0755));
	put("a", "a");
	put("b", "b");
	fill_device("f");
	OK(rename("a", "c"));
	OK(rename("c", "b"));
	must_hold("b", "a");
	OK(rename("b", "d/b"));
	OK(rename("d/b", "b"));
	OK(rename("d", "e"));
	must_hold("b", "a");
	OK(renameat2(AT_FDCWD, "b", AT_FDCWD, "e", RENAME_EXCHANGE));
	must_hold("e", "a");
}

MTEST(full, attributes_can_be_changed, SMALL)
{
	struct timespec ts[2] = { { 1, 2 }, { 3, 4 } };

	put("a", "a");
	fill_device("f");
	OK(chmod("a", 0600));
	OK(chown("a", 1, 2));
	OK(utimensat(AT_FDCWD, "a", ts, 0));
	EQ(mode_of("a"), 0600);
	EQ(lstat_of("a").st_mtim.tv_nsec, 4);
}

MTEST(full, rmdir_works, SMALL)
{
	OK(mkdir("d", 0755));
	OK(mkdir("d/e", 0755));
	fill_device("f");
	OK(rmdir("d/e"));
	OK(rmdir("d"));
}

MTEST(full, of_small_files_can_be_emptied, SMALL, .timeout = 120,
      .not_on = MNT_XFS | MNT_EXT4)
{
	char name[32];
	size_t nr;

	fill_with_small_files();
	nr = count_entries(".");
	LE(1000, nr);
	for (size_t i = 0; i < nr; i++) {
		snprintf(name, sizeof(name), "s%zu", i);
		OK(unlink(name));
	}
	EQ(count_entries("."), 0);
	settle();
	fill_with_small_files();
	/* The second time as many fit, or nearly. */
	LE(nr * 9 / 10, count_entries("."));
}

/* Whatever takes space, many times; nothing of it may succeed any more. */
static void ask_for_more(unsigned int i)
{
	static const char long_name[] =
		"a-target-that-does-not-fit-into-an-inode-and-takes-a-block-"
		"a-target-that-does-not-fit-into-an-inode-and-takes-a-block-"
		"a-target-that-does-not-fit-into-an-inode-and-takes-a-block";
	static char value[8192];
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "theirs/%u", i);
	FAILS(ENOSPC, symlink(long_name, name));
	FAILS(ENOSPC, setxattr("theirs/file", "user.a", value, sizeof(value),
			       XATTR_CREATE));
	fd = open_ok("theirs/file", O_RDWR);
	FAILS(ENOSPC, fallocate(fd, 0, i * MIB, 8192));
	if (pwrite(fd, value, sizeof(value), i * MIB) > 0)
		FAILS(ENOSPC, fsync(fd));
	else
		EQ(errno, ENOSPC);
	close(fd);
}

/* What is kept so that space can be given back is for nothing else. */
MTEST(full, users_do_not_get_the_reserve, SMALL, .not_on = MNT_TMPFS)
{
	struct statvfs sv;
	uint64_t left;

	OK(mkdir("theirs", 0755));
	OK(chown("theirs", NOBODY, NOBODY));
	AS_USER(NOBODY)
	{
		touch("theirs/file");
		fill_device("theirs/big");
	}
	settle();
	left = free_bytes();
	if (on(MNT_FOLIOFS)) {
		OK(statvfs(".", &sv));
		EQ(sv.f_bavail, 0);
		LT(16, sv.f_bfree);
	}
	AS_USER(NOBODY)
	for (unsigned int i = 1; i < 300; i++)
		ask_for_more(i);
	settle();
	LE(left, free_bytes());
	AS_USER(NOBODY)
	{
		OK(rename("theirs/file", "theirs/other"));
		OK(truncate("theirs/big", 5 * MIB + 1));
		settle();
		put("theirs/new", "there is space again");
		OK(unlink("theirs/big"));
	}
	must_hold("theirs/new", "there is space again");
}

MTEST(full, remounts, SMALL, .needs = MNT_REMOUNT)
{
	off_t size;

	put("a", "a");
	size = fill_device("f");
	remount(NULL);
	LE(size, size_of("f"));
	must_hold("a", "a");
	OK(unlink("f"));
	settle();
	fill_device("g");
	LE(size * 9 / 10, size_of("g"));
}

MTEST(full, crashes, SMALL, .needs = MNT_CRASH)
{
	off_t size;

	put("a", "a");
	size = fill_device("f");
	settle();
	crash_and_remount(NULL);
	LE(size, size_of("f"));
	must_hold("a", "a");
	OK(unlink("f"));
	settle();
	fill_device("g");
	LE(size * 9 / 10, size_of("g"));
}

MTEST(full, a_failed_write_leaks_nothing, SMALL)
{
	uint64_t before;
	off_t size;
	int fd;

	size = fill_device("f");
	settle();
	before = free_bytes();
	fd = open_ok("f", O_RDWR);
	for (int i = 0; i < 50; i++) {
		static char buf[300000];

		if (pwrite(fd, buf, sizeof(buf), size + i * MIB) > 0)
			(void)fdatasync(fd);
		OK(ftruncate(fd, size));
	}
	settle();
	LE(before, free_bytes() + 128 * KIB);
	close(fd);
}
