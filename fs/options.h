/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/options.h - the command line of foliofs and mount.foliofs
 *
 * The same program is started by people (foliofs DEVICE DIR), by mount(8) as
 * mount.foliofs, and by mount.fuse3 for the type fuse.foliofs.  The last two
 * hand down whatever fstab says, so options that only mount(8) acts upon are
 * accepted and dropped.
 *
 * Errors.    Negative errno, with a sentence that says what to write instead.
 * Ownership. Strings are the cmdline's until cmdline_free().
 * Source.    mount(8), "External helpers" and "Filesystem-independent mount
 *            options"; fuse(8).
 */
#ifndef FS_OPTIONS_H
#define FS_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "fs/foliofs.h"

struct cmdline {
	struct foliofs_options fs; /* fs.device is an absolute path */
	char *device;
	char *mountpoint; /* as given */
	char *mount_opts; /* for libfuse: a,b=c */
	char *policy;	  /* of -o policy=, with what follows it; or NULL */
	bool helper;	  /* started as mount.foliofs */
	bool help;
	bool version;
	bool foreground;
	bool debug;
	bool fake;   /* mount -f: try everything but the mount */
	bool sloppy; /* mount -s: unknown options are no error */
	bool allow_root;
	struct dax_users dax_users; /* the user who mounts is one */
	unsigned int nr_threads;    /* that receive; 0: by processors */
	unsigned int max_threads;   /* in all; 0: the default */
	unsigned int read_ahead_kb;
};

/*
 * Return: 0; -EINVAL for a command line that makes no sense; or -ENOMEM.
 * @ret is to be freed in any case.
 */
int cmdline_parse(int argc, char **argv, struct cmdline *ret,
		  struct errmsg *err);
void cmdline_free(struct cmdline *cl);
void cmdline_help(FILE *to);

#endif
