/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/race/race_fs.c - a whole filesystem under many threads at once
 *
 * Threads do random operations on a few shared directories and on files that
 * everybody finds there, as a kernel might ask for them and, because here is
 * no kernel that takes its own locks first, in orders that it never would.
 * The device is small, so that they also fight for its last blocks.
 *
 * Contents are cells of 32 bytes, each of which says which inode it belongs
 * to and where it stands.  Whoever reads a cell that is neither zeros nor its
 * own has met a block that belongs to somebody else.  Files that are copied
 * to one another ("twins") know each other's cells.
 *
 * Some names are never touched: each pass over a directory must meet each of
 * them once.  A private file of each thread has a model in memory.
 *
 * At the end of a round everything in DRAM (allocator, inode table, page
 * counts) must be what the walk of a new mount finds, fsck must be content,
 * and every byte must still be in its place.
 *
 * Usage: race_fs [SEED [ROUNDS]].  Exit status 0: all well.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/check.h"
#include "fs/foliofs.h"
#include "fs/fs.h"

#define MAX_THREADS 48u
#define NR_BASE	    4u	/* directories that stay */
#define NR_NAMES    28u /* names that come and go in every directory */
#define NR_KEEP	    5u	/* names of a base directory that stay */
#define NR_TWINS    3u
#define NR_HELD	    6u /* inodes a thread has open */
#define MODEL_SIZE  (64u << 10)
#define MAX_POS	    (UINT64_C(3) << 19)
#define MAX_LEN	    (UINT64_C(96) << 10)
/* More than the inode table keeps as free inodes. */
#define STORM_FILES 4800u

/* ThreadSanitizer sees only what is not done inside libpmem2. */
#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

struct round {
	const char *what;
	uint64_t size;
	unsigned int nr_threads, nr_steps;
	unsigned int nr_lanes; /* fewer are sooner exhausted */
	enum foliofs_data data;
	bool storm;
};

static const struct round rounds[] = {
	{ "small device", UINT64_C(6) << 20, 6, 30000, 64, DATA_INPLACE,
	  false },
	{ "two lanes", UINT64_C(24) << 20, 8, 20000, 2, DATA_COW, false },
	{ "one lane", UINT64_C(64) << 20, 5, 20000, 1, DATA_INPLACE, false },
	{ "crowd", UINT64_C(16) << 20, 48, 2500, 8, DATA_INPLACE, false },
	{ "inodes", UINT64_C(24) << 20, 6, 10000, 64, DATA_INPLACE, true },
};
#define NR_ROUNDS (sizeof(rounds) / sizeof(*rounds))

struct cell {
	uint64_t id;  /* inode and generation */
	uint64_t pos; /* in the file, or in the twin it was copied from */
	uint64_t version;
	uint64_t sum;
};
#define CELL sizeof(struct cell)
static const struct cell no_cell;

struct worker {
	pthread_t thread;
	unsigned int id;
	uint64_t rng;
	uint64_t version;
	struct inode *held[NR_HELD];
	struct inode *mine;
	unsigned char *model; /* contents of mine */
	uint64_t model_size;
	unsigned char *buf; /* MAX_LEN bytes */
	uint64_t nr_done, nr_full;
};

static const struct round *rnd_now;
static uint64_t seed;
static char device[64];
static struct foliofs *fs;
static struct worker workers[MAX_THREADS];
static struct inode *base[NR_BASE];
static struct inode *twin[NR_TWINS];
static uint64_t twin_id[NR_TWINS];
static _Atomic(uint64_t) last_ino; /* the one made last, about */
static pthread_barrier_t barrier;

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "race_fs: seed %ju: %s: ", (uintmax_t)seed,
		rnd_now->what);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	unlink(device);
	abort();
}

/* What no operation may say, whatever the others do. */
static int ok(struct worker *w, const char *what, int ret)
{
	switch (-ret) {
	case EIO:
	case EROFS:
	case ENOMEM:
	case ESTALE:
	case EUCLEAN:
	case EFAULT:
		die("%s: %s", what, strerror(-ret));
	default:
		break;
	}
	if (w) {
		w->nr_done += ret >= 0;
		w->nr_full += ret == -ENOSPC;
	}
	return ret;
}

static void must(const char *what, int ret)
{
	if (ret < 0)
		die("%s: %s", what, strerror(-ret));
}

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static uint64_t rnd(struct worker *w, uint64_t n)
{
	w->rng = mix(w->rng);
	return w->rng % n;
}

/* Cells. */

static uint64_t id_of(const struct inode *ip)
{
	return ip->ino | inode_word(ip, INODE_GENFLAGS) << 32;
}

static uint64_t sum_of(const struct cell *c)
{
	return mix(c->id ^ mix(c->pos ^ mix(c->version)));
}

static void fill_cells(struct worker *w, uint64_t id, uint64_t pos,
		       uint64_t len)
{
	struct cell *c = (struct cell *)(void *)w->buf;

	w->version++;
	for (uint64_t at = 0; at < len; at += CELL, c++) {
		*c = (struct cell){ id, pos + at, w->version, 0 };
		c->sum = sum_of(c);
	}
}

static bool is_twin(uint64_t id)
{
	for (unsigned int i = 0; i < NR_TWINS; i++)
		if (twin_id[i] == id)
			return true;
	return false;
}

static void check_cell(uint64_t id, uint64_t pos, const struct cell *c)
{
	if (memcmp(c, &no_cell, CELL) == 0)
		return;
	if (c->sum != sum_of(c))
		die("file %#jx at %ju: torn: %#jx %ju %ju", (uintmax_t)id,
		    (uintmax_t)pos, (uintmax_t)c->id, (uintmax_t)c->pos,
		    (uintmax_t)c->version);
	if (is_twin(id) ? !is_twin(c->id) : c->id != id || c->pos != pos)
		die("file %#jx at %ju: is of file %#jx at %ju", (uintmax_t)id,
		    (uintmax_t)pos, (uintmax_t)c->id, (uintmax_t)c->pos);
}

/* Reads as the daemon does, from media, under the lock; copies if asked to. */
static void read_cells(struct inode *ip, uint64_t pos, uint64_t len,
		       unsigned char *copy)
{
	struct iovec iov[8];
	struct fs_iov v = { .iov = iov, .max = 8 };
	uint64_t id = id_of(ip), got, done;

	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	for (done = 0; done < len; done += got) {
		uint64_t at = pos + done;

		must("read", file_read(ip, at, len - done, &v, &got));
		if (got == 0)
			break;
		for (int i = 0; i < v.nr; i++) {
			const unsigned char *p = iov[i].iov_base;
			struct cell c;

			for (size_t n = 0; n < iov[i].iov_len; n += CELL) {
				memcpy(&c, p + n, CELL);
				check_cell(id, at, &c);
				if (copy)
					memcpy(copy + (at - pos), &c, CELL);
				at += CELL;
			}
		}
	}
	rwsem_up_read(&ip->rwsem);
	if (copy && done < len)
		memset(copy + done, 0, len - done);
}

/* Names and inodes. */

static bool is_type(const struct inode *ip, uint32_t type)
{
	return (inode_mode(ip) & S_IFMT) == type;
}

/* Long ones fill the blocks of a directory, so that it gets an index. */
static const char *make_name(char name[256], unsigned int nr)
{
	int len = snprintf(name, 256, "n%u", nr);

	if (nr % 3 == 0) {
		memset(name + len, 'x', 150 + nr);
		name[150 + nr] = '\0';
	}
	return name;
}

static const char *any_name(struct worker *w, char name[256])
{
	return make_name(name, (unsigned int)rnd(w, NR_NAMES));
}

/* A directory, some way down from a base directory; with a reference. */
static struct inode *pick_dir(struct worker *w)
{
	struct inode *dir = base[rnd(w, NR_BASE)], *ip;
	char name[256];

	inode_ref(dir, 1);
	for (int depth = 0; depth < 4 && rnd(w, 2); depth++) {
		if (ok(w, "lookup", fs_lookup(dir, any_name(w, name), &ip)))
			continue;
		if (!is_type(ip, S_IFDIR)) {
			inode_put(ip);
			continue;
		}
		inode_put(dir);
		dir = ip;
	}
	return dir;
}

/* Something that may be gone by now; with a reference, or NULL. */
static struct inode *pick_any(struct worker *w)
{
	struct inode *dir, *ip = w->held[rnd(w, NR_HELD)];
	char name[256];
	int ret;

	if (ip && rnd(w, 2)) {
		inode_ref(ip, 1);
		return ip;
	}
	dir = pick_dir(w);
	ret = ok(w, "lookup", fs_lookup(dir, any_name(w, name), &ip));
	inode_put(dir);
	return ret ? NULL : ip;
}

static struct inode *pick_file(struct worker *w)
{
	struct inode *ip;

	if (rnd(w, 6) == 0) {
		ip = twin[rnd(w, NR_TWINS)];
		inode_ref(ip, 1);
		return ip;
	}
	ip = pick_any(w);
	if (ip && !is_type(ip, S_IFREG)) {
		inode_put(ip);
		ip = NULL;
	}
	return ip;
}

static uint64_t any_pos(struct worker *w)
{
	uint64_t pos = rnd(w, MAX_POS >> rnd(w, 9));

	if (rnd(w, 64) == 0)
		pos += UINT64_C(5) << 30; /* a deep tree */
	return pos & ~(rnd(w, 3) ? BLOCK_MASK : (uint64_t)CELL - 1);
}

static uint64_t any_len(struct worker *w)
{
	uint64_t len = CELL + rnd(w, MAX_LEN >> rnd(w, 8));

	if (rnd(w, 2))
		len += BLOCK_SIZE - 1, len &= ~BLOCK_MASK;
	len &= ~(uint64_t)(CELL - 1);
	return len > MAX_LEN ? MAX_LEN : len;
}

/* Operations on names. */

static const struct cred root_cred = { .umask = 022 };

static void hold(struct worker *w, struct inode *ip)
{
	struct inode **slot = &w->held[rnd(w, NR_HELD)];

	if (*slot)
		inode_put(*slot);
	*slot = ip;
}

static void op_create(struct worker *w)
{
	static const uint32_t mode[] = { S_IFREG | 0644, S_IFREG | 0600,
					 S_IFDIR | 0755, S_IFLNK };
	static const char longer[] =
		"a/target/that/does/not/fit/into/the/inode/because/it/is/much/"
		"longer/than/one/hundred/and/twenty-eight/bytes/of/the/space/"
		"that/is/kept/there";
	struct new_inode want = { .mode = mode[rnd(w, 4)],
				  .symlink = rnd(w, 2) ? "short" : longer };
	struct inode *dir = pick_dir(w), *ip;
	char name[256];

	if (!ok(w, "create",
		fs_create(dir, any_name(w, name), &root_cred, &want, &ip))) {
		atomic_store(&last_ino, ip->ino);
		hold(w, ip);
	}
	inode_put(dir);
}

static void op_tmpfile(struct worker *w)
{
	struct inode *dir = pick_dir(w), *ip;

	if (!ok(w, "tmpfile", fs_tmpfile(dir, &root_cred, S_IFREG | 0600, &ip)))
		hold(w, ip);
	inode_put(dir);
}

/* Removing works on a full device as well. */
static void op_remove(struct worker *w)
{
	struct inode *dir = pick_dir(w);
	char name[256];
	int ret;

	if (rnd(w, 3))
		ret = fs_unlink(dir, any_name(w, name));
	else
		ret = fs_rmdir(dir, any_name(w, name));
	if (ok(w, "remove", ret) == -ENOSPC)
		die("remove: no space");
	inode_put(dir);
}

static void op_link(struct worker *w)
{
	struct inode *ip = pick_any(w), *dir;
	char name[256];

	if (!ip)
		return;
	dir = pick_dir(w);
	ok(w, "link", fs_link(ip, dir, any_name(w, name)));
	inode_put(dir);
	inode_put(ip);
}

static void op_rename(struct worker *w)
{
	static const unsigned int flags[] = { 0, 0, RENAME_NOREPLACE,
					      RENAME_EXCHANGE };
	struct inode *a = pick_dir(w), *b;
	char from[256], to[256];

	if (rnd(w, 3)) {
		b = pick_dir(w);
	} else {
		inode_ref(a, 1);
		b = a;
	}
	ok(w, "rename",
	   fs_rename(a, any_name(w, from), b, any_name(w, to),
		     flags[rnd(w, 4)]));
	inode_put(b);
	inode_put(a);
}

static void op_lookup(struct worker *w)
{
	struct inode *ip = pick_any(w), *again;
	char target[BLOCK_SIZE];

	if (!ip)
		return;
	/* Whoever has a reference can find it by number. */
	must("inode_get", inode_get(fs, ip->ino, &again));
	if (again != ip)
		die("inode %ju is there twice", (uintmax_t)ip->ino);
	inode_put(again);
	if (is_type(ip, S_IFLNK))
		ok(w, "readlink", fs_readlink(ip, target));
	hold(w, ip);
}

/* The same number again and again, unless somebody comes between. */
static void op_churn(struct worker *w)
{
	struct new_inode want = { .mode = S_IFREG | 0600 };
	struct inode *dir = base[rnd(w, NR_BASE)], *ip;
	char name[256];

	snprintf(name, sizeof(name), "churn%u", w->id);
	for (int i = 0; i < 8; i++) {
		if (ok(w, "create",
		       fs_create(dir, name, &root_cred, &want, &ip)))
			return;
		atomic_store(&last_ino, ip->ino);
		inode_put(ip);
		must("unlink", fs_unlink(dir, name));
	}
}

/* As a file handle may: a number that may be free, or just being taken. */
static void op_handle(struct worker *w)
{
	uint64_t ino = 1 + rnd(w, 256);
	struct inode *ip;
	struct stat st;
	int ret;

	if (rnd(w, 2))
		ino = atomic_load(&last_ino) + rnd(w, 2);
	ret = inode_get(fs, ino, &ip);
	if (ret == -ESTALE)
		return;
	must("inode_get by handle", ret);
	inode_stat(ip, &st);
	if (st.st_ino != ip->ino || (st.st_mode & S_IFMT) == 0)
		die("inode %ju: mode %o", (uintmax_t)ip->ino, st.st_mode);
	inode_put(ip);
}

struct listing {
	struct worker *w;
	uint64_t cookie;
	unsigned int left; /* entries before the lock is dropped */
	unsigned int seen[NR_KEEP];
};

static int list_one(void *ctx, const struct dir_entry *de)
{
	struct listing *l = (struct listing *)ctx;

	if (l->left == 0)
		return 1;
	l->left--;
	l->cookie = de->next;
	if (de->ino == 0 || de->name_len == 0)
		die("readdir: inode %ju, name of %u bytes", (uintmax_t)de->ino,
		    de->name_len);
	if (de->name_len == 5 && memcmp(de->name, "keep", 4) == 0)
		l->seen[de->name[4] - '0']++;
	return 0;
}

static void op_readdir(struct worker *w)
{
	struct listing l = { .w = w };
	struct inode *dir = pick_dir(w);
	bool whole = false;
	int ret;

	for (unsigned int i = 0; i < NR_BASE; i++)
		whole = whole || dir == base[i];
	do {
		l.left = 1 + (unsigned int)rnd(w, 20);
		rwsem_down_read(&dir->rwsem, LOCK_INODE_PARENT);
		ret = ok(w, "readdir",
			 dir_iterate(dir, l.cookie, list_one, &l));
		rwsem_up_read(&dir->rwsem);
	} while (ret > 0);
	for (unsigned int i = 0; whole && i < NR_KEEP; i++)
		if (l.seen[i] != 1)
			die("readdir: keep%u seen %u times", i, l.seen[i]);
	inode_put(dir);
}

/* Operations on contents. */

static void op_write(struct worker *w)
{
	struct inode *ip = pick_file(w);
	uint64_t pos = any_pos(w), len = any_len(w);

	if (!ip)
		return;
	fill_cells(w, id_of(ip), pos, len);
	ok(w, "write", file_write(ip, w->buf, pos, len, 0));
	if (rnd(w, 8) == 0)
		file_close(ip);
	inode_put(ip);
}

static void op_read(struct worker *w)
{
	struct inode *ip = pick_file(w);

	if (!ip)
		return;
	read_cells(ip, any_pos(w), any_len(w), NULL);
	file_accessed(ip);
	inode_put(ip);
}

static void op_truncate(struct worker *w)
{
	struct fs_setattr a = { .valid = FATTR_SIZE, .size = any_pos(w) };
	struct inode *ip = pick_file(w);

	if (!ip)
		return;
	ok(w, "truncate", fs_setattr(ip, &a));
	inode_put(ip);
}

static int any_falloc(struct worker *w)
{
	static const int mode[] = {
		0,
		FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};

	return mode[rnd(w, 6)];
}

static void op_fallocate(struct worker *w)
{
	struct inode *ip = pick_file(w);

	if (!ip)
		return;
	ok(w, "fallocate",
	   file_fallocate(ip, any_falloc(w), any_pos(w), any_len(w), 0));
	inode_put(ip);
}

static void op_copy(struct worker *w)
{
	struct inode *in = twin[rnd(w, NR_TWINS)];
	struct inode *out = twin[rnd(w, NR_TWINS)];
	uint64_t copied;

	ok(w, "copy",
	   file_copy(in, any_pos(w), out, any_pos(w), any_len(w), 0, &copied));
}

static void op_seek(struct worker *w)
{
	struct inode *ip = pick_file(w);
	uint64_t found;

	if (!ip)
		return;
	ok(w, "seek", file_seek(ip, any_pos(w), rnd(w, 2), &found));
	inode_put(ip);
}

static void op_stat(struct worker *w)
{
	struct fs_setattr a = { .valid = FATTR_MODE | FATTR_MTIME,
				.mode = 0600 | (uint32_t)rnd(w, 64) };
	struct inode *ip = pick_any(w);
	struct stat st;

	if (!ip)
		return;
	if (rnd(w, 3) == 0)
		ok(w, "setattr", fs_setattr(ip, &a));
	inode_stat(ip, &st);
	if ((st.st_mode & S_IFMT) == 0 || st.st_blocks < 0)
		die("stat: mode %o, %jd blocks", st.st_mode,
		    (intmax_t)st.st_blocks);
	inode_put(ip);
}

/* The value's first byte says all of it. */
static void op_xattr(struct worker *w)
{
	static const char *const name[] = { "user.a", "user.b", "user.c" };
	struct inode *ip = pick_any(w);
	const char *n = name[rnd(w, 3)];
	int ret;

	if (!ip)
		return;
	switch (rnd(w, 4)) {
	case 0:
	case 1:
		memset(w->buf, 'a' + (int)rnd(w, 26), 9000);
		ok(w, "setxattr",
		   xattr_set(ip, n, w->buf, 1 + rnd(w, 9000 >> rnd(w, 9)), 0,
			     false));
		break;
	case 2:
		ret = ok(w, "getxattr", xattr_get(ip, n, w->buf, 9000));
		for (int i = 1; i < ret; i++)
			if (w->buf[i] != w->buf[0])
				die("xattr: torn at %d of %d", i, ret);
		break;
	default:
		ok(w, "removexattr", xattr_remove(ip, n));
		break;
	}
	inode_put(ip);
}

/* The private file, against its model. */

static void mine_check(struct worker *w)
{
	if (inode_size(w->mine) != w->model_size)
		die("mine%u: size %ju, not %ju", w->id,
		    (uintmax_t)inode_size(w->mine), (uintmax_t)w->model_size);
	read_cells(w->mine, 0, MODEL_SIZE, w->buf);
	for (uint64_t at = 0; at < MODEL_SIZE; at += CELL)
		if (memcmp(w->buf + at, w->model + at, CELL) != 0)
			die("mine%u: wrong at %ju", w->id, (uintmax_t)at);
}

/* No space in the middle: each cell is as before or as asked for. */
static void mine_adopt(struct worker *w, uint64_t pos, uint64_t len)
{
	unsigned char now[CELL];

	for (uint64_t at = 0; at < len && pos + at < w->model_size;
	     at += CELL) {
		read_cells(w->mine, pos + at, CELL, now);
		if (memcmp(now, w->buf + at, CELL) == 0)
			memcpy(w->model + pos + at, now, CELL);
	}
}

static void mine_write(struct worker *w, uint64_t pos, uint64_t len)
{
	int ret;

	fill_cells(w, id_of(w->mine), pos, len);
	ret = ok(w, "write", file_write(w->mine, w->buf, pos, len, 0));
	if (ret) {
		if (rnd_now->data == DATA_INPLACE)
			mine_adopt(w, pos, len);
		return;
	}
	memcpy(w->model + pos, w->buf, len);
	if (pos + len > w->model_size)
		w->model_size = pos + len;
}

static void mine_truncate(struct worker *w, uint64_t size)
{
	struct fs_setattr a = { .valid = FATTR_SIZE, .size = size };

	if (ok(w, "truncate", fs_setattr(w->mine, &a)))
		return;
	if (size < w->model_size)
		memset(w->model + size, 0, w->model_size - size);
	w->model_size = size;
}

static void mine_fallocate(struct worker *w, uint64_t pos, uint64_t len)
{
	int mode = any_falloc(w);

	if (ok(w, "fallocate", file_fallocate(w->mine, mode, pos, len, 0)))
		return;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(w->model + pos, 0, len);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && pos + len > w->model_size)
		w->model_size = pos + len;
}

static void op_mine(struct worker *w)
{
	uint64_t pos = any_pos(w) % MODEL_SIZE, len = any_len(w);

	if (len > MODEL_SIZE - pos)
		len = MODEL_SIZE - pos;
	switch (rnd(w, 6)) {
	case 0:
	case 1:
	case 2:
		mine_write(w, pos, len);
		break;
	case 3:
		mine_truncate(w, pos);
		break;
	case 4:
		mine_fallocate(w, pos, len);
		break;
	default:
		mine_check(w);
		break;
	}
}

/* How often each is done, in all of them. */
static const struct {
	void (*fn)(struct worker *w);
	unsigned int weight;
} ops[] = {
	{ op_create, 14 },   { op_tmpfile, 1 }, { op_remove, 10 },
	{ op_link, 4 },	     { op_rename, 12 }, { op_lookup, 6 },
	{ op_handle, 24 },   { op_churn, 4 },	{ op_readdir, 5 },
	{ op_write, 14 },    { op_read, 14 },	{ op_truncate, 5 },
	{ op_fallocate, 5 }, { op_copy, 4 },	{ op_seek, 2 },
	{ op_stat, 6 },	     { op_xattr, 6 },	{ op_mine, 8 },
};
#define NR_OPS (sizeof(ops) / sizeof(*ops))

static void step(struct worker *w)
{
	uint64_t total = 0, at;

	for (size_t i = 0; i < NR_OPS; i++)
		total += ops[i].weight;
	at = rnd(w, total);
	for (size_t i = 0; i < NR_OPS; i++) {
		if (at < ops[i].weight) {
			ops[i].fn(w);
			return;
		}
		at -= ops[i].weight;
	}
}

static const char *storm_name(char name[256], unsigned int id, unsigned int i)
{
	snprintf(name, 256, "storm%u.%u", id, i);
	return name;
}

/* Make more inodes than the table keeps, then take them all away. */
static void storm(struct worker *w)
{
	struct new_inode want = { .mode = S_IFREG | 0600 };
	unsigned int nr = STORM_FILES / rnd_now->nr_threads;
	struct inode *dir = base[w->id % NR_BASE], *ip;
	char name[256];

	for (unsigned int i = 0; i < nr; i++) {
		must("create", fs_create(dir, storm_name(name, w->id, i),
					 &root_cred, &want, &ip));
		inode_put(ip);
		if (i % 64 == 0)
			op_handle(w);
	}
	pthread_barrier_wait(&barrier);
	for (unsigned int i = 0; i < nr; i++) {
		must("unlink", fs_unlink(dir, storm_name(name, w->id, i)));
		if (i % 16 == 0)
			op_handle(w);
	}
}

static void *work(void *arg)
{
	struct worker *w = (struct worker *)arg;
	unsigned int nr = rnd_now->nr_steps / (UNDER_TSAN ? 3 : 1);

	pthread_barrier_wait(&barrier);
	if (rnd_now->storm)
		storm(w);
	for (unsigned int i = 0; i < nr; i++)
		step(w);
	mine_check(w);
	for (unsigned int i = 0; i < NR_HELD; i++)
		if (w->held[i])
			inode_put(w->held[i]);
	return NULL;
}

/* A round. */

static enum pmem_granularity granularity(void)
{
	return UNDER_TSAN ? PMEM_PAGE : PMEM_GRANULARITY_AUTO;
}

/* Fewer lanes than mkfs makes, in both superblocks. */
static void set_lanes(unsigned int nr)
{
	struct foliofs_superblock sb;
	int fd = open(device, O_RDWR | O_CLOEXEC);
	off_t at[2];

	if (fd < 0 || pread(fd, &sb, sizeof(sb), 0) != sizeof(sb))
		die("%s: %s", device, strerror(errno));
	at[0] = 0;
	at[1] = (off_t)((le64_to_cpu(sb.nr_blocks) - 1) << BLOCK_SHIFT);
	sb.nr_lanes = cpu_to_le32(nr);
	sb.crc = cpu_to_le32(
		pmem_crc32c(&sb, offsetof(struct foliofs_superblock, crc)));
	for (int i = 0; i < 2; i++)
		if (pwrite(fd, &sb, sizeof(sb), at[i]) != sizeof(sb))
			die("%s: %s", device, strerror(errno));
	close(fd);
}

static void make_fs(void)
{
	struct foliofs_mkfs opt = { .device = device,
				    .size = rnd_now->size,
				    .force = true,
				    .granularity = granularity() };
	struct errmsg err;

	unlink(device);
	if (foliofs_mkfs(&opt, &err))
		die("mkfs: %s", err.text);
	set_lanes(rnd_now->nr_lanes);
}

static void open_fs(void)
{
	struct foliofs_options opt = { .device = device,
				       .data = rnd_now->data,
				       .granularity = granularity() };
	struct errmsg err;

	if (foliofs_open(&opt, &fs, &err))
		die("open: %s", err.text);
}

static struct inode *make(struct inode *dir, const char *fmt, unsigned int nr,
			  uint32_t mode)
{
	struct new_inode want = { .mode = mode };
	struct inode *ip;
	char name[256];

	snprintf(name, sizeof(name), fmt, nr);
	must(name, fs_create(dir, name, &root_cred, &want, &ip));
	return ip;
}

static void populate(void)
{
	struct inode *root;

	must("root", inode_get(fs, FOLIOFS_ROOT_INO, &root));
	for (unsigned int i = 0; i < NR_BASE; i++) {
		base[i] = make(root, "base%u", i, S_IFDIR | 0755);
		for (unsigned int k = 0; k < NR_KEEP; k++)
			inode_put(make(base[i], "keep%u", k, S_IFREG | 0600));
	}
	for (unsigned int i = 0; i < NR_TWINS; i++) {
		twin[i] = make(base[0], "twin%u", i, S_IFREG | 0600);
		twin_id[i] = id_of(twin[i]);
	}
	for (unsigned int i = 0; i < rnd_now->nr_threads; i++) {
		struct worker *w = &workers[i];

		*w = (struct worker){ .id = i, .rng = mix(seed ^ mix(i)) };
		w->mine = make(base[1], "mine%u", i, S_IFREG | 0600);
		w->model = (unsigned char *)calloc(1, MODEL_SIZE);
		w->buf = (unsigned char *)malloc(MAX_LEN);
		if (!w->model || !w->buf)
			die("out of memory");
	}
	inode_put(root);
}

static void run_threads(void)
{
	unsigned int nr = rnd_now->nr_threads;

	pthread_barrier_init(&barrier, NULL, nr);
	for (unsigned int i = 0; i < nr; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			die("cannot start thread %u", i);
	for (unsigned int i = 0; i < nr; i++)
		pthread_join(workers[i].thread, NULL);
	pthread_barrier_destroy(&barrier);
}

static void put_all(void)
{
	uint64_t done = 0, full = 0;

	for (unsigned int i = 0; i < rnd_now->nr_threads; i++) {
		struct worker *w = &workers[i];

		done += w->nr_done;
		full += w->nr_full;
		inode_put(w->mine);
		free(w->model);
		free(w->buf);
	}
	for (unsigned int i = 0; i < NR_TWINS; i++)
		inode_put(twin[i]);
	for (unsigned int i = 0; i < NR_BASE; i++)
		inode_put(base[i]);
	if (icache_nr(fs) != 1) /* the root */
		die("%ju inodes are still in use", (uintmax_t)icache_nr(fs));
	printf("%s: %ju operations done, %ju without space\n", rnd_now->what,
	       (uintmax_t)done, (uintmax_t)full);
}

/* Everything that a reader of the whole filesystem sees, in one number. */
struct census {
	struct listing l;
	uint64_t nr_files, hash;
};

static void count_dir(struct census *c, struct inode *dir);

static int count_entry(void *ctx, const struct dir_entry *de)
{
	struct census *c = (struct census *)ctx;
	struct inode *ip;
	struct stat st;

	must("inode_get", inode_get(fs, de->ino, &ip));
	inode_stat(ip, &st);
	if (is_type(ip, S_IFREG))
		read_cells(ip, 0, MAX_POS + MAX_LEN, NULL);
	c->nr_files++;
	for (unsigned int i = 0; i < de->name_len; i++)
		c->hash = mix(c->hash ^ (unsigned char)de->name[i]);
	c->hash = mix(c->hash ^ st.st_ino);
	c->hash = mix(c->hash ^ (uint64_t)st.st_size);
	c->hash = mix(c->hash ^ (uint64_t)st.st_blocks);
	c->hash = mix(c->hash ^ st.st_nlink << 16 ^ st.st_mode);
	if (is_type(ip, S_IFDIR))
		count_dir(c, ip);
	inode_put(ip);
	return 0;
}

/* Nobody else is there any more: no locks, and directories at any depth. */
static void count_dir(struct census *c, struct inode *dir)
{
	must("readdir", dir_iterate(dir, 2, count_entry, c));
}

static struct census take_census(void)
{
	struct census c = { .hash = 1 };

	for (unsigned int i = 0; i < NR_BASE; i++)
		count_dir(&c, base[i]);
	return c;
}

static void find_again(void)
{
	struct inode *root;
	char name[16];

	must("root", inode_get(fs, FOLIOFS_ROOT_INO, &root));
	for (unsigned int i = 0; i < NR_BASE; i++) {
		snprintf(name, sizeof(name), "base%u", i);
		must(name, fs_lookup(root, name, &base[i]));
	}
	inode_put(root);
}

static void report(void *ctx, const struct check_problem *p)
{
	(void)ctx;
	fprintf(stderr, "race_fs: fsck: inode %ju, offset %#jx: %s\n",
		(uintmax_t)p->ino, (uintmax_t)p->off, p->text);
}

static void check_fs(void)
{
	struct check_options opt = { .device = device,
				     .granularity = granularity(),
				     .report = report };
	struct check_result res;
	struct errmsg err;

	if (foliofs_check(&opt, &res, &err))
		die("fsck: %s", err.text);
	if (res.nr_errors || res.nr_infos)
		die("fsck: %ju errors, %ju notes", (uintmax_t)res.nr_errors,
		    (uintmax_t)res.nr_infos);
}

static void same(const char *what, uint64_t was, uint64_t is)
{
	if (was != is)
		die("%s: %ju before, %ju after a new mount", what,
		    (uintmax_t)was, (uintmax_t)is);
}

static void compare_stat(const struct foliofs_stat *a,
			 const struct foliofs_stat *b)
{
	same("free blocks", a->alloc.nr_free, b->alloc.nr_free);
	same("shared blocks", a->alloc.nr_shared, b->alloc.nr_shared);
	same("empty chunks", a->alloc.nr_empty_chunks,
	     b->alloc.nr_empty_chunks);
	for (unsigned int i = 0; i < NR_BLOCK_KINDS; i++)
		same(block_kind_name((enum block_kind)i), a->alloc.nr_kind[i],
		     b->alloc.nr_kind[i]);
	same("inodes", a->nr_inodes, b->nr_inodes);
	same("chunks set aside", a->alloc.nr_aside, 0);
}

static void put_base(void)
{
	for (unsigned int i = 0; i < NR_BASE; i++)
		inode_put(base[i]);
}

static void run_round(const struct round *r)
{
	struct foliofs_stat before, after;
	struct census was, is;

	rnd_now = r;
	alarm(UNDER_TSAN ? 200 : 100);
	make_fs();
	open_fs();
	populate();
	run_threads();
	was = take_census();
	put_all();
	foliofs_stat(fs, &before, true);
	if (before.damaged)
		die("damage was met");
	foliofs_close(fs);

	check_fs();
	open_fs();
	foliofs_stat(fs, &after, true);
	compare_stat(&before, &after);
	find_again();
	is = take_census();
	same("names", was.nr_files, is.nr_files);
	same("hash of all that can be seen", was.hash, is.hash);
	put_base();
	foliofs_close(fs);
	unlink(device);
}

int main(int argc, char **argv)
{
	unsigned int nr =
		argc > 2 ? (unsigned int)strtoul(argv[2], NULL, 0) : NR_ROUNDS;

	seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	snprintf(device, sizeof(device), "/dev/shm/foliofs-race-%d",
		 (int)getpid());
	for (unsigned int i = 0; i < nr; i++, seed = mix(seed))
		run_round(&rounds[i % NR_ROUNDS]);
	return 0;
}
