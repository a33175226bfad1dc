/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/conn.c - what passes between the transport and libfuse
 */
#include "fs/conn.h"

#define FUSE_USE_VERSION 314
#include <assert.h>
#include <errno.h>
#include <fuse_lowlevel.h>
#include <string.h>
#include <unistd.h>

#include "dax/lock.h"
#include "dax/media.h"

/* What SETXATTR_EXT adds to struct fuse_setxattr_in; libfuse skips none. */
#define SETXATTR_OLD_SIZE 8u
#define SETXATTR_EXTRA	  (sizeof(struct fuse_setxattr_in) - SETXATTR_OLD_SIZE)

static_assert(sizeof(struct conn_statx_in) == 24, "as the kernel has it");
static_assert(sizeof(struct conn_statx) == 256, "as the kernel has it");
static_assert(sizeof(struct conn_statx_out) == 288, "as the kernel has it");
static_assert(SETXATTR_EXTRA == 8, "as the kernel has it");

static struct conn *the_conn;
static _Thread_local const struct request *current;

const struct request *request_current(void)
{
	return current;
}

void conn_want(struct conn *conn, uint64_t set, uint64_t clear)
{
	conn->want = (conn->want | set) & ~clear;
	conn->refuse = (conn->refuse | clear) & ~set;
}

static uint64_t init_flags_offered(const struct request *rq)
{
	const struct fuse_init_in *arg = request_arg(rq);
	size_t len = request_arg_len(rq);
	uint64_t flags = 0;

	if (len >= offsetof(struct fuse_init_in, flags2))
		flags = arg->flags;
	if (len >= sizeof(*arg) && flags & FUSE_INIT_EXT)
		flags |= (uint64_t)arg->flags2 << 32;
	return flags;
}

static void init_patch(struct conn *conn, struct fuse_init_out *out)
{
	uint64_t flags = out->flags | (uint64_t)out->flags2 << 32;

	flags |= conn->want & conn->offered;
	flags &= ~conn->refuse;
	/* The second version is the first one with fewer requests. */
	if (flags & FUSE_HANDLE_KILLPRIV_V2)
		flags &= ~(uint64_t)FUSE_HANDLE_KILLPRIV;
	if (flags >> 32)
		flags |= FUSE_INIT_EXT;
	if (conn->offered & FUSE_MAX_PAGES) {
		flags |= FUSE_MAX_PAGES;
		out->max_pages = REQUEST_MAX_WRITE / BLOCK_SIZE;
	}
	out->flags = (uint32_t)flags;
	out->flags2 = (uint32_t)(flags >> 32);
	conn->flags = flags;
}

/* Is this libfuse's answer to INIT, in the form that a modern kernel gets? */
static bool is_init_reply(const struct iovec *iov, int count)
{
	const struct fuse_out_header *out = iov[0].iov_base;

	return current && current->in->opcode == FUSE_INIT &&
	       out->unique == current->in->unique && out->error == 0 &&
	       count == 2 && iov[1].iov_len == sizeof(struct fuse_init_out);
}

/* libfuse's door to the kernel; -1 and errno, as writev(2). */
static ssize_t custom_writev(int fd, struct iovec *iov, int count,
			     void *userdata)
{
	struct conn *conn = the_conn;
	struct fuse_init_out init;
	int ret;

	(void)fd;
	(void)userdata;
	if (is_init_reply(iov, count)) {
		memcpy(&init, iov[1].iov_base, sizeof(init));
		init_patch(conn, &init);
		iov[1].iov_base = &init;
	}
	ret = conn->tr->ops->reply(conn->tr, iov, count);
	if (ret) {
		errno = -ret;
		return -1;
	}
	return ((const struct fuse_out_header *)iov[0].iov_base)->len;
}

/* Requests are handed to libfuse; it is never to fetch one. */
static ssize_t custom_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)fd;
	(void)buf;
	(void)len;
	(void)userdata;
	errno = ENODEV;
	return -1;
}

int conn_init(struct conn *conn, struct fuse_session *se, struct transport *tr,
	      int fd, void *userdata)
{
	static const struct fuse_custom_io io = {
		.writev = custom_writev,
		.read = custom_read,
	};
	int ret;

	assert(!the_conn);
	ret = fuse_session_custom_io(se, &io, fd);
	if (ret)
		return ret;
	*conn = (struct conn){
		.se = se,
		.tr = tr,
		.userdata = userdata,
		.owner = getuid(),
		.want = FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT |
			CONN_DIRECT_IO_ALLOW_MMAP,
	};
	the_conn = conn;
	return 0;
}

void conn_destroy(struct conn *conn)
{
	assert(the_conn == conn);
	the_conn = NULL;
}

void conn_raw_ops(struct conn *conn, const struct raw_op *ops, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		assert(ops[i].opcode < CONN_NR_OPS);
		conn->raw[ops[i].opcode] = &ops[i];
	}
}

/* The kernel waits for requests that others must answer. */

void conn_forget_data(uint64_t ino)
{
	sleep_hook_begin();
	fuse_lowlevel_notify_inval_inode(the_conn->se, ino, 0, 0);
	sleep_hook_end();
}

void conn_show_end(uint64_t ino, uint64_t pos, unsigned char byte)
{
	struct fuse_bufvec buf = FUSE_BUFVEC_INIT(1);

	buf.buf[0].mem = &byte;
	sleep_hook_begin();
	fuse_lowlevel_notify_store(the_conn->se, ino, (off_t)pos, &buf,
				   (enum fuse_buf_copy_flags)0);
	sleep_hook_end();
}

int conn_reply_iov(struct conn *conn, uint64_t unique, struct iovec *iov,
		   int count)
{
	struct fuse_out_header out = { .len = sizeof(out), .unique = unique };

	iov[0] = (struct iovec){ .iov_base = &out, .iov_len = sizeof(out) };
	for (int i = 1; i < count; i++)
		out.len += (uint32_t)iov[i].iov_len;
	if (conn->debug)
		fuse_log(FUSE_LOG_DEBUG,
			 "   unique: %llu, success, outsize: %u\n",
			 (unsigned long long)unique, out.len);
	return conn->tr->ops->reply(conn->tr, iov, count);
}

int conn_reply(struct conn *conn, uint64_t unique, const void *arg, size_t len)
{
	struct iovec iov[2] = {
		[1] = { .iov_base = (void *)(uintptr_t)arg, .iov_len = len },
	};

	return conn_reply_iov(conn, unique, iov, len ? 2 : 1);
}

int conn_reply_err(struct conn *conn, uint64_t unique, int err)
{
	struct fuse_out_header out = {
		.len = sizeof(out),
		.error = err,
		.unique = unique,
	};
	struct iovec iov = { .iov_base = &out, .iov_len = sizeof(out) };

	assert(err < 0);
	if (conn->debug)
		fuse_log(FUSE_LOG_DEBUG, "   unique: %llu, error: %i (%s)\n",
			 (unsigned long long)unique, err, strerror(-err));
	return conn->tr->ops->reply(conn->tr, &iov, 1);
}

/*
 * Make a SETXATTR what it was before SETXATTR_EXT, by moving what precedes
 * the name up over the two new fields.
 */
static void setxattr_shrink(struct request *rq)
{
	const struct fuse_setxattr_in *arg = request_arg(rq);
	unsigned char *from = (unsigned char *)rq->in;

	if (request_arg_len(rq) < sizeof(*arg))
		return;
	rq->setxattr_flags = arg->setxattr_flags;
	memmove(from + SETXATTR_EXTRA, from,
		sizeof(*rq->in) + SETXATTR_OLD_SIZE);
	rq->in = (struct fuse_in_header *)(from + SETXATTR_EXTRA);
	rq->in->len -= (uint32_t)SETXATTR_EXTRA;
	rq->len -= SETXATTR_EXTRA;
}

static void dispatch_raw(struct conn *conn, const struct raw_op *op,
			 const struct request *rq)
{
	const struct fuse_in_header *in = rq->in;

	if (conn->debug)
		fuse_log(FUSE_LOG_DEBUG,
			 "unique: %llu, opcode: %u, nodeid: %llu, "
			 "insize: %zu, pid: %u\n",
			 (unsigned long long)in->unique, in->opcode,
			 (unsigned long long)in->nodeid, rq->len, in->pid);
	/* As libfuse does: who was given an open file may use it. */
	if (conn->deny_others && in->uid != conn->owner && in->uid != 0 &&
	    in->opcode != FUSE_READ && in->opcode != FUSE_WRITE)
		conn_reply_err(conn, in->unique, -EACCES);
	else
		op->fn(conn, rq, conn->userdata);
}

/* Is this an INTERRUPT for somebody who sleeps here, and not in libfuse? */
static bool interrupted(const struct conn *conn, const struct request *rq)
{
	const struct fuse_interrupt_in *arg = request_arg(rq);

	return rq->in->opcode == FUSE_INTERRUPT && conn->interrupted &&
	       request_arg_len(rq) >= sizeof(*arg) &&
	       conn->interrupted(conn->userdata, arg->unique);
}

void conn_dispatch(void *ctx, struct request *rq)
{
	struct conn *conn = ctx;
	const struct raw_op *op = NULL;

	if (interrupted(conn, rq))
		return;
	rq->conn = conn;
	rq->setxattr_flags = 0;
	current = rq;
	if (rq->in->opcode == FUSE_INIT)
		conn->offered = init_flags_offered(rq);
	else if (rq->in->opcode == FUSE_SETXATTR &&
		 conn->flags & FUSE_SETXATTR_EXT)
		setxattr_shrink(rq);
	if (rq->in->opcode < CONN_NR_OPS)
		op = conn->raw[rq->in->opcode];
	if (op)
		dispatch_raw(conn, op, rq);
	else
		fuse_session_process_buf(
			conn->se,
			&(struct fuse_buf){ .size = rq->len, .mem = rq->in });
	current = NULL;
}

void conn_interrupt(void *ctx, uint64_t unique)
{
	struct conn *conn = ctx;
	struct {
		struct fuse_in_header in;
		struct fuse_interrupt_in arg;
	} intr = {
		.in = { .len = sizeof(intr),
			.opcode = FUSE_INTERRUPT,
			.unique = unique | 1 },
		.arg = { .unique = unique },
	};
	struct fuse_buf buf = { .size = sizeof(intr), .mem = &intr };

	if (conn->interrupted && conn->interrupted(conn->userdata, unique))
		return;
	fuse_session_process_buf(conn->se, &buf);
}
