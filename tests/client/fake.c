/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/client/fake.c - a daemon that only speaks dax/proto.h
 *
 * One thread receives.  A file that is being recalled is busy: faults on it
 * wait until the recall was answered and the file has changed, as they would
 * for an invalidate_lock.
 */
#include "tests/client/fake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define NR_MAIL 64u
#define SPOIL	0xEE

#define must(cond)                                                            \
	do {                                                                  \
		if (!(cond)) {                                                \
			fprintf(stderr, "fake: line %d: %s (%s)\n", __LINE__, \
				#cond, strerror(errno));                      \
			abort();                                              \
		}                                                             \
	} while (0)

static uint64_t rnd(struct fake *f, uint64_t n)
{
	f->seed ^= f->seed << 13;
	f->seed ^= f->seed >> 7;
	f->seed ^= f->seed << 17;
	return (f->seed >> 11) % n;
}

static unsigned char *at(struct fake *f, uint32_t page)
{
	return f->mem + page * BLOCK_SIZE;
}

/* A random free page, so that neighbours in a file seldom are on media. */
static uint32_t take_page(struct fake *f)
{
	uint64_t i;
	uint32_t page;

	must(f->nr_free > 0);
	i = rnd(f, f->nr_free);
	page = f->free[i];
	f->free[i] = f->free[--f->nr_free];
	return page;
}

static void give_page(struct fake *f, uint32_t page)
{
	memset(at(f, page), SPOIL, BLOCK_SIZE);
	f->free[f->nr_free++] = page;
}

static void reply_with(struct fake *f, void *msg, size_t len, int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = msg, .iov_len = len };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c = &control.align;

		hdr.msg_control = &control;
		hdr.msg_controllen = sizeof(control);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	(void)!sendmsg(f->sock, &hdr, MSG_NOSIGNAL);
}

static struct session_reply header(const void *request, int error)
{
	const struct session_head *head = request;

	return (struct session_reply){
		.head = { .op = SESSION_REPLY, .id = head->id },
		.error = error,
	};
}

static void answer(struct fake *f, const void *request, int error)
{
	struct session_reply reply = header(request, error);

	reply_with(f, &reply, sizeof(reply), -1);
}

static void answer_number(struct fake *f, const void *request, uint64_t number)
{
	struct session_number_reply reply = {
		.reply = header(request, 0),
		.number = number,
	};

	reply_with(f, &reply, sizeof(reply), -1);
}

/*
 * Faults.
 */
static void send_recalls(struct fake *f, unsigned int nr_file, uint64_t index,
			 uint64_t nr, enum session_recall_kind kind)
{
	struct fake_file *file = &f->file[nr_file];

	for (uint32_t i = 0; i < FAKE_VMAS; i++) {
		const struct fake_vma *v = &f->vma[i];
		struct session_recall msg = {
			/* The file is the low part of the id. */
			.head = { .op = SESSION_RECALL,
				  .id = f->next_id++ * FAKE_FILES + nr_file },
			.vma = i + 1,
			.index = index,
			.nr = nr,
			.kind = kind,
		};

		if (v->nr == 0 || v->file != nr_file)
			continue;
		file->nr_waiting++;
		f->nr_recalls++;
		reply_with(f, &msg, sizeof(msg), -1);
	}
}

static struct session_seg seg_of(const struct fake_file *file, uint64_t index)
{
	uint32_t page = file->page[index];
	struct session_seg seg = { .index = index, .nr = 1 };

	if (page == FAKE_HOLE)
		seg.flags = SESSION_SEG_ZERO;
	else
		seg.off = page * BLOCK_SIZE;
	if (page != FAKE_HOLE && !file->shared[index])
		seg.flags = SESSION_SEG_WRITE;
	return seg;
}

static void answer_fault(struct fake *f, const struct session_range *req,
			 struct fake_file *file)
{
	struct session_fault_reply reply = { .reply = header(req, 0) };
	uint64_t end = (file->size + BLOCK_SIZE - 1) / BLOCK_SIZE;

	for (uint64_t i = 0; i < req->nr && i < f->around; i++) {
		if (req->index + i >= end)
			break;
		reply.seg[reply.nr_segs++] = seg_of(file, req->index + i);
	}
	reply_with(f, &reply, sizeof(reply), -1);
}

/* The client may still load from the old place: it has to give it back. */
static void start_copy(struct fake *f, unsigned int nr_file, uint64_t index)
{
	f->file[nr_file].busy = true;
	f->file[nr_file].copying = index;
	send_recalls(f, nr_file, index, 1, SESSION_RECALL_ZAP);
}

static void handle_fault(struct fake *f, const struct session_range *req)
{
	const struct fake_vma *v = &f->vma[req->vma - 1];
	struct fake_file *file = &f->file[v->file];
	bool write = req->flags & SESSION_RANGE_WRITE;

	if (req->vma == 0 || req->vma > FAKE_VMAS || v->nr == 0) {
		answer(f, req, -EINVAL);
	} else if (file->busy) {
		must(f->nr_later < FAKE_FAULTS);
		f->later[f->nr_later++] = *req;
	} else if (f->error) {
		answer(f, req, f->error);
	} else if (req->index * BLOCK_SIZE >= file->size) {
		answer(f, req, -EFAULT);
	} else if (write && file->shared[req->index]) {
		start_copy(f, (unsigned int)v->file, req->index);
		handle_fault(f, req);
	} else {
		if (write && file->page[req->index] == FAKE_HOLE) {
			file->page[req->index] = take_page(f);
			memset(at(f, file->page[req->index]), 0, BLOCK_SIZE);
		}
		f->nr_faults++;
		answer_fault(f, req, file);
	}
}

static void end_busy(struct fake *f, struct fake_file *file)
{
	struct session_range later[FAKE_FAULTS];
	unsigned int nr = f->nr_later;

	file->busy = false;
	memcpy(later, f->later, nr * sizeof(later[0]));
	f->nr_later = 0;
	for (unsigned int i = 0; i < nr; i++)
		handle_fault(f, &later[i]);
	pthread_cond_broadcast(&f->cond);
}

static void handle_recalled(struct fake *f, uint32_t id)
{
	struct fake_file *file = &f->file[id % FAKE_FILES];
	uint64_t index = file->copying;

	must(file->nr_waiting > 0);
	if (--file->nr_waiting > 0)
		return;
	pthread_cond_broadcast(&f->cond);
	if (index == UINT64_MAX)
		return;
	file->copying = UINT64_MAX;
	if (file->page[index] != FAKE_HOLE) {
		uint32_t page = take_page(f);

		/* Nobody looks at the clone: spoil it, too. */
		memcpy(at(f, page), at(f, file->page[index]), BLOCK_SIZE);
		give_page(f, file->page[index]);
		file->page[index] = page;
		file->shared[index] = false;
	}
	end_busy(f, file);
}

static void wait_idle(struct fake *f, struct fake_file *file)
{
	while (file->busy)
		pthread_cond_wait(&f->cond, &f->lock);
}

/* Takes the lock; returns with it and with no page of the range mapped. */
static void begin(struct fake *f, unsigned int nr_file, uint64_t index,
		  uint64_t nr, enum session_recall_kind kind)
{
	struct fake_file *file = &f->file[nr_file];

	pthread_mutex_lock(&f->lock);
	wait_idle(f, file);
	file->busy = true;
	send_recalls(f, nr_file, index, nr, kind);
	while (file->nr_waiting > 0)
		pthread_cond_wait(&f->cond, &f->lock);
}

static void end(struct fake *f, unsigned int nr_file)
{
	end_busy(f, &f->file[nr_file]);
	pthread_mutex_unlock(&f->lock);
}

void fake_recall(struct fake *f, unsigned int nr_file, uint64_t index,
		 uint64_t nr, enum session_recall_kind kind)
{
	begin(f, nr_file, index, nr, kind);
	end(f, nr_file);
}

void fake_move(struct fake *f, unsigned int nr_file, uint64_t index,
	       uint64_t nr)
{
	struct fake_file *file = &f->file[nr_file];

	begin(f, nr_file, index, nr, SESSION_RECALL_ZAP);
	for (uint64_t i = index; i < index + nr; i++) {
		uint32_t old = file->page[i];

		if (old == FAKE_HOLE)
			continue;
		file->page[i] = take_page(f);
		memcpy(at(f, file->page[i]), at(f, old), BLOCK_SIZE);
		give_page(f, old);
	}
	end(f, nr_file);
}

void fake_share(struct fake *f, unsigned int nr_file, uint64_t index,
		uint64_t nr)
{
	begin(f, nr_file, index, nr, SESSION_RECALL_WRPROTECT);
	for (uint64_t i = index; i < index + nr; i++)
		f->file[nr_file].shared[i] = true;
	end(f, nr_file);
}

void fake_truncate(struct fake *f, unsigned int nr_file, uint64_t size)
{
	struct fake_file *file = &f->file[nr_file];
	uint64_t first = (size + BLOCK_SIZE - 1) / BLOCK_SIZE;

	begin(f, nr_file, first, UINT64_MAX - first, SESSION_RECALL_ZAP);
	for (uint64_t i = first; i < file->nr; i++) {
		if (file->page[i] != FAKE_HOLE)
			give_page(f, file->page[i]);
		file->page[i] = FAKE_HOLE;
	}
	file->size = size;
	end(f, nr_file);
}

void fake_fill(struct fake *f, unsigned int nr_file, uint64_t index,
	       uint64_t nr)
{
	struct fake_file *file = &f->file[nr_file];

	pthread_mutex_lock(&f->lock);
	for (uint64_t i = index; i < index + nr; i++) {
		uint64_t stamp = fake_stamp(nr_file, i);
		unsigned char *p;

		file->page[i] = take_page(f);
		p = at(f, file->page[i]);
		for (size_t b = 0; b < BLOCK_SIZE; b += sizeof(stamp))
			memcpy(p + b, &stamp, sizeof(stamp));
	}
	if (file->size < (index + nr) * BLOCK_SIZE)
		file->size = (index + nr) * BLOCK_SIZE;
	pthread_mutex_unlock(&f->lock);
}

unsigned char *fake_page(struct fake *f, unsigned int nr_file, uint64_t index)
{
	unsigned char *p = NULL;

	pthread_mutex_lock(&f->lock);
	if (f->file[nr_file].page[index] != FAKE_HOLE)
		p = at(f, f->file[nr_file].page[index]);
	pthread_mutex_unlock(&f->lock);
	return p;
}

/*
 * The rest of the protocol.
 */
static void handle_hello(struct fake *f, const void *req)
{
	struct session_hello_reply reply = {
		.reply = header(req, 0),
		.version = SESSION_VERSION,
		.block_size = BLOCK_SIZE,
		.device_size = f->nr_pages * BLOCK_SIZE,
		.client = 1,
		.nr_mailboxes = NR_MAIL,
		.max_vmas = FAKE_VMAS,
	};

	reply_with(f, &reply, sizeof(reply), f->mail_fd);
}

static void handle_open(struct fake *f, const struct session_open *req)
{
	struct session_open_reply reply = {
		.reply = header(req, 0),
		.handle = req->token[0],
		.ino = 100u + req->token[0],
		.size = f->file[req->token[0]].size,
		.flags = f->read_only ? 0 : SESSION_MAP_WRITE,
	};

	f->nr_open++;
	reply_with(f, &reply, sizeof(reply), f->dev);
}

static void handle_map(struct fake *f, const struct session_map *req)
{
	for (uint64_t i = 0; i < FAKE_VMAS; i++) {
		if (f->vma[i].nr)
			continue;
		f->vma[i] = (struct fake_vma){
			.file = req->handle,
			.index = req->index,
			.nr = req->nr,
		};
		f->nr_vmas++;
		answer_number(f, req, i + 1);
		return;
	}
	answer(f, req, -EMFILE);
}

/* A vma ends when all of it goes at once. */
static void handle_unmap(struct fake *f, const struct session_range *req)
{
	struct fake_vma *v = &f->vma[req->vma - 1];

	must(req->index >= v->index);
	must(req->index + req->nr <= v->index + v->nr);
	if (req->nr == v->nr) {
		v->nr = 0;
		f->nr_vmas--;
	}
	answer(f, req, 0);
}

static void handle_holds(struct fake *f, const struct session_list *req)
{
	struct session_holds_reply reply = {
		.reply = header(req, 0),
		.cursor = req->cursor + 1 < 3 ? req->cursor + 1 : 0,
		.nr = 1,
		.hold = { { .ino = req->ino,
			    .index = req->cursor,
			    .nr = 2,
			    .pid = 42,
			    .kind = SESSION_HOLD_PIN,
			    .comm = "somebody" } },
	};

	reply_with(f, &reply, sizeof(reply), -1);
}

static void handle(struct fake *f, const void *msg)
{
	const struct session_head *head = msg;

	switch ((enum session_op)head->op) {
	case SESSION_HELLO:
		handle_hello(f, msg);
		break;
	case SESSION_OPEN:
		handle_open(f, msg);
		break;
	case SESSION_MAP:
		handle_map(f, msg);
		break;
	case SESSION_UNMAP:
		handle_unmap(f, msg);
		break;
	case SESSION_FAULT:
		handle_fault(f, msg);
		break;
	case SESSION_RECALLED:
		handle_recalled(f, head->id);
		break;
	case SESSION_PIN:
		f->nr_pins++;
		answer_number(f, msg, f->nr_pins);
		break;
	case SESSION_UNPIN:
		f->nr_pins--;
		answer(f, msg, 0);
		break;
	case SESSION_SYNC:
		f->nr_syncs++;
		answer(f, msg, 0);
		break;
	case SESSION_CLOSE:
		f->nr_open--;
		answer(f, msg, 0);
		break;
	case SESSION_HOLDS:
		handle_holds(f, msg);
		break;
	case SESSION_WAITS:
	case SESSION_REPLY:
	case SESSION_RECALL:
	default:
		answer(f, msg, -EPROTO);
	}
}

static void *serve(void *arg)
{
	struct fake *f = arg;
	_Alignas(8) char msg[256];

	for (;;) {
		int sock = accept4(f->listen, NULL, NULL, SOCK_CLOEXEC);

		if (sock < 0)
			return NULL;
		pthread_mutex_lock(&f->lock);
		f->sock = sock;
		pthread_mutex_unlock(&f->lock);
		while (recv(sock, msg, sizeof(msg), 0) > 0) {
			pthread_mutex_lock(&f->lock);
			handle(f, msg);
			pthread_mutex_unlock(&f->lock);
		}
		pthread_mutex_lock(&f->lock);
		f->sock = -1;
		memset(f->vma, 0, sizeof(f->vma));
		pthread_mutex_unlock(&f->lock);
		close(sock);
	}
}

static void listen_at(struct fake *f)
{
	static int count;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(f->path, sizeof(f->path), "/tmp/foliofs-fake.%d.%d",
		 (int)getpid(), count++);
	memcpy(addr.sun_path, f->path, sizeof(addr.sun_path));
	unlink(f->path);
	f->listen = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	must(bind(f->listen, (struct sockaddr *)&addr, sizeof(addr)) == 0);
	must(listen(f->listen, 4) == 0);
}

static void *map_file(int fd, size_t len)
{
	void *p;

	must(fd >= 0 && ftruncate(fd, (off_t)len) == 0);
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(p != MAP_FAILED);
	return p;
}

struct fake *fake_new(uint64_t nr_pages, uint64_t file_pages)
{
	struct fake *f = calloc(1, sizeof(*f));

	must(f);
	f->nr_pages = nr_pages;
	f->seed = 88172645463325252u;
	f->around = 1;
	f->dev = memfd_create("fake device", MFD_CLOEXEC);
	f->mem = map_file(f->dev, nr_pages * BLOCK_SIZE);
	f->mail_fd = memfd_create("fake mail", MFD_CLOEXEC);
	f->mail = map_file(f->mail_fd, NR_MAIL * sizeof(*f->mail));
	f->free = calloc(nr_pages, sizeof(*f->free));
	must(f->free);
	while (f->nr_free < nr_pages) {
		f->free[f->nr_free] = (uint32_t)f->nr_free;
		f->nr_free++;
	}
	for (int i = 0; i < FAKE_FILES; i++) {
		struct fake_file *file = &f->file[i];

		file->page = malloc(file_pages * sizeof(*file->page));
		file->shared = calloc(file_pages, sizeof(*file->shared));
		must(file->page && file->shared);
		memset(file->page, 0xff, file_pages * sizeof(*file->page));
		file->nr = file_pages;
		file->copying = UINT64_MAX;
	}
	f->sock = -1;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->cond, NULL);
	listen_at(f);
	must(pthread_create(&f->thread, NULL, serve, f) == 0);
	return f;
}

void fake_die(struct fake *f)
{
	pthread_mutex_lock(&f->lock);
	shutdown(f->listen, SHUT_RDWR);
	if (f->sock >= 0)
		shutdown(f->sock, SHUT_RDWR);
	pthread_mutex_unlock(&f->lock);
	pthread_join(f->thread, NULL);
	close(f->listen);
	f->listen = -1;
	unlink(f->path);
}

void fake_free(struct fake *f)
{
	if (f->listen >= 0)
		fake_die(f);
	for (int i = 0; i < FAKE_FILES; i++) {
		free(f->file[i].page);
		free(f->file[i].shared);
	}
	munmap(f->mem, f->nr_pages * BLOCK_SIZE);
	munmap(f->mail, NR_MAIL * sizeof(*f->mail));
	close(f->dev);
	close(f->mail_fd);
	free(f->free);
	free(f);
}

struct foliofs_ioc_token fake_token(const struct fake *f, unsigned int nr)
{
	struct foliofs_ioc_token token = {
		.token = { (uint8_t)nr },
		.flags = FOLIOFS_TOKEN_WRITE | FOLIOFS_TOKEN_DAX,
	};

	memcpy(token.socket, f->path, sizeof(token.socket));
	return token;
}
