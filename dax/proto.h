/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/proto.h - messages between the daemon and a program that maps media
 *
 * One Unix socket (SOCK_SEQPACKET) for each process and mount.  A packet is
 * one message, of exactly the size that its type has.  Requests carry an id
 * of the client's choice and are answered by one SESSION_REPLY with the same
 * id, in any order; the client has to go on receiving meanwhile, because what
 * it asks for may first need a recall from itself.
 *
 *	socket, connect      where FOLIOFS_IOC_TOKEN says
 *	HELLO                version; who it is, the socket's credentials say
 *	OPEN token           a file; the reply carries the device's descriptor
 *	MAP                  a range of the file at a range of addresses
 *	FAULT                where pages are on media; they may be used from
 *	                     the answer until a RECALL of them was answered
 *	RECALL -> RECALLED   the client made the range fault again
 *	PIN, UNPIN           pages that a recall must not take
 *	SYNC                 stores were flushed: times and caches
 *	UNMAP, CLOSE         the client does not use it any more
 *
 * Everything that a client sends is checked field by field; a message that
 * cannot be is answered -EPROTO, and a packet that is none ends the session.
 * Replies and recalls of one client leave in the order in which the daemon
 * changed its books, so a RECALL that follows a FAULT's answer covers it.  The
 * client does what they say in that order.
 *
 * The mailbox is a page that client and daemon share, one cache line for each
 * file handle: it lets a client say that it stored to a file without a
 * message for each store.
 *
 * Units.     Pages of BLOCK_SIZE for index and nr; bytes of the device for off.
 * Errors.    Negative errno in session_reply.error.
 * Locking.   None; see the order above.
 * Ownership. Handles, vmas and pins belong to the session and end with it,
 *            but not before the process has left the memory.
 * Source.    userfaultfd(2), unix(7), fuse(4).
 */
#ifndef DAX_PROTO_H
#define DAX_PROTO_H

#include <stdint.h>

#define SESSION_VERSION 1

enum session_op {
	/* client -> daemon, answered */
	SESSION_HELLO = 1,
	SESSION_OPEN,
	SESSION_CLOSE,
	SESSION_MAP,
	SESSION_UNMAP,
	SESSION_FAULT,
	SESSION_PIN,
	SESSION_UNPIN,
	SESSION_SYNC,
	SESSION_HOLDS, /* who holds what: one page of the list */
	SESSION_WAITS, /* which requests wait for it */
	/* client -> daemon, not answered */
	SESSION_RECALLED = 32,
	/* daemon -> client */
	SESSION_REPLY = 64,
	SESSION_RECALL,
};

/* Of every packet. */
struct session_head {
	uint32_t op; /* enum session_op */
	uint32_t id; /* of a request and its reply; of a recall and its end */
};

#define SESSION_TOKEN_SIZE 16

struct session_hello {
	struct session_head head;
	uint32_t version;
	uint32_t flags; /* none yet */
};

struct session_open {
	struct session_head head;
	uint8_t token[SESSION_TOKEN_SIZE];
};

/* CLOSE (a handle), UNPIN (a pin). */
struct session_end {
	struct session_head head;
	uint64_t which;
};

#define SESSION_MAP_WRITE 0x1u /* stores are allowed */
#define SESSION_MAP_SYNC  0x2u /* MAP_SYNC */
/* Whoever stores through it makes that durable before he says that he did. */
#define SESSION_MAP_FLUSHED 0x4u

struct session_map {
	struct session_head head;
	uint64_t handle;
	uint64_t addr;	/* in the client; decides about order 9 */
	uint64_t index; /* page of the file at @addr */
	uint64_t nr;
	uint32_t flags; /* SESSION_MAP_ */
	uint32_t reserved;
};

#define SESSION_RANGE_WRITE    0x1u /* FAULT: a store; PIN: for writing */
#define SESSION_RANGE_LONGTERM 0x2u /* PIN: for longer than one transfer */
#define SESSION_RANGE_AROUND   0x4u /* FAULT: and what is near, if cheap */

/*
 * UNMAP, FAULT, PIN and SYNC: pages of a vma.  A FAULT is for page @index; up
 * to @nr pages from there on are welcome.  UNMAP of all of a vma ends it; of a
 * part, the vma stays, and so does an order-9 translation that is cut.
 */
struct session_range {
	struct session_head head;
	uint64_t vma;
	uint64_t index; /* page of the file */
	uint64_t nr;
	uint32_t flags; /* SESSION_RANGE_ */
	uint32_t reserved;
};

/* HOLDS and WAITS: go on behind this one; 0 from the start. */
struct session_list {
	struct session_head head;
	uint64_t cursor;
	uint64_t ino; /* of this file only, or 0 */
};

enum session_recall_kind {
	SESSION_RECALL_ZAP,	  /* the next access faults */
	SESSION_RECALL_WRPROTECT, /* the next store faults */
	SESSION_RECALL_KILL,	  /* the memory is lost: SIGBUS */
};

struct session_recall {
	struct session_head head; /* answer with the same id */
	uint64_t vma;
	uint64_t index;
	uint64_t nr;
	uint32_t kind; /* enum session_recall_kind */
	uint32_t reserved;
};

struct session_recalled {
	struct session_head head;
};

/*
 * Replies, each of the size of its struct.  Those without a body, and every
 * one that says an error, are a bare session_reply.
 */
struct session_reply {
	struct session_head head;
	int32_t error; /* 0 or a negative errno */
	uint32_t reserved;
};

/* With the mailbox's descriptor. */
struct session_hello_reply {
	struct session_reply reply;
	uint32_t version;
	uint32_t block_size;
	uint64_t device_size; /* bytes */
	uint64_t client;      /* number of this session */
	uint32_t nr_mailboxes;
	uint32_t max_vmas;
};

/* With a descriptor of the device, read-only for a read-only file. */
struct session_open_reply {
	struct session_reply reply;
	uint64_t handle; /* below nr_mailboxes: the place of its mailbox */
	uint64_t ino;
	uint64_t size;	/* bytes */
	uint32_t flags; /* SESSION_MAP_WRITE: stores are allowed */
	uint32_t reserved;
};

/* MAP: the vma.  PIN: the pin. */
struct session_number_reply {
	struct session_reply reply;
	uint64_t number;
};

#define SESSION_SEG_WRITE 0x1u /* may be mapped writable */
#define SESSION_SEG_ZERO  0x2u /* a hole: zeros, read-only, no media */

struct session_seg {
	uint64_t index;
	uint64_t off; /* bytes of the device */
	uint32_t nr;  /* pages, adjacent on media */
	uint32_t flags;
};

/*
 * The first segment holds the page that was asked for.  -EFAULT: behind the
 * end of the file, SIGBUS; -EAGAIN: ask again; -ENOSPC, -EIO: SIGBUS too.
 */
#define SESSION_MAX_SEGS 64u
struct session_fault_reply {
	struct session_reply reply;
	uint32_t nr_segs;
	uint32_t reserved;
	struct session_seg seg[SESSION_MAX_SEGS];
};

enum session_hold_kind {
	SESSION_HOLD_MAP,   /* mapped, not recalled */
	SESSION_HOLD_PIN,   /* short-term */
	SESSION_HOLD_LONG,  /* long-term pin */
	SESSION_HOLD_STUCK, /* recalled, and the client does not answer */
	SESSION_HOLD_GONE,  /* the socket is closed, the memory is not */
};

struct session_hold {
	uint64_t client;
	uint64_t ino;
	uint64_t index;
	uint64_t nr;
	uint64_t age_ns;
	uint32_t kind; /* enum session_hold_kind */
	int32_t pid;
	char comm[16];
};

struct session_wait {
	uint64_t ino;
	uint64_t index;	 /* page that was found busy */
	uint64_t unique; /* of the request */
	uint64_t age_ns;
	int32_t pid; /* of whoever asked */
	uint32_t reserved;
	char op[16]; /* truncate, punch, ... */
	char comm[16];
};

#define SESSION_LIST_MAX 32u
struct session_holds_reply {
	struct session_reply reply;
	uint64_t cursor; /* to go on; 0: that was all */
	uint32_t nr;
	uint32_t reserved;
	struct session_hold hold[SESSION_LIST_MAX];
};

struct session_waits_reply {
	struct session_reply reply;
	uint64_t cursor;
	uint32_t nr;
	uint32_t reserved;
	struct session_wait wait[SESSION_LIST_MAX];
};

/*
 * What the daemon vouches for, until it takes the flag away.  It does so
 * before the truth changes; none of them is always right.
 */
#define SESSION_MAIL_SIZE  UINT64_C(1) /* .size is the file's size */
#define SESSION_MAIL_CLEAN UINT64_C(2) /* all clients' stores are durable */

/*
 * One for each handle, a cache line of its own.  The client adds to nr_stores
 * after it stored without a fault (a pwrite through a warm mapping); the
 * daemon looks when somebody asks for the file's times or closes the handle.
 */
struct session_mailbox {
	_Atomic(uint64_t) nr_stores; /* written by the client */
	_Atomic(uint64_t) size;	     /* of the file, bytes; by the daemon */
	_Atomic(uint64_t) flags;     /* SESSION_MAIL_; by the daemon */
	uint64_t reserved[5];
};

/* The longest there is. */
#define SESSION_MAX_PACKET sizeof(struct session_waits_reply)

#endif
