/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * alloc/alloc.h - free space and share counts, in DRAM
 *
 * Nothing here is on media.  Mount walks the trees, calls alloc_mark() once
 * for every slot that points to a block, and alloc_ready() when it is done;
 * from then on a block is free if and only if no slot points to it.
 *
 * A block has a share count: the number of 4 KiB slots that point to it.  A
 * chunk (512 aligned blocks) has one too: the number of 2 MiB slots that
 * point to it.  A block belongs to its own slots and to its chunk's slots, so
 * that turning a 2 MiB slot into 512 small ones, or back, is a matter of
 * alloc_get() and alloc_put() and touches nobody else.
 *
 * Every block in use has a kind, so that one block cannot be a node here and
 * data there: a walk that meets this has met a damaged image.
 *
 * Life of a block: alloc_take() gives it share 1 while nothing on media
 * points to it yet.  The owner either commits a slot that does, or gives it
 * back with alloc_put() + alloc_free().  When the last slot goes, alloc_put()
 * says so, the owner looks at what the block pointed to, and alloc_free()
 * makes it available: after the transaction is durable, not before.  Every
 * alloc_put() that said so is answered by exactly one alloc_free(), and the
 * block becomes available with the last one that is still missing for it and
 * for its chunk.
 *
 * Set aside: a growing file may ask for an empty chunk of its own.  Others
 * take blocks from it only when nothing else is left.
 *
 * Units.     Blocks of BLOCK_SIZE bytes, by number from the device's start.
 *            order is 0 (a block) or CHUNK_ORDER (a chunk).
 * Errors.    Negative errno.  A failed call changes nothing.
 * Locking.   Every function takes what it needs (LOCK_ALLOC, one arena at a
 *            time); share counts are atomic words.
 * Ownership. The struct alloc belongs to whoever created it.
 */
#ifndef ALLOC_ALLOC_H
#define ALLOC_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

#include "dax/media.h"

struct alloc;

/* Blocks [start, start + nr).  nr == 0 is the empty extent. */
struct extent {
	uint64_t start;
	uint64_t nr;
};

/* What a block holds.  Fits in 4 bits. */
enum block_kind {
	BLOCK_NONE,   /* free */
	BLOCK_STATIC, /* superblock, lanes: never free */
	BLOCK_NODE1,  /* tree nodes, by level: NODE1 holds data slots */
	BLOCK_NODE2,
	BLOCK_NODE3,
	BLOCK_NODE4,
	BLOCK_DATA,   /* contents of a regular file or long symlink */
	BLOCK_DIR,    /* dentries */
	BLOCK_ITABLE, /* inodes */
	BLOCK_XATTR,  /* extended attributes */
	BLOCK_BAD,    /* known bad media: never free */
	NR_BLOCK_KINDS
};
const char *block_kind_name(enum block_kind kind);

/*
 * A block can be pointed to this often; then alloc_get() says -EMLINK.  So it
 * does, very rarely, when a block is found again through its chunk for the
 * fourth time while three alloc_free() of it are still missing.
 */
#define ALLOC_SHARE_MAX ((UINT32_C(1) << 26) - 1)

/**
 * alloc_create() - tables for a device, all free
 * @nr_blocks: size of the device, in blocks, at least 1; a last partial chunk
 *             is usable, but never as a chunk
 * @nr_reserve: blocks that only ALLOC_EMERGENCY takes may use
 * @ret_al: the allocator
 *
 * The tables are untouched anonymous memory: they cost what is in use.
 * Nothing can be taken before alloc_ready().
 *
 * Return: 0 or -ENOMEM.
 */
int alloc_create(uint64_t nr_blocks, uint64_t nr_reserve,
		 struct alloc **ret_al);
void alloc_destroy(struct alloc *al);

/**
 * alloc_mark() - the mount walk found a slot that points to a block
 * @block: first block
 * @order: 0 or CHUNK_ORDER (then @block is aligned)
 * @kind: what the slot says it holds
 *
 * May be called from several threads at once.  A chunk's kind is recorded
 * for the chunk and does not have to agree with its single blocks, except
 * that both must be data: alloc_ready() does not look, the walk of a chunk
 * slot uses BLOCK_DATA only.
 *
 * Return: the share count before (0: first visitor, who looks inside);
 * -ERANGE outside the device, or for a chunk that is not aligned; -EUCLEAN when
 * the block has another kind, or for an order-9 mark when any of its blocks is
 * in use as something else than data, or for an order-0 mark of something else
 * than data inside a chunk that a 2 MiB slot owns; -EMLINK at ALLOC_SHARE_MAX.
 */
int64_t alloc_mark(struct alloc *al, uint64_t block, unsigned int order,
		   enum block_kind kind);

/* Take back one alloc_mark(), before alloc_ready().  For fsck. */
void alloc_unmark(struct alloc *al, uint64_t block, unsigned int order);

/* The walk is over: build the free lists from the share counts.  Once. */
void alloc_ready(struct alloc *al);

/* Flags of alloc_take(). */
#define ALLOC_EMERGENCY 1u /* may use the reserve */

/**
 * alloc_take() - take a run of free blocks
 * @goal: block to be near to, 0 for none; any value is safe.  When @goal
 *        itself is free the run starts there.
 * @want: longest run wanted, at least 1
 * @kind: what it will hold
 * @flags: ALLOC_EMERGENCY or 0
 * @ret_ext: 1 to @want blocks in one run, each with share 1
 *
 * Prefers the chunk of @goal, then partly used chunks, then empty ones, then
 * chunks set aside.  (Where more than half of the arena's chunks are empty, it
 * takes one of them before it looks for holes in other arenas.)  A run never
 * crosses a chunk.  A short run is what there is at that place, not what there
 * is in all: ask again for the rest.
 *
 * Return: 0, or -ENOSPC when not even one block is left for these @flags.
 */
int alloc_take(struct alloc *al, uint64_t goal, uint64_t want,
	       enum block_kind kind, unsigned int flags,
	       struct extent *ret_ext);

/* As alloc_take(), but exactly from @start on; ret_ext->nr may be 0. */
void alloc_take_at(struct alloc *al, uint64_t start, uint64_t want,
		   enum block_kind kind, unsigned int flags,
		   struct extent *ret_ext);

/**
 * alloc_take_chunk() - take one whole empty chunk, as a chunk (order 9)
 * @ret_block: its first block; the chunk has share 1, its blocks have none
 *
 * Return: 0, or -ENOSPC when there is no empty chunk (a chunk set aside for
 * somebody is not taken).
 */
int alloc_take_chunk(struct alloc *al, uint64_t goal, enum block_kind kind,
		     unsigned int flags, uint64_t *ret_block);

/*
 * Set an empty chunk aside for a growing file: its first block, or -ENOSPC.
 * Whoever names a free block of it as goal gets it, so only the owner should.
 */
int alloc_aside(struct alloc *al, uint64_t goal, uint64_t *ret_block);
/* No longer set aside; its free blocks are anybody's.  Any block will do. */
void alloc_aside_end(struct alloc *al, uint64_t block);

/*
 * One more slot points to it.  A block without a slot of its own takes its
 * kind from its chunk, and the other way round: a split and a merge.
 *
 * Return: 0; -EMLINK at ALLOC_SHARE_MAX; -ERANGE outside the device; -EUCLEAN
 * when it is free, so that no slot can have led here.
 */
int alloc_get(struct alloc *al, uint64_t block, unsigned int order);

/*
 * One slot less.  True: it was the last one; for order 9, the last 2 MiB slot.
 * The caller then looks at what the block points to and calls alloc_free().
 */
bool alloc_put(struct alloc *al, uint64_t block, unsigned int order);

/*
 * Make what alloc_put() said true for available.  For order 9, those blocks
 * of the chunk that no small slot points to; for order 0, nothing when the
 * chunk is still owned by a 2 MiB slot.  When another alloc_free() is still
 * to come for the block or its chunk, it is left to that one.
 */
void alloc_free(struct alloc *al, uint64_t block, unsigned int order);

/*
 * How many slots point to the block: its own and its chunk's.  1 means that
 * whoever holds the inode lock of the one owner may change it in place.
 */
uint32_t alloc_share(const struct alloc *al, uint64_t block);

/* For order 9: the chunk's own count and the highest of its blocks' counts. */
uint32_t alloc_share_chunk(const struct alloc *al, uint64_t block);

/* Its own slots' kind or, without any, its chunk's; BLOCK_NONE when free. */
enum block_kind alloc_kind(const struct alloc *al, uint64_t block);

struct alloc_stat {
	uint64_t nr_blocks;	  /* of the device */
	uint64_t nr_free;	  /* can be taken */
	uint64_t nr_reserve;	  /* of those, for ALLOC_EMERGENCY only */
	uint64_t nr_shared;	  /* share above 1 */
	uint64_t nr_empty_chunks; /* wholly free chunks, not set aside */
	uint64_t nr_aside;	  /* chunks set aside */
	uint64_t nr_kind[NR_BLOCK_KINDS];
};
/* Counts are exact when nobody allocates; nr_shared and nr_kind walk all. */
void alloc_stat(const struct alloc *al, struct alloc_stat *ret, bool full);

#endif
