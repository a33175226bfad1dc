/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/support/memfs.c - the filesystem half
 */
#include "tests/dax/support/memfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/dax/support/view.h"

static struct memfile *file_of(struct address_space *mapping)
{
	return mapping->host;
}

/* Blocks. */

static void on_idle(void *ctx, uint64_t pfn, uint64_t nr)
{
	struct memfs *fs = ctx;

	mutex_lock(&fs->lock);
	for (uint64_t i = pfn; i < pfn + nr; i++) {
		assert(fs->state[i] == BLOCK_DEFERRED);
		fs->state[i] = BLOCK_FREE;
		fs->nr_used--;
	}
	fs->nr_idle_calls++;
	mutex_unlock(&fs->lock);
}

static const struct folio_table_ops folio_ops = { .idle = on_idle };

/* Under fs->lock. */
static void block_put(struct memfs *fs, uint32_t pfn)
{
	assert(fs->nr_slots[pfn] > 0);
	if (--fs->nr_slots[pfn])
		return;
	assert(fs->state[pfn] == BLOCK_USED);
	fs->state[pfn] = BLOCK_DEFERRED;
	if (fs->release_early || folio_release(fs->dev->folios, pfn)) {
		fs->state[pfn] = BLOCK_FREE;
		fs->nr_used--;
	}
}

/* A run of @nr free blocks, aligned to @nr; 0 when there is none. */
static uint32_t block_take(struct memfs *fs, uint32_t nr)
{
	uint64_t start = (fs->next + nr - 1) / nr * nr;

	for (uint64_t tries = 0; tries < 2 * fs->nr_blocks / nr; tries++) {
		uint64_t i = 0;

		if (start == 0 || start + nr > fs->nr_blocks)
			start = nr; /* block 0 means a hole */
		while (i < nr && fs->state[start + i] == BLOCK_FREE)
			i++;
		if (i == nr) {
			for (i = 0; i < nr; i++) {
				fs->state[start + i] = BLOCK_USED;
				fs->nr_slots[start + i] = 1;
			}
			fs->nr_used += nr;
			fs->next = start + nr;
			return (uint32_t)start;
		}
		start += nr;
	}
	return 0;
}

static bool is_shared(const struct memfs *fs, const struct slot *s)
{
	return s->pfn && fs->nr_slots[s->pfn] > 1;
}

/* iomap. */

static enum iomap_type slot_type(const struct slot *s)
{
	if (!s->pfn)
		return IOMAP_HOLE;
	return s->unwritten ? IOMAP_UNWRITTEN : IOMAP_MAPPED;
}

/* Pages from @index on, at most @max, that one iomap can describe. */
static uint64_t run_length(struct memfile *file, uint64_t index, uint64_t max)
{
	const struct slot *s = &file->slots[index];
	uint64_t nr = 1;

	while (nr < max && index + nr < FILE_PAGES) {
		const struct slot *n = &s[nr];

		if (slot_type(n) != slot_type(s) ||
		    is_shared(file->fs, n) != is_shared(file->fs, s) ||
		    (s->pfn && n->pfn != s->pfn + nr))
			break;
		nr++;
	}
	return nr;
}

static void fill_iomap(struct iomap *iomap, uint64_t index, uint64_t nr,
		       uint32_t pfn, enum iomap_type type)
{
	iomap->offset = index << BLOCK_SHIFT;
	iomap->length = nr << BLOCK_SHIFT;
	iomap->addr = pfn ? (uint64_t)pfn << BLOCK_SHIFT : IOMAP_NULL_ADDR;
	iomap->type = type;
}

/* Blocks for [index, index + nr), of which none has any. */
static int allocate(struct memfile *file, uint64_t index, uint64_t nr)
{
	struct memfs *fs = file->fs;
	uint32_t pfn = block_take(fs, (uint32_t)nr);

	if (!pfn)
		return -ENOSPC;
	pmem_zero(fs->pm, (uint64_t)pfn << BLOCK_SHIFT, nr << BLOCK_SHIFT);
	for (uint64_t i = 0; i < nr; i++)
		file->slots[index + i] =
			(struct slot){ .pfn = pfn + (uint32_t)i };
	return 0;
}

/* How much at once: 2 MiB if that was asked for and @nr has it. */
static uint64_t unit_of(struct memfile *file, uint64_t index, uint64_t length,
			uint64_t nr)
{
	bool huge = file->fs->huge && index % FOLIO_PAGES == 0 &&
		    length >= CHUNK_SIZE && nr >= FOLIO_PAGES;

	return huge ? FOLIO_PAGES : 1;
}

/* A private block for a shared one. */
static int stage(struct memfile *file, uint64_t index, uint64_t nr,
		 struct iomap *iomap, struct iomap *srcmap)
{
	struct memfs *fs = file->fs;
	struct slot *s = &file->slots[index];
	uint32_t pfn = block_take(fs, (uint32_t)nr);

	if (!pfn)
		return -ENOSPC;
	for (uint64_t i = 0; i < nr; i++)
		s[i].staging = pfn + (uint32_t)i;
	fill_iomap(iomap, index, nr, pfn, IOMAP_MAPPED);
	iomap->flags |= IOMAP_F_SHARED;
	if (fs->src == IOMAP_MAPPED)
		fill_iomap(srcmap, index, nr, s->pfn, IOMAP_MAPPED);
	else if (fs->src == IOMAP_UNWRITTEN)
		fill_iomap(srcmap, index, nr, s->pfn, IOMAP_UNWRITTEN);
	return 0;
}

static int begin_write(struct memfile *file, uint64_t index, uint64_t length,
		       unsigned int flags, struct iomap *iomap,
		       struct iomap *srcmap)
{
	struct slot *s = &file->slots[index];
	uint64_t nr = run_length(file, index, FOLIO_PAGES);
	int ret;

	nr = unit_of(file, index, length, nr);
	if (is_shared(file->fs, s) && !file->fs->hide_shared)
		return stage(file, index, nr, iomap, srcmap);
	if (slot_type(s) != IOMAP_MAPPED) {
		if ((flags & (IOMAP_ZERO | IOMAP_UNSHARE)) ||
		    file->fs->write_hole) {
			nr = run_length(file, index, length >> BLOCK_SHIFT);
			fill_iomap(iomap, index, nr, s->pfn, slot_type(s));
			return 0;
		}
		if (s->pfn) {
			pmem_zero(file->fs->pm, (uint64_t)s->pfn << BLOCK_SHIFT,
				  BLOCK_SIZE);
			s->unwritten = false;
			nr = 1;
		} else {
			ret = allocate(file, index, nr);
			if (ret)
				return ret;
		}
		iomap->flags |= IOMAP_F_NEW;
	} else {
		nr = run_length(file, index, length >> BLOCK_SHIFT);
	}
	fill_iomap(iomap, index, nr, s->pfn, IOMAP_MAPPED);
	return 0;
}

static int memfs_begin(struct address_space *mapping, uint64_t pos,
		       uint64_t length, unsigned int flags, struct iomap *iomap,
		       struct iomap *srcmap)
{
	struct memfile *file = file_of(mapping);
	struct memfs *fs = file->fs;
	uint64_t index = pos >> BLOCK_SHIFT;
	const struct slot *s = &file->slots[index];
	int ret = 0;

	if (fs->on_begin)
		fs->on_begin(file, pos);
	if (fs->fail_begin)
		return fs->fail_begin;
	assert(index < FILE_PAGES);
	mutex_lock(&fs->lock);
	if (flags & IOMAP_WRITE) {
		ret = begin_write(file, index, length, flags, iomap, srcmap);
	} else {
		fill_iomap(iomap, index,
			   run_length(file, index,
				      ((pos + length + BLOCK_MASK) >>
				       BLOCK_SHIFT) -
					      index),
			   s->pfn, slot_type(s));
		if (is_shared(fs, s) && !fs->hide_shared)
			iomap->flags |= IOMAP_F_SHARED;
	}
	if (fs->metadata_dirty)
		iomap->flags |= IOMAP_F_DIRTY;
	mutex_unlock(&fs->lock);
	return ret;
}

/* Make staging blocks the file's, or give them back. */
static void settle_staging(struct memfile *file, uint64_t first, uint64_t last,
			   bool commit)
{
	for (uint64_t i = first; i <= last; i++) {
		struct slot *s = &file->slots[i];
		uint32_t staging = s->staging;

		s->staging = 0;
		if (!staging)
			continue;
		if (commit) {
			block_put(file->fs, s->pfn);
			s->pfn = staging;
			s->unwritten = false;
		} else {
			block_put(file->fs, staging);
		}
	}
}

static int memfs_end(struct address_space *mapping, uint64_t pos,
		     uint64_t length, uint64_t written, unsigned int flags,
		     struct iomap *iomap)
{
	struct memfile *file = file_of(mapping);
	struct memfs *fs = file->fs;
	uint64_t first = pos >> BLOCK_SHIFT;
	uint64_t last = (pos + (length ? length - 1 : 0)) >> BLOCK_SHIFT;
	bool commit = written > 0;
	int ret = 0;

	if (!(flags & IOMAP_WRITE))
		return 0;
	if (commit && fs->fail_commit) {
		ret = fs->fail_commit;
		commit = false;
	} else if (!commit && fs->fail_cancel) {
		ret = fs->fail_cancel;
	}
	if (iomap->length &&
	    last > (iomap->offset + iomap->length - 1) >> BLOCK_SHIFT)
		last = (iomap->offset + iomap->length - 1) >> BLOCK_SHIFT;
	pmem_fence(fs->pm);
	/* Of a commit that failed: only dax/ can take its entry back. */
	mutex_lock(&fs->lock);
	if (ret && written > 0) {
		for (uint64_t i = first; i <= last; i++)
			file->slots[i].staging = 0; /* leaks, as after -EIO */
	} else {
		settle_staging(file, first, last, commit);
	}
	mutex_unlock(&fs->lock);
	return ret;
}

const struct iomap_ops memfs_iomap_ops = {
	.begin = memfs_begin,
	.end = memfs_end,
};

/* What dax/ asks of a file. */

static uint64_t memfs_size(struct address_space *mapping)
{
	return atomic_load(&file_of(mapping)->size);
}

static int memfs_fsync_range(struct address_space *mapping, uint64_t pos,
			     uint64_t len)
{
	struct memfile *file = file_of(mapping);

	if (file->fs->on_fsync)
		file->fs->on_fsync(file);
	if (file->fs->fail_fsync)
		return file->fs->fail_fsync;
	return dax_writeback_mapping_range(mapping, pos, pos + len - 1,
					   DAX_WB_ALL);
}

static void memfs_mark_dirty(struct address_space *mapping)
{
	__atomic_fetch_add(&file_of(mapping)->nr_dirtied, 1, __ATOMIC_RELAXED);
}

static const struct dax_mapping_ops mapping_ops = {
	.size = memfs_size,
	.fsync = memfs_fsync_range,
	.mark_dirty = memfs_mark_dirty,
};

static struct memfs *the_fs; /* direct access has no context of its own */

static int64_t memfs_direct_access(struct dax_device *dev, uint64_t off,
				   uint64_t len, uint64_t *ret_pfn)
{
	struct memfs *fs = the_fs;

	(void)dev;
	*ret_pfn = (off >> BLOCK_SHIFT) + (uint64_t)fs->shift_access;
	return fs->short_access ? fs->short_access : (int64_t)len;
}

static const struct dax_device_ops device_ops = {
	.direct_access = memfs_direct_access,
};

/* A page is lost: reverse mapping by looking at every slot. */
static int memfs_notify_failure(void *holder, uint64_t off, uint64_t len,
				unsigned int flags)
{
	struct memfs *fs = holder;
	uint64_t pfn = off >> BLOCK_SHIFT, end = (off + len) >> BLOCK_SHIFT;

	(void)flags;
	if (pfn <= fs->metadata_pfn && fs->metadata_pfn < end) {
		fs->shut_down = true;
		return 0;
	}
	for (struct memfile *f = fs->files; f; f = f->next)
		for (uint64_t i = 0; i < FILE_PAGES; i++)
			if (f->slots[i].pfn >= pfn && f->slots[i].pfn < end)
				dax_kill_owners(&f->mapping, i, 1);
	return 0;
}

const struct dax_holder_ops memfs_holder_ops = {
	.notify_failure = memfs_notify_failure,
};

/* Life of a filesystem. */

struct memfs *memfs_create(void)
{
	struct memfs *fs = calloc(1, sizeof(*fs));
	char path[64];
	int fd, ret;

	snprintf(path, sizeof(path), "/dev/shm/dax-test-XXXXXX");
	fd = mkstemp(path);
	assert(fs && fd >= 0);
	ret = ftruncate(fd, (off_t)(MEMFS_PAGES * BLOCK_SIZE));
	assert(ret == 0);
	fs->fd = fd;
	ret = pmem_open(path, PMEM_READ_WRITE, PMEM_GRANULARITY_AUTO, &fs->pm,
			NULL);
	unlink(path);
	assert(ret == 0);
	ret = dax_device_create(fs->pm, &folio_ops, fs, &fs->dev);
	assert(ret == 0);
	(void)ret;
	fs->nr_blocks = MEMFS_PAGES;
	fs->nr_slots = calloc(MEMFS_PAGES, sizeof(*fs->nr_slots));
	fs->state = calloc(MEMFS_PAGES, 1);
	mutex_init(&fs->lock, LOCK_ALLOC);
	mutex_init(&fs->mmu, LOCK_FOLIO_MAP);
	fs->next_ino = 1;
	fs->src = IOMAP_MAPPED;
	fs->dev->ops = &device_ops;
	the_fs = fs;
	return fs;
}

void memfs_destroy(struct memfs *fs)
{
	while (fs->files)
		file_evict(fs->files);
	for (uint64_t i = 0; i < fs->nr_blocks; i++) {
		const struct folio *page = &fs->dev->folios->folios[i];

		assert(folio_is_free(page) && folio_order(page) == 0);
		assert(dax_folio_is_idle(page));
		(void)page;
	}
	dax_device_destroy(fs->dev);
	pmem_close(fs->pm);
	close(fs->fd);
	mutex_destroy(&fs->lock);
	mutex_destroy(&fs->mmu);
	free(fs->nr_slots);
	free(fs->state);
	free(fs);
}

/* Life of a file. */

struct memfile *file_create(struct memfs *fs, uint64_t nr_pages)
{
	struct memfile *file = calloc(1, sizeof(*file));

	assert(file && nr_pages <= FILE_PAGES);
	file->fs = fs;
	file->slots = calloc(FILE_PAGES, sizeof(*file->slots));
	atomic_store(&file->size, nr_pages << BLOCK_SHIFT);
	rwsem_init(&file->i_rwsem);
	mapping_init(&file->mapping, fs->dev, &mapping_ops, &view_mapper_ops,
		     fs->next_ino++, file);
	file->dax_flag = file->mapping.dax;
	file->next = fs->files;
	fs->files = file;
	return file;
}

void file_set_dax(struct memfile *file, bool dax)
{
	rwsem_down_write(&file->i_rwsem, LOCK_INODE);
	file->dax_flag = dax;
	rwsem_up_write(&file->i_rwsem);
}

void file_reload(struct memfile *file)
{
	uint64_t ino = file->mapping.ino;

	assert(!file->views);
	dax_break_layout_final(&file->mapping);
	mapping_truncate(&file->mapping, 0);
	mapping_destroy(&file->mapping);
	mapping_init(&file->mapping, file->fs->dev, &mapping_ops,
		     &view_mapper_ops, ino, file);
	file->mapping.dax = file->dax_flag;
}

static void drop_blocks(struct memfile *file, uint64_t first, uint64_t nr)
{
	mutex_lock(&file->fs->lock);
	for (uint64_t i = first; i < first + nr; i++) {
		if (file->slots[i].pfn)
			block_put(file->fs, file->slots[i].pfn);
		file->slots[i] = (struct slot){ .pfn = 0 };
	}
	mutex_unlock(&file->fs->lock);
}

void file_evict(struct memfile *file)
{
	struct memfs *fs = file->fs;

	/* Without the final break whoever maps it is still there. */
	if (!file->skip_final)
		dax_break_layout_final(&file->mapping);
	mapping_truncate(&file->mapping, 0);
	drop_blocks(file, 0, FILE_PAGES);
	while (file->views)
		view_close(file->views);
	for (struct memfile **p = &fs->files; *p; p = &(*p)->next) {
		if (*p == file) {
			*p = file->next;
			break;
		}
	}
	mapping_destroy(&file->mapping);
	rwsem_destroy(&file->i_rwsem);
	free(file->slots);
	free(file);
}

static uint32_t fill(struct memfile *file, uint64_t index, uint64_t nr,
		     unsigned char byte)
{
	unsigned char page[BLOCK_SIZE];
	uint32_t pfn;

	memset(page, byte, sizeof(page));
	mutex_lock(&file->fs->lock);
	allocate(file, index, nr);
	pfn = file->slots[index].pfn;
	for (uint64_t i = 0; i < nr; i++) {
		file->slots[index + i].unwritten = byte == 0;
		pmem_write(file->fs->pm, (pfn + i) << BLOCK_SHIFT, page,
			   sizeof(page));
	}
	pmem_fence(file->fs->pm);
	mutex_unlock(&file->fs->lock);
	return pfn;
}

uint32_t file_fill(struct memfile *file, uint64_t index, unsigned char byte)
{
	return fill(file, index, 1, byte);
}

uint32_t file_fill_huge(struct memfile *file, uint64_t index,
			unsigned char byte)
{
	return fill(file, index, FOLIO_PAGES, byte);
}

void file_share_raw(struct memfile *src, uint64_t from, struct memfile *dst,
		    uint64_t to)
{
	struct memfs *fs = src->fs;

	mutex_lock(&fs->lock);
	fs->nr_slots[src->slots[from].pfn]++;
	if (dst->slots[to].pfn)
		block_put(fs, dst->slots[to].pfn);
	dst->slots[to] =
		(struct slot){ .pfn = src->slots[from].pfn,
			       .unwritten = src->slots[from].unwritten };
	mutex_unlock(&fs->lock);
}

uint32_t file_pfn(struct memfile *file, uint64_t index)
{
	uint32_t pfn;

	mutex_lock(&file->fs->lock);
	pfn = file->slots[index].pfn;
	mutex_unlock(&file->fs->lock);
	return pfn;
}

/* Operations. */

static void unlock_invalidate(struct dax_break *brk) __no_lock_analysis
{
	struct file_break *fb = (struct file_break *)brk;

	rwsem_up_write(&fb->file->mapping.invalidate_lock);
	atomic_fetch_add(&fb->nr_unlocks, 1);
}

static void lock_invalidate(struct dax_break *brk) __no_lock_analysis
{
	struct file_break *fb = (struct file_break *)brk;

	rwsem_down_write(&fb->file->mapping.invalidate_lock, LOCK_INVALIDATE);
}

void file_break_init(struct file_break *fb, struct memfile *file,
		     struct dax_task *task)
{
	*fb = (struct file_break){
		.brk = { .unlock = unlock_invalidate,
			 .lock = lock_invalidate,
			 .task = task },
		.file = file,
	};
}

static int
with_layout_broken(struct memfile *file, bool wait, struct dax_task *task,
		   void (*op)(struct memfile *file, uint64_t a, uint64_t b),
		   uint64_t a, uint64_t b)
{
	struct file_break fb;
	int ret;

	file_break_init(&fb, file, task);
	rwsem_down_write(&file->i_rwsem, LOCK_INODE);
	rwsem_down_write(&file->mapping.invalidate_lock, LOCK_INVALIDATE);
	ret = dax_break_layout_inode(&file->mapping, wait ? &fb.brk : NULL);
	if (!ret)
		op(file, a, b);
	rwsem_up_write(&file->mapping.invalidate_lock);
	rwsem_up_write(&file->i_rwsem);
	return ret;
}

static void do_truncate(struct memfile *file, uint64_t nr_pages, uint64_t b)
{
	(void)b;
	mapping_truncate(&file->mapping, nr_pages);
	drop_blocks(file, nr_pages, FILE_PAGES - nr_pages);
	atomic_store(&file->size, nr_pages << BLOCK_SHIFT);
}

int file_truncate(struct memfile *file, uint64_t nr_pages, bool wait,
		  struct dax_task *task)
{
	return with_layout_broken(file, wait, task, do_truncate, nr_pages, 0);
}

int file_punch(struct memfile *file, uint64_t first, uint64_t nr, bool wait,
	       struct dax_task *task)
{
	return with_layout_broken(file, wait, task, drop_blocks, first, nr);
}

static void do_zero(struct memfile *file, uint64_t first, uint64_t nr)
{
	drop_blocks(file, first, nr);
}

/* Take [first, first + nr) out; what follows moves down. */
static void do_collapse(struct memfile *file, uint64_t first, uint64_t nr)
{
	drop_blocks(file, first, nr);
	memmove(&file->slots[first], &file->slots[first + nr],
		(FILE_PAGES - first - nr) * sizeof(*file->slots));
	memset(&file->slots[FILE_PAGES - nr], 0, nr * sizeof(*file->slots));
	atomic_fetch_sub(&file->size, nr << BLOCK_SHIFT);
}

/* What is at @first and behind moves up; the file has room. */
static void do_insert(struct memfile *file, uint64_t first, uint64_t nr)
{
	memmove(&file->slots[first + nr], &file->slots[first],
		(FILE_PAGES - first - nr) * sizeof(*file->slots));
	memset(&file->slots[first], 0, nr * sizeof(*file->slots));
	atomic_fetch_add(&file->size, nr << BLOCK_SHIFT);
}

int file_fallocate(struct memfile *file, enum file_mode mode, uint64_t first,
		   uint64_t nr, bool wait, struct dax_task *task)
{
	switch (mode) {
	case FILE_PUNCH:
		return file_punch(file, first, nr, wait, task);
	case FILE_ZERO:
		return with_layout_broken(file, wait, task, do_zero, first, nr);
	case FILE_COLLAPSE:
		/* H7: what moves keeps its data. */
		file_fsync(file);
		return with_layout_broken(file, wait, task, do_collapse, first,
					  nr);
	case FILE_INSERT:
		file_fsync(file);
		return with_layout_broken(file, wait, task, do_insert, first,
					  nr);
	default:
		return -EINVAL;
	}
}

static void lock_two(struct memfile **f1, struct memfile **f2)
	__no_lock_analysis
{
	if ((*f1)->mapping.ino > (*f2)->mapping.ino) {
		struct memfile *f = *f1;

		*f1 = *f2;
		*f2 = f;
	}
	rwsem_down_write(&(*f1)->i_rwsem, LOCK_INODE);
	if (*f1 != *f2)
		rwsem_down_write(&(*f2)->i_rwsem, LOCK_INODE2);
}

static int refuse(struct dax_break *brk, struct address_space *mapping,
		  struct folio *folio, uint64_t index)
{
	(void)brk;
	(void)mapping;
	(void)folio;
	(void)index;
	return -EAGAIN;
}

static void do_reflink(struct memfile *src, struct memfile *dst)
{
	if (src == dst)
		return;
	drop_blocks(dst, 0, FILE_PAGES);
	for (uint64_t i = 0; i < FILE_PAGES; i++)
		if (src->slots[i].pfn)
			file_share_raw(src, i, dst, i);
	atomic_store(&dst->size, atomic_load(&src->size));
}

static void do_exchange(struct memfile *a, struct memfile *b)
{
	struct slot *slots = a->slots;
	uint64_t size = atomic_load(&a->size);

	a->slots = b->slots;
	b->slots = slots;
	atomic_store(&a->size, atomic_load(&b->size));
	atomic_store(&b->size, size);
}

static int with_two_broken(struct memfile *src, struct memfile *dst, bool wait,
			   struct dax_task *task,
			   void (*op)(struct memfile *src, struct memfile *dst))
	__no_lock_analysis
{
	struct dax_break brk = { .task = task, .busy = wait ? NULL : refuse };
	struct memfile *f1 = src, *f2 = dst;
	int ret;

	lock_two(&f1, &f2);
	/* H7: the data is kept, so it has to be on media first. */
	ret = file_fsync(src);
	if (!ret)
		ret = file_fsync(dst);
	if (!ret)
		ret = dax_break_layout_pair(&src->mapping, &dst->mapping, &brk);
	if (!ret) {
		op(src, dst);
		dax_break_layout_pair_end(&src->mapping, &dst->mapping);
	}
	if (f1 != f2)
		rwsem_up_write(&f2->i_rwsem);
	rwsem_up_write(&f1->i_rwsem);
	return ret;
}

int file_reflink(struct memfile *src, struct memfile *dst, bool wait,
		 struct dax_task *task)
{
	return with_two_broken(src, dst, wait, task, do_reflink);
}

int file_exchange(struct memfile *a, struct memfile *b, bool wait,
		  struct dax_task *task)
{
	return with_two_broken(a, b, wait, task, do_exchange);
}

int file_fsync(struct memfile *file)
{
	return dax_writeback_mapping_range(&file->mapping, 0, DAX_LAYOUT_END,
					   DAX_WB_ALL);
}

int64_t file_write(struct memfile *file, uint64_t pos, const void *buf,
		   uint64_t len)
{
	int64_t ret;

	rwsem_down_write(&file->i_rwsem, LOCK_INODE);
	rwsem_down_write(&file->mapping.invalidate_lock, LOCK_INVALIDATE);
	ret = dax_iomap_write(&file->mapping, pos, buf, len, &memfs_iomap_ops,
			      NULL);
	if (ret > 0 && pos + (uint64_t)ret > atomic_load(&file->size))
		atomic_store(&file->size, pos + (uint64_t)ret);
	pmem_fence(file->fs->pm);
	rwsem_up_write(&file->mapping.invalidate_lock);
	rwsem_up_write(&file->i_rwsem);
	return ret;
}

int64_t file_read(struct memfile *file, uint64_t pos, void *buf, uint64_t len)
{
	int64_t ret;

	rwsem_down_read(&file->i_rwsem, LOCK_INODE);
	ret = dax_iomap_read(&file->mapping, pos, buf, len, &memfs_iomap_ops,
			     NULL);
	rwsem_up_read(&file->i_rwsem);
	return ret;
}

unsigned char file_byte(struct memfile *file, uint64_t pos)
{
	const struct slot *s = &file->slots[pos >> BLOCK_SHIFT];
	uint64_t off = ((uint64_t)s->pfn << BLOCK_SHIFT) + (pos & BLOCK_MASK);

	if (slot_type(s) != IOMAP_MAPPED)
		return 0;
	return *(const unsigned char *)pmem_at(file->fs->pm, off);
}

/* Looking. */

void *file_entry(struct memfile *file, uint64_t index)
{
	return xa_load(&file->mapping.i_pages, index);
}

bool file_marked(struct memfile *file, uint64_t index, enum xa_mark mark)
{
	XA_STATE(xas, &file->mapping.i_pages, index);
	bool marked;

	xas_lock(&xas);
	xas_load(&xas);
	marked = xas_get_mark(&xas, mark);
	xas_unlock(&xas);
	return marked;
}

struct folio *file_folio(struct memfile *file, uint64_t index)
{
	void *entry = file_entry(file, index);

	assert(entry && dax_is_real_entry(entry));
	return dax_entry_folio(&file->mapping, entry);
}

/* Checking. */

struct census {
	uint32_t entries[MEMFS_PAGES]; /* by head */
	uint32_t maps[MEMFS_PAGES];
};

static void count_entries(struct memfile *file, struct census *c)
{
	XA_STATE(xas, &file->mapping.i_pages, 0);
	uint64_t nr = 0;
	const void *entry;

	xas_lock(&xas);
	xas_for_each(&xas, entry, UINT64_MAX)
	{
		assert(!dax_is_locked(entry));
		nr += dax_entry_pages(entry);
		if (!dax_is_real_entry(entry))
			continue;
		c->entries[dax_to_pfn(entry)]++;
		/* I3: the file owns what it has an entry of. */
		assert(file->slots[xas_entry_index(&xas)].pfn ==
		       dax_to_pfn(entry));
	}
	assert(nr == file->mapping.nrpages); /* I4 */
	xas_unlock(&xas);
}

static void count_maps(struct memfile *file, struct census *c)
{
	for (struct view *v = file->views; v; v = v->next) {
		for (uint64_t i = 0; i < v->nr; i++) {
			const struct pte *p = view_pte(v, v->vma.pgoff + i);
			const void *entry;

			if (!p || p->anon)
				continue;
			entry = file_entry(file, v->vma.pgoff + i);
			assert(entry && !dax_is_empty_entry(entry)); /* I10 */
			(void)entry;
			if (p->zero || (p >= v->pmds &&
					p < v->pmds + v->nr / FOLIO_PAGES + 1 &&
					i % FOLIO_PAGES))
				continue;
			c->maps[folio_pfn(
				folio_at(file->fs->dev->folios, p->pfn))]++;
		}
	}
}

static void check_page(struct memfs *fs, const struct census *c, uint64_t pfn,
		       uint32_t pins)
{
	struct folio *page = &fs->dev->folios->folios[pfn];
	struct folio *head = folio_head(page);
	uint64_t share = atomic_load(&page->share);

	if (head != page) {
		assert(folio_order(head) == FOLIO_ORDER);
		assert(c->entries[pfn] == 0 && c->maps[pfn] == 0);
		return;
	}
	if (folio_refcount(page) != c->maps[pfn] + pins ||
	    folio_mapcount(page) != c->maps[pfn]) {
		fprintf(stderr, "pfn %lu: ref %u map %u, maps %u pins %u\n",
			(unsigned long)pfn, folio_refcount(page),
			folio_mapcount(page), c->maps[pfn], pins);
		abort(); /* I1 */
	}
	if (atomic_load(&page->mapping))
		assert(c->entries[pfn] == 1); /* I5, I6 */
	else
		assert(c->entries[pfn] == share); /* I5, I6 */
	if (folio_order(page))
		assert(!folio_is_free(page) ||
		       atomic_load(&page->flags) & FOLIO_ORPHAN); /* I7 */
	if (fs->state[pfn] == BLOCK_FREE)			  /* I3 */
		assert(folio_refcount(page) == 0 && c->entries[pfn] == 0);
}

void memfs_check(struct memfs *fs, const uint32_t *pins)
{
	static struct census c;

	memset(&c, 0, sizeof(c));
	for (struct memfile *f = fs->files; f; f = f->next) {
		count_entries(f, &c);
		count_maps(f, &c);
	}
	for (uint64_t pfn = 0; pfn < fs->nr_blocks; pfn++)
		check_page(fs, &c, pfn, pins ? pins[pfn] : 0);
}
