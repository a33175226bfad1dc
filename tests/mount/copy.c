/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/copy.c - copy_file_range
 *
 * Whether blocks are shared or copied, the two files are independent after.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"

/* Copy it all, however many calls it takes; gives what could be copied. */
static off_t copy(int in, off_t from, int out, off_t to, size_t len)
{
	size_t done = 0;

	while (done < len) {
		off_t pos_in = from + (off_t)done, pos_out = to + (off_t)done;
		long long n = OK(copy_file_range(in, &pos_in, out, &pos_out,
						 len - done, 0));

		if (!n)
			break;
		EQ(pos_in, from + (off_t)done + n);
		EQ(pos_out, to + (off_t)done + n);
		done += (size_t)n;
	}
	return (off_t)done;
}

static void check_moved_pattern(int fd, off_t pos, off_t from, size_t len,
				uint64_t seed)
{
	unsigned char want[4096], got[4096];

	while (len) {
		size_t n = len < 4096 ? len : 4096;

		pattern(want, from, n, seed);
		EQ(pread_ok(fd, got, n, pos), n);
		MEMEQ(got, want, n);
		pos += (off_t)n;
		from += (off_t)n;
		len -= n;
	}
}

MTEST(copy, of_a_whole_file)
{
	int in = pattern_file("in", 300001, 1);
	int out = open_ok("out", O_RDWR | O_CREAT);

	EQ(copy(in, 0, out, 0, 300001), 300001);
	EQ(fstat_of(out).st_size, 300001);
	check_pattern(out, 0, 300001, 1);
	close_ok(in);
	close_ok(out);
}

MTEST(copy, at_odd_places)
{
	static const struct {
		off_t from, to;
		size_t len;
	} cases[] = { { 0, 0, 1 },
		      { 1, 0, 4096 },
		      { 0, 1, 4096 },
		      { 4095, 1, 2 },
		      { 100, 5000, 7 },
		      { 4096, 8192, 4096 },
		      { 77, 66, 100000 },
		      { 5, 5, 65536 },
		      { 2 * MIB, 0, MIB },
		      { 4096, 0, 200001 },
		      { 0, 2 * MIB - 100, 200 } };
	int in = pattern_file("in", 3 * MIB, 1);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int out = pattern_file("out", 3 * MIB, 2);
		off_t from = cases[i].from, to = cases[i].to;
		size_t len = cases[i].len;
		off_t end = to + (off_t)len;

		EQ(copy(in, from, out, to, len), len);
		EQ(fstat_of(out).st_size, 3 * MIB);
		check_pattern(out, 0, (size_t)to, 2);
		check_moved_pattern(out, to, from, len, 1);
		check_pattern(out, end, (size_t)(3 * MIB - end), 2);
		close_ok(out);
	}
	check_pattern(in, 0, 3 * MIB, 1);
	close_ok(in);
}

MTEST(copy, leaves_two_independent_files)
{
	int in = pattern_file("in", MIB, 1);
	int out = open_ok("out", O_RDWR | O_CREAT);

	EQ(copy(in, 0, out, 0, MIB), MIB);
	write_pattern(in, 100000, 5000, 2);
	write_pattern(out, 500000, 5000, 3);
	check_pattern(out, 0, 500000, 1);
	check_pattern(out, 500000, 5000, 3);
	check_pattern(in, 500000, 5000, 1);
	check_pattern(in, 100000, 5000, 2);
	OK(ftruncate(in, 50));
	check_pattern(out, 0, 500000, 1);
	OK(fallocate(out, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	check_pattern(in, 0, 50, 1);
	close_ok(in);
	OK(unlink("in"));
	check_pattern(out, 4096, 490000, 1);
	close_ok(out);
}

MTEST(copy, within_one_file)
{
	int fd = pattern_file("f", 100000, 1);

	EQ(copy(fd, 0, fd, 50000, 50000), 50000);
	check_pattern(fd, 0, 50000, 1);
	check_moved_pattern(fd, 50000, 0, 50000, 1);
	EQ(copy(fd, 0, fd, 200000, 4096), 4096);
	EQ(fstat_of(fd).st_size, 204096);
	check_zero(fd, 100000, 100000);
	check_moved_pattern(fd, 200000, 0, 4096, 1);
	close_ok(fd);
}

MTEST(copy, of_ranges_that_overlap_is_einval)
{
	int fd = pattern_file("f", 100000, 1);
	off_t from = 0, to = 100;

	FAILS(EINVAL, copy_file_range(fd, &from, fd, &to, 4096, 0));
	to = 0;
	FAILS(EINVAL, copy_file_range(fd, &from, fd, &to, 4096, 0));
	check_pattern(fd, 0, 100000, 1);
	close_ok(fd);
}

MTEST(copy, stops_at_the_end_of_the_source)
{
	int in = pattern_file("in", 5000, 1);
	int out = open_ok("out", O_RDWR | O_CREAT);
	off_t from = 5000, to = 0;

	EQ(copy(in, 1000, out, 0, 100000), 4000);
	EQ(fstat_of(out).st_size, 4000);
	EQ(copy_file_range(in, &from, out, &to, 100, 0), 0);
	from = 90000;
	EQ(copy_file_range(in, &from, out, &to, 100, 0), 0);
	EQ(fstat_of(out).st_size, 4000);
	from = 0;
	EQ(copy_file_range(in, &from, out, &to, 0, 0), 0);
	close_ok(in);
	close_ok(out);
}

MTEST(copy, with_an_enormous_length_copies_what_is_there)
{
	int in = pattern_file("in", 70000, 1);
	int out = open_ok("out", O_RDWR | O_CREAT);
	off_t from = 0, to = 0;
	size_t done = 0;
	long long n;

	while ((n = OK(copy_file_range(in, &from, out, &to, SSIZE_MAX / 2, 0))))
		done += (size_t)n;
	EQ(done, 70000);
	check_pattern(out, 0, 70000, 1);
	close_ok(in);
	close_ok(out);
}

MTEST(copy, uses_and_moves_the_offsets_without_positions)
{
	int in = pattern_file("in", 10000, 1);
	int out = open_ok("out", O_RDWR | O_CREAT);

	OK(lseek(in, 3000, SEEK_SET));
	OK(lseek(out, 500, SEEK_SET));
	EQ(copy_file_range(in, NULL, out, NULL, 2000, 0), 2000);
	EQ(lseek(in, 0, SEEK_CUR), 5000);
	EQ(lseek(out, 0, SEEK_CUR), 2500);
	check_zero(out, 0, 500);
	check_moved_pattern(out, 500, 3000, 2000, 1);
	close_ok(in);
	close_ok(out);
}

MTEST(copy, carries_holes_as_zeros)
{
	int in = open_ok("in", O_RDWR | O_CREAT);
	int out = pattern_file("out", 4 * MIB, 2);

	write_pattern(in, 0, 4096, 1);
	write_pattern(in, 3 * MIB, 4096, 1);
	OK(ftruncate(in, 4 * MIB));
	EQ(copy(in, 0, out, 0, 4 * MIB), 4 * MIB);
	check_pattern(out, 0, 4096, 1);
	check_zero(out, 4096, 3 * MIB - 4096);
	check_pattern(out, 3 * MIB, 4096, 1);
	check_zero(out, 3 * MIB + 4096, MIB - 4096);
	close_ok(in);
	close_ok(out);
}

MTEST(copy, carries_unwritten_blocks_as_zeros)
{
	int in = open_ok("in", O_RDWR | O_CREAT);
	int out = pattern_file("out", MIB, 2);

	OK(fallocate(in, 0, 0, MIB));
	write_pattern(in, 5000, 100, 1);
	EQ(copy(in, 0, out, 0, MIB), MIB);
	check_zero(out, 0, 5000);
	check_pattern(out, 5000, 100, 1);
	check_zero(out, 5100, MIB - 5100);
	close_ok(in);
	close_ok(out);
}

MTEST(copy, past_the_end_leaves_zeros_between)
{
	int in = pattern_file("in", 5000, 1);
	int out = pattern_file("out", 1000, 2);

	EQ(copy(in, 0, out, 20000, 5000), 5000);
	check_pattern(out, 0, 1000, 2);
	check_zero(out, 1000, 19000);
	check_moved_pattern(out, 20000, 0, 5000, 1);
	EQ(fstat_of(out).st_size, 25000);
	close_ok(in);
	close_ok(out);
}

MTEST(copy, refusals)
{
	int rd, wr, ap, dir = open_ok(".", O_RDONLY | O_DIRECTORY);
	int fd = pattern_file("f", 1000, 1);

	touch("g");
	rd = open_ok("g", O_RDONLY);
	wr = open_ok("f", O_WRONLY);
	ap = open_ok("g", O_RDWR | O_APPEND);
	FAILS(EBADF, copy_file_range(fd, NULL, rd, NULL, 10, 0));
	FAILS(EBADF, copy_file_range(wr, NULL, ap, NULL, 10, 0));
	FAILS(EBADF, copy_file_range(fd, NULL, ap, NULL, 10, 0));
	FAILS(EISDIR, copy_file_range(dir, NULL, wr, NULL, 10, 0));
	FAILS(EINVAL, copy_file_range(fd, NULL, wr, NULL, 10, 7));
	EQ(size_of("g"), 0);
}

MTEST(copy, of_a_large_file, .size = 512ull << 20)
{
	int in = pattern_file("in", 100 * MIB, 1);
	int out = open_ok("out", O_RDWR | O_CREAT);

	EQ(copy(in, 0, out, 0, 100 * MIB), 100 * MIB);
	check_pattern(out, 0, 100 * MIB, 1);
	close_ok(in);
	close_ok(out);
	if (!on(MNT_REMOUNT))
		return;
	remount(NULL);
	out = open_ok("out", O_RDONLY);
	check_pattern(out, 0, 100 * MIB, 1);
	close_ok(out);
}

MTEST(copy, of_what_was_just_written_through_a_mapping_or_buffer)
{
	int in = open_ok("in", O_RDWR | O_CREAT);
	int out = open_ok("out", O_RDWR | O_CREAT);

	for (int i = 0; i < 50; i++) {
		write_pattern(in, 0, 20000, (uint64_t)i);
		EQ(copy(in, 0, out, 0, 20000), 20000);
		check_pattern(out, 0, 20000, (uint64_t)i);
	}
	close_ok(in);
	close_ok(out);
}

MTEST(copy, moves_times_of_the_target_only)
{
	int in = pattern_file("in", 5000, 1);
	int out = open_ok("out", O_RDWR | O_CREAT);
	struct stat a, b;

	settle();
	a = fstat_of(in);
	b = fstat_of(out);
	tick();
	EQ(copy(in, 0, out, 0, 5000), 5000);
	CHECK(time_equal(a.st_mtim, fstat_of(in).st_mtim),
	      "mtime of the source moved");
	CHECK(time_before(b.st_mtim, fstat_of(out).st_mtim),
	      "mtime of the target did not move");
	CHECK(time_before(b.st_ctim, fstat_of(out).st_ctim),
	      "ctime of the target did not move");
	close_ok(in);
	close_ok(out);
}

MTEST(copy, cp_copies)
{
	close_ok(pattern_file("in", MIB + 5, 1));
	EQ(sandbox_exec((const char *[]){ "cp", "in", "out", NULL },
			"/dev/null"),
	   0);
	EQ(sandbox_exec((const char *[]){ "cmp", "in", "out", NULL },
			"/dev/null"),
	   0);
	EQ(size_of("out"), MIB + 5);
}
