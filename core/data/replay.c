/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replay: file data found in the journal becomes dirty segments again
 *
 * Each record is its own segments, with its sequence, so that a later DATA_DONE takes away what it means and no more. What exceeds the region is kept in heap memory; the journal's
 * size bounds it. Nobody else is here: no task runs yet, pins and reservations are taken by ter_data_start().
 */
#include "data/data_priv.h"

#define RECORD_BYTES_MAX TER_MIB(1)

/* One segment for the front of [from, to), from the region or the heap. */
static struct ter_seg *replay_seg(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to)
{
	uint64_t base = ter_round_down(from, TER_PAGE_BYTES);
	struct ter_seg *seg;
	unsigned order = 0;

	ter_lock_acquire(&data->lock);
	seg = ter_pool_seg_get(&data->pool);
	if (seg)
		seg->page = ter_pool_get(&data->pool, order, &order);
	ter_lock_release(&data->lock);
	if (!seg) {
		seg = ter_new(struct ter_seg);
		if (!seg)
			return NULL;
		seg->heap = true;
		seg->page = TER_PAGE_NONE;
		ter_list_init(&seg->new_link);
		ter_list_init(&seg->pin_link);
	}
	seg->file = file;
	seg->base = base;
	seg->start = from;
	seg->cap = TER_PAGE_BYTES;
	seg->end = ter_min(to, base + seg->cap);
	seg->gen = 1;
	seg->mem = data->pool.mem + ((size_t)seg->page << TER_PAGE_SHIFT);
	if (seg->page != TER_PAGE_NONE)
		return seg;
	seg->loose = ter_new(struct ter_loose);
	if (seg->loose)
		seg->loose->mem = ter_malloc_aligned(TER_PAGE_BYTES, TER_PAGE_BYTES);
	if (!seg->loose || !seg->loose->mem) {
		free(seg->loose);
		ter_pool_seg_put(&data->pool, seg);
		return NULL;
	}
	seg->loose->refs = 1;
	seg->mem = seg->loose->mem;
	return seg;
}

static void add_seg(struct ter_data *data, struct ter_file *file, struct ter_seg *seg, uint64_t seq, const uint8_t *bytes)
{
	memcpy(seg->mem + (seg->start - seg->base), bytes, seg->end - seg->start);
	seg->replicas = ter_data_opt(data, data_replicas);
	seg->shared = true; /* nothing of another sequence grows into it */
	ter_segtree_insert(&file->segs, seg);
	ter_seg_set_pin(data, seg, seq, true);
	file->dirty_bytes += seg->end - seg->start;
	atomic_fetch_add_explicit(&data->dirty_bytes, seg->end - seg->start, memory_order_relaxed);
}

/* Bytes of a range leave; -ENOMEM where a segment cannot be cut. */
static int drop(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, uint64_t upto_seq)
{
	struct ter_seg *dropped = NULL;
	int r;

	r = ter_segs_cut(data, file, &file->segs, from, to, upto_seq, &dropped);
	ter_segs_free(data, dropped);
	return r < 0 ? -ENOMEM : 0;
}

int ter_file_replay_data(struct ter_data *data, struct ter_file *file, uint64_t seq, uint64_t offset, const void *bytes, size_t nr)
{
	uint64_t pos = offset, end = offset + nr;
	bool gone;
	int r;

	if (!nr || nr > RECORD_BYTES_MAX || end < offset || end > INT64_MAX)
		return -EUCLEAN;
	ter_file_hold(file);
	ter_lock_acquire(&file->lock);
	r = drop(data, file, pos, end, UINT64_MAX);
	while (r >= 0 && pos < end) {
		struct ter_seg *seg = replay_seg(data, file, pos, end);

		if (!seg) {
			r = -ENOMEM;
			break;
		}
		add_seg(data, file, seg, seq, (const uint8_t *)bytes + (pos - offset));
		pos = seg->end;
	}
	file->last_seq = ter_max(file->last_seq, seq);
	gone = ter_file_account(data, file);
	ter_lock_release(&file->lock);
	if (gone)
		ter_file_release(file);
	ter_file_release(file);
	return r;
}

void ter_file_replay_done(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, uint64_t upto_seq)
{
	bool gone;

	ter_file_hold(file);
	ter_lock_acquire(&file->lock);
	/* What cannot be taken away would come back over newer extents: then the start fails. */
	if (drop(data, file, from, to, upto_seq) < 0)
		data->replay_failed = true;
	gone = ter_file_account(data, file);
	ter_lock_release(&file->lock);
	if (gone)
		ter_file_release(file);
	ter_file_release(file);
}
