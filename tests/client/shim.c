/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/client/shim.c - files of tmpfs pass for files of a foliofs
 *
 * Loaded behind libfoliofs-preload.so.  A file in a directory whose name is in
 * FOLIOFS_SHIM says that it is on FUSE and has a token; the daemon that the
 * token leads to is a thread of this process.  The "device" is the file itself,
 * so that what goes past the daemon and what goes through it must agree, and
 * each file has a socket of its own.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "dax/lib/foliofs_ioctl.h"
#include "dax/media.h"
#include "dax/proto.h"

#define FUSE_MAGIC 0x65735546
#define NR_MAIL	   64u

int fstatfs(int fd, struct statfs *buf);
int ioctl(int fd, unsigned long request, ...);

struct daemon {
	int listen;
	int file;
	bool writable;
};

static bool in_shim(int fd)
{
	const char *dir = getenv("FOLIOFS_SHIM");
	char link[64], path[512];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (!dir || len <= 0)
		return false;
	path[len] = '\0';
	return strncmp(path, dir, strlen(dir)) == 0 && path[strlen(dir)] == '/';
}

int fstatfs(int fd, struct statfs *buf)
{
	static int (*next)(int, struct statfs *);
	int ret;

	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "fstatfs64");
	ret = next(fd, buf);
	/* The library's own are higher: those are of the device. */
	if (ret == 0 && fd < 256 && in_shim(fd))
		buf->f_type = FUSE_MAGIC;
	return ret;
}

static void reply_with(int sock, void *msg, size_t len, int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = msg, .iov_len = len };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c = &control.align;

		hdr.msg_control = &control;
		hdr.msg_controllen = sizeof(control);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	(void)!sendmsg(sock, &hdr, MSG_NOSIGNAL);
}

static struct session_reply header(const void *request, int error)
{
	const struct session_head *head = request;

	return (struct session_reply){
		.head = { .op = SESSION_REPLY, .id = head->id },
		.error = error,
	};
}

static void answer(int sock, const void *request, int error)
{
	struct session_reply reply = header(request, error);

	reply_with(sock, &reply, sizeof(reply), -1);
}

static void hello(int sock, const void *req)
{
	struct session_hello_reply reply = {
		.reply = header(req, 0),
		.version = SESSION_VERSION,
		.block_size = BLOCK_SIZE,
		.device_size = UINT64_C(1) << 50,
		.nr_mailboxes = NR_MAIL,
		.max_vmas = 1000,
	};
	int mail = memfd_create("mail", MFD_CLOEXEC);

	(void)!ftruncate(mail, NR_MAIL * sizeof(struct session_mailbox));
	reply_with(sock, &reply, sizeof(reply), mail);
	close(mail);
}

static void open_file(const struct daemon *d, int sock, const void *req)
{
	struct session_open_reply reply = {
		.reply = header(req, 0),
		.flags = d->writable ? SESSION_MAP_WRITE : 0,
	};

	reply_with(sock, &reply, sizeof(reply), d->file);
}

static void fault(const struct daemon *d, int sock, const void *msg)
{
	const struct session_range *req = msg;
	struct session_fault_reply reply = { .reply = header(req, 0) };
	uint64_t nr = req->nr;
	struct stat st;
	uint64_t end;

	fstat(d->file, &st);
	end = ((uint64_t)st.st_size + BLOCK_MASK) >> BLOCK_SHIFT;
	if (req->index >= end) {
		answer(sock, req, -EFAULT);
		return;
	}
	if (nr > end - req->index)
		nr = end - req->index;
	reply.nr_segs = 1;
	reply.seg[0] = (struct session_seg){
		.index = req->index,
		.off = req->index << BLOCK_SHIFT,
		.nr = (uint32_t)(nr < 16 ? nr : 16),
		.flags = d->writable ? SESSION_SEG_WRITE : 0,
	};
	reply_with(sock, &reply, sizeof(reply), -1);
}

static void map(int sock, const void *req)
{
	static _Atomic(uint64_t) number;
	struct session_number_reply reply = {
		.reply = header(req, 0),
		.number = ++number,
	};

	reply_with(sock, &reply, sizeof(reply), -1);
}

static void handle(const struct daemon *d, int sock, const void *msg)
{
	const struct session_head *head = msg;

	if (head->op == SESSION_HELLO)
		hello(sock, msg);
	else if (head->op == SESSION_OPEN)
		open_file(d, sock, msg);
	else if (head->op == SESSION_FAULT)
		fault(d, sock, msg);
	else if (head->op == SESSION_MAP || head->op == SESSION_PIN)
		map(sock, msg);
	else
		answer(sock, msg, 0);
}

static void *serve(void *arg)
{
	struct daemon *d = arg;
	_Alignas(8) char msg[256];
	int sock = accept4(d->listen, NULL, NULL, SOCK_CLOEXEC);

	while (sock >= 0 && recv(sock, msg, sizeof(msg), 0) > 0)
		handle(d, sock, msg);
	close(sock);
	close(d->listen);
	close(d->file);
	free(d);
	return NULL;
}

/* Descriptors of the daemon are out of the way of the program's. */
static int high(int fd)
{
	int up = fcntl(fd, F_DUPFD_CLOEXEC, 700);

	close(fd);
	return up;
}

static int start(int fd, struct foliofs_ioc_token *token)
{
	static _Atomic(int) count;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct daemon *d = calloc(1, sizeof(*d));
	int flags = fcntl(fd, F_GETFL);
	pthread_t thread;
	char path[64];

	*token = (struct foliofs_ioc_token){ .flags = FOLIOFS_TOKEN_DAX };
	d->writable = (flags & O_ACCMODE) == O_RDWR;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	d->file = high(open(path, d->writable ? O_RDWR : O_RDONLY));
	d->listen = high(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	snprintf(token->socket, sizeof(token->socket), "%s/.sock.%d.%d",
		 getenv("FOLIOFS_SHIM"), (int)getpid(), count++);
	memcpy(addr.sun_path, token->socket, sizeof(addr.sun_path));
	if (bind(d->listen, (struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(d->listen, 1) || pthread_create(&thread, NULL, serve, d))
		abort();
	pthread_detach(thread);
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*next)(int, unsigned long, void *);
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == FOLIOFS_IOC_TOKEN && in_shim(fd))
		return start(fd, arg);
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "ioctl");
	return next(fd, request, arg);
}
