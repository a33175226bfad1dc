/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/wait.h - sleeping until somebody says that something changed
 *
 * One table of queues for everything that is waited for, hashed by a key: an
 * object and a number.  Entries are waited for as (mapping, first index),
 * folios as (head folio, 0).  Several keys share a queue; a wake for one key
 * is not seen by waiters for another, and does not use up its one turn on
 * them.
 *
 * No wake is lost if the waiter calls wait_prepare() before it looks at the
 * condition for the last time, and the waker changes the condition before it
 * calls wait_wake():
 *
 *	wait_prepare(&w, obj, 0, false, task);
 *	if (condition)
 *		wait_cancel(&w);
 *	else
 *		ret = wait_sleep(&w, 0);
 *
 * WAKE_NEXT wakes all who wait non-exclusively and the exclusive waiter that
 * came first.  That one has to pass the baton on when it is done.
 *
 * Units.     Deadlines are nanoseconds of CLOCK_MONOTONIC; 0 is none.
 * Errors.    -EINTR interrupted, -ETIMEDOUT too late.
 * Locking.   Rank LOCK_WAIT, taken and dropped inside.  wait_sleep() drops
 *            nothing of the caller's.
 * Ownership. A struct waiter lives in the frame of the thread that sleeps; a
 *            struct dax_task belongs to whoever runs the request.
 * Source.    Linux wait_event(), prepare_to_wait_exclusive(), __wake_up().
 */
#ifndef DAX_WAIT_H
#define DAX_WAIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dax/lock.h"

struct wait_queue;

/* Somebody whose sleep can be interrupted: a request, with FUSE. */
struct dax_task {
	_Atomic(bool) interrupted;
	_Atomic(bool) kicked; /* its present sleep is too late already */
	_Atomic(struct wait_queue *) queue; /* where it sleeps */
};

/* From any thread.  The task's sleeps end with -EINTR from now on. */
void dax_task_interrupt(struct dax_task *task);

/*
 * From any thread.  The sleep of the task, or its next one, ends with
 * -ETIMEDOUT, until it takes the flag back.
 */
void dax_task_kick(struct dax_task *task);

static inline bool dax_task_interrupted(const struct dax_task *task)
{
	return task && atomic_load(&task->interrupted);
}

enum wake_mode {
	WAKE_NEXT,
	WAKE_ALL,
};

struct waiter {
	struct waiter *prev, *next;
	struct wait_queue *queue;
	const void *obj;
	uint64_t index;
	struct dax_task *task;
	pthread_cond_t cond;
	bool exclusive;
	bool woken; /* and no longer in the queue */
};

void wait_prepare(struct waiter *w, const void *obj, uint64_t index,
		  bool exclusive, struct dax_task *task);

/* Ends what wait_prepare() began. */
int wait_sleep(struct waiter *w, uint64_t until_ns);
void wait_cancel(struct waiter *w);

/* How many were woken. */
unsigned int wait_wake(const void *obj, uint64_t index, enum wake_mode mode);

/* How many wait for this key.  For tests and statistics. */
unsigned int wait_count(const void *obj, uint64_t index);

/* Do two keys share a queue? */
bool wait_same_queue(const void *obj1, uint64_t index1, const void *obj2,
		     uint64_t index2);

#endif
