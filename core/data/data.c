/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Life of the data room: new, start, stop, numbers. */
#include "alloc/alloc_repair.h"
#include "data/data_priv.h"

int ter_data_new(const struct ter_data_config *config, struct ter_data **ret_data)
{
	struct ter_data *data = ter_new(struct ter_data);
	uint64_t cap;
	int r;

	if (!data)
		return -ENOMEM;
	data->config = *config;
	data->exec = config->exec;
	data->sb = config->sb->sb;
	atomic_store(&data->journal, config->journal);
	data->block_bytes = data->sb->options.block_size;
	data->block_sectors = data->block_bytes >> TER_SECTOR_SHIFT;
	r = ter_workq_new(data->exec, "ter-read-slow", 2, &data->slow);
	if (r >= 0)
		r = ter_pool_init(&data->pool, config->region, config->region_bytes);
	if (r < 0) {
		ter_workq_free(data->slow);
		free(data);
		return r;
	}
	cap = TER_PAGE_BYTES << data->pool.order_max;
	cap = ter_max(cap, (uint64_t)data->block_bytes);
	data->batch_bytes = ter_min(TER_BATCH_BYTES_MAX, (uint64_t)config->region_bytes / 8);
	data->batch_bytes = ter_max(data->batch_bytes, cap);
	ter_lock_init(&data->lock, TER_RANK_DIRTY_POOL);
	ter_lock_init(&data->flush_lock, TER_RANK_RENAME);
	ter_lock_init(&data->algo_lock, TER_RANK_FS_STATE);
	ter_lock_init(&data->bounce_lock, TER_RANK_LEAF);
	ter_waitq_init(&data->wb_wq);
	ter_waitq_init(&data->space_wq);
	for (unsigned i = 0; i < TER_LIST_NR; i++)
		ter_list_init(&data->lists[i]);
	ter_list_init(&data->all);
	ter_list_init(&data->pinned);
	*ret_data = data;
	return 0;
}

void ter_data_set_journal(struct ter_data *data, struct ter_journal *journal)
{
	atomic_store(&data->journal, journal);
	data->registered = NULL; /* another one may lie where the last one lay */
}

/* As much as there is. */
static uint64_t hold_back(struct ter_data *data, uint64_t sectors)
{
	uint64_t held = 0, part = sectors;

	while (part && held < sectors) {
		part = ter_min(part, sectors - held);
		if (ter_alloc_reserve(data->config.alloc, part, data->promise_replicas) >= 0)
			held += part;
		else
			part /= 2;
	}
	return held;
}

/* What RESERVATION keys promise is not given to others. */
static int load_promise(struct ter_data *data)
{
	struct ter_trans trans;
	struct ter_key key;
	int r;

	ter_trans_init(&trans, data->config.btrees, 0);
	r = ter_trans_get(&trans, TER_BTREE_ACCOUNTING, ter_counter_reserved(), &key);
	if (r >= 0 && (key.type != TER_KEY_COUNTERS || key.val_bytes < 8))
		r = -EUCLEAN;
	data->promise_replicas = ter_data_opt(data, data_replicas);
	if (r >= 0) {
		int64_t sectors = (int64_t)ter_le64_get(*(const ter_le64 *)key.val);

		/* With members missing or full there may be less than was promised. */
		if (sectors > 0)
			atomic_store(&data->promised_sectors, hold_back(data, (uint64_t)sectors));
	}
	ter_trans_exit(&trans);
	return r == -ENOENT ? 0 : r;
}

void ter_data_unpromise(struct ter_data *data, uint64_t sectors)
{
	uint64_t have = atomic_load(&data->promised_sectors);

	while (!atomic_compare_exchange_weak(&data->promised_sectors, &have, have - ter_min(have, sectors)))
		;
	sectors = ter_min(have, sectors);
	if (sectors)
		ter_alloc_unreserve(data->config.alloc, sectors, data->promise_replicas);
}

/* Pins and space for what replay found; nobody else is here yet. */
static void adopt_replayed(struct ter_data *data)
{
	struct ter_journal *journal = ter_data_journal(data);
	struct ter_seg *seg;

	ter_list_for_each(seg, &data->pinned, pin_link) {
		uint32_t sectors = ter_seg_span_sectors(data, seg);

		ter_journal_pin(journal, seg->pin_seq);
		/* It was reserved when it was written; if that does not fit any more it is tried without. */
		if (ter_alloc_reserve(data->config.alloc, sectors, seg->replicas) >= 0)
			seg->reserved_sectors = sectors;
	}
}

int ter_data_start(struct ter_data *data)
{
	int r;

	if (!ter_data_journal(data))
		return -EINVAL;
	if (data->replay_failed)
		return -ENOMEM;
	r = load_promise(data);
	if (r < 0 && !ter_alloc_repairing(data->config.alloc)) /* a repair adds it up anew, for the next start */
		return r;
	adopt_replayed(data);
	r = ter_writeback_start(data);
	if (r < 0)
		ter_data_stop(data);
	return r;
}

/* Dirty data that nobody wrote back (the pool was halted) goes with its files. */
static void drop_files(struct ter_data *data)
{
	while (!ter_list_empty(&data->all)) {
		struct ter_file *file = ter_list_first(&data->all, struct ter_file, all_link);
		struct ter_seg *dropped = NULL;
		bool gone;

		ter_lock_acquire(&file->lock);
		(void)ter_segs_cut(data, file, &file->segs, 0, UINT64_MAX, UINT64_MAX, &dropped); /* whole segments: needs no memory */
		(void)ter_segs_cut(data, file, &file->wb, 0, UINT64_MAX, UINT64_MAX, &dropped);
		gone = ter_file_account(data, file);
		ter_lock_release(&file->lock);
		assert(gone);
		ter_segs_free(data, dropped);
		ter_file_release(file);
	}
}

void ter_data_stop(struct ter_data *data)
{
	uint64_t promised;

	ter_writeback_stop(data);
	ter_workq_drain(data->slow);
	drop_files(data); /* after a flush there are none */
	promised = atomic_load(&data->promised_sectors);
	if (promised)
		ter_data_unpromise(data, promised);
	data->started = false;
}

void ter_data_free(struct ter_data *data)
{
	if (!data)
		return;
	ter_workq_free(data->slow);
	drop_files(data); /* replayed, and never started */
	ter_bounce_drain(data);
	ter_pool_destroy(&data->pool);
	ter_waitq_destroy(&data->wb_wq);
	ter_waitq_destroy(&data->space_wq);
	ter_lock_destroy(&data->lock);
	ter_lock_destroy(&data->flush_lock);
	ter_lock_destroy(&data->algo_lock);
	ter_lock_destroy(&data->bounce_lock);
	free(data);
}

void ter_data_get_stats(struct ter_data *data, struct ter_data_stats *ret)
{
	*ret = (struct ter_data_stats){
		.dirty_bytes = atomic_load(&data->dirty_bytes),
		.written_bytes = atomic_load(&data->written_bytes),
		.stored_bytes = atomic_load(&data->stored_bytes),
		.read_bytes = atomic_load(&data->read_bytes),
		.device_read_bytes = atomic_load(&data->device_read_bytes),
		.repaired = atomic_load(&data->repaired),
		.failed = atomic_load(&data->failed),
		.degraded = atomic_load(&data->degraded),
	};
}
