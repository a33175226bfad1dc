/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/worker.c - the threads that receive requests
 *
 * Invariants, all under pool->lock:
 *
 *  W1 owner[i] sits on seat i: owner[i]->seat == i, for every seat.
 *  W2 nr_awake is the number of seats whose owner is not asleep, and
 *     nr_asleep is the rest.
 *  W3 A thread on the idle list has no seat and waits for its condition.
 *
 * Who is woken finds its seat already its own.  worker->seat is read by its
 * thread without the lock: others change it only while that thread is asleep
 * or idle, and it takes the lock before it goes on.
 */
#include "fs/worker.h"

#include <assert.h>
#include <errno.h>
#include <fuse_log.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include "dax/lock.h"

/* Sleeps up to here are not worth waking another thread for. */
#define SHORT_SLEEP_NS UINT64_C(2000000)

/* How often pool_close() tells threads again that they are to end. */
#define NUDGE_NS UINT64_C(50000000)

/* Deep enough for the filesystem and for a sanitizer's frames. */
#define STACK_SIZE (UINT64_C(1) << 20)

/* Interrupts a read of the transport. */
#define SIGKICK SIGRTMIN

struct worker {
	struct pool *pool;
	LIST_ENTRY(worker) all;
	LIST_ENTRY(worker) idle;
	pthread_t thread;
	pthread_cond_t wake;
	uint64_t nr;		/* it is the nr-th thread */
	int seat;		/* -1: none */
	unsigned int nr_begun;	/* sleep_hook_begin() without its end */
	bool asleep;		/* and still on its seat */
	uint64_t since;		/* when it fell asleep, CLOCK_MONOTONIC */
	_Atomic(uint64_t) busy; /* unique of its request, 0 in receive() */
	struct request rq;
};

LIST_HEAD(worker_list, worker);

struct pool {
	struct transport *tr;
	struct pool_handler handler;
	unsigned int nr_seats;
	unsigned int max_threads;
	uint64_t linger_ns;
	_Atomic(uint64_t) *tell_waiting; /* or NULL */
	int over_fd;
	_Atomic(bool) over; /* nothing more is to be received */
	_Atomic(unsigned int) nr_asleep;

	/* Covers everything below. */
	struct mutex lock;
	pthread_cond_t ended; /* nr_threads has become 0 */
	struct worker *owner[POOL_MAX_SEATS];
	struct worker_list all;
	struct worker_list idle; /* last in, first out */
	unsigned int nr_awake;
	unsigned int nr_threads;
	unsigned int nr_waiting;
	uint64_t nr_started;
	bool told_limit;
	bool has_ended_thread; /* the last one to end is to be joined */
	pthread_t ended_thread;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void *worker_main(void *arg);

/* A thread that has seat @seat; started with all but its own signals blocked.
 */
static struct worker *worker_start(struct pool *pool, int seat)
	__must_hold(pool->lock)
{
	struct worker *w = calloc(1, sizeof(*w));
	pthread_attr_t attr;
	int ret;

	if (!w)
		return NULL;
	w->pool = pool;
	w->seat = seat;
	if (request_init(&w->rq))
		goto err_free;
	cond_init(&w->wake);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	ret = pthread_create(&w->thread, &attr, worker_main, w);
	pthread_attr_destroy(&attr);
	if (ret)
		goto err_destroy;
	LIST_INSERT_HEAD(&pool->all, w, all);
	pool->nr_threads++;
	w->nr = ++pool->nr_started;
	return w;

err_destroy:
	pthread_cond_destroy(&w->wake);
	request_destroy(&w->rq);
err_free:
	free(w);
	return NULL;
}

static void worker_free(struct worker *w)
{
	pthread_cond_destroy(&w->wake);
	request_destroy(&w->rq);
	free(w);
}

static void tell_limit(struct pool *pool) __must_hold(pool->lock)
{
	if (pool->told_limit)
		return;
	pool->told_limit = true;
	fuse_log(FUSE_LOG_WARNING,
		 "foliofs: %u requests wait and no more threads can be had: "
		 "further requests queue in the kernel\n",
		 pool->nr_waiting);
}

/* Find another thread for a seat, before or while its owner sleeps. */
static bool seat_give_away(struct pool *pool, int seat) __must_hold(pool->lock)
{
	struct worker *from = pool->owner[seat];
	struct worker *to = LIST_FIRST(&pool->idle);

	if (to) {
		LIST_REMOVE(to, idle);
		to->seat = seat;
		pthread_cond_signal(&to->wake);
	} else if (pool->nr_threads < pool->max_threads) {
		to = worker_start(pool, seat);
	}
	if (!to) {
		tell_limit(pool);
		return false;
	}
	pool->owner[seat] = to;
	from->seat = -1;
	return true;
}

static void fall_asleep(struct pool *pool, struct worker *w)
	__must_hold(pool->lock)
{
	w->asleep = true;
	w->since = now_ns();
	pool->nr_awake--;
	atomic_fetch_add(&pool->nr_asleep, 1);
}

static void wake_up(struct pool *pool, struct worker *w) __must_hold(pool->lock)
{
	w->asleep = false;
	pool->nr_awake++;
	atomic_fetch_sub(&pool->nr_asleep, 1);
}

static void count_waiting(struct pool *pool, int change) __must_hold(pool->lock)
{
	pool->nr_waiting += (unsigned int)change;
	if (pool->tell_waiting)
		atomic_store_explicit(pool->tell_waiting, pool->nr_waiting,
				      memory_order_relaxed);
}

static void sleep_begin(void *ctx)
{
	struct worker *w = ctx;
	struct pool *pool = w->pool;

	if (w->nr_begun++ > 0)
		return;
	mutex_lock(&pool->lock);
	count_waiting(pool, 1);
	if (w->seat >= 0 &&
	    (pool->nr_awake > 1 || !seat_give_away(pool, w->seat)))
		fall_asleep(pool, w);
	mutex_unlock(&pool->lock);
}

static void sleep_end(void *ctx)
{
	struct worker *w = ctx;
	struct pool *pool = w->pool;

	assert(w->nr_begun > 0);
	if (--w->nr_begun > 0)
		return;
	mutex_lock(&pool->lock);
	count_waiting(pool, -1);
	if (w->asleep)
		wake_up(pool, w);
	mutex_unlock(&pool->lock);
}

/*
 * A seat whose owner has slept for long, or any sleeper's when nobody is
 * awake; -1 for none.
 */
static int find_sleeper(const struct pool *pool) __must_hold(pool->lock)
{
	uint64_t now = now_ns();

	for (unsigned int i = 0; i < pool->nr_seats; i++) {
		const struct worker *w = pool->owner[i];

		if (w->asleep &&
		    (pool->nr_awake == 0 || now - w->since > SHORT_SLEEP_NS))
			return (int)i;
	}
	return -1;
}

/* Somebody sleeps on a seat: have all seats used that are worth it. */
static void rebalance(struct pool *pool)
{
	struct worker *from;
	int seat;

	mutex_lock(&pool->lock);
	while ((seat = find_sleeper(pool)) >= 0) {
		from = pool->owner[seat];
		if (!seat_give_away(pool, seat))
			break;
		wake_up(pool, from); /* the seat, with its new owner */
	}
	mutex_unlock(&pool->lock);
}

static bool seat_take(struct pool *pool, struct worker *w)
	__must_hold(pool->lock)
{
	int seat = find_sleeper(pool);
	struct worker *from;

	if (seat < 0)
		return false;
	from = pool->owner[seat];
	from->seat = -1;
	wake_up(pool, from);
	pool->owner[seat] = w;
	w->seat = seat;
	return true;
}

/* Without a seat: wait for one as a spare.  False: it is time to end. */
static bool wait_for_seat(struct pool *pool, struct worker *w)
{
	uint64_t until = now_ns() + pool->linger_ns;
	bool seated;

	mutex_lock(&pool->lock);
	if (!seat_take(pool, w)) {
		LIST_INSERT_HEAD(&pool->idle, w, idle);
		while (w->seat < 0 && !atomic_load(&pool->over))
			if (!mutex_wait_until(&pool->lock, &w->wake, until))
				break;
		if (w->seat < 0)
			LIST_REMOVE(w, idle);
	}
	seated = w->seat >= 0;
	mutex_unlock(&pool->lock);
	return seated;
}

static void pool_over(struct pool *pool)
{
	struct worker *w;

	mutex_lock(&pool->lock);
	if (!atomic_exchange(&pool->over, true)) {
		LIST_FOREACH(w, &pool->idle, idle)
		pthread_cond_signal(&w->wake);
		eventfd_write(pool->over_fd, 1);
	}
	mutex_unlock(&pool->lock);
}

static void handle(struct pool *pool, struct worker *w)
{
	atomic_store_explicit(&w->busy, w->rq.in->unique, memory_order_relaxed);
	if (atomic_load_explicit(&pool->nr_asleep, memory_order_relaxed) > 0)
		rebalance(pool);
	pool->handler.dispatch(pool->handler.ctx, &w->rq);
	assert(w->nr_begun == 0);
	atomic_store_explicit(&w->busy, 0, memory_order_relaxed);
}

static void receive_loop(struct pool *pool, struct worker *w)
{
	struct transport *tr = pool->tr;
	int ret;

	while (!atomic_load_explicit(&pool->over, memory_order_relaxed)) {
		if (w->seat < 0 && !wait_for_seat(pool, w))
			return;
		ret = tr->ops->receive(tr, (unsigned int)w->seat, &w->rq);
		if (ret == 0)
			handle(pool, w);
		else if (ret != -EINTR)
			pool_over(pool);
	}
}

/*
 * Each thread that ends joins the one that ended before it, so that nothing
 * piles up and pool_close() has one thread to join.
 */
static void worker_end(struct pool *pool, struct worker *w)
{
	pthread_t prev;
	bool has_prev;

	mutex_lock(&pool->lock);
	LIST_REMOVE(w, all);
	has_prev = pool->has_ended_thread;
	prev = pool->ended_thread;
	pool->has_ended_thread = true;
	pool->ended_thread = w->thread;
	if (--pool->nr_threads == 0)
		pthread_cond_broadcast(&pool->ended);
	mutex_unlock(&pool->lock);
	if (has_prev)
		pthread_join(prev, NULL);
	worker_free(w);
}

static void worker_name(struct pool *pool, struct worker *w)
{
	char name[16];

	/* worker_start() fills in the worker under the lock. */
	mutex_lock(&pool->lock);
	snprintf(name, sizeof(name), "foliofs/%u",
		 (unsigned int)(w->nr % 100000));
	pthread_setname_np(w->thread, name);
	mutex_unlock(&pool->lock);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct pool *pool = w->pool;
	const struct sleep_hook hook = {
		.begin = sleep_begin,
		.end = sleep_end,
		.ctx = w,
	};

	worker_name(pool, w);
	sleep_hook_set(&hook);
	receive_loop(pool, w);
	sleep_hook_set(NULL);
	worker_end(pool, w);
	return NULL;
}

static unsigned int default_seats(void)
{
	unsigned int nr = 1;
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		nr = (unsigned int)CPU_COUNT(&set);
	if (nr <= 2)
		return 1;
	return nr / 2 + 1 < 4 ? nr / 2 + 1 : 4;
}

static void kick(int sig)
{
	(void)sig;
}

/*
 * Threads inherit their signal mask: none but the kick, and those that a
 * thread raises itself.  Returns the caller's mask in @ret_old.
 */
static void signals_for_workers(sigset_t *ret_old)
{
	static const int own[] = { SIGSEGV, SIGBUS, SIGILL,  SIGFPE,
				   SIGTRAP, SIGSYS, SIGABRT, SIGPROF };
	struct sigaction sa = { .sa_handler = kick };
	sigset_t set;

	sigemptyset(&sa.sa_mask);
	sigaction(SIGKICK, &sa, NULL);
	sigfillset(&set);
	sigdelset(&set, SIGKICK);
	for (unsigned int i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		sigdelset(&set, own[i]);
	pthread_sigmask(SIG_SETMASK, &set, ret_old);
}

static void start_seats(struct pool *pool)
{
	sigset_t old;

	signals_for_workers(&old);
	mutex_lock(&pool->lock);
	for (unsigned int i = 0; i < pool->nr_seats; i++) {
		pool->owner[i] = worker_start(pool, (int)i);
		if (!pool->owner[i])
			break;
		pool->nr_awake++;
	}
	pool->nr_seats = pool->nr_awake;
	mutex_unlock(&pool->lock);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void pool_free(struct pool *pool)
{
	close(pool->over_fd);
	pthread_cond_destroy(&pool->ended);
	mutex_destroy(&pool->lock);
	free(pool);
}

static void pool_configure(struct pool *pool, const struct pool_options *opt)
{
	unsigned int seats = opt->nr_seats ? opt->nr_seats : default_seats();
	unsigned int max =
		opt->max_threads ? opt->max_threads : POOL_MAX_THREADS;
	unsigned int linger = opt->linger_ms ? opt->linger_ms : POOL_LINGER_MS;

	if (seats > POOL_MAX_SEATS)
		seats = POOL_MAX_SEATS;
	pool->nr_seats = seats;
	pool->max_threads = max > seats ? max : seats;
	pool->linger_ns = (uint64_t)linger * 1000000;
	pool->tell_waiting = opt->nr_waiting;
}

int pool_open(struct transport *tr, const struct pool_handler *handler,
	      const struct pool_options *opt, struct pool **ret_pool)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	pool->over_fd = eventfd(0, EFD_CLOEXEC);
	if (pool->over_fd == -1) {
		free(pool);
		return -EMFILE;
	}
	pool->tr = tr;
	pool->handler = *handler;
	mutex_init(&pool->lock, LOCK_LEAF);
	cond_init(&pool->ended);
	LIST_INIT(&pool->all);
	LIST_INIT(&pool->idle);
	pool_configure(pool, opt);
	start_seats(pool);
	if (pool->nr_seats == 0) {
		pool_free(pool);
		return -EAGAIN;
	}
	*ret_pool = pool;
	return 0;
}

int pool_fd(const struct pool *pool)
{
	return pool->over_fd;
}

void pool_stop(struct pool *pool)
{
	pool_over(pool);
}

/*
 * Tell every thread once more to end: those in receive() by a signal, which
 * they may just miss, those that wait in a request by an interrupt.
 */
static void nudge(struct pool *pool)
{
	uint64_t *busy;
	unsigned int nr = 0;
	struct worker *w;

	mutex_lock(&pool->lock);
	busy = calloc(pool->nr_threads + 1, sizeof(*busy));
	LIST_FOREACH(w, &pool->all, all)
	{
		uint64_t unique = atomic_load(&w->busy);

		if (unique == 0)
			pthread_kill(w->thread, SIGKICK);
		else if (busy)
			busy[nr++] = unique;
	}
	mutex_unlock(&pool->lock);
	while (nr > 0)
		pool->handler.interrupt(pool->handler.ctx, busy[--nr]);
	free(busy);
}

/* Wait for the threads for a while; returns how many are left. */
static unsigned int wait_for_threads(struct pool *pool, uint64_t until)
{
	unsigned int nr;

	mutex_lock(&pool->lock);
	while (pool->nr_threads > 0)
		if (!mutex_wait_until(&pool->lock, &pool->ended, until))
			break;
	nr = pool->nr_threads;
	mutex_unlock(&pool->lock);
	return nr;
}

int pool_close(struct pool *pool, unsigned int timeout_ms)
{
	uint64_t until = now_ns() + (uint64_t)timeout_ms * 1000000;

	pool_over(pool);
	do {
		nudge(pool);
		if (wait_for_threads(pool, now_ns() + NUDGE_NS) == 0) {
			pthread_join(pool->ended_thread, NULL);
			pool_free(pool);
			return 0;
		}
	} while (now_ns() < until);
	return -ETIMEDOUT;
}

void pool_stat(struct pool *pool, struct pool_stat *ret)
{
	mutex_lock(&pool->lock);
	*ret = (struct pool_stat){
		.nr_seats = pool->nr_seats,
		.nr_threads = pool->nr_threads,
		.nr_waiting = pool->nr_waiting,
		.nr_started = pool->nr_started,
	};
	mutex_unlock(&pool->lock);
}
