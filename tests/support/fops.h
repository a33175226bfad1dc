/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/fops.h - small file operations that tests need all the time
 *
 * All of them end the test when they fail, so they return no errors.  Data is
 * a pattern: every 8 bytes of a file follow from a seed and their position,
 * which makes misplaced, stale and torn data visible.
 */
#ifndef TESTS_SUPPORT_FOPS_H
#define TESTS_SUPPORT_FOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define KIB (1ll << 10)
#define MIB (1ll << 20)
#define GIB (1ll << 30)
#define TIB (1ll << 40)

/* An empty file, mode 0644, or whatever is there. */
void touch(const char *path);

/* A file that holds this text and nothing else. */
void put(const char *path, const char *text);
void must_hold(const char *path, const char *text);

bool exists(const char *path);
struct stat lstat_of(const char *path);
struct stat fstat_of(int fd);
off_t size_of(const char *path);
/*
 * Blocks of 512 bytes, all data written.  Behind a write-back cache the kernel
 * asks again only after a close.
 */
blkcnt_t blocks_of(int fd);
nlink_t nlink_of(const char *path);
mode_t mode_of(const char *path); /* the low 12 bits */

/* An open file; flags as open(2), mode 0644. */
int open_ok(const char *path, int flags);
void close_ok(int fd);

/* The pattern. */
void pattern(void *buf, off_t pos, size_t len, uint64_t seed);
void write_pattern(int fd, off_t pos, size_t len, uint64_t seed);
void check_pattern(int fd, off_t pos, size_t len, uint64_t seed);
void check_zero(int fd, off_t pos, size_t len);

/* A new file of len bytes of pattern, open for reading and writing. */
int pattern_file(const char *path, size_t len, uint64_t seed);

void pwrite_ok(int fd, const void *buf, size_t len, off_t pos);
size_t pread_ok(int fd, void *buf, size_t len, off_t pos);

/* Entries of a directory but . and .., by readdir(3). */
size_t count_entries(const char *path);
bool has_entry(const char *path, const char *name);

/* Wait until the kernel's coarse clock has moved: times can differ now. */
void tick(void);

/* a before b? */
bool time_before(struct timespec a, struct timespec b);
bool time_equal(struct timespec a, struct timespec b);

/* Bytes that statfs(2) says are free. */
uint64_t free_bytes(void);

/* A small generator, the same everywhere. */
uint64_t rnd(uint64_t *state);

#endif
