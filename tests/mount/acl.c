/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/acl.c - POSIX access control lists
 *
 * The kernel checks them; the filesystem stores them, keeps the mode and the
 * list in step, and hands default lists on to what is made.
 *
 * Lists are written "u::7 u:1000:5 g::5 m::7 o::0" and travel as the extended
 * attributes that they are.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

#define ACCESS	"system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

struct acl {
	uint32_t version;
	struct acl_entry e[16];
};

static uint16_t tag_of(char kind, bool named)
{
	switch (kind) {
	case 'u':
		return named ? 0x02 : 0x01;
	case 'g':
		return named ? 0x08 : 0x04;
	case 'm':
		return 0x10;
	default:
		return 0x20;
	}
}

/* Gives the size of the attribute. */
static size_t parse_acl(const char *text, struct acl *acl)
{
	size_t nr = 0;

	acl->version = 2;
	while (*text) {
		struct acl_entry *e = &acl->e[nr++];
		bool named = text[2] != ':';
		char *end;

		e->tag = tag_of(*text, named);
		e->id = -1u;
		if (named)
			e->id = (uint32_t)strtoul(text + 2, &end, 10);
		else
			end = (char *)(uintptr_t)(text + 2);
		e->perm = (uint16_t)(end[1] - '0');
		text = end + 2;
		while (*text == ' ')
			text++;
	}
	return 4 + nr * sizeof(struct acl_entry);
}

static int set_acl(const char *path, const char *name, const char *text)
{
	struct acl acl;
	size_t len = parse_acl(text, &acl);

	return setxattr(path, name, &acl, len, 0);
}

static void format_acl(char *out, const struct acl *acl, size_t len)
{
	size_t nr = (len - 4) / sizeof(struct acl_entry);

	*out = '\0';
	for (size_t i = 0; i < nr; i++) {
		const struct acl_entry *e = &acl->e[i];
		char kind = e->tag < 4	  ? 'u'
			    : e->tag < 16 ? 'g'
			    : e->tag < 32 ? 'm'
					  : 'o';

		out += sprintf(out, "%s%c:", i ? " " : "", kind);
		if (e->tag == 2 || e->tag == 8)
			out += sprintf(out, "%u", e->id);
		out += sprintf(out, ":%u", e->perm);
	}
}

/* Does the list read so?  NULL: there must be none. */
static void check_acl(const char *path, const char *name, const char *want)
{
	struct acl acl;
	char got[512];
	ssize_t len = getxattr(path, name, &acl, sizeof(acl));

	if (!want) {
		CHECK(len < 0 && errno == ENODATA, "%s of %s: %zd, %s", name,
		      path, len, mtest_errname(errno));
		return;
	}
	CHECK(len >= 4, "%s of %s: %s", name, path, mtest_errname(errno));
	format_acl(got, &acl, (size_t)len);
	STREQ(got, want);
}

static void need_acls(void)
{
	touch("probe");
	if (set_acl("probe", ACCESS, "u::6 u:1:4 g::4 m::4 o::4")) {
		EQ(errno, EOPNOTSUPP);
		CHECK(!on(MNT_FOLIOFS), "no ACLs");
		SKIP("no ACLs");
	}
	OK(unlink("probe"));
}

static bool may(unsigned int uid, const char *path, int how)
{
	int status = 0;

	fflush(stdout);
	if (!fork()) {
		if (setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
			_exit(2);
		_exit(access(path, how) ? 1 : 0);
	}
	OK(wait(&status));
	LT(WEXITSTATUS(status), 2);
	return !status;
}

MTEST(acl, named_user_and_mask_decide)
{
	need_acls();
	put("f", "x");
	OK(chmod("f", 0600));
	CHECK(!may(1000, "f", R_OK), "1000 may read without a list");
	OK(set_acl("f", ACCESS, "u::6 u:1000:6 g::0 m::6 o::0"));
	CHECK(may(1000, "f", R_OK | W_OK), "1000 may not write");
	CHECK(!may(1001, "f", R_OK), "1001 may read");
	OK(set_acl("f", ACCESS, "u::6 u:1000:6 g::0 m::4 o::0"));
	CHECK(may(1000, "f", R_OK), "1000 may not read");
	CHECK(!may(1000, "f", W_OK), "the mask does not limit 1000");
	OK(set_acl("f", ACCESS, "u::6 u:1000:0 g::4 m::4 o::4"));
	CHECK(!may(1000, "f", R_OK), "1000 may read, by way of others");
	CHECK(may(1001, "f", R_OK), "1001 may not read");
}

MTEST(acl, named_group_decides)
{
	need_acls();
	put("f", "x");
	OK(chmod("f", 0600));
	OK(set_acl("f", ACCESS, "u::6 g::0 g:1000:4 m::4 o::0"));
	CHECK(may(1000, "f", R_OK), "group 1000 may not read");
	CHECK(!may(1000, "f", W_OK), "group 1000 may write");
	CHECK(!may(1001, "f", R_OK), "group 1001 may read");
}

MTEST(acl, mode_and_list_stay_in_step)
{
	need_acls();
	put("f", "x");
	OK(chmod("f", 0640));
	OK(set_acl("f", ACCESS, "u::7 u:1:5 g::4 m::6 o::1"));
	EQ(mode_of("f"), 0761);
	OK(chmod("f", 0521));
	EQ(mode_of("f"), 0521);
	check_acl("f", ACCESS, "u::5 u:1:5 g::4 m::2 o::1");
	OK(chmod("f", 0777));
	check_acl("f", ACCESS, "u::7 u:1:5 g::4 m::7 o::7");
}

MTEST(acl, that_says_no_more_than_the_mode_is_the_mode)
{
	need_acls();
	put("f", "x");
	OK(set_acl("f", ACCESS, "u::7 u:1:5 g::4 m::6 o::1"));
	OK(set_acl("f", ACCESS, "u::6 g::4 o::0"));
	EQ(mode_of("f"), 0640);
	check_acl("f", ACCESS, NULL);
	CHECK(!may(1, "f", R_OK), "user 1 may still read");
}

MTEST(acl, removal_leaves_the_mode)
{
	need_acls();
	put("f", "x");
	OK(set_acl("f", ACCESS, "u::7 u:1:5 g::4 m::6 o::1"));
	OK(removexattr("f", ACCESS));
	check_acl("f", ACCESS, NULL);
	EQ(mode_of("f"), 0761);
	CHECK(may(2, "f", X_OK), "others may not execute");
}

MTEST(acl, refusals)
{
	char junk[12] = { 2 };
	struct acl acl;

	need_acls();
	put("f", "x");
	OK(mkdir("d", 0755));
	OK(symlink("f", "l"));
	FAILS(EINVAL, set_acl("f", ACCESS, "u::7 u:1:5 g::4 o::1"));
	FAILS(EINVAL, set_acl("f", ACCESS, "u::7 g::4"));
	FAILS(EINVAL, setxattr("f", ACCESS, junk, 5, 0));
	FAILS(EACCES, set_acl("f", DEFAULT, "u::7 g::5 o::0"));
	FAILS(EOPNOTSUPP, lsetxattr("l", ACCESS, &acl,
				    parse_acl("u::7 g::5 o::0", &acl), 0));
	OK(chmod("f", 0666));
	AS_USER(NOBODY)
	{
		FAILS(EPERM, set_acl("f", ACCESS, "u::7 u:1:5 g::4 m::6 o::1"));
		FAILS(EPERM, set_acl("d", DEFAULT, "u::7 g::5 o::0"));
	}
	check_acl("f", ACCESS, NULL);
	check_acl("d", DEFAULT, NULL);
}

MTEST(acl, moves_ctime_only)
{
	struct stat st;

	need_acls();
	put("f", "x");
	st = lstat_of("f");
	tick();
	OK(set_acl("f", ACCESS, "u::7 u:1:5 g::4 m::6 o::1"));
	CHECK(time_before(st.st_ctim, lstat_of("f").st_ctim),
	      "ctime did not move");
	CHECK(time_equal(st.st_mtim, lstat_of("f").st_mtim), "mtime moved");
}

MTEST(acl_default, is_handed_on_to_files)
{
	need_acls();
	OK(mkdir("d", 0777));
	OK(set_acl("d", DEFAULT, "u::7 u:1000:7 g::5 m::7 o::0"));
	/* The list counts, not the umask. */
	umask(0777);
	close_ok((int)OK(open("d/f", O_CREAT | O_WRONLY, 0664)));
	check_acl("d/f", ACCESS, "u::6 u:1000:7 g::5 m::6 o::0");
	check_acl("d/f", DEFAULT, NULL);
	EQ(mode_of("d/f"), 0660);
	close_ok((int)OK(open("d/g", O_CREAT | O_WRONLY, 0604)));
	check_acl("d/g", ACCESS, "u::6 u:1000:7 g::5 m::0 o::0");
	OK(mknod("d/p", S_IFIFO | 0666, 0));
	check_acl("d/p", ACCESS, "u::6 u:1000:7 g::5 m::6 o::0");
	OK(symlink("x", "d/l"));
	EQ(mode_of("d/l"), 0777);
}

MTEST(acl_default, is_handed_on_to_directories)
{
	need_acls();
	OK(mkdir("d", 0777));
	OK(set_acl("d", DEFAULT, "u::7 u:1000:5 g::5 m::7 o::1"));
	OK(mkdir("d/s", 0755));
	check_acl("d/s", DEFAULT, "u::7 u:1000:5 g::5 m::7 o::1");
	check_acl("d/s", ACCESS, "u::7 u:1000:5 g::5 m::5 o::1");
	EQ(mode_of("d/s"), 0751);
	OK(mkdir("d/s/deeper", 0700));
	check_acl("d/s/deeper", DEFAULT, "u::7 u:1000:5 g::5 m::7 o::1");
	EQ(mode_of("d/s/deeper"), 0700);
}

MTEST(acl_default, without_names_is_handed_on_as_a_mode)
{
	need_acls();
	OK(mkdir("d", 0777));
	OK(set_acl("d", DEFAULT, "u::7 g::4 o::1"));
	umask(0);
	touch("d/f");
	EQ(mode_of("d/f"), 0640);
	check_acl("d/f", ACCESS, NULL);
	OK(mkdir("d/s", 0777));
	EQ(mode_of("d/s"), 0741);
	check_acl("d/s", ACCESS, NULL);
	check_acl("d/s", DEFAULT, "u::7 g::4 o::1");
}

MTEST(acl_default, changes_nothing_for_the_directory_itself)
{
	need_acls();
	OK(mkdir("d", 0700));
	OK(set_acl("d", DEFAULT, "u::7 u:1000:7 g::7 m::7 o::7"));
	EQ(mode_of("d"), 0700);
	check_acl("d", ACCESS, NULL);
	CHECK(!may(1000, "d", R_OK), "the default list grants");
	OK(removexattr("d", DEFAULT));
	check_acl("d", DEFAULT, NULL);
	umask(022);
	touch("d/f");
	EQ(mode_of("d/f"), 0644);
}

MTEST(acl, survives_a_remount, .needs = MNT_REMOUNT)
{
	need_acls();
	put("f", "x");
	OK(mkdir("d", 0755));
	OK(set_acl("f", ACCESS, "u::6 u:1000:6 g::0 m::6 o::0"));
	OK(set_acl("d", DEFAULT, "u::7 u:1000:5 g::5 m::7 o::1"));
	remount(NULL);
	check_acl("f", ACCESS, "u::6 u:1000:6 g::0 m::6 o::0");
	check_acl("d", DEFAULT, "u::7 u:1000:5 g::5 m::7 o::1");
	CHECK(may(1000, "f", W_OK), "1000 may not write any more");
	CHECK(!may(1001, "f", R_OK), "1001 may read now");
}

MTEST(acl, follows_the_file_over_rename_and_link)
{
	need_acls();
	put("f", "x");
	OK(set_acl("f", ACCESS, "u::6 u:1000:6 g::0 m::6 o::0"));
	OK(rename("f", "g"));
	OK(link("g", "h"));
	check_acl("h", ACCESS, "u::6 u:1000:6 g::0 m::6 o::0");
	CHECK(may(1000, "h", W_OK), "1000 may not write");
}
