/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/fops.c - small file operations that tests need all the time
 */
#include "tests/support/fops.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/mtest.h"

#define CHUNK 65536

int open_ok(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	CHECK(fd >= 0, "open %s with flags %#x: %s", path, flags,
	      mtest_errname(errno));
	return fd;
}

void close_ok(int fd)
{
	OK(close(fd));
}

void touch(const char *path)
{
	close_ok(open_ok(path, O_WRONLY | O_CREAT));
}

void put(const char *path, const char *text)
{
	int fd = open_ok(path, O_WRONLY | O_CREAT | O_TRUNC);

	pwrite_ok(fd, text, strlen(text), 0);
	close_ok(fd);
}

void must_hold(const char *path, const char *text)
{
	size_t len = strlen(text);
	char buf[CHUNK];
	int fd = open_ok(path, O_RDONLY);
	size_t got = pread_ok(fd, buf, sizeof(buf) - 1, 0);

	buf[got] = '\0';
	CHECK(got == len && !memcmp(buf, text, len),
	      "%s holds \"%.40s\" (%zu bytes), should be \"%.40s\" (%zu)", path,
	      buf, got, text, len);
	close_ok(fd);
}

bool exists(const char *path)
{
	struct stat st;

	if (!lstat(path, &st))
		return true;
	CHECK(errno == ENOENT, "lstat %s: %s", path, mtest_errname(errno));
	return false;
}

struct stat lstat_of(const char *path)
{
	struct stat st;

	CHECK(!lstat(path, &st), "lstat %s: %s", path, mtest_errname(errno));
	return st;
}

struct stat fstat_of(int fd)
{
	struct stat st;

	OK(fstat(fd, &st));
	return st;
}

off_t size_of(const char *path)
{
	return lstat_of(path).st_size;
}

blkcnt_t blocks_of(int fd)
{
	OK(fsync(fd));
	close_ok((int)OK(dup(fd)));
	return fstat_of(fd).st_blocks;
}

nlink_t nlink_of(const char *path)
{
	return lstat_of(path).st_nlink;
}

mode_t mode_of(const char *path)
{
	return lstat_of(path).st_mode & 07777;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	x ^= x >> 29;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ x >> 32;
}

static unsigned char pattern_byte(uint64_t pos, uint64_t seed)
{
	uint64_t word = mix(mix(seed + 1) + (pos >> 3));
	unsigned char byte = (unsigned char)(word >> (pos & 7) * 8);

	/* Never zero: a hole cannot pass for data. */
	return byte ? byte : 0x5a;
}

void pattern(void *buf, off_t pos, size_t len, uint64_t seed)
{
	unsigned char *p = buf;

	for (size_t i = 0; i < len; i++)
		p[i] = pattern_byte((uint64_t)pos + i, seed);
}

void pwrite_ok(int fd, const void *buf, size_t len, off_t pos)
{
	const char *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, pos);

		CHECK(n > 0, "pwrite of %zu at %lld: %zd, %s", len,
		      (long long)pos, n, mtest_errname(errno));
		p += n;
		pos += n;
		len -= (size_t)n;
	}
}

size_t pread_ok(int fd, void *buf, size_t len, off_t pos)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done,
				  pos + (off_t)done);

		CHECK(n >= 0, "pread of %zu at %lld: %s", len, (long long)pos,
		      mtest_errname(errno));
		if (!n)
			break;
		done += (size_t)n;
	}
	return done;
}

static size_t chunk_of(size_t len)
{
	return len < CHUNK ? len : CHUNK;
}

void write_pattern(int fd, off_t pos, size_t len, uint64_t seed)
{
	char buf[CHUNK];

	while (len) {
		size_t n = chunk_of(len);

		pattern(buf, pos, n, seed);
		pwrite_ok(fd, buf, n, pos);
		pos += (off_t)n;
		len -= n;
	}
}

static void read_whole(int fd, unsigned char *buf, size_t len, off_t pos)
{
	size_t got = pread_ok(fd, buf, len, pos);

	CHECK(got == len, "pread of %zu at %lld gave %zu", len, (long long)pos,
	      got);
}

void check_pattern(int fd, off_t pos, size_t len, uint64_t seed)
{
	unsigned char buf[CHUNK];

	while (len) {
		size_t n = chunk_of(len);

		read_whole(fd, buf, n, pos);
		for (size_t i = 0; i < n; i++) {
			uint64_t at = (uint64_t)pos + i;

			CHECK(buf[i] == pattern_byte(at, seed),
			      "byte %llu is %#x, should be %#x of seed %llu",
			      (unsigned long long)at, buf[i],
			      pattern_byte(at, seed), (unsigned long long)seed);
		}
		pos += (off_t)n;
		len -= n;
	}
}

void check_zero(int fd, off_t pos, size_t len)
{
	unsigned char buf[CHUNK];

	while (len) {
		size_t n = chunk_of(len);

		read_whole(fd, buf, n, pos);
		for (size_t i = 0; i < n; i++)
			CHECK(!buf[i], "byte %llu is %#x, should be zero",
			      (unsigned long long)pos + i, buf[i]);
		pos += (off_t)n;
		len -= n;
	}
}

int pattern_file(const char *path, size_t len, uint64_t seed)
{
	int fd = open_ok(path, O_RDWR | O_CREAT | O_TRUNC);

	write_pattern(fd, 0, len, seed);
	return fd;
}

static bool is_dot(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

static size_t count_matching(const char *path, const char *name)
{
	struct dirent *de;
	size_t nr = 0;
	DIR *d;

	d = opendir(path);
	CHECK(d, "opendir %s: %s", path, mtest_errname(errno));
	errno = 0;
	while ((de = readdir(d)))
		if (!is_dot(de->d_name) && (!name || !strcmp(de->d_name, name)))
			nr++;
	CHECK(!errno, "readdir %s: %s", path, mtest_errname(errno));
	closedir(d);
	return nr;
}

size_t count_entries(const char *path)
{
	return count_matching(path, NULL);
}

bool has_entry(const char *path, const char *name)
{
	return count_matching(path, name) == 1;
}

void tick(void)
{
	struct timespec start, ts, nap = { 0, 1000000 };

	/* The kernel gives out fine times as well, and none below the last. */
	clock_gettime(CLOCK_REALTIME, &start);
	do {
		nanosleep(&nap, NULL);
		clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	} while (!time_before(start, ts));
}

bool time_before(struct timespec a, struct timespec b)
{
	return a.tv_sec < b.tv_sec ||
	       (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

bool time_equal(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

uint64_t free_bytes(void)
{
	struct statvfs sv;

	OK(statvfs(".", &sv));
	return (uint64_t)sv.f_bfree * sv.f_frsize;
}

uint64_t rnd(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	return mix(*state);
}
