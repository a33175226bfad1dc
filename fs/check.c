/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/check.c - the passes of a check
 *
 * One pass finds and repairs nearly everything, and the next one proves it.
 * A few repairs uncover more (an inode that gets its link back has a tree
 * that was not walked), so passes follow each other until one finds nothing.
 */
#include "fs/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/check_i.h"

/* More passes than this never helped: what is left cannot be repaired. */
#define MAX_PASSES 8

const char *check_phase_name(enum check_phase phase)
{
	static const char *const name[] = {
		[CHECK_TABLE] = "inode table",	   [CHECK_INODES] = "inodes",
		[CHECK_NAMES] = "directories",	   [CHECK_LINKS] = "links",
		[CHECK_REPAIR] = "lost and found",
	};

	return name[phase];
}

void problem(struct check *ck, enum check_severity severity, uint64_t ino,
	     uint64_t off, bool fixable, const char *fmt, ...)
{
	char text[256];
	struct check_problem p = { .severity = severity,
				   .ino = ino,
				   .off = off,
				   .fixable = fixable,
				   .text = text };
	va_list ap;

	if (severity == CHECK_ERROR) {
		ck->pass_errors++;
		if (ck->pass == 1 || fixable)
			ck->result->nr_errors++;
	} else {
		ck->result->nr_infos++;
	}
	if (!ck->opt->report)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ck->opt->report(ck->opt->ctx, &p);
}

void fix_commit(struct check *ck)
{
	int ret;

	/* Lost pages were reported; what is on them stays as it is. */
	(void)pmem_fault_take();
	ret = txn_commit(&ck->txn);
	if (ret && !ck->ret)
		ck->ret = err_set(ck->err, ret, "%s: cannot be written: %s",
				  ck->opt->device, strerror(-ret));
	txn_begin(ck->fs, &ck->txn);
}

void fix_word(struct check *ck, uint64_t off, uint64_t mask, uint64_t value)
{
	uint64_t old = txn_get64(&ck->txn, off);
	uint64_t new = (old & ~mask) | (value & mask);

	if (new == old)
		return;
	if (txn_room(&ck->txn) == 0)
		fix_commit(ck);
	txn_set64(&ck->txn, off, new);
	ck->result->nr_changes++;
}

void push(struct check *ck, struct vec *v, uint64_t x)
{
	if (vec_push(v, x) && !ck->ret)
		ck->ret = err_set(ck->err, -ENOMEM, "out of memory");
}

void progress(struct check *ck, enum check_phase phase, uint64_t done,
	      uint64_t total)
{
	if (!ck->opt->progress || ck->ret)
		return;
	if (!ck->opt->progress(ck->opt->ctx, phase, done, total))
		ck->ret = err_set(ck->err, -ECANCELED, "%s: check interrupted",
				  ck->opt->device);
}

/* Pages that were lost to machine checks read as zeros from now on. */
static void check_media(struct check *ck)
{
	struct pmem_range bad[64];
	unsigned int nr = pmem_bad_ranges(ck->fs->pm, bad, 64);

	for (unsigned int i = 0; i < nr && i < 64; i++)
		problem(ck, CHECK_ERROR, 0, bad[i].off, false,
			"bad media: %" PRIu64 " bytes at %#" PRIx64
			" cannot be read",
			bad[i].len, bad[i].off);
	(void)pmem_fault_take();
}

static void mark_static(struct check *ck)
{
	struct foliofs *fs = ck->fs;

	for (uint64_t b = 0; b < fs->data_start; b++)
		alloc_mark(fs->al, b, 0, BLOCK_STATIC);
	alloc_mark(fs->al, fs->nr_blocks - 1, 0, BLOCK_STATIC);
}

static int pass_begin(struct check *ck)
{
	struct foliofs *fs = ck->fs;

	ck->pass++;
	ck->pass_errors = 0;
	ck->again = false;
	ck->no_root = false;
	ck->table.nr = 0;
	ck->rebuild.nr = 0;
	ck->trim.nr = 0;
	ck->lost.nr = 0;
	if (alloc_create(fs->nr_blocks, 0, &fs->al))
		return err_set(ck->err, -ENOMEM, "out of memory");
	mark_static(ck);
	txn_begin(fs, &ck->txn);
	return 0;
}

static void pass_count(struct check *ck)
{
	struct alloc_stat st;

	alloc_ready(ck->fs->al);
	alloc_stat(ck->fs->al, &st, false);
	ck->result->nr_used = ck->fs->nr_blocks - st.nr_free;
	ck->result->nr_passes = ck->pass;
}

/* 0, or why there is no point in going on; ck->pass_errors is set. */
static int run_pass(struct check *ck)
{
	int ret = pass_begin(ck);

	if (ret)
		return ret;
	ck->result->nr_inodes = 0;
	ck->result->nr_dirs = 0;
	ck->result->nr_names = 0;
	check_table(ck);
	if (!ck->ret)
		check_inodes(ck);
	if (!ck->ret) {
		fix_commit(ck);
		check_names(ck);
	}
	if (!ck->ret)
		check_links(ck);
	check_media(ck);
	fix_commit(ck);
	if (!ck->ret) {
		pass_count(ck);
		if (ck->opt->repair && !ck->again)
			repair_trees(ck);
	}
	fix_commit(ck);
	txn_abort(&ck->txn);
	journal_settle(ck->fs);
	alloc_destroy(ck->fs->al);
	ck->fs->al = NULL;
	free(ck->rec);
	ck->rec = NULL;
	return ck->ret;
}

static void close_fs(struct check *ck)
{
	if (!ck->fs)
		return;
	journal_close(ck->fs);
	pmem_close(ck->fs->pm);
	free(ck->fs);
	ck->fs = NULL;
}

static int open_fs(struct check *ck)
{
	const struct check_options *opt = ck->opt;
	int ret;

	ck->fs = (struct foliofs *)calloc(1, sizeof(*ck->fs));
	if (!ck->fs)
		return err_set(ck->err, -ENOMEM, "out of memory");
	ck->fs->opt.device = opt->device;
	ck->fs->quiet = true;
	ret = pmem_open(opt->device,
			opt->repair ? PMEM_READ_WRITE : PMEM_PRIVATE,
			opt->granularity, &ck->fs->pm, ck->err);
	if (!ret)
		ret = check_super(ck);
	if (ret)
		return ret;
	check_lanes(ck);
	ret = journal_open(ck->fs, ck->err);
	if (ret)
		return ret;
	check_super_after(ck);
	return ck->ret;
}

/* lost+found needs a filesystem that is open; then the check goes on. */
static int bring_back_lost(struct check *ck)
{
	uint64_t errors = ck->pass_errors;
	int ret;

	if (ck->lost.nr == 0 || ck->again)
		return 0;
	progress(ck, CHECK_REPAIR, 0, ck->lost.nr);
	repair_mark_clean(ck);
	close_fs(ck);
	ret = repair_lost(ck);
	if (!ret)
		ret = open_fs(ck);
	ck->pass_errors = errors;
	return ret;
}

static int run_passes(struct check *ck)
{
	uint64_t changes;
	int ret;

	do {
		changes = ck->result->nr_changes;
		ret = run_pass(ck);
		if (!ret && ck->opt->repair && ck->pass_errors)
			ret = bring_back_lost(ck);
		if (ret)
			return ret;
	} while (ck->opt->repair && ck->pass_errors && ck->pass < MAX_PASSES &&
		 ck->result->nr_changes != changes);
	ck->result->nr_left =
		ck->opt->repair ? ck->pass_errors : ck->result->nr_errors;
	if (ck->opt->repair)
		repair_mark_clean(ck);
	return 0;
}

int foliofs_check(const struct check_options *opt,
		  struct check_result *ret_result, struct errmsg *err)
{
	struct check ck = { .opt = opt, .result = ret_result, .err = err };
	int ret;

	*ret_result = (struct check_result){ 0 };
	vec_init(&ck.table);
	vec_init(&ck.rebuild);
	vec_init(&ck.trim);
	vec_init(&ck.lost);
	ck.pass = 1; /* superblock and lanes belong to the first one */
	ret = open_fs(&ck);
	ck.pass = 0;
	if (!ret)
		ret = run_passes(&ck);
	close_fs(&ck);
	vec_free(&ck.table);
	vec_free(&ck.rebuild);
	vec_free(&ck.trim);
	vec_free(&ck.lost);
	free(ck.names.off);
	return ret;
}
