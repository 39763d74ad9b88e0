/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading back, second half: from the entries found on all members choose those that are needed, in order and without a gap (J7), fetch them from a good copy each, and say
 * which sequence numbers may never be believed.
 */
#include "journal/journal_priv.h"

#define LOOK_AHEAD_SEQS 64 /* an entry may be on other members than the one before it, but its neighbour on a member is not far */

struct reading {
	struct ter_exec *exec;
	struct ter_sb *sb;
	struct ter_members *members;
	struct ter_error *error;
	struct ter_jscan scan[TER_DEVS_MAX];
	unsigned scans_nr;
	bool missing;    /* a member with a journal is not there */
	bool unreadable; /* part of a ring is not */
	bool to_newest;  /* nothing is newer than what is found: somebody says so */
	struct ter_jfound *found; /* of all members, by sequence */
	size_t found_nr;
	uint64_t newest, last_seq; /* the newest flush entry; 0: none */
	struct ter_journal_replay *replay;
};

/* --- the rings, several at once --- */

static int add_scans(struct reading *rd)
{
	for (unsigned i = 0; i < rd->members->nr_slots; i++) {
		struct ter_dev *dev = ter_member(rd->members, i);
		struct ter_journal_ring_state *ring = &rd->replay->ring[i];

		if (!dev || !ter_jring_buckets_nr_(dev))
			continue;
		if (!ter_dev_online(dev)) {
			rd->missing = true;
			continue;
		}
		ring->nr = ring->cur = ter_jring_buckets_nr_(dev);
		ring->max_seq = ter_new_array(uint64_t, ring->nr);
		if (!ring->max_seq)
			return -ENOMEM;
		rd->scan[rd->scans_nr++] = (struct ter_jscan){
			.sb = rd->sb, .dev = dev, .bucket_bytes = dev->bucket_sectors * TER_SECTOR_BYTES,
			.block_bytes = rd->sb->options.block_size, .ring = ring,
		};
	}
	return 0;
}

static void run_scans(struct reading *rd, unsigned first, unsigned nr)
{
	struct ter_task *task[TER_JOURNAL_SCANS_AT_ONCE] = { 0 };

	for (unsigned i = 1; i < nr; i++)
		if (rd->exec->ops->spawn(rd->exec, "journal-read", ter_jscan_run_, &rd->scan[first + i], &task[i]) < 0) {
			task[i] = NULL;
			ter_jscan_run_(&rd->scan[first + i]); /* slower, not wrong */
		}
	ter_jscan_run_(&rd->scan[first]);
	for (unsigned i = 1; i < nr; i++)
		rd->exec->ops->join(rd->exec, task[i]);
}

static int scan_all(struct reading *rd)
{
	for (unsigned i = 0; i < rd->scans_nr; i += TER_JOURNAL_SCANS_AT_ONCE)
		run_scans(rd, i, ter_min(rd->scans_nr - i, (unsigned)TER_JOURNAL_SCANS_AT_ONCE));
	for (unsigned i = 0; i < rd->scans_nr; i++) {
		if (rd->scan[i].r == -E2BIG)
			return ter_fail(rd->error, TER_ERR_CORRUPTED, "The journal on member %u holds more broken entries than it can.",
					rd->scan[i].dev->idx);
		if (rd->scan[i].r < 0)
			return rd->scan[i].r;
	}
	return 0;
}

/* --- all found entries, in order --- */

static int by_seq(const void *a, const void *b)
{
	const struct ter_jfound *x = a, *y = b;

	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	return (int)y->valid - (int)x->valid;
}

static int merge(struct reading *rd)
{
	size_t nr = 0;

	for (unsigned i = 0; i < rd->scans_nr; i++) {
		nr += rd->scan[i].found_nr;
		rd->unreadable |= rd->scan[i].unreadable;
	}
	if (!nr)
		return 0;
	rd->found = ter_new_array(struct ter_jfound, nr);
	if (!rd->found)
		return -ENOMEM;
	for (unsigned i = 0; i < rd->scans_nr; i++) {
		struct ter_jscan *scan = &rd->scan[i];

		if (scan->found_nr)
			memcpy(rd->found + rd->found_nr, scan->found, scan->found_nr * sizeof(*scan->found));
		rd->found_nr += scan->found_nr;
		if (scan->best_seq > rd->newest) {
			rd->newest = scan->best_seq;
			rd->last_seq = scan->best_last_seq;
		}
		if (scan->oldest_seen_seq && (!rd->replay->oldest_seen_seq || scan->oldest_seen_seq < rd->replay->oldest_seen_seq))
			rd->replay->oldest_seen_seq = scan->oldest_seen_seq;
	}
	qsort(rd->found, rd->found_nr, sizeof(*rd->found), by_seq);
	return 0;
}

/* --- which sequence numbers come next, and which never were --- */

static uint64_t max_seen(const struct reading *rd)
{
	uint64_t seen = rd->newest;

	for (size_t i = 0; i < rd->found_nr; i++)
		if (rd->found[i].valid)
			seen = ter_max(seen, rd->found[i].seq);
	/* Of a torn entry the number is only believed where it can be: a journal never has more live sequences. */
	for (size_t i = 0; i < rd->found_nr; i++)
		if (!rd->found[i].valid && rd->found[i].seq > seen && rd->found[i].seq <= rd->newest + TER_JOURNAL_FIFO_MAX)
			seen = rd->found[i].seq;
	return seen;
}

static void set_next(struct reading *rd)
{
	struct ter_journal_replay *replay = rd->replay;
	uint64_t next = ter_max(max_seen(rd), rd->sb->journal_seq_clean) + 1;

	if (rd->missing || rd->unreadable)
		next += TER_JOURNAL_SKIP_SEQS;
	/* A number that was blacklisted once stays so. */
	for (unsigned i = 0; i < rd->sb->blacklist_nr; i++)
		next = ter_max(next, rd->sb->blacklist[i].last + 1);
	replay->next_seq = next;
	replay->blacklist_first = rd->newest + 1;
	replay->blacklist_last = next - 1;
}

/* --- which entries are needed --- */

static int lost(struct reading *rd, uint64_t seq)
{
	if (rd->missing)
		return ter_fail(rd->error, TER_ERR_DEGRADED,
				"Journal entry %llu is on none of the members that are there; a missing member may hold it. Connect the missing member.",
				(unsigned long long)seq);
	if (rd->unreadable)
		return ter_fail(rd->error, TER_ERR_IO,
				"Journal entry %llu, which is needed to recover, cannot be read from any member. See the error counters of the devices.",
				(unsigned long long)seq);
	return ter_fail(rd->error, TER_ERR_CORRUPTED, "Journal entry %llu, which is needed to recover, is damaged or missing on every member.",
			(unsigned long long)seq);
}

/*
 * Entries newer than all that were found may stand where a member cannot be read. They do not matter as long as each set of members that an entry was ever written to has one that was
 * read to its end.
 */
static int check_ends(struct reading *rd)
{
	uint64_t known = 0, unknown = 0;

	for (unsigned i = 0; i < rd->scans_nr; i++)
		*(rd->scan[i].end_unreadable ? &unknown : &known) |= 1ull << rd->scan[i].dev->idx;
	for (unsigned i = 0; unknown && i < rd->sb->replicas_nr; i++) {
		const struct ter_replicas_entry *set = &rd->sb->replicas[i];
		uint64_t mask = 0;

		for (unsigned d = 0; d < set->nr_devs; d++)
			mask |= 1ull << set->devs[d];
		if (set->data_type != TER_DATA_JOURNAL || mask & known || !(mask & unknown))
			continue;
		rd->replay->unread_dev = (int)ter_log2(mask & unknown);
		if (!rd->to_newest)
			return ter_fail(rd->error, TER_ERR_IO,
					"The journal on %s cannot be read to its end, and what was written last may be there only. See the error counters of the devices. "
					"A repair can go on without it.", rd->members->dev[rd->replay->unread_dev].bdev->path);
	}
	return 0;
}

/* What is written next is not written where it cannot be read. Buckets that hold what is needed are none to step over. */
static int step_over_bad(struct reading *rd)
{
	for (unsigned i = 0; i < rd->scans_nr; i++) {
		const struct ter_jscan *scan = &rd->scan[i];
		struct ter_journal_ring_state *ring = scan->ring;

		if (!scan->end_unreadable || ring->cur >= ring->nr)
			continue;
		for (unsigned k = 1; k <= scan->bad_behind; k++)
			if (ring->max_seq[(ring->cur + k) % ring->nr] >= rd->last_seq)
				return ter_fail(rd->error, TER_ERR_IO, "The journal on %s cannot be read to its end, and there is no room behind it.", scan->dev->bdev->path);
		ring->cur = (ring->cur + scan->bad_behind) % ring->nr;
		ring->cur_end_bytes = scan->bucket_bytes;
	}
	return 0;
}

static size_t group_end(const struct reading *rd, size_t i)
{
	size_t end = i + 1;

	while (end < rd->found_nr && rd->found[end].seq == rd->found[i].seq)
		end++;
	return end;
}

static void count_bad(struct reading *rd, size_t i)
{
	ter_dev_error(rd->members, &rd->members->dev[rd->found[i].dev_idx], TER_DEV_ERR_CHECKSUM, -EBADMSG);
	rd->replay->bad_copies++;
}

/* Every sequence of last_seq..newest has a good copy, and good copies agree. Counts bad ones. Sums up what memory the payloads need. */
static int check_range(struct reading *rd, unsigned *ret_nr, size_t *ret_bytes)
{
	uint64_t expect = rd->last_seq;
	unsigned nr = 0;
	size_t bytes = 0;

	for (size_t i = 0, end; i < rd->found_nr && rd->found[i].seq <= rd->newest; i = end) {
		const struct ter_jfound *first = &rd->found[i];

		end = group_end(rd, i);
		if (first->seq < rd->last_seq || ter_jblacklisted_(rd->sb, first->seq))
			continue;
		while (expect < first->seq && ter_jblacklisted_(rd->sb, expect))
			expect++;
		if (expect != first->seq)
			return lost(rd, expect);
		for (size_t n = i; n < end; n++) {
			if (!rd->found[n].valid)
				count_bad(rd, n);
			else if (memcmp(rd->found[n].csum, first->csum, sizeof(first->csum)))
				return ter_fail(rd->error, TER_ERR_CORRUPTED, "Journal entry %llu is there twice, with different content.",
						(unsigned long long)first->seq);
		}
		if (!first->valid)
			return lost(rd, expect);
		nr++;
		bytes += first->payload_bytes;
		expect++;
	}
	if (expect != rd->newest + 1)
		return lost(rd, expect);
	*ret_nr = nr;
	*ret_bytes = bytes;
	return 0;
}

/* --- fetching them --- */

static int check_records(struct reading *rd, const struct ter_journal_entry *entry)
{
	uint32_t at = 0;

	while (at < entry->bytes) {
		const struct ter_jrec_disk *disk = (const void *)(entry->recs + at);
		struct ter_jrec rec;
		uint32_t payload, left = entry->bytes - at; /* a multiple of 8 */

		payload = ter_le32_get(disk->payload_bytes);
		if (payload > left - sizeof(*disk) || disk->zero)
			break;
		rec = (struct ter_jrec){ .type = disk->type, .btree = disk->btree, .level = disk->level, .bytes = payload, .payload = disk + 1 };
		if (ter_jrec_check(&rec, entry->seq) < 0)
			break;
		at += ter_jrec_bytes(payload);
	}
	if (at == entry->bytes)
		return 0;
	return ter_fail(rd->error, TER_ERR_CORRUPTED, "Journal entry %llu has a record at byte %u that is not understood.",
			(unsigned long long)entry->seq, at);
}

static uint64_t end_of(const struct reading *rd, const struct ter_jfound *found)
{
	return found->offset_bytes + ter_round_up(sizeof(struct ter_jentry_disk) + found->payload_bytes, rd->sb->options.block_size);
}

/* Bytes read into a window: of one member, from..to. */
struct window {
	uint8_t *buf;
	unsigned dev_idx;
	uint64_t from, to;
};

static bool holds(const struct reading *rd, const struct window *win, const struct ter_jfound *found)
{
	return win->to && win->dev_idx == found->dev_idx && win->from <= found->offset_bytes && end_of(rd, found) <= win->to;
}

/* Reads @found[i] and what follows it on the same member, as far as it is needed and fits. */
static int fill(struct reading *rd, struct window *win, size_t i)
{
	const struct ter_jfound *found = &rd->found[i];
	struct ter_dev *dev = &rd->members->dev[found->dev_idx];
	uint32_t lb = dev->bdev->info.logical_block_bytes;
	uint64_t end = end_of(rd, found), last_match = found->seq;
	int r;

	win->from = ter_round_down(found->offset_bytes, lb);
	for (size_t n = i + 1; n < rd->found_nr && rd->found[n].seq <= ter_min(rd->newest, last_match + LOOK_AHEAD_SEQS); n++) {
		if (!rd->found[n].valid || rd->found[n].dev_idx != found->dev_idx || rd->found[n].offset_bytes != end)
			continue;
		if (ter_round_up(end_of(rd, &rd->found[n]), lb) - win->from > TER_JOURNAL_WINDOW_BYTES)
			break;
		end = end_of(rd, &rd->found[n]);
		last_match = rd->found[n].seq;
	}
	win->dev_idx = found->dev_idx;
	win->to = ter_round_up(end, lb);
	r = ter_dev_read(dev, win->from, win->buf, win->to - win->from);
	if (r < 0)
		win->to = 0;
	return r;
}

static bool take(struct reading *rd, const struct window *win, const struct ter_jfound *found, uint8_t *memory, struct ter_journal_entry *ret)
{
	const uint8_t *at = win->buf + (found->offset_bytes - win->from);
	struct ter_jfound again;

	if (ter_jentry_check_(rd->sb, at, (uint32_t)(win->to - found->offset_bytes), &again) < 0 || again.seq != found->seq ||
	    again.payload_bytes != found->payload_bytes || memcmp(again.csum, found->csum, sizeof(again.csum)))
		return false;
	memcpy(memory, at + sizeof(struct ter_jentry_disk), found->payload_bytes);
	*ret = (struct ter_journal_entry){
		.seq = found->seq, .last_seq = found->last_seq, .flush = found->flags & TER_JENTRY_FLUSH,
		.bytes = found->payload_bytes, .recs = memory,
	};
	return true;
}

/* From whichever good copy is in the window already, else from the first that can still be read. */
static int fetch(struct reading *rd, struct window *win, size_t first, size_t end, uint8_t *memory, struct ter_journal_entry *ret)
{
	for (size_t i = first; i < end; i++)
		if (rd->found[i].valid && holds(rd, win, &rd->found[i]) && take(rd, win, &rd->found[i], memory, ret))
			return 0;
	for (size_t i = first; i < end && rd->found[i].valid; i++) {
		if (fill(rd, win, i) < 0) {
			rd->unreadable = true; /* counted as a read error */
			continue;
		}
		if (take(rd, win, &rd->found[i], memory, ret))
			return 0;
		count_bad(rd, i);
	}
	return lost(rd, rd->found[first].seq);
}

static int fetch_all(struct reading *rd, unsigned nr, size_t bytes)
{
	_cleanup_free_ uint8_t *buf = ter_malloc_aligned(TER_JOURNAL_WINDOW_BYTES, 65536);
	struct window win = { .buf = buf };
	struct ter_journal_replay *replay = rd->replay;
	uint8_t *memory;
	int r;

	replay->entry = ter_new_array(struct ter_journal_entry, nr);
	replay->memory = memory = ter_malloc(bytes ? bytes : 1);
	if (!buf || !replay->entry || !memory)
		return -ENOMEM;
	for (size_t i = 0, end; i < rd->found_nr && rd->found[i].seq <= rd->newest; i = end) {
		struct ter_journal_entry *entry = &replay->entry[replay->nr];

		end = group_end(rd, i);
		if (rd->found[i].seq < rd->last_seq || ter_jblacklisted_(rd->sb, rd->found[i].seq))
			continue;
		r = fetch(rd, &win, i, end, memory, entry);
		if (r == 0)
			r = check_records(rd, entry);
		if (r < 0)
			return r;
		memory += entry->bytes; /* a multiple of 8: records stay aligned */
		replay->nr++;
	}
	assert(replay->nr == nr);
	return 0;
}

/* --- all of it --- */

static int read_all(struct reading *rd)
{
	unsigned nr = 0;
	size_t bytes = 0;
	int r;

	if (!ter_is_pow2(rd->sb->options.block_size) || rd->sb->options.block_size < TER_SECTOR_BYTES)
		return ter_fail(rd->error, TER_ERR_CORRUPTED, "The superblock's block size %u is not valid.", rd->sb->options.block_size);
	r = add_scans(rd);
	if (r == 0)
		r = scan_all(rd);
	if (r == 0)
		r = merge(rd);
	if (r == 0)
		r = check_ends(rd);
	if (r == 0 && rd->replay->unread_dev >= 0)
		r = step_over_bad(rd);
	if (r < 0)
		return r;
	if (rd->newest < rd->sb->journal_seq_clean)
		return lost(rd, rd->sb->journal_seq_clean); /* it was durable when the superblock said so */
	if (rd->newest) {
		r = check_range(rd, &nr, &bytes);
		if (r == 0)
			r = fetch_all(rd, nr, bytes);
		if (r < 0)
			return r;
	}
	set_next(rd);
	return 0;
}

static int read_journal(struct ter_exec *exec, struct ter_sb *sb, struct ter_members *members, bool to_newest, struct ter_journal_replay **ret_replay,
			struct ter_error *error)
{
	struct reading *rd = ter_new(struct reading);
	int r = -ENOMEM;

	if (!rd)
		return ter_fail(error, TER_ERR_NO_MEMORY, "There is not enough memory to read the journal.");
	rd->exec = exec;
	rd->sb = sb;
	rd->members = members;
	rd->error = error;
	rd->to_newest = to_newest;
	rd->replay = ter_new(struct ter_journal_replay);
	if (rd->replay) {
		rd->replay->unread_dev = -1;
		r = read_all(rd);
	}
	if (r == 0)
		*ret_replay = TAKE_PTR(rd->replay);
	else
		(void)ter_fail_errno(error, r, "The journal cannot be read."); /* keeps an explanation already there */
	for (unsigned i = 0; i < rd->scans_nr; i++)
		free(rd->scan[i].found);
	free(rd->found);
	ter_journal_replay_free(rd->replay);
	free(rd);
	return r;
}

int ter_journal_read(struct ter_exec *exec, struct ter_sb *sb, struct ter_members *members, struct ter_journal_replay **ret_replay, struct ter_error *error)
{
	return read_journal(exec, sb, members, false, ret_replay, error);
}

int ter_journal_read_to_newest(struct ter_exec *exec, struct ter_sb *sb, struct ter_members *members, struct ter_journal_replay **ret_replay, struct ter_error *error)
{
	return read_journal(exec, sb, members, true, ret_replay, error);
}

void ter_journal_replay_free(struct ter_journal_replay *replay)
{
	if (!replay)
		return;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		free(replay->ring[i].max_seq);
	free(replay->entry);
	free(replay->memory);
	free(replay);
}

bool ter_jrec_next(const struct ter_journal_entry *entry, uint32_t *pos, struct ter_jrec *ret)
{
	while (*pos < entry->bytes) {
		const struct ter_jrec_disk *disk = (const void *)(entry->recs + *pos);
		uint32_t payload = ter_le32_get(disk->payload_bytes);

		*pos += ter_jrec_bytes(payload);
		if (disk->type == TER_JREC_PAD)
			continue;
		*ret = (struct ter_jrec){ .type = disk->type, .btree = disk->btree, .level = disk->level, .bytes = payload, .payload = disk + 1 };
		return true;
	}
	return false;
}
