/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl_waits.c - foliofsctl status --waits: who holds, and who waits
 *
 * Asks the daemon's socket, as a program that maps files does (dax/proto.h),
 * and nothing of the mount that could wait as well.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "dax/media.h"
#include "dax/proto.h"
#include "fs/ioctl.h"
#include "tools/ctl.h"
#include "tools/text.h"

#define ANSWER_S       10 /* longer, and the daemon hangs */
#define PATH_MAX_SHOWN 4096

struct waits {
	int sock;
	uint32_t id;
	uint32_t major, minor; /* of the mount's device number */

	struct session_hold *hold;
	size_t nr_holds;
	struct session_wait *wait;
	size_t nr_waits;

	/* The last name that was looked for; lists are long and repeat. */
	uint64_t path_ino;
	char path[PATH_MAX_SHOWN]; /* empty: none */
};

union answer {
	struct session_reply reply;
	struct session_hello_reply hello;
	struct session_holds_reply holds;
	struct session_waits_reply waits;
};

/* The socket. */

static int dial(const char *path)
{
	const struct timeval tv = { .tv_sec = ANSWER_S };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t len = strlen(path);
	int ret, sock;

	if (len == 0 || len >= sizeof(addr.sun_path))
		return -EINVAL;
	memcpy(addr.sun_path, path, len);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	if (setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) ||
	    setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) ||
	    connect(sock, (struct sockaddr *)&addr, sizeof(addr))) {
		ret = -errno;
		close(sock);
		return ret;
	}
	return sock;
}

/* One question; descriptors that come with the answer are not taken. */
static int call(struct waits *w, struct session_head *req, size_t len,
		union answer *ret, size_t want)
{
	ssize_t got;

	req->id = ++w->id;
	if (send(w->sock, req, len, MSG_NOSIGNAL) != (ssize_t)len)
		return -errno;
	got = recv(w->sock, ret, sizeof(*ret), 0);
	if (got < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (got == 0)
		return -ECONNRESET;
	if ((size_t)got < sizeof(ret->reply) ||
	    ret->reply.head.op != SESSION_REPLY ||
	    ret->reply.head.id != req->id)
		return -EPROTO;
	if (ret->reply.error)
		return ret->reply.error < 0 ? ret->reply.error : -EPROTO;
	return (size_t)got == want ? 0 : -EPROTO;
}

static int greet(struct waits *w)
{
	struct session_hello req = { .head.op = SESSION_HELLO,
				     .version = SESSION_VERSION };
	union answer a;

	return call(w, &req.head, sizeof(req), &a, sizeof(a.hello));
}

/* @more of @size bytes each behind the @nr at *@list. */
static int append(void **list, size_t nr, const void *more, size_t nr_more,
		  size_t size)
{
	char *bigger = (char *)realloc(*list, (nr + nr_more) * size + 1);

	if (!bigger)
		return -ENOMEM;
	memcpy(bigger + nr * size, more, nr_more * size);
	*list = bigger;
	return 0;
}

static int ask_holds(struct waits *w)
{
	struct session_list req = { .head.op = SESSION_HOLDS };
	union answer a;
	void *list;
	int ret;

	do {
		ret = call(w, &req.head, sizeof(req), &a, sizeof(a.holds));
		if (ret)
			return ret;
		if (a.holds.nr > SESSION_LIST_MAX ||
		    (a.holds.cursor && a.holds.cursor <= req.cursor))
			return -EPROTO;
		list = w->hold;
		ret = append(&list, w->nr_holds, a.holds.hold, a.holds.nr,
			     sizeof(*w->hold));
		if (ret)
			return ret;
		w->hold = (struct session_hold *)list;
		w->nr_holds += a.holds.nr;
		req.cursor = a.holds.cursor;
	} while (req.cursor);
	return 0;
}

static int ask_waits(struct waits *w)
{
	struct session_list req = { .head.op = SESSION_WAITS };
	union answer a;
	void *list;
	int ret;

	do {
		ret = call(w, &req.head, sizeof(req), &a, sizeof(a.waits));
		if (ret)
			return ret;
		if (a.waits.nr > SESSION_LIST_MAX ||
		    (a.waits.cursor && a.waits.cursor <= req.cursor))
			return -EPROTO;
		list = w->wait;
		ret = append(&list, w->nr_waits, a.waits.wait, a.waits.nr,
			     sizeof(*w->wait));
		if (ret)
			return ret;
		w->wait = (struct session_wait *)list;
		w->nr_waits += a.waits.nr;
		req.cursor = a.waits.cursor;
	} while (req.cursor);
	return 0;
}

/* Names. */

/*
 * Is this descriptor of /proc the inode?  Asked without a request to the
 * daemon: the file may be the very one that somebody waits for.
 */
static bool is_inode(const struct waits *w, int dir, const char *name,
		     uint64_t ino)
{
	struct statx stx;

	return statx(dir, name, AT_STATX_DONT_SYNC, STATX_INO, &stx) == 0 &&
	       stx.stx_ino == ino && stx.stx_dev_major == w->major &&
	       stx.stx_dev_minor == w->minor;
}

/* A name of the inode, if the process has it open. */
static bool find_path(const struct waits *w, int32_t pid, uint64_t ino,
		      char path[PATH_MAX_SHOWN])
{
	const struct dirent *d;
	char name[64];
	ssize_t len = 0;
	DIR *dir;

	snprintf(name, sizeof(name), "/proc/%d/fd", pid);
	dir = opendir(name);
	if (!dir)
		return false;
	while (len <= 0 && (d = readdir(dir)))
		if (d->d_name[0] != '.' &&
		    is_inode(w, dirfd(dir), d->d_name, ino))
			len = readlinkat(dirfd(dir), d->d_name, path,
					 PATH_MAX_SHOWN - 1);
	closedir(dir);
	path[len > 0 ? len : 0] = '\0';
	return len > 0;
}

/* A name of the inode, from whoever holds it or waits for it; or NULL. */
static const char *path_of(struct waits *w, uint64_t ino)
{
	bool found = false;

	if (ino == w->path_ino)
		return *w->path ? w->path : NULL;
	w->path_ino = ino;
	*w->path = '\0';
	for (size_t i = 0; !found && i < w->nr_holds; i++)
		if (w->hold[i].ino == ino)
			found = find_path(w, w->hold[i].pid, ino, w->path);
	for (size_t i = 0; !found && i < w->nr_waits; i++)
		if (w->wait[i].ino == ino)
			found = find_path(w, w->wait[i].pid, ino, w->path);
	return *w->path ? w->path : NULL;
}

static const char *kind_name(uint32_t kind)
{
	static const char *const name[] = {
		[SESSION_HOLD_MAP] = "mapped",
		[SESSION_HOLD_PIN] = "pinned",
		[SESSION_HOLD_LONG] = "longterm",
		[SESSION_HOLD_STUCK] = "stuck",
		[SESSION_HOLD_GONE] = "gone",
	};

	return kind < sizeof(name) / sizeof(name[0]) ? name[kind] : "?";
}

/* For people. */

static void print_command(const char comm[16])
{
	char text[17] = { 0 };

	memcpy(text, comm, 16);
	print_bytes(stdout, text, strlen(text));
	for (size_t len = strlen(text); len < 15; len++)
		putchar(' ');
}

static void print_path(struct waits *w, uint64_t ino)
{
	const char *path = path_of(w, ino);

	if (path) {
		fputs("  ", stdout);
		print_bytes(stdout, path, strlen(path));
	}
	putchar('\n');
}

static void print_holds(struct waits *w)
{
	if (!w->nr_holds) {
		puts("Nobody holds anything.");
		return;
	}
	printf("%8s  %21s  %-8s  %7s  %-15s  %10s  %s\n", "inode", "pages",
	       "held", "pid", "command", "for", "path");
	for (size_t i = 0; i < w->nr_holds; i++) {
		const struct session_hold *h = &w->hold[i];

		printf("%8" PRIu64 "  %9" PRIu64 "..%10" PRIu64 "  %-8s  %7d  ",
		       h->ino, h->index, h->index + (h->nr ? h->nr - 1 : 0),
		       kind_name(h->kind), h->pid);
		print_command(h->comm);
		printf("  %8.1f s", (double)h->age_ns / 1e9);
		print_path(w, h->ino);
	}
}

static void print_waits(struct waits *w)
{
	if (!w->nr_waits) {
		puts("Nobody waits.");
		return;
	}
	printf("%8s  %10s  %-15s  %7s  %-15s  %10s  %s\n", "inode", "page",
	       "operation", "pid", "command", "for", "path");
	for (size_t i = 0; i < w->nr_waits; i++) {
		const struct session_wait *s = &w->wait[i];

		printf("%8" PRIu64 "  %10" PRIu64 "  ", s->ino, s->index);
		print_command(s->op);
		printf("  %7d  ", s->pid);
		print_command(s->comm);
		printf("  %8.1f s", (double)s->age_ns / 1e9);
		print_path(w, s->ino);
	}
}

static void print_text(struct waits *w)
{
	print_holds(w);
	putchar('\n');
	print_waits(w);
}

/* For programs. */

static void out_path(struct out *o, struct waits *w, uint64_t ino)
{
	const char *path = path_of(w, ino);

	if (path)
		out_text(o, "path", path);
}

static void out_hold(struct out *o, struct waits *w,
		     const struct session_hold *h)
{
	out_open(o, NULL, '{');
	out_u64(o, "inode", h->ino);
	out_u64(o, "offset", h->index << BLOCK_SHIFT);
	out_u64(o, "length", h->nr << BLOCK_SHIFT);
	out_text(o, "kind", kind_name(h->kind));
	out_u64(o, "session", h->client);
	out_s64(o, "pid", h->pid);
	out_bytes(o, "command", h->comm, strnlen(h->comm, sizeof(h->comm)));
	out_u64(o, "age_ns", h->age_ns);
	out_path(o, w, h->ino);
	out_close(o, '}');
}

static void out_wait(struct out *o, struct waits *w,
		     const struct session_wait *s)
{
	out_open(o, NULL, '{');
	out_u64(o, "inode", s->ino);
	out_u64(o, "offset", s->index << BLOCK_SHIFT);
	out_bytes(o, "operation", s->op, strnlen(s->op, sizeof(s->op)));
	out_u64(o, "request", s->unique);
	out_s64(o, "pid", s->pid);
	out_bytes(o, "command", s->comm, strnlen(s->comm, sizeof(s->comm)));
	out_u64(o, "age_ns", s->age_ns);
	out_path(o, w, s->ino);
	out_close(o, '}');
}

static void print_json(struct waits *w)
{
	struct out o;

	out_begin(&o, stdout, true);
	out_open(&o, "holds", '[');
	for (size_t i = 0; i < w->nr_holds; i++)
		out_hold(&o, w, &w->hold[i]);
	out_close(&o, ']');
	out_open(&o, "waits", '[');
	for (size_t i = 0; i < w->nr_waits; i++)
		out_wait(&o, w, &w->wait[i]);
	out_close(&o, ']');
	out_end(&o);
}

static const char *wait_error(int err)
{
	switch (err) {
	case EACCES:
		return "only root, and who may map files (option dax_users), "
		       "may ask";
	case ENOENT:
	case ECONNREFUSED:
	case ECONNRESET:
		return "its daemon does not listen";
	case ETIMEDOUT:
		return "its daemon does not answer";
	case EPROTO:
		return "its daemon speaks another version";
	default:
		return strerror(err);
	}
}

static void know_device(struct waits *w, const char *dir)
{
	struct statx stx;

	if (statx(AT_FDCWD, dir, AT_STATX_DONT_SYNC, STATX_INO, &stx) == 0) {
		w->major = stx.stx_dev_major;
		w->minor = stx.stx_dev_minor;
	}
}

int ctl_waits(const char *dir, const char *path, bool json)
{
	struct waits w = { .sock = dial(path) };
	int ret;

	if (w.sock < 0)
		return ctl_fail(dir, wait_error(-w.sock));
	know_device(&w, dir);
	ret = greet(&w);
	if (!ret)
		ret = ask_holds(&w);
	if (!ret)
		ret = ask_waits(&w);
	if (!ret && json)
		print_json(&w);
	else if (!ret)
		print_text(&w);
	else
		ctl_fail(dir, wait_error(-ret));
	close(w.sock);
	free(w.hold);
	free(w.wait);
	return ret ? CTL_FAILED : CTL_OK;
}
