/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/txn.c - transactions and the journal of lanes
 *
 * Life of a record, and what each state promises:
 *
 *	FREE	 nothing of it can be replayed; the lane may be taken
 *	BUSY	 its owner is writing it, or storing its words in place
 *	LIVE	 committed; words stored and flushed in place, not yet fenced
 *	RETIRED	 words durable; seq stored as 0 and flushed, not yet fenced
 *
 *	FREE -> BUSY -> LIVE	   [txn_commit, by the owner]
 *	LIVE -> RETIRED -> FREE	   [txn_commit, by whoever commits next]
 *
 * A commit has one fence of its own, and one more before the record if it
 * wrote anything directly.  Before the first, the committer flushes again
 * what others left unfenced (the words of LIVE lanes, the seq of RETIRED
 * ones), because a fence orders only the flushes of its own processor; what
 * the committer flushed itself needs no second flush.  After the fence, the
 * LIVE lanes it saw are durable in place and get their seq cleared, and the
 * RETIRED ones it saw can never be replayed and are FREE.
 *
 * Why replay is safe.  Let record R be followed by a later transaction T that
 * touches the same word.  T started after R released its locks, so T saw R as
 * LIVE, RETIRED or FREE, and T left R no longer LIVE before it became LIVE
 * itself.  T is retired at the earliest by the commit after T, whose fence
 * first makes durable the seq of R that T (or somebody before) cleared.  So
 * whenever T's record is gone, R's is gone too; and while both are there,
 * replay in order of seq ends with T's value.
 *
 * What T wrote directly is in a place that some earlier F freed.  A record R
 * that names words there is older than F; F's commit saw to it that R is at
 * least RETIRED, and T's first fence makes that durable before T's record can
 * be whole.  F itself names no word there (rule J3).
 *
 * A torn record must not come alive by carrying the number of the old record
 * whose remains it is written over: numbers are never used twice, also not
 * after a remount (journal_open()).
 */
#include "fs/txn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"

struct lane {
	uint64_t seq;
	uint64_t flusher; /* thread whose fence covers the last flush */
	unsigned int nr_lines;
	uint64_t line[FOLIOFS_LANE_WORDS]; /* cache lines of its words */
};

struct journal {
	struct mutex lock;    /* covers everything below */
	pthread_cond_t freed; /* a lane became free, or stopped being busy */
	uint64_t lane_off;
	unsigned int nr_lanes;
	uint64_t free;	  /* a bit a lane: FREE */
	uint64_t live;	  /* LIVE */
	uint64_t retired; /* RETIRED; a lane in no mask is BUSY */
	uint64_t seq;
	struct journal_stat stat;
	struct lane *lane;
};

/* Numbers are never used twice, unlike addresses or pthread_t. */
static uint64_t this_thread(void)
{
	static _Atomic(uint64_t) next = 1;
	static _Thread_local uint64_t mine;

	if (!mine)
		mine = atomic_fetch_add(&next, 1);
	return mine;
}

void vec_init(struct vec *v)
{
	v->v = v->first;
	v->nr = 0;
	v->cap = VEC_INLINE;
}

int vec_push(struct vec *v, uint64_t x)
{
	uint64_t *bigger;

	if (v->nr == v->cap) {
		size_t bytes = 2 * v->cap * sizeof(*bigger);

		bigger = (uint64_t *)realloc(v->v == v->first ? NULL : v->v,
					     bytes);
		if (!bigger)
			return -ENOMEM;
		if (v->v == v->first)
			memcpy(bigger, v->first, sizeof(v->first));
		v->v = bigger;
		v->cap *= 2;
	}
	v->v[v->nr++] = x;
	return 0;
}

void vec_free(struct vec *v)
{
	if (v->v != v->first)
		free(v->v);
	vec_init(v);
}

void txn_begin(struct foliofs *fs, struct txn *t)
{
	t->fs = fs;
	t->alloc_flags = 0;
	t->direct = false;
	t->nr_words = 0;
	vec_init(&t->taken);
	vec_init(&t->got);
	vec_init(&t->drop);
}

static void txn_end(struct txn *t)
{
	vec_free(&t->taken);
	vec_free(&t->got);
	vec_free(&t->drop);
}

void txn_set64(struct txn *t, uint64_t off, uint64_t value)
{
	assert(off % 8 == 0);
	for (unsigned int i = 0; i < t->nr_words; i++) {
		if (t->word[i].off == off) {
			t->word[i].value = value;
			return;
		}
	}
	assert(t->nr_words < FOLIOFS_LANE_WORDS);
	t->word[t->nr_words++] = (struct txn_word){ off, value };
}

uint64_t txn_get64(const struct txn *t, uint64_t off)
{
	for (unsigned int i = 0; i < t->nr_words; i++)
		if (t->word[i].off == off)
			return t->word[i].value;
	return pmem_load64(t->fs->pm, off);
}

/* A chunk is remembered by bit 0 of its length, which is always 512. */
static int remember_taken(struct txn *t, uint64_t start, uint64_t nr,
			  bool chunk)
{
	int ret = vec_push(&t->taken, start);

	if (ret)
		return ret;
	txn_direct(t);
	ret = vec_push(&t->taken, nr << 1 | chunk);
	if (ret)
		t->taken.nr--;
	return ret;
}

static void give_back(struct foliofs *fs, uint64_t start, uint64_t nr,
		      bool chunk)
{
	if (chunk) {
		if (alloc_put(fs->al, start, CHUNK_ORDER))
			alloc_free(fs->al, start, CHUNK_ORDER);
		return;
	}
	for (uint64_t b = start; b < start + nr; b++)
		if (alloc_put(fs->al, b, 0))
			alloc_free(fs->al, b, 0);
}

int txn_take(struct txn *t, uint64_t goal, uint64_t want, enum block_kind kind,
	     struct extent *ret_ext)
{
	struct extent ext;
	int ret;

	ret = alloc_take(t->fs->al, goal, want, kind, t->alloc_flags, &ext);
	if (ret)
		return ret;
	ret = remember_taken(t, ext.start, ext.nr, false);
	if (ret) {
		give_back(t->fs, ext.start, ext.nr, false);
		return ret;
	}
	*ret_ext = ext;
	return 0;
}

int txn_take_at(struct txn *t, uint64_t start, uint64_t want,
		enum block_kind kind, struct extent *ret_ext)
{
	struct extent ext;
	int ret;

	alloc_take_at(t->fs->al, start, want, kind, t->alloc_flags, &ext);
	if (ext.nr) {
		ret = remember_taken(t, ext.start, ext.nr, false);
		if (ret) {
			give_back(t->fs, ext.start, ext.nr, false);
			return ret;
		}
	}
	*ret_ext = ext;
	return 0;
}

int txn_take_chunk(struct txn *t, uint64_t goal, enum block_kind kind,
		   uint64_t *ret_block)
{
	uint64_t block;
	int ret;

	ret = alloc_take_chunk(t->fs->al, goal, kind, t->alloc_flags, &block);
	if (ret)
		return ret;
	ret = remember_taken(t, block, CHUNK_BLOCKS, true);
	if (ret) {
		give_back(t->fs, block, CHUNK_BLOCKS, true);
		return ret;
	}
	*ret_block = block;
	return 0;
}

int txn_adopt(struct txn *t, uint64_t block)
{
	return remember_taken(t, block, 1, false);
}

int txn_get(struct txn *t, uint64_t slot)
{
	int ret = vec_push(&t->got, slot);

	if (ret)
		return ret;
	ret = alloc_get(t->fs->al, slot_block(slot), slot_order(slot));
	if (ret)
		t->got.nr--;
	return ret;
}

int txn_drop(struct txn *t, uint64_t slot, enum txn_drop how)
{
	int ret = vec_push(&t->drop, slot);

	if (ret)
		return ret;
	ret = vec_push(&t->drop, how);
	if (ret)
		t->drop.nr--;
	return ret;
}

static void do_drops(struct txn *t)
{
	struct foliofs *fs = t->fs;

	for (unsigned int i = 0; i < t->drop.nr; i += 2) {
		uint64_t slot = t->drop.v[i];

		switch ((enum txn_drop)t->drop.v[i + 1]) {
		case DROP_DEEP:
			tree_drop(fs, slot);
			break;
		case DROP_NODE:
			give_back(fs, slot_block(slot), 1, false);
			break;
		case DROP_BLOCKS:
			give_back(fs, slot_block(slot), CHUNK_BLOCKS, false);
			break;
		}
	}
}

void txn_abort(struct txn *t)
{
	struct foliofs *fs = t->fs;

	for (unsigned int i = 0; i < t->got.nr; i++) {
		uint64_t slot = t->got.v[i];

		if (alloc_put(fs->al, slot_block(slot), slot_order(slot)))
			alloc_free(fs->al, slot_block(slot), slot_order(slot));
	}
	for (unsigned int i = 0; i < t->taken.nr; i += 2)
		give_back(fs, t->taken.v[i], t->taken.v[i + 1] >> 1,
			  t->taken.v[i + 1] & 1);
	txn_end(t);
}

static uint64_t lane_off(const struct journal *j, uint64_t i)
{
	return j->lane_off + i * FOLIOFS_LANE_SIZE;
}

/* The lanes that a committer saw, to act on after its fence. */
struct seen {
	uint64_t live;
	uint64_t retired;
	uint64_t seq[FOLIOFS_NR_LANES];
};

#define for_each_lane(i, mask)            \
	for (uint64_t m_ = (mask), i = 0; \
	     m_ && (i = (uint64_t)__builtin_ctzll(m_), true); m_ &= m_ - 1)

static void flush_lines(struct pmem *pm, const struct lane *l)
{
	for (unsigned int i = 0; i < l->nr_lines; i++)
		pmem_flush(pm, l->line[i], CACHE_LINE);
}

/* Flush what others left, and note every lane that our fence will settle. */
static void journal_look(struct foliofs *fs, struct journal *j,
			 struct seen *seen) __must_hold(j->lock)
{
	uint64_t me = this_thread();

	seen->live = j->live;
	seen->retired = j->retired;
	for_each_lane(i, j->live | j->retired)
	{
		struct lane *l = &j->lane[i];

		seen->seq[i] = l->seq;
		if (l->flusher == me)
			continue;
		if (j->live & UINT64_C(1) << i)
			flush_lines(fs->pm, l);
		else
			pmem_flush(fs->pm, lane_off(j, i), CACHE_LINE);
	}
}

/* Our fence has passed: move on every lane that nobody moved meanwhile. */
static void journal_advance(struct foliofs *fs, struct journal *j,
			    const struct seen *seen) __must_hold(j->lock)
{
	for_each_lane(i, seen->retired & j->retired)
	{
		if (j->lane[i].seq != seen->seq[i])
			continue;
		j->retired &= ~(UINT64_C(1) << i);
		j->free |= UINT64_C(1) << i;
		pthread_cond_signal(&j->freed);
	}
	for_each_lane(i, seen->live & j->live)
	{
		struct lane *l = &j->lane[i];

		if (l->seq != seen->seq[i])
			continue;
		pmem_store64(fs->pm, lane_off(j, i), 0);
		pmem_flush(fs->pm, lane_off(j, i), CACHE_LINE);
		l->flusher = this_thread();
		j->live &= ~(UINT64_C(1) << i);
		j->retired |= UINT64_C(1) << i;
	}
}

/* Two rounds: what is LIVE becomes RETIRED, what is RETIRED becomes FREE. */
static void settle_locked(struct foliofs *fs, struct journal *j)
	__must_hold(j->lock)
{
	struct seen seen;

	for (int round = 0; round < 2; round++) {
		journal_look(fs, j, &seen);
		pmem_fence(fs->pm);
		journal_advance(fs, j, &seen);
	}
	j->stat.nr_settles++;
}

/*
 * After a machine check lanes stay as they are: some may hold what is durable
 * nowhere else, others may be gone.  Nothing may be committed over them.
 */
static void give_up(struct foliofs *fs, struct journal *j) __must_hold(j->lock)
{
	pmem_fault_take();
	if (!atomic_exchange(&fs->read_only, true))
		fs_damaged(fs, "machine check while storing metadata; "
			       "the filesystem is read-only now");
	pthread_cond_broadcast(&j->freed);
	pmem_fault_note(); /* the operation fails, or its answer does */
}

/* -EROFS when there will be none any more. */
static int take_lane(struct foliofs *fs, struct journal *j, unsigned int *ret_i)
	__must_hold(j->lock)
{
	unsigned int i;

	while (!j->free) {
		if (atomic_load(&fs->read_only))
			return -EROFS;
		if (j->live | j->retired)
			settle_locked(fs, j);
		else /* all are being committed right now; one will end */
			mutex_wait(&j->lock, &j->freed);
	}
	i = (unsigned int)__builtin_ctzll(j->free);
	j->free &= ~(UINT64_C(1) << i);
	j->lane[i].seq = ++j->seq;
	*ret_i = i;
	return 0;
}

static void write_record(struct foliofs *fs, uint64_t off, const struct txn *t,
			 uint64_t seq)
{
	struct foliofs_lane rec;
	size_t len = offsetof(struct foliofs_lane, word) +
		     t->nr_words * sizeof(rec.word[0]);

	rec.seq = cpu_to_le64(seq);
	rec.nr = cpu_to_le32(t->nr_words);
	rec.crc = cpu_to_le32(0);
	memset(rec.reserved, 0, sizeof(rec.reserved));
	for (unsigned int i = 0; i < t->nr_words; i++) {
		rec.word[i].off = cpu_to_le64(t->word[i].off);
		rec.word[i].value = cpu_to_le64(t->word[i].value);
	}
	rec.crc = cpu_to_le32(pmem_crc32c(&rec, len));
	pmem_write(fs->pm, off, &rec, len);
}

static void note_line(struct lane *l, uint64_t off)
{
	uint64_t line = off & ~(uint64_t)(CACHE_LINE - 1);

	for (unsigned int i = 0; i < l->nr_lines; i++)
		if (l->line[i] == line)
			return;
	l->line[l->nr_lines++] = line;
}

static void store_in_place(struct foliofs *fs, const struct txn *t,
			   struct lane *l)
{
	l->nr_lines = 0;
	for (unsigned int i = 0; i < t->nr_words; i++) {
		pmem_store64(fs->pm, t->word[i].off, t->word[i].value);
		note_line(l, t->word[i].off);
	}
	flush_lines(fs->pm, l);
}

static int may_commit(struct txn *t)
{
	if (pmem_fault_take())
		return -EIO;
	if (atomic_load_explicit(&t->fs->read_only, memory_order_relaxed))
		return -EROFS;
	return 0;
}

/* A commit under way: its lane, and what it saw of the others. */
struct commit {
	unsigned int lane;
	struct seen seen;
};

static int start_commit(struct txn *t, struct commit *c)
{
	struct journal *j = t->fs->journal;
	int ret;

	mutex_lock(&j->lock);
	ret = take_lane(t->fs, j, &c->lane);
	if (!ret) {
		journal_look(t->fs, j, &c->seen);
		j->stat.nr_txns++;
		j->stat.nr_words += t->nr_words;
	}
	mutex_unlock(&j->lock);
	return ret;
}

/*
 * A record may reach media before the fence says so.  What it leads to must be
 * there first, and so must the end of older records: they may name words in
 * the place that was written.
 *
 * -EIO: no record reached media, and no word was stored.
 */
static int store_commit(struct txn *t, struct commit *c)
{
	struct foliofs *fs = t->fs;
	struct journal *j = fs->journal;
	struct lane *l = &j->lane[c->lane];

	if (t->direct)
		pmem_fence(fs->pm);
	if (!pmem_fault_pending())
		write_record(fs, lane_off(j, c->lane), t, l->seq);
	if (pmem_fault_pending()) {
		mutex_lock(&j->lock);
		give_up(fs, j);
		mutex_unlock(&j->lock);
		return -EIO;
	}
	pmem_fence(fs->pm);
	/* Committed: from here a crash replays the record. */
	store_in_place(fs, t, l);
	return 0;
}

/*
 * False: the words did not all reach media.  The record did, or will be missed
 * by nobody: keep the lane as it is for the next mount, and change nothing
 * more.
 */
static bool finish_commit(struct txn *t, struct commit *c)
{
	struct foliofs *fs = t->fs;
	struct journal *j = fs->journal;
	bool whole;

	mutex_lock(&j->lock);
	journal_advance(fs, j, &c->seen);
	whole = !pmem_fault_pending();
	if (whole) {
		j->live |= UINT64_C(1) << c->lane;
		j->lane[c->lane].flusher = this_thread();
		pthread_cond_signal(&j->freed);
	} else {
		give_up(fs, j);
	}
	mutex_unlock(&j->lock);
	return whole;
}

/* What was overwritten in place, and nothing else, is durable all the same. */
static int commit_nothing(struct txn *t)
{
	assert(t->taken.nr == 0 && t->drop.nr == 0);
	txn_end(t);
	pmem_fence(t->fs->pm);
	return pmem_fault_take() ? -EIO : 0;
}

int txn_commit(struct txn *t)
{
	struct commit c;
	int ret;

	ret = may_commit(t);
	if (!ret && t->nr_words == 0)
		return commit_nothing(t);
	if (!ret)
		ret = start_commit(t, &c);
	if (!ret)
		ret = store_commit(t, &c);
	if (ret) {
		txn_abort(t);
		return ret;
	}
	if (finish_commit(t, &c))
		do_drops(t);
	txn_end(t);
	return 0;
}

/* Recovery. */

static bool word_allowed(const struct foliofs *fs, uint64_t off)
{
	uint64_t copy = (fs->nr_blocks - 1) << BLOCK_SHIFT;
	uint64_t root = offsetof(struct foliofs_superblock, itable_root);

	if (off % 8 != 0)
		return false;
	if (off == root || off == copy + root)
		return true;
	return off >= fs->data_start << BLOCK_SHIFT && off < copy;
}

enum record_state journal_record(const struct foliofs *fs, uint64_t off,
				 struct foliofs_lane *ret)
{
	uint32_t nr, crc;
	size_t len;

	memcpy(ret, pmem_at(fs->pm, off), sizeof(*ret));
	nr = le32_to_cpu(ret->nr);
	if (le64_to_cpu(ret->seq) == 0)
		return RECORD_NONE;
	if (nr == 0 || nr > FOLIOFS_LANE_WORDS)
		return RECORD_TORN;
	len = offsetof(struct foliofs_lane, word) + nr * sizeof(ret->word[0]);
	crc = le32_to_cpu(ret->crc);
	ret->crc = cpu_to_le32(0);
	if (pmem_crc32c(ret, len) != crc)
		return RECORD_TORN;
	for (uint32_t i = 0; i < nr; i++)
		if (!word_allowed(fs, le64_to_cpu(ret->word[i].off)))
			return RECORD_STRAY;
	return RECORD_WHOLE;
}

static void replay(struct foliofs *fs, const struct foliofs_lane *rec)
{
	for (uint32_t i = 0; i < le32_to_cpu(rec->nr); i++) {
		uint64_t off = le64_to_cpu(rec->word[i].off);

		pmem_store64(fs->pm, off, le64_to_cpu(rec->word[i].value));
		pmem_flush(fs->pm, off, 8);
	}
}

struct found {
	struct foliofs_lane rec;
	uint64_t off; /* of its lane */
};

/* Flushed also if it reads as clear: that may be in the caches only. */
static void clear_lane(struct foliofs *fs, uint64_t off)
{
	if (pmem_load64(fs->pm, off) != 0)
		pmem_store64(fs->pm, off, 0);
	pmem_flush(fs->pm, off, CACHE_LINE);
}

static int by_seq(const void *a, const void *b)
{
	uint64_t x = le64_to_cpu(((const struct found *)a)->rec.seq);
	uint64_t y = le64_to_cpu(((const struct found *)b)->rec.seq);

	return x < y ? -1 : x > y;
}

/*
 * Whoever was killed may have left a record, or the end of one, in the caches
 * only.  So first of all make durable what is found: a record that vanished
 * after half of its words were replayed, or came back after later ones had
 * changed its words, would be a state that never was.
 *
 * Replay every whole record in order and make that durable.  Then clear the
 * lanes, the oldest record first and each with a fence of its own: a crash in
 * between must not find an old record without the later one that corrects it.
 */
static int recover(struct foliofs *fs, struct journal *j, struct errmsg *err)
{
	struct found *found;
	unsigned int nr = 0;

	found = (struct found *)malloc(j->nr_lanes * sizeof(*found));
	if (!found)
		return err_set(err, -ENOMEM, "out of memory");
	for (unsigned int i = 0; i < j->nr_lanes; i++) {
		if (journal_record(fs, lane_off(j, i), &found[nr].rec) ==
		    RECORD_WHOLE) {
			found[nr].off = lane_off(j, i);
			pmem_flush(fs->pm, found[nr].off, FOLIOFS_LANE_SIZE);
			nr++;
		} else {
			clear_lane(fs, lane_off(j, i));
		}
	}
	pmem_fence(fs->pm);
	qsort(found, nr, sizeof(*found), by_seq);
	for (unsigned int i = 0; i < nr; i++)
		replay(fs, &found[i].rec);
	pmem_fence(fs->pm);
	for (unsigned int i = 0; i < nr; i++) {
		clear_lane(fs, found[i].off);
		pmem_fence(fs->pm);
	}
	j->stat.nr_replayed = nr;
	free(found);
	return 0;
}

/* Sequence numbers start above all that any earlier mount has used. */
#define SEQ_SHIFT 40

static void count_mount(struct foliofs *fs, struct journal *j)
{
	size_t off = offsetof(struct foliofs_superblock, nr_mounts);
	uint64_t nr = pmem_load64(fs->pm, off) + 1;

	pmem_store64(fs->pm, off, nr);
	pmem_flush(fs->pm, off, sizeof(nr));
	pmem_fence(fs->pm);
	j->seq = nr << SEQ_SHIFT;
}

int journal_open(struct foliofs *fs, struct errmsg *err)
{
	const struct foliofs_superblock *sb =
		(const struct foliofs_superblock *)pmem_at(fs->pm, 0);
	struct journal *j;
	int ret;

	j = (struct journal *)calloc(1, sizeof(*j));
	if (!j)
		return err_set(err, -ENOMEM, "out of memory");
	j->nr_lanes = le32_to_cpu(sb->nr_lanes);
	j->lane_off = le64_to_cpu(sb->lane_off);
	j->free = j->nr_lanes < 64 ? (UINT64_C(1) << j->nr_lanes) - 1
				   : UINT64_MAX;
	j->lane = (struct lane *)calloc(j->nr_lanes, sizeof(*j->lane));
	if (!j->lane) {
		free(j);
		return err_set(err, -ENOMEM, "out of memory");
	}
	mutex_init(&j->lock, LOCK_JOURNAL);
	cond_init(&j->freed);
	fs->journal = j;
	ret = recover(fs, j, err);
	if (!ret)
		count_mount(fs, j);
	return ret;
}

void journal_settle(struct foliofs *fs)
{
	struct journal *j = fs->journal;

	mutex_lock(&j->lock);
	settle_locked(fs, j);
	mutex_unlock(&j->lock);
}

void journal_close(struct foliofs *fs)
{
	struct journal *j = fs->journal;

	if (!j)
		return;
	pthread_cond_destroy(&j->freed);
	mutex_destroy(&j->lock);
	free(j->lane);
	free(j);
	fs->journal = NULL;
}

void journal_stat(const struct foliofs *fs, struct journal_stat *ret)
{
	struct journal *j = fs->journal;

	mutex_lock(&j->lock);
	*ret = j->stat;
	mutex_unlock(&j->lock);
}
