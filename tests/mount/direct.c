/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/direct.c - what filesystems in userspace like to get wrong
 *
 * Files of a mount with DAX, mapped and read and written at once.  All of it
 * has to hold with libfoliofs-preload.so, where mappings and copies are the
 * program's own, as it does without, where they are the kernel's.
 * FOLIOFS_TEST_PRELOAD says that it is there.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

#define PAGE	4096l
#define RW	(PROT_READ | PROT_WRITE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define FICLONE _IOW(0x94, 9, int)

/* So many calls go to the kernel before a descriptor is served. */
#define PATIENCE 5

static bool preloaded(void)
{
	return getenv("FOLIOFS_TEST_PRELOAD") != NULL;
}

static void warm(int fd)
{
	char c;

	for (int i = 0; i < PATIENCE; i++)
		OK(pread(fd, &c, 1, 0));
}

static int warm_file(const char *path, size_t len, uint64_t seed)
{
	int fd = pattern_file(path, len, seed);

	warm(fd);
	return fd;
}

static unsigned char *map(int fd, size_t len)
{
	void *p = mmap(NULL, len, RW, MAP_SHARED, fd, 0);

	CHECK(p != MAP_FAILED, "mmap: %s", mtest_errname(errno));
	return p;
}

/* A load and a store that leave it as it is. */
static void touch_page(volatile unsigned char *p)
{
	*p = *p;
}

static void check_memory(const unsigned char *p, off_t pos, size_t len,
			 uint64_t seed)
{
	unsigned char *want = malloc(len);

	pattern(want, pos, len, seed);
	MEMEQ(p + pos, want, len);
	free(want);
}

static void check_zeros(const unsigned char *p, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		CHECK(p[i] == 0, "byte %zu is %#x", i, p[i]);
}

static sigjmp_buf jump;

static void on_sigbus(int sig)
{
	siglongjmp(jump, sig);
}

/* Does a load, and does a store, at @p raise SIGBUS? */
static bool raises_sigbus(volatile unsigned char *p)
{
	volatile int nr = 0;

	signal(SIGBUS, on_sigbus);
	if (sigsetjmp(jump, 1))
		nr = nr + 1;
	else
		(void)*p;
	if (sigsetjmp(jump, 1))
		nr = nr + 1;
	else
		*p = 1;
	signal(SIGBUS, SIG_DFL);
	CHECK(nr != 1, "a load and a store do not agree");
	return nr == 2;
}

static void wait_ok(pid_t pid)
{
	int status;

	LT(0, waitpid(pid, &status, 0));
	CHECK(status == 0, "the child ended with %#x", status);
}

/* What is mapped at @p, as the kernel sees it. */
static bool maps_device(const void *p)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[400];
	bool found = false;

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx", &from, &to) == 2 &&
		    from <= (unsigned long)p && (unsigned long)p < to)
			found = strstr(line, mnt->dev) != NULL;
	}
	if (f)
		fclose(f);
	return found;
}

MTEST(direct, mapping_is_media)
{
	int fd = warm_file("f", 3 * PAGE, 1);
	unsigned char *p = map(fd, 3 * PAGE);

	p[0]++;
	EQ(maps_device(p), preloaded());
	OK(munmap(p, 3 * PAGE));
	close_ok(fd);
}

MTEST(direct, pwrite_is_seen_at_once_in_a_mapping)
{
	int fd = warm_file("f", 20 * PAGE, 0);
	unsigned char *p = map(fd, 20 * PAGE);

	for (uint64_t seed = 1; seed < 200; seed++) {
		off_t pos = (off_t)(seed * 379);

		write_pattern(fd, pos, 777, seed);
		check_memory(p, pos, 777, seed);
	}
	OK(munmap(p, 20 * PAGE));
	close_ok(fd);
}

MTEST(direct, store_is_seen_by_pread)
{
	int fd = warm_file("f", 20 * PAGE, 0), other = open_ok("f", O_RDONLY);
	unsigned char *p = map(fd, 20 * PAGE);

	for (uint64_t seed = 1; seed < 200; seed++) {
		off_t pos = (off_t)(seed * 379);

		pattern(p + pos, pos, 777, seed);
		check_pattern(fd, pos, 777, seed);
		check_pattern(other, pos, 777, seed);
	}
	OK(munmap(p, 20 * PAGE));
	close_ok(other);
	close_ok(fd);
}

MTEST(direct, another_process_sees_it)
{
	int fd = warm_file("f", 4 * PAGE, 0), go[2], done[2];
	unsigned char *p = map(fd, 4 * PAGE);
	char c;

	OK(pipe(go));
	OK(pipe(done));
	for (int i = 0; i < 4; i++)
		touch_page(p + i * PAGE);
	if (!fork()) {
		int own = open_ok("f", O_RDWR);

		warm(own);
		write_pattern(own, 100, 5000, 1);
		EQ(write(done[1], "a", 1), 1);
		EQ(read(go[0], &c, 1), 1);
		check_pattern(own, 200, 9000, 2);
		_exit(0);
	}
	EQ(read(done[0], &c, 1), 1);
	check_memory(p, 100, 5000, 1);
	check_pattern(fd, 100, 5000, 1);
	pattern(p + 200, 200, 9000, 2);
	EQ(write(go[1], "b", 1), 1);
	wait_ok(-1);
	close_ok(fd);
}

MTEST(direct, ftruncate_both_ways)
{
	int fd = warm_file("f", 10 * PAGE, 1);
	unsigned char *p = map(fd, 20 * PAGE), c;

	touch_page(p + 9 * PAGE);
	OK(ftruncate(fd, 5 * PAGE + 100));
	EQ(fstat_of(fd).st_size, 5 * PAGE + 100);
	EQ(pread(fd, &c, 1, 5 * PAGE + 100), 0);
	check_memory(p, 0, 5 * PAGE + 100, 1);
	check_zeros(p, 5 * PAGE + 100, 6 * PAGE);
	OK(ftruncate(fd, 15 * PAGE));
	check_memory(p, 0, 5 * PAGE + 100, 1);
	check_zeros(p, 5 * PAGE + 100, 15 * PAGE);
	p[14 * PAGE] = 7;
	EQ(pread(fd, &c, 1, 14 * PAGE), 1);
	EQ(c, 7);
	write_pattern(fd, 0, 18 * PAGE, 2);
	check_memory(p, 0, 18 * PAGE, 2);
	OK(munmap(p, 20 * PAGE));
	close_ok(fd);
}

MTEST(direct, truncated_tail_of_a_clone_stays)
{
	int fd, twin;
	unsigned char *p;

	if (!preloaded())
		SKIP("FICLONE is for programs with the library");
	fd = warm_file("f", 3 * PAGE, 1);
	twin = open_ok("g", O_RDWR | O_CREAT);
	OK(ioctl(twin, FICLONE, fd));
	OK(ftruncate(fd, PAGE + 100));
	p = map(fd, 2 * PAGE);
	check_memory(p, 0, PAGE + 100, 1);
	check_zeros(p, PAGE + 100, 2 * PAGE);
	check_pattern(twin, 0, 3 * PAGE, 1);
	close_ok(twin);
	close_ok(fd);
}

MTEST(direct, touch_past_the_end_is_sigbus)
{
	int fd = warm_file("f", 10 * PAGE, 1);
	unsigned char *p = map(fd, 20 * PAGE);

	EQ(raises_sigbus(p + 9 * PAGE), false);
	EQ(raises_sigbus(p + 10 * PAGE), true);
	EQ(raises_sigbus(p + 19 * PAGE), true);
	for (int i = 0; i < 50; i++) {
		OK(ftruncate(fd, 3 * PAGE + 1));
		EQ(raises_sigbus(p + 3 * PAGE), false);
		EQ(raises_sigbus(p + 4 * PAGE), true);
		EQ(raises_sigbus(p + 9 * PAGE), true);
		OK(ftruncate(fd, 10 * PAGE));
		EQ(raises_sigbus(p + 4 * PAGE), false);
		EQ(raises_sigbus(p + 9 * PAGE), false);
		EQ(raises_sigbus(p + 10 * PAGE), true);
	}
	OK(munmap(p, 20 * PAGE));
	close_ok(fd);
}

MTEST(direct, system_calls_past_the_end_get_efault)
{
	int fd = warm_file("f", PAGE, 1), pipes[2];
	unsigned char *p = map(fd, 4 * PAGE);

	OK(pipe(pipes));
	FAILS(EFAULT, write(pipes[1], p + 2 * PAGE, 10));
	EQ(write(pipes[1], p + 10, 10), 10);
	OK(munmap(p, 4 * PAGE));
	close_ok(fd);
}

MTEST(direct, punched_hole_reads_zeros)
{
	int fd = warm_file("f", 20 * PAGE, 1);
	unsigned char *p = map(fd, 20 * PAGE);

	touch_page(p + 8 * PAGE);
	OK(fallocate(fd, PUNCH, 3 * PAGE + 50, 9 * PAGE));
	check_memory(p, 0, 3 * PAGE + 50, 1);
	check_zeros(p, 3 * PAGE + 50, 12 * PAGE + 50);
	check_zero(fd, 3 * PAGE + 50, 9 * PAGE);
	check_memory(p, 12 * PAGE + 50, 7 * PAGE, 1);
	p[5 * PAGE + 5] = 9;
	write_pattern(fd, 7 * PAGE, 100, 2);
	check_zeros(p, 4 * PAGE, 5 * PAGE + 5);
	EQ(p[5 * PAGE + 5], 9);
	check_memory(p, 7 * PAGE, 100, 2);
	check_pattern(fd, 7 * PAGE, 100, 2);
	OK(munmap(p, 20 * PAGE));
	close_ok(fd);
}

static void clone_and_store(size_t len)
{
	int a = warm_file("a", len, 1), b = open_ok("b", O_RDWR | O_CREAT);
	unsigned char *pa = map(a, len), *pb;

	touch_page(pa);
	if (!preloaded())
		SKIP("FICLONE is for programs with the library");
	OK(ioctl(b, FICLONE, a));
	warm(b);
	pb = map(b, len);
	check_memory(pb, 0, len, 1);
	pattern(pa + PAGE, PAGE, 100, 2);
	pattern(pb + 2 * PAGE, 2 * PAGE, 100, 3);
	write_pattern(a, 3 * PAGE, 100, 4);
	write_pattern(b, 4 * PAGE, 100, 5);
	check_memory(pb, 0, 2 * PAGE, 1);
	check_memory(pa, 2 * PAGE, PAGE, 1);
	check_memory(pb, 3 * PAGE, PAGE, 1);
	check_memory(pa, 4 * PAGE, len - 4 * PAGE, 1);
	check_memory(pa, PAGE, 100, 2);
	check_memory(pb, 2 * PAGE, 100, 3);
	check_pattern(a, PAGE, 100, 2);
	check_pattern(b, 2 * PAGE, 100, 3);
	check_memory(pa, 3 * PAGE, 100, 4);
	check_memory(pb, 4 * PAGE, 100, 5);
	/* And back: b's pages become a's. */
	OK(ioctl(a, FICLONE, b));
	check_memory(pa, 0, 2 * PAGE, 1);
	check_memory(pa, 2 * PAGE, 100, 3);
	check_memory(pa, 4 * PAGE, 100, 5);
	close_ok(a);
	close_ok(b);
}

MTEST(direct, ficlone_of_mapped_pages)
{
	clone_and_store(20 * PAGE);
}

/* The first store to a shared chunk comes through the mapping's own fault. */
MTEST(direct, ficlone_of_mapped_chunks)
{
	clone_and_store(8 * MIB);
}

MTEST(direct, dup_shares_the_offset)
{
	int fd = warm_file("f", 10000, 1), twin = (int)OK(dup(fd));
	char buf[100], want[100];

	warm(twin);
	EQ(lseek(fd, 1000, SEEK_SET), 1000);
	EQ(read(twin, buf, 100), 100);
	pattern(want, 1000, 100, 1);
	MEMEQ(buf, want, 100);
	EQ(lseek(fd, 0, SEEK_CUR), 1100);
	EQ(write(fd, "xyz", 3), 3);
	EQ(lseek(twin, 0, SEEK_CUR), 1103);
	close_ok(fd);
	EQ(read(twin, buf, 97), 97);
	EQ(lseek(twin, 0, SEEK_CUR), 1200);
	close_ok(twin);
}

MTEST(direct, fcntl_getfl)
{
	const int mask = O_ACCMODE | O_APPEND | O_NONBLOCK;
	int fd = warm_file("f", 10000, 1), ro = open_ok("f", O_RDONLY);

	warm(ro);
	EQ(OK(fcntl(fd, F_GETFL)) & mask, O_RDWR);
	EQ(OK(fcntl(ro, F_GETFL)) & mask, O_RDONLY);
	OK(fcntl(fd, F_SETFL, O_APPEND));
	EQ(OK(fcntl(fd, F_GETFL)) & mask, O_RDWR | O_APPEND);
	EQ(lseek(fd, 0, SEEK_SET), 0);
	EQ(write(fd, "end", 3), 3);
	EQ(fstat_of(fd).st_size, 10003);
	check_pattern(fd, 0, 10000, 1);
	close_ok(ro);
	close_ok(fd);
}

MTEST(direct, byte_range_locks)
{
	int fd = warm_file("f", 10000, 1);
	struct flock lock = { .l_type = F_WRLCK, .l_start = 100, .l_len = 50 };

	OK(fcntl(fd, F_SETLK, &lock));
	if (!fork()) {
		int own = open_ok("f", O_RDWR);
		struct flock want = lock;

		warm(own);
		FAILS(EAGAIN, fcntl(own, F_SETLK, &want));
		OK(fcntl(own, F_GETLK, &want));
		EQ(want.l_type, F_WRLCK);
		EQ(want.l_pid, getppid());
		want = lock;
		want.l_start = 150;
		OK(fcntl(own, F_SETLK, &want));
		_exit(0);
	}
	wait_ok(-1);
	close_ok(fd);
}

MTEST(direct, fstat_of_an_unaligned_size)
{
	int fd = warm_file("f", 3 * PAGE + 77, 1);
	unsigned char *p = map(fd, 4 * PAGE);
	struct stat st;

	p[3 * PAGE] = 1;
	EQ(fstat_of(fd).st_size, 3 * PAGE + 77);
	OK(syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH));
	EQ(st.st_size, 3 * PAGE + 77);
	OK(fstatat(fd, "", &st, AT_EMPTY_PATH));
	EQ(st.st_size, 3 * PAGE + 77);
	EQ(pwrite(fd, "ab", 2, 3 * PAGE + 76), 2);
	OK(syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH));
	EQ(st.st_size, 3 * PAGE + 78);
	EQ(size_of("f"), 3 * PAGE + 78);
	OK(munmap(p, 4 * PAGE));
	close_ok(fd);
}

MTEST(direct, rename_and_unlink_while_open)
{
	int fd = warm_file("f", 10 * PAGE, 1), other = warm_file("g", 9, 2);
	unsigned char *p = map(fd, 10 * PAGE);

	OK(rename("f", "h"));
	write_pattern(fd, 100, 100, 3);
	check_memory(p, 100, 100, 3);
	OK(rename("g", "h"));
	EQ(fstat_of(fd).st_nlink, 0);
	write_pattern(fd, 5 * PAGE, 100, 4);
	pattern(p + 6 * PAGE, 6 * PAGE, 100, 5);
	check_memory(p, 5 * PAGE, 100, 4);
	check_pattern(fd, 6 * PAGE, 100, 5);
	check_pattern(other, 0, 9, 2);
	OK(unlink("h"));
	write_pattern(other, 0, 9, 6);
	check_pattern(other, 0, 9, 6);
	close_ok(fd);
	/* The mapping alone keeps the file. */
	check_memory(p, 5 * PAGE, 100, 4);
	p[9 * PAGE] = 1;
	OK(munmap(p, 10 * PAGE));
	close_ok(other);
}

MTEST(direct, fork_with_a_shared_descriptor)
{
	int fd = warm_file("f", 10000, 1);
	unsigned char *p = map(fd, 10000);
	char buf[100], want[100];

	p[9000] = 5;
	EQ(lseek(fd, 500, SEEK_SET), 500);
	if (!fork()) {
		EQ(p[9000], 5);
		p[9001] = 6;
		for (int i = 0; i < 10; i++)
			EQ(read(fd, buf, 100), 100);
		EQ(write(fd, "child", 5), 5);
		OK(munmap(p, 10000));
		close_ok(fd);
		_exit(0);
	}
	wait_ok(-1);
	EQ(p[9001], 6);
	EQ(lseek(fd, 0, SEEK_CUR), 1505);
	MEMEQ(p + 1500, "child", 5);
	EQ(read(fd, buf, 100), 100);
	pattern(want, 1505, 100, 1);
	MEMEQ(buf, want, 100);
	OK(munmap(p, 10000));
	close_ok(fd);
}

MTEST(direct, user_xattrs)
{
	int fd = warm_file("f", 10000, 1);
	unsigned char *p = map(fd, 10000);
	char value[32];

	OK(fsetxattr(fd, "user.color", "green", 5, 0));
	p[0] = 1;
	EQ(fgetxattr(fd, "user.color", value, sizeof(value)), 5);
	MEMEQ(value, "green", 5);
	EQ(getxattr("f", "user.color", value, sizeof(value)), 5);
	EQ(flistxattr(fd, value, sizeof(value)), 11);
	OK(fremovexattr(fd, "user.color"));
	FAILS(ENODATA, fgetxattr(fd, "user.color", value, sizeof(value)));
	OK(munmap(p, 10000));
	close_ok(fd);
}

#define NR_APPENDS 500
#define RECORD	   37

static void append(char who)
{
	int fd = open_ok("log", O_RDWR | O_APPEND);
	char rec[RECORD];

	memset(rec, who, sizeof(rec));
	for (int i = 0; i < NR_APPENDS; i++)
		EQ(write(fd, rec, RECORD), RECORD);
	_exit(0);
}

MTEST(direct, append_from_two_processes)
{
	int fd = warm_file("log", 0, 1), nr[2] = { 0 };
	char rec[RECORD], same[RECORD];

	for (char who = 'a'; who <= 'b'; who++)
		if (!fork())
			append(who);
	wait_ok(-1);
	wait_ok(-1);
	EQ(fstat_of(fd).st_size, 2 * NR_APPENDS * RECORD);
	for (int i = 0; i < 2 * NR_APPENDS; i++) {
		EQ(pread(fd, rec, RECORD, i * RECORD), RECORD);
		memset(same, rec[0], RECORD);
		MEMEQ(rec, same, RECORD);
		nr[rec[0] == 'b']++;
	}
	EQ(nr[0], NR_APPENDS);
	EQ(nr[1], NR_APPENDS);
	close_ok(fd);
}

static void mtime_moves(int fd, const char *what, struct stat *before)
{
	struct stat now = fstat_of(fd);

	CHECK(time_before(before->st_mtim, now.st_mtim),
	      "mtime did not move: %s", what);
	CHECK(time_before(before->st_ctim, now.st_ctim),
	      "ctime did not move: %s", what);
	*before = fstat_of(fd);
	EQ(time_equal(before->st_mtim, now.st_mtim), true);
	tick();
}

MTEST(direct, mtime_after_stores)
{
	int fd = warm_file("f", 10 * PAGE, 1);
	unsigned char *p = map(fd, 10 * PAGE);
	struct stat before = fstat_of(fd);

	tick();
	p[5 * PAGE] = 1;
	OK(msync(p, 10 * PAGE, MS_SYNC));
	mtime_moves(fd, "store and msync", &before);
	write_pattern(fd, 0, 100, 2);
	mtime_moves(fd, "pwrite", &before);
	write_pattern(fd, 0, 100, 3);
	mtime_moves(fd, "pwrite again", &before);
	p[5 * PAGE] = 2;
	OK(fsync(fd));
	if (!preloaded()) {
		mtime_moves(fd, "store and fsync", &before);
		return;
	}
	/* No fault, and nobody said so: only msync(2) does. */
	OK(msync(p, 10 * PAGE, MS_SYNC));
	mtime_moves(fd, "store and msync again", &before);
	OK(munmap(p, 10 * PAGE));
	close_ok(fd);
}

MTEST(direct, times_that_were_set_stay)
{
	const struct timespec ts[2] = { { 1000, 5 }, { 2000, 6 } };
	int fd = warm_file("f", 10 * PAGE, 1);

	write_pattern(fd, 0, 100, 2);
	OK(futimens(fd, ts));
	EQ(fstat_of(fd).st_mtim.tv_sec, 2000);
	OK(fsync(fd));
	EQ(fstat_of(fd).st_mtim.tv_sec, 2000);
	close_ok(fd);
	EQ(lstat_of("f").st_mtim.tv_sec, 2000);
}

/* Others store without telling: what one syncs is durable all the same. */
MTEST(direct, fsync_is_for_stores_of_others, .needs = MNT_CRASH)
{
	int fd = warm_file("f", 10 * PAGE, 1);

	if (!fork()) {
		int own = open_ok("f", O_RDWR);
		unsigned char *p = map(own, 10 * PAGE);

		pattern(p, 0, 10 * PAGE, 2);
		_exit(0);
	}
	wait_ok(-1);
	write_pattern(fd, 0, 100, 3);
	OK(fsync(fd));
	close_ok(fd);
	crash_and_remount(NULL);
	fd = open_ok("f", O_RDONLY);
	check_pattern(fd, 0, 100, 3);
	check_pattern(fd, 104, 10 * PAGE - 104, 2);
	close_ok(fd);
}

/* What was mapped stays; what is asked afterwards fails; then all is new. */
MTEST(direct, daemon_dies, .needs = MNT_CRASH)
{
	int fd = warm_file("f", 10 * PAGE, 1);
	unsigned char *p = map(fd, 10 * PAGE), *q;

	if (!preloaded())
		SKIP("mappings of the kernel end with the daemon");
	for (int i = 0; i < 5; i++)
		touch_page(p + i * PAGE);
	OK(mnt_kill(mnt));
	check_memory(p, 0, 5 * PAGE, 1);
	CHECK(pwrite(fd, "x", 1, 20 * PAGE) < 0, "a write without a daemon");
	OK(munmap(p, 10 * PAGE));
	close(fd);
	crash_and_remount(NULL);
	fd = open_ok("f", O_RDWR);
	q = map(fd, 10 * PAGE);
	check_memory(q, 0, 10 * PAGE, 1);
	EQ(maps_device(q), true);
	OK(munmap(q, 10 * PAGE));
	close_ok(fd);
}
