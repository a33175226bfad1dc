/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/sched.c - threads that take turns, the same way in every run
 */
#include "tests/crash/sched.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/crash/log.h"
#include "tests/crash/rng.h"

/* So many turns in a row without a step: everybody waits for somebody. */
#define MAX_IDLE_TURNS 10000

static struct {
	pthread_mutex_t lock;
	pthread_cond_t turned;
	unsigned int turn;
	unsigned int idle;
	unsigned int steps; /* left of this turn */
	bool done[LOG_THREADS];
	struct rng rng;
	void (*fn)(void *ctx, unsigned int thread);
	void *ctx;
} sched = { .lock = PTHREAD_MUTEX_INITIALIZER,
	    .turned = PTHREAD_COND_INITIALIZER };

static _Thread_local bool active;

bool sched_active(void)
{
	return active;
}

/* The next thread that has something left to do, if there is another. */
static void pass_turn(unsigned int me)
{
	unsigned int i = me;

	do
		i = (i + 1) % LOG_THREADS;
	while (sched.done[i] && i != me);
	sched.turn = i;
	/* Quick changes, and now and then a run of several operations. */
	sched.steps = rng_below(&sched.rng, 8) ? rng_below(&sched.rng, 5)
					       : rng_below(&sched.rng, 120);
	pthread_cond_broadcast(&sched.turned);
}

static void wait_turn(unsigned int me)
{
	while (sched.turn != me)
		pthread_cond_wait(&sched.turned, &sched.lock);
}

void sched_point(void)
{
	if (!active)
		return;
	pthread_mutex_lock(&sched.lock);
	sched.idle = 0;
	if (sched.steps-- == 0) {
		pass_turn(log_thread);
		wait_turn(log_thread);
	}
	pthread_mutex_unlock(&sched.lock);
}

void sched_yield_turn(void)
{
	pthread_mutex_lock(&sched.lock);
	if (++sched.idle > MAX_IDLE_TURNS) {
		fprintf(stderr, "crash: deadlock: no thread can go on\n");
		abort();
	}
	pass_turn(log_thread);
	wait_turn(log_thread);
	pthread_mutex_unlock(&sched.lock);
}

static void *thread_main(void *arg)
{
	log_thread = *(const unsigned int *)arg;
	pthread_mutex_lock(&sched.lock);
	wait_turn(log_thread);
	pthread_mutex_unlock(&sched.lock);
	active = true;
	sched.fn(sched.ctx, log_thread);
	active = false;
	pthread_mutex_lock(&sched.lock);
	sched.done[log_thread] = true;
	sched.idle = 0;
	pass_turn(log_thread);
	pthread_mutex_unlock(&sched.lock);
	return NULL;
}

void sched_run(uint64_t seed, void (*fn)(void *ctx, unsigned int thread),
	       void *ctx)
{
	pthread_t thread[LOG_THREADS];
	unsigned int id[LOG_THREADS];

	sched.rng.state = seed;
	sched.turn = rng_below(&sched.rng, LOG_THREADS);
	sched.idle = 0;
	sched.steps = 0;
	sched.fn = fn;
	sched.ctx = ctx;
	for (unsigned int i = 0; i < LOG_THREADS; i++)
		sched.done[i] = false;
	for (unsigned int i = 0; i < LOG_THREADS; i++) {
		id[i] = i;
		if (pthread_create(&thread[i], NULL, thread_main, &id[i]))
			abort();
	}
	for (unsigned int i = 0; i < LOG_THREADS; i++)
		pthread_join(thread[i], NULL);
}
