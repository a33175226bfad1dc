/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl_dump.c - foliofsctl dump: what is on media, as it is
 *
 * Nothing is recovered or changed: live records of the journal are shown by
 * `dump DEVICE lanes` and not replayed.  What cannot be is shown too, and
 * never followed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "dax/namespace.h"
#include "fs/fs.h"
#include "tools/ctl.h"
#include "tools/text.h"

struct dump {
	struct foliofs fs; /* as much of it as slot_valid() looks at */
	struct foliofs_superblock sb;
	struct out out;
};

static const char *slot_name(uint64_t slot)
{
	static const char *const name[] = { "hole", "node", "data",
					    "unwritten" };

	return slot_type(slot) < 4 ? name[slot_type(slot)] : "bad";
}

static void out_slot(struct dump *d, const char *key, uint64_t slot)
{
	char text[64];

	if (slot == 0)
		snprintf(text, sizeof(text), "hole");
	else
		snprintf(text, sizeof(text), "%s level %u block %" PRIu64 "%s",
			 slot_name(slot), slot_level(slot), slot_block(slot),
			 slot_valid(&d->fs, slot, TREE_ROOT) ? "" : " (bad)");
	out_text(&d->out, key, text);
}

static void out_super(struct dump *d, const struct foliofs_superblock *sb)
{
	uint32_t crc =
		pmem_crc32c(sb, offsetof(struct foliofs_superblock, crc));
	uint64_t state = le64_to_cpu(sb->state);
	struct out *o = &d->out;
	char uuid[UUID_TEXT];

	uuid_format(sb->uuid, uuid);
	out_bool(o, "magic_good", le64_to_cpu(sb->magic) == FOLIOFS_MAGIC);
	out_bool(o, "crc_good", le32_to_cpu(sb->crc) == crc);
	out_u64(o, "version", le32_to_cpu(sb->version));
	out_u64(o, "block_size", le32_to_cpu(sb->block_size));
	out_hex(o, "compat", le64_to_cpu(sb->compat));
	out_hex(o, "ro_compat", le64_to_cpu(sb->ro_compat));
	out_hex(o, "incompat", le64_to_cpu(sb->incompat));
	out_u64(o, "nr_blocks", le64_to_cpu(sb->nr_blocks));
	out_u64(o, "lane_off", le64_to_cpu(sb->lane_off));
	out_u64(o, "nr_lanes", le32_to_cpu(sb->nr_lanes));
	out_u64(o, "lane_size", le32_to_cpu(sb->lane_size));
	out_u64(o, "data_start", le64_to_cpu(sb->data_start));
	out_s64(o, "created", (int64_t)le64_to_cpu(sb->created));
	out_text(o, "uuid", uuid);
	out_bytes(o, "label", sb->label, strnlen(sb->label, sizeof(sb->label)));
	out_slot(d, "itable_root", le64_to_cpu(sb->itable_root));
	out_text(o, "state",
		 state == FOLIOFS_CLEAN	  ? "clean"
		 : state == FOLIOFS_DIRTY ? "dirty"
					  : "unknown");
	out_u64(o, "nr_mounts", le64_to_cpu(sb->nr_mounts));
}

static int dump_super(struct dump *d, uint64_t nr)
{
	const struct foliofs_superblock *copy;
	uint64_t off = (d->fs.nr_blocks - 1) << BLOCK_SHIFT;

	(void)nr;
	out_super(d, &d->sb);
	copy = (const struct foliofs_superblock *)pmem_at(d->fs.pm, off);
	out_bool(&d->out, "copy_agrees",
		 memcmp(copy, &d->sb,
			offsetof(struct foliofs_superblock, state)) == 0);
	return CTL_OK;
}

static bool lane_whole(const struct foliofs_lane *lane)
{
	struct foliofs_lane l = *lane;
	uint32_t nr = le32_to_cpu(l.nr);

	if (nr == 0 || nr > FOLIOFS_LANE_WORDS)
		return false;
	l.crc = cpu_to_le32(0);
	return pmem_crc32c(&l, offsetof(struct foliofs_lane, word) +
				       nr * sizeof(l.word[0])) ==
	       le32_to_cpu(lane->crc);
}

static void out_words(struct dump *d, const struct foliofs_lane *lane)
{
	out_open(&d->out, "words", '[');
	for (uint32_t i = 0; i < le32_to_cpu(lane->nr); i++) {
		out_open(&d->out, NULL, '{');
		out_hex(&d->out, "offset", le64_to_cpu(lane->word[i].off));
		out_hex(&d->out, "value", le64_to_cpu(lane->word[i].value));
		out_close(&d->out, '}');
	}
	out_close(&d->out, ']');
}

static int dump_lanes(struct dump *d, uint64_t nr)
{
	uint64_t off = le64_to_cpu(d->sb.lane_off);
	struct foliofs_lane lane;

	(void)nr;
	out_open(&d->out, "lanes", '[');
	for (uint32_t i = 0; i < le32_to_cpu(d->sb.nr_lanes); i++) {
		memcpy(&lane, pmem_at(d->fs.pm, off), sizeof(lane));
		off += FOLIOFS_LANE_SIZE;
		if (le64_to_cpu(lane.seq) == 0)
			continue;
		out_open(&d->out, NULL, '{');
		out_u64(&d->out, "lane", i);
		out_u64(&d->out, "seq", le64_to_cpu(lane.seq));
		out_u64(&d->out, "nr", le32_to_cpu(lane.nr));
		out_bool(&d->out, "whole", lane_whole(&lane));
		if (lane_whole(&lane))
			out_words(d, &lane);
		out_close(&d->out, '}');
	}
	out_close(&d->out, ']');
	return CTL_OK;
}

/* Block of a page, or 0 where there is none. */
static uint64_t find_page(struct dump *d, uint64_t root, uint64_t index)
{
	unsigned int level = slot_level(root);
	uint64_t slot = root;

	if (!slot_valid(&d->fs, slot, TREE_ROOT) || index >= level_pages(level))
		return 0;
	while (slot_type(slot) == SLOT_NODE) {
		uint64_t i = index >> (--level * NODE_SHIFT) & (NODE_SLOTS - 1);

		slot = pmem_load64(d->fs.pm,
				   (slot_block(slot) << BLOCK_SHIFT) + i * 8);
		if (!slot_valid(&d->fs, slot, level))
			return 0;
	}
	if (slot_type(slot) != SLOT_DATA)
		return 0;
	return slot_block(slot) + (index & (level_pages(level) - 1));
}

/* Media offset of an inode, or 0 after a complaint. */
static uint64_t find_inode(struct dump *d, uint64_t ino)
{
	uint64_t block = find_page(d, le64_to_cpu(d->sb.itable_root),
				   ino / FOLIOFS_INODES_BLOCK);

	if (block == 0) {
		fprintf(stderr,
			"foliofsctl: inode %" PRIu64 ": not in the table\n",
			ino);
		return 0;
	}
	return (block << BLOCK_SHIFT) +
	       ino % FOLIOFS_INODES_BLOCK * FOLIOFS_INODE_SIZE;
}

static void load_inode(struct dump *d, uint64_t off, struct foliofs_inode *di)
{
	memcpy(di, pmem_at(d->fs.pm, off), sizeof(*di));
}

static void out_inode(struct dump *d, const struct foliofs_inode *di)
{
	uint64_t size = le64_to_cpu(di->size);
	struct out *o = &d->out;
	char mode[16];

	snprintf(mode, sizeof(mode), "%06o", le32_to_cpu(di->mode));
	out_text(o, "mode", mode);
	out_u64(o, "nlink", le32_to_cpu(di->nlink));
	out_u64(o, "size", size);
	out_slot(d, "data", le64_to_cpu(di->data));
	out_slot(d, "xattr", le64_to_cpu(di->xattr));
	out_u64(o, "uid", le32_to_cpu(di->uid));
	out_u64(o, "gid", le32_to_cpu(di->gid));
	out_s64(o, "atime", (int64_t)le64_to_cpu(di->atime));
	out_s64(o, "mtime", (int64_t)le64_to_cpu(di->mtime));
	out_s64(o, "ctime", (int64_t)le64_to_cpu(di->ctime));
	out_s64(o, "btime", (int64_t)le64_to_cpu(di->btime));
	out_u64(o, "generation", le32_to_cpu(di->generation));
	out_hex(o, "flags", le32_to_cpu(di->flags));
	out_hex(o, "rdev", le32_to_cpu(di->rdev));
	out_u64(o, "projid", le32_to_cpu(di->projid));
	out_u64(o, "parent", le64_to_cpu(di->parent));
	if (S_ISLNK(le32_to_cpu(di->mode)) && size <= FOLIOFS_INLINE_SYMLINK)
		out_bytes(o, "symlink", di->symlink, size);
}

static int dump_inode(struct dump *d, uint64_t ino)
{
	uint64_t off = find_inode(d, ino);
	struct foliofs_inode di;

	if (off == 0)
		return CTL_FAILED;
	load_inode(d, off, &di);
	out_u64(&d->out, "inode", ino);
	out_u64(&d->out, "offset", off);
	out_inode(d, &di);
	return CTL_OK;
}

static void out_run(struct dump *d, uint64_t index, uint64_t slot, uint64_t nr)
{
	out_open(&d->out, NULL, '{');
	out_u64(&d->out, "page", index);
	out_u64(&d->out, "nr", nr);
	out_text(&d->out, "type", slot_name(slot));
	out_u64(&d->out, "level", slot_level(slot));
	out_u64(&d->out, "block", slot_block(slot));
	if (!slot_valid(&d->fs, slot, TREE_ROOT))
		out_hex(&d->out, "bad", slot);
	out_close(&d->out, '}');
}

/* Equal neighbours of a leaf are one line. */
static unsigned int run_length(struct dump *d, uint64_t node, unsigned int i)
{
	uint64_t off = (slot_block(node) << BLOCK_SHIFT) + i * 8u;
	uint64_t slot = pmem_load64(d->fs.pm, off);
	unsigned int nr = 1;

	if (slot_level(node) != 1 || !slot_valid(&d->fs, slot, 0))
		return 1;
	while (i + nr < NODE_SLOTS &&
	       pmem_load64(d->fs.pm, off + nr * 8u) == slot + nr * BLOCK_SIZE)
		nr++;
	return nr;
}

static void out_tree(struct dump *d, uint64_t slot, unsigned int level,
		     uint64_t index)
{
	uint64_t child, off = slot_block(slot) << BLOCK_SHIFT;
	unsigned int nr;

	/* The level of a bad slot says nothing. */
	if (!slot_valid(&d->fs, slot, level)) {
		out_run(d, index, slot, 1);
		return;
	}
	out_run(d, index, slot, level_pages(slot_level(slot)));
	if (slot_type(slot) != SLOT_NODE)
		return;
	level = slot_level(slot) - 1;
	for (unsigned int i = 0; i < NODE_SLOTS; i += nr) {
		child = pmem_load64(d->fs.pm, off + i * 8u);
		nr = 1;
		if (child == 0)
			continue;
		nr = run_length(d, slot, i);
		if (nr > 1)
			out_run(d, index + i, child, nr);
		else
			out_tree(d, child, level,
				 index + i * level_pages(level));
	}
}

static void out_tree_of(struct dump *d, const char *key, uint64_t root)
{
	out_open(&d->out, key, '[');
	if (root)
		out_tree(d, root, TREE_ROOT, 0);
	out_close(&d->out, ']');
}

static int dump_tree(struct dump *d, uint64_t ino)
{
	struct foliofs_inode di;
	uint64_t off;

	if (ino == 0) {
		out_tree_of(d, "inode_table", le64_to_cpu(d->sb.itable_root));
		return CTL_OK;
	}
	off = find_inode(d, ino);
	if (off == 0)
		return CTL_FAILED;
	load_inode(d, off, &di);
	out_u64(&d->out, "inode", ino);
	out_tree_of(d, "data", le64_to_cpu(di.data));
	out_tree_of(d, "xattr", le64_to_cpu(di.xattr));
	return CTL_OK;
}

/* Returns the length of the record, or 0 where the chain breaks. */
static unsigned int out_dentry(struct dump *d, uint64_t pos, uint64_t off)
{
	unsigned int at = (unsigned int)(off & BLOCK_MASK), len;
	const struct foliofs_dentry *de =
		(const struct foliofs_dentry *)pmem_at(d->fs.pm, off);

	if (at + DENTRY_MIN_LEN > BLOCK_SIZE)
		return 0;
	len = le16_to_cpu(de->rec_len);
	out_open(&d->out, NULL, '{');
	out_u64(&d->out, "pos", pos);
	out_u64(&d->out, "offset", off);
	out_u64(&d->out, "inode", le64_to_cpu(de->ino));
	out_u64(&d->out, "rec_len", len);
	if (le64_to_cpu(de->ino) != 0 &&
	    at + sizeof(*de) + de->name_len <= BLOCK_SIZE) {
		out_u64(&d->out, "type", de->type);
		out_bytes(&d->out, "name", de->name, de->name_len);
	}
	out_close(&d->out, '}');
	return len % 8 == 0 && len >= DENTRY_MIN_LEN && at + len <= BLOCK_SIZE
		       ? len
		       : 0;
}

static int dump_dir(struct dump *d, uint64_t ino)
{
	uint64_t off = find_inode(d, ino), nr, block;
	struct foliofs_inode di;
	unsigned int at, len;

	if (off == 0)
		return CTL_FAILED;
	load_inode(d, off, &di);
	if (!S_ISDIR(le32_to_cpu(di.mode))) {
		fprintf(stderr,
			"foliofsctl: inode %" PRIu64 ": not a directory\n",
			ino);
		return CTL_FAILED;
	}
	nr = le64_to_cpu(di.size) >> BLOCK_SHIFT;
	out_u64(&d->out, "inode", ino);
	out_u64(&d->out, "parent", le64_to_cpu(di.parent));
	out_open(&d->out, "entries", '[');
	for (uint64_t i = 0; i < nr && i < d->fs.nr_blocks; i++) {
		block = find_page(d, le64_to_cpu(di.data), i);
		for (at = 0; block && at < BLOCK_SIZE; at += len) {
			len = out_dentry(d, (i << BLOCK_SHIFT) + at,
					 (block << BLOCK_SHIFT) + at);
			if (len == 0)
				break;
		}
	}
	out_close(&d->out, ']');
	return CTL_OK;
}

static const struct dump_what {
	const char *name;
	bool wants_ino;
	int (*run)(struct dump *d, uint64_t ino);
} whats[] = {
	{ "super", false, dump_super }, { "lanes", false, dump_lanes },
	{ "inode", true, dump_inode },	{ "tree", true, dump_tree },
	{ "dir", true, dump_dir },
};

static const struct dump_what *find_what(const char *name)
{
	for (size_t i = 0; i < sizeof(whats) / sizeof(whats[0]); i++)
		if (strcmp(whats[i].name, name) == 0)
			return &whats[i];
	return NULL;
}

/* The superblock, or its copy at the end where that is the better one. */
static int load_super(struct dump *d, const char *device)
{
	uint64_t nr = d->fs.pm->size >> BLOCK_SHIFT, off[2];
	struct errmsg err = { "" };

	off[0] = 0;
	off[1] = (nr - 1) << BLOCK_SHIFT;
	for (int i = 0; i < 2; i++) {
		memcpy(&d->sb, pmem_at(d->fs.pm, off[i]), sizeof(d->sb));
		if (super_check(&d->sb, nr, device, &err) == 0)
			break;
		fprintf(stderr, "foliofsctl: %s\n", err.text);
		if (i == 1)
			return CTL_FAILED;
	}
	d->fs.nr_blocks = le64_to_cpu(d->sb.nr_blocks);
	d->fs.data_start = le64_to_cpu(d->sb.data_start);
	return CTL_OK;
}

static int run_on(const char *device, const struct dump_what *what,
		  uint64_t ino, bool json)
{
	static struct dump d;
	struct errmsg err = { "" };
	struct ns_device dev;
	int ret;

	if (ns_resolve(device, &dev, &err) != 0 ||
	    pmem_open(dev.path, PMEM_PRIVATE, PMEM_GRANULARITY_AUTO, &d.fs.pm,
		      &err) != 0) {
		fprintf(stderr, "foliofsctl: %s\n", err.text);
		return CTL_FAILED;
	}
	ret = load_super(&d, device);
	if (ret == CTL_OK) {
		out_begin(&d.out, stdout, json);
		ret = what->run(&d, ino);
		out_end(&d.out);
	}
	if (pmem_fault_take()) {
		fprintf(stderr, "foliofsctl: %s: cannot be read everywhere\n",
			device);
		ret = CTL_FAILED;
	}
	pmem_close(d.fs.pm);
	return ret;
}

static int run_dump(int argc, char **argv)
{
	const struct dump_what *what = &whats[0];
	const char *arg[3] = { NULL, NULL, NULL };
	uint64_t ino = 0;
	bool json = false;
	int nr = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (nr < 3 && argv[i][0] != '-')
			arg[nr++] = argv[i];
		else
			return ctl_usage(&ctl_dump, "cannot understand this");
	}
	if (nr == 0)
		return ctl_usage(&ctl_dump, "which device?");
	if (nr > 1)
		what = find_what(arg[1]);
	if (!what)
		return ctl_usage(&ctl_dump, "no such thing to show");
	if (what->wants_ino != (nr == 3) ||
	    (nr == 3 && !number_parse(arg[2], &ino)))
		return ctl_usage(&ctl_dump, what->wants_ino
						    ? "which inode?"
						    : "too many arguments");
	return run_on(arg[0], what, ino, json);
}

const struct ctl_command ctl_dump = {
	.name = "dump",
	.arguments = "DEVICE [super|lanes|inode N|tree N|dir N] [--json]",
	.what = "what is on media, as it is; tree 0 is the inode table",
	.run = run_dump,
};
