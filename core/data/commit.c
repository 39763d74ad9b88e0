/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Committing a batch (D3): extents, or the inline data of small files, with the inode and what the journal needs not keep
 *
 * The extents of a batch go into as few transactions as they fit in. Each of them is whole by itself: a crash between two leaves some ranges old and some new, which
 * unsynced data may be.
 */
#include "data/data_priv.h"

struct commit_arg {
	struct ter_data *data;
	const struct ter_batch *batch;
	const struct ter_extent *extents;
	unsigned nr;
	struct ter_commit_mem *mem;
	uint64_t size_to;
	int64_t sectors;
	uint64_t promised_sectors;
	unsigned stale_tries;
};

static int stage_extent(struct ter_trans *trans, struct commit_arg *arg, const struct ter_extent *extent)
{
	struct ter_data *data = arg->data;
	struct ter_file *file = arg->batch->file;
	uint64_t end = extent->start + extent->sectors;
	struct ter_punch_result punched;
	struct ter_key key = {
		.pos = TER_POS(file->inum, end, file->snapshot),
		.size = extent->sectors,
		.type = TER_KEY_EXTENT,
		.val = arg->mem->val,
	};
	int64_t sectors;
	int r;

	r = ter_extents_stage_punch_(data->config.alloc, trans, data->sb, file->inum, file->snapshot, extent->start, end, UINT32_MAX, &punched);
	if (r < 0)
		return r;
	key.val_bytes = ter_extent_encode(extent, arg->mem->val);
	r = ter_extents_stage_insert(data->config.alloc, trans, data->sb, &key, &sectors);
	if (r < 0)
		return r;
	arg->sectors += sectors + punched.sectors;
	arg->promised_sectors += punched.promised_sectors;
	arg->size_to = ter_max(arg->size_to, end << TER_SECTOR_SHIFT);
	return 0;
}

static int log_done(struct ter_trans *trans, uint64_t inum, uint64_t from, uint64_t to, uint64_t upto, struct ter_jrec_data_done_disk *mem)
{
	struct iovec iov = { .iov_base = mem, .iov_len = sizeof(*mem) };
	const struct ter_jrec_data_done done = { .inum = inum, .from_bytes = from, .to_bytes = to, .upto_seq = upto };

	ter_jrec_data_done_encode(&done, mem);
	return ter_trans_log(trans, TER_JREC_DATA_DONE, &iov, 1);
}

/*
 * All journaled bytes in the extents' blocks are in the batch (D9), and what is journaled after it was taken has a greater sequence (ter_batch_take() closes the entry): so the
 * newest of the batch may be said for all of it.
 */
static int log_extents_done(struct ter_trans *trans, struct commit_arg *arg)
{
	unsigned used = 0;
	int r = 0;

	for (unsigned i = 0; i < arg->nr && r >= 0;) {
		uint64_t from = arg->extents[i].start, to = from;

		while (i < arg->nr && arg->extents[i].start == to)
			to += arg->extents[i++].sectors;
		r = log_done(trans, arg->batch->file->inum, from << TER_SECTOR_SHIFT, to << TER_SECTOR_SHIFT, arg->batch->seq, &arg->mem->done[used++]);
	}
	return r;
}

static int commit_fn(struct ter_trans *trans, void *p)
{
	struct commit_arg *arg = p;
	struct ter_file *file = arg->batch->file;
	int r;

	arg->sectors = 0;
	arg->size_to = arg->promised_sectors = 0;
	for (unsigned i = 0; i < arg->nr; i++) {
		r = stage_extent(trans, arg, &arg->extents[i]);
		if (r < 0)
			return ter_maybe_stale(r, &arg->stale_tries);
	}
	arg->size_to = ter_min(arg->size_to, arg->batch->eof);
	r = file->ops->stage(file, trans, arg->size_to, arg->sectors);
	if (r < 0)
		return r;
	return arg->batch->seq ? log_extents_done(trans, arg) : 0;
}

static void note_commit(struct ter_data *data, struct ter_file *file, uint64_t size_to, int64_t sectors, uint64_t promised_sectors, uint64_t seq)
{
	ter_lock_acquire(&file->lock);
	file->last_seq = ter_max(file->last_seq, seq);
	ter_lock_release(&file->lock);
	file->ops->committed(file, size_to, sectors, seq);
	if (promised_sectors)
		ter_data_unpromise(data, promised_sectors);
}

static int commit_some(struct commit_arg *arg, const struct ter_extent *extents, unsigned nr)
{
	struct ter_data *data = arg->data;
	uint64_t seq;
	int r;

	arg->extents = extents;
	arg->nr = nr;
	arg->stale_tries = 0;
	r = ter_trans_run(data->config.btrees, TER_TRANS_RECLAIM, commit_fn, arg, &seq);
	if (r < 0)
		return r;
	note_commit(data, arg->batch->file, arg->size_to, arg->sectors, arg->promised_sectors, seq);
	return 0;
}

/* One extent over more old keys than a transaction holds: in parts, which all point to what was written. */
static int commit_in_parts(struct commit_arg *arg, const struct ter_extent *extent)
{
	uint64_t pos = extent->start, end = pos + extent->sectors, step = ter_round_up(extent->sectors / 2, arg->data->block_sectors);

	while (pos < end) {
		struct ter_extent part = *extent;
		int r;

		ter_extent_cut(&part, pos, ter_min(end, pos + step));
		r = commit_some(arg, &part, 1);
		if (r == -E2BIG && step > arg->data->block_sectors) {
			step = ter_round_up(step / 2, arg->data->block_sectors);
			continue;
		}
		if (r < 0)
			return r;
		pos += part.sectors;
	}
	return 0;
}

int ter_batch_commit(struct ter_data *data, const struct ter_batch *batch, const struct ter_extent *extents, unsigned nr, struct ter_commit_mem *mem)
{
	struct commit_arg arg = { .data = data, .batch = batch, .mem = mem };
	unsigned i = 0, step = TER_BATCH_TRANS_PIECES;
	int r;

	while (i < nr) {
		unsigned n = ter_min(step, nr - i);

		r = commit_some(&arg, extents + i, n);
		if (r == -E2BIG && n > 1) {
			step = n / 2;
			continue;
		}
		if (r == -E2BIG && extents[i].sectors > data->block_sectors)
			r = commit_in_parts(&arg, &extents[i]);
		if (r < 0)
			return r;
		i += n;
	}
	return 0;
}

/* --- inline data --- */

struct inline_arg {
	struct ter_data *data;
	struct ter_batch *batches;
	unsigned nr, done_nr, stale_tries;
	bool *skip;
	struct ter_commit_mem *mem;
	struct inline_result {
		int64_t sectors;
		uint64_t promised_sectors;
	} result[TER_INLINE_FILES_MAX];
};

#define NOT_INLINE (-EXDEV) /* internal: the file has extents */

/* What the file holds now, into mem->content; *ret_end: the last sector that must go. */
static int read_content(struct ter_trans *trans, struct ter_file *file, uint64_t eof, uint8_t *content, uint64_t *ret_end)
{
	uint64_t pos = 0, end = 0;
	struct ter_key key;
	int r;

	memset(content, 0, eof);
	for (;;) {
		uint64_t at;

		r = ter_extents_next(trans, file->inum, file->snapshot, pos, &key);
		if (r == -ENOENT)
			break;
		if (r < 0)
			return r;
		if (key.type != TER_KEY_INLINE_DATA && key.type != TER_KEY_RESERVATION)
			return NOT_INLINE;
		pos = key.pos.offset;
		if (key.type == TER_KEY_RESERVATION)
			continue;
		at = ter_key_start(&key) << TER_SECTOR_SHIFT;
		if (at < eof)
			memcpy(content + at, key.val, ter_min((uint64_t)key.val_bytes, eof - at));
		end = pos;
	}
	*ret_end = end;
	return 0;
}

static void overlay(const struct ter_batch *batch, uint8_t *content)
{
	for (const struct ter_seg *seg = batch->segs; seg; seg = seg->next) {
		uint64_t end = ter_min(seg->end, batch->eof);

		if (seg->start < end)
			memcpy(content + seg->start, seg->mem + (seg->start - seg->base), end - seg->start);
	}
}

static int log_segs_done(struct ter_trans *trans, struct inline_arg *arg, const struct ter_batch *batch)
{
	for (const struct ter_seg *seg = batch->segs; seg; seg = seg->next) {
		int r;

		if (!seg->seq)
			continue;
		if (arg->done_nr == TER_BATCH_PIECES_MAX)
			return -E2BIG;
		r = log_done(trans, batch->file->inum, seg->start, seg->end, seg->seq, &arg->mem->done[arg->done_nr++]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int stage_inline(struct ter_trans *trans, struct inline_arg *arg, const struct ter_batch *batch, struct inline_result *ret)
{
	struct ter_data *data = arg->data;
	struct ter_file *file = batch->file;
	uint64_t end = ter_file_block_up(data, batch->eof) >> TER_SECTOR_SHIFT, old_end;
	struct ter_punch_result punched = { 0 };
	int64_t sectors = 0;
	int r;

	r = read_content(trans, file, batch->eof, arg->mem->content, &old_end);
	if (r < 0)
		return r;
	overlay(batch, arg->mem->content);
	r = ter_extents_stage_punch_(data->config.alloc, trans, data->sb, file->inum, file->snapshot, 0, ter_max(end, old_end), UINT32_MAX, &punched);
	if (r >= 0 && end) {
		const struct ter_key key = {
			.pos = TER_POS(file->inum, end, file->snapshot),
			.size = (uint32_t)end,
			.val_bytes = (uint32_t)batch->eof,
			.type = TER_KEY_INLINE_DATA,
			.val = arg->mem->content,
		};

		r = ter_extents_stage_insert(data->config.alloc, trans, data->sb, &key, &sectors);
	}
	if (r < 0)
		return r;
	*ret = (struct inline_result){ .sectors = sectors + punched.sectors, .promised_sectors = punched.promised_sectors };
	r = file->ops->stage(file, trans, batch->eof, ret->sectors);
	return r < 0 ? r : log_segs_done(trans, arg, batch);
}

static int inline_fn(struct ter_trans *trans, void *p)
{
	struct inline_arg *arg = p;

	arg->done_nr = 0;
	for (unsigned i = 0; i < arg->nr; i++) {
		int r;

		if (arg->skip[i])
			continue;
		r = stage_inline(trans, arg, &arg->batches[i], &arg->result[i]);
		if (r == NOT_INLINE) {
			/* Nothing of it was staged. */
			arg->skip[i] = true;
			atomic_store_explicit(&arg->batches[i].file->not_inline, true, memory_order_relaxed);
			continue;
		}
		if (r < 0)
			return ter_maybe_stale(r, &arg->stale_tries);
	}
	return 0;
}

int ter_batch_commit_inline(struct ter_data *data, struct ter_batch *batches, unsigned nr, bool *done, struct ter_commit_mem *mem)
{
	bool skip[TER_INLINE_FILES_MAX] = { 0 };
	struct inline_arg arg = { .data = data, .batches = batches, .nr = nr, .skip = skip, .mem = mem };
	uint64_t seq;
	int r;

	assert(nr <= TER_INLINE_FILES_MAX);
	r = ter_trans_run(data->config.btrees, TER_TRANS_RECLAIM, inline_fn, &arg, &seq);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < nr; i++) {
		if (skip[i])
			continue;
		note_commit(data, batches[i].file, batches[i].eof, arg.result[i].sectors, arg.result[i].promised_sectors, seq);
		atomic_fetch_add_explicit(&data->written_bytes, batches[i].eof, memory_order_relaxed);
		done[i] = true;
	}
	return 0;
}
