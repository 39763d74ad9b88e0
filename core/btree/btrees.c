/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All btrees of a pool: making and freeing, replay, numbers. */
#include "btree/btree_priv.h"

/* --- life --- */

static void tree_init(struct ter_btrees *bt, unsigned id)
{
	struct ter_btree *tree = &bt->tree[id];

	tree->bt = bt;
	tree->id = (uint8_t)id;
	ter_lock_init(&tree->interior, TER_RANK_BTREE_INTERIOR);
	ter_rwlock_init(&tree->root_lock, TER_RANK_BTREE_NODE);
	bt->roots[id] = (struct ter_root){ .btree = (uint8_t)id };
}

static void lists_init(struct ter_btrees *bt)
{
	ter_lock_init(&bt->turnstile, TER_RANK_BTREE_NODE);
	ter_lock_init(&bt->cache_lock, TER_RANK_BTREE_CACHE);
	ter_lock_init(&bt->roots_lock, TER_RANK_LEAF);
	ter_waitq_init(&bt->claim_wq);
	ter_waitq_init(&bt->fill_wq);
	ter_waitq_init(&bt->writer_wq);
	ter_list_init(&bt->lru);
	ter_list_init(&bt->dirty);
	ter_list_init(&bt->changes);
	ter_list_init(&bt->fills);
	ter_list_init(&bt->failed);
	ter_list_init(&bt->writing);
}

/* A btree without a root begins as one leaf that has no space on disk yet. */
static int empty_root(struct ter_btree *tree)
{
	struct ter_node *root = ter_node_new(tree, 0, TER_POS_MIN, TER_POS_MAX);

	if (!root)
		return -ENOMEM;
	ter_lock_acquire(&tree->bt->cache_lock);
	ter_cache_insert(root, NULL);
	tree->root = root;
	ter_lock_release(&tree->bt->cache_lock);
	return 0;
}

int ter_btrees_new(const struct ter_btrees_config *config, struct ter_btrees **ret_btrees)
{
	struct ter_btrees *bt = ter_new(struct ter_btrees);
	int r;

	if (!bt)
		return -ENOMEM;
	bt->config = *config;
	bt->hooks = config->hooks;
	bt->journal = config->journal;
	bt->seq_max = UINT64_MAX;
	atomic_store(&bt->next_node_seq, ter_max(config->next_node_seq, 1ull));
	lists_init(bt);
	ter_change_init(bt);
	for (unsigned id = 0; id < TER_BTREE_NR; id++)
		tree_init(bt, id);
	r = ter_node_geo_init(&bt->geo, config->sb->sb);
	bt->split_bytes = bt->geo.node_bytes / 4 * 3;
	bt->overflow_bytes = bt->geo.node_bytes * TER_NODE_OVERFLOW;
	bt->merge_bytes = bt->geo.node_bytes / 6;
	for (unsigned id = 0; id < TER_BTREE_NR && r == 0; id++)
		r = empty_root(&bt->tree[id]);
	if (r < 0) {
		ter_btrees_free(bt);
		return r;
	}
	*ret_btrees = bt;
	return 0;
}

void ter_btrees_free(struct ter_btrees *bt)
{
	struct ter_node *node, *tmp;
	struct ter_fill *fill, *next;

	if (!bt)
		return;
	ter_list_for_each_safe(fill, next, &bt->failed, link)
		free(fill);
	ter_list_for_each_safe(node, tmp, &bt->lru, lru_link)
		ter_node_free(node);
	for (unsigned id = 0; id < TER_BTREE_NR; id++) {
		ter_lock_destroy(&bt->tree[id].interior);
		ter_rwlock_destroy(&bt->tree[id].root_lock);
	}
	ter_waitq_destroy(&bt->claim_wq);
	ter_waitq_destroy(&bt->fill_wq);
	ter_waitq_destroy(&bt->writer_wq);
	ter_lock_destroy(&bt->turnstile);
	ter_lock_destroy(&bt->cache_lock);
	ter_lock_destroy(&bt->roots_lock);
	free(bt);
}

void ter_btrees_set_journal(struct ter_btrees *bt, struct ter_journal *journal)
{
	bt->journal = journal;
	bt->registered = NULL; /* another one may lie where the last one lay */
}

void ter_btrees_set_seq_max(struct ter_btrees *bt, uint64_t seq)
{
	bt->seq_max = seq;
}

void ter_btrees_set_hooks(struct ter_btrees *bt, const struct ter_btree_hooks *hooks)
{
	bt->hooks = *hooks;
}

/* --- replay --- */

static int replay_into(struct ter_node *node, struct ter_pos pos, const struct ter_key_disk *key)
{
	struct ter_keyset *keys = &node->keys;
	uint32_t idx = ter_keyset_lower(keys, pos);
	bool found = ter_keyset_is(keys, idx, pos), there = found && ter_keyset_live(keys, idx);
	uint32_t whole = ter_key_whole_bytes(key);
	int r;

	if (there && ter_key_whole_bytes(ter_keyset_at(keys, idx)) == whole && !memcmp(ter_keyset_at(keys, idx), key, whole))
		return 0;
	if (key->type == TER_KEY_DELETED && !there)
		return 0;
	if (there && keys->interior && keys->children[idx])
		return -EBUSY; /* levels are replayed from the top down, before anything below is read */
	if (key->type == TER_KEY_DELETED) {
		(void)ter_keyset_remove(keys, idx); /* gone or a whiteout: both are what is wanted */
	} else {
		r = ter_keyset_reserve(keys, 1, whole);
		if (r < 0)
			return r;
		ter_keyset_put(keys, idx, found, key);
	}
	ter_node_set_dirty(node, 0);
	ter_cache_account(node);
	if (ter_node_wants_change(node))
		ter_change_queue(node);
	return 0;
}

int ter_btrees_replay_key(struct ter_btrees *bt, enum ter_btree_id btree, unsigned level, const struct ter_key_disk *key)
{
	struct ter_pos pos = ter_key_disk_pos(key);
	struct ter_node_ptrs ptrs;
	struct ter_node *node;
	int r;

	if ((unsigned)btree >= TER_BTREE_NR || level > TER_BTREE_DEPTH_MAX || ter_key_whole_bytes(key) > ter_node_key_bytes_max(&bt->geo))
		return -EUCLEAN;
	if (key->type != TER_KEY_DELETED && (level > 0) != (key->type == TER_KEY_BTREE_PTR))
		return -EUCLEAN;
	if (level && key->type != TER_KEY_DELETED) {
		r = ter_node_ptrs_decode(&bt->geo, key, &ptrs);
		if (r < 0)
			return r;
		ter_node_seq_seen(bt, ptrs.node_seq);
	}
	r = ter_descend(&bt->tree[btree], level, pos, TER_DESCEND_WRITE, NULL, &node, NULL);
	if (r == -ENOENT)
		return 0; /* of a root that was higher then */
	if (r < 0)
		return r;
	r = replay_into(node, pos, key);
	ter_node_unlock_write(node);
	return r;
}

void ter_btrees_replay_done(struct ter_btrees *bt, uint64_t pin_seq)
{
	struct ter_node *node;

	bt->sure_node_seq = atomic_fetch_add(&bt->next_node_seq, TER_NODE_SEQ_SKIP) + TER_NODE_SEQ_SKIP;
	ter_lock_acquire(&bt->cache_lock);
	ter_list_for_each(node, &bt->dirty, dirty_link) {
		if (node->pinned)
			continue;
		ter_journal_pin(bt->journal, pin_seq);
		node->pinned = true;
		node->pin_seq = pin_seq;
	}
	ter_lock_release(&bt->cache_lock);
}

/* --- numbers --- */

void ter_btrees_get_stats(struct ter_btrees *bt, struct ter_btree_stats *ret)
{
	struct ter_node *node;

	*ret = (struct ter_btree_stats){
		.cached_nodes = atomic_load(&bt->cached_nodes),
		.cached_bytes = atomic_load(&bt->cached_bytes),
		.dirty_nodes = atomic_load(&bt->dirty_nodes),
		.hits = atomic_load(&bt->hits_gone),
		.misses = atomic_load(&bt->misses),
		.writes = atomic_load(&bt->writes),
		.write_bytes = atomic_load(&bt->write_bytes),
		.splits = atomic_load(&bt->splits),
		.merges = atomic_load(&bt->merges),
		.rewrites = atomic_load(&bt->rewrites),
		.commits = atomic_load(&bt->commits),
		.restarts = atomic_load(&bt->restarts),
	};
	ter_lock_acquire(&bt->cache_lock);
	ter_list_for_each(node, &bt->lru, lru_link)
		ret->hits += atomic_load_explicit(&node->hits, memory_order_relaxed);
	ter_lock_release(&bt->cache_lock);
}
