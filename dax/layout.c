/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/layout.c - layout break: wait until nobody relies on where a file lies
 *
 * Why no pin slips in.  A pin is taken from a mapping, with a second look at
 * the mapping afterwards (dax_pin()).  The range is unmapped first, and faults
 * need the invalidate_lock that the breaker holds, so a pin was either taken
 * before, and the scan sees its reference, or its second look fails.
 *
 * Why references by mappings do not count.  A shared folio may be mapped
 * through other files, and may go on being mapped there: only this file's
 * layout changes.
 */
#include "dax/layout.h"

#include <errno.h>

#include "dax/entry.h"

static uint64_t last_page(uint64_t end)
{
	return end >> BLOCK_SHIFT;
}

/*
 * H6: out to the bounds of the entries at both ends, so that no mapping of a
 * page outside the range keeps an order-9 folio in use.
 */
static void round_out(struct address_space *mapping, uint64_t *first,
		      uint64_t *last)
{
	XA_STATE(xas, &mapping->i_pages, *first);
	const void *entry;

	xas_lock(&xas);
	entry = xas_load(&xas);
	if (entry)
		*first = dax_entry_first(*first, entry);
	xas_set(&xas, *last);
	entry = xas_load(&xas);
	if (entry)
		*last = dax_entry_first(*last, entry) +
			(dax_entry_pages(entry) - 1);
	xas_unlock(&xas);
}

/* Let others at i_pages.lock now and then. */
static void breathe(struct xa_state *xas, unsigned int *nr)
	__must_hold(xas->xa->lock)
{
	if (++*nr % XA_CHECK_SCHED)
		return;
	xas_pause(xas);
	xas_unlock(xas);
	xas_lock(xas);
}

static struct folio *find_busy(struct address_space *mapping, uint64_t first,
			       uint64_t last, uint64_t *ret_index)
{
	XA_STATE(xas, &mapping->i_pages, first);
	struct folio *busy = NULL, *folio;
	unsigned int nr = 0;
	void *entry;

	dax_entry_begin(mapping);
	xas_lock(&xas);
	xas_for_each(&xas, entry, last)
	{
		/* At this index, and not at the next one (B3). */
		entry = dax_wait_entry_unlocked(&xas, entry);
		if (!entry)
			continue;
		folio = dax_is_real_entry(entry)
				? dax_entry_folio(mapping, entry)
				: NULL;
		dax_put_unlocked_entry(&xas, entry, WAKE_NEXT);
		if (folio && dax_folio_is_busy(folio)) {
			busy = folio;
			*ret_index = xas.index;
			break;
		}
		breathe(&xas, &nr);
	}
	xas_unlock(&xas);
	dax_entry_end(mapping);
	return busy;
}

struct folio *dax_layout_busy_page_range(struct address_space *mapping,
					 uint64_t start, uint64_t end,
					 uint64_t *ret_index)
{
	uint64_t first = start >> BLOCK_SHIFT, last = last_page(end);
	uint64_t index;

	if (!mapping->dax)
		return NULL;
	round_out(mapping, &first, &last);
	/* Always: a page that is mapped nowhere may still be pinned. */
	dax_unmap(mapping, first, last - first + 1);
	return find_busy(mapping, first, last, ret_index ? ret_index : &index);
}

static void delete_range(struct address_space *mapping, uint64_t start,
			 uint64_t end, bool pinned_ok)
{
	uint64_t last = last_page(end);
	XA_STATE(xas, &mapping->i_pages, start >> BLOCK_SHIFT);
	unsigned int nr = 0;
	void *entry;

	dax_entry_begin(mapping);
	xas_lock(&xas);
	xas_for_each(&xas, entry, last)
	{
		entry = dax_wait_entry_unlocked(&xas, entry);
		if (!entry)
			continue;
		/* Whole, if the range cuts it; H7: dirty or not. */
		dax_remove_entry(&xas, entry, pinned_ok);
		breathe(&xas, &nr);
	}
	xas_unlock(&xas);
	dax_entry_end(mapping);
}

void dax_delete_mapping_range(struct address_space *mapping, uint64_t start,
			      uint64_t end)
{
	delete_range(mapping, start, end, false);
}

/* What to do about a busy folio: a dax_verdict or an errno. */
static int ask(struct dax_break *brk, struct address_space *mapping,
	       struct folio *folio, uint64_t index)
{
	trace_dax_range(dax_break_busy, mapping->ino, index, folio_pfn(folio),
			folio_refcount(folio));
	brk->until_ns = 0;
	if (!brk->busy)
		return DAX_BREAK_WAIT;
	return brk->busy(brk, mapping, folio, index);
}

/*
 * H1, H2, H5: sleep with the caller's lock dropped and none of ours held.  Too
 * late is no error: the policy, which set the time, is asked again.
 */
static int sleep_on_folio(struct dax_break *brk, struct address_space *mapping,
			  struct folio *folio)
{
	int ret;

	atomic_fetch_add(&mapping->dev->stat.nr_break_waits, 1);
	trace_dax_range(dax_break_wait, mapping->ino, folio_pfn(folio),
			brk->nr_rounds, 0);
	brk->nr_rounds++;
	ret = folio_wait(folio, brk->task, brk->until_ns);
	return ret == -ETIMEDOUT ? 0 : ret;
}

/* Unmap and scan until nothing is busy.  0, DAX_BREAK_DEFER, or an errno. */
static int wait_not_busy(struct address_space *mapping, uint64_t start,
			 uint64_t end, struct dax_break *brk)
{
	struct folio *folio;
	uint64_t index = 0;
	int ret;

	for (;;) {
		/* All of the range again: the lock was dropped meanwhile. */
		folio = dax_layout_busy_page_range(mapping, start, end, &index);
		if (!folio)
			return 0; /* B13: nothing busy is success */
		ret = ask(brk, mapping, folio, index);
		if (ret)
			return ret;
		if (!brk->unlock)
			return -EAGAIN;
		brk->unlock(brk);
		ret = sleep_on_folio(brk, mapping, folio);
		brk->lock(brk);
		if (ret)
			return ret;
	}
}

static void delete_deferred(struct address_space *mapping, uint64_t start,
			    uint64_t end, const struct dax_break *brk)
{
	if (brk->defer_start || brk->defer_end) {
		start = brk->defer_start;
		end = brk->defer_end;
	}
	if (start <= end)
		delete_range(mapping, start, end, true);
}

int dax_break_layout(struct address_space *mapping, uint64_t start,
		     uint64_t end, struct dax_break *brk)
{
	struct dax_break nowait = { .ctx = NULL };
	int ret;

	if (!mapping->dax)
		return 0;
	atomic_fetch_add(&mapping->dev->stat.nr_breaks, 1);
	trace_dax_range(dax_break_begin, mapping->ino, start, end, 0);
	ret = wait_not_busy(mapping, start, end, brk ? brk : &nowait);
	if (ret == DAX_BREAK_DEFER)
		delete_deferred(mapping, start, end, brk);
	else if (ret == 0)
		delete_range(mapping, start, end, false);
	if (ret > 0)
		ret = 0;
	trace_dax_range(dax_break_end, mapping->ino, start, end, ret);
	return ret;
}

int dax_break_layout_inode(struct address_space *mapping, struct dax_break *brk)
{
	return dax_break_layout(mapping, 0, DAX_LAYOUT_END, brk);
}

static void no_lock(struct dax_break *brk)
{
	(void)brk;
}

void dax_break_layout_final(struct address_space *mapping)
{
	/* No task, no policy: an inode cannot go while its pages are in use. */
	struct dax_break brk = { .unlock = no_lock, .lock = no_lock };
	int ret = dax_break_layout_inode(mapping, &brk);

	assert(ret == 0);
	(void)ret;
}

/* Two files. */

struct pair {
	struct address_space *mapping; /* that may be waited for */
	struct dax_break *brk;
};

static void pair_unlock(struct dax_break *brk) __no_lock_analysis
{
	const struct pair *p = brk->ctx;

	rwsem_up_write(&p->mapping->invalidate_lock);
}

static void pair_lock(struct dax_break *brk) __no_lock_analysis
{
	const struct pair *p = brk->ctx;

	rwsem_down_write(&p->mapping->invalidate_lock, LOCK_INVALIDATE);
}

static int pair_busy(struct dax_break *brk, struct address_space *mapping,
		     struct folio *folio, uint64_t index)
{
	const struct pair *p = brk->ctx;
	int ret = ask(p->brk, mapping, folio, index);

	brk->until_ns = p->brk->until_ns;
	/* Blocks of a pair change owners: there is no putting it off. */
	return ret == DAX_BREAK_DEFER ? -EBUSY : ret;
}

static void order_pair(struct address_space **m1, struct address_space **m2)
{
	struct address_space *m = *m1;

	if ((*m1)->ino <= (*m2)->ino)
		return;
	*m1 = *m2;
	*m2 = m;
}

/*
 * One try, with both locks held at the end unless it failed or *ret_busy says
 * on what to sleep.
 */
static int try_pair(struct address_space *m1, struct address_space *m2,
		    struct dax_break *brk, struct folio **ret_busy)
	__no_lock_analysis
{
	struct pair p = { .mapping = m1, .brk = brk };
	struct dax_break one = {
		.unlock = pair_unlock,
		.lock = pair_lock,
		.busy = pair_busy,
		.ctx = &p,
		.task = brk->task,
	};
	uint64_t index = 0;
	int ret;

	pair_lock(&one);
	ret = dax_break_layout_inode(m1, &one);
	if (ret || m1 == m2)
		goto out;
	/* Nested: this one cannot be dropped and retaken on its own. */
	rwsem_down_write(&m2->invalidate_lock, LOCK_INVALIDATE2);
	*ret_busy = dax_layout_busy_page_range(m2, 0, DAX_LAYOUT_END, &index);
	if (!*ret_busy) {
		dax_delete_mapping_range(m2, 0, DAX_LAYOUT_END);
		return 0;
	}
	ret = pair_busy(&one, m2, *ret_busy, index);
	brk->until_ns = one.until_ns;
	rwsem_up_write(&m2->invalidate_lock);
out:
	if (ret || *ret_busy)
		pair_unlock(&one);
	return ret;
}

int dax_break_layout_pair(struct address_space *m1, struct address_space *m2,
			  struct dax_break *brk)
{
	struct dax_break wait = { .ctx = NULL };
	struct folio *busy;
	int ret;

	if (m1->dax != m2->dax)
		return -EINVAL;
	if (!brk)
		brk = &wait;
	order_pair(&m1, &m2);
	for (;;) {
		busy = NULL;
		ret = try_pair(m1, m2, brk, &busy);
		if (ret || !busy)
			return ret;
		/* H4: no lock held, interruptible, and no busy loop. */
		ret = sleep_on_folio(brk, m2, busy);
		if (ret)
			return ret;
	}
}

void dax_break_layout_pair_end(struct address_space *m1,
			       struct address_space *m2) __no_lock_analysis
{
	order_pair(&m1, &m2);
	if (m1 != m2)
		rwsem_up_write(&m2->invalidate_lock);
	rwsem_up_write(&m1->invalidate_lock);
}
