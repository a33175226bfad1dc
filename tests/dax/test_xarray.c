/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_xarray.c - the index: entries, marks, walks, no memory
 */
#include "dax/xarray.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct xarray xa;

static void setup(void)
{
	xa_init(&xa, NULL);
}

static void teardown(void)
{
	xa_destroy(&xa);
}

static void *val(uint64_t v)
{
	return xa_mk_value(v);
}

static void put(uint64_t index, unsigned int order, uint64_t v)
{
	cr_assert_eq(xa_store(&xa, index, order, val(v)), 0);
}

static void mark(uint64_t index, enum xa_mark m)
{
	XA_STATE(xas, &xa, index);

	cr_assert(xas_load(&xas));
	xas_set_mark(&xas, m);
}

static bool marked(uint64_t index, enum xa_mark m)
{
	XA_STATE(xas, &xa, index);

	xas_load(&xas);
	return xas_get_mark(&xas, m);
}

TestSuite(xarray, .init = setup, .fini = teardown, .timeout = 60);

Test(xarray, empty_has_nothing_anywhere)
{
	XA_STATE(xas, &xa, 0);

	cr_expect(xa_empty(&xa));
	cr_expect_null(xa_load(&xa, 0));
	cr_expect_null(xa_load(&xa, UINT64_MAX));
	cr_expect_null(xa_erase(&xa, 12345));
	cr_expect_null(xas_find(&xas, UINT64_MAX));
}

Test(xarray, values_at_both_ends_of_the_index_space)
{
	XA_STATE(xas, &xa, 0);

	put(0, 0, 1);
	put(UINT64_MAX, 0, 2);
	cr_expect_eq(xa_load(&xa, 0), val(1));
	cr_expect_eq(xa_load(&xa, UINT64_MAX), val(2));
	cr_expect_null(xa_load(&xa, 1));
	cr_expect_eq(xas_find(&xas, UINT64_MAX), val(1));
	cr_expect_eq(xas_find(&xas, UINT64_MAX), val(2));
	cr_expect_eq(xas.index, UINT64_MAX);
	xas_pause(&xas);
	cr_expect_null(xas_find(&xas, UINT64_MAX));
	xa_erase(&xa, UINT64_MAX);
	cr_expect_eq(xa_nr_nodes(&xa), 1);
	xa_erase(&xa, 0);
	cr_expect(xa_empty(&xa));
}

Test(xarray, order_9_entry_is_one_entry_at_512_indices)
{
	put(512, 9, 7);
	cr_expect_null(xa_load(&xa, 511));
	for (uint64_t i = 512; i < 1024; i++)
		cr_assert_eq(xa_load(&xa, i), val(7));
	cr_expect_null(xa_load(&xa, 1024));

	put(700, 0, 8);
	cr_expect_eq(xa_load(&xa, 512), val(8));
	cr_expect_eq(xa_load(&xa, 1023), val(8));

	cr_expect_eq(xa_erase(&xa, 900), val(8));
	cr_expect(xa_empty(&xa));
}

Test(xarray, mark_at_any_covered_index_is_the_entrys_mark)
{
	put(512, 9, 7);
	mark(777, XA_MARK_0);
	cr_expect(marked(512, XA_MARK_0));
	cr_expect(marked(1023, XA_MARK_0));
	cr_expect_not(marked(777, XA_MARK_1));
	put(600, 0, 9);
	cr_expect(marked(1000, XA_MARK_0), "replacing keeps marks");
	xa_erase(&xa, 513);
	cr_expect_not(xa_marked(&xa, XA_MARK_0));
	put(512, 9, 7);
	cr_expect_not(marked(777, XA_MARK_0), "storing NULL clears marks");
}

Test(xarray, walk_gives_each_entry_once_and_starts_in_the_middle)
{
	XA_STATE(xas, &xa, 600);
	unsigned int nr = 0;
	void *entry;

	put(511, 0, 1);
	put(512, 9, 2);
	put(1024, 0, 3);
	put(100000, 0, 4);
	xas_for_each(&xas, entry, 99999)
	{
		cr_expect_eq(entry, val(nr + 2));
		nr++;
	}
	cr_expect_eq(nr, 2);
}

Test(xarray, pause_goes_on_after_the_entry_and_reset_goes_to_it_again)
{
	XA_STATE(xas, &xa, 0);

	put(512, 9, 1);
	put(1024, 0, 2);
	cr_expect_eq(xas_find(&xas, 9999), val(1));
	xas_reset(&xas);
	cr_expect_eq(xas_find(&xas, 9999), val(1));
	xas_pause(&xas);
	cr_expect_eq(xas.index, 1024);
	cr_expect_eq(xas_find(&xas, 9999), val(2));
	xas_reset(&xas);
	cr_expect_eq(xas_load(&xas), val(2));
}

Test(xarray, mark_calls_do_nothing_without_a_walked_cursor)
{
	XA_STATE(xas, &xa, 5);

	put(5, 0, 1);
	xas_set_mark(&xas, XA_MARK_0);
	cr_expect_not(marked(5, XA_MARK_0));
	xas_load(&xas);
	xas_set_mark(&xas, XA_MARK_0);
	cr_expect(marked(5, XA_MARK_0));
	xas_pause(&xas);
	xas_clear_mark(&xas, XA_MARK_0);
	cr_expect_not(xas_get_mark(&xas, XA_MARK_0));
	cr_expect(marked(5, XA_MARK_0));
}

Test(xarray, find_conflict_is_the_first_overlap_and_keeps_the_index)
{
	XA_STATE_ORDER(xas, &xa, 1024, 9);
	XA_STATE(one, &xa, 3000);

	put(1023, 0, 1);
	put(1536, 0, 2);
	cr_expect_null(xas_find_conflict(&xas));
	put(1535, 0, 3);
	put(1100, 0, 4);
	cr_expect_eq(xas_find_conflict(&xas), val(4));
	cr_expect_eq(xas_entry_index(&xas), 1100);
	cr_expect_eq(xas_entry_order(&xas), 0);
	cr_expect_eq(xas.index, 1024);
	put(2560, 9, 5);
	cr_expect_eq(xas_find_conflict(&one), val(5));
	cr_expect_eq(xas_entry_order(&one), 9);
	cr_expect_eq(xas_entry_index(&one), 2560);
}

Test(xarray, a_larger_store_replaces_what_was_below_it)
{
	for (uint64_t i = 0; i < 512; i++)
		put(i, 0, i);
	mark(40, XA_MARK_2);
	put(512, 0, 1000);
	put(0, 9, 77);
	cr_expect_eq(xa_load(&xa, 40), val(77));
	cr_expect_eq(xa_load(&xa, 512), val(1000));
	cr_expect_not(xa_marked(&xa, XA_MARK_2));
}

Test(xarray, storing_null_over_a_range_removes_what_overlaps)
{
	XA_STATE_ORDER(xas, &xa, 512, 9);

	put(511, 0, 1);
	put(512, 0, 2);
	put(1023, 0, 3);
	put(1024, 0, 4);
	xas_store(&xas, NULL);
	cr_expect_eq(xa_load(&xa, 511), val(1));
	cr_expect_null(xa_load(&xa, 512));
	cr_expect_null(xa_load(&xa, 1023));
	cr_expect_eq(xa_load(&xa, 1024), val(4));
}

Test(xarray, erasing_while_walking_skips_nobody)
{
	XA_STATE(xas, &xa, 0);
	unsigned int nr = 0;
	void *entry;

	for (uint64_t i = 0; i < 3000; i++)
		put(i * 7, 0, i);
	put(1 << 20, 9, 5000);
	xas_for_each(&xas, entry, UINT64_MAX)
	{
		xas_store(&xas, NULL);
		nr++;
	}
	cr_expect_eq(nr, 3001);
	cr_expect(xa_empty(&xa));
}

/* Lists: what a subtree of few entries is kept in. */

Test(xarray, few_entries_far_apart_cost_one_node)
{
	put(UINT64_C(1) << 29, 0, 3);
	put(5000, 0, 1);
	put(700000, 0, 2);
	cr_expect_eq(xa_nr_nodes(&xa), 1);
	cr_expect_eq(xa_load(&xa, 5000), val(1));
	cr_expect_null(xa_load(&xa, 5001));
	cr_expect_null(xa_load(&xa, (UINT64_C(1) << 30) + 5000));
	xa_erase(&xa, 5000);
	xa_erase(&xa, 700000);
	xa_erase(&xa, UINT64_C(1) << 29);
	cr_expect(xa_empty(&xa));
}

Test(xarray, a_list_grows_with_the_largest_index_and_then_has_heads)
{
	for (unsigned int bit = 8; bit < 64; bit += 5) {
		put(UINT64_C(1) << bit, 0, bit);
		for (unsigned int b = 8; b <= bit; b += 5)
			cr_assert_eq(xa_load(&xa, UINT64_C(1) << b), val(b));
	}
}

Test(xarray, entries_that_come_in_any_order_are_walked_in_order)
{
	for (uint64_t nr = 1; nr <= 200; nr++) {
		XA_STATE(xas, &xa, 0);
		void *entry;
		uint64_t want = 0;

		put((nr * 77 % 211) * 1000, 0, nr * 77 % 211);
		xas_for_each(&xas, entry, UINT64_MAX)
		{
			while (!xa_load(&xa, want * 1000))
				want++;
			cr_assert_eq(entry, val(want));
			cr_assert_eq(xas.index, want * 1000);
			cr_assert_eq(xas_entry_index(&xas), want * 1000);
			cr_assert_eq(xas_entry_order(&xas), 0);
			want++;
		}
	}
}

Test(xarray, a_walk_starts_between_the_entries_of_a_list)
{
	XA_STATE(xas, &xa, 20001);

	for (uint64_t i = 1; i <= 5; i++)
		put(i * 10000, 0, i);
	cr_expect_null(xas_load(&xas));
	cr_expect_eq(xas_find(&xas, 29999), NULL);
	xas_set(&xas, 20001);
	cr_expect_null(xas_load(&xas));
	cr_expect_eq(xas_find(&xas, UINT64_MAX), val(3));
	xas_pause(&xas);
	cr_expect_eq(xas.index, 30001);
	cr_expect_eq(xas_find(&xas, UINT64_MAX), val(4));
	xas_store(&xas, NULL);
	cr_expect_eq(xas_find(&xas, UINT64_MAX), val(5));
	cr_expect_null(xas_find(&xas, UINT64_MAX));
}

Test(xarray, a_cursor_stores_erases_and_stores_again_in_a_list)
{
	XA_STATE(xas, &xa, 30000);

	for (uint64_t i = 1; i <= 4; i++)
		put(i * 10000 + 5, 0, i);
	for (uint64_t v = 10; v < 20; v++) {
		cr_expect_null(xas_store(&xas, val(v)));
		cr_expect_eq(xas_store(&xas, val(v + 1)), val(v));
		cr_expect_eq(xas_entry_index(&xas), 30000);
		xas_set_mark(&xas, XA_MARK_1);
		cr_expect(marked(30000, XA_MARK_1));
		cr_expect_eq(xas_store(&xas, NULL), val(v + 1));
		cr_expect_not(xa_marked(&xa, XA_MARK_1));
	}
	for (uint64_t i = 1; i <= 4; i++)
		cr_expect_eq(xa_load(&xa, i * 10000 + 5), val(i));
}

/*
 * The entries of @nr places, @step apart, come from the middle outwards, so
 * that every place of a list moves both ways; each third has a mark.
 */
static void check_marks_follow(uint64_t step, uint64_t nr)
{
	for (uint64_t n = 0; n < nr; n++) {
		uint64_t i = n & 1 ? nr / 2 - n / 2 - 1 : nr / 2 + n / 2;

		put(i * step, 0, i);
		if (i % 3 == 0)
			mark(i * step, XA_MARK_0);
		if (i % 4 == 3 && n > 8)
			xa_erase(&xa, i * step);
		for (uint64_t k = 0; k < nr; k++)
			cr_assert_eq(marked(k * step, XA_MARK_0),
				     xa_load(&xa, k * step) && k % 3 == 0,
				     "step %lu, %lu of %lu", step, k, n);
	}
	for (uint64_t k = 0; k < nr; k++)
		xa_erase(&xa, k * step);
	cr_assert_not(xa_marked(&xa, XA_MARK_0));
	cr_assert(xa_empty(&xa));
}

Test(xarray, marks_go_with_entries_that_make_way)
{
	for (uint64_t step = 1; step < 1000000; step = step * 3 + 1)
		check_marks_follow(step, 100);
}

Test(xarray, an_order_9_entry_falls_into_a_list)
{
	for (uint64_t i = 0; i < 20; i++) {
		put(i * 300, 0, i);
		mark(i * 300, XA_MARK_0);
	}
	put(1024, 9, 99); /* over 1200 and 1500 */
	for (uint64_t i = 0; i < 20; i++) {
		bool gone = i == 4 || i == 5;

		cr_expect_eq(xa_load(&xa, i * 300), val(gone ? 99 : i));
		cr_expect_eq(marked(i * 300, XA_MARK_0), !gone);
	}
	cr_expect_eq(xa_erase(&xa, 1535), val(99));
	cr_expect_null(xa_load(&xa, 1200));
}

Test(xarray, storing_null_over_a_range_of_a_list)
{
	XA_STATE_ORDER(xas, &xa, 1024, 9);

	for (uint64_t i = 0; i < 20; i++)
		put(i * 300, 0, i);
	xas_store(&xas, NULL);
	for (uint64_t i = 0; i < 20; i++)
		cr_expect_eq(xa_load(&xa, i * 300),
			     i == 4 || i == 5 ? NULL : val(i));
}

/* Memory that says no. */
struct miser {
	unsigned int now_works;	 /* calls that may not wait and succeed, */
	unsigned int now_fails;	 /* and fail after that */
	unsigned int wait_fails; /* calls that may wait and fail */
	unsigned int odds;	 /* or: one call in so many fails */
	int live;
};

static uint64_t seed = 42;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void *miser_alloc(void *ctx, size_t size, bool may_wait)
{
	struct miser *m = ctx;
	unsigned int *nr = may_wait ? &m->wait_fails : &m->now_fails;

	if (!may_wait && m->odds && rnd() % m->odds == 0)
		return NULL;
	if (!may_wait && m->now_works) {
		m->now_works--;
	} else if (*nr) {
		--*nr;
		return NULL;
	}
	m->live++;
	return calloc(1, size);
}

static void miser_free(void *ctx, void *node)
{
	struct miser *m = ctx;

	m->live--;
	free(node);
}

Test(xarray, no_memory_is_retried_by_the_caller_at_any_depth)
{
	struct miser m = { .now_fails = UINT32_MAX };
	const struct xa_mem mem = { miser_alloc, miser_free, &m };
	struct xarray poor;

	xa_init(&poor, &mem);
	cr_expect_eq(xa_store(&poor, 5, 0, val(1)), 0);
	cr_expect_eq(xa_store(&poor, UINT64_C(1) << 50, 0, val(2)), 0);
	cr_expect_eq(xa_store(&poor, 512, 9, val(3)), 0);
	cr_expect_eq(xa_load(&poor, 5), val(1));
	cr_expect_eq(xa_load(&poor, UINT64_C(1) << 50), val(2));
	cr_expect_eq(xa_load(&poor, 1000), val(3));
	cr_expect_eq((size_t)m.live, xa_nr_nodes(&poor), "none leaked");
	xa_destroy(&poor);
	cr_expect_eq(m.live, 0);
}

Test(xarray, failed_store_changes_nothing_and_the_error_stays)
{
	struct miser m = { 0 };
	const struct xa_mem mem = { miser_alloc, miser_free, &m };
	struct xarray poor;

	xa_init(&poor, &mem);
	cr_assert_eq(xa_store(&poor, 5, 0, val(1)), 0);
	for (unsigned int i = 0; i < 12; i++) {
		XA_STATE(xas, &poor, UINT64_C(1) << 40);

		m.now_fails = UINT32_MAX;
		m.wait_fails = 0;
		for (unsigned int n = 0; n < i; n++) {
			xa_lock(&poor);
			xas_store(&xas, val(2));
			xa_unlock(&poor);
			if (!xas_nomem(&xas))
				break;
		}
		if (!xas_error(&xas) && xa_load(&poor, UINT64_C(1) << 40))
			break;
		xa_lock(&poor);
		xas_store(&xas, val(2));
		xa_unlock(&poor);
		if (!xas_error(&xas))
			break;
		m.wait_fails = 1;
		cr_expect_not(xas_nomem(&xas));
		cr_expect_eq(xas_error(&xas), -ENOMEM);
		cr_expect_null(xas_load(&xas));
		cr_expect_eq(xa_nr_nodes(&poor), 1);
		cr_expect_eq(m.live, 1);
		cr_expect_eq(xa_load(&poor, 5), val(1));
	}
	xa_destroy(&poor);
	cr_expect_eq(m.live, 0);
}

/* A full list has no way but into nodes, and memory ends on the way there. */
static void spread_with_memory_for(unsigned int nr, uint64_t step)
{
	struct miser m = { 0 };
	const struct xa_mem mem = { miser_alloc, miser_free, &m };
	struct xarray poor;

	xa_init(&poor, &mem);
	for (uint64_t i = 0; i < 64; i++)
		cr_assert_eq(xa_store(&poor, 65 + i * step, 0, val(i)), 0);
	m.now_works = nr;
	m.now_fails = UINT32_MAX;
	m.wait_fails = 0;
	cr_assert_eq(xa_store(&poor, 72 + 63 * step, 0, val(64)), 0);
	cr_assert_eq(xa_store(&poor, 70 * step + 512, 9, val(99)), 0);
	for (uint64_t i = 0; i < 64; i++)
		cr_assert_eq(xa_load(&poor, 65 + i * step), val(i));
	cr_assert_eq(xa_load(&poor, 72 + 63 * step), val(64));
	cr_assert_eq((size_t)m.live, xa_nr_nodes(&poor), "none leaked");
	xa_destroy(&poor);
	cr_assert_eq(m.live, 0);
}

Test(xarray, memory_ends_while_a_list_becomes_nodes)
{
	for (unsigned int nr = 0; nr < 70; nr++) {
		spread_with_memory_for(nr, 63);
		spread_with_memory_for(nr, 1000);
		spread_with_memory_for(nr, 262144);
	}
}

/*
 * Against a plain array: random stores of orders 0 to 9, erases, marks,
 * finds.
 */
#define NR	 131072u
#define NR_SPOTS 80u

/* Where things happen: few places of many, for lists; or all of a part. */
static uint32_t spots[NR_SPOTS];
static uint32_t nr_dense;

static uint32_t pick(void)
{
	if (nr_dense)
		return (uint32_t)(rnd() % nr_dense);
	return (spots[rnd() % NR_SPOTS] + (uint32_t)(rnd() % 3)) % NR;
}

static struct {
	uint64_t v; /* 0: none */
	uint32_t start;
	unsigned int order;
	unsigned int marks;
} ref[NR];

static void ref_erase(uint32_t i)
{
	uint32_t start = ref[i].start, nr = 1u << ref[i].order;

	if (!ref[i].v)
		return;
	for (uint32_t k = start; k < start + nr; k++)
		ref[k].v = 0;
}

static void ref_store(uint32_t i, unsigned int order, uint64_t v)
{
	uint32_t nr = 1u << order, start = i & ~(nr - 1);

	if (ref[i].v && ref[i].order >= order) {
		start = ref[i].start;
		nr = 1u << ref[i].order;
		for (uint32_t k = start; k < start + nr; k++)
			ref[k].v = v;
		return;
	}
	for (uint32_t k = start; k < start + nr; k++)
		ref_erase(k);
	for (uint32_t k = start; k < start + nr; k++) {
		ref[k].v = v;
		ref[k].start = start;
		ref[k].order = order;
		ref[k].marks = 0;
	}
}

static void ref_mark(uint32_t i, unsigned int m, bool on)
{
	uint32_t start = ref[i].start, nr = 1u << ref[i].order;

	for (uint32_t k = start; ref[i].v && k < start + nr; k++)
		ref[k].marks = (ref[k].marks & ~(1u << m)) | (unsigned int)on
								     << m;
}

/* First entry at or after @i, with mark @m if that is not negative. */
static uint32_t ref_find(uint32_t i, int m)
{
	while (i < NR && !(ref[i].v && (m < 0 || ref[i].marks >> m & 1)))
		i++;
	return i;
}

static void compare_walk(uint32_t from, int m)
{
	XA_STATE(xas, &xa, from);
	uint32_t want = ref_find(from, m);
	void *entry;

	for (;;) {
		if (m < 0)
			entry = xas_find(&xas, NR - 1);
		else
			entry = xas_find_marked(&xas, NR - 1, (enum xa_mark)m);
		if (!entry)
			break;
		cr_assert_lt(want, NR);
		cr_assert_eq(entry, val(ref[want].v));
		cr_assert_eq(xas.index, want);
		cr_assert_eq(xas_entry_index(&xas), ref[want].start);
		cr_assert_eq(xas_entry_order(&xas), ref[want].order);
		want = ref[want].start + (1u << ref[want].order);
		want = ref_find(want, m);
		if (rnd() % 8 == 0)
			xas_pause(&xas);
	}
	cr_assert_eq(want, NR);
}

static void random_step(void)
{
	uint32_t i = pick();
	unsigned int order =
		rnd() % (nr_dense ? 4 : 100) ? 0 : (unsigned int)(rnd() % 10);
	unsigned int m = (unsigned int)(rnd() % 3);
	uint64_t v = rnd() >> 8 | 1;

	switch (rnd() % 6) {
	case 0:
	case 1:
		put(i, order, v);
		ref_store(i, order, v);
		break;
	case 2:
		cr_assert_eq(xa_erase(&xa, i), ref[i].v ? val(ref[i].v) : NULL);
		ref_erase(i);
		break;
	case 3:
	case 4: {
		XA_STATE(xas, &xa, i);
		bool on = rnd() & 1;

		xas_load(&xas);
		if (on)
			xas_set_mark(&xas, (enum xa_mark)m);
		else
			xas_clear_mark(&xas, (enum xa_mark)m);
		ref_mark(i, m, on);
		break;
	}
	default:
		cr_assert_eq(xa_load(&xa, i), ref[i].v ? val(ref[i].v) : NULL);
		break;
	}
}

static void erase_all(void)
{
	for (uint32_t i = 0; i < NR; i++) {
		xa_erase(&xa, i);
		ref_erase(i);
	}
	cr_assert(xa_empty(&xa));
	cr_assert_not(xa_marked(&xa, XA_MARK_0));
}

Test(xarray, behaves_as_a_plain_array_under_random_operations)
{
	nr_dense = 8192;
	for (unsigned int step = 0; step < 300000; step++) {
		random_step();
		if (step % 500 == 0)
			compare_walk(pick(), (int)(rnd() % 4) - 1);
		if (step % 50000 == 49999)
			erase_all();
	}
}

Test(xarray, and_so_it_does_where_entries_are_few_and_memory_is_scarce)
{
	struct miser m = { .odds = 3 };
	const struct xa_mem mem = { miser_alloc, miser_free, &m };

	xa_destroy(&xa);
	xa_init(&xa, &mem);
	for (unsigned int step = 0; step < 300000; step++) {
		if (step % 3000 == 0)
			for (uint32_t k = 0; k < NR_SPOTS; k++)
				spots[k] = (uint32_t)(rnd() % NR) >>
					   (step / 3000 % 6);
		random_step();
		if (step % 200 == 0)
			compare_walk(pick(), (int)(rnd() % 4) - 1);
		if (step % 3000 == 2999) {
			erase_all();
			cr_assert_eq(m.live, 0);
		}
	}
}
