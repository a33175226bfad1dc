/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/transport/stub_ops.c - a filesystem to test the daemon around it with
 *
 * A root directory with four files:
 *
 *   data     1 MiB in memory
 *   sleep    a read sleeps until somebody writes to "release", or a signal
 *   stuck    the same, but a signal does not end it
 *   release  see above; what is written does not matter
 *   info     what arrived that only the raw requests say
 *
 * The device is any file; it says "dirty" while open and "clean" afterwards.
 * One with "deadly" in its name ends the daemon at once.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dax/lock.h"
#include "fs/foliofs.h"
#include "fs/direct.h"
#include "fs/ops.h"

#define DATA_SIZE (1u << 20)
#define BTIME	  1234567890

enum {
	INO_ROOT = 1,
	INO_DATA,
	INO_SLEEP,
	INO_STUCK,
	INO_RELEASE,
	INO_INFO,
	INO_TMP,
};

static const char *const names[] = {
	[INO_DATA] = "data",	   [INO_SLEEP] = "sleep", [INO_STUCK] = "stuck",
	[INO_RELEASE] = "release", [INO_INFO] = "info",
};

struct foliofs {
	int fd;
	char *data;
	pthread_mutex_t lock; /* covers what follows */
	pthread_cond_t released;
	uint64_t generation;
	unsigned int nr_interrupted;
	unsigned int nr_sleeping;
	_Atomic(uint64_t) nr_waiting;
	_Atomic(uint32_t) write_flags;
	_Atomic(uint32_t) setxattr_flags;
	_Atomic(uint32_t) fattr;
	_Atomic(uint64_t) init_flags;
	char xattr[64];
};

/* One read of "sleep" that has not been answered yet. */
struct sleeper {
	struct foliofs *fs;
	bool interrupted;
};

static void device_mark(const struct foliofs *fs, const char *text)
{
	(void)!ftruncate(fs->fd, 0);
	(void)!pwrite(fs->fd, text, strlen(text), 0);
}

int foliofs_open(const struct foliofs_options *opt, struct foliofs **ret_fs,
		 struct errmsg *err)
{
	struct foliofs *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return -ENOMEM;
	if (strstr(opt->device, "deadly"))
		_exit(0);
	fs->fd = open(opt->device, O_RDWR | O_CLOEXEC);
	if (fs->fd == -1) {
		free(fs);
		return err_set(err, -errno, "%s: %s: make it with mkfs.foliofs",
			       opt->device, strerror(errno));
	}
	fs->data = mmap(NULL, DATA_SIZE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	pthread_mutex_init(&fs->lock, NULL);
	pthread_cond_init(&fs->released, NULL);
	device_mark(fs, "dirty");
	*ret_fs = fs;
	return 0;
}

void foliofs_close(struct foliofs *fs)
{
	device_mark(fs, "clean");
	close(fs->fd);
	munmap(fs->data, DATA_SIZE);
	free(fs);
}

const char *foliofs_warning(const struct foliofs *fs)
{
	(void)fs;
	return NULL;
}

_Atomic(uint64_t) *foliofs_nr_waiting(struct foliofs *fs)
{
	return &fs->nr_waiting;
}

static void fill_stat(struct stat *st, fuse_ino_t ino)
{
	*st = (struct stat){
		.st_ino = ino,
		.st_mode = ino == INO_ROOT ? S_IFDIR | 0755 : S_IFREG | 0666,
		.st_nlink = ino == INO_TMP ? 0 : 1,
		.st_size = ino == INO_ROOT ? 0 : DATA_SIZE,
		.st_uid = getuid(),
		.st_gid = getgid(),
	};
}

static void stub_init(void *userdata, struct fuse_conn_info *conn)
{
	struct foliofs *fs = userdata;
	struct conn *c = request_current()->conn;

	(void)fs;
	conn->max_write = REQUEST_MAX_WRITE;
	conn->want &=
		~(unsigned int)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE);
	conn_want(c, 0, FUSE_AUTO_INVAL_DATA);
}

static void stub_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .attr_timeout = 1e9,
				      .entry_timeout = 1e9 };

	(void)parent;
	for (fuse_ino_t i = INO_DATA; i <= INO_INFO; i++)
		if (strcmp(name, names[i]) == 0)
			e.ino = i;
	if (!e.ino) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fill_stat(&e.attr, e.ino);
	fuse_reply_entry(req, &e);
}

static void stub_getattr(fuse_req_t req, fuse_ino_t ino,
			 struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	fill_stat(&st, ino);
	fuse_reply_attr(req, &st, 1e9);
}

static void stub_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr,
			 int to_set, struct fuse_file_info *fi)
{
	const struct fuse_setattr_in *arg = request_arg(request_current());
	struct foliofs *fs = fuse_req_userdata(req);

	(void)attr;
	(void)to_set;
	atomic_store(&fs->fattr, arg->valid);
	stub_getattr(req, ino, fi);
}

static void stub_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void on_interrupt(fuse_req_t req, void *data)
{
	struct sleeper *s = data;

	(void)req;
	pthread_mutex_lock(&s->fs->lock);
	s->interrupted = true;
	s->fs->nr_interrupted++;
	pthread_cond_broadcast(&s->fs->released);
	pthread_mutex_unlock(&s->fs->lock);
}

static void read_sleep(fuse_req_t req, struct foliofs *fs, bool can_interrupt)
{
	struct sleeper s = { .fs = fs };
	uint64_t generation;

	if (can_interrupt)
		fuse_req_interrupt_func(req, on_interrupt, &s);

	sleep_hook_begin();
	pthread_mutex_lock(&fs->lock);
	generation = fs->generation;
	fs->nr_sleeping++;
	while (fs->generation == generation && !s.interrupted)
		pthread_cond_wait(&fs->released, &fs->lock);
	fs->nr_sleeping--;
	pthread_mutex_unlock(&fs->lock);
	sleep_hook_end();

	if (can_interrupt)
		fuse_req_interrupt_func(req, NULL, NULL);
	if (s.interrupted)
		fuse_reply_err(req, EINTR);
	else
		fuse_reply_buf(req, "awake", 5);
}

static void read_info(fuse_req_t req, struct foliofs *fs, off_t off)
{
	char text[256];
	int len;

	pthread_mutex_lock(&fs->lock);
	len = snprintf(text, sizeof(text),
		       "flags %llx\noffered %llx\nwrite %x\nsetxattr %x\n"
		       "fattr %x\nxattr %s\ninterrupted %u\nsleeping %u\n"
		       "waiting %llu\n",
		       (unsigned long long)request_current()->conn->flags,
		       (unsigned long long)request_current()->conn->offered,
		       atomic_load(&fs->write_flags),
		       atomic_load(&fs->setxattr_flags),
		       atomic_load(&fs->fattr), fs->xattr, fs->nr_interrupted,
		       fs->nr_sleeping,
		       (unsigned long long)atomic_load(&fs->nr_waiting));
	pthread_mutex_unlock(&fs->lock);
	fuse_reply_buf(req, text, off ? 0 : (size_t)len);
}

static void stub_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	struct foliofs *fs = fuse_req_userdata(req);

	(void)fi;
	if (ino == INO_SLEEP || ino == INO_STUCK)
		read_sleep(req, fs, ino == INO_SLEEP);
	else if (ino == INO_INFO)
		read_info(req, fs, off);
	else if (off >= DATA_SIZE)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_buf(req, fs->data + off,
			       size < DATA_SIZE - (size_t)off
				       ? size
				       : DATA_SIZE - (size_t)off);
}

static void stub_write(fuse_req_t req, fuse_ino_t ino, const char *buf,
		       size_t size, off_t off, struct fuse_file_info *fi)
{
	const struct fuse_write_in *arg = request_arg(request_current());
	struct foliofs *fs = fuse_req_userdata(req);

	(void)fi;
	atomic_store(&fs->write_flags, arg->write_flags);
	if (ino == INO_RELEASE) {
		pthread_mutex_lock(&fs->lock);
		fs->generation++;
		pthread_cond_broadcast(&fs->released);
		pthread_mutex_unlock(&fs->lock);
	} else if ((size_t)off + size <= DATA_SIZE) {
		memcpy(fs->data + off, buf, size);
	} else {
		fuse_reply_err(req, ENOSPC);
		return;
	}
	fuse_reply_write(req, size);
}

static void stub_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			  const char *value, size_t size, int flags)
{
	struct foliofs *fs = fuse_req_userdata(req);

	(void)ino;
	(void)flags;
	atomic_store(&fs->setxattr_flags, request_current()->setxattr_flags);
	snprintf(fs->xattr, sizeof(fs->xattr), "%s=%.*s", name, (int)size,
		 value);
	fuse_reply_err(req, 0);
}

const struct fuse_lowlevel_ops foliofs_ops = {
	.init = stub_init,
	.lookup = stub_lookup,
	.getattr = stub_getattr,
	.setattr = stub_setattr,
	.open = stub_open,
	.read = stub_read,
	.write = stub_write,
	.setxattr = stub_setxattr,
};

static void raw_tmpfile(struct conn *conn, const struct request *rq,
			void *userdata)
{
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = {
		.entry = { .nodeid = INO_TMP,
			   .attr = { .ino = INO_TMP,
				     .mode = S_IFREG | 0600,
				     .size = 0 } },
		.open = { .open_flags = FOPEN_DIRECT_IO },
	};

	(void)userdata;
	conn_reply(conn, rq->in->unique, &out, sizeof(out));
}

static void raw_statx(struct conn *conn, const struct request *rq,
		      void *userdata)
{
	const struct conn_statx_in *arg = request_arg(rq);
	struct conn_statx_out out = { .attr_valid = 1 };
	struct stat st;

	(void)userdata;
	fill_stat(&st, rq->in->nodeid);
	out.stat = (struct conn_statx){
		.mask = arg->sx_mask & (STATX_BASIC_STATS | STATX_BTIME),
		.mode = (uint16_t)st.st_mode,
		.nlink = 1,
		.ino = st.st_ino,
		.size = (uint64_t)st.st_size,
		.btime = { .sec = BTIME },
	};
	conn_reply(conn, rq->in->unique, &out, sizeof(out));
}

static void raw_enosys(struct conn *conn, const struct request *rq,
		       void *userdata)
{
	(void)userdata;
	conn_reply_err(conn, rq->in->unique, -ENOSYS);
}

const struct raw_op foliofs_raw_ops[] = {
	{ FUSE_TMPFILE, raw_tmpfile },
	{ CONN_OP_STATX, raw_statx },
	{ CONN_OP_COPY_FILE_RANGE64, raw_enosys },
};
const unsigned int foliofs_nr_raw_ops =
	sizeof(foliofs_raw_ops) / sizeof(foliofs_raw_ops[0]);

bool ops_interrupted(void *fs, uint64_t unique)
{
	(void)fs;
	(void)unique;
	return false;
}

int direct_open(struct foliofs *fs, const struct dax_users *users,
		struct errmsg *err)
{
	(void)fs;
	(void)users;
	(void)err;
	return 0;
}

void direct_close(struct foliofs *fs, void (*say)(const char *line))
{
	(void)fs;
	(void)say;
}
