/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/rng.h - numbers that are random and yet the same in every run
 */
#ifndef CRASH_RNG_H
#define CRASH_RNG_H

#include <stdint.h>

struct rng {
	uint64_t state;
};

/* The finaliser of splitmix64: every bit of @x changes every bit. */
static inline uint64_t rng_mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static inline uint64_t rng_next(struct rng *r)
{
	r->state += UINT64_C(0x9e3779b97f4a7c15);
	return rng_mix(r->state);
}

/* Below @n, which is at least 1; the bias is of no account here. */
static inline unsigned int rng_below(struct rng *r, unsigned int n)
{
	return (unsigned int)((rng_next(r) >> 32) % n);
}

#endif
