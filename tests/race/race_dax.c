/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/race/race_dax.c - the DAX core under real threads
 *
 * A plain program, because Criterion does not run under ThreadSanitizer.
 * Eight threads do what clients and system calls do to four files that share
 * blocks; after each round they stop, and everything is counted.  Built with
 * -Dlock_perturb=true the schedule is shaken at every lock.
 *
 * Bytes that views store to and bytes that system calls touch are different
 * ones: user data may race, and the sanitizer would say so.
 *
 * Arguments: rounds, operations a round, seed.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/dax/support/memfs.h"

#define NR_FILES   4
#define NR_THREADS 8
#define FULL	   (2 * FOLIO_PAGES)

struct worker {
	pthread_t thread;
	uint64_t seed;
	uint64_t nr_ops;
	struct view *views[NR_FILES];
};

static struct memfs *fs;
static struct memfile *files[NR_FILES];
static const uint64_t pages[] = { 0, 1, 9, 511, 512, 700 };

static uint64_t rnd(struct worker *w, uint64_t n)
{
	w->seed ^= w->seed << 13;
	w->seed ^= w->seed >> 7;
	w->seed ^= w->seed << 17;
	return (w->seed >> 11) % n;
}

#define check(cond)                                                          \
	do {                                                                 \
		if (!(cond)) {                                               \
			fprintf(stderr, "race_dax: line %d: %s\n", __LINE__, \
				#cond);                                      \
			abort();                                             \
		}                                                            \
	} while (0)

/* As direct I/O: i_rwsem shared, pin, transfer, put. */
static void direct_io(struct worker *w, struct view *v, uint64_t index)
{
	struct folio *folio;
	uint64_t pfn;
	int ret;

	rwsem_down_read(&v->file->i_rwsem, LOCK_INODE);
	ret = dax_pin(&v->vma, index, rnd(w, 2) ? FOLL_WRITE : 0, &folio);
	if (ret == 0) {
		pfn = folio_pfn(folio);
		for (uint64_t i = rnd(w, 4); i > 0; i--)
			usleep(10);
		mutex_lock(&fs->lock);
		check(fs->state[pfn] != BLOCK_FREE); /* I3 */
		mutex_unlock(&fs->lock);
		check(folio_refcount(folio) > 0);
		folio_put(folio);
	}
	rwsem_up_read(&v->file->i_rwsem);
}

/* As io_uring with registered buffers: nothing is held meanwhile. */
static void pin_a_while(struct worker *w, struct view *v, uint64_t index)
{
	struct folio *folio;

	if (dax_pin(&v->vma, index, FOLL_WRITE, &folio))
		return;
	usleep((useconds_t)rnd(w, 100));
	folio_put(folio);
}

static void change_layout(struct worker *w, struct memfile *file,
			  uint64_t index)
{
	struct memfile *other = files[rnd(w, NR_FILES)];
	int ret = 0;

	switch (rnd(w, 6)) {
	case 0:
		ret = file_truncate(file, rnd(w, 2) ? FULL : index, true, NULL);
		break;
	case 1:
	case 2:
		ret = file_punch(file, index, 1, true, NULL);
		break;
	case 3:
		ret = file_exchange(file, other, true, NULL);
		break;
	default:
		ret = file_reflink(file, other, true, NULL);
		break;
	}
	check(ret == 0);
}

static void system_call(struct worker *w, struct memfile *file, uint64_t index)
{
	uint64_t pos = index * BLOCK_SIZE + 1;
	unsigned char byte = (unsigned char)w->seed;

	switch (rnd(w, 3)) {
	case 0:
		check(file_write(file, pos, &byte, 1) == 1);
		break;
	case 1:
		check(file_read(file, pos, &byte, 1) >= 0);
		break;
	default:
		check(file_fsync(file) == 0);
		break;
	}
}

static void one_op(struct worker *w)
{
	unsigned int f = (unsigned int)rnd(w, NR_FILES);
	uint64_t index = pages[rnd(w, 6)];
	struct view *v = w->views[f];
	unsigned char byte;

	switch (rnd(w, 12)) {
	case 0:
	case 1:
	case 2:
		view_load(v, index, &byte);
		break;
	case 3:
	case 4:
		view_store(v, index, (unsigned char)w->seed);
		break;
	case 5:
		view_store_huge(v, index, (unsigned char)w->seed);
		break;
	case 6:
		direct_io(w, v, index);
		break;
	case 7:
		pin_a_while(w, v, index);
		break;
	case 8:
		view_unmap(v);
		break;
	case 9:
	case 10:
		system_call(w, files[f], index);
		break;
	default:
		change_layout(w, files[f], index);
		break;
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (uint64_t i = 0; i < w->nr_ops; i++)
		one_op(w);
	return NULL;
}

static uint64_t argument(int argc, char **argv, int i, uint64_t otherwise)
{
	return argc > i ? strtoull(argv[i], NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
	uint64_t rounds = argument(argc, argv, 1, 4);
	uint64_t nr_ops = argument(argc, argv, 2, 500);
	uint64_t seed = argument(argc, argv, 3, 1);
	static struct worker workers[NR_THREADS];

	fs = memfs_create();
	fs->huge = true;
	for (int f = 0; f < NR_FILES; f++)
		files[f] = file_create(fs, FULL);
	for (uint64_t i = 0; i < NR_THREADS; i++) {
		workers[i].seed = seed * 1000003 + i * 7919 + 1;
		workers[i].nr_ops = nr_ops;
		for (int f = 0; f < NR_FILES; f++)
			workers[i].views[f] =
				view_open(files[f], 0, FULL, DAX_VMA_SHARED);
	}
	for (uint64_t r = 0; r < rounds; r++) {
		for (int i = 0; i < NR_THREADS; i++)
			pthread_create(&workers[i].thread, NULL, work,
				       &workers[i]);
		for (int i = 0; i < NR_THREADS; i++)
			pthread_join(workers[i].thread, NULL);
		memfs_check(fs, NULL);
	}
	check(atomic_load(&fs->dev->stat.nr_warnings) == 0);
	printf("race_dax: %lu faults, %lu breaks, %lu waits, %lu late blocks\n",
	       (unsigned long)atomic_load(&fs->dev->stat.nr_pte_faults),
	       (unsigned long)atomic_load(&fs->dev->stat.nr_breaks),
	       (unsigned long)atomic_load(&fs->dev->stat.nr_break_waits),
	       (unsigned long)fs->nr_idle_calls);
	memfs_destroy(fs);
	return 0;
}
