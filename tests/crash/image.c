/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/image.c - a crash image, recovered and looked at
 */
#include "tests/crash/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fs/check.h"
#include "fs/fs_format.h"
#include "tests/crash/reach.h"
#include "tests/crash/run.h"
#include "tests/crash/wrap.h"

int image_create(struct image *img, const char *tag, uint64_t size,
		 enum foliofs_data data, unsigned int state_flags)
{
	void *p;
	int fd, ret;

	memset(img, 0, sizeof(*img));
	img->size = size;
	img->data = data;
	img->state_flags = state_flags;
	ret = run_make_file(tag, size, img->path);
	if (ret)
		return ret;
	fd = open(img->path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return -errno;
	img->map = (unsigned char *)p;
	return 0;
}

void image_destroy(struct image *img)
{
	if (img->map)
		munmap(img->map, img->size);
	if (img->path[0])
		unlink(img->path);
	free(img->touched);
	memset(img, 0, sizeof(*img));
}

static void touch(struct image *img, uint64_t line)
{
	if (img->nr_touched == img->cap_touched) {
		img->cap_touched = img->cap_touched ? img->cap_touched * 2 : 64;
		img->touched = (uint64_t *)test_realloc(
			img->touched, img->cap_touched * sizeof(*img->touched));
	}
	img->touched[img->nr_touched++] = line;
}

static void on_event(void *ctx, enum pmem_event event, uint64_t off,
		     const void *data, size_t len)
{
	struct image *img = (struct image *)ctx;

	(void)data;
	if (event != PMEM_EVENT_STORE)
		return;
	for (uint64_t l = off / CACHE_LINE; l * CACHE_LINE < off + len; l++)
		touch(img, l);
}

void image_patch(struct image *img, const unsigned int *take)
{
	unsigned char line[CACHE_LINE];

	for (unsigned int i = 0; i < model_nr_dirty(img->model); i++) {
		uint64_t nr = model_line(img->model, i);

		if (take[i] == 0)
			continue;
		model_contents(img->model, i, take[i], line);
		memcpy(img->map + nr * CACHE_LINE, line, CACHE_LINE);
		touch(img, nr);
	}
}

void image_restore(struct image *img)
{
	const unsigned char *durable = model_durable(img->model);

	for (size_t i = 0; i < img->nr_touched; i++) {
		uint64_t at = img->touched[i] * CACHE_LINE;

		memcpy(img->map + at, durable + at, CACHE_LINE);
	}
	img->nr_touched = 0;
}

static void on_problem(void *ctx, const struct check_problem *p)
{
	struct errmsg *err = (struct errmsg *)ctx;

	if (p->severity == CHECK_ERROR && !err->text[0])
		err_set(err, 0, "%s", p->text);
}

/* The checker of fsck, which sees no more than what a crash may leave. */
static int image_check(struct image *img, const char *when, struct errmsg *err)
{
	struct errmsg first = { "" };
	struct check_options opt = { .device = img->path,
				     .report = on_problem,
				     .ctx = &first };
	struct check_result res;
	int ret = foliofs_check(&opt, &res, err);

	if (!ret && res.nr_errors)
		ret = err_set(err, -EUCLEAN, "fsck %s recovery: %s", when,
			      first.text);
	return ret;
}

static int image_settled(struct foliofs *fs, struct errmsg *err)
{
	struct foliofs_stat st;

	foliofs_stat(fs, &st, false);
	if (st.nr_replayed == 0)
		return 0;
	return err_set(err, -EUCLEAN, "was unmounted, yet records are left");
}

/*
 * What is numbered must have been counted first: the next mount begins above
 * nr_mounts, and no number may be used twice.  That two records with one
 * number meet in a lane, and that this does harm, takes too many crashes to
 * wait for it.
 */
static int image_numbers(const struct image *img, struct errmsg *err)
{
	const void *map = img->map;
	const struct foliofs_superblock *sb =
		(const struct foliofs_superblock *)map;
	const struct foliofs_lane *lane =
		(const struct foliofs_lane *)map +
		le64_to_cpu(sb->lane_off) / FOLIOFS_LANE_SIZE;
	uint64_t nr_mounts = le64_to_cpu(sb->nr_mounts);

	for (uint32_t i = 0; i < le32_to_cpu(sb->nr_lanes); i++)
		if (le64_to_cpu(lane[i].seq) >> 40 > nr_mounts)
			return err_set(err, -EUCLEAN,
				       "lane %u: a number that the next mount "
				       "will use again",
				       i);
	return 0;
}

int image_recover(struct image *img, bool fsck, bool settled, struct state *ret,
		  struct errmsg *err)
{
	struct pmem_recorder rec = { .event = on_event, .ctx = img };
	struct foliofs_options opt = run_mount_options(img->path, img->data);
	struct foliofs *fs;
	int rc;

	rc = image_numbers(img, err);
	if (!rc && fsck)
		rc = image_check(img, "before", err);
	if (rc)
		return rc;
	wrap_recorder = &rec;
	rc = foliofs_open(&opt, &fs, err);
	wrap_recorder = NULL;
	if (rc)
		return rc;
	rc = state_take(fs, img->state_flags, ret, err);
	if (!rc)
		rc = reach_check(fs, err);
	if (!rc && settled)
		rc = image_settled(fs, err);
	foliofs_abandon(fs);
	if (!rc && fsck)
		rc = image_check(img, "after", err);
	return rc;
}

uint64_t image_hash(const struct model *m, const unsigned int *take,
		    unsigned int nr)
{
	uint64_t hash = model_hash(m);
	unsigned char line[CACHE_LINE];

	for (unsigned int i = 0; i < nr; i++) {
		uint64_t at = model_line(m, i);

		if (take[i] == 0)
			continue;
		model_contents(m, i, take[i], line);
		hash ^= line_hash(at, model_durable(m) + at * CACHE_LINE) ^
			line_hash(at, line);
	}
	return hash;
}
