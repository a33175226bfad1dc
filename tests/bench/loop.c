/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/bench/loop.c - one operation, over and over, the same for every peer
 *
 * Runs one operation of the table below in a directory and prints one line of
 * key=value words: what was done, the rate, and the microseconds of processor
 * time that this program and the daemon (-p) spent on each.  The loops are as
 * bare as a program can be, so what is measured is the filesystem.
 *
 * Data operations work on d0, d1, ..., one file for each thread, laid out in
 * full before the clock starts, until -s seconds are over.  Name operations
 * work on f000000, f000001, ... (rename makes them r000000, ...; unlink takes
 * those), each thread on its own part, until all are done or -s is over.
 * MB are 10^6 bytes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS    64
#define FILES_PER_DIR  10000 /* of op tree: few enough for any filesystem */
#define FILL_BLOCK     (1u << 20)
#define STEPS_PER_LOOK 8 /* steps between two looks at the clock */

struct worker {
	pthread_t thread;
	unsigned int id;
	int fd;		/* d<id>, for data operations */
	uint64_t rng;	/* never 0 */
	uint64_t pos;	/* where a sequential operation stands */
	uint64_t first; /* numbers of the names in its part */
	uint64_t last;
	uint64_t done; /* operations, entries or bytes */
	char *buf;
	int ret;
};

enum op_kind {
	OP_DATA,
	OP_DATA_NEW, /* starts with empty files */
	OP_NAME,
	OP_PASS, /* one step is a pass over everything */
	OP_ONCE, /* as OP_PASS, but there is only one */
};

struct op {
	const char *name;
	enum op_kind kind;
	bool bytes; /* counts bytes, unless blocks are small */
	int64_t (*step)(struct worker *w, uint64_t nr);
};

static struct {
	const struct op *op;
	const char *path;
	int dir;
	unsigned int nr_threads;
	size_t block;
	uint64_t size;
	uint64_t nr_files;
	double seconds;
	bool sync_at_end;
	uint64_t deadline; /* CLOCK_MONOTONIC, ns */
	pthread_barrier_t start;
} job = {
	.nr_threads = 1,
	.block = 4096,
	.size = UINT64_C(64) << 20,
	.nr_files = 10000,
	.seconds = 1,
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* xorshift64: good enough to defeat read-ahead, cheap enough not to count. */
static uint64_t next_random(struct worker *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return w->rng;
}

static off_t random_pos(struct worker *w)
{
	return (off_t)(next_random(w) % (job.size / job.block) * job.block);
}

static off_t next_pos(struct worker *w)
{
	uint64_t pos = w->pos;

	w->pos = pos + job.block < job.size ? pos + job.block : 0;
	return (off_t)pos;
}

/* A short transfer is an error: every one of them fits the file. */
static int64_t transferred(ssize_t got)
{
	if (got < 0)
		return -errno;
	return (size_t)got == job.block ? got : -EIO;
}

static int64_t step_randread(struct worker *w, uint64_t nr)
{
	(void)nr;
	return transferred(pread(w->fd, w->buf, job.block, random_pos(w)));
}

static int64_t step_randwrite(struct worker *w, uint64_t nr)
{
	memcpy(w->buf, &nr, sizeof(nr));
	return transferred(pwrite(w->fd, w->buf, job.block, random_pos(w)));
}

static int64_t step_seqread(struct worker *w, uint64_t nr)
{
	(void)nr;
	return transferred(pread(w->fd, w->buf, job.block, next_pos(w)));
}

static int64_t step_seqwrite(struct worker *w, uint64_t nr)
{
	memcpy(w->buf, &nr, sizeof(nr));
	return transferred(pwrite(w->fd, w->buf, job.block, next_pos(w)));
}

static int64_t step_randwrite_fsync(struct worker *w, uint64_t nr)
{
	int64_t ret = step_randwrite(w, nr);

	return ret > 0 && fsync(w->fd) ? -errno : ret;
}

/* A full file starts again from nothing, which is part of the price. */
static int64_t step_append(struct worker *w, uint64_t nr)
{
	(void)nr;
	if (next_pos(w) == 0 && ftruncate(w->fd, 0))
		return -errno;
	return transferred(write(w->fd, w->buf, job.block));
}

static int64_t step_append_fsync(struct worker *w, uint64_t nr)
{
	int64_t ret = step_append(w, nr);

	return ret > 0 && fsync(w->fd) ? -errno : ret;
}

static const char *file_name(char *buf, size_t size, char letter, uint64_t nr)
{
	snprintf(buf, size, "%c%06" PRIu64, letter, nr);
	return buf;
}

static int64_t step_create(struct worker *w, uint64_t nr)
{
	char name[32];
	int fd = openat(job.dir, file_name(name, sizeof(name), 'f', nr),
			O_CREAT | O_EXCL | O_WRONLY, 0644);

	(void)w;
	return fd < 0 || close(fd) ? -errno : 1;
}

static int64_t step_open(struct worker *w, uint64_t nr)
{
	char name[32];
	int fd = openat(job.dir, file_name(name, sizeof(name), 'f', nr),
			O_RDONLY);

	(void)w;
	return fd < 0 || close(fd) ? -errno : 1;
}

static int64_t step_stat(struct worker *w, uint64_t nr)
{
	char name[32];
	struct stat st;

	(void)w;
	return fstatat(job.dir, file_name(name, sizeof(name), 'f', nr), &st,
		       AT_SYMLINK_NOFOLLOW)
		       ? -errno
		       : 1;
}

static int64_t step_rename(struct worker *w, uint64_t nr)
{
	char from[32], to[32];

	(void)w;
	return renameat(job.dir, file_name(from, sizeof(from), 'f', nr),
			job.dir, file_name(to, sizeof(to), 'r', nr))
		       ? -errno
		       : 1;
}

static int64_t step_unlink(struct worker *w, uint64_t nr)
{
	char name[32];

	(void)w;
	return unlinkat(job.dir, file_name(name, sizeof(name), 'r', nr), 0)
		       ? -errno
		       : 1;
}

/* All entries of the directory, with what ls -l asks about each if @stat. */
static int64_t list(bool with_stat)
{
	DIR *dir = opendir(job.path);
	struct dirent *de;
	struct stat st;
	int64_t nr = 0;

	if (!dir)
		return -errno;
	while ((errno = 0, de = readdir(dir))) {
		if (with_stat &&
		    fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW))
			break;
		nr++;
	}
	if (errno)
		nr = -errno;
	closedir(dir);
	return nr;
}

static int64_t step_readdir(struct worker *w, uint64_t nr)
{
	(void)w;
	(void)nr;
	return list(false);
}

static int64_t step_ls(struct worker *w, uint64_t nr)
{
	(void)w;
	(void)nr;
	return list(true);
}

/* A file of one block, in one of the directories t0000, t0001, ... */
static int64_t step_tree(struct worker *w, uint64_t nr)
{
	char dir[32], name[64];
	int flags = O_CREAT | O_EXCL | O_WRONLY;
	int64_t ret;
	int fd;

	snprintf(dir, sizeof(dir), "t%04" PRIu64, nr / FILES_PER_DIR);
	snprintf(name, sizeof(name), "%s/f%06" PRIu64, dir, nr);
	fd = openat(job.dir, name, flags, 0644);
	if (fd < 0 && errno == ENOENT) {
		if (mkdirat(job.dir, dir, 0755) && errno != EEXIST)
			return -errno;
		fd = openat(job.dir, name, flags, 0644);
	}
	if (fd < 0)
		return -errno;
	ret = transferred(write(fd, w->buf, job.block));
	close(fd);
	return ret < 0 ? ret : 1;
}

static int64_t walk_nr;

static int walk_one(const char *path, const struct stat *st, int type,
		    struct FTW *ftw)
{
	(void)path;
	(void)st;
	(void)ftw;
	if (type == FTW_NS || type == FTW_DNR)
		return -1;
	walk_nr++;
	return 0;
}

static int64_t step_walk(struct worker *w, uint64_t nr)
{
	(void)w;
	(void)nr;
	walk_nr = 0;
	if (nftw(job.path, walk_one, 64, FTW_PHYS))
		return errno ? -errno : -EIO;
	return walk_nr;
}

static const struct op ops[] = {
	{ "randread", OP_DATA, false, step_randread },
	{ "randwrite", OP_DATA, false, step_randwrite },
	{ "randwrite-fsync", OP_DATA, false, step_randwrite_fsync },
	{ "append", OP_DATA_NEW, false, step_append },
	{ "append-fsync", OP_DATA_NEW, false, step_append_fsync },
	{ "seqread", OP_DATA, true, step_seqread },
	{ "seqwrite", OP_DATA, true, step_seqwrite },
	{ "create", OP_NAME, false, step_create },
	{ "open", OP_NAME, false, step_open },
	{ "stat", OP_NAME, false, step_stat },
	{ "rename", OP_NAME, false, step_rename },
	{ "unlink", OP_NAME, false, step_unlink },
	{ "readdir", OP_PASS, false, step_readdir },
	{ "ls", OP_ONCE, false, step_ls },
	{ "tree", OP_NAME, false, step_tree },
	{ "walk", OP_ONCE, false, step_walk },
};

static bool op_is_data(void)
{
	return job.op->kind == OP_DATA || job.op->kind == OP_DATA_NEW;
}

/* MB/s say something about large blocks only. */
static bool op_in_bytes(void)
{
	return job.op->bytes && job.block >= 64 * 1024;
}

/* Nothing measured may meet a hole or a file that is too short. */
static int file_fill(struct worker *w)
{
	struct stat st;
	ssize_t put;

	if (fstat(w->fd, &st))
		return -errno;
	if ((uint64_t)st.st_size >= job.size)
		return 0;
	for (uint64_t pos = 0; pos < job.size; pos += (uint64_t)put) {
		put = pwrite(w->fd, w->buf, FILL_BLOCK, (off_t)pos);
		if (put <= 0)
			return put ? -errno : -EIO;
	}
	return fsync(w->fd) ? -errno : 0;
}

static int file_prepare(struct worker *w)
{
	bool new = job.op->kind == OP_DATA_NEW;
	char name[32];

	snprintf(name, sizeof(name), "d%u", w->id);
	w->fd = openat(job.dir, name, O_RDWR | O_CREAT | (new ? O_APPEND : 0),
		       0644);
	if (w->fd < 0)
		return -errno;
	if (new)
		return ftruncate(w->fd, 0) ? -errno : 0;
	return file_fill(w);
}

static int worker_prepare(struct worker *w, unsigned int id)
{
	uint64_t part = job.nr_files / job.nr_threads;

	*w = (struct worker){ .id = id, .fd = -1, .last = UINT64_MAX };
	w->rng = UINT64_C(0x9e3779b97f4a7c15) * (id + 1);
	w->buf = aligned_alloc(4096, FILL_BLOCK);
	if (!w->buf)
		return -ENOMEM;
	memset(w->buf, 'a' + (int)(id % 26), FILL_BLOCK);
	if (op_is_data())
		return file_prepare(w);
	if (job.op->kind == OP_ONCE)
		w->last = 1;
	if (job.op->kind == OP_NAME) {
		w->first = id * part;
		w->last = id + 1 == job.nr_threads ? job.nr_files
						   : w->first + part;
	}
	return 0;
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	unsigned int look = job.op->kind == OP_PASS ? 1 : STEPS_PER_LOOK;
	int64_t ret;

	pthread_barrier_wait(&job.start);
	for (uint64_t nr = w->first; nr < w->last; nr++) {
		ret = job.op->step(w, nr);
		if (ret < 0) {
			w->ret = (int)ret;
			break;
		}
		w->done += op_is_data() && !op_in_bytes() ? 1 : (uint64_t)ret;
		if (nr % look == 0 && clock_ns(CLOCK_MONOTONIC) > job.deadline)
			break;
	}
	if (job.sync_at_end && w->fd >= 0 && fsync(w->fd))
		w->ret = -errno;
	return NULL;
}

struct reading {
	uint64_t wall, client, daemon; /* ns */
};

static struct reading reading(clockid_t daemon, bool has_daemon)
{
	return (struct reading){
		.wall = clock_ns(CLOCK_MONOTONIC),
		.client = clock_ns(CLOCK_PROCESS_CPUTIME_ID),
		.daemon = has_daemon ? clock_ns(daemon) : 0,
	};
}

/* A unit is one operation, or a million bytes where the rate is in MB. */
static void report(const struct reading *a, const struct reading *b,
		   uint64_t done)
{
	double units = (double)done / (op_in_bytes() ? 1e6 : 1);
	double secs = (double)(b->wall - a->wall) / 1e9;

	printf("op=%s threads=%u done=%" PRIu64 " seconds=%.6f rate=%.3f "
	       "unit=%s client_us=%.4f daemon_us=%.4f\n",
	       job.op->name, job.nr_threads, done, secs, units / secs,
	       op_in_bytes() ? "MB/s" : "ops/s",
	       (double)(b->client - a->client) / 1e3 / units,
	       (double)(b->daemon - a->daemon) / 1e3 / units);
}

static int run(clockid_t daemon, bool has_daemon)
{
	static struct worker worker[MAX_THREADS];
	struct reading before, after;
	uint64_t done = 0;
	int ret;

	for (unsigned int i = 0; i < job.nr_threads; i++) {
		ret = worker_prepare(&worker[i], i);
		if (ret)
			return ret;
	}
	pthread_barrier_init(&job.start, NULL, job.nr_threads + 1);
	for (unsigned int i = 0; i < job.nr_threads; i++)
		if (pthread_create(&worker[i].thread, NULL, worker_run,
				   &worker[i]))
			return -EAGAIN;
	before = reading(daemon, has_daemon);
	job.deadline = before.wall + (uint64_t)(job.seconds * 1e9);
	pthread_barrier_wait(&job.start);
	for (unsigned int i = 0; i < job.nr_threads; i++) {
		pthread_join(worker[i].thread, NULL);
		done += worker[i].done;
		ret = worker[i].ret ? worker[i].ret : ret;
	}
	if (job.sync_at_end && !op_is_data() && syncfs(job.dir))
		ret = -errno;
	after = reading(daemon, has_daemon);
	if (ret || !done)
		return ret ? ret : -ENODATA;
	report(&before, &after, done);
	return 0;
}

static int pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

static int usage(void)
{
	fputs("usage: loop OP DIR [-t threads] [-s seconds] [-c cpu] "
	      "[-p daemon pid]\n"
	      "            [-b block] [-S file size] [-n files] [-f]\n"
	      "  -f  sync at the end, inside the measured time\n"
	      "ops:",
	      stderr);
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		fprintf(stderr, " %s", ops[i].name);
	fputc('\n', stderr);
	return 2;
}

static int parse(int argc, char **argv, pid_t *ret_daemon, int *ret_cpu)
{
	int c;

	while ((c = getopt(argc, argv, "t:s:c:p:b:S:n:f")) != -1) {
		switch (c) {
		case 't':
			job.nr_threads = (unsigned int)atoi(optarg);
			break;
		case 's':
			job.seconds = atof(optarg);
			break;
		case 'c':
			*ret_cpu = atoi(optarg);
			break;
		case 'p':
			*ret_daemon = atoi(optarg);
			break;
		case 'b':
			job.block = strtoull(optarg, NULL, 0);
			break;
		case 'S':
			job.size = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			job.nr_files = strtoull(optarg, NULL, 0);
			break;
		case 'f':
			job.sync_at_end = true;
			break;
		default:
			return -EINVAL;
		}
	}
	if (optind + 2 != argc)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (!strcmp(ops[i].name, argv[optind]))
			job.op = &ops[i];
	job.path = argv[optind + 1];
	return job.op && job.nr_threads && job.nr_threads <= MAX_THREADS &&
			       job.block >= sizeof(uint64_t) &&
			       job.block <= FILL_BLOCK &&
			       job.size % FILL_BLOCK == 0
		       ? 0
		       : -EINVAL;
}

int main(int argc, char **argv)
{
	clockid_t clock = CLOCK_MONOTONIC;
	pid_t daemon = 0;
	int cpu = -1, ret;

	if (parse(argc, argv, &daemon, &cpu))
		return usage();
	job.dir = open(job.path, O_RDONLY | O_DIRECTORY);
	ret = job.dir < 0 ? -errno : 0;
	if (!ret && cpu >= 0)
		ret = pin(cpu);
	if (!ret && daemon)
		ret = -clock_getcpuclockid(daemon, &clock);
	if (!ret)
		ret = run(clock, daemon != 0);
	if (ret)
		fprintf(stderr, "loop: %s in %s: %s\n", job.op->name, job.path,
			strerror(-ret));
	return ret ? 1 : 0;
}
