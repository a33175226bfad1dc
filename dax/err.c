/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/err.c - one line that says what went wrong, for a person
 */
#include "dax/err.h"

#include <stdarg.h>
#include <stdio.h>

int err_set(struct errmsg *msg, int ret, const char *fmt, ...)
{
	va_list ap;

	if (!msg)
		return ret;
	va_start(ap, fmt);
	vsnprintf(msg->text, sizeof(msg->text), fmt, ap);
	va_end(ap);
	return ret;
}
