/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/oracle/oracle.c - which operations wait for a page that is held
 *
 *	oracle xfs|foliofs DIR
 *
 * Another process holds the first pages of DIR/f: on XFS in a pipe that it
 * vmspliced them to, on foliofs with foliofs_pin().  Then an operation is begun
 * in a process of its own, and whether it ends while they are held is the
 * answer: one line for each, `name waits' or `name goes'.  A holder must not
 * be the one who waits: it would wait for itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dax/lib/foliofs.h"

#define PAGE	4096
#define NR	16
#define LEN	(NR * PAGE)
#define HELD_MS 2000  /* nobody needs so long who does not wait */
#define END_MS	30000 /* after the pages were let go */

static bool is_xfs;

static void __attribute__((noreturn)) die(const char *what)
{
	printf("# %s: %s\n", what, strerror(errno));
	exit(1);
}

static int opened(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT, 0600);

	if (fd < 0)
		die(name);
	return fd;
}

static void make(const char *name, int c)
{
	static char buf[LEN];
	int fd = opened(name);

	memset(buf, c, sizeof(buf));
	if (pwrite(fd, buf, LEN, 0) != LEN || fsync(fd))
		die(name);
	close(fd);
}

static int clone_file(const char *from, const char *to)
{
	int in = opened(from), out = opened(to);

	if (is_xfs)
		return ioctl(out, FICLONE, in);
	errno = -foliofs_reflink(in, 0, out, 0, 0);
	return errno ? -1 : 0;
}

static int op_truncate(void)
{
	return truncate("f", 0);
}

static int op_punch(void)
{
	return fallocate(opened("f"),
			 FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, LEN);
}

static int op_collapse(void)
{
	return fallocate(opened("f"), FALLOC_FL_COLLAPSE_RANGE, 0, PAGE);
}

static int op_clone_from(void)
{
	return clone_file("f", "g");
}

static int op_clone_onto(void)
{
	return clone_file("g", "f");
}

static int op_unlink(void)
{
	return unlink("f");
}

static int op_rename(void)
{
	return rename("g", "f");
}

static int op_write(void)
{
	return pwrite(opened("f"), "new", 3, 0) == 3 ? 0 : -1;
}

static const struct row {
	const char *name;
	int (*op)(void);
	bool open; /* somebody has the file open meanwhile */
} rows[] = {
	{ "truncate", op_truncate, false },
	{ "punch", op_punch, false },
	{ "collapse", op_collapse, false },
	{ "clone-from", op_clone_from, false },
	{ "clone-onto", op_clone_onto, false },
	{ "last-unlink", op_unlink, false },
	{ "rename-over", op_rename, false },
	{ "unlink-open", op_unlink, true },
	{ "write-in-place", op_write, false },
};

/* Holds the pages until its standard input ends. */
static void hold(int ready, int until)
{
	int fd = opened("f"), pipes[2];
	struct foliofs_file *file;
	struct foliofs_pin *pin;
	char c = 0;
	void *p;

	if (is_xfs) {
		struct iovec iov = { NULL, PAGE };

		p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p == MAP_FAILED || pipe(pipes))
			die("mmap");
		iov.iov_base = p;
		*(volatile char *)p = 'h';
		if (vmsplice(pipes[1], &iov, 1, 0) != PAGE)
			die("vmsplice");
	} else {
		errno = -foliofs_attach(fd, 0, &file);
		if (!errno)
			errno = -foliofs_map(file, LEN, PROT_READ | PROT_WRITE,
					     0, 0, &p);
		if (!errno)
			errno = -foliofs_pin(p, PAGE, 0, &pin);
		if (errno)
			die("pin");
		foliofs_detach(file);
	}
	/* It stays mapped: an old kernel looks only at files that are. */
	close(fd);
	(void)!write(ready, &c, 1);
	(void)!read(until, &c, 1);
	exit(0);
}

struct holder {
	pid_t pid;
	int let_go;
};

static struct holder start_holder(void)
{
	int ready[2], until[2];
	struct holder h;
	char c;

	if (pipe2(ready, O_CLOEXEC) || pipe2(until, O_CLOEXEC))
		die("pipe");
	fflush(stdout);
	h.pid = fork();
	if (h.pid == 0) {
		close(until[1]);
		hold(ready[1], until[0]);
	}
	close(ready[1]);
	close(until[0]);
	if (read(ready[0], &c, 1) != 1)
		die("holder");
	close(ready[0]);
	h.let_go = until[1];
	return h;
}

/* Ends @done when it is over, with the answer in it. */
static pid_t start_op(const struct row *row, const struct holder *h,
		      int *ret_done)
{
	int done[2], ret;
	pid_t pid;

	if (pipe2(done, O_CLOEXEC))
		die("pipe");
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		close(h->let_go);
		ret = row->op() ? errno : 0;
		(void)!write(done[1], &ret, sizeof(ret));
		exit(0);
	}
	close(done[1]);
	*ret_done = done[0];
	return pid;
}

static bool ends_within(int done, int ms)
{
	struct pollfd pfd = { .fd = done, .events = POLLIN };

	return poll(&pfd, 1, ms) == 1;
}

static void run_row(const struct row *row)
{
	struct holder h;
	int done, ret = EIO, fd = -1;
	bool goes, ends;
	pid_t pid;

	unlink("f");
	unlink("g");
	make("f", 'f');
	make("g", 'g');
	h = start_holder();
	if (row->open)
		fd = opened("f");
	pid = start_op(row, &h, &done);
	goes = ends_within(done, HELD_MS);
	close(h.let_go);
	ends = ends_within(done, END_MS);
	if (!ends || read(done, &ret, sizeof(ret)) != sizeof(ret))
		kill(pid, SIGKILL);
	printf("%s %s\n", row->name,
	       !ends  ? "hangs"
	       : ret  ? strerrorname_np(ret)
	       : goes ? "goes"
		      : "waits");
	waitpid(h.pid, NULL, 0);
	waitpid(pid, NULL, 0);
	if (fd >= 0)
		close(fd);
	close(done);
}

int main(int argc, char **argv)
{
	if (argc != 3 || chdir(argv[2]) != 0) {
		fputs("Usage: oracle xfs|foliofs DIR\n", stderr);
		return 2;
	}
	is_xfs = strcmp(argv[1], "xfs") == 0;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		run_row(&rows[i]);
	return 0;
}
