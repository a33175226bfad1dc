/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/mmap.c - files as memory, and programs run from the mount
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"

#define RW (PROT_READ | PROT_WRITE)

static unsigned char *map(int fd, size_t len, int prot, int flags)
{
	void *p = mmap(NULL, len, prot, flags, fd, 0);

	CHECK(p != MAP_FAILED, "mmap: %s", mtest_errname(errno));
	return p;
}

MTEST(mmap, shared_read_sees_the_file)
{
	int fd = pattern_file("f", 100000, 1);
	unsigned char want[100000];
	unsigned char *p = map(fd, 100000, PROT_READ, MAP_SHARED);

	pattern(want, 0, sizeof(want), 1);
	MEMEQ(p, want, sizeof(want));
	close_ok(fd);
	MEMEQ(p, want, sizeof(want));
	OK(munmap(p, 100000));
}

MTEST(mmap, shared_write_reaches_the_file)
{
	int fd = pattern_file("f", 100000, 1);
	unsigned char *p = map(fd, 100000, RW, MAP_SHARED);

	pattern(p + 5000, 5000, 50000, 2);
	OK(msync(p, 100000, MS_SYNC));
	check_pattern(fd, 0, 5000, 1);
	check_pattern(fd, 5000, 50000, 2);
	check_pattern(fd, 55000, 45000, 1);
	OK(munmap(p, 100000));
	EQ(fstat_of(fd).st_size, 100000);
	close_ok(fd);
	if (!on(MNT_REMOUNT))
		return;
	remount(NULL);
	fd = open_ok("f", O_RDONLY);
	check_pattern(fd, 5000, 50000, 2);
	check_pattern(fd, 55000, 45000, 1);
	close_ok(fd);
}

MTEST(mmap, shared_write_without_msync_is_there_after_unmount,
      .needs = MNT_REMOUNT)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);
	unsigned char *p;

	OK(ftruncate(fd, 50000));
	p = map(fd, 50000, RW, MAP_SHARED);
	pattern(p, 0, 50000, 1);
	OK(munmap(p, 50000));
	close_ok(fd);
	remount(NULL);
	fd = open_ok("f", O_RDONLY);
	check_pattern(fd, 0, 50000, 1);
	close_ok(fd);
}

MTEST(mmap, sees_what_is_written_later)
{
	int fd = pattern_file("f", 20000, 1);
	unsigned char *p = map(fd, 20000, PROT_READ, MAP_SHARED);
	unsigned char want[20000];

	for (uint64_t seed = 2; seed < 50; seed++) {
		write_pattern(fd, 0, 20000, seed);
		pattern(want, 0, sizeof(want), seed);
		MEMEQ(p, want, sizeof(want));
	}
	OK(munmap(p, 20000));
	close_ok(fd);
}

MTEST(mmap, two_mappings_are_one)
{
	int fd = pattern_file("f", 8192, 1);
	unsigned char *a = map(fd, 8192, RW, MAP_SHARED);
	unsigned char *b = map(fd, 8192, RW, MAP_SHARED);
	int status;

	a[100] = 7;
	EQ(b[100], 7);
	if (!fork()) {
		a[101] = 8;
		_exit(0);
	}
	wait(&status);
	EQ(b[101], 8);
	OK(munmap(a, 8192));
	OK(munmap(b, 8192));
	close_ok(fd);
}

MTEST(mmap, private_write_stays_private)
{
	int fd = pattern_file("f", 8192, 1);
	unsigned char *p = map(fd, 8192, RW, MAP_PRIVATE);

	memset(p, 0, 8192);
	OK(msync(p, 8192, MS_SYNC));
	check_pattern(fd, 0, 8192, 1);
	OK(munmap(p, 8192));
	close_ok(fd);
}

MTEST(mmap, of_holes_and_unwritten_blocks)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);
	unsigned char *p;

	OK(ftruncate(fd, MIB));
	OK(fallocate(fd, 0, 500000, 100000));
	p = map(fd, MIB, RW, MAP_SHARED);
	for (size_t i = 0; i < MIB; i += 4096)
		EQ(p[i], 0);
	pattern(p + 10000, 10000, 100, 1);
	pattern(p + 550000, 550000, 100, 1);
	OK(msync(p, MIB, MS_SYNC));
	OK(munmap(p, MIB));
	check_zero(fd, 0, 10000);
	check_pattern(fd, 10000, 100, 1);
	check_zero(fd, 10100, 539900);
	check_pattern(fd, 550000, 100, 1);
	check_zero(fd, 550100, 100000);
	close_ok(fd);
}

static void expect_sigbus(volatile unsigned char *p)
{
	int status;

	fflush(stdout);
	if (!fork()) {
		signal(SIGBUS, SIG_DFL);
		(void)*p;
		_exit(0);
	}
	wait(&status);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS,
	      "no SIGBUS, wait status %#x", status);
}

MTEST(mmap, beyond_the_end_is_sigbus)
{
	int fd = pattern_file("f", 5000, 1);
	unsigned char *p = map(fd, 5 * 4096, RW, MAP_SHARED);

	EQ(p[4999], p[4999]);
	EQ(p[8191], 0);
	expect_sigbus(p + 8192);
	expect_sigbus(p + 4 * 4096);
	OK(ftruncate(fd, 100));
	EQ(p[100], 0);
	expect_sigbus(p + 4096);
	OK(munmap(p, 5 * 4096));
	close_ok(fd);
}

MTEST(mmap, rights_follow_the_descriptor)
{
	int fd;

	put("f", "x");
	fd = open_ok("f", O_RDONLY);
	CHECK(mmap(NULL, 4096, RW, MAP_SHARED, fd, 0) == MAP_FAILED &&
		      errno == EACCES,
	      "shared writable mapping of a read-only descriptor");
	close_ok(fd);
	fd = open_ok("f", O_WRONLY);
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED &&
		      errno == EACCES,
	      "mapping of a write-only descriptor");
	close_ok(fd);
}

MTEST(mmap, store_moves_mtime)
{
	int fd = pattern_file("f", 8192, 1);
	struct stat before, after;
	unsigned char *p;

	OK(fsync(fd));
	p = map(fd, 8192, RW, MAP_SHARED);
	before = fstat_of(fd);
	tick();
	p[0] = 1;
	OK(msync(p, 8192, MS_SYNC));
	after = fstat_of(fd);
	CHECK(time_before(before.st_mtim, after.st_mtim), "mtime did not move");
	CHECK(time_before(before.st_ctim, after.st_ctim), "ctime did not move");
	OK(munmap(p, 8192));
	close_ok(fd);
}

/* Stores and writes to different parts of the same pages, against memory. */
MTEST(mmap, stores_and_writes_mix, .timeout = 60)
{
	size_t len = 300000;
	unsigned char *want = malloc(len), *got = malloc(len), *p;
	int fd = pattern_file("f", len, 1);
	uint64_t state = 3;

	pattern(want, 0, len, 1);
	p = map(fd, len, RW, MAP_SHARED);
	for (uint64_t i = 0; i < 500; i++) {
		size_t pos = rnd(&state) % (len - 5000);
		size_t n = rnd(&state) % 5000;

		pattern(want + pos, (off_t)pos, n, i);
		if (rnd(&state) % 2) {
			memcpy(p + pos, want + pos, n);
			if (variant("cache=none"))
				OK(msync(p, len, MS_SYNC));
		} else {
			pwrite_ok(fd, want + pos, n, (off_t)pos);
		}
		MEMEQ(p + pos, want + pos, n);
		EQ(pread_ok(fd, got, n, (off_t)pos), n);
		MEMEQ(got, want + pos, n);
	}
	MEMEQ(p, want, len);
	OK(munmap(p, len));
	EQ(pread_ok(fd, got, len, 0), len);
	MEMEQ(got, want, len);
	close_ok(fd);
}

MTEST(mmap, punch_and_truncate_under_a_mapping)
{
	int fd = pattern_file("f", 100000, 1);
	unsigned char *p = map(fd, 100000, RW, MAP_SHARED);

	p[20000] = 1;
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192,
		     40960));
	for (size_t i = 8192; i < 8192 + 40960; i++)
		CHECK(!p[i], "byte %zu is %#x after the punch", i, p[i]);
	p[10000] = 5;
	OK(msync(p, 100000, MS_SYNC));
	check_zero(fd, 8192, 10000 - 8192);
	check_zero(fd, 10001, 30000);
	OK(munmap(p, 100000));
	close_ok(fd);
}

MTEST(mmap, copy_file_range_into_a_mapping_is_seen)
{
	int in = pattern_file("in", 40960, 2), fd = pattern_file("f", 40960, 1);
	unsigned char *p = map(fd, 40960, RW, MAP_SHARED);
	unsigned char want[40960];

	pattern(want, 0, sizeof(want), 2);
	EQ(p[0], p[0]);
	EQ(copy_file_range(in, NULL, fd, NULL, 40960, 0), 40960);
	MEMEQ(p, want, sizeof(want));
	OK(munmap(p, 40960));
	close_ok(in);
	close_ok(fd);
}

MTEST(mmap, stores_are_seen_by_copy_file_range)
{
	int in = pattern_file("in", 40960, 1);
	int out = open_ok("out", O_RDWR | O_CREAT);
	unsigned char *p = map(in, 40960, RW, MAP_SHARED);

	pattern(p, 0, 40960, 3);
	EQ(copy_file_range(in, NULL, out, NULL, 40960, 0), 40960);
	check_pattern(out, 0, 40960, 3);
	OK(munmap(p, 40960));
	close_ok(in);
	close_ok(out);
}

MTEST(mmap, large, .size = 512ull << 20)
{
	size_t len = 100 * MIB;
	int fd = open_ok("f", O_RDWR | O_CREAT);
	unsigned char *p;

	OK(ftruncate(fd, (off_t)len));
	p = map(fd, len, RW, MAP_SHARED);
	for (size_t i = 0; i < len; i += 4096)
		pattern(p + i, (off_t)i, 64, 1);
	OK(munmap(p, len));
	OK(fsync(fd));
	for (size_t i = 0; i < len; i += 64 * 4096)
		check_pattern(fd, (off_t)i, 64, 1);
	LE((blkcnt_t)(len / 512), blocks_of(fd));
	close_ok(fd);
}

/* What is stored behind the end of the file is no data. */
MTEST(mmap, tail_of_the_last_page_is_not_written, .not_on = MNT_TMPFS)
{
	int fd = pattern_file("f", 1000, 1);
	unsigned char *p = map(fd, 4096, RW, MAP_SHARED);

	p[500] = 0x77;
	memset(p + 1000, 0xee, 3096);
	OK(msync(p, 4096, MS_SYNC));
	OK(munmap(p, 4096));
	EQ(fstat_of(fd).st_size, 1000);
	close_ok(fd);
	if (on(MNT_REMOUNT))
		remount(NULL);
	fd = open_ok("f", O_RDWR);
	OK(ftruncate(fd, 4096));
	check_pattern(fd, 0, 500, 1);
	check_zero(fd, 1000, 3096);
	close_ok(fd);
}

/* --- programs
 * --------------------------------------------------------------------- */

static int run(const char *path)
{
	int status;

	fflush(stdout);
	if (!fork()) {
		execl(path, path, (char *)NULL);
		_exit(100);
	}
	wait(&status);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

MTEST(exec, of_a_program_on_the_mount)
{
	EQ(sandbox_exec((const char *[]){ "cp", "/bin/true", "t", NULL },
			"/dev/null"),
	   0);
	EQ(sandbox_exec((const char *[]){ "cp", "/bin/false", "f", NULL },
			"/dev/null"),
	   0);
	EQ(run("./t"), 0);
	EQ(run("./f"), 1);
	OK(rename("f", "t"));
	EQ(run("./t"), 1);
	if (on(MNT_REMOUNT))
		remount(NULL);
	EQ(run("./t"), 1);
}
