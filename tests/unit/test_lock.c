/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_lock.c - locks that know their place
 *
 * What aborts is tried in a child process, and the child's last line is read:
 * it must name what was held.
 */
#include "dax/lock.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct mutex inner, outer;
static struct rwsem sem, sem2;

static void setup(void)
{
	mutex_init(&outer, LOCK_JOURNAL);
	mutex_init(&inner, LOCK_ALLOC);
	rwsem_init(&sem);
	rwsem_init(&sem2);
}

static void teardown(void)
{
	sleep_hook_set(NULL);
	mutex_destroy(&outer);
	mutex_destroy(&inner);
	rwsem_destroy(&sem);
	rwsem_destroy(&sem2);
}

/* What @fn writes to stderr; true if it ends with SIGABRT. */
static bool aborts(void (*fn)(void), char *text, size_t size)
{
	int pipes[2], status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	cr_assert_eq(pipe2(pipes, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		dup2(pipes[1], STDERR_FILENO);
		fn();
		_exit(0);
	}
	close(pipes[1]);
	do {
		n = read(pipes[0], text + len, size - 1 - len);
		len += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	text[len] = '\0';
	close(pipes[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void expect_abort(void (*fn)(void), const char *words)
{
	char text[500];

	if (!LOCK_CHECKS)
		cr_skip_test("built without lock checks");
	cr_expect(aborts(fn, text, sizeof(text)));
	cr_expect_not_null(strstr(text, words), "%s", text);
}

TestSuite(lock_rank, .init = setup, .fini = teardown, .timeout = 30);

Test(lock_rank, upwards_is_allowed)
{
	rwsem_down_write(&sem, LOCK_INODE);
	rwsem_down_read(&sem2, LOCK_INODE2);
	mutex_lock(&outer);
	mutex_lock(&inner);
	lock_rank_acquire(&sem, LOCK_XA);
	/* In any order back. */
	mutex_unlock(&outer);
	rwsem_up_write(&sem);
	lock_rank_release(&sem);
	mutex_unlock(&inner);
	rwsem_up_read(&sem2);
	cr_expect(lock_rank_free(LOCK_MOUNT));
}

static void take_downwards(void) __no_lock_analysis
{
	mutex_lock(&inner);
	mutex_lock(&outer);
}

static void take_twice(void) __no_lock_analysis
{
	rwsem_down_read(&sem, LOCK_INODE);
	rwsem_down_read(&sem2, LOCK_INODE);
}

static void take_under_a_released_one(void) __no_lock_analysis
{
	mutex_lock(&outer);
	mutex_lock(&inner);
	mutex_unlock(&outer);
	mutex_lock(&outer);
}

static void release_what_is_not_held(void) __no_lock_analysis
{
	mutex_unlock(&inner);
}

static void take_too_many(void)
{
	static const char locks[100];

	/* No real path is this deep: a loop that forgets to release. */
	for (int i = 0; i < 100; i++)
		lock_rank_acquire(&locks[i], (enum lock_rank)(LOCK_MOUNT + i));
}

static void try_downwards(void) __no_lock_analysis
{
	mutex_lock(&inner);
	if (mutex_trylock(&outer))
		mutex_unlock(&outer);
}

Test(lock_rank, downwards_aborts_with_the_locks_held)
{
	char want[40];

	snprintf(want, sizeof(want), "held: %p(%d)", (void *)&inner,
		 LOCK_ALLOC);
	expect_abort(take_downwards, want);
}

Test(lock_rank, one_rank_is_taken_once)
{
	expect_abort(take_twice, "lock order: taking");
}

Test(lock_rank, a_release_in_between_does_not_confuse_the_books)
{
	expect_abort(take_under_a_released_one, "lock order: taking");
}

Test(lock_rank, releasing_what_is_not_held_aborts)
{
	expect_abort(release_what_is_not_held, "not held");
}

Test(lock_rank, a_forgotten_release_is_noticed)
{
	expect_abort(take_too_many, "too many locks");
}

Test(lock_rank, trying_has_an_order_as_well)
{
	expect_abort(try_downwards, "lock order: taking");
}

Test(lock_rank, free_says_whether_nothing_at_or_above_is_held)
{
	if (!LOCK_CHECKS)
		cr_skip_test("built without lock checks");
	cr_expect(lock_rank_free(LOCK_MOUNT));
	mutex_lock(&outer);
	cr_expect(!lock_rank_free(LOCK_MOUNT));
	cr_expect(!lock_rank_free(LOCK_JOURNAL));
	cr_expect(lock_rank_free(LOCK_ALLOC));
	mutex_unlock(&outer);
	cr_expect(lock_rank_free(LOCK_MOUNT));
}

/* The books are the thread's own. */
static void *take_outer(void *arg)
{
	(void)arg;
	mutex_lock(&outer);
	mutex_unlock(&outer);
	return NULL;
}

Test(lock_rank, threads_do_not_see_each_others_locks)
{
	pthread_t thread;

	mutex_lock(&inner);
	cr_assert_eq(pthread_create(&thread, NULL, take_outer, NULL), 0);
	pthread_join(thread, NULL);
	mutex_unlock(&inner);
}

TestSuite(lock_mutex, .init = setup, .fini = teardown, .timeout = 30);

static void *try_inner(void *arg)
{
	bool *got = (bool *)arg;

	*got = false;
	if (mutex_trylock(&inner)) {
		*got = true;
		mutex_unlock(&inner);
	}
	return NULL;
}

static bool other_thread_gets_inner(void)
{
	pthread_t thread;
	bool got;

	cr_assert_eq(pthread_create(&thread, NULL, try_inner, &got), 0);
	pthread_join(thread, NULL);
	return got;
}

Test(lock_mutex, trylock_fails_while_another_thread_holds_it)
{
	mutex_lock(&inner);
	cr_expect(!other_thread_gets_inner());
	mutex_unlock(&inner);
	cr_expect(other_thread_gets_inner());
}

Test(lock_mutex, a_failed_trylock_is_not_in_the_books)
{
	bool got;

	cr_assert_eq(pthread_mutex_lock(&inner.m), 0); /* not by us */
	try_inner(&got);
	cr_expect(!got);
	cr_expect(lock_rank_free(LOCK_MOUNT));
	pthread_mutex_unlock(&inner.m);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

Test(lock_mutex, waiting_ends_when_it_is_too_late)
{
	uint64_t until = now_ns() + 20000000;
	pthread_cond_t cond;

	cond_init(&cond);
	mutex_lock(&inner);
	while (mutex_wait_until(&inner, &cond, until))
		;
	cr_expect_geq(now_ns(), until);
	/* Held again, in the books as well. */
	if (LOCK_CHECKS)
		cr_expect(!lock_rank_free(LOCK_ALLOC));
	cr_expect(!other_thread_gets_inner());
	mutex_unlock(&inner);
	pthread_cond_destroy(&cond);
}

static pthread_cond_t wake;
static bool woken;

static void *wake_up(void *arg)
{
	(void)arg;
	mutex_lock(&inner);
	woken = true;
	pthread_cond_broadcast(&wake);
	mutex_unlock(&inner);
	return NULL;
}

Test(lock_mutex, waiting_ends_when_somebody_wakes_us)
{
	uint64_t until = now_ns() + UINT64_C(20000000000);
	pthread_t thread;

	cond_init(&wake);
	mutex_lock(&inner);
	cr_assert_eq(pthread_create(&thread, NULL, wake_up, NULL), 0);
	while (!woken)
		cr_assert(mutex_wait_until(&inner, &wake, until));
	mutex_unlock(&inner);
	pthread_join(thread, NULL);
	cr_expect_lt(now_ns(), until);
}

TestSuite(lock_rwsem, .init = setup, .fini = teardown, .timeout = 30);

static bool try_write(void)
{
	if (!rwsem_trydown_write(&sem, LOCK_INODE))
		return false;
	rwsem_up_write(&sem);
	return true;
}

static void *try_write_thread(void *arg)
{
	*(bool *)arg = try_write();
	return NULL;
}

static bool other_thread_writes(void)
{
	pthread_t thread;
	bool got;

	cr_assert_eq(pthread_create(&thread, NULL, try_write_thread, &got), 0);
	pthread_join(thread, NULL);
	return got;
}

static void *read_thread(void *arg)
{
	(void)arg;
	rwsem_down_read(&sem, LOCK_INODE);
	rwsem_up_read(&sem);
	return NULL;
}

Test(lock_rwsem, readers_share_and_writers_do_not)
{
	pthread_t thread;

	rwsem_down_read(&sem, LOCK_INODE);
	cr_assert_eq(pthread_create(&thread, NULL, read_thread, NULL), 0);
	pthread_join(thread, NULL); /* or the timeout */
	cr_expect(!other_thread_writes());
	rwsem_up_read(&sem);
	cr_expect(other_thread_writes());
	rwsem_down_write(&sem, LOCK_INODE);
	cr_expect(!other_thread_writes());
	rwsem_up_write(&sem);
}

/* What the hook saw, and the one thread that it watches. */
static _Atomic(int) nr_begin, nr_end;

static void count_begin(void *ctx)
{
	atomic_fetch_add((_Atomic(int) *)ctx, 1);
}

static void count_end(void *ctx)
{
	cr_assert_eq(ctx, &nr_begin);
	atomic_fetch_add(&nr_end, 1);
}

static const struct sleep_hook hook = { count_begin, count_end, &nr_begin };

static void *read_with_hook(void *arg)
{
	sleep_hook_set(&hook);
	return read_thread(arg);
}

static void *write_with_hook(void *arg)
{
	(void)arg;
	sleep_hook_set(&hook);
	rwsem_down_write(&sem, LOCK_INODE);
	rwsem_up_write(&sem);
	return NULL;
}

/* A thread that has to wait for us calls its hook before and after. */
static void wait_with_hook(void *(*fn)(void *))
{
	pthread_t thread;

	atomic_store(&nr_begin, 0);
	atomic_store(&nr_end, 0);
	rwsem_down_write(&sem, LOCK_INODE);
	cr_assert_eq(pthread_create(&thread, NULL, fn, NULL), 0);
	while (atomic_load(&nr_begin) == 0)
		usleep(100);
	cr_expect_eq(atomic_load(&nr_end), 0);
	rwsem_up_write(&sem);
	pthread_join(thread, NULL);
	cr_expect_eq(atomic_load(&nr_begin), 1);
	cr_expect_eq(atomic_load(&nr_end), 1);
}

Test(lock_rwsem, a_reader_that_waits_says_so)
{
	wait_with_hook(read_with_hook);
}

Test(lock_rwsem, a_writer_that_waits_says_so)
{
	wait_with_hook(write_with_hook);
}

Test(lock_rwsem, who_does_not_wait_says_nothing)
{
	sleep_hook_set(&hook);
	rwsem_down_read(&sem, LOCK_INODE);
	rwsem_up_read(&sem);
	rwsem_down_write(&sem, LOCK_INODE);
	rwsem_up_write(&sem);
	cr_expect_eq(atomic_load(&nr_begin), 0);
	/* Nor who has no hook. */
	sleep_hook_set(NULL);
	sleep_hook_begin();
	sleep_hook_end();
	cr_expect_eq(atomic_load(&nr_begin), 0);
}

static _Atomic(bool) writer_done, reader_done;

static void *writer(void *arg)
{
	sleep_hook_set(&hook);
	rwsem_down_write(&sem, LOCK_INODE);
	atomic_store(&writer_done, true);
	rwsem_up_write(&sem);
	return arg;
}

static void *late_reader(void *arg)
{
	bool *after_writer = (bool *)arg;

	sleep_hook_set(&hook);
	rwsem_down_read(&sem, LOCK_INODE);
	*after_writer = atomic_load(&writer_done);
	atomic_store(&reader_done, true);
	rwsem_up_read(&sem);
	return NULL;
}

Test(lock_rwsem, a_stream_of_readers_cannot_starve_a_writer)
{
	pthread_t first, second;
	bool after_writer = false;

	rwsem_down_read(&sem, LOCK_INODE);
	cr_assert_eq(pthread_create(&first, NULL, writer, NULL), 0);
	/* Until the writer is in the queue, where it keeps readers out. */
	while (pthread_rwlock_tryrdlock(&sem.rw) == 0) {
		pthread_rwlock_unlock(&sem.rw);
		usleep(100);
	}
	cr_assert_eq(pthread_create(&second, NULL, late_reader, &after_writer),
		     0);
	/* It waits, and says so; or it gets in. */
	while (atomic_load(&nr_begin) < 2 && !atomic_load(&reader_done))
		usleep(100);
	rwsem_up_read(&sem);
	pthread_join(first, NULL);
	pthread_join(second, NULL);
	cr_expect(after_writer);
}
