/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy/unsafe.c - hand on blocks that are in use, to see it caught
 */
#include "dax/policy_host.h"

#include <errno.h>

static void busy(const uint64_t *conf, const struct policy_break *b,
		 struct policy_answer *a)
{
	(void)conf;
	if (b->flags & POLICY_CAN_DEFER)
		a->verdict = POLICY_UNSAFE;
	else
		policy_wait(a, 0);
}

const struct policy policy_unsafe_table = {
	.abi = POLICY_ABI,
	.size = sizeof(struct policy),
	.name = "unsafe",
	.what = "CORRUPTS DATA: blocks in use are handed on, for tests of "
		"tests",
	.busy = busy,
};
