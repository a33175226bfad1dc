/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy/lease.c - a time of grace, then the holders are ended
 */
#include "dax/policy_host.h"

#include <errno.h>

/* How long somebody who was killed may take to be gone. */
#define AGAIN_NS (100 * POLICY_MS)

static int holds(const struct policy_break *b, int32_t pid)
{
	for (uint32_t i = 0; i < b->nr_holders; i++)
		if (b->holders[i].pid == pid)
			return 1;
	return 0;
}

static void busy(const uint64_t *conf, const struct policy_break *b,
		 struct policy_answer *a)
{
	uint64_t grace = conf[0] * POLICY_MS;

	/* It would end the one who asks. */
	if (holds(b, b->pid) && (b->flags & POLICY_CAN_FAIL))
		policy_fail(a, EDEADLK);
	else if (b->waited_ns < grace)
		policy_wait(a, grace - b->waited_ns);
	else if (b->nr_all == 0)
		policy_wait(a, POLICY_MS);
	else
		policy_revoke(a, POLICY_KILL, AGAIN_NS);
}

const struct policy policy_lease_table = {
	.abi = POLICY_ABI,
	.size = sizeof(struct policy),
	.name = "lease",
	.what = "recall, a time of grace, then end whoever holds on",
	.keys = { { "grace_ms", 5000, 0, 86400000, "the time of grace" } },
	.busy = busy,
};
