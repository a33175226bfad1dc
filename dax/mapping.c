/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/mapping.c - devices and mappings come and go
 */
#include "dax/mapping.h"

#include <errno.h>
#include <stdlib.h>

#include "dax/entry.h"

int dax_device_create(struct pmem *pm, const struct folio_table_ops *ops,
		      void *ctx, struct dax_device **ret_dev)
{
	uint64_t nr_pages = pm->size >> BLOCK_SHIFT;
	struct dax_device *dev = calloc(1, sizeof(*dev));
	int ret;

	if (!dev)
		return -ENOMEM;
	ret = folio_table_create(nr_pages, ops, ctx, &dev->folios);
	if (ret)
		goto err_free;
	dev->pm = pm;
	/* Behind the device, so that nobody can take them for its pages. */
	dev->zero_pfn = nr_pages;
	dev->huge_zero_pfn = (nr_pages + FOLIO_PAGES) & ~(FOLIO_PAGES - 1);
	*ret_dev = dev;
	return 0;

err_free:
	free(dev);
	return ret;
}

void dax_device_destroy(struct dax_device *dev)
{
	if (!dev)
		return;
	folio_table_destroy(dev->folios);
	free(dev);
}

bool dax_device_synchronous(const struct dax_device *dev)
{
	return pmem_granularity(dev->pm) != PMEM_PAGE;
}

void mapping_init(struct address_space *mapping, struct dax_device *dev,
		  const struct dax_mapping_ops *ops,
		  const struct dax_mapper_ops *mapper, uint64_t ino, void *host)
{
	*mapping = (struct address_space){
		.ino = ino,
		.dev = dev,
		.ops = ops,
		.mapper = mapper,
		.host = host,
		.block_shift = BLOCK_SHIFT,
		.dax = true,
	};
	xa_init(&mapping->i_pages, NULL);
	rwsem_init(&mapping->invalidate_lock);
}

void mapping_destroy(struct address_space *mapping)
{
	assert(xa_empty(&mapping->i_pages) && mapping->nrpages == 0);
	xa_destroy(&mapping->i_pages);
	rwsem_destroy(&mapping->invalidate_lock);
}

void mapping_truncate(struct address_space *mapping, uint64_t index)
{
	XA_STATE(xas, &mapping->i_pages, index);
	void *entry;

	dax_entry_begin(mapping);
	xas_lock(&xas);
	xas_for_each(&xas, entry, UINT64_MAX)
	{
		entry = dax_wait_entry_unlocked(&xas, entry);
		if (!entry)
			continue;
		/* A11: somebody forgot the final break (B4, B5). */
		dax_warn(mapping->dev, "truncate found a DAX entry");
		dax_lock_entry(&xas, entry);
		xas_unlock(&xas);
		dax_drop_locked_entry(&xas, entry);
		xas_lock(&xas);
	}
	xas_unlock(&xas);
	dax_entry_end(mapping);
}
