/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/writeback.c - what was stored through mappings becomes durable
 *
 * Order, for each entry: lock it; clear TOWRITE; write protect it everywhere;
 * flush; clear DIRTY; unlock.  After write protection a store has to fault,
 * and the fault waits for the entry lock, so no store can fall between the
 * flush and the clearing of DIRTY.  Whoever finds the entry locked by us waits
 * as well, so a second fsync does not return before the first has flushed.
 */
#include "dax/mapping.h"

#include <errno.h>

#include "dax/entry.h"

/* The range as it is when we begin: what is dirtied later is not ours. */
static void tag_towrite(struct xarray *pages, uint64_t first, uint64_t last)
{
	XA_STATE(xas, pages, first);
	unsigned int nr = 0;
	const void *entry;

	xas_lock(&xas);
	xas_for_each_marked(&xas, entry, last, DAX_MARK_DIRTY)
	{
		xas_set_mark(&xas, DAX_MARK_TOWRITE);
		if (++nr % XA_CHECK_SCHED)
			continue;
		xas_pause(&xas);
		xas_unlock(&xas);
		xas_lock(&xas);
	}
	xas_unlock(&xas);
}

/*
 * After a wait: is it still the entry that was to be written?  Gone, another
 * block, or written by another sync are all reasons to go on.
 */
static bool still_wanted(struct xa_state *xas, const void *old,
			 const void *entry)
{
	if (!entry || dax_is_conflict(entry))
		return false;
	if (dax_is_real_entry(old) && dax_is_real_entry(entry) &&
	    dax_to_pfn(old) != dax_to_pfn(entry))
		return false;
	return xas_get_mark(xas, DAX_MARK_TOWRITE);
}

/* @entry is unlocked; we lock it, and drop and retake i_pages.lock. */
static int flush_one(struct xa_state *xas, struct address_space *mapping,
		     void *entry) __must_hold(xas->xa->lock)
{
	uint64_t first = dax_entry_first(xas->index, entry);
	int ret;

	dax_lock_entry(xas, entry);
	xas_clear_mark(xas, DAX_MARK_TOWRITE);
	xas_reset(xas);
	xas_unlock(xas);

	ret = dax_flush_entry(mapping, first, entry);

	xas_lock(xas);
	dax_unlock_entry_locked(xas, entry);
	if (ret) {
		/*
		 * Nothing was flushed for sure, or somebody still stores: the
		 * next sync tries again.
		 */
		return ret < 0 ? ret : 0;
	}
	xas_load(xas);
	xas_clear_mark(xas, DAX_MARK_DIRTY);
	atomic_fetch_add(&mapping->dev->stat.nr_written_back, 1);
	trace_dax_range(dax_writeback_one, mapping->ino, first,
			dax_entry_pages(entry), 0);
	return 0;
}

static int writeback_one(struct xa_state *xas, struct address_space *mapping,
			 void *entry) __must_hold(xas->xa->lock)
{
	void *old = entry;

	if (dax_is_locked(entry)) {
		entry = dax_wait_entry_unlocked(xas, entry);
		if (!still_wanted(xas, old, entry)) {
			dax_put_unlocked_entry(xas, entry, WAKE_NEXT);
			return 0;
		}
	}
	/* A mark on what is no block: upstream looks only after a wait. */
	if (!dax_is_real_entry(entry)) {
		dax_warn(mapping->dev, "writeback of an entry without block");
		dax_put_unlocked_entry(xas, entry, WAKE_NEXT);
		return -EIO;
	}
	return flush_one(xas, mapping, entry);
}

static int writeback_range(struct address_space *mapping, uint64_t first,
			   uint64_t last)
{
	XA_STATE(xas, &mapping->i_pages, first);
	void *entry;
	int ret = 0;

	tag_towrite(&mapping->i_pages, first, last);
	dax_entry_begin(mapping);
	xas_lock(&xas);
	xas_for_each_marked(&xas, entry, last, DAX_MARK_TOWRITE)
	{
		ret = writeback_one(&xas, mapping, entry);
		if (ret)
			break;
	}
	xas_unlock(&xas);
	dax_entry_end(mapping);
	return ret;
}

int dax_writeback_mapping_range(struct address_space *mapping, uint64_t start,
				uint64_t end, enum dax_wb mode)
{
	uint64_t first = start >> BLOCK_SHIFT, last = end >> BLOCK_SHIFT;
	int none = 0, ret;

	if (mapping->block_shift != BLOCK_SHIFT) {
		dax_warn(mapping->dev, "writeback with another block size");
		return -EIO;
	}
	if (mode != DAX_WB_ALL || end < start)
		return 0;
	trace_dax_range(dax_writeback_range, mapping->ino, first, last, 0);
	ret = writeback_range(mapping, first, last);
	if (ret)
		atomic_compare_exchange_strong(&mapping->wb_err, &none, ret);
	trace_dax_range(dax_writeback_range_done, mapping->ino, first, last,
			ret);
	return ret;
}

void dax_clear_dirty_range(struct address_space *mapping, uint64_t first,
			   uint64_t last)
{
	XA_STATE(xas, &mapping->i_pages, first);
	void *entry;

	dax_entry_begin(mapping);
	xas_lock(&xas);
	xas_for_each(&xas, entry, last)
	{
		/* I9: whoever has it locked may be about to mark it. */
		entry = dax_wait_entry_unlocked(&xas, entry);
		xas_clear_mark(&xas, DAX_MARK_DIRTY);
		xas_clear_mark(&xas, DAX_MARK_TOWRITE);
		dax_put_unlocked_entry(&xas, entry, WAKE_NEXT);
	}
	xas_unlock(&xas);
	dax_entry_end(mapping);
}

bool dax_invalidate_range(struct address_space *mapping, uint64_t first,
			  uint64_t last)
{
	XA_STATE(xas, &mapping->i_pages, first);
	bool all = true;
	void *entry;

	dax_entry_begin(mapping);
	xas_lock(&xas);
	xas_for_each(&xas, entry, last)
	{
		entry = dax_wait_entry_unlocked(&xas, entry);
		if (!entry)
			continue;
		if (xas_get_mark(&xas, DAX_MARK_DIRTY) ||
		    xas_get_mark(&xas, DAX_MARK_TOWRITE)) {
			/* B15: all, though the entry stays. */
			dax_put_unlocked_entry(&xas, entry, WAKE_ALL);
			all = false;
			continue;
		}
		dax_lock_entry(&xas, entry);
		xas_reset(&xas);
		xas_unlock(&xas);
		/* Unmapped while locked: nobody maps it in between. */
		dax_drop_locked_entry(&xas, entry);
		xas_lock(&xas);
	}
	xas_unlock(&xas);
	dax_entry_end(mapping);
	return all;
}
