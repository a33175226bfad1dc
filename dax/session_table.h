/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_table.h - the page table of a vma
 *
 * Private to dax/session*.c.  Like a processor's: tables of 512 slots; a slot
 * is empty, a translation (PTE_PRESENT), or a table of the next lower level.
 * A translation on the lowest but one level is of order 9.  The root is a slot
 * itself, of a level that the size of the vma decides.
 *
 * Locking.   client->lock, for all of it.
 */
#ifndef DAX_SESSION_TABLE_H
#define DAX_SESSION_TABLE_H

#include "dax/session_i.h"

/* Slots of a table, as pages of an order-9 folio. */
#define TABLE_SHIFT FOLIO_ORDER
#define TABLE_SLOTS FOLIO_PAGES

struct pte_table {
	uint64_t slot[TABLE_SLOTS];
	unsigned int nr; /* of slots in use */
};

static inline uint64_t vma_nr(const struct session_vma *vma)
{
	return (vma->dv.end - vma->dv.start) >> BLOCK_SHIFT;
}

/* The page that slot 0 of the root is for; tables are aligned in the file. */
static inline uint64_t vma_base(const struct session_vma *vma)
{
	return vma->dv.pgoff & ~(TABLE_SLOTS - 1);
}

static inline uint64_t pte_pfn(uint64_t pte)
{
	return pte >> PTE_PFN_SHIFT;
}

static inline uint64_t pte_seq(uint32_t seq)
{
	return (uint64_t)(seq & PTE_SEQ_MASK) << PTE_SEQ_SHIFT;
}

/* Was it marked by recall @seq, or before that one? */
static inline bool pte_marked_by(uint64_t pte, uint32_t seq)
{
	uint32_t by = (uint32_t)(pte >> PTE_SEQ_SHIFT) & PTE_SEQ_MASK;

	return ((seq - by) & PTE_SEQ_MASK) <= PTE_SEQ_MASK / 2;
}

static inline struct folio *pte_folio(const struct session_vma *vma,
				      uint64_t pte)
{
	return folio_at(vma->dv.mapping->dev->folios, pte_pfn(pte));
}

static inline struct pte_table *pte_table_of(uint64_t slot)
{
	return (struct pte_table *)(uintptr_t)slot;
}

struct pte_place {
	uint64_t *slot;
	struct pte_table *table; /* that the slot is in; NULL: the root */
	unsigned int level;
};

/*
 * The slot of a page, down to @level; stops at what is there already.  False:
 * there is no such slot, and none could be made.
 */
bool pte_find_place(struct session_vma *vma, uint64_t index, unsigned int level,
		    bool make, struct pte_place *p);

/* Fill or empty it. */
void pte_place_set(struct pte_place *p, uint64_t value);

/* A table without translations goes. */
void pte_table_free(struct session_vma *vma, uint64_t *slot);

/* The translation of a page, or 0. */
uint64_t pte_find(struct session_vma *vma, uint64_t index);

/* A walk over the translations that touch [first, last]. */
struct pte_walk {
	struct session_vma *vma;
	uint64_t first, last;
	bool (*fn)(struct pte_walk *w, uint64_t *slot, uint64_t index,
		   uint64_t nr);
	void *ctx;

	uint32_t seq;	 /* mark with it, or take what it marked */
	bool late;	 /* nobody will answer */
	uint64_t lo, hi; /* of what was found */
	unsigned int nr_fresh, nr_pending, nr_stuck;

	/* S4: to be put when the lock is dropped. */
	unsigned int nr_puts;
	struct folio *puts[64];
};

/* Calls fn for each, which may empty the slot.  True: to the end. */
bool pte_walk(struct pte_walk *w);

#endif
