/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/reach.c - does the allocator know what the trees know?
 *
 * This repeats in the plainest way what the mount walk does cleverly: one
 * counter a block, no threads, no allocator.
 */
#include "tests/crash/reach.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"
#include "tests/crash/log.h"

struct reach {
	struct foliofs *fs;
	uint32_t *share; /* slots that lead to each block */
	struct errmsg *err;
};

static int reach_slot(struct reach *r, uint64_t slot, unsigned int level);

static int reach_node(struct reach *r, uint64_t slot)
{
	uint64_t off = slot_block(slot) << BLOCK_SHIFT;
	int ret = 0;

	for (unsigned int i = 0; i < NODE_SLOTS && !ret; i++)
		ret = reach_slot(r, pmem_load64(r->fs->pm, off + i * 8),
				 slot_level(slot) - 1);
	return ret;
}

static int reach_slot(struct reach *r, uint64_t slot, unsigned int level)
{
	uint64_t block = slot_block(slot);
	uint64_t nr = UINT64_C(1) << slot_order(slot);
	bool seen;

	if (slot == 0)
		return 0;
	if (!slot_valid(r->fs, slot, level))
		return err_set(r->err, -EUCLEAN, "bad slot %#" PRIx64, slot);
	seen = r->share[block] > 0;
	for (uint64_t i = 0; i < nr; i++)
		r->share[block + i]++;
	if (slot_type(slot) != SLOT_NODE || seen)
		return 0;
	return reach_node(r, slot);
}

static int reach_inode(struct reach *r, uint64_t ino,
		       const struct foliofs_inode *fi)
{
	int ret;

	if (le32_to_cpu(fi->nlink) == 0 && le32_to_cpu(fi->mode) == 0)
		return 0;
	if (le32_to_cpu(fi->nlink) == 0)
		return err_set(r->err, -EUCLEAN,
			       "inode %" PRIu64 ": an orphan was left", ino);
	ret = reach_slot(r, le64_to_cpu(fi->data), TREE_ROOT);
	if (!ret)
		ret = reach_slot(r, le64_to_cpu(fi->xattr), TREE_ROOT);
	return ret;
}

/* Every inode of one block of the table. */
static int reach_table_block(struct reach *r, uint64_t index, uint64_t block)
{
	const struct foliofs_inode *fi = (const struct foliofs_inode *)pmem_at(
		r->fs->pm, block << BLOCK_SHIFT);
	int ret = 0;

	for (unsigned int i = 0; i < FOLIOFS_INODES_BLOCK && !ret; i++)
		if (index + i > 0)
			ret = reach_inode(r, index * FOLIOFS_INODES_BLOCK + i,
					  &fi[i]);
	return ret;
}

static int reach_table(struct reach *r, uint64_t slot, uint64_t index)
{
	uint64_t off = slot_block(slot) << BLOCK_SHIFT;
	unsigned int level = slot_level(slot);
	int ret = 0;

	if (slot == 0)
		return 0;
	if (slot_type(slot) == SLOT_DATA) {
		for (uint64_t i = 0; i < level_pages(level) && !ret; i++)
			ret = reach_table_block(r, index + i,
						slot_block(slot) + i);
		return ret;
	}
	for (unsigned int i = 0; i < NODE_SLOTS && !ret; i++)
		ret = reach_table(r, pmem_load64(r->fs->pm, off + i * 8),
				  index + i * level_pages(level - 1));
	return ret;
}

/* The superblock's copy must name the same table. */
static int reach_super(struct reach *r)
{
	uint64_t field = offsetof(struct foliofs_superblock, itable_root);
	uint64_t copy = (r->fs->nr_blocks - 1) << BLOCK_SHIFT;
	uint64_t root = pmem_load64(r->fs->pm, field);
	int ret;

	if (pmem_load64(r->fs->pm, copy + field) != root)
		return err_set(r->err, -EUCLEAN,
			       "the superblocks name different inode tables");
	ret = reach_slot(r, root, TREE_ROOT);
	if (!ret)
		ret = reach_table(r, root, 0);
	return ret;
}

static int reach_compare(struct reach *r)
{
	struct foliofs *fs = r->fs;
	uint64_t nr_free = 0;
	struct alloc_stat st;

	for (uint64_t b = fs->data_start; b < fs->nr_blocks - 1; b++) {
		uint32_t share = alloc_share(fs->al, b);

		nr_free += r->share[b] == 0;
		if (share != r->share[b])
			return err_set(r->err, -EUCLEAN,
				       "block %" PRIu64
				       ": %u slots lead to it, "
				       "the allocator thinks %u",
				       b, r->share[b], share);
	}
	alloc_stat(fs->al, &st, false);
	if (st.nr_free != nr_free)
		return err_set(r->err, -EUCLEAN,
			       "%" PRIu64 " blocks are unreachable, the "
			       "allocator says %" PRIu64 " are free",
			       nr_free, st.nr_free);
	return 0;
}

int reach_check(struct foliofs *fs, struct errmsg *err)
{
	struct reach r = { .fs = fs, .err = err };
	int ret;

	r.share = (uint32_t *)test_realloc(NULL,
					   fs->nr_blocks * sizeof(*r.share));
	memset(r.share, 0, fs->nr_blocks * sizeof(*r.share));
	ret = reach_super(&r);
	if (!ret)
		ret = reach_compare(&r);
	free(r.share);
	return ret;
}
