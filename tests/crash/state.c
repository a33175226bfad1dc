/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/state.c - all that a user can see of a filesystem
 *
 * Contents are read through the same calls that requests go through.  Small
 * files are read whole, holes included; of large ones the parts that
 * SEEK_DATA shows.
 */
#include "tests/crash/state.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <xxhash.h>

#include "fs/fs.h"
#include "tests/crash/log.h"

/* Below this a file is read whole. */
#define READ_WHOLE (UINT64_C(128) * 1024)
#define NR_IOV	   32

struct walk {
	struct foliofs *fs;
	unsigned int flags;
	struct state *s;
	struct errmsg *err;
	char path[4096];
	size_t path_len;
};

static void *state_room(struct state *s, size_t len)
{
	if (s->cap - s->len < len) {
		s->cap = (s->len + len) * 2;
		s->buf = (unsigned char *)test_realloc(s->buf, s->cap);
	}
	return s->buf + s->len;
}

static void state_add(struct state *s, const void *data, size_t len)
{
	memcpy(state_room(s, len), data, len);
	s->len += len;
}

static void state_printf(struct state *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void state_printf(struct state *s, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	assert(len >= 0 && (size_t)len < sizeof(text));
	state_add(s, text, (size_t)len);
}

static struct state_entry *state_entry(struct state *s)
{
	if (s->nr == s->cap_entry) {
		s->cap_entry = s->cap_entry ? s->cap_entry * 2 : 16;
		s->entry = (struct state_entry *)test_realloc(
			s->entry, s->cap_entry * sizeof(*s->entry));
	}
	return &s->entry[s->nr++];
}

static void state_seg(struct state *s, const struct state_seg *seg)
{
	if (s->nr_seg == s->cap_seg) {
		s->cap_seg = s->cap_seg ? s->cap_seg * 2 : 16;
		s->seg = (struct state_seg *)test_realloc(
			s->seg, s->cap_seg * sizeof(*s->seg));
	}
	s->seg[s->nr_seg++] = *seg;
}

void state_free(struct state *s)
{
	free(s->seg);
	free(s->buf);
	free(s->entry);
	memset(s, 0, sizeof(*s));
}

void state_copy(struct state *to, const struct state *from)
{
	to->len = 0;
	to->nr = 0;
	to->nr_seg = 0;
	state_add(to, from->buf, from->len);
	for (unsigned int i = 0; i < from->nr; i++)
		*state_entry(to) = from->entry[i];
	for (unsigned int i = 0; i < from->nr_seg; i++)
		state_seg(to, &from->seg[i]);
}

bool state_equal(const struct state *a, const struct state *b)
{
	return a->len == b->len && memcmp(a->buf, b->buf, a->len) == 0;
}

static int fail(const struct walk *w, int ret, const char *what)
{
	return err_set(w->err, ret, "%s: %s: %s", w->path_len ? w->path : "/",
		       what, strerror(-ret));
}

/* Contents, holes read as zeros. */
static int read_range(struct walk *w, struct inode *ip, uint64_t pos,
		      uint64_t len)
{
	struct iovec iov[NR_IOV];
	int ret = 0;

	while (len && !ret) {
		struct fs_iov fi = { .iov = iov, .nr = 0, .max = NR_IOV };
		uint64_t got = 0;

		rwsem_down_read(&ip->rwsem, LOCK_INODE);
		ret = file_read(ip, pos, len, &fi, &got);
		for (int i = 0; i < fi.nr && !ret; i++)
			state_add(w->s, iov[i].iov_base, iov[i].iov_len);
		rwsem_up_read(&ip->rwsem);
		if (!ret && (got == 0 || got > len))
			ret = -EIO;
		pos += got;
		len -= got;
	}
	return ret;
}

/* The next part of the file that is data; ret_len 0 at the end. */
static int next_data(struct inode *ip, uint64_t pos, uint64_t *ret_pos,
		     uint64_t *ret_len)
{
	uint64_t start, end, size = inode_size(ip);
	int ret;

	*ret_len = 0;
	if (pos >= size)
		return 0;
	ret = file_seek(ip, pos, true, &start);
	if (ret == -ENXIO)
		return 0;
	if (!ret)
		ret = file_seek(ip, start, false, &end);
	if (ret)
		return ret;
	*ret_pos = start;
	*ret_len = end - start;
	return 0;
}

/* Where the data is goes into the attributes. */
static int add_layout(struct walk *w, struct inode *ip)
{
	uint64_t pos = 0, len;
	int ret;

	state_printf(w->s, " data");
	for (;;) {
		ret = next_data(ip, pos, &pos, &len);
		if (ret || len == 0)
			return ret;
		state_printf(w->s, " %" PRIu64 "+%" PRIu64, pos, len);
		pos += len;
	}
}

/* [pos, pos + len) of the file, as a part of the entry that is being made. */
static int add_part(struct walk *w, struct inode *ip, struct state_entry *e,
		    uint64_t pos, uint64_t len)
{
	struct state_seg seg = { .pos = pos,
				 .at = w->s->len - e->data,
				 .len = len };

	state_seg(w->s, &seg);
	e->nr_seg++;
	return read_range(w, ip, pos, len);
}

static int add_contents(struct walk *w, struct inode *ip, struct state_entry *e)
{
	uint64_t pos = 0, len;
	int ret;

	if (inode_size(ip) <= READ_WHOLE)
		return add_part(w, ip, e, 0, inode_size(ip));
	for (;;) {
		ret = next_data(ip, pos, &pos, &len);
		if (ret || len == 0)
			return ret;
		ret = add_part(w, ip, e, pos, len);
		if (ret)
			return ret;
		pos += len;
	}
}

static int add_xattr(struct walk *w, struct inode *ip, const char *name)
{
	unsigned char value[4096], *big = NULL, *p = value;
	int len = xattr_get(ip, name, value, sizeof(value));

	if (len == -ERANGE) {
		big = (unsigned char *)test_realloc(NULL, 65536);
		p = big;
		len = xattr_get(ip, name, big, 65536);
	}
	if (len >= 0)
		state_printf(w->s, " %s=%d:%016" PRIx64, name, len,
			     (uint64_t)XXH3_64bits(p, (size_t)len));
	free(big);
	return len < 0 ? len : 0;
}

static int add_xattrs(struct walk *w, struct inode *ip)
{
	char list[8192];
	int len = xattr_list(ip, list, sizeof(list), true);

	if (len < 0)
		return len;
	for (char *p = list; p < list + len; p += strlen(p) + 1) {
		int ret = add_xattr(w, ip, p);

		if (ret)
			return ret;
	}
	return 0;
}

static void add_attributes(struct walk *w, struct inode *ip)
{
	struct stat st;

	inode_stat(ip, &st);
	state_printf(w->s, "%06o %u:%u nlink %u blocks %ju",
		     (unsigned int)st.st_mode, st.st_uid, st.st_gid,
		     (unsigned int)st.st_nlink, (uintmax_t)st.st_blocks);
	state_printf(w->s, " rdev %" PRIx64 " flags %x",
		     inode_word(ip, INODE_RDEV), inode_flags(ip));
	if (!(w->flags & STATE_LOOSE) || !S_ISDIR(st.st_mode))
		state_printf(w->s, " size %ju", (uintmax_t)st.st_size);
	if (w->flags & STATE_LOOSE)
		return;
	state_printf(w->s, " ino %ju gen %x parent %" PRIu64,
		     (uintmax_t)st.st_ino,
		     (uint32_t)inode_word(ip, INODE_GENFLAGS),
		     inode_word(ip, INODE_PARENT));
	state_printf(w->s, " m %" PRIu64 " c %" PRIu64 " b %" PRIu64,
		     inode_word(ip, INODE_MTIME), inode_word(ip, INODE_CTIME),
		     inode_word(ip, INODE_BTIME));
}

/* Hard links are told by the first path of the same inode. */
static void add_link(struct walk *w, const struct inode *ip)
{
	for (unsigned int i = 0; i < w->s->nr; i++)
		if (w->s->entry[i].ino == ip->ino) {
			state_printf(w->s, " as %s",
				     w->s->buf + w->s->entry[i].path);
			return;
		}
}

/* The target, as media has it: in the inode when it is short. */
static int add_symlink(struct walk *w, struct inode *ip)
{
	const struct foliofs_inode *fi =
		(const struct foliofs_inode *)pmem_at(ip->fs->pm, ip->off);
	uint64_t len = inode_size(ip);
	size_t start;
	int ret;

	state_add(w->s, " -> ", 4);
	if (len <= FOLIOFS_INLINE_SYMLINK) {
		state_add(w->s, fi->symlink, len);
		return 0;
	}
	start = w->s->len;
	ret = read_range(w, ip, 0, len);
	if (!ret && memchr(w->s->buf + start, 0, w->s->len - start))
		ret = -EUCLEAN;
	return ret;
}

/* Everything of one inode but what is in a directory. */
static int add_inode(struct walk *w, struct inode *ip)
{
	struct state_entry e = { .ino = ip->ino, .path = w->s->len };
	uint32_t type = inode_mode(ip) & S_IFMT;
	int ret;

	state_add(w->s, w->path, w->path_len + 1);
	e.meta = w->s->len;
	add_attributes(w, ip);
	add_link(w, ip);
	ret = add_xattrs(w, ip);
	if (!ret && type == S_IFLNK)
		ret = add_symlink(w, ip);
	if (!ret && type == S_IFREG)
		ret = add_layout(w, ip);
	state_add(w->s, "", 1);
	e.data = w->s->len;
	e.seg = w->s->nr_seg;
	if (!ret && type == S_IFREG)
		ret = add_contents(w, ip, &e);
	e.data_len = w->s->len - e.data;
	*state_entry(w->s) = e;
	return ret;
}

struct name {
	char text[256];
	uint64_t ino;
	unsigned char type;
};

struct names {
	struct name *v;
	unsigned int nr, cap;
};

static int names_add(void *ctx, const struct dir_entry *e)
{
	struct names *names = (struct names *)ctx;
	struct name *n;

	if (e->name[0] == '.' &&
	    (e->name_len == 1 || (e->name_len == 2 && e->name[1] == '.')))
		return 0;
	if (names->nr == names->cap) {
		names->cap = names->cap ? names->cap * 2 : 16;
		names->v = (struct name *)test_realloc(
			names->v, names->cap * sizeof(*names->v));
	}
	n = &names->v[names->nr++];
	memcpy(n->text, e->name, e->name_len);
	n->text[e->name_len] = '\0';
	n->ino = e->ino;
	n->type = e->type;
	return 0;
}

static int names_read(struct inode *dir, struct names *names)
{
	int ret;

	rwsem_down_read(&dir->rwsem, LOCK_INODE_PARENT);
	ret = dir_iterate(dir, 0, names_add, names);
	rwsem_up_read(&dir->rwsem);
	return ret;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct name *)a)->text,
		      ((const struct name *)b)->text);
}

static int walk_dir(struct walk *w, struct inode *dir);

static int walk_name(struct walk *w, struct inode *dir, const struct name *n)
{
	size_t len = strlen(n->text);
	struct inode *ip;
	int ret;

	if (w->path_len + len + 2 > sizeof(w->path))
		return fail(w, -ENAMETOOLONG, "too deep");
	w->path[w->path_len] = '/';
	memcpy(w->path + w->path_len + 1, n->text, len + 1);
	w->path_len += len + 1;

	/* By name, as a user would; it must be what readdir has said. */
	ret = fs_lookup(dir, n->text, &ip);
	if (ret)
		return fail(w, ret, "in its directory but not to be found");
	if (ip->ino != n->ino || (inode_mode(ip) & S_IFMT) >> 12 != n->type)
		ret = fail(w, -EUCLEAN, "not what its directory says");
	if (!ret) {
		ret = add_inode(w, ip);
		if (ret)
			fail(w, ret, "cannot be read");
	}
	if (!ret && S_ISDIR(inode_mode(ip)))
		ret = walk_dir(w, ip);
	inode_put(ip);
	w->path_len -= len + 1;
	w->path[w->path_len] = '\0';
	return ret;
}

static int walk_dir(struct walk *w, struct inode *dir)
{
	struct names names = { NULL, 0, 0 };
	int ret = names_read(dir, &names);

	if (ret)
		fail(w, ret, "directory cannot be read");
	else if (names.nr)
		qsort(names.v, names.nr, sizeof(*names.v), by_name);
	for (unsigned int i = 0; i < names.nr && !ret; i++) {
		if (i && strcmp(names.v[i].text, names.v[i - 1].text) == 0)
			ret = fail(w, -EUCLEAN, "two entries of one name");
		else
			ret = walk_name(w, dir, &names.v[i]);
	}
	free(names.v);
	return ret;
}

int state_take(struct foliofs *fs, unsigned int flags, struct state *ret,
	       struct errmsg *err)
{
	struct walk w = { .fs = fs, .flags = flags, .s = ret, .err = err };
	struct inode *root;
	int rc;

	ret->len = 0;
	ret->nr = 0;
	ret->nr_seg = 0;
	rc = inode_get(fs, FOLIOFS_ROOT_INO, &root);
	if (rc)
		return fail(&w, rc, "no root directory");
	rc = add_inode(&w, root);
	if (rc)
		fail(&w, rc, "cannot be read");
	else
		rc = walk_dir(&w, root);
	inode_put(root);
	if (!rc && atomic_load(&fs->damaged))
		rc = err_set(err, -EUCLEAN, "marked as damaged");
	return rc;
}

static const char *path_of(const struct state *s, unsigned int i)
{
	return (const char *)s->buf + s->entry[i].path;
}

static const char *meta_of(const struct state *s, unsigned int i)
{
	return (const char *)s->buf + s->entry[i].meta;
}

static const unsigned char *data_of(const struct state *s, unsigned int i)
{
	return s->buf + s->entry[i].data;
}

static bool in_mix(const struct mix *mix, unsigned int nr_mix, uint64_t ino,
		   uint64_t pos)
{
	for (unsigned int i = 0; i < nr_mix; i++)
		if (mix[i].ino == ino && pos >= mix[i].pos &&
		    pos - mix[i].pos < mix[i].len)
			return true;
	return false;
}

/*
 * Word by word: bytes outside of the ranges are the wanted ones; those
 * inside are all the wanted ones or all the other ones.
 */
static bool part_mixed(const unsigned char *got, const unsigned char *want,
		       const unsigned char *other, const struct state_seg *seg,
		       uint64_t ino, const struct mix *mix, unsigned int nr_mix)
{
	bool is_want = true, is_other = true;

	for (size_t i = 0; i < seg->len; i++) {
		uint64_t pos = seg->pos + i;

		if (pos % 8 == 0)
			is_want = is_other = true;
		if (in_mix(mix, nr_mix, ino, pos)) {
			is_want &= got[i] == want[i];
			is_other &= got[i] == other[i];
		} else if (got[i] != want[i]) {
			return false;
		}
		if (!is_want && !is_other)
			return false;
	}
	return true;
}

static const struct state_entry *entry_of_inode(const struct state *s,
						uint64_t ino)
{
	for (unsigned int i = 0; i < s->nr; i++)
		if (s->entry[i].ino == ino)
			return &s->entry[i];
	return NULL;
}

/* What @s has of a part of a file; zeros where it has nothing. */
static unsigned char *part_of(const struct state *s, uint64_t ino,
			      const struct state_seg *part)
{
	const struct state_entry *e = entry_of_inode(s, ino);
	unsigned char *p = (unsigned char *)calloc(1, part->len + 1);

	assert(p);
	for (unsigned int i = 0; e && i < e->nr_seg; i++) {
		const struct state_seg *seg = &s->seg[e->seg + i];
		uint64_t from = seg->pos, to = seg->pos + seg->len;

		if (from < part->pos)
			from = part->pos;
		if (to > part->pos + part->len)
			to = part->pos + part->len;
		if (from < to)
			memcpy(p + (from - part->pos),
			       s->buf + e->data + seg->at + (from - seg->pos),
			       to - from);
	}
	return p;
}

static bool entry_mixed(const struct state *got, const struct state *want,
			const struct state *other, unsigned int i,
			const struct mix *mix, unsigned int nr_mix)
{
	const struct state_entry *e = &want->entry[i];
	bool ret = true;

	if (strcmp(path_of(got, i), path_of(want, i)) != 0 ||
	    strcmp(meta_of(got, i), meta_of(want, i)) != 0 ||
	    got->entry[i].data_len != e->data_len)
		return false;
	if (memcmp(data_of(got, i), data_of(want, i), e->data_len) == 0)
		return true;
	for (unsigned int k = 0; k < e->nr_seg && ret; k++) {
		const struct state_seg *seg = &want->seg[e->seg + k];
		unsigned char *old = part_of(other, e->ino, seg);

		ret = part_mixed(data_of(got, i) + seg->at,
				 data_of(want, i) + seg->at, old, seg, e->ino,
				 mix, nr_mix);
		free(old);
	}
	return ret;
}

bool state_equal_mixed(const struct state *got, const struct state *want,
		       const struct state *other, const struct mix *mix,
		       unsigned int nr_mix)
{
	if (nr_mix == 0)
		return state_equal(got, want);
	if (got->nr != want->nr)
		return false;
	for (unsigned int i = 0; i < want->nr; i++)
		if (!entry_mixed(got, want, other, i, mix, nr_mix))
			return false;
	return true;
}

static void diff_entry(FILE *f, const struct state *want,
		       const struct state *got, unsigned int i, unsigned int k)
{
	size_t len = want->entry[i].data_len, at = 0;

	if (strcmp(meta_of(want, i), meta_of(got, k)) != 0)
		fprintf(f, "#   %s\n#     want %s\n#     got  %s\n",
			path_of(want, i), meta_of(want, i), meta_of(got, k));
	if (got->entry[k].data_len < len)
		len = got->entry[k].data_len;
	while (at < len && data_of(want, i)[at] == data_of(got, k)[at])
		at++;
	if (at < len)
		fprintf(f, "#   %s: contents differ from byte %zu on\n",
			path_of(want, i), at);
}

void state_diff(FILE *f, const struct state *want, const struct state *got)
{
	unsigned int i = 0, k = 0;

	while (i < want->nr || k < got->nr) {
		int cmp;

		if (i == want->nr)
			cmp = 1;
		else if (k == got->nr)
			cmp = -1;
		else
			cmp = strcmp(path_of(want, i), path_of(got, k));
		if (cmp < 0)
			fprintf(f, "#   %s is missing\n", path_of(want, i++));
		else if (cmp > 0)
			fprintf(f, "#   %s should not be there\n",
				path_of(got, k++));
		else
			diff_entry(f, want, got, i++, k++);
	}
}
