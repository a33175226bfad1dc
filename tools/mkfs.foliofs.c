/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/mkfs.foliofs.c - make a foliofs on a device or in a file
 *
 * Exit codes: 0 made, 1 not made (nothing was changed, or the reason says
 * what was), 2 a mistake on the command line.
 */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "dax/namespace.h"
#include "fs/foliofs.h"
#include "fs/fs_format.h"
#include "tools/text.h"

static const char usage_text[] =
	"Usage: mkfs.foliofs [OPTION]... DEVICE\n"
	"Make a foliofs on a devdax device, or in a file on tmpfs, on a\n"
	"filesystem mounted with dax, or (slowly) on any other.\n"
	"\n"
	"  -L, --label=LABEL  a name of up to 64 bytes\n"
	"  -U, --uuid=UUID    instead of a random one\n"
	"  -s, --size=SIZE    make the file, or make it larger; K, M, G, T\n"
	"  -f, --force        overwrite a filesystem that is there\n"
	"  -q, --quiet        say nothing when it works\n"
	"      --json         say what was made as JSON\n"
	"      --help         show this\n"
	"      --version      show the version\n";

enum {
	EXIT_MADE,
	EXIT_FAILED,
	EXIT_USAGE
};

struct arguments {
	struct foliofs_mkfs mkfs;
	uint8_t uuid[16];
	bool quiet, json;
};

static int bad_usage(const char *what, const char *value)
{
	fprintf(stderr, "mkfs.foliofs: %s%s; see --help\n", what,
		value ? value : "");
	return EXIT_USAGE;
}

/* Returns -1 to go on, or an exit code. */
static int take_option(struct arguments *a, int opt)
{
	switch (opt) {
	case 'L':
		a->mkfs.label = optarg;
		return strlen(optarg) > FOLIOFS_LABEL_LEN
			       ? bad_usage("label too long: ", optarg)
			       : -1;
	case 'U':
		if (!uuid_parse(optarg, a->uuid))
			return bad_usage("not a UUID: ", optarg);
		a->mkfs.uuid = a->uuid;
		return -1;
	case 's':
		if (!size_parse(optarg, &a->mkfs.size) || a->mkfs.size == 0)
			return bad_usage("not a size: ", optarg);
		return -1;
	case 'f':
		a->mkfs.force = true;
		return -1;
	case 'q':
		a->quiet = true;
		return -1;
	case 'j':
		a->json = true;
		return -1;
	case 'h':
		fputs(usage_text, stdout);
		return EXIT_MADE;
	case 'V':
		puts("mkfs.foliofs " FOLIOFS_RELEASE);
		return EXIT_MADE;
	default:
		return bad_usage("unknown option", NULL);
	}
}

static int parse(struct arguments *a, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "label", required_argument, NULL, 'L' },
		{ "uuid", required_argument, NULL, 'U' },
		{ "size", required_argument, NULL, 's' },
		{ "force", no_argument, NULL, 'f' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int opt, ret;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "L:U:s:fqhV", longs, NULL)) !=
	       -1) {
		ret = take_option(a, opt);
		if (ret >= 0)
			return ret;
	}
	if (optind + 1 != argc)
		return bad_usage("one device must be named", NULL);
	a->mkfs.device = argv[optind];
	return -1;
}

static void say_json(const struct foliofs_superblock *sb, const char *device,
		     const char *uuid)
{
	struct out o;

	out_begin(&o, stdout, true);
	out_text(&o, "device", device);
	out_text(&o, "uuid", uuid);
	out_bytes(&o, "label", sb->label,
		  strnlen(sb->label, sizeof(sb->label)));
	out_u64(&o, "block_size", le32_to_cpu(sb->block_size));
	out_u64(&o, "nr_blocks", le64_to_cpu(sb->nr_blocks));
	out_u64(&o, "size", le64_to_cpu(sb->nr_blocks) << BLOCK_SHIFT);
	out_end(&o);
}

static void say_text(const struct foliofs_superblock *sb, const char *device,
		     const char *uuid)
{
	size_t len = strnlen(sb->label, sizeof(sb->label));
	uint64_t nr_blocks = le64_to_cpu(sb->nr_blocks);
	char size[SIZE_TEXT];

	printf("%s: made a foliofs of %s (%" PRIu64 " blocks of %" PRIu64
	       " bytes)\nuuid %s",
	       device, size_format(nr_blocks << BLOCK_SHIFT, size), nr_blocks,
	       BLOCK_SIZE, uuid);
	if (len) {
		fputs(", label ", stdout);
		print_bytes(stdout, sb->label, len);
	}
	putchar('\n');
}

/* What was made, as it can be read back. */
static int say(const struct arguments *a)
{
	struct foliofs_superblock sb;
	char uuid[UUID_TEXT];
	struct errmsg err;
	struct pmem *pm;

	if (pmem_open(a->mkfs.device, PMEM_PRIVATE, a->mkfs.granularity, &pm,
		      &err) != 0) {
		fprintf(stderr, "mkfs.foliofs: %s\n", err.text);
		return EXIT_FAILED;
	}
	if (pmem_warning(pm))
		fprintf(stderr, "mkfs.foliofs: %s: %s\n", a->mkfs.device,
			pmem_warning(pm));
	memcpy(&sb, pmem_at(pm, 0), sizeof(sb));
	pmem_close(pm);
	uuid_format(sb.uuid, uuid);
	if (a->json)
		say_json(&sb, a->mkfs.device, uuid);
	else
		say_text(&sb, a->mkfs.device, uuid);
	return EXIT_MADE;
}

int main(int argc, char **argv)
{
	struct arguments a = { .mkfs = { .uid = getuid(), .gid = getgid() } };
	struct errmsg err = { "" };
	struct ns_device dev;
	int ret;

	ret = parse(&a, argc, argv);
	if (ret >= 0)
		return ret;
	ret = ns_resolve(a.mkfs.device, &dev, &err);
	if (!ret && dev.named && !a.quiet && !a.json) {
		ns_describe(a.mkfs.device, &dev, &err);
		puts(err.text);
	}
	a.mkfs.device = dev.path;
	if (ret || foliofs_mkfs(&a.mkfs, &err) != 0) {
		fprintf(stderr, "mkfs.foliofs: %s\n", err.text);
		return EXIT_FAILED;
	}
	return a.quiet && !a.json ? EXIT_MADE : say(&a);
}
