/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/client/preload_ops.c - a program that knows nothing of foliofs
 *
 * It does everything to a file that the library for preloading stands in for,
 * says each result, and ends with the file's bytes.  With and without the
 * library it has to say the same.
 *
 * Argument: the file, which it makes.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define NR   40

static int fd;
static const char *path;
static void *volatile nowhere = (char *)8;
static char buf[NR * PAGE];

static void say(const char *what, long ret)
{
	printf("%s %ld%s%s\n", what, ret, ret < 0 ? " " : "",
	       ret < 0 ? strerrorname_np(errno) : "");
}

static void say_bytes(const char *what, const void *p, size_t len)
{
	uint64_t hash = 14695981039346656037u;
	const unsigned char *b = p;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ b[i]) * 1099511628211u;
	printf("%s %zu bytes %016jx\n", what, len, (uintmax_t)hash);
}

static void say_file(const char *what)
{
	struct stat st;
	char *p;

	fstat(fd, &st);
	p = malloc((size_t)st.st_size + 1);
	say(what, pread(fd, p, (size_t)st.st_size + 1, 0));
	say_bytes(what, p, (size_t)st.st_size);
	free(p);
	say("offset", lseek(fd, 0, SEEK_CUR));
}

static sigjmp_buf jump;

static void on_signal(int sig)
{
	siglongjmp(jump, sig);
}

static int touch(const volatile char *p)
{
	int sig = sigsetjmp(jump, 1);

	return sig ? -sig : *p;
}

static void fill(void)
{
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (char)(i * 31 + i / PAGE);
	say("write", write(fd, buf, sizeof(buf)));
	for (int i = 0; i < 5; i++)
		say("warm", pread(fd, buf, 10, 5));
}

static void reads(void)
{
	struct iovec iov[] = { { buf, 100 },
			       { buf + 200, PAGE },
			       { buf + 5000, 0 },
			       { buf + 6000, 7 } };

	say("lseek", lseek(fd, 100, SEEK_SET));
	memset(buf, 0, sizeof(buf));
	say("read", read(fd, buf, 5000));
	say_bytes("read", buf, 5000);
	say("offset", lseek(fd, 0, SEEK_CUR));
	say("readv", readv(fd, iov, 4));
	say("offset", lseek(fd, 0, SEEK_CUR));
	say_bytes("readv", buf, sizeof(buf));
	say("preadv", preadv(fd, iov, 4, 39 * PAGE + 4000));
	say_bytes("preadv", buf, sizeof(buf));
	say("lseek", lseek(fd, -10, SEEK_END));
	say("read", read(fd, buf, 100));
	say("read", read(fd, buf, 100));
	say("offset", lseek(fd, 0, SEEK_CUR));
	say("pread", pread(fd, buf, 100, NR * PAGE));
	say("pread", pread(fd, buf, 100, -1));
	say("pread", pread(fd, nowhere, 100, 0));
	say("read", read(-1, buf, 1));
	say("read", read(fd, buf, 0));
}

static void writes(void)
{
	struct iovec iov[] = { { buf, 1000 }, { buf + 1, 3 } };

	say("lseek", lseek(fd, 77, SEEK_SET));
	say("write", write(fd, "hello", 5));
	say("offset", lseek(fd, 0, SEEK_CUR));
	say("writev", writev(fd, iov, 2));
	say("offset", lseek(fd, 0, SEEK_CUR));
	for (size_t len = 1; len < 9000; len = len * 3 + 1)
		say("pwrite", pwrite(fd, buf + len % 64, len, 3000 + len % 77));
	say("pwritev", pwritev(fd, iov, 2, 20 * PAGE - 500));
	say("pwrite", pwrite(fd, nowhere, 100, 0));
	say_file("written");
	/* Over the end. */
	say("lseek", lseek(fd, -3, SEEK_END));
	say("write", write(fd, "0123456789", 10));
	say_file("longer");
	say("fsync", fsync(fd));
	say("fdatasync", fdatasync(fd));
}

static void appends(void)
{
	int flags = fcntl(fd, F_GETFL);

	printf("getfl %x\n", flags & (O_ACCMODE | O_APPEND));
	say("setfl", fcntl(fd, F_SETFL, flags | O_APPEND));
	printf("getfl %x\n", fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND));
	say("lseek", lseek(fd, 0, SEEK_SET));
	for (int i = 0; i < 6; i++)
		say("append", write(fd, "abc", 3));
	say("setfl", fcntl(fd, F_SETFL, flags));
	say_file("appended");
}

static void shared_offset(void)
{
	int twin = dup(fd), status;
	pid_t pid;

	say("lseek", lseek(fd, 1000, SEEK_SET));
	say("read", read(twin, buf, 100));
	say("offset", lseek(fd, 0, SEEK_CUR));
	say("close", close(twin));
	say("read", read(fd, buf, 10));
	pid = fork();
	if (pid == 0) {
		for (int i = 0; i < 6; i++)
			if (read(fd, buf, 50) != 50)
				_exit(1);
		_exit(write(fd, "child", 5) == 5 ? 0 : 2);
	}
	waitpid(pid, &status, 0);
	say("child", status);
	say("offset", lseek(fd, 0, SEEK_CUR));
	say_file("after child");
}

static void maps(void)
{
	char *p = mmap(NULL, NR * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		       0);
	char *q;

	say("mmap", p == MAP_FAILED ? -1 : 0);
	say_bytes("mapped", p, NR * PAGE);
	p[5 * PAGE + 3] = 'X';
	say("pread", pread(fd, buf, 1, 5 * PAGE + 3));
	say("byte", buf[0]);
	say("pwrite", pwrite(fd, "Y", 1, 5 * PAGE + 3));
	say("byte", p[5 * PAGE + 3]);
	say("msync", msync(p, NR * PAGE, MS_SYNC));
	say("mprotect", mprotect(p + PAGE, PAGE, PROT_READ));
	say("byte", touch(p + PAGE));
	q = mmap(p + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	say("fixed", q == p + 4 * PAGE ? 0 : -1);
	say("byte", p[4 * PAGE]);
	p[4 * PAGE] = 'Q';
	say("munmap", munmap(p + 10 * PAGE, 5 * PAGE));
	say("touch", touch(p + 12 * PAGE));
	say("byte", touch(p + 15 * PAGE));
	q = mremap(p + 15 * PAGE, 5 * PAGE, 10 * PAGE, MREMAP_MAYMOVE);
	say("mremap", q == MAP_FAILED ? -1 : 0);
	say_bytes("moved", q, 10 * PAGE);
	say("munmap", munmap(q, 10 * PAGE));
	say("madvise", madvise(p, PAGE, MADV_DONTNEED));
	say("byte", p[100]);
	say("munmap", munmap(p, NR * PAGE));
	say("touch", touch(p));
	q = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE);
	say_bytes("private", q, PAGE);
	munmap(q, PAGE);
	say_file("stored");
}

static void past_end(void)
{
	char *p = mmap(NULL, 2 * NR * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		       fd, 0);

	say("mmap", p == MAP_FAILED ? -1 : 0);
	say("byte", touch(p + 30 * PAGE));
	say("ftruncate", ftruncate(fd, 20 * PAGE + 10));
	say("touch", touch(p + 30 * PAGE));
	say("byte", touch(p + 20 * PAGE));
	say("pread", pread(fd, buf, PAGE, 20 * PAGE));
	say("write", pwrite(fd, buf, PAGE, 20 * PAGE));
	say("ftruncate", ftruncate(fd, 50 * PAGE));
	say("byte", touch(p + 30 * PAGE));
	p[30 * PAGE] = 'Z';
	say("pread", pread(fd, buf, PAGE, 30 * PAGE));
	say_bytes("read", buf, PAGE);
	munmap(p, 2 * NR * PAGE);
	say_file("cut");
}

static void forks(void)
{
	char *p = mmap(NULL, NR * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		       0);
	int status;
	pid_t pid;

	p[0] = 1;
	pid = fork();
	if (pid == 0) {
		if (p[0] != 1)
			_exit(1);
		p[1] = 2;
		p[8 * PAGE] = 3;
		_exit(pwrite(fd, "\4", 1, 7 * PAGE) == 1 ? 0 : 2);
	}
	waitpid(pid, &status, 0);
	say("child", status);
	say("byte", p[1]);
	say("byte", p[8 * PAGE]);
	say("byte", p[7 * PAGE]);
	munmap(p, NR * PAGE);
}

static void reopens(void)
{
	int other, low;
	FILE *f;

	say("close", close(fd));
	say("read", read(fd, buf, 1));
	other = open(path, O_RDONLY);
	say("same number", other == fd);
	for (int i = 0; i < 6; i++)
		say("read", read(other, buf, 1000));
	say("write", write(other, buf, 1));
	say("mmap",
	    mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, other, 0) == MAP_FAILED
		    ? -1
		    : 0);
	close(other);
	fd = open(path, O_WRONLY);
	for (int i = 0; i < 6; i++)
		say("write", pwrite(fd, "w", 1, i));
	say("read", read(fd, buf, 1));
	close(fd);
	f = fopen(path, "r+");
	for (int i = 0; i < 6; i++)
		say("pread", pread(fileno(f), buf, 10, i));
	say("fread", (long)fread(buf, 1, 100, f));
	say_bytes("fread", buf, 100);
	low = fileno(f);
	fclose(f);
	other = open("/dev/zero", O_RDONLY);
	say("same number", other == low);
	say("zero", pread(other, buf, 10, 0));
	say_bytes("zero", buf, 10);
	close(other);
	fd = open(path, O_RDWR);
	other = open("/dev/null", O_RDWR);
	for (int i = 0; i < 6; i++)
		say("pread", pread(fd, buf, 1, 0));
	say("dup2", dup2(other, fd) == fd);
	say("null", pread(fd, buf, 1, 0));
	close(other);
	close(fd);
	fd = open(path, O_RDWR);
	unlink(path);
	for (int i = 0; i < 6; i++)
		say("unlinked", pwrite(fd, "gone", 4, i * 100));
	say_file("unlinked");
}

#define LINE 16

/* Threads that read with one offset get each line once. */
static unsigned char seen[NR * PAGE / LINE];

static void *read_lines(void *arg)
{
	uint32_t line[LINE / 4];

	while (read(fd, line, LINE) == LINE)
		__atomic_fetch_add(&seen[line[0]], 1, __ATOMIC_RELAXED);
	return arg;
}

static void threads(void)
{
	pthread_t t[4];
	long once = 0;

	for (uint32_t i = 0; i < sizeof(seen); i++)
		pwrite(fd, &i, sizeof(i), i * LINE);
	ftruncate(fd, NR * PAGE);
	lseek(fd, 0, SEEK_SET);
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, read_lines, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	for (size_t i = 0; i < sizeof(seen); i++)
		once += seen[i] == 1;
	say("lines", once);
	say("offset", lseek(fd, 0, SEEK_CUR));
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	path = argv[1];
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		return 1;
	signal(SIGBUS, on_signal);
	fill();
	signal(SIGSEGV, on_signal);
	reads();
	writes();
	appends();
	shared_offset();
	maps();
	past_end();
	forks();
	reopens();
	threads();
	say("done", 0);
	return 0;
}
