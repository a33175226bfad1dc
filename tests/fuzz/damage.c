/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/damage.c - damage an image as some bytes say
 *
 * Every edit takes what it needs from the bytes: which structure, which of
 * its kind, which field, which value.  Values lean towards those that hurt:
 * edges, other structures' places, one bit off.  Checksums are put right most
 * of the time, so that what is behind them is reached.
 */
#include "tests/fuzz/damage.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dax/pmem.h"
#include "fs/fs_format.h"
#include "fs/tree.h"

#define MAX_EDITS 8

/* Finding places. */

static void add_place(struct places *p, uint64_t off)
{
	if (p->nr == p->cap) {
		p->cap = p->cap ? p->cap * 2 : 64;
		p->off = (uint64_t *)realloc(p->off, p->cap * sizeof(*p->off));
		if (!p->off)
			abort();
	}
	p->off[p->nr++] = off;
}

static uint64_t get64(const unsigned char *image, uint64_t off)
{
	le64 v;

	memcpy(&v, image + off, sizeof(v));
	return le64_to_cpu(v);
}

static void put64(unsigned char *image, uint64_t off, uint64_t value)
{
	le64 v = cpu_to_le64(value);

	memcpy(image + off, &v, sizeof(v));
}

typedef void (*block_fn)(struct map *m, const unsigned char *image,
			 uint64_t off);

static void map_tree(struct map *m, const unsigned char *image, uint64_t at,
		     block_fn fn)
{
	uint64_t slot = get64(image, at), off = slot_block(slot) << BLOCK_SHIFT;

	if (slot == 0)
		return;
	add_place(&m->slots, at);
	if (slot_type(slot) != SLOT_NODE) {
		if (fn)
			fn(m, image, off);
		return;
	}
	for (unsigned int i = 0; i < NODE_SLOTS; i++)
		map_tree(m, image, off + i * sizeof(le64), fn);
}

static void map_dir_block(struct map *m, const unsigned char *image,
			  uint64_t off)
{
	const struct foliofs_dentry *d;

	for (unsigned int at = 0; at < BLOCK_SIZE;
	     at += le16_to_cpu(d->rec_len)) {
		add_place(&m->dentries, off + at);
		d = (const struct foliofs_dentry *)(image + off + at);
	}
}

static void map_xattr_block(struct map *m, const unsigned char *image,
			    uint64_t off)
{
	(void)image;
	add_place(&m->xattrs, off);
}

static void map_table_block(struct map *m, const unsigned char *image,
			    uint64_t off)
{
	for (unsigned int i = 0; i < FOLIOFS_INODES_BLOCK; i++) {
		uint64_t at = off + i * sizeof(struct foliofs_inode);
		const struct foliofs_inode *di =
			(const struct foliofs_inode *)(image + at);

		if (le32_to_cpu(di->mode) == 0)
			continue;
		add_place(&m->inodes, at);
		map_tree(m, image, at + offsetof(struct foliofs_inode, data),
			 S_ISDIR(le32_to_cpu(di->mode)) ? map_dir_block : NULL);
		map_tree(m, image, at + offsetof(struct foliofs_inode, xattr),
			 map_xattr_block);
	}
}

void map_image(struct map *m, const unsigned char *image)
{
	const struct foliofs_superblock *sb =
		(const struct foliofs_superblock *)image;

	*m = (struct map){ .nr_blocks = le64_to_cpu(sb->nr_blocks) };
	map_tree(m, image, offsetof(struct foliofs_superblock, itable_root),
		 map_table_block);
}

/* The bytes. */

struct input {
	const uint8_t *p;
	size_t left;
	const struct map *m;
	unsigned char *image;
};

static uint64_t take(struct input *in, unsigned int bytes)
{
	uint64_t v = 0;

	for (; bytes && in->left; bytes--, in->left--)
		v = v << 8 | *in->p++;
	return v;
}

static uint64_t take_place(struct input *in, const struct places *p)
{
	return p->nr ? p->off[take(in, 2) % p->nr] : 0;
}

/* Any place at all. */
static uint64_t take_any(struct input *in)
{
	const struct places *const all[] = { &in->m->slots, &in->m->inodes,
					     &in->m->dentries, &in->m->xattrs };

	return take_place(in, all[take(in, 1) % 4]);
}

/* A number that hurts, instead of @old. */
static uint64_t take_value(struct input *in, uint64_t old)
{
	switch (take(in, 1) % 12) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX;
	case 2:
		return (uint64_t)INT64_MIN;
	case 3:
		return old + 1;
	case 4:
		return old - 1;
	case 5:
		return old ^ UINT64_C(1) << take(in, 1) % 64;
	case 6:
		return take(in, 1);
	case 7:
		return take_any(in);
	case 8:
		return in->m->nr_blocks - take(in, 1) % 3;
	case 9:
		return FOLIOFS_MAX_SIZE + take(in, 1) % 3 - 1;
	case 10:
		return UINT64_C(1) << take(in, 1) % 64;
	default:
		return take(in, 8);
	}
}

static uint64_t take_block(struct input *in, uint64_t self)
{
	uint64_t nr = in->m->nr_blocks;

	switch (take(in, 1) % 10) {
	case 0:
		return self >> BLOCK_SHIFT;
	case 1:
		return 0;
	case 2:
		return 1 + take(in, 1) % 20;
	case 3:
		return nr - 1;
	case 4:
		return nr + take(in, 1);
	case 5:
		return take(in, 2) % nr & ~(CHUNK_BLOCKS - 1);
	case 6:
		return take_any(in) >> BLOCK_SHIFT;
	case 7:
		return slot_block(
			get64(in->image, take_place(in, &in->m->slots)));
	case 8:
		return take(in, 7);
	default:
		return take(in, 2) % nr;
	}
}

/* A slot to stand at media offset @self. */
static uint64_t take_slot(struct input *in, uint64_t self)
{
	uint64_t old = get64(in->image, self);
	unsigned int how = (unsigned int)take(in, 1);

	switch (how % 8) {
	case 0:
		return take_value(in, old);
	case 1: /* another one's */
		return get64(in->image, take_place(in, &in->m->slots));
	case 2: /* the same, one level off */
		return slot_make(slot_type(old),
				 slot_level(old) + (how & 8 ? 1 : 15),
				 slot_block(old)) &
		       ~SLOT_ZERO_MASK;
	case 3: /* the same, of another type */
		return (old & ~SLOT_TYPE_MASK) | (how >> 3 & 7);
	case 4:
		return slot_make(slot_type(old), slot_level(old),
				 take_block(in, self));
	default:
		return slot_make(1 + (how >> 3) % 3,
				 (unsigned int)take(in, 1) % 6,
				 take_block(in, self));
	}
}

/* Edits. */

static void edit_slot(struct input *in)
{
	uint64_t at = take_place(in, &in->m->slots);

	put64(in->image, at, take_slot(in, at));
}

static void edit_inode(struct input *in)
{
	static const uint32_t types[] = { S_IFREG, S_IFDIR,  S_IFLNK, S_IFCHR,
					  S_IFIFO, S_IFSOCK, S_IFBLK, 0xf000 };
	uint64_t at = take_place(in, &in->m->inodes), word;
	unsigned int how = (unsigned int)take(in, 1);

	switch (how % 6) {
	case 0: /* another type */
		word = get64(in->image, at);
		put64(in->image, at,
		      (word & ~(uint64_t)S_IFMT) | types[how / 6 % 8]);
		break;
	case 1: /* another number of links */
		word = get64(in->image, at);
		put64(in->image, at,
		      (word & UINT32_MAX) | take_value(in, word >> 32) << 32);
		break;
	case 2: /* the data of somebody else */
		word = take_place(in, &in->m->inodes);
		memmove(in->image + at + offsetof(struct foliofs_inode, data),
			in->image + word + offsetof(struct foliofs_inode, data),
			2 * sizeof(le64));
		break;
	case 3: /* all of somebody else */
		memmove(in->image + at,
			in->image + take_place(in, &in->m->inodes),
			sizeof(struct foliofs_inode));
		break;
	case 4: /* size */
		at += offsetof(struct foliofs_inode, size);
		put64(in->image, at, take_value(in, get64(in->image, at)));
		break;
	default: /* any word */
		at += how / 6 % 32 * 8;
		put64(in->image, at, take_value(in, get64(in->image, at)));
	}
}

static void edit_dentry(struct input *in)
{
	uint64_t at = take_place(in, &in->m->dentries), other;
	unsigned int how = (unsigned int)take(in, 1);

	switch (how % 6) {
	case 0: /* another inode */
		put64(in->image, at, take_value(in, get64(in->image, at)));
		break;
	case 1: /* the inode of another name */
		other = take_place(in, &in->m->dentries);
		put64(in->image, at, get64(in->image, other));
		break;
	case 2: /* lengths, type */
		put64(in->image, at + 8,
		      take_value(in, get64(in->image, at + 8)));
		break;
	case 3:
		in->image[at + 8 + take(in, 1) % 4] = (uint8_t)take(in, 1);
		break;
	case 4: /* the name */
		in->image[at + 16 + take(in, 1) % 8] = "/\0.a"[take(in, 1) % 4];
		break;
	default: /* the name of another one */
		other = take_place(in, &in->m->dentries);
		memmove(in->image + at + 16, in->image + other + 16, 8);
		in->image[at + 10] = in->image[other + 10];
	}
}

static void edit_xattr(struct input *in)
{
	uint64_t at = take_place(in, &in->m->xattrs) + take(in, 1) % 64 * 8;

	put64(in->image, at, take_value(in, get64(in->image, at)));
}

static void seal_super(struct foliofs_superblock *sb)
{
	sb->crc = cpu_to_le32(
		pmem_crc32c(sb, offsetof(struct foliofs_superblock, crc)));
}

static void edit_super(struct input *in)
{
	uint64_t copy = (in->m->nr_blocks - 1) << BLOCK_SHIFT;
	unsigned int how = (unsigned int)take(in, 1);
	uint64_t base = how & 1 ? copy : 0;
	uint64_t at = base + take(in, 1) % 36 * 8;

	put64(in->image, at, take_value(in, get64(in->image, at)));
	if (how & 2)
		seal_super((struct foliofs_superblock *)(in->image + base));
	if (how & 4)
		memcpy(in->image + (base ^ copy), in->image + base,
		       sizeof(struct foliofs_superblock));
}

/* A word of a record that replay will store. */
static void take_word(struct input *in, struct foliofs_word *ret)
{
	uint64_t at = take_any(in);

	switch (take(in, 1) % 4) {
	case 0:
		at = take_place(in, &in->m->slots);
		ret->value = cpu_to_le64(take_slot(in, at));
		break;
	case 1:
		at = take_value(in, at);
		ret->value = cpu_to_le64(take(in, 8));
		break;
	case 2:
		at += take(in, 1) % 32 * 8;
		ret->value = cpu_to_le64(take_value(in, 0));
		break;
	default:
		ret->value = cpu_to_le64(take_value(in, get64(in->image, at)));
	}
	ret->off = cpu_to_le64(at);
}

static void edit_lane(struct input *in)
{
	unsigned int how = (unsigned int)take(in, 1), nr;
	struct foliofs_lane *l =
		(struct foliofs_lane *)(in->image + BLOCK_SIZE) +
		take(in, 1) % FOLIOFS_NR_LANES;

	if (how % 8 == 0) { /* not sealed */
		((uint8_t *)l)[take(in, 2) % sizeof(*l)] = (uint8_t)take(in, 1);
		return;
	}
	nr = 1 + (unsigned int)take(in, 1) % 8;
	memset(l, 0, sizeof(*l));
	l->seq = cpu_to_le64(how & 8 ? take_value(in, 5) : 1 + how);
	l->nr = cpu_to_le32(nr);
	for (unsigned int i = 0; i < nr; i++)
		take_word(in, &l->word[i]);
	l->crc =
		cpu_to_le32(pmem_crc32c(l, offsetof(struct foliofs_lane, word) +
						   nr * sizeof(l->word[0])));
}

/* One block over another, or noise in one. */
static void edit_block(struct input *in)
{
	uint64_t to = take_any(in) & ~BLOCK_MASK, from;
	unsigned int how = (unsigned int)take(in, 1);

	if (how % 4 == 0) {
		memset(in->image + to, (int)take(in, 1), BLOCK_SIZE);
		return;
	}
	from = take_any(in) & ~BLOCK_MASK;
	if (how % 4 == 1 && from != to)
		memcpy(in->image + to, in->image + from, BLOCK_SIZE);
	for (; how % 4 > 1 && how > 3; how -= 4)
		in->image[to + take(in, 2) % BLOCK_SIZE] = (uint8_t)take(in, 1);
}

static void edit_bits(struct input *in)
{
	uint64_t at = take(in, 1) & 1 ? take_any(in) + take(in, 1) % 256
				      : take(in, 4);

	in->image[at % (in->m->nr_blocks << BLOCK_SHIFT)] ^=
		(uint8_t)(1u << take(in, 1) % 8);
}

static void (*const edits[])(struct input *in) = {
	edit_slot,   edit_slot,	  edit_inode, edit_inode,
	edit_dentry, edit_dentry, edit_xattr, edit_super,
	edit_lane,   edit_lane,	  edit_block, edit_bits,
};

void damage(const struct map *m, unsigned char *image, const uint8_t *data,
	    size_t len)
{
	struct input in = { .p = data, .left = len, .m = m, .image = image };

	for (int i = 0; i < MAX_EDITS && in.left; i++)
		edits[take(&in, 1) % (sizeof(edits) / sizeof(*edits))](&in);
}
