/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/stamp.c - a mapping that is taken away all the time, on a mount
 *
 * Threads load from and store to a mapped file, while truncates, punches,
 * clones and writes take its pages back, and other files get the blocks that
 * it loses.  Every word of a file is its stamp, or zero where the file may
 * have a hole: a word of another file or of another page is a block that was
 * given away too early, and a zero elsewhere is a recall that was seen half
 * done.  The other files are checked as well, for stores that came too late.
 *
 * FOLIOFS_TEST_STAMPS says how many times a page is taken back.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

#define PAGE	   4096
#define WORDS	   (PAGE / sizeof(uint64_t))
#define NR_PAGES   64
#define NR_WHOLE   16 /* pages that never go */
#define NR_OTHER   24 /* pages of the file that takes what is free */
#define NR_THREADS 3
#define PUNCH	   (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define FICLONE	   _IOW(0x94, 9, int)

enum file {
	MAPPED = 1,
	OTHER = 2
};

static volatile uint64_t *map;
static _Atomic(bool) over;
static _Atomic(uint64_t) nr_loads, nr_stores, nr_buses;
static _Thread_local sigjmp_buf jump;

static uint64_t stamp(enum file file, uint64_t page)
{
	return UINT64_C(0x5a5a000000000000) | (uint64_t)file << 32 | page;
}

static void on_sigbus(int sig)
{
	siglongjmp(jump, sig);
}

static void check_word(uint64_t page, uint64_t found)
{
	if (found == stamp(MAPPED, page) || (found == 0 && page >= NR_WHOLE))
		return;
	FAIL("page %ju has %#jx", (uintmax_t)page, (uintmax_t)found);
}

static void *touch_pages(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	while (!atomic_load(&over)) {
		uint64_t page = rnd(&seed) % NR_PAGES;
		volatile uint64_t *p = &map[page * WORDS + rnd(&seed) % WORDS];

		if (sigsetjmp(jump, 1)) {
			CHECK(page >= NR_WHOLE, "SIGBUS at page %ju",
			      (uintmax_t)page);
			atomic_fetch_add(&nr_buses, 1);
			continue;
		}
		if (rnd(&seed) % 4) {
			check_word(page, *p);
			atomic_fetch_add(&nr_loads, 1);
		} else {
			*p = stamp(MAPPED, page);
			atomic_fetch_add(&nr_stores, 1);
		}
	}
	return NULL;
}

/* By the kernel's way, whatever is preloaded. */
static void write_stamps(int fd, enum file file, uint64_t first, uint64_t nr)
{
	uint64_t buf[NR_PAGES * WORDS];

	for (uint64_t i = 0; i < nr * WORDS; i++)
		buf[i] = stamp(file, first + i / WORDS);
	EQ(syscall(SYS_pwrite64, fd, buf, nr * PAGE, first * PAGE),
	   (long)(nr * PAGE));
}

/* A file that takes what is free, has it for a while, and checks it. */
static void churn(int fd)
{
	uint64_t buf[NR_OTHER * WORDS];
	long len = syscall(SYS_pread64, fd, buf, sizeof(buf), 0);

	for (uint64_t i = 0; i < (uint64_t)OK(len) / sizeof(*buf); i++)
		EQ(buf[i], stamp(OTHER, i / WORDS));
	OK(ftruncate(fd, 0));
	write_stamps(fd, OTHER, 0, NR_OTHER);
}

static void take_back(int fd, int clone, int other, uint64_t *seed)
{
	uint64_t first = NR_WHOLE + rnd(seed) % (NR_PAGES - NR_WHOLE);
	uint64_t nr = 1 + rnd(seed) % (NR_PAGES - first);

	switch (rnd(seed) % 6) {
	case 0:
		OK(ftruncate(fd,
			     (off_t)(first * WORDS + rnd(seed) % WORDS) * 8));
		churn(other);
		OK(ftruncate(fd, NR_PAGES * PAGE));
		break;
	case 1:
		OK(fallocate(fd, PUNCH, (off_t)first * PAGE, (off_t)nr * PAGE));
		break;
	case 2:
		OK(ioctl(clone, FICLONE, fd));
		break;
	case 3:
		OK(ftruncate(clone, 0));
		churn(other);
		break;
	default:
		write_stamps(fd, MAPPED, first, nr);
	}
}

MTEST(stamp, no_wrong_word, .timeout = 400)
{
	const char *nr = getenv("FOLIOFS_TEST_STAMPS");
	long nr_recalls = nr ? atol(nr) : 100000;
	int fd = open_ok("f", O_RDWR | O_CREAT);
	int clone = open_ok("clone", O_RDWR | O_CREAT);
	int other = open_ok("other", O_RDWR | O_CREAT);
	pthread_t thread[NR_THREADS];
	uint64_t seed = 4711;
	void *p;

	if (!getenv("FOLIOFS_TEST_PRELOAD"))
		SKIP("mappings of the kernel are not ours to take back");
	write_stamps(fd, MAPPED, 0, NR_PAGES);
	p = mmap(NULL, NR_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		 0);
	CHECK(p != MAP_FAILED, "mmap: %s", mtest_errname(errno));
	map = p;
	signal(SIGBUS, on_sigbus);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		EQ(pthread_create(&thread[i], NULL, touch_pages,
				  (void *)(i + 1)),
		   0);
	for (long i = 0; i < nr_recalls; i++)
		take_back(fd, clone, other, &seed);
	atomic_store(&over, true);
	for (int i = 0; i < NR_THREADS; i++)
		EQ(pthread_join(thread[i], NULL), 0);
	printf("# %ld times, %ju loads, %ju stores, %ju SIGBUS\n", nr_recalls,
	       (uintmax_t)nr_loads, (uintmax_t)nr_stores, (uintmax_t)nr_buses);
	churn(other);
	close_ok(other);
	close_ok(clone);
	close_ok(fd);
}
