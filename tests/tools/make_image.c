/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/tools/make_image.c - an image with one of everything in it
 *
 *	make_image FILE [crash]
 */
#include <stddef.h>

#include "tests/fuzz/populate.h"

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	populate(argv[1], UINT64_C(8) << 20, argc > 2);
	return 0;
}
