/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/foliofsctl.c - look into a foliofs, mounted or not
 *
 * Exit codes: 0 done, 1 not possible, 2 a mistake on the command line.
 */
#include <stdio.h>
#include <string.h>

#include "tools/ctl.h"

static const struct ctl_command *const commands[] = {
	&ctl_reflink, &ctl_dedupe, &ctl_unshare, &ctl_map,  &ctl_status,
	&ctl_policy,  &ctl_top,	   &ctl_dump,	 &ctl_list,
};
#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int help(FILE *f)
{
	fputs("Usage: foliofsctl COMMAND [ARGUMENT]...\n\n", f);
	for (size_t i = 0; i < NR_COMMANDS; i++)
		fprintf(f, "  foliofsctl %s %s\n      %s\n", commands[i]->name,
			commands[i]->arguments, commands[i]->what);
	fputs("\nWith --json a command answers for programs.  foliofsctl "
	      "COMMAND --help\nsays more.\n",
	      f);
	return CTL_OK;
}

int ctl_usage(const struct ctl_command *cmd, const char *what)
{
	fprintf(stderr, "foliofsctl: %s: %s\nUsage: foliofsctl %s %s\n",
		cmd->name, what, cmd->name, cmd->arguments);
	return CTL_USAGE;
}

int ctl_fail(const char *path, const char *why)
{
	fprintf(stderr, "foliofsctl: %s: %s\n", path, why);
	return CTL_FAILED;
}

static bool is_help(const char *arg)
{
	return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

static int run(const struct ctl_command *cmd, int argc, char **argv)
{
	if (argc < 2 || !is_help(argv[1]))
		return cmd->run(argc, argv);
	printf("Usage: foliofsctl %s %s\n\n%s\n", cmd->name, cmd->arguments,
	       cmd->what);
	if (cmd->help)
		printf("\n%s", cmd->help);
	return CTL_OK;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		help(stderr);
		return CTL_USAGE;
	}
	if (is_help(argv[1]))
		return help(stdout);
	if (strcmp(argv[1], "--version") == 0) {
		puts("foliofsctl " FOLIOFS_RELEASE);
		return CTL_OK;
	}
	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (strcmp(argv[1], commands[i]->name) == 0)
			return run(commands[i], argc - 1, argv + 1);
	fprintf(stderr, "foliofsctl: %s: no such command; see --help\n",
		argv[1]);
	return CTL_USAGE;
}
