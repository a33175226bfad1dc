/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/foliofs.h - a foliofs on a device: open, close, make, check, count
 *
 * This is all that tools may include besides fs_format.h.
 *
 * Errors.    Negative errno, with a sentence in the struct errmsg that says
 *            what and where.
 * Locking.   Open and close are for one thread; statistics for any.
 * Ownership. A struct foliofs belongs to whoever opened it.
 */
#ifndef FS_FOLIOFS_H
#define FS_FOLIOFS_H

#include <stdbool.h>
#include <stdint.h>

#include "alloc/alloc.h"
#include "dax/err.h"
#include "dax/pmem.h"

struct foliofs;

enum foliofs_data {
	DATA_INPLACE, /* overwrite exclusive blocks where they are */
	DATA_COW,     /* every write(2) is atomic */
};

enum foliofs_cache {
	CACHE_THROUGH,	 /* the kernel caches reads, writes go through */
	CACHE_WRITEBACK, /* the kernel caches writes too */
	CACHE_NONE,	 /* every read and write is a request */
};

enum foliofs_atime {
	ATIME_RELATIME,
	ATIME_STRICT,
	ATIME_NEVER,
};

enum foliofs_dax {
	DAX_INODE,  /* files with the dax flag bypass the kernel's cache */
	DAX_ALWAYS, /* all files do */
	DAX_NEVER,  /* none does, and fsync(2) has nothing to do */
};

/* Who may map the device; -o dax_users=. */
#define DAX_USERS_MAX 32u
struct dax_users {
	bool all;
	unsigned int nr;
	uint32_t uid[DAX_USERS_MAX];
};

struct foliofs_options {
	const char *device;
	bool read_only;
	bool no_recovery_needed; /* tests: fail instead of replaying */
	enum foliofs_data data;
	enum foliofs_cache cache;
	enum foliofs_atime atime;
	enum foliofs_dax dax;
	enum pmem_granularity granularity;
	const char *policy;	   /* as dax/policy_host.h says; NULL: wait */
	unsigned int walk_threads; /* of the mount walk; 0: one a processor */
};

/**
 * foliofs_open() - recover, walk and make ready
 *
 * A read-only open never changes the device: what recovery replays stays in
 * this process.
 *
 * Return: 0; -EBUSY in use; -EINVAL not a foliofs; -ENOTSUP a newer version
 * or unknown feature; -EUCLEAN damaged (a read-only open goes on and keeps
 * what can be read); -ENOMEM.
 */
int foliofs_open(const struct foliofs_options *opt, struct foliofs **ret_fs,
		 struct errmsg *err);

/* Settle the journal, mark the filesystem clean, release the device. */
void foliofs_close(struct foliofs *fs);

/* As a crash would leave it: nothing settled, nothing marked.  For tests. */
void foliofs_abandon(struct foliofs *fs);

const struct foliofs_options *foliofs_options(const struct foliofs *fs);
struct pmem *foliofs_pmem(struct foliofs *fs);

/* What is to be said of the device at each mount, or NULL. */
const char *foliofs_warning(const struct foliofs *fs);

/* Where whoever handles the requests counts those that sleep. */
_Atomic(uint64_t) *foliofs_nr_waiting(struct foliofs *fs);

struct foliofs_mkfs {
	const char *device;
	uint64_t size;	     /* bytes; 0: what the device has */
	const char *label;   /* or NULL */
	const uint8_t *uuid; /* 16 bytes, or NULL for a new one */
	bool force;	     /* overwrite a filesystem that is there */
	uint32_t uid, gid;   /* of the root directory */
	enum pmem_granularity granularity;
};

/**
 * foliofs_mkfs() - make an empty foliofs
 *
 * A regular file is created or extended when @size is given.
 *
 * Return: 0; -EEXIST when there is a known filesystem and force is not set;
 * -ENOSPC too small; or what opening the device said.
 */
int foliofs_mkfs(const struct foliofs_mkfs *opt, struct errmsg *err);

/* Counters since open.  Each is exact; together they are not one instant. */
struct foliofs_stat {
	uint8_t uuid[16];
	char label[65];
	uint64_t nr_blocks;
	struct alloc_stat alloc;
	uint64_t nr_inodes;	   /* in use */
	uint64_t nr_inodes_cached; /* in DRAM */
	uint64_t nr_txns;	   /* transactions committed */
	uint64_t nr_words;	   /* words in them */
	uint64_t nr_fences;
	uint64_t nr_settles;  /* times the lanes ran out */
	uint64_t nr_replayed; /* records replayed at open */
	uint64_t nr_orphans;  /* inodes reclaimed at open */
	uint64_t nr_mounts;
	uint64_t walk_ns;    /* time of the mount walk */
	unsigned int nr_bad; /* pages lost to machine checks */
	bool damaged;	     /* something on media was wrong: see the log */
};
void foliofs_stat(struct foliofs *fs, struct foliofs_stat *ret, bool full);

#endif
