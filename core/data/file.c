/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One file's place in the data room: its holds, and the lists of what is to be written back. */
#include "data/data_priv.h"

#define SORT_STEPS_MAX 32 /* how far a file that comes back late looks for its place */

void ter_file_init(struct ter_file *file, const struct ter_file_ops *ops, uint64_t inum, uint32_t snapshot, uint64_t size)
{
	*file = (struct ter_file){ .ops = ops, .inum = inum, .snapshot = snapshot, .size = size };
	ter_lock_init(&file->lock, TER_RANK_DIRTY);
	ter_waitq_init(&file->wq);
	ter_list_init(&file->unsynced);
	ter_list_init(&file->dirty_link);
	ter_list_init(&file->all_link);
}

void ter_file_destroy(struct ter_file *file)
{
	assert(!file->segs && !file->wb && !file->has_segs);
	ter_waitq_destroy(&file->wq);
	ter_lock_destroy(&file->lock);
}

void ter_file_hold(struct ter_file *file)
{
	if (atomic_fetch_add(&file->holds, 1) == 0)
		file->ops->ref(file, +1);
}

void ter_file_release(struct ter_file *file)
{
	if (atomic_fetch_sub(&file->holds, 1) == 1)
		file->ops->ref(file, -1);
}

/* Half of the interval, so that what is older than all of it stands in the journal. */
static uint64_t due_ns(struct ter_data *data, const struct ter_file *file, unsigned list)
{
	uint64_t half_ns = ter_data_opt(data, journal_flush_ms) * TER_NS_PER_MS / 2;

	return file->first_dirty_ns + (list == TER_LIST_JOURNALED ? half_ns * TER_JOURNALED_AGE_FACTOR : half_ns);
}

static void add_sorted(struct ter_list *head, struct ter_file *file)
{
	struct ter_list *at = head->prev;

	for (unsigned i = 0; i < SORT_STEPS_MAX && at != head; i++, at = at->prev)
		if (ter_list_entry(at, struct ter_file, dirty_link)->first_dirty_ns <= file->first_dirty_ns)
			break;
	ter_list_add(at, &file->dirty_link);
}

void ter_file_list_(struct ter_data *data, struct ter_file *file, unsigned list)
{
	if (atomic_load_explicit(&file->dirty_list, memory_order_relaxed) == list)
		return;
	ter_list_del(&file->dirty_link);
	atomic_store_explicit(&file->dirty_list, (uint8_t)list, memory_order_relaxed);
	if (list == TER_LIST_NONE)
		return;
	if (list == TER_LIST_WANTED)
		ter_list_add_tail(&data->lists[list], &file->dirty_link);
	else
		add_sorted(&data->lists[list], file);
	if (data->idle_tasks && (list == TER_LIST_WANTED || data->space_waiters || due_ns(data, file, list) < data->deadline_ns))
		ter_waitq_wake_one(&data->wb_wq);
}

void ter_file_relist_(struct ter_data *data, struct ter_file *file)
{
	unsigned was = atomic_load_explicit(&file->dirty_list, memory_order_relaxed), list = TER_LIST_NONE;

	if (file->wanted_gen && (file->segs || file->wb_failed_nr))
		list = TER_LIST_WANTED;
	else if (file->segs)
		list = file->unsynced_bytes ? TER_LIST_UNSYNCED : TER_LIST_JOURNALED;
	else
		file->first_dirty_ns = 0;
	if (list != was && (!file->first_dirty_ns || (list == TER_LIST_JOURNALED && was == TER_LIST_UNSYNCED) ||
			    (list == TER_LIST_UNSYNCED && was == TER_LIST_JOURNALED)))
		file->first_dirty_ns = ter_mono_ns(data->exec);
	ter_file_list_(data, file, list);
}

bool ter_file_account(struct ter_data *data, struct ter_file *file)
{
	bool has = file->segs || file->wb, gone;

	ter_lock_acquire(&data->lock);
	if (has && !file->has_segs) {
		atomic_fetch_add(&file->holds, 1); /* the caller has one: it is not the first */
		ter_list_add_tail(&data->all, &file->all_link);
		file->all_gen = data->gen + 1;
	}
	gone = !has && file->has_segs;
	if (gone) {
		ter_list_del(&file->all_link);
		file->wanted_gen = 0;
	}
	file->has_segs = has;
	ter_file_relist_(data, file);
	ter_lock_release(&data->lock);
	return gone;
}

uint64_t ter_file_due_ns_(struct ter_data *data, const struct ter_file *file)
{
	return due_ns(data, file, atomic_load_explicit(&file->dirty_list, memory_order_relaxed));
}
