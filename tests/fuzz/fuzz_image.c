/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/fuzz_image.c - the same cases, with the fuzzer choosing the bytes
 *
 *	fuzz_image -max_len=160 new-corpus/ tests/fuzz/corpus/
 *
 * An input that finds something is kept in corpus/ under a name that says
 * what it was, and from then on is an ordinary test.
 */
#include "tests/fuzz/image.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	image_setup();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	image_case(data, size);
	return 0;
}
