/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/acl.h - POSIX ACLs as bytes: what acl.c does without an inode
 *
 * An ACL is kept on media, and passed in requests, as the kernel's xattr
 * format has it: a header and entries, in the order owner, users, owning
 * group, groups, mask, others.  Three entries say no more than the mode does;
 * such an ACL is minimal and is not stored.
 *
 * Errors.    -EINVAL for what is not an ACL, -ENOTSUP for another version.
 * Ownership. Buffers are the caller's and need no alignment.
 * Source.    acl(5); posix_acl_valid() and friends of Linux for the details.
 */
#ifndef FS_ACL_H
#define FS_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/media.h"

#define ACL_VERSION 2

#define ACL_TAG_OWNER	     0x01
#define ACL_TAG_USER	     0x02
#define ACL_TAG_OWNING_GROUP 0x04
#define ACL_TAG_GROUP	     0x08
#define ACL_TAG_MASK	     0x10
#define ACL_TAG_OTHER	     0x20

/* The id of an entry that names nobody. */
#define ACL_NO_ID UINT32_MAX

struct acl_header {
	le32 version; /* ACL_VERSION */
};
MEDIA_SIZE(struct acl_header, 4);

struct acl_entry {
	le16 tag;  /* ACL_TAG_* */
	le16 perm; /* rwx: 4, 2, 1 */
	le32 id;   /* of a named user or group */
};
MEDIA_SIZE(struct acl_entry, 8);

/*
 * Turn a default ACL into the access ACL of a new inode: an entry keeps the
 * permissions that @mode asks for as well, and *mode those that the entries
 * leave.  *ret_minimal: the mode says it all.
 */
int acl_mask_create(void *acl, size_t size, uint32_t *mode, bool *ret_minimal);

/* Make owner, others and mask (no mask: owning group) say what @mode says. */
int acl_mask_chmod(void *acl, size_t size, uint32_t mode);

#endif
