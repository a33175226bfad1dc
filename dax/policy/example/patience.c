/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy/example/patience.c - a policy of one's own, out of the tree
 *
 * Waits, but not for those who hold pages for as long as they like: after
 * conf[0] milliseconds the operation is put off if it can be, and else fails.
 *
 *	make && mount.foliofs DEVICE DIR -o policy=$PWD/patience.so:ms=20
 */
#include <errno.h>
#include <foliofs/policy.h>

static void busy(const uint64_t *conf, const struct policy_break *b,
		 struct policy_answer *a)
{
	uint64_t limit = conf[0] * POLICY_MS;

	if (b->waited_ns < limit)
		policy_wait(a, limit - b->waited_ns);
	else if (b->flags & POLICY_CAN_DEFER)
		policy_defer(a);
	else
		policy_fail(a, EBUSY);
}

const struct policy foliofs_policy = {
	.abi = POLICY_ABI,
	.size = sizeof(struct policy),
	.name = "patience",
	.what = "wait for a while, then put it off",
	.keys = { { "ms", 100, 0, 60000, "how long is a while" } },
	.busy = busy,
};
