/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/xarray.c - an array of values with very large indices
 *
 * An entry of order n sits in the node whose slots are the largest that are
 * not larger than it.  When it needs several slots of that node, the first
 * holds the entry and the others hold sibling entries that name the first.
 * Marks are kept for first slots only.
 *
 * Invariants:
 * (1) a node other than the head is never empty;
 * (2) bit i of used is set if and only if slot i is not NULL;
 * (3) bit i of a mark is set for a node in slot i if and only if that node
 *     has the mark set anywhere;
 * (4) the head is as low as the largest index allows.
 */
#include "dax/xarray.h"

#include <errno.h>
#include <stdlib.h>

/*
 * Nodes that a store can need at most: a new head and a new node on the way
 * down for each six bits of an index.
 */
#define MAX_NEW 22u

static bool is_node(const void *entry)
{
	/* Siblings are the internal values below XA_SLOTS. */
	return xa_is_internal(entry) && (uintptr_t)entry >= XA_SLOTS << 2;
}

static bool is_sibling(const void *entry)
{
	return xa_is_internal(entry) && (uintptr_t)entry < XA_SLOTS << 2;
}

static struct xa_node *to_node(const void *entry)
{
	return (struct xa_node *)((uintptr_t)entry - 2);
}

static void *mk_node(const struct xa_node *node)
{
	return (void *)((uintptr_t)node + 2);
}

static unsigned int to_sibling(const void *entry)
{
	return (unsigned int)((uintptr_t)entry >> 2);
}

/* Indices below a node, minus one. */
static uint64_t node_mask(const struct xa_node *node)
{
	if (node->shift + XA_SHIFT >= 64)
		return UINT64_MAX;
	return (UINT64_C(1) << (node->shift + XA_SHIFT)) - 1;
}

static unsigned int index_offset(const struct xa_node *node, uint64_t index)
{
	return (unsigned int)(index >> node->shift) & (XA_SLOTS - 1);
}

/* Slots that the entry in @offset has, its siblings included. */
static unsigned int entry_slots(const struct xa_node *node, unsigned int offset)
{
	unsigned int nr = 1;

	while (offset + nr < XA_SLOTS && is_sibling(node->slots[offset + nr]) &&
	       to_sibling(node->slots[offset + nr]) == offset)
		nr++;
	return nr;
}

static uint64_t slots_mask(unsigned int offset, unsigned int nr)
{
	return (nr == XA_SLOTS ? UINT64_MAX : (UINT64_C(1) << nr) - 1)
	       << offset;
}

/* Nodes, and the memory for them. */

static void *mem_alloc(const struct xarray *xa, bool may_wait)
{
	if (xa->mem)
		return xa->mem->alloc(xa->mem->ctx, sizeof(struct xa_node),
				      may_wait);
	return calloc(1, sizeof(struct xa_node));
}

static void mem_free(const struct xarray *xa, struct xa_node *node)
{
	if (xa->mem)
		xa->mem->free(xa->mem->ctx, node);
	else
		free(node);
}

static struct xa_node *node_new(struct xa_state *xas, struct xa_node *parent,
				unsigned int shift, unsigned int offset)
{
	struct xa_node *node = xas->spare;

	if (node) {
		xas->spare = node->parent;
		xas->nr_spare--;
	} else {
		node = mem_alloc(xas->xa, false);
	}
	if (!node) {
		xas_set_err(xas, -ENOMEM);
		return NULL;
	}
	node->shift = (uint8_t)shift;
	node->offset = (uint8_t)offset;
	node->parent = parent;
	return node;
}

bool xas_nomem(struct xa_state *xas)
{
	struct xa_node *node = NULL;

	if (xas_error(xas) == -ENOMEM && xas->nr_spare < MAX_NEW)
		node = mem_alloc(xas->xa, true);
	if (node) {
		node->parent = xas->spare;
		xas->spare = node;
		xas->nr_spare++;
		xas->node = XAS_RESTART;
		return true;
	}
	while ((node = xas->spare)) {
		xas->spare = node->parent;
		mem_free(xas->xa, node);
	}
	xas->nr_spare = 0;
	return false;
}

/* Take empty nodes out, from @node upwards; (1). */
static struct xa_node *trim(struct xarray *xa, struct xa_node *node)
{
	while (!node->used) {
		struct xa_node *parent = node->parent;

		if (!parent) {
			xa->head = NULL;
			mem_free(xa, node);
			return NULL;
		}
		parent->slots[node->offset] = NULL;
		parent->used &= ~(UINT64_C(1) << node->offset);
		mem_free(xa, node);
		node = parent;
	}
	return node;
}

/* Keep a node for the next try.  All of its slots are empty. */
static void spare(struct xa_state *xas, struct xa_node *node)
{
	node->parent = xas->spare;
	xas->spare = node;
	xas->nr_spare++;
}

/* Make the head as low as it can be; (4).  True if it went lower. */
static bool shrink(struct xarray *xa, struct xa_state *spare_to)
{
	struct xa_node *head = xa->head;
	bool shrunk = false;

	while (head && head->used == 1 && is_node(head->slots[0])) {
		xa->head = to_node(head->slots[0]);
		xa->head->parent = NULL;
		if (spare_to) {
			*head = (struct xa_node){ .used = 0 };
			spare(spare_to, head);
		} else {
			mem_free(xa, head);
		}
		head = xa->head;
		shrunk = true;
	}
	return shrunk;
}

static void free_tree(struct xarray *xa, struct xa_node *node)
{
	for (unsigned int i = 0; i < XA_SLOTS; i++)
		if (is_node(node->slots[i]))
			free_tree(xa, to_node(node->slots[i]));
	mem_free(xa, node);
}

static size_t count_tree(const struct xa_node *node)
{
	size_t nr = 1;

	for (unsigned int i = 0; i < XA_SLOTS; i++)
		if (is_node(node->slots[i]))
			nr += count_tree(to_node(node->slots[i]));
	return nr;
}

void xa_init(struct xarray *xa, const struct xa_mem *mem)
{
	mutex_init(&xa->lock, LOCK_XA);
	xa->head = NULL;
	xa->mem = mem;
}

void xa_destroy(struct xarray *xa)
{
	if (xa->head)
		free_tree(xa, xa->head);
	xa->head = NULL;
	mutex_destroy(&xa->lock);
}

size_t xa_nr_nodes(const struct xarray *xa)
{
	return xa->head ? count_tree(xa->head) : 0;
}

/* Marks. */

static void mark_set(struct xa_node *node, unsigned int offset,
		     enum xa_mark mark)
{
	uint64_t bit = UINT64_C(1) << offset;

	while (node && !(node->marks[mark] & bit)) {
		node->marks[mark] |= bit;
		bit = UINT64_C(1) << node->offset;
		node = node->parent;
	}
}

static void mark_clear(struct xa_node *node, unsigned int offset,
		       enum xa_mark mark)
{
	uint64_t bit = UINT64_C(1) << offset;

	while (node && (node->marks[mark] & bit)) {
		node->marks[mark] &= ~bit;
		if (node->marks[mark])
			return;
		bit = UINT64_C(1) << node->offset;
		node = node->parent;
	}
}

static bool on_entry(const struct xa_state *xas)
{
	return !xas_invalid(xas) && xas->node->slots[xas->offset];
}

bool xas_get_mark(const struct xa_state *xas, enum xa_mark mark)
{
	return on_entry(xas) && xas->node->marks[mark] >> xas->offset & 1;
}

void xas_set_mark(const struct xa_state *xas, enum xa_mark mark)
{
	if (on_entry(xas))
		mark_set(xas->node, xas->offset, mark);
}

void xas_clear_mark(const struct xa_state *xas, enum xa_mark mark)
{
	if (on_entry(xas))
		mark_clear(xas->node, xas->offset, mark);
}

/* Walking. */

static void *stand_at(struct xa_state *xas, struct xa_node *node, uint64_t base,
		      unsigned int offset)
{
	xas->node = node;
	xas->base = base;
	xas->offset = offset;
	return node->slots[offset];
}

void *xas_load(struct xa_state *xas)
{
	struct xa_node *node = xas->xa->head;
	uint64_t index = xas->index;
	unsigned int offset;
	void *entry;

	if (xas_error(xas))
		return NULL;
	if (!node || index > node_mask(node)) {
		xas->node = XAS_BOUNDS;
		return NULL;
	}
	offset = index_offset(node, index);
	entry = node->slots[offset];
	while (is_node(entry)) {
		node = to_node(entry);
		offset = index_offset(node, index);
		entry = node->slots[offset];
	}
	if (is_sibling(entry))
		offset = to_sibling(entry);
	return stand_at(xas, node, index & ~node_mask(node), offset);
}

uint64_t xas_entry_index(const struct xa_state *xas)
{
	assert(!xas_invalid(xas));
	return xas->base + ((uint64_t)xas->offset << xas->node->shift);
}

unsigned int xas_entry_order(const struct xa_state *xas)
{
	unsigned int nr;

	assert(!xas_invalid(xas));
	nr = entry_slots(xas->node, xas->offset);
	return xas->node->shift + (unsigned int)__builtin_ctz(nr);
}

static uint64_t entry_last(const struct xa_state *xas)
{
	uint64_t nr = entry_slots(xas->node, xas->offset);

	return xas_entry_index(xas) + ((nr << xas->node->shift) - 1);
}

void xas_pause(struct xa_state *xas)
{
	uint64_t last;

	if (xas_error(xas) || xas->node == XAS_BOUNDS)
		return;
	last = on_entry(xas) ? entry_last(xas) : xas->index;
	if (last == UINT64_MAX) {
		xas->node = XAS_BOUNDS;
		return;
	}
	xas->index = last + 1;
	xas->node = XAS_RESTART;
}

/*
 * The first entry after slot xas->offset, and not after @max: any entry when
 * @mark is negative, or one that has the mark.
 */
static void *scan(struct xa_state *xas, uint64_t max, int mark)
{
	struct xa_node *node = xas->node;
	unsigned int offset = xas->offset + 1;
	uint64_t base = xas->base;

	for (;;) {
		uint64_t bits = mark < 0 ? node->used : node->marks[mark];
		uint64_t index;
		void *entry;

		bits = offset < XA_SLOTS ? bits >> offset : 0;
		if (!bits) {
			if (!node->parent)
				break;
			offset = node->offset + 1u;
			node = node->parent;
			base &= ~node_mask(node);
			continue;
		}
		offset += (unsigned int)__builtin_ctzll(bits);
		entry = node->slots[offset];
		if (is_sibling(entry)) {
			offset++;
			continue;
		}
		index = base + ((uint64_t)offset << node->shift);
		if (index > max)
			break;
		if (!is_node(entry)) {
			xas->index = index;
			return stand_at(xas, node, base, offset);
		}
		node = to_node(entry);
		base = index;
		offset = 0;
	}
	xas->node = XAS_BOUNDS;
	return NULL;
}

static void *find(struct xa_state *xas, uint64_t max, int mark)
{
	void *entry;

	if (xas_error(xas) || xas->node == XAS_BOUNDS)
		return NULL;
	if (xas->index > max) {
		xas->node = XAS_BOUNDS;
		return NULL;
	}
	if (xas->node == XAS_RESTART) {
		entry = xas_load(xas);
		if (xas_invalid(xas))
			return NULL;
		if (entry && (mark < 0 || xas_get_mark(xas, mark)))
			return entry;
	}
	return scan(xas, max, mark);
}

void *xas_find(struct xa_state *xas, uint64_t max)
{
	return find(xas, max, -1);
}

void *xas_find_marked(struct xa_state *xas, uint64_t max, enum xa_mark mark)
{
	return find(xas, max, (int)mark);
}

void *xas_find_conflict(struct xa_state *xas)
{
	uint64_t index = xas->index;
	void *entry;

	if (xas_error(xas))
		return NULL;
	/* One index: the state stays on its slot, for the store to come. */
	if (xas->order == 0)
		return xas_load(xas);
	xas_reset(xas);
	entry = xas_find(xas, xas->last);
	xas->index = index;
	return entry;
}

/* Storing. */

/* Remove the entry that the xas stands on.  It then stands on no entry. */
static void delete_entry(struct xa_state *xas)
{
	struct xa_node *node = xas->node;
	unsigned int nr = entry_slots(node, xas->offset);

	for (unsigned int m = 0; m < XA_MAX_MARKS; m++)
		mark_clear(node, xas->offset, (enum xa_mark)m);
	for (unsigned int i = 0; i < nr; i++)
		node->slots[xas->offset + i] = NULL;
	node->used &= ~slots_mask(xas->offset, nr);
	if (trim(xas->xa, node) != node)
		xas->node = XAS_RESTART;
	if (shrink(xas->xa, NULL))
		xas->node = XAS_RESTART;
}

/* Remove every entry that overlaps the range of the state. */
static void delete_range(struct xa_state *xas)
{
	uint64_t index = xas->index;

	xas_reset(xas);
	while (xas_find(xas, xas->last))
		delete_entry(xas);
	xas->index = index;
	if (xas_invalid(xas) && !xas_error(xas))
		xas_reset(xas);
}

/* Put heads on top until the tree is tall enough for the range. */
static int grow(struct xa_state *xas)
{
	struct xarray *xa = xas->xa;
	struct xa_node *head = xa->head, *node;
	unsigned int shift = xas->order / XA_SHIFT * XA_SHIFT;

	if (!head) {
		while (shift + XA_SHIFT < 64 &&
		       xas->last >> (shift + XA_SHIFT) != 0)
			shift += XA_SHIFT;
		xa->head = node_new(xas, NULL, shift, 0);
		return xa->head ? 0 : -ENOMEM;
	}
	while (xas->last > node_mask(head) || head->shift < shift) {
		node = node_new(xas, NULL, head->shift + XA_SHIFT, 0);
		if (!node)
			return -ENOMEM;
		node->slots[0] = mk_node(head);
		node->used = 1;
		for (unsigned int m = 0; m < XA_MAX_MARKS; m++)
			node->marks[m] = head->marks[m] != 0;
		head->parent = node;
		head->offset = 0;
		xa->head = head = node;
	}
	return 0;
}

/* Give up a half-built path: what it has of empty nodes goes aside. */
static void undo_create(struct xa_state *xas, struct xa_node *node)
{
	struct xarray *xa = xas->xa;

	while (node && !node->used) {
		struct xa_node *parent = node->parent;

		if (parent) {
			parent->slots[node->offset] = NULL;
			parent->used &= ~(UINT64_C(1) << node->offset);
		} else {
			xa->head = NULL;
		}
		spare(xas, node);
		node = parent;
	}
	shrink(xa, xas);
}

/*
 * Stand on the slot where an entry of the state's order belongs, making the
 * nodes that lead there.  Stops early on an entry that covers the index.
 */
static int create(struct xa_state *xas)
{
	unsigned int target = xas->order / XA_SHIFT * XA_SHIFT;
	struct xa_node *node, *child;
	unsigned int offset;
	void *entry;

	if (grow(xas)) {
		shrink(xas->xa, xas);
		return -ENOMEM;
	}
	node = xas->xa->head;
	for (;;) {
		offset = index_offset(node, xas->index);
		entry = node->slots[offset];
		if (is_sibling(entry)) {
			offset = to_sibling(entry);
			entry = node->slots[offset];
		}
		if (node->shift == target || (entry && !is_node(entry)))
			break;
		if (entry) {
			node = to_node(entry);
			continue;
		}
		child = node_new(xas, node, node->shift - XA_SHIFT, offset);
		if (!child) {
			undo_create(xas, node);
			return -ENOMEM;
		}
		node->slots[offset] = mk_node(child);
		node->used |= UINT64_C(1) << offset;
		node = child;
	}
	stand_at(xas, node, xas->index & ~node_mask(node), offset);
	return 0;
}

/* The same for one index: its slot is the entry's, or a sibling of it. */
static bool covers_index(const struct xa_state *xas)
{
	const struct xa_node *node = xas->node;
	unsigned int offset;
	const void *slot;

	if (!on_entry(xas) || (xas->index & ~node_mask(node)) != xas->base)
		return false;
	offset = index_offset(node, xas->index);
	if (offset == xas->offset)
		return true;
	slot = node->slots[offset];
	return is_sibling(slot) && to_sibling(slot) == xas->offset;
}

/* Does the entry under the xas cover all of the state's range? */
static bool covers(const struct xa_state *xas)
{
	if (xas->order == 0)
		return covers_index(xas);
	if (!on_entry(xas) || xas_entry_index(xas) > xas->index)
		return false;
	return entry_last(xas) >= xas->last;
}

/* Is this the very slot for a new entry of order 0? */
static bool is_home(const struct xa_state *xas)
{
	return !xas_invalid(xas) && xas->order == 0 && xas->node->shift == 0 &&
	       xas->base + xas->offset == xas->index &&
	       !xas->node->slots[xas->offset];
}

/* Put @entry into its slots, and throw away what was below them. */
static void fill(struct xa_state *xas, void *entry)
{
	unsigned int nr = 1u << (xas->order % XA_SHIFT);
	struct xa_node *node = xas->node;

	if (nr == 1 && !node->slots[xas->offset]) {
		node->slots[xas->offset] = entry;
		node->used |= UINT64_C(1) << xas->offset;
		return;
	}
	for (unsigned int i = xas->offset; i < xas->offset + nr; i++) {
		void *old = node->slots[i];

		if (old) {
			for (unsigned int m = 0; m < XA_MAX_MARKS; m++)
				mark_clear(node, i, (enum xa_mark)m);
			if (is_node(old))
				free_tree(xas->xa, to_node(old));
		}
		node->slots[i] =
			i == xas->offset ? entry : xa_mk_internal(xas->offset);
	}
	node->used |= slots_mask(xas->offset, nr);
}

void *xas_store(struct xa_state *xas, void *entry)
{
	bool there;
	void *old;

	if (xas_error(xas))
		return NULL;
	if (is_home(xas) && entry) {
		fill(xas, entry);
		return NULL;
	}
	there = covers(xas);
	if (!there) {
		xas_load(xas);
		there = covers(xas);
	}
	old = on_entry(xas) ? xas->node->slots[xas->offset] : NULL;
	if (there && entry) {
		xas->node->slots[xas->offset] = entry;
		return old;
	}
	if (there) {
		delete_entry(xas);
		return old;
	}
	if (is_home(xas) && entry) {
		fill(xas, entry);
		return NULL;
	}
	if (!entry) {
		delete_range(xas);
		return old;
	}
	if (create(xas))
		return NULL;
	fill(xas, entry);
	return old;
}

/* Whole operations. */

void *xa_load(struct xarray *xa, uint64_t index)
{
	XA_STATE(xas, xa, index);
	void *entry;

	xa_lock(xa);
	entry = xas_load(&xas);
	xa_unlock(xa);
	return entry;
}

int xa_store(struct xarray *xa, uint64_t index, unsigned int order, void *entry)
{
	XA_STATE_ORDER(xas, xa, index, order);

	do {
		xa_lock(xa);
		xas_store(&xas, entry);
		xa_unlock(xa);
	} while (xas_nomem(&xas));
	return xas_error(&xas);
}

void *xa_erase(struct xarray *xa, uint64_t index)
{
	XA_STATE(xas, xa, index);
	void *entry;

	xa_lock(xa);
	entry = xas_store(&xas, NULL);
	xa_unlock(xa);
	return entry;
}
