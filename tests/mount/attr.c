/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/attr.c - modes, owners, device numbers and times
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

/* --- mode and owner
 * --------------------------------------------------------------- */

MTEST(chmod, sets_every_bit)
{
	touch("f");
	OK(mkdir("d", 0755));
	for (unsigned int mode = 0; mode < 010000; mode += 0111) {
		OK(chmod("f", mode));
		EQ(mode_of("f"), mode);
		OK(chmod("d", mode));
		EQ(mode_of("d"), mode);
	}
	OK(chmod("f", 07777));
	CHECK(S_ISREG(lstat_of("f").st_mode), "the type changed");
}

MTEST(chown, sets_user_and_group)
{
	touch("f");
	OK(chown("f", 12345, 54321));
	EQ(lstat_of("f").st_uid, 12345);
	EQ(lstat_of("f").st_gid, 54321);
	OK(chown("f", -1u, 7));
	EQ(lstat_of("f").st_uid, 12345);
	EQ(lstat_of("f").st_gid, 7);
	OK(chown("f", 8, -1u));
	EQ(lstat_of("f").st_uid, 8);
	EQ(lstat_of("f").st_gid, 7);
	OK(chown("f", -1u, -1u));
	EQ(lstat_of("f").st_uid, 8);
	OK(chown("f", 0xfffffffe, 0x80000000));
	EQ(lstat_of("f").st_uid, 0xfffffffe);
	EQ(lstat_of("f").st_gid, 0x80000000);
}

MTEST(chown, of_a_new_file_is_the_makers)
{
	AS_USER_GROUP(1234, 5678)
	{
		touch("f");
		OK(mkdir("d", 0755));
		OK(symlink("x", "l"));
		OK(mknod("p", S_IFIFO | 0600, 0));
	}
	EQ(lstat_of("f").st_uid, 1234);
	EQ(lstat_of("f").st_gid, 5678);
	EQ(lstat_of("d").st_uid, 1234);
	EQ(lstat_of("d").st_gid, 5678);
	EQ(lstat_of("l").st_uid, 1234);
	EQ(lstat_of("p").st_gid, 5678);
}

MTEST(umask, applies_to_everything_that_is_made)
{
	umask(077);
	close_ok((int)OK(open("f", O_CREAT | O_WRONLY, 0666)));
	OK(mkdir("d", 0777));
	OK(mknod("p", S_IFIFO | 0666, 0));
	OK(mknod("n", S_IFREG | 0666, 0));
	EQ(mode_of("f"), 0600);
	EQ(mode_of("d"), 0700);
	EQ(mode_of("p"), 0600);
	EQ(mode_of("n"), 0600);
	umask(0);
	close_ok((int)OK(open("g", O_CREAT | O_WRONLY, 0666)));
	EQ(mode_of("g"), 0666);
	OK(chmod("f", 0666));
	EQ(mode_of("f"), 0666);
}

/* --- setgid directories
 * ------------------------------------------------------------- */

MTEST(setgid_dir, hands_on_its_group)
{
	OK(mkdir("d", 0777));
	OK(chown("d", 0, 4242));
	OK(chmod("d", 02777));
	AS_USER(1234)
	{
		umask(0);
		touch("d/f");
		OK(mkdir("d/sub", 0755));
		OK(symlink("x", "d/l"));
		OK(mknod("d/p", S_IFIFO | 0600, 0));
	}
	EQ(lstat_of("d/f").st_gid, 4242);
	EQ(lstat_of("d/f").st_uid, 1234);
	EQ(mode_of("d/f"), 0644);
	EQ(lstat_of("d/sub").st_gid, 4242);
	EQ(mode_of("d/sub"), 02755);
	EQ(lstat_of("d/l").st_gid, 4242);
	EQ(lstat_of("d/p").st_gid, 4242);
	OK(mkdir("d/sub/deeper", 0700));
	EQ(mode_of("d/sub/deeper"), 02700);
	EQ(lstat_of("d/sub/deeper").st_gid, 4242);
}

MTEST(setgid_dir, gives_no_setgid_file_to_a_stranger)
{
	OK(mkdir("d", 0777));
	OK(chown("d", 0, 4242));
	OK(chmod("d", 02777));
	AS_USER(1234)
	{
		close_ok((int)OK(open("d/f", O_CREAT | O_WRONLY, 02755)));
	}
	EQ(mode_of("d/f"), 0755);
	AS_USER_GROUP(1234, 4242)
	{
		close_ok((int)OK(open("d/g", O_CREAT | O_WRONLY, 02755)));
	}
	EQ(mode_of("d/g"), 02755);
}

MTEST(setgid_dir, is_not_the_default)
{
	OK(mkdir("d", 0777));
	OK(chown("d", 0, 4242));
	touch("d/f");
	EQ(lstat_of("d/f").st_gid, 0);
}

/* --- suid and sgid are lost
 * ---------------------------------------------------------- */

/* Afresh: a file of user 1234 with these bits and ten bytes. */
static void suid_file(mode_t mode)
{
	unlink("f");
	put("f", "0123456789");
	OK(chown("f", 1234, 1234));
	OK(chmod("f", mode));
	EQ(mode_of("f"), mode);
}

MTEST(suid, is_lost_when_a_user_writes)
{
	suid_file(06777);
	AS_USER(NOBODY)
	{
		int fd = open_ok("f", O_WRONLY);

		pwrite_ok(fd, "x", 1, 0);
		OK(fsync(fd));
		close_ok(fd);
	}
	EQ(mode_of("f"), 0777);
	must_hold("f", "x123456789");
}

MTEST(suid, is_lost_when_the_owner_writes)
{
	suid_file(06755);
	AS_USER(1234)
	{
		put("f", "x");
	}
	EQ(mode_of("f"), 0755);
}

MTEST(suid, is_lost_when_a_user_truncates)
{
	suid_file(06777);
	AS_USER(NOBODY)
	{
		OK(truncate("f", 5));
	}
	EQ(mode_of("f"), 0777);
	suid_file(06777);
	AS_USER(NOBODY)
	{
		close_ok(open_ok("f", O_WRONLY | O_TRUNC));
	}
	EQ(mode_of("f"), 0777);
}

MTEST(suid, is_lost_when_a_user_allocates)
{
	suid_file(06777);
	AS_USER(NOBODY)
	{
		int fd = open_ok("f", O_RDWR);

		OK(fallocate(fd, 0, 0, 10000));
		close_ok(fd);
	}
	EQ(mode_of("f"), 0777);
}

MTEST(suid, is_lost_when_a_user_copies)
{
	suid_file(06777);
	put("in", "abc");
	AS_USER(NOBODY)
	{
		int in = open_ok("in", O_RDONLY), fd = open_ok("f", O_RDWR);

		EQ(copy_file_range(in, NULL, fd, NULL, 3, 0), 3);
		close_ok(fd);
	}
	EQ(mode_of("f"), 0777);
}

MTEST(suid, stays_when_root_writes)
{
	int fd;

	suid_file(06777);
	fd = open_ok("f", O_RDWR);
	pwrite_ok(fd, "x", 1, 0);
	OK(fsync(fd));
	EQ(mode_of("f"), 06777);
	OK(ftruncate(fd, 3));
	EQ(mode_of("f"), 06777);
	close_ok(fd);
}

MTEST(suid, is_lost_by_chown_of_a_file)
{
	suid_file(06777);
	OK(chown("f", 1, 1));
	EQ(mode_of("f"), 0777);
	suid_file(06777);
	OK(chown("f", -1u, 5));
	EQ(mode_of("f"), 0777);
	suid_file(06777);
	OK(lchown("f", 77, -1u));
	EQ(mode_of("f"), 0777);
}

MTEST(suid, sgid_without_group_execute_stays)
{
	suid_file(02666);
	AS_USER_GROUP(NOBODY, 1234)
	{
		int fd = open_ok("f", O_WRONLY);

		pwrite_ok(fd, "x", 1, 0);
		close_ok(fd);
	}
	EQ(mode_of("f"), 02666);
}

MTEST(suid, of_a_directory_stays_at_chown)
{
	OK(mkdir("d", 0755));
	OK(chmod("d", 06755));
	OK(chown("d", 1, 1));
	EQ(mode_of("d"), 06755);
}

MTEST(suid, sgid_is_refused_to_who_is_not_in_the_group)
{
	touch("f");
	OK(chown("f", 1234, 99));
	AS_USER(1234)
	{
		OK(chmod("f", 02755));
	}
	EQ(mode_of("f"), 0755);
	AS_USER_GROUP(1234, 99)
	{
		OK(chmod("f", 02755));
	}
	EQ(mode_of("f"), 02755);
}

/* VFS_CAP_REVISION_2, effective, CAP_NET_RAW. */
static const unsigned char file_caps[20] = { 1, 0, 0, 2, 0, 0x20 };

MTEST(suid, file_capabilities_are_lost_by_a_write)
{
	char buf[64];
	int fd;

	put("f", "x");
	if (setxattr("f", "security.capability", file_caps, 20, 0))
		SKIP("no file capabilities");
	EQ(getxattr("f", "security.capability", buf, sizeof(buf)), 20);
	fd = open_ok("f", O_WRONLY);
	pwrite_ok(fd, "y", 1, 0);
	OK(fsync(fd));
	close_ok(fd);
	FAILS(ENODATA, getxattr("f", "security.capability", buf, sizeof(buf)));
}

MTEST(suid, file_capabilities_are_lost_by_truncate_and_chown)
{
	char buf[64];

	put("f", "xyz");
	if (setxattr("f", "security.capability", file_caps, 20, 0))
		SKIP("no file capabilities");
	OK(truncate("f", 1));
	FAILS(ENODATA, getxattr("f", "security.capability", buf, sizeof(buf)));
	OK(setxattr("f", "security.capability", file_caps, 20, 0));
	OK(chown("f", 1, 1));
	FAILS(ENODATA, getxattr("f", "security.capability", buf, sizeof(buf)));
}

/* --- special files
 * -------------------------------------------------------------------- */

/* XFS has 14 bits for the major number and 18 for the minor. */
MTEST(mknod, keeps_type_and_device_number, .not_on = MNT_XFS)
{
	static const struct {
		const char *name;
		mode_t type;
		unsigned int major, minor;
	} nodes[] = {
		{ "null", S_IFCHR, 1, 3 },
		{ "large", S_IFCHR, 4095, 1048575 },
		{ "blk", S_IFBLK, 259, 70000 },
		{ "zero", S_IFBLK, 0, 0 },
	};

	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < 4; i++) {
			dev_t dev = makedev(nodes[i].major, nodes[i].minor);
			struct stat st;

			if (!round)
				OK(mknod(nodes[i].name, nodes[i].type | 0640,
					 dev));
			st = lstat_of(nodes[i].name);
			EQ(st.st_mode, nodes[i].type | 0640);
			EQ(st.st_rdev, dev);
			EQ(st.st_nlink, 1);
			EQ(st.st_size, 0);
		}
		if (!round && on(MNT_REMOUNT))
			remount(NULL);
	}
}

MTEST(mknod, refusals)
{
	touch("f");
	FAILS(EEXIST, mknod("f", S_IFIFO | 0600, 0));
	FAILS(ENOENT, mknod("x/y", S_IFIFO | 0600, 0));
	FAILS(EPERM, mknod("d", S_IFDIR | 0700, 0));
	AS_USER(NOBODY)
	{
		FAILS(EPERM, mknod("c", S_IFCHR | 0600, makedev(1, 3)));
		FAILS(EPERM, mknod("b", S_IFBLK | 0600, makedev(7, 0)));
		OK(mknod("p", S_IFIFO | 0600, 0));
	}
}

MTEST(mknod, makes_plain_files_too)
{
	OK(mknod("f", S_IFREG | 0644, 0));
	CHECK(S_ISREG(lstat_of("f").st_mode), "not a regular file");
	EQ(size_of("f"), 0);
	put("f", "text");
	must_hold("f", "text");
}

MTEST(mknod, fifo_carries_bytes)
{
	char buf[8];
	int fd, status;

	OK(mkfifo("p", 0600));
	if (!fork()) {
		fd = open_ok("p", O_WRONLY);
		EQ(write(fd, "hello", 5), 5);
		_exit(0);
	}
	fd = open_ok("p", O_RDONLY);
	EQ(read(fd, buf, sizeof(buf)), 5);
	MEMEQ(buf, "hello", 5);
	wait(&status);
	EQ(status, 0);
	EQ(size_of("p"), 0);
}

MTEST(mknod, socket_takes_connections)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = "s" };
	int a = socket(AF_UNIX, SOCK_STREAM, 0);
	int b = socket(AF_UNIX, SOCK_STREAM, 0);

	OK(bind(a, (struct sockaddr *)&sun, sizeof(sun)));
	CHECK(S_ISSOCK(lstat_of("s").st_mode), "not a socket");
	OK(listen(a, 1));
	OK(connect(b, (struct sockaddr *)&sun, sizeof(sun)));
	FAILS(EADDRINUSE, bind(socket(AF_UNIX, SOCK_STREAM, 0),
			       (struct sockaddr *)&sun, sizeof(sun)));
	OK(unlink("s"));
	FAILS(ENOENT, connect(socket(AF_UNIX, SOCK_STREAM, 0),
			      (struct sockaddr *)&sun, sizeof(sun)));
}

/* --- setting times
 * --------------------------------------------------------------------- */

static void set_times(const char *path, time_t asec, long ansec, time_t msec,
		      long mnsec)
{
	struct timespec ts[2] = { { asec, ansec }, { msec, mnsec } };

	OK(utimensat(AT_FDCWD, path, ts, AT_SYMLINK_NOFOLLOW));
}

MTEST(utimens, keeps_nanoseconds)
{
	struct stat st;

	touch("f");
	OK(mkdir("d", 0755));
	OK(symlink("f", "l"));
	set_times("f", 1000000000, 1, 1500000000, 999999999);
	set_times("d", 1, 2, 3, 4);
	set_times("l", 5, 6, 7, 8);
	for (int round = 0; round < 2; round++) {
		st = lstat_of("f");
		EQ(st.st_atim.tv_sec, 1000000000);
		EQ(st.st_atim.tv_nsec, 1);
		EQ(st.st_mtim.tv_sec, 1500000000);
		EQ(st.st_mtim.tv_nsec, 999999999);
		st = lstat_of("d");
		EQ(st.st_mtim.tv_sec, 3);
		EQ(st.st_mtim.tv_nsec, 4);
		st = lstat_of("l");
		EQ(st.st_mtim.tv_sec, 7);
		EQ(st.st_mtim.tv_nsec, 8);
		if (!round && on(MNT_REMOUNT))
			remount(NULL);
	}
}

MTEST(utimens, before_1970_and_after_2106)
{
	struct stat st;

	touch("f");
	set_times("f", -1000000000, 123456789, 7000000000, 5);
	for (int round = 0; round < 2; round++) {
		st = lstat_of("f");
		EQ(st.st_atim.tv_sec, -1000000000);
		EQ(st.st_atim.tv_nsec, 123456789);
		EQ(st.st_mtim.tv_sec, 7000000000);
		EQ(st.st_mtim.tv_nsec, 5);
		if (!round && on(MNT_REMOUNT))
			remount(NULL);
	}
	set_times("f", -1, 0, -1, 999999999);
	st = lstat_of("f");
	EQ(st.st_atim.tv_sec, -1);
	EQ(st.st_mtim.tv_sec, -1);
	EQ(st.st_mtim.tv_nsec, 999999999);
}

MTEST(utimens, omit_leaves_a_time_alone)
{
	struct timespec ts[2] = { { 11, 12 }, { 0, UTIME_OMIT } };
	struct stat before, after;

	touch("f");
	set_times("f", 1, 2, 3, 4);
	OK(utimensat(AT_FDCWD, "f", ts, 0));
	after = lstat_of("f");
	EQ(after.st_atim.tv_sec, 11);
	EQ(after.st_mtim.tv_sec, 3);
	ts[0].tv_nsec = UTIME_OMIT;
	ts[1] = (struct timespec){ 13, 14 };
	OK(utimensat(AT_FDCWD, "f", ts, 0));
	after = lstat_of("f");
	EQ(after.st_atim.tv_sec, 11);
	EQ(after.st_mtim.tv_sec, 13);
	before = after;
	tick();
	ts[1].tv_nsec = UTIME_OMIT;
	OK(utimensat(AT_FDCWD, "f", ts, 0));
	after = lstat_of("f");
	CHECK(time_equal(before.st_ctim, after.st_ctim),
	      "ctime moved with both times omitted");
}

static void check_now(struct timespec ts, struct timespec start)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	CHECK(!time_before(ts, start) && !time_before(end, ts),
	      "%lld.%09ld is not between %lld.%09ld and %lld.%09ld",
	      (long long)ts.tv_sec, ts.tv_nsec, (long long)start.tv_sec,
	      start.tv_nsec, (long long)end.tv_sec, end.tv_nsec);
}

MTEST(utimens, now_is_now)
{
	struct timespec start, ts[2] = { { 0, UTIME_NOW }, { 0, UTIME_NOW } };
	struct stat st;

	touch("f");
	set_times("f", 1, 2, 3, 4);
	clock_gettime(CLOCK_REALTIME_COARSE, &start);
	OK(utimensat(AT_FDCWD, "f", ts, 0));
	st = lstat_of("f");
	check_now(st.st_atim, start);
	check_now(st.st_mtim, start);
	check_now(st.st_ctim, start);
	set_times("f", 1, 2, 3, 4);
	OK(utimensat(AT_FDCWD, "f", NULL, 0));
	check_now(lstat_of("f").st_mtim, start);
	set_times("f", 1, 2, 3, 4);
	ts[0] = (struct timespec){ 21, 22 };
	OK(utimensat(AT_FDCWD, "f", ts, 0));
	st = lstat_of("f");
	EQ(st.st_atim.tv_sec, 21);
	check_now(st.st_mtim, start);
}

MTEST(utimens, refusals)
{
	struct timespec bad[2] = { { 0, 1000000000 }, { 0, 0 } };
	struct timespec set[2] = { { 1, 0 }, { 2, 0 } };

	touch("f");
	FAILS(EINVAL, utimensat(AT_FDCWD, "f", bad, 0));
	FAILS(ENOENT, utimensat(AT_FDCWD, "x", set, 0));
	OK(chmod("f", 0644));
	AS_USER(NOBODY)
	{
		FAILS(EPERM, utimensat(AT_FDCWD, "f", set, 0));
		FAILS(EACCES, utimensat(AT_FDCWD, "f", NULL, 0));
	}
	OK(chmod("f", 0666));
	AS_USER(NOBODY)
	{
		FAILS(EPERM, utimensat(AT_FDCWD, "f", set, 0));
		OK(utimensat(AT_FDCWD, "f", NULL, 0));
	}
}

MTEST(times, of_a_new_file_are_now)
{
	struct timespec start;
	struct stat st;

	clock_gettime(CLOCK_REALTIME_COARSE, &start);
	touch("f");
	OK(mkdir("d", 0755));
	OK(symlink("x", "l"));
	st = lstat_of("f");
	check_now(st.st_atim, start);
	check_now(st.st_mtim, start);
	check_now(st.st_ctim, start);
	check_now(lstat_of("d").st_mtim, start);
	check_now(lstat_of("l").st_ctim, start);
	check_now(lstat_of(".").st_mtim, start);
}

/* --- what moves which time
 * ---------------------------------------------------------------- */

#define M 1
#define C 2

static struct stat times_before;

/* Both times well in the past, as far as that goes, and the clock moved on. */
static void arm(const char *path)
{
	set_times(path, 1000, 1, 2000, 2);
	times_before = lstat_of(path);
	tick();
}

static void moved(const char *what, const char *path, int want)
{
	struct stat st = lstat_of(path);
	int got = 0;

	if (!time_equal(st.st_mtim, times_before.st_mtim))
		got |= M;
	if (!time_equal(st.st_ctim, times_before.st_ctim))
		got |= C;
	CHECK(got == want, "%s moved %s%s%s, should move %s%s%s", what,
	      got & M ? "mtime " : "", got & C ? "ctime" : "",
	      got ? "" : "nothing", want & M ? "mtime " : "",
	      want & C ? "ctime" : "", want ? "" : "nothing");
}

MTEST(times, moved_by_changes_of_data)
{
	int fd = pattern_file("f", 20000, 1);

	arm("f");
	pwrite_ok(fd, "x", 1, 100);
	moved("write", "f", M | C);
	arm("f");
	OK(ftruncate(fd, 10000));
	moved("ftruncate down", "f", M | C);
	arm("f");
	OK(truncate("f", 20000));
	moved("truncate up", "f", M | C);
	arm("f");
	OK(ftruncate(fd, 20000));
	moved("ftruncate to the same size", "f", M | C);
	arm("f");
	OK(fallocate(fd, 0, 0, 30000));
	moved("fallocate", "f", M | C);
	arm("f");
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 5000));
	moved("punch", "f", M | C);
	arm("f");
	close_ok(open_ok("f", O_WRONLY | O_TRUNC));
	moved("O_TRUNC", "f", M | C);
	close_ok(fd);
}

/*
 * Within one tick of the clock, as often as it is looked at.  Behind a
 * write-back cache the times of files are the kernel's affair.
 */
MTEST(times, of_a_file_move_between_any_two_looks)
{
	int fd = pattern_file("f", 4096, 1);
	struct stat a, b = lstat_of("f");

	for (int i = 0; i < 50 && !variant("cache=writeback"); i++) {
		a = b;
		pwrite_ok(fd, "x", 1, (unsigned int)i);
		pwrite_ok(fd, "y", 1, (unsigned int)i);
		b = lstat_of("f");
		CHECK(time_before(a.st_mtim, b.st_mtim) &&
			      time_before(a.st_ctim, b.st_ctim),
		      "times stood still at %d", i);
	}
	close_ok(fd);
}

MTEST(times, of_a_directory_move_between_any_two_looks)
{
	struct stat a, b;

	OK(mkdir("d", 0755));
	b = lstat_of("d");
	for (int i = 0; i < 50; i++) {
		a = b;
		if (i % 2)
			OK(unlink("d/x"));
		else
			touch("d/x");
		b = lstat_of("d");
		CHECK(time_before(a.st_mtim, b.st_mtim) &&
			      time_before(a.st_ctim, b.st_ctim),
		      "times stood still at %d", i);
	}
}

/* What changed last has the latest time, whatever was looked at. */
MTEST(times, order_the_changes_of_directories)
{
	struct stat a, b;

	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	for (int i = 0; i < 50; i++) {
		const char *x = i % 2 ? "a/x" : "a/y";
		const char *y = i % 2 ? "b/x" : "b/y";

		OK(mkdir(x, 0755));
		a = lstat_of("a");
		OK(rmdir(x));
		OK(mkdir(y, 0755));
		a = lstat_of("a");
		b = lstat_of("b");
		CHECK(!time_before(b.st_mtim, a.st_mtim),
		      "the later change of b is older at %d", i);
		OK(rmdir(y));
	}
}

MTEST(times, o_trunc_of_an_empty_file_moves_them)
{
	touch("f");
	arm("f");
	close_ok(open_ok("f", O_WRONLY | O_TRUNC));
	moved("O_TRUNC", "f", M | C);
}

MTEST(times, moved_by_changes_of_the_inode)
{
	struct timespec omit[2] = { { 0, UTIME_OMIT }, { 9, 9 } };

	put("f", "x");
	arm("f");
	OK(chmod("f", 0600));
	moved("chmod", "f", C);
	arm("f");
	OK(chown("f", 1, 1));
	moved("chown", "f", C);
	arm("f");
	OK(link("f", "g"));
	moved("link", "f", C);
	arm("f");
	OK(unlink("g"));
	moved("unlink", "f", C);
	arm("f");
	OK(setxattr("f", "user.x", "y", 1, 0));
	moved("setxattr", "f", C);
	arm("f");
	OK(removexattr("f", "user.x"));
	moved("removexattr", "f", C);
	arm("f");
	OK(utimensat(AT_FDCWD, "f", omit, 0));
	moved("utimensat", "f", M | C);
}

MTEST(times, not_moved_by_looking)
{
	char buf[8];
	int fd;

	put("f", "x");
	arm("f");
	fd = open_ok("f", O_RDWR);
	OK(read(fd, buf, 1));
	OK(lseek(fd, 0, SEEK_END));
	OK(fsync(fd));
	OK(access("f", R_OK));
	must_hold("f", "x");
	close_ok(fd);
	moved("reading", "f", 0);
}

MTEST(times, of_a_directory)
{
	OK(mkdir("d", 0755));
	arm("d");
	touch("d/f");
	moved("create", "d", M | C);
	arm("d");
	put("d/f", "text");
	OK(chmod("d/f", 0600));
	moved("a change of a file in it", "d", 0);
	arm("d");
	OK(link("d/f", "d/g"));
	moved("link", "d", M | C);
	arm("d");
	OK(rename("d/f", "d/h"));
	moved("rename", "d", M | C);
	arm("d");
	OK(rename("d/h", "d/g"));
	moved("rename between links of one file", "d", 0);
	OK(unlink("d/h"));
	arm("d");
	OK(unlink("d/g"));
	moved("unlink", "d", M | C);
	arm("d");
	OK(mkdir("d/s", 0755));
	moved("mkdir", "d", M | C);
	arm("d");
	OK(rmdir("d/s"));
	moved("rmdir", "d", M | C);
	arm("d");
	OK(symlink("x", "d/l"));
	moved("symlink", "d", M | C);
	arm("d");
	OK(mknod("d/p", S_IFIFO | 0600, 0));
	moved("mknod", "d", M | C);
	arm("d");
	CHECK(open("d/l/x", O_RDONLY) < 0 && mkdir("d/l", 0700) < 0,
	      "what must fail did not");
	moved("what failed", "d", 0);
}

MTEST(times, are_the_same_by_descriptor_and_by_name)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	for (int i = 0; i < 20; i++) {
		struct stat a, b;

		pwrite_ok(fd, "x", 1, i);
		a = fstat_of(fd);
		b = lstat_of("f");
		CHECK(time_equal(a.st_mtim, b.st_mtim), "mtime differs");
		CHECK(time_equal(a.st_ctim, b.st_ctim), "ctime differs");
		EQ(a.st_size, b.st_size);
	}
	close_ok(fd);
}

/* --- atime
 * -----------------------------------------------------------------------------------
 */

/* A cold read: whatever caches there are, the filesystem sees it. */
static struct timespec atime_after_read(const char *opts)
{
	remount(opts);
	must_hold("f", "text");
	return lstat_of("f").st_atim;
}

MTEST(atime, moves_once_by_default, .needs = MNT_REMOUNT)
{
	struct timespec first, start;

	put("f", "text");
	set_times("f", 1000, 0, 2000, 0);
	tick();
	clock_gettime(CLOCK_REALTIME_COARSE, &start);
	first = atime_after_read(NULL);
	check_now(first, start);
	/* Now it is younger than mtime, and not a day old. */
	tick();
	CHECK(time_equal(atime_after_read(NULL), first), "atime moved again");
	set_times("f", 1000, 0, 500, 0);
	tick();
	check_now(atime_after_read("relatime"), start);
}

MTEST(atime, stays_with_noatime, .needs = MNT_REMOUNT)
{
	struct timespec ts;

	put("f", "text");
	set_times("f", 1000, 7, 2000, 0);
	ts = atime_after_read("noatime");
	EQ(ts.tv_sec, 1000);
	EQ(ts.tv_nsec, 7);
}

MTEST(atime, moves_every_time_with_strictatime, .needs = MNT_REMOUNT)
{
	struct timespec a, b;

	put("f", "text");
	a = atime_after_read("strictatime");
	tick();
	b = atime_after_read("strictatime");
	CHECK(time_before(a, b), "atime did not move");
	tick();
	CHECK(time_before(b, atime_after_read("strictatime")),
	      "atime did not move the second time");
}

MTEST(atime, is_there_after_unmount, .needs = MNT_REMOUNT)
{
	struct timespec ts;

	put("f", "text");
	set_times("f", 1000, 0, 2000, 0);
	ts = atime_after_read(NULL);
	NE(ts.tv_sec, 1000);
	remount("noatime");
	CHECK(time_equal(lstat_of("f").st_atim, ts), "atime was lost");
}

MTEST(atime, of_a_directory_moves_by_listing, .needs = MNT_REMOUNT)
{
	OK(mkdir("d", 0755));
	touch("d/f");
	set_times("d", 1000, 0, 2000, 0);
	remount(NULL);
	EQ(count_entries("d"), 1);
	NE(lstat_of("d").st_atim.tv_sec, 1000);
}
