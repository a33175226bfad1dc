/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/direct.h - programs that map files: who may, and what they ask for
 *
 * Between the session server of dax/ and the inodes here: tokens, and the
 * calls that name their source by one.
 *
 * Errors.    Negative errno.
 * Locking.   Takes i_rwsem.
 * Ownership. The session server belongs to the struct foliofs.
 */
#ifndef FS_DIRECT_H
#define FS_DIRECT_H

#include "dax/err.h"
#include "dax/lib/foliofs_ioctl.h"
#include "fs/foliofs.h"

struct inode;

/* How a descriptor was opened, kept by the kernel for us (fuse_file_info.fh).
 * 0: it was not opened through us. */
#define OPEN_READ   1u
#define OPEN_WRITE  2u
#define OPEN_APPEND 4u

unsigned int open_mode(int flags);

/**
 * direct_open() - listen for programs
 * @fs: mounted
 * @users: who may, besides root; copied
 *
 * Return: 0, or what keeps us from it; the filesystem works without.
 */
int direct_open(struct foliofs *fs, const struct dax_users *users,
		struct errmsg *err);

/*
 * Take everything back.  Waits for pins, as an unmount does (final); @say is
 * called once when it has to.
 */
void direct_close(struct foliofs *fs, void (*say)(const char *line));

/* Is this file read and written without the kernel's cache, by mapping? */
bool direct_file(const struct inode *ip);

/* The ioctls.  @mode: of the descriptor. */
int direct_token(struct inode *ip, unsigned int mode,
		 struct foliofs_ioc_token *ret);
/*
 * The file that a token is for, with a reference, to clone it to @out; -EACCES:
 * the token is not good, or not any more.  @dedupe: to share with @out.
 */
int direct_source(struct inode *out, unsigned int mode, const uint8_t *token,
		  bool dedupe, struct inode **ret_in);

#endif
