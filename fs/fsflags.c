/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/fsflags.c - inode flags as chattr(1) and xfs_io(8) know them
 *
 * The same bits have two spellings in the kernel's interface; one table says
 * them all.
 */
#include "fs/fsflags.h"

#include <errno.h>

#include "fs/fs.h"

#ifndef FS_DAX_FL
#define FS_DAX_FL 0x02000000
#endif

static const struct {
	uint32_t media, fl, xflag;
} table[] = {
	{ FOLIOFS_FL_IMMUTABLE, FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE },
	{ FOLIOFS_FL_APPEND, FS_APPEND_FL, FS_XFLAG_APPEND },
	{ FOLIOFS_FL_DAX, FS_DAX_FL, FS_XFLAG_DAX },
	{ FOLIOFS_FL_NODUMP, FS_NODUMP_FL, FS_XFLAG_NODUMP },
	{ FOLIOFS_FL_NOATIME, FS_NOATIME_FL, FS_XFLAG_NOATIME },
	{ FOLIOFS_FL_SYNC, FS_SYNC_FL, FS_XFLAG_SYNC },
};
#define NR_FLAGS (sizeof(table) / sizeof(table[0]))

static uint32_t project(const struct inode *ip)
{
	return (uint32_t)(inode_word(ip, INODE_RDEV) >> 32);
}

/* Only files and directories have contents that a flag could be about. */
static int may_have_flags(const struct inode *ip, uint32_t flags)
{
	uint32_t mode = inode_mode(ip);

	if ((flags & FOLIOFS_FL_DAX) && !S_ISREG(mode) && !S_ISDIR(mode))
		return -EINVAL;
	return 0;
}

static int set(struct inode *ip, uint32_t media, uint32_t projid)
{
	int ret = may_have_flags(ip, media);

	return ret ? ret : fs_setflags(ip, media, projid);
}

uint32_t fsflags_get(const struct inode *ip)
{
	uint32_t media = inode_flags(ip), flags = 0;

	for (unsigned int i = 0; i < NR_FLAGS; i++)
		if (media & table[i].media)
			flags |= table[i].fl;
	return flags;
}

int fsflags_set(struct inode *ip, uint32_t flags)
{
	uint32_t media = 0;

	for (unsigned int i = 0; i < NR_FLAGS; i++) {
		if (flags & table[i].fl)
			media |= table[i].media;
		flags &= ~table[i].fl;
	}
	return flags ? -EOPNOTSUPP : set(ip, media, project(ip));
}

void fsflags_getxattr(const struct inode *ip, struct fsxattr *ret)
{
	uint32_t media = inode_flags(ip);

	*ret = (struct fsxattr){ .fsx_projid = project(ip) };
	for (unsigned int i = 0; i < NR_FLAGS; i++)
		if (media & table[i].media)
			ret->fsx_xflags |= table[i].xflag;
}

int fsflags_setxattr(struct inode *ip, const struct fsxattr *fa)
{
	uint32_t media = 0, flags = fa->fsx_xflags & ~FS_XFLAG_HASATTR;

	for (unsigned int i = 0; i < NR_FLAGS; i++) {
		if (flags & table[i].xflag)
			media |= table[i].media;
		flags &= ~table[i].xflag;
	}
	if (flags || fa->fsx_extsize || fa->fsx_cowextsize)
		return -EOPNOTSUPP;
	return set(ip, media, fa->fsx_projid);
}
