/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * alloc/arena.h - a share of the device's chunks, filed by how full they are
 *
 * The device's chunks are dealt to a few arenas in runs of a power of two.
 * An arena knows which of its chunks are empty (a bit each, clear for empty,
 * so that a device never touched costs nothing), and keeps those with room in
 * lists: partly used ones by the number of free blocks, in powers of two, and
 * those set aside.  Full chunks are in no list.
 *
 * Units.     Chunks by number from the device's start.
 * Errors.    "None" is ARENA_NONE.
 * Locking.   LOCK_ALLOC; never two arenas at once.  What arena_may_have()
 *            reads is atomic and only a hint.  chunk->share is atomic and
 *            needs no lock.
 */
#ifndef ALLOC_ARENA_H
#define ALLOC_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "alloc/freemap.h"
#include "alloc/share.h"
#include "dax/lock.h"

#define ARENA_NONE UINT64_MAX

/* Lists by free blocks: 1, 2 to 3, 4 to 7, ... 256 to 511; then the aside. */
#define NR_ROOM	   CHUNK_ORDER
#define LIST_ASIDE NR_ROOM
#define NR_LISTS   (NR_ROOM + 1)

struct chunk {
	struct freemap map;
	share_word share; /* 2 MiB slots; see share.h */
	uint32_t next;	  /* in its list, as number + 1; 0 for none */
	uint32_t prev;
	uint16_t nr_used;
	uint8_t list; /* the list it is in, plus one; 0 for none */
	bool aside;
};

/* Where a request looks, in this order. */
enum arena_class {
	ARENA_PARTLY, /* chunks with something in them */
	ARENA_EMPTY,
	ARENA_ASIDE,
	NR_ARENA_CLASSES
};

struct arena {
	struct mutex lock;   /* covers everything below, and the chunks */
	struct chunk *chunk; /* of the device, not of the arena */
	uint64_t first;	     /* chunk number */
	uint64_t nr;	     /* chunks, whole or not */
	_Atomic(uint64_t) *busy;
	uint64_t nr_words; /* of busy */
	uint64_t low_word; /* no empty chunk in the words below */
	uint32_t head[NR_LISTS];
	_Atomic(uint32_t) lists; /* bit i: list i has somebody */
	_Atomic(uint64_t) nr_empty;
	_Atomic(uint64_t) nr_aside;
} __attribute__((aligned(CACHE_LINE)));

void arena_init(struct arena *ar, struct chunk *chunks, uint64_t first,
		uint64_t nr, _Atomic(uint64_t) *busy);
void arena_destroy(struct arena *ar);

/* Something in the chunk is in use.  No lock: for the mount walk.  */
bool arena_touch(struct arena *ar, uint64_t nr);
bool arena_touched(const struct arena *ar, uint64_t nr);

/* All chunks that were touched have their map: file them. */
void arena_ready(struct arena *ar) __must_hold(ar->lock);

/* The chunk's map and count have changed: file it again. */
void arena_refile(struct arena *ar, uint64_t nr) __must_hold(ar->lock);
void arena_set_aside(struct arena *ar, uint64_t nr, bool aside)
	__must_hold(ar->lock);

/* Is it worth locking the arena for this class? */
bool arena_may_have(const struct arena *ar, enum arena_class cls);

/* More than half of the chunks are empty: no need to look for holes afar. */
bool arena_roomy(const struct arena *ar);

/*
 * A chunk of the class with at least one free block.  For ARENA_PARTLY one
 * with @want free blocks if there is one, and the fullest of those; for
 * ARENA_EMPTY the next one after chunk @near.
 */
uint64_t arena_pick(struct arena *ar, enum arena_class cls, uint64_t near,
		    uint64_t want) __must_hold(ar->lock);

#endif
