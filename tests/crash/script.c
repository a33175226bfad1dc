/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/script.c - operations on a filesystem, as text
 */
#include "tests/crash/script.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/fs.h"
#include "tests/crash/log.h"
#include "tests/crash/rng.h"

#define MAX_WORDS 8

static const struct cred root_cred = { .umask = 022 };

const char *script_next(const char *text, char *ret)
{
	size_t len;

	text += strspn(text, " \n\t;");
	len = strcspn(text, ";");
	if (len == 0)
		return NULL;
	assert(len < SCRIPT_MAX_CMD);
	memcpy(ret, text, len);
	ret[len] = '\0';
	return text + len;
}

/* "ab*4" is "abbbb"; the result is malloc'ed. */
static char *expand(const char *word)
{
	const char *star = strchr(word, '*');
	size_t head, times;
	char *p;

	if (!star || star == word)
		return strdup(word);
	head = (size_t)(star - word);
	times = strtoul(star + 1, NULL, 10);
	p = (char *)test_realloc(NULL, head + times + 1);
	memcpy(p, word, head);
	memset(p + head - 1, p[head - 1], times);
	p[head - 1 + times] = '\0';
	return p;
}

/* Contents that no other write puts at the same place. */
static unsigned char *pattern(uint64_t pos, uint64_t len, uint64_t seed)
{
	unsigned char *p = (unsigned char *)test_realloc(NULL, len + 1);

	for (uint64_t i = 0; i < len; i++) {
		uint64_t at = pos + i;

		p[i] = (unsigned char)(rng_mix(seed * 1000003 + at / 8) >>
				       at % 8 * 8);
	}
	return p;
}

int script_mount(struct script *s)
{
	return foliofs_open(&s->opt, &s->fs, &s->err);
}

void script_unmount(struct script *s)
{
	for (unsigned int i = 0; i < SCRIPT_HANDLES; i++)
		if (s->handle[i]) {
			file_close(s->handle[i]);
			inode_put(s->handle[i]);
			s->handle[i] = NULL;
		}
	foliofs_close(s->fs);
	s->fs = NULL;
}

void script_abandon(struct script *s)
{
	if (s->fs)
		foliofs_abandon(s->fs);
	s->fs = NULL;
	memset(s->handle, 0, sizeof(s->handle));
}

/* Open files. */

static struct inode *handle_of(const struct script *s, const char *word)
{
	unsigned int h = (unsigned int)strtoul(word, NULL, 10);

	assert(h < SCRIPT_HANDLES);
	return s->handle[h];
}

/* Takes over a reference. */
static int handle_set(struct script *s, const char *word, struct inode *ip)
{
	if (handle_of(s, word)) {
		inode_put(ip);
		return -EBUSY;
	}
	atomic_fetch_add(&ip->nr_open, 1);
	s->handle[strtoul(word, NULL, 10)] = ip;
	return 0;
}

/* Paths. */

static int find(struct script *s, const char *path, struct inode **ret_ip)
{
	char name[256];
	struct inode *ip, *next;
	int ret;

	if (path[0] == '@') {
		ip = handle_of(s, path + 1);
		if (!ip)
			return -EBADF;
		inode_ref(ip, 1);
		*ret_ip = ip;
		return 0;
	}
	ret = inode_get(s->fs, FOLIOFS_ROOT_INO, &ip);
	path += strspn(path, "/");
	while (!ret && *path) {
		size_t len = strcspn(path, "/");

		assert(len < sizeof(name));
		memcpy(name, path, len);
		name[len] = '\0';
		path += len;
		path += strspn(path, "/");
		ret = fs_lookup(ip, name, &next);
		inode_put(ip);
		ip = next;
	}
	if (!ret)
		*ret_ip = ip;
	return ret;
}

__attribute__((noinline)) static int find_parent(struct script *s,
						 const char *path,
						 struct inode **ret_dir,
						 const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	char *dir;
	int ret;

	assert(slash);
	dir = strndup(path, (size_t)(slash - path));
	ret = find(s, dir, ret_dir);
	free(dir);
	*ret_name = slash + 1;
	return ret;
}

static uint64_t number(const char *word)
{
	return strtoull(word, NULL, 0);
}

/* Modes are given in octal, as users do. */
static uint32_t mode_of(const char *word)
{
	return (uint32_t)strtoul(word, NULL, 8);
}

/* Commands.  arg[0] is the name. */

static int make(struct script *s, const char *path,
		const struct new_inode *want)
{
	struct inode *dir, *ip;
	const char *name;
	int ret;

	ret = find_parent(s, path, &dir, &name);
	if (ret)
		return ret;
	ret = fs_create(dir, name, &root_cred, want, &ip);
	if (!ret)
		inode_put(ip);
	inode_put(dir);
	return ret;
}

static int cmd_create(struct script *s, char **arg)
{
	struct new_inode want = { .mode = S_IFREG | mode_of(arg[2]) };

	return make(s, arg[1], &want);
}

static int cmd_mkdir(struct script *s, char **arg)
{
	struct new_inode want = { .mode = S_IFDIR | mode_of(arg[2]) };

	return make(s, arg[1], &want);
}

static int cmd_mknod(struct script *s, char **arg)
{
	struct new_inode want = { .mode = mode_of(arg[2]),
				  .rdev = number(arg[3]) };

	return make(s, arg[1], &want);
}

static int cmd_symlink(struct script *s, char **arg)
{
	struct new_inode want = { .mode = S_IFLNK | 0777, .symlink = arg[2] };

	return make(s, arg[1], &want);
}

static int cmd_unlink(struct script *s, char **arg)
{
	struct inode *dir;
	const char *name;
	int ret;

	ret = find_parent(s, arg[1], &dir, &name);
	if (ret)
		return ret;
	if (strcmp(arg[0], "rmdir") == 0)
		ret = fs_rmdir(dir, name);
	else
		ret = fs_unlink(dir, name);
	inode_put(dir);
	return ret;
}

static int link_to(struct script *s, struct inode *ip, const char *path)
{
	struct inode *dir;
	const char *name;
	int ret;

	ret = find_parent(s, path, &dir, &name);
	if (ret)
		return ret;
	ret = fs_link(ip, dir, name);
	inode_put(dir);
	return ret;
}

static int cmd_link(struct script *s, char **arg)
{
	struct inode *ip;
	int ret;

	ret = find(s, arg[1], &ip);
	if (ret)
		return ret;
	ret = link_to(s, ip, arg[2]);
	inode_put(ip);
	return ret;
}

static int cmd_linkh(struct script *s, char **arg)
{
	struct inode *ip = handle_of(s, arg[1]);

	return ip ? link_to(s, ip, arg[2]) : -EBADF;
}

static int cmd_rename(struct script *s, char **arg)
{
	struct inode *dir, *newdir;
	const char *name, *newname;
	unsigned int flags = 0;
	int ret;

	if (arg[3])
		flags = arg[3][0] == 'e' ? RENAME_EXCHANGE : RENAME_NOREPLACE;
	ret = find_parent(s, arg[1], &dir, &name);
	if (ret)
		return ret;
	ret = find_parent(s, arg[2], &newdir, &newname);
	if (!ret) {
		ret = fs_rename(dir, name, newdir, newname, flags);
		inode_put(newdir);
	}
	inode_put(dir);
	return ret;
}

/* Those bytes of [pos, pos + len) that a write may change where they are. */
static void note_in_place(struct script *s, struct inode *ip, uint64_t pos,
			  uint64_t len)
{
	uint64_t size = inode_size(ip), end = pos + len;

	if (s->opt.data == DATA_COW)
		return;
	if (end > size)
		end = size;
	while (pos < end && s->nr_mix < SCRIPT_MIXES) {
		uint64_t index = pos >> BLOCK_SHIFT, next;
		struct tree_run run;

		if (tree_lookup(s->fs, inode_data(ip), index, 1, true, &run))
			return;
		next = (index + 1) << BLOCK_SHIFT;
		if (next > end)
			next = end;
		if (run.type == SLOT_DATA && run.exclusive)
			s->mix[s->nr_mix++] =
				(struct mix){ ip->ino, pos, next - pos };
		pos = next;
	}
}

static int cmd_write(struct script *s, char **arg)
{
	uint64_t pos = number(arg[2]), len = number(arg[3]);
	unsigned char *data;
	struct inode *ip;
	int ret;

	ret = find(s, arg[1], &ip);
	if (ret)
		return ret;
	data = pattern(pos, len, number(arg[4]));
	note_in_place(s, ip, pos, len);
	ret = file_write(ip, data, pos, len, WRITE_KILL_SUIDGID);
	free(data);
	inode_put(ip);
	return ret;
}

/*
 * Whoever takes down the state after each operation looks at the times, so
 * that the next change has a word to set.  This one may have none.
 */
static int cmd_rewrite(struct script *s, char **arg)
{
	struct inode *ip;
	int ret = find(s, arg[1], &ip);

	if (ret)
		return ret;
	atomic_store(&ip->seen, false);
	ret = cmd_write(s, arg);
	inode_put(ip);
	return ret;
}

static int setattr(struct script *s, const char *path,
		   const struct fs_setattr *attr)
{
	struct inode *ip;
	int ret;

	ret = find(s, path, &ip);
	if (ret)
		return ret;
	ret = fs_setattr(ip, attr);
	inode_put(ip);
	return ret;
}

static int cmd_truncate(struct script *s, char **arg)
{
	struct fs_setattr a = { .valid = FATTR_SIZE, .size = number(arg[2]) };

	return setattr(s, arg[1], &a);
}

static int cmd_chmod(struct script *s, char **arg)
{
	struct fs_setattr a = { .valid = FATTR_MODE, .mode = mode_of(arg[2]) };
	struct inode *ip;
	int ret;

	ret = find(s, arg[1], &ip);
	if (ret)
		return ret;
	a.mode |= inode_mode(ip) & S_IFMT;
	ret = fs_setattr(ip, &a);
	inode_put(ip);
	return ret;
}

static int cmd_chown(struct script *s, char **arg)
{
	struct fs_setattr a = { .valid = FATTR_UID | FATTR_GID,
				.uid = (uint32_t)number(arg[2]),
				.gid = (uint32_t)number(arg[3]) };

	return setattr(s, arg[1], &a);
}

static int cmd_utimes(struct script *s, char **arg)
{
	struct fs_setattr a = { .valid = FATTR_ATIME | FATTR_MTIME,
				.atime = (int64_t)number(arg[2]),
				.mtime = (int64_t)number(arg[3]) };

	return setattr(s, arg[1], &a);
}

static int cmd_falloc(struct script *s, char **arg)
{
	uint64_t pos = number(arg[2]), len = number(arg[3]);
	struct inode *ip;
	int mode = 0, ret;

	ret = find(s, arg[1], &ip);
	if (ret)
		return ret;
	if (strcmp(arg[0], "keep") == 0)
		mode = FALLOC_FL_KEEP_SIZE;
	else if (strcmp(arg[0], "punch") == 0)
		mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	else if (strcmp(arg[0], "zero") == 0)
		mode = FALLOC_FL_ZERO_RANGE;
	else if (strcmp(arg[0], "unshare") == 0)
		mode = FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE;
	ret = file_fallocate(ip, mode, pos, len, 0);
	inode_put(ip);
	return ret;
}

static int cmd_copy(struct script *s, char **arg)
{
	uint64_t pos = number(arg[4]), want = number(arg[5]), len;
	struct inode *in, *out;
	int ret;

	ret = find(s, arg[1], &in);
	if (ret)
		return ret;
	ret = find(s, arg[3], &out);
	if (!ret) {
		note_in_place(s, out, pos, want);
		ret = file_copy(in, number(arg[2]), out, pos, want, 0, &len);
		inode_put(out);
	}
	inode_put(in);
	return ret;
}

static int share_range(const char *verb, struct inode *in, uint64_t pos_in,
		       struct inode *out, uint64_t pos_out, uint64_t len)
{
	bool same;
	int ret;

	if (strcmp(verb, "clone") == 0)
		return file_clone(in, pos_in, out, pos_out, len, 0);
	ret = file_dedupe(in, pos_in, out, pos_out, len, &same);
	/* A scenario that dedupes what differs is not what it seems. */
	return ret || same ? ret : -EBADE;
}

static int cmd_share(struct script *s, char **arg)
{
	struct inode *in, *out;
	int ret;

	ret = find(s, arg[1], &in);
	if (ret)
		return ret;
	ret = find(s, arg[3], &out);
	if (!ret) {
		ret = share_range(arg[0], in, number(arg[2]), out,
				  number(arg[4]), number(arg[5]));
		inode_put(out);
	}
	inode_put(in);
	return ret;
}

/* So that a scenario is about what its name says. */
static int cmd_chunk(struct script *s, char **arg)
{
	struct tree_run run;
	struct inode *ip;
	int ret;

	ret = find(s, arg[1], &ip);
	if (ret)
		return ret;
	ret = tree_lookup(s->fs, inode_data(ip), number(arg[2]) >> BLOCK_SHIFT,
			  1, false, &run);
	inode_put(ip);
	return ret || run.chunk ? ret : -ENOENT;
}

static int set_xattr(struct script *s, const char *path, const char *name,
		     const void *value, size_t len)
{
	struct inode *ip;
	int ret;

	ret = find(s, path, &ip);
	if (ret)
		return ret;
	ret = xattr_set(ip, name, value, len, 0, false);
	inode_put(ip);
	return ret;
}

static int cmd_setxattr(struct script *s, char **arg)
{
	uint64_t len = number(arg[3]);
	unsigned char *value = pattern(0, len, number(arg[4]));
	int ret = set_xattr(s, arg[1], arg[2], value, len);

	free(value);
	return ret;
}

static int cmd_removexattr(struct script *s, char **arg)
{
	struct inode *ip;
	int ret;

	ret = find(s, arg[1], &ip);
	if (ret)
		return ret;
	ret = xattr_remove(ip, arg[2]);
	inode_put(ip);
	return ret;
}

/*
 * owner rwx, user 1000 and mask PERM, group and others r-x; with PERM 8 just
 * what a mode can say as well.
 */
static int cmd_acl(struct script *s, char **arg)
{
	uint16_t perm = (uint16_t)number(arg[3]);
	const char *name = arg[2][0] == 'a' ? ACL_ACCESS : ACL_DEFAULT;
	struct {
		uint32_t version;
		struct {
			uint16_t tag, perm;
			uint32_t id;
		} entry[5];
	} acl = { 2,
		  { { 0x01, 7, UINT32_MAX },
		    { 0x02, perm, 1000 },
		    { 0x04, 5, UINT32_MAX },
		    { 0x10, perm, UINT32_MAX },
		    { 0x20, 5, UINT32_MAX } } };

	if (perm == 8) {
		acl.entry[1] = acl.entry[2];
		acl.entry[2] = acl.entry[4];
		return set_xattr(s, arg[1], name, &acl,
				 sizeof(acl) - 2 * sizeof(acl.entry[0]));
	}
	return set_xattr(s, arg[1], name, &acl, sizeof(acl));
}

static int cmd_setflags(struct script *s, char **arg)
{
	struct inode *ip;
	int ret;

	ret = find(s, arg[1], &ip);
	if (ret)
		return ret;
	ret = fs_setflags(ip, (uint32_t)number(arg[2]), 0);
	inode_put(ip);
	return ret;
}

static int cmd_open(struct script *s, char **arg)
{
	struct inode *ip;
	int ret;

	ret = find(s, arg[2], &ip);
	return ret ? ret : handle_set(s, arg[1], ip);
}

static int cmd_close(struct script *s, char **arg)
{
	struct inode *ip = handle_of(s, arg[1]);

	if (!ip)
		return -EBADF;
	if (atomic_fetch_sub(&ip->nr_open, 1) == 1)
		file_close(ip);
	inode_put(ip);
	s->handle[number(arg[1])] = NULL;
	return 0;
}

static int cmd_tmpfile(struct script *s, char **arg)
{
	struct inode *dir, *ip;
	int ret;

	ret = find(s, arg[2], &dir);
	if (ret)
		return ret;
	ret = fs_tmpfile(dir, &root_cred, S_IFREG | mode_of(arg[3]), &ip);
	inode_put(dir);
	return ret ? ret : handle_set(s, arg[1], ip);
}

/* The path of file @i of a filled directory; malloc'ed. */
static char *fill_path(char **arg, unsigned int i)
{
	int pad = (int)number(arg[3]);
	char *p;

	if (asprintf(&p, "%s/%0*u", arg[1], pad, i) < 0)
		abort();
	return p;
}

static int cmd_fill(struct script *s, char **arg)
{
	struct new_inode want = { .mode = S_IFREG | 0644 };
	int ret = 0;

	for (unsigned int i = 0; i < number(arg[2]) && !ret; i++) {
		char *path = fill_path(arg, i);

		ret = make(s, path, &want);
		free(path);
	}
	return ret;
}

static int cmd_drain(struct script *s, char **arg)
{
	char verb[] = "unlink";
	int ret = 0;

	for (unsigned int i = 0; i < number(arg[2]) && !ret; i++) {
		char *path = fill_path(arg, i);
		char *unlink_arg[] = { verb, path, NULL };

		ret = cmd_unlink(s, unlink_arg);
		free(path);
	}
	return ret;
}

static int cmd_remount(struct script *s, char **arg)
{
	(void)arg;
	script_unmount(s);
	return script_mount(s);
}

static int cmd_kill(struct script *s, char **arg)
{
	(void)arg;
	script_abandon(s);
	return script_mount(s);
}

static int cmd_collect(struct script *s, char **arg)
{
	(void)arg;
	s->collect = true;
	return 0;
}

static int cmd_evict(struct script *s, char **arg)
{
	(void)arg;
	evict_collected(s->fs);
	return 0;
}

static const struct {
	const char *name;
	int nr_words;
	int (*fn)(struct script *s, char **arg);
} commands[] = {
	{ "create", 3, cmd_create },
	{ "mkdir", 3, cmd_mkdir },
	{ "mknod", 4, cmd_mknod },
	{ "symlink", 3, cmd_symlink },
	{ "link", 3, cmd_link },
	{ "unlink", 2, cmd_unlink },
	{ "rmdir", 2, cmd_unlink },
	{ "rename", 3, cmd_rename },
	{ "rewrite", 5, cmd_rewrite },
	{ "write", 5, cmd_write },
	{ "truncate", 3, cmd_truncate },
	{ "copy", 6, cmd_copy },
	{ "clone", 6, cmd_share },
	{ "dedupe", 6, cmd_share },
	{ "chunk", 3, cmd_chunk },
	{ "falloc", 4, cmd_falloc },
	{ "keep", 4, cmd_falloc },
	{ "punch", 4, cmd_falloc },
	{ "zero", 4, cmd_falloc },
	{ "unshare", 4, cmd_falloc },
	{ "chmod", 3, cmd_chmod },
	{ "chown", 4, cmd_chown },
	{ "utimes", 4, cmd_utimes },
	{ "setxattr", 5, cmd_setxattr },
	{ "removexattr", 3, cmd_removexattr },
	{ "acl", 4, cmd_acl },
	{ "setflags", 3, cmd_setflags },
	{ "open", 3, cmd_open },
	{ "close", 2, cmd_close },
	{ "tmpfile", 4, cmd_tmpfile },
	{ "linkh", 3, cmd_linkh },
	{ "fill", 4, cmd_fill },
	{ "drain", 4, cmd_drain },
	{ "collect", 1, cmd_collect },
	{ "evict", 1, cmd_evict },
	{ "remount", 1, cmd_remount },
	{ "kill", 1, cmd_kill },
};

static int split(const char *cmd, char **arg)
{
	char *text = strdup(cmd), *save, *word;
	int nr = 0;

	for (word = strtok_r(text, " \n\t", &save); word;
	     word = strtok_r(NULL, " \n\t", &save)) {
		assert(nr < MAX_WORDS);
		arg[nr++] = expand(word);
	}
	arg[nr] = NULL;
	free(text);
	return nr;
}

static int dispatch(struct script *s, char **arg, int nr)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(arg[0], commands[i].name) != 0)
			continue;
		assert(nr >= commands[i].nr_words);
		return commands[i].fn(s, arg);
	}
	fprintf(stderr, "crash: no such command: %s\n", arg[0]);
	abort();
}

bool script_run(struct script *s, const char *cmd, int *ret_rc)
{
	bool may_fail = cmd[0] == '!';
	char *arg[MAX_WORDS + 1];
	int nr;

	s->nr_mix = 0;
	nr = split(cmd + may_fail, arg);
	*ret_rc = nr ? dispatch(s, arg, nr) : 0;
	/* At once, so that what follows can take what was freed. */
	if (s->fs && !s->collect)
		evict_collected(s->fs);
	while (nr)
		free(arg[--nr]);
	return *ret_rc == 0 || (may_fail && s->fs);
}
