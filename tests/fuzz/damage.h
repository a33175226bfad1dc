/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/damage.h - damage an image as some bytes say
 */
#ifndef TESTS_FUZZ_DAMAGE_H
#define TESTS_FUZZ_DAMAGE_H

#include <stddef.h>
#include <stdint.h>

/* Where the things are that are worth damaging: media offsets. */
struct places {
	uint64_t *off;
	size_t nr, cap;
};

struct map {
	uint64_t nr_blocks;
	struct places slots;	/* that are not holes, roots included */
	struct places inodes;	/* in use */
	struct places dentries; /* in use and free */
	struct places xattrs;	/* blocks of attributes */
};

/* Find them in a good image. */
void map_image(struct map *m, const unsigned char *image);

/* Read @data as edits of @image and make them. */
void damage(const struct map *m, unsigned char *image, const uint8_t *data,
	    size_t len);

#endif
