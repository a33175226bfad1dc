/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/pager.h - the views of this process, and what happens to them
 *
 * Two kinds of threads work behind the program's back.  The reader has the
 * userfaultfd: it turns a touch into a question to the daemon and looks up
 * views for that, but changes nothing.  The receivers, one for each link, do
 * what the daemons say.
 *
 * Locking.   Two locks cover the set of views.  The maps lock is held by
 *            whoever changes views or page tables, possibly for long: moving
 *            a spare range waits for the reader.  The set lock is inside it,
 *            is held as well while the set changes, and is all that the
 *            reader takes.  Nobody who holds either touches a view's memory,
 *            and signals are blocked, so that a handler may take them.
 *            Order: maps, set, links, link.
 * Errors.    Negative errno.
 */
#ifndef DAX_LIB_PAGER_H
#define DAX_LIB_PAGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/lib/link.h"
#include "dax/lib/view.h"

struct foliofs_file {
	struct link *link;
	uint64_t handle;
	uint64_t ino;
	bool writable;
	int dev; /* the link's */
	_Atomic(unsigned int) refs;
};

void file_hold(struct foliofs_file *file);
void file_put(struct foliofs_file *file);

/* Start it, once for a process. */
int pager_init(void);

#define PAGER_SYNC     0x1u
#define PAGER_POPULATE 0x2u
#define PAGER_FIXED    0x4u
#define PAGER_FLUSHED  0x8u /* SESSION_MAP_FLUSHED */

int pager_map(struct foliofs_file *file, uint64_t index, size_t len, int prot,
	      unsigned int flags, uintptr_t *ret_addr);
int pager_unmap(uintptr_t start, uintptr_t end);
int pager_protect(uintptr_t start, uintptr_t end, int prot);
int pager_populate(uintptr_t start, uintptr_t end, bool write);
int pager_give_back(uintptr_t start, uintptr_t end);

/* Is all of it mapped? */
bool pager_covers(uintptr_t start, uintptr_t end);

/* Is any of it?  Quick where nothing at all is mapped. */
bool pager_overlaps(uintptr_t start, uintptr_t end);

/*
 * What of [addr, end) the first view there has: a part of one vma.  *ret_link
 * is held.  -ENOENT when there is none.
 */
struct pager_part {
	uintptr_t start;
	uintptr_t end;
	struct link *link;
	struct foliofs_file *file; /* the view's */
	uint64_t vma;
	uint64_t index;
	int prot;
};
int pager_part(uintptr_t addr, uintptr_t end, struct pager_part *ret_part);

/*
 * The first run of pages in [addr, end) that may have been stored to.  False
 * when there is none.
 */
bool pager_dirty(uintptr_t addr, uintptr_t end, uintptr_t *ret_start,
		 uintptr_t *ret_end);

/*
 * A signal came for @addr.  True: touch it again.  After SIGBUS the answer is
 * false, but the next touch asks the daemon again.
 */
bool pager_signal(int sig, uintptr_t addr, bool write);

/*
 * System calls do not get signals: have all pages of [start, end) that a
 * store would raise SIGSEGV in ask again.
 */
void pager_refault(uintptr_t start, uintptr_t end);

/*
 * For link.c.  What a reply says is done to the page tables, and whoever waits
 * is woken.  Returns how many pages from the asked one on are there now, or a
 * negative errno.
 */
int64_t pager_answer(struct link *l, const struct fault *fault,
		     const struct session_fault_reply *reply);
void pager_fail(struct link *l, const struct fault *fault);
void pager_recall(struct link *l, const struct session_recall *recall);

/* Pages with SIGBUS were there long enough for their threads: ask again. */
void pager_tick(void);
bool pager_wants_tick(void);

#endif
