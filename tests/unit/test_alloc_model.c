/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_alloc_model.c - the allocator against naive arrays
 *
 * Every step does one random thing to both and compares what came back, the
 * words it touched and the number of free blocks; now and then everything is
 * compared.  Phases of growing and shrinking take the device through full and
 * nearly empty.
 */
#include "alloc/alloc.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdlib.h>

#define NR_CHUNKS 20u
#define NR_TAIL	  77u
#define NR_BLOCKS (NR_CHUNKS * CHUNK_BLOCKS + NR_TAIL)
#define RESERVE	  50u
#define NR_STEPS  100000
#define NR_PHASE  4000 /* steps of growing, then of shrinking */

struct word {
	uint32_t count;
	uint32_t leaving;
	enum block_kind kind;
};

struct pending {
	uint64_t block;
	unsigned int order;
};

static struct {
	struct word block[NR_BLOCKS];
	struct word chunk[NR_CHUNKS + 1];
	bool aside[NR_CHUNKS + 1];
	uint64_t nr_free;
	struct pending pending[200];
	unsigned int nr_pending;
	unsigned int step;
} m;

static struct alloc *al;
static unsigned int rng;

static unsigned int rnd(unsigned int n)
{
	return (unsigned int)rand_r(&rng) % n;
}

static struct word *word_of(uint64_t block, unsigned int order)
{
	return order ? &m.chunk[block / CHUNK_BLOCKS] : &m.block[block];
}

static bool in_use(const struct word *w)
{
	return w->count || w->leaving;
}

static bool is_free(uint64_t block)
{
	return !in_use(&m.block[block]) &&
	       !in_use(&m.chunk[block / CHUNK_BLOCKS]);
}

static uint64_t free_in_chunk(uint64_t nr)
{
	uint64_t n = 0;

	for (uint64_t i = nr * CHUNK_BLOCKS;
	     i < (nr + 1) * CHUNK_BLOCKS && i < NR_BLOCKS; i++)
		n += is_free(i);
	return n;
}

static bool is_empty(uint64_t nr)
{
	return nr < NR_CHUNKS && !m.aside[nr] &&
	       free_in_chunk(nr) == CHUNK_BLOCKS;
}

static bool any_empty(void)
{
	for (uint64_t nr = 0; nr < NR_CHUNKS; nr++)
		if (is_empty(nr))
			return true;
	return false;
}

static bool any_free_but_aside(void)
{
	for (uint64_t nr = 0; nr <= NR_CHUNKS; nr++)
		if (!m.aside[nr] && free_in_chunk(nr) > 0)
			return true;
	return false;
}

static uint64_t room(unsigned int flags)
{
	uint64_t floor = flags & ALLOC_EMERGENCY ? 0 : RESERVE;

	return m.nr_free > floor ? m.nr_free - floor : 0;
}

static void mark_taken(const struct extent *ext, enum block_kind kind)
{
	for (uint64_t i = ext->start; i < ext->start + ext->nr; i++) {
		cr_assert_lt(i, NR_BLOCKS);
		cr_assert(is_free(i), "step %u: block %ju given twice", m.step,
			  (uintmax_t)i);
		m.block[i] = (struct word){ 1, 0, kind };
	}
	m.nr_free -= ext->nr;
}

static enum block_kind some_kind(void)
{
	return (enum block_kind)(BLOCK_NODE1 + rnd(NR_BLOCK_KINDS - 2));
}

static uint64_t some_want(void)
{
	return rnd(4) ? 1 + rnd(8) : 1 + rnd(700);
}

static uint64_t some_goal(void)
{
	return rnd(3) ? rnd(NR_BLOCKS + 100) : 0;
}

static void do_take(void)
{
	enum block_kind kind = some_kind();
	unsigned int flags = rnd(4) ? 0 : ALLOC_EMERGENCY;
	uint64_t goal = some_goal(), want = some_want();
	bool others = any_free_but_aside();
	struct extent ext = { 7, 7 };
	int ret;

	ret = alloc_take(al, goal, want, kind, flags, &ext);
	cr_assert_eq(ret, room(flags) ? 0 : -ENOSPC, "step %u", m.step);
	if (ret) {
		cr_assert(ext.start == 7 && ext.nr == 7);
		return;
	}
	cr_assert(ext.nr >= 1 && ext.nr <= want && ext.nr <= room(flags));
	if (goal && goal < NR_BLOCKS && is_free(goal))
		cr_assert_eq(ext.start, goal, "step %u", m.step);
	if (m.aside[ext.start / CHUNK_BLOCKS] && others)
		cr_assert_eq(ext.start / CHUNK_BLOCKS, goal / CHUNK_BLOCKS);
	mark_taken(&ext, kind);
}

static void do_take_at(void)
{
	uint64_t start = rnd(NR_BLOCKS), want = some_want(), nr = 0;
	unsigned int flags = rnd(4) ? 0 : ALLOC_EMERGENCY;
	struct extent ext;

	while (nr < want && nr < room(flags) && start + nr < NR_BLOCKS &&
	       (nr == 0 || (start + nr) % CHUNK_BLOCKS) && is_free(start + nr))
		nr++;
	alloc_take_at(al, start, want, BLOCK_DATA, flags, &ext);
	cr_assert_eq(ext.start, start);
	cr_assert_eq(ext.nr, nr, "step %u", m.step);
	mark_taken(&ext, BLOCK_DATA);
}

static void do_take_chunk(void)
{
	unsigned int flags = rnd(4) ? 0 : ALLOC_EMERGENCY;
	bool can = any_empty() && room(flags) >= CHUNK_BLOCKS;
	uint64_t block;
	int ret;

	ret = alloc_take_chunk(al, some_goal(), BLOCK_DATA, flags, &block);
	cr_assert_eq(ret, can ? 0 : -ENOSPC, "step %u", m.step);
	if (ret)
		return;
	cr_assert_eq(block % CHUNK_BLOCKS, 0);
	cr_assert(is_empty(block / CHUNK_BLOCKS), "step %u", m.step);
	m.chunk[block / CHUNK_BLOCKS] = (struct word){ 1, 0, BLOCK_DATA };
	m.nr_free -= CHUNK_BLOCKS;
}

static void do_aside(void)
{
	bool can = any_empty();
	uint64_t block;
	int ret = alloc_aside(al, some_goal(), &block);

	cr_assert_eq(ret, can ? 0 : -ENOSPC, "step %u", m.step);
	if (ret)
		return;
	cr_assert(is_empty(block / CHUNK_BLOCKS));
	m.aside[block / CHUNK_BLOCKS] = true;
}

static void do_aside_end(void)
{
	uint64_t block = rnd(NR_BLOCKS);

	alloc_aside_end(al, block);
	m.aside[block / CHUNK_BLOCKS] = false;
}

/* A block or chunk that the model lets a slot be added to or taken from. */
static bool some_place(uint64_t *ret_block, unsigned int *ret_order)
{
	unsigned int order = rnd(3) ? 0 : CHUNK_ORDER;
	uint64_t block = order ? rnd(NR_CHUNKS) * CHUNK_BLOCKS : rnd(NR_BLOCKS);

	*ret_block = block;
	*ret_order = order;
	if (in_use(word_of(block, order)))
		return true;
	if (!order)
		return !is_free(block);
	/* A merge: all blocks of the chunk have small slots. */
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
		if (!in_use(&m.block[block + i]))
			return false;
	return true;
}

static void do_get(void)
{
	unsigned int order;
	struct word *w;
	uint64_t block;
	int want = 0;

	if (!some_place(&block, &order))
		return;
	w = word_of(block, order);
	if (w->count == 0 && w->leaving == 3)
		want = -EMLINK;
	cr_assert_eq(alloc_get(al, block, order), want, "step %u", m.step);
	if (want)
		return;
	if (!in_use(w))
		w->kind = order ? m.block[block].kind
				: m.chunk[block / CHUNK_BLOCKS].kind;
	w->count++;
}

static void do_put(void)
{
	unsigned int order;
	struct word *w;
	uint64_t block;

	if (m.nr_pending == sizeof(m.pending) / sizeof(m.pending[0]) ||
	    !some_place(&block, &order))
		return;
	w = word_of(block, order);
	if (w->count == 0)
		return;
	w->count--;
	cr_assert_eq(alloc_put(al, block, order), w->count == 0, "step %u",
		     m.step);
	if (w->count == 0) {
		w->leaving++;
		m.pending[m.nr_pending++] = (struct pending){ block, order };
	}
}

static void do_free(void)
{
	struct pending p;
	uint64_t before;
	unsigned int i;

	if (m.nr_pending == 0)
		return;
	i = rnd(m.nr_pending);
	p = m.pending[i];
	m.pending[i] = m.pending[--m.nr_pending];
	before = free_in_chunk(p.block / CHUNK_BLOCKS);
	alloc_free(al, p.block, p.order);
	word_of(p.block, p.order)->leaving--;
	m.nr_free += free_in_chunk(p.block / CHUNK_BLOCKS) - before;
}

static void check_block(uint64_t block)
{
	const struct word *w = &m.block[block];
	const struct word *c = &m.chunk[block / CHUNK_BLOCKS];
	enum block_kind kind = in_use(w)   ? w->kind
			       : in_use(c) ? c->kind
					   : BLOCK_NONE;

	cr_assert_eq(alloc_share(al, block), w->count + c->count,
		     "step %u: block %ju", m.step, (uintmax_t)block);
	cr_assert_eq(alloc_kind(al, block), kind, "step %u: block %ju", m.step,
		     (uintmax_t)block);
}

static void check_all(void)
{
	uint64_t nr_empty = 0, nr_aside = 0, nr_shared = 0;
	struct alloc_stat st;

	for (uint64_t i = 0; i < NR_BLOCKS; i++) {
		check_block(i);
		nr_shared +=
			m.block[i].count + m.chunk[i / CHUNK_BLOCKS].count > 1;
	}
	for (uint64_t i = 0; i <= NR_CHUNKS; i++) {
		nr_empty += is_empty(i);
		nr_aside += m.aside[i];
	}
	alloc_stat(al, &st, true);
	cr_assert_eq(st.nr_empty_chunks, nr_empty, "step %u", m.step);
	cr_assert_eq(st.nr_aside, nr_aside, "step %u", m.step);
	cr_assert_eq(st.nr_shared, nr_shared, "step %u", m.step);
	cr_assert_eq(st.nr_kind[BLOCK_NONE], m.nr_free, "step %u", m.step);
}

static void one_step(bool growing)
{
	unsigned int what = rnd(100);
	struct alloc_stat st;

	if (what < (growing ? 55 : 8))
		do_take();
	else if (what < (growing ? 59 : 10))
		do_take_at();
	else if (what < (growing ? 62 : 12))
		do_take_chunk();
	else if (what < 64)
		do_aside();
	else if (what < 66)
		do_aside_end();
	else if (what < 80)
		do_get();
	else if (what < 92)
		do_put();
	else
		do_free();
	/* Shrinking needs many puts a take: a chunk slot holds 512 blocks. */
	for (int i = 0; !growing && i < 8; i++) {
		do_put();
		do_free();
	}
	check_block(rnd(NR_BLOCKS));
	alloc_stat(al, &st, false);
	cr_assert_eq(st.nr_free, m.nr_free, "step %u", m.step);
}

ParameterizedTestParameters(alloc_model, agrees_with_arrays)
{
	static unsigned int seeds[] = { 1, 2, 3 };

	return cr_make_param_array(unsigned int, seeds, 3);
}

ParameterizedTest(unsigned int *seed, alloc_model, agrees_with_arrays,
		  .timeout = 100)
{
	bool was_full = false, was_roomy = false;

	rng = *seed;
	m.nr_free = NR_BLOCKS;
	cr_assert_eq(alloc_create(NR_BLOCKS, RESERVE, &al), 0);
	alloc_ready(al);
	for (m.step = 0; m.step < NR_STEPS; m.step++) {
		one_step(m.step / NR_PHASE % 2 == 0);
		if (m.step % 1000 == 0)
			check_all();
		was_full |= m.nr_free == 0;
		was_roomy |= m.step > NR_PHASE && m.nr_free > NR_BLOCKS / 2;
	}
	check_all();
	alloc_destroy(al);
	/* Otherwise the weights above test less than they look. */
	cr_expect(was_full);
	cr_expect(was_roomy);
}
