/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/rw.c - reading and writing, by every way in
 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

/* --- open --------------------------------------------------------------------
 */

MTEST(open, trunc_drops_all_data)
{
	int fd = pattern_file("f", 10000, 1);

	close_ok(fd);
	fd = open_ok("f", O_RDWR | O_TRUNC);
	EQ(fstat_of(fd).st_size, 0);
	write_pattern(fd, 0, 1000, 2);
	EQ(fstat_of(fd).st_size, 1000);
	OK(ftruncate(fd, 10000));
	check_pattern(fd, 0, 1000, 2);
	check_zero(fd, 1000, 9000);
	close_ok(fd);
}

MTEST(open, trunc_is_seen_through_other_descriptors)
{
	int fd = pattern_file("f", 10000, 1);
	char buf[16];

	close_ok(open_ok("f", O_WRONLY | O_TRUNC));
	EQ(fstat_of(fd).st_size, 0);
	EQ(pread(fd, buf, sizeof(buf), 0), 0);
	close_ok(fd);
}

MTEST(open, trunc_by_creat_on_an_existing_file)
{
	close_ok(pattern_file("f", 10000, 1));
	close_ok((int)OK(creat("f", 0600)));
	EQ(size_of("f"), 0);
	EQ(mode_of("f"), 0644);
	EQ(lstat_of("f").st_blocks, 0);
}

MTEST(open, mode_limits_what_a_descriptor_can_do)
{
	char buf[4] = "abc";
	int fd;

	put("f", "text");
	fd = open_ok("f", O_RDONLY);
	FAILS(EBADF, pwrite(fd, buf, 4, 0));
	FAILS(EINVAL, ftruncate(fd, 0));
	FAILS(EBADF, fallocate(fd, 0, 0, 100));
	close_ok(fd);
	fd = open_ok("f", O_WRONLY);
	FAILS(EBADF, pread(fd, buf, 4, 0));
	close_ok(fd);
	fd = open_ok("f", O_PATH);
	FAILS(EBADF, pread(fd, buf, 4, 0));
	close_ok(fd);
	fd = open_ok(".", O_RDONLY);
	FAILS(EISDIR, pread(fd, buf, 4, 0));
	close_ok(fd);
	must_hold("f", "text");
}

/* --- read and write
 * ------------------------------------------------------------ */

MTEST(read, stops_at_the_end)
{
	char buf[100];
	int fd = pattern_file("f", 5000, 1);

	EQ(pread(fd, buf, 100, 4950), 50);
	EQ(pread(fd, buf, 100, 5000), 0);
	EQ(pread(fd, buf, 100, 1 << 30), 0);
	EQ(pread(fd, buf, 0, 0), 0);
	FAILS(EINVAL, pread(fd, buf, 1, -1));
	close_ok(fd);
}

MTEST(write, at_odd_places_and_lengths)
{
	static const off_t pos[] = { 0,	   1,	 4095,	4096,
				     4097, 8191, 65535, 2 * MIB - 1 };
	static const size_t len[] = { 1, 2, 255, 256, 257, 4095, 4096, 70001 };
	int fd = open_ok("f", O_RDWR | O_CREAT);

	for (size_t i = 0; i < 8; i++) {
		for (size_t j = 0; j < 8; j++) {
			OK(ftruncate(fd, 0));
			write_pattern(fd, pos[i], len[j], i * 8 + j);
			EQ(fstat_of(fd).st_size, pos[i] + (off_t)len[j]);
			check_zero(fd, 0, (size_t)pos[i]);
			check_pattern(fd, pos[i], len[j], i * 8 + j);
		}
	}
	close_ok(fd);
}

MTEST(write, past_the_end_leaves_zeros_between)
{
	int fd = pattern_file("f", 100, 1);

	write_pattern(fd, 9000, 100, 2);
	check_pattern(fd, 0, 100, 1);
	check_zero(fd, 100, 8900);
	check_pattern(fd, 9000, 100, 2);
	EQ(fstat_of(fd).st_size, 9100);
	close_ok(fd);
}

MTEST(write, of_nothing_changes_nothing)
{
	int fd = pattern_file("f", 100, 1);
	struct stat before, after;

	settle();
	before = fstat_of(fd);
	tick();
	EQ(pwrite(fd, "", 0, 0), 0);
	EQ(pwrite(fd, "", 0, 1000), 0);
	after = fstat_of(fd);
	EQ(after.st_size, 100);
	CHECK(time_equal(before.st_mtim, after.st_mtim), "mtime moved");
	close_ok(fd);
}

MTEST(write, bad_arguments)
{
	void *bad =
		mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open_ok("f", O_RDWR | O_CREAT);

	FAILS(EINVAL, pwrite(fd, "x", 1, -1));
	FAILS(EINVAL, lseek(fd, -1, SEEK_SET));
	FAILS(EINVAL, lseek(fd, 0, 99));
	FAILS(EFAULT, pwrite(fd, bad, 1, 0));
	EQ(fstat_of(fd).st_size, 0);
	pwrite_ok(fd, "x", 1, 0);
	FAILS(EFAULT, pread(fd, bad, 1, 0));
	close_ok(fd);
}

#define FUZZ_SIZE (1 << 20)

/* Random reads, writes and truncates against a copy in memory. */
static void fuzz_against_memory(int flags, uint64_t state)
{
	static unsigned char want[FUZZ_SIZE], buf[FUZZ_SIZE];
	int fd = open_ok("f", O_RDWR | O_CREAT | O_TRUNC | flags);
	size_t size = 0;

	memset(want, 0, sizeof(want));
	for (int i = 0; i < 1500; i++) {
		size_t pos = rnd(&state) % FUZZ_SIZE;
		size_t len = rnd(&state) % (rnd(&state) % 2 ? 300 : 150000);

		if (pos + len > FUZZ_SIZE)
			len = FUZZ_SIZE - pos;
		switch (rnd(&state) % 8) {
		case 0:
			OK(ftruncate(fd, (off_t)pos));
			if (pos < size)
				memset(want + pos, 0, size - pos);
			size = pos;
			break;
		case 1:
		case 2:
		case 3:
			pattern(want + pos, (off_t)pos, len, (uint64_t)i);
			pwrite_ok(fd, want + pos, len, (off_t)pos);
			if (len && pos + len > size)
				size = pos + len;
			break;
		default:
			len = pread_ok(fd, buf, len, (off_t)pos);
			MEMEQ(buf, want + pos, len);
		}
	}
	EQ(fstat_of(fd).st_size, size);
	EQ(pread_ok(fd, buf, FUZZ_SIZE, 0), size);
	MEMEQ(buf, want, size);
	close_ok(fd);
	if (!on(MNT_REMOUNT))
		return;
	remount(NULL);
	fd = open_ok("f", O_RDONLY);
	EQ(pread_ok(fd, buf, FUZZ_SIZE, 0), size);
	MEMEQ(buf, want, size);
	close_ok(fd);
}

MTEST(write, random_places_equal_memory)
{
	fuzz_against_memory(0, 1);
	fuzz_against_memory(0, 2);
}

MTEST(write, random_places_equal_memory_with_sync)
{
	fuzz_against_memory(O_SYNC, 3);
}

MTEST(write, vectors_of_odd_pieces)
{
	unsigned char a[100], b[5000], c[1], all[5101], back[5101];
	struct iovec iov[] = { { a, 100 }, { b, 5000 }, { NULL, 0 }, { c, 1 } };
	int fd = open_ok("f", O_RDWR | O_CREAT);

	pattern(all, 0, sizeof(all), 1);
	memcpy(a, all, 100);
	memcpy(b, all + 100, 5000);
	c[0] = all[5100];
	EQ(pwritev(fd, iov, 4, 3000), 5101);
	EQ(pread_ok(fd, back, sizeof(back), 3000), sizeof(back));
	MEMEQ(back, all, sizeof(all));
	memset(b, 0, sizeof(b));
	EQ(preadv(fd, iov, 4, 3000), 5101);
	MEMEQ(b, all + 100, 5000);
	close_ok(fd);
}

MTEST(write, of_64_mib_in_one_call)
{
	size_t len = 64 * MIB;
	unsigned char *buf = malloc(len), *back = malloc(len);
	int fd = open_ok("f", O_RDWR | O_CREAT);

	memset(buf, 7, len);
	for (size_t i = 0; i < len; i += 4096)
		pattern(buf + i, (off_t)i, 64, 1);
	pwrite_ok(fd, buf, len, 0);
	EQ(fstat_of(fd).st_size, len);
	EQ(pread_ok(fd, back, len, 0), len);
	CHECK(!memcmp(buf, back, len), "what was read is not what was written");
	close_ok(fd);
	free(buf);
	free(back);
}

MTEST(write, is_seen_through_another_descriptor_at_once)
{
	int a = open_ok("f", O_RDWR | O_CREAT), b = open_ok("f", O_RDWR);

	for (int i = 0; i < 200; i++) {
		write_pattern(i % 2 ? a : b, i * 1000, 1000, (uint64_t)i);
		check_pattern(i % 2 ? b : a, i * 1000, 1000, (uint64_t)i);
		EQ(fstat_of(i % 2 ? b : a).st_size, i * 1000 + 1000);
	}
	close_ok(a);
	close_ok(b);
}

MTEST(write, is_seen_by_another_process_at_once)
{
	int a[2], b[2], fd = open_ok("f", O_RDWR | O_CREAT);
	char c;

	OK(pipe(a));
	OK(pipe(b));
	if (!fork()) {
		for (int i = 0; i < 200; i++) {
			EQ(read(a[0], &c, 1), 1);
			check_pattern(fd, i * 100, 5000, (uint64_t)i);
			EQ(write(b[1], "x", 1), 1);
		}
		_exit(0);
	}
	close(b[1]);
	for (int i = 0; i < 200; i++) {
		write_pattern(fd, i * 100, 5000, (uint64_t)i);
		EQ(write(a[1], "x", 1), 1);
		EQ(read(b[0], &c, 1), 1);
	}
	close_ok(fd);
}

MTEST(write, obeys_rlimit_fsize)
{
	struct rlimit rl = { 10000, 10000 };
	int fd = open_ok("f", O_RDWR | O_CREAT);

	signal(SIGXFSZ, SIG_IGN);
	OK(setrlimit(RLIMIT_FSIZE, &rl));
	write_pattern(fd, 0, 9000, 1);
	EQ(pwrite(fd, "0123456789", 10, 9995), 5);
	FAILS(EFBIG, pwrite(fd, "x", 1, 10000));
	FAILS(EFBIG, ftruncate(fd, 10001));
	EQ(fstat_of(fd).st_size, 10000);
	close_ok(fd);
}

MTEST(write, with_o_direct)
{
	int fd = open("f", O_RDWR | O_CREAT | O_DIRECT, 0644);
	unsigned char *buf;

	if (fd < 0) {
		EQ(errno, EINVAL);
		SKIP("no O_DIRECT");
	}
	buf = aligned_alloc(4096, 65536);
	pattern(buf, 4096, 65536, 1);
	EQ(pwrite(fd, buf, 65536, 4096), 65536);
	memset(buf, 0, 65536);
	EQ(pread(fd, buf, 65536, 4096), 65536);
	close_ok(fd);
	fd = open_ok("f", O_RDONLY);
	check_zero(fd, 0, 4096);
	check_pattern(fd, 4096, 65536, 1);
	close_ok(fd);
}

/* Buffered and direct descriptors of one file agree. */
MTEST(write, direct_and_buffered_agree)
{
	int d = open("f", O_RDWR | O_CREAT | O_DIRECT, 0644);
	unsigned char *buf = aligned_alloc(4096, 8192);
	int fd;

	if (d < 0)
		SKIP("no O_DIRECT");
	fd = open_ok("f", O_RDWR);
	for (int i = 0; i < 50; i++) {
		write_pattern(fd, 0, 8192, (uint64_t)i);
		EQ(pread(d, buf, 8192, 0), 8192);
		check_pattern(fd, 0, 8192, (uint64_t)i);
		pattern(buf, 4096, 4096, (uint64_t)i + 100);
		EQ(pwrite(d, buf, 4096, 4096), 4096);
		check_pattern(fd, 0, 4096, (uint64_t)i);
		check_pattern(fd, 4096, 4096, (uint64_t)i + 100);
	}
	close_ok(fd);
	close_ok(d);
}

MTEST(write, through_sendfile_and_splice)
{
	int in = pattern_file("in", 300000, 1);
	int out = open_ok("out", O_RDWR | O_CREAT);
	off_t pos = 0, len = 0;
	int p[2];

	while (pos < 300000)
		OK(sendfile(out, in, &pos, (size_t)(300000 - pos)));
	check_pattern(out, 0, 300000, 1);
	OK(ftruncate(out, 0));
	OK(pipe(p));
	pos = 0;
	while (len < 300000) {
		long long n = OK(splice(in, &pos, p[1], NULL, 30000, 0));

		while (n)
			n -= OK(splice(p[0], NULL, out, &len, (size_t)n, 0));
	}
	check_pattern(out, 0, 300000, 1);
	EQ(fstat_of(out).st_size, 300000);
	close_ok(in);
	close_ok(out);
}

/* --- O_APPEND ----------------------------------------------------------------
 */

MTEST(append, writes_at_the_end_wherever_the_offset_is)
{
	int fd;

	put("f", "0123");
	fd = open_ok("f", O_RDWR | O_APPEND);
	OK(lseek(fd, 0, SEEK_SET));
	EQ(write(fd, "45", 2), 2);
	EQ(lseek(fd, 0, SEEK_CUR), 6);
	/* Linux appends here too, whatever the position. */
	EQ(pwrite(fd, "67", 2, 0), 2);
	must_hold("f", "01234567");
	OK(truncate("f", 3));
	EQ(write(fd, "x", 1), 1);
	must_hold("f", "012x");
	close_ok(fd);
}

struct record {
	uint32_t who, nr;
	unsigned char data[92];
};

MTEST(append, of_several_processes_mixes_whole_records)
{
	uint32_t next[4] = { 0 };
	struct record rec;
	int status, fd;

	touch("f");
	for (uint32_t who = 0; who < 4; who++) {
		if (fork())
			continue;
		fd = open_ok("f", O_WRONLY | O_APPEND);
		for (uint32_t nr = 0; nr < 400; nr++) {
			rec.who = who;
			rec.nr = nr;
			pattern(rec.data, nr * 100, sizeof(rec.data), who);
			EQ(write(fd, &rec, sizeof(rec)), sizeof(rec));
		}
		_exit(0);
	}
	while (wait(&status) > 0)
		EQ(status, 0);
	EQ(size_of("f"), 1600 * sizeof(rec));
	fd = open_ok("f", O_RDONLY);
	while (read(fd, &rec, sizeof(rec)) == sizeof(rec)) {
		unsigned char want[92];

		LT(rec.who, 4);
		EQ(rec.nr, next[rec.who]++);
		pattern(want, rec.nr * 100, sizeof(want), rec.who);
		MEMEQ(rec.data, want, sizeof(want));
	}
	close_ok(fd);
}

/* Writers of disjoint parts of one file do not disturb each other. */
MTEST(parallel, writers_of_one_file)
{
	int status, fd = open_ok("f", O_RDWR | O_CREAT);

	for (int who = 0; who < 4; who++) {
		if (fork())
			continue;
		for (int i = who; i < 1200; i += 4)
			write_pattern(fd, i * 1000, 1000, 1);
		_exit(0);
	}
	while (wait(&status) > 0)
		EQ(status, 0);
	EQ(fstat_of(fd).st_size, 1200000);
	check_pattern(fd, 0, 1200000, 1);
	close_ok(fd);
}

/* A read sees a whole block of one write or of the other, not a mixture. */
MTEST(parallel, truncate_and_write_keep_size_and_data_together)
{
	int status, fd = open_ok("f", O_RDWR | O_CREAT);
	unsigned char buf[8192], want[8192];

	pattern(want, 0, sizeof(want), 1);
	pwrite_ok(fd, want, sizeof(want), 0);
	if (!fork()) {
		for (int i = 0; i < 1500; i++) {
			OK(ftruncate(fd, 100));
			pwrite_ok(fd, want, sizeof(want), 0);
		}
		_exit(0);
	}
	for (int i = 0; i < 1500; i++) {
		size_t got = pread_ok(fd, buf, sizeof(buf), 0);

		LE(100, got);
		for (size_t j = 0; j < got; j++)
			CHECK(buf[j] == want[j] || (j >= 100 && !buf[j]),
			      "byte %zu of %zu is %#x", j, got, buf[j]);
	}
	wait(&status);
	EQ(status, 0);
	close_ok(fd);
}

MTEST(parallel, many_files_by_many_processes)
{
	char name[32];
	int status;

	for (int who = 0; who < 4; who++) {
		if (fork())
			continue;
		for (int i = 0; i < 200; i++) {
			snprintf(name, sizeof(name), "f-%d-%d", who, i);
			close_ok(pattern_file(name, 3000 + (size_t)i * 50,
					      (uint64_t)(who * 1000 + i)));
			if (i % 3 == 0)
				OK(unlink(name));
		}
		_exit(0);
	}
	while (wait(&status) > 0)
		EQ(status, 0);
	EQ(count_entries("."), 4 * 133);
	for (int i = 0; i < 200; i++) {
		int fd;

		if (i % 3 == 0)
			continue;
		snprintf(name, sizeof(name), "f-2-%d", i);
		fd = open_ok(name, O_RDONLY);
		check_pattern(fd, 0, 3000 + (size_t)i * 50,
			      (uint64_t)(2000 + i));
		close_ok(fd);
	}
}

/* --- fsync
 * ---------------------------------------------------------------------- */

MTEST(fsync, of_everything_that_can_be_opened)
{
	int fd = pattern_file("f", 10000, 1);

	OK(fsync(fd));
	OK(fdatasync(fd));
	OK(fsync(fd));
	OK(syncfs(fd));
	OK(sync_file_range(fd, 0, 10000, SYNC_FILE_RANGE_WRITE));
	close_ok(fd);
	fd = open_ok(".", O_RDONLY | O_DIRECTORY);
	OK(fsync(fd));
	OK(fdatasync(fd));
	OK(syncfs(fd));
	close_ok(fd);
}
