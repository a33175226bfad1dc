/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/truncate.c - sizes: down, up, and files with much air in them
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

#define MAX_SIZE (16 * TIB)

/*
 * The largest size that all of them can have; ext4 stops one block below 16
 * TiB.
 */
static off_t large_size(void)
{
	return on(MNT_EXT4) ? MAX_SIZE - 4096 : MAX_SIZE;
}

/* --- down and up
 * ----------------------------------------------------------------- */

MTEST(truncate, down_and_up_leaves_zeros)
{
	static const off_t cut[] = {
		0,    1,    100,	 4095,	  4096,	       4097,
		8191, 8192, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 3 * MIB
	};
	size_t size = 3 * MIB + 77;

	for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
		int fd = pattern_file("f", size, i);

		OK(ftruncate(fd, cut[i]));
		EQ(fstat_of(fd).st_size, cut[i]);
		OK(ftruncate(fd, (off_t)size));
		EQ(fstat_of(fd).st_size, size);
		check_pattern(fd, 0, (size_t)cut[i], i);
		check_zero(fd, cut[i], size - (size_t)cut[i]);
		close_ok(fd);
	}
}

MTEST(truncate, stale_tail_is_gone_after_remount, .needs = MNT_REMOUNT)
{
	int fd = pattern_file("f", 10000, 1);

	OK(ftruncate(fd, 5000));
	close_ok(fd);
	remount(NULL);
	OK(truncate("f", 10000));
	remount(NULL);
	fd = open_ok("f", O_RDONLY);
	check_pattern(fd, 0, 5000, 1);
	check_zero(fd, 5000, 5000);
	close_ok(fd);
}

/* Each way to grow must show zeros where the old tail was. */
MTEST(truncate, stale_tail_never_comes_back_by_growing)
{
	for (int way = 0; way < 5; way++) {
		int fd = pattern_file("f", 4000, 1), in;

		OK(ftruncate(fd, 1000));
		switch (way) {
		case 0:
			OK(ftruncate(fd, 8000));
			break;
		case 1:
			write_pattern(fd, 7000, 1000, 2);
			break;
		case 2:
			OK(fallocate(fd, 0, 0, 8000));
			break;
		case 3:
			if (fallocate(fd, FALLOC_FL_ZERO_RANGE, 7000, 1000))
				OK(ftruncate(fd, 8000));
			break;
		default:
			in = pattern_file("in", 1000, 3);
			EQ(copy_file_range(in, NULL, fd, &(off_t){ 7000 }, 1000,
					   0),
			   1000);
			close_ok(in);
		}
		EQ(fstat_of(fd).st_size, 8000);
		check_pattern(fd, 0, 1000, 1);
		check_zero(fd, 1000, 6000);
		close_ok(fd);
	}
}

/* The same when the write that grows the file starts within the old block. */
MTEST(truncate, stale_tail_before_a_write_in_the_same_block)
{
	int fd = pattern_file("f", 4096, 1);

	OK(ftruncate(fd, 100));
	write_pattern(fd, 3000, 50, 2);
	check_pattern(fd, 0, 100, 1);
	check_zero(fd, 100, 2900);
	check_pattern(fd, 3000, 50, 2);
	OK(ftruncate(fd, 4096));
	check_zero(fd, 3050, 1046);
	close_ok(fd);
}

MTEST(truncate, to_the_same_size_keeps_data)
{
	int fd = pattern_file("f", 5000, 1);

	OK(ftruncate(fd, 5000));
	OK(truncate("f", 5000));
	check_pattern(fd, 0, 5000, 1);
	close_ok(fd);
}

MTEST(truncate, refusals)
{
	int fd;

	put("f", "x");
	OK(mkdir("d", 0755));
	FAILS(EINVAL, truncate("f", -1));
	FAILS(EISDIR, truncate("d", 0));
	FAILS(ENOENT, truncate("x", 0));
	fd = open_ok("f", O_RDONLY);
	FAILS(EINVAL, ftruncate(fd, 0));
	close_ok(fd);
	must_hold("f", "x");
}

MTEST(truncate, through_a_symlink)
{
	put("f", "0123456789");
	OK(symlink("f", "l"));
	OK(truncate("l", 4));
	must_hold("f", "0123");
}

MTEST(truncate, gives_blocks_back)
{
	int fd = pattern_file("f", 4 * MIB, 1);

	LE(4 * MIB / 512, blocks_of(fd));
	OK(ftruncate(fd, 2 * MIB));
	LE(blocks_of(fd), 2 * MIB / 512 + 64);
	OK(ftruncate(fd, 0));
	LE(blocks_of(fd), 0);
	close_ok(fd);
}

MTEST(truncate, is_seen_in_a_mapping)
{
	int fd = pattern_file("f", 8192, 1);
	unsigned char *p =
		mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	unsigned char want[8192];

	CHECK(p != MAP_FAILED, "mmap: %s", mtest_errname(errno));
	pattern(want, 0, sizeof(want), 1);
	MEMEQ(p, want, sizeof(want));
	OK(ftruncate(fd, 1000));
	OK(ftruncate(fd, 8192));
	memset(want + 1000, 0, sizeof(want) - 1000);
	MEMEQ(p, want, sizeof(want));
	OK(munmap(p, 8192));
	close_ok(fd);
}

MTEST(truncate, many_times_against_memory)
{
	static unsigned char want[200000];
	int fd = open_ok("f", O_RDWR | O_CREAT);
	uint64_t state = 5;
	size_t size = 0;

	for (int i = 0; i < 400; i++) {
		size_t to = rnd(&state) % sizeof(want);
		size_t len = rnd(&state) % 5000;

		OK(ftruncate(fd, (off_t)to));
		if (to < size)
			memset(want + to, 0, size - to);
		size = to;
		if (to + len > sizeof(want))
			continue;
		write_pattern(fd, (off_t)to, len, (uint64_t)i);
		pattern(want + to, (off_t)to, len, (uint64_t)i);
		size += len;
	}
	for (size_t at = 0; at < size; at += 4096) {
		unsigned char buf[4096];
		size_t got = pread_ok(fd, buf, sizeof(buf), (off_t)at);

		MEMEQ(buf, want + at, got);
	}
	EQ(fstat_of(fd).st_size, size);
	close_ok(fd);
}

MTEST(truncate, of_a_running_program_is_etxtbsy)
{
	pid_t pid;
	int p[2];
	char c;

	EQ(sandbox_exec((const char *[]){ "cp", "/bin/sleep", "prog", NULL },
			"/dev/null"),
	   0);
	OK(pipe2(p, O_CLOEXEC));
	pid = fork();
	if (!pid) {
		execl("./prog", "prog", "100", (char *)NULL);
		_exit(127);
	}
	close(p[1]);
	/* The exec closes the pipe. */
	EQ(read(p[0], &c, 1), 0);
	FAILS(ETXTBSY, truncate("prog", 0));
	FAILS(ETXTBSY, open("prog", O_WRONLY));
	kill(pid, 9);
	waitpid(pid, NULL, 0);
	OK(truncate("prog", 0));
}

/* --- sparse
 * ------------------------------------------------------------------------ */

MTEST(sparse, to_16_tib)
{
	off_t end = on(MNT_TMPFS) ? 7 * TIB : large_size();
	int fd = open_ok("f", O_RDWR | O_CREAT);

	OK(ftruncate(fd, end));
	EQ(fstat_of(fd).st_size, end);
	EQ(blocks_of(fd), 0);
	check_zero(fd, 0, 8192);
	check_zero(fd, end - 8192, 8192);
	write_pattern(fd, end - 5000, 5000, 1);
	check_pattern(fd, end - 5000, 5000, 1);
	check_zero(fd, end - 8192, 3192);
	/* A store to a hole may take the 2 MiB that a mapping likes best. */
	LE(blocks_of(fd), variant("dax=always") ? 4096 : 1024);
	EQ(pread(fd, &(char){ 0 }, 1, end), 0);
	close_ok(fd);
	if (on(MNT_REMOUNT))
		remount(NULL);
	fd = open_ok("f", O_RDWR);
	EQ(fstat_of(fd).st_size, end);
	check_pattern(fd, end - 5000, 5000, 1);
	OK(ftruncate(fd, 10));
	LE(blocks_of(fd), 8);
	close_ok(fd);
}

static const off_t islands[] = { 0,	  5000,	   2 * MIB,	  3 * GIB / 2,
				 2 * GIB, 4 * GIB, 512 * GIB,	  TIB,
				 3 * TIB, 6 * TIB, 7 * TIB - 9999 };

#define NR_ISLANDS (sizeof(islands) / sizeof(islands[0]))

static void check_islands(int fd)
{
	for (size_t i = 0; i < NR_ISLANDS; i++) {
		check_pattern(fd, islands[i], 3000, i);
		if (i + 1 < NR_ISLANDS)
			check_zero(fd, islands[i + 1] - 1500, 1500);
	}
}

MTEST(sparse, islands_from_0_to_7_tib)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	for (size_t i = NR_ISLANDS; i-- > 0;)
		write_pattern(fd, islands[i], 3000, i);
	check_islands(fd);
	close_ok(fd);
	if (on(MNT_REMOUNT))
		remount(NULL);
	fd = open_ok("f", O_RDWR);
	check_islands(fd);
	OK(ftruncate(fd, 2 * GIB + 1000));
	OK(ftruncate(fd, 8 * GIB));
	check_pattern(fd, 2 * GIB, 1000, 4);
	check_zero(fd, 2 * GIB + 1000, 10000);
	check_zero(fd, 4 * GIB, 5000);
	check_pattern(fd, 3 * GIB / 2, 3000, 3);
	close_ok(fd);
}

MTEST(sparse, holes_take_no_space)
{
	uint64_t before;
	int fd = open_ok("f", O_RDWR | O_CREAT);

	settle();
	before = free_bytes();
	for (int i = 0; i < 10; i++)
		write_pattern(fd, i * GIB, 4096, 1);
	OK(fsync(fd));
	settle();
	LE(before, free_bytes() + 2 * MIB);
	LE(blocks_of(fd), 2 * MIB / 512);
	close_ok(fd);
}

MTEST(sparse, beyond_the_maximum_is_efbig, .not_on = MNT_XFS)
{
	off_t far = (off_t)1 << 62;
	int fd = open_ok("f", O_RDWR | O_CREAT);

	put("g", "x");
	if (!ftruncate(fd, far))
		SKIP("sizes up to 2^62 are possible");
	EQ(errno, EFBIG);
	if (!variant("cache=writeback"))
		FAILS(EFBIG, pwrite(fd, "x", 1, far));
	FAILS(EFBIG, truncate("g", far));
	FAILS(EFBIG, fallocate(fd, 0, far, 4096));
	EQ(fstat_of(fd).st_size, 0);
	must_hold("g", "x");
	close_ok(fd);
}

MTEST(sparse, removing_one_is_fast, .timeout = 10)
{
	off_t end = on(MNT_TMPFS) ? 7 * TIB : large_size();

	for (int i = 0; i < 20; i++) {
		int fd = open_ok("f", O_RDWR | O_CREAT);

		OK(ftruncate(fd, end));
		write_pattern(fd, end / 2, 100, 1);
		write_pattern(fd, end - 100, 100, 1);
		close_ok(fd);
		OK(unlink("f"));
	}
}
