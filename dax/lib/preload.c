/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/preload.c - which descriptors are ours
 *
 * The first call on a descriptor costs an fstatfs(2).  If that says FUSE, a
 * few calls more go to the kernel, because a file that is read once and closed
 * is not worth a session's messages; then the file is attached, or known not
 * to be ours until it is closed.
 */
#include "dax/lib/preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "dax/lib/mem.h"
#include "dax/lib/trap.h"

#define MAX_FDS	   65536
#define PATIENCE   3 /* calls that go to the kernel first */
#define FUSE_MAGIC 0x65735546
#define WINDOW_MIN (UINT64_C(1) << 26) /* address space; no memory */

static struct slot {
	_Atomic(struct pfile *) file; /* NULL: not known */
	_Atomic(unsigned char) calls;
	_Atomic(unsigned char) mode;
} slots[MAX_FDS];

/* What a slot has for a descriptor that is somebody else's. */
static struct pfile not_ours;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct pfile *files, *unused; /* under mutex */

/* A handler may read and write, so none runs while this is held. */
static void lock(sigset_t *old)
{
	sigset_t all;

	sigfillset(&all);
	__wrap_pthread_sigmask(SIG_SETMASK, &all, old);
	pthread_mutex_lock(&mutex);
}

static void unlock(const sigset_t *old)
{
	pthread_mutex_unlock(&mutex);
	__wrap_pthread_sigmask(SIG_SETMASK, old, NULL);
}

static _Atomic(uint64_t) counts[NR_COUNTS], bytes_of[NR_COUNTS];
static bool counting, off;

void preload_count(enum preload_count what, uint64_t bytes)
{
	if (!counting)
		return;
	atomic_fetch_add_explicit(&counts[what], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&bytes_of[what], bytes, memory_order_relaxed);
}

static struct pfile *find(const struct stat *st, bool writable)
{
	struct pfile *p = files;

	while (p && (p->dev != st->st_dev || p->ino != st->st_ino ||
		     p->writable != writable))
		p = p->next;
	return p;
}

static struct pfile *new_pfile(void)
{
	struct pfile *p = unused;

	if (p)
		unused = p->next;
	else
		p = malloc(sizeof(*p));
	if (p) {
		memset(p, 0, sizeof(*p));
		p->keep = -1;
	}
	return p;
}

static void before_fork(void);
static void after_fork(void);
static void in_child(void);

/*
 * After the library's own: then ours run before those that lock it, and in the
 * child after those that empty it.
 */
static void watch_forks(void)
{
	static bool done;

	if (!done && pthread_atfork(before_fork, after_fork, in_child) == 0)
		done = true;
}

static int attach(int fd, const struct stat *st, bool writable,
		  struct pfile **ret_file)
{
	struct foliofs_ioc_token token;
	struct pfile *p;
	int ret;

	if (__wrap_ioctl(fd, FOLIOFS_IOC_TOKEN, &token))
		return -errno;
	if (!(token.flags & FOLIOFS_TOKEN_DAX))
		return -EOPNOTSUPP;
	p = new_pfile();
	if (!p)
		return -ENOMEM;
	ret = client_attach(&token, &p->file);
	if (ret) {
		p->next = unused;
		unused = p;
		return ret;
	}
	watch_forks();
	p->dev = st->st_dev;
	p->ino = st->st_ino;
	p->writable = writable && p->file->writable;
	p->set_id = st->st_mode & (S_ISUID | S_ISGID);
	p->page_sync = p->file->link->page_sync;
	p->next = files;
	files = p;
	*ret_file = p;
	return 0;
}

/* What the descriptor allows; false when it is not for us. */
static bool modes(int fd, unsigned char *ret_mode)
{
	int flags = __wrap_fcntl64(fd, F_GETFL);

	if (flags < 0 || flags & O_PATH)
		return false;
	*ret_mode = (flags & O_ACCMODE) == O_RDONLY   ? SLOT_READ
		    : (flags & O_ACCMODE) == O_WRONLY ? SLOT_WRITE
						      : SLOT_READ | SLOT_WRITE;
	if (flags & (O_APPEND | O_SYNC | O_DSYNC))
		*ret_mode |= SLOT_APPEND;
	return true;
}

static struct pfile *get(int fd, unsigned char mode)
{
	bool writable = mode & SLOT_WRITE;
	struct pfile *p = NULL;
	struct stat st;
	sigset_t old;

	/* A session's loads need the right to load. */
	if (!(mode & SLOT_READ) || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return NULL;
	lock(&old);
	p = find(&st, writable);
	if (!p && attach(fd, &st, writable, &p))
		p = NULL;
	if (p)
		p->refs++;
	unlock(&old);
	return p;
}

/* Errors in here are nobody's. */
static struct pfile *look_closer(int fd, struct slot *s, bool at_once)
{
	struct pfile *p = NULL, *none = NULL;
	unsigned char mode = 0;
	struct statfs fs;
	sigset_t old;
	int err = errno;

	if (atomic_load(&s->calls) == 0 &&
	    (fstatfs(fd, &fs) || fs.f_type != FUSE_MAGIC)) {
		atomic_store(&s->file, &not_ours);
		errno = err;
		return NULL;
	}
	if (atomic_fetch_add(&s->calls, 1) < PATIENCE && !at_once) {
		errno = err;
		return NULL;
	}
	if (modes(fd, &mode))
		p = get(fd, mode);
	atomic_store(&s->mode, mode);
	if (!atomic_compare_exchange_strong(&s->file, &none,
					    p ? p : &not_ours)) {
		/* Another thread was faster. */
		if (p) {
			lock(&old);
			p->refs--;
			unlock(&old);
		}
		p = none == &not_ours ? NULL : none;
	}
	errno = err;
	return p;
}

struct pfile *preload_look(int fd, bool at_once, unsigned int *ret_mode)
{
	struct pfile *p;
	struct slot *s;

	if ((unsigned int)fd >= MAX_FDS || off)
		return NULL;
	s = &slots[fd];
	p = atomic_load_explicit(&s->file, memory_order_acquire);
	if (p == &not_ours)
		return NULL;
	if (!p)
		p = look_closer(fd, s, at_once);
	if (p)
		*ret_mode =
			atomic_load_explicit(&s->mode, memory_order_relaxed);
	return p;
}

static void free_windows(struct pfile *p)
{
	struct window *w = atomic_exchange(&p->window, NULL);

	while (w) {
		struct window *older = w->older;

		foliofs_unmap(w->base, w->len);
		free(w);
		w = older;
	}
}

/* Under mutex: the last descriptor is closed.  Mappings keep the session's. */
static void let_go(struct pfile *p)
{
	struct pfile **at = &files;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	free_windows(p);
	foliofs_detach(p->file);
	if (p->keep >= 0)
		mem_close_fd(p->keep);
	p->next = unused;
	unused = p;
}

void preload_forget(int fd)
{
	int err = errno;
	struct pfile *p;
	sigset_t old;

	if ((unsigned int)fd >= MAX_FDS || off)
		return;
	atomic_store(&slots[fd].calls, 0);
	p = atomic_load_explicit(&slots[fd].file, memory_order_relaxed);
	if (!p)
		return;
	p = atomic_exchange(&slots[fd].file, NULL);
	if (!p || p == &not_ours)
		return;
	lock(&old);
	if (--p->refs == 0)
		let_go(p);
	unlock(&old);
	errno = err;
}

struct window *preload_window(struct pfile *p, uint64_t len)
{
	int prot = PROT_READ | (p->writable ? PROT_WRITE : 0);
	struct window *w;
	uintptr_t base;
	sigset_t old;

	lock(&old);
	w = atomic_load(&p->window);
	if (!w || w->len < len) {
		uint64_t room = w ? w->len * 2 : WINDOW_MIN;

		while (room < len)
			room *= 2;
		w = malloc(sizeof(*w));
		if (w &&
		    pager_map(p->file, 0, room, prot, PAGER_FLUSHED, &base)) {
			free(w);
			w = NULL;
		}
		if (w) {
			*w = (struct window){ (void *)base, room,
					      atomic_load(&p->window) };
			atomic_store(&p->window, w);
		}
	}
	unlock(&old);
	return w;
}

/* What a child can open the file by, whatever is closed until then. */
void preload_keep(struct pfile *p, int fd)
{
	char path[64];
	sigset_t old;

	if (p->keep >= 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	lock(&old);
	if (p->keep < 0) {
		fd = open(path, O_PATH | O_CLOEXEC);
		if (fd >= 0)
			p->keep = mem_high_fd(fd);
	}
	unlock(&old);
}

/*
 * fork().  Before it, the mappings of the program are written down; in the
 * child the files are attached again and the mappings are made at the same
 * addresses.
 */
struct kept {
	uintptr_t start, end;
	uint64_t index;
	int prot;
	struct pfile *file;
};
static struct kept *kept;
static size_t nr_kept;

static struct pfile *owner(const struct foliofs_file *file)
{
	struct pfile *p = files;

	while (p && p->file != file)
		p = p->next;
	return p;
}

static bool in_window(const struct pfile *p, uintptr_t addr)
{
	for (const struct window *w = atomic_load(&p->window); w; w = w->older)
		if (addr - (uintptr_t)w->base < w->len)
			return true;
	return false;
}

static void write_down(const struct pager_part *part)
{
	struct pfile *p = owner(part->file);
	struct kept *more;

	if (!p || in_window(p, part->start))
		return;
	more = realloc(kept, (nr_kept + 1) * sizeof(*kept));
	if (!more)
		return;
	kept = more;
	kept[nr_kept++] = (struct kept){ part->start, part->end, part->index,
					 part->prot, p };
}

static void before_fork(void)
{
	struct pager_part part;
	uintptr_t at = 0;

	pthread_mutex_lock(&mutex);
	nr_kept = 0;
	while (pager_part(at, UINTPTR_MAX, &part) == 0) {
		write_down(&part);
		link_put(part.link);
		at = part.end;
	}
}

static void after_fork(void)
{
	pthread_mutex_unlock(&mutex);
}

/* A new session for a file that the parent had mapped. */
static int attach_again(struct pfile *p)
{
	int flags = (p->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC;
	struct foliofs_ioc_token token;
	char path[64];
	int fd, ret;

	if (p->keep < 0)
		return -EBADF;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p->keep);
	fd = open(path, flags);
	if (fd < 0)
		return -errno;
	ret = __wrap_ioctl(fd, FOLIOFS_IOC_TOKEN, &token) ? -errno : 0;
	close(fd);
	return ret ? ret : client_attach(&token, &p->file);
}

static void in_child(void)
{
	int err = errno;

	pthread_mutex_init(&mutex, NULL);
	for (struct pfile *p = files; p; p = p->next) {
		/* The views are not here; the links know that they are lost. */
		atomic_store(&p->window, NULL);
		foliofs_detach(p->file);
		p->file = NULL;
	}
	for (size_t i = 0; i < nr_kept; i++) {
		struct kept *k = &kept[i];
		void *addr = (void *)k->start;

		if (!k->file->file && attach_again(k->file))
			continue;
		foliofs_map(k->file->file, k->end - k->start, k->prot,
			    FOLIOFS_MAP_FIXED, (off_t)(k->index << BLOCK_SHIFT),
			    &addr);
	}
	/* The others when they are used: forget what is known of them. */
	for (int fd = 0; fd < MAX_FDS; fd++) {
		struct pfile *p = atomic_load(&slots[fd].file);

		if (p && p != &not_ours && !p->file)
			atomic_store(&slots[fd].file, NULL);
	}
	for (struct pfile **at = &files; *at;) {
		if ((*at)->file)
			at = &(*at)->next;
		else
			*at = (*at)->next;
	}
	errno = err;
}

static void print_stats(void)
{
	static const char *const names[NR_COUNTS] = {
		[COUNT_READ] = "reads",	   [COUNT_WRITE] = "writes",
		[COUNT_FSYNC] = "fsyncs",  [COUNT_MMAP] = "mmaps",
		[COUNT_MSYNC] = "msyncs",  [COUNT_CLONE] = "clones",
		[COUNT_PASSED] = "passed",
	};

	fprintf(stderr, "libfoliofs-preload: pid %d:", (int)getpid());
	for (int i = 0; i < NR_COUNTS; i++)
		fprintf(stderr, " %s %ju (%ju bytes)", names[i],
			(uintmax_t)counts[i], (uintmax_t)bytes_of[i]);
	fputc('\n', stderr);
}

__attribute__((constructor)) static void preload_begin(void)
{
	const char *on = getenv("FOLIOFS_PRELOAD");
	const char *stats = getenv("FOLIOFS_PRELOAD_STATS");

	off = on && strcmp(on, "0") == 0;
	counting = !off && stats && strcmp(stats, "1") == 0;
}

__attribute__((destructor)) static void preload_end(void)
{
	if (counting)
		print_stats();
}
