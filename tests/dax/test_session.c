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
#include <sys/socket.h>
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

/* Who does not answer. */

static void impatient(void)
{
	start(NULL, 50);
}

TestSuite(session_late, .init = impatient, .fini = teardown, .timeout = 60);

static uint64_t ms_since(uint64_t begin)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000 -
	       begin;
}

Test(session_late, what_is_not_given_back_becomes_a_pin)
{
	struct session_holds_reply h;
	uint64_t vma, begin;

	file_fill(A, 5, 'a');
	file_fill(A, 6, 'a');
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	vma = map_all(&c1, A, SESSION_MAP_WRITE);
	cr_assert_eq(raw_fault(&c1, vma, 5, 2, WRITE | AROUND, NULL), 0);
	c1.deaf = true;
	session_mapper.unmap(&A->mapping, 5, 1);
	expect_counts(file_folio(A, 5), 1, 0);
	expect_counts(file_folio(A, 6), 1, 1);
	cr_expect_not_null(strstr(rf.log, "does not answer"));
	/* Nobody waits for it again. */
	begin = ms_since(0);
	session_set_recall_ms(rf.srv, 10000);
	cr_expect_eq(session_mapper.wrprotect(&A->mapping, 0, 10), 1);
	truncate_begin(A);
	until(wait_count(file_folio(A, 5), 0) == 1);
	expect_counts(file_folio(A, 6), 1, 0);
	cr_expect_lt(ms_since(begin), 2000);
	cr_assert_eq(raw_start(&c2, &rf, B, false), 0);
	cr_assert_eq(raw_holds(&c2, A->mapping.ino, 0, &h), 0);
	cr_assert_eq(h.nr, 1);
	cr_expect_eq(h.hold[0].kind, SESSION_HOLD_STUCK);
	cr_expect_eq(h.hold[0].nr, 2);
	cr_expect_eq(h.hold[0].client, c1.client);
	cr_expect_lt(h.hold[0].age_ns, UINT64_C(5000000000));
	cr_expect_eq(raw_serve(&c1, 100), 0);
	raw_catch_up(&c1);
	cr_expect_eq(job_end(&truncate_job), 0);
	cr_expect_eq(raw_fault(&c1, vma, 5, 1, 0, NULL), -EFAULT);
}

Test(session_late, a_stopped_process_is_late_and_catches_up)
{
	struct child ch;

	file_fill(A, 5, 'a');
	ch = child_start(A, false);
	kill(ch.pid, SIGSTOP);
	cr_assert_eq(waitpid(ch.pid, NULL, WUNTRACED), ch.pid);
	truncate_begin(A);
	until(wait_count(file_folio(A, 5), 0) == 1);
	kill(ch.pid, SIGCONT);
	cr_expect_eq(job_end(&truncate_job), 0);
	child_end(&ch);
}

Test(session_late, a_killed_process_that_was_late_is_forgotten)
{
	struct child ch;

	file_fill(A, 5, 'a');
	ch = child_start(A, false);
	child_tell(&ch, 'd');
	truncate_begin(A);
	until(wait_count(file_folio(A, 5), 0) == 1);
	kill(ch.pid, SIGKILL);
	cr_expect_eq(job_end(&truncate_job), 0);
	child_end(&ch);
}

Test(session_late, fsync_goes_on_and_the_page_stays_dirty)
{
	uint64_t vma;

	file_fill(A, 5, 'a');
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	vma = map_all(&c1, A, SESSION_MAP_WRITE);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, WRITE, NULL), 0);
	cr_expect_eq(file_fsync(A), 0);
	cr_expect(file_marked(A, 5, DAX_MARK_DIRTY));
	/* The answer comes; whoever syncs now cleans. */
	cr_expect_eq(raw_serve(&c1, 100), 0);
	cr_expect_eq(c1.nr_recalls, 1);
	cr_expect_eq(c1.recalls[0].kind, SESSION_RECALL_WRPROTECT);
	cr_expect_eq(raw_fault(&c1, vma, 5, 1, 0, NULL), 0);
	cr_expect_eq(file_fsync(A), 0);
	cr_expect_not(file_marked(A, 5, DAX_MARK_DIRTY));
}

/* An answer that comes too late does not take what was installed since. */
Test(session_late, late_answer_leaves_what_was_installed_since)
{
	struct session_fault_reply f;
	uint64_t vma;

	file_fill(A, 5, 'a');
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	vma = map_all(&c1, A, SESSION_MAP_WRITE);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, WRITE, NULL), 0);
	c1.deaf = true;
	cr_expect_eq(session_mapper.wrprotect(&A->mapping, 5, 1), 1);
	/* A store that overtakes the protection. */
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, WRITE, &f), 0);
	cr_expect_eq(f.seg[0].flags, SESSION_SEG_WRITE);
	raw_catch_up(&c1);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, 0, &f), 0);
	cr_expect_eq(f.seg[0].flags, SESSION_SEG_WRITE);
	/* The same with a zap: it is late, caught up with, and mapped anew. */
	c1.nr_recalls = 0;
	c1.deaf = true;
	session_mapper.unmap(&A->mapping, 5, 1);
	session_mapper.unmap(&A->mapping, 5, 1);
	cr_expect_eq(raw_fault(&c1, vma, 5, 1, 0, &f), -EAGAIN);
	expect_counts(file_folio(A, 5), 1, 0);
	raw_catch_up(&c1);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, 0, &f), 0);
	expect_counts(file_folio(A, 5), 1, 1);
}

Test(session_late, recalls_of_one_who_does_not_read_are_merged)
{
	struct session_stat stat;
	struct memfile *big = file_create(fs, FILE_PAGES);
	uint64_t vma;

	for (uint64_t i = 0; i < FILE_PAGES; i++)
		file_fill(big, i, 'a');
	rawfs_adopt(&rf);
	cr_assert_eq(raw_start(&c1, &rf, big, true), 0);
	cr_assert_eq(raw_map(&c1, ADDR + BLOCK_SIZE, 0, FILE_PAGES, 0, &vma),
		     0);
	for (uint64_t i = 0; i < FILE_PAGES; i += 512)
		cr_assert_eq(raw_fault(&c1, vma, i, 512, AROUND, NULL), 0);
	for (uint64_t i = 0; i < FILE_PAGES; i += 2)
		session_mapper.unmap(&big->mapping, i, 1);
	session_server_stat(rf.srv, &stat);
	cr_expect_lt(stat.nr_recalls, 900);
	for (uint64_t i = 0; i < FILE_PAGES; i++)
		expect_counts(file_folio(big, i), 1, i % 2);
	/* It reads, and answers all of them. */
	cr_expect_eq(raw_serve(&c1, 300), 0);
	cr_expect_eq(c1.nr_recalls, stat.nr_recalls);
	cr_expect_eq(raw_fault(&c1, vma, 1, 1, 0, NULL), 0);
	for (uint64_t i = 0; i < FILE_PAGES; i++)
		expect_counts(file_folio(big, i), i % 2, i % 2);
}

/* Many at once. */

#define NR_SLEEPERS 200

Test(session, two_hundred_faults_sleep_and_others_go_on)
{
	struct session_range m = {
		.head.op = SESSION_FAULT,
		.nr = 1,
		.flags = WRITE,
	};
	struct session_fault_reply f;
	struct session_holds_reply h;
	struct session_stat stat;
	uint64_t vma;
	uint32_t id = 0;

	file_fill(A, 5, 'a');
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	m.vma = map_all(&c1, A, SESSION_MAP_WRITE);
	cr_assert_eq(raw_start(&c2, &rf, B, true), 0);
	vma = map_all(&c2, B, SESSION_MAP_WRITE);
	cr_assert_eq(raw_fault(&c2, vma, 1, 1, WRITE, NULL), 0);
	rwsem_down_write(&A->mapping.invalidate_lock, LOCK_INVALIDATE);
	for (unsigned int i = 0; i < NR_SLEEPERS; i++) {
		m.index = i % 10;
		id = raw_send(&c1, &m, sizeof(m));
	}
	do {
		session_server_stat(rf.srv, &stat);
		usleep(1000);
	} while (stat.nr_sleeping < NR_SLEEPERS);
	/* Answers to recalls, faults and lists of others go on. */
	truncate_begin(B);
	while (!atomic_load(&truncate_job.done))
		cr_assert_eq(raw_serve(&c2, 1), 0);
	cr_expect_eq(job_end(&truncate_job), 0);
	cr_expect_eq(raw_holds(&c2, 0, 0, &h), 0);
	rwsem_up_write(&A->mapping.invalidate_lock);
	/* Any of them may be the last to be answered. */
	while (id > 3)
		if (raw_reply(&c1, id, &f, sizeof(f)) == 0)
			break;
	do
		session_server_stat(rf.srv, &stat);
	while (stat.nr_sleeping > 0);
	cr_expect_eq(raw_fault(&c1, m.vma, 5, 1, WRITE, &f), 0);
}

static int job_raw_fault(struct job *job)
{
	return raw_fault(&c1, job->index2, job->index, 1,
			 job->write ? WRITE : 0, NULL);
}

static int job_fsync(struct job *job)
{
	return file_fsync(job->file);
}

Test(session, copy_on_write_recalls_what_others_read)
{
	uint32_t old = file_fill(A, 5, 's');
	struct job job = { .index = 5, .write = true };
	struct session_fault_reply f;
	uint64_t vma2;

	file_share_raw(A, 5, B, 5);
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	cr_assert_eq(raw_start(&c2, &rf, A, true), 0);
	job.index2 = map_all(&c1, A, SESSION_MAP_WRITE);
	vma2 = map_all(&c2, A, 0);
	cr_assert_eq(raw_fault(&c1, job.index2, 5, 1, 0, NULL), 0);
	cr_assert_eq(raw_fault(&c2, vma2, 5, 1, 0, &f), 0);
	cr_expect_eq(f.seg[0].off, (uint64_t)old << BLOCK_SHIFT);
	job_start(&job, job_raw_fault);
	while (!atomic_load(&job.done))
		cr_assert_eq(raw_serve(&c2, 1), 0);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_eq(c1.nr_recalls, 1);
	cr_expect_eq(c2.nr_recalls, 1);
	cr_expect_neq(file_pfn(A, 5), old);
	cr_assert_eq(raw_fault(&c2, vma2, 5, 1, 0, &f), 0);
	cr_expect_eq(f.seg[0].off, (uint64_t)file_pfn(A, 5) << BLOCK_SHIFT);
}

Test(session, fsync_takes_stores_away_and_the_next_one_faults)
{
	struct job job = { .file = A };
	struct session_fault_reply f;
	uint64_t vma;

	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	vma = map_all(&c1, A, SESSION_MAP_WRITE);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, WRITE, NULL), 0);
	job_start(&job, job_fsync);
	while (!atomic_load(&job.done))
		cr_assert_eq(raw_serve(&c1, 1), 0);
	cr_expect_eq(job_end(&job), 0);
	cr_expect_eq(c1.recalls[0].kind, SESSION_RECALL_WRPROTECT);
	cr_expect_not(file_marked(A, 5, DAX_MARK_DIRTY));
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, 0, &f), 0);
	cr_expect_eq(f.seg[0].flags, 0);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, WRITE, &f), 0);
	cr_expect_eq(f.seg[0].flags, SESSION_SEG_WRITE);
	cr_expect(file_marked(A, 5, DAX_MARK_DIRTY));
}

static int job_unmap(struct job *job)
{
	session_mapper.unmap(&job->file->mapping, job->index, 1);
	return 0;
}

static void unmap_begin(struct job *job)
{
	unsigned int nr = c1.nr_recalls;

	*job = (struct job){ .file = A, .index = 5 };
	job_start(job, job_unmap);
	while (c1.nr_recalls == nr)
		cr_assert_eq(raw_serve(&c1, 1), 0);
}

/*
 * Two take the same page back, and the second is answered first.  The answer
 * to the first says nothing of what was installed, and taken back, since.
 */
Test(session, answers_speak_for_what_was_there_before)
{
	struct job jobs[3];
	uint64_t vma;

	file_fill(A, 5, 'a');
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	vma = map_all(&c1, A, 0);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, 0, NULL), 0);
	c1.deaf = true;
	unmap_begin(&jobs[0]);
	unmap_begin(&jobs[1]);
	expect_counts(file_folio(A, 5), 1, 1);
	cr_expect_eq(raw_fault(&c1, vma, 5, 1, 0, NULL), -EAGAIN);
	raw_answer(&c1, c1.recalls[1].head.id);
	job_end(&jobs[1]);
	expect_counts(file_folio(A, 5), 0, 0);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, 0, NULL), 0);
	unmap_begin(&jobs[2]);
	raw_answer(&c1, c1.recalls[0].head.id);
	job_end(&jobs[0]);
	expect_counts(file_folio(A, 5), 1, 1);
	cr_expect_not(atomic_load(&jobs[2].done));
	raw_answer(&c1, c1.recalls[2].head.id);
	job_end(&jobs[2]);
	expect_counts(file_folio(A, 5), 0, 0);
}

/* Shapes of answers. */

Test(session, order_9_where_everything_agrees)
{
	struct memfile *huge = file_create(fs, 2 * FOLIO_PAGES);
	struct session_fault_reply f;
	uint64_t vma, odd;
	uint32_t pfn;

	fs->huge = true;
	pfn = file_fill_huge(huge, 0, 'h');
	rawfs_adopt(&rf);
	cr_assert_eq(raw_start(&c1, &rf, huge, true), 0);
	vma = map_all(&c1, huge, SESSION_MAP_WRITE);
	cr_assert_eq(raw_fault(&c1, vma, 77, 1, WRITE | AROUND, &f), 0);
	cr_expect_eq(f.nr_segs, 1);
	cr_expect_eq(f.seg[0].index, 0);
	cr_expect_eq(f.seg[0].nr, FOLIO_PAGES);
	cr_expect_eq(f.seg[0].off, (uint64_t)pfn << BLOCK_SHIFT);
	expect_counts(file_folio(huge, 0), 1, 1);
	/* Of a translation that was cut, the rest is still in use. */
	cr_expect_eq(raw_range(&c1, SESSION_UNMAP, vma, 0, 100, 0), 0);
	expect_counts(file_folio(huge, 0), 1, 1);
	cr_expect_eq(raw_range(&c1, SESSION_UNMAP, vma, 0, FOLIO_PAGES, 0), 0);
	expect_counts(file_folio(huge, 0), 0, 0);
	/* At an address of another colour, single pages. */
	cr_assert_eq(
		raw_map(&c1, ADDR + BLOCK_SIZE, 0, 2 * FOLIO_PAGES, 0, &odd),
		0);
	cr_assert_eq(raw_fault(&c1, odd, 77, 100, AROUND, &f), 0);
	cr_expect_eq(f.nr_segs, 1);
	cr_expect_eq(f.seg[0].index, 77);
	cr_expect_eq(f.seg[0].nr, 100);
	cr_expect_eq(f.seg[0].off, (uint64_t)(pfn + 77) << BLOCK_SHIFT);
	expect_counts(file_folio(huge, 0), 100, 100);
	/* And a new block of 2 MiB by a store. */
	cr_assert_eq(raw_fault(&c1, vma, 600, 1, WRITE, &f), 0);
	cr_expect_eq(f.seg[0].index, FOLIO_PAGES);
	cr_expect_eq(f.seg[0].nr, FOLIO_PAGES);
}

Test(session, around_takes_what_is_cheap)
{
	struct session_fault_reply f;
	uint64_t vma;

	for (uint64_t i = 2; i < 8; i++)
		if (i != 6)
			file_fill(A, i, 'a');
	file_share_raw(A, 4, B, 4);
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	vma = map_all(&c1, A, SESSION_MAP_WRITE);
	/* A store stops at the shared block, a load at the hole. */
	cr_assert_eq(raw_fault(&c1, vma, 2, 8, WRITE | AROUND, &f), 0);
	cr_expect_eq(f.nr_segs, 1);
	cr_expect_eq(f.seg[0].nr, 2);
	cr_assert_eq(raw_fault(&c1, vma, 3, 7, AROUND, &f), 0);
	cr_expect_eq(f.seg[0].index, 3);
	cr_expect_eq(f.seg[0].nr, 1);
	cr_expect_eq(f.seg[0].flags, SESSION_SEG_WRITE);
	cr_expect_eq(f.nr_segs, 2);
	cr_expect_eq(f.seg[1].index, 4);
	cr_expect_eq(f.seg[1].nr, 2);
	cr_expect_eq(f.seg[1].flags, 0);
	cr_expect_null(file_entry(A, 6));
}

static void unmap_now(struct address_space *mapping, uint64_t pos)
{
	rf.on_stored = NULL;
	session_mapper.unmap(mapping, pos >> BLOCK_SHIFT, 1);
}

/* Taken back before it was said: it is not said. */
Test(session, answer_leaves_out_what_was_taken_back)
{
	struct session_fault_reply f;
	uint64_t vma;

	file_fill(A, 5, 'a');
	file_fill(A, 6, 'a');
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	vma = map_all(&c1, A, SESSION_MAP_WRITE);
	rf.on_stored = unmap_now;
	cr_expect_eq(raw_fault(&c1, vma, 5, 2, WRITE | AROUND, &f), -EAGAIN);
	cr_expect_eq(c1.nr_recalls, 1);
	expect_counts(file_folio(A, 5), 0, 0);
	cr_expect_eq(raw_fault(&c1, vma, 5, 2, WRITE | AROUND, &f), 0);
	cr_expect_eq(f.seg[0].nr, 2);
}

Test(session, synchronous_fault_writes_metadata_first)
{
	struct session_fault_reply f;
	uint64_t vma;
	int ret;

	fs->metadata_dirty = true;
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	ret = raw_map(&c1, ADDR, 0, 10, SESSION_MAP_WRITE | SESSION_MAP_SYNC,
		      &vma);
	if (!dax_device_synchronous(fs->dev)) {
		cr_expect_eq(ret, -EOPNOTSUPP);
		return;
	}
	cr_assert_eq(ret, 0);
	cr_expect_eq(raw_fault(&c1, vma, 5, 1, WRITE, &f), 0);
	cr_expect_eq(f.seg[0].flags, SESSION_SEG_WRITE);
	fs->fail_fsync = -EIO;
	cr_expect_lt(raw_fault(&c1, vma, 6, 1, WRITE, &f), 0);
}

/* Pins. */

Test(session, pin_is_undone_whole_when_a_page_cannot_be_had)
{
	uint64_t vma, pin;

	file_fill(A, 8, 'a');
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	cr_assert_eq(raw_map(&c1, ADDR, 0, 20, SESSION_MAP_WRITE, &vma), 0);
	cr_expect_eq(raw_pin(&c1, vma, 8, 4, WRITE, &pin), -EFAULT);
	expect_counts(file_folio(A, 8), 1, 1);
	cr_expect_eq(raw_pin(&c1, vma, 8, 1, SESSION_RANGE_LONGTERM, &pin),
		     -EOPNOTSUPP);
	atomic_store(&fs->dev->allow_longterm, true);
	cr_expect_eq(raw_pin(&c1, vma, 8, 1, SESSION_RANGE_LONGTERM, &pin), 0);
	expect_counts(file_folio(A, 8), 2, 1);
	/* It outlives its vma. */
	cr_expect_eq(raw_range(&c1, SESSION_UNMAP, vma, 0, 20, 0), 0);
	expect_counts(file_folio(A, 8), 1, 0);
	cr_expect_eq(raw_finish(&c1, SESSION_UNPIN, pin), 0);
	expect_counts(file_folio(A, 8), 0, 0);
}

/* Tokens, and who may. */

Test(session, token_is_for_one_open_and_for_a_while)
{
	uint8_t t[SESSION_TOKEN_SIZE] = { 1, 2, 3 };
	struct session_stat stat;

	cr_assert_eq(raw_connect(&c1, session_server_path(rf.srv)), 0);
	cr_expect_eq(raw_open(&c1, t), -EPROTO); /* no HELLO */
	cr_assert_eq(raw_hello(&c1), 0);
	cr_expect_eq(raw_hello(&c1), -EPROTO);
	cr_expect_eq(raw_open(&c1, t), -EACCES);
	cr_assert_eq(session_token(rf.srv, &A->mapping, true, t), 0);
	cr_expect_eq(raw_open(&c1, t), 0);
	cr_expect_eq(raw_open(&c1, t), -EACCES);
	cr_expect_eq(atomic_load(&rf.nr_gets), 1);
	cr_assert_eq(session_token(rf.srv, &A->mapping, true, t), 0);
	cr_expect_eq(atomic_load(&rf.nr_gets), 2);
	/* Nobody asks: it goes by itself. */
	do
		session_server_stat(rf.srv, &stat);
	while (stat.nr_tokens > 0);
	until(atomic_load(&rf.nr_gets) == 1);
	cr_expect_eq(raw_open(&c1, t), -EACCES);
	cr_expect_eq(raw_finish(&c1, SESSION_CLOSE, c1.handle), 0);
	cr_expect_eq(raw_finish(&c1, SESSION_CLOSE, c1.handle), -EBADF);
	cr_expect_eq(atomic_load(&rf.nr_gets), 0);
}

Test(session, who_may_not_is_told_and_sent_away)
{
	struct session_reply r;

	rf.allow = -EACCES;
	cr_assert_eq(raw_connect(&c1, session_server_path(rf.srv)), 0);
	cr_expect_eq(raw_hello(&c1), -EACCES);
	cr_expect_eq(raw_reply(&c1, 0, &r, sizeof(r)), -EPIPE);
}

static struct session_mailbox *map_mail(struct raw *r)
{
	void *mail = mmap(NULL, BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			  r->mail_fd, 0);

	cr_assert_neq(mail, MAP_FAILED);
	return mail;
}

Test(session, mailbox_tells_the_size)
{
	struct session_mailbox *mail;

	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	mail = map_mail(&c1);
	cr_expect(mail[c1.handle].flags & SESSION_MAIL_SIZE);
	cr_expect_eq(mail[c1.handle].size, c1.size);
	session_set_size(&A->mapping, 4711);
	cr_expect_eq(mail[c1.handle].size, 4711);
	session_set_size(&B->mapping, 5);
	cr_expect_eq(mail[c1.handle].size, 4711);
	cr_expect_eq(raw_finish(&c1, SESSION_CLOSE, c1.handle), 0);
	cr_expect_eq(mail[c1.handle].flags, 0);
	munmap(mail, BLOCK_SIZE);
}

/* From the first mapping whose stores nobody flushes to a sync without one. */
Test(session, mailbox_says_what_is_clean)
{
	const uint32_t flushed = SESSION_MAP_WRITE | SESSION_MAP_FLUSHED;
	struct session_mailbox *mail;
	uint64_t loose, nr;

	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	mail = &map_mail(&c1)[c1.handle];
	map_all(&c1, A, flushed);
	map_all(&c1, A, 0);
	cr_expect(mail->flags & SESSION_MAIL_CLEAN);
	loose = map_all(&c1, A, SESSION_MAP_WRITE);
	cr_expect_eq(mail->flags & SESSION_MAIL_CLEAN, 0);
	cr_expect_eq(session_clean_begin(&A->mapping, &nr), false);
	cr_expect_eq(raw_range(&c1, SESSION_UNMAP, loose, 0, 10, 0), 0);
	cr_expect_eq(mail->flags & SESSION_MAIL_CLEAN, 0);
	cr_expect(session_clean_begin(&A->mapping, &nr));
	loose = map_all(&c1, A, SESSION_MAP_WRITE);
	cr_expect_eq(raw_range(&c1, SESSION_UNMAP, loose, 0, 10, 0), 0);
	session_clean_end(&A->mapping, nr);
	cr_expect_eq(mail->flags & SESSION_MAIL_CLEAN, 0);
	cr_expect(session_clean_begin(&A->mapping, &nr));
	session_clean_end(&A->mapping, nr);
	cr_expect(mail->flags & SESSION_MAIL_CLEAN);
}

Test(session, mailbox_tells_of_stores)
{
	_Atomic(uint64_t) *nr;
	uint64_t vma;
	struct session_mailbox *mail;

	cr_expect_not(session_has_writers(&A->mapping));
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	cr_expect(session_has_writers(&A->mapping));
	mail = mmap(NULL, BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		    c1.mail_fd, 0);
	cr_assert_neq(mail, MAP_FAILED);
	nr = &mail[c1.handle].nr_stores;
	cr_expect_not(session_stores(&A->mapping));
	atomic_fetch_add(nr, 1);
	cr_expect(session_stores(&A->mapping));
	cr_expect_not(session_stores(&A->mapping));
	vma = map_all(&c1, A, 0);
	cr_expect_eq(raw_range(&c1, SESSION_SYNC, vma, 0, 1, 0), 0);
	cr_expect_eq(atomic_load(&rf.nr_stored), 0); /* it cannot store */
	atomic_fetch_add(nr, 1);
	cr_expect_eq(raw_finish(&c1, SESSION_CLOSE, c1.handle), 0);
	cr_expect_eq(atomic_load(&rf.nr_stored), 1);
	cr_expect_not(session_has_writers(&A->mapping));
	cr_expect_eq(ftruncate(c1.mail_fd, 0), -1); /* sealed */
	munmap(mail, BLOCK_SIZE);
}

/* Lists. */

Test(session, waits_come_in_pages)
{
	struct session_waits_reply w;

	rf.nr_waits = 40;
	cr_assert_eq(raw_start(&c1, &rf, A, false), 0);
	cr_assert_eq(raw_list_waits(&c1, 0, &w), 0);
	cr_expect_eq(w.nr, 32);
	cr_assert_eq(raw_list_waits(&c1, w.cursor, &w), 0);
	cr_expect_eq(w.nr, 8);
	cr_expect_eq(w.wait[7].unique, 40);
	cr_expect_eq(w.cursor, 0);
}

Test(session, holds_come_in_pages_and_merged)
{
	struct memfile *big = file_create(fs, 200);
	struct session_holds_reply h;
	uint64_t vma, nr = 0;

	for (uint64_t i = 0; i < 200; i++)
		if (i % 4 != 3)
			file_fill(big, i, 'a');
	rawfs_adopt(&rf);
	cr_assert_eq(raw_start(&c1, &rf, big, false), 0);
	vma = map_all(&c1, big, 0);
	for (uint64_t i = 0; i < 200; i++)
		if (i % 4 != 3)
			cr_assert_eq(raw_fault(&c1, vma, i, 1, 0, NULL), 0);
	h.cursor = 0;
	do {
		cr_assert_eq(raw_holds(&c1, big->mapping.ino, h.cursor, &h), 0);
		for (uint32_t i = 0; i < h.nr; i++) {
			cr_expect_eq(h.hold[i].index, 4 * nr);
			cr_expect_eq(h.hold[i].nr, 3);
			nr++;
		}
	} while (h.cursor);
	cr_expect_eq(nr, 50);
	cr_assert_eq(raw_holds(&c1, A->mapping.ino, 0, &h), 0);
	cr_expect_eq(h.nr, 0);
}

/* Somebody else, who is not root: sees nothing of ours. */
Test(session, others_see_only_what_is_theirs)
{
	struct session_holds_reply h;
	uint64_t vma;
	int status;
	pid_t pid;

	if (geteuid() != 0)
		cr_skip("only root has others");
	file_fill(A, 5, 'a');
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	vma = map_all(&c1, A, 0);
	cr_assert_eq(raw_fault(&c1, vma, 5, 1, 0, NULL), 0);
	cr_assert_eq(raw_holds(&c1, 0, 0, &h), 0);
	cr_expect_eq(h.nr, 1);
	pid = fork();
	if (pid == 0) {
		if (setgid(65534) || setuid(65534))
			_exit(3);
		if (raw_connect(&c2, session_server_path(rf.srv)) ||
		    raw_hello(&c2) || raw_holds(&c2, 0, 0, &h))
			_exit(2);
		_exit(h.nr != 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);
}

/* Limits. */

static void limited(void)
{
	const struct session_limits few = {
		.max_clients = 8,
		.max_handles = 4,
		.max_vmas = 5,
		.max_pins = 3,
		.max_pinned = 16,
		.max_tables = 6,
		.max_busy = 4,
		.max_sleeps = 8,
	};

	start(&few, 200);
}

TestSuite(session_limits, .init = limited, .fini = teardown, .timeout = 60);

Test(session_limits, refusals_are_clear)
{
	uint8_t t[SESSION_TOKEN_SIZE];
	uint64_t vma, other, pin, none;

	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	for (unsigned int i = 1; i < 4; i++) {
		cr_assert_eq(session_token(rf.srv, &A->mapping, true, t), 0);
		cr_expect_eq(raw_open(&c1, t), 0);
	}
	cr_assert_eq(session_token(rf.srv, &A->mapping, true, t), 0);
	cr_expect_eq(raw_open(&c1, t), -EMFILE);
	vma = map_all(&c1, A, SESSION_MAP_WRITE);
	for (unsigned int i = 1; i < 5; i++)
		map_all(&c1, A, 0);
	cr_expect_eq(raw_map(&c1, ADDR, 0, 1, 0, &other), -ENOSPC);
	cr_expect_eq(raw_pin(&c1, vma, 0, 9, WRITE, &pin), 0);
	cr_expect_eq(raw_pin(&c1, vma, 0, 9, WRITE, &none), -EDQUOT);
	cr_expect_eq(raw_pin(&c1, vma, 0, 1, WRITE, &pin), 0);
	cr_expect_eq(raw_pin(&c1, vma, 0, 1, WRITE, &pin), 0);
	cr_expect_eq(raw_pin(&c1, vma, 0, 1, WRITE, &none), -EMFILE);
	cr_expect_eq(raw_finish(&c1, SESSION_UNPIN, pin), 0);
	cr_expect_eq(raw_pin(&c1, vma, 0, 1, WRITE, &pin), 0);
}

Test(session_limits, tables_end_and_come_back)
{
	struct memfile *big = file_create(fs, FILE_PAGES);
	uint64_t vma;

	rawfs_adopt(&rf);
	cr_assert_eq(raw_start(&c1, &rf, big, true), 0);
	/* Three levels: 1 << 20 pages, of which the file has a few. */
	cr_assert_eq(raw_map(&c1, ADDR + BLOCK_SIZE, 0, 1 << 20, 0, &vma), 0);
	for (uint64_t i = 0; i < 4; i++)
		cr_assert_eq(raw_fault(&c1, vma, i * 512, 1, 0, NULL), 0);
	cr_expect_eq(raw_range(&c1, SESSION_UNMAP, vma, 0, 512, 0), 0);
	cr_assert_eq(raw_map(&c1, ADDR + BLOCK_SIZE, 0, 100, 0, &vma), 0);
	cr_expect_eq(raw_fault(&c1, vma, 0, 1, 0, NULL), 0);
	cr_assert_eq(raw_map(&c1, ADDR + BLOCK_SIZE, 0, 100, 0, &vma), 0);
	cr_expect_eq(raw_fault(&c1, vma, 0, 1, 0, NULL), -ENOMEM);
}

Test(session_limits, too_many_requests_are_asked_to_come_again)
{
	struct session_range m = { .head.op = SESSION_FAULT, .nr = 1 };
	struct session_reply r = { .error = 0 };
	struct session_stat stat;
	uint32_t id = 0;

	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	m.vma = map_all(&c1, A, SESSION_MAP_WRITE);
	rwsem_down_write(&A->mapping.invalidate_lock, LOCK_INVALIDATE);
	for (unsigned int i = 0; i < 5; i++)
		id = raw_send(&c1, &m, sizeof(m));
	cr_expect_eq(raw_reply(&c1, id, &r, sizeof(r)), -EAGAIN);
	session_server_stat(rf.srv, &stat);
	cr_expect_eq(stat.nr_sleeping, 4);
	rwsem_up_write(&A->mapping.invalidate_lock);
}

/* Eight, and a quarter of them may have said nothing. */
Test(session_limits, connections_beyond_the_limit_are_refused)
{
	static struct raw many[40];
	struct session_holds_reply h;
	unsigned int nr = 0;

	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	for (unsigned int i = 0; i < 40; i++)
		cr_assert_eq(raw_connect(&many[i], session_server_path(rf.srv)),
			     0);
	cr_expect_eq(raw_holds(&c1, 0, 0, &h), 0);
	/* Whoever came last is heard. */
	cr_expect_eq(raw_hello(&many[39]), 0);
	for (unsigned int i = 0; i < 39; i++)
		raw_end(&many[i]);
	for (unsigned int i = 0; i < 20; i++) {
		cr_assert_eq(raw_connect(&many[i], session_server_path(rf.srv)),
			     0);
		nr += raw_hello(&many[i]) == 0;
	}
	cr_expect_leq(nr, 6);
	cr_expect_geq(nr, 4);
	cr_expect_eq(raw_holds(&c1, 0, 0, &h), 0);
	for (unsigned int i = 0; i < 40; i++)
		raw_end(&many[i]);
}

/* Bad clients. */

/* The session of @r ends, and those of others do not. */
static void expect_ended(struct raw *r)
{
	struct session_holds_reply h;

	cr_expect_eq(raw_serve(r, 2000), -EPIPE);
	raw_end(r);
	cr_expect_eq(raw_holds(&c2, 0, 0, &h), 0);
}

Test(session, what_is_no_message_ends_the_session)
{
	static unsigned char bytes[8192];
	const size_t sizes[] = { 1, 4, 7, 9, 17, 48, 128, 129, 8192 };
	struct session_head head = { .op = SESSION_REPLY };

	cr_assert_eq(raw_start(&c2, &rf, A, true), 0);
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
		bytes[0] = SESSION_HELLO;
		cr_expect_eq(send(c1.fd, bytes, sizes[i], 0),
			     (ssize_t)sizes[i]);
		expect_ended(&c1);
	}
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	raw_send(&c1, &head, sizeof(head));
	expect_ended(&c1);
	/* An answer to what was not asked. */
	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	head.op = SESSION_RECALLED;
	raw_send(&c1, &head, sizeof(head));
	expect_ended(&c1);
}

Test(session, who_asks_and_does_not_read_is_sent_away)
{
	struct session_list m = { .head.op = SESSION_HOLDS };
	struct session_holds_reply h;
	ssize_t n = 0;

	cr_assert_eq(raw_start(&c1, &rf, A, true), 0);
	cr_assert_eq(raw_start(&c2, &rf, A, true), 0);
	for (unsigned int i = 0; n >= 0 && i < 100000; i++)
		n = send(c1.fd, &m, sizeof(m), MSG_NOSIGNAL);
	cr_expect_lt(n, 0);
	cr_expect_eq(raw_holds(&c2, 0, 0, &h), 0);
}

/* Fuzz: a fixed seed, so that what fails fails again. */

static uint64_t seed = 20260101;

static uint64_t rnd(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % n;
}

/* Mostly small, sometimes at an edge. */
static uint64_t rnd_number(void)
{
	const uint64_t edges[] = { 0,
				   UINT64_MAX,
				   UINT64_MAX - 1,
				   UINT64_C(1) << 36,
				   (UINT64_C(1) << 36) - 1,
				   UINT64_C(1) << 52,
				   UINT64_C(1) << 63,
				   ADDR };

	return rnd(8) ? rnd(14) : edges[rnd(8)];
}

union fuzz {
	struct session_head head;
	struct session_open open;
	struct session_map map;
	struct session_range range;
	struct session_list list;
	uint64_t words[8];
	unsigned char bytes[64];
};

static size_t fuzz_size(uint32_t op)
{
	switch (op) {
	case SESSION_HELLO:
		return sizeof(struct session_hello);
	case SESSION_OPEN:
		return sizeof(struct session_open);
	case SESSION_CLOSE:
	case SESSION_UNPIN:
		return sizeof(struct session_end);
	case SESSION_MAP:
		return sizeof(struct session_map);
	case SESSION_HOLDS:
	case SESSION_WAITS:
		return sizeof(struct session_list);
	case SESSION_RECALLED:
		return sizeof(struct session_recalled);
	default:
		return sizeof(struct session_range);
	}
}

/* The fuzzer is a process of its own, and asks the daemon for tokens. */
static struct {
	int ask, answer;
} token_pipe;

static void fuzz_token(uint8_t ret[SESSION_TOKEN_SIZE])
{
	char which = (char)rnd(2);

	if (write(token_pipe.ask, &which, 1) != 1 ||
	    read(token_pipe.answer, ret, SESSION_TOKEN_SIZE) !=
		    SESSION_TOKEN_SIZE)
		_exit(2);
}

/* A message with sensible and senseless fields; its size. */
static size_t fuzz_message(union fuzz *m)
{
	size_t size;

	m->head.op =
		rnd(60) ? (uint32_t)rnd(SESSION_WAITS) + 1 : (uint32_t)rnd(80);
	m->head.id = (uint32_t)rnd(100);
	for (unsigned int i = 1; i < 8; i++)
		m->words[i] = rnd_number();
	size = fuzz_size(m->head.op);
	if (m->head.op == SESSION_MAP && rnd(4)) {
		m->map.addr = ADDR + rnd(3) * BLOCK_SIZE;
		m->map.handle = rnd(2);
		m->map.flags = (uint32_t)rnd(4);
		m->map.reserved = 0;
	} else if (m->head.op == SESSION_OPEN && rnd(4) == 0) {
		fuzz_token(m->open.token);
	} else if (size == sizeof(m->range) && rnd(8)) {
		m->range.vma = rnd(4) + 1;
		m->range.index = rnd(10);
		m->range.nr = rnd(4) + 1;
		m->range.flags = (uint32_t)rnd(8);
		m->range.reserved = 0;
	}
	if (rnd(1000) == 0)
		m->bytes[rnd(size)] ^= (unsigned char)(1u << rnd(8));
	return rnd(1000) ? size : rnd(sizeof(*m)) + 1;
}

/* Mostly with a file and some vmas, so that messages make sense. */
static int fuzz_connect(struct raw *r)
{
	uint8_t t[SESSION_TOKEN_SIZE];
	uint64_t vma;
	int ret;

	raw_end(r);
	ret = raw_connect(r, session_server_path(rf.srv));
	if (ret || rnd(20) == 0)
		return ret;
	fuzz_token(t);
	ret = raw_hello(r);
	if (!ret)
		ret = raw_open(r, t);
	for (unsigned int i = 0; ret == 0 && i < 4; i++)
		ret = raw_map(r, ADDR + rnd(2) * BLOCK_SIZE, 0, 5 + rnd(10),
			      SESSION_MAP_WRITE, &vma);
	return ret == -EACCES ? 0 : ret; /* a file to read from */
}

/* Whatever the server says; recalls are sometimes left alone. */
static int fuzz_read(struct raw *r)
{
	r->deaf = rnd(50) == 0;
	return raw_serve(r, 0);
}

static struct {
	_Atomic(bool) stop;
	pthread_t thread;
} breaker;

/* Layout changes meanwhile; whoever pins is not waited for. */
static void *break_main(void *arg)
{
	uint64_t i = 0;

	(void)arg;
	while (!atomic_load(&breaker.stop)) {
		struct memfile *file = i % 2 ? A : B;

		switch (i++ % 3) {
		case 0:
			file_punch(file, i % 10, 1, false, NULL);
			break;
		case 1:
			file_reflink(A, B, false, NULL);
			break;
		default:
			file_fsync(file);
			break;
		}
		usleep(500);
	}
	return NULL;
}

static void fuzz_main(void)
{
	struct raw *clients[] = { &c1, &c2 };
	union fuzz m;
	size_t size;

	munmap((void *)(uintptr_t)fs->pm->base, fs->pm->size);
	for (unsigned int i = 0; i < 40000; i++) {
		struct raw *r = clients[rnd(2)];

		size = fuzz_message(&m);
		if ((send(r->fd, &m, size, MSG_NOSIGNAL) < 0 || fuzz_read(r) ||
		     rnd(1000) == 0) &&
		    fuzz_connect(r))
			_exit(1);
	}
	_exit(0);
}

/* Tokens for the fuzzer until it ends. */
static void serve_tokens(int ask, int answer)
{
	uint8_t t[SESSION_TOKEN_SIZE];
	char which;

	while (read(ask, &which, 1) == 1) {
		cr_assert_eq(session_token(rf.srv,
					   which ? &A->mapping : &B->mapping,
					   rnd(4), t),
			     0);
		cr_assert_eq(write(answer, t, sizeof(t)), sizeof(t));
	}
}

Test(session_late, fuzz)
{
	struct session_stat stat;
	int ask[2], answer[2], status;
	pid_t pid;

	session_set_recall_ms(rf.srv, 2);
	cr_assert_eq(pipe(ask), 0);
	cr_assert_eq(pipe(answer), 0);
	pid = fork();
	if (pid == 0) {
		close(ask[0]);
		token_pipe.ask = ask[1];
		token_pipe.answer = answer[0];
		fuzz_main();
	}
	close(ask[1]);
	cr_assert_eq(pthread_create(&breaker.thread, NULL, break_main, NULL),
		     0);
	serve_tokens(ask[0], answer[1]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);
	atomic_store(&breaker.stop, true);
	pthread_join(breaker.thread, NULL);
	/* It got somewhere, and nothing is left. */
	session_server_stat(rf.srv, &stat);
	cr_expect_gt(stat.nr_faults, 50);
	cr_expect_gt(stat.nr_recalls, 20);
	cr_expect_gt(stat.nr_late, 0);
	until(nr_clients() == 0);
}
