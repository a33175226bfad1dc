/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/client.h - what the rest of the library offers to libfoliofs-preload
 *
 * Errors.    Negative errno.
 */
#ifndef DAX_LIB_CLIENT_H
#define DAX_LIB_CLIENT_H

#include "dax/lib/foliofs.h"
#include "dax/lib/foliofs_ioctl.h"

/* As foliofs_attach() with the token that an ioctl gave. */
int client_attach(const struct foliofs_ioc_token *token,
		  struct foliofs_file **ret_file);

/*
 * The daemon and the file's place in what is shared with it; NULL when the
 * daemon is gone.
 */
struct session_mailbox *client_mail(const struct foliofs_file *file);

#endif
