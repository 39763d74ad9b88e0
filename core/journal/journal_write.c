/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The writer task: takes sealed entries in order of sequence, writes each to its members, and obeys the commit rule (J2). While it is at one entry the next one
 * collects, so that all who asked for durability meanwhile share one pair of flushes.
 */
#include "journal/journal_priv.h"

/* --- several requests at once --- */

static void jio_done(struct ter_dev_bio *dbio)
{
	struct ter_jio *jio = ter_container_of(dbio, struct ter_jio, dbio);
	struct ter_journal *j = dbio->priv;

	jio->r = dbio->bio.result;
	ter_lock_acquire(&j->jio_lock);
	if (--j->jio_left == 0)
		ter_waitq_wake_one(&j->jio_wq);
	ter_lock_release(&j->jio_lock);
}

static void jio_begin(struct ter_journal *j, unsigned nr)
{
	ter_lock_acquire(&j->jio_lock);
	j->jio_left = nr;
	ter_lock_release(&j->jio_lock);
}

static void jio_wait(struct ter_journal *j)
{
	ter_lock_acquire(&j->jio_lock);
	while (j->jio_left)
		ter_waitq_wait(&j->jio_wq, &j->jio_lock);
	ter_lock_release(&j->jio_lock);
}

static void jio_submit(struct ter_journal *j, struct ter_jio *jio, enum ter_bio_op op)
{
	jio->dbio.bio.op = op;
	jio->dbio.bio.flags = 0;
	jio->dbio.done = jio_done;
	jio->dbio.priv = j;
	ter_dev_submit(&j->config.members->dev[jio->dev_idx], &jio->dbio);
}

/* Flushes the members in @mask in parallel; returns those that did. */
static uint64_t flush_members(struct ter_journal *j, uint64_t mask)
{
	unsigned nr = 0;
	uint64_t good = 0;

	if (!mask)
		return 0;
	jio_begin(j, (unsigned)__builtin_popcountll(mask));
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (mask >> i & 1) {
			struct ter_jio *jio = &j->jio[nr++];

			*jio = (struct ter_jio){ .dev_idx = i };
			jio_submit(j, jio, TER_BIO_FLUSH);
		}
	jio_wait(j);
	for (unsigned n = 0; n < nr; n++)
		if (j->jio[n].r == 0)
			good |= 1ull << j->jio[n].dev_idx;
	return good;
}

/* --- which members --- */

static unsigned durability_of(struct ter_journal *j, uint64_t mask)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (mask >> i & 1)
			sum += j->config.members->dev[i].durability;
	return sum;
}

/* A member may have come since the last entry. What its ring holds is older than all we need. */
static void find_rings(struct ter_journal *j)
{
	j->pad_bytes = j->block_bytes;
	for (unsigned i = 0; i < j->config.members->nr_slots; i++) {
		struct ter_dev *dev = ter_member(j->config.members, i);
		struct ter_jring *ring;

		if (dev && j->ring[i] && ter_dev_online(dev))
			j->pad_bytes = ter_max(j->pad_bytes, ter_jring_block_(j, j->ring[i]));
		if (!dev || j->ring[i] || ter_jring_buckets_nr_(dev) < TER_JOURNAL_BUCKETS_MIN)
			continue;
		if (ter_jring_new_(j, dev, &ring) < 0)
			continue; /* it is tried again with the next entry */
		ter_lock_acquire(&j->lock);
		j->ring[i] = ring;
		ter_lock_release(&j->lock);
		i--; /* again, for its block */
	}
}

/* Among the members outside @not those with the emptiest rings until they make up @wanted; fills jio[], returns how many. */
static unsigned choose(struct ter_journal *j, struct ter_jbuf *buf, uint32_t bytes, uint64_t not, unsigned wanted)
{
	unsigned nr = 0, sum = 0;

	ter_lock_acquire(&j->lock);
	while (sum < wanted && nr < TER_REPLICAS_MAX) {
		struct ter_jring *best = NULL;
		uint64_t offset;

		for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
			struct ter_jring *ring = j->ring[i];

			if (not >> i & 1 || !ter_jring_eligible_(ring) || ter_jring_block_(j, ring) > j->pad_bytes)
				continue;
			if (!best || (uint64_t)ter_jring_used(ring) * best->nr < (uint64_t)ter_jring_used(best) * ring->nr)
				best = ring;
		}
		if (!best)
			break;
		not |= 1ull << best->dev->idx;
		bytes = (uint32_t)ter_round_up(bytes, ter_jring_block_(j, best));
		if (!ter_jring_place_(j, best, bytes, buf->seq, &offset))
			continue;
		sum += best->dev->durability;
		j->jio[nr] = (struct ter_jio){ .dev_idx = best->dev->idx };
		j->jio[nr].dbio.bio.offset_bytes = offset;
		j->jio[nr].dbio.bio.bytes = bytes;
		nr++;
	}
	ter_lock_release(&j->lock);
	return nr;
}

/* The superblock knows every set of members that alone holds an entry before that entry counts: with all of them missing a mount is refused, not stale. */
static int declare(struct ter_journal *j, uint64_t mask)
{
	struct ter_replicas_entry entry = { .data_type = TER_DATA_JOURNAL, .nr_required = 1 };

	for (unsigned i = 0; i < TER_DEVS_MAX && entry.nr_devs < TER_REPLICAS_MAX; i++)
		if (mask >> i & 1)
			entry.devs[entry.nr_devs++] = (uint8_t)i;
	return entry.nr_devs ? ter_sb_replicas_ensure(j->config.sb, &entry, false) : 0;
}

/* --- one entry --- */

static void finish_entry(struct ter_journal *j, struct ter_jbuf *buf, bool flush)
{
	struct ter_jentry_disk *disk = (void *)buf->data;
	uint32_t end = ter_min((uint32_t)ter_round_up(buf->bytes, j->pad_bytes), j->entry_bytes);
	uint8_t csum[TER_DIGEST_MAX];

	disk->last_seq = ter_le64_make(buf->last_seq);
	disk->payload_bytes = ter_le32_make(buf->bytes - (uint32_t)sizeof(*disk));
	disk->flags = (flush ? TER_JENTRY_FLUSH : 0) | (atomic_load(&buf->has_data) ? TER_JENTRY_HAS_DATA : 0);
	memset(disk->csum, 0, sizeof(disk->csum));
	memset(buf->data + buf->bytes, 0, end - buf->bytes);
	_Static_assert(sizeof(disk->csum) == TER_DIGEST_MAX, "a digest fits");
	ter_algos_digest(&j->config.sb->sb->algos, j->csum_slot, buf->data, buf->bytes, csum);
	memcpy(disk->csum, csum, sizeof(csum));
}

/* Writes (and, for a flush entry, flushes) @nr chosen members; returns those that hold the entry now. */
static uint64_t write_chosen(struct ter_journal *j, struct ter_jbuf *buf, unsigned nr, bool flush)
{
	uint64_t good = 0;

	jio_begin(j, nr);
	for (unsigned n = 0; n < nr; n++) {
		struct ter_bio *bio = &j->jio[n].dbio.bio;

		bio->iov1 = (struct iovec){ .iov_base = buf->data, .iov_len = bio->bytes };
		bio->iov = &bio->iov1;
		bio->iov_nr = 1;
		jio_submit(j, &j->jio[n], TER_BIO_WRITE);
	}
	jio_wait(j);
	for (unsigned n = 0; n < nr; n++)
		if (j->jio[n].r == 0)
			good |= 1ull << j->jio[n].dev_idx;
	return flush ? flush_members(j, good) : good;
}

/* Returns the members that hold the entry, once they are enough or no other is left. @not: members that may not. */
static int write_copies(struct ter_journal *j, struct ter_jbuf *buf, bool flush, unsigned wanted, uint64_t not, uint64_t *ret_good)
{
	uint64_t good = 0, declared = 0;

	while (durability_of(j, good) < wanted && !atomic_load(&j->error)) {
		unsigned nr = choose(j, buf, buf->bytes, not, wanted - durability_of(j, good));
		uint64_t chosen = 0;
		int r;

		if (!nr)
			break;
		for (unsigned n = 0; n < nr; n++)
			chosen |= 1ull << j->jio[n].dev_idx;
		declared = good | chosen;
		r = declare(j, declared);
		if (r < 0)
			return r;
		good |= write_chosen(j, buf, nr, flush);
		not |= chosen;
	}
	if (good && good != declared) {
		int r = declare(j, good);

		if (r < 0)
			return r;
	}
	*ret_good = good;
	return 0;
}

/* J2, first half. Members whose flush failed may have lost what this entry speaks of; the journal goes on only if enough copies of anything are elsewhere. */
static int flush_before(struct ter_journal *j, const struct ter_jcopies *copies, uint64_t *ret_bad)
{
	uint64_t mask = 0, bad;
	unsigned lost;

	for (unsigned i = 0; i < j->config.members->nr_slots; i++) {
		struct ter_dev *dev = ter_member(j->config.members, i);

		if (dev && ter_dev_online(dev) && ter_dev_unflushed(dev))
			mask |= 1ull << i;
	}
	bad = mask & ~flush_members(j, mask);
	lost = durability_of(j, bad);
	if (lost && (copies->meta < lost + copies->meta_required || copies->data < lost + copies->data_required))
		return -EIO;
	*ret_bad = bad;
	return 0;
}

static int write_entry(struct ter_journal *j, struct ter_jbuf *buf, bool flush)
{
	bool has_data = atomic_load(&buf->has_data);
	struct ter_jcopies copies;
	unsigned wanted, required, got;
	uint64_t bad = 0, good;
	int r;

	ter_jcopies_get(j, &copies);
	wanted = has_data ? ter_max(copies.meta, copies.data) : copies.meta;
	required = has_data ? ter_max(copies.meta_required, copies.data_required) : copies.meta_required;
	find_rings(j);
	finish_entry(j, buf, flush);
	if (flush) {
		r = flush_before(j, &copies, &bad);
		if (r < 0)
			return r;
	}
	r = write_copies(j, buf, flush, wanted, bad, &good);
	if (r < 0)
		return r;
	got = durability_of(j, good);
	if (got < required || !got)
		return -EIO; /* J6 */
	if (got < wanted && j->config.on_degraded)
		j->config.on_degraded(j->config.on_arg, buf->seq, got, wanted);
	return 0;
}

/* --- the task --- */

static void take_due_waiters(struct ter_journal *j, struct ter_list *due)
{
	struct ter_journal_waiter *waiter, *tmp;
	uint64_t durable = atomic_load(&j->durable_seq);

	ter_list_for_each_safe(waiter, tmp, &j->waiters, link)
		if (waiter->seq <= durable) {
			ter_list_del(&waiter->link);
			ter_list_add_tail(due, &waiter->link);
		}
}

static void run_waiters(struct ter_list *due)
{
	while (!ter_list_empty(due)) {
		struct ter_journal_waiter *waiter = ter_list_first(due, struct ter_journal_waiter, link);

		ter_list_del(&waiter->link);
		waiter->fn(waiter, 0); /* may free it */
	}
}

/* Lock held. */
static void entry_written(struct ter_journal *j, struct ter_jbuf *buf, bool flush)
{
	j->written_seq = buf->seq;
	j->stats.entries++;
	j->stats.bytes += buf->bytes;
	if (flush) {
		j->stats.flush_entries++;
		atomic_store(&j->durable_seq, buf->seq);
		j->flush_first = ter_max(j->flush_first, buf->seq + 1);
		ter_jring_set_last_(j, buf->last_seq);
		ter_waitq_wake_all(&j->durable_wq);
	}
	ter_journal_advance_(j);
	if (j->space_waiters)
		ter_waitq_wake_all(&j->space_wq);
	if (ter_journal_needs_reclaim_(j))
		ter_waitq_wake_all(&j->reclaim_wq);
}

static bool wants_flush(struct ter_journal *j)
{
	return j->flush_last > atomic_load(&j->durable_seq);
}

/* Lock held; dropped meanwhile. */
static void write_next(struct ter_journal *j)
{
	struct ter_jbuf *buf = ter_jbuf(j, j->written_seq + 1);
	bool flush = wants_flush(j) && j->flush_first <= buf->seq;
	struct ter_list due;
	int r;

	ter_list_init(&due);
	if (flush)
		j->last_flush_ns = ter_mono_ns(j->config.exec);
	ter_lock_release(&j->lock);
	r = write_entry(j, buf, flush);
	if (r < 0)
		ter_journal_fail_(j, r, "The journal cannot be written to enough members.");
	ter_lock_acquire(&j->lock);
	if (r < 0 || atomic_load(&j->error))
		return;
	entry_written(j, buf, flush);
	take_due_waiters(j, &due);
	if (ter_list_empty(&due))
		return;
	ter_lock_release(&j->lock);
	run_waiters(&due);
	ter_lock_acquire(&j->lock);
}

/* Something happened since the last flush entry that the next one would save. */
static bool undurable(struct ter_journal *j)
{
	return !ter_journal_open_empty_(j) || atomic_load(&j->durable_seq) + 1 < atomic_load(&j->open_seq);
}

static void wait_for_work(struct ter_journal *j)
{
	struct ter_jcopies copies;
	uint64_t deadline, now = ter_mono_ns(j->config.exec);

	ter_jcopies_get(j, &copies);
	deadline = j->last_flush_ns + copies.flush_ms * TER_NS_PER_MS;
	if (now >= deadline) {
		j->last_flush_ns = now;
		if (undurable(j)) {
			ter_journal_want_(j, atomic_load(&j->open_seq) - (ter_journal_open_empty_(j) ? 1 : 0));
			return;
		}
		deadline = now + copies.flush_ms * TER_NS_PER_MS;
	}
	(void)ter_waitq_wait_until(&j->writer_wq, &j->lock, deadline); /* timed out or woken: the caller looks at everything again */
}

void ter_journal_writer_(void *arg)
{
	struct ter_journal *j = arg;

	ter_lock_acquire(&j->lock);
	while (!j->quit) {
		if (atomic_load(&j->error))
			ter_waitq_wait(&j->writer_wq, &j->lock);
		else if (j->written_seq + 1 < j->seal_seq)
			write_next(j);
		else if (wants_flush(j) && j->is_open && j->written_seq + 1 == atomic_load(&j->open_seq)) {
			ter_journal_close_open_(j);
			ter_journal_advance_(j);
		} else
			wait_for_work(j);
	}
	ter_lock_release(&j->lock);
}
