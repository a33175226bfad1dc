/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/mem.h - what the library does to the program's page tables
 *
 * A page of a view is in one of four states, and each function below takes a
 * range from any of them to one:
 *
 *	mem_zap		the next touch is a message on the userfaultfd
 *	mem_media	pages of the device
 *	mem_zero	zeros; the first store is a message on the userfaultfd
 *	mem_bus		the next touch raises SIGBUS
 *
 * Each change is one step for running threads and for system calls: there is
 * no moment at which a touch finds anything but the old or the new state.  For
 * mem_zap that takes a spare range, registered beforehand, that is moved over
 * the old one; registering afterwards would leave a moment in which a touch
 * finds zeros.  While the spare moves, the kernel has the caller wait until
 * the event was read from the userfaultfd, so the thread that reads it calls
 * none of these.
 *
 * Nothing here wakes threads; see mem_wake().
 *
 * Units.     Bytes, multiples of BLOCK_SIZE.
 * Errors.    Negative errno, then nothing has changed.
 * Locking.   One caller at a time: see dax/lib/pager.h.
 * fork(2).   No range of a view is inherited.  The few system calls between
 *            which that is not so yet are kept from fork() by the caller's
 *            lock.
 * Source.    userfaultfd(2), ioctl_userfaultfd(2), mremap(2).
 */
#ifndef DAX_LIB_MEM_H
#define DAX_LIB_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Open the userfaultfd.  -ENOSYS when it cannot do what is needed; -EPERM. */
int mem_init(void);

/* In the child of a fork: forget everything. */
void mem_forget(void);

int mem_uffd(void);

/* Do system calls fail in ranges that are not populated? */
bool mem_user_only(void);

/*
 * A new range in the state of mem_zap(), at an address that equals @like
 * modulo CHUNK_SIZE.  With @fixed it is there and replaces what was there.
 */
int mem_reserve(uintptr_t like, bool fixed, size_t len, int prot,
		uintptr_t *ret_addr);

int mem_zap(uintptr_t addr, size_t len, int prot);
int mem_media(uintptr_t addr, size_t len, int prot, int fd, uint64_t off);
int mem_zero(uintptr_t addr, size_t len, int prot);
int mem_bus(uintptr_t addr, size_t len);

/* Let threads that wait for a page of the range touch it again. */
void mem_wake(uintptr_t addr, size_t len);

/* Not a view any more. */
void mem_release(uintptr_t addr, size_t len);

/*
 * Is the limit of the process's mappings near?  Cheap: counts only when as
 * many calls were made since the last time that it could be.
 */
bool mem_crowded(void);

/* A descriptor out of the way of the program's; takes @fd. */
int mem_high_fd(int fd);

/* Close one of those. */
void mem_close_fd(int fd);

/* Is it one of the library's, which the program does not know of? */
bool mem_own_fd(int fd);

#endif
