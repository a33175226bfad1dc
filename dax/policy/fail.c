/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy/fail.c - refuse what a long-term pin would hold up
 *
 * As with a program that runs, and cannot be written to.  A pin is long-term
 * when its owner said so, or when it has been there for long: not everybody
 * who keeps a page knows for how long he will.  One that has ended its session
 * is most often about to exit.
 */
#include "dax/policy_host.h"

#include <errno.h>

static int is_long(const struct policy_holder *h, uint64_t limit)
{
	return h->kind == POLICY_HOLD_LONG || h->kind == POLICY_HOLD_STUCK ||
	       h->age_ns >= limit;
}

static void busy(const uint64_t *conf, const struct policy_break *b,
		 struct policy_answer *a)
{
	uint64_t limit = conf[0] * POLICY_MS, oldest = 0;

	for (uint32_t i = 0; i < b->nr_holders; i++) {
		if (is_long(&b->holders[i], limit) &&
		    (b->flags & POLICY_CAN_FAIL)) {
			policy_fail(a, ETXTBSY);
			return;
		}
		if (b->holders[i].age_ns > oldest)
			oldest = b->holders[i].age_ns;
	}
	/* For a transfer, which ends; or until it is none. */
	policy_wait(a, oldest < limit ? limit - oldest : limit);
}

const struct policy policy_fail_table = {
	.abi = POLICY_ABI,
	.size = sizeof(struct policy),
	.name = "fail",
	.what = "ETXTBSY when a pin is long-term or its client does not "
		"answer",
	.keys = { { "long_ms", 1000, 1, 86400000,
		    "a pin as old as this is long-term" } },
	.busy = busy,
};
