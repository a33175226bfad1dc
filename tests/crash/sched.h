/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/sched.h - threads that take turns, the same way in every run
 *
 * sched_run() runs one function in LOG_THREADS threads, of which one runs at
 * a time.  The turn passes on at recorded events, as the seed says, and
 * whenever a lock is not to be had: wrap.c puts the functions below in the
 * place of those of dax/lock.h.  Outside of sched_run() they just lock.
 */
#ifndef CRASH_SCHED_H
#define CRASH_SCHED_H

#include <stdbool.h>
#include <stdint.h>

void sched_run(uint64_t seed, void (*fn)(void *ctx, unsigned int thread),
	       void *ctx);

/* Is this thread one of sched_run()'s? */
bool sched_active(void);

/* Perhaps it is somebody else's turn. */
void sched_point(void);

/* What this thread waits for has not happened: it is somebody else's turn. */
void sched_yield_turn(void);

#endif
