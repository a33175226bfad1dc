/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/folio.h - one record for each page of the device
 *
 * A folio is an aligned run of 2^order pages, order 0 or 9.  The record of its
 * first page, the head, says who uses it; the records of the other pages lead
 * to the head.  A record that was never used is zero, and zero is a free page:
 * unassociated, unreferenced, order 0.  The table is untouched anonymous
 * memory, so that records which were never used cost nothing.
 *
 * refcount   references of "mm": mappings, pins, short internal holds.  0 says
 *            that nobody maps the folio and nobody transfers to or from it.
 *            It says nothing about entries: those hold no reference.
 * mapcount   how many of the references are mappings, which can be recalled.
 * busy       refcount != mapcount: somebody whom a recall does not reach.
 * idle       refcount == 0.
 * owner      (mapping, index) or (NULL, share): which entries refer to it.
 *            U  nobody:   mapping NULL, share 0, order 0
 *            X  one:      mapping and index of the one entry
 *            S  n of them: mapping NULL, share n.  Stays S down to n == 1.
 *
 * Both counters are halves of one word, so that every change of one or both is
 * one atomic operation and each put sees exactly once that it made the folio
 * not busy (I1, H1).
 *
 * Orphans.   A folio of order 9 can lose its last entry while it is pinned: a
 *            copy on write does not wait for pins on the old block (H8).  It
 *            keeps its order until the last put takes it apart, and is not
 *            idle before.  This is the one exception to I7.
 *
 * Deferral.  A block is available again when no slot points to it and it is
 *            idle.  Its owner asks folio_release() once, after the last slot
 *            is gone for good: true, it is available now; false, somebody has
 *            it pinned and the idle callback will say when.
 *
 * Units.     pfn and index count pages; order is 0 or FOLIO_ORDER.
 * Errors.    Breaking a rule of the counters is a bug of ours and asserts.
 *            folio_try_associate() answers what an image or an extent map can
 *            do wrong: -EUCLEAN, -EEXIST.
 * Locking.   Counters are atomic.  Owners and orders change under a lock of
 *            the chunk (rank LOCK_FOLIO), the same for all mappings: that is
 *            what serialises share across inodes (B10).  Waking takes
 *            LOCK_WAIT.  The idle callback is called without any of these.
 * Ownership. Records live as long as the table; a pointer to one never
 *            dangles.  A reference counts for whoever took it.
 * Source.    Linux fs/dax.c, include/linux/mm_types.h, mm/memremap.c.
 */
#ifndef DAX_FOLIO_H
#define DAX_FOLIO_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dax/media.h"
#include "dax/wait.h"

#define FOLIO_ORDER CHUNK_ORDER
#define FOLIO_PAGES CHUNK_BLOCKS

struct address_space;
struct folio_table;

struct folio {
	_Atomic(uint64_t) count; /* refcount, and mapcount << 32 */
	_Atomic(struct address_space *) mapping;
	union { /* I5: which one it is, mapping says */
		_Atomic(uint64_t) index;
		_Atomic(uint64_t) share;
	};
	_Atomic(uintptr_t) pgmap; /* the table; of a tail page the head | 1 */
	_Atomic(uint32_t) flags;  /* FOLIO_ flags and the order */
};
static_assert(sizeof(struct folio) < 48, "what a used page costs");

#define FOLIO_ORDER_MASK 0xfu
#define FOLIO_LOCKED	 0x10u /* chunk lock, in the chunk's first record */
#define FOLIO_POISON	 0x20u /* a machine check hit it */
#define FOLIO_ORPHAN	 0x40u /* taken apart by the last put */
#define FOLIO_DEFERRED	 0x80u /* tell the owner of free space when idle */

/* What a table tells its owner. */
struct folio_table_ops {
	/*
	 * Pages [pfn, pfn + nr), for which folio_release() said false, are
	 * idle now.  Called once for each, by whoever put the last pin.
	 */
	void (*idle)(void *ctx, uint64_t pfn, uint64_t nr);
};

struct folio_table {
	struct folio *folios;
	uint64_t nr_pages;
	const struct folio_table_ops *ops;
	void *ctx;
	_Atomic(uint64_t) nr_deferred; /* pages the callback will name */
	_Atomic(uint64_t) nr_wakes;    /* waiters woken by a put */
	_Atomic(uint64_t) nr_poisoned; /* pages */
};

int folio_table_create(uint64_t nr_pages, const struct folio_table_ops *ops,
		       void *ctx, struct folio_table **ret_table);
void folio_table_destroy(struct folio_table *table);

/* The record of one page.  Converts a pfn that belongs to the device only. */
struct folio *folio_page(struct folio_table *table, uint64_t pfn);

/* The head of the folio that a page is in; order 0 is its own head. */
static inline struct folio *folio_head(struct folio *page)
{
	uintptr_t home = atomic_load(&page->pgmap);

	return home & 1 ? (struct folio *)(home - 1) : page;
}

static inline struct folio *folio_at(struct folio_table *table, uint64_t pfn)
{
	return folio_head(folio_page(table, pfn));
}

/* Of any page of the folio. */
struct folio_table *folio_pgmap(struct folio *page);
uint64_t folio_pfn(struct folio *page);

static inline unsigned int folio_order(const struct folio *folio)
{
	return atomic_load(&folio->flags) & FOLIO_ORDER_MASK;
}

static inline uint32_t folio_refcount(const struct folio *folio)
{
	return (uint32_t)atomic_load(&folio->count);
}

static inline uint32_t folio_mapcount(const struct folio *folio)
{
	return (uint32_t)(atomic_load(&folio->count) >> 32);
}

/* The two predicates, and there are no others. */
static inline bool dax_folio_is_idle(const struct folio *folio)
{
	return folio_refcount(folio) == 0;
}

static inline bool dax_folio_is_busy(const struct folio *folio)
{
	uint64_t count = atomic_load(&folio->count);

	return (uint32_t)count != count >> 32;
}

/* References.  All of these take the head. */

/*
 * The short hold of the fault path, which alone may raise 0 to 1: it holds
 * the lock of an entry that refers to the folio (I2).
 */
void folio_hold(struct folio *folio);

/* One more for whoever has one. */
void folio_get(struct folio *folio);

/*
 * A pin: only on a folio that is mapped.  The caller looks again whether the
 * mapping is the one it meant, and puts the pin if it is not (I2).
 */
bool folio_try_pin(struct folio *folio);

/*
 * The ordinary put, of pins and holds alike.  Wakes when the folio stops
 * being busy (H1) and when it becomes idle; frees nothing (I11).
 */
void folio_put(struct folio *folio);

/*
 * A mapping was installed, or copied by fork; a mapping is gone.  Called by
 * the mapper under the lock of its table.  One reference comes and goes with
 * each.
 */
void folio_add_map(struct folio *folio);
void folio_remove_map(struct folio *folio);

/*
 * Sleep until the folio is not busy.  A mapping through another inode or a
 * new fault does not keep us asleep: the caller unmaps and looks again (H1).
 *
 * Return: 0, -EINTR or -ETIMEDOUT.
 */
int folio_wait(struct folio *folio, struct dax_task *task, uint64_t until_ns);

/* Owners. */

/**
 * folio_try_associate() - one more entry refers to a folio
 * @table: of the device
 * @pfn: first page
 * @order: of the entry
 * @mapping: whose entry it is
 * @index: of the entry
 * @shared: the extent map says that others may own the block
 *
 * U becomes X, whatever @shared says; X and S(n) become S with one more.
 *
 * Return: 0; -EUCLEAN when the block has an owner and @shared is false (B8);
 * -EEXIST when pages of it are in use at another order (R-b); -EAGAIN when
 * pages of it are pinned from before at another order.  An orphan of the same
 * order is adopted.
 */
int folio_try_associate(struct folio_table *table, uint64_t pfn,
			unsigned int order, struct address_space *mapping,
			uint64_t index, bool shared);

/* As above for those who know that it cannot fail; asserts (A2, A3). */
void folio_associate(struct folio_table *table, uint64_t pfn,
		     unsigned int order, struct address_space *mapping,
		     uint64_t index, bool shared);

/*
 * One entry of @mapping less.  Returns the order that the folio had if nobody
 * is left (the folio is U now), -1 otherwise.  @pinned_ok: a pin may outlive
 * the entry (copy on write; a policy that defers).  A mapping may never.
 */
int folio_disassociate(struct folio *folio, struct address_space *mapping,
		       bool pinned_ok);

/* mapping NULL and share != 0.  False does not prove a single owner. */
bool folio_is_shared(const struct folio *folio);

/* Neither mapping nor share: state U. */
bool folio_is_free(const struct folio *folio);

/* The owner word, read whole. */
struct folio_owner {
	struct address_space *mapping;
	uint64_t index_or_share;
	unsigned int order;
};
struct folio_owner folio_owner(struct folio *folio);

/* Blocks, for the owner of free space. */

/* Nobody maps or pins any of the pages, and no entry refers to them (I3). */
bool dax_block_idle(struct folio_table *table, uint64_t pfn, uint64_t nr);

/*
 * No slot points to page @pfn any more and no entry refers to it.  True: it
 * may be used for something else now.  False: the idle callback will say.
 */
bool folio_release(struct folio_table *table, uint64_t pfn);

/* Poison stays until the page was written anew. */
void folio_set_poison(struct folio_table *table, uint64_t pfn, bool poison);
bool folio_is_poisoned(struct folio_table *table, uint64_t pfn, uint64_t nr);

#endif
