/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/mapping.h - one file's index of entries, and what is done with it
 *
 * The words are those of Linux.  A mapping (struct address_space) is a file as
 * dax/ sees it: an index from page number to entry, and the lock that keeps
 * faults out while the layout changes.  An entry names the block that backs
 * the page, or the zero page, or is empty and only a place to put a lock.  A
 * vma is a client's view of the file, a mapper what holds the page tables of
 * all vmas of a mapping: here a set of clients, who can be told to forget a
 * range.
 *
 * The invariants that the code names by number:
 *
 * I1  refcount == mapcount + pins + short holds; mapcount <= refcount
 * I2  a pin needs a mapping; only a fault that holds the entry lock raises a
 *     refcount from 0
 * I3  a block leaves a file when it is not busy and the file has no entry and
 *     no mapping of it; it is used again when idle and without any entry
 * I4  nrpages is the sum of the sizes of all entries, of every kind
 * I5  mapping != NULL: the union is the index; NULL: it is the share
 * I6  entries that refer to a folio: 1 if mapping != NULL, else share
 * I7  order > 0 only with an owner (or an orphan, see dax/folio.h)
 * I8  zero and empty entries never touch a folio
 * I9  a locked entry is changed by its locker; others wait, nobody skips
 * I10 a mapping of page i of a file implies a non-empty entry over i
 * I11 the last put wakes, and does nothing else
 *
 * Units.     index counts pages; pos, len and addr are bytes; nr_ pages.
 * Errors.    Negative errno, or a vm_fault_t.  What the filesystem below does
 *            wrong is counted in dax_device.stat.nr_warnings and answered as
 *            an error; what dax/ does wrong asserts.
 * Locking.   invalidate_lock (LOCK_INVALIDATE): shared by faults, exclusive
 *            for layout breaks; taken by callers.  Entry lock (LOCK_ENTRY): a
 *            bit in the slot, sleeps.  i_pages.lock (LOCK_XA): the slots and
 *            nrpages.  Mapper callbacks are called with the entry lock of the
 *            range or with the invalidate_lock exclusive, never with
 *            i_pages.lock.
 * Ownership. The caller embeds or allocates the struct address_space and
 *            calls mapping_destroy() when dax_break_layout_final() has
 *            emptied it.
 * Source.    Linux fs/dax.c (6.15), include/linux/dax.h.
 */
#ifndef DAX_MAPPING_H
#define DAX_MAPPING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dax/folio.h"
#include "dax/iomap.h"
#include "dax/lock.h"
#include "dax/pmem.h"
#include "dax/wait.h"
#include "dax/xarray.h"

struct dax_device;
struct dax_vma;
struct session_handle;
struct session_vma;

/* The device. */

struct dax_device_ops {
	/*
	 * Bytes from media offset @off on, at most @len, that can be reached
	 * through consecutive pages, the first of which is @ret_pfn.
	 */
	int64_t (*direct_access)(struct dax_device *dev, uint64_t off,
				 uint64_t len, uint64_t *ret_pfn);
};

/* What whoever owns the device wants to know about it. */
struct dax_holder_ops {
	/*
	 * [off, off + len) is lost.  Tells every owner by dax_kill_owners().
	 * -EOPNOTSUPP: no reverse mapping, use what the folio says.
	 */
	int (*notify_failure)(void *holder, uint64_t off, uint64_t len,
			      unsigned int flags);
};

struct dax_stat {
	_Atomic(uint64_t) nr_pte_faults;
	_Atomic(uint64_t) nr_pmd_faults;
	_Atomic(uint64_t) nr_pmd_fallbacks;
	_Atomic(uint64_t) nr_breaks;	  /* layout breaks begun */
	_Atomic(uint64_t) nr_break_waits; /* sleeps on a busy folio */
	_Atomic(uint64_t) nr_written_back;
	_Atomic(uint64_t) nr_warnings; /* "cannot happen" that did */
	_Atomic(const char *) warning; /* the last of them */
};

struct dax_device {
	struct pmem *pm;
	struct folio_table *folios;
	const struct dax_device_ops *ops; /* NULL: all of pm, as it is */
	const struct dax_holder_ops *holder_ops;
	void *holder;
	uint64_t zero_pfn;	      /* of no page of the device */
	uint64_t huge_zero_pfn;	      /* the same; 0: there is none (F11) */
	_Atomic(bool) allow_longterm; /* the policy in force says so */
	struct dax_stat stat;
};

/* Set up for all of @pm.  @ops and @ctx are those of dax/folio.h. */
int dax_device_create(struct pmem *pm, const struct folio_table_ops *ops,
		      void *ctx, struct dax_device **ret_dev);
void dax_device_destroy(struct dax_device *dev);

/*
 * Can a client make its stores durable by itself?  If not, a mapping with
 * MAP_SYNC is refused when it is made (-EOPNOTSUPP).
 */
bool dax_device_synchronous(const struct dax_device *dev);

/* Mappings. */

struct dax_mapping_ops {
	uint64_t (*size)(struct address_space *mapping); /* i_size, bytes */

	/* Make metadata and data of the range durable (synchronous faults). */
	int (*fsync)(struct address_space *mapping, uint64_t pos, uint64_t len);

	/* There is something for fsync(2) to do.  May be NULL. */
	void (*mark_dirty)(struct address_space *mapping);
};

/* One translation to install. */
struct dax_map {
	uint64_t index;	    /* first page of the file */
	unsigned int order; /* 0 or FOLIO_ORDER */
	bool write;	    /* else read-only */
	bool zero;	    /* the zero page; pfn says nothing */
	uint64_t pfn;
};

enum dax_mapped {
	DAX_MAPPED_NONE,  /* nothing there */
	DAX_MAPPED_TABLE, /* single pages are, or may be, mapped */
	DAX_MAPPED_HUGE,  /* one mapping of order 9 */
};

/*
 * The page tables.  Its own locks rank above LOCK_XA.
 *
 * Whoever installs a new translation of a folio calls folio_add_map() on it,
 * whoever takes one out calls folio_remove_map(), each under the lock of the
 * table.  A translation that is taken out is out when the call returns: no
 * thread of the client can reach the page any more.  A window that cannot be
 * taken back like this is a pin, not a mapping.
 */
struct dax_mapper_ops {
	/*
	 * Install a translation in one vma.  0: done, or it was there already
	 * and @map->write made it writable; that takes no new reference.
	 * -EBUSY: another page is there (the fault is repeated), -EFAULT: and
	 * the fault was a write and it is not the zero page, -ENOMEM.
	 */
	int (*map)(struct dax_vma *vma, const struct dax_map *map);

	/*
	 * Take [index, index + nr) out of every vma of the mapping.  Private
	 * copies stay.  An order-9 translation that is touched goes whole.
	 */
	void (*unmap)(struct address_space *mapping, uint64_t index,
		      uint64_t nr);

	/*
	 * Make it read-only everywhere, so that the next store faults.  0; 1
	 * when somebody may go on storing, so that it stays dirty; an errno.
	 */
	int (*wrprotect)(struct address_space *mapping, uint64_t index,
			 uint64_t nr);

	/* What there is in @vma in the 2 MiB that page @index is in. */
	enum dax_mapped (*mapped)(struct dax_vma *vma, uint64_t index);

	/* Take an order-9 translation out of one vma, if there is one. */
	void (*zap_huge)(struct dax_vma *vma, uint64_t index);

	/*
	 * The pfn of a page that is mapped (for @write: writable) in @vma.
	 * Finds every translation: none is special and hidden (B6).
	 */
	bool (*lookup)(struct dax_vma *vma, uint64_t index, bool write,
		       uint64_t *ret_pfn);

	/*
	 * As unmap, and the next access to the range is a bus error: the
	 * memory is lost.
	 */
	void (*kill)(struct address_space *mapping, uint64_t index,
		     uint64_t nr);
};

struct address_space {
	struct xarray i_pages;
	struct rwsem invalidate_lock;
	uint64_t nrpages; /* under i_pages.lock; I4 */
	uint64_t ino;	  /* order of two invalidate_locks */
	struct dax_device *dev;
	const struct dax_mapping_ops *ops;
	const struct dax_mapper_ops *mapper; /* NULL: nobody can map it */
	void *host;			     /* the filesystem's inode */
	unsigned int block_shift;	     /* of the filesystem */
	bool dax;			     /* false: dax/ leaves it alone */
	_Atomic(int) wb_err;		     /* first writeback error */

	/* Who maps it from outside; dax/session.h only. */
	_Atomic(struct session_vma *) session_vmas;
	_Atomic(struct session_handle *) session_handles;
	unsigned int session_loose; /* vmas whose stores nobody flushes */
	bool session_unclean;	    /* there was one since the last sync */
	uint64_t session_nr_loose;  /* ever */
};

void mapping_init(struct address_space *mapping, struct dax_device *dev,
		  const struct dax_mapping_ops *ops,
		  const struct dax_mapper_ops *mapper, uint64_t ino,
		  void *host);

/* There are no entries left. */
void mapping_destroy(struct address_space *mapping);

/*
 * The generic truncate of pages from @index on.  It expects that a layout
 * break has removed every entry: what it finds is counted as a warning and
 * removed, so that its loop ends (A11).
 */
void mapping_truncate(struct address_space *mapping, uint64_t index);

/* Faults. */

#define DAX_VMA_SHARED 0x1u /* stores reach the file */
#define DAX_VMA_SYNC   0x2u /* MAP_SYNC */

struct dax_fault;

struct dax_vma {
	struct address_space *mapping;
	uint64_t start, end; /* addresses in the client, multiples of 4K */
	uint64_t pgoff;	     /* page of the file at @start */
	unsigned int flags;
	void *private;

	/*
	 * Take the invalidate_lock shared, call dax_iomap_fault() and what
	 * follows from it.  Used by dax_pin() when a page is not mapped.
	 */
	unsigned int (*fault)(struct dax_fault *vmf, unsigned int order);
};

static inline uint64_t dax_vma_addr(const struct dax_vma *vma, uint64_t index)
{
	return vma->start + ((index - vma->pgoff) << BLOCK_SHIFT);
}

struct dax_fault {
	struct dax_vma *vma;
	uint64_t index; /* page of the file */
	bool write;
	/* A private vma's write: where the copy goes, BLOCK_SIZE bytes. */
	void *cow_page;
};

/* What came of a fault.  Bits, as in Linux. */
typedef unsigned int vm_fault_t;
#define VM_FAULT_OOM	   0x001u
#define VM_FAULT_SIGBUS	   0x002u
#define VM_FAULT_MAJOR	   0x004u
#define VM_FAULT_NOPAGE	   0x100u /* mapped, or try again */
#define VM_FAULT_FALLBACK  0x800u /* try order 0 */
#define VM_FAULT_DONE_COW  0x1000u
#define VM_FAULT_NEEDDSYNC 0x2000u /* fsync first, then finish */
#define VM_FAULT_ERROR	   (VM_FAULT_OOM | VM_FAULT_SIGBUS)

/**
 * dax_iomap_fault() - make a page of a file accessible
 * @vmf: who wants which page
 * @order: 0, or FOLIO_ORDER for the 2 MiB around it
 * @ret_pfn: with VM_FAULT_NEEDDSYNC, for dax_finish_sync_fault()
 * @ret_err: the errno behind VM_FAULT_SIGBUS, or NULL
 * @ops: extents
 *
 * Context: invalidate_lock held, shared is enough.  Sleeps on the entry lock.
 *
 * A store to a page that is mapped read-only is the same call with
 * vmf->write: there is no way to "just make it writable".
 */
vm_fault_t dax_iomap_fault(struct dax_fault *vmf, unsigned int order,
			   uint64_t *ret_pfn, int *ret_err,
			   const struct iomap_ops *ops);

/*
 * After VM_FAULT_NEEDDSYNC: make metadata durable, then map.  Refaults if the
 * entry is not what it was when the fault began.
 */
vm_fault_t dax_finish_sync_fault(struct dax_fault *vmf, unsigned int order,
				 uint64_t pfn);

/* Pins. */

#define FOLL_WRITE    0x1u
#define FOLL_LONGTERM 0x2u

/**
 * dax_pin() - keep a mapped page in place
 * @vma: where it is mapped; faults it in if it is not
 * @index: page of the file
 * @flags: FOLL_
 * @ret_folio: ends with folio_put()
 *
 * Return: 0; -EOPNOTSUPP for a long-term pin, unless the policy allows those;
 * -EFAULT when the page cannot be had.
 */
int dax_pin(struct dax_vma *vma, uint64_t index, unsigned int flags,
	    struct folio **ret_folio);

/* Writeback. */

enum dax_wb {
	DAX_WB_NONE, /* background: nothing to do here */
	DAX_WB_ALL,  /* for data integrity */
};

/**
 * dax_writeback_mapping_range() - make what was stored through mappings
 * durable
 * @start: first byte
 * @end: last byte; an order-9 entry is written whole
 *
 * Return: 0, or the first error, which is also remembered in wb_err; the rest
 * of the range keeps its marks then.
 */
int dax_writeback_mapping_range(struct address_space *mapping, uint64_t start,
				uint64_t end, enum dax_wb mode);

/*
 * Remove the entries of pages [first, last] that have no mark, for somebody
 * who changed the file underneath.  Waits for locked ones.  True: all gone.
 */
bool dax_invalidate_range(struct address_space *mapping, uint64_t first,
			  uint64_t last);

/* Forget that [first, last] was dirty: it is about to be replaced. */
void dax_clear_dirty_range(struct address_space *mapping, uint64_t first,
			   uint64_t last);

/* System calls on the file's contents. */

/**
 * dax_iomap_read(), dax_iomap_write() - read(2) and write(2)
 * @task: may be interrupted between chunks, or NULL
 *
 * A write that may hit shared extents needs the invalidate_lock exclusive:
 * otherwise a read fault could find the old block after its entry was removed
 * and before the filesystem committed the new one.
 *
 * Return: bytes done, which may be fewer than @len; or a negative errno if
 * none.  0 for @len 0 and at the end of the file (B18).
 */
int64_t dax_iomap_read(struct address_space *mapping, uint64_t pos, void *buf,
		       uint64_t len, const struct iomap_ops *ops,
		       struct dax_task *task);
int64_t dax_iomap_write(struct address_space *mapping, uint64_t pos,
			const void *buf, uint64_t len,
			const struct iomap_ops *ops, struct dax_task *task);

/* Zero a range; holes stay holes.  Copies what is shared, as a write does. */
int dax_zero_range(struct address_space *mapping, uint64_t pos, uint64_t len,
		   const struct iomap_ops *ops);

/* Give the file its own copy of whatever it shares in the range. */
int dax_unshare(struct address_space *mapping, uint64_t pos, uint64_t len,
		const struct iomap_ops *ops);

/*
 * Are the two ranges equal?  An error of either side is an error of the
 * comparison, never an answer (B20).
 */
int dax_dedupe_compare(struct address_space *m1, uint64_t pos1,
		       struct address_space *m2, uint64_t pos2, uint64_t len,
		       bool *ret_same, const struct iomap_ops *ops);

/* Poison. */

/**
 * dax_notify_failure() - a range of the device is lost
 *
 * Asks the holder first.  If it has no reverse mapping, the folio's mapping
 * is all there is: -EBUSY for a shared folio, whose owners cannot be found.
 *
 * Context: without a holder, whoever calls keeps inodes from being freed.
 *
 * Return: 0; -EIO the holder is not ready; or what else the holder says.
 */
int dax_notify_failure(struct dax_device *dev, uint64_t off, uint64_t len,
		       unsigned int flags);

/*
 * For the holder, once for each owner: mark pages [index, index + nr) of a
 * file as lost and take them from everybody who maps them.
 */
void dax_kill_owners(struct address_space *mapping, uint64_t index,
		     uint64_t nr);

/*
 * Lock the entry that owns a folio, for somebody who has only the folio.
 * Returns the entry to give to dax_unlock_folio(), or NULL if there is no
 * single owner.
 */
void *dax_lock_folio(struct folio *folio, struct address_space **ret_mapping,
		     uint64_t *ret_index);
void dax_unlock_folio(struct address_space *mapping, uint64_t index,
		      void *entry);

#endif
