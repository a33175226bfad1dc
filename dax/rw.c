/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/rw.c - read(2), write(2) and their relatives, straight to media
 *
 * A write sets no mark: what it stores it flushes itself, and the filesystem's
 * commit fences.  A write that replaces a shared block first removes the
 * entries of the range, dirty or not, because they name the old block (B17);
 * then it copies what it does not overwrite of the new block, flushed as well,
 * so that the edges are durable before the new block is part of the file.
 */
#include "dax/mapping.h"

#include <errno.h>
#include <string.h>

#include "dax/entry.h"

struct iter {
	struct address_space *mapping;
	const struct iomap_ops *ops;
	unsigned int flags;
	uint64_t pos, end;
	struct iomap iomap, srcmap;
};

/* The part of [pos, end) that one iomap covers. */
static uint64_t iter_len(const struct iter *it)
{
	uint64_t iomap_end = it->iomap.offset + it->iomap.length;

	return (it->end < iomap_end ? it->end : iomap_end) - it->pos;
}

static uint64_t iter_off(const struct iter *it)
{
	return it->iomap.addr + (it->pos - it->iomap.offset);
}

static int iter_begin(struct iter *it)
{
	int ret;

	it->iomap = (struct iomap){ .type = IOMAP_HOLE };
	it->srcmap = (struct iomap){ .type = IOMAP_HOLE };
	ret = it->ops->begin(it->mapping, it->pos, it->end - it->pos, it->flags,
			     &it->iomap, &it->srcmap);
	if (ret)
		return ret;
	if (it->iomap.offset > it->pos ||
	    it->iomap.offset + it->iomap.length <= it->pos) {
		dax_warn(it->mapping->dev, "iomap does not cover its position");
		return -EIO;
	}
	return 0;
}

/*
 * @ret is how the work went.  What end says comes first: a block that could
 * not be given back is worse than data that could not be copied (B19).
 */
static int iter_end(struct iter *it, uint64_t len, int ret)
{
	int err = 0;

	if (it->ops->end)
		err = it->ops->end(it->mapping, it->pos, len, ret ? 0 : len,
				   it->flags, &it->iomap);
	return err ? err : ret;
}

/*
 * Walk [pos, end): @work gets each piece.  Returns bytes done, or an errno if
 * that is none.
 */
static int64_t iterate(struct iter *it, struct dax_task *task,
		       int (*work)(struct iter *it, uint64_t len, void *arg),
		       void *arg)
{
	uint64_t start = it->pos, len;
	int ret = 0;

	while (it->pos < it->end) {
		if (dax_task_interrupted(task)) {
			ret = -EINTR;
			break;
		}
		ret = iter_begin(it);
		if (ret)
			break;
		len = iter_len(it);
		ret = iter_end(it, len, work(it, len, arg));
		if (ret)
			break;
		it->pos += len;
	}
	return it->pos > start ? (int64_t)(it->pos - start) : ret;
}

static int read_work(struct iter *it, uint64_t len, void *arg)
{
	struct dax_device *dev = it->mapping->dev;
	unsigned char **buf = arg;

	if (it->iomap.type != IOMAP_MAPPED) {
		memset(*buf, 0, len);
	} else {
		uint64_t off = iter_off(it);

		if (folio_is_poisoned(dev->folios, off >> BLOCK_SHIFT,
				      ((off + len - 1) >> BLOCK_SHIFT) -
					      (off >> BLOCK_SHIFT) + 1))
			return -EIO;
		memcpy(*buf, pmem_at(dev->pm, off), len);
		if (pmem_fault_take())
			return -EIO;
	}
	*buf += len;
	return 0;
}

int64_t dax_iomap_read(struct address_space *mapping, uint64_t pos, void *buf,
		       uint64_t len, const struct iomap_ops *ops,
		       struct dax_task *task)
{
	uint64_t size = mapping->ops->size(mapping);
	struct iter it = { .mapping = mapping, .ops = ops, .pos = pos };

	if (len == 0 || pos >= size)
		return 0; /* B18 */
	it.end = len > size - pos ? size : pos + len;
	return iterate(&it, task, read_work, &buf);
}

static uint64_t round_down(uint64_t pos)
{
	return pos & ~BLOCK_MASK;
}

static uint64_t round_up(uint64_t pos)
{
	return (pos + BLOCK_MASK) & ~BLOCK_MASK;
}

/* [pos, pos + len) of a new block, from the old one or zeros; flushed. */
static int fill_edge(struct iter *it, uint64_t pos, uint64_t len)
{
	struct dax_device *dev = it->mapping->dev;
	uint64_t off = it->iomap.addr + (pos - it->iomap.offset), src;

	if (len == 0)
		return 0;
	if (!dax_source_is_hole(&it->iomap, &it->srcmap, pos, &src))
		return dax_copy(dev, off, src, len);
	pmem_zero(dev->pm, off, len);
	return 0;
}

/* What surrounds [pos, pos + len) in its blocks. */
static int copy_around(struct iter *it, uint64_t len)
{
	uint64_t head = round_down(it->pos), end = it->pos + len;
	int ret;

	ret = fill_edge(it, head, it->pos - head);
	if (ret)
		return ret;
	return fill_edge(it, end, round_up(end) - end);
}

/* Remove the entries that name what is about to be replaced; B17. */
static void forget_range(struct iter *it, uint64_t len, bool dirty_too)
{
	uint64_t first = it->pos >> BLOCK_SHIFT;
	uint64_t last = (it->pos + len - 1) >> BLOCK_SHIFT;

	if (dirty_too)
		dax_clear_dirty_range(it->mapping, first, last);
	dax_invalidate_range(it->mapping, first, last);
}

/* Does an order-9 entry at page @index reach beyond [pos, end)? */
static bool is_cut(struct iter *it, uint64_t index, uint64_t end)
{
	const void *entry = xa_load(&it->mapping->i_pages, index);
	uint64_t first;

	if (!entry || !dax_is_pmd_entry(entry))
		return false;
	first = dax_entry_first(index, entry) << BLOCK_SHIFT;
	return first < it->pos || first + CHUNK_SIZE > end;
}

/*
 * An order-9 entry that the range cuts is dirty elsewhere as well: flush that
 * before the mark is forgotten.
 */
static int flush_cut_entries(struct iter *it, uint64_t len)
{
	uint64_t end = it->pos + len;
	const uint64_t ends[] = { it->pos, end - 1 };
	int ret;

	for (int i = 0; i < 2; i++) {
		if (!is_cut(it, ends[i] >> BLOCK_SHIFT, end))
			continue;
		ret = dax_writeback_mapping_range(it->mapping, ends[i], ends[i],
						  DAX_WB_ALL);
		if (ret)
			return ret;
	}
	return 0;
}

/* Before anything is stored to the blocks of one iomap. */
static int prepare_store(struct iter *it, uint64_t len)
{
	int ret;

	if (it->iomap.type != IOMAP_MAPPED) {
		dax_warn(it->mapping->dev, "write without a block");
		return -EIO;
	}
	if (it->iomap.flags & IOMAP_F_SHARED) {
		ret = flush_cut_entries(it, len);
		if (ret)
			return ret;
		forget_range(it, len, true);
		return copy_around(it, len);
	}
	if (it->iomap.flags & IOMAP_F_NEW)
		forget_range(it, len, false); /* mappings of the hole */
	return 0;
}

static int write_work(struct iter *it, uint64_t len, void *arg)
{
	struct dax_device *dev = it->mapping->dev;
	const unsigned char **buf = arg;
	int ret = prepare_store(it, len);

	if (ret)
		return ret;
	pmem_write(dev->pm, iter_off(it), *buf, len);
	if (pmem_fault_take())
		return -EIO;
	*buf += len;
	return 0;
}

int64_t dax_iomap_write(struct address_space *mapping, uint64_t pos,
			const void *buf, uint64_t len,
			const struct iomap_ops *ops, struct dax_task *task)
{
	struct iter it = {
		.mapping = mapping,
		.ops = ops,
		.flags = IOMAP_WRITE,
		.pos = pos,
		.end = pos + len,
	};

	if (len == 0)
		return 0; /* B18 */
	return iterate(&it, task, write_work, &buf);
}

static int zero_work(struct iter *it, uint64_t len, void *arg)
{
	const struct iomap *src =
		it->srcmap.type != IOMAP_HOLE ? &it->srcmap : &it->iomap;
	int ret;

	(void)arg;
	if (src->type != IOMAP_MAPPED)
		return 0; /* reads as zeros already */
	ret = prepare_store(it, len);
	if (ret)
		return ret;
	pmem_zero(it->mapping->dev->pm, iter_off(it), len);
	return pmem_fault_take() ? -EIO : 0;
}

int dax_zero_range(struct address_space *mapping, uint64_t pos, uint64_t len,
		   const struct iomap_ops *ops)
{
	struct iter it = {
		.mapping = mapping,
		.ops = ops,
		.flags = IOMAP_WRITE | IOMAP_ZERO,
		.pos = pos,
		.end = pos + len,
	};
	int64_t done = iterate(&it, NULL, zero_work, NULL);

	return done == (int64_t)len ? 0 : done < 0 ? (int)done : -EIO;
}

static int unshare_work(struct iter *it, uint64_t len, void *arg)
{
	int ret;

	(void)arg;
	if (!(it->iomap.flags & IOMAP_F_SHARED))
		return 0;
	ret = flush_cut_entries(it, len);
	if (ret)
		return ret;
	forget_range(it, len, true);
	/* Whole pages: the range was rounded to them. */
	return fill_edge(it, it->pos, len);
}

int dax_unshare(struct address_space *mapping, uint64_t pos, uint64_t len,
		const struct iomap_ops *ops)
{
	struct iter it = {
		.mapping = mapping,
		.ops = ops,
		.flags = IOMAP_WRITE | IOMAP_UNSHARE,
		.pos = round_down(pos),
		.end = round_up(pos + len),
	};
	uint64_t want = it.end - it.pos;
	int64_t done = iterate(&it, NULL, unshare_work, NULL);

	return done == (int64_t)want ? 0 : done < 0 ? (int)done : -EIO;
}

int dax_dedupe_compare(struct address_space *m1, uint64_t pos1,
		       struct address_space *m2, uint64_t pos2, uint64_t len,
		       bool *ret_same, const struct iomap_ops *ops)
{
	unsigned char buf1[BLOCK_SIZE], buf2[BLOCK_SIZE];
	bool same = true;

	for (uint64_t done = 0; same && done < len; done += BLOCK_SIZE) {
		uint64_t nr = len - done < BLOCK_SIZE ? len - done : BLOCK_SIZE;
		int64_t got;

		got = dax_iomap_read(m1, pos1 + done, buf1, nr, ops, NULL);
		if (got < 0)
			return (int)got; /* B20 */
		if ((uint64_t)got != nr)
			return -EINVAL;
		got = dax_iomap_read(m2, pos2 + done, buf2, nr, ops, NULL);
		if (got < 0)
			return (int)got;
		same = (uint64_t)got == nr && memcmp(buf1, buf2, nr) == 0;
	}
	*ret_same = same;
	return 0;
}
