/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Encoding and checked decoding of what the allocator keeps in btrees. */
#include "alloc/alloc_format.h"

static bool all_zero(const uint8_t *bytes, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		if (bytes[i])
			return false;
	return true;
}

static bool bucket_valid(const struct ter_dev *dev, uint64_t bucket)
{
	return bucket < dev->buckets_nr;
}

int ter_bucket_decode(const struct ter_key *key, const struct ter_dev *dev, struct ter_bucket_value *ret)
{
	struct ter_alloc_disk d;
	struct ter_bucket_value v;

	if (key->type != TER_KEY_ALLOC || key->val_version || key->val_bytes != sizeof(d) || key->size || key->pos.snapshot ||
	    key->pos.inode != dev->idx || !bucket_valid(dev, key->pos.offset))
		return -EUCLEAN;
	memcpy(&d, key->val, sizeof(d));
	v = (struct ter_bucket_value){
		.gen = ter_le32_get(d.gen),
		.live_sectors = ter_le32_get(d.live_sectors),
		.data_type = d.data_type,
		.need_discard = d.flags & TER_ALLOC_NEED_DISCARD,
	};
	if (d.flags & ~TER_ALLOC_NEED_DISCARD || !all_zero(d.zero, sizeof(d.zero)) || ter_le32_get(d.zero2) || v.data_type >= TER_DATA_NEED_DISCARD ||
	    v.live_sectors > TER_ALLOC_LIVE_MAX(dev->bucket_sectors))
		return -EUCLEAN;
	if ((v.data_type == TER_DATA_FREE) != (ter_bucket_state(&v) == TER_BUCKET_FREE))
		return -EUCLEAN;
	if (v.live_sectors && !v.need_discard && v.data_type != TER_DATA_SB && v.data_type != TER_DATA_JOURNAL)
		return -EUCLEAN;
	*ret = v;
	return 0;
}

void ter_bucket_encode(const struct ter_bucket_value *value, struct ter_alloc_disk *ret)
{
	*ret = (struct ter_alloc_disk){
		.gen = ter_le32_make(value->gen),
		.data_type = value->data_type,
		.flags = value->need_discard ? TER_ALLOC_NEED_DISCARD : 0,
		.live_sectors = ter_le32_make(value->live_sectors),
	};
}

int ter_backpointer_decode(const struct ter_key *key, const struct ter_dev *dev, struct ter_backpointer *ret)
{
	uint64_t sector = key->pos.offset >> TER_BACKPOINTER_SHIFT;
	struct ter_backpointer_disk d;
	struct ter_backpointer bp;

	if (key->type != TER_KEY_BACKPOINTER || key->val_version || key->val_bytes != sizeof(d) || key->size || key->pos.snapshot ||
	    key->pos.inode != dev->idx || !bucket_valid(dev, sector / dev->bucket_sectors))
		return -EUCLEAN;
	memcpy(&d, key->val, sizeof(d));
	bp = (struct ter_backpointer){
		.pos = TER_POS(ter_le64_get(d.inode), ter_le64_get(d.offset), ter_le32_get(d.snapshot)),
		.sectors = ter_le32_get(d.sectors),
		.btree = d.btree,
		.level = d.level,
	};
	if (bp.btree >= TER_BTREE_NR || !all_zero(d.zero, sizeof(d.zero)) || !bp.sectors || bp.sectors > dev->bucket_sectors)
		return -EUCLEAN;
	*ret = bp;
	return 0;
}

void ter_backpointer_encode(const struct ter_backpointer *bp, struct ter_backpointer_disk *ret)
{
	*ret = (struct ter_backpointer_disk){
		.inode = ter_le64_make(bp->pos.inode),
		.offset = ter_le64_make(bp->pos.offset),
		.snapshot = ter_le32_make(bp->pos.snapshot),
		.sectors = ter_le32_make(bp->sectors),
		.btree = bp->btree,
		.level = bp->level,
	};
}

int ter_free_range_check(const struct ter_key *key, const struct ter_dev *dev)
{
	if (key->type != TER_KEY_FREE_RANGE || key->val_version || key->val_bytes || key->pos.snapshot || key->pos.inode != dev->idx ||
	    !key->size || key->size > key->pos.offset || key->pos.offset > dev->buckets_nr)
		return -EUCLEAN;
	return 0;
}

int ter_need_discard_check(const struct ter_key *key, const struct ter_dev *dev)
{
	if (key->type != TER_KEY_SET || key->val_version || key->val_bytes || key->size || key->pos.snapshot || key->pos.inode != dev->idx ||
	    !bucket_valid(dev, key->pos.offset))
		return -EUCLEAN;
	return 0;
}
