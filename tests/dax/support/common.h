/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/support/common.h - what the scenario tests share
 *
 * Three files A, B and C of ten pages, without blocks.  A test's comment
 * starts with the number of the scenario that it is.
 */
#ifndef TESTS_DAX_COMMON_H
#define TESTS_DAX_COMMON_H

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/dax/support/memfs.h"

static struct memfs *fs;
static struct memfile *A, *B, *C;

static inline void common_setup(void)
{
	fs = memfs_create();
	A = file_create(fs, 10);
	B = file_create(fs, 10);
	C = file_create(fs, 10);
}

static inline void common_teardown(void)
{
	memfs_check(fs, NULL);
	memfs_destroy(fs);
}

#define expect_counts(folio, ref, map)                      \
	do {                                                \
		cr_expect_eq(folio_refcount(folio), (ref)); \
		cr_expect_eq(folio_mapcount(folio), (map)); \
	} while (0)

#define expect_sole(folio, file, i)                                        \
	do {                                                               \
		cr_expect_eq(atomic_load(&(folio)->mapping),               \
			     &(file)->mapping);                            \
		cr_expect_eq(atomic_load(&(folio)->index), (uint64_t)(i)); \
	} while (0)

#define expect_share(folio, nr)                                   \
	do {                                                      \
		cr_expect_null(atomic_load(&(folio)->mapping));   \
		cr_expect_eq(atomic_load(&(folio)->share), (nr)); \
	} while (0)

static inline struct view *shared_view(struct memfile *file)
{
	return view_open(file, 0, atomic_load(&file->size) >> BLOCK_SHIFT,
			 DAX_VMA_SHARED);
}

/* Something that runs beside the test. */
struct job {
	pthread_t thread;
	int (*fn)(struct job *job);
	struct memfile *file, *other;
	struct view *view;
	uint64_t index, index2;
	unsigned int order;
	bool write;
	struct dax_task task;
	_Atomic(bool) stop;
	int ret;
	_Atomic(bool) done;
};

static inline void *job_main(void *arg)
{
	struct job *job = arg;

	job->ret = job->fn(job);
	atomic_store(&job->done, true);
	return NULL;
}

static inline void job_start(struct job *job, int (*fn)(struct job *job))
{
	job->fn = fn;
	atomic_store(&job->done, false);
	cr_assert_eq(pthread_create(&job->thread, NULL, job_main, job), 0);
}

static inline int job_end(struct job *job)
{
	pthread_join(job->thread, NULL);
	return job->ret;
}

static inline int job_fault(struct job *job)
{
	return (int)view_fault(job->view, job->index, job->write, job->order);
}

static inline int job_truncate(struct job *job)
{
	return file_truncate(job->file, job->index, true, &job->task);
}

static inline int job_reflink(struct job *job)
{
	return file_reflink(job->file, job->other, true, &job->task);
}

/* Lock an entry as some thread would, and unlock it. */
static inline void *entry_lock(struct memfile *file, uint64_t index)
{
	XA_STATE(xas, &file->mapping.i_pages, index);
	void *entry;

	xas_lock(&xas);
	entry = xas_load(&xas);
	cr_assert(entry && !dax_is_locked(entry));
	dax_lock_entry(&xas, entry);
	xas_unlock(&xas);
	return entry;
}

static inline void entry_unlock(struct memfile *file, uint64_t index,
				void *entry)
{
	XA_STATE(xas, &file->mapping.i_pages, index);

	dax_unlock_entry(&xas, entry);
}

#endif
