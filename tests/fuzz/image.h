/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/image.h - a populated image, damaged as some bytes say
 *
 * Any bytes are a case: they are read as a list of edits of the image, each
 * aimed at a structure (a slot, an inode, a name, a record of the journal).
 * So seeded random bytes, a fuzzer's inputs and kept files all run through
 * the same function.
 */
#ifndef TESTS_FUZZ_IMAGE_H
#define TESTS_FUZZ_IMAGE_H

#include <stddef.h>
#include <stdint.h>

struct image_counts {
	uint64_t nr_cases;
	uint64_t nr_refused;  /* no superblock left, or another version */
	uint64_t nr_sound;    /* fsck -n found nothing */
	uint64_t nr_repaired; /* fsck -y left nothing */
	uint64_t nr_left;     /* fsck -y said that it could not repair all */
	uint64_t nr_mounted;  /* mounted without a repair */
};
extern struct image_counts image_counts;

/* Make the images, in files below /dev/shm that go with the process. */
void image_setup(void);

/* Run one case; aborts, with a sentence, when something is not as it must. */
void image_case(const uint8_t *data, size_t len);

#endif
