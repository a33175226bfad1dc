/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/reach.h - does the allocator know what the trees know?
 */
#ifndef CRASH_REACH_H
#define CRASH_REACH_H

#include "dax/err.h"

struct foliofs;

/*
 * Walk every tree from the superblock on, on our own, and compare: a block is
 * in use if and only if something reaches it, and its share count is the
 * number of slots that do.  @fs must have no open files without a name.
 */
int reach_check(struct foliofs *fs, struct errmsg *err);

#endif
