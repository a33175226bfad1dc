/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/super.c - open and close a foliofs
 */
#include "fs/foliofs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "fs/layout.h"

/* Complaints beyond this many add nothing and fill somebody's disk. */
#define MAX_COMPLAINTS 100

static const struct foliofs_superblock *super(const struct foliofs *fs)
{
	return (const struct foliofs_superblock *)pmem_at(fs->pm, 0);
}

int fs_damaged(struct foliofs *fs, const char *fmt, ...)
{
	static _Atomic(unsigned int) nr;
	char text[256];
	va_list ap;

	/* Zeros in the place of a page that was lost just now. */
	if (pmem_fault_pending())
		return -EIO;
	atomic_store(&fs->damaged, true);
	if (fs->quiet || atomic_fetch_add(&nr, 1) >= MAX_COMPLAINTS)
		return -EUCLEAN;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "foliofs: %s: damaged: %s\n", fs->opt.device, text);
	syslog(LOG_ERR, "%s: damaged: %s", fs->opt.device, text);
	return -EUCLEAN;
}

int super_check(const struct foliofs_superblock *sb, uint64_t dev_blocks,
		const char *device, struct errmsg *err)
{
	uint64_t nr_blocks = le64_to_cpu(sb->nr_blocks);
	uint64_t lane_off = le64_to_cpu(sb->lane_off);
	uint64_t start = le64_to_cpu(sb->data_start);
	uint32_t nr_lanes = le32_to_cpu(sb->nr_lanes);

	if (le64_to_cpu(sb->magic) != FOLIOFS_MAGIC)
		return err_set(err, -EINVAL,
			       "%s: not a foliofs; make one with mkfs.foliofs",
			       device);
	if (pmem_crc32c(sb, offsetof(struct foliofs_superblock, crc)) !=
	    le32_to_cpu(sb->crc))
		return err_set(err, -EUCLEAN,
			       "%s: superblock: wrong checksum; fsck.foliofs "
			       "-y can restore it from its copy",
			       device);
	if (le32_to_cpu(sb->version) != FOLIOFS_VERSION)
		return err_set(err, -ENOTSUP,
			       "%s: format version %u, this program knows %u; "
			       "use a newer foliofs",
			       device, le32_to_cpu(sb->version),
			       FOLIOFS_VERSION);
	if (le64_to_cpu(sb->incompat) & ~FOLIOFS_INCOMPAT)
		return err_set(err, -ENOTSUP,
			       "%s: unknown incompatible features %#jx; use a "
			       "newer foliofs",
			       device,
			       (uintmax_t)(le64_to_cpu(sb->incompat) &
					   ~FOLIOFS_INCOMPAT));
	if (le32_to_cpu(sb->block_size) != BLOCK_SIZE)
		return err_set(err, -EUCLEAN,
			       "%s: superblock: block size %u, must be %ju",
			       device, le32_to_cpu(sb->block_size),
			       (uintmax_t)BLOCK_SIZE);
	if (nr_blocks > dev_blocks)
		return err_set(err, -EINVAL,
			       "%s: filesystem has %ju blocks but the device "
			       "only %ju: truncated?",
			       device, (uintmax_t)nr_blocks,
			       (uintmax_t)dev_blocks);
	if (nr_blocks < FOLIOFS_MIN_BLOCKS || lane_off % BLOCK_SIZE != 0 ||
	    lane_off < BLOCK_SIZE || nr_lanes < 1 ||
	    nr_lanes > FOLIOFS_NR_LANES ||
	    le32_to_cpu(sb->lane_size) != FOLIOFS_LANE_SIZE ||
	    start >= nr_blocks || lane_off >= start << BLOCK_SHIFT ||
	    (start << BLOCK_SHIFT) - lane_off <
		    (uint64_t)nr_lanes * FOLIOFS_LANE_SIZE)
		return err_set(err, -EUCLEAN,
			       "%s: superblock: impossible layout", device);
	return 0;
}

/* Freed by truncate and unlink even when nothing else is left. */
static uint64_t reserve_for(uint64_t nr_blocks)
{
	uint64_t nr = nr_blocks / 128;

	if (nr < 8)
		return 8;
	return nr > 256 ? 256 : nr;
}

static void store_word(struct foliofs *fs, size_t field, uint64_t value)
{
	pmem_store64(fs->pm, field, value);
	pmem_flush(fs->pm, field, sizeof(value));
	pmem_fence(fs->pm);
}

static int open_device(struct foliofs *fs, struct errmsg *err)
{
	const struct foliofs_options *opt = &fs->opt;
	int ret;

	ret = pmem_open(opt->device,
			opt->read_only ? PMEM_PRIVATE : PMEM_READ_WRITE,
			opt->granularity, &fs->pm, err);
	if (ret)
		return ret;
	if (fs->pm->size < FOLIOFS_MIN_BLOCKS * BLOCK_SIZE)
		return err_set(err, -EINVAL,
			       "%s: too small for a foliofs: %ju bytes",
			       opt->device, (uintmax_t)fs->pm->size);
	ret = super_check(super(fs), fs->pm->size >> BLOCK_SHIFT, opt->device,
			  err);
	if (pmem_fault_take())
		return err_set(err, -EIO, "%s: cannot read the superblock",
			       opt->device);
	if (ret)
		return ret;
	if ((le64_to_cpu(super(fs)->ro_compat) & ~FOLIOFS_RO_COMPAT) &&
	    !opt->read_only)
		return err_set(err, -ENOTSUP,
			       "%s: unknown features %#jx; mount with -o ro, "
			       "or use a newer foliofs",
			       opt->device,
			       (uintmax_t)le64_to_cpu(super(fs)->ro_compat));
	fs->nr_blocks = le64_to_cpu(super(fs)->nr_blocks);
	fs->data_start = le64_to_cpu(super(fs)->data_start);
	return 0;
}

static void free_all(struct foliofs *fs)
{
	icache_destroy(fs);
	layout_destroy(fs);
	itable_destroy(fs);
	journal_close(fs);
	alloc_destroy(fs->al);
	pmem_close(fs->pm);
	mutex_destroy(&fs->rename_lock);
	pthread_cond_destroy(&fs->space_cond);
	mutex_destroy(&fs->space_lock);
	free(fs->device);
	free(fs);
}

int foliofs_open(const struct foliofs_options *opt, struct foliofs **ret_fs,
		 struct errmsg *err)
{
	struct foliofs *fs;
	int ret;

	fs = (struct foliofs *)calloc(1, sizeof(*fs));
	if (!fs)
		return err_set(err, -ENOMEM, "out of memory");
	mutex_init(&fs->rename_lock, LOCK_RENAME);
	mutex_init(&fs->space_lock, LOCK_LEAF);
	cond_init(&fs->space_cond);
	fs->opt = *opt;
	fs->device = strdup(opt->device);
	fs->opt.device = fs->device;
	fs->hash_seed = (uint64_t)time_now() ^ (uintptr_t)fs;
	if (!fs->device) {
		ret = err_set(err, -ENOMEM, "out of memory");
		goto fail;
	}

	ret = open_device(fs, err);
	if (ret)
		goto fail;
	ret = journal_open(fs, err);
	if (ret)
		goto fail;
	ret = alloc_create(fs->nr_blocks, reserve_for(fs->nr_blocks), &fs->al);
	if (!ret)
		ret = itable_create(fs);
	if (!ret)
		ret = icache_create(fs);
	if (!ret)
		ret = layout_create(fs, err);
	if (ret) {
		if (ret == -ENOMEM)
			err_set(err, ret, "%s: out of memory", opt->device);
		goto fail;
	}
	ret = walk_mount(fs, err);
	if (!ret)
		ret = inode_get(fs, FOLIOFS_ROOT_INO, &fs->root);
	if (ret)
		goto fail;
	/* Walking is over: from here on, changes stay in this process. */
	atomic_store(&fs->read_only, opt->read_only);
	if (!opt->read_only)
		store_word(fs, offsetof(struct foliofs_superblock, state),
			   FOLIOFS_DIRTY);
	*ret_fs = fs;
	return 0;
fail:
	free_all(fs);
	return ret;
}

void foliofs_close(struct foliofs *fs)
{
	if (!fs)
		return;
	icache_drop(fs);
	if (!atomic_load(&fs->read_only)) {
		journal_settle(fs);
		store_word(fs, offsetof(struct foliofs_superblock, state),
			   FOLIOFS_CLEAN);
	}
	free_all(fs);
}

void foliofs_abandon(struct foliofs *fs)
{
	free_all(fs);
}

const struct foliofs_options *foliofs_options(const struct foliofs *fs)
{
	return &fs->opt;
}

_Atomic(uint64_t) *foliofs_nr_waiting(struct foliofs *fs)
{
	return &fs->nr_waiting;
}

struct pmem *foliofs_pmem(struct foliofs *fs)
{
	return fs->pm;
}

const char *foliofs_warning(const struct foliofs *fs)
{
	return pmem_warning(fs->pm);
}

void foliofs_stat(struct foliofs *fs, struct foliofs_stat *ret, bool full)
{
	struct journal_stat js;

	evict_collected(fs);
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->uuid, super(fs)->uuid, sizeof(ret->uuid));
	memcpy(ret->label, super(fs)->label, FOLIOFS_LABEL_LEN);
	ret->nr_blocks = fs->nr_blocks;
	alloc_stat(fs->al, &ret->alloc, full);
	ret->nr_inodes = itable_nr_used(fs);
	ret->nr_inodes_cached = icache_nr(fs);
	journal_stat(fs, &js);
	ret->nr_txns = js.nr_txns;
	ret->nr_words = js.nr_words;
	ret->nr_settles = js.nr_settles;
	ret->nr_replayed = js.nr_replayed;
	ret->nr_fences = pmem_nr_fences(fs->pm);
	ret->nr_orphans = fs->nr_orphans;
	ret->nr_mounts = le64_to_cpu(super(fs)->nr_mounts);
	ret->walk_ns = fs->walk_ns;
	ret->nr_bad = atomic_load(&fs->pm->nr_bad);
	ret->damaged = atomic_load(&fs->damaged);
}
