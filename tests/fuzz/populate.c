/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/populate.c - a filesystem with one of everything in it
 */
#include "tests/fuzz/populate.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"

#define must(expr)                                                   \
	do {                                                         \
		int ret_ = (expr);                                   \
		if (ret_ < 0) {                                      \
			fprintf(stderr, "populate: %s: %s\n", #expr, \
				strerror(-ret_));                    \
			abort();                                     \
		}                                                    \
	} while (0)

static const struct cred nobody = { .uid = 1000, .gid = 1000, .umask = 022 };

static struct inode *make(struct inode *dir, const char *name, uint32_t mode,
			  const char *target)
{
	struct new_inode want = { .mode = mode, .symlink = target };
	struct inode *ip;

	must(fs_create(dir, name, &nobody, &want, &ip));
	return ip;
}

static void fill(struct inode *ip, uint64_t pos, size_t len, int byte)
{
	char *buf = malloc(len);

	if (!buf)
		abort();
	memset(buf, byte, len);
	must(file_write(ip, buf, pos, len, 0));
	free(buf);
}

static void make_files(struct inode *dir)
{
	struct inode *ip;

	inode_put(make(dir, "empty", S_IFREG | 0644, NULL));
	ip = make(dir, "small", S_IFREG | 0644, NULL);
	fill(ip, 0, 100, 's');
	must(fs_link(ip, dir, "second name"));
	inode_put(ip);
	ip = make(dir, "chunk", S_IFREG | 0644, NULL);
	fill(ip, 0, (2u << 20) + 5000, 'c');
	inode_put(ip);
	ip = make(dir, "sparse", S_IFREG | 0644, NULL);
	fill(ip, UINT64_C(3) << 30, 5000, 'p');
	fill(ip, 0, 5000, 'p');
	inode_put(ip);
	ip = make(dir, "highest", S_IFREG | 0644, NULL);
	fill(ip, FOLIOFS_MAX_SIZE - 10, 10, 'h');
	inode_put(ip);
	ip = make(dir, "unwritten", S_IFREG | 0644, NULL);
	must(file_fallocate(ip, FALLOC_FL_KEEP_SIZE, 0, 40 << 12, 0));
	fill(ip, 7 << 12, 3 << 12, 'u');
	inode_put(ip);
	ip = make(dir, "pieces", S_IFREG | 0644, NULL);
	for (unsigned int i = 0; i < 40; i++)
		fill(ip, (uint64_t)i * 3 << 12, 4096, 'o');
	inode_put(ip);
}

static void make_special(struct inode *dir)
{
	char target[1000];

	memset(target, 't', sizeof(target) - 1);
	target[sizeof(target) - 1] = '\0';
	inode_put(make(dir, "short", S_IFLNK, "small"));
	inode_put(make(dir, "long", S_IFLNK, target));
	inode_put(make(dir, "fifo", S_IFIFO | 0600, NULL));
	inode_put(make(dir, "socket", S_IFSOCK | 0600, NULL));
	inode_put(make(dir, "device", S_IFCHR | 0600, NULL));
}

static void make_xattrs(struct inode *dir)
{
	struct inode *ip = make(dir, "attributes", S_IFREG | 0644, NULL);
	char *value = calloc(1, 20000);

	if (!value)
		abort();
	memset(value, 'v', 20000);
	must(xattr_set(ip, "user.small", "value", 5, 0, false));
	must(xattr_set(ip, "user.large", value, 20000, 0, false));
	must(xattr_set(ip, "user.empty", "", 0, 0, false));
	inode_put(ip);
	must(xattr_set(dir, "user.one", "block", 5, 0, false));
	free(value);
}

static void make_names(struct inode *dir, unsigned int nr)
{
	char name[FOLIOFS_NAME_MAX + 1];

	for (unsigned int i = 0; i < nr; i++) {
		snprintf(name, sizeof(name), "%0*u", 1 + (int)(i * 7 % 250), i);
		inode_put(make(dir, name, S_IFREG | 0600, NULL));
	}
	for (unsigned int i = 0; i < nr; i += 3) {
		snprintf(name, sizeof(name), "%0*u", 1 + (int)(i * 7 % 250), i);
		must(fs_unlink(dir, name));
	}
}

/* Changes that a crash leaves in the lanes, and an orphan. */
static void last_changes(struct foliofs *fs, struct inode *root)
{
	struct inode *ip, *orphan;

	must(fs_tmpfile(root, &nobody, S_IFREG | 0600, &orphan));
	fill(orphan, 0, 9000, 'x');
	ip = make(root, "last", S_IFREG | 0644, NULL);
	fill(ip, 0, 9000, 'l');
	must(fs_rename(root, "last", root, "renamed", 0));
	inode_put(ip);
	(void)fs;
}

void populate(const char *path, uint64_t size, bool crash)
{
	struct foliofs_mkfs mk = { .device = path, .size = size, .label = "f" };
	struct foliofs_options opt = { .device = path, .walk_threads = 1 };
	struct errmsg err = { "" };
	struct inode *root, *dir, *sub;
	struct foliofs *fs;

	if (foliofs_mkfs(&mk, &err) || foliofs_open(&opt, &fs, &err)) {
		fprintf(stderr, "populate: %s\n", err.text);
		abort();
	}
	must(inode_get(fs, FOLIOFS_ROOT_INO, &root));
	make_files(root);
	dir = make(root, "dir", S_IFDIR | 0755, NULL);
	make_special(dir);
	make_xattrs(dir);
	sub = make(dir, "sub", S_IFDIR | 0755, NULL);
	make_names(sub, 120);
	inode_put(make(sub, "leaf", S_IFDIR | 0755, NULL));
	inode_put(sub);
	inode_put(dir);
	if (crash)
		last_changes(fs, root);
	if (crash) {
		foliofs_abandon(fs);
		return;
	}
	inode_put(root);
	foliofs_close(fs);
}
