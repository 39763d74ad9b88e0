/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair: what may be given out while free space and counters cannot be believed. */
#include "alloc/alloc_priv.h"
#include "alloc/alloc_repair.h"

uint8_t ter_bucket_fixed_type(const struct ter_dev *dev, uint64_t bucket)
{
	if (bucket < dev->first_bucket)
		return TER_DATA_SB;
	for (unsigned i = 0; i < TER_JOURNAL_RANGES_MAX && dev->journal[i].nr; i++)
		if (bucket - dev->journal[i].first < dev->journal[i].nr)
			return TER_DATA_JOURNAL;
	return TER_DATA_FREE;
}

static void guard_free(struct ter_alloc_guard *guard)
{
	if (!guard)
		return;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		free(guard->used[i]);
	free(guard);
}

int ter_alloc_repair_begin(struct ter_alloc *alloc)
{
	struct ter_alloc_guard *guard;

	if (atomic_load(&alloc->guard))
		return 0;
	guard = ter_new(struct ter_alloc_guard);
	if (!guard)
		return -ENOMEM;
	ter_lock_acquire(&alloc->lock);
	atomic_store(&alloc->guard, guard);
	while (alloc->discarding) /* what it has collected; it finds no more */
		ter_waitq_wait(&alloc->wq, &alloc->lock);
	ter_lock_release(&alloc->lock);
	ter_open_close_all(alloc);
	return 0;
}

bool ter_alloc_repairing(struct ter_alloc *alloc)
{
	return atomic_load(&alloc->guard) != NULL;
}

static void mark_bucket(struct ter_alloc_guard *guard, unsigned dev_idx, uint64_t bucket)
{
	if (bucket < guard->covered[dev_idx])
		guard->used[dev_idx][bucket / 64] |= 1ull << bucket % 64;
}

static int mark_key(void *arg, const struct ter_key *key)
{
	struct ter_alloc *alloc = arg;
	const struct ter_dev *dev = ter_member(alloc->members, (unsigned)ter_min(key->pos.inode, (uint64_t)TER_DEVS_MAX));
	struct ter_bucket_value v;

	if (dev && (ter_bucket_decode(key, dev, &v) < 0 || ter_bucket_state(&v) != TER_BUCKET_FREE))
		mark_bucket(atomic_load(&alloc->guard), dev->idx, key->pos.offset);
	return 0;
}

int ter_alloc_repair_mark_begin(struct ter_alloc *alloc, uint64_t memory_bytes)
{
	struct ter_alloc_guard *guard = atomic_load(&alloc->guard);
	unsigned members = 0;
	int r;

	assert(guard);
	if (guard->open)
		return 0;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		members += alloc->members->dev[i].used;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct ter_dev *dev = &alloc->members->dev[i];

		if (!dev->used)
			continue;
		guard->covered[i] = ter_min(dev->buckets_nr, ter_max(memory_bytes / members * 8, (uint64_t)TER_MEMBER_BUCKETS_MIN));
		free(guard->used[i]);
		guard->used[i] = ter_calloc((size_t)(guard->covered[i] / 64 + 1), sizeof(uint64_t));
		if (!guard->used[i]) {
			guard->covered[i] = 0;
			return -ENOMEM;
		}
		for (uint64_t b = 0; b < ter_min(dev->first_bucket, guard->covered[i]); b++)
			mark_bucket(guard, i, b);
		for (unsigned k = 0; k < TER_JOURNAL_RANGES_MAX && dev->journal[k].nr; k++)
			for (uint64_t b = 0; b < dev->journal[k].nr; b++)
				mark_bucket(guard, i, dev->journal[k].first + b);
	}
	r = ter_btree_scan(alloc->btrees, TER_BTREE_ALLOC, TER_POS_MIN, TER_POS_MAX, 0, mark_key, alloc, NULL);
	return r == -EUCLEAN || r == -EIO ? 0 : ter_min(r, 0); /* a leaf of ALLOC that is lost says nothing; what is in use is marked for being pointed to */
}

void ter_alloc_repair_mark(struct ter_alloc *alloc, unsigned dev_idx, uint64_t sector, uint64_t sectors)
{
	struct ter_alloc_guard *guard = atomic_load(&alloc->guard);
	const struct ter_dev *dev = ter_member(alloc->members, dev_idx);
	uint64_t end;

	if (!dev || !sectors || guard->open)
		return;
	end = ter_min(guard->covered[dev_idx], sector > UINT64_MAX - sectors ? UINT64_MAX : (sector + sectors - 1) / dev->bucket_sectors + 1);
	for (uint64_t b = sector / dev->bucket_sectors; b < end; b++)
		mark_bucket(guard, dev_idx, b);
}

void ter_alloc_repair_open(struct ter_alloc *alloc)
{
	struct ter_alloc_guard *guard = atomic_load(&alloc->guard);

	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		guard->free_nr[i] = 0;
		for (uint64_t b = 0; b < guard->covered[i]; b++)
			guard->free_nr[i] += !(guard->used[i][b / 64] >> b % 64 & 1);
	}
	ter_lock_acquire(&alloc->lock);
	guard->open = true;
	ter_waitq_wake_all(&alloc->wq);
	ter_lock_release(&alloc->lock);
	ter_alloc_members_changed(alloc); /* capacity: the guard's numbers count now */
}

bool ter_alloc_repair_is_open(struct ter_alloc *alloc)
{
	const struct ter_alloc_guard *guard = atomic_load(&alloc->guard);

	return guard && guard->open;
}

int ter_alloc_repair_end(struct ter_alloc *alloc)
{
	struct ter_alloc_guard *guard = atomic_load(&alloc->guard);
	int r;

	if (!guard)
		return 0;
	ter_open_close_all(alloc);
	r = ter_alloc_load(alloc);
	ter_lock_acquire(&alloc->lock);
	atomic_store(&alloc->guard, NULL);
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		alloc->dev[i].cursor = 0;
	ter_waitq_wake_all(&alloc->wq);
	ter_lock_release(&alloc->lock);
	guard_free(guard);
	ter_alloc_members_changed(alloc);
	ter_discard_kick(alloc, false);
	return r;
}

void ter_alloc_guard_free_(struct ter_alloc *alloc)
{
	guard_free(atomic_load(&alloc->guard));
	atomic_store(&alloc->guard, NULL);
}

unsigned ter_alloc_guard_find_(struct ter_alloc *alloc, unsigned dev_idx, uint64_t from, uint64_t to, struct ter_free_bucket *ret, unsigned max)
{
	struct ter_alloc_guard *guard = atomic_load(&alloc->guard);
	unsigned nr = 0;

	ter_lock_assert_held(&alloc->lock);
	for (uint64_t b = from; b < ter_min(to, guard->covered[dev_idx]) && nr < max; b++) {
		if (guard->used[dev_idx][b / 64] >> b % 64 & 1)
			continue;
		mark_bucket(guard, dev_idx, b); /* named once: what comes of it is not our business any more */
		ret[nr++] = (struct ter_free_bucket){ .bucket = b };
	}
	return nr;
}
