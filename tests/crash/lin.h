/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/lin.h - orders in which overlapping operations may have taken
 *		       effect
 *
 * Of two operations of which one was acknowledged before the other began, the
 * first comes first.  Otherwise any order will do that gives every
 * acknowledged operation the answer it was given.
 */
#ifndef CRASH_LIN_H
#define CRASH_LIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIN_MAX_OPS 10u

struct lin_op {
	size_t begin, end; /* where in the log */
	int rc;
};

struct lin {
	unsigned int nr;
	struct lin_op op[LIN_MAX_OPS];
	/*
	 * Somebody's business: op @order[0] to @order[nr - 1] in this order;
	 * false: the answers are not those that were given.
	 */
	bool (*each)(void *ctx, const unsigned char *order, unsigned int nr);
	void *ctx;
};

/*
 * Call each() for all orders of the operations in @must and any of those in
 * @may (masks); returns how many were called with true for an answer.
 */
unsigned int lin_orders(const struct lin *l, uint32_t must, uint32_t may);

#endif
