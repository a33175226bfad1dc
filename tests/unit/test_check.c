/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/test_check.c - fs/check.h: every fault by itself
 *
 * One fault is made in a good image.  fsck -n must name it and change
 * nothing; fsck -y must repair it, so that a second run finds nothing, the
 * filesystem mounts, and nothing in it is damaged.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fs/check.h"
#include "fs/fs.h"
#include "tests/fuzz/populate.h"
#include "tests/fuzz/visit.h"

#define IMAGE_SIZE (UINT64_C(8) << 20)
#define COPY_OFF   (IMAGE_SIZE - BLOCK_SIZE)

#define SB(field)    offsetof(struct foliofs_superblock, field)
#define INODE(field) offsetof(struct foliofs_inode, field)

static char path[64];
static unsigned char *image;
static char reports[16384];

static void setup(void)
{
	int fd;

	snprintf(path, sizeof(path), "/dev/shm/foliofs-check-%d",
		 (int)getpid());
	unlink(path);
	populate(path, IMAGE_SIZE, false);
	fd = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	image = mmap(NULL, IMAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		     0);
	cr_assert_neq(image, MAP_FAILED);
	close(fd);
}

static void teardown(void)
{
	munmap(image, IMAGE_SIZE);
	unlink(path);
}

/* Looking for places, with the filesystem open for a moment. */

static struct foliofs *open_fs(bool read_only)
{
	struct foliofs_options opt = { .device = path,
				       .read_only = read_only,
				       .walk_threads = 1 };
	struct errmsg err = { "" };
	struct foliofs *fs;

	cr_assert_eq(foliofs_open(&opt, &fs, &err), 0, "%s", err.text);
	return fs;
}

/* The inode at a path from the root, with a reference; NULL if not there. */
static struct inode *find(struct foliofs *fs, const char *name)
{
	struct inode *ip, *next;
	char copy[256], *save, *part;
	int ret;

	snprintf(copy, sizeof(copy), "%s", name);
	cr_assert_eq(inode_get(fs, FOLIOFS_ROOT_INO, &ip), 0);
	for (part = strtok_r(copy, "/", &save); part;
	     part = strtok_r(NULL, "/", &save)) {
		ret = fs_lookup(ip, part, &next);
		inode_put(ip);
		if (ret)
			return NULL;
		ip = next;
	}
	return ip;
}

/* Media offset of a file's inode. */
static uint64_t at(const char *name)
{
	struct foliofs *fs = open_fs(true);
	struct inode *ip = find(fs, name);
	uint64_t off;

	cr_assert(ip, "%s", name);
	off = ip->off;
	inode_put(ip);
	foliofs_close(fs);
	return off;
}

static uint64_t number(const char *name)
{
	struct foliofs *fs = open_fs(true);
	struct inode *ip = find(fs, name);
	uint64_t ino = ip->ino;

	inode_put(ip);
	foliofs_close(fs);
	return ino;
}

/* Media offset of the entry @name of directory @dir. */
static uint64_t entry(const char *dir, const char *name)
{
	struct dir_name n = { name, (unsigned int)strlen(name) };
	struct foliofs *fs = open_fs(true);
	struct inode *ip = find(fs, dir);
	struct dir_found found;

	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	cr_assert_eq(dir_lookup(ip, &n, &found), 0, "%s", name);
	rwsem_up_read(&ip->rwsem);
	inode_put(ip);
	foliofs_close(fs);
	return found.off;
}

static uint64_t get(uint64_t off)
{
	le64 v;

	memcpy(&v, image + off, sizeof(v));
	return le64_to_cpu(v);
}

static void put(uint64_t off, uint64_t value)
{
	le64 v = cpu_to_le64(value);

	memcpy(image + off, &v, sizeof(v));
}

static void put32(uint64_t off, uint32_t value)
{
	le32 v = cpu_to_le32(value);

	memcpy(image + off, &v, sizeof(v));
}

/* The slot of page @index of a file with one node. */
static uint64_t slot_off(const char *name, unsigned int index)
{
	uint64_t root = get(at(name) + INODE(data));

	cr_assert_eq(slot_type(root), SLOT_NODE);
	return (slot_block(root) << BLOCK_SHIFT) + index * sizeof(le64);
}

static void seal(uint64_t off)
{
	put32(off + SB(crc), pmem_crc32c(image + off, SB(crc)));
}

/* Faults. */

static void super_damaged(void)
{
	put(SB(nr_blocks), 5);
}

static void super_wiped(void)
{
	memset(image, 0, BLOCK_SIZE);
}

static void super_copy_damaged(void)
{
	put(COPY_OFF + SB(uuid), 5);
}

static void super_copy_of_another(void)
{
	put(COPY_OFF + SB(uuid), 5);
	seal(COPY_OFF);
}

static void super_roots_differ(void)
{
	put(SB(itable_root), slot_make(SLOT_DATA, 0, 1000));
}

static void super_state_unknown(void)
{
	put(SB(state), 77);
}

static void lane_stray(void)
{
	struct foliofs_lane *l = (struct foliofs_lane *)(image + BLOCK_SIZE);

	memset(l, 0, sizeof(*l));
	l->seq = cpu_to_le64(3);
	l->nr = cpu_to_le32(1);
	l->word[0].off = cpu_to_le64(BLOCK_SIZE);
	l->crc = cpu_to_le32(
		pmem_crc32c(l, offsetof(struct foliofs_lane, word[1])));
}

static void inode_no_type(void)
{
	put32(at("small"), 0000644);
}

static void inode_mode_bits(void)
{
	put32(at("small"), 0x80000000 | S_IFREG | 0644);
}

static void inode_flags_unknown(void)
{
	put32(at("small") + INODE(flags), 0x1000);
}

static void inode_reserved(void)
{
	put(at("small") + INODE(reserved[2]), 1);
}

static void inode_links_high(void)
{
	put32(at("small") + INODE(nlink), 7);
}

static void inode_links_none(void)
{
	put32(at("small") + INODE(nlink), 0);
}

static void dir_links_none(void)
{
	put32(at("dir") + INODE(nlink), 0);
}

static void dir_links_low(void)
{
	put32(at("dir") + INODE(nlink), 1);
}

static void file_size_impossible(void)
{
	put(at("small") + INODE(size), UINT64_MAX - 5);
}

static void file_data_behind_end(void)
{
	put(at("pieces") + INODE(size), 5000);
}

static void file_chunk_behind_end(void)
{
	put(at("chunk") + INODE(size), 1 << 20);
}

static void file_root_outside(void)
{
	put(at("small") + INODE(data), slot_make(SLOT_DATA, 0, 1 << 20));
}

static void file_root_is_superblock(void)
{
	put(at("small") + INODE(data), slot_make(SLOT_DATA, 0, 0));
}

static void file_slot_is_lane(void)
{
	put(slot_off("pieces", 3), slot_make(SLOT_DATA, 0, 1));
}

static void file_slot_is_own_node(void)
{
	uint64_t off = slot_off("pieces", 3);

	put(off, slot_make(SLOT_NODE, 0, off >> BLOCK_SHIFT));
}

static void file_slot_is_last_block(void)
{
	put(slot_off("pieces", 3),
	    slot_make(SLOT_DATA, 0, COPY_OFF >> BLOCK_SHIFT));
}

static void file_slot_of_wrong_level(void)
{
	put(slot_off("pieces", 3), slot_make(SLOT_DATA, 1, 512));
}

static void file_slot_of_unknown_type(void)
{
	put(slot_off("pieces", 3), get(slot_off("pieces", 3)) | 7);
}

static void file_chunk_not_aligned(void)
{
	put(at("small") + INODE(data), slot_make(SLOT_DATA, 1, 513));
}

static void file_has_blocks_of_dir(void)
{
	put(at("small") + INODE(data), get(at("dir") + INODE(data)));
}

static void file_has_node_of_dir(void)
{
	/* A higher number, so that the directory is looked at first. */
	put(at("dir/attributes") + INODE(data),
	    get(at("dir/sub") + INODE(data)));
}

static void node_is_its_own_parent(void)
{
	uint64_t root = get(at("pieces") + INODE(data));

	put(at("pieces") + INODE(data),
	    slot_make(SLOT_NODE, 2, slot_block(root)));
	put(slot_block(root) << BLOCK_SHIFT, root);
}

static void dirs_share_blocks(void)
{
	put(at("dir/sub/leaf") + INODE(data), get(at("dir") + INODE(data)));
	put(at("dir/sub/leaf") + INODE(size), BLOCK_SIZE);
}

static void dir_slot_lost(void)
{
	put(slot_off("dir/sub", 0), 0);
}

static void dir_slot_unwritten(void)
{
	put(slot_off("dir/sub", 1),
	    (get(slot_off("dir/sub", 1)) & ~SLOT_TYPE_MASK) | SLOT_UNWRITTEN);
}

static void dir_size_odd(void)
{
	put(at("dir") + INODE(size), 4097);
}

static void dir_parent_wrong(void)
{
	put(at("dir/sub") + INODE(parent), FOLIOFS_ROOT_INO);
}

static void symlink_empty(void)
{
	put(at("dir/short") + INODE(size), 0);
}

static void symlink_with_zero(void)
{
	image[at("dir/short") + INODE(symlink) + 2] = 0;
}

static void symlink_with_data(void)
{
	put(at("dir/short") + INODE(data), get(at("small") + INODE(data)));
}

static void symlink_target_lost(void)
{
	put(at("dir/long") + INODE(data), 0);
}

static void fifo_with_size(void)
{
	put(at("dir/fifo") + INODE(size), 1);
}

static void xattr_level(void)
{
	put(at("dir/attributes") + INODE(xattr), slot_make(SLOT_NODE, 2, 900));
}

static uint64_t xattr_block(void)
{
	return slot_block(get(at("dir") + INODE(xattr))) << BLOCK_SHIFT;
}

static void xattr_magic(void)
{
	put32(xattr_block(), 1);
}

static void xattr_record(void)
{
	put32(xattr_block() + sizeof(struct foliofs_xattr_header), 1 << 30);
}

static void xattr_twice(void)
{
	uint64_t node = get(at("dir/attributes") + INODE(xattr));
	uint64_t first = get(slot_block(node) << BLOCK_SHIFT);

	/* It was user.small, which is as long. */
	memcpy(image + (slot_block(first) << BLOCK_SHIFT) +
		       sizeof(struct foliofs_xattr_header) +
		       sizeof(struct foliofs_xattr),
	       "user.large", 10);
}

static void entry_of_free_inode(void)
{
	put(entry("dir", "fifo"), 3000);
}

static void entry_of_far_inode(void)
{
	put(entry("dir", "fifo"), UINT64_MAX);
}

static void entry_of_root(void)
{
	put(entry("dir", "fifo"), FOLIOFS_ROOT_INO);
}

static void entry_of_itself(void)
{
	put(entry("dir", "sub"), number("dir"));
}

static void entry_second_of_dir(void)
{
	put(entry("dir", "fifo"), number("dir/sub"));
}

static void entry_type_wrong(void)
{
	image[entry("dir", "fifo") + offsetof(struct foliofs_dentry, type)] =
		S_IFDIR >> 12;
}

static void entry_reserved(void)
{
	put32(entry("dir", "fifo") + offsetof(struct foliofs_dentry, reserved),
	      9);
}

static void entry_with_slash(void)
{
	image[entry("dir", "fifo") + sizeof(struct foliofs_dentry)] = '/';
}

static void entry_with_zero(void)
{
	image[entry("dir", "fifo") + sizeof(struct foliofs_dentry)] = 0;
}

static void entry_dot_dot(void)
{
	uint64_t off = entry("dir", "fifo");

	image[off + offsetof(struct foliofs_dentry, name_len)] = 2;
	memcpy(image + off + sizeof(struct foliofs_dentry), "..", 2);
}

static void entry_twice(void)
{
	uint64_t off = entry("dir", "fifo");

	/* As long as "long", so that only the letters differ. */
	memcpy(image + off + sizeof(struct foliofs_dentry), "long", 4);
}

static void entry_length_zero(void)
{
	put32(entry("dir", "fifo") + offsetof(struct foliofs_dentry, rec_len),
	      0);
}

static void entry_length_odd(void)
{
	put32(entry("dir", "fifo") + offsetof(struct foliofs_dentry, rec_len),
	      27 | 4 << 16);
}

static void entry_behind_block(void)
{
	put32(entry("dir", "fifo") + offsetof(struct foliofs_dentry, rec_len),
	      65528 | 4 << 16);
}

static void ring(void)
{
	uint64_t sub = number("dir/sub"), here = entry("/", "dir");
	uint64_t inside = entry("dir/sub", "leaf"), dir = number("dir");

	/* sub has dir in place of leaf, and nobody else has dir. */
	(void)sub;
	put(inside, dir);
	put(here, 0);
}

static void dir_lost(void)
{
	put(entry("dir", "sub"), 0);
}

static void file_lost(void)
{
	put(entry("/", "sparse"), 0);
}

static void root_no_dir(void)
{
	put32(at("/"), S_IFREG | 0644);
}

static void root_parent(void)
{
	put(at("/") + INODE(parent), 5);
}

static void root_links_none(void)
{
	put32(at("/") + INODE(nlink), 0);
}

static void root_block_lost(void)
{
	uint64_t root = get(SB(itable_root));

	cr_assert_eq(slot_type(root), SLOT_NODE);
	put(slot_block(root) << BLOCK_SHIFT, 0);
}

static void table_slot_bad(void)
{
	uint64_t root = get(SB(itable_root));

	put((slot_block(root) << BLOCK_SHIFT) + 2 * sizeof(le64), UINT64_MAX);
}

/* The table: a fault, what fsck says of it, what is there afterwards. */

struct fault {
	char name[40];
	void (*make)(void);
	char says[80];
	char then[40]; /* a path that must be there after the repair */
};

#define FAULT(fn, says, then)             \
	{                                 \
#fn, (fn), (says), (then) \
	}

static const struct fault faults[] = {
	FAULT(super_damaged, "superblock: damaged, and its copy", "small"),
	FAULT(super_wiped, "superblock: damaged, and its copy", "small"),
	FAULT(super_copy_damaged, "the copy is not the same", "small"),
	FAULT(super_copy_of_another, "the copy is not the same", "small"),
	FAULT(super_roots_differ, "root of the inode table", "small"),
	FAULT(super_state_unknown, "unknown state 0x4d", "small"),
	FAULT(lane_stray, "lane 0: a record with words where none", "small"),
	FAULT(inode_no_type, "inode: of no type", "chunk"),
	FAULT(inode_mode_bits, "inode: mode 020000100644", "small"),
	FAULT(inode_flags_unknown, "unknown flags 0x1000", "small"),
	FAULT(inode_reserved, "reserved bytes are in use", "small"),
	FAULT(inode_links_high, "7 links, counted 2", "small"),
	FAULT(inode_links_none, "no links, and a name", "small"),
	FAULT(dir_links_none, "no links, and a name", "dir/sub/leaf"),
	FAULT(dir_links_low, "1 links, counted 3", "dir/sub/leaf"),
	FAULT(file_size_impossible, "impossible size", "small"),
	FAULT(file_data_behind_end, "data behind its end", "pieces"),
	FAULT(file_chunk_behind_end, "data behind its end", "chunk"),
	FAULT(file_root_outside, "cannot be", "small"),
	FAULT(file_root_is_superblock, "cannot be", "small"),
	FAULT(file_slot_is_lane, "of page 3 cannot be", "pieces"),
	FAULT(file_slot_is_own_node, "of page 3 cannot be", "pieces"),
	FAULT(file_slot_is_last_block, "of page 3 cannot be", "pieces"),
	FAULT(file_slot_of_wrong_level, "of page 3 cannot be", "pieces"),
	FAULT(file_slot_of_unknown_type, "of page 3 cannot be", "pieces"),
	FAULT(file_chunk_not_aligned, "cannot be", "small"),
	FAULT(file_has_blocks_of_dir, "that is something else", "chunk"),
	FAULT(file_has_node_of_dir, "that is in use already", "dir/attributes"),
	FAULT(node_is_its_own_parent, "that is something else", "pieces"),
	FAULT(dirs_share_blocks, "that is in use already", "dir/sub/leaf"),
	FAULT(dir_slot_lost, "with holes between them", "dir/sub"),
	FAULT(dir_slot_unwritten, "can only be in a file", "dir/sub"),
	FAULT(dir_size_odd, "directory: size 4097", "dir/sub/leaf"),
	FAULT(dir_parent_wrong, "but it says 1", "dir/sub/leaf"),
	FAULT(symlink_empty, "a symlink of that size", "dir/long"),
	FAULT(symlink_with_zero, "zero byte in its target", "dir/long"),
	FAULT(symlink_with_data, "symlink: short, and has data", "dir/short"),
	FAULT(symlink_target_lost, "a symlink without a target", "dir/short"),
	FAULT(fifo_with_size, "special file: has data", "dir/fifo"),
	FAULT(xattr_level, "is no place for them", "dir/attributes"),
	FAULT(xattr_magic, "attributes: damaged", "dir/sub"),
	FAULT(xattr_record, "attributes: damaged", "dir/sub"),
	FAULT(xattr_twice, "attributes: damaged", "dir/attributes"),
	FAULT(entry_of_free_inode, "leads to an inode that is not", "dir"),
	FAULT(entry_of_far_inode, "leads to an inode that is not", "dir"),
	FAULT(entry_of_root, "leads to the root directory", "dir"),
	FAULT(entry_of_itself, "a second name of a directory", "dir"),
	FAULT(entry_second_of_dir, "a second name of a directory", "dir/long"),
	FAULT(entry_type_wrong, "says type 4, but it is 1", "dir/fifo"),
	FAULT(entry_reserved, "reserved bytes are in use", "dir/fifo"),
	FAULT(entry_with_slash, "a slash in the name", "dir/long"),
	FAULT(entry_with_zero, "a zero byte in the name", "dir/long"),
	FAULT(entry_dot_dot, "named . or ..", "dir/long"),
	FAULT(entry_twice, "its name is there twice", "dir/long"),
	FAULT(entry_length_zero, "directory: damaged entry", "dir"),
	FAULT(entry_length_odd, "directory: damaged entry", "dir"),
	FAULT(entry_behind_block, "directory: damaged entry", "dir"),
	FAULT(ring, "is below itself", "lost+found"),
	FAULT(dir_lost, "directory: no name leads to it", "lost+found"),
	FAULT(file_lost, "file: no name leads to it", "lost+found"),
	FAULT(root_no_dir, "root: not a directory", "lost+found"),
	FAULT(root_parent, "root: its parent is inode 5", "dir/sub/leaf"),
	FAULT(root_links_none, "root: no links", "dir/sub/leaf"),
	FAULT(root_block_lost, "root: lost", "lost+found"),
	FAULT(table_slot_bad, "cannot be", "small"),
};

static void on_report(void *ctx, const struct check_problem *p)
{
	size_t len = strlen(reports);

	(void)ctx;
	snprintf(reports + len, sizeof(reports) - len, "inode %ju: %s\n",
		 (uintmax_t)p->ino, p->text);
}

static struct check_result check(bool repair, const char *name)
{
	struct check_options opt = { .device = path,
				     .repair = repair,
				     .report = on_report };
	struct check_result res;
	struct errmsg err = { "" };
	int ret;

	reports[0] = '\0';
	ret = foliofs_check(&opt, &res, &err);
	cr_assert_eq(ret, 0, "%s: %s", name, err.text);
	return res;
}

static void must_be_good(const struct fault *f)
{
	struct check_result res = check(false, f->name);
	struct foliofs *fs;
	struct inode *ip;

	cr_expect_eq(res.nr_errors, 0, "%s: after the repair: %s", f->name,
		     reports);
	fs = open_fs(false);
	ip = find(fs, f->then);
	cr_expect(ip, "%s: %s is not there", f->name, f->then);
	if (ip)
		inode_put(ip);
	cr_expect_eq(visit(fs, true), 0, "%s: still damaged", f->name);
	foliofs_close(fs);
	res = check(false, f->name);
	cr_expect_eq(res.nr_errors, 0, "%s: after use: %s", f->name, reports);
}

#define NR_FAULTS (sizeof(faults) / sizeof(faults[0]))

/* By number: a test is another process, where functions are elsewhere. */
ParameterizedTestParameters(check, names_and_repairs)
{
	static unsigned int numbers[NR_FAULTS];

	for (unsigned int i = 0; i < NR_FAULTS; i++)
		numbers[i] = i;
	return cr_make_param_array(unsigned int, numbers, NR_FAULTS);
}

ParameterizedTest(unsigned int *nr, check, names_and_repairs, .init = setup,
		  .fini = teardown, .timeout = 60)
{
	static unsigned char before[IMAGE_SIZE];
	const struct fault *f = &faults[*nr];
	struct check_result res;

	f->make();
	memcpy(before, image, IMAGE_SIZE);
	res = check(false, f->name);
	cr_expect_gt(res.nr_errors, 0, "%s: not found", f->name);
	cr_expect_eq(res.nr_left, res.nr_errors);
	cr_expect(strstr(reports, f->says), "%s: says only: %s", f->name,
		  reports);
	cr_expect(memcmp(before, image, IMAGE_SIZE) == 0,
		  "%s: fsck -n changed the device", f->name);

	res = check(true, f->name);
	cr_expect_gt(res.nr_errors, 0, "%s: not found", f->name);
	cr_expect_eq(res.nr_left, 0, "%s: left: %s", f->name, reports);
	must_be_good(f);
}

/* A record that changes nothing, with this number, in lane @i. */
static uint64_t put_record(unsigned int i, uint64_t seq)
{
	uint64_t off = BLOCK_SIZE + i * FOLIOFS_LANE_SIZE, word = at("small");
	struct foliofs_lane rec = { .seq = cpu_to_le64(seq),
				    .nr = cpu_to_le32(1) };

	rec.word[0].off = cpu_to_le64(word);
	rec.word[0].value = cpu_to_le64(get(word));
	rec.crc = cpu_to_le32(
		pmem_crc32c(&rec, offsetof(struct foliofs_lane, word[1])));
	memcpy(image + off, &rec, sizeof(rec));
	return off;
}

/*
 * The superblock's copy does not know how often the filesystem was mounted:
 * numbers must not be used again that are, or were, in the lanes.
 */
Test(check, copy_of_superblock_takes_new_numbers, .init = setup,
     .fini = teardown)
{
	const uint64_t seq = UINT64_C(1) << 40 | 3;
	struct check_result res;
	uint64_t retired;

	retired = put_record(5, seq);
	put(retired, 0);
	put_record(2, UINT64_C(9) << 40 | 7);
	super_wiped();
	res = check(true, "super_wiped");
	cr_expect_eq(res.nr_replayed, 1, "%s", reports);
	cr_expect_gt(get(SB(nr_mounts)), 9);

	/* The number alone does not bring the old record back. */
	put(retired, seq);
	res = check(false, "number used again");
	cr_expect_eq(res.nr_replayed, 0, "%s", reports);
}

/* A file that was lost comes back with its contents. */
Test(check, lost_file_keeps_its_bytes, .init = setup, .fini = teardown)
{
	uint64_t ino = number("sparse");
	struct foliofs *fs;
	struct inode *ip;
	char name[64];

	file_lost();
	check(true, "file_lost");
	snprintf(name, sizeof(name), "lost+found/#%ju", (uintmax_t)ino);
	fs = open_fs(true);
	ip = find(fs, name);
	cr_assert(ip, "%s", name);
	cr_expect_eq(inode_size(ip), (UINT64_C(3) << 30) + 5000);
	cr_expect_eq(inode_nlink(ip), 1);
	inode_put(ip);
	foliofs_close(fs);
}

/* What a crash leaves is no fault. */
Test(check, crash_is_no_fault)
{
	struct check_result res;

	snprintf(path, sizeof(path), "/dev/shm/foliofs-check-%d",
		 (int)getpid());
	unlink(path);
	populate(path, IMAGE_SIZE, true);
	res = check(false, "crash");
	cr_expect_eq(res.nr_errors, 0, "%s", reports);
	cr_expect_gt(res.nr_infos, 0);
	cr_expect_gt(res.nr_replayed, 0);
	res = check(true, "crash");
	cr_expect_eq(res.nr_errors, 0, "%s", reports);
	res = check(false, "crash");
	cr_expect_eq(res.nr_errors + res.nr_infos, 0, "%s", reports);
	unlink(path);
}

static bool stop(void *ctx, enum check_phase phase, uint64_t done,
		 uint64_t total)
{
	(void)ctx;
	(void)done;
	(void)total;
	return phase != CHECK_NAMES;
}

/* What was found until then is repaired, and the rest by the next run. */
Test(check, can_be_stopped, .init = setup, .fini = teardown)
{
	struct check_options opt = { .device = path,
				     .repair = true,
				     .progress = stop };
	struct check_result res;
	struct errmsg err = { "" };

	inode_flags_unknown();
	entry_type_wrong();
	cr_expect_eq(foliofs_check(&opt, &res, &err), -ECANCELED);
	res = check(true, "stopped");
	cr_expect_eq(res.nr_errors, 1, "%s", reports);
	cr_expect_eq(res.nr_left, 0);
}

Test(check, nothing_left_is_said, .init = setup, .fini = teardown)
{
	struct check_options opt = { .device = path, .repair = true };
	struct check_result res;
	struct errmsg err = { "" };

	put(SB(itable_root), 0);
	put(COPY_OFF + SB(itable_root), 0);
	cr_expect_eq(foliofs_check(&opt, &res, &err), -EUCLEAN);
	cr_expect(strstr(err.text, "the inode table is lost"), "%s", err.text);
	memset(image, 0, BLOCK_SIZE);
	memset(image + COPY_OFF, 0, BLOCK_SIZE);
	cr_expect_eq(foliofs_check(&opt, &res, &err), -EINVAL);
	cr_expect(strstr(err.text, "not a foliofs"), "%s", err.text);
}
