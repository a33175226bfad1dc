/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_writeback.c - what was stored through mappings is durable
 */
#include "tests/dax/support/common.h"

TestSuite(writeback, .init = common_setup, .fini = common_teardown,
	  .timeout = 30);

/* Flushed bytes, and whether a fence came after each flush. */
static struct {
	uint64_t bytes, first;
	bool fenced;
} flushes;

static void count_flush(void *ctx, enum pmem_event event, uint64_t off,
			const void *data, size_t len)
{
	(void)ctx;
	(void)data;
	if (event == PMEM_EVENT_FLUSH) {
		if (!flushes.bytes)
			flushes.first = off;
		flushes.bytes += len;
		flushes.fenced = false;
	} else if (event == PMEM_EVENT_FENCE) {
		flushes.fenced = true;
	}
}

static const struct pmem_recorder rec = { count_flush, NULL };

static struct view *dirty(uint64_t first, uint64_t nr)
{
	struct view *v;

	for (uint64_t i = first; i < first + nr; i++)
		file_fill(A, i, 'a');
	v = shared_view(A);
	for (uint64_t i = first; i < first + nr; i++)
		view_store(v, i, 'd');
	return v;
}

/* Scenario 62. */
Test(writeback, middle_of_a_huge_entry_flushes_all_of_it)
{
	struct view *v, *v2;

	fs->huge = true;
	atomic_store(&A->size, 512 * BLOCK_SIZE);
	file_fill_huge(A, 0, 'h');
	v = shared_view(A);
	v2 = shared_view(A);
	view_store_huge(v, 3, 'd');
	view_store(v2, 300, 'e');
	pmem_record(fs->pm, &rec);
	cr_expect_eq(dax_writeback_mapping_range(&A->mapping, 100 * BLOCK_SIZE,
						 101 * BLOCK_SIZE - 1,
						 DAX_WB_ALL),
		     0);
	pmem_record(fs->pm, NULL);
	cr_expect_eq(flushes.bytes, CHUNK_SIZE);
	cr_expect_eq(flushes.first, (uint64_t)file_pfn(A, 0) << BLOCK_SHIFT);
	cr_expect(flushes.fenced);
	cr_expect_not(view_pte(v, 3)->write);
	cr_expect_not(view_pte(v2, 300)->write);
	cr_expect_not(file_marked(A, 9, DAX_MARK_DIRTY));
	cr_expect_not(file_marked(A, 9, DAX_MARK_TOWRITE));
	view_store(v2, 300, 'f');
	cr_expect(file_marked(A, 9, DAX_MARK_DIRTY));
}

static struct job storer;

/* Between write protection and flush: a store has to fault, and waits. */
static void store_now(struct memfile *file, uint64_t index)
{
	fs->on_wrprotect = NULL;
	job_start(&storer, job_fault);
	until(entry_waiters(file, index) == 1);
}

/* Scenario 63. */
Test(writeback, store_during_fsync_waits_and_marks_again)
{
	struct view *v = dirty(4, 1);

	storer = (struct job){ .view = v, .index = 4, .write = true };
	fs->on_wrprotect = store_now;
	cr_expect_eq(file_fsync(A), 0);
	cr_expect_eq(job_end(&storer), VM_FAULT_NOPAGE);
	cr_expect(file_marked(A, 4, DAX_MARK_DIRTY));
	cr_expect(view_pte(v, 4)->write);
}

static int store_in_a_loop(struct job *job)
{
	unsigned char byte = 0;

	while (!atomic_load(&job->stop))
		if (view_store(job->view, 4, ++byte))
			return -1;
	return 0;
}

/* Scenario 63: a page that is writable is dirty, always. */
Test(writeback, writable_pages_are_never_clean)
{
	struct view *v = dirty(4, 1);
	struct job job = { .view = v };

	job_start(&job, store_in_a_loop);
	for (int i = 0; i < 2000; i++) {
		XA_STATE(xas, &A->mapping.i_pages, 4);
		const void *entry;
		const struct pte *p;

		cr_assert_eq(file_fsync(A), 0);
		xas_lock(&xas);
		entry = xas_load(&xas);
		mutex_lock(&fs->mmu);
		p = &v->ptes[4];
		if (p->present && p->write && !dax_is_locked(entry))
			cr_assert(xas_get_mark(&xas, DAX_MARK_DIRTY));
		mutex_unlock(&fs->mmu);
		xas_unlock(&xas);
	}
	atomic_store(&job.stop, true);
	cr_expect_eq(job_end(&job), 0);
}

static _Atomic(bool) in_first, go_on;

static void stop_first(struct memfile *file, uint64_t index)
{
	(void)file;
	(void)index;
	fs->on_wrprotect = NULL;
	atomic_store(&in_first, true);
	until(atomic_load(&go_on));
}

static int job_fsync(struct job *job)
{
	return file_fsync(job->file);
}

/* Scenario 64. */
Test(writeback, second_fsync_returns_after_the_first_has_flushed)
{
	struct job first = { .file = A }, second = { .file = A };

	dirty(4, 1);
	fs->on_wrprotect = stop_first;
	job_start(&first, job_fsync);
	until(atomic_load(&in_first));
	job_start(&second, job_fsync);
	until(entry_waiters(A, 4) == 1);
	cr_expect_not(atomic_load(&second.done));
	atomic_store(&go_on, true);
	cr_expect_eq(job_end(&first), 0);
	cr_expect_eq(job_end(&second), 0);
	cr_expect_not(file_marked(A, 4, DAX_MARK_DIRTY));
	cr_expect_not(file_marked(A, 4, DAX_MARK_TOWRITE));
}

/* Scenario 64: what it waited for is another block by now. */
Test(writeback, entry_that_was_replaced_meanwhile_is_skipped)
{
	struct job job = { .file = A };
	uint32_t pfn;
	void *entry;
	XA_STATE(xas, &A->mapping.i_pages, 4);

	dirty(4, 1);
	entry = entry_lock(A, 4);
	job_start(&job, job_fsync);
	until(entry_waiters(A, 4) == 1);
	dax_drop_locked_entry(&xas, entry);
	pfn = file_fill(B, 0, 'b');
	xas_lock(&xas);
	folio_associate(fs->dev->folios, pfn, 0, &A->mapping, 4, false);
	xas_reset(&xas);
	xas_store(&xas, dax_make_entry(pfn, 0));
	xas_set_mark(&xas, DAX_MARK_TOWRITE);
	A->mapping.nrpages++;
	xas_unlock(&xas);
	cr_expect_eq(job_end(&job), 0);
	/* Whether it saw the new entry or none, it did not flush it. */
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_written_back), 0);
	dax_break_layout_inode(&A->mapping, NULL);
}

/* Scenario 65. */
Test(writeback, background_writeback_does_nothing)
{
	dirty(4, 1);
	pmem_record(fs->pm, &rec);
	cr_expect_eq(dax_writeback_mapping_range(&A->mapping, 0, DAX_LAYOUT_END,
						 DAX_WB_NONE),
		     0);
	pmem_record(fs->pm, NULL);
	cr_expect_eq(flushes.bytes, 0);
	cr_expect(file_marked(A, 4, DAX_MARK_DIRTY));
	A->mapping.block_shift = 10;
	cr_expect_eq(file_fsync(A), -EIO);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 1);
}

static void fail_second(struct memfile *file, uint64_t index)
{
	(void)file;
	if (index == 4)
		fs->fail_wrprotect = -EIO;
}

/* Scenario 65. */
Test(writeback, first_error_is_returned_and_the_rest_keeps_its_marks)
{
	dirty(4, 4);
	fs->on_wrprotect = fail_second;
	cr_expect_eq(file_fsync(A), -EIO);
	cr_expect_eq(atomic_load(&A->mapping.wb_err), -EIO);
	cr_expect_not(file_marked(A, 4, DAX_MARK_DIRTY));
	for (uint64_t i = 5; i < 8; i++)
		cr_expect(file_marked(A, i, DAX_MARK_DIRTY));
	fs->fail_wrprotect = 0;
	fs->on_wrprotect = NULL;
	cr_expect_eq(file_fsync(A), 0);
	cr_expect_not(xa_marked(&A->mapping.i_pages, DAX_MARK_DIRTY));
}

static void mark(uint64_t index, enum xa_mark m)
{
	XA_STATE(xas, &A->mapping.i_pages, index);

	xas_lock(&xas);
	xas_load(&xas);
	xas_set_mark(&xas, m);
	xas_unlock(&xas);
}

/* Scenario 66, both ways to get there. */
Test(writeback, marked_hole_is_an_error_and_not_flushed)
{
	struct view *v = shared_view(A);
	struct job job = { .file = A };
	void *entry;

	view_fault(v, 4, false, 0);
	mark(4, DAX_MARK_DIRTY);
	pmem_record(fs->pm, &rec);
	cr_expect_eq(file_fsync(A), -EIO);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 1);
	entry = entry_lock(A, 4);
	job_start(&job, job_fsync);
	until(entry_waiters(A, 4) == 1);
	entry_unlock(A, 4, entry);
	cr_expect_eq(job_end(&job), -EIO);
	pmem_record(fs->pm, NULL);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 2);
	cr_expect_eq(flushes.bytes, 0);
	cr_expect_not(dax_is_locked(file_entry(A, 4)));
}

/* Section 7: an entry that becomes dirty later is not ours. */
Test(writeback, order_of_marks_survives_many_entries)
{
	struct view *v = dirty(0, 10);

	cr_expect_eq(dax_writeback_mapping_range(&A->mapping, 2 * BLOCK_SIZE,
						 6 * BLOCK_SIZE - 1,
						 DAX_WB_ALL),
		     0);
	for (uint64_t i = 0; i < 10; i++) {
		bool in = i >= 2 && i < 6;

		cr_expect_eq(file_marked(A, i, DAX_MARK_DIRTY), !in);
		cr_expect_eq(view_pte(v, i)->write, !in);
	}
}
