/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/lin.c - orders in which overlapping operations may have taken
 *		       effect
 */
#include "tests/crash/lin.h"

struct search {
	const struct lin *l;
	unsigned char order[LIN_MAX_OPS];
	unsigned int nr;
	unsigned int found;
};

/* Was some other operation of @left over before @op began? */
static bool has_earlier(const struct lin *l, uint32_t left, unsigned int op)
{
	for (unsigned int i = 0; i < l->nr; i++)
		if (i != op && left & 1u << i && l->op[i].end < l->op[op].begin)
			return true;
	return false;
}

static void extend(struct search *s, uint32_t left)
{
	if (left == 0) {
		s->found += s->l->each(s->l->ctx, s->order, s->nr);
		return;
	}
	for (unsigned int i = 0; i < s->l->nr; i++) {
		if (!(left & 1u << i) || has_earlier(s->l, left, i))
			continue;
		s->order[s->nr++] = (unsigned char)i;
		extend(s, left & ~(1u << i));
		s->nr--;
	}
}

unsigned int lin_orders(const struct lin *l, uint32_t must, uint32_t may)
{
	struct search s = { .l = l };
	uint32_t some = may;

	for (;;) {
		extend(&s, must | some);
		if (some == 0)
			return s.found;
		some = (some - 1) & may;
	}
}
