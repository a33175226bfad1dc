/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/log.h - what was done to a device, in order
 *
 * The recorder of dax/pmem.h writes here; log_mark() adds where operations
 * begin and end.  Threads are told apart by log_thread, which each sets for
 * itself.
 *
 * Locking.   None: threads that share a log are run one at a time, see
 *            sched.h.
 * Ownership. The caller's; empty it with log_free().
 */
#ifndef CRASH_LOG_H
#define CRASH_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "dax/pmem.h"

#define LOG_THREADS 2u

enum log_type {
	LOG_STORE,
	LOG_FLUSH,
	LOG_FENCE,
	LOG_BEGIN, /* of operation number off */
	LOG_END,   /* the operation is acknowledged */
	LOG_KILL,  /* no fence will wait for what was flushed before */
};

struct log_event {
	enum log_type type;
	unsigned int thread;
	uint64_t off;
	size_t len;
	size_t data; /* stores: where in the pool */
};

struct log {
	struct log_event *event;
	size_t nr, cap;
	unsigned char *pool;
	size_t pool_len, pool_cap;
};

extern _Thread_local unsigned int log_thread;

void log_reset(struct log *log);
void log_free(struct log *log);
/* The first @nr events of @from, without the marks. */
void log_copy(struct log *to, const struct log *from, size_t nr);

void log_mark(struct log *log, enum log_type type, unsigned int op);

/* A recorder for pmem_record() that appends to @log. */
struct pmem_recorder log_recorder(struct log *log);

/* realloc() or die: a test without memory has nothing to say. */
void *test_realloc(void *old, size_t size);

#endif
