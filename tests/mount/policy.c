/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/policy.c - what each layout-break policy promises
 *
 * Holders are processes of their own that map files with the client library
 * and pin pages; the operations that want the blocks run here.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dax/lib/foliofs.h"
#include "fs/ioctl.h"
#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"
#include "tests/support/share.h"

#define PAGE	       4096
#define PAGES	       64
#define LEN	       ((size_t)PAGES * PAGE)
#define RW	       (PROT_READ | PROT_WRITE)
#define NO_FOLIOFS_MAP 77 /* this machine cannot map */
#define NR_WAITS       100

/* Holders. */

struct holder {
	pid_t pid;
	int to, from;
};

static void attach(const char *path, bool pin, unsigned int flags)
{
	int fd = open_ok(path, O_RDWR), ret;
	struct foliofs_file *file;
	struct foliofs_pin *p;
	void *map = NULL;

	ret = foliofs_attach(fd, 0, &file);
	if (ret == -EPERM || ret == -ENOSYS)
		_exit(NO_FOLIOFS_MAP);
	EQ(ret, 0);
	EQ(foliofs_map(file, LEN, RW, 0, 0, &map), 0);
	EQ(foliofs_advise(map, LEN, FOLIOFS_WILLNEED_WRITE), 0);
	if (pin)
		EQ(foliofs_pin((unsigned char *)map + 3 * PAGE, PAGE,
			       FOLIOFS_PIN_WRITE | flags, &p),
		   0);
	close_ok(fd);
}

/* Map f0 to f(nr - 1), or what @path says, and then do nothing. */
static void serve(const char *path, unsigned int nr, bool pin,
		  unsigned int flags, int in, int out)
{
	char name[16], c = 'r';

	for (unsigned int i = 0; i < nr; i++) {
		snprintf(name, sizeof(name), "%s%u", path, i);
		attach(nr == 1 ? path : name, pin, flags);
	}
	OK(chdir("/"));
	do
		EQ(write(out, &c, 1), 1);
	while (read(in, &c, 1) == 1);
	_exit(0); /* its pins go with it */
}

static struct holder hold_many(const char *path, unsigned int nr, bool pin,
			       unsigned int flags)
{
	int to[2], from[2], status;
	struct holder h;
	char c;

	OK(pipe2(to, O_CLOEXEC));
	OK(pipe2(from, O_CLOEXEC));
	fflush(stdout);
	h.pid = (pid_t)OK(fork());
	if (h.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int fd = 3; fd < 1024; fd++)
			if (fd != to[0] && fd != from[1])
				close(fd);
		serve(path, nr, pin, flags, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	h.to = to[1];
	h.from = from[0];
	if (read(h.from, &c, 1) == 1)
		return h;
	OK(waitpid(h.pid, &status, 0));
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_FOLIOFS_MAP)
		SKIP("no userfaultfd here");
	FAIL("the holder ended with %#x", status);
}

static struct holder hold(const char *path, unsigned int flags)
{
	return hold_many(path, 1, true, flags);
}

/* How it ended: 0 well, or the number of a signal. */
static int end_of(struct holder *h)
{
	int status;

	close(h->to);
	OK(waitpid(h->pid, &status, 0));
	close(h->from);
	return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

/* The mount. */

static int dax_file(const char *path)
{
	return pattern_file(path, LEN, 1);
}

static int try_set(const char *spec, char what[256])
{
	struct foliofs_ioc_policy p = { .error = 0 };
	int fd = open_ok(".", O_RDONLY | O_DIRECTORY);

	snprintf(p.spec, sizeof(p.spec), "%s", spec);
	OK(ioctl(fd, FOLIOFS_IOC_POLICY_SET, &p));
	close_ok(fd);
	if (what)
		memcpy(what, p.what, 256);
	return -p.error;
}

static void set(const char *spec)
{
	char what[256];
	int err = try_set(spec, what);

	CHECK(!err, "%s: %s", spec, what);
}

static struct foliofs_ioc_policy_stat stat_of(const char *name)
{
	struct foliofs_ioc_policy_stat st;
	int fd = open_ok(".", O_RDONLY | O_DIRECTORY);

	for (unsigned int i = 0;; i++) {
		st = (struct foliofs_ioc_policy_stat){
			.slot = i, .op = FOLIOFS_POLICY_ALL
		};
		OK(ioctl(fd, FOLIOFS_IOC_POLICY_STAT, &st));
		if (strcmp(st.name, name) == 0)
			break;
	}
	close_ok(fd);
	return st;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void unchanged(int fd)
{
	EQ(fstat_of(fd).st_size, LEN);
	check_pattern(fd, 0, LEN, 1);
}

/* Operations that wait. */

struct waiting {
	pthread_t thread;
	int fd;
	int err;
};

static void *wait_main(void *arg)
{
	struct waiting *w = arg;

	w->err = ftruncate(w->fd, 0) ? errno : 0;
	return NULL;
}

static void start(struct waiting *w, int fd)
{
	w->fd = fd;
	EQ(pthread_create(&w->thread, NULL, wait_main, w), 0);
}

static int result(struct waiting *w)
{
	EQ(pthread_join(w->thread, NULL), 0);
	return w->err;
}

static void until_waiting(uint64_t nr)
{
	for (unsigned int ms = 0; nr_waiting() != nr; ms++) {
		CHECK(ms < sandbox_secs(10) * 1000, "%llu wait, should be %llu",
		      (unsigned long long)nr_waiting(), (unsigned long long)nr);
		usleep(1000);
	}
}

#define PTEST(name, spec)                                        \
	MTEST(policy, name, .needs = MNT_FOLIOFS, .timeout = 60, \
	      .opts = "dax=always,policy=" spec)

PTEST(nowait_never_waits, "nowait")
{
	int fd = dax_file("f");
	struct holder h = hold("f", 0);
	double t = now();

	FAILS(EAGAIN, ftruncate(fd, 0));
	FAILS(EAGAIN, fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, PAGE));
	CHECK(now() - t < 0.5, "it took %.3f s", now() - t);
	EQ(stat_of("nowait").nr_waits, 0);
	unchanged(fd);
	EQ(end_of(&h), 0);
}

PTEST(timeout_is_in_time, "timeout,ms=500")
{
	int fd = dax_file("f");
	struct holder h = hold("f", 0);
	double t = now();

	FAILS(ETIMEDOUT, ftruncate(fd, 0));
	t = now() - t;
	CHECK(t > 0.4 && t < 0.6, "it took %.3f s", t);
	unchanged(fd);
	EQ(end_of(&h), 0);
	OK(ftruncate(fd, 0));
}

PTEST(fail_leaves_the_file_alone, "fail:long_ms=400")
{
	int fd = dax_file("f"), g = dax_file("g");
	struct holder h = hold("f", 0), i;
	struct waiting w;

	FAILS(ETXTBSY, ftruncate(fd, 0));
	FAILS(ETXTBSY, ftruncate(fd, (off_t)LEN * 2));
	FAILS(ETXTBSY, fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, PAGE));
	unchanged(fd);
	/* A transfer is waited for. */
	set("fail:long_ms=600000");
	i = hold("g", 0);
	start(&w, g);
	until_waiting(1);
	EQ(end_of(&i), 0);
	EQ(result(&w), 0);
	EQ(end_of(&h), 0);
}

PTEST(lease_revokes_after_the_grace_only, "lease:grace_ms=500")
{
	int fd = dax_file("f"), g = dax_file("g");
	struct holder h = hold("f", 0), i = hold("g", 0);
	struct waiting w;
	double t;

	/* Who lets go in time lives. */
	start(&w, g);
	until_waiting(1);
	EQ(end_of(&i), 0);
	EQ(result(&w), 0);
	EQ(stat_of("lease").nr_revokes, 0);
	t = now();
	start(&w, fd);
	until_waiting(1);
	while (now() - t < 0.4) {
		EQ(stat_of("lease").nr_revokes, 0);
		usleep(10000);
	}
	EQ(waitpid(h.pid, NULL, WNOHANG), 0);
	EQ(result(&w), 0);
	CHECK(now() - t >= 0.5, "it took %.3f s", now() - t);
	EQ(stat_of("lease").nr_revokes, 1);
	EQ(end_of(&h), SIGKILL);
	EQ(fstat_of(fd).st_size, 0);
}

PTEST(revoke_ends_exactly_the_holders, "revoke")
{
	int fd = dax_file("f"), g = dax_file("g");
	struct holder a = hold("f", 0), b = hold("f", 0);
	struct holder mapped = hold_many("f", 1, false, 0);
	struct holder other = hold("g", 0);

	OK(ftruncate(fd, 0));
	EQ(end_of(&a), SIGKILL);
	EQ(end_of(&b), SIGKILL);
	EQ(waitpid(mapped.pid, NULL, WNOHANG), 0);
	EQ(waitpid(other.pid, NULL, WNOHANG), 0);
	EQ(stat_of("revoke").nr_revokes, 2);
	EQ(end_of(&mapped), 0);
	EQ(end_of(&other), 0);
	unchanged(g);
}

/* It would be the end of whoever asks. */
PTEST(revoke_does_not_end_the_one_who_asks, "revoke")
{
	int fd = dax_file("f"), status;
	pid_t pid;

	fflush(stdout);
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		attach("f", true, 0);
		_exit(ftruncate(fd, 0) ? errno : 0);
	}
	OK(waitpid(pid, &status, 0));
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_FOLIOFS_MAP)
		SKIP("no userfaultfd here");
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == EDEADLK, "%#x",
	      status);
	unchanged(fd);
}

/* Bytes that are free once the daemon has caught up; or 10 s later. */
static void until_free(uint64_t bytes)
{
	for (unsigned int ms = 0; free_bytes() < bytes; ms++) {
		CHECK(ms < sandbox_secs(10) * 1000,
		      "%llu bytes are free, should be %llu",
		      (unsigned long long)free_bytes(),
		      (unsigned long long)bytes);
		usleep(1000);
	}
}

PTEST(deferred_blocks_come_back, "defer")
{
	int fd = dax_file("f");
	struct holder h = hold("f", 0);
	uint64_t during, held;
	double t = now();

	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, LEN));
	OK(ftruncate(fd, 0));
	CHECK(now() - t < 0.5, "it took %.3f s", now() - t);
	held = stat_of("defer").nr_held * PAGE;
	NE(held, 0);
	EQ(stat_of("defer").nr_deferred, 1);
	EQ(held, PAGE);
	/* Nobody else gets it, whatever there is to write. */
	write_pattern(fd, 0, LEN, 2);
	EQ(stat_of("defer").nr_held * PAGE, held);
	OK(ftruncate(fd, 0));
	/* It is not among those that are free. */
	during = free_bytes();
	EQ(end_of(&h), 0);
	until_free(during + held);
	EQ(free_bytes(), during + held);
	EQ(stat_of("defer").nr_held, 0);
}

/* What stays is no business of a truncate; and it keeps its place. */
PTEST(deferred_pages_outside_stay, "defer")
{
	int fd = dax_file("f");
	struct holder h = hold("f", 0);

	OK(ftruncate(fd, (off_t)LEN / 2));
	EQ(stat_of("defer").nr_held, 0);
	check_pattern(fd, 0, LEN / 2, 1);
	set("nowait");
	/* Still known to be pinned. */
	FAILS(EAGAIN, ftruncate(fd, 0));
	EQ(end_of(&h), 0);
}

PTEST(deferred_blocks_survive_nothing, "defer")
{
	int fd = dax_file("f");
	struct holder h = hold("f", 0);
	uint64_t before = free_bytes();

	OK(ftruncate(fd, 0));
	NE(stat_of("defer").nr_held, 0);
	close_ok(fd);
	crash_and_remount(NULL);
	until_free(before + LEN);
	end_of(&h);
}

/* An unlinked file goes, whoever has it pinned. */
PTEST(deferred_eviction, "defer")
{
	int fd = dax_file("f");
	uint64_t before = free_bytes();
	struct holder h = hold("f", 0);

	close_ok(fd);
	OK(unlink("f"));
	EQ(end_of(&h), 0);
	until_free(before + LEN);
}

PTEST(changes_while_many_wait, "wait")
{
	struct waiting w[NR_WAITS];
	struct holder h;
	char name[16];
	int fd;

	for (unsigned int i = 0; i < NR_WAITS; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		close_ok(dax_file(name));
	}
	h = hold_many("f", NR_WAITS, true, 0);
	for (unsigned int i = 0; i < NR_WAITS; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		start(&w[i], open_ok(name, O_RDWR));
	}
	until_waiting(NR_WAITS);
	/* From one that waits to another: they go on. */
	set("timeout:ms=600000");
	set("fail");
	set("lease:grace_ms=600000");
	until_waiting(NR_WAITS);
	set("nowait");
	for (unsigned int i = 0; i < NR_WAITS; i++) {
		EQ(result(&w[i]), EAGAIN);
		unchanged(w[i].fd);
	}
	EQ(stat_of("nowait").nr_failed, NR_WAITS);
	set("wait");
	for (unsigned int i = 0; i < NR_WAITS; i++)
		start(&w[i], w[i].fd);
	until_waiting(NR_WAITS);
	set("defer");
	for (unsigned int i = 0; i < NR_WAITS; i++) {
		EQ(result(&w[i]), 0);
		close_ok(w[i].fd);
	}
	EQ(stat_of("defer").nr_held, NR_WAITS);
	EQ(end_of(&h), 0);
	for (fd = 0; stat_of("defer").nr_held && fd < 10000; fd++)
		usleep(1000);
	EQ(stat_of("defer").nr_held, 0);
}

static const char *module(const char *name)
{
	static char path[512];
	const char *dir = getenv("FOLIOFS_POLICIES");

	if (!dir)
		SKIP("no FOLIOFS_POLICIES");
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

PTEST(nonsense_loses_nothing, "wait")
{
	int fd = dax_file("f");
	struct holder h = hold("f", 0);
	struct waiting w;
	unsigned int tries = 0;

	set(module("policy_nonsense.so"));
	start(&w, fd);
	until_waiting(1);
	while (stat_of("bad").nr_asks < 7 && tries++ < 10000)
		usleep(1000);
	EQ(stat_of("bad").nr_refusals, 7);
	EQ(fstat_of(fd).st_size, LEN);
	EQ(end_of(&h), 0);
	EQ(result(&w), 0);
	EQ(fstat_of(fd).st_size, 0);
}

PTEST(what_is_no_policy_is_refused, "timeout:ms=123")
{
	char what[256], *text = what;

	EQ(try_set(module("policy_abi.so"), what), ENOEXEC);
	CHECK(strstr(text, "version"), "%s", text);
	EQ(try_set(module("policy_name.so"), what), ELIBBAD);
	EQ(try_set("/nonexistent.so", what), ELIBBAD);
	CHECK(strstr(text, "/nonexistent.so"), "%s", text);
	EQ(try_set("/proc/self/exe", what), ELIBBAD);
	EQ(try_set("patience", what), ENOENT);
	CHECK(strstr(text, "lease"), "%s", text);
	EQ(try_set("timeout:s=1", what), EINVAL);
	CHECK(strstr(text, "'s'"), "%s", text);
	EQ(try_set("timeout:ms=", what), EINVAL);
	EQ(try_set("timeout:ms=0", what), EINVAL);
	EQ(try_set("", what), EINVAL);
	EQ(try_set("unsafe", what), EPERM);
	OK(chmod(".", 0755));
	AS_USER(NOBODY)
	{
		struct foliofs_ioc_policy p = { .spec = "wait" };
		int fd = open_ok(".", O_RDONLY | O_DIRECTORY);

		FAILS(EPERM, ioctl(fd, FOLIOFS_IOC_POLICY_SET, &p));
		OK(ioctl(fd, FOLIOFS_IOC_POLICY_GET, &p));
		STREQ(p.spec, "timeout:ms=123");
	}
}

PTEST(one_from_out_of_the_tree, "wait")
{
	int fd = dax_file("f");
	struct holder h = hold("f", 0);
	char spec[600];

	snprintf(spec, sizeof(spec), "%s:ms=50", module("patience.so"));
	set(spec);
	FAILS(EBUSY, fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, PAGE));
	unchanged(fd);
	OK(ftruncate(fd, 0));
	EQ(stat_of("patience").nr_deferred, 1);
	EQ(end_of(&h), 0);
}
