/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extents in transactions: punching and inserting with derived keys and counters
 *
 * A key keeps its position (its end) when its front is cut off, so such a cut is one update; a piece that ends where the punched range begins is a new key. All `old` keys are
 * what this transaction read, so a concurrent change of the same key makes it restart (T3).
 */
#include "alloc/accounting.h"
#include "data/data_priv.h"

int ter_extents_next(struct ter_trans *trans, uint64_t inum, uint32_t snapshot, uint64_t start, struct ter_key *ret)
{
	struct ter_pos from = TER_POS(inum, start + 1, 0), to = TER_POS(inum, UINT64_MAX, UINT32_MAX);
	struct ter_key key;
	int r;

	for (;;) {
		r = ter_trans_next(trans, TER_BTREE_EXTENTS, from, to, &key);
		if (r < 0)
			return r;
		if (!key.size || key.pos.offset < key.size)
			return -EUCLEAN;
		if (key.pos.snapshot == snapshot) {
			*ret = key;
			return 0;
		}
		from = ter_pos_next(key.pos);
	}
}

static int count_promise(struct ter_trans *trans, int64_t sectors)
{
	return ter_trans_add(trans, ter_counter_reserved(), &sectors, 1);
}

static int count_compression(struct ter_trans *trans, const struct ter_extent *e, int sign)
{
	int64_t deltas[3] = { sign, sign * (int64_t)e->sectors, sign * (int64_t)ter_extent_ptr_sectors(e) };

	return e->compression_slot ? ter_trans_add(trans, ter_counter_compression(e->compression_slot), deltas, 3) : 0;
}

/* Everything that follows from an EXTENT key's being there (+1) or not (-1). */
static int stage_derived(struct ter_alloc *alloc, struct ter_trans *trans, struct ter_pos pos, const struct ter_extent *e, int sign)
{
	const struct ter_bp_target who = { .btree = TER_BTREE_EXTENTS, .level = 0, .pos = pos };
	struct ter_replicas_entry entry;
	int r;

	for (unsigned i = 0; i < e->nr_ptrs; i++) {
		const struct ter_ptr_ref ref = {
			.dev = e->ptr[i].dev,
			.gen = e->ptr[i].gen,
			.sector = e->ptr[i].sector,
			.sectors = ter_extent_ptr_sectors(e),
			.live_offset = e->live_offset,
		};

		r = ter_alloc_stage_ptr(alloc, trans, &who, &ref, e->ptr[i].flags & TER_PTR_CACHED ? TER_DATA_CACHED : TER_DATA_USER, sign);
		if (r < 0)
			return r;
	}
	ter_extent_replicas(e, &entry);
	if (entry.nr_devs) {
		r = ter_alloc_stage_replicas(alloc, trans, &entry, sign * (int64_t)e->sectors);
		if (r < 0)
			return r;
	}
	return count_compression(trans, e, sign);
}

/* The key of what is left of @key in [start, end). @val: TER_EXTENT_VAL_MAX bytes for an EXTENT's value. */
static void cut_key(const struct ter_key *key, const struct ter_extent *extent, uint64_t start, uint64_t end, void *val, struct ter_extent *ret_extent,
		    struct ter_key *ret)
{
	uint64_t skip_bytes = (start - ter_key_start(key)) << TER_SECTOR_SHIFT, keep_bytes = (end - start) << TER_SECTOR_SHIFT;

	*ret = *key;
	ret->pos.offset = end;
	ret->size = (uint32_t)(end - start);
	if (key->type == TER_KEY_EXTENT) {
		*ret_extent = *extent;
		ter_extent_cut(ret_extent, start, end);
		ret->val_bytes = ter_extent_encode(ret_extent, val);
		ret->val = val;
	} else if (key->type == TER_KEY_INLINE_DATA) {
		skip_bytes = ter_min(skip_bytes, (uint64_t)key->val_bytes);
		ret->val_bytes = (uint32_t)ter_min(key->val_bytes - skip_bytes, keep_bytes);
		memcpy(val, (const uint8_t *)key->val + skip_bytes, ret->val_bytes);
		ret->val = val;
	}
}

static int stage_piece(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_key *key, const struct ter_extent *extent, uint64_t start, uint64_t end)
{
	uint64_t val[TER_EXTENT_VAL_MAX / 8];
	struct ter_extent e = { 0 };
	struct ter_key piece;
	int r;

	cut_key(key, extent, start, end, val, &e, &piece);
	if (piece.type == TER_KEY_INLINE_DATA && !piece.val_bytes)
		return end == key->pos.offset ? ter_trans_update(trans, TER_BTREE_EXTENTS, key->pos, key, NULL) : 0; /* only zeros are left */
	r = ter_trans_update(trans, TER_BTREE_EXTENTS, piece.pos, end == key->pos.offset ? key : TER_KEY_ABSENT, &piece);
	if (r < 0)
		return r;
	return key->type == TER_KEY_EXTENT ? stage_derived(alloc, trans, piece.pos, &e, +1) : 0;
}

static uint32_t piece_sectors(const struct ter_key *key, uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	if (key->type == TER_KEY_INLINE_DATA && ((start - ter_key_start(key)) << TER_SECTOR_SHIFT) >= key->val_bytes)
		return 0;
	return key->type == TER_KEY_ERROR ? 0 : (uint32_t)(end - start);
}

static int check_key(const struct ter_key *key)
{
	switch (key->type) {
	case TER_KEY_INLINE_DATA:
		return key->val_bytes && key->val_bytes <= TER_EXTENT_VAL_MAX - 8 && key->val_bytes <= (uint64_t)key->size << TER_SECTOR_SHIFT ? 0 : -EUCLEAN;
	case TER_KEY_RESERVATION:
	case TER_KEY_ERROR:
	case TER_KEY_EXTENT:
		return 0;
	default:
		return -EUCLEAN;
	}
}

/* One key that overlaps [start, end). */
static int punch_key(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_sb *sb, const struct ter_key *key, uint64_t start, uint64_t end,
		     struct ter_punch_result *res)
{
	uint64_t key_start = ter_key_start(key), key_end = key->pos.offset;
	uint64_t left = ter_max(start, key_start), right = ter_min(end, key_end); /* they overlap */
	struct ter_extent extent = { 0 };
	int r;

	r = check_key(key);
	if (r >= 0 && key->type == TER_KEY_EXTENT) {
		r = ter_extent_decode(key, sb, &extent);
		if (r >= 0)
			r = stage_derived(alloc, trans, key->pos, &extent, -1);
	}
	if (r < 0)
		return r;
	res->sectors += (int64_t)piece_sectors(key, key_start, left) + piece_sectors(key, right, key_end) - ter_extent_key_sectors(key);
	if (key->type == TER_KEY_RESERVATION) {
		res->promised_sectors += right - left;
		r = count_promise(trans, -(int64_t)(right - left));
		if (r < 0)
			return r;
	}
	if (left > key_start) {
		r = stage_piece(alloc, trans, key, &extent, key_start, left);
		if (r < 0)
			return r;
	}
	if (right < key_end)
		return stage_piece(alloc, trans, key, &extent, right, key_end);
	return ter_trans_update(trans, TER_BTREE_EXTENTS, key->pos, key, NULL);
}

int ter_extents_stage_punch_(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_sb *sb, uint64_t inum, uint32_t snapshot, uint64_t start, uint64_t end,
			     unsigned keys_max, struct ter_punch_result *ret)
{
	struct ter_punch_result res = { .done_to = end };
	uint64_t pos = start;
	int r;

	while (pos < end) {
		struct ter_key key;

		r = ter_extents_next(trans, inum, snapshot, pos, &key);
		if (r == -ENOENT)
			break;
		if (r < 0)
			return r;
		if (ter_key_start(&key) >= end)
			break;
		if (res.keys == keys_max) {
			res.done_to = ter_max(pos, ter_key_start(&key)); /* before @end */
			break;
		}
		res.keys++;
		pos = key.pos.offset;
		r = punch_key(alloc, trans, sb, &key, start, end, &res);
		if (r < 0)
			return r;
	}
	*ret = res;
	return 0;
}

int ter_extents_stage_punch(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_sb *sb, uint64_t inum, uint32_t snapshot, uint64_t start,
			    uint64_t end, unsigned keys_max, uint64_t *ret_done_to, int64_t *ret_sectors)
{
	struct ter_punch_result res;
	int r;

	r = ter_extents_stage_punch_(alloc, trans, sb, inum, snapshot, start, end, keys_max, &res);
	if (r < 0)
		return r;
	*ret_done_to = res.done_to;
	*ret_sectors = res.sectors;
	return 0;
}

int ter_extents_stage_trim(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_sb *sb, const struct ter_key *key, uint64_t start)
{
	struct ter_punch_result res = { 0 };

	if (!key->size || key->pos.offset < key->size || start <= ter_key_start(key))
		return -EUCLEAN;
	return punch_key(alloc, trans, sb, key, ter_key_start(key), ter_min(start, key->pos.offset), &res);
}

int ter_extents_stage_insert(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_sb *sb, const struct ter_key *key, int64_t *ret_sectors)
{
	struct ter_extent extent;
	struct ter_key old;
	const struct ter_key *was = TER_KEY_ABSENT;
	int r;

	r = check_key(key);
	if (r >= 0 && key->type == TER_KEY_EXTENT) {
		r = ter_extent_decode(key, sb, &extent);
		if (r >= 0)
			r = stage_derived(alloc, trans, key->pos, &extent, +1);
	} else if (r >= 0 && key->type == TER_KEY_RESERVATION) {
		r = count_promise(trans, key->size);
	}
	if (r < 0)
		return r;
	/* What was punched at this very position was staged with its own old value, which stays; anything else there would overlap. */
	r = ter_trans_get(trans, TER_BTREE_EXTENTS, key->pos, &old);
	if (r >= 0)
		return -EUCLEAN;
	if (r != -ENOENT)
		return r;
	r = ter_trans_update(trans, TER_BTREE_EXTENTS, key->pos, was, key);
	if (r < 0)
		return r;
	*ret_sectors = ter_extent_key_sectors(key);
	return 0;
}
