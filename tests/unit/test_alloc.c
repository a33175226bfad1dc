/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_alloc.c - what alloc/alloc.h promises, sentence by sentence
 *
 * The suite is the function, the name is the sentence.  The model test at the
 * end drives everything at once against arrays that are simple enough to be
 * believed.
 */
#include "alloc/alloc.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* 64 chunks in eight arenas, and a last chunk of 77 blocks. */
#define NR_CHUNKS 64u
#define NR_TAIL	  77u
#define NR_BLOCKS (NR_CHUNKS * CHUNK_BLOCKS + NR_TAIL)
#define RESERVE	  100u

static struct alloc *al;

static void setup_empty(uint64_t nr_blocks, uint64_t nr_reserve)
{
	cr_assert_eq(alloc_create(nr_blocks, nr_reserve, &al), 0);
}

static void setup(void)
{
	setup_empty(NR_BLOCKS, 0);
	alloc_ready(al);
}

static void setup_marking(void)
{
	setup_empty(NR_BLOCKS, 0);
}

static void setup_reserve(void)
{
	setup_empty(NR_BLOCKS, RESERVE);
	alloc_ready(al);
}

static void teardown(void)
{
	alloc_destroy(al);
	al = NULL;
}

static uint64_t nr_free(void)
{
	struct alloc_stat st;

	alloc_stat(al, &st, false);
	return st.nr_free;
}

static uint64_t nr_empty(void)
{
	struct alloc_stat st;

	alloc_stat(al, &st, false);
	return st.nr_empty_chunks;
}

static struct extent take(uint64_t goal, uint64_t want)
{
	struct extent ext = { 0, 0 };

	cr_assert_eq(alloc_take(al, goal, want, BLOCK_DATA, 0, &ext), 0);
	cr_assert(ext.nr >= 1 && ext.nr <= want);
	return ext;
}

/* Take exactly [start, start + nr). */
static void take_at(uint64_t start, uint64_t nr)
{
	while (nr > 0) {
		struct extent ext;

		alloc_take_at(al, start, nr, BLOCK_DATA, 0, &ext);
		cr_assert_eq(ext.start, start);
		cr_assert_gt(ext.nr, 0, "block %ju is in use",
			     (uintmax_t)start);
		start += ext.nr;
		nr -= ext.nr;
	}
}

static bool is_free(uint64_t block)
{
	struct extent ext;

	alloc_take_at(al, block, 1, BLOCK_DATA, ALLOC_EMERGENCY, &ext);
	if (ext.nr == 0)
		return false;
	cr_assert(alloc_put(al, block, 0));
	alloc_free(al, block, 0);
	return true;
}

static void give_back(uint64_t start, uint64_t nr)
{
	for (uint64_t block = start; block < start + nr; block++) {
		cr_assert(alloc_put(al, block, 0));
		alloc_free(al, block, 0);
	}
}

static uint64_t chunk(unsigned int nr)
{
	return nr * CHUNK_BLOCKS;
}

TestSuite(alloc_create, .timeout = 30);

/* Kilobytes of memory that are really there; statm may lag behind. */
static long resident_kib(void)
{
	FILE *f = fopen("/proc/self/smaps_rollup", "re");
	char line[200];
	long kib = -1;

	cr_assert_not_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Rss: %ld", &kib) == 1)
			break;
	fclose(f);
	cr_assert_geq(kib, 0);
	return kib;
}

Test(alloc_create, a_device_of_one_block_has_one_block)
{
	struct extent ext;

	setup_empty(1, 0);
	alloc_ready(al);
	cr_expect_eq(nr_free(), 1);
	cr_expect_eq(take(0, 9).start, 0);
	cr_expect_eq(alloc_take(al, 0, 1, BLOCK_DATA, 0, &ext), -ENOSPC);
	teardown();
}

Test(alloc_create, a_device_smaller_than_a_chunk_is_usable_to_the_last_block)
{
	bool seen[16] = { false };

	setup_empty(16, 0);
	alloc_ready(al);
	cr_expect_eq(nr_empty(), 0);
	for (int i = 0; i < 16; i++) {
		struct extent ext = take(0, 1);

		cr_assert_lt(ext.start, 16);
		cr_assert(!seen[ext.start]);
		seen[ext.start] = true;
	}
	cr_expect_eq(nr_free(), 0);
	teardown();
}

Test(alloc_create, works_at_every_size_near_a_chunk_boundary)
{
	for (uint64_t nr = 500; nr < 1100; nr++) {
		struct extent ext;
		uint64_t sum = 0;

		setup_empty(nr, 0);
		alloc_ready(al);
		cr_assert_eq(nr_empty(), nr / CHUNK_BLOCKS);
		while (alloc_take(al, 0, nr, BLOCK_DATA, 0, &ext) == 0) {
			cr_assert_leq(ext.start + ext.nr, nr);
			sum += ext.nr;
		}
		cr_assert_eq(sum, nr);
		teardown();
	}
}

Test(alloc_create, tables_of_one_tebibyte_cost_nothing_untouched)
{
	const uint64_t nr_blocks = UINT64_C(1) << (40 - BLOCK_SHIFT);
	long before = resident_kib();

	setup_empty(nr_blocks, 0);
	cr_assert_eq(alloc_mark(al, 0, 0, BLOCK_STATIC), 0);
	cr_assert_eq(alloc_mark(al, nr_blocks - 1, 0, BLOCK_STATIC), 0);
	alloc_ready(al);
	cr_expect_eq(nr_free(), nr_blocks - 2);
	take(nr_blocks / 2, 100);
	cr_expect_lt(resident_kib() - before, 1024);
	teardown();
}

Test(alloc_create, tables_cost_under_fifteen_hundredths_of_a_percent)
{
	const uint64_t bytes = UINT64_C(4) << 30;
	long before = resident_kib();
	struct extent ext;

	setup_empty(bytes >> BLOCK_SHIFT, 0);
	alloc_ready(al);
	while (alloc_take(al, 0, CHUNK_BLOCKS, BLOCK_DATA, 0, &ext) == 0)
		;
	cr_expect_eq(nr_free(), 0);
	cr_expect_lt(resident_kib() - before,
		     (long)(bytes / 1024 * 15 / 10000));
	teardown();
}

Test(alloc_create, a_device_too_large_for_the_tables_is_refused)
{
	struct alloc *ret = (struct alloc *)&al;

	cr_expect_eq(alloc_create(UINT64_C(1) << 50, 0, &ret), -ENOMEM);
	cr_expect_eq(ret, (struct alloc *)&al);
}

Test(alloc_create, nothing_can_be_taken_before_ready)
{
	struct extent ext;

	setup_marking();
	cr_expect_eq(alloc_take(al, 0, 1, BLOCK_DATA, 0, &ext), -ENOSPC);
	teardown();
}

Test(alloc_create, destroy_accepts_null)
{
	alloc_destroy(NULL);
}

TestSuite(alloc_mark, .init = setup_marking, .fini = teardown, .timeout = 60);

Test(alloc_mark, returns_the_share_count_before)
{
	for (int i = 0; i < 5; i++)
		cr_expect_eq(alloc_mark(al, 700, 0, BLOCK_NODE2), i);
	for (int i = 0; i < 5; i++)
		cr_expect_eq(alloc_mark(al, chunk(3), CHUNK_ORDER, BLOCK_DATA),
			     i);
	cr_expect_eq(alloc_share(al, 700), 5);
	cr_expect_eq(alloc_kind(al, 700), BLOCK_NODE2);
	cr_expect_eq(alloc_share(al, chunk(3) + 9), 5);
	cr_expect_eq(alloc_kind(al, chunk(3) + 9), BLOCK_DATA);
}

Test(alloc_mark, refuses_what_is_outside_the_device)
{
	static const struct {
		uint64_t block;
		unsigned int order;
	} bad[] = {
		{ NR_BLOCKS, 0 },
		{ UINT64_MAX, 0 },
		{ NR_CHUNKS * CHUNK_BLOCKS, CHUNK_ORDER }, /* partial */
		{ (NR_CHUNKS + 1) * CHUNK_BLOCKS, CHUNK_ORDER },
		{ UINT64_MAX - 511, CHUNK_ORDER },
		{ 1, CHUNK_ORDER },
		{ 511, CHUNK_ORDER },
		{ 0, 1 },
	};

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_eq(
			alloc_mark(al, bad[i].block, bad[i].order, BLOCK_DATA),
			-ERANGE, "case %u", i);
	cr_expect_eq(alloc_mark(al, NR_BLOCKS - 1, 0, BLOCK_DATA), 0);
	alloc_ready(al);
	cr_expect_eq(nr_free(), NR_BLOCKS - 1);
}

Test(alloc_mark, refuses_another_kind_and_changes_nothing)
{
	cr_assert_eq(alloc_mark(al, 5, 0, BLOCK_NODE1), 0);
	for (unsigned int kind = BLOCK_STATIC; kind < NR_BLOCK_KINDS; kind++)
		if (kind != BLOCK_NODE1)
			cr_expect_eq(
				alloc_mark(al, 5, 0, (enum block_kind)kind),
				-EUCLEAN, "kind %u", kind);
	cr_expect_eq(alloc_share(al, 5), 1);
	cr_expect_eq(alloc_kind(al, 5), BLOCK_NODE1);
}

Test(alloc_mark, a_chunk_must_not_hold_metadata)
{
	static const unsigned int at[] = { 0, 1, 300, 511 };

	for (unsigned int i = 0; i < 4; i++) {
		uint64_t start = chunk(i);

		cr_assert_eq(alloc_mark(al, start + at[i], 0, BLOCK_DIR), 0);
		cr_expect_eq(alloc_mark(al, start, CHUNK_ORDER, BLOCK_DATA),
			     -EUCLEAN, "metadata at %u", at[i]);
		cr_expect_eq(alloc_share(al, start + 200), 0);
	}
	/* The neighbours do not count. */
	cr_expect_eq(alloc_mark(al, chunk(4), CHUNK_ORDER, BLOCK_DATA), 0);
	alloc_ready(al);
	cr_expect_eq(nr_free(), NR_BLOCKS - 4 - CHUNK_BLOCKS);
}

Test(alloc_mark, metadata_must_not_be_in_a_chunk)
{
	cr_assert_eq(alloc_mark(al, chunk(1), CHUNK_ORDER, BLOCK_DATA), 0);
	cr_expect_eq(alloc_mark(al, chunk(1) + 17, 0, BLOCK_NODE1), -EUCLEAN);
	cr_expect_eq(alloc_share(al, chunk(1) + 17), 1);
	cr_expect_eq(alloc_kind(al, chunk(1) + 17), BLOCK_DATA);
	cr_expect_eq(alloc_mark(al, chunk(2), 0, BLOCK_NODE1), 0);
}

Test(alloc_mark, a_block_may_be_data_of_both_sizes)
{
	cr_expect_eq(alloc_mark(al, chunk(1) + 3, 0, BLOCK_DATA), 0);
	cr_expect_eq(alloc_mark(al, chunk(1), CHUNK_ORDER, BLOCK_DATA), 0);
	cr_expect_eq(alloc_mark(al, chunk(1) + 4, 0, BLOCK_DATA), 0);
	cr_expect_eq(alloc_share(al, chunk(1) + 3), 2);
	cr_expect_eq(alloc_share(al, chunk(1) + 5), 1);
	cr_expect_eq(alloc_share_chunk(al, chunk(1)), 2);
	alloc_ready(al);
	cr_expect_eq(nr_free(), NR_BLOCKS - CHUNK_BLOCKS);
}

Test(alloc_mark, the_second_visitor_of_a_chunk_looks_as_well)
{
	/* Not on any clean image: the walk goes on after a conflict. */
	cr_assert_eq(alloc_mark(al, chunk(1) + 17, 0, BLOCK_NODE1), 0);
	cr_expect_eq(alloc_mark(al, chunk(1), CHUNK_ORDER, BLOCK_DATA),
		     -EUCLEAN);
	cr_expect_eq(alloc_mark(al, chunk(1), CHUNK_ORDER, BLOCK_DATA),
		     -EUCLEAN);
}

Test(alloc_mark, stops_at_the_highest_share_count)
{
	for (uint32_t i = 0; i < ALLOC_SHARE_MAX; i++)
		if (alloc_mark(al, 9, 0, BLOCK_DATA) != i)
			cr_assert_fail("mark number %u", i);
	cr_expect_eq(alloc_mark(al, 9, 0, BLOCK_DATA), -EMLINK);
	cr_expect_eq(alloc_mark(al, 9, 0, BLOCK_NODE1), -EUCLEAN);
	cr_expect_eq(alloc_share(al, 9), ALLOC_SHARE_MAX);
	cr_expect_eq(alloc_kind(al, 9), BLOCK_DATA);

	alloc_ready(al);
	cr_expect_eq(alloc_get(al, 9, 0), -EMLINK);
	cr_expect_eq(alloc_share(al, 9), ALLOC_SHARE_MAX);
	cr_expect(!alloc_put(al, 9, 0));
	cr_expect_eq(alloc_get(al, 9, 0), 0);
	cr_expect_eq(alloc_get(al, 9, 0), -EMLINK);
}

Test(alloc_mark, unmark_takes_back_one_mark)
{
	alloc_mark(al, 5, 0, BLOCK_NODE1);
	alloc_mark(al, 5, 0, BLOCK_NODE1);
	alloc_mark(al, chunk(2), CHUNK_ORDER, BLOCK_DATA);
	alloc_mark(al, chunk(3), CHUNK_ORDER, BLOCK_DATA);
	alloc_mark(al, chunk(3) + 1, 0, BLOCK_DATA);
	alloc_unmark(al, 5, 0);
	cr_expect_eq(alloc_share(al, 5), 1);
	alloc_unmark(al, 5, 0);
	cr_expect_eq(alloc_kind(al, 5), BLOCK_NONE);
	cr_expect_eq(alloc_mark(al, 5, 0, BLOCK_DIR), 0);
	alloc_unmark(al, chunk(2), CHUNK_ORDER);
	alloc_unmark(al, chunk(3), CHUNK_ORDER);

	alloc_ready(al);
	cr_expect_eq(nr_free(), NR_BLOCKS - 2);
	cr_expect_eq(nr_empty(), NR_CHUNKS - 2);
	cr_expect(!is_free(chunk(3) + 1));
	cr_expect(!is_free(5));
}

static void *mark_all(void *arg)
{
	(void)arg;
	for (uint64_t block = 0; block < NR_BLOCKS; block += 3)
		if (alloc_mark(al, block, 0, BLOCK_DATA) < 0)
			return &al;
	return NULL;
}

Test(alloc_mark, several_threads_may_walk_at_once)
{
	pthread_t thread[4];
	void *failed;

	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, mark_all, NULL),
			     0);
	for (int i = 0; i < 4; i++) {
		pthread_join(thread[i], &failed);
		cr_expect_null(failed);
	}
	for (uint64_t block = 0; block < NR_BLOCKS; block++)
		cr_assert_eq(alloc_share(al, block), block % 3 ? 0 : 4);
	alloc_ready(al);
	cr_expect_eq(nr_free(), NR_BLOCKS - (NR_BLOCKS + 2) / 3);
}

Test(alloc_mark, ready_frees_what_no_slot_points_to)
{
	alloc_mark(al, 0, 0, BLOCK_STATIC);
	alloc_mark(al, chunk(7), CHUNK_ORDER, BLOCK_DATA);
	alloc_mark(al, NR_BLOCKS - 1, 0, BLOCK_BAD);
	alloc_ready(al);
	cr_expect_eq(nr_free(), NR_BLOCKS - 2 - CHUNK_BLOCKS);
	cr_expect_eq(nr_empty(), NR_CHUNKS - 2);
	for (uint64_t block = 0; block < NR_BLOCKS; block++)
		cr_assert_eq(is_free(block),
			     block != 0 && block != NR_BLOCKS - 1 &&
				     block / CHUNK_BLOCKS != 7,
			     "block %ju", (uintmax_t)block);
}

TestSuite(alloc_take, .init = setup, .fini = teardown, .timeout = 30);

Test(alloc_take, gives_blocks_of_share_one_and_the_kind)
{
	struct extent ext;

	cr_assert_eq(alloc_take(al, 0, 3, BLOCK_NODE3, 0, &ext), 0);
	for (uint64_t i = 0; i < ext.nr; i++) {
		cr_expect_eq(alloc_share(al, ext.start + i), 1);
		cr_expect_eq(alloc_kind(al, ext.start + i), BLOCK_NODE3);
	}
	cr_expect_eq(nr_free(), NR_BLOCKS - ext.nr);
}

Test(alloc_take, starts_at_a_free_goal)
{
	struct extent ext = take(chunk(40) + 100, 10);

	cr_expect_eq(ext.start, chunk(40) + 100);
	cr_expect_eq(ext.nr, 10);
	/* Even where a longer run is elsewhere in the chunk. */
	ext = take(chunk(40) + 98, 10);
	cr_expect_eq(ext.start, chunk(40) + 98);
	cr_expect_eq(ext.nr, 2);
}

Test(alloc_take, a_goal_in_use_gives_the_next_long_run_of_its_chunk)
{
	struct extent ext;

	take_at(chunk(40) + 100, 10);
	take_at(chunk(40) + 115, 10);
	ext = take(chunk(40) + 105, 10);
	cr_expect_eq(ext.start, chunk(40) + 125);
	cr_expect_eq(ext.nr, 10);
	/* And what lies before it when nothing is left behind it. */
	take_at(chunk(40) + 135, CHUNK_BLOCKS - 135);
	ext = take(chunk(40) + 300, 50);
	cr_expect_eq(ext.start, chunk(40));
	cr_expect_eq(ext.nr, 50);
}

Test(alloc_take, any_goal_is_safe)
{
	static const uint64_t goals[] = {
		0,
		1,
		NR_BLOCKS - 1,
		NR_BLOCKS,
		NR_BLOCKS + CHUNK_BLOCKS,
		UINT64_MAX,
		UINT64_MAX - 511,
		UINT64_C(1) << 63,
	};

	for (unsigned int i = 0; i < sizeof(goals) / sizeof(goals[0]); i++) {
		struct extent ext = take(goals[i], UINT64_MAX);

		cr_expect_leq(ext.start + ext.nr, NR_BLOCKS);
	}
}

Test(alloc_take, a_run_never_crosses_a_chunk)
{
	struct extent ext;

	while (alloc_take(al, chunk(9) + 400, UINT64_MAX, BLOCK_DATA, 0,
			  &ext) == 0)
		cr_assert_eq(ext.start / CHUNK_BLOCKS,
			     (ext.start + ext.nr - 1) / CHUNK_BLOCKS);
	cr_expect_eq(nr_free(), 0);
}

Test(alloc_take, gives_every_block_once_before_it_says_enospc)
{
	static bool seen[NR_BLOCKS];
	struct extent ext = { 0, 0 };

	for (uint64_t i = 0; i < NR_BLOCKS; i += ext.nr) {
		ext = take(0, 1 + i % 5);
		for (uint64_t k = 0; k < ext.nr; k++) {
			cr_assert(!seen[ext.start + k]);
			seen[ext.start + k] = true;
		}
	}
	ext = (struct extent){ 7, 7 };
	cr_expect_eq(alloc_take(al, 0, 1, BLOCK_DATA, 0, &ext), -ENOSPC);
	cr_expect_eq(alloc_take(al, 900, 1, BLOCK_DATA, ALLOC_EMERGENCY, &ext),
		     -ENOSPC);
	cr_expect_eq(ext.start, 7);
	cr_expect_eq(ext.nr, 7);
}

/* Everything in use, with the last block of each chunk but three free. */
static void fill_with_holes(unsigned int *nr_holes)
{
	*nr_holes = 0;
	for (unsigned int i = 0; i < NR_CHUNKS; i++) {
		if (i == 5 || i == 20 || i == 63)
			continue;
		take_at(chunk(i), CHUNK_BLOCKS - 1);
		++*nr_holes;
	}
	take_at(chunk(NR_CHUNKS), NR_TAIL);
}

Test(alloc_take, holes_anywhere_are_used_before_an_empty_chunk_is_broken)
{
	unsigned int nr_holes;

	fill_with_holes(&nr_holes);
	for (unsigned int i = 0; i < nr_holes; i++) {
		take(i % 2 ? 0 : chunk(20) - 1, 1 + i % 4);
		cr_assert_eq(nr_empty(), 3, "hole %u", i);
	}
	take(0, 1);
	cr_expect_eq(nr_empty(), 2);
}

Test(alloc_take, a_partly_used_chunk_with_enough_room_comes_first)
{
	unsigned int nr_holes;
	struct extent ext;

	fill_with_holes(&nr_holes);
	take_at(chunk(5), CHUNK_BLOCKS - 20); /* beside chunks with one hole */
	take(chunk(4), 1);		      /* now chunk 4 is full */
	ext = take(chunk(4), 16);
	cr_expect_eq(ext.start, chunk(5) + CHUNK_BLOCKS - 20);
	cr_expect_eq(ext.nr, 16);
	/* A small one goes to the fullest. */
	cr_expect_neq(take(chunk(4), 1).start / CHUNK_BLOCKS, 5);
}

Test(alloc_take, a_roomy_arena_does_not_look_for_holes_in_others)
{
	struct extent ext;

	take_at(chunk(63), 1);
	ext = take(1, CHUNK_BLOCKS);
	cr_expect_eq(ext.start, 1);
	cr_expect_eq(take(1, 1).start, 0);
	cr_expect_neq(take(1, 1).start / CHUNK_BLOCKS, 63);
}

Test(alloc_take, follows_a_file_that_grows_by_its_last_block)
{
	uint64_t last = take(chunk(30) + 1, 1).start;

	for (int i = 0; i < 400; i++) {
		struct extent ext = take(last + 1, 1);

		cr_assert_eq(ext.start, last + 1);
		last = ext.start;
	}
}

Test(alloc_take, a_chunk_that_runs_empty_can_be_had_as_a_chunk_again)
{
	uint64_t block;

	take_at(0, NR_BLOCKS);
	cr_expect_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), -ENOSPC);
	give_back(chunk(33), CHUNK_BLOCKS);
	cr_expect_eq(nr_empty(), 1);
	cr_assert_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), 0);
	cr_expect_eq(block, chunk(33));
}

TestSuite(alloc_take_reserve, .init = setup_reserve, .fini = teardown,
	  .timeout = 30);

Test(alloc_take_reserve, only_emergencies_go_below_it)
{
	struct extent ext;

	while (alloc_take(al, 0, 33, BLOCK_DATA, 0, &ext) == 0)
		cr_assert_geq(nr_free(), RESERVE);
	cr_expect_eq(nr_free(), RESERVE);
	alloc_take_at(al, NR_BLOCKS - 1, 1, BLOCK_DATA, 0, &ext);
	cr_expect_eq(ext.nr, 0);
	for (unsigned int i = 0; i < RESERVE; i++)
		cr_assert_eq(alloc_take(al, 0, 1, BLOCK_NODE1, ALLOC_EMERGENCY,
					&ext),
			     0);
	cr_expect_eq(nr_free(), 0);
	cr_expect_eq(alloc_take(al, 0, 1, BLOCK_NODE1, ALLOC_EMERGENCY, &ext),
		     -ENOSPC);
}

Test(alloc_take_reserve, a_short_run_reaches_it_exactly)
{
	struct extent ext;

	take_at(0, NR_BLOCKS - CHUNK_BLOCKS - NR_TAIL);
	ext = take(chunk(63), UINT64_MAX);
	cr_expect_eq(ext.start, chunk(63));
	cr_expect_eq(ext.nr, CHUNK_BLOCKS + NR_TAIL - RESERVE);
	cr_expect_eq(nr_free(), RESERVE);
}

Test(alloc_take_reserve, is_filled_up_first_when_blocks_come_back)
{
	struct extent ext;

	while (alloc_take(al, 0, 512, BLOCK_DATA, ALLOC_EMERGENCY, &ext) == 0)
		;
	give_back(1000, RESERVE);
	cr_expect_eq(alloc_take(al, 0, 1, BLOCK_DATA, 0, &ext), -ENOSPC);
	give_back(3000, 1);
	cr_expect_eq(alloc_take(al, 0, 9, BLOCK_DATA, 0, &ext), 0);
	cr_expect_eq(ext.nr, 1);
}

Test(alloc_take_reserve, holds_for_chunks)
{
	struct alloc_stat st;
	uint64_t block = 7;

	for (unsigned int i = 0; i < NR_CHUNKS - 1; i++)
		cr_assert_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), 0);
	block = 7;
	cr_expect_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), -ENOSPC);
	cr_expect_eq(block, 7);
	alloc_stat(al, &st, false);
	cr_expect_eq(st.nr_empty_chunks, 1);
	cr_expect_eq(st.nr_reserve, RESERVE);
	cr_expect_eq(
		alloc_take_chunk(al, 0, BLOCK_DATA, ALLOC_EMERGENCY, &block),
		0);
	alloc_stat(al, &st, false);
	cr_expect_eq(st.nr_free, NR_TAIL);
	cr_expect_eq(st.nr_reserve, NR_TAIL);
}

TestSuite(alloc_take_at, .init = setup, .fini = teardown, .timeout = 30);

Test(alloc_take_at, takes_exactly_from_start_on)
{
	struct extent ext;

	take_at(2000, 1);
	alloc_take_at(al, 1990, 100, BLOCK_DIR, 0, &ext);
	cr_expect_eq(ext.start, 1990);
	cr_expect_eq(ext.nr, 10);
	cr_expect_eq(alloc_kind(al, 1999), BLOCK_DIR);
	cr_expect_eq(alloc_share(al, 1999), 1);
	alloc_take_at(al, 2000, 100, BLOCK_DIR, 0, &ext);
	cr_expect_eq(ext.nr, 0);
	alloc_take_at(al, chunk(9) - 3, 100, BLOCK_DIR, 0, &ext);
	cr_expect_eq(ext.nr, 3);
}

Test(alloc_take_at, gives_nothing_outside_the_device)
{
	struct extent ext;

	alloc_take_at(al, NR_BLOCKS, 1, BLOCK_DIR, 0, &ext);
	cr_expect_eq(ext.nr, 0);
	alloc_take_at(al, UINT64_MAX, 1, BLOCK_DIR, 0, &ext);
	cr_expect_eq(ext.nr, 0);
	alloc_take_at(al, NR_BLOCKS - 2, 10, BLOCK_DIR, 0, &ext);
	cr_expect_eq(ext.nr, 2);
}

TestSuite(alloc_take_chunk, .init = setup, .fini = teardown, .timeout = 30);

Test(alloc_take_chunk, gives_the_chunk_a_share_and_its_blocks_none)
{
	uint64_t block;

	cr_assert_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), 0);
	cr_expect_eq(block % CHUNK_BLOCKS, 0);
	cr_expect_eq(alloc_share_chunk(al, block), 1);
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++) {
		cr_expect_eq(alloc_share(al, block + i), 1);
		cr_expect_eq(alloc_kind(al, block + i), BLOCK_DATA);
		cr_expect(!is_free(block + i));
	}
	cr_expect_eq(nr_free(), NR_BLOCKS - CHUNK_BLOCKS);
	cr_expect(alloc_put(al, block, CHUNK_ORDER));
	alloc_free(al, block, CHUNK_ORDER);
	cr_expect_eq(nr_free(), NR_BLOCKS);
}

Test(alloc_take_chunk, takes_the_next_empty_one_after_the_goal)
{
	uint64_t block;

	take_at(chunk(12) + 5, 1);
	cr_assert_eq(alloc_take_chunk(al, chunk(12), BLOCK_DATA, 0, &block), 0);
	cr_expect_eq(block, chunk(13));
}

Test(alloc_take_chunk, takes_all_empty_chunks_and_no_other)
{
	static bool seen[NR_CHUNKS];
	uint64_t block = 7;

	take_at(chunk(12) + 5, 1);
	for (unsigned int i = 0; i < NR_CHUNKS - 1; i++) {
		cr_assert_eq(
			alloc_take_chunk(al, UINT64_MAX, BLOCK_DATA, 0, &block),
			0);
		cr_assert(block / CHUNK_BLOCKS < NR_CHUNKS);
		cr_assert(!seen[block / CHUNK_BLOCKS]);
		seen[block / CHUNK_BLOCKS] = true;
	}
	block = 7;
	cr_expect_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), -ENOSPC);
	cr_expect_eq(block, 7);
	cr_expect_eq(nr_free(), CHUNK_BLOCKS - 1 + NR_TAIL);
}

Test(alloc_take_chunk, finds_what_came_back_in_a_large_arena)
{
	const uint64_t nr_chunks = 8 * 256;
	uint64_t block;

	teardown();
	setup_empty(nr_chunks * CHUNK_BLOCKS, 0);
	alloc_ready(al);
	for (uint64_t i = 0; i < nr_chunks; i++)
		cr_assert_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), 0);
	for (unsigned int nr = 7; nr < nr_chunks; nr += 101) {
		cr_assert(alloc_put(al, chunk(nr), CHUNK_ORDER));
		alloc_free(al, chunk(nr), CHUNK_ORDER);
		cr_assert_eq(alloc_take_chunk(al, nr % 2 ? 0 : chunk(nr + 1),
					      BLOCK_DATA, 0, &block),
			     0);
		cr_assert_eq(block, chunk(nr));
	}
}

TestSuite(alloc_aside, .init = setup, .fini = teardown, .timeout = 30);

static uint64_t aside(uint64_t goal)
{
	uint64_t block;

	cr_assert_eq(alloc_aside(al, goal, &block), 0);
	return block;
}

Test(alloc_aside, sets_an_empty_chunk_aside)
{
	struct alloc_stat st;
	uint64_t block = aside(chunk(17));

	cr_expect_eq(block, chunk(17));
	alloc_stat(al, &st, false);
	cr_expect_eq(st.nr_aside, 1);
	cr_expect_eq(st.nr_empty_chunks, NR_CHUNKS - 1);
	cr_expect_eq(st.nr_free, NR_BLOCKS);
	alloc_aside_end(al, block);
	alloc_stat(al, &st, false);
	cr_expect_eq(st.nr_aside, 0);
	cr_expect_eq(st.nr_empty_chunks, NR_CHUNKS);
}

Test(alloc_aside, the_owner_takes_from_it_by_goal)
{
	uint64_t block = aside(chunk(3));
	uint64_t other = block + CHUNK_BLOCKS;

	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++) {
		cr_assert_eq(take(block + i, 1).start, block + i);
		/* Somebody else grows at the same time, beside it. */
		cr_assert_neq(take(other + i, 1).start / CHUNK_BLOCKS,
			      block / CHUNK_BLOCKS);
	}
}

Test(alloc_aside, others_take_from_it_only_when_nothing_else_is_left)
{
	uint64_t block = aside(chunk(20));
	uint64_t got = 0;

	take_at(block, 7);
	while (got < NR_BLOCKS - CHUNK_BLOCKS) {
		struct extent ext = take(got % 2 ? 0 : chunk(20) - 1, 50);

		cr_assert_neq(ext.start / CHUNK_BLOCKS, 20);
		got += ext.nr;
	}
	cr_expect_eq(take(0, 1).start, block + 7);
	cr_expect_eq(nr_free(), CHUNK_BLOCKS - 8);
}

Test(alloc_aside, is_never_taken_as_a_chunk_or_set_aside_again)
{
	uint64_t block;

	for (unsigned int i = 0; i < NR_CHUNKS; i++)
		aside(0);
	cr_expect_eq(alloc_aside(al, 0, &block), -ENOSPC);
	cr_expect_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), -ENOSPC);
	/* Also not when its blocks were used and came back. */
	take_at(chunk(3), 5);
	give_back(chunk(3), 5);
	cr_expect_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), -ENOSPC);
	alloc_aside_end(al, chunk(3));
	cr_expect_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), 0);
	cr_expect_eq(block, chunk(3));
}

Test(alloc_aside, ending_makes_its_free_blocks_anybodys)
{
	uint64_t block = aside(0);

	take_at(block, CHUNK_BLOCKS - 1);
	take_at(block + CHUNK_BLOCKS, NR_BLOCKS - CHUNK_BLOCKS - NR_TAIL);
	cr_expect_geq(take(0, 1).start, chunk(NR_CHUNKS));
	alloc_aside_end(al, block);
	alloc_aside_end(al, block); /* harmless */
	cr_expect_eq(take(0, 1).start, block + CHUNK_BLOCKS - 1);
}

Test(alloc_aside, a_full_one_can_be_ended)
{
	uint64_t block = aside(0);

	take_at(block, CHUNK_BLOCKS);
	alloc_aside_end(al, block);
	give_back(block + 9, 1);
	cr_expect_eq(take(block, 1).start, block + 9);
}

TestSuite(alloc_get, .init = setup, .fini = teardown, .timeout = 30);

Test(alloc_get, counts_and_put_says_which_was_the_last)
{
	uint64_t block = take(0, 1).start;

	cr_expect_eq(alloc_get(al, block, 0), 0);
	cr_expect_eq(alloc_share(al, block), 2);
	cr_expect(!alloc_put(al, block, 0));
	cr_expect(alloc_put(al, block, 0));
	cr_expect_eq(alloc_share(al, block), 0);
	cr_expect(!is_free(block));
	cr_expect_eq(alloc_kind(al, block), BLOCK_DATA);
	alloc_free(al, block, 0);
	cr_expect(is_free(block));
	cr_expect_eq(alloc_kind(al, block), BLOCK_NONE);
}

Test(alloc_get, refuses_what_is_free_or_outside)
{
	cr_expect_eq(alloc_get(al, 4, 0), -EUCLEAN);
	cr_expect_eq(alloc_get(al, chunk(4), CHUNK_ORDER), -EUCLEAN);
	cr_expect_eq(alloc_get(al, NR_BLOCKS, 0), -ERANGE);
	cr_expect_eq(alloc_get(al, chunk(NR_CHUNKS), CHUNK_ORDER), -ERANGE);
	cr_expect_eq(alloc_get(al, 3, CHUNK_ORDER), -ERANGE);
	cr_expect_eq(alloc_share(al, 4), 0);
}

Test(alloc_get, a_block_found_again_between_put_and_free_stays)
{
	uint64_t block = take(0, 1).start;

	cr_assert(alloc_put(al, block, 0));
	cr_assert_eq(alloc_get(al, block, 0), 0);
	alloc_free(al, block, 0);
	cr_expect(!is_free(block));
	cr_expect_eq(alloc_share(al, block), 1);
	cr_expect_eq(alloc_kind(al, block), BLOCK_DATA);
}

Test(alloc_get, only_the_last_missing_free_releases)
{
	uint64_t block = take(0, 1).start;

	for (int i = 0; i < 3; i++) {
		if (i > 0)
			cr_assert_eq(alloc_get(al, block, 0), 0);
		cr_assert(alloc_put(al, block, 0));
	}
	/* Three owners are leaving; a fourth is not let in. */
	cr_expect_eq(alloc_get(al, block, 0), -EMLINK);
	alloc_free(al, block, 0);
	cr_expect(!is_free(block));
	alloc_free(al, block, 0);
	cr_expect(!is_free(block));
	cr_expect_eq(alloc_get(al, block, 0), 0);
	alloc_free(al, block, 0);
	cr_expect(!is_free(block));
	cr_expect(alloc_put(al, block, 0));
	alloc_free(al, block, 0);
	cr_expect(is_free(block));
}

/*
 * Criterion's own .signal leaks, which LeakSanitizer then blames on the test
 * program.
 */
static bool aborts(void (*bug)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		dup2(null, STDERR_FILENO);
		bug();
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void put_what_is_free(void)
{
	alloc_put(al, 9, 0);
}

static void free_what_was_not_put(void)
{
	struct extent ext;

	if (alloc_take(al, 0, 1, BLOCK_DATA, 0, &ext) == 0)
		alloc_free(al, ext.start, 0);
}

Test(alloc_get, putting_what_has_no_slot_is_a_bug)
{
	cr_expect(aborts(put_what_is_free));
}

Test(alloc_get, freeing_what_was_not_put_is_a_bug)
{
	cr_expect(aborts(free_what_was_not_put));
}

TestSuite(alloc_split, .init = setup, .fini = teardown, .timeout = 30);

static uint64_t take_chunk(void)
{
	uint64_t block;

	cr_assert_eq(alloc_take_chunk(al, 0, BLOCK_DATA, 0, &block), 0);
	return block;
}

static void get_small(uint64_t start)
{
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
		cr_assert_eq(alloc_get(al, start + i, 0), 0);
}

Test(alloc_split, leaves_512_small_slots_and_frees_nothing)
{
	uint64_t start = take_chunk();

	get_small(start);
	cr_expect_eq(alloc_share(al, start + 5), 2);
	cr_assert(alloc_put(al, start, CHUNK_ORDER));
	alloc_free(al, start, CHUNK_ORDER);
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++) {
		cr_expect_eq(alloc_share(al, start + i), 1);
		cr_expect_eq(alloc_kind(al, start + i), BLOCK_DATA);
		cr_expect(!is_free(start + i));
	}
	give_back(start, CHUNK_BLOCKS);
	cr_expect_eq(nr_free(), NR_BLOCKS);
	cr_expect_eq(nr_empty(), NR_CHUNKS);
}

Test(alloc_split, frees_the_blocks_that_got_no_small_slot)
{
	uint64_t start = take_chunk();

	for (uint64_t i = 0; i < CHUNK_BLOCKS; i += 2)
		cr_assert_eq(alloc_get(al, start + i, 0), 0);
	cr_assert(alloc_put(al, start, CHUNK_ORDER));
	alloc_free(al, start, CHUNK_ORDER);
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
		cr_expect_eq(is_free(start + i), i % 2 == 1);
	cr_expect_eq(nr_free(), NR_BLOCKS - CHUNK_BLOCKS / 2);
}

Test(alloc_split, a_shared_chunk_stays_whole_for_the_other_owner)
{
	uint64_t start = take_chunk();

	cr_assert_eq(alloc_get(al, start, CHUNK_ORDER), 0);
	cr_expect_eq(alloc_share(al, start + 1), 2);
	get_small(start);
	cr_expect_eq(alloc_share(al, start + 1), 3);
	cr_expect_eq(alloc_share_chunk(al, start), 3);
	cr_expect(!alloc_put(al, start, CHUNK_ORDER));
	cr_expect_eq(alloc_share(al, start + 1), 2);
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++) {
		cr_assert(alloc_put(al, start + i, 0));
		alloc_free(al, start + i, 0);
		cr_assert_eq(alloc_share(al, start + i), 1);
	}
	cr_expect_eq(nr_free(), NR_BLOCKS - CHUNK_BLOCKS);
	cr_expect_eq(alloc_share_chunk(al, start), 1);
}

Test(alloc_split, merging_gives_the_chunk_to_one_slot)
{
	uint64_t start = chunk(8);

	take_at(start, CHUNK_BLOCKS);
	cr_assert_eq(alloc_get(al, start, CHUNK_ORDER), 0);
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
		cr_assert(alloc_put(al, start + i, 0));
	for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
		alloc_free(al, start + i, 0);
	cr_expect_eq(alloc_share_chunk(al, start), 1);
	cr_expect_eq(alloc_kind(al, start + 77), BLOCK_DATA);
	cr_expect_eq(nr_free(), NR_BLOCKS - CHUNK_BLOCKS);
	cr_expect(alloc_put(al, start, CHUNK_ORDER));
	cr_expect(!is_free(start));
	alloc_free(al, start, CHUNK_ORDER);
	cr_expect_eq(nr_free(), NR_BLOCKS);
}

Test(alloc_split, share_of_a_chunk_is_its_own_and_the_highest_small_one)
{
	uint64_t start = take_chunk();

	for (int i = 0; i < 3; i++)
		cr_assert_eq(alloc_get(al, start + 100, 0), 0);
	cr_assert_eq(alloc_get(al, start + 511, 0), 0);
	cr_expect_eq(alloc_share_chunk(al, start), 4);
	cr_expect_eq(alloc_share(al, start + 100), 4);
	cr_expect_eq(alloc_share(al, start + 511), 2);
	cr_expect_eq(alloc_share(al, start + 50), 1);
}

/*
 * A block with a small slot and a 2 MiB slot loses both.  In whatever order
 * the two puts and the two frees come, it is available after the last of them
 * and not before.
 */
Test(alloc_split, a_block_of_both_sizes_is_free_after_the_last_free)
{
	static const char *const orders[] = {
		"bBcC", "bcBC", "bcCB", "cbBC", "cbCB", "cCbB",
	};

	for (unsigned int i = 0; i < 6; i++) {
		uint64_t start = take_chunk();

		cr_assert_eq(alloc_get(al, start + 9, 0), 0);
		for (const char *step = orders[i]; *step; step++) {
			cr_assert(!is_free(start + 9), "%s before %c",
				  orders[i], *step);
			if (*step == 'b')
				cr_assert(alloc_put(al, start + 9, 0));
			else if (*step == 'c')
				cr_assert(alloc_put(al, start, CHUNK_ORDER));
			else if (*step == 'B')
				alloc_free(al, start + 9, 0);
			else
				alloc_free(al, start, CHUNK_ORDER);
		}
		cr_assert(is_free(start + 9), "%s", orders[i]);
		cr_assert_eq(nr_free(), NR_BLOCKS, "%s", orders[i]);
	}
}

/*
 * Two small owners after each other, the second one through a split of the
 * chunk: the first one's free comes late, after the second one's put.
 */
Test(alloc_split, a_late_free_of_an_earlier_owner_releases_nothing)
{
	uint64_t start = take_chunk();

	cr_assert_eq(alloc_get(al, start + 9, 0), 0);
	cr_assert(alloc_put(al, start + 9, 0)); /* first owner leaves */
	cr_assert_eq(alloc_get(al, start + 9, 0), 0);
	cr_assert(alloc_put(al, start, CHUNK_ORDER));
	alloc_free(al, start, CHUNK_ORDER);
	cr_assert(alloc_put(al, start + 9, 0)); /* second owner leaves */
	alloc_free(al, start + 9, 0);
	cr_expect(!is_free(start + 9));
	alloc_free(al, start + 9, 0);
	cr_expect(is_free(start + 9));
}

TestSuite(alloc_stat, .timeout = 30);

Test(alloc_stat, counts_kinds_and_shares)
{
	struct alloc_stat st;
	struct extent ext;
	uint64_t start;
	uint64_t sum = 0;

	setup_reserve();
	cr_assert_eq(alloc_take(al, 0, 3, BLOCK_NODE1, 0, &ext), 0);
	cr_assert_eq(alloc_get(al, ext.start + 1, 0), 0);
	cr_assert_eq(alloc_take(al, 0, 2, BLOCK_DIR, 0, &ext), 0);
	start = take_chunk();
	cr_assert_eq(alloc_get(al, start + 5, 0), 0);
	aside(0);

	alloc_stat(al, &st, true);
	cr_expect_eq(st.nr_blocks, NR_BLOCKS);
	cr_expect_eq(st.nr_free, NR_BLOCKS - CHUNK_BLOCKS - 5);
	cr_expect_eq(st.nr_reserve, RESERVE);
	cr_expect_eq(st.nr_shared, 2);
	cr_expect_eq(st.nr_aside, 1);
	cr_expect_eq(st.nr_kind[BLOCK_NONE], st.nr_free);
	cr_expect_eq(st.nr_kind[BLOCK_NODE1], 3);
	cr_expect_eq(st.nr_kind[BLOCK_DIR], 2);
	cr_expect_eq(st.nr_kind[BLOCK_DATA], CHUNK_BLOCKS);
	for (unsigned int i = 0; i < NR_BLOCK_KINDS; i++)
		sum += st.nr_kind[i];
	cr_expect_eq(sum, NR_BLOCKS);
	teardown();
}

Test(alloc_stat, every_kind_has_a_name_of_its_own)
{
	for (unsigned int i = 0; i < NR_BLOCK_KINDS; i++) {
		const char *name = block_kind_name((enum block_kind)i);

		cr_assert_not_null(name, "kind %u", i);
		for (unsigned int k = 0; k < i; k++)
			cr_expect_str_neq(name,
					  block_kind_name((enum block_kind)k));
	}
	cr_expect_str_eq(block_kind_name((enum block_kind)15), "unknown");
}
