/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/choose.h - which crash images to look at
 *
 * An image is one number a dirty line: how many of its stores are on media.
 * When all images together are few, all of them are given.  Otherwise come
 * all that have every line whole or not at all, if those are few; then as
 * many samples as the caller has paid for.  The samples mix what tends to
 * find mistakes: a few lines there, a few missing, groups of neighbouring
 * lines there or missing, everything up to some moment but for a few lines,
 * and plain chance.
 */
#ifndef CRASH_CHOOSE_H
#define CRASH_CHOOSE_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/crash/model.h"
#include "tests/crash/rng.h"

enum choose_phase {
	CHOOSE_PREFIXES, /* every combination of prefixes */
	CHOOSE_SUBSETS,	 /* every subset of whole lines */
	CHOOSE_SAMPLES,
	CHOOSE_DONE,
};

struct chooser {
	const struct model *model;
	struct rng *rng;
	unsigned int nr;    /* dirty lines */
	unsigned int *take; /* the image: stores of each line on media */
	enum choose_phase phase;
	bool started;
	unsigned int samples; /* still to come */
};

/*
 * Begin at the model's present moment; @limit is how many images are few.
 * The model must not change before chooser_end().
 */
void chooser_begin(struct chooser *c, struct model *m, struct rng *rng,
		   unsigned int limit, unsigned int samples);

/* The next image in c->take; false when there is none. */
bool chooser_next(struct chooser *c);
void chooser_end(struct chooser *c);

/* Would chooser_begin() need samples here? */
bool chooser_is_large(struct model *m, unsigned int limit);

#endif
