/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_freemap.c - runs of free bits, against a naive array
 */
#include "alloc/freemap.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define NR ((unsigned int)CHUNK_BLOCKS)

Test(freemap, sets_and_clears_single_bits)
{
	struct freemap map = { { 0 } };

	for (unsigned int i = 0; i < NR; i++) {
		cr_assert(!freemap_used(&map, i));
		freemap_set(&map, i, 1);
		cr_assert(freemap_used(&map, i));
		cr_assert_eq(freemap_nr_used(&map), 1);
		freemap_clear(&map, i);
	}
	cr_assert_eq(freemap_nr_used(&map), 0);
}

Test(freemap, sets_any_range_and_nothing_else)
{
	for (unsigned int start = 0; start <= NR; start += 13) {
		for (unsigned int nr = 0; start + nr <= NR; nr += 7) {
			struct freemap map = { { 0 } };

			freemap_set(&map, start, nr);
			cr_assert_eq(freemap_nr_used(&map), nr);
			cr_assert_eq(freemap_next_used(&map, 0),
				     nr ? start : NR);
			cr_assert_eq(freemap_next_free(&map, start),
				     start + nr);
		}
	}
}

Test(freemap, knows_full_and_empty)
{
	struct freemap map = { { 0 } };

	cr_expect_eq(freemap_next_used(&map, 0), NR);
	cr_expect_eq(freemap_run(&map, 100, NR).nr, NR - 100);
	freemap_set(&map, 0, NR);
	cr_expect_eq(freemap_next_free(&map, 0), NR);
	cr_expect_eq(freemap_next_free(&map, NR), NR);
	cr_expect_eq(freemap_run(&map, 5, 3).nr, 0);
	cr_expect_eq(freemap_run_at(&map, 5, 3).nr, 0);
}

/* What freemap_run() promises, by trying every bit. */
static struct freerun naive_run(const bool *used, unsigned int from,
				unsigned int want)
{
	struct freerun best = { 0, 0 };

	for (unsigned int i = 0; i < 2 * NR && best.nr < want; i++) {
		/* First [from, NR), then all. */
		unsigned int bit = from + i;
		unsigned int nr = 0;

		if (bit >= NR)
			bit -= NR;
		while (nr < want && bit + nr < NR && !used[bit + nr])
			nr++;
		if (nr > best.nr)
			best = (struct freerun){ bit, nr };
		if (i == 0 && nr > 0)
			break; /* @from itself is free: no choice */
	}
	return best;
}

Test(freemap, finds_what_trying_every_bit_finds)
{
	srand(7);
	for (int round = 0; round < 3000; round++) {
		struct freemap map = { { 0 } };
		bool used[NR] = { false };
		unsigned int density = 1u << rand() % 8;
		unsigned int from = (unsigned int)rand() % NR;
		unsigned int want = 1 + (unsigned int)rand() % 40;
		struct freerun run, naive;

		for (unsigned int i = 0; i < NR; i++) {
			used[i] = (unsigned int)rand() % density == 0;
			if (used[i])
				freemap_set(&map, i, 1);
		}
		run = freemap_run(&map, from, want);
		naive = naive_run(used, from, want);
		cr_assert_eq(run.nr, naive.nr, "round %d: %u bits, not %u",
			     round, run.nr, naive.nr);
		if (naive.nr == want)
			cr_assert_eq(run.start, naive.start, "round %d", round);
		for (unsigned int i = 0; i < run.nr; i++)
			cr_assert(!used[run.start + i], "round %d", round);
	}
}
