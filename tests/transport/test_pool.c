/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/transport/test_pool.c - the receiving threads, over a pipe
 *
 * A plain program, so that it runs under ThreadSanitizer as well.  A request
 * is one letter in a pipe; the end of the pipe is the end of the connection.
 */
#include "fs/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "dax/lock.h"

enum kind {
	QUICK = 'q',	/* counts */
	SHORT = 's',	/* sleeps for a moment, and counts */
	PARK = 'p',	/* sleeps until released or interrupted */
	STUCK = 'x',	/* sleeps until released */
	TOGETHER = 't', /* returns when two of them are being handled */
};

struct fake {
	struct transport tr;
	int in, out;
	_Atomic(uint64_t) last_unique;
	_Atomic(unsigned int) nr_done;
	pthread_mutex_t lock; /* covers what follows */
	pthread_cond_t changed;
	unsigned int nr_parked;
	unsigned int nr_together;
	unsigned int nr_to_release;
	unsigned int nr_interrupts;
	bool interrupted;
};

#define CHECK(cond)                                                      \
	do {                                                             \
		if (!(cond)) {                                           \
			fprintf(stderr, "%s:%d: %s: not %s\n", __FILE__, \
				__LINE__, __func__, #cond);              \
			exit(1);                                         \
		}                                                        \
	} while (0)

static void sleep_us(unsigned int us)
{
	struct timespec ts = { .tv_nsec = (long)us * 1000 };

	nanosleep(&ts, NULL);
}

/* Wait for a condition that other threads bring about, at most 20 s. */
#define UNTIL(cond)                          \
	do {                                 \
		unsigned int tries = 100000; \
                                             \
		while (!(cond) && --tries)   \
			sleep_us(200);       \
		CHECK(cond);                 \
	} while (0)

static int fake_receive(struct transport *tr, unsigned int seat,
			struct request *rq)
{
	struct fake *fake = (struct fake *)tr;
	char kind;
	ssize_t n = read(fake->in, &kind, 1);

	(void)seat;
	if (n <= 0)
		return n == 0 ? -ENODEV : -errno;
	rq->in = request_start(rq);
	*rq->in = (struct fuse_in_header){
		.opcode = (uint32_t)kind,
		.unique = atomic_fetch_add(&fake->last_unique, 1) + 1,
	};
	rq->len = sizeof(*rq->in);
	return 0;
}

static const struct transport_ops fake_ops = { .receive = fake_receive };

static void park(struct fake *fake, bool interruptible)
{
	sleep_hook_begin();
	pthread_mutex_lock(&fake->lock);
	fake->nr_parked++;
	while (!fake->nr_to_release && !(interruptible && fake->interrupted))
		pthread_cond_wait(&fake->changed, &fake->lock);
	if (fake->nr_to_release)
		fake->nr_to_release--;
	fake->nr_parked--;
	pthread_mutex_unlock(&fake->lock);
	sleep_hook_end();
}

static void meet(struct fake *fake)
{
	pthread_mutex_lock(&fake->lock);
	fake->nr_together++;
	pthread_cond_broadcast(&fake->changed);
	while (fake->nr_together < 2)
		pthread_cond_wait(&fake->changed, &fake->lock);
	pthread_mutex_unlock(&fake->lock);
}

static void fake_dispatch(void *ctx, struct request *rq)
{
	struct fake *fake = ctx;

	switch (rq->in->opcode) {
	case SHORT:
		sleep_hook_begin();
		sched_yield();
		sleep_hook_end();
		break;
	case PARK:
		park(fake, true);
		break;
	case STUCK:
		park(fake, false);
		break;
	case TOGETHER:
		meet(fake);
		break;
	default:
		break;
	}
	atomic_fetch_add(&fake->nr_done, 1);
}

static void fake_interrupt(void *ctx, uint64_t unique)
{
	struct fake *fake = ctx;

	CHECK(unique > 0 && unique <= atomic_load(&fake->last_unique));
	pthread_mutex_lock(&fake->lock);
	fake->nr_interrupts++;
	fake->interrupted = true;
	pthread_cond_broadcast(&fake->changed);
	pthread_mutex_unlock(&fake->lock);
}

static struct pool *setup(struct fake *fake, unsigned int nr_seats,
			  unsigned int max_threads, unsigned int linger_ms)
{
	const struct pool_options opt = {
		.nr_seats = nr_seats,
		.max_threads = max_threads,
		.linger_ms = linger_ms,
	};
	const struct pool_handler handler = {
		.dispatch = fake_dispatch,
		.interrupt = fake_interrupt,
		.ctx = fake,
	};
	struct pool *pool;
	int fds[2];

	CHECK(pipe(fds) == 0);
	*fake = (struct fake){ .tr.ops = &fake_ops,
			       .in = fds[0],
			       .out = fds[1] };
	pthread_mutex_init(&fake->lock, NULL);
	pthread_cond_init(&fake->changed, NULL);
	CHECK(pool_open(&fake->tr, &handler, &opt, &pool) == 0);
	return pool;
}

static void teardown(struct fake *fake, struct pool *pool)
{
	CHECK(pool_close(pool, 10000) == 0);
	close(fake->in);
	if (fake->out != -1)
		close(fake->out);
	pthread_cond_destroy(&fake->changed);
	pthread_mutex_destroy(&fake->lock);
}

static void post(const struct fake *fake, enum kind kind, unsigned int nr)
{
	char c = (char)kind;

	while (nr-- > 0)
		CHECK(write(fake->out, &c, 1) == 1);
}

static void release(struct fake *fake, unsigned int nr)
{
	pthread_mutex_lock(&fake->lock);
	fake->nr_to_release += nr;
	pthread_cond_broadcast(&fake->changed);
	pthread_mutex_unlock(&fake->lock);
}

static unsigned int nr_parked(struct fake *fake)
{
	unsigned int nr;

	pthread_mutex_lock(&fake->lock);
	nr = fake->nr_parked;
	pthread_mutex_unlock(&fake->lock);
	return nr;
}

static unsigned int nr_threads(struct pool *pool)
{
	struct pool_stat st;

	pool_stat(pool, &st);
	return st.nr_threads;
}

static uint64_t nr_started(struct pool *pool)
{
	struct pool_stat st;

	pool_stat(pool, &st);
	return st.nr_started;
}

/* Parked requests do not stop others, and their threads go afterwards. */
static void parked_do_not_stop_others(unsigned int nr_seats)
{
	struct fake fake;
	struct pool *pool = setup(&fake, nr_seats, 0, 50);

	post(&fake, PARK, 200);
	UNTIL(nr_parked(&fake) == 200);
	post(&fake, QUICK, 1000);
	UNTIL(atomic_load(&fake.nr_done) == 1000);
	CHECK(nr_parked(&fake) == 200);
	CHECK(nr_threads(pool) <= 200 + nr_seats);
	release(&fake, 200);
	UNTIL(atomic_load(&fake.nr_done) == 1200);
	UNTIL(nr_threads(pool) == nr_seats);
	post(&fake, QUICK, 1000);
	UNTIL(atomic_load(&fake.nr_done) == 2200);
	teardown(&fake, pool);
}

/* A long sleeper does not keep its seat from being used. */
static void seats_of_sleepers_are_used(void)
{
	struct fake fake;
	struct pool *pool = setup(&fake, 2, 0, 50);

	post(&fake, PARK, 1);
	UNTIL(nr_parked(&fake) == 1);
	sleep_us(5000); /* long */
	post(&fake, TOGETHER, 2);
	UNTIL(atomic_load(&fake.nr_done) == 2);
	CHECK(nr_threads(pool) == 3);
	release(&fake, 1);
	UNTIL(nr_threads(pool) == 2);
	teardown(&fake, pool);
}

/* At the limit requests queue, and the first thread back takes them. */
static void limit_queues(unsigned int nr_seats)
{
	struct fake fake;
	struct pool *pool = setup(&fake, nr_seats, 4, 50);
	struct pool_stat st;
	int queued;

	post(&fake, PARK, 4);
	UNTIL(nr_parked(&fake) == 4);
	post(&fake, QUICK, 100);
	pool_stat(pool, &st);
	CHECK(st.nr_threads == 4 && st.nr_waiting == 4);
	sleep_us(20000); /* for whoever would receive in error */
	CHECK(ioctl(fake.in, FIONREAD, &queued) == 0 && queued == 100);
	release(&fake, 1);
	UNTIL(atomic_load(&fake.nr_done) == 101);
	CHECK(nr_parked(&fake) == 3);
	release(&fake, 3);
	UNTIL(atomic_load(&fake.nr_done) == 104);
	UNTIL(nr_threads(pool) == nr_seats);
	teardown(&fake, pool);
}

/* Short sleeps are handed to spares, not to new threads each. */
static void short_sleeps_cost_no_threads(unsigned int nr_seats)
{
	struct fake fake;
	struct pool *pool = setup(&fake, nr_seats, 0, 0);
	uint64_t before = nr_started(pool);

	for (unsigned int i = 0; i < 5000; i++) {
		post(&fake, SHORT, 1);
		post(&fake, QUICK, 3);
	}
	UNTIL(atomic_load(&fake.nr_done) == 20000);
	CHECK(before == nr_seats);
	CHECK(nr_started(pool) - before <= 500);
	teardown(&fake, pool);
}

/* The end of the connection ends what waits, and is announced. */
static void end_interrupts_waiters(void)
{
	struct fake fake;
	struct pool *pool = setup(&fake, 2, 0, 50);
	struct pollfd pfd = { .fd = pool_fd(pool), .events = POLLIN };

	post(&fake, PARK, 10);
	UNTIL(nr_parked(&fake) == 10);
	CHECK(poll(&pfd, 1, 0) == 0);
	close(fake.out);
	fake.out = -1;
	CHECK(poll(&pfd, 1, 20000) == 1);
	CHECK(pool_close(pool, 10000) == 0);
	CHECK(nr_parked(&fake) == 0);
	CHECK(fake.nr_interrupts >= 1);
	close(fake.in);
}

/* A request that never ends is reported, not waited for for ever. */
static void end_gives_up(void)
{
	struct fake fake;
	struct pool *pool = setup(&fake, 1, 0, 50);

	post(&fake, STUCK, 2);
	UNTIL(nr_parked(&fake) == 2);
	CHECK(pool_close(pool, 100) == -ETIMEDOUT);
	CHECK(nr_parked(&fake) == 2);
	release(&fake, 2);
	teardown(&fake, pool);
}

/* Parks, releases and quick requests at once, for the sanitizer. */
static void storm(void)
{
	struct fake fake;
	struct pool *pool = setup(&fake, 3, 24, 50);
	unsigned int nr = 0;

	for (unsigned int round = 0; round < 200; round++) {
		post(&fake, PARK, 5);
		post(&fake, SHORT, 5);
		post(&fake, QUICK, 10);
		release(&fake, 5);
		nr += 20;
		if (round % 50 == 0)
			sleep_us(100000); /* let spares end */
	}
	UNTIL(atomic_load(&fake.nr_done) == nr);
	teardown(&fake, pool);
}

int main(void)
{
	parked_do_not_stop_others(1);
	parked_do_not_stop_others(3);
	seats_of_sleepers_are_used();
	limit_queues(1);
	limit_queues(3);
	short_sleeps_cost_no_threads(1);
	short_sleeps_cost_no_threads(3);
	end_interrupts_waiters();
	end_gives_up();
	storm();
	return 0;
}
