/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_msg.c - what clients ask for
 *
 * A message is checked before anything is done: its size is the one of its
 * type, its reserved fields are 0, its flags are known, its ranges are within
 * their vma and do not wrap.  What is no message ends the session; what cannot
 * be is answered -EPROTO; what is not there, or too much, has its errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dax/session_i.h"

/* Addresses of a program are below this, on every machine. */
#define MAX_ADDR (UINT64_C(1) << 56)

/* A pin of more pages lets another thread receive meanwhile. */
#define PIN_INLINE 64u

static void reply(struct session_client *c, uint32_t id, int error)
{
	const struct session_reply r = {
		.head = { .op = SESSION_REPLY, .id = id },
		.error = error,
	};

	mutex_lock(&c->lock);
	client_send(c, &r, sizeof(r), -1);
	mutex_unlock(&c->lock);
}

static void reply_number(struct session_client *c, uint32_t id, int error,
			 uint64_t number)
{
	const struct session_number_reply r = {
		.reply.head = { .op = SESSION_REPLY, .id = id },
		.number = number,
	};

	if (error) {
		reply(c, id, error);
		return;
	}
	mutex_lock(&c->lock);
	client_send(c, &r, sizeof(r), -1);
	mutex_unlock(&c->lock);
}

/* HELLO. */

static int mailbox_create(struct session_client *c)
{
	size_t size = c->srv->limits.max_handles * sizeof(*c->mail);
	void *mail;
	int fd;

	fd = memfd_create("foliofs-mailbox", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	/* Sealed: the other side must not be able to take it from under us. */
	if (ftruncate(fd, (off_t)size) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		close(fd);
		return -EIO;
	}
	mail = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mail == MAP_FAILED) {
		close(fd);
		return -ENOMEM;
	}
	c->mail_fd = fd;
	c->mail = mail;
	return 0;
}

static int hello(struct session_client *c, const struct session_hello *m)
{
	struct session_server *srv = c->srv;
	int ret;

	if (m->version != SESSION_VERSION || m->flags)
		return -EPROTO;
	if (srv->ops->allow(srv->ctx, c->uid, c->gid, c->pid))
		return -EACCES;
	c->handles = calloc(srv->limits.max_handles, sizeof(*c->handles));
	if (!c->handles)
		return -ENOMEM;
	ret = mailbox_create(c);
	if (ret) {
		free(c->handles);
		c->handles = NULL;
	}
	return ret;
}

static bool msg_hello(struct session_client *c, const void *msg)
{
	const struct session_hello *m = msg;
	struct session_server *srv = c->srv;
	struct session_hello_reply r = {
		.reply.head = { .op = SESSION_REPLY, .id = m->head.id },
		.version = SESSION_VERSION,
		.block_size = BLOCK_SIZE,
		.device_size = srv->dev->folios->nr_pages << BLOCK_SHIFT,
		.client = c->number,
		.nr_mailboxes = srv->limits.max_handles,
		.max_vmas = srv->limits.max_vmas,
	};
	int ret, fd;

	if (c->handles) {
		reply(c, m->head.id, -EPROTO); /* once */
		return true;
	}
	ret = hello(c, m);
	if (ret) {
		mutex_lock(&c->lock);
		r.reply.error = ret;
		client_send(c, &r.reply, sizeof(r.reply), -1);
		client_shut(c);
		mutex_unlock(&c->lock);
		return true;
	}
	fd = fcntl(c->mail_fd, F_DUPFD_CLOEXEC, 0);
	mutex_lock(&c->lock);
	if (c->state == CLIENT_NEW)
		c->state = CLIENT_READY;
	client_send(c, &r, sizeof(r), fd);
	mutex_unlock(&c->lock);
	return true;
}

/* Handles. */

static void handle_link(struct session_handle *h)
{
	struct address_space *mapping = h->mapping;
	struct mutex *lock = session_file_lock(mapping);

	mutex_lock(lock);
	h->next = atomic_load(&mapping->session_handles);
	atomic_store(&mapping->session_handles, h);
	session_mail_new(h);
	mutex_unlock(lock);
}

static void handle_unlink(struct session_handle *h)
{
	struct address_space *mapping = h->mapping;
	struct mutex *lock = session_file_lock(mapping);
	struct session_handle *i;

	mutex_lock(lock);
	i = atomic_load(&mapping->session_handles);
	if (i == h) {
		atomic_store(&mapping->session_handles, h->next);
	} else {
		while (i->next != h)
			i = i->next;
		i->next = h->next;
	}
	mutex_unlock(lock);
}

/* Has the client stored since somebody asked? */
static bool handle_stored(struct session_handle *h)
{
	uint64_t nr = atomic_load(&h->client->mail[h->number].nr_stores);

	return h->write && atomic_exchange(&h->seen, nr) != nr;
}

bool session_stores(struct address_space *mapping)
{
	struct mutex *lock = session_file_lock(mapping);
	struct session_handle *h;
	bool stored = false;

	if (!atomic_load(&mapping->session_handles))
		return false;
	mutex_lock(lock);
	for (h = atomic_load(&mapping->session_handles); h; h = h->next)
		stored |= handle_stored(h);
	mutex_unlock(lock);
	return stored;
}

bool session_has_writers(struct address_space *mapping)
{
	struct mutex *lock = session_file_lock(mapping);
	const struct session_handle *h;
	const struct session_vma *vma;
	bool found = false;

	if (!atomic_load(&mapping->session_handles) &&
	    !atomic_load(&mapping->session_vmas))
		return false;
	mutex_lock(lock);
	for (h = atomic_load(&mapping->session_handles); h; h = h->next)
		found |= h->write;
	for (vma = atomic_load(&mapping->session_vmas); vma; vma = vma->next)
		found |= vma->write;
	mutex_unlock(lock);
	return found;
}

bool session_in_use(struct address_space *mapping)
{
	return atomic_load(&mapping->session_handles) ||
	       atomic_load(&mapping->session_vmas);
}

void session_handle_put(struct session_client *c, struct session_handle *h)
{
	const struct session_ops *ops = c->srv->ops;
	bool last;

	mutex_lock(&c->lock);
	last = --h->users == 0;
	mutex_unlock(&c->lock);
	if (!last)
		return;
	handle_unlink(h);
	if (handle_stored(h))
		ops->stored(h->mapping, 0, UINT64_MAX);
	ops->put(h->mapping);
	free(h);
}

static int handle_insert(struct session_client *c, struct session_handle *h)
{
	unsigned int max = c->srv->limits.max_handles, i = 0;
	int ret = 0;

	mutex_lock(&c->lock);
	if (c->state != CLIENT_READY)
		ret = -ESHUTDOWN;
	else if (c->nr_handles >= max)
		ret = -EMFILE;
	if (ret == 0) {
		while (c->handles[i])
			i++;
		h->number = i;
		atomic_store(&h->seen, atomic_load(&c->mail[i].nr_stores));
		atomic_store(&c->mail[i].flags, 0);
		c->handles[i] = h;
		c->nr_handles++;
		h->users++;
	}
	mutex_unlock(&c->lock);
	return ret;
}

static void open_reply(struct session_client *c, uint32_t id,
		       struct address_space *mapping, uint64_t number,
		       bool write, int fd)
{
	const struct session_open_reply r = {
		.reply.head = { .op = SESSION_REPLY, .id = id },
		.handle = number,
		.ino = mapping->ino,
		.size = mapping->ops->size(mapping),
		.flags = write ? SESSION_MAP_WRITE : 0,
	};

	mutex_lock(&c->lock);
	client_send(c, &r, sizeof(r), fd);
	mutex_unlock(&c->lock);
}

/* Takes over the reference to @mapping. */
static int open_file(struct session_client *c, uint32_t id,
		     struct address_space *mapping, bool write)
{
	struct session_server *srv = c->srv;
	struct session_handle *h;
	int fd, ret;

	fd = srv->ops->device_fd(srv->ctx, write);
	if (fd < 0) {
		ret = fd;
		goto err_put;
	}
	h = calloc(1, sizeof(*h));
	if (!h) {
		ret = -ENOMEM;
		goto err_close;
	}
	h->client = c;
	h->mapping = mapping;
	h->write = write;
	h->users = 1; /* us: it can be closed as soon as it has a number */
	ret = handle_insert(c, h);
	if (ret)
		goto err_free;
	handle_link(h);
	open_reply(c, id, mapping, h->number, write, fd);
	session_handle_put(c, h);
	return 0;

err_free:
	free(h);
err_close:
	close(fd);
err_put:
	srv->ops->put(mapping);
	return ret;
}

static bool msg_open(struct session_client *c, const void *msg)
{
	const struct session_open *m = msg;
	struct address_space *mapping;
	bool write;
	int ret = -EACCES;

	mapping = session_token_take(c->srv, m->token, &write);
	if (mapping && !mapping->dax) {
		c->srv->ops->put(mapping);
		ret = -EOPNOTSUPP;
	} else if (mapping) {
		ret = open_file(c, m->head.id, mapping, write);
	}
	if (ret)
		reply(c, m->head.id, ret);
	return true;
}

static bool msg_close(struct session_client *c, const void *msg)
{
	const struct session_end *m = msg;
	struct session_handle *h = NULL;

	mutex_lock(&c->lock);
	if (m->which < c->srv->limits.max_handles)
		h = c->handles[m->which];
	if (h) {
		c->handles[m->which] = NULL;
		atomic_store(&c->mail[m->which].flags, 0);
		c->nr_handles--;
	}
	mutex_unlock(&c->lock);
	if (h)
		session_handle_put(c, h);
	reply(c, m->head.id, h ? 0 : -EBADF);
	return true;
}

/* Vmas. */

static int check_map(const struct session_map *m)
{
	if (m->reserved || (m->flags & ~(SESSION_MAP_WRITE | SESSION_MAP_SYNC |
					 SESSION_MAP_FLUSHED)))
		return -EPROTO;
	if (m->nr == 0 || m->addr % BLOCK_SIZE ||
	    m->index >= SESSION_MAX_INDEX ||
	    m->nr > SESSION_MAX_INDEX - m->index || m->addr >= MAX_ADDR ||
	    m->nr << BLOCK_SHIFT > MAX_ADDR - m->addr)
		return -EINVAL;
	return 0;
}

static struct session_handle *handle_get(struct session_client *c,
					 uint64_t number)
{
	struct session_handle *h;

	mutex_lock(&c->lock);
	h = number < c->srv->limits.max_handles ? c->handles[number] : NULL;
	if (h)
		h->users++;
	mutex_unlock(&c->lock);
	return h;
}

static int map(struct session_client *c, const struct session_map *m,
	       uint64_t *ret_number)
{
	bool write = m->flags & SESSION_MAP_WRITE;
	struct session_handle *h;
	int ret;

	ret = check_map(m);
	if (ret)
		return ret;
	if ((m->flags & SESSION_MAP_SYNC) &&
	    !dax_device_synchronous(c->srv->dev))
		return -EOPNOTSUPP;
	h = handle_get(c, m->handle);
	if (!h)
		return -EBADF;
	if (write && !h->write)
		ret = -EACCES;
	else
		ret = session_vma_create(c, h->mapping, m, write, ret_number);
	session_handle_put(c, h);
	return ret;
}

static bool msg_map(struct session_client *c, const void *msg)
{
	const struct session_map *m = msg;
	uint64_t number = 0;
	int ret = map(c, m, &number);

	reply_number(c, m->head.id, ret, number);
	return true;
}

static int check_range(const struct session_vma *vma,
		       const struct session_range *m, uint32_t flags)
{
	uint64_t first = vma->dv.pgoff;
	uint64_t nr = (vma->dv.end - vma->dv.start) >> BLOCK_SHIFT;

	if (m->reserved || (m->flags & ~flags))
		return -EPROTO;
	if (m->nr == 0 || m->index < first || m->index - first >= nr)
		return -EINVAL;
	if (m->nr > nr - (m->index - first))
		return -EINVAL;
	if ((m->flags & SESSION_RANGE_WRITE) && !vma->write)
		return -EACCES;
	return 0;
}

static int unmap(struct session_vma *vma, const struct session_range *m)
{
	uint64_t nr = (vma->dv.end - vma->dv.start) >> BLOCK_SHIFT;
	int ret;

	ret = check_range(vma, m, 0);
	if (ret)
		return ret;
	if (m->nr == nr)
		session_vma_end(vma);
	else
		session_vma_unmap(vma, m->index, m->nr);
	return 0;
}

static bool msg_unmap(struct session_client *c, const void *msg)
{
	const struct session_range *m = msg;
	struct session_vma *vma = session_vma_get(c, m->vma);
	int ret = -ENOENT;

	if (vma) {
		ret = unmap(vma, m);
		session_vma_put(vma);
	}
	reply(c, m->head.id, ret);
	return true;
}

/* Requests that may sleep: not too many of them. */

static int busy_begin(struct session_client *c)
{
	int ret = -EAGAIN;

	if (!session_pool_has_room(c->srv))
		return ret;
	mutex_lock(&c->lock);
	if (c->nr_busy < c->srv->limits.max_busy) {
		c->nr_busy++;
		ret = 0;
	}
	mutex_unlock(&c->lock);
	return ret;
}

static void busy_end(struct session_client *c)
{
	mutex_lock(&c->lock);
	c->nr_busy--;
	mutex_unlock(&c->lock);
}

static int fault(struct session_vma *vma, const struct session_range *m)
{
	struct session_client *c = vma->client;
	bool write = m->flags & SESSION_RANGE_WRITE;
	int ret;

	ret = check_range(vma, m, SESSION_RANGE_WRITE | SESSION_RANGE_AROUND);
	if (!ret)
		ret = busy_begin(c);
	if (ret)
		return ret;
	ret = session_vma_fault(vma, m->index, m->nr, write,
				m->flags & SESSION_RANGE_AROUND);
	if (ret == 0 && write)
		c->srv->ops->stored(vma->dv.mapping, m->index << BLOCK_SHIFT,
				    BLOCK_SIZE);
	busy_end(c);
	return ret;
}

static bool msg_fault(struct session_client *c, const void *msg)
{
	const struct session_range *m = msg;
	struct session_vma *vma = session_vma_get(c, m->vma);
	uint64_t nr = m->flags & SESSION_RANGE_AROUND ? m->nr : 1;
	int ret = vma ? fault(vma, m) : -ENOENT;

	if (ret)
		reply(c, m->head.id, ret);
	else
		session_vma_reply(vma, m->head.id, m->index, nr,
				  m->flags & SESSION_RANGE_WRITE);
	if (vma)
		session_vma_put(vma);
	return true;
}

static bool msg_sync(struct session_client *c, const void *msg)
{
	const struct session_range *m = msg;
	struct session_vma *vma = session_vma_get(c, m->vma);
	int ret = -ENOENT;

	if (vma) {
		ret = check_range(vma, m, 0);
		if (ret == 0 && vma->write)
			c->srv->ops->stored(vma->dv.mapping,
					    m->index << BLOCK_SHIFT,
					    m->nr << BLOCK_SHIFT);
		session_vma_put(vma);
	}
	reply(c, m->head.id, ret);
	return true;
}

static bool msg_recalled(struct session_client *c, const void *msg)
{
	const struct session_recalled *m = msg;

	return session_recalled(c, m->head.id);
}

/* Pins. */

static void pin_put(struct session_client *c, struct session_pin *pin,
		    uint64_t nr)
{
	struct address_space *mapping = pin->mapping;

	while (nr > 0)
		folio_put(pin->folios[--nr]);
	free(pin);
	c->srv->ops->put(mapping);
}

/* Room for so many pages more. */
static int pin_reserve(struct session_client *c, uint64_t nr)
{
	const struct session_limits *l = &c->srv->limits;
	int ret = 0;

	mutex_lock(&c->lock);
	if (c->nr_pins >= l->max_pins)
		ret = -EMFILE;
	else if (nr > l->max_pinned || c->nr_pinned > l->max_pinned - nr)
		ret = -EDQUOT;
	if (ret == 0) {
		c->nr_pins++;
		c->nr_pinned += (unsigned int)nr;
	}
	mutex_unlock(&c->lock);
	return ret;
}

static void pin_unreserve(struct session_client *c, uint64_t nr)
{
	mutex_lock(&c->lock);
	c->nr_pins--;
	c->nr_pinned -= (unsigned int)nr;
	mutex_unlock(&c->lock);
}

static int pin_pages(struct session_vma *vma, struct session_pin *pin,
		     unsigned int flags)
{
	bool lend = pin->nr > PIN_INLINE;
	uint64_t i = 0;
	int ret = 0;

	if (lend)
		sleep_hook_begin();
	for (; ret == 0 && i < pin->nr; i++)
		ret = dax_pin(&vma->dv, pin->index + i, flags, &pin->folios[i]);
	if (lend)
		sleep_hook_end();
	if (ret)
		pin_put(vma->client, pin, i - 1);
	return ret;
}

static int pin_insert(struct session_client *c, struct session_pin *pin)
{
	int ret = 0;

	mutex_lock(&c->lock);
	if (c->state != CLIENT_READY) {
		ret = -ESHUTDOWN;
	} else {
		pin->number = ++c->next_number;
		LIST_INSERT_HEAD(&c->pins, pin, link);
	}
	mutex_unlock(&c->lock);
	return ret;
}

static int pin_range(struct session_vma *vma, const struct session_range *m,
		     uint64_t *ret_number)
{
	unsigned int flags = 0;
	struct session_pin *pin;
	int ret;

	pin = malloc(sizeof(*pin) + m->nr * sizeof(pin->folios[0]));
	if (!pin)
		return -ENOMEM;
	*pin = (struct session_pin){
		.mapping = vma->dv.mapping,
		.ino = vma->dv.mapping->ino,
		.index = m->index,
		.nr = m->nr,
		.longterm = m->flags & SESSION_RANGE_LONGTERM,
		.since_ns = session_now(),
	};
	if (m->flags & SESSION_RANGE_WRITE)
		flags |= FOLL_WRITE;
	if (pin->longterm)
		flags |= FOLL_LONGTERM;
	vma->client->srv->ops->get(pin->mapping);
	ret = pin_pages(vma, pin, flags);
	if (ret)
		return ret;
	ret = pin_insert(vma->client, pin);
	if (ret)
		pin_put(vma->client, pin, pin->nr);
	else
		*ret_number = pin->number;
	return ret;
}

static int pin(struct session_vma *vma, const struct session_range *m,
	       uint64_t *ret_number)
{
	struct session_client *c = vma->client;
	int ret;

	ret = check_range(vma, m, SESSION_RANGE_WRITE | SESSION_RANGE_LONGTERM);
	if (ret)
		return ret;
	ret = pin_reserve(c, m->nr);
	if (ret)
		return ret;
	ret = busy_begin(c);
	if (ret == 0) {
		ret = pin_range(vma, m, ret_number);
		busy_end(c);
	}
	if (ret)
		pin_unreserve(c, m->nr);
	return ret;
}

static bool msg_pin(struct session_client *c, const void *msg)
{
	const struct session_range *m = msg;
	struct session_vma *vma = session_vma_get(c, m->vma);
	uint64_t number = 0;
	int ret = -ENOENT;

	if (vma) {
		ret = pin(vma, m, &number);
		session_vma_put(vma);
	}
	reply_number(c, m->head.id, ret, number);
	return true;
}

/* Any pin if @number is 0. */
static struct session_pin *pin_take(struct session_client *c, uint64_t number)
{
	struct session_pin *pin;

	mutex_lock(&c->lock);
	for (pin = LIST_FIRST(&c->pins); pin; pin = LIST_NEXT(pin, link))
		if (number == 0 || pin->number == number)
			break;
	if (pin) {
		LIST_REMOVE(pin, link);
		c->nr_pins--;
		c->nr_pinned -= (unsigned int)pin->nr;
	}
	mutex_unlock(&c->lock);
	return pin;
}

void session_pins_end(struct session_client *c)
{
	struct session_pin *pin;

	while ((pin = pin_take(c, 0)))
		pin_put(c, pin, pin->nr);
}

static bool msg_unpin(struct session_client *c, const void *msg)
{
	const struct session_end *m = msg;
	struct session_pin *pin = NULL;

	if (m->which)
		pin = pin_take(c, m->which);
	if (pin)
		pin_put(c, pin, pin->nr);
	reply(c, m->head.id, pin ? 0 : -ENOENT);
	return true;
}

static bool msg_holds(struct session_client *c, const void *msg)
{
	session_msg_holds(c, msg);
	return true;
}

static bool msg_waits(struct session_client *c, const void *msg)
{
	session_msg_waits(c, msg);
	return true;
}

/* All of them. */

static const struct {
	size_t size;
	bool (*fn)(struct session_client *c, const void *msg);
} messages[] = {
	[SESSION_HELLO] = { sizeof(struct session_hello), msg_hello },
	[SESSION_OPEN] = { sizeof(struct session_open), msg_open },
	[SESSION_CLOSE] = { sizeof(struct session_end), msg_close },
	[SESSION_MAP] = { sizeof(struct session_map), msg_map },
	[SESSION_UNMAP] = { sizeof(struct session_range), msg_unmap },
	[SESSION_FAULT] = { sizeof(struct session_range), msg_fault },
	[SESSION_PIN] = { sizeof(struct session_range), msg_pin },
	[SESSION_UNPIN] = { sizeof(struct session_end), msg_unpin },
	[SESSION_SYNC] = { sizeof(struct session_range), msg_sync },
	[SESSION_HOLDS] = { sizeof(struct session_list), msg_holds },
	[SESSION_WAITS] = { sizeof(struct session_list), msg_waits },
	[SESSION_RECALLED] = { sizeof(struct session_recalled), msg_recalled },
};

/* Does a client have more than before, if this succeeds? */
static bool gives(uint32_t op)
{
	return op == SESSION_OPEN || op == SESSION_MAP || op == SESSION_FAULT ||
	       op == SESSION_PIN;
}

bool session_message(struct session_client *c, const void *msg, size_t len)
{
	const struct session_head *head = msg;
	enum client_state state;
	bool shut;

	if (len < sizeof(*head) ||
	    head->op >= sizeof(messages) / sizeof(messages[0]) ||
	    len != messages[head->op].size)
		return false;
	mutex_lock(&c->lock);
	state = c->state;
	shut = c->shut;
	mutex_unlock(&c->lock);
	if (shut)
		return false;
	if (gives(head->op) && atomic_load(&c->srv->stopped)) {
		reply(c, head->id, -ESHUTDOWN);
		return true;
	}
	if (state == CLIENT_NEW && head->op != SESSION_HELLO) {
		reply(c, head->id, -EPROTO);
		return true;
	}
	return messages[head->op].fn(c, msg);
}
