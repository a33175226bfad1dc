/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/preload_map.c - mappings, clones, and what a close forgets
 */
#include "dax/lib/preload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dax/lib/mem.h"
#include "dax/lib/trap.h"

/* linux/fs.h has a BLOCK_SIZE of its own, which nobody means any more. */
#pragma push_macro("BLOCK_SIZE")
#undef BLOCK_SIZE
#include <linux/fs.h>
#undef BLOCK_SIZE
#pragma pop_macro("BLOCK_SIZE")

/* -1 and errno of a negative errno. */
static int fail(int ret)
{
	if (ret >= 0)
		return ret;
	errno = -ret;
	return -1;
}

static uintptr_t page_end(const void *addr, size_t len)
{
	return ((uintptr_t)addr + len + BLOCK_MASK) & ~BLOCK_MASK;
}

static bool ours(const void *addr, size_t len)
{
	return len && pager_overlaps((uintptr_t)addr, page_end(addr, len));
}

void preload_clear(void *addr, size_t len)
{
	if (ours(addr, len))
		(void)pager_unmap((uintptr_t)addr, page_end(addr, len));
}

/*
 * Call @fn for the parts of a range that are not views.  @view has been done
 * for those that are.
 */
static int both(void *addr, size_t len,
		int (*view)(uintptr_t start, uintptr_t end, int arg),
		int (*rest)(void *addr, size_t len, int arg), int arg)
{
	uintptr_t at = (uintptr_t)addr, end = page_end(addr, len);
	int ret = 0;

	while (ret == 0 && at < end) {
		struct pager_part part = { .start = end, .end = end };

		if (pager_part(at, end, &part) == 0)
			link_put(part.link);
		if (part.start > at)
			ret = rest((void *)at, part.start - at, arg);
		if (ret == 0 && part.start < part.end)
			ret = fail(view(part.start, part.end, arg));
		at = part.end;
	}
	return ret;
}

_Atomic(bool) preload_kernel_maps;

static void *map_ours(struct pfile *p, int fd, void *addr, size_t len, int prot,
		      int flags, off_t pos)
{
	unsigned int how = 0;
	int ret;

	if (flags & MAP_POPULATE)
		how |= FOLIOFS_MAP_POPULATE;
	if ((flags & MAP_TYPE) == MAP_SHARED_VALIDATE && flags & MAP_SYNC)
		how |= FOLIOFS_MAP_SYNC;
	if (flags & MAP_FIXED)
		how |= FOLIOFS_MAP_FIXED;
	preload_keep(p, fd);
	ret = foliofs_map(p->file, len, prot, how, pos, &addr);
	if (ret) {
		errno = -ret;
		return MAP_FAILED;
	}
	preload_count(COUNT_MMAP, len);
	return addr;
}

static bool is_shared(int flags)
{
	int type = flags & MAP_TYPE;

	return (type == MAP_SHARED || type == MAP_SHARED_VALIDATE) &&
	       !(flags & (MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_HUGETLB));
}

static void *do_mmap(void *addr, size_t len, int prot, int flags, int fd,
		     off_t pos)
{
	unsigned int mode;
	struct pfile *p = NULL;

	if (is_shared(flags))
		p = preload_look(fd, true, &mode);
	if (p && (p->writable || !(prot & PROT_WRITE))) {
		addr = map_ours(p, fd, addr, len, prot, flags, pos);
		if (addr != MAP_FAILED || errno != ENOTCONN)
			return addr;
	}
	if (flags & MAP_FIXED)
		preload_clear(addr, len);
	if (fd >= 0 && (flags & MAP_TYPE) != MAP_PRIVATE &&
	    preload_look(fd, false, &mode))
		atomic_store(&preload_kernel_maps, true);
	return __wrap_mmap64(addr, len, prot, flags, fd, pos);
}

PRELOAD void *preload_mmap(void *addr, size_t len, int prot, int flags, int fd,
			   off_t pos) __asm__("mmap");
PRELOAD void *preload_mmap(void *addr, size_t len, int prot, int flags, int fd,
			   off_t pos)
{
	return do_mmap(addr, len, prot, flags, fd, pos);
}

PRELOAD void *preload_mmap64(void *addr, size_t len, int prot, int flags,
			     int fd, off_t pos) __asm__("mmap64");
PRELOAD void *preload_mmap64(void *addr, size_t len, int prot, int flags,
			     int fd, off_t pos)
{
	return do_mmap(addr, len, prot, flags, fd, pos);
}

static int view_unmap(uintptr_t start, uintptr_t end, int arg)
{
	(void)arg;
	return pager_unmap(start, end);
}

static int rest_unmap(void *addr, size_t len, int arg)
{
	(void)arg;
	return __wrap_munmap(addr, len);
}

PRELOAD int munmap(void *addr, size_t len)
{
	if (!ours(addr, len))
		return __wrap_munmap(addr, len);
	return both(addr, len, view_unmap, rest_unmap, 0);
}

static int view_sync(uintptr_t start, uintptr_t end, int flags)
{
	(void)flags;
	preload_count(COUNT_MSYNC, end - start);
	return foliofs_sync((const void *)start, end - start);
}

PRELOAD int msync(void *addr, size_t len, int flags)
{
	if (!ours(addr, len))
		return __wrap_msync(addr, len, flags);
	return both(addr, len, view_sync, __wrap_msync, flags);
}

PRELOAD int mprotect(void *addr, size_t len, int prot)
{
	if (!ours(addr, len))
		return __wrap_mprotect(addr, len, prot);
	return both(addr, len, pager_protect, __wrap_mprotect, prot);
}

/*
 * Advice for the page tables must not reach what is mapped: it is the device's
 * file, and the child's page tables are not the program's to say.
 */
static int view_advise(uintptr_t start, uintptr_t end, int advice)
{
	if (advice == MADV_WILLNEED || advice == MADV_POPULATE_READ)
		return pager_populate(start, end, false);
	if (advice == MADV_POPULATE_WRITE)
		return pager_populate(start, end, true);
	return advice == MADV_REMOVE ? -EOPNOTSUPP : 0;
}

PRELOAD int madvise(void *addr, size_t len, int advice)
{
	if (!ours(addr, len))
		return __wrap_madvise(addr, len, advice);
	return both(addr, len, view_advise, __wrap_madvise, advice);
}

/* The same pages of the file elsewhere; what is stored is in the file. */
static void *move(const struct pager_part *part, void *to, size_t len,
		  bool fixed)
{
	int ret = foliofs_map(part->file, len, part->prot,
			      fixed ? FOLIOFS_MAP_FIXED : 0,
			      (off_t)(part->index << BLOCK_SHIFT), &to);

	if (ret == 0)
		ret = pager_unmap(part->start, part->end);
	if (ret) {
		errno = -ret;
		return MAP_FAILED;
	}
	return to;
}

static void *remap_ours(void *addr, size_t len, size_t new_len, int flags,
			void *to)
{
	uintptr_t start = (uintptr_t)addr, end = page_end(addr, len);
	size_t size = (new_len + BLOCK_MASK) & ~BLOCK_MASK;
	struct pager_part part;
	int ret = pager_part(start, end, &part);

	if (ret == 0)
		link_put(part.link);
	if (ret || part.start != start || part.end != end) {
		errno = EFAULT;
		return MAP_FAILED;
	}
	if (flags & MREMAP_FIXED)
		return move(&part, to, size, true);
	if (size <= end - start) {
		if (size < end - start)
			(void)pager_unmap(start + size, end);
		return addr;
	}
	if (flags & MREMAP_MAYMOVE && !(flags & ~MREMAP_MAYMOVE))
		return move(&part, NULL, size, false);
	errno = ENOMEM;
	return MAP_FAILED;
}

PRELOAD void *mremap(void *addr, size_t len, size_t new_len, int flags, ...)
{
	void *to;
	va_list ap;

	va_start(ap, flags);
	to = va_arg(ap, void *);
	va_end(ap);
	if (flags & MREMAP_FIXED && !ours(addr, len))
		preload_clear(to, new_len);
	if (!ours(addr, len))
		return __wrap_mremap(addr, len, new_len, flags, to);
	return remap_ours(addr, len, new_len, flags, to);
}

/*
 * Clones.
 */
static bool same_fs(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 &&
	       sa.st_dev == sb.st_dev;
}

/* False: it is the kernel's. */
static bool token_of(int fd, int dst, struct foliofs_ioc_token *token)
{
	int err = errno;
	bool ret = same_fs(fd, dst) &&
		   __wrap_ioctl(fd, FOLIOFS_IOC_TOKEN, token) == 0;

	errno = err;
	return ret;
}

static bool clone_all(int dst, int src, int *ret)
{
	struct foliofs_ioc_clone msg;
	struct foliofs_ioc_token token;

	if (!token_of(src, dst, &token))
		return false;
	memcpy(msg.token, token.token, sizeof(msg.token));
	*ret = __wrap_ioctl(dst, FOLIOFS_IOC_CLONE, &msg);
	preload_count(COUNT_CLONE, 0);
	return true;
}

static bool clone_range(int dst, const struct file_clone_range *range, int *ret)
{
	struct foliofs_ioc_clonerange msg = {
		.src_offset = range->src_offset,
		.src_length = range->src_length,
		.dest_offset = range->dest_offset,
	};
	struct foliofs_ioc_token token;

	if (!token_of((int)range->src_fd, dst, &token))
		return false;
	memcpy(msg.token, token.token, sizeof(msg.token));
	*ret = __wrap_ioctl(dst, FOLIOFS_IOC_CLONERANGE, &msg);
	preload_count(COUNT_CLONE, range->src_length);
	return true;
}

static void dedupe_one(int src, const struct file_dedupe_range *range,
		       struct file_dedupe_range_info *info)
{
	struct foliofs_ioc_deduperange msg = {
		.src_offset = range->src_offset,
		.src_length = range->src_length,
		.dest_offset = info->dest_offset,
	};
	struct foliofs_ioc_token token;

	info->bytes_deduped = 0;
	if (!token_of(src, (int)info->dest_fd, &token)) {
		info->status = -EXDEV;
		return;
	}
	memcpy(msg.token, token.token, sizeof(msg.token));
	if (__wrap_ioctl((int)info->dest_fd, FOLIOFS_IOC_DEDUPERANGE, &msg)) {
		info->status = -errno;
		return;
	}
	info->status = msg.status;
	info->bytes_deduped = msg.bytes_deduped;
	preload_count(COUNT_CLONE, msg.bytes_deduped);
}

static bool dedupe(int src, struct file_dedupe_range *range, int *ret)
{
	struct foliofs_ioc_token token;
	int err = errno;

	if (__wrap_ioctl(src, FOLIOFS_IOC_TOKEN, &token)) {
		errno = err;
		return false;
	}
	for (uint16_t i = 0; i < range->dest_count; i++)
		dedupe_one(src, range, &range->info[i]);
	errno = err;
	*ret = 0;
	return true;
}

PRELOAD int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;
	int ret;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == FICLONE && clone_all(fd, (int)(intptr_t)arg, &ret))
		return ret;
	if (request == FICLONERANGE && arg && clone_range(fd, arg, &ret))
		return ret;
	if (request == FIDEDUPERANGE && arg && dedupe(fd, arg, &ret))
		return ret;
	return __wrap_ioctl(fd, request, arg);
}

/*
 * Descriptors that end, or change.
 */
static int refuse(void)
{
	errno = EBADF;
	return -1;
}

PRELOAD int close(int fd)
{
	if (mem_own_fd(fd))
		return refuse();
	preload_forget(fd);
	return __wrap_close(fd);
}

PRELOAD int fclose(FILE *f)
{
	/* What it still has to write goes to the kernel. */
	preload_forget(fileno(f));
	return __wrap_fclose(f);
}

static FILE *do_freopen(const char *path, const char *mode, FILE *f)
{
	preload_forget(fileno(f));
	return __wrap_freopen64(path, mode, f);
}

PRELOAD FILE *preload_freopen(const char *path, const char *mode,
			      FILE *f) __asm__("freopen");
PRELOAD FILE *preload_freopen(const char *path, const char *mode, FILE *f)
{
	return do_freopen(path, mode, f);
}

PRELOAD FILE *preload_freopen64(const char *path, const char *mode,
				FILE *f) __asm__("freopen64");
PRELOAD FILE *preload_freopen64(const char *path, const char *mode, FILE *f)
{
	return do_freopen(path, mode, f);
}

PRELOAD int dup2(int from, int to)
{
	if (mem_own_fd(from) || mem_own_fd(to))
		return refuse();
	if (from != to)
		preload_forget(to);
	return __wrap_dup2(from, to);
}

PRELOAD int dup3(int from, int to, int flags)
{
	if (mem_own_fd(from) || mem_own_fd(to))
		return refuse();
	preload_forget(to);
	return __wrap_dup3(from, to, flags);
}

static int do_fcntl(int fd, int cmd, void *arg)
{
	if (cmd == F_SETFL)
		preload_forget(fd);
	return __wrap_fcntl64(fd, cmd, arg);
}

PRELOAD int preload_fcntl(int fd, int cmd, ...) __asm__("fcntl");
PRELOAD int preload_fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return do_fcntl(fd, cmd, arg);
}

PRELOAD int preload_fcntl64(int fd, int cmd, ...) __asm__("fcntl64");
PRELOAD int preload_fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return do_fcntl(fd, cmd, arg);
}

/* Around what is the library's. */
PRELOAD int close_range(unsigned int first, unsigned int last, int flags)
{
	unsigned int limit = (unsigned int)sysconf(_SC_OPEN_MAX);
	unsigned int fd = first;
	int ret = 0;

	for (unsigned int i = first; i <= last && i < limit; i++) {
		if (!mem_own_fd((int)i)) {
			if (!(flags & (int)CLOSE_RANGE_CLOEXEC))
				preload_forget((int)i);
			continue;
		}
		if (i > fd)
			ret |= (int)syscall(436, fd, i - 1, flags);
		fd = i + 1;
	}
	if (fd <= last)
		ret |= (int)syscall(436, fd, last, flags);
	return ret;
}

PRELOAD void closefrom(int fd)
{
	(void)close_range(fd < 0 ? 0 : (unsigned int)fd, UINT_MAX, 0);
}

/*
 * Signals that the library needs: the program sees its own handlers, and does
 * not block what a store may raise.
 */
static bool library_has(int sig)
{
	return (sig == SIGSEGV || sig == SIGBUS) && trap_installed();
}

PRELOAD int sigaction(int sig, const struct sigaction *act,
		      struct sigaction *old)
{
	if (!library_has(sig))
		return __wrap_sigaction(sig, act, old);
	trap_swap(sig, act, old);
	return 0;
}

PRELOAD sighandler_t signal(int sig, sighandler_t handler)
{
	struct sigaction act = { .sa_handler = handler,
				 .sa_flags = SA_RESTART };
	struct sigaction old;

	sigemptyset(&act.sa_mask);
	if (sigaction(sig, &act, &old))
		return SIG_ERR;
	return old.sa_handler;
}

static int do_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t less;

	if (set && how != SIG_UNBLOCK && trap_installed()) {
		less = *set;
		sigdelset(&less, SIGSEGV);
		sigdelset(&less, SIGBUS);
		set = &less;
	}
	return __wrap_pthread_sigmask(how, set, old);
}

PRELOAD int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return do_sigmask(how, set, old);
}

PRELOAD int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	int ret = do_sigmask(how, set, old);

	if (ret == 0)
		return 0;
	errno = ret;
	return -1;
}
