/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/waits.c - what waits for a pinned page, and what does not
 *
 * Another process, the pinner, maps a file with the client library and pins a
 * page of it.  Operations run in a third process, so that they can wait, and
 * this one looks on: the daemon says how many requests wait.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dax/lib/foliofs.h"
#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"
#include "tests/support/share.h"

#define PAGE  4096
#define PAGES 64
#define LEN   ((size_t)PAGES * PAGE)
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define RW    (PROT_READ | PROT_WRITE)

/* --- the pinner ----------------------------------------------------------- */

struct pinner {
	pid_t pid;
	int to, from; /* one byte each way for each command */
};

#define NO_FOLIOFS_MAP 77 /* this machine cannot map */

static struct foliofs_file *attach(const char *path)
{
	struct foliofs_file *file;
	int fd = open_ok(path, O_RDWR);
	int ret = foliofs_attach(fd, 0, &file);

	if (ret == -EPERM || ret == -ENOSYS)
		_exit(NO_FOLIOFS_MAP);
	CHECK(!ret, "attach %s: %s", path, mtest_errname(-ret));
	close_ok(fd);
	return file;
}

static unsigned char *map_file(struct foliofs_file *file)
{
	void *p = NULL;

	EQ(foliofs_map(file, LEN, RW, 0, 0, &p), 0);
	return p;
}

static struct foliofs_pin *pin_page(unsigned char *map, size_t index,
				    unsigned int flags)
{
	struct foliofs_pin *pin = NULL;

	/* A pin is of a page that is mapped. */
	EQ(foliofs_advise(map, LEN,
			  flags ? FOLIOFS_WILLNEED_WRITE : FOLIOFS_WILLNEED),
	   0);
	EQ(foliofs_pin(map + index * PAGE, PAGE, flags, &pin), 0);
	return pin;
}

/*
 *	u	unpin		x	exit
 *	s, t	store to page 7, through the mapping
 *	l	load from page 7
 *	m	unmap and detach; the pin stays
 *	w	fault another page in, while somebody may be waiting
 */
static void serve_pinner(const char *path, size_t index, unsigned int flags,
			 int in, int out)
{
	struct foliofs_file *file = attach(path);
	unsigned char *map = map_file(file);
	struct foliofs_pin *pin = pin_page(map, index, flags);
	char c = 'r';

	OK(chdir("/")); /* or it keeps the mount */
	do {
		if (c == 'u')
			EQ(foliofs_unpin(pin), 0);
		if (c == 's' || c == 't')
			memset(map + 7 * PAGE, c, PAGE);
		if (c == 'l')
			(void)((volatile unsigned char *)map)[7 * PAGE];
		if (c == 'w')
			((volatile unsigned char *)map)[9 * PAGE] = 'w';
		if (c == 'm') {
			EQ(foliofs_unmap(map, LEN), 0);
			foliofs_detach(file);
		}
		if (c == 'x')
			_exit(0);
		EQ(write(out, &c, 1), 1);
	} while (read(in, &c, 1) == 1);
	_exit(0);
}

static void wait_byte(struct pinner *p)
{
	struct pollfd pfd = { .fd = p->from, .events = POLLIN };
	int status;
	char c;

	OK(poll(&pfd, 1, (int)sandbox_secs(10) * 1000));
	CHECK(pfd.revents, "the pinner does not answer");
	if (read(p->from, &c, 1) == 1)
		return;
	OK(waitpid(p->pid, &status, 0));
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_FOLIOFS_MAP)
		SKIP("no userfaultfd here");
	FAIL("the pinner ended with %#x", status);
}

static void tell(struct pinner *p, char c)
{
	EQ(write(p->to, &c, 1), 1);
	if (c != 'x')
		wait_byte(p);
}

/* Files of the test that a child has open would be open. */
static void close_others(int a, int b)
{
	for (int fd = 3; fd < 1024; fd++)
		if (fd != a && fd != b)
			close(fd);
}

static struct pinner pin_flags(const char *path, size_t index,
			       unsigned int flags)
{
	struct pinner p;
	int to[2], from[2];

	OK(pipe2(to, O_CLOEXEC));
	OK(pipe2(from, O_CLOEXEC));
	fflush(stdout);
	p.pid = (pid_t)OK(fork());
	if (p.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close_others(to[0], from[1]);
		serve_pinner(path, index, flags, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	p.to = to[1];
	p.from = from[0];
	wait_byte(&p);
	return p;
}

static struct pinner pin(const char *path, size_t index)
{
	return pin_flags(path, index, FOLIOFS_PIN_WRITE);
}

static void reap(struct pinner *p)
{
	OK(waitpid(p->pid, NULL, 0));
	close(p->to);
	close(p->from);
}

static void kill_pinner(struct pinner *p)
{
	OK(kill(p->pid, SIGKILL));
	reap(p);
}

static void unpin_and_end(struct pinner *p)
{
	tell(p, 'u');
	tell(p, 'x');
	reap(p);
}

/* --- operations in a process of their own --------------------------------- */

typedef int (*op_fn)(int fd, int other); /* as a system call */

struct doer {
	pid_t pid;
	volatile int *err; /* shared: -1 while it runs, then an errno */
};

static void on_signal(int sig)
{
	(void)sig;
}

static struct doer start(op_fn op, int fd, int other)
{
	const struct sigaction sa = { .sa_handler = on_signal };
	struct doer d;

	d.err = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(d.err != MAP_FAILED, "mmap: %s", mtest_errname(errno));
	*d.err = -1;
	fflush(stdout);
	d.pid = (pid_t)OK(fork());
	if (d.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigaction(SIGUSR1, &sa, NULL);
		*d.err = op(fd, other) < 0 ? errno : 0;
		_exit(0);
	}
	return d;
}

static void nap(void)
{
	usleep(1000);
}

/* The daemon knows of @nr requests that wait. */
static void until_waiting(uint64_t nr)
{
	unsigned int limit = sandbox_secs(10) * 1000;

	for (unsigned int ms = 0; nr_waiting() != nr; ms++) {
		CHECK(ms < limit, "%llu requests wait, should be %llu",
		      (unsigned long long)nr_waiting(), (unsigned long long)nr);
		nap();
	}
}

static int end_of(struct doer *d)
{
	unsigned int limit = sandbox_secs(10) * 1000;
	int err;

	for (unsigned int ms = 0; *d->err == -1; ms++) {
		CHECK(ms < limit, "the operation does not end");
		nap();
	}
	OK(waitpid(d->pid, NULL, 0));
	err = *d->err;
	munmap((void *)(uintptr_t)d->err, PAGE);
	return err;
}

/* --- the table -------------------------------------------------------------
 */

static int op_down(int fd, int other)
{
	(void)other;
	return ftruncate(fd, 5 * PAGE);
}

static int op_up(int fd, int other)
{
	(void)other;
	return ftruncate(fd, (off_t)LEN + 100);
}

static int op_punch(int fd, int other)
{
	(void)other;
	return fallocate(fd, PUNCH, 20 * PAGE, PAGE);
}

static int op_zero(int fd, int other)
{
	(void)other;
	return fallocate(fd, FALLOC_FL_ZERO_RANGE, 20 * PAGE, PAGE);
}

static int op_allocate(int fd, int other)
{
	(void)other;
	return fallocate(fd, 0, (off_t)LEN, PAGE);
}

static int op_unshare(int fd, int other)
{
	(void)other;
	return unshare_range(fd, 0, PAGE);
}

static int op_clone_from(int fd, int other)
{
	return clone_file(fd, other);
}

static int op_clone_onto(int fd, int other)
{
	return clone_range(other, 0, fd, 30 * PAGE, PAGE);
}

static int op_copy_onto(int fd, int other)
{
	off_t in = 0, out = 30 * PAGE;

	return (int)copy_file_range(other, &in, fd, &out, PAGE, 0);
}

static int op_dedupe(int fd, int other)
{
	uint64_t len;

	return dedupe_range(other, 8 * PAGE, fd, 8 * PAGE, PAGE, &len);
}

static int op_open_trunc(int fd, int other)
{
	(void)fd;
	(void)other;
	return open("f", O_RDWR | O_TRUNC);
}

static const struct {
	const char *name;
	op_fn op;
} waiting[] = {
	{ "truncate down", op_down },	 { "truncate up", op_up },
	{ "punch", op_punch },		 { "zero", op_zero },
	{ "allocate", op_allocate },	 { "unshare", op_unshare },
	{ "clone from", op_clone_from }, { "clone onto", op_clone_onto },
	{ "copy onto", op_copy_onto },	 { "dedupe", op_dedupe },
	{ "O_TRUNC", op_open_trunc },
};

#define NR_WAITING (sizeof(waiting) / sizeof(waiting[0]))

/* f is pinned at page 8; g has the same contents. */
struct scene {
	int fd, other;
	struct pinner pinner;
};

static void set_scene(struct scene *s)
{
	s->fd = pattern_file("f", LEN, 1);
	s->other = pattern_file("g", LEN, 1);
	s->pinner = pin("f", 8);
}

static void clear_scene(struct scene *s)
{
	close_ok(s->fd);
	close_ok(s->other);
	OK(unlink("f"));
	OK(unlink("g"));
}

static void check_scene(const struct scene *s)
{
	EQ(fstat_of(s->fd).st_size, LEN);
	check_pattern(s->fd, 0, LEN, 1);
	EQ(fstat_of(s->other).st_size, LEN);
	check_pattern(s->other, 0, LEN, 1);
	EQ(shared_bytes(s->fd), 0);
}

static void waits_until(void (*release)(struct pinner *p))
{
	struct scene s;
	struct doer d;
	int err;

	for (size_t i = 0; i < NR_WAITING; i++) {
		set_scene(&s);
		d = start(waiting[i].op, s.fd, s.other);
		until_waiting(1);
		EQ(*d.err, -1);
		release(&s.pinner);
		err = end_of(&d);
		CHECK(!err, "%s: %s", waiting[i].name, mtest_errname(err));
		until_waiting(0);
		clear_scene(&s);
	}
}

static void exit_pinner(struct pinner *p)
{
	tell(p, 'x');
	reap(p);
}

#define DAX .needs = MNT_FOLIOFS, .opts = "dax=always", .timeout = 60

MTEST(waits, until_the_pin_goes, DAX)
{
	waits_until(unpin_and_end);
}

MTEST(waits, until_the_pinner_exits, DAX)
{
	waits_until(exit_pinner);
}

MTEST(waits, until_the_pinner_is_killed, DAX)
{
	waits_until(kill_pinner);
}

MTEST(waits, end_with_eintr_at_a_signal, DAX)
{
	struct scene s;
	struct doer d;
	int err;

	for (size_t i = 0; i < NR_WAITING; i++) {
		set_scene(&s);
		d = start(waiting[i].op, s.fd, s.other);
		until_waiting(1);
		OK(kill(d.pid, SIGUSR1));
		err = end_of(&d);
		CHECK(err == EINTR, "%s: %s, should be EINTR", waiting[i].name,
		      mtest_errname(err));
		check_scene(&s);
		unpin_and_end(&s.pinner);
		check_scene(&s);
		clear_scene(&s);
	}
}

/* H2: whoever has a page may need another one before he is done. */
MTEST(waits, do_not_stop_faults, DAX)
{
	struct scene s;
	struct doer d;

	set_scene(&s);
	d = start(op_punch, s.fd, s.other);
	until_waiting(1);
	tell(&s.pinner, 'w');
	EQ(*d.err, -1);
	unpin_and_end(&s.pinner);
	EQ(end_of(&d), 0);
	check_zero(s.fd, 20 * PAGE, PAGE);
	clear_scene(&s);
}

MTEST(waits, not_by_what_leaves_blocks_alone, DAX)
{
	unsigned char buf[PAGE];
	struct scene s;

	set_scene(&s);
	write_pattern(s.fd, 8 * PAGE, PAGE, 2);
	EQ(pread_ok(s.fd, buf, PAGE, 8 * PAGE), PAGE);
	OK(fsync(s.fd));
	OK(rename("f", "h"));
	OK(fchmod(s.fd, 0600));
	OK(unlink("h"));
	check_pattern(s.fd, 8 * PAGE, PAGE, 2);
	EQ(nr_waiting(), 0);
	unpin_and_end(&s.pinner);
	close_ok(s.fd);
	close_ok(s.other);
}

/* --- the last name ----------------------------------------------------------
 */

static int op_unlink(int fd, int other)
{
	(void)fd;
	(void)other;
	return unlink("f");
}

static int op_rename_over(int fd, int other)
{
	(void)fd;
	(void)other;
	return rename("g", "f");
}

/* Only the pin is left: nobody has f open, or mapped. */
static void set_pin_only(struct scene *s)
{
	set_scene(s);
	close_ok(s->fd);
	close_ok(s->other);
	tell(&s->pinner, 'm');
	/* The close arrives some time later. */
	usleep(100000);
}

static void last_name(op_fn op, bool interrupt)
{
	struct scene s;
	struct doer d;

	set_pin_only(&s);
	d = start(op, -1, -1);
	until_waiting(1);
	EQ(*d.err, -1);
	if (interrupt) {
		OK(kill(d.pid, SIGUSR1));
		EQ(end_of(&d), EINTR);
		CHECK(exists("f") && exists("g"), "a name is gone");
		d = start(op, -1, -1);
		until_waiting(1);
	}
	unpin_and_end(&s.pinner);
	EQ(end_of(&d), 0);
}

MTEST(last_name, waits_at_unlink, DAX)
{
	last_name(op_unlink, false);
	CHECK(!exists("f"), "f is there");
}

MTEST(last_name, waits_at_unlink_or_ends_with_eintr, DAX)
{
	last_name(op_unlink, true);
}

MTEST(last_name, waits_at_rename, DAX)
{
	last_name(op_rename_over, false);
	CHECK(!exists("g"), "g is there");
}

MTEST(last_name, waits_at_rename_or_ends_with_eintr, DAX)
{
	last_name(op_rename_over, true);
}

MTEST(last_name, of_two_does_not_wait, DAX)
{
	struct scene s;

	set_pin_only(&s);
	OK(link("f", "h"));
	OK(unlink("h"));
	OK(link("f", "h"));
	OK(rename("g", "h"));
	EQ(nr_waiting(), 0);
	unpin_and_end(&s.pinner);
}

/* --- many --------------------------------------------------------------------
 */

#define MANY 200

static int op_cut_one(int fd, int other)
{
	(void)other;
	return ftruncate(fd, 0);
}

/* A pin on each of many files, by one process. */
static struct pinner pin_many(unsigned int nr)
{
	struct pinner p;
	int to[2], from[2];
	char name[16], c = 'r';

	OK(pipe2(to, O_CLOEXEC));
	OK(pipe2(from, O_CLOEXEC));
	fflush(stdout);
	p.pid = (pid_t)OK(fork());
	if (p.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		close(from[0]);
		for (unsigned int i = 0; i < nr; i++) {
			snprintf(name, sizeof(name), "p%u", i);
			pin_page(map_file(attach(name)), 0, FOLIOFS_PIN_WRITE);
		}
		EQ(write(from[1], &c, 1), 1);
		(void)!read(to[0], &c, 1);
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	p.to = to[1];
	p.from = from[0];
	wait_byte(&p);
	return p;
}

/* Everything else goes on, and soon. */
static void others_go_on(void)
{
	char name[16];
	int fd;

	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "free/%d", i);
		fd = pattern_file(name, 10000, 3);
		check_pattern(fd, 0, 10000, 3);
		OK(ftruncate(fd, 10));
		close_ok(fd);
		EQ(lstat_of(name).st_size, 10);
		OK(unlink(name));
	}
}

MTEST(many, waits_of_many_files_hold_up_nobody, DAX)
{
	struct doer d[MANY];
	struct pinner p;
	char name[16];
	int fd[MANY];

	OK(mkdir("free", 0755));
	for (unsigned int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "p%u", i);
		fd[i] = pattern_file(name, PAGE, 1);
	}
	p = pin_many(MANY);
	for (unsigned int i = 0; i < MANY; i++)
		d[i] = start(op_cut_one, fd[i], -1);
	until_waiting(MANY);
	others_go_on();
	EQ(nr_waiting(), MANY);
	kill_pinner(&p);
	for (unsigned int i = 0; i < MANY; i++)
		EQ(end_of(&d[i]), 0);
}

static int op_clone_to(int fd, int other)
{
	return clone_file(fd, other);
}

/* All behind the lock of one file. */
MTEST(many, waits_of_one_file_hold_up_nobody, DAX)
{
	struct doer d[MANY];
	struct scene s;
	char name[16];
	int fd[MANY];

	OK(mkdir("free", 0755));
	set_scene(&s);
	for (unsigned int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "c%u", i);
		fd[i] = open_ok(name, O_RDWR | O_CREAT);
		d[i] = start(op_clone_to, s.fd, fd[i]);
	}
	/* One for the pin, the others for the lock. */
	until_waiting(MANY);
	others_go_on();
	unpin_and_end(&s.pinner);
	for (unsigned int i = 0; i < MANY; i++) {
		EQ(end_of(&d[i]), 0);
		EQ(fstat_of(fd[i]).st_size, LEN);
	}
	check_pattern(fd[MANY - 1], 0, LEN, 1);
}

/* --- blocks ------------------------------------------------------------------
 */

/* A file of all that is free: is this block in it? */
static bool somebody_gets(uint64_t off)
{
	off_t pos = 0;
	int fd = open_ok("fill", O_RDWR | O_CREAT);
	bool found;

	for (off_t step = MIB; step >= PAGE; step /= 4)
		while (!fallocate(fd, 0, pos, step))
			pos += step;
	EQ(errno, ENOSPC);
	found = has_media(fd, off);
	OK(ftruncate(fd, 0));
	close_ok(fd);
	return found;
}

/*
 * A page is pinned through f for loads, and shared with g.  f gets a copy, g
 * gives it up: the block is nobody's, but for the pin.
 */
static void upstream_hole(bool by_mapping)
{
	int fd = pattern_file("f", LEN, 1), g = open_ok("g", O_RDWR | O_CREAT);
	uint64_t off, before;
	struct pinner p;

	OK(clone_file(fd, g));
	off = media_offset(fd, 7);
	EQ(media_offset(g, 7), off);
	p = pin_flags("f", 7, 0);
	EQ(media_offset(fd, 7), off);
	if (by_mapping)
		tell(&p, 's');
	else
		write_pattern(fd, 7 * PAGE, PAGE, 9);
	NE(media_offset(fd, 7), off);
	EQ(media_offset(g, 7), off);
	OK(ftruncate(g, 0));
	CHECK(!somebody_gets(off), "a pinned block was given away");
	before = free_bytes();
	unpin_and_end(&p);
	EQ(free_bytes(), before + PAGE);
	close_ok(fd);
	close_ok(g);
}

MTEST(blocks, copied_by_a_write_stay_while_pinned, DAX, .size = 64 << 20)
{
	upstream_hole(false);
}

MTEST(blocks, copied_by_a_store_stay_while_pinned, DAX, .size = 64 << 20)
{
	upstream_hole(true);
}

/* To store to it, a page has to be one's own. */
MTEST(blocks, pinned_to_store_are_not_shared, DAX)
{
	int fd = pattern_file("f", LEN, 1), g = open_ok("g", O_RDWR | O_CREAT);
	uint64_t off;
	struct pinner p;

	OK(clone_file(fd, g));
	p = pin("f", 7);
	off = media_offset(fd, 7);
	NE(media_offset(g, 7), off);
	write_pattern(fd, 7 * PAGE, PAGE, 9);
	EQ(media_offset(fd, 7), off);
	unpin_and_end(&p);
	check_pattern(g, 0, LEN, 1);
	close_ok(fd);
	close_ok(g);
}

/* H1: g maps the page as well; that is no reason for f to wait. */
MTEST(blocks, mapped_through_another_file_are_no_wait, DAX)
{
	int fd = pattern_file("f", LEN, 1), g = open_ok("g", O_RDWR | O_CREAT);
	struct pinner f_pin, g_pin;
	struct doer d;

	OK(clone_file(fd, g));
	f_pin = pin_flags("f", 7, 0);
	g_pin = pin_flags("g", 7, 0);
	tell(&g_pin, 'u'); /* mapped, no longer pinned */
	tell(&g_pin, 'l');
	d = start(op_cut_one, fd, -1);
	until_waiting(1);
	unpin_and_end(&f_pin);
	EQ(end_of(&d), 0);
	check_pattern(g, 0, LEN, 1);
	tell(&g_pin, 'l');
	exit_pinner(&g_pin);
	close_ok(fd);
	close_ok(g);
}

/* Unaligned, so that it is a copy: entries of the target go meanwhile. */
MTEST(blocks, copied_from_one_mapped_file_to_another, DAX)
{
	int fd = pattern_file("f", LEN, 1), g = pattern_file("g", LEN, 2);
	struct pinner f_pin = pin("f", 8), g_pin = pin("g", 8);
	off_t in = 100, out = (off_t)LEN + 5;

	EQ(copy_file_range(fd, &in, g, &out, 20000, 0), 20000);
	EQ(copy_file_range(g, &in, fd, &out, 20000, 0), 20000);
	check_pattern(fd, 0, LEN, 1);
	check_pattern(g, 0, LEN, 2);
	unpin_and_end(&f_pin);
	unpin_and_end(&g_pin);
	close_ok(fd);
	close_ok(g);
}

/* H7: what was stored through a mapping, and never flushed, is cloned. */
MTEST(blocks, stored_to_and_not_flushed_are_in_the_clone, DAX)
{
	int fd = pattern_file("f", LEN, 1), g = open_ok("g", O_RDWR | O_CREAT);
	unsigned char want[PAGE], got[PAGE];
	struct pinner p = pin("f", 8);

	memset(want, 's', PAGE);
	tell(&p, 's');
	tell(&p, 'u');
	OK(clone_file(fd, g));
	EQ(pread_ok(g, got, PAGE, 7 * PAGE), PAGE);
	MEMEQ(got, want, PAGE);
	/* The next store does not show in the clone. */
	tell(&p, 't');
	EQ(pread_ok(g, got, PAGE, 7 * PAGE), PAGE);
	MEMEQ(got, want, PAGE);
	OK(ftruncate(fd, 8 * PAGE));
	EQ(pread_ok(fd, got, PAGE, 7 * PAGE), PAGE);
	EQ(got[0], 't');
	exit_pinner(&p);
	close_ok(fd);
	close_ok(g);
	crash_and_remount("dax=always");
	g = open_ok("g", O_RDWR);
	EQ(pread_ok(g, got, PAGE, 7 * PAGE), PAGE);
	MEMEQ(got, want, PAGE);
	close_ok(g);
}

/* --- the end
 * ------------------------------------------------------------------ */

static int op_remount(int fd, int other)
{
	(void)fd;
	(void)other;
	remount("dax=always");
	return 0;
}

/* The mount is gone at once; the daemon stays until the pin is. */
MTEST(unmount, waits_for_pins, DAX)
{
	struct pinner p;
	struct doer d;

	close_ok(pattern_file("f", LEN, 1));
	p = pin("f", 8);
	tell(&p, 'm');
	d = start(op_remount, -1, -1);
	OK(chdir("/"));
	usleep(300000);
	EQ(*d.err, -1);
	CHECK(!mnt->ended, "the daemon has gone");
	unpin_and_end(&p);
	EQ(end_of(&d), 0);
}
