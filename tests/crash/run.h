/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/run.h - a scenario that was run, with all it did to the device
 *
 * run_mkfs() and its like make the device, run_all() runs the scenario on it:
 * operation 0 is the mount, the last one the unmount.
 */
#ifndef CRASH_RUN_H
#define CRASH_RUN_H

#include "tests/crash/explore.h"
#include "tests/crash/log.h"
#include "tests/crash/script.h"
#include "tests/crash/state.h"

struct run_op {
	char cmd[SCRIPT_MAX_CMD];
	unsigned int thread;
	bool quiet; /* setup: not to be crashed */
	int rc;
	struct state after;
	struct mix *mix;
	unsigned int nr_mix;
	size_t begin, end; /* in the log */
};

struct run {
	const struct scenario *sc;
	char dev[64]; /* the device that the scenario runs on */
	uint64_t size;
	unsigned char *base; /* its contents before */
	unsigned int state_flags;
	struct log log;
	struct run_op *op;
	unsigned int nr_ops, cap_ops;
	unsigned int nr_setup; /* operations up to here are setup */
	struct state before;   /* of all */
	struct state other;    /* before, but which may be there as well */
};

/* @tag tells files in /dev/shm apart; @state may be NULL, not known. */
int run_mkfs(struct run *r, const struct scenario *sc, const char *tag);
int run_from_image(struct run *r, const struct scenario *sc, const char *tag,
		   const unsigned char *image, const struct state *state);

/*
 * A process that ran @killed died after @nr events, in operation @op, and left
 * all that it had stored in the caches.
 */
int run_from_kill(struct run *r, const struct scenario *sc, const char *tag,
		  const struct run *killed, unsigned int op, size_t nr);

/* False: an operation failed that should not have; was printed. */
bool run_all(struct run *r, uint64_t schedule);
void run_free(struct run *r);

/*
 * The state (STATE_LOOSE) and answers after the setup and then the
 * operations @order, one after the other, on another device.
 */
bool run_reference(const struct run *r, const unsigned char *order,
		   unsigned int nr, struct state *ret, int *ret_rc);

/* Options of every mount in these tests. */
struct foliofs_options run_mount_options(const char *dev,
					 enum foliofs_data data);

/* A new file in /dev/shm of @size bytes; @ret_path has 64. */
int run_make_file(const char *tag, uint64_t size, char *ret_path);

#endif
