/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staging: what follows from linking or unlinking a pointer
 *
 * A function of what the transaction reads, nothing else: it may run again after -ERESTART, or never be committed. Reads of one transaction are not of one moment. So where two keys
 * contradict each other the first is read again: had it changed, the contradiction was only seen between two commits.
 */
#include "alloc/alloc_priv.h"
#include "alloc/free_space.h"

int ter_bucket_get(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket, struct ter_key *ret_key, const struct ter_key **ret_old,
		   struct ter_bucket_value *ret)
{
	int r = ter_trans_get(trans, TER_BTREE_ALLOC, ter_bucket_pos(dev->idx, bucket), ret_key);

	if (r == -ENOENT) {
		*ret_old = TER_KEY_ABSENT;
		*ret = (struct ter_bucket_value){ 0 };
		return 0;
	}
	if (r < 0)
		return r;
	*ret_old = ret_key;
	return ter_bucket_decode(ret_key, dev, ret);
}

static bool same_value(const struct ter_bucket_value *a, const struct ter_bucket_value *b)
{
	return a->gen == b->gen && a->live_sectors == b->live_sectors && a->data_type == b->data_type && a->need_discard == b->need_discard;
}

/* An index contradicts the alloc key: corruption, unless that has changed meanwhile. */
static int contradiction(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket, const struct ter_bucket_value *seen)
{
	struct ter_bucket_value now;
	const struct ter_key *old;
	struct ter_key key;
	int r = ter_bucket_get(trans, dev, bucket, &key, &old, &now);

	if (r < 0)
		return r;
	return same_value(seen, &now) ? -EUCLEAN : -ERESTART;
}

/* --- the member's counters --- */

struct dev_row {
	enum ter_data_type type; /* FREE: counted nowhere */
	int64_t counters[3];     /* buckets, live sectors, fragmented sectors */
};

static struct dev_row dev_row(const struct ter_dev *dev, const struct ter_bucket_value *v)
{
	switch (ter_bucket_state(v)) {
	case TER_BUCKET_USED:
		return (struct dev_row){ (enum ter_data_type)v->data_type,
					 { 1, v->live_sectors, v->live_sectors < dev->bucket_sectors ? dev->bucket_sectors - v->live_sectors : 0 } };
	case TER_BUCKET_EMPTY:
		return (struct dev_row){ TER_DATA_NEED_DISCARD, { 1, 0, 0 } };
	default:
		return (struct dev_row){ TER_DATA_FREE, { 0 } };
	}
}

static int add_row(struct ter_trans *trans, const struct ter_dev *dev, enum ter_data_type type, const int64_t counters[3])
{
	if (type == TER_DATA_FREE || (!counters[0] && !counters[1] && !counters[2]))
		return 0;
	return ter_trans_add(trans, ter_counter_dev(type, dev->idx), counters, 3);
}

int ter_stage_dev_counters_(struct ter_trans *trans, const struct ter_dev *dev, const struct ter_bucket_value *from, const struct ter_bucket_value *to)
{
	struct dev_row minus = dev_row(dev, from), plus = dev_row(dev, to);
	int r;

	for (unsigned i = 0; i < 3; i++)
		minus.counters[i] = minus.type == plus.type ? 0 : -minus.counters[i];
	if (minus.type == plus.type) {
		struct dev_row before = dev_row(dev, from);

		for (unsigned i = 0; i < 3; i++)
			plus.counters[i] -= before.counters[i];
	}
	r = add_row(trans, dev, minus.type, minus.counters);
	if (r < 0)
		return r;
	return add_row(trans, dev, plus.type, plus.counters);
}

/* --- one bucket --- */

static int need_discard_set(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket)
{
	struct ter_key key = { .pos = ter_bucket_pos(dev->idx, bucket), .type = TER_KEY_SET }, old;
	int r = ter_trans_get(trans, TER_BTREE_NEED_DISCARD, key.pos, &old);

	if (!r)
		return -EEXIST;
	if (r != -ENOENT)
		return r;
	return ter_trans_update(trans, TER_BTREE_NEED_DISCARD, key.pos, TER_KEY_ABSENT, &key);
}

static int need_discard_clear(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket)
{
	struct ter_key old;
	int r = ter_trans_get(trans, TER_BTREE_NEED_DISCARD, ter_bucket_pos(dev->idx, bucket), &old);

	if (r == -ENOENT)
		return -ENODATA;
	if (r < 0)
		return r;
	return ter_trans_update(trans, TER_BTREE_NEED_DISCARD, old.pos, &old, NULL);
}

/* B3. -EEXIST and -ENODATA: an index says otherwise. */
static int stage_indexes(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket, enum ter_bucket_state from, enum ter_bucket_state to)
{
	int r = 0;

	if (from == to)
		return 0;
	if (from == TER_BUCKET_FREE)
		r = ter_free_space_take(trans, dev, bucket);
	else if (from == TER_BUCKET_EMPTY)
		r = need_discard_clear(trans, dev, bucket);
	if (r < 0)
		return r;
	if (to == TER_BUCKET_FREE)
		r = ter_free_space_give(trans, dev, bucket);
	else if (to == TER_BUCKET_EMPTY)
		r = need_discard_set(trans, dev, bucket);
	return r;
}

int ter_bucket_stage(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket, const struct ter_key *old,
		     const struct ter_bucket_value *from, const struct ter_bucket_value *to)
{
	struct ter_alloc_disk d;
	struct ter_key key = { .pos = ter_bucket_pos(dev->idx, bucket), .val_bytes = sizeof(d), .type = TER_KEY_ALLOC, .val = &d };
	int r = stage_indexes(trans, dev, bucket, ter_bucket_state(from), ter_bucket_state(to));

	if (r == -EEXIST || r == -ENODATA)
		return contradiction(trans, dev, bucket, from);
	if (r < 0)
		return r;
	assert(to->gen >= from->gen); /* B1 */
	ter_bucket_encode(to, &d);
	r = ter_trans_update(trans, TER_BTREE_ALLOC, key.pos, old, &key);
	if (r < 0)
		return r;
	return ter_stage_dev_counters_(trans, dev, from, to);
}

/* --- pointers --- */

static int link_backpointer(struct ter_trans *trans, struct ter_pos pos, const struct ter_backpointer *bp)
{
	struct ter_backpointer_disk d;
	struct ter_key key = { .pos = pos, .val_bytes = sizeof(d), .type = TER_KEY_BACKPOINTER, .val = &d }, old;
	int r = ter_trans_get(trans, TER_BTREE_BACKPOINTERS, pos, &old);

	if (!r)
		return -EUCLEAN;
	if (r != -ENOENT)
		return r;
	ter_backpointer_encode(bp, &d);
	return ter_trans_update(trans, TER_BTREE_BACKPOINTERS, pos, TER_KEY_ABSENT, &key);
}

static int unlink_backpointer(struct ter_trans *trans, const struct ter_dev *dev, struct ter_pos pos, const struct ter_backpointer *bp)
{
	struct ter_backpointer there;
	struct ter_key old;
	int r = ter_trans_get(trans, TER_BTREE_BACKPOINTERS, pos, &old);

	if (r == -ENOENT)
		return -EUCLEAN;
	if (r < 0)
		return r;
	r = ter_backpointer_decode(&old, dev, &there);
	if (r < 0)
		return r;
	if (ter_pos_cmp(there.pos, bp->pos) || there.sectors != bp->sectors || there.btree != bp->btree || there.level != bp->level)
		return -EUCLEAN;
	return ter_trans_update(trans, TER_BTREE_BACKPOINTERS, pos, &old, NULL);
}

int ter_alloc_stage_ptr(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_bp_target *who, const struct ter_ptr_ref *ptr,
			enum ter_data_type data_type, int sign)
{
	const struct ter_dev *dev = ter_member(alloc->members, ptr->dev);
	struct ter_backpointer bp = { .pos = who->pos, .sectors = ptr->sectors, .btree = who->btree, .level = who->level };
	struct ter_bucket_value from, to;
	const struct ter_key *old;
	struct ter_key key;
	struct ter_pos bp_pos;
	uint64_t bucket;
	int r;

	assert(sign == 1 || sign == -1);
	assert(data_type >= TER_DATA_BTREE && data_type < TER_DATA_NEED_DISCARD);
	if (ter_unlikely(atomic_load_explicit(&alloc->guard, memory_order_relaxed) != NULL))
		return ter_stage_ptr_anyhow_(alloc, trans, who, ptr, data_type, sign);
	if (!dev)
		return -EUCLEAN;
	bucket = ptr->sector / dev->bucket_sectors;
	if (bucket >= dev->buckets_nr || !ptr->sectors || ptr->sectors > dev->bucket_sectors || ptr->live_offset >= TER_LIVE_OFFSET_MAX)
		return -EUCLEAN;

	r = ter_bucket_get(trans, dev, bucket, &key, &old, &from);
	if (r < 0)
		return r;
	if (from.gen != ptr->gen || (from.live_sectors && from.data_type != data_type))
		return -EUCLEAN;
	to = from;
	if (sign > 0) {
		if ((uint64_t)from.live_sectors + ptr->sectors > TER_ALLOC_LIVE_MAX(dev->bucket_sectors))
			return -EUCLEAN;
		to.live_sectors += ptr->sectors;
		to.data_type = (uint8_t)data_type;
		to.need_discard = true;
	} else {
		if (from.live_sectors < ptr->sectors)
			return -EUCLEAN;
		to.live_sectors -= ptr->sectors;
	}

	bp_pos = ter_backpointer_pos(dev->idx, ptr->sector, ptr->live_offset);
	r = sign > 0 ? link_backpointer(trans, bp_pos, &bp) : unlink_backpointer(trans, dev, bp_pos, &bp);
	if (r < 0)
		return r;
	return ter_bucket_stage(trans, dev, bucket, old, &from, &to);
}

int ter_alloc_stage_replicas(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_replicas_entry *entry, int64_t sectors)
{
	if (!sectors || !ter_counter_writable_(alloc, trans, ter_counter_replicas(entry)))
		return 0;
	return ter_trans_add(trans, ter_counter_replicas(entry), &sectors, 1);
}
