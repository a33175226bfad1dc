/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/probe.c - is there a filesystem on this device already?
 *
 * libblkid reads with read(2), which a device DAX device does not have.  So
 * it is given a file in memory with the same first and last megabytes there:
 * that is where filesystems keep what they are known by.
 */
#include "fs/probe.h"

#include <blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/fs_format.h"

/* VMFS looks furthest in: it is known by what stands at 2 MiB. */
#define PROBE_HEAD (UINT64_C(4) << 20)
#define PROBE_TAIL (UINT64_C(1) << 20)

static int copy_out(int fd, const struct pmem *pm, uint64_t off, uint64_t len)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, pmem_at(pm, off), len, (off_t)off);

		if (n < 0)
			return -errno;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* A file in memory that looks like the device to libblkid. */
static int open_mirror(const struct pmem *pm)
{
	uint64_t head = pm->size < PROBE_HEAD ? pm->size : PROBE_HEAD;
	uint64_t tail =
		pm->size - head < PROBE_TAIL ? pm->size - head : PROBE_TAIL;
	int fd, ret;

	fd = memfd_create("foliofs-probe", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = ftruncate(fd, (off_t)pm->size) == 0 ? 0 : -errno;
	if (!ret)
		ret = copy_out(fd, pm, 0, head);
	if (!ret)
		ret = copy_out(fd, pm, pm->size - tail, tail);
	if (ret) {
		close(fd);
		return ret;
	}
	return fd;
}

static int open_readable(const char *path, const struct pmem *pm)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return open_mirror(pm);
}

static int name_found(blkid_probe pr, const char *path, struct errmsg *err)
{
	const char *what = NULL, *label = NULL;

	if (blkid_probe_lookup_value(pr, "TYPE", &what, NULL) == 0) {
		if (blkid_probe_lookup_value(pr, "LABEL", &label, NULL) != 0)
			label = NULL;
		return err_set(err, -EEXIST,
			       "%s: holds %s (%s%s%s); -f overwrites it", path,
			       "a filesystem", what, label ? ", label " : "",
			       label ? label : "");
	}
	if (blkid_probe_lookup_value(pr, "PTTYPE", &what, NULL) != 0)
		what = "unknown";
	return err_set(err, -EEXIST,
		       "%s: holds a partition table (%s); -f overwrites it",
		       path, what);
}

static int ask_blkid(blkid_probe pr, int fd, const char *path,
		     struct errmsg *err)
{
	if (blkid_probe_set_device(pr, fd, 0, 0) != 0)
		return err_set(err, -EIO, "%s: cannot be probed", path);
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE |
						      BLKID_SUBLKS_LABEL);
	blkid_probe_enable_partitions(pr, 1);

	switch (blkid_do_safeprobe(pr)) {
	case 1:
		return 0;
	case 0:
		return name_found(pr, path, err);
	case -2:
		return err_set(err, -EEXIST,
			       "%s: holds traces of more than one filesystem; "
			       "-f overwrites them",
			       path);
	default:
		return err_set(err, -EIO, "%s: cannot be read", path);
	}
}

int probe_empty(const char *path, const struct pmem *pm, struct errmsg *err)
{
	blkid_probe pr;
	int fd, ret;

	if (pmem_load64(pm, 0) == FOLIOFS_MAGIC)
		return err_set(err, -EEXIST,
			       "%s: holds a foliofs; -f overwrites it", path);
	if (pmem_load64(pm, pm->size - BLOCK_SIZE) == FOLIOFS_MAGIC)
		return err_set(err, -EEXIST,
			       "%s: holds a foliofs without its first "
			       "superblock (fsck.foliofs may restore it); -f "
			       "overwrites it",
			       path);

	fd = open_readable(path, pm);
	if (fd < 0)
		return err_set(err, fd, "%s: cannot be probed: %s", path,
			       strerror(-fd));
	pr = blkid_new_probe();
	ret = pr ? ask_blkid(pr, fd, path, err)
		 : err_set(err, -ENOMEM, "%s: out of memory", path);
	blkid_free_probe(pr);
	close(fd);
	return ret;
}
