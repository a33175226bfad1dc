/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/check_inode.c - check the inode table, the inodes and their trees
 *
 * Every slot is looked at once.  Levels fall on the way down and a block is
 * looked into by its first visitor only, so the work is bounded by the size
 * of the device, whatever is there.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fs/check_i.h"

/* Tell how far we are after this many blocks of the table. */
#define PROGRESS_STEP 256

/* One tree while it is walked. */
struct walk {
	struct check *ck;
	uint64_t ino;	      /* 0: the inode table */
	enum block_kind kind; /* of what is not a node */
	uint64_t end;	      /* data pages from here on are behind the end */
	uint64_t last;	      /* one past the last page with data */
	bool behind;	      /* there is data from @end on */
};

/* What is below a node, if anything is: BLOCK_NONE for nothing. */
static enum block_kind leaf_kind(const struct foliofs *fs, uint64_t slot)
{
	uint64_t child = 0;

	while (slot_type(slot) == SLOT_NODE) {
		uint64_t off = slot_block(slot) << BLOCK_SHIFT;
		unsigned int i;

		for (i = 0; i < NODE_SLOTS; i++) {
			child = pmem_load64(fs->pm, off + i * sizeof(le64));
			if (child)
				break;
		}
		if (i == NODE_SLOTS ||
		    !slot_valid(fs, child, slot_level(slot) - 1))
			return BLOCK_NONE;
		slot = child;
	}
	return slot_order(slot) ? BLOCK_DATA
				: alloc_kind(fs->al, slot_block(slot));
}

/* Only file contents may be shared, be unwritten, or come in chunks. */
static const char *why_not(struct walk *w, uint64_t slot, unsigned int level,
			   bool *ret_first)
{
	struct foliofs *fs = w->ck->fs;
	bool is_node = slot_type(slot) == SLOT_NODE;
	enum block_kind below;
	int64_t share;

	if (!slot_valid(fs, slot, level))
		return "cannot be";
	if (w->kind != BLOCK_DATA &&
	    (slot_order(slot) || slot_type(slot) == SLOT_UNWRITTEN))
		return "can only be in a file";
	share = alloc_mark(fs->al, slot_block(slot), slot_order(slot),
			   is_node ? node_kind(slot_level(slot)) : w->kind);
	if (share < 0)
		return "points to a block that is something else already";
	*ret_first = share == 0;
	if (share == 0)
		return NULL;
	below = is_node ? leaf_kind(fs, slot) : w->kind;
	if (w->kind == BLOCK_DATA && (below == w->kind || below == BLOCK_NONE))
		return NULL;
	alloc_unmark(fs->al, slot_block(slot), slot_order(slot));
	return "points to a block that is in use already";
}

static void note_data(struct walk *w, uint64_t slot, uint64_t index)
{
	uint64_t end = index + level_pages(slot_level(slot));

	if (end > w->last)
		w->last = end;
	if (end > w->end && slot_type(slot) == SLOT_DATA)
		w->behind = true;
	if (w->kind == BLOCK_ITABLE) {
		push(w->ck, &w->ck->table, index);
		push(w->ck, &w->ck->table, slot_block(slot));
	}
}

/* The slot stands at media offset @off. */
static void walk_slot(struct walk *w, uint64_t off, unsigned int level,
		      uint64_t index)
{
	uint64_t slot = pmem_load64(w->ck->fs->pm, off);
	const char *why;
	bool first = false;

	if (slot == 0 || w->ck->ret)
		return;
	why = why_not(w, slot, level, &first);
	if (!why && w->kind == BLOCK_ITABLE && index >= w->ck->fs->nr_blocks &&
	    slot_type(slot) != SLOT_NODE)
		why = "is too far behind in the inode table";
	if (why) {
		fault(w->ck, w->ino, off,
		      "slot %#" PRIx64 " of page %" PRIu64 " %s", slot, index,
		      why);
		fix_word(w->ck, off, ALL_BITS, 0);
		return;
	}
	if (slot_type(slot) != SLOT_NODE) {
		note_data(w, slot, index);
		return;
	}
	if (!first)
		return;
	level = slot_level(slot) - 1;
	off = slot_block(slot) << BLOCK_SHIFT;
	for (unsigned int i = 0; i < NODE_SLOTS; i++)
		walk_slot(w, off + i * sizeof(le64), level,
			  index + i * level_pages(level));
}

/* The table. */

void check_table(struct check *ck)
{
	struct walk w = { .ck = ck, .kind = BLOCK_ITABLE, .end = UINT64_MAX };

	walk_slot(&w, offsetof(struct foliofs_superblock, itable_root),
		  TREE_ROOT, 0);
	ck->rec = (struct check_rec *)calloc(nr_recs(ck) + 1, sizeof(*ck->rec));
	if (!ck->rec && !ck->ret)
		ck->ret = err_set(ck->err, -ENOMEM, "out of memory");
	progress(ck, CHECK_TABLE, 1, 1);
}

uint64_t nr_recs(const struct check *ck)
{
	return ck->table.nr / 2 * (uint64_t)FOLIOFS_INODES_BLOCK;
}

uint64_t rec_ino(const struct check *ck, uint64_t i)
{
	return ck->table.v[i / FOLIOFS_INODES_BLOCK * 2] *
		       FOLIOFS_INODES_BLOCK +
	       i % FOLIOFS_INODES_BLOCK;
}

uint64_t rec_off(const struct check *ck, uint64_t i)
{
	return (ck->table.v[i / FOLIOFS_INODES_BLOCK * 2 + 1] << BLOCK_SHIFT) +
	       i % FOLIOFS_INODES_BLOCK * FOLIOFS_INODE_SIZE;
}

const struct foliofs_inode *media_inode(const struct check *ck, uint64_t i)
{
	return (const struct foliofs_inode *)pmem_at(ck->fs->pm,
						     rec_off(ck, i));
}

/* Which pair of the table has this index?  They are sorted. */
static bool find_pair(const struct check *ck, uint64_t index, uint64_t *ret)
{
	uint64_t low = 0, high = ck->table.nr / 2, mid;

	/* A table without holes needs no search. */
	if (index < high && ck->table.v[2 * index] == index) {
		*ret = index;
		return true;
	}
	while (low < high) {
		mid = low + (high - low) / 2;
		if (ck->table.v[2 * mid] < index)
			low = mid + 1;
		else
			high = mid;
	}
	*ret = low;
	return low < ck->table.nr / 2 && ck->table.v[2 * low] == index;
}

struct check_rec *find_rec(const struct check *ck, uint64_t ino)
{
	uint64_t pair;

	if (!find_pair(ck, ino / FOLIOFS_INODES_BLOCK, &pair))
		return NULL;
	return &ck->rec[pair * FOLIOFS_INODES_BLOCK +
			ino % FOLIOFS_INODES_BLOCK];
}

/* Inodes. */

struct one {
	struct check *ck;
	uint64_t ino, off;
	struct foliofs_inode di; /* as it is after the repairs so far */
	struct check_rec *rec;
};

static void set_field(struct one *o, size_t field, uint64_t mask,
		      uint64_t value)
{
	le64 *word = (le64 *)((char *)&o->di + field);

	fix_word(o->ck, o->off + field, mask, value);
	*word = cpu_to_le64((le64_to_cpu(*word) & ~mask) | (value & mask));
}

static bool all_zero(const void *p, size_t len)
{
	static const char zeros[FOLIOFS_INODE_SIZE];

	return memcmp(p, zeros, len) == 0;
}

/* It is no inode: make it a free one. */
static void drop_inode(struct one *o, const char *why)
{
	fault(o->ck, o->ino, o->off, "inode: %s; mode %#o, size %" PRIu64, why,
	      le32_to_cpu(o->di.mode), le64_to_cpu(o->di.size));
	set_field(o, INODE_MODE, ALL_BITS, 0);
	o->rec->type = 0;
}

/* The root has to be there, so it is made an empty directory. */
static void remake_root(struct one *o)
{
	fault(o->ck, o->ino, o->off, "root: not a directory");
	set_field(o, INODE_MODE, ALL_BITS, word_pair(S_IFDIR | 0755, 2));
	set_field(o, INODE_SIZE, ALL_BITS, 0);
	set_field(o, INODE_DATA, ALL_BITS, 0);
	set_field(o, INODE_XATTR, ALL_BITS, 0);
	set_field(o, INODE_PARENT, ALL_BITS, FOLIOFS_ROOT_INO);
}

static void check_common(struct one *o)
{
	uint32_t mode = le32_to_cpu(o->di.mode);
	uint32_t flags = le32_to_cpu(o->di.flags);

	if (mode & ~(uint32_t)(S_IFMT | 07777)) {
		fault(o->ck, o->ino, o->off, "inode: mode %#o", mode);
		set_field(o, INODE_MODE, LOW_BITS, mode & (S_IFMT | 07777));
	}
	if (flags & ~FOLIOFS_FL_ALL) {
		fault(o->ck, o->ino, o->off + INODE_GENFLAGS,
		      "inode: unknown flags %#x", flags);
		set_field(o, INODE_GENFLAGS, HIGH_BITS,
			  (uint64_t)(flags & FOLIOFS_FL_ALL) << 32);
	}
	if (!all_zero(o->di.reserved, sizeof(o->di.reserved))) {
		fault(o->ck, o->ino,
		      o->off + offsetof(struct foliofs_inode, reserved),
		      "inode: reserved bytes are in use");
		for (size_t i = 0; i < 4; i++)
			set_field(o,
				  offsetof(struct foliofs_inode, reserved[i]),
				  ALL_BITS, 0);
	}
}

static void check_xattr(struct one *o)
{
	struct walk w = { .ck = o->ck,
			  .ino = o->ino,
			  .kind = BLOCK_XATTR,
			  .end = UINT64_MAX };
	uint64_t slot = le64_to_cpu(o->di.xattr), errors = o->ck->pass_errors;
	int ret;

	if (slot == 0)
		return;
	if (slot_level(slot) > 1) {
		fault(o->ck, o->ino, o->off + INODE_XATTR,
		      "attributes: slot %#" PRIx64 " is no place for them",
		      slot);
		set_field(o, INODE_XATTR, ALL_BITS, 0);
		return;
	}
	walk_slot(&w, o->off + INODE_XATTR, TREE_ROOT, 0);
	if (o->ck->pass_errors == errors) {
		ret = xattr_verify(o->ck->fs, o->ino, slot);
		if (ret == -ENOMEM && !o->ck->ret)
			o->ck->ret = err_set(o->ck->err, ret, "out of memory");
		if (ret != -EUCLEAN)
			return;
		fault(o->ck, o->ino, slot_block(slot) << BLOCK_SHIFT,
		      "attributes: damaged");
	}
	set_field(o, INODE_XATTR, ALL_BITS, 0);
}

static uint64_t walk_data(struct one *o, enum block_kind kind, uint64_t end,
			  bool *ret_behind)
{
	struct walk w = {
		.ck = o->ck, .ino = o->ino, .kind = kind, .end = end
	};

	walk_slot(&w, o->off + INODE_DATA, TREE_ROOT, 0);
	*ret_behind = w.behind;
	return w.last;
}

static void check_file(struct one *o)
{
	uint64_t size = le64_to_cpu(o->di.size), end, last;
	bool behind;

	if (size > FOLIOFS_MAX_SIZE)
		end = FOLIOFS_MAX_PAGES;
	else
		end = (size + BLOCK_MASK) >> BLOCK_SHIFT;
	last = walk_data(o, BLOCK_DATA, end, &behind);
	if (size > FOLIOFS_MAX_SIZE) {
		fault(o->ck, o->ino, o->off + INODE_SIZE,
		      "file: impossible size %" PRIu64, size);
		set_field(o, INODE_SIZE, ALL_BITS, last << BLOCK_SHIFT);
	}
	if (behind) {
		fault(o->ck, o->ino, o->off + INODE_DATA,
		      "file: data behind its end, in pages up to %" PRIu64,
		      last);
		push(o->ck, &o->ck->trim, o->ino);
	}
}

static void check_dir(struct one *o)
{
	bool behind;

	walk_data(o, BLOCK_DIR, UINT64_MAX, &behind);
	o->ck->result->nr_dirs++;
	if (o->ino == FOLIOFS_ROOT_INO &&
	    le64_to_cpu(o->di.parent) != FOLIOFS_ROOT_INO) {
		fault(o->ck, o->ino, o->off + INODE_PARENT,
		      "root: its parent is inode %" PRIu64,
		      le64_to_cpu(o->di.parent));
		set_field(o, INODE_PARENT, ALL_BITS, FOLIOFS_ROOT_INO);
	}
}

static void check_symlink(struct one *o)
{
	uint64_t size = le64_to_cpu(o->di.size);
	uint64_t slot = le64_to_cpu(o->di.data);
	const void *target = o->di.symlink;
	bool behind;

	if (size == 0 || size >= BLOCK_SIZE) {
		drop_inode(o, "a symlink of that size cannot be");
		return;
	}
	if (size <= FOLIOFS_INLINE_SYMLINK) {
		if (slot) {
			fault(o->ck, o->ino, o->off + INODE_DATA,
			      "symlink: short, and has data");
			set_field(o, INODE_DATA, ALL_BITS, 0);
		}
	} else {
		if (slot_type(slot) != SLOT_DATA || slot_level(slot) != 0 ||
		    walk_data(o, BLOCK_DATA, 1, &behind) != 1) {
			drop_inode(o, "a symlink without a target");
			return;
		}
		target =
			pmem_at(o->ck->fs->pm, slot_block(slot) << BLOCK_SHIFT);
	}
	if (memchr(target, '\0', size))
		drop_inode(o, "a symlink with a zero byte in its target");
}

static void check_special(struct one *o)
{
	if (le64_to_cpu(o->di.data) == 0 && le64_to_cpu(o->di.size) == 0)
		return;
	fault(o->ck, o->ino, o->off, "special file: has data or a size");
	set_field(o, INODE_DATA, ALL_BITS, 0);
	set_field(o, INODE_SIZE, ALL_BITS, 0);
}

static void check_type(struct one *o)
{
	switch (le32_to_cpu(o->di.mode) & S_IFMT) {
	case S_IFREG:
		check_file(o);
		break;
	case S_IFDIR:
		check_dir(o);
		break;
	case S_IFLNK:
		check_symlink(o);
		break;
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		check_special(o);
		break;
	default:
		drop_inode(o, "of no type");
	}
}

static void check_inode(struct one *o)
{
	uint32_t mode = le32_to_cpu(o->di.mode);

	if (o->ino == FOLIOFS_ROOT_INO &&
	    (!S_ISDIR(mode) || le32_to_cpu(o->di.nlink) == 0)) {
		if (!S_ISDIR(mode)) {
			remake_root(o);
		} else {
			fault(o->ck, o->ino, o->off, "root: no links");
			set_field(o, INODE_MODE, HIGH_BITS, UINT64_C(2) << 32);
		}
		mode = le32_to_cpu(o->di.mode);
	}
	if (mode == 0 && le32_to_cpu(o->di.nlink) == 0)
		return;
	o->rec->type = (uint8_t)((mode & S_IFMT) >> 12);
	if (o->rec->type && le32_to_cpu(o->di.nlink) == 0) {
		/* The mount frees it, and so its blocks count as free. */
		o->rec->flags |= REC_ORPHAN;
		return;
	}
	o->ck->result->nr_inodes++;
	check_common(o);
	check_type(o);
	if (o->rec->type)
		check_xattr(o);
}

void check_inodes(struct check *ck)
{
	uint64_t nr = nr_recs(ck);

	for (uint64_t i = 0; i < nr && !ck->ret; i++) {
		struct one o = { .ck = ck,
				 .ino = rec_ino(ck, i),
				 .off = rec_off(ck, i),
				 .rec = &ck->rec[i] };

		if (i % (PROGRESS_STEP * FOLIOFS_INODES_BLOCK) == 0)
			progress(ck, CHECK_INODES, i, nr);
		if (o.ino == 0)
			continue;
		o.di = *media_inode(ck, i);
		check_inode(&o);
	}
	if (!find_rec(ck, FOLIOFS_ROOT_INO)) {
		fault(ck, FOLIOFS_ROOT_INO, 0, "root: lost");
		ck->no_root = true;
	}
	progress(ck, CHECK_INODES, nr, nr);
}
