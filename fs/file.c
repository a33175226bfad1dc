/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/file.c - the contents of files
 *
 * A change is planned page by page against the tree.  Pages that have an
 * exclusive block are overwritten where they are (data=inplace); unwritten
 * blocks are filled and change their type; all other pages get new blocks.
 * The list of extents that results goes to tree_edit(), and one transaction
 * makes it visible together with size and times.
 *
 * Bytes between the end of file and the end of its last block mean nothing:
 * they are zeroed when the file grows over them, never before, so that a
 * truncate that is lost in a crash has lost nothing.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "fs/direct.h"
#include "fs/layout.h"

/* From this page on, or for a write of so many, a file gets chunks. */
#define ASIDE_PAGES 16
/* Copied in one transaction by one request. */
#define COPY_MAX    (UINT64_C(64) << 20)
#define RELATIME_NS (INT64_C(86400) * 1000000000)
/* Sharing more than this does not count what it shares: it has to be fast. */
#define COUNTED_PAGES 512
/* Words that every change of a file may need beside its tree. */
#define FILE_WORDS 8

#define EXT_INLINE 8

/* Where written bytes come from. */
struct source {
	const unsigned char *buf; /* or NULL: another file */
	struct inode *in;
	uint64_t in_pos;
};

struct change {
	struct inode *ip;
	struct foliofs *fs;
	struct txn *t;
	struct source src;
	uint64_t pos, len; /* bytes that change */
	uint64_t old_size;
	bool cow;	 /* nothing may be overwritten */
	bool lost_count; /* how many pages it has is no longer known */
	struct tree_ext *ext;
	unsigned int nr_ext, cap_ext;
	struct tree_ext first[EXT_INLINE];
	int64_t pages;
};

static const unsigned char zeros[1 << 20];

static uint64_t page_of(uint64_t pos)
{
	return pos >> BLOCK_SHIFT;
}

static uint64_t page_up(uint64_t pos)
{
	return (pos + BLOCK_MASK) >> BLOCK_SHIFT;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int bad_file(const struct inode *ip, uint64_t index)
{
	return fs_damaged(ip->fs, "inode %ju: bad slot at page %ju",
			  (uintmax_t)ip->ino, (uintmax_t)index);
}

static int lookup(struct inode *ip, uint64_t index, uint64_t max,
		  bool exclusive, struct tree_run *run)
{
	int ret =
		tree_lookup(ip->fs, inode_data(ip), index, max, exclusive, run);

	return ret == -EUCLEAN ? bad_file(ip, index) : ret;
}

/* Reading. */

static void add_iov(struct fs_iov *v, const void *p, uint64_t len)
{
	struct iovec *last = v->nr ? &v->iov[v->nr - 1] : NULL;
	union {
		const void *in;
		void *out;
	} base = { .in = p };

	if (last && (const char *)last->iov_base + last->iov_len == p &&
	    p != zeros) {
		last->iov_len += len;
		return;
	}
	v->iov[v->nr].iov_base = base.out;
	v->iov[v->nr].iov_len = len;
	v->nr++;
}

int file_read(struct inode *ip, uint64_t pos, uint64_t len, struct fs_iov *v,
	      uint64_t *ret_len)
{
	uint64_t size = inode_size(ip), done = 0;
	struct tree_run run;
	int ret;

	v->nr = 0;
	*ret_len = 0;
	if (pos >= size)
		return 0;
	len = min64(len, size - pos);
	while (done < len && v->nr < v->max) {
		uint64_t at = pos + done, in = at & BLOCK_MASK, n;

		ret = lookup(ip, page_of(at), page_up(pos + len) - page_of(at),
			     false, &run);
		if (ret)
			return ret;
		n = min64((run.nr << BLOCK_SHIFT) - in, len - done);
		if (run.type == SLOT_DATA) {
			uint64_t off = (run.block << BLOCK_SHIFT) + in;

			if (atomic_load(&ip->fs->pm->nr_bad))
				pmem_check(ip->fs->pm, off, n);
			add_iov(v, pmem_at(ip->fs->pm, off), n);
		} else {
			n = min64(n, sizeof(zeros));
			add_iov(v, zeros, n);
		}
		done += n;
	}
	*ret_len = done;
	return 0;
}

void file_accessed(struct inode *ip)
{
	struct foliofs *fs = ip->fs;
	int64_t now, atime;

	if (fs->opt.atime == ATIME_NEVER || atomic_load(&fs->read_only) ||
	    (inode_flags(ip) & FOLIOFS_FL_NOATIME))
		return;
	now = time_coarse(fs);
	atime = (int64_t)inode_word(ip, INODE_ATIME);
	if (fs->opt.atime == ATIME_RELATIME &&
	    atime > (int64_t)inode_word(ip, INODE_MTIME) &&
	    atime > (int64_t)inode_word(ip, INODE_CTIME) &&
	    now - atime < RELATIME_NS)
		return;
	now = (int64_t)inode_now(ip);
	if (now == atime)
		return;
	/*
	 * The one store to something reachable without a transaction: a word
	 * of its own, flushed, and durable with whatever fence comes next.
	 * That a crash may take it back is what relatime allows.
	 */
	pmem_store64(fs->pm, ip->off + INODE_ATIME, (uint64_t)now);
	pmem_flush(fs->pm, ip->off + INODE_ATIME, sizeof(uint64_t));
	/* Where no fsync will come, it is durable at once. */
	if (fs->opt.dax == DAX_NEVER)
		pmem_fence(fs->pm);
}

void file_sync(struct inode *ip)
{
	pmem_flush(ip->fs->pm, ip->off + INODE_ATIME, sizeof(uint64_t));
	pmem_fence(ip->fs->pm);
}

int fs_readlink(struct inode *ip, char target[BLOCK_SIZE])
{
	uint64_t size, data;
	int ret = 0;

	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	size = inode_size(ip);
	data = inode_data(ip);
	if (!S_ISLNK(inode_mode(ip))) {
		ret = -EINVAL;
	} else if (size >= BLOCK_SIZE || (size > FOLIOFS_INLINE_SYMLINK &&
					  slot_type(data) != SLOT_DATA)) {
		ret = fs_damaged(ip->fs, "inode %ju: bad symlink",
				 (uintmax_t)ip->ino);
	} else {
		memcpy(target,
		       pmem_at(ip->fs->pm,
			       size > FOLIOFS_INLINE_SYMLINK
				       ? slot_block(data) << BLOCK_SHIFT
				       : ip->off +
						 offsetof(struct foliofs_inode,
							  symlink)),
		       size);
		target[size] = '\0';
		file_accessed(ip);
	}
	rwsem_up_read(&ip->rwsem);
	return ret;
}

int fs_may_open(const struct inode *ip, int flags)
{
	uint32_t fl = inode_flags(ip);
	bool write = (flags & O_ACCMODE) != O_RDONLY;

	if ((fl & FOLIOFS_FL_IMMUTABLE) && write)
		return -EPERM;
	if ((fl & FOLIOFS_FL_APPEND) &&
	    ((write && !(flags & O_APPEND)) || (flags & O_TRUNC)))
		return -EPERM;
	return 0;
}

/* Planning. */

static void change_init(struct change *c, struct inode *ip, struct txn *t,
			uint64_t pos, uint64_t len)
{
	c->ip = ip;
	c->fs = ip->fs;
	c->t = t;
	c->src = (struct source){ NULL, NULL, 0 };
	c->pos = pos;
	c->len = len;
	c->old_size = inode_size(ip);
	c->cow = ip->fs->opt.data == DATA_COW;
	c->lost_count = false;
	c->ext = c->first;
	c->nr_ext = 0;
	c->cap_ext = EXT_INLINE;
	c->pages = 0;
}

static void change_free(struct change *c)
{
	if (c->ext != c->first)
		free(c->ext);
}

static bool continues(const struct tree_ext *a, const struct tree_ext *b)
{
	return a->type == b->type && a->reuse == b->reuse &&
	       a->chunk == b->chunk && a->share == b->share &&
	       a->index + a->nr == b->index &&
	       (a->type == SLOT_HOLE || a->block + a->nr == b->block);
}

static int add_ext(struct change *c, const struct tree_ext *ext)
{
	struct tree_ext *bigger;

	if (c->nr_ext && continues(&c->ext[c->nr_ext - 1], ext)) {
		c->ext[c->nr_ext - 1].nr += ext->nr;
		return 0;
	}
	if (c->nr_ext == c->cap_ext) {
		bigger = (struct tree_ext *)realloc(
			c->ext == c->first ? NULL : c->ext,
			2 * c->cap_ext * sizeof(*bigger));
		if (!bigger)
			return -ENOMEM;
		if (c->ext == c->first)
			memcpy(bigger, c->first, sizeof(c->first));
		c->ext = bigger;
		c->cap_ext *= 2;
	}
	c->ext[c->nr_ext++] = *ext;
	return 0;
}

static void end_aside(struct inode *ip)
{
	if (ip->aside)
		alloc_aside_end(ip->fs->al, ip->aside);
	ip->aside = 0;
}

/* The block after the one of the page before, if the page has one. */
static uint64_t block_behind(struct change *c, uint64_t index)
{
	struct tree_run run;

	if (index == 0 || lookup(c->ip, index - 1, 1, false, &run) ||
	    run.type == SLOT_HOLE)
		return 0;
	return run.block + 1;
}

/*
 * Where page @index should be so that its 2 MiB end up in one chunk: in the
 * chunk set aside, or behind its neighbour if that is well placed.  A file
 * that grows, or is written in large pieces, gets a new chunk set aside; a
 * page here and there does not, as that would use up the empty chunks.
 */
static uint64_t aligned_place(struct change *c, uint64_t index, uint64_t want)
{
	uint64_t in = index % CHUNK_BLOCKS, behind;
	struct inode *ip = c->ip;

	if (ip->aside && ip->aside_index == index - in)
		return ip->aside + in;
	behind = block_behind(c, index);
	if (behind && in && behind % CHUNK_BLOCKS == in)
		return behind;
	if (want < ASIDE_PAGES && (index < ASIDE_PAGES || !behind))
		return 0;
	end_aside(ip);
	if (alloc_aside(ip->fs->al, ip->goal, &ip->aside)) {
		ip->aside = 0;
		return 0;
	}
	ip->aside_index = index - in;
	return ip->aside + in;
}

/* New blocks for up to @want pages from @index on. */
static int take_pages(struct change *c, uint64_t index, uint64_t want,
		      struct tree_ext *ret)
{
	uint64_t in = index % CHUNK_BLOCKS, place;
	struct extent ext = { 0, 0 };
	int err;

	*ret = (struct tree_ext){ .index = index, .type = SLOT_DATA };
	if (in == 0 && want >= CHUNK_BLOCKS &&
	    txn_take_chunk(c->t, c->ip->goal, BLOCK_DATA, &ret->block) == 0) {
		ret->nr = CHUNK_BLOCKS;
		ret->chunk = true;
		c->ip->goal = ret->block + ret->nr;
		return 0;
	}
	place = aligned_place(c, index, want);
	if (place) {
		err = txn_take_at(c->t, place, min64(want, CHUNK_BLOCKS - in),
				  BLOCK_DATA, &ext);
		if (err)
			return err;
	}
	if (ext.nr == 0) {
		err = txn_take(c->t, c->ip->goal, want, BLOCK_DATA, &ext);
		if (err)
			return err;
	}
	ret->block = ext.start;
	ret->nr = ext.nr;
	c->ip->goal = ext.start + ext.nr;
	return 0;
}

/* Bytes [from, to) of the file's old contents, zeros past the old end. */
static void put_old(struct change *c, uint64_t off, uint64_t old_block,
		    uint64_t from, uint64_t to)
{
	uint64_t old_end = from > c->old_size ? from : min64(to, c->old_size);

	if (old_block == 0)
		old_end = from;
	pmem_copy(c->fs->pm, off,
		  (old_block << BLOCK_SHIFT) + (from & BLOCK_MASK),
		  old_end - from);
	pmem_zero(c->fs->pm, off + (old_end - from), to - old_end);
}

/* Bytes [from, to) of the file as the source has them. */
static int put_new(struct change *c, uint64_t off, uint64_t from, uint64_t to)
{
	uint64_t in = from - c->pos, n;
	struct tree_run run;
	int ret;

	if (c->src.buf) {
		pmem_write(c->fs->pm, off, c->src.buf + in, to - from);
		return 0;
	}
	for (; from < to; from += n, off += n) {
		uint64_t at = c->src.in_pos + (from - c->pos);

		ret = lookup(c->src.in, page_of(at),
			     page_up(at + (to - from)) - page_of(at), false,
			     &run);
		if (ret)
			return ret;
		n = min64(to - from,
			  (run.nr << BLOCK_SHIFT) - (at & BLOCK_MASK));
		if (run.type == SLOT_DATA)
			pmem_copy(c->fs->pm, off,
				  (run.block << BLOCK_SHIFT) +
					  (at & BLOCK_MASK),
				  n);
		else
			pmem_zero(c->fs->pm, off, n);
	}
	return 0;
}

/* Fill the blocks of an extent: source inside the change, old bytes around. */
static int fill(struct change *c, const struct tree_ext *ext,
		uint64_t old_block)
{
	uint64_t start = ext->index << BLOCK_SHIFT;
	uint64_t end = (ext->index + ext->nr) << BLOCK_SHIFT;
	uint64_t off = ext->block << BLOCK_SHIFT;
	uint64_t from = start > c->pos ? start : c->pos;
	uint64_t to = min64(end, c->pos + c->len);
	int ret;

	if (from > start)
		put_old(c, off, old_block, start, from);
	ret = put_new(c, off + (from - start), from, to);
	if (!ret && to < end)
		put_old(c, off + (to - start),
			old_block ? old_block + ext->nr - 1 : 0, to, end);
	return ret;
}

/* Pages of the source that are a hole; they need no block here either. */
static uint64_t source_hole(struct change *c, uint64_t index, uint64_t max)
{
	uint64_t start = index << BLOCK_SHIFT;
	struct tree_run run;

	if (c->src.buf || (c->src.in_pos - c->pos) % BLOCK_SIZE != 0 ||
	    start < c->pos || start + BLOCK_SIZE > c->pos + c->len)
		return 0;
	max = min64(max, page_of(c->pos + c->len) - index);
	if (lookup(c->src.in, page_of(c->src.in_pos + (start - c->pos)), max,
		   false, &run) ||
	    run.type != SLOT_HOLE)
		return 0;
	return run.nr;
}

/* Plan one run of pages; returns how many it dealt with. */
static int plan_run(struct change *c, const struct tree_run *run,
		    uint64_t *ret_nr)
{
	bool has_data = run->type == SLOT_DATA;
	struct tree_ext ext;
	uint64_t start, hole;
	int ret;

	hole = source_hole(c, run->index, run->nr);
	if (hole) {
		ext = (struct tree_ext){ .index = run->index, .nr = hole };
		*ret_nr = hole;
		return add_ext(c, &ext);
	}
	if (has_data && run->exclusive && !c->cow) {
		/* Bytes past the old end are seen by the new size only. */
		if (c->pos + c->len > c->old_size)
			txn_direct(c->t);
		start = run->index << BLOCK_SHIFT;
		if (start < c->pos)
			start = c->pos;
		*ret_nr = run->nr;
		return put_new(c,
			       (run->block << BLOCK_SHIFT) + start -
				       (run->index << BLOCK_SHIFT),
			       start,
			       min64(c->pos + c->len, (run->index + run->nr)
							      << BLOCK_SHIFT));
	}
	if (run->type == SLOT_UNWRITTEN && run->exclusive) {
		ext = (struct tree_ext){ .index = run->index,
					 .nr = run->nr,
					 .block = run->block,
					 .type = SLOT_DATA,
					 .reuse = true };
		txn_direct(c->t);
	} else {
		ret = take_pages(c, run->index, run->nr, &ext);
		if (ret)
			return ret;
	}
	*ret_nr = ext.nr;
	ret = fill(c, &ext, has_data ? run->block : 0);
	return ret ? ret : add_ext(c, &ext);
}

/*
 * The file will grow: the bytes behind the old end become visible.  In place
 * where the block is ours, as they are not visible yet; in a copy otherwise,
 * unless the change is going to make one anyway (@copied).
 */
static int zero_tail(struct change *c, bool copied)
{
	uint64_t index = page_of(c->old_size), in = c->old_size & BLOCK_MASK;
	struct tree_run run;
	struct tree_ext ext;
	int ret;

	if (in == 0)
		return 0;
	ret = lookup(c->ip, index, 1, true, &run);
	if (ret || run.type != SLOT_DATA)
		return ret;
	if (run.exclusive) {
		pmem_zero(c->fs->pm, (run.block << BLOCK_SHIFT) + in,
			  BLOCK_SIZE - in);
		txn_direct(c->t);
		return 0;
	}
	if (copied && page_of(c->pos) <= index)
		return 0;
	ret = take_pages(c, index, 1, &ext);
	if (ret)
		return ret;
	put_old(c, ext.block << BLOCK_SHIFT, run.block, index << BLOCK_SHIFT,
		(index + 1) << BLOCK_SHIFT);
	return add_ext(c, &ext);
}

/* Do the pages of source and destination lie alike? */
static bool aligned_alike(const struct source *src, uint64_t pos)
{
	return src->in && (src->in_pos - pos) % BLOCK_SIZE == 0;
}

/*
 * Whole pages from @index on that are shared with the source rather than
 * copied.  The page in which both files end counts as whole: what is behind
 * the end means nothing.
 */
static uint64_t shared_pages(const struct change *c, uint64_t index)
{
	uint64_t end = c->pos + c->len;

	if (!aligned_alike(&c->src, c->pos) || index << BLOCK_SHIFT < c->pos)
		return 0;
	end = end >= c->old_size &&
			      c->src.in_pos + c->len >= inode_size(c->src.in)
		      ? page_up(end)
		      : page_of(end);
	return end > index ? end - index : 0;
}

static int plan_share(struct change *c, uint64_t index, uint64_t nr)
{
	uint64_t start = index << BLOCK_SHIFT;
	struct tree_ext ext = { .index = index,
				.nr = nr,
				.block = page_of(c->src.in_pos +
						 (start - c->pos)),
				.type = SLOT_DATA,
				.share = true };

	if (nr > COUNTED_PAGES)
		c->lost_count = true;
	return add_ext(c, &ext);
}

static int plan_write(struct change *c)
{
	uint64_t index = page_of(c->pos), end = page_up(c->pos + c->len), nr;
	struct tree_run run;
	int ret = 0;

	if (c->pos + c->len > c->old_size)
		ret = zero_tail(c, true);
	for (; !ret && index < end; index += nr) {
		nr = shared_pages(c, index);
		if (nr) {
			ret = plan_share(c, index, nr);
			continue;
		}
		/* An edge is copied; what follows it need not be. */
		nr = shared_pages(c, index + 1) ? 1 : end - index;
		ret = lookup(c->ip, index, nr, true, &run);
		if (!ret)
			ret = plan_run(c, &run, &nr);
	}
	return ret;
}

/*
 * Edit the tree and put its root into the transaction.  Nodes go near the
 * inode: behind the data is where the next data must be to make up a chunk.
 */
static int apply(struct change *c)
{
	struct tree_edit e = { .txn = c->t,
			       .fs = c->fs,
			       .kind = BLOCK_DATA,
			       .ext = c->ext,
			       .nr_ext = c->nr_ext,
			       .keep_words = FILE_WORDS,
			       .goal = c->ip->off >> BLOCK_SHIFT,
			       .no_count = c->lost_count };
	uint64_t root = inode_data(c->ip), new_root;
	int ret;

	if (c->nr_ext == 0)
		return 0;
	if (c->src.in)
		e.source = inode_data(c->src.in);
	ret = tree_edit(&e, root, &new_root);
	if (ret == -EUCLEAN)
		return bad_file(c->ip, c->ext[0].index);
	if (ret)
		return ret;
	if (new_root != root)
		inode_set(c->t, c->ip, INODE_DATA, new_root);
	c->pages = e.pages;
	return 0;
}

/*
 * All of one file becomes all of another: one slot and one share, whatever
 * its size.
 */
static bool whole_file(const struct change *c)
{
	return c->src.in && c->pos == 0 && c->src.in_pos == 0 &&
	       c->len >= c->old_size && c->len >= inode_size(c->src.in);
}

static int share_root(struct change *c)
{
	uint64_t root = inode_data(c->src.in), old = inode_data(c->ip);
	int64_t had = atomic_load(&c->ip->pages);
	int64_t has = atomic_load(&c->src.in->pages);
	int ret = 0;

	if (!slot_valid(c->fs, root, TREE_ROOT))
		return bad_file(c->src.in, 0);
	if (root)
		ret = txn_get(c->t, root);
	if (!ret && old)
		ret = txn_drop(c->t, old, DROP_DEEP);
	if (ret)
		return ret;
	inode_set(c->t, c->ip, INODE_DATA, root);
	c->lost_count = had < 0 || has < 0;
	c->pages = has - had;
	return 0;
}

static int plan_and_apply(struct change *c)
{
	int ret = whole_file(c) ? share_root(c) : -EMLINK;

	if (ret != -EMLINK)
		return ret;
	ret = plan_write(c);
	return ret ? ret : apply(c);
}

static void add_pages(struct inode *ip, const struct change *c)
{
	if (c->lost_count)
		atomic_store(&ip->pages, -1);
	else if (atomic_load(&ip->pages) >= 0)
		atomic_fetch_add(&ip->pages, c->pages);
}

/* The caller holds i_rwsem, by way of its struct change. */
static int kill_privs(struct txn *t, struct inode *ip, unsigned int flags)
	__no_lock_analysis
{
	uint32_t mode = inode_mode(ip), less = mode;

	if (flags & WRITE_KILL_SUIDGID) {
		less &= ~(uint32_t)S_ISUID;
		if (mode & S_IXGRP)
			less &= ~(uint32_t)S_ISGID;
		if (less != mode)
			inode_set_mode(t, ip, less);
	}
	return xattr_kill_caps(t, ip);
}

/* Size, times and privileges of a change, and the commit. */
static int commit(struct change *c, uint64_t new_size, unsigned int flags)
{
	int ret = flags & WRITE_SAME ? 0 : kill_privs(c->t, c->ip, flags);

	if (ret) {
		txn_abort(c->t);
		return ret;
	}
	if (new_size != c->old_size)
		inode_set(c->t, c->ip, INODE_SIZE, new_size);
	if (!(flags & (WRITE_CACHED | WRITE_SAME)))
		inode_touch(c->t, c->ip, true);
	ret = txn_commit(c->t);
	if (!ret)
		add_pages(c->ip, c);
	if (!ret && new_size != c->old_size)
		layout_resized(c->ip);
	return ret;
}

/*
 * Append-only is checked by open(2), as everywhere.  What the kernel's cache
 * brings back was accepted when it was written.
 */
static int may_write(const struct inode *ip, uint64_t pos, uint64_t len,
		     unsigned int flags)
{
	if (!S_ISREG(inode_mode(ip)))
		return S_ISDIR(inode_mode(ip)) ? -EISDIR : -EINVAL;
	if ((inode_flags(ip) & FOLIOFS_FL_IMMUTABLE) && !(flags & WRITE_CACHED))
		return -EPERM;
	if (len > FOLIOFS_MAX_SIZE || pos > FOLIOFS_MAX_SIZE - len)
		return -EFBIG;
	return 0;
}

static int write_locked(struct inode *ip, const struct source *src,
			uint64_t pos, uint64_t len, unsigned int flags)
{
	uint64_t size = inode_size(ip);
	struct change c;
	struct txn t;
	int ret;

	txn_begin(ip->fs, &t);
	change_init(&c, ip, &t, pos, len);
	c.src = *src;
	/* A client's store to an old block could miss the copy of it. */
	if (inode_dax(ip))
		c.cow = false;
	ret = plan_and_apply(&c);
	if (!ret && (c.nr_ext || whole_file(&c)))
		layout_replace(ip, pos, len);
	if (ret)
		txn_abort(&t);
	else
		ret = commit(&c, pos + len > size ? pos + len : size, flags);
	change_free(&c);
	return ret;
}

int file_write(struct inode *ip, const void *buf, uint64_t pos, uint64_t len,
	       unsigned int flags)
{
	struct source src = { .buf = (const unsigned char *)buf };
	int ret;

	if (len == 0)
		return 0;
	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	ret = may_write(ip, pos, len, flags);
	if (!ret) {
		layout_write(ip);
		ret = write_locked(ip, &src, pos, len, flags);
		layout_end(ip);
	}
	rwsem_up_write(&ip->rwsem);
	return ret;
}

/*
 * Faults.  The caller holds the tree_lock exclusive, and the entry of each
 * page; i_rwsem may be somebody else's (fs/layout.h).
 */

int file_run(struct inode *ip, uint64_t index, uint64_t max,
	     struct tree_run *ret)
{
	return lookup(ip, index, max, true, ret);
}

/* One extent into the tree, with nothing else about the file changed. */
static int commit_ext(struct change *c, const struct tree_ext *ext)
{
	int ret = add_ext(c, ext);

	if (!ret)
		ret = apply(c);
	if (ret) {
		txn_abort(c->t);
		return ret;
	}
	ret = txn_commit(c->t);
	if (!ret)
		add_pages(c->ip, c);
	return ret;
}

/*
 * Zeroed blocks where there are none, or where they are unwritten.  Two
 * megabytes are a chunk or nothing: *run is short then, and nothing changed.
 */
int file_fault(struct inode *ip, uint64_t nr, struct tree_run *run)
{
	struct tree_ext ext = { .index = run->index,
				.nr = nr,
				.block = run->block,
				.type = SLOT_DATA,
				.reuse = true };
	struct change c;
	struct txn t;
	int ret = 0;

	txn_begin(ip->fs, &t);
	change_init(&c, ip, &t, run->index << BLOCK_SHIFT, nr << BLOCK_SHIFT);
	if (run->type != SLOT_UNWRITTEN || !run->exclusive)
		ret = take_pages(&c, run->index, nr, &ext);
	if (ret || ext.nr < nr) {
		txn_abort(&t);
		run->nr = 1;
		return ret;
	}
	pmem_zero(ip->fs->pm, ext.block << BLOCK_SHIFT, nr << BLOCK_SHIFT);
	txn_direct(&t);
	ret = commit_ext(&c, &ext);
	change_free(&c);
	if (!ret)
		*run = (struct tree_run){ .index = ext.index,
					  .nr = nr,
					  .block = ext.block,
					  .type = SLOT_DATA,
					  .exclusive = true };
	return ret;
}

/* A block near @goal that nothing points to yet. */
int file_stage(struct inode *ip, uint64_t goal, uint64_t *ret_block)
{
	struct extent ext;
	int ret = alloc_take(ip->fs->al, goal, 1, BLOCK_DATA, 0, &ext);

	if (!ret)
		*ret_block = ext.start;
	return ret;
}

void file_stage_cancel(struct inode *ip, uint64_t block)
{
	if (alloc_put(ip->fs->al, block, 0))
		layout_free(ip->fs, block, 0);
}

/* It becomes page @index. */
int file_stage_commit(struct inode *ip, uint64_t index, uint64_t block)
{
	struct tree_ext ext = {
		.index = index, .nr = 1, .block = block, .type = SLOT_DATA
	};
	struct change c;
	struct txn t;
	int ret;

	txn_begin(ip->fs, &t);
	ret = txn_adopt(&t, block);
	if (ret) {
		txn_abort(&t);
		file_stage_cancel(ip, block);
		return ret;
	}
	change_init(&c, ip, &t, index << BLOCK_SHIFT, BLOCK_SIZE);
	ret = commit_ext(&c, &ext);
	change_free(&c);
	return ret;
}

/* Truncate and fallocate. */

/* Where the page in which the file ends is, if it does so within one. */
static int tail_run(struct inode *ip, uint64_t size, struct tree_run *ret)
{
	*ret = (struct tree_run){ .type = SLOT_HOLE };
	return size & BLOCK_MASK ? lookup(ip, page_of(size), 1, true, ret) : 0;
}

/*
 * Who maps the file sees the page in which it ends as a whole: zeros behind
 * the end.  Shared, it is copied; our own waits for the commit.
 */
static int copy_tail(struct change *c, uint64_t size)
{
	uint64_t index = page_of(size);
	struct tree_run run;
	struct tree_ext ext;
	int ret = direct_file(c->ip) ? tail_run(c->ip, size, &run) : -ENOENT;

	if (ret || run.type != SLOT_DATA || run.exclusive)
		return ret == -ENOENT ? 0 : ret;
	ret = take_pages(c, index, 1, &ext);
	if (ret)
		return ret;
	pmem_zero(c->fs->pm, ext.block << BLOCK_SHIFT, BLOCK_SIZE);
	pmem_copy(c->fs->pm, ext.block << BLOCK_SHIFT, run.block << BLOCK_SHIFT,
		  size & BLOCK_MASK);
	txn_direct(c->t);
	return add_ext(c, &ext);
}

void file_truncated(struct inode *ip)
{
	uint64_t size = inode_size(ip);
	struct tree_run run;

	if (direct_file(ip) && tail_run(ip, size, &run) == 0 &&
	    run.type == SLOT_DATA && run.exclusive)
		pmem_zero(ip->fs->pm,
			  (run.block << BLOCK_SHIFT) + (size & BLOCK_MASK),
			  BLOCK_SIZE - (size & BLOCK_MASK));
}

int file_truncate_locked(struct txn *t, struct inode *ip, uint64_t size,
			 int64_t *ret_pages)
{
	struct change c;
	struct tree_ext hole = { .index = page_up(size), .type = SLOT_HOLE };
	int ret;

	if (size > FOLIOFS_MAX_SIZE)
		return -EFBIG;
	change_init(&c, ip, t, size, 0);
	if (size > c.old_size) {
		ret = zero_tail(&c, false);
	} else {
		/* Also at the same size: what fallocate left behind goes. */
		hole.nr = FOLIOFS_MAX_PAGES - hole.index;
		ret = size < c.old_size ? copy_tail(&c, size) : 0;
		if (!ret && hole.nr)
			ret = add_ext(&c, &hole);
	}
	if (!ret)
		ret = apply(&c);
	if (!ret && size != c.old_size)
		inode_set(t, ip, INODE_SIZE, size);
	*ret_pages = c.pages;
	change_free(&c);
	return ret;
}

/* Unwritten blocks for the holes of [index, end). */
static int plan_allocate(struct change *c, uint64_t index, uint64_t end)
{
	struct tree_run run;
	struct tree_ext ext;
	int ret;

	while (index < end) {
		ret = lookup(c->ip, index, end - index, false, &run);
		if (ret)
			return ret;
		if (run.type == SLOT_HOLE) {
			ret = take_pages(c, index, run.nr, &ext);
			if (ret)
				return ret;
			ext.type = SLOT_UNWRITTEN;
			run.nr = ext.nr;
			ret = add_ext(c, &ext);
			if (ret)
				return ret;
		}
		index += run.nr;
	}
	return 0;
}

/* Whole pages [index, end) become unwritten, keeping their blocks. */
static int plan_unwritten(struct change *c, uint64_t index, uint64_t end)
{
	struct tree_run run;
	struct tree_ext ext;
	int ret;

	while (index < end) {
		ret = lookup(c->ip, index, end - index, true, &run);
		if (ret)
			return ret;
		if (run.type == SLOT_HOLE || !run.exclusive) {
			ret = take_pages(c, index, run.nr, &ext);
			if (ret)
				return ret;
			ext.type = SLOT_UNWRITTEN;
			ret = add_ext(c, &ext);
		} else {
			ext = (struct tree_ext){ .index = index,
						 .nr = run.nr,
						 .block = run.block,
						 .type = SLOT_UNWRITTEN,
						 .reuse = true };
			ret = run.type == SLOT_UNWRITTEN ? 0 : add_ext(c, &ext);
		}
		if (ret)
			return ret;
		index += ext.nr;
	}
	return 0;
}

/* Blocks of its own for every page of [index, end) that has a shared one. */
static int plan_unshare(struct change *c, uint64_t index, uint64_t end)
{
	struct tree_run run;
	struct tree_ext ext;
	int ret = 0;

	for (; !ret && index < end; index += ext.nr) {
		ret = lookup(c->ip, index, end - index, true, &run);
		ext.nr = run.nr;
		if (ret || run.type == SLOT_HOLE || run.exclusive)
			continue;
		ret = take_pages(c, index, run.nr, &ext);
		if (ret)
			break;
		ext.type = run.type;
		if (run.type == SLOT_DATA)
			pmem_copy(c->fs->pm, ext.block << BLOCK_SHIFT,
				  run.block << BLOCK_SHIFT,
				  ext.nr << BLOCK_SHIFT);
		ret = add_ext(c, &ext);
	}
	return ret;
}

/*
 * Zeros in part of a page.  A copy of the page, so that the request stays
 * atomic.  Where there is no data it reads as zeros already; @allocate wants
 * it to have a block all the same.
 */
static int plan_zero_part(struct change *c, uint64_t from, uint64_t to,
			  bool allocate)
{
	uint64_t index = page_of(from), start = index << BLOCK_SHIFT, off;
	struct tree_run run;
	struct tree_ext ext;
	int ret;

	if (from >= to)
		return 0;
	ret = lookup(c->ip, index, 1, false, &run);
	if (ret)
		return ret;
	if (run.type != SLOT_DATA)
		return allocate ? plan_allocate(c, index, index + 1) : 0;
	ret = take_pages(c, index, 1, &ext);
	if (ret)
		return ret;
	off = ext.block << BLOCK_SHIFT;
	put_old(c, off, run.block, start, from);
	pmem_zero(c->fs->pm, off + (from - start), to - from);
	put_old(c, off + (to - start), run.block, to, start + BLOCK_SIZE);
	return add_ext(c, &ext);
}

/* Punch (hole) or zero (unwritten) [pos, pos + len). */
static int plan_zero(struct change *c, bool hole)
{
	uint64_t pos = c->pos, end = pos + c->len;
	uint64_t first = page_up(pos), last = page_of(end);
	struct tree_ext ext = { .index = first, .type = SLOT_HOLE };
	int ret;

	if (first > last) /* inside one page */
		return plan_zero_part(c, pos, end, !hole);
	ret = plan_zero_part(c, pos, first << BLOCK_SHIFT, !hole);
	if (!ret && first < last) {
		ext.nr = last - first;
		ret = hole ? add_ext(c, &ext) : plan_unwritten(c, first, last);
	}
	if (!ret)
		ret = plan_zero_part(c, last << BLOCK_SHIFT, end, !hole);
	return ret;
}

static int plan_fallocate(struct change *c, int mode)
{
	uint64_t end = c->pos + c->len;
	int ret = 0;

	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > c->old_size)
		ret = zero_tail(c, mode & FALLOC_FL_ZERO_RANGE);
	if (ret)
		return ret;
	if (mode & FALLOC_FL_PUNCH_HOLE)
		return plan_zero(c, true);
	if (mode & FALLOC_FL_ZERO_RANGE)
		return plan_zero(c, false);
	if (mode & FALLOC_FL_UNSHARE_RANGE)
		return plan_unshare(c, page_of(c->pos),
				    min64(page_up(end), page_up(c->old_size)));
	return plan_allocate(c, page_of(c->pos), page_up(end));
}

static int may_fallocate(const struct inode *ip, int mode, uint64_t pos,
			 uint64_t len)
{
	uint32_t flags = inode_flags(ip);
	bool punch = mode & FALLOC_FL_PUNCH_HOLE;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE |
		     FALLOC_FL_ZERO_RANGE | FALLOC_FL_UNSHARE_RANGE))
		return -EOPNOTSUPP;
	if ((mode & FALLOC_FL_UNSHARE_RANGE) &&
	    mode != (FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (punch &&
	    (!(mode & FALLOC_FL_KEEP_SIZE) || (mode & FALLOC_FL_ZERO_RANGE)))
		return -EOPNOTSUPP;
	if (len == 0)
		return -EINVAL;
	if (!S_ISREG(inode_mode(ip)))
		return S_ISDIR(inode_mode(ip)) ? -EISDIR : -ENODEV;
	if (flags & FOLIOFS_FL_IMMUTABLE)
		return -EPERM;
	if ((flags & FOLIOFS_FL_APPEND) && (mode & ~FALLOC_FL_KEEP_SIZE))
		return -EPERM;
	if (len > FOLIOFS_MAX_SIZE || pos > FOLIOFS_MAX_SIZE - len)
		return -EFBIG;
	return 0;
}

static const char *fallocate_name(int mode)
{
	if (mode & FALLOC_FL_PUNCH_HOLE)
		return "punch";
	if (mode & FALLOC_FL_ZERO_RANGE)
		return "zero";
	return mode & FALLOC_FL_UNSHARE_RANGE ? "unshare" : "allocate";
}

/* The pages of a punched hole go; what is cut at its ends is zeroed. */
static int begin_fallocate(struct inode *ip, int mode, uint64_t pos,
			   uint64_t len) __must_hold(ip->rwsem)
{
	uint64_t start = (pos + BLOCK_MASK) & ~BLOCK_MASK;
	uint64_t end = (pos + len) & ~BLOCK_MASK;

	if (!(mode & FALLOC_FL_PUNCH_HOLE))
		return layout_begin(ip, fallocate_name(mode));
	return layout_begin_drop(ip, "punch", end ? start : 1,
				 end ? end - 1 : 0);
}

int file_fallocate(struct inode *ip, int mode, uint64_t pos, uint64_t len,
		   unsigned int flags)
{
	uint64_t size, new_size;
	struct change c;
	struct txn t;
	int ret;

	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	ret = may_fallocate(ip, mode, pos, len);
	if (ret)
		goto unlock;
	ret = begin_fallocate(ip, mode, pos, len);
	if (ret)
		goto unlock;
	size = new_size = inode_size(ip);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && pos + len > size)
		new_size = pos + len;
	txn_begin(ip->fs, &t);
	if (mode & FALLOC_FL_PUNCH_HOLE)
		t.alloc_flags = ALLOC_EMERGENCY;
	change_init(&c, ip, &t, pos, len);
	ret = plan_fallocate(&c, mode);
	if (!ret)
		ret = apply(&c);
	if (ret)
		txn_abort(&t);
	else
		ret = commit(&c, new_size, flags);
	change_free(&c);
	layout_end(ip);
unlock:
	rwsem_up_write(&ip->rwsem);
	return ret;
}

int file_seek(struct inode *ip, uint64_t pos, bool data, uint64_t *ret_pos)
{
	uint64_t size, index, found;
	int ret = 0;

	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	size = inode_size(ip);
	index = page_of(pos);
	if (pos >= size)
		ret = -ENXIO;
	tree_down_read(ip);
	if (!ret)
		ret = tree_seek(ip->fs, inode_data(ip), index, page_up(size),
				data, &found);
	tree_up_read(ip);
	rwsem_up_read(&ip->rwsem);
	if (ret == -EUCLEAN)
		return bad_file(ip, index);
	if (ret)
		return ret;
	if (data && found >= page_up(size))
		return -ENXIO;
	found = found == index ? pos : found << BLOCK_SHIFT;
	*ret_pos = min64(found, size);
	return 0;
}

static void lock_pair(struct inode *a, struct inode *b) __no_lock_analysis
{
	struct inode *first = a->ino < b->ino ? a : b;

	rwsem_down_write(&first->rwsem, LOCK_INODE);
	if (a != b)
		rwsem_down_write(first == a ? &b->rwsem : &a->rwsem,
				 LOCK_INODE2);
}

static void unlock_pair(struct inode *a, struct inode *b) __no_lock_analysis
{
	rwsem_up_write(&a->rwsem);
	if (a != b)
		rwsem_up_write(&b->rwsem);
}

static int may_copy(const struct inode *in, uint64_t pos_in,
		    const struct inode *out, uint64_t pos_out, uint64_t len)
{
	if (S_ISDIR(inode_mode(in)) || S_ISDIR(inode_mode(out)))
		return -EISDIR;
	if (!S_ISREG(inode_mode(in)))
		return -EINVAL;
	if (in == out && pos_in < pos_out + len && pos_out < pos_in + len)
		return -EINVAL;
	return may_write(out, pos_out, len, 0);
}

/* Both files give their layouts up first: a pin may be for storing. */
static int share_locked(const struct source *src, struct inode *out,
			uint64_t pos, uint64_t len, unsigned int flags,
			const char *op)
{
	int ret = layout_begin_pair(src->in, out, op);

	if (!ret) {
		ret = write_locked(out, src, pos, len, flags);
		layout_end_pair(src->in, out);
	}
	return ret;
}

static int copy_locked(const struct source *src, struct inode *out,
		       uint64_t pos, uint64_t *len, unsigned int flags)
{
	int ret;

	*len = min64(*len, COPY_MAX);
	layout_copy(src->in, out);
	ret = write_locked(out, src, pos, *len, flags);
	layout_copy_end(src->in, out);
	return ret;
}

int file_copy(struct inode *in, uint64_t pos_in, struct inode *out,
	      uint64_t pos_out, uint64_t len, unsigned int flags,
	      uint64_t *ret_len)
{
	struct source src = { .in = in, .in_pos = pos_in };
	uint64_t size;
	int ret = 0;

	*ret_len = 0;
	lock_pair(in, out);
	size = inode_size(in);
	if (pos_in >= size)
		goto unlock;
	len = min64(len, size - pos_in);
	ret = may_copy(in, pos_in, out, pos_out, len);
	if (!ret && len && aligned_alike(&src, pos_out))
		ret = share_locked(&src, out, pos_out, len, flags, "copy");
	else if (!ret && len)
		ret = copy_locked(&src, out, pos_out, &len, flags);
	if (!ret)
		*ret_len = len;
unlock:
	unlock_pair(in, out);
	return ret;
}

/* What clone and dedupe refuse, with the errors of XFS. */
static int may_remap(const struct inode *in, uint64_t pos_in,
		     const struct inode *out, uint64_t pos_out, uint64_t *len,
		     bool dedupe)
{
	uint64_t size_in = inode_size(in), size_out = inode_size(out), end;

	if (inode_flags(out) & FOLIOFS_FL_IMMUTABLE)
		return -EPERM;
	if (S_ISDIR(inode_mode(in)) || S_ISDIR(inode_mode(out)))
		return -EISDIR;
	if (!S_ISREG(inode_mode(in)) || !S_ISREG(inode_mode(out)))
		return -EINVAL;
	/* This is looked at even for no bytes at all, and then nothing else. */
	if (dedupe && (pos_in > size_in || *len > size_in - pos_in))
		return -EINVAL;
	if (dedupe && *len == 0)
		return 0;
	if (*len == 0 && pos_in < size_in)
		*len = size_in - pos_in;
	if ((pos_in | pos_out) & BLOCK_MASK || pos_in > FOLIOFS_MAX_SIZE ||
	    *len > FOLIOFS_MAX_SIZE - pos_in)
		return -EINVAL;
	if (*len == 0 && pos_in == size_in)
		return 0;
	if (pos_in >= size_in || *len > size_in - pos_in)
		return -EINVAL;
	if (pos_out > INT64_MAX || *len > INT64_MAX - pos_out)
		return -EINVAL;
	if (pos_out > FOLIOFS_MAX_SIZE || *len > FOLIOFS_MAX_SIZE - pos_out)
		return dedupe ? -EINVAL : -EFBIG;
	end = pos_out + *len;
	if (dedupe && end > size_out)
		return -EINVAL;
	/* Part of a block only where both files end; a dedupe leaves it out. */
	if (*len & BLOCK_MASK && (pos_in + *len != size_in || end < size_out)) {
		if (!dedupe)
			return -EINVAL;
		*len &= ~BLOCK_MASK;
		end = pos_out + *len;
	}
	if (in == out && page_of(pos_in) < page_up(end) &&
	    page_of(pos_out) < page_up(pos_in + *len))
		return -EINVAL;
	return 0;
}

int file_clone(struct inode *in, uint64_t pos_in, struct inode *out,
	       uint64_t pos_out, uint64_t len, unsigned int flags)
{
	struct source src = { .in = in, .in_pos = pos_in };
	int ret;

	lock_pair(in, out);
	ret = may_remap(in, pos_in, out, pos_out, &len, false);
	if (!ret && len)
		ret = share_locked(&src, out, pos_out, len, flags, "clone");
	unlock_pair(in, out);
	return ret;
}

/* A run of bytes that lie together, or of zeros. */
static int bytes_at(struct inode *ip, uint64_t pos, uint64_t max,
		    const unsigned char **ret_p, uint64_t *ret_nr)
{
	struct tree_run run;
	int ret;

	ret = lookup(ip, page_of(pos), page_up(pos + max) - page_of(pos), false,
		     &run);
	if (ret)
		return ret;
	*ret_nr = min64((run.nr << BLOCK_SHIFT) - (pos & BLOCK_MASK), max);
	*ret_p = zeros;
	if (run.type == SLOT_DATA)
		*ret_p = (const unsigned char *)pmem_at(
			ip->fs->pm,
			(run.block << BLOCK_SHIFT) + (pos & BLOCK_MASK));
	else
		*ret_nr = min64(*ret_nr, sizeof(zeros));
	return 0;
}

static int compare(struct inode *in, uint64_t pos_in, struct inode *out,
		   uint64_t pos_out, uint64_t len, bool *ret_same)
{
	const unsigned char *a, *b;
	uint64_t nr_a, nr_b;
	int ret;

	for (*ret_same = true; len && *ret_same; len -= nr_a) {
		ret = bytes_at(in, pos_in, len, &a, &nr_a);
		if (!ret)
			ret = bytes_at(out, pos_out, len, &b, &nr_b);
		if (ret)
			return ret;
		nr_a = min64(nr_a, nr_b);
		*ret_same = a == b || memcmp(a, b, nr_a) == 0;
		pos_in += nr_a;
		pos_out += nr_a;
	}
	return pmem_fault_pending() ? -EIO : 0;
}

int file_dedupe(struct inode *in, uint64_t pos_in, struct inode *out,
		uint64_t pos_out, uint64_t len, bool *ret_same)
{
	struct source src = { .in = in, .in_pos = pos_in };
	int ret;

	*ret_same = true;
	lock_pair(in, out);
	ret = may_remap(in, pos_in, out, pos_out, &len, true);
	if (ret || len == 0)
		goto unlock;
	ret = layout_begin_pair(in, out, "dedupe");
	if (ret)
		goto unlock;
	ret = compare(in, pos_in, out, pos_out, len, ret_same);
	/* The contents stay, so do the times and privileges. */
	if (!ret && *ret_same)
		ret = write_locked(out, &src, pos_out, len, WRITE_SAME);
	layout_end_pair(in, out);
unlock:
	unlock_pair(in, out);
	return ret;
}

int file_map(struct inode *ip, uint64_t pos, unsigned int max,
	     struct file_extent *ret, unsigned int *ret_nr)
{
	uint64_t index = page_of(pos), end;
	struct tree_run run;
	unsigned int nr = 0;
	int err = 0;

	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	tree_down_read(ip);
	end = page_up(inode_size(ip));
	for (; !err && index < FOLIOFS_MAX_PAGES && nr < max; index += run.nr) {
		err = lookup(ip, index, FOLIOFS_MAX_PAGES - index, true, &run);
		if (err || run.type == SLOT_HOLE)
			continue;
		ret[nr++] = (struct file_extent){
			.pos = index << BLOCK_SHIFT,
			.off = run.block << BLOCK_SHIFT,
			.len = run.nr << BLOCK_SHIFT,
			.unwritten = run.type == SLOT_UNWRITTEN,
			.shared = !run.exclusive,
			.chunk = run.chunk,
			.behind = index >= end,
		};
	}
	tree_up_read(ip);
	rwsem_up_read(&ip->rwsem);
	*ret_nr = nr;
	return err;
}

void file_close(struct inode *ip)
{
	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	/* A fault of another client may take blocks from the chunk. */
	tree_down_write(ip);
	end_aside(ip);
	tree_up_write(ip);
	layout_settle_times(ip);
	rwsem_up_write(&ip->rwsem);
}
