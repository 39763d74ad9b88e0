/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Free ranges: take one bucket out, give one back. */
#include "alloc/free_space.h"

#include "alloc/alloc_format.h"

static int put_range(struct ter_trans *trans, const struct ter_dev *dev, uint64_t start, uint64_t end, const struct ter_key *old)
{
	struct ter_key key = { .pos = ter_bucket_pos(dev->idx, end), .size = (uint32_t)(end - start), .type = TER_KEY_FREE_RANGE };

	assert(start < end && end - start <= UINT32_MAX); /* ter_alloc_init_member() refuses larger members */
	return ter_trans_update(trans, TER_BTREE_FREESPACE, key.pos, old, &key);
}

/* The first range that ends beyond @bucket; -ENOENT. */
static int next_range(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket, struct ter_key *ret)
{
	int r = ter_trans_next(trans, TER_BTREE_FREESPACE, ter_bucket_pos(dev->idx, bucket + 1), ter_bucket_pos(dev->idx, UINT64_MAX), ret);

	if (r < 0)
		return r;
	return ter_free_range_check(ret, dev);
}

int ter_free_space_take(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket)
{
	uint64_t start, end;
	struct ter_key range;
	int r = next_range(trans, dev, bucket, &range);

	if (r == -ENOENT)
		return -ENODATA;
	if (r < 0)
		return r;
	start = ter_key_start(&range);
	end = range.pos.offset;
	if (start > bucket)
		return -ENODATA;
	if (bucket > start) {
		r = put_range(trans, dev, start, bucket, TER_KEY_ABSENT);
		if (r < 0)
			return r;
	}
	if (bucket + 1 < end)
		return put_range(trans, dev, bucket + 1, end, &range);
	return ter_trans_update(trans, TER_BTREE_FREESPACE, range.pos, &range, NULL);
}

int ter_free_space_give(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket)
{
	uint64_t start = bucket, end = bucket + 1;
	struct ter_key left, right;
	bool has_right = false;
	int r = next_range(trans, dev, bucket, &right);

	if (r < 0 && r != -ENOENT)
		return r;
	if (!r && ter_key_start(&right) <= bucket)
		return -EEXIST;
	if (!r && ter_key_start(&right) == end) {
		end = right.pos.offset;
		has_right = true;
	}
	r = ter_trans_get(trans, TER_BTREE_FREESPACE, ter_bucket_pos(dev->idx, bucket), &left);
	if (r < 0 && r != -ENOENT)
		return r;
	if (!r) {
		r = ter_free_range_check(&left, dev);
		if (r < 0)
			return r;
		start = ter_key_start(&left);
		r = ter_trans_update(trans, TER_BTREE_FREESPACE, left.pos, &left, NULL);
		if (r < 0)
			return r;
	}
	return put_range(trans, dev, start, end, has_right ? &right : TER_KEY_ABSENT);
}
