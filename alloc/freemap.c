/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * alloc/freemap.c - which blocks of one chunk are in use
 *
 * Everything is built on one question, "where is the next bit from here on",
 * asked of the map or of its complement, eight words at most.
 */
#include "alloc/freemap.h"

#include <assert.h>

static_assert(CHUNK_BLOCKS % 64 == 0, "a chunk is whole words");

bool freemap_used(const struct freemap *map, unsigned int bit)
{
	return map->word[bit / 64] >> (bit % 64) & 1;
}

void freemap_set(struct freemap *map, unsigned int start, unsigned int nr)
{
	unsigned int end = start + nr;

	while (start < end) {
		unsigned int shift = start % 64;
		unsigned int n = 64 - shift;

		if (n > end - start)
			n = end - start;
		map->word[start / 64] |= (UINT64_MAX >> (64 - n)) << shift;
		start += n;
	}
}

void freemap_clear(struct freemap *map, unsigned int bit)
{
	map->word[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

unsigned int freemap_nr_used(const struct freemap *map)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < FREEMAP_WORDS; i++)
		nr += (unsigned int)__builtin_popcountll(map->word[i]);
	return nr;
}

/* The first bit that is set once the words are xored with @flip. */
static unsigned int next_bit(const struct freemap *map, unsigned int from,
			     uint64_t flip)
{
	unsigned int i = from / 64;
	uint64_t word;

	if (from >= CHUNK_BLOCKS)
		return CHUNK_BLOCKS;
	word = (map->word[i] ^ flip) & UINT64_MAX << (from % 64);
	while (!word) {
		if (++i == FREEMAP_WORDS)
			return CHUNK_BLOCKS;
		word = map->word[i] ^ flip;
	}
	return i * 64 + (unsigned int)__builtin_ctzll(word);
}

unsigned int freemap_next_free(const struct freemap *map, unsigned int from)
{
	return next_bit(map, from, UINT64_MAX);
}

unsigned int freemap_next_used(const struct freemap *map, unsigned int from)
{
	return next_bit(map, from, 0);
}

struct freerun freemap_run_at(const struct freemap *map, unsigned int start,
			      unsigned int want)
{
	unsigned int nr = freemap_next_used(map, start) - start;

	return (struct freerun){ start, nr < want ? nr : want };
}

/* The first run of @want bits in [from, CHUNK_BLOCKS), or the longest. */
static struct freerun best_run(const struct freemap *map, unsigned int from,
			       unsigned int want)
{
	struct freerun best = { 0, 0 };

	while (best.nr < want) {
		struct freerun run;

		from = freemap_next_free(map, from);
		if (from >= CHUNK_BLOCKS)
			break;
		run = freemap_run_at(map, from, want);
		if (run.nr > best.nr)
			best = run;
		from += run.nr;
	}
	return best;
}

struct freerun freemap_run(const struct freemap *map, unsigned int from,
			   unsigned int want)
{
	struct freerun near, any;

	if (!freemap_used(map, from))
		return freemap_run_at(map, from, want);
	near = best_run(map, from, want);
	if (near.nr == want || from == 0)
		return near;
	any = best_run(map, 0, want);
	return any.nr > near.nr ? any : near;
}
