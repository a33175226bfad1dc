/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/populate.h - a filesystem with one of everything in it
 */
#ifndef TESTS_FUZZ_POPULATE_H
#define TESTS_FUZZ_POPULATE_H

#include <stdbool.h>
#include <stdint.h>

/* In a new file.  @crash: leave it as a crash would, with live records. */
void populate(const char *path, uint64_t size, bool crash);

#endif
