/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/model/ops.h - one random operation, on two filesystems alike
 *
 * op_random() draws everything that an operation needs, so that op_run() on
 * one side and on the other do the same.  A result is what a program could
 * see: the return value, errno, and a hash of the data that came back.
 */
#ifndef TESTS_MODEL_OPS_H
#define TESTS_MODEL_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NR_HANDLES 12
#define PATH_LEN   700

enum op_kind {
	OP_OPEN,
	OP_CLOSE,
	OP_WRITE,
	OP_APPEND,
	OP_READ,
	OP_TRUNCATE,
	OP_FTRUNCATE,
	OP_FALLOCATE,
	OP_COPY,
	OP_CLONE,
	OP_DEDUPE,
	OP_UNSHARE,
	OP_MMAP,
	OP_FSYNC,
	OP_FSTAT,
	OP_MKDIR,
	OP_RMDIR,
	OP_UNLINK,
	OP_LINK,
	OP_SYMLINK,
	OP_READLINK,
	OP_RENAME,
	OP_MKNOD,
	OP_CHMOD,
	OP_CHOWN,
	OP_UTIMENS,
	OP_SETXATTR,
	OP_REMOVEXATTR,
	OP_GETXATTR,
	OP_SETACL,
	OP_STAT,
	OP_READDIR,
	OP_ACCESS,
	NR_OPS,
};

struct op {
	enum op_kind kind;
	char a[PATH_LEN]; /* a path, below the side's root */
	char b[PATH_LEN];
	unsigned int h, h2; /* handles */
	unsigned int uid;   /* who does it, and their group */
	unsigned int umask;
	int flags; /* of open, fallocate, rename, setxattr */
	mode_t mode;
	off_t pos, pos2;
	size_t len;
	size_t value_len; /* of an extended attribute */
	uint64_t seed;	  /* of data */
};

struct result {
	long long ret;
	int err;
	uint64_t hash;
	char text[100]; /* what stat gave */
};

/* One of the two filesystems. */
struct side {
	const char *name;
	int root;
	int fds[NR_HANDLES]; /* -1 when closed */
};

struct known {
	char path[PATH_LEN];
	bool dir;
};

/* What exists, or did: makes that most operations meet something. */
struct paths {
	struct known known[100];
	unsigned int nr;
	unsigned int open; /* handles, as bits */
};

/* What both sides can do. */
struct limits {
	size_t max_value; /* bytes of an extended attribute */
	bool zero_range;
	bool sparse; /* holes are fast to skip */
	bool shares; /* clone, dedupe, unshare */
};

void op_random(struct op *op, uint64_t *rng, const struct paths *paths,
	       const struct limits *limits);
struct result op_run(const struct op *op, struct side *side);

/* Learn from what an operation gave. */
void op_learn(const struct op *op, const struct result *r, struct paths *paths);

/* One line about the operation, for the reader of a failure. */
void op_print(const struct op *op, char *out, size_t size);
const char *op_name(enum op_kind kind);

/* May the two sides differ in this way?  Only where Linux itself does. */
bool result_equal(const struct op *op, const struct result *a,
		  const struct result *b);

/* The times of files are the kernel's: cache=writeback. */
extern bool ops_cached_times;

#endif
