/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl_list.c - foliofsctl list: the persistent memory of this machine
 *
 * Regions and namespaces come from dax/namespace.h.  Who holds one is asked
 * of the kernel: /proc/self/mountinfo for filesystems, and for a devdax
 * device /proc/locks, because whatever uses a foliofs has its device locked.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "dax/namespace.h"
#include "fs/fs_format.h"
#include "tools/ctl.h"
#include "tools/text.h"

struct entry {
	const struct ns *ns;
	char path[NS_NAME + 8];
	char holder[128]; /* empty: nobody */
	bool is_foliofs;
};

/* The mount point of a block device. */
static void find_mount(dev_t dev, char *holder, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096], where[80], type[32];
	unsigned int major, minor;

	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		const char *sep = strstr(line, " - ");

		if (sscanf(line, "%*d %*d %u:%u %*s %79s", &major, &minor,
			   where) != 3 ||
		    makedev(major, minor) != dev || !sep ||
		    sscanf(sep + 3, "%31s", type) != 1)
			continue;
		snprintf(holder, size, "%s on %s", type, where);
		break;
	}
	fclose(f);
}

static void name_process(int pid, char *holder, size_t size)
{
	char path[32], comm[32] = "?";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (f) {
		if (fgets(comm, sizeof(comm), f))
			comm[strcspn(comm, "\n")] = '\0';
		fclose(f);
	}
	snprintf(holder, size, "%s[%d]", comm, pid);
}

/* The process that has a device locked. */
static void find_locker(const struct stat *st, char *holder, size_t size)
{
	FILE *f = fopen("/proc/locks", "re");
	unsigned int major, minor;
	char line[256];
	uint64_t ino;
	int pid;

	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s FLOCK %*s %*s %d %x:%x:%" SCNu64, &pid,
			   &major, &minor, &ino) == 4 &&
		    makedev(major, minor) == st->st_dev && ino == st->st_ino) {
			name_process(pid, holder, size);
			break;
		}
	}
	fclose(f);
}

/* The first word of a devdax device, without locking it. */
static bool has_magic(const struct entry *e)
{
	size_t len = e->ns->alignment ? e->ns->alignment : BLOCK_SIZE;
	bool ret = false;
	const void *p;
	int fd;

	/* A load there would be a machine check. */
	for (unsigned int i = 0; i < e->ns->nr_bad && i < NS_BAD_MAX; i++)
		if (e->ns->bad[i].off < BLOCK_SIZE)
			return false;
	fd = open(e->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED) {
		ret = le64_to_cpu(*(const le64 *)p) == FOLIOFS_MAGIC;
		munmap((void *)(uintptr_t)p, len);
	}
	close(fd);
	return ret;
}

static void look(struct entry *e, const struct ns *ns)
{
	struct stat st;

	*e = (struct entry){ .ns = ns };
	if (!ns->device[0])
		return;
	snprintf(e->path, sizeof(e->path), "/dev/%s", ns->device);
	if (stat(e->path, &st) != 0)
		return;
	if (S_ISBLK(st.st_mode)) {
		find_mount(st.st_rdev, e->holder, sizeof(e->holder));
		return;
	}
	find_locker(&st, e->holder, sizeof(e->holder));
	if (ns->mode == NS_MODE_DEVDAX)
		e->is_foliofs = has_magic(e);
}

/* For programs. */

static void json_region(struct out *o, const struct ns_region *r)
{
	out_open(o, NULL, '{');
	out_text(o, "region", r->name);
	out_text(o, "provider", r->provider);
	out_u64(o, "size", r->size);
	out_u64(o, "available", r->available);
	out_text(o, "persistence_domain", ns_domain_name(r->domain));
	out_close(o, '}');
}

static void json_bad(struct out *o, const struct ns *ns)
{
	out_u64(o, "bad_blocks", ns->nr_bad);
	out_open(o, "bad_ranges", '[');
	for (unsigned int i = 0; i < ns->nr_bad && i < NS_BAD_MAX; i++) {
		out_open(o, NULL, '{');
		out_u64(o, "offset", ns->bad[i].off);
		out_u64(o, "length", ns->bad[i].len);
		out_close(o, '}');
	}
	out_close(o, ']');
}

static void json_entry(struct out *o, const struct entry *e)
{
	const struct ns *ns = e->ns;

	out_open(o, NULL, '{');
	out_text(o, "namespace", ns->name);
	out_text(o, "region", ns->region);
	out_text(o, "device", e->path);
	out_text(o, "mode", ns_mode_name(ns->mode));
	out_bool(o, "enabled", ns->enabled);
	out_u64(o, "size", ns->size);
	out_u64(o, "alignment", ns->alignment);
	out_text(o, "persistence_domain", ns_domain_name(ns->domain));
	json_bad(o, ns);
	out_text(o, "holder", e->holder);
	out_bool(o, "foliofs", e->is_foliofs);
	out_close(o, '}');
}

static void print_json(const struct ns_set *set)
{
	struct entry e;
	struct out o;

	out_begin(&o, stdout, true);
	out_open(&o, "regions", '[');
	for (unsigned int i = 0; i < set->nr_regions; i++)
		json_region(&o, &set->region[i]);
	out_close(&o, ']');
	out_open(&o, "namespaces", '[');
	for (unsigned int i = 0; i < set->nr; i++) {
		look(&e, &set->ns[i]);
		json_entry(&o, &e);
	}
	out_close(&o, ']');
	out_end(&o);
}

/* For people. */

static void print_regions(const struct ns_set *set)
{
	char size[SIZE_TEXT], left[SIZE_TEXT];

	printf("%-14s %-16s %11s %11s  %s\n", "REGION", "PROVIDER", "SIZE",
	       "AVAILABLE", "PERSISTENCE");
	for (unsigned int i = 0; i < set->nr_regions; i++) {
		const struct ns_region *r = &set->region[i];

		printf("%-14s %-16s %11s %11s  %s\n", r->name, r->provider,
		       size_format(r->size, size),
		       size_format(r->available, left),
		       ns_domain_name(r->domain));
	}
}

static void print_entry(const struct entry *e)
{
	const struct ns *ns = e->ns;
	char size[SIZE_TEXT], align[SIZE_TEXT] = "-";

	if (ns->alignment)
		size_format(ns->alignment, align);
	printf("%-14s %-12s %-10s %11s %9s %4u  %s%s%s\n", ns->name,
	       e->path[0] ? e->path : "-", ns_mode_name(ns->mode),
	       size_format(ns->size, size), align, ns->nr_bad,
	       e->is_foliofs  ? "foliofs"
	       : !ns->enabled ? "disabled"
			      : "-",
	       e->holder[0] ? ", held by " : "", e->holder);
}

static void print_table(const struct ns_set *set)
{
	struct entry e;

	if (!set->nr_regions) {
		puts("no NVDIMM regions");
		return;
	}
	print_regions(set);
	if (!set->nr) {
		puts("\nno namespaces; ndctl create-namespace makes one");
		return;
	}
	printf("\n%-14s %-12s %-10s %11s %9s %4s  %s\n", "NAMESPACE", "DEVICE",
	       "MODE", "SIZE", "ALIGNMENT", "BAD", "STATE");
	for (unsigned int i = 0; i < set->nr; i++) {
		look(&e, &set->ns[i]);
		print_entry(&e);
	}
}

static int run_list(int argc, char **argv)
{
	struct errmsg err = { "" };
	bool json = false;
	struct ns_set set;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") != 0)
			return ctl_usage(&ctl_list, "nothing but --json");
		json = true;
	}
	if (ns_scan(&set, &err) != 0)
		return ctl_fail("list", err.text);
	if (json)
		print_json(&set);
	else
		print_table(&set);
	ns_free(&set);
	return CTL_OK;
}

const struct ctl_command ctl_list = {
	.name = "list",
	.arguments = "[--json]",
	.what = "NVDIMM regions and namespaces, and which hold a foliofs",
	.help = "Nothing is changed: namespaces are made with ndctl(1).  A\n"
		"foliofs wants one in devdax mode, or a file on a filesystem\n"
		"that is mounted with dax from one in fsdax mode.\n",
	.run = run_list,
};
