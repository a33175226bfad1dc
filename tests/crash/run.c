/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/run.c - a scenario that was run, with all it did to the device
 */
#include "tests/crash/run.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/crash/sched.h"
#include "tests/crash/wrap.h"

static const uint8_t uuid[16] = "crash test uuid";

int run_make_file(const char *tag, uint64_t size, char *ret_path)
{
	int fd, ret = 0;

	snprintf(ret_path, 64, "/dev/shm/foliofs-crash-%d-%s", (int)getpid(),
		 tag);
	fd = open(ret_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) != 0)
		ret = -errno;
	close(fd);
	return ret;
}

static int read_file(const char *path, unsigned char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (pread(fd, buf, len, 0) != (ssize_t)len)
		ret = -EIO;
	close(fd);
	return ret;
}

static int write_file(const char *path, const unsigned char *buf, size_t len)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (pwrite(fd, buf, len, 0) != (ssize_t)len)
		ret = -EIO;
	close(fd);
	return ret;
}

static int complain(int ret, const char *what, const struct errmsg *err)
{
	printf("# %s: %s\n", what, err ? err->text : strerror(-ret));
	return ret;
}

static int mkfs(const char *dev)
{
	struct foliofs_mkfs opt = { .device = dev,
				    .uuid = uuid,
				    .force = true };
	struct errmsg err;
	int ret = foliofs_mkfs(&opt, &err);

	return ret ? complain(ret, "mkfs", &err) : 0;
}

struct foliofs_options run_mount_options(const char *dev,
					 enum foliofs_data data)
{
	return (struct foliofs_options){ .device = dev,
					 .data = data,
					 .atime = ATIME_NEVER,
					 .walk_threads = 1 };
}

int run_mkfs(struct run *r, const struct scenario *sc, const char *tag)
{
	int ret;

	memset(r, 0, sizeof(*r));
	r->sc = sc;
	r->size = sc->blocks * BLOCK_SIZE;
	r->state_flags = sc->ops2 ? STATE_LOOSE : 0;
	wrap_clock_reset();
	ret = run_make_file(tag, r->size, r->dev);
	if (ret)
		return complain(ret, r->dev, NULL);
	ret = mkfs(r->dev);
	if (ret)
		return ret;
	r->base = (unsigned char *)test_realloc(NULL, r->size);
	ret = read_file(r->dev, r->base, r->size);
	return ret ? complain(ret, r->dev, NULL) : 0;
}

int run_from_image(struct run *r, const struct scenario *sc, const char *tag,
		   const unsigned char *image, const struct state *state)
{
	int ret;

	memset(r, 0, sizeof(*r));
	r->sc = sc;
	r->size = sc->blocks * BLOCK_SIZE;
	r->base = (unsigned char *)test_realloc(NULL, r->size);
	memcpy(r->base, image, r->size);
	if (state)
		state_copy(&r->before, state);
	ret = run_make_file(tag, r->size, r->dev);
	if (!ret)
		ret = write_file(r->dev, image, r->size);
	return ret ? complain(ret, r->dev, NULL) : 0;
}

/* The device as who comes next sees it. */
static int write_caches(struct run *r)
{
	unsigned char *now = (unsigned char *)test_realloc(NULL, r->size);
	int ret;

	memcpy(now, r->base, r->size);
	for (size_t i = 0; i < r->log.nr; i++) {
		const struct log_event *e = &r->log.event[i];

		if (e->type == LOG_STORE)
			memcpy(now + e->off, r->log.pool + e->data, e->len);
	}
	ret = write_file(r->dev, now, r->size);
	free(now);
	return ret;
}

int run_from_kill(struct run *r, const struct scenario *sc, const char *tag,
		  const struct run *killed, unsigned int op, size_t nr)
{
	int ret;

	memset(r, 0, sizeof(*r));
	r->sc = sc;
	r->size = killed->size;
	r->base = (unsigned char *)test_realloc(NULL, r->size);
	memcpy(r->base, killed->base, r->size);
	state_copy(&r->before, &killed->op[op - 1].after);
	state_copy(&r->other, &killed->op[op].after);
	log_copy(&r->log, &killed->log, nr);
	log_mark(&r->log, LOG_KILL, 0);
	ret = run_make_file(tag, r->size, r->dev);
	if (!ret)
		ret = write_caches(r);
	return ret ? complain(ret, r->dev, NULL) : 0;
}

void run_free(struct run *r)
{
	if (r->dev[0])
		unlink(r->dev);
	for (unsigned int i = 0; i < r->nr_ops; i++) {
		state_free(&r->op[i].after);
		free(r->op[i].mix);
	}
	free(r->op);
	free(r->base);
	log_free(&r->log);
	state_free(&r->before);
	state_free(&r->other);
	memset(r, 0, sizeof(*r));
}

static unsigned int add_op(struct run *r, const char *cmd, unsigned int thread,
			   bool quiet)
{
	struct run_op *op;

	if (r->nr_ops == r->cap_ops) {
		r->cap_ops = r->cap_ops ? r->cap_ops * 2 : 16;
		r->op = (struct run_op *)test_realloc(
			r->op, r->cap_ops * sizeof(*r->op));
	}
	op = &r->op[r->nr_ops];
	memset(op, 0, sizeof(*op));
	snprintf(op->cmd, sizeof(op->cmd), "%s", cmd);
	op->thread = thread;
	op->quiet = quiet;
	return r->nr_ops++;
}

static void add_script(struct run *r, const char *text, unsigned int thread,
		       bool quiet)
{
	char cmd[SCRIPT_MAX_CMD];

	while (text && (text = script_next(text, cmd)) != NULL)
		add_op(r, cmd, thread, quiet);
}

static void keep_mix(struct run_op *op, const struct script *s)
{
	size_t bytes = s->nr_mix * sizeof(*op->mix);

	op->nr_mix = s->nr_mix;
	if (bytes) {
		op->mix = (struct mix *)test_realloc(NULL, bytes);
		memcpy(op->mix, s->mix, bytes);
	}
}

/* One operation, with its marks in the log. */
static bool do_op(struct run *r, struct script *s, unsigned int i)
{
	struct run_op *op = &r->op[i];
	bool ok = true;

	op->begin = r->log.nr;
	log_mark(&r->log, LOG_BEGIN, i);
	if (strcmp(op->cmd, "mount") == 0) {
		op->rc = script_mount(s);
		ok = op->rc == 0;
	} else if (strcmp(op->cmd, "unmount") == 0) {
		script_unmount(s);
	} else {
		ok = script_run(s, op->cmd, &op->rc);
	}
	op->end = r->log.nr;
	log_mark(&r->log, LOG_END, i);
	keep_mix(op, s);
	if (!ok)
		printf("# operation %u '%s': %s %s\n", i, op->cmd,
		       strerror(-op->rc), s->fs ? "" : s->err.text);
	return ok;
}

static bool take_state(struct run *r, struct script *s, struct state *st)
{
	struct errmsg err;

	if (state_take(s->fs, r->state_flags, st, &err) == 0)
		return true;
	printf("# before any crash: %s\n", err.text);
	return false;
}

/* Operations [from, to), one after the other. */
static bool do_ops(struct run *r, struct script *s, unsigned int from,
		   unsigned int to)
{
	for (unsigned int i = from; i < to; i++) {
		if (!do_op(r, s, i))
			return false;
		if (s->fs) {
			if (!take_state(r, s, &r->op[i].after))
				return false;
		} else {
			state_copy(&r->op[i].after, &r->op[i - 1].after);
		}
	}
	return true;
}

struct pair {
	struct run *r;
	struct script *s;
	bool ok[LOG_THREADS];
};

static void pair_thread(void *ctx, unsigned int thread)
{
	struct pair *p = (struct pair *)ctx;

	for (unsigned int i = p->r->nr_setup; i < p->r->nr_ops; i++)
		if (p->r->op[i].thread == thread && p->ok[thread])
			p->ok[thread] = do_op(p->r, p->s, i);
}

static bool do_pair(struct run *r, struct script *s, uint64_t schedule)
{
	struct pair p = { .r = r, .s = s, .ok = { true, true } };

	sched_run(schedule, pair_thread, &p);
	return p.ok[0] && p.ok[1];
}

bool run_all(struct run *r, uint64_t schedule)
{
	struct pmem_recorder rec = log_recorder(&r->log);
	struct script s = { .opt = run_mount_options(r->dev, r->sc->data) };
	bool pair = r->sc->ops2 != NULL, ok;

	/* A crash again starts from a state that is known already. */
	add_op(r, "mount", 0, !r->before.buf);
	add_script(r, r->sc->setup, 0, true);
	r->nr_setup = r->nr_ops;
	add_script(r, r->sc->ops, 0, false);
	add_script(r, r->sc->ops2, 1, false);
	if (!pair)
		add_op(r, "unmount", 0, false);

	wrap_recorder = &rec;
	ok = do_ops(r, &s, 0, pair ? r->nr_setup : r->nr_ops);
	if (ok && pair)
		ok = do_pair(r, &s, schedule);
	wrap_recorder = NULL;
	script_abandon(&s);
	return ok;
}

bool run_reference(const struct run *r, const unsigned char *order,
		   unsigned int nr, struct state *ret, int *ret_rc)
{
	struct scenario sc = *r->sc;
	struct run ref;
	struct script s;
	bool ok;

	sc.ops = sc.ops2 = NULL;
	if (run_mkfs(&ref, &sc, "reference"))
		return false;
	ref.state_flags = STATE_LOOSE;
	s = (struct script){ .opt = run_mount_options(ref.dev, sc.data) };
	add_op(&ref, "mount", 0, true);
	add_script(&ref, sc.setup, 0, true);
	ok = do_ops(&ref, &s, 0, ref.nr_ops);
	for (unsigned int i = 0; i < nr && ok; i++)
		ok = script_run(&s, r->op[r->nr_setup + order[i]].cmd,
				&ret_rc[i]);
	if (ok)
		ok = take_state(&ref, &s, ret);
	script_abandon(&s);
	run_free(&ref);
	return ok;
}
