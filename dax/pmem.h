/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/pmem.h - the only door to media
 *
 * A struct pmem is one mapped device: a regular file, a device DAX character
 * device, or a file on a filesystem mounted with dax.  Reading is a pointer to
 * const; storing names a media offset and goes through the functions below,
 * so that nothing in the project can change media by accident: pmem_at()
 * gives `const void *` and the build refuses to cast const away.
 *
 * Order.     A store is durable once a fence that follows its flush, on the
 *            same thread, returns.  Stores that were flushed with no fence
 *            between them may land in any order; a store that was not flushed
 *            may land at any time.
 * Atomicity. Only an aligned pmem_store64() survives a crash whole.
 * Units.     Media offsets and lengths are bytes.
 * Errors.    Negative errno with a sentence in the struct errmsg.  Storing
 *            cannot fail; a machine check is remembered for the thread, see
 *            pmem_fault_take().
 * Locking.   Everything but open and close may be called from any thread.
 * Ownership. The struct pmem belongs to whoever opened it.
 * Source.    libpmem2(7), pmem2_get_flush_fn(3), pmem2_get_memcpy_fn(3).
 */
#ifndef DAX_PMEM_H
#define DAX_PMEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/err.h"
#include "dax/media.h"

/* How much the platform needs to be told to make a store durable. */
enum pmem_granularity {
	PMEM_GRANULARITY_AUTO, /* ask libpmem2; CACHE_LINE on tmpfs */
	PMEM_BYTE,	       /* caches are in the persistence domain */
	PMEM_CACHE_LINE,       /* write the cache lines back */
	PMEM_PAGE,	       /* msync */
};

enum pmem_mode {
	PMEM_READ_WRITE, /* exclusive: nobody else may open the device */
	PMEM_PRIVATE,	 /* stores stay in this process; others may read */
};

/* What one thread may look at without a call; the rest is in pmem.c. */
struct pmem {
	const unsigned char *base;    /* first byte of the device */
	uint64_t size;		      /* bytes, a multiple of BLOCK_SIZE */
	_Atomic(unsigned int) nr_bad; /* pages lost to machine checks */
};

struct pmem_range {
	uint64_t off;
	uint64_t len;
};

/**
 * pmem_open() - map a device
 * @path: regular file or device DAX character device
 * @mode: see enum pmem_mode
 * @want: granularity to take for granted, or PMEM_GRANULARITY_AUTO.  The
 *        caller is believed: BYTE on a disk's file loses data with the power.
 * @ret_pm: the device
 * @err: the reason in words, or NULL
 *
 * A last part that is less than a block, or less than the smallest piece that
 * the device can map, is not used.
 *
 * Return: 0; -EBUSY when somebody else has it open for writing; -EINVAL when
 * it is not a kind of device that can be mapped, or less than one block;
 * -EMFILE when too many devices are open; or what open(2) and mmap(2) said.
 */
int pmem_open(const char *path, enum pmem_mode mode, enum pmem_granularity want,
	      struct pmem **ret_pm, struct errmsg *err);

/* Everything stored must have been fenced; pages not fenced may be lost. */
void pmem_close(struct pmem *pm);

enum pmem_granularity pmem_granularity(const struct pmem *pm);

/*
 * Why what is fenced may be lost with the power although libpmem2 answers for
 * it: the device is a virtual one, or plain memory.  NULL: no reason.
 */
const char *pmem_warning(const struct pmem *pm);

/*
 * Can what was fenced be pushed further, out of the memory controller's
 * queues?  Then pmem_deep_flush() does it: for the case that the power fails
 * and so does what should empty them.  0 or a negative errno.
 */
bool pmem_has_deep_flush(const struct pmem *pm);
int pmem_deep_flush(struct pmem *pm);

/*
 * Blocks that were known to be bad when the device was opened, by number, in
 * order; returns how many there are.  They are lost pages from the start, and
 * must not be given to anybody.
 */
unsigned int pmem_known_bad(const struct pmem *pm, const uint64_t **ret_block);
const char *pmem_granularity_name(enum pmem_granularity g);

/*
 * The smallest piece of the device that a process can map, and its alignment:
 * BLOCK_SIZE, or what a devdax namespace was made with.
 */
uint64_t pmem_alignment(const struct pmem *pm);

/* Slow half of pmem_at(): notes a machine check if @off is on a lost page. */
void pmem_check(const struct pmem *pm, uint64_t off, uint64_t len);

/*
 * The byte at @off.  The pointer stays valid until pmem_close(); what it may
 * be followed to ends at the end of the block.
 */
static inline const void *pmem_at(const struct pmem *pm, uint64_t off)
{
	if (__builtin_expect(atomic_load_explicit(&pm->nr_bad,
						  memory_order_relaxed) != 0,
			     0))
		pmem_check(pm, off, 1);
	return pm->base + off;
}

/* One aligned word, read whole. */
static inline uint64_t pmem_load64(const struct pmem *pm, uint64_t off)
{
	const le64 *p = (const le64 *)pmem_at(pm, off);

	return le64toh(__atomic_load_n(&p->raw, __ATOMIC_ACQUIRE));
}

/* Store one aligned word; not flushed.  Readers see it whole. */
void pmem_store64(struct pmem *pm, uint64_t off, uint64_t value);

/* Store and flush.  From 256 bytes up the caches are bypassed. */
void pmem_write(struct pmem *pm, uint64_t off, const void *src, size_t len);
void pmem_zero(struct pmem *pm, uint64_t off, size_t len);

/* As pmem_write(), from another place on media. */
void pmem_copy(struct pmem *pm, uint64_t off, uint64_t src_off, size_t len);

/* Start writing [off, off + len) back to media. */
void pmem_flush(struct pmem *pm, uint64_t off, size_t len);

/*
 * Wait until all that this thread flushed is durable.  With PAGE granularity
 * this may fail.  Then the thread is marked as for a machine check, and so is
 * whoever fences this device later: what is on media is no longer known.
 */
void pmem_fence(struct pmem *pm);

/* Why a fence has failed since the device was opened: negative errno, or 0. */
int pmem_sync_error(const struct pmem *pm);

/* Fences since the device was opened, by all threads. */
uint64_t pmem_nr_fences(const struct pmem *pm);

/*
 * Machine checks.  A load or store that hits a bad page does not kill the
 * process: the page is replaced by zeros in this mapping, the thread is
 * marked, and every later access to the page marks its thread again.  Whoever
 * runs an operation asks once before it commits or replies, and fails with
 * -EIO if the answer is true; asking clears the mark.
 */
bool pmem_fault_pending(void);
bool pmem_fault_take(void);

/*
 * A thread that has got its pointer, and reads only after another thread lost
 * the page, reads zeros and is not marked.  An operation that must not return
 * them calls pmem_fault_begin() first, which clears the mark, and asks
 * pmem_fault_end() instead of pmem_fault_take(): that is true as well when any
 * thread has lost a page meanwhile.
 */
void pmem_fault_begin(void);
bool pmem_fault_end(void);

/* For somebody who met the bad page in another way (EFAULT from writev). */
void pmem_fault_note(void);

/* Read a byte of every page, so that those which are bad become known. */
void pmem_touch(const void *p, size_t len);

/* Copy up to @nr lost ranges to @ret; returns how many there are. */
unsigned int pmem_bad_ranges(const struct pmem *pm, struct pmem_range *ret,
			     unsigned int nr);

/*
 * A recorder sees every store, flush and fence in the order in which the
 * thread made them; pmem_write() is a store and a flush.  @data is valid
 * during the call only.  Set it while nobody else uses the device.
 */
enum pmem_event {
	PMEM_EVENT_STORE,
	PMEM_EVENT_FLUSH,
	PMEM_EVENT_FENCE,
};
struct pmem_recorder {
	void (*event)(void *ctx, enum pmem_event event, uint64_t off,
		      const void *data, size_t len);
	void *ctx;
};
void pmem_record(struct pmem *pm, const struct pmem_recorder *rec);

/* CRC-32C (Castagnoli, as iSCSI and ext4 compute it) of @len bytes. */
uint32_t pmem_crc32c(const void *data, size_t len);

#endif
