/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/script.h - operations on a filesystem, as text
 *
 * A script is commands with ';' between them; a command is words with spaces
 * between them.  So that a failure can be repeated from what it printed, and
 * random sequences are of the same kind as those written by hand:
 *
 *	create P MODE           mkdir P MODE        mknod P MODE RDEV
 *	symlink P TARGET        link P P2           unlink P     rmdir P
 *	rename P P2 [exchange|noreplace]
 *	write P POS LEN SEED    truncate P SIZE     copy P POS P2 POS2 LEN
 *	rewrite P POS LEN SEED  a write after which nobody looked at the times
 *	falloc|keep|punch|zero|unshare P POS LEN
 *	clone|dedupe P POS P2 POS2 LEN              0: all that follows
 *	chmod P MODE            chown P UID GID     utimes P ATIME MTIME
 *	setxattr P NAME LEN SEED                    removexattr P NAME
 *	acl P access|default PERM                   setflags P FLAGS
 *	open H P     close H    tmpfile H DIR MODE  linkh H P
 *	fill DIR NR LEN         create NR files with names of LEN bytes
 *	drain DIR NR LEN        and unlink them again
 *	collect                 from here on inodes without links wait for
 *	evict                   this, or a batch, before they are freed
 *	chunk P POS             is there one 2 MiB slot?  (changes nothing)
 *	remount                 unmount and mount again
 *	kill                    as a daemon that dies, and mount again
 *
 * A path starts with '/', or is '@' and the number H of an open file.  A word
 * that ends in *N is what is before it with its last letter N times.  '!'
 * before a command: it may fail.
 */
#ifndef CRASH_SCRIPT_H
#define CRASH_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>

#include "dax/err.h"
#include "fs/foliofs.h"
#include "tests/crash/state.h"

#define SCRIPT_HANDLES 4u
#define SCRIPT_MAX_CMD 256u
#define SCRIPT_MIXES   64u

struct inode;

/* A mounted filesystem that commands run on. */
struct script {
	struct foliofs_options opt;
	struct foliofs *fs;
	bool collect; /* inodes without links wait for a batch */
	struct inode *handle[SCRIPT_HANDLES];
	/* What the last command overwrote in place. */
	struct mix mix[SCRIPT_MIXES];
	unsigned int nr_mix;
	struct errmsg err;
};

/* The next command of @text, or NULL; @ret has SCRIPT_MAX_CMD bytes. */
const char *script_next(const char *text, char *ret);

/* @ret_rc: what the filesystem said; false: and that is not acceptable. */
bool script_run(struct script *s, const char *cmd, int *ret_rc);

int script_mount(struct script *s);
void script_unmount(struct script *s);

/* Let go of the device as it is, with everything that was open. */
void script_abandon(struct script *s);

#endif
