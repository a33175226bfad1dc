/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/session_mail.c - what clients know without asking
 *
 * The daemon's words of the mailboxes of a file: how long it is, and whether
 * a sync has anything to do.  Both change under the file's lock, and a handle
 * that is new gets them under it, so that none misses a change.
 *
 * Stores through a loose vma (one without SESSION_MAP_FLUSHED) may be in some
 * cache.  The file is not clean from the first of them on, until there is none
 * left and a writeback has begun and ended without a new one.
 */
#include "dax/session_i.h"

static void put_word(_Atomic(uint64_t) *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

/* Under the file's lock. */
static void publish(struct session_handle *h, uint64_t size)
{
	uint64_t flags = SESSION_MAIL_SIZE |
			 (h->mapping->session_unclean ? 0 : SESSION_MAIL_CLEAN);
	struct session_client *c = h->client;
	struct session_mailbox *mail = &c->mail[h->number];

	mutex_lock(&c->lock);
	/* One that is closed has no number any more. */
	if (c->handles[h->number] == h) {
		put_word(&mail->size, size);
		put_word(&mail->flags, flags);
	}
	mutex_unlock(&c->lock);
}

static void publish_all(struct address_space *mapping, uint64_t size)
{
	struct session_handle *h = atomic_load(&mapping->session_handles);

	for (; h; h = h->next)
		publish(h, size);
}

void session_mail_new(struct session_handle *h)
{
	struct address_space *mapping = h->mapping;

	publish(h, mapping->ops->size(mapping));
}

void session_mail_loose(struct address_space *mapping, int nr)
{
	mapping->session_loose += (unsigned int)nr;
	if (nr < 0)
		return;
	mapping->session_nr_loose++;
	if (mapping->session_unclean)
		return;
	mapping->session_unclean = true;
	publish_all(mapping, mapping->ops->size(mapping));
}

void session_set_size(struct address_space *mapping, uint64_t size)
{
	struct mutex *lock = session_file_lock(mapping);

	if (!atomic_load(&mapping->session_handles))
		return;
	mutex_lock(lock);
	publish_all(mapping, size);
	mutex_unlock(lock);
}

bool session_clean_begin(struct address_space *mapping, uint64_t *ret_nr)
{
	struct mutex *lock = session_file_lock(mapping);
	bool ret;

	mutex_lock(lock);
	*ret_nr = mapping->session_nr_loose;
	ret = mapping->session_unclean && mapping->session_loose == 0;
	mutex_unlock(lock);
	return ret;
}

void session_clean_end(struct address_space *mapping, uint64_t nr)
{
	struct mutex *lock = session_file_lock(mapping);

	mutex_lock(lock);
	if (mapping->session_nr_loose == nr) {
		mapping->session_unclean = false;
		publish_all(mapping, mapping->ops->size(mapping));
	}
	mutex_unlock(lock);
}
