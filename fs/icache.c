/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/icache.c - inodes in DRAM
 *
 * A hash table by inode number with a lock for every 64th bucket.  An inode is
 * there exactly while it has references.  The last reference of an inode with
 * no links takes it off media; it has left the table by then, and an inode
 * with no links is not brought in again, so nobody can meet it half gone.
 *
 * A number may be asked for at any time, also one that is free or just being
 * taken (a file handle, a parent that was removed).  What was read of such an
 * inode is old when somebody else has brought it in since: he may have removed
 * it, and its number may be another file's now.  So each shard counts what is
 * brought in, and who finds the count changed reads again.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/layout.h"

#define NR_SHARDS 64u

struct shard {
	struct mutex lock;    /* covers its buckets and refs to 0 */
	uint64_t nr_inserted; /* ever */
};

struct icache {
	struct shard shard[NR_SHARDS];
	struct inode **bucket;
	uint64_t mask;
	_Atomic(uint64_t) nr;
};

int icache_create(struct foliofs *fs)
{
	struct icache *ic;
	uint64_t nr = 1024;

	/* An inode for every few blocks is more than anybody has open. */
	while (nr < fs->nr_blocks / 8 && nr < (1u << 20))
		nr *= 2;
	ic = (struct icache *)calloc(1, sizeof(*ic));
	if (!ic)
		return -ENOMEM;
	ic->bucket = (struct inode **)calloc(nr, sizeof(*ic->bucket));
	if (!ic->bucket) {
		free(ic);
		return -ENOMEM;
	}
	ic->mask = nr - 1;
	for (unsigned int i = 0; i < NR_SHARDS; i++)
		mutex_init(&ic->shard[i].lock, LOCK_ICACHE);
	fs->icache = ic;
	return 0;
}

static struct inode **bucket_of(struct icache *ic, uint64_t ino)
{
	return &ic->bucket[ino & ic->mask];
}

static struct shard *shard_of(struct icache *ic, uint64_t ino)
{
	return &ic->shard[ino % NR_SHARDS];
}

static struct inode *find_locked(struct icache *ic, uint64_t ino)
{
	struct inode *ip = *bucket_of(ic, ino);

	while (ip && ip->ino != ino)
		ip = ip->next;
	return ip;
}

static void insert_locked(struct icache *ic, struct inode *ip)
{
	struct inode **b = bucket_of(ic, ip->ino);

	shard_of(ic, ip->ino)->nr_inserted++;
	ip->next = *b;
	*b = ip;
	atomic_fetch_add_explicit(&ic->nr, 1, memory_order_relaxed);
}

static void remove_locked(struct icache *ic, struct inode *ip)
{
	struct inode **b = bucket_of(ic, ip->ino);

	while (*b != ip)
		b = &(*b)->next;
	*b = ip->next;
	atomic_fetch_sub_explicit(&ic->nr, 1, memory_order_relaxed);
}

struct inode *inode_alloc(struct foliofs *fs)
{
	struct inode *ip = (struct inode *)calloc(1, sizeof(*ip));

	if (!ip)
		return NULL;
	ip->fs = fs;
	rwsem_init(&ip->rwsem);
	atomic_init(&ip->refs, 1);
	atomic_init(&ip->pages, -1);
	atomic_init(&ip->seen, true); /* maybe, before it came here */
	return ip;
}

void inode_free(struct inode *ip)
{
	if (!ip)
		return;
	layout_detach(ip);
	if (ip->aside)
		alloc_aside_end(ip->fs->al, ip->aside);
	dirindex_free(ip->dir);
	rwsem_destroy(&ip->rwsem);
	free(ip);
}

static bool type_known(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	default:
		return false;
	}
}

static int inode_load(struct foliofs *fs, uint64_t ino, struct inode **ret_ip)
{
	struct inode_head head;
	struct inode *ip;
	uint64_t off;
	int ret;

	ret = itable_read(fs, ino, &off, &head);
	if (ret == -EUCLEAN)
		return fs_damaged(fs, "inode table: cannot reach inode %ju",
				  (uintmax_t)ino);
	if (ret)
		return ret;
	if (!type_known((uint32_t)head.mode) || head.size > FOLIOFS_MAX_SIZE ||
	    !slot_valid(fs, head.data, TREE_ROOT))
		return fs_damaged(fs, "inode %ju: not an inode",
				  (uintmax_t)ino);
	ip = inode_alloc(fs);
	if (!ip)
		return -ENOMEM;
	ip->ino = ino;
	ip->off = off;
	*ret_ip = ip;
	return 0;
}

static struct inode *find_ref(struct icache *ic, uint64_t ino)
{
	struct inode *ip = find_locked(ic, ino);

	if (ip)
		atomic_fetch_add(&ip->refs, 1);
	return ip;
}

int inode_get(struct foliofs *fs, uint64_t ino, struct inode **ret_ip)
{
	struct icache *ic = fs->icache;
	struct shard *shard = shard_of(ic, ino);
	struct inode *ip, *mine = NULL;
	uint64_t nr = 0;
	int ret;

	for (;;) {
		mutex_lock(&shard->lock);
		ip = find_ref(ic, ino);
		if (!ip && mine && shard->nr_inserted == nr) {
			ip = mine;
			mine = NULL;
			insert_locked(ic, ip);
		}
		nr = shard->nr_inserted;
		mutex_unlock(&shard->lock);
		inode_free(mine);
		if (ip)
			break;
		ret = inode_load(fs, ino, &mine);
		if (ret)
			return ret;
	}
	*ret_ip = ip;
	return 0;
}

struct inode *inode_insert(struct inode *ip, uint64_t ino, uint64_t off,
			   int64_t pages)
{
	struct icache *ic = ip->fs->icache;
	struct shard *shard = shard_of(ic, ino);
	struct inode *other;

	ip->ino = ino;
	ip->off = off;
	atomic_store(&ip->pages, pages);
	mutex_lock(&shard->lock);
	other = find_ref(ic, ino);
	if (!other)
		insert_locked(ic, ip);
	mutex_unlock(&shard->lock);
	if (!other)
		return ip;
	inode_free(ip);
	return other;
}

void inode_ref(struct inode *ip, uint64_t nr)
{
	atomic_fetch_add(&ip->refs, nr);
}

/* How long a request without space waits for the kernel's FORGET. */
#define SPACE_WAIT_NS UINT64_C(200000000)
/* A file of more pages gives its space back at once. */
#define EVICT_SMALL_PAGES 16
/* An unlink longer ago than this is not what is being waited for. */
#define UNLINK_OLD_NS UINT64_C(1000000000)

void space_unlinked(struct foliofs *fs)
{
	atomic_store_explicit(&fs->unlinked_ns, clock_ns(),
			      memory_order_relaxed);
}

static int drop_root(struct txn *t, uint64_t slot)
{
	return slot ? txn_drop(t, slot, DROP_DEEP) : 0;
}

/*
 * Nobody has these and no name leads to them: take them off media.  Only the
 * words that make them free are set (rule J3); the rest of them means nothing
 * then.  What fails stays an orphan; the next mount reclaims it.
 */
static void evict(struct foliofs *fs, struct inode *const *v, unsigned int nr)
{
	struct txn t;
	int ret = 0;

	txn_begin(fs, &t);
	for (unsigned int i = 0; i < nr && !ret; i++) {
		inode_set(&t, v[i], INODE_MODE, 0);
		ret = drop_root(&t, inode_data(v[i]));
		if (!ret)
			ret = drop_root(&t, inode_word(v[i], INODE_XATTR));
	}
	if (ret)
		txn_abort(&t);
	else
		ret = txn_commit(&t);
	for (unsigned int i = 0; i < nr; i++) {
		if (!ret)
			itable_free(fs, v[i]->ino);
		inode_free(v[i]);
	}
	mutex_lock(&fs->space_lock);
	fs->nr_evicted += nr;
	if (fs->nr_space_waiting)
		pthread_cond_broadcast(&fs->space_cond);
	mutex_unlock(&fs->space_lock);
}

static unsigned int take_collected(struct foliofs *fs, struct inode **v)
	__must_hold(fs->space_lock)
{
	unsigned int nr = fs->nr_collected;

	memcpy(v, fs->collected, nr * sizeof(*v));
	fs->nr_collected = 0;
	return nr;
}

bool evict_collected(struct foliofs *fs)
{
	struct inode *v[EVICT_BATCH];
	unsigned int nr;

	mutex_lock(&fs->space_lock);
	nr = take_collected(fs, v);
	mutex_unlock(&fs->space_lock);
	if (nr)
		evict(fs, v, nr);
	return nr > 0;
}

/*
 * A transaction costs as much for one inode as for many, so small ones are
 * collected until there is a batch of them, or somebody asks for the space.
 */
static void evict_or_collect(struct inode *ip)
{
	int64_t pages = atomic_load(&ip->pages);
	bool small = pages >= 0 && pages <= EVICT_SMALL_PAGES && !ip->aside;
	struct inode *v[EVICT_BATCH];
	struct foliofs *fs = ip->fs;
	unsigned int nr = 0;

	mutex_lock(&fs->space_lock);
	fs->collected[fs->nr_collected++] = ip;
	if (!small || fs->nr_collected == EVICT_BATCH || fs->nr_space_waiting)
		nr = take_collected(fs, v);
	mutex_unlock(&fs->space_lock);
	if (nr)
		evict(fs, v, nr);
}

/* Until somebody has evicted something; false: not before the deadline. */
static bool wait_for_evict(struct foliofs *fs, struct space_retry *r)
{
	bool more = true;

	sleep_hook_begin();
	mutex_lock(&fs->space_lock);
	fs->nr_space_waiting++;
	while (more && fs->nr_evicted == r->seen && fs->nr_collected == 0)
		more = mutex_wait_until(&fs->space_lock, &fs->space_cond,
					r->deadline);
	more = fs->nr_evicted != r->seen || fs->nr_collected != 0;
	r->seen = fs->nr_evicted;
	fs->nr_space_waiting--;
	mutex_unlock(&fs->space_lock);
	sleep_hook_end();
	return more;
}

bool space_retry(struct foliofs *fs, struct space_retry *r)
{
	uint64_t now = clock_ns();

	if (evict_collected(fs))
		return true;
	if (r->started)
		return wait_for_evict(fs, r);
	/* What was taken off media while we failed counts as well. */
	r->started = true;
	r->deadline = now + SPACE_WAIT_NS;
	mutex_lock(&fs->space_lock);
	r->seen = fs->nr_evicted;
	mutex_unlock(&fs->space_lock);
	return now - atomic_load(&fs->unlinked_ns) < UNLINK_OLD_NS;
}

/* Drop references with the shard locked; true if they were the last ones. */
static bool drop_locked(struct icache *ic, struct inode *ip, uint64_t nr,
			bool *ret_unlinked)
{
	uint64_t before = atomic_fetch_sub(&ip->refs, nr);

	assert(before >= nr);
	if (before != nr)
		return false;
	/* Now, as others may bring it in again, and remove it. */
	*ret_unlinked = inode_nlink(ip) == 0;
	remove_locked(ic, ip);
	return true;
}

/* It has left the table. */
static void inode_gone(struct inode *ip, bool unlinked)
{
	layout_detach(ip);
	if (unlinked)
		evict_or_collect(ip);
	else
		inode_free(ip);
}

void inode_put_many(struct inode *ip, uint64_t nr)
{
	struct icache *ic = ip->fs->icache;
	struct shard *shard = shard_of(ic, ip->ino);
	uint64_t before = atomic_load(&ip->refs);
	bool last, unlinked;

	/* Not the last one: no lock. */
	while (before > nr)
		if (atomic_compare_exchange_weak(&ip->refs, &before,
						 before - nr))
			return;

	mutex_lock(&shard->lock);
	last = drop_locked(ic, ip, nr, &unlinked);
	mutex_unlock(&shard->lock);
	if (last)
		inode_gone(ip, unlinked);
}

void inode_forget(struct foliofs *fs, uint64_t ino, uint64_t nr)
{
	struct icache *ic = fs->icache;
	struct shard *shard = shard_of(ic, ino);
	bool last = false, unlinked;
	struct inode *ip;

	mutex_lock(&shard->lock);
	ip = find_locked(ic, ino);
	if (ip)
		last = drop_locked(ic, ip, nr, &unlinked);
	mutex_unlock(&shard->lock);
	if (last)
		inode_gone(ip, unlinked);
}

void icache_drop(struct foliofs *fs)
{
	struct icache *ic = fs->icache;

	for (uint64_t i = 0; i <= ic->mask; i++)
		while (ic->bucket[i])
			inode_put_many(ic->bucket[i],
				       atomic_load(&ic->bucket[i]->refs));
	evict_collected(fs);
}

void icache_destroy(struct foliofs *fs)
{
	struct icache *ic = fs->icache;
	struct inode *ip, *next;

	if (!ic)
		return;
	for (uint64_t i = 0; i <= ic->mask; i++) {
		for (ip = ic->bucket[i]; ip; ip = next) {
			next = ip->next;
			inode_free(ip);
		}
	}
	for (unsigned int i = 0; i < fs->nr_collected; i++)
		inode_free(fs->collected[i]);
	for (unsigned int i = 0; i < NR_SHARDS; i++)
		mutex_destroy(&ic->shard[i].lock);
	free(ic->bucket);
	free(ic);
	fs->icache = NULL;
}

/* The position is a bucket and, below it, how many of it were answered. */
struct inode *icache_next(struct foliofs *fs, uint64_t *pos)
{
	struct icache *ic = fs->icache;
	struct inode *ip = NULL;

	for (uint64_t b = *pos >> 16; !ip && b <= ic->mask; b++) {
		struct shard *shard = shard_of(ic, b);
		uint64_t skip = *pos >> 16 == b ? *pos & 0xffff : 0;

		mutex_lock(&shard->lock);
		ip = ic->bucket[b];
		for (uint64_t i = 0; ip && i < skip; i++)
			ip = ip->next;
		if (ip)
			atomic_fetch_add(&ip->refs, 1);
		mutex_unlock(&shard->lock);
		*pos = b << 16 | (skip + 1);
	}
	return ip;
}

uint64_t icache_nr(const struct foliofs *fs)
{
	return atomic_load_explicit(&fs->icache->nr, memory_order_relaxed);
}

int inode_pages(struct inode *ip, int64_t *ret_pages)
{
	int64_t pages = atomic_load(&ip->pages);
	uint64_t counted;
	int ret;

	if (pages < 0) {
		layout_down_read(ip);
		ret = tree_count(ip->fs, inode_data(ip), &counted);
		if (!ret) {
			pages = (int64_t)counted;
			atomic_store(&ip->pages, pages);
		}
		layout_up_read(ip);
		if (ret)
			return fs_damaged(ip->fs, "inode %ju: bad slot",
					  (uintmax_t)ip->ino);
	}
	*ret_pages = pages;
	return 0;
}

static int64_t later(uint64_t word, int64_t ns)
{
	/* 0 is none, and not the beginning of 1970. */
	return ns && ns > (int64_t)word ? ns : (int64_t)word;
}

void inode_stat(struct inode *ip, struct stat *st)
{
	uint64_t mode = inode_word(ip, INODE_MODE);
	uint64_t owner = inode_word(ip, INODE_OWNER);
	int64_t stored = layout_stored_ns(ip);
	int64_t pages = 0;

	atomic_store(&ip->seen, true); /* before the times are read */
	*st = (struct stat){ 0 };
	st->st_ino = ip->ino;
	st->st_mode = (uint32_t)mode;
	st->st_nlink = mode >> 32;
	st->st_uid = (uint32_t)owner;
	st->st_gid = (uint32_t)(owner >> 32);
	st->st_rdev = (uint32_t)inode_word(ip, INODE_RDEV);
	st->st_size = (off_t)inode_size(ip);
	st->st_blksize = BLOCK_SIZE;
	/* A tree that cannot be counted is reported by whoever reads it. */
	if (inode_pages(ip, &pages) == 0)
		st->st_blocks = pages * (int64_t)(BLOCK_SIZE / 512);
	st->st_atim = time_split((int64_t)inode_word(ip, INODE_ATIME));
	st->st_mtim = time_split(later(inode_word(ip, INODE_MTIME), stored));
	st->st_ctim = time_split(later(inode_word(ip, INODE_CTIME), stored));
}

void inode_set_mode(struct txn *t, const struct inode *ip, uint32_t mode)
{
	uint64_t word = txn_get64(t, ip->off + INODE_MODE);

	inode_set(t, ip, INODE_MODE, word_pair(mode, (uint32_t)(word >> 32)));
}

void inode_set_nlink(struct txn *t, const struct inode *ip, uint32_t nlink)
{
	uint64_t word = txn_get64(t, ip->off + INODE_MODE);

	inode_set(t, ip, INODE_MODE, word_pair((uint32_t)word, nlink));
}
