/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/entry.c - entries, and the lock that each of them is
 */
#include "dax/entry.h"

#include <errno.h>

struct folio *dax_entry_folio(struct address_space *mapping, const void *entry)
{
	assert(dax_is_real_entry(entry)); /* I8, B7 */
	return folio_at(mapping->dev->folios, dax_to_pfn(entry));
}

void dax_entry_begin(struct address_space *mapping)
{
	lock_rank_acquire(mapping, LOCK_ENTRY);
}

void dax_entry_end(struct address_space *mapping)
{
	lock_rank_release(mapping);
}

/*
 * Sleep until the turn for @entry at xas->index is ours.  Drops and retakes
 * i_pages.lock; the state is reset, not paused.
 */
static void sleep_on_entry(struct xa_state *xas, const void *entry)
	__must_hold(xas->xa->lock)
{
	struct waiter w;

	/*
	 * Exclusive, so that one unlock wakes one.  Uninterruptible, so that
	 * the turn is never lost.
	 */
	wait_prepare(&w, xas->xa, dax_entry_first(xas->index, entry), true,
		     NULL);
	xas_reset(xas);
	xas_unlock(xas);
	wait_sleep(&w, 0);
	xas_lock(xas);
}

void *dax_get_next_unlocked_entry(struct xa_state *xas, unsigned int order)
{
	void *entry;

	for (;;) {
		entry = xas_find_conflict(xas);
		if (!entry)
			return NULL;
		assert(xa_is_value(entry)); /* A9 */
		if (dax_entry_order(entry) < order)
			return DAX_CONFLICT;
		if (!dax_is_locked(entry))
			return entry;
		sleep_on_entry(xas, entry);
	}
}

void *dax_wait_entry_unlocked(struct xa_state *xas, void *entry)
{
	while (entry && dax_is_locked(entry)) {
		sleep_on_entry(xas, entry);
		entry = xas_load(xas);
		assert(!entry || xa_is_value(entry)); /* A9 */
	}
	return entry;
}

static void wake_entry(const struct xa_state *xas, const void *entry,
		       enum wake_mode mode)
{
	wait_wake(xas->xa, dax_entry_first(xas->index, entry), mode);
}

void dax_put_unlocked_entry(struct xa_state *xas, void *entry,
			    enum wake_mode mode)
{
	if (entry && !dax_is_conflict(entry))
		wake_entry(xas, entry, mode);
}

void *dax_lock_entry(struct xa_state *xas, void *entry)
{
	void *old;

	old = xas_store(xas, xa_mk_value(xa_to_value(entry) | DAX_LOCKED));
	return old;
}

void dax_unlock_entry_locked(struct xa_state *xas, void *entry)
{
	const void *old;

	assert(!dax_is_locked(entry)); /* A8 */
	xas_reset(xas);
	old = xas_store(xas, entry);
	assert(old && dax_is_locked(old)); /* A8, I9 */
	(void)old;
	wake_entry(xas, entry, WAKE_NEXT);
}

void dax_unlock_entry(struct xa_state *xas, void *entry)
{
	xas_lock(xas);
	dax_unlock_entry_locked(xas, entry);
	xas_unlock(xas);
}

static struct address_space *mapping_of(struct xa_state *xas)
{
	return (struct address_space *)((char *)xas->xa -
					offsetof(struct address_space,
						 i_pages));
}

void dax_remove_entry(struct xa_state *xas, void *entry, bool pinned_ok)
{
	struct address_space *mapping = mapping_of(xas);

	/* Before the slot changes, as always: both under i_pages.lock. */
	if (dax_is_real_entry(entry))
		folio_disassociate(dax_entry_folio(mapping, entry), mapping,
				   pinned_ok);
	xas_store(xas, NULL);
	assert(mapping->nrpages >= dax_entry_pages(entry));
	mapping->nrpages -= dax_entry_pages(entry); /* I4 */
	wake_entry(xas, entry, WAKE_ALL);
}

void dax_drop_locked_entry(struct xa_state *xas, void *entry)
{
	struct address_space *mapping = mapping_of(xas);
	const void *slot;

	dax_unmap(mapping, dax_entry_first(xas->index, entry),
		  dax_entry_pages(entry));
	xas_reset(xas);
	xas_lock(xas);
	slot = xas_load(xas);
	assert(slot && dax_is_locked(slot)); /* A10, I9 */
	(void)slot;
	dax_remove_entry(xas, entry, true);
	xas_reset(xas);
	xas_unlock(xas);
}

void dax_unmap(struct address_space *mapping, uint64_t index, uint64_t nr)
{
	if (mapping->mapper)
		mapping->mapper->unmap(mapping, index, nr);
}

int dax_flush_entry(struct address_space *mapping, uint64_t index,
		    const void *entry)
{
	struct pmem *pm = mapping->dev->pm;
	int ret = 0;

	/* From here on a store has to fault, and the fault waits for us. */
	if (mapping->mapper)
		ret = mapping->mapper->wrprotect(mapping, index,
						 dax_entry_pages(entry));
	if (ret < 0)
		return ret;
	pmem_flush(pm, dax_to_pfn(entry) << BLOCK_SHIFT, dax_entry_size(entry));
	pmem_fence(pm);
	return ret;
}

void dax_warn(struct dax_device *dev, const char *what)
{
	atomic_store(&dev->stat.warning, what);
	atomic_fetch_add(&dev->stat.nr_warnings, 1);
	trace_dax_warning(what);
}

static bool any_poison(struct dax_device *dev, uint64_t off, uint64_t len)
{
	uint64_t pfn = off >> BLOCK_SHIFT;
	uint64_t end = (off + len + BLOCK_MASK) >> BLOCK_SHIFT;

	return folio_is_poisoned(dev->folios, pfn, end - pfn);
}

int dax_copy(struct dax_device *dev, uint64_t off, uint64_t src_off,
	     uint64_t len)
{
	if (len == 0)
		return 0;
	if (any_poison(dev, src_off, len))
		return -EIO;
	pmem_copy(dev->pm, off, src_off, len);
	return pmem_fault_take() ? -EIO : 0;
}

int dax_direct_access(struct dax_device *dev, uint64_t off, uint64_t len,
		      uint64_t *ret_pfn)
{
	uint64_t pfn = off >> BLOCK_SHIFT;
	int64_t got;

	if (off > dev->pm->size || len > dev->pm->size - off)
		return -ERANGE;
	if (dev->ops) {
		got = dev->ops->direct_access(dev, off, len, &pfn);
		if (got < 0)
			return (int)got;
		if ((uint64_t)got < len)
			return -EINVAL;
	}
	if (pfn & ((len >> BLOCK_SHIFT) - 1))
		return -EINVAL; /* not aligned to its size */
	if (any_poison(dev, pfn << BLOCK_SHIFT, len))
		return -EIO;
	*ret_pfn = pfn;
	return 0;
}

bool dax_source_is_hole(const struct iomap *iomap, const struct iomap *srcmap,
			uint64_t pos, uint64_t *ret_off)
{
	const struct iomap *src = srcmap->type != IOMAP_HOLE ? srcmap : iomap;

	/* The new block itself as source: there is nothing to copy from. */
	if ((src->flags & IOMAP_F_SHARED) || src->type != IOMAP_MAPPED)
		return true;
	*ret_off = src->addr + (pos - src->offset);
	return false;
}
