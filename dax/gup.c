/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/gup.c - pins: keep a page in place while somebody transfers
 *
 * The fast way takes the reference from a mapping and then looks again at the
 * mapping: if it is gone, or another page, the unmapping that did this may
 * have looked at the counters before us, so the reference goes back.  The slow
 * way faults, and so waits for a layout break that runs.
 */
#include "dax/mapping.h"

#include <errno.h>

#include "dax/entry.h"

/* A pin whose mapping keeps going away is not for us to win. */
#define PIN_TRIES 1000

/* I2: true if the page was mapped and is pinned. */
static bool pin_fast(struct dax_vma *vma, uint64_t index, bool write,
		     struct folio **ret_folio)
{
	struct address_space *mapping = vma->mapping;
	const struct dax_mapper_ops *mapper = mapping->mapper;
	struct folio *folio;
	uint64_t pfn, again;

	if (!mapper->lookup(vma, index, write, &pfn))
		return false;
	if (pfn >= mapping->dev->folios->nr_pages)
		return false; /* the zero page */
	folio = folio_at(mapping->dev->folios, pfn);
	if (!folio_try_pin(folio))
		return false;
	if (mapper->lookup(vma, index, write, &again) && again == pfn &&
	    folio_at(mapping->dev->folios, pfn) == folio) {
		*ret_folio = folio;
		return true;
	}
	folio_put(folio);
	return false;
}

/* Fault it in; 0: try the fast way again. */
static int fault_in(struct dax_vma *vma, uint64_t index, bool write)
{
	struct dax_fault vmf = { .vma = vma, .index = index, .write = write };
	vm_fault_t ret = vma->fault(&vmf, 0);

	if (ret & VM_FAULT_OOM)
		return -ENOMEM;
	return ret & VM_FAULT_SIGBUS ? -EFAULT : 0;
}

int dax_pin(struct dax_vma *vma, uint64_t index, unsigned int flags,
	    struct folio **ret_folio)
{
	struct dax_device *dev = vma->mapping->dev;
	bool write = flags & FOLL_WRITE;
	uint64_t pfn;
	int ret;

	/* A truncate may be delayed for a moment, not for a lease. */
	if ((flags & FOLL_LONGTERM) && !atomic_load(&dev->allow_longterm))
		return -EOPNOTSUPP;
	/*
	 * A write pin faults for write, and so never holds a shared block.  A
	 * hole that is only read has no page to pin: it is faulted for write.
	 */
	for (unsigned int i = 0; i < PIN_TRIES; i++) {
		if (pin_fast(vma, index, write, ret_folio))
			return 0;
		if (vma->mapping->mapper->lookup(vma, index, false, &pfn) &&
		    pfn >= dev->folios->nr_pages)
			write = true;
		ret = fault_in(vma, index, write);
		if (ret)
			return ret;
	}
	return -EFAULT;
}
