/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cached nodes: their memory, their eviction, what is dirty and what that pins. */
#include "btree/btree_priv.h"

/* --- life of a node --- */

struct ter_node *ter_node_new(struct ter_btree *tree, unsigned level, struct ter_pos min, struct ter_pos max)
{
	struct ter_node *node = ter_new(struct ter_node);

	if (!node)
		return NULL;
	ter_rwlock_init(&node->lock, TER_RANK_BTREE_NODE);
	node->tree = tree;
	node->level = (uint8_t)level;
	node->min = min;
	node->max = max;
	node->ptrs.min = min;
	node->merge_below = tree->bt->merge_bytes;
	ter_keyset_init(&node->keys, level > 0);
	ter_list_init(&node->lru_link);
	ter_list_init(&node->dirty_link);
	ter_list_init(&node->change_link);
	ter_list_init(&node->write_link);
	return node;
}

void ter_node_free(struct ter_node *node)
{
	if (!node)
		return;
	ter_keyset_free(&node->keys);
	ter_rwlock_destroy(&node->lock);
	free(node);
}

static size_t memory_of(const struct ter_node *node)
{
	return sizeof(*node) + ter_keyset_memory(&node->keys);
}

void ter_cache_insert(struct ter_node *node, struct ter_node *parent)
{
	struct ter_btrees *bt = node->tree->bt;

	node->parent = parent;
	if (parent)
		parent->children_nr++;
	ter_list_add_tail(&bt->lru, &node->lru_link);
	atomic_store_explicit(&node->accessed, true, memory_order_relaxed);
	node->memory = memory_of(node);
	atomic_fetch_add(&bt->cached_bytes, node->memory);
	atomic_fetch_add(&bt->cached_nodes, 1);
}

void ter_cache_remove(struct ter_node *node)
{
	struct ter_btrees *bt = node->tree->bt;

	ter_list_del(&node->lru_link);
	ter_list_del(&node->change_link);
	ter_list_del(&node->write_link);
	if (node->dirty) {
		ter_list_del(&node->dirty_link);
		atomic_fetch_sub(&bt->dirty_bytes, node->dirty_charge);
		atomic_fetch_sub(&bt->dirty_nodes, 1);
		node->dirty = false;
	}
	if (node->parent)
		node->parent->children_nr--;
	node->parent = NULL;
	node->dead = true;
	atomic_fetch_sub(&bt->cached_bytes, node->memory);
	atomic_fetch_sub(&bt->cached_nodes, 1);
	atomic_fetch_add(&bt->hits_gone, atomic_load_explicit(&node->hits, memory_order_relaxed));
}

void ter_cache_account(struct ter_node *node)
{
	size_t now = memory_of(node);

	if (ter_likely(now == node->memory || node->dead))
		return;
	atomic_fetch_add(&node->tree->bt->cached_bytes, now - node->memory); /* modulo 2^64: may be less */
	node->memory = now;
}

/* --- eviction --- */

/* cache_lock held. The node's lock and its parent's (or root_lock) were taken by try. */
static bool evict_locked(struct ter_node *node)
{
	struct ter_node *parent = node->parent;
	uint32_t idx = ter_keyset_lower(&parent->keys, node->max);

	if (!ter_keyset_is(&parent->keys, idx, node->max) || parent->keys.children[idx] != node)
		return false;
	__atomic_store_n(&parent->keys.children[idx], NULL, __ATOMIC_RELAXED);
	ter_cache_remove(node);
	return true;
}

/* cache_lock held. True: @node is unlinked, and ours to free. Roots stay. */
static bool evict_one(struct ter_node *node)
{
	struct ter_node *parent = node->parent;
	bool gone = false;

	if (!parent || node->dirty || node->claimed || node->children_nr)
		return false;
	if (atomic_exchange_explicit(&node->accessed, false, memory_order_relaxed))
		return false;
	if (!ter_rwlock_try_write(&parent->lock))
		return false;
	if (ter_rwlock_try_write(&node->lock)) {
		gone = evict_locked(node);
		ter_rwlock_write_release(&node->lock);
	}
	ter_rwlock_write_release(&parent->lock);
	return gone;
}

void ter_cache_evict(struct ter_btrees *bt)
{
	uint64_t tries = atomic_load(&bt->cached_nodes);
	struct ter_node *node;

	while (tries-- && atomic_load(&bt->cached_bytes) > bt->config.cache_bytes && !atomic_load(&bt->no_evict)) {
		ter_lock_acquire(&bt->cache_lock);
		if (ter_list_empty(&bt->lru)) {
			ter_lock_release(&bt->cache_lock);
			return;
		}
		node = ter_list_first(&bt->lru, struct ter_node, lru_link);
		ter_list_del(&node->lru_link);
		ter_list_add_tail(&bt->lru, &node->lru_link);
		if (!evict_one(node))
			node = NULL;
		ter_lock_release(&bt->cache_lock);
		ter_node_free(node);
	}
}

/* --- dirty nodes and their pins --- */

/* cache_lock held. The list is in order of pin (T8); commits come nearly in order. */
static void dirty_insert(struct ter_btrees *bt, struct ter_node *node)
{
	struct ter_list *at = bt->dirty.prev;

	while (at != &bt->dirty && ter_list_entry(at, struct ter_node, dirty_link)->pin_seq > node->pin_seq)
		at = at->prev;
	ter_list_add(at, &node->dirty_link);
}

static void dirty_add(struct ter_node *node)
{
	struct ter_btrees *bt = node->tree->bt;

	node->dirty = true;
	dirty_insert(bt, node);
	node->dirty_charge = node->memory;
	atomic_fetch_add(&bt->dirty_bytes, node->dirty_charge);
	atomic_fetch_add(&bt->dirty_nodes, 1);
}

static void dirty_del(struct ter_node *node)
{
	struct ter_btrees *bt = node->tree->bt;

	ter_list_del(&node->dirty_link);
	node->dirty = false;
	atomic_fetch_sub(&bt->dirty_bytes, node->dirty_charge);
	atomic_fetch_sub(&bt->dirty_nodes, 1);
}

void ter_node_set_dirty(struct ter_node *node, uint64_t seq)
{
	struct ter_btrees *bt = node->tree->bt;

	if (node->newest_seq < seq)
		node->newest_seq = seq;
	if (node->dirty)
		return;
	ter_lock_acquire(&bt->cache_lock);
	if (seq) {
		ter_journal_pin(bt->journal, seq);
		node->pin_seq = seq;
		node->pinned = true;
	}
	dirty_add(node);
	ter_lock_release(&bt->cache_lock);
}

void ter_node_snap_begin(struct ter_node *node)
{
	assert(node->claimed && !node->writing_pinned);
	node->writing_pinned = node->pinned;
	node->writing_pin_seq = node->pin_seq;
	ter_list_add_tail(&node->tree->bt->writing, &node->write_link);
	node->pinned = false;
	node->pin_seq = 0;
	if (node->dirty)
		dirty_del(node);
}

void ter_node_snap_end(struct ter_node *node, bool written)
{
	struct ter_btrees *bt = node->tree->bt;
	uint64_t drop_seq = 0;
	bool drop = false;

	ter_keyset_snap_end(&node->keys, written);
	ter_lock_acquire(&bt->cache_lock);
	ter_list_del(&node->write_link);
	if (written) {
		drop = node->writing_pinned;
		drop_seq = node->writing_pin_seq;
	} else {
		/* Back to how it was: dirty since the older of the two pins. */
		drop = node->pinned && node->writing_pinned;
		drop_seq = node->pin_seq;
		if (node->dirty)
			dirty_del(node);
		if (node->writing_pinned) {
			node->pinned = true;
			node->pin_seq = node->writing_pin_seq;
		}
		if (node->keys.dirty_nr)
			dirty_add(node);
	}
	node->writing_pinned = false;
	node->writing_pin_seq = 0;
	if (!node->dirty && node->pinned) { /* what was dirty had no content */
		ter_journal_unpin(bt->journal, node->pin_seq);
		node->pinned = false;
	}
	if (drop)
		ter_journal_unpin(bt->journal, drop_seq);
	ter_lock_release(&bt->cache_lock);
}

void ter_node_unclaim(struct ter_node *node)
{
	struct ter_btrees *bt = node->tree->bt;

	ter_lock_acquire(&bt->cache_lock);
	node->claimed = false;
	ter_waitq_wake_all(&bt->claim_wq);
	ter_lock_release(&bt->cache_lock);
}

bool ter_node_pinned_to(const struct ter_node *node, uint64_t seq)
{
	return (node->pinned && node->pin_seq <= seq) || (node->writing_pinned && node->writing_pin_seq <= seq);
}
