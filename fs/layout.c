/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/layout.c - files that programs map, and what has to wait for them
 *
 * dax/ knows how to break a layout.  Here is who does it when, who waits, and
 * what becomes of blocks that somebody has pinned when they are freed.
 */
#include "fs/layout.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "dax/policy_host.h"
#include "dax/session.h"
#include "fs/direct.h"

/* A request that sleeps on a busy folio. */
struct wait {
	struct wait *next;
	struct foliofs *fs;
	struct dax_task task;
	struct session_wait who;
	uint64_t since_ns;
	bool listed;
};

/* Interrupts that came before their request slept.  The oldest is forgotten. */
#define NR_EARLY 64u

/*
 * Blocks that are free but for a pin: one alloc_free() is still to come when
 * @missing pages are idle.
 */
struct held {
	struct held *next;
	uint64_t block;
	uint64_t missing;
	unsigned int order;
};

struct layout {
	struct dax_device *dev;
	struct policy_host *policy;
	_Atomic(bool) used; /* a file was attached: folios may be pinned */

	struct mutex wait_lock; /* covers the next three */
	struct wait *waits;
	uint64_t early[NR_EARLY];
	unsigned int nr_early;

	struct mutex held_lock; /* covers the next ones */
	struct held *held;
	uint64_t nr_held, nr_held_ever; /* blocks */
};

/* Blocks that are pinned. */

static struct held **find_held(struct layout *l, uint64_t block)
{
	struct held **h = &l->held;

	while (*h && (block < (*h)->block ||
		      block - (*h)->block >= UINT64_C(1) << (*h)->order))
		h = &(*h)->next;
	return h;
}

/* dax/folio.h: for each page that folio_release() said false for. */
static void page_idle(void *ctx, uint64_t pfn, uint64_t nr)
{
	struct foliofs *fs = ctx;
	struct layout *l = fs->layout;
	struct held **h, *done = NULL;

	for (uint64_t i = 0; i < nr; i++) {
		mutex_lock(&l->held_lock);
		h = find_held(l, pfn + i);
		assert(*h && (*h)->missing > 0);
		if (--(*h)->missing == 0) {
			done = *h;
			*h = done->next;
			l->nr_held -= UINT64_C(1) << done->order;
		}
		mutex_unlock(&l->held_lock);
		if (done)
			alloc_free(fs->al, done->block, done->order);
		free(done);
		done = NULL;
	}
}

static const struct folio_table_ops table_ops = { .idle = page_idle };

void layout_free(struct foliofs *fs, uint64_t block, unsigned int order)
{
	struct layout *l = fs->layout;
	struct held *h;

	if (!l || !atomic_load_explicit(&l->used, memory_order_relaxed) ||
	    policy_host_unsafe(l->policy)) {
		alloc_free(fs->al, block, order);
		return;
	}
	h = (struct held *)malloc(sizeof(*h));
	if (!h) /* they stay taken until the next mount */
		return;
	*h = (struct held){ .block = block, .order = order };
	mutex_lock(&l->held_lock);
	for (uint64_t i = 0; i < UINT64_C(1) << order; i++)
		/* Of a chunk, only what no other slot points to. */
		if (alloc_share(fs->al, block + i) == 0 &&
		    !folio_release(l->dev->folios, block + i))
			h->missing++;
	if (h->missing) {
		h->next = l->held;
		l->held = h;
		h = NULL;
		l->nr_held += UINT64_C(1) << order;
		l->nr_held_ever += UINT64_C(1) << order;
	}
	mutex_unlock(&l->held_lock);
	if (h)
		alloc_free(fs->al, block, order);
	free(h);
}

void layout_held(struct foliofs *fs, struct layout_held *ret)
{
	struct layout *l = fs->layout;

	mutex_lock(&l->held_lock);
	*ret = (struct layout_held){ .nr_blocks = l->nr_held,
				     .nr_ever = l->nr_held_ever };
	mutex_unlock(&l->held_lock);
}

/* Who waits. */

static _Thread_local struct {
	uint64_t unique;
	int32_t pid;
} caller;

void layout_caller(uint64_t unique, int32_t pid)
{
	caller.unique = unique;
	caller.pid = pid;
}

static bool take_early(struct layout *l, uint64_t unique)
{
	for (unsigned int i = 0; i < NR_EARLY; i++) {
		if (l->early[i] == unique) {
			l->early[i] = 0;
			return true;
		}
	}
	return false;
}

static void name_of(int32_t pid, char comm[16])
{
	char path[32], text[17] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (f) {
		if (fgets(text, sizeof(text), f))
			text[strcspn(text, "\n")] = '\0';
		fclose(f);
	}
	memcpy(comm, text, 16);
}

static void wait_init(struct wait *w, struct foliofs *fs, const char *op)
{
	*w = (struct wait){
		.fs = fs, .who = { .unique = caller.unique, .pid = caller.pid }
	};
	snprintf(w->who.op, sizeof(w->who.op), "%s", op);
}

static void wait_list(struct wait *w)
{
	struct layout *l = w->fs->layout;

	w->since_ns = clock_ns();
	name_of(w->who.pid, w->who.comm);
	mutex_lock(&l->wait_lock);
	w->next = l->waits;
	l->waits = w;
	w->listed = true;
	if (take_early(l, w->who.unique))
		dax_task_interrupt(&w->task);
	mutex_unlock(&l->wait_lock);
}

static void wait_end(struct wait *w)
{
	struct layout *l = w->fs->layout;
	struct wait **p;

	if (!w->listed)
		return;
	mutex_lock(&l->wait_lock);
	for (p = &l->waits; *p != w; p = &(*p)->next)
		;
	*p = w->next;
	mutex_unlock(&l->wait_lock);
}

bool layout_interrupt(struct foliofs *fs, uint64_t unique)
{
	struct layout *l = fs->layout;
	struct wait *w;

	if (!l || !atomic_load(&l->used))
		return false;
	mutex_lock(&l->wait_lock);
	for (w = l->waits; w && w->who.unique != unique; w = w->next)
		;
	if (w)
		dax_task_interrupt(&w->task);
	else
		l->early[l->nr_early++ % NR_EARLY] = unique;
	mutex_unlock(&l->wait_lock);
	return w;
}

int layout_waits(struct foliofs *fs, uint64_t cursor, uint64_t ino,
		 struct session_wait *ret)
{
	struct layout *l = fs->layout;
	const struct wait *best = NULL;

	mutex_lock(&l->wait_lock);
	for (const struct wait *w = l->waits; w; w = w->next)
		if (w->who.unique > cursor && (!ino || w->who.ino == ino) &&
		    (!best || w->who.unique < best->who.unique))
			best = w;
	if (best) {
		*ret = best->who;
		ret->age_ns = clock_ns() - best->since_ns;
	}
	mutex_unlock(&l->wait_lock);
	return best ? 0 : -ENOENT;
}

/* Breaks. */

static void flush_dirty(struct inode_dax *d)
{
	if (atomic_exchange(&d->dirty, false))
		dax_writeback_mapping_range(&d->mapping, 0, UINT64_MAX,
					    DAX_WB_ALL);
}

/* One break of one file, with its request. */
struct breaking {
	struct dax_break brk;
	struct wait wait;
	struct policy_ask ask;
	struct inode_dax *d;
};

static void brk_unlock(struct dax_break *brk) __no_lock_analysis
{
	struct breaking *b = brk->ctx;

	rwsem_up_write(&b->d->mapping.invalidate_lock);
}

static void brk_lock(struct dax_break *brk) __no_lock_analysis
{
	struct breaking *b = brk->ctx;

	rwsem_down_write(&b->d->mapping.invalidate_lock, LOCK_INVALIDATE);
	/* Faults came in meanwhile, and deleting entries forgets marks (H7). */
	flush_dirty(b->d);
}

static int brk_busy(struct dax_break *brk, struct address_space *mapping,
		    struct folio *folio, uint64_t index)
{
	struct breaking *b = brk->ctx;

	b->wait.who.ino = mapping->ino;
	b->wait.who.index = index;
	if (!b->wait.listed) {
		wait_list(&b->wait);
		b->ask.b.pid = b->wait.who.pid;
		memcpy(b->ask.b.comm, b->wait.who.comm, 15);
	}
	b->ask.b.ino = mapping->ino;
	if (dax_task_interrupted(&b->wait.task))
		return -EINTR;
	return policy_ask_busy(&b->ask, brk, mapping, folio, index);
}

static void breaking_init(struct breaking *b, struct inode *ip, const char *op)
{
	b->d = inode_dax(ip);
	if (!b->d)
		return;
	b->brk = (struct dax_break){ .unlock = brk_unlock,
				     .lock = brk_lock,
				     .busy = brk_busy,
				     .ctx = b,
				     .task = &b->wait.task };
	wait_init(&b->wait, ip->fs, op);
	policy_ask_begin(&b->ask, ip->fs->layout->policy, policy_op_by_name(op),
			 &b->wait.task);
}

/* @ret: of the break. */
static void breaking_end(struct breaking *b, int ret)
{
	policy_ask_end(&b->ask, ret);
	wait_end(&b->wait);
}

static int begin(struct breaking *b) __no_lock_analysis
{
	int ret;

	brk_lock(&b->brk);
	ret = dax_break_layout_inode(&b->d->mapping, &b->brk);
	breaking_end(b, ret);
	if (ret)
		brk_unlock(&b->brk);
	return ret;
}

int layout_begin(struct inode *ip, const char *op)
{
	struct breaking b;

	breaking_init(&b, ip, op);
	return b.d ? begin(&b) : 0;
}

int layout_begin_drop(struct inode *ip, const char *op, uint64_t start,
		      uint64_t end)
{
	struct breaking b;

	breaking_init(&b, ip, op);
	if (!b.d)
		return 0;
	b.ask.b.flags |= POLICY_CAN_DEFER;
	b.brk.defer_start = start;
	b.brk.defer_end = end;
	if (start > end) { /* none; both 0 would be all */
		b.brk.defer_start = 1;
		b.brk.defer_end = 0;
	}
	return begin(&b);
}

void layout_end(struct inode *ip) __no_lock_analysis
{
	struct inode_dax *d = inode_dax(ip);

	if (d)
		rwsem_up_write(&d->mapping.invalidate_lock);
}

/*
 * Flushed before the entries go; what was stored while the pair slept is
 * flushed here, from the tree, because its marks are gone.
 */
static void flush_file(struct inode *ip)
{
	struct inode_dax *d = inode_dax(ip);
	uint64_t index = 0, end = inode_size(ip) >> BLOCK_SHIFT;
	struct tree_run run;

	if (!atomic_exchange(&d->dirty, false))
		return;
	for (; index <= end; index += run.nr) {
		if (tree_lookup(ip->fs, inode_data(ip), index, end - index + 1,
				false, &run))
			return; /* whoever goes on meets it too */
		if (run.type == SLOT_DATA)
			pmem_flush(ip->fs->pm, run.block << BLOCK_SHIFT,
				   run.nr << BLOCK_SHIFT);
	}
	pmem_fence(ip->fs->pm);
}

static void flush_before_pair(struct inode *ip) __no_lock_analysis
{
	struct inode_dax *d = inode_dax(ip);

	rwsem_down_write(&d->mapping.invalidate_lock, LOCK_INVALIDATE);
	flush_dirty(d);
	rwsem_up_write(&d->mapping.invalidate_lock);
}

/*
 * The one of two files whose layout matters, or NULL: both do.  A file that
 * was looked at but cannot be mapped (no DAX) has no layout to break.
 */
static struct inode *one_of(struct inode *a, struct inode *b)
{
	const struct inode_dax *da = inode_dax(a), *db = inode_dax(b);

	if (a == b || !db || (da && da->mapping.dax && !db->mapping.dax))
		return a;
	if (!da || (db->mapping.dax && !da->mapping.dax))
		return b;
	return NULL;
}

int layout_begin_pair(struct inode *a, struct inode *b, const char *op)
	__no_lock_analysis
{
	struct inode_dax *da = inode_dax(a), *db = inode_dax(b);
	struct inode *one = one_of(a, b);
	struct breaking brk;
	int ret;

	if (one)
		return layout_begin(one, op);
	flush_before_pair(a);
	flush_before_pair(b);
	breaking_init(&brk, a, op);
	ret = dax_break_layout_pair(&da->mapping, &db->mapping, &brk.brk);
	breaking_end(&brk, ret);
	if (!ret) {
		flush_file(a);
		flush_file(b);
	}
	return ret;
}

void layout_end_pair(struct inode *a, struct inode *b)
{
	struct inode *one = one_of(a, b);

	if (one)
		layout_end(one);
	else
		dax_break_layout_pair_end(&inode_dax(a)->mapping,
					  &inode_dax(b)->mapping);
}

void layout_write(struct inode *ip) __no_lock_analysis
{
	struct inode_dax *d = inode_dax(ip);

	if (d)
		rwsem_down_write(&d->mapping.invalidate_lock, LOCK_INVALIDATE);
}

/*
 * The tree_lock would hold up fewer faults on @in, but entries of @out are
 * locked meanwhile, which come before it.
 */
void layout_copy(struct inode *in, struct inode *out) __no_lock_analysis
{
	struct inode *first = in->ino < out->ino ? in : out;
	struct inode_dax *d = inode_dax(first == in ? out : in);

	layout_write(first);
	if (d && in != out)
		rwsem_down_write(&d->mapping.invalidate_lock, LOCK_INVALIDATE2);
}

void layout_copy_end(struct inode *in, struct inode *out)
{
	layout_end(in);
	if (in != out)
		layout_end(out);
}

void layout_replace(struct inode *ip, uint64_t pos, uint64_t len)
{
	struct inode_dax *d = inode_dax(ip);
	uint64_t first = pos >> BLOCK_SHIFT;
	uint64_t last = (pos + len - 1) >> BLOCK_SHIFT;

	if (!d)
		return;
	/* An order-9 entry that the range cuts is dirty elsewhere as well. */
	flush_dirty(d);
	dax_clear_dirty_range(&d->mapping, first, last);
	dax_invalidate_range(&d->mapping, first, last);
}

int layout_wait_idle(struct inode *ip, const char *op)
{
	int ret;

	if (!inode_dax(ip))
		return 0;
	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	ret = layout_begin(ip, op);
	if (!ret)
		layout_end(ip);
	rwsem_up_write(&ip->rwsem);
	return ret;
}

int layout_sync(struct inode *ip)
{
	struct inode_dax *d = inode_dax(ip);
	uint64_t nr;
	bool clean;
	int ret;

	if (!d)
		return 0;
	/* Not where a truncate waits for the very one who calls fsync. */
	if (layout_stored_ns(ip) &&
	    rwsem_trydown_write(&ip->rwsem, LOCK_INODE)) {
		layout_settle_times(ip);
		rwsem_up_write(&ip->rwsem);
	}
	atomic_store(&d->dirty, false);
	clean = session_clean_begin(&d->mapping, &nr);
	ret = dax_writeback_mapping_range(&d->mapping, 0, UINT64_MAX,
					  DAX_WB_ALL);
	if (ret == 0 && clean)
		session_clean_end(&d->mapping, nr);
	return ret;
}

void layout_resized(struct inode *ip)
{
	struct inode_dax *d = inode_dax(ip);

	if (d)
		session_set_size(&d->mapping, inode_size(ip));
}

void layout_stored(struct inode *ip)
{
	atomic_store(&inode_dax(ip)->stored_ns, time_now());
}

int64_t layout_stored_ns(struct inode *ip)
{
	struct inode_dax *d = inode_dax(ip);

	if (!d)
		return 0;
	if (session_stores(&d->mapping))
		layout_stored(ip);
	return atomic_load(&d->stored_ns);
}

void layout_forget_stores(struct inode *ip)
{
	if (layout_stored_ns(ip))
		atomic_store(&inode_dax(ip)->stored_ns, 0);
}

void layout_settle_times(struct inode *ip)
{
	int64_t ns = layout_stored_ns(ip);
	struct txn t;

	if (ns == 0 || inode_nlink(ip) == 0)
		return;
	atomic_store(&inode_dax(ip)->stored_ns, 0);
	txn_begin(ip->fs, &t);
	if (ns > (int64_t)inode_word(ip, INODE_MTIME))
		inode_set(&t, ip, INODE_MTIME, (uint64_t)ns);
	if (ns > (int64_t)inode_word(ip, INODE_CTIME))
		inode_set(&t, ip, INODE_CTIME, (uint64_t)ns);
	if (txn_commit(&t)) /* it may be read-only by now: it stays in DRAM */
		atomic_store(&inode_dax(ip)->stored_ns, ns);
}

void tree_down_read(const struct inode *ip) __no_lock_analysis
{
	struct inode_dax *d = inode_dax(ip);

	if (d)
		rwsem_down_read(&d->tree_lock, LOCK_TREE);
}

void tree_up_read(const struct inode *ip) __no_lock_analysis
{
	struct inode_dax *d = inode_dax(ip);

	if (d)
		rwsem_up_read(&d->tree_lock);
}

void tree_down_write(const struct inode *ip) __no_lock_analysis
{
	struct inode_dax *d = inode_dax(ip);

	if (d)
		rwsem_down_write(&d->tree_lock, LOCK_TREE);
}

void tree_up_write(const struct inode *ip) __no_lock_analysis
{
	struct inode_dax *d = inode_dax(ip);

	if (d)
		rwsem_up_write(&d->tree_lock);
}

void layout_down_read(struct inode *ip) __no_lock_analysis
{
	if (!inode_dax(ip)) {
		rwsem_down_read(&ip->rwsem, LOCK_INODE2);
		if (!inode_dax(ip))
			return;
		rwsem_up_read(&ip->rwsem);
	}
	rwsem_down_read(&inode_dax(ip)->mapping.invalidate_lock,
			LOCK_INVALIDATE);
	tree_down_read(ip);
}

void layout_up_read(struct inode *ip) __no_lock_analysis
{
	struct inode_dax *d = inode_dax(ip);

	tree_up_read(ip);
	if (d)
		rwsem_up_read(&d->mapping.invalidate_lock);
	else
		rwsem_up_read(&ip->rwsem);
}

/* Files. */

static uint64_t mapping_size(struct address_space *mapping)
{
	return inode_size((const struct inode *)mapping->host);
}

/* What is committed is durable; what was stored is flushed by writeback. */
static int mapping_fsync(struct address_space *mapping, uint64_t pos,
			 uint64_t len)
{
	return dax_writeback_mapping_range(mapping, pos, pos + len - 1,
					   DAX_WB_ALL);
}

static void mapping_dirty(struct address_space *mapping)
{
	const struct inode *ip = mapping->host;

	atomic_store(&inode_dax(ip)->dirty, true);
}

static const struct dax_mapping_ops mapping_ops = {
	.size = mapping_size,
	.fsync = mapping_fsync,
	.mark_dirty = mapping_dirty,
};

int layout_attach(struct inode *ip)
{
	struct layout *l = ip->fs->layout;
	struct inode_dax *d;
	int ret = 0;

	if (inode_dax(ip))
		return 0;
	/* Exclusive: whoever reads or writes now does not look at d's locks. */
	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	if (inode_dax(ip))
		goto unlock;
	d = (struct inode_dax *)calloc(1, sizeof(*d));
	if (!d) {
		ret = -ENOMEM;
		goto unlock;
	}
	mapping_init(&d->mapping, l->dev, &mapping_ops, &session_mapper,
		     ip->ino, ip);
	d->mapping.dax = direct_file(ip);
	rwsem_init(&d->tree_lock);
	atomic_store(&l->used, true);
	atomic_store_explicit(&ip->dax, d, memory_order_release);
unlock:
	rwsem_up_write(&ip->rwsem);
	return ret;
}

static void no_lock(struct dax_break *brk)
{
	(void)brk;
}

/* There is nobody to tell: it goes on asking. */
static int final_busy(struct dax_break *brk, struct address_space *mapping,
		      struct folio *folio, uint64_t index)
{
	struct breaking *b = brk->ctx;
	int ret;

	atomic_store(&b->wait.task.interrupted, false);
	ret = brk_busy(brk, mapping, folio, index);
	if (ret >= 0)
		return ret;
	brk->until_ns = clock_ns() + POLICY_MS;
	return DAX_BREAK_WAIT;
}

/* The last user of the file has gone, and left a pin. */
static void break_final(struct inode *ip)
{
	struct breaking b;
	int ret;

	breaking_init(&b, ip, "evict");
	b.brk.lock = no_lock;
	b.brk.unlock = no_lock;
	b.brk.busy = final_busy;
	/* Blocks that stay on media need their entries (reflink). */
	b.ask.b.flags = inode_nlink(ip) == 0 ? POLICY_CAN_DEFER : 0;
	do
		ret = dax_break_layout_inode(&b.d->mapping, &b.brk);
	while (ret);
	breaking_end(&b, 0);
}

void layout_detach(struct inode *ip) __no_lock_analysis
{
	struct inode_dax *d = inode_dax(ip);

	if (!d)
		return;
	layout_settle_times(ip);
	break_final(ip);
	mapping_destroy(&d->mapping);
	rwsem_destroy(&d->tree_lock);
	free(d);
	ip->dax = NULL;
}

struct dax_device *layout_device(const struct foliofs *fs)
{
	return fs->layout->dev;
}

struct policy_host *layout_policy(const struct foliofs *fs)
{
	return fs->layout->policy;
}

/* Another inode at or behind bucket *pos that is mapped, with a reference. */
static struct inode *next_mapped(struct foliofs *fs, uint64_t *pos)
{
	struct inode *ip;

	while ((ip = icache_next(fs, pos)) && !inode_dax(ip))
		inode_put(ip);
	return ip;
}

void layout_break_all(struct foliofs *fs, void (*say)(const char *line))
{
	struct inode *ip;
	uint64_t pos = 0;
	char line[120];

	if (!atomic_load(&fs->layout->used))
		return;
	while ((ip = next_mapped(fs, &pos))) {
		struct address_space *mapping = &inode_dax(ip)->mapping;

		if (say && dax_layout_busy_page_range(mapping, 0,
						      DAX_LAYOUT_END, NULL)) {
			snprintf(line, sizeof(line),
				 "inode %ju is pinned: waiting for whoever "
				 "holds it",
				 (uintmax_t)ip->ino);
			say(line);
		}
		dax_break_layout_final(mapping);
		inode_put(ip);
	}
}

static void policy_log(void *ctx, const char *line)
{
	(void)ctx;
	syslog(LOG_NOTICE, "%s", line);
}

int layout_create(struct foliofs *fs, struct errmsg *err)
{
	struct layout *l;
	int ret;

	l = (struct layout *)calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	ret = dax_device_create(fs->pm, &table_ops, fs, &l->dev);
	if (ret)
		goto free;
	ret = policy_host_create(fs->opt.policy, policy_log, fs, &l->policy,
				 err);
	if (ret)
		goto destroy;
	mutex_init(&l->wait_lock, LOCK_HELD); /* wakes under it */
	mutex_init(&l->held_lock, LOCK_HELD);
	fs->layout = l;
	return 0;

destroy:
	dax_device_destroy(l->dev);
free:
	free(l);
	return ret;
}

void layout_destroy(struct foliofs *fs)
{
	struct layout *l = fs->layout;
	struct held *h;

	if (!l)
		return;
	while ((h = l->held)) {
		l->held = h->next;
		free(h);
	}
	policy_host_destroy(l->policy);
	dax_device_destroy(l->dev);
	mutex_destroy(&l->wait_lock);
	mutex_destroy(&l->held_lock);
	free(l);
	fs->layout = NULL;
}
