/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/view.h - which addresses show which pages of which file
 *
 * A vma is what the daemon has a number for: a range of a file at a range of
 * addresses.  A view is a part of a vma that is still there, with one
 * protection.  Views do not overlap; the set keeps them by address.  Whoever
 * wants to change a part of a view cuts it at both ends first, and then has
 * whole views to change.
 *
 * Units.     Addresses in bytes, multiples of BLOCK_SIZE; pages elsewhere.
 * Errors.    Negative errno.
 * Locking.   The caller's: see dax/lib/pager.h.
 * Ownership. The set owns its array, which comes from mmap(2): the threads
 *            that use it must not need the program's malloc().  Vmas belong to
 *            whoever made them.
 */
#ifndef DAX_LIB_VIEW_H
#define DAX_LIB_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/media.h"

struct link;
struct foliofs_file;

struct vma {
	struct link *link;
	struct foliofs_file *file;
	uint64_t number; /* the daemon's */
	uintptr_t addr;
	uint64_t index; /* page of the file at @addr */
	uint64_t nr;
	uint64_t nr_left;	  /* pages in views */
	_Atomic(uint64_t) *dirty; /* a bit for each page mapped writable */
	struct vma *next;	  /* of the link's */
};

struct view {
	uintptr_t start;
	uintptr_t end;
	struct vma *vma;
	int prot;
};

struct view_set {
	struct view *v;
	size_t nr;
	size_t max; /* room in v */
};

void views_destroy(struct view_set *set);

/* Make room for @nr more, so that as many inserts and cuts cannot fail. */
int views_reserve(struct view_set *set, size_t nr);

/* The first view that ends behind @addr; set->nr when there is none. */
size_t views_lower(const struct view_set *set, uintptr_t addr);

/* The view at @addr, or NULL. */
struct view *views_find(const struct view_set *set, uintptr_t addr);

/* Is every byte of [start, end) in a view? */
bool views_cover(const struct view_set *set, uintptr_t start, uintptr_t end);

/* -EEXIST when it overlaps; -ENOMEM. */
int views_insert(struct view_set *set, const struct view *view);

/* Let no view reach across @addr.  -ENOMEM. */
int views_cut(struct view_set *set, uintptr_t addr);

/* Take [i, i + nr) out. */
void views_remove(struct view_set *set, size_t i, size_t nr);

static inline uint64_t vma_index(const struct vma *vma, uintptr_t addr)
{
	return vma->index + ((addr - vma->addr) >> BLOCK_SHIFT);
}

static inline uintptr_t vma_addr(const struct vma *vma, uint64_t index)
{
	return vma->addr + ((index - vma->index) << BLOCK_SHIFT);
}

#endif
