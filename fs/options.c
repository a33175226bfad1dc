/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/options.c - the command line of foliofs and mount.foliofs
 *
 * Options of -o are looked up in four tables, in this order: choices, which
 * set a field to a value; numbers; those that libfuse is to have; and those
 * that nobody needs.  An option may be in the first table and be passed on to
 * libfuse as well.  Of contradicting options the last one counts.
 */
#include "fs/options.h"

#include <errno.h>
#include <fuse_opt.h>
#include <getopt.h>
#include <limits.h>
#include <pwd.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dax/namespace.h"

/* What the tables below set; cmdline_parse() copies it to the cmdline. */
struct chosen {
	unsigned int read_only;
	unsigned int data;
	unsigned int cache;
	unsigned int dax;
	unsigned int atime;
	unsigned int granularity;
	unsigned int allow_other;
	unsigned int allow_root;
	unsigned int dev;
	unsigned int suid;
	unsigned int debug;
	unsigned int threads;
	unsigned int max_threads;
	unsigned int read_ahead;
	unsigned int has_fsname;
};

struct choice {
	const char *name; /* the whole option */
	size_t field;	  /* in struct chosen */
	unsigned int value;
};

#define CHOICE(name, field, value)                            \
	{                                                     \
		name, offsetof(struct chosen, field), (value) \
	}

static const struct choice choices[] = {
	CHOICE("ro", read_only, 1),
	CHOICE("rw", read_only, 0),
	CHOICE("data=inplace", data, DATA_INPLACE),
	CHOICE("data=cow", data, DATA_COW),
	CHOICE("cache=through", cache, CACHE_THROUGH),
	CHOICE("cache=writeback", cache, CACHE_WRITEBACK),
	CHOICE("cache=none", cache, CACHE_NONE),
	CHOICE("dax=inode", dax, DAX_INODE),
	CHOICE("dax=always", dax, DAX_ALWAYS),
	CHOICE("dax=never", dax, DAX_NEVER),
	CHOICE("dax", dax, DAX_ALWAYS), /* as ext4 and XFS have it */
	CHOICE("noatime", atime, ATIME_NEVER),
	CHOICE("atime", atime, ATIME_RELATIME),
	CHOICE("relatime", atime, ATIME_RELATIME),
	CHOICE("strictatime", atime, ATIME_STRICT),
	CHOICE("norelatime", atime, ATIME_STRICT),
	CHOICE("nostrictatime", atime, ATIME_RELATIME),
	CHOICE("granularity=auto", granularity, PMEM_GRANULARITY_AUTO),
	CHOICE("granularity=byte", granularity, PMEM_BYTE),
	CHOICE("granularity=cacheline", granularity, PMEM_CACHE_LINE),
	CHOICE("granularity=page", granularity, PMEM_PAGE),
	CHOICE("allow_other", allow_other, 1),
	CHOICE("noallow_other", allow_other, 0),
	CHOICE("allow_root", allow_root, 1),
	CHOICE("dev", dev, 1),
	CHOICE("nodev", dev, 0),
	CHOICE("suid", suid, 1),
	CHOICE("nosuid", suid, 0),
	CHOICE("debug", debug, 1),
};

struct number {
	const char *name; /* with the '=' */
	size_t field;	  /* in struct chosen */
	unsigned int min, max;
};

static const struct number numbers[] = {
	{ "threads=", offsetof(struct chosen, threads), 1, 64 },
	{ "max_threads=", offsetof(struct chosen, max_threads), 2, 16384 },
	{ "read_ahead_kb=", offsetof(struct chosen, read_ahead), 0, 65536 },
};

/* Passed on to libfuse as they are; with '=': everything that starts so. */
static const char *const passed[] = {
	"exec",	    "noexec",	  "sync",	 "async",	 "dirsync",
	"blksize=", "fsname=",	  "subtype=",	 "max_read=",	 "auto_unmount",
	"context=", "fscontext=", "defcontext=", "rootcontext=",
};

/* For mount(8) and systemd, or of no meaning to us. */
static const char *const dropped[] = {
	"",	      "default_permissions",
	"defaults",   "auto",
	"noauto",     "user",
	"nouser",     "users",
	"nousers",    "owner",
	"noowner",    "group",
	"nogroup",    "_netdev",
	"nofail",     "silent",
	"loud",	      "mand",
	"nomand",     "iversion",
	"noiversion", "diratime",
	"nodiratime", "lazytime",
	"nolazytime", "user=",
	"comment=",   "helper=",
	"uhelper=",   "x-",
	"X-",
};

#define NR(table) (sizeof(table) / sizeof((table)[0]))

/* A table's name matches whole, or as a prefix if it ends in '=' or '-'. */
static bool name_matches(const char *name, const char *opt)
{
	size_t len = strlen(name);

	if (len > 0 && (name[len - 1] == '=' || name[len - 1] == '-'))
		return strncmp(name, opt, len) == 0;
	return strcmp(name, opt) == 0;
}

static bool in_table(const char *const *table, size_t nr, const char *opt)
{
	for (size_t i = 0; i < nr; i++)
		if (name_matches(table[i], opt))
			return true;
	return false;
}

static unsigned int *chosen_field(struct chosen *ch, size_t field)
{
	return (unsigned int *)((char *)ch + field);
}

static bool choose(struct chosen *ch, const char *opt)
{
	for (size_t i = 0; i < NR(choices); i++) {
		if (strcmp(choices[i].name, opt) != 0)
			continue;
		*chosen_field(ch, choices[i].field) = choices[i].value;
		return true;
	}
	return false;
}

/* 1: it was a number of ours; 0: it is something else. */
static int choose_number(struct chosen *ch, const char *opt, struct errmsg *err)
{
	for (size_t i = 0; i < NR(numbers); i++) {
		const struct number *n = &numbers[i];
		const char *text = opt + strlen(n->name);
		unsigned long value;
		char *end;

		if (!name_matches(n->name, opt))
			continue;
		errno = 0;
		value = strtoul(text, &end, 10);
		if (*text < '0' || *text > '9' || *end || errno ||
		    value < n->min || value > n->max)
			return err_set(err, -EINVAL,
				       "option %s: give a number from %u to %u",
				       opt, n->min, n->max);
		*chosen_field(ch, n->field) = (unsigned int)value;
		return 1;
	}
	return 0;
}

/* Is there a choice of that name, with other values? */
static bool is_ours(const char *opt)
{
	size_t len = strcspn(opt, "=") + 1;

	for (size_t i = 0; i < NR(choices); i++)
		if (strncmp(choices[i].name, opt, len) == 0)
			return true;
	return false;
}

/* An option that we do not know; say which values it has, if it is ours. */
static int unknown_option(const char *opt, struct errmsg *err)
{
	size_t len = strcspn(opt, "=") + 1;
	char values[128] = "";
	size_t used = 0;

	for (size_t i = 0; i < NR(choices) && opt[len - 1] == '='; i++)
		if (strncmp(choices[i].name, opt, len) == 0)
			used += (size_t)snprintf(
				values + used, sizeof(values) - used, "%s%s",
				used ? ", " : "", choices[i].name + len);
	if (used)
		return err_set(err, -EINVAL,
			       "option %s: not a value it has: use one of %s",
			       opt, values);
	return err_set(err, -EINVAL, "option %s: not known: see foliofs --help",
		       opt);
}

static int add_mount_opt(struct cmdline *cl, const char *opt)
{
	return fuse_opt_add_opt_escaped(&cl->mount_opts, opt) ? -ENOMEM : 0;
}

/* A name or a number. */
static bool find_user(const char *text, uint32_t *ret)
{
	const struct passwd *pw = getpwnam(text);
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (pw)
		*ret = pw->pw_uid;
	else if (*text >= '0' && *text <= '9' && !*end && !errno &&
		 value < UINT32_MAX)
		*ret = (uint32_t)value;
	else
		return false;
	return true;
}

/* dax_users=NAME:NAME, or all. */
static int parse_users(struct dax_users *users, char *list, struct errmsg *err)
{
	char *save = NULL;

	for (char *name = strtok_r(list, ":", &save); name;
	     name = strtok_r(NULL, ":", &save)) {
		if (strcmp(name, "all") == 0) {
			users->all = true;
			continue;
		}
		if (users->nr == DAX_USERS_MAX)
			return err_set(err, -EINVAL,
				       "option dax_users: more than %u: "
				       "use dax_users=all",
				       DAX_USERS_MAX);
		if (!find_user(name, &users->uid[users->nr]))
			return err_set(err, -EINVAL,
				       "option dax_users: no user '%s': give "
				       "names or numbers with ':' between",
				       name);
		users->nr++;
	}
	return 0;
}

/* -o policy=NAME:key=value; the last one counts. */
static int set_policy(struct cmdline *cl, const char *spec)
{
	free(cl->policy);
	cl->policy = strdup(spec);
	return cl->policy ? 0 : -ENOMEM;
}

/*
 * -o policy=NAME,key=value: an option that nobody knows is a key of the policy
 * before it, which says so if it has none of that name.
 */
static int add_policy_key(struct cmdline *cl, const char *key)
{
	char *spec;

	if (asprintf(&spec, "%s:%s", cl->policy, key) == -1)
		return -ENOMEM;
	free(cl->policy);
	cl->policy = spec;
	return 0;
}

static int parse_one(struct cmdline *cl, struct chosen *ch, char *opt,
		     struct errmsg *err)
{
	int ret;

	if (choose(ch, opt))
		return 0;
	ret = choose_number(ch, opt, err);
	if (ret)
		return ret < 0 ? ret : 0;
	if (strncmp(opt, "dax_users=", 10) == 0)
		return parse_users(&cl->dax_users, opt + 10, err);
	if (strncmp(opt, "policy=", 7) == 0)
		return set_policy(cl, opt + 7);
	if (in_table(passed, NR(passed), opt)) {
		ch->has_fsname |= strncmp(opt, "fsname=", 7) == 0;
		return add_mount_opt(cl, opt);
	}
	if (in_table(dropped, NR(dropped), opt))
		return 0;
	/* Of ours that have wrong values, unknown_option() says more. */
	if (cl->policy && strchr(opt, '=') && !is_ours(opt))
		return add_policy_key(cl, opt);
	if (cl->sloppy)
		return 0;
	return unknown_option(opt, err);
}

/* Cut the next option off @list, undoing "\," as fuse_opt_parse() does. */
static char *next_option(char **list)
{
	char *opt = *list, *to = opt, *from = opt;

	if (!opt)
		return NULL;
	for (; *from && *from != ','; from++) {
		if (*from == '\\' && from[1])
			from++;
		*to++ = *from;
	}
	*list = *from ? from + 1 : NULL;
	*to = '\0';
	return opt;
}

/* Takes @list apart in place. */
static int parse_list(struct cmdline *cl, struct chosen *ch, char *list,
		      struct errmsg *err)
{
	char *opt;
	int ret = 0;

	while (ret == 0 && (opt = next_option(&list)))
		ret = parse_one(cl, ch, opt, err);
	return ret;
}

/* Mount options that follow from what was chosen, for libfuse. */
static int add_chosen(struct cmdline *cl, const struct chosen *ch)
{
	bool root = geteuid() == 0;
	char *fsname = NULL;
	int ret = 0;

	ret |= add_mount_opt(cl, "default_permissions");
	if (ch->read_only)
		ret |= add_mount_opt(cl, "ro");
	if (ch->atime == ATIME_NEVER)
		ret |= add_mount_opt(cl, "noatime");
	if (root && ch->dev)
		ret |= add_mount_opt(cl, "dev");
	if (root && ch->suid)
		ret |= add_mount_opt(cl, "suid");
	if (ch->allow_root)
		ret |= add_mount_opt(cl, "allow_root");
	if (ch->allow_other || ch->allow_root)
		ret |= add_mount_opt(cl, "allow_other");
	if (!ch->has_fsname) {
		if (asprintf(&fsname, "fsname=%s", cl->device) == -1)
			return -ENOMEM;
		ret |= add_mount_opt(cl, fsname);
		free(fsname);
	}
	return ret ? -ENOMEM : 0;
}

static void copy_chosen(struct cmdline *cl, const struct chosen *ch)
{
	cl->fs.device = cl->device;
	cl->fs.policy = cl->policy;
	cl->fs.read_only = ch->read_only != 0;
	cl->fs.data = (enum foliofs_data)ch->data;
	cl->fs.cache = (enum foliofs_cache)ch->cache;
	cl->fs.dax = (enum foliofs_dax)ch->dax;
	cl->fs.atime = (enum foliofs_atime)ch->atime;
	cl->fs.granularity = (enum pmem_granularity)ch->granularity;
	cl->allow_root = ch->allow_root != 0;
	if (cl->dax_users.nr < DAX_USERS_MAX)
		cl->dax_users.uid[cl->dax_users.nr++] = getuid();
	cl->debug |= ch->debug != 0;
	cl->foreground |= cl->debug;
	cl->nr_threads = ch->threads;
	cl->max_threads = ch->max_threads;
	cl->read_ahead_kb = ch->read_ahead;
}

/* The two things that are not options. */
static int take_operands(struct cmdline *cl, int argc, char **argv,
			 struct errmsg *err)
{
	struct ns_device dev;
	struct errmsg line;

	if (argc < 2)
		return err_set(err, -EINVAL,
			       "%s missing: give DEVICE and DIR, "
			       "see foliofs --help",
			       argc < 1 ? "device" : "mount point");
	if (argc > 2)
		return err_set(err, -EINVAL,
			       "'%s' is one too many: give DEVICE and DIR",
			       argv[2]);
	if (ns_resolve(argv[0], &dev, err))
		return -EINVAL;
	/* To standard error, as what is said must not look like an answer. */
	if (dev.named) {
		ns_describe(argv[0], &dev, &line);
		fprintf(stderr, "foliofs: %s\n", line.text);
	}
	/* Absolute, because the daemon leaves this directory. */
	cl->device = realpath(dev.path, NULL);
	if (!cl->device && errno != ENOMEM)
		cl->device = strdup(dev.path);
	cl->mountpoint = strdup(argv[1]);
	return cl->device && cl->mountpoint ? 0 : -ENOMEM;
}

/*
 * One flag.  -f is "foreground" for people and "fake" from mount(8), which
 * has no other way to say it.  What follows -o is collected in @opts, because
 * an -s may come after the options that it excuses.
 */
static int parse_flag(struct cmdline *cl, char **opts, int flag,
		      struct errmsg *err)
{
	switch (flag) {
	case 'o':
		return fuse_opt_add_opt(opts, optarg) ? -ENOMEM : 0;
	case 'r':
		return fuse_opt_add_opt(opts, "ro") ? -ENOMEM : 0;
	case 'w':
		return fuse_opt_add_opt(opts, "rw") ? -ENOMEM : 0;
	case 'f':
		*(cl->helper ? &cl->fake : &cl->foreground) = true;
		return 0;
	case 'd':
		cl->debug = true;
		return 0;
	case 'h':
		cl->help = true;
		return 0;
	case 'V':
		cl->version = true;
		return 0;
	case 's':
		cl->sloppy = true;
		return 0;
	case 'n': /* there is no mtab to write */
	case 'v':
	case 't': /* type and namespace are mount(8)'s affair */
	case 'N':
		return 0;
	default:
		return err_set(err, -EINVAL,
			       "flag -%c: not known or without its argument: "
			       "see foliofs --help",
			       optopt ? optopt : '-');
	}
}

static int parse_flags(struct cmdline *cl, struct chosen *ch, int argc,
		       char **argv, struct errmsg *err)
{
	static const struct option longs[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	const char *shorts = cl->helper ? "o:fdhVrwsnvt:N:" : "o:fdhVrwsnv";
	char *opts = NULL;
	int flag, ret = 0;

	opterr = 0;
	while (ret == 0 &&
	       (flag = getopt_long(argc, argv, shorts, longs, NULL)) != -1)
		ret = parse_flag(cl, &opts, flag, err);
	if (ret == 0 && opts)
		ret = parse_list(cl, ch, opts, err);
	free(opts);
	return ret;
}

int cmdline_parse(int argc, char **argv, struct cmdline *ret,
		  struct errmsg *err)
{
	bool root = geteuid() == 0;
	struct chosen ch = {
		.data = DATA_INPLACE,
		.cache = CACHE_THROUGH,
		.dax = DAX_INODE,
		.atime = ATIME_RELATIME,
		.granularity = PMEM_GRANULARITY_AUTO,
		.allow_other = root,
		.dev = root,
		.suid = root,
		.read_ahead = 1024,
	};
	const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;
	int rc;

	*ret = (struct cmdline){ 0 };
	name = name ? name + 1 : argc > 0 ? argv[0] : "";
	ret->helper = strncmp(name, "mount.", 6) == 0;
	rc = parse_flags(ret, &ch, argc, argv, err);
	if (rc || ret->help || ret->version)
		return rc;
	rc = take_operands(ret, argc - optind, argv + optind, err);
	if (rc)
		return rc;
	copy_chosen(ret, &ch);
	return add_chosen(ret, &ch);
}

void cmdline_free(struct cmdline *cl)
{
	free(cl->device);
	free(cl->mountpoint);
	free(cl->mount_opts);
	free(cl->policy);
}

void cmdline_help(FILE *to)
{
	fputs("Usage: foliofs DEVICE DIR [-o OPTION,...] [-f] [-d]\n"
	      "Mount the foliofs on DEVICE (a file, a pmem namespace) on DIR.\n"
	      "\n"
	      "  -f              stay in the foreground\n"
	      "  -d              the same, and print every request\n"
	      "  -h, --help      this text\n"
	      "  -V, --version   the version\n"
	      "\n"
	      "  -o ro                   never change the device\n"
	      "  -o data=inplace|cow     overwrite in place, or make every\n"
	      "                          write atomic (default: inplace)\n"
	      "  -o cache=through|writeback|none\n"
	      "                          what the kernel caches: reads, "
	      "writes\n"
	      "                          too, nothing (default: through)\n"
	      "  -o dax=inode|always|never\n"
	      "                          which files bypass the kernel's "
	      "cache\n"
	      "                          and may be mapped (default: inode)\n"
	      "  -o dax_users=NAME:NAME|all  who may map the device\n"
	      "  -o policy=NAME[:KEY=VALUE...]\n"
	      "                          what becomes of a truncate when "
	      "blocks are\n"
	      "                          pinned: wait, nowait, timeout, "
	      "lease,\n"
	      "                          fail, defer, revoke, or the path of "
	      "a .so\n"
	      "                          (default: wait; "
	      "foliofs-policy(7))\n"
	      "  -o relatime|strictatime|noatime\n"
	      "  -o granularity=auto|byte|cacheline|page\n"
	      "                          what makes a store durable\n"
	      "  -o allow_other, noallow_other, allow_root\n"
	      "                          who may enter; root's mounts are "
	      "open\n"
	      "                          to all users, others' to nobody else\n"
	      "  -o dev|nodev, suid|nosuid\n"
	      "                          dev and suid for root's mounts\n"
	      "  -o threads=N            threads that receive requests\n"
	      "  -o max_threads=N        and those that wait, together (1024)\n"
	      "  -o read_ahead_kb=N      of the mount (1024; 0: as it is)\n"
	      "\n"
	      "Permissions are always checked by the kernel.  Unmount with\n"
	      "umount DIR, or fusermount3 -u DIR, or SIGTERM to the daemon: a\n"
	      "file that is still open stays usable until it is closed, and a\n"
	      "second SIGTERM does not wait for that.\n",
	      to);
}
