/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/preload_io.c - read and write calls as copies
 *
 * A call is served when it is on bytes that the file has: what makes it longer
 * is the kernel's.  The offset of a descriptor stays in the kernel: lseek(2)
 * takes a piece of the file for this call in one step, so that threads and
 * processes that share the descriptor each get their own.
 *
 * A copy that meets SIGBUS (the file became shorter, no space, a bad buffer)
 * did not happen, and the kernel is asked.
 */
#include "dax/lib/preload.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dax/lib/flush.h"
#include "dax/lib/mem.h"
#include "dax/lib/trap.h"
#include "dax/proto.h"

#define NOT_SERVED (-1)

static bool file_size(const struct pfile *p, int fd, uint64_t *ret_size)
{
	const struct session_mailbox *mail = client_mail(p->file);
	struct stat st;

	if (!mail)
		return false;
	if (atomic_load_explicit(&mail->flags, memory_order_acquire) &
	    SESSION_MAIL_SIZE) {
		*ret_size =
			atomic_load_explicit(&mail->size, memory_order_acquire);
		return true;
	}
	if (fstat(fd, &st))
		return false;
	*ret_size = (uint64_t)st.st_size;
	return true;
}

/* Has nobody cut it meanwhile, as far as can be seen without a call? */
static bool still_there(const struct pfile *p, uint64_t end)
{
	const struct session_mailbox *mail = client_mail(p->file);

	return mail &&
	       (!(atomic_load_explicit(&mail->flags, memory_order_acquire) &
		  SESSION_MAIL_SIZE) ||
		atomic_load_explicit(&mail->size, memory_order_acquire) >= end);
}

static bool guarded_copy(void *dst, const void *src, size_t len, bool to_media)
{
	sigjmp_buf *volatile before = trap_guard;
	sigjmp_buf jump;

	if (sigsetjmp(jump, 0)) {
		trap_guard = before;
		return false;
	}
	trap_guard = &jump;
	atomic_signal_fence(memory_order_seq_cst);
	if (to_media)
		flush_copy(dst, src, len);
	else
		memcpy(dst, src, len);
	atomic_signal_fence(memory_order_seq_cst);
	trap_guard = before;
	return true;
}

static unsigned char *place(struct pfile *p, uint64_t pos, uint64_t len)
{
	struct window *w =
		atomic_load_explicit(&p->window, memory_order_acquire);

	if (!w || w->len < pos + len)
		w = preload_window(p, pos + len);
	return w ? w->base + pos : NULL;
}

static ssize_t copy_out(struct pfile *p, int fd, const struct iovec *iov,
			int nr, off_t pos)
{
	uint64_t size, at = (uint64_t)pos;
	size_t done = 0;

	if (pos < 0 || !file_size(p, fd, &size))
		return NOT_SERVED;
	for (int i = 0; i < nr && at < size; i++) {
		size_t len = iov[i].iov_len;
		unsigned char *from;

		if (len > size - at)
			len = size - at;
		from = place(p, at, len);
		if (!from || !guarded_copy(iov[i].iov_base, from, len, false))
			return NOT_SERVED;
		done += len;
		at += len;
	}
	/* Of what is behind the end now, the kernel says what it is. */
	if (!still_there(p, at))
		return NOT_SERVED;
	preload_count(COUNT_READ, done);
	return (ssize_t)done;
}

static size_t total(const struct iovec *iov, int nr)
{
	size_t sum = 0;

	for (int i = 0; i < nr; i++) {
		if (iov[i].iov_len > INT_MAX - sum)
			return 0; /* the kernel cuts such a call */
		sum += iov[i].iov_len;
	}
	return sum;
}

/* Only over bytes that there are. */
static ssize_t copy_in(struct pfile *p, int fd, const struct iovec *iov, int nr,
		       off_t pos)
{
	struct session_mailbox *mail = client_mail(p->file);
	uint64_t size, at = (uint64_t)pos, len = total(iov, nr);

	if (!mail || pos < 0 || p->set_id || p->page_sync ||
	    !file_size(p, fd, &size) || len > size || at > size - len)
		return NOT_SERVED;
	for (int i = 0; i < nr; i++) {
		unsigned char *to = place(p, at, iov[i].iov_len);

		if (!to ||
		    !guarded_copy(to, iov[i].iov_base, iov[i].iov_len, true))
			return NOT_SERVED;
		at += iov[i].iov_len;
	}
	/* Others see the bytes before they see that there was a write. */
	flush_fence();
	atomic_fetch_add(&mail->nr_stores, 1);
	preload_count(COUNT_WRITE, len);
	return (ssize_t)len;
}

static bool can_read(unsigned int mode)
{
	return mode & SLOT_READ;
}

static bool can_write(const struct pfile *p, unsigned int mode)
{
	return p->writable && mode & SLOT_WRITE && !(mode & SLOT_APPEND);
}

/*
 * A system call that stores to a page which can only be loaded from: EFAULT.
 * Have such pages ask again, with the kernel's own touch.
 */
static bool try_again(ssize_t ret, const struct iovec *iov, int nr)
{
	bool again = false;

	if (ret >= 0 || errno != EFAULT)
		return false;
	for (int i = 0; i < nr; i++) {
		uintptr_t start = (uintptr_t)iov[i].iov_base & ~BLOCK_MASK;
		uintptr_t end = (uintptr_t)iov[i].iov_base + iov[i].iov_len;

		end = (end + BLOCK_MASK) & ~BLOCK_MASK;
		if (end > start && pager_overlaps(start, end)) {
			pager_refault(start, end);
			again = true;
		}
	}
	return again;
}

static ssize_t kernel_readv(int fd, const struct iovec *iov, int nr)
{
	ssize_t ret = nr == 1 ? __wrap_read(fd, iov->iov_base, iov->iov_len)
			      : __wrap_readv(fd, iov, nr);

	if (!try_again(ret, iov, nr))
		return ret;
	return nr == 1 ? __wrap_read(fd, iov->iov_base, iov->iov_len)
		       : __wrap_readv(fd, iov, nr);
}

static ssize_t kernel_preadv(int fd, const struct iovec *iov, int nr, off_t pos)
{
	ssize_t ret =
		nr == 1 ? __wrap_pread64(fd, iov->iov_base, iov->iov_len, pos)
			: __wrap_preadv64(fd, iov, nr, pos);

	if (!try_again(ret, iov, nr))
		return ret;
	return nr == 1 ? __wrap_pread64(fd, iov->iov_base, iov->iov_len, pos)
		       : __wrap_preadv64(fd, iov, nr, pos);
}

static ssize_t kernel_writev(int fd, const struct iovec *iov, int nr)
{
	return nr == 1 ? __wrap_write(fd, iov->iov_base, iov->iov_len)
		       : __wrap_writev(fd, iov, nr);
}

static ssize_t kernel_pwritev(int fd, const struct iovec *iov, int nr,
			      off_t pos)
{
	return nr == 1 ? __wrap_pwrite64(fd, iov->iov_base, iov->iov_len, pos)
		       : __wrap_pwritev64(fd, iov, nr, pos);
}

static ssize_t do_preadv(int fd, const struct iovec *iov, int nr, off_t pos)
{
	unsigned int mode;
	struct pfile *p = preload_look(fd, false, &mode);
	ssize_t ret;

	if (p && can_read(mode)) {
		ret = copy_out(p, fd, iov, nr, pos);
		if (ret != NOT_SERVED)
			return ret;
		preload_count(COUNT_PASSED, 0);
	}
	return kernel_preadv(fd, iov, nr, pos);
}

static ssize_t do_pwritev(int fd, const struct iovec *iov, int nr, off_t pos)
{
	unsigned int mode;
	struct pfile *p = preload_look(fd, false, &mode);
	ssize_t ret;

	if (p && can_write(p, mode)) {
		ret = copy_in(p, fd, iov, nr, pos);
		if (ret != NOT_SERVED)
			return ret;
		preload_count(COUNT_PASSED, 0);
	}
	return kernel_pwritev(fd, iov, nr, pos);
}

/* Put back what was taken of the offset and not used. */
static void put_back(int fd, size_t len, ssize_t used)
{
	int err = errno;
	off_t rest = (off_t)len - (used > 0 ? used : 0);

	if (rest)
		(void)lseek(fd, -rest, SEEK_CUR);
	errno = err;
}

static ssize_t do_readv(int fd, const struct iovec *iov, int nr)
{
	unsigned int mode;
	struct pfile *p = preload_look(fd, false, &mode);
	size_t len = p ? total(iov, nr) : 0;
	ssize_t ret;
	off_t end;

	if (!p || !can_read(mode) || len == 0)
		return kernel_readv(fd, iov, nr);
	end = lseek(fd, (off_t)len, SEEK_CUR);
	if (end < 0)
		return kernel_readv(fd, iov, nr);
	ret = copy_out(p, fd, iov, nr, end - (off_t)len);
	if (ret == NOT_SERVED)
		ret = kernel_preadv(fd, iov, nr, end - (off_t)len);
	put_back(fd, len, ret);
	return ret;
}

static ssize_t do_writev(int fd, const struct iovec *iov, int nr)
{
	unsigned int mode;
	struct pfile *p = preload_look(fd, false, &mode);
	size_t len = p ? total(iov, nr) : 0;
	ssize_t ret;
	off_t end;

	if (!p || !can_write(p, mode) || len == 0)
		return kernel_writev(fd, iov, nr);
	end = lseek(fd, (off_t)len, SEEK_CUR);
	if (end < 0)
		return kernel_writev(fd, iov, nr);
	ret = copy_in(p, fd, iov, nr, end - (off_t)len);
	if (ret == NOT_SERVED)
		ret = kernel_pwritev(fd, iov, nr, end - (off_t)len);
	put_back(fd, len, ret);
	return ret;
}

/*
 * What went through here is durable already.  It is mappings, ours and others',
 * that may have something to flush: then it is the kernel's call.
 */
static bool nothing_to_sync(int fd)
{
	const struct session_mailbox *mail;
	unsigned int mode;
	struct pfile *p = preload_look(fd, false, &mode);

	if (!p || p->page_sync || atomic_load(&preload_kernel_maps))
		return false;
	mail = client_mail(p->file);
	return mail && atomic_load(&mail->flags) & SESSION_MAIL_CLEAN;
}

static int do_sync(int fd, int (*fn)(int fd))
{
	if (!nothing_to_sync(fd))
		return fn(fd);
	flush_fence();
	preload_count(COUNT_FSYNC, 0);
	return 0;
}

/*
 * The names that programs call.
 */
#define IOV(buf, len)                                          \
	((struct iovec){ .iov_base = (void *)(uintptr_t)(buf), \
			 .iov_len = (len) })

PRELOAD ssize_t read(int fd, void *buf, size_t len)
{
	return do_readv(fd, &IOV(buf, len), 1);
}

PRELOAD ssize_t write(int fd, const void *buf, size_t len)
{
	return do_writev(fd, &IOV(buf, len), 1);
}

PRELOAD ssize_t readv(int fd, const struct iovec *iov, int nr)
{
	return do_readv(fd, iov, nr);
}

PRELOAD ssize_t writev(int fd, const struct iovec *iov, int nr)
{
	return do_writev(fd, iov, nr);
}

/* With and without 64 these are the same here: off_t has 64 bits. */
#define BOTH(ret, name, args, ...)                               \
	PRELOAD ret preload_##name args __asm__(#name);          \
	PRELOAD ret preload_##name args                          \
	{                                                        \
		return __VA_ARGS__;                              \
	}                                                        \
	PRELOAD ret preload_##name##64 args __asm__(#name "64"); \
	PRELOAD ret preload_##name##64 args                      \
	{                                                        \
		return __VA_ARGS__;                              \
	}

BOTH(ssize_t, pread, (int fd, void *buf, size_t len, off_t pos),
     do_preadv(fd, &IOV(buf, len), 1, pos))
BOTH(ssize_t, pwrite, (int fd, const void *buf, size_t len, off_t pos),
     do_pwritev(fd, &IOV(buf, len), 1, pos))
BOTH(ssize_t, preadv, (int fd, const struct iovec *iov, int nr, off_t pos),
     do_preadv(fd, iov, nr, pos))
BOTH(ssize_t, pwritev, (int fd, const struct iovec *iov, int nr, off_t pos),
     do_pwritev(fd, iov, nr, pos))

/* What -D_FORTIFY_SOURCE makes of them; it has checked what it can. */
#define CHECKED(name, args, size, ...)                           \
	PRELOAD ssize_t preload_##name args __asm__("__" #name); \
	PRELOAD ssize_t preload_##name args                      \
	{                                                        \
		if (len > (size))                                \
			__builtin_trap();                        \
		return __VA_ARGS__;                              \
	}

CHECKED(read_chk, (int fd, void *buf, size_t len, size_t room), room,
	do_readv(fd, &IOV(buf, len), 1))
CHECKED(pread_chk, (int fd, void *buf, size_t len, off_t pos, size_t room),
	room, do_preadv(fd, &IOV(buf, len), 1, pos))
CHECKED(pread64_chk, (int fd, void *buf, size_t len, off_t pos, size_t room),
	room, do_preadv(fd, &IOV(buf, len), 1, pos))

PRELOAD int fsync(int fd)
{
	return do_sync(fd, __wrap_fsync);
}

PRELOAD int fdatasync(int fd)
{
	return do_sync(fd, __wrap_fdatasync);
}
