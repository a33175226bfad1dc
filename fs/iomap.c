/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/iomap.c - how faults reach the tree
 *
 * begin() says what backs a page; for a store it sees to it that there is a
 * written block of the file's own.  A shared block is answered with a new one
 * beside it, which belongs to nobody until end() puts it into the tree.
 *
 * Two megabytes at once are only answered where there are two megabytes, whole
 * and aligned; everything else is answered short, and the fault comes again
 * for a page.
 */
#include <errno.h>
#include <string.h>

#include "fs/layout.h"

static enum iomap_type type_of(const struct tree_run *run)
{
	switch (run->type) {
	case SLOT_DATA:
		return IOMAP_MAPPED;
	case SLOT_UNWRITTEN:
		return IOMAP_UNWRITTEN;
	default:
		return IOMAP_HOLE;
	}
}

static void set_iomap(struct iomap *iomap, const struct tree_run *run)
{
	*iomap = (struct iomap){
		.addr = run->type == SLOT_HOLE ? IOMAP_NULL_ADDR
					       : run->block << BLOCK_SHIFT,
		.offset = run->index << BLOCK_SHIFT,
		.length = run->nr << BLOCK_SHIFT,
		.type = type_of(run),
		.flags = run->type != SLOT_HOLE && !run->exclusive
				 ? IOMAP_F_SHARED
				 : 0,
	};
}

/* A copy is made of one page, whatever was asked for. */
static int begin_copy(struct inode *ip, const struct tree_run *run,
		      struct iomap *iomap, struct iomap *srcmap)
{
	struct tree_run one = *run;
	uint64_t block;
	int ret;

	one.nr = 1;
	one.exclusive = true;
	set_iomap(srcmap, &one);
	ret = file_stage(ip, run->block, &block);
	if (ret)
		return ret;
	one.block = block;
	set_iomap(iomap, &one);
	iomap->flags = IOMAP_F_SHARED;
	return 0;
}

static int begin_store(struct inode *ip, struct tree_run *run, uint64_t nr,
		       struct iomap *iomap, struct iomap *srcmap)
{
	int ret;

	if (run->type == SLOT_DATA && !run->exclusive) {
		if (nr == 1)
			return begin_copy(ip, run, iomap, srcmap);
		run->nr = 1;
	} else if (run->type != SLOT_DATA && run->nr >= nr) {
		ret = file_fault(ip, nr, run);
		if (ret)
			return ret;
		set_iomap(iomap, run);
		iomap->flags |= IOMAP_F_NEW;
		return 0;
	}
	set_iomap(iomap, run);
	return 0;
}

static int begin_write(struct inode *ip, uint64_t index, uint64_t nr,
		       struct iomap *iomap, struct iomap *srcmap)
{
	struct inode_dax *d = inode_dax(ip);
	struct tree_run run;
	int ret;

	rwsem_down_write(&d->tree_lock, LOCK_TREE);
	ret = file_run(ip, index, nr, &run);
	if (!ret)
		ret = begin_store(ip, &run, nr, iomap, srcmap);
	rwsem_up_write(&d->tree_lock);
	return ret;
}

static int iomap_begin(struct address_space *mapping, uint64_t pos,
		       uint64_t length, unsigned int flags, struct iomap *iomap,
		       struct iomap *srcmap)
{
	struct inode *ip = mapping->host;
	uint64_t nr = (length + BLOCK_MASK) >> BLOCK_SHIFT;
	struct tree_run run;
	int ret;

	if (flags & IOMAP_WRITE)
		return begin_write(ip, pos >> BLOCK_SHIFT, nr, iomap, srcmap);
	tree_down_read(ip);
	ret = file_run(ip, pos >> BLOCK_SHIFT, nr, &run);
	tree_up_read(ip);
	if (!ret)
		set_iomap(iomap, &run);
	return ret;
}

static int iomap_end(struct address_space *mapping, uint64_t pos,
		     uint64_t length, uint64_t written, unsigned int flags,
		     struct iomap *iomap)
{
	struct inode *ip = mapping->host;
	struct inode_dax *d = inode_dax(ip);
	uint64_t block = iomap->addr >> BLOCK_SHIFT;
	int ret = 0;

	/* Who asked for two megabytes was told no, and has no copy. */
	if (!(flags & IOMAP_WRITE) || !(iomap->flags & IOMAP_F_SHARED) ||
	    iomap->type != IOMAP_MAPPED || length != BLOCK_SIZE)
		return 0;
	rwsem_down_write(&d->tree_lock, LOCK_TREE);
	if (written)
		ret = file_stage_commit(ip, pos >> BLOCK_SHIFT, block);
	else
		file_stage_cancel(ip, block);
	rwsem_up_write(&d->tree_lock);
	return ret;
}

const struct iomap_ops foliofs_iomap_ops = {
	.begin = iomap_begin,
	.end = iomap_end,
};
