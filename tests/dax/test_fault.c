/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_fault.c - faults of pages that nobody shares
 */
#include "tests/dax/support/common.h"

TestSuite(fault, .init = common_setup, .fini = common_teardown, .timeout = 20);

/* Scenario 1. */
Test(fault, fresh_device_has_every_folio_unused)
{
	for (uint64_t pfn = 0; pfn < MEMFS_PAGES; pfn++) {
		struct folio *folio = folio_at(fs->dev->folios, pfn);

		expect_counts(folio, 0, 0);
		expect_share(folio, 0);
		cr_expect_eq(folio_order(folio), 0);
		cr_expect_eq(folio_pgmap(folio), fs->dev->folios);
	}
}

/* Scenario 2. */
Test(fault, read_of_a_block_makes_a_real_entry_with_one_mapping)
{
	uint32_t pfn = file_fill(A, 5, 'a');
	struct view *v = shared_view(A);
	void *entry;

	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_NOPAGE);
	entry = file_entry(A, 5);
	cr_assert(entry);
	cr_expect(dax_is_real_entry(entry) && !dax_is_locked(entry));
	cr_expect_eq(dax_entry_order(entry), 0);
	cr_expect_eq(dax_to_pfn(entry), pfn);
	expect_counts(file_folio(A, 5), 1, 1);
	expect_sole(file_folio(A, 5), A, 5);
	cr_expect_not(file_marked(A, 5, DAX_MARK_DIRTY));
	cr_expect_not(file_marked(A, 5, DAX_MARK_TOWRITE));
	cr_expect_eq(A->mapping.nrpages, 1);
	cr_expect_not(view_pte(v, 5)->write);
}

/* Scenario 3. */
Test(fault, second_vma_adds_a_mapping_and_no_share)
{
	struct view *v1, *v2;

	file_fill(A, 5, 'a');
	v1 = shared_view(A);
	v2 = shared_view(A);
	view_fault(v1, 5, false, 0);
	view_fault(v2, 5, false, 0);
	expect_counts(file_folio(A, 5), 2, 2);
	expect_sole(file_folio(A, 5), A, 5);
	cr_expect_eq(A->mapping.nrpages, 1);
	/* A refault of what is there takes nothing. */
	view_fault(v2, 5, false, 0);
	expect_counts(file_folio(A, 5), 2, 2);
}

/* Scenario 4. */
Test(fault, munmap_leaves_the_entry_and_wakes_once_at_zero)
{
	struct view *v1, *v2;
	struct folio *folio;
	struct waiter w;

	file_fill(A, 5, 'a');
	v1 = shared_view(A);
	v2 = shared_view(A);
	view_fault(v1, 5, false, 0);
	view_fault(v2, 5, false, 0);
	folio = file_folio(A, 5);
	wait_prepare(&w, folio, 0, false, NULL);
	view_close(v1);
	cr_expect_not(w.woken);
	view_close(v2);
	cr_expect(w.woken);
	cr_expect_eq(atomic_load(&fs->dev->folios->nr_wakes), 1);
	wait_cancel(&w);
	expect_counts(folio, 0, 0);
	expect_sole(folio, A, 5);
	cr_expect_eq(file_folio(A, 5), folio);
}

/* Scenario 5. */
Test(fault, write_upgrades_the_mapping_without_a_reference)
{
	struct view *v;

	file_fill(A, 5, 'a');
	v = shared_view(A);
	view_fault(v, 5, false, 0);
	cr_expect_eq(view_fault(v, 5, true, 0), VM_FAULT_NOPAGE);
	cr_expect(view_pte(v, 5)->write);
	expect_counts(file_folio(A, 5), 1, 1);
	cr_expect(file_marked(A, 5, DAX_MARK_DIRTY));
	cr_expect_not(file_marked(A, 5, DAX_MARK_TOWRITE));
	cr_expect_eq(A->nr_dirtied, 1);
}

/* Scenario 6. */
Test(fault, read_of_a_hole_maps_the_zero_page_read_only)
{
	struct view *v = shared_view(A);
	void *entry;

	cr_expect_eq(view_fault(v, 7, false, 0), VM_FAULT_NOPAGE);
	entry = file_entry(A, 7);
	cr_expect(entry && dax_is_zero_entry(entry));
	cr_expect_eq(dax_to_pfn(entry), fs->dev->zero_pfn);
	cr_expect(view_pte(v, 7)->zero);
	cr_expect_not(view_pte(v, 7)->write);
	cr_expect_eq(fs->nr_used, 0);
	cr_expect_eq(A->mapping.nrpages, 1);
}

/* Scenario 6: a write to a page without block is the filesystem's mistake. */
Test(fault, zero_page_is_never_mapped_for_writing)
{
	struct view *v = shared_view(A);

	fs->write_hole = true;
	view_fault(v, 7, false, 0);
	cr_expect_eq(view_fault(v, 7, true, 0), VM_FAULT_SIGBUS);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 1);
	cr_expect_not(view_pte(v, 7)->write);
}

/* Scenario 7. */
Test(fault, write_to_a_read_hole_replaces_the_zero_page_everywhere)
{
	struct view *v1 = shared_view(A), *v2 = shared_view(A);
	unsigned char byte = 1;

	view_load(v1, 7, &byte);
	cr_expect_eq(byte, 0);
	view_load(v2, 7, &byte);
	cr_expect_eq(view_fault(v1, 7, true, 0),
		     VM_FAULT_NOPAGE | VM_FAULT_MAJOR);
	cr_expect_null(view_pte(v2, 7));
	cr_expect(dax_is_real_entry(file_entry(A, 7)));
	expect_sole(file_folio(A, 7), A, 7);
	cr_expect(file_marked(A, 7, DAX_MARK_DIRTY));
	view_load(v2, 7, &byte);
	cr_expect_eq(byte, 0);
	view_store(v1, 7, 'x');
	view_load(v2, 7, &byte);
	cr_expect_eq(byte, 'x');
	cr_expect_eq(A->mapping.nrpages, 1);
}

/* Scenario 8. */
Test(fault, read_of_an_unwritten_block_is_a_hole)
{
	struct view *v;
	uint32_t pfn = file_fill(A, 7, 0);

	v = shared_view(A);
	cr_expect_eq(view_fault(v, 7, false, 0), VM_FAULT_NOPAGE);
	cr_expect(dax_is_zero_entry(file_entry(A, 7)));
	expect_counts(folio_at(fs->dev->folios, pfn), 0, 0);
	expect_share(folio_at(fs->dev->folios, pfn), 0);
}

/* Scenario 9. */
Test(fault, beyond_the_end_is_a_bus_error_and_leaves_no_entry)
{
	struct view *v = view_open(A, 0, 1024, DAX_VMA_SHARED);

	cr_expect_eq(view_fault(v, 10, false, 0), VM_FAULT_SIGBUS);
	cr_expect_eq(view_fault(v, 10, true, FOLIO_ORDER), VM_FAULT_SIGBUS);
	cr_expect_eq(A->mapping.nrpages, 0);
	cr_expect(xa_empty(&A->mapping.i_pages));
}

/* A file of two 2 MiB, the first of which has blocks of its own. */
static struct view *huge_file(bool filled)
{
	fs->huge = true;
	atomic_store(&A->size, 1024 * BLOCK_SIZE);
	if (filled)
		file_fill_huge(A, 0, 'h');
	return shared_view(A);
}

/* Scenario 10. */
Test(fault, order_9_fault_makes_one_compound_folio)
{
	struct view *v = huge_file(true);
	struct folio *folio;

	cr_expect_eq(view_fault(v, 77, false, FOLIO_ORDER), VM_FAULT_NOPAGE);
	folio = file_folio(A, 0);
	cr_expect_eq(folio_order(folio), FOLIO_ORDER);
	expect_counts(folio, 1, 1);
	expect_sole(folio, A, 0);
	cr_expect_eq(A->mapping.nrpages, 512);
	for (uint64_t i = 0; i < 512; i++) {
		cr_assert_eq(file_entry(A, i), file_entry(A, 0));
		cr_assert_eq(folio_at(fs->dev->folios, file_pfn(A, i)), folio);
	}
	cr_expect_eq(view_fault(v, 300, true, FOLIO_ORDER), VM_FAULT_NOPAGE);
	expect_counts(folio, 1, 1);
	cr_expect(file_marked(A, 511, DAX_MARK_DIRTY));
}

/* An order-9 fault falls back, and order 0 does it then. */
static void expect_fallback(struct view *v, uint64_t index, bool write,
			    const char *why)
{
	uint64_t nr = atomic_load(&fs->dev->stat.nr_pmd_fallbacks);

	cr_expect_eq(view_fault(v, index, write, FOLIO_ORDER),
		     VM_FAULT_FALLBACK, "%s", why);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_pmd_fallbacks), nr + 1, "%s",
		     why);
	fs->short_access = 0;
	fs->write_hole = false;
	cr_expect_not(view_fault(v, index, write, 0) & VM_FAULT_ERROR, "%s",
		      why);
	cr_expect_eq(dax_entry_order(file_entry(A, index)), 0, "%s", why);
	cr_expect_eq(A->mapping.nrpages, 1, "%s", why);
}

/* Scenario 11: F1. */
Test(fault, fallback_of_an_order_that_does_not_exist)
{
	struct view *v = huge_file(true);

	cr_expect_eq(view_fault(v, 0, false, 5), VM_FAULT_FALLBACK);
	cr_expect_eq(view_fault(v, 0, false, 18), VM_FAULT_FALLBACK);
	cr_expect_eq(A->mapping.nrpages, 0);
}

/* Scenario 11: F2. */
Test(fault, fallback_when_address_and_offset_have_different_colours)
{
	struct view *v;

	huge_file(true);
	v = view_open(A, 0, 1024, DAX_VMA_SHARED);
	v->vma.start += BLOCK_SIZE;
	v->vma.end += BLOCK_SIZE;
	expect_fallback(v, 5, false, "F2");
}

/* Scenario 11: F3.  The copy is no entry's business. */
Test(fault, fallback_of_a_store_to_a_private_vma)
{
	struct view *v;

	huge_file(true);
	v = view_open(A, 0, 1024, 0);
	cr_expect_eq(view_fault(v, 5, true, FOLIO_ORDER), VM_FAULT_FALLBACK);
	cr_expect_eq(A->mapping.nrpages, 0);
	cr_expect_eq(view_fault(v, 5, true, 0), VM_FAULT_DONE_COW);
}

/* Scenario 11: F4 and F5. */
Test(fault, fallback_when_the_vma_ends_within_the_2_mib)
{
	struct view *late, *early;

	huge_file(true);
	late = view_open(A, 1, 600, DAX_VMA_SHARED);
	expect_fallback(late, 5, false, "F4");
	view_unmap(late);
	dax_break_layout_inode(&A->mapping, NULL);
	early = view_open(A, 0, 500, DAX_VMA_SHARED);
	expect_fallback(early, 5, false, "F5");
}

/* Scenario 11: F6. */
Test(fault, fallback_when_the_file_ends_within_the_2_mib)
{
	struct view *v = huge_file(true);

	atomic_store(&A->size, 511 * BLOCK_SIZE);
	expect_fallback(v, 5, false, "F6");
	atomic_store(&A->size, 511 * BLOCK_SIZE + 1);
	view_unmap(v);
	dax_break_layout_inode(&A->mapping, NULL);
	cr_expect_eq(view_fault(v, 5, false, FOLIO_ORDER), VM_FAULT_NOPAGE);
}

/* Scenario 11: F7. */
Test(fault, fallback_when_a_smaller_entry_is_in_range)
{
	struct view *v = huge_file(true), *other = shared_view(A);

	view_fault(other, 400, false, 0);
	view_unmap(other);
	cr_expect_eq(view_fault(v, 5, false, FOLIO_ORDER), VM_FAULT_FALLBACK);
	cr_expect_eq(A->mapping.nrpages, 1);
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_NOPAGE);
	cr_expect_eq(A->mapping.nrpages, 2);
}

/* Scenario 11: F8. */
Test(fault, fallback_when_the_extent_is_short_and_the_placeholder_goes)
{
	struct view *v;

	huge_file(false);
	for (uint64_t i = 0; i < 500; i++)
		file_fill(A, i, 'a');
	v = shared_view(A);
	cr_expect_eq(view_fault(v, 5, false, FOLIO_ORDER), VM_FAULT_FALLBACK);
	cr_expect_eq(A->mapping.nrpages, 512);
	cr_expect(dax_is_empty_entry(file_entry(A, 511)));
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_NOPAGE);
	cr_expect_eq(A->mapping.nrpages, 1);
}

/* Scenario 11: F9. */
Test(fault, fallback_when_direct_access_is_short_and_the_placeholder_goes)
{
	struct view *v = huge_file(true);

	fs->short_access = 100 * BLOCK_SIZE;
	expect_fallback(v, 5, true, "F9");
}

/* Scenario 11: F10. */
Test(fault, fallback_of_a_write_without_a_block)
{
	struct view *v = huge_file(false);

	fs->write_hole = true;
	expect_fallback(v, 5, true, "F10");
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 1);
}

/* Scenario 11: F11. */
Test(fault, fallback_without_a_huge_zero_folio)
{
	struct view *v = huge_file(false);

	fs->dev->huge_zero_pfn = 0;
	expect_fallback(v, 5, false, "F11");
}

/* Section 3: a fallback takes the order-9 mapping that is there away. */
Test(fault, fallback_zaps_a_huge_mapping)
{
	struct view *v = huge_file(true);

	view_fault(v, 5, false, FOLIO_ORDER);
	fs->short_access = BLOCK_SIZE;
	cr_expect_eq(view_fault(v, 5, true, FOLIO_ORDER), VM_FAULT_FALLBACK);
	cr_expect_null(view_pte(v, 5));
	expect_counts(file_folio(A, 5), 0, 0);
}

/* Scenario 12, B14. */
Test(fault, order_9_does_not_wait_for_a_smaller_locked_entry)
{
	struct view *v = huge_file(false);
	void *entry;

	view_fault(v, 3, false, 0);
	view_unmap(v);
	entry = entry_lock(A, 3);
	cr_expect_eq(view_fault(v, 0, false, FOLIO_ORDER), VM_FAULT_FALLBACK);
	cr_expect_eq(view_fault(v, 0, true, FOLIO_ORDER), VM_FAULT_FALLBACK);
	entry_unlock(A, 3, entry);
}

static _Atomic(bool) in_hook;

/* Holds up the downgrade until three others wait for the entry. */
static void wait_for_three(struct memfile *file, uint64_t index, uint64_t nr)
{
	fs->on_unmap = NULL;
	cr_expect_eq(index, 0);
	cr_expect_eq(nr, 512);
	atomic_store(&in_hook, true);
	until(entry_waiters(file, 0) == 3);
}

/* Scenario 13, B1, B16. */
Test(fault, page_write_to_a_huge_hole_removes_it_and_wakes_all)
{
	struct view *v = huge_file(false), *v2 = shared_view(A);
	struct job writer = { .view = v, .index = 100, .write = true };
	struct job readers[3] = {
		{ .view = v2, .index = 0 },
		{ .view = v2, .index = 300 },
		{ .view = v2, .index = 511 },
	};

	cr_expect_eq(view_fault(v2, 9, false, FOLIO_ORDER), VM_FAULT_NOPAGE);
	cr_expect(dax_is_zero_entry(file_entry(A, 400)));
	cr_expect(dax_is_pmd_entry(file_entry(A, 400)));
	cr_expect_eq(A->mapping.nrpages, 512);
	fs->on_unmap = wait_for_three;
	job_start(&writer, job_fault);
	until(atomic_load(&in_hook));
	for (int i = 0; i < 3; i++)
		job_start(&readers[i], job_fault);
	job_end(&writer);
	for (int i = 0; i < 3; i++)
		cr_expect_eq(job_end(&readers[i]), VM_FAULT_NOPAGE);
	cr_expect(dax_is_real_entry(file_entry(A, 100)));
	cr_expect(dax_is_zero_entry(file_entry(A, 300)));
	cr_expect_null(file_entry(A, 101));
	cr_expect_eq(A->mapping.nrpages, 4);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 0);
}

/* Scenario 14. */
Test(fault, page_write_within_a_huge_block_dirties_all_of_it)
{
	struct view *v = huge_file(true), *v2 = shared_view(A);
	struct folio *folio;
	void *entry;

	view_fault(v, 0, false, FOLIO_ORDER);
	entry = file_entry(A, 0);
	folio = file_folio(A, 0);
	cr_expect_eq(view_fault(v2, 9, true, 0), VM_FAULT_NOPAGE);
	cr_expect_eq(file_entry(A, 9), entry);
	cr_expect(file_marked(A, 400, DAX_MARK_DIRTY));
	expect_counts(folio, 2, 2);
	cr_expect_eq(view_pte(v2, 9)->pfn, file_pfn(A, 9));
	cr_expect_eq(A->mapping.nrpages, 512);
}

/* Scenario 14: the page table is huge already, so there is nothing to do. */
Test(fault, page_fault_under_a_huge_mapping_is_retried)
{
	struct view *v = huge_file(true);

	view_fault(v, 0, false, FOLIO_ORDER);
	cr_expect_eq(view_fault(v, 9, false, 0), VM_FAULT_NOPAGE);
	expect_counts(file_folio(A, 0), 1, 1);
	/* And the other way round. */
	view_unmap(v);
	view_fault(v, 9, false, 0);
	cr_expect_eq(view_fault(v, 0, false, FOLIO_ORDER), 0);
	expect_counts(file_folio(A, 0), 1, 1);
}

/* Scenario 15, B2. */
Test(fault, last_entry_of_a_huge_folio_leaves_512_small_ones)
{
	struct view *v = huge_file(true);
	uint32_t pfn = file_pfn(A, 0);

	view_fault(v, 0, true, FOLIO_ORDER);
	cr_expect_eq(dax_break_layout_inode(&A->mapping, NULL), 0);
	cr_expect_eq(A->mapping.nrpages, 0);
	for (uint32_t i = pfn; i < pfn + 512; i++) {
		struct folio *page = folio_page(fs->dev->folios, i);

		cr_assert_eq(folio_head(page), page);
		cr_assert_eq(folio_pgmap(page), fs->dev->folios);
		cr_assert_eq(folio_order(page), 0);
		cr_assert(folio_is_free(page));
	}
	cr_expect_eq(view_fault(v, 9, false, 0), VM_FAULT_NOPAGE);
	expect_sole(file_folio(A, 9), A, 9);
	cr_expect_eq(dax_break_layout_inode(&A->mapping, NULL), 0);
	cr_expect_eq(view_fault(v, 9, false, FOLIO_ORDER), VM_FAULT_NOPAGE);
	cr_expect_eq(folio_order(file_folio(A, 9)), FOLIO_ORDER);
}

/* Scenario 16. */
Test(fault, bad_direct_access_is_a_bus_error_or_a_fallback)
{
	struct view *v = huge_file(true);
	struct folio *folio = folio_at(fs->dev->folios, file_pfn(A, 5));
	int err;

	fs->short_access = 100;
	cr_expect_eq(view_fault_err(v, 5, false, 0, &err), VM_FAULT_SIGBUS);
	cr_expect_eq(err, -EINVAL);
	fs->short_access = -EIO;
	cr_expect_eq(view_fault_err(v, 5, false, 0, &err), VM_FAULT_SIGBUS);
	cr_expect_eq(err, -EIO);
	fs->short_access = -ENOMEM;
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_OOM);
	fs->short_access = 0;
	dax_break_layout_inode(&A->mapping, NULL);
	fs->shift_access = 1; /* misaligned */
	cr_expect_eq(view_fault(v, 5, false, FOLIO_ORDER), VM_FAULT_FALLBACK);
	fs->shift_access = 0;
	folio_set_poison(fs->dev->folios, file_pfn(A, 5), true);
	cr_expect_eq(view_fault(v, 9, false, FOLIO_ORDER), VM_FAULT_FALLBACK);
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_SIGBUS);
	cr_expect_eq(view_fault(v, 9, false, 0), VM_FAULT_NOPAGE);
	expect_counts(folio, 0, 0);
	expect_share(folio, 0);
	cr_expect(dax_is_empty_entry(file_entry(A, 5)));
}

/* Scenario 17. */
Test(fault, failed_mapping_drops_the_hold_and_unlocks)
{
	struct view *v;
	struct waiter w;

	file_fill(A, 5, 'a');
	v = shared_view(A);
	wait_prepare(&w, &A->mapping.i_pages, 5, true, NULL);
	fs->fail_map = -ENOMEM;
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_OOM);
	cr_expect(w.woken);
	wait_cancel(&w);
	expect_counts(file_folio(A, 5), 0, 0);
	cr_expect_not(dax_is_locked(file_entry(A, 5)));
	fs->fail_map = -EIO;
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_SIGBUS);
	fs->fail_map = 0;
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_NOPAGE);
	expect_counts(file_folio(A, 5), 1, 1);
}

static unsigned int now_fails, wait_fails;

static void *poor_alloc(void *ctx, size_t size, bool may_wait)
{
	unsigned int *nr = may_wait ? &wait_fails : &now_fails;

	(void)ctx;
	if (*nr == 0)
		return calloc(1, size);
	--*nr;
	return NULL;
}

static void poor_free(void *ctx, void *node)
{
	(void)ctx;
	free(node);
}

/* Scenario 18. */
Test(fault, index_without_memory_is_retried_once_it_has_some)
{
	const struct xa_mem poor = { poor_alloc, poor_free, NULL };
	struct view *v;

	file_fill(A, 5, 'a');
	v = shared_view(A);
	A->mapping.i_pages.mem = &poor;
	now_fails = wait_fails = 1;
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_OOM);
	cr_expect_eq(A->mapping.nrpages, 0);
	cr_expect(xa_empty(&A->mapping.i_pages));
	now_fails = 1;
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_NOPAGE);
	cr_expect_eq(A->mapping.nrpages, 1);
	expect_counts(file_folio(A, 5), 1, 1);
	/* The tree goes before its memory does. */
	dax_break_layout_inode(&A->mapping, NULL);
	A->mapping.i_pages.mem = NULL;
}

/* Scenario 19. */
Test(fault, private_store_copies_and_survives_a_break)
{
	struct view *v;
	unsigned char byte;
	uint32_t pfn = file_fill(A, 5, 'a');

	v = view_open(A, 0, 10, 0);
	cr_expect_eq(view_fault(v, 5, true, 0), VM_FAULT_DONE_COW);
	cr_expect_eq(view_pte(v, 5)->anon[0], 'a');
	cr_expect_eq(view_fault(v, 6, true, 0), VM_FAULT_DONE_COW);
	cr_expect_eq(view_pte(v, 6)->anon[BLOCK_SIZE - 1], 0);
	expect_counts(folio_at(fs->dev->folios, pfn), 0, 0);
	expect_share(folio_at(fs->dev->folios, pfn), 0);
	cr_expect_not(xa_marked(&A->mapping.i_pages, DAX_MARK_DIRTY));
	view_store(v, 5, 'p');
	cr_expect_eq(dax_break_layout_inode(&A->mapping, NULL), 0);
	cr_assert(view_pte(v, 5));
	view_load(v, 5, &byte);
	cr_expect_eq(byte, 'p');
	cr_expect_eq(file_byte(A, 5 * BLOCK_SIZE), 'a');
}

/* Section 3, step 5. */
Test(fault, errors_of_the_filesystem_reach_the_fault)
{
	struct view *v = shared_view(A);
	int err;

	fs->fail_begin = -ENOSPC;
	cr_expect_eq(view_fault_err(v, 5, true, 0, &err), VM_FAULT_SIGBUS);
	cr_expect_eq(err, -ENOSPC);
	fs->fail_begin = -ENOMEM;
	cr_expect_eq(view_fault(v, 5, true, 0), VM_FAULT_OOM);
	fs->fail_begin = 0;
	cr_expect_not(dax_is_locked(file_entry(A, 5)));
}

/* Section 7: flushing a cache line has to be enough for MAP_SYNC. */
Test(fault, device_that_needs_msync_is_not_synchronous)
{
	char path[] = "/var/tmp/dax-test-XXXXXX";
	struct dax_device page = { .pm = NULL };
	int fd = mkstemp(path);

	cr_expect(dax_device_synchronous(fs->dev));
	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, (off_t)CHUNK_SIZE), 0);
	close(fd);
	cr_assert_eq(
		pmem_open(path, PMEM_READ_WRITE, PMEM_PAGE, &page.pm, NULL), 0);
	unlink(path);
	cr_expect_not(dax_device_synchronous(&page));
	pmem_close(page.pm);
}

/* A block that was moved behind the back of dax/ is not mapped. */
Test(fault, block_that_moved_without_a_break_is_refused)
{
	struct view *v;

	file_fill(A, 5, 'a');
	v = shared_view(A);
	view_fault(v, 5, false, 0);
	view_unmap(v);
	fs->shift_access = 1;
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_SIGBUS);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 1);
	fs->shift_access = 0;
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_NOPAGE);
}
