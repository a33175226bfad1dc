/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/state.h - all that a user can see of a filesystem
 *
 * A state is one run of bytes: for every path, in order of name, a line of
 * attributes and the contents.  Two filesystems look the same if and only if
 * their states are the same bytes.  Access times are left out.
 *
 * Ownership. The caller's; empty it with state_free().
 */
#ifndef CRASH_STATE_H
#define CRASH_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "dax/err.h"

struct foliofs;

struct state_entry {
	size_t path, meta, data; /* where in buf; path and meta are strings */
	size_t data_len;
	uint64_t ino;
	unsigned int seg, nr_seg; /* what parts of the file the data is */
};

struct state_seg {
	uint64_t pos; /* in the file */
	size_t at;    /* in the entry's data */
	size_t len;
};

struct state {
	unsigned char *buf;
	size_t len, cap;
	struct state_entry *entry;
	unsigned int nr, cap_entry;
	struct state_seg *seg;
	unsigned int nr_seg, cap_seg;
};

/*
 * Without what depends on the order in which independent things are done:
 * inode numbers, times, generations, sizes of directories.
 */
#define STATE_LOOSE 1u

/* Fails with -EUCLEAN or what reading said, and a sentence. */
int state_take(struct foliofs *fs, unsigned int flags, struct state *ret,
	       struct errmsg *err);
void state_free(struct state *s);
void state_copy(struct state *to, const struct state *from);

bool state_equal(const struct state *a, const struct state *b);

/*
 * Bytes that an operation overwrites where they are: a crash leaves of each
 * word the old or the new.
 */
struct mix {
	uint64_t ino;
	uint64_t pos;
	uint64_t len;
};

/* Is @got @want, but for words of the ranges that may be of @other? */
bool state_equal_mixed(const struct state *got, const struct state *want,
		       const struct state *other, const struct mix *mix,
		       unsigned int nr_mix);

/* What is different, a line for each path. */
void state_diff(FILE *f, const struct state *want, const struct state *got);

#endif
