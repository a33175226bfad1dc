/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_pmem.c - what dax/pmem.h promises
 *
 * Most tests use a file on tmpfs; those for which it matters also use one on
 * a real disk, if /var/tmp is one.  A lost page is made by cutting the file
 * short under its mapping, and, where the kernel can, by UFFDIO_POISON.
 */
#include "dax/pmem.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define NR_PAGES UINT64_C(64)
#define SIZE	 (NR_PAGES * BLOCK_SIZE)

static char path[64]; /* of the file under test */
static struct pmem *pm;

static void make_file(const char *dir, uint64_t size)
{
	int fd;

	snprintf(path, sizeof(path), "%s/test_pmem.XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
	cr_assert_eq(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

static void open_pmem(enum pmem_granularity want)
{
	struct errmsg err = { "" };

	cr_assert_eq(pmem_open(path, PMEM_READ_WRITE, want, &pm, &err), 0, "%s",
		     err.text);
}

static void setup(void)
{
	make_file("/dev/shm", SIZE);
	open_pmem(PMEM_GRANULARITY_AUTO);
}

static void teardown(void)
{
	pmem_close(pm);
	pm = NULL;
	if (path[0])
		unlink(path);
	path[0] = '\0';
}

static void setup_file_only(void)
{
	make_file("/dev/shm", SIZE);
}

static void cut_file(uint64_t size)
{
	cr_assert_eq(truncate(path, (off_t)size), 0);
}

static unsigned char byte_at(uint64_t off)
{
	const volatile unsigned char *p =
		(const volatile unsigned char *)pmem_at(pm, off);

	return *p;
}

static unsigned char byte_in_file(uint64_t off)
{
	unsigned char c = 0xee;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(pread(fd, &c, 1, (off_t)off), 1);
	close(fd);
	return c;
}

static bool is_tmpfs(const char *dir)
{
	struct statfs sfs;

	return statfs(dir, &sfs) == 0 &&
	       (unsigned long)sfs.f_type == TMPFS_MAGIC;
}

/*
 * This program is linked with --wrap=msync, so that the calls can be counted
 * and made to fail.
 */
static unsigned int nr_msync;
static uint64_t msync_start, msync_end; /* of the last call */
static int msync_errno;

int __real_msync(void *addr, size_t len, int flags);
int __wrap_msync(void *addr, size_t len, int flags);
int __wrap_msync(void *addr, size_t len, int flags)
{
	nr_msync++;
	if (pm) {
		msync_start = (uint64_t)((unsigned char *)addr - pm->base);
		msync_end = msync_start + len;
	}
	if (msync_errno) {
		errno = msync_errno;
		return -1;
	}
	return __real_msync(addr, len, flags);
}

/* What libpmem2 says is bad; its header is for dax/pmem.c alone. */
static struct bad_bytes {
	size_t offset;
	size_t length;
} fake_bad[4];
static unsigned int nr_fake_bad, next_fake_bad;

int __wrap_pmem2_badblock_context_new(void **ctx, const void *src);
int __wrap_pmem2_badblock_context_new(void **ctx, const void *src)
{
	(void)src;
	*ctx = &next_fake_bad;
	next_fake_bad = 0;
	return 0;
}

int __wrap_pmem2_badblock_next(void *ctx, struct bad_bytes *ret);
int __wrap_pmem2_badblock_next(void *ctx, struct bad_bytes *ret)
{
	(void)ctx;
	if (next_fake_bad == nr_fake_bad)
		return -ENODATA;
	*ret = fake_bad[next_fake_bad++];
	return 0;
}

void __wrap_pmem2_badblock_context_delete(void **ctx);
void __wrap_pmem2_badblock_context_delete(void **ctx)
{
	*ctx = NULL;
}

TestSuite(pmem_known_bad, .init = setup_file_only, .fini = teardown,
	  .timeout = 30);

/* Out of order, twice, across an edge and behind the end. */
Test(pmem_known_bad, are_blocks_in_order_and_errors_without_a_touch)
{
	static const uint64_t want[] = { 3, 7, 8, 63 };
	struct pmem_range range[8];
	const uint64_t *block;
	unsigned int nr;

	fake_bad[0] = (struct bad_bytes){ 8 * BLOCK_SIZE - 512, 1024 };
	fake_bad[1] = (struct bad_bytes){ 3 * BLOCK_SIZE + 512, 512 };
	fake_bad[2] = (struct bad_bytes){ 3 * BLOCK_SIZE, 512 };
	fake_bad[3] = (struct bad_bytes){ 63 * BLOCK_SIZE, 4 * BLOCK_SIZE };
	nr_fake_bad = 4;
	open_pmem(PMEM_GRANULARITY_AUTO);
	nr = pmem_known_bad(pm, &block);
	cr_assert_eq(nr, 4);
	cr_expect_arr_eq(block, want, sizeof(want));
	cr_expect_eq(pmem_bad_ranges(pm, range, 8), 4);
	cr_expect_eq(range[1].off, 7 * BLOCK_SIZE);
	cr_expect_eq(range[1].len, BLOCK_SIZE);

	(void)pmem_at(pm, 3 * BLOCK_SIZE - 1);
	cr_expect(!pmem_fault_take());
	(void)pmem_at(pm, 4 * BLOCK_SIZE - 1);
	cr_expect(pmem_fault_take());
	pmem_write(pm, 4 * BLOCK_SIZE, "good", 4);
	cr_expect(!pmem_fault_take());
	pmem_write(pm, 8 * BLOCK_SIZE, "bad", 3);
	cr_expect(pmem_fault_take());
}

TestSuite(pmem_granularity, .fini = teardown, .timeout = 30);

static const struct {
	enum pmem_granularity granularity;
	const char *name;
	const char *env;
} granularities[] = {
	{ PMEM_BYTE, "byte", "BYTE" },
	{ PMEM_CACHE_LINE, "cacheline", "CACHE_LINE" },
	{ PMEM_PAGE, "page", "PAGE" },
};

/* Store, flush and fence with each granularity; the file has it all. */
static void store_with_each(const char *dir)
{
	for (unsigned int i = 0; i < 3; i++) {
		char data[1000];

		memset(data, 'a' + (int)i, sizeof(data));
		make_file(dir, SIZE);
		open_pmem(granularities[i].granularity);
		cr_expect_eq(pmem_granularity(pm),
			     granularities[i].granularity);
		nr_msync = 0;
		pmem_write(pm, 5000, data, sizeof(data));
		pmem_store64(pm, 8, UINT64_C(0x1122334455667788));
		pmem_flush(pm, 8, 8);
		pmem_write(pm, 100, "small", 5);
		pmem_zero(pm, 5100, 300);
		pmem_copy(pm, 12288, 5500, 200);
		cr_expect_eq(nr_msync, 0);
		pmem_fence(pm);
		cr_expect_eq(nr_msync,
			     granularities[i].granularity == PMEM_PAGE ? 1 : 0);
		pmem_close(pm);
		pm = NULL;

		cr_expect_eq(byte_in_file(8), 0x88);
		cr_expect_eq(byte_in_file(100), 's');
		cr_expect_eq(byte_in_file(5000), data[0]);
		cr_expect_eq(byte_in_file(5100), 0);
		cr_expect_eq(byte_in_file(5400), data[0]);
		cr_expect_eq(byte_in_file(12487), data[0]);
		cr_expect_eq(byte_in_file(12488), 0);
		unlink(path);
	}
}

Test(pmem_granularity, each_can_be_had_on_tmpfs)
{
	store_with_each("/dev/shm");
}

Test(pmem_granularity, each_can_be_had_on_a_disk)
{
	store_with_each("/var/tmp");
}

Test(pmem_granularity, auto_is_page_on_a_disk_and_cache_line_on_tmpfs)
{
	/* In this order: the choice for one must not stick to the next. */
	static const char *const dirs[] = { "/var/tmp", "/dev/shm",
					    "/var/tmp" };

	if (is_tmpfs("/var/tmp"))
		cr_skip_test("/var/tmp is no disk");
	unsetenv("PMEM2_FORCE_GRANULARITY");
	for (unsigned int i = 0; i < 3; i++) {
		make_file(dirs[i], SIZE);
		open_pmem(PMEM_GRANULARITY_AUTO);
		cr_expect_eq(pmem_granularity(pm),
			     i == 1 ? PMEM_CACHE_LINE : PMEM_PAGE, "device %u",
			     i);
		pmem_close(pm);
		pm = NULL;
		unlink(path);
	}
	cr_expect_null(getenv("PMEM2_FORCE_GRANULARITY"));
}

Test(pmem_granularity, the_environment_decides_for_auto_and_is_left_alone)
{
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(setenv("PMEM2_FORCE_GRANULARITY",
				    granularities[i].env, 1),
			     0);
		make_file("/dev/shm", SIZE);
		open_pmem(PMEM_GRANULARITY_AUTO);
		cr_expect_eq(pmem_granularity(pm),
			     granularities[i].granularity);
		pmem_close(pm);
		open_pmem(PMEM_PAGE);
		cr_expect_eq(pmem_granularity(pm), PMEM_PAGE);
		teardown();
		cr_expect_str_eq(getenv("PMEM2_FORCE_GRANULARITY"),
				 granularities[i].env);
	}
}

Test(pmem_granularity, each_has_a_name)
{
	for (unsigned int i = 0; i < 3; i++)
		cr_expect_str_eq(
			pmem_granularity_name(granularities[i].granularity),
			granularities[i].name);
	cr_expect_str_eq(pmem_granularity_name(PMEM_GRANULARITY_AUTO), "auto");
}

TestSuite(pmem_open, .fini = teardown, .timeout = 30);

/* Open must fail with this errno and a sentence that has these words. */
static void expect_refused(const char *name, enum pmem_mode mode, int want,
			   const char *words)
{
	struct pmem *none = NULL;
	struct errmsg err = { "" };
	int ret = pmem_open(name, mode, PMEM_GRANULARITY_AUTO, &none, &err);

	cr_expect_eq(ret, want, "%s: %s", name, strerror(-ret));
	cr_expect_null(none);
	cr_expect_not_null(strstr(err.text, words), "%s", err.text);
	cr_expect_eq(strncmp(err.text, name, strlen(name)), 0, "%s", err.text);
	/* Nobody has to ask for the sentence. */
	cr_expect_eq(pmem_open(name, mode, PMEM_GRANULARITY_AUTO, &none, NULL),
		     want);
}

Test(pmem_open, refuses_what_is_not_there)
{
	expect_refused("/dev/shm/no/such", PMEM_READ_WRITE, -ENOENT,
		       "cannot open: No such file");
}

Test(pmem_open, refuses_a_directory)
{
	expect_refused("/dev/shm", PMEM_READ_WRITE, -EISDIR, "directory");
	expect_refused("/dev/shm", PMEM_PRIVATE, -EINVAL,
		       "not a regular file or devdax device");
}

Test(pmem_open, refuses_other_devices)
{
	expect_refused("/dev/null", PMEM_READ_WRITE, -EINVAL,
		       "not a regular file or devdax device");
	expect_refused("/dev/zero", PMEM_PRIVATE, -EINVAL,
		       "not a regular file or devdax device");
}

Test(pmem_open, refuses_a_fifo_without_waiting_for_its_other_end)
{
	make_file("/dev/shm", 0);
	unlink(path);
	cr_assert_eq(mkfifo(path, 0600), 0);
	expect_refused(path, PMEM_READ_WRITE, -EINVAL,
		       "not a regular file or devdax device");
	expect_refused(path, PMEM_PRIVATE, -EINVAL,
		       "not a regular file or devdax device");
}

Test(pmem_open, refuses_a_socket)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd;

	make_file("/dev/shm", 0);
	unlink(path);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	expect_refused(path, PMEM_READ_WRITE, -ENXIO, "cannot open");
	close(fd);
}

Test(pmem_open, refuses_a_block_device_and_says_what_to_do)
{
	struct pmem *none = NULL;
	struct errmsg err = { "" };
	int ret;

	make_file("/dev/shm", 0);
	unlink(path);
	/* No such minor number; it is the kind that counts, if it opens. */
	if (mknod(path, S_IFBLK | 0600, makedev(7, 0)) != 0)
		cr_skip_test("cannot make a device node");
	ret = pmem_open(path, PMEM_PRIVATE, PMEM_GRANULARITY_AUTO, &none, &err);
	if (ret == -ENXIO || ret == -ENODEV || ret == -EACCES || ret == -EPERM)
		cr_skip_test("no loop device here");
	cr_expect_eq(ret, -EINVAL, "%s", err.text);
	cr_expect_not_null(strstr(err.text, "is a block device"), "%s",
			   err.text);
	cr_expect_not_null(strstr(err.text, "-o dax"), "%s", err.text);
}

Test(pmem_open, refuses_less_than_a_block)
{
	static const uint64_t sizes[] = { 0, 1, BLOCK_SIZE - 1 };

	for (unsigned int i = 0; i < 3; i++) {
		make_file("/dev/shm", sizes[i]);
		expect_refused(path, PMEM_READ_WRITE, -EINVAL, "too small");
		unlink(path);
	}
}

Test(pmem_open, leaves_a_last_part_of_a_block_out)
{
	make_file("/dev/shm", 3 * BLOCK_SIZE + 4095);
	open_pmem(PMEM_GRANULARITY_AUTO);
	cr_expect_eq(pm->size, 3 * BLOCK_SIZE);
	pmem_zero(pm, 0, pm->size);
	pmem_fence(pm);
}

Test(pmem_open, refuses_without_permission)
{
	pid_t pid;
	int status;

	make_file("/dev/shm", SIZE);
	pid = fork();
	if (pid == 0) {
		struct pmem *none;

		if (geteuid() == 0 && setuid(65534) != 0)
			_exit(77);
		if (chmod(path, 0) != 0 && errno != EPERM)
			_exit(77);
		_exit(pmem_open(path, PMEM_READ_WRITE, PMEM_GRANULARITY_AUTO,
				&none, NULL) == -EACCES
			      ? 0
			      : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect(WIFEXITED(status) &&
		  (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77));
}

/* The errno that another process gets when it opens the device. */
static int open_elsewhere(enum pmem_mode mode)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct pmem *other;
		struct errmsg err = { "" };
		int ret = pmem_open(path, mode, PMEM_GRANULARITY_AUTO, &other,
				    &err);

		if (ret && !strstr(err.text, "in use by another"))
			_exit(99);
		_exit(-ret);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

Test(pmem_open, for_writing_keeps_everybody_else_out, .init = setup)
{
	cr_expect_eq(open_elsewhere(PMEM_READ_WRITE), -EBUSY);
	cr_expect_eq(open_elsewhere(PMEM_PRIVATE), -EBUSY);
	pmem_close(pm);
	pm = NULL;
	cr_expect_eq(open_elsewhere(PMEM_READ_WRITE), 0);
}

Test(pmem_open, twice_in_one_process_is_refused_as_well, .init = setup)
{
	expect_refused(path, PMEM_READ_WRITE, -EBUSY, "in use by another");
}

Test(pmem_open, private_ones_share_the_device, .init = setup_file_only)
{
	cr_assert_eq(
		pmem_open(path, PMEM_PRIVATE, PMEM_GRANULARITY_AUTO, &pm, NULL),
		0);
	cr_expect_eq(open_elsewhere(PMEM_PRIVATE), 0);
	cr_expect_eq(open_elsewhere(PMEM_READ_WRITE), -EBUSY);
}

Test(pmem_open, private_stores_stay_in_this_process, .init = setup_file_only)
{
	cr_assert_eq(
		pmem_open(path, PMEM_PRIVATE, PMEM_GRANULARITY_AUTO, &pm, NULL),
		0);
	pmem_write(pm, 0, "private", 7);
	pmem_store64(pm, 4096, 7);
	pmem_zero(pm, 8192, 4096);
	pmem_flush(pm, 4096, 8);
	pmem_fence(pm);
	cr_expect_eq(byte_at(0), 'p');
	cr_expect_eq(pmem_load64(pm, 4096), 7);
	cr_expect_eq(byte_in_file(0), 0);
	cr_expect_eq(byte_in_file(4096), 0);
}

Test(pmem_open, private_needs_no_right_to_write)
{
	make_file("/dev/shm", SIZE);
	cr_assert_eq(chmod(path, 0400), 0);
	cr_assert_eq(
		pmem_open(path, PMEM_PRIVATE, PMEM_GRANULARITY_AUTO, &pm, NULL),
		0);
	cr_expect_eq(byte_at(17), 0);
}

Test(pmem_open, close_accepts_null)
{
	pmem_close(NULL);
}

TestSuite(pmem_store, .init = setup, .fini = teardown, .timeout = 30);

Test(pmem_store, words_are_little_endian)
{
	pmem_store64(pm, 64, UINT64_C(0x0102030405060708));
	cr_expect_eq(byte_at(64), 8);
	cr_expect_eq(byte_at(71), 1);
	cr_expect_eq(pmem_load64(pm, 64), UINT64_C(0x0102030405060708));
}

Test(pmem_store, writes_of_any_length_and_place_are_whole)
{
	static unsigned char data[3000], want[8192];

	for (unsigned int i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 7 + 1);
	for (size_t len = 0; len < sizeof(data); len += 1 + len / 9) {
		for (uint64_t off = 0; off < 130; off += 13) {
			pmem_zero(pm, 0, sizeof(want));
			memset(want, 0, sizeof(want));
			memcpy(want + off, data, len);
			pmem_write(pm, off, data, len);
			pmem_fence(pm);
			cr_assert_eq(memcmp(pm->base, want, sizeof(want)), 0,
				     "%zu bytes at %ju", len, (uintmax_t)off);
		}
	}
}

Test(pmem_store, fences_are_counted)
{
	uint64_t before = pmem_nr_fences(pm);

	pmem_write(pm, 0, "x", 1);
	cr_expect_eq(pmem_nr_fences(pm), before);
	pmem_fence(pm);
	pmem_fence(pm);
	cr_expect_eq(pmem_nr_fences(pm), before + 2);
}

Test(pmem_store, crc32c_is_the_standard_one)
{
	cr_expect_eq(pmem_crc32c("123456789", 9), 0xe3069283u);
	cr_expect_eq(pmem_crc32c("", 0), 0);
}

/* Everything that stores, one byte past the end. */
static void store_outside(int what)
{
	static const unsigned char data[16];

	switch (what) {
	case 0:
		pmem_store64(pm, SIZE, 1);
		break;
	case 1:
		pmem_write(pm, SIZE - 15, data, 16);
		break;
	case 2:
		pmem_zero(pm, UINT64_MAX, 16);
		break;
	case 3:
		pmem_copy(pm, SIZE - 15, 0, 16);
		break;
	case 4:
		pmem_copy(pm, 0, SIZE - 15, 16);
		break;
	case 5:
		pmem_flush(pm, SIZE - 15, 16);
		break;
	default:
		pmem_store64(pm, 4, 1); /* not aligned */
	}
}

Test(pmem_store, outside_the_device_is_a_bug)
{
	for (int what = 0; what < 7; what++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

			dup2(null, STDERR_FILENO);
			store_outside(what);
			_exit(0);
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT,
			  "case %d", what);
	}
}

TestSuite(pmem_fence, .init = setup_file_only, .fini = teardown, .timeout = 30);

Test(pmem_fence, syncs_once_what_was_flushed_since_the_last)
{
	open_pmem(PMEM_PAGE);
	nr_msync = 0;
	pmem_fence(pm);
	cr_expect_eq(nr_msync, 0);
	pmem_write(pm, 3 * BLOCK_SIZE + 9, "x", 1);
	pmem_write(pm, BLOCK_SIZE + 4095, "xy", 2);
	pmem_store64(pm, 9 * BLOCK_SIZE, 1); /* not flushed */
	pmem_flush(pm, 5 * BLOCK_SIZE - 1, 1);
	pmem_fence(pm);
	cr_expect_eq(nr_msync, 1);
	cr_expect_eq(msync_start, BLOCK_SIZE);
	cr_expect_eq(msync_end, 5 * BLOCK_SIZE);
	pmem_fence(pm);
	cr_expect_eq(nr_msync, 1);
	pmem_zero(pm, 7 * BLOCK_SIZE, 10);
	pmem_fence(pm);
	cr_expect_eq(nr_msync, 2);
	cr_expect_eq(msync_start, 7 * BLOCK_SIZE);
	cr_expect_eq(msync_end, 8 * BLOCK_SIZE);
	cr_expect(!pmem_fault_take());
}

Test(pmem_fence, one_device_does_not_forget_for_another)
{
	char first[sizeof(path)];
	struct pmem *other;

	open_pmem(PMEM_PAGE);
	other = pm;
	memcpy(first, path, sizeof(path));
	make_file("/dev/shm", SIZE);
	open_pmem(PMEM_PAGE);

	pmem_write(other, 9000, "x", 1);
	pmem_write(pm, 100, "x", 1);
	nr_msync = 0;
	pmem_fence(other);
	cr_expect_eq(nr_msync, 1);
	pmem_fence(pm);
	cr_expect_eq(nr_msync, 2);
	cr_expect_eq(msync_start, 0);
	cr_expect_eq(msync_end, BLOCK_SIZE);
	pmem_close(other);
	unlink(first);
}

Test(pmem_fence, forgets_what_a_closed_device_left_behind)
{
	open_pmem(PMEM_PAGE);
	pmem_write(pm, SIZE - 10, "x", 1);
	pmem_close(pm);
	open_pmem(PMEM_PAGE);
	nr_msync = 0;
	pmem_fence(pm);
	cr_expect_eq(nr_msync, 0);
	pmem_write(pm, 0, "x", 1);
	pmem_fence(pm);
	cr_expect_eq(msync_end, BLOCK_SIZE);
}

static void *fence_elsewhere(void *arg)
{
	(void)arg;
	pmem_fence(pm);
	return pmem_fault_take() ? &pm : NULL;
}

Test(pmem_fence, that_fails_is_not_forgotten)
{
	pthread_t thread;
	void *marked;

	open_pmem(PMEM_PAGE);
	cr_expect_eq(pmem_sync_error(pm), 0);
	pmem_write(pm, 0, "x", 1);
	msync_errno = EIO;
	pmem_fence(pm);
	msync_errno = 0;
	cr_expect(pmem_fault_take());
	cr_expect(!pmem_fault_take());
	cr_expect_eq(pmem_sync_error(pm), -EIO);

	/* The kernel says it once; we do not forget. */
	pmem_write(pm, 0, "y", 1);
	cr_expect(!pmem_fault_pending());
	pmem_fence(pm);
	cr_expect(pmem_fault_take());
	cr_assert_eq(pthread_create(&thread, NULL, fence_elsewhere, NULL), 0);
	pthread_join(thread, &marked);
	cr_expect_not_null(marked);

	pmem_close(pm);
	open_pmem(PMEM_PAGE);
	pmem_write(pm, 0, "z", 1);
	pmem_fence(pm);
	cr_expect(!pmem_fault_take());
	cr_expect_eq(pmem_sync_error(pm), 0);
}

TestSuite(pmem_record, .fini = teardown, .timeout = 30);

struct event {
	enum pmem_event event;
	uint64_t off;
	size_t len;
	unsigned char first;
};

static struct event events[20];
static unsigned int nr_events;

static void note_event(void *ctx, enum pmem_event event, uint64_t off,
		       const void *data, size_t len)
{
	cr_assert_eq(ctx, events);
	cr_assert_lt(nr_events, 20);
	events[nr_events++] = (struct event){
		.event = event,
		.off = off,
		.len = len,
		.first = len ? *(const unsigned char *)data : 0,
	};
}

static void expect_event(unsigned int i, enum pmem_event event, uint64_t off,
			 size_t len, unsigned char first)
{
	cr_assert_lt(i, nr_events);
	cr_expect_eq(events[i].event, event, "event %u", i);
	cr_expect_eq(events[i].off, off, "event %u", i);
	cr_expect_eq(events[i].len, len, "event %u", i);
	cr_expect_eq(events[i].first, first, "event %u", i);
}

Test(pmem_record, sees_everything_in_order_with_each_granularity)
{
	const struct pmem_recorder rec = { note_event, events };

	for (unsigned int i = 0; i < 3; i++) {
		make_file("/dev/shm", SIZE);
		open_pmem(granularities[i].granularity);
		pmem_write(pm, 0, "before", 6);
		nr_events = 0;
		pmem_record(pm, &rec);
		pmem_store64(pm, 8, 'w');
		pmem_flush(pm, 8, 8);
		pmem_write(pm, 300, "abc", 3);
		pmem_write(pm, 300, "nothing", 0);
		pmem_zero(pm, 4096, 600);
		pmem_copy(pm, 8192, 300, 3);
		pmem_fence(pm);
		pmem_record(pm, NULL);
		pmem_fence(pm);

		cr_expect_eq(nr_events, 9);
		expect_event(0, PMEM_EVENT_STORE, 8, 8, 'w');
		expect_event(1, PMEM_EVENT_FLUSH, 8, 8, 'w');
		expect_event(2, PMEM_EVENT_STORE, 300, 3, 'a');
		expect_event(3, PMEM_EVENT_FLUSH, 300, 3, 'a');
		expect_event(4, PMEM_EVENT_STORE, 4096, 600, 0);
		expect_event(5, PMEM_EVENT_FLUSH, 4096, 600, 0);
		expect_event(6, PMEM_EVENT_STORE, 8192, 3, 'a');
		expect_event(7, PMEM_EVENT_FLUSH, 8192, 3, 'a');
		expect_event(8, PMEM_EVENT_FENCE, 0, 0, 0);
		teardown();
	}
}

TestSuite(pmem_fault, .init = setup, .fini = teardown, .timeout = 30);

#define LOST (40 * BLOCK_SIZE)

Test(pmem_fault, a_load_marks_the_thread_once_and_reads_zeros)
{
	pmem_write(pm, LOST, "x", 1);
	cut_file(LOST);
	cr_expect(!pmem_fault_pending());
	cr_expect_eq(byte_at(LOST), 0);
	cr_expect(pmem_fault_pending());
	cr_expect(pmem_fault_take());
	cr_expect(!pmem_fault_take());
	cr_expect(!pmem_fault_pending());
}

Test(pmem_fault, every_later_access_marks_again)
{
	cut_file(LOST);
	byte_at(LOST + 5);
	cr_assert(pmem_fault_take());
	byte_at(LOST);
	cr_expect(pmem_fault_take(), "a load");
	pmem_load64(pm, LOST + 4088);
	cr_expect(pmem_fault_take(), "a word");
	pmem_store64(pm, LOST + 8, 1);
	cr_expect(pmem_fault_take(), "a store");
	pmem_write(pm, LOST - 10, "0123456789abcdef", 16);
	cr_expect(pmem_fault_take(), "a write across");
	pmem_zero(pm, LOST + 4095, 1);
	cr_expect(pmem_fault_take(), "zeroing");
	pmem_copy(pm, 0, LOST, 8);
	cr_expect(pmem_fault_take(), "copying from");
	pmem_copy(pm, LOST, 0, 8);
	cr_expect(pmem_fault_take(), "copying to");
	pmem_check(pm, 0, SIZE);
	cr_expect(pmem_fault_take(), "a check");
}

Test(pmem_fault, other_pages_are_fine)
{
	cut_file(LOST);
	byte_at(LOST);
	cr_assert(pmem_fault_take());
	pmem_write(pm, LOST - BLOCK_SIZE, "fine", 4);
	cr_expect_eq(byte_at(LOST - BLOCK_SIZE), 'f');
	cr_expect_eq(byte_at(LOST - 1), 0);
	pmem_copy(pm, 0, LOST - BLOCK_SIZE, BLOCK_SIZE);
	pmem_check(pm, 0, LOST);
	pmem_fence(pm);
	cr_expect(!pmem_fault_take());
	cr_expect_eq(byte_in_file(0), 'f');
}

Test(pmem_fault, the_first_access_may_be_a_store)
{
	static const unsigned char data[2 * BLOCK_SIZE] = { 1 };

	cut_file(LOST);
	pmem_store64(pm, LOST, 5);
	cr_expect(pmem_fault_take());
	pmem_write(pm, LOST + BLOCK_SIZE, "x", 1); /* through the caches */
	cr_expect(pmem_fault_take());
	pmem_write(pm, LOST + 2 * BLOCK_SIZE, data, sizeof(data));
	cr_expect(pmem_fault_take());
	pmem_zero(pm, LOST + 4 * BLOCK_SIZE, BLOCK_SIZE);
	cr_expect(pmem_fault_take());
	pmem_copy(pm, 0, LOST + 5 * BLOCK_SIZE, BLOCK_SIZE);
	cr_expect(pmem_fault_take());
	cr_expect_eq(atomic_load(&pm->nr_bad), 6);
}

Test(pmem_fault, lost_pages_are_listed_once)
{
	struct pmem_range range[4] = { { 7, 7 }, { 7, 7 }, { 7, 7 }, { 7, 7 } };

	cr_expect_eq(pmem_bad_ranges(pm, range, 4), 0);
	cut_file(LOST);
	byte_at(LOST + 2 * BLOCK_SIZE + 77);
	byte_at(LOST);
	byte_at(LOST + 2 * BLOCK_SIZE);
	byte_at(LOST + 1);
	cr_expect_eq(pmem_bad_ranges(pm, range, 1), 2);
	cr_expect_eq(range[0].off, LOST + 2 * BLOCK_SIZE);
	cr_expect_eq(range[0].len, BLOCK_SIZE);
	cr_expect_eq(range[1].off, 7);
	cr_expect_eq(pmem_bad_ranges(pm, range, 4), 2);
	cr_expect_eq(range[1].off, LOST);
	cr_expect_eq(range[2].off, 7);
	cr_expect_eq(pmem_bad_ranges(pm, NULL, 0), 2);
}

static pthread_barrier_t together;

static void *lose_pages(void *arg)
{
	void *ret = NULL;

	(void)arg;
	for (uint64_t off = BLOCK_SIZE; off < pm->size; off += BLOCK_SIZE) {
		pthread_barrier_wait(&together);
		pmem_fault_begin();
		byte_at(off);
		if (!pmem_fault_end())
			ret = &pm;
	}
	return ret;
}

Test(pmem_fault, threads_may_lose_the_same_page_at_once)
{
	const unsigned int nr_pages = 1000;
	pthread_t thread[2];
	void *failed;

	teardown();
	make_file("/dev/shm", (nr_pages + 1) * BLOCK_SIZE);
	open_pmem(PMEM_GRANULARITY_AUTO);
	cut_file(BLOCK_SIZE);
	cr_assert_eq(pthread_barrier_init(&together, NULL, 2), 0);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, lose_pages, NULL),
			     0);
	for (int i = 0; i < 2; i++) {
		pthread_join(thread[i], &failed);
		cr_expect_null(failed);
	}
	cr_expect_eq(atomic_load(&pm->nr_bad), nr_pages);
	cr_expect(!pmem_fault_take());
}

static void *lose_one(void *arg)
{
	const volatile unsigned char *p = (const volatile unsigned char *)arg;

	return *p == 0 && pmem_fault_take() ? NULL : &pm;
}

Test(pmem_fault, the_mark_is_the_threads_own)
{
	pthread_t thread;
	void *failed;
	union {
		const void *in;
		void *out;
	} p = { .in = pmem_at(pm, LOST) };

	cut_file(LOST);
	cr_assert_eq(pthread_create(&thread, NULL, lose_one, p.out), 0);
	pthread_join(thread, &failed);
	cr_expect_null(failed);
	cr_expect(!pmem_fault_take());
	byte_at(LOST);
	cr_expect(pmem_fault_take());
}

Test(pmem_fault, an_operation_learns_that_another_thread_lost_a_page)
{
	const volatile unsigned char *p;
	pthread_t thread;
	union {
		const void *in;
		void *out;
	} at;

	pmem_fault_note();
	pmem_fault_begin();
	cr_expect(!pmem_fault_end());

	pmem_fault_begin();
	at.in = pmem_at(pm, LOST);
	p = (const volatile unsigned char *)at.in;
	cut_file(LOST);
	cr_assert_eq(pthread_create(&thread, NULL, lose_one, at.out), 0);
	pthread_join(thread, NULL);
	cr_expect_eq(*p, 0);
	cr_expect(!pmem_fault_pending());
	cr_expect(pmem_fault_end());

	pmem_fault_begin();
	cr_expect(!pmem_fault_end());
}

Test(pmem_fault, can_be_noted_from_outside)
{
	pmem_fault_note();
	cr_expect(pmem_fault_pending());
	cr_expect(pmem_fault_take());
	cr_expect(!pmem_fault_take());
}

Test(pmem_fault, does_not_stop_a_sync)
{
	teardown();
	make_file("/dev/shm", SIZE);
	open_pmem(PMEM_PAGE);
	cut_file(LOST);
	byte_at(LOST);
	cr_assert(pmem_fault_take());
	/* The range has the lost page in its middle, as anonymous memory. */
	pmem_write(pm, LOST - 1, "x", 1);
	pmem_flush(pm, LOST, 2 * BLOCK_SIZE);
	pmem_fence(pm);
	cr_expect(!pmem_fault_take());
	cr_expect_eq(pmem_sync_error(pm), 0);
}

Test(pmem_fault, more_than_can_be_listed_is_bad_altogether)
{
	const uint64_t nr = 4200;

	teardown();
	make_file("/dev/shm", nr * BLOCK_SIZE);
	open_pmem(PMEM_GRANULARITY_AUTO);
	cut_file(BLOCK_SIZE);
	for (uint64_t i = 1; i < nr; i++)
		byte_at(i * BLOCK_SIZE);
	cr_expect(pmem_fault_take());
	cr_expect_gt(pmem_bad_ranges(pm, NULL, 0), 4096);
	byte_at(0);
	cr_expect(pmem_fault_take());
}

/* No fixture: the handler must not be there before the test's own. */
TestSuite(pmem_sigbus, .timeout = 30);

/* A SIGBUS that is not ours does what it did before. */
static int die_of_sigbus(void (*handler)(int))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		char *p;
		int fd;

		signal(SIGBUS, handler);
		setup();
		fd = open(path, O_RDWR | O_CLOEXEC);
		p = (char *)mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
				 fd, 0);
		unlink(path);
		if (ftruncate(fd, 0) != 0)
			_exit(1);
		*(volatile char *)p = 1;
		_exit(2);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void exit_55(int sig)
{
	(void)sig;
	_exit(55);
}

Test(pmem_sigbus, elsewhere_still_kills)
{
	int status = die_of_sigbus(SIG_DFL);

	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "%x",
		  status);
}

Test(pmem_sigbus, elsewhere_goes_to_the_handler_before_us)
{
	int status = die_of_sigbus(exit_55);

	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 55, "%x", status);
}

/* Debian 12's headers are older than the kernels that know it. */
#ifndef UFFDIO_POISON
#define UFFD_FEATURE_POISON (1 << 14)
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

/* Poison the pages [off, off + len) of the mapping; false: cannot. */
static bool poison(uint64_t off, uint64_t len, int *ret_fd)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_POISON };
	struct uffdio_register reg = {
		.range = { (uintptr_t)pm->base + off, len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_poison poison = { .range = reg.range };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	*ret_fd = fd;
	return fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0 &&
	       ioctl(fd, UFFDIO_REGISTER, &reg) == 0 &&
	       ioctl(fd, UFFDIO_POISON, &poison) == 0;
}

Test(pmem_fault, poisoned_memory_is_a_lost_page)
{
	struct pmem_range range;
	int fd;

	pmem_write(pm, LOST - BLOCK_SIZE, "fine", 4);
	if (!poison(LOST, BLOCK_SIZE, &fd))
		cr_skip_test("no UFFDIO_POISON: %s", strerror(errno));
	cr_expect_eq(byte_at(LOST + 9), 0);
	cr_expect(pmem_fault_take());
	pmem_store64(pm, LOST, 1);
	cr_expect(pmem_fault_take());
	cr_expect_eq(byte_at(LOST - BLOCK_SIZE), 'f');
	pmem_write(pm, LOST + BLOCK_SIZE, "fine", 4);
	cr_expect(!pmem_fault_take());
	cr_expect_eq(pmem_bad_ranges(pm, &range, 1), 1);
	cr_expect_eq(range.off, LOST);
	cr_expect_eq(range.len, BLOCK_SIZE);
	close(fd);
}

Test(pmem_fault, poison_in_the_middle_of_a_copy_is_met_and_passed)
{
	int fd;

	pmem_write(pm, LOST + 2 * BLOCK_SIZE, "behind", 6);
	if (!poison(LOST + BLOCK_SIZE, BLOCK_SIZE, &fd))
		cr_skip_test("no UFFDIO_POISON: %s", strerror(errno));
	pmem_copy(pm, 0, LOST, 3 * BLOCK_SIZE);
	cr_expect(pmem_fault_take());
	cr_expect_eq(byte_at(2 * BLOCK_SIZE), 'b');
	close(fd);
}
