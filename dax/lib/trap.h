/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/trap.h - SIGSEGV and SIGBUS at addresses of views
 *
 * A page of media that may be loaded from but not stored to is mapped
 * read-only, and userfaultfd knows nothing of device memory: the first store
 * raises SIGSEGV.  The handler takes the page back, so that the store, done
 * again, asks the daemon for a page to store to.
 *
 * Errors.    Negative errno.
 * Locking.   Handlers run anywhere; see dax/lib/pager.h for why that is safe.
 */
#ifndef DAX_LIB_TRAP_H
#define DAX_LIB_TRAP_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>

/* Put the handlers before those of the program; once. */
int trap_init(void);

/*
 * What the library itself touches may be gone: then control comes back to
 * here.
 *
 *	if (sigsetjmp(jump, 0) == 0) { trap_guard = &jump; touch; }
 *	trap_guard = NULL;
 */
extern __thread sigjmp_buf *trap_guard;

/* From then on; may be called from anywhere. */
bool trap_installed(void);

/* What the program would see as its own handler, and what it may set. */
void trap_swap(int sig, const struct sigaction *act, struct sigaction *old);

#endif
