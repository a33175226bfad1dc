/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/locks.c - flock, record locks of processes and of descriptors
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"

static int lock_range(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock fl = { .l_type = type,
			    .l_whence = SEEK_SET,
			    .l_start = start,
			    .l_len = len };

	return fcntl(fd, cmd, &fl);
}

MTEST(flock, excludes_other_descriptors)
{
	int a = open_ok("f", O_RDWR | O_CREAT), b = open_ok("f", O_RDWR);

	OK(flock(a, LOCK_EX));
	FAILS(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB));
	FAILS(EWOULDBLOCK, flock(b, LOCK_SH | LOCK_NB));
	OK(flock(a, LOCK_SH));
	OK(flock(b, LOCK_SH | LOCK_NB));
	FAILS(EWOULDBLOCK, flock(a, LOCK_EX | LOCK_NB));
	OK(flock(b, LOCK_UN));
	OK(flock(a, LOCK_EX | LOCK_NB));
	close_ok(a);
	OK(flock(b, LOCK_EX | LOCK_NB));
	close_ok(b);
}

MTEST(flock, excludes_other_processes)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	OK(flock(fd, LOCK_EX));
	IN_CHILD
	{
		FAILS(EWOULDBLOCK,
		      flock(open_ok("f", O_RDWR), LOCK_EX | LOCK_NB));
	}
	OK(flock(fd, LOCK_UN));
	IN_CHILD
	{
		OK(flock(open_ok("f", O_RDWR), LOCK_EX | LOCK_NB));
	}
	/* The child ended, and its lock with it. */
	OK(flock(fd, LOCK_EX | LOCK_NB));
	close_ok(fd);
}

MTEST(flock, serialises_a_counter)
{
	int status, fd = open_ok("f", O_RDWR | O_CREAT);
	int count = 0;

	pwrite_ok(fd, &count, sizeof(count), 0);
	for (int who = 0; who < 3; who++) {
		if (fork())
			continue;
		fd = open_ok("f", O_RDWR);
		for (int i = 0; i < 200; i++) {
			OK(flock(fd, LOCK_EX));
			EQ(pread_ok(fd, &count, sizeof(count), 0), 4);
			count++;
			pwrite_ok(fd, &count, sizeof(count), 0);
			OK(flock(fd, LOCK_UN));
		}
		_exit(0);
	}
	while (wait(&status) > 0)
		EQ(status, 0);
	pread_ok(fd, &count, sizeof(count), 0);
	EQ(count, 600);
	close_ok(fd);
}

MTEST(fcntl_lock, excludes_other_processes_by_range)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	OK(lock_range(fd, F_SETLK, F_WRLCK, 100, 100));
	IN_CHILD
	{
		int ret;

		ret = lock_range(fd, F_SETLK, F_WRLCK, 150, 10);
		CHECK(ret < 0 && (errno == EAGAIN || errno == EACCES),
		      "the lock was given twice");
		OK(lock_range(fd, F_SETLK, F_WRLCK, 200, 10));
		OK(lock_range(fd, F_SETLK, F_WRLCK, 0, 100));
	}
	OK(lock_range(fd, F_SETLK, F_RDLCK, 100, 100));
	IN_CHILD
	{
		OK(lock_range(fd, F_SETLK, F_RDLCK, 150, 10));
		CHECK(lock_range(fd, F_SETLK, F_WRLCK, 150, 10) < 0,
		      "a write lock over a read lock");
	}
	close_ok(fd);
}

MTEST(fcntl_lock, getlk_names_the_holder)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);
	pid_t me = getpid();

	OK(lock_range(fd, F_SETLK, F_WRLCK, 10, 20));
	IN_CHILD
	{
		struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

		OK(fcntl(fd, F_GETLK, &fl));
		EQ(fl.l_type, F_WRLCK);
		EQ(fl.l_start, 10);
		EQ(fl.l_len, 20);
		EQ(fl.l_pid, me);
	}
	close_ok(fd);
}

MTEST(fcntl_lock, is_lost_at_any_close)
{
	int fd = open_ok("f", O_RDWR | O_CREAT);

	OK(lock_range(fd, F_SETLK, F_WRLCK, 0, 0));
	close_ok(open_ok("f", O_RDONLY));
	IN_CHILD
	{
		OK(lock_range(fd, F_SETLK, F_WRLCK, 0, 0));
	}
	close_ok(fd);
}

MTEST(fcntl_lock, waits_for_its_turn)
{
	int fd = open_ok("f", O_RDWR | O_CREAT), status, p[2];
	char c;

	OK(pipe(p));
	OK(lock_range(fd, F_SETLK, F_WRLCK, 0, 0));
	if (!fork()) {
		EQ(write(p[1], "x", 1), 1);
		OK(lock_range(fd, F_SETLKW, F_WRLCK, 0, 0));
		must_hold("f", "done");
		_exit(0);
	}
	EQ(read(p[0], &c, 1), 1);
	tick();
	pwrite_ok(fd, "done", 4, 0);
	OK(lock_range(fd, F_SETLK, F_UNLCK, 0, 0));
	wait(&status);
	EQ(status, 0);
	close_ok(fd);
}

MTEST(fcntl_lock, finds_a_deadlock)
{
	volatile int *ready = sandbox_shared(sizeof(*ready));
	int fd = open_ok("f", O_RDWR | O_CREAT), status;
	int ret;

	OK(lock_range(fd, F_SETLK, F_WRLCK, 0, 1));
	if (!fork()) {
		OK(lock_range(fd, F_SETLK, F_WRLCK, 1, 1));
		*ready = 1;
		ret = lock_range(fd, F_SETLKW, F_WRLCK, 0, 1);
		_exit(ret < 0 && errno != EDEADLK);
	}
	while (!*ready)
		tick();
	ret = lock_range(fd, F_SETLKW, F_WRLCK, 1, 1);
	CHECK(!ret || errno == EDEADLK, "F_SETLKW: %s", mtest_errname(errno));
	OK(lock_range(fd, F_SETLK, F_UNLCK, 0, 0));
	wait(&status);
	EQ(status, 0);
	close_ok(fd);
}

MTEST(ofd_lock, belongs_to_the_descriptor)
{
	int a = open_ok("f", O_RDWR | O_CREAT), b = open_ok("f", O_RDWR);

	OK(lock_range(a, F_OFD_SETLK, F_WRLCK, 0, 100));
	FAILS(EAGAIN, lock_range(b, F_OFD_SETLK, F_WRLCK, 50, 10));
	OK(lock_range(b, F_OFD_SETLK, F_WRLCK, 100, 10));
	close_ok(open_ok("f", O_RDONLY));
	FAILS(EAGAIN, lock_range(b, F_OFD_SETLK, F_WRLCK, 50, 10));
	close_ok(a);
	OK(lock_range(b, F_OFD_SETLK, F_WRLCK, 50, 10));
	close_ok(b);
}
