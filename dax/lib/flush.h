/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/flush.h - make stores durable
 *
 * Order.     What was flushed is durable after flush_fence() on the same
 *            thread.
 * Errors.    Nothing here fails, except msync(2).
 * Source.    Intel's manual: CLWB, CLFLUSHOPT, CLFLUSH; libpmem2's choice
 *            between them.
 */
#ifndef DAX_LIB_FLUSH_H
#define DAX_LIB_FLUSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Does the kernel keep copies between stores and the device?  Not for device
 * DAX, files on filesystems with DAX, and, for want of anything that could be
 * durable, memory.
 */
bool flush_needs_msync(int dev);

void flush_lines(uintptr_t start, uintptr_t end);
void flush_fence(void);

/* Copy to media, and flush; long copies go around the caches. */
void flush_copy(void *dst, const void *src, size_t len);

#endif
