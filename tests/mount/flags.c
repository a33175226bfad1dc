/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/flags.c - inode flags: immutable and append-only
 *
 * A filesystem in FUSE cannot tell the kernel that an inode is immutable, and
 * it may not hear of an open.  So an attempt to change is refused at the open
 * or at the change, and both are good.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

static int get_flags(const char *path)
{
	int flags = 0, fd = open_ok(path, O_RDONLY | O_NONBLOCK);

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
		CHECK(!on(MNT_FOLIOFS), "FS_IOC_GETFLAGS: %s",
		      mtest_errname(errno));
		SKIP("no inode flags");
	}
	close_ok(fd);
	return flags;
}

static int try_set_flags(const char *path, int flags)
{
	int ret, fd = open_ok(path, O_RDONLY | O_NONBLOCK);

	ret = ioctl(fd, FS_IOC_SETFLAGS, &flags);
	if (ret)
		ret = -errno;
	close_ok(fd);
	errno = -ret;
	return ret ? -1 : 0;
}

static void change_flags(const char *path, int add, int remove)
{
	int flags = get_flags(path);

	OK(try_set_flags(path, (flags | add) & ~remove));
}

/* The test's directory is removed with the rest, but not by everybody. */
static void make_immutable(const char *path)
{
	change_flags(path, FS_IMMUTABLE_FL, 0);
}

static void make_mutable(const char *path)
{
	change_flags(path, 0, FS_IMMUTABLE_FL | FS_APPEND_FL);
}

/* Opening to write, or the write, must give EPERM. */
static void write_refused(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0) {
		EQ(errno, EPERM);
		return;
	}
	if (pwrite(fd, "!", 1, 0) == 1)
		FAILS(EPERM, fsync(fd));
	else
		EQ(errno, EPERM);
	close(fd);
}

MTEST(flags, none_at_first)
{
	touch("f");
	OK(mkdir("d", 0755));
	EQ(get_flags("f") & (FS_IMMUTABLE_FL | FS_APPEND_FL), 0);
	EQ(get_flags("d") & (FS_IMMUTABLE_FL | FS_APPEND_FL), 0);
}

MTEST(flags, are_set_and_cleared)
{
	touch("f");
	OK(mkdir("d", 0755));
	for (int i = 0; i < 2; i++) {
		const char *path = i ? "d" : "f";

		make_immutable(path);
		CHECK(get_flags(path) & FS_IMMUTABLE_FL, "not immutable");
		change_flags(path, FS_APPEND_FL, FS_IMMUTABLE_FL);
		CHECK(get_flags(path) & FS_APPEND_FL, "not append-only");
		CHECK(!(get_flags(path) & FS_IMMUTABLE_FL), "still immutable");
		make_mutable(path);
		EQ(get_flags(path) & (FS_IMMUTABLE_FL | FS_APPEND_FL), 0);
	}
}

MTEST(flags, need_privilege)
{
	put("f", "x");
	OK(chown("f", NOBODY, NOBODY));
	(void)get_flags("f");
	AS_USER(NOBODY)
	{
		FAILS(EPERM,
		      try_set_flags("f", get_flags("f") | FS_IMMUTABLE_FL));
	}
	AS_USER(1234)
	{
		int ret = try_set_flags("f", get_flags("f") | FS_NODUMP_FL);

		CHECK(ret < 0 && (errno == EPERM || errno == EACCES ||
				  errno == EOPNOTSUPP),
		      "a stranger set a flag");
	}
	EQ(get_flags("f") & FS_IMMUTABLE_FL, 0);
}

MTEST(flags, fsgetxattr_agrees_with_getflags)
{
	struct fsxattr fsx;
	int fd;

	put("f", "x");
	make_immutable("f");
	fd = open_ok("f", O_RDONLY);
	OK(ioctl(fd, FS_IOC_FSGETXATTR, &fsx));
	CHECK(fsx.fsx_xflags & FS_XFLAG_IMMUTABLE, "xflags are %#x",
	      fsx.fsx_xflags);
	fsx.fsx_xflags &= ~(unsigned int)FS_XFLAG_IMMUTABLE;
	fsx.fsx_xflags |= FS_XFLAG_APPEND;
	OK(ioctl(fd, FS_IOC_FSSETXATTR, &fsx));
	close_ok(fd);
	CHECK(get_flags("f") & FS_APPEND_FL, "not append-only");
	CHECK(!(get_flags("f") & FS_IMMUTABLE_FL), "still immutable");
	make_mutable("f");
}

MTEST(immutable, file_cannot_be_changed)
{
	struct timespec ts[2] = { { 1, 0 }, { 2, 0 } };
	int fd;

	put("f", "text");
	put("g", "other");
	OK(setxattr("f", "user.x", "v", 1, 0));
	make_immutable("f");
	write_refused("f", O_WRONLY);
	write_refused("f", O_RDWR);
	write_refused("f", O_WRONLY | O_APPEND);
	FAILS(EPERM, truncate("f", 0));
	FAILS(EPERM, chmod("f", 0600));
	FAILS(EPERM, chown("f", 1, 1));
	FAILS(EPERM, utimensat(AT_FDCWD, "f", ts, 0));
	FAILS(EPERM, unlink("f"));
	FAILS(EPERM, rename("f", "h"));
	FAILS(EPERM, rename("g", "f"));
	FAILS(EPERM, link("f", "h"));
	FAILS(EPERM, setxattr("f", "user.x", "w", 1, 0));
	FAILS(EPERM, removexattr("f", "user.x"));
	must_hold("f", "text");
	EQ(mode_of("f"), 0644);
	fd = open("f", O_RDWR | O_TRUNC);
	if (fd >= 0)
		close(fd);
	must_hold("f", "text");
	make_mutable("f");
	put("f", "changed");
	OK(unlink("f"));
}

MTEST(immutable, directory_keeps_its_names)
{
	OK(mkdir("d", 0755));
	put("d/f", "x");
	touch("g");
	make_immutable("d");
	CHECK(open("d/new", O_CREAT | O_WRONLY, 0600) < 0, "create works");
	CHECK(mkdir("d/new", 0700) < 0, "mkdir works");
	CHECK(symlink("x", "d/new") < 0, "symlink works");
	CHECK(link("g", "d/new") < 0, "link works");
	CHECK(rename("g", "d/new") < 0, "rename into it works");
	FAILS(EPERM, unlink("d/f"));
	FAILS(EPERM, rename("d/f", "h"));
	FAILS(EPERM, rmdir("d"));
	FAILS(EPERM, rename("d", "e"));
	FAILS(EPERM, chmod("d", 0700));
	/* What is in it may change. */
	put("d/f", "changed");
	EQ(count_entries("d"), 1);
	make_mutable("d");
	OK(unlink("d/f"));
	OK(rmdir("d"));
}

MTEST(append_only, file_only_grows)
{
	int fd;

	put("f", "text");
	change_flags("f", FS_APPEND_FL, 0);
	write_refused("f", O_WRONLY);
	FAILS(EPERM, truncate("f", 0));
	FAILS(EPERM, unlink("f"));
	FAILS(EPERM, rename("f", "g"));
	FAILS(EPERM, link("f", "g"));
	FAILS(EPERM, chmod("f", 0600));
	fd = open_ok("f", O_WRONLY | O_APPEND);
	EQ(write(fd, "more", 4), 4);
	OK(fsync(fd));
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2) <
		      0,
	      "a hole was punched");
	CHECK(ftruncate(fd, 2) < 0, "it was truncated");
	close_ok(fd);
	must_hold("f", "textmore");
	make_mutable("f");
	OK(unlink("f"));
}

MTEST(append_only, directory_only_gains_names)
{
	OK(mkdir("d", 0755));
	touch("d/f");
	change_flags("d", FS_APPEND_FL, 0);
	touch("d/g");
	OK(mkdir("d/s", 0755));
	FAILS(EPERM, unlink("d/f"));
	FAILS(EPERM, rmdir("d/s"));
	FAILS(EPERM, rename("d/f", "h"));
	EQ(count_entries("d"), 3);
	make_mutable("d");
	OK(unlink("d/f"));
}

MTEST(flags, survive_a_remount, .needs = MNT_REMOUNT)
{
	put("f", "x");
	put("g", "x");
	make_immutable("f");
	change_flags("g", FS_APPEND_FL, 0);
	remount(NULL);
	CHECK(get_flags("f") & FS_IMMUTABLE_FL, "not immutable any more");
	CHECK(get_flags("g") & FS_APPEND_FL, "not append-only any more");
	FAILS(EPERM, unlink("f"));
	write_refused("f", O_WRONLY);
	make_mutable("f");
	make_mutable("g");
}

MTEST(flags, set_while_open, .not_on = MNT_TMPFS | MNT_XFS | MNT_EXT4)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	pwrite_ok(fd, "text", 4, 0);
	OK(fsync(fd));
	make_immutable("f");
	FAILS(EPERM, ftruncate(fd, 0));
	close(fd);
	must_hold("f", "text");
	make_mutable("f");
}
