/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a batch takes: segments from a file into flight, and back
 *
 * Segments that share a block go together (D9); a group over a block that is in flight or failed waits. What failed earlier is older than all else and is taken alone.
 */
#include "data/data_priv.h"

struct group {
	struct ter_seg *first;
	uint64_t from, to; /* blocks */
	bool old_enough;
};

static struct group group_at(struct ter_data *data, struct ter_seg *root, struct ter_seg *seg, uint64_t gen_max)
{
	struct group g = { .first = seg, .from = ter_file_block_down(data, seg->start), .to = ter_file_block_up(data, seg->end) };

	g.old_enough = seg->gen <= gen_max;
	for (seg = ter_segtree_next(root, seg); seg && seg->start < g.to; seg = ter_segtree_next(root, seg)) {
		g.to = ter_file_block_up(data, seg->end);
		g.old_enough |= seg->gen <= gen_max;
	}
	return g;
}

static void batch_add(struct ter_batch *batch, struct ter_seg *seg)
{
	seg->next = NULL;
	seg->in_flight = true;
	*batch->tail = seg;
	batch->tail = &seg->next;
	batch->pinned |= seg->pin_seq != 0;
	batch->seq = ter_max(batch->seq, seg->seq);
}

static bool batch_full(struct ter_data *data, const struct ter_batch *batch, const struct group *g)
{
	const bool small = ter_journal_is_small(ter_data_journal(data));
	const uint64_t bytes_max = small ? ter_min(data->batch_bytes, (uint64_t)TER_BATCH_BYTES_SMALL) : data->batch_bytes;

	return batch->segs && (batch->bytes + (g->to - g->from) > bytes_max || batch->runs >= (small ? TER_BATCH_RUNS_SMALL : TER_BATCH_RUNS_MAX));
}

static void take_group(struct ter_file *file, struct ter_batch *batch, const struct group *g)
{
	struct ter_seg *seg, *next;

	for (seg = g->first; seg && seg->start < g->to; seg = next) {
		next = ter_segtree_next(file->segs, seg);
		ter_segtree_remove(&file->segs, seg);
		if (seg->new_from < seg->new_to) {
			file->unsynced_bytes -= seg->new_to - seg->new_from;
			ter_list_del(&seg->new_link);
			file->wb_unsynced_nr++;
		}
		ter_segtree_insert(&file->wb, seg);
		file->writeback_nr++;
		batch_add(batch, seg);
	}
	batch->bytes += g->to - g->from;
	batch->runs++;
}

static void take_failed(struct ter_data *data, struct ter_file *file, struct ter_batch *batch)
{
	struct ter_seg *seg = ter_segtree_first(file->wb, 0);

	while (seg) {
		struct group g;

		if (seg->in_flight) {
			seg = ter_segtree_next(file->wb, seg);
			continue;
		}
		g = group_at(data, file->wb, seg, UINT64_MAX);
		if (batch_full(data, batch, &g))
			return;
		for (seg = g.first; seg && seg->start < g.to; seg = ter_segtree_next(file->wb, seg)) {
			seg->failed = false;
			file->wb_failed_nr--;
			file->writeback_nr++;
			batch_add(batch, seg);
			ter_lock_acquire(&data->lock);
			data->failed_bytes -= seg->cap;
			ter_lock_release(&data->lock);
		}
		batch->bytes += g.to - g.from;
		batch->runs++;
	}
}

/* From @pos up to @end, until the batch is full. */
static void take_range(struct ter_data *data, struct ter_file *file, uint64_t pos, uint64_t end, uint64_t gen_max, struct ter_batch *batch)
{
	struct ter_seg *seg = ter_segtree_first(file->segs, pos);

	while (seg && seg->start < end) {
		struct group g = group_at(data, file->segs, seg, gen_max);
		struct ter_seg *flying = ter_segtree_first(file->wb, g.from);

		if (g.old_enough && !(flying && flying->start < g.to)) {
			if (batch_full(data, batch, &g))
				return;
			take_group(file, batch, &g);
			file->wb_cursor = g.to;
		}
		seg = ter_segtree_first(file->segs, ter_max(g.to, pos));
	}
}

static void take(struct ter_data *data, struct ter_file *file, uint64_t gen_max, bool retry, struct ter_batch *batch)
{
	uint64_t cursor;

	if (retry && file->wb_failed_nr) {
		batch->retried = true;
		take_failed(data, file, batch);
		return;
	}
	/* From where the last batch ended: what is written again and again cannot keep the rest waiting. Or from the front; never both, since a batch ascends. */
	cursor = batch->exclusive ? 0 : file->wb_cursor;
	take_range(data, file, cursor, UINT64_MAX, gen_max, batch);
	if (!batch->segs && cursor)
		take_range(data, file, 0, cursor, gen_max, batch);
}

bool ter_batch_take(struct ter_data *data, struct ter_file *file, uint64_t gen_max, bool retry, struct ter_batch *batch)
{
	*batch = (struct ter_batch){ .file = file, .eof = file->size };
	batch->tail = &batch->segs;
	if (file->no_take)
		return false;
	/* A small file becomes one inline key or gets extents; never both at once. */
	batch->exclusive = file->size <= TER_INLINE_FILE_MAX;
	if (batch->exclusive && file->writeback_nr)
		return false;
	take(data, file, gen_max, retry, batch);
	if (!batch->segs)
		return false;
	file->no_take += batch->exclusive;
	/* What is synced from now on must not get into the newest entry that holds something of this batch: DATA_DONE says all up to that entry. */
	if (batch->seq)
		ter_journal_close_entry(ter_data_journal(data), batch->seq);
	return true;
}

static void drop_done(struct ter_data *data, struct ter_file *file, struct ter_batch *batch)
{
	uint64_t bytes = 0;

	for (struct ter_seg *seg = batch->segs; seg; seg = seg->next) {
		ter_segtree_remove(&file->wb, seg);
		file->writeback_nr--;
		file->wb_unsynced_nr -= seg->new_from < seg->new_to;
		bytes += seg->end - seg->start;
	}
	file->dirty_bytes -= bytes;
	atomic_fetch_sub_explicit(&data->dirty_bytes, bytes, memory_order_relaxed);
	ter_segs_free(data, TAKE_PTR(batch->segs)); /* with the lock held: who waits for the segments waits for their pins, too */
}

static void mark_failed(struct ter_data *data, struct ter_file *file, struct ter_batch *batch, int r)
{
	ter_lock_acquire(&data->lock);
	for (struct ter_seg *seg = batch->segs; seg; seg = seg->next) {
		seg->in_flight = false;
		seg->failed = true;
		file->writeback_nr--;
		file->wb_failed_nr++;
		data->failed_bytes += seg->cap;
	}
	file->wanted_gen = 0; /* who asked is told by `failures`; asking again tries again */
	__atomic_store_n(&data->frees, data->frees + 1, __ATOMIC_RELEASE); /* waiters look whether there is hope */
	ter_waitq_wake_all(&data->space_wq);
	ter_lock_release(&data->lock);
	file->failures++;
	file->failure = file->error = r;
	atomic_fetch_add_explicit(&data->failed, 1, memory_order_relaxed);
}

void ter_batch_end(struct ter_data *data, struct ter_batch *batch, int r)
{
	struct ter_file *file = batch->file;
	bool gone;

	ter_lock_acquire(&file->lock);
	file->no_take -= batch->exclusive;
	if (r >= 0)
		drop_done(data, file, batch);
	else
		mark_failed(data, file, batch, r);
	gone = ter_file_account(data, file);
	ter_waitq_wake_all(&file->wq);
	ter_lock_release(&file->lock);
	if (gone)
		ter_file_release(file);
	ter_file_release(file); /* the batch's */
}
