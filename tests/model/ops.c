/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/model/ops.c - one random operation, on two filesystems alike
 */
#include "tests/model/ops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/share.h"

#define MAX_IO	  70000
#define MAX_VALUE 65536
#define PUNCH	  (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static unsigned char io_buf[MAX_IO];

static const char *const names[NR_OPS] = {
	[OP_OPEN] = "open",
	[OP_CLOSE] = "close",
	[OP_WRITE] = "pwrite",
	[OP_APPEND] = "write",
	[OP_READ] = "pread",
	[OP_TRUNCATE] = "truncate",
	[OP_FTRUNCATE] = "ftruncate",
	[OP_FALLOCATE] = "fallocate",
	[OP_COPY] = "copy_file_range",
	[OP_CLONE] = "clone",
	[OP_DEDUPE] = "dedupe",
	[OP_UNSHARE] = "unshare",
	[OP_MMAP] = "mmap+msync",
	[OP_FSYNC] = "fsync",
	[OP_FSTAT] = "fstat",
	[OP_MKDIR] = "mkdir",
	[OP_RMDIR] = "rmdir",
	[OP_UNLINK] = "unlink",
	[OP_LINK] = "link",
	[OP_SYMLINK] = "symlink",
	[OP_READLINK] = "readlink",
	[OP_RENAME] = "renameat2",
	[OP_MKNOD] = "mknod",
	[OP_CHMOD] = "chmod",
	[OP_CHOWN] = "chown",
	[OP_UTIMENS] = "utimensat",
	[OP_SETXATTR] = "setxattr",
	[OP_REMOVEXATTR] = "removexattr",
	[OP_GETXATTR] = "getxattr",
	[OP_SETACL] = "setacl",
	[OP_STAT] = "stat",
	[OP_READDIR] = "readdir",
	[OP_ACCESS] = "access",
};

/* How often, of a hundred or so. */
static const unsigned char weights[NR_OPS] = {
	[OP_OPEN] = 14,	    [OP_CLOSE] = 4,	  [OP_WRITE] = 12,
	[OP_APPEND] = 3,    [OP_READ] = 5,	  [OP_TRUNCATE] = 3,
	[OP_FTRUNCATE] = 4, [OP_FALLOCATE] = 6,	  [OP_COPY] = 5,
	[OP_CLONE] = 6,	    [OP_DEDUPE] = 3,	  [OP_UNSHARE] = 2,
	[OP_MMAP] = 3,	    [OP_FSYNC] = 1,	  [OP_FSTAT] = 2,
	[OP_MKDIR] = 6,	    [OP_RMDIR] = 4,	  [OP_UNLINK] = 7,
	[OP_LINK] = 4,	    [OP_SYMLINK] = 3,	  [OP_READLINK] = 1,
	[OP_RENAME] = 9,    [OP_MKNOD] = 2,	  [OP_CHMOD] = 4,
	[OP_CHOWN] = 3,	    [OP_UTIMENS] = 4,	  [OP_SETXATTR] = 5,
	[OP_GETXATTR] = 1,  [OP_REMOVEXATTR] = 2, [OP_SETACL] = 2,
	[OP_STAT] = 3,	    [OP_READDIR] = 1,	  [OP_ACCESS] = 1,
};

const char *op_name(enum op_kind kind)
{
	return names[kind];
}

static bool makes_a(enum op_kind kind)
{
	return kind == OP_OPEN || kind == OP_MKDIR || kind == OP_MKNOD;
}

static bool makes_b(enum op_kind kind)
{
	return kind == OP_LINK || kind == OP_RENAME || kind == OP_SYMLINK;
}

/* --- drawing ----------------------------------------------------------------
 */

static unsigned int below(uint64_t *rng, unsigned int n)
{
	return (unsigned int)(rnd(rng) % n);
}

static bool one_in(uint64_t *rng, unsigned int n)
{
	return !below(rng, n);
}

static enum op_kind random_kind(uint64_t *rng)
{
	unsigned int sum = 0, pick;
	int kind;

	for (kind = 0; kind < NR_OPS; kind++)
		sum += weights[kind];
	pick = below(rng, sum);
	for (kind = 0; pick >= weights[kind]; kind++)
		pick -= weights[kind];
	return (enum op_kind)kind;
}

static void random_name(char *out, uint64_t *rng)
{
	size_t len = one_in(rng, 3) ? 255 : 256;

	if (one_in(rng, 60)) {
		memset(out, 'n', len);
		out[len] = '\0';
	} else if (one_in(rng, 60)) {
		strcpy(out, one_in(rng, 2) ? "." : "..");
	} else if (one_in(rng, 10)) {
		sprintf(out, "name-%u", below(rng, 30));
	} else {
		sprintf(out, "%c", 'a' + (char)below(rng, 7));
	}
}

/* Never above the root: .. comes only after a name. */
static void fresh_path(char *out, uint64_t *rng)
{
	unsigned int depth = one_in(rng, 2) ? 1 : 1 + below(rng, 3);
	char name[300];

	*out = '\0';
	for (unsigned int i = 0; i < depth; i++) {
		do
			random_name(name, rng);
		while (!i && name[0] == '.');
		if (strlen(out) + strlen(name) + 2 > PATH_LEN / 2)
			break;
		if (i)
			strcat(out, "/");
		strcat(out, name);
	}
	if (one_in(rng, 100))
		strcat(out, "/");
}

/* One that is known, and a directory where that is wanted. */
static const struct known *random_known(uint64_t *rng,
					const struct paths *paths, bool dir)
{
	unsigned int at;

	if (!paths->nr)
		return NULL;
	at = below(rng, paths->nr);
	for (unsigned int i = 0; dir && i < paths->nr; i++) {
		if (paths->known[at].dir)
			break;
		at = (at + 1) % paths->nr;
	}
	return &paths->known[at];
}

/* A name in a directory that is known: there, or not. */
static void new_path(char *out, uint64_t *rng, const struct paths *paths)
{
	const struct known *k = random_known(rng, paths, true);
	char name[300];

	if (!k || one_in(rng, 8) || strlen(k->path) > PATH_LEN / 2) {
		fresh_path(out, rng);
		return;
	}
	random_name(name, rng);
	sprintf(out, "%s/%s", k->path, name);
}

static void old_path(char *out, uint64_t *rng, const struct paths *paths)
{
	const struct known *k = random_known(rng, paths, false);

	if (!k || one_in(rng, 10))
		new_path(out, rng, paths);
	else
		strcpy(out, k->path);
}

static off_t random_pos(uint64_t *rng, const struct limits *limits)
{
	const uint64_t far = limits->sparse ? 1ull << 38 : 8 << 20;

	switch (below(rng, 12)) {
	case 0:
		return (off_t)(rnd(rng) % far);
	case 1:
	case 2:
		return (off_t)(rnd(rng) % (4 << 20));
	case 3:
	case 4:
	case 5:
		return (off_t)below(rng, 40) * 4096;
	default:
		return (off_t)below(rng, 70000);
	}
}

static size_t random_len(uint64_t *rng)
{
	switch (below(rng, 4)) {
	case 0:
		return below(rng, MAX_IO);
	case 1:
		return (size_t)below(rng, 16) * 4096;
	default:
		return below(rng, 6000);
	}
}

static int random_open_flags(uint64_t *rng)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR,
				     O_RDWR };
	int flags = modes[below(rng, 5)];

	if (!one_in(rng, 3))
		flags |= O_CREAT;
	if (one_in(rng, 6))
		flags |= O_EXCL & (flags & O_CREAT ? -1 : 0);
	if (one_in(rng, 8))
		flags |= O_TRUNC;
	if (one_in(rng, 8))
		flags |= O_APPEND;
	if (one_in(rng, 30))
		flags |= O_DIRECTORY & (flags & O_CREAT ? 0 : -1);
	if (one_in(rng, 15))
		flags |= O_NOFOLLOW;
	/* A FIFO would wait for its other end. */
	return flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
}

static int random_fallocate_mode(uint64_t *rng)
{
	static const int modes[] = {
		0,
		FALLOC_FL_KEEP_SIZE,
		PUNCH,
		PUNCH,
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};

	return modes[below(rng, 6)];
}

static int random_rename_flags(uint64_t *rng)
{
	switch (below(rng, 8)) {
	case 0:
		return RENAME_NOREPLACE;
	case 1:
	case 2:
		return RENAME_EXCHANGE;
	default:
		return 0;
	}
}

static int random_flags(enum op_kind kind, uint64_t *rng)
{
	if (kind == OP_OPEN)
		return random_open_flags(rng);
	if (kind == OP_FALLOCATE)
		return random_fallocate_mode(rng);
	if (kind == OP_RENAME)
		return random_rename_flags(rng);
	if (kind == OP_SETXATTR)
		return (int)below(rng, 3);
	return (int)below(rng, 1000);
}

static mode_t random_mode(uint64_t *rng)
{
	static const mode_t modes[] = { 0777, 0755, 0644, 0666,
					0700, 0600, 0070, 0 };
	mode_t mode = modes[below(rng, 8)];

	if (one_in(rng, 6))
		mode |= below(rng, 8) << 9;
	return mode;
}

static size_t random_value_len(uint64_t *rng, size_t max)
{
	size_t len = one_in(rng, 10) ? below(rng, MAX_VALUE) : below(rng, 300);

	return len < max ? len : len % max;
}

/* An open one, mostly; for an open, any. */
static unsigned int random_handle(enum op_kind kind, uint64_t *rng,
				  unsigned int open)
{
	unsigned int h = below(rng, NR_HANDLES);

	if (kind == OP_OPEN || !open || one_in(rng, 20))
		return h;
	while (!(open & 1u << h))
		h = (h + 1) % NR_HANDLES;
	return h;
}

static bool is_share(enum op_kind kind)
{
	return kind == OP_CLONE || kind == OP_DEDUPE || kind == OP_UNSHARE;
}

/* Of pages, and near the start, where there is something; or to the end. */
static void align_share(struct op *op, uint64_t *rng)
{
	op->pos &= ~4095l;
	op->pos2 &= ~4095l;
	if (!one_in(rng, 4))
		op->pos %= 64 << 10;
	op->len = one_in(rng, 3) ? 0 : op->len & ~(size_t)4095;
}

void op_random(struct op *op, uint64_t *rng, const struct paths *paths,
	       const struct limits *limits)
{
	static const unsigned int umasks[] = { 0, 022, 027, 077 };

	op->kind = random_kind(rng);
	if (makes_a(op->kind) && !one_in(rng, 3))
		new_path(op->a, rng, paths);
	else
		old_path(op->a, rng, paths);
	if (one_in(rng, 3))
		old_path(op->b, rng, paths);
	else
		new_path(op->b, rng, paths);
	op->h = random_handle(op->kind, rng, paths->open);
	op->h2 = random_handle(op->kind, rng, paths->open);
	op->uid = one_in(rng, 8) ? 1000 + below(rng, 3) : 0;
	op->umask = umasks[below(rng, 4)];
	op->flags = random_flags(op->kind, rng);
	op->mode = random_mode(rng);
	if (op->kind == OP_OPEN || op->kind == OP_MKNOD)
		op->mode &= ~(mode_t)S_ISGID;
	op->pos = random_pos(rng, limits);
	op->pos2 = random_pos(rng, limits);
	op->len = random_len(rng);
	op->value_len = random_value_len(rng, limits->max_value);
	op->seed = rnd(rng);
	if (op->kind == OP_FALLOCATE && !limits->zero_range)
		op->flags &= ~FALLOC_FL_ZERO_RANGE;
	if (is_share(op->kind) && !limits->shares)
		op->kind = OP_COPY;
	if (is_share(op->kind) && !one_in(rng, 8))
		align_share(op, rng);
}

static void learn(struct paths *paths, const char *path, bool dir,
		  uint64_t seed)
{
	const unsigned int max = sizeof(paths->known) / sizeof(struct known);
	unsigned int at =
		paths->nr < max ? paths->nr++ : (unsigned int)(seed % max);

	strcpy(paths->known[at].path, path);
	paths->known[at].dir = dir;
}

/* Gives whether it was a directory. */
static bool forget(struct paths *paths, const char *path)
{
	bool dir = false;

	for (unsigned int i = 0; i < paths->nr; i++) {
		if (strcmp(paths->known[i].path, path))
			continue;
		dir = paths->known[i].dir;
		paths->known[i--] = paths->known[--paths->nr];
	}
	return dir;
}

/* What was below a moves with it. */
static void move_below(struct paths *paths, const char *a, const char *b)
{
	size_t len = strlen(a);

	for (unsigned int i = 0; i < paths->nr; i++) {
		struct known *k = &paths->known[i];
		char tail[PATH_LEN];

		if (strncmp(k->path, a, len) || k->path[len] != '/')
			continue;
		strcpy(tail, k->path + len);
		if (strlen(b) + strlen(tail) < PATH_LEN / 2)
			sprintf(k->path, "%s%s", b, tail);
		else
			*k = paths->known[--paths->nr];
	}
}

static void learn_path(const struct op *op, struct paths *paths)
{
	bool dir = op->kind == OP_MKDIR;

	if (op->kind == OP_UNLINK || op->kind == OP_RMDIR)
		forget(paths, op->a);
	if (op->kind == OP_RENAME && !(op->flags & RENAME_EXCHANGE)) {
		dir = forget(paths, op->a);
		forget(paths, op->b);
		move_below(paths, op->a, op->b);
	}
	if (makes_a(op->kind)) {
		dir |= forget(paths, op->a);
		learn(paths, op->a, dir, op->seed >> 7);
	}
	if (makes_b(op->kind))
		learn(paths, op->b, dir, op->seed >> 7);
}

void op_learn(const struct op *op, const struct result *r, struct paths *paths)
{
	if (op->kind == OP_OPEN || op->kind == OP_CLOSE)
		paths->open &= ~(1u << op->h);
	if (r->ret < 0)
		return;
	if (op->kind == OP_OPEN)
		paths->open |= 1u << op->h;
	learn_path(op, paths);
}

/* --- doing ------------------------------------------------------------------
 */

static uint64_t hash(const void *buf, size_t len)
{
	const unsigned char *p = buf;
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h;
}

static long long do_open(const struct op *op, struct side *side)
{
	int *fd = &side->fds[op->h];

	if (*fd >= 0)
		close(*fd);
	*fd = open(op->a, op->flags, op->mode);
	return *fd < 0 ? -1 : 0;
}

static long long do_close(const struct op *op, struct side *side)
{
	int fd = side->fds[op->h];

	side->fds[op->h] = -1;
	return close(fd);
}

/* Only on files of data: the rest would wait, or belongs to the kernel. */
static bool is_file(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	if (S_ISREG(st.st_mode))
		return true;
	errno = EISDIR;
	return false;
}

static long long do_write(const struct op *op, int fd)
{
	if (!is_file(fd))
		return -1;
	pattern(io_buf, op->pos, op->len, op->seed);
	return op->kind == OP_APPEND ? write(fd, io_buf, op->len)
				     : pwrite(fd, io_buf, op->len, op->pos);
}

static long long do_read(const struct op *op, int fd, struct result *r)
{
	long long n;

	if (!is_file(fd))
		return -1;
	n = pread(fd, io_buf, op->len, op->pos);
	if (n > 0)
		r->hash = hash(io_buf, (size_t)n);
	return n;
}

/*
 * truncate(2) to the size that is there may move times or not: filesystems
 * differ.  So it goes to another size.
 */
static long long do_truncate(const struct op *op)
{
	off_t size = op->pos;
	struct stat st;

	if (!stat(op->a, &st) && st.st_size == size)
		size++;
	return truncate(op->a, size);
}

static long long do_fallocate(const struct op *op, int fd)
{
	if (!is_file(fd))
		return -1;
	return fallocate(fd, op->flags, op->pos, (off_t)op->len);
}

/* A call may copy less than it is told: go on to the end of it. */
static long long do_copy(const struct op *op, int in, int out)
{
	off_t from = op->pos, to = op->pos2;
	long long done = 0, n;

	if (!is_file(in) || !is_file(out))
		return -1;
	do {
		n = copy_file_range(in, &from, out, &to, op->len - (size_t)done,
				    0);
		if (n < 0)
			return done ? done : -1;
		done += n;
	} while (n && (size_t)done < op->len);
	return done;
}

static bool opened_for(int fd, bool write)
{
	int mode = fcntl(fd, F_GETFL) & O_ACCMODE;

	return mode == O_RDWR || mode == (write ? O_WRONLY : O_RDONLY);
}

bool ops_cached_times;

/*
 * Behind a write-back cache the times are the kernel's, who does not know what
 * an ioctl did.
 */
static long long touched(int fd, long long ret)
{
	const struct timespec now[2] = { { 0, UTIME_OMIT }, { 0, UTIME_NOW } };

	if (ret == 0 && ops_cached_times)
		futimens(fd, now);
	return ret;
}

static long long do_clone(const struct op *op, int in, int out)
{
	if (!is_file(in) || !is_file(out))
		return -1;
	return touched(out, clone_range(in, op->pos, out, op->pos2, op->len));
}

/*
 * Mostly of what is made equal first.  Linux has other rules than we for
 * descriptors that cannot be read or written.
 */
static long long do_dedupe(const struct op *op, int in, int out)
{
	uint64_t len = 0;
	long long ret;
	ssize_t n;

	if (!is_file(in) || !is_file(out))
		return -1;
	if (!opened_for(in, false) || !opened_for(out, true)) {
		errno = EBADF;
		return -1;
	}
	if (op->seed % 4) {
		n = pread(in, io_buf, op->len, op->pos);
		if (n > 0 && pwrite(out, io_buf, (size_t)n, op->pos2) != n)
			return -1;
	}
	ret = dedupe_range(in, op->pos, out, op->pos2, op->len, &len);
	return ret < 0 ? ret : ret << 32 | (long long)len;
}

static long long do_unshare(const struct op *op, int fd)
{
	if (!is_file(fd))
		return -1;
	return touched(fd, unshare_range(fd, op->pos, (off_t)op->len));
}

/* Store within the file, at most a few pages. */
static long long do_mmap(const struct op *op, int fd)
{
	off_t start = op->pos & ~4095l;
	size_t off = (size_t)(op->pos & 4095), len = op->len % 9000;
	struct stat st;
	char *p;
	int ret;

	if (!is_file(fd))
		return -1;
	fstat(fd, &st);
	if (!len || op->pos + (off_t)len > st.st_size)
		return 0;
	p = mmap(NULL, off + len, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		 start);
	if (p == MAP_FAILED)
		return -1;
	pattern(p + off, op->pos, len, op->seed);
	ret = msync(p, off + len, MS_SYNC);
	munmap(p, off + len);
	return ret;
}

static void tell_stat(const struct stat *st, struct result *r)
{
	snprintf(r->text, sizeof(r->text), "%o %u:%u n%lu dev %llx size %lld",
		 st->st_mode, st->st_uid, st->st_gid,
		 (unsigned long)st->st_nlink, (unsigned long long)st->st_rdev,
		 S_ISDIR(st->st_mode) ? 0ll : (long long)st->st_size);
}

static long long do_stat(const struct op *op, struct result *r)
{
	struct stat st;
	int ret = op->flags % 2 ? stat(op->a, &st) : lstat(op->a, &st);

	if (!ret)
		tell_stat(&st, r);
	return ret;
}

static long long do_fstat(int fd, struct result *r)
{
	struct stat st;
	int ret = fstat(fd, &st);

	if (!ret)
		tell_stat(&st, r);
	return ret;
}

static long long do_readlink(const struct op *op, struct result *r)
{
	long long n = readlink(op->a, (char *)io_buf, 4096);

	if (n > 0)
		r->hash = hash(io_buf, (size_t)n);
	return n;
}

static long long do_symlink(const struct op *op)
{
	char target[4096];
	size_t len = op->len % 1023 + 1;

	if (op->flags % 2)
		return symlink(op->a, op->b);
	/* To nowhere; XFS takes no more than 1023 bytes. */
	memset(target, 'x', len);
	target[len] = '\0';
	return symlink(target, op->b);
}

static long long do_mknod(const struct op *op)
{
	static const mode_t types[] = { S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK,
					S_IFREG };

	return mknod(op->a, types[op->flags % 5] | op->mode,
		     (dev_t)(op->seed & 0xffff));
}

/*
 * Setgid for directories only.  A write by a stranger takes the bit from a file
 * without group execute, too, but a filesystem in FUSE is not told of that.
 */
static long long do_chmod(const struct op *op)
{
	mode_t mode = op->mode;
	struct stat st;

	if (!stat(op->a, &st) && !S_ISDIR(st.st_mode))
		mode &= ~(mode_t)S_ISGID;
	return chmod(op->a, mode);
}

static long long do_chown(const struct op *op)
{
	uid_t uid = op->flags % 3 ? 1000 + (uid_t)op->flags % 4 : -1u;
	gid_t gid = op->flags % 5 ? 1000 + (gid_t)op->flags % 3 : -1u;

	/* To nobody and no group takes suid away, but FUSE does not say so. */
	if (uid == -1u && gid == -1u)
		gid = 1000;

	return op->flags % 7 ? chown(op->a, uid, gid) : lchown(op->a, uid, gid);
}

static long long do_utimens(const struct op *op)
{
	struct timespec ts[2] = {
		{ 1000000000 + (time_t)(op->seed % 500000000), op->flags },
		{ 1000000000 + (time_t)(op->seed >> 32) % 500000000, 999999999 }
	};

	if (op->flags % 9 == 0)
		ts[0].tv_nsec = UTIME_OMIT;
	if (op->flags % 9 == 1)
		ts[1].tv_nsec = UTIME_OMIT;
	if (op->flags % 9 == 2)
		ts[1].tv_nsec = UTIME_NOW;
	return utimensat(AT_FDCWD, op->a, ts,
			 op->flags % 2 ? AT_SYMLINK_NOFOLLOW : 0);
}

static const char *xattr_name(const struct op *op)
{
	static const char *const list[] = { "user.a", "user.a-longer-name",
					    "trusted.a", "security.a" };

	return list[op->seed % 4];
}

static long long do_setxattr(const struct op *op)
{
	static unsigned char value[MAX_VALUE];

	pattern(value, 0, op->value_len, op->seed);
	return lsetxattr(op->a, xattr_name(op), value, op->value_len,
			 op->flags);
}

static long long do_getxattr(const struct op *op, struct result *r)
{
	long long n = lgetxattr(op->a, xattr_name(op), io_buf, MAX_VALUE);

	if (n > 0)
		r->hash = hash(io_buf, (size_t)n);
	return n;
}

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

/* u::*, a named user, g::*, mask, o::*; sometimes no more than the mode. */
static long long do_setacl(const struct op *op)
{
	struct {
		uint32_t version;
		struct acl_entry e[5];
	} acl = { .version = 2 };
	unsigned int bits = (unsigned int)(op->seed >> 3);
	bool named = op->flags % 4;
	size_t nr = 0;

	acl.e[nr++] = (struct acl_entry){ 1, 7, -1u };
	if (named)
		acl.e[nr++] = (struct acl_entry){ 2, bits & 7, 1001 };
	acl.e[nr++] = (struct acl_entry){ 4, bits >> 3 & 7, -1u };
	if (named)
		acl.e[nr++] = (struct acl_entry){ 16, bits >> 6 & 7, -1u };
	acl.e[nr++] = (struct acl_entry){ 32, bits >> 9 & 7, -1u };
	if (op->flags % 10 == 0)
		return removexattr(op->a, "system.posix_acl_access");
	return setxattr(op->a,
			op->flags % 3 ? "system.posix_acl_access"
				      : "system.posix_acl_default",
			&acl, 4 + nr * sizeof(acl.e[0]), 0);
}

static int not_dots(const struct dirent *de)
{
	return strcmp(de->d_name, ".") && strcmp(de->d_name, "..");
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static long long do_readdir(const struct op *op, struct result *r)
{
	struct dirent **list;
	int nr = scandir(op->a, &list, not_dots, by_bytes);

	for (int i = 0; i < nr; i++) {
		r->hash = r->hash * 31 +
			  hash(list[i]->d_name, strlen(list[i]->d_name)) +
			  list[i]->d_type;
		free(list[i]);
	}
	if (nr >= 0)
		free(list);
	return nr;
}

static long long do_handle_op(const struct op *op, struct side *side,
			      struct result *r)
{
	int fd = side->fds[op->h];

	switch ((int)op->kind) {
	case OP_CLOSE:
		return do_close(op, side);
	case OP_WRITE:
	case OP_APPEND:
		return do_write(op, fd);
	case OP_READ:
		return do_read(op, fd, r);
	case OP_FTRUNCATE:
		return is_file(fd) ? ftruncate(fd, op->pos) : -1;
	case OP_FALLOCATE:
		return do_fallocate(op, fd);
	case OP_COPY:
		return do_copy(op, fd, side->fds[op->h2]);
	case OP_CLONE:
		return do_clone(op, fd, side->fds[op->h2]);
	case OP_DEDUPE:
		return do_dedupe(op, fd, side->fds[op->h2]);
	case OP_UNSHARE:
		return do_unshare(op, fd);
	case OP_MMAP:
		return do_mmap(op, fd);
	case OP_FSYNC:
		return op->flags % 2 ? fsync(fd) : fdatasync(fd);
	case OP_FSTAT:
		return do_fstat(fd, r);
	default:
		abort();
	}
}

static long long do_path_op(const struct op *op, struct side *side,
			    struct result *r)
{
	switch ((int)op->kind) {
	case OP_OPEN:
		return do_open(op, side);
	case OP_TRUNCATE:
		return do_truncate(op);
	case OP_MKDIR:
		return mkdir(op->a, op->mode);
	case OP_RMDIR:
		return rmdir(op->a);
	case OP_UNLINK:
		return unlink(op->a);
	case OP_LINK:
		return link(op->a, op->b);
	case OP_SYMLINK:
		return do_symlink(op);
	case OP_READLINK:
		return do_readlink(op, r);
	case OP_RENAME:
		return renameat2(AT_FDCWD, op->a, AT_FDCWD, op->b,
				 (unsigned int)op->flags);
	case OP_MKNOD:
		return do_mknod(op);
	case OP_CHMOD:
		return do_chmod(op);
	case OP_CHOWN:
		return do_chown(op);
	case OP_UTIMENS:
		return do_utimens(op);
	case OP_SETXATTR:
		return do_setxattr(op);
	case OP_REMOVEXATTR:
		return lremovexattr(op->a, xattr_name(op));
	case OP_GETXATTR:
		return do_getxattr(op, r);
	case OP_SETACL:
		return do_setacl(op);
	case OP_STAT:
		return do_stat(op, r);
	case OP_READDIR:
		return do_readdir(op, r);
	case OP_ACCESS:
		return faccessat(AT_FDCWD, op->a, op->flags % 8, AT_EACCESS);
	default:
		return do_handle_op(op, side, r);
	}
}

static void become(unsigned int uid)
{
	if (setegid(uid) || seteuid(uid))
		abort();
}

static void become_root(void)
{
	if (seteuid(0) || setegid(0))
		abort();
}

struct result op_run(const struct op *op, struct side *side)
{
	struct result r = { 0 };

	if (fchdir(side->root))
		abort();
	umask(op->umask);
	if (op->uid)
		become(op->uid);
	r.ret = do_path_op(op, side, &r);
	r.err = r.ret < 0 ? errno : 0;
	if (op->uid)
		become_root();
	umask(0);
	return r;
}

/* rename(2) knows two names for one refusal. */
static int plain_err(const struct op *op, int err)
{
	if (op->kind == OP_RENAME && err == EEXIST &&
	    !(op->flags & RENAME_NOREPLACE))
		return ENOTEMPTY;
	return err;
}

bool result_equal(const struct op *op, const struct result *a,
		  const struct result *b)
{
	return a->ret == b->ret && a->hash == b->hash &&
	       !strcmp(a->text, b->text) &&
	       plain_err(op, a->err) == plain_err(op, b->err);
}

/* --- telling ----------------------------------------------------------------
 */

static void shorten(char *out, const char *path)
{
	for (; *path; path++) {
		/* Names of 255 times the same letter are no pleasure. */
		if (path[0] == 'n' && path[1] == 'n') {
			size_t len = strspn(path, "n");

			out += sprintf(out, "n*%zu", len);
			path += len - 1;
		} else {
			*out++ = *path;
		}
	}
	*out = '\0';
}

static bool by_handle(enum op_kind kind)
{
	return kind == OP_CLOSE || kind == OP_WRITE || kind == OP_APPEND ||
	       kind == OP_READ || kind == OP_FTRUNCATE ||
	       kind == OP_FALLOCATE || kind == OP_COPY || is_share(kind) ||
	       kind == OP_MMAP || kind == OP_FSYNC || kind == OP_FSTAT;
}

void op_print(const struct op *op, char *out, size_t size)
{
	char a[PATH_LEN], b[PATH_LEN];

	shorten(a, op->a);
	shorten(b, op->b);
	if (by_handle(op->kind))
		snprintf(out, size,
			 "%s(h%u, h%u, flags %#x, pos %lld, pos2 %lld, len "
			 "%zu) by %u",
			 op_name(op->kind), op->h, op->h2,
			 (unsigned int)op->flags, (long long)op->pos,
			 (long long)op->pos2, op->len, op->uid);
	else
		snprintf(out, size,
			 "%s(%s, %s, h%u, flags %#x, mode %o, pos %lld, len "
			 "%zu) by %u umask %o",
			 op_name(op->kind), a, makes_b(op->kind) ? b : "-",
			 op->h, (unsigned int)op->flags, op->mode,
			 (long long)op->pos, op->len, op->uid, op->umask);
}
