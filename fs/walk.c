/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/walk.c - the mount walk: what is in use, from what points to it
 *
 * The inode table is walked first, by one thread; its blocks are the work
 * list of the second part, in which several threads mark what their inodes'
 * trees point to.  Directories are not read: names do not own blocks.
 *
 * Nothing found here is trusted.  Levels fall on the way down, so a tree of
 * any shape ends; a block is looked into by its first visitor only, so the
 * work is bounded by the device's size; a block that is two things at once is
 * damage.
 *
 * An inode with no links was open when the system went down.  It is not
 * marked, so its blocks are free, and made a free inode at the end.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "fs/fs.h"

/* Fewer table blocks than this are not worth a thread. */
#define BLOCKS_A_THREAD 64
#define MAX_THREADS	16

struct walk {
	struct foliofs *fs;
	struct vec table;	    /* pairs: index, block */
	_Atomic(unsigned int) next; /* of the pairs */
	struct mutex lock;	    /* covers everything below */
	struct vec orphans;	    /* inode numbers */
	struct errmsg *err;	    /* the first damage, for the caller */
	int ret;
};

static void fail(struct walk *w, int ret, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void fail(struct walk *w, int ret, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (ret == -EUCLEAN)
		fs_damaged(w->fs, "%s", text);
	mutex_lock(&w->lock);
	if (!w->ret) {
		w->ret = ret;
		err_set(w->err, ret,
			"%s: damaged: %s; run fsck.foliofs -y, or mount with "
			"-o ro to read what is left",
			w->fs->opt.device, text);
	}
	mutex_unlock(&w->lock);
}

/* Only file contents may be shared or come in chunks. */
static bool mark(struct walk *w, uint64_t slot, enum block_kind kind,
		 uint64_t ino, bool *ret_first)
{
	bool is_data = slot_type(slot) != SLOT_NODE;
	unsigned int order = slot_order(slot);
	int64_t share;

	*ret_first = false;
	if (order && kind != BLOCK_DATA) {
		fail(w, -EUCLEAN, "inode %ju: slot %#jx: a chunk here",
		     (uintmax_t)ino, (uintmax_t)slot);
		return false;
	}
	share = alloc_mark(w->fs->al, slot_block(slot), order,
			   is_data ? kind : node_kind(slot_level(slot)));
	if (share < 0) {
		fail(w, -EUCLEAN, "inode %ju: block %ju is used twice",
		     (uintmax_t)ino, (uintmax_t)slot_block(slot));
		return false;
	}
	if (share > 0 && kind != BLOCK_DATA) {
		fail(w, -EUCLEAN, "inode %ju: block %ju is shared",
		     (uintmax_t)ino, (uintmax_t)slot_block(slot));
		return false;
	}
	*ret_first = share == 0;
	return true;
}

typedef void (*visit_fn)(struct walk *w, uint64_t slot, uint64_t index);

static void walk_slot(struct walk *w, uint64_t slot, unsigned int level,
		      enum block_kind kind, uint64_t ino, uint64_t index,
		      visit_fn visit)
{
	uint64_t off = slot_block(slot) << BLOCK_SHIFT;
	unsigned int below;
	bool first;

	if (!slot_valid(w->fs, slot, level)) {
		fail(w, -EUCLEAN, "inode %ju: bad slot %#jx", (uintmax_t)ino,
		     (uintmax_t)slot);
		return;
	}
	if (slot == 0 || !mark(w, slot, kind, ino, &first) || !first)
		return;
	if (slot_type(slot) != SLOT_NODE) {
		if (visit)
			visit(w, slot, index);
		return;
	}
	below = slot_level(slot) - 1;
	for (unsigned int i = 0; i < NODE_SLOTS; i++) {
		uint64_t child = pmem_load64(w->fs->pm, off + i * 8);

		if (child)
			walk_slot(w, child, below, kind, ino,
				  index + i * level_pages(below), visit);
	}
}

static void visit_table(struct walk *w, uint64_t slot, uint64_t index)
{
	if (index >= w->fs->nr_blocks) {
		fail(w, -EUCLEAN, "inode table: block at impossible index %ju",
		     (uintmax_t)index);
		return;
	}
	itable_block(w->fs, index);
	if (vec_push(&w->table, index) || vec_push(&w->table, slot_block(slot)))
		fail(w, -ENOMEM, "out of memory");
}

static void walk_inode(struct walk *w, uint64_t ino,
		       const struct foliofs_inode *di)
{
	uint32_t mode = le32_to_cpu(di->mode), nlink = le32_to_cpu(di->nlink);
	uint64_t xattr = le64_to_cpu(di->xattr);

	if (mode == 0 && nlink == 0)
		return;
	itable_mark(w->fs, ino);
	if (nlink == 0) {
		mutex_lock(&w->lock);
		if (vec_push(&w->orphans, ino))
			w->ret = -ENOMEM;
		mutex_unlock(&w->lock);
		return;
	}
	if (mode == 0) {
		fail(w, -EUCLEAN, "inode %ju: %u links but no type",
		     (uintmax_t)ino, nlink);
		return;
	}
	walk_slot(w, le64_to_cpu(di->data), TREE_ROOT,
		  S_ISDIR(mode) ? BLOCK_DIR : BLOCK_DATA, ino, 0, NULL);
	if (xattr && slot_level(xattr) > 1)
		fail(w, -EUCLEAN, "inode %ju: bad xattr slot %#jx",
		     (uintmax_t)ino, (uintmax_t)xattr);
	else
		walk_slot(w, xattr, TREE_ROOT, BLOCK_XATTR, ino, 0, NULL);
}

static void *walk_inodes(void *arg)
{
	struct walk *w = (struct walk *)arg;
	const struct foliofs_inode *di;
	unsigned int i;

	while ((i = 2 * atomic_fetch_add(&w->next, 1)) < w->table.nr) {
		uint64_t ino = w->table.v[i] * FOLIOFS_INODES_BLOCK;
		uint64_t off = w->table.v[i + 1] << BLOCK_SHIFT;

		di = (const struct foliofs_inode *)pmem_at(w->fs->pm, off);
		for (unsigned int n = ino == 0; n < FOLIOFS_INODES_BLOCK; n++)
			walk_inode(w, ino + n, &di[n]);
	}
	if (pmem_fault_take())
		fail(w, -EIO, "the device cannot be read everywhere");
	return NULL;
}

static unsigned int nr_threads(const struct walk *w)
{
	unsigned int want = w->fs->opt.walk_threads;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned int worth = w->table.nr / 2 / BLOCKS_A_THREAD;

	if (want == 0)
		want = cpus > 0 ? (unsigned int)cpus : 1;
	if (want > MAX_THREADS)
		want = MAX_THREADS;
	return want > worth ? worth : want;
}

static void run_threads(struct walk *w)
{
	pthread_t thread[MAX_THREADS];
	unsigned int nr = nr_threads(w), started = 0;

	while (started + 1 < nr &&
	       pthread_create(&thread[started], NULL, walk_inodes, w) == 0)
		started++;
	walk_inodes(w);
	while (started > 0)
		pthread_join(thread[--started], NULL);
}

static void mark_static(struct walk *w)
{
	struct foliofs *fs = w->fs;

	for (uint64_t b = 0; b < fs->data_start; b++)
		alloc_mark(fs->al, b, 0, BLOCK_STATIC);
	alloc_mark(fs->al, fs->nr_blocks - 1, 0, BLOCK_STATIC);
}

/*
 * Bad blocks that nobody uses stay that way.  One that is in use keeps its
 * owner, who gets EIO from it.
 */
static void mark_bad(struct walk *w)
{
	const uint64_t *block;
	unsigned int nr = pmem_known_bad(w->fs->pm, &block);

	for (unsigned int i = 0; i < nr; i++)
		(void)alloc_mark(w->fs->al, block[i], 0, BLOCK_BAD);
}

static int reclaim_orphans(struct walk *w)
{
	struct foliofs *fs = w->fs;
	uint64_t off;
	struct txn t;
	int ret;

	for (unsigned int i = 0; i < w->orphans.nr; i++) {
		ret = itable_find(fs, w->orphans.v[i], &off);
		if (ret)
			return ret;
		txn_begin(fs, &t);
		txn_set64(&t, off + INODE_MODE, 0);
		ret = txn_commit(&t);
		if (ret)
			return ret;
		itable_free(fs, w->orphans.v[i]);
	}
	fs->nr_orphans = w->orphans.nr;
	return 0;
}

static int check_root(struct walk *w)
{
	struct foliofs *fs = w->fs;
	struct inode *root;
	int ret = inode_get(fs, FOLIOFS_ROOT_INO, &root);

	if (!ret) {
		if (!S_ISDIR(inode_mode(root)))
			ret = -EUCLEAN;
		inode_put(root);
	}
	if (ret)
		return err_set(w->err, -EUCLEAN,
			       "%s: damaged: no root directory; run "
			       "fsck.foliofs -y",
			       fs->opt.device);
	return 0;
}

int walk_mount(struct foliofs *fs, struct errmsg *err)
{
	const struct foliofs_superblock *sb =
		(const struct foliofs_superblock *)pmem_at(fs->pm, 0);
	struct walk w = { .fs = fs, .err = err };
	uint64_t start = clock_ns();
	int ret;

	mutex_init(&w.lock, LOCK_LEAF);
	vec_init(&w.table);
	vec_init(&w.orphans);
	mark_static(&w);
	walk_slot(&w, le64_to_cpu(sb->itable_root), TREE_ROOT, BLOCK_ITABLE, 0,
		  0, visit_table);
	run_threads(&w);
	ret = w.ret;
	if (ret == -EUCLEAN && fs->opt.read_only)
		ret = 0; /* whoever reads the damaged place is told */
	mark_bad(&w);
	if (!ret) {
		alloc_ready(fs->al);
		itable_ready(fs);
		ret = check_root(&w);
	}
	if (!ret && w.ret == 0)
		ret = reclaim_orphans(&w);
	fs->walk_ns = clock_ns() - start;
	vec_free(&w.table);
	vec_free(&w.orphans);
	mutex_destroy(&w.lock);
	return ret;
}
