/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/stress_change.c - clients of foliofs-stress that change files
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "dax/lib/foliofs.h"
#include "fs/ioctl.h"
#include "tools/stress.h"

/* One operation on pages [page, page + nr) of an open file. */
struct change {
	enum stress_op op;
	struct object *o;
	int fd;
	unsigned int page, nr;
	unsigned int size; /* pages that the file had */
	uint64_t begin[MAX_PAGES];
	uint64_t block[MAX_PAGES]; /* that may be freed */
	unsigned int nr_blocks;
};

static off_t pos_of(unsigned int page)
{
	return (off_t)page << BLOCK_SHIFT;
}

/* Which blocks are there now; for the history only. */
static void list_blocks(struct change *c, unsigned int page, unsigned int nr)
{
	static _Thread_local struct foliofs_ioc_map map;
	uint64_t end = (uint64_t)pos_of(page + nr);

	map.pos = (uint64_t)pos_of(page);
	c->nr_blocks = 0;
	if (ioctl(c->fd, FOLIOFS_IOC_MAP, &map))
		return;
	for (uint32_t i = 0; i < map.nr; i++) {
		const struct foliofs_ioc_extent *e = &map.extent[i];

		for (uint64_t at = 0; at < e->len && e->pos + at < end &&
				      c->nr_blocks < MAX_PAGES;
		     at += BLOCK_SIZE)
			c->block[c->nr_blocks++] = (e->off + at) >> BLOCK_SHIFT;
	}
}

static void note_blocks(const struct change *c, enum event_kind kind)
{
	for (unsigned int i = 0; i < c->nr_blocks; i++)
		event_add(c->block[i], kind, c->op, atomic_load(&c->o->id),
			  c->page);
}

/* It takes blocks away. */
static void take_begin(struct change *c)
{
	unsigned int size = atomic_load(&c->o->pages);

	list_blocks(c, c->page, size > c->page ? size - c->page : 0);
	note_blocks(c, EVENT_TAKEN);
	atomic_fetch_add(&c->o->nr_inside, 1);
}

static void take_end(struct change *c, int ret)
{
	atomic_fetch_add(&c->o->nr_ended, 1);
	atomic_fetch_sub(&c->o->nr_inside, 1);
	if (ret == 0)
		note_blocks(c, EVENT_FREED);
}

/* All pages of @from to @to become @value. */
static void begin_values(struct change *c, unsigned int from, unsigned int to,
			 uint64_t value)
{
	for (unsigned int i = from; i < to; i++)
		c->begin[i] = rec_begin(c->o, i, value);
}

static void end_values(struct change *c, unsigned int from, unsigned int to,
		       enum rec_state state)
{
	for (unsigned int i = from; i < to; i++)
		rec_end(c->o, i, c->begin[i], state);
}

static void truncate_file(struct change *c)
{
	unsigned int size = (unsigned int)rnd(stress->profile->nr_pages + 1);
	unsigned int from = size < c->size ? size : c->size;
	unsigned int to = size < c->size ? c->size : size;
	int ret;

	c->page = size;
	op_begin(c->op);
	take_begin(c);
	begin_values(c, from, to, size < c->size ? VALUE_BEYOND : VALUE_ZERO);
	ret = ftruncate(c->fd, pos_of(size)) ? -errno : 0;
	end_values(c, from, to, ret ? REC_FREE : REC_DONE);
	take_end(c, ret);
	if (ret == 0)
		atomic_store(&c->o->pages, size);
	op_end(c->op, ret);
}

static int do_fallocate(const struct change *c)
{
	struct foliofs_ioc_range range = {
		.pos = (uint64_t)pos_of(c->page),
		.len = (uint64_t)pos_of(c->nr),
	};
	int mode = FALLOC_FL_KEEP_SIZE |
		   (c->op == OP_PUNCH ? FALLOC_FL_PUNCH_HOLE
				      : FALLOC_FL_ZERO_RANGE);
	int ret;

	if (c->op == OP_UNSHARE)
		ret = ioctl(c->fd, FOLIOFS_IOC_UNSHARE, &range);
	else
		ret = fallocate(c->fd, mode, pos_of(c->page), pos_of(c->nr));
	return ret ? -errno : 0;
}

/* Inside the file. */
static void fallocate_file(struct change *c)
{
	unsigned int end = c->page + c->nr;
	bool zero = c->op != OP_UNSHARE;
	int ret;

	if (end > c->size)
		return;
	op_begin(c->op);
	take_begin(c);
	if (zero)
		begin_values(c, c->page, end, VALUE_ZERO);
	ret = do_fallocate(c);
	if (zero)
		end_values(c, c->page, end, ret ? REC_FREE : REC_DONE);
	take_end(c, ret);
	op_end(c->op, ret);
}

/* The size after an operation that reached up to page @end. */
static void grown(struct change *c, unsigned int end)
{
	if (end > c->size)
		atomic_store(&c->o->pages, end);
}

static void write_file(struct change *c)
{
	static _Thread_local uint64_t buf[64 * WORDS];
	unsigned int end = c->page + c->nr;
	ssize_t len;
	int ret;

	for (unsigned int i = 0; i < c->nr; i++)
		page_fill(buf + i * WORDS, new_tag(c->o, c->page + i));
	for (size_t i = 0; i < c->nr * WORDS; i++)
		buf[i] = htole64(buf[i]);
	op_begin(c->op);
	if (c->size < c->page)
		begin_values(c, c->size, c->page, VALUE_ZERO);
	for (unsigned int i = c->page; i < end; i++)
		c->begin[i] = rec_begin(
			c->o, i, le64toh(buf[(i - c->page) * WORDS]) >> 16);
	len = pwrite(c->fd, buf, (size_t)pos_of(c->nr), pos_of(c->page));
	ret = len == -1 ? -errno : 0;
	if (ret == 0 && len != (ssize_t)pos_of(c->nr))
		finding(c->o, c->page, UINT64_MAX, "write: %zd bytes of %jd",
			len, (intmax_t)pos_of(c->nr));
	if (c->size < c->page)
		end_values(c, c->size, c->page, ret ? REC_FREE : REC_DONE);
	/* What is replaced in place may be half there. */
	end_values(c, c->page, end, ret ? REC_MAYBE : REC_DONE);
	if (ret == 0) {
		grown(c, end);
		list_blocks(c, c->page, c->nr);
		note_blocks(c, EVENT_OWNED);
	}
	op_end(c->op, ret);
}

/* read(2) sees what a load sees, and nothing past the end. */
static void read_file(struct change *c)
{
	static _Thread_local uint64_t buf[64 * WORDS];
	uint64_t from, to;
	ssize_t len;

	op_begin(c->op);
	from = now();
	len = pread(c->fd, buf, (size_t)pos_of(c->nr), pos_of(c->page));
	to = now();
	for (size_t i = 0; i < c->nr * WORDS; i++)
		buf[i] = le64toh(buf[i]);
	for (unsigned int i = 0; len >= 0 && i < c->nr; i++) {
		if (pos_of(i + 1) <= len)
			page_check(c->o, c->page + i, buf + i * WORDS, WORDS,
				   from, to, UINT64_MAX, "read");
		else if (value_allowed(c->o, c->page + i, VALUE_BEYOND, from,
				       to) == ANSWER_NO)
			finding(c->o, c->page + i, UINT64_MAX,
				"read: ends before this page, at moments "
				"[%ju, %ju]",
				(uintmax_t)from, (uintmax_t)to);
	}
	op_end(c->op, len == -1 ? -errno : 0);
}

static int do_clone(const struct change *c, int src_fd, unsigned int src_page,
		    unsigned int *ret_nr)
{
	loff_t from = pos_of(src_page), to = pos_of(c->page);
	ssize_t len;

	*ret_nr = c->nr;
	if (c->op == OP_CLONE)
		return foliofs_reflink(src_fd, from, c->fd, to,
				       (size_t)pos_of(c->nr));
	len = copy_file_range(src_fd, &from, c->fd, &to, (size_t)pos_of(c->nr),
			      0);
	if (len == -1)
		return -errno;
	*ret_nr = (unsigned int)(len >> BLOCK_SHIFT);
	return 0;
}

/* A source that became shorter is no surprise. */
static int clone_error(int ret)
{
	return ret == -EINVAL ? -EAGAIN : ret;
}

static void clone_pages(struct change *c, struct object *src, int src_fd,
			unsigned int src_page)
{
	unsigned int end = c->page + c->nr, done, nr;
	int ret;

	op_begin(c->op);
	take_begin(c);
	atomic_fetch_add(&src->nr_inside, 1);
	if (c->size < c->page)
		begin_values(c, c->size, c->page, VALUE_ZERO);
	for (unsigned int i = 0; i < c->nr; i++)
		c->begin[c->page + i] =
			rec_begin_clone(c->o, c->page + i, src, src_page + i);
	ret = do_clone(c, src_fd, src_page, &nr);
	done = ret ? c->page : c->page + nr;
	if (c->size < c->page)
		end_values(c, c->size, c->page,
			   done > c->page ? REC_DONE : REC_FREE);
	end_values(c, c->page, done, REC_DONE);
	end_values(c, done, end, REC_FREE);
	atomic_fetch_add(&src->nr_ended, 1);
	atomic_fetch_sub(&src->nr_inside, 1);
	take_end(c, ret);
	if (done > c->page)
		grown(c, done);
	op_end(c->op, clone_error(ret));
}

static void clone_file(struct change *c)
{
	unsigned int size, src_page;
	struct object *src;
	int fd;

	src = object_open(O_RDWR, &fd);
	if (!src)
		return;
	size = atomic_load(&src->pages);
	if (size < c->nr)
		goto out;
	src_page = (unsigned int)rnd(size - c->nr + 1);
	/* A range of a file onto itself is refused. */
	if (src != c->o || src_page + c->nr <= c->page ||
	    c->page + c->nr <= src_page)
		clone_pages(c, src, fd, src_page);
out:
	close(fd);
	object_put(src);
}

static void sync_file(struct change *c)
{
	op_begin(c->op);
	op_end(c->op, fsync(c->fd) ? -errno : 0);
}

static void run(struct change *c)
{
	c->size = atomic_load(&c->o->pages);
	if (c->op == OP_TRUNCATE)
		truncate_file(c);
	else if (c->op == OP_WRITE)
		write_file(c);
	else if (c->op == OP_CLONE || c->op == OP_COPY)
		clone_file(c);
	else
		fallocate_file(c);
}

/* Alone among those who change the size, or beside others who do not. */
static void run_locked(struct change *c)
{
	struct trylock *l = &c->o->size_lock;
	bool alone = c->op == OP_TRUNCATE || c->op == OP_WRITE ||
		     c->op == OP_CLONE || c->op == OP_COPY;

	if (c->op == OP_READ) {
		read_file(c);
	} else if (c->op == OP_FSYNC) {
		sync_file(c);
	} else if (alone && try_write(l)) {
		run(c);
		unlock_write(l);
	} else if (!alone && try_read(l)) {
		run(c);
		unlock_read(l);
	}
}

void changer_step(enum stress_op op)
{
	static _Thread_local struct change c;
	const struct profile *p = stress->profile;

	if (op == OP_RENAME) {
		object_rename();
		return;
	}
	if (op == OP_UNLINK) {
		object_unlink();
		return;
	}
	c.op = op;
	c.o = object_open(O_RDWR, &c.fd);
	if (!c.o)
		return;
	c.nr = (unsigned int)(1 + rnd(p->max_run));
	c.page = (unsigned int)rnd(1 + rnd(p->nr_pages - c.nr + 1));
	c.nr_blocks = 0;
	run_locked(&c);
	close(c.fd);
	object_put(c.o);
}

void stress_check_files(void)
{
	static struct change c;

	for (unsigned int i = 0; i < NR_OBJECTS; i++) {
		c.o = object_open_at(i, O_RDONLY, &c.fd);
		if (!c.o)
			continue;
		c.op = OP_READ;
		c.nr = 1;
		for (c.page = 0; c.page < stress->profile->nr_pages; c.page++)
			read_file(&c);
		close(c.fd);
		object_put(c.o);
	}
}
