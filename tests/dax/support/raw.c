/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/support/raw.c - a session server over memfs, and bare clients
 */
#include "tests/dax/support/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/dax/support/view.h"

/* Callbacks have no context for the first three. */
static struct rawfs *the_rf;

static void rf_get(struct address_space *mapping)
{
	(void)mapping;
	atomic_fetch_add(&the_rf->nr_gets, 1);
}

static void rf_put(struct address_space *mapping)
{
	(void)mapping;
	assert(lock_rank_free(LOCK_MOUNT));
	atomic_fetch_sub(&the_rf->nr_gets, 1);
}

static void rf_stored(struct address_space *mapping, uint64_t pos, uint64_t len)
{
	(void)len;
	assert(lock_rank_free(LOCK_MOUNT));
	atomic_fetch_add(&the_rf->nr_stored, 1);
	if (the_rf->on_stored)
		the_rf->on_stored(mapping, pos);
}

static int rf_allow(void *ctx, uid_t uid, gid_t gid, pid_t pid)
{
	const struct rawfs *rf = ctx;

	(void)uid;
	(void)gid;
	(void)pid;
	return rf->allow;
}

static int rf_device_fd(void *ctx, bool write)
{
	const struct rawfs *rf = ctx;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", rf->fs->fd);
	fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int rf_waits(void *ctx, uint64_t cursor, uint64_t ino,
		    struct session_wait *ret)
{
	const struct rawfs *rf = ctx;

	(void)ino;
	if (cursor >= rf->nr_waits)
		return -ENOENT;
	*ret = (struct session_wait){
		.unique = cursor + 1,
		.op = "truncate",
		.pid = getpid(),
	};
	return 0;
}

static void rf_log(void *ctx, const char *line)
{
	struct rawfs *rf = ctx;

	snprintf(rf->log, sizeof(rf->log), "%s", line);
}

static const struct session_ops ops = {
	.iomap = &memfs_iomap_ops,
	.get = rf_get,
	.put = rf_put,
	.stored = rf_stored,
	.allow = rf_allow,
	.device_fd = rf_device_fd,
	.waits = rf_waits,
	.log = rf_log,
};

void rawfs_adopt(struct rawfs *rf)
{
	for (struct memfile *f = rf->fs->files; f; f = f->next)
		f->mapping.mapper = &session_mapper;
}

int rawfs_create(struct rawfs *rf, struct memfs *fs,
		 const struct session_limits *limits, unsigned int recall_ms)
{
	char path[64];
	struct session_options opt = {
		.path = path,
		.owner = geteuid(),
		.recall_ms = recall_ms,
		.token_ms = 300,
	};

	*rf = (struct rawfs){ .fs = fs };
	the_rf = rf;
	snprintf(path, sizeof(path), "/tmp/foliofs-session-%d", getpid());
	if (limits)
		opt.limits = *limits;
	rawfs_adopt(rf);
	return session_server_create(fs->dev, &ops, rf, &opt, &rf->srv);
}

void rawfs_destroy(struct rawfs *rf)
{
	session_server_destroy(rf->srv);
	assert(atomic_load(&rf->nr_gets) == 0);
	for (struct memfile *f = rf->fs->files; f; f = f->next) {
		assert(!atomic_load(&f->mapping.session_vmas));
		assert(!atomic_load(&f->mapping.session_handles));
		f->mapping.mapper = &view_mapper_ops;
	}
}

/* Clients. */

int raw_connect(struct raw *r, const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	memset(r, 0, sizeof(*r));
	r->device_fd = r->mail_fd = -1;
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	r->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (r->fd < 0)
		return -errno;
	if (connect(r->fd, (const struct sockaddr *)&sun, sizeof(sun)) == 0)
		return 0;
	close(r->fd);
	r->fd = -1;
	return -errno;
}

uint32_t raw_send(struct raw *r, void *msg, size_t len)
{
	struct session_head *head = msg;

	head->id = ++r->next_id;
	send(r->fd, msg, len, MSG_NOSIGNAL);
	return head->id;
}

static ssize_t receive(struct raw *r, void *buf, size_t size, int *ret_fd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	const struct cmsghdr *cm;
	ssize_t n = recvmsg(r->fd, &mh, MSG_CMSG_CLOEXEC);

	*ret_fd = -1;
	if (n <= 0)
		return n;
	cm = CMSG_FIRSTHDR(&mh);
	if (cm && cm->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(cm), sizeof(int));
	return n;
}

void raw_answer(struct raw *r, uint32_t id)
{
	const struct session_recalled m = {
		.head = { .op = SESSION_RECALLED, .id = id },
	};

	send(r->fd, &m, sizeof(m), MSG_NOSIGNAL);
}

static void on_recall(struct raw *r, const void *msg)
{
	const struct session_recall *m = msg;

	if (r->nr_recalls < RAW_MAX_RECALLS)
		r->recalls[r->nr_recalls] = *m;
	r->nr_recalls++;
	if (r->on_recall)
		r->on_recall(r, m);
	if (!r->deaf)
		raw_answer(r, m->head.id);
}

void raw_catch_up(struct raw *r)
{
	for (unsigned int i = 0; i < r->nr_recalls; i++)
		raw_answer(r, r->recalls[i].head.id);
	r->deaf = false;
}

/* One packet: its size, 0 for a recall, or an error. */
static ssize_t one(struct raw *r, void *buf, size_t size, int *ret_fd)
{
	const struct session_head *head = buf;
	ssize_t n = receive(r, buf, size, ret_fd);

	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n < (ssize_t)sizeof(*head))
		return -EPIPE;
	if (head->op == SESSION_RECALL) {
		on_recall(r, buf);
		return 0;
	}
	return n;
}

union any {
	struct session_head head;
	struct session_reply reply;
	unsigned char bytes[SESSION_MAX_PACKET];
};

static int fd_reply(struct raw *r, uint32_t id, void *reply, size_t size,
		    int *ret_fd)
{
	union any any;
	ssize_t n;

	for (;;) {
		n = one(r, &any, sizeof(any), ret_fd);
		if (n < 0)
			return (int)n;
		if (n == 0 || any.head.op != SESSION_REPLY ||
		    any.head.id != id) {
			if (*ret_fd >= 0)
				close(*ret_fd);
			continue;
		}
		if (any.reply.error)
			return n == sizeof(any.reply) ? any.reply.error
						      : -EBADMSG;
		if ((size_t)n != size)
			return -EBADMSG;
		memcpy(reply, &any, size);
		return 0;
	}
}

int raw_reply(struct raw *r, uint32_t id, void *reply, size_t size)
{
	int fd, ret = fd_reply(r, id, reply, size, &fd);

	if (fd >= 0)
		close(fd);
	return ret;
}

int raw_call(struct raw *r, void *msg, size_t len, void *reply, size_t size)
{
	return raw_reply(r, raw_send(r, msg, len), reply, size);
}

int raw_serve(struct raw *r, int ms)
{
	struct pollfd p = { .fd = r->fd, .events = POLLIN };
	union any any;
	ssize_t n;
	int fd;

	while (poll(&p, 1, ms) > 0) {
		n = one(r, &any, sizeof(any), &fd);
		if (fd >= 0)
			close(fd);
		if (n < 0)
			return (int)n;
	}
	return 0;
}

int raw_hello(struct raw *r)
{
	struct session_hello m = {
		.head.op = SESSION_HELLO,
		.version = SESSION_VERSION,
	};
	struct session_hello_reply reply;
	int ret = fd_reply(r, raw_send(r, &m, sizeof(m)), &reply, sizeof(reply),
			   &r->mail_fd);

	if (ret == 0)
		r->client = reply.client;
	return ret;
}

int raw_open(struct raw *r, const uint8_t token[SESSION_TOKEN_SIZE])
{
	struct session_open m = { .head.op = SESSION_OPEN };
	struct session_open_reply reply;
	int ret, fd;

	memcpy(m.token, token, sizeof(m.token));
	ret = fd_reply(r, raw_send(r, &m, sizeof(m)), &reply, sizeof(reply),
		       &fd);
	if (ret) {
		if (fd >= 0)
			close(fd);
		return ret;
	}
	if (r->device_fd >= 0)
		close(r->device_fd);
	r->device_fd = fd;
	r->handle = reply.handle;
	r->ino = reply.ino;
	r->size = reply.size;
	r->open_flags = reply.flags;
	return 0;
}

int raw_start(struct raw *r, struct rawfs *rf, struct memfile *file, bool write)
{
	uint8_t token[SESSION_TOKEN_SIZE];
	int ret;

	ret = raw_connect(r, session_server_path(rf->srv));
	if (ret == 0)
		ret = raw_hello(r);
	if (ret == 0)
		ret = session_token(rf->srv, &file->mapping, write, token);
	if (ret == 0)
		ret = raw_open(r, token);
	return ret;
}

void raw_end(struct raw *r)
{
	if (r->fd >= 0)
		close(r->fd);
	if (r->mail_fd >= 0)
		close(r->mail_fd);
	if (r->device_fd >= 0)
		close(r->device_fd);
	r->fd = r->mail_fd = r->device_fd = -1;
}

int raw_map(struct raw *r, uint64_t addr, uint64_t index, uint64_t nr,
	    uint32_t flags, uint64_t *ret_vma)
{
	struct session_map m = {
		.head.op = SESSION_MAP,
		.handle = r->handle,
		.addr = addr,
		.index = index,
		.nr = nr,
		.flags = flags,
	};
	struct session_number_reply reply = { .number = 0 };
	int ret = raw_call(r, &m, sizeof(m), &reply, sizeof(reply));

	*ret_vma = reply.number;
	return ret;
}

static struct session_range make_range(uint32_t op, uint64_t vma,
				       uint64_t index, uint64_t nr,
				       uint32_t flags)
{
	return (struct session_range){
		.head.op = op,
		.vma = vma,
		.index = index,
		.nr = nr,
		.flags = flags,
	};
}

int raw_range(struct raw *r, uint32_t op, uint64_t vma, uint64_t index,
	      uint64_t nr, uint32_t flags)
{
	struct session_range m = make_range(op, vma, index, nr, flags);
	struct session_reply reply;

	return raw_call(r, &m, sizeof(m), &reply, sizeof(reply));
}

int raw_fault(struct raw *r, uint64_t vma, uint64_t index, uint64_t nr,
	      uint32_t flags, struct session_fault_reply *ret)
{
	struct session_range m =
		make_range(SESSION_FAULT, vma, index, nr, flags);
	struct session_fault_reply mine;

	return raw_call(r, &m, sizeof(m), ret ? ret : &mine, sizeof(mine));
}

int raw_pin(struct raw *r, uint64_t vma, uint64_t index, uint64_t nr,
	    uint32_t flags, uint64_t *ret_pin)
{
	struct session_range m = make_range(SESSION_PIN, vma, index, nr, flags);
	struct session_number_reply reply = { .number = 0 };
	int ret = raw_call(r, &m, sizeof(m), &reply, sizeof(reply));

	*ret_pin = reply.number;
	return ret;
}

int raw_finish(struct raw *r, uint32_t op, uint64_t which)
{
	struct session_end m = { .head.op = op, .which = which };
	struct session_reply reply;

	return raw_call(r, &m, sizeof(m), &reply, sizeof(reply));
}

int raw_holds(struct raw *r, uint64_t ino, uint64_t cursor,
	      struct session_holds_reply *ret)
{
	struct session_list m = {
		.head.op = SESSION_HOLDS,
		.cursor = cursor,
		.ino = ino,
	};

	return raw_call(r, &m, sizeof(m), ret, sizeof(*ret));
}

int raw_list_waits(struct raw *r, uint64_t cursor,
		   struct session_waits_reply *ret)
{
	struct session_list m = {
		.head.op = SESSION_WAITS,
		.cursor = cursor,
	};

	return raw_call(r, &m, sizeof(m), ret, sizeof(*ret));
}
