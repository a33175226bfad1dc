/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/err.h - one line that says what went wrong, for a person
 *
 * Library code returns a negative errno and does not log.  Where an errno is
 * not enough to act on (opening a device, checking an image), the caller may
 * pass a struct errmsg and gets the sentence as well.
 *
 * Errors.    err_set() returns the errno it was given, so that a failing line
 *            reads `return err_set(e, -EINVAL, "...")`.
 * Ownership. The caller owns the struct errmsg; NULL means nobody asks.
 */
#ifndef DAX_ERR_H
#define DAX_ERR_H

struct errmsg {
	char text[256];
};

int err_set(struct errmsg *msg, int ret, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
