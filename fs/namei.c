/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/namei.c - names: lookup, create, unlink, link, rename
 *
 * Each operation is one transaction.  Locks: directories first (parents
 * before children; two unrelated ones by number, with rename_lock held so
 * that the topology stands still), then the inodes that the names lead to.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dax/session.h"
#include "fs/layout.h"

#define LINK_MAX_FILE 65000u
#define LINK_MAX_DIR  (UINT32_MAX - 1)

/* A new file or directory takes these over from its directory. */
#define FLAGS_INHERITED                                            \
	(FOLIOFS_FL_DAX | FOLIOFS_FL_NODUMP | FOLIOFS_FL_NOATIME | \
	 FOLIOFS_FL_SYNC)

static int set_name(struct dir_name *n, const char *name)
{
	size_t len = strlen(name);

	if (len > FOLIOFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0)
		return -ENOENT;
	*n = (struct dir_name){ name, (unsigned int)len };
	return 0;
}

static uint8_t dtype(uint32_t mode)
{
	return (uint8_t)((mode & S_IFMT) >> 12);
}

/* May entries come (and, with @remove, go)? */
static int may_change_dir(const struct inode *dir, bool remove)
{
	uint32_t flags = inode_flags(dir);

	if (!S_ISDIR(inode_mode(dir)))
		return -ENOTDIR;
	if (inode_nlink(dir) == 0)
		return -ENOENT;
	if (flags & FOLIOFS_FL_IMMUTABLE)
		return -EPERM;
	if (remove && (flags & FOLIOFS_FL_APPEND))
		return -EPERM;
	return 0;
}

static int may_unlink(const struct inode *ip)
{
	return inode_flags(ip) & (FOLIOFS_FL_IMMUTABLE | FOLIOFS_FL_APPEND)
		       ? -EPERM
		       : 0;
}

int fs_lookup(struct inode *dir, const char *name, struct inode **ret_ip)
{
	struct dir_found found;
	struct dir_name n;
	int ret;

	ret = set_name(&n, name);
	if (ret)
		return ret;
	rwsem_down_read(&dir->rwsem, LOCK_INODE_PARENT);
	if (!S_ISDIR(inode_mode(dir)))
		ret = -ENOTDIR;
	else
		ret = dir_lookup(dir, &n, &found);
	if (!ret)
		ret = inode_get(dir->fs, found.ino, ret_ip);
	rwsem_up_read(&dir->rwsem);
	if (ret == -ESTALE)
		ret = fs_damaged(dir->fs,
				 "directory %ju: entry at %ju leads to free "
				 "inode %ju",
				 (uintmax_t)dir->ino, (uintmax_t)found.pos,
				 (uintmax_t)found.ino);
	return ret;
}

/* Making inodes. */

struct making {
	struct foliofs *fs;
	uint64_t ino, off;
	struct foliofs_inode di;
	uint32_t mode, nlink;
	struct acl_new acl;
	struct inode *ip; /* made ready before the commit, which is final */
};

static int build_acls(struct txn *t, struct making *m)
{
	struct xattr_init init[2];
	unsigned int nr = 0;
	uint64_t root;
	int ret;

	if (m->acl.access)
		init[nr++] = (struct xattr_init){ ACL_ACCESS, m->acl.access,
						  m->acl.access_len };
	if (m->acl.dflt)
		init[nr++] = (struct xattr_init){ ACL_DEFAULT, m->acl.dflt,
						  m->acl.dflt_len };
	if (nr == 0)
		return 0;
	ret = xattr_build(t, init, nr, &root);
	if (!ret)
		m->di.xattr = cpu_to_le64(root);
	return ret;
}

static int build_symlink(struct txn *t, struct making *m, const char *target)
{
	unsigned char buf[BLOCK_SIZE] = { 0 };
	size_t len = strlen(target);
	struct extent ext;
	int ret;

	if (len >= BLOCK_SIZE)
		return -ENAMETOOLONG;
	m->di.size = cpu_to_le64(len);
	if (len <= FOLIOFS_INLINE_SYMLINK) {
		memcpy(m->di.symlink, target, len);
		return 0;
	}
	ret = txn_take(t, 0, 1, BLOCK_DATA, &ext);
	if (ret)
		return ret;
	memcpy(buf, target, len);
	pmem_write(m->fs->pm, ext.start << BLOCK_SHIFT, buf, sizeof(buf));
	m->di.data = cpu_to_le64(slot_make(SLOT_DATA, 0, ext.start));
	return 0;
}

static void set_times(const struct foliofs *fs, struct foliofs_inode *di)
{
	le64 now = cpu_to_le64((uint64_t)time_coarse(fs));

	di->atime = now;
	di->mtime = now;
	di->ctime = now;
	di->btime = now;
}

/* All of the new inode except the word that makes it one. */
static int make_inode(struct txn *t, struct inode *dir, const struct cred *cred,
		      const struct new_inode *want, struct making *m)
{
	struct foliofs *fs = dir->fs;
	uint64_t owner = inode_word(dir, INODE_OWNER);
	bool sgid = inode_mode(dir) & S_ISGID, is_dir = S_ISDIR(want->mode);
	uint64_t gen;
	int ret;

	ret = itable_take(fs, &m->ino, &m->off);
	if (ret)
		return ret;
	if (!S_ISLNK(want->mode)) {
		ret = acl_create(dir, want->mode, cred->umask, &m->acl);
		if (ret)
			goto free;
		m->mode = m->acl.mode;
	} else {
		m->mode = S_IFLNK | 0777;
	}
	if (is_dir && sgid)
		m->mode |= S_ISGID;

	gen = pmem_load64(fs->pm, m->off + INODE_GENFLAGS);
	m->di.generation = cpu_to_le32((uint32_t)gen + 1);
	m->di.uid = cpu_to_le32(cred->uid);
	m->di.gid = cpu_to_le32(sgid ? (uint32_t)(owner >> 32) : cred->gid);
	m->di.rdev = cpu_to_le32((uint32_t)want->rdev);
	m->di.projid =
		cpu_to_le32((uint32_t)(inode_word(dir, INODE_RDEV) >> 32));
	if (is_dir || S_ISREG(want->mode))
		m->di.flags = cpu_to_le32(inode_flags(dir) & FLAGS_INHERITED);
	if (is_dir)
		m->di.parent = cpu_to_le64(dir->ino);
	set_times(fs, &m->di);

	ret = build_acls(t, m);
	if (!ret && S_ISLNK(want->mode))
		ret = build_symlink(t, m, want->symlink);
	if (ret)
		goto free;
	/* The first word is 0 and stays so: somebody may be looking at it. */
	pmem_write(fs->pm, m->off + sizeof(uint64_t),
		   (const unsigned char *)&m->di + sizeof(uint64_t),
		   sizeof(m->di) - sizeof(uint64_t));
	txn_direct(t);
	txn_set64(t, m->off + INODE_MODE, word_pair(m->mode, m->nlink));
	return 0;
free:
	itable_free(fs, m->ino);
	return ret;
}

/* Commit, and bring the new inode in.  Ends the transaction either way. */
static int commit_inode(struct txn *t, struct making *m, struct inode **ret_ip)
{
	int64_t pages = slot_type(le64_to_cpu(m->di.data)) != SLOT_HOLE;
	int ret;

	m->ip = inode_alloc(m->fs);
	if (m->ip) {
		ret = txn_commit(t);
	} else {
		ret = -ENOMEM;
		txn_abort(t);
	}
	if (ret) {
		itable_free(m->fs, m->ino);
		inode_free(m->ip);
		return ret;
	}
	*ret_ip = inode_insert(m->ip, m->ino, m->off, pages);
	return 0;
}

int fs_create(struct inode *dir, const char *name, const struct cred *cred,
	      const struct new_inode *want, struct inode **ret_ip)
{
	bool is_dir = S_ISDIR(want->mode);
	struct making m = { .fs = dir->fs, .nlink = is_dir ? 2 : 1 };
	struct dir_found found;
	struct dir_slot slot;
	struct dir_name n;
	struct txn t;
	int ret;

	ret = set_name(&n, name);
	if (ret)
		return ret;
	rwsem_down_write(&dir->rwsem, LOCK_INODE_PARENT);
	ret = may_change_dir(dir, false);
	if (!ret)
		ret = dir_lookup(dir, &n, &found);
	if (ret == 0)
		ret = -EEXIST;
	if (ret != -ENOENT || inode_nlink(dir) == 0)
		goto unlock;
	if (is_dir && inode_nlink(dir) >= LINK_MAX_DIR) {
		ret = -EMLINK;
		goto unlock;
	}

	txn_begin(dir->fs, &t);
	ret = make_inode(&t, dir, cred, want, &m);
	if (ret)
		goto abort;
	ret = dir_insert(&t, dir, &n, m.ino, dtype(m.mode), &slot);
	if (ret)
		goto free_ino;
	if (is_dir)
		inode_set_nlink(&t, dir, inode_nlink(dir) + 1);
	inode_touch(&t, dir, true);
	ret = commit_inode(&t, &m, ret_ip);
	if (!ret)
		dir_inserted(dir, &n, &slot);
	goto unlock;

free_ino:
	itable_free(dir->fs, m.ino);
abort:
	txn_abort(&t);
unlock:
	rwsem_up_write(&dir->rwsem);
	acl_new_free(&m.acl);
	return ret;
}

int fs_tmpfile(struct inode *dir, const struct cred *cred, uint32_t mode,
	       struct inode **ret_ip)
{
	struct making m = { .fs = dir->fs, .nlink = 0 };
	struct new_inode want = { .mode = mode };
	struct txn t;
	int ret;

	rwsem_down_read(&dir->rwsem, LOCK_INODE_PARENT);
	ret = may_change_dir(dir, false);
	if (ret)
		goto unlock;
	txn_begin(dir->fs, &t);
	ret = make_inode(&t, dir, cred, &want, &m);
	if (ret) {
		txn_abort(&t);
		goto unlock;
	}
	ret = commit_inode(&t, &m, ret_ip);
unlock:
	rwsem_up_read(&dir->rwsem);
	acl_new_free(&m.acl);
	return ret;
}

/* Removing. */

static int lookup_child(struct inode *dir, const struct dir_name *n,
			struct dir_found *found, struct inode **ret_ip)
{
	int ret = dir_lookup(dir, n, found);

	if (!ret)
		ret = inode_get(dir->fs, found->ino, ret_ip);
	if (ret == -ESTALE)
		ret = fs_damaged(dir->fs,
				 "directory %ju: entry at %ju leads to free "
				 "inode %ju",
				 (uintmax_t)dir->ino, (uintmax_t)found->pos,
				 (uintmax_t)found->ino);
	return ret;
}

static int may_remove(struct inode *ip, bool want_dir)
{
	bool is_dir = S_ISDIR(inode_mode(ip));
	int ret;

	if (is_dir != want_dir)
		return is_dir ? -EISDIR : -ENOTDIR;
	ret = may_unlink(ip);
	if (ret || !is_dir)
		return ret;
	ret = dir_is_empty(ip);
	if (ret < 0)
		return ret;
	return ret ? 0 : -ENOTEMPTY;
}

static int remove_name(struct inode *dir, const char *name, bool want_dir)
{
	struct inode *ip = NULL;
	struct dir_found found;
	struct dir_name n;
	struct txn t;
	int ret;

	ret = set_name(&n, name);
	if (ret)
		return ret;
	rwsem_down_write(&dir->rwsem, LOCK_INODE_PARENT);
	ret = may_change_dir(dir, true);
	if (!ret)
		ret = lookup_child(dir, &n, &found, &ip);
	if (ret)
		goto unlock_dir;

	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	ret = may_remove(ip, want_dir);
	if (ret)
		goto unlock;
	txn_begin(dir->fs, &t);
	t.alloc_flags = ALLOC_EMERGENCY;
	dir_remove(&t, &found);
	if (want_dir)
		inode_set_nlink(&t, dir, inode_nlink(dir) - 1);
	inode_touch(&t, dir, true);
	inode_set_nlink(&t, ip, want_dir ? 0 : inode_nlink(ip) - 1);
	inode_touch(&t, ip, false);
	ret = txn_commit(&t);
	if (!ret)
		dir_removed(dir, &n, &found);
	if (!ret && inode_nlink(ip) == 0)
		space_unlinked(dir->fs);
unlock:
	rwsem_up_write(&ip->rwsem);
unlock_dir:
	rwsem_up_write(&dir->rwsem);
	if (ip)
		inode_put(ip);
	return ret;
}

/*
 * Is this the last name of a file that nobody has open or mapped?  It is going
 * to leave media with the name, and cannot while it is pinned.
 */
static bool leaves_with_name(const struct inode *ip)
{
	struct inode_dax *d = inode_dax(ip);

	return d && S_ISREG(inode_mode(ip)) && inode_nlink(ip) == 1 &&
	       !may_unlink(ip) && atomic_load(&ip->nr_open) == 0 &&
	       !session_in_use(&d->mapping);
}

/*
 * Before the locks are taken, as this may sleep for long; so what the name
 * leads to is looked at again afterwards.  Errors are for whoever goes on to
 * find, except that the wait was interrupted.
 */
static int wait_for_pins(struct inode *dir, const char *name, const char *op)
{
	uint64_t waited = 0;
	struct inode *ip;
	int ret = 0;

	while (!ret && !fs_lookup(dir, name, &ip)) {
		bool done = ip->ino == waited || !leaves_with_name(ip);

		waited = ip->ino;
		if (!done)
			ret = layout_wait_idle(ip, op);
		inode_put(ip);
		if (done)
			break;
	}
	return ret;
}

int fs_unlink(struct inode *dir, const char *name)
{
	int ret = wait_for_pins(dir, name, "unlink");

	return ret ? ret : remove_name(dir, name, false);
}

int fs_rmdir(struct inode *dir, const char *name)
{
	return remove_name(dir, name, true);
}

int fs_link(struct inode *ip, struct inode *dir, const char *name)
{
	struct dir_found found;
	struct dir_slot slot;
	struct dir_name n;
	struct txn t;
	int ret;

	ret = set_name(&n, name);
	if (ret)
		return ret;
	if (S_ISDIR(inode_mode(ip)))
		return -EPERM;
	rwsem_down_write(&dir->rwsem, LOCK_INODE_PARENT);
	ret = may_change_dir(dir, false);
	if (!ret)
		ret = dir_lookup(dir, &n, &found);
	if (ret == 0)
		ret = -EEXIST;
	if (ret != -ENOENT || inode_nlink(dir) == 0)
		goto unlock_dir;

	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	ret = may_unlink(ip);
	if (!ret && inode_nlink(ip) >= LINK_MAX_FILE)
		ret = -EMLINK;
	if (ret)
		goto unlock;
	txn_begin(dir->fs, &t);
	ret = dir_insert(&t, dir, &n, ip->ino, dtype(inode_mode(ip)), &slot);
	if (ret) {
		txn_abort(&t);
		goto unlock;
	}
	inode_set_nlink(&t, ip, inode_nlink(ip) + 1);
	inode_touch(&t, ip, false);
	inode_touch(&t, dir, true);
	ret = txn_commit(&t);
	if (!ret)
		dir_inserted(dir, &n, &slot);
unlock:
	rwsem_up_write(&ip->rwsem);
unlock_dir:
	rwsem_up_write(&dir->rwsem);
	return ret;
}

/* Renaming. */

struct renaming {
	struct inode *dir, *newdir; /* may be the same */
	struct dir_name name, newname;
	unsigned int flags;
	struct inode *moved, *victim; /* victim: NULL when the name is new */
	struct dir_found from, to;
	struct dir_slot slot;
	bool exchange;
};

/*
 * Is @a above @d, or @d itself?  rename_lock is held.  -ENOENT when @d was
 * removed, as those above it may be gone then.
 */
static int is_ancestor(const struct inode *a, struct inode *d)
{
	struct foliofs *fs = d->fs;
	uint64_t ino = d->ino, left = itable_nr_used(fs);
	struct inode *ip;
	int ret;

	while (ino != FOLIOFS_ROOT_INO && left-- > 0) {
		if (ino == a->ino)
			return 1;
		ret = inode_get(fs, ino, &ip);
		if (ret == -ESTALE && inode_nlink(d) == 0)
			ret = -ENOENT;
		if (ret)
			return ret;
		ino = inode_word(ip, INODE_PARENT);
		inode_put(ip);
	}
	return a->ino == ino;
}

static int lock_dirs(struct renaming *r) __no_lock_analysis
{
	struct inode *first = r->dir, *second = r->newdir;
	int above;

	if (first == second) {
		rwsem_down_write(&first->rwsem, LOCK_INODE_PARENT);
		return 0;
	}
	mutex_lock(&first->fs->rename_lock);
	above = is_ancestor(r->newdir, r->dir);
	if (above == 0) {
		above = is_ancestor(r->dir, r->newdir);
		if (above == 0 && r->newdir->ino < r->dir->ino) {
			first = r->newdir;
			second = r->dir;
		}
	} else {
		first = r->newdir;
		second = r->dir;
	}
	if (above < 0) {
		mutex_unlock(&first->fs->rename_lock);
		return above;
	}
	rwsem_down_write(&first->rwsem, LOCK_INODE_PARENT);
	rwsem_down_write(&second->rwsem, LOCK_INODE_PARENT2);
	return 0;
}

static void unlock_dirs(struct renaming *r) __no_lock_analysis
{
	rwsem_up_write(&r->dir->rwsem);
	if (r->dir == r->newdir)
		return;
	rwsem_up_write(&r->newdir->rwsem);
	mutex_unlock(&r->dir->fs->rename_lock);
}

static void lock_children(struct renaming *r) __no_lock_analysis
{
	struct inode *a = r->moved, *b = r->victim;

	if (b && b->ino < a->ino) {
		a = r->victim;
		b = r->moved;
	}
	rwsem_down_write(&a->rwsem, LOCK_INODE);
	if (b)
		rwsem_down_write(&b->rwsem, LOCK_INODE2);
}

static void unlock_children(struct renaming *r) __no_lock_analysis
{
	rwsem_up_write(&r->moved->rwsem);
	if (r->victim)
		rwsem_up_write(&r->victim->rwsem);
}

static int find_children(struct renaming *r)
{
	int ret;

	ret = may_change_dir(r->dir, true);
	if (!ret)
		ret = may_change_dir(r->newdir, r->exchange);
	if (!ret)
		ret = lookup_child(r->dir, &r->name, &r->from, &r->moved);
	if (ret)
		return ret;
	ret = lookup_child(r->newdir, &r->newname, &r->to, &r->victim);
	if (ret == -ENOENT)
		return r->exchange ? ret : 0;
	if (ret)
		return ret;
	return r->flags & RENAME_NOREPLACE ? -EEXIST : 0;
}

/* Before the children are locked: they must not be the directories. */
static int check_topology(struct renaming *r)
{
	int ret;

	if (r->victim == r->dir || r->victim == r->newdir)
		return r->exchange ? -EINVAL : -ENOTEMPTY;
	if (r->dir == r->newdir)
		return r->moved == r->dir ? -EINVAL : 0;
	if (S_ISDIR(inode_mode(r->moved))) {
		ret = is_ancestor(r->moved, r->newdir);
		if (ret)
			return ret < 0 ? ret : -EINVAL;
	}
	if (r->victim && S_ISDIR(inode_mode(r->victim))) {
		ret = is_ancestor(r->victim, r->dir);
		if (ret)
			return ret < 0	     ? ret
			       : r->exchange ? -EINVAL
					     : -ENOTEMPTY;
	}
	return 0;
}

static int check_children(struct renaming *r)
{
	bool moved_dir = S_ISDIR(inode_mode(r->moved));
	int ret = may_unlink(r->moved);

	if (ret)
		return ret;
	if (!r->victim)
		return 0;
	if (r->exchange)
		return may_unlink(r->victim);
	if (inode_flags(r->newdir) & FOLIOFS_FL_APPEND)
		return -EPERM;
	return may_remove(r->victim, moved_dir);
}

static void set_parent(struct txn *t, const struct inode *ip,
		       const struct inode *dir)
{
	inode_set(t, ip, INODE_PARENT, dir->ino);
}

static void add_links(struct txn *t, const struct inode *ip, int nr)
{
	uint32_t nlink = (uint32_t)(txn_get64(t, ip->off + INODE_MODE) >> 32);

	inode_set_nlink(t, ip, nlink + (uint32_t)nr);
}

static int put_words(struct txn *t, struct renaming *r)
{
	bool moved_dir = S_ISDIR(inode_mode(r->moved));
	bool victim_dir = r->victim && S_ISDIR(inode_mode(r->victim));
	bool apart = r->dir != r->newdir;
	uint8_t type = dtype(inode_mode(r->moved));
	int ret;

	if (r->victim) {
		dir_replace(t, &r->to, r->moved->ino, type);
	} else {
		ret = dir_insert(t, r->newdir, &r->newname, r->moved->ino, type,
				 &r->slot);
		if (ret)
			return ret;
	}
	if (r->exchange)
		dir_replace(t, &r->from, r->victim->ino,
			    dtype(inode_mode(r->victim)));
	else
		dir_remove(t, &r->from);

	if (moved_dir && apart) {
		set_parent(t, r->moved, r->newdir);
		add_links(t, r->dir, -1);
		add_links(t, r->newdir, 1);
	}
	if (r->exchange && victim_dir && apart) {
		set_parent(t, r->victim, r->dir);
		add_links(t, r->newdir, -1);
		add_links(t, r->dir, 1);
	}
	if (r->victim && !r->exchange) {
		if (victim_dir) {
			inode_set_nlink(t, r->victim, 0);
			add_links(t, r->newdir, -1);
		} else {
			add_links(t, r->victim, -1);
		}
	}
	inode_touch(t, r->dir, true);
	inode_touch(t, r->newdir, true);
	inode_touch(t, r->moved, false);
	if (r->victim)
		inode_touch(t, r->victim, false);
	return 0;
}

static int rename_locked(struct renaming *r)
{
	struct txn t;
	int ret;

	txn_begin(r->dir->fs, &t);
	t.alloc_flags = ALLOC_EMERGENCY;
	ret = put_words(&t, r);
	if (ret) {
		txn_abort(&t);
		return ret;
	}
	ret = txn_commit(&t);
	if (ret)
		return ret;
	if (!r->victim)
		dir_inserted(r->newdir, &r->newname, &r->slot);
	if (!r->exchange)
		dir_removed(r->dir, &r->name, &r->from);
	if (r->victim && inode_nlink(r->victim) == 0)
		space_unlinked(r->dir->fs);
	return 0;
}

int fs_rename(struct inode *dir, const char *name, struct inode *newdir,
	      const char *newname, unsigned int flags)
{
	struct renaming r = { .dir = dir, .newdir = newdir, .flags = flags };
	int ret;

	if (flags & ~(unsigned int)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	r.exchange = flags & RENAME_EXCHANGE;
	ret = set_name(&r.name, name);
	if (!ret)
		ret = set_name(&r.newname, newname);
	if (!ret && !flags)
		ret = wait_for_pins(newdir, newname, "rename");
	if (!ret)
		ret = lock_dirs(&r);
	if (ret)
		return ret;
	ret = find_children(&r);
	if (!ret && r.moved == r.victim)
		goto unlock; /* two names of one inode: nothing to do */
	if (!ret)
		ret = check_topology(&r);
	if (ret)
		goto unlock;
	lock_children(&r);
	ret = check_children(&r);
	if (!ret)
		ret = rename_locked(&r);
	unlock_children(&r);
unlock:
	unlock_dirs(&r);
	if (r.moved)
		inode_put(r.moved);
	if (r.victim)
		inode_put(r.victim);
	return ret;
}
