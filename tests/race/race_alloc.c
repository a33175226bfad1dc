/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/race/race_alloc.c - the allocator under several threads at once
 *
 * Every take gets a stamp of its own, written to plain memory for each of its
 * blocks.  Whoever holds a slot to a block, or has yet to call alloc_free()
 * for it, looks whether the stamp is still the one it knows: a block that was
 * given out too early, or twice, has another.  Slots wander between threads,
 * chunks are split and merged while others hold them, and frees come late.
 *
 * Under ThreadSanitizer the plain stamps also prove that a free and the take
 * that follows it are ordered.
 *
 * Exit status 0: all well.  Anything else: the line on stderr says what.
 */
#include "alloc/alloc.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define NR_CHUNKS  40u
#define NR_BLOCKS  (NR_CHUNKS * CHUNK_BLOCKS + 77)
#define NR_THREADS 4u
#define NR_STEPS   30000
#define MAX_OWN	   600u /* slots of one order that one thread holds */
#define NR_SMALL   8u	/* chunks where small takes look first */
#define MAX_MAIL   64u
#define MAX_LATE   300u /* frees one thread owes */

#define NR_MARK_CHUNKS 4000u

/* One slot that somebody holds. */
struct slot {
	uint64_t block;
	unsigned int order;
	uint64_t stamp;
};

struct worker {
	unsigned int id;
	unsigned int rng;
	uint64_t nr_stamps;
	struct slot own[2][MAX_OWN]; /* blocks, chunks */
	unsigned int nr_own[2];
	struct slot late[MAX_LATE];
	unsigned int nr_late;
};

static struct alloc *al;
static uint64_t stamp[NR_BLOCKS];
static struct worker workers[NR_THREADS];

/* Slots on their way from one thread to another. */
static struct slot mail[MAX_MAIL];
static unsigned int nr_mail;
static pthread_mutex_t mail_lock = PTHREAD_MUTEX_INITIALIZER;

static void __attribute__((noreturn)) fail(const char *what, uint64_t block)
{
	fprintf(stderr, "race_alloc: %s: block %ju\n", what, (uintmax_t)block);
	exit(1);
}

static unsigned int rnd(struct worker *w, unsigned int n)
{
	return (unsigned int)rand_r(&w->rng) % n;
}

static void verify(const struct slot *s)
{
	uint64_t nr = UINT64_C(1) << s->order;

	for (uint64_t i = 0; i < nr; i++)
		if (stamp[s->block + i] != s->stamp)
			fail("given to somebody else while in use",
			     s->block + i);
}

static void pay_free(const struct slot *s)
{
	verify(s);
	alloc_free(al, s->block, s->order);
}

static void free_some(struct worker *w, unsigned int keep)
{
	while (w->nr_late > keep) {
		unsigned int i = rnd(w, w->nr_late);

		pay_free(&w->late[i]);
		w->late[i] = w->late[--w->nr_late];
	}
}

static void drop(struct worker *w, const struct slot *s)
{
	verify(s);
	if (!alloc_put(al, s->block, s->order))
		return;
	if (rnd(w, 2)) {
		pay_free(s);
		return;
	}
	if (w->nr_late == MAX_LATE)
		free_some(w, MAX_LATE / 2);
	w->late[w->nr_late++] = *s;
}

static void keep(struct worker *w, const struct slot *s)
{
	unsigned int which = s->order != 0;

	if (w->nr_own[which] == MAX_OWN)
		drop(w, s);
	else
		w->own[which][w->nr_own[which]++] = *s;
}

static bool pick(struct worker *w, unsigned int order, struct slot *ret)
{
	unsigned int which = order != 0;
	unsigned int i;

	if (w->nr_own[which] == 0)
		return false;
	i = rnd(w, w->nr_own[which]);
	*ret = w->own[which][i];
	w->own[which][i] = w->own[which][--w->nr_own[which]];
	return true;
}

static unsigned int some_order(struct worker *w)
{
	return rnd(w, 2) ? CHUNK_ORDER : 0;
}

/* Post a slot; false when the box is full. */
static bool post(const struct slot *s)
{
	bool ret = false;

	pthread_mutex_lock(&mail_lock);
	if (nr_mail < MAX_MAIL) {
		mail[nr_mail++] = *s;
		ret = true;
	}
	pthread_mutex_unlock(&mail_lock);
	return ret;
}

static bool fetch(struct slot *ret)
{
	bool found = false;

	pthread_mutex_lock(&mail_lock);
	if (nr_mail > 0) {
		*ret = mail[--nr_mail];
		found = true;
	}
	pthread_mutex_unlock(&mail_lock);
	return found;
}

static uint64_t put_stamp(struct worker *w, uint64_t start, uint64_t nr)
{
	uint64_t mine = (uint64_t)(w->id + 1) << 32 | ++w->nr_stamps;

	for (uint64_t i = start; i < start + nr; i++)
		stamp[i] = mine;
	return mine;
}

static void take_run(struct worker *w)
{
	struct extent ext;
	uint64_t mine;

	if (alloc_take(al, rnd(w, NR_SMALL * CHUNK_BLOCKS), 1 + rnd(w, 20),
		       BLOCK_DATA, 0, &ext) != 0)
		return;
	mine = put_stamp(w, ext.start, ext.nr);
	for (uint64_t i = 0; i < ext.nr; i++)
		keep(w, &(struct slot){ ext.start + i, 0, mine });
}

static void take_chunk(struct worker *w)
{
	struct slot s = { .order = CHUNK_ORDER };

	if (alloc_take_chunk(al, rnd(w, NR_BLOCKS), BLOCK_DATA, 0, &s.block))
		return;
	s.stamp = put_stamp(w, s.block, CHUNK_BLOCKS);
	keep(w, &s);
}

/* Give somebody a slot to what we hold. */
static void share(struct worker *w)
{
	struct slot s;

	if (!pick(w, some_order(w), &s))
		return;
	if (alloc_share(al, s.block) < 1)
		fail("held but not shared", s.block);
	if (alloc_get(al, s.block, s.order) == 0 && !post(&s))
		drop(w, &s);
	keep(w, &s);
}

/* A chunk becomes small slots, a few or all of them. */
static void split(struct worker *w)
{
	unsigned int nr = rnd(w, 4) ? 10 : (unsigned int)CHUNK_BLOCKS;
	struct slot s;

	if (!pick(w, CHUNK_ORDER, &s))
		return;
	for (unsigned int i = 0; i < nr; i++) {
		struct slot small = { s.block + i, 0, s.stamp };

		if (alloc_get(al, small.block, 0) == 0)
			keep(w, &small);
	}
	drop(w, &s);
}

/* All small slots of a chunk, and back to one of 2 MiB. */
static void split_and_merge(struct worker *w)
{
	struct slot s, small = { 0 };
	uint64_t got = 0;

	if (!pick(w, CHUNK_ORDER, &s))
		return;
	while (got < CHUNK_BLOCKS && alloc_get(al, s.block + got, 0) == 0)
		got++;
	if (got == CHUNK_BLOCKS) {
		drop(w, &s);
		if (alloc_get(al, s.block, CHUNK_ORDER) == 0)
			keep(w, &s);
	} else {
		keep(w, &s);
	}
	for (uint64_t i = 0; i < got; i++) {
		small = (struct slot){ s.block + i, 0, s.stamp };
		drop(w, &small);
	}
}

static void set_aside(struct worker *w)
{
	uint64_t block;

	if (alloc_aside(al, rnd(w, NR_BLOCKS), &block) == 0 && rnd(w, 4))
		alloc_aside_end(al, block);
	else
		alloc_aside_end(al, rnd(w, NR_BLOCKS));
}

static void drop_some(struct worker *w)
{
	struct slot s;

	for (int i = 0; i < 20 && pick(w, 0, &s); i++)
		drop(w, &s);
	if (rnd(w, 2) && pick(w, CHUNK_ORDER, &s))
		drop(w, &s);
}

static void one_step(struct worker *w)
{
	unsigned int what = rnd(w, 100);
	struct slot s;

	if (what < 15)
		take_run(w);
	else if (what < 25)
		take_chunk(w);
	else if (what < 40)
		share(w);
	else if (what < 60 && fetch(&s))
		keep(w, &s);
	else if (what < 64)
		split(w);
	else if (what < 67)
		split_and_merge(w);
	else if (what < 68)
		set_aside(w);
	else if (what < 80)
		free_some(w, w->nr_late / 2);
	else
		drop_some(w);
}

static void drop_all(struct worker *w)
{
	struct slot s;

	while (pick(w, 0, &s) || pick(w, CHUNK_ORDER, &s) || fetch(&s))
		drop(w, &s);
	free_some(w, 0);
}

static void *work(void *arg)
{
	struct worker *w = (struct worker *)arg;

	for (int i = 0; i < NR_STEPS; i++)
		one_step(w);
	drop_all(w);
	return NULL;
}

static void race_takes(void)
{
	pthread_t thread[NR_THREADS];
	struct alloc_stat st;

	if (alloc_create(NR_BLOCKS, 0, &al))
		fail("no memory", 0);
	alloc_ready(al);
	for (unsigned int i = 0; i < NR_THREADS; i++) {
		workers[i].id = i;
		workers[i].rng = i + 1;
		if (pthread_create(&thread[i], NULL, work, &workers[i]))
			fail("no thread", i);
	}
	for (unsigned int i = 0; i < NR_THREADS; i++)
		pthread_join(thread[i], NULL);
	/* What was posted after its last reader had gone. */
	drop_all(&workers[0]);

	alloc_stat(al, &st, true);
	if (st.nr_free != NR_BLOCKS || st.nr_kind[BLOCK_NONE] != NR_BLOCKS)
		fail("not free in the end", NR_BLOCKS - st.nr_free);
	alloc_destroy(al);
}

/*
 * One free block more than there are threads, each of which holds one at
 * most: wherever the free ones are just now, nobody may be told -ENOSPC.
 */
static void *take_one(void *arg)
{
	struct worker *w = (struct worker *)arg;

	for (int i = 0; i < NR_STEPS; i++) {
		struct slot s = { 0 };
		struct extent ext;

		if (alloc_take(al, rnd(w, NR_BLOCKS), 1 + rnd(w, 9), BLOCK_DATA,
			       0, &ext))
			fail("no space although a block is free", 0);
		s.block = ext.start;
		s.stamp = put_stamp(w, ext.start, 1);
		if (ext.nr != 1)
			fail("neighbours free that never were", ext.start);
		if (i % 8 == 0)
			sched_yield();
		verify(&s);
		if (!alloc_put(al, s.block, 0))
			fail("not the last", s.block);
		pay_free(&s);
	}
	return NULL;
}

static void race_full(void)
{
	pthread_t thread[NR_THREADS];
	struct extent ext;

	if (alloc_create(NR_BLOCKS, 0, &al))
		fail("no memory", 0);
	alloc_ready(al);
	while (alloc_take(al, 0, CHUNK_BLOCKS, BLOCK_DATA, 0, &ext) == 0)
		;
	/* Far apart, so that every arena has one at some time. */
	for (uint64_t i = 0; i <= NR_THREADS; i++) {
		uint64_t block = i * (NR_CHUNKS / NR_THREADS) * CHUNK_BLOCKS;

		if (!alloc_put(al, block, 0))
			fail("not the last", block);
		alloc_free(al, block, 0);
	}
	for (unsigned int i = 0; i < NR_THREADS; i++)
		if (pthread_create(&thread[i], NULL, take_one, &workers[i]))
			fail("no thread", i);
	for (unsigned int i = 0; i < NR_THREADS; i++)
		pthread_join(thread[i], NULL);
	alloc_destroy(al);
}

/* Marks of a chunk and of a node inside it: not both may succeed. */
static int64_t marked_chunk[NR_MARK_CHUNKS];
static int64_t marked_node[NR_MARK_CHUNKS];
static _Atomic(unsigned int) chunk_at, node_at;

/* Stay close to the other one, so that the marks do meet. */
static void keep_step(_Atomic(unsigned int) *mine,
		      const _Atomic(unsigned int) *other, unsigned int i)
{
	atomic_store(mine, i);
	for (int spin = 0; spin < 2000 && atomic_load(other) < i; spin++)
		;
}

static void *mark_chunks(void *arg)
{
	(void)arg;
	for (unsigned int i = 0; i < NR_MARK_CHUNKS; i++) {
		keep_step(&chunk_at, &node_at, i);
		marked_chunk[i] = alloc_mark(al, i * CHUNK_BLOCKS, CHUNK_ORDER,
					     BLOCK_DATA);
	}
	return NULL;
}

static void *mark_nodes(void *arg)
{
	(void)arg;
	for (unsigned int i = 0; i < NR_MARK_CHUNKS; i++) {
		keep_step(&node_at, &chunk_at, i);
		marked_node[i] = alloc_mark(al, i * CHUNK_BLOCKS + i % 512, 0,
					    BLOCK_NODE1);
	}
	return NULL;
}

static void race_marks(void)
{
	uint64_t nr_used = 0;
	struct alloc_stat st;
	pthread_t a, b;

	if (alloc_create(NR_MARK_CHUNKS * CHUNK_BLOCKS, 0, &al))
		fail("no memory", 0);
	if (pthread_create(&a, NULL, mark_chunks, NULL) ||
	    pthread_create(&b, NULL, mark_nodes, NULL))
		fail("no thread", 0);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	for (unsigned int i = 0; i < NR_MARK_CHUNKS; i++) {
		if (marked_chunk[i] == 0 && marked_node[i] == 0)
			fail("chunk and node", i * CHUNK_BLOCKS + i % 512);
		nr_used += marked_chunk[i] == 0	 ? CHUNK_BLOCKS
			   : marked_node[i] == 0 ? 1
						 : 0;
	}
	/* A mark that failed has left nothing. */
	alloc_ready(al);
	alloc_stat(al, &st, false);
	if (st.nr_free != st.nr_blocks - nr_used)
		fail("a failed mark left something", st.nr_free);
	alloc_destroy(al);
}

int main(void)
{
	race_marks();
	race_takes();
	race_full();
	return 0;
}
