/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy/revoke.c - end whoever is in the way
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
	if (b->nr_all == 0) {
		policy_wait(a, POLICY_MS);
	} else if (holds(b, b->pid) && (b->flags & POLICY_CAN_FAIL)) {
		/* It would end the one who asks. */
		policy_fail(a, EDEADLK);
	} else {
		policy_revoke(a, conf[0] ? POLICY_KILL : POLICY_UNMAP,
			      AGAIN_NS);
	}
}

const struct policy policy_revoke_table = {
	.abi = POLICY_ABI,
	.size = sizeof(struct policy),
	.name = "revoke",
	.what = "end whoever holds blocks that are wanted",
	.keys = { { "kill", 1, 0, 1,
		    "1: SIGKILL; 0: its mappings are lost, pins stay" } },
	.busy = busy,
};
