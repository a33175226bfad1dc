/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/direct.c - programs that map files: who may, and what they ask for
 */
#include "fs/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "dax/policy_host.h"
#include "dax/session.h"
#include "fs/layout.h"

unsigned int open_mode(int flags)
{
	unsigned int mode = flags & O_APPEND ? OPEN_APPEND : 0;

	switch (flags & O_ACCMODE) {
	case O_RDONLY:
		return mode | OPEN_READ;
	case O_WRONLY:
		return mode | OPEN_WRITE;
	default:
		return mode | OPEN_READ | OPEN_WRITE;
	}
}

bool direct_file(const struct inode *ip)
{
	const struct foliofs_options *opt = &ip->fs->opt;
	const struct inode_dax *d = inode_dax(ip);

	if (opt->dax == DAX_NEVER || !S_ISREG(inode_mode(ip)))
		return false;
	/* The flag is looked at when the file is first used (S_DAX). */
	if (d)
		return d->mapping.dax;
	return opt->dax == DAX_ALWAYS || (inode_flags(ip) & FOLIOFS_FL_DAX);
}

/* What the server asks. */

static struct inode *host(struct address_space *mapping)
{
	return mapping->host;
}

static void ops_get(struct address_space *mapping)
{
	inode_ref(host(mapping), 1);
}

static void ops_put(struct address_space *mapping)
{
	inode_put(host(mapping));
}

static void ops_stored(struct address_space *mapping, uint64_t pos,
		       uint64_t len)
{
	(void)pos;
	(void)len;
	layout_stored(host(mapping));
}

static int ops_allow(void *ctx, uid_t uid, gid_t gid, pid_t pid)
{
	const struct foliofs *fs = ctx;
	const struct dax_users *users = &fs->dax_users;

	(void)gid;
	(void)pid;
	if (uid == 0 || users->all)
		return 0;
	for (unsigned int i = 0; i < users->nr; i++)
		if (users->uid[i] == uid)
			return 0;
	return -EACCES;
}

static int ops_device_fd(void *ctx, bool write)
{
	const struct foliofs *fs = ctx;
	int fd = open(fs->device, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);

	return fd == -1 ? -errno : fd;
}

static int ops_waits(void *ctx, uint64_t cursor, uint64_t ino,
		     struct session_wait *ret)
{
	return layout_waits(ctx, cursor, ino, ret);
}

static void ops_log(void *ctx, const char *line)
{
	(void)ctx;
	syslog(LOG_NOTICE, "%s", line);
}

static const struct session_ops session_ops = {
	.iomap = &foliofs_iomap_ops,
	.get = ops_get,
	.put = ops_put,
	.stored = ops_stored,
	.allow = ops_allow,
	.device_fd = ops_device_fd,
	.waits = ops_waits,
	.log = ops_log,
};

/* Open and close. */

#define SOCKET_NAME_MAX 108

/* Below /run for root, where only he can put something else in its place. */
static int socket_path(const struct foliofs *fs, char path[SOCKET_NAME_MAX])
{
	const char *run = getenv("XDG_RUNTIME_DIR");
	char dir[64] = "/run/foliofs";
	struct foliofs_stat st;
	int len;

	if (geteuid() != 0 &&
	    (!run || snprintf(dir, sizeof(dir), "%s", run) >= (int)sizeof(dir)))
		return -ENOENT;
	if (geteuid() == 0 && mkdir(dir, 0755) && errno != EEXIST)
		return -errno;
	foliofs_stat((struct foliofs *)(uintptr_t)fs, &st, false);
	len = snprintf(path, SOCKET_NAME_MAX, "%s/%s", dir,
		       geteuid() == 0 ? "" : "foliofs-");
	for (unsigned int i = 0; i < sizeof(st.uuid); i++)
		len += snprintf(path + len, SOCKET_NAME_MAX - (size_t)len,
				"%02x", st.uuid[i]);
	return 0;
}

int direct_open(struct foliofs *fs, const struct dax_users *users,
		struct errmsg *err)
{
	char path[SOCKET_NAME_MAX];
	struct session_options opt = { .path = path, .owner = getuid() };
	int ret;

	/* What a read-only mount has replayed is not on the device. */
	if (fs->opt.read_only)
		return 0;
	/* A page of a file is not aligned to more than a page. */
	if (pmem_alignment(fs->pm) > BLOCK_SIZE)
		return err_set(err, -EOPNOTSUPP,
			       "programs cannot map files: pieces of less "
			       "than %ju KiB of this namespace cannot be "
			       "mapped; one made with ndctl create-namespace "
			       "-m devdax -a 4k can",
			       (uintmax_t)pmem_alignment(fs->pm) >> 10);
	fs->dax_users = *users;
	ret = socket_path(fs, path);
	if (!ret)
		ret = session_server_create(layout_device(fs), &session_ops, fs,
					    &opt, &fs->sessions);
	if (ret)
		return err_set(err, ret,
			       "programs cannot map files: no socket below "
			       "/run/foliofs or $XDG_RUNTIME_DIR: %s",
			       strerror(-ret));
	policy_host_sessions(layout_policy(fs), fs->sessions);
	return 0;
}

void direct_close(struct foliofs *fs, void (*say)(const char *line))
{
	if (!fs->sessions)
		return;
	session_server_stop(fs->sessions);
	layout_break_all(fs, say);
	policy_host_sessions(layout_policy(fs), NULL);
	session_server_destroy(fs->sessions);
	fs->sessions = NULL;
}

/* The ioctls. */

int direct_token(struct inode *ip, unsigned int mode,
		 struct foliofs_ioc_token *ret)
{
	struct foliofs *fs = ip->fs;
	bool write = mode & OPEN_WRITE;
	int err;

	if (!S_ISREG(inode_mode(ip)))
		return S_ISDIR(inode_mode(ip)) ? -EISDIR : -EINVAL;
	if (!fs->sessions)
		return -EOPNOTSUPP;
	if (!(mode & OPEN_READ))
		return -EBADF;
	err = layout_attach(ip);
	if (err)
		return err;
	*ret = (struct foliofs_ioc_token){
		.flags = (write ? FOLIOFS_TOKEN_WRITE : 0) |
			 (direct_file(ip) ? FOLIOFS_TOKEN_DAX : 0)
	};
	snprintf(ret->socket, sizeof(ret->socket), "%s",
		 session_server_path(fs->sessions));
	return session_token(fs->sessions, &inode_dax(ip)->mapping,
			     write && !(mode & OPEN_APPEND), ret->token);
}

int direct_source(struct inode *out, unsigned int mode, const uint8_t *token,
		  bool dedupe, struct inode **ret_in)
{
	struct foliofs *fs = out->fs;
	struct address_space *mapping = NULL;
	bool write;

	if (S_ISDIR(inode_mode(out)))
		return -EISDIR;
	if (!(mode & OPEN_WRITE) || (!dedupe && (mode & OPEN_APPEND)))
		return -EBADF;
	if (fs->sessions)
		mapping = session_token_take(fs->sessions, token, &write);
	if (!mapping)
		return -EACCES;
	*ret_in = host(mapping);
	return 0;
}
