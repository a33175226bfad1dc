/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/itable.c - the inode table: which inodes are free
 *
 * The table is a file of inodes; its root slot stands in the superblock (and
 * in the copy, by the same transactions).  In DRAM there is one word for each
 * block of the table: which of its 16 inodes are in use, and whether the
 * block exists.  The words are untouched memory until then.
 *
 * The table grows by a run of zeroed blocks, that is of free inodes, in a
 * transaction of its own: a crash leaves some more free inodes.  A block
 * without inodes goes back when there are plenty of free ones.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "fs/fs.h"

/* The table grows by this many blocks if they are to be had in one run. */
#define GROW_BLOCKS 16
/* Empty blocks are kept while there are fewer free inodes than this. */
#define KEEP_FREE 4096

#define PRESENT	 UINT32_C(0x10000)
#define ALL_USED UINT32_C(0xffff)

struct itable {
	struct mutex lock;	  /* covers everything below, and the tree */
	_Atomic(uint32_t) *block; /* marked by walkers without the lock */
	void *map;		  /* where block[] is */
	uint64_t nr_blocks;	  /* words in block[] */
	uint64_t end;		  /* one past the last block that exists */
	uint64_t nr_used;
	uint64_t nr_free;
	uint64_t hint;	    /* no free inode in blocks before this one */
	uint64_t grow_hint; /* no hole in the table before this one */
};

#define ROOT_OFF offsetof(struct foliofs_superblock, itable_root)

static uint64_t itable_root(const struct foliofs *fs)
{
	return pmem_load64(fs->pm, ROOT_OFF);
}

static void set_root(struct txn *t, uint64_t root)
{
	uint64_t copy = (t->fs->nr_blocks - 1) << BLOCK_SHIFT;

	txn_set64(t, ROOT_OFF, root);
	txn_set64(t, copy + ROOT_OFF, root);
}

static size_t map_bytes(const struct itable *it)
{
	return it->nr_blocks * sizeof(*it->block);
}

int itable_create(struct foliofs *fs)
{
	struct itable *it;
	void *p;

	it = (struct itable *)calloc(1, sizeof(*it));
	if (!it)
		return -ENOMEM;
	/* At worst every block of the device is one of the table. */
	it->nr_blocks = fs->nr_blocks;
	p = mmap(NULL, map_bytes(it), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		free(it);
		return -ENOMEM;
	}
	it->map = p;
	it->block = (_Atomic(uint32_t) *)p;
	mutex_init(&it->lock, LOCK_ITABLE);
	fs->itable = it;
	return 0;
}

void itable_destroy(struct foliofs *fs)
{
	struct itable *it = fs->itable;

	if (!it)
		return;
	munmap(it->map, map_bytes(it));
	mutex_destroy(&it->lock);
	free(it);
	fs->itable = NULL;
}

void itable_block(struct foliofs *fs, uint64_t index)
{
	if (index < fs->itable->nr_blocks)
		atomic_fetch_or(&fs->itable->block[index], PRESENT);
}

void itable_mark(struct foliofs *fs, uint64_t ino)
{
	atomic_fetch_or(&fs->itable->block[ino / FOLIOFS_INODES_BLOCK],
			UINT32_C(1) << ino % FOLIOFS_INODES_BLOCK);
}

/* Inode 0 is nobody. */
static unsigned int usable(uint64_t index)
{
	return FOLIOFS_INODES_BLOCK - (index == 0);
}

static void add_block(struct itable *it, uint64_t index)
{
	atomic_fetch_or(&it->block[index], PRESENT | (index == 0));
	it->nr_free += usable(index);
	if (index < it->hint)
		it->hint = index;
	if (index >= it->end)
		it->end = index + 1;
}

void itable_ready(struct foliofs *fs)
{
	struct itable *it = fs->itable;
	uint64_t seen = 0, nr_present;
	struct alloc_stat st;

	/* The kinds of the walk say how many table blocks there are. */
	alloc_stat(fs->al, &st, true);
	nr_present = st.nr_kind[BLOCK_ITABLE];
	mutex_lock(&it->lock);
	for (uint64_t i = 0; i < it->nr_blocks && seen < nr_present; i++) {
		uint32_t word = atomic_load(&it->block[i]);
		unsigned int used;

		if (!(word & PRESENT))
			continue;
		seen++;
		add_block(it, i);
		word &= i == 0 ? ALL_USED & ~1u : ALL_USED;
		used = (unsigned int)__builtin_popcount(word);
		it->nr_used += used;
		it->nr_free -= used;
	}
	mutex_unlock(&it->lock);
}

/* Caller knows that the tree stands still, or holds the lock. */
static int find_locked(const struct foliofs *fs, uint64_t ino,
		       uint64_t *ret_off)
{
	struct tree_run run;
	int ret;

	ret = tree_lookup(fs, itable_root(fs), ino / FOLIOFS_INODES_BLOCK, 1,
			  false, &run);
	if (ret)
		return ret;
	if (run.type != SLOT_DATA)
		return -ESTALE;
	*ret_off = (run.block << BLOCK_SHIFT) +
		   ino % FOLIOFS_INODES_BLOCK * FOLIOFS_INODE_SIZE;
	return 0;
}

int itable_find(const struct foliofs *fs, uint64_t ino, uint64_t *ret_off)
{
	struct itable *it = fs->itable;
	int ret;

	if (ino == 0 || ino / FOLIOFS_INODES_BLOCK >= it->nr_blocks)
		return -ESTALE;
	mutex_lock(&it->lock);
	ret = find_locked(fs, ino, ret_off);
	mutex_unlock(&it->lock);
	return ret;
}

/*
 * With the lock held a number that is in use does not become free, so what
 * stands there is one inode's: whoever takes the number writes it later.
 */
static int read_locked(const struct foliofs *fs, uint64_t ino,
		       uint64_t *ret_off, struct inode_head *ret)
{
	int err;

	if (!itable_used(fs, ino))
		return -ESTALE;
	err = find_locked(fs, ino, ret_off);
	if (err)
		return err;
	ret->mode = pmem_load64(fs->pm, *ret_off + INODE_MODE);
	if (ret->mode >> 32 == 0)
		return -ESTALE;
	ret->size = pmem_load64(fs->pm, *ret_off + INODE_SIZE);
	ret->data = pmem_load64(fs->pm, *ret_off + INODE_DATA);
	return 0;
}

int itable_read(const struct foliofs *fs, uint64_t ino, uint64_t *ret_off,
		struct inode_head *ret)
{
	struct itable *it = fs->itable;
	int err;

	if (ino == 0)
		return -ESTALE;
	mutex_lock(&it->lock);
	err = read_locked(fs, ino, ret_off, ret);
	mutex_unlock(&it->lock);
	return err;
}

bool itable_used(const struct foliofs *fs, uint64_t ino)
{
	const struct itable *it = fs->itable;
	uint64_t index = ino / FOLIOFS_INODES_BLOCK;

	return index < it->nr_blocks &&
	       (atomic_load(&it->block[index]) >> ino % FOLIOFS_INODES_BLOCK &
		1);
}

static int edit_table(struct foliofs *fs, struct txn *t,
		      const struct tree_ext *ext, uint64_t goal)
{
	struct tree_edit e = { .txn = t,
			       .fs = fs,
			       .kind = BLOCK_ITABLE,
			       .ext = ext,
			       .nr_ext = 1,
			       .keep_words = 2,
			       .goal = goal };
	uint64_t root = itable_root(fs), new_root;
	int ret;

	ret = tree_edit(&e, root, &new_root);
	if (ret)
		return ret;
	if (new_root != root)
		set_root(t, new_root);
	return 0;
}

static bool present(const struct itable *it, uint64_t index)
{
	return atomic_load(&it->block[index]) & PRESENT;
}

/* More free inodes, in the lowest hole of the table. */
static int grow(struct foliofs *fs, struct itable *it) __must_hold(it->lock)
{
	struct tree_ext te = { .type = SLOT_DATA };
	struct extent ext;
	struct txn t;
	int ret;

	while (it->grow_hint < it->nr_blocks && present(it, it->grow_hint))
		it->grow_hint++;
	te.index = it->grow_hint;
	while (te.nr < GROW_BLOCKS && te.index + te.nr < it->nr_blocks &&
	       !present(it, te.index + te.nr))
		te.nr++;
	if (te.nr == 0)
		return -ENOSPC;

	txn_begin(fs, &t);
	ret = txn_take(&t, 0, te.nr, BLOCK_ITABLE, &ext);
	if (ret)
		goto abort;
	te.nr = ext.nr;
	te.block = ext.start;
	pmem_zero(fs->pm, ext.start << BLOCK_SHIFT, ext.nr << BLOCK_SHIFT);
	ret = edit_table(fs, &t, &te, ext.start);
	if (ret)
		goto abort;
	ret = txn_commit(&t);
	if (ret)
		return ret;
	for (uint64_t i = 0; i < te.nr; i++)
		add_block(it, te.index + i);
	return 0;
abort:
	txn_abort(&t);
	return ret;
}

/* The words of the block's inodes are in earlier transactions: rule J3. */
static void shrink(struct foliofs *fs, struct itable *it, uint64_t index)
	__must_hold(it->lock)
{
	struct tree_ext te = { .index = index, .nr = 1, .type = SLOT_HOLE };
	struct txn t;

	txn_begin(fs, &t);
	t.alloc_flags = ALLOC_EMERGENCY;
	if (edit_table(fs, &t, &te, 0)) {
		txn_abort(&t);
		return; /* it stays, as free inodes */
	}
	if (txn_commit(&t))
		return;
	atomic_store(&it->block[index], 0);
	it->nr_free -= usable(index);
	if (index < it->grow_hint)
		it->grow_hint = index;
}

int itable_take(struct foliofs *fs, uint64_t *ret_ino, uint64_t *ret_off)
{
	struct itable *it = fs->itable;
	uint32_t word;
	int ret = 0;

	mutex_lock(&it->lock);
	if (it->nr_free == 0)
		ret = grow(fs, it);
	if (ret)
		goto unlock;
	for (;; it->hint++) {
		assert(it->hint < it->end);
		word = atomic_load(&it->block[it->hint]);
		if ((word & PRESENT) && (word & ALL_USED) != ALL_USED)
			break;
	}
	*ret_ino = it->hint * FOLIOFS_INODES_BLOCK +
		   (uint64_t)__builtin_ctz(~word);
	ret = find_locked(fs, *ret_ino, ret_off);
	if (ret)
		goto unlock;
	itable_mark(fs, *ret_ino);
	it->nr_free--;
	it->nr_used++;
unlock:
	mutex_unlock(&it->lock);
	return ret;
}

void itable_free(struct foliofs *fs, uint64_t ino)
{
	struct itable *it = fs->itable;
	uint64_t index = ino / FOLIOFS_INODES_BLOCK;
	uint32_t bit = UINT32_C(1) << ino % FOLIOFS_INODES_BLOCK, word;

	mutex_lock(&it->lock);
	word = atomic_fetch_and(&it->block[index], ~bit);
	assert(word & bit);
	it->nr_used--;
	it->nr_free++;
	if (index < it->hint)
		it->hint = index;
	if ((word & ALL_USED) == bit && index != 0 && it->nr_free > KEEP_FREE)
		shrink(fs, it, index);
	mutex_unlock(&it->lock);
}

uint64_t itable_nr_used(const struct foliofs *fs)
{
	struct itable *it = fs->itable;
	uint64_t nr;

	mutex_lock(&it->lock);
	nr = it->nr_used;
	mutex_unlock(&it->lock);
	return nr;
}

uint64_t itable_nr_free(const struct foliofs *fs)
{
	struct itable *it = fs->itable;
	uint64_t nr;

	mutex_lock(&it->lock);
	nr = it->nr_free;
	mutex_unlock(&it->lock);
	return nr;
}
