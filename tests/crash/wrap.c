/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/wrap.c - stand-ins that the linker puts before the real thing
 *
 * The filesystem under test is the ordinary one.  What the tests must govern
 * in it, they get hold of with the linker's --wrap: the device as it is
 * opened (to record from the first store of a recovery on), the clock, and
 * waiting for locks (so that two threads take turns in a known way).
 */
#include "tests/crash/wrap.h"

#include <stdatomic.h>
#include <time.h>

#include "dax/lock.h"
#include "dax/pmem.h"
#include "tests/crash/sched.h"

const struct pmem_recorder *wrap_recorder;

#define LOOKS_A_TICK 4

/* Every look at the clock is a moment later, so that times tell states. */
static _Atomic(int64_t) now;

int __real_pmem_open(const char *path, enum pmem_mode mode,
		     enum pmem_granularity want, struct pmem **ret_pm,
		     struct errmsg *err);
int __wrap_pmem_open(const char *path, enum pmem_mode mode,
		     enum pmem_granularity want, struct pmem **ret_pm,
		     struct errmsg *err);
int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
void __real_mutex_lock(struct mutex *m);
void __wrap_mutex_lock(struct mutex *m);
void __real_mutex_wait(struct mutex *m, pthread_cond_t *cond);
void __wrap_mutex_wait(struct mutex *m, pthread_cond_t *cond);
void __real_rwsem_down_read(struct rwsem *s, enum lock_rank rank);
void __wrap_rwsem_down_read(struct rwsem *s, enum lock_rank rank);
void __real_rwsem_down_write(struct rwsem *s, enum lock_rank rank);
void __wrap_rwsem_down_write(struct rwsem *s, enum lock_rank rank);

int __wrap_pmem_open(const char *path, enum pmem_mode mode,
		     enum pmem_granularity want, struct pmem **ret_pm,
		     struct errmsg *err)
{
	int ret = __real_pmem_open(path, mode, want, ret_pm, err);

	if (ret == 0 && wrap_recorder)
		pmem_record(*ret_pm, wrap_recorder);
	return ret;
}

void wrap_clock_reset(void)
{
	atomic_store(&now, INT64_C(1000000000) * 1000000);
}

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	int64_t ms;

	if (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)
		return __real_clock_gettime(id, ts);
	ms = atomic_fetch_add(&now, 1);
	/* A tick is a few looks: some changes find it moved on, some do not. */
	if (id == CLOCK_REALTIME_COARSE)
		ms -= ms % LOOKS_A_TICK;
	ts->tv_sec = ms / 1000000;
	ts->tv_nsec = ms % 1000000 * 1000;
	return 0;
}

void __wrap_mutex_lock(struct mutex *m) __no_lock_analysis
{
	if (!sched_active()) {
		__real_mutex_lock(m);
		return;
	}
	while (!mutex_trylock(m))
		sched_yield_turn();
}

/* May return for no reason, as waiting on a condition always may. */
void __wrap_mutex_wait(struct mutex *m, pthread_cond_t *cond) __no_lock_analysis
{
	if (!sched_active()) {
		__real_mutex_wait(m, cond);
		return;
	}
	mutex_unlock(m);
	sched_yield_turn();
	__wrap_mutex_lock(m);
}

void __wrap_rwsem_down_read(struct rwsem *s, enum lock_rank rank)
	__no_lock_analysis
{
	if (!sched_active()) {
		__real_rwsem_down_read(s, rank);
		return;
	}
	lock_rank_acquire(s, rank);
	while (pthread_rwlock_tryrdlock(&s->rw) != 0)
		sched_yield_turn();
}

void __wrap_rwsem_down_write(struct rwsem *s, enum lock_rank rank)
	__no_lock_analysis
{
	if (!sched_active()) {
		__real_rwsem_down_write(s, rank);
		return;
	}
	lock_rank_acquire(s, rank);
	while (pthread_rwlock_trywrlock(&s->rw) != 0)
		sched_yield_turn();
}
