/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl.h - the commands of foliofsctl
 *
 * Each is a file that defines one struct ctl_command; foliofsctl.c has the
 * table.  A command gets its own argc and argv (argv[0] is its name).
 */
#ifndef TOOLS_CTL_H
#define TOOLS_CTL_H

enum {
	CTL_OK,
	CTL_FAILED,
	CTL_USAGE,
};

struct ctl_command {
	const char *name;
	const char *arguments;
	const char *what;
	int (*run)(int argc, char **argv);
};

extern const struct ctl_command ctl_dump;
extern const struct ctl_command ctl_status;

/* Say what is wrong with the command line; returns CTL_USAGE. */
int ctl_usage(const struct ctl_command *cmd, const char *what);

#endif
