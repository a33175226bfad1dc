/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/acl.c - POSIX ACLs, and how they and the mode follow each other
 *
 * The kernel decides who may do what; here an ACL is only kept in step with
 * the mode: when an ACL is set, when an inode is made in a directory with a
 * default ACL, and at chmod.
 *
 * Entries are copied in and out, because a value in a request starts where
 * the name before it ends.
 */
#include "fs/acl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/fs.h"

#define ACL_PERM_MASK 07u

/* Where the permissions of a class stand in the mode. */
#define SHIFT_OWNER 6
#define SHIFT_GROUP 3
#define SHIFT_OTHER 0

static size_t entry_pos(unsigned int i)
{
	return sizeof(struct acl_header) + i * sizeof(struct acl_entry);
}

static unsigned int acl_nr(size_t size)
{
	return (unsigned int)((size - sizeof(struct acl_header)) /
			      sizeof(struct acl_entry));
}

static struct acl_entry entry_load(const void *acl, unsigned int i)
{
	struct acl_entry e;

	memcpy(&e, (const char *)acl + entry_pos(i), sizeof(e));
	return e;
}

static uint32_t entry_perm(const void *acl, unsigned int i)
{
	struct acl_entry e = entry_load(acl, i);

	return le16_to_cpu(e.perm);
}

static void entry_set_perm(void *acl, unsigned int i, uint32_t perm)
{
	struct acl_entry e = entry_load(acl, i);

	e.perm = cpu_to_le16((uint16_t)perm);
	memcpy((char *)acl + entry_pos(i), &e, sizeof(e));
}

/* What acl_parse() found.  Entries that are not there are 0: the owner is. */
struct acl_index {
	unsigned int nr;
	unsigned int group; /* owning group */
	unsigned int mask;  /* or 0 */
	unsigned int other;
	bool named; /* has users or groups by id */
};

/*
 * The tags in their order.  A tag may follow one of those before it; only
 * named users and groups may be there twice.
 */
static int entry_place(const struct acl_entry *e, unsigned int i,
		       unsigned int prev, struct acl_index *ix)
{
	unsigned int tag = le16_to_cpu(e->tag);

	switch (tag) {
	case ACL_TAG_OWNER:
		return i == 0 ? 0 : -EINVAL;
	case ACL_TAG_OWNING_GROUP:
		ix->group = i;
		return prev < tag ? 0 : -EINVAL;
	case ACL_TAG_USER:
	case ACL_TAG_GROUP:
		ix->named = true;
		if (le32_to_cpu(e->id) == ACL_NO_ID)
			return -EINVAL;
		return prev <= tag ? 0 : -EINVAL;
	case ACL_TAG_MASK:
		ix->mask = i;
		return prev < tag ? 0 : -EINVAL;
	case ACL_TAG_OTHER:
		ix->other = i;
		return prev < tag ? 0 : -EINVAL;
	default:
		return -EINVAL;
	}
}

static int header_check(const void *acl, size_t size)
{
	struct acl_header h;

	if (size < sizeof(h) || size > ACL_XATTR_MAX ||
	    (size - sizeof(h)) % sizeof(struct acl_entry) != 0)
		return -EINVAL;
	memcpy(&h, acl, sizeof(h));
	return le32_to_cpu(h.version) == ACL_VERSION ? 0 : -ENOTSUP;
}

/*
 * Tags rise, so that an ACL is whole when it begins with the owner, ends with
 * others, has the owning group between them, and a mask if it names anybody.
 */
static int acl_parse(const void *acl, size_t size, struct acl_index *ret_ix)
{
	struct acl_index ix = { 0 };
	unsigned int prev = 0;
	int ret;

	ret = header_check(acl, size);
	if (ret)
		return ret;
	ix.nr = acl_nr(size);
	for (unsigned int i = 0; i < ix.nr; i++) {
		struct acl_entry e = entry_load(acl, i);

		if (le16_to_cpu(e.perm) & ~ACL_PERM_MASK)
			return -EINVAL;
		if (i == 0 && le16_to_cpu(e.tag) != ACL_TAG_OWNER)
			return -EINVAL;
		ret = entry_place(&e, i, prev, &ix);
		if (ret)
			return ret;
		prev = le16_to_cpu(e.tag);
	}
	if (ix.group == 0 || ix.other == 0 || (ix.named && ix.mask == 0))
		return -EINVAL;
	*ret_ix = ix;
	return 0;
}

int acl_check(const void *value, size_t size)
{
	struct acl_index ix;

	return acl_parse(value, size, &ix);
}

/* The entry that the group bits of the mode stand for. */
static unsigned int acl_group_class(const struct acl_index *ix)
{
	return ix->mask ? ix->mask : ix->group;
}

static bool acl_is_minimal(const struct acl_index *ix)
{
	return !ix->named && ix->mask == 0;
}

int acl_to_mode(const void *value, size_t size, uint32_t mode,
		uint32_t *ret_mode, bool *ret_minimal)
{
	struct acl_index ix;
	int ret;

	ret = acl_parse(value, size, &ix);
	if (ret)
		return ret;
	*ret_mode = (mode & ~(uint32_t)ACCESSPERMS) |
		    entry_perm(value, 0) << SHIFT_OWNER |
		    entry_perm(value, acl_group_class(&ix)) << SHIFT_GROUP |
		    entry_perm(value, ix.other) << SHIFT_OTHER;
	*ret_minimal = acl_is_minimal(&ix);
	return 0;
}

/* Leave an entry and its bits in the mode only what both of them have. */
static uint32_t mask_one(void *acl, unsigned int i, uint32_t mode,
			 unsigned int shift)
{
	uint32_t perm = entry_perm(acl, i) & (mode >> shift);

	entry_set_perm(acl, i, perm);
	return (mode & ~(ACL_PERM_MASK << shift)) | perm << shift;
}

int acl_mask_create(void *acl, size_t size, uint32_t *mode, bool *ret_minimal)
{
	struct acl_index ix;
	int ret;

	ret = acl_parse(acl, size, &ix);
	if (ret)
		return ret;
	*mode = mask_one(acl, 0, *mode, SHIFT_OWNER);
	*mode = mask_one(acl, acl_group_class(&ix), *mode, SHIFT_GROUP);
	*mode = mask_one(acl, ix.other, *mode, SHIFT_OTHER);
	*ret_minimal = acl_is_minimal(&ix);
	return 0;
}

int acl_mask_chmod(void *acl, size_t size, uint32_t mode)
{
	struct acl_index ix;
	int ret;

	ret = acl_parse(acl, size, &ix);
	if (ret)
		return ret;
	entry_set_perm(acl, 0, mode >> SHIFT_OWNER & ACL_PERM_MASK);
	entry_set_perm(acl, acl_group_class(&ix),
		       mode >> SHIFT_GROUP & ACL_PERM_MASK);
	entry_set_perm(acl, ix.other, mode >> SHIFT_OTHER & ACL_PERM_MASK);
	return 0;
}

/* A copy of an ACL of an inode; *ret_acl is NULL when it has none. */
static int acl_read(struct inode *ip, const char *name, void **ret_acl,
		    size_t *ret_len) __must_hold_shared(ip->rwsem);

static int acl_read(struct inode *ip, const char *name, void **ret_acl,
		    size_t *ret_len)
{
	void *acl;
	int len;

	*ret_acl = NULL;
	*ret_len = 0;
	if (inode_word(ip, INODE_XATTR) == 0)
		return 0;
	len = xattr_get_locked(ip, name, NULL, 0);
	if (len <= 0)
		return len == -ENODATA ? 0 : len;
	acl = malloc((size_t)len);
	if (!acl)
		return -ENOMEM;
	len = xattr_get_locked(ip, name, acl, (size_t)len);
	if (len < 0) {
		free(acl);
		return len;
	}
	*ret_acl = acl;
	*ret_len = (size_t)len;
	return 0;
}

/* xattr_set() lets nothing in that is not an ACL: it came from elsewhere. */
static int acl_damaged(struct inode *ip, const char *name)
{
	return fs_damaged(ip->fs, "inode %llu: %s is not an ACL",
			  (unsigned long long)ip->ino, name);
}

/* @n->dflt is the directory's default ACL. */
static int acl_inherit(struct inode *dir, struct acl_new *n)
{
	bool minimal;
	int ret;

	n->access = malloc(n->dflt_len);
	if (!n->access)
		return -ENOMEM;
	memcpy(n->access, n->dflt, n->dflt_len);
	n->access_len = n->dflt_len;
	ret = acl_mask_create(n->access, n->access_len, &n->mode, &minimal);
	if (ret)
		return acl_damaged(dir, ACL_DEFAULT);
	if (minimal) {
		free(n->access);
		n->access = NULL;
		n->access_len = 0;
	}
	if (!S_ISDIR(n->mode)) {
		free(n->dflt);
		n->dflt = NULL;
		n->dflt_len = 0;
	}
	return 0;
}

/* The caller holds i_rwsem one way or the other, which has no annotation. */
__no_lock_analysis int acl_create(struct inode *dir, uint32_t mode,
				  uint32_t umask, struct acl_new *ret_new)
{
	struct acl_new n = { .mode = mode };
	int ret;

	if (S_ISLNK(mode)) {
		*ret_new = n;
		return 0;
	}
	ret = acl_read(dir, ACL_DEFAULT, &n.dflt, &n.dflt_len);
	if (ret)
		return ret;
	if (n.dflt)
		ret = acl_inherit(dir, &n);
	else
		n.mode &= ~(umask & ACCESSPERMS);
	if (ret) {
		acl_new_free(&n);
		return ret;
	}
	*ret_new = n;
	return 0;
}

void acl_new_free(struct acl_new *n)
{
	free(n->access);
	free(n->dflt);
	n->access = NULL;
	n->dflt = NULL;
}

int acl_chmod(struct txn *t, struct inode *ip, uint32_t mode)
{
	size_t len;
	void *acl;
	int ret;

	ret = acl_read(ip, ACL_ACCESS, &acl, &len);
	if (ret || !acl)
		return ret;
	ret = acl_mask_chmod(acl, len, mode);
	if (ret)
		ret = acl_damaged(ip, ACL_ACCESS);
	else
		ret = xattr_set_locked(t, ip, ACL_ACCESS, acl, len, 0);
	free(acl);
	return ret;
}
