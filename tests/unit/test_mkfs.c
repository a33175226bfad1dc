/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_mkfs.c - foliofs_mkfs() by its contract
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/check.h"
#include "fs/fs.h"

#define MIB (UINT64_C(1) << 20)

static char path[64];
static struct errmsg err;

static void setup(void)
{
	snprintf(path, sizeof(path), "/dev/shm/foliofs-mkfs-%d", (int)getpid());
	unlink(path);
	err.text[0] = '\0';
}

static void teardown(void)
{
	unlink(path);
}

TestSuite(mkfs, .init = setup, .fini = teardown, .timeout = 30);

static int make(uint64_t size)
{
	struct foliofs_mkfs opt = { .device = path, .size = size };

	return foliofs_mkfs(&opt, &err);
}

static int make_by_force(uint64_t size)
{
	struct foliofs_mkfs opt = { .device = path,
				    .size = size,
				    .force = true };

	return foliofs_mkfs(&opt, &err);
}

static void make_file(uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

static void write_at(uint64_t off, const void *buf, size_t len)
{
	int fd = open(path, O_RDWR);

	cr_assert_eq(pwrite(fd, buf, len, (off_t)off), (ssize_t)len);
	close(fd);
}

static struct stat stat_file(void)
{
	struct stat st = { 0 };

	cr_assert_eq(stat(path, &st), 0);
	return st;
}

static int check(void)
{
	struct check_options opt = { .device = path };
	struct check_result res;
	int ret = foliofs_check(&opt, &res, &err);

	return ret ? ret : (int)(res.nr_errors + res.nr_infos);
}

static int open_fs(struct foliofs **ret_fs)
{
	struct foliofs_options opt = { .device = path };

	return foliofs_open(&opt, ret_fs, &err);
}

Test(mkfs, makes_a_sparse_file)
{
	struct stat st;

	cr_assert_eq(make(16384 * MIB), 0, "%s", err.text);
	st = stat_file();
	cr_expect_eq(st.st_size, (off_t)(16384 * MIB));
	cr_expect_lt(st.st_blocks, 1000);
	cr_expect_eq(check(), 0, "%s", err.text);
}

Test(mkfs, takes_the_size_of_the_file)
{
	struct foliofs_stat st;
	struct foliofs *fs;

	make_file(3 * MIB + 5000);
	cr_assert_eq(make(0), 0, "%s", err.text);
	cr_assert_eq(open_fs(&fs), 0, "%s", err.text);
	foliofs_stat(fs, &st, false);
	cr_expect_eq(st.nr_blocks, (3 * MIB + 5000) / BLOCK_SIZE);
	foliofs_close(fs);
}

Test(mkfs, the_root_is_an_empty_directory)
{
	struct foliofs_mkfs opt = {
		.device = path, .size = MIB, .uid = 17, .gid = 18
	};
	struct foliofs *fs;
	struct inode *root;
	struct stat st;

	cr_assert_eq(foliofs_mkfs(&opt, &err), 0);
	cr_assert_eq(open_fs(&fs), 0, "%s", err.text);
	cr_assert_eq(inode_get(fs, FOLIOFS_ROOT_INO, &root), 0);
	inode_stat(root, &st);
	cr_expect_eq(st.st_mode, S_IFDIR | 0755);
	cr_expect_eq(st.st_nlink, 2);
	cr_expect_eq(st.st_uid, 17);
	cr_expect_eq(st.st_gid, 18);
	cr_expect_eq(dir_is_empty(root), 1);
	inode_put(root);
	foliofs_close(fs);
}

Test(mkfs, smallest_size_works)
{
	cr_assert_eq(make(FOLIOFS_MIN_BLOCKS * BLOCK_SIZE), 0, "%s", err.text);
	cr_expect_eq(check(), 0, "%s", err.text);
}

Test(mkfs, too_small_says_how_much_is_needed)
{
	cr_expect_eq(make((FOLIOFS_MIN_BLOCKS - 1) * BLOCK_SIZE), -ENOSPC);
	cr_expect(strstr(err.text, "256 KiB"), "%s", err.text);
	cr_expect_neq(access(path, F_OK), 0, "it left a file behind");

	make_file(100000);
	cr_expect_eq(make(0), -ENOSPC);
	cr_expect(strstr(err.text, "256 KiB"), "%s", err.text);
}

Test(mkfs, refuses_a_foliofs)
{
	cr_assert_eq(make(MIB), 0);
	cr_expect_eq(make(0), -EEXIST);
	cr_expect(strstr(err.text, "a foliofs"), "%s", err.text);
	cr_expect_eq(make_by_force(0), 0, "%s", err.text);
}

Test(mkfs, refuses_a_foliofs_without_its_first_superblock)
{
	static const char zeros[BLOCK_SIZE];

	cr_assert_eq(make(MIB), 0);
	write_at(0, zeros, sizeof(zeros));
	cr_expect_eq(make(0), -EEXIST);
	cr_expect(strstr(err.text, "fsck.foliofs"), "%s", err.text);
}

Test(mkfs, refuses_another_filesystem_and_changes_nothing)
{
	/* All that makes an ext2: its magic number. */
	static const unsigned char magic[2] = { 0x53, 0xef };

	make_file(MIB);
	write_at(1024 + 56, magic, sizeof(magic));
	cr_expect_eq(make(2 * MIB), -EEXIST);
	cr_expect(strstr(err.text, "ext2"), "%s", err.text);
	cr_expect_eq(stat_file().st_size, (off_t)MIB, "it was extended");
	cr_expect_eq(make_by_force(2 * MIB), 0, "%s", err.text);
	cr_expect_eq(stat_file().st_size, (off_t)(2 * MIB));
}

Test(mkfs, refuses_a_device_in_use)
{
	struct foliofs *fs;

	cr_assert_eq(make(MIB), 0);
	cr_assert_eq(open_fs(&fs), 0, "%s", err.text);
	cr_expect_eq(make_by_force(0), -EBUSY);
	cr_expect_eq(make_by_force(2 * MIB), -EBUSY);
	cr_expect_eq(stat_file().st_size, (off_t)MIB, "it was extended");
	foliofs_close(fs);
	cr_expect_eq(check(), 0, "%s", err.text);
}

/* A larger one that was here before must not come back from its copy. */
Test(mkfs, nothing_of_an_old_one_is_left)
{
	static const char zeros[BLOCK_SIZE];

	cr_assert_eq(make(8 * MIB), 0);
	cr_assert_eq(make_by_force(4 * MIB), 0);
	cr_expect_eq(stat_file().st_size, (off_t)(8 * MIB));
	cr_expect_eq(check(), 0, "%s", err.text);
	write_at(0, zeros, sizeof(zeros));
	cr_expect_eq(check(), -EINVAL);
}

Test(mkfs, keeps_label_and_uuid)
{
	static const uint8_t uuid[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 };
	char label[FOLIOFS_LABEL_LEN + 2] = { 0 };
	struct foliofs_mkfs opt = {
		.device = path, .size = MIB, .uuid = uuid, .label = label
	};
	struct foliofs_stat st;
	struct foliofs *fs;

	memset(label, 'l', FOLIOFS_LABEL_LEN + 1);
	cr_expect_eq(foliofs_mkfs(&opt, &err), -EINVAL);
	label[FOLIOFS_LABEL_LEN] = '\0';
	cr_assert_eq(foliofs_mkfs(&opt, &err), 0, "%s", err.text);
	cr_assert_eq(open_fs(&fs), 0, "%s", err.text);
	foliofs_stat(fs, &st, false);
	cr_expect_str_eq(st.label, label);
	cr_expect_eq(memcmp(st.uuid, uuid, sizeof(uuid)), 0);
	foliofs_close(fs);
}

Test(mkfs, what_cannot_be_a_device)
{
	struct foliofs_mkfs opt = { .device = path };

	cr_expect_eq(foliofs_mkfs(&opt, &err), -ENOENT);
	cr_expect(strstr(err.text, "-s SIZE"), "%s", err.text);
	opt.device = "/dev/shm";
	cr_expect_lt(foliofs_mkfs(&opt, &err), 0);
	cr_expect_neq(err.text[0], '\0');
	opt.device = "/dev/null";
	err.text[0] = '\0';
	cr_expect_lt(foliofs_mkfs(&opt, &err), 0);
	cr_expect_neq(err.text[0], '\0');
}
