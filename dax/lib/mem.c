/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/mem.c - what the library does to the program's page tables
 *
 * There are two spare ranges for each protection.  The large one is moved over
 * what is zapped (MREMAP_DONTUNMAP leaves it where it was, still registered);
 * no page is ever put there, so that the kernel can merge what was moved with
 * its neighbours again.  The small one is filled with write-protected zero
 * pages before each move.
 */
#include "dax/lib/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dax/media.h"

#define SPARE_SIZE (UINT64_C(1) << 30)
#define ZERO_SIZE  CHUNK_SIZE
#define NR_PROT	   8 /* all of PROT_READ, PROT_WRITE, PROT_EXEC */
#define PROT_MASK  (NR_PROT - 1)
#define MOVE	   (MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)

/* Room for the program's own mappings below vm.max_map_count. */
#define KEEP_MAPS(max)	((max) / 16)
#define DEFAULT_MAPS	65530
#define MAPS_OF_ONE_MAP 2 /* that a change in the middle of one adds */

#define FEATURES (UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_PAGEFAULT_FLAG_WP)
#define MODES	 (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP)

/* One for the process; page tables are not anybody's else. */
static struct {
	int uffd;  /* 0: none yet */
	int empty; /* a file of no bytes */
	bool user_only;
	uintptr_t spare[NR_PROT];
	uintptr_t zero[NR_PROT];
	unsigned long max_maps;
	unsigned long nr_maps; /* at most so many now */
} mem;

/* Bits of descriptors from OWN_FIRST on. */
#define OWN_FIRST 16
#define OWN_WORDS 1024
static _Atomic(uint64_t) own_fds[OWN_WORDS];

static bool own_bit(int fd, uint64_t *ret_bit, size_t *ret_word)
{
	size_t i = (size_t)fd - OWN_FIRST;

	*ret_bit = UINT64_C(1) << i % 64;
	*ret_word = i / 64;
	return fd >= OWN_FIRST && i / 64 < OWN_WORDS;
}

bool mem_own_fd(int fd)
{
	uint64_t bit;
	size_t i;

	return own_bit(fd, &bit, &i) && atomic_load(&own_fds[i]) & bit;
}

int mem_high_fd(int fd)
{
	struct rlimit rl;
	rlim_t from = 512;
	uint64_t bit;
	size_t i;
	int high;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur / 2 < from)
		from = rl.rlim_cur / 2;
	high = fcntl(fd, F_DUPFD_CLOEXEC, (int)from);
	if (high >= 0) {
		close(fd);
		fd = high;
	}
	if (own_bit(fd, &bit, &i))
		atomic_fetch_or(&own_fds[i], bit);
	return fd;
}

void mem_close_fd(int fd)
{
	uint64_t bit;
	size_t i;

	if (own_bit(fd, &bit, &i))
		atomic_fetch_and(&own_fds[i], ~bit);
	close(fd);
}

/* A file of /proc, or a part of it, without malloc(). */
static unsigned long read_number(const char *path)
{
	char text[32];
	ssize_t len;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len <= 0)
		return 0;
	text[len] = '\0';
	return strtoul(text, NULL, 10);
}

static unsigned long count_maps(void)
{
	static char text[65536];
	unsigned long nr = 0;
	ssize_t len;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	while ((len = read(fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < len; i++)
			nr += text[i] == '\n';
	close(fd);
	return nr;
}

bool mem_crowded(void)
{
	unsigned long limit = mem.max_maps - KEEP_MAPS(mem.max_maps);

	if (mem.nr_maps < limit)
		return false;
	mem.nr_maps = count_maps();
	return mem.nr_maps >= limit;
}

/*
 * The kernel's mode lets system calls wait for a page as a load does.  It
 * needs a privilege or one of two settings; without them there is the other.
 */
static int open_uffd(bool *ret_user_only)
{
	int dev, fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	*ret_user_only = false;
	if (fd >= 0)
		return fd;
	if (errno == ENOSYS)
		return -ENOSYS;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev >= 0) {
		fd = ioctl(dev, _IO(0xAA, 0x00), O_CLOEXEC);
		close(dev);
		if (fd >= 0)
			return fd;
	}
	*ret_user_only = true;
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	return fd >= 0 ? fd : -errno;
}

int mem_init(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURES };
	int fd;

	if (mem.uffd)
		return 0;
	mem.max_maps = read_number("/proc/sys/vm/max_map_count");
	if (mem.max_maps == 0)
		mem.max_maps = DEFAULT_MAPS;
	mem.nr_maps = count_maps();
	fd = open_uffd(&mem.user_only);
	if (fd < 0)
		return fd;
	fd = mem_high_fd(fd);
	if (ioctl(fd, UFFDIO_API, &api)) {
		mem_close_fd(fd);
		return -ENOSYS;
	}
	mem.empty = memfd_create("foliofs: past the end", MFD_CLOEXEC);
	if (mem.empty < 0) {
		mem_close_fd(fd);
		return -EMFILE;
	}
	mem.empty = mem_high_fd(mem.empty);
	mem.uffd = fd;
	return 0;
}

void mem_forget(void)
{
	if (mem.uffd) {
		mem_close_fd(mem.uffd);
		mem_close_fd(mem.empty);
	}
	mem.uffd = 0;
	for (int i = 0; i < NR_PROT; i++)
		mem.spare[i] = mem.zero[i] = 0;
}

int mem_uffd(void)
{
	return mem.uffd;
}

bool mem_user_only(void)
{
	return mem.user_only;
}

static int set_up(uintptr_t addr, size_t len)
{
	struct uffdio_register reg = {
		.range = { .start = addr, .len = len },
		.mode = MODES,
	};

	if (madvise((void *)addr, len, MADV_DONTFORK))
		return -errno;
	return ioctl(mem.uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

/* Addresses that equal @like modulo CHUNK_SIZE: take more, give back ends. */
static int find_room(uintptr_t like, size_t len, int prot, uintptr_t *ret_addr)
{
	size_t room = len + CHUNK_SIZE;
	uintptr_t addr, end;
	void *p;

	if (room < len)
		return -ENOMEM;
	p = mmap(NULL, room, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	addr = (uintptr_t)p + ((like - (uintptr_t)p) & (CHUNK_SIZE - 1));
	end = (uintptr_t)p + room;
	if (addr > (uintptr_t)p)
		munmap(p, addr - (uintptr_t)p);
	if (end > addr + len)
		munmap((void *)(addr + len), end - addr - len);
	*ret_addr = addr;
	return 0;
}

int mem_reserve(uintptr_t like, bool fixed, size_t len, int prot,
		uintptr_t *ret_addr)
{
	uintptr_t addr = like;
	int ret = 0;

	if (!fixed)
		ret = find_room(like, len, prot, &addr);
	else if (mmap((void *)addr, len, prot,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
		      -1, 0) == MAP_FAILED)
		ret = -errno;
	if (ret)
		return ret;
	mem.nr_maps += MAPS_OF_ONE_MAP;
	ret = set_up(addr, len);
	if (ret) {
		munmap((void *)addr, len);
		return ret;
	}
	*ret_addr = addr;
	return 0;
}

static int get_spare(uintptr_t *spare, size_t len, int prot)
{
	if (*spare)
		return 0;
	return mem_reserve(0, false, len, prot, spare);
}

static int move(uintptr_t from, uintptr_t to, size_t len)
{
	if (mremap((void *)from, len, len, MOVE, (void *)to) == MAP_FAILED)
		return -errno;
	mem.nr_maps += MAPS_OF_ONE_MAP;
	return 0;
}

int mem_zap(uintptr_t addr, size_t len, int prot)
{
	uintptr_t *spare = &mem.spare[prot & PROT_MASK];
	int ret = get_spare(spare, SPARE_SIZE, prot);

	while (ret == 0 && len > 0) {
		size_t part = len < SPARE_SIZE ? len : SPARE_SIZE;

		ret = move(*spare, addr, part);
		addr += part;
		len -= part;
	}
	return ret;
}

/*
 * Over pages that threads use, and without libc: who stands between (a
 * sanitizer, say) takes a change of the mapping for a store to the memory.
 */
static int map_over(uintptr_t addr, size_t len, int prot, int fd, uint64_t off)
{
	long ret = syscall(SYS_mmap, addr, len, prot, MAP_SHARED | MAP_FIXED,
			   fd, off);

	return ret == -1 ? -errno : 0;
}

int mem_media(uintptr_t addr, size_t len, int prot, int fd, uint64_t off)
{
	int ret = map_over(addr, len, prot, fd, off);

	if (ret)
		return ret;
	mem.nr_maps += MAPS_OF_ONE_MAP;
	return madvise((void *)addr, len, MADV_DONTFORK) ? -errno : 0;
}

static int zero_part(uintptr_t zero, uintptr_t addr, size_t len)
{
	struct uffdio_zeropage fill = {
		.range = { .start = zero, .len = len },
		.mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE,
	};
	struct uffdio_writeprotect protect = {
		.range = { .start = zero, .len = len },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int ret = 0;

	if (ioctl(mem.uffd, UFFDIO_ZEROPAGE, &fill) ||
	    ioctl(mem.uffd, UFFDIO_WRITEPROTECT, &protect))
		ret = -errno;
	if (ret == 0)
		ret = move(zero, addr, len);
	if (ret)
		madvise((void *)zero, len, MADV_DONTNEED);
	return ret;
}

int mem_zero(uintptr_t addr, size_t len, int prot)
{
	uintptr_t *zero = &mem.zero[prot & PROT_MASK];
	int ret = get_spare(zero, ZERO_SIZE, prot);

	while (ret == 0 && len > 0) {
		size_t part = len < ZERO_SIZE ? len : ZERO_SIZE;

		ret = zero_part(*zero, addr, part);
		addr += part;
		len -= part;
	}
	return ret;
}

int mem_bus(uintptr_t addr, size_t len)
{
	return mem_media(addr, len, PROT_READ | PROT_WRITE, mem.empty, 0);
}

void mem_wake(uintptr_t addr, size_t len)
{
	struct uffdio_range range = { .start = addr, .len = len };

	(void)ioctl(mem.uffd, UFFDIO_WAKE, &range);
}

void mem_release(uintptr_t addr, size_t len)
{
	munmap((void *)addr, len);
	mem_wake(addr, len);
}
