/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_policy.c - what policies decide, and what they are shown
 *
 * In one process, with bare clients; tests/mount/policy.c is the whole way.
 */
#include <stdio.h>

#include "dax/policy_host.h"
#include "tests/dax/support/common.h"
#include "tests/dax/support/raw.h"

#define ADDR UINT64_C(0x100000000)
#define MS   POLICY_MS

/* Decisions: pure, so that they can be called as they are. */

static struct policy_answer decide(const char *name, uint64_t conf0,
				   const struct policy_break *b)
{
	const struct policy *p = policy_builtin(name);
	uint64_t conf[POLICY_KEYS] = { conf0 };
	struct policy_answer a = { .verdict = POLICY_NONE };

	cr_assert_not_null(p, "%s", name);
	p->busy(conf, b, &a);
	return a;
}

#define BOTH (POLICY_CAN_DEFER | POLICY_CAN_FAIL)

Test(policy_decides, by_what_it_is_shown)
{
	const struct policy_holder young = { .pid = 7, .client = 1 };
	const struct policy_holder deaf = { .pid = 7,
					    .kind = POLICY_HOLD_STUCK };
	struct policy_break b = {
		.flags = BOTH,
		.pid = 5,
		.waited_ns = 300 * MS,
		.holders = &young,
		.nr_holders = 1,
		.nr_all = 1,
	};
	struct policy_answer a;

	a = decide("wait", 0, &b);
	cr_expect(a.verdict == POLICY_WAIT && a.wait_ns == 0);
	a = decide("nowait", 0, &b);
	cr_expect(a.verdict == POLICY_FAIL && a.error == EAGAIN);
	a = decide("timeout", 1000, &b);
	cr_expect(a.verdict == POLICY_WAIT && a.wait_ns == 700 * MS);
	a = decide("timeout", 300, &b);
	cr_expect(a.verdict == POLICY_FAIL && a.error == ETIMEDOUT);
	a = decide("lease", 301, &b);
	cr_expect(a.verdict == POLICY_WAIT && a.wait_ns == MS);
	a = decide("lease", 300, &b);
	cr_expect(a.verdict == POLICY_REVOKE && a.how == POLICY_KILL);
	a = decide("revoke", 0, &b);
	cr_expect(a.verdict == POLICY_REVOKE && a.how == POLICY_UNMAP);
	a = decide("fail", 1000, &b);
	cr_expect(a.verdict == POLICY_WAIT && a.wait_ns == 1000 * MS);
	a = decide("defer", 0, &b);
	cr_expect(a.verdict == POLICY_DEFER);
	b.flags = POLICY_CAN_FAIL;
	a = decide("defer", 0, &b);
	cr_expect(a.verdict == POLICY_WAIT);
	b.holders = &deaf;
	a = decide("fail", 1000, &b);
	cr_expect(a.verdict == POLICY_FAIL && a.error == ETXTBSY);
	b.pid = 7; /* its own */
	a = decide("revoke", 1, &b);
	cr_expect(a.verdict == POLICY_FAIL && a.error == EDEADLK);
	a = decide("lease", 0, &b);
	cr_expect(a.verdict == POLICY_FAIL && a.error == EDEADLK);
}

/* Breaks. */

static struct policy_host *host;
static struct rawfs rf;
static struct raw client;
static char logged[256];

static void log_line(void *ctx, const char *line)
{
	(void)ctx;
	snprintf(logged, sizeof(logged), "%s", line);
}

static void setup(void)
{
	struct errmsg err = { "" };

	common_setup();
	client.fd = client.mail_fd = client.device_fd = -1;
	cr_assert_eq(rawfs_create(&rf, fs, NULL, 50), 0);
	cr_assert_eq(policy_host_create(NULL, log_line, NULL, &host, &err), 0);
	policy_host_sessions(host, rf.srv);
	session_set_recall_ms(rf.srv, 50);
}

static void teardown(void)
{
	policy_host_destroy(host);
	raw_end(&client);
	rawfs_destroy(&rf);
	common_teardown();
}

TestSuite(policy, .init = setup, .fini = teardown, .timeout = 60);

static void set(const char *spec)
{
	struct errmsg err = { "" };

	cr_assert_eq(policy_host_set(host, spec, &err), 0, "%s", err.text);
	session_set_recall_ms(rf.srv, 50);
}

static int ask(struct dax_break *brk, struct address_space *mapping,
	       struct folio *folio, uint64_t index)
{
	return policy_ask_busy((struct policy_ask *)brk->ctx, brk, mapping,
			       folio, index);
}

static int job_break(struct job *job)
{
	struct rwsem *lock = &job->file->mapping.invalidate_lock;
	struct policy_ask q;
	struct file_break fb;
	int ret;

	file_break_init(&fb, job->file, &job->task);
	fb.brk.busy = ask;
	fb.brk.ctx = &q;
	policy_ask_begin(&q, host, POLICY_OP_PUNCH, &job->task);
	if (job->write)
		q.b.flags |= POLICY_CAN_DEFER;
	rwsem_down_write(lock, LOCK_INVALIDATE);
	ret = dax_break_layout_inode(&job->file->mapping, &fb.brk);
	rwsem_up_write(lock);
	policy_ask_end(&q, ret);
	return ret;
}

/* The client maps all of A, and has page 5 faulted in. */
static uint64_t map_a(void)
{
	struct session_fault_reply r;
	uint64_t vma;

	file_fill(A, 5, 'a');
	cr_assert_eq(raw_start(&client, &rf, A, true), 0);
	cr_assert_eq(raw_map(&client, ADDR, 0, 10, SESSION_MAP_WRITE, &vma), 0);
	cr_assert_eq(raw_fault(&client, vma, 5, 1, SESSION_RANGE_WRITE, &r), 0);
	return vma;
}

static uint64_t pin_a(uint64_t vma)
{
	uint64_t pin;

	cr_assert_eq(raw_pin(&client, vma, 5, 1, SESSION_RANGE_WRITE, &pin), 0);
	return pin;
}

/* Recalls answered, until the break sleeps or is over. */
static void serve_until_asleep(struct job *job, const struct folio *folio)
{
	for (int i = 0;
	     i < 1000 && !atomic_load(&job->done) && wait_count(folio, 0) == 0;
	     i++)
		cr_assert_eq(raw_serve(&client, 10), 0);
}

static struct policy_stat stat_of(const char *name)
{
	char found[POLICY_NAME_MAX];
	struct policy_stat st;

	for (unsigned int i = 0;; i++) {
		cr_assert_eq(
			policy_host_stat(host, i, POLICY_OP_PUNCH, found, &st),
			0);
		if (strcmp(found, name) == 0)
			return st;
	}
}

Test(policy, holders_are_pins_and_those_who_do_not_answer)
{
	struct policy_holder h[4];
	struct job job = { .file = A };
	uint64_t vma = map_a(), pin;
	struct folio *folio = file_folio(A, 5);

	/* Only mapped: that can be taken back. */
	cr_expect_eq(session_holders(rf.srv, folio, h, 4), 0);
	pin = pin_a(vma);
	cr_assert_eq(session_holders(rf.srv, folio, h, 4), 1);
	cr_expect_eq(h[0].kind, POLICY_HOLD_PIN);
	cr_expect_eq(h[0].pid, getpid());
	cr_expect(h[0].index == 5 && h[0].nr == 1);
	cr_assert_eq(raw_finish(&client, SESSION_UNPIN, pin), 0);

	set("timeout:ms=300");
	client.deaf = true;
	job_start(&job, job_break);
	cr_expect_eq(job_end(&job), -ETIMEDOUT);
	cr_assert_eq(session_holders(rf.srv, folio, h, 4), 1);
	cr_expect_eq(h[0].kind, POLICY_HOLD_STUCK);
	cr_expect_eq(h[0].client, client.client);
	/* It is we ourselves. */
	cr_expect_eq(session_revoke(rf.srv, h[0].client, &A->mapping, true),
		     -EPERM);
	cr_expect_eq(session_revoke(rf.srv, 4711, &A->mapping, true), -ESRCH);
	client.deaf = false;
	raw_catch_up(&client);
	cr_expect_eq(raw_serve(&client, 50), 0);
	cr_expect_eq(session_holders(rf.srv, folio, h, 4), 0);
}

Test(policy, change_wakes_who_sleeps)
{
	struct job job = { .file = A };
	uint64_t vma = map_a(), pin = pin_a(vma);
	struct folio *folio = file_folio(A, 5);

	job_start(&job, job_break);
	serve_until_asleep(&job, folio);
	set("lease:grace_ms=600000");
	until(stat_of("lease").nr_asks == 1);
	set("nowait");
	cr_expect_eq(job_end(&job), -EAGAIN);
	cr_expect_eq(A->mapping.nrpages, 1);
	cr_expect_eq(stat_of("nowait").nr_failed, 1);
	cr_expect_eq(stat_of("nowait").nr_waits, 1);
	cr_expect_eq(raw_finish(&client, SESSION_UNPIN, pin), 0);
}

Test(policy, defer_only_where_it_can_be)
{
	struct job job = { .file = A, .write = true };
	uint64_t vma = map_a(), pin = pin_a(vma);
	struct folio *folio = file_folio(A, 5);

	set("defer");
	job_start(&job, job_break);
	serve_until_asleep(&job, folio);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_eq(A->mapping.nrpages, 0);
	cr_expect_eq(stat_of("defer").nr_deferred, 1);
	cr_expect_eq(raw_finish(&client, SESSION_UNPIN, pin), 0);
}

Test(policy, unsafe_has_to_be_there_from_the_start)
{
	struct policy_host *other;
	struct errmsg err = { "" };

	cr_expect_eq(policy_host_set(host, "unsafe", &err), -EPERM);
	cr_expect_not(policy_host_unsafe(host));
	cr_assert_eq(policy_host_create("unsafe", NULL, NULL, &other, &err), 0);
	cr_expect(policy_host_unsafe(other));
	cr_expect_eq(policy_host_set(other, "wait", &err), 0);
	cr_expect_not(policy_host_unsafe(other));
	cr_expect_eq(policy_host_set(other, "unsafe", &err), 0);
	policy_host_destroy(other);
}
