/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Discard: empty buckets become free again (B2)
 *
 *     collect empty ones that are not open -> journal flushed up to the entry open then -> device told -> gen + 1, NEED_DISCARD -> FREESPACE
 *
 * What was collected stays as it is until the last step: an empty bucket that is not open cannot be opened, for it is not free, and nothing links into what is not open. The transaction
 * looks again all the same. One task at a time (`discarding`): see free_space.h.
 */
#include "alloc/alloc_priv.h"
#include "journal/journal.h"

struct batch {
	struct ter_alloc *alloc;
	unsigned nr, max; /* @max: for the member now looked at */
	struct {
		uint64_t bucket;
		uint8_t dev;
	} item[TER_DISCARD_BATCH_MAX];
	unsigned next, upto; /* of the transaction now running */
	unsigned freed;      /* by it */
};

void ter_discard_kick(struct ter_alloc *alloc, bool urgent)
{
	ter_lock_acquire(&alloc->kick_lock);
	alloc->kick = true;
	alloc->urgent |= urgent;
	ter_lock_release(&alloc->kick_lock);
	ter_waitq_wake_all(&alloc->kick_wq);
}

static bool is_open(struct ter_alloc *alloc, unsigned dev_idx, uint64_t bucket)
{
	bool ret;

	ter_lock_acquire(&alloc->lock);
	ret = ter_open_find(alloc, dev_idx, bucket, NULL);
	ter_lock_release(&alloc->lock);
	return ret;
}

static int collect_one(void *arg, const struct ter_key *key)
{
	struct batch *batch = arg;
	const struct ter_dev *dev = ter_member(batch->alloc->members, (unsigned)key->pos.inode);

	if (!dev || ter_need_discard_check(key, dev) < 0)
		return -EUCLEAN;
	if (is_open(batch->alloc, dev->idx, key->pos.offset))
		return 0;
	batch->item[batch->nr].bucket = key->pos.offset;
	batch->item[batch->nr++].dev = (uint8_t)dev->idx;
	return batch->nr == batch->max;
}

static int collect_range(struct batch *batch, unsigned dev_idx, uint64_t from, uint64_t to)
{
	if (from > to)
		return 0;
	return ter_btree_scan(batch->alloc->btrees, TER_BTREE_NEED_DISCARD, ter_bucket_pos(dev_idx, from), ter_bucket_pos(dev_idx, to), TER_TRANS_RECLAIM,
			      collect_one, batch, NULL);
}

static bool has_empty(struct ter_alloc *alloc, unsigned dev_idx)
{
	const struct ter_dev *dev = &alloc->members->dev[dev_idx];

	return dev->used && ter_dev_writable(dev) && ter_alloc_need_discard_nr(alloc, dev_idx) > 0;
}

/* The same from each member, so that copies find space on several. From where the last one stopped, so that a bucket that stays open long does not keep others waiting. */
static int collect(struct batch *batch)
{
	struct ter_alloc *alloc = batch->alloc;
	unsigned members = 0;

	for (unsigned i = 0; i < alloc->members->nr_slots; i++)
		members += has_empty(alloc, i);
	for (unsigned i = 0; i < alloc->members->nr_slots && members; i++) {
		uint64_t *cursor = &alloc->discard_cursor[i];
		unsigned before = batch->nr;
		int r;

		if (!has_empty(alloc, i))
			continue;
		batch->max = ter_min(batch->nr + (TER_DISCARD_BATCH_MAX + members - 1) / members, (unsigned)TER_DISCARD_BATCH_MAX);
		if (batch->nr == batch->max)
			break;
		r = collect_range(batch, i, *cursor, UINT64_MAX);
		if (!r && *cursor)
			r = collect_range(batch, i, 0, *cursor - 1);
		if (r < 0)
			return r;
		*cursor = batch->nr > before ? batch->item[batch->nr - 1].bucket + 1 : 0;
	}
	return 0;
}

static void discard_done(struct ter_dev_bio *dbio)
{
	ter_event_set(dbio->priv, dbio->bio.result);
}

static void discard_range(struct ter_dev *dev, uint64_t bucket, uint64_t nr)
{
	uint64_t bucket_bytes = (uint64_t)dev->bucket_sectors << TER_SECTOR_SHIFT;
	struct ter_dev_bio dbio = { .bio = { .op = TER_BIO_DISCARD, .offset_bytes = bucket * bucket_bytes, .bytes = nr * bucket_bytes }, .done = discard_done };
	struct ter_event event;

	ter_event_init(&event);
	dbio.priv = &event;
	ter_dev_submit(dev, &dbio);
	(void)ter_event_wait(&event); /* advice to the device: space is free whether it was taken or not */
	ter_event_destroy(&event);
}

static void discard_devices(struct batch *batch)
{
	for (unsigned i = 0; i < batch->nr;) {
		struct ter_dev *dev = &batch->alloc->members->dev[batch->item[i].dev];
		unsigned nr = 1;

		while (i + nr < batch->nr && batch->item[i + nr].dev == dev->idx && batch->item[i + nr].bucket == batch->item[i].bucket + nr)
			nr++;
		if (dev->discard && dev->bdev && dev->bdev->info.can_discard)
			discard_range(dev, batch->item[i].bucket, nr);
		i += nr;
	}
}

static int free_buckets(struct ter_trans *trans, void *arg)
{
	struct batch *batch = arg;

	batch->freed = 0;
	for (unsigned i = batch->next; i < batch->upto; i++) {
		struct ter_dev *dev = &batch->alloc->members->dev[batch->item[i].dev];
		struct ter_bucket_value from, to;
		const struct ter_key *old;
		struct ter_key key;
		int r = ter_bucket_get(trans, dev, batch->item[i].bucket, &key, &old, &from);

		if (r < 0)
			return r;
		/* Generations do not wrap: a bucket that had 2^32 lives stays empty. */
		if (ter_bucket_state(&from) != TER_BUCKET_EMPTY || from.gen == UINT32_MAX || is_open(batch->alloc, dev->idx, batch->item[i].bucket))
			continue;
		to = (struct ter_bucket_value){ .gen = from.gen + 1 }; /* B1 */
		r = ter_bucket_stage(trans, dev, batch->item[i].bucket, old, &from, &to);
		if (r < 0)
			return r;
		batch->freed++;
	}
	return 0;
}

static int run_batch(struct batch *batch)
{
	struct ter_alloc *alloc = batch->alloc;
	struct ter_journal *journal = atomic_load(&alloc->journal);
	unsigned freed = 0;
	int r;

	if (!journal)
		return 0;
	r = collect(batch);
	if (r < 0)
		return r;
	if (!batch->nr)
		return 0;
	/* What we saw was committed: into the entry open now, or one before. */
	r = ter_journal_flush(journal, ter_journal_open_seq(journal));
	if (r < 0)
		return r;
	atomic_fetch_add(&alloc->reuse_epoch, 1);
	discard_devices(batch);
	while (batch->next < batch->nr) {
		batch->upto = ter_min(batch->next + TER_DISCARD_TRANS_MAX, batch->nr);
		r = ter_trans_run(alloc->btrees, TER_TRANS_RECLAIM, free_buckets, batch, NULL);
		if (r < 0)
			return r;
		freed += batch->freed;
		batch->next = batch->upto;
	}
	return (int)freed;
}

int ter_discard_run(struct ter_alloc *alloc)
{
	struct batch *batch = ter_new(struct batch);
	int r;

	if (!batch)
		return -ENOMEM;
	batch->alloc = alloc;
	ter_lock_acquire(&alloc->lock);
	while (alloc->discarding)
		ter_waitq_wait(&alloc->wq, &alloc->lock);
	alloc->discarding = true;
	ter_lock_release(&alloc->lock);

	r = run_batch(batch);

	ter_lock_acquire(&alloc->lock);
	alloc->discarding = false;
	ter_waitq_wake_all(&alloc->wq);
	ter_lock_release(&alloc->lock);
	free(batch);
	return r;
}

/* --- the worker --- */

static void worker(void *arg)
{
	struct ter_alloc *alloc = arg;

	ter_lock_acquire(&alloc->kick_lock);
	while (!alloc->stop) {
		uint64_t deadline_ns;
		int r;

		if (!alloc->kick) {
			ter_waitq_wait(&alloc->kick_wq, &alloc->kick_lock);
			continue;
		}
		/* Unless somebody waits: the journal is flushed within this time anyway, and more gets empty meanwhile. */
		deadline_ns = ter_mono_ns(alloc->exec) + alloc->sb->sb->options.journal_flush_ms * TER_NS_PER_MS;
		while (!alloc->stop && !alloc->urgent)
			if (ter_waitq_wait_until(&alloc->kick_wq, &alloc->kick_lock, deadline_ns) == -ETIMEDOUT)
				break;
		alloc->kick = alloc->urgent = false;
		do {
			if (alloc->stop)
				break;
			ter_lock_release(&alloc->kick_lock);
			ter_journal_pace(atomic_load(&alloc->journal));
			r = ter_discard_run(alloc); /* an error stays until the next kick: allocation meets it itself */
			ter_lock_acquire(&alloc->kick_lock);
		} while (r > 0);
	}
	ter_lock_release(&alloc->kick_lock);
}

int ter_discard_start(struct ter_alloc *alloc)
{
	int r;

	alloc->stop = false;
	r = alloc->exec->ops->spawn(alloc->exec, "discard", worker, alloc, &alloc->worker);
	if (r < 0)
		return r;
	alloc->running = true;
	return 0;
}

void ter_discard_stop(struct ter_alloc *alloc)
{
	if (!alloc->running)
		return;
	ter_lock_acquire(&alloc->kick_lock);
	alloc->stop = true;
	ter_lock_release(&alloc->kick_lock);
	ter_waitq_wake_all(&alloc->kick_wq);
	alloc->exec->ops->join(alloc->exec, alloc->worker);
	alloc->worker = NULL;
	alloc->running = false;
}
