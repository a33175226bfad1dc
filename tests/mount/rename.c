/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/rename.c - rename, with its flags, over and across everything
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"

static int rename2(const char *from, const char *to, unsigned int flags)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

/* --- plain ------------------------------------------------------------------
 */

MTEST(rename, moves_a_file_and_keeps_its_inode)
{
	ino_t ino;

	put("a", "text");
	ino = lstat_of("a").st_ino;
	OK(rename("a", "b"));
	CHECK(!exists("a"), "the old name is still there");
	EQ(lstat_of("b").st_ino, ino);
	EQ(nlink_of("b"), 1);
	must_hold("b", "text");
}

MTEST(rename, of_what_is_missing_is_enoent)
{
	touch("f");
	FAILS(ENOENT, rename("x", "y"));
	FAILS(ENOENT, rename("x", "f"));
	FAILS(ENOENT, rename("f", "x/y"));
	FAILS(ENOENT, rename("x/y", "f"));
	FAILS(ENOTDIR, rename("f", "f/x"));
	FAILS(ENOTDIR, rename("f", "g/"));
}

MTEST(rename, replaces_a_file)
{
	int fd;

	put("a", "new");
	put("b", "old");
	fd = open_ok("b", O_RDWR);
	OK(rename("a", "b"));
	must_hold("b", "new");
	EQ(nlink_of("b"), 1);
	EQ(fstat_of(fd).st_nlink, 0);
	EQ(fstat_of(fd).st_size, 3);
	EQ(count_entries("."), 1);
	close_ok(fd);
}

MTEST(rename, replaces_one_of_several_links)
{
	put("a", "new");
	put("b", "old");
	OK(link("b", "c"));
	OK(rename("a", "b"));
	EQ(nlink_of("c"), 1);
	must_hold("c", "old");
	must_hold("b", "new");
}

MTEST(rename, between_links_of_one_file_does_nothing)
{
	put("a", "x");
	OK(link("a", "b"));
	OK(rename("a", "b"));
	CHECK(exists("a") && exists("b"), "a link went away");
	EQ(nlink_of("a"), 2);
	OK(rename("a", "a"));
	EQ(nlink_of("a"), 2);
}

MTEST(rename, every_type_over_every_type)
{
	static const char *const other[] = { "link", "fifo", "file" };

	for (int i = 0; i < 3; i++) {
		touch("file");
		OK(symlink("file", "link"));
		OK(mknod("fifo", S_IFIFO | 0600, 0));
		OK(rename(i == 2 ? "fifo" : "file", other[i]));
		EQ(count_entries("."), 2);
		unlink("file");
		unlink("link");
		unlink("fifo");
	}
}

MTEST(rename, works_on_a_symlink_not_on_its_target)
{
	put("f", "text");
	OK(symlink("f", "l"));
	OK(rename("l", "m"));
	CHECK(S_ISLNK(lstat_of("m").st_mode), "m is no symlink");
	must_hold("m", "text");
	put("n", "other");
	OK(rename("n", "m"));
	must_hold("m", "other");
	must_hold("f", "text");
}

/* --- directories -------------------------------------------------------------
 */

MTEST(rename_dir, over_an_empty_one)
{
	nlink_t before;

	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	touch("a/x");
	before = nlink_of(".");
	OK(rename("a", "b"));
	CHECK(exists("b/x"), "the content did not come along");
	EQ(nlink_of("."), before - 1);
	EQ(nlink_of("b"), 2);
}

MTEST(rename_dir, over_a_full_one_is_enotempty)
{
	int ret;

	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	touch("b/x");
	ret = rename("a", "b");
	CHECK(ret < 0 && (errno == ENOTEMPTY || errno == EEXIST),
	      "rename gave %d, %s", ret, mtest_errname(errno));
	CHECK(exists("a") && exists("b/x"), "something is gone");
}

MTEST(rename_dir, mixed_with_files)
{
	OK(mkdir("d", 0755));
	touch("f");
	FAILS(ENOTDIR, rename("d", "f"));
	FAILS(EISDIR, rename("f", "d"));
	OK(rename("d", "e/"));
	CHECK(exists("e"), "e is not there");
}

MTEST(rename_dir, into_its_own_subtree_is_einval)
{
	OK(mkdir("a", 0755));
	OK(mkdir("a/b", 0755));
	OK(mkdir("a/b/c", 0755));
	FAILS(EINVAL, rename("a", "a/x"));
	FAILS(EINVAL, rename("a", "a/b"));
	FAILS(EINVAL, rename("a", "a/b/c/x"));
	FAILS(EINVAL, rename("a", "a/b/../x"));
	FAILS(ENOTEMPTY, rename("a/b/c", "a"));
	FAILS(ENOTEMPTY, rename("a/b", "a"));
}

MTEST(rename_dir, of_dots_is_ebusy)
{
	OK(mkdir("a", 0755));
	FAILS(EBUSY, rename(".", "x"));
	FAILS(EBUSY, rename("a/..", "x"));
	FAILS(EBUSY, rename("a", "."));
	FAILS(EBUSY, rename("a", "a/.."));
}

MTEST(rename_dir, across_parents_moves_link_and_dotdot)
{
	struct stat up;

	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("a/d", 0755));
	EQ(nlink_of("a"), 3);
	OK(rename("a/d", "b/d"));
	EQ(nlink_of("a"), 2);
	EQ(nlink_of("b"), 3);
	EQ(nlink_of("b/d"), 2);
	up = lstat_of("b/d/..");
	EQ(up.st_ino, lstat_of("b").st_ino);
	OK(rmdir("a"));
	if (on(MNT_REMOUNT))
		remount(NULL);
	up = lstat_of("b/d/..");
	EQ(up.st_ino, lstat_of("b").st_ino);
}

MTEST(rename_dir, across_parents_over_an_empty_one)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("a/d", 0755));
	OK(mkdir("b/e", 0755));
	OK(rename("a/d", "b/e"));
	EQ(nlink_of("a"), 2);
	EQ(nlink_of("b"), 3);
}

MTEST(rename_dir, is_seen_through_open_descriptors)
{
	int fd;

	OK(mkdir("a", 0755));
	fd = open_ok("a", O_RDONLY | O_DIRECTORY);
	OK(mkdir("b", 0755));
	OK(rename("a", "b/c"));
	close_ok((int)OK(openat(fd, "x", O_CREAT | O_WRONLY, 0600)));
	CHECK(exists("b/c/x"), "the file is not under the new name");
	close_ok(fd);
}

MTEST(rename_dir, of_a_whole_tree)
{
	char name[64];

	OK(mkdir("a", 0755));
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "a/d%d", i);
		OK(mkdir(name, 0755));
		snprintf(name, sizeof(name), "a/d%d/f", i);
		put(name, "x");
	}
	for (int i = 0; i < 20; i++)
		OK(rename(i % 2 ? "b" : "a", i % 2 ? "a" : "b"));
	EQ(nlink_of("a"), 22);
	must_hold("a/d19/f", "x");
}

/* --- flags ------------------------------------------------------------------
 */

MTEST(rename_noreplace, refuses_what_exists)
{
	put("a", "a");
	put("b", "b");
	OK(mkdir("d", 0755));
	FAILS(EEXIST, rename2("a", "b", RENAME_NOREPLACE));
	FAILS(EEXIST, rename2("a", "d", RENAME_NOREPLACE));
	FAILS(EEXIST, rename2("d", "a", RENAME_NOREPLACE));
	FAILS(EEXIST, rename2("a", "a", RENAME_NOREPLACE));
	must_hold("a", "a");
	must_hold("b", "b");
	OK(rename2("a", "c", RENAME_NOREPLACE));
	must_hold("c", "a");
	CHECK(!exists("a"), "a is still there");
}

MTEST(rename_exchange, of_files)
{
	ino_t a, b;

	put("a", "was a");
	put("b", "was b");
	a = lstat_of("a").st_ino;
	b = lstat_of("b").st_ino;
	OK(rename2("a", "b", RENAME_EXCHANGE));
	EQ(lstat_of("a").st_ino, b);
	EQ(lstat_of("b").st_ino, a);
	must_hold("a", "was b");
	must_hold("b", "was a");
	EQ(nlink_of("a"), 1);
	EQ(nlink_of("b"), 1);
}

MTEST(rename_exchange, of_a_file_and_a_full_directory_across_parents)
{
	OK(mkdir("p", 0755));
	OK(mkdir("q", 0755));
	OK(mkdir("p/d", 0755));
	put("p/d/x", "inside");
	put("q/f", "file");
	OK(rename2("p/d", "q/f", RENAME_EXCHANGE));
	must_hold("p/d", "file");
	must_hold("q/f/x", "inside");
	EQ(nlink_of("p"), 2);
	EQ(nlink_of("q"), 3);
	EQ(lstat_of("q/f/..").st_ino, lstat_of("q").st_ino);
	OK(rename2("p/d", "q/f", RENAME_EXCHANGE));
	must_hold("p/d/x", "inside");
	EQ(nlink_of("p"), 3);
	EQ(nlink_of("q"), 2);
}

MTEST(rename_exchange, of_two_full_directories_across_parents)
{
	OK(mkdir("p", 0755));
	OK(mkdir("q", 0755));
	OK(mkdir("p/a", 0755));
	OK(mkdir("q/b", 0755));
	put("p/a/x", "a");
	put("q/b/y", "b");
	OK(rename2("p/a", "q/b", RENAME_EXCHANGE));
	must_hold("p/a/y", "b");
	must_hold("q/b/x", "a");
	EQ(nlink_of("p"), 3);
	EQ(nlink_of("q"), 3);
	EQ(lstat_of("p/a/..").st_ino, lstat_of("p").st_ino);
	EQ(lstat_of("q/b/..").st_ino, lstat_of("q").st_ino);
}

MTEST(rename_exchange, refusals)
{
	OK(mkdir("a", 0755));
	OK(mkdir("a/b", 0755));
	touch("f");
	FAILS(ENOENT, rename2("f", "x", RENAME_EXCHANGE));
	FAILS(ENOENT, rename2("x", "f", RENAME_EXCHANGE));
	FAILS(EINVAL, rename2("a", "a/b", RENAME_EXCHANGE));
	FAILS(EINVAL, rename2("a/b", "a", RENAME_EXCHANGE));
	FAILS(EINVAL, rename2("f", "a", RENAME_EXCHANGE | RENAME_NOREPLACE));
	FAILS(EINVAL, rename2("f", "a", 0x80));
}

MTEST(rename_exchange, with_a_symlink_swaps_the_link)
{
	put("f", "text");
	OK(symlink("nowhere", "l"));
	OK(rename2("f", "l", RENAME_EXCHANGE));
	must_hold("l", "text");
	CHECK(S_ISLNK(lstat_of("f").st_mode), "f is no symlink");
}

MTEST(rename_whiteout, leaves_a_whiteout_or_refuses)
{
	struct stat st;

	put("a", "x");
	if (rename2("a", "b", RENAME_WHITEOUT)) {
		EQ(errno, EINVAL);
		must_hold("a", "x");
		CHECK(!exists("b"), "b was made all the same");
		return;
	}
	st = lstat_of("a");
	CHECK(S_ISCHR(st.st_mode), "a is no whiteout");
	EQ(st.st_rdev, makedev(0, 0));
	must_hold("b", "x");
	put("c", "y");
	OK(rename2("b", "c", RENAME_WHITEOUT));
	must_hold("c", "x");
	CHECK(S_ISCHR(lstat_of("b").st_mode), "b is no whiteout");
}

/* --- times and atomicity
 * ------------------------------------------------------ */

MTEST(rename_times, parents_and_the_inode_itself)
{
	struct stat dir, st;

	OK(mkdir("p", 0755));
	OK(mkdir("q", 0755));
	put("p/f", "x");
	dir = lstat_of("p");
	st = lstat_of("p/f");
	tick();
	OK(rename("p/f", "q/f"));
	CHECK(time_before(dir.st_mtim, lstat_of("p").st_mtim),
	      "mtime of the old parent did not move");
	CHECK(time_before(dir.st_ctim, lstat_of("p").st_ctim),
	      "ctime of the old parent did not move");
	CHECK(time_before(dir.st_mtim, lstat_of("q").st_mtim),
	      "mtime of the new parent did not move");
	CHECK(time_equal(st.st_mtim, lstat_of("q/f").st_mtim),
	      "mtime of the file moved");
	if (!on(MNT_TMPFS | MNT_XFS | MNT_EXT4 | MNT_FOLIOFS))
		return;
	CHECK(time_before(st.st_ctim, lstat_of("q/f").st_ctim),
	      "ctime of the file did not move");
}

MTEST(rename_times, what_was_replaced_gets_a_ctime)
{
	struct stat st;
	int fd;

	put("a", "new");
	put("b", "old");
	OK(link("b", "c"));
	fd = open_ok("c", O_RDONLY);
	st = fstat_of(fd);
	tick();
	OK(rename("a", "b"));
	CHECK(time_before(st.st_ctim, fstat_of(fd).st_ctim),
	      "ctime of the replaced file did not move");
	close_ok(fd);
}

/* Whoever looks while a name is replaced finds one of the two files. */
MTEST(rename_atomic, a_replaced_name_is_never_missing)
{
	volatile int *stop = sandbox_shared(sizeof(*stop));
	int status;

	put("name", "x");
	if (!fork()) {
		while (!*stop)
			must_hold("name", "x");
		_exit(0);
	}
	for (int i = 0; i < 1500; i++) {
		put("new", "x");
		OK(rename("new", "name"));
	}
	*stop = 1;
	wait(&status);
	EQ(status, 0);
}

MTEST(rename_atomic, exchange_never_loses_either)
{
	volatile int *stop = sandbox_shared(sizeof(*stop));
	int status;

	put("a", "x");
	put("b", "x");
	if (!fork()) {
		while (!*stop) {
			must_hold("a", "x");
			must_hold("b", "x");
		}
		_exit(0);
	}
	for (int i = 0; i < 2000; i++)
		OK(rename2("a", "b", RENAME_EXCHANGE));
	*stop = 1;
	wait(&status);
	EQ(status, 0);
}

/* Processes that move files between directories: none is lost or doubled. */
MTEST(rename_atomic, crossing_moves_lose_nothing)
{
	char from[32], to[32];
	int status;

	for (int i = 0; i < 4; i++) {
		snprintf(from, sizeof(from), "d%d", i);
		OK(mkdir(from, 0777));
	}
	for (int i = 0; i < 40; i++) {
		snprintf(from, sizeof(from), "d0/f%d", i);
		touch(from);
	}
	for (int who = 0; who < 4; who++) {
		uint64_t state = (uint64_t)who;

		if (fork())
			continue;
		for (int i = 0; i < 2000; i++) {
			int nr = (int)(rnd(&state) % 40);

			snprintf(from, sizeof(from), "d%d/f%d",
				 (int)(rnd(&state) % 4), nr);
			snprintf(to, sizeof(to), "d%d/f%d",
				 (int)(rnd(&state) % 4), nr);
			if (rename(from, to) && errno != ENOENT)
				_exit(1);
		}
		_exit(0);
	}
	while (wait(&status) > 0)
		EQ(status, 0);
	EQ(count_entries("d0") + count_entries("d1") + count_entries("d2") +
		   count_entries("d3"),
	   40);
}

/* The same with directories: no loop, no deadlock, no lost tree. */
MTEST(rename_atomic, crossing_moves_of_directories_end)
{
	char from[64], to[64];
	int status;

	OK(mkdir("r", 0777));
	for (int i = 0; i < 6; i++) {
		snprintf(from, sizeof(from), "r/d%d", i);
		OK(mkdir(from, 0777));
	}
	for (int who = 0; who < 3; who++) {
		uint64_t state = (uint64_t)who + 10;

		if (fork())
			continue;
		for (int i = 0; i < 1500; i++) {
			int a = (int)(rnd(&state) % 6);
			int b = (int)(rnd(&state) % 6);
			bool in = rnd(&state) % 2;

			snprintf(from, sizeof(from), in ? "r/d%d" : "r/d%d/d%d",
				 in ? a : b, a);
			snprintf(to, sizeof(to), in ? "r/d%d/d%d" : "r/d%d",
				 in ? b : a, a);
			(void)rename(from, to);
		}
		_exit(0);
	}
	while (wait(&status) > 0)
		EQ(status, 0);
	OK(sandbox_exec((const char *[]){ "rm", "-r", "r", NULL },
			"/dev/null"));
	CHECK(!exists("r"), "rm -r left something");
}
