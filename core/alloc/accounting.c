/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counters: their positions, and the totals in memory that follow each commit. */
#include "alloc/accounting.h"

#include "alloc/alloc_priv.h"

static struct ter_pos counter_pos(enum ter_counter_kind kind, const uint8_t params[7])
{
	uint64_t inode = (uint64_t)kind << 56;

	for (unsigned i = 0; i < 7; i++)
		inode |= (uint64_t)params[i] << (48 - 8 * i);
	return TER_POS(inode, 0, 0);
}

static uint8_t param(struct ter_pos pos, unsigned i)
{
	return (uint8_t)(pos.inode >> (48 - 8 * i));
}

struct ter_pos ter_counter_replicas(const struct ter_replicas_entry *entry)
{
	uint8_t params[7] = { entry->data_type, entry->nr_devs, entry->nr_required, 0xff, 0xff, 0xff, 0xff };

	assert(entry->nr_devs && entry->nr_devs <= TER_REPLICAS_MAX);
	for (unsigned i = 0; i < entry->nr_devs; i++) {
		unsigned at = i;

		/* insertion sort: who asks need not have sorted */
		for (; at > 0 && params[3 + at - 1] > entry->devs[i]; at--)
			params[3 + at] = params[3 + at - 1];
		params[3 + at] = entry->devs[i];
	}
	return counter_pos(TER_COUNT_REPLICAS, params);
}

struct ter_pos ter_counter_dev(enum ter_data_type type, unsigned dev_idx)
{
	return counter_pos(TER_COUNT_DEV, (uint8_t[7]){ (uint8_t)type, (uint8_t)dev_idx });
}

struct ter_pos ter_counter_compression(unsigned slot)
{
	return counter_pos(TER_COUNT_COMPRESSION, (uint8_t[7]){ (uint8_t)slot });
}

struct ter_pos ter_counter_inodes(void)
{
	return counter_pos(TER_COUNT_INODES, (uint8_t[7]){ 0 });
}

struct ter_pos ter_counter_btree(enum ter_btree_id btree)
{
	return counter_pos(TER_COUNT_BTREE, (uint8_t[7]){ (uint8_t)btree });
}

enum ter_counter_kind ter_counter_kind(struct ter_pos pos)
{
	static const uint64_t params_mask[] = {
		[TER_COUNT_REPLICAS] = 0xffffffffffffff,
		[TER_COUNT_DEV] = 0xffff0000000000,
		[TER_COUNT_COMPRESSION] = 0xff000000000000,
		[TER_COUNT_INODES] = 0,
		[TER_COUNT_BTREE] = 0xff000000000000,
		[TER_COUNT_RESERVED] = 0,
	};
	uint64_t kind = pos.inode >> 56, params = pos.inode & 0xffffffffffffff;

	if (!kind || kind >= ARRAY_SIZE(params_mask) || params & ~params_mask[kind] || pos.offset || pos.snapshot)
		return 0;
	if (kind == TER_COUNT_DEV && (param(pos, 0) >= TER_DATA_NR || param(pos, 1) >= TER_DEVS_MAX))
		return 0;
	if (kind == TER_COUNT_BTREE && param(pos, 0) >= TER_BTREE_NR)
		return 0;
	return (enum ter_counter_kind)kind;
}

bool ter_counter_parse_replicas(struct ter_pos pos, struct ter_replicas_entry *ret)
{
	struct ter_replicas_entry e = { 0 };

	if (ter_counter_kind(pos) != TER_COUNT_REPLICAS)
		return false;
	e.data_type = param(pos, 0);
	e.nr_devs = param(pos, 1);
	e.nr_required = param(pos, 2);
	if (e.data_type >= TER_DATA_NR || !e.nr_devs || e.nr_devs > TER_REPLICAS_MAX || !e.nr_required || e.nr_required > e.nr_devs)
		return false;
	for (unsigned i = 0; i < TER_REPLICAS_MAX; i++) {
		uint8_t dev = param(pos, 3 + i);

		if (i >= e.nr_devs) {
			if (dev != 0xff)
				return false;
			continue;
		}
		if (dev >= TER_DEVS_MAX || (i && dev <= e.devs[i - 1]))
			return false;
		e.devs[i] = dev;
	}
	*ret = e;
	return true;
}

static void add(_Atomic int64_t *total, int64_t delta)
{
	if (delta)
		atomic_fetch_add_explicit(total, delta, memory_order_relaxed);
}

/* The row of a device set, taken if @make; NULL: none (or a table full of sets that no superblock allows). */
static struct ter_replicas_count *replicas_row(struct ter_alloc *alloc, struct ter_pos pos, bool make)
{
	unsigned at = (unsigned)((pos.inode * 0x9e3779b97f4a7c15ull) >> 40);

	for (unsigned i = 0; i < TER_REPLICAS_COUNTS_NR; i++) {
		struct ter_replicas_count *row = &alloc->replicas[(at + i) % TER_REPLICAS_COUNTS_NR];
		uint64_t there = atomic_load_explicit(&row->pos_inode, memory_order_relaxed);

		if (!there) {
			if (!make)
				return NULL;
			if (atomic_compare_exchange_strong(&row->pos_inode, &there, pos.inode))
				return row;
		}
		if (there == pos.inode)
			return row;
	}
	return NULL;
}

uint64_t ter_alloc_replicas_sectors(struct ter_alloc *alloc, const struct ter_replicas_entry *entry)
{
	struct ter_replicas_count *row = replicas_row(alloc, ter_counter_replicas(entry), false);
	int64_t sectors = row ? atomic_load_explicit(&row->sectors, memory_order_relaxed) : 0;

	return sectors > 0 ? (uint64_t)sectors : 0;
}

/* Called under a leaf lock, in the order of commits of each counter. */
void ter_alloc_on_counters(void *arg, struct ter_pos pos, const int64_t *deltas, unsigned nr)
{
	struct ter_alloc *alloc = arg;
	struct ter_replicas_count *row;
	struct ter_dev_counts *c;
	unsigned slot;

	switch (ter_counter_kind(pos)) {
	case TER_COUNT_REPLICAS:
		row = replicas_row(alloc, pos, true);
		if (row)
			add(&row->sectors, nr > 0 ? deltas[0] : 0);
		break;
	case TER_COUNT_DEV:
		c = &alloc->dev[param(pos, 1)].counts[param(pos, 0)];
		add(&c->buckets, nr > 0 ? deltas[0] : 0);
		add(&c->sectors, nr > 1 ? deltas[1] : 0);
		add(&c->fragmented, nr > 2 ? deltas[2] : 0);
		if (nr > 0 && deltas[0]) {
			atomic_store_explicit(&alloc->cap_stale, true, memory_order_release);
			if (param(pos, 0) == TER_DATA_NEED_DISCARD && deltas[0] > 0)
				ter_discard_kick(alloc, false);
		}
		break;
	case TER_COUNT_COMPRESSION:
		slot = param(pos, 0);
		if (slot > TER_ALGO_SLOTS_MAX)
			break;
		add(&alloc->compression[slot].extents, nr > 0 ? deltas[0] : 0);
		add(&alloc->compression[slot].raw, nr > 1 ? deltas[1] : 0);
		add(&alloc->compression[slot].stored, nr > 2 ? deltas[2] : 0);
		break;
	case TER_COUNT_INODES:
		add(&alloc->inodes, nr > 0 ? deltas[0] : 0);
		break;
	default:
		break; /* those of btrees are read from ACCOUNTING by who shows them */
	}
}

static int load_counter(void *arg, const struct ter_key *key)
{
	int64_t values[TER_COUNTERS_MAX];
	unsigned nr = key->val_bytes / 8;
	const ter_le64 *val = key->val;

	if (key->type != TER_KEY_COUNTERS || key->val_bytes % 8 || !nr || nr > TER_COUNTERS_MAX)
		return atomic_load(&((struct ter_alloc *)arg)->guard) ? 0 : -EUCLEAN; /* a repair comes to it */
	for (unsigned i = 0; i < nr; i++)
		values[i] = (int64_t)ter_le64_get(val[i]);
	ter_alloc_on_counters(arg, key->pos, values, nr);
	return 0;
}

int ter_alloc_load(struct ter_alloc *alloc)
{
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		for (unsigned t = 0; t < TER_DATA_NR; t++) {
			atomic_store(&alloc->dev[i].counts[t].buckets, 0);
			atomic_store(&alloc->dev[i].counts[t].sectors, 0);
			atomic_store(&alloc->dev[i].counts[t].fragmented, 0);
		}
	atomic_store(&alloc->inodes, 0);
	for (unsigned i = 0; i <= TER_ALGO_SLOTS_MAX; i++) {
		atomic_store(&alloc->compression[i].extents, 0);
		atomic_store(&alloc->compression[i].raw, 0);
		atomic_store(&alloc->compression[i].stored, 0);
	}
	for (unsigned i = 0; i < TER_REPLICAS_COUNTS_NR; i++) {
		atomic_store(&alloc->replicas[i].pos_inode, 0);
		atomic_store(&alloc->replicas[i].sectors, 0);
	}
	return ter_btree_scan(alloc->btrees, TER_BTREE_ACCOUNTING, TER_POS_MIN, TER_POS_MAX, 0, load_counter, alloc, NULL);
}
