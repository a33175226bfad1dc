/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_folio.c - the records: counters, owners, deferred blocks
 */
#include "dax/folio.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NR_PAGES (8 * FOLIO_PAGES)

/* Mappings are names here: nobody looks inside. */
static char names[2];
#define A ((struct address_space *)&names[0])
#define B ((struct address_space *)&names[1])

static struct folio_table *table;
static uint64_t idle[2 * FOLIO_PAGES];
static unsigned int nr_idle;

static void on_idle(void *ctx, uint64_t pfn, uint64_t nr)
{
	(void)ctx;
	for (uint64_t i = 0; i < nr; i++)
		idle[nr_idle++] = pfn + i;
}

static const struct folio_table_ops ops = { .idle = on_idle };

static void setup(void)
{
	cr_assert_eq(folio_table_create(NR_PAGES, &ops, NULL, &table), 0);
}

static void teardown(void)
{
	folio_table_destroy(table);
}

/* A folio that A mapped and somebody pinned. */
static struct folio *pinned(uint64_t pfn, unsigned int order)
{
	struct folio *folio;

	folio_associate(table, pfn, order, A, 5, false);
	folio = folio_at(table, pfn);
	folio_add_map(folio);
	cr_assert(folio_try_pin(folio));
	folio_remove_map(folio);
	return folio;
}

TestSuite(folio, .init = setup, .fini = teardown, .timeout = 30);

Test(folio, record_of_a_used_page_is_under_48_bytes)
{
	cr_expect_lt(sizeof(struct folio), 48);
}

/* Resident pages of the table. */
static size_t resident(const struct folio_table *t)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), nr = 0;
	size_t len = (t->nr_pages * sizeof(struct folio) + page - 1) / page;
	static unsigned char vec[1 << 16];

	cr_assert_leq(len, sizeof(vec));
	cr_assert_eq(mincore(t->folios, len * page, vec), 0);
	for (size_t i = 0; i < len; i++)
		nr += vec[i] & 1;
	return nr;
}

Test(folio, untouched_records_cost_nothing)
{
	struct folio_table *big;

	cr_assert_eq(folio_table_create(1 << 22, &ops, NULL, &big), 0);
	cr_expect_eq(resident(big), 0);
	folio_associate(big, 1 << 21, 0, A, 0, false);
	cr_expect_leq(resident(big), 2, "the page and its chunk's lock");
	folio_table_destroy(big);
}

Test(folio, put_wakes_when_only_mappings_are_left)
{
	struct folio *folio = pinned(7, 0);
	struct waiter w;

	folio_add_map(folio);
	wait_prepare(&w, folio, 0, false, NULL);
	folio_put(folio);
	cr_expect(w.woken, "H1");
	cr_expect_eq(folio_refcount(folio), 1);
	wait_cancel(&w);
}

Test(folio, mapping_that_goes_wakes_at_zero_only)
{
	struct folio *folio = pinned(7, 0);
	struct waiter w;

	folio_add_map(folio);
	folio_put(folio);
	folio_add_map(folio);
	wait_prepare(&w, folio, 0, false, NULL);
	folio_remove_map(folio);
	cr_expect_not(w.woken);
	folio_remove_map(folio);
	cr_expect(w.woken);
	wait_cancel(&w);
	cr_expect_eq(atomic_load(&table->nr_wakes), 1);
}

Test(folio, sleeper_can_be_interrupted_and_can_be_late)
{
	struct folio *folio = pinned(7, 0);
	struct dax_task task = { 0 };

	cr_expect_eq(folio_wait(folio, &task, 1), -ETIMEDOUT);
	dax_task_interrupt(&task);
	cr_expect_eq(folio_wait(folio, &task, 0), -EINTR);
	folio_put(folio);
	cr_expect_eq(folio_wait(folio, &task, 0), 0);
}

Test(folio, no_pin_without_a_mapping)
{
	struct folio *folio = folio_page(table, 3);

	cr_expect_not(folio_try_pin(folio));
	folio_hold(folio);
	cr_expect_not(folio_try_pin(folio), "a hold is no mapping");
	folio_put(folio);
	cr_expect_eq(folio_refcount(folio), 0);
}

Test(folio, put_too_many_is_caught, .signal = SIGABRT)
{
	folio_put(folio_page(table, 3));
}

Test(folio, put_of_a_mapping_is_caught, .signal = SIGABRT)
{
	struct folio *folio = folio_page(table, 3);

	folio_add_map(folio);
	folio_put(folio);
}

Test(folio, release_says_true_for_what_nobody_uses)
{
	cr_expect(folio_release(table, 9));
	folio_associate(table, 9, 0, A, 1, false);
	folio_disassociate(folio_at(table, 9), A, false);
	cr_expect(folio_release(table, 9));
	cr_expect(dax_block_idle(table, 0, NR_PAGES));
	cr_expect_eq(nr_idle, 0);
}

Test(folio, released_block_under_a_pin_is_told_by_the_last_put)
{
	struct folio *folio = pinned(9, 0);

	folio_disassociate(folio, A, true);
	cr_expect_not(dax_block_idle(table, 9, 1));
	cr_expect_not(folio_release(table, 9));
	folio_get(folio);
	folio_put(folio);
	cr_expect_eq(nr_idle, 0);
	folio_put(folio);
	cr_expect_eq(nr_idle, 1);
	cr_expect_eq(idle[0], 9);
	cr_expect(dax_block_idle(table, 9, 1));
	cr_expect_eq(atomic_load(&table->nr_deferred), 0);
}

Test(folio, using_a_block_that_was_not_idle_is_caught, .signal = SIGABRT)
{
	folio_disassociate(pinned(9, 0), A, true);
	cr_assert_not(folio_release(table, 9));
	folio_associate(table, 9, 0, B, 0, false);
}

Test(folio, releasing_a_block_that_has_an_entry_is_caught, .signal = SIGABRT)
{
	folio_associate(table, 9, 0, A, 0, false);
	folio_release(table, 9);
}

Test(folio, orphan_keeps_its_order_until_the_last_put)
{
	struct folio *folio = pinned(FOLIO_PAGES, FOLIO_ORDER);

	cr_expect_eq(folio_disassociate(folio, A, true), FOLIO_ORDER);
	cr_expect_eq(folio_order(folio), FOLIO_ORDER);
	cr_expect_eq(folio_at(table, FOLIO_PAGES + 9), folio);
	cr_expect_not(folio_release(table, FOLIO_PAGES + 9));
	cr_expect_not(folio_release(table, FOLIO_PAGES));
	cr_expect_eq(
		folio_try_associate(table, FOLIO_PAGES + 3, 0, B, 0, false),
		-EAGAIN);
	folio_put(folio);
	cr_expect_eq(nr_idle, 2);
	cr_expect_eq(idle[0], FOLIO_PAGES);
	cr_expect_eq(idle[1], FOLIO_PAGES + 9);
	cr_expect_eq(folio_order(folio), 0);
	cr_expect(dax_block_idle(table, FOLIO_PAGES, FOLIO_PAGES));
	folio_associate(table, FOLIO_PAGES + 3, 0, B, 0, false);
}

Test(folio, orphan_of_the_same_order_is_adopted)
{
	struct folio *folio = pinned(FOLIO_PAGES, FOLIO_ORDER);

	folio_disassociate(folio, A, true);
	folio_associate(table, FOLIO_PAGES, FOLIO_ORDER, A, 0, false);
	folio_put(folio);
	cr_expect_eq(folio_order(folio), FOLIO_ORDER);
	folio_disassociate(folio, A, false);
	cr_expect_eq(folio_order(folio), 0);
}

Test(folio, teardown_under_a_pin_is_caught, .signal = SIGABRT)
{
	folio_disassociate(pinned(9, 0), A, false);
}

Test(folio, teardown_under_a_mapping_is_caught, .signal = SIGABRT)
{
	folio_associate(table, 9, 0, A, 0, false);
	folio_add_map(folio_at(table, 9));
	folio_disassociate(folio_at(table, 9), A, true);
}

Test(folio, orders_do_not_mix)
{
	folio_associate(table, 5, 0, A, 0, true);
	cr_expect_eq(folio_try_associate(table, 0, FOLIO_ORDER, B, 0, true),
		     -EEXIST);
	folio_associate(table, FOLIO_PAGES, FOLIO_ORDER, A, 512, true);
	cr_expect_eq(folio_try_associate(table, FOLIO_PAGES, 0, B, 0, true),
		     -EEXIST);
	cr_expect_eq(folio_try_associate(table, FOLIO_PAGES + 1, 0, B, 0, true),
		     -EEXIST);
	cr_expect_eq(folio_try_associate(table, 5, 0, B, 0, false), -EUCLEAN);
}

Test(folio, device_with_a_short_last_chunk_has_no_folio_there)
{
	struct folio_table *odd;

	cr_assert_eq(folio_table_create(FOLIO_PAGES + 5, NULL, NULL, &odd), 0);
	cr_expect_eq(
		folio_try_associate(odd, FOLIO_PAGES, FOLIO_ORDER, A, 0, false),
		-EEXIST);
	cr_expect_eq(folio_try_associate(odd, FOLIO_PAGES + 4, 0, A, 0, false),
		     0);
	folio_table_destroy(odd);
}

static void *share_and_unshare(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		folio_associate(table, 11, 0, arg, (uint64_t)i, true);
		folio_disassociate(folio_at(table, 11), arg, false);
	}
	return NULL;
}

Test(folio, share_is_not_lost_between_two_inodes)
{
	pthread_t t[2];

	/* A third sharer keeps it in state S, where counts can be lost. */
	folio_associate(table, 11, 0, A, 1, true);
	folio_associate(table, 11, 0, A, 2, true);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, share_and_unshare, i ? A : B);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	cr_expect_eq(atomic_load(&folio_at(table, 11)->share), 2);
}
