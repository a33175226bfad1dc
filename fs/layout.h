/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/layout.h - files that programs map, and what has to wait for them
 *
 * An inode gets a struct inode_dax when somebody first wants to map it; until
 * then nothing here costs more than a look at a pointer.
 *
 * Who may change which block is where (the layout) of such a file:
 *
 *   operations   hold i_rwsem exclusive, as always, and the invalidate_lock
 *                exclusive; those that move or drop blocks have broken the
 *                layout first (layout_begin()), a write has removed the
 *                entries of what it replaces (layout_write())
 *   faults       hold the invalidate_lock shared, the entry of the page, and
 *                tree_lock exclusive around each change
 *   readers      hold i_rwsem shared and tree_lock shared, for as long as they
 *                use the blocks: the reply of a read holds it as well
 *
 * i_rwsem stays held while a break sleeps (H3); the invalidate_lock does not
 * (H2), as whoever has a page pinned may need a fault to get on.
 *
 * Errors.    -EINTR when the request was interrupted, or what the policy says
 *            (dax/policy.h): nothing has changed.
 * Locking.   As above: LOCK_INODE, LOCK_INVALIDATE, LOCK_ENTRY, LOCK_TREE.
 * Ownership. The struct inode_dax lives as long as its inode.
 * Source.    Linux xfs_break_dax_layouts(), fs/xfs/xfs_inode.c.
 */
#ifndef FS_LAYOUT_H
#define FS_LAYOUT_H

#include "dax/err.h"
#include "dax/layout.h"
#include "dax/proto.h"
#include "fs/fs.h"

struct inode_dax {
	struct address_space mapping;
	struct rwsem tree_lock;
	_Atomic(int64_t) stored_ns; /* a store that media's mtime lacks, or 0 */
	_Atomic(bool) dirty;	    /* marked since the last writeback */
};

static inline struct inode_dax *inode_dax(const struct inode *ip)
{
	return atomic_load_explicit(&ip->dax, memory_order_acquire);
}

/* Of a filesystem that is open.  0, or why there is no such policy. */
int layout_create(struct foliofs *fs, struct errmsg *err);
void layout_destroy(struct foliofs *fs);

struct dax_device *layout_device(const struct foliofs *fs);
struct policy_host *layout_policy(const struct foliofs *fs);

/* Blocks that are free but for a pin: now, and ever. */
struct layout_held {
	uint64_t nr_blocks;
	uint64_t nr_ever;
};
void layout_held(struct foliofs *fs, struct layout_held *ret);

/* Unmount: break the layouts of all files, and wait for all pins. */
void layout_break_all(struct foliofs *fs, void (*say)(const char *line));

/* This file is going to be mapped: 0 or -ENOMEM.  Takes i_rwsem. */
int layout_attach(struct inode *ip);
/* The inode goes; all who map it have gone, except pins. */
void layout_detach(struct inode *ip);

/* What a request waits for, as `foliofsctl status --waits` calls it. */
int layout_begin(struct inode *ip, const char *op) __must_hold(ip->rwsem);
void layout_end(struct inode *ip);
/*
 * The same where only the blocks of [start, end] go, in bytes, all others
 * staying where they are: a policy may put that off.
 */
int layout_begin_drop(struct inode *ip, const char *op, uint64_t start,
		      uint64_t end);
int layout_begin_pair(struct inode *a, struct inode *b, const char *op);
void layout_end_pair(struct inode *a, struct inode *b);

/*
 * A write(2) to [pos, pos + len): ends with layout_end().  layout_replace()
 * makes clients forget blocks that are about to be replaced; it waits for no
 * pin (H8).
 */
void layout_write(struct inode *ip);
void layout_replace(struct inode *ip, uint64_t pos, uint64_t len);

/* The same for bytes of @in that are copied, and must stand still for it. */
void layout_copy(struct inode *in, struct inode *out);
void layout_copy_end(struct inode *in, struct inode *out);

/* Wait, with no lock held, until nothing of the file is pinned. */
int layout_wait_idle(struct inode *ip, const char *op);

/* Make what clients stored durable: fsync(2). */
int layout_sync(struct inode *ip);

/*
 * Stores of clients change the file's times.  They are kept here until a
 * moment at which they can be put on media: fsync, the last close, the end of
 * the inode.  Whoever looks at the times before sees them all the same.
 */
void layout_stored(struct inode *ip);
/* The last such store in ns since 1970, or 0 when media has it. */
int64_t layout_stored_ns(struct inode *ip);
/* Somebody sets the times himself: what was stored before does not count. */
void layout_forget_stores(struct inode *ip);
void layout_settle_times(struct inode *ip) __must_hold(ip->rwsem);

/* The size has changed: clients have to know before the answer is given. */
void layout_resized(struct inode *ip);

/* The tree, for readers. */
void tree_down_read(const struct inode *ip);
void tree_up_read(const struct inode *ip);
/* And for those who change what faults use as well, but break no layout. */
void tree_down_write(const struct inode *ip);
void tree_up_write(const struct inode *ip);

/*
 * The same for those who hold nothing yet and may not wait for a truncate that
 * waits for somebody's pin: stat(2).
 */
void layout_down_read(struct inode *ip);
void layout_up_read(struct inode *ip);

/*
 * A block that no slot points to any more becomes available: now, or when the
 * last pin of it goes.
 */
void layout_free(struct foliofs *fs, uint64_t block, unsigned int order);

/* Whose request this thread handles from now on. */
void layout_caller(uint64_t unique, int32_t pid);

/* The request @unique was interrupted: false when it does not wait (yet). */
bool layout_interrupt(struct foliofs *fs, uint64_t unique);

/* The first wait behind @cursor, for file @ino or any: 0 or -ENOENT. */
int layout_waits(struct foliofs *fs, uint64_t cursor, uint64_t ino,
		 struct session_wait *ret);

/* iomap.c: how faults reach the tree. */
extern const struct iomap_ops foliofs_iomap_ops;

#endif
