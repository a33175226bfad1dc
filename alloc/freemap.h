/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * alloc/freemap.h - which blocks of one chunk are in use
 *
 * One bit a block, set for a block that must not be handed out.  Pure: it
 * knows nothing of shares, lists or the device.
 *
 * Units.     Bit numbers within the chunk, 0 to CHUNK_BLOCKS.
 * Errors.    Nothing here fails; "none" is CHUNK_BLOCKS or a run of 0.
 * Locking.   The caller's: the words are plain.
 */
#ifndef ALLOC_FREEMAP_H
#define ALLOC_FREEMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "dax/media.h"

#define FREEMAP_WORDS (CHUNK_BLOCKS / 64)

struct freemap {
	uint64_t word[FREEMAP_WORDS];
};

/* Bits [start, start + nr). */
struct freerun {
	unsigned int start;
	unsigned int nr;
};

bool freemap_used(const struct freemap *map, unsigned int bit);
void freemap_set(struct freemap *map, unsigned int start, unsigned int nr);
void freemap_clear(struct freemap *map, unsigned int bit);
unsigned int freemap_nr_used(const struct freemap *map);

/* The first free, or used, bit from @from on. */
unsigned int freemap_next_free(const struct freemap *map, unsigned int from);
unsigned int freemap_next_used(const struct freemap *map, unsigned int from);

/* The free bits from exactly @start on, at most @want. */
struct freerun freemap_run_at(const struct freemap *map, unsigned int start,
			      unsigned int want);

/*
 * A free run of at most @want bits.  When @from is free it starts there;
 * otherwise it is the next run of @want bits, looking from @from to the end
 * and then from the start, or the longest run when all are shorter.
 */
struct freerun freemap_run(const struct freemap *map, unsigned int from,
			   unsigned int want);

#endif
