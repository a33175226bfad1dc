/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/bench/bench_direct.c - what mapped files cost
 *
 * A program that knows nothing of foliofs, to be run with
 * libfoliofs-preload.so in a directory of a mount with dax=always:
 *
 *	LD_PRELOAD=.../libfoliofs-preload.so bench_direct DIR SCRATCH [PART...]
 *
 * SCRATCH is a directory of tmpfs, for the plain mappings to compare with; the
 * device should be a file of the same tmpfs.  A system call that is made with
 * syscall(2) goes past the library, and so to FUSE.  Every ratio is of one run.
 */
#include <fcntl.h>
#include <immintrin.h>
#include <linux/falloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE	  4096ul
#define WARM	  (64ul << 20)
#define LARGE	  (1ul << 30)
#define CHUNK	  (2ul << 20)
#define NR_OPS	  50000
#define NR_TRIES  5
#define NR_COLD	  2000
#define NR_SHARED 8
#define RW	  (PROT_READ | PROT_WRITE)

#define must(cond)                     \
	do {                           \
		if (!(cond)) {         \
			perror(#cond); \
			exit(1);       \
		}                      \
	} while (0)

static const char *dir, *scratch;
static char page[PAGE] __attribute__((aligned(4096)));
static volatile uint64_t sink;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static uint64_t rnd(void)
{
	static uint64_t seed = 88172645463325252;

	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed >> 11;
}

static int file_in(const char *where, const char *name, size_t len)
{
	char path[400];
	char *buf = calloc(1, CHUNK);
	int fd;

	snprintf(path, sizeof(path), "%s/%s", where, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	must(fd >= 0 && buf);
	unlink(path);
	for (size_t at = 0; at < len; at += CHUNK)
		must(pwrite(fd, buf, CHUNK, (off_t)at) == (ssize_t)CHUNK);
	free(buf);
	return fd;
}

static unsigned char *map(int fd, size_t len)
{
	void *p = mmap(NULL, len, RW, MAP_SHARED, fd, 0);

	must(p != MAP_FAILED);
	return p;
}

static void touch_all(volatile unsigned char *p, size_t len, size_t step,
		      bool store)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < len; i += step) {
		if (store)
			p[i] = 1;
		else
			sum += p[i];
	}
	sink = sum;
}

/* What is bare: a copy out, and a copy past the caches and a fence. */
static void copy_past_caches(void *dst, const void *src, size_t len)
{
	__m128i *d = dst;
	const __m128i *s = src;

	for (size_t i = 0; i < len / sizeof(*d); i++)
		_mm_stream_si128(&d[i], _mm_load_si128(&s[i]));
	_mm_sfence();
}

struct place {
	unsigned char *p;
	int fd;
};

static double per_op(void (*op)(const struct place *at, size_t pos),
		     const struct place *at, size_t unit, unsigned int nr)
{
	double best = 0;

	for (int i = 0; i < NR_TRIES; i++) {
		double t = now();

		for (unsigned int j = 0; j < nr; j++)
			op(at, rnd() % (WARM / unit) * unit);
		t = (now() - t) / nr;
		if (best == 0 || t < best)
			best = t;
	}
	return best;
}

static void load64(const struct place *at, size_t pos)
{
	uint64_t sum = 0;

	for (int i = 0; i < 8; i++)
		sum += ((volatile uint64_t *)(at->p + pos))[i];
	sink = sum;
}

static void store64(const struct place *at, size_t pos)
{
	for (int i = 0; i < 8; i++)
		((volatile uint64_t *)(at->p + pos))[i] = pos;
}

static void bare_read(const struct place *at, size_t pos)
{
	memcpy(page, at->p + pos, PAGE);
}

static void bare_write(const struct place *at, size_t pos)
{
	copy_past_caches(at->p + pos, page, PAGE);
}

static void lib_read(const struct place *at, size_t pos)
{
	must(pread(at->fd, page, PAGE, (off_t)pos) == (ssize_t)PAGE);
}

static void lib_write(const struct place *at, size_t pos)
{
	must(pwrite(at->fd, page, PAGE, (off_t)pos) == (ssize_t)PAGE);
	must(fsync(at->fd) == 0);
}

static void fuse_read(const struct place *at, size_t pos)
{
	must(syscall(SYS_pread64, at->fd, page, PAGE, pos) == (long)PAGE);
}

static void fuse_write(const struct place *at, size_t pos)
{
	must(syscall(SYS_pwrite64, at->fd, page, PAGE, pos) == (long)PAGE);
	must(syscall(SYS_fsync, at->fd) == 0);
}

static void lib_append(const struct place *at, size_t pos)
{
	(void)pos;
	must(write(at->fd, page, PAGE) == (ssize_t)PAGE);
	must(fsync(at->fd) == 0);
}

static void part_warm(void)
{
	int fds[2] = { file_in(dir, "warm", WARM),
		       file_in(scratch, "warm", WARM) };
	double t[2][3];

	for (int i = 0; i < 2; i++) {
		struct place at = { map(fds[i], WARM), fds[i] };
		double start;

		touch_all(at.p, WARM, PAGE, true);
		t[i][0] = per_op(load64, &at, 64, NR_OPS * 20);
		t[i][1] = per_op(store64, &at, 64, NR_OPS * 20);
		t[i][2] = 0;
		for (int j = 0; j < NR_TRIES; j++) {
			start = now();
			touch_all(at.p, WARM, 64, false);
			start = now() - start;
			if (j == 0 || start < t[i][2])
				t[i][2] = start;
		}
		munmap(at.p, WARM);
		close(fds[i]);
	}
	printf("warm: speed of a plain mapping: loads %.2f stores %.2f "
	       "sequential %.2f (%.1f %.1f ns)\n",
	       t[1][0] / t[0][0], t[1][1] / t[0][1], t[1][2] / t[0][2], t[0][0],
	       t[0][1]);
}

static void say_io(const char *what, double bare, double lib, double fuse)
{
	printf("%s: %.0f ns, bare %.0f (%.2fx), through FUSE %.0f (%.1fx)\n",
	       what, lib, bare, lib / bare, fuse, fuse / lib);
}

static void part_io(void)
{
	struct place at = { .fd = file_in(dir, "io", WARM) }, end;
	double bare_r, bare_w, lib_r, lib_w, fuse_r, fuse_w;

	lib_read(&at, 0);
	fuse_r = per_op(fuse_read, &at, PAGE, NR_OPS / 10);
	fuse_w = per_op(fuse_write, &at, PAGE, NR_OPS / 10);
	for (size_t i = 0; i < WARM; i += PAGE)
		lib_write(&at, i);
	lib_r = per_op(lib_read, &at, PAGE, NR_OPS);
	lib_w = per_op(lib_write, &at, PAGE, NR_OPS);
	end.fd = file_in(dir, "append", 0);
	lib_append(&end, 0);
	/* The last: with it the file is no longer clean. */
	at.p = map(at.fd, WARM);
	touch_all(at.p, WARM, PAGE, true);
	bare_r = per_op(bare_read, &at, PAGE, NR_OPS);
	bare_w = per_op(bare_write, &at, PAGE, NR_OPS);
	say_io("pread", bare_r, lib_r, fuse_r);
	say_io("pwrite+fsync", bare_w, lib_w, fuse_w);
	lib_w = per_op(lib_append, &end, PAGE, NR_OPS / 10);
	say_io("append+fsync", bare_w, lib_w, fuse_w);
	munmap(at.p, WARM);
	close(at.fd);
	close(end.fd);
}

/* Two files that take turns: no extent is longer than @unit. */
static int fragmented(size_t len, size_t unit)
{
	int fd = file_in(dir, "a", 0), other = file_in(dir, "b", 0);
	char *buf = calloc(1, unit);

	for (size_t at = 0; at < len; at += unit) {
		must(write(fd, buf, unit) == (ssize_t)unit);
		must(write(other, buf, unit) == (ssize_t)unit);
	}
	free(buf);
	close(other);
	return fd;
}

static void part_fault(void)
{
	size_t len = NR_COLD * 4 * PAGE;
	int fd = fragmented(len, PAGE);
	unsigned char *p = map(fd, len);
	double load, store;

	load = now();
	touch_all(p, len / 2, 4 * PAGE, false);
	load = (now() - load) / (NR_COLD / 2);
	store = now();
	touch_all(p + len / 2, len / 2, 4 * PAGE, true);
	store = (now() - store) / (NR_COLD / 2);
	printf("fault: page by page, load %.1f us, store %.1f us\n",
	       load / 1000, store / 1000);
	munmap(p, len);
	close(fd);
}

static void part_touch(void)
{
	int fd = fragmented(LARGE, 64 * PAGE);
	int plain = file_in(scratch, "plain", LARGE);
	double t[2][2];

	for (int i = 0; i < 2; i++) {
		for (int store = 0; store < 2; store++) {
			unsigned char *p = map(i ? plain : fd, LARGE);

			t[i][store] = now();
			touch_all(p, LARGE, PAGE, store);
			t[i][store] = now() - t[i][store];
			munmap(p, LARGE);
		}
	}
	printf("touch: 1 GiB by pages, loads %.0f ms (%.2fx tmpfs), stores "
	       "%.0f ms (%.2fx)\n",
	       t[0][0] / 1e6, t[0][0] / t[1][0], t[0][1] / 1e6,
	       t[0][1] / t[1][1]);
	close(plain);
	close(fd);
}

static void part_huge(void)
{
	int fd = file_in(dir, "huge", LARGE);
	double t[2];

	for (int store = 0; store < 2; store++) {
		unsigned char *p = map(fd, LARGE);

		t[store] = now();
		touch_all(p, LARGE, CHUNK, store);
		t[store] = now() - t[store];
		munmap(p, LARGE);
	}
	printf("huge: 1 GiB by 2 MiB, loads %.1f ms, stores %.1f ms\n",
	       t[0] / 1e6, t[1] / 1e6);
	close(fd);
}

static void hold(int fd, int ready, int over)
{
	unsigned char *p = map(fd, LARGE);
	char c = 0;

	touch_all(p, LARGE, CHUNK, true);
	must(write(ready, &c, 1) == 1);
	(void)!read(over, &c, 1);
	_exit(0);
}

static void part_recall(void)
{
	int fd = file_in(dir, "recall", LARGE), ready[2], over[2];
	double t;
	char c;

	must(pipe(ready) == 0 && pipe(over) == 0);
	for (int i = 0; i < NR_SHARED; i++) {
		if (fork() == 0) {
			close(over[1]);
			hold(fd, ready[1], over[0]);
		}
	}
	for (int i = 0; i < NR_SHARED; i++)
		must(read(ready[0], &c, 1) == 1);
	t = now();
	must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		       LARGE) == 0);
	t = now() - t;
	printf("recall: 1 GiB of %d clients, with the punch %.1f ms\n",
	       NR_SHARED, t / 1e6);
	close(over[1]);
	while (wait(NULL) > 0)
		;
	close(fd);
}

static const struct {
	const char *name;
	void (*fn)(void);
} parts[] = {
	{ "warm", part_warm },	 { "io", part_io },
	{ "fault", part_fault }, { "touch", part_touch },
	{ "huge", part_huge },	 { "recall", part_recall },
};

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: bench_direct DIR SCRATCH [PART...]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	dir = argv[1];
	scratch = argv[2];
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		bool wanted = argc == 3;

		for (int j = 3; j < argc; j++)
			wanted |= strcmp(argv[j], parts[i].name) == 0;
		if (wanted)
			parts[i].fn();
	}
	return 0;
}
