/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/explore.c - run a scenario, crash it everywhere, look
 */
#include "tests/crash/explore.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "fs/fs_format.h"
#include "tests/crash/choose.h"
#include "tests/crash/image.h"
#include "tests/crash/lin.h"
#include "tests/crash/run.h"

#define MAX_ALLOWED 64u

/* Lines of an image that a report names. */
#define MAX_SHOWN 40u

/* What a crash at some moment may leave. */
struct allowed {
	const struct state *state[MAX_ALLOWED];
	uint64_t hash[MAX_ALLOWED];
	unsigned int nr;
	const struct mix *mix; /* between the two, if there are two */
	unsigned int nr_mix;
};

/* Images seen, and what they were recovered to. */
struct seen {
	uint64_t image, state;
};

struct reference {
	unsigned char order[LIN_MAX_OPS];
	unsigned int nr;
	struct state state;
	int rc[LIN_MAX_OPS];
};

struct explorer {
	struct run *run;
	const struct explore_options *opt;
	struct explore_totals *totals;
	struct model *model;
	struct image img;
	struct rng rng;
	unsigned int *large; /* points of each operation that need samples */
	struct seen *seen;
	uint64_t nr_seen, cap_seen;
	uint64_t image_nr;
	unsigned int depth;
	unsigned int op; /* the last one that began */
	unsigned int fence;
	bool settled; /* unmounted: see image.h */
	struct lin lin;
	struct allowed allowed;
	struct reference **ref;
	unsigned int nr_ref;
	uint32_t acked;
};

static bool explore_run(struct run *r, const struct explore_options *opt,
			struct explore_totals *totals, unsigned int depth);

static char where[512];

const char *explore_where(void)
{
	return where;
}

/* The table of images seen. */

static struct seen *seen_slot(const struct explorer *ex, uint64_t image)
{
	uint64_t i = image & (ex->cap_seen - 1);

	while (ex->seen[i].image && ex->seen[i].image != image)
		i = (i + 1) & (ex->cap_seen - 1);
	return &ex->seen[i];
}

static void seen_grow(struct explorer *ex)
{
	struct seen *old = ex->seen;
	uint64_t cap = ex->cap_seen;

	ex->cap_seen = cap ? cap * 2 : 1024;
	ex->seen = (struct seen *)calloc(ex->cap_seen, sizeof(*ex->seen));
	assert(ex->seen);
	for (uint64_t i = 0; i < cap; i++)
		if (old[i].image)
			*seen_slot(ex, old[i].image) = old[i];
	free(old);
}

static void seen_add(struct explorer *ex, uint64_t image, uint64_t state)
{
	struct seen *s;

	if (ex->nr_seen * 2 >= ex->cap_seen)
		seen_grow(ex);
	s = seen_slot(ex, image);
	if (!s->image)
		ex->nr_seen++;
	*s = (struct seen){ image, state };
}

/* What is allowed. */

static uint64_t state_hash(const struct state *s)
{
	return XXH3_64bits(s->buf, s->len);
}

static void allow(struct allowed *a, const struct state *s)
{
	uint64_t hash = state_hash(s);

	for (unsigned int i = 0; i < a->nr; i++)
		if (a->hash[i] == hash)
			return;
	assert(a->nr < MAX_ALLOWED);
	a->state[a->nr] = s;
	a->hash[a->nr++] = hash;
}

static bool allowed_hash(const struct allowed *a, uint64_t hash)
{
	for (unsigned int i = 0; i < a->nr; i++)
		if (a->hash[i] == hash)
			return true;
	return false;
}

static bool allowed_mixed(const struct allowed *a, const struct state *got)
{
	const struct state *const *s = a->state;

	return a->nr == 2 && a->nr_mix > 0 &&
	       (state_equal_mixed(got, s[0], s[1], a->mix, a->nr_mix) ||
		state_equal_mixed(got, s[1], s[0], a->mix, a->nr_mix));
}

/* Reports. */

static void describe_place(uint64_t off, const struct run *r)
{
	uint64_t lanes = BLOCK_SIZE;
	uint64_t end = lanes + FOLIOFS_NR_LANES * FOLIOFS_LANE_SIZE;

	if (off < BLOCK_SIZE)
		printf("superblock + %#" PRIx64, off);
	else if (off >= lanes && off < end)
		printf("lane %" PRIu64 " + %#" PRIx64,
		       (off - lanes) / FOLIOFS_LANE_SIZE,
		       off % FOLIOFS_LANE_SIZE);
	else if (off >= r->size - BLOCK_SIZE)
		printf("copy of the superblock + %#" PRIx64, off % BLOCK_SIZE);
	else
		printf("block %" PRIu64 " + %#" PRIx64, off >> BLOCK_SHIFT,
		       off & BLOCK_MASK);
}

static void describe_image(const struct explorer *ex, const unsigned int *take)
{
	unsigned int nr = model_nr_dirty(ex->model), show = nr;

	printf("# dirty lines, and how many of their stores are on media:\n");
	if (show > MAX_SHOWN && !ex->opt->verbose)
		show = MAX_SHOWN;
	for (unsigned int i = 0; i < show; i++) {
		printf("#   %u of %u  ", take[i], model_stores(ex->model, i));
		describe_place(model_line(ex->model, i) * CACHE_LINE, ex->run);
		printf("\n");
	}
	if (show < nr)
		printf("#   and %u more, shown with --verbose\n", nr - show);
}

static void describe_repeat(const struct explorer *ex)
{
	const struct scenario *sc = ex->run->sc;

	if (ex->depth) {
		printf("# while crashing again; the first crash was image %s\n",
		       "as said below");
		return;
	}
	printf("# to repeat: crash --seed %" PRIu64 " --limit %u --samples %u "
	       "--again %u --schedule %u --image %" PRIu64 " %s\n",
	       ex->opt->seed, ex->opt->limit, ex->opt->samples, ex->opt->again,
	       ex->opt->schedule, ex->image_nr, sc->name);
	printf("# setup: %s\n# operations: %s\n", sc->setup ? sc->setup : "",
	       sc->ops);
	if (sc->ops2)
		printf("# second thread: %s\n", sc->ops2);
}

static void report(const struct explorer *ex, const unsigned int *take,
		   const struct state *got, const char *what)
{
	const struct allowed *a = &ex->allowed;

	printf("# %s: %s\n", where, what);
	describe_image(ex, take);
	for (unsigned int i = 0; got && i < a->nr && i < 2; i++) {
		printf("# compared with allowed state %u of %u:\n", i + 1,
		       a->nr);
		state_diff(stdout, a->state[i], got);
	}
	describe_repeat(ex);
}

/* One image. */

static void note_where(const struct explorer *ex)
{
	const struct run *r = ex->run;
	int len = snprintf(where, sizeof(where),
			   "%s%s: ", ex->depth ? "again: " : "", r->sc->name);

	snprintf(where + len, sizeof(where) - (size_t)len,
		 "seed %" PRIu64 " operation %u '%.150s' fence %u image "
		 "%" PRIu64,
		 ex->opt->seed, ex->op, r->op[ex->op].cmd, ex->fence,
		 ex->image_nr);
}

/* What a second life does, and how it is crashed. */
static void second_life(const struct explorer *ex, uint64_t nr,
			struct scenario *ret_sc,
			struct explore_options *ret_opt)
{
	static const char *const lives[] = {
		"!create /again 644; !write /again 0 300 9",
		"!mkdir /again 755; !create /again/x 600; !unlink /again/x",
		"!create /again 644; !unlink /again; !create /again2 644",
		"!tmpfile 1 / 644; !write @1 0 5000 3; !linkh 1 /again",
	};
	struct rng rng = { ex->opt->seed * 31 + nr };

	*ret_opt = (struct explore_options){ .seed = rng_next(&rng),
					     .limit = 24,
					     .samples = 40,
					     .fsck = ex->opt->fsck,
					     .verbose = ex->opt->verbose };
	*ret_sc = *ex->run->sc;
	ret_sc->setup = NULL;
	ret_sc->ops = lives[rng_below(&rng, 4)];
	ret_sc->ops2 = NULL;
	ret_sc->again = 0;
	ret_sc->kill = 0;
}

/* Some images are where a second life begins, and a second crash. */
static bool crash_again(struct explorer *ex, const unsigned int *take,
			const struct state *state)
{
	struct explore_options opt;
	struct scenario sc;
	struct run r;
	bool ok;

	second_life(ex, ex->image_nr, &sc, &opt);
	image_patch(&ex->img, take);
	/* With two threads only a loose state is known: start from none. */
	ok = run_from_image(&r, &sc, "again", ex->img.map,
			    ex->run->state_flags ? NULL : state) == 0;
	image_restore(&ex->img);
	if (ok)
		ok = run_all(&r, 0) && explore_run(&r, &opt, ex->totals, 1);
	run_free(&r);
	ex->totals->again++;
	if (!ok) {
		note_where(ex);
		printf("# this was after: %s\n", where);
		describe_image(ex, take);
		describe_repeat(ex);
	}
	return ok;
}

/* The checker takes half as long as all else that is done with an image. */
static bool fsck_wanted(const struct explorer *ex)
{
	uint64_t nr = rng_mix(ex->image_nr * 3 + ex->opt->seed);

	return ex->opt->only_image ||
	       (ex->opt->fsck && nr % ex->opt->fsck == 0);
}

static bool again_wanted(const struct explorer *ex)
{
	unsigned int one_in = ex->run->sc->again;

	if (!one_in || !ex->opt->again)
		one_in = ex->opt->again;
	return one_in && rng_mix(ex->image_nr + ex->opt->seed) % one_in == 0;
}

static bool look(struct explorer *ex, const unsigned int *take, uint64_t hash)
{
	struct state got = { .buf = NULL };
	struct errmsg err = { "" };
	bool ok = true;
	uint64_t state;
	int ret;

	note_where(ex);
	image_patch(&ex->img, take);
	ret = image_recover(&ex->img, fsck_wanted(ex), ex->settled, &got, &err);
	image_restore(&ex->img);
	ex->totals->mounts++;
	if (ret) {
		report(ex, take, NULL, err.text);
		ok = false;
		goto out;
	}
	state = state_hash(&got);
	if (!allowed_hash(&ex->allowed, state) &&
	    !allowed_mixed(&ex->allowed, &got)) {
		report(ex, take, &got, "not a state that is allowed");
		ok = false;
		goto out;
	}
	seen_add(ex, hash, state);
	if (again_wanted(ex))
		ok = crash_again(ex, take, &got);
out:
	state_free(&got);
	return ok;
}

static bool consider(struct explorer *ex, const unsigned int *take,
		     unsigned int nr)
{
	uint64_t hash, only = ex->opt->only_image;
	const struct seen *s;

	ex->image_nr++;
	ex->totals->images++;
	if (only) {
		if (ex->image_nr != only)
			return true;
		return look(ex, take, 1);
	}
	hash = image_hash(ex->model, take, nr) | 1;
	s = seen_slot(ex, hash);
	if (!ex->settled && s->image == hash &&
	    allowed_hash(&ex->allowed, s->state))
		return true;
	return look(ex, take, hash);
}

/* One moment. */

static bool explore_point(struct explorer *ex)
{
	unsigned int samples = 0;
	struct chooser c;
	bool ok = true;

	if (ex->large[ex->op])
		samples = ex->opt->samples / ex->large[ex->op] + 1;
	ex->totals->points++;
	chooser_begin(&c, ex->model, &ex->rng, ex->opt->limit, samples);
	while (ok && chooser_next(&c))
		ok = consider(ex, c.take, c.nr);
	chooser_end(&c);
	return ok;
}

/* With one thread: the state before, and while an operation runs, after. */
static void allow_one(struct explorer *ex, unsigned int op, bool acked)
{
	struct allowed *a = &ex->allowed;
	const struct run *r = ex->run;

	memset(a, 0, sizeof(*a));
	if (acked) {
		allow(a, &r->op[op].after);
		return;
	}
	allow(a, op ? &r->op[op - 1].after : &r->before);
	if (op == 0 && r->other.buf)
		allow(a, &r->other);
	allow(a, &r->op[op].after);
	a->mix = r->op[op].mix;
	a->nr_mix = r->op[op].nr_mix;
}

/* With two: the state after any order that may have been. */

static struct reference *reference(struct explorer *ex,
				   const unsigned char *order, unsigned int nr)
{
	struct reference *ref;

	for (unsigned int i = 0; i < ex->nr_ref; i++)
		if (ex->ref[i]->nr == nr &&
		    memcmp(ex->ref[i]->order, order, nr) == 0)
			return ex->ref[i];
	ref = (struct reference *)test_realloc(NULL, sizeof(*ref));
	memset(ref, 0, sizeof(*ref));
	memcpy(ref->order, order, nr);
	ref->nr = nr;
	ex->ref = (struct reference **)test_realloc(
		ex->ref, (ex->nr_ref + 1) * sizeof(struct reference *));
	ex->ref[ex->nr_ref++] = ref;
	if (!run_reference(ex->run, order, nr, &ref->state, ref->rc))
		abort();
	return ref;
}

static bool allow_order(void *ctx, const unsigned char *order, unsigned int nr)
{
	struct explorer *ex = (struct explorer *)ctx;
	const struct reference *ref = reference(ex, order, nr);

	for (unsigned int i = 0; i < nr; i++)
		if (ex->acked & 1u << order[i] &&
		    ref->rc[i] != ex->lin.op[order[i]].rc)
			return false;
	allow(&ex->allowed, &ref->state);
	return true;
}

static bool allow_pair(struct explorer *ex, size_t at)
{
	uint32_t in_flight = 0;

	memset(&ex->allowed, 0, sizeof(ex->allowed));
	ex->acked = 0;
	for (unsigned int i = 0; i < ex->lin.nr; i++) {
		if (ex->lin.op[i].end <= at)
			ex->acked |= 1u << i;
		else if (ex->lin.op[i].begin <= at)
			in_flight |= 1u << i;
	}
	if (lin_orders(&ex->lin, ex->acked, in_flight))
		return true;
	printf("# %s: no order of the operations explains their answers\n",
	       ex->run->sc->name);
	return false;
}

static void lin_begin(struct explorer *ex)
{
	struct run *r = ex->run;

	ex->lin.each = allow_order;
	ex->lin.ctx = ex;
	for (unsigned int i = r->nr_setup; i < r->nr_ops; i++) {
		assert(ex->lin.nr < LIN_MAX_OPS);
		ex->lin.op[ex->lin.nr++] = (struct lin_op){
			.begin = r->op[i].begin,
			.end = r->op[i].end,
			.rc = r->op[i].rc,
		};
	}
}

/* The whole run. */

static bool point_wanted(const struct explorer *ex, const struct log_event *e,
			 unsigned int op)
{
	const struct run *r = ex->run;

	if (e->type == LOG_FENCE)
		return !r->op[op].quiet;
	return e->type == LOG_END &&
	       (!r->op[op].quiet || op + 1 == r->nr_setup);
}

/* What a life before this one did comes first, and has been looked at. */
static size_t first_event(const struct log *log)
{
	size_t i = 0;

	while (log->event[i].type != LOG_BEGIN)
		i++;
	return i;
}

/* Dry run: how many moments of each operation have too many images. */
static void count_large(struct explorer *ex)
{
	struct run *r = ex->run;
	struct model *m = model_create(r->base, r->size, NULL);
	size_t first = first_event(&r->log);
	unsigned int op = 0;

	ex->large = (unsigned int *)calloc(r->nr_ops, sizeof(*ex->large));
	assert(ex->large);
	for (size_t i = 0; i < r->log.nr; i++) {
		const struct log_event *e = &r->log.event[i];

		if (e->type == LOG_BEGIN)
			op = (unsigned int)e->off;
		if (i >= first && point_wanted(ex, e, op))
			ex->large[op] += chooser_is_large(m, ex->opt->limit);
		model_apply(m, &r->log, e);
	}
	model_destroy(m);
}

static bool explore_event(struct explorer *ex, size_t i)
{
	const struct log_event *e = &ex->run->log.event[i];
	bool pair = ex->run->sc->ops2 && ex->op >= ex->run->nr_setup;

	if (!point_wanted(ex, e, ex->op))
		return true;
	ex->settled = e->type == LOG_END &&
		      strcmp(ex->run->op[ex->op].cmd, "unmount") == 0;
	if (!pair)
		allow_one(ex, ex->op, e->type == LOG_END);
	else if (!allow_pair(ex, i))
		return false;
	return explore_point(ex);
}

/*
 * The process dies here, the next one begins with what is in the caches, and
 * a crash may take back whatever neither of them has waited for.
 */
static bool kill_here(struct explorer *ex, size_t nr)
{
	struct explore_options opt;
	struct scenario sc;
	struct run r;
	bool ok;

	second_life(ex, nr, &sc, &opt);
	ok = run_from_kill(&r, &sc, "again", ex->run, ex->op, nr) == 0;
	if (ok)
		ok = run_all(&r, 0) && explore_run(&r, &opt, ex->totals, 1);
	run_free(&r);
	ex->totals->kills++;
	if (!ok) {
		printf("# this was after: operation %u '%s' killed at event "
		       "%zu, fence %u\n",
		       ex->op, ex->run->op[ex->op].cmd, nr, ex->fence);
		describe_repeat(ex);
	}
	return ok;
}

/*
 * Data written in place has no one moment at which it is there, and may go
 * back and forth until somebody flushes it: not here.
 */
static bool kill_wanted(const struct explorer *ex, size_t nr)
{
	const struct run_op *op = &ex->run->op[ex->op];
	unsigned int one_in = ex->run->sc->kill;

	return one_in && !op->quiet && ex->op > 0 && op->nr_mix == 0 &&
	       nr > op->begin + 1 && nr < op->end &&
	       rng_mix(nr * 7 + ex->opt->seed) % one_in == 0;
}

static bool explore_log(struct explorer *ex)
{
	const struct log *log = &ex->run->log;
	size_t first = first_event(log);

	for (size_t i = 0; i < first; i++)
		model_apply(ex->model, log, &log->event[i]);
	for (size_t i = first; i < log->nr; i++) {
		const struct log_event *e = &log->event[i];

		if (kill_wanted(ex, i) && !kill_here(ex, i))
			return false;

		if (e->type == LOG_BEGIN) {
			ex->op = (unsigned int)e->off;
			ex->fence = 0;
			ex->totals->ops += !ex->run->op[ex->op].quiet;
		}
		if (!explore_event(ex, i))
			return false;
		model_apply(ex->model, log, e);
		if (e->type == LOG_FENCE) {
			ex->fence++;
			ex->totals->fences += !ex->run->op[ex->op].quiet;
		}
	}
	return true;
}

static void explorer_end(struct explorer *ex)
{
	for (unsigned int i = 0; i < ex->nr_ref; i++) {
		state_free(&ex->ref[i]->state);
		free(ex->ref[i]);
	}
	free(ex->ref);
	free(ex->large);
	free(ex->seen);
	model_destroy(ex->model);
	image_destroy(&ex->img);
}

static bool explore_run(struct run *r, const struct explore_options *opt,
			struct explore_totals *totals, unsigned int depth)
{
	struct explorer ex = { .run = r,
			       .opt = opt,
			       .totals = totals,
			       .rng = { opt->seed },
			       .depth = depth };
	bool ok;
	int ret;

	ret = image_create(&ex.img, depth ? "image2" : "image", r->size,
			   r->sc->data, r->state_flags);
	if (ret) {
		printf("# %s: %s\n", ex.img.path, strerror(-ret));
		return false;
	}
	count_large(&ex);
	seen_grow(&ex);
	if (r->sc->ops2)
		lin_begin(&ex);
	ex.model = model_create(r->base, r->size, ex.img.map);
	ex.img.model = ex.model;
	ok = explore_log(&ex);
	explorer_end(&ex);
	return ok;
}

bool explore(const struct scenario *sc, const struct explore_options *opt,
	     struct explore_totals *totals)
{
	struct run r;
	bool ok;

	snprintf(where, sizeof(where), "%s: before any crash", sc->name);
	ok = run_mkfs(&r, sc, "device") == 0 &&
	     run_all(&r, opt->seed + opt->schedule) &&
	     explore_run(&r, opt, totals, 0);
	run_free(&r);
	return ok;
}
