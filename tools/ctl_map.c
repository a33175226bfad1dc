/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl_map.c - foliofsctl map: where a file is on media
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dax/media.h"
#include "fs/ioctl.h"
#include "tools/ctl.h"
#include "tools/text.h"

struct extents {
	struct foliofs_ioc_extent *ext;
	size_t nr, room;
};

static bool goes_on(const struct foliofs_ioc_extent *a,
		    const struct foliofs_ioc_extent *b)
{
	return a->pos + a->len == b->pos && a->off + a->len == b->off &&
	       a->flags == b->flags;
}

static int add(struct extents *e, const struct foliofs_ioc_extent *ext)
{
	struct foliofs_ioc_extent *bigger;

	if (e->nr > 0 && goes_on(&e->ext[e->nr - 1], ext)) {
		e->ext[e->nr - 1].len += ext->len;
		return 0;
	}
	if (e->nr == e->room) {
		e->room = e->room ? 2 * e->room : 64;
		bigger = (struct foliofs_ioc_extent *)realloc(
			e->ext, e->room * sizeof(*bigger));
		if (!bigger)
			return -ENOMEM;
		e->ext = bigger;
	}
	e->ext[e->nr++] = *ext;
	return 0;
}

int ctl_extents(int fd, struct foliofs_ioc_extent **ret_ext, size_t *ret_nr)
{
	struct foliofs_ioc_map map = { .nr = FOLIOFS_MAP_EXTENTS };
	struct extents e = { .nr = 0 };
	int ret = 0;

	while (!ret && map.nr == FOLIOFS_MAP_EXTENTS) {
		ret = ioctl(fd, FOLIOFS_IOC_MAP, &map) ? -errno : 0;
		for (uint32_t i = 0;
		     !ret && i < map.nr && i < FOLIOFS_MAP_EXTENTS; i++)
			ret = add(&e, &map.extent[i]);
	}
	if (ret) {
		free(e.ext);
		return ret;
	}
	*ret_ext = e.ext;
	*ret_nr = e.nr;
	return 0;
}

static bool reaches_end(const struct foliofs_ioc_extent *e, uint64_t size)
{
	return e->pos < size && e->pos + e->len >= size;
}

static int order(const struct foliofs_ioc_extent *e)
{
	return e->flags & FOLIOFS_EXTENT_CHUNK ? 9 : 0;
}

static void print_flags(const struct foliofs_ioc_extent *e, uint64_t size)
{
	const char *comma = " ";

	if (e->flags & FOLIOFS_EXTENT_SHARED) {
		printf("%sshared", comma);
		comma = ",";
	}
	if (e->flags & FOLIOFS_EXTENT_UNWRITTEN) {
		printf("%sunwritten", comma);
		comma = ",";
	}
	if (e->flags & FOLIOFS_EXTENT_BEHIND)
		printf("%sbehind", comma);
	else if (reaches_end(e, size))
		printf("%seof", comma);
	putchar('\n');
}

static uint64_t blocks(uint64_t len)
{
	return (len + BLOCK_MASK) >> BLOCK_SHIFT;
}

static void print_text(const char *path, uint64_t size,
		       const struct foliofs_ioc_extent *ext, size_t nr)
{
	printf("%s: %" PRIu64 " bytes (%" PRIu64 " blocks of %" PRIu64
	       " bytes)\n",
	       path, size, blocks(size), BLOCK_SIZE);
	if (nr)
		printf("%5s  %22s  %22s  %9s  %5s  %s\n", "ext", "file offset",
		       "media offset", "length", "order", "flags");
	for (size_t i = 0; i < nr; i++) {
		const struct foliofs_ioc_extent *e = &ext[i];

		printf("%5zu: %10" PRIu64 "..%10" PRIu64 ": %10" PRIu64
		       "..%10" PRIu64 ": %9" PRIu64 ": %5d:",
		       i, e->pos >> BLOCK_SHIFT, blocks(e->pos + e->len) - 1,
		       e->off >> BLOCK_SHIFT, blocks(e->off + e->len) - 1,
		       blocks(e->len), order(e));
		print_flags(e, size);
	}
	printf("%s: %zu extent%s\n", path, nr, nr == 1 ? "" : "s");
}

static void print_json(const char *path, uint64_t size,
		       const struct foliofs_ioc_extent *ext, size_t nr)
{
	struct out o;

	out_begin(&o, stdout, true);
	out_text(&o, "file", path);
	out_u64(&o, "size", size);
	out_u64(&o, "block_size", BLOCK_SIZE);
	out_open(&o, "extents", '[');
	for (size_t i = 0; i < nr; i++) {
		const struct foliofs_ioc_extent *e = &ext[i];

		out_open(&o, NULL, '{');
		out_u64(&o, "offset", e->pos);
		out_u64(&o, "media_offset", e->off);
		out_u64(&o, "length", e->len);
		out_u64(&o, "order", (uint64_t)order(e));
		out_bool(&o, "shared", e->flags & FOLIOFS_EXTENT_SHARED);
		out_bool(&o, "unwritten", e->flags & FOLIOFS_EXTENT_UNWRITTEN);
		out_bool(&o, "behind", e->flags & FOLIOFS_EXTENT_BEHIND);
		out_bool(&o, "eof", reaches_end(e, size));
		out_close(&o, '}');
	}
	out_close(&o, ']');
	out_end(&o);
}

static const char *map_error(int err)
{
	return err == ENOTTY || err == EINVAL || err == ENOSYS
		       ? "not on a mounted foliofs"
		       : strerror(err);
}

static int map_file(const char *path, bool json, bool svg)
{
	int ret, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct foliofs_ioc_extent *ext;
	struct stat st;
	size_t nr;

	if (fd < 0)
		return ctl_fail(path, strerror(errno));
	/* What the kernel holds back has no place on media yet. */
	(void)fsync(fd);
	ret = fstat(fd, &st) ? -errno : 0;
	if (!ret && !S_ISREG(st.st_mode)) {
		close(fd);
		return ctl_fail(path, "not a regular file");
	}
	if (!ret)
		ret = ctl_extents(fd, &ext, &nr);
	close(fd);
	if (ret)
		return ctl_fail(path, map_error(-ret));
	if (svg)
		ctl_svg(path, (uint64_t)st.st_size, ext, nr);
	else if (json)
		print_json(path, (uint64_t)st.st_size, ext, nr);
	else
		print_text(path, (uint64_t)st.st_size, ext, nr);
	free(ext);
	return CTL_OK;
}

static int run_map(int argc, char **argv)
{
	bool json = false, svg = false;
	const char *path = NULL;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (strcmp(argv[i], "--svg") == 0)
			svg = true;
		else if (argv[i][0] == '-' || path)
			return ctl_usage(&ctl_map, "one file, please");
		else
			path = argv[i];
	}
	if (!path)
		return ctl_usage(&ctl_map, "which file?");
	if (json && svg)
		return ctl_usage(&ctl_map, "--json or --svg, not both");
	return map_file(path, json, svg);
}

const struct ctl_command ctl_map = {
	.name = "map",
	.arguments = "FILE [--json | --svg]",
	.what = "where a file is on media",
	.help = "A line for each extent, in blocks of 4096 bytes, as filefrag "
		"-v does; --json\ncounts bytes.  --svg prints a picture: the "
		"file from left to right, the media\nfrom bottom to top.\n",
	.run = run_map,
};
