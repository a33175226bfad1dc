/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl_status.c - foliofsctl status: ask a running foliofs
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "alloc/alloc.h"
#include "dax/pmem.h"
#include "fs/ioctl.h"
#include "tools/ctl.h"
#include "tools/text.h"

/* linux/fuse.h of Debian 12 names opcodes up to 51; ours may be newer. */
static const char *const op_name[FOLIOFS_STATUS_OPS] = {
	[1] = "lookup",	       [2] = "forget",	    [3] = "getattr",
	[4] = "setattr",       [5] = "readlink",    [6] = "symlink",
	[8] = "mknod",	       [9] = "mkdir",	    [10] = "unlink",
	[11] = "rmdir",	       [12] = "rename",	    [13] = "link",
	[14] = "open",	       [15] = "read",	    [16] = "write",
	[17] = "statfs",       [18] = "release",    [20] = "fsync",
	[21] = "setxattr",     [22] = "getxattr",   [23] = "listxattr",
	[24] = "removexattr",  [25] = "flush",	    [26] = "init",
	[27] = "opendir",      [28] = "readdir",    [29] = "releasedir",
	[30] = "fsyncdir",     [31] = "getlk",	    [32] = "setlk",
	[33] = "setlkw",       [34] = "access",	    [35] = "create",
	[36] = "interrupt",    [37] = "bmap",	    [38] = "destroy",
	[39] = "ioctl",	       [40] = "poll",	    [41] = "notify",
	[42] = "batch_forget", [43] = "fallocate",  [44] = "readdirplus",
	[45] = "rename2",      [46] = "lseek",	    [47] = "copy_file",
	[48] = "setupmapping", [49] = "remove_map", [50] = "syncfs",
	[51] = "tmpfile",      [52] = "statx",
};

static const char *const data_name[] = { "inplace", "cow" };
static const char *const cache_name[] = { "through", "writeback", "none" };
static const char *const atime_name[] = { "relatime", "strictatime",
					  "noatime" };
static const char *const dax_name[] = { "inode", "always", "never" };

#define NAME(table, i) \
	((i) < sizeof(table) / sizeof(*(table)) ? (table)[i] : "?")

static void out_space(struct out *o, const struct foliofs_ioc_status *st)
{
	out_open(o, "blocks", '{');
	out_u64(o, "size", st->block_size);
	out_u64(o, "total", st->nr_blocks);
	out_u64(o, "free", st->nr_free);
	out_u64(o, "reserve", st->nr_reserve);
	out_u64(o, "shared", st->nr_shared);
	out_u64(o, "empty_chunks", st->nr_empty_chunks);
	out_u64(o, "chunks_aside", st->nr_aside);
	out_open(o, "used_by_kind", '{');
	for (unsigned int i = BLOCK_STATIC; i < NR_BLOCK_KINDS; i++)
		out_u64(o, block_kind_name((enum block_kind)i), st->nr_kind[i]);
	out_close(o, '}');
	out_close(o, '}');
}

static void out_options(struct out *o, const struct foliofs_ioc_status *st)
{
	out_open(o, "options", '{');
	out_text(o, "data", NAME(data_name, st->data));
	out_text(o, "cache", NAME(cache_name, st->cache));
	out_text(o, "atime", NAME(atime_name, st->atime));
	out_text(o, "dax", NAME(dax_name, st->dax));
	out_text(o, "granularity",
		 pmem_granularity_name((enum pmem_granularity)st->granularity));
	out_bool(o, "read_only", st->flags & FOLIOFS_STATUS_READ_ONLY);
	out_close(o, '}');
}

static unsigned int nr_bad_shown(const struct foliofs_ioc_status *st)
{
	const unsigned int max = sizeof(st->bad_off) / sizeof(*st->bad_off);

	return st->nr_bad < max ? st->nr_bad : max;
}

static void out_counts(struct out *o, const struct foliofs_ioc_status *st)
{
	out_u64(o, "inodes", st->nr_inodes);
	out_u64(o, "inodes_cached", st->nr_inodes_cached);
	out_u64(o, "requests_waiting", st->nr_waiting);
	out_u64(o, "transactions", st->nr_txns);
	out_u64(o, "transaction_words", st->nr_words);
	out_u64(o, "fences", st->nr_fences);
	out_u64(o, "settles", st->nr_settles);
	out_u64(o, "replayed", st->nr_replayed);
	out_u64(o, "orphans_reclaimed", st->nr_orphans);
	out_u64(o, "walk_ns", st->walk_ns);
	out_u64(o, "mounts", st->nr_mounts);
	out_bool(o, "damaged", st->flags & FOLIOFS_STATUS_DAMAGED);
	out_u64(o, "bad_pages", st->nr_bad);
	out_open(o, "bad_ranges", '[');
	for (unsigned int i = 0; i < nr_bad_shown(st); i++) {
		out_open(o, NULL, '{');
		out_u64(o, "offset", st->bad_off[i]);
		out_u64(o, "length", st->bad_size);
		out_close(o, '}');
	}
	out_close(o, ']');
}

static void out_requests(struct out *o, const struct foliofs_ioc_status *st)
{
	char number[16];

	out_open(o, "requests", '{');
	for (unsigned int i = 0; i < FOLIOFS_STATUS_OPS; i++) {
		if (st->nr_requests[i] == 0)
			continue;
		snprintf(number, sizeof(number), "opcode_%u", i);
		out_u64(o, op_name[i] ? op_name[i] : number,
			st->nr_requests[i]);
	}
	out_close(o, '}');
}

static void print_json(const struct foliofs_ioc_status *st, int fd)
{
	char uuid[UUID_TEXT];
	struct out o;

	uuid_format(st->uuid, uuid);
	out_begin(&o, stdout, true);
	out_u64(&o, "version", st->version);
	out_text(&o, "uuid", uuid);
	out_bytes(&o, "label", st->label,
		  strnlen(st->label, sizeof(st->label)));
	out_u64(&o, "pid", st->pid);
	out_options(&o, st);
	out_space(&o, st);
	out_counts(&o, st);
	out_requests(&o, st);
	ctl_policy_stats(&o, fd);
	out_end(&o);
}

static void print_space(const struct foliofs_ioc_status *st)
{
	char total[SIZE_TEXT], left[SIZE_TEXT], part[SIZE_TEXT];

	printf("space:     %s, %s free (%.0f %%), %" PRIu64
	       " empty 2 MiB chunks\n",
	       size_format(st->nr_blocks * st->block_size, total),
	       size_format(st->nr_free * st->block_size, left),
	       st->nr_blocks
		       ? 100.0 * (double)st->nr_free / (double)st->nr_blocks
		       : 0.0,
	       st->nr_empty_chunks);
	for (unsigned int i = BLOCK_STATIC; i < NR_BLOCK_KINDS; i++)
		if (st->nr_kind[i])
			printf("           %-8s %s\n",
			       block_kind_name((enum block_kind)i),
			       size_format(st->nr_kind[i] * st->block_size,
					   part));
	if (st->nr_shared)
		printf("           shared   %s\n",
		       size_format(st->nr_shared * st->block_size, part));
}

static void print_health(const struct foliofs_ioc_status *st)
{
	printf("recovery:  %" PRIu64 " records replayed, %" PRIu64
	       " orphans reclaimed, walk took %.1f ms, mount number %" PRIu64
	       "\n",
	       st->nr_replayed, st->nr_orphans, (double)st->walk_ns / 1e6,
	       st->nr_mounts);
	if (st->flags & FOLIOFS_STATUS_DAMAGED)
		puts("health:    DAMAGED: see the log, and run fsck.foliofs");
	else
		puts("health:    good");
	if (st->nr_bad)
		printf("bad media: %u pages lost\n", st->nr_bad);
	for (unsigned int i = 0; i < nr_bad_shown(st); i++)
		printf("           [%" PRIu64 ", %" PRIu64 ")\n",
		       st->bad_off[i], st->bad_off[i] + st->bad_size);
}

static void print_requests(const struct foliofs_ioc_status *st)
{
	uint64_t total = 0;

	for (unsigned int i = 0; i < FOLIOFS_STATUS_OPS; i++)
		total += st->nr_requests[i];
	printf("requests:  %" PRIu64 ", %" PRIu64 " of them sleep\n", total,
	       st->nr_waiting);
	for (unsigned int i = 0; i < FOLIOFS_STATUS_OPS; i++)
		if (st->nr_requests[i])
			printf("           %-13s %" PRIu64 "\n",
			       op_name[i] ? op_name[i] : "other",
			       st->nr_requests[i]);
}

static void print_text(const char *path, const struct foliofs_ioc_status *st)
{
	size_t len = strnlen(st->label, sizeof(st->label));
	char uuid[UUID_TEXT];

	uuid_format(st->uuid, uuid);
	printf("%s: uuid %s", path, uuid);
	if (len) {
		fputs(", label ", stdout);
		print_bytes(stdout, st->label, len);
	}
	printf(", daemon %u\n", st->pid);
	printf("options:   %s,data=%s,cache=%s,%s,dax=%s,granularity=%s\n",
	       st->flags & FOLIOFS_STATUS_READ_ONLY ? "ro" : "rw",
	       NAME(data_name, st->data), NAME(cache_name, st->cache),
	       NAME(atime_name, st->atime), NAME(dax_name, st->dax),
	       pmem_granularity_name((enum pmem_granularity)st->granularity));
	print_space(st);
	printf("inodes:    %" PRIu64 " in use, %" PRIu64 " cached\n",
	       st->nr_inodes, st->nr_inodes_cached);
	printf("journal:   %" PRIu64
	       " transactions, %.1f words and %.2f fences "
	       "each, %" PRIu64 " settles\n",
	       st->nr_txns,
	       st->nr_txns ? (double)st->nr_words / (double)st->nr_txns : 0.0,
	       st->nr_txns ? (double)st->nr_fences / (double)st->nr_txns : 0.0,
	       st->nr_settles);
	print_health(st);
	print_requests(st);
}

/* The open directory, or -1: that was said. */
static int ask(const char *path, struct foliofs_ioc_status *ret)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (fd >= 0 && ioctl(fd, FOLIOFS_IOC_STATUS, ret) == 0)
		return fd;
	err = errno;
	if (fd >= 0)
		close(fd);
	ctl_fail(path, err == ENOTTY || err == ENOSYS || err == EINVAL
			       ? "not a mounted foliofs"
			       : strerror(err));
	return -1;
}

/* Who decides about breaks, and what it holds back. */
static void print_policy(int fd)
{
	struct foliofs_ioc_policy_stat st = { .op = FOLIOFS_POLICY_ALL };
	struct foliofs_ioc_policy p;

	if (ioctl(fd, FOLIOFS_IOC_POLICY_GET, &p) ||
	    ioctl(fd, FOLIOFS_IOC_POLICY_STAT, &st))
		return;
	printf("policy:    %s, %" PRIu64 " blocks held back\n", p.spec,
	       st.nr_held);
}

static int print_waits(const char *path, const struct foliofs_ioc_status *st,
		       bool json)
{
	char sock[sizeof(st->socket) + 1] = { 0 };

	if (st->version < 2)
		return ctl_fail(path, "its daemon is too old to say");
	memcpy(sock, st->socket, sizeof(st->socket));
	if (!*sock)
		return ctl_fail(path, "nobody can map files of this mount, so "
				      "nobody waits");
	return ctl_waits(path, sock, json);
}

static int run_status(int argc, char **argv)
{
	struct foliofs_ioc_status st;
	const char *path = NULL;
	bool json = false, waits = false;
	int fd;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (strcmp(argv[i], "--waits") == 0)
			waits = true;
		else if (argv[i][0] == '-' || path)
			return ctl_usage(&ctl_status, "one directory, please");
		else
			path = argv[i];
	}
	if (!path)
		return ctl_usage(&ctl_status, "which mount?");
	fd = ask(path, &st);
	if (fd < 0)
		return CTL_FAILED;
	if (waits) {
		close(fd);
		return print_waits(path, &st, json);
	}
	if (json) {
		print_json(&st, fd);
	} else {
		print_text(path, &st);
		print_policy(fd);
	}
	close(fd);
	return CTL_OK;
}

const struct ctl_command ctl_status = {
	.name = "status",
	.arguments = "DIRECTORY [--waits] [--json]",
	.what = "space, health and counters of a mounted foliofs",
	.help = "--waits: who has mapped or pinned which pages of which file, "
		"and which requests\nwait for them.\n",
	.run = run_status,
};
