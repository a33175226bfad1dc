/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/tree.h - all that can be seen of a tree, as text
 *
 * One line per name, sorted.  Two trees are equal when their texts are, so a
 * difference is a line to read.  Data is a checksum in which a hole and a
 * block of zeros are the same.
 *
 * Ownership. tree_text() gives memory to free().
 * Errors.    NULL, after a line on standard output that says why.
 */
#ifndef TESTS_SUPPORT_TREE_H
#define TESTS_SUPPORT_TREE_H

#include <stdbool.h>

#define TREE_TIMES     0x1u /* mtime and ctime */
#define TREE_ATIME     0x2u
#define TREE_INO       0x4u
#define TREE_BLOCKS    0x8u
#define TREE_OLD_MTIME 0x10u /* mtime where it lies before TREE_NOW */
#define TREE_NO_DATA   0x20u

/*
 * Times before are set by hand, times after are the clock's: filesystems agree
 * in the first and, in the second, only on which of the two it is.
 */
#define TREE_NOW 1600000000

char *tree_text(const char *root, unsigned int flags);

/*
 * Print the first lines that differ.  The names are for the reader.
 * Return: whether the texts are equal.
 */
bool tree_equal(const char *a_name, const char *a, const char *b_name,
		const char *b);

#endif
