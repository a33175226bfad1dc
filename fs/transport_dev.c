/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/transport_dev.c - requests by read(2) and replies by writev(2)
 *
 * The kernel hands every read(2) of /dev/fuse one whole request, and to any
 * thread: all seats are the same descriptor.
 *
 * The data of a WRITE starts 80 bytes into its request.  The buffer is filled
 * from 80 bytes before a page boundary, so that data which is page-aligned in
 * the file is copied from page-aligned memory.
 */
#include "fs/transport.h"

#include <errno.h>
#include <fuse_log.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "dax/media.h"

/* What comes before the data of a WRITE. */
#define WRITE_HEAD \
	(sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

/* How long to let the kernel find memory before asking again. */
#define NOMEM_WAIT_NS 10000000

struct transport_dev {
	struct transport tr;
	int fd;
};

int request_init(struct request *rq)
{
	size_t size = 2 * BLOCK_SIZE + REQUEST_MAX_WRITE;
	void *buf = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (buf == MAP_FAILED)
		return -ENOMEM;
	*rq = (struct request){ .buf = buf, .buf_size = size };
	return 0;
}

void request_destroy(struct request *rq)
{
	if (rq->buf)
		munmap(rq->buf, rq->buf_size);
	rq->buf = NULL;
}

void *request_start(const struct request *rq)
{
	return rq->buf + BLOCK_SIZE - WRITE_HEAD;
}

size_t request_room(const struct request *rq)
{
	return rq->buf_size - BLOCK_SIZE + WRITE_HEAD;
}

/* What to do about an error of read(2): 0 is try again. */
static int receive_error(const struct transport_dev *dev, int err)
{
	static const struct timespec nomem = { .tv_nsec = NOMEM_WAIT_NS };
	struct pollfd pfd = { .fd = dev->fd, .events = POLLIN };

	switch (err) {
	case EINTR:
		return -EINTR;
	case ENOENT: /* interrupted before it was read */
	case EIO:    /* too large; the kernel has failed it */
		return 0;
	case EAGAIN: /* somebody made the descriptor non-blocking */
		return poll(&pfd, 1, -1) == -1 ? -EINTR : 0;
	case ENOMEM:
		nanosleep(&nomem, NULL);
		return 0;
	case ENODEV:
	case ECONNABORTED:
		return -ENODEV;
	default:
		fuse_log(FUSE_LOG_ERR, "foliofs: reading /dev/fuse: %s\n",
			 strerror(err));
		return -ENODEV;
	}
}

static int dev_receive(struct transport *tr, unsigned int seat,
		       struct request *rq)
{
	const struct transport_dev *dev = (const struct transport_dev *)tr;
	ssize_t len;
	int ret;

	(void)seat;
	for (;;) {
		rq->in = request_start(rq);
		len = read(dev->fd, rq->in, request_room(rq));
		if (len >= (ssize_t)sizeof(*rq->in)) {
			rq->len = (size_t)len;
			return 0;
		}
		ret = receive_error(dev, len == -1 ? errno : EIO);
		if (ret)
			return ret;
	}
}

static int dev_reply(struct transport *tr, const struct iovec *iov, int count)
{
	const struct transport_dev *dev = (const struct transport_dev *)tr;

	return writev(dev->fd, iov, count) == -1 ? -errno : 0;
}

static void dev_close(struct transport *tr)
{
	free((struct transport_dev *)tr);
}

static const struct transport_ops dev_ops = {
	.name = "/dev/fuse",
	.receive = dev_receive,
	.reply = dev_reply,
	.close = dev_close,
};

int transport_dev_open(int fd, struct transport **ret_tr)
{
	struct transport_dev *dev = malloc(sizeof(*dev));

	if (!dev)
		return -ENOMEM;
	*dev = (struct transport_dev){ .tr.ops = &dev_ops, .fd = fd };
	*ret_tr = &dev->tr;
	return 0;
}
