/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_vma.c - what clients have mapped: the mapper, and faults
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dax/session_table.h"

/* Pages that one fault brings with it at most. */
#define AROUND_MAX FOLIO_PAGES

static struct session_vma *vma_of(struct dax_vma *dv)
{
	return (struct session_vma *)dv;
}

struct session_vma *session_vma_find(struct session_client *c, uint64_t number)
{
	struct session_vma *vma;

	LIST_FOREACH(vma, &c->vmas[number % VMA_BUCKETS], link)
	if (vma->number == number)
		return vma;
	return NULL;
}

/* The mapper. */

/* There is a translation already. */
static int map_again(struct session_vma *vma, uint64_t *slot,
		     const struct dax_map *map)
{
	bool zero = *slot & PTE_ZERO;

	(void)vma;
	if (*slot & PTE_RECALL)
		return -EBUSY;
	if (zero != map->zero || (!zero && pte_pfn(*slot) != map->pfn))
		return map->write ? -EFAULT : -EBUSY;
	/* A protection that was asked for and not answered is overtaken. */
	if (map->write)
		*slot = (*slot | PTE_WRITE) & ~(uint64_t)PTE_WRPROT;
	return 0;
}

static uint64_t make_pte(const struct dax_map *map)
{
	uint64_t pte = PTE_PRESENT;

	if (map->order)
		pte |= PTE_HUGE;
	if (map->write)
		pte |= PTE_WRITE;
	if (map->zero)
		return pte | PTE_ZERO;
	return pte | map->pfn << PTE_PFN_SHIFT;
}

static int map_locked(struct session_vma *vma, const struct dax_map *map)
	__must_hold(vma->client->lock)
{
	unsigned int level = map->order ? 1 : 0;
	struct pte_place p;

	if (vma->dead)
		return -EBUSY;
	if (!pte_find_place(vma, map->index, level, true, &p))
		return -ENOMEM;
	if (p.level != level)
		return -EBUSY; /* one page of an order-9 translation */
	if (*p.slot & PTE_PRESENT)
		return map_again(vma, p.slot, map);
	if (*p.slot && pte_table_of(*p.slot)->nr > 0)
		return -EBUSY;
	if (*p.slot)
		pte_table_free(vma, p.slot);
	pte_place_set(&p, make_pte(map));
	if (!map->zero)
		folio_add_map(pte_folio(vma, *p.slot));
	return 0;
}

static int mapper_map(struct dax_vma *dv, const struct dax_map *map)
{
	struct session_vma *vma = vma_of(dv);
	int ret;

	mutex_lock(&vma->client->lock);
	ret = map_locked(vma, map);
	mutex_unlock(&vma->client->lock);
	return ret;
}

static void mapper_unmap(struct address_space *mapping, uint64_t index,
			 uint64_t nr)
{
	session_recall(mapping, index, nr, SESSION_RECALL_ZAP);
}

static int mapper_wrprotect(struct address_space *mapping, uint64_t index,
			    uint64_t nr)
{
	return session_recall(mapping, index, nr, SESSION_RECALL_WRPROTECT);
}

static void mapper_kill(struct address_space *mapping, uint64_t index,
			uint64_t nr)
{
	session_recall(mapping, index, nr, SESSION_RECALL_KILL);
}

static enum dax_mapped mapper_mapped(struct dax_vma *dv, uint64_t index)
{
	struct session_vma *vma = vma_of(dv);
	enum dax_mapped ret = DAX_MAPPED_NONE;
	struct pte_place p;

	mutex_lock(&vma->client->lock);
	if (pte_find_place(vma, index, 1, false, &p)) {
		if (*p.slot & PTE_PRESENT)
			ret = DAX_MAPPED_HUGE;
		else if (*p.slot && pte_table_of(*p.slot)->nr > 0)
			ret = DAX_MAPPED_TABLE;
	}
	mutex_unlock(&vma->client->lock);
	return ret;
}

static void mapper_zap_huge(struct dax_vma *dv, uint64_t index)
{
	if (mapper_mapped(dv, index) == DAX_MAPPED_HUGE)
		session_recall_huge(vma_of(dv), index);
}

static bool mapper_lookup(struct dax_vma *dv, uint64_t index, bool write,
			  uint64_t *ret_pfn)
{
	struct session_vma *vma = vma_of(dv);
	uint64_t pte;

	mutex_lock(&vma->client->lock);
	pte = pte_find(vma, index);
	mutex_unlock(&vma->client->lock);
	if (!(pte & PTE_PRESENT) || (pte & PTE_RECALL))
		return false;
	if (write && (!(pte & PTE_WRITE) || (pte & PTE_WRPROT)))
		return false;
	if (pte & PTE_ZERO)
		*ret_pfn = dv->mapping->dev->zero_pfn;
	else if (pte & PTE_HUGE)
		*ret_pfn = pte_pfn(pte) + index % FOLIO_PAGES;
	else
		*ret_pfn = pte_pfn(pte);
	return true;
}

const struct dax_mapper_ops session_mapper = {
	.map = mapper_map,
	.unmap = mapper_unmap,
	.wrprotect = mapper_wrprotect,
	.mapped = mapper_mapped,
	.zap_huge = mapper_zap_huge,
	.lookup = mapper_lookup,
	.kill = mapper_kill,
};

/* Faults: with the invalidate_lock, shared. */

static vm_fault_t fault_order(struct dax_fault *vmf, unsigned int order,
			      int *ret_err)
{
	const struct session_server *srv = vma_of(vmf->vma)->client->srv;
	vm_fault_t ret;
	uint64_t pfn = 0;

	ret = dax_iomap_fault(vmf, order, &pfn, ret_err, srv->ops->iomap);
	if (ret & VM_FAULT_NEEDDSYNC)
		ret = dax_finish_sync_fault(vmf, order, pfn);
	return ret;
}

/* For dax_pin(). */
static unsigned int vma_fault(struct dax_fault *vmf, unsigned int order)
{
	struct address_space *mapping = vmf->vma->mapping;
	vm_fault_t ret;
	int err;

	rwsem_down_read(&mapping->invalidate_lock, LOCK_INVALIDATE);
	ret = fault_order(vmf, order, &err);
	rwsem_up_read(&mapping->invalidate_lock);
	return ret;
}

/* Can the 2 MiB around a page be one translation, as far as we know? */
static bool fits_huge(const struct dax_vma *dv, uint64_t index)
{
	uint64_t first = index & ~(FOLIO_PAGES - 1);
	uint64_t nr = (dv->end - dv->start) >> BLOCK_SHIFT;

	return ((dv->start >> BLOCK_SHIFT) - dv->pgoff) % FOLIO_PAGES == 0 &&
	       first >= dv->pgoff && first + FOLIO_PAGES <= dv->pgoff + nr;
}

static int fault_result(vm_fault_t ret, int err)
{
	if (ret & VM_FAULT_OOM)
		return -ENOMEM;
	if (ret & VM_FAULT_SIGBUS)
		return err ? err : -EFAULT;
	return 0;
}

static int fault_page(struct dax_fault *vmf)
{
	vm_fault_t ret = VM_FAULT_FALLBACK;
	int err = 0;

	if (fits_huge(vmf->vma, vmf->index) &&
	    mapper_mapped(vmf->vma, vmf->index) != DAX_MAPPED_TABLE)
		ret = fault_order(vmf, FOLIO_ORDER, &err);
	/* 0: somebody was faster with a single page. */
	if (ret == 0 || (ret & VM_FAULT_FALLBACK))
		ret = fault_order(vmf, 0, &err);
	return fault_result(ret, err);
}

/*
 * How many pages from @index on, at most @nr, are there without allocating or
 * copying.  A guess: the layout stands still, but somebody may fault on them.
 */
static uint64_t cheap_pages(struct session_vma *vma, uint64_t index,
			    uint64_t nr, bool write)
{
	struct address_space *mapping = vma->dv.mapping;
	const struct iomap_ops *ops = vma->client->srv->ops->iomap;
	struct iomap iomap = { .type = IOMAP_HOLE };
	struct iomap srcmap = { .type = IOMAP_HOLE };
	uint64_t pos = index << BLOCK_SHIFT, len = nr << BLOCK_SHIFT, end;

	if (ops->begin(mapping, pos, len, IOMAP_REPORT, &iomap, &srcmap))
		return 0;
	if (ops->end)
		ops->end(mapping, pos, len, 0, IOMAP_REPORT, &iomap);
	if (iomap.type != IOMAP_MAPPED ||
	    (write && (iomap.flags & IOMAP_F_SHARED)) ||
	    iomap.offset + iomap.length <= pos)
		return 0;
	end = (iomap.offset + iomap.length) >> BLOCK_SHIFT;
	return end - index < nr ? end - index : nr;
}

static void fault_around(struct dax_fault *vmf, uint64_t nr)
{
	struct session_vma *vma = vma_of(vmf->vma);
	struct address_space *mapping = vma->dv.mapping;
	uint64_t end = vmf->index + nr, cheap = 0, size;
	uint64_t pfn;
	int err;

	if (mapper_mapped(vmf->vma, vmf->index) == DAX_MAPPED_HUGE)
		return;
	size = (mapping->ops->size(mapping) + BLOCK_MASK) >> BLOCK_SHIFT;
	if (end > size)
		end = size;
	for (vmf->index++; vmf->index < end; vmf->index++, cheap--) {
		if (cheap == 0)
			cheap = cheap_pages(vma, vmf->index, end - vmf->index,
					    vmf->write);
		if (cheap == 0)
			return;
		if (mapper_lookup(vmf->vma, vmf->index, vmf->write, &pfn))
			continue;
		if (fault_order(vmf, 0, &err) & VM_FAULT_ERROR)
			return;
	}
}

int session_vma_fault(struct session_vma *vma, uint64_t index, uint64_t nr,
		      bool write, bool around)
{
	struct address_space *mapping = vma->dv.mapping;
	struct dax_fault vmf = {
		.vma = &vma->dv,
		.index = index,
		.write = write,
	};
	int ret;

	atomic_fetch_add(&vma->client->srv->nr_faults, 1);
	rwsem_down_read(&mapping->invalidate_lock, LOCK_INVALIDATE);
	ret = fault_page(&vmf);
	if (ret == 0 && around)
		fault_around(&vmf, nr < AROUND_MAX ? nr : AROUND_MAX);
	rwsem_up_read(&mapping->invalidate_lock);
	return ret;
}

/* Segments. */

static bool joins(const struct session_seg *s, const struct session_seg *next)
{
	if (s->flags != next->flags || s->index + s->nr != next->index)
		return false;
	return (s->flags & SESSION_SEG_ZERO) ||
	       s->off + ((uint64_t)s->nr << BLOCK_SHIFT) == next->off;
}

static bool add_seg(struct pte_walk *w, uint64_t *slot, uint64_t index,
		    uint64_t nr)
{
	struct session_fault_reply *r = w->ctx;
	struct session_seg seg = { .index = index, .nr = (uint32_t)nr };

	if (*slot & PTE_RECALL)
		return true;
	if (*slot & PTE_ZERO)
		seg.flags |= SESSION_SEG_ZERO;
	else
		seg.off = pte_pfn(*slot) << BLOCK_SHIFT;
	if ((*slot & PTE_WRITE) && !(*slot & PTE_WRPROT))
		seg.flags |= SESSION_SEG_WRITE;
	if (r->nr_segs > 0 && joins(&r->seg[r->nr_segs - 1], &seg)) {
		r->seg[r->nr_segs - 1].nr += seg.nr;
		return true;
	}
	if (r->nr_segs == SESSION_MAX_SEGS)
		return false;
	r->seg[r->nr_segs++] = seg;
	return true;
}

/*
 * Only what is in the table now is said, and it is said before anybody can
 * take it back (S3).  What was taken back since it was faulted in is missing.
 */
void session_vma_reply(struct session_vma *vma, uint32_t id, uint64_t index,
		       uint64_t nr, bool write)
{
	struct session_client *c = vma->client;
	struct session_fault_reply r = {
		.reply.head = { .op = SESSION_REPLY, .id = id },
	};
	struct pte_walk w = {
		.vma = vma,
		.first = index,
		.last = index + (nr < AROUND_MAX ? nr : AROUND_MAX) - 1,
		.fn = add_seg,
		.ctx = &r,
	};

	mutex_lock(&c->lock);
	pte_walk(&w);
	if (r.nr_segs == 0 || r.seg[0].index > index ||
	    (write && !(r.seg[0].flags & SESSION_SEG_WRITE)))
		r.reply.error = -EAGAIN;
	client_send(c, &r, r.reply.error ? sizeof(r.reply) : sizeof(r), -1);
	c->no_merge = c->seq;
	mutex_unlock(&c->lock);
}

/* Vmas come and go. */

static void link_file(struct session_vma *vma)
{
	struct address_space *mapping = vma->dv.mapping;
	struct mutex *lock = session_file_lock(mapping);

	mutex_lock(lock);
	vma->next = atomic_load(&mapping->session_vmas);
	atomic_store(&mapping->session_vmas, vma);
	if (vma->loose)
		session_mail_loose(mapping, 1);
	mutex_unlock(lock);
}

static void unlink_file(struct session_vma *vma)
{
	struct address_space *mapping = vma->dv.mapping;
	struct mutex *lock = session_file_lock(mapping);
	struct session_vma *v;

	mutex_lock(lock);
	v = atomic_load(&mapping->session_vmas);
	if (v == vma) {
		atomic_store(&mapping->session_vmas, vma->next);
	} else {
		while (v->next != vma)
			v = v->next;
		v->next = vma->next;
	}
	if (vma->loose)
		session_mail_loose(mapping, -1);
	mutex_unlock(lock);
}

static int link_client(struct session_vma *vma)
{
	struct session_client *c = vma->client;
	int ret = 0;

	mutex_lock(&c->lock);
	if (c->state != CLIENT_READY || c->shut)
		ret = -ESHUTDOWN;
	else if (c->nr_vmas >= c->srv->limits.max_vmas)
		ret = -ENOSPC;
	if (ret == 0) {
		c->nr_vmas++;
		vma->number = ++c->next_number;
		LIST_INSERT_HEAD(&c->vmas[vma->number % VMA_BUCKETS], vma,
				 link);
	}
	mutex_unlock(&c->lock);
	return ret;
}

static unsigned int height_of(const struct session_vma *vma)
{
	uint64_t last = vma->dv.pgoff + vma_nr(vma) - 1 - vma_base(vma);
	unsigned int height = 1;

	while (last >> (TABLE_SHIFT * height))
		height++;
	return height;
}

static void vma_free(struct session_vma *vma)
{
	struct session_client *c = vma->client;

	c->srv->ops->put(vma->dv.mapping);
	client_put(c);
	free(vma);
}

int session_vma_create(struct session_client *c, struct address_space *mapping,
		       const struct session_map *m, bool write,
		       uint64_t *ret_number)
{
	struct session_vma *vma = calloc(1, sizeof(*vma));
	int ret;

	if (!vma)
		return -ENOMEM;
	vma->dv = (struct dax_vma){
		.mapping = mapping,
		.start = m->addr,
		.end = m->addr + (m->nr << BLOCK_SHIFT),
		.pgoff = m->index,
		.flags = DAX_VMA_SHARED |
			 (m->flags & SESSION_MAP_SYNC ? DAX_VMA_SYNC : 0),
		.fault = vma_fault,
	};
	vma->client = c;
	vma->write = write;
	vma->loose = write && !(m->flags & SESSION_MAP_FLUSHED);
	vma->users = 1;
	vma->since_ns = session_now();
	vma->height = height_of(vma);
	client_get(c);
	c->srv->ops->get(mapping);
	/* In this order: whoever knows the vma can give it translations. */
	link_file(vma);
	ret = link_client(vma);
	if (ret) {
		unlink_file(vma);
		vma_free(vma);
		return ret;
	}
	*ret_number = vma->number;
	return 0;
}

struct session_vma *session_vma_get(struct session_client *c, uint64_t number)
{
	struct session_vma *vma;

	mutex_lock(&c->lock);
	vma = session_vma_find(c, number);
	if (vma && vma->dead)
		vma = NULL;
	if (vma)
		vma->users++;
	mutex_unlock(&c->lock);
	return vma;
}

void session_vma_put(struct session_vma *vma)
{
	struct session_client *c = vma->client;
	bool last;

	mutex_lock(&c->lock);
	last = --vma->users == 0;
	mutex_unlock(&c->lock);
	if (last)
		vma_free(vma);
}

void session_vma_end(struct session_vma *vma)
{
	struct session_client *c = vma->client;
	bool was_dead;

	mutex_lock(&c->lock);
	was_dead = vma->dead;
	vma->dead = true;
	mutex_unlock(&c->lock);
	if (was_dead)
		return;
	/* It is found by those who take back until it has nothing left. */
	session_vma_unmap(vma, 0, UINT64_MAX);
	unlink_file(vma);
	mutex_lock(&c->lock);
	LIST_REMOVE(vma, link);
	c->nr_vmas--;
	mutex_unlock(&c->lock);
	session_vma_put(vma);
}
