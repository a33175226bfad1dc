/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/persist.c - what is there after an unmount, and after SIGKILL
 *
 * Whatever can be seen of the tree, to the nanosecond, must be the same before
 * and after.  With the default cache=through that holds after SIGKILL of the
 * daemon for everything that was answered.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/tree.h"

/*
 * Behind a write-back cache the kernel keeps mtime and ctime of its own, which
 * are not quite those of the filesystem.
 */
static unsigned int all(void)
{
	unsigned int times = variant("cache=writeback") ? 0 : TREE_TIMES;

	return times | TREE_INO | TREE_BLOCKS;
}

static void set_times(const char *path, time_t sec, long nsec)
{
	struct timespec ts[2] = { { sec, nsec }, { sec + 1, nsec + 1 } };

	OK(utimensat(AT_FDCWD, path, ts, AT_SYMLINK_NOFOLLOW));
}

static void make_files(void)
{
	static const size_t sizes[] = { 0,    1,     100,     4095,	  4096,
					4097, 70000, 2 * MIB, 5 * MIB + 3 };
	char name[32];

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		snprintf(name, sizeof(name), "files/size-%zu", sizes[i]);
		close_ok(pattern_file(name, sizes[i], i));
		OK(chmod(name, (mode_t)(0400 + i * 0111)));
		OK(chown(name, (uid_t)i * 1000, (gid_t)i * 77));
		set_times(name, (time_t)i * 100000000, (long)i * 111111111);
	}
}

static void make_sparse(void)
{
	/* Behind a write-back cache holes cannot be skipped. */
	bool small = variant("cache=writeback");
	off_t giga = small ? MIB : GIB, tera = small ? 16 * MIB : TIB;
	int fd = open_ok("files/sparse", O_RDWR | O_CREAT);

	write_pattern(fd, 3 * giga + 5, 10000, 1);
	write_pattern(fd, 5 * tera, 3, 2);
	OK(ftruncate(fd, 6 * tera + 1));
	OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, giga, 300000));
	OK(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
		     3 * giga + 4096, 4096));
	OK(fsync(fd));
	close_ok(fd);
}

static void make_specials(void)
{
	OK(mknod("special/fifo", S_IFIFO | 0621, 0));
	OK(mknod("special/sock", S_IFSOCK | 0600, 0));
	OK(mknod("special/chr", S_IFCHR | 0640, 0x1234));
	OK(mknod("special/blk", S_IFBLK | 0604, 0x5678));
	OK(symlink("short", "special/link"));
	OK(symlink("/a/target/that/is/too/long/to/stand/in/a/small/inode/"
		   "and/so/has/to/go/somewhere/else/I/suppose/until/it/ends",
		   "special/long-link"));
	OK(lchown("special/link", 1, 2));
	set_times("special/link", 12345, 678);
	OK(link("special/fifo", "special/fifo2"));
	OK(link("files/size-70000", "special/hard"));
}

static void make_xattrs(void)
{
	static char value[3000];

	pattern(value, 0, sizeof(value), 5);
	OK(setxattr("files/size-1", "user.short", "v", 1, 0));
	OK(setxattr("files/size-1", "user.long", value, sizeof(value), 0));
	OK(setxattr("files", "trusted.t", "dir", 3, 0));
	OK(lsetxattr("special/link", "trusted.t", "link", 4, 0));
}

static void make_everything(void)
{
	char name[300];

	OK(mkdir("files", 0751));
	OK(mkdir("special", 01777));
	OK(mkdir("many", 02770));
	make_files();
	make_sparse();
	make_specials();
	make_xattrs();
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "many/a-name-%d", i);
		touch(name);
	}
	for (int i = 0; i < 300; i += 3) {
		snprintf(name, sizeof(name), "many/a-name-%d", i);
		OK(unlink(name));
	}
	memset(name, '\xe4', 255);
	name[255] = '\0';
	touch(name);
	OK(mkdir("d1", 0700));
	OK(mkdir("d1/d2", 0700));
	OK(rename("d1/d2", "moved"));
	set_times("many", -5, 7);
}

static char *text(void)
{
	char *t = tree_text(".", all());

	CHECK(t, "cannot read the tree");
	return t;
}

static void same(const char *before, const char *what)
{
	char *after = text();

	CHECK(tree_equal("before", before, "after", after),
	      "the tree changed over %s", what);
	free(after);
}

MTEST(persist, everything_over_a_remount, .needs = MNT_REMOUNT,
      .size = 512ull << 20)
{
	char *before;

	make_everything();
	settle();
	before = text();
	remount(NULL);
	same(before, "a remount");
	remount("ro");
	same(before, "a read-only remount");
	remount(NULL);
	same(before, "the third remount");
}

MTEST(persist, everything_over_a_crash, .needs = MNT_CRASH,
      .size = 512ull << 20)
{
	char *before;

	make_everything();
	settle();
	before = text();
	crash_and_remount(NULL);
	same(before, "a crash");
	crash_and_remount(NULL);
	same(before, "the second crash");
	remount(NULL);
	same(before, "a remount after it");
}

MTEST(persist, a_crash_without_changes_changes_nothing, .needs = MNT_CRASH)
{
	char *before;

	make_everything();
	remount(NULL);
	before = text();
	for (int i = 0; i < 5; i++)
		crash_and_remount(NULL);
	same(before, "five crashes");
}

MTEST(persist, inode_numbers_are_not_used_twice_at_once, .needs = MNT_CRASH)
{
	char name[16];

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 50; i++) {
			snprintf(name, sizeof(name), "f%d-%d", round, i);
			put(name, name);
			if (i % 2)
				OK(unlink(name));
		}
		settle();
		crash_and_remount(NULL);
	}
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 50; i += 2) {
			snprintf(name, sizeof(name), "f%d-%d", round, i);
			must_hold(name, name);
			EQ(nlink_of(name), 1);
		}
	}
}

/*
 * A fixed reply means a fixed state: run the body, crash, and look.  Bodies
 * close what they open.
 */
static void survives(void (*body)(void))
{
	char *before;

	put("old", "old");
	OK(mkdir("dir", 0755));
	put("dir/f", "in dir");
	settle();
	body();
	settle();
	before = text();
	crash_and_remount(NULL);
	same(before, "a crash");
}

#define DURABLE(name)                            \
	static void do_##name(void);             \
	MTEST(durable, name, .needs = MNT_CRASH) \
	{                                        \
		survives(do_##name);             \
	}                                        \
	static void do_##name(void)

DURABLE(create)
{
	touch("new");
}

DURABLE(mkdir)
{
	OK(mkdir("new", 0750));
}

DURABLE(mknod)
{
	OK(mknod("new", S_IFCHR | 0600, 0x103));
}

DURABLE(symlink)
{
	OK(symlink("target", "new"));
}

DURABLE(link)
{
	OK(link("old", "dir/new"));
}

DURABLE(unlink)
{
	OK(unlink("old"));
}

DURABLE(unlink_of_one_link)
{
	OK(link("old", "new"));
	OK(unlink("old"));
}

DURABLE(rmdir)
{
	OK(unlink("dir/f"));
	OK(rmdir("dir"));
}

DURABLE(rename)
{
	OK(rename("old", "new"));
}

DURABLE(rename_over)
{
	OK(rename("old", "dir/f"));
}

DURABLE(rename_of_a_directory)
{
	OK(mkdir("p", 0755));
	OK(rename("dir", "p/q"));
}

DURABLE(exchange)
{
	OK(renameat2(AT_FDCWD, "old", AT_FDCWD, "dir", RENAME_EXCHANGE));
}

DURABLE(write)
{
	close_ok(pattern_file("new", 300000, 1));
}

DURABLE(append)
{
	int fd = open_ok("old", O_WRONLY | O_APPEND);

	EQ(write(fd, "more", 4), 4);
	close_ok(fd);
}

DURABLE(overwrite)
{
	int fd = pattern_file("new", 100000, 1);

	write_pattern(fd, 5000, 50000, 2);
	close_ok(fd);
}

DURABLE(truncate_down)
{
	close_ok(pattern_file("new", 3 * MIB, 1));
	OK(truncate("new", 5000));
}

DURABLE(truncate_up)
{
	OK(truncate("old", 100000));
}

DURABLE(o_trunc)
{
	close_ok(open_ok("old", O_WRONLY | O_TRUNC));
}

DURABLE(fallocate)
{
	int fd = open_ok("new", O_RDWR | O_CREAT);

	OK(fallocate(fd, 0, 5000, 500000));
	close_ok(fd);
}

DURABLE(punch)
{
	int fd = pattern_file("new", 3 * MIB, 1);

	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000,
		     2 * MIB));
	close_ok(fd);
}

DURABLE(zero_range)
{
	int fd = pattern_file("new", 300000, 1);

	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 5000, 400000));
	close_ok(fd);
}

DURABLE(copy_file_range)
{
	int in = pattern_file("in", 300000, 1);
	int out = open_ok("new", O_RDWR | O_CREAT);

	OK(copy_file_range(in, NULL, out, NULL, 300000, 0));
	close_ok(in);
	close_ok(out);
}

DURABLE(chmod)
{
	OK(chmod("old", 04711));
}

DURABLE(chown)
{
	OK(chown("old", 1, 2));
}

DURABLE(utimens)
{
	set_times("old", 77, 88);
	set_times("dir", 99, 11);
}

DURABLE(setxattr)
{
	static char value[2000];

	pattern(value, 0, sizeof(value), 3);
	OK(setxattr("old", "user.a", "short", 5, 0));
	OK(setxattr("old", "user.b", value, sizeof(value), 0));
	OK(setxattr("dir", "user.b", value, sizeof(value), 0));
}

DURABLE(removexattr)
{
	OK(setxattr("old", "user.a", "short", 5, 0));
	OK(setxattr("old", "user.b", "short", 5, 0));
	OK(removexattr("old", "user.a"));
}

DURABLE(setflags)
{
	int flags, fd = open_ok("old", O_RDONLY);

	OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
	flags |= FS_APPEND_FL;
	OK(ioctl(fd, FS_IOC_SETFLAGS, &flags));
	close_ok(fd);
}

DURABLE(mmap_and_msync)
{
	int fd = pattern_file("new", 100000, 1);
	unsigned char *p;

	p = mmap(NULL, 100000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED, "mmap: %s", mtest_errname(errno));
	pattern(p + 30000, 30000, 30000, 2);
	OK(msync(p, 100000, MS_SYNC));
	OK(munmap(p, 100000));
	close_ok(fd);
}

DURABLE(fsync_of_a_file)
{
	int fd = pattern_file("new", 100000, 1);

	OK(fsync(fd));
	close_ok(fd);
}

DURABLE(thousand_of_all)
{
	char name[32], to[32];

	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "dir/n%d", i);
		snprintf(to, sizeof(to), "n%d", i);
		put(name, name);
		if (i % 3 == 0)
			OK(rename(name, to));
		if (i % 5 == 0)
			OK(link(i % 3 ? name : to, "l"));
		if (i % 7 == 0)
			OK(unlink(i % 3 ? name : to));
		unlink("l");
	}
}
