/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* J8: on the smallest ring work with RECLAIM, of more tasks than the reserve is for, does not stand in the way of reclaim. */
#include "journal/journal_priv.h"
#include "journal_rig.h"

#include <unistd.h>

#define TASKS 8
#define ROUNDS 12
#define TX_BYTES 12000
#define WORK_TXS 3
#define ITEMS_MAX (TASKS * ROUNDS * (WORK_TXS + 1) + 16)

/* Dirty things with a pin each, as segments and nodes are: somebody takes one, commits with RECLAIM what makes it clean, and drops its pin. */
struct items {
	struct rig *rig;
	struct ter_lock lock;
	struct ter_waitq wq;
	unsigned nr;
	struct {
		uint64_t seq; /* 0: clean */
		bool taken;
	} item[ITEMS_MAX];
	unsigned at_work, most_at_work;
};

static void item_add(struct items *items, uint64_t seq)
{
	ter_lock_acquire(&items->lock);
	assert_true(items->nr < ITEMS_MAX);
	items->item[items->nr++].seq = seq;
	ter_lock_release(&items->lock);
}

/* The first dirty one up to @seq. -1: none; *ret_taken: it is another's, who will be done. */
static int item_find(struct items *items, uint64_t seq, bool *ret_taken)
{
	*ret_taken = false;
	for (unsigned i = 0; i < items->nr; i++)
		if (items->item[i].seq && items->item[i].seq <= seq) {
			if (!items->item[i].taken) {
				*ret_taken = false;
				return (int)i;
			}
			*ret_taken = true;
		}
	return -1;
}

static void item_clean(struct items *items, int i)
{
	ter_journal_unpin(items->rig->journal, items->item[i].seq);
	ter_lock_acquire(&items->lock);
	items->item[i].seq = 0;
	ter_waitq_wake_all(&items->wq);
	ter_lock_release(&items->lock);
}

static int reclaim_items(void *arg, uint64_t seq)
{
	struct items *items = arg;
	uint64_t tx_seq;
	bool taken;
	int i;

	for (;;) {
		ter_lock_acquire(&items->lock);
		while ((i = item_find(items, seq, &taken)) < 0 && taken)
			ter_waitq_wait(&items->wq, &items->lock);
		if (i >= 0)
			items->item[i].taken = true;
		ter_lock_release(&items->lock);
		if (i < 0)
			return 0;
		assert_int_equal(rig_tx(items->rig, 1, 1000, TER_JOURNAL_RECLAIM, false, &tx_seq, NULL), 0);
		item_clean(items, i);
	}
}

static void work_once(struct items *items, uint64_t id)
{
	struct rig *rig = items->rig;
	uint64_t seq;
	bool taken;
	int i;

	ter_journal_begin_work(rig->journal);
	ter_lock_acquire(&items->lock);
	items->most_at_work = ter_max(items->most_at_work, ++items->at_work);
	i = item_find(items, UINT64_MAX, &taken);
	if (i >= 0)
		items->item[i].taken = true;
	ter_lock_release(&items->lock);
	for (unsigned n = 0; n < WORK_TXS && i >= 0; n++) {
		assert_int_equal(rig_tx(rig, id, TX_BYTES, TER_JOURNAL_RECLAIM, true, &seq, NULL), 0);
		item_add(items, seq); /* it dirties others */
		assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
	}
	if (i >= 0)
		item_clean(items, i);
	ter_lock_acquire(&items->lock);
	items->at_work--;
	ter_lock_release(&items->lock);
	ter_journal_end_work(rig->journal);
}

static void work_task(void *arg)
{
	struct items *items = arg;
	uint64_t seq;

	for (unsigned i = 0; i < ROUNDS; i++) {
		assert_int_equal(rig_tx(items->rig, i, TX_BYTES, 0, true, &seq, NULL), 0);
		item_add(items, seq);
		work_once(items, i);
	}
}

static void small_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 2, *(unsigned *)arg, TER_KIB(64));
	struct items *items = calloc(1, sizeof(*items));
	struct ter_task *task[TASKS];
	uint64_t last;

	assert_non_null(items);
	rig->roots = true;
	rig->sb->options.metadata_replicas = 2;
	rig_start(rig, 1, NULL);
	items->rig = rig;
	ter_lock_init(&items->lock, TER_RANK_LEAF);
	ter_waitq_init(&items->wq);
	assert_int_equal(ter_journal_register_reclaimer(rig->journal, "items", reclaim_items, items), 0);
	for (unsigned i = 0; i < TASKS; i++)
		assert_int_equal(exec->ops->spawn(exec, "work", work_task, items, &task[i]), 0);
	for (unsigned i = 0; i < TASKS; i++)
		exec->ops->join(exec, task[i]);
	if (ter_journal_is_small(rig->journal))
		assert_int_equal(items->most_at_work, 1);
	else
		assert_true(items->most_at_work > 1); /* no turns where there is room */
	assert_int_equal(ter_journal_reclaim_to(rig->journal, UINT64_MAX), 0);
	assert_int_equal(ter_journal_stop(rig->journal, &last), 0);
	assert_int_equal(atomic_load(&rig->errors), 0);
	rig_free_journal(rig);
	ter_waitq_destroy(&items->wq);
	ter_lock_destroy(&items->lock);
	free(items);
	rig_free(rig);
}

static void run_with(unsigned buckets)
{
	const uint64_t seed = rig_seed();

	alarm(120);
	for (unsigned i = 0; i < 10; i++)
		rig_run(true, seed + i, small_main, &buckets);
	alarm(0);
}

static void the_smallest_ring_goes_on(void **state)
{
	run_with(TER_JOURNAL_BUCKETS_MIN);
}

static void a_ring_of_normal_size_knows_no_turns(void **state)
{
	run_with(2 * TER_JOURNAL_BUCKETS_SMALL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_smallest_ring_goes_on),
		cmocka_unit_test(a_ring_of_normal_size_knows_no_turns),
	};

	setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failure may be on another task's stack */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
