/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/share.c - files that share blocks, here and elsewhere
 */
#include "tests/support/share.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "dax/lib/foliofs_ioctl.h"
#include "fs/ioctl.h"
#include "tests/support/fops.h"
#include "tests/support/mtest.h"

#define PAGE 4096u

int token_of(int fd, uint8_t token[16])
{
	struct foliofs_ioc_token t;

	if (ioctl(fd, FOLIOFS_IOC_TOKEN, &t))
		return -1;
	memcpy(token, t.token, sizeof(t.token));
	return 0;
}

int clone_file(int in, int out)
{
	struct foliofs_ioc_clone c = { 0 };

	if (!on(MNT_FOLIOFS))
		return ioctl(out, FICLONE, in);
	if (token_of(in, c.token))
		return -1;
	return ioctl(out, FOLIOFS_IOC_CLONE, &c);
}

int clone_range(int in, off_t pos_in, int out, off_t pos_out, uint64_t len)
{
	struct foliofs_ioc_clonerange ours = { .src_offset = (uint64_t)pos_in,
					       .src_length = len,
					       .dest_offset =
						       (uint64_t)pos_out };
	struct file_clone_range theirs = { .src_fd = in,
					   .src_offset = (uint64_t)pos_in,
					   .src_length = len,
					   .dest_offset = (uint64_t)pos_out };

	if (!on(MNT_FOLIOFS))
		return ioctl(out, FICLONERANGE, &theirs);
	if (token_of(in, ours.token))
		return -1;
	return ioctl(out, FOLIOFS_IOC_CLONERANGE, &ours);
}

static int dedupe_status(int32_t status, uint64_t len, uint64_t *ret_len)
{
	if (status < 0) {
		errno = -status;
		return -1;
	}
	*ret_len = len;
	return status;
}

static int dedupe_theirs(int in, off_t pos_in, int out, off_t pos_out,
			 uint64_t len, uint64_t *ret_len)
{
	union {
		struct file_dedupe_range range;
		unsigned char room[sizeof(struct file_dedupe_range) +
				   sizeof(struct file_dedupe_range_info)];
	} u;
	struct file_dedupe_range_info *info = u.range.info;

	memset(&u, 0, sizeof(u));
	u.range.src_offset = (uint64_t)pos_in;
	u.range.src_length = len;
	u.range.dest_count = 1;
	info->dest_fd = out;
	info->dest_offset = (uint64_t)pos_out;
	if (ioctl(in, FIDEDUPERANGE, &u))
		return -1;
	return dedupe_status(info->status, info->bytes_deduped, ret_len);
}

int dedupe_range(int in, off_t pos_in, int out, off_t pos_out, uint64_t len,
		 uint64_t *ret_len)
{
	struct foliofs_ioc_deduperange d = { .src_offset = (uint64_t)pos_in,
					     .src_length = len,
					     .dest_offset = (uint64_t)pos_out };

	if (!on(MNT_FOLIOFS))
		return dedupe_theirs(in, pos_in, out, pos_out, len, ret_len);
	if (token_of(in, d.token) || ioctl(out, FOLIOFS_IOC_DEDUPERANGE, &d))
		return -1;
	return dedupe_status(d.status, d.bytes_deduped, ret_len);
}

int unshare_range(int fd, off_t pos, off_t len)
{
	struct foliofs_ioc_range r = { (uint64_t)pos, (uint64_t)len };

	if (!on(MNT_FOLIOFS))
		return fallocate(fd,
				 FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE,
				 pos, len);
	return ioctl(fd, FOLIOFS_IOC_UNSHARE, &r);
}

/* One extent, in the words of both. */
typedef void (*extent_fn)(void *ctx, uint64_t pos, uint64_t len, uint64_t off,
			  unsigned char what);

static void each_of_ours(int fd, extent_fn fn, void *ctx)
{
	struct foliofs_ioc_map map = { .pos = 0 };

	do {
		OK(ioctl(fd, FOLIOFS_IOC_MAP, &map));
		for (uint32_t i = 0; i < map.nr; i++) {
			const struct foliofs_ioc_extent *e = &map.extent[i];
			unsigned char what = PAGE_THERE;

			if (e->flags & FOLIOFS_EXTENT_SHARED)
				what |= PAGE_SHARED;
			if (e->flags & FOLIOFS_EXTENT_UNWRITTEN)
				what |= PAGE_UNWRITTEN;
			fn(ctx, e->pos, e->len, e->off, what);
		}
	} while (map.nr == FOLIOFS_MAP_EXTENTS);
}

#define FIEMAP_EXTENTS 256u

static void each_of_theirs(int fd, extent_fn fn, void *ctx)
{
	size_t size = sizeof(struct fiemap) +
		      FIEMAP_EXTENTS * sizeof(struct fiemap_extent);
	struct fiemap *fm = (struct fiemap *)calloc(1, size);
	uint64_t pos = 0;

	do {
		memset(fm, 0, sizeof(*fm));
		fm->fm_start = pos;
		fm->fm_length = FIEMAP_MAX_OFFSET - pos;
		fm->fm_flags = FIEMAP_FLAG_SYNC;
		fm->fm_extent_count = FIEMAP_EXTENTS;
		OK(ioctl(fd, FS_IOC_FIEMAP, fm));
		for (uint32_t i = 0; i < fm->fm_mapped_extents; i++) {
			const struct fiemap_extent *e = &fm->fm_extents[i];
			unsigned char what = PAGE_THERE;

			if (e->fe_flags & FIEMAP_EXTENT_SHARED)
				what |= PAGE_SHARED;
			if (e->fe_flags & FIEMAP_EXTENT_UNWRITTEN)
				what |= PAGE_UNWRITTEN;
			fn(ctx, e->fe_logical, e->fe_length, e->fe_physical,
			   what);
			pos = e->fe_logical + e->fe_length;
		}
	} while (fm->fm_mapped_extents == FIEMAP_EXTENTS);
	free(fm);
}

static void each_extent(int fd, extent_fn fn, void *ctx)
{
	/* What is in the kernel's cache alone has no place yet. */
	OK(fsync(fd));
	if (on(MNT_FOLIOFS))
		each_of_ours(fd, fn, ctx);
	else
		each_of_theirs(fd, fn, ctx);
}

struct pages {
	unsigned char *map;
	size_t nr;
};

static void put_pages(void *ctx, uint64_t pos, uint64_t len, uint64_t off,
		      unsigned char what)
{
	const struct pages *p = ctx;

	(void)off;
	for (uint64_t i = pos / PAGE; i < (pos + len) / PAGE && i < p->nr; i++)
		p->map[i] = what;
}

void page_map(int fd, unsigned char *map, size_t nr)
{
	struct pages p = { map, nr };

	memset(map, 0, nr);
	each_extent(fd, put_pages, &p);
}

static void add_shared(void *ctx, uint64_t pos, uint64_t len, uint64_t off,
		       unsigned char what)
{
	uint64_t *sum = ctx;

	(void)pos;
	(void)off;
	if (what & PAGE_SHARED)
		*sum += len;
}

uint64_t shared_bytes(int fd)
{
	uint64_t sum = 0;

	each_extent(fd, add_shared, &sum);
	return sum;
}

struct place {
	uint64_t pos, off;
};

static void find_place(void *ctx, uint64_t pos, uint64_t len, uint64_t off,
		       unsigned char what)
{
	struct place *p = ctx;

	(void)what;
	if (pos <= p->pos && p->pos - pos < len)
		p->off = off + (p->pos - pos);
}

uint64_t media_offset(int fd, uint64_t index)
{
	struct place p = { index * PAGE, 0 };

	each_extent(fd, find_place, &p);
	return p.off;
}

static void find_media(void *ctx, uint64_t pos, uint64_t len, uint64_t off,
		       unsigned char what)
{
	struct place *p = ctx;

	(void)pos;
	(void)what;
	if (off <= p->off && p->off - off < len)
		p->pos = 1;
}

bool has_media(int fd, uint64_t off)
{
	struct place p = { 0, off };

	each_extent(fd, find_media, &p);
	return p.pos;
}

static struct foliofs_ioc_status status(void)
{
	struct foliofs_ioc_status st;
	int fd = open_ok(".", O_RDONLY | O_DIRECTORY);

	OK(ioctl(fd, FOLIOFS_IOC_STATUS, &st));
	close_ok(fd);
	return st;
}

uint64_t nr_shared_blocks(void)
{
	return status().nr_shared;
}

uint64_t nr_waiting(void)
{
	return status().nr_waiting;
}
