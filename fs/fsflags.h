/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/fsflags.h - inode flags as chattr(1) and xfs_io(8) know them
 *
 * Errors.    -EOPNOTSUPP for a flag that we do not have.
 * Locking.   These take i_rwsem themselves.
 * Source.    ioctl_iflags(2), ioctl_xfs_fsgetxattr(2).
 */
#ifndef FS_FSFLAGS_H
#define FS_FSFLAGS_H

/* linux/fs.h has a BLOCK_SIZE of its own, which nobody means any more. */
#include "dax/media.h"
#pragma push_macro("BLOCK_SIZE")
#undef BLOCK_SIZE
#include <linux/fs.h>
#undef BLOCK_SIZE
#pragma pop_macro("BLOCK_SIZE")

struct inode;

uint32_t fsflags_get(const struct inode *ip);
int fsflags_set(struct inode *ip, uint32_t flags);
void fsflags_getxattr(const struct inode *ip, struct fsxattr *ret);
int fsflags_setxattr(struct inode *ip, const struct fsxattr *fa);

#endif
