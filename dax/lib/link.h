/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/link.h - the connection to one daemon
 *
 * A link has a socket and a thread that receives.  What a thread of the
 * program asks for is a call: it sends, sleeps, and is woken with the answer.
 * What a touch asks for is a fault: nobody sleeps in the library, because who
 * touched sleeps in the kernel.  The receiving thread does what answers and
 * recalls say in the order in which they come, and never waits for an answer.
 *
 * Units.     Pages, where it does not say bytes.
 * Errors.    Negative errno.  -ENOTCONN from the moment the daemon is gone;
 *            a link that is lost stays so.
 * Locking.   link->lock covers what is marked.  It is taken inside the locks
 *            of dax/lib/pager.h and held for no system call that sleeps.
 *            Signals are blocked meanwhile: a handler may touch a view, and
 *            then the receiver and the reader need this lock.
 * Ownership. Counted: link_get() or link_hold(), and link_put().
 * Source.    dax/proto.h, unix(7).
 */
#ifndef DAX_LIB_LINK_H
#define DAX_LIB_LINK_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/lib/view.h"
#include "dax/proto.h"

/* A page that somebody asks for. */
struct fault {
	uint64_t vma; /* number */
	uint64_t index;
	uintptr_t addr; /* of the page */
	bool write;
	bool quiet; /* nobody touched it: no SIGBUS */
};

struct call {
	void *reply; /* begins with a struct session_reply */
	size_t room;
	int fd;			   /* that came with it, or -1 */
	const struct fault *fault; /* to be mapped before the caller runs */
	uint64_t nr;		   /* pages that were */

	/* link.c's */
	uint32_t id;
	int ret;
	sem_t done;
	struct call *next;
};

/*
 * Faults that are asked for at a time.  A thread that finds no slot is woken
 * when one is free, touches again, and so asks again.
 */
#define LINK_FAULTS 64u

struct link {
	char path[108];
	int sock;
	int lost_event; /* eventfd: faults after the daemon is gone */
	struct session_mailbox *mail;
	uint32_t nr_mail;
	uint64_t device_size; /* bytes */
	pthread_mutex_t lock;

	/* Under lock. */
	unsigned int refs;
	_Atomic(bool) lost;
	int dev[2];	/* the device: read-only, for writing; -1 */
	bool page_sync; /* its stores need msync(2), not cache lines */
	uint32_t next_id;
	struct call *calls;
	struct link_slot {
		uint32_t id; /* 0: free */
		struct fault fault;
	} slot[LINK_FAULTS];
	uintptr_t dropped_lo, dropped_hi; /* faults without a slot */

	struct vma *vmas;  /* under the maps lock */
	struct link *next; /* under the links' lock */
};

/* The link to whoever listens at @path; connects if there is none. */
int link_get(const char *path, struct link **ret_link);
void link_hold(struct link *l);
void link_put(struct link *l);

/*
 * Send @req, wait, and have the answer in call->reply; both are complete
 * messages without an id.  An error in the answer is returned.
 */
int link_call(struct link *l, struct call *call, void *req, size_t len);

/* Ask for a page and for up to @nr from there on.  Does not sleep. */
void link_fault(struct link *l, const struct fault *fault, uint64_t nr);

/* Give the device that came with a file to the link; -1 if it has one. */
int link_device(struct link *l, bool writable, int fd);

/* Around fork(): no link changes; and in the child none is left. */
void links_lock(void);
void links_unlock(void);
void links_forget(void);

#endif
