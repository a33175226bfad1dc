/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/xattr.c - extended attributes
 *
 * The attributes of an inode are one run of bytes: a header and records, in
 * one block or in the blocks of one node.  A change builds a whole new run in
 * blocks that nothing reaches, and the inode's xattr word moves from the old
 * one to the new one: so a crash leaves all of the old attributes or all of
 * the new ones, whatever their size, and readers of the old run need no care.
 *
 * Records and their headers are multiples of 8 bytes, so that a record's
 * header never crosses a block; names and values do.  Each record is checked
 * where it is read, and what was read is not read again: nothing on media can
 * lead outside the run.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <xxhash.h>

#include "fs/fs.h"

#define CAPABILITY "security.capability"
#define TRUSTED	   "trusted."

/* A run on media, with a header that was found to be sane. */
struct run {
	struct inode *ip;
	uint64_t root;
	uint64_t len;
	uint32_t nr;
};

/* One record of a run. */
struct record {
	uint64_t pos;
	uint64_t next; /* position behind it */
	uint64_t value_pos;
	uint32_t value_len;
	unsigned int name_len;
	char name[UINT8_MAX + 1];
};

static uint64_t record_len(unsigned int name_len, uint64_t value_len)
{
	uint64_t len = sizeof(struct foliofs_xattr) + name_len + value_len;

	return (len + 7) & ~UINT64_C(7);
}

/*
 * What cannot be is damage, unless the page was lost to a machine check just
 * now: then it is zeros, and the operation fails with -EIO.
 */
static int run_damaged(const struct run *run, uint64_t pos)
{
	if (pmem_fault_pending())
		return -EIO;
	return fs_damaged(run->ip->fs,
			  "inode %llu: extended attributes %#llx: bad at %llu",
			  (unsigned long long)run->ip->ino,
			  (unsigned long long)run->root,
			  (unsigned long long)pos);
}

/* Media offset of byte @pos, or 0 where there is no block. */
static uint64_t run_at(const struct run *run, uint64_t pos)
{
	const struct foliofs *fs = run->ip->fs;
	uint64_t slot = run->root;

	if (slot_type(slot) == SLOT_NODE) {
		slot = pmem_load64(fs->pm,
				   (slot_block(slot) << BLOCK_SHIFT) +
					   (pos >> BLOCK_SHIFT) * sizeof(le64));
		if (slot_type(slot) != SLOT_DATA || !slot_valid(fs, slot, 0))
			return 0;
	}
	return (slot_block(slot) << BLOCK_SHIFT) + (pos & BLOCK_MASK);
}

/* The caller stays below what the root can hold. */
static int run_read(const struct run *run, uint64_t pos, void *buf, size_t len)
{
	char *p = buf;

	while (len > 0) {
		size_t n = BLOCK_SIZE - (pos & BLOCK_MASK);
		uint64_t off = run_at(run, pos);

		if (off == 0)
			return run_damaged(run, pos);
		if (n > len)
			n = len;
		memcpy(p, pmem_at(run->ip->fs->pm, off), n);
		p += n;
		pos += n;
		len -= n;
	}
	return 0;
}

/* A root is one block, or one node of blocks, and nothing else. */
static bool root_valid(const struct foliofs *fs, uint64_t root)
{
	unsigned int level = slot_level(root);

	return slot_valid(fs, root, level) &&
	       ((slot_type(root) == SLOT_DATA && level == 0) ||
		(slot_type(root) == SLOT_NODE && level == 1));
}

/* Find the run at @root, which is not 0. */
static int run_open(struct inode *ip, uint64_t root, struct run *ret_run)
{
	struct run run = { .ip = ip, .root = root };
	struct foliofs_xattr_header h;
	uint64_t max = FOLIOFS_XATTR_MAX;
	int ret;

	if (!root_valid(ip->fs, root))
		return run_damaged(&run, 0);
	if (slot_type(root) == SLOT_DATA)
		max = BLOCK_SIZE;
	ret = run_read(&run, 0, &h, sizeof(h));
	if (ret)
		return ret;
	run.len = le64_to_cpu(h.len);
	run.nr = le32_to_cpu(h.nr);
	if (le32_to_cpu(h.magic) != FOLIOFS_XATTR_MAGIC || run.nr == 0 ||
	    run.len < sizeof(h) || run.len > max)
		return run_damaged(&run, 0);
	*ret_run = run;
	return 0;
}

/* The record at @pos, if it lies within the run and has a name. */
static int record_read(const struct run *run, uint64_t pos, struct record *rec)
{
	struct foliofs_xattr x;
	int ret;

	if (pos + sizeof(x) > run->len)
		return run_damaged(run, pos);
	ret = run_read(run, pos, &x, sizeof(x));
	if (ret)
		return ret;
	rec->pos = pos;
	rec->name_len = x.name_len;
	rec->value_len = le32_to_cpu(x.value_len);
	rec->value_pos = pos + sizeof(x) + rec->name_len;
	rec->next = pos + record_len(rec->name_len, rec->value_len);
	if (rec->name_len == 0 || rec->value_len > FOLIOFS_XATTR_VALUE_MAX ||
	    rec->next > run->len)
		return run_damaged(run, pos);
	ret = run_read(run, pos + sizeof(x), rec->name, rec->name_len);
	if (ret)
		return ret;
	rec->name[rec->name_len] = '\0';
	if (strlen(rec->name) != rec->name_len)
		return run_damaged(run, pos);
	return 0;
}

/*
 * Walk the records: @i counts from 0, and @rec is the one before.  1: there
 * is another one, 0: the end, which is where the header says.
 */
static int record_next(const struct run *run, uint32_t i, struct record *rec)
{
	uint64_t pos = i ? rec->next : sizeof(struct foliofs_xattr_header);
	int ret;

	if (i == run->nr)
		return pos == run->len ? 0 : run_damaged(run, pos);
	ret = record_read(run, pos, rec);
	return ret ? ret : 1;
}

/* The record with this name; 1 found, 0 not. */
static int record_find(const struct run *run, const char *name,
		       struct record *rec)
{
	int ret;

	for (uint32_t i = 0; (ret = record_next(run, i, rec)) == 1; i++)
		if (strcmp(rec->name, name) == 0)
			return 1;
	return ret;
}

/* For sorting: by hash, because names mostly begin alike. */
struct hashed_name {
	uint64_t hash;
	const char *name;
};

static int by_hash(const void *a, const void *b)
{
	const struct hashed_name *x = (const struct hashed_name *)a;
	const struct hashed_name *y = (const struct hashed_name *)b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* The names of a run whose records are whole. */
static int names_read(const struct run *run, struct hashed_name *hn, char *buf)
{
	struct record rec;
	int ret;

	for (uint32_t i = 0; (ret = record_next(run, i, &rec)) == 1; i++) {
		memcpy(buf, rec.name, rec.name_len + 1u);
		hn[i].hash = XXH3_64bits(rec.name, rec.name_len);
		hn[i].name = buf;
		buf += rec.name_len + 1u;
	}
	return ret;
}

/* Sorted, because there can be a hundred thousand in a run that is forged. */
static int names_verify(const struct run *run)
{
	struct hashed_name *hn;
	char *buf;
	int ret = -ENOMEM;

	if (run->nr < 2)
		return 0;
	/* The names fit: a NUL takes less than a record's header. */
	hn = calloc(run->nr, sizeof(*hn));
	buf = malloc(run->len);
	if (hn && buf)
		ret = names_read(run, hn, buf);
	if (!ret) {
		qsort(hn, run->nr, sizeof(*hn), by_hash);
		for (uint32_t i = 1; !ret && i < run->nr; i++)
			if (by_hash(&hn[i - 1], &hn[i]) == 0)
				ret = run_damaged(run, 0);
	}
	free(buf);
	free(hn);
	return ret;
}

int xattr_verify(struct foliofs *fs, uint64_t ino, uint64_t root)
{
	struct inode inode = { .fs = fs, .ino = ino };
	struct record rec;
	struct run run;
	int ret;

	ret = run_open(&inode, root, &run);
	if (ret)
		return ret;
	for (uint32_t i = 0; (ret = record_next(&run, i, &rec)) == 1; i++)
		;
	/* A large value has blocks that no record begins in. */
	for (uint64_t pos = 0; !ret && pos < run.len; pos += BLOCK_SIZE)
		if (run_at(&run, pos) == 0)
			ret = run_damaged(&run, pos);
	return ret ? ret : names_verify(&run);
}

int xattr_get_locked(struct inode *ip, const char *name, void *buf, size_t size)
{
	uint64_t root = inode_word(ip, INODE_XATTR);
	struct record rec;
	struct run run;
	int ret;

	if (root == 0)
		return -ENODATA;
	ret = run_open(ip, root, &run);
	if (ret)
		return ret;
	ret = record_find(&run, name, &rec);
	if (ret <= 0)
		return ret ? ret : -ENODATA;
	if (size != 0) {
		if (rec.value_len > size)
			return -ERANGE;
		ret = run_read(&run, rec.value_pos, buf, rec.value_len);
		if (ret)
			return ret;
	}
	return (int)rec.value_len;
}

static int list_locked(struct inode *ip, char *buf, size_t size, bool trusted)
	__must_hold_shared(ip->rwsem);

static int list_locked(struct inode *ip, char *buf, size_t size, bool trusted)
{
	uint64_t root = inode_word(ip, INODE_XATTR);
	struct record rec;
	struct run run;
	size_t len = 0;
	int ret;

	if (root == 0)
		return 0;
	ret = run_open(ip, root, &run);
	if (ret)
		return ret;
	for (uint32_t i = 0; (ret = record_next(&run, i, &rec)) == 1; i++) {
		if (!trusted &&
		    strncmp(rec.name, TRUSTED, strlen(TRUSTED)) == 0)
			continue;
		if (size != 0) {
			if (rec.name_len + 1u > size - len)
				return -ERANGE;
			memcpy(buf + len, rec.name, rec.name_len + 1u);
		}
		len += rec.name_len + 1u;
	}
	return ret ? ret : (int)len;
}

/* A run under construction, in DRAM. */
struct build {
	char *buf;
	size_t len, cap;
	uint32_t nr;
};

/* For a run of @len bytes, if one may be that long. */
static int build_init(struct build *b, uint64_t len)
{
	*b = (struct build){ 0 };
	if (len > FOLIOFS_XATTR_MAX)
		return -ENOSPC;
	b->buf = calloc(1, len);
	if (!b->buf)
		return -ENOMEM;
	b->cap = len;
	b->len = sizeof(struct foliofs_xattr_header);
	return 0;
}

/* Take over the bytes [pos, end) of an old run. */
static int build_copy(struct build *b, const struct run *run, uint64_t pos,
		      uint64_t end)
{
	int ret;

	assert(b->len + (end - pos) <= b->cap);
	ret = run_read(run, pos, b->buf + b->len, end - pos);
	if (ret)
		return ret;
	b->len += end - pos;
	return 0;
}

static void build_add(struct build *b, const char *name, const void *value,
		      size_t size)
{
	unsigned int name_len = (unsigned int)strlen(name);
	struct foliofs_xattr x = {
		.value_len = cpu_to_le32((uint32_t)size),
		.name_len = (uint8_t)name_len,
	};
	char *p = b->buf + b->len;

	b->len += record_len(name_len, size);
	assert(b->len <= b->cap);
	memcpy(p, &x, sizeof(x));
	memcpy(p + sizeof(x), name, name_len);
	if (size != 0)
		memcpy(p + sizeof(x) + name_len, value, size);
	b->nr++;
}

/* Blocks for the run, written; the slots that name them. */
static int build_blocks(struct txn *t, const struct build *b, uint64_t goal,
			le64 *slot)
{
	uint64_t pos = 0;

	while (pos < b->len) {
		uint64_t want = (b->len - pos + BLOCK_MASK) >> BLOCK_SHIFT;
		struct extent ext;
		size_t n;
		int ret;

		ret = txn_take(t, goal, want, BLOCK_XATTR, &ext);
		if (ret)
			return ret;
		n = ext.nr << BLOCK_SHIFT;
		if (n > b->len - pos)
			n = b->len - pos;
		pmem_write(t->fs->pm, ext.start << BLOCK_SHIFT, b->buf + pos,
			   n);
		for (uint64_t i = 0; i < ext.nr; i++)
			*slot++ = cpu_to_le64(
				slot_make(SLOT_DATA, 0, ext.start + i));
		pos += n;
		goal = ext.start + ext.nr;
	}
	return 0;
}

/* The node over the blocks of a run that does not fit in one. */
static int build_node(struct txn *t, const struct foliofs_node *node,
		      uint64_t goal, uint64_t *ret_root)
{
	struct extent ext;
	int ret;

	ret = txn_take(t, goal, 1, BLOCK_NODE1, &ext);
	if (ret)
		return ret;
	pmem_write(t->fs->pm, ext.start << BLOCK_SHIFT, node, sizeof(*node));
	*ret_root = slot_make(SLOT_NODE, 1, ext.start);
	return 0;
}

/* Put a run on media, where nothing reaches it yet. */
static int build_write(struct txn *t, struct build *b, uint64_t goal,
		       uint64_t *ret_root)
{
	struct foliofs_xattr_header h = {
		.magic = cpu_to_le32(FOLIOFS_XATTR_MAGIC),
		.nr = cpu_to_le32(b->nr),
		.len = cpu_to_le64(b->len),
	};
	struct foliofs_node node = { 0 };
	int ret;

	memcpy(b->buf, &h, sizeof(h));
	ret = build_blocks(t, b, goal, node.slot);
	if (ret)
		return ret;
	if (b->len > BLOCK_SIZE)
		return build_node(t, &node, goal, ret_root);
	*ret_root = le64_to_cpu(node.slot[0]);
	return 0;
}

int xattr_build(struct txn *t, const struct xattr_init *init, unsigned int nr,
		uint64_t *ret_root)
{
	uint64_t len = sizeof(struct foliofs_xattr_header);
	struct build b;
	int ret;

	if (nr == 0) {
		*ret_root = 0;
		return 0;
	}
	for (unsigned int i = 0; i < nr; i++)
		len += record_len((unsigned int)strlen(init[i].name),
				  init[i].size);
	ret = build_init(&b, len);
	if (ret)
		return ret;
	for (unsigned int i = 0; i < nr; i++)
		build_add(&b, init[i].name, init[i].value, init[i].size);
	ret = build_write(t, &b, 0, ret_root);
	free(b.buf);
	return ret;
}

/* What a change starts from: the old run, and the record that goes. */
struct change {
	uint64_t old_root;
	struct run run;	   /* empty when old_root is 0 */
	struct record rec; /* empty when there is none with that name */
	bool found;
};

static int change_open(struct change *c, struct inode *ip, uint64_t root,
		       const char *name)
{
	struct record rec;
	int ret;

	c->old_root = root;
	c->found = false;
	c->run = (struct run){ .len = sizeof(struct foliofs_xattr_header) };
	c->rec.pos = c->rec.next = c->run.len;
	if (root == 0)
		return 0;
	ret = run_open(ip, root, &c->run);
	if (ret)
		return ret;
	/* To the end, so that a run is not copied with damage in it. */
	for (uint32_t i = 0; (ret = record_next(&c->run, i, &rec)) == 1; i++) {
		if (c->found || strcmp(rec.name, name) != 0)
			continue;
		c->rec = rec;
		c->found = true;
	}
	return ret;
}

/* Blocks that a run takes, its node included. */
static uint64_t run_blocks(uint64_t len)
{
	uint64_t nr = (len + BLOCK_MASK) >> BLOCK_SHIFT;

	return nr > 1 ? nr + 1 : nr;
}

/*
 * A run that needs no more blocks than the old one may use the reserve, which
 * has them back as soon as this is committed.  So attributes can be removed,
 * and an ACL can follow a chmod, on a device that is full.
 */
static bool change_may_use_reserve(const struct change *c, uint64_t len)
{
	return c->old_root != 0 && run_blocks(len) <= run_blocks(c->run.len);
}

/* The new run: all records but the one that goes, and the one that comes. */
static int change_build(struct txn *t, const struct change *c, const char *name,
			const void *value, size_t size, uint64_t *ret_root)
{
	uint64_t start = sizeof(struct foliofs_xattr_header);
	uint64_t len = c->run.len - (c->rec.next - c->rec.pos);
	unsigned int alloc_flags = t->alloc_flags;
	struct build b;
	int ret;

	if (value)
		len += record_len((unsigned int)strlen(name), size);
	if (len == start) {
		*ret_root = 0;
		return 0;
	}
	ret = build_init(&b, len);
	if (ret)
		return ret;
	b.nr = c->run.nr - c->found;
	ret = build_copy(&b, &c->run, start, c->rec.pos);
	if (!ret)
		ret = build_copy(&b, &c->run, c->rec.next, c->run.len);
	if (ret)
		goto out;
	if (value)
		build_add(&b, name, value, size);
	if (change_may_use_reserve(c, len))
		t->alloc_flags |= ALLOC_EMERGENCY;
	ret = build_write(t, &b, slot_block(c->old_root), ret_root);
	t->alloc_flags = alloc_flags;
out:
	free(b.buf);
	return ret;
}

/* Is this change what the flags ask for? */
static int change_check(const struct change *c, const void *value, int flags)
{
	if (c->found)
		return value && (flags & XATTR_CREATE) ? -EEXIST : 0;
	return !value || (flags & XATTR_REPLACE) ? -ENODATA : 0;
}

int xattr_set_locked(struct txn *t, struct inode *ip, const char *name,
		     const void *value, size_t size, int flags)
{
	/* The transaction may have changed the attributes already. */
	uint64_t old = txn_get64(t, ip->off + INODE_XATTR);
	struct change c;
	uint64_t root;
	int ret;

	ret = change_open(&c, ip, old, name);
	if (!ret)
		ret = change_check(&c, value, flags);
	if (!ret)
		ret = change_build(t, &c, name, value, size, &root);
	if (!ret && old != 0)
		ret = txn_drop(t, old, DROP_DEEP);
	if (ret)
		return ret;
	inode_set(t, ip, INODE_XATTR, root);
	inode_touch(t, ip, false);
	return 0;
}

int xattr_kill_caps(struct txn *t, struct inode *ip)
{
	int ret;

	if (txn_get64(t, ip->off + INODE_XATTR) == 0)
		return 0;
	ret = xattr_set_locked(t, ip, CAPABILITY, NULL, 0, 0);
	return ret == -ENODATA ? 0 : ret;
}

/* Remove, and do not mind when there is nothing. */
static int remove_any(struct txn *t, struct inode *ip, const char *name)
	__must_hold(ip->rwsem);

static int remove_any(struct txn *t, struct inode *ip, const char *name)
{
	int ret = xattr_set_locked(t, ip, name, NULL, 0, 0);

	return ret == -ENODATA ? 0 : ret;
}

static bool is_acl(const char *name)
{
	return strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0;
}

/* The kernel has looked already; what it has no rule for is refused here. */
static int name_check(const struct inode *ip, const char *name)
{
	static const char *const prefix[] = { "user.", TRUSTED, "security." };

	if (strlen(name) > XATTR_NAME_MAX || *name == '\0')
		return -ERANGE;
	if (is_acl(name))
		return S_ISLNK(inode_mode(ip)) ? -ENOTSUP : 0;
	for (size_t i = 0; i < sizeof(prefix) / sizeof(prefix[0]); i++) {
		size_t len = strlen(prefix[i]);

		if (strncmp(name, prefix[i], len) == 0)
			return name[len] ? 0 : -EINVAL;
	}
	return -ENOTSUP;
}

/* The kernel does not know our flags, so that this is for us to refuse. */
static int change_allowed(const struct inode *ip)
{
	if (atomic_load(&ip->fs->read_only))
		return -EROFS;
	if (inode_flags(ip) & (FOLIOFS_FL_IMMUTABLE | FOLIOFS_FL_APPEND))
		return -EPERM;
	return 0;
}

int xattr_get(struct inode *ip, const char *name, void *buf, size_t size)
{
	int ret = name_check(ip, name);

	if (ret)
		return ret;
	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	ret = xattr_get_locked(ip, name, buf, size);
	rwsem_up_read(&ip->rwsem);
	return ret;
}

int xattr_list(struct inode *ip, char *buf, size_t size, bool trusted)
{
	int ret;

	rwsem_down_read(&ip->rwsem, LOCK_INODE);
	ret = list_locked(ip, buf, size, trusted);
	rwsem_up_read(&ip->rwsem);
	return ret;
}

/* The access ACL and the mode change together. */
static int set_access(struct txn *t, struct inode *ip, const void *value,
		      size_t size, bool kill_sgid) __must_hold(ip->rwsem);

static int set_access(struct txn *t, struct inode *ip, const void *value,
		      size_t size, bool kill_sgid)
{
	uint32_t mode;
	bool minimal;
	int ret;

	ret = acl_to_mode(value, size, inode_mode(ip), &mode, &minimal);
	if (ret)
		return ret;
	if (kill_sgid)
		mode &= ~(uint32_t)S_ISGID;
	inode_set_mode(t, ip, mode);
	inode_touch(t, ip, false);
	if (minimal)
		return remove_any(t, ip, ACL_ACCESS);
	return xattr_set_locked(t, ip, ACL_ACCESS, value, size, 0);
}

static int set_default(struct txn *t, struct inode *ip, const void *value,
		       size_t size) __must_hold(ip->rwsem);

static int set_default(struct txn *t, struct inode *ip, const void *value,
		       size_t size)
{
	int ret;

	if (!S_ISDIR(inode_mode(ip)))
		return -EACCES;
	ret = acl_check(value, size);
	if (ret)
		return ret;
	return xattr_set_locked(t, ip, ACL_DEFAULT, value, size, 0);
}

/* One change of one attribute; value NULL removes. */
static int set_any(struct txn *t, struct inode *ip,
		   const struct xattr_init *attr, int flags, bool kill_sgid)
	__must_hold(ip->rwsem);

static int set_any(struct txn *t, struct inode *ip,
		   const struct xattr_init *attr, int flags, bool kill_sgid)
{
	int ret = change_allowed(ip);

	if (ret)
		return ret;
	if (!is_acl(attr->name))
		return xattr_set_locked(t, ip, attr->name, attr->value,
					attr->size, flags);
	/* An empty ACL is none, and none may be removed any time. */
	if (attr->size == 0)
		return remove_any(t, ip, attr->name);
	if (strcmp(attr->name, ACL_DEFAULT) == 0)
		return set_default(t, ip, attr->value, attr->size);
	return set_access(t, ip, attr->value, attr->size, kill_sgid);
}

static int change_one(struct inode *ip, const struct xattr_init *attr,
		      int flags, bool kill_sgid)
{
	struct txn t;
	int ret;

	ret = name_check(ip, attr->name);
	if (ret)
		return ret;
	rwsem_down_write(&ip->rwsem, LOCK_INODE);
	txn_begin(ip->fs, &t);
	ret = set_any(&t, ip, attr, flags, kill_sgid);
	if (ret)
		txn_abort(&t);
	else
		ret = txn_commit(&t);
	rwsem_up_write(&ip->rwsem);
	return ret;
}

int xattr_set(struct inode *ip, const char *name, const void *value,
	      size_t size, int flags, bool kill_sgid)
{
	/* No value at all would mean to remove it. */
	struct xattr_init attr = { name, size ? value : "", size };

	if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	if (size > FOLIOFS_XATTR_VALUE_MAX)
		return -E2BIG;
	return change_one(ip, &attr, flags, kill_sgid);
}

int xattr_remove(struct inode *ip, const char *name)
{
	struct xattr_init attr = { name, NULL, 0 };

	return change_one(ip, &attr, 0, false);
}
