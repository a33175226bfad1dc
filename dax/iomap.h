/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/iomap.h - what backs a range of a file, as told by its filesystem
 *
 * dax/ knows no extents.  Whoever has them provides begin and end; every
 * operation on a range is a loop of begin, work on what it answered, end.
 *
 * Shared extents.  IOMAP_F_SHARED says that somebody else may own the block.
 * On a read the iomap is the shared block.  On a write, begin sets a private
 * block aside and returns that as iomap, IOMAP_MAPPED and IOMAP_F_SHARED, and
 * what it replaces as srcmap, without IOMAP_F_SHARED; a srcmap of IOMAP_HOLE
 * means that there is nothing to copy.  end with written > 0 makes the private
 * block part of the file, end with 0 gives it back.  The data was stored and
 * flushed when end is called, but not fenced: committing has to order it.
 *
 * Units.     Bytes.  addr is a media offset, offset a file position.
 * Errors.    begin and end return 0 or a negative errno.  What end says about
 *            a cancelled block reaches the caller (B19).
 * Locking.   Called with the entry of the range locked, for faults and
 *            writeback; may take transaction and allocator locks, which it
 *            has dropped when it returns.
 * Source.    Linux include/linux/iomap.h, Documentation/filesystems/iomap/.
 */
#ifndef DAX_IOMAP_H
#define DAX_IOMAP_H

#include <stdint.h>

struct address_space;

enum iomap_type {
	IOMAP_HOLE,	 /* nothing there; reads as zeros */
	IOMAP_MAPPED,	 /* block at addr */
	IOMAP_UNWRITTEN, /* block at addr, reads as zeros */
};

/* struct iomap.flags */
#define IOMAP_F_NEW    0x1u /* allocated by this begin */
#define IOMAP_F_DIRTY  0x2u /* metadata needs an fsync to be durable */
#define IOMAP_F_SHARED 0x4u /* see above */

/* Flags of begin and end. */
#define IOMAP_WRITE   0x1u  /* allocate; written blocks, not unwritten ones */
#define IOMAP_ZERO    0x2u  /* is about to zero; may leave holes */
#define IOMAP_FAULT   0x4u  /* page fault: whole blocks, zeroed if new */
#define IOMAP_UNSHARE 0x8u  /* is about to copy shared blocks */
#define IOMAP_REPORT  0x10u /* only looks */

#define IOMAP_NULL_ADDR UINT64_MAX

struct iomap {
	uint64_t addr;	 /* media offset of file position @offset */
	uint64_t offset; /* at or before the position asked for */
	uint64_t length;
	enum iomap_type type;
	unsigned int flags;
};

struct iomap_ops {
	/*
	 * What backs @pos?  At least one byte from @pos on.  With IOMAP_FAULT
	 * and IOMAP_WRITE the blocks are allocated, zeroed and written.
	 */
	int (*begin)(struct address_space *mapping, uint64_t pos,
		     uint64_t length, unsigned int flags, struct iomap *iomap,
		     struct iomap *srcmap);

	/* @written bytes of it were used; 0 after a failure.  May be NULL. */
	int (*end)(struct address_space *mapping, uint64_t pos, uint64_t length,
		   uint64_t written, unsigned int flags, struct iomap *iomap);
};

#endif
