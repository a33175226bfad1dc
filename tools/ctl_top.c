/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl_top.c - foliofsctl top: who waits for whom, live
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <ncurses.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dax/proto.h"
#include "fs/ioctl.h"
#include "tools/ctl.h"
#include "tools/text.h"

#define MAX_ROWS 256u

struct top {
	int fd, sock;
	const char *dir;
	struct foliofs_ioc_policy policy;
	struct foliofs_ioc_policy_stat stat[16];
	unsigned int nr_stats;
	struct session_wait wait[MAX_ROWS];
	struct session_hold hold[MAX_ROWS];
	int nr_waits, nr_holds;
};

/* 0, or why the mount does not answer any more. */
static int look(struct top *t)
{
	struct foliofs_ioc_policy_stat *st = t->stat;

	if (ioctl(t->fd, FOLIOFS_IOC_POLICY_GET, &t->policy))
		return -errno;
	for (t->nr_stats = 0; t->nr_stats < 16; t->nr_stats++, st++) {
		*st = (struct foliofs_ioc_policy_stat){
			.slot = t->nr_stats, .op = FOLIOFS_POLICY_ALL
		};
		if (ioctl(t->fd, FOLIOFS_IOC_POLICY_STAT, st))
			break;
	}
	t->nr_waits = ctl_session_waits(t->sock, t->wait, MAX_ROWS);
	if (t->nr_waits < 0)
		return t->nr_waits;
	t->nr_holds = ctl_session_holds(t->sock, t->hold, MAX_ROWS);
	return t->nr_holds < 0 ? t->nr_holds : 0;
}

static bool holds(const struct session_hold *h, const struct session_wait *w)
{
	return h->ino == w->ino && w->index >= h->index &&
	       w->index - h->index < h->nr && h->kind != SESSION_HOLD_MAP;
}

static void line(int *row, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void line(int *row, const char *fmt, ...)
{
	va_list args;

	if (*row >= LINES)
		return;
	move((*row)++, 0);
	va_start(args, fmt);
	vw_printw(stdscr, fmt, args);
	va_end(args);
	clrtoeol();
}

static double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

static void draw_hold(int *row, const struct session_hold *h)
{
	line(row,
	     "    %7d %-16.16s %-17s pages %" PRIu64 "-%" PRIu64 "  %.1f s",
	     h->pid, h->comm, ctl_hold_name(h->kind), h->index,
	     h->index + h->nr - 1, seconds(h->age_ns));
}

static void draw_wait(int *row, const struct top *t,
		      const struct session_wait *w)
{
	bool any = false;

	attron(A_BOLD);
	line(row,
	     "%7d %-16.16s waits for %.16s of inode %" PRIu64 ", page %" PRIu64
	     ", %.1f s",
	     w->pid, w->comm, w->op, w->ino, w->index, seconds(w->age_ns));
	attroff(A_BOLD);
	for (int i = 0; i < t->nr_holds; i++) {
		if (!holds(&t->hold[i], w))
			continue;
		draw_hold(row, &t->hold[i]);
		any = true;
	}
	if (!any)
		line(row, "    (held through another file, or by nobody any "
			  "more)");
}

static void draw(const struct top *t)
{
	const struct foliofs_ioc_policy_stat *st = t->stat;
	char size[SIZE_TEXT];
	int row = 0;

	erase();
	line(&row, "%s: policy %s; %s held back; q quits", t->dir,
	     t->policy.spec,
	     size_format(t->nr_stats ? st->nr_held * 4096 : 0, size));
	line(&row, " ");
	attron(A_REVERSE);
	line(&row, "%-16s %10s %8s %8s %9s %8s %8s %8s %8s", "POLICY", "BREAKS",
	     "BUSY", "WAITS", "MEAN ms", "MAX ms", "FAILED", "DEFERRED",
	     "ENDED");
	attroff(A_REVERSE);
	for (unsigned int i = 0; i < t->nr_stats; i++, st++)
		line(&row,
		     "%-16.16s %10" PRIu64 " %8" PRIu64 " %8" PRIu64
		     " %9.1f %8.1f %8" PRIu64 " %8" PRIu64 " %8" PRIu64,
		     st->name, st->nr_breaks, st->nr_busy, st->nr_waits,
		     st->nr_waits
			     ? (double)st->wait_ns / 1e6 / (double)st->nr_waits
			     : 0.0,
		     (double)st->max_ns / 1e6, st->nr_failed, st->nr_deferred,
		     st->nr_revokes);
	line(&row, " ");
	line(&row, "%d waiting, %d holds", t->nr_waits, t->nr_holds);
	for (int i = 0; i < t->nr_waits; i++)
		draw_wait(&row, t, &t->wait[i]);
	if (t->nr_waits == 0)
		for (int i = 0; i < t->nr_holds; i++)
			draw_hold(&row, &t->hold[i]);
	refresh();
}

/* Until somebody presses q, or for @rounds; 0 or why it ended. */
static int loop(struct top *t, unsigned int rounds)
{
	int ret, key = 0;

	initscr();
	cbreak();
	noecho();
	curs_set(0);
	timeout(500);
	do {
		ret = look(t);
		if (!ret) {
			draw(t);
			key = getch();
		}
	} while (!ret && key != 'q' && key != 'Q' && --rounds != 0);
	endwin();
	return ret;
}

static int run_top(int argc, char **argv)
{
	struct top *t;
	uint64_t rounds = 0;
	int ret = -ENOMEM;

	if (argc == 4 && strcmp(argv[2], "-n") == 0 &&
	    number_parse(argv[3], &rounds))
		argc = 2;
	if (argc != 2 || argv[1][0] == '-')
		return ctl_usage(&ctl_top, "which mount?");
	t = (struct top *)calloc(1, sizeof(*t));
	if (!t)
		return ctl_fail(argv[1], strerror(ENOMEM));
	t->dir = argv[1];
	t->sock = ctl_session_open(argv[1]);
	t->fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->sock >= 0)
		ret = loop(t, (unsigned int)rounds);
	if (ret && t->sock >= 0)
		ctl_fail(argv[1], strerror(-ret));
	if (t->sock >= 0)
		close(t->sock);
	if (t->fd >= 0)
		close(t->fd);
	free(t);
	return ret ? CTL_FAILED : CTL_OK;
}

const struct ctl_command ctl_top = {
	.name = "top",
	.arguments = "DIRECTORY [-n TIMES]",
	.what = "who waits for whom, twice a second",
	.run = run_top,
};
