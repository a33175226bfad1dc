/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/choose.c - which crash images to look at
 */
#include "tests/crash/choose.h"

#include <stdlib.h>
#include <string.h>

/* Lines of one group: a journal lane, a quarter of a block. */
#define GROUP_LINES 16

static bool few_prefixes(const struct model *m, unsigned int nr,
			 unsigned int limit)
{
	uint64_t product = 1;

	for (unsigned int i = 0; i < nr && product <= limit; i++)
		product *= model_stores(m, i) + 1;
	return product <= limit;
}

bool chooser_is_large(struct model *m, unsigned int limit)
{
	return !few_prefixes(m, model_dirty(m), limit);
}

void chooser_begin(struct chooser *c, struct model *m, struct rng *rng,
		   unsigned int limit, unsigned int samples)
{
	memset(c, 0, sizeof(*c));
	c->model = m;
	c->rng = rng;
	c->nr = model_dirty(m);
	c->take = (unsigned int *)test_realloc(NULL,
					       (c->nr + 1) * sizeof(*c->take));
	memset(c->take, 0, (c->nr + 1) * sizeof(*c->take));
	c->samples = samples;
	if (few_prefixes(m, c->nr, limit))
		c->phase = CHOOSE_PREFIXES;
	else if (c->nr < 31 && 1u << c->nr <= limit)
		c->phase = CHOOSE_SUBSETS;
	else
		c->phase = CHOOSE_SAMPLES;
}

void chooser_end(struct chooser *c)
{
	free(c->take);
	c->take = NULL;
}

/* Count up by one, line 0 first; false when it is back at zero. */
static bool count_up(struct chooser *c, bool whole)
{
	for (unsigned int i = 0; i < c->nr; i++) {
		unsigned int max = model_stores(c->model, i);

		if (c->take[i] < max) {
			c->take[i] = whole ? max : c->take[i] + 1;
			return true;
		}
		c->take[i] = 0;
	}
	return false;
}

static unsigned int any_prefix(struct chooser *c, unsigned int i)
{
	return rng_below(c->rng, model_stores(c->model, i) + 1);
}

static void fill(struct chooser *c, bool there)
{
	for (unsigned int i = 0; i < c->nr; i++)
		c->take[i] = there ? model_stores(c->model, i) : 0;
}

/* Some lines, at most four, get a prefix of their own or the other end. */
static void disturb(struct chooser *c, unsigned int least)
{
	unsigned int nr = least + rng_below(c->rng, 4);

	while (nr--) {
		unsigned int i = rng_below(c->rng, c->nr);
		unsigned int max = model_stores(c->model, i);

		if (rng_below(c->rng, 2))
			c->take[i] = any_prefix(c, i);
		else
			c->take[i] = c->take[i] ? 0 : max;
	}
}

static void sample_chance(struct chooser *c)
{
	for (unsigned int i = 0; i < c->nr; i++)
		c->take[i] = any_prefix(c, i);
}

static void sample_density(struct chooser *c)
{
	unsigned int percent = rng_below(c->rng, 101);

	for (unsigned int i = 0; i < c->nr; i++)
		c->take[i] = rng_below(c->rng, 100) < percent
				     ? model_stores(c->model, i)
				     : 0;
}

static void sample_groups(struct chooser *c)
{
	uint64_t group = UINT64_MAX;
	unsigned int kind = 0;

	for (unsigned int i = 0; i < c->nr; i++) {
		uint64_t mine = model_line(c->model, i) / GROUP_LINES;

		if (mine != group)
			kind = rng_below(c->rng, 5);
		group = mine;
		if (kind < 4)
			c->take[i] = kind < 2 ? 0 : model_stores(c->model, i);
		else
			c->take[i] = any_prefix(c, i);
	}
}

/* What a processor that keeps the order would leave. */
static void sample_moment(struct chooser *c)
{
	unsigned int line = rng_below(c->rng, c->nr);
	unsigned int store = rng_below(c->rng, model_stores(c->model, line));
	uint64_t when = model_when(c->model, line, store);

	for (unsigned int i = 0; i < c->nr; i++) {
		unsigned int k = 0;

		while (k < model_stores(c->model, i) &&
		       model_when(c->model, i, k) <= when)
			k++;
		c->take[i] = k;
	}
}

static void sample(struct chooser *c)
{
	switch (rng_below(c->rng, 6)) {
	case 0:
		fill(c, false);
		disturb(c, 1);
		break;
	case 1:
		fill(c, true);
		disturb(c, 1);
		break;
	case 2:
		sample_chance(c);
		break;
	case 3:
		sample_density(c);
		break;
	case 4:
		sample_groups(c);
		break;
	default:
		sample_moment(c);
		disturb(c, 0);
		break;
	}
}

bool chooser_next(struct chooser *c)
{
	if (!c->started) {
		/* Every phase has the image in which nothing got through. */
		c->started = true;
		return true;
	}
	switch (c->phase) {
	case CHOOSE_PREFIXES:
		if (count_up(c, false))
			return true;
		c->phase = CHOOSE_DONE;
		return false;
	case CHOOSE_SUBSETS:
		if (count_up(c, true))
			return true;
		c->phase = CHOOSE_SAMPLES;
		return chooser_next(c);
	case CHOOSE_SAMPLES:
		if (c->samples > 0 && c->nr > 0) {
			c->samples--;
			sample(c);
			return true;
		}
		c->phase = CHOOSE_DONE;
		return false;
	case CHOOSE_DONE:
		break;
	}
	return false;
}
