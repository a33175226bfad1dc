/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_client.c - clients of the session server come, talk and go
 *
 * The end of a session.  Its socket hangs up, or its process is gone.  If the
 * process lives and maps the device still, the client is CLIENT_GONE: what it
 * holds stays held, and nobody waits for it.  /proc/PID/maps is looked at
 * again and again; the pidfd, which is asked after each look, says whether it
 * was the same process all the time.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dax/session_i.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* Clients that have not said HELLO; for one more, the oldest has to go. */
#define MAX_NEW 64u

/* What may be queued for a client that does not read. */
#define MAX_QUEUED (UINT64_C(1) << 20)

void client_get(struct session_client *c)
{
	atomic_fetch_add(&c->refs, 1);
}

struct session_client *client_at(struct session_server *srv, unsigned int i)
{
	struct session_client *c;

	mutex_lock(&srv->lock);
	c = srv->clients[i];
	if (c)
		client_get(c);
	mutex_unlock(&srv->lock);
	return c;
}

void client_put(struct session_client *c)
{
	if (atomic_fetch_sub(&c->refs, 1) != 1)
		return;
	if (c->mail)
		munmap(c->mail, c->srv->limits.max_handles * sizeof(*c->mail));
	if (c->mail_fd >= 0)
		close(c->mail_fd);
	if (c->pidfd >= 0)
		close(c->pidfd);
	free(c->handles);
	mutex_destroy(&c->lock);
	free(c);
}

void client_shut(struct session_client *c)
{
	if (c->shut || c->fd < 0)
		return;
	c->shut = true;
	shutdown(c->fd, SHUT_RDWR);
}

/* The number in its events: which slot, and whose turn it is there. */
static uint64_t client_event(const struct session_client *c,
			     enum event_kind kind)
{
	return c->number << EVENT_BITS | kind;
}

static int client_watch(struct session_client *c, int op, int fd,
			uint32_t events, enum event_kind kind)
{
	struct epoll_event ev = {
		.events = events,
		.data.u64 = client_event(c, kind),
	};

	return epoll_ctl(c->srv->epoll_fd, op, fd, &ev) ? -errno : 0;
}

static void want_out(struct session_client *c, bool want) __must_hold(c->lock)
{
	if (c->want_out == want)
		return;
	c->want_out = want;
	client_watch(c, EPOLL_CTL_MOD, c->fd,
		     EPOLLIN | EPOLLRDHUP | (want ? EPOLLOUT : 0),
		     EVENT_SOCKET);
}

/* Sending. */

static int send_now(struct session_client *c, const void *msg, size_t len,
		    int fd) __must_hold(c->lock)
{
	union {
		struct cmsghdr head;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

	memcpy(&iov.iov_base, &msg, sizeof(msg)); /* it is only read */
	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(int));
		mh.msg_control = &control;
		mh.msg_controllen = sizeof(control.buf);
	}
	if (sendmsg(c->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return 0;
	return errno == EWOULDBLOCK || errno == ENOBUFS ? -EAGAIN : -errno;
}

static struct session_out *queue_msg(struct session_client *c, const void *msg,
				     size_t len, int fd) __must_hold(c->lock)
{
	struct session_out *out = NULL;

	if (c->queued + len <= MAX_QUEUED)
		out = malloc(sizeof(*out) + len);
	if (!out) {
		/* It does not read, or there is no memory. */
		client_shut(c);
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	out->fd = fd;
	out->recall = NULL;
	out->len = len;
	memcpy(out->data, msg, len);
	c->queued += len;
	STAILQ_INSERT_TAIL(&c->out, out, link);
	want_out(c, true);
	return out;
}

struct session_out *client_send(struct session_client *c, const void *msg,
				size_t len, int fd)
{
	int ret = -EPIPE;

	if (c->fd >= 0 && !c->shut) {
		ret = -EAGAIN;
		if (STAILQ_EMPTY(&c->out))
			ret = send_now(c, msg, len, fd);
		if (ret == -EAGAIN)
			return queue_msg(c, msg, len, fd);
	}
	/* What cannot be sent is of a session that ends: that is an event. */
	if (fd >= 0)
		close(fd);
	return NULL;
}

static void out_pop(struct session_client *c) __must_hold(c->lock)
{
	struct session_out *out = STAILQ_FIRST(&c->out);

	STAILQ_REMOVE_HEAD(&c->out, link);
	c->queued -= out->len;
	if (out->recall)
		out->recall->out = NULL;
	if (out->fd >= 0)
		close(out->fd);
	free(out);
}

void client_flush(struct session_client *c)
{
	const struct session_out *out;

	while ((out = STAILQ_FIRST(&c->out))) {
		if (send_now(c, out->data, out->len, out->fd) == -EAGAIN)
			return;
		out_pop(c);
	}
	want_out(c, false);
}

/* What is known of the other side. */

static int peer_pidfd(int fd, pid_t pid)
{
	socklen_t len = sizeof(int);
	int pidfd;

	/* Of the process that connected, whoever has its number now. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0) {
		fcntl(pidfd, F_SETFD, FD_CLOEXEC);
		return pidfd;
	}
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	return pidfd < 0 ? -errno : pidfd;
}

static bool process_lives(const struct session_client *c)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

	return poll(&p, 1, 0) == 0;
}

static void read_comm(struct session_client *c)
{
	char path[32];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/comm", c->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, c->comm, sizeof(c->comm) - 1);
	close(fd);
	if (n > 0 && c->comm[n - 1] == '\n')
		c->comm[n - 1] = '\0';
}

/*
 * The device and inode of a line of maps, as text; mounts and layers may show
 * other numbers than stat(2), but the same ones to everybody.
 */
static bool maps_id(const char *line, char ret[32])
{
	unsigned int skip;
	char dev[16];
	unsigned long ino;

	if (sscanf(line, "%*s %*s %*s %15s %lu%n", dev, &ino, &skip) != 2)
		return false;
	snprintf(ret, 32, "%s %lu", dev, ino);
	return ino != 0;
}

/* How maps shows the device: as it shows our own mapping of it. */
int session_find_device_id(struct session_server *srv)
{
	uintptr_t base = (uintptr_t)srv->dev->pm->base;
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	char line[512];
	int ret = -ENODEV;

	if (!f)
		return -errno;
	while (ret && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx", &start, &end) == 2 &&
		    start <= base && base < end &&
		    maps_id(line, srv->device_id))
			ret = 0;
	fclose(f);
	return ret;
}

enum maps {
	MAPS_EMPTY, /* no memory: not the process, or no longer */
	MAPS_OTHER,
	MAPS_DEVICE,
};

static enum maps read_maps(const struct session_client *c, const char *path)
{
	enum maps ret = MAPS_EMPTY;
	char line[512], id[32];
	bool whole = true;
	FILE *f;

	f = fopen(path, "re");
	if (!f) /* what cannot be known: rather not let go */
		return errno == ENOENT || errno == ESRCH ? MAPS_EMPTY
							 : MAPS_DEVICE;
	while (ret != MAPS_DEVICE && fgets(line, sizeof(line), f)) {
		ret = MAPS_OTHER;
		/* A long path comes in pieces: only the first is a line. */
		if (whole && maps_id(line, id) &&
		    strcmp(id, c->srv->device_id) == 0)
			ret = MAPS_DEVICE;
		whole = strchr(line, '\n');
	}
	fclose(f);
	return ret;
}

/* The first thread may have ended before the others. */
static enum maps read_maps_of_threads(const struct session_client *c)
{
	enum maps ret = MAPS_EMPTY;
	const struct dirent *d;
	char path[300];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", c->pid);
	dir = opendir(path);
	while (dir && ret == MAPS_EMPTY && (d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/maps", c->pid,
			 d->d_name);
		ret = read_maps(c, path);
	}
	if (dir)
		closedir(dir);
	return ret;
}

static bool process_maps_device(const struct session_client *c)
{
	char path[32];
	enum maps ret;

	snprintf(path, sizeof(path), "/proc/%d/maps", c->pid);
	ret = read_maps(c, path);
	if (ret == MAPS_EMPTY)
		ret = read_maps_of_threads(c);
	return ret == MAPS_DEVICE;
}

/* Come. */

static struct session_client *client_alloc(struct session_server *srv, int fd)
{
	struct session_client *c = calloc(1, sizeof(*c));
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (!c)
		return NULL;
	mutex_init(&c->lock, LOCK_FOLIO_MAP);
	c->srv = srv;
	c->fd = fd;
	c->mail_fd = -1;
	c->pidfd = -1;
	atomic_store(&c->refs, 1);
	for (unsigned int i = 0; i < VMA_BUCKETS; i++)
		LIST_INIT(&c->vmas[i]);
	LIST_INIT(&c->pins);
	TAILQ_INIT(&c->recalls);
	STAILQ_INIT(&c->out);
	c->since_ns = session_now();
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
		c->pid = cred.pid;
		c->uid = cred.uid;
		c->gid = cred.gid;
		c->pidfd = peer_pidfd(fd, cred.pid);
	}
	return c;
}

/* Of one user at most a half, so that nobody keeps the others out. */
static bool has_room(const struct session_server *srv, uid_t uid)
	__must_hold(srv->lock)
{
	unsigned int max = srv->limits.max_clients, nr = 0;

	if (srv->nr_clients >= max)
		return false;
	for (unsigned int i = 0; i < max; i++)
		if (srv->clients[i] && srv->clients[i]->uid == uid)
			nr++;
	return nr < (max + 1) / 2 || uid == srv->owner || uid == 0;
}

static int client_insert(struct session_client *c)
{
	struct session_server *srv = c->srv;
	unsigned int max = srv->limits.max_clients;
	int ret = -EMFILE;

	mutex_lock(&srv->lock);
	if (has_room(srv, c->uid)) {
		unsigned int i = 0;

		while (srv->clients[i])
			i++;
		c->slot = i;
		c->number = ++srv->next_client * max + i;
		srv->clients[i] = c;
		srv->nr_clients++;
		ret = 0;
	}
	mutex_unlock(&srv->lock);
	return ret;
}

static void client_remove(struct session_client *c)
{
	struct session_server *srv = c->srv;

	mutex_lock(&srv->lock);
	assert(srv->clients[c->slot] == c);
	srv->clients[c->slot] = NULL;
	srv->nr_clients--;
	mutex_unlock(&srv->lock);
	client_put(c);
}

static enum client_state client_state(struct session_client *c)
{
	enum client_state state;

	mutex_lock(&c->lock);
	state = c->state;
	mutex_unlock(&c->lock);
	return state;
}

/* With a reference; NULL: it is not there any more. */
struct session_client *client_find(struct session_server *srv, uint64_t number)
{
	struct session_client *c;

	mutex_lock(&srv->lock);
	c = srv->clients[number % srv->limits.max_clients];
	if (c && c->number == number)
		client_get(c);
	else
		c = NULL;
	mutex_unlock(&srv->lock);
	return c;
}

/*
 * The one who has been connected for longest without a word, when there are
 * too many of those, or no room; with a reference.
 */
static struct session_client *find_silent(struct session_server *srv)
{
	unsigned int max = srv->limits.max_clients, nr = 0;
	struct session_client *oldest = NULL, *c;

	mutex_lock(&srv->lock);
	for (unsigned int i = 0; i < max; i++) {
		c = srv->clients[i];
		if (!c || client_state(c) != CLIENT_NEW)
			continue;
		nr++;
		if (!oldest || c->since_ns < oldest->since_ns)
			oldest = c;
	}
	if (nr < MAX_NEW && nr < (max + 3) / 4 && srv->nr_clients < max)
		oldest = NULL;
	if (oldest)
		client_get(oldest);
	mutex_unlock(&srv->lock);
	return oldest;
}

static void refuse(int fd, int error)
{
	const struct session_reply r = {
		.head = { .op = SESSION_REPLY },
		.error = error,
	};

	send(fd, &r, sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

/* Go. */

/* Any vma that is not dead; the vma has a user more. */
static struct session_vma *any_vma(struct session_client *c)
{
	struct session_vma *vma = NULL;

	mutex_lock(&c->lock);
	for (unsigned int i = 0; !vma && i < VMA_BUCKETS; i++)
		for (vma = LIST_FIRST(&c->vmas[i]); vma && vma->dead;)
			vma = LIST_NEXT(vma, link);
	if (vma)
		vma->users++;
	mutex_unlock(&c->lock);
	return vma;
}

static struct session_handle *any_handle(struct session_client *c)
{
	struct session_handle *h = NULL;

	mutex_lock(&c->lock);
	for (unsigned int i = 0; !h && i < c->srv->limits.max_handles; i++) {
		h = c->handles ? c->handles[i] : NULL;
		if (h)
			c->handles[i] = NULL;
	}
	if (h)
		c->nr_handles--;
	mutex_unlock(&c->lock);
	return h;
}

/* Nothing of it is left, whatever its process does. */
static void client_drop(struct session_client *c)
{
	struct session_handle *h;
	struct session_vma *vma;

	while ((vma = any_vma(c))) {
		session_vma_end(vma);
		session_vma_put(vma);
	}
	session_pins_end(c);
	while ((h = any_handle(c)))
		session_handle_put(c, h);
	mutex_lock(&c->lock);
	session_recalls_late(c);
	mutex_unlock(&c->lock);
	client_remove(c);
}

/* No more messages.  False: it was so before. */
static bool client_close(struct session_client *c, enum client_state state)
{
	bool changed;
	int fd;

	mutex_lock(&c->lock);
	fd = c->fd;
	changed = c->state < state;
	if (changed) {
		if (c->state == CLIENT_GONE)
			atomic_fetch_sub(&c->srv->nr_gone, 1);
		if (state == CLIENT_GONE)
			atomic_fetch_add(&c->srv->nr_gone, 1);
		c->fd = -1;
		c->state = state;
		while (!STAILQ_EMPTY(&c->out))
			out_pop(c);
		session_recalls_late(c);
	}
	mutex_unlock(&c->lock);
	if (changed && fd >= 0) {
		epoll_ctl(c->srv->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		close(fd);
	}
	return changed;
}

void client_dead(struct session_client *c)
{
	if (!client_close(c, CLIENT_DEAD))
		return;
	epoll_ctl(c->srv->epoll_fd, EPOLL_CTL_DEL, c->pidfd, NULL);
	client_drop(c);
}

/* Is there anything that it could hold on to? */
static bool client_has_pages(struct session_client *c)
{
	const struct session_vma *vma;
	bool has;

	mutex_lock(&c->lock);
	has = !LIST_EMPTY(&c->pins);
	for (unsigned int i = 0; !has && i < VMA_BUCKETS; i++)
		LIST_FOREACH(vma, &c->vmas[i], link)
	has |= vma->root != 0;
	mutex_unlock(&c->lock);
	return has;
}

/* And does the process live, and still map the device? */
static bool client_holds_on(struct session_client *c)
{
	return client_has_pages(c) && process_maps_device(c) &&
	       process_lives(c);
}

void client_hangup(struct session_client *c)
{
	struct session_server *srv = c->srv;

	if (!client_holds_on(c)) {
		client_dead(c);
		return;
	}
	if (client_close(c, CLIENT_GONE))
		session_log(
			srv,
			"%s[%d] ended its session and maps the device still",
			c->comm, c->pid);
}

/* Look again at one that is gone. */
static void client_check_gone(struct session_client *c)
{
	if (client_state(c) == CLIENT_GONE && !client_holds_on(c))
		client_dead(c);
}

void session_check_gone(struct session_server *srv)
{
	struct session_client *c;

	for (unsigned int i = 0; i < srv->limits.max_clients; i++) {
		c = client_at(srv, i);
		if (!c)
			continue;
		client_check_gone(c);
		client_put(c);
	}
}

void client_accept(struct session_server *srv)
{
	struct session_client *c, *silent;
	int fd, ret = -ENOMEM;

	fd = accept4(srv->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		/* No descriptors: do not come back at once for the same. */
		if (errno == EMFILE || errno == ENFILE)
			usleep(1000);
		return;
	}
	silent = find_silent(srv);
	if (silent) {
		client_dead(silent);
		client_put(silent);
	}
	c = client_alloc(srv, fd);
	if (c)
		ret = c->pid <= 0 || c->pidfd < 0 ? -ESRCH : client_insert(c);
	if (ret) {
		refuse(fd, ret);
		if (c)
			client_put(c);
		return;
	}
	read_comm(c);
	client_watch(c, EPOLL_CTL_ADD, c->pidfd, EPOLLIN, EVENT_PROCESS);
	client_watch(c, EPOLL_CTL_ADD, c->fd, EPOLLIN | EPOLLRDHUP,
		     EVENT_SOCKET);
}

void client_process_ended(struct session_client *c)
{
	if (client_state(c) == CLIENT_GONE)
		client_check_gone(c);
	else
		client_dead(c);
}
