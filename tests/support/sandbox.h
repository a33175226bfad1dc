/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/sandbox.h - a place where mounts and daemons cannot leak
 *
 * A dead or hanging FUSE daemon blocks whoever touches its mount, so tests of
 * a mount need somebody who never touches it and can end everybody else.
 * sandbox_run() makes a mount namespace and a process namespace.  Their init,
 * the supervisor, runs the given function: it starts steps, waits for them
 * with a time limit, and sweeps up.  Whatever happens, even SIGKILL from
 * outside, the kernel ends every process and unmounts everything with it.
 *
 * Ownership. The work directory is a fresh tmpfs that only the sandbox sees.
 * Errors.    Negative errno, or exit codes where it says so.
 */
#ifndef TESTS_SUPPORT_SANDBOX_H
#define TESTS_SUPPORT_SANDBOX_H

#include <stddef.h>
#include <sys/types.h>

/* How a step ended, beside the exit codes 0 to 255. */
#define STEP_TIMED_OUT (-1)
#define STEP_SIGNAL(n) (-100 - (n))

/* Why a sandbox cannot be had here, or NULL when it can. */
const char *sandbox_missing(void);

/**
 * sandbox_run() - run a supervisor in namespaces of its own
 * @fn: the supervisor; must not touch a mount under test itself
 *
 * Return: what @fn returned, or 99 when it died.
 */
int sandbox_run(int (*fn)(void *), void *arg);

/* The work directory; valid inside the sandbox only. */
const char *sandbox_dir(void);

/* Zeroed memory that every process of the sandbox sees. */
void *sandbox_shared(size_t size);

/**
 * sandbox_step() - run fn in a child and wait for it, but not for ever
 * @secs: limit, multiplied by FOLIOFS_TEST_SLOW where that is set
 *
 * Supervisor only.  The child leads a process group; what is left of the group
 * when it ends is killed.  After a timeout every process of the sandbox is.
 *
 * Return: exit code, STEP_SIGNAL(n) or STEP_TIMED_OUT.
 */
int sandbox_step(void (*fn)(void *), void *arg, unsigned int secs);

/* Kill all that still runs and detach every mount below the work directory. */
void sandbox_sweep(void);

/*
 * Called in the supervisor for every process that it reaps and that is not a
 * step: daemons end up here, whoever started them.
 */
extern void (*sandbox_reaped)(pid_t pid, int status);

/* Run a program to its end.  Return: its exit code, or 128 + signal. */
int sandbox_exec(const char *const argv[], const char *log);

/* Seconds, stretched for slow machines and sanitizers. */
unsigned int sandbox_secs(unsigned int secs);

#endif
