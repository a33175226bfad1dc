/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/share.h - files that share blocks, here and elsewhere
 *
 * The same calls on foliofs, through its own ioctls, and on the filesystems of
 * the kernel, through theirs, so that a test can ask both the same question.
 *
 * Errors.    -1 and errno, as system calls.
 */
#ifndef TESTS_SUPPORT_SHARE_H
#define TESTS_SUPPORT_SHARE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The mount that is asked, as in mtest.h. */
struct mnt;
extern struct mnt *mnt;

/* FICLONE. */
int clone_file(int in, int out);
/* FICLONERANGE; 0 for @len goes to the end. */
int clone_range(int in, off_t pos_in, int out, off_t pos_out, uint64_t len);

/*
 * FIDEDUPERANGE with one destination: the status (0, or 1 when the contents
 * differ), and -1 with errno when it is an error.  *ret_len: what is shared.
 */
int dedupe_range(int in, off_t pos_in, int out, off_t pos_out, uint64_t len,
		 uint64_t *ret_len);

/* fallocate(FALLOC_FL_UNSHARE_RANGE). */
int unshare_range(int fd, off_t pos, off_t len);

/* What is on media of a page. */
#define PAGE_THERE     1u
#define PAGE_SHARED    2u
#define PAGE_UNWRITTEN 4u

/* Of the pages [0, nr) of a file; ends the test when it cannot say. */
void page_map(int fd, unsigned char *map, size_t nr);

/* Bytes of a file that lie in shared blocks. */
uint64_t shared_bytes(int fd);

/* Foliofs only: slots of media that something else points to as well. */
uint64_t nr_shared_blocks(void);

/* Foliofs only: requests that wait for a page. */
uint64_t nr_waiting(void);

/* Foliofs only: where page @index is on media; 0: nowhere. */
uint64_t media_offset(int fd, uint64_t index);

/* Foliofs only: is this byte of the device one of the file's? */
bool has_media(int fd, uint64_t off);

/* Foliofs only: leave to use @fd as a source, once. */
int token_of(int fd, uint8_t token[16]);

#endif
