/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/check_super.c - check the superblock, its copy, and the journal's lanes
 *
 * This comes before the journal is replayed, so it stores directly: neither
 * superblock is what a record could name, but for the root of the inode table
 * in each, and that is compared after the replay.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/check_i.h"

#define FIXED_PART offsetof(struct foliofs_superblock, itable_root)
#define ROOT_OFF   offsetof(struct foliofs_superblock, itable_root)
#define STATE_OFF  offsetof(struct foliofs_superblock, state)
#define MOUNTS_OFF offsetof(struct foliofs_superblock, nr_mounts)

/* As in txn.c: where in the number of a record its mount stands. */
#define SEQ_SHIFT 40

static uint64_t copy_off(const struct check *ck)
{
	return (ck->fs->nr_blocks - 1) << BLOCK_SHIFT;
}

static const struct foliofs_superblock *super_at(const struct check *ck,
						 uint64_t off)
{
	return (const struct foliofs_superblock *)pmem_at(ck->fs->pm, off);
}

static void store_word(struct check *ck, uint64_t off, uint64_t value)
{
	pmem_store64(ck->fs->pm, off, value);
	pmem_flush(ck->fs->pm, off, sizeof(value));
	pmem_fence(ck->fs->pm);
}

/* The magic last, so that a crash does not leave half of one. */
static void copy_super(struct check *ck, uint64_t to, uint64_t from)
{
	struct pmem *pm = ck->fs->pm;

	store_word(ck, to, 0);
	pmem_copy(pm, to + 8, from + 8, sizeof(struct foliofs_superblock) - 8);
	pmem_fence(pm);
	store_word(ck, to, FOLIOFS_MAGIC);
	ck->result->nr_changes++;
}

/* A record that is replayed keeps its number; of the others nothing stays. */
static uint64_t clean_lane(struct check *ck, uint64_t off)
{
	struct foliofs_lane rec;

	switch (journal_record(ck->fs, off, &rec)) {
	case RECORD_WHOLE:
	case RECORD_STRAY:
		return le64_to_cpu(rec.seq) >> SEQ_SHIFT;
	case RECORD_NONE:
	case RECORD_TORN:
		break;
	}
	pmem_zero(ck->fs->pm, off, FOLIOFS_LANE_SIZE);
	return 0;
}

/*
 * The copy has the nr_mounts of mkfs, and with it numbers would be used again
 * (fs/FORMAT.md, section 7, says what that can do).  So nr_mounts goes up
 * to what the lanes have, and of records whose numbers were cleared nothing
 * stays that a number could bring back.  All this before the superblock is
 * good: after a crash it happens again.
 */
static void take_new_numbers(struct check *ck, uint64_t copy)
{
	const struct foliofs_superblock *sb = super_at(ck, copy);
	uint64_t off = le64_to_cpu(sb->lane_off);
	uint64_t nr = le64_to_cpu(sb->nr_mounts), used;

	ck->fs->nr_blocks = le64_to_cpu(sb->nr_blocks);
	ck->fs->data_start = le64_to_cpu(sb->data_start);
	for (uint32_t i = 0; i < le32_to_cpu(sb->nr_lanes); i++) {
		used = clean_lane(ck, off + i * FOLIOFS_LANE_SIZE);
		if (used > nr)
			nr = used;
	}
	pmem_fence(ck->fs->pm);
	store_word(ck, copy + MOUNTS_OFF, nr);
}

/* The first superblock is no good: is there one at the device's end? */
static int try_copy(struct check *ck, int ret)
{
	uint64_t nr = ck->fs->pm->size >> BLOCK_SHIFT;
	uint64_t off = (nr - 1) << BLOCK_SHIFT;
	struct foliofs_superblock copy;

	memcpy(&copy, pmem_at(ck->fs->pm, off), sizeof(copy));
	if (super_check(&copy, nr, ck->opt->device, NULL) != 0 ||
	    le64_to_cpu(copy.nr_blocks) != nr) {
		if (ret == -EUCLEAN)
			err_set(ck->err, ret,
				"%s: superblock damaged, and so is its copy; "
				"this cannot be repaired",
				ck->opt->device);
		return ret;
	}
	fault(ck, 0, 0, "superblock: damaged, and its copy is good");
	take_new_numbers(ck, off);
	copy_super(ck, 0, off);
	return 0;
}

int check_super(struct check *ck)
{
	struct foliofs *fs = ck->fs;
	struct foliofs_superblock sb;
	int ret;

	if (fs->pm->size < FOLIOFS_MIN_BLOCKS * BLOCK_SIZE)
		return err_set(ck->err, -EINVAL,
			       "%s: too small for a foliofs: %" PRIu64 " bytes",
			       ck->opt->device, fs->pm->size);
	memcpy(&sb, pmem_at(fs->pm, 0), sizeof(sb));
	ret = super_check(&sb, fs->pm->size >> BLOCK_SHIFT, ck->opt->device,
			  ck->err);
	if (ret == -EUCLEAN || ret == -EINVAL)
		ret = try_copy(ck, ret);
	if (ret)
		return ret;
	memcpy(&sb, pmem_at(fs->pm, 0), sizeof(sb));
	fs->nr_blocks = le64_to_cpu(sb.nr_blocks);
	fs->data_start = le64_to_cpu(sb.data_start);
	ck->result->nr_blocks = fs->nr_blocks;
	if ((le64_to_cpu(sb.ro_compat) & ~FOLIOFS_RO_COMPAT) && ck->opt->repair)
		return err_set(ck->err, -ENOTSUP,
			       "%s: unknown features %#" PRIx64
			       "; use a newer foliofs to repair it",
			       ck->opt->device, le64_to_cpu(sb.ro_compat));
	return 0;
}

void check_lanes(struct check *ck)
{
	const struct foliofs_superblock *sb = super_at(ck, 0);
	uint64_t off = le64_to_cpu(sb->lane_off);
	struct foliofs_lane rec;

	for (uint32_t i = 0; i < le32_to_cpu(sb->nr_lanes);
	     i++, off += FOLIOFS_LANE_SIZE) {
		switch (journal_record(ck->fs, off, &rec)) {
		case RECORD_NONE:
			break;
		case RECORD_TORN:
			problem(ck, CHECK_INFO, 0, off, true,
				"lane %u: a record that was not finished", i);
			break;
		case RECORD_WHOLE:
			problem(ck, CHECK_INFO, 0, off, true,
				"lane %u: record %" PRIu64
				" of %u words to replay",
				i, le64_to_cpu(rec.seq), le32_to_cpu(rec.nr));
			ck->result->nr_replayed++;
			break;
		case RECORD_STRAY:
			fault(ck, 0, off,
			      "lane %u: a record with words where none may be",
			      i);
			/* The replay would take it away without a word. */
			ck->result->nr_changes++;
			break;
		}
	}
}

/* Does this slot lead to a root directory? */
static bool leads_to_root(const struct check *ck, uint64_t slot)
{
	const struct foliofs_inode *di;
	struct tree_run run;

	if (tree_lookup(ck->fs, slot, 0, 1, false, &run) ||
	    run.type != SLOT_DATA)
		return false;
	di = (const struct foliofs_inode *)pmem_at(ck->fs->pm,
						   run.block << BLOCK_SHIFT);
	return S_ISDIR(le32_to_cpu(di[FOLIOFS_ROOT_INO].mode));
}

/* Records set both roots, so after the replay they are the same. */
static void compare_roots(struct check *ck)
{
	uint64_t first = pmem_load64(ck->fs->pm, ROOT_OFF);
	uint64_t second = pmem_load64(ck->fs->pm, copy_off(ck) + ROOT_OFF);
	uint64_t good = first;

	if (first != second) {
		fault(ck, 0, ROOT_OFF,
		      "superblock: root of the inode table %#" PRIx64
		      ", but in the copy %#" PRIx64,
		      first, second);
		if (!leads_to_root(ck, first) && leads_to_root(ck, second))
			good = second;
		store_word(ck, ROOT_OFF, good);
		store_word(ck, copy_off(ck) + ROOT_OFF, good);
		ck->result->nr_changes++;
	}
	if (good == 0 || !slot_valid(ck->fs, good, TREE_ROOT) ||
	    slot_type(good) == SLOT_UNWRITTEN)
		ck->ret = err_set(ck->err, -EUCLEAN,
				  "%s: the inode table is lost (root slot "
				  "%#" PRIx64 "); this cannot be repaired",
				  ck->opt->device, good);
}

void check_super_after(struct check *ck)
{
	const struct foliofs_superblock *sb = super_at(ck, 0);
	uint64_t state = le64_to_cpu(sb->state);

	compare_roots(ck);
	if (memcmp(sb, super_at(ck, copy_off(ck)), FIXED_PART) != 0) {
		fault(ck, 0, copy_off(ck),
		      "superblock: the copy is not the same");
		copy_super(ck, copy_off(ck), 0);
	}
	if (state == FOLIOFS_DIRTY) {
		problem(ck, CHECK_INFO, 0, STATE_OFF, true,
			"superblock: was not unmounted");
	} else if (state != FOLIOFS_CLEAN) {
		fault(ck, 0, STATE_OFF, "superblock: unknown state %#" PRIx64,
		      state);
		store_word(ck, STATE_OFF, FOLIOFS_DIRTY);
		ck->result->nr_changes++;
	}
}

void repair_mark_clean(struct check *ck)
{
	if (pmem_load64(ck->fs->pm, STATE_OFF) != FOLIOFS_CLEAN)
		store_word(ck, STATE_OFF, FOLIOFS_CLEAN);
}
