/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/bench/bench_dax.c - what the DAX core costs
 *
 * The index against structures of the distribution that know the same
 * operations: JudyL (a radix tree of 256-way nodes), GLib's GTree (a balanced
 * binary tree) and liburcu's hash table.
 * Every structure gets the same indices in the same order in the same run, so
 * the ratio is what to read; it is time of ours over time of theirs, and below
 * 1 is faster.  The rest has nothing to be compared with and is given as
 * nanoseconds.  With an argument a single part runs: index, fault or share.
 * instructions.py counts instructions of an operation with callgrind; those
 * are the same every time.
 */
#include <Judy.h>
#include <assert.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <urcu.h>
#include <urcu/rculfhash.h>

#include "dax/layout.h"
#include "dax/mapping.h"

#define NR	 (UINT64_C(1) << 20)
#define NR_INDEX (NR / 4)
#define NR_TRIES 5

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void best(uint64_t *of, uint64_t t)
{
	if (!*of || t < *of)
		*of = t;
}

/* Part one: the index. */

struct rival {
	const char *name;
	void (*insert)(const uint64_t *idx, uint64_t nr);
	uint64_t (*lookup)(const uint64_t *idx, uint64_t nr);
	void (*erase)(const uint64_t *idx, uint64_t nr);
	bool once; /* too slow for more */
};

static struct xarray xa;

static void xa_insert_all(const uint64_t *idx, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++) {
		XA_STATE(xas, &xa, idx[i]);

		do
			xas_store(&xas, xa_mk_value(idx[i]));
		while (xas_nomem(&xas));
	}
}

static uint64_t xa_lookup_all(const uint64_t *idx, uint64_t nr)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < nr; i++) {
		XA_STATE(xas, &xa, idx[i]);

		sum += xa_to_value(xas_load(&xas));
	}
	return sum;
}

static void xa_erase_all(const uint64_t *idx, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++) {
		XA_STATE(xas, &xa, idx[i]);

		xas_store(&xas, NULL);
	}
}

static Pvoid_t judy;

static void judy_insert_all(const uint64_t *idx, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++) {
		Word_t *slot = (Word_t *)JudyLIns(&judy, idx[i], NULL);

		*slot = idx[i];
	}
}

static uint64_t judy_lookup_all(const uint64_t *idx, uint64_t nr)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < nr; i++)
		sum += *(Word_t *)JudyLGet(judy, idx[i], NULL);
	return sum;
}

static void judy_erase_all(const uint64_t *idx, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		JudyLDel(&judy, idx[i], NULL);
}

struct hash_entry {
	struct cds_lfht_node node; /* first, so that a cast finds the entry */
	uint64_t index;
};
static struct cds_lfht *hash;

static unsigned long hash_of(uint64_t index)
{
	return index * UINT64_C(0x9e3779b97f4a7c15) >> 20;
}

static int hash_match(struct cds_lfht_node *node, const void *key)
{
	return ((const struct hash_entry *)node)->index ==
	       *(const uint64_t *)key;
}

static struct hash_entry *hash_find(uint64_t index)
{
	struct cds_lfht_iter iter;

	cds_lfht_lookup(hash, hash_of(index), hash_match, &index, &iter);
	return (struct hash_entry *)cds_lfht_iter_get_node(&iter);
}

static void hash_insert_all(const uint64_t *idx, uint64_t nr)
{
	hash = cds_lfht_new(1024, 1024, 0, CDS_LFHT_AUTO_RESIZE, NULL);
	for (uint64_t i = 0; i < nr; i++) {
		struct hash_entry *e = malloc(sizeof(*e));

		e->index = idx[i];
		cds_lfht_node_init(&e->node);
		rcu_read_lock();
		cds_lfht_add(hash, hash_of(idx[i]), &e->node);
		rcu_read_unlock();
	}
}

static uint64_t hash_lookup_all(const uint64_t *idx, uint64_t nr)
{
	uint64_t sum = 0;

	rcu_read_lock();
	for (uint64_t i = 0; i < nr; i++)
		sum += hash_find(idx[i])->index;
	rcu_read_unlock();
	return sum;
}

static void hash_erase_all(const uint64_t *idx, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++) {
		struct hash_entry *e;

		rcu_read_lock();
		e = hash_find(idx[i]);
		cds_lfht_del(hash, &e->node);
		rcu_read_unlock();
		free(e); /* nobody else looks */
	}
	cds_lfht_destroy(hash, NULL);
}

static GTree *gtree;

static gint gtree_compare(gconstpointer a, gconstpointer b, gpointer ctx)
{
	uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;

	(void)ctx;
	return (x > y) - (x < y);
}

static void gtree_insert_all(const uint64_t *idx, uint64_t nr)
{
	gtree = g_tree_new_full(gtree_compare, NULL, NULL, NULL);
	for (uint64_t i = 0; i < nr; i++)
		g_tree_insert(gtree, (gpointer)idx[i], (gpointer)(idx[i] + 1));
}

static uint64_t gtree_lookup_all(const uint64_t *idx, uint64_t nr)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < nr; i++)
		sum += (uintptr_t)g_tree_lookup(gtree, (gpointer)idx[i]);
	return sum;
}

static void gtree_erase_all(const uint64_t *idx, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		g_tree_remove(gtree, (gpointer)idx[i]);
	g_tree_destroy(gtree);
}

static const struct rival rivals[] = {
	{ "xarray", xa_insert_all, xa_lookup_all, xa_erase_all, false },
	{ "JudyL", judy_insert_all, judy_lookup_all, judy_erase_all, false },
	{ "GTree", gtree_insert_all, gtree_lookup_all, gtree_erase_all, false },
	{ "lfht", hash_insert_all, hash_lookup_all, hash_erase_all, true },
};
#define NR_RIVALS (sizeof(rivals) / sizeof(rivals[0]))

static uint64_t rnd(void)
{
	static uint64_t seed = 88172645463325252u;

	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void shuffle(uint64_t *idx, uint64_t nr)
{
	for (uint64_t i = nr - 1; i > 0; i--) {
		uint64_t j = rnd() % (i + 1), t = idx[i];

		idx[i] = idx[j];
		idx[j] = t;
	}
}

/* Indices in order, all of them. */
static void dense(uint64_t *idx, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		idx[i] = i;
}

/* The same in any order, as faults come. */
static void dense_random(uint64_t *idx, uint64_t nr)
{
	dense(idx, nr);
	shuffle(idx, nr);
}

/* Runs of 16 pages (64 KiB) anywhere in 4 TiB. */
static void sparse_runs(uint64_t *idx, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i += 16) {
		uint64_t start = (rnd() & ((UINT64_C(1) << 30) - 1)) & ~15u;

		start = (start & ~(UINT64_C(0xffff) << 8)) |
			(i / 16 & 0xffff) << 8; /* no two the same */
		for (uint64_t k = 0; k < 16; k++)
			idx[i + k] = start + k;
	}
}

/* Single pages, one in each 2 MiB. */
static void sparse_pages(uint64_t *idx, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		idx[i] = i * 512 + (i * 7 & 511);
	shuffle(idx, nr);
}

static const struct pattern {
	const char *name;
	void (*fill)(uint64_t *idx, uint64_t nr);
} patterns[] = {
	{ "dense, in order", dense },
	{ "dense, shuffled", dense_random },
	{ "runs of 16 in 4 TiB", sparse_runs },
	{ "one in each 2 MiB", sparse_pages },
};
#define NR_PATTERNS (sizeof(patterns) / sizeof(patterns[0]))

/* Of this thread: who else uses the machine is not to be counted. */
static uint64_t cpu(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void try_rival(const struct rival *r, const uint64_t *idx,
		      uint64_t times[3])
{
	uint64_t t[4], sum;

	t[0] = cpu();
	r->insert(idx, NR_INDEX);
	t[1] = cpu();
	sum = r->lookup(idx, NR_INDEX);
	t[2] = cpu();
	r->erase(idx, NR_INDEX);
	t[3] = cpu();
	for (int i = 0; i < 3; i++)
		best(&times[i], t[i + 1] - t[i]);
	assert(sum);
	(void)sum;
}

static void bench_pattern(const struct pattern *p, uint64_t *idx)
{
	uint64_t t[NR_RIVALS][3] = { 0 };
	static const char *const ops[] = { "insert", "lookup", "erase" };

	p->fill(idx, NR_INDEX);
	for (int try = 0; try < NR_TRIES; try++)
		for (size_t r = 0; r < NR_RIVALS; r++)
			if (try == 0 || !rivals[r].once)
				try_rival(&rivals[r], idx, t[r]);
	for (int op = 0; op < 3; op++) {
		printf("%-20s %-6s %6.1f ns;", p->name, ops[op],
		       (double)t[0][op] / (double)NR_INDEX);
		for (size_t r = 1; r < NR_RIVALS; r++)
			printf("  %s %7.1f, ratio %.2f", rivals[r].name,
			       (double)t[r][op] / (double)NR_INDEX,
			       (double)t[0][op] / (double)t[r][op]);
		putchar('\n');
	}
	fflush(stdout);
}

static void bench_index(void)
{
	uint64_t *idx = malloc(NR_INDEX * sizeof(*idx));

	rcu_register_thread();
	xa_init(&xa, NULL);
	for (size_t i = 0; i < NR_PATTERNS; i++)
		bench_pattern(&patterns[i], idx);
	xa_destroy(&xa);
	rcu_unregister_thread();
	free(idx);
}

/* Part two: faults over a file whose page i is block i. */

struct bench {
	struct address_space mapping;
	struct dax_vma vma;
	struct dax_device *dev;
	struct pmem *pm;
	uint64_t first; /* its block 0 */
	unsigned char *mapped;
};

static struct bench *bench_of(struct address_space *mapping)
{
	return mapping->host;
}

static uint64_t bench_size(struct address_space *mapping)
{
	(void)mapping;
	return NR << BLOCK_SHIFT;
}

static bool all_shared;

static int bench_begin(struct address_space *mapping, uint64_t pos,
		       uint64_t length, unsigned int flags, struct iomap *iomap,
		       struct iomap *srcmap)
{
	(void)pos;
	(void)length;
	(void)flags;
	(void)srcmap;
	*iomap = (struct iomap){
		.addr = bench_of(mapping)->first << BLOCK_SHIFT,
		.length = NR << BLOCK_SHIFT,
		.type = IOMAP_MAPPED,
		.flags = all_shared ? IOMAP_F_SHARED : 0,
	};
	return 0;
}

static const struct iomap_ops bench_iomap_ops = { .begin = bench_begin };
static const struct dax_mapping_ops bench_mapping_ops = { .size = bench_size };

static int bench_map(struct dax_vma *vma, const struct dax_map *map)
{
	struct bench *b = bench_of(vma->mapping);

	if (!b->mapped[map->index]) {
		b->mapped[map->index] = 1;
		folio_add_map(folio_at(b->dev->folios, map->pfn));
	}
	return 0;
}

static void bench_unmap(struct address_space *mapping, uint64_t index,
			uint64_t nr)
{
	struct bench *b = bench_of(mapping);

	for (uint64_t i = index; i < NR && i - index < nr; i++) {
		if (!b->mapped[i])
			continue;
		b->mapped[i] = 0;
		folio_remove_map(folio_at(b->dev->folios, b->first + i));
	}
}

static enum dax_mapped bench_mapped(struct dax_vma *vma, uint64_t index)
{
	(void)vma;
	(void)index;
	return DAX_MAPPED_NONE;
}

static const struct dax_mapper_ops bench_mapper_ops = {
	.map = bench_map,
	.unmap = bench_unmap,
	.mapped = bench_mapped,
};

static void bench_open(struct bench *b, struct pmem *pm, struct dax_device *dev,
		       uint64_t first, uint64_t ino)
{
	*b = (struct bench){ .dev = dev, .pm = pm, .first = first };
	b->mapped = calloc(NR, 1);
	mapping_init(&b->mapping, dev, &bench_mapping_ops, &bench_mapper_ops,
		     ino, b);
	b->vma = (struct dax_vma){ .mapping = &b->mapping,
				   .start = UINT64_C(1) << 40,
				   .end = (UINT64_C(1) << 40) +
					  (NR << BLOCK_SHIFT),
				   .flags = DAX_VMA_SHARED };
}

static void bench_close(struct bench *b)
{
	dax_break_layout_final(&b->mapping);
	mapping_destroy(&b->mapping);
	free(b->mapped);
}

static struct dax_device *open_device(struct pmem **ret_pm)
{
	char path[] = "/dev/shm/bench-dax-XXXXXX";
	struct dax_device *dev;
	int fd = mkstemp(path), ret;

	assert(fd >= 0);
	ret = ftruncate(fd, (off_t)((2 * NR) << BLOCK_SHIFT));
	assert(ret == 0);
	close(fd);
	ret = pmem_open(path, PMEM_READ_WRITE, PMEM_GRANULARITY_AUTO, ret_pm,
			NULL);
	unlink(path);
	assert(ret == 0);
	ret = dax_device_create(*ret_pm, NULL, NULL, &dev);
	assert(ret == 0);
	(void)ret;
	return dev;
}

static void fault_range(struct bench *b, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++) {
		struct dax_fault vmf = { .vma = &b->vma, .index = i };
		uint64_t pfn;
		vm_fault_t ret;

		rwsem_down_read(&b->mapping.invalidate_lock, LOCK_INVALIDATE);
		ret = dax_iomap_fault(&vmf, 0, &pfn, NULL, &bench_iomap_ops);
		rwsem_up_read(&b->mapping.invalidate_lock);
		assert(ret == VM_FAULT_NOPAGE);
		(void)ret;
	}
}

struct half {
	struct bench *b;
	uint64_t from, to;
};

static void *fault_half(void *arg)
{
	const struct half *h = arg;

	fault_range(h->b, h->from, h->to);
	return NULL;
}

static void fault_by_two(struct bench *b)
{
	struct half halves[2] = { { b, 0, NR / 2 }, { b, NR / 2, NR } };
	pthread_t t[2];

	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, fault_half, &halves[i]);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

static void report(const char *what, uint64_t ns)
{
	printf("%-48s %7.1f ns each\n", what, (double)ns / (double)NR);
	fflush(stdout);
}

enum fault_part {
	FAULT_ONE,
	UNMAP,
	BREAK_IDLE,
	FAULT_TWO,
	BREAK_MAPPED,
	NR_FAULT_PARTS,
};

static void lap(uint64_t *of, uint64_t *t)
{
	uint64_t t1 = now();

	best(of, t1 - *t);
	*t = t1;
}

static void bench_faults(void)
{
	static const char *const names[] = {
		"fault of 1,048,576 pages, one thread",
		"unmapping them",
		"break of a file with so many idle entries",
		"fault of 1,048,576 pages, two threads",
		"break of a file with so many mapped entries",
	};
	uint64_t parts[NR_FAULT_PARTS] = { 0 }, t;
	struct pmem *pm;
	struct dax_device *dev = open_device(&pm);
	struct bench b;

	bench_open(&b, pm, dev, 1, 1);
	fault_range(&b, 0, NR); /* the table's pages */
	dax_break_layout_inode(&b.mapping, NULL);
	t = now();
	for (int try = 0; try < NR_TRIES; try++) {
		fault_range(&b, 0, NR);
		lap(&parts[FAULT_ONE], &t);
		bench_unmap(&b.mapping, 0, NR);
		lap(&parts[UNMAP], &t);
		dax_break_layout_inode(&b.mapping, NULL);
		lap(&parts[BREAK_IDLE], &t);
		fault_by_two(&b);
		lap(&parts[FAULT_TWO], &t);
		dax_break_layout_inode(&b.mapping, NULL);
		lap(&parts[BREAK_MAPPED], &t);
	}
	for (int i = 0; i < NR_FAULT_PARTS; i++)
		report(names[i], parts[i]);
	printf("%-48s %7.2f\n", "two threads over one",
	       (double)parts[FAULT_ONE] / (double)parts[FAULT_TWO]);
	bench_close(&b);
	dax_device_destroy(dev);
	pmem_close(pm);
}

/* Part three: two files take and give back the same folios. */

struct sharer {
	struct dax_device *dev;
	struct address_space *mapping;
};

#define NR_SHARED 1024

static void *share_loop(void *arg)
{
	const struct sharer *s = arg;

	for (uint64_t i = 0; i < NR; i++) {
		uint64_t pfn = 1 + i % NR_SHARED;

		folio_associate(s->dev->folios, pfn, 0, s->mapping, i, true);
		folio_disassociate(folio_at(s->dev->folios, pfn), s->mapping,
				   true);
	}
	return NULL;
}

static void bench_share(void)
{
	struct pmem *pm;
	struct dax_device *dev = open_device(&pm);
	struct bench b[2];
	struct sharer s[2];
	pthread_t t[2];
	uint64_t start;

	for (uint64_t i = 0; i < 2; i++) {
		bench_open(&b[i], pm, dev, 1, i + 1);
		s[i] = (struct sharer){ dev, &b[i].mapping };
	}
	/* Shared twice already, so that nobody is the owner. */
	for (uint64_t pfn = 1; pfn <= NR_SHARED; pfn++)
		for (int i = 0; i < 2; i++)
			folio_associate(dev->folios, pfn, 0, s[i].mapping, 0,
					true);
	start = now();
	share_loop(&s[0]);
	report("share get and put, one thread", now() - start);
	start = now();
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, share_loop, &s[i]);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	report("share get and put, two threads (of each)", now() - start);
	for (int i = 0; i < 2; i++)
		bench_close(&b[i]);
	folio_table_destroy(dev->folios);
	free(dev);
	pmem_close(pm);
}

/*
 * Part four: for instructions.py.  The first @stages of the list, on @nr pages,
 * once; the script takes differences.
 */

static uint64_t *count_idx;
static const struct rival *count_rival;
static struct bench count_bench;

static void stage_insert(uint64_t nr)
{
	count_rival->insert(count_idx, nr);
}

static void stage_lookup(uint64_t nr)
{
	if (!count_rival->lookup(count_idx, nr))
		abort();
}

static void stage_erase(uint64_t nr)
{
	count_rival->erase(count_idx, nr);
}

static void stage_fault(uint64_t nr)
{
	fault_range(&count_bench, 0, nr);
}

static void stage_unmap(uint64_t nr)
{
	bench_unmap(&count_bench.mapping, 0, nr);
}

static void stage_break(uint64_t nr)
{
	(void)nr;
	dax_break_layout_inode(&count_bench.mapping, NULL);
}

static const struct {
	const char *name;
	void (*run)(uint64_t nr);
} stages[] = {
	{ "insert", stage_insert },
	{ "lookup", stage_lookup },
	{ "erase", stage_erase },
	{ "fault of a new page", stage_fault },
	{ "unmap", stage_unmap },
	{ "fault of a page with entry", stage_fault },
	{ "unmap again", stage_unmap },
	{ "break, idle", stage_break },
};
#define NR_STAGES (sizeof(stages) / sizeof(stages[0]))

static const struct rival *rival_by_name(const char *name)
{
	for (size_t i = 0; i < NR_RIVALS; i++)
		if (strcmp(rivals[i].name, name) == 0)
			return &rivals[i];
	abort();
}

static int count(const char *name, uint64_t pattern, uint64_t nr,
		 uint64_t nr_stages)
{
	struct pmem *pm;
	struct dax_device *dev = open_device(&pm);

	count_idx = malloc(NR_INDEX * sizeof(*count_idx));
	count_rival = rival_by_name(name);
	patterns[pattern % NR_PATTERNS].fill(count_idx, nr);
	xa_init(&xa, NULL);
	bench_open(&count_bench, pm, dev, 1, 1);
	for (uint64_t i = 0; i < nr_stages && i < NR_STAGES; i++)
		stages[i].run(nr);
	/* As it is: what would follow is not to be counted. */
	if (nr_stages)
		puts(stages[nr_stages - 1].name);
	fflush(stdout);
	_exit(nr_stages > NR_STAGES);
}

static bool wants(int argc, char **argv, const char *part)
{
	return argc < 2 || strcmp(argv[1], part) == 0;
}

int main(int argc, char **argv)
{
	if (argc == 6 && strcmp(argv[1], "count") == 0)
		return count(argv[2], strtoull(argv[3], NULL, 0),
			     strtoull(argv[4], NULL, 0),
			     strtoull(argv[5], NULL, 0));
	if (wants(argc, argv, "index"))
		bench_index();
	if (wants(argc, argv, "fault"))
		bench_faults();
	if (wants(argc, argv, "share"))
		bench_share();
	return 0;
}
