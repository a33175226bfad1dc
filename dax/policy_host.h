/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy_host.h - where policies live: one is asked, and it is counted
 *
 * dax/policy.h is what a policy sees.  This is the other side: it finds a
 * policy by name or loads it, shows it what there is to see, checks what it
 * answers and does it.  The policy can be changed at any time; breaks that
 * sleep by an answer of the old one wake up and ask the new one.
 *
 * A spec is NAME or /path/to/it.so, then keys: "timeout:ms=500".  A ',' may
 * stand for a ':', so neither can be part of a path.
 *
 * Errors.    Negative errno, with a sentence where there is an errmsg.
 * Locking.   policy_host_set() takes LOCK_MOUNT; everything else LOCK_HELD for
 *            a moment, and what revoking and listing of holders takes.
 * Ownership. A struct policy_ask lives in the frame of whoever breaks.
 */
#ifndef DAX_POLICY_HOST_H
#define DAX_POLICY_HOST_H

#include "dax/err.h"
#include "dax/layout.h"
#include "dax/policy.h"

struct policy_host;
struct session_server;

#define POLICY_SPEC_MAX	   1024u
#define POLICY_NAME_MAX	   32u
#define POLICY_MAX_HOLDERS 32u

extern const struct policy policy_wait_table, policy_nowait_table,
	policy_timeout_table, policy_lease_table, policy_fail_table,
	policy_defer_table, policy_revoke_table, policy_unsafe_table;

/* The one of that name, or NULL. */
const struct policy *policy_builtin(const char *name);
const char *policy_op_name(unsigned int op);
/* POLICY_OP_OTHER for a name that is none. */
enum policy_op policy_op_by_name(const char *name);
const char *policy_verdict_name(unsigned int verdict);

/* One line for the log; takes no locks. */
typedef void (*policy_log_fn)(void *ctx, const char *line);

/**
 * policy_host_create() - with the policy that a mount begins with
 * @spec: or NULL for "wait"; if it is "unsafe", blocks may be handed on that
 * are in use, now and later
 * @log: called with @ctx, or NULL
 */
int policy_host_create(const char *spec, policy_log_fn log, void *ctx,
		       struct policy_host **ret_host, struct errmsg *err);
void policy_host_destroy(struct policy_host *host);

/* Recalls of @srv are waited for as the policy says, from now on. */
void policy_host_sessions(struct policy_host *host, struct session_server *srv);

/**
 * policy_host_set() - from now on this policy
 *
 * Return: 0; -ENOENT no policy of that name; -EINVAL a key or value that it
 * does not have; -ELIBBAD not a policy; -ENOEXEC one for another POLICY_ABI;
 * -EPERM "unsafe", and the mount does not say so.
 */
int policy_host_set(struct policy_host *host, const char *spec,
		    struct errmsg *err);

/* The spec with all keys, and what it says about itself. */
void policy_host_get(struct policy_host *host, char spec[POLICY_SPEC_MAX],
		     char *what, size_t size);

/* May blocks be handed on that are in use?  Only "unsafe" says so. */
bool policy_host_unsafe(const struct policy_host *host);

/* One break. */
struct policy_ask {
	struct policy_host *host;
	struct policy_break b; /* the caller sets op, flags, pid, comm, ino */
	uint64_t start_ns;
	uint64_t sleep_ns; /* when the first sleep began, or 0 */
	uint64_t until_ns; /* of the last answer */
	uint64_t revoke_ns;
	uint64_t revoked[POLICY_MAX_HOLDERS]; /* so as not to do it twice */
	uint32_t how;			      /* it was done */
	bool told;			      /* somebody does not answer */
	bool refused;			      /* an answer, and it was logged */
	bool deferred;
	unsigned int slot; /* of the policy that was asked last */
	struct dax_task *task;
	struct policy_ask *next; /* of the host, under its lock */
	bool listed;
};

void policy_ask_begin(struct policy_ask *q, struct policy_host *host,
		      enum policy_op op, struct dax_task *task);

/* For dax_break.busy: asks, and does all but sleep. */
int policy_ask_busy(struct policy_ask *q, struct dax_break *brk,
		    struct address_space *mapping, struct folio *folio,
		    uint64_t index);

/* @ret: of the break. */
void policy_ask_end(struct policy_ask *q, int ret);

/* Counters, by policy and operation. */
#define POLICY_BUCKETS 28u
struct policy_stat {
	uint64_t nr_breaks;
	uint64_t nr_busy;    /* breaks that found something busy */
	uint64_t nr_waits;   /* breaks that slept */
	uint64_t nr_asks;    /* questions */
	uint64_t nr_recalls; /* times a range was unmapped again */
	uint64_t nr_answers[POLICY_NR_VERDICTS + 1];
	uint64_t nr_refusals; /* answers that were not followed */
	uint64_t nr_revokes;  /* clients */
	uint64_t nr_deferred; /* operations */
	uint64_t nr_failed;
	uint64_t wait_ns, max_ns;
	/* Waits of [2^i, 2^(i+1)) microseconds; the ends are open. */
	uint64_t wait_us[POLICY_BUCKETS];
};

/*
 * What was counted for the policy number @slot, in all or (@op below
 * POLICY_NR_OPS) for one operation.  -ENOENT: there are no more policies.
 */
int policy_host_stat(struct policy_host *host, unsigned int slot,
		     unsigned int op, char name[POLICY_NAME_MAX],
		     struct policy_stat *ret);

#endif
