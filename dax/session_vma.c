/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_vma.c - what clients have mapped, and how it is taken back
 *
 * A vma has a page table like a processor's: tables of 512 slots, a slot of
 * the lowest but one level is a table or an order-9 translation.
 *
 * Taking back is done in two steps.  The translations of the range are marked
 * with the number of a RECALL, which is sent; they stay in the table, and in
 * the books of their folios, until the client answers.  The answer takes out
 * what was marked by that recall or an earlier one (S3), and nothing that was
 * installed since.  Several may take the same range back at a time: each sends
 * its own recall, and whichever answer comes first takes the translations out.
 *
 * Who does not answer in time is late.  Its marked translations become pins
 * (PTE_STUCK), and nobody waits for it again until it has caught up.
 */
#include "dax/session_i.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Slots of a table, as pages of an order-9 folio. */
#define TABLE_SHIFT FOLIO_ORDER
#define TABLE_SLOTS FOLIO_PAGES

/* Pages that one fault brings with it at most. */
#define AROUND_MAX FOLIO_PAGES

/* Recalls that a client may leave unanswered. */
#define MAX_RECALLS 4096u

/* How far back one is looked for that can grow. */
#define MERGE_TRIES 16u

struct table {
	uint64_t slot[TABLE_SLOTS];
	unsigned int nr; /* of slots in use */
};

static struct session_vma *vma_of(struct dax_vma *dv)
{
	return (struct session_vma *)dv;
}

static uint64_t vma_nr(const struct session_vma *vma)
{
	return (vma->dv.end - vma->dv.start) >> BLOCK_SHIFT;
}

/* The page that slot 0 of the root is for; tables are aligned in the file. */
static uint64_t vma_base(const struct session_vma *vma)
{
	return vma->dv.pgoff & ~(TABLE_SLOTS - 1);
}

static uint64_t span_of(unsigned int level)
{
	return UINT64_C(1) << (TABLE_SHIFT * level);
}

static uint64_t pte_pfn(uint64_t pte)
{
	return pte >> PTE_PFN_SHIFT;
}

static uint64_t pte_seq(uint32_t seq)
{
	return (uint64_t)(seq & PTE_SEQ_MASK) << PTE_SEQ_SHIFT;
}

/* Was it marked by recall @seq, or before that one? */
static bool marked_by(uint64_t pte, uint32_t seq)
{
	uint32_t by = (uint32_t)(pte >> PTE_SEQ_SHIFT) & PTE_SEQ_MASK;

	return ((seq - by) & PTE_SEQ_MASK) <= PTE_SEQ_MASK / 2;
}

static struct folio *pte_folio(const struct session_vma *vma, uint64_t pte)
{
	return folio_at(vma->dv.mapping->dev->folios, pte_pfn(pte));
}

/* Tables. */

static struct table *table_of(uint64_t slot)
{
	return (struct table *)(uintptr_t)slot;
}

struct place {
	uint64_t *slot;
	struct table *table; /* that the slot is in; NULL: the root */
	unsigned int level;
};

static void place_set(struct place *p, uint64_t value)
{
	if (p->table && !*p->slot && value)
		p->table->nr++;
	*p->slot = value;
}

static bool table_alloc(struct session_vma *vma, struct place *p)
{
	struct session_client *c = vma->client;
	struct table *t;

	if (c->nr_tables >= c->srv->limits.max_tables)
		return false;
	t = calloc(1, sizeof(*t));
	if (!t)
		return false;
	c->nr_tables++;
	place_set(p, (uintptr_t)t);
	return true;
}

static void table_free(struct session_vma *vma, uint64_t *slot)
{
	free(table_of(*slot));
	*slot = 0;
	vma->client->nr_tables--;
}

/*
 * The slot of a page, down to @level; stops at what is there already.  False:
 * there is no such slot, and none could be made.
 */
static bool find_place(struct session_vma *vma, uint64_t index,
		       unsigned int level, bool make, struct place *p)
{
	uint64_t rel = index - vma_base(vma);

	*p = (struct place){ .slot = &vma->root, .level = vma->height };
	while (p->level > level && !(*p->slot & PTE_PRESENT)) {
		if (!*p->slot && (!make || !table_alloc(vma, p)))
			return false;
		p->table = table_of(*p->slot);
		p->level--;
		p->slot = &p->table->slot[(rel / span_of(p->level)) %
					  TABLE_SLOTS];
	}
	return true;
}

/* The translation of a page, or 0. */
static uint64_t find_pte(struct session_vma *vma, uint64_t index)
{
	struct place p;

	return find_place(vma, index, 0, false, &p) ? *p.slot : 0;
}

/* A walk over the translations that touch [first, last]. */
struct walk {
	struct session_vma *vma;
	uint64_t first, last;
	bool (*fn)(struct walk *w, uint64_t *slot, uint64_t index, uint64_t nr);
	void *ctx;

	uint32_t seq;	 /* mark with it, or take what it marked */
	bool late;	 /* nobody will answer */
	uint64_t lo, hi; /* of what was found */
	unsigned int nr_fresh, nr_pending, nr_stuck;

	/* S4: to be put when the lock is dropped. */
	unsigned int nr_puts;
	struct folio *puts[64];
};

static bool walk_slot(struct walk *w, uint64_t *slot, unsigned int level,
		      uint64_t base)
{
	uint64_t span, i;
	struct table *t;
	bool go = true;

	if (!*slot)
		return true;
	if (*slot & PTE_PRESENT)
		return w->fn(w, slot, base, span_of(level));
	t = table_of(*slot);
	span = span_of(level - 1);
	i = w->first > base ? (w->first - base) / span : 0;
	for (; go && i < TABLE_SLOTS && base + i * span <= w->last; i++) {
		if (!t->slot[i])
			continue;
		go = walk_slot(w, &t->slot[i], level - 1, base + i * span);
		t->nr -= !t->slot[i];
	}
	if (t->nr == 0)
		table_free(w->vma, slot);
	return go;
}

/* True: to the end. */
static bool walk(struct walk *w)
{
	w->lo = UINT64_MAX;
	w->hi = 0;
	return walk_slot(w, &w->vma->root, w->vma->height, vma_base(w->vma));
}

struct visit {
	session_pte_fn fn;
	void *ctx;
};

static bool visit_pte(struct walk *w, uint64_t *slot, uint64_t index,
		      uint64_t nr)
{
	const struct visit *v = w->ctx;

	return v->fn(v->ctx, index, nr, *slot);
}

void session_vma_walk(struct session_client *c, struct session_vma *vma,
		      session_pte_fn fn, void *ctx)
{
	struct visit v = { fn, ctx };
	struct walk w = {
		.vma = vma,
		.last = UINT64_MAX,
		.fn = visit_pte,
		.ctx = &v,
	};

	assert(vma->client == c);
	walk(&w);
}

/* Taking out. */

/* S2.  False: no room for another one to put. */
static bool drop(struct walk *w, uint64_t *slot)
{
	uint64_t pte = *slot;

	if (pte & PTE_ZERO) {
		*slot = 0;
	} else if (!(pte & PTE_STUCK)) {
		folio_remove_map(pte_folio(w->vma, pte));
		*slot = 0;
	} else if (w->nr_puts < sizeof(w->puts) / sizeof(w->puts[0])) {
		w->puts[w->nr_puts++] = pte_folio(w->vma, pte);
		*slot = 0;
	}
	return !*slot;
}

/* The client unmapped: what it has a part of left stays. */
static bool drop_covered(struct walk *w, uint64_t *slot, uint64_t index,
			 uint64_t nr)
{
	if (index < w->first || index + (nr - 1) > w->last)
		return true;
	return drop(w, slot);
}

/* A ZAP or KILL was answered. */
static bool drop_marked(struct walk *w, uint64_t *slot, uint64_t index,
			uint64_t nr)
{
	(void)index;
	(void)nr;
	if (!(*slot & PTE_RECALL) || !marked_by(*slot, w->seq))
		return true;
	return drop(w, slot);
}

/* A WRPROTECT was answered. */
static bool protect_marked(struct walk *w, uint64_t *slot, uint64_t index,
			   uint64_t nr)
{
	(void)index;
	(void)nr;
	if ((*slot & PTE_WRPROT) && !(*slot & PTE_RECALL) &&
	    marked_by(*slot, w->seq))
		*slot &= ~(uint64_t)(PTE_WRPROT | PTE_WRITE);
	return true;
}

static void put_all(struct walk *w)
{
	while (w->nr_puts > 0)
		folio_put(w->puts[--w->nr_puts]);
}

void session_vma_unmap(struct session_vma *vma, uint64_t index, uint64_t nr)
{
	struct session_client *c = vma->client;
	struct walk w = {
		.vma = vma,
		.first = index,
		.last = index + (nr - 1),
		.fn = drop_covered,
	};
	bool done;

	do {
		mutex_lock(&c->lock);
		done = walk(&w);
		mutex_unlock(&c->lock);
		put_all(&w);
	} while (!done);
}

/* Taking back: marks. */

/* Its time is over: a reference that is no mapping. */
static uint64_t stick(struct session_vma *vma, uint64_t pte)
{
	struct folio *folio;

	if (!(pte & (PTE_STUCK | PTE_ZERO))) {
		folio = pte_folio(vma, pte);
		folio_get(folio);
		folio_remove_map(folio);
	}
	return pte | PTE_STUCK;
}

static void found(struct walk *w, uint64_t index, uint64_t nr)
{
	if (index < w->lo)
		w->lo = index;
	if (index + nr > w->hi)
		w->hi = index + nr;
}

static uint64_t mark(struct walk *w, uint64_t pte, uint64_t flag)
{
	const uint64_t seqs = (uint64_t)PTE_SEQ_MASK << PTE_SEQ_SHIFT;

	w->nr_fresh++;
	pte &= ~(seqs | PTE_WRPROT);
	return pte | flag | pte_seq(w->seq);
}

static bool mark_zap(struct walk *w, uint64_t *slot, uint64_t index,
		     uint64_t nr)
{
	if (!(*slot & PTE_RECALL))
		*slot = mark(w, *slot, PTE_RECALL);
	if (w->late)
		*slot = stick(w->vma, *slot);
	if (*slot & PTE_STUCK)
		w->nr_stuck++;
	else
		w->nr_pending++;
	found(w, index, nr);
	return true;
}

static bool mark_wrprotect(struct walk *w, uint64_t *slot, uint64_t index,
			   uint64_t nr)
{
	if (!(*slot & PTE_WRITE))
		return true;
	if (!(*slot & (PTE_RECALL | PTE_WRPROT)))
		*slot = mark(w, *slot, PTE_WRPROT);
	/* It may go on storing: what it has is not clean. */
	if (w->late || (*slot & PTE_STUCK))
		w->nr_stuck++;
	else
		w->nr_pending++;
	found(w, index, nr);
	return true;
}

/* A recall's time is over. */
static bool stick_marked(struct walk *w, uint64_t *slot, uint64_t index,
			 uint64_t nr)
{
	(void)index;
	(void)nr;
	if ((*slot & PTE_RECALL) && marked_by(*slot, w->seq))
		*slot = stick(w->vma, *slot);
	return true;
}

/* Recalls. */

static struct session_vma *find_vma(struct session_client *c, uint64_t number)
	__must_hold(c->lock)
{
	struct session_vma *vma;

	LIST_FOREACH(vma, &c->vmas[number % VMA_BUCKETS], link)
	if (vma->number == number)
		return vma;
	return NULL;
}

/* True: for the caller to free, when the lock is dropped. */
static bool recall_unref(struct session_client *c,
			 struct session_recall_entry *r) __must_hold(c->lock)
{
	assert(r->client == c);
	return --r->refs == 0;
}

static void recall_free(struct session_recall_entry *r)
{
	client_put(r->client);
	free(r);
}

static struct session_recall recall_msg(const struct session_recall_entry *r)
{
	return (struct session_recall){
		.head = { .op = SESSION_RECALL, .id = r->seq },
		.vma = r->vma,
		.index = r->index,
		.nr = r->nr,
		.kind = r->kind,
	};
}

static void recall_send(struct session_client *c,
			struct session_recall_entry *r) __must_hold(c->lock)
{
	const struct session_recall m = recall_msg(r);

	r->out = client_send(c, &m, sizeof(m), -1);
	if (r->out)
		r->out->recall = r;
}

static void recall_unlink(struct session_client *c,
			  struct session_recall_entry *r) __must_hold(c->lock)
{
	TAILQ_REMOVE(&c->recalls, r, link);
	c->nr_recalls--;
	if (r->out)
		r->out->recall = NULL;
	r->out = NULL;
}

/*
 * A client that is late, and was not sent its last recalls yet: one of them
 * can grow.  Not one before the answer to a fault, for which it would come too
 * early.
 */
static struct session_recall_entry *find_unsent(struct session_client *c,
						uint64_t vma,
						enum session_recall_kind kind)
	__must_hold(c->lock)
{
	struct session_recall_entry *r;
	unsigned int tries = 0;

	TAILQ_FOREACH_REVERSE(r, &c->recalls, recall_list, link)
	{
		if (!r->out || r->seq <= c->no_merge || tries++ == MERGE_TRIES)
			return NULL;
		if (r->late && r->vma == vma && r->kind == kind)
			return r;
	}
	return NULL;
}

static void recall_grow(struct session_client *c,
			struct session_recall_entry *r, const struct walk *w)
	__must_hold(c->lock)
{
	uint64_t end = r->index + r->nr;
	struct session_recall m;

	assert(r->client == c);
	if (w->lo < r->index)
		r->index = w->lo;
	r->nr = (w->hi > end ? w->hi : end) - r->index;
	m = recall_msg(r);
	memcpy(r->out->data, &m, sizeof(m));
}

/*
 * The client must not leave so many unanswered that their numbers wrap, or
 * that it costs us memory.
 */
static bool too_many_recalls(const struct session_client *c)
{
	const struct session_recall_entry *first = TAILQ_FIRST(&c->recalls);

	return c->nr_recalls >= MAX_RECALLS ||
	       (first && c->seq - first->seq > RECALL_MAX_AGE);
}

static void recall_begin(struct session_client *c,
			 struct session_recall_entry *r, const struct walk *w,
			 enum session_recall_kind kind,
			 struct recall_batch *batch) __must_hold(c->lock)
{
	client_get(c);
	*r = (struct session_recall_entry){
		.client = c,
		.vma = w->vma->number,
		.index = w->lo,
		.nr = w->hi - w->lo,
		.seq = ++c->seq,
		.kind = kind,
		.late = w->late,
		.refs = 1,
		.since_ns = session_now(),
	};
	if (!w->late) {
		r->batch = batch;
		r->refs++;
		r->next = batch->first;
		batch->first = r;
		atomic_fetch_add(&batch->nr_pending, 1);
	}
	c->nr_late += w->late;
	TAILQ_INSERT_TAIL(&c->recalls, r, link);
	c->nr_recalls++;
	atomic_fetch_add(&c->srv->nr_recalls, 1);
	recall_send(c, r);
	if (too_many_recalls(c))
		client_shut(c);
}

/* Say what was marked. */
static void recall_tell(struct session_client *c, struct walk *w,
			struct session_recall_entry **new,
			struct session_recall_entry *unsent,
			enum session_recall_kind kind,
			struct recall_batch *batch) __must_hold(c->lock)
{
	if (w->nr_stuck)
		batch->late = true;
	/* One who is late was told of the rest before. */
	if (!*new || (w->nr_fresh == 0 && (w->late || w->nr_pending == 0)))
		return;
	if (unsent) {
		recall_grow(c, unsent, w);
		return;
	}
	recall_begin(c, *new, w, kind, batch);
	*new = NULL;
}

/* Mark what one vma has of the range, and tell its client. */
static void recall_vma(struct session_vma *vma, uint64_t first, uint64_t last,
		       enum session_recall_kind kind,
		       struct recall_batch *batch)
{
	struct session_client *c = vma->client;
	struct session_recall_entry *new = NULL, *unsent = NULL;
	struct walk w = {
		.vma = vma,
		.first = first,
		.last = last,
		.fn = kind == SESSION_RECALL_WRPROTECT ? mark_wrprotect
						       : mark_zap,
	};

	mutex_lock(&c->lock);
	if (!vma->root)
		goto out;
	if (c->fd >= 0 && !c->shut)
		new = malloc(sizeof(*new));
	if (!new)
		client_shut(c);
	/* Whom nothing can be told is late at once. */
	w.late = !new || c->nr_late > 0;
	if (w.late && new)
		unsent = find_unsent(c, vma->number, kind);
	w.seq = unsent ? unsent->seq : c->seq + 1;
	walk(&w);
	recall_tell(c, &w, &new, unsent, kind, batch);
out:
	mutex_unlock(&c->lock);
	free(new);
}

static void recall_too_late(struct session_client *c,
			    struct session_recall_entry *r) __must_hold(c->lock)
{
	struct walk w = {
		.vma = find_vma(c, r->vma),
		.first = r->index,
		.last = r->index + (r->nr - 1),
		.fn = stick_marked,
		.seq = r->seq,
	};

	if (w.vma && r->kind != SESSION_RECALL_WRPROTECT)
		walk(&w);
	if (r->answered || r->late)
		return;
	r->late = true;
	c->nr_late++;
	atomic_fetch_add(&c->srv->nr_late, 1);
}

/* Everybody has answered, or it is too late. */
static void batch_end(struct recall_batch *batch)
{
	struct session_recall_entry *r, *next;
	struct session_client *c;
	bool last, late;

	for (r = batch->first; r; r = next) {
		next = r->next;
		c = r->client;
		mutex_lock(&c->lock);
		late = r->batch && !c->nr_late;
		if (r->batch) {
			r->batch = NULL;
			recall_too_late(c, r);
			batch->late = true;
		}
		last = recall_unref(c, r);
		mutex_unlock(&c->lock);
		if (late)
			session_log(c->srv, "%s[%d] does not answer a recall",
				    c->comm, c->pid);
		if (last)
			recall_free(r);
	}
}

static void batch_wait(struct recall_batch *batch, unsigned int ms)
{
	uint64_t until = session_now() + (uint64_t)ms * 1000000;
	struct waiter w;

	while (atomic_load(&batch->nr_pending) > 0) {
		wait_prepare(&w, batch, 0, false, NULL);
		if (atomic_load(&batch->nr_pending) == 0)
			wait_cancel(&w);
		else if (wait_sleep(&w, until) == -ETIMEDOUT)
			break;
	}
}

static void batch_finish(struct recall_batch *batch)
{
	struct session_server *srv;

	if (!batch->first)
		return;
	srv = batch->first->client->srv;
	batch_wait(batch, atomic_load(&srv->recall_ms));
	batch_end(batch);
}

/* True: somebody may use it still. */
static bool recall_mapping(struct address_space *mapping, uint64_t index,
			   uint64_t nr, enum session_recall_kind kind)
{
	uint64_t max = UINT64_MAX - index;
	uint64_t last = nr - 1 > max ? UINT64_MAX : index + (nr - 1);
	struct recall_batch batch = { .first = NULL };
	struct mutex *lock = session_file_lock(mapping);
	struct session_vma *vma;

	/*
	 * A vma is in the list before it has a translation, and nobody
	 * installs one of this range meanwhile.
	 */
	if (nr == 0 || !atomic_load(&mapping->session_vmas))
		return false;
	mutex_lock(lock);
	for (vma = atomic_load(&mapping->session_vmas); vma; vma = vma->next)
		if (vma->dv.pgoff <= last &&
		    vma->dv.pgoff + vma_nr(vma) > index)
			recall_vma(vma, index, last, kind, &batch);
	mutex_unlock(lock);
	batch_finish(&batch);
	return batch.late;
}

/* Find and unlink the recall that was answered. */
static struct session_recall_entry *recall_answered(struct session_client *c,
						    uint32_t seq)
	__must_hold(c->lock)
{
	struct session_recall_entry *r;

	TAILQ_FOREACH(r, &c->recalls, link)
	if (r->seq == seq)
		break;
	if (!r)
		return NULL;
	recall_unlink(c, r);
	c->nr_late -= r->late;
	r->answered = true;
	return r;
}

static void recall_complete(struct session_client *c,
			    struct session_recall_entry *r) __must_hold(c->lock)
{
	struct recall_batch *batch = r->batch;

	assert(r->client == c);
	if (!batch)
		return;
	r->batch = NULL;
	/* From here on the batch may be gone: what is woken is a key. */
	if (atomic_fetch_sub(&batch->nr_pending, 1) == 1)
		wait_wake(batch, 0, WAKE_ALL);
}

bool session_recalled(struct session_client *c, uint32_t seq)
{
	struct session_recall_entry *r;
	struct walk w = { .seq = seq };
	bool done = false, last = false;

	mutex_lock(&c->lock);
	r = recall_answered(c, seq);
	while (r && !done) {
		w.first = r->index;
		w.last = r->index + (r->nr - 1);
		w.fn = r->kind == SESSION_RECALL_WRPROTECT ? protect_marked
							   : drop_marked;
		w.vma = find_vma(c, r->vma);
		done = !w.vma || walk(&w);
		if (w.nr_puts > 0) {
			mutex_unlock(&c->lock);
			put_all(&w);
			mutex_lock(&c->lock);
		}
	}
	if (r) {
		recall_complete(c, r);
		last = recall_unref(c, r);
	}
	mutex_unlock(&c->lock);
	if (last)
		recall_free(r);
	return r;
}

void session_recalls_late(struct session_client *c)
{
	struct session_recall_entry *r;

	while ((r = TAILQ_FIRST(&c->recalls))) {
		recall_too_late(c, r);
		recall_unlink(c, r);
		if (r->batch)
			r->batch->late = true;
		recall_complete(c, r);
		/* The caller has a reference to the client. */
		if (recall_unref(c, r))
			recall_free(r);
	}
	c->nr_late = 0;
}

/* The mapper. */

/* There is a translation already. */
static int map_again(struct session_vma *vma, uint64_t *slot,
		     const struct dax_map *map)
{
	bool zero = *slot & PTE_ZERO;

	(void)vma;
	if (*slot & PTE_RECALL)
		return -EBUSY;
	if (zero != map->zero || (!zero && pte_pfn(*slot) != map->pfn))
		return map->write ? -EFAULT : -EBUSY;
	/* A protection that was asked for and not answered is overtaken. */
	if (map->write)
		*slot = (*slot | PTE_WRITE) & ~(uint64_t)PTE_WRPROT;
	return 0;
}

static uint64_t make_pte(const struct dax_map *map)
{
	uint64_t pte = PTE_PRESENT;

	if (map->order)
		pte |= PTE_HUGE;
	if (map->write)
		pte |= PTE_WRITE;
	if (map->zero)
		return pte | PTE_ZERO;
	return pte | map->pfn << PTE_PFN_SHIFT;
}

static int map_locked(struct session_vma *vma, const struct dax_map *map)
	__must_hold(vma->client->lock)
{
	unsigned int level = map->order ? 1 : 0;
	struct place p;

	if (vma->dead)
		return -EBUSY;
	if (!find_place(vma, map->index, level, true, &p))
		return -ENOMEM;
	if (p.level != level)
		return -EBUSY; /* one page of an order-9 translation */
	if (*p.slot & PTE_PRESENT)
		return map_again(vma, p.slot, map);
	if (*p.slot && table_of(*p.slot)->nr > 0)
		return -EBUSY;
	if (*p.slot)
		table_free(vma, p.slot);
	place_set(&p, make_pte(map));
	if (!map->zero)
		folio_add_map(pte_folio(vma, *p.slot));
	return 0;
}

static int mapper_map(struct dax_vma *dv, const struct dax_map *map)
{
	struct session_vma *vma = vma_of(dv);
	int ret;

	mutex_lock(&vma->client->lock);
	ret = map_locked(vma, map);
	mutex_unlock(&vma->client->lock);
	return ret;
}

static void mapper_unmap(struct address_space *mapping, uint64_t index,
			 uint64_t nr)
{
	recall_mapping(mapping, index, nr, SESSION_RECALL_ZAP);
}

static int mapper_wrprotect(struct address_space *mapping, uint64_t index,
			    uint64_t nr)
{
	return recall_mapping(mapping, index, nr, SESSION_RECALL_WRPROTECT);
}

static void mapper_kill(struct address_space *mapping, uint64_t index,
			uint64_t nr)
{
	recall_mapping(mapping, index, nr, SESSION_RECALL_KILL);
}

static enum dax_mapped mapper_mapped(struct dax_vma *dv, uint64_t index)
{
	struct session_vma *vma = vma_of(dv);
	enum dax_mapped ret = DAX_MAPPED_NONE;
	struct place p;

	mutex_lock(&vma->client->lock);
	if (find_place(vma, index, 1, false, &p)) {
		if (*p.slot & PTE_PRESENT)
			ret = DAX_MAPPED_HUGE;
		else if (*p.slot && table_of(*p.slot)->nr > 0)
			ret = DAX_MAPPED_TABLE;
	}
	mutex_unlock(&vma->client->lock);
	return ret;
}

static void mapper_zap_huge(struct dax_vma *dv, uint64_t index)
{
	struct recall_batch batch = { .first = NULL };

	if (mapper_mapped(dv, index) != DAX_MAPPED_HUGE)
		return;
	recall_vma(vma_of(dv), index, index, SESSION_RECALL_ZAP, &batch);
	batch_finish(&batch);
}

static bool mapper_lookup(struct dax_vma *dv, uint64_t index, bool write,
			  uint64_t *ret_pfn)
{
	struct session_vma *vma = vma_of(dv);
	uint64_t pte;

	mutex_lock(&vma->client->lock);
	pte = find_pte(vma, index);
	mutex_unlock(&vma->client->lock);
	if (!(pte & PTE_PRESENT) || (pte & PTE_RECALL))
		return false;
	if (write && (!(pte & PTE_WRITE) || (pte & PTE_WRPROT)))
		return false;
	if (pte & PTE_ZERO)
		*ret_pfn = dv->mapping->dev->zero_pfn;
	else if (pte & PTE_HUGE)
		*ret_pfn = pte_pfn(pte) + index % FOLIO_PAGES;
	else
		*ret_pfn = pte_pfn(pte);
	return true;
}

const struct dax_mapper_ops session_mapper = {
	.map = mapper_map,
	.unmap = mapper_unmap,
	.wrprotect = mapper_wrprotect,
	.mapped = mapper_mapped,
	.zap_huge = mapper_zap_huge,
	.lookup = mapper_lookup,
	.kill = mapper_kill,
};

/* Faults: with the invalidate_lock, shared. */

static vm_fault_t fault_order(struct dax_fault *vmf, unsigned int order,
			      int *ret_err)
{
	const struct session_server *srv = vma_of(vmf->vma)->client->srv;
	vm_fault_t ret;
	uint64_t pfn = 0;

	ret = dax_iomap_fault(vmf, order, &pfn, ret_err, srv->ops->iomap);
	if (ret & VM_FAULT_NEEDDSYNC)
		ret = dax_finish_sync_fault(vmf, order, pfn);
	return ret;
}

/* For dax_pin(). */
static unsigned int vma_fault(struct dax_fault *vmf, unsigned int order)
{
	struct address_space *mapping = vmf->vma->mapping;
	vm_fault_t ret;
	int err;

	rwsem_down_read(&mapping->invalidate_lock, LOCK_INVALIDATE);
	ret = fault_order(vmf, order, &err);
	rwsem_up_read(&mapping->invalidate_lock);
	return ret;
}

/* Can the 2 MiB around a page be one translation, as far as we know? */
static bool fits_huge(const struct dax_vma *dv, uint64_t index)
{
	uint64_t first = index & ~(FOLIO_PAGES - 1);
	uint64_t nr = (dv->end - dv->start) >> BLOCK_SHIFT;

	return ((dv->start >> BLOCK_SHIFT) - dv->pgoff) % FOLIO_PAGES == 0 &&
	       first >= dv->pgoff && first + FOLIO_PAGES <= dv->pgoff + nr;
}

static int fault_result(vm_fault_t ret, int err)
{
	if (ret & VM_FAULT_OOM)
		return -ENOMEM;
	if (ret & VM_FAULT_SIGBUS)
		return err ? err : -EFAULT;
	return 0;
}

static int fault_page(struct dax_fault *vmf)
{
	vm_fault_t ret = VM_FAULT_FALLBACK;
	int err = 0;

	if (fits_huge(vmf->vma, vmf->index) &&
	    mapper_mapped(vmf->vma, vmf->index) != DAX_MAPPED_TABLE)
		ret = fault_order(vmf, FOLIO_ORDER, &err);
	/* 0: somebody was faster with a single page. */
	if (ret == 0 || (ret & VM_FAULT_FALLBACK))
		ret = fault_order(vmf, 0, &err);
	return fault_result(ret, err);
}

/*
 * How many pages from @index on, at most @nr, are there without allocating or
 * copying.  A guess: the layout stands still, but somebody may fault on them.
 */
static uint64_t cheap_pages(struct session_vma *vma, uint64_t index,
			    uint64_t nr, bool write)
{
	struct address_space *mapping = vma->dv.mapping;
	const struct iomap_ops *ops = vma->client->srv->ops->iomap;
	struct iomap iomap = { .type = IOMAP_HOLE };
	struct iomap srcmap = { .type = IOMAP_HOLE };
	uint64_t pos = index << BLOCK_SHIFT, len = nr << BLOCK_SHIFT, end;

	if (ops->begin(mapping, pos, len, IOMAP_REPORT, &iomap, &srcmap))
		return 0;
	if (ops->end)
		ops->end(mapping, pos, len, 0, IOMAP_REPORT, &iomap);
	if (iomap.type != IOMAP_MAPPED ||
	    (write && (iomap.flags & IOMAP_F_SHARED)) ||
	    iomap.offset + iomap.length <= pos)
		return 0;
	end = (iomap.offset + iomap.length) >> BLOCK_SHIFT;
	return end - index < nr ? end - index : nr;
}

static void fault_around(struct dax_fault *vmf, uint64_t nr)
{
	struct session_vma *vma = vma_of(vmf->vma);
	struct address_space *mapping = vma->dv.mapping;
	uint64_t end = vmf->index + nr, cheap = 0, size;
	uint64_t pfn;
	int err;

	if (mapper_mapped(vmf->vma, vmf->index) == DAX_MAPPED_HUGE)
		return;
	size = (mapping->ops->size(mapping) + BLOCK_MASK) >> BLOCK_SHIFT;
	if (end > size)
		end = size;
	for (vmf->index++; vmf->index < end; vmf->index++, cheap--) {
		if (cheap == 0)
			cheap = cheap_pages(vma, vmf->index, end - vmf->index,
					    vmf->write);
		if (cheap == 0)
			return;
		if (mapper_lookup(vmf->vma, vmf->index, vmf->write, &pfn))
			continue;
		if (fault_order(vmf, 0, &err) & VM_FAULT_ERROR)
			return;
	}
}

int session_vma_fault(struct session_vma *vma, uint64_t index, uint64_t nr,
		      bool write, bool around)
{
	struct address_space *mapping = vma->dv.mapping;
	struct dax_fault vmf = {
		.vma = &vma->dv,
		.index = index,
		.write = write,
	};
	int ret;

	atomic_fetch_add(&vma->client->srv->nr_faults, 1);
	rwsem_down_read(&mapping->invalidate_lock, LOCK_INVALIDATE);
	ret = fault_page(&vmf);
	if (ret == 0 && around)
		fault_around(&vmf, nr < AROUND_MAX ? nr : AROUND_MAX);
	rwsem_up_read(&mapping->invalidate_lock);
	return ret;
}

/* Segments. */

static bool joins(const struct session_seg *s, const struct session_seg *next)
{
	if (s->flags != next->flags || s->index + s->nr != next->index)
		return false;
	return (s->flags & SESSION_SEG_ZERO) ||
	       s->off + ((uint64_t)s->nr << BLOCK_SHIFT) == next->off;
}

static bool add_seg(struct walk *w, uint64_t *slot, uint64_t index, uint64_t nr)
{
	struct session_fault_reply *r = w->ctx;
	struct session_seg seg = { .index = index, .nr = (uint32_t)nr };

	if (*slot & PTE_RECALL)
		return true;
	if (*slot & PTE_ZERO)
		seg.flags |= SESSION_SEG_ZERO;
	else
		seg.off = pte_pfn(*slot) << BLOCK_SHIFT;
	if ((*slot & PTE_WRITE) && !(*slot & PTE_WRPROT))
		seg.flags |= SESSION_SEG_WRITE;
	if (r->nr_segs > 0 && joins(&r->seg[r->nr_segs - 1], &seg)) {
		r->seg[r->nr_segs - 1].nr += seg.nr;
		return true;
	}
	if (r->nr_segs == SESSION_MAX_SEGS)
		return false;
	r->seg[r->nr_segs++] = seg;
	return true;
}

/*
 * Only what is in the table now is said, and it is said before anybody can
 * take it back (S3).  What was taken back since it was faulted in is missing.
 */
void session_vma_reply(struct session_vma *vma, uint32_t id, uint64_t index,
		       uint64_t nr, bool write)
{
	struct session_client *c = vma->client;
	struct session_fault_reply r = {
		.reply.head = { .op = SESSION_REPLY, .id = id },
	};
	struct walk w = {
		.vma = vma,
		.first = index,
		.last = index + (nr < AROUND_MAX ? nr : AROUND_MAX) - 1,
		.fn = add_seg,
		.ctx = &r,
	};

	mutex_lock(&c->lock);
	walk(&w);
	if (r.nr_segs == 0 || r.seg[0].index > index ||
	    (write && !(r.seg[0].flags & SESSION_SEG_WRITE)))
		r.reply.error = -EAGAIN;
	client_send(c, &r, r.reply.error ? sizeof(r.reply) : sizeof(r), -1);
	c->no_merge = c->seq;
	mutex_unlock(&c->lock);
}

/* Vmas come and go. */

static void link_file(struct session_vma *vma)
{
	struct address_space *mapping = vma->dv.mapping;
	struct mutex *lock = session_file_lock(mapping);

	mutex_lock(lock);
	vma->next = atomic_load(&mapping->session_vmas);
	atomic_store(&mapping->session_vmas, vma);
	mutex_unlock(lock);
}

static void unlink_file(struct session_vma *vma)
{
	struct address_space *mapping = vma->dv.mapping;
	struct mutex *lock = session_file_lock(mapping);
	struct session_vma *v;

	mutex_lock(lock);
	v = atomic_load(&mapping->session_vmas);
	if (v == vma) {
		atomic_store(&mapping->session_vmas, vma->next);
	} else {
		while (v->next != vma)
			v = v->next;
		v->next = vma->next;
	}
	mutex_unlock(lock);
}

static int link_client(struct session_vma *vma)
{
	struct session_client *c = vma->client;
	int ret = 0;

	mutex_lock(&c->lock);
	if (c->state != CLIENT_READY || c->shut)
		ret = -ESHUTDOWN;
	else if (c->nr_vmas >= c->srv->limits.max_vmas)
		ret = -ENOSPC;
	if (ret == 0) {
		c->nr_vmas++;
		vma->number = ++c->next_number;
		LIST_INSERT_HEAD(&c->vmas[vma->number % VMA_BUCKETS], vma,
				 link);
	}
	mutex_unlock(&c->lock);
	return ret;
}

static unsigned int height_of(const struct session_vma *vma)
{
	uint64_t last = vma->dv.pgoff + vma_nr(vma) - 1 - vma_base(vma);
	unsigned int height = 1;

	while (last >> (TABLE_SHIFT * height))
		height++;
	return height;
}

static void vma_free(struct session_vma *vma)
{
	struct session_client *c = vma->client;

	c->srv->ops->put(vma->dv.mapping);
	client_put(c);
	free(vma);
}

int session_vma_create(struct session_client *c, struct address_space *mapping,
		       const struct session_map *m, bool write,
		       uint64_t *ret_number)
{
	struct session_vma *vma = calloc(1, sizeof(*vma));
	int ret;

	if (!vma)
		return -ENOMEM;
	vma->dv = (struct dax_vma){
		.mapping = mapping,
		.start = m->addr,
		.end = m->addr + (m->nr << BLOCK_SHIFT),
		.pgoff = m->index,
		.flags = DAX_VMA_SHARED |
			 (m->flags & SESSION_MAP_SYNC ? DAX_VMA_SYNC : 0),
		.fault = vma_fault,
	};
	vma->client = c;
	vma->write = write;
	vma->users = 1;
	vma->since_ns = session_now();
	vma->height = height_of(vma);
	client_get(c);
	c->srv->ops->get(mapping);
	/* In this order: whoever knows the vma can give it translations. */
	link_file(vma);
	ret = link_client(vma);
	if (ret) {
		unlink_file(vma);
		vma_free(vma);
		return ret;
	}
	*ret_number = vma->number;
	return 0;
}

struct session_vma *session_vma_get(struct session_client *c, uint64_t number)
{
	struct session_vma *vma;

	mutex_lock(&c->lock);
	vma = find_vma(c, number);
	if (vma && vma->dead)
		vma = NULL;
	if (vma)
		vma->users++;
	mutex_unlock(&c->lock);
	return vma;
}

void session_vma_put(struct session_vma *vma)
{
	struct session_client *c = vma->client;
	bool last;

	mutex_lock(&c->lock);
	last = --vma->users == 0;
	mutex_unlock(&c->lock);
	if (last)
		vma_free(vma);
}

void session_vma_end(struct session_vma *vma)
{
	struct session_client *c = vma->client;
	bool was_dead;

	mutex_lock(&c->lock);
	was_dead = vma->dead;
	vma->dead = true;
	mutex_unlock(&c->lock);
	if (was_dead)
		return;
	/* It is found by those who take back until it has nothing left. */
	session_vma_unmap(vma, 0, UINT64_MAX);
	unlink_file(vma);
	mutex_lock(&c->lock);
	LIST_REMOVE(vma, link);
	c->nr_vmas--;
	mutex_unlock(&c->lock);
	session_vma_put(vma);
}
