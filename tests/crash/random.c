/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/random.c - what is crashed, by chance
 *
 * Few names, few offsets and small files, so that operations meet each other:
 * an inode, a dentry and a block change hands as often as possible while the
 * records of those who had them are still in the journal.
 */
#include "tests/crash/scenarios.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/crash/rng.h"

struct text {
	char buf[2048];
	size_t len;
};

static void add(struct text *t, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(t->buf + t->len, sizeof(t->buf) - t->len, fmt, ap);
	va_end(ap);
	t->len += (size_t)len;
}

static const char *any_file(struct rng *r)
{
	static const char *const names[] = { "/a",   "/b",   "/c",	 "/d/a",
					     "/d/b", "/e/a", "/long*150" };

	return names[rng_below(r, 7)];
}

static const char *any_dir(struct rng *r)
{
	static const char *const names[] = { "/d", "/e", "/d/e", "/f" };

	return names[rng_below(r, 4)];
}

static const char *any_path(struct rng *r)
{
	return rng_below(r, 3) ? any_file(r) : any_dir(r);
}

static unsigned int any_pos(struct rng *r)
{
	static const unsigned int near[] = { 0,	   1,	 100,  4000,
					     4096, 5000, 8192, 12288 };

	return near[rng_below(r, 8)];
}

static unsigned int any_len(struct rng *r)
{
	static const unsigned int len[] = { 1, 8, 100, 4096, 5000, 9000 };

	return len[rng_below(r, 6)];
}

static void add_name_op(struct text *t, struct rng *r)
{
	switch (rng_below(r, 9)) {
	case 0:
	case 1:
		add(t, "!create %s 644; ", any_file(r));
		break;
	case 2:
	case 3:
		add(t, "!unlink %s; ", any_file(r));
		break;
	case 4:
		add(t, "!mkdir %s 755; ", any_dir(r));
		break;
	case 5:
		add(t, "!rmdir %s; ", any_dir(r));
		break;
	case 6:
		add(t, "!link %s ", any_file(r));
		add(t, "%s; ", any_file(r));
		break;
	case 7:
		add(t, "!symlink %s x*%u; ", any_file(r),
		    1 + rng_below(r, 300));
		break;
	default:
		add(t, "!rename %s ", any_path(r));
		add(t, "%s%s; ", any_path(r),
		    rng_below(r, 4) ? "" : " exchange");
		break;
	}
}

static void add_data_op(struct text *t, struct rng *r)
{
	static const char *const verbs[] = { "punch", "zero", "falloc", "keep",
					     "unshare" };
	static const char *const shares[] = { "clone", "dedupe" };

	switch (rng_below(r, 8)) {
	case 0:
		add(t, "!truncate %s %u; ", any_file(r), any_pos(r));
		break;
	case 1:
		add(t, "!%s %s ", verbs[rng_below(r, 5)], any_file(r));
		add(t, "%u %u; ", any_pos(r), any_len(r));
		break;
	case 2:
		add(t, "!copy %s %u ", any_file(r), any_pos(r));
		add(t, "%s %u ", any_file(r), any_pos(r));
		add(t, "%u; ", any_len(r));
		break;
	case 3:
	case 4:
		/* Mostly of pages, or all of a file, as others are refused. */
		add(t, "!%s %s %u ", shares[rng_below(r, 4) == 0], any_file(r),
		    rng_below(r, 2) * 4096);
		add(t, "%s %u ", any_file(r), rng_below(r, 3) * 4096);
		add(t, "%u; ", rng_below(r, 3) * 4096);
		break;
	default:
		add(t, "!write %s %u ", any_file(r), any_pos(r));
		add(t, "%u %u; ", any_len(r), 1 + rng_below(r, 1000));
		break;
	}
}

static void add_attr_op(struct text *t, struct rng *r)
{
	switch (rng_below(r, 5)) {
	case 0:
		add(t, "!chmod %s %o; ", any_path(r), rng_below(r, 4096));
		break;
	case 1:
		add(t, "!chown %s %u 7; ", any_path(r), rng_below(r, 10));
		break;
	case 2:
		add(t, "!removexattr %s user.x; ", any_path(r));
		break;
	default:
		add(t, "!setxattr %s user.x ", any_path(r));
		add(t, "%u 3; ", rng_below(r, 600));
		break;
	}
}

static void add_op(struct text *t, struct rng *r)
{
	switch (rng_below(r, 10)) {
	case 0:
	case 1:
	case 2:
	case 3:
		add_name_op(t, r);
		break;
	case 4:
	case 5:
	case 6:
		add_data_op(t, r);
		break;
	case 7:
		add_attr_op(t, r);
		break;
	case 8:
		/* The last close is where an orphan goes. */
		add(t, "!open 0 %s; ", any_file(r));
		add_name_op(t, r);
		add_data_op(t, r);
		add(t, "!close 0; ");
		break;
	default:
		add(t, "%s; ",
		    (const char *[]){ "kill", "remount",
				      "evict" }[rng_below(r, 3)]);
		break;
	}
}

const struct scenario *scenario_random(uint64_t seed)
{
	static struct text setup, ops;
	static char name[40];
	static struct scenario sc;
	struct rng r = { seed };
	unsigned int nr = 3 + rng_below(&r, 4);

	memset(&setup, 0, sizeof(setup));
	memset(&ops, 0, sizeof(ops));
	add(&setup, "mkdir /d 755; mkdir /e 755; ");
	if (seed % 4 < 2)
		add(&setup, "collect; ");
	for (unsigned int i = rng_below(&r, 10); i > 0; i--)
		add_op(&setup, &r);
	for (unsigned int i = 0; i < nr; i++)
		add_op(&ops, &r);
	snprintf(name, sizeof(name), "random-%" PRIu64, seed);
	sc = (struct scenario){ .group = "random",
				.name = name,
				.blocks = 96,
				.data = seed % 2 ? DATA_COW : DATA_INPLACE,
				.setup = setup.buf,
				.ops = ops.buf };
	return &sc;
}
