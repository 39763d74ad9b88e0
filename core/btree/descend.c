/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From the root down to the node that covers a position; nodes that are not there are read. */
#include "btree/btree_priv.h"

/* --- locks --- */

static inline int lock_node(struct ter_node *node, bool write, bool try, const void *owner, bool *ret_held)
{
	*ret_held = owner && atomic_load_explicit(&node->owner, memory_order_relaxed) == owner;
	if (*ret_held)
		return 0;
	if (!write) {
		if (!try)
			ter_rwlock_read(&node->lock);
		else if (!ter_rwlock_try_read(&node->lock))
			return -EDEADLK;
		return 0;
	}
	if (!try)
		ter_rwlock_write(&node->lock);
	else if (!ter_rwlock_try_write(&node->lock))
		return -EDEADLK;
	atomic_store_explicit(&node->owner, owner, memory_order_relaxed);
	return 0;
}

void ter_node_unlock_read(struct ter_node *node)
{
	ter_rwlock_read_release(&node->lock);
}

void ter_node_unlock_write(struct ter_node *node)
{
	atomic_store_explicit(&node->owner, NULL, memory_order_relaxed);
	ter_rwlock_write_release(&node->lock);
}

int ter_root_lock_write(struct ter_btree *tree, const void *owner, bool try)
{
	if (!try)
		ter_rwlock_write(&tree->root_lock);
	else if (!ter_rwlock_try_write(&tree->root_lock))
		return -EDEADLK;
	atomic_store_explicit(&tree->root_owner, owner, memory_order_relaxed);
	return 0;
}

void ter_root_unlock_write(struct ter_btree *tree)
{
	atomic_store_explicit(&tree->root_owner, NULL, memory_order_relaxed);
	ter_rwlock_write_release(&tree->root_lock);
}

/* --- reading what is missing --- */

static bool same_ptrs(const struct ter_node_ptrs *a, const struct ter_node_ptrs *b)
{
	if (a->node_seq != b->node_seq || a->sectors_written != b->sectors_written || a->nr != b->nr || ter_pos_cmp(a->min, b->min))
		return false;
	for (unsigned i = 0; i < a->nr; i++)
		if (a->ptr[i].dev != b->ptr[i].dev || a->ptr[i].gen != b->ptr[i].gen || a->ptr[i].sector != b->ptr[i].sector)
			return false;
	return true;
}

static int install_root(struct ter_fill *fill, struct ter_node *node)
{
	struct ter_btree *tree = fill->tree;
	struct ter_btrees *bt = tree->bt;
	int r = -ESTALE;

	ter_rwlock_write(&tree->root_lock);
	if (!tree->root && same_ptrs(&tree->root_ptrs, &fill->ptrs)) {
		ter_lock_acquire(&bt->cache_lock);
		ter_cache_insert(node, NULL);
		tree->root = node;
		ter_lock_release(&bt->cache_lock);
		if (node->must_rewrite)
			ter_change_queue(node);
		r = 0;
	}
	ter_rwlock_write_release(&tree->root_lock);
	return r;
}

/* Under the parent's read lock: the slot is still empty and means this very node. */
static int install_child(struct ter_node *parent, struct ter_fill *fill, struct ter_node *node)
{
	struct ter_btrees *bt = fill->tree->bt;
	uint32_t idx = ter_keyset_lower(&parent->keys, fill->id.max);
	struct ter_node_ptrs ptrs;

	if (!ter_keyset_is(&parent->keys, idx, fill->id.max) || !ter_keyset_live(&parent->keys, idx))
		return -ESTALE;
	if (ter_node_ptrs_decode(&bt->geo, ter_keyset_at(&parent->keys, idx), &ptrs) < 0 || !same_ptrs(&ptrs, &fill->ptrs))
		return -ESTALE;
	if (__atomic_load_n(&parent->keys.children[idx], __ATOMIC_ACQUIRE))
		return -ESTALE;
	ter_lock_acquire(&bt->cache_lock);
	ter_cache_insert(node, parent);
	__atomic_store_n(&parent->keys.children[idx], node, __ATOMIC_RELEASE);
	ter_lock_release(&bt->cache_lock);
	if (node->must_rewrite)
		ter_change_queue(node);
	return 0;
}

static int install(struct ter_fill *fill, struct ter_node_content *content, bool heal)
{
	struct ter_node *node, *parent;
	int r;

	node = ter_node_new(fill->tree, fill->id.level, fill->id.min, fill->id.max);
	if (!node) {
		ter_keyset_free(&content->keys);
		return -ENOMEM;
	}
	node->keys = content->keys;
	node->newest_seq = content->newest_seq;
	node->must_rewrite = content->truncated || heal;
	node->ptrs = fill->ptrs;
	if (ter_pos_cmp(fill->id.max, TER_POS_MAX) == 0 && ter_pos_cmp(fill->id.min, TER_POS_MIN) == 0) {
		r = install_root(fill, node);
		if (r == 0)
			return 0;
	}
	r = ter_descend(fill->tree, fill->id.level + 1u, fill->pos, 0, NULL, &parent, NULL);
	if (r == -ENOENT)
		r = -ESTALE; /* the tree shrank meanwhile */
	if (r == 0) {
		r = install_child(parent, fill, node);
		ter_node_unlock_read(parent);
	}
	if (r < 0)
		ter_node_free(node);
	return r;
}

int ter_node_install(struct ter_btree *tree, const struct ter_node_id *id, const struct ter_node_ptrs *ptrs, struct ter_node_content *content, bool heal)
{
	struct ter_fill fill = { .tree = tree, .id = *id, .ptrs = *ptrs, .pos = id->min };

	return install(&fill, content, heal);
}

/* cache_lock held */
static void fill_put(struct ter_fill *fill)
{
	if (--fill->refs == 0)
		free(fill);
}

/* cache_lock held. Takes over the reference. */
static void remember_failed(struct ter_btrees *bt, struct ter_fill *fill)
{
	struct ter_fill *oldest;

	ter_list_add_tail(&bt->failed, &fill->link);
	if (++bt->failed_nr <= TER_FILLS_FAILED_MAX)
		return;
	oldest = ter_list_first(&bt->failed, struct ter_fill, link);
	ter_list_del(&oldest->link);
	bt->failed_nr--;
	fill_put(oldest);
}

/* Reads the node and puts it where it belongs; then tells who waits. */
static void fill_run(struct ter_fill *fill, int *ret_r)
{
	struct ter_btrees *bt = fill->tree->bt;
	struct ter_node_content content;
	bool heal = false;
	int r;

	r = ter_node_read(bt, &fill->id, &fill->ptrs, &content, &heal);
	if (r == 0)
		r = install(fill, &content, heal);
	ter_lock_acquire(&bt->cache_lock);
	fill->done = true;
	fill->r = r;
	ter_list_del(&fill->link);
	if (fill->async)
		bt->fills_async--;
	ter_waitq_wake_all(&bt->fill_wq);
	if (fill->async && r < 0 && r != -ESTALE)
		remember_failed(bt, fill);
	else
		fill_put(fill);
	ter_lock_release(&bt->cache_lock);
	if (ret_r)
		*ret_r = r;
	ter_cache_evict(bt);
}

static void fill_work(struct ter_work *work)
{
	fill_run(ter_container_of(work, struct ter_fill, work), NULL); /* the result is for those who joined it */
}

static int fill_wait(struct ter_fill *fill)
{
	struct ter_btrees *bt = fill->tree->bt;
	int r;

	ter_lock_acquire(&bt->cache_lock);
	while (!fill->done)
		ter_waitq_wait(&bt->fill_wq, &bt->cache_lock);
	r = fill->r;
	fill_put(fill);
	ter_lock_release(&bt->cache_lock);
	return r;
}

/* cache_lock held */
static struct ter_fill *fill_find(struct ter_list *list, struct ter_btree *tree, const struct ter_node_id *id)
{
	struct ter_fill *fill;

	ter_list_for_each(fill, list, link)
		if (fill->tree == tree && fill->id.level == id->level && fill->id.node_seq == id->node_seq && !ter_pos_cmp(fill->id.max, id->max))
			return fill;
	return NULL;
}

/* cache_lock held. What a read that nobody waited for came to; told once. 0: nothing known. */
static int take_failed(struct ter_btree *tree, const struct ter_node_id *id)
{
	struct ter_fill *fill = fill_find(&tree->bt->failed, tree, id);
	int r;

	if (!fill)
		return 0;
	r = fill->r;
	ter_list_del(&fill->link);
	tree->bt->failed_nr--;
	fill_put(fill);
	return r;
}

/* What the slot (@parent NULL: the root) points to. */
static int missing_id(struct ter_btree *tree, struct ter_node *parent, uint32_t idx, struct ter_node_id *ret_id, struct ter_node_ptrs *ret_ptrs)
{
	int r;

	if (!parent) {
		*ret_ptrs = tree->root_ptrs;
		*ret_id = (struct ter_node_id){ .btree = tree->id, .level = tree->root_level, .min = TER_POS_MIN, .max = TER_POS_MAX };
	} else {
		r = ter_node_ptrs_decode(&tree->bt->geo, ter_keyset_at(&parent->keys, idx), ret_ptrs);
		if (r < 0)
			return r;
		*ret_id = (struct ter_node_id){
			.btree = tree->id, .level = parent->level - 1, .min = ret_ptrs->min, .max = ter_keyset_pos(&parent->keys, idx)
		};
	}
	ret_id->node_seq = ret_ptrs->node_seq;
	return 0;
}

static bool still_missing(struct ter_btree *tree, struct ter_node *parent, uint32_t idx)
{
	if (!parent)
		return !tree->root;
	return !__atomic_load_n(&parent->keys.children[idx], __ATOMIC_ACQUIRE);
}

/*
 * Under the parent's read lock (or root_lock): joins or begins the read of a missing node. 0: *ret_fill is to be run (*ret_mine) or waited for once the lock is dropped;
 * -ESTALE: it is there already. -EAGAIN: NOWAIT.
 */
static int fill_begin(struct ter_btree *tree, struct ter_node *parent, uint32_t idx, struct ter_pos pos, unsigned flags, struct ter_fill **ret_fill, bool *ret_mine)
{
	struct ter_btrees *bt = tree->bt;
	struct ter_fill *fill, *other;
	struct ter_node_ptrs ptrs;
	struct ter_node_id id;
	int r;

	if (flags & (TER_DESCEND_TRY | TER_DESCEND_CACHED))
		return -EDEADLK;
	r = missing_id(tree, parent, idx, &id, &ptrs);
	if (r < 0)
		return r;
	fill = ter_new(struct ter_fill);
	if (!fill)
		return -ENOMEM;
	*fill = (struct ter_fill){
		.work.fn = fill_work, .tree = tree, .id = id, .ptrs = ptrs, .pos = parent ? id.max : pos, .refs = 1, .async = flags & TER_DESCEND_NOWAIT
	};
	ter_lock_acquire(&bt->cache_lock);
	other = fill_find(&bt->fills, tree, &id);
	r = take_failed(tree, &id);
	if (!still_missing(tree, parent, idx)) {
		r = -ESTALE;
	} else if (fill->async) {
		if (r == 0)
			r = -EAGAIN;
		if (r == -EAGAIN && !other && bt->started && bt->fills_async < TER_FILLS_ASYNC_MAX) {
			atomic_fetch_add_explicit(&bt->misses, 1, memory_order_relaxed);
			bt->fills_async++;
			ter_list_add_tail(&bt->fills, &fill->link);
			ter_workq_add(bt->read_wq, &fill->work);
			fill = NULL;
		}
	} else if (other) {
		r = 0;
		other->refs++;
		*ret_fill = other;
		*ret_mine = false;
	} else {
		r = 0;
		atomic_fetch_add_explicit(&bt->misses, 1, memory_order_relaxed);
		ter_list_add_tail(&bt->fills, &fill->link);
		*ret_fill = TAKE_PTR(fill);
		*ret_mine = true;
	}
	ter_lock_release(&bt->cache_lock);
	free(fill);
	return r;
}

void ter_fill_ahead(struct ter_node *parent, uint32_t idx)
{
	struct ter_fill *fill;
	bool mine;

	/* NOWAIT: nothing is handed back. */
	(void)fill_begin(parent->tree, parent, idx, TER_POS_MIN, TER_DESCEND_NOWAIT, &fill, &mine);
}

/* --- the way down --- */

static inline void touch(struct ter_node *node)
{
	if (!atomic_load_explicit(&node->accessed, memory_order_relaxed))
		atomic_store_explicit(&node->accessed, true, memory_order_relaxed);
}

static int lock_root(struct ter_btree *tree, unsigned level, struct ter_pos pos, unsigned flags, const void *owner, struct ter_node **ret_node, bool *ret_held,
		     struct ter_fill **ret_fill, bool *ret_mine)
{
	bool mine = owner && atomic_load_explicit(&tree->root_owner, memory_order_relaxed) == owner;
	struct ter_node *root;
	int r = 0;

	if (!mine && !(flags & TER_DESCEND_TRY))
		ter_rwlock_read(&tree->root_lock);
	else if (!mine && !ter_rwlock_try_read(&tree->root_lock))
		return -EDEADLK;
	root = tree->root;
	if ((root ? root->level : tree->root_level) < level)
		r = -ENOENT;
	else if (!root)
		r = fill_begin(tree, NULL, 0, pos, flags, ret_fill, ret_mine);
	else
		r = lock_node(root, (flags & TER_DESCEND_WRITE) && root->level == level, flags & TER_DESCEND_TRY, owner, ret_held);
	if (!mine)
		ter_rwlock_read_release(&tree->root_lock);
	*ret_node = root;
	return r;
}

/* On from @node, which is locked (@held: by the owner, and stays so). */
static int walk_down(struct ter_node *node, bool held, unsigned level, struct ter_pos pos, unsigned flags, const void *owner, struct ter_node **ret_node,
		     bool *ret_held, struct ter_fill **ret_fill, bool *ret_mine)
{
	struct ter_node *child;
	bool child_held;
	uint32_t idx;
	int r = 0;

	while (node->level > level) {
		touch(node);
		child = NULL;
		child_held = false;
		idx = ter_keyset_skip(&node->keys, ter_keyset_lower(&node->keys, pos));
		if (ter_unlikely(idx == node->keys.nr)) {
			r = -EUCLEAN; /* only replay of a damaged journal leaves gaps */
		} else {
			child = __atomic_load_n(&node->keys.children[idx], __ATOMIC_ACQUIRE);
			if (ter_unlikely(!child))
				r = fill_begin(node->tree, node, idx, pos, flags, ret_fill, ret_mine);
			else
				r = lock_node(child, (flags & TER_DESCEND_WRITE) && child->level == level, flags & TER_DESCEND_TRY, owner, &child_held);
		}
		if (!held)
			ter_node_unlock_read(node);
		if (r < 0 || *ret_fill)
			return r;
		node = child;
		held = child_held;
		if (ter_unlikely(!ter_node_covers(node, pos))) {
			if (!held && (flags & TER_DESCEND_WRITE) && node->level == level)
				ter_node_unlock_write(node);
			else if (!held)
				ter_node_unlock_read(node);
			return -EUCLEAN;
		}
	}
	touch(node);
	if (!level)
		atomic_store_explicit(&node->hits, atomic_load_explicit(&node->hits, memory_order_relaxed) + 1, memory_order_relaxed);
	*ret_node = node;
	*ret_held = held;
	return 0;
}

int ter_descend_below(struct ter_node *from, unsigned level, struct ter_pos pos, const void *owner, struct ter_node **ret_node, bool *ret_held)
{
	struct ter_fill *fill = NULL;
	bool mine;

	return walk_down(from, true, level, pos, TER_DESCEND_WRITE | TER_DESCEND_CACHED, owner, ret_node, ret_held, &fill, &mine);
}

static int descend_once(struct ter_btree *tree, unsigned level, struct ter_pos pos, unsigned flags, const void *owner, struct ter_node **ret_node, bool *ret_held,
			struct ter_fill **ret_fill, bool *ret_mine)
{
	struct ter_node *root;
	bool held = false;
	int r;

	r = lock_root(tree, level, pos, flags, owner, &root, &held, ret_fill, ret_mine);
	if (r < 0 || *ret_fill)
		return r;
	return walk_down(root, held, level, pos, flags, owner, ret_node, ret_held, ret_fill, ret_mine);
}

int ter_descend(struct ter_btree *tree, unsigned level, struct ter_pos pos, unsigned flags, const void *owner, struct ter_node **ret_node, bool *ret_held)
{
	struct ter_btrees *bt = tree->bt;
	bool held, mine, no_evict = false;
	struct ter_fill *fill;
	int r = -EBUSY;

	for (unsigned tries = 0; tries < TER_DESCEND_TRIES_MAX; tries++) {
		fill = NULL;
		held = false;
		r = descend_once(tree, level, pos, flags, owner, ret_node, &held, &fill, &mine);
		if (ter_likely(r == 0 && !fill)) {
			if (ret_held)
				*ret_held = held;
			break;
		}
		if (fill) {
			r = 0;
			if (mine)
				fill_run(fill, &r);
			else
				r = fill_wait(fill);
		}
		if (r < 0 && r != -ESTALE)
			break;
		r = -EBUSY;
		/* More reads than the tree is high: what was read was evicted before it was used. */
		if (tries == TER_BTREE_DEPTH_MAX) {
			atomic_fetch_add(&bt->no_evict, 1);
			no_evict = true;
		}
	}
	if (ter_unlikely(no_evict))
		atomic_fetch_sub(&bt->no_evict, 1);
	return r;
}
