/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/mtest.c - named tests of a mounted filesystem
 *
 * A test is three steps of the sandbox: make and mount, the body, unmount and
 * check.  The supervisor only looks at how they ended.  What a test prints goes
 * to standard output with a # in front, as TAP wants it.
 */
#include "tests/support/mtest.h"

#include <fnmatch.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/sandbox.h"

#define EXIT_FAIL    1
#define EXIT_SKIP    77
#define DEVICE_SIZE  (256ull << 20)
#define TIMEOUT_SECS 30

struct mnt *mnt;

static struct mtest *first, **last = &first;
static char (*skip_reason)[200];
static const char *variant_opts = "";
static char **patterns;
static int nr_patterns;

void mtest_register(struct mtest *test)
{
	*last = test;
	last = &test->next;
}

bool on(unsigned int flags)
{
	return mnt_kind_flags(mnt->kind) & flags;
}

bool variant(const char *opt)
{
	const char *found = strstr(mnt->opts, opt);
	size_t len = strlen(opt);

	return found && (found[len] == '\0' || found[len] == ',');
}

const char *mtest_scratch(void)
{
	static char path[100];

	if (!*path)
		snprintf(path, sizeof(path), "%s/scratch", sandbox_dir());
	return path;
}

/* --- checks ----------------------------------------------------------------
 */

const char *mtest_errname(int err)
{
	const char *name = strerrorname_np(err);

	return name ? name : "unknown error";
}

void mtest_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	printf("# %s:%d: ", file, line);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	_exit(EXIT_FAIL);
}

void mtest_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(*skip_reason, sizeof(*skip_reason), fmt, ap);
	va_end(ap);
	fflush(stdout);
	_exit(EXIT_SKIP);
}

long long mtest_ok(const char *file, int line, const char *what, long long val)
{
	if (val < 0)
		mtest_fail(file, line, "%s: %s", what, mtest_errname(errno));
	return val;
}

void mtest_fails(const char *file, int line, const char *what, int err,
		 long long val)
{
	if (val >= 0)
		mtest_fail(file, line, "%s: gave %lld, should fail with %s",
			   what, val, mtest_errname(err));
	if (errno != err)
		mtest_fail(file, line, "%s: failed with %s, should be %s", what,
			   mtest_errname(errno), mtest_errname(err));
}

void mtest_streq(const char *file, int line, const char *what, const char *a,
		 const char *b)
{
	if (strcmp(a, b))
		mtest_fail(file, line, "%s: \"%s\", should be \"%s\"", what, a,
			   b);
}

void mtest_memeq(const char *file, int line, const char *what, const void *a,
		 const void *b, size_t len)
{
	const unsigned char *p = a, *q = b;

	for (size_t i = 0; i < len; i++)
		if (p[i] != q[i])
			mtest_fail(file, line,
				   "%s: byte %zu of %zu is %#x, should be %#x",
				   what, i, len, p[i], q[i]);
}

static void become(unsigned int uid, unsigned int gid)
{
	if (!uid)
		return;
	if (setgroups(0, NULL) || setresgid(gid, gid, gid) ||
	    setresuid(uid, uid, uid))
		FAIL("become user %u: %s", uid, mtest_errname(errno));
}

int mtest_as(unsigned int uid, unsigned int gid)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		FAIL("fork: %s", mtest_errname(errno));
	if (!pid) {
		become(uid, gid);
		return 1;
	}
	while (waitpid(pid, &status, 0) < 0)
		CHECK(errno == EINTR, "waitpid: %s", mtest_errname(errno));
	if (WIFSIGNALED(status))
		FAIL("the child died of signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status))
		_exit(WEXITSTATUS(status));
	return 0;
}

int mtest_as_end(void)
{
	fflush(stdout);
	_exit(0);
}

/* --- the life of a test -----------------------------------------------------
 */

static void enter(void)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/t", mnt->dir);
	if (chdir(path))
		FAIL("chdir to the test's directory: %s", mtest_errname(errno));
}

static void leave(void)
{
	if (chdir("/"))
		FAIL("chdir: %s", mtest_errname(errno));
}

void remount(const char *opts)
{
	leave();
	if (mnt_unmount(mnt) || mnt_mount(mnt, opts))
		FAIL("remount with options \"%s\" failed", opts ? opts : "");
	enter();
}

void crash_and_remount(const char *opts)
{
	leave();
	if (mnt_crash(mnt))
		FAIL("the crash failed");
	if (mnt_mount(mnt, opts))
		FAIL("the mount after a crash failed");
	enter();
}

void settle(void)
{
	/* FOLIOFS_TEST_LOSE: a filesystem that loses must be caught. */
	if (getenv("FOLIOFS_TEST_LOSE"))
		return;
	if (!on(MNT_FOLIOFS) || variant("cache=writeback"))
		sync();
}

static void make_and_mount(void *arg)
{
	const struct mtest *test = arg;

	umask(022);
	if (mnt_make(mnt, test->size ? test->size : DEVICE_SIZE))
		FAIL("mkfs failed");
	if (mnt_mount(mnt, test->opts))
		FAIL("mount failed");
	if (chdir(mnt->dir) || mkdir("t", 0777) || chmod("t", 0777))
		FAIL("make the test's directory: %s", mtest_errname(errno));
}

static void run_body(void *arg)
{
	const struct mtest *test = arg;

	umask(022);
	enter();
	test->body();
}

static void unmount_and_check(void *arg)
{
	const struct mtest *test = arg;

	if (mnt_unmount(mnt))
		FAIL("the unmount after the test failed");
	if (!test->no_fsck && mnt_fsck(mnt))
		FAIL("fsck after the test found something");
}

static bool passed(const char *what, int ret)
{
	if (!ret)
		return true;
	if (ret == STEP_TIMED_OUT)
		printf("# %s: timed out\n", what);
	else if (ret < 0)
		printf("# %s: died of signal %d\n", what, STEP_SIGNAL(0) - ret);
	else if (ret != EXIT_FAIL && ret != EXIT_SKIP)
		printf("# %s: exit code %d\n", what, ret);
	return false;
}

/* FOLIOFS_TEST_KEEP=DIR: keep the image of a test that failed. */
static void keep_image(const struct mtest *test)
{
	const char *dir = getenv("FOLIOFS_TEST_KEEP");
	char to[400];

	if (!dir)
		return;
	snprintf(to, sizeof(to), "%s/%s.%s.img", dir, test->group, test->name);
	sandbox_exec(
		(const char *[]){ "cp", "--sparse=always", mnt->dev, to, NULL },
		"/dev/null");
	printf("# image kept: %s\n", to);
}

static int run_steps(struct mtest *test)
{
	unsigned int secs = test->timeout ? test->timeout : TIMEOUT_SECS;
	int ret;

	ret = sandbox_step(make_and_mount, test, TIMEOUT_SECS);
	if (!passed("setup", ret))
		return EXIT_FAIL;
	ret = sandbox_step(run_body, test, secs);
	if (!passed("test", ret) && ret != EXIT_SKIP)
		ret = EXIT_FAIL;
	if (mnt->daemon && mnt->ended && !mnt->expected) {
		printf("# the daemon did not survive the test\n");
		ret = EXIT_FAIL;
	}
	if (!passed("teardown",
		    sandbox_step(unmount_and_check, test, TIMEOUT_SECS * 2)))
		ret = EXIT_FAIL;
	return ret;
}

static void reset_mnt(void)
{
	mnt->mounted = false;
	mnt->daemon = 0;
	mnt->ended = false;
	mnt->expected = false;
}

static int run_test(struct mtest *test)
{
	int ret;

	reset_mnt();
	mkdir(mtest_scratch(), 0755);
	ret = run_steps(test);
	if (ret == EXIT_FAIL) {
		mnt_print_log(mnt);
		keep_image(test);
	}
	sandbox_sweep();
	sandbox_exec((const char *[]){ "rm", "-rf", mtest_scratch(), NULL },
		     "/dev/null");
	mnt_remove(mnt);
	return ret;
}

static const char *reason_to_skip(const struct mtest *test)
{
	unsigned int flags = mnt_kind_flags(mnt->kind);

	if ((flags & test->needs) != test->needs || flags & test->not_on)
		return "not for this filesystem";
	return NULL;
}

static bool selected(const struct mtest *test)
{
	char name[200];

	if (!nr_patterns)
		return true;
	snprintf(name, sizeof(name), "%s.%s", test->group, test->name);
	for (int i = 0; i < nr_patterns; i++)
		if (!fnmatch(patterns[i], name, 0))
			return true;
	return false;
}

static bool run_and_report(struct mtest *test, int nr)
{
	const char *why = reason_to_skip(test);
	int ret = EXIT_SKIP;

	if (why)
		snprintf(*skip_reason, sizeof(*skip_reason), "%s", why);
	else
		ret = run_test(test);
	printf("%s %d - %s.%s", ret == EXIT_FAIL ? "not ok" : "ok", nr,
	       test->group, test->name);
	if (ret == EXIT_SKIP)
		printf(" # SKIP %s", *skip_reason);
	putchar('\n');
	fflush(stdout);
	return ret != EXIT_FAIL;
}

static int run_all(void *arg)
{
	bool good = true;
	int nr = 0;

	(void)arg;
	mnt = sandbox_shared(sizeof(*mnt));
	skip_reason = sandbox_shared(sizeof(*skip_reason));
	mnt_init(mnt, mnt_kind(NULL), "fs");
	if (on(MNT_FOLIOFS))
		snprintf(mnt->opts, sizeof(mnt->opts), "%s", variant_opts);
	for (struct mtest *test = first; test; test = test->next)
		if (selected(test) && !run_and_report(test, ++nr))
			good = false;
	return !good;
}

static int count_selected(bool list)
{
	int nr = 0;

	for (const struct mtest *test = first; test; test = test->next) {
		if (!selected(test))
			continue;
		nr++;
		if (list)
			printf("%s.%s\n", test->group, test->name);
	}
	return nr;
}

static const char *reason_to_skip_all(void)
{
	const struct mnt_kind *kind = mnt_kind(NULL);

	if (!kind)
		return "FOLIOFS_TEST_FS is not known";
	return sandbox_missing() ?: mnt_missing(kind);
}

int mtest_main(int argc, char **argv)
{
	bool list = false;
	const char *why;
	int opt, nr;

	while ((opt = getopt(argc, argv, "lo:")) != -1) {
		if (opt == 'l')
			list = true;
		else if (opt == 'o')
			variant_opts = optarg;
		else
			return 2;
	}
	patterns = argv + optind;
	nr_patterns = argc - optind;
	nr = count_selected(list);
	if (list)
		return 0;
	why = reason_to_skip_all();
	if (why) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	printf("1..%d\n", nr);
	return sandbox_run(run_all, NULL);
}
