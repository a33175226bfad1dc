/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/tree.c - all that can be seen of a tree, as text
 */
#include "tests/support/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define BLOCK	  4096
#define MAX_PRINT 12

struct seen {
	ino_t ino;
	char *path;
};

struct walk {
	FILE *out;
	unsigned int flags;
	struct seen *seen;
	size_t nr_seen;
	char path[PATH_MAX];
};

static void print_escaped(FILE *out, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c > ' ' && c < 127 && c != '\\')
			fputc(c, out);
		else
			fprintf(out, "\\%03o", c);
	}
}

static uint64_t hash_bytes(uint64_t h, const void *buf, size_t len)
{
	const unsigned char *p = buf;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h ^ h >> 29;
}

static bool all_zero(const char *buf, size_t len)
{
	return !len || (!buf[0] && !memcmp(buf, buf + 1, len - 1));
}

/* Add the blocks of [pos, end) that are not all zero. */
static int hash_range(int fd, off_t pos, off_t end, uint64_t *h)
{
	char buf[BLOCK];

	pos &= ~(off_t)(BLOCK - 1);
	for (; pos < end; pos += BLOCK) {
		ssize_t n = pread(fd, buf, sizeof(buf), pos);

		if (n < 0)
			return -errno;
		memset(buf + n, 0, sizeof(buf) - (size_t)n);
		if (all_zero(buf, sizeof(buf)))
			continue;
		*h = hash_bytes(*h, &pos, sizeof(pos));
		*h = hash_bytes(*h, buf, sizeof(buf));
	}
	return 0;
}

static int hash_data(int fd, off_t size, uint64_t *h)
{
	off_t pos = 0;
	int ret = 0;

	while (!ret && pos < size) {
		off_t data = lseek(fd, pos, SEEK_DATA), hole;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		ret = hash_range(fd, data, hole < size ? hole : size, h);
		pos = hole;
	}
	return ret;
}

static void print_data(struct walk *w, const struct stat *st)
{
	uint64_t h = 0xcbf29ce484222325ull;
	int fd, ret;

	if (w->flags & TREE_NO_DATA)
		return;
	fd = open(w->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME);
	ret = fd < 0 ? -errno : hash_data(fd, st->st_size, &h);
	if (fd >= 0)
		close(fd);
	if (ret)
		fprintf(w->out, " data:%s", strerrorname_np(-ret));
	else
		fprintf(w->out, " data:%016llx", (unsigned long long)h);
}

static void print_xattr(struct walk *w, const char *name)
{
	static char value[65536];
	ssize_t len = lgetxattr(w->path, name, value, sizeof(value));

	fprintf(w->out, " %s=", name);
	if (len < 0)
		fputs(strerrorname_np(errno), w->out);
	else if (len <= 32)
		print_escaped(w->out, value, (size_t)len);
	else
		fprintf(w->out, "%zd:%016llx", len,
			(unsigned long long)hash_bytes(1, value, (size_t)len));
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void print_xattrs(struct walk *w)
{
	static char list[65536];
	static char *names[4096];
	ssize_t len = llistxattr(w->path, list, sizeof(list));
	size_t nr = 0;

	if (len < 0) {
		if (errno != EOPNOTSUPP)
			fprintf(w->out, " xattrs:%s", strerrorname_np(errno));
		return;
	}
	for (char *p = list; p < list + len && nr < 4096; p += strlen(p) + 1)
		names[nr++] = p;
	qsort(names, nr, sizeof(names[0]), by_name);
	/* XFS shows its ACLs a second time, under a name of its own. */
	for (size_t i = 0; i < nr; i++)
		if (strncmp(names[i], "trusted.SGI_ACL", 15))
			print_xattr(w, names[i]);
}

/* The first path of an inode with several. */
static const char *first_path(struct walk *w, ino_t ino)
{
	for (size_t i = 0; i < w->nr_seen; i++)
		if (w->seen[i].ino == ino)
			return w->seen[i].path;
	w->seen = realloc(w->seen, (w->nr_seen + 1) * sizeof(*w->seen));
	w->seen[w->nr_seen].ino = ino;
	w->seen[w->nr_seen].path = strdup(w->path);
	w->nr_seen++;
	return NULL;
}

static char type_char(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return '-';
	case S_IFDIR:
		return 'd';
	case S_IFLNK:
		return 'l';
	case S_IFIFO:
		return 'p';
	case S_IFSOCK:
		return 's';
	case S_IFCHR:
		return 'c';
	case S_IFBLK:
		return 'b';
	default:
		return '?';
	}
}

static void print_time(struct walk *w, const char *name, struct timespec ts)
{
	fprintf(w->out, " %s:%lld.%09ld", name, (long long)ts.tv_sec,
		ts.tv_nsec);
}

static void print_times(struct walk *w, const struct stat *st)
{
	if (w->flags & TREE_TIMES) {
		print_time(w, "m", st->st_mtim);
		print_time(w, "c", st->st_ctim);
	}
	if (w->flags & TREE_ATIME)
		print_time(w, "a", st->st_atim);
	/* XFS moves the mtime of a directory that gets another parent. */
	if (!(w->flags & TREE_OLD_MTIME) || S_ISDIR(st->st_mode))
		return;
	if (st->st_mtim.tv_sec < TREE_NOW)
		print_time(w, "m", st->st_mtim);
	else
		fputs(" m:now", w->out);
}

static void print_target(struct walk *w)
{
	char target[PATH_MAX];
	ssize_t len = readlink(w->path, target, sizeof(target));

	fputs(" -> ", w->out);
	if (len < 0)
		fputs(strerrorname_np(errno), w->out);
	else
		print_escaped(w->out, target, (size_t)len);
}

static void print_content(struct walk *w, const struct stat *st)
{
	if (S_ISREG(st->st_mode)) {
		fprintf(w->out, " size:%lld", (long long)st->st_size);
		print_data(w, st);
	} else if (S_ISLNK(st->st_mode)) {
		fprintf(w->out, " size:%lld", (long long)st->st_size);
		print_target(w);
	} else if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		fprintf(w->out, " rdev:%llx", (unsigned long long)st->st_rdev);
	}
}

static void print_entry(struct walk *w, const struct stat *st)
{
	const char *same = NULL;

	print_escaped(w->out, w->path, strlen(w->path));
	fprintf(w->out, " %c%04o %u:%u n%lu", type_char(st->st_mode),
		st->st_mode & 07777, st->st_uid, st->st_gid,
		(unsigned long)st->st_nlink);
	if (w->flags & TREE_INO)
		fprintf(w->out, " i%llu", (unsigned long long)st->st_ino);
	if (w->flags & TREE_BLOCKS)
		fprintf(w->out, " b%lld", (long long)st->st_blocks);
	print_times(w, st);
	if (!S_ISDIR(st->st_mode) && st->st_nlink > 1)
		same = first_path(w, st->st_ino);
	if (same) {
		fputs(" = ", w->out);
		print_escaped(w->out, same, strlen(same));
	} else {
		print_content(w, st);
		print_xattrs(w);
	}
	fputc('\n', w->out);
}

static void walk(struct walk *w);

static int not_dots(const struct dirent *de)
{
	return strcmp(de->d_name, ".") && strcmp(de->d_name, "..");
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void walk_children(struct walk *w)
{
	size_t len = strlen(w->path);
	struct dirent **list;
	int nr = scandir(w->path, &list, not_dots, by_bytes);

	if (nr < 0) {
		fprintf(w->out, "readdir: %s\n", strerrorname_np(errno));
		return;
	}
	for (int i = 0; i < nr; i++) {
		snprintf(w->path + len, sizeof(w->path) - len, "/%s",
			 list[i]->d_name);
		walk(w);
		w->path[len] = '\0';
		free(list[i]);
	}
	free(list);
}

static void walk(struct walk *w)
{
	struct stat st;

	if (lstat(w->path, &st)) {
		print_escaped(w->out, w->path, strlen(w->path));
		fprintf(w->out, " lstat:%s\n", strerrorname_np(errno));
		return;
	}
	print_entry(w, &st);
	if (S_ISDIR(st.st_mode))
		walk_children(w);
}

char *tree_text(const char *root, unsigned int flags)
{
	struct walk w = { .flags = flags, .path = "." };
	char *text = NULL;
	size_t len;
	int back;

	back = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (chdir(root)) {
		printf("# tree %s: %s\n", root, strerrorname_np(errno));
		close(back);
		return NULL;
	}
	w.out = open_memstream(&text, &len);
	walk(&w);
	fclose(w.out);
	for (size_t i = 0; i < w.nr_seen; i++)
		free(w.seen[i].path);
	free(w.seen);
	if (fchdir(back))
		printf("# tree: cannot go back: %s\n", strerrorname_np(errno));
	close(back);
	return text;
}

static size_t line_len(const char *s)
{
	return strcspn(s, "\n");
}

static const char *next_line(const char *s)
{
	s += line_len(s);
	return *s ? s + 1 : s;
}

static size_t path_len(const char *s)
{
	return strcspn(s, " \n");
}

/* By path, as the walk sorts: the end of a name comes before everything. */
static int compare_paths(const char *a, const char *b)
{
	size_t n = path_len(a), m = path_len(b);

	for (size_t i = 0; i < n && i < m; i++) {
		int x = a[i] == '/' ? 1 : (unsigned char)a[i];
		int y = b[i] == '/' ? 1 : (unsigned char)b[i];

		if (x != y)
			return x - y;
	}
	return (n > m) - (n < m);
}

static void print_line(const char *name, const char *line)
{
	if (line)
		printf("# %s: %.*s\n", name, (int)line_len(line), line);
}

bool tree_equal(const char *a_name, const char *a, const char *b_name,
		const char *b)
{
	int printed = 0;

	if (!a || !b)
		return false;
	while ((*a || *b) && printed < MAX_PRINT) {
		int cmp = !*a ? 1 : !*b ? -1 : compare_paths(a, b);
		bool same = !cmp && line_len(a) == line_len(b) &&
			    !memcmp(a, b, line_len(a));

		if (!same) {
			if (cmp <= 0)
				print_line(a_name, a);
			if (cmp >= 0)
				print_line(b_name, b);
			printed++;
		}
		if (cmp <= 0)
			a = next_line(a);
		if (cmp >= 0)
			b = next_line(b);
	}
	return !printed;
}
