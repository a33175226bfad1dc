/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/mtest_main.c - main() of the programs of named tests
 *
 * It stands alone because other programs use the rest of tests/support.
 */
#include <stdlib.h>

#include "tests/support/mtest.h"

int main(int argc, char **argv)
{
	/* What is preloaded is here by now, and not meant for daemons. */
	unsetenv("LD_PRELOAD");
	return mtest_main(argc, argv);
}
