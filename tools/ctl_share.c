/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl_share.c - foliofsctl reflink, dedupe and unshare
 *
 * The calls go past the kernel's cache of the files, so what it has not
 * written yet is written before, and what it has read is forgotten after.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dax/lib/foliofs_ioctl.h"
#include "dax/media.h"
#include "fs/ioctl.h"
#include "tools/ctl.h"
#include "tools/text.h"

/* One dedupe compares so much, with both files locked. */
#define DEDUPE_PIECE (UINT64_C(16) << 20)
/* One unshare copies so much. */
#define UNSHARE_PIECE (UINT64_C(64) << 20)

struct range {
	uint64_t offset, dest, length; /* length 0: up to the end */
	bool part;		       /* said on the command line */
};

struct file {
	const char *path;
	int fd;
	struct stat st;
	bool created;
};

/* The command line. */

static uint64_t *option(struct range *r, const char *name, bool dest)
{
	if (strcmp(name, "--offset") == 0)
		return &r->offset;
	if (strcmp(name, "--length") == 0)
		return &r->length;
	return dest && strcmp(name, "--dest") == 0 ? &r->dest : NULL;
}

/*
 * Take the options out of @argv.  Return: how many names are left behind
 * argv[0], or -1 after a complaint.
 */
static int parse(const struct ctl_command *cmd, int argc, char **argv,
		 bool dest, struct range *r)
{
	bool names = false;
	uint64_t *size;
	int nr = 0;

	*r = (struct range){ .length = 0 };
	for (int i = 1; i < argc; i++) {
		if (names || argv[i][0] != '-') {
			argv[++nr] = argv[i];
		} else if (strcmp(argv[i], "--") == 0) {
			names = true;
		} else {
			size = option(r, argv[i], dest);
			if (!size || i + 1 == argc ||
			    !size_parse(argv[++i], size)) {
				ctl_usage(cmd, size ? "an offset or length has "
						      "digits, and K, M, G or T"
						    : "no such option");
				return -1;
			}
			r->part = true;
		}
	}
	return nr;
}

/* What went wrong. */

static const char *error_text(int err)
{
	switch (err) {
	case ENOTTY:
	case ENOSYS:
		return "not on a mounted foliofs";
	case EOPNOTSUPP:
		return "this mount shares nothing: it is read-only, or has "
		       "nowhere for its socket";
	case EPERM:
		return "immutable or append-only";
	case EROFS:
		return "on a read-only filesystem";
	case ENOSPC:
		return "no space for the nodes or the edges";
	case ENOTCONN:
		return "its daemon is gone";
	default:
		return strerror(err);
	}
}

/* EINVAL has many reasons; the first that fits, in the daemon's order. */
static const char *invalid_text(const struct file *src, const struct file *dst,
				const struct range *r)
{
	uint64_t size = (uint64_t)src->st.st_size, len = r->length;

	if ((r->offset | r->dest) & BLOCK_MASK)
		return "an offset is not aligned to 4096 bytes";
	if (r->offset > size || len > size - r->offset)
		return "the range goes past the end of the source";
	if (len == 0)
		len = size - r->offset;
	if (src->st.st_ino == dst->st.st_ino && r->offset < r->dest + len &&
	    r->dest < r->offset + len)
		return "the ranges overlap";
	if (len & BLOCK_MASK)
		return "the length is not aligned to 4096 bytes, and that is "
		       "not where both files end";
	if (r->dest + len > (uint64_t)dst->st.st_size)
		return "the range goes past the end of the destination";
	return strerror(EINVAL);
}

static int pair_fail(const struct file *src, const struct file *dst,
		     const struct range *r, int err)
{
	return ctl_fail(dst->path, err == EINVAL ? invalid_text(src, dst, r)
						 : error_text(err));
}

/* Files. */

static int file_open(struct file *f, const char *path, int flags, mode_t mode)
{
	*f = (struct file){ .path = path, .fd = -1 };
	flags |= O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	f->fd = open(path, flags & ~O_CREAT);
	if (f->fd < 0 && errno == ENOENT && (flags & O_CREAT)) {
		f->fd = open(path, flags | O_EXCL, mode);
		f->created = f->fd >= 0;
	}
	if (f->fd < 0 || fstat(f->fd, &f->st) != 0)
		return ctl_fail(path, errno == EPERM ? error_text(EPERM)
						     : strerror(errno));
	if (S_ISDIR(f->st.st_mode))
		return ctl_fail(path, strerror(EISDIR));
	if (!S_ISREG(f->st.st_mode))
		return ctl_fail(path, "not a regular file");
	return CTL_OK;
}

/* @undo: a file that we made and could not fill does not stay. */
static void file_close(struct file *f, bool undo)
{
	if (f->fd >= 0)
		close(f->fd);
	if (f->created && undo)
		unlink(f->path);
}

/* What the kernel has not written is written: the daemon has all. */
static int file_flush(const struct file *f)
{
	return fsync(f->fd) == 0 || errno == EROFS ? 0 : -errno;
}

/* The contents have changed behind the kernel's back. */
static void file_changed(const struct file *f)
{
	struct statx stx;

	(void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
	(void)statx(f->fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC,
		    STATX_BASIC_STATS, &stx);
}

static bool same_file(const struct file *a, const struct file *b)
{
	return a->st.st_dev == b->st.st_dev && a->st.st_ino == b->st.st_ino;
}

static int pair_check(const struct file *src, const struct file *dst,
		      const struct range *r)
{
	struct foliofs_ioc_token tok;

	/* Is it a foliofs at all? */
	if (ioctl(src->fd, FOLIOFS_IOC_TOKEN, &tok) != 0)
		return ctl_fail(src->path,
				error_text(errno == EINVAL ? ENOTTY : errno));
	if (src->st.st_dev != dst->st.st_dev)
		return ctl_fail(dst->path, "on another filesystem");
	if (same_file(src, dst) && !r->part)
		return ctl_fail(dst->path, "the source and the destination are "
					   "the same file");
	if (file_flush(src) || file_flush(dst))
		return ctl_fail(dst->path, strerror(errno));
	return CTL_OK;
}

static uint64_t range_length(const struct file *src, const struct range *r)
{
	uint64_t size = (uint64_t)src->st.st_size;

	if (r->length)
		return r->length;
	return r->offset < size ? size - r->offset : 0;
}

/*
 * What the daemon would refuse must not have changed a size, or been done in
 * part.  Return: 0 or a positive errno.
 */
static int range_check(const struct file *src, const struct file *dst,
		       const struct range *r, uint64_t len, bool may_grow)
{
	uint64_t end_in = r->offset + len, end_out = r->dest + len;
	uint64_t size_in = (uint64_t)src->st.st_size;
	uint64_t size_out = (uint64_t)dst->st.st_size;

	if (end_out > INT64_MAX)
		return may_grow ? EFBIG : EINVAL;
	if ((r->offset | r->dest) & BLOCK_MASK || end_in > size_in)
		return EINVAL;
	if (len & BLOCK_MASK && (end_in != size_in || end_out < size_out))
		return EINVAL;
	if (!may_grow && end_out > size_out)
		return EINVAL;
	if (same_file(src, dst) && r->offset < end_out && r->dest < end_in)
		return EINVAL;
	return 0;
}

/* reflink */

static int clone_range(const struct file *src, const struct file *dst,
		       const struct range *r)
{
	struct foliofs_ioc_clonerange arg = { .src_offset = r->offset,
					      .src_length = r->length,
					      .dest_offset = r->dest };
	struct foliofs_ioc_token tok;

	if (ioctl(src->fd, FOLIOFS_IOC_TOKEN, &tok) != 0)
		return errno;
	memcpy(arg.token, tok.token, sizeof(arg.token));
	return ioctl(dst->fd, FOLIOFS_IOC_CLONERANGE, &arg) ? errno : 0;
}

static int clone_all(const struct file *src, const struct file *dst)
{
	struct foliofs_ioc_clone arg;
	struct foliofs_ioc_token tok;

	if (ioctl(src->fd, FOLIOFS_IOC_TOKEN, &tok) != 0)
		return errno;
	memcpy(arg.token, tok.token, sizeof(arg.token));
	return ioctl(dst->fd, FOLIOFS_IOC_CLONE, &arg) ? errno : 0;
}

static int set_size(const struct file *f, uint64_t size)
{
	return ftruncate(f->fd, (off_t)size) ? errno : 0;
}

/*
 * The kernel has to know the size that the destination gets, or a write-back
 * cache keeps the old one.  A destination that grows gets its old size back
 * when the clone fails.
 */
static int clone_growing(const struct file *src, const struct file *dst,
			 uint64_t size, const struct range *r)
{
	uint64_t old = (uint64_t)dst->st.st_size;
	int err = old < size ? set_size(dst, size) : 0;

	if (err)
		return err;
	err = r->part ? clone_range(src, dst, r) : clone_all(src, dst);
	if (err && old < size)
		(void)set_size(dst, old);
	return err;
}

static int reflink_part(const struct file *src, const struct file *dst,
			const struct range *r)
{
	uint64_t len = range_length(src, r), end = r->dest + len;
	int err = range_check(src, dst, r, len, true);

	if (err)
		return err;
	return clone_growing(src, dst, end, r);
}

/*
 * Whole files.  A clone leaves what is behind its end, so a longer destination
 * is cut; but not before its whole blocks were cloned, which shows that it
 * can be done.
 */
static int reflink_all(const struct file *src, const struct file *dst,
		       const struct range *r)
{
	uint64_t size = (uint64_t)src->st.st_size;
	struct range blocks = { .length = size & ~BLOCK_MASK, .part = true };
	int err = 0;

	if ((uint64_t)dst->st.st_size > size) {
		if (blocks.length)
			err = clone_range(src, dst, &blocks);
		if (!err)
			err = set_size(dst, size);
	}
	return err ? err : clone_growing(src, dst, size, r);
}

static int reflink_files(const struct file *src, const struct file *dst,
			 const struct range *r)
{
	int err;

	if (pair_check(src, dst, r) != CTL_OK)
		return CTL_FAILED;
	err = r->part ? reflink_part(src, dst, r) : reflink_all(src, dst, r);
	if (err)
		return pair_fail(src, dst, r, err);
	file_changed(dst);
	return CTL_OK;
}

static int run_reflink(int argc, char **argv)
{
	struct file src, dst = { .fd = -1 };
	struct range r;
	int nr, ret;

	nr = parse(&ctl_reflink, argc, argv, true, &r);
	if (nr < 0)
		return CTL_USAGE;
	if (nr != 2)
		return ctl_usage(&ctl_reflink, "a source and a destination");
	ret = file_open(&src, argv[1], O_RDONLY, 0);
	if (ret == CTL_OK)
		ret = file_open(&dst, argv[2], O_WRONLY | O_CREAT,
				src.st.st_mode & 0777);
	if (ret == CTL_OK)
		ret = reflink_files(&src, &dst, &r);
	file_close(&dst, ret != CTL_OK);
	file_close(&src, false);
	return ret;
}

const struct ctl_command ctl_reflink = {
	.name = "reflink",
	.arguments = "SOURCE DESTINATION [--offset N] [--dest N] [--length N]",
	.what = "let a file, or a part of it, share the blocks of another",
	.help = "Without options the destination becomes a copy of the source: "
		"it is made, or\nwhat it held is replaced.  With options only "
		"a range changes: --length bytes\n(default: all) from --offset "
		"of the source on (default: 0) appear at --dest of\nthe "
		"destination (default: 0).  Numbers are multiples of 4096, but "
		"a range may\nend where the files do, and may have a suffix "
		"K, M, G or T.  Nothing is copied\ninstead: what cannot be "
		"shared fails.\n",
	.run = run_reflink,
};

/* dedupe */

struct deduped {
	uint64_t same, differ; /* bytes */
};

static int dedupe_piece(const struct file *src, const struct file *dst,
			const struct range *r, struct deduped *d)
{
	struct foliofs_ioc_deduperange arg = { .src_offset = r->offset,
					       .src_length = r->length,
					       .dest_offset = r->dest };
	struct foliofs_ioc_token tok;

	if (ioctl(src->fd, FOLIOFS_IOC_TOKEN, &tok) != 0)
		return errno;
	memcpy(arg.token, tok.token, sizeof(arg.token));
	if (ioctl(dst->fd, FOLIOFS_IOC_DEDUPERANGE, &arg) != 0)
		return errno;
	if (arg.status < 0)
		return -arg.status;
	d->same += arg.bytes_deduped;
	d->differ += arg.status ? r->length : 0;
	return 0;
}

static int dedupe_files(const struct file *src, const struct file *dst,
			const struct range *r, struct deduped *d)
{
	uint64_t done = 0, len = range_length(src, r);
	int err = range_check(src, dst, r, len, false);

	for (; !err && done < len; done += DEDUPE_PIECE) {
		struct range piece = { .offset = r->offset + done,
				       .dest = r->dest + done,
				       .length = len - done };

		if (piece.length > DEDUPE_PIECE)
			piece.length = DEDUPE_PIECE;
		err = dedupe_piece(src, dst, &piece, d);
	}
	return err;
}

static int dedupe_with(const struct file *src, const char *path,
		       const struct range *r)
{
	struct deduped d = { 0 };
	struct file dst;
	int ret, err;

	ret = file_open(&dst, path, O_WRONLY, 0);
	if (ret == CTL_OK)
		ret = pair_check(src, &dst, r);
	if (ret != CTL_OK)
		goto out;
	if (!r->part && dst.st.st_size != src->st.st_size) {
		printf("%s: 0 bytes shared, the sizes differ\n", path);
		ret = CTL_FAILED;
		goto out;
	}
	err = dedupe_files(src, &dst, r, &d);
	if (err)
		ret = pair_fail(src, &dst, r, err);
	else if (d.differ)
		ret = CTL_FAILED;
	printf("%s: %" PRIu64 " bytes shared", path, d.same);
	if (d.differ)
		printf(", the contents of %" PRIu64 " bytes differ", d.differ);
	puts("");
	file_changed(&dst);
out:
	file_close(&dst, false);
	return ret;
}

static int run_dedupe(int argc, char **argv)
{
	struct file src;
	struct range r;
	int nr, ret;

	nr = parse(&ctl_dedupe, argc, argv, true, &r);
	if (nr < 0)
		return CTL_USAGE;
	if (nr < 2)
		return ctl_usage(&ctl_dedupe, "two files, or more");
	ret = file_open(&src, argv[1], O_RDONLY, 0);
	for (int i = 2; src.fd >= 0 && i <= nr; i++)
		if (ret == CTL_OK || i > 2)
			if (dedupe_with(&src, argv[i], &r) != CTL_OK)
				ret = CTL_FAILED;
	file_close(&src, false);
	return ret;
}

const struct ctl_command ctl_dedupe = {
	.name = "dedupe",
	.arguments = "FILE FILE... [--offset N] [--dest N] [--length N]",
	.what = "let files of the same contents share their blocks",
	.help = "Each file is compared with the first one, in pieces of 16 "
		"MiB; "
		"what is the same\nis shared, what differs stays as it is and "
		"makes the exit code 1.  With options\na range is compared: "
		"--length bytes at --offset of the first file, and at --dest\n"
		"of the others.  It says how many bytes are shared now.\n",
	.run = run_dedupe,
};

/* unshare */

static uint64_t overlap(uint64_t a, uint64_t a_len, const struct range *r)
{
	uint64_t end = a + a_len, r_end = r->offset + r->length;

	if (a < r->offset)
		a = r->offset;
	if (end > r_end)
		end = r_end;
	return a < end ? end - a : 0;
}

static int count_shared(const struct file *f, const struct range *r,
			uint64_t *ret_len)
{
	struct foliofs_ioc_extent *ext;
	size_t nr;
	int ret;

	ret = ctl_extents(f->fd, &ext, &nr);
	if (ret)
		return -ret;
	*ret_len = 0;
	for (size_t i = 0; i < nr; i++)
		if (ext[i].flags & FOLIOFS_EXTENT_SHARED)
			*ret_len += overlap(ext[i].pos, ext[i].len, r);
	free(ext);
	return 0;
}

static int unshare_pieces(const struct file *f, const struct range *r)
{
	uint64_t done = 0;

	for (; done < r->length; done += UNSHARE_PIECE) {
		struct foliofs_ioc_range arg = { .pos = r->offset + done,
						 .len = r->length - done };

		if (arg.len > UNSHARE_PIECE)
			arg.len = UNSHARE_PIECE;
		if (ioctl(f->fd, FOLIOFS_IOC_UNSHARE, &arg) != 0)
			return errno;
	}
	return 0;
}

static int unshare_file(const struct file *f, struct range *r)
{
	uint64_t size = (uint64_t)f->st.st_size, before = 0, after = 0;
	int err;

	if (r->offset > size || r->length > size - r->offset)
		return ctl_fail(f->path,
				"the range goes past the end of the file");
	if (r->length == 0)
		r->length = size - r->offset;
	if (file_flush(f))
		return ctl_fail(f->path, strerror(errno));
	err = count_shared(f, r, &before);
	if (!err)
		err = unshare_pieces(f, r);
	if (!err)
		err = count_shared(f, r, &after);
	if (err)
		return ctl_fail(f->path,
				error_text(err == EINVAL ? ENOTTY : err));
	printf("%s: %" PRIu64 " bytes have blocks of their own now\n", f->path,
	       before > after ? before - after : 0);
	return CTL_OK;
}

static int run_unshare(int argc, char **argv)
{
	struct range r;
	struct file f;
	int nr, ret;

	nr = parse(&ctl_unshare, argc, argv, false, &r);
	if (nr < 0)
		return CTL_USAGE;
	if (nr != 1)
		return ctl_usage(&ctl_unshare, "one file, please");
	ret = file_open(&f, argv[1], O_RDWR, 0);
	if (ret == CTL_OK)
		ret = unshare_file(&f, &r);
	file_close(&f, false);
	return ret;
}

const struct ctl_command ctl_unshare = {
	.name = "unshare",
	.arguments = "FILE [--offset N] [--length N]",
	.what = "give a file blocks of its own where it shares them",
	.help = "So that no later write can fail for want of space.  It says "
		"how many bytes were\nshared.\n",
	.run = run_unshare,
};
