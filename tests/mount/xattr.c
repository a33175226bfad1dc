/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/xattr.c - extended attributes
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

#define MAX_VALUE 65536

static void check_value(const char *path, const char *name, const char *want)
{
	char buf[256];
	ssize_t len = lgetxattr(path, name, buf, sizeof(buf));

	CHECK(len == (ssize_t)strlen(want), "%s of %s: %zd bytes, %s", name,
	      path, len, len < 0 ? mtest_errname(errno) : "");
	MEMEQ(buf, want, strlen(want));
}

static int set(const char *path, const char *name, const char *value)
{
	return lsetxattr(path, name, value, strlen(value), 0);
}

/* How often a name is in the list. */
static int listed(const char *path, const char *name)
{
	static char list[65536];
	ssize_t len = llistxattr(path, list, sizeof(list));
	int nr = 0;

	CHECK(len >= 0, "listxattr %s: %s", path, mtest_errname(errno));
	for (char *p = list; p < list + len; p += strlen(p) + 1)
		nr += !strcmp(p, name);
	return nr;
}

MTEST(xattr, set_get_list_remove)
{
	char buf[16];

	touch("f");
	OK(set("f", "user.a", "one"));
	OK(set("f", "user.b", "two"));
	check_value("f", "user.a", "one");
	check_value("f", "user.b", "two");
	EQ(listed("f", "user.a"), 1);
	EQ(listed("f", "user.b"), 1);
	OK(removexattr("f", "user.a"));
	FAILS(ENODATA, getxattr("f", "user.a", buf, sizeof(buf)));
	EQ(listed("f", "user.a"), 0);
	check_value("f", "user.b", "two");
	FAILS(ENODATA, removexattr("f", "user.a"));
}

MTEST(xattr, every_namespace)
{
	char buf[16];

	touch("f");
	OK(mkdir("d", 0755));
	for (int i = 0; i < 2; i++) {
		const char *path = i ? "d" : "f";

		OK(set(path, "user.x", "u"));
		OK(set(path, "trusted.x", "t"));
		OK(set(path, "security.x", "s"));
		check_value(path, "user.x", "u");
		check_value(path, "trusted.x", "t");
		check_value(path, "security.x", "s");
		EQ(listed(path, "user.x"), 1);
		EQ(listed(path, "trusted.x"), 1);
		EQ(listed(path, "security.x"), 1);
	}
	FAILS(EOPNOTSUPP, set("f", "nonsense.x", "v"));
	FAILS(EOPNOTSUPP, getxattr("f", "nonsense.x", buf, sizeof(buf)));
	FAILS(EOPNOTSUPP, set("f", "x", "v"));
}

MTEST(xattr, of_symlinks_and_special_files)
{
	touch("f");
	OK(symlink("f", "l"));
	OK(mknod("p", S_IFIFO | 0600, 0));
	OK(mknod("c", S_IFCHR | 0600, 0x103));
	FAILS(EPERM, set("l", "user.x", "v"));
	FAILS(EPERM, set("p", "user.x", "v"));
	FAILS(EPERM, set("c", "user.x", "v"));
	OK(set("l", "trusted.x", "l"));
	OK(set("p", "trusted.x", "p"));
	check_value("l", "trusted.x", "l");
	check_value("p", "trusted.x", "p");
	EQ(listed("f", "trusted.x"), 0);
	OK(setxattr("l", "user.y", "through", 7, 0));
	check_value("f", "user.y", "through");
}

MTEST(xattr, create_and_replace)
{
	touch("f");
	FAILS(ENODATA, setxattr("f", "user.x", "a", 1, XATTR_REPLACE));
	OK(setxattr("f", "user.x", "a", 1, XATTR_CREATE));
	FAILS(EEXIST, setxattr("f", "user.x", "b", 1, XATTR_CREATE));
	check_value("f", "user.x", "a");
	OK(setxattr("f", "user.x", "longer", 6, XATTR_REPLACE));
	check_value("f", "user.x", "longer");
	OK(setxattr("f", "user.x", "c", 1, 0));
	check_value("f", "user.x", "c");
	FAILS(EINVAL, setxattr("f", "user.x", "c", 1, 8));
	EQ(listed("f", "user.x"), 1);
}

MTEST(xattr, sizes_and_erange)
{
	char buf[16];

	touch("f");
	EQ(listxattr("f", NULL, 0), 0);
	OK(set("f", "user.name", "0123456789"));
	EQ(getxattr("f", "user.name", NULL, 0), 10);
	FAILS(ERANGE, getxattr("f", "user.name", buf, 9));
	EQ(getxattr("f", "user.name", buf, 10), 10);
	EQ(listxattr("f", NULL, 0), 10);
	FAILS(ERANGE, listxattr("f", buf, 9));
	EQ(listxattr("f", buf, 10), 10);
	MEMEQ(buf, "user.name", 10);
}

MTEST(xattr, empty_value_is_a_value)
{
	char buf[4];

	touch("f");
	OK(setxattr("f", "user.empty", "", 0, 0));
	EQ(getxattr("f", "user.empty", buf, sizeof(buf)), 0);
	EQ(listed("f", "user.empty"), 1);
	if (on(MNT_REMOUNT))
		remount(NULL);
	EQ(getxattr("f", "user.empty", buf, sizeof(buf)), 0);
	EQ(listed("f", "user.empty"), 1);
}

static void check_large(const char *path, size_t len, uint64_t seed)
{
	static unsigned char want[MAX_VALUE], got[MAX_VALUE];

	pattern(want, 0, len, seed);
	EQ(getxattr(path, "user.big", got, sizeof(got)), len);
	MEMEQ(got, want, len);
}

/* ext4 has one block for all; tmpfs limits the sum. */
MTEST(xattr, values_to_64_kib, .not_on = MNT_EXT4)
{
	static const size_t lens[] = { 1,    100,  200,	  255,	 256,	300,
				       1000, 4000, 4095,  4096,	 4097,	8192,
				       9000, 5,	   20000, 65535, 65536, 3 };
	static unsigned char value[MAX_VALUE + 1];

	touch("f");
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		pattern(value, 0, lens[i], i);
		OK(setxattr("f", "user.big", value, lens[i], 0));
		check_large("f", lens[i], i);
		EQ(getxattr("f", "user.big", NULL, 0), lens[i]);
	}
	FAILS(E2BIG, setxattr("f", "user.big", value, MAX_VALUE + 1, 0));
	pattern(value, 0, MAX_VALUE, 99);
	OK(setxattr("f", "user.big", value, MAX_VALUE, 0));
	if (on(MNT_REMOUNT))
		remount(NULL);
	check_large("f", MAX_VALUE, 99);
	OK(removexattr("f", "user.big"));
	EQ(listed("f", "user.big"), 0);
}

MTEST(xattr, names_to_255_bytes)
{
	char name[300];

	touch("f");
	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[255] = '\0';
	OK(set("f", name, "value"));
	check_value("f", name, "value");
	EQ(listed("f", name), 1);
	name[255] = 'n';
	name[256] = '\0';
	FAILS(ERANGE, set("f", name, "value"));
	/* A name of nothing but its namespace. */
	FAILS(EINVAL, set("f", "user.", "value"));
}

static void many_names(int nr, size_t value_len)
{
	char name[32], value[200], got[200];

	touch("f");
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < nr; i++) {
			sprintf(name, "user.name-%d", i);
			pattern(value, 0, value_len, (uint64_t)(i + round));
			if (round != 2)
				OK(setxattr("f", name, value, value_len, 0));
			else if (i % 2)
				OK(removexattr("f", name));
		}
	}
	if (on(MNT_REMOUNT))
		remount(NULL);
	for (int i = 0; i < nr; i++) {
		sprintf(name, "user.name-%d", i);
		EQ(listed("f", name), !(i % 2));
		if (i % 2)
			continue;
		pattern(value, 0, value_len, (uint64_t)(i + 1));
		EQ(getxattr("f", name, got, sizeof(got)), value_len);
		MEMEQ(got, value, value_len);
	}
}

MTEST(xattr, sixty_of_them)
{
	many_names(60, 20);
}

MTEST(xattr, a_thousand_of_them, .not_on = MNT_EXT4 | MNT_TMPFS)
{
	many_names(1000, 150);
}

MTEST(xattr, survive_a_remount, .needs = MNT_REMOUNT)
{
	touch("f");
	OK(mkdir("d", 0755));
	OK(symlink("x", "l"));
	OK(set("f", "user.x", "file"));
	OK(set("d", "user.x", "directory"));
	OK(set("l", "trusted.x", "symlink"));
	OK(set("f", "security.x", "secure"));
	remount(NULL);
	check_value("f", "user.x", "file");
	check_value("d", "user.x", "directory");
	check_value("l", "trusted.x", "symlink");
	check_value("f", "security.x", "secure");
}

MTEST(xattr, belong_to_the_inode_not_the_name)
{
	char buf[8];

	touch("f");
	OK(set("f", "user.x", "v"));
	OK(link("f", "g"));
	check_value("g", "user.x", "v");
	OK(rename("g", "h"));
	OK(unlink("f"));
	check_value("h", "user.x", "v");
	OK(unlink("h"));
	touch("h");
	FAILS(ENODATA, getxattr("h", "user.x", buf, sizeof(buf)));
}

MTEST(xattr, take_no_blocks_when_gone)
{
	static char value[3000];
	uint64_t before;
	int i;

	touch("f");
	settle();
	before = free_bytes();
	for (i = 0; i < 300; i++) {
		OK(setxattr("f", "user.x", value, (size_t)i * 10, 0));
		OK(removexattr("f", "user.x"));
	}
	settle();
	LE(before, free_bytes() + 256 * KIB);
}

MTEST(xattr, rights_of_users)
{
	char buf[16];

	put("f", "x");
	OK(chmod("f", 0644));
	OK(set("f", "user.x", "v"));
	OK(set("f", "trusted.x", "v"));
	AS_USER(NOBODY)
	{
		check_value("f", "user.x", "v");
		FAILS(EACCES, set("f", "user.x", "w"));
		FAILS(EACCES, removexattr("f", "user.x"));
		FAILS(EPERM, set("f", "trusted.y", "w"));
		FAILS(ENODATA, getxattr("f", "trusted.x", buf, sizeof(buf)));
		FAILS(EPERM, set("f", "security.y", "w"));
	}
	OK(chmod("f", 0600));
	AS_USER(NOBODY)
	{
		FAILS(EACCES, getxattr("f", "user.x", buf, sizeof(buf)));
	}
	OK(mkdir("d", 0777));
	OK(chmod("d", 01777));
	AS_USER(NOBODY)
	{
		FAILS(EPERM, set("d", "user.x", "w"));
	}
}

MTEST(xattr, through_a_descriptor)
{
	char buf[16];
	int fd = open_ok("f", O_RDWR | O_CREAT);

	OK(fsetxattr(fd, "user.x", "abc", 3, 0));
	EQ(fgetxattr(fd, "user.x", buf, sizeof(buf)), 3);
	EQ(flistxattr(fd, NULL, 0), 7);
	OK(fremovexattr(fd, "user.x"));
	EQ(flistxattr(fd, NULL, 0), 0);
	close_ok(fd);
}
