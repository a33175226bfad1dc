/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/times.c - clocks, and when the times of an inode change
 *
 * A time that nobody has looked at need not be newer than the last change but
 * one: as long as the coarse clock of the kernel stands still, later changes
 * leave the words on media alone, and an overwrite in place needs no
 * transaction.  Once somebody has looked (i_seen), the next change takes the
 * fine clock, so that he finds it when he looks again.
 *
 * The coarse clock is behind the fine one.  time_floor is the last fine time
 * that was given out, and coarse times are not below it: what changes later,
 * in whichever file, never gets an earlier time.
 */
#include <time.h>

#include "fs/fs.h"

/* A tick of the slowest kernel, and some; a floor further ahead than this
 * means that the clock was set back. */
#define TICK_NS INT64_C(20000000)

static int64_t clock_now(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t time_now(void)
{
	return clock_now(CLOCK_REALTIME);
}

uint64_t clock_ns(void)
{
	return (uint64_t)clock_now(CLOCK_MONOTONIC);
}

int64_t time_clamp(int64_t sec, uint32_t nsec)
{
	if (sec >= INT64_MAX / 1000000000)
		return INT64_MAX;
	if (sec <= INT64_MIN / 1000000000)
		return INT64_MIN;
	return sec * 1000000000 + nsec;
}

struct timespec time_split(int64_t ns)
{
	int64_t sec = ns / 1000000000, rest = ns % 1000000000;

	if (rest < 0) {
		rest += 1000000000;
		sec--;
	}
	return (struct timespec){ .tv_sec = sec, .tv_nsec = rest };
}

int64_t time_coarse(const struct foliofs *fs)
{
	int64_t now = clock_now(CLOCK_REALTIME_COARSE);
	int64_t floor =
		atomic_load_explicit(&fs->time_floor, memory_order_relaxed);

	return floor > now && floor - now < TICK_NS ? floor : now;
}

static int64_t time_fine(struct foliofs *fs)
{
	int64_t floor = atomic_load(&fs->time_floor);
	int64_t now = clock_now(CLOCK_REALTIME);

	while (now > floor || floor - now >= TICK_NS)
		if (atomic_compare_exchange_weak(&fs->time_floor, &floor, now))
			break;
	return now;
}

/*
 * If the transaction is aborted, what was seen stays on media, and the floor
 * keeps the next time above it.
 */
uint64_t inode_now(struct inode *ip)
{
	if (!atomic_load(&ip->seen))
		return (uint64_t)time_coarse(ip->fs);
	atomic_store(&ip->seen, false);
	return (uint64_t)time_fine(ip->fs);
}

void inode_set_time(struct txn *t, const struct inode *ip, size_t field,
		    uint64_t ns)
{
	if (txn_get64(t, ip->off + field) != ns)
		inode_set(t, ip, field, ns);
}

void inode_touch(struct txn *t, struct inode *ip, bool mtime)
{
	uint64_t now = inode_now(ip);

	if (mtime)
		inode_set_time(t, ip, INODE_MTIME, now);
	inode_set_time(t, ip, INODE_CTIME, now);
}
