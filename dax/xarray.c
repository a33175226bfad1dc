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
 * Below LIST_SHIFT a subtree begins as a list of its entries, which doubles
 * when it is full and becomes nodes when it is long, when its entries come in
 * runs, or when an entry of another order is stored there.  A tree does not
 * go back to lists until it is empty: entries that went are likely to return.
 *
 * The keys of a list are in order.  An entry that is removed leaves its key,
 * so that a walk that removes goes on where it was; what comes next to it
 * takes its place.
 *
 * Invariants:
 * (1) a node other than the head is never empty;
 * (2) bit i of used is set if and only if slot or place i is not NULL;
 * (3) bit i of a mark is set for a node in slot i if and only if that node
 *     has the mark set anywhere;
 * (4) the head is as low as the largest index allows, unless it is a list;
 * (5) a list holds entries of order 0 and no nodes, and is not at shift 0.
 */
#include "dax/xarray.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Nodes that a store can need at most: one for each six bits of an index, a
 * wide one instead of each, and what the entries of one list are spread over.
 */
#define MAX_NEW (2 * 11u + LIST_MAX + 11u)

/*
 * The shortest and the longest list.  A longer one takes longer to search than
 * a node.
 */
#define LIST_MIN 4u
#define LIST_MAX 64u

/* Words of slots of a node that can be of any kind. */
#define ROOMY (LIST_MAX + LIST_MAX / 2)

/* The highest list.  Its keys must fit 32 bits, and NO_KEY be none of them. */
#define LIST_SHIFT 24u
#define NO_KEY	   UINT32_MAX

/* Entries for each node of shift 0 from which on a list is one of runs. */
#define RUN 4u

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

/* Of words with few bits. */
static unsigned int nr_bits(uint64_t word)
{
	unsigned int nr = 0;

	for (; word; word &= word - 1)
		nr++;
	return nr;
}

/* Place of slot @offset in a small node: the used slots before it. */
static unsigned int rank(const struct xa_node *node, unsigned int offset)
{
	return nr_bits(node->used & ((UINT64_C(1) << offset) - 1));
}

static bool is_used(const struct xa_node *node, unsigned int offset)
{
	return offset < XA_SLOTS && (node->used >> offset & 1);
}

static bool is_list(const struct xa_node *node)
{
	return node->kind == XA_LIST;
}

static uint32_t *list_keys(const struct xa_node *list)
{
	return (uint32_t *)(uintptr_t)list->slots;
}

static void **list_entries(const struct xa_node *list)
{
	return (void **)(uintptr_t)&list->slots[list->size / 2];
}

static inline void *slot(const struct xa_node *node, unsigned int offset)
{
	if (node->kind == XA_WIDE)
		return node->slots[offset];
	if (!is_used(node, offset))
		return NULL;
	return is_list(node) ? list_entries(node)[offset]
			     : node->slots[rank(node, offset)];
}

/* Is there room in @node, which is no list, for the slots of @mask as well? */
static bool has_room(const struct xa_node *node, uint64_t mask)
{
	uint64_t used = node->used | mask;

	return node->kind == XA_WIDE || nr_bits(used) <= XA_SMALL_SLOTS;
}

/* Needs room, if the slot is not used.  A place of a list is. */
static void set_slot(struct xa_node *node, unsigned int offset, void *entry)
{
	bool small = node->kind == XA_SMALL;
	unsigned int i = small ? rank(node, offset) : offset;

	if (is_list(node)) {
		list_entries(node)[offset] = entry;
		return;
	}
	if (small && !is_used(node, offset))
		for (unsigned int k = XA_SMALL_SLOTS - 1; k > i; k--)
			node->slots[k] = node->slots[k - 1];
	node->slots[i] = entry;
	node->used |= UINT64_C(1) << offset;
}

static void clear_slot(struct xa_node *node, unsigned int offset)
{
	bool small = node->kind == XA_SMALL;
	unsigned int i = small ? rank(node, offset) : offset;

	if (!is_used(node, offset))
		return;
	node->used &= ~(UINT64_C(1) << offset);
	if (is_list(node))
		return;
	if (small)
		for (; i < XA_SMALL_SLOTS - 1; i++)
			node->slots[i] = node->slots[i + 1];
	node->slots[i] = NULL;
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

/* First index of slot or place @offset of the node that begins at @base. */
static uint64_t index_at(const struct xa_node *node, uint64_t base,
			 unsigned int offset)
{
	if (is_list(node))
		return base + list_keys(node)[offset];
	return base + ((uint64_t)offset << node->shift);
}

/* Slots that the entry in @offset has, its siblings included. */
static unsigned int entry_slots(const struct xa_node *node, unsigned int offset)
{
	unsigned int nr = 1;

	while (!is_list(node) && offset + nr < XA_SLOTS &&
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

static void *mem_alloc(const struct xarray *xa, size_t nr_words, bool may_wait)
{
	size_t size = sizeof(struct xa_node) + nr_words * sizeof(void *);
	struct xa_node *node;

	if (xa->mem)
		node = xa->mem->alloc(xa->mem->ctx, size, may_wait);
	else /* calloc() goes past the thread's cache of glibc 2.36 */
		node = malloc(size);
	if (node && !xa->mem)
		memset(node, 0, size);
	if (node)
		node->roomy = nr_words == ROOMY;
	return node;
}

static void mem_free(const struct xarray *xa, struct xa_node *node)
{
	if (xa->mem)
		xa->mem->free(xa->mem->ctx, node);
	else
		free(node);
}

/* Words of slots that a node of @kind has; @size is for lists. */
static size_t kind_words(enum xa_kind kind, unsigned int size)
{
	switch (kind) {
	case XA_SMALL:
		return XA_SMALL_SLOTS;
	case XA_LIST:
		return size + size / 2;
	case XA_WIDE:
		break;
	}
	return XA_SLOTS;
}

/* An empty node for the place of another, or for one that is free. */
struct place {
	struct xa_node *parent;
	unsigned int shift;
	unsigned int offset;
};

static struct xa_node *node_new(struct xa_state *xas, struct place at,
				enum xa_kind kind, unsigned int size)
{
	struct xa_node *node = xas->spare;

	if (node) { /* these are all roomy */
		xas->spare = node->parent;
		xas->nr_spare--;
	} else {
		node = mem_alloc(xas->xa, kind_words(kind, size), false);
	}
	if (!node) {
		xas_set_err(xas, -ENOMEM);
		return NULL;
	}
	node->shift = (uint8_t)at.shift;
	node->offset = (uint8_t)at.offset;
	node->parent = at.parent;
	node->kind = (uint8_t)kind;
	node->size = (uint8_t)size;
	if (kind == XA_LIST)
		for (unsigned int i = 0; i < size; i++)
			list_keys(node)[i] = NO_KEY;
	return node;
}

static struct place place_of(const struct xa_node *node)
{
	return (struct place){ node->parent, node->shift, node->offset };
}

static struct place child_place(struct xa_node *parent, unsigned int offset)
{
	return (struct place){ parent, parent->shift - XA_SHIFT, offset };
}

/* Let @node, which was made for it, take the place of @old. */
static void replace_node(struct xarray *xa, struct xa_node *old,
			 struct xa_node *node)
{
	if (node->parent)
		set_slot(node->parent, node->offset, mk_node(node));
	else
		xa->head = node;
	mem_free(xa, old);
}

/* A wide node in the place of a small one, or NULL. */
static struct xa_node *widen(struct xa_state *xas, struct xa_node *small)
{
	struct xa_node *node = node_new(xas, place_of(small), XA_WIDE, 0);

	if (!node)
		return NULL;
	for (uint64_t left = small->used; left; left &= left - 1) {
		unsigned int i = (unsigned int)__builtin_ctzll(left);
		void *entry = slot(small, i);

		set_slot(node, i, entry);
		if (is_node(entry))
			to_node(entry)->parent = node;
	}
	memcpy(node->marks, small->marks, sizeof(node->marks));
	replace_node(xas->xa, small, node);
	return node;
}

bool xas_nomem(struct xa_state *xas)
{
	struct xa_node *node = NULL;

	if (xas_error(xas) == -ENOMEM && xas->nr_spare < MAX_NEW)
		node = mem_alloc(xas->xa, ROOMY, true);
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
 * Keep a node for the next try, if it has the memory for any kind that may be
 * needed then.
 */
static void spare(struct xa_state *xas, struct xa_node *node)
{
	if (!node->roomy) {
		mem_free(xas->xa, node);
		return;
	}
	memset(node, 0, sizeof(*node) + ROOMY * sizeof(void *));
	node->roomy = true;
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
		if (spare_to)
			spare(spare_to, head);
		else
			mem_free(xa, head);
		head = xa->head;
		shrunk = true;
	}
	return shrunk;
}

static void free_tree(struct xarray *xa, struct xa_node *node)
{
	for (unsigned int i = 0; i < XA_SLOTS && !is_list(node); i++)
		if (is_node(slot(node, i)))
			free_tree(xa, to_node(slot(node, i)));
	mem_free(xa, node);
}

static size_t count_tree(const struct xa_node *node)
{
	size_t nr = 1;

	for (unsigned int i = 0; i < XA_SLOTS && !is_list(node); i++)
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

/* The first place whose key is not below @key; a power of two wide. */
static unsigned int list_search(const struct xa_node *list, uint32_t key)
{
	const uint32_t *keys = list_keys(list);
	unsigned int nr = 0;

	/* No branch depends on a key: it would be guessed wrong. */
	for (unsigned int i = 0; i < list->size; i += LIST_MIN)
		nr += (keys[i] < key) + (keys[i + 1] < key) +
		      (keys[i + 2] < key) + (keys[i + 3] < key);
	return nr;
}

/* Stand on the entry in @list, or on none: before the place for it. */
static void *load_list(struct xa_state *xas, struct xa_node *list)
{
	uint32_t key = (uint32_t)(xas->index & node_mask(list));
	unsigned int i = list_search(list, key);

	xas->node = list;
	xas->base = xas->index & ~node_mask(list);
	xas->offset = XA_SLOTS + i;
	if (i == list->size || list_keys(list)[i] != key || !is_used(list, i))
		return NULL;
	xas->offset = i;
	return list_entries(list)[i];
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
	for (;;) {
		if (is_list(node))
			return load_list(xas, node);
		offset = index_offset(node, index);
		entry = slot(node, offset);
		if (!is_node(entry))
			break;
		node = to_node(entry);
		/* The first line comes anyway; let the others come along. */
		__builtin_prefetch((const char *)node + 64);
		__builtin_prefetch((const char *)node + 128);
	}
	if (is_sibling(entry))
		offset = to_sibling(entry);
	return stand_at(xas, node, index & ~node_mask(node), offset);
}

uint64_t xas_entry_index(const struct xa_state *xas)
{
	assert(!xas_invalid(xas));
	return index_at(xas->node, xas->base, xas->offset);
}

unsigned int xas_entry_order(const struct xa_state *xas)
{
	unsigned int nr;

	assert(!xas_invalid(xas));
	if (is_list(xas->node))
		return 0;
	nr = entry_slots(xas->node, xas->offset);
	return xas->node->shift + (unsigned int)__builtin_ctz(nr);
}

static uint64_t entry_last(const struct xa_state *xas)
{
	uint64_t nr = UINT64_C(1) << xas_entry_order(xas);

	return xas_entry_index(xas) + (nr - 1);
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

/* Where a scan goes on in xas->node. */
static unsigned int next_offset(const struct xa_state *xas)
{
	return xas->offset < XA_SLOTS ? xas->offset + 1
				      : xas->offset - XA_SLOTS;
}

/*
 * The first entry after slot xas->offset, and not after @max: any entry when
 * @mark is negative, or one that has the mark.
 */
static void *scan(struct xa_state *xas, uint64_t max, int mark)
{
	struct xa_node *node = xas->node;
	unsigned int offset = next_offset(xas);
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
		index = index_at(node, base, offset);
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

/*
 * The first node of a subtree: a list if it may be one; (5).  Otherwise
 * neighbours come together: wide at once if the slot before is in use.
 */
static struct xa_node *node_begin(struct xa_state *xas, struct place at)
{
	if (xas->order == 0 && at.shift > 0 && at.shift <= LIST_SHIFT)
		return node_new(xas, at, XA_LIST, LIST_MIN);
	if (at.parent && at.offset > 0 && is_used(at.parent, at.offset - 1))
		return node_new(xas, at, XA_WIDE, 0);
	return node_new(xas, at, XA_SMALL, 0);
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
		xa->head = node_begin(xas, (struct place){ .shift = shift });
		return xa->head ? 0 : -ENOMEM;
	}
	while (xas->last > node_mask(head) || head->shift < shift) {
		/* A list is not taller for it. */
		if (is_list(head) && head->shift < LIST_SHIFT) {
			head->shift += XA_SHIFT;
			continue;
		}
		node = node_new(
			xas, (struct place){ .shift = head->shift + XA_SHIFT },
			XA_SMALL, 0);
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

/* Make a child of @node at @offset, and the room for it. */
static struct xa_node *create_child(struct xa_state *xas, struct xa_node *node,
				    unsigned int offset)
{
	struct xa_node *child = NULL, *roomy = node;

	if (!has_room(node, UINT64_C(1) << offset))
		roomy = widen(xas, node);
	if (roomy)
		child = node_begin(xas, child_place(roomy, offset));
	if (!child) {
		undo_create(xas, roomy ? roomy : node);
		return NULL;
	}
	set_slot(roomy, offset, mk_node(child));
	return child;
}

/* Lists. */

static bool list_has_room(const struct xa_node *list)
{
	return list->used != slots_mask(0, list->size);
}

/* Move @nr places and their bits from @from to @to, one off. */
static void list_move(struct xa_node *list, unsigned int to, unsigned int from,
		      unsigned int nr)
{
	uint64_t mask = slots_mask(from, nr), both = mask | slots_mask(to, nr);
	uint64_t *words[] = { &list->used, &list->marks[0], &list->marks[1],
			      &list->marks[2] };

	memmove(&list_keys(list)[to], &list_keys(list)[from],
		nr * sizeof(uint32_t));
	memmove(&list_entries(list)[to], &list_entries(list)[from],
		nr * sizeof(void *));
	for (unsigned int i = 0; i < 1 + XA_MAX_MARKS; i++) {
		uint64_t bits = *words[i] & mask;

		*words[i] &= ~both;
		*words[i] |= to > from ? bits << 1 : bits >> 1;
	}
}

/*
 * A free place at @at or before it, and room there is.  What is between there
 * and the nearest free place makes way.
 */
static unsigned int list_make_place(struct xa_node *list, unsigned int at)
{
	uint64_t holes = ~list->used & slots_mask(0, list->size);
	uint64_t above = at < list->size ? holes >> at << at : 0;
	unsigned int hole;

	if (above) {
		hole = (unsigned int)__builtin_ctzll(above);
		if (hole > at)
			list_move(list, at + 1, at, hole - at);
		return at;
	}
	hole = 63u - (unsigned int)__builtin_clzll(holes);
	if (hole < at - 1)
		list_move(list, hole, hole + 1, at - 1 - hole);
	return at - 1;
}

/* @at is what list_search() says for @key, which is not there. */
static unsigned int list_insert(struct xa_node *list, unsigned int at,
				uint32_t key, void *entry)
{
	at = list_make_place(list, at);
	list_keys(list)[at] = key;
	list_entries(list)[at] = entry;
	list->used |= UINT64_C(1) << at;
	return at;
}

/* A list of the same entries, twice as long, in the place of @list. */
static struct xa_node *list_double(struct xa_state *xas, struct xa_node *list)
{
	unsigned int size = list->size;
	struct xa_node *node = node_new(xas, place_of(list), XA_LIST, 2 * size);

	if (!node)
		return NULL;
	memcpy(list_keys(node), list_keys(list), size * sizeof(uint32_t));
	memcpy(list_entries(node), list_entries(list), size * sizeof(void *));
	node->used = list->used;
	memcpy(node->marks, list->marks, sizeof(node->marks));
	replace_node(xas->xa, list, node);
	return node;
}

/* Of a full list: would its entries fill nodes? */
static bool has_runs(const struct xa_node *list)
{
	const uint32_t *keys = list_keys(list);
	unsigned int nr = 1;

	for (unsigned int i = 1; i < list->size; i++)
		nr += keys[i] >> XA_SHIFT != keys[i - 1] >> XA_SHIFT;
	return nr * RUN <= list->size;
}

/* Shortest list, or node of shift 0, for @nr entries and one more. */
static struct xa_node *child_for(struct xa_state *xas, struct place at,
				 unsigned int nr)
{
	unsigned int size = LIST_MIN;

	if (at.shift == 0)
		return node_new(xas, at,
				nr < XA_SMALL_SLOTS ? XA_SMALL : XA_WIDE, 0);
	while (size <= nr && size < LIST_MAX)
		size *= 2;
	return node_new(xas, at, XA_LIST, size);
}

/* Put the entry and the marks of place @i of @list into @node. */
static void move_entry(struct xa_node *node, const struct xa_node *list,
		       unsigned int i)
{
	uint32_t key = list_keys(list)[i] & (uint32_t)node_mask(node);
	unsigned int offset = key;
	void *entry = list_entries(list)[i];

	if (is_list(node))
		offset = list_insert(node, list_search(node, key), key, entry);
	else
		set_slot(node, offset, entry);
	for (unsigned int m = 0; m < XA_MAX_MARKS; m++)
		if (list->marks[m] >> i & 1)
			mark_set(node, offset, (enum xa_mark)m);
}

/* How many of the places @left belong into the slot of the first of them? */
static unsigned int group_len(const struct xa_node *list, uint64_t left)
{
	const uint32_t *keys = list_keys(list);
	uint32_t first = keys[__builtin_ctzll(left)] >> list->shift;
	unsigned int nr = 0;

	for (; left; left &= left - 1, nr++)
		if (keys[__builtin_ctzll(left)] >> list->shift != first)
			break;
	return nr;
}

static void undo_spread(struct xa_state *xas, struct xa_node *node)
{
	for (unsigned int i = 0; i < XA_SLOTS; i++)
		if (is_used(node, i))
			spare(xas, to_node(slot(node, i)));
	spare(xas, node);
}

static enum xa_kind kind_for_spread(const struct xa_node *list)
{
	uint64_t used = 0;

	for (uint64_t left = list->used; left; left &= left - 1)
		used |= UINT64_C(1)
			<< (list_keys(list)[__builtin_ctzll(left)] >>
			    list->shift);
	return nr_bits(used) <= XA_SMALL_SLOTS ? XA_SMALL : XA_WIDE;
}

/*
 * A node in the place of @list, and below it the entries in shorter lists or,
 * at shift 0, nodes; or NULL.
 */
static struct xa_node *spread(struct xa_state *xas, struct xa_node *list)
{
	struct xa_node *node =
		node_new(xas, place_of(list), kind_for_spread(list), 0);
	struct xa_node *child = NULL;

	if (!node)
		return NULL;
	for (uint64_t left = list->used; left; left &= left - 1) {
		unsigned int i = (unsigned int)__builtin_ctzll(left);
		unsigned int offset = list_keys(list)[i] >> list->shift;

		if (!is_used(node, offset)) {
			child = child_for(xas, child_place(node, offset),
					  group_len(list, left));
			if (!child) {
				undo_spread(xas, node);
				return NULL;
			}
			set_slot(node, offset, mk_node(child));
		}
		move_entry(child, list, i);
	}
	replace_node(xas->xa, list, node);
	return node;
}

/* What takes the place of a list that cannot take the entry to be stored. */
static struct xa_node *list_replace(struct xa_state *xas, struct xa_node *list)
{
	if (xas->order == 0 && list->size < LIST_MAX && !has_runs(list))
		return list_double(xas, list);
	return spread(xas, list);
}

/*
 * Is @node the one for an entry of the state's order, or one with an entry
 * that covers the index?  In every case @ret_offset says where in it.
 */
static bool arrived(const struct xa_state *xas, const struct xa_node *node,
		    unsigned int *ret_offset)
{
	unsigned int target = xas->order / XA_SHIFT * XA_SHIFT;
	const void *entry;

	*ret_offset = XA_SLOTS;
	if (is_list(node))
		return xas->order == 0 && list_has_room(node);
	*ret_offset = index_offset(node, xas->index);
	entry = slot(node, *ret_offset);
	if (is_sibling(entry)) {
		*ret_offset = to_sibling(entry);
		return true;
	}
	return node->shift == target || (entry && !is_node(entry));
}

/* Room for the slots of the new entry in @node, or in the one instead. */
static struct xa_node *make_room(struct xa_state *xas, struct xa_node *node,
				 unsigned int offset)
{
	unsigned int nr = 1u << (xas->order % XA_SHIFT);
	struct xa_node *roomy;

	if (is_list(node) || has_room(node, slots_mask(offset, nr)))
		return node;
	roomy = widen(xas, node);
	if (!roomy)
		undo_create(xas, node);
	return roomy;
}

/*
 * Stand on the slot where an entry of the state's order belongs, making the
 * nodes that lead there and the room that it needs; or on a list with room for
 * it.  Stops early on an entry that covers the index.
 */
static int create(struct xa_state *xas)
{
	struct xa_node *node = grow(xas) == 0 ? xas->xa->head : NULL;
	unsigned int offset = XA_SLOTS;

	if (!node)
		shrink(xas->xa, xas);
	while (node && !arrived(xas, node, &offset)) {
		void *entry = is_list(node) ? NULL : slot(node, offset);

		if (is_list(node)) {
			node = list_replace(xas, node);
			if (!node)
				shrink(xas->xa, xas);
		} else if (entry) {
			node = to_node(entry);
		} else {
			node = create_child(xas, node, offset);
		}
	}
	if (node)
		node = make_room(xas, node, offset);
	if (!node)
		return -ENOMEM;
	if (is_list(node))
		load_list(xas, node);
	else
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
	if (is_list(node))
		return xas_entry_index(xas) == xas->index;
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

/* Is this the very slot for a new entry of order 0, or a list for it? */
static bool is_home(const struct xa_state *xas)
{
	const struct xa_node *node = xas->node;

	if (xas_invalid(xas) || xas->order > 0)
		return false;
	if (is_list(node))
		return xas->offset >= XA_SLOTS && list_has_room(node) &&
		       (xas->index & ~node_mask(node)) == xas->base;
	return node->shift == 0 && xas->base + xas->offset == xas->index &&
	       !is_used(xas->node, xas->offset) &&
	       has_room(xas->node, UINT64_C(1) << xas->offset);
}

/* Put @entry into its slots, and throw away what was below them. */
static void fill(struct xa_state *xas, void *entry)
{
	unsigned int nr = 1u << (xas->order % XA_SHIFT);
	struct xa_node *node = xas->node;

	if (is_list(node)) {
		xas->offset = list_insert(
			node, xas->offset - XA_SLOTS,
			(uint32_t)(xas->index & node_mask(node)), entry);
		return;
	}
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
