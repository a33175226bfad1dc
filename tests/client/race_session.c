/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/client/race_session.c - the library and the session server together
 *
 * Threads load from and store to a file through a mapping of libfoliofs, while
 * the file is truncated, punched, cloned and written to by the filesystem in
 * memory that the tests of dax/ have, and while another file takes the blocks
 * that become free.  Each byte of the file says whose it is: a byte of the
 * other file is a block that was given away too early.
 *
 * Arguments: operations, seed.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dax/lib/client.h"
#include "tests/dax/support/raw.h"

#define NR_PAGES   48u
#define NR_THREADS 3

static struct memfs *fs;
static struct memfile *mine, *twin, *other;
static struct rawfs rf;
static volatile unsigned char *map;
static _Atomic(bool) stop;
static _Atomic(uint64_t) nr_loads, nr_stores, nr_sigbus;
static __thread sigjmp_buf jump;

#define check(cond)                                                         \
	do {                                                                \
		if (!(cond)) {                                              \
			fprintf(stderr, "race_session: line %d: %s (%s)\n", \
				__LINE__, #cond, strerror(errno));          \
			abort();                                            \
		}                                                           \
	} while (0)

static uint64_t rnd(uint64_t *seed, uint64_t n)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return (*seed >> 11) % n;
}

static unsigned char tag(const struct memfile *file, uint64_t page)
{
	return (unsigned char)(page % 100 + (file == other ? 101 : 1));
}

static void on_sigbus(int sig)
{
	siglongjmp(jump, sig);
}

/*
 * Not as atomics: ThreadSanitizer does those with a lock of its own held, and
 * waits for it in the handler of the signal that they raise.
 */
#define UNSEEN __attribute__((noinline, no_sanitize("thread")))

UNSEEN static unsigned char load(const volatile unsigned char *p)
{
	return *p;
}

UNSEEN static void store(volatile unsigned char *p, unsigned char value)
{
	*p = value;
}

static void touch(uint64_t page, uint64_t byte, bool write)
{
	volatile unsigned char *p = map + page * BLOCK_SIZE + byte;
	unsigned char found;

	if (sigsetjmp(jump, 1)) {
		atomic_fetch_add(&nr_sigbus, 1);
		return;
	}
	if (write) {
		store(p, tag(mine, page));
		atomic_fetch_add(&nr_stores, 1);
		return;
	}
	found = load(p);
	atomic_fetch_add(&nr_loads, 1);
	if (found && found != tag(mine, page)) {
		fprintf(stderr, "race_session: page %ju has a byte %u\n",
			(uintmax_t)page, found);
		abort();
	}
}

static void *work(void *arg)
{
	uint64_t seed = 99 + (uintptr_t)arg;

	while (!atomic_load(&stop))
		touch(rnd(&seed, NR_PAGES), rnd(&seed, BLOCK_SIZE),
		      rnd(&seed, 4) == 0);
	return NULL;
}

static void write_pages(struct memfile *file, uint64_t first, uint64_t nr)
{
	unsigned char buf[BLOCK_SIZE];

	for (uint64_t i = first; i < first + nr && i < NR_PAGES; i++) {
		memset(buf, tag(file, i), sizeof(buf));
		file_write(file, i * BLOCK_SIZE, buf, sizeof(buf));
	}
}

static void change(uint64_t *seed)
{
	struct dax_task task = { 0 };
	uint64_t first = rnd(seed, NR_PAGES), nr = 1 + rnd(seed, 8);

	if (nr > NR_PAGES - first)
		nr = NR_PAGES - first;
	switch (rnd(seed, 8)) {
	case 0:
		file_truncate(mine, first, true, &task);
		write_pages(other, first, nr);
		break;
	case 1:
		file_truncate(mine, NR_PAGES, true, &task);
		break;
	case 2:
		file_punch(mine, first, nr, true, &task);
		write_pages(other, first, nr);
		break;
	case 3:
		file_reflink(mine, twin, true, &task);
		break;
	case 4:
		file_truncate(other, first, true, &task);
		file_truncate(other, NR_PAGES, true, &task);
		break;
	default:
		write_pages(mine, first, nr);
	}
}

static struct foliofs_ioc_token token_for(struct memfile *file)
{
	struct foliofs_ioc_token token = { .flags = FOLIOFS_TOKEN_DAX };

	check(session_token(rf.srv, &file->mapping, true, token.token) == 0);
	snprintf(token.socket, sizeof(token.socket), "%s",
		 session_server_path(rf.srv));
	return token;
}

int main(int argc, char **argv)
{
	uint64_t nr_ops = argc > 1 ? strtoull(argv[1], NULL, 0) : 5000;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 4711;
	struct foliofs_ioc_token token;
	pthread_t thread[NR_THREADS];
	struct foliofs_file *file;
	void *addr;
	int ret;

	signal(SIGBUS, on_sigbus);
	fs = memfs_create();
	mine = file_create(fs, NR_PAGES);
	twin = file_create(fs, NR_PAGES);
	other = file_create(fs, NR_PAGES);
	check(rawfs_create(&rf, fs, NULL, 20000) == 0);
	write_pages(mine, 0, NR_PAGES);
	write_pages(other, 0, NR_PAGES);
	token = token_for(mine);
	ret = client_attach(&token, &file);
	if (ret == -EPERM || ret == -ENOSYS) {
		fprintf(stderr, "race_session: no userfaultfd here\n");
		return 77;
	}
	check(ret == 0);
	check(foliofs_map(file, NR_PAGES * BLOCK_SIZE, PROT_READ | PROT_WRITE,
			  0, 0, &addr) == 0);
	map = addr;
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		check(pthread_create(&thread[i], NULL, work, (void *)i) == 0);
	for (uint64_t i = 0; i < nr_ops; i++)
		change(&seed);
	atomic_store(&stop, true);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(thread[i], NULL);
	check(foliofs_sync(addr, NR_PAGES * BLOCK_SIZE) == 0);
	check(foliofs_unmap(addr, NR_PAGES * BLOCK_SIZE) == 0);
	foliofs_detach(file);
	printf("%ju operations, %ju loads, %ju stores, %ju past the end\n",
	       (uintmax_t)nr_ops, (uintmax_t)nr_loads, (uintmax_t)nr_stores,
	       (uintmax_t)nr_sigbus);
	check(nr_loads > 0 && nr_stores > 0);
	rawfs_destroy(&rf);
	memfs_check(fs, NULL);
	memfs_destroy(fs);
	return 0;
}
