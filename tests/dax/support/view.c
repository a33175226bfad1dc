/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/support/view.c - clients: vmas, page tables, a processor
 */
#include "tests/dax/support/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct view *view_of(struct dax_vma *vma)
{
	return (struct view *)vma;
}

static struct memfile *file_of(struct address_space *mapping)
{
	return mapping->host;
}

static bool covers(const struct view *v, uint64_t index)
{
	return index >= v->vma.pgoff && index < v->vma.pgoff + v->nr;
}

static struct pte *pte_of(struct view *v, uint64_t index)
{
	return &v->ptes[index - v->vma.pgoff];
}

static struct pte *pmd_of(struct view *v, uint64_t index)
{
	return &v->pmds[index / FOLIO_PAGES - v->vma.pgoff / FOLIO_PAGES];
}

static struct folio *folio_of(struct view *v, const struct pte *p)
{
	return folio_at(v->file->fs->dev->folios, p->pfn);
}

static void zap(struct view *v, struct pte *p)
{
	if (p->present && !p->zero)
		folio_remove_map(folio_of(v, p));
	p->present = false;
	p->write = false;
}

static int install(struct view *v, struct pte *p, const struct dax_map *map)
{
	if (p->present && (p->zero != map->zero || p->pfn != map->pfn))
		return map->write ? -EFAULT : -EBUSY;
	if (p->present) {
		p->write |= map->write; /* no new reference */
		return 0;
	}
	p->present = true;
	p->write = map->write;
	p->zero = map->zero;
	p->pfn = (uint32_t)map->pfn;
	if (!map->zero)
		folio_add_map(folio_of(v, p));
	return 0;
}

static enum dax_mapped mapped_locked(struct view *v, uint64_t index)
{
	uint64_t start = index & ~(FOLIO_PAGES - 1);

	if (pmd_of(v, index)->present)
		return DAX_MAPPED_HUGE;
	for (uint64_t i = start; i < start + FOLIO_PAGES; i++)
		if (covers(v, i) &&
		    (pte_of(v, i)->present || pte_of(v, i)->anon))
			return DAX_MAPPED_TABLE;
	return DAX_MAPPED_NONE;
}

static int view_map(struct dax_vma *vma, const struct dax_map *map)
{
	struct view *v = view_of(vma);
	struct memfs *fs = v->file->fs;
	int ret;

	if (fs->fail_map)
		return fs->fail_map;
	assert(!(map->zero && map->write));
	mutex_lock(&fs->mmu);
	if (map->order == 0 &&
	    (pmd_of(v, map->index)->present || pte_of(v, map->index)->anon))
		ret = -EBUSY;
	else if (map->order == 0)
		ret = install(v, pte_of(v, map->index), map);
	else if (mapped_locked(v, map->index) == DAX_MAPPED_TABLE)
		ret = -EBUSY;
	else
		ret = install(v, pmd_of(v, map->index), map);
	mutex_unlock(&fs->mmu);
	return ret;
}

static bool overlaps(uint64_t a, uint64_t nr_a, uint64_t b, uint64_t nr_b)
{
	uint64_t last_a = nr_a ? a + (nr_a - 1) : UINT64_MAX;

	return a < b + nr_b && b <= last_a;
}

/* Each translation of the mapping that overlaps [index, index + nr). */
static void for_each_pte(struct address_space *mapping, uint64_t index,
			 uint64_t nr, void (*fn)(struct view *v, struct pte *p))
{
	struct memfile *file = file_of(mapping);

	mutex_lock(&file->fs->mmu);
	for (struct view *v = file->views; v; v = v->next) {
		uint64_t first = v->vma.pgoff & ~(FOLIO_PAGES - 1);

		for (uint64_t i = 0; i < v->nr; i++)
			if (v->ptes[i].present &&
			    overlaps(index, nr, v->vma.pgoff + i, 1))
				fn(v, &v->ptes[i]);
		for (uint64_t i = 0; first < v->vma.pgoff + v->nr;
		     i++, first += FOLIO_PAGES)
			if (v->pmds[i].present &&
			    overlaps(index, nr, first, FOLIO_PAGES))
				fn(v, &v->pmds[i]);
	}
	mutex_unlock(&file->fs->mmu);
}

static void view_unmap_range(struct address_space *mapping, uint64_t index,
			     uint64_t nr)
{
	struct memfs *fs = file_of(mapping)->fs;

	if (fs->on_unmap)
		fs->on_unmap(file_of(mapping), index, nr);
	for_each_pte(mapping, index, nr, zap);
}

static void protect(struct view *v, struct pte *p)
{
	(void)v;
	p->write = false;
}

static int view_wrprotect(struct address_space *mapping, uint64_t index,
			  uint64_t nr)
{
	struct memfs *fs = file_of(mapping)->fs;

	if (fs->fail_wrprotect)
		return fs->fail_wrprotect;
	for_each_pte(mapping, index, nr, protect);
	if (fs->on_wrprotect)
		fs->on_wrprotect(file_of(mapping), index);
	return 0;
}

static enum dax_mapped view_mapped(struct dax_vma *vma, uint64_t index)
{
	struct view *v = view_of(vma);
	enum dax_mapped ret;

	mutex_lock(&v->file->fs->mmu);
	ret = mapped_locked(v, index);
	mutex_unlock(&v->file->fs->mmu);
	return ret;
}

static void view_zap_huge(struct dax_vma *vma, uint64_t index)
{
	struct view *v = view_of(vma);

	mutex_lock(&v->file->fs->mmu);
	zap(v, pmd_of(v, index));
	mutex_unlock(&v->file->fs->mmu);
}

/* The record that maps a page, with fs->mmu held. */
static struct pte *lookup(struct view *v, uint64_t index)
{
	struct pte *p;

	if (!covers(v, index))
		return NULL;
	p = pmd_of(v, index);
	if (p->present)
		return p;
	p = pte_of(v, index);
	return p->present || p->anon || p->killed ? p : NULL;
}

static uint64_t page_of(struct view *v, const struct pte *p, uint64_t index)
{
	return p->pfn + (p == pmd_of(v, index) ? index % FOLIO_PAGES : 0);
}

static bool view_lookup(struct dax_vma *vma, uint64_t index, bool write,
			uint64_t *ret_pfn)
{
	struct view *v = view_of(vma);
	const struct pte *p;
	bool found;

	mutex_lock(&v->file->fs->mmu);
	p = lookup(v, index);
	found = p && p->present && (p->write || !write);
	if (found)
		*ret_pfn = p->zero ? v->file->fs->dev->zero_pfn
				   : page_of(v, p, index);
	mutex_unlock(&v->file->fs->mmu);
	if (v->file->fs->on_lookup)
		v->file->fs->on_lookup(v->file);
	return found;
}

static void kill_pte(struct view *v, struct pte *p)
{
	zap(v, p);
	p->killed = true;
}

static void view_kill(struct address_space *mapping, uint64_t index,
		      uint64_t nr)
{
	for_each_pte(mapping, index, nr, kill_pte);
}

const struct dax_mapper_ops view_mapper_ops = {
	.map = view_map,
	.unmap = view_unmap_range,
	.wrprotect = view_wrprotect,
	.mapped = view_mapped,
	.zap_huge = view_zap_huge,
	.lookup = view_lookup,
	.kill = view_kill,
};

/* Faults, as a filesystem's handler takes them. */

static vm_fault_t fault_handler(struct dax_fault *vmf, unsigned int order,
				int *ret_err)
{
	struct address_space *mapping = vmf->vma->mapping;
	vm_fault_t ret;
	uint64_t pfn = 0;

	rwsem_down_read(&mapping->invalidate_lock, LOCK_INVALIDATE);
	ret = dax_iomap_fault(vmf, order, &pfn, ret_err, &memfs_iomap_ops);
	if (ret & VM_FAULT_NEEDDSYNC)
		ret = dax_finish_sync_fault(vmf, order, pfn);
	rwsem_up_read(&mapping->invalidate_lock);
	return ret;
}

static unsigned int vma_fault(struct dax_fault *vmf, unsigned int order)
{
	return fault_handler(vmf, order, NULL);
}

vm_fault_t view_fault_err(struct view *v, uint64_t index, bool write,
			  unsigned int order, int *ret_err)
{
	struct dax_fault vmf = { .vma = &v->vma,
				 .index = index,
				 .write = write };
	unsigned char *copy = NULL;
	vm_fault_t ret;

	if (write && !(v->vma.flags & DAX_VMA_SHARED) && order == 0)
		vmf.cow_page = copy = malloc(BLOCK_SIZE);
	ret = fault_handler(&vmf, order, ret_err);
	if (ret & VM_FAULT_DONE_COW) {
		mutex_lock(&v->file->fs->mmu);
		zap(v, pte_of(v, index));
		free(pte_of(v, index)->anon);
		pte_of(v, index)->anon = copy;
		mutex_unlock(&v->file->fs->mmu);
		copy = NULL;
	}
	free(copy);
	return ret;
}

vm_fault_t view_fault(struct view *v, uint64_t index, bool write,
		      unsigned int order)
{
	return view_fault_err(v, index, write, order, NULL);
}

/* The processor. */

static unsigned char *address_of(struct view *v, const struct pte *p,
				 uint64_t index)
{
	uintptr_t base = (uintptr_t)v->file->fs->pm->base;

	return (unsigned char *)(base + (page_of(v, p, index) << BLOCK_SHIFT));
}

/* One access, if the tables allow it: true. */
static bool access_page(struct view *v, uint64_t index, bool write,
			unsigned char *byte)
{
	struct pte *p;
	unsigned char *at;
	bool done = false;

	mutex_lock(&v->file->fs->mmu);
	p = lookup(v, index);
	if (!p || p->killed)
		goto out;
	if (!p->anon && write && !p->write)
		goto out;
	done = true;
	if (p->zero && !p->anon) {
		*byte = 0;
		goto out;
	}
	at = p->anon ? p->anon : address_of(v, p, index);
	if (write)
		*at = *byte;
	else
		*byte = *at;
out:
	mutex_unlock(&v->file->fs->mmu);
	return done;
}

static int access_or_fault(struct view *v, uint64_t index, bool write,
			   unsigned char *byte, bool huge)
{
	for (;;) {
		vm_fault_t ret = VM_FAULT_FALLBACK;

		if (access_page(v, index, write, byte))
			return 0;
		if (covers(v, index) && pte_of(v, index)->killed)
			return -EFAULT;
		if (huge || view_mapped(&v->vma, index) == DAX_MAPPED_HUGE)
			ret = view_fault(v, index, write, FOLIO_ORDER);
		if (ret & VM_FAULT_FALLBACK || ret == 0)
			ret = view_fault(v, index, write, 0);
		if (ret & VM_FAULT_ERROR)
			return -EFAULT;
	}
}

int view_load(struct view *v, uint64_t index, unsigned char *ret)
{
	return access_or_fault(v, index, false, ret, false);
}

int view_store(struct view *v, uint64_t index, unsigned char byte)
{
	return access_or_fault(v, index, true, &byte, false);
}

int view_store_huge(struct view *v, uint64_t index, unsigned char byte)
{
	return access_or_fault(v, index, true, &byte, true);
}

const struct pte *view_pte(struct view *v, uint64_t index)
{
	const struct pte *p;

	mutex_lock(&v->file->fs->mmu);
	p = lookup(v, index);
	mutex_unlock(&v->file->fs->mmu);
	return p && (p->present || p->anon) ? p : NULL;
}

/* Life of a view. */

struct view *view_open(struct memfile *file, uint64_t pgoff, uint64_t nr,
		       unsigned int flags)
{
	struct view *v = calloc(1, sizeof(*v));

	assert(v);
	v->file = file;
	v->nr = nr;
	v->ptes = calloc(nr, sizeof(*v->ptes));
	v->pmds = calloc(nr / FOLIO_PAGES + 2, sizeof(*v->pmds));
	v->vma.mapping = &file->mapping;
	v->vma.pgoff = pgoff;
	v->vma.start = (UINT64_C(1) << 40) + (pgoff << BLOCK_SHIFT);
	v->vma.end = v->vma.start + (nr << BLOCK_SHIFT);
	v->vma.flags = flags;
	v->vma.fault = vma_fault;
	mutex_lock(&file->fs->mmu);
	v->next = file->views;
	file->views = v;
	mutex_unlock(&file->fs->mmu);
	return v;
}

static void zap_all(struct view *v)
{
	for (uint64_t i = 0; i < v->nr; i++)
		zap(v, &v->ptes[i]);
	for (uint64_t i = 0; i < v->nr / FOLIO_PAGES + 2; i++)
		zap(v, &v->pmds[i]);
}

void view_unmap(struct view *v)
{
	mutex_lock(&v->file->fs->mmu);
	zap_all(v);
	mutex_unlock(&v->file->fs->mmu);
}

void view_close(struct view *v)
{
	mutex_lock(&v->file->fs->mmu);
	zap_all(v);
	for (struct view **p = &v->file->views; *p; p = &(*p)->next) {
		if (*p == v) {
			*p = v->next;
			break;
		}
	}
	mutex_unlock(&v->file->fs->mmu);
	for (uint64_t i = 0; i < v->nr; i++)
		free(v->ptes[i].anon);
	free(v->ptes);
	free(v->pmds);
	free(v);
}

/* The child's table: a copy of each translation, with its references. */
static void copy_ptes(struct view *v, struct pte *to, const struct pte *from,
		      uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++) {
		to[i] = from[i];
		if (from[i].present && !from[i].zero)
			folio_add_map(folio_of(v, &from[i]));
		if (!from[i].anon)
			continue;
		to[i].anon = malloc(BLOCK_SIZE);
		memcpy(to[i].anon, from[i].anon, BLOCK_SIZE);
	}
}

struct view *view_fork(struct view *v)
{
	struct view *child =
		view_open(v->file, v->vma.pgoff, v->nr, v->vma.flags);

	mutex_lock(&v->file->fs->mmu);
	copy_ptes(v, child->ptes, v->ptes, v->nr);
	copy_ptes(v, child->pmds, v->pmds, v->nr / FOLIO_PAGES + 2);
	mutex_unlock(&v->file->fs->mmu);
	return child;
}
