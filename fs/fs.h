/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/fs.h - a mounted foliofs, and its inodes in DRAM
 *
 * Media is the truth: an inode's fields are read from media where they are
 * needed, and struct inode holds what media does not say.
 *
 * Locking.   i_rwsem covers an inode's words, tree and directory entries.
 *            getattr reads single words without it.  Two directories: parent
 *            before child, otherwise by number, with rename_lock held; two
 *            files by number.
 * Ownership. An inode lives while somebody has a reference: the kernel (one
 *            a lookup, until FORGET) or a request.
 */
#ifndef FS_FS_H
#define FS_FS_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "alloc/alloc.h"
#include "dax/lock.h"
#include "dax/pmem.h"
#include "fs/foliofs.h"
#include "fs/fs_format.h"
#include "fs/tree.h"
#include "fs/txn.h"

struct dirindex;
struct itable;
struct icache;
struct inode_dax;
struct layout;
struct session_server;

/* Opcodes that are counted; all that exist are below. */
#define NR_REQUESTS 64

/* Small inodes that one transaction takes off media. */
#define EVICT_BATCH 32

struct foliofs {
	struct foliofs_options opt; /* device points to the next field */
	char *device;
	struct pmem *pm;
	struct alloc *al;
	struct journal *journal;
	struct itable *itable;
	struct icache *icache;
	struct layout *layout;		 /* files that are mapped */
	struct session_server *sessions; /* NULL where nobody can map */
	struct dax_users dax_users;	 /* who may, besides root */
	struct mutex rename_lock;
	struct inode *root; /* the kernel never looks it up: ours to hold */
	uint64_t nr_blocks;
	uint64_t data_start; /* first block that slots may point to */
	uint64_t hash_seed;  /* of directory indexes, per mount */
	uint64_t nr_orphans;
	uint64_t walk_ns;
	struct mutex space_lock;       /* covers the next five */
	pthread_cond_t space_cond;     /* an inode was taken off media */
	unsigned int nr_space_waiting; /* for the former */
	unsigned int nr_collected;     /* inodes still to be taken off */
	struct inode *collected[EVICT_BATCH];
	uint64_t nr_evicted;	       /* ever */
	_Atomic(uint64_t) unlinked_ns; /* when the last one lost its name */
	_Atomic(int64_t) time_floor;   /* no new time is below this one */
	_Atomic(bool) damaged;	       /* something on media was wrong */
	_Atomic(bool) read_only;
	bool quiet;		      /* a checker that reports damage itself */
	void *session;		      /* struct fuse_session, for ops.c */
	_Atomic(uint64_t) nr_waiting; /* requests that sleep */
	_Atomic(uint64_t) nr_requests[NR_REQUESTS]; /* by FUSE opcode */
};

struct inode {
	uint64_t ino;
	uint64_t off; /* media offset of the struct foliofs_inode */
	struct foliofs *fs;
	struct rwsem rwsem;
	struct inode *next;	/* icache bucket */
	_Atomic(uint64_t) refs; /* lookups of the kernel, and requests */
	_Atomic(int64_t) pages; /* of data; -1: not counted yet */
	_Atomic(struct dirindex *) dir; /* of a large directory, or NULL */
	uint64_t aside;			/* chunk set aside for growing, or 0 */
	uint64_t aside_index;		/* the page its first block is for */
	uint64_t goal; /* block after the last one taken, or 0 */
	_Atomic(unsigned int) nr_open;
	_Atomic(struct inode_dax *) dax; /* of a file that is mapped, or NULL */
	_Atomic(bool) seen; /* its times, by a caller of stat; see times.c */
};

/* Fields of the inode on media, by the word they stand in. */
#define INODE_MODE     offsetof(struct foliofs_inode, mode) /* mode, nlink */
#define INODE_SIZE     offsetof(struct foliofs_inode, size)
#define INODE_DATA     offsetof(struct foliofs_inode, data)
#define INODE_XATTR    offsetof(struct foliofs_inode, xattr)
#define INODE_OWNER    offsetof(struct foliofs_inode, uid) /* uid, gid */
#define INODE_ATIME    offsetof(struct foliofs_inode, atime)
#define INODE_MTIME    offsetof(struct foliofs_inode, mtime)
#define INODE_CTIME    offsetof(struct foliofs_inode, ctime)
#define INODE_BTIME    offsetof(struct foliofs_inode, btime)
#define INODE_GENFLAGS offsetof(struct foliofs_inode, generation)
#define INODE_RDEV     offsetof(struct foliofs_inode, rdev) /* rdev, projid */
#define INODE_PARENT   offsetof(struct foliofs_inode, parent)

static inline uint64_t inode_word(const struct inode *ip, size_t field)
{
	return pmem_load64(ip->fs->pm, ip->off + field);
}

static inline void inode_set(struct txn *t, const struct inode *ip,
			     size_t field, uint64_t value)
{
	txn_set64(t, ip->off + field, value);
}

static inline uint32_t inode_mode(const struct inode *ip)
{
	return (uint32_t)inode_word(ip, INODE_MODE);
}

static inline uint32_t inode_nlink(const struct inode *ip)
{
	return (uint32_t)(inode_word(ip, INODE_MODE) >> 32);
}

static inline uint64_t inode_size(const struct inode *ip)
{
	return inode_word(ip, INODE_SIZE);
}

static inline uint64_t inode_data(const struct inode *ip)
{
	return inode_word(ip, INODE_DATA);
}

static inline uint32_t inode_flags(const struct inode *ip)
{
	return (uint32_t)(inode_word(ip, INODE_GENFLAGS) >> 32);
}

static inline uint64_t word_pair(uint32_t low, uint32_t high)
{
	return (uint64_t)high << 32 | low;
}

/* Nanoseconds since 1970 now. */
int64_t time_now(void);
/* The same, as of the last tick, but not before a time that was given out. */
int64_t time_coarse(const struct foliofs *fs);
/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t clock_ns(void);
/* The nearest that media can say: 1677 to 2262. */
int64_t time_clamp(int64_t sec, uint32_t nsec);
struct timespec time_split(int64_t ns);

/*
 * times.c: what a change now is to be dated: later than what anybody has seen
 * of the inode, but no more often than the kernel's clock ticks.
 */
uint64_t inode_now(struct inode *ip);
/* Without a word where that would change nothing. */
void inode_set_time(struct txn *t, const struct inode *ip, size_t field,
		    uint64_t ns);
/* mtime and ctime (or ctime alone) of a transaction, in one call. */
void inode_touch(struct txn *t, struct inode *ip, bool mtime);

/* Set mode or nlink, which share a word. */
void inode_set_mode(struct txn *t, const struct inode *ip, uint32_t mode);
void inode_set_nlink(struct txn *t, const struct inode *ip, uint32_t nlink);

/* Is this superblock one that we can mount?  For tools as well. */
int super_check(const struct foliofs_superblock *sb, uint64_t dev_blocks,
		const char *device, struct errmsg *err);

/*
 * icache.c: inodes in DRAM.
 *
 * inode_get() finds inode @ino or brings it in; -ESTALE when it is free on
 * media, -EUCLEAN when what is there cannot be an inode.
 */
int icache_create(struct foliofs *fs);
void icache_destroy(struct foliofs *fs);
/* Unmount: nobody uses any inode; finish those that have no links. */
void icache_drop(struct foliofs *fs);
int inode_get(struct foliofs *fs, uint64_t ino, struct inode **ret_ip);
/*
 * A new one: allocated while the transaction can still be aborted, inserted
 * with one reference when it is committed.  inode_insert() answers the inode
 * to use: another one if somebody was faster to ask for it by its number.
 */
struct inode *inode_alloc(struct foliofs *fs);
void inode_free(struct inode *ip);
struct inode *inode_insert(struct inode *ip, uint64_t ino, uint64_t off,
			   int64_t pages);
void inode_ref(struct inode *ip, uint64_t nr);
/* Drop @nr references.  The last one of an inode with no links frees it. */
void inode_put_many(struct inode *ip, uint64_t nr);
static inline void inode_put(struct inode *ip)
{
	inode_put_many(ip, 1);
}
/* The same by number, for the references that replies gave the kernel. */
void inode_forget(struct foliofs *fs, uint64_t ino, uint64_t nr);
uint64_t icache_nr(const struct foliofs *fs);
/*
 * An inode that is in DRAM, with a reference, and *pos moved on; NULL at the
 * end.  What comes and goes meanwhile may be missed.
 */
struct inode *icache_next(struct foliofs *fs, uint64_t *pos);
void inode_stat(struct inode *ip, struct stat *ret);
int inode_pages(struct inode *ip, int64_t *ret_pages);

/*
 * Space of a file that was removed comes back with the kernel's FORGET, which
 * may be behind the request that needs it.  So a request that finds no space
 * waits a moment for what was unlinked just before, and is tried again:
 *
 *	struct space_retry retry = { 0 };
 *
 *	do
 *		ret = ...;
 *	while (ret == -ENOSPC && space_retry(fs, &retry));
 */
struct space_retry {
	uint64_t seen, deadline;
	bool started;
};
bool space_retry(struct foliofs *fs, struct space_retry *r);
/* Take off media what is still to be; false if there is nothing. */
bool evict_collected(struct foliofs *fs);
/* An inode has no name any more. */
void space_unlinked(struct foliofs *fs);

/*
 * itable.c: which inodes are free.
 *
 * itable_mark() is for the mount walk; a table block is announced with
 * itable_block() first.  itable_take() reserves a free inode (and grows the
 * table if there is none); itable_free() gives it back after a transaction
 * freed it, or when it was not used after all.
 */
int itable_create(struct foliofs *fs);
void itable_destroy(struct foliofs *fs);
void itable_block(struct foliofs *fs, uint64_t index);
void itable_mark(struct foliofs *fs, uint64_t ino);
void itable_ready(struct foliofs *fs);
int itable_take(struct foliofs *fs, uint64_t *ret_ino, uint64_t *ret_off);
void itable_free(struct foliofs *fs, uint64_t ino);
/* Media offset of an inode; -ESTALE where the table has a hole. */
int itable_find(const struct foliofs *fs, uint64_t ino, uint64_t *ret_off);
/*
 * Where an inode with links is, and words of it that belong together; -ESTALE
 * when there is none.  A number that is being taken or freed may be asked for.
 */
struct inode_head {
	uint64_t mode, size, data; /* mode: the word, with nlink */
};
int itable_read(const struct foliofs *fs, uint64_t ino, uint64_t *ret_off,
		struct inode_head *ret);
bool itable_used(const struct foliofs *fs, uint64_t ino);
uint64_t itable_nr_used(const struct foliofs *fs);
uint64_t itable_nr_free(const struct foliofs *fs);

/* walk.c: derive allocator, inode table and orphans from media. */
int walk_mount(struct foliofs *fs, struct errmsg *err);

/*
 * Media is wrong: say so once a place, and remember.  Returns -EUCLEAN; or
 * -EIO, and nothing else, when this thread has just met a machine check.
 */
int fs_damaged(struct foliofs *fs, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * dir.c: directories.  The caller holds dir's i_rwsem: shared for lookup and
 * read, exclusive for the rest.
 */
struct dir_name {
	const char *name;
	unsigned int len;
};
struct dir_found {
	uint64_t ino;
	uint64_t pos; /* byte in the directory */
	uint64_t off; /* media offset of the dentry */
	uint16_t rec_len;
	uint8_t type;
};
int dir_lookup(struct inode *dir, const struct dir_name *name,
	       struct dir_found *ret);
/* Where an entry goes; filled by dir_insert() for dir_inserted(). */
struct dir_slot {
	uint64_t pos;
	uint64_t rest; /* of the free dentry behind it, or 0 */
	int64_t pages; /* that the directory gained */
};
/* Put words for a new entry into the transaction (at most DIR_WORDS). */
#define DIR_WORDS 40
int dir_insert(struct txn *t, struct inode *dir, const struct dir_name *name,
	       uint64_t ino, uint8_t type, struct dir_slot *ret_slot);
/* Tell the index, after the commit. */
void dir_inserted(struct inode *dir, const struct dir_name *name,
		  const struct dir_slot *slot);
void dir_remove(struct txn *t, const struct dir_found *at);
void dir_removed(struct inode *dir, const struct dir_name *name,
		 const struct dir_found *at);
/* Point an existing entry elsewhere. */
void dir_replace(struct txn *t, const struct dir_found *at, uint64_t ino,
		 uint8_t type);
/* 1 empty, 0 not, or an errno. */
int dir_is_empty(struct inode *dir);
struct dir_entry {
	uint64_t ino;
	const char *name; /* not terminated */
	unsigned int name_len;
	uint8_t type;
	uint64_t next; /* cookie to go on after this one */
};
/*
 * Entries from @cookie on (0: from the start, . and .. included), until the
 * callback answers something else than 0, which is returned.  An entry that
 * exists all the time is seen once, whatever comes and goes beside it.
 */
typedef int (*dir_emit)(void *ctx, const struct dir_entry *de);
int dir_iterate(struct inode *dir, uint64_t cookie, dir_emit emit, void *ctx);
void dirindex_free(struct dirindex *d);

/* namei.c: names.  These take all locks themselves. */
struct cred {
	uint32_t uid, gid;
	uint32_t umask;
	int32_t pid;
};
struct new_inode {
	uint32_t mode;
	uint64_t rdev;
	const char *symlink;
};
int fs_lookup(struct inode *dir, const char *name, struct inode **ret_ip);
int fs_create(struct inode *dir, const char *name, const struct cred *cred,
	      const struct new_inode *want, struct inode **ret_ip);
int fs_tmpfile(struct inode *dir, const struct cred *cred, uint32_t mode,
	       struct inode **ret_ip);
int fs_unlink(struct inode *dir, const char *name);
int fs_rmdir(struct inode *dir, const char *name);
int fs_link(struct inode *ip, struct inode *dir, const char *name);
int fs_rename(struct inode *dir, const char *name, struct inode *newdir,
	      const char *newname, unsigned int flags);

/* file.c: contents. */
struct fs_iov {
	struct iovec *iov; /* points to media or to zeros */
	int nr, max;
};
/* Caller holds i_rwsem shared until the bytes were used. */
int file_read(struct inode *ip, uint64_t pos, uint64_t len, struct fs_iov *iov,
	      uint64_t *ret_len) __must_hold_shared(ip->rwsem);
#define WRITE_KILL_SUIDGID 1u /* the writer may not keep them */
#define WRITE_CACHED	   2u /* from the kernel's cache, which keeps times */
#define WRITE_SAME	   4u /* the bytes stay as they are: a dedupe */
int file_write(struct inode *ip, const void *buf, uint64_t pos, uint64_t len,
	       unsigned int flags);
int file_truncate_locked(struct txn *t, struct inode *ip, uint64_t size,
			 int64_t *ret_pages) __must_hold(ip->rwsem);
/* After the commit, with the pages of clients taken back. */
void file_truncated(struct inode *ip) __must_hold(ip->rwsem);
int file_fallocate(struct inode *ip, int mode, uint64_t pos, uint64_t len,
		   unsigned int flags);
int file_seek(struct inode *ip, uint64_t pos, bool data, uint64_t *ret_pos);
int file_copy(struct inode *in, uint64_t pos_in, struct inode *out,
	      uint64_t pos_out, uint64_t len, unsigned int flags,
	      uint64_t *ret_len);
/* For faults, see fs/iomap.c. */
int file_run(struct inode *ip, uint64_t index, uint64_t max,
	     struct tree_run *ret);
int file_fault(struct inode *ip, uint64_t nr, struct tree_run *run);
int file_stage(struct inode *ip, uint64_t goal, uint64_t *ret_block);
int file_stage_commit(struct inode *ip, uint64_t index, uint64_t block);
void file_stage_cancel(struct inode *ip, uint64_t block);
/*
 * The ioctls of reflink, with the errors of XFS.  clone with len 0 is up to the
 * end of @in; dedupe answers whether the ranges are the same, and shares them
 * if they are.
 */
int file_clone(struct inode *in, uint64_t pos_in, struct inode *out,
	       uint64_t pos_out, uint64_t len, unsigned int flags);
int file_dedupe(struct inode *in, uint64_t pos_in, struct inode *out,
		uint64_t pos_out, uint64_t len, bool *ret_same);
/* What is on media, from @pos on: at most @max extents, no holes. */
struct file_extent {
	uint64_t pos, off, len; /* bytes */
	bool unwritten, shared;
	bool chunk;  /* part of a 2 MiB slot */
	bool behind; /* behind the end of the file */
};
int file_map(struct inode *ip, uint64_t pos, unsigned int max,
	     struct file_extent *ret, unsigned int *ret_nr);
void file_accessed(struct inode *ip);
void file_close(struct inode *ip); /* the last open is gone */
void file_sync(struct inode *ip);  /* make atime durable, as all else is */
int fs_readlink(struct inode *ip, char target[BLOCK_SIZE]);
/* What open(2) must refuse that permissions do not say; flags are O_*. */
int fs_may_open(const struct inode *ip, int flags);

/* attr.c: attributes. */
struct fs_setattr {
	uint32_t valid; /* FATTR_* of the FUSE protocol */
	uint32_t mode, uid, gid;
	uint64_t size;
	int64_t atime, mtime, ctime; /* ns */
};
int fs_setattr(struct inode *ip, const struct fs_setattr *attr);
/* By the mode bits alone: for kernels that leave permissions to us. */
int fs_access(const struct inode *ip, const struct cred *cred, int mask);
int fs_setflags(struct inode *ip, uint32_t flags, uint32_t projid);

/* xattr.c: extended attributes.  These take i_rwsem themselves. */
int xattr_get(struct inode *ip, const char *name, void *buf, size_t size);
/* @trusted: with the names that only CAP_SYS_ADMIN may see. */
int xattr_list(struct inode *ip, char *buf, size_t size, bool trusted);
int xattr_set(struct inode *ip, const char *name, const void *value,
	      size_t size, int flags, bool kill_sgid);
int xattr_remove(struct inode *ip, const char *name);
/* With i_rwsem held; value NULL removes.  For ACLs and capabilities. */
int xattr_get_locked(struct inode *ip, const char *name, void *buf, size_t size)
	__must_hold_shared(ip->rwsem);
int xattr_set_locked(struct txn *t, struct inode *ip, const char *name,
		     const void *value, size_t size, int flags)
	__must_hold(ip->rwsem);
/* A tree for a new inode with these attributes, before it has a place. */
struct xattr_init {
	const char *name;
	const void *value;
	size_t size;
};
int xattr_build(struct txn *t, const struct xattr_init *init, unsigned int nr,
		uint64_t *ret_root);
/* Are the attributes at @root whole?  0, -EUCLEAN, -ENOMEM.  For fsck. */
int xattr_verify(struct foliofs *fs, uint64_t ino, uint64_t root);
/* Drop security.capability, if it is there. */
int xattr_kill_caps(struct txn *t, struct inode *ip) __must_hold(ip->rwsem);

/* acl.c: POSIX ACLs as the kernel's xattr format carries them. */
#define ACL_ACCESS    "system.posix_acl_access"
#define ACL_DEFAULT   "system.posix_acl_default"
#define ACL_XATTR_MAX 65536
/*
 * The ACLs and mode that a new inode gets from its directory (whose i_rwsem
 * the caller holds).  Without a default ACL: mode & ~umask, and no ACLs.
 */
struct acl_new {
	uint32_t mode;
	void *access; /* malloc'ed, or NULL */
	size_t access_len;
	void *dflt;
	size_t dflt_len;
};
int acl_create(struct inode *dir, uint32_t mode, uint32_t umask,
	       struct acl_new *ret);
void acl_new_free(struct acl_new *n);
/* chmod: the access ACL follows the mode. */
int acl_chmod(struct txn *t, struct inode *ip, uint32_t mode)
	__must_hold(ip->rwsem);
/*
 * setxattr of an ACL: check it, and say what mode it gives.  *ret_minimal:
 * the mode says it all, no attribute is needed.
 */
int acl_to_mode(const void *value, size_t size, uint32_t mode,
		uint32_t *ret_mode, bool *ret_minimal);
int acl_check(const void *value, size_t size);

#endif
