/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy/fail.c - refuse what a long-term pin would hold up
 */
#include "dax/policy_host.h"

#include <errno.h>

static int is_long(const struct policy_holder *h)
{
	return h->kind == POLICY_HOLD_LONG || h->kind == POLICY_HOLD_STUCK ||
	       h->kind == POLICY_HOLD_GONE;
}

static void busy(const uint64_t *conf, const struct policy_break *b,
		 struct policy_answer *a)
{
	(void)conf;
	for (uint32_t i = 0; i < b->nr_holders; i++) {
		if (is_long(&b->holders[i])) {
			policy_fail(a, ETXTBSY);
			return;
		}
	}
	policy_wait(a, 0); /* for a transfer, which ends */
}

const struct policy policy_fail_table = {
	.abi = POLICY_ABI,
	.size = sizeof(struct policy),
	.name = "fail",
	.what = "ETXTBSY when a pin is long-term or its client does not "
		"answer",
	.busy = busy,
};
