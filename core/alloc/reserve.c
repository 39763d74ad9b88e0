/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reservations (B6)
 *
 * Data that was accepted must find its space later, each of its r copies on a member of its own. Demands x_j with r_j copies fit members of free space f_i exactly if, for each k,
 *
 *     sum of x_j * max(0, r_j - k)  <=  sum of f_i without the k largest
 *
 * (at most k copies of anything lie on the k largest; the rest must fit beside). So demand and capacity are four numbers each, and reserving is r compare-and-swaps. For one r this is the
 * greatest x with sum(min(f_i, x)) >= r * x. Capacity follows the members' counters when a bucket changed hands.
 *
 * f_i leaves out the reserves for nodes and for moving. Space is given out down to half of the latter (alloc.c): the other half is what promises may be wrong by, for nodes written and tails of
 * buckets too short for a request since the promise was made.
 */
#include "alloc/alloc_priv.h"

/* Per member: far more than all that is chosen between two looks, so that choosing freely above this cannot break a promise. */
#define TIGHT_BUCKETS 64

int64_t ter_alloc_free_nr(struct ter_alloc *alloc, unsigned dev_idx)
{
	int64_t nr = (int64_t)alloc->members->dev[dev_idx].buckets_nr;
	const struct ter_alloc_guard *guard = atomic_load_explicit(&alloc->guard, memory_order_relaxed);

	if (ter_unlikely(guard != NULL))
		return guard->free_nr[dev_idx]; /* counters are what is being repaired */
	for (unsigned t = TER_DATA_SB; t < TER_DATA_NR; t++)
		nr -= atomic_load_explicit(&alloc->dev[dev_idx].counts[t].buckets, memory_order_relaxed);
	return nr;
}

static int64_t dev_cap(struct ter_alloc *alloc, const struct ter_dev *dev)
{
	int64_t nr = ter_alloc_free_nr(alloc, dev->idx) + ter_alloc_need_discard_nr(alloc, dev->idx);

	nr -= (int64_t)(ter_reserve_nodes(dev) + ter_reserve_move(alloc, dev));
	return ter_max(nr, (int64_t)0) * dev->bucket_sectors;
}

static void update_caps(struct ter_alloc *alloc)
{
	int64_t total = 0, top[TER_REPLICAS_MAX] = { 0 }; /* descending */
	unsigned present = 0;
	int64_t tight = 0;

	for (unsigned i = 0; i < alloc->members->nr_slots; i++) {
		const struct ter_dev *dev = &alloc->members->dev[i];
		int64_t cap;

		if (!ter_alloc_dev_present(dev))
			continue;
		present++;
		tight += TIGHT_BUCKETS * (int64_t)dev->bucket_sectors;
		cap = dev_cap(alloc, dev);
		total += cap;
		for (unsigned k = 0; k < TER_REPLICAS_MAX && cap; k++)
			if (cap > top[k]) {
				int64_t smaller = top[k];

				top[k] = cap;
				cap = smaller;
			}
	}
	for (unsigned k = 0; k < TER_REPLICAS_MAX; k++) {
		atomic_store_explicit(&alloc->cap[k], total, memory_order_relaxed);
		total -= top[k];
	}
	atomic_store_explicit(&alloc->cap_members, present, memory_order_relaxed);
	atomic_store_explicit(&alloc->tight_sectors, tight, memory_order_relaxed);
}

static void refresh_caps(struct ter_alloc *alloc)
{
	/* Cleared first: what changes while we add up makes it stale again. */
	if (atomic_load_explicit(&alloc->cap_stale, memory_order_acquire) && atomic_exchange(&alloc->cap_stale, false))
		update_caps(alloc);
}

void ter_alloc_members_changed(struct ter_alloc *alloc)
{
	atomic_store(&alloc->cap_stale, true);
}

/* With fewer members than copies, as many copies as there are members are written. */
static unsigned conditions(struct ter_alloc *alloc, unsigned replicas)
{
	unsigned members = atomic_load_explicit(&alloc->cap_members, memory_order_relaxed);

	return members ? ter_min(replicas, members) : 1;
}

static bool reserve_one(struct ter_alloc *alloc, unsigned k, int64_t demand, bool check)
{
	int64_t now = atomic_load_explicit(&alloc->reserved[k], memory_order_relaxed);

	do {
		if (check && now + demand > atomic_load_explicit(&alloc->cap[k], memory_order_relaxed))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&alloc->reserved[k], &now, now + demand, memory_order_relaxed, memory_order_relaxed));
	return true;
}

int ter_alloc_reserve(struct ter_alloc *alloc, uint64_t sectors, unsigned replicas)
{
	unsigned checked;

	assert(replicas && replicas <= TER_REPLICAS_MAX);
	if (sectors > (uint64_t)INT64_MAX / TER_REPLICAS_MAX / 2)
		return -ENOSPC;
	refresh_caps(alloc);
	checked = conditions(alloc, replicas);
	for (unsigned k = 0; k < replicas; k++) {
		if (reserve_one(alloc, k, (int64_t)sectors * (replicas - k), k < checked))
			continue;
		while (k--)
			atomic_fetch_sub_explicit(&alloc->reserved[k], (int64_t)sectors * (replicas - k), memory_order_relaxed);
		return -ENOSPC;
	}
	return 0;
}

void ter_alloc_unreserve(struct ter_alloc *alloc, uint64_t sectors, unsigned replicas)
{
	assert(replicas && replicas <= TER_REPLICAS_MAX);
	for (unsigned k = 0; k < replicas; k++) {
		int64_t before = atomic_fetch_sub_explicit(&alloc->reserved[k], (int64_t)sectors * (replicas - k), memory_order_relaxed);

		assert(before >= (int64_t)sectors * (replicas - k));
		(void)before;
	}
}

uint64_t ter_reserve_available(struct ter_alloc *alloc, unsigned replicas)
{
	int64_t ret = INT64_MAX;
	unsigned checked;

	refresh_caps(alloc);
	checked = conditions(alloc, replicas);
	for (unsigned k = 0; k < checked; k++)
		ret = ter_min(ret, (atomic_load(&alloc->cap[k]) - atomic_load(&alloc->reserved[k])) / (int64_t)(replicas - k));
	return (uint64_t)ter_max(ret, (int64_t)0);
}

bool ter_reserve_tight(struct ter_alloc *alloc)
{
	refresh_caps(alloc);
	for (unsigned k = 0; k < TER_REPLICAS_MAX; k++) {
		int64_t reserved = atomic_load_explicit(&alloc->reserved[k], memory_order_relaxed);

		if ((!k || reserved) && atomic_load_explicit(&alloc->cap[k], memory_order_relaxed) - reserved < atomic_load_explicit(&alloc->tight_sectors, memory_order_relaxed))
			return true;
	}
	return false;
}
