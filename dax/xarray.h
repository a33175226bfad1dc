/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/xarray.h - an array of values with very large indices
 *
 * A radix tree of nodes with 64 slots each, in which a subtree of few entries
 * is one list of them.  The words:
 *
 * entry      what a caller stores: a value (xa_mk_value()) or an aligned
 *            pointer.  NULL is no entry.
 * order      an entry of order n covers 2^n indices, aligned.  It is one
 *            entry: loading any of its indices gives it, storing at any of
 *            them changes all, storing NULL at any of them removes it whole.
 * mark       a bit of an entry, of which there are three.  Replacing an entry
 *            keeps its marks, storing NULL clears them.  A walk over marked
 *            entries skips subtrees that have none.
 * xas        the state of an operation: range, place in the tree, error.
 * reset      the next operation walks again, to the SAME index.
 * pause      the next operation walks again, AFTER the current entry.
 *
 * An xas that was used under the lock must be reset or paused before the lock
 * is dropped, or be thrown away.  Mixing up the two loses entries (B3).
 *
 * Out of memory.  xas_store() may find no memory for a node.  The error stays
 * in the xas and every later call on it does nothing; the caller drops the
 * lock, calls xas_nomem(), and starts over if that says true:
 *
 *	do {
 *		xa_lock(xa);
 *		... xas_store(&xas, entry);
 *		xa_unlock(xa);
 *	} while (xas_nomem(&xas));
 *	return xas_error(&xas);
 *
 * Units.     Indices are whatever the caller counts; pages in dax/.
 * Errors.    Negative errno in the xas: -ENOMEM, or what xas_set_err() put in.
 * Locking.   xa->lock (rank LOCK_XA) covers the tree.  The xas_ functions want
 *            it held by the caller; xa_load(), xa_store() and xa_erase() take
 *            it themselves.  xas_nomem() is called without it.
 * Ownership. Nodes belong to the tree; entries belong to the caller.
 * Source.    Linux Documentation/core-api/xarray.rst.
 */
#ifndef DAX_XARRAY_H
#define DAX_XARRAY_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/lock.h"

#define XA_SHIFT     6u /* a 64-bit word is a bitmap of one node */
#define XA_SLOTS     (1u << XA_SHIFT)
#define XA_MAX_MARKS 3u
#define XA_MAX_ORDER 60u

enum xa_mark {
	XA_MARK_0,
	XA_MARK_1,
	XA_MARK_2,
};

/*
 * Three ways to keep what is below a slot, so that entries far from all others
 * cost little.  A small node has room for a few slots, which are those of its
 * used bits in order; it is made wide when it needs more.  A list stands for a
 * whole subtree with few entries: it has no slots but places, each with the
 * low bits of an index and the entry there.
 */
enum xa_kind {
	XA_WIDE,  /* slot i is slots[i] */
	XA_SMALL, /* at most XA_SMALL_SLOTS */
	XA_LIST,  /* @size keys, then @size entries */
};
#define XA_SMALL_SLOTS 4u

struct xa_node {
	uint8_t shift;	/* bits of the index below this node's slots */
	uint8_t offset; /* slot of this node in its parent */
	uint8_t kind;	/* enum xa_kind */
	uint8_t size;	/* places of a list */
	bool roomy;	/* has the memory for any kind */
	struct xa_node *parent;
	uint64_t used;		      /* slots that are not NULL */
	uint64_t marks[XA_MAX_MARKS]; /* first slots of entries, and nodes */
	void *slots[];
};

/* Where nodes come from.  NULL in a struct xarray means the C library. */
struct xa_mem {
	void *(*alloc)(void *ctx, size_t size, bool may_wait); /* zeroed */
	void (*free)(void *ctx, void *node);
	void *ctx;
};

struct xarray {
	struct mutex lock;
	struct xa_node *head;
	const struct xa_mem *mem;
};

struct xa_state {
	struct xarray *xa;
	uint64_t index;
	uint64_t last;	      /* of the range that a store covers */
	struct xa_node *node; /* or one of the XAS_ values */
	uint64_t base;	      /* first index of @node */
	unsigned int offset;  /* slot or place in @node; XA_SLOTS up: none */
	unsigned int order;
	struct xa_node *spare; /* nodes that xas_nomem() got, by parent */
	unsigned int nr_spare;
};

/* What xas->node is when it is no node.  An error is -errno, shifted. */
#define XAS_BOUNDS  ((struct xa_node *)(uintptr_t)1)
#define XAS_RESTART ((struct xa_node *)(uintptr_t)3)

#define XA_STATE_ORDER(name, array, index_, order_) \
	struct xa_state name = xas_make(array, index_, order_)
#define XA_STATE(name, array, index_) XA_STATE_ORDER(name, array, index_, 0)

static inline struct xa_state xas_make(struct xarray *xa, uint64_t index,
				       unsigned int order)
{
	uint64_t mask = (UINT64_C(1) << order) - 1;

	assert(order <= XA_MAX_ORDER);
	return (struct xa_state){ .xa = xa,
				  .index = index & ~mask,
				  .last = index | mask,
				  .node = XAS_RESTART,
				  .order = order };
}

/*
 * A value is a tagged integer, so that it cannot be taken for a pointer or
 * for one of the tree's own entries.
 */
static inline void *xa_mk_value(uint64_t v)
{
	return (void *)(uintptr_t)(v << 1 | 1);
}

static inline uint64_t xa_to_value(const void *entry)
{
	return (uintptr_t)entry >> 1;
}

static inline bool xa_is_value(const void *entry)
{
	return (uintptr_t)entry & 1;
}

/*
 * Errors that travel in place of an entry have a tag of their own, because
 * small negative pointers look like values.
 */
static inline void *xa_mk_internal(uint64_t v)
{
	return (void *)(uintptr_t)(v << 2 | 2);
}

static inline bool xa_is_internal(const void *entry)
{
	return ((uintptr_t)entry & 3) == 2;
}

void xa_init(struct xarray *xa, const struct xa_mem *mem);

/* Gives back all nodes; entries are forgotten. */
void xa_destroy(struct xarray *xa);

static inline void xa_lock(struct xarray *xa) __acquires(xa->lock)
{
	mutex_lock(&xa->lock);
}

static inline void xa_unlock(struct xarray *xa) __releases(xa->lock)
{
	mutex_unlock(&xa->lock);
}

static inline bool xa_empty(const struct xarray *xa)
{
	return !xa->head;
}

/* Does any entry have @mark? */
static inline bool xa_marked(const struct xarray *xa, enum xa_mark mark)
{
	return xa->head && xa->head->marks[mark];
}

/* Nodes in the tree; walks all of it. */
size_t xa_nr_nodes(const struct xarray *xa);

void *xa_load(struct xarray *xa, uint64_t index);
int xa_store(struct xarray *xa, uint64_t index, unsigned int order,
	     void *entry);
void *xa_erase(struct xarray *xa, uint64_t index);

static inline bool xas_invalid(const struct xa_state *xas)
{
	return (uintptr_t)xas->node & 3;
}

static inline void xas_lock(struct xa_state *xas) __acquires(xas->xa->lock)
{
	mutex_lock(&xas->xa->lock);
}

static inline void xas_unlock(struct xa_state *xas) __releases(xas->xa->lock)
{
	mutex_unlock(&xas->xa->lock);
}

static inline int xas_error(const struct xa_state *xas)
{
	if (((uintptr_t)xas->node & 3) == 2)
		return -(int)((uintptr_t)xas->node >> 2);
	return 0;
}

static inline void xas_set_err(struct xa_state *xas, int err)
{
	xas->node = (struct xa_node *)xa_mk_internal((uint64_t)-err);
}

/* Go to the same index again. */
static inline void xas_reset(struct xa_state *xas)
{
	xas->node = XAS_RESTART;
}

/* Go on after the current entry. */
void xas_pause(struct xa_state *xas);

/* Go to another index, with order 0. */
static inline void xas_set(struct xa_state *xas, uint64_t index)
{
	xas->index = index;
	xas->last = index;
	xas->order = 0;
	xas->node = XAS_RESTART;
}

/*
 * The entry at xas->index, or NULL.  What the index is covered by, whatever
 * the order of the state.
 */
void *xas_load(struct xa_state *xas);

/*
 * Store @entry over the range of the state.  When an entry that covers the
 * whole range is there, it is replaced where it is and keeps its order and
 * marks; smaller ones inside the range go, and their marks with them.  NULL
 * removes every entry that overlaps the range.  Returns the entry that was
 * at xas->index.
 */
void *xas_store(struct xa_state *xas, void *entry);

/*
 * The next entry that reaches up to @max or starts there, each once.  The
 * first call looks at xas->index itself, even in the middle of an entry.
 */
void *xas_find(struct xa_state *xas, uint64_t max);
void *xas_find_marked(struct xa_state *xas, uint64_t max, enum xa_mark mark);

/*
 * The first entry that overlaps the range of the state, or NULL.  Looks from
 * the start of the range each time; xas->index stays.
 */
void *xas_find_conflict(struct xa_state *xas);

/* Of the entry that the xas stands on: first index, order, marks. */
uint64_t xas_entry_index(const struct xa_state *xas);
unsigned int xas_entry_order(const struct xa_state *xas);

/*
 * These need an xas that stands on an entry.  After reset, pause or set they
 * do nothing and answer false.
 */
bool xas_get_mark(const struct xa_state *xas, enum xa_mark mark);
void xas_set_mark(const struct xa_state *xas, enum xa_mark mark);
void xas_clear_mark(const struct xa_state *xas, enum xa_mark mark);

/*
 * Called without the lock.  True: there was no memory and now there is, so
 * start over.  False: nothing to retry; xas_error() says how it went.  In
 * every case what the xas still had aside is given back when it says false.
 */
bool xas_nomem(struct xa_state *xas);

#define xas_for_each(xas, entry, max)                   \
	for ((entry) = xas_find((xas), (max)); (entry); \
	     (entry) = xas_find((xas), (max)))

#define xas_for_each_marked(xas, entry, max, mark)                     \
	for ((entry) = xas_find_marked((xas), (max), (mark)); (entry); \
	     (entry) = xas_find_marked((xas), (max), (mark)))

#endif
