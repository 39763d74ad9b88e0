/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Structure changes: one or two neighbouring nodes are replaced by others, the root grows or shrinks
 *
 *   1  claim the old nodes; take a snapshot of their content; make that durable in the journal
 *   2  write it as new nodes into new space, cut where it is too much for one
 *   3  in one transaction: switch the parent's pointers (or the root), account for the space; under its locks what changed since the snapshot moves over
 *
 * A leaf too big for one such transaction is cut in steps (T10): the snapshot is of its front only, and the last new node is written with what of the rest lay on disk. The
 * rest was not in the snapshot, so all that is dirty there moves over in the third step as what changed since; the pin it had moves along. After each step memory, disk and
 * journal say the same as before it. The node that took the rest is dirty and too big: whoever writes it, or commits to it, has the next step made.
 *
 * The caller's transaction machinery does the third step (commit.c calls the ter_structure_*() functions), so that updates which the accounting itself makes in the
 * very node that goes are among what moves.
 *
 * For each level the journal tells the whole history of each key: the keys of a new root are journaled although nothing is to be changed for them. Else an older record of the
 * same position, of a time when the tree was as high before, would come through at replay. (The key that goes with a root which had one child left needs no record: it is at
 * the greatest position, where the next root of that level has one, too.)
 */
#include "btree/btree_priv.h"

struct part {
	uint32_t off, bytes, nr;
};

struct change {
	struct ter_btrees *bt;
	struct ter_structure st;
	bool is_root;
	unsigned snapped;       /* old nodes whose snapshot was begun */
	uint64_t newest_seq;
	uint8_t *keys;          /* of the snapshots, one after the other; behind them what the rest has on disk */
	uint32_t keys_bytes, rest_bytes, rest_nr;
	struct part part[TER_NODE_SPLIT_MAX];
	unsigned parts_nr;
	struct ter_node *new_root; /* level + 1 */
};

/* --- commit's side --- */

static struct ter_node *fresh_for(const struct ter_structure *st, struct ter_pos pos)
{
	unsigned i = 0;

	while (i + 1 < st->fresh_nr && ter_pos_cmp(st->fresh[i]->max, pos) < 0)
		i++;
	return st->fresh[i];
}

static bool is_old(const struct ter_structure *st, const struct ter_node *node)
{
	for (unsigned i = 0; i < st->old_nr; i++)
		if (st->old[i] == node)
			return true;
	return false;
}

int ter_structure_reserve(struct ter_structure *st, const struct ter_trans *trans)
{
	uint32_t nr[TER_NODE_SPLIT_MAX] = { 0 }, bytes[TER_NODE_SPLIT_MAX] = { 0 }, at;
	const struct ter_keyset *keys;
	int r;

	if (st->shrink)
		return 0;
	for (unsigned o = 0; o < st->old_nr; o++) {
		keys = &st->old[o]->keys;
		at = 0;
		for (uint32_t i = 0; i < keys->nr; i++) {
			if ((keys->slots[i].flags & (TER_SLOT_DIRTY | TER_SLOT_WHITEOUT)) != TER_SLOT_DIRTY)
				continue;
			while (at + 1 < st->fresh_nr && ter_pos_cmp(st->fresh[at]->max, ter_keyset_pos(keys, i)) < 0)
				at++;
			nr[at]++;
			bytes[at] += ter_key_whole_bytes(ter_keyset_at(keys, i));
		}
	}
	for (unsigned i = 0; i < trans->updates_nr; i++) {
		const struct ter_update *u = &trans->updates[i];

		if (u->skip || u->key->type == TER_KEY_DELETED || !is_old(st, u->node))
			continue;
		for (at = 0; at + 1 < st->fresh_nr && ter_pos_cmp(st->fresh[at]->max, u->pos) < 0;)
			at++;
		nr[at]++;
		bytes[at] += ter_key_whole_bytes(u->key);
	}
	for (unsigned i = 0; i < st->fresh_nr; i++) {
		r = ter_keyset_reserve(&st->fresh[i]->keys, nr[i], bytes[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static void set_child(struct ter_node *parent, struct ter_pos max, struct ter_node *child)
{
	uint32_t idx = ter_keyset_lower(&parent->keys, max);

	assert(ter_keyset_is(&parent->keys, idx, max) && ter_keyset_live(&parent->keys, idx));
	__atomic_store_n(&parent->keys.children[idx], child, __ATOMIC_RELEASE);
}

void ter_structure_unlink(struct ter_structure *st)
{
	for (unsigned i = 0; i < st->old_nr; i++)
		if (st->old[i]->parent)
			set_child(st->old[i]->parent, st->old[i]->max, NULL);
}

/* What changed since the snapshot. */
static void move_dirty(struct ter_structure *st, const struct ter_node *old)
{
	const struct ter_keyset *keys = &old->keys;
	struct ter_node *to;
	struct ter_pos pos;
	uint32_t idx;
	bool found;

	for (uint32_t i = 0; i < keys->nr; i++) {
		if (!(keys->slots[i].flags & TER_SLOT_DIRTY))
			continue;
		pos = ter_keyset_pos(keys, i);
		to = fresh_for(st, pos);
		idx = ter_keyset_lower(&to->keys, pos);
		found = ter_keyset_is(&to->keys, idx, pos);
		if (ter_keyset_live(keys, i))
			ter_keyset_put(&to->keys, idx, found, ter_keyset_at(keys, i));
		else if (found)
			(void)ter_keyset_remove(&to->keys, idx);
	}
}

/* cache_lock held */
static void move_children(struct ter_structure *st, struct ter_node *old)
{
	struct ter_node *child, *to;

	for (uint32_t i = 0; i < old->keys.nr; i++) {
		child = old->keys.children[i];
		if (!child || !ter_keyset_live(&old->keys, i))
			continue;
		to = fresh_for(st, ter_keyset_pos(&old->keys, i));
		set_child(to, ter_keyset_pos(&old->keys, i), child);
		child->parent = to;
		to->children_nr++;
		old->children_nr--;
	}
	assert(old->children_nr == 0);
}

static void pass_pins(struct ter_structure *st, uint64_t seq)
{
	uint64_t newest = seq, rest_seq;

	for (unsigned o = 0; o < st->old_nr; o++) {
		if (st->old[o]->pinned)
			seq = ter_min(seq, st->old[o]->pin_seq);
		newest = ter_max(newest, st->old[o]->newest_seq);
	}
	rest_seq = seq;
	for (unsigned o = 0; o < st->old_nr; o++)
		if (st->old[o]->writing_pinned)
			rest_seq = ter_min(rest_seq, st->old[o]->writing_pin_seq);
	for (unsigned i = 0; i < st->fresh_nr; i++) {
		if (!st->fresh[i]->keys.dirty_nr)
			continue;
		ter_node_set_dirty(st->fresh[i], st->rest && i + 1 == st->fresh_nr ? rest_seq : seq);
		st->fresh[i]->newest_seq = newest;
	}
}

/* cache_lock held */
static void retire(struct ter_node *old)
{
	struct ter_journal *journal = old->tree->bt->journal;

	ter_cache_remove(old);
	if (old->pinned)
		ter_journal_unpin(journal, old->pin_seq);
	if (old->writing_pinned)
		ter_journal_unpin(journal, old->writing_pin_seq);
	old->pinned = old->writing_pinned = false;
}

static void switch_nodes(struct ter_structure *st, uint64_t seq)
{
	struct ter_btrees *bt = st->tree->bt;
	struct ter_node *parent = st->old[0]->parent;
	struct ter_node *above = st->root && st->root != st->fresh[0] ? st->root : parent;

	for (unsigned o = 0; o < st->old_nr; o++)
		move_dirty(st, st->old[o]);
	ter_lock_acquire(&bt->cache_lock);
	if (above && above == st->root)
		ter_cache_insert(above, NULL);
	for (unsigned i = 0; i < st->fresh_nr; i++) {
		ter_cache_insert(st->fresh[i], above);
		if (above)
			set_child(above, st->fresh[i]->max, st->fresh[i]);
	}
	if (st->old[0]->level)
		for (unsigned o = 0; o < st->old_nr; o++)
			move_children(st, st->old[o]);
	ter_lock_release(&bt->cache_lock);
	pass_pins(st, seq);
	ter_lock_acquire(&bt->cache_lock);
	for (unsigned o = 0; o < st->old_nr; o++)
		retire(st->old[o]);
	ter_lock_release(&bt->cache_lock);
}

static void switch_shrink(struct ter_structure *st)
{
	struct ter_btrees *bt = st->tree->bt;

	ter_lock_acquire(&bt->cache_lock);
	st->root->parent = NULL;
	st->old[0]->children_nr--;
	retire(st->old[0]);
	ter_lock_release(&bt->cache_lock);
}

void ter_structure_switch(struct ter_structure *st, uint64_t seq)
{
	if (st->shrink)
		switch_shrink(st);
	else
		switch_nodes(st, seq);
	if (st->root) {
		st->tree->root = st->root;
		ter_root_publish(st->tree);
	}
}

void ter_root_publish(struct ter_btree *tree)
{
	const struct ter_node_ptrs *ptrs = tree->root ? &tree->root->ptrs : &tree->root_ptrs;
	struct ter_root root = {
		.btree = tree->id,
		.level = tree->root ? tree->root->level : tree->root_level,
		.present = ptrs->nr > 0,
		.node_seq = ptrs->node_seq,
		.sectors_written = ptrs->sectors_written,
		.nr_ptrs = ptrs->nr,
	};

	for (unsigned i = 0; i < ptrs->nr; i++) {
		root.ptr[i].dev = ptrs->ptr[i].dev;
		root.ptr[i].gen = ptrs->ptr[i].gen;
		root.ptr[i].sector = ptrs->ptr[i].sector;
	}
	ter_lock_acquire(&tree->bt->roots_lock);
	tree->bt->roots[tree->id] = root;
	ter_lock_release(&tree->bt->roots_lock);
}

/* --- claims --- */

int ter_node_claim(struct ter_btree *tree, unsigned level, struct ter_pos pos, struct ter_node **ret_node)
{
	struct ter_btrees *bt = tree->bt;
	struct ter_node *node;
	int r;

	for (;;) {
		r = ter_descend(tree, level, pos, TER_DESCEND_WRITE, NULL, &node, NULL);
		if (r < 0)
			return r;
		ter_lock_acquire(&bt->cache_lock);
		if (!node->claimed) {
			node->claimed = true;
			ter_lock_release(&bt->cache_lock);
			*ret_node = node;
			return 0;
		}
		ter_node_unlock_write(node);
		ter_waitq_wait(&bt->claim_wq, &bt->cache_lock);
		ter_lock_release(&bt->cache_lock);
	}
}

bool ter_node_is_root(struct ter_node *node)
{
	bool is_root;

	ter_rwlock_read(&node->tree->root_lock);
	is_root = node->tree->root == node;
	ter_rwlock_read_release(&node->tree->root_lock);
	return is_root;
}

/* --- 1: snapshot --- */

/* The slots before the one returned are for this step; the rest stays for the next (T10). */
static uint32_t take(const struct change *c, const struct ter_node *node, uint32_t *ret_bytes, uint32_t *ret_rest_bytes)
{
	const uint32_t step_bytes = c->bt->geo.node_bytes / 2 * TER_NODE_STEP_HALVES;
	uint32_t end = ter_keyset_fitting(&node->keys, c->st.rest ? 0 : step_bytes - ter_min(c->keys_bytes, step_bytes), ret_bytes);

	(void)ter_keyset_copy_clean(&node->keys, end, NULL, ret_rest_bytes);
	/* More on disk than fits a node: it is not on disk, but was given to us as if (salvage). */
	if (!node->level && c->rest_bytes + *ret_rest_bytes <= ter_node_capacity(&c->bt->geo))
		return end;
	*ret_bytes = node->keys.live_bytes;
	*ret_rest_bytes = 0;
	return node->keys.nr;
}

static int snapshot_locked(struct change *c, struct ter_node *node)
{
	uint32_t bytes, rest_bytes, end = take(c, node, &bytes, &rest_bytes);
	uint8_t *keys;

	keys = ter_realloc_array(c->keys, ter_max(c->keys_bytes + c->rest_bytes + bytes + rest_bytes, 1u), 1);
	if (!keys)
		return -ENOMEM;
	c->keys = keys;
	ter_lock_acquire(&c->bt->cache_lock);
	ter_node_snap_begin(node);
	ter_lock_release(&c->bt->cache_lock);
	(void)ter_keyset_snap_before(&node->keys, end, keys + c->keys_bytes); /* how many is counted when they are cut in parts */
	c->keys_bytes += bytes;
	if (end < node->keys.nr) {
		c->rest_nr += ter_keyset_copy_clean(&node->keys, end, keys + c->keys_bytes + c->rest_bytes, &rest_bytes);
		c->rest_bytes += rest_bytes;
		c->st.rest = true;
	}
	c->newest_seq = ter_max(c->newest_seq, node->newest_seq);
	c->snapped++;
	return 0;
}

static int snapshot(struct change *c, struct ter_node *node)
{
	int r;

	ter_rwlock_write(&node->lock);
	r = snapshot_locked(c, node);
	ter_rwlock_write_release(&node->lock);
	return r;
}

static int take_snapshots(struct change *c)
{
	int r;

	for (unsigned i = 0; i < c->st.old_nr; i++) {
		r = snapshot(c, c->st.old[i]);
		if (r < 0)
			return r;
	}
	return c->newest_seq ? ter_journal_flush(c->bt->journal, c->newest_seq) : 0; /* T7 */
}

/* --- 2: new nodes --- */

static int cut(struct change *c)
{
	uint32_t capacity = ter_node_capacity(&c->bt->geo), share = capacity, whole, half = c->bt->geo.node_bytes / 2;
	struct part *part = &c->part[0];

	if (c->keys_bytes > c->bt->split_bytes)
		share = c->keys_bytes / ((c->keys_bytes + half - 1) / half);
	c->parts_nr = 1;
	for (uint32_t off = 0; off < c->keys_bytes; off += whole) {
		whole = ter_key_whole_bytes((const struct ter_key_disk *)(c->keys + off));
		if (part->nr && (part->bytes + whole > capacity || part->bytes >= share)) {
			if (c->parts_nr == TER_NODE_SPLIT_MAX)
				return -E2BIG;
			part = &c->part[c->parts_nr++];
			part->off = off;
		}
		part->bytes += whole;
		part->nr++;
	}
	if (c->st.rest && c->parts_nr == TER_NODE_SPLIT_MAX)
		return -E2BIG;
	if (c->st.rest)
		c->part[c->parts_nr++] = (struct part){ .off = c->keys_bytes, .bytes = c->rest_bytes, .nr = c->rest_nr };
	return 0;
}

static struct ter_pos last_pos(const struct change *c, const struct part *part)
{
	uint32_t off = part->off, whole = 0;

	for (uint32_t i = 0; i < part->nr; i++) {
		off += whole;
		whole = ter_key_whole_bytes((const struct ter_key_disk *)(c->keys + off));
	}
	return ter_key_disk_pos((const struct ter_key_disk *)(c->keys + off));
}

/* A node with space and content, not yet written. */
static int make_node(struct change *c, unsigned level, struct ter_pos min, struct ter_pos max, const uint8_t *keys, const struct part *part, struct ter_node **ret_node)
{
	struct ter_btrees *bt = c->bt;
	struct ter_node *node = ter_node_new(c->st.tree, level, min, max);
	int r;

	if (!node)
		return -ENOMEM;
	r = ter_keyset_merge(&node->keys, keys, part->bytes, part->nr);
	if (r == 0)
		r = bt->hooks.node_alloc(bt->hooks.arg, false, &node->ptrs);
	if (r < 0) {
		ter_node_free(node);
		return r;
	}
	node->ptrs.node_seq = atomic_fetch_add(&bt->next_node_seq, 1);
	node->ptrs.min = min;
	node->ptrs.sectors_written = ter_bset_sectors(&bt->geo, true, part->bytes);
	node->newest_seq = c->newest_seq;
	*ret_node = node;
	return 0;
}

static int make_nodes(struct change *c)
{
	struct ter_structure *st = &c->st;
	struct ter_pos min = st->old[0]->min, max;
	int r;

	for (unsigned i = 0; i < c->parts_nr; i++) {
		max = i + 1 < c->parts_nr ? last_pos(c, &c->part[i]) : st->old[st->old_nr - 1]->max;
		r = make_node(c, st->old[0]->level, min, max, c->keys + c->part[i].off, &c->part[i], &st->fresh[i]);
		if (r < 0)
			return r;
		st->fresh_nr++;
		min = ter_pos_next(max);
	}
	return 0;
}

/* The old root was cut: a root above. */
static int make_root(struct change *c)
{
	uint8_t keys[TER_NODE_SPLIT_MAX * (sizeof(struct ter_key_disk) + sizeof(struct ter_btree_ptr_disk))] __attribute__((aligned(8)));
	unsigned level = c->st.old[0]->level + 1u;
	struct part part = { 0 };

	if (level >= TER_BTREE_DEPTH_MAX)
		return -EFBIG;
	for (unsigned i = 0; i < c->st.fresh_nr; i++) {
		struct ter_btree_ptr_disk disk;
		struct ter_key key = { .pos = c->st.fresh[i]->max, .type = TER_KEY_BTREE_PTR, .val = &disk };

		key.val_bytes = ter_node_ptrs_encode(&c->st.fresh[i]->ptrs, &disk);
		ter_key_encode(&key, keys + part.bytes);
		part.bytes += ter_key_disk_bytes(key.val_bytes);
		part.nr++;
	}
	return make_node(c, level, TER_POS_MIN, TER_POS_MAX, keys, &part, &c->new_root);
}

static int prepare_image(struct change *c, struct ter_node *node, struct ter_node_write_io *io)
{
	struct ter_node_id id = {
		.btree = node->tree->id, .level = node->level, .min = node->min, .max = node->max, .node_seq = node->ptrs.node_seq
	};
	uint8_t *buf = ter_malloc_aligned(node->ptrs.sectors_written << TER_SECTOR_SHIFT, ter_node_buf_align(c->bt));
	uint32_t bytes = node->keys.live_bytes, nr;

	if (!buf)
		return -ENOMEM;
	nr = ter_keyset_snap_live(&node->keys, buf + TER_NODE_HEAD_BYTES); /* it is all clean: only copies */
	ter_bset_finish(&c->bt->geo, buf, &id, id.node_seq, c->newest_seq, bytes, nr);
	*io = (struct ter_node_write_io){ .ptrs = &node->ptrs, .sectors = node->ptrs.sectors_written, .buf = buf };
	return 0;
}

static int write_nodes(struct change *c)
{
	struct ter_node_write_io ios[TER_NODE_SPLIT_MAX + 1];
	struct ter_node *nodes[TER_NODE_SPLIT_MAX + 1];
	unsigned nr = 0, ready = 0;
	int r = 0;

	for (unsigned i = 0; i < c->st.fresh_nr; i++)
		nodes[nr++] = c->st.fresh[i];
	if (c->new_root)
		nodes[nr++] = c->new_root;
	for (; ready < nr && r == 0; ready += r == 0)
		r = prepare_image(c, nodes[ready], &ios[ready]);
	if (r == 0)
		r = ter_node_write_all(c->bt, ios, nr);
	for (unsigned i = 0; i < nr && r == 0; i++) {
		if (!ter_node_landed(c->bt, &ios[i]))
			r = -EIO;
		atomic_fetch_add_explicit(&c->bt->writes, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&c->bt->write_bytes, (uint64_t)ios[i].sectors << TER_SECTOR_SHIFT, memory_order_relaxed);
	}
	for (unsigned i = 0; i < ready; i++)
		free(ios[i].buf);
	return r;
}

/* --- 3: the transaction --- */

static bool has_fresh_max(const struct ter_structure *st, struct ter_pos max)
{
	for (unsigned i = 0; i < st->fresh_nr; i++)
		if (ter_pos_cmp(st->fresh[i]->max, max) == 0)
			return true;
	return false;
}

static int stage_parent(struct change *c, struct ter_trans *trans)
{
	struct ter_structure *st = &c->st;
	unsigned btree = st->tree->id, level = st->old[0]->level + 1u;
	int r = 0;

	for (unsigned i = 0; c->new_root && i < c->new_root->keys.nr && r == 0; i++)
		r = ter_trans_log_key(trans, btree, level, ter_keyset_at(&c->new_root->keys, i));
	if (c->is_root)
		return r;
	for (unsigned i = 0; i < st->old_nr && r == 0; i++)
		if (!has_fresh_max(st, st->old[i]->max))
			r = ter_trans_stage(trans, btree, level, st->old[i]->max, TER_KEY_ANY, NULL);
	for (unsigned i = 0; i < st->fresh_nr && r == 0; i++)
		r = ter_trans_stage_ptrs(trans, btree, level, st->fresh[i]->max, &st->fresh[i]->ptrs);
	return r;
}

static int stage_node(struct change *c, struct ter_trans *trans, const struct ter_node *node, int sign)
{
	if (!node->ptrs.nr)
		return 0;
	return c->bt->hooks.node_stage(c->bt->hooks.arg, trans, node->tree->id, node->level, node->max, &node->ptrs, sign);
}

static int stage_space(struct change *c, struct ter_trans *trans)
{
	int r = 0;

	for (unsigned i = 0; i < c->st.fresh_nr && r == 0; i++)
		r = stage_node(c, trans, c->st.fresh[i], 1);
	if (c->new_root && r == 0)
		r = stage_node(c, trans, c->new_root, 1);
	for (unsigned i = 0; i < c->st.old_nr && r == 0; i++)
		r = stage_node(c, trans, c->st.old[i], -1);
	return r;
}

static int stage_all(struct change *c, struct ter_trans *trans)
{
	int r = 0;

	if (!c->st.shrink)
		r = stage_parent(c, trans);
	if (r == 0)
		r = stage_space(c, trans);
	/* Last: where an update of the accounting falls into a node that goes, that one locks it. */
	for (unsigned i = 0; i < c->st.old_nr && r == 0; i++)
		r = ter_trans_stage_lock(trans, c->st.tree->id, c->st.old[i]->level, c->st.old[i]->max);
	return r;
}

static int run_transaction(struct change *c)
{
	struct ter_trans trans;
	int r = -EBUSY;

	ter_trans_init(&trans, c->bt, TER_TRANS_RECLAIM);
	trans.structure = &c->st;
	for (unsigned tries = 0; tries < TER_TRANS_RESTARTS_MAX; tries++) {
		r = stage_all(c, &trans);
		if (r == 0)
			r = ter_trans_commit(&trans);
		if (r != -ERESTART)
			break;
		ter_trans_reset(&trans);
		r = -EBUSY;
	}
	ter_trans_exit(&trans);
	return r;
}

/* --- all of it --- */

static void give_up_node(struct change *c, struct ter_node *node)
{
	if (!node)
		return;
	c->bt->hooks.node_alloc_done(c->bt->hooks.arg, &node->ptrs, false);
	ter_node_free(node);
}

static void undo(struct change *c)
{
	for (unsigned i = 0; i < c->st.fresh_nr; i++)
		give_up_node(c, c->st.fresh[i]);
	give_up_node(c, c->new_root);
	for (unsigned i = 0; i < c->st.old_nr; i++) {
		if (i < c->snapped) {
			ter_rwlock_write(&c->st.old[i]->lock);
			ter_node_snap_end(c->st.old[i], false);
			ter_rwlock_write_release(&c->st.old[i]->lock);
		}
		ter_node_unclaim(c->st.old[i]);
	}
}

static void finish(struct change *c)
{
	for (unsigned i = 0; i < c->st.fresh_nr; i++)
		c->bt->hooks.node_alloc_done(c->bt->hooks.arg, &c->st.fresh[i]->ptrs, true);
	if (c->new_root)
		c->bt->hooks.node_alloc_done(c->bt->hooks.arg, &c->new_root->ptrs, true);
	for (unsigned i = 0; i < c->st.old_nr; i++)
		ter_node_free(c->st.old[i]);
}

static int replace(struct change *c)
{
	int r;

	r = take_snapshots(c);
	if (r == 0)
		r = cut(c);
	if (r == 0)
		r = make_nodes(c);
	if (r == 0 && c->is_root && c->st.fresh_nr > 1)
		r = make_root(c);
	if (r == 0)
		r = write_nodes(c);
	if (r == 0 && c->is_root)
		c->st.root = c->new_root ? c->new_root : c->st.fresh[0];
	if (r == 0)
		r = run_transaction(c);
	free(c->keys);
	if (r < 0) {
		undo(c);
		return r;
	}
	atomic_fetch_add_explicit(c->st.old_nr > 1 ? &c->bt->merges : c->st.fresh_nr > 1 ? &c->bt->splits : &c->bt->rewrites, 1, memory_order_relaxed);
	finish(c);
	return 1;
}

/* The root has one child left: that becomes the root. */
static int shrink(struct change *c)
{
	struct ter_node *root = c->st.old[0], *child;
	int r;

	r = ter_node_claim(c->st.tree, root->level - 1u, TER_POS_MIN, &child);
	if (r < 0) {
		ter_node_unclaim(root);
		return r;
	}
	ter_node_unlock_write(child);
	if (!(ter_pos_cmp(child->max, TER_POS_MAX) == 0 && ter_pos_cmp(child->min, TER_POS_MIN) == 0))
		r = -EUCLEAN;
	c->st.shrink = true;
	c->st.root = child;
	if (r == 0)
		r = run_transaction(c);
	if (r < 0)
		ter_node_unclaim(root);
	else
		finish(c);
	ter_node_unclaim(child);
	return r < 0 ? r : 1;
}

static uint32_t live_bytes_of(struct ter_node *node)
{
	uint32_t bytes;

	ter_rwlock_read(&node->lock);
	bytes = node->keys.live_bytes;
	ter_rwlock_read_release(&node->lock);
	return bytes;
}

/* The greatest position of the neighbour of @node (+1: behind, -1: before) under the same parent. -ENOENT: none. */
static int neighbour_of(const struct ter_node *node, int side, struct ter_pos *ret_max)
{
	struct ter_node *parent;
	uint32_t idx;
	int r;

	r = ter_descend(node->tree, node->level + 1u, node->max, 0, NULL, &parent, NULL);
	if (r < 0)
		return r;
	idx = ter_keyset_lower(&parent->keys, node->max);
	if (side > 0) {
		idx = ter_keyset_skip(&parent->keys, idx + 1);
	} else {
		while (idx > 0 && !ter_keyset_live(&parent->keys, idx - 1))
			idx--;
		idx = idx ? idx - 1 : parent->keys.nr;
	}
	r = idx < parent->keys.nr ? 0 : -ENOENT;
	if (r == 0)
		*ret_max = ter_keyset_pos(&parent->keys, idx);
	ter_node_unlock_read(parent);
	return r;
}

/* Claims a neighbour with which the node may be merged: 1. None such: 0. */
static int find_partner(struct change *c, struct ter_node *node, int side)
{
	struct ter_node *other;
	struct ter_pos max;
	uint32_t mine, theirs;
	int r;

	r = neighbour_of(node, side, &max);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = ter_node_claim(node->tree, node->level, max, &other);
	if (r == -EUCLEAN || r == -EBADMSG || r == -EIO)
		return 0; /* one that cannot be read is no partner; this one may be written all the same */
	if (r < 0)
		return r;
	ter_node_unlock_write(other);
	mine = live_bytes_of(node);
	theirs = live_bytes_of(other);
	if (mine + theirs < 2 * c->bt->merge_bytes || ((!mine || !theirs) && mine + theirs <= c->bt->split_bytes)) {
		c->st.old[0] = side > 0 ? node : other;
		c->st.old[1] = side > 0 ? other : node;
		c->st.old_nr = 2;
		return 1;
	}
	ter_node_unclaim(other);
	return 0;
}

static int try_merge(struct change *c, struct ter_node *node)
{
	int r;

	r = find_partner(c, node, 1);
	if (r == 0)
		r = find_partner(c, node, -1);
	if (r != 0)
		return r;
	ter_rwlock_write(&node->lock);
	node->merge_below = node->keys.live_bytes / 2; /* not again until it is much smaller */
	ter_rwlock_write_release(&node->lock);
	return 0;
}

static bool too_big(const struct ter_node *node)
{
	return node->keys.live_bytes > node->tree->bt->split_bytes && node->keys.live_nr > 1;
}

static bool covers_all(const struct ter_node *node)
{
	return ter_pos_cmp(node->min, TER_POS_MIN) == 0 && ter_pos_cmp(node->max, TER_POS_MAX) == 0;
}

bool ter_node_wants_change(const struct ter_node *node)
{
	if (too_big(node))
		return true;
	if (covers_all(node))
		return node->level && node->keys.live_nr == 1;
	return node->keys.live_bytes < node->merge_below;
}

static int change_locked(struct change *c, unsigned level, struct ter_pos pos, unsigned flags)
{
	struct ter_node *node;
	bool big, small, must, single;
	int r;

	r = ter_node_claim(c->st.tree, level, pos, &node);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	big = too_big(node);
	single = level && node->keys.live_nr == 1;
	small = !covers_all(node) && node->keys.live_bytes < node->merge_below;
	must = node->must_rewrite || (flags & TER_CHANGE_REWRITE);
	ter_node_unlock_write(node);

	c->is_root = ter_node_is_root(node);
	c->st.old[0] = node;
	c->st.old_nr = 1;
	if (c->is_root && single)
		return shrink(c);
	if (!big && small) {
		r = try_merge(c, node);
		if (r < 0) {
			ter_node_unclaim(node);
			return r;
		}
	}
	if (big || must || c->st.old_nr > 1)
		return replace(c);
	ter_node_unclaim(node);
	return 0;
}

static int change_one(struct change *c, struct ter_btree *tree, unsigned level, struct ter_pos pos, unsigned flags)
{
	*c = (struct change){ .bt = tree->bt, .st.tree = tree };
	return change_locked(c, level, pos, flags);
}

static bool over_limit(struct ter_btree *tree, unsigned level, struct ter_pos pos)
{
	struct ter_node *node;
	bool over;

	if (ter_descend(tree, level, pos, 0, NULL, &node, NULL) < 0)
		return false; /* no such level; or what is wrong is told to who goes on down */
	over = node->keys.live_bytes > tree->bt->overflow_bytes;
	ter_node_unlock_read(node);
	return over;
}

/* T10: those above first, from the top down, so that none gets too big for one step. */
static int relieve_above(struct change *c, struct ter_btree *tree, unsigned level, struct ter_pos pos)
{
	int r = 0;

	for (unsigned above = TER_BTREE_DEPTH_MAX - 1; above > level && r >= 0; above--)
		if (over_limit(tree, above, pos))
			r = change_one(c, tree, above, pos, 0);
	return ter_min(r, 0);
}

int ter_node_change(struct ter_btree *tree, unsigned level, struct ter_pos pos, unsigned flags)
{
	struct ter_btrees *bt = tree->bt;
	struct change *c = ter_new(struct change);
	char text[64];
	int r = -ENOMEM;

	if (c && bt->journal && bt->hooks.node_alloc) {
		ter_lock_acquire(&tree->interior);
		r = relieve_above(c, tree, level, pos);
		if (r == 0)
			r = change_one(c, tree, level, pos, flags);
		ter_lock_release(&tree->interior);
	} else if (c) {
		r = -EROFS;
	}
	free(c);
	ter_lock_acquire(&bt->cache_lock);
	tree->changes++;
	tree->change_result = ter_min(r, 0);
	ter_waitq_wake_all(&bt->claim_wq);
	ter_lock_release(&bt->cache_lock);
	if (r < 0)
		ter_btrees_error(bt, r, "Btree %s: the node of level %u at %s cannot be written anew.", ter_btree_names[tree->id], level, ter_pos_text(pos, text));
	return r;
}
