/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl.h - the commands of foliofsctl
 *
 * Each is a file that defines one struct ctl_command or more; foliofsctl.c has
 * the table.  A command gets its own argc and argv (argv[0] is its name).
 */
#ifndef TOOLS_CTL_H
#define TOOLS_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct foliofs_ioc_extent;

enum {
	CTL_OK,
	CTL_FAILED,
	CTL_USAGE,
};

struct ctl_command {
	const char *name;
	const char *arguments;
	const char *what;
	const char *help; /* more lines, for COMMAND --help; may be NULL */
	int (*run)(int argc, char **argv);
};

extern const struct ctl_command ctl_dedupe;
extern const struct ctl_command ctl_dump;
extern const struct ctl_command ctl_list;
extern const struct ctl_command ctl_map;
extern const struct ctl_command ctl_policy;
extern const struct ctl_command ctl_reflink;
extern const struct ctl_command ctl_status;
extern const struct ctl_command ctl_top;
extern const struct ctl_command ctl_unshare;

/* Say what is wrong with the command line; returns CTL_USAGE. */
int ctl_usage(const struct ctl_command *cmd, const char *what);

/* Say why @path is not possible; returns CTL_FAILED. */
int ctl_fail(const char *path, const char *why);

/*
 * ctl_map.c: what is on media of a file that is open, in order and without
 * holes; runs that go on where the last one ended are one extent.  The caller
 * frees it.  0 or a negative errno.
 */
int ctl_extents(int fd, struct foliofs_ioc_extent **ret_ext, size_t *ret_nr);

/* ctl_svg.c: the same as a picture, on standard output. */
void ctl_svg(const char *path, uint64_t size,
	     const struct foliofs_ioc_extent *ext, size_t nr);

/*
 * ctl_waits.c: who holds what of the mount at @dir, and who waits for it; its
 * daemon listens at @path.
 */
int ctl_waits(const char *dir, const char *path, bool json);

/*
 * ctl_session.c: a session with the daemon of a mount, to see who holds what
 * and who waits for it.  -1: there is none, and that was said.
 */
struct session_hold;
struct session_wait;
int ctl_session_open(const char *dir);
/* All of them, up to @max; how many, or a negative errno. */
int ctl_session_holds(int sock, struct session_hold *ret, unsigned int max);
int ctl_session_waits(int sock, struct session_wait *ret, unsigned int max);
const char *ctl_hold_name(unsigned int kind);

/* ctl_policy.c: counters of all policies, in a report that is open. */
struct out;
void ctl_policy_stats(struct out *o, int fd);

#endif
