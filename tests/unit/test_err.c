/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_err.c - one line that says what went wrong
 */
#include "dax/err.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(err_set, returns_the_errno_it_was_given)
{
	struct errmsg msg = { "before" };

	cr_expect_eq(err_set(&msg, -EINVAL, "%s: %d", "device", 7), -EINVAL);
	cr_expect_str_eq(msg.text, "device: 7");
}

Test(err_set, does_so_when_nobody_asks)
{
	cr_expect_eq(err_set(NULL, -EIO, "%s", "lost"), -EIO);
}

Test(err_set, cuts_what_is_too_long)
{
	char text[1000];
	struct errmsg msg;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	cr_expect_eq(err_set(&msg, -EIO, "%s", text), -EIO);
	cr_expect_eq(strlen(msg.text), sizeof(msg.text) - 1);
}
