/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/tree.c - trees of slots
 *
 * Words used here.  A slot stands at a level: level 0 is one page, level n
 * covers 512^n pages.  What it points to has the same level (a node of level
 * n, or data), except that the root slot of a small file may point to
 * something lower than the edit needs; such a slot is raised by nodes whose
 * first slot leads to it.
 *
 * A slot is owned when no other tree reaches it: every node above it has one
 * share.  What an owned slot points to may be dropped or moved by us; what a
 * slot that is not owned points to also belongs to somebody else, so whoever
 * copies the slot must add a share.
 */
#include "fs/tree.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fs/layout.h"

bool slot_valid(const struct foliofs *fs, uint64_t slot, unsigned int level)
{
	uint64_t block = slot_block(slot), nr = 1;
	unsigned int lv = slot_level(slot);

	if (slot == 0)
		return true;
	if ((slot & SLOT_ZERO_MASK) || (level != TREE_ROOT && lv != level))
		return false;
	switch (slot_type(slot)) {
	case SLOT_NODE:
		if (lv < 1 || lv > NODE_MAX_LEVEL)
			return false;
		break;
	case SLOT_DATA:
	case SLOT_UNWRITTEN:
		if (lv > 1)
			return false;
		if (lv == 1) {
			if (block % CHUNK_BLOCKS != 0)
				return false;
			nr = CHUNK_BLOCKS;
		}
		break;
	default:
		return false;
	}
	/* The last block is the superblock's copy. */
	return block >= fs->data_start && block < fs->nr_blocks - 1 &&
	       nr <= fs->nr_blocks - 1 - block;
}

static bool is_node(uint64_t slot)
{
	return slot_type(slot) == SLOT_NODE;
}

static uint64_t node_off(uint64_t slot)
{
	return slot_block(slot) << BLOCK_SHIFT;
}

static uint64_t node_slot(const struct foliofs *fs, uint64_t node,
			  unsigned int i)
{
	return pmem_load64(fs->pm, node_off(node) + i * sizeof(le64));
}

static unsigned int child_index(uint64_t index, unsigned int level)
{
	return (unsigned int)(index >> ((level - 1) * NODE_SHIFT)) &
	       (NODE_SLOTS - 1);
}

static bool owned_block(const struct foliofs *fs, uint64_t block)
{
	return alloc_share(fs->al, block) == 1;
}

static int bad_slot(void)
{
	return -EUCLEAN;
}

/* Reading. */

static uint64_t clip(uint64_t nr, uint64_t max)
{
	return nr < max ? nr : max;
}

/* How many of up to @max slots from @i on continue the run that @first is. */
static uint64_t run_in_leaf(const struct foliofs *fs, uint64_t leaf,
			    unsigned int i, uint64_t max, uint64_t first)
{
	uint64_t step = slot_type(first) == SLOT_HOLE ? 0 : BLOCK_SIZE;
	uint64_t nr = 1;

	max = clip(max, NODE_SLOTS - i);
	while (nr < max &&
	       node_slot(fs, leaf, i + (unsigned int)nr) == first + nr * step)
		nr++;
	return nr;
}

static void trim_exclusive(const struct foliofs *fs, struct tree_run *run,
			   bool path_owned)
{
	uint64_t nr;

	if (run->type == SLOT_HOLE)
		return;
	run->exclusive = path_owned && owned_block(fs, run->block);
	if (!path_owned)
		return;
	for (nr = 1; nr < run->nr; nr++)
		if (owned_block(fs, run->block + nr) != run->exclusive)
			break;
	run->nr = nr;
}

int tree_lookup(const struct foliofs *fs, uint64_t root, uint64_t index,
		uint64_t max, bool want_exclusive, struct tree_run *ret_run)
{
	struct tree_run run = { .index = index, .nr = max };
	unsigned int level = slot_level(root);
	uint64_t slot = root, parent = 0, span, in;
	bool owned = true;

	if (!slot_valid(fs, root, TREE_ROOT))
		return bad_slot();
	if (root == 0 || index >= level_pages(level))
		goto done; /* a hole as long as asked for */

	while (is_node(slot)) {
		if (want_exclusive)
			owned = owned && owned_block(fs, slot_block(slot));
		parent = slot;
		slot = node_slot(fs, parent, child_index(index, level));
		level--;
		if (!slot_valid(fs, slot, level))
			return bad_slot();
	}

	span = level_pages(level);
	in = index & (span - 1);
	run.type = slot_type(slot);
	run.nr = clip(max, span - in);
	if (level == 0 && parent)
		run.nr = run_in_leaf(fs, parent, child_index(index, 1), max,
				     slot);
	if (slot) {
		run.block = slot_block(slot) + in;
		run.chunk = level == 1;
		/* The run's last block must be valid as its first one is. */
		if (run.block + run.nr > fs->nr_blocks - 1)
			return bad_slot();
	}
	if (want_exclusive)
		trim_exclusive(fs, &run, owned);
done:
	*ret_run = run;
	return 0;
}

static int count_slot(const struct foliofs *fs, uint64_t slot,
		      unsigned int level, uint64_t *pages)
{
	int ret;

	if (!slot_valid(fs, slot, level))
		return bad_slot();
	if (slot == 0)
		return 0;
	if (!is_node(slot)) {
		*pages += level_pages(slot_level(slot));
		return 0;
	}
	for (unsigned int i = 0; i < NODE_SLOTS; i++) {
		ret = count_slot(fs, node_slot(fs, slot, i),
				 slot_level(slot) - 1, pages);
		if (ret)
			return ret;
	}
	return 0;
}

int tree_count(const struct foliofs *fs, uint64_t root, uint64_t *ret_pages)
{
	uint64_t pages = 0;
	int ret = count_slot(fs, root, TREE_ROOT, &pages);

	if (!ret)
		*ret_pages = pages;
	return ret;
}

int tree_seek(const struct foliofs *fs, uint64_t root, uint64_t index,
	      uint64_t end, bool data, uint64_t *ret_index)
{
	struct tree_run run;
	int ret;

	while (index < end) {
		ret = tree_lookup(fs, root, index, end - index, false, &run);
		if (ret)
			return ret;
		if ((run.type == SLOT_DATA) == data)
			break;
		index += run.nr;
	}
	*ret_index = index < end ? index : end;
	return 0;
}

void tree_drop(struct foliofs *fs, uint64_t slot)
{
	unsigned int order = slot_order(slot);
	uint64_t child;

	if (slot == 0 || !alloc_put(fs->al, slot_block(slot), order))
		return;
	if (is_node(slot)) {
		for (unsigned int i = 0; i < NODE_SLOTS; i++) {
			child = node_slot(fs, slot, i);
			if (slot_valid(fs, child, slot_level(slot) - 1))
				tree_drop(fs, child);
			else
				fs_damaged(fs,
					   "block %ju: slot %u: bad value %#jx",
					   (uintmax_t)slot_block(slot), i,
					   (uintmax_t)child);
		}
	}
	if (is_node(slot))
		alloc_free(fs->al, slot_block(slot), order);
	else
		layout_free(fs, slot_block(slot), order);
}

/* Editing. */

struct node_buf {
	uint64_t slot[NODE_SLOTS];
};

/* Where a node's slots come from. */
enum origin {
	FROM_HOLE,
	FROM_CHUNK,  /* a 2 MiB slot, taken apart */
	FROM_LOWER,  /* a root slot that is raised */
	FROM_OWNED,  /* a node that only we reach */
	FROM_SHARED, /* a node that others reach too */
};

static const struct tree_ext *ext_at(const struct tree_edit *e,
				     unsigned int *cur, uint64_t base,
				     uint64_t span)
{
	while (*cur < e->nr_ext && e->ext[*cur].index + e->ext[*cur].nr <= base)
		(*cur)++;
	if (*cur == e->nr_ext || e->ext[*cur].index >= base + span)
		return NULL;
	return &e->ext[*cur];
}

static bool ext_covers(const struct tree_ext *ext, uint64_t base, uint64_t span)
{
	return ext->index <= base && ext->index + ext->nr >= base + span;
}

static bool all_zero(const struct node_buf *buf)
{
	for (unsigned int i = 0; i < NODE_SLOTS; i++)
		if (buf->slot[i])
			return false;
	return true;
}

static int write_node(struct tree_edit *e, const struct node_buf *buf,
		      unsigned int level, uint64_t *ret_slot)
{
	struct foliofs_node node;
	struct extent ext;
	int ret;

	ret = txn_take(e->txn, e->goal, 1, node_kind(level), &ext);
	if (ret)
		return ret;
	for (unsigned int i = 0; i < NODE_SLOTS; i++)
		node.slot[i] = cpu_to_le64(buf->slot[i]);
	pmem_write(e->txn->fs->pm, ext.start << BLOCK_SHIFT, &node,
		   sizeof(node));
	*ret_slot = slot_make(SLOT_NODE, level, ext.start);
	return 0;
}

/*
 * Are the slots of a leaf one aligned run that a single slot can replace?
 * Only the contents of files are kept in chunks.
 */
static bool is_chunk(const struct tree_edit *e, const struct node_buf *buf)
{
	uint64_t first = buf->slot[0], block = slot_block(first);

	if (e->kind != BLOCK_DATA || first == 0 || is_node(first) ||
	    block % CHUNK_BLOCKS != 0 ||
	    buf->slot[NODE_SLOTS - 1] != first + (NODE_SLOTS - 1) * BLOCK_SIZE)
		return false;
	for (unsigned int i = 0; i < NODE_SLOTS; i++)
		if (buf->slot[i] != first + i * BLOCK_SIZE ||
		    !owned_block(e->fs, block + i))
			return false;
	return true;
}

/* One 2 MiB slot for 512 small ones: the shares move to the chunk. */
static int collapse(struct tree_edit *e, const struct node_buf *buf,
		    uint64_t *ret_slot)
{
	uint64_t slot =
		slot_make(slot_type(buf->slot[0]), 1, slot_block(buf->slot[0]));
	int ret;

	ret = txn_get(e->txn, slot);
	if (!ret)
		ret = txn_drop(e->txn, slot, DROP_BLOCKS);
	if (!ret)
		*ret_slot = slot;
	return ret;
}

/*
 * What stands at @level over page @index of the source.  A slot of a chunk is
 * taken apart; a root that is lower than @level is answered as *ret_low.
 */
static int source_slot(struct tree_edit *e, uint64_t index, unsigned int level,
		       uint64_t *ret_slot, bool *ret_low)
{
	unsigned int lv = slot_level(e->source);
	uint64_t slot = e->source;

	*ret_low = lv < level && index == 0 && slot != 0;
	*ret_slot = 0;
	if (slot == 0 || *ret_low || index >= level_pages(lv))
		return 0;
	while (lv > level && is_node(slot)) {
		slot = node_slot(e->fs, slot, child_index(index, lv));
		if (!slot_valid(e->fs, slot, --lv))
			return bad_slot();
	}
	if (lv > level && slot)
		slot = slot_make(slot_type(slot), level,
				 slot_block(slot) +
					 (index & (level_pages(lv) - 1)));
	*ret_slot = slot;
	return 0;
}

/* A copy of one page, where its block can have no more shares. */
static int copy_page(struct tree_edit *e, uint64_t slot, uint64_t *ret_slot)
{
	struct pmem *pm = e->txn->fs->pm;
	struct extent ext;
	int ret;

	ret = txn_take(e->txn, e->goal, 1, e->kind, &ext);
	if (ret)
		return ret;
	if (slot_type(slot) == SLOT_DATA)
		pmem_copy(pm, ext.start << BLOCK_SHIFT, node_off(slot),
			  BLOCK_SIZE);
	*ret_slot = slot_make(slot_type(slot), 0, ext.start);
	return 0;
}

static int share(struct tree_edit *e, const struct tree_ext *ext,
		 unsigned int level, uint64_t base, uint64_t *ret_slot);

/* A node of the source's slots, where they cannot be shared as one. */
static int share_node(struct tree_edit *e, const struct tree_ext *ext,
		      unsigned int level, uint64_t base, uint64_t *ret_slot)
{
	uint64_t span = level_pages(level - 1);
	struct node_buf buf;
	int ret;

	for (unsigned int i = 0; i < NODE_SLOTS; i++) {
		ret = share(e, ext, level - 1, base + i * span, &buf.slot[i]);
		if (ret)
			return ret;
	}
	*ret_slot = 0;
	return all_zero(&buf) ? 0 : write_node(e, &buf, level, ret_slot);
}

static int share(struct tree_edit *e, const struct tree_ext *ext,
		 unsigned int level, uint64_t base, uint64_t *ret_slot)
{
	uint64_t from = ext->block + (base - ext->index);
	uint64_t slot, pages = 0;
	bool low;
	int ret;

	if (from & (level_pages(level) - 1))
		return share_node(e, ext, level, base, ret_slot);
	ret = source_slot(e, from, level, &slot, &low);
	if (ret)
		return ret;
	if (low)
		return share_node(e, ext, level, base, ret_slot);
	*ret_slot = slot;
	if (slot == 0)
		return 0;
	ret = txn_get(e->txn, slot);
	if (ret == -EMLINK)
		return level ? share_node(e, ext, level, base, ret_slot)
			     : copy_page(e, slot, ret_slot);
	if (!ret && !e->no_count)
		ret = count_slot(e->fs, slot, level, &pages);
	e->pages += (int64_t)pages;
	return ret;
}

/* A subtree for one extent, of nothing but new blocks. */
static int build(struct tree_edit *e, const struct tree_ext *ext,
		 unsigned int level, uint64_t base, uint64_t *ret_slot)
{
	uint64_t span = level_pages(level);
	uint64_t block = ext->block + (base - ext->index);
	struct node_buf buf;
	int ret;

	if (ext->share)
		return share(e, ext, level, base, ret_slot);
	if (ext->type == SLOT_HOLE) {
		*ret_slot = 0;
		return 0;
	}
	if (level == 0 || (level == 1 && ext->chunk)) {
		e->pages += (int64_t)span;
		*ret_slot = slot_make(ext->type, level, block);
		return 0;
	}
	for (unsigned int i = 0; i < NODE_SLOTS; i++) {
		ret = build(e, ext, level - 1,
			    base + i * level_pages(level - 1), &buf.slot[i]);
		if (ret)
			return ret;
	}
	if (level == 1 && is_chunk(e, &buf))
		return collapse(e, &buf, ret_slot);
	return write_node(e, &buf, level, ret_slot);
}

static int edit_slot(struct tree_edit *e, unsigned int *cur, uint64_t slot,
		     unsigned int level, uint64_t base, bool owned,
		     uint64_t *ret_slot);

static int load_node(struct tree_edit *e, uint64_t slot, unsigned int level,
		     bool owned, struct node_buf *buf, enum origin *ret_from)
{
	memset(buf, 0, sizeof(*buf));
	if (slot == 0) {
		*ret_from = FROM_HOLE;
		return 0;
	}
	if (!slot_valid(e->fs, slot, TREE_ROOT))
		return bad_slot();
	if (slot_level(slot) < level) {
		/* Only a root is lower than its place, and a root is owned. */
		if (!owned)
			return bad_slot();
		buf->slot[0] = slot;
		*ret_from = FROM_LOWER;
		return 0;
	}
	if (slot_level(slot) != level)
		return bad_slot();
	if (!is_node(slot)) {
		for (unsigned int i = 0; i < NODE_SLOTS; i++)
			buf->slot[i] = slot_make(slot_type(slot), 0,
						 slot_block(slot) + i);
		*ret_from = FROM_CHUNK;
		return 0;
	}
	for (unsigned int i = 0; i < NODE_SLOTS; i++)
		buf->slot[i] = node_slot(e->fs, slot, i);
	*ret_from = owned && owned_block(e->fs, slot_block(slot)) ? FROM_OWNED
								  : FROM_SHARED;
	return 0;
}

/* Slots that a copy keeps have one more place that points to them. */
static int get_kept(struct tree_edit *e, const struct node_buf *buf,
		    const struct node_buf *old)
{
	int ret;

	for (unsigned int i = 0; i < NODE_SLOTS; i++) {
		if (buf->slot[i] == 0 ||
		    slot_block(buf->slot[i]) != slot_block(old->slot[i]))
			continue;
		ret = txn_get(e->txn, buf->slot[i]);
		if (ret)
			return ret;
	}
	return 0;
}

/* The slot that led to the old node goes; what the node held was moved. */
static int drop_origin(struct tree_edit *e, uint64_t slot, enum origin from,
		       bool owned)
{
	switch (from) {
	case FROM_OWNED:
		return txn_drop(e->txn, slot, DROP_NODE);
	case FROM_CHUNK:
	case FROM_SHARED:
		return owned ? txn_drop(e->txn, slot, DROP_DEEP) : 0;
	case FROM_HOLE:
	case FROM_LOWER:
		break;
	}
	return 0;
}

static void set_slot(struct tree_edit *e, uint64_t slot, unsigned int i,
		     uint64_t value)
{
	if (value != node_slot(e->fs, slot, i))
		txn_set64(e->txn, node_off(slot) + i * sizeof(le64), value);
}

/* Store the few slots that changed where they are. */
static void edit_in_place(struct tree_edit *e, uint64_t slot,
			  const struct node_buf *buf,
			  const struct node_buf *old)
{
	for (unsigned int i = 0; i < NODE_SLOTS; i++)
		if (buf->slot[i] != old->slot[i])
			txn_set64(e->txn, node_off(slot) + i * sizeof(le64),
				  buf->slot[i]);
}

static int finish_node(struct tree_edit *e, uint64_t slot, unsigned int level,
		       bool owned, enum origin from, const struct node_buf *buf,
		       const struct node_buf *old, uint64_t *ret_slot)
{
	int ret;

	if (all_zero(buf)) {
		*ret_slot = 0;
		return drop_origin(e, slot, from, owned);
	}
	if (from == FROM_CHUNK || from == FROM_SHARED) {
		ret = get_kept(e, buf, old);
		if (ret)
			return ret;
	} else if (level == 1 && is_chunk(e, buf)) {
		ret = collapse(e, buf, ret_slot);
		return ret ? ret : drop_origin(e, slot, from, owned);
	}
	ret = write_node(e, buf, level, ret_slot);
	return ret ? ret : drop_origin(e, slot, from, owned);
}

/* Slots of a node that an edit looks at one by one. */
#define FEW_SLOTS 4u

/* Slots [first, first + nr) of a node. */
struct few {
	unsigned int first, nr;
};

/* The block of slot @i of a leaf, when the extent will have been put there. */
static uint64_t block_after(const struct tree_edit *e,
			    const struct tree_ext *ext, uint64_t slot,
			    uint64_t base, unsigned int i)
{
	uint64_t index = base + i;

	if (!ext->reuse && ext->index <= index && index < ext->index + ext->nr)
		return ext->block + (index - ext->index);
	return slot_block(node_slot(e->fs, slot, i));
}

/*
 * Does the edit put one extent into few slots of an owned node, and leave no
 * chunk behind?  Then all the other slots need not be looked at.
 */
static bool is_few(const struct tree_edit *e, unsigned int cur, uint64_t slot,
		   unsigned int level, uint64_t base, struct few *ret)
{
	uint64_t span = level_pages(level - 1), from, to;
	const struct tree_ext *ext = &e->ext[cur];

	if (cur + 1 != e->nr_ext || ext->share || ext->type == SLOT_HOLE ||
	    !slot_valid(e->fs, slot, TREE_ROOT) || !is_node(slot) ||
	    slot_level(slot) != level || !owned_block(e->fs, slot_block(slot)))
		return false;
	from = ext->index > base ? ext->index - base : 0;
	to = ext->index + ext->nr - base;
	if (to > NODE_SLOTS * span)
		to = NODE_SLOTS * span;
	ret->first = (unsigned int)(from / span);
	ret->nr = (unsigned int)((to - 1) / span) + 1 - ret->first;
	if (ret->nr > FEW_SLOTS)
		return false;
	if (level > 1)
		return true;
	return block_after(e, ext, slot, base, NODE_SLOTS - 1) !=
	       block_after(e, ext, slot, base, 0) + NODE_SLOTS - 1;
}

static int edit_few(struct tree_edit *e, unsigned int *cur, uint64_t slot,
		    unsigned int level, uint64_t base, const struct few *few,
		    uint64_t *ret_slot)
{
	uint64_t span = level_pages(level - 1), new_slot[FEW_SLOTS];
	struct node_buf buf, old;
	enum origin from;
	int ret;

	for (unsigned int i = 0; i < few->nr; i++) {
		ret = edit_slot(e, cur, node_slot(e->fs, slot, few->first + i),
				level - 1, base + (few->first + i) * span, true,
				&new_slot[i]);
		if (ret)
			return ret;
	}
	*ret_slot = slot;
	if (few->nr + e->keep_words <= txn_room(e->txn)) {
		for (unsigned int i = 0; i < few->nr; i++)
			set_slot(e, slot, few->first + i, new_slot[i]);
		return 0;
	}
	ret = load_node(e, slot, level, true, &old, &from);
	if (ret)
		return ret;
	buf = old;
	memcpy(&buf.slot[few->first], new_slot, few->nr * sizeof(*new_slot));
	return finish_node(e, slot, level, true, from, &buf, &old, ret_slot);
}

static int edit_node(struct tree_edit *e, unsigned int *cur, uint64_t slot,
		     unsigned int level, uint64_t base, bool owned,
		     uint64_t *ret_slot)
{
	uint64_t span = level_pages(level - 1);
	unsigned int nr_changed = 0;
	struct node_buf buf, old;
	enum origin from;
	struct few few;
	bool below;
	int ret;

	if (owned && is_few(e, *cur, slot, level, base, &few))
		return edit_few(e, cur, slot, level, base, &few, ret_slot);
	ret = load_node(e, slot, level, owned, &old, &from);
	if (ret)
		return ret;
	buf = old;
	below = from == FROM_OWNED || from == FROM_LOWER || from == FROM_HOLE;
	for (unsigned int i = 0; i < NODE_SLOTS; i++) {
		uint64_t at = base + i * span;

		if (!ext_at(e, cur, at, span) &&
		    !(i == 0 && from == FROM_LOWER)) {
			const struct tree_ext *next =
				*cur < e->nr_ext ? &e->ext[*cur] : NULL;

			/* Go on where the next extent starts. */
			if (!next || next->index >= base + NODE_SLOTS * span)
				break;
			i = (unsigned int)((next->index - base) / span) - 1;
			continue;
		}
		ret = edit_slot(e, cur, old.slot[i], level - 1, at, below,
				&buf.slot[i]);
		if (ret)
			return ret;
		nr_changed += buf.slot[i] != old.slot[i];
	}
	if (nr_changed == 0 && from != FROM_LOWER) {
		*ret_slot = slot;
		return 0;
	}
	if (from == FROM_OWNED &&
	    nr_changed + e->keep_words <= txn_room(e->txn) && !all_zero(&buf) &&
	    !(level == 1 && is_chunk(e, &buf))) {
		edit_in_place(e, slot, &buf, &old);
		*ret_slot = slot;
		return 0;
	}
	return finish_node(e, slot, level, owned, from, &buf, &old, ret_slot);
}

/*
 * Does the source have the same there already?  Then all of it stays as it is,
 * with the share that it has.
 */
static int shared_already(struct tree_edit *e, const struct tree_ext *ext,
			  uint64_t slot, unsigned int level, uint64_t base,
			  bool *ret)
{
	uint64_t from = ext->block + (base - ext->index), other;
	bool low;
	int err;

	*ret = false;
	if (!ext->share || from & (level_pages(level) - 1))
		return 0;
	err = source_slot(e, from, level, &other, &low);
	*ret = !err && !low && other == slot;
	return err;
}

/* Everything under @slot is replaced by a piece of one extent. */
static int replace_slot(struct tree_edit *e, const struct tree_ext *ext,
			uint64_t slot, unsigned int level, uint64_t base,
			bool owned, uint64_t *ret_slot)
{
	uint64_t pages = 0;
	bool already;
	int ret;

	ret = shared_already(e, ext, slot, level, base, &already);
	if (ret)
		return ret;
	if (already) {
		*ret_slot = slot;
		return 0;
	}
	if (slot) {
		ret = e->no_count ? 0
				  : count_slot(e->fs, slot, TREE_ROOT, &pages);
		if (ret)
			return ret;
		e->pages -= (int64_t)pages;
		if (owned) {
			ret = txn_drop(e->txn, slot, DROP_DEEP);
			if (ret)
				return ret;
		}
	}
	return build(e, ext, level, base, ret_slot);
}

static int edit_slot(struct tree_edit *e, unsigned int *cur, uint64_t slot,
		     unsigned int level, uint64_t base, bool owned,
		     uint64_t *ret_slot)
{
	uint64_t span = level_pages(level);
	const struct tree_ext *ext = ext_at(e, cur, base, span);
	bool low = slot && slot_level(slot) < level;

	if (!ext && !low) {
		*ret_slot = slot;
		return 0;
	}
	if (ext && ext_covers(ext, base, span)) {
		if (!ext->reuse)
			return replace_slot(e, ext, slot, level, base, owned,
					    ret_slot);
		if (slot && !is_node(slot) && !low) {
			/* The same blocks under another type. */
			*ret_slot =
				slot_make(ext->type, level, slot_block(slot));
			return 0;
		}
	}
	if (level == 0)
		return bad_slot(); /* reuse of a page that has no block */
	return edit_node(e, cur, slot, level, base, owned, ret_slot);
}

static unsigned int level_for(uint64_t index)
{
	unsigned int level = 0;

	while (index >= level_pages(level))
		level++;
	return level;
}

int tree_edit(struct tree_edit *e, uint64_t root, uint64_t *ret_root)
{
	unsigned int level = slot_level(root), need, cur = 0;

	if (!slot_valid(e->fs, root, TREE_ROOT))
		return bad_slot();
	for (unsigned int i = 0; i < e->nr_ext; i++) {
		const struct tree_ext *ext = &e->ext[i];

		if (ext->type == SLOT_HOLE)
			continue;
		need = level_for(ext->index + ext->nr - 1);
		if (need > level)
			level = need;
	}
	assert(level <= NODE_MAX_LEVEL);
	return edit_slot(e, &cur, root, level, 0, true, ret_root);
}
