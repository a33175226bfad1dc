/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/mtest.h - named tests of a mounted filesystem
 *
 * Each test gets a fresh filesystem, mounted, and runs in a directory t of it
 * with mode 0777, as root, with umask 022.  The first check that fails ends
 * the test.  Afterwards the filesystem is unmounted and must pass fsck, and
 * the daemon must have ended well: a test fails when these do.
 *
 * Output is TAP.  Options of every test program:
 *   -l          list the tests
 *   -o OPTIONS  mount options for every mount (foliofs only)
 *   PATTERN...  run only tests whose group.name matches one of these globs
 */
#ifndef TESTS_SUPPORT_MTEST_H
#define TESTS_SUPPORT_MTEST_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tests/support/mnt.h"

struct mtest {
	const char *group;
	const char *name;
	void (*body)(void);
	struct mtest *next;
	/* From here: what a test may set. */
	unsigned int needs;   /* MNT_ flags, all of them */
	unsigned int not_on;  /* MNT_ flags where it makes no sense */
	uint64_t size;	      /* of the device; default 256 MiB */
	const char *opts;     /* mount options */
	unsigned int timeout; /* seconds; default 30 */
	bool no_fsck;	      /* it leaves no filesystem behind */
};

#define MTEST(g, n, ...)                                                   \
	static void g##_##n(void);                                         \
	static struct mtest mtest_##g##_##n = {                            \
		.group = #g, .name = #n, .body = g##_##n, __VA_ARGS__      \
	};                                                                 \
	static void __attribute__((constructor)) mtest_add_##g##_##n(void) \
	{                                                                  \
		mtest_register(&mtest_##g##_##n);                          \
	}                                                                  \
	static void g##_##n(void)

void mtest_register(struct mtest *test);

/* main() of a test program; gives its exit code. */
int mtest_main(int argc, char **argv);

/* The mount under test. */
extern struct mnt *mnt;

/* A directory of this test alone, not on the filesystem under test. */
const char *mtest_scratch(void);

/* Does the filesystem under test have one of these flags? */
bool on(unsigned int flags);

/* Is this among the mount options of the variant that runs? */
bool variant(const char *opt);

/* Unmount and mount again; the test stays in its directory. */
void remount(const char *opts);

/* The same with SIGKILL for the daemon instead of the unmount. */
void crash_and_remount(const char *opts);

/*
 * Durable now?  Where an answered request is not durable (cache=writeback, and
 * the filesystems of the kernel), sync first.
 */
void settle(void);

/* --- checks ----------------------------------------------------------------
 */

/* expr must not be negative; gives its value. */
#define OK(expr) mtest_ok(__FILE__, __LINE__, #expr, (long long)(expr))

/* expr must be -1 and errno must be err. */
#define FAILS(err, expr) \
	mtest_fails(__FILE__, __LINE__, #expr, err, (long long)(expr))

#define EQ(a, b) MTEST_CMP(a, ==, b)
#define NE(a, b) MTEST_CMP(a, !=, b)
#define LE(a, b) MTEST_CMP(a, <=, b)
#define LT(a, b) MTEST_CMP(a, <, b)

/* Strings and bytes. */
#define STREQ(a, b)	 mtest_streq(__FILE__, __LINE__, #a, a, b)
#define MEMEQ(a, b, len) mtest_memeq(__FILE__, __LINE__, #a, a, b, len)

/* cond must hold; the rest is a printf() that says what is wrong. */
#define CHECK(cond, ...)                                             \
	do {                                                         \
		if (!(cond))                                         \
			mtest_fail(__FILE__, __LINE__, __VA_ARGS__); \
	} while (0)

#define FAIL(...) mtest_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(...) mtest_skip(__VA_ARGS__)

/*
 * A block that runs in a child as another user, without any capability.  The
 * checks inside count.
 */
#define AS_USER(uid)		MTEST_AS(MTEST_VAR(__LINE__), uid, uid)
#define AS_USER_GROUP(uid, gid) MTEST_AS(MTEST_VAR(__LINE__), uid, gid)
/* A block in a child, as whoever we are. */
#define IN_CHILD MTEST_AS(MTEST_VAR(__LINE__), 0, 0)

#define NOBODY 65534

/* --- behind the macros -----------------------------------------------------
 */

#define MTEST_VAR(line)	 MTEST_VAR_(line)
#define MTEST_VAR_(line) as_##line
#define MTEST_AS(var, uid, gid) \
	for (int var = mtest_as((uid), (gid)); var; var = mtest_as_end())

#define MTEST_CMP(a, op, b)                                                 \
	do {                                                                \
		long long a_ = (long long)(a), b_ = (long long)(b);         \
		if (!(a_ op b_))                                            \
			mtest_fail(__FILE__, __LINE__,                      \
				   "%s: %lld, should be " #op " %lld (%s)", \
				   #a, a_, b_, #b);                         \
	} while (0)

long long mtest_ok(const char *file, int line, const char *what, long long val);
void mtest_fails(const char *file, int line, const char *what, int err,
		 long long val);
void mtest_streq(const char *file, int line, const char *what, const char *a,
		 const char *b);
void mtest_memeq(const char *file, int line, const char *what, const void *a,
		 const void *b, size_t len);
void mtest_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), noreturn));
void mtest_skip(const char *fmt, ...)
	__attribute__((format(printf, 1, 2), noreturn));
int mtest_as(unsigned int uid, unsigned int gid);
int mtest_as_end(void);

/* "ENOENT" for ENOENT. */
const char *mtest_errname(int err);

#endif
