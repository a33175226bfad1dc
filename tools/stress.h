/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/stress.h - foliofs-stress: what its clients share
 *
 * Half of the clients hold pages of files (map, pin, load, store), the other
 * half change the files beneath them (truncate, punch, clone, unlink).  Every
 * word that is ever stored says whose it is: the identity of the file, which
 * no other file of the run has, the page, the version and a checksum over
 * these and the word's place.  So each of the 512 words of a page can be
 * judged alone, also while somebody stores to the page.
 *
 * What a page may contain is known from a ring of the operations on it, each
 * with the moments at which it began and ended.  Moments are values of one
 * counter that all clients share.  A value is right if the operation that
 * put it there began before the load ended, and no other operation both began
 * after that one had ended and ended before the load began.  Nothing more can
 * be said about concurrent operations, and no more is needed: a block that
 * went to another file has another identity in each word.
 *
 * Files are reached through struct object.  Operations on the name of an
 * object exclude each other and open(2); operations that change the size of a
 * file exclude each other.  Loads, stores and pins exclude nothing.
 *
 * Locking.   All locks here are tried, never waited for, but for the ring's,
 *            which is held for a few instructions: whoever waits in the
 *            filesystem for a pin must not keep the owner of the pin waiting.
 * Ownership. All shared memory is one anonymous mapping made before fork(2).
 */
#ifndef TOOLS_STRESS_H
#define TOOLS_STRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "dax/media.h"

#define WORDS	     (BLOCK_SIZE / sizeof(uint64_t))
#define NR_OBJECTS   48u
#define NR_RECS	     32u /* more than clients, who have one each running */
#define NR_EVENTS    16u
#define NR_BLOCKS    (1u << 16) /* of which events are kept: block % this */
#define MAX_PAGES    1024u	/* of a file; 12 bits in a tag */
#define MAX_WORKERS  64u
#define MAX_FINDINGS 8u
#define NAME_LEN     32

/* Values of a page that are not the tag of a version. */
#define VALUE_ZERO   UINT64_C(0)
#define VALUE_BEYOND UINT64_C(1) /* past the end of the file: SIGBUS */

enum rec_state {
	REC_FREE,
	REC_RUNNING,
	REC_DONE,
	REC_MAYBE, /* ended, and had an effect or not */
};

struct rec {
	uint64_t begin, end;
	uint64_t value;
	/* A clone: what page @src_page of object @src was meanwhile. */
	uint32_t src_id, src_page;
	uint16_t src;
	uint8_t state, clone;
	uint16_t who;
};

struct ring {
	_Atomic(uint32_t) lock;
	_Atomic(uint32_t) version; /* the next */
	uint64_t lost_end;	   /* no forgotten operation ended later */
	struct rec rec[NR_RECS];
};

/* Taken by trying.  -1 exclusive, otherwise how many share it. */
struct trylock {
	_Atomic(int) count;
};

struct object {
	_Atomic(uint32_t) id; /* of the file; 0: free */
	_Atomic(uint32_t) refs;
	_Atomic(bool) linked;
	_Atomic(uint32_t) pages;     /* covered by size_lock */
	_Atomic(uint64_t) nr_ended;  /* operations that move blocks */
	_Atomic(uint32_t) nr_inside; /* of these, that run */
	struct trylock name_lock, size_lock;
	char name[NAME_LEN];
};

enum stress_op {
	OP_ATTACH,
	OP_DETACH,
	OP_LOAD,
	OP_STORE,
	OP_SYNC,
	OP_GIVE_BACK,
	OP_PIN,
	OP_PIN_LOAD,
	OP_PIN_STORE,
	OP_UNPIN,
	OP_TRUNCATE,
	OP_PUNCH,
	OP_ZERO,
	OP_WRITE,
	OP_READ,
	OP_CLONE,
	OP_COPY,
	OP_UNSHARE,
	OP_FSYNC,
	OP_RENAME,
	OP_UNLINK,
	NR_OPS,
};
extern const char *const op_names[NR_OPS];

struct op_stat {
	uint64_t nr, nr_failed, nr_busy, ns, max_ns;
};

struct worker {
	bool holder;
	unsigned int index;
	uint64_t rng;
	int sig_pages; /* SIGBUS seen and survived */
	_Atomic(int) op;
	_Atomic(uint64_t) since_ns; /* when it began; 0: between two */
	_Atomic(bool) ended;
	uint64_t nr_unknown; /* loads whose history was forgotten */
	struct op_stat stat[NR_OPS];
};

/* What happened to a block. */
enum event_kind {
	EVENT_NONE,
	EVENT_OWNED,
	EVENT_PINNED,
	EVENT_UNPINNED,
	EVENT_TAKEN, /* an operation that frees it begins */
	EVENT_FREED, /* and has ended */
};

struct event {
	uint64_t when;
	uint32_t id, page;
	uint16_t who;
	uint8_t kind, op;
};

struct block {
	_Atomic(uint32_t) nr;
	struct event event[NR_EVENTS];
};

struct finding {
	char text[8192];
};

struct profile {
	const char *name, *what;
	unsigned int nr_files, nr_pages;
	unsigned int max_run; /* pages of one operation */
	uint8_t weight[NR_OPS];
};

struct stress {
	/* Set before the clients start. */
	const struct profile *profile;
	uint64_t seed, max_ops;
	unsigned int nr_workers;
	char dir[256];
	char device[256]; /* empty: pins are looked at through maps only */
	bool may_revoke;  /* the policy ends clients */

	_Atomic(uint64_t) clock;
	_Atomic(uint32_t) next_id;
	_Atomic(bool) stop;
	_Atomic(uint32_t) nr_findings;
	struct finding finding[MAX_FINDINGS];
	struct object object[NR_OBJECTS];
	struct worker worker[MAX_WORKERS];
	struct block block[NR_BLOCKS];
	struct ring ring[]; /* nr_pages for each object */
};

extern struct stress *stress;
extern _Thread_local struct worker *self;

static inline uint64_t now(void)
{
	return atomic_fetch_add(&stress->clock, 1) + 1;
}

uint64_t time_ns(void);
uint64_t rnd(uint64_t n);
unsigned int object_index(const struct object *o);
void op_begin(enum stress_op op);
/* 0, a negative errno that is no surprise, or one that is a finding. */
void op_end(enum stress_op op, int ret);
enum stress_op op_choose(bool pinned);

/*
 * Something is wrong: everybody stops.  @block: UINT64_MAX for none.  @tag:
 * what was found instead, whose history is shown as well.
 */
void finding_of(const struct object *o, unsigned int page, uint64_t block,
		uint64_t tag, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
#define finding(o, page, block, ...) \
	finding_of(o, page, block, VALUE_ZERO, __VA_ARGS__)

/* stress_model.c: tags, rings, events. */
bool try_read(struct trylock *l);
bool try_write(struct trylock *l);
void unlock_read(struct trylock *l);
void unlock_write(struct trylock *l);

struct ring *ring_of(const struct object *o, unsigned int page);
void ring_reset(const struct object *o);
uint64_t new_tag(const struct object *o, unsigned int page);
uint64_t word_of(uint64_t tag, unsigned int i);
/* Of a word at place @i: the tag, or VALUE_ZERO; false: neither. */
bool word_tag(uint64_t word, unsigned int i, uint64_t *ret_tag);
void page_fill(uint64_t words[WORDS], uint64_t tag);

/* An operation on one page begins: its moment is its name. */
uint64_t rec_begin(const struct object *o, unsigned int page, uint64_t value);
uint64_t rec_begin_clone(const struct object *o, unsigned int page,
			 const struct object *src, unsigned int src_page);
/* @state: REC_FREE when it had no effect. */
void rec_end(const struct object *o, unsigned int page, uint64_t begin,
	     enum rec_state state);

enum answer {
	ANSWER_NO,
	ANSWER_YES,
	ANSWER_UNKNOWN
};
/* May page @page have been @value at a moment of [from, to]? */
enum answer value_allowed(const struct object *o, unsigned int page,
			  uint64_t value, uint64_t from, uint64_t to);

/*
 * Judge the first @nr words of a page that were loaded during [from, to].
 * @block as for finding().
 */
void page_check(const struct object *o, unsigned int page,
		const uint64_t words[WORDS], unsigned int nr, uint64_t from,
		uint64_t to, uint64_t block, const char *how);

void event_add(uint64_t block, enum event_kind kind, enum stress_op op,
	       uint32_t id, uint32_t page);

/* stress_object.c: files. */
int object_create(void);
/* A random file that has a name, with a reference, opened; or NULL. */
struct object *object_open(int flags, int *ret_fd);
struct object *object_open_at(unsigned int i, int flags, int *ret_fd);
void object_put(struct object *o);
void object_unlink(void);
void object_rename(void);

/* Lifes of clients. */
void holder_step(enum stress_op op);
void holder_init(void);
void holder_exit(void);
bool holder_pinned(void);
/* The device, as whoever transfers to it sees it.  Before the threads. */
void device_open(void);
void changer_step(enum stress_op op);

/* When all have ended: what every file contains. */
void stress_check_files(void);

/* stress_self.c: a filesystem of our own. */
struct own_fs {
	char image[96], dir[64], log[96];
	const char *daemon; /* program */
	const char *options;
	uint64_t size;
	pid_t pid;
	bool made, mounted;
};
int own_start(struct own_fs *fs);
/* 0; 1 when it did not end as it should, with a line said. */
int own_stop(struct own_fs *fs);
void own_log(const struct own_fs *fs);
const char *find_program(const char *name, char path[256]);

#endif
