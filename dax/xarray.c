/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/xarray.c - an array of values with very large indices
 *
 * An entry of order n sits in the node whose slots are the largest that are
 * not larger than it.  When it needs several slots of that node, the first
 * holds the entry and the others hold sibling entries that name the first.
 * Marks are kept for first slots only.
 *
 * Most nodes are either nearly empty or nearly full, so there are two sizes.
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

/* Place of slot @offset in a small node: the used slots before it. */
static unsigned int rank(const struct xa_node *node, unsigned int offset)
{
	uint64_t below = node->used & ((UINT64_C(1) << offset) - 1);
	unsigned int nr = 0;

	for (; below; below &= below - 1)
		nr++;
	return nr;
}

static bool is_used(const struct xa_node *node, unsigned int offset)
{
	return node->used >> offset & 1;
}

static inline void *slot(const struct xa_node *node, unsigned int offset)
{
	if (node->wide)
		return node->slots[offset];
	return is_used(node, offset) ? node->slots[rank(node, offset)] : NULL;
}

/* Is there room in @node for the slots of @mask as well? */
static bool has_room(const struct xa_node *node, uint64_t mask)
{
	uint64_t used = node->used | mask;
	unsigned int nr = 0;

	for (; used && !node->wide && nr <= XA_SMALL_SLOTS; used &= used - 1)
		nr++;
	return nr <= XA_SMALL_SLOTS;
}

/* Needs room, if the slot is not used. */
static void set_slot(struct xa_node *node, unsigned int offset, void *entry)
{
	unsigned int i = node->wide ? offset : rank(node, offset);

	if (!node->wide && !is_used(node, offset))
		for (unsigned int k = XA_SMALL_SLOTS - 1; k > i; k--)
			node->slots[k] = node->slots[k - 1];
	node->slots[i] = entry;
	node->used |= UINT64_C(1) << offset;
}

static void clear_slot(struct xa_node *node, unsigned int offset)
{
	unsigned int i = node->wide ? offset : rank(node, offset);

	if (!is_used(node, offset))
		return;
	if (!node->wide)
		for (; i < XA_SMALL_SLOTS - 1; i++)
			node->slots[i] = node->slots[i + 1];
	node->slots[i] = NULL;
	node->used &= ~(UINT64_C(1) << offset);
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

	while (offset + nr < XA_SLOTS &&
	       slot(node, offset + nr) == xa_mk_internal(offset))
		nr++;
	return nr;
}

static uint64_t slots_mask(unsigned int offset, unsigned int nr)
{
	return (nr == XA_SLOTS ? UINT64_MAX : (UINT64_C(1) << nr) - 1)
	       << offset;
}

/* Nodes, and the memory for them. */

static void *mem_alloc(const struct xarray *xa, bool wide, bool may_wait)
{
	size_t nr = wide ? XA_SLOTS : XA_SMALL_SLOTS;
	size_t size = sizeof(struct xa_node) + nr * sizeof(void *);
	struct xa_node *node;

	if (xa->mem)
		node = xa->mem->alloc(xa->mem->ctx, size, may_wait);
	else
		node = calloc(1, size);
	if (node)
		node->wide = wide;
	return node;
}

static void mem_free(const struct xarray *xa, struct xa_node *node)
{
	if (xa->mem)
		xa->mem->free(xa->mem->ctx, node);
	else
		free(node);
}

static struct xa_node *node_new(struct xa_state *xas, struct xa_node *parent,
				unsigned int shift, unsigned int offset,
				bool wide)
{
	struct xa_node *node = xas->spare;

	if (node) { /* these are all wide */
		xas->spare = node->parent;
		xas->nr_spare--;
	} else {
		node = mem_alloc(xas->xa, wide, false);
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

/* A wide node in the place of a small one, or NULL. */
static struct xa_node *widen(struct xa_state *xas, struct xa_node *small)
{
	struct xa_node *node =
		node_new(xas, small->parent, small->shift, small->offset, true);

	if (!node)
		return NULL;
	for (uint64_t left = small->used; left; left &= left - 1) {
		unsigned int i = (unsigned int)__builtin_ctzll(left);
		void *entry = slot(small, i);

		set_slot(node, i, entry);
		if (is_node(entry))
			to_node(entry)->parent = node;
	}
	for (unsigned int m = 0; m < XA_MAX_MARKS; m++)
		node->marks[m] = small->marks[m];
	if (node->parent)
		set_slot(node->parent, node->offset, mk_node(node));
	else
		xas->xa->head = node;
	mem_free(xas->xa, small);
	return node;
}

bool xas_nomem(struct xa_state *xas)
{
	struct xa_node *node = NULL;

	if (xas_error(xas) == -ENOMEM && xas->nr_spare < MAX_NEW)
		node = mem_alloc(xas->xa, true, true);
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
		clear_slot(parent, node->offset);
		mem_free(xa, node);
		node = parent;
	}
	return node;
}

/*
 * Keep a node for the next try, whose slots are all empty.  Small ones are not
 * kept, because the next try may need a wide one.
 */
static void spare(struct xa_state *xas, struct xa_node *node)
{
	if (!node->wide) {
		mem_free(xas->xa, node);
		return;
	}
	node->parent = xas->spare;
	xas->spare = node;
	xas->nr_spare++;
}

/* Make the head as low as it can be; (4).  True if it went lower. */
static bool shrink(struct xarray *xa, struct xa_state *spare_to)
{
	struct xa_node *head = xa->head;
	bool shrunk = false;

	while (head && head->used == 1 && is_node(slot(head, 0))) {
		xa->head = to_node(slot(head, 0));
		xa->head->parent = NULL;
		if (spare_to) {
			clear_slot(head, 0);
			for (unsigned int m = 0; m < XA_MAX_MARKS; m++)
				head->marks[m] = 0;
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
		if (is_node(slot(node, i)))
			free_tree(xa, to_node(slot(node, i)));
	mem_free(xa, node);
}

static size_t count_tree(const struct xa_node *node)
{
	size_t nr = 1;

	for (unsigned int i = 0; i < XA_SLOTS; i++)
		if (is_node(slot(node, i)))
			nr += count_tree(to_node(slot(node, i)));
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
	return !xas_invalid(xas) && is_used(xas->node, xas->offset);
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
	return slot(node, offset);
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
	entry = slot(node, offset);
	while (is_node(entry)) {
		node = to_node(entry);
		offset = index_offset(node, index);
		entry = slot(node, offset);
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
		entry = slot(node, offset);
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
		clear_slot(node, xas->offset + i);
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
		xa->head = node_new(xas, NULL, shift, 0, false);
		return xa->head ? 0 : -ENOMEM;
	}
	while (xas->last > node_mask(head) || head->shift < shift) {
		node = node_new(xas, NULL, head->shift + XA_SHIFT, 0, false);
		if (!node)
			return -ENOMEM;
		set_slot(node, 0, mk_node(head));
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
			clear_slot(parent, node->offset);
		} else {
			xa->head = NULL;
		}
		spare(xas, node);
		node = parent;
	}
	shrink(xa, xas);
}

/* Neighbours come together: wide at once if the slot before is in use. */
static bool likely_wide(const struct xa_node *parent, unsigned int offset)
{
	return offset > 0 && is_used(parent, offset - 1);
}

/* Make a child of @node at @offset, and the room for it. */
static struct xa_node *create_child(struct xa_state *xas, struct xa_node *node,
				    unsigned int offset)
{
	bool wide = likely_wide(node, offset);
	struct xa_node *child = NULL, *roomy = node;

	if (!has_room(node, UINT64_C(1) << offset))
		roomy = widen(xas, node);
	if (roomy)
		child = node_new(xas, roomy, roomy->shift - XA_SHIFT, offset,
				 wide);
	if (!child) {
		undo_create(xas, roomy ? roomy : node);
		return NULL;
	}
	set_slot(roomy, offset, mk_node(child));
	return child;
}

/*
 * Stand on the slot where an entry of the state's order belongs, making the
 * nodes that lead there and the room that it needs.  Stops early on an entry
 * that covers the index.
 */
static int create(struct xa_state *xas)
{
	unsigned int target = xas->order / XA_SHIFT * XA_SHIFT;
	unsigned int nr = 1u << (xas->order % XA_SHIFT), offset;
	struct xa_node *node, *roomy;
	void *entry;

	if (grow(xas)) {
		shrink(xas->xa, xas);
		return -ENOMEM;
	}
	node = xas->xa->head;
	for (;;) {
		offset = index_offset(node, xas->index);
		entry = slot(node, offset);
		if (is_sibling(entry)) {
			offset = to_sibling(entry);
			entry = slot(node, offset);
		}
		if (node->shift == target || (entry && !is_node(entry)))
			break;
		node = entry ? to_node(entry) : create_child(xas, node, offset);
		if (!node)
			return -ENOMEM;
	}
	if (!has_room(node, slots_mask(offset, nr))) {
		roomy = widen(xas, node);
		if (!roomy) {
			undo_create(xas, node);
			return -ENOMEM;
		}
		node = roomy;
	}
	stand_at(xas, node, xas->index & ~node_mask(node), offset);
	return 0;
}

/* The same for one index: its slot is the entry's, or a sibling of it. */
static bool covers_index(const struct xa_state *xas)
{
	const struct xa_node *node = xas->node;
	unsigned int offset;
	const void *entry;

	if (!on_entry(xas) || (xas->index & ~node_mask(node)) != xas->base)
		return false;
	offset = index_offset(node, xas->index);
	if (offset == xas->offset)
		return true;
	entry = slot(node, offset);
	return is_sibling(entry) && to_sibling(entry) == xas->offset;
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
	       !is_used(xas->node, xas->offset) &&
	       has_room(xas->node, UINT64_C(1) << xas->offset);
}

/* Put @entry into its slots, and throw away what was below them. */
static void fill(struct xa_state *xas, void *entry)
{
	unsigned int nr = 1u << (xas->order % XA_SHIFT);
	struct xa_node *node = xas->node;

	for (unsigned int i = xas->offset; i < xas->offset + nr; i++) {
		void *old = slot(node, i);

		if (old) {
			for (unsigned int m = 0; m < XA_MAX_MARKS; m++)
				mark_clear(node, i, (enum xa_mark)m);
			if (is_node(old))
				free_tree(xas->xa, to_node(old));
		}
		set_slot(node, i,
			 i == xas->offset ? entry
					  : xa_mk_internal(xas->offset));
	}
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
	old = on_entry(xas) ? slot(xas->node, xas->offset) : NULL;
	if (there && entry) {
		set_slot(xas->node, xas->offset, entry);
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
