/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/reflink.c - files that share blocks, and all that changes them
 *
 * The oracle knows what every byte of two files must be, and which block each
 * page has: a number that is the same where pages share.  Every operation is
 * done to both, and what the filesystem says is compared: contents, sizes, and
 * which pages are shared.  The same program runs on XFS.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "dax/lib/foliofs_ioctl.h"
#include "tests/support/fops.h"
#include "tests/support/mtest.h"
#include "tests/support/sandbox.h"
#include "tests/support/share.h"

#define PAGE  4096
#define CHUNK (2 * MIB)
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

#define MAX_BYTES (8 * MIB)
#define MAX_PAGES (MAX_BYTES / PAGE)

struct file {
	char name[16];
	int fd;
	off_t size;
	unsigned char *bytes;
	uint32_t *block; /* of each page; 0: none */
	bool *unwritten;
};

/* --- the oracle ---------------------------------------------------------- */

static struct file fa, fb;
static uint32_t next_block;
static unsigned char scratch[MAX_BYTES];

static off_t min_off(off_t a, off_t b)
{
	return a < b ? a : b;
}

static off_t max_off(off_t a, off_t b)
{
	return a > b ? a : b;
}

static off_t up(off_t pos)
{
	return (pos + PAGE - 1) / PAGE;
}

static void file_new(struct file *f, const char *name, int nr)
{
	if (!f->bytes) {
		f->bytes = malloc(MAX_BYTES);
		f->block = malloc(MAX_PAGES * sizeof(*f->block));
		f->unwritten = malloc(MAX_PAGES * sizeof(*f->unwritten));
	}
	memset(f->bytes, 0, MAX_BYTES);
	memset(f->block, 0, MAX_PAGES * sizeof(*f->block));
	memset(f->unwritten, 0, MAX_PAGES * sizeof(*f->unwritten));
	snprintf(f->name, sizeof(f->name), "%s%d", name, nr);
	f->fd = open_ok(f->name, O_RDWR | O_CREAT | O_TRUNC);
	f->size = 0;
}

static unsigned int users(uint32_t block)
{
	unsigned int nr = 0;

	for (off_t i = 0; i < MAX_PAGES; i++)
		nr += (fa.block && fa.block[i] == block) +
		      (fb.block && fb.block[i] == block);
	return nr;
}

/* The page is stored to. */
static void own(struct file *f, off_t i)
{
	if (f->block[i] == 0 || users(f->block[i]) > 1)
		f->block[i] = ++next_block;
	f->unwritten[i] = false;
}

/* The end moves to @size: what is behind the old one becomes visible. */
static void grow(struct file *f, off_t size)
{
	if (size <= f->size)
		return;
	if (f->size % PAGE && f->block[f->size / PAGE] &&
	    !f->unwritten[f->size / PAGE])
		own(f, f->size / PAGE);
	f->size = size;
}

/* --- operations, to both -------------------------------------------------- */

static void do_write(struct file *f, off_t pos, off_t len)
{
	static uint64_t seed;

	grow(f, pos);
	pattern(f->bytes + pos, pos, (size_t)len, ++seed);
	pwrite_ok(f->fd, f->bytes + pos, (size_t)len, pos);
	for (off_t i = pos / PAGE; i < up(pos + len); i++)
		own(f, i);
	f->size = max_off(f->size, pos + len);
}

static void do_truncate(struct file *f, off_t size)
{
	OK(ftruncate(f->fd, size));
	if (size > f->size) {
		grow(f, size);
		return;
	}
	/* Who maps the file sees zeros behind the end; the clone does not. */
	if (variant("dax=always") && size < f->size && size % PAGE &&
	    f->block[size / PAGE] && !f->unwritten[size / PAGE])
		own(f, size / PAGE);
	memset(f->bytes + size, 0, (size_t)(MAX_BYTES - size));
	for (off_t i = up(size); i < MAX_PAGES; i++) {
		f->block[i] = 0;
		f->unwritten[i] = false;
	}
	f->size = size;
}

/* Part of a page becomes zeros. */
static void zero_part(struct file *f, off_t pos, off_t end)
{
	if (pos < end && f->block[pos / PAGE] && !f->unwritten[pos / PAGE])
		own(f, pos / PAGE);
}

/* Zeros; gives the whole pages among them. */
static void zero_bytes(struct file *f, off_t pos, off_t len, off_t *first,
		       off_t *last)
{
	off_t end = min_off(pos + len, MAX_BYTES);

	*first = up(pos);
	*last = end / PAGE;
	if (*first > *last) {
		zero_part(f, pos, end);
	} else {
		zero_part(f, pos, *first * PAGE);
		zero_part(f, *last * PAGE, end);
	}
	memset(f->bytes + pos, 0, (size_t)(end - pos));
}

static void do_punch(struct file *f, off_t pos, off_t len)
{
	off_t first, last;

	OK(fallocate(f->fd, PUNCH, pos, len));
	zero_bytes(f, pos, len, &first, &last);
	for (off_t i = first; i < last; i++) {
		f->block[i] = 0;
		f->unwritten[i] = false;
	}
}

static void do_zero(struct file *f, off_t pos, off_t len)
{
	off_t first, last;

	OK(fallocate(f->fd, FALLOC_FL_ZERO_RANGE, pos, len));
	grow(f, pos + len);
	zero_bytes(f, pos, len, &first, &last);
	for (off_t i = pos / PAGE; i < up(pos + len); i++) {
		bool whole = i >= first && i < last;

		if (f->block[i] == 0 || whole) {
			own(f, i);
			f->unwritten[i] = true;
		}
	}
}

static void do_unshare(struct file *f, off_t pos, off_t len)
{
	OK(unshare_range(f->fd, pos, len));
	for (off_t i = pos / PAGE; i < min_off(up(pos + len), up(f->size));
	     i++) {
		bool unwritten = f->unwritten[i];

		if (f->block[i]) {
			own(f, i);
			f->unwritten[i] = unwritten;
		}
	}
}

static void do_unlink(struct file *f)
{
	OK(unlink(f->name));
	close_ok(f->fd);
	f->fd = -1;
	memset(f->block, 0, MAX_PAGES * sizeof(*f->block));
}

/* Another file takes its name. */
static void do_replace(struct file *f)
{
	close_ok(pattern_file("new", 100, 7));
	OK(rename("new", f->name));
	close_ok(f->fd);
	f->fd = -1;
	memset(f->block, 0, MAX_PAGES * sizeof(*f->block));
}

struct range {
	off_t in, out, len;
};

/* Pages of [r->out, ..) that are shared: whole ones, and a common end. */
static void shared_part(const struct file *in, const struct file *out,
			const struct range *r, off_t *first, off_t *last)
{
	off_t end = r->out + r->len;

	*first = *last = 0;
	if ((r->in - r->out) % PAGE)
		return;
	*first = up(r->out);
	*last = end >= out->size && r->in + r->len >= in->size ? up(end)
							       : end / PAGE;
}

static void share_oracle(struct file *in, struct file *out,
			 const struct range *r)
{
	off_t first, last, delta = (r->in - r->out) / PAGE;

	shared_part(in, out, r, &first, &last);
	if (r->out + r->len > out->size)
		grow(out, r->out);
	memmove(out->bytes + r->out, in->bytes + r->in, (size_t)r->len);
	for (off_t i = r->out / PAGE; i < up(r->out + r->len); i++) {
		if (i >= first && i < last) {
			out->block[i] = in->block[i + delta];
			out->unwritten[i] = in->unwritten[i + delta];
		} else {
			own(out, i);
		}
	}
	out->size = max_off(out->size, r->out + r->len);
}

static void do_clone(struct file *in, struct file *out, const struct range *r)
{
	OK(clone_range(in->fd, r->in, out->fd, r->out, (uint64_t)r->len));
	share_oracle(in, out, r);
}

static void do_copy(struct file *in, struct file *out, const struct range *r)
{
	off_t pos_in = r->in, pos_out = r->out, left = r->len;

	while (left) {
		long long n = OK(copy_file_range(in->fd, &pos_in, out->fd,
						 &pos_out, (size_t)left, 0));

		NE(n, 0);
		left -= n;
	}
	share_oracle(in, out, r);
}

/* --- comparing ------------------------------------------------------------ */

static void check_bytes(const struct file *f, const char *what)
{
	EQ(fstat_of(f->fd).st_size, f->size);
	EQ(pread_ok(f->fd, scratch, (size_t)f->size, 0), f->size);
	for (off_t i = 0; i < f->size; i++)
		CHECK(scratch[i] == f->bytes[i],
		      "%s: byte %lld of %s is %#x, should be %#x", what,
		      (long long)i, f->name, scratch[i], f->bytes[i]);
}

static void check_shares(const struct file *f, const char *what)
{
	static unsigned char map[MAX_PAGES];

	/* What only the kernel has of the other file is not copied yet. */
	OK(fsync(fa.fd));
	OK(fsync(fb.fd));
	page_map(f->fd, map, MAX_PAGES);
	for (off_t i = 0; i < up(f->size); i++) {
		bool want = f->block[i] && users(f->block[i]) > 1;

		CHECK(!(map[i] & PAGE_THERE) == !f->block[i],
		      "%s: page %lld of %s: %s", what, (long long)i, f->name,
		      f->block[i] ? "a hole" : "not a hole");
		CHECK(!(map[i] & PAGE_SHARED) == !want,
		      "%s: page %lld of %s: %sshared", what, (long long)i,
		      f->name, want ? "not " : "");
	}
}

/*
 * Other filesystems share in units of their own.  And what a file without a
 * name shared goes some time later.
 */
static void check_file(const struct file *f, const char *what)
{
	if (f->fd < 0)
		return;
	check_bytes(f, what);
	if (on(MNT_FOLIOFS) && fa.fd >= 0 && fb.fd >= 0)
		check_shares(f, what);
}

static void close_file(struct file *f)
{
	if (f->fd >= 0)
		close_ok(f->fd);
	f->fd = -1;
}

/* --- sources -------------------------------------------------------------- */

enum kind {
	PLAIN,
	HOLES,
	UNWRITTEN,
	NR_KINDS
};

static const char *const kind_names[] = { "data", "holes", "unwritten" };

static void make_source(struct file *f, int nr, enum kind kind, off_t size)
{
	file_new(f, "a", nr);
	if (kind == UNWRITTEN) {
		OK(fallocate(f->fd, 0, 0, size));
		for (off_t i = 0; i < up(size); i++) {
			f->block[i] = ++next_block;
			f->unwritten[i] = true;
		}
		f->size = size;
		for (off_t pos = PAGE; pos + PAGE <= size; pos += 4 * PAGE)
			do_write(f, pos, PAGE);
		return;
	}
	do_write(f, 0, size);
	for (off_t pos = 2 * PAGE; kind == HOLES && pos + 2 * PAGE <= size;
	     pos += 5 * PAGE)
		do_punch(f, pos, 2 * PAGE);
}

/* --- each operation with a clone, in both orders ---------------------------
 */

/* One operation on pages 1 to 4 and a bit of the file. */
typedef void (*op_fn)(struct file *f, off_t unit);

static void op_truncate(struct file *f, off_t unit)
{
	do_truncate(f, unit + unit / 4);
}

static void op_truncate_aligned(struct file *f, off_t unit)
{
	do_truncate(f, unit);
}

static void op_extend(struct file *f, off_t unit)
{
	do_truncate(f, f->size + unit / 2);
}

static void op_to_nothing_and_back(struct file *f, off_t unit)
{
	off_t size = f->size;

	(void)unit;
	do_truncate(f, 0);
	do_truncate(f, size);
}

static void op_punch(struct file *f, off_t unit)
{
	do_punch(f, unit - 100, unit + 300);
}

static void op_punch_inside(struct file *f, off_t unit)
{
	do_punch(f, unit + 10, 50);
}

static void op_zero(struct file *f, off_t unit)
{
	do_zero(f, unit - 7, unit + PAGE);
}

static void op_write(struct file *f, off_t unit)
{
	do_write(f, unit - 33, 2 * PAGE);
}

static void op_write_byte(struct file *f, off_t unit)
{
	do_write(f, unit + unit / 2 + 1, 1);
}

static void op_append(struct file *f, off_t unit)
{
	do_write(f, f->size, unit / 2 + 5);
}

static void op_unshare(struct file *f, off_t unit)
{
	do_unshare(f, unit, unit);
}

static void op_unlink(struct file *f, off_t unit)
{
	(void)unit;
	do_unlink(f);
}

static void op_rename(struct file *f, off_t unit)
{
	(void)unit;
	do_replace(f);
}

struct share_case {
	struct range r;
	off_t size_in, size_out;
	bool copy; /* copy_file_range: no alignment is needed */
};

/* One case: prepare, operate before or after, compare all along. */
static void one_case(int nr, enum kind kind, const struct share_case *c,
		     op_fn op, bool before, bool to_source, off_t unit)
{
	struct file *victim = to_source ? &fa : &fb;
	char what[200];

	snprintf(what, sizeof(what),
		 "%s of %s, %lld bytes %lld to %lld, operation %s on the %s",
		 c->copy ? "copy" : "clone", kind_names[kind],
		 (long long)c->r.len, (long long)c->r.in, (long long)c->r.out,
		 before ? "before" : "after", to_source ? "source" : "target");
	make_source(&fa, nr, kind, c->size_in);
	file_new(&fb, "b", nr);
	if (c->size_out)
		do_write(&fb, 0, c->size_out);
	if (before)
		op(victim, unit);
	if (fa.size < c->r.in + c->r.len || fa.fd < 0 || fb.fd < 0)
		goto out; /* nothing to clone from or to */
	/* Part of a page only where both end. */
	if (!c->copy && c->r.len % PAGE &&
	    (fa.size != c->r.in + c->r.len || fb.size > c->r.out + c->r.len))
		goto out;
	(c->copy ? do_copy : do_clone)(&fa, &fb, &c->r);
	check_file(&fa, what);
	check_file(&fb, what);
	if (!before) {
		op(victim, unit);
		check_file(&fa, what);
		check_file(&fb, what);
	}
out:
	close_file(&fa);
	close_file(&fb);
}

static const struct share_case small_cases[] = {
	/* All of it, with and without part of a page at the end. */
	{ { 0, 0, 16 * PAGE }, 16 * PAGE, 0, false },
	{ { 0, 0, 16 * PAGE }, 16 * PAGE, 16 * PAGE, false },
	{ { 0, 0, 16 * PAGE - 1000 }, 16 * PAGE - 1000, 5000, false },
	{ { 0, 0, 16 * PAGE }, 16 * PAGE, 20 * PAGE, false },
	/* Pages. */
	{ { 0, 0, PAGE }, 16 * PAGE, 16 * PAGE, false },
	{ { PAGE, 3 * PAGE, 6 * PAGE }, 16 * PAGE, 16 * PAGE, false },
	/* Behind the end of the target, its last page cut. */
	{ { 0, 20 * PAGE, 8 * PAGE }, 16 * PAGE, 10 * PAGE + 77, false },
	/* The source's end, in the middle of a page. */
	{ { 2 * PAGE, 5 * PAGE, 10 * PAGE + 9 },
	  12 * PAGE + 9,
	  10 * PAGE,
	  false },
	/* Copies: the edges are copied, the rest is shared or not. */
	{ { 0, 0, 16 * PAGE }, 16 * PAGE, 0, true },
	{ { 100, 100, 9 * PAGE }, 16 * PAGE, 16 * PAGE, true },
	{ { PAGE + 5, 3 * PAGE + 5, 7 * PAGE - 5 }, 16 * PAGE, 8 * PAGE, true },
	{ { 0, PAGE, 6 * PAGE + 1 }, 16 * PAGE, 16 * PAGE, true },
	{ { 3, 9, 5 * PAGE }, 16 * PAGE, 10 * PAGE, true },
	{ { 3 * PAGE, 0, 2 * PAGE + 50 }, 5 * PAGE + 50, 2 * PAGE + 3, true },
};

static void with_clones(op_fn op)
{
	int nr = 0;

	for (size_t i = 0; i < sizeof(small_cases) / sizeof(*small_cases); i++)
		for (int kind = 0; kind < NR_KINDS; kind++)
			for (int how = 0; how < 4; how++)
				one_case(nr++, (enum kind)kind, &small_cases[i],
					 op, how & 1, how & 2, 4 * PAGE);
	if (on(MNT_FOLIOFS)) {
		remount(NULL); /* the shares are counted anew */
		if (op == op_unlink || op == op_rename)
			EQ(nr_shared_blocks(), 0);
	}
}

static const struct share_case large_cases[] = {
	{ { 0, 0, 6 * MIB }, 6 * MIB, 0, false },
	{ { CHUNK, 0, CHUNK }, 6 * MIB, 6 * MIB, false },
	{ { 0, CHUNK, 2 * CHUNK }, 6 * MIB, 6 * MIB, false },
	{ { CHUNK + PAGE, CHUNK - PAGE, CHUNK }, 6 * MIB, 6 * MIB, false },
	{ { PAGE + 1, PAGE + 1, 2 * CHUNK + 7 }, 6 * MIB, 6 * MIB, true },
};

static void with_large_clones(op_fn op)
{
	int nr = 0;

	for (size_t i = 0; i < sizeof(large_cases) / sizeof(*large_cases);
	     i++) {
		one_case(nr++, PLAIN, &large_cases[i], op, false, true, CHUNK);
		one_case(nr++, PLAIN, &large_cases[i], op, false, false, CHUNK);
	}
}

#define WITH_CLONES(op)                                 \
	MTEST(reflink, op##_and_pages, .timeout = 120)  \
	{                                               \
		with_clones(op_##op);                   \
	}                                               \
	MTEST(reflink, op##_and_chunks, .timeout = 120) \
	{                                               \
		with_large_clones(op_##op);             \
	}

WITH_CLONES(truncate)
WITH_CLONES(truncate_aligned)
WITH_CLONES(extend)
WITH_CLONES(to_nothing_and_back)
WITH_CLONES(punch)
WITH_CLONES(punch_inside)
WITH_CLONES(zero)
WITH_CLONES(write)
WITH_CLONES(write_byte)
WITH_CLONES(append)
WITH_CLONES(unshare)
WITH_CLONES(unlink)
WITH_CLONES(rename)

/* --- one file, and many --------------------------------------------------- */

static void empty_b(void)
{
	file_new(&fb, "b", 0);
}

MTEST(reflink, inside_one_file)
{
	static const struct range ranges[] = {
		{ 0, 4 * PAGE, 4 * PAGE },
		{ 4 * PAGE, 0, 4 * PAGE },
		{ 2 * PAGE, 20 * PAGE, 6 * PAGE }, /* behind the end */
		{ 0, 8 * PAGE, 8 * PAGE },
	};

	empty_b();
	for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
		make_source(&fa, (int)i, (enum kind)(i % NR_KINDS), 16 * PAGE);
		do_clone(&fa, &fa, &ranges[i]);
		check_file(&fa, "one file");
		do_write(&fa, 3 * PAGE + 5, 3 * PAGE);
		check_file(&fa, "one file, written");
		do_punch(&fa, 6 * PAGE, 3 * PAGE);
		check_file(&fa, "one file, punched");
		do_truncate(&fa, 10 * PAGE + 5);
		check_file(&fa, "one file, cut");
		close_file(&fa);
	}
}

MTEST(reflink, inside_one_file_by_chunks)
{
	const struct range r = { 0, 2 * CHUNK, CHUNK };
	const struct range edges = { PAGE, CHUNK + PAGE, CHUNK - 2 * PAGE };

	empty_b();
	make_source(&fa, 0, PLAIN, 3 * CHUNK);
	do_clone(&fa, &fa, &r);
	check_file(&fa, "a chunk");
	do_clone(&fa, &fa, &edges);
	check_file(&fa, "most of a chunk");
	do_write(&fa, 2 * CHUNK + PAGE - 1, 2);
	check_file(&fa, "written");
	do_truncate(&fa, CHUNK);
	check_file(&fa, "cut");
	close_file(&fa);
}

/* Not the oracle's two files: many. */
MTEST(reflink, of_one_file_to_many_and_back)
{
	int in = pattern_file("in", 64 * PAGE, 1), fd;
	char name[16];

	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		fd = open_ok(name, O_RDWR | O_CREAT);
		OK(clone_file(in, fd));
		write_pattern(fd, i * PAGE, PAGE, (uint64_t)i + 2);
		check_pattern(fd, i * PAGE, PAGE, (uint64_t)i + 2);
		close_ok(fd);
	}
	EQ(shared_bytes(in), 64 * PAGE);
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		fd = open_ok(name, O_RDONLY);
		check_pattern(fd, 0, (size_t)i * PAGE, 1);
		check_pattern(fd, (i + 1) * PAGE, (size_t)(63 - i) * PAGE, 1);
		close_ok(fd);
		OK(unlink(name));
	}
	check_pattern(in, 0, 64 * PAGE, 1);
	if (on(MNT_REMOUNT)) {
		close_ok(in);
		remount(NULL);
		in = open_ok("in", O_RDONLY);
	}
	EQ(shared_bytes(in), 0);
	close_ok(in);
}

MTEST(reflink, of_a_clone_of_a_clone)
{
	int a = pattern_file("a", 3 * MIB + 5, 1);
	int b = open_ok("b", O_RDWR | O_CREAT);
	int c = open_ok("c", O_RDWR | O_CREAT);

	OK(clone_file(a, b));
	OK(clone_file(b, c));
	write_pattern(b, MIB, 10000, 2);
	OK(unlink("a"));
	close_ok(a);
	check_pattern(c, 0, 3 * MIB + 5, 1);
	OK(clone_file(b, c));
	check_pattern(c, MIB, 10000, 2);
	check_pattern(c, 0, MIB, 1);
	OK(ftruncate(b, 0));
	check_pattern(c, MIB + 10000, 2 * MIB - 9995, 1);
	close_ok(b);
	close_ok(c);
}

MTEST(reflink, keeps_the_size_of_a_larger_target)
{
	int a = pattern_file("a", 3 * PAGE + 7, 1);
	int b = pattern_file("b", 10 * PAGE, 2);

	/* Part of a page, and behind it the target goes on. */
	FAILS(EINVAL, clone_file(a, b));
	check_pattern(b, 0, 10 * PAGE, 2);
	OK(ftruncate(a, 3 * PAGE));
	OK(clone_file(a, b));
	EQ(fstat_of(b).st_size, 10 * PAGE);
	check_pattern(b, 0, 3 * PAGE, 1);
	check_pattern(b, 3 * PAGE, 7 * PAGE, 2);
	close_ok(a);
	close_ok(b);
}

/* A tail is shared with what lies behind it; nobody may get to see that. */
MTEST(reflink, shows_nothing_behind_the_end)
{
	int a = pattern_file("a", 2 * PAGE, 1);
	int b = open_ok("b", O_RDWR | O_CREAT);

	OK(ftruncate(a, PAGE + 10));
	OK(clone_file(a, b));
	OK(ftruncate(b, 2 * PAGE));
	check_pattern(b, 0, PAGE + 10, 1);
	check_zero(b, PAGE + 10, PAGE - 10);
	OK(ftruncate(a, 3 * PAGE));
	check_zero(a, PAGE + 10, 2 * PAGE - 10);
	close_ok(a);
	close_ok(b);
}

/* --- share counts ----------------------------------------------------------
 */

MTEST(reflink, of_a_whole_file_is_one_share, .needs = MNT_FOLIOFS)
{
	int a = pattern_file("a", 20 * MIB + 5, 1);
	int b = open_ok("b", O_RDWR | O_CREAT);
	uint64_t before;

	settle();
	before = free_bytes();
	EQ(nr_shared_blocks(), 0);
	OK(clone_file(a, b));
	EQ(nr_shared_blocks(), 1);
	EQ(free_bytes(), before);
	EQ(shared_bytes(b), 20 * MIB + PAGE);
	/* A page of its own and what leads to it. */
	write_pattern(b, 9 * MIB, 1, 2);
	settle();
	LE(before - 8 * PAGE, free_bytes());
	EQ(shared_bytes(b), 20 * MIB);
	EQ(shared_bytes(a), 20 * MIB);
	close_ok(b);
	OK(unlink("b"));
	for (int i = 0; i < 300 && nr_shared_blocks(); i++)
		tick();
	EQ(nr_shared_blocks(), 0);
	check_pattern(a, 0, 20 * MIB + 5, 1);
	close_ok(a);
}

MTEST(reflink, copies_a_page_of_a_chunk, .needs = MNT_FOLIOFS)
{
	int a = pattern_file("a", 4 * MIB, 1);
	int b = open_ok("b", O_RDWR | O_CREAT);
	uint64_t before;

	OK(clone_range(a, 0, b, 0, 2 * MIB));
	before = free_bytes();
	write_pattern(b, MIB, PAGE, 2);
	settle();
	LE(before - 4 * PAGE, free_bytes());
	EQ(shared_bytes(a), 2 * MIB - PAGE);
	EQ(shared_bytes(b), 2 * MIB - PAGE);
	check_pattern(a, 0, 4 * MIB, 1);
	check_pattern(b, MIB, PAGE, 2);
	close_ok(a);
	close_ok(b);
}

MTEST(reflink, gives_all_space_back)
{
	uint64_t before, after = 0;
	int a, b;

	close_ok(pattern_file("warm", PAGE, 1));
	settle();
	before = free_bytes();
	a = pattern_file("a", 9 * MIB + 100, 1);
	b = open_ok("b", O_RDWR | O_CREAT);
	for (int i = 0; i < 4; i++) {
		OK(clone_file(a, b));
		write_pattern(b, i * 2 * MIB + 5, 10000, 2);
		OK(fallocate(a, PUNCH, i * 2 * MIB, MIB));
		OK(clone_range(b, 0, a, 4 * MIB, 2 * MIB));
		OK(ftruncate(b, 3 * MIB));
	}
	close_ok(a);
	close_ok(b);
	OK(unlink("a"));
	OK(unlink("b"));
	for (int i = 0; i < 500 && after < before; i++) {
		settle();
		tick();
		after = free_bytes();
	}
	/* Elsewhere the directory, and trees of the filesystem, may grow. */
	LE(before - (on(MNT_FOLIOFS) ? 0 : MIB), after);
}

/* --- dedupe ----------------------------------------------------------------
 */

MTEST(dedupe, shares_what_is_equal)
{
	int a = pattern_file("a", 8 * PAGE, 1);
	int b = pattern_file("b", 8 * PAGE, 1);
	struct stat st;
	uint64_t len;

	settle();
	st = fstat_of(b);
	EQ(shared_bytes(a), 0);
	EQ(dedupe_range(a, 0, b, 0, 8 * PAGE, &len), 0);
	EQ(len, 8 * PAGE);
	EQ(shared_bytes(a), 8 * PAGE);
	EQ(shared_bytes(b), 8 * PAGE);
	check_pattern(b, 0, 8 * PAGE, 1);
	CHECK(time_equal(st.st_mtim, fstat_of(b).st_mtim), "mtime moved");
	write_pattern(b, 0, PAGE, 2);
	check_pattern(a, 0, 8 * PAGE, 1);
	close_ok(a);
	close_ok(b);
}

/* What is asked for in part of a page is left out, not refused. */
MTEST(dedupe, of_parts_of_pages)
{
	int a = pattern_file("a", 8 * PAGE, 1);
	int b = pattern_file("b", 8 * PAGE, 1);
	uint64_t len;

	write_pattern(b, 3 * PAGE + 5, 1, 2);
	EQ(dedupe_range(a, 0, b, 0, 3 * PAGE + 100, &len), 0);
	EQ(len, 3 * PAGE + 100);
	EQ(shared_bytes(a), 3 * PAGE);
	EQ(dedupe_range(a, 0, b, 0, 3 * PAGE + 100, &len), 0);
	EQ(shared_bytes(b), 3 * PAGE);
	close_ok(a);
	close_ok(b);
}

MTEST(dedupe, leaves_what_differs)
{
	int a = pattern_file("a", 8 * PAGE, 1);
	int b = pattern_file("b", 8 * PAGE, 1);
	uint64_t len;

	write_pattern(b, 8 * PAGE - 1, 1, 2);
	EQ(dedupe_range(a, 0, b, 0, 8 * PAGE, &len), 1);
	EQ(len, 0);
	EQ(shared_bytes(a), 0);
	EQ(dedupe_range(a, 0, b, 0, 7 * PAGE, &len), 0);
	EQ(len, 7 * PAGE);
	EQ(shared_bytes(a), 7 * PAGE);
	close_ok(a);
	close_ok(b);
}

MTEST(dedupe, of_ends_and_chunks)
{
	int a = pattern_file("a", 2 * CHUNK + 100, 1);
	int b = pattern_file("b", 2 * CHUNK + 100, 1);
	uint64_t len;

	EQ(dedupe_range(a, 0, b, 0, 2 * CHUNK + 100, &len), 0);
	EQ(len, 2 * CHUNK + 100);
	EQ(shared_bytes(b), 2 * CHUNK + PAGE);
	check_pattern(b, 0, 2 * CHUNK + 100, 1);
	OK(ftruncate(a, 0));
	check_pattern(b, 0, 2 * CHUNK + 100, 1);
	close_ok(a);
	close_ok(b);
}

MTEST(dedupe, of_holes_and_zeros)
{
	unsigned char zeros[PAGE] = { 0 };
	int a = open_ok("a", O_RDWR | O_CREAT);
	int b = open_ok("b", O_RDWR | O_CREAT);
	uint64_t len;

	OK(ftruncate(a, 4 * PAGE));
	for (int i = 0; i < 4; i++)
		pwrite_ok(b, zeros, PAGE, i * PAGE);
	EQ(dedupe_range(a, 0, b, 0, 4 * PAGE, &len), 0);
	check_zero(b, 0, 4 * PAGE);
	EQ(fstat_of(b).st_size, 4 * PAGE);
	close_ok(a);
	close_ok(b);
}

/* --- refusals --------------------------------------------------------------
 */

static void check_untouched(int a, int b)
{
	EQ(fstat_of(a).st_size, 8 * PAGE + 100);
	check_pattern(a, 0, 8 * PAGE + 100, 1);
	EQ(fstat_of(b).st_size, 6 * PAGE);
	check_pattern(b, 0, 6 * PAGE, 2);
	EQ(shared_bytes(a), 0);
	EQ(shared_bytes(b), 0);
}

#define FAR INT64_MAX

/* The errno of XFS for each; FOLIOFS_TEST_FS=xfs runs the same rows there. */
static const struct bad_range {
	const char *what;
	uint64_t in, out, len;
	int clone, dedupe; /* errno; 0: allowed */
	bool same;	   /* the source is the target */
} bad_ranges[] = {
	{ "overlap", 0, PAGE, 2 * PAGE, EINVAL, EINVAL, true },
	{ "overlap, downwards", PAGE, 0, 2 * PAGE, EINVAL, EINVAL, true },
	{ "onto itself", 0, 0, PAGE, EINVAL, EINVAL, true },
	{ "source unaligned", 1, 0, PAGE, EINVAL, EINVAL, false },
	{ "target unaligned", 0, 1, PAGE, EINVAL, EINVAL, false },
	/* A dedupe does what it can. */
	{ "part of a page", 0, 0, 100, EINVAL, 0, false },
	{ "part of a page at the source's end", 8 * PAGE, 0, 100, EINVAL, 0,
	  false },
	{ "past the source's end", 7 * PAGE, 0, 2 * PAGE, EINVAL, EINVAL,
	  false },
	{ "behind the source's end", 9 * PAGE, 0, PAGE, EINVAL, EINVAL, false },
	{ "behind it, to the end", 9 * PAGE, 0, 0, EINVAL, 0, false },
	{ "source far away", FAR & ~(uint64_t)(PAGE - 1), 0, PAGE, EINVAL,
	  EINVAL, false },
	{ "source wraps", FAR, 0, FAR, EINVAL, EINVAL, false },
	{ "source negative", ~UINT64_C(0) << 12, 0, PAGE, EINVAL, EINVAL,
	  false },
	{ "target wraps", 0, FAR & ~(uint64_t)(PAGE - 1), PAGE, EINVAL, EINVAL,
	  false },
	{ "target negative", 0, ~UINT64_C(0) << 12, PAGE, EINVAL, EINVAL,
	  false },
	{ "length negative", 0, 0, ~UINT64_C(0) << 12, EINVAL, EINVAL, false },
	{ "all, part of a page onto more", 0, 0, 8 * PAGE + 100, 0, EINVAL,
	  false },
	{ "dedupe behind the target's end", 0, 5 * PAGE, 2 * PAGE, 0, EINVAL,
	  false },
};

static bool as_wanted(const char *call, const char *what, int ret, int want)
{
	if (ret == -1 && errno == want)
		return true;
	printf("# %s, %s: gave %s, should be %s\n", call, what,
	       ret < 0 ? mtest_errname(errno) : "success", mtest_errname(want));
	return false;
}

/* Says all that is wrong, not only the first. */
static bool run_bad_range(const struct bad_range *t, int a, int b)
{
	off_t from = (off_t)t->in, to = (off_t)t->out;
	int in = t->same ? b : a;
	bool good = true;
	uint64_t len;

	if (t->clone)
		good = as_wanted("clone", t->what,
				 clone_range(in, from, b, to, t->len),
				 t->clone);
	if (t->dedupe)
		good &= as_wanted("dedupe", t->what,
				  dedupe_range(in, from, b, to, t->len, &len),
				  t->dedupe);
	return good;
}

MTEST(refusals, of_ranges)
{
	int a = pattern_file("a", 8 * PAGE + 100, 1);
	int b = pattern_file("b", 6 * PAGE, 2);
	bool good = true;

	for (size_t i = 0; i < sizeof(bad_ranges) / sizeof(*bad_ranges); i++)
		good &= run_bad_range(&bad_ranges[i], a, b);
	CHECK(good, "as above");
	check_untouched(a, b);
	close_ok(a);
	close_ok(b);
}

MTEST(refusals, of_descriptors)
{
	int a = pattern_file("a", 8 * PAGE + 100, 1);
	int b = pattern_file("b", 6 * PAGE, 2);
	int rd = open_ok("b", O_RDONLY), ap = open_ok("b", O_RDWR | O_APPEND);
	int wr = open_ok("a", O_WRONLY);
	int dir = open_ok(".", O_RDONLY | O_DIRECTORY);
	int path = open_ok("b", O_PATH);
	uint64_t len;

	FAILS(EBADF, clone_range(a, 0, rd, 0, PAGE));
	FAILS(EBADF, clone_range(a, 0, ap, 0, PAGE));
	FAILS(EBADF, clone_range(wr, 0, b, 0, PAGE));
	FAILS(EBADF, clone_range(a, 0, path, 0, PAGE));
	FAILS(EBADF, clone_file(a, rd));
	FAILS(EISDIR, clone_range(dir, 0, b, 0, PAGE));
	FAILS(EISDIR, clone_range(a, 0, dir, 0, PAGE));
	/* Elsewhere the source is the descriptor of the call: EINVAL. */
	FAILS(on(MNT_FOLIOFS) ? EBADF : EINVAL,
	      dedupe_range(wr, 0, b, 0, PAGE, &len));
	FAILS(EISDIR, dedupe_range(a, 0, dir, 0, PAGE, &len));
	check_untouched(a, b);
}

static void set_flags(const char *path, int flags)
{
	int fd = open_ok(path, O_RDONLY);

	OK(ioctl(fd, FS_IOC_SETFLAGS, &flags));
	close_ok(fd);
}

MTEST(refusals, of_immutable_files)
{
	int a = pattern_file("a", 8 * PAGE + 100, 1);
	int b = pattern_file("b", 6 * PAGE, 2), c;
	uint64_t len;

	set_flags("b", FS_IMMUTABLE_FL);
	FAILS(EPERM, clone_range(a, 0, b, 0, PAGE));
	FAILS(EPERM, dedupe_range(a, 0, b, 0, PAGE, &len));
	FAILS(EPERM, copy_file_range(a, NULL, b, NULL, PAGE, 0));
	check_untouched(a, b);
	/* As a source it is good. */
	c = open_ok("c", O_RDWR | O_CREAT);
	OK(clone_file(b, c));
	check_pattern(c, 0, 6 * PAGE, 2);
	set_flags("b", 0);
	/* Append-only forbids the descriptor, not what it was opened for. */
	close_ok(b);
	set_flags("b", FS_APPEND_FL);
	FAILS(EPERM, open("b", O_RDWR));
	b = open_ok("b", O_RDWR | O_APPEND);
	FAILS(EBADF, clone_range(a, 0, b, 0, PAGE));
	set_flags("b", 0);
}

MTEST(refusals, of_other_kinds_of_files)
{
	int a = pattern_file("a", 8 * PAGE, 1), fifo, other;
	char path[200];

	OK(mkfifo("fifo", 0600));
	fifo = open_ok("fifo", O_RDWR | O_NONBLOCK);
	snprintf(path, sizeof(path), "%s/other", mtest_scratch());
	other = pattern_file(path, 8 * PAGE, 1);
	/* The scratch directory is a tmpfs, which has no such call. */
	if (on(MNT_FOLIOFS)) {
		FAILS(ENOTTY, clone_file(other, a));
		FAILS(ENOTTY, clone_file(a, other));
	} else {
		FAILS(EXDEV, clone_file(other, a));
		FAILS(EXDEV, clone_file(a, other));
		FAILS(EINVAL, clone_file(fifo, a));
	}
	check_pattern(a, 0, 8 * PAGE, 1);
}

/* As XFS: a clone that would have to take space fails and changes nothing. */
MTEST(refusals, on_a_full_device, .size = 64 << 20, .needs = MNT_FOLIOFS,
      .timeout = 120)
{
	int a = pattern_file("a", 4 * MIB, 1), fill, fd, ret = 0, i;
	char name[16];

	settle();
	fill = open_ok("fill", O_RDWR | O_CREAT);
	for (off_t pos = 0; !fallocate(fill, 0, pos, 64 * KIB);)
		pos += 64 * KIB;
	EQ(errno, ENOSPC);
	for (off_t pos = fstat_of(fill).st_size;
	     !fallocate(fill, 0, pos, PAGE);)
		pos += PAGE;
	EQ(errno, ENOSPC);
	/* Parts of a file need nodes; all of it needs none. */
	fd = open_ok("f", O_RDWR | O_CREAT);
	for (i = 0; i < 500; i++) {
		struct stat st = fstat_of(fd);

		ret = clone_range(a, PAGE, fd, (3ll * i + 1) * GIB, MIB);
		if (ret) {
			EQ(errno, ENOSPC);
			EQ(fstat_of(fd).st_size, st.st_size);
			EQ(fstat_of(fd).st_blocks, st.st_blocks);
			break;
		}
	}
	EQ(ret, -1);
	close_ok(fd);
	for (i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		fd = open(name, O_RDWR | O_CREAT, 0600);
		if (fd < 0)
			break;
		OK(clone_file(a, fd));
		if (!variant("cache=writeback"))
			FAILS(ENOSPC, pwrite(fd, "x", 1, 0));
		check_pattern(fd, 0, 4 * MIB, 1);
		close_ok(fd);
	}
	check_pattern(a, 0, 4 * MIB, 1);
	OK(ftruncate(fill, 0));
	OK(pwrite(a, "x", 1, 0));
	close_ok(fill);
	close_ok(a);
}

/* --- tokens ----------------------------------------------------------------
 */

static int clone_by(const uint8_t token[16], int out)
{
	struct foliofs_ioc_clone c;

	memcpy(c.token, token, sizeof(c.token));
	return ioctl(out, FOLIOFS_IOC_CLONE, &c);
}

MTEST(tokens, are_good_once, .needs = MNT_FOLIOFS)
{
	int a = pattern_file("a", 8 * PAGE + 100, 1);
	int b = pattern_file("b", 2 * PAGE, 2);
	uint8_t token[16];

	OK(token_of(a, token));
	OK(clone_by(token, b));
	check_pattern(b, 0, 8 * PAGE + 100, 1);
	OK(ftruncate(b, 0));
	FAILS(EACCES, clone_by(token, b));
	EQ(fstat_of(b).st_size, 0);
	/* Also when the call failed for another reason. */
	OK(token_of(a, token));
	OK(ftruncate(b, 10 * PAGE));
	FAILS(EINVAL, clone_by(token, b));
	OK(ftruncate(b, 0));
	FAILS(EACCES, clone_by(token, b));
}

MTEST(tokens, need_leave_to_read, .needs = MNT_FOLIOFS)
{
	uint8_t token[16] = { 0 };
	int wr, b = open_ok("b", O_RDWR | O_CREAT);

	close_ok(pattern_file("a", 8 * PAGE, 1));
	wr = open_ok("a", O_WRONLY);
	FAILS(EBADF, token_of(wr, token));
	FAILS(EACCES, clone_by(token, b));
	memset(token, 0xff, sizeof(token));
	FAILS(EACCES, clone_by(token, b));
	EQ(fstat_of(b).st_size, 0);
}

MTEST(tokens, outlive_the_file_and_its_names, .needs = MNT_FOLIOFS)
{
	int a = pattern_file("a", 8 * PAGE, 1);
	int b = open_ok("b", O_RDWR | O_CREAT);
	uint8_t token[16];

	OK(token_of(a, token));
	OK(unlink("a"));
	close_ok(a);
	OK(clone_by(token, b));
	check_pattern(b, 0, 8 * PAGE, 1);
	close_ok(b);
}

/* --- programs --------------------------------------------------------------
 */

MTEST(reflink, cp_shares)
{
	const char *const cp[] = { "cp", "--reflink=auto", "a", "b", NULL };
	const char *const install[] = { "install", "a", "c", NULL };
	int fd;

	close_ok(pattern_file("a", 3 * MIB + 17, 1));
	EQ(sandbox_exec(cp, "/dev/null"), 0);
	fd = open_ok("b", O_RDONLY);
	check_pattern(fd, 0, 3 * MIB + 17, 1);
	EQ(shared_bytes(fd), 3 * MIB + PAGE);
	close_ok(fd);
	EQ(sandbox_exec(install, "/dev/null"), 0);
	fd = open_ok("c", O_RDONLY);
	check_pattern(fd, 0, 3 * MIB + 17, 1);
	if (on(MNT_FOLIOFS))
		EQ(shared_bytes(fd), 3 * MIB + PAGE);
	close_ok(fd);
}
