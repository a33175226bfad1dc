/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/preload_real.c - libc's own functions
 *
 * Each is looked up when it is first called: other libraries' constructors
 * call before ours has run.
 */
#include "dax/lib/preload.h"

#include <dlfcn.h>
#include <stdlib.h>

static void *look_up(const char *name, _Atomic(void *) *cache)
{
	void *fn = dlsym(RTLD_NEXT, name);

	if (!fn)
		abort();
	atomic_store_explicit(cache, fn, memory_order_release);
	return fn;
}

/* A function of @name with these arguments, for the name that is wrapped. */
#define REAL(ret, name, args, ...)                                            \
	ret __wrap_##name args                                                \
	{                                                                     \
		static _Atomic(void *) cache;                                 \
		ret(*fn) args;                                                \
		void *p = atomic_load_explicit(&cache, memory_order_acquire); \
                                                                              \
		if (!p)                                                       \
			p = look_up(#name, &cache);                           \
		*(void **)&fn = p;                                            \
		return fn(__VA_ARGS__);                                       \
	}

REAL(int, close, (int fd), fd)
REAL(int, fclose, (FILE * f), f)
REAL(FILE *, freopen64, (const char *path, const char *mode, FILE *f), path,
     mode, f)
REAL(int, dup2, (int from, int to), from, to)
REAL(int, dup3, (int from, int to, int flags), from, to, flags)
REAL(ssize_t, read, (int fd, void *buf, size_t len), fd, buf, len)
REAL(ssize_t, write, (int fd, const void *buf, size_t len), fd, buf, len)
REAL(ssize_t, pread64, (int fd, void *buf, size_t len, off_t pos), fd, buf, len,
     pos)
REAL(ssize_t, pwrite64, (int fd, const void *buf, size_t len, off_t pos), fd,
     buf, len, pos)
REAL(ssize_t, readv, (int fd, const struct iovec *iov, int nr), fd, iov, nr)
REAL(ssize_t, writev, (int fd, const struct iovec *iov, int nr), fd, iov, nr)
REAL(ssize_t, preadv64, (int fd, const struct iovec *iov, int nr, off_t pos),
     fd, iov, nr, pos)
REAL(ssize_t, pwritev64, (int fd, const struct iovec *iov, int nr, off_t pos),
     fd, iov, nr, pos)
REAL(int, fsync, (int fd), fd)
REAL(int, fdatasync, (int fd), fd)
REAL(void *, mmap64,
     (void *addr, size_t len, int prot, int flags, int fd, off_t pos), addr,
     len, prot, flags, fd, pos)
REAL(int, munmap, (void *addr, size_t len), addr, len)
REAL(int, mprotect, (void *addr, size_t len, int prot), addr, len, prot)
REAL(int, msync, (void *addr, size_t len, int flags), addr, len, flags)
REAL(int, madvise, (void *addr, size_t len, int advice), addr, len, advice)
REAL(int, sigaction,
     (int sig, const struct sigaction *act, struct sigaction *old), sig, act,
     old)
REAL(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *old), how,
     set, old)

/* One argument more than it says, which is a word or nothing. */
#define REAL_VARIADIC(ret, name, args, last, ...)                             \
	ret __wrap_##name args                                                \
	{                                                                     \
		static _Atomic(void *) cache;                                 \
		ret(*fn) args;                                                \
		void *p = atomic_load_explicit(&cache, memory_order_acquire); \
		va_list ap;                                                   \
		void *arg;                                                    \
                                                                              \
		va_start(ap, last);                                           \
		arg = va_arg(ap, void *);                                     \
		va_end(ap);                                                   \
		if (!p)                                                       \
			p = look_up(#name, &cache);                           \
		*(void **)&fn = p;                                            \
		return fn(__VA_ARGS__, arg);                                  \
	}

REAL_VARIADIC(int, fcntl64, (int fd, int cmd, ...), cmd, fd, cmd)
REAL_VARIADIC(int, ioctl, (int fd, unsigned long request, ...), request, fd,
	      request)
REAL_VARIADIC(void *, mremap,
	      (void *addr, size_t len, size_t new_len, int flags, ...), flags,
	      addr, len, new_len, flags)
