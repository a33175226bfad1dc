/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/foliofs_ioctl.h - what a file of a foliofs answers to ioctl(2)
 *
 * FUSE passes on only what an ioctl's number says: a direction and a size.
 * So the kernel's FICLONERANGE, which names its source by a descriptor, does
 * not arrive, and the calls here name it by a token instead.
 *
 * A token stands for one open file with the mode it was opened with.  It is
 * good for one use, in the process's own hands, and soon or never.
 *
 * Errors.    ENOTTY: this is no file of a foliofs.
 * Source.    ioctl_ficlonerange(2), ioctl_fideduperange(2), fuse(4).
 */
#ifndef FOLIOFS_IOCTL_H
#define FOLIOFS_IOCTL_H

#include <stdint.h>
#include <sys/ioctl.h>

#define FOLIOFS_TOKEN_WRITE UINT32_C(1) /* the file was opened for writing */
#define FOLIOFS_TOKEN_DAX   UINT32_C(2) /* read and write go to media, too */

struct foliofs_ioc_token {
	uint8_t token[16];
	char socket[108]; /* terminated; where the daemon listens */
	uint32_t flags;	  /* FOLIOFS_TOKEN_ */
	uint32_t reserved;
};

/* The whole of the source becomes the whole of this file. */
struct foliofs_ioc_clone {
	uint8_t token[16]; /* of the source */
};

/* As struct file_clone_range.  A length of 0 goes to the source's end. */
struct foliofs_ioc_clonerange {
	uint8_t token[16];
	uint64_t src_offset;
	uint64_t src_length;
	uint64_t dest_offset;
};

/*
 * As struct file_dedupe_range with one destination, which is this file.  The
 * status is 0, 1 when the contents differ, or a negative errno.
 */
struct foliofs_ioc_deduperange {
	uint8_t token[16];
	uint64_t src_offset;
	uint64_t src_length;
	uint64_t dest_offset;
	uint64_t bytes_deduped; /* out */
	int32_t status;		/* out */
	uint32_t reserved;
};

#define FOLIOFS_IOC_TOKEN	_IOR('f', 201, struct foliofs_ioc_token)
#define FOLIOFS_IOC_CLONE	_IOW('f', 202, struct foliofs_ioc_clone)
#define FOLIOFS_IOC_CLONERANGE	_IOW('f', 203, struct foliofs_ioc_clonerange)
#define FOLIOFS_IOC_DEDUPERANGE _IOWR('f', 204, struct foliofs_ioc_deduperange)

#endif
