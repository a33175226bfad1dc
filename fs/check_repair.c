/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/check_repair.c - repairs that need blocks, and lost+found
 *
 * The first kind runs at the end of a pass, when the allocator knows what is
 * in use.  Blocks that only a removed slot led to still count as used there:
 * that is on the safe side, and the next pass counts anew.
 *
 * The second kind is done by the filesystem itself, opened for it: what is
 * left to do is to give names to inodes that have none.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/check_i.h"

#define ROOT_OFF offsetof(struct foliofs_superblock, itable_root)

/* The inode's words, in DRAM: enough for transactions and trees. */
static uint64_t inode_off(const struct check *ck, uint64_t ino)
{
	const struct check_rec *rec = find_rec(ck, ino);

	return rec_off(ck, (uint64_t)(rec - ck->rec));
}

/* A repair ends: commit what it did, or forget it. */
static void finish(struct check *ck, struct txn *t, int ret)
{
	if (ret)
		txn_abort(t);
	else
		ret = txn_commit(t);
	if (!ret)
		ck->result->nr_changes++;
	else if (ret != -ENOSPC && ret != -EUCLEAN && !ck->ret)
		ck->ret = err_set(ck->err, ret, "%s: repair failed: %s",
				  ck->opt->device, strerror(-ret));
}

/* Files. */

static void trim_file(struct check *ck, uint64_t ino)
{
	uint64_t off = inode_off(ck, ino), root, new_root;
	uint64_t size = pmem_load64(ck->fs->pm, off + INODE_SIZE);
	struct tree_ext hole = { .index = (size + BLOCK_MASK) >> BLOCK_SHIFT,
				 .type = SLOT_HOLE };
	struct txn t;
	struct tree_edit e = { .txn = &t,
			       .fs = ck->fs,
			       .kind = BLOCK_DATA,
			       .ext = &hole,
			       .nr_ext = 1,
			       .keep_words = 1 };
	int ret;

	hole.nr = FOLIOFS_MAX_PAGES - hole.index;
	root = pmem_load64(ck->fs->pm, off + INODE_DATA);
	txn_begin(ck->fs, &t);
	ret = tree_edit(&e, root, &new_root);
	if (!ret)
		txn_set64(&t, off + INODE_DATA, new_root);
	finish(ck, &t, ret);
}

/* Directories. */

struct blocks {
	struct check *ck;
	struct vec v; /* in the order of the directory */
};

static void collect(struct blocks *b, uint64_t slot)
{
	uint64_t off = slot_block(slot) << BLOCK_SHIFT;

	if (slot == 0)
		return;
	if (slot_type(slot) != SLOT_NODE) {
		push(b->ck, &b->v, slot_block(slot));
		return;
	}
	for (unsigned int i = 0; i < NODE_SLOTS; i++)
		collect(b, pmem_load64(b->ck->fs->pm, off + i * sizeof(le64)));
}

static struct tree_ext *make_exts(const struct vec *v)
{
	struct tree_ext *ext =
		(struct tree_ext *)calloc(v->nr + 1u, sizeof(*ext));

	for (unsigned int i = 0; ext && i < v->nr; i++)
		ext[i] = (struct tree_ext){
			.index = i, .nr = 1, .block = v->v[i], .type = SLOT_DATA
		};
	return ext;
}

/*
 * A new tree over the blocks that are left, without holes.  The old nodes are
 * not dropped: nothing leads to them any more, and that makes them free.
 */
static void rebuild_dir(struct check *ck, uint64_t ino)
{
	uint64_t off = inode_off(ck, ino), new_root = 0;
	struct blocks b = { .ck = ck };
	struct txn t;
	struct tree_edit e = {
		.txn = &t, .fs = ck->fs, .kind = BLOCK_DIR, .keep_words = 2
	};
	struct tree_ext *ext;
	int ret = 0;

	vec_init(&b.v);
	collect(&b, pmem_load64(ck->fs->pm, off + INODE_DATA));
	ext = make_exts(&b.v);
	txn_begin(ck->fs, &t);
	if (!ext) {
		ret = -ENOMEM;
	} else if (b.v.nr) {
		e.ext = ext;
		e.nr_ext = b.v.nr;
		ret = tree_edit(&e, 0, &new_root);
	}
	if (!ret) {
		txn_set64(&t, off + INODE_DATA, new_root);
		txn_set64(&t, off + INODE_SIZE,
			  (uint64_t)b.v.nr << BLOCK_SHIFT);
	}
	finish(ck, &t, ret);
	free(ext);
	vec_free(&b.v);
}

/* The root. */

static void write_root(struct check *ck, uint64_t block)
{
	uint64_t off = block << BLOCK_SHIFT;
	le64 now = cpu_to_le64((uint64_t)time_now());
	struct foliofs_inode root = {
		.mode = cpu_to_le32(S_IFDIR | 0755),
		.nlink = cpu_to_le32(2),
		.atime = now,
		.mtime = now,
		.ctime = now,
		.btime = now,
		.generation = cpu_to_le32(1),
		.parent = cpu_to_le64(FOLIOFS_ROOT_INO),
	};

	pmem_zero(ck->fs->pm, off, BLOCK_SIZE);
	pmem_write(ck->fs->pm, off + FOLIOFS_ROOT_INO * FOLIOFS_INODE_SIZE,
		   &root, sizeof(root));
}

/* The table lost its first block: a new one, with an empty root directory. */
static void make_root(struct check *ck)
{
	uint64_t copy = (ck->fs->nr_blocks - 1) << BLOCK_SHIFT;
	struct tree_ext te = { .index = 0, .nr = 1, .type = SLOT_DATA };
	struct txn t;
	struct tree_edit e = { .txn = &t,
			       .fs = ck->fs,
			       .kind = BLOCK_ITABLE,
			       .ext = &te,
			       .nr_ext = 1,
			       .keep_words = 2 };
	struct extent ext;
	uint64_t new_root;
	int ret;

	txn_begin(ck->fs, &t);
	ret = txn_take(&t, 0, 1, BLOCK_ITABLE, &ext);
	if (!ret) {
		te.block = ext.start;
		write_root(ck, ext.start);
		ret = tree_edit(&e, pmem_load64(ck->fs->pm, ROOT_OFF),
				&new_root);
	}
	if (!ret) {
		txn_set64(&t, ROOT_OFF, new_root);
		txn_set64(&t, copy + ROOT_OFF, new_root);
	}
	finish(ck, &t, ret);
}

void repair_trees(struct check *ck)
{
	if (ck->no_root)
		make_root(ck);
	for (unsigned int i = 0; i < ck->trim.nr && !ck->ret; i++)
		trim_file(ck, ck->trim.v[i]);
	for (unsigned int i = 0; i < ck->rebuild.nr && !ck->ret; i++)
		rebuild_dir(ck, ck->rebuild.v[i]);
}

/* lost+found. */

static int set_flags(struct inode *ip, uint32_t flags)
{
	uint64_t word = inode_word(ip, INODE_GENFLAGS);
	struct txn t;

	txn_begin(ip->fs, &t);
	inode_set(&t, ip, INODE_GENFLAGS, word_pair((uint32_t)word, flags));
	return txn_commit(&t);
}

/* Also in a root directory that is immutable. */
static int make_lost_found(struct inode *root, const char *name,
			   struct inode **ret_dir)
{
	const struct cred cred = { .umask = 0 };
	const struct new_inode want = { .mode = S_IFDIR | 0700 };
	uint32_t flags = inode_flags(root);
	int ret, err;

	ret = set_flags(root, flags & ~FOLIOFS_FL_IMMUTABLE);
	if (ret)
		return ret;
	ret = fs_create(root, name, &cred, &want, ret_dir);
	err = set_flags(root, flags);
	if (!ret && err) {
		inode_put(*ret_dir);
		ret = err;
	}
	return ret;
}

/* The directory, found or made; another name where that is something else. */
static int get_lost_found(struct inode *root, struct inode **ret_dir)
{
	char name[32] = "lost+found";
	int ret;

	for (unsigned int i = 1; i < 100; i++) {
		ret = fs_lookup(root, name, ret_dir);
		if (ret == -ENOENT)
			return make_lost_found(root, name, ret_dir);
		if (ret)
			return ret;
		if (S_ISDIR(inode_mode(*ret_dir)))
			return 0;
		inode_put(*ret_dir);
		snprintf(name, sizeof(name), "lost+found.%u", i);
	}
	return -EEXIST;
}

/* Give an inode a name: "#12", or "#12.1" where there is one already. */
static int name_inode(struct inode *dir, struct inode *ip)
{
	bool is_dir = S_ISDIR(inode_mode(ip));
	struct dir_found found;
	struct dir_slot slot;
	struct dir_name n;
	char name[48];
	struct txn t;
	int ret;

	snprintf(name, sizeof(name), "#%" PRIu64, ip->ino);
	n = (struct dir_name){ name, (unsigned int)strlen(name) };
	for (unsigned int i = 1; dir_lookup(dir, &n, &found) == 0; i++)
		n.len = (unsigned int)snprintf(name, sizeof(name),
					       "#%" PRIu64 ".%u", ip->ino, i);
	txn_begin(dir->fs, &t);
	ret = dir_insert(&t, dir, &n, ip->ino,
			 (uint8_t)((inode_mode(ip) & S_IFMT) >> 12), &slot);
	if (ret) {
		txn_abort(&t);
		return ret;
	}
	if (is_dir) {
		inode_set(&t, ip, INODE_PARENT, dir->ino);
		inode_set_nlink(&t, dir, inode_nlink(dir) + 1);
	} else {
		inode_set_nlink(&t, ip, 1);
	}
	inode_touch(&t, dir, true);
	ret = txn_commit(&t);
	if (!ret)
		dir_inserted(dir, &n, &slot);
	return ret;
}

static int bring_back(struct check *ck, struct foliofs *fs)
{
	struct inode *root, *dir, *ip;
	int ret;

	ret = inode_get(fs, FOLIOFS_ROOT_INO, &root);
	if (ret)
		return ret;
	ret = get_lost_found(root, &dir);
	inode_put(root);
	if (ret)
		return ret;
	for (unsigned int i = 0; !ret && i < ck->lost.nr; i++) {
		ret = inode_get(fs, ck->lost.v[i], &ip);
		if (ret)
			break;
		ret = ip == dir ? 0 : name_inode(dir, ip);
		inode_put(ip);
		if (!ret)
			ck->result->nr_changes++;
	}
	inode_put(dir);
	return ret;
}

int repair_lost(struct check *ck)
{
	struct foliofs_options opt = { .device = ck->opt->device,
				       .granularity = ck->opt->granularity };
	struct foliofs *fs;
	int ret = foliofs_open(&opt, &fs, ck->err);

	if (ret == -EUCLEAN)
		return 0; /* the next pass says what it is */
	if (ret)
		return ret;
	fs->quiet = true;
	ret = bring_back(ck, fs);
	foliofs_close(fs);
	/* A device that is full keeps them as they are: reported as left. */
	if (ret == -ENOSPC || ret == -EUCLEAN || ret == -ESTALE)
		return 0;
	return ret ? err_set(ck->err, ret, "%s: lost+found: %s",
			     ck->opt->device, strerror(-ret))
		   : 0;
}
