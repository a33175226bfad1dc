/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_failure.c - poison, and pages that are none of the device
 */
#include "tests/dax/support/common.h"

TestSuite(failure, .init = common_setup, .fini = common_teardown,
	  .timeout = 30);

static void holder(void)
{
	fs->dev->holder_ops = &memfs_holder_ops;
	fs->dev->holder = fs;
}

static int notify(uint32_t pfn)
{
	return dax_notify_failure(fs->dev, (uint64_t)pfn << BLOCK_SHIFT,
				  BLOCK_SIZE, 0);
}

/* Scenario 69. */
Test(failure, bad_shared_page_reaches_all_three_owners)
{
	uint32_t pfn = file_fill(A, 4, 's');
	struct view *v[3];
	unsigned char byte;

	file_share_raw(A, 4, B, 5);
	file_share_raw(A, 4, C, 6);
	v[0] = shared_view(A);
	v[1] = shared_view(B);
	v[2] = shared_view(C);
	for (uint64_t i = 0; i < 3; i++)
		view_load(v[i], 4 + i, &byte);
	expect_share(folio_at(fs->dev->folios, pfn), 3);
	holder();
	cr_expect_eq(notify(pfn), 0);
	for (uint64_t i = 0; i < 3; i++) {
		cr_expect_null(view_pte(v[i], 4 + i));
		cr_expect_eq(view_load(v[i], 4 + i, &byte), -EFAULT);
	}
	cr_expect_eq(file_read(B, 5 * BLOCK_SIZE, &byte, 1), -EIO);
	expect_counts(folio_at(fs->dev->folios, pfn), 0, 0);
}

/* Scenario 69: without reverse mapping a shared page has no name. */
Test(failure, bad_shared_page_without_reverse_mapping_is_busy)
{
	uint32_t pfn = file_fill(A, 4, 's');
	struct view *va = shared_view(A), *vb = shared_view(B);

	file_share_raw(A, 4, B, 5);
	view_fault(va, 4, false, 0);
	cr_expect_eq(notify(pfn), 0, "one owner: the folio knows it");
	cr_expect_null(view_pte(va, 4));
	folio_set_poison(fs->dev->folios, pfn, false);
	view_fault(va, 4, false, 0);
	view_fault(vb, 5, false, 0);
	cr_expect_eq(notify(pfn), -EBUSY);
	cr_expect_eq(notify(77), 0, "nobody's");
}

/* Scenario 69. */
Test(failure, bad_metadata_shuts_down)
{
	holder();
	fs->metadata_pfn = 100;
	cr_expect_eq(notify(100), 0);
	cr_expect(fs->shut_down);
}

static int not_ready(void *ctx, uint64_t off, uint64_t len, unsigned int flags)
{
	(void)ctx;
	(void)off;
	(void)len;
	(void)flags;
	return -EIO;
}

/* Scenario 69. */
Test(failure, answer_of_the_holder_is_the_answer)
{
	static const struct dax_holder_ops ops = { .notify_failure =
							   not_ready };

	fs->dev->holder_ops = &ops;
	cr_expect_eq(notify(100), -EIO);
}

/* Section 8: the entry may be locked when the owner is looked up. */
Test(failure, lock_of_a_folios_owner_waits_for_the_entry)
{
	uint32_t pfn = file_fill(A, 4, 'a');
	struct view *v = shared_view(A);
	struct address_space *mapping;
	uint64_t index;
	void *entry;

	cr_expect_null(dax_lock_folio(folio_at(fs->dev->folios, pfn), &mapping,
				      &index));
	view_fault(v, 4, false, 0);
	entry = dax_lock_folio(file_folio(A, 4), &mapping, &index);
	cr_expect_eq(mapping, &A->mapping);
	cr_expect_eq(index, 4);
	cr_expect(dax_is_locked(file_entry(A, 4)));
	dax_unlock_folio(mapping, index, entry);
	cr_expect_not(dax_is_locked(file_entry(A, 4)));
}

/* Scenario 70, B7. */
Test(failure, pages_behind_the_device_have_no_record)
{
	struct view *v;
	unsigned char byte;

	fs->huge = true;
	atomic_store(&A->size, 1024 * BLOCK_SIZE);
	v = shared_view(A);
	cr_expect_geq(fs->dev->zero_pfn, fs->dev->folios->nr_pages);
	cr_expect_geq(fs->dev->huge_zero_pfn, fs->dev->folios->nr_pages);
	view_load(v, 600, &byte);
	view_fault(v, 0, false, FOLIO_ORDER);
	fs->short_access = -EIO;
	view_fault(v, 601, true, 0); /* leaves an empty entry */
	fs->short_access = 0;
	cr_expect(dax_is_empty_entry(file_entry(A, 601)));
	cr_expect_null(dax_layout_busy_page_range(&A->mapping, 0,
						  DAX_LAYOUT_END, NULL));
	view_load(v, 600, &byte);
	cr_expect_eq(notify(50), 0);
	dax_kill_owners(&A->mapping, 0, 1024);
	cr_expect_eq(view_fault(v, 602, true, 0) & VM_FAULT_ERROR, 0);
	cr_expect_eq(dax_break_layout_inode(&A->mapping, NULL), 0);
	cr_expect_eq(A->mapping.nrpages, 0);
	view_load(v, 600, &byte);
	mapping_truncate(&A->mapping, 0);
	cr_expect_eq(A->mapping.nrpages, 0);
}
