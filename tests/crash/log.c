/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/log.c - what was done to a device, in order
 */
#include "tests/crash/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/sched.h"

_Thread_local unsigned int log_thread;

void *test_realloc(void *old, size_t size)
{
	void *p = realloc(old, size);

	if (!p) {
		fprintf(stderr, "out of memory\n");
		abort();
	}
	return p;
}

void log_reset(struct log *log)
{
	log->nr = 0;
	log->pool_len = 0;
}

void log_free(struct log *log)
{
	free(log->event);
	free(log->pool);
	memset(log, 0, sizeof(*log));
}

static struct log_event *log_add(struct log *log)
{
	if (log->nr == log->cap) {
		log->cap = log->cap ? log->cap * 2 : 256;
		log->event = (struct log_event *)test_realloc(
			log->event, log->cap * sizeof(*log->event));
	}
	return &log->event[log->nr++];
}

static size_t log_keep(struct log *log, const void *data, size_t len)
{
	size_t at = log->pool_len;

	if (log->pool_cap - at < len) {
		log->pool_cap = (at + len) * 2;
		log->pool =
			(unsigned char *)test_realloc(log->pool, log->pool_cap);
	}
	memcpy(log->pool + at, data, len);
	log->pool_len += len;
	return at;
}

void log_copy(struct log *to, const struct log *from, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		struct log_event e = from->event[i];

		if (e.type == LOG_BEGIN || e.type == LOG_END)
			continue;
		if (e.type == LOG_STORE)
			e.data = log_keep(to, from->pool + e.data, e.len);
		*log_add(to) = e;
	}
}

void log_mark(struct log *log, enum log_type type, unsigned int op)
{
	*log_add(log) = (struct log_event){
		.type = type,
		.thread = log_thread,
		.off = op,
	};
}

static enum log_type log_type_of(enum pmem_event event)
{
	switch (event) {
	case PMEM_EVENT_STORE:
		return LOG_STORE;
	case PMEM_EVENT_FLUSH:
		return LOG_FLUSH;
	case PMEM_EVENT_FENCE:
		break;
	}
	return LOG_FENCE;
}

static void log_record(void *ctx, enum pmem_event event, uint64_t off,
		       const void *data, size_t len)
{
	struct log *log = (struct log *)ctx;
	struct log_event e = {
		.type = log_type_of(event),
		.thread = log_thread,
		.off = off,
		.len = len,
	};

	if (e.type == LOG_STORE)
		e.data = log_keep(log, data, len);
	*log_add(log) = e;
	/* Between two steps on media is where another thread may come in. */
	sched_point();
}

struct pmem_recorder log_recorder(struct log *log)
{
	return (struct pmem_recorder){ .event = log_record, .ctx = log };
}
