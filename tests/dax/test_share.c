/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_share.c - shared extents, copy on write, synchronous faults
 */
#include "tests/dax/support/common.h"

TestSuite(share, .init = common_setup, .fini = common_teardown, .timeout = 20);

static struct view *va, *vb, *vc;

/* One block at page @i of A, B and C. */
static uint32_t share_abc(uint64_t i)
{
	uint32_t pfn = file_fill(A, i, 's');

	file_share_raw(A, i, B, i);
	file_share_raw(A, i, C, i);
	va = shared_view(A);
	vb = shared_view(B);
	vc = shared_view(C);
	return pfn;
}

/* Scenario 20. */
Test(share, second_reader_makes_the_owner_a_count)
{
	uint32_t pfn = share_abc(4);
	struct folio *folio = folio_at(fs->dev->folios, pfn);

	view_fault(va, 4, false, 0);
	expect_sole(folio, A, 4);
	cr_expect_not(folio_is_shared(folio), "only one has touched it");
	view_fault(vb, 4, false, 0);
	expect_share(folio, 2);
	cr_expect(folio_is_shared(folio));
	expect_counts(folio, 2, 2);
	cr_expect_not(view_pte(va, 4)->write);
	cr_expect_not(view_pte(vb, 4)->write);
}

/* Scenario 21. */
Test(share, sharers_go_one_by_one_and_leave_nothing)
{
	uint32_t pfn = share_abc(4);
	struct folio *folio = folio_at(fs->dev->folios, pfn);

	view_fault(va, 4, false, 0);
	view_fault(vb, 4, false, 0);
	view_fault(vc, 4, false, 0);
	expect_share(folio, 3);
	file_evict(C);
	expect_share(folio, 2);
	file_evict(B);
	expect_share(folio, 1);
	file_evict(A);
	expect_share(folio, 0);
	cr_expect(folio_is_free(folio));
	cr_expect_eq(fs->nr_used, 0);
}

/* Scenario 22, B9. */
Test(share, index_of_the_last_owner_is_not_read_as_a_share)
{
	uint32_t pfn = share_abc(5);
	struct folio *folio = folio_at(fs->dev->folios, pfn);

	view_fault(va, 5, false, 0);
	dax_break_layout_inode(&A->mapping, NULL);
	expect_share(folio, 0);
	file_share_raw(A, 5, B, 9);
	view_fault(vb, 9, false, 0);
	expect_sole(folio, B, 9);
	view_fault(vc, 5, false, 0);
	expect_share(folio, 2);
}

/* Scenario 23. */
Test(share, one_block_twice_in_a_file_is_counted_twice)
{
	uint32_t pfn = file_fill(A, 1, 's');
	struct view *v;

	file_share_raw(A, 1, A, 2);
	v = shared_view(A);
	cr_expect_eq(view_fault(v, 1, false, 0), VM_FAULT_NOPAGE);
	cr_expect_eq(view_fault(v, 2, false, 0), VM_FAULT_NOPAGE);
	expect_share(folio_at(fs->dev->folios, pfn), 2);
}

/* Scenario 23, B8. */
Test(share, shared_block_that_is_not_flagged_is_refused)
{
	uint32_t pfn = file_fill(A, 1, 's');
	struct view *v;
	int err;

	file_share_raw(A, 1, A, 2);
	fs->hide_shared = true;
	v = shared_view(A);
	cr_expect_eq(view_fault(v, 1, false, 0), VM_FAULT_NOPAGE);
	cr_expect_eq(view_fault_err(v, 2, false, 0, &err), VM_FAULT_SIGBUS);
	cr_expect_eq(err, -EUCLEAN);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 1);
	expect_sole(folio_at(fs->dev->folios, pfn), A, 1);
}

static int fault_and_evict(struct job *job)
{
	struct address_space *m = &job->file->mapping;
	struct file_break fb;
	int ret = 0;

	file_break_init(&fb, job->file, NULL);
	for (int i = 0; i < 300 && !ret; i++) {
		view_fault(job->view, 4, false, 0);
		rwsem_down_write(&m->invalidate_lock, LOCK_INVALIDATE);
		/* The other file's faults hold the folio for a moment. */
		ret = dax_break_layout_inode(m, &fb.brk);
		rwsem_up_write(&m->invalidate_lock);
	}
	return ret;
}

/* Scenario 24, B10. */
Test(share, counts_of_two_inodes_do_not_get_lost)
{
	uint32_t pfn = share_abc(4);
	struct job jobs[8];

	/* C keeps the folio shared all the time. */
	view_fault(vc, 4, false, 0);
	for (int i = 0; i < 8; i++) {
		jobs[i] = (struct job){ .file = i % 2 ? A : B,
					.view = i % 2 ? va : vb };
		job_start(&jobs[i], fault_and_evict);
	}
	for (int i = 0; i < 8; i++)
		cr_expect_eq(job_end(&jobs[i]), 0);
	memfs_check(fs, NULL);
	cr_expect_not(folio_is_free(folio_at(fs->dev->folios, pfn)));
}

/* Scenario 25, B12. */
Test(share, one_disassociate_too_many_is_caught, .signal = SIGABRT)
{
	struct folio *folio = folio_page(fs->dev->folios, 9);

	folio_associate(fs->dev->folios, 9, 0, &A->mapping, 1, true);
	folio_associate(fs->dev->folios, 9, 0, &B->mapping, 1, true);
	folio_disassociate(folio, &A->mapping, false);
	folio_disassociate(folio, &B->mapping, false);
	if (!folio_is_free(folio))
		_exit(1);
	folio_disassociate(folio, &B->mapping, false);
}

/* Scenario 26, on X. */
Test(share, unshared_association_of_an_owned_folio_is_caught, .signal = SIGABRT)
{
	folio_associate(fs->dev->folios, 9, 0, &A->mapping, 1, false);
	folio_associate(fs->dev->folios, 9, 0, &B->mapping, 1, false);
}

/* Scenario 26, on S(1). */
Test(share, unshared_association_of_a_shared_folio_is_caught, .signal = SIGABRT)
{
	folio_associate(fs->dev->folios, 9, 0, &A->mapping, 1, true);
	folio_associate(fs->dev->folios, 9, 0, &B->mapping, 1, true);
	folio_disassociate(folio_page(fs->dev->folios, 9), &A->mapping, false);
	folio_associate(fs->dev->folios, 9, 0, &B->mapping, 1, false);
}

static struct view *huge_a(void)
{
	fs->huge = true;
	atomic_store(&A->size, 512 * BLOCK_SIZE);
	atomic_store(&B->size, 512 * BLOCK_SIZE);
	file_fill_huge(A, 0, 'h');
	return shared_view(A);
}

/* Scenario 27, R-b: a page of a huge folio is not taken on its own. */
Test(share, page_of_a_huge_folio_is_refused_to_another_file)
{
	struct view *v = huge_a();
	struct folio *folio;
	int err;

	view_fault(v, 0, false, FOLIO_ORDER);
	folio = file_folio(A, 0);
	file_share_raw(A, 9, B, 0);
	vb = shared_view(B);
	cr_expect_eq(view_fault_err(vb, 0, false, 0, &err), VM_FAULT_SIGBUS);
	cr_expect_eq(err, -EEXIST);
	expect_sole(folio, A, 0);
	cr_expect_eq(folio_order(folio), FOLIO_ORDER);
}

/* Scenario 27, R-b: shared extents are mapped by pages. */
Test(share, huge_fault_on_a_shared_extent_falls_back)
{
	struct view *v = huge_a();

	for (uint64_t i = 0; i < 512; i++)
		file_share_raw(A, i, B, i);
	vb = shared_view(B);
	cr_expect_eq(view_fault(v, 0, false, FOLIO_ORDER), VM_FAULT_FALLBACK);
	cr_expect_eq(view_fault(v, 3, false, 0), VM_FAULT_NOPAGE);
	cr_expect_eq(view_fault(vb, 0, false, FOLIO_ORDER), VM_FAULT_FALLBACK);
	cr_expect_eq(view_fault(vb, 3, false, 0), VM_FAULT_NOPAGE);
	expect_share(file_folio(A, 3), 2);
	cr_expect_eq(folio_order(file_folio(A, 3)), 0);
}

/* A huge copy on write gives a private huge block. */
Test(share, huge_store_to_a_shared_extent_copies_it_huge)
{
	struct view *v = huge_a();
	unsigned char byte;

	for (uint64_t i = 0; i < 512; i++)
		file_share_raw(A, i, B, i);
	cr_expect_eq(view_fault(v, 5, true, FOLIO_ORDER), VM_FAULT_NOPAGE);
	cr_expect_eq(folio_order(file_folio(A, 5)), FOLIO_ORDER);
	expect_sole(file_folio(A, 5), A, 0);
	cr_expect_neq(file_pfn(A, 5), file_pfn(B, 5));
	view_store(v, 5, 'x');
	view_load(v, 6, &byte);
	cr_expect_eq(byte, 'h');
	cr_expect_eq(file_byte(B, 5 * BLOCK_SIZE), 'h');
}

/* Scenario 28, R-c. */
Test(share, page_copy_inside_a_huge_entry_removes_the_entry)
{
	struct view *v = huge_a(), *v2 = shared_view(A);
	unsigned char byte;
	uint32_t new;

	view_store_huge(v, 8, 'd');
	view_fault(v, 9, false, FOLIO_ORDER);
	file_share_raw(A, 9, B, 0);
	fs->huge = false;
	cr_expect_eq(view_fault(v2, 9, true, 0), VM_FAULT_NOPAGE);
	new = file_pfn(A, 9);
	cr_expect_neq(new, file_pfn(B, 0));
	cr_expect_eq(dax_to_pfn(file_entry(A, 9)), new);
	cr_expect_eq(dax_entry_order(file_entry(A, 9)), 0);
	for (uint64_t i = 0; i < 512; i++)
		if (i != 9)
			cr_assert_null(file_entry(A, i));
	cr_expect_eq(A->mapping.nrpages, 1);
	view_load(v, 8, &byte);
	cr_expect_eq(byte, 'd');
	cr_expect_eq(dax_to_pfn(file_entry(A, 8)), file_pfn(A, 8));
	/* What was dirty in the rest was flushed, since the mark is gone. */
	cr_expect_not(file_marked(A, 8, DAX_MARK_DIRTY));
}

static uint64_t flushed_pfn;
static bool was_flushed;

static void note_flush(void *ctx, enum pmem_event event, uint64_t off,
		       const void *data, size_t len)
{
	(void)ctx;
	(void)data;
	if (event == PMEM_EVENT_FLUSH && off <= flushed_pfn << BLOCK_SHIFT &&
	    off + len >= (flushed_pfn + 1) << BLOCK_SHIFT)
		was_flushed = true;
}

/* R-c: the mark goes with the entry, so the data must not need it. */
Test(share, dirty_neighbours_are_flushed_before_the_huge_entry_goes)
{
	const struct pmem_recorder rec = { note_flush, NULL };
	struct view *v = huge_a(), *v2 = shared_view(A);

	view_store_huge(v, 8, 'd');
	file_share_raw(A, 9, B, 0);
	fs->huge = false;
	flushed_pfn = file_pfn(A, 8);
	pmem_record(fs->pm, &rec);
	view_fault(v2, 9, true, 0);
	pmem_record(fs->pm, NULL);
	cr_expect(was_flushed);
}

/* Scenario 29, R-a. */
Test(share, refault_of_a_pinned_shared_page_keeps_the_share)
{
	uint32_t pfn = share_abc(4);
	struct folio *folio = folio_at(fs->dev->folios, pfn), *pin;

	view_fault(vb, 4, false, 0);
	cr_assert_eq(dax_pin(&va->vma, 4, 0, &pin), 0);
	cr_expect_eq(pin, folio);
	expect_share(folio, 2);
	view_unmap(va);
	cr_expect_eq(view_fault(va, 4, false, 0), VM_FAULT_NOPAGE);
	expect_share(folio, 2);
	folio_put(pin);
	expect_counts(folio, 2, 2);
}

/* R-a on X: upstream goes through U here, and would trip over the pin. */
Test(share, refault_by_the_only_toucher_keeps_it_sole)
{
	uint32_t pfn = share_abc(4);
	struct folio *folio = folio_at(fs->dev->folios, pfn), *pin;

	cr_assert_eq(dax_pin(&va->vma, 4, 0, &pin), 0);
	view_unmap(va);
	cr_expect_eq(view_fault(va, 4, false, 0), VM_FAULT_NOPAGE);
	expect_sole(folio, A, 4);
	folio_put(pin);
}

/* Scenario 30. */
Test(share, write_copies_and_leaves_the_old_block_to_the_other)
{
	uint32_t old = share_abc(4);
	struct view *va2 = shared_view(A);
	unsigned char byte;

	view_fault(va2, 4, false, 0);
	view_fault(vb, 4, false, 0);
	expect_share(folio_at(fs->dev->folios, old), 2);
	cr_expect_eq(view_fault(va, 4, true, 0), VM_FAULT_NOPAGE);
	cr_expect_neq(file_pfn(A, 4), old);
	expect_sole(file_folio(A, 4), A, 4);
	expect_share(folio_at(fs->dev->folios, old), 1);
	cr_expect(file_marked(A, 4, DAX_MARK_DIRTY));
	cr_expect(file_marked(A, 4, DAX_MARK_TOWRITE));
	cr_expect_null(view_pte(va2, 4), "the old mapping is gone");
	view_load(va, 4, &byte);
	cr_expect_eq(byte, 's');
	view_store(va, 4, 'n');
	view_load(vb, 4, &byte);
	cr_expect_eq(byte, 's');
	view_load(va2, 4, &byte);
	cr_expect_eq(byte, 'n');
}

/* Scenario 31. */
Test(share, copy_of_a_hole_is_zeros)
{
	static const enum iomap_type types[] = { IOMAP_HOLE, IOMAP_UNWRITTEN };
	unsigned char buf[BLOCK_SIZE];

	for (int t = 0; t < 2; t++) {
		uint64_t i = (uint64_t)t * 2;
		unsigned char byte = 9;
		struct view *v;

		file_fill(A, i, 's');
		file_fill(A, i + 1, 's');
		file_share_raw(A, i, B, i);
		file_share_raw(A, i + 1, B, i + 1);
		fs->src = types[t];
		v = shared_view(A);
		view_fault(v, i, true, 0);
		view_load(v, i, &byte);
		cr_expect_eq(byte, 0);
		cr_expect_eq(
			file_write(A, (i + 1) * BLOCK_SIZE + 100, "xyz", 3), 3);
		file_read(A, (i + 1) * BLOCK_SIZE, buf, sizeof(buf));
		cr_expect_eq(buf[99], 0);
		cr_expect_arr_eq(buf + 100, "xyz", 3);
		cr_expect_eq(buf[103], 0);
		cr_expect_eq(buf[BLOCK_SIZE - 1], 0);
	}
}

/* What of one block is durable, byte by byte. */
static struct {
	uint64_t start;
	unsigned char state[BLOCK_SIZE]; /* 1 stored, 2 flushed, 3 durable */
} track;

static void track_event(void *ctx, enum pmem_event event, uint64_t off,
			const void *data, size_t len)
{
	(void)ctx;
	(void)data;
	for (uint64_t i = 0; i < BLOCK_SIZE; i++) {
		unsigned char *s = &track.state[i];
		uint64_t at = track.start + i;
		bool in = at >= off && at < off + len;

		if (event == PMEM_EVENT_STORE && in)
			*s = 1;
		else if (event == PMEM_EVENT_FLUSH && in && *s == 1)
			*s = 2;
		else if (event == PMEM_EVENT_FENCE && *s == 2)
			*s = 3;
	}
}

/* Scenario 32. */
Test(share, edges_of_a_small_write_are_durable_with_it)
{
	const struct pmem_recorder rec = { track_event, NULL };
	unsigned char data[100];
	uint32_t pfn;

	share_abc(4);
	memset(data, 'n', sizeof(data));
	/* The allocator goes upwards: the next block is the new one. */
	track.start = fs->next << BLOCK_SHIFT;
	pmem_record(fs->pm, &rec);
	cr_expect_eq(file_write(A, 4 * BLOCK_SIZE + 1000, data, 100), 100);
	pmem_record(fs->pm, NULL);
	pfn = file_pfn(A, 4);
	cr_assert_eq((uint64_t)pfn << BLOCK_SHIFT, track.start);
	for (uint64_t i = 0; i < BLOCK_SIZE; i++) {
		bool new = i >= 1000 && i < 1100;

		cr_assert_eq(track.state[i], 3, "byte %d", (int)i);
		cr_assert_eq(file_byte(A, 4 * BLOCK_SIZE + i), new ? 'n' : 's');
	}
	cr_expect_eq(file_byte(B, 4 * BLOCK_SIZE + 1000), 's');
}

/* Scenario 33, B19. */
Test(share, poisoned_source_cancels_the_copy)
{
	uint32_t old = share_abc(4);
	uint64_t used = fs->nr_used;
	int err;

	view_fault(va, 4, false, 0);
	folio_set_poison(fs->dev->folios, old, true);
	cr_expect_eq(view_fault_err(va, 4, true, 0, &err), VM_FAULT_SIGBUS);
	cr_expect_eq(err, -EIO);
	cr_expect_eq(file_pfn(A, 4), old);
	cr_expect_eq(fs->nr_used, used);
	cr_expect_eq(dax_to_pfn(file_entry(A, 4)), old);
	cr_expect_eq(file_write(A, 4 * BLOCK_SIZE + 5, "x", 1), -EIO);
	cr_expect_eq(file_pfn(A, 4), old);
	cr_expect_eq(fs->nr_used, used);
	fs->fail_cancel = -ENOSPC;
	cr_expect_eq(file_write(A, 4 * BLOCK_SIZE + 5, "x", 1), -ENOSPC);
	view_fault_err(va, 4, true, 0, &err);
	cr_expect_eq(err, -ENOSPC);
	fs->fail_cancel = 0;
}

/* The filesystem cannot commit: nothing of the new block may stay. */
Test(share, failed_commit_takes_the_entry_back)
{
	uint32_t old = share_abc(4);

	view_fault(va, 4, false, 0);
	fs->fail_commit = -ENOSPC;
	cr_expect_eq(view_fault(va, 4, true, 0), VM_FAULT_SIGBUS);
	fs->fail_commit = 0;
	cr_expect_eq(file_pfn(A, 4), old);
	cr_expect(dax_is_empty_entry(file_entry(A, 4)));
	cr_expect_not(file_marked(A, 4, DAX_MARK_DIRTY));
	cr_expect_null(view_pte(va, 4));
	cr_expect(folio_is_free(folio_at(fs->dev->folios, old)));
	cr_expect_eq(view_fault(va, 4, false, 0), VM_FAULT_NOPAGE);
	expect_sole(folio_at(fs->dev->folios, old), A, 4);
}

/* Scenario 34, B17. */
Test(share, write_to_a_shared_block_removes_a_dirty_entry)
{
	uint32_t old = file_fill(A, 4, 'a');
	unsigned char byte;

	va = shared_view(A);
	view_store(va, 4, 'd');
	cr_assert(file_marked(A, 4, DAX_MARK_DIRTY));
	file_share_raw(A, 4, B, 4);
	cr_expect_eq(file_write(A, 4 * BLOCK_SIZE + 1, "n", 1), 1);
	cr_expect_null(file_entry(A, 4));
	cr_expect_null(view_pte(va, 4));
	cr_expect_neq(file_pfn(A, 4), old);
	cr_expect(folio_is_free(folio_at(fs->dev->folios, old)));
	view_load(va, 4, &byte);
	cr_expect_eq(byte, 'd');
	cr_expect_eq(file_byte(A, 4 * BLOCK_SIZE + 1), 'n');
	cr_expect_eq(file_byte(B, 4 * BLOCK_SIZE), 'd');
}

/* The same inside a huge entry: what is dirty around it is flushed first. */
Test(share, write_that_cuts_a_dirty_huge_entry_flushes_the_rest)
{
	const struct pmem_recorder rec = { note_flush, NULL };
	struct view *v = huge_a();

	view_store_huge(v, 8, 'd');
	file_share_raw(A, 9, B, 0);
	fs->huge = false;
	flushed_pfn = file_pfn(A, 8);
	pmem_record(fs->pm, &rec);
	cr_expect_eq(file_write(A, 9 * BLOCK_SIZE, "n", 1), 1);
	pmem_record(fs->pm, NULL);
	cr_expect(was_flushed);
	cr_expect_eq(A->mapping.nrpages, 0);
	cr_expect_eq(file_byte(A, 8 * BLOCK_SIZE), 'd');
}

/* Scenario 34: a new block where there was none leaves dirty ones alone. */
Test(share, write_to_a_hole_removes_clean_entries_only)
{
	XA_STATE(xas, &A->mapping.i_pages, 4);

	va = shared_view(A);
	view_fault(va, 3, false, 0);
	view_fault(va, 4, false, 0);
	xas_lock(&xas);
	xas_load(&xas);
	xas_set_mark(&xas, DAX_MARK_DIRTY);
	xas_unlock(&xas);
	cr_expect_eq(file_write(A, 3 * BLOCK_SIZE, "n", 1), 1);
	cr_expect_null(file_entry(A, 3));
	cr_expect_null(view_pte(va, 3));
	cr_expect_eq(file_write(A, 4 * BLOCK_SIZE, "n", 1), 1);
	cr_expect(file_entry(A, 4));
	dax_clear_dirty_range(&A->mapping, 4, 4);
}

static struct view *sync_view(void)
{
	file_fill(A, 5, 'a');
	fs->metadata_dirty = true;
	return view_open(A, 0, 10, DAX_VMA_SHARED | DAX_VMA_SYNC);
}

static struct view *seen_view;

static void not_yet(struct memfile *file)
{
	fs->on_fsync = NULL;
	cr_expect_null(view_pte(seen_view, 5));
	cr_expect_not(file_marked(file, 5, DAX_MARK_DIRTY));
	expect_counts(file_folio(file, 5), 0, 0);
}

/* Scenario 35. */
Test(share, synchronous_store_waits_for_the_metadata)
{
	struct view *v = seen_view = sync_view();

	fs->on_fsync = not_yet;
	cr_expect_eq(view_fault(v, 5, true, 0), VM_FAULT_NOPAGE);
	cr_expect_null(fs->on_fsync, "it was called");
	cr_expect(view_pte(v, 5)->write);
	cr_expect(file_marked(A, 5, DAX_MARK_DIRTY));
	expect_counts(file_folio(A, 5), 1, 1);
}

/* Scenario 35. */
Test(share, synchronous_store_without_commit_is_a_bus_error)
{
	struct view *v = sync_view();

	fs->fail_fsync = -EIO;
	cr_expect_eq(view_fault(v, 5, true, 0), VM_FAULT_SIGBUS);
	cr_expect_null(view_pte(v, 5));
	cr_expect_not(file_marked(A, 5, DAX_MARK_DIRTY));
	/* A read, or a vma without MAP_SYNC, does not ask. */
	cr_expect_eq(view_fault(v, 5, false, 0), VM_FAULT_NOPAGE);
	cr_expect_eq(view_fault(shared_view(A), 5, true, 0), VM_FAULT_NOPAGE);
}

static void remove_it(struct memfile *file)
{
	fs->on_fsync = NULL;
	dax_delete_mapping_range(&file->mapping, 0, DAX_LAYOUT_END);
}

static void repoint_it(struct memfile *file)
{
	uint32_t pfn;

	remove_it(file);
	file_fill(file, 5, 'b');
	pfn = file_pfn(file, 5);
	folio_associate(fs->dev->folios, pfn, 0, &file->mapping, 5, false);
	xa_store(&file->mapping.i_pages, 5, 0, dax_make_entry(pfn, 0));
	file->mapping.nrpages++;
}

/* Scenario 36. */
Test(share, synchronous_store_refaults_when_the_entry_changed)
{
	struct view *v = sync_view();

	fs->on_fsync = remove_it;
	cr_expect_eq(view_fault(v, 5, true, 0), VM_FAULT_NOPAGE);
	cr_expect_null(view_pte(v, 5), "gone");
	fs->on_fsync = repoint_it;
	cr_expect_eq(view_fault(v, 5, true, 0), VM_FAULT_NOPAGE);
	cr_expect_null(view_pte(v, 5), "another block");
	cr_expect_eq(view_fault(v, 5, true, 0), VM_FAULT_NOPAGE);
	cr_expect_eq(view_pte(v, 5)->pfn, file_pfn(A, 5), "the layout now");
}

static void downgrade_in_fsync(struct memfile *file)
{
	fs->on_fsync = NULL;
	dax_delete_mapping_range(&file->mapping, 0, DAX_LAYOUT_END);
	xa_store(&file->mapping.i_pages, 5, 0, dax_make_entry(0, DAX_EMPTY));
	file->mapping.nrpages++;
}

/* Scenario 36, order 9: what is there now is smaller. */
Test(share, synchronous_huge_store_refaults_when_downgraded)
{
	struct view *v;

	huge_a();
	fs->metadata_dirty = true;
	v = view_open(A, 0, 512, DAX_VMA_SHARED | DAX_VMA_SYNC);
	fs->on_fsync = downgrade_in_fsync;
	cr_expect_eq(view_fault(v, 5, true, FOLIO_ORDER), VM_FAULT_NOPAGE);
	cr_expect_null(view_pte(v, 5));
	cr_expect_eq(A->mapping.nrpages, 1);
}
