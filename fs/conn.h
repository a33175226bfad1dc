/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/conn.h - one connection to the kernel, between transport and libfuse
 *
 * libfuse parses requests and builds replies; it never sees the descriptor.
 * What passes between the two is looked at here, because the kernel knows more
 * than Debian 12's libfuse 3.14:
 *
 * - the reply to INIT gets flags that libfuse has no name for, as far as the
 *   kernel offered them;
 * - operations can look at the request itself (request_current()), for fields
 *   that libfuse drops;
 * - opcodes in a table of raw operations go to it and not to libfuse.
 *
 * Errors.    Negative errno.
 * Locking.   conn_dispatch() may run in many threads; everything else is set
 *            up before the first request or in the init operation.
 * Ownership. The caller owns session and transport, which outlive the conn.
 *            There is one conn at a time in a process, because libfuse 3.14
 *            gives custom I/O no pointer of its own.
 * Source.    fuse(4), Linux include/uapi/linux/fuse.h of 7.38 to 7.45.
 */
#ifndef FS_CONN_H
#define FS_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/transport.h"

struct fuse_session;

/* Newer than the 7.38 of Debian 12's linux/fuse.h; INIT flags, opcodes. */
#define CONN_DIRECT_IO_ALLOW_MMAP (UINT64_C(1) << 36)
#define CONN_OVER_IO_URING	  (UINT64_C(1) << 41)
#define CONN_OP_STATX		  52u
#define CONN_OP_COPY_FILE_RANGE64 53u
#define CONN_NR_OPS		  64u

/* STATX: statx(2) with a mask, the only request that asks for btime. */
struct conn_statx_in {
	uint32_t getattr_flags; /* FUSE_GETATTR_FH: @fh is valid */
	uint32_t reserved;
	uint64_t fh;
	uint32_t sx_flags; /* AT_STATX_* */
	uint32_t sx_mask;  /* STATX_* */
};

struct conn_sx_time {
	int64_t sec;
	uint32_t nsec;
	int32_t reserved;
};

/* The first 256 bytes of struct statx, as the kernel wants them. */
struct conn_statx {
	uint32_t mask;
	uint32_t blksize;
	uint64_t attributes;
	uint32_t nlink;
	uint32_t uid;
	uint32_t gid;
	uint16_t mode;
	uint16_t spare0;
	uint64_t ino;
	uint64_t size;
	uint64_t blocks;
	uint64_t attributes_mask;
	struct conn_sx_time atime;
	struct conn_sx_time btime;
	struct conn_sx_time ctime;
	struct conn_sx_time mtime;
	uint32_t rdev_major;
	uint32_t rdev_minor;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint64_t spare2[14];
};

struct conn_statx_out {
	uint64_t attr_valid; /* how long to cache, seconds and nanoseconds */
	uint32_t attr_valid_nsec;
	uint32_t flags;
	uint64_t spare[2];
	struct conn_statx stat;
};

/*
 * An operation of our own.  It answers with conn_reply() or conn_reply_err(),
 * in this thread or later in another.  INTERRUPT reaches it by way of
 * conn.interrupted() only.
 */
struct raw_op {
	uint32_t opcode;
	void (*fn)(struct conn *conn, const struct request *rq, void *userdata);
};

struct conn {
	struct fuse_session *se;
	struct transport *tr;
	void *userdata; /* as the session has it */
	/* True: the request @unique slept, and has been told. */
	bool (*interrupted)(void *userdata, uint64_t unique);
	bool debug;	  /* print raw operations, as libfuse does its own */
	bool deny_others; /* -o allow_root: only @owner and root */
	uid_t owner;
	uint64_t offered; /* INIT flags of the kernel */
	uint64_t want;	  /* to set in the reply, if offered */
	uint64_t refuse;  /* to clear in the reply */
	uint64_t flags;	  /* as replied */
	const struct raw_op *raw[CONN_NR_OPS];
};

/* Take over the I/O of @se, whose descriptor is @fd: 0 or -errno. */
int conn_init(struct conn *conn, struct fuse_session *se, struct transport *tr,
	      int fd, void *userdata);
void conn_destroy(struct conn *conn);

void conn_raw_ops(struct conn *conn, const struct raw_op *ops, unsigned int nr);

/*
 * In the init operation: change the INIT flags that libfuse will answer.
 * @set counts where the kernel offered it; @clear wins over libfuse's choice.
 */
void conn_want(struct conn *conn, uint64_t set, uint64_t clear);

/* Handle one request; for worker.h, hence the pointer without a type. */
void conn_dispatch(void *conn, struct request *rq);

/* As if the kernel had sent INTERRUPT for the request @unique. */
void conn_interrupt(void *conn, uint64_t unique);

/*
 * Let the kernel write back, and forget, what it has of a file: its data and
 * attributes.  It may send requests before this returns, so hold no lock.
 */
void conn_forget_data(uint64_t ino);

/*
 * The file's last byte, at @pos, is @byte: a kernel with a write-back cache
 * believes its own end of a file, and this moves it.
 */
void conn_show_end(uint64_t ino, uint64_t pos, unsigned char byte);

/* The request that this thread handles, or NULL. */
const struct request *request_current(void);

int conn_reply(struct conn *conn, uint64_t unique, const void *arg, size_t len);
/* iov[0] is for the header. */
int conn_reply_iov(struct conn *conn, uint64_t unique, struct iovec *iov,
		   int count);
/* @err: a negative errno; the kernel waits for ever after a positive one. */
int conn_reply_err(struct conn *conn, uint64_t unique, int err);

#endif
