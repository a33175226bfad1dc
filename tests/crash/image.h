/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/image.h - a crash image, recovered and looked at
 *
 * One file is reused for all images of a model: it mirrors what is durable,
 * the lines that an image has beyond that are patched in, and afterwards
 * these and all that recovery stored are taken back.
 */
#ifndef CRASH_IMAGE_H
#define CRASH_IMAGE_H

#include <stdbool.h>

#include "fs/foliofs.h"
#include "tests/crash/model.h"
#include "tests/crash/state.h"

struct image {
	char path[64];
	unsigned char *map;
	uint64_t size;
	enum foliofs_data data;
	unsigned int state_flags;
	const struct model *model;
	uint64_t *touched; /* lines that are not as the model has them */
	size_t nr_touched, cap_touched;
};

int image_create(struct image *img, const char *tag, uint64_t size,
		 enum foliofs_data data, unsigned int state_flags);
void image_destroy(struct image *img);

/* Put the model's dirty lines there with so many stores of each. */
void image_patch(struct image *img, const unsigned int *take);

/*
 * Mount it, check it and take its state; @err says what is wrong.  With @fsck
 * the checker of fs/check.h has a look before and after as well; @settled:
 * there must be nothing to replay.
 */
int image_recover(struct image *img, bool fsck, bool settled, struct state *ret,
		  struct errmsg *err);

/* Back to what is durable. */
void image_restore(struct image *img);

/* A number for the image, without making it. */
uint64_t image_hash(const struct model *m, const unsigned int *take,
		    unsigned int nr);

#endif
