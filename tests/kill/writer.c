/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/kill/writer.c - a process that changes files and knows what it was told
 */
#include "tests/kill/writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/fops.h"

#define NR_DIRS 2
#define NR_HELD 3
#define XATTR	"user.kill"
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static const char *const op_names[NR_KILL_OPS] = {
	"create", "write",    "mmap",  "punch", "truncate",
	"chmod",  "xattr",    "fsync", "link",	"unlink",
	"rename", "exchange", "mkdir", "rmdir", "symlink",
};

/* --- names ------------------------------------------------------------------
 */

static const char *path_of(const struct writer *w, int name)
{
	static char path[4][64];
	static unsigned int turn;
	char *p = path[turn++ % 4];

	snprintf(p, sizeof(path[0]), "w%d-%d/name-%d", w->nr, name % NR_DIRS,
		 name);
	return p;
}

static void target_of(uint64_t target, char *out)
{
	sprintf(out, "target-%llx", (unsigned long long)target);
}

void writer_set_up(const struct writer *w)
{
	char path[64];

	for (int i = 0; i < NR_DIRS; i++) {
		snprintf(path, sizeof(path), "w%d-%d", w->nr, i);
		if (mkdir(path, 0755)) {
			perror(path);
			_exit(1);
		}
	}
}

/* --- what an operation makes of a tree
 * ---------------------------------------- */

static int free_file(const struct tree *t)
{
	int i = 0;

	while (t->files[i].nlink)
		i++;
	return i;
}

static void drop_name(struct tree *t, int name)
{
	struct name *n = &t->names[name];

	if (n->type == NAME_FILE)
		t->files[n->file].nlink--;
	n->type = NAME_NONE;
}

static void apply_create(struct tree *t, const struct kill_op *op)
{
	int file = free_file(t);

	memset(&t->files[file], 0, sizeof(t->files[file]));
	t->files[file].nlink = 1;
	t->files[file].mode = 0644;
	t->names[op->a] = (struct name){ .type = NAME_FILE, .file = file };
}

static void apply_truncate(struct file *f, uint32_t size)
{
	if (size < f->size)
		memset(f->data + size, 0, f->size - size);
	f->size = size;
}

static void apply_write(struct file *f, const struct kill_op *op)
{
	pattern(f->data + op->pos, op->pos, op->len, op->seed);
	if (op->pos + op->len > f->size)
		f->size = op->pos + op->len;
}

static void apply_file_op(struct tree *t, const struct kill_op *op)
{
	struct file *f = &t->files[t->names[op->a].file];

	switch ((int)op->kind) {
	case K_WRITE:
	case K_MMAP:
		apply_write(f, op);
		break;
	case K_PUNCH:
		memset(f->data + op->pos, 0, op->len);
		break;
	case K_TRUNCATE:
		apply_truncate(f, op->pos);
		break;
	case K_CHMOD:
		f->mode = op->pos & 0777;
		break;
	case K_XATTR:
		f->xattr = op->seed;
		break;
	default:
		break;
	}
}

static void apply_rename(struct tree *t, const struct kill_op *op)
{
	struct name from = t->names[op->a];

	if (op->kind == K_EXCHANGE) {
		t->names[op->a] = t->names[op->b];
		t->names[op->b] = from;
		return;
	}
	drop_name(t, op->b);
	t->names[op->b] = from;
	t->names[op->a].type = NAME_NONE;
}

static void apply(struct tree *t, const struct kill_op *op)
{
	switch ((int)op->kind) {
	case K_CREATE:
		apply_create(t, op);
		break;
	case K_LINK:
		t->names[op->b] = t->names[op->a];
		t->files[t->names[op->a].file].nlink++;
		break;
	case K_UNLINK:
	case K_RMDIR:
		drop_name(t, op->a);
		break;
	case K_RENAME:
	case K_EXCHANGE:
		apply_rename(t, op);
		break;
	case K_MKDIR:
		t->names[op->a].type = NAME_DIR;
		break;
	case K_SYMLINK:
		t->names[op->a] = (struct name){ .type = NAME_SYMLINK,
						 .target = op->seed };
		break;
	default:
		apply_file_op(t, op);
	}
}

/* --- choosing and doing
 * --------------------------------------------------------- */

static int pick(struct writer *w, enum name_type type)
{
	int name = (int)(rnd(&w->rng) % NR_NAMES);

	for (int i = 0; i < NR_NAMES; i++) {
		if (w->tree.names[name].type == type)
			return name;
		name = (name + 1) % NR_NAMES;
	}
	return -1;
}

/* Which kind of name an operation begins with. */
static enum name_type type_for(enum kill_op_kind kind, uint64_t dice)
{
	switch ((int)kind) {
	case K_CREATE:
	case K_MKDIR:
	case K_SYMLINK:
		return NAME_NONE;
	case K_RMDIR:
		return NAME_DIR;
	case K_UNLINK:
		return dice % 4 ? NAME_FILE : NAME_SYMLINK;
	case K_RENAME:
	case K_EXCHANGE:
		return dice % 4	  ? NAME_FILE
		       : dice % 8 ? NAME_DIR
				  : NAME_SYMLINK;
	default:
		return NAME_FILE;
	}
}

/* A second name that the operation can work with, or -1. */
static int pick_second(struct writer *w, const struct kill_op *op)
{
	enum name_type type = w->tree.names[op->a].type, other;
	int b = (int)(rnd(&w->rng) % NR_NAMES);

	if (op->kind == K_LINK)
		return pick(w, NAME_NONE);
	if (op->kind == K_EXCHANGE)
		return b == op->a || w->tree.names[b].type == NAME_NONE ? -1
									: b;
	other = w->tree.names[b].type;
	if (b == op->a ||
	    (other != NAME_NONE && (type == NAME_DIR) != (other == NAME_DIR)))
		return -1;
	/* Between two links of one file a rename does nothing. */
	if (type == NAME_FILE && other == NAME_FILE &&
	    w->tree.names[b].file == w->tree.names[op->a].file)
		return -1;
	return b;
}

static bool within_file(struct writer *w, struct kill_op *op)
{
	uint32_t size = w->tree.files[w->tree.names[op->a].file].size;

	if (!size)
		return false;
	op->pos %= size;
	if (op->len > size - op->pos)
		op->len = size - op->pos;
	return op->len > 0;
}

static bool choose(struct writer *w, struct kill_op *op)
{
	/* Twice as often as the rest: create, write, rename. */
	unsigned int kind = (unsigned int)(rnd(&w->rng) % (NR_KILL_OPS + 4));

	if (kind >= NR_KILL_OPS)
		kind = (const unsigned int[]){ K_CREATE, K_WRITE, K_WRITE,
					       K_RENAME }[kind - NR_KILL_OPS];
	op->kind = (enum kill_op_kind)kind;
	op->a = pick(w, type_for(op->kind, rnd(&w->rng)));
	if (op->a < 0)
		return false;
	op->pos = (uint32_t)(rnd(&w->rng) % (MAX_FILE / 2));
	op->len = 1 + (uint32_t)(rnd(&w->rng) %
				 (rnd(&w->rng) % 2 ? 500 : MAX_FILE / 2));
	op->seed = rnd(&w->rng) | 1;
	op->b = -1;
	if (op->kind == K_MMAP || op->kind == K_PUNCH)
		return within_file(w, op);
	if (op->kind != K_LINK && op->kind != K_RENAME &&
	    op->kind != K_EXCHANGE)
		return true;
	op->b = pick_second(w, op);
	return op->b >= 0;
}

static int do_mmap(int fd, const struct kill_op *op)
{
	uint32_t start = op->pos & ~4095u, off = op->pos - start;
	unsigned char *p;
	int ret;

	p = mmap(NULL, off + op->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		 start);
	if (p == MAP_FAILED)
		return -1;
	pattern(p + off, op->pos, op->len, op->seed);
	ret = msync(p, off + op->len, MS_SYNC);
	munmap(p, off + op->len);
	return ret;
}

static int do_write(int fd, const struct kill_op *op)
{
	unsigned char buf[MAX_FILE];
	ssize_t n;

	pattern(buf, op->pos, op->len, op->seed);
	n = pwrite(fd, buf, op->len, op->pos);
	if (n >= 0 && n != (ssize_t)op->len)
		errno = EIO;
	return n == (ssize_t)op->len ? 0 : -1;
}

static int do_open_file(struct writer *w, const struct kill_op *op, int fd)
{
	int ret;

	switch ((int)op->kind) {
	case K_WRITE:
		ret = do_write(fd, op);
		break;
	case K_MMAP:
		ret = do_mmap(fd, op);
		break;
	case K_PUNCH:
		ret = fallocate(fd, PUNCH, op->pos, op->len);
		break;
	case K_TRUNCATE:
		ret = ftruncate(fd, op->pos);
		break;
	default:
		return fsync(fd);
	}
	return ret || !w->sync ? ret : fsync(fd);
}

static int do_file_op(struct writer *w, const struct kill_op *op)
{
	int fd = open(path_of(w, op->a), O_RDWR | O_CLOEXEC), ret, err;

	if (fd < 0)
		return -1;
	ret = do_open_file(w, op, fd);
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

static int do_create(struct writer *w, const struct kill_op *op)
{
	int fd = open(path_of(w, op->a),
		      O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

/* Now and then the file stays open, so that it dies with its last close. */
static int do_unlink(struct writer *w, const struct kill_op *op)
{
	static int held[NR_HELD] = { -1, -1, -1 };
	int *fd = &held[op->seed % NR_HELD];

	if (op->seed % 8 == 1) {
		if (*fd >= 0)
			close(*fd);
		*fd = open(path_of(w, op->a), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	}
	return unlink(path_of(w, op->a));
}

static int do_symlink(struct writer *w, const struct kill_op *op)
{
	char target[64];

	target_of(op->seed, target);
	return symlink(target, path_of(w, op->a));
}

static int do_op(struct writer *w, const struct kill_op *op)
{
	switch ((int)op->kind) {
	case K_CREATE:
		return do_create(w, op);
	case K_CHMOD:
		return chmod(path_of(w, op->a), op->pos & 0777);
	case K_XATTR:
		return setxattr(path_of(w, op->a), XATTR, &op->seed,
				sizeof(op->seed), 0);
	case K_LINK:
		return link(path_of(w, op->a), path_of(w, op->b));
	case K_UNLINK:
		return do_unlink(w, op);
	case K_RENAME:
		return rename(path_of(w, op->a), path_of(w, op->b));
	case K_EXCHANGE:
		return renameat2(AT_FDCWD, path_of(w, op->a), AT_FDCWD,
				 path_of(w, op->b), RENAME_EXCHANGE);
	case K_MKDIR:
		return mkdir(path_of(w, op->a), 0755);
	case K_RMDIR:
		return rmdir(path_of(w, op->a));
	case K_SYMLINK:
		return do_symlink(w, op);
	default:
		return do_file_op(w, op);
	}
}

/* A store into a mapping has no other way to fail. */
static volatile bool *writer_killing;

static void on_sigbus(int sig)
{
	static const char msg[] = "# SIGBUS while the daemon lived\n";

	(void)sig;
	if (*writer_killing)
		_exit(0);
	(void)!write(1, msg, sizeof(msg) - 1);
	_exit(1);
}

void writer_run(struct writer *w)
{
	writer_killing = w->killing;
	signal(SIGBUS, on_sigbus);
	for (;;) {
		if (!choose(w, &w->op))
			continue;
		w->pending = true;
		if (do_op(w, &w->op))
			break;
		apply(&w->tree, &w->op);
		w->pending = false;
		w->nr_done[w->op.kind]++;
	}
	if (*w->killing)
		_exit(0);
	printf("# writer %d: %s(%s): %s\n", w->nr, op_names[w->op.kind],
	       path_of(w, w->op.a), strerrorname_np(errno));
	fflush(stdout);
	_exit(1);
}

/* --- checking
 * ------------------------------------------------------------------- */

/* Where the first difference is, for the reader; empty when there is none. */
static char why[300];

#define DIFFERS(...) (snprintf(why, sizeof(why), __VA_ARGS__), false)

/*
 * The range of the file in which bytes may be of either tree; its size may be
 * anything between.  Beside that, the trees are compared as they are.
 */
struct mixed {
	int file; /* -1: none */
	uint32_t pos, end;
	const struct file *other;
};

static bool same_data(const char *path, uint32_t size, const struct file *want,
		      const struct mixed *mixed)
{
	static unsigned char buf[MAX_FILE + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return DIFFERS("%s: open: %s", path, strerrorname_np(errno));
	n = pread(fd, buf, sizeof(buf), 0);
	close(fd);
	if (n != (ssize_t)size)
		return DIFFERS("%s: read gave %zd, should be %u", path, n,
			       size);
	for (uint32_t i = 0; i < size; i++) {
		if (buf[i] == want->data[i])
			continue;
		if (mixed && i >= mixed->pos && i < mixed->end &&
		    buf[i] == mixed->other->data[i])
			continue;
		return DIFFERS("%s: byte %u is %#x, should be %#x", path, i,
			       buf[i], want->data[i]);
	}
	return true;
}

static bool same_xattr(const char *path, uint64_t want)
{
	uint64_t got = 0;

	if (getxattr(path, XATTR, &got, sizeof(got)) < 0 && errno != ENODATA)
		return DIFFERS("%s: getxattr: %s", path,
			       strerrorname_np(errno));
	if (got != want)
		return DIFFERS("%s: attribute is %llx, should be %llx", path,
			       (unsigned long long)got,
			       (unsigned long long)want);
	return true;
}

static bool same_size(const char *path, off_t size, const struct file *want,
		      const struct mixed *mixed)
{
	uint32_t a = want->size, b = mixed ? mixed->other->size : a;

	if ((size >= a && size <= b) || (size >= b && size <= a))
		return true;
	return DIFFERS("%s has %lld bytes, should be %u", path, (long long)size,
		       a);
}

static bool same_file(const char *path, const struct stat *st,
		      const struct file *want, const struct mixed *mixed)
{
	if (!S_ISREG(st->st_mode))
		return DIFFERS("%s is no file", path);
	if ((int)st->st_nlink != want->nlink)
		return DIFFERS("%s has %lu links, should be %d", path,
			       (unsigned long)st->st_nlink, want->nlink);
	if (!same_size(path, st->st_size, want, mixed))
		return false;
	if ((st->st_mode & 07777) != want->mode)
		return DIFFERS("%s has mode %o, should be %o", path,
			       st->st_mode & 07777, want->mode);
	return same_xattr(path, want->xattr) &&
	       same_data(path, (uint32_t)st->st_size, want, mixed);
}

static bool same_symlink(const char *path, uint64_t target)
{
	char want[64], got[64] = "";
	ssize_t n = readlink(path, got, sizeof(got) - 1);

	target_of(target, want);
	if (n < 0 || strcmp(got, want))
		return DIFFERS("%s leads to \"%s\", should be \"%s\"", path,
			       got, want);
	return true;
}

/* Names of one file have one inode number, and no other file has it. */
static bool same_identity(const char *path, ino_t *inos, int file, ino_t ino)
{
	for (int i = 0; i < NR_FILES; i++)
		if (i != file && inos[i] == ino)
			return DIFFERS("%s has the inode of another file",
				       path);
	if (inos[file] && inos[file] != ino)
		return DIFFERS("%s is not the file that it should be", path);
	inos[file] = ino;
	return true;
}

static bool same_name(const struct writer *w, const struct tree *t, int nr,
		      const struct mixed *mixed, ino_t *inos)
{
	const struct name *n = &t->names[nr];
	const char *path = path_of(w, nr);
	struct stat st;

	if (lstat(path, &st)) {
		if (errno == ENOENT && n->type == NAME_NONE)
			return true;
		return DIFFERS("%s: lstat: %s", path, strerrorname_np(errno));
	}
	switch (n->type) {
	case NAME_FILE:
		return same_identity(path, inos, n->file, st.st_ino) &&
		       same_file(path, &st, &t->files[n->file],
				 mixed->file == n->file ? mixed : NULL);
	case NAME_DIR:
		return S_ISDIR(st.st_mode)
			       ? true
			       : DIFFERS("%s is no directory", path);
	case NAME_SYMLINK:
		return same_symlink(path, n->target);
	case NAME_NONE:
	default:
		return DIFFERS("%s should not exist", path);
	}
}

/* What is listed is there, and all that is there is listed. */
static bool same_listing(const struct writer *w, const struct tree *t, int dir)
{
	struct dirent *de;
	char path[64];
	int nr = 0, want = 0;
	DIR *d;

	for (int i = dir; i < NR_NAMES; i += NR_DIRS)
		want += t->names[i].type != NAME_NONE;
	snprintf(path, sizeof(path), "w%d-%d", w->nr, dir);
	d = opendir(path);
	if (!d)
		return DIFFERS("%s: opendir: %s", path, strerrorname_np(errno));
	while ((de = readdir(d)))
		nr += de->d_name[0] != '.';
	closedir(d);
	if (nr != want)
		return DIFFERS("%s lists %d names, should be %d", path, nr,
			       want);
	return true;
}

static bool same_tree(const struct writer *w, const struct tree *t,
		      const struct mixed *mixed)
{
	ino_t inos[NR_FILES] = { 0 };

	for (int i = 0; i < NR_NAMES; i++)
		if (!same_name(w, t, i, mixed, inos))
			return false;
	for (int i = 0; i < NR_DIRS; i++)
		if (!same_listing(w, t, i))
			return false;
	return true;
}

/* The state on media is the truth now: read the file that was in the middle. */
static void adopt_data(struct writer *w, struct file *f)
{
	int fd = open(path_of(w, w->op.a), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : pread(fd, f->data, MAX_FILE, 0);

	if (n < 0)
		abort();
	memset(f->data + n, 0, MAX_FILE - (size_t)n);
	f->size = (uint32_t)n;
	close(fd);
}

static bool data_op(enum kill_op_kind kind)
{
	return kind == K_WRITE || kind == K_MMAP || kind == K_PUNCH;
}

/* Where a write was under way, bytes are old or new, each by itself. */
static struct mixed find_mixed(const struct writer *w, const struct tree *other)
{
	int file = w->tree.names[w->op.a].file;

	if (!data_op(w->op.kind) || (w->atomic && w->op.kind != K_MMAP))
		return (struct mixed){ .file = -1 };
	return (struct mixed){ .file = file,
			       .pos = w->op.pos,
			       .end = w->op.pos + w->op.len,
			       .other = &other->files[file] };
}

static bool check_pending(struct writer *w)
{
	struct mixed mixed;
	char first[300];

	w->other = w->tree;
	apply(&w->other, &w->op);
	mixed = find_mixed(w, &w->other);
	if (same_tree(w, &w->tree, &mixed))
		goto adopt;
	strcpy(first, why);
	mixed = find_mixed(w, &w->tree);
	if (same_tree(w, &w->other, &mixed)) {
		w->tree = w->other;
		goto adopt;
	}
	printf("# writer %d: not as before %s: %s\n# and not as after it: %s\n",
	       w->nr, op_names[w->op.kind], first, why);
	return false;

adopt:
	if (mixed.file >= 0)
		adopt_data(w, &w->tree.files[mixed.file]);
	return true;
}

bool writer_check(struct writer *w)
{
	const struct mixed none = { .file = -1 };

	if (w->pending) {
		w->pending = false;
		return check_pending(w);
	}
	if (same_tree(w, &w->tree, &none))
		return true;
	printf("# writer %d: %s\n", w->nr, why);
	return false;
}
