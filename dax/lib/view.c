/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/view.c - which addresses show which pages of which file
 *
 * A sorted array: lookups are many and must be short, changes are as rare as
 * mmap(2).
 */
#include "dax/lib/view.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST_ROOM 1024 /* views; a multiple of what fills a page */

void views_destroy(struct view_set *set)
{
	if (set->v)
		munmap(set->v, set->max * sizeof(*set->v));
	*set = (struct view_set){ 0 };
}

int views_reserve(struct view_set *set, size_t nr)
{
	size_t max = set->max ? set->max : FIRST_ROOM;
	void *p;

	while (max < set->nr + nr)
		max *= 2;
	if (max == set->max)
		return 0;
	if (set->v)
		p = mremap(set->v, set->max * sizeof(*set->v),
			   max * sizeof(*set->v), MREMAP_MAYMOVE);
	else
		p = mmap(NULL, max * sizeof(*set->v), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	set->v = p;
	set->max = max;
	return 0;
}

size_t views_lower(const struct view_set *set, uintptr_t addr)
{
	size_t lo = 0, hi = set->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (set->v[mid].end > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

struct view *views_find(const struct view_set *set, uintptr_t addr)
{
	size_t i = views_lower(set, addr);

	return i < set->nr && set->v[i].start <= addr ? &set->v[i] : NULL;
}

bool views_cover(const struct view_set *set, uintptr_t start, uintptr_t end)
{
	for (size_t i = views_lower(set, start); start < end; i++) {
		if (i == set->nr || set->v[i].start > start)
			return false;
		start = set->v[i].end;
	}
	return true;
}

static void open_gap(struct view_set *set, size_t i)
{
	memmove(&set->v[i + 1], &set->v[i], (set->nr - i) * sizeof(*set->v));
	set->nr++;
}

int views_insert(struct view_set *set, const struct view *view)
{
	size_t i = views_lower(set, view->start);
	int ret;

	assert(view->start < view->end);
	if (i < set->nr && set->v[i].start < view->end)
		return -EEXIST;
	ret = views_reserve(set, 1);
	if (ret)
		return ret;
	open_gap(set, i);
	set->v[i] = *view;
	return 0;
}

int views_cut(struct view_set *set, uintptr_t addr)
{
	size_t i = views_lower(set, addr);
	int ret;

	if (i == set->nr || set->v[i].start >= addr)
		return 0;
	ret = views_reserve(set, 1);
	if (ret)
		return ret;
	open_gap(set, i);
	set->v[i + 1] = set->v[i];
	set->v[i].end = addr;
	set->v[i + 1].start = addr;
	return 0;
}

void views_remove(struct view_set *set, size_t i, size_t nr)
{
	assert(i + nr <= set->nr);
	memmove(&set->v[i], &set->v[i + nr],
		(set->nr - i - nr) * sizeof(*set->v));
	set->nr -= nr;
}
