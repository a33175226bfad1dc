/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl_policy.c - foliofsctl policy: what decides when blocks are in use
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dax/policy.h"
#include "fs/ioctl.h"
#include "tools/ctl.h"
#include "tools/text.h"

static const char *const answer_name[FOLIOFS_POLICY_ANSWERS] = {
	[POLICY_NONE] = "none",	    [POLICY_WAIT] = "wait",
	[POLICY_RECALL] = "recall", [POLICY_FAIL] = "fail",
	[POLICY_DEFER] = "defer",   [POLICY_REVOKE] = "revoke",
	[POLICY_UNSAFE] = "unsafe", [POLICY_NR_VERDICTS] = "nonsense",
};

static void out_counts(struct out *o, const struct foliofs_ioc_policy_stat *st)
{
	out_u64(o, "breaks", st->nr_breaks);
	out_u64(o, "busy", st->nr_busy);
	out_u64(o, "waits", st->nr_waits);
	out_u64(o, "questions", st->nr_asks);
	out_u64(o, "recalls", st->nr_recalls);
	out_u64(o, "refusals", st->nr_refusals);
	out_u64(o, "revokes", st->nr_revokes);
	out_u64(o, "deferred", st->nr_deferred);
	out_u64(o, "failed", st->nr_failed);
	out_u64(o, "wait_ns", st->wait_ns);
	out_u64(o, "wait_max_ns", st->max_ns);
	out_open(o, "answers", '{');
	for (unsigned int i = 0; i < FOLIOFS_POLICY_ANSWERS; i++)
		if (st->nr_answers[i])
			out_u64(o, answer_name[i], st->nr_answers[i]);
	out_close(o, '}');
	/* The upper end of each, in microseconds. */
	out_open(o, "wait_histogram", '[');
	for (unsigned int i = 0; i < FOLIOFS_POLICY_BUCKETS; i++) {
		if (!st->wait_us[i])
			continue;
		out_open(o, NULL, '{');
		out_u64(o, "below_us", UINT64_C(2) << i);
		out_u64(o, "waits", st->wait_us[i]);
		out_close(o, '}');
	}
	out_close(o, ']');
}

static bool ask(int fd, unsigned int slot, unsigned int op,
		struct foliofs_ioc_policy_stat *ret)
{
	*ret = (struct foliofs_ioc_policy_stat){ .slot = slot, .op = op };
	return ioctl(fd, FOLIOFS_IOC_POLICY_STAT, ret) == 0;
}

static void out_one(struct out *o, int fd, unsigned int slot,
		    const struct foliofs_ioc_policy_stat *all)
{
	struct foliofs_ioc_policy_stat st;

	out_open(o, NULL, '{');
	out_bytes(o, "policy", all->name, strnlen(all->name, 32));
	out_counts(o, all);
	out_open(o, "operations", '{');
	for (unsigned int op = 0; op < FOLIOFS_POLICY_OPS; op++) {
		if (!ask(fd, slot, op, &st) || !st.nr_breaks)
			continue;
		st.op_name[sizeof(st.op_name) - 1] = '\0';
		out_open(o, st.op_name, '{');
		out_counts(o, &st);
		out_close(o, '}');
	}
	out_close(o, '}');
	out_close(o, '}');
}

void ctl_policy_stats(struct out *o, int fd)
{
	struct foliofs_ioc_policy p;
	struct foliofs_ioc_policy_stat st;

	if (ioctl(fd, FOLIOFS_IOC_POLICY_GET, &p))
		return; /* an older daemon */
	out_bytes(o, "policy", p.spec, strnlen(p.spec, sizeof(p.spec)));
	if (ask(fd, 0, FOLIOFS_POLICY_ALL, &st)) {
		out_u64(o, "blocks_held_back", st.nr_held);
		out_u64(o, "blocks_held_back_ever", st.nr_held_ever);
	}
	out_open(o, "policies", '[');
	for (unsigned int i = 0; ask(fd, i, FOLIOFS_POLICY_ALL, &st); i++)
		out_one(o, fd, i, &st);
	out_close(o, ']');
}

static int open_mount(const char *dir, struct foliofs_ioc_policy *ret)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0 && ioctl(fd, FOLIOFS_IOC_POLICY_GET, ret) == 0)
		return fd;
	ctl_fail(dir, errno == ENOTTY || errno == ENOSYS || errno == EINVAL
			      ? "not a mounted foliofs"
			      : strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

static int show(const char *dir)
{
	struct foliofs_ioc_policy_stat st;
	struct foliofs_ioc_policy p;
	int fd = open_mount(dir, &p);

	if (fd < 0)
		return CTL_FAILED;
	printf("%s\n    %s\n", p.spec, p.what);
	for (unsigned int i = 0; ask(fd, i, FOLIOFS_POLICY_ALL, &st); i++) {
		if (i == 0 && st.nr_held)
			printf("    %" PRIu64 " blocks are held back\n",
			       st.nr_held);
		if (st.nr_breaks)
			printf("    %.32s: %" PRIu64 " breaks, %" PRIu64
			       " busy, %" PRIu64
			       " waited %.1f ms each, %" PRIu64
			       " failed, %" PRIu64 " deferred, %" PRIu64
			       " clients ended, %" PRIu64 " answers refused\n",
			       st.name, st.nr_breaks, st.nr_busy, st.nr_waits,
			       st.nr_waits ? (double)st.wait_ns / 1e6 /
						     (double)st.nr_waits
					   : 0.0,
			       st.nr_failed, st.nr_deferred, st.nr_revokes,
			       st.nr_refusals);
	}
	close(fd);
	return CTL_OK;
}

/* NAME key=value...: one spec, and a path for a daemon in another directory. */
static int make_spec(int argc, char **argv, char *spec, size_t size)
{
	char *path = strchr(argv[0], '/') ? realpath(argv[0], NULL) : NULL;
	size_t used;

	if (strchr(argv[0], '/') && !path && !strpbrk(argv[0], ":,"))
		return ctl_fail(argv[0], strerror(errno));
	used = (size_t)snprintf(spec, size, "%s", path ? path : argv[0]);
	free(path);
	for (int i = 1; i < argc && used < size; i++)
		used += (size_t)snprintf(spec + used, size - used, ":%s",
					 argv[i]);
	return used < size ? CTL_OK : ctl_fail(argv[0], "too long");
}

static int set(const char *dir, int argc, char **argv)
{
	struct foliofs_ioc_policy p;
	int fd = open_mount(dir, &p), ret;

	if (fd < 0)
		return CTL_FAILED;
	memset(&p, 0, sizeof(p));
	ret = make_spec(argc, argv, p.spec, sizeof(p.spec));
	if (ret == CTL_OK && ioctl(fd, FOLIOFS_IOC_POLICY_SET, &p))
		ret = ctl_fail(dir, strerror(errno));
	else if (ret == CTL_OK && p.error)
		ret = ctl_fail(dir, p.what);
	close(fd);
	return ret;
}

static int run_policy(int argc, char **argv)
{
	if (argc < 2 || argv[1][0] == '-')
		return ctl_usage(&ctl_policy, "which mount?");
	if (argc == 2)
		return show(argv[1]);
	if (strcmp(argv[2], "set") != 0 || argc < 4)
		return ctl_usage(&ctl_policy, "only set NAME is known");
	return set(argv[1], argc - 3, argv + 3);
}

const struct ctl_command ctl_policy = {
	.name = "policy",
	.arguments = "DIRECTORY [set NAME|/path/x.so [KEY=VALUE]...]",
	.what = "what happens when blocks that go are in use; set changes it",
	.help = "wait      until nobody uses them, as the kernel does\n"
		"nowait    EAGAIN at once\n"
		"timeout   ms=N: wait for so long, then ETIMEDOUT\n"
		"lease     grace_ms=N: then whoever holds on is killed\n"
		"fail      long_ms=N: ETXTBSY when a pin is that old\n"
		"defer     finish at once, blocks come back when they are "
		"idle\n"
		"revoke    kill=0|1: end whoever is in the way\n"
		"\nRequests that wait now are decided by the new policy.\n",
	.run = run_policy,
};
