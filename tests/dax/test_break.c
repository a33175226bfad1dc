/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_break.c - layout breaks, and who holds them up
 */
#include <time.h>

#include "tests/dax/support/common.h"

TestSuite(brk, .init = common_setup, .fini = common_teardown, .timeout = 30);

static struct view *va;

/* All ten pages of A, mapped. */
static void map_a(void)
{
	for (uint64_t i = 0; i < 10; i++)
		file_fill(A, i, (unsigned char)('a' + i));
	va = shared_view(A);
	for (uint64_t i = 0; i < 10; i++)
		view_fault(va, i, false, 0);
}

static struct folio *pin(struct view *v, uint64_t index, unsigned int flags)
{
	struct folio *folio = NULL;

	cr_assert_eq(dax_pin(&v->vma, index, flags, &folio), 0);
	return folio;
}

/* Break without truncating: what the operations below have in common. */
static int job_break(struct job *job)
{
	struct rwsem *lock = &job->file->mapping.invalidate_lock;
	struct file_break fb;
	int ret;

	file_break_init(&fb, job->file, &job->task);
	rwsem_down_write(lock, LOCK_INVALIDATE);
	ret = dax_break_layout(&job->file->mapping, job->index << BLOCK_SHIFT,
			       job->index2, &fb.brk);
	rwsem_up_write(lock);
	return ret;
}

/* The scan alone: 1 if it found something busy. */
static int job_scan(struct job *job)
{
	return dax_layout_busy_page_range(&job->file->mapping,
					  job->index << BLOCK_SHIFT,
					  job->index2, NULL) != NULL;
}

static int job_evict(struct job *job)
{
	file_evict(job->file);
	return 0;
}

static void until_asleep_on(const struct folio *folio)
{
	until(wait_count(folio, 0) == 1);
}

static bool is_free(struct rwsem *lock)
{
	if (!rwsem_trydown_write(lock, LOCK_INVALIDATE))
		return false;
	rwsem_up_write(lock);
	return true;
}

/* Scenario 37. */
Test(brk, nobody_pinned_means_no_sleep_and_no_entries)
{
	map_a();
	cr_expect_eq(file_truncate(A, 10, true, NULL), 0);
	cr_expect_eq(A->mapping.nrpages, 0);
	cr_expect(xa_empty(&A->mapping.i_pages));
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_break_waits), 0);
	for (uint64_t i = 0; i < 10; i++)
		cr_expect_null(view_pte(va, i));
}

/* Scenario 38: mapped nowhere, and still busy. */
Test(brk, pinned_and_unmapped_page_holds_it_up)
{
	struct job job = { .file = A, .index = 10 };
	struct folio *folio;

	map_a();
	folio = pin(va, 5, FOLL_WRITE);
	view_close(va);
	job_start(&job, job_truncate);
	until_asleep_on(folio);
	cr_expect_not(atomic_load(&job.done));
	folio_put(folio);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_eq(A->mapping.nrpages, 0);
}

/* Scenario 39. */
Test(brk, sleep_drops_the_lock_and_entries_go_after_the_unpin)
{
	struct job job = { .file = A, .index = 0 };
	struct folio *folio;
	uint32_t pfn;

	map_a();
	pfn = file_pfn(A, 5);
	folio = pin(va, 5, FOLL_WRITE);
	job_start(&job, job_truncate);
	until_asleep_on(folio);
	until(is_free(&A->mapping.invalidate_lock));
	cr_expect_eq(A->mapping.nrpages, 10);
	cr_expect_eq(file_pfn(A, 5), pfn);
	folio_put(folio);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_eq(A->mapping.nrpages, 0);
	cr_expect_eq(file_pfn(A, 5), 0);
	cr_expect_eq(fs->state[pfn], BLOCK_FREE);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_break_waits), 1);
}

/* Scenario 40. */
Test(brk, interrupted_break_leaves_the_entries)
{
	struct job job = { .file = A, .index = 0 };
	struct folio *folio;

	map_a();
	folio = pin(va, 5, FOLL_WRITE);
	job_start(&job, job_truncate);
	until_asleep_on(folio);
	dax_task_interrupt(&job.task);
	cr_expect_eq(job_end(&job), -EINTR);
	cr_expect_eq(A->mapping.nrpages, 10);
	cr_expect_null(view_pte(va, 3));
	cr_expect_eq(view_fault(va, 3, false, 0), VM_FAULT_NOPAGE);
	cr_expect_eq(atomic_load(&A->size), 10 * BLOCK_SIZE);
	folio_put(folio);
}

/* Scenario 41. */
Test(brk, busy_break_that_cannot_wait_says_so_at_once)
{
	struct folio *folio;

	map_a();
	folio = pin(va, 5, FOLL_WRITE);
	cr_expect_eq(file_truncate(A, 0, false, NULL), -EAGAIN);
	cr_expect_eq(A->mapping.nrpages, 10);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_break_waits), 0);
	folio_put(folio);
}

/* Scenario 42, B13. */
Test(brk, idle_break_that_cannot_wait_succeeds)
{
	map_a();
	cr_expect_eq(dax_break_layout_inode(&A->mapping, NULL), 0);
	cr_expect_eq(dax_break_layout_inode(&B->mapping, NULL), 0);
	cr_expect_eq(A->mapping.nrpages, 0);
	B->mapping.dax = false;
	cr_expect_eq(dax_break_layout_inode(&B->mapping, NULL), 0);
}

/* Scenario 43. */
Test(brk, end_0_is_page_0_and_end_max_is_the_whole_file)
{
	struct folio *folio;
	uint64_t index = 77;

	map_a();
	folio = pin(va, 5, FOLL_WRITE);
	cr_expect_eq(dax_break_layout(&A->mapping, 0, 0, NULL), 0);
	cr_expect_null(file_entry(A, 0));
	cr_expect_null(view_pte(va, 0));
	cr_expect(view_pte(va, 1));
	cr_expect_eq(A->mapping.nrpages, 9);
	cr_expect_eq(dax_layout_busy_page_range(&A->mapping, 0, DAX_LAYOUT_END,
						&index),
		     folio);
	cr_expect_eq(index, 5);
	cr_expect_eq(dax_break_layout(&A->mapping, 0, DAX_LAYOUT_END, NULL),
		     -EAGAIN);
	cr_expect_eq(dax_break_layout(&A->mapping, 0, 5 * BLOCK_SIZE - 1, NULL),
		     0);
	cr_expect_eq(A->mapping.nrpages, 5);
	folio_put(folio);
}

/* Scenario 44, B3. */
Test(brk, scan_waits_at_the_locked_entry)
{
	struct job job = { .file = A, .index = 4, .index2 = 6 * BLOCK_SIZE };
	struct folio *folio;
	void *entry;

	map_a();
	folio = pin(va, 4, FOLL_WRITE);
	entry = entry_lock(A, 4);
	job_start(&job, job_break);
	until(entry_waiters(A, 4) == 1);
	cr_expect(file_entry(A, 5));
	entry_unlock(A, 4, entry);
	until_asleep_on(folio);
	cr_expect(file_entry(A, 5), "5 does not go before 4");
	folio_put(folio);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_null(file_entry(A, 4));
	cr_expect_null(file_entry(A, 5));
	cr_expect_eq(A->mapping.nrpages, 7);
}

static void remove_locked(struct memfile *file, uint64_t index, void *entry)
{
	XA_STATE(xas, &file->mapping.i_pages, index);

	dax_drop_locked_entry(&xas, entry);
}

/* Scenario 45. */
Test(brk, scan_goes_on_when_the_entry_it_waits_for_goes)
{
	struct job job = { .file = A, .index = 4, .index2 = 6 * BLOCK_SIZE };
	struct folio *folio;
	void *entry;

	map_a();
	folio = pin(va, 5, FOLL_WRITE);
	entry = entry_lock(A, 4);
	job_start(&job, job_break);
	until(entry_waiters(A, 4) == 1);
	remove_locked(A, 4, entry);
	until_asleep_on(folio);
	folio_put(folio);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_eq(A->mapping.nrpages, 7);
}

/* Scenario 46, B15. */
Test(brk, removal_wakes_all_ten_waiters)
{
	struct job jobs[10];
	void *entry;

	map_a();
	entry = entry_lock(A, 4);
	for (int i = 0; i < 10; i++) {
		jobs[i] = (struct job){ .view = va, .index = 4 };
		view_unmap(va);
		job_start(&jobs[i], job_fault);
	}
	until(entry_waiters(A, 4) == 10);
	remove_locked(A, 4, entry);
	/* The first to come makes a new entry; all of them get through. */
	for (int i = 0; i < 10; i++)
		cr_expect_eq(job_end(&jobs[i]), VM_FAULT_NOPAGE);
	expect_sole(file_folio(A, 4), A, 4);
}

/* Looks at the entry, and does nothing that would wake anybody. */
static int job_look(struct job *job)
{
	XA_STATE(xas, &job->file->mapping.i_pages, job->index);

	dax_entry_begin(&job->file->mapping);
	xas_lock(&xas);
	dax_wait_entry_unlocked(&xas, xas_load(&xas));
	xas_unlock(&xas);
	dax_entry_end(&job->file->mapping);
	return 0;
}

static int job_delete(struct job *job)
{
	dax_delete_mapping_range(&job->file->mapping, job->index << BLOCK_SHIFT,
				 job->index << BLOCK_SHIFT);
	return 0;
}

/* Scenario 46, B15: waiters who do not pass the turn on themselves. */
Test(brk, delete_wakes_those_who_only_look)
{
	struct job jobs[10], deleter = { .file = A, .index = 4 };
	void *entry;

	map_a();
	view_unmap(va);
	entry = entry_lock(A, 4);
	/* First in the queue, so that the unlock wakes it. */
	job_start(&deleter, job_delete);
	until(entry_waiters(A, 4) == 1);
	for (int i = 0; i < 10; i++) {
		jobs[i] = (struct job){ .file = A, .index = 4 };
		job_start(&jobs[i], job_look);
	}
	until(entry_waiters(A, 4) == 11);
	entry_unlock(A, 4, entry);
	job_end(&deleter);
	for (int i = 0; i < 10; i++)
		job_end(&jobs[i]);
	cr_expect_null(file_entry(A, 4));
}

/* B16: who was woken and does not lock passes the turn on. */
Test(brk, scan_passes_its_turn_on_to_the_next_waiter)
{
	struct job scan = { .file = A, .index = 4, .index2 = 6 * BLOCK_SIZE };
	struct job fault = { .index = 4 };
	struct folio *folio;
	void *entry;

	map_a();
	fault.view = va;
	folio = pin(va, 4, FOLL_WRITE);
	view_unmap(va);
	entry = entry_lock(A, 4);
	job_start(&fault, job_fault);
	until(entry_waiters(A, 4) == 1);
	/* The scan would keep faults out, so it comes without its lock. */
	job_start(&scan, job_scan);
	until(entry_waiters(A, 4) == 2);
	entry_unlock(A, 4, entry);
	cr_expect_eq(job_end(&fault), VM_FAULT_NOPAGE);
	cr_expect_eq(job_end(&scan), 1);
	/* And in the other order. */
	view_unmap(va);
	entry = entry_lock(A, 4);
	job_start(&scan, job_scan);
	until(entry_waiters(A, 4) == 1);
	job_start(&fault, job_fault);
	until(entry_waiters(A, 4) == 2);
	entry_unlock(A, 4, entry);
	cr_expect_eq(job_end(&scan), 1);
	cr_expect_eq(job_end(&fault), VM_FAULT_NOPAGE);
	folio_put(folio);
}

static int job_invalidate(struct job *job)
{
	return dax_invalidate_range(&job->file->mapping, job->index,
				    job->index);
}

/* Scenario 46, B15. */
Test(brk, refused_invalidation_wakes_all_ten_waiters)
{
	struct job jobs[10], refused = { .file = A, .index = 4 };
	void *entry;

	map_a();
	view_store(va, 4, 'd');
	entry = entry_lock(A, 4);
	job_start(&refused, job_invalidate);
	until(entry_waiters(A, 4) == 1);
	for (int i = 0; i < 10; i++) {
		jobs[i] = (struct job){ .file = A, .index = 4 };
		job_start(&jobs[i], job_look);
	}
	until(entry_waiters(A, 4) == 11);
	entry_unlock(A, 4, entry);
	cr_expect_not(job_end(&refused), "it is dirty");
	for (int i = 0; i < 10; i++)
		job_end(&jobs[i]);
	cr_expect(file_entry(A, 4));
}

/* Scenario 47. */
Test(brk, waiters_for_other_keys_sleep_on)
{
	uint64_t other = 1;
	struct waiter w1, w2;

	while (!wait_same_queue(A, 0, A, other))
		other++;
	wait_prepare(&w2, A, other, true, NULL);
	wait_prepare(&w1, A, 0, true, NULL);
	cr_expect_eq(wait_wake(A, 0, WAKE_NEXT), 1);
	cr_expect(w1.woken);
	cr_expect_not(w2.woken);
	wait_cancel(&w1);
	wait_cancel(&w2);
}

static _Atomic(int) nr_begins;

static void hold_first(struct memfile *file, uint64_t pos)
{
	if (atomic_fetch_add(&nr_begins, 1) == 0)
		until(entry_waiters(file, pos >> BLOCK_SHIFT) == 2);
}

/* Scenario 48, B16. */
Test(brk, three_readers_of_one_hole_all_get_through)
{
	struct job jobs[3];

	va = shared_view(A);
	fs->on_begin = hold_first;
	for (int i = 0; i < 3; i++) {
		jobs[i] = (struct job){ .view = va, .index = 4 };
		job_start(&jobs[i], job_fault);
	}
	for (int i = 0; i < 3; i++)
		cr_expect_eq(job_end(&jobs[i]), VM_FAULT_NOPAGE);
	cr_expect(dax_is_zero_entry(file_entry(A, 4)));
}

/* Scenario 49, H1, B11. */
Test(brk, mapping_through_another_file_does_not_hold_it_up)
{
	struct job job = { .file = A, .index = 0 };
	struct folio *folio;
	struct view *vb;

	map_a();
	file_share_raw(A, 5, B, 5);
	vb = shared_view(B);
	view_fault(vb, 5, false, 0);
	view_unmap(va);
	folio = pin(va, 5, 0);
	expect_share(folio, 2);
	job_start(&job, job_truncate);
	until_asleep_on(folio);
	folio_put(folio);
	cr_expect_eq(job_end(&job), 0);
	expect_counts(folio, 1, 1);
	expect_share(folio, 1);
	cr_expect(view_pte(vb, 5));
}

/* Scenario 50, H1. */
Test(brk, new_fault_on_the_pinned_page_is_unmapped_again)
{
	struct job job = { .file = A, .index = 0 };
	struct folio *folio;

	map_a();
	folio = pin(va, 5, FOLL_WRITE);
	job_start(&job, job_truncate);
	until_asleep_on(folio);
	cr_expect_eq(view_fault(va, 5, false, 0), VM_FAULT_NOPAGE);
	expect_counts(folio, 2, 1);
	folio_put(folio);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_null(view_pte(va, 5));
	expect_counts(folio, 0, 0);
}

/* Scenario 51, H2. */
Test(brk, holder_of_the_pin_can_fault_another_page)
{
	struct job job = { .file = A, .index = 0 };
	struct folio *first, *second;

	map_a();
	first = pin(va, 5, FOLL_WRITE);
	job_start(&job, job_truncate);
	until_asleep_on(first);
	second = pin(va, 6, FOLL_WRITE);
	folio_put(second);
	folio_put(first);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_eq(A->mapping.nrpages, 0);
}

/* Short direct I/O, as long as there is a page. */
static int job_direct_io(struct job *job)
{
	struct folio *folio;

	while (!atomic_load(&job->stop)) {
		rwsem_down_read(&job->file->i_rwsem, LOCK_INODE);
		if (dax_pin(&job->view->vma, 5, FOLL_WRITE, &folio) == 0)
			folio_put(folio);
		rwsem_up_read(&job->file->i_rwsem);
	}
	return 0;
}

/* Scenario 52, H3. */
Test(brk, endless_direct_io_does_not_starve_truncate)
{
	struct job io[2];

	map_a();
	for (int i = 0; i < 2; i++) {
		io[i] = (struct job){ .file = A, .view = va };
		job_start(&io[i], job_direct_io);
	}
	for (uint64_t i = 0; i < 20; i++) {
		uint64_t before = atomic_load(&fs->dev->stat.nr_break_waits);

		cr_expect_eq(file_truncate(A, 10, true, NULL), 0);
		cr_expect_leq(atomic_load(&fs->dev->stat.nr_break_waits) -
				      before,
			      2, "no new pins come while i_rwsem is held");
	}
	for (int i = 0; i < 2; i++) {
		atomic_store(&io[i].stop, true);
		job_end(&io[i]);
	}
}

static uint64_t cpu_ns(pthread_t thread)
{
	struct timespec ts;
	clockid_t clock;

	pthread_getcpuclockid(thread, &clock);
	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Scenario 53, H4. */
Test(brk, reflink_sleeps_without_locks_while_the_second_file_is_pinned)
{
	struct job job = { .file = A, .other = B };
	struct folio *folio;
	struct view *vb;
	uint64_t cpu;

	map_a();
	file_fill(B, 2, 'z');
	vb = shared_view(B);
	folio = pin(vb, 2, FOLL_WRITE);
	job_start(&job, job_reflink);
	until_asleep_on(folio);
	until(is_free(&A->mapping.invalidate_lock));
	until(is_free(&B->mapping.invalidate_lock));
	cpu = cpu_ns(job.thread);
	usleep(20000);
	cr_expect_lt(cpu_ns(job.thread) - cpu, 5000000, "it does not spin");
	dax_task_interrupt(&job.task);
	cr_expect_eq(job_end(&job), -EINTR);
	cr_expect(file_entry(B, 2));

	job.task = (struct dax_task){ .interrupted = false };
	job_start(&job, job_reflink);
	until_asleep_on(folio);
	folio_put(folio);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_eq(A->mapping.nrpages, 0);
	cr_expect_eq(B->mapping.nrpages, 0);
	cr_expect_eq(file_pfn(A, 5), file_pfn(B, 5));
}

static int job_many_reflinks(struct job *job)
{
	unsigned char byte;

	for (int i = 0; i < 200; i++) {
		if (file_reflink(job->file, job->other, true, NULL))
			return -1;
		view_load(job->view, 3, &byte);
	}
	return 0;
}

/* Scenario 54. */
Test(brk, reflinks_in_both_directions_and_onto_itself_do_not_deadlock)
{
	struct job ab = { .file = A, .other = B },
		   ba = { .file = B, .other = A };

	map_a();
	file_fill(B, 3, 'z');
	ab.view = va;
	ba.view = shared_view(B);
	cr_expect_eq(file_reflink(A, A, true, NULL), 0);
	cr_expect(is_free(&A->mapping.invalidate_lock));
	job_start(&ab, job_many_reflinks);
	job_start(&ba, job_many_reflinks);
	cr_expect_eq(job_end(&ab), 0);
	cr_expect_eq(job_end(&ba), 0);
	view_unmap(ab.view);
	view_unmap(ba.view);
}

/* Scenario 54: DAX and not DAX do not go together. */
Test(brk, pair_of_dax_and_not_dax_is_refused)
{
	B->mapping.dax = false;
	cr_expect_eq(file_reflink(A, B, true, NULL), -EINVAL);
	B->mapping.dax = true;
}

/* Scenario 55. */
Test(brk, write_pin_on_the_source_holds_reflink_up)
{
	struct job job = { .file = A, .other = B };
	struct folio *folio, *again;

	map_a();
	folio = pin(va, 5, FOLL_WRITE);
	job_start(&job, job_reflink);
	until_asleep_on(folio);
	cr_expect_eq(file_pfn(B, 5), 0);
	folio_put(folio);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_eq(file_pfn(A, 5), file_pfn(B, 5));
	/* A new write pin gets a block of A's own. */
	again = pin(va, 5, FOLL_WRITE);
	cr_expect_neq(file_pfn(A, 5), file_pfn(B, 5));
	cr_expect_eq(folio_pfn(again), file_pfn(A, 5));
	folio_put(again);
}

static struct {
	uint64_t off;
	bool flushed, fenced, had_entry;
} seen;

static void watch(void *ctx, enum pmem_event event, uint64_t off,
		  const void *data, size_t len)
{
	(void)ctx;
	(void)data;
	if (event == PMEM_EVENT_FLUSH && off <= seen.off &&
	    seen.off < off + len) {
		seen.flushed = true;
		seen.had_entry = file_entry(A, 5) != NULL;
	}
	if (event == PMEM_EVENT_FENCE && seen.flushed)
		seen.fenced = true;
}

/* Scenario 56, H7. */
Test(brk, dirty_source_is_written_back_before_its_entries_go)
{
	const struct pmem_recorder rec = { watch, NULL };

	map_a();
	view_store(va, 5, 'd');
	seen.off = (uint64_t)file_pfn(A, 5) << BLOCK_SHIFT;
	pmem_record(fs->pm, &rec);
	cr_expect_eq(file_reflink(A, B, true, NULL), 0);
	pmem_record(fs->pm, NULL);
	cr_expect(seen.flushed && seen.fenced && seen.had_entry);
	cr_expect_null(file_entry(A, 5));
	cr_expect_eq(file_byte(B, 5 * BLOCK_SIZE), 'd');
}

/* Scenario 57, H6. */
Test(brk, range_that_cuts_a_huge_entry_unmaps_all_of_it)
{
	struct view *v2;
	struct folio *folio;

	fs->huge = true;
	atomic_store(&A->size, 1024 * BLOCK_SIZE);
	file_fill_huge(A, 0, 'h');
	file_fill_huge(A, 512, 'i');
	va = shared_view(A);
	v2 = shared_view(A);
	view_fault(va, 0, false, FOLIO_ORDER);
	view_fault(v2, 400, true, 0);
	view_fault(v2, 600, true, 0);
	folio = file_folio(A, 0);
	expect_counts(folio, 2, 2);
	cr_expect_eq(dax_break_layout(&A->mapping, 0, 0, NULL), 0);
	cr_expect_null(view_pte(v2, 400));
	cr_expect(view_pte(v2, 600));
	cr_expect_null(file_entry(A, 400));
	expect_counts(folio, 0, 0);
	cr_expect_eq(folio_order(folio), 0);
	/* And at the other end of a range. */
	view_fault(va, 0, false, FOLIO_ORDER);
	view_fault(v2, 400, true, 0);
	cr_expect_eq(A->mapping.nrpages, 513);
	cr_expect_eq(dax_break_layout(&A->mapping, 511 * BLOCK_SIZE,
				      512 * BLOCK_SIZE, NULL),
		     0);
	cr_expect_eq(A->mapping.nrpages, 1);
	cr_expect_null(view_pte(v2, 400));
	cr_expect(view_pte(v2, 600));
}

/* Scenario 58, B4, B5. */
Test(brk, eviction_waits_for_the_pin_and_ignores_interruption)
{
	struct job job = { .file = A };
	struct folio *folio;
	uint32_t pfn;

	map_a();
	pfn = file_pfn(A, 5);
	folio = pin(va, 5, FOLL_WRITE);
	view_close(va);
	job_start(&job, job_evict);
	until_asleep_on(folio);
	dax_task_interrupt(&job.task);
	usleep(5000);
	cr_expect_not(atomic_load(&job.done));
	cr_expect_eq(fs->state[pfn], BLOCK_USED);
	folio_put(folio);
	job_end(&job);
	/* As a new mount would find it. */
	cr_expect_eq(fs->state[pfn], BLOCK_FREE);
	cr_expect(dax_block_idle(fs->dev->folios, pfn, 1));
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 0);
}

/* Scenario 59, A11. */
Test(brk, truncate_without_final_break_warns_and_ends)
{
	map_a();
	A->skip_final = true;
	file_evict(A);
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 10);
}

/* What scenario 60 does with A, whose page 5 is pinned. */
static int op_grow(struct job *job)
{
	return file_truncate(A, 20, true, &job->task);
}

static int op_open_trunc(struct job *job)
{
	return file_truncate(A, 0, true, &job->task);
}

static int op_punch(struct job *job)
{
	return file_fallocate(A, FILE_PUNCH, 2, 1, true, &job->task);
}

static int op_zero(struct job *job)
{
	return file_fallocate(A, FILE_ZERO, 2, 1, true, &job->task);
}

static int op_collapse(struct job *job)
{
	return file_fallocate(A, FILE_COLLAPSE, 2, 1, true, &job->task);
}

static int op_insert(struct job *job)
{
	return file_fallocate(A, FILE_INSERT, 2, 1, true, &job->task);
}

static int op_exchange(struct job *job)
{
	return file_exchange(B, A, true, &job->task);
}

static int (*const ops[])(struct job *job) = {
	op_grow,     op_open_trunc, op_punch,	 op_zero,
	op_collapse, op_insert,	    op_exchange,
};

/* Scenario 60. */
Test(brk, every_operation_that_moves_blocks_waits_for_pins)
{
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		struct job job = { .file = A };
		struct folio *folio;
		uint32_t pfn[10];

		if (!file_pfn(A, 0))
			map_a();
		atomic_store(&A->size, 10 * BLOCK_SIZE);
		folio = pin(va, 5, FOLL_WRITE);
		for (uint64_t k = 0; k < 10; k++)
			pfn[k] = file_pfn(A, k);
		job_start(&job, ops[i]);
		until_asleep_on(folio);
		dax_task_interrupt(&job.task);
		cr_expect_eq(job_end(&job), -EINTR, "operation %d", (int)i);
		for (uint64_t k = 0; k < 10; k++)
			cr_expect_eq(file_pfn(A, k), pfn[k]);
		cr_expect_eq(atomic_load(&A->size), 10 * BLOCK_SIZE);
		cr_expect(file_entry(A, 5));

		job.task = (struct dax_task){ .interrupted = false };
		job_start(&job, ops[i]);
		until_asleep_on(folio);
		folio_put(folio);
		cr_expect_eq(job_end(&job), 0);
		cr_expect_eq(A->mapping.nrpages, 0);
		/* From scratch for the next. */
		file_truncate(A, 0, true, NULL);
		atomic_store(&A->size, 10 * BLOCK_SIZE);
	}
}

static int job_reload(struct job *job)
{
	file_reload(job->file);
	return 0;
}

/*
 * Scenario 61: a file in use is told to leave DAX.  That does not wait and
 * changes nothing for who has it open; the mode changes with the eviction,
 * which waits for the pin.
 */
Test(brk, dax_flag_is_toggled_at_once_and_obeyed_after_the_eviction)
{
	struct job job = { .file = A };
	uint32_t pfn[10];
	struct folio *folio;

	map_a();
	folio = pin(va, 5, FOLL_WRITE);
	cr_expect_eq(view_store(va, 6, 'x'), 0);
	for (uint64_t i = 0; i < 10; i++)
		pfn[i] = file_pfn(A, i);
	file_set_dax(A, false);
	cr_expect(A->mapping.dax);
	expect_counts(folio, 2, 1);
	view_unmap(va);
	cr_expect_eq(view_store(va, 5, 'y'), 0, "it is still DAX");
	expect_counts(folio, 2, 1);

	view_close(va);
	job_start(&job, job_reload);
	until_asleep_on(folio);
	cr_expect(A->mapping.dax);
	cr_expect(file_entry(A, 5));
	folio_put(folio);
	job_end(&job);
	cr_expect_not(A->mapping.dax);
	cr_expect_eq(A->mapping.nrpages, 0);
	for (uint64_t i = 0; i < 10; i++)
		cr_expect_eq(file_pfn(A, i), pfn[i]);
	cr_expect_eq(file_byte(A, 5 * BLOCK_SIZE), 'y');
	cr_expect_eq(file_byte(A, 6 * BLOCK_SIZE), 'x');
	cr_expect_eq(file_punch(A, 0, 1, false, NULL), 0, "nothing to break");
}

/* And back: nobody can have it mapped meanwhile, so nobody is waited for. */
Test(brk, dax_flag_is_obeyed_after_an_eviction_that_has_nothing_to_wait_for)
{
	struct view *v;

	file_fill(A, 5, 'a');
	file_set_dax(A, false);
	file_reload(A);
	file_set_dax(A, true);
	cr_expect_not(A->mapping.dax);
	file_reload(A);
	cr_expect(A->mapping.dax);
	v = shared_view(A);
	cr_expect_eq(view_store(v, 5, 'b'), 0);
	cr_expect_eq(A->mapping.nrpages, 1);
	expect_sole(file_folio(A, 5), A, 5);
	view_close(v);
}

/*
 * H8, where upstream is wrong: pinned through A, A copied on write, B cut
 * off.  B has no entry, so nothing there is busy; no file refers to the block
 * any more; and somebody transfers to it.
 */
Test(brk, block_pinned_through_one_file_is_not_reused_when_the_other_goes)
{
	struct folio *folio;
	uint32_t old = file_fill(A, 5, 's');

	file_share_raw(A, 5, B, 5);
	va = shared_view(A);
	folio = pin(va, 5, 0);
	cr_expect_eq(folio_pfn(folio), old);
	view_store(va, 5, 'n');
	cr_expect_neq(file_pfn(A, 5), old);
	cr_expect_eq(file_truncate(B, 0, false, NULL), 0);
	cr_expect_eq(fs->state[old], BLOCK_DEFERRED);
	cr_expect_not(dax_block_idle(fs->dev->folios, old, 1));
	for (uint64_t i = 0; i < 10; i++)
		cr_expect_neq(file_fill(C, i, 'c'), old);
	folio_put(folio);
	cr_expect_eq(fs->state[old], BLOCK_FREE);
	cr_expect_eq(fs->nr_idle_calls, 1);
	cr_expect(dax_block_idle(fs->dev->folios, old, 1));
}

/* If B has touched it, its break waits: busy is busy, whoever pinned it. */
Test(brk, pin_through_one_file_holds_up_the_break_of_another)
{
	struct folio *folio;
	struct view *vb;

	file_fill(A, 5, 's');
	file_share_raw(A, 5, B, 5);
	va = shared_view(A);
	vb = shared_view(B);
	view_fault(vb, 5, false, 0);
	folio = pin(va, 5, 0);
	view_store(va, 5, 'n');
	cr_expect_eq(file_truncate(B, 0, false, NULL), -EAGAIN);
	folio_put(folio);
	cr_expect_eq(file_truncate(B, 0, false, NULL), 0);
}

/* The same with a huge folio, which stays in one piece until then. */
Test(brk, huge_block_under_a_pin_is_told_page_by_page)
{
	struct folio *folio;
	uint64_t used;

	fs->huge = true;
	atomic_store(&A->size, 512 * BLOCK_SIZE);
	file_fill_huge(A, 0, 's');
	va = shared_view(A);
	view_fault(va, 0, false, FOLIO_ORDER);
	folio = pin(va, 7, 0);
	for (uint64_t i = 0; i < 512; i++)
		file_share_raw(A, i, B, i);
	cr_expect_eq(view_fault(va, 0, true, FOLIO_ORDER), VM_FAULT_NOPAGE);
	cr_expect_eq(folio_order(folio), FOLIO_ORDER, "an orphan");
	used = fs->nr_used;
	file_evict(B);
	cr_expect_eq(fs->nr_used, used, "all of it is deferred");
	folio_put(folio);
	cr_expect_eq(fs->nr_used, used - 512);
	cr_expect_eq(fs->nr_idle_calls, 512);
	cr_expect_eq(folio_order(folio), 0);
}

static int defer(struct dax_break *brk, struct address_space *mapping,
		 struct folio *folio, uint64_t index)
{
	unsigned int *nr = brk->ctx;

	cr_expect_eq(mapping, &A->mapping);
	cr_expect_eq(index, 5);
	cr_expect(dax_folio_is_busy(folio));
	++*nr;
	return DAX_BREAK_DEFER;
}

/* Section 8 of the design: a policy that does not wait, and is safe. */
Test(brk, policy_that_defers_keeps_the_block_until_it_is_idle)
{
	unsigned int nr = 0;
	struct dax_break brk = { .busy = defer, .ctx = &nr };
	struct folio *folio;
	uint32_t pfn;

	map_a();
	pfn = file_pfn(A, 5);
	folio = pin(va, 5, FOLL_WRITE);
	rwsem_down_write(&A->mapping.invalidate_lock, LOCK_INVALIDATE);
	cr_expect_eq(dax_break_layout_inode(&A->mapping, &brk), 0);
	rwsem_up_write(&A->mapping.invalidate_lock);
	cr_expect_eq(nr, 1);
	cr_expect_eq(A->mapping.nrpages, 0);
	file_evict(A);
	cr_expect_eq(fs->state[pfn], BLOCK_DEFERRED);
	folio_put(folio);
	cr_expect_eq(fs->state[pfn], BLOCK_FREE);
}

static int fail_on_third(struct dax_break *brk, struct address_space *mapping,
			 struct folio *folio, uint64_t index)
{
	struct file_break *fb = (struct file_break *)brk;
	struct timespec now;

	(void)mapping;
	(void)folio;
	(void)index;
	if (atomic_load(&fb->nr_unlocks) == 2)
		return -ETXTBSY;
	clock_gettime(CLOCK_MONOTONIC, &now);
	brk->until_ns = (uint64_t)now.tv_sec * 1000000000 +
			(uint64_t)now.tv_nsec + 1000000;
	return DAX_BREAK_WAIT;
}

/* A policy with a deadline is asked again when it is over. */
Test(brk, policy_is_asked_again_after_its_time_and_can_fail)
{
	struct file_break fb;
	struct folio *folio;

	map_a();
	folio = pin(va, 5, FOLL_WRITE);
	file_break_init(&fb, A, NULL);
	fb.brk.busy = fail_on_third;
	rwsem_down_write(&A->mapping.invalidate_lock, LOCK_INVALIDATE);
	cr_expect_eq(dax_break_layout_inode(&A->mapping, &fb.brk), -ETXTBSY);
	rwsem_up_write(&A->mapping.invalidate_lock);
	cr_expect_eq(A->mapping.nrpages, 10);
	cr_expect_eq(fb.brk.nr_rounds, 2);
	folio_put(folio);
}
