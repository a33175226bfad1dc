/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/test_session.c - the session server, through its socket
 *
 * At the end of each test every client is gone, and the folio counters say
 * so (rawfs_destroy(), common_teardown()).
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/dax/support/common.h"
#include "tests/dax/support/raw.h"

/* Where clients say that they map; chunk-aligned. */
#define ADDR UINT64_C(0x100000000)

#define WRITE  SESSION_RANGE_WRITE
#define AROUND SESSION_RANGE_AROUND

static struct rawfs rf;
static struct raw c1, c2;

static void start(const struct session_limits *limits, unsigned int recall_ms)
{
	common_setup();
	c1.fd = c2.fd = -1;
	c1.mail_fd = c2.mail_fd = c1.device_fd = c2.device_fd = -1;
	cr_assert_eq(rawfs_create(&rf, fs, limits, recall_ms), 0);
}

static void setup(void)
{
	start(NULL, 5000);
}

static void teardown(void)
{
	raw_end(&c1);
	raw_end(&c2);
	rawfs_destroy(&rf);
	common_teardown();
}

TestSuite(session, .init = setup, .fini = teardown, .timeout = 60);

static unsigned int nr_clients(void)
{
	struct session_stat stat;

	session_server_stat(rf.srv, &stat);
	return stat.nr_clients;
}

static uint64_t map_all(struct raw *r, struct memfile *file, uint32_t flags)
{
	uint64_t vma;

	cr_assert_eq(raw_map(r, ADDR, 0,
			     atomic_load(&file->size) >> BLOCK_SHIFT, flags,
			     &vma),
		     0);
	return vma;
}

Test(session, fault_says_where_the_page_is)
{
	uint32_t pfn = file_fill(A, 5, 'a');
	struct session_fault_reply f;
	uint64_t vma;

	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	cr_expect_eq(c1.size, 10 * BLOCK_SIZE);
	vma = map_all(&c1, A, SESSION_MAP_WRITE);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, 0, &f), 0);
	cr_expect_eq(f.nr_segs, 1);
	cr_expect_eq(f.seg[0].index, 5);
	cr_expect_eq(f.seg[0].nr, 1);
	cr_expect_eq(f.seg[0].off, (uint64_t)pfn << BLOCK_SHIFT);
	cr_expect_eq(f.seg[0].flags, 0);
	expect_counts(file_folio(A, 5), 1, 1);
	cr_expect_eq(raw_range(&c1, SESSION_UNMAP, vma, 0, 10, 0), 0);
	expect_counts(file_folio(A, 5), 0, 0);
	cr_expect_eq(raw_fault(&c1, vma, 5, 1, 0, &f), -ENOENT);
	cr_expect_eq(atomic_load(&rf.nr_stored), 0);
}

Test(session, descriptor_reads_what_the_fault_said)
{
	struct session_fault_reply f;
	char byte = 0;
	uint64_t vma;

	file_fill(A, 3, 'x');
	cr_assert_eq(raw_start(&c1, &rf, A, false), 0);
	cr_expect_eq(c1.open_flags, 0);
	vma = map_all(&c1, A, 0);
	cr_assert_eq(raw_fault(&c1, vma, 3, 1, 0, &f), 0);
	cr_expect_eq(pread(c1.device_fd, &byte, 1, (off_t)f.seg[0].off), 1);
	cr_expect_eq(byte, 'x');
	cr_expect_eq(pwrite(c1.device_fd, &byte, 1, (off_t)f.seg[0].off), -1);
}

Test(session, write_fault_allocates_and_tells)
{
	struct session_fault_reply f;
	uint64_t vma;

	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	vma = map_all(&c1, A, SESSION_MAP_WRITE);
	cr_assert_eq(raw_fault(&c1, vma, 2, 1, 0, &f), 0);
	cr_expect_eq(f.seg[0].flags, SESSION_SEG_ZERO);
	cr_assert_eq(raw_fault(&c1, vma, 2, 1, WRITE, &f), 0);
	cr_expect_eq(f.seg[0].flags, SESSION_SEG_WRITE);
	cr_expect_eq(c1.nr_recalls, 1); /* of the zero page */
	cr_expect_eq(atomic_load(&rf.nr_stored), 1);
	cr_expect(file_marked(A, 2, DAX_MARK_DIRTY));
}

Test(session, behind_the_end_is_efault)
{
	uint64_t vma;

	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	cr_assert_eq(raw_map(&c1, ADDR, 0, 100, 0, &vma), 0);
	cr_expect_eq(raw_fault(&c1, vma, 10, 1, 0, NULL), -EFAULT);
	cr_expect_eq(raw_fault(&c1, vma, 9, 1, 0, NULL), 0);
	cr_expect_eq(raw_fault(&c1, vma, 100, 1, 0, NULL), -EINVAL);
	cr_expect_eq(raw_fault(&c1, vma, 9, 1, WRITE, NULL), -EACCES);
}

/* Break a file's layout while its client lives. */
static struct job truncate_job;

static void truncate_begin(struct memfile *file)
{
	truncate_job = (struct job){ .file = file, .index = 0 };
	job_start(&truncate_job, job_truncate);
}

Test(session, break_recalls_and_the_client_answers)
{
	uint64_t vma;

	file_fill(A, 5, 'a');
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	vma = map_all(&c1, A, SESSION_MAP_WRITE);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, WRITE, NULL), 0);
	truncate_begin(A);
	while (!atomic_load(&truncate_job.done))
		cr_assert_eq(raw_serve(&c1, 10), 0);
	cr_expect_eq(job_end(&truncate_job), 0);
	cr_expect_eq(c1.nr_recalls, 1);
	cr_expect_eq(c1.recalls[0].kind, SESSION_RECALL_ZAP);
	cr_expect_eq(c1.recalls[0].vma, vma);
	cr_expect_eq(c1.recalls[0].index, 5);
	cr_expect_eq(c1.recalls[0].nr, 1);
	cr_expect_eq(raw_fault(&c1, vma, 5, 1, 0, NULL), -EFAULT);
}

/* A pin through the socket, and a truncate that has begun to wait for it. */
static uint64_t pin_and_truncate(struct raw *r)
{
	uint64_t vma, pin;

	file_fill(A, 5, 'a');
	cr_assert_eq(raw_start(r, &rf, A, true), 0);
	vma = map_all(r, A, SESSION_MAP_WRITE);
	cr_assert_eq(raw_pin(r, vma, 5, 1, WRITE, &pin), 0);
	expect_counts(file_folio(A, 5), 2, 1);
	truncate_begin(A);
	while (wait_count(file_folio(A, 5), 0) == 0)
		cr_assert_eq(raw_serve(r, 1), 0);
	cr_expect_not(atomic_load(&truncate_job.done));
	return pin;
}

Test(session, unpin_ends_the_wait)
{
	uint64_t pin = pin_and_truncate(&c1);

	cr_expect_eq(raw_finish(&c1, SESSION_UNPIN, pin + 1), -ENOENT);
	cr_expect_eq(raw_finish(&c1, SESSION_UNPIN, pin), 0);
	cr_expect_eq(job_end(&truncate_job), 0);
	cr_expect_eq(raw_finish(&c1, SESSION_UNPIN, pin), -ENOENT);
}

/*
 * A client in a process of its own.  This one is the daemon and maps the
 * device, so that a client here would be taken to hold on to it.
 */
struct child {
	pid_t pid;
	int from, to; /* pipes */
	uint64_t vma, pin;
};

static uint8_t token[SESSION_TOKEN_SIZE];
static void *child_map;

static void child_command(char cmd)
{
	switch (cmd) {
	case 'c':
		close(c1.fd);
		c1.fd = -1;
		break;
	case 'm': /* as a client does after a fault */
		child_map = mmap(NULL, BLOCK_SIZE, PROT_READ, MAP_SHARED,
				 c1.device_fd, 0);
		break;
	case 'u':
		munmap(child_map, BLOCK_SIZE);
		break;
	case 'd':
		c1.deaf = true;
		break;
	case 'a':
		raw_catch_up(&c1);
		break;
	case 'p':
		raise(SIGSTOP);
		break;
	default:
		_exit(0);
	}
}

static void child_main(struct child *ch)
{
	struct session_reply ok = { .error = 0 };
	char cmd;

	/* As a program that never knew of the daemon's mapping. */
	munmap((void *)(uintptr_t)fs->pm->base, fs->pm->size);
	close(fs->fd);
	ok.error = raw_connect(&c1, session_server_path(rf.srv));
	if (!ok.error)
		ok.error = raw_hello(&c1);
	if (!ok.error)
		ok.error = raw_open(&c1, token);
	if (!ok.error)
		ok.error =
			raw_map(&c1, ADDR, 0, 10, SESSION_MAP_WRITE, &ch->vma);
	if (!ok.error && ch->pin)
		ok.error = raw_pin(&c1, ch->vma, 5, 1, WRITE, &ch->pin);
	if (!ok.error)
		ok.error = raw_fault(&c1, ch->vma, 5, 1, WRITE, NULL);
	if (write(ch->to, &ok.error, sizeof(ok.error)) < 0)
		_exit(1);
	fcntl(ch->from, F_SETFL, O_NONBLOCK);
	for (;;) {
		if (c1.fd >= 0)
			raw_serve(&c1, 1);
		else
			usleep(1000);
		if (read(ch->from, &cmd, 1) != 1)
			continue;
		child_command(cmd);
		if (write(ch->to, &cmd, 1) < 0)
			_exit(1);
	}
}

/* A process that has page 5 of @file mapped for writing, and maybe pinned. */
static struct child child_start(struct memfile *file, bool with_pin)
{
	struct child ch = { .pin = with_pin };
	int up[2], down[2], error = -1;

	cr_assert_eq(session_token(rf.srv, &file->mapping, true, token), 0);
	cr_assert_eq(pipe(up), 0);
	cr_assert_eq(pipe(down), 0);
	ch.pid = fork();
	if (ch.pid == 0) {
		ch.to = up[1];
		ch.from = down[0];
		child_main(&ch);
	}
	ch.from = up[0];
	ch.to = down[1];
	close(up[1]);
	close(down[0]);
	cr_assert_eq(read(ch.from, &error, sizeof(error)), sizeof(error));
	cr_assert_eq(error, 0);
	return ch;
}

/* Returns when it is done; 'x' and 'p' are not waited for. */
static void child_tell(struct child *ch, char cmd)
{
	char ack;

	cr_assert_eq(write(ch->to, &cmd, 1), 1);
	if (cmd != 'x' && cmd != 'p')
		cr_assert_eq(read(ch->from, &ack, 1), 1);
}

static void child_end(struct child *ch)
{
	kill(ch->pid, SIGKILL);
	waitpid(ch->pid, NULL, 0);
	close(ch->from);
	close(ch->to);
}

/* A child pins, and a truncate has begun to wait. */
static struct child child_pins(void)
{
	struct child ch;

	file_fill(A, 5, 'a');
	ch = child_start(A, true);
	truncate_begin(A);
	until(wait_count(file_folio(A, 5), 0) == 1);
	expect_counts(file_folio(A, 5), 1, 0);
	cr_expect_not(atomic_load(&truncate_job.done));
	return ch;
}

Test(session, close_ends_the_wait)
{
	struct child ch = child_pins();

	child_tell(&ch, 'c');
	cr_expect_eq(job_end(&truncate_job), 0);
	child_end(&ch);
}

Test(session, kill_ends_the_wait)
{
	struct child ch = child_pins();

	kill(ch.pid, SIGKILL);
	cr_expect_eq(job_end(&truncate_job), 0);
	child_end(&ch);
	until(nr_clients() == 0);
}

Test(session, exit_ends_the_wait)
{
	struct child ch = child_pins();

	child_tell(&ch, 'x');
	cr_expect_eq(job_end(&truncate_job), 0);
	child_end(&ch);
	until(nr_clients() == 0);
}

Test(session, a_process_that_goes_on_mapping_holds)
{
	struct session_holds_reply h;
	struct session_stat stat;
	struct child ch = child_pins();

	child_tell(&ch, 'm');
	child_tell(&ch, 'c');
	do
		session_server_stat(rf.srv, &stat);
	while (stat.nr_gone == 0);
	cr_expect_not(atomic_load(&truncate_job.done));
	cr_assert_eq(raw_start(&c2, &rf, B, false), 0);
	cr_assert_eq(raw_holds(&c2, 0, 0, &h), 0);
	cr_assert_eq(h.nr, 1);
	cr_expect_eq(h.hold[0].kind, SESSION_HOLD_GONE);
	cr_expect_eq(h.hold[0].pid, ch.pid);
	cr_expect_eq(h.hold[0].index, 5);
	child_tell(&ch, 'u');
	cr_expect_eq(job_end(&truncate_job), 0);
	child_end(&ch);
}
