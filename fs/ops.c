/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/ops.c - FUSE operations: decode, call, reply
 *
 * The only place where a negative errno changes its sign.  What libfuse 3.14
 * drops from a request is read from the request itself (request_current()).
 *
 * An inode that was replied to the kernel carries one reference more, until
 * FORGET.  Everything else that an operation holds it drops after its reply,
 * and touches nothing afterwards.
 */
#include "fs/ops.h"

#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/direct.h"
#include "fs/fsflags.h"
#include "fs/ioctl.h"
#include "fs/layout.h"

/* We are the only writer, and tell the kernel about every change: hours. */
#define TIMEOUT_S 86400.0

/* Extents of the largest read: 257 pages that are all apart, and some. */
#define READ_IOV 264

static struct foliofs *fs_of(fuse_req_t req)
{
	return (struct foliofs *)fuse_req_userdata(req);
}

static void count(struct foliofs *fs)
{
	const struct request *rq = request_current();

	if (!rq)
		return;
	layout_caller(rq->in->unique, (int32_t)rq->in->pid);
	if (rq->in->opcode < NR_REQUESTS)
		atomic_fetch_add_explicit(&fs->nr_requests[rq->in->opcode], 1,
					  memory_order_relaxed);
}

/* A machine check on the way makes any answer wrong. */
static int checked(int ret)
{
	return pmem_fault_end() ? -EIO : ret;
}

/* The inode of a request, or the error is replied and NULL. */
static struct inode *begin(fuse_req_t req, fuse_ino_t ino)
{
	struct foliofs *fs = fs_of(req);
	struct inode *ip;
	int ret;

	count(fs);
	pmem_fault_begin(); /* whatever was before was not this request */
	ret = inode_get(fs, ino, &ip);
	if (ret) {
		fuse_reply_err(req, -checked(ret));
		return NULL;
	}
	return ip;
}

static void end_err(fuse_req_t req, struct inode *ip, int ret)
{
	fuse_reply_err(req, -checked(ret));
	if (ip)
		inode_put(ip);
}

/* Programs that map a file change its times without the kernel. */
static double attr_timeout(const struct inode *ip)
{
	return direct_file(ip) ? 0 : TIMEOUT_S;
}

static void fill_entry(struct inode *ip, struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){
		.ino = ip->ino,
		.generation = (uint32_t)inode_word(ip, INODE_GENFLAGS),
		.attr_timeout = attr_timeout(ip),
		.entry_timeout = TIMEOUT_S,
	};
	inode_stat(ip, &e->attr);
}

/* Our reference becomes the kernel's, unless the kernel has gone on. */
static void reply_entry(fuse_req_t req, struct inode *ip)
{
	struct fuse_entry_param e;

	fill_entry(ip, &e);
	if (fuse_reply_entry(req, &e))
		inode_put(ip);
}

static struct cred cred_of(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct cred){ .uid = ctx->uid,
			      .gid = ctx->gid,
			      .umask = ctx->umask,
			      .pid = ctx->pid };
}

/* Connection. */

static void op_init(void *userdata, struct fuse_conn_info *ci)
{
	struct foliofs *fs = (struct foliofs *)userdata;
	unsigned int want = FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC |
			    FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK |
			    FUSE_CAP_IOCTL_DIR | FUSE_CAP_READDIRPLUS |
			    FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO |
			    FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_POSIX_ACL |
			    FUSE_CAP_CACHE_SYMLINKS |
			    FUSE_CAP_NO_OPENDIR_SUPPORT |
			    FUSE_CAP_EXPLICIT_INVAL_DATA;

	if (fs->opt.cache == CACHE_WRITEBACK)
		want |= FUSE_CAP_WRITEBACK_CACHE;
	/*
	 * Not splice (media is mapped already), not AUTO_INVAL_DATA (it drops
	 * the cache after our own writes), not the kernel's locks (they work
	 * without us).
	 */
	ci->want = ci->capable & want;
	ci->max_write = REQUEST_MAX_WRITE;
	ci->max_readahead = REQUEST_MAX_WRITE;
	ci->time_gran = 1;
	/* Many readers ahead at once keep a fast device no busier than few. */
	ci->max_background = 64;
	ci->congestion_threshold = 48;
}

static void op_destroy(void *userdata)
{
	(void)userdata;
}

/* Names. */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param none = { .entry_timeout = TIMEOUT_S };
	struct inode *dir = begin(req, parent), *ip = NULL;
	int ret;

	if (!dir)
		return;
	if (strcmp(name, ".") == 0) {
		inode_ref(dir, 1);
		ip = dir;
		ret = 0;
	} else if (strcmp(name, "..") == 0) {
		ret = inode_get(dir->fs, inode_word(dir, INODE_PARENT), &ip);
	} else {
		ret = fs_lookup(dir, name, &ip);
	}
	ret = checked(ret);
	if (!ret)
		reply_entry(req, ip);
	else if (ret == -ENOENT)
		fuse_reply_entry(req, &none);
	else
		fuse_reply_err(req, -ret);
	inode_put(dir);
}

static void create_entry(fuse_req_t req, fuse_ino_t parent, const char *name,
			 const struct new_inode *want)
{
	struct cred cred = cred_of(req);
	struct inode *dir = begin(req, parent), *ip;
	struct space_retry retry = { 0 };
	int ret;

	if (!dir)
		return;
	do
		ret = fs_create(dir, name, &cred, want, &ip);
	while (ret == -ENOSPC && space_retry(dir->fs, &retry));
	if (ret)
		fuse_reply_err(req, -ret);
	else
		reply_entry(req, ip);
	inode_put(dir);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name,
		     mode_t mode, dev_t rdev)
{
	create_entry(req, parent, name,
		     &(struct new_inode){ .mode = mode, .rdev = rdev });
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name,
		     mode_t mode)
{
	create_entry(req, parent, name,
		     &(struct new_inode){ .mode = S_IFDIR | mode });
}

static void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent,
		       const char *name)
{
	create_entry(
		req, parent, name,
		&(struct new_inode){ .mode = S_IFLNK | 0777, .symlink = link });
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *dir = begin(req, parent);

	if (dir)
		end_err(req, dir, fs_unlink(dir, name));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *dir = begin(req, parent);

	if (dir)
		end_err(req, dir, fs_rmdir(dir, name));
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		      fuse_ino_t newparent, const char *newname,
		      unsigned int flags)
{
	struct inode *dir = begin(req, parent), *newdir;
	int ret;

	if (!dir)
		return;
	ret = inode_get(dir->fs, newparent, &newdir);
	if (!ret) {
		ret = fs_rename(dir, name, newdir, newname, flags);
		inode_put(newdir);
	}
	end_err(req, dir, ret);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent,
		    const char *newname)
{
	struct inode *ip = begin(req, ino), *dir;
	int ret;

	if (!ip)
		return;
	ret = inode_get(ip->fs, newparent, &dir);
	if (!ret) {
		ret = fs_link(ip, dir, newname);
		inode_put(dir);
	}
	ret = checked(ret);
	if (ret)
		end_err(req, ip, ret);
	else
		reply_entry(req, ip);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct inode *ip = begin(req, ino);
	char target[BLOCK_SIZE];
	int ret;

	if (!ip)
		return;
	ret = fs_readlink(ip, target);
	ret = checked(ret);
	if (ret)
		fuse_reply_err(req, -ret);
	else
		fuse_reply_readlink(req, target);
	inode_put(ip);
}

/* Attributes. */

static void reply_attr(fuse_req_t req, struct inode *ip, int ret)
{
	struct stat st;

	if (!ret)
		inode_stat(ip, &st);
	ret = checked(ret);
	if (ret)
		fuse_reply_err(req, -ret);
	else
		fuse_reply_attr(req, &st, attr_timeout(ip));
	inode_put(ip);
}

static int64_t to_ns(uint64_t sec, uint32_t nsec)
{
	return time_clamp((int64_t)sec, nsec);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st,
		       int to_set, struct fuse_file_info *fi)
{
	const struct fuse_setattr_in *in =
		(const struct fuse_setattr_in *)request_arg(request_current());
	struct fs_setattr a = {
		.valid = in->valid,
		.mode = in->mode,
		.uid = in->uid,
		.gid = in->gid,
		.size = in->size,
		.atime = to_ns(in->atime, in->atimensec),
		.mtime = to_ns(in->mtime, in->mtimensec),
		.ctime = to_ns(in->ctime, in->ctimensec),
	};
	struct inode *ip = begin(req, ino);

	(void)st;
	(void)to_set;
	(void)fi;
	if (ip)
		reply_attr(req, ip, fs_setattr(ip, &a));
}

static void op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct inode *ip = begin(req, ino);
	struct cred cred = cred_of(req);

	if (ip)
		end_err(req, ip, fs_access(ip, &cred, mask));
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct foliofs *fs = fs_of(req);
	struct alloc_stat as;
	struct statvfs st = { .f_bsize = BLOCK_SIZE,
			      .f_frsize = BLOCK_SIZE,
			      .f_namemax = FOLIOFS_NAME_MAX };

	(void)ino;
	count(fs);
	evict_collected(fs);
	alloc_stat(fs->al, &as, false);
	st.f_blocks = as.nr_blocks;
	st.f_bfree = as.nr_free;
	st.f_bavail =
		as.nr_free > as.nr_reserve ? as.nr_free - as.nr_reserve : 0;
	/* Inodes come from the same blocks. */
	st.f_ffree = itable_nr_free(fs) + st.f_bavail * FOLIOFS_INODES_BLOCK;
	st.f_files = itable_nr_used(fs) + st.f_ffree;
	st.f_favail = st.f_ffree;
	fuse_reply_statfs(req, &st);
}

/* Contents. */

static bool direct(const struct inode *ip)
{
	return ip->fs->opt.cache == CACHE_NONE || direct_file(ip);
}

static void set_open(struct inode *ip, struct fuse_file_info *fi)
{
	fi->direct_io = direct(ip);
	fi->keep_cache = !fi->direct_io;
	fi->noflush = 1;
	fi->fh = open_mode(fi->flags);
	atomic_fetch_add(&ip->nr_open, 1);
}

static void closed(struct inode *ip)
{
	if (atomic_fetch_sub(&ip->nr_open, 1) == 1)
		file_close(ip);
}

static uint32_t kill_suidgid(uint32_t open_flags)
{
	return open_flags & FUSE_OPEN_KILL_SUIDGID ? FATTR_KILL_SUIDGID : 0;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct fuse_open_in *in =
		(const struct fuse_open_in *)request_arg(request_current());
	struct fs_setattr trunc = { .valid = FATTR_SIZE |
					     kill_suidgid(in->open_flags) };
	struct inode *ip = begin(req, ino);
	int ret;

	if (!ip)
		return;
	ret = fs_may_open(ip, fi->flags);
	if (!ret && (fi->flags & O_TRUNC))
		ret = fs_setattr(ip, &trunc);
	ret = checked(ret);
	if (ret) {
		fuse_reply_err(req, -ret);
	} else {
		set_open(ip, fi);
		if (fuse_reply_open(req, fi))
			closed(ip);
	}
	inode_put(ip);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name,
		      mode_t mode, struct fuse_file_info *fi)
{
	struct cred cred = cred_of(req);
	struct new_inode want = { .mode = S_IFREG | (mode & 07777) };
	struct inode *dir = begin(req, parent), *ip;
	struct space_retry retry = { 0 };
	struct fuse_entry_param e;
	int ret;

	if (!dir)
		return;
	do
		ret = fs_create(dir, name, &cred, &want, &ip);
	while (ret == -ENOSPC && space_retry(dir->fs, &retry));
	if (ret) {
		fuse_reply_err(req, -ret);
	} else {
		set_open(ip, fi);
		fill_entry(ip, &e);
		if (fuse_reply_create(req, &e, fi)) {
			closed(ip);
			inode_put(ip);
		}
	}
	inode_put(dir);
}

static void op_release(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct inode *ip = begin(req, ino);

	(void)fi;
	if (!ip)
		return;
	closed(ip);
	end_err(req, ip, 0);
}

/* Requests that say nothing of privileges: root is who has CAP_FSETID. */
static unsigned int caller_flags(fuse_req_t req)
{
	return fuse_req_ctx(req)->uid == 0 ? 0 : WRITE_KILL_SUIDGID;
}

/* All is durable when it is answered, except times of last access. */
static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
		     struct fuse_file_info *fi)
{
	struct inode *ip = begin(req, ino);
	int ret;

	(void)datasync;
	(void)fi;
	if (!ip)
		return;
	if (ip->fs->opt.dax == DAX_NEVER && !pmem_has_deep_flush(ip->fs->pm)) {
		/* Nothing to do, ever: the kernel will not ask again. */
		end_err(req, ip, -ENOSYS);
		return;
	}
	ret = layout_sync(ip);
	file_sync(ip);
	if (!ret)
		ret = pmem_deep_flush(ip->fs->pm);
	end_err(req, ip, ret);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
			struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	count(fs_of(req));
	fuse_reply_err(req, ENOSYS);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t pos,
			 off_t len, struct fuse_file_info *fi)
{
	struct inode *ip = begin(req, ino);

	struct space_retry retry = { 0 };
	int ret;

	(void)fi;
	if (!ip)
		return;
	do
		ret = file_fallocate(ip, mode, (uint64_t)pos, (uint64_t)len,
				     caller_flags(req));
	while (ret == -ENOSPC && space_retry(ip->fs, &retry));
	end_err(req, ip, ret);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t pos, int whence,
		     struct fuse_file_info *fi)
{
	struct inode *ip;
	uint64_t found;
	int ret;

	(void)fi;
	if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	ip = begin(req, ino);
	if (!ip)
		return;
	/*
	 * The kernel does not write back before it asks, so a hole may have
	 * data that has not come yet.  Not asked again, it says that all of a
	 * file is data.
	 */
	if (ip->fs->opt.cache == CACHE_WRITEBACK) {
		end_err(req, ip, -ENOSYS);
		return;
	}
	ret = file_seek(ip, (uint64_t)pos, whence == SEEK_DATA, &found);
	ret = checked(ret);
	if (ret)
		fuse_reply_err(req, -ret);
	else
		fuse_reply_lseek(req, (off_t)found);
	inode_put(ip);
}

static int copy_range(struct inode *in, uint64_t pos_in, uint64_t ino_out,
		      uint64_t pos_out, uint64_t len, unsigned int flags,
		      uint64_t *ret_copied)
{
	struct space_retry retry = { 0 };
	struct inode *out;
	int ret;

	ret = inode_get(in->fs, ino_out, &out);
	if (ret)
		return ret;
	do
		ret = file_copy(in, pos_in, out, pos_out, len, flags,
				ret_copied);
	while (ret == -ENOSPC && space_retry(in->fs, &retry));
	inode_put(out);
	return ret;
}

/* The reply has 32 bits for the length; a longer copy is asked for again. */
#define COPY_REPLY_MAX (UINT32_MAX & ~(uint32_t)BLOCK_MASK)

static void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t pos_in,
			       struct fuse_file_info *fi_in, fuse_ino_t ino_out,
			       off_t pos_out, struct fuse_file_info *fi_out,
			       size_t len, int flags)
{
	struct inode *in = begin(req, ino_in);
	uint64_t copied = 0;
	int ret;

	(void)fi_in;
	(void)fi_out;
	(void)flags;
	if (!in)
		return;
	if (len > COPY_REPLY_MAX)
		len = COPY_REPLY_MAX;
	ret = checked(copy_range(in, (uint64_t)pos_in, ino_out,
				 (uint64_t)pos_out, len, caller_flags(req),
				 &copied));
	if (ret)
		fuse_reply_err(req, -ret);
	else
		fuse_reply_write(req, copied);
	inode_put(in);
}

/* Directories. */

struct listing {
	fuse_req_t req;
	struct inode *dir;
	bool plus;
	char *buf;
	size_t size, used;
	struct vec given; /* inodes whose lookup count the reply raises */
	int ret;
};

static size_t add_plain(struct listing *l, const char *name,
			const struct dir_entry *de)
{
	struct stat st = { .st_ino = de->ino,
			   .st_mode = (mode_t)de->type << 12 };

	return fuse_add_direntry(l->req, l->buf + l->used, l->size - l->used,
				 name, &st, (off_t)de->next);
}

static size_t add_plus(struct listing *l, const char *name,
		       const struct dir_entry *de, struct inode **ret_ip)
{
	struct fuse_entry_param e = { .attr = {
					      .st_ino = de->ino,
					      .st_mode = (mode_t)de->type << 12,
				      } };

	*ret_ip = NULL;
	/* "." and ".." are not looked up: ino 0 says so. */
	if (de->next > 2) {
		l->ret = inode_get(l->dir->fs, de->ino, ret_ip);
		if (l->ret)
			return 0;
		fill_entry(*ret_ip, &e);
	}
	return fuse_add_direntry_plus(l->req, l->buf + l->used,
				      l->size - l->used, name, &e,
				      (off_t)de->next);
}

static int list_one(void *ctx, const struct dir_entry *de)
{
	struct listing *l = (struct listing *)ctx;
	char name[FOLIOFS_NAME_MAX + 1];
	struct inode *ip = NULL;
	size_t len;

	memcpy(name, de->name, de->name_len);
	name[de->name_len] = '\0';
	len = l->plus ? add_plus(l, name, de, &ip) : add_plain(l, name, de);
	if (l->ret)
		return 1;
	if (len > l->size - l->used ||
	    (ip && vec_push(&l->given, (uintptr_t)ip))) {
		if (ip)
			inode_put(ip);
		return 1;
	}
	l->used += len;
	return 0;
}

static void list_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie,
		     bool plus)
{
	struct listing l = { .req = req, .plus = plus, .size = size };
	int ret;

	l.dir = begin(req, ino);
	if (!l.dir)
		return;
	vec_init(&l.given);
	l.buf = (char *)malloc(size);
	if (!l.buf) {
		end_err(req, l.dir, -ENOMEM);
		return;
	}
	rwsem_down_read(&l.dir->rwsem, LOCK_INODE_PARENT);
	ret = dir_iterate(l.dir, (uint64_t)cookie, list_one, &l);
	if (ret >= 0)
		file_accessed(l.dir);
	rwsem_up_read(&l.dir->rwsem);

	/* An error behind good entries comes again, and first, next time. */
	ret = checked(ret < 0 ? ret : l.ret);
	if (ret < 0 && l.used == 0)
		ret = fuse_reply_err(req, -ret) ? -1 : 0;
	else
		ret = fuse_reply_buf(req, l.buf, l.used);
	for (unsigned int i = 0; ret && i < l.given.nr; i++)
		inode_put((struct inode *)(uintptr_t)l.given.v[i]);
	vec_free(&l.given);
	free(l.buf);
	inode_put(l.dir);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size,
		       off_t cookie, struct fuse_file_info *fi)
{
	(void)fi;
	list_dir(req, ino, size, cookie, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size,
			   off_t cookie, struct fuse_file_info *fi)
{
	(void)fi;
	list_dir(req, ino, size, cookie, true);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	/* Cookies need no state: the kernel will not ask again. */
	count(fs_of(req));
	fuse_reply_err(req, ENOSYS);
}

/* Extended attributes. */

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			const char *value, size_t size, int flags)
{
	bool kill =
		request_current()->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID;
	struct inode *ip = begin(req, ino);

	if (ip)
		end_err(req, ip, xattr_set(ip, name, value, size, flags, kill));
}

/* Reply what get or list put into @buf: a size, or bytes, or an errno. */
static void reply_xattr(fuse_req_t req, struct inode *ip, char *buf,
			size_t size, int ret)
{
	ret = checked(ret);
	if (ret < 0)
		fuse_reply_err(req, -ret);
	else if (size == 0)
		fuse_reply_xattr(req, (size_t)ret);
	else
		fuse_reply_buf(req, buf, (size_t)ret);
	free(buf);
	inode_put(ip);
}

static char *xattr_buf(fuse_req_t req, struct inode *ip, size_t size)
{
	char *buf = (char *)malloc(size ? size : 1);

	if (!buf)
		end_err(req, ip, -ENOMEM);
	return buf;
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			size_t size)
{
	struct inode *ip = begin(req, ino);
	char *buf = ip ? xattr_buf(req, ip, size) : NULL;

	if (buf)
		reply_xattr(req, ip, buf, size, xattr_get(ip, name, buf, size));
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct inode *ip = begin(req, ino);
	char *buf = ip ? xattr_buf(req, ip, size) : NULL;

	if (buf)
		reply_xattr(
			req, ip, buf, size,
			xattr_list(ip, buf, size, fuse_req_ctx(req)->uid == 0));
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct inode *ip = begin(req, ino);

	if (ip)
		end_err(req, ip, xattr_remove(ip, name));
}

/* ioctl: inode flags as chattr and xfs_io know them, and our own. */

static void reply_ioctl(fuse_req_t req, struct inode *ip, const void *out,
			size_t len, size_t room)
{
	fuse_reply_ioctl(req, 0, out, len < room ? len : room);
	inode_put(ip);
}

static void ioctl_get(fuse_req_t req, struct inode *ip, unsigned int cmd,
		      size_t room)
{
	char label[FSLABEL_MAX] = { 0 };
	struct foliofs_ioc_status status;
	struct foliofs_stat st;
	struct fsxattr fa;
	uint32_t flags;
	int ret;

	switch (cmd) {
	case FS_IOC_GETFLAGS:
		flags = fsflags_get(ip);
		reply_ioctl(req, ip, &flags, sizeof(flags), room);
		return;
	case FS_IOC_FSGETXATTR:
		fsflags_getxattr(ip, &fa);
		reply_ioctl(req, ip, &fa, sizeof(fa), room);
		return;
	case FS_IOC_GETVERSION:
		flags = (uint32_t)inode_word(ip, INODE_GENFLAGS);
		reply_ioctl(req, ip, &flags, sizeof(flags), room);
		return;
	case FS_IOC_GETFSLABEL:
		foliofs_stat(ip->fs, &st, false);
		memcpy(label, st.label, sizeof(st.label));
		reply_ioctl(req, ip, label, sizeof(label), room);
		return;
	case FOLIOFS_IOC_STATUS:
		ret = ioctl_status(ip->fs, &status);
		if (ret)
			end_err(req, ip, ret);
		else
			reply_ioctl(req, ip, &status, sizeof(status), room);
		return;
	default:
		end_err(req, ip, -ENOTTY);
	}
}

static void ioctl_set(fuse_req_t req, struct inode *ip, unsigned int cmd,
		      const void *in, size_t len)
{
	struct fsxattr fa;
	uint32_t flags;
	int ret = -EINVAL;

	if (cmd == FS_IOC_SETFLAGS && len >= sizeof(flags)) {
		memcpy(&flags, in, sizeof(flags));
		ret = fsflags_set(ip, flags);
	} else if (cmd == FS_IOC_FSSETXATTR && len >= sizeof(fa)) {
		memcpy(&fa, in, sizeof(fa));
		ret = fsflags_setxattr(ip, &fa);
	}
	ret = checked(ret);
	if (ret) {
		end_err(req, ip, ret);
		return;
	}
	reply_ioctl(req, ip, NULL, 0, 0);
}

/*
 * The kernel does not know what these ioctls do.  Before, it writes back what
 * only it has; afterwards it forgets what was replaced, and hears of a new end
 * (with a write-back cache the end is its own, and no answer of ours moves it).
 * Meanwhile other threads answer its requests, so no lock is held here.
 */
static void cache_write_back(const struct inode *ip)
{
	if (ip->fs->opt.cache == CACHE_WRITEBACK)
		conn_forget_data(ip->ino);
}

static void show_end(struct inode *ip)
{
	unsigned char byte = 0;
	uint64_t size, len = 0;
	struct iovec iov;
	struct fs_iov v = { .iov = &iov, .max = 1 };

	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	size = inode_size(ip);
	tree_down_read(ip);
	if (size && !file_read(ip, size - 1, 1, &v, &len) && len)
		byte = *(const unsigned char *)iov.iov_base;
	tree_up_read(ip);
	rwsem_up_read(&ip->rwsem);
	if (len)
		conn_show_end(ip->ino, size - 1, byte);
}

static void cache_replaced(struct inode *ip, uint64_t old_size)
{
	conn_forget_data(ip->ino);
	if (ip->fs->opt.cache == CACHE_WRITEBACK && inode_size(ip) > old_size)
		show_end(ip);
}

static int ioctl_clone(struct inode *ip, unsigned int mode,
		       const struct foliofs_ioc_clonerange *a,
		       unsigned int flags)
{
	struct space_retry retry = { 0 };
	uint64_t old_size;
	struct inode *in;
	int ret;

	ret = direct_source(ip, mode, a->token, false, &in);
	if (ret)
		return ret;
	cache_write_back(in);
	cache_write_back(ip);
	old_size = inode_size(ip);
	do
		ret = file_clone(in, a->src_offset, ip, a->dest_offset,
				 a->src_length, flags);
	while (ret == -ENOSPC && space_retry(ip->fs, &retry));
	if (!ret)
		cache_replaced(ip, old_size);
	inode_put(in);
	return ret;
}

static int ioctl_dedupe(struct inode *ip, unsigned int mode,
			struct foliofs_ioc_deduperange *a)
{
	struct space_retry retry = { 0 };
	struct inode *in;
	bool same;
	int ret;

	ret = direct_source(ip, mode, a->token, true, &in);
	if (ret)
		return ret;
	cache_write_back(in);
	cache_write_back(ip);
	do
		ret = file_dedupe(in, a->src_offset, ip, a->dest_offset,
				  a->src_length, &same);
	while (ret == -ENOSPC && space_retry(ip->fs, &retry));
	inode_put(in);
	a->bytes_deduped = !ret && same ? a->src_length : 0;
	a->status = ret ? ret : !same;
	return 0;
}

/* Clones of a whole file leave nothing behind its end. */
static int ioctl_clone_all(struct inode *ip, unsigned int mode,
			   const uint8_t *token, unsigned int flags)
{
	struct foliofs_ioc_clonerange all = { .src_length = 0 };

	memcpy(all.token, token, sizeof(all.token));
	return ioctl_clone(ip, mode, &all, flags);
}

static int ioctl_unshare(struct inode *ip, unsigned int mode,
			 const struct foliofs_ioc_range *a, unsigned int flags)
{
	struct space_retry retry = { 0 };
	int ret;

	if (a->len == 0)
		return -EINVAL; /* as fallocate(2): before anything else */
	if (!(mode & OPEN_WRITE))
		return -EBADF;
	do
		ret = file_fallocate(
			ip, FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE,
			a->pos, a->len, flags);
	while (ret == -ENOSPC && space_retry(ip->fs, &retry));
	return ret;
}

/* What the calls of a program that maps, or shares, pass in and get back. */
union direct_arg {
	struct foliofs_ioc_token token;
	struct foliofs_ioc_clone clone;
	struct foliofs_ioc_clonerange range;
	struct foliofs_ioc_deduperange dedupe;
	struct foliofs_ioc_map map;
	struct foliofs_ioc_range unshare;
	struct foliofs_ioc_policy policy;
	struct foliofs_ioc_policy_stat policy_stat;
};

static int ioctl_direct(struct inode *ip, unsigned int cmd, unsigned int mode,
			unsigned int flags, uint32_t uid, union direct_arg *arg)
{
	switch (cmd) {
	case FOLIOFS_IOC_TOKEN:
		return direct_token(ip, mode, &arg->token);
	case FOLIOFS_IOC_CLONE:
		return ioctl_clone_all(ip, mode, arg->clone.token, flags);
	case FOLIOFS_IOC_CLONERANGE:
		return ioctl_clone(ip, mode, &arg->range, flags);
	case FOLIOFS_IOC_DEDUPERANGE:
		return ioctl_dedupe(ip, mode, &arg->dedupe);
	case FOLIOFS_IOC_MAP:
		return ioctl_map(ip, &arg->map);
	case FOLIOFS_IOC_UNSHARE:
		return ioctl_unshare(ip, mode, &arg->unshare, flags);
	case FOLIOFS_IOC_POLICY_GET:
		ioctl_policy_get(ip->fs, &arg->policy);
		return 0;
	case FOLIOFS_IOC_POLICY_SET:
		return ioctl_policy_set(ip->fs, uid, &arg->policy);
	case FOLIOFS_IOC_POLICY_STAT:
		return ioctl_policy_stat(ip->fs, &arg->policy_stat);
	default:
		return -ENOTTY;
	}
}

static bool is_direct(unsigned int cmd)
{
	switch (cmd) {
	case FOLIOFS_IOC_TOKEN:
	case FOLIOFS_IOC_CLONE:
	case FOLIOFS_IOC_CLONERANGE:
	case FOLIOFS_IOC_DEDUPERANGE:
	case FOLIOFS_IOC_MAP:
	case FOLIOFS_IOC_UNSHARE:
	case FOLIOFS_IOC_POLICY_GET:
	case FOLIOFS_IOC_POLICY_SET:
	case FOLIOFS_IOC_POLICY_STAT:
		return true;
	default:
		return false;
	}
}

static void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd,
		     void *arg, struct fuse_file_info *fi, unsigned int flags,
		     const void *in, size_t in_len, size_t out_room)
{
	struct inode *ip = begin(req, ino);
	union direct_arg d;
	size_t size = _IOC_SIZE(cmd);
	int ret;

	(void)arg;
	if (!ip)
		return;
	if (flags & FUSE_IOCTL_COMPAT) {
		end_err(req, ip, -ENOSYS);
	} else if (is_direct(cmd)) {
		memset(&d, 0, sizeof(d));
		if (in_len) /* none with one that only answers */
			memcpy(&d, in, in_len < size ? in_len : size);
		ret = checked(ioctl_direct(ip, cmd, (unsigned int)fi->fh,
					   caller_flags(req),
					   fuse_req_ctx(req)->uid, &d));
		if (ret)
			end_err(req, ip, ret);
		else
			reply_ioctl(req, ip, &d, cmd & IOC_OUT ? size : 0,
				    out_room);
	} else if (cmd == FS_IOC_SETFLAGS || cmd == FS_IOC_FSSETXATTR) {
		ioctl_set(req, ip, cmd, in, in_len);
	} else {
		ioctl_get(req, ip, cmd, out_room);
	}
}

const struct fuse_lowlevel_ops foliofs_ops = {
	.init = op_init,
	.destroy = op_destroy,
	.lookup = op_lookup,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.open = op_open,
	.release = op_release,
	.fsync = op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.fsyncdir = op_fsyncdir,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.access = op_access,
	.create = op_create,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.copy_file_range = op_copy_file_range,
	.ioctl = op_ioctl,
};

/*
 * Opcodes that libfuse 3.14 does not know, and those that are asked for most:
 * what libfuse does for each request costs as much as some of them.
 */

static void fill_attr(struct inode *ip, struct fuse_attr *a)
{
	struct stat st;

	inode_stat(ip, &st);
	*a = (struct fuse_attr){
		.ino = st.st_ino,
		.size = (uint64_t)st.st_size,
		.blocks = (uint64_t)st.st_blocks,
		.atime = (uint64_t)st.st_atim.tv_sec,
		.mtime = (uint64_t)st.st_mtim.tv_sec,
		.ctime = (uint64_t)st.st_ctim.tv_sec,
		.atimensec = (uint32_t)st.st_atim.tv_nsec,
		.mtimensec = (uint32_t)st.st_mtim.tv_nsec,
		.ctimensec = (uint32_t)st.st_ctim.tv_nsec,
		.mode = st.st_mode,
		.nlink = (uint32_t)st.st_nlink,
		.uid = st.st_uid,
		.gid = st.st_gid,
		.rdev = (uint32_t)st.st_rdev,
		.blksize = BLOCK_SIZE,
	};
}

static struct inode *raw_begin(struct conn *conn, const struct request *rq,
			       struct foliofs *fs, size_t arg_len)
{
	struct inode *ip;
	int ret;

	count(fs);
	pmem_fault_begin();
	ret = request_arg_len(rq) < arg_len
		      ? -EINVAL
		      : inode_get(fs, rq->in->nodeid, &ip);
	if (ret) {
		conn_reply_err(conn, rq->in->unique, checked(ret));
		return NULL;
	}
	return ip;
}

static void raw_forget(struct conn *conn, const struct request *rq,
		       void *userdata)
{
	const struct fuse_forget_in *in =
		(const struct fuse_forget_in *)request_arg(rq);
	struct foliofs *fs = (struct foliofs *)userdata;

	(void)conn;
	count(fs);
	if (request_arg_len(rq) >= sizeof(*in))
		inode_forget(fs, rq->in->nodeid, in->nlookup);
}

static void raw_batch_forget(struct conn *conn, const struct request *rq,
			     void *userdata)
{
	const struct fuse_batch_forget_in *in =
		(const struct fuse_batch_forget_in *)request_arg(rq);
	const struct fuse_forget_one *one =
		(const struct fuse_forget_one *)(in + 1);
	struct foliofs *fs = (struct foliofs *)userdata;

	(void)conn;
	count(fs);
	if (request_arg_len(rq) < sizeof(*in) ||
	    (request_arg_len(rq) - sizeof(*in)) / sizeof(*one) < in->count)
		return;
	for (uint32_t i = 0; i < in->count; i++)
		inode_forget(fs, one[i].nodeid, one[i].nlookup);
}

static void raw_getattr(struct conn *conn, const struct request *rq,
			void *userdata)
{
	struct foliofs *fs = (struct foliofs *)userdata;
	struct inode *ip =
		raw_begin(conn, rq, fs, sizeof(struct fuse_getattr_in));
	struct fuse_attr_out out = { 0 };

	if (!ip)
		return;
	out.attr_valid = (uint64_t)attr_timeout(ip);
	fill_attr(ip, &out.attr);
	if (checked(0))
		conn_reply_err(conn, rq->in->unique, -EIO);
	else
		conn_reply(conn, rq->in->unique, &out, sizeof(out));
	inode_put(ip);
}

/*
 * The reply goes out from media, with i_rwsem held until the kernel has
 * copied it: no block can be freed under it.
 */
static void raw_read(struct conn *conn, const struct request *rq,
		     void *userdata)
{
	const struct fuse_read_in *in =
		(const struct fuse_read_in *)request_arg(rq);
	struct foliofs *fs = (struct foliofs *)userdata;
	struct inode *ip = raw_begin(conn, rq, fs, sizeof(*in));
	struct iovec iov[READ_IOV + 1]; /* the first is for the header */
	struct fs_iov v = { .iov = iov + 1, .max = READ_IOV };
	uint64_t len;
	int ret;

	if (!ip)
		return;
	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	tree_down_read(ip);
	ret = checked(file_read(ip, in->offset, in->size, &v, &len));
	if (ret) {
		conn_reply_err(conn, rq->in->unique, ret);
	} else {
		file_accessed(ip);
		/* The kernel met a bad page that we have not touched. */
		if (conn_reply_iov(conn, rq->in->unique, iov, v.nr + 1) ==
		    -EFAULT) {
			conn_reply_err(conn, rq->in->unique, -EIO);
			for (int i = 1; i <= v.nr; i++)
				pmem_touch(iov[i].iov_base, iov[i].iov_len);
		}
	}
	tree_up_read(ip);
	rwsem_up_read(&ip->rwsem);
	inode_put(ip);
}

static unsigned int write_flags(const struct foliofs *fs,
				const struct fuse_write_in *in)
{
	unsigned int flags = 0;

	if (in->write_flags & FUSE_WRITE_KILL_SUIDGID)
		flags |= WRITE_KILL_SUIDGID;
	/* With the writeback cache, times are the kernel's: SETATTR follows. */
	if (fs->opt.cache == CACHE_WRITEBACK &&
	    (in->write_flags & FUSE_WRITE_CACHE))
		flags |= WRITE_CACHED;
	return flags;
}

static void raw_write(struct conn *conn, const struct request *rq,
		      void *userdata)
{
	const struct fuse_write_in *in =
		(const struct fuse_write_in *)request_arg(rq);
	struct foliofs *fs = (struct foliofs *)userdata;
	struct inode *ip = raw_begin(conn, rq, fs, sizeof(*in));
	struct space_retry retry = { 0 };
	struct fuse_write_out out = { 0 };
	int ret = -EINVAL;

	if (!ip)
		return;
	if (in->size <= request_arg_len(rq) - sizeof(*in)) {
		do
			ret = file_write(ip, in + 1, in->offset, in->size,
					 write_flags(fs, in));
		while (ret == -ENOSPC && space_retry(fs, &retry));
	}
	ret = checked(ret);
	out.size = in->size;
	if (ret)
		conn_reply_err(conn, rq->in->unique, ret);
	else
		conn_reply(conn, rq->in->unique, &out, sizeof(out));
	inode_put(ip);
}

static void raw_tmpfile(struct conn *conn, const struct request *rq,
			void *userdata)
{
	const struct fuse_create_in *in =
		(const struct fuse_create_in *)request_arg(rq);
	struct foliofs *fs = (struct foliofs *)userdata;
	struct inode *dir = raw_begin(conn, rq, fs, sizeof(*in)), *ip;
	struct cred cred = { .uid = rq->in->uid,
			     .gid = rq->in->gid,
			     .pid = (int32_t)rq->in->pid };
	struct fuse_file_info fi = { .flags = 0 };
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = { 0 };
	int ret;

	if (!dir)
		return;
	cred.umask = in->umask;
	ret = checked(
		fs_tmpfile(dir, &cred, S_IFREG | (in->mode & 07777), &ip));
	if (ret) {
		conn_reply_err(conn, rq->in->unique, ret);
		inode_put(dir);
		return;
	}
	fi.flags = (int)in->flags;
	set_open(ip, &fi);
	out.open.fh = fi.fh;
	out.entry.nodeid = ip->ino;
	out.entry.generation = (uint32_t)inode_word(ip, INODE_GENFLAGS);
	out.entry.entry_valid = (uint64_t)TIMEOUT_S;
	out.entry.attr_valid = (uint64_t)attr_timeout(ip);
	fill_attr(ip, &out.entry.attr);
	out.open.open_flags = FOPEN_NOFLUSH | (fi.direct_io ? FOPEN_DIRECT_IO
							    : FOPEN_KEEP_CACHE);
	if (conn_reply(conn, rq->in->unique, &out, sizeof(out))) {
		closed(ip);
		inode_put(ip);
	}
	inode_put(dir);
}

static struct conn_sx_time sx_timespec(struct timespec ts)
{
	return (struct conn_sx_time){ .sec = ts.tv_sec,
				      .nsec = (uint32_t)ts.tv_nsec };
}

static struct conn_sx_time sx_time(uint64_t ns)
{
	return sx_timespec(time_split((int64_t)ns));
}

static void fill_statx(struct inode *ip, struct conn_statx *sx)
{
	uint32_t flags = inode_flags(ip);
	struct stat st;

	inode_stat(ip, &st);
	*sx = (struct conn_statx){
		.mask = STATX_BASIC_STATS | STATX_BTIME,
		.blksize = BLOCK_SIZE,
		.nlink = (uint32_t)st.st_nlink,
		.uid = st.st_uid,
		.gid = st.st_gid,
		.mode = (uint16_t)st.st_mode,
		.ino = st.st_ino,
		.size = (uint64_t)st.st_size,
		.blocks = (uint64_t)st.st_blocks,
		.attributes_mask = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND |
				   STATX_ATTR_NODUMP,
		.atime = sx_time(inode_word(ip, INODE_ATIME)),
		.btime = sx_time(inode_word(ip, INODE_BTIME)),
		.ctime = sx_timespec(st.st_ctim),
		.mtime = sx_timespec(st.st_mtim),
		.rdev_major = major(st.st_rdev),
		.rdev_minor = minor(st.st_rdev),
	};
	if (flags & FOLIOFS_FL_IMMUTABLE)
		sx->attributes |= STATX_ATTR_IMMUTABLE;
	if (flags & FOLIOFS_FL_APPEND)
		sx->attributes |= STATX_ATTR_APPEND;
	if (flags & FOLIOFS_FL_NODUMP)
		sx->attributes |= STATX_ATTR_NODUMP;
}

static void raw_statx(struct conn *conn, const struct request *rq,
		      void *userdata)
{
	struct foliofs *fs = (struct foliofs *)userdata;
	struct inode *ip =
		raw_begin(conn, rq, fs, sizeof(struct conn_statx_in));
	struct conn_statx_out out = { .attr_valid = 0 };

	if (!ip)
		return;
	out.attr_valid = (uint64_t)attr_timeout(ip);
	fill_statx(ip, &out.stat);
	if (checked(0))
		conn_reply_err(conn, rq->in->unique, -EIO);
	else
		conn_reply(conn, rq->in->unique, &out, sizeof(out));
	inode_put(ip);
}

/* As COPY_FILE_RANGE, with a reply that has room for any length. */
static void raw_copy(struct conn *conn, const struct request *rq,
		     void *userdata)
{
	const struct fuse_copy_file_range_in *arg =
		(const struct fuse_copy_file_range_in *)request_arg(rq);
	struct foliofs *fs = (struct foliofs *)userdata;
	struct inode *in = raw_begin(conn, rq, fs, sizeof(*arg));
	uint64_t copied = 0;
	int ret;

	if (!in)
		return;
	ret = checked(copy_range(
		in, arg->off_in, arg->nodeid_out, arg->off_out, arg->len,
		rq->in->uid == 0 ? 0 : WRITE_KILL_SUIDGID, &copied));
	if (ret)
		conn_reply_err(conn, rq->in->unique, ret);
	else
		conn_reply(conn, rq->in->unique, &copied, sizeof(copied));
	inode_put(in);
}

bool ops_interrupted(void *fs, uint64_t unique)
{
	return layout_interrupt((struct foliofs *)fs, unique);
}

const struct raw_op foliofs_raw_ops[] = {
	{ FUSE_FORGET, raw_forget },   { FUSE_BATCH_FORGET, raw_batch_forget },
	{ FUSE_GETATTR, raw_getattr }, { FUSE_READ, raw_read },
	{ FUSE_WRITE, raw_write },     { CONN_OP_COPY_FILE_RANGE64, raw_copy },
	{ FUSE_TMPFILE, raw_tmpfile }, { CONN_OP_STATX, raw_statx },
};
const unsigned int foliofs_nr_raw_ops =
	sizeof(foliofs_raw_ops) / sizeof(foliofs_raw_ops[0]);
