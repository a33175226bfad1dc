/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session.c - the session server: its socket, events and tokens
 */
#include "dax/session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "dax/session_i.h"

/* How often those who are gone are looked at, and tokens expire. */
#define POLL_MS 100

uint64_t session_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void session_log(struct session_server *srv, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	if (!srv->ops->log)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	srv->ops->log(srv->ctx, line);
}

/* The locks of the lists in struct address_space, by its address. */
#define NR_FILE_LOCKS 64u
static struct mutex file_locks[NR_FILE_LOCKS];
static pthread_once_t file_locks_once = PTHREAD_ONCE_INIT;

static void file_locks_init(void)
{
	for (unsigned int i = 0; i < NR_FILE_LOCKS; i++)
		mutex_init(&file_locks[i], LOCK_SESSION);
}

struct mutex *session_file_lock(const struct address_space *mapping)
{
	uint64_t key = (uintptr_t)mapping;

	pthread_once(&file_locks_once, file_locks_init);
	key *= UINT64_C(0x9e3779b97f4a7c15);
	return &file_locks[key >> 58];
}

/* Events. */

static void socket_event(struct session_client *c, uint32_t events)
{
	/* As large as no message is, so that a longer one is seen. */
	unsigned char msg[128] __attribute__((aligned(8)));
	ssize_t n;
	int fd;

	mutex_lock(&c->lock);
	fd = c->fd;
	if (fd >= 0 && (events & EPOLLOUT))
		client_flush(c);
	mutex_unlock(&c->lock);
	/* Whoever receives is the only one who closes it. */
	if (fd < 0 || !(events & ~(uint32_t)EPOLLOUT))
		return;
	n = recv(fd, msg, sizeof(msg), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0 && (size_t)n <= sizeof(msg) &&
	    session_message(c, msg, (size_t)n))
		return;
	if (n > 0)
		session_log(c->srv, "%s[%d] sent what is no message", c->comm,
			    c->pid);
	client_hangup(c);
}

/* The file of a token whose time is over, or NULL. */
static struct address_space *expired_token(struct session_server *srv)
{
	struct address_space *mapping = NULL;
	uint64_t now = session_now();

	mutex_lock(&srv->lock);
	for (unsigned int i = 0; srv->nr_tokens && i < MAX_TOKENS; i++) {
		if (!srv->tokens[i].mapping || srv->tokens[i].until_ns > now)
			continue;
		mapping = srv->tokens[i].mapping;
		srv->tokens[i].mapping = NULL;
		srv->nr_tokens--;
		break;
	}
	mutex_unlock(&srv->lock);
	return mapping;
}

static void expire_tokens(struct session_server *srv)
{
	struct address_space *mapping;

	while ((mapping = expired_token(srv)))
		srv->ops->put(mapping);
}

static int poll_ms(struct session_server *srv)
{
	bool needed;

	mutex_lock(&srv->lock);
	needed = atomic_load(&srv->nr_gone) > 0 || srv->nr_tokens > 0;
	mutex_unlock(&srv->lock);
	return needed ? POLL_MS : -1;
}

static void poll_all(struct session_server *srv)
{
	srv->next_poll_ns = session_now() + UINT64_C(1000000) * POLL_MS;
	session_check_gone(srv);
	expire_tokens(srv);
}

void session_receive(struct session_server *srv)
{
	struct session_client *c;
	struct epoll_event ev;
	int n;

	n = epoll_wait(srv->epoll_fd, &ev, 1, poll_ms(srv));
	if (session_now() >= srv->next_poll_ns)
		poll_all(srv);
	if (n <= 0)
		return;
	switch ((enum event_kind)(ev.data.u64 % (1u << EVENT_BITS))) {
	case EVENT_LISTEN:
		client_accept(srv);
		return;
	case EVENT_WAKE:
		eventfd_read(srv->wake_fd, &(eventfd_t){ 0 });
		return;
	case EVENT_SOCKET:
	case EVENT_PROCESS:
		break;
	}
	c = client_find(srv, ev.data.u64 >> EVENT_BITS);
	if (!c)
		return;
	if (ev.data.u64 % (1u << EVENT_BITS) == EVENT_SOCKET)
		socket_event(c, ev.events);
	else
		client_process_ended(c);
	client_put(c);
}

/* Tokens. */

static int token_insert(struct session_server *srv,
			struct address_space *mapping, bool write,
			const uint8_t token[SESSION_TOKEN_SIZE])
{
	unsigned int i = 0;

	mutex_lock(&srv->lock);
	while (i < MAX_TOKENS && srv->tokens[i].mapping)
		i++;
	if (i < MAX_TOKENS) {
		srv->tokens[i] = (struct session_token){
			.mapping = mapping,
			.write = write,
			.until_ns = session_now() +
				    UINT64_C(1000000) * srv->token_ms,
		};
		memcpy(srv->tokens[i].token, token, SESSION_TOKEN_SIZE);
		srv->nr_tokens++;
	}
	mutex_unlock(&srv->lock);
	return i < MAX_TOKENS ? 0 : -EMFILE;
}

int session_token(struct session_server *srv, struct address_space *mapping,
		  bool write, uint8_t ret_token[SESSION_TOKEN_SIZE])
{
	uint8_t token[SESSION_TOKEN_SIZE];
	int ret;

	if (getrandom(token, sizeof(token), 0) != sizeof(token))
		return -EIO;
	expire_tokens(srv);
	srv->ops->get(mapping);
	ret = token_insert(srv, mapping, write, token);
	if (ret) {
		srv->ops->put(mapping);
		return ret;
	}
	/* It has to be looked at from time to time now. */
	eventfd_write(srv->wake_fd, 1);
	memcpy(ret_token, token, sizeof(token));
	return 0;
}

/* In a time that does not depend on how much of it is right. */
static bool token_equal(const uint8_t *a, const uint8_t *b)
{
	uint8_t diff = 0;

	for (unsigned int i = 0; i < SESSION_TOKEN_SIZE; i++)
		diff |= a[i] ^ b[i];
	return diff == 0;
}

struct address_space *session_token_take(struct session_server *srv,
					 const uint8_t *token, bool *ret_write)
{
	struct address_space *mapping = NULL;
	uint64_t now = session_now();

	mutex_lock(&srv->lock);
	for (unsigned int i = 0; i < MAX_TOKENS; i++) {
		struct session_token *t = &srv->tokens[i];

		if (!t->mapping || t->until_ns <= now ||
		    !token_equal(t->token, token))
			continue;
		mapping = t->mapping;
		*ret_write = t->write;
		t->mapping = NULL;
		srv->nr_tokens--;
		break;
	}
	mutex_unlock(&srv->lock);
	return mapping;
}

/* Servers. */

static int open_socket(struct session_server *srv, const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	strcpy(sun.sun_path, path);
	strcpy(srv->path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	unlink(path);
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) ||
	    chmod(path, 0666) || listen(fd, 128)) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	srv->listen_fd = fd;
	return 0;
}

static int open_events(struct session_server *srv)
{
	struct epoll_event ev = { .events = EPOLLIN };

	srv->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	srv->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (srv->epoll_fd < 0 || srv->wake_fd < 0)
		return -errno;
	ev.data.u64 = EVENT_LISTEN;
	if (epoll_ctl(srv->epoll_fd, EPOLL_CTL_ADD, srv->listen_fd, &ev))
		return -errno;
	ev.data.u64 = EVENT_WAKE;
	if (epoll_ctl(srv->epoll_fd, EPOLL_CTL_ADD, srv->wake_fd, &ev))
		return -errno;
	return 0;
}

static void set_default(unsigned int *limit, unsigned int value)
{
	if (*limit == 0)
		*limit = value;
}

static void set_limits(struct session_limits *l)
{
	set_default(&l->max_clients, 1024);
	set_default(&l->max_handles, 1024);
	set_default(&l->max_vmas, 16384);
	set_default(&l->max_pins, 4096);
	set_default(&l->max_pinned, 1u << 18);
	set_default(&l->max_tables, 1u << 16);
	set_default(&l->max_busy, 512);
	set_default(&l->max_sleeps, 1024);
}

static void server_free(struct session_server *srv)
{
	if (srv->listen_fd >= 0) {
		close(srv->listen_fd);
		unlink(srv->path);
	}
	if (srv->wake_fd >= 0)
		close(srv->wake_fd);
	if (srv->epoll_fd >= 0)
		close(srv->epoll_fd);
	mutex_destroy(&srv->lock);
	free(srv->clients);
	free(srv);
}

static int server_open(struct session_server *srv, const char *path)
{
	int ret;

	srv->clients = calloc(srv->limits.max_clients, sizeof(*srv->clients));
	if (!srv->clients)
		return -ENOMEM;
	ret = session_find_device_id(srv);
	if (!ret)
		ret = open_socket(srv, path);
	if (!ret)
		ret = open_events(srv);
	return ret;
}

int session_server_create(struct dax_device *dev, const struct session_ops *ops,
			  void *ctx, const struct session_options *opt,
			  struct session_server **ret_srv)
{
	struct session_server *srv;
	int ret;

	if (dev->folios->nr_pages >> (64 - PTE_PFN_SHIFT))
		return -EFBIG;
	srv = calloc(1, sizeof(*srv));
	if (!srv)
		return -ENOMEM;
	mutex_init(&srv->lock, LOCK_SESSION);
	srv->listen_fd = srv->epoll_fd = srv->wake_fd = -1;
	srv->dev = dev;
	srv->ops = ops;
	srv->ctx = ctx;
	srv->owner = opt->owner;
	srv->token_ms = opt->token_ms ? opt->token_ms : SESSION_TOKEN_MS;
	srv->limits = opt->limits;
	set_limits(&srv->limits);
	session_set_recall_ms(srv, opt->recall_ms ? opt->recall_ms
						  : SESSION_RECALL_MS);
	ret = server_open(srv, opt->path);
	if (!ret)
		ret = session_pool_start(srv, srv->limits.max_sleeps);
	if (ret) {
		server_free(srv);
		return ret;
	}
	*ret_srv = srv;
	return 0;
}

void session_server_stop(struct session_server *srv)
{
	atomic_store(&srv->stopped, true);
}

void session_server_destroy(struct session_server *srv)
{
	struct session_client *c;

	if (!srv)
		return;
	atomic_store(&srv->over, true);
	session_pool_quiet(srv);
	/* First what they hold: a request may sleep until that is gone. */
	for (unsigned int i = 0; i < srv->limits.max_clients; i++) {
		c = client_at(srv, i);
		if (!c)
			continue;
		client_dead(c);
		client_put(c);
	}
	session_pool_stop(srv);
	for (unsigned int i = 0; i < MAX_TOKENS; i++)
		if (srv->tokens[i].mapping)
			srv->ops->put(srv->tokens[i].mapping);
	server_free(srv);
}

const char *session_server_path(const struct session_server *srv)
{
	return srv->path;
}

void session_set_recall_ms(struct session_server *srv, unsigned int ms)
{
	atomic_store(&srv->recall_ms, ms);
}

void session_server_stat(struct session_server *srv, struct session_stat *ret)
{
	*ret = (struct session_stat){
		.nr_faults = atomic_load(&srv->nr_faults),
		.nr_recalls = atomic_load(&srv->nr_recalls),
		.nr_late = atomic_load(&srv->nr_late),
	};
	mutex_lock(&srv->lock);
	ret->nr_clients = srv->nr_clients;
	ret->nr_gone = atomic_load(&srv->nr_gone);
	ret->nr_tokens = srv->nr_tokens;
	mutex_unlock(&srv->lock);
	mutex_lock(&srv->pool.lock);
	ret->nr_threads = srv->pool.nr_threads;
	ret->nr_sleeping = srv->pool.nr_sleeping;
	mutex_unlock(&srv->pool.lock);
}
