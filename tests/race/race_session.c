/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/race/race_session.c - clients of a session server against breaks
 *
 * A plain program, because Criterion does not run under ThreadSanitizer.
 * Each client thread has a socket, faults, pins, syncs and unmaps, and keeps a
 * note of every page that it may use; before it uses one it looks whether the
 * block is still a file's.  Other threads punch, reflink, truncate and sync
 * the files.  After each round everything stops and is counted.
 *
 * Arguments: rounds, operations a round, seed.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/dax/support/raw.h"

#define NR_FILES    3
#define NR_CLIENTS  4
#define NR_BREAKERS 2
#define NR_PAGES    16u
#define ADDR	    UINT64_C(0x100000000)

struct worker {
	pthread_t thread;
	uint64_t seed;
	uint64_t nr_ops;
	struct raw raw;
	uint64_t vma, pin;
	uint64_t off[NR_PAGES]; /* that may be used; 0: fault first */
};

static struct memfs *fs;
static struct memfile *files[NR_FILES];
static struct rawfs rf;
static _Atomic(int) nr_running; /* who may need an answer to a recall */

#define check(cond)                                                    \
	do {                                                           \
		if (!(cond)) {                                         \
			fprintf(stderr, "race_session: line %d: %s\n", \
				__LINE__, #cond);                      \
			abort();                                       \
		}                                                      \
	} while (0)

static uint64_t rnd(struct worker *w, uint64_t n)
{
	w->seed ^= w->seed << 13;
	w->seed ^= w->seed >> 7;
	w->seed ^= w->seed << 17;
	return (w->seed >> 11) % n;
}

/* I3: what a client may use is not free. */
static void check_used(const struct worker *w)
{
	mutex_lock(&fs->lock);
	for (unsigned int i = 0; i < NR_PAGES; i++)
		if (w->off[i])
			check(fs->state[w->off[i] >> BLOCK_SHIFT] !=
			      BLOCK_FREE);
	mutex_unlock(&fs->lock);
}

/* The client's page table, which it changes before it answers. */
static void forget(struct worker *w, const struct session_recall *m)
{
	if (m->vma != w->vma || m->kind == SESSION_RECALL_WRPROTECT)
		return;
	for (uint64_t i = m->index; i < m->index + m->nr && i < NR_PAGES; i++)
		w->off[i] = 0;
}

static void heed(struct raw *r, const struct session_recall *m)
{
	struct worker *w = r->ctx;

	check_used(w);
	forget(w, m);
}

static void note(struct worker *w, const struct session_fault_reply *f)
{
	for (uint32_t i = 0; i < f->nr_segs; i++)
		for (uint32_t j = 0; j < f->seg[i].nr; j++)
			if (!(f->seg[i].flags & SESSION_SEG_ZERO))
				w->off[f->seg[i].index + j] =
					f->seg[i].off + j * BLOCK_SIZE;
	check_used(w);
}

static void fault(struct worker *w)
{
	uint64_t index = rnd(w, NR_PAGES);
	struct session_fault_reply f;
	int ret;

	ret = raw_fault(&w->raw, w->vma, index, NR_PAGES - index,
			(rnd(w, 2) ? SESSION_RANGE_WRITE : 0) |
				(rnd(w, 2) ? SESSION_RANGE_AROUND : 0),
			&f);
	check(ret == 0 || ret == -EAGAIN || ret == -EFAULT);
	if (ret == 0)
		note(w, &f);
}

static void pin(struct worker *w)
{
	int ret;

	if (w->pin) {
		ret = raw_finish(&w->raw, SESSION_UNPIN, w->pin);
		check(ret == 0);
		w->pin = 0;
		return;
	}
	ret = raw_pin(&w->raw, w->vma, rnd(w, NR_PAGES - 2), 2,
		      rnd(w, 2) ? SESSION_RANGE_WRITE : 0, &w->pin);
	check(ret == 0 || ret == -EFAULT || ret == -EAGAIN);
}

static void unmap(struct worker *w)
{
	uint64_t index = rnd(w, NR_PAGES), nr = 1 + rnd(w, 3);

	if (index + nr > NR_PAGES)
		nr = NR_PAGES - index;
	if (rnd(w, 4) == 0) {
		index = 0;
		nr = NR_PAGES;
	}
	/* Not used from here on; the server hears of it later. */
	for (uint64_t i = index; i < index + nr; i++)
		w->off[i] = 0;
	check(raw_range(&w->raw, SESSION_UNMAP, w->vma, index, nr, 0) == 0);
	if (nr == NR_PAGES)
		check(raw_map(&w->raw, ADDR, 0, NR_PAGES, SESSION_MAP_WRITE,
			      &w->vma) == 0);
}

static void *client_main(void *arg)
{
	struct worker *w = arg;

	for (uint64_t i = 0; i < w->nr_ops; i++) {
		switch (rnd(w, 10)) {
		case 0:
		case 1:
			pin(w);
			break;
		case 2:
			unmap(w);
			break;
		case 3:
			check(raw_range(&w->raw, SESSION_SYNC, w->vma, 0, 1,
					0) == 0);
			break;
		case 4:
			check(raw_serve(&w->raw, 0) == 0);
			break;
		default:
			fault(w);
			break;
		}
	}
	/* A break may wait for it, and others for the break. */
	if (w->pin)
		pin(w);
	return NULL;
}

static void *breaker_main(void *arg)
{
	struct worker *w = arg;

	for (uint64_t i = 0; i < w->nr_ops / 4; i++) {
		struct memfile *file = files[rnd(w, NR_FILES)];
		struct memfile *other = files[rnd(w, NR_FILES)];
		bool wait = rnd(w, 2);
		int ret;

		switch (rnd(w, 5)) {
		case 0:
			ret = file_truncate(file, rnd(w, 2) ? NR_PAGES : 3,
					    wait, NULL);
			break;
		case 1:
			ret = file_punch(file, rnd(w, NR_PAGES), 2, wait, NULL);
			break;
		case 2:
			ret = file_fsync(file);
			break;
		default:
			ret = file_reflink(file, other, wait, NULL);
			break;
		}
		check(ret == 0 || (!wait && ret == -EAGAIN));
	}
	atomic_fetch_sub(&nr_running, 1);
	return NULL;
}

/* Clients answer until everybody is done. */
static void *serve_main(void *arg)
{
	struct worker *w = arg;

	client_main(w);
	atomic_fetch_sub(&nr_running, 1);
	while (atomic_load(&nr_running) > 0)
		check(raw_serve(&w->raw, 1) == 0);
	return NULL;
}

static void begin_client(struct worker *w, unsigned int i)
{
	check(raw_start(&w->raw, &rf, files[i % NR_FILES], true) == 0);
	w->raw.ctx = w;
	w->raw.on_recall = heed;
	check(raw_map(&w->raw, ADDR, 0, NR_PAGES, SESSION_MAP_WRITE, &w->vma) ==
	      0);
	memset(w->off, 0, sizeof(w->off));
}

static void round_of(struct worker *clients, struct worker *breakers)
{
	atomic_store(&nr_running, NR_CLIENTS + NR_BREAKERS);
	for (unsigned int i = 0; i < NR_CLIENTS; i++) {
		check(pthread_create(&clients[i].thread, NULL, serve_main,
				     &clients[i]) == 0);
	}
	for (unsigned int i = 0; i < NR_BREAKERS; i++)
		check(pthread_create(&breakers[i].thread, NULL, breaker_main,
				     &breakers[i]) == 0);
	for (unsigned int i = 0; i < NR_BREAKERS; i++)
		pthread_join(breakers[i].thread, NULL);
	for (unsigned int i = 0; i < NR_CLIENTS; i++) {
		pthread_join(clients[i].thread, NULL);
		check_used(&clients[i]);
	}
}

static void count(struct worker *clients, unsigned long round)
{
	struct session_stat stat;

	/* What clients have left is taken back, and then nobody has it. */
	for (unsigned int i = 0; i < NR_CLIENTS; i++) {
		memset(clients[i].off, 0, sizeof(clients[i].off));
		check(raw_range(&clients[i].raw, SESSION_UNMAP, clients[i].vma,
				0, NR_PAGES, 0) == 0);
		check(raw_map(&clients[i].raw, ADDR, 0, NR_PAGES,
			      SESSION_MAP_WRITE, &clients[i].vma) == 0);
	}
	memfs_check(fs, NULL);
	session_server_stat(rf.srv, &stat);
	check(stat.nr_late == 0);
	printf("round %lu: %lu faults, %lu recalls, %u threads\n", round,
	       (unsigned long)stat.nr_faults, (unsigned long)stat.nr_recalls,
	       stat.nr_threads);
}

int main(int argc, char **argv)
{
	static struct worker clients[NR_CLIENTS], breakers[NR_BREAKERS];
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 4;
	uint64_t nr_ops = argc > 2 ? strtoul(argv[2], NULL, 0) : 500;
	uint64_t seed = argc > 3 ? strtoul(argv[3], NULL, 0) : 1;

	fs = memfs_create();
	for (unsigned int i = 0; i < NR_FILES; i++)
		files[i] = file_create(fs, NR_PAGES);
	/* A client that was slow is no mistake of the server. */
	check(rawfs_create(&rf, fs, NULL, 60000) == 0);
	for (unsigned int i = 0; i < NR_CLIENTS; i++) {
		begin_client(&clients[i], i);
		clients[i].seed = seed * 7919 + i + 1;
		clients[i].nr_ops = nr_ops;
	}
	for (unsigned int i = 0; i < NR_BREAKERS; i++) {
		breakers[i].seed = seed * 104729 + i + 1;
		breakers[i].nr_ops = nr_ops;
	}
	for (unsigned long i = 0; i < rounds; i++) {
		round_of(clients, breakers);
		count(clients, i);
	}
	for (unsigned int i = 0; i < NR_CLIENTS; i++)
		raw_end(&clients[i].raw);
	rawfs_destroy(&rf);
	memfs_destroy(fs);
	return 0;
}
