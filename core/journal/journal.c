/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Journal: starting, stopping, stopping in an emergency, and numbers. */
#include "journal/journal_priv.h"

static uint64_t bucket_bytes_of(const struct ter_members *members)
{
	for (unsigned i = 0; i < members->nr_slots; i++)
		if (members->dev[i].used)
			return (uint64_t)members->dev[i].bucket_sectors * TER_SECTOR_BYTES;
	return 0;
}

static uint32_t entry_bytes_of(const struct ter_members *members)
{
	return (uint32_t)ter_min(bucket_bytes_of(members), (uint64_t)TER_JOURNAL_ENTRY_MAX);
}

size_t ter_journal_region_bytes(const struct ter_sb *sb, const struct ter_members *members)
{
	return (size_t)TER_JOURNAL_BUFS * entry_bytes_of(members);
}

void ter_jcopies_get(struct ter_journal *j, struct ter_jcopies *ret)
{
	const struct ter_options *opts = &j->config.sb->sb->options;

	ter_lock_acquire(&j->config.sb->lock);
	*ret = (struct ter_jcopies){
		.meta = opts->metadata_replicas,
		.meta_required = opts->metadata_replicas_required,
		.data = opts->data_replicas,
		.data_required = opts->data_replicas_required,
		.flush_ms = opts->journal_flush_ms,
	};
	ter_lock_release(&j->config.sb->lock);
}

/* --- start --- */

static int find_csum_slot(struct ter_journal *j, struct ter_error *error)
{
	const struct ter_sb *sb = j->config.sb->sb;

	for (unsigned i = 1; i <= TER_ALGO_SLOTS_MAX; i++)
		if (ter_algos_checksum(&sb->algos, i) && !strcmp(sb->algos.slot[i].name, sb->options.metadata_checksum.s)) {
			j->csum_slot = i;
			return 0;
		}
	return ter_fail(error, TER_ERR_PLUGIN_MISSING,
			"The journal needs the checksum '%s' (option metadata_checksum), which this pool has no plugin for.",
			sb->options.metadata_checksum.s);
}

static int check_geometry(struct ter_journal *j, struct ter_error *error)
{
	uint64_t roots_bytes = TER_BTREE_ROOTS_MAX * ter_jrec_bytes(TER_JREC_ROOT_BYTES) + ter_jrec_bytes(TER_JREC_CLOCK_BYTES);

	j->bucket_bytes = (uint32_t)bucket_bytes_of(j->config.members);
	j->entry_bytes = entry_bytes_of(j->config.members);
	j->block_bytes = j->config.sb->sb->options.block_size;
	if (!ter_is_pow2(j->block_bytes) || !ter_is_pow2(j->bucket_bytes) || j->entry_bytes < j->block_bytes || j->entry_bytes < 4 * roots_bytes)
		return ter_fail(error, TER_ERR_INVALID_ARGUMENT, "Buckets of %u bytes are too small for journal entries.", j->bucket_bytes);
	if (!j->config.region || j->config.region_bytes < (size_t)TER_JOURNAL_BUFS * j->entry_bytes || (uintptr_t)j->config.region % 4096)
		return ter_fail(error, TER_ERR_INTERNAL, "The memory for journal entries is too small.");
	j->room_bytes = j->entry_bytes - (uint32_t)roots_bytes;
	for (unsigned i = 0; i < TER_JOURNAL_BUFS; i++) {
		j->bufs[i].data = (uint8_t *)j->config.region + (size_t)i * j->entry_bytes;
		atomic_store(&j->bufs[i].state, TER_JST_CLOSED);
	}
	return 0;
}

static int make_rings(struct ter_journal *j, uint64_t next_seq, struct ter_error *error)
{
	unsigned writable = 0;
	int r;

	for (unsigned i = 0; i < j->config.members->nr_slots; i++) {
		struct ter_dev *dev = ter_member(j->config.members, i);

		if (!dev || ter_jring_buckets_nr_(dev) < TER_JOURNAL_BUCKETS_MIN)
			continue;
		r = ter_jring_new_(j, dev, &j->ring[i]);
		if (r == 0)
			r = ter_jring_resume_(j, j->ring[i], next_seq);
		if (r < 0)
			return ter_fail_errno(error, r, "There is not enough memory for the journal.");
		writable += ter_jring_eligible_(j->ring[i]);
	}
	if (!writable)
		return ter_fail(error, TER_ERR_INSUFFICIENT_DEVICES, "No writable member has room for a journal.");
	return 0;
}

static void set_sequences(struct ter_journal *j, uint64_t next_seq)
{
	const struct ter_journal_replay *replay = j->config.replay;

	j->first_seq = next_seq;
	atomic_store(&j->open_seq, next_seq);
	atomic_store(&j->pin_first, next_seq);
	j->seal_seq = next_seq;
	j->written_seq = next_seq - 1;
	atomic_store(&j->durable_seq, next_seq - 1);
	j->last_seq_ondisk = next_seq - 1;
	j->roots_wanted = true;
	if (replay && replay->nr) {
		j->last_seq_ondisk = j->replay_oldest = replay->entry[0].seq;
		atomic_store(&j->replay_pins, 1);
		j->replay_hold = true;
		if (j->config.get_roots) {
			atomic_store(&j->replay_pins, 2);
			j->roots_seq = replay->entry[replay->nr - 1].seq;
		}
	}
}

static struct ter_journal *journal_new(const struct ter_journal_config *config)
{
	struct ter_journal *j = ter_malloc_aligned(sizeof(*j), 512);

	if (!j)
		return NULL;
	memset(j, 0, sizeof(*j));
	j->config = *config;
	ter_lock_init(&j->lock, TER_RANK_JOURNAL);
	ter_lock_init(&j->jio_lock, TER_RANK_LEAF);
	ter_waitq_init(&j->jio_wq);
	ter_waitq_init(&j->writer_wq);
	ter_waitq_init(&j->space_wq);
	ter_waitq_init(&j->durable_wq);
	ter_waitq_init(&j->reclaim_wq);
	ter_waitq_init(&j->reclaim_done_wq);
	ter_list_init(&j->waiters);
	j->pins = ter_calloc(TER_JOURNAL_FIFO_MAX, sizeof(*j->pins));
	if (!j->pins) {
		ter_journal_free(j);
		return NULL;
	}
	return j;
}

static int start_tasks(struct ter_journal *j, struct ter_error *error)
{
	struct ter_exec *exec = j->config.exec;
	int r;

	ter_lock_acquire(&j->lock);
	j->last_flush_ns = ter_mono_ns(exec);
	ter_journal_advance_(j);
	ter_lock_release(&j->lock);
	r = exec->ops->spawn(exec, "journal-write", ter_journal_writer_, j, &j->writer);
	if (r == 0)
		r = exec->ops->spawn(exec, "journal-reclaim", ter_journal_reclaim_task_, j, &j->reclaim);
	return r < 0 ? ter_fail_errno(error, r, "The tasks of the journal cannot be started.") : 0;
}

int ter_journal_start(const struct ter_journal_config *config, uint64_t next_seq, struct ter_journal **ret_journal, struct ter_error *error)
{
	struct ter_journal *j = journal_new(config);
	int r;

	if (!j)
		return ter_fail(error, TER_ERR_NO_MEMORY, "There is not enough memory for the journal.");
	assert(next_seq > 0);
	j->magic = ter_journal_magic_(config->sb->sb);
	set_sequences(j, next_seq);
	r = find_csum_slot(j, error);
	if (r == 0)
		r = check_geometry(j, error);
	if (r == 0)
		r = make_rings(j, next_seq, error);
	if (r == 0)
		r = start_tasks(j, error);
	if (r < 0) {
		ter_journal_free(j);
		return r;
	}
	j->config.replay = NULL; /* the caller's, and may go now */
	*ret_journal = j;
	return 0;
}

void ter_journal_replay_done(struct ter_journal *j)
{
	ter_lock_acquire(&j->lock);
	if (j->replay_hold)
		atomic_fetch_sub(&j->replay_pins, 1);
	j->replay_hold = false;
	ter_waitq_wake_all(&j->reclaim_wq);
	ter_lock_release(&j->lock);
}

/* --- stop --- */

/* J6. The first error stays. Who waits is told it; what is being written at this moment cannot be called back, nothing else is. */
static bool stop_with(struct ter_journal *j, int r)
{
	struct ter_list due;
	int none = 0;

	assert(r < 0);
	ter_list_init(&due);
	ter_lock_acquire(&j->lock);
	if (!atomic_compare_exchange_strong(&j->error, &none, r)) {
		ter_lock_release(&j->lock);
		return false;
	}
	if (j->is_open) {
		atomic_fetch_or(&ter_jbuf(j, atomic_load(&j->open_seq))->state, TER_JST_CLOSED);
		j->is_open = false;
	}
	while (!ter_list_empty(&j->waiters)) {
		struct ter_list *link = j->waiters.next;

		ter_list_del(link);
		ter_list_add_tail(&due, link);
	}
	ter_waitq_wake_all(&j->writer_wq);
	ter_waitq_wake_all(&j->space_wq);
	ter_waitq_wake_all(&j->durable_wq);
	ter_waitq_wake_all(&j->reclaim_wq);
	ter_waitq_wake_all(&j->reclaim_done_wq);
	ter_lock_release(&j->lock);
	while (!ter_list_empty(&due)) {
		struct ter_journal_waiter *waiter = ter_list_first(&due, struct ter_journal_waiter, link);

		ter_list_del(&waiter->link);
		waiter->fn(waiter, r);
	}
	return true;
}

void ter_journal_fail_(struct ter_journal *j, int r, const char *text)
{
	if (stop_with(j, r) && j->config.on_error)
		j->config.on_error(j->config.on_arg, r, text);
}

void ter_journal_halt(struct ter_journal *j, int r)
{
	(void)stop_with(j, r); /* already stopped: the first error stays */
}

bool ter_journal_stopped(struct ter_journal *j)
{
	return atomic_load(&j->error) != 0;
}

static void end_tasks(struct ter_journal *j)
{
	struct ter_exec *exec = j->config.exec;

	(void)stop_with(j, -ESHUTDOWN); /* already stopped: the first error stays */
	ter_lock_acquire(&j->lock);
	j->quit = true;
	ter_waitq_wake_all(&j->writer_wq);
	ter_waitq_wake_all(&j->reclaim_wq);
	ter_lock_release(&j->lock);
	exec->ops->join(exec, TAKE_PTR(j->reclaim));
	exec->ops->join(exec, TAKE_PTR(j->writer));
}

/* For the next start, which then need not look for the end of each ring. What a member that was away knew of its ring is of another time. */
static void note_places(struct ter_journal *j)
{
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		struct ter_jring *ring = j->ring[i];

		if (ter_member(j->config.members, i))
			j->config.members->dev[i].journal_at = ring && ter_jring_eligible_(ring) ? ring->cur + 1 : 0;
	}
}

int ter_journal_stop(struct ter_journal *j, uint64_t *ret_seq)
{
	uint64_t seq;
	int r;

	ter_lock_acquire(&j->lock);
	j->roots_wanted = true;
	seq = atomic_load(&j->open_seq);
	ter_journal_want_(j, seq);
	while (atomic_load(&j->durable_seq) < seq && !atomic_load(&j->error))
		ter_waitq_wait(&j->durable_wq, &j->lock);
	r = atomic_load(&j->durable_seq) < seq ? atomic_load(&j->error) : 0;
	seq = j->written_seq;
	ter_lock_release(&j->lock);
	end_tasks(j);
	if (r == 0) {
		note_places(j);
		*ret_seq = seq;
	}
	return r;
}

void ter_journal_free(struct ter_journal *j)
{
	if (!j)
		return;
	if (j->writer || j->reclaim)
		end_tasks(j);
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		ter_jring_free_(j->ring[i]);
	free((void *)j->pins);
	ter_waitq_destroy(&j->jio_wq);
	ter_waitq_destroy(&j->writer_wq);
	ter_waitq_destroy(&j->space_wq);
	ter_waitq_destroy(&j->durable_wq);
	ter_waitq_destroy(&j->reclaim_wq);
	ter_waitq_destroy(&j->reclaim_done_wq);
	ter_lock_destroy(&j->jio_lock);
	ter_lock_destroy(&j->lock);
	free(j);
}

void ter_journal_get_stats(struct ter_journal *j, struct ter_journal_stats *ret)
{
	uint64_t worst = 0;

	ter_lock_acquire(&j->lock);
	*ret = j->stats;
	ret->ring_bytes = ret->ring_used_bytes = 0;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		struct ter_jring *ring = j->ring[i];
		uint64_t share;

		if (!ter_jring_eligible_(ring))
			continue;
		share = (uint64_t)ter_jring_used(ring) * UINT32_MAX / ring->nr;
		if (share < worst)
			continue;
		worst = share;
		ret->ring_bytes = (uint64_t)ring->nr * j->bucket_bytes;
		ret->ring_used_bytes = (uint64_t)ter_jring_used(ring) * j->bucket_bytes;
	}
	ter_lock_release(&j->lock);
}
