/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/explore.h - run a scenario, crash it everywhere, look
 *
 * A scenario makes a filesystem, runs its setup and then its operations, all
 * recorded.  Then the record is played into the model of model.h, and before
 * every fence and at every acknowledgement the images that a crash could
 * leave there are recovered, checked and compared with the states that are
 * allowed: the one after the last acknowledged operation, or the one after
 * the operation in flight.  With a second thread there are more: see lin.h.
 *
 * From some images the game starts over: recovery and a few operations are
 * recorded in turn, and crashed as well.  The same is done where a process was
 * killed and the power fails only after the next one has begun.
 */
#ifndef CRASH_EXPLORE_H
#define CRASH_EXPLORE_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/foliofs.h"

struct scenario {
	const char *group;
	const char *name;
	unsigned int blocks; /* of the device */
	enum foliofs_data data;
	const char *setup; /* scripts, see script.h; or NULL */
	const char *ops;
	const char *ops2;   /* of a second thread, at the same time; or NULL */
	unsigned int again; /* instead of that of the options, if not 0 */
	unsigned int kill;  /* after one event in so many, if not 0 */
};

struct explore_options {
	uint64_t seed;
	unsigned int limit;    /* so many images at one point are few */
	unsigned int samples;  /* for each operation, beyond */
	unsigned int again;    /* crash again from one image in so many */
	unsigned int fsck;     /* check one image in so many as fsck does */
	unsigned int schedule; /* of two threads */
	uint64_t only_image;   /* 0: all */
	bool verbose;
};

struct explore_totals {
	uint64_t ops;	 /* operations crashed */
	uint64_t points; /* moments looked at */
	uint64_t images; /* chosen there */
	uint64_t mounts; /* images that were not the same as one before */
	uint64_t again;	 /* images crashed again from */
	uint64_t kills;	 /* processes killed, and crashed afterwards */
	uint64_t fences; /* of the operations */
};

/* False: something is wrong, and was printed as lines that start with '#'. */
bool explore(const struct scenario *sc, const struct explore_options *opt,
	     struct explore_totals *totals);

/* For a signal handler: what is being looked at, in one line. */
const char *explore_where(void);

#endif
