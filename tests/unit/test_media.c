/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_media.c - pages of metadata that are lost while in use
 *
 * A page is lost by mapping a file without contents over it: whoever touches
 * it gets SIGBUS.  The device below is as it was, so that a new mount shows
 * what had reached it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/check.h"
#include "fs/fs.h"

#define DEVICE_SIZE (UINT64_C(16) << 20)
#define NR_FILES    200u

static char device[64];
static struct foliofs *fs;
static struct inode *dir;

static const struct cred cred = { .umask = 022 };

static void open_fs(void)
{
	struct foliofs_options opt = { .device = device };
	struct errmsg err = { "" };

	cr_assert_eq(foliofs_open(&opt, &fs, &err), 0, "%s", err.text);
}

static int make(const char *name, uint32_t mode)
{
	struct new_inode want = { .mode = mode };
	struct inode *ip;
	int ret = fs_create(dir, name, &cred, &want, &ip);

	if (!ret)
		inode_put(ip);
	return ret;
}

static const char *name_of(unsigned int nr)
{
	static char name[FOLIOFS_NAME_MAX + 1];

	(void)snprintf(name, sizeof(name), "file %u with a long enough name",
		       nr);
	return name;
}

static struct inode *find(const char *name)
{
	struct inode *ip = NULL;

	cr_assert_eq(fs_lookup(dir, name, &ip), 0, "%s", name);
	return ip;
}

static void setup(void)
{
	struct foliofs_mkfs opt = { .device = device, .size = DEVICE_SIZE };
	struct errmsg err = { "" };

	(void)snprintf(device, sizeof(device), "/dev/shm/foliofs-media-%d",
		       (int)getpid());
	cr_assert_eq(foliofs_mkfs(&opt, &err), 0, "%s", err.text);
	open_fs();
	cr_assert_eq(inode_get(fs, FOLIOFS_ROOT_INO, &dir), 0);
}

static void fill_dir(void)
{
	for (unsigned int i = 0; i < NR_FILES; i++)
		cr_assert_eq(make(name_of(i), S_IFREG | 0600), 0);
}

static void teardown(void)
{
	unlink(device);
}

/* What a new mount and fsck say of what is on the device. */
static void reopen(void)
{
	struct check_options opt = { .device = device };
	struct check_result res;
	struct errmsg err = { "" };

	inode_put(dir);
	foliofs_close(fs);
	cr_assert_eq(foliofs_check(&opt, &res, &err), 0, "%s", err.text);
	cr_expect_eq(res.nr_errors, 0);
	open_fs();
	cr_assert_eq(inode_get(fs, FOLIOFS_ROOT_INO, &dir), 0);
}

static void lose(uint64_t off)
{
	union {
		const unsigned char *in;
		void *out;
	} p = { .in = fs->pm->base + (off & ~BLOCK_MASK) };
	int fd = memfd_create("lost", MFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(mmap(p.out, BLOCK_SIZE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_FIXED, fd, 0),
		     p.out);
	close(fd);
	pmem_fault_take();
}

TestSuite(media, .init = setup, .fini = teardown, .timeout = 30);

Test(media, page_of_inodes)
{
	struct inode *ip;
	uint64_t lost;
	int ret;

	fill_dir();
	ip = find(name_of(NR_FILES - 1));
	lost = ip->off & ~BLOCK_MASK;
	inode_put(ip);
	lose(lost);
	ret = fs_lookup(dir, name_of(NR_FILES - 1), &ip);
	cr_expect_eq(ret, -EIO, "%d", ret);
	cr_expect(pmem_fault_take());
	cr_expect(!fs->damaged, "lost media is no damage");

	/* Others are elsewhere. */
	cr_expect_eq(fs_unlink(dir, name_of(3)), 0);
	cr_expect(!pmem_fault_take());
	reopen();
	inode_put(find(name_of(NR_FILES - 1)));
	cr_expect_eq(fs_lookup(dir, name_of(3), &ip), -ENOENT);
}

Test(media, inode_in_use)
{
	struct fs_setattr a = { .valid = FATTR_MODE, .mode = 0777 };
	struct inode *ip;

	cr_assert_eq(make("file", S_IFREG | 0600), 0);
	ip = find("file");
	lose(ip->off);
	cr_expect_eq(fs_setattr(ip, &a), -EIO);
	inode_put(ip);
	reopen();
	ip = find("file");
	cr_expect_eq(inode_mode(ip), S_IFREG | 0600);
}

Test(media, block_of_a_directory)
{
	struct dir_name n;
	struct dir_found found;
	struct inode *ip;
	int ret;

	fill_dir();
	n.name = name_of(1);
	n.len = (unsigned int)strlen(n.name);
	cr_assert_eq(dir_lookup(dir, &n, &found), 0);
	lose(found.off);
	ret = fs_lookup(dir, name_of(1), &ip);
	cr_expect_eq(ret, -EIO, "%d", ret);
	pmem_fault_take();
	cr_expect_eq(fs_unlink(dir, name_of(1)), -EIO);
	pmem_fault_take();
	cr_expect(!fs->damaged, "lost media is no damage");
	cr_expect_eq(fs_unlink(dir, name_of(NR_FILES - 1)), 0);
	reopen();
	inode_put(find(name_of(1)));
}

Test(media, node_of_a_file)
{
	static unsigned char buf[8 * BLOCK_SIZE], byte = 'x';
	struct iovec iov[4];
	struct fs_iov v = { .iov = iov, .max = 4 };
	struct inode *ip;
	uint64_t len;

	cr_assert_eq(make("file", S_IFREG | 0600), 0);
	ip = find("file");
	memset(buf, 'b', sizeof(buf));
	cr_assert_eq(file_write(ip, buf, 0, sizeof(buf), 0), 0);
	cr_assert_eq(slot_type(inode_data(ip)), SLOT_NODE);
	lose(slot_block(inode_data(ip)) << BLOCK_SHIFT);
	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	(void)file_read(ip, 0, 4096, &v, &len);
	rwsem_up_read(&ip->rwsem);
	cr_expect(pmem_fault_take(), "zeros are no answer");
	cr_expect_eq(file_write(ip, &byte, BLOCK_SIZE, 1, 0), -EIO);
	inode_put(ip);
	reopen();
	ip = find("file");
	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	cr_assert_eq(file_read(ip, BLOCK_SIZE, 1, &v, &len), 0);
	cr_expect_eq(*(const unsigned char *)iov[0].iov_base, 'b');
	rwsem_up_read(&ip->rwsem);
}

Test(media, lanes)
{
	struct inode *ip;

	cr_assert_eq(make("before", S_IFREG | 0600), 0);
	for (uint64_t off = BLOCK_SIZE; off < fs->data_start << BLOCK_SHIFT;
	     off += BLOCK_SIZE)
		lose(off);
	cr_expect_eq(make("after", S_IFREG | 0600), -EIO);
	pmem_fault_take();
	cr_expect_eq(fs_lookup(dir, "after", &ip), -ENOENT);
	cr_expect_eq(make("after", S_IFREG | 0600), -EROFS);
	cr_expect_eq(fs_unlink(dir, "before"), -EROFS);
	inode_put(find("before"));
	reopen();
	inode_put(find("before"));
	cr_expect_eq(fs_lookup(dir, "after", &ip), -ENOENT);
	cr_expect_eq(make("after", S_IFREG | 0600), 0);
}

/* The words of a durable record cannot be stored: a new mount does it. */
Test(media, place_of_committed_words)
{
	unsigned int nr = 0;
	int ret;

	lose((fs->nr_blocks - 1) << BLOCK_SHIFT);
	do
		ret = make(name_of(nr), S_IFREG | 0600);
	while (!ret && ++nr < NR_FILES);
	cr_expect_eq(ret, -EIO, "%d", ret);
	pmem_fault_take();
	cr_expect_eq(make("more", S_IFREG | 0600), -EROFS);
	reopen();
	for (unsigned int i = 0; i < nr; i++)
		inode_put(find(name_of(i)));
	cr_expect_eq(make("more", S_IFREG | 0600), 0);
}
