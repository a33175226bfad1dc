/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/ops.h - the operations of a foliofs, as libfuse calls them
 *
 * The userdata of the session is the struct foliofs.
 */
#ifndef FS_OPS_H
#define FS_OPS_H

#include "fs/conn.h"

struct fuse_lowlevel_ops;

extern const struct fuse_lowlevel_ops foliofs_ops;

/* An INTERRUPT for a request that waits for a layout break; conn.h. */
bool ops_interrupted(void *fs, uint64_t unique);

/* Opcodes that libfuse does not parse. */
extern const struct raw_op foliofs_raw_ops[];
extern const unsigned int foliofs_nr_raw_ops;

#endif
