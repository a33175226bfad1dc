/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/ioctl.h - what a running foliofs answers about itself
 *
 * The call goes to any directory of the mount:
 *
 *	struct foliofs_ioc_status st;
 *	ioctl(fd, FOLIOFS_IOC_STATUS, &st);
 *
 * A later version only turns reserved fields into fields; a program that
 * knows version n can read the answer of any version from n on.
 *
 * Errors.    -ENOTTY from other filesystems.
 */
#ifndef FS_IOCTL_H
#define FS_IOCTL_H

#include <stdint.h>
#include <sys/ioctl.h>

struct foliofs;
struct inode;

#define FOLIOFS_STATUS_VERSION 2
#define FOLIOFS_STATUS_KINDS   16
#define FOLIOFS_STATUS_OPS     64

#define FOLIOFS_STATUS_DAMAGED	 UINT32_C(1) /* something was wrong: see log */
#define FOLIOFS_STATUS_READ_ONLY UINT32_C(2)

struct foliofs_ioc_status {
	uint32_t version; /* FOLIOFS_STATUS_VERSION */
	uint32_t flags;	  /* FOLIOFS_STATUS_* */
	uint8_t uuid[16];
	char label[72]; /* terminated */
	uint32_t pid;	/* of the daemon */
	uint32_t block_size;

	/* Space, in blocks (chunks where it says so). */
	uint64_t nr_blocks;
	uint64_t nr_free;
	uint64_t nr_reserve;
	uint64_t nr_shared;
	uint64_t nr_empty_chunks;
	uint64_t nr_aside;			/* chunks */
	uint64_t nr_kind[FOLIOFS_STATUS_KINDS]; /* by enum block_kind */

	uint64_t nr_inodes;
	uint64_t nr_inodes_cached;
	uint64_t nr_waiting; /* requests that sleep */

	/* Since the mount. */
	uint64_t nr_txns;
	uint64_t nr_words;
	uint64_t nr_fences;
	uint64_t nr_settles;
	uint64_t nr_replayed;
	uint64_t nr_orphans;
	uint64_t walk_ns;
	uint64_t nr_mounts; /* since mkfs */

	/* How it was mounted: the enums of fs/foliofs.h and dax/pmem.h. */
	uint8_t data, cache, atime, dax, granularity;
	uint8_t reserved0[3];

	/* Pages lost to machine checks, the first few by media offset. */
	uint32_t nr_bad;
	uint32_t bad_size; /* bytes of each */
	uint64_t bad_off[32];

	/* Requests since the mount, by FUSE opcode (linux/fuse.h). */
	uint64_t nr_requests[FOLIOFS_STATUS_OPS];

	/* Since version 2: where the daemon listens (dax/proto.h), or empty. */
	char socket[112]; /* terminated */

	uint64_t reserved[50];
};

#define FOLIOFS_IOC_STATUS _IOR('f', 200, struct foliofs_ioc_status)

/* FOLIOFS_IOC_MAP: what is on media of a file, as FIEMAP would say it. */
#define FOLIOFS_EXTENT_UNWRITTEN UINT32_C(1)
#define FOLIOFS_EXTENT_SHARED	 UINT32_C(2)
#define FOLIOFS_EXTENT_CHUNK	 UINT32_C(4) /* of a 2 MiB slot: order 9 */
#define FOLIOFS_EXTENT_BEHIND	 UINT32_C(8) /* behind the end of the file */
#define FOLIOFS_MAP_EXTENTS	 500	     /* the kernel passes 16 KiB */

struct foliofs_ioc_extent {
	uint64_t pos; /* bytes of the file */
	uint64_t off; /* bytes of the device */
	uint64_t len;
	uint32_t flags; /* FOLIOFS_EXTENT_ */
	uint32_t reserved;
};

struct foliofs_ioc_map {
	uint64_t pos; /* in: where to begin, bytes; out: where to go on */
	uint32_t nr;  /* out: extents; less than FOLIOFS_MAP_EXTENTS: all */
	uint32_t reserved;
	struct foliofs_ioc_extent extent[FOLIOFS_MAP_EXTENTS];
};

/* FOLIOFS_IOC_UNSHARE: blocks of its own for a range, as
 * fallocate(FALLOC_FL_UNSHARE_RANGE), which FUSE does not pass on. */
struct foliofs_ioc_range {
	uint64_t pos; /* bytes */
	uint64_t len;
};

/*
 * FOLIOFS_IOC_POLICY: what decides when blocks that go are in use.  SET is for
 * root and whoever mounted; it answers 0 with the error in here, for which
 * there is a sentence.
 */
struct foliofs_ioc_policy {
	char spec[1024]; /* NAME:key=value..., as dax/policy_host.h says */
	char what[256];	 /* GET: what it does; SET: what is wrong */
	int32_t error;	 /* SET: 0 or a negative errno */
	uint32_t reserved;
};

/* FOLIOFS_IOC_POLICY_STAT: counters of a policy since the mount. */
#define FOLIOFS_POLICY_OPS     10
#define FOLIOFS_POLICY_ANSWERS 8
#define FOLIOFS_POLICY_BUCKETS 28
#define FOLIOFS_POLICY_ALL     UINT32_C(0xffffffff)
struct foliofs_ioc_policy_stat {
	uint32_t slot; /* in: 0, 1, ... until -ENOENT */
	uint32_t op;   /* in: which operation, or FOLIOFS_POLICY_ALL */
	char name[32]; /* of the policy */
	char op_name[16];
	uint64_t nr_held, nr_held_ever; /* blocks of the whole mount */
	uint64_t nr_breaks, nr_busy, nr_waits, nr_asks, nr_recalls;
	uint64_t nr_answers[FOLIOFS_POLICY_ANSWERS]; /* policy_verdict */
	uint64_t nr_refusals, nr_revokes, nr_deferred, nr_failed;
	uint64_t wait_ns, max_ns; /* in all, and the longest */
	/* Waits of [2^i, 2^(i+1)) microseconds; the ends are open. */
	uint64_t wait_us[FOLIOFS_POLICY_BUCKETS];
	uint64_t reserved[16];
};

#define FOLIOFS_IOC_POLICY_GET	_IOR('f', 210, struct foliofs_ioc_policy)
#define FOLIOFS_IOC_POLICY_SET	_IOWR('f', 211, struct foliofs_ioc_policy)
#define FOLIOFS_IOC_POLICY_STAT _IOWR('f', 212, struct foliofs_ioc_policy_stat)

#define FOLIOFS_IOC_MAP	    _IOWR('f', 205, struct foliofs_ioc_map)
#define FOLIOFS_IOC_UNSHARE _IOW('f', 206, struct foliofs_ioc_range)

/* For ops.c, which answers the call.  0 or a negative errno. */
int ioctl_status(struct foliofs *fs, struct foliofs_ioc_status *ret);
int ioctl_map(struct inode *ip, struct foliofs_ioc_map *map);
void ioctl_policy_get(struct foliofs *fs, struct foliofs_ioc_policy *p);
/* @uid: of whoever asks. */
int ioctl_policy_set(struct foliofs *fs, uint32_t uid,
		     struct foliofs_ioc_policy *p);
int ioctl_policy_stat(struct foliofs *fs, struct foliofs_ioc_policy_stat *st);

#endif
