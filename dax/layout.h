/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/layout.h - layout break: wait until nobody relies on where a file lies
 *
 * The layout of a file is the relation from file offset to block that holders
 * of pins rely on.  Before any block of a file moves or goes, the range is
 * unmapped everywhere, every pin on it has ended, and its entries are deleted,
 * with new faults kept out from beginning to end by the invalidate_lock.
 *
 * The hazards that the code names by number:
 *
 * H1  sleep until only mappings are left, not until nothing is left: another
 *     file may go on mapping a shared folio
 * H2  drop the invalidate_lock while sleeping: the holder of the pin may need
 *     a fault before it can let go
 * H3  keep i_rwsem: new direct I/O queues behind us instead of starving us
 * H4  two files: on a busy second one drop both locks and sleep; never spin
 * H5  sleep with no entry lock, i_pages.lock or transaction held
 * H6  a range that cuts an order-9 entry unmaps all of the entry
 * H7  deleting an entry forgets that it was dirty: an operation that keeps the
 *     data writes back first
 * H8  copy on write does not come here: the old block is simply not reused
 *     before it is idle (folio_release())
 *
 * Units.     Byte offsets; start and end name the first and the last byte.
 * Errors.    -EINTR interrupted, -EAGAIN busy and the caller cannot wait,
 *            -ETIMEDOUT, or what a policy said.  On any error all entries are
 *            still there; the range was unmapped, which costs only faults.
 * Locking.   invalidate_lock held exclusive, except for the final break,
 *            whose caller is alone.
 * Ownership. A struct dax_break lives in the frame of the caller.
 * Source.    Linux dax_break_layout(), dax_layout_busy_page_range().
 */
#ifndef DAX_LAYOUT_H
#define DAX_LAYOUT_H

#include "dax/mapping.h"

#define DAX_LAYOUT_END UINT64_MAX

/* What a break that found a busy folio does next. */
enum dax_verdict {
	DAX_BREAK_WAIT, /* until it is not busy, or until @until_ns */
	/*
	 * Delete the entries of [defer_start, defer_end] all the same: the
	 * blocks are not idle, so folio_release() will hold them back.
	 */
	DAX_BREAK_DEFER,
};

struct dax_break {
	/*
	 * Drop and retake the lock that keeps faults out.  NULL: whoever
	 * calls cannot, so a busy folio is -EAGAIN.
	 */
	void (*unlock)(struct dax_break *brk);
	void (*lock)(struct dax_break *brk);

	/*
	 * Asked for each busy folio, before each sleep, with the lock held.
	 * A dax_verdict or a negative errno, which ends the break; may set
	 * @until_ns, after which it is asked again.  NULL: DAX_BREAK_WAIT.
	 */
	int (*busy)(struct dax_break *brk, struct address_space *mapping,
		    struct folio *folio, uint64_t index);

	/*
	 * Bytes whose blocks go.  Others stay with the file, so that they keep
	 * their entries when the rest is put off.  Both 0: all of the range.
	 */
	uint64_t defer_start, defer_end;

	void *ctx;	       /* the caller's */
	struct dax_task *task; /* whom to interrupt, or NULL */
	uint64_t until_ns;     /* of the next sleep; 0: no limit */
	uint64_t nr_rounds;    /* sleeps so far */
};

/**
 * dax_layout_busy_page_range() - unmap a range and find a busy folio in it
 * @end: last byte; DAX_LAYOUT_END for the whole file, 0 for page 0 only
 * @ret_index: where the folio was found, or NULL
 *
 * Return: the head of a busy folio, or NULL.
 */
struct folio *dax_layout_busy_page_range(struct address_space *mapping,
					 uint64_t start, uint64_t end,
					 uint64_t *ret_index);

/*
 * Break the layout of a range.  0: nobody maps or pins it, and it has no
 * entries.
 */
int dax_break_layout(struct address_space *mapping, uint64_t start,
		     uint64_t end, struct dax_break *brk);

/* The same for the whole file. */
int dax_break_layout_inode(struct address_space *mapping,
			   struct dax_break *brk);

/*
 * For eviction: waits for as long as it takes, without locks, since nobody
 * else knows the inode.  There are no entries afterwards.
 */
void dax_break_layout_final(struct address_space *mapping);

/**
 * dax_break_layout_pair() - both files of a reflink, dedupe or exchange
 * @brk: unlock and lock are not used; busy, task and until_ns are
 *
 * Takes both invalidate_locks, in the order of their inode numbers, and has
 * broken both layouts when it returns 0.  The two may be the same.  Both have
 * to be DAX, or both not (-EINVAL).
 *
 * Context: both i_rwsem held, no invalidate_lock.  On success both
 * invalidate_locks are held; end with dax_break_layout_pair_end().
 */
int dax_break_layout_pair(struct address_space *m1, struct address_space *m2,
			  struct dax_break *brk);
void dax_break_layout_pair_end(struct address_space *m1,
			       struct address_space *m2);

/* Delete the entries of a range whose layout is broken. */
void dax_delete_mapping_range(struct address_space *mapping, uint64_t start,
			      uint64_t end);

#endif
