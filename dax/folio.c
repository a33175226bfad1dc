/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/folio.c - one record for each page of the device
 *
 * Every chunk of 512 records has one lock, a bit in its first record.  It is
 * held for a few stores, or for 512 records when an order-9 folio is put
 * together or taken apart.
 *
 * Putting the last reference does nothing but wake (I11), with two flags that
 * say otherwise, and which nobody sets on a folio that is associated: ORPHAN
 * and DEFERRED.  Setting a flag and reading the counter on one side, changing
 * the counter and reading the flags on the other, are sequentially consistent
 * operations: at least one side sees the other.  If both do, taking the flag
 * away decides who acts.
 */
#include "dax/folio.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ONE_REF (UINT64_C(1))
#define ONE_MAP (UINT64_C(1) << 32)

/* Spins before the processor is given away; a holder has few stores to do. */
#define CHUNK_SPINS 64

static uint32_t refs_of(uint64_t count)
{
	return (uint32_t)count;
}

static uint32_t maps_of(uint64_t count)
{
	return (uint32_t)(count >> 32);
}

int folio_table_create(uint64_t nr_pages, const struct folio_table_ops *ops,
		       void *ctx, struct folio_table **ret_table)
{
	struct folio_table *table;
	size_t size = nr_pages * sizeof(struct folio);

	table = calloc(1, sizeof(*table));
	if (!table)
		return -ENOMEM;
	table->folios =
		mmap(NULL, size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (table->folios == MAP_FAILED) {
		free(table);
		return -ENOMEM;
	}
	table->nr_pages = nr_pages;
	table->ops = ops;
	table->ctx = ctx;
	*ret_table = table;
	return 0;
}

void folio_table_destroy(struct folio_table *table)
{
	if (!table)
		return;
	munmap(table->folios, table->nr_pages * sizeof(struct folio));
	free(table);
}

struct folio *folio_page(struct folio_table *table, uint64_t pfn)
{
	struct folio *page = &table->folios[pfn];
	uintptr_t none = 0;

	assert(pfn < table->nr_pages);
	if (!atomic_load_explicit(&page->pgmap, memory_order_relaxed))
		atomic_compare_exchange_strong(&page->pgmap, &none,
					       (uintptr_t)table);
	return page;
}

struct folio_table *folio_pgmap(struct folio *page)
{
	return (struct folio_table *)atomic_load(&folio_head(page)->pgmap);
}

uint64_t folio_pfn(struct folio *page)
{
	return (uint64_t)(page - folio_pgmap(page)->folios);
}

/* The chunk lock. */

static struct folio *chunk_of(struct folio_table *table, uint64_t pfn)
{
	return &table->folios[pfn & ~(FOLIO_PAGES - 1)];
}

static struct folio *chunk_lock(struct folio_table *table, uint64_t pfn)
{
	struct folio *chunk = chunk_of(table, pfn);

	lock_rank_acquire(chunk, LOCK_FOLIO);
	lock_point();
	for (unsigned int i = 0;; i++) {
		if (!(atomic_fetch_or_explicit(&chunk->flags, FOLIO_LOCKED,
					       memory_order_acquire) &
		      FOLIO_LOCKED))
			return chunk;
		if (i >= CHUNK_SPINS)
			sched_yield();
	}
}

static void chunk_unlock(struct folio *chunk)
{
	lock_rank_release(chunk);
	atomic_fetch_and_explicit(&chunk->flags, ~FOLIO_LOCKED,
				  memory_order_release);
	lock_point();
}

static void set_order(struct folio *folio, unsigned int order)
{
	atomic_fetch_and(&folio->flags, ~FOLIO_ORDER_MASK);
	atomic_fetch_or(&folio->flags, order);
}

/*
 * B9: the union goes with the mapping, for order 0 as well.  An index that
 * stays would be read as a share by the next owner.
 */
static void clear_owner(struct folio *folio)
{
	atomic_store(&folio->share, 0);
	atomic_store(&folio->mapping, NULL);
}

/* Pages that a compound folio has; a short tail of the device has none. */
static uint64_t nr_folio_pages(const struct folio *head)
{
	return UINT64_C(1) << folio_order(head);
}

/* Can [pfn, pfn + 512) become one folio? */
static int may_compound(struct folio_table *table, uint64_t pfn)
{
	if (pfn % FOLIO_PAGES || pfn + FOLIO_PAGES > table->nr_pages)
		return -EEXIST;
	for (uint64_t i = 0; i < FOLIO_PAGES; i++) {
		const struct folio *page = &table->folios[pfn + i];

		if (!folio_is_free(page) || folio_order(page))
			return -EEXIST; /* R-b */
		if (!dax_folio_is_idle(page))
			return -EAGAIN; /* a pin outlived its entry */
	}
	return 0;
}

/* A4, A5: from 512 free records to one head and its tails. */
static void compound_init(struct folio_table *table, struct folio *head)
{
	assert(folio_order(head) == 0 && dax_folio_is_idle(head));
	for (uint64_t i = 1; i < FOLIO_PAGES; i++)
		atomic_store(&head[i].pgmap, (uintptr_t)head | 1);
	atomic_store(&head->pgmap, (uintptr_t)table);
	set_order(head, FOLIO_ORDER);
}

/*
 * Back to 512 records of order 0.  B2: nothing of the compound may stay, and
 * every record gets its table back.
 */
static void compound_dissolve(struct folio_table *table, struct folio *head)
{
	assert(dax_folio_is_idle(head)); /* A5 */
	set_order(head, 0);
	for (uint64_t i = 1; i < FOLIO_PAGES; i++) {
		assert(dax_folio_is_idle(&head[i]));
		clear_owner(&head[i]);
		atomic_store(&head[i].pgmap, (uintptr_t)table);
	}
}

/* Take the flag away; true for the one who did. */
static bool take_flag(struct folio *page, uint32_t flag)
{
	return atomic_fetch_and(&page->flags, ~flag) & flag;
}

/* Tell the owner of free space about those of the pages that it waits for. */
static void tell_idle(struct folio_table *table, uint64_t pfn, uint64_t nr)
{
	for (uint64_t i = pfn; i < pfn + nr; i++) {
		if (!(atomic_load(&table->folios[i].flags) & FOLIO_DEFERRED) ||
		    !take_flag(&table->folios[i], FOLIO_DEFERRED))
			continue;
		atomic_fetch_sub(&table->nr_deferred, 1);
		if (table->ops && table->ops->idle)
			table->ops->idle(table->ctx, i, 1);
	}
}

/* The last reference of a folio that has one of the two flags is gone. */
static void settle(struct folio *folio)
{
	struct folio_table *table = folio_pgmap(folio);
	uint64_t pfn = folio_pfn(folio), nr;
	struct folio *chunk;

	chunk = chunk_lock(table, pfn);
	nr = nr_folio_pages(folio);
	if (dax_folio_is_idle(folio) && take_flag(folio, FOLIO_ORPHAN))
		compound_dissolve(table, folio);
	chunk_unlock(chunk);
	tell_idle(table, pfn, nr);
}

/* References. */

void folio_hold(struct folio *folio)
{
	atomic_fetch_add(&folio->count, ONE_REF);
}

void folio_get(struct folio *folio)
{
	uint64_t old = atomic_fetch_add(&folio->count, ONE_REF);

	assert(refs_of(old) > 0); /* I2 */
}

bool folio_try_pin(struct folio *folio)
{
	uint64_t old = atomic_load(&folio->count);

	do {
		if (maps_of(old) == 0)
			return false; /* I2 */
	} while (!atomic_compare_exchange_weak(&folio->count, &old,
					       old + ONE_REF));
	return true;
}

/*
 * H1, B11: waiters want to know when only mappings are left, and upstream's
 * wake on 1 -> 0 does not tell them while somebody else maps the folio.  A
 * mapping that goes leaves the difference as it was, so it has news at 0 only.
 */
static void wake(struct folio *folio)
{
	unsigned int nr = wait_wake(folio, 0, WAKE_ALL);

	if (nr)
		atomic_fetch_add(&folio_pgmap(folio)->nr_wakes, nr);
}

static void became_idle(struct folio *folio)
{
	if (atomic_load(&folio->flags) & (FOLIO_ORPHAN | FOLIO_DEFERRED))
		settle(folio);
}

void folio_put(struct folio *folio)
{
	uint64_t count = atomic_fetch_sub(&folio->count, ONE_REF);

	assert(refs_of(count) > maps_of(count)); /* I1, B12 */
	count -= ONE_REF;
	if (refs_of(count) != maps_of(count))
		return;
	wake(folio);
	if (!count)
		became_idle(folio);
}

void folio_add_map(struct folio *folio)
{
	atomic_fetch_add(&folio->count, ONE_REF + ONE_MAP);
}

void folio_remove_map(struct folio *folio)
{
	uint64_t count = atomic_fetch_sub(&folio->count, ONE_REF + ONE_MAP);

	assert(maps_of(count) > 0 && refs_of(count) >= maps_of(count)); /* I1 */
	/*
	 * Nobody waits for the two flags here: they are for folios without
	 * entries, and those have no mappings (I10).
	 */
	if (count == ONE_REF + ONE_MAP)
		wake(folio);
}

int folio_wait(struct folio *folio, struct dax_task *task, uint64_t until_ns)
{
	struct waiter w;
	int ret = 0;

	while (!ret && dax_folio_is_busy(folio)) {
		wait_prepare(&w, folio, 0, false, task);
		if (!dax_folio_is_busy(folio))
			wait_cancel(&w);
		else
			ret = wait_sleep(&w, until_ns);
	}
	return ret;
}

/* Owners. */

bool folio_is_shared(const struct folio *folio)
{
	return !atomic_load(&folio->mapping) && atomic_load(&folio->share);
}

bool folio_is_free(const struct folio *folio)
{
	return !atomic_load(&folio->mapping) && !atomic_load(&folio->share);
}

struct folio_owner folio_owner(struct folio *folio)
{
	struct folio_table *table = folio_pgmap(folio);
	struct folio *chunk = chunk_lock(table, folio_pfn(folio));
	struct folio_owner owner = {
		.mapping = atomic_load(&folio->mapping),
		.index_or_share = atomic_load(&folio->share),
		.order = folio_order(folio),
	};

	chunk_unlock(chunk);
	return owner;
}

/* U -> X.  The first of several sharers is not counted as one. */
static int associate_first(struct folio_table *table, struct folio *folio,
			   unsigned int order, struct address_space *mapping,
			   uint64_t index)
{
	int ret;

	/* Somebody uses a block again that was not idle yet. */
	assert(!(atomic_load(&folio->flags) & FOLIO_DEFERRED));
	if (order && !take_flag(folio, FOLIO_ORPHAN)) {
		ret = may_compound(table, (uint64_t)(folio - table->folios));
		if (ret)
			return ret;
		compound_init(table, folio);
	}
	atomic_store(&folio->mapping, mapping);
	atomic_store(&folio->index, index);
	return 0;
}

/* X -> S(2), S(n) -> S(n + 1). */
static void associate_more(struct folio *folio)
{
	if (atomic_load(&folio->mapping)) {
		/*
		 * The union still has an index: share is set, not raised.
		 * Before the mapping goes, so that nobody sees a free folio.
		 */
		atomic_store(&folio->share, 1);
		atomic_store(&folio->mapping, NULL);
	}
	assert(atomic_load(&folio->share) != 0); /* A1 */
	atomic_fetch_add(&folio->share, 1);
}

static int associate_locked(struct folio_table *table, struct folio *page,
			    unsigned int order, struct address_space *mapping,
			    uint64_t index, bool shared)
{
	struct folio *folio = folio_head(page);

	if (atomic_load(&folio->flags) & FOLIO_ORPHAN &&
	    (folio != page || folio_order(folio) != order))
		return -EAGAIN; /* pinned from before, at another order */
	if (folio != page)
		return -EEXIST; /* inside a larger folio; R-b */
	if (folio_is_free(folio))
		return associate_first(table, folio, order, mapping, index);
	if (folio_order(folio) != order)
		return -EEXIST; /* A2 */
	if (!shared)
		return -EUCLEAN; /* A3, B8 */
	associate_more(folio);
	return 0;
}

int folio_try_associate(struct folio_table *table, uint64_t pfn,
			unsigned int order, struct address_space *mapping,
			uint64_t index, bool shared)
{
	struct folio *page = folio_page(table, pfn);
	struct folio *chunk = chunk_lock(table, pfn);
	int ret = associate_locked(table, page, order, mapping, index, shared);

	chunk_unlock(chunk);
	return ret;
}

void folio_associate(struct folio_table *table, uint64_t pfn,
		     unsigned int order, struct address_space *mapping,
		     uint64_t index, bool shared)
{
	int ret =
		folio_try_associate(table, pfn, order, mapping, index, shared);

	assert(ret == 0);
	(void)ret;
}

/*
 * The folio is U.  Nobody may have it mapped, since no entry is left to find
 * the mapping by (I10).
 */
static void release_owner(struct folio_table *table, struct folio *folio,
			  bool pinned_ok)
{
	clear_owner(folio);
	assert(folio_mapcount(folio) == 0);
	assert(pinned_ok || dax_folio_is_idle(folio)); /* A5 */
	if (!folio_order(folio))
		return;
	atomic_fetch_or(&folio->flags, FOLIO_ORPHAN);
	if (dax_folio_is_idle(folio) && take_flag(folio, FOLIO_ORPHAN))
		compound_dissolve(table, folio);
}

int folio_disassociate(struct folio *folio, struct address_space *mapping,
		       bool pinned_ok)
{
	struct folio_table *table = folio_pgmap(folio);
	struct folio *chunk = chunk_lock(table, folio_pfn(folio));
	struct address_space *owner = atomic_load(&folio->mapping);
	uint64_t share = atomic_load(&folio->share);
	int order = (int)folio_order(folio);

	lock_point(); /* nobody may come between */
	assert(!owner || owner == mapping);
	assert(owner || share > 0); /* A6, B12: never below 0 */
	if (!owner && share > 1) {
		atomic_store(&folio->share, share - 1);
		order = -1;
	} else {
		release_owner(table, folio, pinned_ok);
	}
	chunk_unlock(chunk);
	return order;
}

/* Blocks. */

/* A page on its own: nobody refers to it in any way. */
static bool page_idle(struct folio *page)
{
	return folio_head(page) == page && folio_order(page) == 0 &&
	       folio_is_free(page) && dax_folio_is_idle(page);
}

bool dax_block_idle(struct folio_table *table, uint64_t pfn, uint64_t nr)
{
	assert(pfn + nr <= table->nr_pages);
	for (uint64_t i = pfn; i < pfn + nr; i++)
		if (!page_idle(&table->folios[i]))
			return false;
	return true;
}

bool folio_release(struct folio_table *table, uint64_t pfn)
{
	struct folio *page = &table->folios[pfn];

	assert(pfn < table->nr_pages);
	if (page_idle(page))
		return true;
	assert(folio_is_free(folio_head(page))); /* I3 */
	atomic_fetch_add(&table->nr_deferred, 1);
	atomic_fetch_or(&page->flags, FOLIO_DEFERRED);
	/* The last reference may have gone before it could see the flag. */
	if (!page_idle(page) || !take_flag(page, FOLIO_DEFERRED))
		return false;
	atomic_fetch_sub(&table->nr_deferred, 1);
	return true;
}

void folio_set_poison(struct folio_table *table, uint64_t pfn, bool poison)
{
	struct folio *page = folio_page(table, pfn);

	if (!poison) {
		if (take_flag(page, FOLIO_POISON))
			atomic_fetch_sub(&table->nr_poisoned, 1);
	} else if (!(atomic_fetch_or(&page->flags, FOLIO_POISON) &
		     FOLIO_POISON)) {
		atomic_fetch_add(&table->nr_poisoned, 1);
	}
}

bool folio_is_poisoned(struct folio_table *table, uint64_t pfn, uint64_t nr)
{
	if (!atomic_load_explicit(&table->nr_poisoned, memory_order_relaxed))
		return false;
	for (uint64_t i = pfn; i < pfn + nr; i++)
		if (atomic_load(&table->folios[i].flags) & FOLIO_POISON)
			return true;
	return false;
}
