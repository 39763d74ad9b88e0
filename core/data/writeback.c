/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When to write back what: tasks that take batches, who waits for them, and journal reclaim
 *
 * A task takes a batch when somebody asked for the file (sync, flush), when half of the buffers are in use, when a stream has much to write, or when a file's oldest
 * byte is due. Files stand in one of three lists, oldest first; a file whose segments all are in flight stands in none and returns when a batch of it ends.
 *
 * Journal space: what commits here was admitted before anything was taken (ter_journal_wait_space() and ter_journal_begin_work(), with nothing in flight), and then commits with
 * TER_TRANS_RECLAIM, so that a batch in flight never waits for reclaim, which may be waiting for it. Reclaim runs batches itself and waits only for such in flight.
 */
#include "data/data_priv.h"

#define ADMISSION_BYTES TER_KIB(32)

struct pick {
	struct ter_file *file;
	uint64_t gen_max;
	bool retry;
};

uint64_t ter_data_next_gen(struct ter_data *data)
{
	uint64_t gen;

	ter_lock_acquire(&data->lock);
	gen = ++data->gen;
	ter_lock_release(&data->lock);
	return gen;
}

void ter_writeback_stream(struct ter_data *data, struct ter_file *file)
{
	ter_lock_acquire(&data->lock);
	if (atomic_load_explicit(&file->dirty_list, memory_order_relaxed) == TER_LIST_UNSYNCED && file->first_dirty_ns > 1) {
		file->first_dirty_ns = 1;
		ter_list_del(&file->dirty_link);
		ter_list_add(&data->lists[TER_LIST_UNSYNCED], &file->dirty_link);
		ter_waitq_wake_one(&data->wb_wq);
	}
	ter_lock_release(&data->lock);
}

static bool under_pressure(const struct ter_data *data)
{
	return data->space_waiters || data->flushers || data->pool.free_pages < data->pool.pages_nr / 2;
}

static struct ter_file *first_of(struct ter_data *data, unsigned list)
{
	return ter_list_empty(&data->lists[list]) ? NULL : ter_list_first(&data->lists[list], struct ter_file, dirty_link);
}

/* The pool lock is held. The next file to take from, held; or none, and until when to wait. */
static bool pick_file(struct ter_data *data, struct pick *ret, uint64_t *ret_deadline_ns)
{
	static const unsigned order[] = { TER_LIST_WANTED, TER_LIST_UNSYNCED, TER_LIST_JOURNALED };
	uint64_t now = ter_mono_ns(data->exec), deadline = UINT64_MAX;

	for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
		struct ter_file *file = first_of(data, order[i]);
		uint64_t due;

		if (!file)
			continue;
		due = ter_file_due_ns_(data, file);
		if (order[i] == TER_LIST_WANTED || due <= now || under_pressure(data)) {
			*ret = (struct pick){ .file = file, .gen_max = UINT64_MAX, .retry = order[i] == TER_LIST_WANTED };
			if (order[i] == TER_LIST_WANTED)
				ret->gen_max = file->wanted_gen;
			ter_file_hold(file); /* it has one already: calls nobody */
			return true;
		}
		deadline = ter_min(deadline, due);
	}
	*ret_deadline_ns = deadline;
	return false;
}

/* Is there more, and somebody idle for it? Each task that takes wakes the next. */
static bool work_waits(struct ter_data *data)
{
	struct ter_file *file = first_of(data, TER_LIST_UNSYNCED);

	if (!atomic_load_explicit(&data->idle_tasks, memory_order_relaxed))
		return false;
	if (first_of(data, TER_LIST_WANTED))
		return true;
	if (under_pressure(data))
		return file || first_of(data, TER_LIST_JOURNALED);
	return file && ter_file_due_ns_(data, file) <= ter_mono_ns(data->exec);
}

/* Take from a picked file. Either way the lists are put right. */
static bool take_picked(struct ter_data *data, const struct pick *pick, struct ter_batch *batch)
{
	struct ter_file *file = pick->file;
	bool taken;

	ter_lock_acquire(&file->lock);
	while (file->journaling)
		ter_waitq_wait(&file->wq, &file->lock);
	taken = ter_batch_take(data, file, pick->gen_max, pick->retry, batch);
	ter_lock_acquire(&data->lock);
	if (!taken && pick->retry) {
		file->wanted_gen = 0; /* all of it is in flight: waiters ask again when that ends */
		ter_file_relist_(data, file);
	} else if (!taken && !file->wanted_gen) {
		ter_file_list_(data, file, TER_LIST_NONE); /* what is in flight, or failed, puts it back */
	} else { /* also one that somebody asked for since it was picked: what failed is tried for them */
		ter_file_relist_(data, file);
	}
	if (work_waits(data))
		ter_waitq_wake_one(&data->wb_wq);
	ter_lock_release(&data->lock);
	ter_lock_release(&file->lock);
	if (!taken)
		ter_file_release(file);
	return taken;
}

/* Small whole files: as many as fit are committed in one transaction. @batches[0] is taken already. */
static unsigned gather_inline(struct ter_data *data, struct ter_batch *batches, unsigned nr)
{
	const uint64_t bytes_max = ter_journal_is_small(ter_data_journal(data)) ? TER_INLINE_BYTES_SMALL : TER_INLINE_BYTES_MAX;
	uint64_t bytes = batches[0].eof;

	while (nr < TER_INLINE_FILES_MAX && bytes < bytes_max) {
		struct pick pick;
		uint64_t unused;
		bool found;

		ter_lock_acquire(&data->lock);
		found = pick_file(data, &pick, &unused);
		ter_lock_release(&data->lock);
		if (!found)
			return nr;
		if (!take_picked(data, &pick, &batches[nr]))
			return nr;
		nr++;
		if (!ter_batch_may_inline(data, &batches[nr - 1]))
			return nr; /* the last one is done by itself */
		bytes += batches[nr - 1].eof;
	}
	return nr;
}

static void run_batches(struct ter_data *data, struct ter_batch_ctx *ctx, struct ter_batch *batches, unsigned nr)
{
	bool done[TER_INLINE_FILES_MAX] = { 0 };
	unsigned small = nr;

	while (small > 0 && !ter_batch_may_inline(data, &batches[small - 1]))
		small--;
	if (small)
		(void)ter_batch_run_inline(data, ctx, batches, small, done); /* what could not be done so is done singly, and says why it fails */
	for (unsigned i = 0; i < nr; i++)
		ter_batch_end(data, &batches[i], done[i] ? 0 : ter_batch_run(data, ctx, &batches[i]));
}

static void run_picked(struct ter_data *data, struct ter_batch_ctx *ctx, const struct pick *pick)
{
	struct ter_batch batches[TER_INLINE_FILES_MAX];
	unsigned nr = 1;

	if (!take_picked(data, pick, &batches[0]))
		return;
	if (ter_batch_may_inline(data, &batches[0]))
		nr = gather_inline(data, batches, nr);
	run_batches(data, ctx, batches, nr);
}

struct task_arg {
	struct ter_data *data;
	unsigned idx;
};

static void sleep_until_due(struct ter_data *data, uint64_t deadline_ns)
{
	atomic_fetch_add_explicit(&data->idle_tasks, 1, memory_order_relaxed);
	data->deadline_ns = deadline_ns;
	if (deadline_ns == UINT64_MAX)
		ter_waitq_wait(&data->wb_wq, &data->lock);
	else
		(void)ter_waitq_wait_until(&data->wb_wq, &data->lock, deadline_ns); /* looked at again either way */
	atomic_fetch_sub_explicit(&data->idle_tasks, 1, memory_order_relaxed);
}

static void writeback_task(void *arg)
{
	struct task_arg *task = arg;
	struct ter_data *data = task->data;
	struct ter_batch_ctx *ctx = data->ctx[task->idx];
	struct pick pick;
	uint64_t deadline_ns;

	free(task);
	ter_lock_acquire(&data->lock);
	while (!data->stopping) {
		if (!pick_file(data, &pick, &deadline_ns)) {
			sleep_until_due(data, deadline_ns);
			continue;
		}
		ter_lock_release(&data->lock);
		(void)ter_journal_wait_space(ter_data_journal(data), ADMISSION_BYTES, 0); /* an error stops the commit, too */
		ter_journal_begin_work(ter_data_journal(data));
		run_picked(data, ctx, &pick);
		ter_journal_end_work(ter_data_journal(data));
		ter_lock_acquire(&data->lock);
	}
	ter_lock_release(&data->lock);
}

/* --- waiting --- */

/* The oldest segment of @root no younger than @gen; whether there is one. */
static bool has_older(struct ter_seg *root, uint64_t gen)
{
	return root && (root->gen <= gen || has_older(root->left, gen) || has_older(root->right, gen));
}

static void want(struct ter_data *data, struct ter_file *file, uint64_t gen)
{
	ter_lock_acquire(&data->lock);
	file->wanted_gen = ter_max(file->wanted_gen, gen);
	ter_file_relist_(data, file);
	ter_lock_release(&data->lock);
}

/* Wait until nothing of the file is as old as @gen; file->lock is held. @run: take and run batches here. */
static int drain(struct ter_data *data, struct ter_file *file, uint64_t gen, struct ter_batch_ctx *ctx)
{
	uint64_t failures = file->failures;

	while (has_older(file->segs, gen) || has_older(file->wb, gen)) {
		struct ter_batch batch;

		if (file->failures != failures)
			return file->failure;
		if (!data->started || data->stopping)
			return -ESHUTDOWN;
		if (ctx && !file->journaling && ter_batch_take(data, file, gen, true, &batch)) {
			ter_lock_acquire(&data->lock);
			ter_file_relist_(data, file);
			ter_lock_release(&data->lock);
			ter_lock_release(&file->lock);
			ter_file_hold(file);
			ter_batch_end(data, &batch, ter_batch_run(data, ctx, &batch));
			ter_lock_acquire(&file->lock);
			continue;
		}
		if (!ctx)
			want(data, file, gen);
		ter_waitq_wait(&file->wq, &file->lock);
	}
	return 0;
}

int ter_file_writeback_gen(struct ter_data *data, struct ter_file *file, uint64_t gen)
{
	int r;

	ter_lock_acquire(&file->lock);
	r = drain(data, file, gen, NULL);
	ter_lock_release(&file->lock);
	return r;
}

int ter_file_writeback(struct ter_data *data, struct ter_file *file)
{
	int r;

	ter_file_hold(file);
	r = ter_file_writeback_gen(data, file, ter_data_next_gen(data));
	ter_file_release(file);
	return r;
}

int ter_data_flush_all(struct ter_data *data)
{
	int r, failed = 0;
	uint64_t gen;

	/* A file that another one has moved to the end is not written yet: who passes it by would be done too early. */
	ter_lock_acquire(&data->flush_lock);
	ter_lock_acquire(&data->lock);
	gen = ++data->gen;
	data->flushers++;
	ter_waitq_wake_all(&data->wb_wq);
	for (;;) {
		struct ter_file *file, *found = NULL;

		ter_list_for_each(file, &data->all, all_link)
			if (file->all_gen <= gen) {
				found = file;
				break;
			}
		if (!found)
			break;
		ter_file_hold(found); /* has one already */
		found->all_gen = gen + 1; /* what it gets from now on is younger */
		ter_list_del(&found->all_link);
		ter_list_add_tail(&data->all, &found->all_link);
		ter_lock_release(&data->lock);
		r = ter_file_writeback_gen(data, found, gen);
		if (r < 0 && !failed)
			failed = r;
		ter_file_release(found);
		ter_lock_acquire(&data->lock);
	}
	data->flushers--;
	ter_lock_release(&data->lock);
	ter_lock_release(&data->flush_lock);
	return failed;
}

/* --- journal reclaim --- */

/* The file of the oldest pin up to @seq, held. NULL: none. */
static struct ter_file *oldest_pinned(struct ter_data *data, uint64_t seq)
{
	struct ter_file *file = NULL;

	ter_lock_acquire(&data->lock);
	if (!ter_list_empty(&data->pinned)) {
		struct ter_seg *seg = ter_list_first(&data->pinned, struct ter_seg, pin_link);

		if (seg->pin_seq <= seq) {
			file = seg->file;
			ter_file_hold(file); /* has one already */
		}
	}
	ter_lock_release(&data->lock);
	return file;
}

/* Mark the files with pins up to @seq for the tasks, so that they work at it beside us. */
static void want_pinned(struct ter_data *data, uint64_t seq, uint64_t gen)
{
	struct ter_seg *seg;

	ter_lock_acquire(&data->lock);
	ter_list_for_each(seg, &data->pinned, pin_link) {
		if (seg->pin_seq > seq)
			break;
		seg->file->wanted_gen = ter_max(seg->file->wanted_gen, gen);
		if (atomic_load_explicit(&seg->file->dirty_list, memory_order_relaxed) != TER_LIST_NONE)
			ter_file_list_(data, seg->file, TER_LIST_WANTED);
	}
	ter_lock_release(&data->lock);
}

static bool reclaim_enter(struct ter_data *data)
{
	bool entered;

	ter_lock_acquire(&data->lock);
	entered = data->started && !data->stopping;
	data->reclaiming = entered;
	ter_lock_release(&data->lock);
	return entered;
}

static void reclaim_leave(struct ter_data *data)
{
	ter_lock_acquire(&data->lock);
	data->reclaiming = false;
	ter_waitq_wake_all(&data->space_wq);
	ter_lock_release(&data->lock);
}

static int reclaim(void *arg, uint64_t seq)
{
	struct ter_data *data = arg;
	uint64_t gen = ter_data_next_gen(data);
	struct ter_file *file;
	int r = 0;

	if (!reclaim_enter(data))
		return 0; /* stopped: then there is no pin */
	want_pinned(data, seq, gen);
	while (r >= 0 && (file = oldest_pinned(data, seq))) {
		ter_lock_acquire(&file->lock);
		r = drain(data, file, gen, data->ctx[TER_WB_TASKS]);
		ter_lock_release(&file->lock);
		ter_file_release(file);
	}
	reclaim_leave(data);
	return r;
}

/* --- life --- */

static int spawn_tasks(struct ter_data *data)
{
	for (unsigned i = 0; i < TER_WB_TASKS; i++) {
		struct task_arg *arg = ter_new(struct task_arg);
		int r;

		if (!arg)
			return -ENOMEM;
		*arg = (struct task_arg){ .data = data, .idx = i };
		r = data->exec->ops->spawn(data->exec, "ter-writeback", writeback_task, arg, &data->tasks[i]);
		if (r < 0) {
			free(arg);
			return r;
		}
		data->tasks_nr++;
	}
	return 0;
}

int ter_writeback_start(struct ter_data *data)
{
	struct ter_journal *journal = ter_data_journal(data);
	int r;

	for (unsigned i = 0; i <= TER_WB_TASKS; i++) {
		r = ter_batch_ctx_new(data, &data->ctx[i]);
		if (r < 0)
			return r;
	}
	data->stopping = false;
	data->started = true;
	r = spawn_tasks(data);
	if (r < 0 || data->registered == journal)
		return r;
	r = ter_journal_register_reclaimer(journal, "dirty data", reclaim, data);
	if (r >= 0)
		data->registered = journal;
	return r;
}

/* Who waits for write-back of a file gives up. */
static void wake_files(struct ter_data *data)
{
	for (;;) {
		struct ter_file *file, *found = NULL;

		ter_lock_acquire(&data->lock);
		ter_list_for_each(file, &data->all, all_link)
			if (file->all_gen != UINT64_MAX) {
				found = file;
				break;
			}
		if (found) {
			ter_file_hold(found); /* has one already */
			found->all_gen = UINT64_MAX;
			ter_list_del(&found->all_link);
			ter_list_add_tail(&data->all, &found->all_link);
		}
		ter_lock_release(&data->lock);
		if (!found)
			return;
		ter_lock_acquire(&found->lock);
		ter_waitq_wake_all(&found->wq);
		ter_lock_release(&found->lock);
		ter_file_release(found);
	}
}

void ter_writeback_stop(struct ter_data *data)
{
	ter_lock_acquire(&data->lock);
	data->stopping = true;
	ter_waitq_wake_all(&data->wb_wq);
	ter_waitq_wake_all(&data->space_wq);
	ter_lock_release(&data->lock);
	wake_files(data);
	while (data->tasks_nr > 0)
		data->exec->ops->join(data->exec, data->tasks[--data->tasks_nr]);
	ter_lock_acquire(&data->lock);
	while (data->reclaiming)
		ter_waitq_wait(&data->space_wq, &data->lock);
	ter_lock_release(&data->lock);
	for (unsigned i = 0; i <= TER_WB_TASKS; i++) {
		ter_batch_ctx_free(data->ctx[i]);
		data->ctx[i] = NULL;
	}
}
