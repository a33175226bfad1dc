/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/wait.c - sleeping until somebody says that something changed
 *
 * The table is static and never goes away, so that a waker needs no reference
 * to anything.  A queue counts its waiters in an atomic, and a waker that
 * reads 0 is done.  That is safe because both sides use the total order of
 * sequentially consistent operations: the waiter adds itself and then reads
 * the condition, the waker changes the condition and then reads the counter,
 * so at least one of them sees the other.
 */
#include "dax/wait.h"

#include <assert.h>
#include <errno.h>

#define WAIT_TABLE_BITS 12
#define WAIT_QUEUES	(1u << WAIT_TABLE_BITS)

struct wait_queue {
	struct mutex lock;
	_Atomic(unsigned int) nr;
	struct waiter *first, *last;
};

static struct wait_queue table[WAIT_QUEUES] = {
	[0 ... WAIT_QUEUES -
	 1] = { .lock = { .m = PTHREAD_MUTEX_INITIALIZER, .rank = LOCK_WAIT } },
};

static struct wait_queue *queue_of(const void *obj, uint64_t index)
{
	uint64_t h = (uintptr_t)obj >> 3;

	h = (h ^ index * UINT64_C(0x9e3779b97f4a7c15)) *
	    UINT64_C(0xff51afd7ed558ccd);
	return &table[h >> (64 - WAIT_TABLE_BITS)];
}

bool wait_same_queue(const void *obj1, uint64_t index1, const void *obj2,
		     uint64_t index2)
{
	return queue_of(obj1, index1) == queue_of(obj2, index2);
}

static bool is_for(const struct waiter *w, const void *obj, uint64_t index)
{
	return w->obj == obj && w->index == index;
}

/* Who is exclusive goes to the end, so that the others are woken first. */
static void enqueue(struct wait_queue *q, struct waiter *w)
{
	w->prev = w->exclusive ? q->last : NULL;
	w->next = w->exclusive ? NULL : q->first;
	if (w->prev)
		w->prev->next = w;
	else
		q->first = w;
	if (w->next)
		w->next->prev = w;
	else
		q->last = w;
	atomic_fetch_add(&q->nr, 1);
}

static void dequeue(struct wait_queue *q, struct waiter *w)
{
	if (w->prev)
		w->prev->next = w->next;
	else
		q->first = w->next;
	if (w->next)
		w->next->prev = w->prev;
	else
		q->last = w->prev;
	atomic_fetch_sub(&q->nr, 1);
}

void wait_prepare(struct waiter *w, const void *obj, uint64_t index,
		  bool exclusive, struct dax_task *task)
{
	struct wait_queue *q = queue_of(obj, index);

	*w = (struct waiter){ .queue = q,
			      .obj = obj,
			      .index = index,
			      .task = task,
			      .exclusive = exclusive };
	cond_init(&w->cond);
	mutex_lock(&q->lock);
	enqueue(q, w);
	mutex_unlock(&q->lock);
	if (task)
		atomic_store(&task->queue, q);
}

static void finish(struct waiter *w)
{
	if (w->task)
		atomic_store(&w->task->queue, NULL);
	pthread_cond_destroy(&w->cond);
}

static bool kicked(const struct dax_task *task)
{
	return task && atomic_load(&task->kicked);
}

int wait_sleep(struct waiter *w, uint64_t until_ns)
{
	struct wait_queue *q = w->queue;
	bool late = false;
	int ret = 0;

	sleep_hook_begin();
	mutex_lock(&q->lock);
	while (!w->woken && !late && !dax_task_interrupted(w->task) &&
	       !kicked(w->task)) {
		if (until_ns)
			late = !mutex_wait_until(&q->lock, &w->cond, until_ns);
		else
			mutex_wait(&q->lock, &w->cond);
	}
	if (!w->woken) {
		dequeue(q, w);
		ret = dax_task_interrupted(w->task) ? -EINTR : -ETIMEDOUT;
	}
	mutex_unlock(&q->lock);
	sleep_hook_end();
	finish(w);
	return ret;
}

void wait_cancel(struct waiter *w)
{
	struct wait_queue *q = w->queue;
	bool woken;

	mutex_lock(&q->lock);
	woken = w->woken;
	if (!woken)
		dequeue(q, w);
	mutex_unlock(&q->lock);
	finish(w);
	/* The one turn of a WAKE_NEXT must not end here. */
	if (woken && w->exclusive)
		wait_wake(w->obj, w->index, WAKE_NEXT);
}

unsigned int wait_wake(const void *obj, uint64_t index, enum wake_mode mode)
{
	struct wait_queue *q = queue_of(obj, index);
	unsigned int nr = 0;
	struct waiter *next;

	if (!atomic_load(&q->nr))
		return 0;
	mutex_lock(&q->lock);
	for (struct waiter *w = q->first; w; w = next) {
		bool last = w->exclusive && mode == WAKE_NEXT;

		next = w->next;
		if (!is_for(w, obj, index))
			continue;
		dequeue(q, w);
		w->woken = true;
		pthread_cond_signal(&w->cond);
		nr++;
		if (last)
			break;
	}
	mutex_unlock(&q->lock);
	return nr;
}

unsigned int wait_count(const void *obj, uint64_t index)
{
	struct wait_queue *q = queue_of(obj, index);
	unsigned int nr = 0;

	mutex_lock(&q->lock);
	for (const struct waiter *w = q->first; w; w = w->next)
		nr += is_for(w, obj, index);
	mutex_unlock(&q->lock);
	return nr;
}

static void wake_task(struct dax_task *task)
{
	struct wait_queue *q = atomic_load(&task->queue);

	if (!q)
		return;
	mutex_lock(&q->lock);
	for (struct waiter *w = q->first; w; w = w->next)
		if (w->task == task)
			pthread_cond_signal(&w->cond);
	mutex_unlock(&q->lock);
}

void dax_task_interrupt(struct dax_task *task)
{
	atomic_store(&task->interrupted, true);
	wake_task(task);
}

void dax_task_kick(struct dax_task *task)
{
	atomic_store(&task->kicked, true);
	wake_task(task);
}
