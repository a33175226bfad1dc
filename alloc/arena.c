/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * alloc/arena.c - a share of the device's chunks, filed by how full they are
 *
 * A chunk's place follows from three things, and arena_refile() is the only
 * function that moves it:
 *
 *	set aside             list LIST_ASIDE while it has room, busy
 *	nothing in use        no list, not busy: it counts as empty
 *	full                  no list, busy
 *	otherwise             list log2(free blocks), busy
 *
 * Small requests take the fullest chunk that has room for them, so that the
 * emptier ones get a chance to run empty.
 */
#include "alloc/arena.h"

#include <assert.h>

static unsigned int log2_floor(uint64_t v)
{
	return 63u - (unsigned int)__builtin_clzll(v);
}

static unsigned int log2_ceil(uint64_t v)
{
	return v > 1 ? log2_floor(v - 1) + 1 : 0;
}

/* Counters that only the lock's holder changes and others may peek at. */
static void count_add(_Atomic(uint64_t) *counter, int64_t n)
{
	uint64_t v = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, v + (uint64_t)n, memory_order_relaxed);
}

void arena_init(struct arena *ar, struct chunk *chunks, uint64_t first,
		uint64_t nr, _Atomic(uint64_t) *busy)
{
	mutex_init(&ar->lock, LOCK_ALLOC);
	ar->chunk = chunks;
	ar->first = first;
	ar->nr = nr;
	ar->busy = busy;
	ar->nr_words = (nr + 63) / 64;
}

void arena_destroy(struct arena *ar)
{
	mutex_destroy(&ar->lock);
}

static _Atomic(uint64_t) *busy_word(const struct arena *ar, uint64_t nr)
{
	return &ar->busy[(nr - ar->first) / 64];
}

static uint64_t busy_bit(const struct arena *ar, uint64_t nr)
{
	return UINT64_C(1) << (nr - ar->first) % 64;
}

bool arena_touch(struct arena *ar, uint64_t nr)
{
	_Atomic(uint64_t) *word = busy_word(ar, nr);
	uint64_t bit = busy_bit(ar, nr);

	/* Sequentially consistent: alloc_mark() builds on the order. */
	return atomic_load(word) & bit || atomic_fetch_or(word, bit) & bit;
}

bool arena_touched(const struct arena *ar, uint64_t nr)
{
	return atomic_load(busy_word(ar, nr)) & busy_bit(ar, nr);
}

static void set_busy(struct arena *ar, uint64_t nr, bool busy)
{
	_Atomic(uint64_t) *word = busy_word(ar, nr);
	uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
	uint64_t bit = busy_bit(ar, nr);

	if (!(old & bit) == !busy)
		return;
	atomic_store_explicit(word, old ^ bit, memory_order_relaxed);
	count_add(&ar->nr_empty, busy ? -1 : 1);
	if (!busy && (nr - ar->first) / 64 < ar->low_word)
		ar->low_word = (nr - ar->first) / 64;
}

static void set_lists(struct arena *ar, unsigned int list)
{
	uint32_t lists = atomic_load_explicit(&ar->lists, memory_order_relaxed);

	lists &= ~(UINT32_C(1) << list);
	if (ar->head[list])
		lists |= UINT32_C(1) << list;
	atomic_store_explicit(&ar->lists, lists, memory_order_relaxed);
}

static void list_del(struct arena *ar, struct chunk *ch)
{
	unsigned int list = ch->list - 1u;

	if (ch->next)
		ar->chunk[ch->next - 1].prev = ch->prev;
	if (ch->prev)
		ar->chunk[ch->prev - 1].next = ch->next;
	else
		ar->head[list] = ch->next;
	ch->list = 0;
	set_lists(ar, list);
}

static void list_add(struct arena *ar, struct chunk *ch, unsigned int list)
{
	uint32_t self = (uint32_t)(ch - ar->chunk) + 1;

	ch->prev = 0;
	ch->next = ar->head[list];
	if (ch->next)
		ar->chunk[ch->next - 1].prev = self;
	ar->head[list] = self;
	ch->list = (uint8_t)(list + 1);
	set_lists(ar, list);
}

void arena_refile(struct arena *ar, uint64_t nr)
{
	struct chunk *ch = &ar->chunk[nr];
	uint64_t nr_free = CHUNK_BLOCKS - ch->nr_used;
	unsigned int list = 0;

	if (nr_free > 0 && ch->aside)
		list = LIST_ASIDE + 1;
	else if (nr_free > 0 && ch->nr_used > 0)
		list = log2_floor(nr_free) + 1;
	if (ch->list != list) {
		if (ch->list)
			list_del(ar, ch);
		if (list)
			list_add(ar, ch, list - 1);
	}
	set_busy(ar, nr, ch->nr_used > 0 || ch->aside);
}

void arena_set_aside(struct arena *ar, uint64_t nr, bool aside)
{
	struct chunk *ch = &ar->chunk[nr];

	if (ch->aside == aside)
		return;
	ch->aside = aside;
	count_add(&ar->nr_aside, aside ? 1 : -1);
	arena_refile(ar, nr);
}

void arena_ready(struct arena *ar)
{
	atomic_store(&ar->nr_empty, ar->nr);
	for (uint64_t i = 0; i < ar->nr_words; i++) {
		uint64_t word = atomic_load(&ar->busy[i]);

		count_add(&ar->nr_empty, -__builtin_popcountll(word));
		for (; word; word &= word - 1)
			arena_refile(ar,
				     ar->first + i * 64 +
					     (uint64_t)__builtin_ctzll(word));
	}
	/* Bits past the last chunk must not look like empty chunks. */
	if (ar->nr % 64)
		atomic_fetch_or(&ar->busy[ar->nr_words - 1],
				UINT64_MAX << ar->nr % 64);
}

static uint32_t lists_of(const struct arena *ar)
{
	return atomic_load_explicit(&ar->lists, memory_order_relaxed);
}

bool arena_may_have(const struct arena *ar, enum arena_class cls)
{
	uint32_t aside = UINT32_C(1) << LIST_ASIDE;

	switch (cls) {
	case ARENA_PARTLY:
		return lists_of(ar) & (aside - 1);
	case ARENA_EMPTY:
		return atomic_load_explicit(&ar->nr_empty,
					    memory_order_relaxed);
	case ARENA_ASIDE:
		return lists_of(ar) & aside;
	case NR_ARENA_CLASSES:
		break;
	}
	return false;
}

bool arena_roomy(const struct arena *ar)
{
	return atomic_load_explicit(&ar->nr_empty, memory_order_relaxed) >
	       ar->nr / 2;
}

/* The first empty chunk in the words [from, end); @mask hides bits of the
 * first of them. */
static uint64_t find_empty(const struct arena *ar, uint64_t from, uint64_t end,
			   uint64_t mask)
{
	for (uint64_t i = from; i < end; i++, mask = UINT64_MAX) {
		uint64_t empty = ~atomic_load_explicit(&ar->busy[i],
						       memory_order_relaxed) &
				 mask;

		if (empty)
			return ar->first + i * 64 +
			       (uint64_t)__builtin_ctzll(empty);
	}
	return ARENA_NONE;
}

static uint64_t pick_empty(struct arena *ar, uint64_t near)
{
	uint64_t ret = ARENA_NONE;

	if (!arena_may_have(ar, ARENA_EMPTY))
		return ARENA_NONE;
	if (near > ar->first && near < ar->first + ar->nr) {
		uint64_t i = near - ar->first;

		ret = find_empty(ar, i / 64, ar->nr_words,
				 UINT64_MAX << i % 64);
	}
	if (ret == ARENA_NONE) {
		ret = find_empty(ar, ar->low_word, ar->nr_words, UINT64_MAX);
		assert(ret != ARENA_NONE);
		ar->low_word = (ret - ar->first) / 64;
	}
	return ret;
}

static uint64_t pick_partly(const struct arena *ar, uint64_t want)
{
	uint32_t lists = lists_of(ar) & ((UINT32_C(1) << NR_ROOM) - 1);
	unsigned int enough = log2_ceil(want);
	uint32_t roomy;
	unsigned int list;

	if (!lists)
		return ARENA_NONE;
	if (enough >= NR_ROOM)
		enough = NR_ROOM - 1;
	roomy = lists & ~((UINT32_C(1) << enough) - 1);
	list = roomy ? (unsigned int)__builtin_ctz(roomy) : log2_floor(lists);
	return ar->head[list] - UINT64_C(1);
}

uint64_t arena_pick(struct arena *ar, enum arena_class cls, uint64_t near,
		    uint64_t want)
{
	switch (cls) {
	case ARENA_PARTLY:
		return pick_partly(ar, want);
	case ARENA_EMPTY:
		return pick_empty(ar, near);
	case ARENA_ASIDE:
		if (ar->head[LIST_ASIDE])
			return ar->head[LIST_ASIDE] - UINT64_C(1);
		break;
	case NR_ARENA_CLASSES:
		break;
	}
	return ARENA_NONE;
}
