/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_xattr.c - extended attributes of a real foliofs
 *
 * Each test has a foliofs of its own on a file in /dev/shm, opened in this
 * process, with one file in it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "fs/acl.h"
#include "fs/fs.h"

#define DEVICE_SIZE (UINT64_C(16) << 20)

static char device[64];
static struct foliofs *fs;
static struct inode *root, *file;
static char big[FOLIOFS_XATTR_VALUE_MAX + 1];
static char out[FOLIOFS_XATTR_VALUE_MAX + 1];

static const struct cred cred = { .umask = 022 };

static void open_fs(void)
{
	struct foliofs_options opt = { .device = device };
	struct errmsg err = { "" };

	cr_assert_eq(foliofs_open(&opt, &fs, &err), 0, "%s", err.text);
	cr_assert_eq(inode_get(fs, FOLIOFS_ROOT_INO, &root), 0);
}

static struct inode *make(struct inode *dir, const char *name, uint32_t mode)
{
	struct new_inode want = { .mode = mode };
	struct inode *ip;

	if (S_ISLNK(mode))
		want.symlink = "target";
	cr_assert_eq(fs_create(dir, name, &cred, &want, &ip), 0, "%s", name);
	return ip;
}

static void setup(void)
{
	struct foliofs_mkfs opt = { .device = device, .size = DEVICE_SIZE };
	struct errmsg err = { "" };

	(void)snprintf(device, sizeof(device), "/dev/shm/foliofs-xattr-%d",
		       (int)getpid());
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 7 + i / 251);
	cr_assert_eq(foliofs_mkfs(&opt, &err), 0, "%s", err.text);
	open_fs();
	file = make(root, "file", S_IFREG | 0644);
}

static void drop_inodes(void)
{
	inode_put(file);
	inode_put(root);
}

static void teardown(void)
{
	drop_inodes();
	foliofs_close(fs);
	unlink(device);
}

/* Close, or stop as a crash would, and open again. */
static void reopen(bool crash)
{
	uint64_t ino = file->ino;

	drop_inodes();
	if (crash)
		foliofs_abandon(fs);
	else
		foliofs_close(fs);
	open_fs();
	cr_assert_eq(inode_get(fs, ino, &file), 0);
}

static uint64_t nr_free(void)
{
	struct alloc_stat st;

	alloc_stat(fs->al, &st, false);
	return st.nr_free;
}

static int set(const char *name, const char *value, int flags)
{
	return xattr_set(file, name, value, strlen(value), flags, false);
}

static void expect_value(const char *name, const void *value, size_t size)
{
	int ret;

	memset(out, 0xee, sizeof(out));
	ret = xattr_get(file, name, NULL, 0);
	cr_expect_eq(ret, (int)size, "%s: size %d, not %zu", name, ret, size);
	ret = xattr_get(file, name, out, sizeof(out));
	cr_expect_eq(ret, (int)size, "%s: %d, not %zu", name, ret, size);
	cr_expect_eq(memcmp(out, value, size), 0, "%s: other bytes", name);
	cr_expect_eq((unsigned char)out[size], 0xee, "%s: too many bytes",
		     name);
}

static void expect_text(const char *name, const char *text)
{
	expect_value(name, text, strlen(text));
}

static bool listed(const char *name)
{
	int len = xattr_list(file, out, sizeof(out), true);

	cr_assert_geq(len, 0);
	for (const char *p = out; p < out + len; p += strlen(p) + 1)
		if (strcmp(p, name) == 0)
			return true;
	return false;
}

TestSuite(xattr, .init = setup, .fini = teardown, .timeout = 60);

Test(xattr, none_at_first)
{
	cr_expect_eq(xattr_get(file, "user.a", out, sizeof(out)), -ENODATA);
	cr_expect_eq(xattr_get(file, "user.a", NULL, 0), -ENODATA);
	cr_expect_eq(xattr_list(file, out, sizeof(out), true), 0);
	cr_expect_eq(xattr_list(file, NULL, 0, true), 0);
	cr_expect_eq(xattr_remove(file, "user.a"), -ENODATA);
	cr_expect_eq(inode_word(file, INODE_XATTR), 0);
}

Test(xattr, values_of_every_size_come_back)
{
	static const size_t sizes[] = { 0,    1,     7,	    8,	  9,
					255,  4065,  4066,  4067, 4096,
					8191, 32768, 65535, 65536 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		cr_assert_eq(xattr_set(file, "user.a", big, sizes[i], 0, false),
			     0, "%zu", sizes[i]);
		expect_value("user.a", big, sizes[i]);
		reopen(i % 2);
		expect_value("user.a", big, sizes[i]);
	}
}

Test(xattr, one_block_holds_what_fits_and_no_more)
{
	/* Header 16, record header 8, name 6. */
	size_t fits = BLOCK_SIZE - 16 - 8 - 6;

	cr_assert_eq(xattr_set(file, "user.a", big, fits, 0, false), 0);
	cr_expect_eq(slot_type(inode_word(file, INODE_XATTR)), SLOT_DATA);
	cr_assert_eq(xattr_set(file, "user.a", big, fits + 1, 0, false), 0);
	cr_expect_eq(slot_type(inode_word(file, INODE_XATTR)), SLOT_NODE);
	expect_value("user.a", big, fits + 1);
}

Test(xattr, a_buffer_too_small_is_told)
{
	cr_assert_eq(set("user.a", "value", 0), 0);
	cr_expect_eq(xattr_get(file, "user.a", out, 4), -ERANGE);
	cr_expect_eq(xattr_get(file, "user.a", out, 5), 5);
	cr_expect_eq(xattr_list(file, out, 6, true), -ERANGE);
	cr_expect_eq(xattr_list(file, out, 7, true), 7);
	cr_expect_str_eq(out, "user.a");
}

Test(xattr, create_and_replace)
{
	cr_expect_eq(set("user.a", "1", XATTR_REPLACE), -ENODATA);
	cr_expect_eq(set("user.a", "2", XATTR_CREATE), 0);
	cr_expect_eq(set("user.a", "3", XATTR_CREATE), -EEXIST);
	expect_text("user.a", "2");
	cr_expect_eq(set("user.a", "4", XATTR_REPLACE), 0);
	expect_text("user.a", "4");
	cr_expect_eq(set("user.a", "5", 4), -EINVAL);
	expect_text("user.a", "4");
}

Test(xattr, too_large_a_value_is_refused)
{
	cr_expect_eq(xattr_set(file, "user.a", big, sizeof(big), 0, false),
		     -E2BIG);
	cr_expect_eq(inode_word(file, INODE_XATTR), 0);
}

Test(xattr, names)
{
	char name[XATTR_NAME_MAX + 2] = "user.";

	memset(name + 5, 'n', XATTR_NAME_MAX - 5);
	cr_expect_eq(set(name, "long", 0), 0);
	expect_text(name, "long");
	cr_expect(listed(name));
	name[XATTR_NAME_MAX] = 'n';
	cr_expect_eq(set(name, "too long", 0), -ERANGE);
	cr_expect_eq(xattr_get(file, name, NULL, 0), -ERANGE);
	cr_expect_eq(set("", "x", 0), -ERANGE);
	cr_expect_eq(set("user.", "x", 0), -EINVAL);
	cr_expect_eq(set("os2.x", "x", 0), -ENOTSUP);
	cr_expect_eq(set("system.x", "x", 0), -ENOTSUP);
	cr_expect_eq(xattr_get(file, "plain", NULL, 0), -ENOTSUP);
	cr_expect_eq(xattr_remove(file, "plain"), -ENOTSUP);
	cr_expect_eq(set("trusted.a", "t", 0), 0);
	cr_expect_eq(set("security.a", "s", 0), 0);
	expect_text("trusted.a", "t");
	expect_text("security.a", "s");
}

Test(xattr, trusted_names_are_listed_to_the_trusted)
{
	cr_assert_eq(set("user.a", "1", 0), 0);
	cr_assert_eq(set("trusted.b", "2", 0), 0);
	cr_assert_eq(set("security.c", "3", 0), 0);
	cr_expect_eq(xattr_list(file, NULL, 0, true), 28);
	cr_expect_eq(xattr_list(file, NULL, 0, false), 18);
	cr_expect_eq(xattr_list(file, out, 18, false), 18);
	cr_expect_arr_eq(out, "user.a\0security.c", 18);
}

Test(xattr, a_name_is_not_its_beginning)
{
	cr_assert_eq(set("user.ab", "long", 0), 0);
	cr_expect_eq(xattr_get(file, "user.a", NULL, 0), -ENODATA);
	cr_assert_eq(set("user.a", "short", 0), 0);
	expect_text("user.ab", "long");
	expect_text("user.a", "short");
}

Test(xattr, a_change_leaves_the_others_alone)
{
	cr_assert_eq(set("user.a", "first", 0), 0);
	cr_assert_eq(xattr_set(file, "user.b", big, 5000, 0, false), 0);
	cr_assert_eq(set("user.c", "third", 0), 0);
	cr_assert_eq(xattr_set(file, "user.b", big + 1, 10, 0, false), 0);
	expect_text("user.a", "first");
	expect_value("user.b", big + 1, 10);
	expect_text("user.c", "third");
	cr_assert_eq(xattr_remove(file, "user.a"), 0);
	cr_expect_eq(xattr_get(file, "user.a", NULL, 0), -ENODATA);
	expect_value("user.b", big + 1, 10);
	expect_text("user.c", "third");
}

Test(xattr, the_last_one_takes_the_blocks_with_it)
{
	uint64_t before = nr_free();

	cr_assert_eq(xattr_set(file, "user.a", big, 65536, 0, false), 0);
	cr_expect_eq(nr_free(), before - 18, "17 blocks and their node");
	cr_assert_eq(set("user.a", "small", 0), 0);
	cr_expect_eq(nr_free(), before - 1);
	cr_assert_eq(set("user.b", "other", 0), 0);
	cr_assert_eq(xattr_remove(file, "user.a"), 0);
	cr_expect_eq(nr_free(), before - 1);
	cr_assert_eq(xattr_remove(file, "user.b"), 0);
	cr_expect_eq(nr_free(), before);
	cr_expect_eq(inode_word(file, INODE_XATTR), 0);
}

Test(xattr, failure_gives_all_blocks_back)
{
	uint64_t before;

	cr_assert_eq(set("user.a", "here", 0), 0);
	before = nr_free();
	cr_expect_eq(set("user.a", "x", XATTR_CREATE), -EEXIST);
	cr_expect_eq(xattr_remove(file, "user.b"), -ENODATA);
	cr_expect_eq(xattr_set(file, "user.b", big, sizeof(big), 0, false),
		     -E2BIG);
	cr_expect_eq(nr_free(), before);
}

static void name_nr(char *buf, size_t size, unsigned int i)
{
	(void)snprintf(buf, size, "user.%u.%.*s", i, (int)(i % 90),
		       "........................................"
		       "..................................................");
}

static void expect_every(unsigned int nr, unsigned int step)
{
	char name[128];

	for (unsigned int i = 0; i < nr; i++) {
		name_nr(name, sizeof(name), i);
		if (i % step)
			expect_value(name, big + i, i * 3);
		else
			cr_expect_eq(xattr_get(file, name, NULL, 0), -ENODATA,
				     "%s", name);
	}
}

static unsigned int nr_listed(void)
{
	int len = xattr_list(file, out, sizeof(out), true);
	unsigned int nr = 0;

	cr_assert_eq(xattr_list(file, NULL, 0, true), len);
	for (int i = 0; i < len; i++)
		nr += out[i] == '\0';
	return nr;
}

Test(xattr, three_hundred_of_them)
{
	uint64_t before = nr_free();
	char name[128];

	for (unsigned int i = 0; i < 300; i++) {
		name_nr(name, sizeof(name), i);
		cr_assert_eq(xattr_set(file, name, big + i, i * 3, XATTR_CREATE,
				       false),
			     0, "%s", name);
	}
	cr_expect_eq(nr_listed(), 300);
	for (unsigned int i = 0; i < 300; i += 3) {
		name_nr(name, sizeof(name), i);
		cr_assert_eq(xattr_remove(file, name), 0, "%s", name);
	}
	cr_expect_eq(nr_listed(), 200);
	expect_every(300, 3);
	reopen(false);
	cr_expect_eq(nr_listed(), 200);
	expect_every(300, 3);
	reopen(true);
	expect_every(300, 3);
	for (unsigned int i = 0; i < 300; i++) {
		name_nr(name, sizeof(name), i);
		cr_expect_eq(xattr_remove(file, name), i % 3 ? 0 : -ENODATA);
	}
	cr_expect_eq(nr_free(), before);
}

Test(xattr, two_mebibytes_are_the_most)
{
	char name[32];
	int ret = 0;
	unsigned int i;

	for (i = 0; i < 100 && !ret; i++) {
		(void)snprintf(name, sizeof(name), "user.%u", i);
		ret = xattr_set(file, name, big, 65536, 0, false);
	}
	cr_expect_eq(ret, -ENOSPC);
	cr_expect_eq(i, 32, "31 fit, not %u", i - 1);
	for (i = 0; i < 31; i++) {
		(void)snprintf(name, sizeof(name), "user.%u", i);
		expect_value(name, big, 65536);
	}
	cr_expect_eq(xattr_get(file, "user.31", NULL, 0), -ENODATA);
	reopen(true);
	expect_value("user.30", big, 65536);
}

/* Leave nothing but the reserve. */
static void fill_device(void)
{
	struct extent ext;

	while (alloc_take(fs->al, 0, 512, BLOCK_DATA, 0, &ext) == 0)
		;
}

Test(xattr, full_device_keeps_the_old_value)
{
	struct inode *other = make(root, "other", S_IFREG);
	uint64_t before;

	cr_assert_eq(set("user.a", "old", 0), 0);
	cr_assert_eq(xattr_set(file, "user.b", big, 3000, 0, false), 0);
	fill_device();
	before = nr_free();
	cr_expect_eq(xattr_set(file, "user.a", big, 6000, 0, false), -ENOSPC);
	expect_text("user.a", "old");
	expect_value("user.b", big, 3000);
	cr_expect_eq(xattr_set(other, "user.a", "new", 3, 0, false), -ENOSPC);
	cr_expect_eq(inode_word(other, INODE_XATTR), 0);
	cr_expect_eq(nr_free(), before);
	inode_put(other);
}

Test(xattr, full_device_lets_go)
{
	cr_assert_eq(set("user.a", "old", 0), 0);
	cr_assert_eq(xattr_set(file, "user.b", big, 60000, 0, false), 0);
	fill_device();
	cr_expect_eq(set("user.a", "new", 0), 0);
	expect_text("user.a", "new");
	cr_expect_eq(xattr_remove(file, "user.b"), 0);
	expect_text("user.a", "new");
	cr_expect_eq(xattr_remove(file, "user.a"), 0);
	cr_expect_eq(xattr_list(file, NULL, 0, true), 0);
}

Test(xattr, ctime_moves_and_mtime_does_not)
{
	uint64_t ctime = inode_word(file, INODE_CTIME);
	uint64_t mtime = inode_word(file, INODE_MTIME);
	struct stat st;

	cr_assert_eq(set("user.a", "1", 0), 0);
	cr_expect_gt(inode_word(file, INODE_CTIME), ctime);
	inode_stat(file, &st);
	ctime = inode_word(file, INODE_CTIME);
	cr_assert_eq(xattr_remove(file, "user.a"), 0);
	cr_expect_gt(inode_word(file, INODE_CTIME), ctime);
	cr_expect_eq(inode_word(file, INODE_MTIME), mtime);
}

static void set_flags(uint32_t flags)
{
	uint64_t word = inode_word(file, INODE_GENFLAGS);

	pmem_store64(fs->pm, file->off + INODE_GENFLAGS,
		     word_pair((uint32_t)word, flags));
}

Test(xattr, immutable_and_append_only_files_do_not_change)
{
	static const uint32_t flags[] = { FOLIOFS_FL_IMMUTABLE,
					  FOLIOFS_FL_APPEND };

	cr_assert_eq(set("user.a", "1", 0), 0);
	for (unsigned int i = 0; i < 2; i++) {
		set_flags(flags[i]);
		cr_expect_eq(set("user.a", "2", 0), -EPERM);
		cr_expect_eq(set("trusted.b", "2", 0), -EPERM);
		cr_expect_eq(xattr_remove(file, "user.a"), -EPERM);
		cr_expect_eq(xattr_remove(file, ACL_ACCESS), -EPERM);
		expect_text("user.a", "1");
	}
	set_flags(0);
	cr_expect_eq(set("user.a", "2", 0), 0);
}

Test(xattr, read_only_filesystem_does_not_change)
{
	cr_assert_eq(set("user.a", "1", 0), 0);
	atomic_store(&fs->read_only, true);
	cr_expect_eq(set("user.a", "2", 0), -EROFS);
	cr_expect_eq(xattr_remove(file, "user.a"), -EROFS);
	expect_text("user.a", "1");
	atomic_store(&fs->read_only, false);
}

Test(xattr, capabilities_go_and_nothing_else)
{
	struct txn t;

	cr_assert_eq(set("user.a", "1", 0), 0);
	cr_assert_eq(set("security.capability", "all", 0), 0);
	for (unsigned int i = 0; i < 2; i++) {
		rwsem_down_write(&file->rwsem, LOCK_INODE);
		txn_begin(fs, &t);
		cr_expect_eq(xattr_kill_caps(&t, file), 0);
		inode_touch(&t, file, true);
		cr_expect_eq(txn_commit(&t), 0);
		rwsem_up_write(&file->rwsem);
		cr_expect_eq(xattr_get(file, "security.capability", NULL, 0),
			     -ENODATA);
	}
	expect_text("user.a", "1");
}

Test(xattr, two_changes_in_one_transaction)
{
	uint64_t before = nr_free();
	struct txn t;

	cr_assert_eq(set("user.a", "1", 0), 0);
	rwsem_down_write(&file->rwsem, LOCK_INODE);
	txn_begin(fs, &t);
	cr_expect_eq(xattr_set_locked(&t, file, "user.b", "2", 1, 0), 0);
	cr_expect_eq(xattr_set_locked(&t, file, "user.c", big, 9999, 0), 0);
	cr_expect_eq(xattr_set_locked(&t, file, "user.a", NULL, 0, 0), 0);
	cr_expect_eq(txn_commit(&t), 0);
	rwsem_up_write(&file->rwsem);
	cr_expect_eq(xattr_get(file, "user.a", NULL, 0), -ENODATA);
	expect_text("user.b", "2");
	expect_value("user.c", big, 9999);
	cr_expect_eq(nr_free(), before - 4);
	reopen(true);
	cr_expect_eq(nr_free(), before - 4);
	expect_value("user.c", big, 9999);
}

Test(xattr, a_new_tree_for_a_new_inode)
{
	struct xattr_init init[] = { { "user.a", "1", 1 },
				     { "user.b", big, 7000 } };
	uint64_t slot = 1;
	struct txn t;

	txn_begin(fs, &t);
	cr_assert_eq(xattr_build(&t, init, 0, &slot), 0);
	cr_expect_eq(slot, 0);
	cr_assert_eq(xattr_build(&t, init, 2, &slot), 0);
	inode_set(&t, file, INODE_XATTR, slot);
	cr_assert_eq(txn_commit(&t), 0);
	expect_text("user.a", "1");
	expect_value("user.b", big, 7000);
	cr_expect_eq(nr_listed(), 2);
}

/* Media offset of the first block of the file's run. */
static uint64_t run_off(void)
{
	uint64_t slot = inode_word(file, INODE_XATTR);

	if (slot_type(slot) == SLOT_NODE)
		slot = pmem_load64(fs->pm, slot_block(slot) << BLOCK_SHIFT);
	return slot_block(slot) << BLOCK_SHIFT;
}

/* Nothing can be done with damaged attributes, and nothing happens. */
static void expect_damaged(const char *what)
{
	uint64_t slot = inode_word(file, INODE_XATTR);
	uint64_t before = nr_free();

	atomic_store(&fs->damaged, false);
	cr_expect_eq(xattr_list(file, out, sizeof(out), true), -EUCLEAN, "%s",
		     what);
	cr_expect_eq(xattr_get(file, "user.none", out, sizeof(out)), -EUCLEAN,
		     "%s", what);
	cr_expect_eq(set("user.new", "x", 0), -EUCLEAN, "%s", what);
	cr_expect_eq(xattr_remove(file, "user.a"), -EUCLEAN, "%s", what);
	cr_expect(atomic_load(&fs->damaged), "%s", what);
	cr_expect_eq(inode_word(file, INODE_XATTR), slot, "%s", what);
	cr_expect_eq(nr_free(), before, "%s", what);
}

struct damage {
	const char *what;
	uint64_t pos; /* of the word, in the run */
	uint64_t clear, set;
	int get; /* what xattr_get() of the first record says */
};

/* The run is a header and one record, "user.a", with 5000 bytes. */
static const struct damage damages[] = {
	{ "magic", 0, 0xff, 0, -EUCLEAN },
	{ "no records", 0, UINT64_MAX << 32, 0, -EUCLEAN },
	{ "a record too many", 0, 0, UINT64_C(2) << 32, 5000 },
	{ "very many records", 0, 0, UINT64_MAX << 32, 5000 },
	{ "length 0", 8, UINT64_MAX, 0, -EUCLEAN },
	{ "length of the header", 8, UINT64_MAX, 16, -EUCLEAN },
	{ "length in the record", 8, UINT64_MAX, 5000, -EUCLEAN },
	{ "length behind the record", 8, UINT64_MAX, 5040, 5000 },
	{ "length behind the blocks", 8, UINT64_MAX, 8200, 5000 },
	{ "length of too much", 8, UINT64_MAX, FOLIOFS_XATTR_MAX + 8,
	  -EUCLEAN },
	{ "length at the end of numbers", 8, 0, UINT64_MAX, -EUCLEAN },
	{ "value without end", 16, 0, UINT32_MAX, -EUCLEAN },
	{ "value behind the run", 16, UINT32_MAX, 6000, -EUCLEAN },
	{ "name with a NUL", 24, UINT64_C(0xff) << 8, 0, -EUCLEAN },
};

Test(xattr, damage_is_found)
{
	fs->quiet = true;
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		const struct damage *d = &damages[i];
		uint64_t off, old;

		cr_assert_eq(xattr_set(file, "user.a", big, 5000, 0, false), 0);
		off = run_off() + d->pos;
		old = pmem_load64(fs->pm, off);
		pmem_store64(fs->pm, off, (old & ~d->clear) | d->set);
		expect_damaged(d->what);
		cr_expect_eq(xattr_get(file, "user.a", out, sizeof(out)),
			     d->get, "%s", d->what);
		pmem_store64(fs->pm, off, old);
		expect_value("user.a", big, 5000);
	}
}

/* A run whose lengths agree with each other and yet cannot be. */
struct forgery {
	const char *what;
	size_t size; /* of the value that is set first */
	uint32_t nr;
	uint64_t len;
	uint32_t value_len;
	uint8_t name_len;
};

static const struct forgery forgeries[] = {
	{ "no records and no bytes", 1, 0, 16, 1, 6 },
	{ "more bytes than one block", 1, 1, 16 + 6016, 6000, 6 },
	{ "no name", 10, 1, 16 + 24, 16, 0 },
	{ "value larger than may be", 65536, 1, 16 + 65552, 65537, 6 },
};

Test(xattr, forgeries_are_found)
{
	fs->quiet = true;
	for (size_t i = 0; i < sizeof(forgeries) / sizeof(forgeries[0]); i++) {
		const struct forgery *f = &forgeries[i];
		uint64_t off;

		cr_assert_eq(xattr_set(file, "user.a", big, f->size, 0, false),
			     0);
		off = run_off();
		pmem_store64(fs->pm, off,
			     word_pair(FOLIOFS_XATTR_MAGIC, f->nr));
		pmem_store64(fs->pm, off + 8, f->len);
		pmem_store64(fs->pm, off + 16,
			     word_pair(f->value_len, f->name_len));
		expect_damaged(f->what);
		pmem_store64(fs->pm, file->off + INODE_XATTR, 0);
	}
}

Test(xattr, damage_in_the_node_is_found)
{
	uint64_t off, old, slot;

	fs->quiet = true;
	cr_assert_eq(xattr_set(file, "user.a", big, 9000, 0, false), 0);
	off = (inode_word(file, INODE_XATTR) & ~BLOCK_MASK) + 8;
	old = pmem_load64(fs->pm, off);
	slot = slot_block(old);
	const uint64_t bad[] = {
		0,
		UINT64_MAX,
		slot_make(SLOT_NODE, 1, slot),
		slot_make(SLOT_UNWRITTEN, 0, slot),
		slot_make(SLOT_DATA, 1, CHUNK_BLOCKS),
		slot_make(SLOT_DATA, 0, 0),
		slot_make(SLOT_DATA, 0, fs->nr_blocks),
		slot_make(SLOT_DATA, 0, UINT64_C(1) << 51),
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		pmem_store64(fs->pm, off, bad[i]);
		cr_expect_eq(xattr_get(file, "user.a", out, sizeof(out)),
			     -EUCLEAN, "%#jx", (uintmax_t)bad[i]);
		cr_expect_eq(set("user.b", "x", 0), -EUCLEAN, "%#jx",
			     (uintmax_t)bad[i]);
	}
	pmem_store64(fs->pm, off, old);
	expect_value("user.a", big, 9000);
}

Test(xattr, damage_of_the_root_is_found)
{
	uint64_t off = file->off + INODE_XATTR, old, slot;

	fs->quiet = true;
	cr_assert_eq(set("user.a", "1", 0), 0);
	old = pmem_load64(fs->pm, off);
	slot = slot_block(old);
	const uint64_t bad[] = {
		UINT64_MAX,
		1,
		slot_make(SLOT_UNWRITTEN, 0, slot),
		slot_make(SLOT_NODE, 0, slot),
		slot_make(SLOT_NODE, 1, slot),
		slot_make(SLOT_NODE, 2, slot),
		slot_make(SLOT_DATA, 1, CHUNK_BLOCKS),
		slot_make(SLOT_DATA, 0, 0),
		slot_make(SLOT_DATA, 0, fs->nr_blocks),
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		pmem_store64(fs->pm, off, bad[i]);
		expect_damaged("root");
	}
	pmem_store64(fs->pm, off, old);
	expect_text("user.a", "1");
}

/* What xattr_verify() says of the file's attributes. */
static int verify(void)
{
	return xattr_verify(fs, file->ino, inode_word(file, INODE_XATTR));
}

Test(xattr, a_name_that_is_there_twice_is_found)
{
	/* Header 16, each record 8 and the name and a value of 2. */
	uint64_t off;

	fs->quiet = true;
	cr_assert_eq(set("user.a", "11", 0), 0);
	cr_expect_eq(verify(), 0);
	cr_assert_eq(set("user.b", "22", 0), 0);
	cr_assert_eq(set("user.c", "33", 0), 0);
	cr_expect_eq(verify(), 0);
	off = run_off() + 16 + 2 * 16 + 8;
	pmem_write(fs->pm, off, "user.a", 6);
	cr_expect_eq(verify(), -EUCLEAN);
	pmem_write(fs->pm, off, "user.A", 6);
	cr_expect_eq(verify(), 0);
}

#define MANY 80000

/* As many as a run holds: whoever compares each with each takes minutes. */
Test(xattr, very_many_names_are_verified)
{
	struct xattr_init *init = calloc(MANY, sizeof(*init));
	char(*name)[16] = calloc(MANY, sizeof(*name));
	uint64_t root_slot;
	clock_t start;
	struct txn t;

	fs->quiet = true;
	cr_assert(init && name);
	for (unsigned int i = 0; i < MANY; i++) {
		(void)snprintf(name[i], sizeof(name[i]), "user.%05u", i);
		init[i].name = name[i];
	}
	txn_begin(fs, &t);
	cr_assert_eq(xattr_build(&t, init, MANY, &root_slot), 0);
	inode_set(&t, file, INODE_XATTR, root_slot);
	cr_assert_eq(txn_commit(&t), 0);
	start = clock();
	cr_expect_eq(verify(), 0);
	cr_expect_lt(clock() - start, 2 * CLOCKS_PER_SEC);
	/* The second becomes the first; neither is at a block's end. */
	pmem_write(fs->pm, run_off() + 16 + 24 + 8, name[0], 10);
	cr_expect_eq(verify(), -EUCLEAN);
	free(init);
	free(name);
}

static uint64_t rnd(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return *state >> 33;
}

/* One to four wild bytes in the first 256 of a run, ops on it, and back. */
static void one_wild_run(uint64_t *seed)
{
	uint64_t off = run_off();
	unsigned char good[256], bad[256];

	memcpy(good, pmem_at(fs->pm, off), sizeof(good));
	memcpy(bad, good, sizeof(bad));
	for (uint64_t n = rnd(seed) % 4 + 1; n > 0; n--)
		bad[rnd(seed) % sizeof(bad)] = (unsigned char)rnd(seed);
	pmem_write(fs->pm, off, bad, sizeof(bad));
	(void)xattr_list(file, out, rnd(seed) % sizeof(out), true);
	(void)xattr_list(file, NULL, 0, true);
	for (unsigned int i = 0; i < 4; i++) {
		char name[] = { 'u', 's', 'e', 'r', '.', (char)('a' + i), 0 };

		cr_assert_leq(xattr_get(file, name, out, 4000), 4000);
	}
	pmem_write(fs->pm, off, good, sizeof(good));
}

Test(xattr, wild_bytes_do_no_harm)
{
	uint64_t seed = 1;

	fs->quiet = true;
	cr_assert_eq(set("user.a", "1", 0), 0);
	cr_assert_eq(set("user.b", "some longer value for this one", 0), 0);
	cr_assert_eq(xattr_set(file, "user.c", big, 4500, 0, false), 0);
	cr_assert_eq(set("user.d", "the last", 0), 0);
	for (unsigned int i = 0; i < 20000; i++)
		one_wild_run(&seed);
	expect_value("user.c", big, 4500);
	expect_text("user.d", "the last");
}

/* An access ACL: user::rw-, user:1000:rwx, group::r--, mask::@mask, other. */
struct acl_bytes {
	struct acl_header h;
	struct acl_entry e[5];
} __attribute__((packed));

static struct acl_bytes acl_with_mask(unsigned int mask)
{
	static const uint16_t tag[] = { ACL_TAG_OWNER, ACL_TAG_USER,
					ACL_TAG_OWNING_GROUP, ACL_TAG_MASK,
					ACL_TAG_OTHER };
	const uint16_t perm[] = { 6, 7, 4, (uint16_t)mask, 1 };
	struct acl_bytes a = { .h.version = cpu_to_le32(ACL_VERSION) };

	for (unsigned int i = 0; i < 5; i++) {
		a.e[i].tag = cpu_to_le16(tag[i]);
		a.e[i].perm = cpu_to_le16(perm[i]);
		a.e[i].id = cpu_to_le32(i == 1 ? 1000 : ACL_NO_ID);
	}
	return a;
}

/* user::rw-, group::@group, other::--x: the mode can say as much. */
static struct acl_bytes acl_minimal(unsigned int group)
{
	struct acl_bytes a = acl_with_mask(0);

	a.e[1] = a.e[2];
	a.e[1].perm = cpu_to_le16((uint16_t)group);
	a.e[2] = a.e[4];
	return a;
}
#define MINIMAL_LEN (sizeof(struct acl_header) + 3 * sizeof(struct acl_entry))

static int set_acl(struct inode *ip, const char *name, unsigned int mask)
{
	struct acl_bytes a = acl_with_mask(mask);

	return xattr_set(ip, name, &a, sizeof(a), 0, false);
}

static void expect_acl(struct inode *ip, const char *name,
		       const struct acl_bytes *want)
{
	int ret = xattr_get(ip, name, out, sizeof(out));

	cr_expect_eq(ret, (int)sizeof(*want), "%s: %d", name, ret);
	cr_expect_arr_eq(out, want, sizeof(*want), "%s", name);
}

TestSuite(xattr_acl, .init = setup, .fini = teardown, .timeout = 60);

Test(xattr_acl, setting_one_sets_the_mode)
{
	struct acl_bytes a = acl_with_mask(5);

	cr_assert_eq(set_acl(file, ACL_ACCESS, 5), 0);
	cr_expect_eq(inode_mode(file), S_IFREG | 0651);
	expect_acl(file, ACL_ACCESS, &a);
	cr_expect(listed(ACL_ACCESS));
	reopen(true);
	cr_expect_eq(inode_mode(file), S_IFREG | 0651);
	expect_acl(file, ACL_ACCESS, &a);
}

Test(xattr_acl, a_minimal_one_is_only_a_mode)
{
	struct acl_bytes a = acl_minimal(2);

	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(
			xattr_set(file, ACL_ACCESS, &a, MINIMAL_LEN, 0, false),
			0);
		cr_expect_eq(inode_mode(file), S_IFREG | 0621);
		cr_expect_eq(inode_word(file, INODE_XATTR), 0);
		cr_expect_eq(xattr_get(file, ACL_ACCESS, NULL, 0), -ENODATA);
		/* And again, where there is one to take away. */
		cr_assert_eq(set_acl(file, ACL_ACCESS, 7), 0);
	}
}

Test(xattr_acl, sgid_goes_when_it_is_asked_for)
{
	struct acl_bytes a = acl_with_mask(7);
	uint64_t mode = inode_word(file, INODE_MODE) | S_ISGID | S_ISUID;

	pmem_store64(fs->pm, file->off + INODE_MODE, mode);
	cr_assert_eq(xattr_set(file, ACL_ACCESS, &a, sizeof(a), 0, false), 0);
	cr_expect_eq(inode_mode(file), S_IFREG | 06671);
	cr_assert_eq(xattr_set(file, ACL_ACCESS, &a, sizeof(a), 0, true), 0);
	cr_expect_eq(inode_mode(file), S_IFREG | 04671);
	cr_expect_eq(inode_nlink(file), 1);
}

Test(xattr_acl, what_is_not_one_is_refused)
{
	struct acl_bytes a = acl_with_mask(7);

	cr_expect_eq(xattr_set(file, ACL_ACCESS, &a, sizeof(a) - 1, 0, false),
		     -EINVAL);
	cr_expect_eq(xattr_set(root, ACL_DEFAULT, &a, sizeof(a) - 8, 0, false),
		     -EINVAL);
	a.h.version = cpu_to_le32(1);
	cr_expect_eq(xattr_set(file, ACL_ACCESS, &a, sizeof(a), 0, false),
		     -ENOTSUP);
	cr_expect_eq(inode_mode(file), S_IFREG | 0644);
	cr_expect_eq(inode_word(file, INODE_XATTR), 0);
}

Test(xattr_acl, where_they_may_be)
{
	struct inode *link = make(root, "link", S_IFLNK | 0777);

	cr_expect_eq(set_acl(file, ACL_DEFAULT, 7), -EACCES);
	cr_expect_eq(xattr_remove(file, ACL_DEFAULT), 0);
	cr_expect_eq(set_acl(root, ACL_DEFAULT, 7), 0);
	cr_expect_eq(set_acl(link, ACL_ACCESS, 7), -ENOTSUP);
	cr_expect_eq(xattr_get(link, ACL_ACCESS, NULL, 0), -ENOTSUP);
	cr_expect_eq(xattr_remove(link, ACL_ACCESS), -ENOTSUP);
	inode_put(link);
}

Test(xattr_acl, removing_keeps_the_mode_and_may_be_done_again)
{
	cr_assert_eq(set_acl(file, ACL_ACCESS, 5), 0);
	cr_expect_eq(xattr_remove(file, ACL_ACCESS), 0);
	cr_expect_eq(inode_mode(file), S_IFREG | 0651);
	cr_expect_eq(xattr_get(file, ACL_ACCESS, NULL, 0), -ENODATA);
	cr_expect_eq(xattr_remove(file, ACL_ACCESS), 0);
	cr_assert_eq(set_acl(file, ACL_ACCESS, 5), 0);
	cr_expect_eq(xattr_set(file, ACL_ACCESS, NULL, 0, 0, false), 0);
	cr_expect_eq(xattr_get(file, ACL_ACCESS, NULL, 0), -ENODATA);
}

static void chmod_to(struct inode *ip, uint32_t mode)
{
	struct txn t;

	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	txn_begin(fs, &t);
	cr_expect_eq(acl_chmod(&t, ip, S_IFREG | mode), 0);
	inode_set_mode(&t, ip, S_IFREG | mode);
	cr_expect_eq(txn_commit(&t), 0);
	rwsem_up_write(&ip->rwsem);
}

Test(xattr_acl, chmod_changes_the_mask_and_not_the_group)
{
	struct acl_bytes want = acl_with_mask(3);

	chmod_to(file, 0600);
	cr_expect_eq(inode_word(file, INODE_XATTR), 0);
	cr_assert_eq(set_acl(file, ACL_ACCESS, 7), 0);
	cr_assert_eq(set("user.a", "1", 0), 0);
	chmod_to(file, 04134);
	want.e[0].perm = cpu_to_le16(1);
	want.e[4].perm = cpu_to_le16(4);
	expect_acl(file, ACL_ACCESS, &want);
	expect_text("user.a", "1");
}

Test(xattr_acl, new_file_in_a_directory_with_a_default)
{
	struct acl_bytes want = acl_with_mask(6);
	struct inode *ip;

	cr_assert_eq(set_acl(root, ACL_DEFAULT, 7), 0);
	ip = make(root, "new", S_IFREG | 0666);
	/* umask 022 has no say: the default ACL has. */
	cr_expect_eq(inode_mode(ip), S_IFREG | 0660);
	want.e[4].perm = cpu_to_le16(0);
	expect_acl(ip, ACL_ACCESS, &want);
	cr_expect_eq(xattr_get(ip, ACL_DEFAULT, NULL, 0), -ENODATA);
	inode_put(ip);
}

Test(xattr_acl, new_directory_passes_the_default_on)
{
	struct acl_bytes want = acl_with_mask(7);
	struct inode *ip;

	cr_assert_eq(set_acl(root, ACL_DEFAULT, 7), 0);
	ip = make(root, "new", S_IFDIR | 0777);
	cr_expect_eq(inode_mode(ip), S_IFDIR | 0671);
	expect_acl(ip, ACL_ACCESS, &want);
	expect_acl(ip, ACL_DEFAULT, &want);
	inode_put(ip);
}

Test(xattr_acl, minimal_default_gives_a_mode_and_is_passed_on)
{
	struct acl_bytes a = acl_minimal(6);
	struct inode *ip;

	cr_assert_eq(xattr_set(root, ACL_DEFAULT, &a, MINIMAL_LEN, 0, false),
		     0);
	ip = make(root, "new", S_IFDIR | 0777);
	cr_expect_eq(inode_mode(ip), S_IFDIR | 0661);
	cr_expect_eq(xattr_get(ip, ACL_ACCESS, NULL, 0), -ENODATA);
	cr_expect_eq(xattr_get(ip, ACL_DEFAULT, NULL, 0), MINIMAL_LEN);
	inode_put(ip);
}

Test(xattr_acl, without_a_default_umask_decides)
{
	struct inode *ip = make(root, "new", S_IFREG | 0666);
	struct inode *link;

	cr_expect_eq(inode_mode(ip), S_IFREG | 0644);
	cr_expect_eq(inode_word(ip, INODE_XATTR), 0);
	inode_put(ip);
	cr_assert_eq(set_acl(root, ACL_DEFAULT, 7), 0);
	link = make(root, "link", S_IFLNK | 0777);
	cr_expect_eq(inode_mode(link), S_IFLNK | 0777);
	cr_expect_eq(inode_word(link, INODE_XATTR), 0);
	inode_put(link);
}

Test(xattr_acl, damaged_default_stops_creation)
{
	struct new_inode want = { .mode = S_IFREG | 0666 };
	struct inode *ip;
	uint64_t slot, off;

	fs->quiet = true;
	cr_assert_eq(set_acl(root, ACL_DEFAULT, 7), 0);
	slot = inode_word(root, INODE_XATTR);
	/* Behind the run's header and the record's: the name, then the ACL. */
	off = (slot & ~BLOCK_MASK) + 16 + 8 + strlen(ACL_DEFAULT);
	pmem_write(fs->pm, off, "\xff", 1);
	cr_expect_eq(fs_create(root, "new", &cred, &want, &ip), -EUCLEAN);
	cr_expect_eq(fs_lookup(root, "new", &ip), -ENOENT);
	pmem_write(fs->pm, off, "\x02", 1);
	ip = make(root, "new", S_IFREG | 0666);
	inode_put(ip);
}
