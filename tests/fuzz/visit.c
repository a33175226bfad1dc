/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/visit.c - do with a mounted filesystem what programs do
 *
 * Nothing here believes the filesystem: loops are bounded by numbers of our
 * own, and a directory is gone into once.
 */
#include "tests/fuzz/visit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"

#define MAX_NAMES 2000
#define MAX_DIRS  200
#define MAX_RUNS  100

struct names {
	char (*name)[FOLIOFS_NAME_MAX + 1];
	unsigned int nr;
};

struct visit {
	struct foliofs *fs;
	bool change;
	unsigned int nr_damaged;
	unsigned int nr_dirs;
	uint64_t dir[MAX_DIRS];
	volatile unsigned char sum; /* so that bytes are really read */
};

static void note(struct visit *v, int ret)
{
	if (ret == -EUCLEAN || ret == -ESTALE || ret == -EIO)
		v->nr_damaged++;
}

/* Files. */

static void read_at(struct visit *v, struct inode *ip, uint64_t pos,
		    uint64_t len)
{
	struct iovec iov[16];
	struct fs_iov fv = { .iov = iov, .max = 16 };
	uint64_t got;
	int ret;

	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	ret = file_read(ip, pos, len, &fv, &got);
	for (int i = 0; !ret && i < fv.nr; i++) {
		const unsigned char *p = (const unsigned char *)iov[i].iov_base;

		for (size_t n = 0; n < iov[i].iov_len; n += 61)
			v->sum ^= p[n];
		v->sum ^= p[iov[i].iov_len - 1];
	}
	rwsem_up_read(&ip->rwsem);
	note(v, ret);
}

static void read_file(struct visit *v, struct inode *ip)
{
	uint64_t pos = 0;
	int ret = 0;

	for (int i = 0; i < MAX_RUNS && ret == 0; i++) {
		ret = file_seek(ip, pos, true, &pos);
		if (ret)
			break;
		read_at(v, ip, pos, 300000);
		ret = file_seek(ip, pos, false, &pos);
	}
	if (ret != -ENXIO)
		note(v, ret);
	read_at(v, ip, inode_size(ip) - 1, 100);
}

static void read_xattrs(struct visit *v, struct inode *ip)
{
	static char list[65536], value[65536];
	int len = xattr_list(ip, list, sizeof(list), true), ret;

	note(v, len);
	for (int at = 0; at < len; at += (int)strlen(list + at) + 1) {
		ret = xattr_get(ip, list + at, value, sizeof(value));
		if (ret != -ERANGE)
			note(v, ret);
	}
}

static void change_file(struct visit *v, struct inode *ip)
{
	static const char buf[9000] = "changed";
	struct fs_setattr attr = { .valid = FATTR_SIZE };

	note(v, file_write(ip, buf, inode_size(ip) / 2, sizeof(buf), 0));
	note(v, file_fallocate(ip, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       4096, 20000, 0));
	note(v, xattr_set(ip, "user.visit", buf, 100, 0, false));
	attr.size = inode_size(ip) / 3;
	note(v, fs_setattr(ip, &attr));
	attr.size = attr.size * 2 + 5000;
	note(v, fs_setattr(ip, &attr));
}

static void visit_other(struct visit *v, struct inode *ip)
{
	struct stat st;

	inode_stat(ip, &st);
	read_xattrs(v, ip);
	if (S_ISREG(st.st_mode)) {
		read_file(v, ip);
		if (v->change)
			change_file(v, ip);
	} else if (S_ISLNK(st.st_mode)) {
		char target[BLOCK_SIZE];

		note(v, fs_readlink(ip, target));
	}
}

/* Directories. */

static int note_name(void *ctx, const struct dir_entry *de)
{
	struct names *n = (struct names *)ctx;

	if (n->nr == MAX_NAMES)
		return 1;
	memcpy(n->name[n->nr], de->name, de->name_len);
	n->name[n->nr++][de->name_len] = '\0';
	return 0;
}

static void change_dir(struct visit *v, struct inode *dir)
{
	const struct cred cred = { .umask = 022 };
	const struct new_inode file = { .mode = S_IFREG | 0600 };
	const struct new_inode sub = { .mode = S_IFDIR | 0700 };
	struct inode *ip;
	int ret;

	ret = fs_create(dir, "visit", &cred, &file, &ip);
	note(v, ret);
	if (!ret) {
		note(v, file_write(ip, "visit", 10000, 5, 0));
		inode_put(ip);
		note(v, fs_rename(dir, "visit", dir, "visited", 0));
		note(v, fs_unlink(dir, "visited"));
	}
	ret = fs_create(dir, "visit.d", &cred, &sub, &ip);
	note(v, ret);
	if (!ret) {
		inode_put(ip);
		note(v, fs_rmdir(dir, "visit.d"));
	}
}

static bool seen(struct visit *v, uint64_t ino)
{
	for (unsigned int i = 0; i < v->nr_dirs; i++)
		if (v->dir[i] == ino)
			return true;
	return false;
}

static void visit_dir(struct visit *v, struct inode *dir);

static void visit_name(struct visit *v, struct inode *dir, const char *name)
{
	struct inode *ip;
	int ret = fs_lookup(dir, name, &ip);

	note(v, ret);
	if (ret)
		return;
	if (S_ISDIR(inode_mode(ip)))
		visit_dir(v, ip);
	else
		visit_other(v, ip);
	/* Some of what was there goes. */
	if (v->change && strlen(name) % 7 == 3 && !S_ISDIR(inode_mode(ip)))
		note(v, fs_unlink(dir, name));
	inode_put(ip);
}

static void visit_dir(struct visit *v, struct inode *dir)
{
	struct names n = { .nr = 0 };
	struct stat st;
	int ret;

	if (v->nr_dirs == MAX_DIRS || seen(v, dir->ino))
		return;
	v->dir[v->nr_dirs++] = dir->ino;
	inode_stat(dir, &st);
	read_xattrs(v, dir);
	n.name = calloc(MAX_NAMES, sizeof(*n.name));
	if (!n.name)
		abort();
	rwsem_down_read(&dir->rwsem, LOCK_INODE_PARENT);
	ret = dir_iterate(dir, 2, note_name, &n);
	rwsem_up_read(&dir->rwsem);
	note(v, ret);
	for (unsigned int i = 0; i < n.nr; i++)
		visit_name(v, dir, n.name[i]);
	free(n.name);
	if (v->change)
		change_dir(v, dir);
}

unsigned int visit(struct foliofs *fs, bool change)
{
	struct visit v = { .fs = fs, .change = change };
	struct inode *root;
	int ret = inode_get(fs, FOLIOFS_ROOT_INO, &root);

	note(&v, ret);
	if (ret)
		return v.nr_damaged;
	visit_dir(&v, root);
	inode_put(root);
	return v.nr_damaged;
}
