/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy/timeout.c - wait, but not for ever
 */
#include "dax/policy_host.h"

#include <errno.h>

static void busy(const uint64_t *conf, const struct policy_break *b,
		 struct policy_answer *a)
{
	uint64_t limit = conf[0] * POLICY_MS;

	if (b->waited_ns >= limit)
		policy_fail(a, ETIMEDOUT);
	else
		policy_wait(a, limit - b->waited_ns);
}

/* A client that does not answer is part of the time. */
static uint64_t recall_ms(const uint64_t *conf)
{
	return conf[0] < 1000 ? conf[0] : 1000;
}

const struct policy policy_timeout_table = {
	.abi = POLICY_ABI,
	.size = sizeof(struct policy),
	.name = "timeout",
	.what = "wait for so long, then ETIMEDOUT",
	.keys = { { "ms", 1000, 1, 86400000, "how long, in all" } },
	.busy = busy,
	.recall_ms = recall_ms,
};
