/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/foliofs-stress.c - clients that hold pages against those that take them
 *
 * This process starts the clients, watches them and reports.  It never touches
 * a file of the mount while they run, so that it can say who is stuck.
 *
 * Exit codes: 0 nothing wrong, 1 something was wrong, 2 a mistake on the
 * command line, 3 it could not run.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/foliofs.h"
#include "tools/stress.h"
#include "tools/text.h"

#define STUCK_NS      (UINT64_C(60) * 1000000000)
#define THREADS_EACH  2u /* clients in one process */
#define PAIRS_MAX     (MAX_WORKERS / 2 - 1)
#define SHUTDOWN_SECS 90

struct stress *stress;
_Thread_local struct worker *self;

const char *const op_names[NR_OPS] = {
	"attach", "detach",   "load",	   "store", "sync",	"return",
	"pin",	  "pin load", "pin store", "unpin", "truncate", "punch",
	"zero",	  "write",    "read",	   "clone", "copy",	"unshare",
	"fsync",  "rename",   "unlink",
};

/* In the order of enum stress_op. */
static const struct profile
	profiles[] = {
		{ "mixed",
		  "everything",
		  10,
		  32,
		  8,
		  { 2,	1, 30, 30, 6,  1, 16, 12, 10, 12, 14,
		    16, 6, 16, 8,  14, 6, 3,  4,  3,  3 } },
		{ "pins",
		  "pins against truncate and punch",
		  6,
		  16,
		  4,
		  { 1,	1, 6,  10, 1, 0, 30, 20, 16, 24, 24,
		    24, 4, 24, 2,  2, 2, 0,  0,	 1,  6 } },
		{ "maps",
		  "stores against truncate and punch",
		  8,
		  32,
		  8,
		  { 2,	1, 40, 50, 4, 2, 0, 0, 0, 0, 20,
		    20, 8, 12, 6,  2, 2, 2, 2, 1, 2 } },
		{ "reflink",
		  "clones of files that are stored to",
		  12,
		  64,
		  32,
		  { 2, 1, 24, 40, 4,  1,  6, 4, 4, 6, 4,
		    4, 2, 10, 4,  40, 16, 6, 1, 1, 2 } },
		{ "names",
		  "files that come and go",
		  16,
		  8,
		  4,
		  { 20, 10, 10, 14, 2, 1, 10, 6, 6,  8, 6,
		    4,	2,  16, 2,  4, 4, 0,  1, 16, 20 } },
		{ "huge",
		  "2 MiB at once",
		  3,
		  MAX_PAGES,
		  64,
		  { 2,	1, 30, 30, 4, 1, 12, 8, 8, 10, 6,
		    10, 6, 16, 4,  8, 4, 2,  2, 1, 2 } },
	};
#define NR_PROFILES (sizeof(profiles) / sizeof(profiles[0]))

static const char usage_text[] =
	"Usage: foliofs-stress [OPTION]... MNT|--self\n"
	"Map, pin, load and store files while others truncate, punch, clone\n"
	"and remove them, and see whether anybody meets a wrong byte.\n"
	"\n"
	"      --self           on a filesystem of its own, in memory\n"
	"      --size=SIZE      of that filesystem; 64M\n"
	"      --daemon=PATH    the foliofs to mount it with\n"
	"  -o, --options=LIST   more options to mount it with\n"
	"      --policy=NAME    the layout-break policy to run under\n"
	"  -t, --seconds=N      for so long; 10\n"
	"  -n, --ops=N          or until every client has done so many\n"
	"  -s, --seed=N         what the clients do; random\n"
	"  -c, --clients=N      of each kind; 4\n"
	"  -p, --profile=NAME   what they do most\n"
	"      --json           the result as JSON\n"
	"  -q, --quiet          say nothing when nothing is wrong\n"
	"      --help           show this\n"
	"      --version        show the version\n"
	"\n"
	"Profiles:\n";

enum {
	EXIT_CLEAN,
	EXIT_WRONG,
	EXIT_USAGE,
	EXIT_FAILED
};

struct arguments {
	const char *mnt, *policy, *options;
	const struct profile *profile;
	uint64_t seconds, ops, seed, clients;
	bool own, json, quiet, seeded;
	struct own_fs fs;
};

static volatile sig_atomic_t interrupted;

/* For every client. */

uint64_t time_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

uint64_t rnd(uint64_t n)
{
	self->rng ^= self->rng << 13;
	self->rng ^= self->rng >> 7;
	self->rng ^= self->rng << 17;
	return (self->rng >> 11) % n;
}

void op_begin(enum stress_op op)
{
	atomic_store(&self->op, (int)op);
	atomic_store(&self->since_ns, time_ns());
}

/* What a policy, another client or a full device may answer. */
static bool is_busy(int ret)
{
	return ret == -EAGAIN || ret == -ENOSPC || ret == -EBUSY ||
	       ret == -ETXTBSY || ret == -ETIMEDOUT || ret == -EINTR;
}

void op_end(enum stress_op op, int ret)
{
	struct op_stat *s = &self->stat[op];
	uint64_t ns = time_ns() - atomic_load(&self->since_ns);

	atomic_store(&self->since_ns, 0);
	s->nr++;
	s->ns += ns;
	if (ns > s->max_ns)
		s->max_ns = ns;
	if (ret == 0)
		return;
	if (is_busy(ret)) {
		s->nr_busy++;
		return;
	}
	s->nr_failed++;
	if (!(stress->may_revoke && ret == -ENOTCONN))
		finding(NULL, 0, UINT64_MAX, "%s: %s", op_names[op],
			strerror(-ret));
}

enum stress_op op_choose(bool pinned)
{
	const uint8_t *weight = stress->profile->weight;
	unsigned int from = self->holder ? 0 : OP_TRUNCATE;
	unsigned int to = self->holder ? OP_TRUNCATE : NR_OPS;
	unsigned int sum = 0, at;

	for (unsigned int i = from; i < to; i++)
		sum += weight[i];
	for (;;) {
		at = (unsigned int)rnd(sum);
		for (unsigned int i = from; i < to; i++) {
			if (at >= weight[i]) {
				at -= weight[i];
				continue;
			}
			/* These may wait for whoever waits for our pin. */
			if (pinned && (i == OP_ATTACH || i == OP_DETACH ||
				       i == OP_SYNC || i == OP_GIVE_BACK))
				break;
			return (enum stress_op)i;
		}
	}
}

/* Findings. */

static const char *const event_names[] = {
	"",	     "owned by", "pinned by", "unpinned by", "being taken from",
	"taken from"
};

static void who_is(char *buf, size_t size, unsigned int who)
{
	if (who >= stress->nr_workers)
		snprintf(buf, size, "the start");
	else
		snprintf(buf, size, "%s %u",
			 stress->worker[who].holder ? "holder" : "changer",
			 who);
}

static void print_block(FILE *f, uint64_t block)
{
	const struct block *b = &stress->block[block % NR_BLOCKS];
	uint32_t nr = atomic_load(&b->nr);
	char who[32];

	fprintf(f, "  block %ju, the last first:\n", (uintmax_t)block);
	for (uint32_t i = 0; i < nr && i < NR_EVENTS; i++) {
		const struct event *e = &b->event[(nr - 1 - i) % NR_EVENTS];

		who_is(who, sizeof(who), e->who);
		fprintf(f, "    at %ju %s file %u page %u (%s, %s)\n",
			(uintmax_t)e->when, event_names[e->kind], e->id,
			e->page, op_names[e->op], who);
	}
}

static void print_ring(FILE *f, const struct object *o, unsigned int page)
{
	static const char *const states[] = { "", "runs", "done", "maybe" };
	struct ring *r = ring_of(o, page);
	char who[32];

	fprintf(f, "  file %u (%s) page %u, operations:\n", atomic_load(&o->id),
		o->name, page);
	for (unsigned int i = 0; i < NR_RECS; i++) {
		const struct rec *e = &r->rec[i];

		if (e->state == REC_FREE)
			continue;
		who_is(who, sizeof(who), e->who);
		fprintf(f, "    [%ju, %ju] %s, %s: ", (uintmax_t)e->begin,
			(uintmax_t)e->end, states[e->state], who);
		if (e->clone)
			fprintf(f, "clone of file %u page %u\n", e->src_id,
				e->src_page);
		else if (e->value <= VALUE_BEYOND)
			fputs(e->value ? "past the end\n" : "zeros\n", f);
		else
			fprintf(f, "version %u\n",
				(unsigned int)(e->value & 0xfffff));
	}
}

/* The page that a tag names, if its file is still there. */
static void print_tag(FILE *f, uint64_t tag)
{
	unsigned int page = tag >> 20 & 0xfff;

	if (tag <= VALUE_BEYOND || page >= stress->profile->nr_pages)
		return;
	for (unsigned int i = 0; i < NR_OBJECTS; i++)
		if ((atomic_load(&stress->object[i].id) & 0xffff) == tag >> 32)
			print_ring(f, &stress->object[i], page);
}

void finding_of(const struct object *o, unsigned int page, uint64_t block,
		uint64_t tag, const char *fmt, ...)
{
	uint32_t nr = atomic_fetch_add(&stress->nr_findings, 1);
	struct finding *what;
	char who[32];
	va_list ap;
	FILE *f;

	atomic_store(&stress->stop, true);
	if (nr >= MAX_FINDINGS)
		return;
	what = &stress->finding[nr];
	f = fmemopen(what->text, sizeof(what->text) - 1, "w");
	if (!f)
		return;
	who_is(who, sizeof(who),
	       self ? self->index : (unsigned int)MAX_WORKERS);
	fprintf(f, "%s: ", who);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fputc('\n', f);
	if (block != UINT64_MAX)
		print_block(f, block);
	if (o)
		print_ring(f, o, page);
	print_tag(f, tag);
	fclose(f);
}

/* Clients. */

static void *client(void *arg)
{
	uint64_t nr = 0;

	self = arg;
	while (!atomic_load(&stress->stop) &&
	       (!stress->max_ops || nr < stress->max_ops)) {
		if (self->holder)
			holder_step(op_choose(holder_pinned()));
		else
			changer_step(op_choose(false));
		nr++;
	}
	if (self->holder)
		holder_exit();
	atomic_store(&self->ended, true);
	return NULL;
}

/* A process with clients [first, first + THREADS_EACH) of one kind. */
static void process(unsigned int first, pid_t parent)
{
	pthread_t threads[THREADS_EACH];
	unsigned int nr = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILED);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	if (stress->worker[first].holder) {
		holder_init();
		device_open();
	}
	for (;
	     nr < THREADS_EACH && first + nr < stress->nr_workers &&
	     stress->worker[first + nr].holder == stress->worker[first].holder;
	     nr++)
		if (pthread_create(&threads[nr], NULL, client,
				   &stress->worker[first + nr]))
			_exit(EXIT_FAILED);
	for (unsigned int i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

static unsigned int start_clients(pid_t pids[MAX_WORKERS])
{
	unsigned int nr = 0, i = 0;
	pid_t parent = getpid();

	while (i < stress->nr_workers) {
		bool holder = stress->worker[i].holder;

		fflush(NULL);
		pids[nr] = fork();
		if (pids[nr] == 0)
			process(i, parent);
		if (pids[nr] > 0)
			nr++;
		for (unsigned int n = 0;
		     n < THREADS_EACH && i < stress->nr_workers &&
		     stress->worker[i].holder == holder;
		     n++)
			i++;
	}
	return nr;
}

/* The watch. */

static void find_stuck(void)
{
	uint64_t ns = time_ns();

	if (atomic_load(&stress->nr_findings))
		return;
	for (unsigned int i = 0; i < stress->nr_workers; i++) {
		const struct worker *w = &stress->worker[i];
		uint64_t since = atomic_load(&w->since_ns);

		if (since && ns > since && ns - since > STUCK_NS)
			finding(NULL, 0, UINT64_MAX,
				"%s %u is stuck: %s for %ju s",
				w->holder ? "holder" : "changer", i,
				op_names[atomic_load(&w->op)],
				(uintmax_t)((ns - since) / 1000000000));
	}
}

/* Processes that ended leave the list; one that crashed is a finding. */
static unsigned int reap(pid_t pids[MAX_WORKERS], unsigned int nr)
{
	int status;

	for (unsigned int i = 0; i < nr;) {
		if (waitpid(pids[i], &status, WNOHANG) != pids[i]) {
			i++;
			continue;
		}
		if (status)
			finding(NULL, 0, UINT64_MAX,
				"a client ended with status %#x",
				(unsigned int)status);
		pids[i] = pids[--nr];
	}
	return nr;
}

static uint64_t total_ops(void)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < stress->nr_workers; i++)
		for (unsigned int op = 0; op < NR_OPS; op++)
			sum += stress->worker[i].stat[op].nr;
	return sum;
}

static void progress(const struct arguments *a, uint64_t ns)
{
	unsigned int done = (unsigned int)(ns / 10000000 * 40 /
					   (a->seconds ? a->seconds * 100 : 1));
	char bar[41];

	if (done > 40)
		done = 40;
	memset(bar, '.', 40);
	memset(bar, '#', done);
	bar[40] = '\0';
	fprintf(stderr, "\r[%s] %ju s, %ju operations ", bar,
		(uintmax_t)(ns / 1000000000), (uintmax_t)total_ops());
}

static void kill_all(const pid_t pids[MAX_WORKERS], unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		kill(pids[i], SIGKILL);
	for (unsigned int i = 0; i < nr; i++)
		waitpid(pids[i], NULL, 0);
}

static void watch(const struct arguments *a, pid_t pids[MAX_WORKERS],
		  unsigned int nr)
{
	bool bar = isatty(STDERR_FILENO) && !a->quiet && !a->json;
	const struct timespec nap = { 0, 50000000 };
	uint64_t start = time_ns(), stop = 0, ns;

	while ((nr = reap(pids, nr))) {
		ns = time_ns() - start;
		if (interrupted || (!a->ops && ns >= a->seconds * 1000000000))
			atomic_store(&stress->stop, true);
		if (atomic_load(&stress->stop) && !stop)
			stop = ns;
		find_stuck();
		if (bar)
			progress(a, ns);
		if (stop && ns - stop > SHUTDOWN_SECS * UINT64_C(1000000000)) {
			kill_all(pids, nr);
			break;
		}
		nanosleep(&nap, NULL);
	}
	if (bar)
		fputs("\r\033[K", stderr);
}

/* The report. */

static struct op_stat sum_of(unsigned int op)
{
	struct op_stat sum = { 0 };

	for (unsigned int i = 0; i < stress->nr_workers; i++) {
		const struct op_stat *s = &stress->worker[i].stat[op];

		sum.nr += s->nr;
		sum.nr_busy += s->nr_busy;
		sum.nr_failed += s->nr_failed;
		sum.ns += s->ns;
		if (s->max_ns > sum.max_ns)
			sum.max_ns = s->max_ns;
	}
	return sum;
}

static uint64_t sum_unknown(void)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < stress->nr_workers; i++)
		sum += stress->worker[i].nr_unknown;
	return sum;
}

static void report_json(const struct arguments *a, bool wrong)
{
	uint32_t nr = atomic_load(&stress->nr_findings);
	struct out o;

	out_begin(&o, stdout, true);
	out_bool(&o, "clean", !wrong);
	out_u64(&o, "seed", stress->seed);
	out_text(&o, "profile", a->profile->name);
	out_text(&o, "policy", a->policy ? a->policy : "");
	out_u64(&o, "clients", a->clients);
	out_u64(&o, "unknown", sum_unknown());
	out_open(&o, "operations", '[');
	for (unsigned int i = 0; i < NR_OPS; i++) {
		struct op_stat s = sum_of(i);

		out_open(&o, NULL, '{');
		out_text(&o, "name", op_names[i]);
		out_u64(&o, "count", s.nr);
		out_u64(&o, "busy", s.nr_busy);
		out_u64(&o, "failed", s.nr_failed);
		out_u64(&o, "mean_ns", s.nr ? s.ns / s.nr : 0);
		out_u64(&o, "max_ns", s.max_ns);
		out_close(&o, '}');
	}
	out_close(&o, ']');
	out_open(&o, "violations", '[');
	for (uint32_t i = 0; i < nr && i < MAX_FINDINGS; i++)
		out_text(&o, NULL, stress->finding[i].text);
	out_close(&o, ']');
	out_end(&o);
}

static void report_text(const struct arguments *a, bool wrong)
{
	uint32_t nr = atomic_load(&stress->nr_findings);

	if (a->quiet && !wrong)
		return;
	printf("%-10s %10s %8s %8s %12s %12s\n", "operation", "count", "busy",
	       "failed", "mean us", "max us");
	for (unsigned int i = 0; i < NR_OPS; i++) {
		struct op_stat s = sum_of(i);

		if (s.nr)
			printf("%-10s %10ju %8ju %8ju %12.1f %12.1f\n",
			       op_names[i], (uintmax_t)s.nr,
			       (uintmax_t)s.nr_busy, (uintmax_t)s.nr_failed,
			       (double)s.ns / (double)s.nr / 1e3,
			       (double)s.max_ns / 1e3);
	}
	for (uint32_t i = 0; i < nr && i < MAX_FINDINGS; i++)
		printf("violation: %s", stress->finding[i].text);
	printf("seed %ju, profile %s: %s\n", (uintmax_t)stress->seed,
	       a->profile->name, wrong ? "something is wrong" : "clean");
}

/* From the command line to the clients. */

static int bad_usage(const char *what, const char *value)
{
	fprintf(stderr, "foliofs-stress: %s%s; see --help\n", what,
		value ? value : "");
	return EXIT_USAGE;
}

static int help(void)
{
	fputs(usage_text, stdout);
	for (size_t i = 0; i < NR_PROFILES; i++)
		printf("  %-10s %s\n", profiles[i].name, profiles[i].what);
	return EXIT_CLEAN;
}

static int take_profile(struct arguments *a, const char *name)
{
	for (size_t i = 0; i < NR_PROFILES; i++) {
		if (strcmp(profiles[i].name, name) == 0) {
			a->profile = &profiles[i];
			return -1;
		}
	}
	return bad_usage("no such profile: ", name);
}

static int take_number(uint64_t *to, uint64_t min, uint64_t max)
{
	uint64_t nr;

	if (!number_parse(optarg, &nr) || nr < min || nr > max)
		return bad_usage("not a number for this option: ", optarg);
	*to = nr;
	return -1;
}

/* Returns -1 to go on, or an exit code. */
static int take_option(struct arguments *a, int opt)
{
	switch (opt) {
	case 't':
		return take_number(&a->seconds, 1, 1000000000);
	case 'n':
		return take_number(&a->ops, 1, UINT64_MAX);
	case 's':
		a->seeded = true;
		return take_number(&a->seed, 0, UINT64_MAX);
	case 'c':
		return take_number(&a->clients, 1, PAIRS_MAX);
	case 'p':
		return take_profile(a, optarg);
	case 'o':
		a->options = optarg;
		return -1;
	case 'P':
		a->policy = optarg;
		return -1;
	case 'D':
		a->fs.daemon = optarg;
		return -1;
	case 'S':
		return size_parse(optarg, &a->fs.size)
			       ? -1
			       : bad_usage("not a size: ", optarg);
	case 'O':
		a->own = true;
		return -1;
	case 'j':
		a->json = true;
		return -1;
	case 'q':
		a->quiet = true;
		return -1;
	case 'h':
		return help();
	case 'V':
		puts("foliofs-stress " FOLIOFS_RELEASE);
		return EXIT_CLEAN;
	default:
		return bad_usage("unknown option or missing value", NULL);
	}
}

static int parse(struct arguments *a, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seconds", required_argument, NULL, 't' },
		{ "ops", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 's' },
		{ "clients", required_argument, NULL, 'c' },
		{ "profile", required_argument, NULL, 'p' },
		{ "options", required_argument, NULL, 'o' },
		{ "policy", required_argument, NULL, 'P' },
		{ "daemon", required_argument, NULL, 'D' },
		{ "size", required_argument, NULL, 'S' },
		{ "self", no_argument, NULL, 'O' },
		{ "json", no_argument, NULL, 'j' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int opt, ret;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "t:n:s:c:p:o:q", longs, NULL)) !=
	       -1) {
		ret = take_option(a, opt);
		if (ret >= 0)
			return ret;
	}
	if (optind + (a->own ? 0 : 1) != argc)
		return bad_usage("name one mount point, or --self", NULL);
	a->mnt = argv[optind];
	return -1;
}

static int shared_make(const struct arguments *a)
{
	const struct profile *p = a->profile;
	size_t size = sizeof(*stress) +
		      (size_t)NR_OBJECTS * p->nr_pages * sizeof(struct ring);

	stress = mmap(NULL, size, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stress == MAP_FAILED)
		return -errno;
	stress->profile = p;
	stress->seed = a->seed;
	stress->max_ops = a->ops;
	stress->nr_workers = 2 * (unsigned int)a->clients;
	stress->may_revoke =
		a->policy && (strncmp(a->policy, "lease", 5) == 0 ||
			      strncmp(a->policy, "revoke", 6) == 0);
	atomic_store(&stress->next_id, 1);
	for (unsigned int i = 0; i < MAX_WORKERS; i++) {
		struct worker *w = &stress->worker[i];

		w->index = i;
		w->holder = i < a->clients;
		w->rng = (a->seed + 1) * UINT64_C(0x9e3779b97f4a7c15) ^
			 (i + 1) * UINT64_C(0xd1342543de82ef95);
		w->rng |= UINT64_C(1) << 63;
	}
	return 0;
}

/* The device of a mount, from what the kernel says was mounted. */
static void find_device(const char *mnt)
{
	char line[1024], dir[512], dev[256], real[4096];
	FILE *f;

	f = fopen("/proc/self/mounts", "re");
	if (!f || !realpath(mnt, real)) {
		if (f)
			fclose(f);
		return;
	}
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%255s %511s", dev, dir) == 2 &&
		    strcmp(dir, real) == 0)
			snprintf(stress->device, sizeof(stress->device), "%s",
				 dev);
	fclose(f);
}

/* Run foliofsctl policy MNT set NAME. */
static int set_policy(const struct arguments *a)
{
	char path[256];
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execlp(find_program("foliofsctl", path), "foliofsctl", "policy",
		       a->mnt, "set", a->policy, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
		fprintf(stderr, "foliofs-stress: the policy cannot be set\n");
		return -EIO;
	}
	return 0;
}

static int files_make(const char *mnt)
{
	int ret = 0;

	snprintf(stress->dir, sizeof(stress->dir), "%s/stress.%d", mnt,
		 (int)getpid());
	if (mkdir(stress->dir, 0700))
		return -errno;
	for (unsigned int i = 0; !ret && i < stress->profile->nr_files; i++)
		ret = object_create();
	return ret;
}

static void files_remove(void)
{
	char path[320];

	for (unsigned int i = 0; i < NR_OBJECTS; i++) {
		const struct object *o = &stress->object[i];

		snprintf(path, sizeof(path), "%s/%s", stress->dir, o->name);
		if (atomic_load(&o->linked))
			unlink(path);
	}
	rmdir(stress->dir);
}

static int run(const struct arguments *a, const char *mnt)
{
	pid_t pids[MAX_WORKERS];
	unsigned int nr;
	int ret;

	self = &stress->worker[MAX_WORKERS - 1];
	ret = files_make(mnt);
	if (ret) {
		fprintf(stderr, "foliofs-stress: %s: %s\n", stress->dir,
			strerror(-ret));
		return EXIT_FAILED;
	}
	nr = start_clients(pids);
	watch(a, pids, nr);
	if (!atomic_load(&stress->nr_findings)) {
		stress_check_files();
		files_remove();
	}
	return atomic_load(&stress->nr_findings) ? EXIT_WRONG : EXIT_CLEAN;
}

static int run_own(struct arguments *a)
{
	char options[256];
	int ret;

	snprintf(options, sizeof(options), "%s%s%s",
		 a->options ? a->options : "rw", a->policy ? ",policy=" : "",
		 a->policy ? a->policy : "");
	a->fs.options = options;
	ret = own_start(&a->fs) ? EXIT_FAILED : EXIT_CLEAN;
	if (ret == EXIT_CLEAN) {
		snprintf(stress->device, sizeof(stress->device), "%s",
			 a->fs.image);
		ret = run(a, a->fs.dir);
	} else {
		own_log(&a->fs);
	}
	if (own_stop(&a->fs) && ret == EXIT_CLEAN)
		ret = EXIT_WRONG;
	return ret;
}

static int run_mount(const struct arguments *a)
{
	if (a->policy && set_policy(a))
		return EXIT_FAILED;
	find_device(a->mnt);
	return run(a, a->mnt);
}

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

int main(int argc, char **argv)
{
	struct arguments a = { .profile = &profiles[0],
			       .seconds = 10,
			       .clients = 4,
			       .fs.size = UINT64_C(64) << 20 };
	int ret = parse(&a, argc, argv);

	if (ret >= 0)
		return ret;
	if (!a.seeded)
		(void)!getrandom(&a.seed, 4, 0);
	if (shared_make(&a))
		return EXIT_FAILED;
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
	signal(SIGPIPE, SIG_IGN);
	ret = a.own ? run_own(&a) : run_mount(&a);
	if (ret != EXIT_FAILED && a.json)
		report_json(&a, ret != EXIT_CLEAN);
	else if (ret != EXIT_FAILED)
		report_text(&a, ret != EXIT_CLEAN);
	return ret;
}
