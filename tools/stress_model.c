/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/stress_model.c - what a page may contain
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "tools/stress.h"

/* A clone of a clone of a clone is looked through so often. */
#define MAX_DEPTH 4

/* Locks that are tried. */

bool try_read(struct trylock *l)
{
	int count = atomic_load(&l->count);

	while (count >= 0)
		if (atomic_compare_exchange_weak(&l->count, &count, count + 1))
			return true;
	return false;
}

bool try_write(struct trylock *l)
{
	int none = 0;

	return atomic_compare_exchange_strong(&l->count, &none, -1);
}

void unlock_read(struct trylock *l)
{
	atomic_fetch_sub(&l->count, 1);
}

void unlock_write(struct trylock *l)
{
	atomic_store(&l->count, 0);
}

/* Words. */

/* Identity, page, version: 16, 12 and 20 bits.  Never 0 or 1. */
uint64_t new_tag(const struct object *o, unsigned int page)
{
	uint64_t version =
		atomic_fetch_add(&ring_of(o, page)->version, 1) & 0xfffff;

	return (uint64_t)(atomic_load(&o->id) & 0xffff) << 32 |
	       (uint64_t)page << 20 | version;
}

static uint64_t check_bits(uint64_t tag, unsigned int i)
{
	uint64_t x = tag * UINT64_C(0x9e3779b97f4a7c15) + i;

	x ^= x >> 29;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	return x >> 48;
}

uint64_t word_of(uint64_t tag, unsigned int i)
{
	return tag << 16 | check_bits(tag, i);
}

bool word_tag(uint64_t word, unsigned int i, uint64_t *ret_tag)
{
	*ret_tag = word >> 16;
	return word == 0 || word == word_of(*ret_tag, i);
}

void page_fill(uint64_t words[WORDS], uint64_t tag)
{
	for (unsigned int i = 0; i < WORDS; i++)
		words[i] = word_of(tag, i);
}

/* Rings. */

struct ring *ring_of(const struct object *o, unsigned int page)
{
	return &stress->ring[object_index(o) * stress->profile->nr_pages +
			     page];
}

static void ring_lock(struct ring *r)
{
	while (atomic_exchange_explicit(&r->lock, 1, memory_order_acquire))
		sched_yield();
}

static void ring_unlock(struct ring *r)
{
	atomic_store_explicit(&r->lock, 0, memory_order_release);
}

void ring_reset(const struct object *o)
{
	for (unsigned int i = 0; i < stress->profile->nr_pages; i++) {
		struct ring *r = ring_of(o, i);

		ring_lock(r);
		memset(r->rec, 0, sizeof(r->rec));
		r->lost_end = 0;
		r->rec[0] = (struct rec){ .state = REC_DONE,
					  .value = VALUE_BEYOND };
		r->rec[0].begin = r->rec[0].end = now();
		ring_unlock(r);
	}
}

/* A free place; the operation that ended first makes way. */
static struct rec *rec_place(struct ring *r)
{
	struct rec *oldest = NULL;

	for (unsigned int i = 0; i < NR_RECS; i++) {
		struct rec *e = &r->rec[i];

		if (e->state == REC_FREE)
			return e;
		if (e->state != REC_RUNNING &&
		    (!oldest || e->end < oldest->end))
			oldest = e;
	}
	if (oldest->end > r->lost_end)
		r->lost_end = oldest->end;
	return oldest;
}

static uint64_t rec_add(const struct object *o, unsigned int page,
			struct rec rec)
{
	struct ring *r = ring_of(o, page);

	rec.state = REC_RUNNING;
	rec.who = (uint16_t)(self ? self->index : MAX_WORKERS);
	ring_lock(r);
	rec.begin = now();
	*rec_place(r) = rec;
	ring_unlock(r);
	return rec.begin;
}

uint64_t rec_begin(const struct object *o, unsigned int page, uint64_t value)
{
	return rec_add(o, page, (struct rec){ .value = value });
}

uint64_t rec_begin_clone(const struct object *o, unsigned int page,
			 const struct object *src, unsigned int src_page)
{
	return rec_add(o, page,
		       (struct rec){ .clone = 1,
				     .src = (uint16_t)object_index(src),
				     .src_id = atomic_load(&src->id),
				     .src_page = src_page });
}

void rec_end(const struct object *o, unsigned int page, uint64_t begin,
	     enum rec_state state)
{
	struct ring *r = ring_of(o, page);

	ring_lock(r);
	for (unsigned int i = 0; i < NR_RECS; i++) {
		struct rec *e = &r->rec[i];

		if (e->state != REC_RUNNING || e->begin != begin)
			continue;
		e->state = (uint8_t)state;
		e->end = now();
		break;
	}
	ring_unlock(r);
}

/* Has what ended at @end been replaced, for good, before @from? */
static bool replaced(const struct ring *r, uint64_t end, uint64_t from)
{
	for (unsigned int i = 0; i < NR_RECS; i++) {
		const struct rec *w = &r->rec[i];

		if (w->state == REC_DONE && w->begin > end && w->end < from)
			return true;
	}
	return false;
}

static bool alive(const struct ring *r, const struct rec *e, uint64_t from,
		  uint64_t to)
{
	if (e->state == REC_FREE || e->begin > to)
		return false;
	return e->state == REC_RUNNING || !replaced(r, e->end, from);
}

static void ring_copy(struct ring *r, struct ring *copy)
{
	ring_lock(r);
	memcpy(copy->rec, r->rec, sizeof(copy->rec));
	copy->lost_end = r->lost_end;
	ring_unlock(r);
}

static enum answer allowed(const struct object *o, uint32_t id,
			   unsigned int page, uint64_t value, uint64_t from,
			   uint64_t to, unsigned int depth);

static enum answer rec_allows(const struct rec *e, uint64_t value, uint64_t to,
			      unsigned int depth)
{
	uint64_t end = e->state == REC_RUNNING ? to : e->end;

	if (!e->clone)
		return e->value == value ? ANSWER_YES : ANSWER_NO;
	if (value == VALUE_BEYOND) /* what is cloned is there */
		return ANSWER_NO;
	if (depth == MAX_DEPTH)
		return ANSWER_UNKNOWN;
	return allowed(&stress->object[e->src], e->src_id, e->src_page, value,
		       e->begin, end, depth + 1);
}

static enum answer allowed(const struct object *o, uint32_t id,
			   unsigned int page, uint64_t value, uint64_t from,
			   uint64_t to, unsigned int depth)
{
	enum answer ret = ANSWER_NO, one;
	struct ring r;

	ring_copy(ring_of(o, page), &r);
	if (atomic_load(&o->id) != id) /* that file has gone, with its ring */
		return ANSWER_UNKNOWN;
	for (unsigned int i = 0; i < NR_RECS; i++) {
		if (!alive(&r, &r.rec[i], from, to))
			continue;
		one = rec_allows(&r.rec[i], value, to, depth);
		if (one == ANSWER_YES)
			return ANSWER_YES;
		if (one == ANSWER_UNKNOWN)
			ret = ANSWER_UNKNOWN;
	}
	if (r.lost_end && !replaced(&r, r.lost_end, from))
		ret = ANSWER_UNKNOWN;
	return ret;
}

enum answer value_allowed(const struct object *o, unsigned int page,
			  uint64_t value, uint64_t from, uint64_t to)
{
	return allowed(o, atomic_load(&o->id), page, value, from, to, 0);
}

static void check_value(const struct object *o, unsigned int page,
			unsigned int i, uint64_t tag, uint64_t from,
			uint64_t to, uint64_t block, const char *how)
{
	enum answer ret = value_allowed(o, page, tag, from, to);

	if (ret == ANSWER_UNKNOWN)
		self->nr_unknown++;
	if (ret != ANSWER_NO)
		return;
	if (tag == VALUE_ZERO)
		finding(o, page, block,
			"%s: word %u is zero, at moments [%ju, %ju]", how, i,
			(uintmax_t)from, (uintmax_t)to);
	else
		finding_of(o, page, block, tag,
			   "%s: word %u is of file %u page %u version %u, at "
			   "moments [%ju, %ju]",
			   how, i, (unsigned int)(tag >> 32),
			   (unsigned int)(tag >> 20 & 0xfff),
			   (unsigned int)(tag & 0xfffff), (uintmax_t)from,
			   (uintmax_t)to);
}

void page_check(const struct object *o, unsigned int page,
		const uint64_t words[WORDS], unsigned int nr, uint64_t from,
		uint64_t to, uint64_t block, const char *how)
{
	uint64_t last = 0, tag;

	for (unsigned int i = 0; i < nr; i++) {
		if (!word_tag(words[i], i, &tag)) {
			finding(o, page, block,
				"%s: word %u is %#jx, which nobody stored", how,
				i, (uintmax_t)words[i]);
			return;
		}
		if (i > 0 && tag == last)
			continue;
		check_value(o, page, i, tag, from, to, block, how);
		last = tag;
	}
}

/* Blocks. */

void event_add(uint64_t block, enum event_kind kind, enum stress_op op,
	       uint32_t id, uint32_t page)
{
	struct block *b = &stress->block[block % NR_BLOCKS];
	uint32_t nr = atomic_fetch_add(&b->nr, 1);

	b->event[nr % NR_EVENTS] = (struct event){ .when = now(),
						   .id = id,
						   .page = page,
						   .who = (uint16_t)self->index,
						   .kind = (uint8_t)kind,
						   .op = (uint8_t)op };
}
