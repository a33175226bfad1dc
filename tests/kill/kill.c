/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/kill/kill.c - SIGKILL for the daemon while several processes write
 *
 * In every cycle the writers work until the daemon dies in the middle of it.
 * Then the image must pass fsck -n as it is, must mount, and must hold all that
 * was answered.  The next cycle goes on with the same image.
 *
 *   --cycles=N   default 50
 *   --writers=N  default 4
 *   --seed=N     default 1; what is killed when is up to the machine, though
 *   -o OPTIONS   of the mount
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/kill/writer.h"
#include "tests/support/fops.h"
#include "tests/support/mnt.h"
#include "tests/support/sandbox.h"

#define DEVICE_SIZE (256ull << 20)
#define MAX_WRITERS 16
#define MAX_LOAD_MS 120

static struct {
	unsigned int cycles, writers;
	uint64_t seed;
	const char *opts;
} arg = { .cycles = 50, .writers = 4, .seed = 1, .opts = "" };

static struct mnt *mnt;
static struct writer *writers;
static volatile bool *killing;

static void __attribute__((noreturn)) fail(const char *what)
{
	printf("# %s: %s\n", what, strerrorname_np(errno));
	fflush(stdout);
	_exit(1);
}

static void enter(void)
{
	if (chdir(mnt->dir))
		fail("chdir");
}

static void set_up(void *unused)
{
	(void)unused;
	umask(022);
	if (mnt_make(mnt, DEVICE_SIZE) || mnt_mount(mnt, NULL))
		_exit(1);
	enter();
	for (unsigned int i = 0; i < arg.writers; i++)
		writer_set_up(&writers[i]);
	if (!(mnt_kind_flags(mnt->kind) & MNT_FOLIOFS))
		sync();
}

static void nap_ms(uint64_t ms)
{
	struct timespec ts = { 0, (long)ms * 1000000 };

	nanosleep(&ts, NULL);
}

static void load(void *cycle)
{
	uint64_t rng = arg.seed + *(const unsigned int *)cycle;
	int status, bad = 0;

	umask(022);
	*killing = false;
	for (unsigned int i = 0; i < arg.writers; i++) {
		if (fork())
			continue;
		enter();
		writer_run(&writers[i]);
	}
	nap_ms(1 + rnd(&rng) % MAX_LOAD_MS);
	*killing = true;
	if (mnt_kill(mnt))
		_exit(1);
	while (wait(&status) > 0)
		bad |= status;
	if (bad)
		_exit(1);
}

static void check(void *unused)
{
	bool good = true;

	(void)unused;
	if (mnt_crash(mnt))
		_exit(1);
	/* The kernel's filesystems want their log replayed before. */
	if (mnt_kind_flags(mnt->kind) & MNT_FOLIOFS && mnt_fsck(mnt)) {
		printf("# fsck -n after the crash found something\n");
		good = false;
	}
	if (mnt_mount(mnt, NULL))
		_exit(1);
	enter();
	for (unsigned int i = 0; i < arg.writers; i++)
		good &= writer_check(&writers[i]);
	fflush(stdout);
	if (!good)
		_exit(1);
}

static void tear_down(void *unused)
{
	(void)unused;
	if (mnt_unmount(mnt))
		_exit(1);
	if (mnt_fsck(mnt)) {
		printf("# fsck after the unmount found something\n");
		fflush(stdout);
		_exit(1);
	}
}

static int step(const char *name, void (*fn)(void *), void *p)
{
	int ret = sandbox_step(fn, p, 60);

	if (ret == STEP_TIMED_OUT)
		printf("# %s: timed out\n", name);
	else if (ret < 0)
		printf("# %s: died of signal %d\n", name, STEP_SIGNAL(0) - ret);
	return ret;
}

static int run_cycles(void)
{
	int ret = step("set-up", set_up, NULL);

	for (unsigned int i = 0; !ret && i < arg.cycles; i++) {
		ret = step("load", load, &i);
		if (!ret)
			ret = step("check", check, NULL);
		if (ret)
			printf("# in cycle %u\n", i);
	}
	return ret ?: step("tear-down", tear_down, NULL);
}

/* FOLIOFS_TEST_KEEP=DIR: keep the image when it failed. */
static void keep_image(void)
{
	const char *dir = getenv("FOLIOFS_TEST_KEEP");

	if (dir)
		sandbox_exec((const char *[]){ "cp", "--sparse=always",
					       mnt->dev, dir, NULL },
			     "/dev/null");
}

static void init_writers(void)
{
	for (unsigned int i = 0; i < arg.writers; i++) {
		writers[i].nr = (int)i;
		writers[i].rng = arg.seed * 100 + i;
		writers[i].killing = killing;
		writers[i].sync = strstr(arg.opts, "cache=writeback");
		writers[i].atomic = strstr(arg.opts, "data=cow") &&
				    strstr(arg.opts, "cache=none");
	}
}

static unsigned long count_done(void)
{
	unsigned long nr = 0;

	for (unsigned int i = 0; i < arg.writers; i++)
		for (int kind = 0; kind < NR_KILL_OPS; kind++)
			nr += writers[i].nr_done[kind];
	return nr;
}

static int supervise(void *unused)
{
	int ret;

	(void)unused;
	mnt = sandbox_shared(sizeof(*mnt));
	writers = sandbox_shared(MAX_WRITERS * sizeof(*writers));
	killing = sandbox_shared(sizeof(*killing));
	mnt_init(mnt, mnt_kind(NULL), "fs");
	snprintf(mnt->opts, sizeof(mnt->opts), "%s", arg.opts);
	init_writers();
	ret = run_cycles();
	if (ret) {
		mnt_print_log(mnt);
		keep_image();
	}
	sandbox_sweep();
	printf("# %u cycles, %lu operations answered: %s\n", arg.cycles,
	       count_done(), ret ? "FAILED" : "all there");
	return ret ? 1 : 0;
}

static bool parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "cycles", required_argument, NULL, 'c' },
		{ "writers", required_argument, NULL, 'w' },
		{ "seed", required_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "o:", longs, NULL)) != -1) {
		if (opt == 'c')
			arg.cycles = (unsigned int)atoi(optarg);
		else if (opt == 'w')
			arg.writers = (unsigned int)atoi(optarg);
		else if (opt == 's')
			arg.seed = strtoull(optarg, NULL, 0);
		else if (opt == 'o')
			arg.opts = optarg;
		else
			return false;
	}
	return arg.writers && arg.writers <= MAX_WRITERS && optind == argc;
}

int main(int argc, char **argv)
{
	const struct mnt_kind *kind = mnt_kind(NULL);
	const char *why;

	if (!parse(argc, argv))
		return 2;
	why = sandbox_missing() ?: mnt_missing(kind);
	if (!why && !(mnt_kind_flags(kind) & MNT_CRASH))
		why = "this filesystem cannot crash";
	if (why) {
		printf("skipped: %s\n", why);
		return 77;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	return sandbox_run(supervise, NULL);
}
