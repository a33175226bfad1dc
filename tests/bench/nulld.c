/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/bench/nulld.c - the floor of FUSE: a daemon that does nothing
 *
 * Whatever a FUSE filesystem costs, this is the part that it cannot save: the
 * request through /dev/fuse, libfuse's parsing, the reply, and one copy of the
 * data.  Contents are one anonymous mapping; reads are answered from it by an
 * iovec, writes go to it with non-temporal stores.  Nothing is ever waited
 * for, looked up in a structure, or made durable.
 *
 * The root holds two kinds of files, told apart by the first letter of their
 * names, and the number that follows is all there is to find:
 *   d0, d1, ...        contents, always there; offsets wrap at the file's size
 *   f0, f1, ... r0 ... no contents; created, renamed and unlinked at will
 * A node id is the number with the kind in its upper half, so a rename of f7
 * to r7 keeps the node.  Two names of one number at a time are not supported.
 */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#define NR_NAMES  (1u << 21) /* numbers that an f or r file can have */
#define MAX_DATA  64u
#define MAX_WRITE (1u << 20)
#define FOREVER	  1e6
#define NODE_DATA (UINT64_C(1) << 32)
#define NODE_NAME (UINT64_C(2) << 32)

enum cache {
	CACHE_THROUGH,
	CACHE_DIRECT,
	CACHE_WRITEBACK
};

static struct {
	enum cache cache;
	unsigned int nr_threads;
	unsigned int nr_data;
	uint64_t file_size; /* a power of two */
	char *map;
	uint64_t size[MAX_DATA]; /* what stat says; not exact under threads */
	struct fuse_session *se;
} nd = { .nr_threads = 1, .nr_data = 1, .file_size = UINT64_C(64) << 20 };

static char letter[NR_NAMES]; /* 'f' or 'r' when it exists, else 0 */
static uint32_t nr_names;     /* no number from here on was ever used */

/* The node that a name can mean, whether it exists or not; 0: no such name. */
static fuse_ino_t name_node(const char *name)
{
	char *end;
	unsigned long nr = strtoul(name + 1, &end, 10);

	if (*end || end == name + 1)
		return 0;
	if (name[0] == 'd')
		return nr < nd.nr_data ? NODE_DATA + nr : 0;
	if (name[0] != 'f' && name[0] != 'r')
		return 0;
	return nr < NR_NAMES ? NODE_NAME + nr : 0;
}

static uint32_t node_nr(fuse_ino_t ino)
{
	return (uint32_t)ino;
}

static bool name_exists(const char *name, fuse_ino_t ino)
{
	return ino && (ino < NODE_NAME || letter[node_nr(ino)] == name[0]);
}

static void node_stat(fuse_ino_t ino, struct stat *st)
{
	*st = (struct stat){ .st_ino = ino, .st_nlink = 1 };
	st->st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
	if (ino >= NODE_DATA && ino < NODE_NAME)
		st->st_size = (off_t)nd.size[node_nr(ino)];
}

static void node_entry(fuse_ino_t ino, struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){ .ino = ino };
	e->attr_timeout = e->entry_timeout = FOREVER;
	node_stat(ino, &e->attr);
}

static void nd_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	conn->want &= ~(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
			FUSE_CAP_SPLICE_MOVE | FUSE_CAP_AUTO_INVAL_DATA |
			FUSE_CAP_ATOMIC_O_TRUNC);
	conn->want |= conn->capable &
		      (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_PARALLEL_DIROPS |
		       FUSE_CAP_HANDLE_KILLPRIV);
	if (nd.cache == CACHE_WRITEBACK)
		conn->want |= FUSE_CAP_WRITEBACK_CACHE;
	conn->max_write = MAX_WRITE;
	conn->max_readahead = MAX_WRITE;
}

static void nd_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_ino_t ino = name_node(name);
	struct fuse_entry_param e = { .entry_timeout = FOREVER };

	(void)parent;
	if (name_exists(name, ino))
		node_entry(ino, &e);
	fuse_reply_entry(req, &e);
}

static void nd_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	node_stat(ino, &st);
	fuse_reply_attr(req, &st, FOREVER);
}

static void nd_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr,
		       int set, struct fuse_file_info *fi)
{
	if (set & FUSE_SET_ATTR_SIZE && ino >= NODE_DATA && ino < NODE_NAME)
		nd.size[node_nr(ino)] = (uint64_t)attr->st_size;
	nd_getattr(req, ino, fi);
}

static void file_open(struct fuse_file_info *fi)
{
	fi->direct_io = nd.cache == CACHE_DIRECT;
	fi->keep_cache = nd.cache != CACHE_DIRECT;
	fi->noflush = nd.cache != CACHE_WRITEBACK;
}

static void nd_create(fuse_req_t req, fuse_ino_t parent, const char *name,
		      mode_t mode, struct fuse_file_info *fi)
{
	fuse_ino_t ino = name_node(name);
	struct fuse_entry_param e;

	(void)parent;
	(void)mode;
	if (!ino) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (ino >= NODE_NAME) {
		letter[node_nr(ino)] = name[0];
		if (nr_names <= node_nr(ino))
			nr_names = node_nr(ino) + 1;
	}
	node_entry(ino, &e);
	file_open(fi);
	fuse_reply_create(req, &e, fi);
}

/* Only FOPEN_DIRECT_IO needs opens; without them the kernel keeps its cache. */
static void nd_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	if (nd.cache == CACHE_DIRECT) {
		file_open(fi);
		fuse_reply_open(req, fi);
	} else {
		fuse_reply_err(req, ENOSYS);
	}
}

static void nd_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_ino_t ino = name_node(name);
	bool there = ino >= NODE_NAME && name_exists(name, ino);

	(void)parent;
	if (there)
		letter[node_nr(ino)] = 0;
	fuse_reply_err(req, there ? 0 : ENOENT);
}

static void nd_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		      fuse_ino_t newparent, const char *newname,
		      unsigned int flags)
{
	fuse_ino_t ino = name_node(name);
	bool same = ino >= NODE_NAME && name_node(newname) == ino &&
		    !(flags & ~RENAME_NOREPLACE);

	(void)parent;
	(void)newparent;
	if (same)
		letter[node_nr(ino)] = newname[0];
	fuse_reply_err(req, same ? 0 : EPERM);
}

static char *file_at(fuse_ino_t ino, off_t off)
{
	return nd.map + node_nr(ino) * (nd.file_size + MAX_WRITE) +
	       ((uint64_t)off & (nd.file_size - 1));
}

static void nd_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	uint64_t end = ino < NODE_NAME ? nd.size[node_nr(ino)] : 0;
	struct iovec iov;

	(void)fi;
	if ((uint64_t)off >= end)
		size = 0;
	else if (size > end - (uint64_t)off)
		size = end - (uint64_t)off;
	iov = (struct iovec){ size ? file_at(ino, off) : NULL, size };
	fuse_reply_iov(req, &iov, size ? 1 : 0);
}

/* Past the caches, as a persistent-memory filesystem does. */
static void copy_nontemporal(char *dst, const char *src, size_t len)
{
	size_t i = 0;

#ifdef __SSE2__
	if (((uintptr_t)dst & 15) == 0)
		for (; i + 16 <= len; i += 16)
			_mm_stream_si128(
				(__m128i *)(void *)(dst + i),
				_mm_loadu_si128((const __m128i_u *)(src + i)));
	_mm_sfence();
#endif
	memcpy(dst + i, src + i, len - i);
}

static void nd_write(fuse_req_t req, fuse_ino_t ino, const char *buf,
		     size_t size, off_t off, struct fuse_file_info *fi)
{
	uint64_t end = (uint64_t)off + size;

	(void)fi;
	if (ino >= NODE_NAME) {
		fuse_reply_err(req, EFBIG);
		return;
	}
	copy_nontemporal(file_at(ino, off), buf, size);
	if (end > nd.size[node_nr(ino)])
		nd.size[node_nr(ino)] = end;
	fuse_reply_write(req, size);
}

static void nd_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
		     struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, 0);
}

/* Cookies are numbers of names; the contents files are not listed. */
static void list(fuse_req_t req, size_t size, off_t off, bool plus)
{
	char *buf = malloc(size), name[16];
	struct fuse_entry_param e;
	size_t used = 0, len;

	for (uint32_t nr = (uint32_t)off; buf && nr < nr_names; nr++) {
		if (!letter[nr])
			continue;
		snprintf(name, sizeof(name), "%c%06u", letter[nr], nr);
		node_entry(NODE_NAME + nr, &e);
		len = plus ? fuse_add_direntry_plus(req, buf + used,
						    size - used, name, &e,
						    (off_t)nr + 1)
			   : fuse_add_direntry(req, buf + used, size - used,
					       name, &e.attr, (off_t)nr + 1);
		if (len > size - used)
			break;
		used += len;
	}
	if (buf)
		fuse_reply_buf(req, buf, used);
	else
		fuse_reply_err(req, ENOMEM);
	free(buf);
}

static void nd_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	list(req, size, off, false);
}

static void nd_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size,
			   off_t off, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	list(req, size, off, true);
}

/* What is absent (flush, opendir, xattrs, access) libfuse answers ENOSYS. */
static struct fuse_lowlevel_ops nd_ops = {
	.init = nd_init,
	.lookup = nd_lookup,
	.getattr = nd_getattr,
	.setattr = nd_setattr,
	.create = nd_create,
	.open = nd_open,
	.unlink = nd_unlink,
	.rename = nd_rename,
	.read = nd_read,
	.write = nd_write,
	.readdir = nd_readdir,
	.readdirplus = nd_readdirplus,
};

static void *receive(void *arg)
{
	struct fuse_buf buf = { .mem = NULL };
	int ret;

	(void)arg;
	while (!fuse_session_exited(nd.se)) {
		ret = fuse_session_receive_buf(nd.se, &buf);
		if (ret == -EINTR)
			continue;
		if (ret <= 0)
			break;
		fuse_session_process_buf(nd.se, &buf);
	}
	free(buf.mem);
	return NULL;
}

/* Receive in @nr_threads threads until the filesystem is unmounted. */
static int serve(void)
{
	pthread_t thread[64];
	unsigned int nr = 0;

	while (nr + 1 < nd.nr_threads && nr < 64 &&
	       pthread_create(&thread[nr], NULL, receive, NULL) == 0)
		nr++;
	receive(NULL);
	while (nr)
		pthread_join(thread[--nr], NULL);
	return 0;
}

static int usage(void)
{
	fputs("usage: nulld [-m through|direct|writeback] [-t threads] "
	      "[-n files] [-s log2 of bytes] [-f] DIR\n"
	      "  -f  answer fsync; without it the kernel stops asking\n",
	      stderr);
	return 2;
}

static int parse(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "m:t:n:s:f")) != -1) {
		if (c == 'm' && !strcmp(optarg, "direct"))
			nd.cache = CACHE_DIRECT;
		else if (c == 'm' && !strcmp(optarg, "writeback"))
			nd.cache = CACHE_WRITEBACK;
		else if (c == 't')
			nd.nr_threads = (unsigned int)atoi(optarg);
		else if (c == 'n')
			nd.nr_data = (unsigned int)atoi(optarg);
		else if (c == 's')
			nd.file_size = UINT64_C(1) << (atoi(optarg) & 63);
		else if (c == 'f')
			nd_ops.fsync = nd_fsync;
		else if (c != 'm' || strcmp(optarg, "through") != 0)
			return usage();
	}
	if (optind + 1 != argc || nd.nr_data > MAX_DATA)
		return usage();
	return 0;
}

static int contents_create(void)
{
	uint64_t bytes = nd.nr_data * (nd.file_size + MAX_WRITE);

	nd.map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (nd.map == MAP_FAILED)
		return -errno;
	memset(nd.map, 0x5a, bytes);
	for (unsigned int i = 0; i < nd.nr_data; i++)
		nd.size[i] = nd.file_size;
	return 0;
}

int main(int argc, char **argv)
{
	char options[] = "-odefault_permissions,fsname=nulld";
	char *words[] = { argv[0], options, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(2, words);
	int ret = 1;

	if (parse(argc, argv))
		return 2;
	if (contents_create()) {
		fputs("nulld: no memory for the files\n", stderr);
		return 1;
	}
	nd.se = fuse_session_new(&args, &nd_ops, sizeof(nd_ops), NULL);
	if (!nd.se)
		return 1;
	if (fuse_set_signal_handlers(nd.se))
		goto out_destroy;
	if (fuse_session_mount(nd.se, argv[optind]))
		goto out_signal;
	ret = serve();
	fuse_session_unmount(nd.se);
out_signal:
	fuse_remove_signal_handlers(nd.se);
out_destroy:
	fuse_session_destroy(nd.se);
	return ret;
}
