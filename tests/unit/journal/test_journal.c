/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The living journal: order, group commit, space, pins, roots, errors. */
#include "journal/journal_priv.h"
#include "journal_rig.h"

#define TASKS 8
#define TXS 150

/* --- concurrent reservers: all is there, in each task's order, and what flush() acknowledged is durable --- */

struct worker {
	struct rig *rig;
	unsigned idx;
	uint64_t seed;
};

static void work(void *arg)
{
	struct worker *worker = arg;

	for (uint64_t i = 0; i < TXS; i++) {
		uint64_t id = (uint64_t)worker->idx << 32 | i, seq;
		uint32_t bytes = 8 + (uint32_t)(rig_random(&worker->seed) % 700);

		assert_int_equal(rig_tx(worker->rig, id, bytes, 0, false, &seq, NULL), 0);
		if (rig_random(&worker->seed) % 8 == 0) {
			assert_int_equal(ter_journal_flush(worker->rig->journal, seq), 0);
			assert_true(ter_journal_durable_seq(worker->rig->journal) >= seq);
		}
	}
}

static void run_workers(struct rig *rig, void (*fn)(void *arg), struct worker *worker, unsigned nr, uint64_t seed)
{
	struct ter_task *task[64];

	assert_true(nr <= 64);
	for (unsigned i = 0; i < nr; i++) {
		worker[i] = (struct worker){ .rig = rig, .idx = i, .seed = seed + i };
		assert_int_equal(rig->exec->ops->spawn(rig->exec, "worker", fn, &worker[i], &task[i]), 0);
	}
	for (unsigned i = 0; i < nr; i++)
		rig->exec->ops->join(rig->exec, task[i]);
}

static void check_all_there(struct rig *rig)
{
	struct ter_journal_replay *replay;
	struct ter_error error = { 0 };
	uint64_t next[TASKS] = { 0 }, seq = 0;

	assert_int_equal(rig_read(rig, &replay, &error), 0);
	for (unsigned i = 0; i < replay->nr; i++) {
		struct ter_jrec rec;
		uint32_t pos = 0;

		assert_true(i == 0 || replay->entry[i].seq == seq + 1);
		seq = replay->entry[i].seq;
		while (ter_jrec_next(&replay->entry[i], &pos, &rec)) {
			uint64_t id = rig_tx_id(&rec);

			assert_int_equal((uint32_t)id, next[id >> 32]++);
		}
	}
	for (unsigned i = 0; i < TASKS; i++)
		assert_int_equal(next[i], TXS);
	assert_int_equal(replay->next_seq, seq + 1);
	assert_true(replay->blacklist_first > replay->blacklist_last);
	ter_journal_replay_free(replay);
}

static void order_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 2, 64, 65536);
	struct worker worker[TASKS];
	uint64_t seq;

	rig->sb->options.metadata_replicas = 2;
	rig_start(rig, 1, NULL);
	assert_int_equal(rig_tx(rig, 0xffull << 32, 8, 0, true, &seq, NULL), 0); /* its pin keeps all entries needed */
	assert_int_equal(seq, 1);
	ter_journal_unpin(rig->journal, seq);
	assert_int_equal(ter_journal_last_pinned(rig->journal), 1); /* the open entry's own */
	rig_free_journal(rig);

	rig_start(rig, 1, NULL);
	{
		struct ter_journal_res res;

		assert_int_equal(ter_journal_reserve(rig->journal, 8, 0, &res), 0);
		ter_journal_pin(rig->journal, 1);
		ter_journal_put(&res);
	}
	run_workers(rig, work, worker, TASKS, *(uint64_t *)arg);
	assert_int_equal(ter_journal_flush(rig->journal, ter_journal_open_seq(rig->journal)), 0);
	assert_int_equal(ter_journal_last_pinned(rig->journal), 1);
	ter_journal_unpin(rig->journal, 1);
	rig_free_journal(rig);
	check_all_there(rig);
	rig_free(rig);
}

static void concurrent_reservers_keep_their_order(void **state)
{
	uint64_t seed = rig_seed();

	for (unsigned i = 0; i < 10; i++, seed++)
		rig_run(true, seed, order_main, &seed);
	for (unsigned i = 0; i < 3; i++, seed++)
		rig_run(false, seed, order_main, &seed);
}

/* --- going on after a clean stop --- */

static void start_and_stop(struct rig *rig, uint64_t *seq, unsigned txs)
{
	rig_start(rig, *seq + 1, NULL);
	for (unsigned i = 0; i < txs; i++) {
		uint64_t at;

		assert_int_equal(rig_tx(rig, i, 3000, 0, false, &at, NULL), 0);
		assert_int_equal(ter_journal_flush(rig->journal, at), 0);
	}
	assert_int_equal(ter_journal_stop(rig->journal, seq), 0);
	rig_free_journal(rig);
}

static void places_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 2, 64, 65536);
	struct ter_dev *dev = &rig->members->dev[1];
	uint64_t seq = 0;

	(void)arg;
	rig->sb->options.metadata_replicas = 2;
	for (unsigned round = 0; round < 40; round++) {
		unsigned told, tail;

		start_and_stop(rig, &seq, round % 7 * 9 + 1);
		told = dev->journal_at;
		assert_in_range(told, 1, 64);

		/* What it says, and what one who looks for himself finds: the newest entry, and the last flush entry before it, are kept. */
		rig_start(rig, seq + 1, NULL);
		assert_int_equal(rig->journal->ring[1]->cur + 1, told);
		tail = rig->journal->ring[1]->tail;
		assert_int_equal((tail + 1) % 64, rig->journal->ring[1]->cur);
		rig_free_journal(rig);
		dev->journal_at = round % 2 ? 0 : 65; /* unknown, or nonsense */
		rig_start(rig, seq + 1, NULL);
		assert_int_equal(rig->journal->ring[1]->tail + 1, told);
		rig_free_journal(rig);
		dev->journal_at = told;
	}
	rig_free(rig);
}

static void a_clean_stop_says_where_each_ring_ends(void **state)
{
	uint64_t seed = rig_seed();

	(void)state;
	for (unsigned i = 0; i < 4; i++, seed++)
		rig_run(true, seed, places_main, NULL);
}

/* --- group commit --- */

#define SYNCERS 32

static void sync_once(void *arg)
{
	struct worker *worker = arg;
	uint64_t seq;

	assert_int_equal(rig_tx(worker->rig, worker->idx, 100, 0, false, &seq, NULL), 0);
	assert_int_equal(ter_journal_flush(worker->rig->journal, seq), 0);
}

static void group_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 1, 16, 65536);
	struct worker worker[SYNCERS];
	struct ter_journal_stats stats;

	rig->latency_ns = 50 * 1000;
	rig_start(rig, 1, NULL);
	run_workers(rig, sync_once, worker, SYNCERS, 0);
	ter_journal_get_stats(rig->journal, &stats);
	/* The first who comes, the others together; a third for who was slow between reservation and flush. */
	assert_in_range(stats.flush_entries, 1, 3);
	assert_in_range(atomic_load(&rig->dev[0].flushes), 1, 3); /* nothing else was written: no flush before an entry */
	rig_free_journal(rig);
	rig_free(rig);
}

static void many_fsyncs_share_few_flushes(void **state)
{
	uint64_t seed = rig_seed();

	for (unsigned i = 0; i < 10; i++)
		rig_run(true, seed + i, group_main, NULL);
}

static void idle_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 1, 16, 65536);
	uint64_t seq;

	rig_start(rig, 1, NULL);
	assert_int_equal(ter_journal_flush(rig->journal, ter_journal_open_seq(rig->journal)), 0);
	ter_sleep_ns(exec, 5 * TER_NS_PER_S); /* of the scheduler's time: several commit intervals */
	assert_int_equal(atomic_load(&rig->dev[0].writes), 0);

	assert_int_equal(rig_tx(rig, 1, 64, 0, false, &seq, NULL), 0);
	ter_sleep_ns(exec, 1100 * TER_NS_PER_MS);
	assert_int_equal(ter_journal_durable_seq(rig->journal), seq);
	assert_int_equal(atomic_load(&rig->dev[0].writes), 1);

	/* Members with writes of others are flushed before an entry. */
	{
		_cleanup_free_ void *buf = aligned_alloc(4096, 4096);

		memset(buf, 1, 4096);
		assert_int_equal(ter_dev_write(&rig->members->dev[0], 0, buf, 4096, 0), 0);
	}
	assert_int_equal(rig_tx(rig, 2, 64, 0, false, &seq, NULL), 0);
	assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
	assert_int_equal(rig->dev[0].ops[rig->dev[0].ops_nr - 3].op, TER_BIO_FLUSH);
	assert_int_equal(rig->dev[0].ops[rig->dev[0].ops_nr - 2].op, TER_BIO_WRITE);
	assert_int_equal(rig->dev[0].ops[rig->dev[0].ops_nr - 1].op, TER_BIO_FLUSH);
	for (unsigned i = 2; i <= 3; i++) /* J2: nothing of them in parallel */
		assert_true(rig->dev[0].ops[rig->dev[0].ops_nr - i].completed < rig->dev[0].ops[rig->dev[0].ops_nr - i + 1].submitted);
	rig_free_journal(rig);
	rig_free(rig);
}

static void an_idle_journal_writes_nothing_and_content_is_committed_in_time(void **state)
{
	rig_run(true, rig_seed(), idle_main, NULL);
}

/* --- the ring wraps, with an owner of pins --- */

#define OWNED_MAX 65536

struct owner {
	struct rig *rig;
	struct ter_lock lock;
	struct { uint64_t seq; bool pinned; } pin[OWNED_MAX];
	unsigned nr;
	unsigned calls;
	int r;
	bool lazy; /* drops nothing */
};

static void own(struct owner *owner, uint64_t seq)
{
	ter_lock_acquire(&owner->lock);
	assert_true(owner->nr < OWNED_MAX);
	owner->pin[owner->nr].seq = seq;
	owner->pin[owner->nr++].pinned = true;
	ter_lock_release(&owner->lock);
}

static int owner_drop(void *arg, uint64_t seq)
{
	struct owner *owner = arg;
	uint64_t own_seq;

	owner->calls++;
	if (owner->r < 0)
		return owner->r;
	/* As a node's write: needs a transaction of its own and durability of what it writes. */
	assert_int_equal(rig_tx(owner->rig, 1, 64, TER_JOURNAL_RECLAIM, false, &own_seq, NULL), 0);
	assert_int_equal(ter_journal_flush(owner->rig->journal, ter_min(seq, own_seq)), 0);
	ter_lock_acquire(&owner->lock);
	for (unsigned i = 0; i < owner->nr && !owner->lazy; i++)
		if (owner->pin[i].pinned && owner->pin[i].seq <= seq) {
			owner->pin[i].pinned = false;
			ter_lock_release(&owner->lock);
			ter_journal_unpin(owner->rig->journal, owner->pin[i].seq);
			ter_lock_acquire(&owner->lock);
		}
	ter_lock_release(&owner->lock);
	return 0;
}

static struct owner *owner_new(struct rig *rig)
{
	struct owner *owner = calloc(1, sizeof(*owner));

	owner->rig = rig;
	ter_lock_init(&owner->lock, TER_RANK_DIRTY_POOL);
	assert_int_equal(ter_journal_register_reclaimer(rig->journal, "owner", owner_drop, owner), 0);
	return owner;
}

static void owner_free(struct owner *owner)
{
	ter_lock_destroy(&owner->lock);
	free(owner);
}

struct wrap_worker {
	struct worker worker;
	struct owner *owner;
};

static void wrap_work(void *arg)
{
	struct wrap_worker *w = arg;

	for (uint64_t i = 0; i < 150; i++) {
		struct ter_journal_res res;

		assert_int_equal(ter_journal_reserve(w->worker.rig->journal, 4096, 0, &res), 0);
		memset(ter_journal_add(&res, TER_JREC_LOG, 0, 0, 4088), (int)i, 4088);
		ter_journal_pin(w->worker.rig->journal, res.seq);
		own(w->owner, res.seq);
		ter_journal_put(&res);
	}
}

static void wrap_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 2, 16, 16384);
	struct wrap_worker w[4];
	struct ter_task *task[4];
	struct ter_journal_stats stats;
	struct owner *owner;
	uint64_t last;

	rig->roots = true;
	rig->sb->options.metadata_replicas = 2;
	rig_start(rig, 1, NULL);
	owner = owner_new(rig);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct wrap_worker){ .worker = { .rig = rig, .idx = i }, .owner = owner };
		assert_int_equal(exec->ops->spawn(exec, "wrap", wrap_work, &w[i], &task[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		exec->ops->join(exec, task[i]);
	ter_journal_get_stats(rig->journal, &stats);
	assert_true(stats.bytes > 9 * stats.ring_bytes); /* it wrapped many times */
	assert_true(owner->calls > 9);
	assert_int_equal(ter_journal_reclaim_to(rig->journal, UINT64_MAX), 0);
	assert_int_equal(ter_journal_stop(rig->journal, &last), 0);
	ter_journal_get_stats(rig->journal, &stats);
	assert_int_equal(stats.ring_used_bytes, 16384); /* only the last entry's bucket */
	assert_int_equal(atomic_load(&rig->errors), 0);
	rig_free_journal(rig);
	{
		struct ter_journal_replay *replay;
		struct ter_error error = { 0 };

		assert_int_equal(rig_read(rig, &replay, &error), 0);
		assert_int_equal(replay->nr, 1);
		assert_int_equal(replay->entry[0].seq, last);
		ter_journal_replay_free(replay);
	}
	owner_free(owner);
	rig_free(rig);
}

static void the_ring_wraps_as_reclaim_frees_pins(void **state)
{
	uint64_t seed = rig_seed();

	for (unsigned i = 0; i < 10; i++)
		rig_run(true, seed + i, wrap_main, NULL);
	for (unsigned i = 0; i < 3; i++)
		rig_run(false, seed, wrap_main, NULL);
}

static void full_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 1, 16, 16384);
	struct owner *owner;
	struct ter_journal_stats stats;
	uint64_t seq = 0;
	unsigned nr = 0;
	int r;

	rig_start(rig, 1, NULL);
	owner = owner_new(rig);
	owner->lazy = true;
	while ((r = rig_tx(rig, nr, 4000, TER_JOURNAL_NOWAIT, true, &seq, NULL)) == 0 || ter_journal_durable_seq(rig->journal) < seq) {
		if (r == 0) {
			nr++;
			own(owner, seq);
		}
		assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
		assert_in_range(nr, 0, 64);
	}
	assert_int_equal(r, -EAGAIN);
	ter_journal_get_stats(rig->journal, &stats);
	assert_true(stats.ring_used_bytes <= stats.ring_bytes / 2 + 16384); /* J5 (one more: the owner's own transactions) */
	assert_true(nr >= 3 * 6);
	assert_int_equal(rig_tx(rig, nr, 4000, TER_JOURNAL_NOWAIT | TER_JOURNAL_RECLAIM, false, &seq, NULL), 0);
	owner->lazy = false;
	assert_int_equal(ter_journal_wait_space(rig->journal, 4008, 0), 0);
	assert_int_equal(rig_tx(rig, nr, 4000, TER_JOURNAL_NOWAIT, false, &seq, NULL), 0);

	/* An owner that fails for good while someone waits stops the journal, rather than for ever. */
	owner->r = -EIO;
	while ((r = rig_tx(rig, nr, 4000, 0, true, &seq, NULL)) == 0)
		;
	assert_int_equal(r, -EIO);
	rig_free_journal(rig);
	assert_int_equal(atomic_load(&rig->errors), 1);
	owner_free(owner);
	rig_free(rig);
}

static void pins_fill_half_and_reclaim_has_the_other(void **state)
{
	uint64_t seed = rig_seed();

	for (unsigned i = 0; i < 5; i++)
		rig_run(true, seed + i, full_main, NULL);
}

static void fifo_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 1, 64, 1 << 18);
	struct owner *owner;
	uint64_t seq = 0;
	unsigned nr = 0;

	rig->sb->options.block_size = 512;
	rig_start(rig, 1, NULL);
	owner = owner_new(rig);
	owner->lazy = true;
	while (rig_tx(rig, 1, 8, TER_JOURNAL_NOWAIT, true, &seq, NULL) == 0) {
		own(owner, seq);
		assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
		assert_true(++nr <= TER_JOURNAL_FIFO_MAX);
	}
	assert_in_range(nr, TER_JOURNAL_FIFO_MAX / 2 - 64, TER_JOURNAL_FIFO_MAX / 2);
	assert_int_equal(rig_tx(rig, 1, 8, TER_JOURNAL_NOWAIT | TER_JOURNAL_RECLAIM, false, &seq, NULL), 0);
	owner->lazy = false;
	assert_int_equal(ter_journal_wait_space(rig->journal, 16, 0), 0);
	rig_free_journal(rig);
	owner_free(owner);
	rig_free(rig);
}

static void live_sequences_are_bounded(void **state)
{
	rig_run(true, rig_seed(), fifo_main, NULL);
}

/* --- roots --- */

static uint64_t newest_root(const struct ter_journal_replay *replay)
{
	uint64_t node_seq = 0;

	for (unsigned i = 0; i < replay->nr; i++) {
		struct ter_jrec rec;
		uint32_t pos = 0;

		while (ter_jrec_next(&replay->entry[i], &pos, &rec))
			if (rec.type == TER_JREC_ROOT) {
				struct ter_root root;

				assert_int_equal(ter_jrec_root_decode(&rec, &root), 0);
				assert_int_equal(root.btree, 3);
				assert_int_equal(root.level, 1);
				node_seq = root.node_seq;
			}
	}
	return node_seq;
}

static bool has_clock(const struct ter_journal_entry *entry)
{
	struct ter_jrec_clock clock;
	struct ter_jrec rec;
	uint32_t pos = 0;

	while (ter_jrec_next(entry, &pos, &rec))
		if (rec.type == TER_JREC_CLOCK)
			return ter_jrec_clock_decode(&rec, &clock) == 0 && clock.next_node_seq == 77 && clock.next_inum == 88;
	return false;
}

static void roots_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 1, 16, 65536);
	struct ter_journal_replay *replay;
	struct ter_journal_res res, other;
	const struct ter_journal_entry *entry = NULL;
	struct ter_error error = { 0 };
	uint64_t seq;

	rig->roots = true;
	rig_start(rig, 1, NULL);
	atomic_store(&rig->root_node_seq, 10);
	assert_int_equal(rig_tx(rig, 1, 8, 0, false, &seq, NULL), 0);
	assert_int_equal(ter_journal_flush(rig->journal, seq), 0);

	/* A root that changes under its reservation while the entry is being closed: the entry has the new one, and the next entry opens only after. */
	assert_int_equal(ter_journal_reserve(rig->journal, 16, TER_JOURNAL_ROOTS, &res), 0);
	seq = res.seq;
	ter_journal_add(&res, TER_JREC_LOG, 0, 0, 8);
	assert_int_equal(ter_journal_reserve(rig->journal, 63320, TER_JOURNAL_NOWAIT, &other), -EAGAIN); /* closes it, finding no room */
	assert_int_equal(ter_journal_open_seq(rig->journal), seq + 1);
	assert_int_equal(ter_journal_reserve(rig->journal, 16, TER_JOURNAL_NOWAIT, &other), -EAGAIN);
	atomic_store(&rig->root_node_seq, 11);
	ter_journal_put(&res);
	assert_int_equal(ter_journal_reserve(rig->journal, 16, TER_JOURNAL_NOWAIT, &other), 0);
	atomic_store(&rig->root_node_seq, 12); /* of a later entry: must not be seen in this one */
	ter_journal_put(&other);
	assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
	rig_free_journal(rig);
	assert_int_equal(rig_read(rig, &replay, &error), 0);
	/* It was written before anybody wanted it durable, perhaps: then an empty flush entry follows. */
	for (unsigned i = 0; i < replay->nr; i++)
		if (replay->entry[i].seq == seq)
			entry = &replay->entry[i];
	assert_non_null(entry);
	assert_int_equal(newest_root(replay), 11);
	assert_true(has_clock(entry));
	ter_journal_replay_free(replay);
	rig_free(rig);
}

static void an_entry_has_the_roots_of_its_own_moment(void **state)
{
	rig_run(true, rig_seed(), roots_main, NULL);
}

/* --- errors --- */

struct told {
	struct ter_journal_waiter waiter;
	int r;
	unsigned times;
};

static void tell(struct ter_journal_waiter *waiter, int r)
{
	struct told *told = ter_container_of(waiter, struct told, waiter);

	told->r = r;
	told->times++;
}

static void halt_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 1, 16, 65536);
	struct told told = { .waiter.fn = tell }, durable = { .waiter.fn = tell }, late = { .waiter.fn = tell };
	struct ter_journal_res res;
	uint64_t seq;
	unsigned ops_nr;

	rig_start(rig, 1, NULL);
	assert_int_equal(rig_tx(rig, 1, 8, 0, false, &seq, NULL), 0);
	assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
	ter_journal_flush_async(rig->journal, seq, &durable.waiter);
	assert_int_equal(durable.times, 1); /* at once */
	assert_int_equal(durable.r, 0);

	assert_int_equal(ter_journal_reserve(rig->journal, 16, 0, &res), 0); /* holds the entry back */
	ter_journal_flush_async(rig->journal, res.seq, &told.waiter);
	assert_int_equal(told.times, 0);
	ops_nr = rig->dev[0].ops_nr;
	ter_journal_halt(rig->journal, -EROFS);
	assert_int_equal(told.times, 1);
	assert_int_equal(told.r, -EROFS);
	ter_journal_put(&res);
	assert_int_equal(ter_journal_error(rig->journal), -EROFS);
	assert_int_equal(ter_journal_reserve(rig->journal, 16, 0, &res), -EROFS);
	assert_int_equal(ter_journal_wait_space(rig->journal, 16, 0), -EROFS);
	assert_int_equal(ter_journal_flush(rig->journal, seq), -EROFS);
	ter_journal_flush_async(rig->journal, seq, &late.waiter);
	assert_int_equal(late.times, 1);
	assert_int_equal(late.r, -EROFS);
	assert_int_equal(ter_journal_reclaim_to(rig->journal, seq), -EROFS);
	ter_sleep_ns(exec, 3 * TER_NS_PER_S); /* of the scheduler's time */
	assert_int_equal(rig->dev[0].ops_nr, ops_nr);
	assert_int_equal(ter_journal_stop(rig->journal, &seq), -EROFS);
	assert_int_equal(atomic_load(&rig->errors), 0); /* who halts knows */
	rig_free_journal(rig);
	rig_free(rig);
}

static void a_halted_journal_tells_everybody_and_writes_nothing(void **state)
{
	uint64_t seed = rig_seed();

	for (unsigned i = 0; i < 5; i++)
		rig_run(true, seed + i, halt_main, NULL);
}

static void required_main(struct ter_exec *exec, void *arg)
{
	unsigned required = *(unsigned *)arg;
	struct rig *rig = rig_new(exec, 3, 16, 65536);
	struct told told = { .waiter.fn = tell };
	uint64_t seq;

	rig->sb->options.metadata_replicas = 2;
	rig->sb->options.data_replicas = 2;
	rig->sb->options.metadata_replicas_required = (uint8_t)required;
	rig_start(rig, 1, NULL);

	/* One of three fails writes: another takes its place, nobody notices but the counter. */
	atomic_store(&rig->dev[0].fail_writes, true);
	assert_int_equal(rig_tx(rig, 1, 8, 0, false, &seq, NULL), 0);
	assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
	assert_int_equal(atomic_load(&rig->members->dev[0].errors[TER_DEV_ERR_WRITE]), 1);
	assert_int_equal(atomic_load(&rig->dev[1].writes), 1);
	assert_int_equal(atomic_load(&rig->dev[2].writes), 1);
	assert_int_equal(atomic_load(&rig->degraded), 0);

	/* Two of three: one copy is left. */
	atomic_store(&rig->dev[1].fail_writes, true);
	assert_int_equal(rig_tx(rig, 2, 8, 0, false, &seq, NULL), 0);
	ter_journal_flush_async(rig->journal, seq, &told.waiter);
	assert_int_equal(ter_journal_flush(rig->journal, seq), required == 2 ? -EIO : 0);
	if (required == 2) {
		assert_int_equal(ter_journal_durable_seq(rig->journal), seq - 1);
	} else {
		/* All three: none is left, whatever is required. */
		atomic_store(&rig->dev[2].fail_writes, true);
		assert_int_equal(rig_tx(rig, 3, 8, 0, false, &seq, NULL), 0);
		assert_int_equal(ter_journal_flush(rig->journal, seq), -EIO);
	}
	rig_free_journal(rig); /* whoever has to be told was told now */
	assert_int_equal(told.times, 1);
	assert_int_equal(told.r, required == 2 ? -EIO : 0);
	assert_int_equal(atomic_load(&rig->degraded), required == 2 ? 0 : 1);
	assert_int_equal(atomic_load(&rig->errors), 1);
	rig_free(rig);
}

static void fewer_copies_than_required_stop_the_journal(void **state)
{
	uint64_t seed = rig_seed();

	for (unsigned required = 1; required <= 2; required++)
		for (unsigned i = 0; i < 5; i++)
			rig_run(true, seed + i, required_main, &required);
}

static void flush_fails_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 1, 16, 65536);
	uint64_t seq;

	rig_start(rig, 1, NULL);
	atomic_store(&rig->dev[0].fail_flushes, true);
	assert_int_equal(rig_tx(rig, 1, 8, 0, false, &seq, NULL), 0);
	assert_int_equal(ter_journal_flush(rig->journal, seq), -EIO);
	assert_int_equal(ter_journal_durable_seq(rig->journal), 0);
	assert_int_equal(atomic_load(&rig->members->dev[0].errors[TER_DEV_ERR_FLUSH]), 1);
	rig_free_journal(rig);
	rig_free(rig);
}

/* Data that an entry speaks of may be lost with a failed flush of its member, wherever the entry itself goes. */
static void data_flush_fails_main(struct ter_exec *exec, void *arg)
{
	unsigned replicas = *(unsigned *)arg;
	struct rig *rig = rig_new(exec, 3, 16, 65536);
	_cleanup_free_ void *buf = aligned_alloc(4096, 4096);
	uint64_t seq;

	rig->sb->options.metadata_replicas = rig->sb->options.data_replicas = (uint8_t)replicas;
	rig_start(rig, 1, NULL);
	memset(buf, 1, 4096);
	assert_int_equal(ter_dev_write(&rig->members->dev[2], 0, buf, 4096, 0), 0);
	atomic_store(&rig->dev[2].fail_flushes, true);
	assert_int_equal(rig_tx(rig, 1, 8, 0, false, &seq, NULL), 0);
	assert_int_equal(ter_journal_flush(rig->journal, seq), replicas == 1 ? -EIO : 0);
	assert_int_equal(atomic_load(&rig->dev[2].writes), 1); /* and no entry goes there */
	rig_free_journal(rig);
	rig_free(rig);
}

static void a_failed_flush_acknowledges_nothing(void **state)
{
	uint64_t seed = rig_seed();

	rig_run(true, seed, flush_fails_main, NULL);
	for (unsigned replicas = 1; replicas <= 2; replicas++)
		rig_run(true, seed, data_flush_fails_main, &replicas);
}

static void data_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 3, 16, 65536);
	struct ter_journal_res res;
	uint64_t seq;
	unsigned writes = 0;

	rig->sb->options.data_replicas = 3;
	rig_start(rig, 1, NULL);
	assert_int_equal(rig_tx(rig, 1, 8, 0, false, &seq, NULL), 0);
	assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
	for (unsigned i = 0; i < 3; i++)
		writes += atomic_load(&rig->dev[i].writes);
	assert_int_equal(writes, 1);
	assert_int_equal(ter_journal_reserve(rig->journal, ter_jrec_bytes(ter_jrec_data_bytes(5)), 0, &res), 0);
	memcpy(ter_jrec_data_encode(9, 4096, 5, ter_journal_add(&res, TER_JREC_DATA, 0, 0, ter_jrec_data_bytes(5))), "hello", 5);
	ter_journal_mark_data(&res);
	seq = res.seq;
	ter_journal_put(&res);
	assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
	for (unsigned i = 0; i < 3; i++)
		writes += atomic_load(&rig->dev[i].writes);
	assert_int_equal(writes, 1 + 1 + 3);

	assert_int_equal(ter_journal_reserve(rig->journal, 65536, 0, &res), -E2BIG);
	assert_int_equal(ter_journal_reserve(rig->journal, UINT32_MAX, 0, &res), -E2BIG);
	rig_free_journal(rig);
	rig_free(rig);
}

static void entries_with_data_have_as_many_copies_as_data(void **state)
{
	rig_run(true, rig_seed(), data_main, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(concurrent_reservers_keep_their_order),
		cmocka_unit_test(a_clean_stop_says_where_each_ring_ends),
		cmocka_unit_test(many_fsyncs_share_few_flushes),
		cmocka_unit_test(an_idle_journal_writes_nothing_and_content_is_committed_in_time),
		cmocka_unit_test(the_ring_wraps_as_reclaim_frees_pins),
		cmocka_unit_test(pins_fill_half_and_reclaim_has_the_other),
		cmocka_unit_test(live_sequences_are_bounded),
		cmocka_unit_test(an_entry_has_the_roots_of_its_own_moment),
		cmocka_unit_test(a_halted_journal_tells_everybody_and_writes_nothing),
		cmocka_unit_test(fewer_copies_than_required_stop_the_journal),
		cmocka_unit_test(a_failed_flush_acknowledges_nothing),
		cmocka_unit_test(entries_with_data_have_as_many_copies_as_data),
	};

	setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failure may be on another task's stack */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
