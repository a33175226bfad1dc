/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl_session.c - who holds what of a mount, and who waits for it
 *
 * A session like that of a program that maps, but for the mapping.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "dax/proto.h"
#include "fs/ioctl.h"
#include "tools/ctl.h"

const char *ctl_hold_name(unsigned int kind)
{
	static const char *const names[] = {
		[SESSION_HOLD_MAP] = "mapped",
		[SESSION_HOLD_PIN] = "pinned",
		[SESSION_HOLD_LONG] = "pinned long-term",
		[SESSION_HOLD_STUCK] = "does not answer",
		[SESSION_HOLD_GONE] = "gone, maps still",
	};

	return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "?";
}

/* One question, one answer: there is nothing else under way. */
static int call(int sock, const void *msg, size_t len, void *reply, size_t size)
{
	const struct session_reply *r = (const struct session_reply *)reply;
	ssize_t n;

	if (send(sock, msg, len, MSG_NOSIGNAL) != (ssize_t)len)
		return -errno;
	n = recv(sock, reply, size, 0);
	if (n < 0)
		return -errno;
	if (n < (ssize_t)sizeof(*r))
		return -EPIPE;
	if (r->error)
		return r->error;
	return n == (ssize_t)size ? 0 : -EPROTO;
}

static int hello(int sock)
{
	const struct session_hello m = {
		.head = { .op = SESSION_HELLO, .id = 1 },
		.version = SESSION_VERSION,
	};
	struct session_hello_reply r;

	return call(sock, &m, sizeof(m), &r, sizeof(r));
}

static int find_socket(const char *dir, struct sockaddr_un *sun)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;
	struct foliofs_ioc_status st;

	if (fd < 0 || ioctl(fd, FOLIOFS_IOC_STATUS, &st))
		ret = -errno;
	if (fd >= 0)
		close(fd);
	if (ret)
		return ret;
	if (st.socket[0] == '\0' || strlen(st.socket) >= sizeof(sun->sun_path))
		return -EOPNOTSUPP;
	strcpy(sun->sun_path, st.socket);
	return 0;
}

int ctl_session_open(const char *dir)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int ret = find_socket(dir, &sun), sock;

	if (ret == -EOPNOTSUPP)
		ctl_fail(dir, "no program can map files of this mount");
	else if (ret)
		ctl_fail(dir, "not a mounted foliofs");
	if (ret)
		return -1;
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock >= 0 &&
	    connect(sock, (const struct sockaddr *)&sun, sizeof(sun)) == 0)
		ret = hello(sock);
	else
		ret = -errno;
	if (!ret)
		return sock;
	ctl_fail(sun.sun_path, strerror(-ret));
	if (sock >= 0)
		close(sock);
	return -1;
}

int ctl_session_holds(int sock, struct session_hold *ret, unsigned int max)
{
	struct session_list m = { .head = { .op = SESSION_HOLDS, .id = 2 } };
	struct session_holds_reply r = { .cursor = 0 };
	unsigned int nr = 0;
	int err;

	do {
		err = call(sock, &m, sizeof(m), &r, sizeof(r));
		if (err)
			return err;
		for (uint32_t i = 0;
		     i < r.nr && i < SESSION_LIST_MAX && nr < max; i++)
			ret[nr++] = r.hold[i];
		m.cursor = r.cursor;
	} while (r.cursor && nr < max);
	return (int)nr;
}

int ctl_session_waits(int sock, struct session_wait *ret, unsigned int max)
{
	struct session_list m = { .head = { .op = SESSION_WAITS, .id = 3 } };
	struct session_waits_reply r = { .cursor = 0 };
	unsigned int nr = 0;
	int err;

	do {
		err = call(sock, &m, sizeof(m), &r, sizeof(r));
		if (err)
			return err;
		for (uint32_t i = 0;
		     i < r.nr && i < SESSION_LIST_MAX && nr < max; i++)
			ret[nr++] = r.wait[i];
		m.cursor = r.cursor;
	} while (r.cursor && nr < max);
	return (int)nr;
}
