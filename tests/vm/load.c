/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/vm/load.c - work until the machine is killed, and what must be there
 *
 *	load DIR ACK [map]	work in DIR, and say in ACK how far it is
 *	load --check DIR ACK	is there all that ACK says?
 *
 * ACK is a file outside of the machine.  Step n appends a record to DIR/log,
 * makes DIR/f<n> under another name and renames it, removes what was made
 * KEEP steps ago, and with `map' stores a record through a mapping; then n is
 * written to ACK.  So when the machine dies, step ACK is done, ACK + 1 may be
 * in part, and nothing later was begun.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dax/lib/foliofs.h"

#define KEEP  20u
#define SLOTS 4096u /* records in the file that is mapped */

struct record {
	uint64_t nr;
	uint64_t word[6];
	uint64_t sum;
};

static struct record record_of(uint64_t nr)
{
	struct record r = { .nr = nr, .sum = ~nr };

	for (unsigned int i = 0; i < 6; i++) {
		r.word[i] = nr * UINT64_C(0x9e3779b97f4a7c15) + i;
		r.sum ^= r.word[i];
	}
	return r;
}

static bool is_record(const struct record *r, uint64_t nr)
{
	const struct record want = record_of(nr);

	return memcmp(r, &want, sizeof(want)) == 0;
}

static void __attribute__((noreturn)) fail(const char *what, uint64_t nr)
{
	printf("load: step %" PRIu64 ": %s: %s\n", nr, what, strerror(errno));
	exit(1);
}

static const char *name_of(const char *kind, uint64_t nr)
{
	static char name[2][32];
	static unsigned int turn;

	turn ^= 1;
	snprintf(name[turn], sizeof(name[turn]), "%s%" PRIu64, kind, nr);
	return name[turn];
}

static void make_file(uint64_t nr)
{
	const struct record r = record_of(nr);
	int fd = open("new", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, &r, sizeof(r)) != sizeof(r))
		fail("write new", nr);
	close(fd);
	if (rename("new", name_of("f", nr)))
		fail("rename", nr);
	if (nr > KEEP && unlink(name_of("f", nr - KEEP)))
		fail("unlink", nr);
}

static struct record *map_slots(void)
{
	int fd = open("slots", O_RDWR | O_CREAT, 0600);
	struct foliofs_file *file;
	void *p;

	if (fd < 0 || ftruncate(fd, SLOTS * sizeof(struct record)))
		fail("slots", 0);
	errno = -foliofs_attach(fd, 0, &file);
	if (!errno)
		errno = -foliofs_map(file, SLOTS * sizeof(struct record),
				     PROT_READ | PROT_WRITE, 0, 0, &p);
	if (errno)
		fail("map", 0);
	return p;
}

static void store(struct record *slots, uint64_t nr)
{
	struct record *r = &slots[nr % SLOTS];

	*r = record_of(nr);
	if (foliofs_sync(r, sizeof(*r)))
		fail("sync", nr);
}

static void work(int ack, bool mapped) __attribute__((noreturn));
static void work(int ack, bool mapped)
{
	struct record *slots = mapped ? map_slots() : NULL;
	int log = open("log", O_WRONLY | O_CREAT | O_APPEND, 0600);

	for (uint64_t nr = 1;; nr++) {
		const struct record r = record_of(nr);

		if (write(log, &r, sizeof(r)) != sizeof(r))
			fail("append", nr);
		make_file(nr);
		if (slots)
			store(slots, nr);
		if (pwrite(ack, &nr, sizeof(nr), 0) != sizeof(nr))
			fail("ack", nr);
	}
}

static void check_log(uint64_t done)
{
	int fd = open("log", O_RDONLY);
	struct record r;
	uint64_t nr = 0;
	ssize_t len = 0;

	while (fd >= 0 && (len = read(fd, &r, sizeof(r))) == sizeof(r))
		if (!is_record(&r, ++nr))
			fail("log: wrong record", nr);
	if (len != 0 || nr < done || nr > done + 1)
		fail("log: wrong end", nr);
	close(fd);
}

static void check_files(uint64_t done)
{
	uint64_t first = done > KEEP ? done - KEEP + 1 : 1;
	struct record r;

	for (uint64_t nr = 1; nr <= done + 2; nr++) {
		int fd = open(name_of("f", nr), O_RDONLY);
		bool there = fd >= 0 && read(fd, &r, sizeof(r)) == sizeof(r) &&
			     is_record(&r, nr);
		/* What step done + 1 makes and removes. */
		bool either = nr == done + 1 ||
			      (done + 1 > KEEP && nr == done + 1 - KEEP);

		if (fd >= 0 && !there)
			fail("file: wrong record", nr);
		if (!either && there != (nr >= first && nr <= done))
			fail(there ? "file: still there" : "file: lost", nr);
		if (fd >= 0)
			close(fd);
	}
}

static void check_slots(uint64_t done)
{
	int fd = open("slots", O_RDONLY);
	uint64_t first = done >= SLOTS ? done - SLOTS + 2 : 1;
	struct record r;

	if (fd < 0)
		return;
	for (uint64_t nr = first; nr <= done; nr++) {
		off_t pos = (off_t)(nr % SLOTS * sizeof(r));

		if (pread(fd, &r, sizeof(r), pos) != sizeof(r) ||
		    !is_record(&r, nr))
			fail("slot: lost", nr);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	bool check = argc > 1 && strcmp(argv[1], "--check") == 0;
	uint64_t done = 0;
	int ack;

	if (argc < 3 + check) {
		fputs("Usage: load [--check] DIR ACK [map]\n", stderr);
		return 2;
	}
	ack = open(argv[2 + check], O_RDWR | O_CREAT, 0600);
	if (ack < 0 || chdir(argv[1 + check]))
		fail("open", 0);
	if (!check)
		work(ack, argc > 3);
	if (pread(ack, &done, sizeof(done), 0) != sizeof(done))
		fail("nothing was done", 0);
	check_log(done);
	check_files(done);
	check_slots(done);
	printf("%" PRIu64 " steps\n", done);
	return 0;
}
