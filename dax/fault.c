/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/fault.c - make a page of a file accessible
 *
 * A fault locks the entry of its page, asks the filesystem what is there, puts
 * that into the entry, and has the mapper install it.  Two things are done in
 * another order than upstream, because a block must never be in the index of
 * a file that does not own it (I3):
 *
 * - a copy on write copies before the new block is inserted, so that a failed
 *   copy leaves the old entry alone;
 * - the filesystem commits (iomap end) before the page is mapped, and if that
 *   fails the entry becomes empty again.
 *
 * What upstream lacks and is done here: R-a, a shared page that is found again
 * keeps its count; R-b, shared extents are mapped by single pages, so that one
 * extent never has folios of two orders; R-c, a page-size replacement inside
 * an order-9 entry removes the whole entry first.
 */
#include "dax/mapping.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "dax/entry.h"

/* How long a fault waits for a pin that is in the way, before it is retried. */
#define PIN_WAIT_NS 10000000

/* The entry changed under us: from the start again. */
#define RETRY 0x80000000u

/* One fault on its way. */
struct ctx {
	struct dax_fault *vmf;
	struct address_space *mapping;
	const struct iomap_ops *ops;
	struct xa_state *xas;
	unsigned int order;
	uint64_t first;	  /* first page */
	uint64_t pos;	  /* first byte */
	uint64_t size;	  /* bytes */
	bool write;	  /* that reaches the file */
	bool inserted;	  /* the entry is not what it was */
	uint64_t written; /* for iomap end */
	void *entry;	  /* locked by us; the unlocked value */
	struct iomap iomap, srcmap;
	uint64_t pfn;
	int err;
};

static vm_fault_t fault_error(struct ctx *c, int err)
{
	c->err = err;
	return err == -ENOMEM ? VM_FAULT_OOM : VM_FAULT_SIGBUS;
}

/* What an error is for order 9: there is another way. */
static vm_fault_t fault_error_or_fallback(struct ctx *c, int err)
{
	if (c->order)
		return VM_FAULT_FALLBACK; /* F9 */
	return fault_error(c, err);
}

static bool is_shared(const struct ctx *c)
{
	return c->iomap.flags & IOMAP_F_SHARED;
}

/* Entries: get one, locked. */

/* An order-9 entry that is no block gives way to single pages (B1). */
static void downgrade(struct ctx *c, void *entry) __no_lock_analysis
{
	struct xa_state *xas = c->xas;

	dax_lock_entry(xas, entry);
	if (dax_is_zero_entry(entry)) {
		xas_reset(xas);
		xas_unlock(xas);
		dax_unmap(c->mapping, dax_entry_first(xas->index, entry),
			  FOLIO_PAGES);
		xas_lock(xas);
	}
	xas_reset(xas);
	xas_load(xas);
	dax_remove_entry(xas, entry, true);
	xas_reset(xas);
}

/*
 * Lock the entry at the fault's place, or put an empty one there.  For order
 * 0 an order-9 entry with a block is as good.
 */
static vm_fault_t grab_locked(struct ctx *c) __must_hold(c->xas->xa->lock)
{
	unsigned int flags = DAX_EMPTY | (c->order ? DAX_PMD : 0);
	void *entry;

	entry = dax_get_next_unlocked_entry(c->xas, c->order);
	if (dax_is_conflict(entry))
		return VM_FAULT_FALLBACK; /* F7 */
	if (entry && !c->order && dax_is_pmd_entry(entry) &&
	    !dax_is_real_entry(entry)) {
		downgrade(c, entry);
		entry = NULL;
	}
	c->entry = entry ? entry : dax_make_entry(0, flags);
	dax_lock_entry(c->xas, c->entry);
	if (!entry && !xas_error(c->xas))
		c->mapping->nrpages += UINT64_C(1) << c->order; /* I4 */
	return 0;
}

static vm_fault_t grab_mapping_entry(struct ctx *c)
{
	vm_fault_t ret;

	do {
		/* After -ENOMEM all of it is done and decided anew. */
		xas_lock(c->xas);
		ret = grab_locked(c);
		xas_unlock(c->xas);
	} while (xas_nomem(c->xas));
	if (!ret && xas_error(c->xas))
		ret = fault_error(c, xas_error(c->xas));
	xas_reset(c->xas);
	return ret;
}

/* Entries: say what is there. */

/* Does the entry already say what the new one would? */
static bool same_block(const struct ctx *c, const void *new)
{
	uint64_t skip = c->first - dax_entry_first(c->first, c->entry);

	return dax_is_real_entry(c->entry) && dax_is_real_entry(new) &&
	       dax_to_pfn(c->entry) + skip == dax_to_pfn(new);
}

static void set_marks(struct ctx *c, bool dirty) __must_hold(c->xas->xa->lock)
{
	if (dirty)
		xas_set_mark(c->xas, DAX_MARK_DIRTY);
	if (c->write && is_shared(c))
		xas_set_mark(c->xas, DAX_MARK_TOWRITE);
}

/* Replace the entry that we hold locked; marks stay. */
static int replace_entry(struct ctx *c, void *new) __must_hold(c->xas->xa->lock)
{
	struct address_space *mapping = c->mapping;
	const void *slot;
	int ret;

	if (dax_is_real_entry(new)) {
		ret = folio_try_associate(mapping->dev->folios, dax_to_pfn(new),
					  c->order, mapping, c->first,
					  is_shared(c));
		if (ret)
			return ret;
	}
	/* The old block may be pinned; it is not reused before it is idle. */
	if (dax_is_real_entry(c->entry)) /* H8, B1 */
		folio_disassociate(dax_entry_folio(mapping, c->entry), mapping,
				   true);
	slot = dax_lock_entry(c->xas, new);
	assert(xa_to_value(slot) ==
	       (xa_to_value(c->entry) | DAX_LOCKED)); /* A7, I9 */
	(void)slot;
	c->entry = new;
	c->inserted = true;
	return 0;
}

/*
 * Put what the filesystem said into the entry.
 *
 *	old entry  new        shared
 *	empty      real/zero  any     replace
 *	zero       real       any     unmap the old range, replace
 *	zero       zero       no      nothing
 *	real       same       any     marks only (R-a)
 *	real       other      yes     unmap, replace: copy on write
 *	real       other      no      the filesystem moved a block unasked
 */
static int insert_entry(struct ctx *c, void *new, bool dirty)
{
	bool keep = same_block(c, new) ||
		    (dax_is_zero_entry(c->entry) && dax_is_zero_entry(new));
	int ret = 0;

	if (!keep && dax_is_real_entry(c->entry) && !is_shared(c)) {
		dax_warn(c->mapping->dev, "block moved without layout break");
		return -EIO;
	}
	if (!keep && !dax_is_empty_entry(c->entry))
		dax_unmap(c->mapping, c->first, UINT64_C(1) << c->order);
	if (dirty && c->mapping->ops->mark_dirty)
		c->mapping->ops->mark_dirty(c->mapping);

	xas_reset(c->xas);
	xas_lock(c->xas);
	/* Marks need a state that stands on the entry. */
	xas_load(c->xas);
	if (!keep)
		ret = replace_entry(c, new);
	if (!ret)
		set_marks(c, dirty);
	xas_reset(c->xas);
	xas_unlock(c->xas);
	if (ret == -EUCLEAN) /* B8 */
		dax_warn(c->mapping->dev, "shared block is not flagged so");
	return ret;
}

/*
 * The filesystem could not commit: the block that we inserted is not part of
 * the file.  What remains is an empty entry, still locked.
 */
static void revert_entry(struct ctx *c)
{
	void *empty = dax_make_entry(0, DAX_EMPTY | (c->order ? DAX_PMD : 0));

	xas_reset(c->xas);
	xas_lock(c->xas);
	xas_load(c->xas);
	if (dax_is_real_entry(c->entry))
		folio_disassociate(dax_entry_folio(c->mapping, c->entry),
				   c->mapping, true);
	xas_clear_mark(c->xas, DAX_MARK_DIRTY);
	xas_clear_mark(c->xas, DAX_MARK_TOWRITE);
	dax_lock_entry(c->xas, empty);
	c->entry = empty;
	c->inserted = false;
	xas_reset(c->xas);
	xas_unlock(c->xas);
}

/*
 * R-c: a page of an order-9 entry is about to be replaced, and a store at its
 * index would show at 512 indices.  What is dirty in the other 511 is flushed
 * first, since the mark goes with the entry.
 */
static int drop_pmd_entry(struct ctx *c)
{
	int ret;

	ret = dax_flush_entry(c->mapping, dax_entry_first(c->first, c->entry),
			      c->entry);
	if (ret < 0)
		return ret;
	dax_drop_locked_entry(c->xas, c->entry);
	c->entry = NULL;
	return 0;
}

/* Mapping. */

static vm_fault_t map_result(struct ctx *c, int ret)
{
	if (ret == 0 || ret == -EBUSY)
		return VM_FAULT_NOPAGE;
	return fault_error(c, ret);
}

/*
 * The ledger of a new mapping: a hold for the time of the call, because the
 * folio must not be seen idle between here and the mapper; the mapper's own
 * reference and mapcount; and the hold goes.
 */
static vm_fault_t map_folio(struct ctx *c, bool write)
{
	struct address_space *mapping = c->mapping;
	struct folio *folio = folio_at(mapping->dev->folios, c->pfn);
	const struct dax_map map = {
		.index = c->first,
		.order = c->order,
		.write = write,
		.pfn = c->pfn,
	};
	int ret;

	if (c->order && folio_order(folio) != c->order) {
		dax_warn(mapping->dev, "order-9 mapping of a small folio");
		return fault_error(c, -EIO);
	}
	folio_hold(folio);
	ret = mapping->mapper->map(c->vmf->vma, &map);
	folio_put(folio);
	return map_result(c, ret);
}

/* The zero page has no counters, and is never writable. */
static vm_fault_t map_zero(struct ctx *c, uint64_t pfn)
{
	const struct dax_map map = {
		.index = c->first,
		.order = c->order,
		.zero = true,
		.pfn = pfn,
	};

	assert(!c->write);
	return map_result(c, c->mapping->mapper->map(c->vmf->vma, &map));
}

/* iomap end, once for each begin. */
static int finish_iomap(struct ctx *c)
{
	if (!c->ops->end)
		return 0;
	return c->ops->end(c->mapping, c->pos, c->size, c->written,
			   IOMAP_FAULT | (c->write ? IOMAP_WRITE : 0),
			   &c->iomap);
}

static vm_fault_t load_hole(struct ctx *c)
{
	struct dax_device *dev = c->mapping->dev;
	uint64_t pfn = c->order ? dev->huge_zero_pfn : dev->zero_pfn;
	unsigned int flags = DAX_ZERO_PAGE | (c->order ? DAX_PMD : 0);
	int ret;

	if (c->order && !pfn) {
		trace_dax_done(dax_pmd_load_hole_fallback, c->mapping->ino,
			       c->first, c->order, VM_FAULT_FALLBACK);
		return VM_FAULT_FALLBACK; /* F11 */
	}
	ret = insert_entry(c, dax_make_entry(pfn, flags), false);
	if (ret)
		return fault_error_or_fallback(c, ret);
	if (c->order)
		trace_dax_done(dax_pmd_load_hole, c->mapping->ino, c->first,
			       c->order, VM_FAULT_NOPAGE);
	else
		trace_dax_done(dax_load_hole, c->mapping->ino, c->first,
			       c->order, VM_FAULT_NOPAGE);
	c->written = c->size;
	return map_zero(c, pfn);
}

/*
 * A store to a private vma: its copy is no page of the file, and for the file
 * this was a read.
 */
static vm_fault_t fill_cow_page(struct ctx *c)
{
	struct dax_device *dev = c->mapping->dev;
	uint64_t off, pfn;
	int ret;

	c->written = c->size;
	if (c->iomap.type != IOMAP_MAPPED) {
		memset(c->vmf->cow_page, 0, BLOCK_SIZE);
		return VM_FAULT_DONE_COW;
	}
	off = c->iomap.addr + (c->pos - c->iomap.offset);
	ret = dax_direct_access(dev, off, BLOCK_SIZE, &pfn);
	if (ret)
		return fault_error(c, ret);
	memcpy(c->vmf->cow_page, pmem_at(dev->pm, off), BLOCK_SIZE);
	if (pmem_fault_take())
		return fault_error(c, -EIO);
	return VM_FAULT_DONE_COW;
}

/* Fill a new private block with what the file shows there now. */
static int fill_staging(struct ctx *c, uint64_t off)
{
	struct dax_device *dev = c->mapping->dev;
	uint64_t src;

	if (!dax_source_is_hole(&c->iomap, &c->srcmap, c->pos, &src))
		return dax_copy(dev, off, src, c->size);
	pmem_zero(dev->pm, off, c->size);
	return 0;
}

/*
 * Somebody has the block pinned from before, in a way that we cannot use it.
 * Let it go on, then start over.
 */
static vm_fault_t wait_for_pin(struct ctx *c)
{
	struct folio *folio = folio_at(c->mapping->dev->folios, c->pfn);
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	folio_wait(folio, NULL,
		   (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec +
			   PIN_WAIT_NS);
	return VM_FAULT_NOPAGE;
}

/* A block is there, or was allocated: copy if it has to be, and insert. */
static vm_fault_t insert_block(struct ctx *c, bool sync)
{
	struct address_space *mapping = c->mapping;
	uint64_t off = c->iomap.addr + (c->pos - c->iomap.offset);
	void *new;
	int ret;

	ret = dax_direct_access(mapping->dev, off, c->size, &c->pfn);
	if (ret)
		return fault_error_or_fallback(c, ret);
	new = dax_make_entry(c->pfn, c->order ? DAX_PMD : 0);

	if (!c->order && dax_is_pmd_entry(c->entry) && !same_block(c, new)) {
		ret = drop_pmd_entry(c);
		return ret ? fault_error(c, ret) : RETRY;
	}
	if (c->write && is_shared(c)) {
		ret = fill_staging(c, off);
		if (ret)
			return fault_error(c, ret);
	}
	ret = insert_entry(c, new, c->write && !sync);
	if (ret == -EAGAIN)
		return c->order ? VM_FAULT_FALLBACK : wait_for_pin(c);
	if (ret == -EEXIST)
		return fault_error_or_fallback(c, ret); /* R-b */
	if (ret)
		return fault_error(c, ret);
	c->written = c->size;
	return 0;
}

/* Between begin and end. */
static vm_fault_t fault_iter(struct ctx *c, bool *ret_sync)
{
	bool sync = c->write && (c->vmf->vma->flags & DAX_VMA_SYNC) &&
		    (c->iomap.flags & IOMAP_F_DIRTY);

	if (c->iomap.offset > c->pos ||
	    c->iomap.length < (c->pos - c->iomap.offset) + c->size)
		return fault_error_or_fallback(c, -EIO); /* F8 */
	if (c->vmf->cow_page)
		return fill_cow_page(c);
	if (!c->write && c->iomap.type != IOMAP_MAPPED)
		return load_hole(c);
	if (c->iomap.type != IOMAP_MAPPED) { /* F10 */
		dax_warn(c->mapping->dev, "write fault without a block");
		return fault_error_or_fallback(c, -EIO);
	}
	if (c->order && !c->write && is_shared(c))
		return VM_FAULT_FALLBACK; /* R-b */
	*ret_sync = sync;
	return insert_block(c, sync);
}

/* The page is in the index and the filesystem agrees: let the client have it.
 */
static vm_fault_t map_block(struct ctx *c, bool sync, uint64_t *ret_pfn)
{
	if (sync) {
		*ret_pfn = c->pfn;
		return VM_FAULT_NEEDDSYNC;
	}
	trace_dax_fault(dax_insert_mapping, c->mapping->ino, c->first, c->order,
			c->write);
	return map_folio(c, c->write);
}

/* Begin, work, end; the entry is locked. */
static vm_fault_t fault_locked(struct ctx *c, uint64_t *ret_pfn)
{
	bool sync = false;
	vm_fault_t ret;
	int err;

	c->written = 0;
	c->inserted = false;
	c->iomap = (struct iomap){ .type = IOMAP_HOLE };
	c->srcmap = (struct iomap){ .type = IOMAP_HOLE };
	err = c->ops->begin(c->mapping, c->pos, c->size,
			    IOMAP_FAULT | (c->write ? IOMAP_WRITE : 0),
			    &c->iomap, &c->srcmap);
	if (err)
		return fault_error_or_fallback(c, err);
	ret = fault_iter(c, &sync);
	err = finish_iomap(c);
	if (err && c->inserted) {
		/* Read faults too: what is mapped must be what is there. */
		dax_unmap(c->mapping, c->first, UINT64_C(1) << c->order);
		revert_entry(c);
	}
	if (err) /* B19: also when it was to give back a block */
		return fault_error(c, err);
	if (ret == 0)
		ret = map_block(c, sync, ret_pfn);
	if ((c->iomap.flags & IOMAP_F_NEW) &&
	    !(ret & (VM_FAULT_SIGBUS | RETRY)))
		ret |= VM_FAULT_MAJOR;
	return ret;
}

static uint64_t size_in_pages(struct address_space *mapping)
{
	return (mapping->ops->size(mapping) + BLOCK_MASK) >> BLOCK_SHIFT;
}

static void ctx_init(struct ctx *c, struct dax_fault *vmf, struct xa_state *xas,
		     unsigned int order, const struct iomap_ops *ops)
{
	uint64_t nr = UINT64_C(1) << order;

	*c = (struct ctx){
		.vmf = vmf,
		.mapping = vmf->vma->mapping,
		.ops = ops,
		.xas = xas,
		.order = order,
		.first = vmf->index & ~(nr - 1),
		.size = nr << BLOCK_SHIFT,
		/* A private copy is made by reading the file. */
		.write = vmf->write && !vmf->cow_page,
	};
	c->pos = c->first << BLOCK_SHIFT;
	*xas = xas_make(&c->mapping->i_pages, vmf->index, order);
}

static vm_fault_t pte_fault(struct dax_fault *vmf, uint64_t *ret_pfn,
			    int *ret_err, const struct iomap_ops *ops)
{
	struct xa_state xas;
	struct ctx c;
	vm_fault_t ret;

	ctx_init(&c, vmf, &xas, 0, ops);
	/* The only look at i_size; the invalidate_lock keeps it true. */
	if (vmf->index >= size_in_pages(c.mapping))
		return VM_FAULT_SIGBUS;
	dax_entry_begin(c.mapping);
	do {
		ret = grab_mapping_entry(&c);
		if (ret)
			break;
		if (c.mapping->mapper->mapped(vmf->vma, vmf->index) ==
		    DAX_MAPPED_HUGE)
			ret = VM_FAULT_NOPAGE;
		else
			ret = fault_locked(&c, ret_pfn);
		if (c.entry)
			dax_unlock_entry(&xas, c.entry);
	} while (ret & RETRY);
	dax_entry_end(c.mapping);
	*ret_err = c.err;
	return ret;
}

/* Is an order-9 mapping out of the question for this vma and file? */
static bool pmd_misfit(const struct dax_fault *vmf, uint64_t nr_pages)
{
	const struct dax_vma *vma = vmf->vma;
	uint64_t mask = FOLIO_PAGES - 1;
	uint64_t addr = dax_vma_addr(vma, vmf->index);
	uint64_t start = addr & ~(CHUNK_SIZE - 1);

	return ((addr >> BLOCK_SHIFT) & mask) != (vmf->index & mask) || /* F2 */
	       (vmf->write && !(vma->flags & DAX_VMA_SHARED)) ||	/* F3 */
	       start < vma->start ||					/* F4 */
	       start + CHUNK_SIZE > vma->end ||				/* F5 */
	       (vmf->index | mask) >= nr_pages;				/* F6 */
}

static vm_fault_t pmd_fault_entry(struct ctx *c, uint64_t *ret_pfn)
{
	vm_fault_t ret = grab_mapping_entry(c);

	if (ret)
		return ret;
	/* A table of pages is there already: that is the answer. */
	if (c->mapping->mapper->mapped(c->vmf->vma, c->first) ==
	    DAX_MAPPED_TABLE)
		ret = 0;
	else
		ret = fault_locked(c, ret_pfn);
	dax_unlock_entry(c->xas, c->entry);
	return ret;
}

static vm_fault_t pmd_fault(struct dax_fault *vmf, uint64_t *ret_pfn,
			    int *ret_err, const struct iomap_ops *ops)
{
	struct xa_state xas;
	struct ctx c;
	vm_fault_t ret = VM_FAULT_FALLBACK;
	uint64_t nr_pages;

	ctx_init(&c, vmf, &xas, FOLIO_ORDER, ops);
	nr_pages = size_in_pages(c.mapping);
	if (vmf->index >= nr_pages)
		return VM_FAULT_SIGBUS;
	dax_entry_begin(c.mapping);
	if (!vmf->cow_page && !pmd_misfit(vmf, nr_pages))
		ret = pmd_fault_entry(&c, ret_pfn);
	dax_entry_end(c.mapping);
	if (ret & VM_FAULT_FALLBACK) {
		c.mapping->mapper->zap_huge(vmf->vma, c.first);
		atomic_fetch_add(&c.mapping->dev->stat.nr_pmd_fallbacks, 1);
	}
	*ret_err = c.err;
	return ret;
}

vm_fault_t dax_iomap_fault(struct dax_fault *vmf, unsigned int order,
			   uint64_t *ret_pfn, int *ret_err,
			   const struct iomap_ops *ops)
{
	struct address_space *mapping = vmf->vma->mapping;
	uint64_t ino = mapping->ino;
	vm_fault_t ret;
	int err = 0;

	if (order == 0) {
		atomic_fetch_add(&mapping->dev->stat.nr_pte_faults, 1);
		trace_dax_fault(dax_pte_fault, ino, vmf->index, order,
				vmf->write);
		ret = pte_fault(vmf, ret_pfn, &err, ops);
		trace_dax_done(dax_pte_fault_done, ino, vmf->index, order, ret);
	} else if (order == FOLIO_ORDER) {
		atomic_fetch_add(&mapping->dev->stat.nr_pmd_faults, 1);
		trace_dax_fault(dax_pmd_fault, ino, vmf->index, order,
				vmf->write);
		ret = pmd_fault(vmf, ret_pfn, &err, ops);
		trace_dax_done(dax_pmd_fault_done, ino, vmf->index, order, ret);
	} else {
		ret = VM_FAULT_FALLBACK; /* F1 */
	}
	if (ret_err)
		*ret_err = err;
	return ret;
}

/* Synchronous faults: the second half. */

/* Is the entry still the one that the first half inserted? */
static bool still_there(const struct ctx *c, const void *entry)
{
	if (!entry || dax_is_conflict(entry))
		return false;
	return dax_entry_order(entry) == c->order && dax_is_real_entry(entry) &&
	       dax_to_pfn(entry) == c->pfn;
}

static vm_fault_t insert_pfn_mkwrite(struct ctx *c)
{
	struct xa_state *xas = c->xas;
	uint64_t ino = c->mapping->ino;
	vm_fault_t ret;
	void *entry;

	xas_lock(xas);
	entry = dax_get_next_unlocked_entry(xas, c->order);
	if (!still_there(c, entry)) {
		dax_put_unlocked_entry(xas, entry, WAKE_NEXT);
		xas_unlock(xas);
		trace_dax_done(dax_insert_pfn_mkwrite_no_entry, ino, c->first,
			       c->order, VM_FAULT_NOPAGE);
		return VM_FAULT_NOPAGE;
	}
	xas_set_mark(xas, DAX_MARK_DIRTY);
	dax_lock_entry(xas, entry);
	xas_unlock(xas);
	ret = map_folio(c, true);
	dax_unlock_entry(xas, entry);
	trace_dax_done(dax_insert_pfn_mkwrite, ino, c->first, c->order, ret);
	return ret;
}

vm_fault_t dax_finish_sync_fault(struct dax_fault *vmf, unsigned int order,
				 uint64_t pfn)
{
	struct xa_state xas;
	struct ctx c;
	vm_fault_t ret;

	ctx_init(&c, vmf, &xas, order, NULL);
	c.pfn = pfn;
	if (c.mapping->ops->fsync(c.mapping, c.pos, c.size))
		return VM_FAULT_SIGBUS;
	if (c.mapping->ops->mark_dirty)
		c.mapping->ops->mark_dirty(c.mapping);
	dax_entry_begin(c.mapping);
	ret = insert_pfn_mkwrite(&c);
	dax_entry_end(c.mapping);
	return ret;
}
