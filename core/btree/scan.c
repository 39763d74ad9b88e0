/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading many: scans of a range, read-ahead, and the walk over all nodes of a btree. */
#include "btree/btree_priv.h"

/* --- scan --- */

/* The keys of one leaf within from..to. */
static int scan_leaf(struct ter_node *leaf, struct ter_pos from, struct ter_pos to, int (*cb)(void *arg, const struct ter_key *key), void *arg)
{
	const struct ter_keyset *keys = &leaf->keys;
	struct ter_key key;
	int r;

	for (uint32_t i = ter_keyset_lower(keys, from); i < keys->nr; i++) {
		if (!ter_keyset_live(keys, i))
			continue;
		ter_key_decode(ter_keyset_at(keys, i), &key);
		if (ter_pos_cmp(key.pos, to) > 0)
			return 0;
		r = cb(arg, &key);
		if (r)
			return r;
	}
	return 0;
}

int ter_btree_scan(struct ter_btrees *bt, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, unsigned flags,
		   int (*cb)(void *arg, const struct ter_key *key), void *arg, struct ter_pos *ret_resume)
{
	struct ter_node *leaf;
	struct ter_pos max;
	int r;

	while (ter_pos_cmp(from, to) <= 0) {
		r = ter_descend(&bt->tree[btree], 0, from, flags & TER_TRANS_NOWAIT ? TER_DESCEND_NOWAIT : 0, NULL, &leaf, NULL);
		if (r < 0) {
			if (r == -EAGAIN && ret_resume)
				*ret_resume = from;
			return r;
		}
		max = leaf->max;
		r = scan_leaf(leaf, from, to, cb, arg);
		ter_node_unlock_read(leaf);
		if (r)
			return ter_min(r, 1);
		if (ter_pos_cmp(max, to) >= 0)
			return 0;
		from = ter_pos_next(max);
	}
	return 0;
}

/* --- read-ahead --- */

void ter_btree_prefetch(struct ter_btrees *bt, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to)
{
	struct ter_node *parent;
	unsigned asked = 0;
	uint32_t idx;

	if (ter_descend(&bt->tree[btree], 1, from, TER_DESCEND_NOWAIT, NULL, &parent, NULL) < 0)
		return;
	for (idx = ter_keyset_lower(&parent->keys, from); idx < parent->keys.nr && asked < TER_PREFETCH_MAX; idx++) {
		if (!ter_keyset_live(&parent->keys, idx))
			continue;
		if (!__atomic_load_n(&parent->keys.children[idx], __ATOMIC_ACQUIRE)) {
			ter_fill_ahead(parent, idx);
			asked++;
		}
		if (ter_pos_cmp(ter_keyset_pos(&parent->keys, idx), to) >= 0)
			break;
	}
	ter_node_unlock_read(parent);
}

/* --- walk --- */

struct child {
	struct ter_pos max;
	struct ter_node_ptrs ptrs;
};

/* What a node points to, copied. Its children follow each other within its range. */
static int children_of(struct ter_node *node, struct child **ret, uint32_t *ret_nr)
{
	struct ter_pos next = node->min;
	struct child *children = ter_calloc(ter_max(node->keys.live_nr, 1u), sizeof(*children));
	uint32_t nr = 0;
	int r = 0;

	if (!children)
		return -ENOMEM;
	for (uint32_t i = 0; i < node->keys.nr && r == 0; i++) {
		if (!ter_keyset_live(&node->keys, i))
			continue;
		children[nr].max = ter_keyset_pos(&node->keys, i);
		r = ter_node_ptrs_decode(&node->tree->bt->geo, ter_keyset_at(&node->keys, i), &children[nr].ptrs);
		if (r == 0 && ter_pos_cmp(children[nr].ptrs.min, next) != 0)
			r = -EUCLEAN;
		next = ter_pos_next(children[nr++].max);
	}
	if (r == 0 && (!nr || ter_pos_cmp(children[nr - 1].max, node->max) != 0))
		r = -EUCLEAN;
	if (r < 0) {
		free(children);
		return r;
	}
	*ret = children;
	*ret_nr = nr;
	return 0;
}

/* A leaf or interior node is sound in itself: keys in order, within its range. */
static int check_node(const struct ter_node *node)
{
	int r = ter_keyset_verify(&node->keys);

	if (r < 0 || !node->keys.nr)
		return r;
	if (!ter_node_covers(node, ter_keyset_pos(&node->keys, 0)) || !ter_node_covers(node, ter_keyset_pos(&node->keys, node->keys.nr - 1)))
		return -EUCLEAN;
	return 0;
}

struct walk {
	struct ter_btree *tree;
	int (*cb)(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs);
	void *arg;
};

/* All nodes of one level, and cb for each of their children. */
static int walk_level(struct walk *w, unsigned level)
{
	struct ter_pos pos = TER_POS_MIN, max = TER_POS_MIN;
	struct child *children;
	struct ter_node *node;
	uint32_t nr;
	int r;

	for (;; pos = ter_pos_next(max)) {
		r = ter_descend(w->tree, level, pos, 0, NULL, &node, NULL);
		if (r < 0)
			return r == -ENOENT ? -ERESTART : r;
		max = node->max;
		children = NULL;
		nr = 0;
		r = check_node(node);
		if (r == 0 && level)
			r = children_of(node, &children, &nr);
		ter_node_unlock_read(node);
		for (uint32_t i = 0; i < nr && r >= 0; i++)
			r = w->cb(w->arg, level - 1, children[i].max, &children[i].ptrs);
		free(children);
		if (r < 0)
			return r;
		if (ter_pos_cmp(max, TER_POS_MAX) == 0)
			return 0;
	}
}

int ter_btree_walk_nodes(struct ter_btrees *bt, enum ter_btree_id btree,
			 int (*cb)(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs), void *arg)
{
	struct ter_btree *tree = &bt->tree[btree];
	struct walk w = { .tree = tree, .cb = cb, .arg = arg };
	struct ter_node_ptrs ptrs;
	unsigned level;
	int r = 0;

	ter_rwlock_read(&tree->root_lock);
	level = tree->root ? tree->root->level : tree->root_level;
	ptrs = tree->root ? tree->root->ptrs : tree->root_ptrs;
	ter_rwlock_read_release(&tree->root_lock);
	if (ptrs.nr)
		r = cb(arg, level, TER_POS_MAX, &ptrs);
	for (int l = (int)level; l >= 0 && r >= 0; l--)
		r = walk_level(&w, (unsigned)l);
	return ter_min(r, 0);
}
