/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/foliofs.h - map files of a foliofs straight from persistent memory
 *
 * A file that is open on a mounted foliofs is attached, and then its bytes on
 * media are mapped into the program: loads and stores go to the media, with
 * no copy and no system call.  The filesystem may take pages back (a truncate,
 * a clone, a punched hole); the next touch then asks for them again, so that
 * a program never sees bytes that are not the file's.
 *
 *	struct foliofs_file *file;
 *	void *p;
 *
 *	foliofs_attach(fd, 0, &file);
 *	foliofs_map(file, len, PROT_READ | PROT_WRITE, 0, 0, &p);
 *	memcpy(p, "hello", 5);
 *	foliofs_sync(p, 5);
 *
 * Units.     Bytes.  Positions and addresses of mappings are multiples of
 *            the page size.
 * Errors.    0 or a negative errno; a failed call changes nothing, not even
 *            the ret_ arguments.  -ENOTCONN: the daemon is gone; what was
 *            mapped can still be used, everything else cannot.  A touch has
 *            nowhere to put an errno, so it raises SIGBUS: past the end of the
 *            file, no space for a copy, an error of the media, no daemon.
 * Locking.   Every function may be called from any thread, but from no signal
 *            handler.
 * Ownership. What attach, map and pin give belongs to the program until
 *            detach, unmap and unpin.  A mapping keeps its file.
 * Signals.   The library handles SIGSEGV and SIGBUS at its own addresses and
 *            hands on every other one to whoever was there before.  A program
 *            that installs a handler later has to call the one it replaces.
 * fork(2).   A child inherits neither mappings nor files.
 * Source.    mmap(2), msync(2), madvise(2), userfaultfd(2).
 */
#ifndef FOLIOFS_H
#define FOLIOFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct foliofs_file;
struct foliofs_pin;

/**
 * foliofs_attach() - take an open file for mapping
 * @fd: the file; it may be closed afterwards
 * @flags: 0
 * @ret_file: the attached file
 *
 * What is allowed later follows from how @fd was opened.
 *
 * Return: 0; -ENOTTY when it is no file of a foliofs; -EACCES when the daemon
 * does not give this user the device (option dax_users); -EOPNOTSUPP when the
 * mount or the file does without DAX; -ENOSYS when the kernel's userfaultfd
 * cannot do what is needed (Linux 5.7); -ENOTCONN, -ECONNREFUSED when there
 * is no daemon.
 */
int foliofs_attach(int fd, unsigned int flags, struct foliofs_file **ret_file);

/* End it.  Mappings of the file stay. */
void foliofs_detach(struct foliofs_file *file);

#define FOLIOFS_MAP_SYNC     0x1u /* as MAP_SYNC */
#define FOLIOFS_MAP_POPULATE 0x2u /* ask for all pages now, as far as any */
#define FOLIOFS_MAP_FIXED    0x4u /* at *ret_addr, whatever is there */

/**
 * foliofs_map() - map a part of a file
 * @file: attached file
 * @len: bytes, at least 1; rounded up to pages
 * @prot: PROT_ as for mmap(2); the mapping is always shared
 * @flags: FOLIOFS_MAP_
 * @pos: where in the file, a multiple of the page size; may be past its end
 * @ret_addr: where it is now; read before with FOLIOFS_MAP_FIXED
 *
 * Nothing is asked of the daemon for pages that are not touched.
 *
 * Return: 0; -EACCES when the file is not open for what @prot wants; -EINVAL;
 * -ENOMEM when there is no room, in the address space or below the limit
 * vm.max_map_count; -ENOTCONN.
 */
int foliofs_map(struct foliofs_file *file, size_t len, int prot,
		unsigned int flags, off_t pos, void **ret_addr);

/*
 * Unmap what is mapped of [addr, addr + len).  As munmap(2), it may be part of
 * a mapping, or parts of several.
 */
int foliofs_unmap(void *addr, size_t len);

/*
 * Change what may be done with [addr, addr + len), all of it mapped; as
 * mprotect(2).  -EACCES when the file is not open for writing.
 */
int foliofs_protect(void *addr, size_t len, int prot);

/*
 * Make stores to [addr, addr + len) durable, and known: the file's times
 * change, and the kernel forgets what it had cached of the file.
 */
int foliofs_sync(const void *addr, size_t len);

#define FOLIOFS_PIN_WRITE    0x1u /* stores will be done */
#define FOLIOFS_PIN_LONGTERM 0x2u /* for longer than one transfer */

/**
 * foliofs_pin() - keep pages where they are on media
 * @addr: a mapped address
 * @len: bytes
 * @flags: FOLIOFS_PIN_
 * @ret_pin: the pin
 *
 * For whoever moves data without the processor's page tables (a device, RDMA).
 * The filesystem waits for pins before it gives blocks away, so a pin should
 * be short.
 *
 * Return: 0; -EFAULT when a page is not mapped or past the end of the file;
 * -EAGAIN, -ENOMEM, -ENOSPC; -ENOTCONN.
 */
int foliofs_pin(const void *addr, size_t len, unsigned int flags,
		struct foliofs_pin **ret_pin);
int foliofs_unpin(struct foliofs_pin *pin);

enum foliofs_advice {
	FOLIOFS_WILLNEED,	/* map all that exists, for loads */
	FOLIOFS_WILLNEED_WRITE, /* and for stores: copies shared blocks now */
	FOLIOFS_DONTNEED,	/* give the pages back; the mapping stays */
};

/*
 * Say how [addr, addr + len) will be used.  A system call that stores into a
 * page of a mapping which is shared with a clone fails with EFAULT unless the
 * program has stored there before: FOLIOFS_WILLNEED_WRITE helps.
 */
int foliofs_advise(void *addr, size_t len, enum foliofs_advice advice);

/*
 * Let @len bytes of @dst_fd at @dst_pos share the blocks of @src_fd at
 * @src_pos.  @len 0 means up to the end of the source.  As
 * ioctl_ficlonerange(2); works for attached files and others.
 */
int foliofs_reflink(int src_fd, off_t src_pos, int dst_fd, off_t dst_pos,
		    size_t len);

/*
 * The same, if both have the same contents.  *ret_len is how much is shared
 * now.  1: the contents differ.
 */
int foliofs_dedupe(int src_fd, off_t src_pos, int dst_fd, off_t dst_pos,
		   size_t len, size_t *ret_len);

enum foliofs_hold_kind {
	FOLIOFS_HOLD_MAP,   /* mapped */
	FOLIOFS_HOLD_PIN,   /* pinned */
	FOLIOFS_HOLD_LONG,  /* pinned for long */
	FOLIOFS_HOLD_STUCK, /* asked to give it back, no answer yet */
	FOLIOFS_HOLD_GONE,  /* no longer connected, still mapped */
};

struct foliofs_hold {
	pid_t pid;
	char comm[16];
	enum foliofs_hold_kind kind;
	uint64_t pos; /* bytes of the file */
	uint64_t len;
	uint64_t age_ns;
};

/*
 * Call @fn for everything that holds pages of a file, in this process and in
 * others.  Not 0 from @fn ends the list and is returned.
 */
int foliofs_holders(struct foliofs_file *file,
		    int (*fn)(const struct foliofs_hold *hold, void *ctx),
		    void *ctx);

#ifdef __cplusplus
}
#endif

#endif
