/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy_host.c - one policy at a time is asked, and it is counted
 *
 * No wake is lost when the policy changes: whoever breaks takes its kick back
 * before it looks which policy is the current one, and policy_host_set() makes
 * a policy the current one before it kicks.
 */
#include "dax/policy_host.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dax/session.h"

static_assert((int)POLICY_HOLD_MAP == (int)SESSION_HOLD_MAP &&
		      (int)POLICY_HOLD_PIN == (int)SESSION_HOLD_PIN &&
		      (int)POLICY_HOLD_LONG == (int)SESSION_HOLD_LONG &&
		      (int)POLICY_HOLD_STUCK == (int)SESSION_HOLD_STUCK &&
		      (int)POLICY_HOLD_GONE == (int)SESSION_HOLD_GONE,
	      "one set of numbers");

/* Names whose counters are kept apart; the last one is for all others. */
#define MAX_SLOTS 16u

/* Shorter sleeps would make a policy that cannot count a busy loop. */
#define MIN_SLEEP_NS POLICY_MS

/* And longer ones than this would overflow: a century. */
#define MAX_SLEEP_NS (UINT64_C(100) * 365 * 86400 * 1000000000)

#define DEFAULT_RECALL_NS (10 * POLICY_MS)

/* As struct policy_stat, word for word. */
#define NR_COUNTERS    (sizeof(struct policy_stat) / sizeof(uint64_t))
#define COUNTER(field) (offsetof(struct policy_stat, field) / sizeof(uint64_t))

struct slot {
	char name[POLICY_NAME_MAX];
	_Atomic(uint64_t) counter[POLICY_NR_OPS][NR_COUNTERS];
};

/* A policy with its keys.  It stays until nobody is inside. */
struct loaded {
	const struct policy *table;
	void *dl;
	uint64_t conf[POLICY_KEYS];
	char spec[POLICY_SPEC_MAX];
	unsigned int slot;
	unsigned int refs; /* under host->lock: being current is one */
	_Atomic(bool) scolded;
};

struct policy_host {
	policy_log_fn log;
	void *ctx;
	bool may_unsafe;
	_Atomic(bool) unsafe;
	_Atomic(struct session_server *) srv;
	struct mutex set_lock; /* LOCK_MOUNT: one change at a time */

	struct mutex lock; /* LOCK_HELD; covers everything below */
	struct loaded *current;
	struct policy_ask *asks;
	unsigned int nr_slots;
	struct slot *slots;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Names. */

static const struct policy *const builtins[] = {
	&policy_wait_table,   &policy_nowait_table, &policy_timeout_table,
	&policy_lease_table,  &policy_fail_table,   &policy_defer_table,
	&policy_revoke_table, &policy_unsafe_table,
};
#define NR_BUILTINS (sizeof(builtins) / sizeof(builtins[0]))

const struct policy *policy_builtin(const char *name)
{
	for (size_t i = 0; i < NR_BUILTINS; i++)
		if (strcmp(builtins[i]->name, name) == 0)
			return builtins[i];
	return NULL;
}

static const char *const op_names[POLICY_NR_OPS] = {
	[POLICY_OP_OTHER] = "other",	   [POLICY_OP_TRUNCATE] = "truncate",
	[POLICY_OP_PUNCH] = "punch",	   [POLICY_OP_ZERO] = "zero",
	[POLICY_OP_ALLOCATE] = "allocate", [POLICY_OP_UNSHARE] = "unshare",
	[POLICY_OP_REFLINK] = "clone",	   [POLICY_OP_COPY] = "copy",
	[POLICY_OP_DEDUPE] = "dedupe",	   [POLICY_OP_EVICT] = "evict",
};

const char *policy_op_name(unsigned int op)
{
	return op < POLICY_NR_OPS ? op_names[op] : "?";
}

enum policy_op policy_op_by_name(const char *name)
{
	for (unsigned int i = 0; i < POLICY_NR_OPS; i++)
		if (strcmp(op_names[i], name) == 0)
			return (enum policy_op)i;
	return POLICY_OP_OTHER;
}

const char *policy_verdict_name(unsigned int verdict)
{
	static const char *const names[POLICY_NR_VERDICTS] = {
		[POLICY_NONE] = "none",	    [POLICY_WAIT] = "wait",
		[POLICY_RECALL] = "recall", [POLICY_FAIL] = "fail",
		[POLICY_DEFER] = "defer",   [POLICY_REVOKE] = "revoke",
		[POLICY_UNSAFE] = "unsafe",
	};

	return verdict < POLICY_NR_VERDICTS ? names[verdict] : "nonsense";
}

static void say(struct policy_host *host, const char *line)
{
	if (host->log)
		host->log(host->ctx, line);
}

/* Loading. */

static void loaded_free(struct loaded *l)
{
	if (l->dl)
		dlclose(l->dl);
	free(l);
}

static bool name_ok(const char *name)
{
	size_t len = name ? strspn(name, "abcdefghijklmnopqrstuvwxyz"
					 "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
					 "0123456789-_")
			  : 0;

	return len > 0 && len < POLICY_NAME_MAX && !name[len];
}

/* The number first: nothing else of the struct is known to be there. */
static int check_table(const struct policy *p, const char *path,
		       struct errmsg *err)
{
	if (p->abi != POLICY_ABI)
		return err_set(err, -ENOEXEC,
			       "policy %s: made for version %u of "
			       "dax/policy.h, this is version %u: build it "
			       "anew",
			       path, p->abi, POLICY_ABI);
	if (p->size != sizeof(*p))
		return err_set(err, -ENOEXEC,
			       "policy %s: its struct policy has %u bytes "
			       "instead of %zu: build it anew",
			       path, p->size, sizeof(*p));
	if (!name_ok(p->name) || !p->what || !p->busy)
		return err_set(err, -ELIBBAD,
			       "policy %s: needs a name of letters, digits, "
			       "'-' and '_', what, and busy",
			       path);
	return 0;
}

static int load(struct loaded *l, const char *path, struct errmsg *err)
{
	l->dl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!l->dl) {
		const char *why = dlerror();

		return err_set(err, -ELIBBAD, "policy %s", why ? why : path);
	}
	l->table = (const struct policy *)dlsym(l->dl, "foliofs_policy");
	if (!l->table)
		return err_set(err, -ELIBBAD,
			       "policy %s: no foliofs_policy in it: see "
			       "foliofs-policy(7)",
			       path);
	return check_table(l->table, path, err);
}

static int find(struct loaded *l, const char *name, struct errmsg *err)
{
	char known[160] = "";
	size_t used = 0;

	l->table = policy_builtin(name);
	if (l->table)
		return 0;
	for (size_t i = 0; i < NR_BUILTINS; i++)
		if (builtins[i] != &policy_unsafe_table)
			used += (size_t)snprintf(
				known + used, sizeof(known) - used, "%s%s",
				used ? ", " : "", builtins[i]->name);
	return err_set(err, -ENOENT,
		       "policy '%s': there is none: use one of %s, or the "
		       "whole path of a .so",
		       name, known);
}

/* Keys. */

static int find_key(const struct policy *p, const char *name, size_t len)
{
	for (int i = 0; i < (int)POLICY_KEYS && p->keys[i].name; i++)
		if (strlen(p->keys[i].name) == len &&
		    strncmp(p->keys[i].name, name, len) == 0)
			return i;
	return -1;
}

static int set_key(struct loaded *l, const char *text, struct errmsg *err)
{
	const struct policy *p = l->table;
	size_t len = strcspn(text, "=");
	const struct policy_key *key;
	unsigned long long value;
	int i = find_key(p, text, len);
	char *end;

	if (i < 0)
		return err_set(err, -EINVAL,
			       "policy %s has no key '%.*s': see foliofsctl "
			       "policy",
			       p->name, (int)len, text);
	key = &p->keys[i];
	text += len + (text[len] == '=');
	errno = 0;
	value = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value < key->min ||
	    value > key->max)
		return err_set(err, -EINVAL,
			       "policy %s: %s is a number from %ju to %ju",
			       p->name, key->name, (uintmax_t)key->min,
			       (uintmax_t)key->max);
	l->conf[i] = value;
	return 0;
}

/* Everything that was set or not, to be shown. */
static void write_spec(struct loaded *l, const char *name)
{
	const struct policy_key *key = l->table->keys;
	size_t used;

	used = (size_t)snprintf(l->spec, sizeof(l->spec), "%s", name);
	for (unsigned int i = 0; i < POLICY_KEYS && key[i].name; i++)
		if (used < sizeof(l->spec))
			used += (size_t)snprintf(
				l->spec + used, sizeof(l->spec) - used,
				":%s=%ju", key[i].name, (uintmax_t)l->conf[i]);
}

static int parse(struct loaded *l, char *text, struct errmsg *err)
{
	char *save = NULL, *name = strtok_r(text, ":,", &save), *key;
	int ret;

	if (!name)
		return err_set(err, -EINVAL, "policy: give a name or a path");
	ret = *name == '/' ? load(l, name, err) : find(l, name, err);
	if (ret)
		return ret;
	for (unsigned int i = 0; i < POLICY_KEYS; i++)
		l->conf[i] = l->table->keys[i].value;
	while (ret == 0 && (key = strtok_r(NULL, ":,", &save)))
		ret = set_key(l, key, err);
	if (ret == 0)
		write_spec(l, name);
	return ret;
}

static int loaded_create(const char *spec, struct loaded **ret_loaded,
			 struct errmsg *err)
{
	char text[POLICY_SPEC_MAX];
	struct loaded *l;
	int ret;

	if (strlen(spec) >= sizeof(text))
		return err_set(err, -ENAMETOOLONG, "policy: too long");
	strcpy(text, spec);
	l = (struct loaded *)calloc(1, sizeof(*l));
	if (!l)
		return err_set(err, -ENOMEM, "policy: out of memory");
	l->refs = 1;
	ret = parse(l, text, err);
	if (ret)
		loaded_free(l);
	else
		*ret_loaded = l;
	return ret;
}

/* Hosts. */

/* With the lock.  A name that was here before goes on counting. */
static unsigned int slot_of(struct policy_host *host, const char *name)
{
	unsigned int i;

	for (i = 0; i < host->nr_slots; i++)
		if (strcmp(host->slots[i].name, name) == 0)
			return i;
	if (i == MAX_SLOTS)
		return i - 1;
	snprintf(host->slots[i].name, sizeof(host->slots[i].name), "%s",
		 i == MAX_SLOTS - 1 ? "others" : name);
	host->nr_slots++;
	return i;
}

static struct loaded *loaded_get(struct policy_host *host)
{
	struct loaded *l;

	mutex_lock(&host->lock);
	l = host->current;
	l->refs++;
	mutex_unlock(&host->lock);
	return l;
}

static void loaded_put(struct policy_host *host, struct loaded *l)
{
	bool last;

	mutex_lock(&host->lock);
	last = --l->refs == 0;
	mutex_unlock(&host->lock);
	if (last)
		loaded_free(l);
}

static void tell_sessions(struct policy_host *host, const struct loaded *l)
{
	struct session_server *srv = atomic_load(&host->srv);
	uint64_t ms = 0;

	if (l->table->recall_ms)
		ms = l->table->recall_ms(l->conf);
	if (ms > 60000)
		ms = 60000;
	if (srv)
		session_set_recall_ms(srv, ms ? (unsigned int)ms
					      : SESSION_RECALL_MS);
}

/* From now on it is asked; returns the one before. */
static struct loaded *install(struct policy_host *host, struct loaded *l)
{
	struct loaded *old;

	mutex_lock(&host->lock);
	old = host->current;
	l->slot = slot_of(host, l->table->name);
	host->current = l;
	atomic_store(&host->unsafe, l->table == &policy_unsafe_table);
	for (struct policy_ask *q = host->asks; q; q = q->next)
		dax_task_kick(q->task);
	mutex_unlock(&host->lock);
	tell_sessions(host, l);
	return old;
}

int policy_host_create(const char *spec, policy_log_fn log, void *ctx,
		       struct policy_host **ret_host, struct errmsg *err)
{
	struct policy_host *host;
	struct loaded *l = NULL;
	int ret;

	ret = loaded_create(spec ? spec : "wait", &l, err);
	if (ret)
		return ret;
	host = (struct policy_host *)calloc(1, sizeof(*host));
	if (host)
		host->slots =
			(struct slot *)calloc(MAX_SLOTS, sizeof(*host->slots));
	if (!host || !host->slots) {
		free(host);
		loaded_free(l);
		return err_set(err, -ENOMEM, "policy: out of memory");
	}
	host->log = log;
	host->ctx = ctx;
	mutex_init(&host->set_lock, LOCK_MOUNT);
	mutex_init(&host->lock, LOCK_HELD); /* wakes under it */
	host->may_unsafe = l->table == &policy_unsafe_table;
	install(host, l);
	*ret_host = host;
	return 0;
}

void policy_host_destroy(struct policy_host *host)
{
	if (!host)
		return;
	assert(!host->asks);
	loaded_free(host->current);
	mutex_destroy(&host->lock);
	mutex_destroy(&host->set_lock);
	free(host->slots);
	free(host);
}

void policy_host_sessions(struct policy_host *host, struct session_server *srv)
{
	struct loaded *l = loaded_get(host);

	atomic_store(&host->srv, srv);
	tell_sessions(host, l);
	loaded_put(host, l);
}

int policy_host_set(struct policy_host *host, const char *spec,
		    struct errmsg *err)
{
	struct loaded *l = NULL;
	char line[80];
	int ret;

	ret = loaded_create(spec, &l, err);
	if (ret)
		return ret;
	if (l->table == &policy_unsafe_table && !host->may_unsafe) {
		loaded_free(l);
		return err_set(err, -EPERM,
			       "policy unsafe corrupts data: it is only for "
			       "a mount with -o policy=unsafe");
	}
	snprintf(line, sizeof(line), "policy %s from now on", l->table->name);
	mutex_lock(&host->set_lock);
	l = install(host, l);
	mutex_unlock(&host->set_lock);
	loaded_put(host, l);
	say(host, line);
	return 0;
}

void policy_host_get(struct policy_host *host, char spec[POLICY_SPEC_MAX],
		     char *what, size_t size)
{
	struct loaded *l = loaded_get(host);

	memcpy(spec, l->spec, POLICY_SPEC_MAX);
	snprintf(what, size, "%s", l->table->what);
	loaded_put(host, l);
}

bool policy_host_unsafe(const struct policy_host *host)
{
	return atomic_load(&host->unsafe);
}

/* Counters. */

static _Atomic(uint64_t) *counter(const struct policy_ask *q, size_t which)
{
	return &q->host->slots[q->slot].counter[q->b.op][which];
}

static void count(const struct policy_ask *q, size_t which, uint64_t nr)
{
	atomic_fetch_add_explicit(counter(q, which), nr, memory_order_relaxed);
}

static void count_wait(const struct policy_ask *q, uint64_t ns)
{
	_Atomic(uint64_t) *max = counter(q, COUNTER(max_ns));
	uint64_t old = atomic_load(max), us = ns / 1000;
	unsigned int bucket = 0;

	while (us >>= 1)
		bucket++;
	if (bucket >= POLICY_BUCKETS)
		bucket = POLICY_BUCKETS - 1;
	count(q, COUNTER(nr_waits), 1);
	count(q, COUNTER(wait_ns), ns);
	count(q, COUNTER(wait_us) + bucket, 1);
	while (ns > old && !atomic_compare_exchange_weak(max, &old, ns))
		;
}

int policy_host_stat(struct policy_host *host, unsigned int slot,
		     unsigned int op, char name[POLICY_NAME_MAX],
		     struct policy_stat *ret)
{
	uint64_t sum[NR_COUNTERS] = { 0 }, value;
	unsigned int nr;

	mutex_lock(&host->lock);
	nr = host->nr_slots;
	mutex_unlock(&host->lock);
	if (slot >= nr)
		return -ENOENT;
	memcpy(name, host->slots[slot].name, POLICY_NAME_MAX);
	for (unsigned int i = 0; i < POLICY_NR_OPS; i++) {
		if (op < POLICY_NR_OPS && i != op)
			continue;
		for (size_t n = 0; n < NR_COUNTERS; n++) {
			value = atomic_load(&host->slots[slot].counter[i][n]);
			if (n != COUNTER(max_ns))
				sum[n] += value;
			else if (value > sum[n])
				sum[n] = value;
		}
	}
	memcpy(ret, sum, sizeof(*ret));
	return 0;
}

/* Asking. */

void policy_ask_begin(struct policy_ask *q, struct policy_host *host,
		      enum policy_op op, struct dax_task *task)
{
	*q = (struct policy_ask){
		.host = host,
		.b.op = op,
		.b.flags = POLICY_CAN_FAIL,
		.task = task,
		.start_ns = now_ns(),
	};
	mutex_lock(&host->lock);
	q->slot = host->current->slot;
	mutex_unlock(&host->lock);
	count(q, COUNTER(nr_breaks), 1);
}

static void ask_list(struct policy_ask *q)
{
	struct policy_host *host = q->host;

	if (q->listed)
		return;
	q->listed = true;
	mutex_lock(&host->lock);
	q->next = host->asks;
	host->asks = q;
	mutex_unlock(&host->lock);
	count(q, COUNTER(nr_busy), 1);
}

static void ask_unlist(struct policy_ask *q)
{
	struct policy_ask **p;

	if (!q->listed)
		return;
	mutex_lock(&q->host->lock);
	for (p = &q->host->asks; *p != q; p = &(*p)->next)
		;
	*p = q->next;
	mutex_unlock(&q->host->lock);
}

void policy_ask_end(struct policy_ask *q, int ret)
{
	ask_unlist(q);
	if (q->sleep_ns)
		count_wait(q, now_ns() - q->sleep_ns);
	if (ret == 0 && q->deferred)
		count(q, COUNTER(nr_deferred), 1);
	if (ret)
		count(q, COUNTER(nr_failed), 1);
}

static bool anybody_deaf(const struct policy_holder *h, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		if (h[i].kind == POLICY_HOLD_STUCK ||
		    h[i].kind == POLICY_HOLD_GONE)
			return true;
	return false;
}

/* What there is to see, now. */
static void look(struct policy_ask *q, struct folio *folio, uint64_t index,
		 struct policy_holder *holders)
{
	struct session_server *srv = atomic_load(&q->host->srv);
	struct policy_break *b = &q->b;
	uint64_t now = now_ns();

	b->index = index;
	b->waited_ns = now - q->start_ns;
	b->revoked_ns = q->revoke_ns ? now - q->revoke_ns : 0;
	b->holders = holders;
	b->nr_all =
		srv ? session_holders(srv, folio, holders, POLICY_MAX_HOLDERS)
		    : 0;
	b->nr_holders =
		b->nr_all < POLICY_MAX_HOLDERS ? b->nr_all : POLICY_MAX_HOLDERS;
	b->event = q->until_ns && now >= q->until_ns ? POLICY_TIMEOUT
						     : POLICY_BUSY;
	if (!q->told && anybody_deaf(holders, b->nr_holders)) {
		q->told = true;
		b->event = POLICY_UNANSWERED;
	}
}

static void call(const struct loaded *l, const struct policy_break *b,
		 struct policy_answer *a)
{
	const struct policy *p = l->table;

	if (b->event == POLICY_UNANSWERED && p->unanswered)
		p->unanswered(l->conf, b, a);
	else if (b->event == POLICY_TIMEOUT && p->timeout)
		p->timeout(l->conf, b, a);
	else
		p->busy(l->conf, b, a);
}

static bool is_holder(const struct policy_break *b, uint64_t client)
{
	for (uint32_t i = 0; i < b->nr_holders; i++)
		if (b->holders[i].client == client)
			return true;
	return false;
}

/* Does the answer make sense, for this operation? */
static const char *what_is_wrong(const struct policy_host *host,
				 const struct policy_break *b,
				 const struct policy_answer *a)
{
	switch (a->verdict) {
	case POLICY_WAIT:
	case POLICY_RECALL:
		return NULL;
	case POLICY_FAIL:
		if (!(b->flags & POLICY_CAN_FAIL))
			return "this operation cannot fail";
		/* What the kernel takes for an errno. */
		return a->error > 0 && a->error < 512 ? NULL : "no such errno";
	case POLICY_DEFER:
		return b->flags & POLICY_CAN_DEFER
			       ? NULL
			       : "this operation cannot be finished before";
	case POLICY_REVOKE:
		if (a->how > POLICY_KILL)
			return "no such way to revoke";
		if (b->nr_holders == 0)
			return "nobody to revoke from";
		return !a->client || is_holder(b, a->client)
			       ? NULL
			       : "it would end one who holds nothing";
	case POLICY_UNSAFE:
		return host->may_unsafe && (b->flags & POLICY_CAN_DEFER)
			       ? NULL
			       : "blocks in use are not handed on";
	default:
		return "no such answer";
	}
}

/* Then it is a wait; said once for each policy. */
static void refuse(struct policy_ask *q, struct loaded *l,
		   struct policy_answer *a, const char *why)
{
	char line[200];

	count(q, COUNTER(nr_refusals), 1);
	if (!atomic_exchange(&l->scolded, true)) {
		snprintf(line, sizeof(line),
			 "policy %s: its answer %u (%s) to %s is refused: %s; "
			 "waiting instead",
			 l->table->name, a->verdict,
			 policy_verdict_name(a->verdict),
			 policy_op_name(q->b.op), why);
		say(q->host, line);
	}
	*a = (struct policy_answer){ .verdict = POLICY_WAIT };
	/* It may know better in a while. */
	a->wait_ns = DEFAULT_RECALL_NS;
}

static void decide(struct policy_ask *q, struct policy_answer *a)
{
	struct loaded *l = loaded_get(q->host);
	const char *why;

	q->slot = l->slot;
	ask_list(q);
	*a = (struct policy_answer){ .verdict = POLICY_NONE };
	call(l, &q->b, a);
	count(q, COUNTER(nr_asks), 1);
	count(q,
	      COUNTER(nr_answers) + (a->verdict < POLICY_NR_VERDICTS
					     ? a->verdict
					     : POLICY_NR_VERDICTS),
	      1);
	why = what_is_wrong(q->host, &q->b, a);
	if (why)
		refuse(q, l, a, why);
	q->b.tried |= UINT64_C(1) << a->verdict;
	q->b.nr_rounds++;
	loaded_put(q->host, l);
}

/* One of them, once for each way. */
static void revoke_one(struct policy_ask *q, struct address_space *mapping,
		       uint64_t client, uint32_t how)
{
	struct session_server *srv = atomic_load(&q->host->srv);
	unsigned int i;

	if (q->how != how)
		memset(q->revoked, 0, sizeof(q->revoked));
	q->how = how;
	for (i = 0; i < POLICY_MAX_HOLDERS && q->revoked[i]; i++)
		if (q->revoked[i] == client)
			return;
	if (session_revoke(srv, client, mapping, how == POLICY_KILL))
		return;
	if (i < POLICY_MAX_HOLDERS)
		q->revoked[i] = client;
	count(q, COUNTER(nr_revokes), 1);
	q->b.nr_revokes++;
	q->revoke_ns = now_ns();
}

static void revoke_all(struct policy_ask *q, struct address_space *mapping,
		       const struct policy_answer *a)
{
	for (uint32_t i = 0; i < q->b.nr_holders; i++)
		if (!a->client || q->b.holders[i].client == a->client)
			revoke_one(q, mapping, q->b.holders[i].client, a->how);
}

static int sleep_so_long(struct policy_ask *q, struct dax_break *brk,
			 uint64_t ns)
{
	uint64_t now = now_ns();

	if (ns > MAX_SLEEP_NS)
		ns = 0;
	if (ns && ns < MIN_SLEEP_NS)
		ns = MIN_SLEEP_NS;
	q->until_ns = ns ? now + ns : 0;
	brk->until_ns = q->until_ns;
	if (brk->unlock && !q->sleep_ns)
		q->sleep_ns = now;
	return DAX_BREAK_WAIT;
}

int policy_ask_busy(struct policy_ask *q, struct dax_break *brk,
		    struct address_space *mapping, struct folio *folio,
		    uint64_t index)
{
	struct policy_holder holders[POLICY_MAX_HOLDERS];
	struct policy_answer a;

	/* Before the policy is looked at: see the head of this file. */
	if (q->task)
		atomic_store(&q->task->kicked, false);
	look(q, folio, index, holders);
	decide(q, &a);
	q->until_ns = 0;
	switch ((enum policy_verdict)a.verdict) {
	case POLICY_FAIL:
		return -a.error;
	case POLICY_DEFER:
	case POLICY_UNSAFE:
		q->deferred = true;
		return DAX_BREAK_DEFER;
	case POLICY_REVOKE:
		revoke_all(q, mapping, &a);
		break;
	case POLICY_RECALL:
		/* dax_break_layout() unmaps before each question. */
		count(q, COUNTER(nr_recalls), 1);
		if (!a.wait_ns)
			a.wait_ns = DEFAULT_RECALL_NS;
		break;
	case POLICY_NONE:
	case POLICY_WAIT:
	case POLICY_NR_VERDICTS:
		break;
	}
	q->b.holders = NULL;
	return sleep_so_long(q, brk, a.wait_ns);
}
