/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading back, first half: one member's ring from front to back, and what entries lie where. Trusts nothing it reads. */
#include "journal/journal_priv.h"

#define PIECE_BYTES 65536u /* after a failed read each of these is tried by itself, */
#define CRUMB_BYTES 4096u  /* and of those that fail each of these: entries beside a bad sector are wanted; */
#define CRUMBLED_MAX 64u   /* of so many: a device that gives nothing is not asked for ever */

uint64_t ter_journal_magic_(const struct ter_sb *sb)
{
	ter_le64 first;

	memcpy(&first, sb->uuid, sizeof(first));
	return TER_JENTRY_MAGIC ^ ter_le64_get(first);
}

bool ter_jblacklisted_(const struct ter_sb *sb, uint64_t seq)
{
	for (unsigned i = 0; i < sb->blacklist_nr; i++)
		if (seq >= sb->blacklist[i].first && seq <= sb->blacklist[i].last)
			return true;
	return false;
}

/* --- one entry --- */

static bool header_sane(const struct ter_sb *sb, const struct ter_jentry_disk *disk, uint32_t bytes)
{
	uint64_t seq = ter_le64_get(disk->seq), last_seq = ter_le64_get(disk->last_seq);
	uint32_t payload = ter_le32_get(disk->payload_bytes);

	return seq >= 1 && seq <= TER_JOURNAL_SEQ_MAX && last_seq >= 1 && last_seq <= seq && payload % 8 == 0 &&
	       payload <= TER_JOURNAL_ENTRY_MAX - sizeof(*disk) && payload <= bytes - sizeof(*disk) && !disk->zero[0] && !disk->zero[1] &&
	       !(disk->flags & ~TER_JENTRY_FLAGS_KNOWN) && ter_algos_checksum(&sb->algos, disk->csum_slot);
}

int ter_jentry_check_(const struct ter_sb *sb, const void *buf, uint32_t bytes, struct ter_jfound *ret)
{
	struct ter_jentry_disk head;
	uint8_t csum[TER_DIGEST_MAX];
	struct iovec iov[2];

	if (bytes < sizeof(head))
		return -ENODATA;
	memcpy(&head, buf, sizeof(head));
	if (ter_le64_get(head.magic) != ter_journal_magic_(sb))
		return -ENODATA;
	*ret = (struct ter_jfound){ .seq = ter_le64_get(head.seq) };
	if (!header_sane(sb, &head, bytes))
		return -EBADMSG;
	ret->last_seq = ter_le64_get(head.last_seq);
	ret->payload_bytes = ter_le32_get(head.payload_bytes);
	ret->flags = head.flags;
	memset(head.csum, 0, sizeof(head.csum));
	iov[0] = (struct iovec){ .iov_base = &head, .iov_len = sizeof(head) };
	iov[1] = (struct iovec){ .iov_base = (char *)buf + sizeof(head), .iov_len = ret->payload_bytes };
	ter_algos_digestv(&sb->algos, head.csum_slot, iov, ret->payload_bytes ? 2 : 1, csum);
	if (memcmp(csum, (const char *)buf + offsetof(struct ter_jentry_disk, csum), sizeof(csum)))
		return -EBADMSG;
	memcpy(ret->csum, csum, sizeof(ret->csum));
	ret->valid = true;
	return 0;
}

/* --- one ring --- */

static void forget_old(struct ter_jscan *scan)
{
	size_t kept = 0;

	for (size_t i = 0; i < scan->found_nr; i++)
		if (scan->found[i].seq >= scan->best_last_seq)
			scan->found[kept++] = scan->found[i];
	scan->found_nr = kept;
}

static int remember(struct ter_jscan *scan, const struct ter_jfound *found)
{
	struct ter_jfound *more;
	size_t max;

	if (found->seq < scan->best_last_seq)
		return 0;
	if (scan->found_nr == scan->found_max) {
		forget_old(scan);
		if (scan->found_nr * 2 > scan->found_max || !scan->found_max) {
			max = scan->found_max ? scan->found_max * 2 : 256;
			if (max > TER_JOURNAL_FOUND_MAX)
				return -E2BIG;
			more = ter_realloc_array(scan->found, max, sizeof(*more));
			if (!more)
				return -ENOMEM;
			scan->found = more;
			scan->found_max = max;
		}
	}
	scan->found[scan->found_nr++] = *found;
	return 0;
}

static void note_valid(struct ter_jscan *scan, const struct ter_jfound *found, unsigned bucket, uint32_t end_bytes)
{
	struct ter_journal_ring_state *ring = scan->ring;

	ring->max_seq[bucket] = ter_max(ring->max_seq[bucket], found->seq);
	if (found->seq > scan->ring_newest_seq) {
		scan->ring_newest_seq = found->seq;
		ring->cur = bucket;
		ring->cur_end_bytes = end_bytes;
	}
	scan->oldest_seen_seq = scan->oldest_seen_seq ? ter_min(scan->oldest_seen_seq, found->seq) : found->seq;
	if ((found->flags & TER_JENTRY_FLUSH) && found->seq > scan->best_seq && !ter_jblacklisted_(scan->sb, found->seq)) {
		scan->best_seq = found->seq;
		scan->best_last_seq = found->last_seq;
	}
}

/* A device that cannot give all may give most. What it cannot give reads as nothing. */
static void read_pieces(struct ter_jscan *scan, uint64_t bucket_offset, uint32_t from, uint8_t *window, uint32_t bytes)
{
	const uint32_t crumb = ter_max(CRUMB_BYTES, scan->dev->bdev->info.logical_block_bytes), step = bytes > PIECE_BYTES ? PIECE_BYTES : crumb;

	if (ter_dev_read(scan->dev, bucket_offset + from, window, bytes) == 0)
		return;
	if (bytes > PIECE_BYTES || (bytes > crumb && scan->crumbled++ < CRUMBLED_MAX)) {
		for (uint32_t at = 0; at < bytes; at += step)
			read_pieces(scan, bucket_offset, from + at, window + at, ter_min(step, bytes - at));
		return;
	}
	memset(window, 0, bytes);
	scan->unreadable = true;
	if (!scan->failed_to)
		scan->failed_from = from;
	scan->failed_to = from + bytes;
}

/* An entry that begins at @buf goes on beyond the @have bytes that are there, though not beyond the bucket's @left. */
static bool cut_by_window(const struct ter_sb *sb, const void *buf, uint32_t have, uint32_t left)
{
	struct ter_jentry_disk head;

	if (have == left)
		return false;
	memcpy(&head, buf, sizeof(head)); /* a block is at least that long */
	if (ter_le64_get(head.magic) != ter_journal_magic_(sb) || ter_le32_get(head.payload_bytes) > TER_JOURNAL_ENTRY_MAX)
		return false;
	return sizeof(head) + ter_le32_get(head.payload_bytes) > have;
}

/* Entries in the window, which begins at @from in the bucket; returns where the next window has to begin, or a negative errno. */
static int64_t scan_window(struct ter_jscan *scan, unsigned bucket, uint64_t bucket_offset, const uint8_t *window, uint32_t from, uint32_t at,
			   uint32_t end)
{
	while (at < end) {
		uint32_t next = at + scan->block_bytes;
		struct ter_jfound found;
		int r;

		if (cut_by_window(scan->sb, window + (at - from), end - at, scan->bucket_bytes - at))
			return at;
		r = ter_jentry_check_(scan->sb, window + (at - from), end - at, &found);
		if (r != -ENODATA) {
			found.dev_idx = (uint8_t)scan->dev->idx;
			found.offset_bytes = bucket_offset + at;
			if (r == 0) {
				next = at + (uint32_t)ter_round_up(sizeof(struct ter_jentry_disk) + found.payload_bytes, scan->block_bytes);
				note_valid(scan, &found, bucket, next);
			}
			r = remember(scan, &found);
			if (r < 0)
				return r;
		}
		at = next;
	}
	return at;
}

static int scan_bucket(struct ter_jscan *scan, unsigned bucket, uint64_t bucket_offset, uint8_t *window)
{
	uint32_t lb = scan->dev->bdev->info.logical_block_bytes;

	scan->failed_from = scan->failed_to = 0;
	for (uint32_t at = 0; at < scan->bucket_bytes;) {
		uint32_t from = (uint32_t)ter_round_down(at, lb);
		uint32_t end = (uint32_t)ter_min((uint64_t)scan->bucket_bytes, from + TER_JOURNAL_WINDOW_BYTES);
		int64_t next;

		read_pieces(scan, bucket_offset, from, window, end - from);
		next = scan_window(scan, bucket, bucket_offset, window, from, at, end);
		if (next < 0)
			return (int)next;
		at = (uint32_t)next; /* further on: an entry is shorter than a window */
	}
	return 0;
}

static uint64_t ring_offset(const struct ter_jscan *scan, unsigned bucket)
{
	unsigned i = 0;

	while (bucket >= scan->dev->journal[i].nr)
		bucket -= (unsigned)scan->dev->journal[i++].nr;
	return (scan->dev->journal[i].first + bucket) * scan->bucket_bytes;
}

/*
 * Part of the ring could not be read. Older entries that are missing are noticed by their numbers; newer ones than the newest would lie right behind it: in its bucket, at the beginning
 * of the next one, or of the one after that, where a start that did not read the ring begins. What is there is read again, until it is known that there are none, or that it cannot be
 * known.
 */
static int look_behind_newest(struct ter_jscan *scan, uint8_t *window)
{
	struct ter_journal_ring_state *ring = scan->ring;
	uint64_t newest;

	do {
		const unsigned first = ring->cur;

		newest = scan->ring_newest_seq;
		scan->end_unreadable = !newest;
		scan->bad_behind = 0;
		for (unsigned i = 0; i < ter_min(3u, ring->nr) && scan->ring_newest_seq == newest; i++) {
			const unsigned bucket = (first + i) % ring->nr;
			int r = scan_bucket(scan, bucket, ring_offset(scan, bucket), window);

			if (r < 0)
				return r;
			scan->end_unreadable |= i ? scan->failed_to && scan->failed_from == 0 : scan->failed_to > ring->cur_end_bytes;
			if (scan->failed_to)
				scan->bad_behind = i;
		}
	} while (scan->ring_newest_seq > newest);
	return 0;
}

static int scan_ring(struct ter_jscan *scan)
{
	_cleanup_free_ uint8_t *window = ter_malloc_aligned(ter_min((uint64_t)scan->bucket_bytes, TER_JOURNAL_WINDOW_BYTES), 65536);

	if (!window)
		return -ENOMEM;
	for (unsigned bucket = 0; bucket < scan->ring->nr; bucket++) {
		int r = scan_bucket(scan, bucket, ring_offset(scan, bucket), window);

		if (r < 0)
			return r;
	}
	return scan->unreadable ? look_behind_newest(scan, window) : 0;
}

void ter_jscan_run_(void *arg)
{
	struct ter_jscan *scan = arg;

	scan->r = scan_ring(scan);
}
