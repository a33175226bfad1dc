/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/scenarios.h - what is crashed
 */
#ifndef CRASH_SCENARIOS_H
#define CRASH_SCENARIOS_H

#include "tests/crash/explore.h"

/* Ends with an entry that has no name. */
extern const struct scenario scenarios[];

/*
 * A sequence of operations that @seed chooses, named "random-SEED"; with
 * every second seed data=cow.  Valid until the next call.
 */
const struct scenario *scenario_random(uint64_t seed);

#endif
