/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_i.h - what the parts of the session server share
 *
 * Private to dax/session*.c.
 *
 * S1  A client's table says what the client may have mapped.  A translation
 *     leaves it when the client has said that it is gone (RECALLED, UNMAP), or
 *     when its process has.
 * S2  A translation has one reference and one mapcount, or with PTE_STUCK one
 *     reference; a zero page has neither.
 * S3  What is sent to a client is sent, or queued, under client->lock, by
 *     whoever changed the table and before the lock is dropped; the client
 *     handles it in that order.  So the answer to a recall speaks for every
 *     translation that was sent before it.
 * S4  folio_put() is called without client->lock: it may tell the owner of
 *     free space.
 */
#ifndef DAX_SESSION_I_H
#define DAX_SESSION_I_H

#include <sys/queue.h>

#include "dax/session.h"

/* Page tables. */

#define PTE_PRESENT 0x01u
#define PTE_WRITE   0x02u
#define PTE_ZERO    0x04u
#define PTE_HUGE    0x08u
#define PTE_RECALL  0x10u /* taken back; the client has not answered */
#define PTE_WRPROT  0x20u /* the same for stores only */
#define PTE_STUCK   0x40u /* its time is over: a pin now */

/* The recall that took it back, and the page. */
#define PTE_SEQ_SHIFT 8
#define PTE_PFN_SHIFT 32
#define PTE_SEQ_MASK  0xffffffu

/* Recalls of a client lie no further apart, or numbers would be compared
 * wrongly. */
#define RECALL_MAX_AGE 0x400000u

/* Index and pages of a vma are below this: 2^48 bytes. */
#define SESSION_MAX_INDEX (UINT64_C(1) << 36)

struct session_vma {
	struct dax_vma dv; /* first */
	struct session_client *client;

	/* In address_space.session_vmas; under the file's lock. */
	struct session_vma *next;

	/* Under client->lock. */
	LIST_ENTRY(session_vma) link; /* of a bucket */
	uint64_t number;
	uint64_t since_ns;
	bool write;
	bool loose;	    /* may store and not flush */
	bool dead;	    /* no new translations */
	unsigned int users; /* requests, and 1 while it is not dead */
	uint64_t root;	    /* as a slot of a table */
	unsigned int height;
};

struct session_handle {
	struct session_client *client;
	struct address_space *mapping;
	bool write;
	uint64_t number;
	unsigned int users; /* under client->lock: requests, and its place */
	_Atomic(uint64_t) seen;	     /* nr_stores */
	struct session_handle *next; /* of the file, under its lock */
};

struct session_pin {
	LIST_ENTRY(session_pin) link;
	uint64_t number;
	struct address_space *mapping; /* held: it may outlive vma and handle */
	uint64_t ino;
	uint64_t index, nr;
	bool longterm;
	uint64_t since_ns;
	struct folio *folios[];
};

/* Somebody waits for the answers to recalls. */
struct recall_batch {
	_Atomic(unsigned int) nr_pending;
	bool late; /* somebody may still use it */
	struct session_recall_entry *first;
};

struct session_recall_entry {
	TAILQ_ENTRY(session_recall_entry) link; /* of the client */
	struct session_recall_entry *next;	/* of the batch */
	struct session_client *client;
	struct recall_batch *batch; /* NULL: nobody waits */
	uint64_t vma;		    /* number */
	uint64_t index, nr;
	uint32_t seq; /* id of the message; only the low bits are in tables */
	enum session_recall_kind kind;
	bool answered;
	bool late;
	unsigned int refs;	 /* under client->lock: client and batch */
	struct session_out *out; /* not sent yet */
	uint64_t since_ns;
};

TAILQ_HEAD(recall_list, session_recall_entry);

/* A packet that the socket had no room for. */
struct session_out {
	STAILQ_ENTRY(session_out) link;
	int fd;
	struct session_recall_entry *recall; /* that it is, if there */
	size_t len;
	unsigned char data[];
};

enum client_state {
	CLIENT_NEW,   /* has not said HELLO */
	CLIENT_READY, /* HELLO was answered */
	CLIENT_GONE,  /* no socket, but its process maps the device */
	CLIENT_DEAD,  /* nothing left */
};

#define VMA_BUCKETS 64u

struct session_client {
	struct session_server *srv;
	_Atomic(unsigned int) refs;
	unsigned int slot; /* in srv->clients */
	uint64_t number;   /* says which one of a slot it is */
	int pidfd;
	uid_t uid;
	gid_t gid;
	pid_t pid;
	char comm[16];
	uint64_t since_ns;
	int mail_fd;
	struct session_mailbox *mail;

	/* Covers everything below. */
	struct mutex lock;
	enum client_state state;
	int fd;	   /* -1: closed */
	bool shut; /* on its way out */
	bool want_out;
	unsigned int nr_busy; /* requests that are handled */
	unsigned int nr_handles, nr_vmas, nr_pins, nr_pinned, nr_tables;
	unsigned int nr_recalls, nr_late;
	uint64_t next_number;
	uint32_t seq;
	uint32_t no_merge; /* recalls up to here were followed by replies */
	size_t queued;
	struct session_handle **handles;
	LIST_HEAD(, session_vma) vmas[VMA_BUCKETS];
	LIST_HEAD(, session_pin) pins;
	struct recall_list recalls;
	STAILQ_HEAD(, session_out) out;
};

struct session_token {
	uint8_t token[SESSION_TOKEN_SIZE];
	struct address_space *mapping; /* NULL: free */
	bool write;
	uint64_t until_ns;
};

#define MAX_TOKENS 1024u

/* The threads that receive: dax/session_pool.c. */
struct session_pool {
	struct mutex lock; /* LOCK_LEAF; covers all of it */
	pthread_cond_t idle, ended;
	bool receiving; /* somebody has the role */
	bool asleep;	/* and could not leave it to another */
	bool over;
	unsigned int nr_threads, nr_idle, nr_sleeping, max_threads;
	bool has_ended_thread;
	pthread_t ended_thread;
};

struct session_server {
	struct dax_device *dev;
	const struct session_ops *ops;
	void *ctx;
	struct session_limits limits;
	uid_t owner;
	unsigned int token_ms;
	char path[108];
	char device_id[32]; /* as /proc/PID/maps has it */
	int listen_fd, epoll_fd, wake_fd;
	_Atomic(unsigned int) recall_ms;
	_Atomic(bool) over;
	_Atomic(bool) stopped; /* nothing new for anybody */
	_Atomic(uint64_t) nr_faults, nr_recalls, nr_late;
	_Atomic(unsigned int) nr_gone;
	struct session_pool pool;
	uint64_t next_poll_ns; /* of whoever receives */

	struct mutex lock; /* covers everything below */
	struct session_client **clients;
	unsigned int nr_clients, nr_tokens;
	uint64_t next_client;
	struct session_token tokens[MAX_TOKENS];
};

uint64_t session_now(void);
void session_log(struct session_server *srv, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* What an event is about; the rest of its number says which client. */
enum event_kind {
	EVENT_LISTEN,
	EVENT_WAKE,
	EVENT_SOCKET,
	EVENT_PROCESS,
};
#define EVENT_BITS 2

/* session_client.c */
/* How /proc/PID/maps shows the device. */
int session_find_device_id(struct session_server *srv);
/* The rest is for whoever receives. */
void client_accept(struct session_server *srv);
/* With a reference; NULL: it is not there any more. */
struct session_client *client_find(struct session_server *srv, uint64_t number);
/* No more messages: the socket ended, or the client said nonsense. */
void client_hangup(struct session_client *c);
void client_process_ended(struct session_client *c);
/* Whatever its process does, nothing of it is left. */
void client_dead(struct session_client *c);
/* Look whether those who are gone have let go. */
void session_check_gone(struct session_server *srv);
/* For everybody. */
void client_get(struct session_client *c);
void client_put(struct session_client *c);
/* Who is at place @i, with a reference, or NULL. */
struct session_client *client_at(struct session_server *srv, unsigned int i);
/* Nothing more from it: whoever receives next ends the session. */
void client_shut(struct session_client *c) __must_hold(c->lock);

/* Send, or queue; consumes @fd (-1: none).  Returns what was queued. */
struct session_out *client_send(struct session_client *c, const void *msg,
				size_t len, int fd) __must_hold(c->lock);
void client_flush(struct session_client *c) __must_hold(c->lock);

/* The lock of address_space.session_vmas and session_handles. */
struct mutex *session_file_lock(const struct address_space *mapping);

/* Receive and handle one event; called by whoever has the role. */
void session_receive(struct session_server *srv);

/* session_pool.c */
int session_pool_start(struct session_server *srv, unsigned int max_threads);
/* Nobody receives from now on; requests go on. */
void session_pool_quiet(struct session_server *srv);
void session_pool_stop(struct session_server *srv);
/* May one more request sleep? */
bool session_pool_has_room(struct session_server *srv);

/* session_vma.c */
int session_vma_create(struct session_client *c, struct address_space *mapping,
		       const struct session_map *m, bool write,
		       uint64_t *ret_number);
/* A user of a vma; NULL: there is none of that number. */
struct session_vma *session_vma_get(struct session_client *c, uint64_t number);
void session_vma_put(struct session_vma *vma);
/* The client does not use these pages any more; all of them: nor the vma. */
void session_vma_unmap(struct session_vma *vma, uint64_t index, uint64_t nr);
void session_vma_end(struct session_vma *vma);
/* 0 or the errno for the client. */
int session_vma_fault(struct session_vma *vma, uint64_t index, uint64_t nr,
		      bool write, bool around);
/* Send the answer to a fault, from what the table says now. */
void session_vma_reply(struct session_vma *vma, uint32_t id, uint64_t index,
		       uint64_t nr, bool write);
/* Of that number, dead or not. */
struct session_vma *session_vma_find(struct session_client *c, uint64_t number)
	__must_hold(c->lock);

/* Each translation, in order; false from @fn ends it. */
typedef bool (*session_pte_fn)(void *ctx, uint64_t index, uint64_t nr,
			       uint64_t pte);
void session_vma_walk(struct session_client *c, struct session_vma *vma,
		      session_pte_fn fn, void *ctx) __must_hold(c->lock);

/* session_mail.c.  The first two under the file's lock. */
/* A handle that is in the file's list now. */
void session_mail_new(struct session_handle *h);
/* So many more, or fewer, vmas that may store without a flush. */
void session_mail_loose(struct address_space *mapping, int nr);

/* session_recall.c */
/* Take the client's mappings of a file for good. */
void session_recall_kill(struct session_client *c,
			 struct address_space *mapping);
/*
 * Take pages back, or stores to them, from whoever has the file mapped.  True:
 * somebody may go on using them.
 */
bool session_recall(struct address_space *mapping, uint64_t index, uint64_t nr,
		    enum session_recall_kind kind);
/* The order-9 translation around a page, from one vma. */
void session_recall_huge(struct session_vma *vma, uint64_t index);
/* A recall was answered.  False: there is none of that id. */
bool session_recalled(struct session_client *c, uint32_t seq);
/* Nobody answers any more. */
void session_recalls_late(struct session_client *c) __must_hold(c->lock);

/* session_msg.c */
/* False: it was no message. */
bool session_message(struct session_client *c, const void *msg, size_t len);
/* Of a handle that is no longer in client->handles. */
void session_handle_put(struct session_client *c, struct session_handle *h);
void session_pins_end(struct session_client *c);

/* session_list.c */
void session_msg_holds(struct session_client *c, const struct session_list *m);
void session_msg_waits(struct session_client *c, const struct session_list *m);

#endif
