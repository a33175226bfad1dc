/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/vm/direct.c - direct mapping on a device that is one
 *
 *	direct DIR		map files below DIR, and check what both ways
 *see direct --refused DIR	mapping must be refused, and files work without
 *
 * For the virtual machine, where DIR is a foliofs on a devdax device or on a
 * file of a filesystem that is mounted with dax.  Ends with 0, or says what
 * was wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dax/lib/foliofs.h"

#define PAGE  4096u
#define SMALL (16u * PAGE)
#define LARGE (6u << 20)

#define CHECK(cond)                            \
	do {                                   \
		if (!(cond))                   \
			fail(__LINE__, #cond); \
	} while (0)

static unsigned char buf[LARGE];
static sigjmp_buf on_bus;

static void __attribute__((noreturn)) fail(int line, const char *what)
{
	printf("direct: line %d: %s (%s)\n", line, what, strerror(errno));
	exit(1);
}

static void handle_bus(int sig)
{
	(void)sig;
	siglongjmp(on_bus, 1);
}

static void fill(unsigned char *p, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (unsigned char)(i * 31 + i / 4096 + seed);
}

static bool is_filled(const unsigned char *p, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != (unsigned char)(i * 31 + i / 4096 + seed))
			return false;
	return true;
}

static int make(const char *name, size_t len, unsigned int seed)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);

	CHECK(fd >= 0);
	fill(buf, len, seed);
	CHECK(write(fd, buf, len) == (ssize_t)len);
	return fd;
}

static unsigned char *map(int fd, size_t len)
{
	struct foliofs_file *file;
	void *p;

	errno = -foliofs_attach(fd, 0, &file);
	CHECK(errno == 0);
	errno = -foliofs_map(file, len, PROT_READ | PROT_WRITE, 0, 0, &p);
	CHECK(errno == 0);
	foliofs_detach(file);
	return p;
}

/* Both ways see what the other one wrote. */
static void check_coherent(const char *name, size_t len)
{
	int fd = make(name, len, 1);
	unsigned char *p = map(fd, len);

	CHECK(is_filled(p, len, 1));
	fill(p, len, 2);
	CHECK(foliofs_sync(p, len) == 0);
	CHECK(pread(fd, buf, len, 0) == (ssize_t)len);
	CHECK(is_filled(buf, len, 2));
	fill(buf, len, 3);
	CHECK(pwrite(fd, buf, len, 0) == (ssize_t)len);
	CHECK(is_filled(p, len, 3));
	CHECK(foliofs_unmap(p, len) == 0);
	close(fd);
}

/* A store of another process is there at once. */
static void check_processes(void)
{
	int fd = make("shared", SMALL, 4), status;
	volatile unsigned char *p = map(fd, SMALL);
	pid_t pid;

	CHECK(p[5 * PAGE] == (unsigned char)(5 * PAGE * 31 + 5 + 4));
	fflush(stdout);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		unsigned char *q = map(fd, SMALL);

		q[5 * PAGE] = 0xee;
		exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(p[5 * PAGE] == 0xee);
	close(fd);
}

/* What a truncate took raises SIGBUS, and is zeros when it is back. */
static void check_truncate(void)
{
	int fd = make("cut", SMALL, 5);
	volatile unsigned char *p = map(fd, SMALL);

	CHECK(p[8 * PAGE] == (unsigned char)(8 * PAGE * 31 + 8 + 5));
	CHECK(ftruncate(fd, PAGE) == 0);
	if (sigsetjmp(on_bus, 1) == 0) {
		(void)p[8 * PAGE];
		fail(__LINE__, "no SIGBUS past the end");
	}
	CHECK(p[1] == (unsigned char)(31 + 5));
	CHECK(ftruncate(fd, SMALL) == 0);
	CHECK(p[8 * PAGE] == 0);
	close(fd);
}

/* A store to what is shared goes to a copy. */
static void check_clone(void)
{
	int fd = make("original", SMALL, 6);
	int copy = open("clone", O_RDWR | O_CREAT | O_TRUNC, 0600);
	unsigned char *p = map(fd, SMALL);

	CHECK(copy >= 0 && p[0] == 6);
	CHECK(foliofs_reflink(fd, 0, copy, 0, 0) == 0);
	memset(p, 0x77, SMALL);
	CHECK(pread(copy, buf, SMALL, 0) == SMALL && is_filled(buf, SMALL, 6));
	CHECK(pread(fd, buf, SMALL, 0) == SMALL && buf[SMALL - 1] == 0x77);
	close(copy);
	close(fd);
}

static void check_refused(void)
{
	int fd = make("refused", SMALL, 7);
	struct foliofs_file *file;

	CHECK(foliofs_attach(fd, 0, &file) == -EOPNOTSUPP);
	CHECK(pread(fd, buf, SMALL, 0) == SMALL && is_filled(buf, SMALL, 7));
	close(fd);
}

int main(int argc, char **argv)
{
	bool refused = argc == 3 && strcmp(argv[1], "--refused") == 0;
	struct sigaction sa = { .sa_handler = handle_bus };

	if (argc != 2 + refused || chdir(argv[argc - 1]) != 0) {
		fputs("Usage: direct [--refused] DIR\n", stderr);
		return 2;
	}
	if (refused) {
		check_refused();
		return 0;
	}
	sigaction(SIGBUS, &sa, NULL);
	check_coherent("small", SMALL);
	check_coherent("large", LARGE);
	check_processes();
	check_truncate();
	check_clone();
	return 0;
}
