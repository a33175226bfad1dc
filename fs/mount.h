/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/mount.h - attach a FUSE session to a directory, and take it away again
 *
 * Mounting itself is libfuse's: mount(2) for root and fusermount3 for others.
 * What is here makes one sentence of its messages, and unmounts only what is
 * still ours.
 *
 * Errors.    Negative errno, with a sentence that says what to do.
 * Locking.   For one thread.  mount_detach() may need the filesystem to
 *            answer, so that thread must not be the one that receives.
 */
#ifndef FS_MOUNT_H
#define FS_MOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "dax/err.h"

struct fuse_session;

struct mount {
	char *dir; /* absolute */
	uint32_t dev_major, dev_minor;
	uint64_t id; /* never given twice; 0 where the kernel has none */
	bool attached;
};

/*
 * Find out whether a mount on @dir can work, before anything is changed; and
 * its absolute path.  mount_free() in any case.
 */
int mount_prepare(struct mount *m, const char *dir, struct errmsg *err);
void mount_free(struct mount *m);

int mount_attach(struct mount *m, struct fuse_session *se, struct errmsg *err);

/* Wait until the mount answers; the session's threads must be running. */
int mount_probe(struct mount *m, struct errmsg *err);

/*
 * Take the mount away, if what is on the directory is still ours; open files
 * stay usable.  @alive: the connection has not ended.  If it has, the device
 * number may be another mount's already, so that only kernels that number
 * their mounts (6.8) let us be sure.
 */
void mount_detach(struct mount *m, bool alive);

/* Read-ahead of the mount; without the right to set it, it stays. */
void mount_read_ahead(const struct mount *m, unsigned int kb);

#endif
