/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_acl.c - fs/acl.c without an inode
 *
 * ACLs are written as text, one entry a word: "u::rwx u:5:r-- g::r-x m::rwx
 * o::---", where the first letter and an id give the tag.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/acl.h"
#include "fs/fs.h"

TestSuite(acl, .timeout = 20);

struct acl_buf {
	size_t len;
	/* An odd address, as a value in a request may have. */
	char bytes[1 + 512];
};

static char *acl_bytes(struct acl_buf *b)
{
	return b->bytes + 1;
}

static void put16(char *p, unsigned int v)
{
	le16 x = cpu_to_le16((uint16_t)v);

	memcpy(p, &x, sizeof(x));
}

static void put32(char *p, uint32_t v)
{
	le32 x = cpu_to_le32(v);

	memcpy(p, &x, sizeof(x));
}

static void acl_add(struct acl_buf *b, unsigned int tag, unsigned int perm,
		    uint32_t id)
{
	char *p = acl_bytes(b) + b->len;

	put16(p, tag);
	put16(p + 2, perm);
	put32(p + 4, id);
	b->len += 8;
}

static unsigned int tag_of(char class, bool named)
{
	switch (class) {
	case 'u':
		return named ? ACL_TAG_USER : ACL_TAG_OWNER;
	case 'g':
		return named ? ACL_TAG_GROUP : ACL_TAG_OWNING_GROUP;
	case 'm':
		return ACL_TAG_MASK;
	default:
		return ACL_TAG_OTHER;
	}
}

static struct acl_buf acl_text(const char *text)
{
	struct acl_buf b = { .len = 4 };
	char copy[256], *save = NULL;

	put32(acl_bytes(&b), ACL_VERSION);
	(void)snprintf(copy, sizeof(copy), "%s", text);
	for (char *w = strtok_r(copy, " ", &save); w;
	     w = strtok_r(NULL, " ", &save)) {
		bool named = w[2] != ':';
		const char *perm = strrchr(w, ':') + 1;
		uint32_t id =
			named ? (uint32_t)strtoul(w + 2, NULL, 10) : ACL_NO_ID;

		acl_add(&b, tag_of(w[0], named),
			(perm[0] == 'r' ? 4u : 0u) |
				(perm[1] == 'w' ? 2u : 0u) |
				(perm[2] == 'x' ? 1u : 0u),
			id);
	}
	return b;
}

static void expect_acl(struct acl_buf *b, const char *text)
{
	struct acl_buf want = acl_text(text);

	cr_expect_eq(b->len, want.len, "%s", text);
	cr_expect_arr_eq(acl_bytes(b), acl_bytes(&want), want.len, "%s", text);
}

#define WHOLE "u::rwx u:5:r-- u:9:rw- g::r-x g:7:rwx m::rwx o::--x"

Test(acl, well_formed_ones_are_valid)
{
	static const char *const valid[] = {
		"u::rwx g::r-x o::---",
		"u::--- g::--- o::---",
		"u::rwx g::r-x m::rwx o::---",
		WHOLE,
		/* As in the kernel, the same name twice and in any order. */
		"u::rwx u:9:r-- u:5:r-- u:5:rw- g::r-x m::rwx o::---",
	};

	for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
		struct acl_buf b = acl_text(valid[i]);

		cr_expect_eq(acl_check(acl_bytes(&b), b.len), 0, "%s",
			     valid[i]);
	}
}

Test(acl, others_are_refused)
{
	static const char *const bad[] = {
		"",
		"u::rwx",
		"u::rwx g::r-x",
		"u::rwx o::r-x",
		"g::rwx o::r-x",
		"g::r-x u::rwx o::---",
		"u::rwx o::--- g::r-x",
		"u::rwx u::rwx g::r-x o::---",
		"u::rwx g::r-x g::r-x o::---",
		"u::rwx g::r-x o::--- o::---",
		"u::rwx g::r-x m::rwx m::rwx o::---",
		"u::rwx m::rwx g::r-x o::---",
		/* Named entries want a mask. */
		"u::rwx u:5:r-- g::r-x o::---",
		"u::rwx g::r-x g:5:r-- o::---",
		"u::rwx g::r-x u:5:r-- m::rwx o::---",
		"u::rwx g::r-x m::rwx g:5:r-- o::---",
		"u::rwx u:4294967295:r-- g::r-x m::rwx o::---",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct acl_buf b = acl_text(bad[i]);

		cr_expect_eq(acl_check(acl_bytes(&b), b.len), -EINVAL, "%s",
			     bad[i]);
	}
}

Test(acl, sizes_that_are_not_whole_entries_are_refused)
{
	struct acl_buf b = acl_text(WHOLE);

	for (size_t len = 0; len < b.len + 8; len++)
		if (len != b.len)
			cr_expect_eq(acl_check(acl_bytes(&b), len), -EINVAL,
				     "%zu", len);
}

Test(acl, unknown_tags_permissions_and_versions_are_refused)
{
	struct acl_buf b = acl_text(WHOLE);

	put16(acl_bytes(&b) + 4 + 8, 0x40);
	cr_expect_eq(acl_check(acl_bytes(&b), b.len), -EINVAL);
	b = acl_text(WHOLE);
	put16(acl_bytes(&b) + 4 + 8, 0);
	cr_expect_eq(acl_check(acl_bytes(&b), b.len), -EINVAL);
	b = acl_text(WHOLE);
	put16(acl_bytes(&b) + 4 + 2, 010);
	cr_expect_eq(acl_check(acl_bytes(&b), b.len), -EINVAL);
	b = acl_text(WHOLE);
	put32(acl_bytes(&b), 3);
	cr_expect_eq(acl_check(acl_bytes(&b), b.len), -ENOTSUP);
}

static void expect_mode(const char *text, uint32_t mode, uint32_t want,
			bool want_minimal)
{
	struct acl_buf b = acl_text(text);
	bool minimal = !want_minimal;
	uint32_t got = 0;

	cr_expect_eq(acl_to_mode(acl_bytes(&b), b.len, mode, &got, &minimal),
		     0);
	cr_expect_eq(got, want, "%s: %o, not %o", text, got, want);
	cr_expect_eq(minimal, want_minimal, "%s", text);
}

Test(acl, mode_is_owner_group_or_mask_and_others)
{
	expect_mode("u::rwx g::r-x o::--x", S_IFREG, S_IFREG | 0751, true);
	expect_mode("u::--- g::-w- o::r--", S_IFREG | 0777, S_IFREG | 0024,
		    true);
	expect_mode("u::rw- g::r-x m::-w- o::r--", S_IFREG, S_IFREG | 0624,
		    false);
	expect_mode("u::rw- u:5:rwx g::--- m::r-- o::---", S_IFDIR | 0777,
		    S_IFDIR | 0640, false);
}

Test(acl, mode_keeps_type_and_special_bits)
{
	expect_mode("u::rwx g::r-x o::---", S_IFDIR | 07000, S_IFDIR | 07750,
		    true);
}

Test(acl, refused_one_gives_no_mode)
{
	struct acl_buf b = acl_text("u::rwx");
	uint32_t mode = 7;
	bool minimal = true;

	cr_expect_eq(acl_to_mode(acl_bytes(&b), b.len, 0, &mode, &minimal),
		     -EINVAL);
	cr_expect_eq(mode, 7);
	cr_expect(minimal);
}

struct create_case {
	const char *dflt;
	uint32_t mode;
	const char *want;
	uint32_t want_mode;
	bool want_minimal;
};

Test(acl, new_inode_gets_what_default_and_mode_both_have)
{
	static const struct create_case cases[] = {
		{ "u::rwx g::rwx o::rwx", 0666, "u::rw- g::rw- o::rw-", 0666,
		  true },
		{ "u::rwx g::r-x o::---", 0666, "u::rw- g::r-- o::---", 0640,
		  true },
		{ "u::r-- g::--- o::rwx", 0777, "u::r-- g::--- o::rwx", 0407,
		  true },
		/* With a mask it is the mask that meets the group bits. */
		{ "u::rwx u:5:rwx g::rwx m::rwx o::r-x", 0644,
		  "u::rw- u:5:rwx g::rwx m::r-- o::r--", 0644, false },
		{ "u::rwx g::r-x m::-wx o::--x", 07777,
		  "u::rwx g::r-x m::-wx o::--x", 07731, false },
		{ WHOLE, 0,
		  "u::--- u:5:r-- u:9:rw- g::r-x g:7:rwx m::--- o::---", 0,
		  false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct create_case *c = &cases[i];
		struct acl_buf b = acl_text(c->dflt);
		uint32_t mode = S_IFREG | c->mode;
		bool minimal = !c->want_minimal;

		cr_expect_eq(
			acl_mask_create(acl_bytes(&b), b.len, &mode, &minimal),
			0);
		cr_expect_eq(mode, S_IFREG | c->want_mode, "%s: %o", c->dflt,
			     mode);
		cr_expect_eq(minimal, c->want_minimal, "%s", c->dflt);
		expect_acl(&b, c->want);
	}
}

Test(acl, chmod_sets_owner_mask_and_others)
{
	struct acl_buf b = acl_text(WHOLE);

	cr_expect_eq(acl_mask_chmod(acl_bytes(&b), b.len, S_IFREG | 04624), 0);
	expect_acl(&b, "u::rw- u:5:r-- u:9:rw- g::r-x g:7:rwx m::-w- o::r--");
}

Test(acl, chmod_without_a_mask_sets_the_owning_group)
{
	struct acl_buf b = acl_text("u::rwx g::r-x o::---");

	cr_expect_eq(acl_mask_chmod(acl_bytes(&b), b.len, S_IFREG | 0135), 0);
	expect_acl(&b, "u::--x g::-wx o::r-x");
}

Test(acl, chmod_and_mode_agree_whatever_the_mode)
{
	for (uint32_t mode = 0; mode < 01000; mode++) {
		struct acl_buf b = acl_text(WHOLE);
		uint32_t got = 0;
		bool minimal;

		cr_assert_eq(acl_mask_chmod(acl_bytes(&b), b.len, mode), 0);
		cr_assert_eq(
			acl_to_mode(acl_bytes(&b), b.len, 0, &got, &minimal),
			0);
		cr_assert_eq(got, mode);
	}
}

Test(acl, damaged_one_is_left_alone)
{
	struct acl_buf b = acl_text("u::rwx u:5:r-- g::r-x o::---");
	uint32_t mode = 0644;
	bool minimal;

	cr_expect_eq(acl_mask_create(acl_bytes(&b), b.len, &mode, &minimal),
		     -EINVAL);
	cr_expect_eq(acl_mask_chmod(acl_bytes(&b), b.len, 0), -EINVAL);
	cr_expect_eq(mode, 0644);
	expect_acl(&b, "u::rwx u:5:r-- g::r-x o::---");
}
