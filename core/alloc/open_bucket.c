/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Open buckets: which are being filled, and where the next ones come from
 *
 * A free bucket that is known by name is in exactly one place: its member's batch, a write point's run, or open. A refill takes from FREESPACE only what is in none of these, and
 * checks that under the leaf's lock: a bucket that is open and gets linked leaves FREESPACE under that lock too, so what was free and nowhere else at that moment is ours. From then
 * on nobody can change its alloc key, so its generation can be read afterwards.
 */
#include "alloc/alloc_priv.h"

static unsigned hash(unsigned dev_idx, uint64_t bucket)
{
	return (unsigned)((bucket * 0x9e3779b97f4a7c15ull) >> 40) + dev_idx * 31;
}

bool ter_open_find(struct ter_alloc *alloc, unsigned dev_idx, uint64_t bucket, struct ter_open_bucket **ret)
{
	for (struct ter_open_bucket *b = alloc->open_hash[hash(dev_idx, bucket) % TER_OPEN_HASH_NR]; b; b = b->next)
		if (b->bucket == bucket && b->dev == dev_idx) {
			if (ret)
				*ret = b;
			return true;
		}
	return false;
}

/* Open or in a run. During a refill the batch is empty. */
static bool taken(struct ter_alloc *alloc, unsigned dev_idx, uint64_t bucket)
{
	for (unsigned i = 0; i < TER_WP_NR; i++) {
		const struct ter_run *run = &alloc->wp[i].run[dev_idx];

		if (run->nr && bucket - run->first < run->nr)
			return true;
	}
	return ter_open_find(alloc, dev_idx, bucket, NULL);
}

void ter_open_get(struct ter_open_bucket *bucket)
{
	bucket->refs++;
}

void ter_open_put(struct ter_alloc *alloc, struct ter_open_bucket *bucket)
{
	struct ter_open_bucket **at;

	assert(bucket->refs);
	if (--bucket->refs)
		return;
	at = &alloc->open_hash[hash(bucket->dev, bucket->bucket) % TER_OPEN_HASH_NR];
	while (*at != bucket)
		at = &(*at)->next;
	*at = bucket->next;
	if (!bucket->settled)
		alloc->dev[bucket->dev].unsettled_nr--;
	bucket->next = alloc->open_unused;
	alloc->open_unused = bucket;
	ter_waitq_wake_all(&alloc->wq);
	/* The worker passes by what is open (B2): it may have become empty meanwhile. */
	if (ter_alloc_need_discard_nr(alloc, bucket->dev) > 0)
		ter_discard_kick(alloc, false);
}

void ter_open_close(struct ter_alloc *alloc, struct ter_wp *wp, unsigned dev_idx)
{
	struct ter_open_bucket *bucket = TAKE_PTR(wp->open[dev_idx]);

	if (bucket)
		ter_open_put(alloc, bucket);
}

void ter_open_close_all(struct ter_alloc *alloc)
{
	ter_lock_acquire(&alloc->lock);
	for (unsigned i = 0; i < TER_WP_NR; i++)
		for (unsigned d = 0; d < TER_DEVS_MAX; d++) {
			ter_open_close(alloc, &alloc->wp[i], d);
			alloc->wp[i].run[d].nr = 0;
		}
	for (unsigned d = 0; d < TER_DEVS_MAX; d++)
		alloc->dev[d].batch_nr = 0;
	ter_lock_release(&alloc->lock);
}

/* --- from the batch to a run --- */

static unsigned run_length(const struct ter_alloc_dev *adev, unsigned at, unsigned max)
{
	unsigned nr = 1;

	while (nr < max && at + nr < adev->batch_nr && adev->batch[at + nr].bucket == adev->batch[at].bucket + nr)
		nr++;
	return nr;
}

static void take_run(struct ter_alloc_dev *adev, struct ter_run *run, unsigned at, unsigned nr)
{
	run->first = adev->batch[at].bucket;
	run->nr = nr;
	for (unsigned i = 0; i < nr; i++)
		run->gen[i] = adev->batch[at + i].gen;
	adev->batch_nr -= nr;
	memmove(&adev->batch[at], &adev->batch[at + nr], (adev->batch_nr - at) * sizeof(adev->batch[0]));
}

/* The buckets that follow the last one of this write point, else the first run that is long enough, else the longest. */
static bool fill_run(struct ter_alloc *alloc, struct ter_run *run, unsigned dev_idx)
{
	struct ter_alloc_dev *adev = &alloc->dev[dev_idx];
	unsigned max = TER_RUN_SECTORS / alloc->members->dev[dev_idx].bucket_sectors, best = 0, best_nr = 0;

	max = max < 1 ? 1 : ter_min(max, (unsigned)TER_RUN_MAX);
	for (unsigned i = 0; i < adev->batch_nr;) {
		unsigned nr = run_length(adev, i, max);

		if (adev->batch[i].bucket == run->first) {
			best = i;
			best_nr = nr;
			break;
		}
		if (nr > best_nr) {
			best = i;
			best_nr = nr;
		}
		i += nr;
	}
	if (!best_nr)
		return false;
	take_run(adev, run, best, best_nr);
	return true;
}

/* What other write points have set aside. */
static bool steal_from_runs(struct ter_alloc *alloc, struct ter_run *run, unsigned dev_idx)
{
	for (unsigned i = 0; i < TER_WP_NR; i++) {
		struct ter_run *other = &alloc->wp[i].run[dev_idx];

		if (other == run || !other->nr)
			continue;
		other->nr--;
		run->first = other->first + other->nr;
		run->gen[0] = other->gen[other->nr];
		run->nr = 1;
		return true;
	}
	return false;
}

/* Many members and write points: one that nobody writes to is closed before its time. */
static void close_idle(struct ter_alloc *alloc, const struct ter_wp *except)
{
	for (unsigned i = 0; i < TER_WP_NR; i++)
		for (unsigned d = 0; d < alloc->members->nr_slots && !alloc->open_unused; d++)
			if (&alloc->wp[i] != except && alloc->wp[i].open[d] && alloc->wp[i].open[d]->refs == 1)
				ter_open_close(alloc, &alloc->wp[i], d);
}

unsigned ter_open_set_aside(const struct ter_alloc *alloc, unsigned dev_idx)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < TER_WP_NR; i++)
		nr += alloc->wp[i].run[dev_idx].nr;
	return nr;
}

int ter_open_next(struct ter_alloc *alloc, struct ter_wp *wp, unsigned dev_idx, bool steal)
{
	struct ter_run *run = &wp->run[dev_idx];
	struct ter_open_bucket *b;
	unsigned h;

	assert(!wp->open[dev_idx]);
	if (!alloc->open_unused)
		close_idle(alloc, wp);
	b = alloc->open_unused;
	if (!b)
		return -EBUSY;
	if (!run->nr && !fill_run(alloc, run, dev_idx) && !(steal && steal_from_runs(alloc, run, dev_idx)))
		return -ENODATA;
	alloc->open_unused = b->next;
	*b = (struct ter_open_bucket){ .bucket = run->first, .gen = run->gen[0], .refs = 1, .dev = (uint8_t)dev_idx };
	run->first++;
	run->nr--;
	memmove(run->gen, run->gen + 1, run->nr * sizeof(run->gen[0]));
	h = hash(dev_idx, b->bucket) % TER_OPEN_HASH_NR;
	b->next = alloc->open_hash[h];
	alloc->open_hash[h] = b;
	alloc->dev[dev_idx].unsettled_nr++;
	wp->open[dev_idx] = b;
	return 0;
}

/* --- refill --- */

struct refill {
	struct ter_alloc *alloc;
	const struct ter_dev *dev;
	uint64_t from, to; /* buckets looked for */
	struct ter_free_bucket found[TER_FREE_BATCH_MAX];
	unsigned nr;
	bool unusable[TER_FREE_BATCH_MAX];
	bool guarded; /* a repair says what is free */
};

static int refill_range(void *arg, const struct ter_key *key)
{
	struct refill *f = arg;
	uint64_t end;

	if (ter_free_range_check(key, f->dev) < 0)
		return -EUCLEAN;
	end = ter_min(key->pos.offset, f->to);
	ter_lock_acquire(&f->alloc->lock);
	for (uint64_t b = ter_max(ter_key_start(key), f->from); b < end && f->nr < TER_FREE_BATCH_MAX; b++)
		if (!taken(f->alloc, f->dev->idx, b))
			f->found[f->nr++] = (struct ter_free_bucket){ .bucket = b };
	ter_lock_release(&f->alloc->lock);
	return f->nr == TER_FREE_BATCH_MAX || key->pos.offset >= f->to;
}

static int refill_scan(struct refill *f, uint64_t from, uint64_t to, unsigned flags)
{
	int r;

	f->from = from;
	f->to = to;
	if (from >= to)
		return 0;
	r = ter_btree_scan(f->alloc->btrees, TER_BTREE_FREESPACE, ter_bucket_pos(f->dev->idx, from + 1), ter_bucket_pos(f->dev->idx, f->dev->buckets_nr), flags,
			   refill_range, f, NULL);
	return r < 0 ? r : 0;
}

static int refill_gen(void *arg, const struct ter_key *key)
{
	struct refill *f = arg;
	struct ter_bucket_value v;

	if (ter_bucket_decode(key, f->dev, &v) < 0) {
		if (!f->guarded)
			return -EUCLEAN;
		v = (struct ter_bucket_value){ .live_sectors = 1 };
	}
	for (unsigned i = 0; i < f->nr; i++)
		if (f->found[i].bucket == key->pos.offset) {
			f->found[i].gen = v.gen;
			/* An index that is wrong (fsck reports it) must not make us write over live data. */
			f->unusable[i] = ter_bucket_state(&v) != TER_BUCKET_FREE;
		}
	return 0;
}

static int refill_gens(struct refill *f, unsigned flags)
{
	for (unsigned i = 0; i < f->nr;) {
		unsigned nr = 1;
		int r;

		while (i + nr < f->nr && f->found[i + nr].bucket == f->found[i].bucket + nr)
			nr++;
		r = ter_btree_scan(f->alloc->btrees, TER_BTREE_ALLOC, ter_bucket_pos(f->dev->idx, f->found[i].bucket),
				   ter_bucket_pos(f->dev->idx, f->found[i + nr - 1].bucket), flags, refill_gen, f, NULL);
		if (r < 0 && !(f->guarded && ter_alloc_lost_(r))) /* generations that are lost begin again */
			return r;
		i += nr;
	}
	return 0;
}

static void refill_guarded(struct refill *f, uint64_t cursor)
{
	ter_lock_acquire(&f->alloc->lock);
	f->nr = ter_alloc_guard_find_(f->alloc, f->dev->idx, cursor, f->dev->buckets_nr, f->found, TER_FREE_BATCH_MAX);
	if (!f->nr)
		f->nr = ter_alloc_guard_find_(f->alloc, f->dev->idx, 0, cursor, f->found, TER_FREE_BATCH_MAX);
	ter_lock_release(&f->alloc->lock);
}

static int refill_find(struct refill *f, uint64_t cursor, unsigned flags)
{
	int r;

	f->guarded = atomic_load(&f->alloc->guard) != NULL;
	if (f->guarded) {
		refill_guarded(f, cursor);
		return refill_gens(f, flags);
	}
	r = refill_scan(f, cursor, f->dev->buckets_nr, flags);
	if (r < 0)
		return r;
	if (!f->nr) {
		r = refill_scan(f, 0, cursor, flags);
		if (r < 0)
			return r;
	}
	return refill_gens(f, flags);
}

int ter_open_refill(struct ter_alloc *alloc, unsigned dev_idx, bool nowait)
{
	struct ter_alloc_dev *adev = &alloc->dev[dev_idx];
	struct refill f = { .alloc = alloc, .dev = &alloc->members->dev[dev_idx] };
	uint64_t cursor;
	int r;

	ter_lock_assert_held(&alloc->lock);
	if (adev->refilling) {
		if (nowait)
			return -EAGAIN;
		ter_waitq_wait(&alloc->wq, &alloc->lock);
		return 1;
	}
	if (adev->batch_nr)
		return 1;
	cursor = adev->cursor < f.dev->buckets_nr ? adev->cursor : 0;
	adev->refilling = true;
	ter_lock_release(&alloc->lock);

	r = refill_find(&f, cursor, nowait ? TER_TRANS_NOWAIT : 0);

	ter_lock_acquire(&alloc->lock);
	adev->refilling = false;
	ter_waitq_wake_all(&alloc->wq);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < f.nr; i++)
		if (!f.unusable[i])
			adev->batch[adev->batch_nr++] = f.found[i];
	if (f.nr)
		adev->cursor = f.found[f.nr - 1].bucket + 1;
	return (int)adev->batch_nr;
}
