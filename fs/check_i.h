/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/check_i.h - what the parts of the checker share
 *
 * check.c runs the passes, check_super.c looks at superblocks and lanes,
 * check_inode.c at the table, the inodes and their trees, check_name.c at
 * directories and links, and check_repair.c does what words cannot: whatever
 * needs blocks, and lost+found.
 *
 * A pass goes on behind a fault as if it had been repaired, and it has been,
 * if only in a private copy: fix_word() changes media in both cases.
 */
#ifndef FS_CHECK_I_H
#define FS_CHECK_I_H

#include "fs/check.h"
#include "fs/fs.h"

/* What names say about an inode, to be compared with what it says itself. */
struct check_rec {
	uint64_t parent;     /* directories: where its name is; 0 nowhere */
	uint64_t dentry_off; /* of that name */
	uint32_t links;	     /* names, or of a directory its subdirectories */
	uint8_t type;	     /* S_IFMT >> 12; 0: not in use */
	uint8_t flags;	     /* REC_* */
};
#define REC_ORPHAN 1u /* no links: its blocks are not marked */
#define REC_LOST   2u /* will get a name in lost+found */
#define REC_PATH   4u /* on the way up that is looked at now */
#define REC_DONE   8u /* its way up is known to end */

/* The names of one directory, by hash, to find what is there twice. */
struct check_names {
	uint64_t *off; /* media offsets of dentries */
	uint64_t mask, nr;
};

struct check {
	const struct check_options *opt;
	struct check_result *result;
	struct errmsg *err;
	struct foliofs *fs;
	struct txn txn;
	unsigned int pass;
	uint64_t pass_errors;
	int ret;	  /* why the check cannot go on, or 0 */
	bool again;	  /* blocks are in use that this pass did not mark */
	bool no_root;	  /* the table has no block for the root inode */
	struct vec table; /* pairs: index in the table, block */
	struct check_rec *rec; /* FOLIOFS_INODES_BLOCK for each pair */
	struct vec rebuild;    /* directories with holes or a wrong size */
	struct vec trim;       /* files with data behind their end */
	struct vec lost;       /* inodes without a name */
	struct check_names names;
};

/* check.c */
void problem(struct check *ck, enum check_severity severity, uint64_t ino,
	     uint64_t off, bool fixable, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
/* An error that fix_word() or a later step repairs. */
#define fault(ck, ino, off, ...) \
	problem(ck, CHECK_ERROR, ino, off, true, __VA_ARGS__)
/* Bits @mask of the word at @off become those of @value. */
void fix_word(struct check *ck, uint64_t off, uint64_t mask, uint64_t value);
/* Make what was fixed visible. */
void fix_commit(struct check *ck);
void push(struct check *ck, struct vec *v, uint64_t x);
/* Tell how far we are; stops the check if it is told to. */
void progress(struct check *ck, enum check_phase phase, uint64_t done,
	      uint64_t total);

#define ALL_BITS  UINT64_MAX
#define LOW_BITS  UINT64_C(0x00000000ffffffff)
#define HIGH_BITS UINT64_C(0xffffffff00000000)

/* check_super.c */
int check_super(struct check *ck);
void check_lanes(struct check *ck);
void check_super_after(struct check *ck);
void repair_mark_clean(struct check *ck);

/* check_inode.c */
void check_table(struct check *ck);
void check_inodes(struct check *ck);
/* NULL when the table has no such inode. */
struct check_rec *find_rec(const struct check *ck, uint64_t ino);
uint64_t rec_ino(const struct check *ck, uint64_t i);
uint64_t rec_off(const struct check *ck, uint64_t i);
uint64_t nr_recs(const struct check *ck);
const struct foliofs_inode *media_inode(const struct check *ck, uint64_t i);

/* check_name.c */
void check_names(struct check *ck);
void check_links(struct check *ck);

/* check_repair.c */
void repair_trees(struct check *ck);
/* Opens the device anew: the check's own mapping of it is closed. */
int repair_lost(struct check *ck);

#endif
