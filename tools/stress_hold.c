/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/stress_hold.c - clients of foliofs-stress that map and pin files
 *
 * A pin is looked at as a device would: through a mapping of the whole
 * device, at the place where the page was when it was pinned.  While it is
 * held, that place must keep what the page was since then.
 *
 * Who has something pinned makes no call that waits for an operation on a
 * file, since that operation may wait for the pin.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dax/lib/foliofs.h"
#include "tools/stress.h"

#define NR_HOLDS 6u
#define NR_PINS	 3u

/* Files that a client has mapped, as a whole. */
struct hold {
	struct object *o;
	struct foliofs_file *file;
	unsigned char *addr;
};

struct held_pin {
	struct foliofs_pin *pin;
	const struct hold *hold;
	unsigned int page;
	uint64_t since;
	uint64_t block; /* UINT64_MAX: not known */
	bool write;
	uint64_t nr_ended; /* of the object, before the pin */
};

static _Thread_local struct hold holds[NR_HOLDS];
static _Thread_local struct held_pin pins[NR_PINS];
static _Thread_local sigjmp_buf jump;
static _Thread_local volatile sig_atomic_t armed;

static unsigned char *device;
static uint64_t device_size;
static ino_t device_ino;

static void on_sigbus(int sig, siginfo_t *si, void *uc)
{
	sigset_t mask;

	(void)si;
	(void)uc;
	if (armed) {
		/* As the handler of the library that called this one left it:
		 * saving the mask each time would cost a call for each page. */
		sigemptyset(&mask);
		sigaddset(&mask, SIGBUS);
		sigaddset(&mask, SIGSEGV);
		pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
		siglongjmp(jump, 1);
	}
	signal(sig, SIG_DFL);
	raise(sig);
}

void device_open(void)
{
	int fd = open(stress->device, O_RDWR | O_CLOEXEC);
	struct stat st;
	off_t size;
	void *p;

	if (fd == -1)
		return;
	size = lseek(fd, 0, SEEK_END);
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && size > 0) {
		p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED,
			 fd, 0);
		if (p != MAP_FAILED) {
			device = p;
			device_size = (uint64_t)size;
			device_ino = st.st_ino;
		}
	}
	close(fd);
}

void holder_init(void)
{
	/* Before the library has its own, which then passes on to this one. */
	struct sigaction sa = { .sa_sigaction = on_sigbus,
				.sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(SIGBUS, &sa, NULL);
}

/* Word for word, whatever the compiler would make of it. */

__attribute__((no_sanitize("thread", "address"))) static unsigned int
load_words(const volatile uint64_t *from, volatile uint64_t *to)
{
	volatile unsigned int i = 0;

	armed = 1;
	if (sigsetjmp(jump, 0) == 0)
		for (; i < WORDS; i++)
			to[i] = le64toh(from[i]);
	armed = 0;
	return i;
}

__attribute__((no_sanitize("thread", "address"))) static bool
store_words(volatile uint64_t *to, const volatile uint64_t *from)
{
	volatile bool all = false;

	armed = 1;
	if (sigsetjmp(jump, 0) == 0) {
		for (unsigned int i = 0; i < WORDS; i++)
			to[i] = htole64(from[i]);
		all = true;
	}
	armed = 0;
	return all;
}

/* A mapping of this thread, or NULL. */
static struct hold *any_hold(void)
{
	unsigned int i = (unsigned int)rnd(NR_HOLDS);

	for (unsigned int n = 0; n < NR_HOLDS; n++, i++)
		if (holds[i % NR_HOLDS].o)
			return &holds[i % NR_HOLDS];
	return NULL;
}

static volatile uint64_t *page_at(const struct hold *h, unsigned int page)
{
	return (volatile uint64_t *)(h->addr + page * BLOCK_SIZE);
}

/* Where files change is where it is interesting: at the front. */
static unsigned int any_page(void)
{
	unsigned int nr = stress->profile->nr_pages;

	return (unsigned int)rnd(1 + rnd(nr));
}

static size_t map_len(void)
{
	return stress->profile->nr_pages * BLOCK_SIZE;
}

static void detach(struct hold *h)
{
	int ret;

	op_begin(OP_DETACH);
	ret = foliofs_unmap(h->addr, map_len());
	foliofs_detach(h->file);
	object_put(h->o);
	h->o = NULL;
	op_end(OP_DETACH, ret);
}

static void attach(struct hold *h)
{
	struct object *o;
	void *addr;
	int fd, ret;

	o = object_open(O_RDWR, &fd);
	if (!o)
		return;
	op_begin(OP_ATTACH);
	ret = foliofs_attach(fd, 0, &h->file);
	if (ret == 0) {
		ret = foliofs_map(h->file, map_len(), PROT_READ | PROT_WRITE,
				  rnd(4) ? 0 : FOLIOFS_MAP_POPULATE, 0, &addr);
		if (ret)
			foliofs_detach(h->file);
	}
	close(fd);
	if (ret == 0) {
		h->addr = addr;
		h->o = o;
	} else {
		object_put(o);
	}
	op_end(OP_ATTACH, ret);
}

static void load(const struct hold *h, unsigned int page)
{
	uint64_t words[WORDS], from, to;
	unsigned int nr;

	op_begin(OP_LOAD);
	from = now();
	nr = load_words(page_at(h, page), words);
	to = now();
	page_check(h->o, page, words, nr, from, to, UINT64_MAX, "load");
	if (nr < WORDS) {
		self->sig_pages++;
		if (value_allowed(h->o, page, VALUE_BEYOND, from, to) ==
			    ANSWER_NO &&
		    !stress->may_revoke)
			finding(h->o, page, UINT64_MAX,
				"load: SIGBUS inside the file, at moments "
				"[%ju, %ju]",
				(uintmax_t)from, (uintmax_t)to);
	}
	op_end(OP_LOAD, 0);
}

static void store(const struct hold *h, unsigned int page)
{
	uint64_t words[WORDS], tag = new_tag(h->o, page), begin;
	bool all;

	page_fill(words, tag);
	op_begin(OP_STORE);
	begin = rec_begin(h->o, page, tag);
	all = store_words(page_at(h, page), words);
	rec_end(h->o, page, begin, all ? REC_DONE : REC_MAYBE);
	if (!all)
		self->sig_pages++;
	op_end(OP_STORE, 0);
}

/*
 * The block that is mapped at @addr, as the kernel knows it, or UINT64_MAX.
 * With no stdio: other threads change what is mapped as we read.
 */
static uint64_t block_at(uintptr_t addr)
{
	unsigned long long start, end, off, ino;
	uint64_t ret = UINT64_MAX;
	char line[512];
	FILE *f;

	f = fopen("/proc/self/maps", "re");
	if (!f)
		return ret;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx-%llx %*s %llx %*s %llu", &start, &end,
			   &off, &ino) != 4 ||
		    addr < start || addr >= end)
			continue;
		if (ino == device_ino && device)
			ret = (off + (addr - start)) >> BLOCK_SHIFT;
		break;
	}
	fclose(f);
	return ret;
}

static uint64_t mapped_block(const struct hold *h, unsigned int page)
{
	uint64_t words[WORDS], block;

	if (load_words(page_at(h, page), words) < WORDS)
		return UINT64_MAX;
	block = block_at((uintptr_t)page_at(h, page));
	return block < device_size >> BLOCK_SHIFT ? block : UINT64_MAX;
}

/* Free place for a pin, or NULL. */
static struct held_pin *pin_place(void)
{
	for (unsigned int i = 0; i < NR_PINS; i++)
		if (!pins[i].pin)
			return &pins[i];
	return NULL;
}

bool holder_pinned(void)
{
	for (unsigned int i = 0; i < NR_PINS; i++)
		if (pins[i].pin)
			return true;
	return false;
}

static struct held_pin *any_pin(void)
{
	unsigned int i = (unsigned int)rnd(NR_PINS);

	for (unsigned int n = 0; n < NR_PINS; n++, i++)
		if (pins[i % NR_PINS].pin)
			return &pins[i % NR_PINS];
	return NULL;
}

/*
 * The place of a page for writing is known when it is mapped at the same block
 * before and after it was pinned, and nothing that moves blocks has ended
 * between the two.  One for reading is kept in place only by itself: another
 * file may have it, too, and store to it.
 */
static void pin_locate(struct held_pin *p, uint64_t before)
{
	uint64_t after = mapped_block(p->hold, p->page);

	p->block = UINT64_MAX;
	if (p->write && before == after && after != UINT64_MAX &&
	    atomic_load(&p->hold->o->nr_ended) == p->nr_ended)
		p->block = after;
}

static void pin_look(struct held_pin *p)
{
	uint64_t words[WORDS];
	const uint64_t *at;

	if (p->block == UINT64_MAX) {
		load(p->hold, p->page);
		return;
	}
	op_begin(OP_PIN_LOAD);
	at = (const uint64_t *)(device + (p->block << BLOCK_SHIFT));
	load_words(at, words);
	page_check(p->hold->o, p->page, words, WORDS, p->since, now(), p->block,
		   "pin");
	op_end(OP_PIN_LOAD, 0);
}

static void pin(const struct hold *h, unsigned int page)
{
	struct held_pin *p = pin_place();
	unsigned int flags = 0;
	uint64_t before;
	int ret;

	if (!p)
		return;
	p->hold = h;
	p->page = page;
	p->write = rnd(8) != 0;
	if (p->write) {
		flags |= FOLIOFS_PIN_WRITE;
		store(h, page);
	}
	p->nr_ended = atomic_load(&h->o->nr_ended);
	p->since = now();
	before = device ? mapped_block(h, page) : UINT64_MAX;
	op_begin(OP_PIN);
	ret = foliofs_pin(page_at(h, page) ? h->addr + page * BLOCK_SIZE : NULL,
			  BLOCK_SIZE, flags, &p->pin);
	if (ret)
		p->pin = NULL;
	op_end(OP_PIN, ret == -EFAULT ? -EAGAIN : ret);
	if (ret)
		return;
	pin_locate(p, before);
	if (p->block != UINT64_MAX)
		event_add(p->block, EVENT_PINNED, OP_PIN,
			  atomic_load(&h->o->id), page);
	pin_look(p);
}

/* As a device: the page may have left the file meanwhile, with some policy. */
static void pin_store(struct held_pin *p)
{
	uint64_t words[WORDS], tag, begin;
	struct object *o = p->hold->o;
	bool sure;

	if (p->block == UINT64_MAX) {
		store(p->hold, p->page);
		return;
	}
	tag = new_tag(o, p->page);
	page_fill(words, tag);
	op_begin(OP_PIN_STORE);
	begin = rec_begin(o, p->page, tag);
	store_words((volatile uint64_t *)(device + (p->block << BLOCK_SHIFT)),
		    words);
	sure = atomic_load(&o->nr_inside) == 0 &&
	       atomic_load(&o->nr_ended) == p->nr_ended;
	rec_end(o, p->page, begin, sure ? REC_DONE : REC_MAYBE);
	op_end(OP_PIN_STORE, 0);
}

static void unpin(struct held_pin *p)
{
	int ret;

	pin_look(p);
	if (p->block != UINT64_MAX)
		event_add(p->block, EVENT_UNPINNED, OP_UNPIN,
			  atomic_load(&p->hold->o->id), p->page);
	op_begin(OP_UNPIN);
	ret = foliofs_unpin(p->pin);
	p->pin = NULL;
	op_end(OP_UNPIN, ret);
}

static void sync_page(const struct hold *h, unsigned int page)
{
	op_begin(OP_SYNC);
	op_end(OP_SYNC, foliofs_sync(h->addr + page * BLOCK_SIZE, BLOCK_SIZE));
}

static void give_back(const struct hold *h)
{
	op_begin(OP_GIVE_BACK);
	op_end(OP_GIVE_BACK,
	       foliofs_advise(h->addr, map_len(), FOLIOFS_DONTNEED));
}

void holder_exit(void)
{
	for (unsigned int i = 0; i < NR_PINS; i++)
		if (pins[i].pin)
			unpin(&pins[i]);
	for (unsigned int i = 0; i < NR_HOLDS; i++)
		if (holds[i].o)
			detach(&holds[i]);
}

/* Mapped memory only; what goes with and without a pin. */
static void touch(enum stress_op op, const struct hold *h)
{
	struct held_pin *p = any_pin();

	if (op == OP_STORE)
		store(h, any_page());
	else if (op == OP_PIN)
		pin(h, any_page());
	else if (op == OP_PIN_LOAD && p)
		pin_look(p);
	else if (op == OP_PIN_STORE && p)
		pin_store(p);
	else if (op == OP_UNPIN && p)
		unpin(p);
	else
		load(h, any_page());
}

void holder_step(enum stress_op op)
{
	struct hold *h = any_hold();

	if (op == OP_ATTACH || !h) {
		h = &holds[rnd(NR_HOLDS)];
		if (h->o)
			detach(h);
		attach(h);
	} else if (op == OP_DETACH) {
		detach(h);
	} else if (op == OP_SYNC) {
		sync_page(h, any_page());
	} else if (op == OP_GIVE_BACK) {
		give_back(h);
	} else {
		touch(op, h);
	}
}
