/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/txn.h - words that become durable together
 *
 * A transaction collects 8-byte stores and, beside them, what the allocator
 * has to hear: blocks that were taken, shares that were added, slots that go
 * away.  txn_commit() makes the words durable, with one fence if there is
 * nothing but words and with two otherwise; txn_abort() gives everything back.
 * Exactly one of the two ends it.
 *
 * The record of a committed transaction stays live in its lane until the
 * words it names are durable in place, which later commits see to.  From this
 * follow the rules J1 to J3 that users of this header must keep:
 *
 * J1  A word of something reachable changes only through a transaction.
 * J2  What nothing reaches yet (a taken block, a free inode, the bytes behind
 *     the end of a file) is written directly, before the commit, and the
 *     transaction is told (txn_direct(); taking a block tells it too): such
 *     bytes must be durable before the record is.
 * J3  A transaction sets no word inside something it frees, except a word
 *     that whoever takes it again sets by transaction as well.  (Replay of
 *     its live record would otherwise write over the new owner.)
 *
 * ARCHITECTURE.md, "Transactions", has the proof.
 *
 * Units.     Media offsets are bytes and 8-byte aligned.
 * Errors.    Negative errno before commit.  -EIO when a machine check hit the
 *            thread: the caller aborts.
 * Locking.   The caller holds what protects the words and releases it after
 *            the commit.  Inside: LOCK_JOURNAL, then LOCK_ALLOC.
 * Ownership. The struct txn lives in the caller's frame.
 * Source.    WOLVES (OSDI '25) for one fence; DESIGN of lanes after
 *            libpmemobj's.
 */
#ifndef FS_TXN_H
#define FS_TXN_H

#include "alloc/alloc.h"
#include "dax/err.h"
#include "fs/fs_format.h"

struct foliofs;
struct journal;

/* A growing array of words; small ones need no memory of their own. */
#define VEC_INLINE 12
struct vec {
	uint64_t *v;
	unsigned int nr, cap;
	uint64_t first[VEC_INLINE];
};

struct txn_word {
	uint64_t off;
	uint64_t value;
};

struct txn {
	struct foliofs *fs;
	unsigned int alloc_flags; /* ALLOC_EMERGENCY for what must succeed */
	bool direct; /* something was written that the words will lead to */
	unsigned int nr_words;
	struct txn_word word[FOLIOFS_LANE_WORDS];
	struct vec taken; /* pairs start, nr | order: undone by abort */
	struct vec got;	  /* slots whose share was added: undone by abort */
	struct vec drop;  /* slots that go away: done by commit */
};

void txn_begin(struct foliofs *fs, struct txn *t);

/* The last word set wins.  There must be room: see txn_room(). */
void txn_set64(struct txn *t, uint64_t off, uint64_t value);

/* What @off will hold after the commit. */
uint64_t txn_get64(const struct txn *t, uint64_t off);

/* Words that still fit. */
static inline unsigned int txn_room(const struct txn *t)
{
	return FOLIOFS_LANE_WORDS - t->nr_words;
}

/* Bytes were written that only this transaction makes reachable. */
static inline void txn_direct(struct txn *t)
{
	t->direct = true;
}

/* alloc_take() and friends, remembered for abort. */
int txn_take(struct txn *t, uint64_t goal, uint64_t want, enum block_kind kind,
	     struct extent *ret_ext);
int txn_take_at(struct txn *t, uint64_t start, uint64_t want,
		enum block_kind kind, struct extent *ret_ext);
int txn_take_chunk(struct txn *t, uint64_t goal, enum block_kind kind,
		   uint64_t *ret_block);

/* A block that the caller has taken becomes the transaction's. */
int txn_adopt(struct txn *t, uint64_t block);

/* One more slot will point to what @slot points to. */
int txn_get(struct txn *t, uint64_t slot);

/*
 * @slot goes away with this transaction.  DROP_DEEP: what it points to loses
 * a share, and if it was the last one, so do all that it points to.
 * DROP_NODE: only the node itself goes, its slots were moved elsewhere.
 * DROP_BLOCKS: the 512 single blocks of the chunk lose a share each.
 */
enum txn_drop {
	DROP_DEEP,
	DROP_NODE,
	DROP_BLOCKS
};
int txn_drop(struct txn *t, uint64_t slot, enum txn_drop how);

/*
 * Make it durable; without any word, what was overwritten.  Fails only with
 * -EIO when a machine check was met on the way, and then nothing has changed:
 * the transaction is aborted.
 */
int txn_commit(struct txn *t);
void txn_abort(struct txn *t);

/* Lanes.  Open replays what is live; settle leaves nothing live. */
int journal_open(struct foliofs *fs, struct errmsg *err);
void journal_settle(struct foliofs *fs);
void journal_close(struct foliofs *fs);

/* What a lane holds, for recovery and for the checker. */
enum record_state {
	RECORD_NONE,  /* retired, or never used */
	RECORD_TORN,  /* not finished: it never happened */
	RECORD_STRAY, /* whole, but with words where none may be */
	RECORD_WHOLE, /* to be replayed */
};
enum record_state journal_record(const struct foliofs *fs, uint64_t off,
				 struct foliofs_lane *ret);

struct journal_stat {
	uint64_t nr_txns, nr_words, nr_settles, nr_replayed;
};
void journal_stat(const struct foliofs *fs, struct journal_stat *ret);

void vec_init(struct vec *v);
int vec_push(struct vec *v, uint64_t x);
void vec_free(struct vec *v);

#endif
