/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lock.h - locks that know their place
 *
 * Every lock is taken with a rank, and a thread may only take a lock of a
 * higher rank than the last one it holds.  The ranks below, read downwards,
 * are the lock order of the whole project; ARCHITECTURE.md names the call
 * that proves each edge.  A lock that exists twice on one path (two inodes)
 * has one rank for each place.
 *
 * Locking.   With LOCK_CHECKS=1 a violation aborts with the list of the locks
 *            held.  clang -Wthread-safety checks the annotations.
 * Errors.    Taking a lock cannot fail; the try functions answer false.
 * Source.    Ranks after Linux lockdep subclasses; the sleep hook after
 *            wq_worker_sleeping().
 */
#ifndef DAX_LOCK_H
#define DAX_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__clang__)
#define LOCK_ATTR(x) __attribute__((x))
#else
#define LOCK_ATTR(x)
#endif
#define __lockable	     LOCK_ATTR(capability("lock"))
#define __acquires(l)	     LOCK_ATTR(acquire_capability(l))
#define __acquires_shared(l) LOCK_ATTR(acquire_shared_capability(l))
#define __try_acquires(l)    LOCK_ATTR(try_acquire_capability(true, l))
#define __try_acquires_shared(l) \
	LOCK_ATTR(try_acquire_shared_capability(true, l))
#define __releases(l)	      LOCK_ATTR(release_capability(l))
#define __releases_shared(l)  LOCK_ATTR(release_shared_capability(l))
#define __must_hold(l)	      LOCK_ATTR(requires_capability(l))
#define __must_hold_shared(l) LOCK_ATTR(requires_shared_capability(l))
#define __no_lock_analysis    LOCK_ATTR(no_thread_safety_analysis)

/* Outer to inner.  See ARCHITECTURE.md, "Lock order". */
enum lock_rank {
	LOCK_MOUNT = 1,	    /* one mount, unmount or policy change */
	LOCK_RENAME,	    /* directory topology stands still */
	LOCK_INODE_PARENT,  /* i_rwsem of a directory that changes */
	LOCK_INODE_PARENT2, /* of the second directory of a rename */
	LOCK_INODE,	    /* i_rwsem of a file, or of the child */
	LOCK_INODE2,	    /* of the second file or child */
	LOCK_INVALIDATE,    /* invalidate_lock: faults and layout */
	LOCK_INVALIDATE2,
	LOCK_ENTRY,	/* dax entry lock (a sleeping bit) */
	LOCK_TREE,	/* the tree of a file that is mapped */
	LOCK_ITABLE,	/* which inodes are free */
	LOCK_ICACHE,	/* which inodes are in DRAM */
	LOCK_LANE,	/* a journal lane, by being its owner */
	LOCK_JOURNAL,	/* which lanes still hold a live record */
	LOCK_HELD,	/* blocks that are free but for a pin; who waits */
	LOCK_ALLOC,	/* one arena of free space */
	LOCK_XA,	/* xa_lock of one mapping */
	LOCK_SESSION,	/* who maps a file; the clients of a server */
	LOCK_FOLIO_MAP, /* page tables: a mapper's clients */
	LOCK_WAIT,	/* wait queues */
	LOCK_FOLIO,	/* one folio's owner word */
	LOCK_PMEM,	/* bad-page table, recorder */
	LOCK_LEAF,	/* takes nothing under it */
};

struct __lockable mutex {
	pthread_mutex_t m;
	enum lock_rank rank;
};

/* Prefers writers, so that a stream of readers cannot starve a truncate. */
struct __lockable rwsem {
	pthread_rwlock_t rw;
};

void mutex_init(struct mutex *m, enum lock_rank rank);
void mutex_destroy(struct mutex *m);
void mutex_lock(struct mutex *m) __acquires(*m);
bool mutex_trylock(struct mutex *m) __try_acquires(*m);
void mutex_unlock(struct mutex *m) __releases(*m);

/*
 * Wait on a condition with @m as its mutex.  The rank of @m stays held in the
 * books, because it is held again when the call returns.
 */
void mutex_wait(struct mutex *m, pthread_cond_t *cond) __must_hold(*m);

/* As mutex_wait(), but at most until CLOCK_MONOTONIC @ns; false: too late. */
bool mutex_wait_until(struct mutex *m, pthread_cond_t *cond, uint64_t ns)
	__must_hold(*m);

/* A condition variable on CLOCK_MONOTONIC, as mutex_wait_until() needs it. */
void cond_init(pthread_cond_t *cond);

/* An rwsem is given its rank where it is taken: one inode has two places. */
void rwsem_init(struct rwsem *s);
void rwsem_destroy(struct rwsem *s);
void rwsem_down_read(struct rwsem *s, enum lock_rank rank)
	__acquires_shared(*s);
void rwsem_down_write(struct rwsem *s, enum lock_rank rank) __acquires(*s);
bool rwsem_trydown_write(struct rwsem *s, enum lock_rank rank)
	__try_acquires(*s);
void rwsem_up_read(struct rwsem *s) __releases_shared(*s);
void rwsem_up_write(struct rwsem *s) __releases(*s);

/*
 * Called by a thread that is about to sleep for long (an rwsem that is taken,
 * a busy folio), and when it runs again.  The receive loop sets them, so that
 * another thread can take over its requests meanwhile.  Per thread; NULL for
 * none.  Must not take locks of a rank that callers hold.
 */
struct sleep_hook {
	void (*begin)(void *ctx);
	void (*end)(void *ctx);
	void *ctx;
};
void sleep_hook_set(const struct sleep_hook *hook);
void sleep_hook_begin(void);
void sleep_hook_end(void);

/*
 * Books of the locks that this thread holds.  For locks that are not one of
 * the two structs above (a lane, an entry's LOCKED bit).
 */
void lock_rank_acquire(const void *lock, enum lock_rank rank);
void lock_rank_release(const void *lock);

/*
 * A point where another thread may overtake: before and after every lock.
 * With LOCK_PERTURB=1 it often does.
 */
#if LOCK_PERTURB
void lock_point(void);
#else
static inline void lock_point(void)
{
}
#endif

/* For assertions: does this thread hold nothing at or above @rank? */
bool lock_rank_free(enum lock_rank rank);

#endif
