/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/foliofs.c - the public calls: check, ask, answer
 */
#include "dax/lib/foliofs.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dax/lib/client.h"
#include "dax/lib/flush.h"
#include "dax/lib/pager.h"
#include "dax/lib/trap.h"

#define EXPORT	 __attribute__((visibility("default")))
#define ALL_PROT (PROT_READ | PROT_WRITE | PROT_EXEC)

struct foliofs_pin {
	size_t nr;
	struct pin_part {
		struct link *link;
		uint64_t number;
	} part[];
};

/* Whole pages of [addr, addr + len). */
static int page_range(const void *addr, size_t len, uintptr_t *ret_start,
		      uintptr_t *ret_end)
{
	uintptr_t start = (uintptr_t)addr;

	if (len == 0 || start + len < start ||
	    start + len > UINTPTR_MAX - BLOCK_MASK)
		return -EINVAL;
	*ret_start = start & ~BLOCK_MASK;
	*ret_end = (start + len + BLOCK_MASK) & ~BLOCK_MASK;
	return 0;
}

static int get_token(int fd, struct foliofs_ioc_token *token)
{
	if (ioctl(fd, FOLIOFS_IOC_TOKEN, token) == 0)
		return 0;
	return errno == ENOSYS || errno == EINVAL ? -ENOTTY : -errno;
}

static int open_file(struct link *l, const struct foliofs_ioc_token *token,
		     struct foliofs_file *file)
{
	struct session_open req = { .head.op = SESSION_OPEN };
	struct session_open_reply reply;
	struct call call = { .reply = &reply, .room = sizeof(reply) };
	int ret;

	memcpy(req.token, token->token, sizeof(req.token));
	ret = link_call(l, &call, &req, sizeof(req));
	if (ret)
		return ret;
	if (call.fd < 0 || reply.handle >= l->nr_mail) {
		if (call.fd >= 0)
			close(call.fd);
		return -EPROTO;
	}
	file->link = l;
	file->handle = reply.handle;
	file->ino = reply.ino;
	file->writable = reply.flags & SESSION_MAP_WRITE;
	file->dev = link_device(l, file->writable, call.fd);
	atomic_store(&file->refs, 1);
	return 0;
}

int client_attach(const struct foliofs_ioc_token *token,
		  struct foliofs_file **ret_file)
{
	struct foliofs_file *file;
	struct link *l;
	int ret;

	if (strnlen(token->socket, sizeof(token->socket)) ==
	    sizeof(token->socket))
		return -EPROTO;
	ret = pager_init();
	if (ret == 0)
		ret = trap_init();
	if (ret)
		return ret;
	file = calloc(1, sizeof(*file));
	if (!file)
		return -ENOMEM;
	ret = link_get(token->socket, &l);
	if (ret)
		goto err_free;
	ret = open_file(l, token, file);
	if (ret)
		goto err_put;
	*ret_file = file;
	return 0;

err_put:
	link_put(l);
err_free:
	free(file);
	return ret;
}

struct session_mailbox *client_mail(const struct foliofs_file *file)
{
	struct link *l = file->link;

	return atomic_load(&l->lost) ? NULL : &l->mail[file->handle];
}

EXPORT int foliofs_attach(int fd, unsigned int flags,
			  struct foliofs_file **ret_file)
{
	struct foliofs_ioc_token token;
	int ret;

	if (flags)
		return -EINVAL;
	ret = get_token(fd, &token);
	return ret ? ret : client_attach(&token, ret_file);
}

EXPORT void foliofs_detach(struct foliofs_file *file)
{
	if (file)
		file_put(file);
}

static int check_map(const struct foliofs_file *file, size_t len, int prot,
		     unsigned int flags, off_t pos, const void *addr)
{
	const unsigned int known =
		FOLIOFS_MAP_SYNC | FOLIOFS_MAP_POPULATE | FOLIOFS_MAP_FIXED;

	if (len == 0 || len > SIZE_MAX / 2 || flags & ~known ||
	    prot & ~ALL_PROT || pos < 0 || (uint64_t)pos & BLOCK_MASK)
		return -EINVAL;
	if (flags & FOLIOFS_MAP_FIXED && (uintptr_t)addr & BLOCK_MASK)
		return -EINVAL;
	return prot & PROT_WRITE && !file->writable ? -EACCES : 0;
}

EXPORT int foliofs_map(struct foliofs_file *file, size_t len, int prot,
		       unsigned int flags, off_t pos, void **ret_addr)
{
	const void *at = flags & FOLIOFS_MAP_FIXED ? *ret_addr : NULL;
	uintptr_t addr = (uintptr_t)at;
	unsigned int how = 0;
	int ret = check_map(file, len, prot, flags, pos, at);

	if (ret)
		return ret;
	if (flags & FOLIOFS_MAP_SYNC)
		how |= PAGER_SYNC;
	if (flags & FOLIOFS_MAP_POPULATE)
		how |= PAGER_POPULATE;
	if (flags & FOLIOFS_MAP_FIXED)
		how |= PAGER_FIXED;
	ret = pager_map(file, (uint64_t)pos >> BLOCK_SHIFT,
			(len + BLOCK_MASK) & ~BLOCK_MASK, prot, how, &addr);
	if (ret == 0)
		*ret_addr = (void *)addr;
	return ret;
}

EXPORT int foliofs_unmap(void *addr, size_t len)
{
	uintptr_t start, end;
	int ret = page_range(addr, len, &start, &end);

	if (ret == 0 && start != (uintptr_t)addr)
		ret = -EINVAL;
	return ret ? ret : pager_unmap(start, end);
}

EXPORT int foliofs_protect(void *addr, size_t len, int prot)
{
	uintptr_t start, end;
	int ret = page_range(addr, len, &start, &end);

	if (ret == 0 && (start != (uintptr_t)addr || prot & ~ALL_PROT))
		ret = -EINVAL;
	return ret ? ret : pager_protect(start, end, prot);
}

/*
 * Flush a run, page by page: one that the file has lost meanwhile has nothing
 * to be flushed.
 */
static void flush_run(uintptr_t start, uintptr_t end)
{
	volatile uintptr_t at = start;
	sigjmp_buf jump;

	while (at < end) {
		uintptr_t next = (at + BLOCK_SIZE) & ~BLOCK_MASK;

		if (sigsetjmp(jump, 0) == 0) {
			trap_guard = &jump;
			flush_lines(at, next < end ? next : end);
		}
		trap_guard = NULL;
		at = (at + BLOCK_SIZE) & ~BLOCK_MASK;
	}
}

/* @page_sync: the kernel has copies, and msync(2) writes them. */
static int flush_part(uintptr_t start, uintptr_t end, bool page_sync)
{
	uintptr_t lo, hi;

	while (start < end && pager_dirty(start, end, &lo, &hi)) {
		if (!page_sync)
			flush_run(lo, hi);
		else if (msync((void *)(lo & ~BLOCK_MASK),
			       hi - (lo & ~BLOCK_MASK), MS_SYNC))
			return -errno;
		start = hi;
	}
	return 0;
}

static int call_sync(const struct pager_part *part)
{
	struct session_range req = {
		.head.op = SESSION_SYNC,
		.vma = part->vma,
		.index = part->index,
		.nr = (part->end - part->start + BLOCK_MASK) >> BLOCK_SHIFT,
	};
	struct session_reply reply;
	struct call call = { .reply = &reply, .room = sizeof(reply) };

	return link_call(part->link, &call, &req, sizeof(req));
}

/* Cache lines of [addr, addr + len), which is in the pages [start, end). */
static int sync_parts(uintptr_t addr, size_t len)
{
	uintptr_t start = addr & ~BLOCK_MASK, last = addr + len;
	uintptr_t end = (last + BLOCK_MASK) & ~BLOCK_MASK;
	struct pager_part part;
	int ret = 0;

	while (ret == 0 && start < end && pager_part(start, end, &part) == 0) {
		ret = flush_part(part.start > addr ? part.start : addr,
				 part.end < last ? part.end : last,
				 part.link->page_sync);
		flush_fence();
		if (ret == 0)
			ret = call_sync(&part);
		link_put(part.link);
		start = part.end;
	}
	return ret;
}

EXPORT int foliofs_sync(const void *addr, size_t len)
{
	uintptr_t start, end;
	int ret = page_range(addr, len, &start, &end);

	if (ret == 0 && !pager_covers(start, end))
		ret = -ENOMEM;
	return ret ? ret : sync_parts((uintptr_t)addr, len);
}

static int pin_part(const struct pager_part *part, unsigned int flags,
		    uint64_t *ret_number)
{
	struct session_range req = {
		.head.op = SESSION_PIN,
		.vma = part->vma,
		.index = part->index,
		.nr = (part->end - part->start) >> BLOCK_SHIFT,
		.flags = (flags & FOLIOFS_PIN_WRITE ? SESSION_RANGE_WRITE : 0) |
			 (flags & FOLIOFS_PIN_LONGTERM ? SESSION_RANGE_LONGTERM
						       : 0),
	};
	struct session_number_reply reply;
	struct call call = { .reply = &reply, .room = sizeof(reply) };
	int ret = link_call(part->link, &call, &req, sizeof(req));

	if (ret == 0)
		*ret_number = reply.number;
	return ret;
}

static int unpin_part(const struct pin_part *part)
{
	struct session_end req = {
		.head.op = SESSION_UNPIN,
		.which = part->number,
	};
	struct session_reply reply;
	struct call call = { .reply = &reply, .room = sizeof(reply) };
	int ret = link_call(part->link, &call, &req, sizeof(req));

	link_put(part->link);
	return ret;
}

/* One more part at the end; *@pin may move. */
static int pin_more(struct foliofs_pin **pin, const struct pager_part *part,
		    unsigned int flags)
{
	struct foliofs_pin *p = *pin;
	size_t nr = p->nr;
	int ret;

	p = realloc(p, sizeof(*p) + (nr + 1) * sizeof(p->part[0]));
	if (!p)
		return -ENOMEM;
	*pin = p;
	p->part[nr].link = part->link;
	ret = pin_part(part, flags, &p->part[nr].number);
	if (ret == 0)
		p->nr++;
	return ret;
}

EXPORT int foliofs_pin(const void *addr, size_t len, unsigned int flags,
		       struct foliofs_pin **ret_pin)
{
	struct foliofs_pin *pin;
	struct pager_part part;
	uintptr_t start, end;
	int ret = page_range(addr, len, &start, &end);

	if (ret == 0 && flags & ~(FOLIOFS_PIN_WRITE | FOLIOFS_PIN_LONGTERM))
		ret = -EINVAL;
	if (ret)
		return ret;
	pin = calloc(1, sizeof(*pin));
	if (!pin)
		return -ENOMEM;
	while (ret == 0 && start < end) {
		ret = pager_part(start, end, &part);
		if (ret || part.start != start) {
			if (ret == 0)
				link_put(part.link);
			ret = -EFAULT;
			break;
		}
		ret = pin_more(&pin, &part, flags);
		if (ret)
			link_put(part.link);
		start = part.end;
	}
	if (ret) {
		foliofs_unpin(pin);
		return ret;
	}
	*ret_pin = pin;
	return 0;
}

EXPORT int foliofs_unpin(struct foliofs_pin *pin)
{
	int ret = 0;

	if (!pin)
		return 0;
	for (size_t i = 0; i < pin->nr; i++) {
		int one = unpin_part(&pin->part[i]);

		ret = ret ? ret : one;
	}
	free(pin);
	return ret;
}

EXPORT int foliofs_advise(void *addr, size_t len, enum foliofs_advice advice)
{
	uintptr_t start, end;
	int ret = page_range(addr, len, &start, &end);

	if (ret == 0 && !pager_covers(start, end))
		ret = -ENOMEM;
	if (ret)
		return ret;
	switch (advice) {
	case FOLIOFS_WILLNEED:
		return pager_populate(start, end, false);
	case FOLIOFS_WILLNEED_WRITE:
		return pager_populate(start, end, true);
	case FOLIOFS_DONTNEED:
		/* What was stored is no longer known afterwards. */
		ret = sync_parts(start, end - start);
		return ret ? ret : pager_give_back(start, end);
	default:
		return -EINVAL;
	}
}

EXPORT int foliofs_reflink(int src_fd, off_t src_pos, int dst_fd, off_t dst_pos,
			   size_t len)
{
	struct foliofs_ioc_clonerange clone = {
		.src_offset = (uint64_t)src_pos,
		.src_length = len,
		.dest_offset = (uint64_t)dst_pos,
	};
	struct foliofs_ioc_token token;
	int ret = get_token(src_fd, &token);

	if (ret)
		return ret;
	memcpy(clone.token, token.token, sizeof(clone.token));
	return ioctl(dst_fd, FOLIOFS_IOC_CLONERANGE, &clone) ? -errno : 0;
}

EXPORT int foliofs_dedupe(int src_fd, off_t src_pos, int dst_fd, off_t dst_pos,
			  size_t len, size_t *ret_len)
{
	struct foliofs_ioc_deduperange dedupe = {
		.src_offset = (uint64_t)src_pos,
		.src_length = len,
		.dest_offset = (uint64_t)dst_pos,
	};
	struct foliofs_ioc_token token;
	int ret = get_token(src_fd, &token);

	if (ret)
		return ret;
	memcpy(dedupe.token, token.token, sizeof(dedupe.token));
	if (ioctl(dst_fd, FOLIOFS_IOC_DEDUPERANGE, &dedupe))
		return -errno;
	if (dedupe.status == 0)
		*ret_len = dedupe.bytes_deduped;
	return dedupe.status;
}

static enum foliofs_hold_kind hold_kind(uint32_t kind)
{
	switch ((enum session_hold_kind)kind) {
	case SESSION_HOLD_PIN:
		return FOLIOFS_HOLD_PIN;
	case SESSION_HOLD_LONG:
		return FOLIOFS_HOLD_LONG;
	case SESSION_HOLD_STUCK:
		return FOLIOFS_HOLD_STUCK;
	case SESSION_HOLD_GONE:
		return FOLIOFS_HOLD_GONE;
	case SESSION_HOLD_MAP:
	default:
		return FOLIOFS_HOLD_MAP;
	}
}

static int each_hold(const struct session_holds_reply *reply,
		     int (*fn)(const struct foliofs_hold *hold, void *ctx),
		     void *ctx)
{
	int ret = 0;

	if (reply->nr > SESSION_LIST_MAX)
		return -EPROTO;
	for (uint32_t i = 0; ret == 0 && i < reply->nr; i++) {
		const struct session_hold *h = &reply->hold[i];
		struct foliofs_hold hold = {
			.pid = h->pid,
			.kind = hold_kind(h->kind),
			.pos = h->index << BLOCK_SHIFT,
			.len = h->nr << BLOCK_SHIFT,
			.age_ns = h->age_ns,
		};

		memcpy(hold.comm, h->comm, sizeof(hold.comm) - 1);
		ret = fn(&hold, ctx);
	}
	return ret;
}

EXPORT int foliofs_holders(struct foliofs_file *file,
			   int (*fn)(const struct foliofs_hold *hold,
				     void *ctx),
			   void *ctx)
{
	struct session_list req = {
		.head.op = SESSION_HOLDS,
		.ino = file->ino,
	};
	struct session_holds_reply reply;
	struct call call = { .reply = &reply, .room = sizeof(reply) };
	int ret;

	do {
		ret = link_call(file->link, &call, &req, sizeof(req));
		if (ret == 0)
			ret = each_hold(&reply, fn, ctx);
		req.cursor = reply.cursor;
	} while (ret == 0 && reply.cursor);
	return ret;
}
