/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/fallocate.c - blocks given and taken by hand, and where data is
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

#define KEEP  FALLOC_FL_KEEP_SIZE
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO  FALLOC_FL_ZERO_RANGE

static void need_zero_range(void)
{
	int fd = open_ok("probe", O_RDWR | O_CREAT);

	if (fallocate(fd, ZERO, 0, 4096)) {
		EQ(errno, EOPNOTSUPP);
		CHECK(!on(MNT_FOLIOFS), "no FALLOC_FL_ZERO_RANGE");
		SKIP("no FALLOC_FL_ZERO_RANGE");
	}
	close_ok(fd);
	OK(unlink("probe"));
}

/* --- plain
 * ------------------------------------------------------------------------ */

MTEST(fallocate, grows_and_reads_zeros)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	OK(fallocate(fd, 0, 0, 100000));
	EQ(fstat_of(fd).st_size, 100000);
	check_zero(fd, 0, 100000);
	LE(100000 / 512, blocks_of(fd));
	OK(fallocate(fd, 0, 200000, 5000));
	EQ(fstat_of(fd).st_size, 205000);
	check_zero(fd, 100000, 105000);
	close_ok(fd);
}

MTEST(fallocate, keeps_data_that_is_there)
{
	int fd = pattern_file("f", 50000, 1);

	OK(fallocate(fd, 0, 10000, 100000));
	check_pattern(fd, 0, 50000, 1);
	check_zero(fd, 50000, 60000);
	EQ(fstat_of(fd).st_size, 110000);
	close_ok(fd);
}

MTEST(fallocate, keep_size_takes_blocks_beyond_the_end)
{
	int fd = pattern_file("f", 5000, 1);

	OK(fallocate(fd, KEEP, 0, MIB));
	EQ(fstat_of(fd).st_size, 5000);
	LE(MIB / 512, blocks_of(fd));
	check_pattern(fd, 0, 5000, 1);
	OK(ftruncate(fd, MIB));
	check_zero(fd, 5000, MIB - 5000);
	close_ok(fd);
}

MTEST(fallocate, then_write_takes_no_more_blocks)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);
	blkcnt_t before;

	OK(fallocate(fd, 0, 0, 4 * MIB));
	before = blocks_of(fd);
	write_pattern(fd, 0, 4 * MIB, 1);
	LE(blocks_of(fd), before + 32);
	check_pattern(fd, 0, 4 * MIB, 1);
	close_ok(fd);
}

MTEST(fallocate, part_of_an_unwritten_block_stays_zero)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	OK(fallocate(fd, 0, 0, 20000));
	write_pattern(fd, 5000, 100, 1);
	check_zero(fd, 0, 5000);
	check_pattern(fd, 5000, 100, 1);
	check_zero(fd, 5100, 14900);
	close_ok(fd);
}

MTEST(fallocate, never_shows_what_the_blocks_held)
{
	/* Fill the device with data, free it, and take it again unwritten. */
	int fd = pattern_file("old", 100 * MIB, 1);

	close_ok(fd);
	OK(unlink("old"));
	settle();
	fd = open_ok("f", O_RDWR | O_CREAT);
	OK(fallocate(fd, 0, 0, 100 * MIB));
	check_zero(fd, 0, 100 * MIB);
	if (on(MNT_REMOUNT)) {
		close_ok(fd);
		remount(NULL);
		fd = open_ok("f", O_RDWR);
	}
	write_pattern(fd, 50 * MIB + 5, 10, 2);
	check_zero(fd, 50 * MIB - 4096, 4096 + 5);
	check_zero(fd, 50 * MIB + 15, 10000);
	close_ok(fd);
}

MTEST(fallocate, refusals)
{
	int fd = open_ok("f", O_RDWR | O_CREAT), dir;
	int p[2];

	FAILS(EINVAL, fallocate(fd, 0, 0, 0));
	FAILS(EINVAL, fallocate(fd, 0, -1, 10));
	FAILS(EINVAL, fallocate(fd, 0, 0, -10));
	FAILS(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
	FAILS(EOPNOTSUPP, fallocate(fd, PUNCH | ZERO, 0, 10));
	FAILS(EOPNOTSUPP, fallocate(fd, 0x4000, 0, 10));
	EQ(fstat_of(fd).st_size, 0);
	close_ok(fd);
	fd = open_ok("f", O_RDONLY);
	FAILS(EBADF, fallocate(fd, 0, 0, 10));
	close_ok(fd);
	dir = open_ok(".", O_RDONLY | O_DIRECTORY);
	CHECK(fallocate(dir, 0, 0, 10) < 0, "fallocate of a directory");
	close_ok(dir);
	OK(pipe(p));
	FAILS(ESPIPE, fallocate(p[1], 0, 0, 10));
}

MTEST(fallocate, collapse_and_insert_work_or_refuse)
{
	int fd = pattern_file("f", 4 * 4096, 1);
	unsigned char want[4096], got[4096];

	if (fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096)) {
		EQ(errno, EOPNOTSUPP);
		check_pattern(fd, 0, 4 * 4096, 1);
		FAILS(EOPNOTSUPP,
		      fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096));
		return;
	}
	EQ(fstat_of(fd).st_size, 3 * 4096);
	pattern(want, 4096, sizeof(want), 1);
	EQ(pread_ok(fd, got, sizeof(got), 0), 4096);
	MEMEQ(got, want, sizeof(want));
	close_ok(fd);
}

/* ext4 keeps what it got before it failed. */
MTEST(fallocate, more_than_there_is_takes_nothing, .size = 64ull << 20,
      .not_on = MNT_EXT4)
{
	uint64_t before;
	int fd = open_ok("f", O_RDWR | O_CREAT);

	settle();
	before = free_bytes();
	FAILS(ENOSPC, fallocate(fd, 0, 0, (off_t)(mnt->size * 4)));
	settle();
	LE(before, free_bytes() + MIB);
	EQ(fstat_of(fd).st_size, 0);
	close_ok(fd);
	put("g", "there is space");
	must_hold("g", "there is space");
}

MTEST(fallocate, survives_a_remount, .needs = MNT_REMOUNT)
{
	int fd = pattern_file("f", 5000, 1);
	blkcnt_t blocks;

	OK(fallocate(fd, KEEP, 0, MIB));
	OK(fallocate(fd, 0, 2 * MIB, 8192));
	blocks = blocks_of(fd);
	close_ok(fd);
	remount(NULL);
	fd = open_ok("f", O_RDWR);
	EQ(blocks_of(fd), blocks);
	EQ(fstat_of(fd).st_size, 2 * MIB + 8192);
	check_pattern(fd, 0, 5000, 1);
	check_zero(fd, 5000, 2 * MIB + 8192 - 5000);
	write_pattern(fd, 2 * MIB + 10, 100, 2);
	check_zero(fd, 2 * MIB, 10);
	check_zero(fd, 2 * MIB + 110, 8000);
	close_ok(fd);
}

/* --- punch
 * ------------------------------------------------------------------------- */

struct range {
	off_t pos, len;
};

static const struct range ranges[] = {
	{ 0, 4096 },	      { 4096, 8192 },	 { 100, 200 },
	{ 4000, 200 },	      { 100, 12000 },	 { 4096, 100 },
	{ 8000, 192 },	      { 2 * MIB, MIB },	 { 2 * MIB - 100, 200 },
	{ MIB, 3 * MIB + 5 }, { 0, 5 * MIB + 1 }
};

#define NR_RANGES  (sizeof(ranges) / sizeof(ranges[0]))
#define RANGE_FILE (5 * MIB + 1)

/* fallocate() with this mode zeroes each range and nothing else. */
static void check_zeroing(int mode)
{
	for (size_t i = 0; i < NR_RANGES; i++) {
		off_t pos = ranges[i].pos, end = pos + ranges[i].len;
		int fd = pattern_file("f", RANGE_FILE, i);

		OK(fallocate(fd, mode, pos, end - pos));
		EQ(fstat_of(fd).st_size, RANGE_FILE);
		check_pattern(fd, 0, (size_t)pos, i);
		check_zero(fd, pos, (size_t)(end - pos));
		check_pattern(fd, end, (size_t)(RANGE_FILE - end), i);
		close_ok(fd);
	}
}

MTEST(punch, zeroes_exactly_the_range)
{
	check_zeroing(PUNCH);
}

/* XFS has blocks beyond the end, too, after such a write. */
MTEST(punch, gives_blocks_back, .not_on = MNT_XFS)
{
	int fd = pattern_file("f", 4 * MIB, 1);
	blkcnt_t before;

	before = blocks_of(fd);
	OK(fallocate(fd, PUNCH, MIB, 2 * MIB));
	LE(blocks_of(fd), before - 2 * MIB / 512 + 32);
	OK(fallocate(fd, PUNCH, 0, 4 * MIB));
	LE(blocks_of(fd), 0);
	EQ(fstat_of(fd).st_size, 4 * MIB);
	close_ok(fd);
}

MTEST(punch, beyond_the_end_changes_no_size)
{
	int fd = pattern_file("f", 5000, 1);

	OK(fallocate(fd, PUNCH, 4000, 100000));
	EQ(fstat_of(fd).st_size, 5000);
	check_pattern(fd, 0, 4000, 1);
	check_zero(fd, 4000, 1000);
	OK(fallocate(fd, PUNCH, 50000, 1000));
	EQ(fstat_of(fd).st_size, 5000);
	OK(fallocate(fd, PUNCH, 1000, TIB));
	check_pattern(fd, 0, 1000, 1);
	check_zero(fd, 1000, 4000);
	close_ok(fd);
}

MTEST(punch, then_write_again)
{
	int fd = pattern_file("f", MIB, 1);

	for (int i = 0; i < 20; i++) {
		OK(fallocate(fd, PUNCH, i * 40000, 30000));
		write_pattern(fd, i * 40000 + 10000, 10000, 2);
		check_zero(fd, i * 40000, 10000);
		check_pattern(fd, i * 40000 + 10000, 10000, 2);
		check_zero(fd, i * 40000 + 20000, 10000);
		check_pattern(fd, i * 40000 + 30000, 10000, 1);
	}
	close_ok(fd);
}

MTEST(punch, of_a_hole_is_fine)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	OK(ftruncate(fd, TIB));
	OK(fallocate(fd, PUNCH, 0, TIB));
	OK(fallocate(fd, PUNCH, GIB + 5, GIB));
	EQ(fstat_of(fd).st_size, TIB);
	EQ(blocks_of(fd), 0);
	close_ok(fd);
}

/* ext4 looks at the range up to the end only. */
MTEST(punch, drops_what_was_set_aside_beyond_the_end, .not_on = MNT_EXT4)
{
	int fd = pattern_file("f", 4096, 1);

	OK(fallocate(fd, KEEP, 0, MIB));
	OK(fallocate(fd, PUNCH, 4096, MIB));
	LE(blocks_of(fd), 32);
	check_pattern(fd, 0, 4096, 1);
	close_ok(fd);
}

/* --- zero range
 * ---------------------------------------------------------------------- */

MTEST(zero_range, zeroes_exactly_the_range)
{
	need_zero_range();
	check_zeroing(ZERO);
	check_zeroing(ZERO | KEEP);
}

MTEST(zero_range, grows_unless_told_not_to)
{
	int fd;

	need_zero_range();
	fd = pattern_file("f", 5000, 1);
	OK(fallocate(fd, ZERO | KEEP, 4000, 10000));
	EQ(fstat_of(fd).st_size, 5000);
	check_pattern(fd, 0, 4000, 1);
	check_zero(fd, 4000, 1000);
	OK(fallocate(fd, ZERO, 3000, 10000));
	EQ(fstat_of(fd).st_size, 13000);
	check_pattern(fd, 0, 3000, 1);
	check_zero(fd, 3000, 10000);
	close_ok(fd);
}

MTEST(zero_range, takes_blocks_for_holes)
{
	int fd;

	need_zero_range();
	fd = open_ok("f", O_RDWR | O_CREAT);
	OK(ftruncate(fd, 4 * MIB));
	OK(fallocate(fd, ZERO, 0, 4 * MIB));
	LE(4 * MIB / 512, blocks_of(fd));
	check_zero(fd, 0, 4 * MIB);
	write_pattern(fd, 100, 100, 1);
	check_zero(fd, 0, 100);
	check_zero(fd, 200, 5000);
	close_ok(fd);
}

/* Everything mixed, against memory. */
MTEST(fallocate, random_modes_equal_memory, .timeout = 60)
{
	static unsigned char want[MIB + 70000], got[MIB + 70000];
	int fd = open_ok("f", O_RDWR | O_CREAT);
	uint64_t state = 11;
	size_t size = 0;

	for (int i = 0; i < 600; i++) {
		size_t pos = rnd(&state) % MIB, len = 1 + rnd(&state) % 65000;
		unsigned int op = (unsigned int)(rnd(&state) % 5);

		if (op == 0) {
			write_pattern(fd, (off_t)pos, len, (uint64_t)i);
			pattern(want + pos, (off_t)pos, len, (uint64_t)i);
		} else if (op == 1) {
			OK(ftruncate(fd, (off_t)pos));
			if (pos < size)
				memset(want + pos, 0, size - pos);
			size = pos;
			continue;
		} else if (op == 2) {
			OK(fallocate(fd, 0, (off_t)pos, (off_t)len));
		} else if (op == 3) {
			OK(fallocate(fd, PUNCH, (off_t)pos, (off_t)len));
			memset(want + pos, 0, len);
			continue;
		} else if (!fallocate(fd, ZERO, (off_t)pos, (off_t)len)) {
			memset(want + pos, 0, len);
		} else {
			continue;
		}
		if (pos + len > size)
			size = pos + len;
	}
	EQ(fstat_of(fd).st_size, size);
	EQ(pread_ok(fd, got, sizeof(got), 0), size);
	MEMEQ(got, want, size);
	close_ok(fd);
}

/*
 * The kernel does not write back before it asks where data is, so that behind
 * a write-back cache the one safe answer is: everywhere.
 */
static void need_exact_seek(void)
{
	if (variant("cache=writeback"))
		SKIP("not behind a write-back cache");
}

/* --- SEEK_DATA, SEEK_HOLE
 * -------------------------------------------------------------- */

MTEST(seek, in_a_file_of_data_only)
{
	int fd = pattern_file("f", 10000, 1);

	EQ(lseek(fd, 0, SEEK_DATA), 0);
	EQ(lseek(fd, 5000, SEEK_DATA), 5000);
	EQ(lseek(fd, 0, SEEK_HOLE), 10000);
	EQ(lseek(fd, 9999, SEEK_HOLE), 10000);
	FAILS(ENXIO, lseek(fd, 10000, SEEK_DATA));
	FAILS(ENXIO, lseek(fd, 10000, SEEK_HOLE));
	FAILS(ENXIO, lseek(fd, 20000, SEEK_HOLE));
	FAILS(ENXIO, lseek(fd, -1, SEEK_DATA));
	close_ok(fd);
}

MTEST(seek, in_a_file_of_holes_only)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	need_exact_seek();
	FAILS(ENXIO, lseek(fd, 0, SEEK_DATA));
	FAILS(ENXIO, lseek(fd, 0, SEEK_HOLE));
	OK(ftruncate(fd, TIB));
	FAILS(ENXIO, lseek(fd, 0, SEEK_DATA));
	EQ(lseek(fd, 0, SEEK_HOLE), 0);
	EQ(lseek(fd, GIB + 7, SEEK_HOLE), GIB + 7);
	FAILS(ENXIO, lseek(fd, GIB, SEEK_DATA));
	close_ok(fd);
}

/* ext4 and XFS give pages here, tmpfs too: all of them have 4 KiB blocks. */
MTEST(seek, finds_islands)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	need_exact_seek();
	write_pattern(fd, 64 * KIB, 4096, 1);
	write_pattern(fd, 3 * GIB + 5, 100, 1);
	write_pattern(fd, 5 * TIB, 8192, 1);
	OK(ftruncate(fd, 6 * TIB));
	OK(fsync(fd));
	EQ(lseek(fd, 0, SEEK_HOLE), 0);
	EQ(lseek(fd, 0, SEEK_DATA), 64 * KIB);
	EQ(lseek(fd, 64 * KIB + 5, SEEK_DATA), 64 * KIB + 5);
	EQ(lseek(fd, 64 * KIB, SEEK_HOLE), 68 * KIB);
	EQ(lseek(fd, 68 * KIB, SEEK_DATA), 3 * GIB);
	EQ(lseek(fd, 3 * GIB, SEEK_HOLE), 3 * GIB + 4096);
	EQ(lseek(fd, 4 * GIB, SEEK_DATA), 5 * TIB);
	EQ(lseek(fd, 5 * TIB + 1, SEEK_HOLE), 5 * TIB + 8192);
	FAILS(ENXIO, lseek(fd, 5 * TIB + 8192, SEEK_DATA));
	EQ(lseek(fd, 6 * TIB - 1, SEEK_HOLE), 6 * TIB - 1);
	close_ok(fd);
}

MTEST(seek, sees_a_punched_hole)
{
	int fd = pattern_file("f", 64 * KIB, 1);

	need_exact_seek();
	OK(fsync(fd));
	OK(fallocate(fd, PUNCH, 16 * KIB, 16 * KIB));
	EQ(lseek(fd, 0, SEEK_HOLE), 16 * KIB);
	EQ(lseek(fd, 16 * KIB, SEEK_DATA), 32 * KIB);
	EQ(lseek(fd, 32 * KIB, SEEK_HOLE), 64 * KIB);
	close_ok(fd);
}

MTEST(seek, never_calls_data_a_hole)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);
	unsigned char buf[4096];
	uint64_t state = 3;
	off_t pos = 0;

	OK(fallocate(fd, 0, 0, 4 * MIB));
	for (int i = 0; i < 60; i++)
		write_pattern(fd, (off_t)(rnd(&state) % (4 * MIB)), 700, 1);
	while (pos < 4 * MIB) {
		off_t data = lseek(fd, pos, SEEK_DATA);

		if (data < 0)
			data = 4 * MIB;
		while (pos < data) {
			size_t len = (size_t)(data - pos);

			len = pread_ok(fd, buf, len < 4096 ? len : 4096, pos);
			for (size_t i = 0; i < len; i++)
				CHECK(!buf[i], "data at %lld, in a hole",
				      (long long)pos + (long long)i);
			pos += (off_t)len;
		}
		if (data < 4 * MIB)
			pos = OK(lseek(fd, data, SEEK_HOLE));
	}
	close_ok(fd);
}

MTEST(seek, moves_the_offset_of_the_descriptor)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	need_exact_seek();
	write_pattern(fd, 64 * KIB, 4096, 1);
	OK(fsync(fd));
	EQ(lseek(fd, 10, SEEK_SET), 10);
	EQ(lseek(fd, 0, SEEK_DATA), 64 * KIB);
	EQ(lseek(fd, 0, SEEK_CUR), 64 * KIB);
	EQ(lseek(fd, 0, SEEK_END), 68 * KIB);
	FAILS(ENXIO, lseek(fd, TIB, SEEK_DATA));
	EQ(lseek(fd, 0, SEEK_CUR), 68 * KIB);
	close_ok(fd);
}
