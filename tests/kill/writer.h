/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/kill/writer.h - a process that changes files and knows what it was told
 *
 * A writer works in a directory of its own and keeps, in memory that outlives
 * the daemon, what the tree must be after every operation that was answered.
 * The one operation that was not answered when the daemon died may have
 * happened or not.  Data of a write that was under way may be old or new byte
 * by byte, and the size anything between: the kernel makes several requests of
 * one write.  With data=cow,cache=none it is one request, and atomic.
 */
#ifndef TESTS_KILL_WRITER_H
#define TESTS_KILL_WRITER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NR_NAMES 40
#define NR_FILES NR_NAMES
#define MAX_FILE 65536

enum kill_op_kind {
	K_CREATE,
	K_WRITE,
	K_MMAP,
	K_PUNCH,
	K_TRUNCATE,
	K_CHMOD,
	K_XATTR,
	K_FSYNC,
	K_LINK,
	K_UNLINK,
	K_RENAME,
	K_EXCHANGE,
	K_MKDIR,
	K_RMDIR,
	K_SYMLINK,
	NR_KILL_OPS,
};

struct kill_op {
	enum kill_op_kind kind;
	int a, b; /* names */
	uint32_t pos, len;
	uint64_t seed;
};

enum name_type {
	NAME_NONE,
	NAME_FILE,
	NAME_DIR,
	NAME_SYMLINK
};

struct name {
	enum name_type type;
	int file;	 /* of NAME_FILE */
	uint64_t target; /* of NAME_SYMLINK */
};

struct file {
	int nlink; /* 0: this slot is free */
	uint32_t size;
	mode_t mode;
	uint64_t xattr; /* value, 0 for none */
	unsigned char data[MAX_FILE];
};

struct tree {
	struct name names[NR_NAMES];
	struct file files[NR_FILES];
};

struct writer {
	int nr;
	uint64_t rng;
	volatile bool *killing; /* from here errors are no surprise */
	bool sync;		/* durable only after fsync: write-back cache */
	bool atomic;		/* no write is seen in part */
	bool pending;		/* op was begun and not answered */
	struct kill_op op;
	unsigned long nr_done[NR_KILL_OPS];
	struct tree tree;  /* all that was answered */
	struct tree other; /* the same and op; scratch for the check */
};

/* The directories, once. */
void writer_set_up(const struct writer *w);

/*
 * Work in the current directory until the daemon is gone.  Exits with 1, after
 * a line that says why, when something fails before.
 */
void writer_run(struct writer *w) __attribute__((noreturn));

/*
 * Compare the current directory with what must be there, and take note of what
 * became of the operation under way.  Return: whether all is well; prints what
 * is not.
 */
bool writer_check(struct writer *w);

#endif
