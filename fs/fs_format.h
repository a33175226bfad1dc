/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/fs_format.h - what foliofs keeps on media, and nothing else
 *
 * FORMAT.md beside this file says for every struct when it is valid.  All
 * integers are little-endian; all structs have a fixed size, pinned below.
 *
 *	block 0			superblock
 *	block 1 ...		lanes, FOLIOFS_LANE_SIZE bytes each
 *	then			blocks: nodes, data, dentries, inodes, xattrs
 *	last block		copy of the superblock
 */
#ifndef FS_FS_FORMAT_H
#define FS_FS_FORMAT_H

#include "dax/media.h"

#define FOLIOFS_MAGIC	UINT64_C(0x0073666f696c6f66) /* "foliofs\0" */
#define FOLIOFS_VERSION 1

/* Bits this version knows; a bit it does not know in incompat: no mount. */
#define FOLIOFS_COMPAT	  UINT64_C(0)
#define FOLIOFS_RO_COMPAT UINT64_C(0)
#define FOLIOFS_INCOMPAT  UINT64_C(0)

/* Below this there is no room for the tables and one file. */
#define FOLIOFS_MIN_BLOCKS 64

#define FOLIOFS_LABEL_LEN 64
#define FOLIOFS_ROOT_INO  1

/*
 * A slot points to one block and says what it is, like a page-table entry.
 *
 *	bits 0..2	what: SLOT_*
 *	bit  3		zero
 *	bits 4..7	level
 *	bits 8..11	zero
 *	bits 12..63	block number (so that masking gives the media offset)
 *
 * A node of level n holds 512 slots of level n - 1.  Data of level 0 is one
 * block, of level 1 a naturally aligned chunk of 2 MiB.  The word 0 is a hole.
 */
#define SLOT_HOLE	 0u
#define SLOT_NODE	 1u
#define SLOT_DATA	 2u
#define SLOT_UNWRITTEN	 3u
#define SLOT_TYPE_MASK	 UINT64_C(0x7)
#define SLOT_LEVEL_SHIFT 4
#define SLOT_LEVEL_MASK	 UINT64_C(0xf)
#define SLOT_ZERO_MASK	 UINT64_C(0xf08)

#define NODE_SHIFT     9
#define NODE_SLOTS     (1u << NODE_SHIFT)
#define NODE_MAX_LEVEL 4

/* One past the last page that a tree of the highest level can hold. */
#define FOLIOFS_MAX_PAGES (UINT64_C(1) << (NODE_MAX_LEVEL * NODE_SHIFT))
#define FOLIOFS_MAX_SIZE  (FOLIOFS_MAX_PAGES << BLOCK_SHIFT)

struct foliofs_node {
	le64 slot[NODE_SLOTS];
};
MEDIA_SIZE(struct foliofs_node, 4096);

struct foliofs_superblock {
	/* 0x000: fixed at mkfs, covered by crc */
	le64 magic;	 /* FOLIOFS_MAGIC */
	le32 version;	 /* FOLIOFS_VERSION */
	le32 block_size; /* BLOCK_SIZE */
	le64 compat;	 /* feature bits: unknown ones may be ignored */
	le64 ro_compat;	 /* unknown: read-only */
	le64 incompat;	 /* unknown: not at all */
	le64 nr_blocks;	 /* of the filesystem, both superblocks included */
	le64 lane_off;	 /* first lane, bytes */
	le32 nr_lanes;
	le32 lane_size;	 /* FOLIOFS_LANE_SIZE */
	le64 data_start; /* first block that slots may point to */
	le64 created;	 /* ns since 1970 */
	uint8_t uuid[16];
	char label[FOLIOFS_LABEL_LEN]; /* zero-padded, not always terminated */
	uint8_t reserved0[88];
	le32 reserved1;
	le32 crc; /* CRC-32C of bytes 0x000 to 0x0fb */

	/* 0x100: words that change, each on its own */
	le64 itable_root; /* slot: root of the inode table */
	le64 state;	  /* FOLIOFS_CLEAN or FOLIOFS_DIRTY */
	le64 nr_mounts;	  /* read-write mounts so far */
	uint8_t reserved2[232];
};
MEDIA_SIZE(struct foliofs_superblock, 512);
MEDIA_OFFSET(struct foliofs_superblock, crc, 0xfc);
MEDIA_OFFSET(struct foliofs_superblock, itable_root, 0x100);

#define FOLIOFS_CLEAN UINT64_C(0x6e61656c63) /* "clean" */
#define FOLIOFS_DIRTY UINT64_C(0x7974726964) /* "dirty" */

/*
 * A lane holds the record of one transaction.  crc covers seq, nr and the
 * words.  seq == 0: retired, or never used.
 */
#define FOLIOFS_LANE_SIZE  1024
#define FOLIOFS_LANE_WORDS 62
#define FOLIOFS_NR_LANES   64

struct foliofs_word {
	le64 off;   /* media offset, 8-byte aligned */
	le64 value; /* what to store there */
};

struct foliofs_lane {
	le64 seq;
	le32 nr; /* words, 1 to FOLIOFS_LANE_WORDS */
	le32 crc;
	le64 reserved[2];
	struct foliofs_word word[FOLIOFS_LANE_WORDS];
};
MEDIA_SIZE(struct foliofs_lane, 1024);

/*
 * Inode n is at byte n * 256 of the inode table.  mode == 0 and nlink == 0:
 * free, and only generation means anything.  The first cache line holds what
 * changes often.
 */
#define FOLIOFS_INODE_SIZE     256
#define FOLIOFS_INODES_BLOCK   (BLOCK_SIZE / FOLIOFS_INODE_SIZE)
#define FOLIOFS_INLINE_SYMLINK 128

struct foliofs_inode {
	/* 0x00 */
	le32 mode; /* S_IFMT and permission bits */
	le32 nlink;
	le64 size;
	le64 data;  /* slot: contents */
	le64 xattr; /* slot: extended attributes, level 0 or 1 */
	le32 uid;
	le32 gid;
	le64 atime; /* ns since 1970, signed, each its own word */
	le64 mtime;
	le64 ctime;
	/* 0x40 */
	le64 btime;
	le32 generation;
	le32 flags; /* FOLIOFS_FL_* */
	le32 rdev;  /* as the kernel's new_encode_dev() */
	le32 projid;
	le64 parent; /* directories: inode number of .. */
	le64 reserved[4];
	/* 0x80 */
	char symlink[FOLIOFS_INLINE_SYMLINK]; /* when size fits, no NUL */
};
MEDIA_SIZE(struct foliofs_inode, 256);
MEDIA_OFFSET(struct foliofs_inode, btime, 0x40);
MEDIA_OFFSET(struct foliofs_inode, symlink, 0x80);

#define FOLIOFS_FL_IMMUTABLE UINT32_C(0x01)
#define FOLIOFS_FL_APPEND    UINT32_C(0x02)
#define FOLIOFS_FL_DAX	     UINT32_C(0x04)
#define FOLIOFS_FL_NODUMP    UINT32_C(0x08)
#define FOLIOFS_FL_NOATIME   UINT32_C(0x10)
#define FOLIOFS_FL_SYNC	     UINT32_C(0x20)
#define FOLIOFS_FL_ALL	     UINT32_C(0x3f)

/*
 * A directory is a file of blocks, each filled by a chain of dentries.  A
 * dentry never moves.  ino == 0: free space.
 */
struct foliofs_dentry {
	le64 ino;
	le16 rec_len; /* bytes to the next one, multiple of 8 */
	uint8_t name_len;
	uint8_t type; /* DT_*: S_IFMT >> 12 */
	le32 reserved;
	char name[];
};
MEDIA_SIZE(struct foliofs_dentry, 16);
#define DENTRY_MIN_LEN 24u
#define DENTRY_LEN(name_len) \
	((unsigned int)(sizeof(struct foliofs_dentry) + (name_len) + 7u) & ~7u)
#define FOLIOFS_NAME_MAX 255

/*
 * Extended attributes of an inode are one run of bytes in a small tree of
 * their own: this header, then the records, one behind the other.
 */
struct foliofs_xattr_header {
	le32 magic; /* FOLIOFS_XATTR_MAGIC */
	le32 nr;    /* records */
	le64 len;   /* bytes in use, header included */
};
MEDIA_SIZE(struct foliofs_xattr_header, 16);
#define FOLIOFS_XATTR_MAGIC UINT32_C(0x74617866) /* "fxat" */

/* Name without NUL, then the value, padded to a multiple of 8. */
struct foliofs_xattr {
	le32 value_len;
	uint8_t name_len;
	uint8_t reserved[3];
	char name[];
};
MEDIA_SIZE(struct foliofs_xattr, 8);
#define FOLIOFS_XATTR_VALUE_MAX 65536
/* All attributes of one inode: a tree of level 1. */
#define FOLIOFS_XATTR_MAX (NODE_SLOTS * BLOCK_SIZE)

#endif
