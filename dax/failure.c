/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/failure.c - a page of the device is lost, and who has to know
 *
 * A folio names its owner only while it has a single one.  The owners of a
 * shared folio are known to the filesystem, which gets the range first and
 * calls dax_kill_owners() for every file and offset that it finds.
 */
#include "dax/mapping.h"

#include <errno.h>

#include "dax/entry.h"

void *dax_lock_folio(struct folio *folio, struct address_space **ret_mapping,
		     uint64_t *ret_index)
{
	for (;;) {
		struct folio_owner owner = folio_owner(folio);
		struct address_space *mapping = owner.mapping, *again;
		struct xa_state xas;
		void *entry;

		if (!mapping)
			return NULL; /* unused, or shared: nobody to name */
		xas = xas_make(&mapping->i_pages, owner.index_or_share, 0);
		dax_entry_begin(mapping);
		xas_lock(&xas);
		again = folio_owner(folio).mapping;
		entry = again == mapping ? xas_load(&xas) : NULL;
		if (entry && !dax_is_locked(entry)) {
			dax_lock_entry(&xas, entry);
			xas_unlock(&xas);
			*ret_mapping = mapping;
			*ret_index = owner.index_or_share;
			return entry;
		}
		/* Whatever it is after a wait, it is looked up anew. */
		if (entry) {
			entry = dax_wait_entry_unlocked(&xas, entry);
			dax_put_unlocked_entry(&xas, entry, WAKE_NEXT);
		}
		xas_unlock(&xas);
		dax_entry_end(mapping);
	}
}

void dax_unlock_folio(struct address_space *mapping, uint64_t index,
		      void *entry)
{
	XA_STATE(xas, &mapping->i_pages, index);

	dax_unlock_entry(&xas, entry);
	dax_entry_end(mapping);
}

static void kill_mapping(struct address_space *mapping, uint64_t index,
			 uint64_t nr)
{
	if (mapping->mapper)
		mapping->mapper->kill(mapping, index, nr);
}

void dax_kill_owners(struct address_space *mapping, uint64_t index, uint64_t nr)
{
	XA_STATE(xas, &mapping->i_pages, index);
	uint64_t last = index + nr - 1;
	void *entry;

	dax_entry_begin(mapping);
	xas_lock(&xas);
	xas_for_each(&xas, entry, last)
	{
		entry = dax_wait_entry_unlocked(&xas, entry);
		if (!entry)
			continue;
		if (!dax_is_real_entry(entry)) { /* nothing of the device */
			dax_put_unlocked_entry(&xas, entry, WAKE_NEXT);
			continue;
		}
		dax_lock_entry(&xas, entry);
		xas_reset(&xas);
		xas_unlock(&xas);
		kill_mapping(mapping, dax_entry_first(xas.index, entry),
			     dax_entry_pages(entry));
		xas_lock(&xas);
		dax_unlock_entry_locked(&xas, entry);
	}
	xas_unlock(&xas);
	dax_entry_end(mapping);
}

/* Without reverse mapping: what the folio itself says. */
static int kill_by_folio(struct dax_device *dev, uint64_t pfn)
{
	struct folio *folio = folio_at(dev->folios, pfn);
	struct address_space *mapping;
	uint64_t index;
	void *entry;

	if (folio_is_free(folio))
		return 0; /* no entry, no mapping */
	entry = dax_lock_folio(folio, &mapping, &index);
	if (!entry)
		return -EBUSY; /* shared */
	kill_mapping(mapping, dax_entry_first(index, entry),
		     dax_entry_pages(entry));
	dax_unlock_folio(mapping, index, entry);
	return 0;
}

int dax_notify_failure(struct dax_device *dev, uint64_t off, uint64_t len,
		       unsigned int flags)
{
	uint64_t pfn = off >> BLOCK_SHIFT;
	uint64_t end = (off + len + BLOCK_MASK) >> BLOCK_SHIFT;
	int ret = -EOPNOTSUPP, err;

	/* First, so that whoever faults from now on gets an error. */
	for (uint64_t i = pfn; i < end; i++)
		folio_set_poison(dev->folios, i, true);
	if (dev->holder_ops)
		ret = dev->holder_ops->notify_failure(dev->holder, off, len,
						      flags);
	if (ret != -EOPNOTSUPP)
		return ret;
	ret = 0;
	for (uint64_t i = pfn; i < end; i++) {
		err = kill_by_folio(dev, i);
		if (err)
			ret = err;
	}
	return ret;
}
