/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/link.c - the connection to one daemon
 *
 * Ids of calls are odd; the id of a fault is even and says its slot, so that
 * finding it is no search.
 */
#include "dax/lib/link.h"

#include <errno.h>
#include <stdatomic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "dax/lib/flush.h"
#include "dax/lib/mem.h"
#include "dax/lib/pager.h"

#define TICK_MS 100 /* see pager_tick() */

static pthread_mutex_t links_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct link *links;

union packet {
	struct session_head head;
	struct session_reply reply;
	struct session_fault_reply fault;
	struct session_recall recall;
	char bytes[SESSION_MAX_PACKET];
};

/* One packet; its length, 0 at the end, or a negative errno. */
static ssize_t receive(int sock, union packet *p, int *ret_fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = p, .iov_len = sizeof(*p) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c;
	ssize_t len;

	*ret_fd = -1;
	do {
		len = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (len < 0 && errno == EINTR);
	if (len < 0)
		return -errno;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return len;
}

static bool send_packet(struct link *l, const void *msg, size_t len, int flags)
{
	ssize_t ret;

	do {
		ret = send(l->sock, msg, len, MSG_NOSIGNAL | flags);
	} while (ret < 0 && errno == EINTR);
	return ret == (ssize_t)len;
}

/* Under l->lock. */
static struct call *take_call(struct link *l, uint32_t id)
{
	for (struct call **c = &l->calls; *c; c = &(*c)->next) {
		struct call *found = *c;

		if (found->id == id) {
			*c = found->next;
			return found;
		}
	}
	return NULL;
}

static void link_lock(struct link *l, sigset_t *old)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, old);
	pthread_mutex_lock(&l->lock);
}

static void link_unlock(struct link *l, const sigset_t *old)
{
	pthread_mutex_unlock(&l->lock);
	pthread_sigmask(SIG_SETMASK, old, NULL);
}

/* The caller may return at once: nothing of the call is touched after this. */
static void end_call(struct call *c, int ret)
{
	c->ret = ret;
	sem_post(&c->done);
}

static int begin_call(struct link *l, struct call *c)
{
	sigset_t old;
	bool lost;

	link_lock(l, &old);
	lost = atomic_load(&l->lost);
	if (!lost) {
		c->id = l->next_id = (l->next_id + 2) | 1;
		c->next = l->calls;
		l->calls = c;
	}
	link_unlock(l, &old);
	return lost ? -ENOTCONN : 0;
}

/* What could not be sent has no answer, unless the receiver was faster. */
static void cancel_call(struct link *l, struct call *c)
{
	sigset_t old;
	bool found;

	link_lock(l, &old);
	found = take_call(l, c->id) != NULL;
	link_unlock(l, &old);
	if (found)
		end_call(c, -ENOTCONN);
}

int link_call(struct link *l, struct call *c, void *req, size_t len)
{
	struct session_head *head = req;
	int ret, state;

	c->fd = -1;
	sem_init(&c->done, 0, 0);
	ret = begin_call(l, c);
	if (ret)
		return ret;
	/* The call is on this stack: the thread must not end meanwhile. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	head->id = c->id;
	if (!send_packet(l, req, len, 0))
		cancel_call(l, c);
	while (sem_wait(&c->done))
		;
	pthread_setcancelstate(state, NULL);
	sem_destroy(&c->done);
	if (c->ret && c->fd >= 0)
		close(c->fd);
	return c->ret;
}

/* Under l->lock. */
static void drop(struct link *l, uintptr_t addr)
{
	if (l->dropped_hi == 0 || addr < l->dropped_lo)
		l->dropped_lo = addr;
	if (addr + BLOCK_SIZE > l->dropped_hi)
		l->dropped_hi = addr + BLOCK_SIZE;
}

/* Under l->lock.  A slot for it; NULL when it was asked for, or must wait. */
static struct link_slot *take_slot(struct link *l, const struct fault *f)
{
	struct link_slot *slot = NULL;

	for (uint32_t i = 0; i < LINK_FAULTS; i++) {
		struct link_slot *s = &l->slot[i];

		if (s->id == 0)
			slot = s;
		else if (s->fault.vma == f->vma && s->fault.index == f->index &&
			 (s->fault.write || !f->write))
			return NULL;
	}
	if (!slot) {
		drop(l, f->addr);
		return NULL;
	}
	l->next_id = (l->next_id + 2) | 1;
	slot->id =
		(l->next_id * 2 * LINK_FAULTS) | (uint32_t)(slot - l->slot) * 2;
	/* 0 means free; the lowest bit means a call. */
	slot->id |= UINT32_C(1) << 31;
	slot->fault = *f;
	return slot;
}

void link_fault(struct link *l, const struct fault *f, uint64_t nr)
{
	struct session_range req = {
		.head.op = SESSION_FAULT,
		.vma = f->vma,
		.index = f->index,
		.nr = nr,
		.flags = SESSION_RANGE_AROUND |
			 (f->write ? SESSION_RANGE_WRITE : 0),
	};
	struct link_slot *slot;

	pthread_mutex_lock(&l->lock);
	slot = take_slot(l, f);
	if (slot) {
		req.head.id = slot->id;
		if (atomic_load(&l->lost)) {
			eventfd_write(l->lost_event, 1);
		} else if (!send_packet(l, &req, sizeof(req), MSG_DONTWAIT) &&
			   errno == EAGAIN) {
			slot->id = 0;
			drop(l, f->addr);
		}
		/* Any other failure: the receiver will see the end, too. */
	}
	pthread_mutex_unlock(&l->lock);
}

static void wake_dropped(struct link *l)
{
	uintptr_t lo, hi;

	pthread_mutex_lock(&l->lock);
	lo = l->dropped_lo;
	hi = l->dropped_hi;
	l->dropped_lo = l->dropped_hi = 0;
	pthread_mutex_unlock(&l->lock);
	if (hi)
		mem_wake(lo, hi - lo);
}

/* Is it an answer that @room bytes are for? */
static int check_reply(const union packet *p, size_t len, size_t room)
{
	if (len < sizeof(p->reply) || p->reply.error > 0)
		return -EPROTO;
	if (p->reply.error)
		return p->reply.error;
	return len == room ? 0 : -EPROTO;
}

/*
 * Pages are mapped before the call leaves the list: the caller cannot go away
 * before it was answered.
 */
static void call_reply(struct link *l, const union packet *p, size_t len,
		       int fd)
{
	struct call *c;
	int64_t nr = 0;
	int ret;

	pthread_mutex_lock(&l->lock);
	c = take_call(l, p->head.id);
	pthread_mutex_unlock(&l->lock);
	if (!c) {
		if (fd >= 0)
			close(fd);
		return;
	}
	ret = check_reply(p, len, c->room);
	if (ret == 0 && c->fault) {
		nr = pager_answer(l, c->fault, &p->fault);
		if (nr < 0)
			ret = (int)nr;
	}
	if (ret == 0) {
		memcpy(c->reply, p, c->room);
		c->nr = (uint64_t)nr;
	}
	c->fd = fd;
	end_call(c, ret);
}

/*
 * The slot is free before anything is mapped: who finds it taken relies on
 * being woken by what comes after.
 */
static void fault_reply(struct link *l, const union packet *p, size_t len)
{
	struct link_slot *slot = &l->slot[p->head.id / 2 % LINK_FAULTS];
	struct fault f;
	bool found;

	pthread_mutex_lock(&l->lock);
	found = slot->id == p->head.id;
	if (found) {
		f = slot->fault;
		slot->id = 0;
	}
	pthread_mutex_unlock(&l->lock);
	if (!found)
		return;
	if (check_reply(p, len, sizeof(p->fault)) == -EPROTO)
		pager_fail(l, &f);
	else
		pager_answer(l, &f, &p->fault);
}

static void fail_faults(struct link *l)
{
	for (uint32_t i = 0; i < LINK_FAULTS; i++) {
		struct fault f;
		bool found;

		pthread_mutex_lock(&l->lock);
		found = l->slot[i].id != 0;
		f = l->slot[i].fault;
		l->slot[i].id = 0;
		pthread_mutex_unlock(&l->lock);
		if (found)
			pager_fail(l, &f);
	}
	wake_dropped(l);
}

static void lose(struct link *l)
{
	struct call *c;

	pthread_mutex_lock(&l->lock);
	atomic_store(&l->lost, true);
	while ((c = l->calls) != NULL) {
		l->calls = c->next;
		end_call(c, -ENOTCONN);
	}
	pthread_mutex_unlock(&l->lock);
	fail_faults(l);
}

static void recalled(struct link *l, const union packet *p)
{
	struct session_recalled msg = {
		.head = { .op = SESSION_RECALLED, .id = p->head.id },
	};

	pager_recall(l, &p->recall);
	(void)send_packet(l, &msg, sizeof(msg), 0);
}

static bool handle(struct link *l, const union packet *p, size_t len, int fd)
{
	if (len < sizeof(p->head))
		return false;
	if (p->head.op == SESSION_RECALL && len == sizeof(p->recall))
		recalled(l, p);
	else if (p->head.op != SESSION_REPLY)
		return false;
	else if (p->head.id & 1)
		call_reply(l, p, len, fd);
	else
		fault_reply(l, p, len);
	return true;
}

static void wait_for_packet(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	while (pager_wants_tick()) {
		if (poll(&poll_fd, 1, TICK_MS) != 0)
			return;
		pager_tick();
	}
}

static void link_free(struct link *l)
{
	if (l->sock >= 0)
		mem_close_fd(l->sock);
	if (l->lost_event >= 0)
		mem_close_fd(l->lost_event);
	for (int i = 0; i < 2; i++)
		if (l->dev[i] >= 0)
			mem_close_fd(l->dev[i]);
	if (l->mail)
		munmap(l->mail, l->nr_mail * sizeof(*l->mail));
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static bool unused(struct link *l)
{
	bool ret;

	pthread_mutex_lock(&l->lock);
	ret = l->refs == 0;
	pthread_mutex_unlock(&l->lock);
	return ret;
}

/* After the daemon is gone every touch of a page that is not there fails. */
static void serve_lost(struct link *l)
{
	eventfd_t count;

	lose(l);
	while (!unused(l)) {
		wait_for_packet(l->lost_event);
		if (eventfd_read(l->lost_event, &count) == 0)
			fail_faults(l);
	}
	link_free(l);
}

static void *serve(void *arg)
{
	struct link *l = arg;
	union packet *p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd;

	while (p != MAP_FAILED) {
		ssize_t len;

		wait_for_packet(l->sock);
		len = receive(l->sock, p, &fd);
		if (len <= 0 || !handle(l, p, (size_t)len, fd))
			break;
		wake_dropped(l);
	}
	if (p != MAP_FAILED)
		munmap(p, sizeof(*p));
	serve_lost(l);
	return NULL;
}

static int dial(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t len = strnlen(path, sizeof(addr.sun_path));
	int sock;

	if (len == 0 || len == sizeof(addr.sun_path))
		return -EINVAL;
	memcpy(addr.sun_path, path, len);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	sock = mem_high_fd(sock);
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr))) {
		int ret = -errno;

		mem_close_fd(sock);
		return ret == -ENOENT ? -ENOTCONN : ret;
	}
	return sock;
}

/* The first exchange, before there is a thread. */
static int greet(struct link *l)
{
	struct session_hello req = {
		.head = { .op = SESSION_HELLO, .id = 1 },
		.version = SESSION_VERSION,
	};
	struct session_hello_reply reply;
	union packet p;
	ssize_t len;
	void *mail;
	int fd, ret;

	if (!send_packet(l, &req, sizeof(req), 0))
		return -ENOTCONN;
	len = receive(l->sock, &p, &fd);
	ret = len <= 0 ? -ENOTCONN
		       : check_reply(&p, (size_t)len, sizeof(reply));
	if (ret == 0) {
		memcpy(&reply, &p, sizeof(reply));
		if (reply.block_size != BLOCK_SIZE || fd < 0)
			ret = -EPROTO;
	}
	if (ret == 0) {
		l->device_size = reply.device_size;
		l->nr_mail = reply.nr_mailboxes;
		mail = mmap(NULL, l->nr_mail * sizeof(*l->mail),
			    PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (mail == MAP_FAILED)
			ret = -errno;
		else
			l->mail = mail;
	}
	if (fd >= 0)
		close(fd);
	return ret;
}

/* Signals are the program's: none of them to the threads of the library. */
static int start(struct link *l)
{
	sigset_t all, old;
	pthread_t thread;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&thread, NULL, serve, l);
	if (ret == 0)
		pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

static int link_open(const char *path, struct link **ret_link)
{
	struct link *l = calloc(1, sizeof(*l));
	int ret;

	if (!l)
		return -ENOMEM;
	snprintf(l->path, sizeof(l->path), "%s", path);
	pthread_mutex_init(&l->lock, NULL);
	l->refs = 1;
	l->dev[0] = l->dev[1] = -1;
	l->lost_event = eventfd(0, EFD_CLOEXEC);
	l->sock = dial(path);
	ret = l->sock < 0 ? l->sock : 0;
	if (ret == 0 && l->lost_event < 0)
		ret = -EMFILE;
	if (ret == 0) {
		l->lost_event = mem_high_fd(l->lost_event);
		ret = greet(l);
	}
	if (ret == 0)
		ret = start(l);
	if (ret) {
		link_free(l);
		return ret;
	}
	*ret_link = l;
	return 0;
}

static struct link *find(const char *path)
{
	for (struct link *l = links; l; l = l->next)
		if (!atomic_load(&l->lost) && strcmp(l->path, path) == 0)
			return l;
	return NULL;
}

int link_get(const char *path, struct link **ret_link)
{
	struct link *l;
	int ret = 0;

	pthread_mutex_lock(&links_mutex);
	l = find(path);
	if (l) {
		link_hold(l);
	} else {
		ret = link_open(path, &l);
		if (ret == 0) {
			l->next = links;
			links = l;
		}
	}
	pthread_mutex_unlock(&links_mutex);
	if (ret == 0)
		*ret_link = l;
	return ret;
}

void link_hold(struct link *l)
{
	sigset_t old;

	link_lock(l, &old);
	l->refs++;
	link_unlock(l, &old);
}

/* The last one: the receiver sees the end of the socket, and frees. */
void link_put(struct link *l)
{
	sigset_t old;
	bool last;

	pthread_mutex_lock(&links_mutex);
	link_lock(l, &old);
	last = --l->refs == 0;
	if (last) {
		for (struct link **p = &links; *p; p = &(*p)->next)
			if (*p == l) {
				*p = l->next;
				break;
			}
		if (l->sock >= 0)
			shutdown(l->sock, SHUT_RDWR);
		if (l->lost_event >= 0)
			eventfd_write(l->lost_event, 1);
	}
	link_unlock(l, &old);
	pthread_mutex_unlock(&links_mutex);
}

int link_device(struct link *l, bool writable, int fd)
{
	int *dev = &l->dev[writable];
	sigset_t old;
	int ret;

	link_lock(l, &old);
	if (*dev < 0) {
		*dev = mem_high_fd(fd);
		l->page_sync = flush_needs_msync(*dev);
		fd = -1;
	}
	ret = *dev;
	link_unlock(l, &old);
	if (fd >= 0)
		close(fd);
	return ret;
}

void links_lock(void)
{
	pthread_mutex_lock(&links_mutex);
	for (struct link *l = links; l; l = l->next)
		pthread_mutex_lock(&l->lock);
}

void links_unlock(void)
{
	for (struct link *l = links; l; l = l->next)
		pthread_mutex_unlock(&l->lock);
	pthread_mutex_unlock(&links_mutex);
}

/* Only what the kernel has is given back: the files still point here. */
void links_forget(void)
{
	for (struct link *l = links; l; l = l->next) {
		atomic_store(&l->lost, true);
		mem_close_fd(l->sock);
		mem_close_fd(l->lost_event);
		l->sock = l->lost_event = -1;
		for (int i = 0; i < 2; i++) {
			if (l->dev[i] >= 0)
				mem_close_fd(l->dev[i]);
			l->dev[i] = -1;
		}
		munmap(l->mail, l->nr_mail * sizeof(*l->mail));
		l->mail = NULL;
		l->calls = NULL;
		pthread_mutex_init(&l->lock, NULL);
	}
	links = NULL;
	pthread_mutex_init(&links_mutex, NULL);
}
