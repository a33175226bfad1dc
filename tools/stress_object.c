/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/stress_object.c - the files of foliofs-stress, and their names
 *
 * An object stands for one inode.  It is used again when its file has no name
 * and nobody has it open; the new file has a new identity.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/stress.h"

unsigned int object_index(const struct object *o)
{
	return (unsigned int)(o - stress->object);
}

static void path_of(const char *name, char path[320])
{
	snprintf(path, 320, "%s/%s", stress->dir, name);
}

/* An object that nobody uses, locked. */
static struct object *object_take(void)
{
	for (unsigned int i = 0; i < NR_OBJECTS; i++) {
		struct object *o = &stress->object[i];

		if (atomic_load(&o->linked) || atomic_load(&o->refs) ||
		    !try_write(&o->name_lock))
			continue;
		if (!atomic_load(&o->linked) && !atomic_load(&o->refs))
			return o;
		unlock_write(&o->name_lock);
	}
	return NULL;
}

int object_create(void)
{
	struct object *o = object_take();
	char path[320];
	int fd, ret = 0;

	if (!o)
		return -EAGAIN;
	atomic_store(&o->id, atomic_fetch_add(&stress->next_id, 1));
	atomic_store(&o->pages, 0);
	ring_reset(o);
	snprintf(o->name, sizeof(o->name), "f%u", atomic_load(&o->id));
	path_of(o->name, path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	else
		ret = -errno;
	atomic_store(&o->linked, ret == 0);
	unlock_write(&o->name_lock);
	return ret;
}

/* With the name locked. */
static struct object *open_locked(struct object *o, int flags, int *ret_fd)
{
	char path[320];

	if (!atomic_load(&o->linked))
		return NULL;
	path_of(o->name, path);
	*ret_fd = open(path, flags | O_CLOEXEC);
	if (*ret_fd == -1) {
		finding(o, 0, UINT64_MAX, "open %s: %s", o->name,
			strerror(errno));
		return NULL;
	}
	atomic_fetch_add(&o->refs, 1);
	return o;
}

struct object *object_open_at(unsigned int i, int flags, int *ret_fd)
{
	struct object *o = &stress->object[i], *ret;

	if (!atomic_load(&o->linked) || !try_read(&o->name_lock))
		return NULL;
	ret = open_locked(o, flags, ret_fd);
	unlock_read(&o->name_lock);
	return ret;
}

struct object *object_open(int flags, int *ret_fd)
{
	unsigned int i = (unsigned int)rnd(NR_OBJECTS);
	struct object *o = NULL;

	for (unsigned int n = 0; !o && n < NR_OBJECTS; n++, i++)
		o = object_open_at(i % NR_OBJECTS, flags, ret_fd);
	return o;
}

void object_put(struct object *o)
{
	atomic_fetch_sub(&o->refs, 1);
}

/* A random file with its name locked, or NULL. */
static struct object *object_lock(void)
{
	unsigned int i = (unsigned int)rnd(NR_OBJECTS);

	for (unsigned int n = 0; n < NR_OBJECTS; n++, i++) {
		struct object *o = &stress->object[i % NR_OBJECTS];

		if (!atomic_load(&o->linked) || !try_write(&o->name_lock))
			continue;
		if (atomic_load(&o->linked))
			return o;
		unlock_write(&o->name_lock);
	}
	return NULL;
}

/* As many files as there should be. */
static void refill(void)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < NR_OBJECTS; i++)
		nr += atomic_load(&stress->object[i].linked);
	if (nr < stress->profile->nr_files)
		object_create();
}

void object_unlink(void)
{
	struct object *o = object_lock();
	char path[320];
	int ret;

	if (!o)
		return;
	path_of(o->name, path);
	op_begin(OP_UNLINK);
	ret = unlink(path) ? -errno : 0;
	if (ret == 0)
		atomic_store(&o->linked, false);
	op_end(OP_UNLINK, ret);
	unlock_write(&o->name_lock);
	refill();
}

/* To a new name, or in place of another file. */
void object_rename(void)
{
	struct object *o = object_lock(), *over = NULL;
	char from[320], to[320], name[NAME_LEN];
	int ret;

	if (!o)
		return;
	snprintf(name, sizeof(name), "r%ju", (uintmax_t)now());
	if (rnd(2)) {
		over = object_lock();
		if (over)
			memcpy(name, over->name, sizeof(name));
	}
	path_of(o->name, from);
	path_of(name, to);
	op_begin(OP_RENAME);
	ret = rename(from, to) ? -errno : 0;
	if (ret == 0) {
		memcpy(o->name, name, sizeof(name));
		if (over)
			atomic_store(&over->linked, false);
	}
	op_end(OP_RENAME, ret);
	if (over)
		unlock_write(&over->name_lock);
	unlock_write(&o->name_lock);
	refill();
}
