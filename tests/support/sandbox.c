/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/sandbox.c - a place where mounts and daemons cannot leak
 *
 * The outer process only waits.  The supervisor asks to be killed when the
 * outer process dies, and the kernel kills a process namespace with its init,
 * so nothing survives.  The mount namespace goes with its last process.
 */
#include "tests/support/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DIED 99

static char work_dir[64];
static volatile pid_t supervisor;

void (*sandbox_reaped)(pid_t pid, int status);

/*
 * The leak sanitizer looks through a process with the help of another one,
 * which nobody can start any more once the namespace it would go to has lost
 * its init.  So not in the harness; what it starts is looked through as ever.
 */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return 1;
}

const char *sandbox_dir(void)
{
	return work_dir;
}

const char *sandbox_missing(void)
{
	if (geteuid())
		return "needs root, for mounts and namespaces";
	return NULL;
}

void *sandbox_shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("sandbox: mmap");
		exit(DIED);
	}
	return p;
}

unsigned int sandbox_secs(unsigned int secs)
{
	const char *slow = getenv("FOLIOFS_TEST_SLOW");
	unsigned int factor = slow ? (unsigned int)atoi(slow) : 1;

	return secs * (factor ? factor : 1);
}

static void pass_on(int sig)
{
	(void)sig;
	if (supervisor > 0)
		kill(supervisor, SIGKILL);
}

static void die(const char *what)
{
	fprintf(stderr, "sandbox: %s: %s\n", what, strerror(errno));
	exit(DIED);
}

static int supervise(int (*fn)(void *), void *arg)
{
	sigset_t chld;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		die("make mounts private");
	if (mount("sandbox", work_dir, "tmpfs", 0, NULL))
		die("mount tmpfs");
	/* A container may forbid it; only the pids in messages suffer. */
	(void)mount("proc", "/proc", "proc", 0, NULL);

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	return fn(arg);
}

int sandbox_run(int (*fn)(void *), void *arg)
{
	static const int sigs[] = { SIGTERM, SIGINT, SIGHUP };
	struct sigaction sa = { .sa_handler = pass_on };
	int status;

	strcpy(work_dir, "/tmp/foliofs-test.XXXXXX");
	if (!mkdtemp(work_dir))
		die("make a work directory");
	for (size_t i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
		sigaction(sigs[i], &sa, NULL);
	fflush(NULL);
	if (unshare(CLONE_NEWNS | CLONE_NEWPID))
		die("unshare");
	supervisor = fork();
	if (supervisor < 0)
		die("fork");
	if (!supervisor)
		exit(supervise(fn, arg));
	while (waitpid(supervisor, &status, 0) < 0 && errno == EINTR)
		;
	umount2(work_dir, MNT_DETACH);
	rmdir(work_dir);
	return WIFEXITED(status) ? WEXITSTATUS(status) : DIED;
}

static int step_result(int status)
{
	return WIFSIGNALED(status) ? STEP_SIGNAL(WTERMSIG(status))
				   : WEXITSTATUS(status);
}

/* Reap all that has ended.  Return: whether @step is among them. */
static bool reap(pid_t step, int *ret_status)
{
	bool found = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == step) {
			*ret_status = status;
			found = true;
		} else if (sandbox_reaped) {
			sandbox_reaped(pid, status);
		}
	}
	return found;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Wait for SIGCHLD, but wake now and then: one signal may stand for two. */
static void nap(void)
{
	struct timespec ts = { .tv_nsec = 100000000 };
	sigset_t chld;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigtimedwait(&chld, NULL, &ts);
}

/* Where does the step hang?  Worth a line before it is killed. */
static void print_wchan(pid_t pid)
{
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stack", pid);
	f = fopen(path, "r");
	if (!f)
		return;
	for (int i = 0; i < 6 && fgets(line, sizeof(line), f); i++)
		printf("# hangs in %s", line);
	fclose(f);
}

/* End everybody else; a FUSE mount whose daemon is gone lets go of all. */
static void kill_all(void)
{
	double limit = now() + 10;

	kill(-1, SIGKILL);
	while (now() < limit) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid < 0)
			return;
		if (pid > 0 && sandbox_reaped)
			sandbox_reaped(pid, status);
		if (!pid)
			nap();
	}
}

int sandbox_step(void (*fn)(void *), void *arg, unsigned int secs)
{
	double limit = now() + sandbox_secs(secs);
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		sigset_t none;

		setpgid(0, 0);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		fn(arg);
		fflush(NULL);
		_exit(0);
	}
	while (!reap(pid, &status)) {
		if (now() > limit) {
			print_wchan(pid);
			kill_all();
			return STEP_TIMED_OUT;
		}
		nap();
	}
	kill(-pid, SIGKILL);
	return step_result(status);
}

/* Detach the deepest mounts first: the list is in the order of mounting. */
static void detach_below(const char *dir)
{
	char line[4096], found[32][256];
	size_t len = strlen(dir);
	int nr = 0;
	FILE *f;

	f = fopen("/proc/self/mounts", "r");
	if (!f)
		return;
	while (nr < 32 && fgets(line, sizeof(line), f)) {
		char path[256];

		if (sscanf(line, "%*s %255s", path) == 1 &&
		    !strncmp(path, dir, len) && path[len] == '/')
			strcpy(found[nr++], path);
	}
	fclose(f);
	while (nr--)
		umount2(found[nr], MNT_DETACH);
}

void sandbox_sweep(void)
{
	kill_all();
	detach_below(work_dir);
}

int sandbox_exec(const char *const argv[], const char *log)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return 127;
	if (!pid) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		if (fd >= 0) {
			dup2(fd, 1);
			dup2(fd, 2);
		}
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
