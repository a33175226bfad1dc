/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/transport.h - how requests of the kernel arrive and replies leave
 *
 * A transport moves bytes and knows no operation: what a request means is
 * conn.h, which thread receives is worker.h.  /dev/fuse is the transport that
 * always works; another one (FUSE over io_uring) is another table of the same
 * functions, with a pool of threads of its own beside it.
 *
 * Seats.     A transport has a number of seats, and at most one thread at a
 *            time receives from a seat.  /dev/fuse does not care which.
 * Errors.    Negative errno.
 * Locking.   receive() may sleep and is called without locks; reply() is
 *            called from any thread, under any lock.
 * Ownership. A struct request belongs to the thread that receives into it,
 *            and lives until that thread receives again.
 * Source.    fuse(4), Linux include/uapi/linux/fuse.h.
 */
#ifndef FS_TRANSPORT_H
#define FS_TRANSPORT_H

#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct conn;
struct transport;

/* The most that one WRITE carries; the kernel allows 256 pages by default. */
#define REQUEST_MAX_WRITE (UINT32_C(1) << 20)

/*
 * One request as the kernel sent it.  @in is followed by the arguments of its
 * opcode; together they are @len bytes.
 */
struct request {
	struct fuse_in_header *in;
	size_t len;
	struct conn *conn;	 /* set by conn_dispatch() */
	uint32_t setxattr_flags; /* of SETXATTR, which libfuse drops */
	unsigned char *buf;	 /* where @in is */
	size_t buf_size;
};

/* Memory for one request of any size: 0 or -ENOMEM. */
int request_init(struct request *rq);
void request_destroy(struct request *rq);

/* Where to read to, so that the data of a WRITE starts on a page. */
void *request_start(const struct request *rq);
size_t request_room(const struct request *rq);

static inline const void *request_arg(const struct request *rq)
{
	return rq->in + 1;
}

static inline size_t request_arg_len(const struct request *rq)
{
	return rq->len - sizeof(*rq->in);
}

struct transport_ops {
	const char *name;

	/**
	 * receive() - sleep until there is a request
	 * @seat: what to receive from, less than the number of seats
	 * @rq: filled in
	 *
	 * Return: 0; -EINTR after a signal, for the caller to see whether it
	 * should go on; -ENODEV when the connection has ended and nothing
	 * will come any more.  Everything that passes by itself is waited for
	 * inside.
	 */
	int (*receive)(struct transport *tr, unsigned int seat,
		       struct request *rq);

	/**
	 * reply() - send a reply or a notification
	 * @iov: the first one starts with a struct fuse_out_header
	 *
	 * Return: 0; -ENOENT when nobody waits for it any more; -ENODEV.
	 */
	int (*reply)(struct transport *tr, const struct iovec *iov, int count);

	void (*close)(struct transport *tr);
};

struct transport {
	const struct transport_ops *ops;
};

/* /dev/fuse.  @fd stays the caller's: 0 or -ENOMEM. */
int transport_dev_open(int fd, struct transport **ret_tr);

static inline void transport_close(struct transport *tr)
{
	if (tr)
		tr->ops->close(tr);
}

#endif
