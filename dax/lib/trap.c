/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/trap.c - SIGSEGV and SIGBUS at addresses of views
 */
#include "dax/lib/trap.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

#include "dax/lib/pager.h"

__thread sigjmp_buf *trap_guard __attribute__((tls_model("initial-exec")));

/* The program's, which we replaced: [0] SIGSEGV, [1] SIGBUS. */
static struct sigaction theirs[2];

static bool was_store(const ucontext_t *uc)
{
#if defined(__x86_64__)
	return (uc->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#else
	(void)uc;
	return true; /* loads of views do not get here otherwise */
#endif
}

/* As the kernel would have done it without us. */
static void pass_on(int sig, siginfo_t *si, void *uc)
{
	const struct sigaction *sa = &theirs[sig == SIGBUS];
	sigset_t mask = sa->sa_mask, old;

	if (!(sa->sa_flags & SA_SIGINFO) &&
	    (sa->sa_handler == SIG_DFL || sa->sa_handler == SIG_IGN)) {
		/* Ignoring it is not possible, so both end the process. */
		struct sigaction dfl = { .sa_handler = SIG_DFL };

		sigaction(sig, &dfl, NULL);
		if (si->si_code <= 0) /* sent, and would not come again */
			raise(sig);
		return;
	}
	if (!(sa->sa_flags & SA_NODEFER))
		sigaddset(&mask, sig);
	pthread_sigmask(SIG_BLOCK, &mask, &old);
	if (sa->sa_flags & SA_SIGINFO)
		sa->sa_sigaction(sig, si, uc);
	else
		sa->sa_handler(sig);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void on_signal(int sig, siginfo_t *si, void *context)
{
	uintptr_t addr = (uintptr_t)si->si_addr;
	sigjmp_buf *guard = trap_guard;
	int err = errno;

	if (si->si_code > 0 && pager_signal(sig, addr, was_store(context))) {
		errno = err;
		return;
	}
	if (guard && si->si_code > 0) {
		trap_guard = NULL;
		siglongjmp(*guard, 1);
	}
	errno = err;
	pass_on(sig, si, context);
}

/*
 * The signal is not blocked while the handler runs: it may leave by a jump, and
 * what it calls for the program has that program's mask.
 */
static int install(int sig, struct sigaction *old)
{
	struct sigaction sa = {
		.sa_sigaction = on_signal,
		.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART,
	};

	sigemptyset(&sa.sa_mask);
	return sigaction(sig, &sa, old) ? -errno : 0;
}

static _Atomic(bool) installed;

bool trap_installed(void)
{
	return atomic_load_explicit(&installed, memory_order_relaxed);
}

int trap_init(void)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	int ret = 0;

	pthread_mutex_lock(&mutex);
	if (!trap_installed()) {
		ret = install(SIGSEGV, &theirs[0]);
		if (ret == 0)
			ret = install(SIGBUS, &theirs[1]);
		atomic_store(&installed, ret == 0);
	}
	pthread_mutex_unlock(&mutex);
	return ret;
}

void trap_swap(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction *sa = &theirs[sig == SIGBUS];

	if (old)
		*old = *sa;
	if (act)
		*sa = *act;
}
