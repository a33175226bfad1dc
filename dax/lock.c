/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lock.c - locks that know their place
 *
 * The books are a short stack per thread.  Releases may come in any order, so
 * release looks for its lock from the top; the stack is rarely deeper than
 * four.
 */
#include "dax/lock.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define NR_HELD 24

struct held {
	const void *lock;
	enum lock_rank rank;
};

static _Thread_local struct {
	unsigned int nr;
	struct held held[NR_HELD];
} books;

static _Thread_local struct sleep_hook sleep_hook;

static void __attribute__((noreturn))
die(const char *what, const void *lock, enum lock_rank rank)
{
	fprintf(stderr, "foliofs: lock order: %s %p, rank %d; held:", what,
		lock, rank);
	for (unsigned int i = 0; i < books.nr; i++)
		fprintf(stderr, " %p(%d)", books.held[i].lock,
			books.held[i].rank);
	fputc('\n', stderr);
	abort();
}

void lock_rank_acquire(const void *lock, enum lock_rank rank)
{
	if (!LOCK_CHECKS)
		return;
	for (unsigned int i = 0; i < books.nr; i++)
		if (books.held[i].rank >= rank)
			die("taking", lock, rank);
	if (books.nr == NR_HELD)
		die("too many locks at", lock, rank);
	books.held[books.nr++] = (struct held){ lock, rank };
}

void lock_rank_release(const void *lock)
{
	unsigned int i;

	if (!LOCK_CHECKS)
		return;
	for (i = books.nr; i > 0; i--)
		if (books.held[i - 1].lock == lock)
			break;
	if (i == 0)
		die("releasing a lock not held", lock, 0);
	for (; i < books.nr; i++)
		books.held[i - 1] = books.held[i];
	books.nr--;
}

bool lock_rank_free(enum lock_rank rank)
{
	for (unsigned int i = 0; i < books.nr; i++)
		if (books.held[i].rank >= rank)
			return false;
	return true;
}

#if LOCK_PERTURB
void lock_point(void)
{
	static _Atomic(uint32_t) next_seed = 1;
	static _Thread_local uint32_t seed;

	if (!seed)
		seed = atomic_fetch_add(&next_seed, 1) * 2654435761u | 1;
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	if (seed % 256 == 0)
		usleep(seed >> 8 & 127);
	else if (seed % 16 == 0)
		sched_yield();
}
#endif

void mutex_init(struct mutex *m, enum lock_rank rank)
{
	int ret = pthread_mutex_init(&m->m, NULL);

	assert(ret == 0);
	(void)ret;
	m->rank = rank;
}

void mutex_destroy(struct mutex *m)
{
	pthread_mutex_destroy(&m->m);
}

void mutex_lock(struct mutex *m) __no_lock_analysis
{
	int ret;

	lock_rank_acquire(m, m->rank);
	lock_point();
	ret = pthread_mutex_lock(&m->m);
	assert(ret == 0);
	(void)ret;
}

bool mutex_trylock(struct mutex *m) __no_lock_analysis
{
	if (pthread_mutex_trylock(&m->m) != 0)
		return false;
	lock_rank_acquire(m, m->rank);
	return true;
}

void mutex_unlock(struct mutex *m) __no_lock_analysis
{
	lock_rank_release(m);
	pthread_mutex_unlock(&m->m);
	lock_point();
}

void mutex_wait(struct mutex *m, pthread_cond_t *cond)
{
	pthread_cond_wait(cond, &m->m);
}

bool mutex_wait_until(struct mutex *m, pthread_cond_t *cond, uint64_t ns)
{
	struct timespec ts = { .tv_sec = (time_t)(ns / 1000000000),
			       .tv_nsec = (long)(ns % 1000000000) };

	return pthread_cond_timedwait(cond, &m->m, &ts) != ETIMEDOUT;
}

void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

void rwsem_init(struct rwsem *s)
{
	pthread_rwlockattr_t attr;
	int ret;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	ret = pthread_rwlock_init(&s->rw, &attr);
	assert(ret == 0);
	(void)ret;
	pthread_rwlockattr_destroy(&attr);
}

void rwsem_destroy(struct rwsem *s)
{
	pthread_rwlock_destroy(&s->rw);
}

void rwsem_down_read(struct rwsem *s, enum lock_rank rank) __no_lock_analysis
{
	lock_rank_acquire(s, rank);
	lock_point();
	if (pthread_rwlock_tryrdlock(&s->rw) == 0)
		return;
	sleep_hook_begin();
	pthread_rwlock_rdlock(&s->rw);
	sleep_hook_end();
}

void rwsem_down_write(struct rwsem *s, enum lock_rank rank) __no_lock_analysis
{
	lock_rank_acquire(s, rank);
	lock_point();
	if (pthread_rwlock_trywrlock(&s->rw) == 0)
		return;
	sleep_hook_begin();
	pthread_rwlock_wrlock(&s->rw);
	sleep_hook_end();
}

bool rwsem_trydown_write(struct rwsem *s, enum lock_rank rank)
	__no_lock_analysis
{
	if (pthread_rwlock_trywrlock(&s->rw) != 0)
		return false;
	lock_rank_acquire(s, rank);
	return true;
}

void rwsem_up_read(struct rwsem *s) __no_lock_analysis
{
	lock_rank_release(s);
	pthread_rwlock_unlock(&s->rw);
	lock_point();
}

void rwsem_up_write(struct rwsem *s) __no_lock_analysis
{
	lock_rank_release(s);
	pthread_rwlock_unlock(&s->rw);
	lock_point();
}

void sleep_hook_set(const struct sleep_hook *hook)
{
	sleep_hook = hook ? *hook : (struct sleep_hook){ NULL, NULL, NULL };
}

void sleep_hook_begin(void)
{
	if (sleep_hook.begin)
		sleep_hook.begin(sleep_hook.ctx);
}

void sleep_hook_end(void)
{
	if (sleep_hook.end)
		sleep_hook.end(sleep_hook.ctx);
}
