/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/pmem.c - the only door to media
 *
 * Nothing else in the project includes libpmem2.h, and nothing else has a
 * pointer to media that it may store through.
 *
 * With PAGE granularity a flush only remembers its range, per thread and
 * device; the fence syncs one range that covers them all.  The kernel writes
 * just the dirty pages of it, and one call costs one commit of the filesystem
 * below.  The sync is our own msync(2), because libpmem2 does not report that
 * it failed.  The kernel reports a failure once and may then take the pages
 * for clean, so the device is not trusted again until it is opened anew.
 *
 * A machine check arrives as SIGBUS.  The handler lists the page as lost,
 * maps zeros over it, so that the instruction can go on, and marks the thread.
 * In this order: whoever reads or stores zeros there can find the page in the
 * list afterwards.  It uses nothing that is not async-signal-safe: the tables
 * it touches are arrays of atomics.
 */
#include "dax/pmem.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libpmem2.h>
#include <isa-l/crc.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "dax/lock.h"

/* From here up non-temporal stores win: the copy is not read again soon. */
#define NT_THRESHOLD 256

/* A device with more bad pages than this is reported as bad altogether. */
#define NR_BAD 4096

#define NOT_A_DEVICE "not a regular file or devdax device"

/* Open devices at once in a process; only tests open more than one. */
#define NR_MAPS 16

struct device {
	struct pmem pm; /* first: pmem_open() gives out its address */
	unsigned char *rw;
	enum pmem_mode mode;
	enum pmem_granularity granularity;
	uint64_t alignment; /* smallest piece that can be mapped */
	bool is_devdax;
	bool has_deep_flush;
	const char *warning;
	uint64_t *known; /* bad blocks by number, in order */
	unsigned int nr_known;
	unsigned char *copied; /* private devdax: windows that have a copy */
	struct mutex copy_lock;
	int fd;
	struct pmem2_source *src;
	struct pmem2_map *map;
	pmem2_memcpy_fn memcpy_fn;
	pmem2_memset_fn memset_fn;
	pmem2_flush_fn flush_fn;
	pmem2_drain_fn drain_fn;
	unsigned int slot; /* in maps[] */
	uint64_t serial;   /* of all devices ever opened; 0 is none */
	_Atomic(uint64_t) nr_fences;
	_Atomic(int) sync_error; /* negative errno of the first failure */
	struct pmem_recorder rec;
	_Atomic(uint64_t) bad[NR_BAD]; /* offset of the page, plus one */
};

/* Devices that the signal handler knows. */
static _Atomic(struct device *) maps[NR_MAPS];
static struct sigaction old_sigbus;
static pthread_once_t sigbus_once = PTHREAD_ONCE_INIT;

/* Pages lost on all devices; what an operation compares with its start. */
static _Atomic(unsigned int) nr_lost;
static _Thread_local unsigned int nr_lost_begin;
static _Thread_local volatile sig_atomic_t fault_pending;

/*
 * PAGE granularity: what this thread flushed since its last fence, by slot.
 * Another serial is what a device that was closed has left behind.
 */
static _Thread_local struct {
	uint64_t serial;
	uint64_t start, end;
} unsynced[NR_MAPS];

static struct device *device_of(struct pmem *pm)
{
	return (struct device *)pm;
}

static const struct device *const_device_of(const struct pmem *pm)
{
	return (const struct device *)pm;
}

static bool is_bad(const struct device *dev, uint64_t page)
{
	if (atomic_load(&dev->pm.nr_bad) > NR_BAD + dev->nr_known)
		return true;
	for (unsigned int i = 0; i < NR_BAD; i++) {
		uint64_t bad = atomic_load(&dev->bad[i]);

		if (bad == page + 1)
			return true;
		if (bad == 0)
			break;
	}
	return false;
}

/* Is one of the blocks of [off, off + len) known to be bad? */
static bool is_known_bad(const struct device *dev, uint64_t off, uint64_t len)
{
	uint64_t first = off >> BLOCK_SHIFT;
	unsigned int lo = 0, hi = dev->nr_known;

	while (lo < hi) {
		unsigned int mid = lo + (hi - lo) / 2;

		if (dev->known[mid] < first)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < dev->nr_known && dev->known[lo] << BLOCK_SHIFT < off + len;
}

/* Several threads may meet the same page at once: it is listed once. */
static void list_lost(struct device *dev, uint64_t page)
{
	for (unsigned int i = 0; i < NR_BAD; i++) {
		uint64_t old = 0;

		if (atomic_compare_exchange_strong(&dev->bad[i], &old,
						   page + 1))
			break;
		if (old == page + 1)
			return;
	}
	atomic_fetch_add(&dev->pm.nr_bad, 1);
	atomic_fetch_add(&nr_lost, 1);
}

/* Runs in the signal handler. */
static bool replace_page(struct device *dev, uintptr_t addr)
{
	uintptr_t base = (uintptr_t)dev->rw;
	uint64_t page = (addr - base) & ~(dev->alignment - 1);
	uint64_t len = dev->alignment;
	void *p;

	if (page + len > dev->pm.size)
		len = dev->pm.size - page;
	list_lost(dev, page);
	p = mmap(dev->rw + page, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (p == MAP_FAILED)
		return false;
	fault_pending = 1;
	return true;
}

/* Not ours: what would have happened without us. */
static void pass_on(int sig, siginfo_t *si, void *uc)
{
	if (old_sigbus.sa_flags & SA_SIGINFO) {
		old_sigbus.sa_sigaction(sig, si, uc);
	} else if (old_sigbus.sa_handler == SIG_DFL ||
		   old_sigbus.sa_handler == SIG_IGN) {
		signal(SIGBUS, SIG_DFL);
		raise(SIGBUS);
	} else {
		old_sigbus.sa_handler(sig);
	}
}

static void on_sigbus(int sig, siginfo_t *si, void *uc)
{
	int saved = errno;
	uintptr_t addr = (uintptr_t)si->si_addr;

	for (int i = 0; i < NR_MAPS; i++) {
		struct device *dev = atomic_load(&maps[i]);

		if (!dev || addr < (uintptr_t)dev->rw ||
		    addr >= (uintptr_t)dev->rw + dev->pm.size)
			continue;
		if (replace_page(dev, addr)) {
			errno = saved;
			return;
		}
		break;
	}
	errno = saved;
	pass_on(sig, si, uc);
}

static void install_sigbus(void)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus,
				.sa_flags = SA_SIGINFO | SA_NODEFER };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGBUS, &sa, &old_sigbus);
}

static int publish(struct device *dev)
{
	static _Atomic(uint64_t) nr_opened;

	pthread_once(&sigbus_once, install_sigbus);
	dev->serial = atomic_fetch_add(&nr_opened, 1) + 1;
	for (unsigned int i = 0; i < NR_MAPS; i++) {
		struct device *none = NULL;

		dev->slot = i;
		if (atomic_compare_exchange_strong(&maps[i], &none, dev))
			return 0;
	}
	return -EMFILE;
}

static void unpublish(struct device *dev)
{
	for (int i = 0; i < NR_MAPS; i++) {
		struct device *mine = dev;

		if (atomic_compare_exchange_strong(&maps[i], &mine, NULL))
			return;
	}
}

static int from_pmem2(int ret)
{
	/* libpmem2's own codes are below -100000; errno values are small. */
	if (ret == PMEM2_E_NOSUPP || ret == PMEM2_E_GRANULARITY_NOT_SUPPORTED)
		return -ENOTSUP;
	if (ret > -4096 && ret < 0)
		return ret;
	return -EINVAL;
}

/*
 * umount(2) returns before the daemon has let go of the device, so a mount or
 * fsck right after it waits a moment.
 */
static int lock_device(int fd, int how)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

	for (int i = 0; i < 300; i++) {
		if (flock(fd, how | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK)
			return -1;
		nanosleep(&pause, NULL);
	}
	errno = EWOULDBLOCK;
	return -1;
}

static int open_fd(struct device *dev, const char *path, struct errmsg *err)
{
	bool rw = dev->mode == PMEM_READ_WRITE;
	struct stat st;

	dev->fd = open(path, (rw ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (dev->fd < 0) {
		int ret = -errno;

		return err_set(err, ret, "%s: cannot open: %s", path,
			       strerror(errno));
	}
	if (fstat(dev->fd, &st) != 0)
		return err_set(err, -errno, "%s: cannot stat: %s", path,
			       strerror(errno));
	if (S_ISBLK(st.st_mode))
		return err_set(err, -EINVAL,
			       "%s: is a block device, which cannot be mapped "
			       "directly; use a file on a filesystem mounted "
			       "from it with -o dax, or a devdax namespace",
			       path);
	dev->is_devdax = S_ISCHR(st.st_mode);
	if (!S_ISREG(st.st_mode) && !dev->is_devdax)
		return err_set(err, -EINVAL, "%s: " NOT_A_DEVICE, path);
	if (lock_device(dev->fd, rw ? LOCK_EX : LOCK_SH) != 0)
		return err_set(err, errno == EWOULDBLOCK ? -EBUSY : -errno,
			       "%s: in use by another mount, mkfs or fsck",
			       path);
	return 0;
}

static const char granularity_env[] = "PMEM2_FORCE_GRANULARITY";

/*
 * On tmpfs there is nothing to sync to, so libpmem2's answer (PAGE) would
 * only be slow.  Real flush instructions are what a device would get.
 */
static bool is_tmpfs(int fd)
{
	struct statfs sfs;

	return fstatfs(fd, &sfs) == 0 &&
	       (unsigned long)sfs.f_type == TMPFS_MAGIC;
}

static const char *forced_granularity(const struct device *dev,
				      enum pmem_granularity want)
{
	switch (want) {
	case PMEM_BYTE:
		return "BYTE";
	case PMEM_CACHE_LINE:
		return "CACHE_LINE";
	case PMEM_PAGE:
		return "PAGE";
	case PMEM_GRANULARITY_AUTO:
		break;
	}
	/* A devdax device's file is on devtmpfs, which is a tmpfs too. */
	if (!getenv(granularity_env) && !dev->is_devdax && is_tmpfs(dev->fd))
		return "CACHE_LINE";
	return NULL;
}

/*
 * libpmem2 asks the environment, when it maps.  What we put there must be gone
 * afterwards: the next device is another one.
 */
static int map_forced(struct device *dev, const struct pmem2_config *cfg,
		      enum pmem_granularity want)
{
	const char *value = forced_granularity(dev, want);
	const char *env = getenv(granularity_env);
	char *old = NULL;
	int ret;

	if (!value)
		return pmem2_map_new(&dev->map, cfg, dev->src);
	if (env) {
		old = strdup(env);
		if (!old)
			return -ENOMEM;
	}
	ret = setenv(granularity_env, value, 1) ? -errno : 0;
	if (!ret)
		ret = pmem2_map_new(&dev->map, cfg, dev->src);
	if (old)
		(void)setenv(granularity_env, old, 1);
	else
		unsetenv(granularity_env);
	free(old);
	return ret;
}

static enum pmem_granularity granularity_of(struct pmem2_map *map)
{
	switch (pmem2_map_get_store_granularity(map)) {
	case PMEM2_GRANULARITY_BYTE:
		return PMEM_BYTE;
	case PMEM2_GRANULARITY_CACHE_LINE:
		return PMEM_CACHE_LINE;
	case PMEM2_GRANULARITY_PAGE:
	default:
		return PMEM_PAGE;
	}
}

/*
 * Map it again so that stores stay here.  libpmem2 would have memory set aside
 * for all of the device, of which hardly any is ever stored to.  A devdax
 * device has no private mappings: there each window gets a copy of its own
 * when it is first stored to.
 */
static int make_private(struct device *dev, size_t size)
{
	void *p;

	if (dev->is_devdax) {
		dev->copied = (unsigned char *)calloc(size / dev->alignment, 1);
		return dev->copied ? 0 : -1;
	}
	p = mmap(dev->rw, size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, dev->fd, 0);

	return p == MAP_FAILED ? -1 : 0;
}

static int map_device(struct device *dev, const char *path,
		      enum pmem_granularity want, struct errmsg *err)
{
	struct pmem2_config *cfg = NULL;
	size_t size, alignment;
	int ret;

	ret = pmem2_source_from_fd(&dev->src, dev->fd);
	if (ret == PMEM2_E_INVALID_FILE_TYPE)
		return err_set(err, -EINVAL, "%s: " NOT_A_DEVICE, path);
	if (ret)
		return err_set(err, from_pmem2(ret), "%s: %s", path,
			       pmem2_errormsg());
	ret = pmem2_source_size(dev->src, &size);
	if (!ret)
		ret = pmem2_source_alignment(dev->src, &alignment);
	if (ret)
		return err_set(err, from_pmem2(ret), "%s: %s", path,
			       pmem2_errormsg());
	dev->alignment = alignment > BLOCK_SIZE ? alignment : BLOCK_SIZE;
	size -= size % dev->alignment;
	if (size == 0)
		return err_set(
			err, -EINVAL,
			"%s: too small: less than one block of %ju bytes", path,
			(uintmax_t)dev->alignment);

	ret = pmem2_config_new(&cfg);
	if (ret)
		return err_set(err, from_pmem2(ret), "%s: %s", path,
			       pmem2_errormsg());
	pmem2_config_set_length(cfg, size);
	pmem2_config_set_required_store_granularity(cfg,
						    PMEM2_GRANULARITY_PAGE);
	if (dev->mode == PMEM_PRIVATE) {
		if (!dev->is_devdax)
			pmem2_config_set_sharing(cfg, PMEM2_PRIVATE);
		pmem2_config_set_protection(cfg, PMEM2_PROT_READ);
	}
	ret = map_forced(dev, cfg, want);
	pmem2_config_delete(&cfg);
	if (ret)
		return err_set(err, from_pmem2(ret), "%s: cannot map: %s", path,
			       pmem2_errormsg());

	dev->granularity = granularity_of(dev->map);
	dev->rw = (unsigned char *)pmem2_map_get_address(dev->map);
	if (dev->mode == PMEM_PRIVATE && make_private(dev, size) != 0)
		return err_set(err, -errno, "%s: cannot map: %s", path,
			       strerror(errno));
	dev->pm.base = dev->rw;
	dev->pm.size = size;
	dev->memcpy_fn = pmem2_get_memcpy_fn(dev->map);
	dev->memset_fn = pmem2_get_memset_fn(dev->map);
	dev->flush_fn = pmem2_get_flush_fn(dev->map);
	dev->drain_fn = pmem2_get_drain_fn(dev->map);
	return 0;
}

/* Blocks that a range of bad bytes touches. */
static int add_known(struct device *dev, uint64_t off, uint64_t len)
{
	uint64_t first = off >> BLOCK_SHIFT;
	uint64_t end = (off + len + BLOCK_MASK) >> BLOCK_SHIFT;
	uint64_t max = dev->pm.size >> BLOCK_SHIFT;
	uint64_t *known;

	if (end > max)
		end = max;
	if (first >= end)
		return 0;
	known = (uint64_t *)reallocarray(
		dev->known, dev->nr_known + (end - first), sizeof(*known));
	if (!known)
		return -ENOMEM;
	dev->known = known;
	while (first < end)
		known[dev->nr_known++] = first++;
	return 0;
}

static int compare_blocks(const void *a, const void *b)
{
	const uint64_t *x = (const uint64_t *)a, *y = (const uint64_t *)b;

	return *x < *y ? -1 : *x > *y;
}

static void sort_known(struct device *dev)
{
	unsigned int nr = 0;

	if (!dev->nr_known)
		return;
	qsort(dev->known, dev->nr_known, sizeof(*dev->known), compare_blocks);
	for (unsigned int i = 0; i < dev->nr_known; i++)
		if (nr == 0 || dev->known[i] != dev->known[nr - 1])
			dev->known[nr++] = dev->known[i];
	dev->nr_known = nr;
}

/*
 * What the kernel knows of bad media below the device.  Not to get an answer is
 * no error: most files have no such device, and some ask for privilege.
 */
static int find_known(struct device *dev)
{
	struct pmem2_badblock_context *ctx;
	struct pmem2_badblock bb;
	int ret = 0;

	if (pmem2_badblock_context_new(&ctx, dev->src))
		return 0;
	while (ret == 0 && pmem2_badblock_next(ctx, &bb) == 0)
		ret = add_known(dev, bb.offset, bb.length);
	pmem2_badblock_context_delete(&ctx);
	sort_known(dev);
	atomic_store(&dev->pm.nr_bad, dev->nr_known);
	return ret;
}

/* "1" in a file of the device's or of one of those it is a part of. */
static bool has_deep_flush(char *path)
{
	char name[PATH_MAX + 16], text[2] = "";
	char *slash;
	int fd;

	while ((slash = strrchr(path, '/')) && slash != path) {
		snprintf(name, sizeof(name), "%s/deep_flush", path);
		fd = open(name, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			(void)!read(fd, text, 1);
			close(fd);
			return text[0] == '1';
		}
		*slash = '\0';
	}
	return false;
}

/* What is below the device, from the place it has in sysfs. */
static void find_backing(struct device *dev)
{
	char link[64], path[PATH_MAX];
	struct stat st;
	dev_t nr;

	if (fstat(dev->fd, &st) != 0)
		return;
	nr = dev->is_devdax ? st.st_rdev : st.st_dev;
	snprintf(link, sizeof(link), "/sys/dev/%s/%u:%u",
		 dev->is_devdax ? "char" : "block", major(nr), minor(nr));
	if (!realpath(link, path))
		return;
	if (strstr(path, "/ndbus") && strstr(path, "/virtio"))
		dev->warning = "is virtio-pmem: what is stored is safe only "
			       "from a failure of the guest, because nobody "
			       "tells the host to flush";
	else if (strstr(path, "/e820_pmem/"))
		dev->warning = "is memory that the kernel was told to take "
			       "for persistent: nobody knows whether it is";
	dev->has_deep_flush = dev->mode == PMEM_READ_WRITE &&
			      strstr(path, "/ndbus") && has_deep_flush(path);
}

int pmem_open(const char *path, enum pmem_mode mode, enum pmem_granularity want,
	      struct pmem **ret_pm, struct errmsg *err)
{
	struct device *dev;
	int ret;

	dev = (struct device *)calloc(1, sizeof(*dev));
	if (!dev)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	dev->mode = mode;
	dev->fd = -1;
	mutex_init(&dev->copy_lock, LOCK_PMEM);

	ret = open_fd(dev, path, err);
	if (!ret)
		ret = map_device(dev, path, want, err);
	if (!ret) {
		find_backing(dev);
		ret = find_known(dev);
		if (ret)
			err_set(err, ret, "%s: out of memory", path);
	}
	if (!ret) {
		ret = publish(dev);
		if (ret)
			err_set(err, ret, "%s: too many devices open", path);
	}
	if (ret) {
		pmem_close(&dev->pm);
		return ret;
	}
	*ret_pm = &dev->pm;
	return 0;
}

void pmem_close(struct pmem *pm)
{
	struct device *dev;

	if (!pm)
		return;
	dev = device_of(pm);
	unpublish(dev);
	if (dev->map)
		pmem2_map_delete(&dev->map);
	if (dev->src)
		pmem2_source_delete(&dev->src);
	if (dev->fd >= 0)
		close(dev->fd);
	mutex_destroy(&dev->copy_lock);
	free(dev->copied);
	free(dev->known);
	free(dev);
}

enum pmem_granularity pmem_granularity(const struct pmem *pm)
{
	return const_device_of(pm)->granularity;
}

uint64_t pmem_alignment(const struct pmem *pm)
{
	return const_device_of(pm)->alignment;
}

const char *pmem_warning(const struct pmem *pm)
{
	return const_device_of(pm)->warning;
}

bool pmem_has_deep_flush(const struct pmem *pm)
{
	return const_device_of(pm)->has_deep_flush;
}

int pmem_deep_flush(struct pmem *pm)
{
	struct device *dev = device_of(pm);
	int ret;

	if (!dev->has_deep_flush)
		return 0;
	/* All of a region is flushed, whichever part of it is named. */
	ret = pmem2_deep_flush(dev->map, dev->rw, dev->alignment);
	return ret ? from_pmem2(ret) : 0;
}

unsigned int pmem_known_bad(const struct pmem *pm, const uint64_t **ret_block)
{
	const struct device *dev = const_device_of(pm);

	*ret_block = dev->known;
	return dev->nr_known;
}

const char *pmem_granularity_name(enum pmem_granularity g)
{
	switch (g) {
	case PMEM_BYTE:
		return "byte";
	case PMEM_CACHE_LINE:
		return "cacheline";
	case PMEM_PAGE:
		return "page";
	case PMEM_GRANULARITY_AUTO:
		break;
	}
	return "auto";
}

void pmem_check(const struct pmem *pm, uint64_t off, uint64_t len)
{
	const struct device *dev = const_device_of(pm);
	uint64_t page = off & ~(dev->alignment - 1);

	if (is_known_bad(dev, off, len)) {
		fault_pending = 1;
		return;
	}
	for (; page < off + len; page += dev->alignment)
		if (is_bad(dev, page)) {
			fault_pending = 1;
			return;
		}
}

/*
 * A store to a lost page stays in DRAM, and a copy from it is zeros: mark the
 * thread.  Asked afterwards, because another thread may have lost the page a
 * moment before.
 */
static void check_lost(struct pmem *pm, uint64_t off, uint64_t len)
{
	if (__builtin_expect(atomic_load_explicit(&pm->nr_bad,
						  memory_order_relaxed) != 0,
			     0))
		pmem_check(pm, off, len);
}

static void assert_inside(const struct pmem *pm, uint64_t off, uint64_t len)
{
	assert(off <= pm->size && len <= pm->size - off);
}

static void record(struct device *dev, enum pmem_event event, uint64_t off,
		   size_t len)
{
	if (__builtin_expect(dev->rec.event != NULL, 0))
		dev->rec.event(dev->rec.ctx, event, off, dev->rw + off, len);
}

/*
 * Give a window of a private devdax device its copy.  It is made elsewhere and
 * moved into place, so that others read the old bytes until then.
 */
static void copy_window(struct device *dev, uint64_t window)
{
	size_t len = dev->alignment;
	unsigned char *at = dev->rw + window * len;
	void *p = MAP_FAILED;

	mutex_lock(&dev->copy_lock);
	if (!__atomic_load_n(&dev->copied[window], __ATOMIC_RELAXED)) {
		p = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p != MAP_FAILED) {
			memcpy(p, at, len);
			p = mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
				   at);
		}
		if (p == MAP_FAILED) /* no memory: cannot be told anybody */
			abort();
		__atomic_store_n(&dev->copied[window], 1, __ATOMIC_RELEASE);
	}
	mutex_unlock(&dev->copy_lock);
}

static void before_store(struct device *dev, uint64_t off, size_t len)
{
	if (__builtin_expect(!dev->copied, 1))
		return;
	for (uint64_t w = off / dev->alignment;
	     w <= (off + len - 1) / dev->alignment; w++)
		if (!__atomic_load_n(&dev->copied[w], __ATOMIC_ACQUIRE))
			copy_window(dev, w);
}

static void note_unsynced(const struct device *dev, uint64_t off, size_t len)
{
	uint64_t start = off & ~BLOCK_MASK;
	uint64_t end = (off + len + BLOCK_MASK) & ~BLOCK_MASK;

	if (unsynced[dev->slot].serial != dev->serial) {
		unsynced[dev->slot].serial = dev->serial;
		unsynced[dev->slot].start = start;
		unsynced[dev->slot].end = end;
		return;
	}
	if (start < unsynced[dev->slot].start)
		unsynced[dev->slot].start = start;
	if (end > unsynced[dev->slot].end)
		unsynced[dev->slot].end = end;
}

static void sync_pages(struct device *dev)
{
	uint64_t start = unsynced[dev->slot].start;
	uint64_t end = unsynced[dev->slot].end;

	if (unsynced[dev->slot].serial == dev->serial) {
		unsynced[dev->slot].serial = 0;
		if (msync(dev->rw + start, end - start, MS_SYNC) != 0) {
			int none = 0;

			atomic_compare_exchange_strong(&dev->sync_error, &none,
						       -errno);
		}
	}
	if (atomic_load(&dev->sync_error))
		fault_pending = 1;
}

void pmem_store64(struct pmem *pm, uint64_t off, uint64_t value)
{
	struct device *dev = device_of(pm);
	le64 *p = (le64 *)(dev->rw + off);

	assert(off % sizeof(*p) == 0);
	assert_inside(pm, off, sizeof(*p));
	before_store(dev, off, sizeof(*p));
	__atomic_store_n(&p->raw, htole64(value), __ATOMIC_RELEASE);
	check_lost(pm, off, sizeof(*p));
	record(dev, PMEM_EVENT_STORE, off, sizeof(*p));
}

static unsigned int copy_flags(size_t len)
{
	return PMEM2_F_MEM_NODRAIN |
	       (len >= NT_THRESHOLD ? PMEM2_F_MEM_NONTEMPORAL
				    : PMEM2_F_MEM_TEMPORAL);
}

void pmem_write(struct pmem *pm, uint64_t off, const void *src, size_t len)
{
	struct device *dev = device_of(pm);

	if (len == 0)
		return;
	assert_inside(pm, off, len);
	before_store(dev, off, len);
	if (dev->granularity == PMEM_PAGE) {
		memcpy(dev->rw + off, src, len);
		note_unsynced(dev, off, len);
	} else {
		dev->memcpy_fn(dev->rw + off, src, len, copy_flags(len));
	}
	check_lost(pm, off, len);
	record(dev, PMEM_EVENT_STORE, off, len);
	record(dev, PMEM_EVENT_FLUSH, off, len);
}

void pmem_zero(struct pmem *pm, uint64_t off, size_t len)
{
	struct device *dev = device_of(pm);

	if (len == 0)
		return;
	assert_inside(pm, off, len);
	before_store(dev, off, len);
	if (dev->granularity == PMEM_PAGE) {
		memset(dev->rw + off, 0, len);
		note_unsynced(dev, off, len);
	} else {
		dev->memset_fn(dev->rw + off, 0, len, copy_flags(len));
	}
	check_lost(pm, off, len);
	record(dev, PMEM_EVENT_STORE, off, len);
	record(dev, PMEM_EVENT_FLUSH, off, len);
}

void pmem_copy(struct pmem *pm, uint64_t off, uint64_t src_off, size_t len)
{
	assert_inside(pm, src_off, len);
	pmem_write(pm, off, pm->base + src_off, len);
	check_lost(pm, src_off, len);
}

void pmem_flush(struct pmem *pm, uint64_t off, size_t len)
{
	struct device *dev = device_of(pm);

	if (len == 0)
		return;
	assert_inside(pm, off, len);
	if (dev->granularity == PMEM_PAGE)
		note_unsynced(dev, off, len);
	else
		dev->flush_fn(dev->rw + off, len);
	record(dev, PMEM_EVENT_FLUSH, off, len);
}

void pmem_fence(struct pmem *pm)
{
	struct device *dev = device_of(pm);

	if (dev->granularity == PMEM_PAGE)
		sync_pages(dev);
	else
		dev->drain_fn();
	atomic_fetch_add_explicit(&dev->nr_fences, 1, memory_order_relaxed);
	record(dev, PMEM_EVENT_FENCE, 0, 0);
}

uint64_t pmem_nr_fences(const struct pmem *pm)
{
	return atomic_load_explicit(&const_device_of(pm)->nr_fences,
				    memory_order_relaxed);
}

int pmem_sync_error(const struct pmem *pm)
{
	return atomic_load(&const_device_of(pm)->sync_error);
}

void pmem_fault_begin(void)
{
	fault_pending = 0;
	nr_lost_begin = atomic_load(&nr_lost);
}

bool pmem_fault_end(void)
{
	return pmem_fault_take() || atomic_load(&nr_lost) != nr_lost_begin;
}

bool pmem_fault_pending(void)
{
	return fault_pending != 0;
}

bool pmem_fault_take(void)
{
	bool ret = fault_pending != 0;

	fault_pending = 0;
	return ret;
}

void pmem_fault_note(void)
{
	fault_pending = 1;
}

void pmem_touch(const void *p, size_t len)
{
	const volatile unsigned char *byte = (const volatile unsigned char *)p;

	for (size_t i = 0; i < len; i += BLOCK_SIZE)
		(void)byte[i];
	if (len)
		(void)byte[len - 1];
}

unsigned int pmem_bad_ranges(const struct pmem *pm, struct pmem_range *ret,
			     unsigned int nr)
{
	const struct device *dev = const_device_of(pm);
	unsigned int nr_bad = atomic_load(&pm->nr_bad);

	for (unsigned int i = 0; i < nr && i < nr_bad; i++) {
		unsigned int lost = i - dev->nr_known;

		if (i < dev->nr_known)
			ret[i] = (struct pmem_range){
				.off = dev->known[i] << BLOCK_SHIFT,
				.len = BLOCK_SIZE,
			};
		else if (lost < NR_BAD)
			ret[i] = (struct pmem_range){
				.off = atomic_load(&dev->bad[lost]) - 1,
				.len = dev->alignment,
			};
	}
	return nr_bad;
}

void pmem_record(struct pmem *pm, const struct pmem_recorder *rec)
{
	struct device *dev = device_of(pm);

	dev->rec = rec ? *rec : (struct pmem_recorder){ NULL, NULL };
}

uint32_t pmem_crc32c(const void *data, size_t len)
{
	/* ISA-L takes a plain pointer but only reads. */
	union {
		const void *in;
		unsigned char *out;
	} p = { .in = data };

	return ~crc32_iscsi(p.out, (int)len, 0xffffffffu);
}
