/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fallocate: RESERVATION keys for the holes of a range
 *
 * Nothing of the file is in flight meanwhile: an extent that is inserted into the same hole would have a key of its own, and no `old` would tell. The promise is counted
 * (ter_counter_reserved()) and its space held back from others until the key is punched: by data or by a hole. A write reserves space of its own besides, so that the promise is kept only if
 * a write that finds nothing left may draw on it (ter_file_draw_promise_()).
 */
#include "data/data_priv.h"

#define RESERVE_KEYS_MAX 64u              /* in one transaction */
#define RESERVE_SECTORS_MAX (1u << 30)    /* of one key */

struct reserve_op {
	struct ter_data *data;
	struct ter_file *file;
	uint64_t pos, end; /* sectors */
	uint64_t done_to, sectors;
	unsigned stale_tries;
};

static int add_key(struct ter_trans *trans, struct reserve_op *op, uint64_t start, uint64_t end)
{
	const struct ter_key key = {
		.pos = TER_POS(op->file->inum, end, op->file->snapshot),
		.size = (uint32_t)(end - start),
		.type = TER_KEY_RESERVATION,
	};
	int64_t sectors;
	int r;

	r = ter_extents_stage_insert(op->data->config.alloc, trans, op->data->sb, &key, &sectors);
	op->sectors += end - start;
	return r;
}

static int reserve_fn(struct ter_trans *trans, void *arg)
{
	struct reserve_op *op = arg;
	struct ter_file *file = op->file;
	uint64_t pos = op->pos;
	int r;

	op->sectors = 0;
	for (unsigned keys = 0; pos < op->end && keys < RESERVE_KEYS_MAX;) {
		uint64_t hole_end = op->end;
		struct ter_key key;

		r = ter_extents_next(trans, file->inum, file->snapshot, pos, &key);
		if (r < 0 && r != -ENOENT)
			return r;
		if (r >= 0 && ter_key_start(&key) <= pos) {
			pos = key.pos.offset;
			continue;
		}
		if (r >= 0)
			hole_end = ter_min(hole_end, ter_key_start(&key));
		hole_end = ter_min(hole_end, pos + RESERVE_SECTORS_MAX);
		r = add_key(trans, op, pos, hole_end);
		if (r < 0)
			return ter_maybe_stale(r, &op->stale_tries);
		pos = hole_end;
		keys++;
	}
	op->done_to = ter_min(pos, op->end);
	return op->sectors ? file->ops->stage(file, trans, 0, (int64_t)op->sectors) : 0;
}

/* Keep write-back away and wait for what is in flight. */
static void still(struct ter_data *data, struct ter_file *file, bool on)
{
	ter_lock_acquire(&file->lock);
	if (on) {
		file->no_take++;
		while (file->writeback_nr)
			ter_waitq_wait(&file->wq, &file->lock);
	} else {
		file->no_take--;
		(void)ter_file_account(data, file); /* back into its list; no segment went */
		ter_waitq_wake_all(&file->wq);
	}
	ter_lock_release(&file->lock);
}

/* A transaction got as far as done_to; @sectors came to the file, or went. */
static void committed(struct reserve_op *op, int64_t sectors, uint64_t seq)
{
	op->pos = op->done_to;
	if (!sectors)
		return;
	ter_lock_acquire(&op->file->lock);
	op->file->last_seq = ter_max(op->file->last_seq, seq);
	ter_lock_release(&op->file->lock);
	op->file->ops->committed(op->file, 0, sectors, seq);
}

static int reserve_some(struct reserve_op *op, uint64_t *budget)
{
	struct ter_data *data = op->data;
	uint64_t seq;
	int r;

	r = ter_trans_run(data->config.btrees, TER_TRANS_RECLAIM, reserve_fn, op, &seq);
	if (r < 0)
		return r;
	assert(op->sectors <= *budget);
	*budget -= op->sectors;
	atomic_fetch_add(&data->promised_sectors, op->sectors);
	committed(op, (int64_t)op->sectors, seq);
	return 0;
}

/* How much of the range is a hole. */
static int count_holes(struct reserve_op *op, uint64_t *ret_sectors)
{
	struct ter_trans trans;
	uint64_t pos = op->pos, holes = 0;
	int r = 0;

	ter_trans_init(&trans, op->data->config.btrees, 0);
	while (pos < op->end) {
		struct ter_key key;
		uint64_t start = op->end;

		r = ter_extents_next(&trans, op->file->inum, op->file->snapshot, pos, &key);
		if (r < 0 && r != -ENOENT)
			break;
		if (r >= 0)
			start = ter_min(op->end, ter_key_start(&key));
		holes += start > pos ? start - pos : 0;
		pos = r >= 0 ? key.pos.offset : op->end;
		r = 0;
		ter_trans_reset(&trans);
	}
	ter_trans_exit(&trans);
	*ret_sectors = holes;
	return r;
}

int ter_file_reserve_range(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to)
{
	struct reserve_op op = {
		.data = data,
		.file = file,
		.pos = ter_file_block_down(data, from) >> TER_SECTOR_SHIFT,
		.end = ter_file_block_up(data, to) >> TER_SECTOR_SHIFT,
	};
	uint64_t budget = 0;
	int r;

	ter_file_hold(file);
	ter_journal_pace(ter_data_journal(data));
	still(data, file, true);
	r = count_holes(&op, &budget);
	if (r >= 0 && budget)
		r = ter_alloc_reserve(data->config.alloc, budget, data->promise_replicas);
	if (r < 0)
		budget = 0;
	while (r >= 0 && op.pos < op.end)
		r = reserve_some(&op, &budget);
	if (budget)
		ter_alloc_unreserve(data->config.alloc, budget, data->promise_replicas);
	still(data, file, false);
	ter_file_release(file);
	return r;
}

/* --- a write draws on it --- */

/* From *pos on, the next stretch of the range that is promised; *pos goes behind it. -ENOENT. */
static int next_promise(struct ter_trans *trans, const struct reserve_op *op, uint64_t *pos, uint64_t *ret_start, uint64_t *ret_end)
{
	struct ter_key key;

	while (*pos < op->end) {
		int r = ter_extents_next(trans, op->file->inum, op->file->snapshot, *pos, &key);

		if (r < 0)
			return r;
		if (ter_key_start(&key) >= op->end)
			break;
		*ret_start = ter_max(*pos, ter_key_start(&key));
		*ret_end = *pos = ter_min(op->end, key.pos.offset);
		if (key.type == TER_KEY_RESERVATION)
			return 0;
	}
	return -ENOENT;
}

static int count_promised(const struct reserve_op *op, uint64_t *ret_sectors)
{
	uint64_t pos = op->pos, start, end, sectors = 0;
	struct ter_trans trans;
	int r;

	ter_trans_init(&trans, op->data->config.btrees, 0);
	while ((r = next_promise(&trans, op, &pos, &start, &end)) >= 0) {
		sectors += end - start;
		ter_trans_reset(&trans);
	}
	ter_trans_exit(&trans);
	*ret_sectors = sectors;
	return r == -ENOENT ? 0 : r;
}

static int draw_fn(struct ter_trans *trans, void *arg)
{
	struct reserve_op *op = arg;
	uint64_t pos = op->pos, start, end;
	struct ter_punch_result res;
	int r = 0;

	op->sectors = 0;
	for (unsigned keys = 0; keys < RESERVE_KEYS_MAX; keys++) {
		r = next_promise(trans, op, &pos, &start, &end);
		if (r < 0)
			break;
		r = ter_extents_stage_punch_(op->data->config.alloc, trans, op->data->sb, op->file->inum, op->file->snapshot, start, end, 1, &res);
		if (r < 0)
			break;
		op->sectors += res.promised_sectors;
	}
	if (r < 0 && r != -ENOENT)
		return ter_maybe_stale(r, &op->stale_tries);
	op->done_to = r == -ENOENT ? op->end : pos;
	return op->sectors ? op->file->ops->stage(op->file, trans, 0, -(int64_t)op->sectors) : 0;
}

/* What load_promise() could not hold back is not there to be handed on. */
static uint64_t take_promised(struct ter_data *data, uint64_t sectors)
{
	uint64_t have = atomic_load(&data->promised_sectors);

	while (!atomic_compare_exchange_weak(&data->promised_sectors, &have, have - ter_min(have, sectors)))
		;
	return ter_min(have, sectors);
}

static int draw_some(struct reserve_op *op)
{
	uint64_t seq;
	int r;

	op->stale_tries = 0;
	r = ter_trans_run(op->data->config.btrees, TER_TRANS_RECLAIM, draw_fn, op, &seq);
	if (r < 0)
		return r;
	committed(op, -(int64_t)op->sectors, seq);
	return 0;
}

/* The space is the caller's before a key goes: nobody can come between. */
static int draw(struct reserve_op *op, uint8_t replicas, uint64_t need, uint64_t *ret_sectors)
{
	struct ter_data *data = op->data;
	uint64_t promised, taken, more;
	int r;

	r = count_promised(op, &promised);
	if (r < 0)
		return r;
	taken = take_promised(data, promised);
	more = need > taken ? need - taken : 0;
	if (!taken || (more && ter_alloc_reserve(data->config.alloc, more, replicas) < 0)) {
		atomic_fetch_add(&data->promised_sectors, taken);
		return -ENOSPC;
	}
	while (r >= 0 && op->pos < op->end)
		r = draw_some(op);
	if (r >= 0)
		*ret_sectors = taken + more;
	else
		ter_alloc_unreserve(data->config.alloc, taken + more, replicas); /* the journal has stopped, or worse */
	return r;
}

int ter_file_draw_promise_(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, uint8_t replicas, uint64_t need, uint64_t *ret_sectors)
{
	struct reserve_op op = {
		.data = data,
		.file = file,
		.pos = ter_file_block_down(data, from) >> TER_SECTOR_SHIFT,
		.end = ter_file_block_up(data, to) >> TER_SECTOR_SHIFT,
	};
	int r;

	if (replicas != data->promise_replicas)
		return -ENOSPC;
	ter_journal_pace(ter_data_journal(data));
	still(data, file, true);
	r = draw(&op, replicas, need, ret_sectors);
	still(data, file, false);
	return r;
}
