/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/check_name.c - check directories, links, and that all can be reached
 *
 * Names that cannot be are removed; what they led to ends up in lost+found if
 * no other name leads there.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "fs/check_i.h"

#define DENTRY_WORD 8 /* rec_len, name_len, type and reserved */
#define TYPE_SHIFT  24

/* One directory while it is looked at. */
struct dirwalk {
	struct check *ck;
	struct check_rec *rec;
	uint64_t ino;
	uint64_t root;
	uint64_t nr_blocks; /* seen so far */
	bool holes;
};

/* Names. */

static const struct foliofs_dentry *dentry_of(const struct check *ck,
					      uint64_t off)
{
	return (const struct foliofs_dentry *)pmem_at(ck->fs->pm, off);
}

static uint64_t name_hash(const struct foliofs_dentry *d)
{
	return XXH3_64bits(d->name, d->name_len);
}

static void names_put(const struct check *ck, struct check_names *n,
		      uint64_t off)
{
	uint64_t i = name_hash(dentry_of(ck, off)) & n->mask;

	while (n->off[i])
		i = (i + 1) & n->mask;
	n->off[i] = off;
	n->nr++;
}

/* Room for @size names, a power of two; those that are there stay. */
static int names_resize(const struct check *ck, struct check_names *n,
			uint64_t size)
{
	struct check_names bigger = { .mask = size - 1 };

	bigger.off = (uint64_t *)calloc(size, sizeof(*bigger.off));
	if (!bigger.off)
		return -ENOMEM;
	for (uint64_t i = 0; n->off && i <= n->mask; i++)
		if (n->off[i])
			names_put(ck, &bigger, n->off[i]);
	free(n->off);
	*n = bigger;
	return 0;
}

/* A new directory.  A table that a large one left behind is not kept. */
static void names_clear(struct check *ck)
{
	struct check_names *n = &ck->names;

	if (n->off && n->mask < 1024) {
		memset(n->off, 0, (n->mask + 1) * sizeof(*n->off));
		n->nr = 0;
		return;
	}
	free(n->off);
	*n = (struct check_names){ 0 };
}

/* True when the directory has this name already. */
static bool names_add(struct check *ck, uint64_t off)
{
	const struct foliofs_dentry *d = dentry_of(ck, off), *other;
	struct check_names *n = &ck->names;
	uint64_t i;

	if (!n->off || n->nr * 2 > n->mask) {
		if (names_resize(ck, n, n->off ? (n->mask + 1) * 4 : 256)) {
			ck->ret = err_set(ck->err, -ENOMEM, "out of memory");
			return false;
		}
	}
	for (i = name_hash(d) & n->mask; n->off[i]; i = (i + 1) & n->mask) {
		other = dentry_of(ck, n->off[i]);
		if (other->name_len == d->name_len &&
		    memcmp(other->name, d->name, d->name_len) == 0)
			return true;
	}
	n->off[i] = off;
	n->nr++;
	return false;
}

/* Dentries. */

static const char *bad_name(const struct foliofs_dentry *d)
{
	unsigned int len = d->name_len;

	if (memchr(d->name, '/', len))
		return "a slash in the name";
	if (memchr(d->name, '\0', len))
		return "a zero byte in the name";
	if (d->name[0] == '.' && (len == 1 || (len == 2 && d->name[1] == '.')))
		return "named . or ..";
	return NULL;
}

/* A directory has one name, and that is where its parent is. */
static const char *bad_dir_link(uint64_t ino, const struct check_rec *rec)
{
	if (ino == FOLIOFS_ROOT_INO)
		return "leads to the root directory";
	if (rec->parent)
		return "a second name of a directory";
	return NULL;
}

static void count_link(struct dirwalk *w, uint64_t off, struct check_rec *rec)
{
	if (rec->type == S_IFDIR >> 12) {
		rec->parent = w->ino;
		rec->dentry_off = off;
		w->rec->links++;
	} else if (rec->links < UINT32_MAX) {
		rec->links++;
	}
}

/* The inode lost its links but not its name: the name wins. */
static void revive(struct dirwalk *w, uint64_t ino, struct check_rec *rec)
{
	struct check *ck = w->ck;
	uint64_t off = rec_off(ck, (uint64_t)(rec - ck->rec));

	fault(ck, ino, off, "inode: no links, and a name in directory %" PRIu64,
	      w->ino);
	fix_word(ck, off + INODE_MODE, HIGH_BITS, UINT64_C(1) << 32);
	rec->flags &= (uint8_t)~REC_ORPHAN;
	rec->links = 1; /* the next pass counts */
	ck->again = true;
}

static void remove_dentry(struct dirwalk *w, uint64_t off, const char *why)
{
	fault(w->ck, w->ino, off, "directory: entry for inode %" PRIu64 ": %s",
	      le64_to_cpu(dentry_of(w->ck, off)->ino), why);
	fix_word(w->ck, off, ALL_BITS, 0);
}

/* A dentry that is in use and lies within its block. */
static void check_dentry(struct dirwalk *w, uint64_t off)
{
	const struct foliofs_dentry *d = dentry_of(w->ck, off);
	uint64_t ino = le64_to_cpu(d->ino);
	struct check_rec *rec = find_rec(w->ck, ino);
	const char *why = bad_name(d);

	w->ck->result->nr_names++;
	if (!why && (!rec || !rec->type))
		why = "leads to an inode that is not there";
	if (!why)
		why = bad_dir_link(ino, rec);
	if (!why && names_add(w->ck, off))
		why = "its name is there twice";
	if (why) {
		remove_dentry(w, off, why);
		return;
	}
	if (rec->flags & REC_ORPHAN)
		revive(w, ino, rec);
	else
		count_link(w, off, rec);
	if (d->type != rec->type) {
		fault(w->ck, w->ino, off,
		      "directory: entry for inode %" PRIu64
		      " says type %u, but it is %u",
		      ino, d->type, rec->type);
		fix_word(w->ck, off + DENTRY_WORD, UINT64_C(0xff) << TYPE_SHIFT,
			 (uint64_t)rec->type << TYPE_SHIFT);
	}
	if (le32_to_cpu(d->reserved)) {
		fault(w->ck, w->ino, off,
		      "directory: reserved bytes are in use");
		fix_word(w->ck, off + DENTRY_WORD, HIGH_BITS, 0);
	}
}

/* Length of the dentry at @off, or 0 where there cannot be one. */
static unsigned int dentry_len(const struct check *ck, uint64_t off)
{
	unsigned int at = (unsigned int)(off & BLOCK_MASK), len;
	const struct foliofs_dentry *d = dentry_of(ck, off);

	if (at + DENTRY_MIN_LEN > BLOCK_SIZE)
		return 0;
	len = le16_to_cpu(d->rec_len);
	if (len < DENTRY_MIN_LEN || len % 8 != 0 || at + len > BLOCK_SIZE)
		return 0;
	if (le64_to_cpu(d->ino) &&
	    (d->name_len == 0 || DENTRY_LEN(d->name_len) > len))
		return 0;
	return len;
}

/*
 * From @off on the chain is broken: the rest of the block becomes free.  What
 * is too short for a dentry is added to the one before.
 */
static void cut_chain(struct dirwalk *w, uint64_t off, uint64_t before)
{
	unsigned int rest = (unsigned int)(BLOCK_SIZE - (off & BLOCK_MASK));

	fault(w->ck, w->ino, off, "directory: damaged entry");
	if (rest >= DENTRY_MIN_LEN) {
		fix_word(w->ck, off, ALL_BITS, 0);
		fix_word(w->ck, off + DENTRY_WORD, ALL_BITS, rest);
	} else {
		fix_word(w->ck, before + DENTRY_WORD, 0xffff,
			 off + rest - before);
	}
}

static void check_block(struct dirwalk *w, uint64_t start)
{
	uint64_t off = start, before = start;
	unsigned int len;

	while (off < start + BLOCK_SIZE && !w->ck->ret) {
		len = dentry_len(w->ck, off);
		if (len == 0) {
			cut_chain(w, off, before);
			return;
		}
		if (le64_to_cpu(dentry_of(w->ck, off)->ino))
			check_dentry(w, off);
		before = off;
		off += len;
	}
}

/* The slots were checked: only what can be is still there. */
static void walk_dir(struct dirwalk *w, uint64_t slot, uint64_t index)
{
	unsigned int level = slot_level(slot);
	uint64_t off = slot_block(slot) << BLOCK_SHIFT;

	if (slot == 0 || w->ck->ret)
		return;
	if (slot_type(slot) != SLOT_NODE) {
		if (index != w->nr_blocks)
			w->holes = true;
		w->nr_blocks++;
		check_block(w, off);
		return;
	}
	for (unsigned int i = 0; i < NODE_SLOTS; i++)
		walk_dir(w, pmem_load64(w->ck->fs->pm, off + i * sizeof(le64)),
			 index + i * level_pages(level - 1));
}

static void check_dir(struct check *ck, uint64_t i)
{
	const struct foliofs_inode *di = media_inode(ck, i);
	struct dirwalk w = { .ck = ck,
			     .rec = &ck->rec[i],
			     .ino = rec_ino(ck, i) };
	uint64_t size = le64_to_cpu(di->size);

	names_clear(ck);
	walk_dir(&w, le64_to_cpu(di->data), 0);
	if (!w.holes && size == w.nr_blocks << BLOCK_SHIFT)
		return;
	fault(ck, w.ino, rec_off(ck, i) + INODE_SIZE,
	      "directory: size %" PRIu64 ", but it has %" PRIu64 " blocks%s",
	      size, w.nr_blocks, w.holes ? " with holes between them" : "");
	push(ck, &ck->rebuild, w.ino);
}

static bool is_dir(const struct check_rec *rec)
{
	return rec->type == S_IFDIR >> 12 && !(rec->flags & REC_ORPHAN);
}

void check_names(struct check *ck)
{
	uint64_t nr = nr_recs(ck);

	for (uint64_t i = 0; i < nr && !ck->ret; i++) {
		if (i % (4096 * FOLIOFS_INODES_BLOCK) == 0)
			progress(ck, CHECK_NAMES, i, nr);
		if (is_dir(&ck->rec[i]))
			check_dir(ck, i);
	}
	progress(ck, CHECK_NAMES, nr, nr);
}

/* Links. */

/*
 * A ring of directories hangs together and from nothing: one of them loses
 * its name, and is lost like any other.
 */
static void break_ring(struct check *ck, uint64_t ino, struct check_rec *rec)
{
	struct check_rec *parent = find_rec(ck, rec->parent);

	fault(ck, ino, rec->dentry_off,
	      "directory: is below itself, in directory %" PRIu64, rec->parent);
	fix_word(ck, rec->dentry_off, ALL_BITS, 0);
	parent->links--;
	rec->parent = 0;
}

/* Go up until something is known: the root, a lost one, or a ring. */
static void check_path(struct check *ck, uint64_t start)
{
	struct check_rec *rec = find_rec(ck, start);
	uint64_t ino = start;

	while (!(rec->flags & REC_DONE)) {
		if (rec->flags & REC_PATH) {
			break_ring(ck, ino, rec);
			break;
		}
		rec->flags |= REC_PATH;
		if (ino == FOLIOFS_ROOT_INO || rec->parent == 0)
			break;
		ino = rec->parent;
		rec = find_rec(ck, ino);
	}
	for (rec = find_rec(ck, start); rec->flags & REC_PATH;
	     rec = find_rec(ck, rec->parent)) {
		rec->flags &= (uint8_t)~REC_PATH;
		rec->flags |= REC_DONE;
		if (rec->parent == 0)
			break;
	}
}

static void check_lost(struct check *ck, uint64_t i)
{
	struct check_rec *rec = &ck->rec[i];
	bool lost = is_dir(rec) ? rec->parent == 0 : rec->links == 0;
	uint64_t ino = rec_ino(ck, i);

	if (!lost || ino == FOLIOFS_ROOT_INO)
		return;
	fault(ck, ino, rec_off(ck, i), "%s: no name leads to it",
	      is_dir(rec) ? "directory" : "file");
	rec->flags |= REC_LOST;
	push(ck, &ck->lost, ino);
}

static void check_nlink(struct check *ck, uint64_t i)
{
	uint64_t off = rec_off(ck, i) + INODE_MODE;
	uint32_t has = (uint32_t)(txn_get64(&ck->txn, off) >> 32), want;
	const struct check_rec *rec = &ck->rec[i];

	/* A lost file gets its only link with its name. */
	want = is_dir(rec) ? rec->links + 2 : rec->links;
	if (has == want || (rec->flags & REC_LOST && !is_dir(rec)))
		return;
	fault(ck, rec_ino(ck, i), off, "inode: %u links, counted %u", has,
	      want);
	fix_word(ck, off, HIGH_BITS, (uint64_t)want << 32);
}

static void check_parent(struct check *ck, uint64_t i)
{
	const struct check_rec *rec = &ck->rec[i];
	uint64_t off = rec_off(ck, i) + INODE_PARENT;
	uint64_t has = pmem_load64(ck->fs->pm, off);

	if (!is_dir(rec) || rec->parent == 0 || has == rec->parent)
		return;
	fault(ck, rec_ino(ck, i), off,
	      "directory: its parent is inode %" PRIu64
	      ", but it says %" PRIu64,
	      rec->parent, has);
	fix_word(ck, off, ALL_BITS, rec->parent);
}

/* What was open and without a name when the system went down. */
static void settle_orphan(struct check *ck, uint64_t i)
{
	problem(ck, CHECK_INFO, rec_ino(ck, i), rec_off(ck, i), true,
		"inode: no links; it goes with the next mount");
	fix_word(ck, rec_off(ck, i) + INODE_MODE, ALL_BITS, 0);
}

void check_links(struct check *ck)
{
	uint64_t nr = nr_recs(ck);

	for (uint64_t i = 0; i < nr; i++)
		if (is_dir(&ck->rec[i]))
			check_path(ck, rec_ino(ck, i));
	for (uint64_t i = 0; i < nr && !ck->ret; i++) {
		if (ck->rec[i].type == 0)
			continue;
		if (ck->rec[i].flags & REC_ORPHAN) {
			settle_orphan(ck, i);
			continue;
		}
		check_lost(ck, i);
		check_nlink(ck, i);
		check_parent(ck, i);
	}
	progress(ck, CHECK_LINKS, nr, nr);
}
