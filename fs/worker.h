/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/worker.h - the threads that receive requests
 *
 * As few threads receive as there are seats: more would only wake one another
 * up.  A thread handles what it receives itself, so the common path has no
 * queue, no lock and no hand-over.
 *
 * A thread that is about to sleep for long says so through sleep_hook of
 * dax/lock.h.  If it is the last one awake, it gives its seat to a spare
 * thread first; if others are awake it keeps the seat, because most sleeps
 * are short, and whoever receives a request while it still sleeps takes the
 * seat from it for a spare.  A thread without a seat finishes its request and
 * becomes a spare; spares end after some seconds.
 *
 * At the limit of max_threads no spare can be had.  Then a sleeper keeps its
 * seat, requests wait in the kernel, nothing fails and nothing is lost, and
 * the first thread that comes back receives again.
 *
 * Errors.    Negative errno.
 * Locking.   One mutex of rank LOCK_LEAF, taken only around long sleeps.
 * Ownership. The pool owns its threads; the transport stays the caller's.
 * Source.    Concurrency management of Linux kernel/workqueue.c.
 */
#ifndef FS_WORKER_H
#define FS_WORKER_H

#include <stdint.h>

#include "fs/transport.h"

struct pool;

/* What to do with a request; conn.h has both. */
struct pool_handler {
	void (*dispatch)(void *ctx, struct request *rq);
	/* End the wait of a request that another thread handles. */
	void (*interrupt)(void *ctx, uint64_t unique);
	void *ctx;
};

struct pool_options {
	unsigned int nr_seats;	  /* 0: by the number of processors */
	unsigned int max_threads; /* 0: POOL_MAX_THREADS */
	unsigned int linger_ms;	  /* of a spare; 0: POOL_LINGER_MS */
	/* Requests that sleep, kept up to date for others to read; or NULL. */
	_Atomic(uint64_t) *nr_waiting;
};

#define POOL_MAX_SEATS	 64u
#define POOL_MAX_THREADS 1024u
#define POOL_LINGER_MS	 5000u

/* Start receiving: 0; -ENOMEM; -EMFILE; -EAGAIN when no thread can be had. */
int pool_open(struct transport *tr, const struct pool_handler *handler,
	      const struct pool_options *opt, struct pool **ret_pool);

/* A descriptor that becomes readable when the connection has ended. */
int pool_fd(const struct pool *pool);

/* Receive nothing more.  Requests that are being handled go on. */
void pool_stop(struct pool *pool);

/**
 * pool_close() - stop, interrupt what still waits, and end all threads
 * @timeout_ms: how long the requests may take to end
 *
 * Return: 0; or -ETIMEDOUT when a request did not end.  Then its thread
 * still runs and the pool still exists, and so must all that it uses.
 */
int pool_close(struct pool *pool, unsigned int timeout_ms);

struct pool_stat {
	unsigned int nr_seats;
	unsigned int nr_threads; /* now */
	unsigned int nr_waiting; /* in a long sleep */
	uint64_t nr_started;	 /* threads since the pool was opened */
};
void pool_stat(struct pool *pool, struct pool_stat *ret);

#endif
