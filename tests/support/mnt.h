/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/mnt.h - a filesystem on a file in memory, mounted for a test
 *
 * The filesystem under test is foliofs, unless FOLIOFS_TEST_FS names another
 * (xfs, ext4, tmpfs) or FOLIOFS_TEST_DIR names a directory that exists: the
 * same tests then say whether they ask for something that Linux filesystems
 * do.  A struct mnt lives in shared memory, for a test changes it (remount,
 * crash) and the supervisor has to know.
 *
 * Errors.    Negative errno, with a line on standard output that says why.
 * Locking.   None: one process at a time works on a struct mnt.
 * Source.    FOLIOFS_BIN, FOLIOFS_MKFS and FOLIOFS_FSCK name the programs.
 */
#ifndef TESTS_SUPPORT_MNT_H
#define TESTS_SUPPORT_MNT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct mnt_kind;

struct mnt {
	const struct mnt_kind *kind;
	char dir[256];	/* where it is mounted */
	char dev[256];	/* the device file */
	char log[256];	/* what the daemon and the tools said */
	char opts[256]; /* mount options of every mount, of the variant */
	uint64_t size;	/* of the device, bytes */
	bool mounted;
	pid_t daemon;		/* 0: none */
	volatile bool ended;	/* the supervisor reaped the daemon */
	volatile int status;	/* as wait(2) gives it, once ended */
	volatile bool expected; /* nobody is surprised that it ended */
};

/* What a kind of filesystem can do; tests skip what it cannot. */
#define MNT_FOLIOFS 0x1u
#define MNT_REMOUNT 0x2u
#define MNT_CRASH   0x4u
#define MNT_EXT4    0x8u
#define MNT_XFS	    0x10u
#define MNT_TMPFS   0x20u

/* The kind called name (NULL: what the environment says), or NULL. */
const struct mnt_kind *mnt_kind(const char *name);
const char *mnt_kind_name(const struct mnt_kind *kind);
unsigned int mnt_kind_flags(const struct mnt_kind *kind);

/* Why this kind cannot be mounted here, or NULL when it can. */
const char *mnt_missing(const struct mnt_kind *kind);

/*
 * Prepare @m, in memory from sandbox_shared(), with paths below the work
 * directory that carry @name.  Sets sandbox_reaped for the daemon.
 */
void mnt_init(struct mnt *m, const struct mnt_kind *kind, const char *name);

/* Make the device file and the filesystem on it, of at least @size bytes. */
int mnt_make(struct mnt *m, uint64_t size);

/* Mount it; returns when it answers.  @more: options, NULL for none. */
int mnt_mount(struct mnt *m, const char *more);

/* Unmount and wait until the daemon has ended; -EIO when it ended badly. */
int mnt_unmount(struct mnt *m);

/*
 * Take the filesystem away without warning, as SIGKILL of the daemon does, and
 * detach the mount.  What had been answered must be there after mnt_mount().
 */
int mnt_crash(struct mnt *m);

/* The first half of mnt_crash(): callers in system calls get their errors. */
int mnt_kill(struct mnt *m);

/* Check the unmounted filesystem.  Return: 0 when clean, else -EUCLEAN. */
int mnt_fsck(struct mnt *m);

/* Remove the device file and the log. */
void mnt_remove(struct mnt *m);

/* Print the last lines of the log. */
void mnt_print_log(const struct mnt *m);

#endif
