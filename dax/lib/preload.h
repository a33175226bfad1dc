/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/preload.h - direct mapping for programs that know nothing of it
 *
 * libfoliofs-preload.so stands between a program and libc.  The program's
 * descriptors stay what they are: a call that is not served here goes to the
 * kernel with the same arguments, and so does one that was begun and turned
 * out not to be possible.  What is known of a descriptor is in a table by its
 * number, and forgotten when it is closed.
 *
 * Inside this library libc's own functions are called by the names below: the
 * linker (--wrap) turns every call of close() in it, that of libfoliofs's
 * objects too, into __wrap_close(), so that none comes back here.
 *
 * Errors.    As libc: -1 and errno.
 * Locking.   The table is read without a lock.  A struct pfile is never freed,
 *            only used again: who reads while another thread closes gets what
 *            such a program deserves, but no crash.
 * Source.    ld.so(8), dlsym(3).
 */
#ifndef DAX_LIB_PRELOAD_H
#define DAX_LIB_PRELOAD_H

#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "dax/lib/client.h"
#include "dax/lib/pager.h"

#define PRELOAD __attribute__((visibility("default")))

/* All of a file, mapped for read and write calls. */
struct window {
	unsigned char *base;
	uint64_t len;
	struct window *older; /* too short, but somebody may be in it */
};

/* An open file of a foliofs, by inode and mode. */
struct pfile {
	dev_t dev;
	ino_t ino;
	bool writable;
	bool set_id; /* a write has to clear a mode bit: not here */
	bool page_sync;
	unsigned int refs; /* slots of the table */
	struct foliofs_file *file;
	int keep; /* O_PATH, for a child; -1 */
	_Atomic(struct window *) window;
	struct pfile *next;
};

/* The modes of a descriptor. */
#define SLOT_READ   1u
#define SLOT_WRITE  2u
#define SLOT_APPEND 4u /* or anything else that the kernel must see */

/* NULL when it is not to be served; then nothing is said about errno. */
struct pfile *preload_look(int fd, bool at_once, unsigned int *ret_mode);
void preload_forget(int fd);

enum preload_count {
	COUNT_READ,
	COUNT_WRITE,
	COUNT_FSYNC,
	COUNT_MMAP,
	COUNT_MSYNC,
	COUNT_CLONE,
	COUNT_PASSED, /* not possible here, after all */
	NR_COUNTS,
};
void preload_count(enum preload_count what, uint64_t bytes);

/* The window of a file, with at least @len bytes; NULL. */
struct window *preload_window(struct pfile *p, uint64_t len);

/* Something was mapped by the kernel that is not ours to sync. */
extern _Atomic(bool) preload_kernel_maps;

/* The program maps it: a child will have to. */
void preload_keep(struct pfile *p, int fd);

/* Unmap what is ours of a range that gets something else. */
void preload_clear(void *addr, size_t len);

/* libc's.  The 64 ones are what _FILE_OFFSET_BITS makes of the plain. */
int __wrap_close(int fd);
int __wrap_fclose(FILE *f);
FILE *__wrap_freopen64(const char *path, const char *mode, FILE *f);
int __wrap_dup2(int from, int to);
int __wrap_dup3(int from, int to, int flags);
int __wrap_fcntl64(int fd, int cmd, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
ssize_t __wrap_read(int fd, void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t pos);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t pos);
ssize_t __wrap_readv(int fd, const struct iovec *iov, int nr);
ssize_t __wrap_writev(int fd, const struct iovec *iov, int nr);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int nr, off_t pos);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int nr, off_t pos);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd,
		    off_t pos);
int __wrap_munmap(void *addr, size_t len);
void *__wrap_mremap(void *addr, size_t len, size_t new_len, int flags, ...);
int __wrap_mprotect(void *addr, size_t len, int prot);
int __wrap_msync(void *addr, size_t len, int flags);
int __wrap_madvise(void *addr, size_t len, int advice);
int __wrap_sigaction(int sig, const struct sigaction *act,
		     struct sigaction *old);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);

#endif
