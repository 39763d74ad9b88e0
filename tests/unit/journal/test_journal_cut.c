/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts: at any moment what is read back is a prefix of what was done, it includes all that was acknowledged, and nothing that was pinned is missing from it.
 */
#include "journal_rig.h"

#define TXS_MAX 4096
#define TASKS 3

struct tx {
	uint64_t seq, id;
	uint32_t offset;
	uint64_t pinned_tick, unpinned_tick; /* unpinned 0: to the end */
};
struct ack {
	uint64_t seq, tick;
};
struct model {
	struct rig *rig;
	struct ter_lock lock;
	struct tx tx[TXS_MAX];
	unsigned txs_nr;
	struct ack ack[TXS_MAX];
	unsigned acks_nr;
	unsigned unpinned; /* of tx[], in order */
	uint64_t seed;
	uint64_t first_id;
};

static void do_txs(struct model *model, unsigned nr, uint64_t *seed)
{
	for (unsigned i = 0; i < nr; i++) {
		struct tx tx = { 0 };
		uint32_t bytes = 8 + (uint32_t)(rig_random(seed) % 1500);

		ter_lock_acquire(&model->lock);
		tx.id = model->first_id++;
		ter_lock_release(&model->lock);
		tx.pinned_tick = rig_tick(model->rig) + 1; /* at the latest; a pin cannot be older than this */
		assert_int_equal(rig_tx(model->rig, tx.id, bytes, 0, true, &tx.seq, &tx.offset), 0);
		tx.pinned_tick = rig_tick(model->rig) + 1;
		ter_lock_acquire(&model->lock);
		assert_true(model->txs_nr < TXS_MAX);
		model->tx[model->txs_nr++] = tx;
		ter_lock_release(&model->lock);
		if (rig_random(seed) % 4 == 0) {
			assert_int_equal(ter_journal_flush(model->rig->journal, tx.seq), 0);
			ter_lock_acquire(&model->lock);
			model->ack[model->acks_nr++] = (struct ack){ tx.seq, rig_tick(model->rig) };
			ter_lock_release(&model->lock);
		}
	}
}

static void cut_task(void *arg)
{
	struct model *model = arg;
	uint64_t seed;

	ter_lock_acquire(&model->lock);
	seed = model->seed++;
	ter_lock_release(&model->lock);
	do_txs(model, 60, &seed);
}

/* Drops pins of durable sequences only, as a node written under the WAL rule. */
static int drop_pins(void *arg, uint64_t seq)
{
	struct model *model = arg;

	for (;;) {
		struct tx *tx = NULL;

		ter_lock_acquire(&model->lock);
		for (unsigned i = 0; i < model->txs_nr; i++)
			if (model->tx[i].seq <= seq && !model->tx[i].unpinned_tick) {
				tx = &model->tx[i];
				break;
			}
		ter_lock_release(&model->lock);
		if (!tx)
			return 0;
		tx->unpinned_tick = rig_tick(model->rig);
		ter_journal_unpin(model->rig->journal, tx->seq);
	}
}

static int tx_order(const void *a, const void *b)
{
	const struct tx *x = a, *y = b;

	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	return x->offset < y->offset ? -1 : 1;
}

/* @model->tx is sorted. Entries of the replay are the model's, whole and in order. */
static void check_entries(const struct model *model, const struct ter_journal_replay *replay, uint64_t from_seq)
{
	unsigned t = 0;

	for (unsigned i = 0; i < replay->nr; i++) {
		const struct ter_journal_entry *entry = &replay->entry[i];
		struct ter_jrec rec;
		uint32_t pos = 0;

		if (entry->seq < from_seq)
			continue;
		while (t < model->txs_nr && model->tx[t].seq < entry->seq)
			t++;
		while (ter_jrec_next(entry, &pos, &rec)) {
			if (rec.type != TER_JREC_LOG)
				continue;
			assert_true(t < model->txs_nr && model->tx[t].seq == entry->seq);
			assert_int_equal(rig_tx_id(&rec), model->tx[t].id);
			t++;
		}
		assert_true(t == model->txs_nr || model->tx[t].seq > entry->seq);
	}
}

static void check_cut(struct model *model, uint64_t tick, uint64_t seed)
{
	struct ter_journal_replay *replay;
	struct ter_error error = { 0 };
	uint8_t *saved[RIG_DEVS_MAX];
	uint64_t newest, last_seq;

	rig_cut_try(model->rig, tick, seed, saved);
	if (rig_read(model->rig, &replay, &error) < 0)
		fail_msg("cut at %llu: %s", (unsigned long long)tick, error.text);
	newest = replay->nr ? replay->entry[replay->nr - 1].seq : 0;
	last_seq = replay->nr ? replay->entry[0].seq : 1;
	for (unsigned i = 0; i < model->acks_nr; i++)
		if (model->ack[i].tick <= tick)
			assert_true(newest >= model->ack[i].seq);
	for (unsigned i = 0; i < model->txs_nr; i++)
		if (model->tx[i].seq <= newest && (!model->tx[i].unpinned_tick || model->tx[i].unpinned_tick > tick))
			assert_true(last_seq <= model->tx[i].seq);
	check_entries(model, replay, 0);
	assert_true(replay->next_seq > newest);
	assert_int_equal(replay->blacklist_first, newest + 1);
	assert_int_equal(replay->blacklist_last, replay->next_seq - 1);
	ter_journal_replay_free(replay);
	rig_uncut(model->rig, saved);
}

static struct model *model_new(struct rig *rig, uint64_t seed)
{
	struct model *model = calloc(1, sizeof(*model));

	model->rig = rig;
	model->seed = seed;
	model->first_id = 1;
	ter_lock_init(&model->lock, TER_RANK_DIRTY_POOL);
	return model;
}

static void model_free(struct model *model)
{
	ter_lock_destroy(&model->lock);
	free(model);
}

static void run_txs(struct model *model)
{
	struct ter_exec *exec = model->rig->exec;
	struct ter_task *task[TASKS];

	for (unsigned i = 0; i < TASKS; i++)
		assert_int_equal(exec->ops->spawn(exec, "cut", cut_task, model, &task[i]), 0);
	for (unsigned i = 0; i < TASKS; i++)
		exec->ops->join(exec, task[i]);
}

/* @replicas of 2 members; the ring is small, so it wraps in between. */
static void cut_main(struct ter_exec *exec, void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	struct rig *rig = rig_new(exec, 2, 8, 16384);
	struct model *model = model_new(rig, seed);

	rig->sb->options.metadata_replicas = (uint8_t)(1 + seed % 2);
	rig->sb->options.block_size = 512;
	rig->roots = true;
	rig_start(rig, 1, NULL);
	assert_int_equal(ter_journal_register_reclaimer(rig->journal, "model", drop_pins, model), 0);
	run_txs(model);
	rig_free_journal(rig);
	qsort(model->tx, model->txs_nr, sizeof(model->tx[0]), tx_order);
	for (uint64_t tick = 0; tick <= rig_tick(rig); tick++)
		check_cut(model, tick, seed * 1000 + tick);
	model_free(model);
	rig_free(rig);
}

static void any_cut_leaves_a_prefix_with_all_that_was_acknowledged(void **state)
{
	uint64_t seed = rig_seed();

	for (unsigned i = 0; i < 6; i++, seed++)
		rig_run(true, seed, cut_main, &seed);
}

/* --- several lives: recover, go on, be cut again; blacklisted sequences never come back --- */

static void go_on(struct rig *rig, struct model *model, uint64_t cut_at, uint64_t seed)
{
	struct ter_journal_replay *replay;
	struct ter_error error = { 0 };
	uint64_t cut_seq, old_last;

	rig_cut(rig, cut_at, seed);
	if (rig_read(rig, &replay, &error) < 0)
		fail_msg("%s", error.text);
	cut_seq = replay->nr ? replay->entry[replay->nr - 1].seq : 0;
	old_last = replay->nr ? replay->entry[0].seq : 0;
	check_entries(model, replay, 0);
	if (replay->blacklist_first <= replay->blacklist_last) {
		assert_true(rig->sb->blacklist_nr < TER_BLACKLIST_MAX);
		rig->sb->blacklist[rig->sb->blacklist_nr].first = replay->blacklist_first;
		rig->sb->blacklist[rig->sb->blacklist_nr++].last = replay->blacklist_last;
	}
	/* The model forgets what the cut took, and which pins there were: those of a new life are on what was replayed. */
	for (unsigned i = 0; i < model->txs_nr;)
		if (model->tx[i].seq > cut_seq || model->tx[i].seq < old_last)
			model->tx[i] = model->tx[--model->txs_nr];
		else
			model->tx[i++].unpinned_tick = 0;
	model->acks_nr = 0;
	qsort(model->tx, model->txs_nr, sizeof(model->tx[0]), tx_order);
	rig_start(rig, replay->next_seq, replay);
	for (unsigned i = 0; i < model->txs_nr; i++)
		ter_journal_pin(rig->journal, model->tx[i].seq);
	ter_journal_replay_done(rig->journal);
	ter_journal_replay_free(replay);
	assert_int_equal(ter_journal_register_reclaimer(rig->journal, "model", drop_pins, model), 0);
	run_txs(model);
	rig_free_journal(rig);
	qsort(model->tx, model->txs_nr, sizeof(model->tx[0]), tx_order);
}

static void lives_main(struct ter_exec *exec, void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	struct rig *rig = rig_new(exec, 2, 8, 16384);
	struct model *model = model_new(rig, seed);
	uint64_t start = 0;

	rig->sb->options.metadata_replicas = (uint8_t)(1 + seed % 2);
	rig->sb->options.block_size = 512;
	rig->roots = seed % 3;
	rig_start(rig, 1, NULL);
	assert_int_equal(ter_journal_register_reclaimer(rig->journal, "model", drop_pins, model), 0);
	run_txs(model);
	rig_free_journal(rig);
	qsort(model->tx, model->txs_nr, sizeof(model->tx[0]), tx_order);
	for (unsigned life = 0; life < 8; life++) {
		uint64_t now = rig_tick(rig), at = start + (now - start) * (rig_random(&seed) % 100) / 100;

		start = now;
		go_on(rig, model, at, seed);
		for (uint64_t tick = start; tick <= rig_tick(rig); tick += 7)
			check_cut(model, tick, seed + tick);
	}
	model_free(model);
	rig_free(rig);
}

static void cut_pools_recover_again_and_again(void **state)
{
	uint64_t seed = rig_seed();

	for (unsigned i = 0; i < 6; i++, seed++)
		rig_run(true, seed, lives_main, &seed);
}

/* --- a clean stop, a start, and a cut before anything new is durable --- */

static void clean_main(struct ter_exec *exec, void *arg)
{
	uint64_t seed = *(uint64_t *)arg, stopped, seq, start;
	struct rig *rig = rig_new(exec, 1, 8, 16384);

	rig->sb->options.block_size = 512;
	rig_start(rig, 1, NULL);
	for (unsigned i = 0; i < 10 + seed % 60; i++)
		assert_int_equal(rig_tx(rig, i, 1000, 0, false, &seq, NULL), 0);
	assert_int_equal(ter_journal_stop(rig->journal, &stopped), 0);
	rig_free_journal(rig);
	rig->sb->journal_seq_clean = stopped;
	start = rig_tick(rig);
	rig_start(rig, stopped + 1, NULL);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(rig_tx(rig, i, 1000, 0, false, &seq, NULL), 0);
	assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
	rig_free_journal(rig);
	for (uint64_t tick = start; tick <= rig_tick(rig); tick++) {
		struct ter_journal_replay *replay;
		struct ter_error error = { 0 };
		uint8_t *saved[RIG_DEVS_MAX];

		rig_cut_try(rig, tick, seed + tick, saved);
		if (rig_read(rig, &replay, &error) < 0)
			fail_msg("%s", error.text);
		assert_true(replay->nr && replay->entry[replay->nr - 1].seq >= stopped);
		ter_journal_replay_free(replay);
		rig_uncut(rig, saved);
	}
	rig_free(rig);
}

static void a_clean_start_keeps_the_last_entry_until_a_new_one_is_durable(void **state)
{
	uint64_t seed = rig_seed();

	for (unsigned i = 0; i < 20; i++, seed += 3)
		rig_run(true, seed, clean_main, &seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_cut_leaves_a_prefix_with_all_that_was_acknowledged),
		cmocka_unit_test(cut_pools_recover_again_and_again),
		cmocka_unit_test(a_clean_start_keeps_the_last_entry_until_a_new_one_is_durable),
	};

	setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failure may be on another task's stack */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
