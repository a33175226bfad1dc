/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/check.h - is everything on a foliofs as it must be?
 *
 * The mount walk with every doubt reported, and with the names as well: what
 * the mount takes on trust (link counts, parents, that every inode can be
 * reached) is compared too.
 *
 * A check without repair works on a private copy of the device: it replays
 * the journal and repairs there, so that what follows from a damaged place is
 * not reported as one more damage, and the device does not change.
 *
 * Repair changes words through transactions.  A crash in between leaves a
 * filesystem with fewer faults than before.
 *
 * Errors.    Negative errno with a sentence when the check could not run;
 *            what it found is in struct check_result.
 * Locking.   One thread; the device must not be mounted read-write.
 */
#ifndef FS_CHECK_H
#define FS_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "dax/err.h"
#include "dax/pmem.h"

enum check_severity {
	CHECK_INFO,  /* as a crash leaves it; a mount settles it */
	CHECK_ERROR, /* cannot be */
};

struct check_problem {
	enum check_severity severity;
	uint64_t ino; /* 0: not of an inode */
	uint64_t off; /* media offset, 0: none */
	bool fixable;
	const char *text; /* a sentence without a full stop */
};

enum check_phase {
	CHECK_TABLE,
	CHECK_INODES,
	CHECK_NAMES,
	CHECK_LINKS,
	CHECK_REPAIR,
};
const char *check_phase_name(enum check_phase phase);

struct check_options {
	const char *device;
	bool repair;
	enum pmem_granularity granularity;
	/* Both may be NULL.  progress() answers false to stop the check. */
	void (*report)(void *ctx, const struct check_problem *p);
	bool (*progress)(void *ctx, enum check_phase phase, uint64_t done,
			 uint64_t total);
	void *ctx;
};

struct check_result {
	uint64_t nr_errors; /* faults found */
	uint64_t nr_left;   /* of those, not repaired */
	uint64_t nr_infos;
	uint64_t nr_changes; /* words that repair has set */
	uint64_t nr_replayed;
	unsigned int nr_passes;
	uint64_t nr_inodes, nr_dirs, nr_names;
	uint64_t nr_blocks, nr_used;
};

/**
 * foliofs_check() - check, and repair if asked to
 *
 * Return: 0 when the check ran to its end; -ECANCELED when progress() stopped
 * it; -EBUSY in use; -EINVAL not a foliofs; -ENOTSUP a newer one; -EUCLEAN
 * when so much is lost that there is nothing to check.
 */
int foliofs_check(const struct check_options *opt,
		  struct check_result *ret_result, struct errmsg *err);

#endif
