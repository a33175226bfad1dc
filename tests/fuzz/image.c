/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/image.c - what must hold for every damaged image
 *
 * - fsck -n and a read-only mount do not change the device.
 * - A mount of it, and all that programs do in it, ends.
 * - After fsck -y that says all is repaired, fsck -n finds nothing, it mounts,
 *   and nothing that programs do meets damage.
 * - Nobody writes behind the end of the filesystem.
 *
 * That nothing crashes, hangs or reads where it may not is for the caller's
 * alarm and for the sanitizers.
 */
#include "tests/fuzz/image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fs/check.h"
#include "fs/foliofs.h"
#include "fs/fs_format.h"
#include "tests/fuzz/damage.h"
#include "tests/fuzz/populate.h"
#include "tests/fuzz/visit.h"

#define IMAGE_SIZE  (UINT64_C(8) << 20)
#define CANARY_SIZE (UINT64_C(64) << 10)
#define CANARY	    0xc5

struct image_counts image_counts;

static char path[64];
static unsigned char *file;    /* the device, as everybody maps it */
static unsigned char *good[2]; /* unmounted cleanly, and crashed */
static unsigned char *bad;     /* as it was damaged */
static struct map maps[2];
static uint64_t file_size;
static char last_report[256];

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "case %" PRIu64 ": ", image_counts.nr_cases);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

static void remove_file(void)
{
	unlink(path);
}

static void *get_memory(size_t size)
{
	void *p = malloc(size);

	if (!p)
		die("out of memory");
	return p;
}

static void set_size(uint64_t size)
{
	if (truncate(path, (off_t)size) != 0)
		die("%s: %s", path, strerror(errno));
	file_size = size;
}

void image_setup(void)
{
	int fd;

	snprintf(path, sizeof(path), "/dev/shm/foliofs-fuzz-%d", (int)getpid());
	atexit(remove_file);
	for (int i = 0; i < 2; i++) {
		remove_file();
		populate(path, IMAGE_SIZE, i == 1);
		fd = open(path, O_RDWR | O_CLOEXEC);
		good[i] = (unsigned char *)get_memory(IMAGE_SIZE);
		if (fd < 0 ||
		    pread(fd, good[i], IMAGE_SIZE, 0) != (ssize_t)IMAGE_SIZE)
			die("%s: %s", path, strerror(errno));
		map_image(&maps[i], good[i]);
		if (i == 0) {
			close(fd);
			continue;
		}
		set_size(IMAGE_SIZE + CANARY_SIZE);
		file = (unsigned char *)mmap(NULL, IMAGE_SIZE + CANARY_SIZE,
					     PROT_READ | PROT_WRITE, MAP_SHARED,
					     fd, 0);
		close(fd);
	}
	if (file == MAP_FAILED)
		die("%s: %s", path, strerror(errno));
	bad = (unsigned char *)get_memory(IMAGE_SIZE);
}

static void restore(void)
{
	memcpy(file, bad, IMAGE_SIZE);
	memset(file + IMAGE_SIZE, CANARY, file_size - IMAGE_SIZE);
}

static void must_be_unchanged(const char *who)
{
	for (uint64_t i = 0; i < IMAGE_SIZE; i++)
		if (file[i] != bad[i])
			die("%s changed the device at %#" PRIx64, who, i);
}

/* A superblock may say, with a good checksum, that it is larger. */
static bool says_larger(void)
{
	const struct foliofs_superblock *sb =
		(const struct foliofs_superblock *)bad;

	return le64_to_cpu(sb->nr_blocks) > IMAGE_SIZE >> BLOCK_SHIFT;
}

static void check_canary(const char *who)
{
	if (says_larger())
		return;
	for (uint64_t i = IMAGE_SIZE; i < file_size; i++)
		if (file[i] != CANARY)
			die("%s wrote behind the end, at %#" PRIx64, who, i);
}

static void on_report(void *ctx, const struct check_problem *p)
{
	(void)ctx;
	if (p->severity == CHECK_ERROR)
		snprintf(last_report, sizeof(last_report),
			 "inode %" PRIu64 ": %s (at %#" PRIx64 ")", p->ino,
			 p->text, p->off);
	if (getenv("HOSTILE_VERBOSE"))
		fprintf(stderr,
			"  %s inode %" PRIu64 ": %s (at %#" PRIx64 ")\n",
			p->severity == CHECK_ERROR ? "error" : "info", p->ino,
			p->text, p->off);
}

static int check(bool repair, struct check_result *res)
{
	struct check_options opt = { .device = path,
				     .repair = repair,
				     .report = on_report };
	struct errmsg err = { "" };
	int ret;

	if (getenv("HOSTILE_VERBOSE"))
		fprintf(stderr, " fsck %s\n", repair ? "-y" : "-n");
	ret = foliofs_check(&opt, res, &err);

	if (ret && !err.text[0])
		die("fsck says %d without a sentence", ret);
	if (ret && ret != -EUCLEAN && ret != -EINVAL && ret != -ENOTSUP)
		die("fsck: %s", err.text);
	return ret;
}

/* Returns 0 when it could be mounted. */
static int mount_and_visit(bool read_only, bool must_be_good)
{
	struct foliofs_options opt = { .device = path,
				       .read_only = read_only,
				       .walk_threads = 1 };
	struct foliofs_stat st;
	struct errmsg err = { "" };
	struct foliofs *fs;
	unsigned int nr;
	int ret;

	if (getenv("HOSTILE_VERBOSE"))
		fprintf(stderr, " mount %s\n", read_only ? "ro" : "rw");
	ret = foliofs_open(&opt, &fs, &err);
	if (ret && !err.text[0])
		die("mount says %d without a sentence", ret);
	/* Features that only a newer program may write are no damage. */
	if (ret && ret != -ENOTSUP && must_be_good)
		die("fsck finds it good, but mount says: %s", err.text);
	if (ret)
		return ret;
	nr = visit(fs, !read_only);
	foliofs_stat(fs, &st, true);
	foliofs_close(fs);
	if (must_be_good && (nr || st.damaged))
		die("fsck finds it good, but %u operations meet damage", nr);
	return 0;
}

/* The device was repaired, or was good from the start. */
static void must_be_good(const char *why)
{
	struct check_result res;
	int ret = check(false, &res);

	if (ret || res.nr_errors)
		die("%s, but fsck -n says: %s", why, last_report);
	mount_and_visit(true, true);
	mount_and_visit(false, true);
	ret = check(false, &res);
	if (ret || res.nr_errors)
		die("%s, was used, and now fsck -n says: %s", why, last_report);
}

static void try_repair(bool sound)
{
	struct check_result res;
	int ret = check(true, &res);

	check_canary("fsck -y");
	if (ret) {
		image_counts.nr_refused++;
		return;
	}
	if (sound && res.nr_errors)
		die("fsck -n finds nothing, but fsck -y: %s", last_report);
	if (res.nr_left) {
		image_counts.nr_left++;
		if (getenv("HOSTILE_LEFT"))
			fprintf(stderr, "case %" PRIu64 ": left: %s\n",
				image_counts.nr_cases, last_report);
		mount_and_visit(true, false);
		return;
	}
	image_counts.nr_repaired++;
	must_be_good("fsck -y says all is repaired");
	check_canary("use after repair");
}

void image_case(const uint8_t *data, size_t len)
{
	unsigned int how = len ? data[0] : 0;
	struct check_result res;
	bool sound;
	int ret;

	image_counts.nr_cases++;
	memcpy(bad, good[how & 1], IMAGE_SIZE);
	if (len)
		damage(&maps[how & 1], bad, data + 1, len - 1);
	set_size(IMAGE_SIZE + (how & 2 ? CANARY_SIZE : 0));

	restore();
	ret = check(false, &res);
	must_be_unchanged("fsck -n");
	sound = !ret && !res.nr_errors;
	image_counts.nr_sound += sound;
	mount_and_visit(true, sound);
	must_be_unchanged("a read-only mount");
	check_canary("a read-only mount");

	if (mount_and_visit(false, sound) == 0)
		image_counts.nr_mounted++;
	check_canary("a mount");

	restore();
	try_repair(sound);
}
