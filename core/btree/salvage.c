/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Salvage: which nodes cannot be read, and what lies on the members. */
#include "btree/salvage.h"

#include "btree/btree_priv.h"

int ter_btree_rewrite_node(struct ter_btrees *bt, enum ter_btree_id btree, unsigned level, struct ter_pos pos)
{
	return ter_min(ter_node_change(&bt->tree[btree], level, pos, TER_CHANGE_REWRITE), 0);
}

/* --- the walk --- */

static bool is_loss(int r)
{
	return r == -EUCLEAN || r == -EBADMSG || r == -EIO;
}

static unsigned root_of(struct ter_btree *tree, struct ter_node_ptrs *ret_ptrs)
{
	unsigned level;

	ter_rwlock_read(&tree->root_lock);
	level = tree->root ? tree->root->level : tree->root_level;
	*ret_ptrs = tree->root ? tree->root->ptrs : tree->root_ptrs;
	ter_rwlock_read_release(&tree->root_lock);
	return level;
}

/* The slot of the lost node of @level in its parent, which can be read. */
static int lost_child(struct ter_btree *tree, unsigned level, struct ter_pos pos, struct ter_lost_node *ret)
{
	struct ter_node *parent;
	uint32_t idx;
	int r = ter_descend(tree, level + 1, pos, 0, NULL, &parent, NULL);

	if (r < 0)
		return r;
	idx = ter_keyset_skip(&parent->keys, ter_keyset_lower(&parent->keys, pos));
	r = idx < parent->keys.nr ? ter_node_ptrs_decode(&tree->bt->geo, ter_keyset_at(&parent->keys, idx), &ret->ptrs) : -EUCLEAN;
	if (r == 0)
		ret->max = ter_keyset_pos(&parent->keys, idx);
	if (r == 0 && (ter_pos_cmp(ret->ptrs.min, pos) > 0 || !ter_node_covers(parent, ret->max)))
		r = -EUCLEAN;
	ret->min = ret->ptrs.min;
	ter_node_unlock_read(parent);
	return r;
}

/* The highest node on the way to @pos that cannot be read. */
static int find_lost(struct ter_btree *tree, unsigned root_level, unsigned level, struct ter_pos pos, struct ter_lost_node *ret)
{
	struct ter_node *node;
	unsigned at;
	int r;

	*ret = (struct ter_lost_node){ .btree = tree->id };
	for (at = root_level; at > level; at--) {
		r = ter_descend(tree, at, pos, 0, NULL, &node, NULL);
		if (is_loss(r))
			break;
		if (r < 0)
			return r;
		ter_node_unlock_read(node);
	}
	ret->level = (uint8_t)at;
	if (at < root_level)
		return lost_child(tree, at, pos, ret);
	ret->is_root = true;
	ret->min = TER_POS_MIN;
	ret->max = TER_POS_MAX;
	(void)root_of(tree, &ret->ptrs);
	return 0;
}

/* The children of a good node are told of; they follow each other. */
static int tell_children(const struct ter_node *node, const struct ter_node_walk *walk)
{
	struct ter_pos next = node->min;
	struct ter_node_ptrs ptrs;
	int r;

	for (uint32_t i = 0; i < node->keys.nr; i++) {
		if (!ter_keyset_live(&node->keys, i))
			continue;
		r = ter_node_ptrs_decode(&node->tree->bt->geo, ter_keyset_at(&node->keys, i), &ptrs);
		if (r < 0)
			return r;
		if (ter_pos_cmp(ptrs.min, next))
			return -EUCLEAN;
		next = ter_pos_next(ter_keyset_pos(&node->keys, i));
		r = walk->ptrs ? walk->ptrs(walk->arg, (enum ter_btree_id)node->tree->id, node->level - 1u, ter_keyset_pos(&node->keys, i), &ptrs) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int walk_level(struct ter_btree *tree, unsigned root_level, unsigned level, const struct ter_node_walk *walk)
{
	struct ter_pos pos = TER_POS_MIN, max;
	struct ter_lost_node lost;
	struct ter_node *node;
	int r;

	for (;; pos = ter_pos_next(max)) {
		r = ter_descend(tree, level, pos, 0, NULL, &node, NULL);
		if (r == 0) {
			max = node->max;
			r = level ? tell_children(node, walk) : 0;
			ter_node_unlock_read(node);
		} else if (is_loss(r)) {
			r = find_lost(tree, root_level, level, pos, &lost);
			max = lost.max;
			if (r == 0 && lost.level == level)
				r = walk->lost(walk->arg, &lost);
		}
		if (r < 0)
			return r == -ENOENT ? -ERESTART : r;
		if (!ter_pos_cmp(max, TER_POS_MAX))
			return 0;
	}
}

int ter_btree_walk_lost(struct ter_btrees *bt, enum ter_btree_id btree, const struct ter_node_walk *walk)
{
	struct ter_btree *tree = &bt->tree[btree];
	struct ter_node_ptrs ptrs;
	const unsigned root_level = root_of(tree, &ptrs);
	int r = 0;

	if (ptrs.nr && walk->ptrs)
		r = walk->ptrs(walk->arg, btree, root_level, TER_POS_MAX, &ptrs);
	for (int level = (int)root_level; level >= 0 && r >= 0; level--)
		r = walk_level(tree, root_level, (unsigned)level, walk);
	return ter_min(r, 0);
}

/* --- what lies on the members --- */

static int read_place(struct ter_btrees *bt, unsigned dev_idx, uint64_t sector, void *buf, uint32_t bytes)
{
	struct ter_dev *dev = ter_member(bt->config.members, dev_idx);

	if (!dev || !ter_dev_online(dev) || (sector << TER_SECTOR_SHIFT) + bt->geo.node_bytes > dev->bytes)
		return -ENODEV;
	return ter_dev_read(dev, sector << TER_SECTOR_SHIFT, buf, bytes);
}

static bool head_is(const struct ter_btrees *bt, const struct ter_node_disk *head, unsigned btree, unsigned level)
{
	return ter_le64_get(head->magic) == (TER_NODE_MAGIC ^ bt->geo.uuid_xor) && head->btree == btree && head->level == level;
}

static struct ter_pos pos_of(const struct ter_pos_disk *disk)
{
	return TER_POS(ter_le64_get(disk->inode), ter_le64_get(disk->offset), ter_le32_get(disk->snapshot));
}

bool ter_btree_node_is_at(struct ter_btrees *bt, enum ter_btree_id btree, unsigned level, struct ter_pos max, unsigned dev_idx, uint64_t sector)
{
	_cleanup_free_ struct ter_node_disk *head = ter_malloc_aligned(bt->geo.block_bytes, ter_node_buf_align(bt));

	if (!head || read_place(bt, dev_idx, sector, head, bt->geo.block_bytes) < 0)
		return false;
	return head_is(bt, head, btree, level) && !ter_pos_cmp(pos_of(&head->max), max);
}

/* @buf: what lies there. */
static int decode(struct ter_btrees *bt, unsigned dev_idx, uint64_t sector, void *buf, struct ter_found_node *ret, struct ter_node_content *content)
{
	const uint64_t seq_max = bt->journal ? ter_journal_open_seq(bt->journal) : UINT64_MAX;
	struct ter_node_id id;
	int r;

	r = ter_node_decode_found(&bt->geo, buf, seq_max, &id, &ret->written_bytes, content);
	if (r < 0)
		return r == -ENOMEM ? r : -ENODATA;
	ret->node_seq = id.node_seq;
	ret->min = id.min;
	ret->max = id.max;
	ret->btree = id.btree;
	ret->level = id.level;
	ret->dev = (uint8_t)dev_idx;
	ret->sector = sector;
	return 0;
}

static int load(struct ter_btrees *bt, unsigned dev_idx, uint64_t sector, struct ter_found_node *ret, struct ter_node_content *content)
{
	_cleanup_free_ void *buf = ter_malloc_aligned(bt->geo.node_bytes, ter_node_buf_align(bt));
	int r;

	if (!buf)
		return -ENOMEM;
	r = read_place(bt, dev_idx, sector, buf, bt->geo.node_bytes);
	if (r < 0)
		return r == -ENOMEM ? r : -ENODATA;
	return decode(bt, dev_idx, sector, buf, ret, content);
}

static bool is_leaf(struct ter_btrees *bt, const struct ter_node_disk *head)
{
	if (ter_le64_get(head->magic) != (TER_NODE_MAGIC ^ bt->geo.uuid_xor))
		return false;
	ter_node_seq_seen(bt, ter_le64_get(head->node_seq)); /* a new node must be newer than all that a later search may find */
	return !head->level;
}

int ter_btree_look_for_node(struct ter_btrees *bt, unsigned dev_idx, uint64_t sector, struct ter_found_node *ret)
{
	_cleanup_free_ struct ter_node_disk *head = ter_malloc_aligned(bt->geo.block_bytes, ter_node_buf_align(bt));
	struct ter_node_content content;
	int r;

	if (!head)
		return -ENOMEM;
	r = read_place(bt, dev_idx, sector, head, bt->geo.block_bytes);
	if (r < 0 || !is_leaf(bt, head))
		return -ENODATA;
	r = load(bt, dev_idx, sector, ret, &content);
	if (r == 0)
		ter_keyset_free(&content.keys);
	return r;
}

int ter_btree_look_at_node(struct ter_btrees *bt, unsigned dev_idx, uint64_t sector, void *bytes, struct ter_found_node *ret)
{
	struct ter_node_content content;
	int r;

	if (!is_leaf(bt, bytes))
		return -ENODATA;
	r = decode(bt, dev_idx, sector, bytes, ret, &content);
	if (r == 0)
		ter_keyset_free(&content.keys);
	return r;
}

int ter_btree_load_found(struct ter_btrees *bt, const struct ter_found_node *found, uint8_t **ret_keys, uint32_t *ret_bytes)
{
	struct ter_node_content content;
	struct ter_found_node now;
	uint8_t *keys;
	int r = load(bt, found->dev, found->sector, &now, &content);

	if (r < 0)
		return r;
	keys = ter_malloc(ter_max(content.keys.live_bytes, 1u));
	if (keys) {
		*ret_bytes = content.keys.live_bytes;
		(void)ter_keyset_snap_live(&content.keys, keys); /* all clean: only copies */
		*ret_keys = keys;
	}
	ter_keyset_free(&content.keys);
	return keys ? 0 : -ENOMEM;
}
