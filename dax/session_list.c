/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_list.c - who holds what, and who waits for it
 *
 * A list is given out in pages.  The cursor of HOLDS counts the holds that
 * were said; what comes and goes between two pages may be missed or said
 * twice.
 *
 * Root and the owner of the mount see everything, others what is theirs.
 */
#include <errno.h>
#include <string.h>

#include "dax/session_i.h"

struct holds {
	struct session_holds_reply r;
	uint64_t skip, nr; /* holds before this page, and until now */
	uint64_t now;
	bool full; /* and there are more */

	struct session_client *c;
	const struct session_vma *vma;
	struct session_hold run; /* that grows; nr 0: none */
};

static bool sees_all(const struct session_client *c)
{
	return c->uid == 0 || c->uid == c->srv->owner;
}

static void add_hold(struct holds *h, const struct session_hold *hold)
{
	if (h->nr++ < h->skip)
		return;
	if (h->r.nr == SESSION_LIST_MAX) {
		h->full = true;
		return;
	}
	h->r.hold[h->r.nr++] = *hold;
}

static void end_run(struct holds *h)
{
	if (h->run.nr > 0)
		add_hold(h, &h->run);
	h->run.nr = 0;
}

static struct session_hold make_hold(const struct holds *h, uint64_t since_ns)
{
	struct session_hold hold = {
		.client = h->c->number,
		.age_ns = h->now > since_ns ? h->now - since_ns : 0,
		.pid = h->c->pid,
	};

	memcpy(hold.comm, h->c->comm, sizeof(hold.comm));
	return hold;
}

/* When the recall that marked a translation was sent; with the lock. */
static uint64_t recalled_since(const struct holds *h, uint64_t pte)
{
	uint32_t seq = (uint32_t)(pte >> PTE_SEQ_SHIFT) & PTE_SEQ_MASK;
	const struct session_recall_entry *r;

	TAILQ_FOREACH(r, &h->c->recalls, link)
	if ((r->seq & PTE_SEQ_MASK) == seq)
		return r->since_ns;
	return h->vma->since_ns;
}

static enum session_hold_kind kind_of(const struct holds *h, uint64_t pte)
{
	if (pte & PTE_STUCK)
		return SESSION_HOLD_STUCK;
	return h->c->state == CLIENT_GONE ? SESSION_HOLD_GONE
					  : SESSION_HOLD_MAP;
}

static bool add_pte(void *ctx, uint64_t index, uint64_t nr, uint64_t pte)
{
	struct holds *h = ctx;
	enum session_hold_kind kind = kind_of(h, pte);
	uint64_t since = h->vma->since_ns;

	if (pte & PTE_ZERO)
		return true; /* no media */
	if (h->run.nr > 0 && h->run.kind == kind &&
	    h->run.index + h->run.nr == index) {
		h->run.nr += nr;
		return true;
	}
	end_run(h);
	if (kind == SESSION_HOLD_STUCK)
		since = recalled_since(h, pte);
	h->run = make_hold(h, since);
	h->run.ino = h->vma->dv.mapping->ino;
	h->run.index = index;
	h->run.nr = nr;
	h->run.kind = kind;
	return !h->full;
}

static void add_pin(struct holds *h, const struct session_pin *pin)
{
	struct session_hold hold = make_hold(h, pin->since_ns);

	hold.ino = pin->ino;
	hold.index = pin->index;
	hold.nr = pin->nr;
	hold.kind = pin->longterm ? SESSION_HOLD_LONG : SESSION_HOLD_PIN;
	if (h->c->state == CLIENT_GONE)
		hold.kind = SESSION_HOLD_GONE;
	add_hold(h, &hold);
}

static void add_client(struct holds *h, struct session_client *c, uint64_t ino)
{
	const struct session_pin *pin;
	struct session_vma *vma;

	h->c = c;
	mutex_lock(&c->lock);
	LIST_FOREACH(pin, &c->pins, link)
	if (!ino || pin->ino == ino)
		add_pin(h, pin);
	for (unsigned int i = 0; !h->full && i < VMA_BUCKETS; i++) {
		LIST_FOREACH(vma, &c->vmas[i], link)
		{
			if (h->full || (ino && vma->dv.mapping->ino != ino))
				continue;
			h->vma = vma;
			session_vma_walk(c, vma, add_pte, h);
			end_run(h);
		}
	}
	mutex_unlock(&c->lock);
}

void session_msg_holds(struct session_client *c, const struct session_list *m)
{
	struct session_server *srv = c->srv;
	struct holds h = {
		.r.reply.head = { .op = SESSION_REPLY, .id = m->head.id },
		.skip = m->cursor,
		.now = session_now(),
	};
	struct session_client *other;

	for (unsigned int i = 0; !h.full && i < srv->limits.max_clients; i++) {
		other = client_at(srv, i);
		if (!other)
			continue;
		if (sees_all(c) || other->uid == c->uid)
			add_client(&h, other, m->ino);
		client_put(other);
	}
	if (h.full)
		h.r.cursor = h.skip + h.r.nr;
	mutex_lock(&c->lock);
	client_send(c, &h.r, sizeof(h.r), -1);
	mutex_unlock(&c->lock);
}

void session_msg_waits(struct session_client *c, const struct session_list *m)
{
	const struct session_server *srv = c->srv;
	struct session_waits_reply r = {
		.reply.head = { .op = SESSION_REPLY, .id = m->head.id },
	};
	uint64_t cursor = m->cursor;
	struct session_wait wait;

	while (srv->ops->waits(srv->ctx, cursor, m->ino, &wait) == 0) {
		cursor = wait.unique;
		if (!sees_all(c) && wait.pid != c->pid)
			continue;
		if (r.nr == SESSION_LIST_MAX) {
			r.cursor = r.wait[r.nr - 1].unique;
			break;
		}
		r.wait[r.nr++] = wait;
	}
	mutex_lock(&c->lock);
	client_send(c, &r, sizeof(r), -1);
	mutex_unlock(&c->lock);
}
