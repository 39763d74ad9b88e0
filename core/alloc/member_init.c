/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The first keys of a member: buckets of superblock and journal, everything else free. */
#include "alloc/alloc_priv.h"

#define KEYS_PER_TRANS 512

/* Superblock first, then the journal's runs by position: fixed[0..nr) ascending, not overlapping. */
struct init {
	const struct ter_dev *dev;
	struct ter_bucket_range fixed[TER_JOURNAL_RANGES_MAX + 1];
	unsigned nr;
	unsigned at;         /* range */
	uint64_t done_in_at; /* buckets of it */
	unsigned next_at;    /* where the transaction got to; taken over when it is committed */
	uint64_t next_done;
};

static int sort_ranges(struct init *init)
{
	const struct ter_dev *dev = init->dev;
	uint64_t end = 0;

	init->fixed[init->nr++] = (struct ter_bucket_range){ 0, dev->first_bucket };
	for (unsigned i = 0; i < TER_JOURNAL_RANGES_MAX && dev->journal[i].nr; i++) {
		unsigned at = init->nr++;

		for (; at > 1 && init->fixed[at - 1].first > dev->journal[i].first; at--)
			init->fixed[at] = init->fixed[at - 1];
		init->fixed[at] = dev->journal[i];
	}
	for (unsigned i = 0; i < init->nr; i++) {
		const struct ter_bucket_range *range = &init->fixed[i];

		if (range->first < end || range->nr > dev->buckets_nr || range->first > dev->buckets_nr - range->nr)
			return -EINVAL;
		end = range->first + range->nr;
	}
	return 0;
}

static int stage_fixed(struct ter_trans *trans, void *arg)
{
	struct init *init = arg;
	const struct ter_dev *dev = init->dev;
	int64_t counters[2][3] = { 0 }; /* superblock, journal */
	int r;

	init->next_at = init->at;
	init->next_done = init->done_in_at;
	for (unsigned n = 0; n < KEYS_PER_TRANS && init->next_at < init->nr; n++) {
		bool journal = init->next_at > 0;
		struct ter_bucket_value v = { .live_sectors = dev->bucket_sectors, .data_type = journal ? TER_DATA_JOURNAL : TER_DATA_SB };
		struct ter_alloc_disk d;
		struct ter_key key = { .val_bytes = sizeof(d), .type = TER_KEY_ALLOC, .val = &d };

		if (init->next_done == init->fixed[init->next_at].nr) {
			init->next_at++;
			init->next_done = 0;
			continue;
		}
		key.pos = ter_bucket_pos(dev->idx, init->fixed[init->next_at].first + init->next_done++);
		ter_bucket_encode(&v, &d);
		r = ter_trans_update(trans, TER_BTREE_ALLOC, key.pos, TER_KEY_ABSENT, &key);
		if (r < 0)
			return r;
		counters[journal][0]++;
		counters[journal][1] += dev->bucket_sectors;
	}
	for (unsigned i = 0; i < 2; i++) {
		r = counters[i][0] ? ter_trans_add(trans, ter_counter_dev(i ? TER_DATA_JOURNAL : TER_DATA_SB, dev->idx), counters[i], 3) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int stage_free(struct ter_trans *trans, void *arg)
{
	struct init *init = arg;
	const struct ter_dev *dev = init->dev;

	for (unsigned i = 0; i < init->nr; i++) {
		uint64_t start = init->fixed[i].first + init->fixed[i].nr;
		uint64_t end = i + 1 < init->nr ? init->fixed[i + 1].first : dev->buckets_nr;
		struct ter_key key = { .pos = ter_bucket_pos(dev->idx, end), .size = (uint32_t)(end - start), .type = TER_KEY_FREE_RANGE };
		int r;

		if (start == end)
			continue;
		r = ter_trans_update(trans, TER_BTREE_FREESPACE, key.pos, TER_KEY_ABSENT, &key);
		if (r < 0)
			return r;
	}
	return 0;
}

int ter_alloc_init_member(struct ter_alloc *alloc, unsigned dev_idx)
{
	struct init init = { .dev = ter_member(alloc->members, dev_idx) };
	int r;

	if (!init.dev)
		return -ENODEV;
	if (init.dev->buckets_nr > UINT32_MAX) /* the size of a free range has 32 bits */
		return -EFBIG;
	r = sort_ranges(&init);
	if (r < 0)
		return r;
	while (init.at < init.nr) {
		r = ter_trans_run(alloc->btrees, 0, stage_fixed, &init, NULL);
		if (r < 0)
			return r;
		init.at = init.next_at;
		init.done_in_at = init.next_done;
	}
	return ter_trans_run(alloc->btrees, 0, stage_free, &init, NULL);
}
