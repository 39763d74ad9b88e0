/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rings: where on each member entries go, which of its buckets may be used again, and whether the next entry would find room. */
#include "journal/journal_priv.h"

unsigned ter_jring_buckets_nr_(const struct ter_dev *dev)
{
	uint64_t nr = 0;

	for (unsigned i = 0; i < TER_JOURNAL_RANGES_MAX && dev->journal[i].nr; i++) {
		const struct ter_bucket_range *range = &dev->journal[i];

		if (range->first >= dev->buckets_nr || range->nr > dev->buckets_nr - range->first)
			return 0;
		nr += range->nr;
		if (nr > TER_JOURNAL_RING_MAX)
			return 0;
	}
	return (unsigned)nr;
}

int ter_jring_new_(struct ter_journal *j, struct ter_dev *dev, struct ter_jring **ret_ring)
{
	unsigned nr = ter_jring_buckets_nr_(dev), at = 0;
	struct ter_jring *ring = ter_new(struct ter_jring);

	if (!ring)
		return -ENOMEM;
	ring->dev = dev;
	ring->nr = nr;
	ring->bucket = ter_new_array(uint64_t, nr);
	ring->max_seq = ter_new_array(uint64_t, nr);
	if (!ring->bucket || !ring->max_seq) {
		ter_jring_free_(ring);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < TER_JOURNAL_RANGES_MAX && dev->journal[i].nr; i++)
		for (uint64_t b = 0; b < dev->journal[i].nr; b++)
			ring->bucket[at++] = dev->journal[i].first + b;
	if (nr < TER_JOURNAL_BUCKETS_SMALL)
		atomic_store(&j->small, true);
	*ret_ring = ring;
	return 0;
}

void ter_jring_free_(struct ter_jring *ring)
{
	if (!ring)
		return;
	free(ring->bucket);
	free(ring->max_seq);
	free(ring);
}

uint32_t ter_jring_block_(struct ter_journal *j, const struct ter_jring *ring)
{
	return ter_max(j->block_bytes, ring->dev->bdev->info.logical_block_bytes);
}

bool ter_jring_eligible_(const struct ter_jring *ring)
{
	return ring && ter_dev_writable(ring->dev) && ring->dev->durability > 0;
}

/* --- placing --- */

bool ter_jring_place_(struct ter_journal *j, struct ter_jring *ring, uint32_t bytes, uint64_t seq, uint64_t *ret_offset_bytes)
{
	if (bytes > j->bucket_bytes - ring->offset_bytes) {
		unsigned next = (ring->cur + 1) % ring->nr;

		if (next == ring->tail) /* J4: still needed */
			return false;
		ring->cur = next;
		ring->offset_bytes = 0;
		ring->max_seq[next] = 0;
	}
	*ret_offset_bytes = ring->bucket[ring->cur] * j->bucket_bytes + ring->offset_bytes;
	ring->offset_bytes += bytes;
	ring->max_seq[ring->cur] = seq;
	return true;
}

void ter_jring_set_last_(struct ter_journal *j, uint64_t last_seq)
{
	assert(last_seq >= j->last_seq_ondisk); /* J4: pins only go */
	j->last_seq_ondisk = last_seq;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		struct ter_jring *ring = j->ring[i];

		while (ring && ring->tail != ring->cur && ring->max_seq[ring->tail] < last_seq)
			ring->tail = (ring->tail + 1) % ring->nr;
	}
}

/* --- admission (J5) --- */

/* While replayed entries are pinned there is one more: the run before may have used up its own before it was cut. */
static unsigned limit_of(struct ter_journal *j, unsigned nr, int admit)
{
	unsigned more = atomic_load(&j->replay_pins) ? 1 : 0;

	switch (admit) {
	case TER_JADMIT_NORMAL:
		return ter_jring_normal(nr);
	case TER_JADMIT_RECLAIM:
		return nr - 2 + more;
	default:
		return nr - 1 + more;
	}
}

static int fifo_admission(struct ter_journal *j)
{
	uint64_t live;

	(void)ter_journal_oldest_(j, false); /* moves pin_first on */
	live = atomic_load(&j->open_seq) - atomic_load(&j->pin_first);
	return live < TER_JOURNAL_FIFO_NORMAL ? TER_JADMIT_NORMAL : live < TER_JOURNAL_FIFO_RECLAIM ? TER_JADMIT_RECLAIM :
	       live < TER_JOURNAL_FIFO_MAX ? TER_JADMIT_OWN : -1;
}

static bool rings_admit(struct ter_journal *j, int admit, unsigned pending, unsigned wanted)
{
	unsigned with_room = 0, all = 0;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		struct ter_jring *ring = j->ring[i];

		if (!ter_jring_eligible_(ring))
			continue;
		all += ring->dev->durability;
		if (ter_jring_used(ring) + pending + 1 <= limit_of(j, ring->nr, admit))
			with_room += ring->dev->durability;
	}
	/* No member at all: let it open, writing it will say what is wrong (J6). */
	return with_room >= ter_min(wanted, all);
}

int ter_jring_admission_(struct ter_journal *j)
{
	/* Closed ones that still have to find their place; the entry that opens (or is open) is the 1 more. */
	unsigned pending = (unsigned)(atomic_load(&j->open_seq) - 1 - j->written_seq);
	struct ter_jcopies copies;
	int admit = fifo_admission(j);

	ter_jcopies_get(j, &copies);
	while (admit >= 0 && !rings_admit(j, admit, pending, ter_max(copies.meta, copies.data)))
		admit--;
	return admit;
}

/* --- taking up a ring that was used before --- */

static void begin_after(struct ter_journal *j, struct ter_jring *ring, unsigned newest, uint32_t newest_end_bytes)
{
	ring->cur = newest;
	ring->offset_bytes = j->bucket_bytes;
	ring->tail = newest;
	/* The first bucket behind the newest one that holds something needed is the oldest; all from it on count as used. */
	for (unsigned i = 1; i < ring->nr; i++) {
		unsigned at = (newest + i) % ring->nr;

		if (ring->max_seq[at] >= j->last_seq_ondisk) {
			ring->tail = at;
			break;
		}
	}
	/* A fresh bucket for each start, unless that would eat into what reclaim needs: then go on behind the newest entry. */
	if (ter_jring_used(ring) + 1 > ter_jring_normal(ring->nr))
		ring->offset_bytes = ter_min((uint32_t)ter_round_up(newest_end_bytes, TER_JOURNAL_BLOCK_MAX), j->bucket_bytes);
}

static void resume_from_replay(struct ter_journal *j, struct ter_jring *ring, const struct ter_journal_ring_state *state)
{
	if (state->nr != ring->nr || state->cur >= ring->nr)
		return; /* was not read, or holds nothing: as fresh */
	memcpy(ring->max_seq, state->max_seq, ring->nr * sizeof(*ring->max_seq));
	begin_after(j, ring, state->cur, state->cur_end_bytes);
}

/* Beginnings of buckets, read many at once: one after the other they would be most of a mount's time. */
struct header_reads {
	struct ter_lock lock; /* rank LEAF; guards left */
	struct ter_waitq wq;
	unsigned left;
	uint8_t *buf; /* HEADERS_AT_ONCE blocks */
	struct ter_dev_bio dbio[TER_JOURNAL_HEADERS_AT_ONCE];
};

static void header_read_done(struct ter_dev_bio *dbio)
{
	struct header_reads *reads = dbio->priv;

	ter_lock_acquire(&reads->lock);
	if (--reads->left == 0)
		ter_waitq_wake_one(&reads->wq);
	ter_lock_release(&reads->lock);
}

static void read_headers(struct ter_journal *j, struct ter_jring *ring, struct header_reads *reads, unsigned first, unsigned nr, uint32_t bytes)
{
	reads->left = nr;
	for (unsigned i = 0; i < nr; i++) {
		struct ter_dev_bio *dbio = &reads->dbio[i];

		*dbio = (struct ter_dev_bio){ .done = header_read_done, .priv = reads };
		dbio->bio.op = TER_BIO_READ;
		dbio->bio.offset_bytes = ring->bucket[first + i] * j->bucket_bytes;
		dbio->bio.bytes = bytes;
		dbio->bio.iov1 = (struct iovec){ .iov_base = reads->buf + (size_t)i * bytes, .iov_len = bytes };
		dbio->bio.iov = &dbio->bio.iov1;
		dbio->bio.iov_nr = 1;
		ter_dev_submit(ring->dev, dbio);
	}
	ter_lock_acquire(&reads->lock);
	while (reads->left)
		ter_waitq_wait(&reads->wq, &reads->lock);
	ter_lock_release(&reads->lock);
}

/*
 * Stopped cleanly: the journal was not read, but until a new flush entry is durable the last one of before must stay, or a power cut in between leaves none. The newest
 * entry was to be written to bucket @newest, the last flush entry lies there or, if that could not be written, in the one before it; so both count as used.
 */
static void begin_behind(struct ter_journal *j, struct ter_jring *ring, unsigned newest, uint64_t next_seq)
{
	ring->cur = newest;
	ring->tail = (newest + ring->nr - 1) % ring->nr;
	ring->max_seq[ring->cur] = ring->max_seq[ring->tail] = next_seq - 1;
	ring->offset_bytes = j->bucket_bytes;
}

/* Where the superblock does not say it: the newest entry lies in the bucket whose first entry is the newest, or in the one behind it, if that one's beginning could not be written. */
static int resume_from_headers(struct ter_journal *j, struct ter_jring *ring, uint64_t next_seq)
{
	const uint32_t bytes = ter_jring_block_(j, ring);
	struct header_reads *reads = ter_new(struct header_reads);
	uint64_t newest_seq = 0;
	unsigned newest = 0;

	if (reads)
		reads->buf = ter_malloc_aligned((size_t)bytes * TER_JOURNAL_HEADERS_AT_ONCE, ter_max(bytes, 4096u));
	if (!reads || !reads->buf) {
		free(reads);
		return -ENOMEM;
	}
	ter_lock_init(&reads->lock, TER_RANK_LEAF);
	ter_waitq_init(&reads->wq);
	for (unsigned first = 0; first < ring->nr; first += TER_JOURNAL_HEADERS_AT_ONCE) {
		const unsigned nr = ter_min(ring->nr - first, TER_JOURNAL_HEADERS_AT_ONCE);

		read_headers(j, ring, reads, first, nr, bytes);
		for (unsigned i = 0; i < nr; i++) {
			const struct ter_jentry_disk *disk = (const void *)(reads->buf + (size_t)i * bytes);

			if (reads->dbio[i].bio.result < 0 || ter_le64_get(disk->magic) != j->magic)
				continue; /* an unreadable bucket is counted on the device; it cannot be relied on anyhow */
			if (ter_le64_get(disk->seq) >= next_seq || ter_le64_get(disk->seq) <= newest_seq)
				continue;
			newest_seq = ter_le64_get(disk->seq);
			newest = first + i;
		}
	}
	ter_waitq_destroy(&reads->wq);
	ter_lock_destroy(&reads->lock);
	free(reads->buf);
	free(reads);
	if (newest_seq)
		begin_behind(j, ring, (newest + 1) % ring->nr, next_seq);
	return 0;
}

int ter_jring_resume_(struct ter_journal *j, struct ter_jring *ring, uint64_t next_seq)
{
	if (j->config.replay)
		resume_from_replay(j, ring, &j->config.replay->ring[ring->dev->idx]);
	else if (next_seq > 1 && ring->dev->journal_at >= 1 && ring->dev->journal_at <= ring->nr)
		begin_behind(j, ring, ring->dev->journal_at - 1, next_seq);
	else if (next_seq > 1 && ter_dev_online(ring->dev))
		return resume_from_headers(j, ring, next_seq);
	return 0;
}
