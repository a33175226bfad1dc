/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/ioctl.c - what a running foliofs answers about itself
 *
 * The answer is a struct of fixed size, so that the kernel copies it for us
 * (a restricted FUSE ioctl).
 */
#include "fs/ioctl.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dax/policy_host.h"
#include "dax/session.h"
#include "fs/fs.h"
#include "fs/layout.h"

static_assert(sizeof(struct foliofs_ioc_status) < 1 << 14,
	      "an ioctl number has 14 bits for the size");
static_assert(sizeof(struct foliofs_ioc_status) == 1664, "as it ever was");
static_assert(NR_BLOCK_KINDS <= FOLIOFS_STATUS_KINDS, "a place for each kind");
static_assert(NR_REQUESTS <= FOLIOFS_STATUS_OPS, "a place for each opcode");

static void put_space(const struct foliofs_stat *st,
		      struct foliofs_ioc_status *ret)
{
	ret->nr_blocks = st->nr_blocks;
	ret->nr_free = st->alloc.nr_free;
	ret->nr_reserve = st->alloc.nr_reserve;
	ret->nr_shared = st->alloc.nr_shared;
	ret->nr_empty_chunks = st->alloc.nr_empty_chunks;
	ret->nr_aside = st->alloc.nr_aside;
	for (unsigned int i = 0; i < NR_BLOCK_KINDS; i++)
		ret->nr_kind[i] = st->alloc.nr_kind[i];
}

static void put_counts(const struct foliofs_stat *st,
		       struct foliofs_ioc_status *ret)
{
	memcpy(ret->uuid, st->uuid, sizeof(ret->uuid));
	memcpy(ret->label, st->label, sizeof(st->label));
	ret->nr_inodes = st->nr_inodes;
	ret->nr_inodes_cached = st->nr_inodes_cached;
	ret->nr_txns = st->nr_txns;
	ret->nr_words = st->nr_words;
	ret->nr_fences = st->nr_fences;
	ret->nr_settles = st->nr_settles;
	ret->nr_replayed = st->nr_replayed;
	ret->nr_orphans = st->nr_orphans;
	ret->walk_ns = st->walk_ns;
	ret->nr_mounts = st->nr_mounts;
	ret->nr_bad = st->nr_bad;
	if (st->damaged)
		ret->flags |= FOLIOFS_STATUS_DAMAGED;
}

static void put_bad(const struct foliofs *fs, struct foliofs_ioc_status *ret)
{
	const unsigned int max = sizeof(ret->bad_off) / sizeof(*ret->bad_off);
	struct pmem_range bad[sizeof(ret->bad_off) / sizeof(*ret->bad_off)];
	unsigned int nr = pmem_bad_ranges(fs->pm, bad, max);

	for (unsigned int i = 0; i < nr && i < max; i++) {
		ret->bad_off[i] = bad[i].off;
		if (ret->bad_size < bad[i].len)
			ret->bad_size = (uint32_t)bad[i].len;
	}
}

static_assert(sizeof(struct foliofs_ioc_map) < 1 << 14, "the same");

int ioctl_map(struct inode *ip, struct foliofs_ioc_map *map)
{
	struct file_extent *ext;
	unsigned int nr;
	int ret;

	if (!S_ISREG(inode_mode(ip)))
		return -EINVAL;
	ext = (struct file_extent *)malloc(FOLIOFS_MAP_EXTENTS * sizeof(*ext));
	if (!ext)
		return -ENOMEM;
	ret = file_map(ip, map->pos, FOLIOFS_MAP_EXTENTS, ext, &nr);
	map->nr = nr;
	for (unsigned int i = 0; i < nr; i++) {
		map->extent[i] = (struct foliofs_ioc_extent){
			.pos = ext[i].pos, .off = ext[i].off, .len = ext[i].len
		};
		map->extent[i].flags =
			(ext[i].unwritten ? FOLIOFS_EXTENT_UNWRITTEN : 0) |
			(ext[i].shared ? FOLIOFS_EXTENT_SHARED : 0) |
			(ext[i].chunk ? FOLIOFS_EXTENT_CHUNK : 0) |
			(ext[i].behind ? FOLIOFS_EXTENT_BEHIND : 0);
		map->pos = ext[i].pos + ext[i].len;
	}
	free(ext);
	return ret;
}

int ioctl_status(struct foliofs *fs, struct foliofs_ioc_status *ret)
{
	struct foliofs_stat st;

	memset(ret, 0, sizeof(*ret));
	ret->version = FOLIOFS_STATUS_VERSION;
	ret->pid = (uint32_t)getpid();
	ret->block_size = (uint32_t)BLOCK_SIZE;
	foliofs_stat(fs, &st, true);
	put_space(&st, ret);
	put_counts(&st, ret);
	put_bad(fs, ret);
	if (atomic_load(&fs->read_only))
		ret->flags |= FOLIOFS_STATUS_READ_ONLY;
	if (fs->sessions)
		snprintf(ret->socket, sizeof(ret->socket), "%s",
			 session_server_path(fs->sessions));
	ret->nr_waiting = atomic_load(&fs->nr_waiting);
	ret->data = (uint8_t)fs->opt.data;
	ret->cache = (uint8_t)fs->opt.cache;
	ret->atime = (uint8_t)fs->opt.atime;
	ret->dax = (uint8_t)fs->opt.dax;
	ret->granularity = (uint8_t)pmem_granularity(fs->pm);
	for (unsigned int i = 0; i < NR_REQUESTS; i++)
		ret->nr_requests[i] = atomic_load_explicit(
			&fs->nr_requests[i], memory_order_relaxed);
	return 0;
}

/* Policies. */

static_assert((int)POLICY_NR_OPS == FOLIOFS_POLICY_OPS &&
		      (int)POLICY_NR_VERDICTS + 1 == FOLIOFS_POLICY_ANSWERS &&
		      POLICY_BUCKETS == FOLIOFS_POLICY_BUCKETS,
	      "what is counted is shown");
static_assert(offsetof(struct foliofs_ioc_policy_stat, reserved) -
			      offsetof(struct foliofs_ioc_policy_stat,
				       nr_breaks) ==
		      sizeof(struct policy_stat),
	      "in the same order");

void ioctl_policy_get(struct foliofs *fs, struct foliofs_ioc_policy *p)
{
	memset(p, 0, sizeof(*p));
	policy_host_get(layout_policy(fs), p->spec, p->what, sizeof(p->what));
}

int ioctl_policy_set(struct foliofs *fs, uint32_t uid,
		     struct foliofs_ioc_policy *p)
{
	struct errmsg err = { "" };

	/* It may load what its author likes into this process. */
	if (uid != 0 && uid != (uint32_t)getuid())
		return -EPERM;
	p->spec[sizeof(p->spec) - 1] = '\0';
	p->error = policy_host_set(layout_policy(fs), p->spec, &err);
	snprintf(p->what, sizeof(p->what), "%s", err.text);
	return 0;
}

int ioctl_policy_stat(struct foliofs *fs, struct foliofs_ioc_policy_stat *st)
{
	struct layout_held held;
	struct policy_stat counts;
	int ret;

	ret = policy_host_stat(layout_policy(fs), st->slot, st->op, st->name,
			       &counts);
	if (ret)
		return ret;
	snprintf(st->op_name, sizeof(st->op_name), "%s",
		 st->op < POLICY_NR_OPS ? policy_op_name(st->op) : "all");
	layout_held(fs, &held);
	st->nr_held = held.nr_blocks;
	st->nr_held_ever = held.nr_ever;
	memcpy(&st->nr_breaks, &counts, sizeof(counts));
	return 0;
}
