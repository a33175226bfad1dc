/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_model.c - a million random operations against a model
 *
 * Scenario 72.  Four files, of which a few pages in each 2 MiB are used, so
 * that all of them can be looked at after every step.  The model knows what
 * byte every page has to show, and which pages are pinned; who refers to a
 * folio is counted anew from the indices and the page tables each time.  The
 * clock of the world is one thread: what has to wait is refused instead, and
 * the model says whether that was right.
 *
 * FOLIOFS_STEPS and FOLIOFS_SEED in the environment change the run; a failure
 * names both.
 */
#include "tests/dax/support/common.h"

#include <stdio.h>

#define NR_FILES  4
#define NR_VIEWS  3
#define NR_PINS	  5
#define NR_CHUNKS 2
#define NR_SPOTS  6 /* pages used in a chunk */
#define NR_PAGES  (NR_CHUNKS * NR_SPOTS)
#define FULL	  (NR_CHUNKS * FOLIO_PAGES)

static const unsigned int spots[NR_SPOTS] = { 0, 1, 9, 100, 510, 511 };

static struct {
	struct memfile *file;
	struct view *views[NR_VIEWS];
	unsigned char bytes[NR_PAGES]; /* what each page shows */
} files[NR_FILES];

static struct {
	struct folio *folio;
	uint64_t pfn;
} pins[NR_PINS];

static uint64_t seed, step;
static const char *op_name = "";

static uint64_t rnd(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % n;
}

#define check(cond)                                                     \
	do {                                                            \
		if (!(cond)) {                                          \
			fprintf(stderr, "step %lu (%s), line %d: %s\n", \
				(unsigned long)step, op_name, __LINE__, \
				#cond);                                 \
			abort();                                        \
		}                                                       \
	} while (0)

static uint64_t page_index(unsigned int page)
{
	return page / NR_SPOTS * FOLIO_PAGES + spots[page % NR_SPOTS];
}

static uint64_t size_of(unsigned int f)
{
	return atomic_load(&files[f].file->size) >> BLOCK_SHIFT;
}

static struct view *new_view(unsigned int f)
{
	/* One in four is private. */
	return view_open(files[f].file, 0, FULL, rnd(4) ? DAX_VMA_SHARED : 0);
}

static void new_file(unsigned int f)
{
	files[f].file = file_create(fs, FULL);
	for (int v = 0; v < NR_VIEWS; v++)
		files[f].views[v] = v ? NULL : new_view(f);
	memset(files[f].bytes, 0, sizeof(files[f].bytes));
}

/* Is any folio that the file has an entry of pinned? */
static bool file_is_pinned(unsigned int f)
{
	for (int p = 0; p < NR_PINS; p++) {
		for (unsigned int i = 0; pins[p].folio && i < NR_PAGES; i++) {
			const void *entry;

			entry = file_entry(files[f].file, page_index(i));
			if (entry && dax_is_real_entry(entry) &&
			    dax_entry_folio(&files[f].file->mapping, entry) ==
				    pins[p].folio)
				return true;
		}
	}
	return false;
}

/* Counting who refers to what. */

static struct tally {
	uint32_t entries, maps, pins;
	bool listed;
} tally[MEMFS_PAGES];
static uint32_t listed[MEMFS_PAGES], before[MEMFS_PAGES];
static unsigned int nr_listed, nr_before;

static struct tally *tally_of(uint64_t pfn)
{
	struct tally *t = &tally[pfn];

	if (!t->listed) {
		*t = (struct tally){ .listed = true };
		listed[nr_listed++] = (uint32_t)pfn;
	}
	return t;
}

static void tally_entries(unsigned int f)
{
	struct address_space *m = &files[f].file->mapping;
	XA_STATE(xas, &m->i_pages, 0);
	uint64_t nr = 0;
	const void *entry;

	xas_lock(&xas);
	xas_for_each(&xas, entry, UINT64_MAX)
	{
		uint64_t index = xas_entry_index(&xas);

		check(!dax_is_locked(entry));
		check(dax_entry_order(entry) == xas_entry_order(&xas));
		nr += dax_entry_pages(entry);
		if (!dax_is_real_entry(entry)) {
			check(!xas_get_mark(&xas, DAX_MARK_DIRTY)); /* I8 */
			continue;
		}
		check(files[f].file->slots[index].pfn == dax_to_pfn(entry));
		tally_of(dax_to_pfn(entry))->entries++;
	}
	check(nr == m->nrpages); /* I4 */
	xas_unlock(&xas);
}

static void tally_maps(unsigned int f, struct view *v)
{
	for (unsigned int i = 0; i < NR_PAGES; i++) {
		const struct pte *p = &v->ptes[page_index(i)];
		const void *entry = file_entry(files[f].file, page_index(i));

		if (!p->present)
			continue;
		check(entry && !dax_is_empty_entry(entry)); /* I10 */
		check(p->zero == dax_is_zero_entry(entry));
		if (!p->zero)
			tally_of(folio_pfn(folio_at(fs->dev->folios, p->pfn)))
				->maps++;
	}
	for (unsigned int c = 0; c < NR_CHUNKS; c++) {
		const struct pte *p = &v->pmds[c];
		const void *entry = file_entry(files[f].file, c * FOLIO_PAGES);

		if (!p->present)
			continue;
		check(entry && dax_is_pmd_entry(entry)); /* I10 */
		if (!p->zero)
			tally_of(p->pfn)->maps++;
	}
}

static void check_folio(uint64_t pfn, const struct tally *t)
{
	struct folio *folio = folio_page(fs->dev->folios, pfn);

	check(folio_head(folio) == folio);
	check(folio_mapcount(folio) == t->maps);
	check(folio_refcount(folio) == t->maps + t->pins); /* I1, I11 */
	if (atomic_load(&folio->mapping))		   /* I5, I6 */
		check(t->entries == 1);
	else
		check(t->entries == atomic_load(&folio->share));
	if (!t->entries) /* I7; there are no orphans without a policy */
		check(folio_order(folio) == 0 && t->maps == 0);
	if (t->entries || t->maps || t->pins) /* I3 */
		check(fs->state[pfn] != BLOCK_FREE);
	if (t->entries)
		check(fs->state[pfn] == BLOCK_USED);
}

static void check_world(void)
{
	for (int p = 0; p < NR_PINS; p++)
		if (pins[p].folio)
			tally_of(pins[p].pfn)->pins++;
	for (unsigned int f = 0; f < NR_FILES; f++) {
		tally_entries(f);
		for (int v = 0; v < NR_VIEWS; v++)
			if (files[f].views[v])
				tally_maps(f, files[f].views[v]);
	}
	/* Those of the last step as well: they may be unused now. */
	for (unsigned int i = 0; i < nr_before; i++)
		tally_of(before[i]);
	nr_before = 0;
	for (unsigned int i = 0; i < nr_listed; i++) {
		struct tally *t = &tally[listed[i]];

		check_folio(listed[i], t);
		t->listed = false;
		if (t->entries || t->maps || t->pins)
			before[nr_before++] = listed[i];
	}
	nr_listed = 0;
}

/* Operations. */

static void op_load(unsigned int f, unsigned int page, struct view *v)
{
	unsigned char byte = 0;
	int ret = view_load(v, page_index(page), &byte);

	if (page_index(page) >= size_of(f)) {
		if (v->ptes[page_index(page)].anon)
			return; /* a private copy outlives the file's page */
		check(ret == -EFAULT);
		return;
	}
	check(ret == 0);
	if (v->vma.flags & DAX_VMA_SHARED)
		check(byte == files[f].bytes[page]);
}

static void op_store(unsigned int f, unsigned int page, struct view *v)
{
	unsigned char byte = (unsigned char)rnd(256);
	int ret;

	if (rnd(2))
		ret = view_store(v, page_index(page), byte);
	else
		ret = view_store_huge(v, page_index(page), byte);
	if (page_index(page) >= size_of(f)) {
		check(ret == -EFAULT || v->ptes[page_index(page)].anon);
		return;
	}
	check(ret == 0);
	if (v->vma.flags & DAX_VMA_SHARED)
		files[f].bytes[page] = byte;
}

static void op_fault(unsigned int f, unsigned int page, struct view *v)
{
	unsigned int order = rnd(2) ? FOLIO_ORDER : 0;
	bool write = rnd(3) == 0;
	vm_fault_t ret;

	if (rnd(10) == 0)
		fs->fail_map = -ENOMEM;
	ret = view_fault(v, page_index(page), write, order);
	if (page_index(page) >= size_of(f))
		check(ret & (VM_FAULT_SIGBUS | VM_FAULT_FALLBACK));
	else
		check(!(ret & VM_FAULT_SIGBUS));
	fs->fail_map = 0;
}

static void op_pin(struct view *v, unsigned int page)
{
	unsigned int flags = rnd(2) ? FOLL_WRITE : 0;
	int p = (int)rnd(NR_PINS);

	if (pins[p].folio) {
		folio_put(pins[p].folio);
		pins[p].folio = NULL;
	} else if (v->vma.flags & DAX_VMA_SHARED &&
		   dax_pin(&v->vma, page_index(page), flags, &pins[p].folio) ==
			   0) {
		pins[p].pfn = folio_pfn(pins[p].folio);
	}
}

static void op_truncate(unsigned int f)
{
	static const uint64_t sizes[] = { 0, 1, 5, 101, 512, 600, FULL };
	uint64_t size = sizes[rnd(7)];
	bool pinned = file_is_pinned(f);
	int ret = file_truncate(files[f].file, size, false, NULL);

	check(ret == (pinned ? -EAGAIN : 0));
	if (ret)
		return;
	check(files[f].file->mapping.nrpages == 0);
	for (unsigned int i = 0; i < NR_PAGES; i++)
		if (page_index(i) >= size)
			files[f].bytes[i] = 0;
}

static void op_punch(unsigned int f, unsigned int page)
{
	uint64_t nr = rnd(2) ? 1 : FOLIO_PAGES, first = page_index(page);
	bool pinned = file_is_pinned(f);
	int ret;

	if (nr > 1)
		first &= ~(FOLIO_PAGES - 1);
	ret = file_punch(files[f].file, first, nr, false, NULL);
	check(ret == (pinned ? -EAGAIN : 0));
	for (unsigned int i = 0; !ret && i < NR_PAGES; i++)
		if (page_index(i) >= first && page_index(i) < first + nr)
			files[f].bytes[i] = 0;
}

static void op_reflink(unsigned int f)
{
	unsigned int g = (unsigned int)rnd(NR_FILES);
	bool pinned = file_is_pinned(f) || file_is_pinned(g);
	int ret = file_reflink(files[f].file, files[g].file, false, NULL);

	check(ret == (pinned ? -EAGAIN : 0));
	if (!ret && f != g)
		memcpy(files[g].bytes, files[f].bytes, sizeof(files[f].bytes));
}

static void op_write(unsigned int f, unsigned int page)
{
	unsigned char byte = (unsigned char)rnd(256);

	if (page_index(page) >= size_of(f))
		return;
	check(file_write(files[f].file, page_index(page) * BLOCK_SIZE, &byte,
			 1) == 1);
	files[f].bytes[page] = byte;
}

static void op_read(unsigned int f, unsigned int page)
{
	unsigned char byte = 0;
	int64_t ret;

	ret = file_read(files[f].file, page_index(page) * BLOCK_SIZE, &byte, 1);
	check(ret == (page_index(page) < size_of(f)));
	if (ret)
		check(byte == files[f].bytes[page]);
}

static void op_fsync(unsigned int f)
{
	check(file_fsync(files[f].file) == 0);
	check(!xa_marked(&files[f].file->mapping.i_pages, DAX_MARK_DIRTY));
}

static void op_fork(unsigned int f, struct view *v)
{
	int n = 1 + (int)rnd(NR_VIEWS - 1);

	if (files[f].views[n] == v)
		return;
	if (files[f].views[n]) {
		view_close(files[f].views[n]);
		files[f].views[n] = NULL;
	} else {
		files[f].views[n] = rnd(2) ? view_fork(v) : new_view(f);
	}
}

static void op_evict(unsigned int f)
{
	if (file_is_pinned(f))
		return; /* it would wait, as it should */
	file_evict(files[f].file);
	new_file(f);
}

static void op_copy(unsigned int f, unsigned int page)
{
	uint64_t pos = page_index(page) * BLOCK_SIZE;
	struct address_space *m = &files[f].file->mapping;

	rwsem_down_write(&m->invalidate_lock, LOCK_INVALIDATE);
	if (rnd(2)) {
		check(dax_unshare(m, pos, BLOCK_SIZE, &memfs_iomap_ops) == 0);
	} else {
		check(dax_zero_range(m, pos, 1, &memfs_iomap_ops) == 0);
		files[f].bytes[page] = 0;
	}
	rwsem_up_write(&m->invalidate_lock);
}

static struct view *some_view(unsigned int f)
{
	struct view *v = files[f].views[rnd(NR_VIEWS)];

	return v ? v : files[f].views[0];
}

#define op(call)                 \
	do {                     \
		op_name = #call; \
		call;            \
	} while (0)

static void random_step(void)
{
	unsigned int f = (unsigned int)rnd(NR_FILES);
	unsigned int page = (unsigned int)rnd(NR_PAGES);
	struct view *v = some_view(f);
	uint64_t what = rnd(100);

	fs->huge = rnd(4) != 0;
	if (what < 22)
		op(op_load(f, page, v));
	else if (what < 42)
		op(op_store(f, page, v));
	else if (what < 60)
		op(op_fault(f, page, v));
	else if (what < 70)
		op(op_pin(v, page));
	else if (what < 73)
		op(op_truncate(f));
	else if (what < 77)
		op(op_punch(f, page));
	else if (what < 81)
		op(op_reflink(f));
	else if (what < 86)
		op(op_write(f, page));
	else if (what < 90)
		op(op_read(f, page));
	else if (what < 93)
		op(op_fsync(f));
	else if (what < 95)
		op(op_fork(f, v));
	else if (what < 97)
		op(op_copy(f, page));
	else if (what < 99)
		op(view_unmap(v));
	else
		op(op_evict(f));
}

static void quiesce(void)
{
	for (int p = 0; p < NR_PINS; p++)
		if (pins[p].folio)
			folio_put(pins[p].folio);
	memset(pins, 0, sizeof(pins));
	while (fs->files)
		file_evict(fs->files);
	check(fs->nr_used == 0);
	check(dax_block_idle(fs->dev->folios, 0, MEMFS_PAGES));
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

/* Scenario 72. */
Test(model, million_random_steps_keep_every_invariant, .timeout = 900)
{
	uint64_t nr_steps = from_env("FOLIOFS_STEPS", 1000000);
	uint64_t first_seed = from_env("FOLIOFS_SEED", 20251);
	uint32_t *full = calloc(MEMFS_PAGES, sizeof(*full));

	seed = first_seed;
	fs = memfs_create();
	for (unsigned int f = 0; f < NR_FILES; f++)
		new_file(f);
	for (step = 0; step < nr_steps; step++) {
		random_step();
		check_world();
		if (step % 10000)
			continue;
		memset(full, 0, MEMFS_PAGES * sizeof(*full));
		for (int p = 0; p < NR_PINS; p++)
			if (pins[p].folio)
				full[pins[p].pfn]++;
		memfs_check(fs, full);
	}
	cr_expect_eq(atomic_load(&fs->dev->stat.nr_warnings), 0);
	fprintf(stderr,
		"# seed %lu: %lu page faults, %lu huge, %lu fallbacks, "
		"%lu breaks, %lu blocks given back late\n",
		(unsigned long)first_seed,
		(unsigned long)atomic_load(&fs->dev->stat.nr_pte_faults),
		(unsigned long)atomic_load(&fs->dev->stat.nr_pmd_faults),
		(unsigned long)atomic_load(&fs->dev->stat.nr_pmd_fallbacks),
		(unsigned long)atomic_load(&fs->dev->stat.nr_breaks),
		(unsigned long)fs->nr_idle_calls);
	quiesce();
	memfs_destroy(fs);
	free(full);
}
