/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/options.c - mount options, the programs, and bad input to them
 *
 * Bad input gets one line that says what and what to do, a code that is not
 * zero, and changes nothing.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"

static const char *bin(const char *env, const char *name)
{
	const char *path = getenv(env);

	return path && *path ? path : name;
}

#define FOLIOFS bin("FOLIOFS_BIN", "foliofs")
#define MKFS	bin("FOLIOFS_MKFS", "mkfs.foliofs")
#define FSCK	bin("FOLIOFS_FSCK", "fsck.foliofs")

#define MAX_OUTPUT 8192

static char output[MAX_OUTPUT];

static const char *out_path(void)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/output", mtest_scratch());
	return path;
}

/* Run a program; what it says ends up in output. */
static int run(const char *const argv[])
{
	int ret, fd;
	size_t len;

	unlink(out_path());
	ret = sandbox_exec(argv, out_path());
	fd = open_ok(out_path(), O_RDONLY);
	len = pread_ok(fd, output, sizeof(output) - 1, 0);
	output[len] = '\0';
	close_ok(fd);
	return ret;
}

#define RUN(...) run((const char *const[]){ __VA_ARGS__, NULL })

static int lines(const char *s)
{
	int nr = 0;

	for (; *s; s++)
		nr += *s == '\n';
	return nr;
}

static void must_refuse(int line, int ret)
{
	if (!ret || ret >= 126)
		mtest_fail(__FILE__, line, "exit code %d, output: %s", ret,
			   output);
	if (lines(output) != 1)
		mtest_fail(__FILE__, line, "not one line of output: %s",
			   output);
}

#define REFUSES(...) must_refuse(__LINE__, RUN(__VA_ARGS__))

/* Paths beside the mount. */
static const char *beside(const char *name)
{
	static char path[8][300];
	static unsigned int turn;
	char *p = path[turn++ % 8];

	snprintf(p, 300, "%s/%s", mtest_scratch(), name);
	return p;
}

static void make_device(const char *path, off_t size)
{
	int fd = open_ok(path, O_RDWR | O_CREAT | O_TRUNC);

	OK(ftruncate(fd, size));
	close_ok(fd);
}

static uint64_t hash_of(const char *path)
{
	static unsigned char buf[65536];
	uint64_t h = 1;
	int fd = open_ok(path, O_RDONLY);
	off_t pos = 0, end = fstat_of(fd).st_size;

	while ((pos = lseek(fd, pos, SEEK_DATA)) >= 0 && pos < end) {
		size_t n = pread_ok(fd, buf, sizeof(buf), pos);

		/* A hole and a block of zeros are the same. */
		for (size_t i = 0; i < n; i++)
			h += buf[i] * ((uint64_t)pos + i) *
			     0x9e3779b97f4a7c15ull;
		pos += (off_t)n;
	}
	close_ok(fd);
	return h;
}

static bool mounted(const char *dir)
{
	struct statx stx;

	if (statx(AT_FDCWD, dir, 0, 0, &stx))
		return false;
	return stx.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

/* --- read-only
 * ---------------------------------------------------------------------- */

MTEST(ro, refuses_every_change, .needs = MNT_REMOUNT)
{
	struct timespec ts[2] = { { 1, 0 }, { 2, 0 } };
	int fd;

	put("f", "text");
	OK(mkdir("d", 0755));
	OK(setxattr("f", "user.x", "v", 1, 0));
	remount("ro");
	FAILS(EROFS, open("new", O_CREAT | O_WRONLY, 0600));
	FAILS(EROFS, open("f", O_WRONLY));
	FAILS(EROFS, open("f", O_RDWR));
	FAILS(EROFS, open("f", O_RDONLY | O_TRUNC));
	FAILS(EROFS, truncate("f", 0));
	FAILS(EROFS, mkdir("new", 0700));
	FAILS(EROFS, rmdir("d"));
	FAILS(EROFS, unlink("f"));
	FAILS(EROFS, rename("f", "g"));
	FAILS(EROFS, link("f", "g"));
	FAILS(EROFS, symlink("x", "g"));
	FAILS(EROFS, mknod("g", S_IFIFO | 0600, 0));
	FAILS(EROFS, chmod("f", 0600));
	FAILS(EROFS, chown("f", 1, 1));
	FAILS(EROFS, utimensat(AT_FDCWD, "f", ts, 0));
	FAILS(EROFS, setxattr("f", "user.x", "w", 1, 0));
	FAILS(EROFS, removexattr("f", "user.x"));
	FAILS(EROFS, access("f", W_OK));
	must_hold("f", "text");
	EQ(count_entries("."), 2);
	fd = open_ok("f", O_RDONLY);
	OK(fsync(fd));
	close_ok(fd);
}

MTEST(ro, writes_nothing_to_the_device, .needs = MNT_REMOUNT | MNT_FOLIOFS)
{
	uint64_t before;

	put("f", "text");
	OK(mkdir("d", 0755));
	OK(chdir("/"));
	OK(mnt_unmount(mnt));
	before = hash_of(mnt->dev);
	OK(mnt_mount(mnt, "ro"));
	OK(chdir(mnt->dir));
	must_hold("t/f", "text");
	EQ(count_entries("t"), 2);
	OK(chdir("/"));
	OK(mnt_unmount(mnt));
	CHECK(hash_of(mnt->dev) == before, "the device was written to");
}

/* A read-only loop device keeps XFS from its log. */
MTEST(ro, after_a_crash_shows_what_was_answered, .needs = MNT_CRASH,
      .not_on = MNT_XFS)
{
	put("f", "text");
	settle();
	crash_and_remount("ro");
	must_hold("f", "text");
	FAILS(EROFS, open("new", O_CREAT | O_WRONLY, 0600));
	remount(NULL);
	must_hold("f", "text");
	put("new", "x");
}

/* --- how a mount looks
 * ------------------------------------------------------------------ */

MTEST(mounting, shows_device_and_type, .needs = MNT_FOLIOFS)
{
	char line[1024], want[600];
	bool found = false;
	FILE *f = fopen("/proc/self/mounts", "r");

	snprintf(want, sizeof(want), "%s %s fuse.foliofs ", mnt->dev, mnt->dir);
	while (fgets(line, sizeof(line), f))
		found |= !strncmp(line, want, strlen(want));
	fclose(f);
	CHECK(found, "no \"%s\" in /proc/self/mounts", want);
}

static void make_second(const char *dev, const char *dir)
{
	make_device(dev, 64 * MIB);
	CHECK(!RUN(MKFS, dev), "mkfs: %s", output);
	OK(mkdir(dir, 0755));
}

/* The pid of the one process whose command line names this device. */
static pid_t daemon_of(const char *dev)
{
	char path[64], cmd[1024];

	for (pid_t pid = 2; pid < 100000; pid++) {
		ssize_t n;
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		n = read(fd, cmd, sizeof(cmd) - 1);
		close(fd);
		if (n > 0 && memmem(cmd, (size_t)n, dev, strlen(dev)))
			return pid;
	}
	FAIL("no process has %s on its command line", dev);
}

static void wait_end(pid_t pid)
{
	struct pollfd pfd = { .events = POLLIN };

	pfd.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pfd.fd < 0)
		return;
	EQ(poll(&pfd, 1, 10000), 1);
	close(pfd.fd);
}

MTEST(mounting, in_the_background_answers_when_the_command_returns,
      .needs = MNT_FOLIOFS)
{
	const char *dev = beside("2.img"), *dir = beside("2");

	make_second(dev, dir);
	for (int i = 0; i < 5; i++) {
		pid_t pid;

		CHECK(!RUN(FOLIOFS, dev, dir), "mount: %s", output);
		STREQ(output, "");
		CHECK(mounted(dir), "the command returned, nothing mounted");
		OK(chdir(dir));
		put("f", "x");
		must_hold("f", "x");
		OK(chdir("/"));
		pid = daemon_of(dev);
		OK(umount2(dir, 0));
		wait_end(pid);
	}
	CHECK(!RUN(FSCK, "-n", dev), "fsck: %s", output);
}

MTEST(mounting, sigterm_unmounts_cleanly, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("2.img"), *dir = beside("2");
	static const int sigs[] = { SIGTERM, SIGINT, SIGHUP };

	make_second(dev, dir);
	for (int i = 0; i < 3; i++) {
		pid_t pid;

		CHECK(!RUN(FOLIOFS, dev, dir), "mount: %s", output);
		OK(chdir(dir));
		put("f", "x");
		OK(chdir("/"));
		pid = daemon_of(dev);
		OK(kill(pid, sigs[i]));
		wait_end(pid);
		CHECK(!mounted(dir), "still mounted after signal %d", sigs[i]);
		CHECK(!RUN(FSCK, "-n", dev), "fsck: %s", output);
	}
}

MTEST(mounting, under_the_name_of_a_mount_helper, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("2.img"), *dir = beside("2");
	const char *helper = beside("mount.foliofs");
	pid_t pid;

	make_second(dev, dir);
	OK(symlink(FOLIOFS, helper));
	/* As mount(8) calls it. */
	CHECK(!RUN(helper, dev, dir, "-o", "rw,noatime"), "mount: %s", output);
	CHECK(mounted(dir), "nothing is mounted");
	pid = daemon_of(dev);
	OK(umount2(dir, 0));
	wait_end(pid);
	CHECK(!RUN(helper, dev, dir, "-o",
		   "ro,nosuid,nodev,noexec,defaults,user=root,x-systemd.test"),
	      "mount with options of fstab: %s", output);
	CHECK(mounted(dir), "nothing is mounted");
	pid = daemon_of(dev);
	OK(umount2(dir, 0));
	wait_end(pid);
}

static void option_works(const char *opts)
{
	remount(opts);
	put("f", opts);
	must_hold("f", opts);
	OK(unlink("f"));
}

MTEST(mounting, takes_every_option, .needs = MNT_FOLIOFS)
{
	static const char *const opts[] = { "rw",
					    "data=inplace",
					    "data=cow",
					    "cache=through",
					    "cache=writeback",
					    "cache=none",
					    "noatime",
					    "relatime",
					    "strictatime",
					    "granularity=byte",
					    "allow_other",
					    "default_permissions",
					    "granularity=cacheline",
					    "granularity=page" };

	for (size_t i = 0; i < sizeof(opts) / sizeof(opts[0]); i++)
		option_works(opts[i]);
	remount(NULL);
}

MTEST(mounting, by_root_is_for_all_unless_told, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("2.img"), *dir = beside("2");

	make_second(dev, dir);
	OK(chmod(sandbox_dir(), 0755));
	OK(chmod(mtest_scratch(), 0755));
	for (int i = 0; i < 2; i++) {
		pid_t pid;

		CHECK(!RUN(FOLIOFS, dev, dir, "-o", i ? "noallow_other" : "rw"),
		      "mount: %s", output);
		AS_USER(NOBODY)
		{
			struct stat st;

			if (i)
				FAILS(EACCES, stat(dir, &st));
			else
				OK(stat(dir, &st));
		}
		pid = daemon_of(dev);
		OK(umount2(dir, 0));
		wait_end(pid);
	}
}

/* --- bad input
 * ----------------------------------------------------------------------------
 */

MTEST(bad_input, device_that_is_not_there, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("nothing"), *dir = beside("2");

	OK(mkdir(dir, 0755));
	REFUSES(FOLIOFS, dev, dir);
	REFUSES(FSCK, "-n", dev);
	REFUSES(MKFS, dev);
	CHECK(access(dev, F_OK), "the device was made");
	CHECK(!mounted(dir), "something is mounted");
}

MTEST(bad_input, device_that_is_no_device, .needs = MNT_FOLIOFS)
{
	const char *dir = beside("2");

	OK(mkdir(dir, 0755));
	REFUSES(FOLIOFS, dir, dir);
	REFUSES(FOLIOFS, "/dev/null", dir);
	REFUSES(MKFS, dir);
	REFUSES(MKFS, "/dev/null");
	REFUSES(FSCK, "-n", dir);
}

MTEST(bad_input, device_that_is_too_small, .needs = MNT_FOLIOFS)
{
	static const off_t sizes[] = { 0, 1, 4095, 4096, 8192, 65536 };
	const char *dev = beside("small.img"), *dir = beside("2");

	OK(mkdir(dir, 0755));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		make_device(dev, sizes[i]);
		REFUSES(MKFS, dev);
		REFUSES(FOLIOFS, dev, dir);
		REFUSES(FSCK, "-n", dev);
		EQ(size_of(dev), sizes[i]);
	}
}

MTEST(bad_input, device_that_is_no_foliofs, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("other.img"), *dir = beside("2");
	uint64_t before;

	OK(mkdir(dir, 0755));
	for (int i = 0; i < 3; i++) {
		make_device(dev, 64 * MIB);
		if (i == 1) {
			int fd = open_ok(dev, O_RDWR);

			write_pattern(fd, 0, 8 * MIB, 1);
			close_ok(fd);
		} else if (i == 2) {
			EQ(RUN("mkfs.ext4", "-q", "-F", dev), 0);
		}
		before = hash_of(dev);
		REFUSES(FOLIOFS, dev, dir);
		REFUSES(FSCK, "-n", dev);
		CHECK(hash_of(dev) == before, "the device was written to");
		CHECK(!mounted(dir), "something is mounted");
	}
}

MTEST(bad_input, device_that_was_cut, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("2.img"), *dir = beside("2");

	make_second(dev, dir);
	OK(truncate(dev, 32 * MIB));
	REFUSES(FOLIOFS, dev, dir);
	NE(RUN(FSCK, "-n", dev), 0);
	CHECK(!mounted(dir), "something is mounted");
}

MTEST(bad_input, device_that_is_busy, .needs = MNT_FOLIOFS)
{
	const char *dir = beside("2");

	OK(mkdir(dir, 0755));
	put("f", "text");
	REFUSES(FOLIOFS, mnt->dev, dir);
	REFUSES(MKFS, mnt->dev);
	REFUSES(MKFS, "-f", mnt->dev);
	REFUSES(FSCK, "-y", mnt->dev);
	CHECK(!mounted(dir), "something is mounted");
	must_hold("f", "text");
}

MTEST(bad_input, mount_point, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("2.img"), *dir = beside("2");
	uint64_t before;

	make_second(dev, dir);
	before = hash_of(dev);
	REFUSES(FOLIOFS, dev, beside("missing"));
	put(beside("file"), "x");
	REFUSES(FOLIOFS, dev, beside("file"));
	CHECK(hash_of(dev) == before, "the device was written to");
}

MTEST(bad_input, arguments, .needs = MNT_FOLIOFS)
{
	static const char *const opts[] = { "nonsense",	     "cache=",
					    "cache=maybe",   "data=nowhere",
					    "granularity=7", "data" };
	const char *dev = beside("2.img"), *dir = beside("2");

	make_second(dev, dir);
	for (size_t i = 0; i < sizeof(opts) / sizeof(opts[0]); i++) {
		REFUSES(FOLIOFS, dev, dir, "-o", opts[i]);
		CHECK(strstr(output, opts[i]), "\"%s\" does not name %s",
		      output, opts[i]);
		CHECK(!mounted(dir), "mounted with -o %s", opts[i]);
	}
	NE(RUN(FOLIOFS), 0);
	NE(RUN(FOLIOFS, dev), 0);
	NE(RUN(FOLIOFS, dev, dir, "third"), 0);
	NE(RUN(MKFS), 0);
	NE(RUN(MKFS, "--nonsense", dev), 0);
	NE(RUN(FSCK), 0);
	CHECK(!mounted(dir), "something is mounted");
}

MTEST(bad_input, device_without_permission, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("2.img"), *dir = beside("2");

	make_second(dev, dir);
	OK(chmod(dev, 0600));
	OK(chmod(sandbox_dir(), 0755));
	OK(chmod(mtest_scratch(), 0777));
	OK(chown(dir, NOBODY, NOBODY));
	AS_USER(NOBODY)
	{
		REFUSES(FOLIOFS, dev, dir);
		REFUSES(MKFS, dev);
		REFUSES(FSCK, "-n", dev);
	}
}

/* --- mkfs and fsck
 * ---------------------------------------------------------------------------
 */

MTEST(mkfs, will_not_overwrite_what_it_knows, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("2.img");
	static const char *const others[] = { "mkfs.ext4", "mkfs.xfs" };
	uint64_t before;

	for (int i = 0; i < 3; i++) {
		make_device(dev, 400 * MIB);
		if (i == 2)
			EQ(RUN(MKFS, dev), 0);
		else if (RUN(others[i], "-q", dev))
			continue;
		before = hash_of(dev);
		REFUSES(MKFS, dev);
		CHECK(hash_of(dev) == before, "the device was written to");
		EQ(RUN(MKFS, "-f", dev), 0);
		EQ(RUN(FSCK, "-n", dev), 0);
	}
}

MTEST(mkfs, makes_the_file_when_given_a_size, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("made.img"), *dir = beside("2");
	pid_t pid;

	CHECK(!RUN(MKFS, "-s", "128M", dev), "mkfs: %s", output);
	EQ(size_of(dev), 128 * MIB);
	CHECK(!RUN(FSCK, "-n", dev), "fsck: %s", output);
	OK(mkdir(dir, 0755));
	CHECK(!RUN(FOLIOFS, dev, dir), "mount: %s", output);
	pid = daemon_of(dev);
	OK(umount2(dir, 0));
	wait_end(pid);
}

MTEST(mkfs, takes_a_label_and_a_uuid, .needs = MNT_FOLIOFS)
{
	const char *dev = beside("2.img");
	const char *uuid = "12345678-9abc-4def-8123-456789abcdef";

	make_device(dev, 64 * MIB);
	CHECK(!RUN(MKFS, "-L", "my label", "-U", uuid, dev), "mkfs: %s",
	      output);
	CHECK(!RUN(FSCK, "-n", dev), "fsck: %s", output);
	NE(RUN(MKFS, "-f", "-U", "nonsense", dev), 0);
	NE(RUN(MKFS, "-f", "-L",
	       "a label that is far too long to fit into any superblock, as "
	       "it goes on and on and on until nobody can remember the start, "
	       "and even then it does not end but starts all over again, and "
	       "then again, with the words that were used before, until it is "
	       "longer than two hundred and fifty-five bytes",
	       dev),
	   0);
}

MTEST(mkfs, is_fast_at_any_size, .needs = MNT_FOLIOFS, .timeout = 10)
{
	const char *dev = beside("large.img");

	make_device(dev, 64 * GIB);
	CHECK(!RUN(MKFS, dev), "mkfs: %s", output);
	LE(lstat_of(dev).st_blocks, 64 * MIB / 512);
}

MTEST(fsck, of_a_clean_filesystem_is_0, .needs = MNT_FOLIOFS)
{
	uint64_t before;

	put("f", "text");
	OK(chdir("/"));
	OK(mnt_unmount(mnt));
	before = hash_of(mnt->dev);
	EQ(RUN(FSCK, "-n", mnt->dev), 0);
	CHECK(hash_of(mnt->dev) == before, "fsck -n wrote to the device");
	EQ(RUN(FSCK, "-y", mnt->dev), 0);
}

MTEST(fsck, after_a_crash_is_0, .needs = MNT_FOLIOFS)
{
	for (int i = 0; i < 3; i++) {
		put("f", "text");
		OK(mkdir("d", 0755));
		OK(unlink("f"));
		OK(rmdir("d"));
		OK(chdir("/"));
		OK(mnt_crash(mnt));
		EQ(RUN(FSCK, "-n", mnt->dev), 0);
		OK(mnt_mount(mnt, NULL));
		OK(chdir(mnt->dir));
		OK(chdir("t"));
	}
}
