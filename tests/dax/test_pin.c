/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_pin.c - pins, fork, system calls at the edges
 */
#include "tests/dax/support/common.h"

TestSuite(pin, .init = common_setup, .fini = common_teardown, .timeout = 30);

/* Scenario 67. */
Test(pin, long_term_is_refused_unless_the_policy_allows_it)
{
	struct folio *folio;
	struct view *v;

	file_fill(A, 5, 'a');
	v = shared_view(A);
	view_fault(v, 5, true, 0);
	cr_expect_eq(dax_pin(&v->vma, 5, FOLL_WRITE | FOLL_LONGTERM, &folio),
		     -EOPNOTSUPP);
	expect_counts(file_folio(A, 5), 1, 1);
	atomic_store(&fs->dev->allow_longterm, true);
	cr_expect_eq(dax_pin(&v->vma, 5, FOLL_WRITE | FOLL_LONGTERM, &folio),
		     0);
	expect_counts(folio, 2, 1);
	folio_put(folio);
}

/* Scenario 67, I2. */
Test(pin, folio_that_nobody_maps_cannot_be_pinned)
{
	struct folio *folio;
	struct view *v;

	file_fill(A, 5, 'a');
	v = shared_view(A);
	view_fault(v, 5, true, 0);
	view_unmap(v);
	folio = file_folio(A, 5);
	cr_expect_not(folio_try_pin(folio));
	expect_counts(folio, 0, 0);
	/* dax_pin() maps it first. */
	cr_expect_eq(dax_pin(&v->vma, 5, 0, &folio), 0);
	expect_counts(folio, 2, 1);
	folio_put(folio);
	cr_expect_eq(dax_pin(&v->vma, 10, 0, &folio), -EFAULT);
}

/* A hole that is only read has no page of the device to pin. */
Test(pin, read_pin_of_a_hole_allocates)
{
	struct folio *folio;
	struct view *v = shared_view(A);

	view_fault(v, 5, false, 0);
	cr_expect_eq(dax_pin(&v->vma, 5, 0, &folio), 0);
	cr_expect_eq(folio_pfn(folio), file_pfn(A, 5));
	folio_put(folio);
}

static int pin_in_a_loop(struct job *job)
{
	struct folio *folio;

	while (!atomic_load(&job->stop)) {
		if (dax_pin(&job->view->vma, 5, FOLL_WRITE, &folio))
			continue;
		/* Pinned means that nobody may have taken the block away. */
		if (fs->state[folio_pfn(folio)] != BLOCK_USED)
			return -1;
		folio_put(folio);
	}
	return 0;
}

/* Scenario 67: a pin that races with a zap is seen by the scan, or fails. */
Test(pin, pin_races_with_truncate_and_one_of_them_wins)
{
	struct view *v = shared_view(A);
	struct job job = { .view = v };

	job_start(&job, pin_in_a_loop);
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(file_punch(A, 0, 10, true, NULL), 0);
	atomic_store(&job.stop, true);
	cr_expect_eq(job_end(&job), 0);
	view_unmap(v);
}

static void punch_now(struct memfile *file)
{
	fs->on_lookup = NULL;
	cr_assert_eq(file_punch(file, 5, 1, false, NULL), 0);
}

/*
 * Scenario 67: the page tables were read, and then the page went from this
 * file.  Another file still maps it, so that the counters would allow the pin.
 */
Test(pin, pin_looks_at_the_mapping_again)
{
	struct folio *folio;
	struct view *va, *vb;
	uint32_t old = file_fill(A, 5, 's');

	file_share_raw(A, 5, B, 5);
	va = shared_view(A);
	vb = shared_view(B);
	view_fault(va, 5, false, 0);
	view_fault(vb, 5, false, 0);
	fs->on_lookup = punch_now;
	cr_expect_eq(dax_pin(&va->vma, 5, 0, &folio), 0);
	cr_expect_neq(folio_pfn(folio), old);
	cr_expect_eq(folio_pfn(folio), file_pfn(A, 5));
	folio_put(folio);
	expect_counts(folio_at(fs->dev->folios, old), 1, 1);
}

/* Scenario 68. */
Test(pin, fork_copies_mappings_and_leaves_busy_alone)
{
	struct folio *folio;
	struct view *v, *child;

	file_fill(A, 5, 'a');
	v = shared_view(A);
	cr_assert_eq(dax_pin(&v->vma, 5, FOLL_WRITE, &folio), 0);
	expect_counts(folio, 2, 1);
	cr_expect(dax_folio_is_busy(folio));
	child = view_fork(v);
	expect_counts(folio, 3, 2);
	cr_expect(dax_folio_is_busy(folio));
	view_close(child);
	expect_counts(folio, 2, 1);
	folio_put(folio);
	child = view_fork(v);
	cr_expect_not(dax_folio_is_busy(folio));
	cr_expect_eq(dax_break_layout_inode(&A->mapping, NULL), 0);
	cr_expect_null(view_pte(child, 5));
}

/* Scenario 68: a private copy is nobody's page. */
Test(pin, fork_copies_private_pages_privately)
{
	struct view *v = view_open(A, 0, 10, 0), *child;
	unsigned char byte;

	view_store(v, 5, 'p');
	child = view_fork(v);
	view_store(child, 5, 'q');
	view_load(v, 5, &byte);
	cr_expect_eq(byte, 'p');
	cr_expect_eq(dax_break_layout_inode(&A->mapping, NULL), 0);
	view_load(child, 5, &byte);
	cr_expect_eq(byte, 'q');
}

/* Scenario 71, B18. */
Test(pin, empty_reads_and_writes_do_nothing)
{
	char buf[8] = "";

	cr_expect_eq(file_read(A, 0, buf, 0), 0);
	cr_expect_eq(file_write(A, 0, buf, 0), 0);
	cr_expect_eq(file_read(A, 10 * BLOCK_SIZE, buf, 8), 0);
	cr_expect_eq(file_read(A, 11 * BLOCK_SIZE, buf, 8), 0);
	cr_expect_eq(file_read(A, 10 * BLOCK_SIZE - 3, buf, 8), 3);
	cr_expect_eq(fs->nr_used, 0);
}

/* Scenario 71: a signal ends it between chunks. */
Test(pin, interrupted_read_says_so)
{
	struct dax_task task = { .interrupted = true };
	char buf[8];

	cr_expect_eq(
		dax_iomap_read(&A->mapping, 0, buf, 8, &memfs_iomap_ops, &task),
		-EINTR);
	cr_expect_eq(dax_iomap_write(&A->mapping, 0, buf, 8, &memfs_iomap_ops,
				     &task),
		     -EINTR);
}

/* Scenario 71, B20. */
Test(pin, comparison_with_a_media_error_is_an_error)
{
	bool same = true;

	for (uint64_t i = 0; i < 3; i++) {
		file_fill(A, i, 'a');
		file_fill(B, i, i == 2 ? 'b' : 'a');
	}
	cr_expect_eq(dax_dedupe_compare(&A->mapping, 0, &B->mapping, 0,
					2 * BLOCK_SIZE, &same,
					&memfs_iomap_ops),
		     0);
	cr_expect(same);
	cr_expect_eq(dax_dedupe_compare(&A->mapping, 0, &B->mapping, 0,
					3 * BLOCK_SIZE, &same,
					&memfs_iomap_ops),
		     0);
	cr_expect_not(same);
	same = true;
	folio_set_poison(fs->dev->folios, file_pfn(B, 1), true);
	cr_expect_eq(dax_dedupe_compare(&A->mapping, 0, &B->mapping, 0,
					2 * BLOCK_SIZE, &same,
					&memfs_iomap_ops),
		     -EIO);
	cr_expect(same, "not touched");
}

/* Section 3: zeroing and unsharing copy what is shared. */
Test(pin, zeroing_and_unsharing_leave_the_other_file_alone)
{
	for (uint64_t i = 0; i < 3; i++) {
		file_fill(A, i, 's');
		file_share_raw(A, i, B, i);
	}
	cr_expect_eq(dax_zero_range(&A->mapping, 100, 50, &memfs_iomap_ops), 0);
	cr_expect_eq(file_byte(A, 99), 's');
	cr_expect_eq(file_byte(A, 100), 0);
	cr_expect_eq(file_byte(A, 149), 0);
	cr_expect_eq(file_byte(A, 150), 's');
	cr_expect_eq(file_byte(B, 120), 's');
	cr_expect_eq(dax_zero_range(&A->mapping, 5 * BLOCK_SIZE, BLOCK_SIZE,
				    &memfs_iomap_ops),
		     0);
	cr_expect_eq(file_pfn(A, 5), 0, "holes stay holes");
	cr_expect_eq(dax_unshare(&A->mapping, BLOCK_SIZE + 7, BLOCK_SIZE,
				 &memfs_iomap_ops),
		     0);
	for (uint64_t i = 0; i < 3; i++)
		cr_expect_neq(file_pfn(A, i), file_pfn(B, i));
	cr_expect_eq(file_byte(A, 3 * BLOCK_SIZE - 1), 's');
}
