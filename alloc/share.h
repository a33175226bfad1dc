/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * alloc/share.h - the share word of a block or a chunk
 *
 * 32 bits: how many slots point to it, how many owners have been told by
 * alloc_put() that theirs was the last one and have not called alloc_free()
 * yet, and the kind.  Zero is a block that nobody knows of.
 *
 * Why leavers are counted: between put and free the block can be found again
 * through its chunk's slot (a split), given a small slot, and lose that one
 * too.  Then two frees are under way, each waiting for a transaction of its
 * own, and only the second one may make the block available.  NR_LEAVING
 * bounds how often this may happen at once; the next owner is told -EMLINK
 * and copies, as it does when the count is exhausted.
 *
 * Locking.   The words are atomic.  A word becomes zero again only in
 *            alloc_free(), with the arena locked.
 */
#ifndef ALLOC_SHARE_H
#define ALLOC_SHARE_H

#include <stdatomic.h>
#include <stdint.h>

#include "alloc/alloc.h"

#define SHARE_KIND_SHIFT    28
#define SHARE_LEAVING_SHIFT 26
#define SHARE_LEAVING_ONE   (UINT32_C(1) << SHARE_LEAVING_SHIFT)
#define NR_LEAVING	    3u

static_assert(NR_BLOCK_KINDS <= 16, "a kind has four bits");
static_assert(ALLOC_SHARE_MAX == SHARE_LEAVING_ONE - 1,
	      "the count has the bits below the leavers");

typedef _Atomic(uint32_t) share_word;

static inline uint32_t share_make(enum block_kind kind, uint32_t count)
{
	return (uint32_t)kind << SHARE_KIND_SHIFT | count;
}

static inline uint32_t share_count(uint32_t word)
{
	return word & ALLOC_SHARE_MAX;
}

static inline unsigned int share_leaving(uint32_t word)
{
	return word >> SHARE_LEAVING_SHIFT & NR_LEAVING;
}

static inline enum block_kind share_kind(uint32_t word)
{
	return (enum block_kind)(word >> SHARE_KIND_SHIFT);
}

static inline uint32_t share_load(const share_word *w)
{
	return atomic_load_explicit(w, memory_order_acquire);
}

#endif
