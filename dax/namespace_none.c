/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/namespace_none.c - no libndctl: nothing is known of namespaces
 */
#include <errno.h>

#include "dax/namespace.h"

int ns_scan(struct ns_set *ret, struct errmsg *err)
{
	*ret = (struct ns_set){ 0 };
	return err_set(err, -ENOTSUP,
		       "namespaces are not known: foliofs was built without "
		       "libndctl; name the device by its path");
}
