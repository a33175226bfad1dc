/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/policy_bad.c - policies that are wrong in one way each
 *
 * Built once with each NONSENSE, ABI, SIZE or NAME that a policy must not have.
 */
#include <foliofs/policy.h>
#include <stddef.h>

#ifndef ABI
#define ABI POLICY_ABI
#endif
#ifndef NAME
#define NAME "bad"
#endif

static void busy(const uint64_t *conf, const struct policy_break *b,
		 struct policy_answer *a)
{
	(void)conf;
	/* All kinds of nonsense in turn; the last one is none. */
	switch (b->nr_rounds) {
	case 0:
		a->verdict = 4711;
		break;
	case 1:
		break; /* no answer at all */
	case 2:
		policy_fail(a, -5);
		break;
	case 3:
		policy_fail(a, 100000);
		break;
	case 4:
		a->verdict = POLICY_UNSAFE;
		break;
	case 5:
		policy_revoke(a, (enum policy_how)77, 1);
		break;
	case 6: /* somebody who has nothing to do with it */
		policy_revoke(a, POLICY_KILL, 1);
		a->client = 1234567;
		break;
	case 7:
		policy_wait(a, UINT64_MAX);
		break;
	default:
		policy_wait(a, 1);
	}
}

const struct policy foliofs_policy = {
	.abi = ABI,
	.size = sizeof(struct policy),
	.name = NAME,
	.what = "nonsense",
	.busy = busy,
};
