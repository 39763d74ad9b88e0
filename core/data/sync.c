/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Syncing a file: little data into the journal, much into extents, then a flush
 *
 * The journal way: under file->lock the bytes that stand in no entry are copied, and `journaling` keeps their segments where they are (no write-back, no cutting) while a transaction that
 * does not wait puts them into an entry with the inode. It never waits while `journaling` is set: reclaim may need to write back this very file. Writers may go on; what they
 * change is new again.
 */
#include "data/data_priv.h"

struct sync_part {
	struct ter_seg *seg;
	uint64_t from, to;
	uint8_t *bytes;
	struct ter_jrec_data_disk head;
};

struct sync_op {
	struct ter_data *data;
	struct ter_file *file;
	struct sync_part *parts;
	unsigned nr;
	uint64_t bytes, size;
	uint64_t pinned_seq;
};

/* The copies lie behind the parts in one allocation. */
static int snapshot_new(struct sync_op *op)
{
	struct ter_file *file = op->file;
	struct ter_seg *seg;
	unsigned nr = 0;
	uint8_t *mem;

	ter_list_for_each(seg, &file->unsynced, new_link)
		nr++;
	op->parts = ter_malloc(nr * sizeof(*op->parts) + file->unsynced_bytes);
	if (!op->parts)
		return -ENOMEM;
	mem = (uint8_t *)(op->parts + nr);
	op->nr = nr;
	op->bytes = file->unsynced_bytes;
	op->size = file->size;
	nr = 0;
	while (!ter_list_empty(&file->unsynced)) {
		struct sync_part *part = &op->parts[nr++];

		seg = ter_list_first(&file->unsynced, struct ter_seg, new_link);
		*part = (struct sync_part){ .seg = seg, .from = seg->new_from, .to = seg->new_to, .bytes = mem };
		mem += part->to - part->from;
		memcpy(part->bytes, seg->mem + (part->from - seg->base), part->to - part->from);
		ter_seg_clear_new(seg);
	}
	return 0;
}

static int stage_part(struct ter_trans *trans, struct sync_op *op, struct sync_part *part)
{
	uint32_t bytes = (uint32_t)(part->to - part->from);
	const struct iovec iov[2] = { { &part->head, sizeof(part->head) }, { part->bytes, bytes } };

	part->head = (struct ter_jrec_data_disk){
		.inum = ter_le64_make(op->file->inum), .offset_bytes = ter_le64_make(part->from), .bytes = ter_le32_make(bytes),
	};
	return ter_trans_log(trans, TER_JREC_DATA, iov, 2);
}

static void pin_commit(void *arg, struct ter_journal *journal, uint64_t seq)
{
	struct sync_op *op = arg;

	ter_journal_pin(journal, seq);
	op->pinned_seq = seq;
}

static int sync_fn(struct ter_trans *trans, void *arg)
{
	struct sync_op *op = arg;
	int r;

	r = op->file->ops->stage(op->file, trans, op->size, 0);
	for (unsigned i = 0; i < op->nr && r >= 0; i++)
		r = stage_part(trans, op, &op->parts[i]);
	trans->on_commit = pin_commit;
	trans->on_commit_arg = op;
	return r;
}

static void journaled(struct sync_op *op)
{
	for (unsigned i = 0; i < op->nr; i++) {
		struct sync_part *part = &op->parts[i];
		struct ter_seg *seg = part->seg;
		/* All of the segment stands in this entry: older ones are not needed for it. */
		bool whole = part->from == seg->start && part->to == seg->end;

		ter_seg_set_pin(op->data, seg, op->pinned_seq, whole);
	}
}

static void not_journaled(struct sync_op *op)
{
	for (unsigned i = 0; i < op->nr; i++)
		ter_seg_mark_new(op->parts[i].seg, op->parts[i].from, op->parts[i].to);
}

/* file->lock is held, and again at return. */
static int journal_new(struct ter_data *data, struct ter_file *file)
{
	struct sync_op op = { .data = data, .file = file };
	uint64_t seq = 0;
	int r;

	r = snapshot_new(&op);
	if (r < 0)
		return r;
	file->journaling = true;
	ter_lock_release(&file->lock);
	r = ter_trans_run(data->config.btrees, TER_TRANS_NOWAIT, sync_fn, &op, &seq);
	ter_lock_acquire(&file->lock);
	file->journaling = false;
	if (r >= 0) {
		journaled(&op);
		ter_journal_unpin(ter_data_journal(data), op.pinned_seq);
		file->last_seq = ter_max(file->last_seq, seq);
	} else {
		not_journaled(&op);
	}
	(void)ter_file_account(data, file); /* it has segments as before; maybe another list */
	ter_waitq_wake_all(&file->wq);
	if (r >= 0) {
		ter_lock_release(&file->lock);
		file->ops->committed(file, op.size, 0, seq);
		ter_lock_acquire(&file->lock);
	}
	free(op.parts);
	return r;
}

/* What a transaction that does not wait found missing: the inode's leaf in memory, room in the journal. */
static int make_ready(struct ter_data *data, struct ter_file *file, uint64_t bytes)
{
	struct ter_trans trans;
	struct ter_key key;
	int r;

	ter_trans_init(&trans, data->config.btrees, 0);
	r = ter_trans_get(&trans, TER_BTREE_INODES, TER_POS(file->inum, 0, file->snapshot), &key);
	ter_trans_exit(&trans);
	if (r < 0 && r != -ENOENT)
		return r;
	return ter_journal_wait_space(ter_data_journal(data), (uint32_t)ter_min(bytes + TER_KIB(4), TER_KIB(256)), 0);
}

/* Until nothing of the file is only in memory. *ret_seq: what must be durable then. file->lock is held. */
static int settle(struct ter_data *data, struct ter_file *file, bool nowait, uint64_t *ret_seq)
{
	bool into_extents = false;

	for (unsigned try = 0;; try++) {
		uint64_t bytes;
		int r;

		if (file->punching && nowait)
			return -EAGAIN;
		while (file->journaling || file->punching)
			ter_waitq_wait(&file->wq, &file->lock);
		if (file->error && !file->wb_failed_nr) {
			r = file->error;
			file->error = 0;
			return r;
		}
		bytes = file->unsynced_bytes;
		if (!bytes && !file->wb_unsynced_nr) {
			*ret_seq = file->last_seq;
			return 0;
		}
		if (file->wb_unsynced_nr || bytes > ter_data_opt(data, journal_data_max) || try >= TER_SYNC_TRIES)
			into_extents = true;
		if (into_extents) {
			if (nowait)
				return -EAGAIN;
			ter_lock_release(&file->lock);
			r = ter_file_writeback_gen(data, file, ter_data_next_gen(data));
			ter_lock_acquire(&file->lock);
			if (r >= 0)
				r = file->error; /* D8: of an earlier time, and nobody was told; what failed then is written now */
			if (r < 0) {
				file->error = 0; /* told now */
				return r;
			}
			*ret_seq = file->last_seq;
			return 0;
		}
		r = journal_new(data, file);
		if (r == -EAGAIN && !nowait) {
			ter_lock_release(&file->lock);
			r = make_ready(data, file, bytes);
			ter_lock_acquire(&file->lock);
		}
		/* More than a small journal's entry holds, in whichever of the two it shows. */
		if (r == -E2BIG || r == -EBUSY) {
			into_extents = true;
			continue;
		}
		if (r < 0)
			return r;
	}
}

int ter_file_sync_async(struct ter_data *data, struct ter_file *file, bool nowait, struct ter_journal_waiter *waiter)
{
	uint64_t seq = 0;
	int r;

	ter_file_hold(file);
	ter_lock_acquire(&file->lock);
	r = settle(data, file, nowait, &seq);
	ter_lock_release(&file->lock);
	ter_file_release(file);
	if (r < 0)
		return r;
	ter_journal_flush_async(ter_data_journal(data), seq, waiter);
	return 0;
}

struct sync_wait {
	struct ter_journal_waiter waiter;
	struct ter_event event;
};

static void sync_done(struct ter_journal_waiter *waiter, int r)
{
	ter_event_set(&ter_container_of(waiter, struct sync_wait, waiter)->event, r);
}

int ter_file_sync(struct ter_data *data, struct ter_file *file)
{
	struct sync_wait wait = { .waiter = { .fn = sync_done } };
	int r;

	ter_event_init(&wait.event);
	r = ter_file_sync_async(data, file, false, &wait.waiter);
	if (r >= 0)
		r = ter_event_wait(&wait.event);
	ter_event_destroy(&wait.event);
	return r;
}
