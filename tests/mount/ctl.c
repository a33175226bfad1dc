/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/ctl.c - foliofsctl on a mount: what it does and what it says
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/falloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dax/lib/foliofs_ioctl.h"
#include "dax/proto.h"
#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"

static char output[16384];

static const char *scratch(const char *name)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/%s", mtest_scratch(), name);
	return path;
}

/* Run foliofsctl; what it says ends up in output. */
static int ctl_run(const char *const args[])
{
	const char *argv[16] = { getenv("FOLIOFS_CTL") };
	int ret, fd, nr = 1;
	size_t len;

	if (!argv[0])
		SKIP("no FOLIOFS_CTL");
	for (; args[nr - 1]; nr++)
		argv[nr] = args[nr - 1];
	unlink(scratch("output"));
	ret = sandbox_exec(argv, scratch("output"));
	fd = open_ok(scratch("output"), O_RDONLY);
	len = pread_ok(fd, output, sizeof(output) - 1, 0);
	output[len] = '\0';
	close_ok(fd);
	return ret;
}

#define CTL(...) ctl_run((const char *const[]){ __VA_ARGS__, NULL })

static void says(const char *text)
{
	CHECK(strstr(output, text), "it does not say \"%s\" but: %s", text,
	      output);
}

static void says_not(const char *text)
{
	CHECK(!strstr(output, text), "it says \"%s\": %s", text, output);
}

static void holds_pattern(const char *path, size_t len, uint64_t seed)
{
	int fd = open_ok(path, O_RDONLY);

	EQ(fstat_of(fd).st_size, len);
	check_pattern(fd, 0, len, seed);
	close_ok(fd);
}

static void new_file(const char *path, size_t len, uint64_t seed)
{
	int fd = pattern_file(path, len, seed);

	OK(fsync(fd));
	close_ok(fd);
}

/* What the kernel has cached of it must not be seen later. */
static void look_at(const char *path, size_t len, uint64_t seed)
{
	holds_pattern(path, len, seed);
}

#define SIZE (5 * MIB + 123)

MTEST(reflink, makes_a_new_file, .needs = MNT_FOLIOFS)
{
	uint64_t before, after;

	new_file("a", SIZE, 1);
	OK(chmod("a", 0640));
	before = free_bytes();
	EQ(CTL("reflink", "a", "b"), 0);
	STREQ(output, "");
	after = free_bytes();
	LE(before - after, 64 * KIB);
	holds_pattern("b", SIZE, 1);
	EQ(mode_of("b"), 0640);
	/* They are two files. */
	new_file("b", 10000, 2);
	holds_pattern("a", SIZE, 1);
}

MTEST(reflink, replaces_what_is_there, .needs = MNT_FOLIOFS)
{
	static const size_t size[] = { 0,    1,	       4096,	      SIZE - 1,
				       SIZE, SIZE + 1, SIZE + 3 * MIB };

	new_file("a", SIZE, 1);
	new_file("small", 3, 3);
	touch("empty");
	for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		new_file("b", size[i], 2);
		look_at("b", size[i], 2);
		EQ(CTL("reflink", "a", "b"), 0);
		holds_pattern("b", SIZE, 1);
		EQ(CTL("reflink", "small", "b"), 0);
		holds_pattern("b", 3, 3);
		EQ(CTL("reflink", "empty", "b"), 0);
		EQ(size_of("b"), 0);
	}
	if (mnt_kind_flags(mnt->kind) & MNT_REMOUNT) {
		EQ(CTL("reflink", "a", "b"), 0);
		remount(NULL);
		holds_pattern("b", SIZE, 1);
	}
}

/* What the kernel has cached of both files, and not written yet. */
MTEST(reflink, of_dirty_files, .needs = MNT_FOLIOFS)
{
	int a = pattern_file("a", SIZE, 1), b = pattern_file("b", SIZE, 2);

	EQ(CTL("reflink", "a", "b"), 0);
	check_pattern(b, 0, SIZE, 1);
	OK(fsync(a));
	OK(fsync(b));
	check_pattern(a, 0, SIZE, 1);
	check_pattern(b, 0, SIZE, 1);
	close_ok(a);
	close_ok(b);
	if (mnt_kind_flags(mnt->kind) & MNT_REMOUNT)
		remount(NULL);
	holds_pattern("b", SIZE, 1);
}

MTEST(reflink, range, .needs = MNT_FOLIOFS)
{
	int fd;

	new_file("a", SIZE, 1);
	new_file("b", SIZE, 2);
	look_at("b", SIZE, 2);
	EQ(CTL("reflink", "a", "b", "--offset", "1M", "--dest", "2M",
	       "--length", "8K"),
	   0);
	fd = open_ok("b", O_RDONLY);
	EQ(fstat_of(fd).st_size, SIZE);
	check_pattern(fd, 0, 2 * MIB, 2);
	check_pattern(fd, 2 * MIB + 8192, SIZE - 2 * MIB - 8192, 2);
	close_ok(fd);
	/* Into a new file, up to the end, behind a hole. */
	EQ(CTL("reflink", "a", "c", "--offset", "4096", "--dest", "1M"), 0);
	EQ(size_of("c"), MIB + SIZE - 4096);
	fd = open_ok("c", O_RDONLY);
	check_zero(fd, 0, MIB);
	close_ok(fd);
	/* Of one file. */
	EQ(CTL("reflink", "a", "a", "--dest", "4096", "--length", "4096"), 0);
	EQ(size_of("a"), SIZE);
	fd = open_ok("a", O_RDONLY);
	check_pattern(fd, 0, 4096, 1);
	check_pattern(fd, 8192, SIZE - 8192, 1);
	close_ok(fd);
}

static void set_flags(const char *path, int flags)
{
	int fd = open_ok(path, O_RDONLY);

	OK(ioctl(fd, FS_IOC_SETFLAGS, &flags));
	close_ok(fd);
}

MTEST(reflink, refuses, .needs = MNT_FOLIOFS)
{
	struct timespec mtime;

	new_file("a", SIZE, 1);
	new_file("b", SIZE + MIB, 2);
	OK(mkdir("d", 0755));
	OK(mkfifo("p", 0644));
	mtime = lstat_of("b").st_mtim;

	EQ(CTL("reflink", "a", "a"), 1);
	says("same file");
	EQ(CTL("reflink", "a", "a", "--dest", "4096"), 1);
	says("overlap");
	EQ(CTL("reflink", "a", "b", "--offset", "1"), 1);
	says("not aligned");
	EQ(CTL("reflink", "a", "b", "--dest", "5000"), 1);
	says("not aligned");
	EQ(CTL("reflink", "a", "b", "--length", "5000"), 1);
	says("not aligned");
	EQ(CTL("reflink", "a", "b"), 0); /* that was all of it */
	new_file("b", SIZE + MIB, 2);
	mtime = lstat_of("b").st_mtim;
	EQ(CTL("reflink", "a", "b", "--offset", "6M"), 1);
	says("past the end");
	EQ(CTL("reflink", "a", "b", "--length", "6M"), 1);
	says("past the end");
	EQ(CTL("reflink", "a", "d"), 1);
	says("directory");
	EQ(CTL("reflink", "d", "new"), 1);
	says("directory");
	EQ(CTL("reflink", "p", "new"), 1);
	says("not a regular file");
	EQ(CTL("reflink", "none", "new"), 1);
	says("No such file");
	EQ(CTL("reflink", "a", scratch("new")), 1);
	says("another filesystem");
	CHECK(!exists(scratch("new")), "it was made");
	EQ(CTL("reflink", scratch("output"), "new"), 1);
	says("not on a mounted foliofs");
	CHECK(!exists("new"), "it was made");
	set_flags("b", FS_IMMUTABLE_FL);
	EQ(CTL("reflink", "a", "b"), 1);
	says("immutable");
	set_flags("b", 0);

	EQ(size_of("a"), SIZE);
	holds_pattern("a", SIZE, 1);
	holds_pattern("b", SIZE + MIB, 2);
	CHECK(time_equal(lstat_of("b").st_mtim, mtime), "its mtime changed");
}

MTEST(reflink, needs_permission, .needs = MNT_FOLIOFS)
{
	new_file("a", SIZE, 1);
	new_file("b", 5000, 2);
	OK(chmod("a", 0600));
	OK(chmod(mtest_scratch(), 0777));
	AS_USER(NOBODY)
	{
		EQ(CTL("reflink", "a", "new"), 1);
		says("Permission denied");
		EQ(CTL("reflink", "b", "b2"), 0);
		EQ(CTL("reflink", "b2", "b"), 1);
		says("Permission denied");
		CHECK(!exists("new"), "it was made");
	}
}

MTEST(reflink, read_only, .needs = MNT_FOLIOFS | MNT_REMOUNT)
{
	new_file("a", SIZE, 1);
	new_file("b", SIZE, 1);
	remount("ro");
	EQ(CTL("reflink", "a", "b"), 1);
	says("ead-only file");
	EQ(CTL("reflink", "a", "new"), 1);
	says("ead-only file");
	EQ(CTL("dedupe", "a", "b"), 1);
	says("ead-only file");
	EQ(CTL("unshare", "b"), 1);
	says("ead-only file");
	EQ(CTL("map", "b"), 0);
	says("eof");
}

MTEST(dedupe, same_contents, .needs = MNT_FOLIOFS)
{
	new_file("a", 20 * MIB + 5, 1);
	new_file("b", 20 * MIB + 5, 1);
	new_file("c", 20 * MIB + 5, 1);
	EQ(CTL("dedupe", "a", "b", "c"), 0);
	says("b: 20971525 bytes shared\nc: 20971525 bytes shared\n");
	EQ(CTL("map", "b"), 0);
	says("shared,eof");
	holds_pattern("b", 20 * MIB + 5, 1);
	holds_pattern("c", 20 * MIB + 5, 1);
}

MTEST(dedupe, different_contents, .needs = MNT_FOLIOFS)
{
	int fd;

	new_file("a", 20 * MIB, 1);
	new_file("b", 20 * MIB, 1);
	new_file("c", 20 * MIB - 1, 1);
	new_file("d", 20 * MIB, 1);
	fd = open_ok("b", O_WRONLY);
	write_pattern(fd, 17 * MIB, 8, 2);
	OK(fsync(fd));
	close_ok(fd);
	EQ(CTL("dedupe", "a", "b", "c", "d"), 1);
	says("b: 16777216 bytes shared, the contents of 4194304 bytes differ");
	says("c: 0 bytes shared, the sizes differ");
	says("d: 20971520 bytes shared\n");
	fd = open_ok("b", O_RDONLY);
	check_pattern(fd, 17 * MIB, 8, 2);
	check_pattern(fd, 17 * MIB + 8, 3 * MIB - 8, 1);
	close_ok(fd);
}

MTEST(dedupe, range_and_refusals, .needs = MNT_FOLIOFS)
{
	new_file("a", SIZE, 1);
	new_file("b", SIZE, 1);
	EQ(CTL("dedupe", "a", "b", "--offset", "1M", "--dest", "1M", "--length",
	       "64K"),
	   0);
	says("b: 65536 bytes shared\n");
	EQ(CTL("dedupe", "a", "b", "--dest", "1M", "--length", "64K"), 1);
	says("differ");
	EQ(CTL("dedupe", "a", "b", "--offset", "3", "--length", "4K"), 1);
	says("not aligned");
	EQ(CTL("dedupe", "a", "b", "--length", "6M"), 1);
	says("past the end");
	EQ(CTL("dedupe", "a", "a"), 1);
	says("same file");
	EQ(CTL("dedupe", "a", "a", "--length", "8K", "--dest", "4K"), 1);
	says("overlap");
	EQ(CTL("dedupe", "a", "none"), 1);
	says("No such file");
	EQ(CTL("dedupe", "none", "a", "b"), 1);
	says("none: No such file");
	EQ(CTL("dedupe", "a", scratch("output")), 1);
	says("another filesystem");
	holds_pattern("b", SIZE, 1);
}

MTEST(unshare, whole_file_and_range, .needs = MNT_FOLIOFS)
{
	uint64_t before;

	new_file("a", 4 * MIB, 1);
	EQ(CTL("reflink", "a", "b"), 0);
	EQ(CTL("unshare", "b", "--offset", "1M", "--length", "64K"), 0);
	says("b: 65536 bytes have");
	before = free_bytes();
	EQ(CTL("unshare", "b"), 0);
	says("b: 4128768 bytes have");
	LE(3 * MIB, before - free_bytes());
	EQ(CTL("map", "b"), 0);
	says_not("shared");
	EQ(CTL("map", "a"), 0);
	says_not("shared");
	holds_pattern("a", 4 * MIB, 1);
	holds_pattern("b", 4 * MIB, 1);
	EQ(CTL("unshare", "b", "--offset", "5M"), 1);
	says("past the end");
	EQ(CTL("unshare", scratch("output")), 1);
	says("not on a mounted foliofs");
}

MTEST(unshare, no_space, .needs = MNT_FOLIOFS, .size = 32 << 20)
{
	new_file("a", 20 * MIB, 1);
	EQ(CTL("reflink", "a", "b"), 0);
	EQ(CTL("unshare", "b"), 1);
	says("no space");
	holds_pattern("a", 20 * MIB, 1);
	holds_pattern("b", 20 * MIB, 1);
}

/* A file with a hole, shared, unwritten and other parts. */
static void make_parts(void)
{
	int fd;

	new_file("a", 8 * MIB, 1);
	EQ(CTL("reflink", "a", "f"), 0);
	fd = open_ok("f", O_RDWR);
	write_pattern(fd, 12288, 4096, 2);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MIB, MIB));
	OK(fallocate(fd, 0, 10 * MIB, 2 * MIB));
	OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 14 * MIB, 4096));
	OK(fsync(fd));
	close_ok(fd);
}

MTEST(map, text, .needs = MNT_FOLIOFS)
{
	make_parts();
	EQ(CTL("map", "f"), 0);
	says("f: 12582912 bytes (3072 blocks of 4096 bytes)\n");
	says("    0:          0..         2: ");
	says("    1:          3..         3: ");
	says(":     0: shared\n");
	says(":     9: shared\n");
	says(": unwritten,eof\n");
	says(": unwritten,behind\n");
	says(" extents\n");
	touch("e");
	EQ(CTL("map", "e"), 0);
	says("e: 0 extents\n");
}

MTEST(map, json, .needs = MNT_FOLIOFS)
{
	make_parts();
	EQ(CTL("map", "f", "--json"), 0);
	says("\"size\": 12582912,");
	says("\"offset\": 12288,");
	says("\"length\": 4096,");
	says("\"order\": 9,\n      \"shared\": true,");
	says("\"unwritten\": true,\n      \"behind\": false,\n"
	     "      \"eof\": true\n");
}

MTEST(map, picture, .needs = MNT_FOLIOFS)
{
	make_parts();
	OK(rename("f", "f<&>"));
	EQ(CTL("map", "f<&>", "--svg"), 0);
	EQ(strncmp(output, "<svg xmlns=", 11), 0);
	says(">f&#60;&#38;&#62;</text>");
	says("file 12288, media ");
	says("shared, order 9</title>");
	says("end of the file</text>");
	STREQ(output + strlen(output) - 7, "</svg>\n");
	touch("e");
	EQ(CTL("map", "e", "--svg"), 0);
	says("</svg>");
	says_not("nan");
}

/* More extents than one call brings. */
MTEST(map, many_extents, .needs = MNT_FOLIOFS)
{
	int fd = open_ok("f", O_WRONLY | O_CREAT);

	for (int i = 0; i < 1300; i++)
		write_pattern(fd, (off_t)i * 8192, 4096, 1);
	OK(fsync(fd));
	close_ok(fd);
	EQ(CTL("map", "f", "--svg"), 0);
	says(", 1300 extents</text>");
}

MTEST(map, refuses, .needs = MNT_FOLIOFS)
{
	EQ(CTL("map", "."), 1);
	says("not a regular file");
	EQ(CTL("map", "none"), 1);
	says("No such file");
	EQ(CTL("map", scratch("output")), 1);
	says("not on a mounted foliofs");
}

/* A program that maps files, as the daemon sees it. */
struct client {
	int sock;
	uint32_t id;
};

union packet {
	struct session_reply reply;
	struct session_number_reply number;
	struct session_open_reply open;
	struct session_fault_reply fault;
};

static union packet ask(struct client *c, struct session_head *req, size_t len)
{
	union packet p = { .reply.error = 0 };
	struct session_recalled done = { .head.op = SESSION_RECALLED };

	req->id = ++c->id;
	EQ(send(c->sock, req, len, MSG_NOSIGNAL), len);
	for (;;) {
		LT(0, recv(c->sock, &p, sizeof(p), 0));
		if (p.reply.head.op == SESSION_REPLY)
			break;
		done.head.id = p.reply.head.id;
		EQ(send(c->sock, &done, sizeof(done), 0), sizeof(done));
	}
	CHECK(p.reply.error == 0, "message %u: error %d", req->op,
	      p.reply.error);
	return p;
}

static void dial(struct client *c, const char *path)
{
	struct session_hello hello = { .head.op = SESSION_HELLO,
				       .version = SESSION_VERSION };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	c->id = 0;
	c->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	OK(c->sock);
	OK(connect(c->sock, (struct sockaddr *)&addr, sizeof(addr)));
	ask(c, &hello.head, sizeof(hello));
}

/* Pin 3 pages from page 1 on. */
static struct session_end pin(struct client *c, int fd)
{
	struct session_map map = { .head.op = SESSION_MAP,
				   .addr = 1 << 30,
				   .nr = 8,
				   .flags = SESSION_MAP_WRITE };
	struct session_range range = { .head.op = SESSION_PIN,
				       .index = 1,
				       .nr = 3,
				       .flags = SESSION_RANGE_WRITE };
	struct session_open opening = { .head.op = SESSION_OPEN };
	struct foliofs_ioc_token tok;

	OK(ioctl(fd, FOLIOFS_IOC_TOKEN, &tok));
	dial(c, tok.socket);
	memcpy(opening.token, tok.token, sizeof(opening.token));
	map.handle = ask(c, &opening.head, sizeof(opening)).open.handle;
	range.vma = ask(c, &map.head, sizeof(map)).number.number;
	return (struct session_end){
		.head.op = SESSION_UNPIN,
		.which = ask(c, &range.head, sizeof(range)).number.number
	};
}

/* Until the request of the child sleeps. */
static void await(const char *text)
{
	for (int i = 0; i < 1000; i++) {
		EQ(CTL("status", mnt->dir, "--waits", "--json"), 0);
		if (strstr(output, text))
			return;
		poll(NULL, 0, 10);
	}
	FAIL("never: %s in %s", text, output);
}

MTEST(waits, truncate_of_pinned_pages, .needs = MNT_FOLIOFS,
      .opts = "dax=always")
{
	struct session_end unpin;
	struct client c;
	char text[100];
	pid_t child;
	int fd, status;

	EQ(CTL("status", mnt->dir, "--waits"), 0);
	STREQ(output, "Nobody holds anything.\n\nNobody waits.\n");
	fd = pattern_file("pinned", 8 * 4096, 1);
	unpin = pin(&c, fd);
	EQ(CTL("status", mnt->dir, "--waits"), 0);
	says("          1..         3  pinned    ");
	says("/t/pinned\n");
	says("\nNobody waits.\n");
	child = fork();
	if (child == 0)
		_exit(truncate("pinned", 0) ? errno : 0);
	await("\"operation\": \"truncate\"");
	says("\"offset\": 4096,\n      \"length\": 12288,\n"
	     "      \"kind\": \"pinned\"");
	snprintf(text, sizeof(text),
		 "\"pid\": %d,\n      \"command\": ", child);
	says(text);
	says("\"age_ns\": ");
	EQ(CTL("status", mnt->dir, "--waits"), 0);
	says("  truncate  ");
	EQ(waitpid(child, &status, WNOHANG), 0);
	ask(&c, &unpin.head, sizeof(unpin));
	EQ(waitpid(child, &status, 0), child);
	EQ(status, 0);
	EQ(CTL("status", mnt->dir, "--waits"), 0);
	says("\nNobody waits.\n");
	says_not("  pinned  ");
	close_ok(c.sock);
	close_ok(fd);
}

MTEST(waits, refuses, .needs = MNT_FOLIOFS)
{
	OK(chmod(mtest_scratch(), 0777));
	AS_USER(NOBODY)
	{
		EQ(CTL("status", mnt->dir, "--waits"), 1);
		says("only root");
	}
	EQ(CTL("status", mtest_scratch(), "--waits"), 1);
	says("not a mounted foliofs");
	remount("ro");
	EQ(CTL("status", mnt->dir, "--waits"), 1);
	says("nobody waits");
}

MTEST(policy, is_shown_and_changed, .needs = MNT_FOLIOFS,
      .opts = "policy=lease,grace_ms=77")
{
	EQ(CTL("policy", "."), 0);
	says("lease:grace_ms=77");
	EQ(CTL("policy", ".", "set", "timeout", "ms=20"), 0);
	STREQ(output, "");
	EQ(CTL("policy", "."), 0);
	says("timeout:ms=20");
	EQ(CTL("policy", ".", "set", "nosuch"), 1);
	says("'nosuch'");
	EQ(CTL("policy", ".", "set", "timeout", "s=20"), 1);
	says("no key 's'");
	EQ(CTL("policy", ".", "get"), 2);
	EQ(CTL("policy", "/"), 1);
	says("not a mounted foliofs");
	EQ(CTL("status", ".", "--json"), 0);
	says("\"policy\":");
	says("timeout:ms=20");
	says("\"blocks_held_back\":");
	says("\"lease\"");
}
