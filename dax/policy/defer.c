/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy/defer.c - finish now, and keep the blocks until they are idle
 */
#include "dax/policy_host.h"

#include <errno.h>

static void busy(const uint64_t *conf, const struct policy_break *b,
		 struct policy_answer *a)
{
	(void)conf;
	if (b->flags & POLICY_CAN_DEFER)
		policy_defer(a);
	else
		policy_wait(a, 0); /* blocks that move, or change owners */
}

const struct policy policy_defer_table = {
	.abi = POLICY_ABI,
	.size = sizeof(struct policy),
	.name = "defer",
	.what = "finish at once; blocks in use come back when they are idle",
	.busy = busy,
};
