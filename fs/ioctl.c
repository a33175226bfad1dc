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

#include "dax/session.h"
#include "fs/fs.h"

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
