/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/client/test_client.c - the calls of dax/lib/foliofs.h
 *
 * Each test is a process of its own with a daemon of its own.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dax/lib/mem.h"
#include "tests/client/fake.h"

#define PAGES	 64
#define FILE_NR	 1
#define RW	 (PROT_READ | PROT_WRITE)
#define LEN(nr)	 ((size_t)(nr)*BLOCK_SIZE)
#define PAGE(nr) (map + LEN(nr))

static struct fake *fake;
static struct foliofs_file *file;
static volatile unsigned char *map;

static struct foliofs_file *attach(unsigned int nr)
{
	const struct foliofs_ioc_token token = fake_token(fake, nr);
	struct foliofs_file *f;
	int ret = client_attach(&token, &f);

	if (ret == -EPERM || ret == -ENOSYS)
		cr_skip("no userfaultfd here");
	cr_assert_eq(ret, 0, "%s", strerror(-ret));
	return f;
}

static void init(void)
{
	fake = fake_new(PAGES * 40, PAGES * 4);
	file = attach(FILE_NR);
}

static void fini(void)
{
	foliofs_detach(file);
	fake_free(fake);
}

static void do_map(uint64_t nr, int prot, uint64_t page)
{
	void *p = NULL;

	cr_assert_eq(foliofs_map(file, LEN(nr), prot, 0, (off_t)LEN(page), &p),
		     0);
	map = p;
}

/* In user mode all is populated at once, and system calls cannot wait. */
static void lazily(void)
{
	if (mem_user_only())
		cr_skip("userfaultfd is for user mode only");
}

static void check_stamps(uint64_t first, uint64_t nr)
{
	for (uint64_t i = first; i < first + nr; i++) {
		uint64_t stamp = fake_stamp(FILE_NR, i), found;

		for (size_t b = 0; b < BLOCK_SIZE; b += 512) {
			memcpy(&found, (const void *)(uintptr_t)(PAGE(i) + b),
			       sizeof(found));
			cr_assert_eq(found, stamp, "page %ju byte %zu",
				     (uintmax_t)i, b);
		}
	}
}

/* What a touch gets: the byte, or the negative number of a signal. */
static sigjmp_buf jump;
static volatile int last_code;

static void on_signal(int sig, siginfo_t *si, void *uc)
{
	(void)uc;
	last_code = si->si_code;
	siglongjmp(jump, sig);
}

static void catch (void)
{
	struct sigaction sa = { .sa_sigaction = on_signal,
				.sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGSEGV, &sa, NULL);
}

static int load(const volatile unsigned char *p)
{
	int sig = sigsetjmp(jump, 1);

	return sig ? -sig : *p;
}

static int store(volatile unsigned char *p, unsigned char value)
{
	int sig = sigsetjmp(jump, 1);

	if (sig)
		return -sig;
	*p = value;
	return 0;
}

/* Before the library, as a program would whose handlers it has to chain to. */
static void init_catching(void)
{
	catch ();
	init();
}

TestSuite(client, .init = init, .fini = fini, .timeout = 60);
TestSuite(client_signals, .init = init_catching, .fini = fini, .timeout = 60);

Test(client, sees_the_file_and_stores_to_it)
{
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES);
	*PAGE(5) = 'x';
	cr_expect_eq(*fake_page(fake, FILE_NR, 5), 'x');
	*fake_page(fake, FILE_NR, 6) = 'y';
	cr_expect_eq(*PAGE(6), 'y');
}

Test(client, asks_once_for_a_page)
{
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	for (int i = 0; i < 10; i++)
		check_stamps(0, PAGES);
	cr_expect_eq(fake->nr_faults, PAGES);
}

Test(client, takes_what_is_around)
{
	fake->around = SESSION_MAX_SEGS;
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES);
	cr_expect_eq(fake->nr_faults, 1);
}

Test(client, maps_from_the_middle)
{
	fake->around = 7;
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(10, PROT_READ, 20);
	map -= LEN(20);
	check_stamps(20, 10);
}

Test(client, places_files_for_large_pages)
{
	do_map(PAGES, RW, 3);
	cr_expect_eq((uintptr_t)map % CHUNK_SIZE, LEN(3));
}

Test(client, reads_holes_as_zeros_and_fills_them_on_the_first_store)
{
	fake->around = 8;
	fake_truncate(fake, FILE_NR, LEN(PAGES));
	do_map(PAGES, RW, 0);
	for (uint64_t i = 0; i < PAGES; i++)
		cr_assert_eq(*PAGE(i), 0);
	cr_assert_null(fake_page(fake, FILE_NR, 9));
	PAGE(9)[100] = 7;
	cr_assert_not_null(fake_page(fake, FILE_NR, 9));
	cr_expect_eq(fake_page(fake, FILE_NR, 9)[100], 7);
	cr_expect_null(fake_page(fake, FILE_NR, 8));
	cr_expect_eq(*PAGE(8), 0);
	cr_expect_eq(PAGE(9)[100], 7);
}

Test(client, system_calls_fill_holes)
{
	int fds[2];

	lazily();
	fake_truncate(fake, FILE_NR, LEN(PAGES));
	do_map(PAGES, RW, 0);
	cr_assert_eq(*PAGE(3), 0);
	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(write(fds[1], "hello", 5), 5);
	cr_assert_eq(read(fds[0], (void *)(uintptr_t)PAGE(3), 5), 5);
	cr_expect_arr_eq(fake_page(fake, FILE_NR, 3), "hello", 5);
	cr_assert_eq(write(fds[1], (const void *)(uintptr_t)PAGE(4), 5), 5);
}

Test(client, copies_what_is_shared_on_the_first_store)
{
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES);
	fake_share(fake, FILE_NR, 0, PAGES);
	check_stamps(0, PAGES);
	for (uint64_t i = 0; i < PAGES; i += 3) {
		const unsigned char *before = fake_page(fake, FILE_NR, i);

		PAGE(i)[8] = 1;
		cr_assert_neq(fake_page(fake, FILE_NR, i), before);
		cr_assert_eq(fake_page(fake, FILE_NR, i)[8], 1);
		PAGE(i)[8] = PAGE(i)[512 + 8];
	}
	check_stamps(0, PAGES);
}

Test(client, follows_pages_that_move)
{
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	for (int i = 0; i < 20; i++) {
		check_stamps(0, PAGES);
		fake_move(fake, FILE_NR, 0, PAGES);
	}
}

Test(client_signals, past_the_end_is_sigbus_until_the_file_grows)
{
	fake_fill(fake, FILE_NR, 0, 2);
	do_map(PAGES, RW, 0);
	cr_expect_geq(load(PAGE(1)), 0);
	for (int i = 0; i < 3; i++) {
		cr_expect_eq(load(PAGE(2)), -SIGBUS);
		cr_expect_eq(last_code, BUS_ADRERR);
		cr_expect_eq(store(PAGE(2), 1), -SIGBUS);
	}
	fake_fill(fake, FILE_NR, 2, 1);
	check_stamps(0, 3);
	cr_expect_eq(load(PAGE(3)), -SIGBUS);
}

Test(client_signals, a_truncated_page_is_sigbus)
{
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES);
	fake_truncate(fake, FILE_NR, LEN(10));
	check_stamps(0, 10);
	for (uint64_t i = 10; i < PAGES; i++)
		cr_expect_eq(load(PAGE(i)), -SIGBUS, "%ju", (uintmax_t)i);
	fake_truncate(fake, FILE_NR, LEN(20));
	for (uint64_t i = 10; i < 20; i++)
		cr_expect_eq(load(PAGE(i)), 0);
}

Test(client_signals, system_calls_past_the_end_fail)
{
	int fds[2];

	lazily();
	fake_fill(fake, FILE_NR, 0, 1);
	do_map(PAGES, RW, 0);
	cr_assert_eq(pipe(fds), 0);
	cr_expect_eq(write(fds[1], (const void *)(uintptr_t)PAGE(1), 1), -1);
	cr_expect_eq(errno, EFAULT);
	/* Nobody got a signal that would ask again: time does. */
	fake_fill(fake, FILE_NR, 1, 1);
	for (int i = 0; i < 100; i++) {
		if (write(fds[1], (const void *)(uintptr_t)PAGE(1), 1) == 1)
			return;
		usleep(10000);
	}
	cr_assert_fail("still past the end");
}

Test(client_signals, errors_are_sigbus)
{
	static const int errors[] = { -ENOSPC, -EIO, -EPERM };

	lazily();
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	for (size_t i = 0; i < 3; i++) {
		fake->error = errors[i];
		cr_expect_eq(load(PAGE(i)), -SIGBUS);
		fake->error = 0;
		cr_expect_geq(load(PAGE(i)), 0);
	}
	check_stamps(0, PAGES);
}

Test(client_signals, lost_memory_is_sigbus)
{
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES);
	fake->error = -EIO;
	fake_recall(fake, FILE_NR, 4, 2, SESSION_RECALL_KILL);
	cr_expect_eq(load(PAGE(4)), -SIGBUS);
	cr_expect_eq(load(PAGE(5)), -SIGBUS);
	cr_expect_eq(load(PAGE(4)), -SIGBUS);
	fake->error = 0;
	check_stamps(0, PAGES);
}

Test(client_signals, a_store_to_a_read_only_mapping_is_sigsegv)
{
	fake_fill(fake, FILE_NR, 0, 4);
	do_map(PAGES, PROT_READ, 0);
	cr_expect_eq(store(PAGE(0), 1), -SIGSEGV);
	check_stamps(0, 4);
	cr_expect_eq(store(PAGE(0), 1), -SIGSEGV);
	cr_expect_eq(store(NULL, 1), -SIGSEGV);
	check_stamps(0, 4);
}

Test(client_signals, protections_change)
{
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES);
	cr_assert_eq(
		foliofs_protect((void *)(uintptr_t)PAGE(8), LEN(4), PROT_READ),
		0);
	cr_expect_eq(store(PAGE(7), 1), 0);
	cr_expect_eq(store(PAGE(8), 1), -SIGSEGV);
	cr_expect_eq(store(PAGE(11), 1), -SIGSEGV);
	cr_expect_eq(store(PAGE(12), 1), 0);
	check_stamps(8, 4);
	cr_assert_eq(foliofs_protect((void *)(uintptr_t)PAGE(0), LEN(PAGES),
				     PROT_NONE),
		     0);
	cr_expect_eq(load(PAGE(9)), -SIGSEGV);
	cr_assert_eq(
		foliofs_protect((void *)(uintptr_t)PAGE(0), LEN(PAGES), RW), 0);
	check_stamps(8, 4);
	cr_expect_eq(store(PAGE(9), 1), 0);
	cr_expect_eq(foliofs_protect((void *)(uintptr_t)PAGE(0), LEN(PAGES + 1),
				     PROT_READ),
		     -ENOMEM);
}

Test(client_signals, after_the_daemon_memory_stays)
{
	void *p;

	lazily();
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, 10);
	fake_die(fake);
	check_stamps(0, 10);
	*PAGE(3) = 9;
	cr_expect_eq(*fake_page(fake, FILE_NR, 3), 9);
	for (int i = 0; i < 3; i++)
		cr_expect_eq(load(PAGE(20)), -SIGBUS);
	cr_expect_eq(foliofs_sync((const void *)(uintptr_t)PAGE(3), 1),
		     -ENOTCONN);
	cr_expect_eq(foliofs_map(file, 1, RW, 0, 0, &p), -ENOTCONN);
	cr_expect_eq(foliofs_unmap((void *)(uintptr_t)map, LEN(PAGES)), 0);
	cr_expect_eq(load(PAGE(3)), -SIGSEGV);
}

struct toucher {
	pthread_t thread;
	_Atomic(int) result;
};

static void *touch_lost(void *arg)
{
	struct toucher *t = arg;

	/* Only this thread jumps. */
	atomic_store(&t->result, load(PAGE(2)));
	return NULL;
}

Test(client_signals, who_waits_for_a_daemon_that_dies_is_let_go)
{
	struct toucher t = { .result = 1 };

	lazily();
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	/* Its fault waits for this. */
	pthread_mutex_lock(&fake->lock);
	fake->file[FILE_NR].busy = true;
	pthread_mutex_unlock(&fake->lock);
	pthread_create(&t.thread, NULL, touch_lost, &t);
	for (bool waits = false; !waits;) {
		pthread_mutex_lock(&fake->lock);
		waits = fake->nr_later > 0;
		pthread_mutex_unlock(&fake->lock);
		usleep(100);
	}
	fake_die(fake);
	pthread_join(t.thread, NULL);
	cr_expect_eq(atomic_load(&t.result), -SIGBUS);
}

Test(client_signals, another_daemon_can_be_attached)
{
	struct fake *dead = fake;

	lazily();
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	fake_die(dead);
	cr_expect_eq(load(PAGE(0)), -SIGBUS);
	foliofs_detach(file);
	fake = fake_new(PAGES * 4, PAGES);
	fake_fill(fake, FILE_NR, 0, PAGES);
	file = attach(FILE_NR);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES);
	fake_free(dead);
}

Test(client, a_child_inherits_nothing)
{
	int status;
	pid_t pid;

	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES / 2);
	for (int page = 0; page < PAGES; page += PAGES - 1) {
		pid = fork();
		if (pid == 0) {
			signal(SIGSEGV, SIG_DFL);
			_exit(*PAGE(page));
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV,
			  "status %x", status);
	}
	check_stamps(0, PAGES);
}

Test(client, a_child_gets_clear_errors_and_may_attach)
{
	struct foliofs_ioc_token token;
	struct fake *other = fake_new(PAGES * 4, PAGES);
	int status;
	pid_t pid;

	fake_fill(fake, FILE_NR, 0, PAGES);
	fake_fill(other, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES);
	token = fake_token(other, FILE_NR);
	pid = fork();
	if (pid == 0) {
		struct foliofs_file *mine;
		void *p;

		if (foliofs_map(file, 1, RW, 0, 0, &p) != -ENOTCONN)
			_exit(1);
		foliofs_detach(file);
		if (client_attach(&token, &mine))
			_exit(2);
		if (foliofs_map(mine, LEN(PAGES), RW, 0, 0, &p))
			_exit(3);
		map = p;
		check_stamps(0, PAGES);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0, "status %x", status);
	fake_move(fake, FILE_NR, 0, PAGES);
	check_stamps(0, PAGES);
	fake_free(other);
}

Test(client, unmaps_parts)
{
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES);
	cr_assert_eq(foliofs_unmap((void *)(uintptr_t)PAGE(10), LEN(10)), 0);
	cr_expect_eq(fake->nr_vmas, 1);
	check_stamps(0, 10);
	check_stamps(20, PAGES - 20);
	cr_expect_eq(foliofs_sync((const void *)(uintptr_t)PAGE(9), LEN(2)),
		     -ENOMEM);
	fake_move(fake, FILE_NR, 0, PAGES);
	check_stamps(0, 10);
	check_stamps(20, PAGES - 20);
	cr_assert_eq(foliofs_unmap((void *)(uintptr_t)map, LEN(PAGES)), 0);
	cr_expect_eq(fake->nr_vmas, 0);
	cr_expect_eq(foliofs_unmap((void *)(uintptr_t)map, LEN(PAGES)), 0);
}

Test(client, a_mapping_keeps_its_file)
{
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	foliofs_detach(file);
	file = NULL;
	cr_expect_eq(fake->nr_open, 1);
	check_stamps(0, PAGES);
	cr_assert_eq(foliofs_unmap((void *)(uintptr_t)map, LEN(PAGES)), 0);
	cr_expect_eq(fake->nr_open, 0);
}

Test(client, maps_where_it_is_told)
{
	void *p;

	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	p = (void *)(uintptr_t)PAGE(4);
	cr_assert_eq(foliofs_map(file, LEN(2), RW, FOLIOFS_MAP_FIXED,
				 (off_t)LEN(30), &p),
		     0);
	cr_expect_eq(p, PAGE(4));
	check_stamps(0, 4);
	map -= LEN(30 - 4);
	check_stamps(30, 2);
	map += LEN(30 - 4);
	check_stamps(6, PAGES - 6);
}

Test(client, a_sync_touches_only_what_was_stored)
{
	lazily();
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	*PAGE(3) = 1;
	*PAGE(40) = 1;
	cr_expect_eq(foliofs_sync((const void *)(uintptr_t)map, LEN(PAGES)), 0);
	cr_expect_eq(fake->nr_faults, 2);
	cr_expect_eq(fake->nr_syncs, 1);
}

Test(client, a_sync_of_what_the_file_lost_is_nothing)
{
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	check_stamps(0, PAGES);
	fake_truncate(fake, FILE_NR, LEN(5));
	cr_expect_eq(foliofs_sync((const void *)(uintptr_t)map, LEN(PAGES)), 0);
	check_stamps(0, 5);
}

Test(client, pins_across_mappings)
{
	struct foliofs_pin *pin;
	void *p;

	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	p = (void *)(uintptr_t)PAGE(4);
	cr_assert_eq(foliofs_map(file, LEN(2), RW, FOLIOFS_MAP_FIXED,
				 (off_t)LEN(30), &p),
		     0);
	cr_assert_eq(foliofs_pin((const void *)(uintptr_t)PAGE(1), LEN(8),
				 FOLIOFS_PIN_WRITE, &pin),
		     0);
	cr_expect_eq(fake->nr_pins, 3);
	cr_expect_eq(foliofs_unpin(pin), 0);
	cr_expect_eq(fake->nr_pins, 0);
	cr_expect_eq(foliofs_pin((const void *)(uintptr_t)PAGE(PAGES - 1),
				 LEN(2), 0, &pin),
		     -EFAULT);
	cr_expect_eq(fake->nr_pins, 0);
}

Test(client, populates_and_gives_back)
{
	uint64_t nr;

	lazily();
	fake->around = 16;
	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES * 2, RW, 0);
	cr_assert_eq(foliofs_advise((void *)(uintptr_t)map, LEN(PAGES * 2),
				    FOLIOFS_WILLNEED),
		     0);
	nr = fake->nr_faults;
	cr_expect_eq(nr, PAGES / 16);
	check_stamps(0, PAGES);
	cr_expect_eq(fake->nr_faults, nr);
	cr_assert_eq(foliofs_advise((void *)(uintptr_t)PAGE(16), LEN(16),
				    FOLIOFS_DONTNEED),
		     0);
	cr_expect_eq(fake->nr_vmas, 2);
	check_stamps(0, PAGES);
	cr_expect_eq(fake->nr_faults, nr + 1);
	cr_assert_eq(foliofs_unmap((void *)(uintptr_t)map, LEN(PAGES * 2)), 0);
	cr_expect_eq(fake->nr_vmas, 0);
}

Test(client, populates_for_stores)
{
	int fds[2];

	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	fake_share(fake, FILE_NR, 0, PAGES);
	check_stamps(0, PAGES);
	cr_assert_eq(foliofs_advise((void *)(uintptr_t)map, LEN(PAGES),
				    FOLIOFS_WILLNEED_WRITE),
		     0);
	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(write(fds[1], "hello", 5), 5);
	cr_expect_eq(read(fds[0], (void *)(uintptr_t)PAGE(3), 5), 5);
}

static int count_holds(const struct foliofs_hold *hold, void *ctx)
{
	int *nr = ctx;

	cr_expect_eq(hold->pid, 42);
	cr_expect_eq(hold->pos, LEN(*nr));
	cr_expect_str_eq(hold->comm, "somebody");
	return ++*nr == 10;
}

Test(client, lists_holders_to_the_end)
{
	int nr = 0;

	cr_expect_eq(foliofs_holders(file, count_holds, &nr), 0);
	cr_expect_eq(nr, 3);
}

Test(client, read_only_files_are_not_mapped_for_stores)
{
	struct foliofs_file *ro;
	void *p;

	fake->read_only = true;
	ro = attach(2);
	cr_expect_eq(foliofs_map(ro, 1, RW, 0, 0, &p), -EACCES);
	cr_expect_eq(foliofs_map(ro, 1, PROT_READ, 0, 0, &p), 0);
	cr_expect_eq(foliofs_protect(p, 1, RW), -EACCES);
	cr_expect_eq(foliofs_unmap(p, 1), 0);
	foliofs_detach(ro);
}

Test(client, refuses_mistakes)
{
	void *p = NULL;

	cr_expect_eq(foliofs_map(file, 0, RW, 0, 0, &p), -EINVAL);
	cr_expect_eq(foliofs_map(file, 1, RW, 0, 1, &p), -EINVAL);
	cr_expect_eq(foliofs_map(file, 1, RW, 0, -4096, &p), -EINVAL);
	cr_expect_eq(foliofs_map(file, 1, RW, 0x80, 0, &p), -EINVAL);
	cr_expect_eq(foliofs_map(file, SIZE_MAX, RW, 0, 0, &p), -EINVAL);
	cr_expect_eq(foliofs_map(file, SIZE_MAX / 4, RW, 0, 0, &p), -ENOMEM);
	cr_expect_null(p);
	cr_expect_eq(foliofs_attach(0, 1, &file), -EINVAL);
}

Test(client, knows_files_that_are_not_of_a_foliofs)
{
	struct foliofs_file *f = NULL;
	int fd = open("/dev/null", O_RDWR);

	cr_expect_eq(foliofs_attach(fd, 0, &f), -ENOTTY);
	cr_expect_eq(foliofs_attach(-1, 0, &f), -EBADF);
	cr_expect_eq(foliofs_reflink(fd, 0, fd, 0, 0), -ENOTTY);
	cr_expect_null(f);
}

Test(client, descriptors_of_programs_start_low)
{
	int low = open("/dev/null", O_RDONLY), next;

	do_map(1, RW, 0);
	cr_assert_eq(foliofs_unmap((void *)(uintptr_t)map, 1), 0);
	foliofs_detach(file);
	file = attach(2);
	next = open("/dev/null", O_RDONLY);
	cr_expect_leq(next, low + 8);
}

/*
 * Every second page of a file at another place: each is a mapping of its own,
 * more than the kernel allows.  What does not fit is asked for again.
 */
Test(client, more_pages_than_the_kernel_has_mappings, .timeout = 300)
{
	enum {
		NR = 80000
	};
	struct fake *big = fake_new(NR + 100, NR);
	const struct foliofs_ioc_token token = fake_token(big, FILE_NR);
	struct foliofs_file *f;
	void *p;

	big->around = SESSION_MAX_SEGS;
	fake_fill(big, FILE_NR, 0, NR);
	cr_assert_eq(client_attach(&token, &f), 0);
	cr_assert_eq(foliofs_map(f, LEN(NR), RW, 0, 0, &p), 0);
	map = p;
	for (uint64_t i = 0; i < NR; i++) {
		uint64_t found;

		memcpy(&found, (const void *)(uintptr_t)PAGE(i), sizeof(found));
		cr_assert_eq(found, fake_stamp(FILE_NR, i));
	}
	check_stamps(0, 3);
	cr_assert_eq(foliofs_unmap(p, LEN(NR)), 0);
	foliofs_detach(f);
	fake_free(big);
}

#define NR_STORM 200

static void *touch_storm(void *arg)
{
	uint64_t page = (uintptr_t)arg % PAGES;
	uint64_t found;

	memcpy(&found, (const void *)(uintptr_t)PAGE(page), sizeof(found));
	return (void *)(uintptr_t)(found == fake_stamp(FILE_NR, page));
}

/* More threads at a time than a link has slots for. */
Test(client, many_threads_touch_at_once)
{
	static pthread_t thread[NR_STORM];

	fake_fill(fake, FILE_NR, 0, PAGES);
	do_map(PAGES, RW, 0);
	pthread_mutex_lock(&fake->lock);
	for (uintptr_t i = 0; i < NR_STORM; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, touch_storm,
					    (void *)i),
			     0);
	pthread_mutex_unlock(&fake->lock);
	for (int i = 0; i < NR_STORM; i++) {
		void *ok;

		pthread_join(thread[i], &ok);
		cr_expect_not_null(ok);
	}
}

/* Returns NULL, or the mapping that was not there. */
static void *map_and_unmap(void *arg)
{
	struct foliofs_file *mine = arg;
	uint64_t found;
	void *p = NULL;

	for (unsigned int i = 0; i < 1500; i++) {
		cr_assert_eq(foliofs_map(mine, LEN(4), PROT_READ, 0, 0, &p), 0);
		memcpy(&found, p, sizeof(found));
		if (found != fake_stamp(FILE_NR, 0) || foliofs_unmap(p, LEN(4)))
			return p;
	}
	return NULL;
}

/* The kernel gives an address again as soon as it is free. */
Test(client, an_unmap_leaves_the_next_mapping_alone, .timeout = 120)
{
	pthread_t threads[3];
	void *wrong;

	fake_fill(fake, FILE_NR, 0, PAGES);
	for (size_t i = 0; i < 3; i++)
		cr_assert_eq(
			pthread_create(&threads[i], NULL, map_and_unmap, file),
			0);
	for (size_t i = 0; i < 3; i++) {
		cr_assert_eq(pthread_join(threads[i], &wrong), 0);
		cr_expect_null(wrong);
	}
}
