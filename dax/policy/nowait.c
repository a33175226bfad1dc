/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy/nowait.c - never sleep for somebody else
 */
#include "dax/policy_host.h"

#include <errno.h>

static void busy(const uint64_t *conf, const struct policy_break *b,
		 struct policy_answer *a)
{
	(void)conf;
	(void)b;
	policy_fail(a, EAGAIN);
}

/* A mapping has to be asked for all the same; not everybody is quick. */
static uint64_t recall_ms(const uint64_t *conf)
{
	return conf[0];
}

const struct policy policy_nowait_table = {
	.abi = POLICY_ABI,
	.size = sizeof(struct policy),
	.name = "nowait",
	.what = "EAGAIN at once when blocks are in use",
	.keys = { { "recall_ms", 50, 1, 60000,
		    "how long a client has to answer a recall" } },
	.busy = busy,
	.recall_ms = recall_ms,
};
