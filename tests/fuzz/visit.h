/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/visit.h - do with a mounted filesystem what programs do
 */
#ifndef TESTS_FUZZ_VISIT_H
#define TESTS_FUZZ_VISIT_H

#include <stdbool.h>

struct foliofs;

/*
 * Look at every name, byte and attribute.  @change: and change a bit of
 * everything.  Returns the number of operations that found damage.
 */
unsigned int visit(struct foliofs *fs, bool change);

#endif
