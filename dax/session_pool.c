/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_pool.c - the threads that receive from clients
 *
 * One thread at a time has the role of the receiver: it waits for an event,
 * handles it, and waits for the next one.  A thread that is about to sleep for
 * long says so through sleep_hook, and leaves the role to a spare, which is
 * started if there is none.  So whatever a request waits for, the answers to
 * recalls are received, and answers themselves wait for nothing.
 *
 * At the limit of threads a request is refused before it can sleep
 * (session_pool_has_room()); the role always finds somebody.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "dax/session_i.h"

/* A spare thread waits so long for the role before it ends. */
#define LINGER_NS UINT64_C(2000000000)

/* Deep enough for the filesystem and for a sanitizer's frames. */
#define STACK_SIZE (UINT64_C(1) << 20)

/* Threads beyond those that may sleep: receiver, and some on their way. */
#define SPARE_THREADS 8u

struct me {
	struct session_server *srv;
	bool has_role;
	unsigned int nr_begun; /* sleep_hook_begin() without its end */
};

static void *pool_main(void *arg);

static bool start_thread(struct session_server *srv, struct session_pool *pool)
	__must_hold(pool->lock)
{
	pthread_attr_t attr;
	pthread_t thread;
	int ret;

	if (pool->nr_threads >= pool->max_threads)
		return false;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	ret = pthread_create(&thread, &attr, pool_main, srv);
	pthread_attr_destroy(&attr);
	if (ret)
		return false;
	pool->nr_threads++;
	return true;
}

static void sleep_begin(void *ctx)
{
	struct me *me = ctx;
	struct session_pool *pool = &me->srv->pool;

	if (me->nr_begun++ > 0)
		return;
	mutex_lock(&pool->lock);
	pool->nr_sleeping++;
	if (me->has_role && !pool->over &&
	    (pool->nr_idle > 0 || start_thread(me->srv, pool))) {
		me->has_role = false;
		pool->receiving = false;
		pthread_cond_signal(&pool->idle);
	}
	if (me->has_role) {
		pool->asleep = true;
		pthread_cond_broadcast(&pool->ended);
	}
	mutex_unlock(&pool->lock);
}

static void sleep_end(void *ctx)
{
	struct me *me = ctx;
	struct session_pool *pool = &me->srv->pool;

	if (--me->nr_begun > 0)
		return;
	mutex_lock(&pool->lock);
	pool->nr_sleeping--;
	if (me->has_role)
		pool->asleep = false;
	mutex_unlock(&pool->lock);
}

/* False: it is time to end. */
static bool take_role(struct me *me)
{
	struct session_pool *pool = &me->srv->pool;
	uint64_t until = session_now() + LINGER_NS;
	bool in_time = true;

	mutex_lock(&pool->lock);
	pool->nr_idle++;
	while (pool->receiving && !pool->over && in_time)
		in_time = mutex_wait_until(&pool->lock, &pool->idle, until);
	pool->nr_idle--;
	if (!pool->receiving && !pool->over) {
		pool->receiving = true;
		me->has_role = true;
	}
	mutex_unlock(&pool->lock);
	return me->has_role;
}

/* Each joins the one that ended before it; session_pool_stop() the last. */
static void thread_end(struct session_pool *pool)
{
	pthread_t prev;
	bool has_prev;

	mutex_lock(&pool->lock);
	has_prev = pool->has_ended_thread;
	prev = pool->ended_thread;
	pool->has_ended_thread = true;
	pool->ended_thread = pthread_self();
	if (--pool->nr_threads == 0)
		pthread_cond_broadcast(&pool->ended);
	mutex_unlock(&pool->lock);
	if (has_prev)
		pthread_join(prev, NULL);
}

static void leave_role(struct me *me)
{
	struct session_pool *pool = &me->srv->pool;

	mutex_lock(&pool->lock);
	pool->receiving = false;
	me->has_role = false;
	pthread_cond_signal(&pool->idle);
	pthread_cond_broadcast(&pool->ended);
	mutex_unlock(&pool->lock);
}

static void *pool_main(void *arg)
{
	struct me me = { .srv = arg };
	const struct sleep_hook hook = { sleep_begin, sleep_end, &me };

	pthread_setname_np(pthread_self(), "foliofs/session");
	sleep_hook_set(&hook);
	while (take_role(&me)) {
		while (me.has_role && !atomic_load(&me.srv->over))
			session_receive(me.srv);
		if (me.has_role)
			leave_role(&me);
	}
	sleep_hook_set(NULL);
	thread_end(&me.srv->pool);
	return NULL;
}

bool session_pool_has_room(struct session_server *srv)
{
	struct session_pool *pool = &srv->pool;
	bool room;

	mutex_lock(&pool->lock);
	room = pool->nr_sleeping < pool->max_threads - SPARE_THREADS;
	mutex_unlock(&pool->lock);
	return room;
}

int session_pool_start(struct session_server *srv, unsigned int max_sleeps)
{
	struct session_pool *pool = &srv->pool;
	sigset_t all, old;
	bool started;

	mutex_init(&pool->lock, LOCK_LEAF);
	cond_init(&pool->idle);
	cond_init(&pool->ended);
	pool->max_threads = max_sleeps + SPARE_THREADS;
	/* Signals are for others; but what a thread raises is its own. */
	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGABRT);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	mutex_lock(&pool->lock);
	started = start_thread(srv, pool);
	mutex_unlock(&pool->lock);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return started ? 0 : -EAGAIN;
}

void session_pool_quiet(struct session_server *srv)
{
	struct session_pool *pool = &srv->pool;

	mutex_lock(&pool->lock);
	pool->over = true;
	pthread_cond_broadcast(&pool->idle);
	eventfd_write(srv->wake_fd, 1);
	while (pool->receiving && !pool->asleep)
		mutex_wait(&pool->lock, &pool->ended);
	mutex_unlock(&pool->lock);
}

void session_pool_stop(struct session_server *srv)
{
	struct session_pool *pool = &srv->pool;

	mutex_lock(&pool->lock);
	while (pool->nr_threads > 0)
		mutex_wait(&pool->lock, &pool->ended);
	mutex_unlock(&pool->lock);
	if (pool->has_ended_thread)
		pthread_join(pool->ended_thread, NULL);
	pthread_cond_destroy(&pool->idle);
	pthread_cond_destroy(&pool->ended);
	mutex_destroy(&pool->lock);
}
