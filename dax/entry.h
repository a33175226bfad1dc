/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/entry.h - entries, and the lock that each of them is
 *
 * Private to dax/.  An entry is a value of the index:
 *
 *	pfn << 4 | EMPTY | ZERO_PAGE | PMD | LOCKED
 *
 * LOCKED     somebody works on it; lives in the slot only, callers keep the
 *            unlocked value
 * PMD        of order 9, else of order 0
 * ZERO_PAGE  a hole that was read; pfn is that of the zero page
 * EMPTY      says nothing about the file: a place for the lock.  Found
 *            unlocked after a fault that ended before it knew what to insert.
 * neither    real: pfn is the block
 *
 * Waiting.   A waiter's key is the mapping and the entry's first index.  Who
 *            unlocks wakes the next waiter; who was woken, or came by, and
 *            does not lock passes the turn on (dax_put_unlocked_entry; B16);
 *who removes the entry wakes all, since none of them will find an entry whose
 *unlock would wake the next one.
 *
 * Locking.   Everything here wants i_pages.lock; what drops it meanwhile says
 *            so.  Lock ranks: dax_entry_begin() enters LOCK_ENTRY in the
 *            books, because the bit is taken under i_pages.lock but waited for
 *            without.
 * Source.    Linux fs/dax.c.
 */
#ifndef DAX_ENTRY_H
#define DAX_ENTRY_H

#include "dax/mapping.h"
#include "dax/trace.h"

#define DAX_LOCKED    0x1u
#define DAX_PMD	      0x2u
#define DAX_ZERO_PAGE 0x4u
#define DAX_EMPTY     0x8u
#define DAX_SHIFT     4

/* Entries between two chances for others to get i_pages.lock. */
#define XA_CHECK_SCHED 4096

/* fsync has to flush it; a running fsync has chosen it, or it was CoWed. */
#define DAX_MARK_DIRTY	 XA_MARK_0
#define DAX_MARK_TOWRITE XA_MARK_1

/* Not an entry: there is a smaller one in the way. */
#define DAX_CONFLICT xa_mk_internal(256)

static inline void *dax_make_entry(uint64_t pfn, unsigned int flags)
{
	return xa_mk_value(pfn << DAX_SHIFT | flags);
}

static inline uint64_t dax_to_pfn(const void *entry)
{
	return xa_to_value(entry) >> DAX_SHIFT;
}

static inline bool dax_is_locked(const void *entry)
{
	return xa_to_value(entry) & DAX_LOCKED;
}

static inline bool dax_is_pmd_entry(const void *entry)
{
	return xa_to_value(entry) & DAX_PMD;
}

static inline bool dax_is_zero_entry(const void *entry)
{
	return xa_to_value(entry) & DAX_ZERO_PAGE;
}

static inline bool dax_is_empty_entry(const void *entry)
{
	return xa_to_value(entry) & DAX_EMPTY;
}

/* The only entries that have a folio; asked before every conversion (I8). */
static inline bool dax_is_real_entry(const void *entry)
{
	return !(xa_to_value(entry) & (DAX_ZERO_PAGE | DAX_EMPTY));
}

static inline bool dax_is_conflict(const void *entry)
{
	return entry == DAX_CONFLICT;
}

static inline unsigned int dax_entry_order(const void *entry)
{
	return dax_is_pmd_entry(entry) ? FOLIO_ORDER : 0;
}

static inline uint64_t dax_entry_pages(const void *entry)
{
	return UINT64_C(1) << dax_entry_order(entry);
}

/* Bytes of the device that the entry maps. */
static inline uint64_t dax_entry_size(const void *entry)
{
	if (!dax_is_real_entry(entry))
		return 0;
	return dax_entry_pages(entry) << BLOCK_SHIFT;
}

/* First page of the entry that covers @index. */
static inline uint64_t dax_entry_first(uint64_t index, const void *entry)
{
	return index & ~(dax_entry_pages(entry) - 1);
}

/* The head that a real entry refers to; B1, B7: never for another one. */
struct folio *dax_entry_folio(struct address_space *mapping, const void *entry);

/* This thread may lock, or wait for, one entry of @mapping. */
void dax_entry_begin(struct address_space *mapping);
void dax_entry_end(struct address_space *mapping);

/*
 * The first entry that overlaps the state's range, unlocked: waits for it.
 * DAX_CONFLICT at once, and without waiting, when it is smaller than @order
 * (B14).  May drop i_pages.lock, and may end on another entry than it began.
 */
void *dax_get_next_unlocked_entry(struct xa_state *xas, unsigned int order)
	__must_hold(xas->xa->lock);

/*
 * For walks: @entry was found at xas->index.  Waits until the entry there is
 * unlocked, and stays at that index (B3).  NULL when it is gone.
 */
void *dax_wait_entry_unlocked(struct xa_state *xas, void *entry)
	__must_hold(xas->xa->lock);

/* Somebody got an unlocked entry and leaves it so: pass the turn on. */
void dax_put_unlocked_entry(struct xa_state *xas, void *entry,
			    enum wake_mode mode) __must_hold(xas->xa->lock);

/*
 * The state stands on the entry.  May fail with -ENOMEM in the state only
 * when there was no entry.
 */
void *dax_lock_entry(struct xa_state *xas, void *entry)
	__must_hold(xas->xa->lock);

/* Store @entry, unlocked, where the locked one is, and wake the next. */
void dax_unlock_entry_locked(struct xa_state *xas, void *entry)
	__must_hold(xas->xa->lock);

/* The same by one who does not hold i_pages.lock. */
void dax_unlock_entry(struct xa_state *xas, void *entry);

/*
 * Remove the entry that the state stands on: owner, slot, nrpages, and wake
 * all (B15).  @pinned_ok as in folio_disassociate().
 */
void dax_remove_entry(struct xa_state *xas, void *entry, bool pinned_ok)
	__must_hold(xas->xa->lock);

/*
 * Remove an entry that we hold locked, having taken it out of every vma.
 * Called without i_pages.lock.
 */
void dax_drop_locked_entry(struct xa_state *xas, void *entry);

/*
 * Write protect, flush, fence: after this nothing that was stored through
 * mappings of a locked real entry can be lost.  1: nor could it, but somebody
 * may go on storing, so the entry stays dirty.
 */
int dax_flush_entry(struct address_space *mapping, uint64_t index,
		    const void *entry);

void dax_unmap(struct address_space *mapping, uint64_t index, uint64_t nr);

/* Something that cannot happen did, and it was not us. */
void dax_warn(struct dax_device *dev, const char *what);

/* Copy on media; poison and machine checks are -EIO. */
int dax_copy(struct dax_device *dev, uint64_t off, uint64_t src_off,
	     uint64_t len);

/* direct_access of the device, for all of @len. */
int dax_direct_access(struct dax_device *dev, uint64_t off, uint64_t len,
		      uint64_t *ret_pfn);

/*
 * Where the contents of a range that is about to be copied are: the srcmap if
 * there is one.  True: there are none, zeros.
 */
bool dax_source_is_hole(const struct iomap *iomap, const struct iomap *srcmap,
			uint64_t pos, uint64_t *ret_off);

#endif
