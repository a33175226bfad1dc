/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_recall.c - how translations are taken back
 *
 * In two steps.  The translations of the range are marked with the number of a
 * RECALL, which is sent; they stay in the table, and in the books of their
 * folios, until the client answers.  The answer takes out what was marked by
 * that recall or an earlier one (S3), and nothing that was installed since.
 * Several may take the same range back at a time: each sends its own recall,
 * and whichever answer comes first takes the translations out.
 *
 * Who does not answer in time is late.  Its marked translations become pins
 * (PTE_STUCK), and nobody waits for it again until it has caught up.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dax/session_table.h"

/* Recalls that a client may leave unanswered. */
#define MAX_RECALLS 4096u

/* How far back one is looked for that can grow. */
#define MERGE_TRIES 16u

/* Taking out. */

/* S2.  False: no room for another one to put. */
static bool drop(struct pte_walk *w, uint64_t *slot)
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
static bool drop_covered(struct pte_walk *w, uint64_t *slot, uint64_t index,
			 uint64_t nr)
{
	if (index < w->first || index + (nr - 1) > w->last)
		return true;
	return drop(w, slot);
}

/* A ZAP or KILL was answered. */
static bool drop_marked(struct pte_walk *w, uint64_t *slot, uint64_t index,
			uint64_t nr)
{
	(void)index;
	(void)nr;
	if (!(*slot & PTE_RECALL) || !pte_marked_by(*slot, w->seq))
		return true;
	return drop(w, slot);
}

/* A WRPROTECT was answered. */
static bool protect_marked(struct pte_walk *w, uint64_t *slot, uint64_t index,
			   uint64_t nr)
{
	(void)index;
	(void)nr;
	if ((*slot & PTE_WRPROT) && !(*slot & PTE_RECALL) &&
	    pte_marked_by(*slot, w->seq))
		*slot &= ~(uint64_t)(PTE_WRPROT | PTE_WRITE);
	return true;
}

static void put_all(struct pte_walk *w)
{
	while (w->nr_puts > 0)
		folio_put(w->puts[--w->nr_puts]);
}

void session_vma_unmap(struct session_vma *vma, uint64_t index, uint64_t nr)
{
	struct session_client *c = vma->client;
	struct pte_walk w = {
		.vma = vma,
		.first = index,
		.last = index + (nr - 1),
		.fn = drop_covered,
	};
	bool done;

	do {
		mutex_lock(&c->lock);
		done = pte_walk(&w);
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

static void found(struct pte_walk *w, uint64_t index, uint64_t nr)
{
	if (index < w->lo)
		w->lo = index;
	if (index + nr > w->hi)
		w->hi = index + nr;
}

static uint64_t mark(struct pte_walk *w, uint64_t pte, uint64_t flag)
{
	const uint64_t seqs = (uint64_t)PTE_SEQ_MASK << PTE_SEQ_SHIFT;

	w->nr_fresh++;
	pte &= ~(seqs | PTE_WRPROT);
	return pte | flag | pte_seq(w->seq);
}

static bool mark_zap(struct pte_walk *w, uint64_t *slot, uint64_t index,
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

static bool mark_wrprotect(struct pte_walk *w, uint64_t *slot, uint64_t index,
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
static bool stick_marked(struct pte_walk *w, uint64_t *slot, uint64_t index,
			 uint64_t nr)
{
	(void)index;
	(void)nr;
	if ((*slot & PTE_RECALL) && pte_marked_by(*slot, w->seq))
		*slot = stick(w->vma, *slot);
	return true;
}

/* Recalls. */

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
			struct session_recall_entry *r,
			const struct pte_walk *w) __must_hold(c->lock)
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
			 struct session_recall_entry *r,
			 const struct pte_walk *w,
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
static void recall_tell(struct session_client *c, struct pte_walk *w,
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
	struct pte_walk w = {
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
	pte_walk(&w);
	recall_tell(c, &w, &new, unsent, kind, batch);
out:
	mutex_unlock(&c->lock);
	free(new);
}

static void recall_too_late(struct session_client *c,
			    struct session_recall_entry *r) __must_hold(c->lock)
{
	struct pte_walk w = {
		.vma = session_vma_find(c, r->vma),
		.first = r->index,
		.last = r->index + (r->nr - 1),
		.fn = stick_marked,
		.seq = r->seq,
	};

	if (w.vma && r->kind != SESSION_RECALL_WRPROTECT)
		pte_walk(&w);
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

bool session_recall(struct address_space *mapping, uint64_t index, uint64_t nr,
		    enum session_recall_kind kind)
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

void session_recall_kill(struct session_client *c,
			 struct address_space *mapping)
{
	struct recall_batch batch = { .first = NULL };
	struct mutex *lock = session_file_lock(mapping);
	struct session_vma *vma;

	mutex_lock(lock);
	for (vma = atomic_load(&mapping->session_vmas); vma; vma = vma->next)
		if (vma->client == c)
			recall_vma(vma, 0, UINT64_MAX, SESSION_RECALL_KILL,
				   &batch);
	mutex_unlock(lock);
	batch_finish(&batch);
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
	struct pte_walk w = { .seq = seq };
	bool done = false, last = false;

	mutex_lock(&c->lock);
	r = recall_answered(c, seq);
	while (r && !done) {
		w.first = r->index;
		w.last = r->index + (r->nr - 1);
		w.fn = r->kind == SESSION_RECALL_WRPROTECT ? protect_marked
							   : drop_marked;
		w.vma = session_vma_find(c, r->vma);
		done = !w.vma || pte_walk(&w);
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

void session_recall_huge(struct session_vma *vma, uint64_t index)
{
	struct recall_batch batch = { .first = NULL };

	recall_vma(vma, index, index, SESSION_RECALL_ZAP, &batch);
	batch_finish(&batch);
}
