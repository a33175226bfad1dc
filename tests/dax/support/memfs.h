/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/support/memfs.h - a filesystem and its clients, for tests of dax/
 *
 * memfs keeps everything but file contents in DRAM: a file is an array of
 * slots, a block knows how many slots point to it.  It takes the locks and
 * makes the calls that a filesystem has to, and it has knobs for the ways in
 * which a filesystem can fail.
 *
 * A view is a client's vma with its page tables: a record for each page and
 * for each 2 MiB.  view_load() and view_store() are what the processor does.
 *
 * Units.     Files and views are counted in pages, as in dax/.
 * Locking.   fs->lock (LOCK_ALLOC) covers slots and blocks; fs->mmu
 *            (LOCK_FOLIO_MAP) covers all page tables.
 */
#ifndef TESTS_DAX_MEMFS_H
#define TESTS_DAX_MEMFS_H

#include "dax/entry.h"
#include "dax/layout.h"
#include "dax/mapping.h"

#define MEMFS_PAGES 8192u /* of the device: 32 MiB */
#define FILE_PAGES  2048u /* of a file at most */

struct memfile;

enum block_state {
	BLOCK_FREE,
	BLOCK_USED,
	BLOCK_DEFERRED, /* no slot, not idle */
};

struct memfs {
	struct pmem *pm;
	struct dax_device *dev;
	int fd; /* of the device's file, which has no name any more */
	struct mutex lock, mmu;
	uint32_t *nr_slots; /* for each block */
	unsigned char *state;
	uint64_t nr_blocks, next, nr_used, nr_idle_calls;
	struct memfile *files;
	uint64_t next_ino;

	/* Knobs. */
	bool huge;	       /* faults of 2 MiB get 2 MiB */
	bool hide_shared;      /* B8: do not say IOMAP_F_SHARED */
	bool metadata_dirty;   /* IOMAP_F_DIRTY on every iomap */
	bool write_hole;       /* begin leaves a hole for a write */
	uint64_t metadata_pfn; /* poison here shuts the filesystem down */
	bool shut_down;
	bool release_early;  /* hand back without asking for idleness */
	enum iomap_type src; /* of a shared block: IOMAP_MAPPED, or not */
	int fail_begin, fail_commit, fail_cancel, fail_map, fail_wrprotect;
	int fail_fsync;
	int64_t short_access; /* bytes that direct access gives; 0: all */
	int64_t shift_access; /* pages that it is off by */
	void (*on_fsync)(struct memfile *file);
	void (*on_wrprotect)(struct memfile *file, uint64_t index);
	void (*on_begin)(struct memfile *file, uint64_t pos);
	/* After the page tables were read. */
	void (*on_lookup)(struct memfile *file);
	void (*on_unmap)(struct memfile *file, uint64_t index, uint64_t nr);
};

struct slot {
	uint32_t pfn; /* 0: hole */
	uint32_t staging;
	bool unwritten;
};

struct pte {
	uint32_t pfn;
	bool present, write, zero;
	bool killed;
	unsigned char *anon; /* private copy */
};

struct view {
	struct dax_vma vma;
	struct memfile *file;
	struct view *next;
	uint64_t nr;
	struct pte *ptes, *pmds;
};

struct memfile {
	struct address_space mapping;
	struct rwsem i_rwsem;
	struct memfs *fs;
	struct memfile *next;
	_Atomic(uint64_t) size;
	struct slot *slots;
	struct view *views; /* under fs->mmu */
	bool skip_final;    /* B4: evict without the final break */
	bool dax_flag; /* persistent; the mapping's mode from the next load */
	uint64_t nr_dirtied;
};

extern const struct iomap_ops memfs_iomap_ops;
extern const struct dax_holder_ops memfs_holder_ops;

struct memfs *memfs_create(void);
/* Evicts what is left, and checks that every folio is unused. */
void memfs_destroy(struct memfs *fs);

struct memfile *file_create(struct memfs *fs, uint64_t nr_pages);
/* The final break, then gone. */
void file_evict(struct memfile *file);
/*
 * What chattr(1) +x and -x do, and what happens when the last handle is closed
 * and the inode leaves memory and is read again.
 */
void file_set_dax(struct memfile *file, bool dax);
void file_reload(struct memfile *file);
/* Give a page a block, filled with @byte; 0 leaves it unwritten. */
uint32_t file_fill(struct memfile *file, uint64_t index, unsigned char byte);
/* The same for an aligned 2 MiB. */
uint32_t file_fill_huge(struct memfile *file, uint64_t index,
			unsigned char byte);
/* Make page @to of @dst the block of page @from; no breaks, no locks. */
void file_share_raw(struct memfile *src, uint64_t from, struct memfile *dst,
		    uint64_t to);
uint32_t file_pfn(struct memfile *file, uint64_t index);

/* Operations with the locks and calls that they need. */
struct file_break {
	struct dax_break brk;
	struct memfile *file;
	_Atomic(unsigned int) nr_unlocks;
};
void file_break_init(struct file_break *fb, struct memfile *file,
		     struct dax_task *task);
int file_truncate(struct memfile *file, uint64_t nr_pages, bool wait,
		  struct dax_task *task);
int file_punch(struct memfile *file, uint64_t first, uint64_t nr, bool wait,
	       struct dax_task *task);
int file_reflink(struct memfile *src, struct memfile *dst, bool wait,
		 struct dax_task *task);
int file_exchange(struct memfile *a, struct memfile *b, bool wait,
		  struct dax_task *task);
enum file_mode {
	FILE_PUNCH,
	FILE_ZERO,
	FILE_COLLAPSE,
	FILE_INSERT,
};
int file_fallocate(struct memfile *file, enum file_mode mode, uint64_t first,
		   uint64_t nr, bool wait, struct dax_task *task);
int file_fsync(struct memfile *file);
int64_t file_write(struct memfile *file, uint64_t pos, const void *buf,
		   uint64_t len);
int64_t file_read(struct memfile *file, uint64_t pos, void *buf, uint64_t len);
/* What the file's slots say is at @pos, without dax/. */
unsigned char file_byte(struct memfile *file, uint64_t pos);

void *file_entry(struct memfile *file, uint64_t index);
bool file_marked(struct memfile *file, uint64_t index, enum xa_mark mark);
struct folio *file_folio(struct memfile *file, uint64_t index);

/* Views.  Start at page @pgoff of the file, 2 MiB-aligned if that is. */
struct view *view_open(struct memfile *file, uint64_t pgoff, uint64_t nr,
		       unsigned int flags);
void view_close(struct view *v); /* munmap */
void view_unmap(struct view *v); /* forget translations, stay open */
struct view *view_fork(struct view *v);
/* One fault of the given order, and what it said. */
vm_fault_t view_fault(struct view *v, uint64_t index, bool write,
		      unsigned int order);
vm_fault_t view_fault_err(struct view *v, uint64_t index, bool write,
			  unsigned int order, int *ret_err);
/* Faults as needed; -EFAULT for a bus error. */
int view_load(struct view *v, uint64_t index, unsigned char *ret);
int view_store(struct view *v, uint64_t index, unsigned char byte);
/* As view_store(), and if that faults the 2 MiB at once, if it can be. */
int view_store_huge(struct view *v, uint64_t index, unsigned char byte);
/* What is mapped: NULL, or the record that maps the page. */
const struct pte *view_pte(struct view *v, uint64_t index);

/* Wait for something that another thread is about to do, at most 10 s. */
#define until(cond)                                       \
	do {                                              \
		int until_tries_ = 0;                     \
		while (!(cond) && until_tries_++ < 50000) \
			usleep(200);                      \
		assert(until_tries_ < 50000);             \
	} while (0)

/* How many wait for the lock of an entry, or for a folio. */
static inline unsigned int entry_waiters(struct memfile *file, uint64_t index)
{
	return wait_count(&file->mapping.i_pages, index);
}

/*
 * I4, I6, I7, I8 over all files and all pages, and I1, I10 against all views;
 * @pins[pfn] is how many pins the caller has.
 */
void memfs_check(struct memfs *fs, const uint32_t *pins);

#endif
