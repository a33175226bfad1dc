/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session.h - programs that map media themselves, and the daemon's half
 *
 * A session server listens on a Unix socket, speaks dax/proto.h with programs
 * (clients), and is the mapper of the files that they use: the page tables of
 * dax/mapping.h are its record of what each client has mapped.
 *
 * Who may do what.  The socket is open to all.  A file is opened with a token
 * that somebody got for a file that is open already; allow() decides who may
 * have the device's descriptor at all.
 *
 * Trust.  A client with the device's descriptor can do to the device what the
 * descriptor allows.  What it says on the socket can hurt nobody else: every
 * message is checked, everything that a client can make the server keep has a
 * limit, and nobody waits for a client for longer than recall_ms.  A
 * translation that a client does not give back in that time becomes a pin, so
 * that a layout break finds a busy folio and a policy can decide.
 *
 * Errors.    Negative errno.
 * Locking.   LOCK_SESSION: the clients and tokens of a server, and who maps a
 *            file.  LOCK_FOLIO_MAP: all that belongs to one client.  The
 *            callbacks are called with neither.
 * Ownership. Handles, vmas, pins and tokens hold their file by get() and put().
 * Source.    Linux mm/rmap.c, mm/userfaultfd.c; unix(7), pidfd_open(2).
 */
#ifndef DAX_SESSION_H
#define DAX_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "dax/mapping.h"
#include "dax/proto.h"

struct session_server;

/* What the server needs of the filesystem. */
struct session_ops {
	const struct iomap_ops *iomap; /* for faults */

	/* A token, handle, vma or pin uses the file.  put() may sleep and
	 * evict. */
	void (*get)(struct address_space *mapping);
	void (*put)(struct address_space *mapping);

	/*
	 * A client stored, or is about to, to some of [pos, pos + len): times,
	 * and what the kernel has cached.
	 */
	void (*stored)(struct address_space *mapping, uint64_t pos,
		       uint64_t len);

	/* May this process map the device?  0 or -EACCES. */
	int (*allow)(void *ctx, uid_t uid, gid_t gid, pid_t pid);

	/* A new descriptor of the device, for a client, or an error. */
	int (*device_fd)(void *ctx, bool write);

	/*
	 * The first request behind @cursor (in the order of
	 * session_wait.unique) that waits for a busy folio, of file @ino or,
	 * if that is 0, of any.  0, or -ENOENT at the end.
	 */
	int (*waits)(void *ctx, uint64_t cursor, uint64_t ino,
		     struct session_wait *ret);

	/* One line for the log; takes no locks.  May be NULL. */
	void (*log)(void *ctx, const char *line);
};

/* How much a client can make the server keep.  0: the default. */
struct session_limits {
	unsigned int max_clients; /* of the server; of one user a half */
	unsigned int max_handles; /* of a client, as all that follow */
	unsigned int max_vmas;
	unsigned int max_pins;
	unsigned int max_pinned; /* pages */
	unsigned int max_tables; /* of 4 KiB, for 512 pages each */
	unsigned int max_busy;	 /* requests at a time */
	unsigned int max_sleeps; /* requests that sleep, of all clients */
};

struct session_options {
	const char *path;	/* of the socket; an old one is removed */
	uid_t owner;		/* sees what everybody holds, as root does */
	unsigned int recall_ms; /* 0: SESSION_RECALL_MS */
	unsigned int token_ms;	/* 0: SESSION_TOKEN_MS */
	struct session_limits limits;
};

#define SESSION_RECALL_MS 1000u
#define SESSION_TOKEN_MS  10000u

/**
 * session_server_create() - listen
 * @dev: the device that clients map
 * @ops: of the filesystem, called with @ctx
 * @opt: where, and how much
 *
 * Return: 0; -EFBIG when the device has too many pages for the page tables;
 * -ENOMEM, or what socket(2), bind(2) and listen(2) said.
 */
int session_server_create(struct dax_device *dev, const struct session_ops *ops,
			  void *ctx, const struct session_options *opt,
			  struct session_server **ret_srv);

/*
 * End all sessions and forget what their clients hold, whether they let go or
 * not.  Layout breaks must be over, or end by themselves.
 */
void session_server_destroy(struct session_server *srv);

const char *session_server_path(const struct session_server *srv);

/* From now on a recall is waited for so long. */
void session_set_recall_ms(struct session_server *srv, unsigned int ms);

/* Leave for one OPEN of @mapping, within token_ms.  -EMFILE. */
int session_token(struct session_server *srv, struct address_space *mapping,
		  bool write, uint8_t ret_token[SESSION_TOKEN_SIZE]);

/*
 * Use a token up: the file it is for, with the token's reference, or NULL.
 * For calls that name a file by a token instead of a descriptor.
 */
struct address_space *session_token_take(struct session_server *srv,
					 const uint8_t *token, bool *ret_write);

/*
 * From now on nobody gets anything new (-ESHUTDOWN): no file, vma, page or
 * pin.  What is held stays until it is recalled or given back.
 */
void session_server_stop(struct session_server *srv);

/* For address_space.mapper. */
extern const struct dax_mapper_ops session_mapper;

/* Has a client said in its mailbox that it stored, since this was asked? */
bool session_stores(struct address_space *mapping);

/*
 * The file has another size now: clients know before this returns.  To be
 * called where no fault can come in (recalls come first), and before whoever
 * asked for it is answered.
 */
void session_set_size(struct address_space *mapping, uint64_t size);

/*
 * All of a file is going to be written back, and has been without an error:
 * if begin says true, clients may then be told that there is nothing to sync.
 */
bool session_clean_begin(struct address_space *mapping, uint64_t *ret_nr);
void session_clean_end(struct address_space *mapping, uint64_t nr);

/* Can a client store to the file without telling? */
bool session_has_writers(struct address_space *mapping);

/* Has a client the file open, or mapped?  Pins do not count. */
bool session_in_use(struct address_space *mapping);

/*
 * Who has this folio in use, as far as clients are concerned: pins, and
 * mappings that were not given back.  The first @max go to @ret; returns how
 * many there are.
 */
struct policy_holder;
unsigned int session_holders(struct session_server *srv, struct folio *folio,
			     struct policy_holder *ret, unsigned int max);

/*
 * End a client by its number.  @kill: SIGKILL for its process; what it holds
 * comes back when that is gone.  Otherwise its mappings of @mapping are taken
 * for good, which is waited for as for a recall, and it keeps its pins.  0,
 * -ESRCH, or -EPERM: it is this process, or not ours to kill.  Nobody faults
 * on the file meanwhile: the caller has its invalidate_lock.
 */
int session_revoke(struct session_server *srv, uint64_t client,
		   struct address_space *mapping, bool kill);

/* For statistics and tests. */
struct session_stat {
	unsigned int nr_clients; /* with those that are gone but map */
	unsigned int nr_gone;
	unsigned int nr_tokens;
	unsigned int nr_threads;
	unsigned int nr_sleeping; /* threads in a long sleep */
	uint64_t nr_faults;
	uint64_t nr_recalls;
	uint64_t nr_late; /* recalls that were not answered in time */
};
void session_server_stat(struct session_server *srv, struct session_stat *ret);

#endif
