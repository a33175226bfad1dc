/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/client/test_view.c - books of ranges: dax/lib/view.h
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

#include "dax/lib/view.h"

#define AT(page) ((uintptr_t)(page)*BLOCK_SIZE)

static struct view_set set;

static void fini(void)
{
	views_destroy(&set);
}

static int insert(uint64_t first, uint64_t last)
{
	const struct view v = { .start = AT(first), .end = AT(last) };

	return views_insert(&set, &v);
}

/* As text, so that a failure shows all of it. */
static const char *text(void)
{
	static char buf[512];
	size_t len = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < set.nr; i++)
		len += (size_t)snprintf(buf + len, sizeof(buf) - len,
					"%ju-%ju ",
					(uintmax_t)set.v[i].start / BLOCK_SIZE,
					(uintmax_t)set.v[i].end / BLOCK_SIZE);
	return buf;
}

TestSuite(views, .fini = fini, .timeout = 60);

Test(views, are_kept_by_address)
{
	cr_assert_eq(insert(10, 12), 0);
	cr_assert_eq(insert(2, 4), 0);
	cr_assert_eq(insert(4, 5), 0);
	cr_assert_str_eq(text(), "2-4 4-5 10-12 ");
}

Test(views, do_not_overlap)
{
	static const uint64_t bad[][2] = { { 9, 11 }, { 10, 11 }, { 13, 20 },
					   { 0, 99 }, { 11, 13 }, { 10, 14 } };

	cr_assert_eq(insert(10, 14), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_eq(insert(bad[i][0], bad[i][1]), -EEXIST, "%zu", i);
	cr_assert_str_eq(text(), "10-14 ");
	cr_expect_eq(insert(8, 10), 0);
	cr_expect_eq(insert(14, 15), 0);
}

Test(views, are_found_by_any_of_their_addresses)
{
	cr_assert_eq(insert(10, 14), 0);
	cr_assert_eq(insert(20, 21), 0);
	cr_expect_null(views_find(&set, AT(10) - 1));
	cr_expect_eq(views_find(&set, AT(10)), &set.v[0]);
	cr_expect_eq(views_find(&set, AT(14) - 1), &set.v[0]);
	cr_expect_null(views_find(&set, AT(14)));
	cr_expect_eq(views_find(&set, AT(20)), &set.v[1]);
	cr_expect_null(views_find(&set, AT(21)));
	cr_expect_eq(views_lower(&set, AT(21)), set.nr);
}

Test(views, cover_without_a_gap_or_not)
{
	cr_assert_eq(insert(10, 14), 0);
	cr_assert_eq(insert(14, 16), 0);
	cr_assert_eq(insert(17, 18), 0);
	cr_expect(views_cover(&set, AT(10), AT(16)));
	cr_expect(views_cover(&set, AT(11), AT(15)));
	cr_expect_not(views_cover(&set, AT(9), AT(11)));
	cr_expect_not(views_cover(&set, AT(15), AT(18)));
	cr_expect_not(views_cover(&set, AT(17), AT(19)));
}

Test(views, are_cut_once)
{
	cr_assert_eq(insert(10, 14), 0);
	for (int i = 0; i < 2; i++) {
		cr_expect_eq(views_cut(&set, AT(12)), 0);
		cr_expect_eq(views_cut(&set, AT(10)), 0);
		cr_expect_eq(views_cut(&set, AT(14)), 0);
		cr_expect_eq(views_cut(&set, AT(99)), 0);
		cr_expect_str_eq(text(), "10-12 12-14 ");
	}
}

Test(views, leave_with_their_neighbours_untouched)
{
	for (uint64_t i = 0; i < 6; i++)
		cr_assert_eq(insert(i * 2, i * 2 + 1), 0);
	views_remove(&set, 1, 3);
	cr_assert_str_eq(text(), "0-1 8-9 10-11 ");
}

/* Against an array with an element for each page. */
Test(views, agree_with_a_model)
{
	enum {
		PAGES = 512
	};
	static bool page[PAGES + 1];
	uint64_t seed = 88172645463325252u;

	for (int op = 0; op < 20000; op++) {
		uint64_t a, b;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		a = (seed >> 11) % PAGES;
		b = a + 1 + (seed >> 40) % 8;
		if (b > PAGES)
			b = PAGES;
		if (seed & 1) {
			bool taken = false;

			for (uint64_t i = a; i < b; i++)
				taken |= page[i];
			cr_assert_eq(insert(a, b), taken ? -EEXIST : 0);
			for (uint64_t i = a; !taken && i < b; i++)
				page[i] = true;
		} else {
			cr_assert_eq(views_cut(&set, AT(a)), 0);
			cr_assert_eq(views_cut(&set, AT(b)), 0);
			while (views_lower(&set, AT(a)) < set.nr &&
			       set.v[views_lower(&set, AT(a))].start < AT(b))
				views_remove(&set, views_lower(&set, AT(a)), 1);
			for (uint64_t i = a; i < b; i++)
				page[i] = false;
		}
		for (uint64_t i = 0; i < PAGES; i++)
			cr_assert_eq(views_find(&set, AT(i)) != NULL, page[i]);
	}
}

Test(views, are_many)
{
	for (uint64_t i = 0; i < 100000; i++)
		cr_assert_eq(insert(i * 2, i * 2 + 1), 0);
	cr_assert_not_null(views_find(&set, AT(199998)));
	cr_assert_null(views_find(&set, AT(199997)));
}

Test(vmas, turn_addresses_to_pages_and_back)
{
	const struct vma vma = { .addr = AT(100), .index = 7, .nr = 10 };

	cr_expect_eq(vma_index(&vma, AT(100)), 7);
	cr_expect_eq(vma_index(&vma, AT(103) + 5), 10);
	cr_expect_eq(vma_addr(&vma, 9), AT(102));
}
