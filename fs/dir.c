/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/dir.c - directories
 *
 * A directory is a file of blocks; a chain of dentries fills each block.  A
 * dentry never moves while its name lives, so its position is the cookie of
 * readdir.  A free dentry has ino 0; neighbouring free ones are one run.
 *
 * New entries are set word by word in the transaction, the name too, because
 * a record that is still live may name words in the same place (rule J3): in
 * this way replay has the last word.  Only a block that the directory grows by
 * is written directly.
 *
 * A directory of more than one block gets an index in DRAM when it is first
 * looked into: a hash table from name to position, and for every block a bound
 * of the free run it may have.  Bounds are never too low: a removal raises one
 * without looking, an insertion that finds no place lowers it to what is true.
 * New entries that follow one another go on where the last one ended (rover),
 * instead of walking the block each time.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "fs/fs.h"

/*
 * An entry of the hash table is hash (high half) and position / 8, plus one
 * so that 0 is empty.  Positions stay below 2^34.
 */
#define DIR_MAX_SIZE (UINT64_C(1) << 34)
/* Free runs by size in steps of 8; no entry needs more than the last one. */
#define NR_CLASSES  40u
#define CLASS_BYTES 8u

struct dirindex {
	uint64_t *entry;
	uint64_t mask, nr;
	uint16_t *free; /* no free run of the block is larger, bytes */
	uint64_t nr_blocks, cap_blocks;
	/* No block before this one has a run of class * CLASS_BYTES. */
	uint64_t first_fit[NR_CLASSES];
	uint64_t rover; /* of a free dentry, or 0: a first one is never free */
};

struct dir_block {
	uint64_t index; /* in the directory */
	uint64_t off;	/* on media */
	const unsigned char *p;
};

static int bad_dir(struct inode *dir, uint64_t pos)
{
	return fs_damaged(dir->fs, "directory %ju: bad entry at %ju",
			  (uintmax_t)dir->ino, (uintmax_t)pos);
}

static uint64_t nr_dir_blocks(const struct inode *dir)
{
	return inode_size(dir) >> BLOCK_SHIFT;
}

static int get_block(struct inode *dir, uint64_t index, struct dir_block *b)
{
	struct tree_run run;
	int ret;

	ret = tree_lookup(dir->fs, inode_data(dir), index, 1, false, &run);
	if (ret || run.type != SLOT_DATA)
		return bad_dir(dir, index << BLOCK_SHIFT);
	b->index = index;
	b->off = run.block << BLOCK_SHIFT;
	b->p = (const unsigned char *)pmem_at(dir->fs->pm, b->off);
	return 0;
}

/* The dentry at @at, or NULL where there cannot be one. */
static const struct foliofs_dentry *dentry_at(const struct dir_block *b,
					      unsigned int at)
{
	const struct foliofs_dentry *d =
		(const struct foliofs_dentry *)(b->p + at);
	unsigned int len;

	if (at + DENTRY_MIN_LEN > BLOCK_SIZE)
		return NULL;
	len = le16_to_cpu(d->rec_len);
	if (len < DENTRY_MIN_LEN || len % 8 != 0 || at + len > BLOCK_SIZE)
		return NULL;
	if (le64_to_cpu(d->ino) != 0 &&
	    (d->name_len == 0 || DENTRY_LEN(d->name_len) > len))
		return NULL;
	return d;
}

static uint32_t name_hash(const struct inode *dir, const char *name,
			  unsigned int len)
{
	return (uint32_t)XXH3_64bits_withSeed(name, len, dir->fs->hash_seed);
}

static bool same_name(const struct foliofs_dentry *d,
		      const struct dir_name *name)
{
	return d->name_len == name->len &&
	       memcmp(d->name, name->name, name->len) == 0;
}

static void set_found(struct dir_found *f, const struct dir_block *b,
		      unsigned int at, const struct foliofs_dentry *d)
{
	f->ino = le64_to_cpu(d->ino);
	f->pos = (b->index << BLOCK_SHIFT) + at;
	f->off = b->off + at;
	f->rec_len = le16_to_cpu(d->rec_len);
	f->type = d->type;
}

static int scan_block(struct inode *dir, const struct dir_block *b,
		      const struct dir_name *name, struct dir_found *ret)
{
	const struct foliofs_dentry *d;

	for (unsigned int at = 0; at < BLOCK_SIZE;
	     at += le16_to_cpu(d->rec_len)) {
		d = dentry_at(b, at);
		if (!d)
			return bad_dir(dir, (b->index << BLOCK_SHIFT) + at);
		if (le64_to_cpu(d->ino) && same_name(d, name)) {
			set_found(ret, b, at, d);
			return 0;
		}
	}
	return -ENOENT;
}

/*
 * Find the first free run of at least @need bytes, from the dentry at @from
 * on.  Returns its length, 0 for none, and then the largest there is; a
 * damaged chain ends the search.
 */
static unsigned int free_run(const struct dir_block *b, unsigned int from,
			     unsigned int need, unsigned int *ret_at,
			     unsigned int *ret_largest)
{
	unsigned int start = 0, len = 0, largest = 0;
	const struct foliofs_dentry *d;

	for (unsigned int at = from; at < BLOCK_SIZE;
	     at += le16_to_cpu(d->rec_len)) {
		d = dentry_at(b, at);
		if (!d)
			break;
		if (le64_to_cpu(d->ino)) {
			len = 0;
			continue;
		}
		if (len == 0)
			start = at;
		len += le16_to_cpu(d->rec_len);
		if (len >= need) {
			/* Take in the free neighbours behind it as well. */
			for (unsigned int end = start + len;
			     end < BLOCK_SIZE;) {
				d = dentry_at(b, end);
				if (!d || le64_to_cpu(d->ino))
					break;
				len += le16_to_cpu(d->rec_len);
				end = start + len;
			}
			*ret_at = start;
			return len;
		}
		if (len > largest)
			largest = len;
	}
	*ret_largest = largest;
	return 0;
}

/* The index. */

void dirindex_free(struct dirindex *d)
{
	if (!d)
		return;
	free(d->entry);
	free(d->free);
	free(d);
}

static uint64_t entry_make(uint32_t hash, uint64_t pos)
{
	return (uint64_t)hash << 32 | (pos / 8 + 1);
}

static uint64_t entry_pos(uint64_t entry)
{
	return ((entry & UINT32_MAX) - 1) * 8;
}

static uint64_t home(const struct dirindex *d, uint64_t entry)
{
	return entry >> 32 & d->mask;
}

static void put_entry(struct dirindex *d, uint64_t entry)
{
	uint64_t i = home(d, entry);

	while (d->entry[i])
		i = (i + 1) & d->mask;
	d->entry[i] = entry;
	d->nr++;
}

static int index_resize(struct dirindex *d, uint64_t size)
{
	uint64_t *old = d->entry, old_size = old ? d->mask + 1 : 0;
	uint64_t *bigger = (uint64_t *)calloc(size, sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	d->entry = bigger;
	d->mask = size - 1;
	d->nr = 0;
	for (uint64_t i = 0; i < old_size; i++)
		if (old[i])
			put_entry(d, old[i]);
	free(old);
	return 0;
}

static int index_add(struct dirindex *d, uint32_t hash, uint64_t pos)
{
	int ret;

	if ((d->nr + 1) * 4 > (d->mask + 1) * 3) {
		ret = index_resize(d, (d->mask + 1) * 2);
		if (ret)
			return ret;
	}
	put_entry(d, entry_make(hash, pos));
	return 0;
}

/* Linear probing without tombstones: close the gap behind the hole. */
static void index_del(struct dirindex *d, uint32_t hash, uint64_t pos)
{
	uint64_t entry = entry_make(hash, pos), i = home(d, entry), j;

	while (d->entry[i] != entry) {
		if (!d->entry[i])
			return;
		i = (i + 1) & d->mask;
	}
	for (j = (i + 1) & d->mask; d->entry[j]; j = (j + 1) & d->mask) {
		uint64_t from = home(d, d->entry[j]);

		/* May the one at j move to i?  Not past its home. */
		if (((j - from) & d->mask) >= ((j - i) & d->mask)) {
			d->entry[i] = d->entry[j];
			i = j;
		}
	}
	d->entry[i] = 0;
	d->nr--;
}

static unsigned int class_of(unsigned int bytes)
{
	unsigned int c = bytes / CLASS_BYTES;

	return c < NR_CLASSES ? c : NR_CLASSES - 1;
}

static int set_free(struct dirindex *d, uint64_t block, unsigned int bytes)
{
	if (block >= d->cap_blocks) {
		uint64_t cap = d->cap_blocks ? d->cap_blocks * 2 : 16;
		uint16_t *bigger;

		while (cap <= block)
			cap *= 2;
		bigger = (uint16_t *)realloc(d->free, cap * sizeof(*bigger));
		if (!bigger)
			return -ENOMEM;
		d->free = bigger;
		d->cap_blocks = cap;
	}
	while (d->nr_blocks <= block)
		d->free[d->nr_blocks++] = 0;
	d->free[block] = (uint16_t)bytes;
	for (unsigned int c = 0; c <= class_of(bytes); c++)
		if (block < d->first_fit[c])
			d->first_fit[c] = block;
	return 0;
}

/* The first block that may have a run of @need bytes; none: nr_blocks. */
static uint64_t find_free(struct dirindex *d, unsigned int need)
{
	unsigned int c = class_of(need);
	uint64_t b = d->first_fit[c];

	while (b < d->nr_blocks && d->free[b] < need)
		b++;
	d->first_fit[c] = b;
	return b;
}

static int index_block(struct inode *dir, struct dirindex *d,
		       const struct dir_block *b)
{
	const struct foliofs_dentry *de;
	unsigned int largest = 0, at;
	int ret;

	for (at = 0; at < BLOCK_SIZE; at += le16_to_cpu(de->rec_len)) {
		uint64_t pos = (b->index << BLOCK_SHIFT) + at;

		de = dentry_at(b, at);
		if (!de)
			return bad_dir(dir, pos);
		if (!le64_to_cpu(de->ino))
			continue;
		ret = index_add(d, name_hash(dir, de->name, de->name_len), pos);
		if (ret)
			return ret;
	}
	free_run(b, 0, BLOCK_SIZE + 1, &at, &largest);
	return set_free(d, b->index, largest);
}

static int build_index(struct inode *dir, struct dirindex **ret_d)
{
	struct dirindex *d = (struct dirindex *)calloc(1, sizeof(*d));
	struct dir_block b;
	int ret;

	if (!d)
		return -ENOMEM;
	for (unsigned int c = 0; c < NR_CLASSES; c++)
		d->first_fit[c] = UINT64_MAX;
	ret = index_resize(d, 256);
	for (uint64_t i = 0; !ret && i < nr_dir_blocks(dir); i++) {
		ret = get_block(dir, i, &b);
		if (!ret)
			ret = index_block(dir, d, &b);
	}
	if (ret) {
		dirindex_free(d);
		return ret;
	}
	*ret_d = d;
	return 0;
}

/* Readers share the lock, so two may build at once; one index is kept. */
static int need_index(struct inode *dir, struct dirindex **ret_d)
{
	struct dirindex *d = atomic_load(&dir->dir), *none = NULL;
	int ret;

	if (!d) {
		ret = build_index(dir, &d);
		if (ret)
			return ret;
		if (!atomic_compare_exchange_strong(&dir->dir, &none, d)) {
			dirindex_free(d);
			d = none;
		}
	}
	*ret_d = d;
	return 0;
}

/* No memory to follow a change: the index is made anew when needed. */
static void forget_index(struct inode *dir)
{
	dirindex_free(atomic_exchange(&dir->dir, NULL));
}

static int check_entry(struct inode *dir, uint64_t pos,
		       const struct dir_name *name, struct dir_found *ret)
{
	const struct foliofs_dentry *d;
	struct dir_block b;
	unsigned int at = (unsigned int)(pos & BLOCK_MASK);
	int err = get_block(dir, pos >> BLOCK_SHIFT, &b);

	if (err)
		return err;
	d = dentry_at(&b, at);
	if (!d)
		return bad_dir(dir, pos);
	if (!le64_to_cpu(d->ino) || !same_name(d, name))
		return -ENOENT;
	set_found(ret, &b, at, d);
	return 0;
}

int dir_lookup(struct inode *dir, const struct dir_name *name,
	       struct dir_found *ret)
{
	uint64_t nr_blocks = nr_dir_blocks(dir), i;
	struct dirindex *d;
	struct dir_block b;
	uint32_t hash;
	int err;

	if (nr_blocks == 0)
		return -ENOENT;
	if (nr_blocks == 1) {
		err = get_block(dir, 0, &b);
		return err ? err : scan_block(dir, &b, name, ret);
	}
	err = need_index(dir, &d);
	if (err)
		return err;
	hash = name_hash(dir, name->name, name->len);
	for (i = hash & d->mask; d->entry[i]; i = (i + 1) & d->mask) {
		if (d->entry[i] >> 32 != hash)
			continue;
		err = check_entry(dir, entry_pos(d->entry[i]), name, ret);
		if (err != -ENOENT)
			return err;
	}
	return -ENOENT;
}

/* Changing. */

static uint64_t dentry_word(unsigned int rec_len, unsigned int name_len,
			    uint8_t type)
{
	return rec_len | (uint64_t)name_len << 16 | (uint64_t)type << 24;
}

static void set_dentry(struct txn *t, uint64_t off, uint64_t ino,
		       unsigned int rec_len, const struct dir_name *name,
		       uint8_t type)
{
	le64 word;

	txn_set64(t, off, ino);
	txn_set64(t, off + 8, dentry_word(rec_len, name ? name->len : 0, type));
	for (unsigned int i = 0; name && i < name->len; i += sizeof(word)) {
		unsigned int n = name->len - i;

		word = cpu_to_le64(0);
		memcpy(&word, name->name + i, n < 8 ? n : 8);
		txn_set64(t, off + 16 + i, le64_to_cpu(word));
	}
}

/*
 * Into a free run of an existing block, from the dentry at @from on.  Without
 * a place: -ENOSPC, and *ret_largest is what there is.
 */
static int insert_here(struct txn *t, const struct dir_block *b,
		       unsigned int from, const struct dir_name *name,
		       uint64_t ino, uint8_t type, struct dir_slot *ret_slot,
		       unsigned int *ret_largest)
{
	unsigned int need = DENTRY_LEN(name->len), at = 0, run;

	run = free_run(b, from, need, &at, ret_largest);
	if (run == 0)
		return -ENOSPC;
	ret_slot->pos = (b->index << BLOCK_SHIFT) + at;
	ret_slot->rest = 0;
	ret_slot->pages = 0;
	if (run - need >= DENTRY_MIN_LEN) {
		set_dentry(t, b->off + at + need, 0, run - need, NULL, 0);
		ret_slot->rest = ret_slot->pos + need;
		run = need;
	}
	set_dentry(t, b->off + at, ino, run, name, type);
	return 0;
}

/* Nothing reaches the new block, so it is written whole. */
static void write_block(struct foliofs *fs, uint64_t block,
			const struct dir_name *name, uint64_t ino, uint8_t type)
{
	unsigned char buf[BLOCK_SIZE] = { 0 };
	struct foliofs_dentry *d = (struct foliofs_dentry *)buf;
	unsigned int need = DENTRY_LEN(name->len);

	d->ino = cpu_to_le64(ino);
	d->rec_len = cpu_to_le16((uint16_t)need);
	d->name_len = (uint8_t)name->len;
	d->type = type;
	memcpy(d->name, name->name, name->len);
	d = (struct foliofs_dentry *)(buf + need);
	d->rec_len = cpu_to_le16((uint16_t)(BLOCK_SIZE - need));
	pmem_write(fs->pm, block << BLOCK_SHIFT, buf, sizeof(buf));
}

static int insert_block(struct txn *t, struct inode *dir,
			const struct dir_name *name, uint64_t ino, uint8_t type,
			struct dir_slot *ret_slot)
{
	struct foliofs *fs = dir->fs;
	uint64_t size = inode_size(dir), root = inode_data(dir), new_root;
	struct tree_ext te = { .index = size >> BLOCK_SHIFT,
			       .nr = 1,
			       .type = SLOT_DATA };
	struct tree_edit e = { .txn = t,
			       .fs = fs,
			       .kind = BLOCK_DIR,
			       .ext = &te,
			       .nr_ext = 1,
			       .keep_words = 24 };
	struct extent ext;
	int ret;

	if (size >= DIR_MAX_SIZE)
		return -EFBIG;
	ret = txn_take(t, dir->goal, 1, BLOCK_DIR, &ext);
	if (ret)
		return ret;
	te.block = ext.start;
	e.goal = ext.start;
	ret = tree_edit(&e, root, &new_root);
	if (ret == -EUCLEAN)
		return bad_dir(dir, size);
	if (ret)
		return ret;
	write_block(fs, ext.start, name, ino, type);
	if (new_root != root)
		inode_set(t, dir, INODE_DATA, new_root);
	inode_set(t, dir, INODE_SIZE, size + BLOCK_SIZE);
	dir->goal = ext.start + 1;
	ret_slot->pos = size;
	ret_slot->rest = size + DENTRY_LEN(name->len);
	ret_slot->pages = e.pages;
	return 0;
}

/* In a directory with an index: -ENOSPC when no block has a place. */
static int insert_indexed(struct txn *t, struct inode *dir, struct dirindex *d,
			  const struct dir_name *name, uint64_t ino,
			  uint8_t type, struct dir_slot *ret_slot)
{
	unsigned int need = DENTRY_LEN(name->len), largest;
	uint64_t rover = d->rover, i;
	struct dir_block b;
	int ret;

	if (rover) {
		ret = get_block(dir, rover >> BLOCK_SHIFT, &b);
		if (!ret)
			ret = insert_here(t, &b,
					  (unsigned int)(rover & BLOCK_MASK),
					  name, ino, type, ret_slot, &largest);
		if (ret != -ENOSPC)
			return ret;
		d->rover = 0;
	}
	for (;;) {
		i = find_free(d, need);
		if (i >= d->nr_blocks)
			return -ENOSPC;
		ret = get_block(dir, i, &b);
		if (!ret)
			ret = insert_here(t, &b, 0, name, ino, type, ret_slot,
					  &largest);
		if (ret != -ENOSPC)
			return ret;
		d->free[i] = (uint16_t)largest;
	}
}

int dir_insert(struct txn *t, struct inode *dir, const struct dir_name *name,
	       uint64_t ino, uint8_t type, struct dir_slot *ret_slot)
{
	uint64_t nr_blocks = nr_dir_blocks(dir);
	unsigned int largest;
	struct dirindex *d;
	struct dir_block b;
	int ret = -ENOSPC;

	if (nr_blocks > 1) {
		ret = need_index(dir, &d);
		if (!ret)
			ret = insert_indexed(t, dir, d, name, ino, type,
					     ret_slot);
	} else if (nr_blocks == 1) {
		ret = get_block(dir, 0, &b);
		if (!ret)
			ret = insert_here(t, &b, 0, name, ino, type, ret_slot,
					  &largest);
	}
	if (ret != -ENOSPC)
		return ret;
	return insert_block(t, dir, name, ino, type, ret_slot);
}

void dir_inserted(struct inode *dir, const struct dir_name *name,
		  const struct dir_slot *slot)
{
	struct dirindex *d = atomic_load(&dir->dir);
	uint64_t block = slot->pos >> BLOCK_SHIFT;

	if (slot->pages && atomic_load(&dir->pages) >= 0)
		atomic_fetch_add(&dir->pages, slot->pages);
	if (!d)
		return;
	d->rover = slot->rest;
	if (index_add(d, name_hash(dir, name->name, name->len), slot->pos) ||
	    (slot->pages && set_free(d, block, BLOCK_SIZE)))
		forget_index(dir);
}

void dir_remove(struct txn *t, const struct dir_found *at)
{
	txn_set64(t, at->off, 0);
}

void dir_removed(struct inode *dir, const struct dir_name *name,
		 const struct dir_found *at)
{
	struct dirindex *d = atomic_load(&dir->dir);
	uint64_t block = at->pos >> BLOCK_SHIFT;
	unsigned int bound;

	if (!d)
		return;
	index_del(d, name_hash(dir, name->name, name->len), at->pos);
	/* The run may join one on each side, none larger than the bound. */
	bound = 2u * d->free[block] + at->rec_len;
	if (bound > BLOCK_SIZE)
		bound = BLOCK_SIZE;
	if (set_free(d, block, bound))
		forget_index(dir);
}

void dir_replace(struct txn *t, const struct dir_found *at, uint64_t ino,
		 uint8_t type)
{
	uint64_t word = txn_get64(t, at->off + 8);

	txn_set64(t, at->off, ino);
	if (type != at->type)
		txn_set64(t, at->off + 8,
			  (word & ~(UINT64_C(0xff) << 24)) | (uint64_t)type
								     << 24);
}

/* Reading. */

static int emit_block(struct inode *dir, const struct dir_block *b,
		      uint64_t from, dir_emit emit, void *ctx)
{
	const struct foliofs_dentry *d;
	struct dir_entry de;
	int ret;

	for (unsigned int at = 0; at < BLOCK_SIZE;
	     at += le16_to_cpu(d->rec_len)) {
		uint64_t pos = (b->index << BLOCK_SHIFT) + at;

		d = dentry_at(b, at);
		if (!d)
			return bad_dir(dir, pos);
		if (!le64_to_cpu(d->ino) || pos < from)
			continue;
		de.ino = le64_to_cpu(d->ino);
		de.name = d->name;
		de.name_len = d->name_len;
		de.type = d->type;
		de.next = pos + 3;
		ret = emit(ctx, &de);
		if (ret)
			return ret;
	}
	return 0;
}

static int emit_dots(struct inode *dir, uint64_t cookie, dir_emit emit,
		     void *ctx)
{
	struct dir_entry de = { .name = "..", .type = S_IFDIR >> 12 };
	int ret;

	for (; cookie < 2; cookie++) {
		de.ino = cookie == 0 ? dir->ino : inode_word(dir, INODE_PARENT);
		de.name_len = (unsigned int)cookie + 1;
		de.next = cookie + 1;
		ret = emit(ctx, &de);
		if (ret)
			return ret;
	}
	return 0;
}

int dir_iterate(struct inode *dir, uint64_t cookie, dir_emit emit, void *ctx)
{
	uint64_t from, nr_blocks = nr_dir_blocks(dir);
	struct dir_block b;
	int ret = emit_dots(dir, cookie, emit, ctx);

	/* Cookies: 1 after ".", 2 after "..", position + 3 after an entry. */
	from = cookie > 2 ? cookie - 2 : 0;
	for (uint64_t i = from >> BLOCK_SHIFT; !ret && i < nr_blocks; i++) {
		ret = get_block(dir, i, &b);
		if (!ret)
			ret = emit_block(dir, &b, from, emit, ctx);
	}
	return ret;
}

static int found_one(void *ctx, const struct dir_entry *de)
{
	(void)ctx;
	(void)de;
	return 1;
}

int dir_is_empty(struct inode *dir)
{
	int ret = dir_iterate(dir, 2, found_one, NULL);

	return ret < 0 ? ret : !ret;
}
