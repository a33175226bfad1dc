/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/tree.h - trees of slots
 *
 * A tree is named by its root slot.  tree_lookup() reads it; tree_edit()
 * computes the root slot of a changed tree.  An edit changes exclusive nodes
 * in place through words of the transaction when they are few, and copies
 * nodes otherwise; a node with more than one share, and everything below it,
 * is always copied.  Nothing is visible before the caller sets the new root
 * (if it differs) and commits.
 *
 * Units.     index and nr are pages (blocks) of the file.
 * Errors.    Negative errno; -EUCLEAN for a slot that cannot be (the caller
 *            says where), -ENOSPC, -ENOMEM.  On failure the caller aborts.
 * Locking.   The caller keeps the tree from changing: i_rwsem shared for
 *            lookups, exclusive for edits.
 */
#ifndef FS_TREE_H
#define FS_TREE_H

#include <stdbool.h>

#include "fs/txn.h"

static inline unsigned int slot_type(uint64_t slot)
{
	return (unsigned int)(slot & SLOT_TYPE_MASK);
}

static inline unsigned int slot_level(uint64_t slot)
{
	return (unsigned int)(slot >> SLOT_LEVEL_SHIFT & SLOT_LEVEL_MASK);
}

static inline uint64_t slot_block(uint64_t slot)
{
	return slot >> BLOCK_SHIFT;
}

static inline uint64_t slot_make(unsigned int type, unsigned int level,
				 uint64_t block)
{
	return block << BLOCK_SHIFT | (uint64_t)level << SLOT_LEVEL_SHIFT |
	       type;
}

/* Allocation order of what a slot points to. */
static inline unsigned int slot_order(uint64_t slot)
{
	return slot_type(slot) != SLOT_NODE && slot_level(slot) == 1
		       ? CHUNK_ORDER
		       : 0;
}

/* Pages under a slot that stands at @level. */
static inline uint64_t level_pages(unsigned int level)
{
	return UINT64_C(1) << (level * NODE_SHIFT);
}

static inline enum block_kind node_kind(unsigned int level)
{
	return (enum block_kind)(BLOCK_NODE1 + level - 1);
}

/*
 * Can this word be a slot of this filesystem, at this level (TREE_ROOT: at
 * the root, where any level is possible)?  Everything read from media goes
 * through this once before it is followed.
 */
#define TREE_ROOT (~0u)
bool slot_valid(const struct foliofs *fs, uint64_t slot, unsigned int level);

/* What is at a page: a run of pages that are alike and adjacent on media. */
struct tree_run {
	uint64_t index;	   /* first page, the one asked for */
	uint64_t nr;	   /* pages, at least 1 */
	uint64_t block;	   /* of the first page; 0 for a hole */
	unsigned int type; /* SLOT_HOLE, SLOT_DATA, SLOT_UNWRITTEN */
	bool chunk;	   /* part of a 2 MiB slot */
	bool exclusive;	   /* no other slot reaches these blocks */
};

/*
 * The run that starts at @index, at most @max pages.  With ret_run->exclusive
 * only computed when @want_exclusive (it costs a look at each share count).
 */
int tree_lookup(const struct foliofs *fs, uint64_t root, uint64_t index,
		uint64_t max, bool want_exclusive, struct tree_run *ret_run);

/*
 * Pages [index, index + nr) become this.  Either the blocks were taken for
 * it, or (reuse) they are what the pages have already, exclusively, and only
 * the type changes; or (share) they become what the tree edit's source has
 * from page @block on: the largest subtrees that are aligned alike are shared
 * with one slot each.
 */
struct tree_ext {
	uint64_t index;
	uint64_t nr;
	uint64_t block;	   /* of the first page; nothing for a hole */
	unsigned int type; /* SLOT_HOLE, SLOT_DATA, SLOT_UNWRITTEN */
	bool chunk;	   /* whole aligned chunks, taken as such */
	bool reuse;
	bool share;
};

struct tree_edit {
	struct txn *txn;
	const struct foliofs *fs;
	enum block_kind kind;	    /* of the blocks; nodes have their own */
	const struct tree_ext *ext; /* sorted, disjoint */
	unsigned int nr_ext;
	unsigned int keep_words; /* words the caller still needs */
	uint64_t goal;		 /* where new nodes should be near to */
	uint64_t source;	 /* root of what is shared */
	bool no_count;		 /* leave pages alone: it costs a walk */
	int64_t pages;		 /* out: data pages gained or lost */
};

/* What the pages had before is dropped with the transaction. */
int tree_edit(struct tree_edit *e, uint64_t root, uint64_t *ret_root);

/* Data pages (not nodes) in the tree. */
int tree_count(const struct foliofs *fs, uint64_t root, uint64_t *ret_pages);

/* First page at or after @index that has (not: is not) data, up to @end. */
int tree_seek(const struct foliofs *fs, uint64_t root, uint64_t index,
	      uint64_t end, bool data, uint64_t *ret_index);

/* alloc_put() the slot and, if that was the last share, what is below it. */
void tree_drop(struct foliofs *fs, uint64_t slot);

#endif
