/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy/wait.c - as long as it takes, as the kernel does
 */
#include "dax/policy_host.h"

#include <errno.h>

static void busy(const uint64_t *conf, const struct policy_break *b,
		 struct policy_answer *a)
{
	(void)conf;
	(void)b;
	policy_wait(a, 0);
}

const struct policy policy_wait_table = {
	.abi = POLICY_ABI,
	.size = sizeof(struct policy),
	.name = "wait",
	.what = "wait until nobody uses the blocks, as the kernel does",
	.busy = busy,
};
