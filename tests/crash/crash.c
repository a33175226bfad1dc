/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/crash.c - the crash tests: options, and a line of TAP for each
 *			 scenario
 *
 *	crash [OPTIONS] [GROUP | SCENARIO | random-SEED]...
 *
 * FOLIOFS_CRASH_SCALE in the environment multiplies the number of samples and
 * of random scenarios, for a long run.  A sanitizer makes everything several
 * times slower, so builds with one look at fewer images.
 */
#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/crash/explore.h"
#include "tests/crash/scenarios.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW 1
#endif
#endif
#ifndef SLOW
#define SLOW 0
#endif

/* A scenario that takes longer hangs. */
#define TIMEOUT_S 240

struct settings {
	struct explore_options opt;
	unsigned int nr_random;
	unsigned int nr_schedules;
	bool one_schedule;
	bool stop;
	struct scenario own; /* from the command line */
	unsigned int nr_done, nr_failed;
	struct explore_totals totals;
};

static void die(int sig)
{
	static const char *const tags[] = { "device", "image", "again",
					    "image2", "reference" };
	char text[600];
	int len = snprintf(text, sizeof(text), "# signal %d at %s\n", sig,
			   explore_where());

	(void)!write(STDOUT_FILENO, text, (size_t)len);
	for (unsigned int i = 0; i < 5; i++) {
		snprintf(text, sizeof(text), "/dev/shm/foliofs-crash-%d-%s",
			 (int)getpid(), tags[i]);
		unlink(text);
	}
	signal(sig, SIG_DFL);
	raise(sig);
}

static bool run_schedules(struct settings *set, const struct scenario *sc)
{
	struct explore_options opt = set->opt;

	if (!sc->ops2 || set->one_schedule)
		return explore(sc, &opt, &set->totals);
	for (unsigned int i = 0; i < set->nr_schedules; i++) {
		opt.schedule = i;
		if (!explore(sc, &opt, &set->totals))
			return false;
	}
	return true;
}

static void run_one(struct settings *set, const struct scenario *sc)
{
	struct explore_totals before = set->totals;
	const struct explore_totals *t = &set->totals;
	bool ok;

	if (set->stop && set->nr_failed)
		return;
	alarm(TIMEOUT_S);
	ok = run_schedules(set, sc);
	alarm(0);
	printf("%s %u - %s\n", ok ? "ok" : "not ok", ++set->nr_done, sc->name);
	set->nr_failed += !ok;
	if (set->opt.verbose)
		printf("# %" PRIu64 " operations, %" PRIu64 " fences, "
		       "%" PRIu64 " moments, %" PRIu64 " images, "
		       "%" PRIu64 " mounted, %" PRIu64 " crashed again, "
		       "%" PRIu64 " killed\n",
		       t->ops - before.ops, t->fences - before.fences,
		       t->points - before.points, t->images - before.images,
		       t->mounts - before.mounts, t->again - before.again,
		       t->kills - before.kills);
	fflush(stdout);
}

static void run_random(struct settings *set)
{
	for (unsigned int i = 0; i < set->nr_random; i++)
		run_one(set, scenario_random(set->opt.seed + i));
}

/* False: there is nothing of that name. */
static bool run_named(struct settings *set, const char *name)
{
	unsigned int before = set->nr_done;

	for (const struct scenario *sc = scenarios; sc->name; sc++)
		if (strcmp(name, "all") == 0 || strcmp(name, sc->group) == 0 ||
		    strcmp(name, sc->name) == 0)
			run_one(set, sc);
	if (strcmp(name, "random") == 0 || strcmp(name, "all") == 0)
		run_random(set);
	else if (strncmp(name, "random-", 7) == 0)
		run_one(set, scenario_random(strtoull(name + 7, NULL, 0)));
	return set->nr_done > before;
}

static void usage(void)
{
	printf("Usage: crash [OPTIONS] [GROUP | SCENARIO | random-SEED]...\n"
	       "  --seed N      of all that is chosen by chance\n"
	       "  --limit N     look at all images where there are so few\n"
	       "  --samples N   and at so many for an operation otherwise\n"
	       "  --again N     crash again from one image in N\n"
	       "  --fsck N      run the checker on one image in N\n"
	       "  --random N    random scenarios\n"
	       "  --schedules N of two threads\n"
	       "  --schedule N  just this one\n"
	       "  --image N     look at this image only\n"
	       "  --setup S, --ops S, --ops2 S, --blocks N, --cow\n"
	       "                a scenario of one's own\n"
	       "  --stop        at the first failure\n"
	       "  --verbose, --list\n");
}

static void list(void)
{
	for (const struct scenario *sc = scenarios; sc->name; sc++)
		printf("%-12s %s\n", sc->group, sc->name);
}

static const struct option options[] = {
	{ "seed", required_argument, NULL, 's' },
	{ "limit", required_argument, NULL, 'l' },
	{ "samples", required_argument, NULL, 'n' },
	{ "again", required_argument, NULL, 'a' },
	{ "fsck", required_argument, NULL, 'f' },
	{ "random", required_argument, NULL, 'r' },
	{ "schedules", required_argument, NULL, 'K' },
	{ "schedule", required_argument, NULL, 'k' },
	{ "image", required_argument, NULL, 'i' },
	{ "stop", no_argument, NULL, 'S' },
	{ "setup", required_argument, NULL, 'p' },
	{ "ops", required_argument, NULL, 'o' },
	{ "ops2", required_argument, NULL, 't' },
	{ "blocks", required_argument, NULL, 'b' },
	{ "cow", no_argument, NULL, 'c' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "list", no_argument, NULL, 'L' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static unsigned int number(const char *text)
{
	return (unsigned int)strtoul(text, NULL, 0);
}

/* Returns an exit code, or -1 to go on. */
static int set_option(struct settings *set, int c)
{
	struct explore_options *opt = &set->opt;

	switch (c) {
	case 's':
		opt->seed = strtoull(optarg, NULL, 0);
		break;
	case 'l':
		opt->limit = number(optarg);
		break;
	case 'n':
		opt->samples = number(optarg);
		break;
	case 'a':
		opt->again = number(optarg);
		break;
	case 'f':
		opt->fsck = number(optarg);
		break;
	case 'r':
		set->nr_random = number(optarg);
		break;
	case 'K':
		set->nr_schedules = number(optarg);
		break;
	case 'k':
		opt->schedule = number(optarg);
		set->one_schedule = true;
		break;
	case 'i':
		opt->only_image = strtoull(optarg, NULL, 0);
		break;
	case 'S':
		set->stop = true;
		break;
	case 'p':
		set->own.setup = optarg;
		break;
	case 'o':
		set->own.ops = optarg;
		break;
	case 't':
		set->own.ops2 = optarg;
		break;
	case 'b':
		set->own.blocks = number(optarg);
		break;
	case 'c':
		set->own.data = DATA_COW;
		break;
	case 'v':
		opt->verbose = true;
		break;
	case 'L':
		list();
		return 0;
	case 'h':
		usage();
		return 0;
	default:
		usage();
		return 2;
	}
	return -1;
}

static void set_defaults(struct settings *set)
{
	const char *env = getenv("FOLIOFS_CRASH_SCALE");
	unsigned int scale = env ? number(env) : 1;

	set->opt = (struct explore_options){ .seed = 1,
					     .limit = SLOW ? 128 : 1024,
					     .samples = SLOW ? 200 : 2000,
					     .again = SLOW ? 300 : 1000,
					     .fsck = 1 };
	set->opt.samples *= scale;
	set->nr_random = (SLOW ? 10 : 40) * scale;
	set->nr_schedules = (SLOW ? 2 : 6) * scale;
	set->own = (struct scenario){ .name = "own", .blocks = 96 };
}

int main(int argc, char **argv)
{
	static struct settings set;
	int c, ret;

	set_defaults(&set);
	while ((c = getopt_long(argc, argv, "v", options, NULL)) != -1) {
		ret = set_option(&set, c);
		if (ret >= 0)
			return ret;
	}
	signal(SIGABRT, die);
	signal(SIGALRM, die);
	signal(SIGINT, die);
	signal(SIGTERM, die);
	if (set.own.ops)
		run_one(&set, &set.own);
	for (int i = optind; i < argc; i++)
		if (!run_named(&set, argv[i])) {
			fprintf(stderr, "crash: no such scenario: %s\n",
				argv[i]);
			return 2;
		}
	printf("1..%u\n", set.nr_done);
	printf("# %" PRIu64 " operations, %" PRIu64 " moments, %" PRIu64
	       " images, %" PRIu64 " mounted, %" PRIu64 " crashed again, "
	       "%" PRIu64 " killed\n",
	       set.totals.ops, set.totals.points, set.totals.images,
	       set.totals.mounts, set.totals.again, set.totals.kills);
	return set.nr_failed ? 1 : 0;
}
