/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/attr.c - setattr: mode, owner, size, times; and the inode flags
 *
 * Permission was checked by the kernel (default_permissions); what it cannot
 * know is checked here: the immutable and append-only flags.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <unistd.h>

#include "fs/layout.h"

/* With the writeback cache the kernel keeps these times and brings them late.
 */
static bool brings_times(const struct inode *ip, uint32_t valid)
{
	return ip->fs->opt.cache == CACHE_WRITEBACK && (valid & FATTR_CTIME) &&
	       !(valid & ~(uint32_t)(FATTR_MTIME | FATTR_CTIME | FATTR_FH));
}

static int may_setattr(const struct inode *ip, const struct fs_setattr *a)
{
	uint32_t flags = inode_flags(ip), valid = a->valid;
	bool times = (valid & (FATTR_ATIME | FATTR_MTIME)) &&
		     !(valid & (FATTR_ATIME_NOW | FATTR_MTIME_NOW));

	if (brings_times(ip, valid))
		return 0;
	if (flags & FOLIOFS_FL_IMMUTABLE)
		return -EPERM;
	if ((flags & FOLIOFS_FL_APPEND) &&
	    ((valid & (FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE)) ||
	     times))
		return -EPERM;
	if (!(valid & FATTR_SIZE))
		return 0;
	if (S_ISDIR(inode_mode(ip)))
		return -EISDIR;
	return S_ISREG(inode_mode(ip)) ? 0 : -EINVAL;
}

/* What a write by somebody without CAP_FSETID leaves of the mode. */
static uint32_t without_suid(uint32_t mode)
{
	mode &= ~(uint32_t)S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~(uint32_t)S_ISGID;
	return mode;
}

static int set_owner(struct txn *t, struct inode *ip,
		     const struct fs_setattr *a) __must_hold(ip->rwsem)
{
	uint64_t owner = inode_word(ip, INODE_OWNER);
	uint32_t uid = (uint32_t)owner, gid = (uint32_t)(owner >> 32);
	uint32_t mode = inode_mode(ip);

	if (a->valid & FATTR_UID)
		uid = a->uid;
	if (a->valid & FATTR_GID)
		gid = a->gid;
	inode_set(t, ip, INODE_OWNER, word_pair(uid, gid));
	if (S_ISDIR(mode))
		return 0;
	if (without_suid(mode) != mode)
		inode_set_mode(t, ip, without_suid(mode));
	return xattr_kill_caps(t, ip);
}

static int set_size(struct txn *t, struct inode *ip, const struct fs_setattr *a,
		    int64_t *pages) __must_hold(ip->rwsem)
{
	uint32_t mode = inode_mode(ip);
	int ret;

	t->alloc_flags = ALLOC_EMERGENCY;
	ret = file_truncate_locked(t, ip, a->size, pages);
	if (ret)
		return ret;
	if ((a->valid & FATTR_KILL_SUIDGID) && without_suid(mode) != mode)
		inode_set_mode(t, ip, without_suid(mode));
	return xattr_kill_caps(t, ip);
}

static void set_times(struct txn *t, struct inode *ip,
		      const struct fs_setattr *a)
{
	uint64_t now = inode_now(ip);

	if (a->valid & FATTR_MTIME)
		layout_forget_stores(ip);
	if (a->valid & FATTR_ATIME)
		inode_set(t, ip, INODE_ATIME,
			  a->valid & FATTR_ATIME_NOW ? now
						     : (uint64_t)a->atime);
	if (a->valid & FATTR_MTIME)
		inode_set(t, ip, INODE_MTIME,
			  a->valid & FATTR_MTIME_NOW ? now
						     : (uint64_t)a->mtime);
	else if (a->valid & FATTR_SIZE)
		inode_set_time(t, ip, INODE_MTIME, now);
	inode_set_time(t, ip, INODE_CTIME,
		       a->valid & FATTR_CTIME ? (uint64_t)a->ctime : now);
}

static int put_words(struct txn *t, struct inode *ip,
		     const struct fs_setattr *a, int64_t *pages)
	__must_hold(ip->rwsem)
{
	uint32_t type = inode_mode(ip) & S_IFMT;
	int ret = 0;

	if (a->valid & FATTR_SIZE)
		ret = set_size(t, ip, a, pages);
	if (!ret && (a->valid & (FATTR_UID | FATTR_GID)))
		ret = set_owner(t, ip, a);
	if (!ret && (a->valid & FATTR_MODE)) {
		uint32_t mode = type | (a->mode & 07777);

		inode_set_mode(t, ip, mode);
		ret = acl_chmod(t, ip, mode);
	}
	if (!ret)
		set_times(t, ip, a);
	return ret;
}

int fs_setattr(struct inode *ip, const struct fs_setattr *a)
{
	int64_t pages = 0;
	struct txn t;
	int ret;

	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	ret = may_setattr(ip, a);
	if (!ret && (a->valid & FATTR_SIZE))
		ret = layout_begin_drop(ip, "truncate",
					(a->size + BLOCK_MASK) & ~BLOCK_MASK,
					UINT64_MAX);
	if (ret)
		goto unlock;
	txn_begin(ip->fs, &t);
	ret = put_words(&t, ip, a, &pages);
	if (ret)
		txn_abort(&t);
	else
		ret = txn_commit(&t);
	if (!ret && atomic_load(&ip->pages) >= 0)
		atomic_fetch_add(&ip->pages, pages);
	if (!ret && (a->valid & FATTR_SIZE)) {
		file_truncated(ip);
		layout_resized(ip);
	}
	if (a->valid & FATTR_SIZE)
		layout_end(ip);
unlock:
	rwsem_up_write(&ip->rwsem);
	return ret;
}

int fs_access(const struct inode *ip, const struct cred *cred, int mask)
{
	uint64_t owner = inode_word(ip, INODE_OWNER);
	uint32_t mode = inode_mode(ip);
	unsigned int have = mode & 7;

	if (cred->uid == 0) {
		have = R_OK | W_OK;
		if (S_ISDIR(mode) || (mode & 0111))
			have |= X_OK;
	} else if (cred->uid == (uint32_t)owner) {
		have = mode >> 6 & 7;
	} else if (cred->gid == (uint32_t)(owner >> 32)) {
		have = mode >> 3 & 7;
	}
	return (unsigned int)mask & ~have ? -EACCES : 0;
}

int fs_setflags(struct inode *ip, uint32_t flags, uint32_t projid)
{
	uint64_t word, rdev;
	struct txn t;
	int ret;

	if (flags & ~FOLIOFS_FL_ALL)
		return -EOPNOTSUPP;
	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	word = inode_word(ip, INODE_GENFLAGS);
	rdev = inode_word(ip, INODE_RDEV);
	txn_begin(ip->fs, &t);
	inode_set(&t, ip, INODE_GENFLAGS, word_pair((uint32_t)word, flags));
	inode_set(&t, ip, INODE_RDEV, word_pair((uint32_t)rdev, projid));
	inode_touch(&t, ip, false);
	ret = txn_commit(&t);
	rwsem_up_write(&ip->rwsem);
	return ret;
}
