/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/fsck.foliofs.c - check a foliofs, and repair it
 *
 * Exit codes are those of fsck(8), and may be added up: 0 no faults, 1 faults
 * repaired, 4 faults left, 8 could not check, 16 a mistake on the command
 * line, 32 interrupted.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dax/namespace.h"
#include "fs/check.h"
#include "fs/fs.h"
#include "tools/text.h"

static const char usage_text[] =
	"Usage: fsck.foliofs [OPTION]... DEVICE\n"
	"Check a foliofs that is not mounted.\n"
	"\n"
	"  -n          only look; the device is not changed (the default)\n"
	"  -y          repair all that can be repaired\n"
	"  -p, -a      as -y, but look only if it was not unmounted cleanly\n"
	"  -f          with -p: look in any case\n"
	"  -v          report every fault, however many there are\n"
	"      --json  report as JSON\n"
	"      --help, --version\n"
	"\n"
	"Exit code: 0 good, 1 repaired, 4 faults left, 8 could not check,\n"
	"16 wrong usage, 32 interrupted.\n";

enum {
	EXIT_GOOD = 0,
	EXIT_REPAIRED = 1,
	EXIT_LEFT = 4,
	EXIT_OPERATION = 8,
	EXIT_USAGE = 16,
	EXIT_CANCELED = 32,
};

/* More faults than this tell nobody anything. */
#define MAX_REPORTS 500

struct session {
	struct check_options opt;
	struct check_result result;
	bool preen, force, verbose, json;
	bool bar;	/* draw a progress bar */
	bool bar_drawn; /* there is one on the line */
	uint64_t nr_reports;
	struct out out;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

static int bad_usage(const char *what)
{
	fprintf(stderr, "fsck.foliofs: %s; see --help\n", what);
	return EXIT_USAGE;
}

/* Returns -1 to go on, or an exit code. */
static int take_option(struct session *s, int opt)
{
	switch (opt) {
	case 'n':
		s->opt.repair = false;
		return -1;
	case 'a':
	case 'p':
		s->preen = true;
		s->opt.repair = true;
		return -1;
	case 'y':
		s->opt.repair = true;
		return -1;
	case 'f':
		s->force = true;
		return -1;
	case 'v':
		s->verbose = true;
		return -1;
	case 'C': /* fsck(8) may ask for progress on a descriptor */
		return -1;
	case 'j':
		s->json = true;
		return -1;
	case 'h':
		fputs(usage_text, stdout);
		return EXIT_GOOD;
	case 'V':
		puts("fsck.foliofs " FOLIOFS_RELEASE);
		return EXIT_GOOD;
	default:
		return bad_usage("unknown option");
	}
}

static int parse(struct session *s, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int opt, ret, nr_modes = 0;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "napyfvC::V", longs, NULL)) !=
	       -1) {
		nr_modes +=
			opt == 'n' || opt == 'y' || opt == 'p' || opt == 'a';
		ret = take_option(s, opt);
		if (ret >= 0)
			return ret;
	}
	if (nr_modes > 1)
		return bad_usage("only one of -n, -y, -p and -a");
	if (optind + 1 != argc)
		return bad_usage("one device must be named");
	s->opt.device = argv[optind];
	return -1;
}

/* The bar. */

static void clear_bar(struct session *s)
{
	if (s->bar_drawn)
		fputs("\r\033[K", stderr);
	s->bar_drawn = false;
}

static bool on_progress(void *ctx, enum check_phase phase, uint64_t done,
			uint64_t total)
{
	static const char full[] = "########################################";
	struct session *s = (struct session *)ctx;
	const int width = sizeof(full) - 1;
	int part;

	if (s->bar) {
		part = total ? (int)(done * (uint64_t)width / total) : width;
		fprintf(stderr, "\r%-15s [%-*.*s] %3d %%",
			check_phase_name(phase), width, part, full,
			part * 100 / width);
		s->bar_drawn = true;
	}
	return !interrupted;
}

/* Reports. */

static const char *outcome(const struct session *s,
			   const struct check_problem *p)
{
	if (p->severity == CHECK_INFO)
		return "";
	if (!p->fixable)
		return " [cannot be repaired]";
	return s->opt.repair ? " [repaired]" : "";
}

static void report_json(struct session *s, const struct check_problem *p)
{
	struct out *o = &s->out;

	out_open(o, NULL, '{');
	out_text(o, "severity", p->severity == CHECK_INFO ? "info" : "error");
	if (p->ino)
		out_u64(o, "inode", p->ino);
	if (p->off)
		out_u64(o, "offset", p->off);
	out_bool(o, "fixable", p->fixable);
	out_text(o, "text", p->text);
	out_close(o, '}');
}

static void report_text(struct session *s, const struct check_problem *p)
{
	clear_bar(s);
	if (p->ino)
		printf("inode %" PRIu64 ": ", p->ino);
	fputs(p->text, stdout);
	if (p->off)
		printf(" (at %#" PRIx64 ")", p->off);
	puts(outcome(s, p));
}

static void on_report(void *ctx, const struct check_problem *p)
{
	struct session *s = (struct session *)ctx;

	if (!s->verbose && s->nr_reports++ >= MAX_REPORTS) {
		if (s->nr_reports == MAX_REPORTS + 1 && !s->json)
			puts("(more of them; -v shows all)");
		return;
	}
	if (s->json)
		report_json(s, p);
	else
		report_text(s, p);
}

static int exit_code(const struct session *s, int ret)
{
	const struct check_result *r = &s->result;

	if (ret == -ECANCELED)
		return EXIT_CANCELED;
	if (ret == -EUCLEAN)
		return EXIT_LEFT;
	if (ret)
		return EXIT_OPERATION;
	if (r->nr_left == 0)
		return r->nr_errors ? EXIT_REPAIRED : EXIT_GOOD;
	return s->opt.repair && r->nr_changes && r->nr_errors > r->nr_left
		       ? EXIT_LEFT | EXIT_REPAIRED
		       : EXIT_LEFT;
}

static void sum_json(struct session *s, int code, const char *error)
{
	const struct check_result *r = &s->result;
	struct out *o = &s->out;

	out_close(o, ']');
	if (error)
		out_text(o, "error", error);
	out_u64(o, "errors", r->nr_errors);
	out_u64(o, "errors_left", r->nr_left);
	out_u64(o, "infos", r->nr_infos);
	out_u64(o, "words_changed", r->nr_changes);
	out_u64(o, "records_replayed", r->nr_replayed);
	out_u64(o, "passes", r->nr_passes);
	out_u64(o, "inodes", r->nr_inodes);
	out_u64(o, "directories", r->nr_dirs);
	out_u64(o, "names", r->nr_names);
	out_u64(o, "blocks", r->nr_blocks);
	out_u64(o, "blocks_used", r->nr_used);
	out_s64(o, "exit_code", code);
	out_end(o);
}

static void sum_text(const struct session *s)
{
	const struct check_result *r = &s->result;
	char used[SIZE_TEXT], total[SIZE_TEXT];

	printf("%s: %" PRIu64 " inodes (%" PRIu64 " directories), %" PRIu64
	       " names, %s of %s used\n",
	       s->opt.device, r->nr_inodes, r->nr_dirs, r->nr_names,
	       size_format(r->nr_used << BLOCK_SHIFT, used),
	       size_format(r->nr_blocks << BLOCK_SHIFT, total));
	if (r->nr_errors == 0)
		printf("%s: no faults\n", s->opt.device);
	else if (r->nr_left == 0)
		printf("%s: %" PRIu64 " faults, all repaired\n", s->opt.device,
		       r->nr_errors);
	else if (s->opt.repair)
		printf("%s: %" PRIu64 " faults, %" PRIu64
		       " could not be repaired\n",
		       s->opt.device, r->nr_errors, r->nr_left);
	else
		printf("%s: %" PRIu64 " faults; fsck.foliofs -y repairs\n",
		       s->opt.device, r->nr_errors);
}

/* Unmounted cleanly: -p has nothing to do. */
static bool is_clean(const char *device)
{
	const struct foliofs_superblock *sb;
	bool clean = false;
	struct pmem *pm;

	if (pmem_open(device, PMEM_PRIVATE, PMEM_GRANULARITY_AUTO, &pm, NULL))
		return false;
	sb = (const struct foliofs_superblock *)pmem_at(pm, 0);
	if (super_check(sb, pm->size >> BLOCK_SHIFT, device, NULL) == 0)
		clean = le64_to_cpu(sb->state) == FOLIOFS_CLEAN;
	if (pmem_fault_take())
		clean = false;
	pmem_close(pm);
	return clean;
}

static int run(struct session *s)
{
	struct errmsg err = { "" };
	int ret, code;

	if (s->json) {
		out_begin(&s->out, stdout, true);
		out_text(&s->out, "device", s->opt.device);
		out_open(&s->out, "problems", '[');
	}
	ret = foliofs_check(&s->opt, &s->result, &err);
	code = exit_code(s, ret);
	clear_bar(s);
	if (s->json)
		sum_json(s, code, ret ? err.text : NULL);
	else if (!ret)
		sum_text(s);
	if (ret)
		fprintf(stderr, "fsck.foliofs: %s\n", err.text);
	return code;
}

int main(int argc, char **argv)
{
	struct session s = { .opt = { .report = on_report,
				      .progress = on_progress } };
	struct sigaction sa = { .sa_handler = on_signal };
	struct errmsg err = { "" };
	struct ns_device dev;
	int ret;

	ret = parse(&s, argc, argv);
	if (ret >= 0)
		return ret;
	s.opt.ctx = &s;
	s.bar = isatty(STDOUT_FILENO) && isatty(STDERR_FILENO) && !s.json;
	sigemptyset(&sa.sa_mask);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);

	if (ns_resolve(s.opt.device, &dev, &err) != 0) {
		fprintf(stderr, "fsck.foliofs: %s\n", err.text);
		return EXIT_OPERATION;
	}
	s.opt.device = dev.path;
	if (s.preen && !s.force && is_clean(s.opt.device)) {
		if (!s.json)
			printf("%s: clean\n", s.opt.device);
		return EXIT_GOOD;
	}
	return run(&s);
}
