/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/pager.c - the views of this process, and what happens to them
 *
 * What is mapped where is not remembered: the page tables know it, and a
 * recall names a range.  Remembered is only which pages may have been stored
 * to, because a sync must not touch the others.
 */
#include "dax/lib/pager.h"

#include <errno.h>
#include <stdatomic.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dax/lib/mem.h"

/* Zeros mapped around a page that was touched: they cost page tables. */
#define ZERO_AROUND UINT64_C(64)
#define NR_BUS	    64u
#define NR_MSGS	    16u
#define NR_RETRIES  1000 /* of -EAGAIN, where nobody can be woken instead */

static pthread_mutex_t maps_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t set_mutex = PTHREAD_MUTEX_INITIALIZER;

static struct view_set views; /* under both, see pager.h */

/* Under maps_mutex: pages that raise SIGBUS, a ring, 0 is none. */
static struct {
	uintptr_t addr[NR_BUS];
	unsigned int next;
	_Atomic(unsigned int) nr;
} bus;

static bool running; /* the reader; under maps_mutex */
static sigset_t fork_signals;

static void maps_lock(sigset_t *old)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, old);
	pthread_mutex_lock(&maps_mutex);
}

static void maps_unlock(const sigset_t *old)
{
	pthread_mutex_unlock(&maps_mutex);
	pthread_sigmask(SIG_SETMASK, old, NULL);
}

void file_hold(struct foliofs_file *file)
{
	atomic_fetch_add(&file->refs, 1);
}

void file_put(struct foliofs_file *file)
{
	struct session_end req = {
		.head.op = SESSION_CLOSE,
		.which = file->handle,
	};
	struct session_reply reply;
	struct call call = { .reply = &reply, .room = sizeof(reply) };

	if (atomic_fetch_sub(&file->refs, 1) > 1)
		return;
	(void)link_call(file->link, &call, &req, sizeof(req));
	link_put(file->link);
	free(file);
}

/*
 * The reader.
 */
static void touched(uintptr_t addr, bool write)
{
	struct fault f = { .addr = addr, .write = write };
	struct view *v;

	pthread_mutex_lock(&set_mutex);
	v = views_find(&views, addr);
	if (v) {
		f.vma = v->vma->number;
		f.index = vma_index(v->vma, addr);
		link_fault(v->vma->link, &f, (v->end - addr) >> BLOCK_SHIFT);
	}
	pthread_mutex_unlock(&set_mutex);
	if (!v) /* Unmapped meanwhile; or not quite mapped yet. */
		mem_wake(addr, BLOCK_SIZE);
}

static void *read_faults(void *arg)
{
	const __u64 store = UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP;
	struct uffd_msg msg[NR_MSGS];
	int fd = *(int *)arg;

	for (;;) {
		ssize_t len = read(fd, msg, sizeof(msg));

		if (len < 0 && errno != EINTR && errno != EAGAIN)
			return NULL;
		for (ssize_t i = 0; len > 0 && i < len / (ssize_t)sizeof(*msg);
		     i++) {
			if (msg[i].event != UFFD_EVENT_PAGEFAULT)
				continue; /* REMAP: reading it was all */
			touched(msg[i].arg.pagefault.address & ~BLOCK_MASK,
				(msg[i].arg.pagefault.flags & store) != 0);
		}
	}
}

static void before_fork(void)
{
	sigset_t old;

	maps_lock(&old);
	fork_signals = old;
	pthread_mutex_lock(&set_mutex);
	links_lock();
}

static void after_fork(void)
{
	sigset_t old = fork_signals;

	links_unlock();
	pthread_mutex_unlock(&set_mutex);
	maps_unlock(&old);
}

/* The views are not there, nor are the threads; the descriptors are copies. */
static void in_child(void)
{
	sigset_t old = fork_signals;

	links_forget();
	mem_forget();
	views_destroy(&views);
	running = false;
	for (unsigned int i = 0; i < NR_BUS; i++)
		bus.addr[i] = 0;
	atomic_store(&bus.nr, 0);
	pthread_mutex_init(&set_mutex, NULL);
	pthread_mutex_init(&maps_mutex, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Under maps_mutex, with signals blocked: the thread inherits that. */
static int start(void)
{
	static bool atfork;
	static int fd;
	pthread_t thread;
	int ret = mem_init();

	if (ret)
		return ret;
	if (!atfork) {
		ret = -pthread_atfork(before_fork, after_fork, in_child);
		if (ret)
			return ret;
		atfork = true;
	}
	fd = mem_uffd();
	ret = -pthread_create(&thread, NULL, read_faults, &fd);
	if (ret)
		return ret;
	pthread_detach(thread);
	running = true;
	return 0;
}

int pager_init(void)
{
	sigset_t old;
	int ret = 0;

	maps_lock(&old);
	if (!running)
		ret = start();
	maps_unlock(&old);
	return ret;
}

/*
 * Page tables.  All of this under maps_mutex.
 */
static void note_bus(uintptr_t addr)
{
	uintptr_t *slot = &bus.addr[bus.next++ % NR_BUS];
	struct view *v = views_find(&views, *slot);

	if (*slot && v) /* The ring is full: the oldest had its time. */
		mem_zap(*slot, BLOCK_SIZE, v->prot);
	else if (!*slot)
		atomic_fetch_add(&bus.nr, 1);
	*slot = addr;
}

bool pager_wants_tick(void)
{
	return atomic_load(&bus.nr) > 0;
}

void pager_tick(void)
{
	sigset_t old;

	maps_lock(&old);
	for (unsigned int i = 0; i < NR_BUS; i++) {
		struct view *v = views_find(&views, bus.addr[i]);

		if (bus.addr[i] && v)
			mem_zap(bus.addr[i], BLOCK_SIZE, v->prot);
		bus.addr[i] = 0;
	}
	atomic_store(&bus.nr, 0);
	maps_unlock(&old);
}

/* All views fault again: a few mappings where there were thousands. */
static void evict(void)
{
	for (size_t i = 0; i < views.nr; i++) {
		struct view *v = &views.v[i];

		mem_zap(v->start, v->end - v->start, v->prot);
	}
}

static void mark_dirty(struct vma *vma, uintptr_t start, uintptr_t end)
{
	uint64_t first = (start - vma->addr) >> BLOCK_SHIFT;
	uint64_t last = (end - vma->addr) >> BLOCK_SHIFT;

	for (uint64_t i = first; vma->dirty && i < last; i++)
		atomic_fetch_or_explicit(&vma->dirty[i / 64],
					 UINT64_C(1) << i % 64,
					 memory_order_relaxed);
}

static int map_part(const struct view *v, uintptr_t start, uintptr_t end,
		    const struct session_seg *seg, uint64_t off)
{
	struct vma *vma = v->vma;
	int prot = v->prot;
	int ret;

	if (seg->flags & SESSION_SEG_ZERO)
		return mem_zero(start, end - start, prot);
	if (!(seg->flags & SESSION_SEG_WRITE))
		prot &= ~PROT_WRITE;
	if (prot & PROT_WRITE)
		mark_dirty(vma, start, end);
	ret = mem_media(start, end - start, prot, vma->file->dev, off);
	if (ret == -ENOMEM) {
		evict();
		ret = mem_media(start, end - start, prot, vma->file->dev, off);
	}
	return ret;
}

/*
 * Holes may be as long as files: take what is near.  The fault is in the range
 * or is not, and then the range is not worth it.
 */
static void clip_zeros(const struct fault *f, uint64_t *first, uint64_t *last)
{
	if (*last > f->index + ZERO_AROUND)
		*last = f->index + ZERO_AROUND;
	if (*first + ZERO_AROUND < f->index)
		*first = f->index;
	if (*last < *first)
		*last = *first;
}

static int map_seg(struct link *l, const struct fault *f,
		   const struct session_seg *seg)
{
	uint64_t first = seg->index, last = first + seg->nr;
	uintptr_t start, end;
	int ret = 0;

	if (seg->flags & SESSION_SEG_ZERO)
		clip_zeros(f, &first, &last);
	else if (seg->off > l->device_size ||
		 (uint64_t)seg->nr << BLOCK_SHIFT > l->device_size - seg->off)
		return -EIO;
	start = f->addr + ((first - f->index) << BLOCK_SHIFT);
	end = f->addr + ((last - f->index) << BLOCK_SHIFT);
	for (size_t i = views_lower(&views, start);
	     ret == 0 && i < views.nr && views.v[i].start < end; i++) {
		const struct view *v = &views.v[i];
		uintptr_t lo = v->start > start ? v->start : start;
		uintptr_t hi = v->end < end ? v->end : end;

		if (v->vma->number != f->vma || v->vma->link != l)
			continue;
		ret = map_part(v, lo, hi, seg,
			       seg->off + (vma_index(v->vma, lo) - seg->index) *
						  BLOCK_SIZE);
	}
	return ret;
}

/*
 * Once all of it is there, or who runs on would ask for the next page.  The
 * segments are in order and have the page that was asked for.
 */
static void wake_segs(const struct fault *f,
		      const struct session_fault_reply *r)
{
	const struct session_seg *last = &r->seg[r->nr_segs - 1];
	uint64_t nr = last->index + last->nr - f->index;

	mem_wake(f->addr, nr << BLOCK_SHIFT);
	mem_wake(f->addr, BLOCK_SIZE);
}

/* Pages from the asked one on; the first segment has to have it. */
static int64_t map_segs(struct link *l, const struct fault *f,
			const struct session_fault_reply *r)
{
	const struct session_seg *seg = r->seg;
	uint64_t next = f->index;

	if (r->nr_segs == 0 || r->nr_segs > SESSION_MAX_SEGS ||
	    seg->index > f->index || seg->index + seg->nr <= f->index ||
	    (f->write && !(seg->flags & SESSION_SEG_WRITE)))
		return -EIO;
	if (mem_crowded())
		evict();
	for (uint32_t i = 0; i < r->nr_segs; i++, seg++) {
		int ret = map_seg(l, f, seg);

		if (ret && i == 0)
			return ret;
		if (ret || seg->index > next || seg->index + seg->nr <= next)
			continue;
		next = seg->index + seg->nr;
		if (seg->flags & SESSION_SEG_ZERO &&
		    next > f->index + ZERO_AROUND)
			next = f->index + ZERO_AROUND;
	}
	wake_segs(f, r);
	return (int64_t)(next - f->index);
}

/* Nobody can be told an errno: SIGBUS. */
static void fail_page(struct link *l, const struct fault *f)
{
	struct view *v = views_find(&views, f->addr);

	if (v && v->vma->number == f->vma && v->vma->link == l && !f->quiet) {
		if (mem_bus(f->addr, BLOCK_SIZE)) {
			evict();
			(void)mem_bus(f->addr, BLOCK_SIZE);
		}
		note_bus(f->addr);
	}
	mem_wake(f->addr, BLOCK_SIZE);
}

int64_t pager_answer(struct link *l, const struct fault *f,
		     const struct session_fault_reply *r)
{
	int64_t ret = r->reply.error;
	sigset_t old;

	maps_lock(&old);
	if (ret == 0)
		ret = map_segs(l, f, r);
	if (ret == -EAGAIN)
		mem_wake(f->addr, BLOCK_SIZE);
	else if (ret < 0)
		fail_page(l, f);
	maps_unlock(&old);
	return ret;
}

void pager_fail(struct link *l, const struct fault *f)
{
	sigset_t old;

	maps_lock(&old);
	fail_page(l, f);
	maps_unlock(&old);
}

/*
 * A range must not stay as it is, whatever it costs.  At the limit of mappings
 * the spare cannot be moved; then the whole view goes in two steps, and who
 * touches it in between is sent back by the signal handler.
 */
static void must_zap(const struct view *v, uintptr_t start, uintptr_t end)
{
	const int flags =
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

	if (mem_zap(start, end - start, v->prot) == 0)
		return;
	if (mmap((void *)v->start, v->end - v->start, PROT_NONE, flags, -1,
		 0) == MAP_FAILED)
		abort(); /* never a wrong page */
	evict();
}

static struct vma *find_vma(struct link *l, uint64_t number)
{
	struct vma *vma = l->vmas;

	while (vma && vma->number != number)
		vma = vma->next;
	return vma;
}

/* A part of [*index, *index + nr) that lies in the vma. */
static bool clip(const struct vma *vma, uint64_t *index, uint64_t *nr)
{
	uint64_t end = *nr > UINT64_MAX - *index ? UINT64_MAX : *index + *nr;

	if (*index < vma->index)
		*index = vma->index;
	if (end > vma->index + vma->nr)
		end = vma->index + vma->nr;
	*nr = end > *index ? end - *index : 0;
	return *nr > 0;
}

/*
 * Taking the right to store away is done as taking all: a page that only lost
 * the right would have to raise SIGSEGV, and system calls would fail there.
 */
static void recall_vma(const struct vma *vma, uintptr_t start, uintptr_t end,
		       bool kill)
{
	for (size_t i = views_lower(&views, start);
	     i < views.nr && views.v[i].start < end; i++) {
		const struct view *v = &views.v[i];
		uintptr_t lo = v->start > start ? v->start : start;
		uintptr_t hi = v->end < end ? v->end : end;

		if (v->vma != vma)
			continue;
		if (!kill || mem_bus(lo, hi - lo))
			must_zap(v, lo, hi);
	}
}

static void ask_again(struct link *l, const struct vma *vma, uint64_t index,
		      uint64_t nr)
{
	const struct fault f = {
		.vma = vma->number,
		.index = index,
		.addr = vma_addr(vma, index),
		.quiet = true,
	};

	if (mem_user_only() && views_find(&views, f.addr))
		link_fault(l, &f, nr);
}

void pager_recall(struct link *l, const struct session_recall *msg)
{
	uint64_t index = msg->index, nr = msg->nr;
	struct vma *vma;
	sigset_t old;

	maps_lock(&old);
	vma = find_vma(l, msg->vma);
	if (vma && clip(vma, &index, &nr)) {
		uintptr_t start = vma_addr(vma, index);

		recall_vma(vma, start, start + (nr << BLOCK_SHIFT),
			   msg->kind == SESSION_RECALL_KILL);
		if (msg->kind != SESSION_RECALL_KILL)
			ask_again(l, vma, index, nr);
	}
	maps_unlock(&old);
}

bool pager_signal(int sig, uintptr_t addr, bool write)
{
	int need = write ? PROT_WRITE : PROT_READ;
	bool again = false;
	struct view *v;
	sigset_t old;

	addr &= ~BLOCK_MASK;
	maps_lock(&old);
	v = views_find(&views, addr);
	if (v && (sig == SIGBUS || v->prot & need))
		again = mem_zap(addr, BLOCK_SIZE, v->prot) == 0;
	maps_unlock(&old);
	return again && sig != SIGBUS;
}

void pager_refault(uintptr_t start, uintptr_t end)
{
	sigset_t old;

	maps_lock(&old);
	for (size_t i = views_lower(&views, start);
	     i < views.nr && views.v[i].start < end; i++) {
		const struct view *v = &views.v[i];
		uintptr_t lo = v->start > start ? v->start : start;
		uintptr_t hi = v->end < end ? v->end : end;

		mem_zap(lo, hi - lo, v->prot);
	}
	maps_unlock(&old);
}

/*
 * Changes of the set.
 */
static void vma_free(struct vma *vma)
{
	if (vma->dirty)
		munmap((void *)(uintptr_t)vma->dirty, (vma->nr / 64 + 1) * 8);
	free(vma);
}

static int vma_new(struct foliofs_file *file, uintptr_t addr, uint64_t index,
		   uint64_t nr, struct vma **ret_vma)
{
	struct vma *vma = calloc(1, sizeof(*vma));
	void *dirty;

	if (!vma)
		return -ENOMEM;
	*vma = (struct vma){
		.link = file->link,
		.file = file,
		.addr = addr,
		.index = index,
		.nr = nr,
		.nr_left = nr,
	};
	if (file->writable) {
		dirty = mmap(NULL, (nr / 64 + 1) * 8, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			     0);
		if (dirty == MAP_FAILED) {
			free(vma);
			return -ENOMEM;
		}
		vma->dirty = dirty;
	}
	*ret_vma = vma;
	return 0;
}

static int call_map(struct vma *vma, unsigned int flags)
{
	struct session_map req = {
		.head.op = SESSION_MAP,
		.handle = vma->file->handle,
		.addr = vma->addr,
		.index = vma->index,
		.nr = vma->nr,
		.flags = (vma->file->writable ? SESSION_MAP_WRITE : 0) |
			 (flags & PAGER_SYNC ? SESSION_MAP_SYNC : 0) |
			 (flags & PAGER_FLUSHED ? SESSION_MAP_FLUSHED : 0),
	};
	struct session_number_reply reply;
	struct call call = { .reply = &reply, .room = sizeof(reply) };
	int ret = link_call(vma->link, &call, &req, sizeof(req));

	if (ret == 0)
		vma->number = reply.number;
	return ret;
}

/*
 * Parts may leave in any order, but a vma only ends by being unmapped whole:
 * so the last part takes all of it along.
 */
static void call_unmap(struct link *l, const struct vma *vma, uint64_t index,
		       uint64_t nr, bool last)
{
	struct session_range req = {
		.head.op = SESSION_UNMAP,
		.vma = vma->number,
		.index = last ? vma->index : index,
		.nr = last ? vma->nr : nr,
	};
	struct session_reply reply;
	struct call call = { .reply = &reply, .room = sizeof(reply) };

	(void)link_call(l, &call, &req, sizeof(req));
}

static int add_view(struct vma *vma, int prot)
{
	const struct view v = {
		.start = vma->addr,
		.end = vma->addr + (vma->nr << BLOCK_SHIFT),
		.vma = vma,
		.prot = prot,
	};
	sigset_t old;
	int ret;

	maps_lock(&old);
	pthread_mutex_lock(&set_mutex);
	ret = views_insert(&views, &v);
	pthread_mutex_unlock(&set_mutex);
	if (ret == 0) {
		vma->next = vma->link->vmas;
		vma->link->vmas = vma;
	}
	maps_unlock(&old);
	return ret;
}

static int reserve(uintptr_t like, bool fixed, size_t len, int prot,
		   uintptr_t *ret_addr)
{
	sigset_t old;
	int ret;

	maps_lock(&old);
	if (mem_crowded())
		evict();
	ret = mem_reserve(like, fixed, len, prot, ret_addr);
	maps_unlock(&old);
	return ret;
}

int pager_map(struct foliofs_file *file, uint64_t index, size_t len, int prot,
	      unsigned int flags, uintptr_t *ret_addr)
{
	bool fixed = flags & PAGER_FIXED;
	uintptr_t addr = fixed ? *ret_addr : index << BLOCK_SHIFT;
	struct vma *vma;
	int ret;

	if (atomic_load(&file->link->lost))
		return -ENOTCONN;
	if (fixed) {
		ret = pager_unmap(addr, addr + len);
		if (ret)
			return ret;
	}
	ret = reserve(addr, fixed, len, prot, &addr);
	if (ret)
		return ret;
	ret = vma_new(file, addr, index, len >> BLOCK_SHIFT, &vma);
	if (ret)
		goto err_unmap;
	ret = call_map(vma, flags);
	if (ret)
		goto err_free;
	ret = add_view(vma, prot);
	if (ret)
		goto err_call;
	file_hold(file);
	if (flags & PAGER_POPULATE || mem_user_only())
		(void)pager_populate(addr, addr + len, false);
	*ret_addr = addr;
	return 0;

err_call:
	call_unmap(vma->link, vma, index, vma->nr, true);
err_free:
	vma_free(vma);
err_unmap:
	munmap((void *)addr, len);
	return ret;
}

/* Under maps_mutex. */
static void unlink_vma(struct vma *vma)
{
	struct vma **p = &vma->link->vmas;

	while (*p != vma)
		p = &(*p)->next;
	*p = vma->next;
}

/* Under maps_mutex: so that whole views are in [start, end). */
static int cut(uintptr_t start, uintptr_t end)
{
	int ret;

	pthread_mutex_lock(&set_mutex);
	ret = views_cut(&views, start);
	if (ret == 0)
		ret = views_cut(&views, end);
	pthread_mutex_unlock(&set_mutex);
	return ret;
}

/* What was a view; others may end its vma, so there is a copy. */
struct taken {
	uintptr_t start, end;
	struct vma *vma;
	struct vma copy;
	bool last; /* of the vma: it is ours to free */
};

/* Take the first view of the range out.  -ENOENT: there is none. */
static int take_view(uintptr_t start, uintptr_t end, struct taken *t)
{
	sigset_t old;
	size_t i;
	int ret;

	maps_lock(&old);
	ret = cut(start, end);
	i = views_lower(&views, start);
	if (ret == 0 && (i == views.nr || views.v[i].start >= end))
		ret = -ENOENT;
	if (ret == 0) {
		struct view v = views.v[i];

		pthread_mutex_lock(&set_mutex);
		views_remove(&views, i, 1);
		pthread_mutex_unlock(&set_mutex);
		mem_release(v.start, v.end - v.start);
		v.vma->nr_left -= (v.end - v.start) >> BLOCK_SHIFT;
		*t = (struct taken){ v.start, v.end, v.vma, *v.vma,
				     v.vma->nr_left == 0 };
		if (t->last)
			unlink_vma(v.vma);
		file_hold(v.vma->file);
	}
	maps_unlock(&old);
	return ret;
}

/* What was unmapped is not looked at again: it may be another's by now. */
int pager_unmap(uintptr_t start, uintptr_t end)
{
	struct taken t;
	int ret = 0;

	while (start < end && (ret = take_view(start, end, &t)) == 0) {
		struct foliofs_file *file = t.copy.file;

		start = t.end;
		call_unmap(file->link, &t.copy, vma_index(&t.copy, t.start),
			   (t.end - t.start) >> BLOCK_SHIFT, t.last);
		if (t.last) {
			vma_free(t.vma);
			file_put(file);
		}
		file_put(file);
	}
	return ret == -ENOENT ? 0 : ret;
}

/* Under maps_mutex. */
static int may_protect(uintptr_t start, uintptr_t end, int prot)
{
	if (!views_cover(&views, start, end))
		return -ENOMEM;
	for (size_t i = views_lower(&views, start);
	     i < views.nr && views.v[i].start < end; i++)
		if (prot & PROT_WRITE && !views.v[i].vma->file->writable)
			return -EACCES;
	return 0;
}

/* The pages come back with the new protection when they are touched. */
int pager_protect(uintptr_t start, uintptr_t end, int prot)
{
	sigset_t old;
	int ret;

	maps_lock(&old);
	ret = may_protect(start, end, prot);
	if (ret == 0)
		ret = cut(start, end);
	for (size_t i = views_lower(&views, start);
	     ret == 0 && i < views.nr && views.v[i].start < end; i++) {
		struct view *v = &views.v[i];

		ret = mem_zap(v->start, v->end - v->start, prot);
		if (ret)
			break;
		pthread_mutex_lock(&set_mutex);
		v->prot = prot;
		pthread_mutex_unlock(&set_mutex);
	}
	maps_unlock(&old);
	return ret;
}

bool pager_covers(uintptr_t start, uintptr_t end)
{
	sigset_t old;
	bool ret;

	maps_lock(&old);
	ret = views_cover(&views, start, end);
	maps_unlock(&old);
	return ret;
}

/* A view that comes or goes meanwhile is the program's race. */
bool pager_overlaps(uintptr_t start, uintptr_t end)
{
	sigset_t old;
	bool ret;
	size_t i;

	if (__atomic_load_n(&views.nr, __ATOMIC_RELAXED) == 0)
		return false;
	maps_lock(&old);
	i = views_lower(&views, start);
	ret = i < views.nr && views.v[i].start < end;
	maps_unlock(&old);
	return ret;
}

int pager_part(uintptr_t addr, uintptr_t end, struct pager_part *ret_part)
{
	const struct view *v;
	int ret = -ENOENT;
	sigset_t old;
	size_t i;

	maps_lock(&old);
	i = views_lower(&views, addr);
	v = &views.v[i];
	if (i < views.nr && v->start < end) {
		ret_part->start = v->start > addr ? v->start : addr;
		ret_part->end = v->end < end ? v->end : end;
		ret_part->link = v->vma->link;
		ret_part->file = v->vma->file;
		ret_part->prot = v->prot;
		ret_part->vma = v->vma->number;
		ret_part->index = vma_index(v->vma, ret_part->start);
		link_hold(v->vma->link);
		ret = 0;
	}
	maps_unlock(&old);
	return ret;
}

static int populate_part(const struct pager_part *part, bool write,
			 uint64_t *ret_nr)
{
	const struct fault f = {
		.vma = part->vma,
		.index = part->index,
		.addr = part->start,
		.write = write,
		.quiet = true,
	};
	struct session_range req = {
		.head.op = SESSION_FAULT,
		.vma = part->vma,
		.index = part->index,
		.nr = (part->end - part->start) >> BLOCK_SHIFT,
		.flags = SESSION_RANGE_AROUND |
			 (write ? SESSION_RANGE_WRITE : 0),
	};
	struct session_fault_reply reply;
	struct call call = {
		.reply = &reply,
		.room = sizeof(reply),
		.fault = &f,
	};
	int ret = link_call(part->link, &call, &req, sizeof(req));

	*ret_nr = call.nr;
	return ret;
}

int pager_populate(uintptr_t start, uintptr_t end, bool write)
{
	struct pager_part part;
	int retries = 0;

	while (start < end && pager_part(start, end, &part) == 0) {
		uint64_t nr;
		int ret = populate_part(&part, write, &nr);

		link_put(part.link);
		if (ret == 0)
			start = part.start + (nr << BLOCK_SHIFT);
		else if (ret == -EFAULT)
			start = part.end; /* the file is shorter */
		else if (ret != -EAGAIN || ++retries > NR_RETRIES)
			return ret;
	}
	return 0;
}

/*
 * The daemon forgets a page only with the vma that it is of, so the part gets
 * a new one.
 */
static int renew(uintptr_t start, uintptr_t end, bool *ret_found)
{
	struct vma *vma = NULL, *before = NULL, copy;
	struct foliofs_file *file = NULL;
	const struct view *v;
	bool last = false;
	sigset_t old;
	uint64_t nr;
	size_t i;
	int ret;

	maps_lock(&old);
	ret = cut(start, end);
	i = views_lower(&views, start);
	v = &views.v[i];
	*ret_found = i < views.nr && v->start < end;
	if (ret == 0 && *ret_found) {
		file = v->vma->file;
		file_hold(file);
		nr = (v->end - v->start) >> BLOCK_SHIFT;
		start = v->start;
		end = v->end;
		ret = vma_new(file, start, vma_index(v->vma, start), nr, &vma);
	}
	maps_unlock(&old);
	if (ret || !*ret_found)
		goto out;
	ret = call_map(vma, 0);
	if (ret)
		goto out;

	maps_lock(&old);
	i = views_lower(&views, start);
	v = &views.v[i];
	if (i < views.nr && v->start == start && v->end == end &&
	    v->vma->file == file) {
		before = v->vma;
		mem_zap(start, end - start, v->prot);
		pthread_mutex_lock(&set_mutex);
		views.v[i].vma = vma;
		pthread_mutex_unlock(&set_mutex);
		vma->next = vma->link->vmas;
		vma->link->vmas = vma;
		before->nr_left -= vma->nr;
		last = before->nr_left == 0;
		copy = *before; /* it may end with another part */
		if (last)
			unlink_vma(before);
	}
	maps_unlock(&old);
	if (before) {
		call_unmap(file->link, &copy, vma_index(&copy, start), vma->nr,
			   last);
		if (last)
			vma_free(before);
		else
			file_hold(file); /* for the new one */
		vma = NULL;
	} else {
		call_unmap(file->link, vma, vma->index, vma->nr, true);
	}
out:
	if (vma)
		vma_free(vma);
	if (file)
		file_put(file);
	return ret;
}

int pager_give_back(uintptr_t start, uintptr_t end)
{
	struct pager_part part;
	bool found;
	int ret = 0;

	while (ret == 0 && pager_part(start, end, &part) == 0) {
		link_put(part.link);
		ret = renew(part.start, part.end, &found);
		start = part.end;
	}
	return ret;
}

/* The first bit of [i, max) that is @value. */
static uint64_t find_bit(_Atomic(uint64_t) *bits, uint64_t i, uint64_t max,
			 bool value)
{
	while (i < max) {
		uint64_t word = atomic_load_explicit(&bits[i / 64],
						     memory_order_relaxed);

		word = (value ? word : ~word) >> i % 64;
		if (word) {
			i += (uint64_t)__builtin_ctzll(word);
			return i < max ? i : max;
		}
		i = (i / 64 + 1) * 64;
	}
	return max;
}

/* The first run of dirty pages, and what of it is in [*start, *end). */
static bool find_dirty(const struct vma *vma, uintptr_t *start, uintptr_t *end)
{
	uint64_t first = (*start - vma->addr) >> BLOCK_SHIFT;
	uint64_t last = (*end - vma->addr + BLOCK_MASK) >> BLOCK_SHIFT;
	uintptr_t lo, hi;

	if (!vma->dirty)
		return false;
	first = find_bit(vma->dirty, first, last, true);
	if (first == last)
		return false;
	last = find_bit(vma->dirty, first, last, false);
	lo = vma->addr + (first << BLOCK_SHIFT);
	hi = vma->addr + (last << BLOCK_SHIFT);
	*start = lo > *start ? lo : *start;
	*end = hi < *end ? hi : *end;
	return true;
}

bool pager_dirty(uintptr_t addr, uintptr_t end, uintptr_t *ret_start,
		 uintptr_t *ret_end)
{
	bool found = false;
	sigset_t old;

	maps_lock(&old);
	for (size_t i = views_lower(&views, addr);
	     !found && i < views.nr && views.v[i].start < end; i++) {
		const struct view *v = &views.v[i];

		*ret_start = v->start > addr ? v->start : addr;
		*ret_end = v->end < end ? v->end : end;
		found = find_dirty(v->vma, ret_start, ret_end);
	}
	maps_unlock(&old);
	return found;
}
