/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers for people, from the totals in memory. */
#include "alloc/alloc_priv.h"

static uint64_t counter(_Atomic int64_t *value)
{
	int64_t v = atomic_load_explicit(value, memory_order_relaxed);

	return v > 0 ? (uint64_t)v : 0;
}

int ter_alloc_dev_usage(struct ter_alloc *alloc, unsigned dev_idx, struct ter_dev_usage *ret)
{
	struct ter_dev_usage u = { 0 };
	int64_t free_nr;

	if (!ter_member(alloc->members, dev_idx))
		return -ENODEV;
	for (unsigned t = TER_DATA_SB; t < TER_DATA_NR; t++) {
		struct ter_dev_counts *c = &alloc->dev[dev_idx].counts[t];

		u.buckets[t] = counter(&c->buckets);
		u.sectors[t] = counter(&c->sectors);
		u.fragmented[t] = counter(&c->fragmented);
	}
	free_nr = ter_alloc_free_nr(alloc, dev_idx);
	u.buckets[TER_DATA_FREE] = free_nr > 0 ? (uint64_t)free_nr : 0;
	*ret = u;
	return 0;
}

void ter_alloc_compression(struct ter_alloc *alloc, unsigned slot, uint64_t *ret_extents, uint64_t *ret_raw_sectors, uint64_t *ret_stored_sectors)
{
	assert(slot <= TER_ALGO_SLOTS_MAX);
	*ret_extents = counter(&alloc->compression[slot].extents);
	*ret_raw_sectors = counter(&alloc->compression[slot].raw);
	*ret_stored_sectors = counter(&alloc->compression[slot].stored);
}

void ter_alloc_fs_usage(struct ter_alloc *alloc, struct ter_fs_usage *ret)
{
	unsigned replicas = alloc->sb->sb->options.data_replicas;
	struct ter_fs_usage u = { 0 };
	uint64_t used = 0, raw = 0;

	for (unsigned i = 0; i < alloc->members->nr_slots; i++) {
		const struct ter_dev *dev = ter_member(alloc->members, i);
		struct ter_dev_usage d;

		if (!dev || ter_alloc_dev_usage(alloc, i, &d) < 0)
			continue;
		raw += dev->buckets_nr * dev->bucket_sectors;
		for (unsigned t = TER_DATA_BTREE; t < TER_DATA_NEED_DISCARD; t++)
			used += d.buckets[t] * dev->bucket_sectors;
	}
	u.available = ter_reserve_available(alloc, replicas);
	u.reserved = counter(&alloc->reserved[0]) / replicas;
	u.used = used / replicas;
	u.capacity = u.used + u.reserved + u.available;
	u.hidden = raw > u.capacity * replicas ? raw - u.capacity * replicas : 0;
	u.inodes = counter(&alloc->inodes);
	for (unsigned i = 1; i <= TER_ALGO_SLOTS_MAX; i++) {
		u.compressed_raw += counter(&alloc->compression[i].raw);
		u.compressed_stored += counter(&alloc->compression[i].stored);
	}
	for (unsigned i = 0; i < TER_REPLICAS_COUNTS_NR; i++) {
		struct ter_replicas_entry e;
		struct ter_pos pos = TER_POS(atomic_load(&alloc->replicas[i].pos_inode), 0, 0);

		if (ter_counter_parse_replicas(pos, &e) && (e.data_type == TER_DATA_USER || e.data_type == TER_DATA_BTREE))
			u.used_logical += counter(&alloc->replicas[i].sectors);
	}
	*ret = u;
}
