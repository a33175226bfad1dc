/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/support/raw.h - a session server over memfs, and bare clients
 *
 * A raw client sends what it is told to, sensible or not.  It answers recalls
 * while it waits for a reply and in raw_serve(), unless it is told to be deaf.
 */
#ifndef TESTS_DAX_RAW_H
#define TESTS_DAX_RAW_H

#include "dax/session.h"
#include "tests/dax/support/memfs.h"

#define RAW_MAX_RECALLS 1024u

struct raw {
	int fd, device_fd, mail_fd;
	uint32_t next_id;
	bool deaf; /* leaves recalls unanswered */
	uint64_t client, handle, ino, size;
	uint32_t open_flags;
	unsigned int nr_recalls;
	struct session_recall recalls[RAW_MAX_RECALLS]; /* the first ones */

	/* Before a recall is answered. */
	void (*on_recall)(struct raw *r, const struct session_recall *m);
	void *ctx;
};

/* The server of a test: every file of @fs that exists is mapped through it. */
struct rawfs {
	struct memfs *fs;
	struct session_server *srv;
	_Atomic(int) nr_gets;	/* less the puts */
	_Atomic(int) nr_stored; /* calls */
	int allow;		/* what allow() says */
	/* In stored(), between a fault and its answer. */
	void (*on_stored)(struct address_space *mapping, uint64_t pos);
	unsigned int nr_waits; /* that waits() has */
	char log[256];	       /* the last line */
};

int rawfs_create(struct rawfs *rf, struct memfs *fs,
		 const struct session_limits *limits, unsigned int recall_ms);
/* Files that were made since. */
void rawfs_adopt(struct rawfs *rf);
/* Ends the server; the files go back to their views. */
void rawfs_destroy(struct rawfs *rf);

/* 0, or what the server or the system said. */
int raw_connect(struct raw *r, const char *path);
int raw_hello(struct raw *r);
int raw_open(struct raw *r, const uint8_t token[SESSION_TOKEN_SIZE]);
/* connect, hello, a token for @file, open. */
int raw_start(struct raw *r, struct rawfs *rf, struct memfile *file,
	      bool write);
void raw_end(struct raw *r);

int raw_map(struct raw *r, uint64_t addr, uint64_t index, uint64_t nr,
	    uint32_t flags, uint64_t *ret_vma);
int raw_range(struct raw *r, uint32_t op, uint64_t vma, uint64_t index,
	      uint64_t nr, uint32_t flags);
int raw_fault(struct raw *r, uint64_t vma, uint64_t index, uint64_t nr,
	      uint32_t flags, struct session_fault_reply *ret);
int raw_pin(struct raw *r, uint64_t vma, uint64_t index, uint64_t nr,
	    uint32_t flags, uint64_t *ret_pin);
int raw_finish(struct raw *r, uint32_t op, uint64_t which); /* CLOSE, UNPIN */
int raw_holds(struct raw *r, uint64_t ino, uint64_t cursor,
	      struct session_holds_reply *ret);
int raw_list_waits(struct raw *r, uint64_t cursor,
		   struct session_waits_reply *ret);

/* Pieces of the above. */
uint32_t raw_send(struct raw *r, void *msg, size_t len);
/* The reply to @id, answering recalls meanwhile. */
int raw_reply(struct raw *r, uint32_t id, void *reply, size_t size);
int raw_call(struct raw *r, void *msg, size_t len, void *reply, size_t size);
/* Answer recalls until nothing comes for @ms.  -EPIPE: the session ended. */
int raw_serve(struct raw *r, int ms);
/* Answer one recall. */
void raw_answer(struct raw *r, uint32_t id);
/* Answer all that was received while deaf. */
void raw_catch_up(struct raw *r);

#endif
