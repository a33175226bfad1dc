/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/client/fake.h - a daemon that only speaks dax/proto.h
 *
 * Its device is a memfd, its files are tables of pages in DRAM at shuffled
 * places, and it does nothing but answer one client.  What a filesystem would
 * do to a file, the test does: move pages, share them, cut the file.
 *
 * Locking.   fake->lock covers everything; the calls here take it.
 */
#ifndef TESTS_CLIENT_FAKE_H
#define TESTS_CLIENT_FAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dax/lib/client.h"
#include "dax/media.h"
#include "dax/proto.h"

#define FAKE_FILES  4
#define FAKE_VMAS   4096
#define FAKE_FAULTS 256
#define FAKE_HOLE   UINT32_MAX

struct fake_file {
	uint32_t *page; /* of the device, or FAKE_HOLE */
	bool *shared;	/* loads only; a store copies first */
	bool *pinned;
	uint64_t nr;		 /* room in the tables */
	uint64_t size;		 /* bytes */
	unsigned int nr_waiting; /* recalls that were not answered */
	bool busy;		 /* no faults now */
	uint64_t copying;	 /* page to copy when idle, or UINT64_MAX */
};

struct fake {
	char path[108];
	int listen;
	int sock;
	int dev, mail_fd;
	struct session_mailbox *mail;
	unsigned char *mem;
	uint64_t nr_pages;
	uint32_t *free; /* a stack of pages, shuffled */
	uint64_t nr_free;
	uint64_t seed;
	unsigned int around; /* pages that an answer has, at most */
	int error;	     /* all faults fail with it */
	bool read_only;	     /* the files */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct fake_file file[FAKE_FILES];
	struct fake_vma {
		uint64_t file, index, nr; /* nr 0: free */
	} vma[FAKE_VMAS];
	struct session_range later[FAKE_FAULTS]; /* faults of busy files */
	unsigned int nr_later;
	uint32_t next_id;
	/* What was seen, for the tests. */
	uint64_t nr_faults, nr_recalls, nr_syncs, nr_pins, nr_open, nr_vmas;
};

struct fake *fake_new(uint64_t nr_pages, uint64_t file_pages);
void fake_free(struct fake *f);

/* A token for file @nr, as the ioctl would give it. */
struct foliofs_ioc_token fake_token(const struct fake *f, unsigned int nr);

/* The socket is closed, as by SIGKILL. */
void fake_die(struct fake *f);

/* Make pages [index, index + nr) exist, each filled with its stamp. */
void fake_fill(struct fake *f, unsigned int nr_file, uint64_t index,
	       uint64_t nr);

/* Recall, and wait; the pages stay where they are. */
void fake_recall(struct fake *f, unsigned int nr_file, uint64_t index,
		 uint64_t nr, enum session_recall_kind kind);

/* Recall, move to other places on media, and spoil the old ones. */
void fake_move(struct fake *f, unsigned int nr_file, uint64_t index,
	       uint64_t nr);

/* As a reflink: loads only from now on. */
void fake_share(struct fake *f, unsigned int nr_file, uint64_t index,
		uint64_t nr);

void fake_truncate(struct fake *f, unsigned int nr_file, uint64_t size);

/*
 * Touch memory of a mapping.  Not as atomics: ThreadSanitizer does those with a
 * lock of its own held, and waits for that lock in the handler of the signal
 * that they raise.
 */
#define UNSEEN __attribute__((noinline, no_sanitize("thread"), unused))

UNSEEN static uint64_t fake_load(const volatile uint64_t *p)
{
	return *p;
}

UNSEEN static void fake_store(volatile uint64_t *p, uint64_t value)
{
	*p = value;
}

/* What a page that nobody stored to has in each word but the first few. */
static inline uint64_t fake_stamp(unsigned int nr_file, uint64_t index)
{
	return (index + 1) * UINT64_C(0x9e3779b97f4a7c15) + nr_file;
}

/* The page on media, or NULL for a hole: not through the client. */
unsigned char *fake_page(struct fake *f, unsigned int nr_file, uint64_t index);

#endif
