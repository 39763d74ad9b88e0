/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Truncation and holes
 *
 * Dirty bytes of the range go, the parts of blocks at its edges become dirty zeros where something lies below, and whole blocks are deleted from the extents. The first transaction
 * carries the caller's change (the size), the zeros as DATA records, and the end of what was journaled in the range: so a crash shows the range as before or as after.
 * What is dropped, and its pins, is kept until then: if that transaction fails the zeros go and what was dropped is there again.
 */
#include "data/data_priv.h"

#define ZEROS_BYTES TER_KIB(64)    /* greatest block */
#define TER_PUNCH_END (1ull << 63) /* a multiple of every block, beyond every file */
#define EDGE_TRIES_MAX 16

struct punch_op {
	struct ter_data *data;
	struct ter_file *file;
	uint64_t from, to;       /* bytes */
	uint64_t start, end;     /* whole blocks, in sectors; start >= end: none */
	int (*first)(struct ter_trans *trans, void *arg);
	int (*last)(struct ter_trans *trans, void *arg);
	void *arg;
	uint64_t size_to;        /* dirty data was dropped whose write-back would have told the size, and the caller says nothing of it */
	uint64_t dropped_seq;    /* newest journal entry with bytes that were dropped */
	struct punch_zeros {
		uint64_t from, to;
		struct ter_jrec_data_disk head;
	} zeros[2];
	unsigned zeros_nr;
	struct ter_jrec_data_done_disk done;

	/* one transaction */
	bool is_first;
	uint64_t pos;            /* sectors: how far it is done */
	struct ter_punch_result result;
	uint64_t pinned_seq;
	unsigned stale_tries;
};

static const uint8_t *zero_bytes(void)
{
	static const uint8_t zeros[ZEROS_BYTES];

	return zeros;
}

/* Segments of write-back in flight that touch the range's blocks are waited for; with them gone, and the inode locked, none can come. */
static void wait_flying(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to)
{
	from = ter_file_block_down(data, from);
	to = ter_file_block_up(data, to);
	for (;;) {
		struct ter_seg *seg = ter_segtree_first(file->wb, from);

		while (seg && seg->start < to && !seg->in_flight)
			seg = ter_segtree_next(file->wb, seg);
		/* Inline data is of the whole file. */
		if (!file->journaling && (!seg || seg->start >= to) && !(file->no_take && file->writeback_nr))
			return;
		ter_waitq_wait(&file->wq, &file->lock);
	}
}

/* Dirty bytes of the range, which nobody can add to. *ret_dropped keeps pins until the first commit. */
static int drop_dirty(struct punch_op *op, struct ter_seg **ret_dropped)
{
	struct ter_data *data = op->data;
	struct ter_file *file = op->file;
	bool gone;
	int r;

	ter_lock_acquire(&file->lock);
	for (;;) {
		wait_flying(data, file, op->from, op->to);
		r = ter_segs_cut(data, file, &file->segs, op->from, op->to, UINT64_MAX, ret_dropped);
		if (r >= 0)
			r = ter_segs_cut(data, file, &file->wb, op->from, op->to, UINT64_MAX, ret_dropped);
		if (r != -EAGAIN)
			break;
		/* No segment is free to cut one in two: once all is written back, none needs to be cut. */
		ter_lock_release(&file->lock);
		r = ter_file_writeback_gen(data, file, ter_data_next_gen(data));
		ter_lock_acquire(&file->lock);
		if (r < 0)
			break;
	}
	for (struct ter_seg *seg = *ret_dropped; seg; seg = seg->next)
		op->dropped_seq = ter_max(op->dropped_seq, seg->seq);
	if (*ret_dropped && !op->first)
		op->size_to = file->size;
	if (op->from == 0 && op->to >= file->size)
		atomic_store_explicit(&file->not_inline, false, memory_order_relaxed);
	gone = ter_file_account(data, file);
	ter_lock_release(&file->lock);
	if (gone)
		ter_file_release(file); /* the caller of this room holds it besides */
	return r;
}

static int something_cb(void *arg, const struct ter_key *key)
{
	uint64_t *from_to = arg;
	uint64_t start = ter_key_start(key) << TER_SECTOR_SHIFT;

	if (start >= from_to[1])
		return 0;
	if (key->type == TER_KEY_INLINE_DATA)
		return start + key->val_bytes > from_to[0] ? 1 : 0;
	return key->type == TER_KEY_RESERVATION ? 0 : 1;
}

/* Does anything but zeros lie in [from, to), which is within one block? */
static int something_below(struct punch_op *op, uint64_t from, uint64_t to)
{
	struct ter_file *file = op->file;
	uint64_t from_to[2] = { from, to };
	uint64_t block_end = ter_file_block_up(op->data, to) >> TER_SECTOR_SHIFT;

	/* Extents begin and end at blocks, inline data may be longer: up to the greatest. */
	return ter_btree_scan(op->data->config.btrees, TER_BTREE_EXTENTS, TER_POS(file->inum, (from >> TER_SECTOR_SHIFT) + 1, 0),
			      TER_POS(file->inum, block_end + TER_EXTENT_SECTORS_MAX, UINT32_MAX), 0, something_cb, from_to, NULL);
}

/* An edge: dirty zeros that do not move the end of the file. */
static int zero_edge(struct punch_op *op, uint64_t from, uint64_t to)
{
	int r;

	if (from >= to)
		return 0;
	r = something_below(op, from, to);
	if (r <= 0)
		return r;
	r = ter_file_write_(op->data, op->file, from, NULL, 0, to - from, TER_WRITE_NOWAIT | TER_WRITE_FORCE | TER_WRITE_NO_SIZE);
	if (r < 0)
		return r;
	op->zeros[op->zeros_nr++] = (struct punch_zeros){ .from = from, .to = to };
	return 0;
}

static int zero_edges(struct punch_op *op)
{
	uint64_t head_end = ter_min(ter_file_block_up(op->data, op->from), op->to);
	uint64_t tail_start = ter_file_block_down(op->data, op->to);
	uint64_t size;
	int r;

	ter_lock_acquire(&op->file->lock);
	size = op->file->size;
	ter_lock_release(&op->file->lock);
	op->start = ter_file_block_up(op->data, op->from) >> TER_SECTOR_SHIFT;
	op->end = tail_start >> TER_SECTOR_SHIFT;
	if (op->to >= size && op->to < TER_PUNCH_END && op->from < op->to)
		op->end = ter_max(op->end, ter_file_block_up(op->data, op->to) >> TER_SECTOR_SHIFT); /* nothing is beyond: the last block is whole */
	r = zero_edge(op, op->from, head_end);
	if (r < 0 || tail_start < head_end || (op->end << TER_SECTOR_SHIFT) > tail_start)
		return r;
	return zero_edge(op, ter_max(tail_start, head_end), op->to);
}

static void pin_commit(void *arg, struct ter_journal *journal, uint64_t seq)
{
	struct punch_op *op = arg;

	ter_journal_pin(journal, seq);
	op->pinned_seq = seq;
}

static int stage_first(struct ter_trans *trans, struct punch_op *op)
{
	int r = 0;

	if (op->dropped_seq) {
		const struct ter_jrec_data_done done = { op->file->inum, op->from, op->to, op->dropped_seq };
		const struct iovec iov = { &op->done, sizeof(op->done) };

		ter_jrec_data_done_encode(&done, &op->done);
		r = ter_trans_log(trans, TER_JREC_DATA_DONE, &iov, 1);
	}
	for (unsigned i = 0; i < op->zeros_nr && r >= 0; i++) {
		struct punch_zeros *z = &op->zeros[i];
		uint32_t bytes = (uint32_t)(z->to - z->from);
		const struct iovec iov[2] = { { &z->head, sizeof(z->head) }, { (void *)zero_bytes(), bytes } };

		z->head = (struct ter_jrec_data_disk){
			.inum = ter_le64_make(op->file->inum), .offset_bytes = ter_le64_make(z->from), .bytes = ter_le32_make(bytes),
		};
		r = ter_trans_log(trans, TER_JREC_DATA, iov, 2);
	}
	if (op->zeros_nr) {
		trans->on_commit = pin_commit;
		trans->on_commit_arg = op;
	}
	return r;
}

static int punch_fn(struct ter_trans *trans, void *arg)
{
	struct punch_op *op = arg;
	struct ter_data *data = op->data;
	struct ter_file *file = op->file;
	int r = 0;

	op->result = (struct ter_punch_result){ .done_to = op->end };
	if (op->pos < op->end)
		r = ter_extents_stage_punch_(data->config.alloc, trans, data->sb, file->inum, file->snapshot, op->pos, op->end, TER_PUNCH_KEYS, &op->result);
	r = ter_maybe_stale(r, &op->stale_tries);
	if (r >= 0 && op->is_first)
		r = stage_first(trans, op);
	if (r >= 0 && op->is_first && op->first)
		r = op->first(trans, op->arg);
	if (r >= 0 && (op->result.sectors || (op->is_first && op->size_to)))
		r = file->ops->stage(file, trans, op->is_first ? op->size_to : 0, op->result.sectors);
	if (r >= 0 && op->result.done_to >= op->end && op->last)
		r = op->last(trans, op->arg);
	return r;
}

/* The zeros at the edges stand in the journal now: with what was dirty of their segments before they need not be journaled again. */
static void pin_zeros(struct punch_op *op)
{
	struct ter_file *file = op->file;

	ter_lock_acquire(&file->lock);
	while (file->journaling)
		ter_waitq_wait(&file->wq, &file->lock);
	for (unsigned i = 0; i < op->zeros_nr; i++) {
		uint64_t pos = op->zeros[i].from;
		struct ter_seg *seg;

		for (seg = ter_segtree_first(file->segs, pos); seg && seg->start < op->zeros[i].to; seg = ter_segtree_next(file->segs, seg)) {
			bool only = seg->new_from >= op->zeros[i].from && seg->new_to <= op->zeros[i].to && seg->new_from < seg->new_to;

			ter_seg_set_pin(op->data, seg, op->pinned_seq, seg->start >= op->zeros[i].from && seg->end <= op->zeros[i].to);
			if (only)
				ter_seg_clear_new(seg);
		}
	}
	(void)ter_file_account(op->data, file); /* no segment went */
	ter_lock_release(&file->lock);
	ter_journal_unpin(ter_data_journal(op->data), op->pinned_seq);
}

/* Neither write-back nor sync take what is not true before the first transaction: zeroed edges. */
static void hold_back(struct punch_op *op, bool on)
{
	struct ter_file *file = op->file;
	bool gone = false;

	ter_lock_acquire(&file->lock);
	assert(file->punching != on);
	file->punching = on;
	if (on) {
		file->no_take++;
	} else {
		file->no_take--;
		gone = ter_file_account(op->data, file); /* back into its list; only zeros that came to nothing may have gone */
		ter_waitq_wake_all(&file->wq);
	}
	ter_lock_release(&file->lock);
	if (gone)
		ter_file_release(file); /* the caller of this room holds it besides */
}

/* The zeros of the edges are not true. With the file held back, so nobody has taken them. */
static void undo_zeros(struct punch_op *op)
{
	struct ter_seg *zeros = NULL;

	ter_lock_acquire(&op->file->lock);
	while (op->zeros_nr) {
		const struct punch_zeros *z = &op->zeros[--op->zeros_nr];

		ter_segs_trim(op->data, op->file, z->from, z->to, &zeros);
	}
	ter_lock_release(&op->file->lock);
	ter_segs_free(op->data, zeros);
}

/* Nothing was committed: the range is as it was. */
static void undo_drop(struct punch_op *op, struct ter_seg *dropped)
{
	bool gone;

	ter_lock_acquire(&op->file->lock);
	ter_segs_put_back(op->data, op->file, dropped);
	gone = ter_file_account(op->data, op->file);
	ter_lock_release(&op->file->lock);
	if (gone)
		ter_file_release(op->file); /* the zeros were all there was */
}

/* Held back from here on, until the first commit; not with memory to be waited for, which may be this file's. */
static int zero_edges_held(struct punch_op *op)
{
	int r = -EAGAIN;

	for (unsigned i = 0; i < EDGE_TRIES_MAX; i++) {
		op->zeros_nr = 0;
		hold_back(op, true);
		r = zero_edges(op);
		if (r >= 0)
			return 0;
		undo_zeros(op);
		hold_back(op, false);
		if (r != -EAGAIN)
			return r;
		r = ter_data_flush_all(op->data);
		if (r < 0)
			return r;
	}
	return -EBUSY;
}

/* A truncation: before a sync or write-back may stage the old size again. */
static void end_file(struct punch_op *op)
{
	struct ter_file *file = op->file;

	if (op->to < TER_PUNCH_END)
		return;
	ter_lock_acquire(&file->lock);
	file->size = ter_min(file->size, op->from);
	ter_lock_release(&file->lock);
}

static int punch_extents(struct punch_op *op)
{
	struct ter_data *data = op->data;
	uint64_t seq;
	int r;

	op->pos = op->start;
	do {
		op->stale_tries = 0;
		if (!op->is_first)
			ter_journal_pace(ter_data_journal(data)); /* nothing is held back any more */
		r = ter_trans_run(data->config.btrees, TER_TRANS_RECLAIM, punch_fn, op, &seq);
		if (r < 0)
			return r;
		ter_lock_acquire(&op->file->lock);
		op->file->last_seq = ter_max(op->file->last_seq, seq);
		ter_lock_release(&op->file->lock);
		if (op->result.sectors || (op->is_first && op->size_to))
			op->file->ops->committed(op->file, op->is_first ? op->size_to : 0, op->result.sectors, seq);
		if (op->result.promised_sectors)
			ter_data_unpromise(data, op->result.promised_sectors);
		if (op->is_first) {
			if (op->zeros_nr)
				pin_zeros(op);
			end_file(op);
			hold_back(op, false);
		}
		op->is_first = false;
		op->pos = op->result.done_to;
	} while (op->pos < op->end);
	return 0;
}

int ter_file_punch(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, int (*first)(struct ter_trans *trans, void *arg),
		   int (*last)(struct ter_trans *trans, void *arg), void *arg)
{
	struct punch_op op = { .data = data, .file = file, .from = from, .to = ter_min(to, TER_PUNCH_END), .first = first, .last = last, .arg = arg, .is_first = true };
	struct ter_seg *dropped = NULL;
	int r;

	ter_journal_pace(ter_data_journal(data));
	ter_file_hold(file);
	r = drop_dirty(&op, &dropped);
	if (r >= 0)
		r = zero_edges_held(&op);
	if (r >= 0) {
		r = punch_extents(&op);
		if (op.is_first) {
			undo_zeros(&op);
			hold_back(&op, false);
		}
	}
	if (r < 0 && op.is_first && dropped)
		undo_drop(&op, TAKE_PTR(dropped));
	ter_segs_free(data, dropped);
	ter_file_release(file);
	return r;
}
