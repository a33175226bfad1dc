/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/client/race_recall.c - a mapping that is taken away all the time
 *
 * Threads load from and store to a file while its pages are recalled, moved
 * to other places on media and shared; the places they leave are spoiled at
 * once.  Each page has its stamp in all words but one for each thread, where
 * that thread counts: a byte of another place, a zero in between, or a store
 * that got lost is seen at once.
 *
 * Every fourth access is a system call that reads or writes the memory, if
 * userfaultfd can be had for them.
 *
 * A plain program, because Criterion does not run under ThreadSanitizer.
 * Arguments: recalls, pages in the file.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dax/lib/mem.h"
#include "tests/client/fake.h"

#define NR_THREADS 4
#define FILE_NR	   1
#define WORDS	   (BLOCK_SIZE / sizeof(uint64_t))

static struct fake *fake;
static struct foliofs_file *file;
static uint64_t nr_pages;
static volatile uint64_t *map;
static _Atomic(bool) stop;

struct worker {
	pthread_t thread;
	unsigned int nr;
	uint64_t seed;
	uint64_t nr_ops;
	uint64_t *count; /* what was stored last, by page */
	int pipe[2];
};

#define check(cond)                                                        \
	do {                                                               \
		if (!(cond)) {                                             \
			fprintf(stderr, "race_recall: line %d: %s (%s)\n", \
				__LINE__, #cond, strerror(errno));         \
			abort();                                           \
		}                                                          \
	} while (0)

static uint64_t rnd(uint64_t *seed, uint64_t n)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return (*seed >> 11) % n;
}

static volatile uint64_t *word_at(uint64_t page, uint64_t word)
{
	return &map[page * WORDS + word];
}

static void wrong(uint64_t page, uint64_t word, uint64_t found, uint64_t want)
{
	fprintf(stderr,
		"race_recall: page %ju word %ju is %jx and should be %jx\n",
		(uintmax_t)page, (uintmax_t)word, (uintmax_t)found,
		(uintmax_t)want);
	abort();
}

static void load(struct worker *w, uint64_t page)
{
	uint64_t word = NR_THREADS + rnd(&w->seed, WORDS - NR_THREADS);
	uint64_t found = fake_load(word_at(page, word));

	if (found != fake_stamp(FILE_NR, page))
		wrong(page, word, found, fake_stamp(FILE_NR, page));
}

static void store(struct worker *w, uint64_t page)
{
	volatile uint64_t *p = word_at(page, w->nr);
	uint64_t found = fake_load(p);

	if (found != w->count[page])
		wrong(page, w->nr, found, w->count[page]);
	w->count[page]++;
	fake_store(p, w->count[page]);
}

/* The kernel touches the memory: out by write(2). */
static void load_by_kernel(struct worker *w, uint64_t page)
{
	uint64_t word = NR_THREADS + rnd(&w->seed, WORDS - NR_THREADS);
	uint64_t found = 0;

	check(write(w->pipe[1], (const void *)(uintptr_t)word_at(page, word),
		    sizeof(found)) == sizeof(found));
	check(read(w->pipe[0], &found, sizeof(found)) == sizeof(found));
	if (found != fake_stamp(FILE_NR, page))
		wrong(page, word, found, fake_stamp(FILE_NR, page));
}

/* In by read(2), which fails where only loads are possible: store first. */
static void store_by_kernel(struct worker *w, uint64_t page)
{
	void *p = (void *)(uintptr_t)word_at(page, w->nr);
	uint64_t value = w->count[page] + 1;
	ssize_t ret;

	check(write(w->pipe[1], &value, sizeof(value)) == sizeof(value));
	while ((ret = read(w->pipe[0], p, sizeof(value))) < 0) {
		check(errno == EFAULT);
		store(w, page);
	}
	check(ret == sizeof(value));
	w->count[page] = value;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	check(pipe(w->pipe) == 0);
	while (!atomic_load(&stop)) {
		uint64_t page = rnd(&w->seed, nr_pages);

		switch (rnd(&w->seed, 8) + (mem_user_only() ? 2 : 0)) {
		case 0:
			load_by_kernel(w, page);
			break;
		case 1:
			store_by_kernel(w, page);
			break;
		case 2:
		case 3:
			store(w, page);
			break;
		default:
			load(w, page);
		}
		w->nr_ops++;
	}
	return NULL;
}

static void recall_one(uint64_t *seed)
{
	uint64_t index = rnd(seed, nr_pages);
	uint64_t nr = 1 + rnd(seed, 4);

	if (nr > nr_pages - index)
		nr = nr_pages - index;
	switch (rnd(seed, 8)) {
	case 0:
		fake_share(fake, FILE_NR, index, nr);
		break;
	case 1:
		fake_recall(fake, FILE_NR, index, nr, SESSION_RECALL_ZAP);
		break;
	case 2:
		fake_recall(fake, FILE_NR, 0, UINT64_MAX, SESSION_RECALL_ZAP);
		break;
	default:
		fake_move(fake, FILE_NR, index, nr);
	}
}

/* Words of the threads, on media, before anything is mapped. */
static void clear_counts(void)
{
	for (uint64_t i = 0; i < nr_pages; i++)
		memset(fake_page(fake, FILE_NR, i), 0,
		       NR_THREADS * sizeof(uint64_t));
}

static void check_media(const struct worker *w)
{
	for (uint64_t i = 0; i < nr_pages; i++) {
		uint64_t found;

		memcpy(&found,
		       fake_page(fake, FILE_NR, i) + w->nr * sizeof(found),
		       sizeof(found));
		if (found != w->count[i])
			wrong(i, w->nr, found, w->count[i]);
	}
}

int main(int argc, char **argv)
{
	uint64_t nr_recalls = argc > 1 ? strtoull(argv[1], NULL, 0) : 100000;
	struct worker worker[NR_THREADS] = { 0 };
	struct foliofs_ioc_token token;
	uint64_t seed = 4711, nr_ops = 0;
	void *addr;
	int ret;

	nr_pages = argc > 2 ? strtoull(argv[2], NULL, 0) : 64;
	fake = fake_new(nr_pages * 16, nr_pages);
	fake_fill(fake, FILE_NR, 0, nr_pages);
	clear_counts();
	token = fake_token(fake, FILE_NR);
	ret = client_attach(&token, &file);
	if (ret == -EPERM || ret == -ENOSYS) {
		fprintf(stderr, "race_recall: no userfaultfd here\n");
		return 77;
	}
	check(ret == 0);
	check(foliofs_map(file, nr_pages * BLOCK_SIZE, PROT_READ | PROT_WRITE,
			  0, 0, &addr) == 0);
	map = addr;

	for (unsigned int i = 0; i < NR_THREADS; i++) {
		worker[i].nr = i;
		worker[i].seed = 99 + i;
		worker[i].count = calloc(nr_pages, sizeof(uint64_t));
		check(worker[i].count);
		check(pthread_create(&worker[i].thread, NULL, work,
				     &worker[i]) == 0);
	}
	for (uint64_t i = 0; i < nr_recalls; i++)
		recall_one(&seed);
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < NR_THREADS; i++) {
		pthread_join(worker[i].thread, NULL);
		check_media(&worker[i]);
		nr_ops += worker[i].nr_ops;
		free(worker[i].count);
	}
	printf("%ju recalls, %ju faults, %ju accesses\n",
	       (uintmax_t)fake->nr_recalls, (uintmax_t)fake->nr_faults,
	       (uintmax_t)nr_ops);
	check(foliofs_unmap(addr, nr_pages * BLOCK_SIZE) == 0);
	foliofs_detach(file);
	fake_free(fake);
	return 0;
}
