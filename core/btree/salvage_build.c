/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Salvage: building what takes the place of a lost node, from the leaves up. */
#include "btree/btree_priv.h"
#include "btree/salvage.h"

/* The keys of one node that is being filled; the lost node's own level grows beyond one node and is cut when it is exchanged. */
struct row {
	uint8_t *keys;
	uint32_t bytes, bytes_max, nr;
	struct ter_pos min, last;
};

struct build {
	struct ter_btrees *bt;
	const struct ter_lost_node *lost;
	struct row row[TER_BTREE_DEPTH_MAX];
};

static int add_key(struct build *b, unsigned level, const struct ter_key_disk *key);

struct stage_arg {
	struct build *b;
	unsigned level;
	struct ter_pos max;
	const struct ter_node_ptrs *ptrs;
};

static int stage_fn(struct ter_trans *trans, void *arg)
{
	const struct stage_arg *a = arg;

	return a->b->bt->hooks.node_stage(a->b->bt->hooks.arg, trans, (enum ter_btree_id)a->b->lost->btree, a->level, a->max, a->ptrs, 1);
}

static int write_image(struct build *b, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	struct ter_btrees *bt = b->bt;
	const struct row *row = &b->row[level];
	const struct ter_node_id id = { .btree = b->lost->btree, .level = (uint8_t)level, .min = row->min, .max = max, .node_seq = ptrs->node_seq };
	_cleanup_free_ uint8_t *buf = ter_malloc_aligned((size_t)ptrs->sectors_written << TER_SECTOR_SHIFT, ter_node_buf_align(bt));
	struct ter_node_write_io io = { .ptrs = ptrs, .sectors = ptrs->sectors_written, .buf = buf };
	int r;

	if (!buf)
		return -ENOMEM;
	if (row->bytes)
		memcpy(buf + TER_NODE_HEAD_BYTES, row->keys, row->bytes);
	ter_bset_finish(&bt->geo, buf, &id, id.node_seq, 0, row->bytes, row->nr);
	r = ter_node_write_all(bt, &io, 1);
	return r < 0 ? r : ter_node_landed(bt, &io) ? 0 : -EIO;
}

/* The row becomes a node up to @max, and a key of the row above. */
static int flush_row(struct build *b, unsigned level, struct ter_pos max)
{
	struct row *row = &b->row[level];
	struct ter_btrees *bt = b->bt;
	struct ter_node_ptrs ptrs = { 0 };
	struct stage_arg stage = { b, level, max, &ptrs };
	uint64_t raw[(sizeof(struct ter_key_disk) + sizeof(struct ter_btree_ptr_disk)) / 8];
	struct ter_btree_ptr_disk disk;
	struct ter_key key = { .pos = max, .type = TER_KEY_BTREE_PTR, .val = &disk };
	int r;

	r = bt->hooks.node_alloc(bt->hooks.arg, false, &ptrs);
	if (r < 0)
		return r;
	ptrs.node_seq = atomic_fetch_add(&bt->next_node_seq, 1);
	ptrs.min = row->min;
	ptrs.sectors_written = ter_bset_sectors(&bt->geo, true, row->bytes);
	r = write_image(b, level, max, &ptrs);
	if (r == 0)
		r = ter_trans_run(bt, TER_TRANS_RECLAIM, stage_fn, &stage, NULL); /* V3 */
	bt->hooks.node_alloc_done(bt->hooks.arg, &ptrs, r == 0);
	if (r < 0)
		return r;
	key.val_bytes = ter_node_ptrs_encode(&ptrs, &disk);
	ter_key_encode(&key, raw);
	row->bytes = row->nr = 0;
	if (ter_pos_cmp(max, TER_POS_MAX) < 0)
		row->min = ter_pos_next(max);
	return add_key(b, level + 1, (const struct ter_key_disk *)raw);
}

static int grow(struct row *row, uint32_t whole)
{
	uint32_t max = ter_max(row->bytes_max, (uint32_t)TER_KIB(16));
	uint8_t *keys;

	while (max - row->bytes < whole) {
		if (max > UINT32_MAX / 2)
			return -E2BIG;
		max *= 2;
	}
	if (max == row->bytes_max)
		return 0;
	keys = ter_realloc_array(row->keys, max, 1);
	if (!keys)
		return -ENOMEM;
	row->keys = keys;
	row->bytes_max = max;
	return 0;
}

static int add_key(struct build *b, unsigned level, const struct ter_key_disk *key)
{
	struct row *row = &b->row[level];
	const uint32_t whole = ter_key_whole_bytes(key);
	int r;

	if (level < b->lost->level && row->nr && (row->bytes + whole > ter_node_capacity(&b->bt->geo) || row->bytes >= b->bt->split_bytes / 3 * 2)) {
		r = flush_row(b, level, row->last);
		if (r < 0)
			return r;
	}
	if (row->bytes > (uint64_t)ter_node_capacity(&b->bt->geo) * (TER_NODE_SPLIT_MAX / 2))
		return -E2BIG;
	r = grow(row, whole);
	if (r < 0)
		return r;
	memcpy(row->keys + row->bytes, key, whole);
	row->bytes += whole;
	row->nr++;
	row->last = ter_key_disk_pos(key);
	return 0;
}

static int fill(struct build *b, int (*next)(void *arg, const struct ter_key_disk **ret), void *arg)
{
	struct ter_pos last = b->lost->min;
	const struct ter_key_disk *key;
	bool any = false;
	int r;

	while ((r = next(arg, &key)) > 0) {
		const struct ter_pos pos = ter_key_disk_pos(key);

		assert(ter_pos_cmp(pos, last) >= (any ? 1 : 0) && ter_pos_cmp(pos, b->lost->max) <= 0);
		last = pos;
		any = true;
		r = add_key(b, 0, key);
		if (r < 0)
			return r;
	}
	for (unsigned level = 0; level < b->lost->level && r >= 0; level++)
		r = flush_row(b, level, b->lost->max);
	return r;
}

/* In memory the node is what was built; writing it anew makes that true. */
static int exchange(struct build *b)
{
	const struct ter_lost_node *lost = b->lost;
	struct ter_btree *tree = &b->bt->tree[lost->btree];
	const struct ter_node_id id = { .btree = lost->btree, .level = lost->level, .min = lost->min, .max = lost->max, .node_seq = lost->ptrs.node_seq };
	const struct row *row = &b->row[lost->level];
	struct ter_node_content content = { 0 };
	int r;

	ter_keyset_init(&content.keys, lost->level > 0);
	r = ter_keyset_merge(&content.keys, row->keys, row->bytes, row->nr);
	if (r < 0) {
		ter_keyset_free(&content.keys);
		return r;
	}
	atomic_fetch_add(&b->bt->no_evict, 1); /* it could not be read again */
	r = ter_node_install(tree, &id, &lost->ptrs, &content, true);
	if (r == 0)
		r = ter_btree_rewrite_node(b->bt, (enum ter_btree_id)lost->btree, lost->level, lost->max);
	atomic_fetch_sub(&b->bt->no_evict, 1);
	return r;
}

/* V2 */
static int let_go_of_journal(struct ter_btrees *bt)
{
	int r = ter_btrees_flush(bt);

	if (r >= 0)
		r = ter_journal_reclaim_to(bt->journal, ter_journal_open_seq(bt->journal));
	if (r < 0)
		return r;
	ter_journal_want_roots(bt->journal);
	return ter_journal_flush(bt->journal, ter_journal_open_seq(bt->journal));
}

int ter_btree_replace_lost(struct ter_btrees *bt, const struct ter_lost_node *lost, int (*next)(void *arg, const struct ter_key_disk **ret), void *arg)
{
	struct build b = { .bt = bt, .lost = lost };
	int r;

	if (!bt->journal || !bt->hooks.node_alloc)
		return -EROFS;
	if (lost->level >= TER_BTREE_DEPTH_MAX)
		return -EUCLEAN;
	for (unsigned level = 0; level <= lost->level; level++)
		b.row[level].min = lost->min;
	r = let_go_of_journal(bt);
	if (r >= 0)
		r = fill(&b, next, arg);
	if (r >= 0)
		r = exchange(&b);
	for (unsigned level = 0; level <= lost->level; level++)
		free(b.row[level].keys);
	return r;
}
