/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staging while a repair runs
 *
 * The same changes as stage.c makes, of keys that may be wrong already. As far as they were right they are right afterwards; what was wrong stays for the passes of the repair, which compare with
 * all pointers. So nothing here is -EUCLEAN.
 */
#include "alloc/alloc_priv.h"
#include "alloc/alloc_repair.h"
#include "alloc/free_space.h"

bool ter_counter_writable_(struct ter_alloc *alloc, struct ter_trans *trans, struct ter_pos pos)
{
	struct ter_key key;

	return !atomic_load_explicit(&alloc->guard, memory_order_relaxed) || !ter_alloc_lost_(ter_trans_get(trans, TER_BTREE_ACCOUNTING, pos, &key));
}

/* A key that cannot be valid counts for its generation alone. -ENODATA: it cannot be read. */
static int get_bucket(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket, struct ter_key *key, const struct ter_key **ret_old, struct ter_bucket_value *ret,
		      bool *ret_valid)
{
	int r;

	*ret_old = NULL;
	r = ter_bucket_get(trans, dev, bucket, key, ret_old, ret);
	*ret_valid = r == 0;
	if (ter_alloc_lost_(r) && !*ret_old)
		return -ENODATA;
	if (r != -EUCLEAN)
		return r;
	*ret = (struct ter_bucket_value){ .gen = ter_bucket_raw_gen_(key) };
	return 0;
}

static int stage_back(struct ter_trans *trans, const struct ter_bp_target *who, const struct ter_ptr_ref *ptr, const struct ter_dev *dev, int sign)
{
	const struct ter_pos pos = ter_backpointer_pos(ptr->dev, ptr->sector, ptr->live_offset);
	const struct ter_backpointer bp = { .pos = who->pos, .sectors = ptr->sectors, .btree = who->btree, .level = who->level };
	struct ter_backpointer_disk d;
	struct ter_key old, key = { .pos = pos, .val_bytes = sizeof(d), .type = TER_KEY_BACKPOINTER, .val = &d };
	struct ter_backpointer there;
	int r = ter_trans_get(trans, TER_BTREE_BACKPOINTERS, pos, &old);

	if (ter_alloc_lost_(r))
		return 0;
	if (r < 0 && r != -ENOENT)
		return r;
	if (sign > 0) {
		ter_backpointer_encode(&bp, &d);
		return ter_trans_update(trans, TER_BTREE_BACKPOINTERS, pos, r == -ENOENT ? TER_KEY_ABSENT : &old, &key);
	}
	if (r == -ENOENT || ter_backpointer_decode(&old, dev, &there) < 0)
		return 0;
	if (ter_pos_cmp(there.pos, bp.pos) || there.btree != bp.btree || there.level != bp.level)
		return 0; /* somebody else's */
	return ter_trans_update(trans, TER_BTREE_BACKPOINTERS, pos, &old, NULL);
}

static int stage_need_discard(struct ter_trans *trans, struct ter_pos pos, bool there)
{
	struct ter_key key = { .pos = pos, .type = TER_KEY_SET }, old;
	int r = ter_trans_get(trans, TER_BTREE_NEED_DISCARD, pos, &old);

	if (ter_alloc_lost_(r))
		return 0;
	if (r < 0 && r != -ENOENT)
		return r;
	if (there == (r == 0))
		return 0;
	return ter_trans_update(trans, TER_BTREE_NEED_DISCARD, pos, there ? TER_KEY_ABSENT : &old, there ? &key : NULL);
}

static int stage_indexes(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket, enum ter_bucket_state from, enum ter_bucket_state to)
{
	int r = 0;

	if (from == to)
		return 0;
	if (from == TER_BUCKET_FREE)
		r = ter_free_space_take(trans, dev, bucket);
	if (r < 0 && r != -ENODATA && !ter_alloc_lost_(r))
		return r;
	return stage_need_discard(trans, ter_bucket_pos(dev->idx, bucket), to == TER_BUCKET_EMPTY);
}

int ter_stage_ptr_anyhow_(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_bp_target *who, const struct ter_ptr_ref *ptr, enum ter_data_type data_type,
			  int sign)
{
	const struct ter_dev *dev = ter_member(alloc->members, ptr->dev);
	struct ter_bucket_value from, to;
	struct ter_alloc_disk d;
	const struct ter_key *old;
	struct ter_key key, new_key = { .val_bytes = sizeof(d), .type = TER_KEY_ALLOC, .val = &d };
	uint64_t bucket;
	bool valid;
	int r;

	if (!dev)
		return 0;
	bucket = ptr->sector / dev->bucket_sectors;
	if (bucket >= dev->buckets_nr || !ptr->sectors || ptr->sectors > dev->bucket_sectors || ptr->live_offset >= TER_LIVE_OFFSET_MAX ||
	    ter_bucket_fixed_type(dev, bucket) != TER_DATA_FREE)
		return 0;
	r = stage_back(trans, who, ptr, dev, sign);
	if (r < 0)
		return r;
	r = get_bucket(trans, dev, bucket, &key, &old, &from, &valid);
	if (r < 0)
		return r == -ENODATA ? 0 : r;
	to = from;
	if (sign > 0) {
		to.gen = ter_max(from.gen, ptr->gen);
		to.live_sectors = (uint32_t)ter_min((uint64_t)from.live_sectors + ptr->sectors, TER_ALLOC_LIVE_MAX(dev->bucket_sectors));
		to.data_type = (uint8_t)data_type;
		to.need_discard = true;
	} else if (!valid || from.gen != ptr->gen || !from.need_discard) {
		return 0;
	} else {
		to.live_sectors -= ter_min(from.live_sectors, ptr->sectors);
	}
	r = stage_indexes(trans, dev, bucket, ter_bucket_state(&from), ter_bucket_state(&to));
	if (r < 0)
		return r;
	new_key.pos = ter_bucket_pos(dev->idx, bucket);
	ter_bucket_encode(&to, &d);
	r = ter_trans_update(trans, TER_BTREE_ALLOC, new_key.pos, old, &new_key);
	if (r < 0 || !ter_counter_writable_(alloc, trans, ter_counter_dev((enum ter_data_type)to.data_type, dev->idx)) ||
	    !ter_counter_writable_(alloc, trans, ter_counter_dev((enum ter_data_type)from.data_type, dev->idx)))
		return r;
	return ter_stage_dev_counters_(trans, dev, &from, &to);
}
