/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_hold.c - who keeps a folio busy, and how a client is ended
 *
 * For layout breaks.  A mapping that can still be taken back keeps nothing
 * busy, so that only pins and the mappings of those who are late are looked
 * at: most clients have neither.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dax/policy.h"
#include "dax/session_i.h"

struct search {
	struct folio *folio;
	struct policy_holder *ret;
	unsigned int nr, max;
	uint64_t now;

	struct session_client *c;
	const struct session_vma *vma;
	bool found; /* in the vma */
	uint64_t index, nr_pages;
};

/* Its session, or it is about to. */
static bool ended(const struct session_client *c)
{
	return c->state >= CLIENT_GONE || c->shut;
}

static void add(struct search *s, enum policy_hold kind, uint64_t index,
		uint64_t nr, uint64_t since_ns)
{
	const struct session_client *c = s->c;
	struct policy_holder *h = &s->ret[s->nr];

	if (s->nr++ >= s->max)
		return;
	*h = (struct policy_holder){
		.client = c->number,
		.index = index,
		.nr = nr,
		.age_ns = s->now > since_ns ? s->now - since_ns : 0,
		.pid = c->pid,
		.kind = ended(c) ? POLICY_HOLD_GONE : kind,
	};
	memcpy(h->comm, c->comm, sizeof(h->comm) - 1);
}

static void search_pin(struct search *s, const struct session_pin *pin)
{
	for (uint64_t i = 0; i < pin->nr; i++) {
		if (folio_head(pin->folios[i]) != s->folio)
			continue;
		add(s, pin->longterm ? POLICY_HOLD_LONG : POLICY_HOLD_PIN,
		    pin->index, pin->nr, pin->since_ns);
		return;
	}
}

/* A run of stuck translations, one of which is of the folio. */
static bool search_pte(void *ctx, uint64_t index, uint64_t nr, uint64_t pte)
{
	struct search *s = ctx;

	if (!(pte & PTE_STUCK) || (pte & PTE_ZERO))
		return true;
	if (folio_at(s->c->srv->dev->folios, pte >> PTE_PFN_SHIFT) != s->folio)
		return true;
	s->found = true;
	s->index = index;
	s->nr_pages = nr;
	return false;
}

/* Since when has the client been late? */
static uint64_t late_since(const struct session_client *c, uint64_t otherwise)
{
	const struct session_recall_entry *r = TAILQ_FIRST(&c->recalls);

	return r ? r->since_ns : otherwise;
}

static void search_vma(struct search *s, struct session_client *c,
		       struct session_vma *vma) __must_hold(c->lock)
{
	s->vma = vma;
	s->found = false;
	session_vma_walk(c, vma, search_pte, s);
	if (s->found)
		add(s, POLICY_HOLD_STUCK, s->index, s->nr_pages,
		    late_since(c, vma->since_ns));
}

static void search_client(struct search *s, struct session_client *c)
	__no_lock_analysis
{
	const struct session_pin *pin;
	struct session_vma *vma;

	s->c = c;
	mutex_lock(&c->lock);
	LIST_FOREACH(pin, &c->pins, link)
	search_pin(s, pin);
	for (unsigned int i = 0; i < VMA_BUCKETS; i++)
		LIST_FOREACH(vma, &c->vmas[i], link)
	if (vma->root && (c->nr_late > 0 || ended(c)))
		search_vma(s, c, vma);
	mutex_unlock(&c->lock);
}

unsigned int session_holders(struct session_server *srv, struct folio *folio,
			     struct policy_holder *ret, unsigned int max)
{
	struct search s = {
		.folio = folio,
		.ret = ret,
		.max = max,
		.now = session_now(),
	};
	struct session_client *c;

	for (unsigned int i = 0; i < srv->limits.max_clients; i++) {
		c = client_at(srv, i);
		if (!c)
			continue;
		search_client(&s, c);
		client_put(c);
	}
	return s.nr;
}

static int kill_process(const struct session_client *c)
{
	/* Our own clients are in tests only, and would take us with them. */
	if (c->pid == getpid())
		return -EPERM;
	/* By descriptor: the number may be somebody else's by now. */
	if (syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0))
		return -errno;
	session_log(c->srv, "%s[%d] held blocks that were wanted: killed",
		    c->comm, c->pid);
	return 0;
}

int session_revoke(struct session_server *srv, uint64_t client,
		   struct address_space *mapping, bool kill)
{
	struct session_client *c = client_find(srv, client);
	int ret = 0;

	if (!c)
		return -ESRCH;
	if (kill)
		ret = kill_process(c);
	else
		session_recall_kill(c, mapping);
	client_put(c);
	return ret;
}
