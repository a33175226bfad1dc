/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/mkfs.c - make an empty foliofs
 *
 * A few blocks are written, whatever the size: both superblocks, the lanes
 * and one block of inodes.  What the device held before stays where it was:
 * nothing points to it.
 *
 * Order.  First the old superblocks go, then everything but the new ones'
 * magic is written, and the magic comes last, with a fence between any two
 * of these steps.  So a crash leaves the old filesystem, none, or the new
 * one, and never a new superblock in front of an old inode table.
 */
#include "fs/foliofs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/fs_format.h"
#include "fs/probe.h"
#include "fs/tree.h"

#define LANE_START  UINT64_C(1)
#define LANE_BLOCKS (FOLIOFS_NR_LANES * FOLIOFS_LANE_SIZE / BLOCK_SIZE)
#define DATA_START  (LANE_START + LANE_BLOCKS)

/* What must be undone when it does not work out. */
struct file_change {
	bool created;
	bool extended;
	off_t old_size;
};

static int too_small(const struct foliofs_mkfs *opt, uint64_t size,
		     struct errmsg *err)
{
	return err_set(err, -ENOSPC,
		       "%s: too small: %" PRIu64 " KiB, and a foliofs needs at "
		       "least %" PRIu64 " KiB",
		       opt->device, size >> 10,
		       FOLIOFS_MIN_BLOCKS * BLOCK_SIZE >> 10);
}

/* The lock that pmem_open() takes, held while the file changes its size. */
static int extend_file(const struct foliofs_mkfs *opt, int fd,
		       struct file_change *change, struct errmsg *err)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return err_set(err, -errno, "%s: cannot stat: %s", opt->device,
			       strerror(errno));
	if (!S_ISREG(st.st_mode))
		return 0;
	if (flock(fd, LOCK_EX | LOCK_NB) != 0)
		return err_set(err, -EBUSY,
			       "%s: in use by another mount, mkfs or fsck",
			       opt->device);
	if ((uint64_t)st.st_size >= opt->size)
		return 0;
	if (ftruncate(fd, (off_t)opt->size) != 0)
		return err_set(err, -errno, "%s: cannot extend: %s",
			       opt->device, strerror(errno));
	change->extended = !change->created;
	change->old_size = st.st_size;
	return 0;
}

static int prepare_file(const struct foliofs_mkfs *opt,
			struct file_change *change, struct errmsg *err)
{
	int flags = O_RDWR | O_CLOEXEC | O_NONBLOCK;
	int fd, ret;

	if (opt->size < FOLIOFS_MIN_BLOCKS * BLOCK_SIZE)
		return too_small(opt, opt->size, err);
	fd = open(opt->device, flags);
	if (fd < 0 && errno == ENOENT) {
		fd = open(opt->device, flags | O_CREAT | O_EXCL, 0644);
		change->created = fd >= 0;
	}
	if (fd < 0)
		return err_set(err, -errno, "%s: cannot open: %s", opt->device,
			       strerror(errno));
	ret = extend_file(opt, fd, change, err);
	close(fd);
	return ret;
}

static void undo_file(const struct foliofs_mkfs *opt,
		      const struct file_change *change)
{
	if (change->created)
		(void)unlink(opt->device);
	else if (change->extended)
		(void)!truncate(opt->device, change->old_size);
}

static int make_uuid(const struct foliofs_mkfs *opt, uint8_t uuid[16])
{
	if (opt->uuid) {
		memcpy(uuid, opt->uuid, 16);
		return 0;
	}
	if (getrandom(uuid, 16, 0) != 16)
		return -EIO;
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* random: version 4 */
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
	return 0;
}

static le64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return cpu_to_le64(
		(uint64_t)(ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec));
}

static int fill_superblock(const struct foliofs_mkfs *opt, uint64_t nr_blocks,
			   struct foliofs_superblock *ret_sb)
{
	struct foliofs_superblock sb = {
		.magic = cpu_to_le64(FOLIOFS_MAGIC),
		.version = cpu_to_le32(FOLIOFS_VERSION),
		.block_size = cpu_to_le32((uint32_t)BLOCK_SIZE),
		.compat = cpu_to_le64(FOLIOFS_COMPAT),
		.ro_compat = cpu_to_le64(FOLIOFS_RO_COMPAT),
		.incompat = cpu_to_le64(FOLIOFS_INCOMPAT),
		.nr_blocks = cpu_to_le64(nr_blocks),
		.lane_off = cpu_to_le64(LANE_START << BLOCK_SHIFT),
		.nr_lanes = cpu_to_le32(FOLIOFS_NR_LANES),
		.lane_size = cpu_to_le32(FOLIOFS_LANE_SIZE),
		.data_start = cpu_to_le64(DATA_START),
		.created = now_ns(),
		.itable_root = cpu_to_le64(slot_make(SLOT_DATA, 0, DATA_START)),
		.state = cpu_to_le64(FOLIOFS_CLEAN),
	};
	int ret;

	ret = make_uuid(opt, sb.uuid);
	if (ret)
		return ret;
	if (opt->label)
		memcpy(sb.label, opt->label, strlen(opt->label));
	sb.crc = cpu_to_le32(
		pmem_crc32c(&sb, offsetof(struct foliofs_superblock, crc)));
	*ret_sb = sb;
	return 0;
}

static void write_root(struct pmem *pm, const struct foliofs_mkfs *opt)
{
	uint64_t off = DATA_START << BLOCK_SHIFT;
	le64 now = now_ns();
	struct foliofs_inode root = {
		.mode = cpu_to_le32(S_IFDIR | 0755),
		.nlink = cpu_to_le32(2),
		.uid = cpu_to_le32(opt->uid),
		.gid = cpu_to_le32(opt->gid),
		.atime = now,
		.mtime = now,
		.ctime = now,
		.btime = now,
		.generation = cpu_to_le32(1),
		.parent = cpu_to_le64(FOLIOFS_ROOT_INO),
	};

	pmem_zero(pm, off, BLOCK_SIZE);
	pmem_write(pm, off + FOLIOFS_ROOT_INO * FOLIOFS_INODE_SIZE, &root,
		   sizeof(root));
}

/* A superblock whose magic is still missing. */
static void write_superblock(struct pmem *pm, uint64_t off,
			     const struct foliofs_superblock *sb)
{
	pmem_write(pm, off + sizeof(sb->magic),
		   (const char *)sb + sizeof(sb->magic),
		   sizeof(*sb) - sizeof(sb->magic));
	pmem_zero(pm, off + sizeof(*sb), BLOCK_SIZE - sizeof(*sb));
}

static void write_magic(struct pmem *pm, uint64_t off)
{
	pmem_store64(pm, off, FOLIOFS_MAGIC);
	pmem_flush(pm, off, sizeof(uint64_t));
}

static int write_fs(struct pmem *pm, const struct foliofs_mkfs *opt,
		    const struct foliofs_superblock *sb, struct errmsg *err)
{
	uint64_t copy = (le64_to_cpu(sb->nr_blocks) - 1) << BLOCK_SHIFT;

	/* A larger foliofs that was here has its copy at the device's end. */
	pmem_zero(pm, 0, BLOCK_SIZE);
	pmem_zero(pm, copy, BLOCK_SIZE);
	pmem_zero(pm, pm->size - BLOCK_SIZE, BLOCK_SIZE);
	pmem_fence(pm);

	pmem_zero(pm, LANE_START << BLOCK_SHIFT, LANE_BLOCKS << BLOCK_SHIFT);
	write_root(pm, opt);
	write_superblock(pm, 0, sb);
	write_superblock(pm, copy, sb);
	pmem_fence(pm);

	/* A lost page (or no space in a sparse file) took some of this. */
	if (pmem_fault_take())
		return err_set(err, -EIO,
			       "%s: cannot be written: bad media, or no space "
			       "left for a sparse file",
			       opt->device);
	write_magic(pm, copy);
	write_magic(pm, 0);
	pmem_fence(pm);
	return 0;
}

static int make_on(struct pmem *pm, const struct foliofs_mkfs *opt,
		   struct errmsg *err)
{
	uint64_t size = opt->size ? opt->size : pm->size;
	struct foliofs_superblock sb;
	int ret;

	if (size > pm->size)
		return err_set(err, -ENOSPC,
			       "%s: has %" PRIu64 " KiB, less than the size "
			       "that was asked for",
			       opt->device, pm->size >> 10);
	if (size >> BLOCK_SHIFT < FOLIOFS_MIN_BLOCKS)
		return too_small(opt, size, err);
	if (!opt->force) {
		ret = probe_empty(opt->device, pm, err);
		if (ret)
			return ret;
	}
	ret = fill_superblock(opt, size >> BLOCK_SHIFT, &sb);
	if (ret)
		return err_set(err, ret, "%s: no random numbers for a UUID",
			       opt->device);
	return write_fs(pm, opt, &sb, err);
}

int foliofs_mkfs(const struct foliofs_mkfs *opt, struct errmsg *err)
{
	struct file_change change = { .created = false };
	struct pmem *pm = NULL;
	int ret = 0;

	if (opt->label && strlen(opt->label) > FOLIOFS_LABEL_LEN)
		return err_set(err, -EINVAL,
			       "%s: label too long, %d bytes at most",
			       opt->device, FOLIOFS_LABEL_LEN);
	if (opt->size)
		ret = prepare_file(opt, &change, err);
	if (!ret)
		ret = pmem_open(opt->device, PMEM_READ_WRITE, opt->granularity,
				&pm, err);
	if (ret == -ENOENT && !opt->size)
		err_set(err, ret, "%s: does not exist; -s SIZE makes a file",
			opt->device);
	if (!ret)
		ret = make_on(pm, opt, err);
	pmem_close(pm);
	if (ret)
		undo_file(opt, &change);
	return ret;
}
