/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_table.c - the page table of a vma
 */
#include "dax/session_table.h"

#include <stdlib.h>

static uint64_t span_of(unsigned int level)
{
	return UINT64_C(1) << (TABLE_SHIFT * level);
}

void pte_place_set(struct pte_place *p, uint64_t value)
{
	if (p->table && !*p->slot && value)
		p->table->nr++;
	*p->slot = value;
}

static bool table_alloc(struct session_vma *vma, struct pte_place *p)
{
	struct session_client *c = vma->client;
	struct pte_table *t;

	if (c->nr_tables >= c->srv->limits.max_tables)
		return false;
	t = calloc(1, sizeof(*t));
	if (!t)
		return false;
	c->nr_tables++;
	pte_place_set(p, (uintptr_t)t);
	return true;
}

void pte_table_free(struct session_vma *vma, uint64_t *slot)
{
	free(pte_table_of(*slot));
	*slot = 0;
	vma->client->nr_tables--;
}

bool pte_find_place(struct session_vma *vma, uint64_t index, unsigned int level,
		    bool make, struct pte_place *p)
{
	uint64_t rel = index - vma_base(vma);

	*p = (struct pte_place){ .slot = &vma->root, .level = vma->height };
	while (p->level > level && !(*p->slot & PTE_PRESENT)) {
		if (!*p->slot && (!make || !table_alloc(vma, p)))
			return false;
		p->table = pte_table_of(*p->slot);
		p->level--;
		p->slot = &p->table->slot[(rel / span_of(p->level)) %
					  TABLE_SLOTS];
	}
	return true;
}

uint64_t pte_find(struct session_vma *vma, uint64_t index)
{
	struct pte_place p;

	return pte_find_place(vma, index, 0, false, &p) ? *p.slot : 0;
}

static bool walk_slot(struct pte_walk *w, uint64_t *slot, unsigned int level,
		      uint64_t base)
{
	uint64_t span, i;
	struct pte_table *t;
	bool go = true;

	if (!*slot)
		return true;
	if (*slot & PTE_PRESENT)
		return w->fn(w, slot, base, span_of(level));
	t = pte_table_of(*slot);
	span = span_of(level - 1);
	i = w->first > base ? (w->first - base) / span : 0;
	for (; go && i < TABLE_SLOTS && base + i * span <= w->last; i++) {
		if (!t->slot[i])
			continue;
		go = walk_slot(w, &t->slot[i], level - 1, base + i * span);
		t->nr -= !t->slot[i];
	}
	if (t->nr == 0)
		pte_table_free(w->vma, slot);
	return go;
}

bool pte_walk(struct pte_walk *w)
{
	w->lo = UINT64_MAX;
	w->hi = 0;
	return walk_slot(w, &w->vma->root, w->vma->height, vma_base(w->vma));
}

struct visit {
	session_pte_fn fn;
	void *ctx;
};

static bool visit_pte(struct pte_walk *w, uint64_t *slot, uint64_t index,
		      uint64_t nr)
{
	const struct visit *v = w->ctx;

	return v->fn(v->ctx, index, nr, *slot);
}

void session_vma_walk(struct session_client *c, struct session_vma *vma,
		      session_pte_fn fn, void *ctx)
{
	struct visit v = { fn, ctx };
	struct pte_walk w = {
		.vma = vma,
		.last = UINT64_MAX,
		.fn = visit_pte,
		.ctx = &v,
	};

	assert(vma->client == c);
	pte_walk(&w);
}
