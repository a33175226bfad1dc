/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * alloc/alloc.c - free space and share counts, in DRAM
 *
 * Three tables, all anonymous memory that costs what was touched: a share
 * word for every block, a struct chunk (map, share word, list links) for
 * every 512 of them, and a bit for every chunk.  Zero means free in each.
 *
 * Invariants, with the arena locked:
 *
 * 1. A block is free if and only if its map bit is clear.  Then its share
 *    word and its chunk's are zero.
 * 2. nr_free is the number of clear map bits of the device.  It changes with
 *    them, so a take that was granted n blocks finds n blocks.
 * 3. A map bit is cleared only in alloc_free(), when both words are zero.
 *    Nobody can raise them again: that takes a slot, and a slot is a count.
 *
 * The mount walk runs without locks and only raises share words.  Maps and
 * lists are made from them by alloc_ready(), for the chunks that were met.
 */
#include "alloc/alloc.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "alloc/arena.h"

/* More would not make threads meet less on machines we know. */
#define MAX_ARENAS 8

/* Fewer chunks than this are not worth an arena. */
#define MIN_ARENA_SHIFT 3

/*
 * How often a take looks through all arenas while free blocks exist but move
 * away under its eyes.  Somebody else got on each time.
 */
#define MAX_ROUNDS 64

struct alloc {
	uint64_t nr_blocks;
	uint64_t nr_chunks;
	uint64_t nr_reserve;
	unsigned int arena_shift; /* chunks per arena */
	unsigned int nr_arenas;
	bool ready;
	share_word *share;
	struct chunk *chunk;
	_Atomic(uint64_t) *busy; /* of all arenas, whole words each */
	struct arena *arena;
	_Atomic(uint64_t) nr_free;
};

/* What a take is asked for, on its way down. */
struct request {
	uint64_t goal;
	uint64_t want;
	enum block_kind kind;
	unsigned int flags;
};

const char *block_kind_name(enum block_kind kind)
{
	static const char *const names[NR_BLOCK_KINDS] = {
		[BLOCK_NONE] = "free",	   [BLOCK_STATIC] = "static",
		[BLOCK_NODE1] = "node1",   [BLOCK_NODE2] = "node2",
		[BLOCK_NODE3] = "node3",   [BLOCK_NODE4] = "node4",
		[BLOCK_DATA] = "data",	   [BLOCK_DIR] = "directory",
		[BLOCK_ITABLE] = "inodes", [BLOCK_XATTR] = "xattrs",
		[BLOCK_BAD] = "bad media",
	};

	return (unsigned int)kind < NR_BLOCK_KINDS ? names[kind] : "unknown";
}

static uint64_t chunk_nr(uint64_t block)
{
	return block >> CHUNK_ORDER;
}

static unsigned int chunk_bit(uint64_t block)
{
	return (unsigned int)(block & (CHUNK_BLOCKS - 1));
}

static struct chunk *chunk_of(const struct alloc *al, uint64_t block)
{
	return &al->chunk[chunk_nr(block)];
}

static struct arena *arena_of(const struct alloc *al, uint64_t block)
{
	return &al->arena[chunk_nr(block) >> al->arena_shift];
}

/* The blocks that chunk @nr has on the device. */
static unsigned int chunk_blocks(const struct alloc *al, uint64_t nr)
{
	uint64_t left = al->nr_blocks - (nr << CHUNK_ORDER);

	return (unsigned int)(left < CHUNK_BLOCKS ? left : CHUNK_BLOCKS);
}

static bool is_valid(const struct alloc *al, uint64_t block, unsigned int order)
{
	if (order == 0)
		return block < al->nr_blocks;
	return order == CHUNK_ORDER && chunk_bit(block) == 0 &&
	       block < al->nr_blocks && al->nr_blocks - block >= CHUNK_BLOCKS;
}

static share_word *word_of(const struct alloc *al, uint64_t block,
			   unsigned int order)
{
	assert(is_valid(al, block, order));
	return order ? &chunk_of(al, block)->share : &al->share[block];
}

/*
 * Small pages: with huge ones, a mark here and there would make the whole
 * table resident.
 */
static void *map_table(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	(void)madvise(p, size, MADV_NOHUGEPAGE);
	return p;
}

static void unmap_table(void *p, uint64_t size)
{
	if (p)
		munmap(p, size);
}

static uint64_t words_per_arena(const struct alloc *al)
{
	return ((UINT64_C(1) << al->arena_shift) + 63) / 64;
}

static uint64_t share_size(const struct alloc *al)
{
	return al->nr_blocks * sizeof(*al->share);
}

static uint64_t chunk_size(const struct alloc *al)
{
	return al->nr_chunks * sizeof(*al->chunk);
}

static uint64_t busy_size(const struct alloc *al)
{
	return al->nr_arenas * words_per_arena(al) * sizeof(*al->busy);
}

static void set_geometry(struct alloc *al, uint64_t nr_blocks)
{
	al->nr_blocks = nr_blocks;
	al->nr_chunks = (nr_blocks + CHUNK_BLOCKS - 1) >> CHUNK_ORDER;
	al->arena_shift = MIN_ARENA_SHIFT;
	while ((al->nr_chunks - 1) >> al->arena_shift >= MAX_ARENAS)
		al->arena_shift++;
	al->nr_arenas =
		(unsigned int)((al->nr_chunks - 1) >> al->arena_shift) + 1;
}

static void init_arenas(struct alloc *al)
{
	uint64_t per = UINT64_C(1) << al->arena_shift;

	for (unsigned int i = 0; i < al->nr_arenas; i++) {
		uint64_t first = i * per;
		uint64_t left = al->nr_chunks - first;

		al->arena[i] = (struct arena){ 0 };
		arena_init(&al->arena[i], al->chunk, first,
			   left < per ? left : per,
			   al->busy + i * words_per_arena(al));
	}
}

int alloc_create(uint64_t nr_blocks, uint64_t nr_reserve, struct alloc **ret_al)
{
	struct alloc *al;

	assert(nr_blocks > 0);
	/* Chunk numbers are 32 bits; a device has no more than this. */
	if (nr_blocks >> CHUNK_ORDER >= UINT32_MAX)
		return -ENOMEM;
	al = (struct alloc *)calloc(1, sizeof(*al));
	if (!al)
		return -ENOMEM;
	set_geometry(al, nr_blocks);
	al->nr_reserve = nr_reserve;

	al->share = (share_word *)map_table(share_size(al));
	al->chunk = (struct chunk *)map_table(chunk_size(al));
	al->busy = (_Atomic(uint64_t) *)map_table(busy_size(al));
	al->arena = (struct arena *)aligned_alloc(
		CACHE_LINE, al->nr_arenas * sizeof(*al->arena));
	if (!al->share || !al->chunk || !al->busy || !al->arena) {
		free(al->arena);
		al->arena = NULL;
		alloc_destroy(al);
		return -ENOMEM;
	}
	init_arenas(al);
	*ret_al = al;
	return 0;
}

void alloc_destroy(struct alloc *al)
{
	if (!al)
		return;
	for (unsigned int i = 0; al->arena && i < al->nr_arenas; i++)
		arena_destroy(&al->arena[i]);
	free(al->arena);
	unmap_table(al->busy, busy_size(al));
	unmap_table(al->chunk, chunk_size(al));
	unmap_table(al->share, share_size(al));
	free(al);
}

/* One more mark on a word: the count before, -EUCLEAN or -EMLINK. */
static int64_t mark_word(share_word *w, enum block_kind kind)
{
	uint32_t old = atomic_load(w);

	do {
		if (old && share_kind(old) != kind)
			return -EUCLEAN;
		if (share_count(old) == ALLOC_SHARE_MAX)
			return -EMLINK;
	} while (!atomic_compare_exchange_weak(
		w, &old, (old ? old : share_make(kind, 0)) + 1));
	return share_count(old);
}

static void unmark_word(share_word *w)
{
	uint32_t old = atomic_load(w);

	do
		assert(share_count(old) > 0);
	while (!atomic_compare_exchange_weak(
		w, &old, share_count(old) > 1 ? old - 1 : 0));
}

/* Is any block of the chunk marked as something else than data? */
static bool has_metadata(const struct alloc *al, uint64_t block)
{
	for (unsigned int i = 0; i < CHUNK_BLOCKS; i++) {
		uint32_t word = atomic_load_explicit(&al->share[block + i],
						     memory_order_relaxed);

		if (word && share_kind(word) != BLOCK_DATA)
			return true;
	}
	return false;
}

/*
 * A chunk's mark and a metadata mark inside it must not both succeed.  One
 * raises the chunk's word, touches the chunk and looks for metadata; the other
 * raises the block's word, touches the chunk and looks at the chunk's word.
 * All of it is sequentially consistent, so at least one of the two sees the
 * other.  The touch tells the first whether there is anything to look for.
 */
int64_t alloc_mark(struct alloc *al, uint64_t block, unsigned int order,
		   enum block_kind kind)
{
	share_word *w;
	bool touched;
	int64_t ret;

	if (!is_valid(al, block, order))
		return -ERANGE;
	w = word_of(al, block, order);
	ret = mark_word(w, kind);
	if (ret < 0)
		return ret;
	touched = arena_touch(arena_of(al, block), chunk_nr(block));

	if (order ? touched && has_metadata(al, block)
		  : kind != BLOCK_DATA &&
			    atomic_load(&chunk_of(al, block)->share)) {
		unmark_word(w);
		return -EUCLEAN;
	}
	return ret;
}

void alloc_unmark(struct alloc *al, uint64_t block, unsigned int order)
{
	/* The chunk stays touched; alloc_ready() sees that nothing is left. */
	unmark_word(word_of(al, block, order));
}

/* The map of a chunk that was touched; returns the blocks in use. */
static unsigned int fill_map(struct alloc *al, uint64_t nr)
{
	struct chunk *ch = &al->chunk[nr];
	unsigned int nr_blocks = chunk_blocks(al, nr);
	const share_word *w = &al->share[nr << CHUNK_ORDER];

	if (share_load(&ch->share)) {
		freemap_set(&ch->map, 0, CHUNK_BLOCKS);
	} else {
		for (unsigned int i = 0; i < nr_blocks; i++)
			if (share_load(&w[i]))
				freemap_set(&ch->map, i, 1);
		/* What the last chunk lacks is in use for good. */
		freemap_set(&ch->map, nr_blocks,
			    (unsigned int)CHUNK_BLOCKS - nr_blocks);
	}
	ch->nr_used = (uint16_t)freemap_nr_used(&ch->map);
	return ch->nr_used - ((unsigned int)CHUNK_BLOCKS - nr_blocks);
}

static void ready_arena(struct alloc *al, struct arena *ar)
{
	mutex_lock(&ar->lock);
	for (uint64_t i = ar->first; i < ar->first + ar->nr; i++)
		if (arena_touched(ar, i))
			atomic_fetch_sub(&al->nr_free, fill_map(al, i));
	arena_ready(ar);
	mutex_unlock(&ar->lock);
}

void alloc_ready(struct alloc *al)
{
	uint64_t last = al->nr_blocks - 1;

	assert(!al->ready);
	if (chunk_blocks(al, chunk_nr(last)) < CHUNK_BLOCKS)
		arena_touch(arena_of(al, last), chunk_nr(last));
	atomic_store(&al->nr_free, al->nr_blocks);
	for (unsigned int i = 0; i < al->nr_arenas; i++)
		ready_arena(al, &al->arena[i]);
	al->ready = true;
}

/* What a request with these flags may take, now. */
static uint64_t room(const struct alloc *al, unsigned int flags)
{
	uint64_t nr_free =
		atomic_load_explicit(&al->nr_free, memory_order_relaxed);
	uint64_t floor = flags & ALLOC_EMERGENCY ? 0 : al->nr_reserve;

	return nr_free > floor ? nr_free - floor : 0;
}

/*
 * Take up to @want blocks off the count, all or nothing below @min.  The
 * caller has the arena locked and the blocks found.
 */
static unsigned int grant(struct alloc *al, unsigned int min, unsigned int want,
			  unsigned int flags)
{
	uint64_t nr_free =
		atomic_load_explicit(&al->nr_free, memory_order_relaxed);
	uint64_t floor = flags & ALLOC_EMERGENCY ? 0 : al->nr_reserve;
	uint64_t nr;

	do {
		nr = nr_free > floor ? nr_free - floor : 0;
		if (nr > want)
			nr = want;
		if (nr < min)
			return 0;
	} while (!atomic_compare_exchange_weak_explicit(
		&al->nr_free, &nr_free, nr_free - nr, memory_order_relaxed,
		memory_order_relaxed));
	return (unsigned int)nr;
}

static bool take_run(struct alloc *al, struct arena *ar, uint64_t nr,
		     struct freerun run, const struct request *rq,
		     struct extent *ret_ext) __must_hold(ar->lock)
{
	struct chunk *ch = &al->chunk[nr];
	uint64_t start = (nr << CHUNK_ORDER) + run.start;

	run.nr = grant(al, 1, run.nr, rq->flags);
	if (run.nr == 0)
		return false;
	freemap_set(&ch->map, run.start, run.nr);
	ch->nr_used = (uint16_t)(ch->nr_used + run.nr);
	for (unsigned int i = 0; i < run.nr; i++) {
		assert(!share_load(&al->share[start + i]));
		atomic_store_explicit(&al->share[start + i],
				      share_make(rq->kind, 1),
				      memory_order_release);
	}
	arena_refile(ar, nr);
	*ret_ext = (struct extent){ start, run.nr };
	return true;
}

static unsigned int want_in_chunk(const struct request *rq)
{
	return (unsigned int)(rq->want < CHUNK_BLOCKS ? rq->want
						      : CHUNK_BLOCKS);
}

static bool take_from_chunk(struct alloc *al, struct arena *ar, uint64_t nr,
			    unsigned int from, const struct request *rq,
			    struct extent *ret_ext) __must_hold(ar->lock)
{
	const struct chunk *ch = &al->chunk[nr];

	if (ch->nr_used == CHUNK_BLOCKS)
		return false;
	return take_run(al, ar, nr,
			freemap_run(&ch->map, from, want_in_chunk(rq)), rq,
			ret_ext);
}

static bool take_from_class(struct alloc *al, struct arena *ar,
			    enum arena_class cls, const struct request *rq,
			    struct extent *ret_ext) __must_hold(ar->lock)
{
	uint64_t nr;

	if (!arena_may_have(ar, cls))
		return false;
	nr = arena_pick(ar, cls, chunk_nr(rq->goal), want_in_chunk(rq));
	return nr != ARENA_NONE && take_from_chunk(al, ar, nr, 0, rq, ret_ext);
}

/*
 * Near the goal: its chunk, then holes in its arena, and an empty chunk there
 * while the arena has plenty.  One lock, and nobody else's cache lines.
 */
static bool take_near(struct alloc *al, struct arena *ar,
		      const struct request *rq, struct extent *ret_ext)
{
	bool ret = false;

	mutex_lock(&ar->lock);
	if (rq->goal)
		ret = take_from_chunk(al, ar, chunk_nr(rq->goal),
				      chunk_bit(rq->goal), rq, ret_ext);
	if (!ret)
		ret = take_from_class(al, ar, ARENA_PARTLY, rq, ret_ext);
	if (!ret && arena_roomy(ar))
		ret = take_from_class(al, ar, ARENA_EMPTY, rq, ret_ext);
	mutex_unlock(&ar->lock);
	return ret;
}

/* Arena number @i on the way round from @home. */
static struct arena *arena_from(const struct alloc *al,
				const struct arena *home, unsigned int i)
{
	return &al->arena[((unsigned int)(home - al->arena) + i) %
			  al->nr_arenas];
}

/* Anywhere, holes in every arena before an empty chunk is broken. */
static bool take_anywhere(struct alloc *al, const struct arena *home,
			  const struct request *rq, struct extent *ret_ext)
{
	for (unsigned int cls = 0; cls < NR_ARENA_CLASSES; cls++) {
		for (unsigned int i = 0; i < al->nr_arenas; i++) {
			struct arena *ar = arena_from(al, home, i);
			bool ret;

			if (!arena_may_have(ar, (enum arena_class)cls))
				continue;
			mutex_lock(&ar->lock);
			ret = take_from_class(al, ar, (enum arena_class)cls, rq,
					      ret_ext);
			mutex_unlock(&ar->lock);
			if (ret)
				return true;
		}
	}
	return false;
}

/* Without a goal, threads start in different arenas. */
static struct arena *home_arena(const struct alloc *al, uint64_t goal)
{
	static _Atomic(unsigned int) nr_threads;
	static _Thread_local unsigned int mine;

	if (goal)
		return arena_of(al, goal);
	if (!mine)
		mine = atomic_fetch_add(&nr_threads, 1) + 1;
	return &al->arena[(mine - 1) % al->nr_arenas];
}

int alloc_take(struct alloc *al, uint64_t goal, uint64_t want,
	       enum block_kind kind, unsigned int flags, struct extent *ret_ext)
{
	struct request rq = {
		.goal = goal < al->nr_blocks ? goal : 0,
		.want = want,
		.kind = kind,
		.flags = flags,
	};
	struct arena *home = home_arena(al, rq.goal);

	assert(want > 0 && kind != BLOCK_NONE);
	for (int i = 0; i < MAX_ROUNDS; i++) {
		if (room(al, flags) == 0)
			break;
		if (take_near(al, home, &rq, ret_ext) ||
		    take_anywhere(al, home, &rq, ret_ext))
			return 0;
	}
	return -ENOSPC;
}

void alloc_take_at(struct alloc *al, uint64_t start, uint64_t want,
		   enum block_kind kind, unsigned int flags,
		   struct extent *ret_ext)
{
	const struct request rq = { .want = want,
				    .kind = kind,
				    .flags = flags };
	struct arena *ar;
	struct freerun run;

	assert(kind != BLOCK_NONE);
	*ret_ext = (struct extent){ start, 0 };
	if (start >= al->nr_blocks)
		return;
	ar = arena_of(al, start);
	mutex_lock(&ar->lock);
	run = freemap_run_at(&chunk_of(al, start)->map, chunk_bit(start),
			     want_in_chunk(&rq));
	if (run.nr > 0)
		take_run(al, ar, chunk_nr(start), run, &rq, ret_ext);
	mutex_unlock(&ar->lock);
}

/* What becomes of an empty chunk that was found; false: it cannot be had. */
typedef bool (*claim_fn)(struct alloc *al, struct arena *ar, uint64_t nr,
			 const struct request *rq);

static bool claim_whole(struct alloc *al, struct arena *ar, uint64_t nr,
			const struct request *rq) __must_hold(ar->lock)
{
	struct chunk *ch = &al->chunk[nr];
	unsigned int nr_blocks = (unsigned int)CHUNK_BLOCKS;

	if (!grant(al, nr_blocks, nr_blocks, rq->flags))
		return false;
	freemap_set(&ch->map, 0, nr_blocks);
	ch->nr_used = (uint16_t)nr_blocks;
	assert(!share_load(&ch->share));
	atomic_store_explicit(&ch->share, share_make(rq->kind, 1),
			      memory_order_release);
	arena_refile(ar, nr);
	return true;
}

static bool claim_aside(struct alloc *al, struct arena *ar, uint64_t nr,
			const struct request *rq) __must_hold(ar->lock)
{
	(void)al;
	(void)rq;
	arena_set_aside(ar, nr, true);
	return true;
}

static int take_empty(struct alloc *al, const struct request *rq,
		      claim_fn claim, uint64_t *ret_block)
{
	const struct arena *home = home_arena(al, rq->goal);
	bool done = false;

	for (unsigned int i = 0; i < al->nr_arenas && !done; i++) {
		struct arena *ar = arena_from(al, home, i);
		uint64_t nr;

		if (!arena_may_have(ar, ARENA_EMPTY))
			continue;
		mutex_lock(&ar->lock);
		nr = arena_pick(ar, ARENA_EMPTY, chunk_nr(rq->goal),
				CHUNK_BLOCKS);
		if (nr != ARENA_NONE && claim(al, ar, nr, rq)) {
			*ret_block = nr << CHUNK_ORDER;
			done = true;
		}
		mutex_unlock(&ar->lock);
	}
	return done ? 0 : -ENOSPC;
}

int alloc_take_chunk(struct alloc *al, uint64_t goal, enum block_kind kind,
		     unsigned int flags, uint64_t *ret_block)
{
	const struct request rq = {
		.goal = goal < al->nr_blocks ? goal : 0,
		.kind = kind,
		.flags = flags,
	};

	assert(kind != BLOCK_NONE);
	return take_empty(al, &rq, claim_whole, ret_block);
}

int alloc_aside(struct alloc *al, uint64_t goal, uint64_t *ret_block)
{
	const struct request rq = { .goal = goal < al->nr_blocks ? goal : 0 };

	return take_empty(al, &rq, claim_aside, ret_block);
}

void alloc_aside_end(struct alloc *al, uint64_t block)
{
	struct arena *ar = arena_of(al, block);

	assert(is_valid(al, block, 0));
	mutex_lock(&ar->lock);
	arena_set_aside(ar, chunk_nr(block), false);
	mutex_unlock(&ar->lock);
}

/*
 * The kind of a block that has no slot of its own yet, or of a chunk that no
 * 2 MiB slot points to yet: that of the other one.
 */
static enum block_kind inherited_kind(const struct alloc *al, uint64_t block,
				      unsigned int order)
{
	const share_word *w =
		order ? &al->share[block] : &chunk_of(al, block)->share;

	return share_kind(share_load(w));
}

int alloc_get(struct alloc *al, uint64_t block, unsigned int order)
{
	share_word *w;
	uint32_t old, base;

	if (!is_valid(al, block, order))
		return -ERANGE;
	w = word_of(al, block, order);
	old = share_load(w);
	do {
		base = old;
		if (!base)
			base = share_make(inherited_kind(al, block, order), 0);
		if (!base)
			return -EUCLEAN;
		if (share_count(base) == ALLOC_SHARE_MAX ||
		    (share_count(base) == 0 &&
		     share_leaving(base) == NR_LEAVING))
			return -EMLINK;
	} while (!atomic_compare_exchange_weak(w, &old, base + 1));
	return 0;
}

bool alloc_put(struct alloc *al, uint64_t block, unsigned int order)
{
	share_word *w = word_of(al, block, order);
	uint32_t old = share_load(w);
	uint32_t new;

	do {
		assert(share_count(old) > 0);
		new = old - 1;
		if (share_count(new) == 0)
			new += SHARE_LEAVING_ONE;
	} while (!atomic_compare_exchange_weak(w, &old, new));
	return share_count(new) == 0;
}

/* One of those whom alloc_put() told "the last one" has finished. */
static void leave(share_word *w)
{
	uint32_t old = share_load(w);
	uint32_t new;

	do {
		assert(share_leaving(old) > 0);
		new = old - SHARE_LEAVING_ONE;
		if (share_count(new) == 0 && share_leaving(new) == 0)
			new = 0;
	} while (!atomic_compare_exchange_weak(w, &old, new));
}

/* Release [start, start + nr) of a chunk that no 2 MiB slot points to. */
static void release(struct alloc *al, struct arena *ar, uint64_t start,
		    unsigned int nr) __must_hold(ar->lock)
{
	struct chunk *ch = chunk_of(al, start);
	unsigned int nr_freed = 0;

	for (uint64_t block = start; block < start + nr; block++) {
		if (share_load(&al->share[block]) ||
		    !freemap_used(&ch->map, chunk_bit(block)))
			continue;
		freemap_clear(&ch->map, chunk_bit(block));
		nr_freed++;
	}
	if (nr_freed == 0)
		return;
	ch->nr_used = (uint16_t)(ch->nr_used - nr_freed);
	arena_refile(ar, chunk_nr(start));
	atomic_fetch_add_explicit(&al->nr_free, nr_freed, memory_order_relaxed);
}

void alloc_free(struct alloc *al, uint64_t block, unsigned int order)
{
	share_word *w = word_of(al, block, order);
	struct arena *ar = arena_of(al, block);

	mutex_lock(&ar->lock);
	leave(w);
	if (!share_load(&chunk_of(al, block)->share))
		release(al, ar, block, order ? (unsigned int)CHUNK_BLOCKS : 1);
	mutex_unlock(&ar->lock);
}

/*
 * A split raises the block before it lowers the chunk, a merge raises the
 * chunk before it lowers the block.  A sum in the middle may be too high,
 * which costs somebody a copy; it would be too low when a whole split or merge
 * of another owner fell between two loads, so look again for that.
 */
uint32_t alloc_share(const struct alloc *al, uint64_t block)
{
	const share_word *w = word_of(al, block, 0);
	const struct chunk *ch = chunk_of(al, block);
	uint32_t own, chunk;

	do {
		chunk = share_load(&ch->share);
		own = share_load(w);
	} while (share_load(&ch->share) != chunk);
	return share_count(own) + share_count(chunk);
}

static uint32_t highest_share(const struct alloc *al, uint64_t block)
{
	uint32_t max = 0;

	for (unsigned int i = 0; i < CHUNK_BLOCKS; i++) {
		uint32_t nr = share_count(share_load(&al->share[block + i]));

		if (nr > max)
			max = nr;
	}
	return max;
}

uint32_t alloc_share_chunk(const struct alloc *al, uint64_t block)
{
	const share_word *w = word_of(al, block, CHUNK_ORDER);
	uint32_t own, max;

	do {
		own = share_load(w);
		max = highest_share(al, block);
	} while (share_load(w) != own);
	return share_count(own) + max;
}

enum block_kind alloc_kind(const struct alloc *al, uint64_t block)
{
	uint32_t word = share_load(word_of(al, block, 0));

	if (!word)
		word = share_load(&chunk_of(al, block)->share);
	return share_kind(word);
}

static void stat_chunk(const struct alloc *al, uint64_t nr,
		       struct alloc_stat *ret)
{
	uint64_t start = nr << CHUNK_ORDER;
	uint64_t end = start + chunk_blocks(al, nr);

	for (uint64_t block = start; block < end; block++) {
		enum block_kind kind = alloc_kind(al, block);

		ret->nr_kind[kind]++;
		if (alloc_share(al, block) > 1)
			ret->nr_shared++;
	}
}

void alloc_stat(const struct alloc *al, struct alloc_stat *ret, bool full)
{
	*ret = (struct alloc_stat){
		.nr_blocks = al->nr_blocks,
		.nr_free = atomic_load(&al->nr_free),
		.nr_reserve = al->nr_reserve,
	};
	if (ret->nr_reserve > ret->nr_free)
		ret->nr_reserve = ret->nr_free;
	for (unsigned int i = 0; i < al->nr_arenas; i++) {
		ret->nr_empty_chunks += atomic_load(&al->arena[i].nr_empty);
		ret->nr_aside += atomic_load(&al->arena[i].nr_aside);
	}
	for (uint64_t nr = 0; full && nr < al->nr_chunks; nr++) {
		if (arena_touched(arena_of(al, nr << CHUNK_ORDER), nr))
			stat_chunk(al, nr, ret);
		else
			ret->nr_kind[BLOCK_NONE] += CHUNK_BLOCKS;
	}
}
