/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/media.c - media that is lost under a live mount
 *
 * The device file is cut short while it is mounted: what was there now gives
 * SIGBUS, as a page does that the memory controller has given up.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"

#define NR_FILES  48
#define FILE_SIZE (512 << 10)

static unsigned char buf[FILE_SIZE];

static const char *file_name(int nr)
{
	static char name[32];

	snprintf(name, sizeof(name), "f%d", nr);
	return name;
}

static void make_files(void)
{
	for (int nr = 0; nr < NR_FILES; nr++) {
		int fd = open(file_name(nr), O_WRONLY | O_CREAT, 0600);

		OK(fd);
		memset(buf, nr + 1, sizeof(buf));
		EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
		OK(fsync(fd));
		OK(close(fd));
	}
}

/* Nothing may come from the kernel's cache. */
static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	sync();
	if (fd < 0 || write(fd, "3", 1) != 1)
		SKIP("cannot drop the kernel's caches");
	close(fd);
}

static void lose_all_from(off_t off)
{
	OK(truncate(mnt->dev, off));
}

/* 1: all there, 0: EIO.  Anything else fails the test. */
static int read_file(int nr)
{
	int fd = open(file_name(nr), O_RDONLY);
	ssize_t len = 0;

	if (fd < 0)
		CHECK(errno == EIO, "open: %s", mtest_errname(errno));
	for (size_t pos = 0; fd >= 0 && pos < sizeof(buf); pos += (size_t)len) {
		len = pread(fd, buf, 4096, (off_t)pos);
		if (len < 0) {
			CHECK(errno == EIO, "read: %s", mtest_errname(errno));
			break;
		}
		EQ(len, 4096);
		for (int i = 0; i < 4096; i++)
			CHECK(buf[i] == nr + 1, "file %d: byte %zu is %d", nr,
			      pos + (size_t)i, buf[i]);
	}
	if (fd >= 0)
		close(fd);
	return fd >= 0 && len > 0;
}

static int read_files(void)
{
	int nr_good = 0;

	for (int nr = 0; nr < NR_FILES; nr++)
		nr_good += read_file(nr);
	return nr_good;
}

static long bad_pages(void)
{
	const char *ctl = getenv("FOLIOFS_CTL");
	char log[300], text[8192] = "";
	const char *at;
	FILE *f;

	if (!ctl)
		SKIP("no FOLIOFS_CTL");
	snprintf(log, sizeof(log), "%s/status", sandbox_dir());
	EQ(sandbox_exec(
		   (const char *[]){ ctl, "status", mnt->dir, "--json", NULL },
		   log),
	   0);
	f = fopen(log, "r");
	CHECK(f, "no output");
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	unlink(log);
	at = strstr(text, "\"bad_pages\":");
	CHECK(at, "no bad_pages in: %s", text);
	CHECK(strstr(text, "\"bad_ranges\":"), "no bad_ranges");
	return strtol(at + strlen("\"bad_pages\":"), NULL, 10);
}

MTEST(media, reading_lost_data_is_eio, .size = 64 << 20, .no_fsck = true,
      .needs = MNT_FOLIOFS)
{
	int nr_good;

	make_files();
	EQ(bad_pages(), 0);
	drop_caches();
	lose_all_from(20 << 20);
	nr_good = read_files();
	CHECK(nr_good > 0 && nr_good < NR_FILES, "%d of %d files are good",
	      nr_good, NR_FILES);
	LT(0, bad_pages());
	/* Once more, now that the pages are known. */
	drop_caches();
	EQ(read_files(), nr_good);
	CHECK(!mnt->ended, "the daemon is gone");
}

/* EIO where it meets lost media, EROFS when it has given up. */
static void lost_or_ro(const char *what, int ret)
{
	CHECK(ret >= 0 || errno == EIO || errno == EROFS, "%s: %s", what,
	      mtest_errname(errno));
}

MTEST(media, writing_to_lost_media_ends_well, .size = 64 << 20, .no_fsck = true,
      .needs = MNT_FOLIOFS)
{
	int nr_failed = 0, nr_good;

	make_files();
	drop_caches();
	lose_all_from(20 << 20);
	memset(buf, 77, sizeof(buf));
	for (int nr = NR_FILES / 2; nr < NR_FILES; nr++) {
		int fd = open(file_name(nr), O_WRONLY);
		ssize_t len;

		lost_or_ro("open", fd);
		if (fd < 0)
			continue;
		len = pwrite(fd, buf, 65536, 0);
		lost_or_ro("write", len < 0 ? -1 : 0);
		len = fsync(fd) || len < 0 ? -1 : len;
		nr_failed += len < 0;
		close(fd);
	}
	LT(0, nr_failed);
	for (int i = 0; i < 300; i++) {
		char name[32];
		int fd;

		snprintf(name, sizeof(name), "new%d", i);
		fd = open(name, O_WRONLY | O_CREAT, 0600);
		lost_or_ro("create", fd);
		if (fd >= 0)
			close(fd);
	}
	nr_good = 0;
	for (int nr = 0; nr < NR_FILES / 2; nr++)
		nr_good += read_file(nr);
	LT(0, nr_good);
	CHECK(!mnt->ended, "the daemon is gone");
}

/* Even with next to nothing left. */
MTEST(media, everything_lost_but_the_start, .size = 64 << 20, .no_fsck = true,
      .needs = MNT_FOLIOFS)
{
	struct statvfs st;

	make_files();
	drop_caches();
	lose_all_from(4096);
	EQ(read_files(), 0);
	lost_or_ro("mkdir", mkdir("dir", 0700));
	lost_or_ro("unlink", unlink(file_name(1)));
	OK(statvfs(mnt->dir, &st));
	LT(0, bad_pages());
	CHECK(!mnt->ended, "the daemon is gone");
}
