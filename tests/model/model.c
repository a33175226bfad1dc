/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/model/model.c - the same random operations on two filesystems
 *
 * One is the filesystem under test, the other one that is known to be right.
 * Every operation must give the same on both, and every so many operations the
 * two trees must be equal in all that can be seen.  In turn, the filesystem is
 * then left alone, unmounted and mounted, or killed and mounted, and must
 * still be equal.
 *
 * A run is fixed by its seed: on a mismatch, run it again with the options
 * that are printed, --every=1, and as many --ops as it took.
 *
 *   --seed=N       default 1
 *   --ops=N        default 20000
 *   --every=N      compare the trees after so many operations; default 500
 *   --reference=FS xfs (the default, when it can be had), ext4 or tmpfs
 *   --no-crash     unmount where it would kill
 *   --no-remount   leave it mounted all the time
 *   --trace        print every operation
 *   -o OPTIONS     of the mount under test
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/model/ops.h"
#include "tests/support/mnt.h"
#include "tests/support/sandbox.h"
#include "tests/support/share.h"
#include "tests/support/tree.h"

#define DEVICE_SIZE (1ull << 30)
#define NR_LAST	    25
#define TEST	    0
#define REF	    1

struct line {
	char text[400];
	struct result r[2];
};

static struct {
	uint64_t seed;
	unsigned long ops, every;
	const char *reference, *opts;
	bool no_crash, no_remount, trace;
} arg = { .seed = 1, .ops = 20000, .every = 500, .opts = "" };

static struct mnt *mnts[2];
static struct side sides[2] = { { .name = "test" }, { .name = "reference" } };
static struct paths paths;
static struct limits limits = {
	.max_value = 65536, .zero_range = true, .sparse = true, .shares = true
};
static struct line last[NR_LAST];
static unsigned long nr_done;
static unsigned long nr_run[NR_OPS], nr_good[NR_OPS];

static void print_result(const char *name, const struct result *r)
{
	if (r->ret < 0)
		printf(" %s: %s", name, strerrorname_np(r->err));
	else
		printf(" %s: %lld", name, r->ret);
	if (r->hash)
		printf(" (%08llx)", (unsigned long long)r->hash & 0xffffffff);
	if (*r->text)
		printf(" (%s)", r->text);
}

static void print_line(unsigned long nr)
{
	const struct line *l = &last[nr % NR_LAST];

	printf("# %lu %s ->", nr, l->text);
	print_result(sides[TEST].name, &l->r[TEST]);
	if (memcmp(&l->r[TEST], &l->r[REF], sizeof(l->r[REF])))
		print_result(sides[REF].name, &l->r[REF]);
	putchar('\n');
}

static void __attribute__((noreturn)) fail(const char *what)
{
	unsigned long nr = nr_done > NR_LAST ? nr_done - NR_LAST : 0;

	printf("# %s\n# the last operations:\n", what);
	for (; nr < nr_done; nr++)
		print_line(nr);
	printf("# again: --seed=%llu --ops=%lu --every=%lu --reference=%s%s%s "
	       "-o \"%s\"\n",
	       (unsigned long long)arg.seed, nr_done, arg.every,
	       mnt_kind_name(mnts[REF]->kind),
	       arg.no_crash ? " --no-crash" : "",
	       arg.no_remount ? " --no-remount" : "", arg.opts);
	mnt_print_log(mnts[TEST]);
	fflush(stdout);
	_exit(1);
}

static void open_sides(void)
{
	for (int i = 0; i < 2; i++) {
		char path[300];

		snprintf(path, sizeof(path), "%s/model", mnts[i]->dir);
		sides[i].root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (sides[i].root < 0)
			fail("the model's directory is gone");
	}
}

static void close_side(struct side *side)
{
	for (int i = 0; i < NR_HANDLES; i++)
		if (side->fds[i] >= 0)
			close(side->fds[i]);
	for (int i = 0; i < NR_HANDLES; i++)
		side->fds[i] = -1;
	close(side->root);
}

static void compare(const char *when)
{
	char path[2][300], *text[2], what[64];
	bool equal;

	for (int i = 0; i < 2; i++) {
		snprintf(path[i], sizeof(path[i]), "%s/model", mnts[i]->dir);
		text[i] = tree_text(path[i], TREE_OLD_MTIME);
	}
	equal = tree_equal("test     ", text[TEST], "reference", text[REF]);
	free(text[0]);
	free(text[1]);
	snprintf(what, sizeof(what), "the trees differ %s", when);
	if (!equal)
		fail(what);
}

/*
 * SIGKILL comes while files are open, some without a name; a clean unmount
 * needs them closed.
 */
static int crash(void)
{
	int ret;

	if (mnt_kind_flags(mnts[TEST]->kind) & MNT_FOLIOFS) {
		ret = mnt_kill(mnts[TEST]);
		close_side(&sides[TEST]);
	} else {
		close_side(&sides[TEST]);
		ret = 0;
	}
	return mnt_crash(mnts[TEST]) ?: ret;
}

static void remount(bool hard)
{
	int ret;

	if (chdir("/"))
		fail("chdir");
	close_side(&sides[REF]);
	if (hard) {
		ret = crash();
	} else {
		close_side(&sides[TEST]);
		ret = mnt_unmount(mnts[TEST]);
	}
	if (ret)
		fail("the unmount failed");
	if (mnt_mount(mnts[TEST], NULL))
		fail("the mount failed");
	paths.open = 0;
	open_sides();
}

/* Compare; then every second time disturb the test side and compare again. */
static void checkpoint(unsigned long nr)
{
	unsigned int flags = mnt_kind_flags(mnts[TEST]->kind);
	bool hard = nr % 4 == 1 && !arg.no_crash && flags & MNT_CRASH;

	compare("");
	if (nr % 2 == 0 || arg.no_remount || !(flags & MNT_REMOUNT))
		return;
	remount(hard);
	compare(hard ? "after a crash" : "after a remount");
}

static void one_op(uint64_t *rng)
{
	struct line *l = &last[nr_done % NR_LAST];
	static struct op op;

	op_random(&op, rng, &paths, &limits);
	op_print(&op, l->text, sizeof(l->text));
	/* The reference first: when the other hangs, this says in what. */
	mnt = mnts[REF]; /* share.h asks where it is */
	l->r[REF] = op_run(&op, &sides[REF]);
	mnt = mnts[TEST];
	l->r[TEST] = op_run(&op, &sides[TEST]);
	nr_run[op.kind]++;
	nr_done++;
	if (arg.trace)
		print_line(nr_done - 1);
	if (!result_equal(&op, &l->r[TEST], &l->r[REF]))
		fail("the results differ");
	nr_good[op.kind] += l->r[REF].ret >= 0;
	op_learn(&op, &l->r[REF], &paths);
}

static void print_counts(void)
{
	for (int i = 0; i < NR_OPS; i++)
		printf("# %-16s %6lu, %6lu of them went well\n",
		       op_name((enum op_kind)i), nr_run[i], nr_good[i]);
}

static void body(void *unused)
{
	uint64_t rng = arg.seed;

	(void)unused;
	umask(0);
	if (setgroups(0, NULL))
		fail("setgroups");
	for (int i = 0; i < NR_HANDLES; i++)
		sides[0].fds[i] = sides[1].fds[i] = -1;
	open_sides();
	for (unsigned long i = 0; i < arg.ops; i++) {
		one_op(&rng);
		if (i % arg.every == arg.every - 1)
			checkpoint(i / arg.every);
	}
	checkpoint(1);
	checkpoint(3);
	print_counts();
	if (chdir("/"))
		fail("chdir");
	close_side(&sides[TEST]);
	close_side(&sides[REF]);
}

static void set_up(void *unused)
{
	(void)unused;
	umask(0);
	for (int i = 0; i < 2; i++) {
		if (mnt_make(mnts[i], DEVICE_SIZE) || mnt_mount(mnts[i], NULL))
			_exit(1);
		if (chdir(mnts[i]->dir) || mkdir("model", 0777))
			_exit(1);
	}
}

static void tear_down(void *unused)
{
	(void)unused;
	if (mnt_unmount(mnts[TEST]) || mnt_unmount(mnts[REF])) {
		printf("# the last unmount failed\n");
		_exit(1);
	}
	if (mnt_fsck(mnts[TEST])) {
		printf("# fsck found something\n");
		mnt_print_log(mnts[TEST]);
		fflush(stdout);
		_exit(1);
	}
}

static const struct mnt_kind *reference_kind(void)
{
	if (arg.reference)
		return mnt_kind(arg.reference);
	/* Without loop devices or xfsprogs there is still tmpfs. */
	if (access("/dev/loop-control", F_OK) ||
	    sandbox_exec((const char *[]){ "mkfs.xfs", "-V", NULL },
			 "/dev/null"))
		return mnt_kind("tmpfs");
	return mnt_kind("xfs");
}

static void find_limits(void)
{
	for (int i = 0; i < 2; i++) {
		unsigned int flags = mnt_kind_flags(mnts[i]->kind);

		if (flags & (MNT_EXT4 | MNT_TMPFS))
			limits.max_value = 200;
		if (flags & MNT_TMPFS)
			limits.zero_range = false;
		if (!(flags & (MNT_FOLIOFS | MNT_XFS)))
			limits.shares = false;
	}
	/* Behind a write-back cache, all of a file is data. */
	if (strstr(arg.opts, "cache=writeback"))
		limits.sparse = false;
	ops_cached_times = !limits.sparse;
}

static int step(const char *name, void (*fn)(void *), unsigned int secs)
{
	int ret = sandbox_step(fn, NULL, secs);

	if (ret == STEP_TIMED_OUT)
		printf("# %s: timed out\n", name);
	else if (ret < 0)
		printf("# %s: died of signal %d\n", name, STEP_SIGNAL(0) - ret);
	return ret;
}

static int supervise(void *unused)
{
	unsigned int secs = 60 + (unsigned int)(arg.ops / 200);
	int ret;

	(void)unused;
	mnts[TEST] = sandbox_shared(sizeof(struct mnt));
	mnts[REF] = sandbox_shared(sizeof(struct mnt));
	mnt_init(mnts[TEST], mnt_kind(NULL), "test");
	mnt_init(mnts[REF], reference_kind(), "reference");
	snprintf(mnts[TEST]->opts, sizeof(mnts[TEST]->opts), "%s", arg.opts);
	find_limits();
	ret = step("set-up", set_up, 60);
	if (!ret)
		ret = step("test", body, secs);
	if (!ret)
		ret = step("tear-down", tear_down, 60);
	if (ret != STEP_TIMED_OUT && mnts[TEST]->daemon && mnts[TEST]->ended &&
	    !mnts[TEST]->expected) {
		printf("# the daemon did not survive\n");
		mnt_print_log(mnts[TEST]);
		ret = 1;
	}
	sandbox_sweep();
	printf("# seed %llu, %lu operations, against %s: %s\n",
	       (unsigned long long)arg.seed, arg.ops,
	       mnt_kind_name(mnts[REF]->kind), ret ? "FAILED" : "equal");
	return ret ? 1 : 0;
}

static bool parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "ops", required_argument, NULL, 'n' },
		{ "every", required_argument, NULL, 'e' },
		{ "reference", required_argument, NULL, 'r' },
		{ "no-crash", no_argument, NULL, 'c' },
		{ "no-remount", no_argument, NULL, 'm' },
		{ "trace", no_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "o:", longs, NULL)) != -1) {
		if (opt == 's')
			arg.seed = strtoull(optarg, NULL, 0);
		else if (opt == 'n')
			arg.ops = strtoul(optarg, NULL, 0);
		else if (opt == 'e')
			arg.every = strtoul(optarg, NULL, 0);
		else if (opt == 'r')
			arg.reference = optarg;
		else if (opt == 'c')
			arg.no_crash = true;
		else if (opt == 'm')
			arg.no_remount = true;
		else if (opt == 't')
			arg.trace = true;
		else if (opt == 'o')
			arg.opts = optarg;
		else
			return false;
	}
	return arg.every > 0 && optind == argc;
}

int main(int argc, char **argv)
{
	const char *why;

	if (!parse(argc, argv))
		return 2;
	why = sandbox_missing() ?: mnt_missing(mnt_kind(NULL));
	if (why) {
		printf("skipped: %s\n", why);
		return 77;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	return sandbox_run(supervise, NULL);
}
