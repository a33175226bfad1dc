/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/model.c - what x86 lets a crash leave on persistent memory
 *
 * A line's stores are numbered from the first one ever made to it, so that
 * the count a flush has noted stays right when a fence of another thread
 * takes stores away at the front.
 */
#include "tests/crash/model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct store {
	uint64_t when;
	unsigned char off; /* in the line */
	unsigned char len; /* 1 to 8, within one word */
	unsigned char data[8];
};

struct line {
	uint64_t nr;	  /* place on the device */
	uint64_t durable; /* stores that are durable */
	struct store *store;
	unsigned int nr_stores, cap;
	unsigned char now[CACHE_LINE]; /* what a load sees */
};

/* The thread has flushed the line when it had this many stores. */
struct flushed {
	struct line *line;
	uint64_t upto;
};

struct flush_list {
	struct flushed *f;
	size_t nr, cap;
};

struct model {
	uint64_t size;
	unsigned char *base;
	unsigned char *mirror;
	uint64_t hash;
	uint64_t when;
	struct line **line; /* by number; NULL: never stored to */
	struct line **dirty;
	unsigned int nr_dirty, cap_dirty;
	struct flush_list flushed[LOG_THREADS];
};

uint64_t line_hash(uint64_t line, const unsigned char data[CACHE_LINE])
{
	return XXH3_64bits_withSeed(data, CACHE_LINE, line + 1);
}

struct model *model_create(const void *base, uint64_t size, void *mirror)
{
	struct model *m = (struct model *)test_realloc(NULL, sizeof(*m));

	assert(size % CACHE_LINE == 0);
	memset(m, 0, sizeof(*m));
	m->size = size;
	m->base = (unsigned char *)test_realloc(NULL, size);
	memcpy(m->base, base, size);
	m->mirror = (unsigned char *)mirror;
	if (mirror)
		memcpy(mirror, base, size);
	m->line = (struct line **)calloc(size / CACHE_LINE, sizeof(*m->line));
	assert(m->line);
	return m;
}

void model_destroy(struct model *m)
{
	if (!m)
		return;
	for (uint64_t i = 0; i < m->size / CACHE_LINE; i++)
		if (m->line[i]) {
			free(m->line[i]->store);
			free(m->line[i]);
		}
	for (unsigned int i = 0; i < LOG_THREADS; i++)
		free(m->flushed[i].f);
	free(m->line);
	free(m->dirty);
	free(m->base);
	free(m);
}

static struct line *line_get(struct model *m, uint64_t nr)
{
	struct line *l = m->line[nr];

	if (l)
		return l;
	l = (struct line *)test_realloc(NULL, sizeof(*l));
	memset(l, 0, sizeof(*l));
	l->nr = nr;
	memcpy(l->now, m->base + nr * CACHE_LINE, CACHE_LINE);
	m->line[nr] = l;
	return l;
}

static void dirty_add(struct model *m, struct line *l)
{
	if (m->nr_dirty == m->cap_dirty) {
		m->cap_dirty = m->cap_dirty ? m->cap_dirty * 2 : 64;
		m->dirty = (struct line **)test_realloc(
			m->dirty, m->cap_dirty * sizeof(*m->dirty));
	}
	m->dirty[m->nr_dirty++] = l;
}

/* A store that stays within one word. */
static void store_piece(struct model *m, uint64_t off, const void *data,
			size_t len)
{
	struct line *l = line_get(m, off / CACHE_LINE);
	unsigned int in = (unsigned int)(off % CACHE_LINE);
	struct store *s;

	if (memcmp(l->now + in, data, len) == 0)
		return;
	memcpy(l->now + in, data, len);
	if (l->nr_stores == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 8;
		l->store = (struct store *)test_realloc(
			l->store, l->cap * sizeof(*l->store));
	}
	if (l->nr_stores == 0)
		dirty_add(m, l);
	s = &l->store[l->nr_stores++];
	s->when = ++m->when;
	s->off = (unsigned char)in;
	s->len = (unsigned char)len;
	memcpy(s->data, data, len);
}

void model_store(struct model *m, uint64_t off, const void *data, size_t len)
{
	const unsigned char *p = (const unsigned char *)data;

	assert(off <= m->size && len <= m->size - off);
	while (len) {
		size_t piece = 8 - off % 8;

		if (piece > len)
			piece = len;
		store_piece(m, off, p, piece);
		off += piece;
		p += piece;
		len -= piece;
	}
}

void model_flush(struct model *m, unsigned int thread, uint64_t off, size_t len)
{
	struct flush_list *fl = &m->flushed[thread];
	uint64_t end = (off + len + CACHE_LINE - 1) / CACHE_LINE;

	for (uint64_t nr = off / CACHE_LINE; nr < end; nr++) {
		struct line *l = m->line[nr];

		if (!l || l->nr_stores == 0)
			continue;
		if (fl->nr == fl->cap) {
			fl->cap = fl->cap ? fl->cap * 2 : 64;
			fl->f = (struct flushed *)test_realloc(
				fl->f, fl->cap * sizeof(*fl->f));
		}
		fl->f[fl->nr++] =
			(struct flushed){ l, l->durable + l->nr_stores };
	}
}

/* The first @nr stores of the line are on media now. */
static void line_settle(struct model *m, struct line *l, unsigned int nr)
{
	unsigned char *base = m->base + l->nr * CACHE_LINE;

	m->hash ^= line_hash(l->nr, base);
	for (unsigned int i = 0; i < nr; i++)
		memcpy(base + l->store[i].off, l->store[i].data,
		       l->store[i].len);
	m->hash ^= line_hash(l->nr, base);
	if (m->mirror)
		memcpy(m->mirror + l->nr * CACHE_LINE, base, CACHE_LINE);
	l->nr_stores -= nr;
	l->durable += nr;
	memmove(l->store, l->store + nr, l->nr_stores * sizeof(*l->store));
}

void model_fence(struct model *m, unsigned int thread)
{
	struct flush_list *fl = &m->flushed[thread];
	unsigned int kept = 0;

	for (size_t i = 0; i < fl->nr; i++) {
		struct line *l = fl->f[i].line;

		if (fl->f[i].upto > l->durable)
			line_settle(m, l,
				    (unsigned int)(fl->f[i].upto - l->durable));
	}
	fl->nr = 0;
	for (unsigned int i = 0; i < m->nr_dirty; i++)
		if (m->dirty[i]->nr_stores)
			m->dirty[kept++] = m->dirty[i];
	m->nr_dirty = kept;
}

void model_kill(struct model *m)
{
	for (unsigned int i = 0; i < LOG_THREADS; i++)
		m->flushed[i].nr = 0;
}

void model_apply(struct model *m, const struct log *log,
		 const struct log_event *e)
{
	switch (e->type) {
	case LOG_STORE:
		model_store(m, e->off, log->pool + e->data, e->len);
		break;
	case LOG_FLUSH:
		model_flush(m, e->thread, e->off, e->len);
		break;
	case LOG_FENCE:
		model_fence(m, e->thread);
		break;
	case LOG_KILL:
		model_kill(m);
		break;
	case LOG_BEGIN:
	case LOG_END:
		break;
	}
}

static int by_number(const void *a, const void *b)
{
	const struct line *const *x = (const struct line *const *)a;
	const struct line *const *y = (const struct line *const *)b;

	return (*x)->nr < (*y)->nr ? -1 : (*x)->nr > (*y)->nr;
}

unsigned int model_dirty(struct model *m)
{
	if (m->nr_dirty)
		qsort(m->dirty, m->nr_dirty, sizeof(struct line *), by_number);
	return m->nr_dirty;
}

unsigned int model_nr_dirty(const struct model *m)
{
	return m->nr_dirty;
}

uint64_t model_line(const struct model *m, unsigned int i)
{
	return m->dirty[i]->nr;
}

unsigned int model_stores(const struct model *m, unsigned int i)
{
	return m->dirty[i]->nr_stores;
}

uint64_t model_when(const struct model *m, unsigned int i, unsigned int k)
{
	return m->dirty[i]->store[k].when;
}

uint64_t model_now(const struct model *m)
{
	return m->when;
}

void model_contents(const struct model *m, unsigned int i, unsigned int take,
		    unsigned char ret[CACHE_LINE])
{
	const struct line *l = m->dirty[i];

	assert(take <= l->nr_stores);
	if (take == l->nr_stores) {
		memcpy(ret, l->now, CACHE_LINE);
		return;
	}
	memcpy(ret, m->base + l->nr * CACHE_LINE, CACHE_LINE);
	for (unsigned int k = 0; k < take; k++)
		memcpy(ret + l->store[k].off, l->store[k].data,
		       l->store[k].len);
}

const unsigned char *model_durable(const struct model *m)
{
	return m->base;
}

uint64_t model_size(const struct model *m)
{
	return m->size;
}

uint64_t model_hash(const struct model *m)
{
	return m->hash;
}
