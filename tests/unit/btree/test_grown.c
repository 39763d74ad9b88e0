/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes that got far bigger than one on disk, because those who free space kept on while none could be split: they are written all the same (T10). */
#include "btree_rig.h"

#define VAL_BYTES 1000
#define KEYS 1700 /* together more than 100 nodes */
#define OLD 200   /* each so manyth is on disk before, all in one node */

static void value_of(unsigned i, unsigned version, uint8_t val[VAL_BYTES])
{
	for (unsigned n = 0; n < VAL_BYTES; n++)
		val[n] = (uint8_t)(i * 7 + version * 31 + n);
}

/* Of those on disk before, one third each goes, stays as it is, and changes. */
static bool goes(unsigned i)
{
	return i % (OLD * 3) == 0;
}

static unsigned version_of(unsigned i)
{
	return i % (OLD * 3) != OLD;
}

static struct ter_pos pos_of(unsigned i)
{
	return TER_POS(i / 100, i % 100, 1);
}

static void put(struct btree_rig *rig, unsigned i, unsigned version)
{
	uint8_t val[VAL_BYTES];

	value_of(i, version, val);
	assert_int_equal(btree_rig_put(rig, TER_TRANS_RECLAIM, pos_of(i), val, sizeof(val), NULL), 0);
}

struct look {
	unsigned next;
};

static int look_at(void *arg, const struct ter_key *key)
{
	struct look *l = arg;
	uint8_t val[VAL_BYTES];

	l->next += goes(l->next);
	value_of(l->next, version_of(l->next), val);
	assert_int_equal(ter_pos_cmp(key->pos, pos_of(l->next)), 0);
	assert_int_equal(key->val_bytes, sizeof(val));
	assert_memory_equal(key->val, val, sizeof(val));
	l->next++;
	return 0;
}

static void check_keys(struct btree_rig *rig, unsigned nr)
{
	struct look l = { 0 };

	assert_int_equal(ter_btree_scan(rig->bt, RIG_KEY, TER_POS_MIN, TER_POS_MAX, 0, look_at, &l, NULL), 0);
	assert_int_equal(l.next, nr);
	(void)btree_rig_check(rig);
}

/* A leaf that is on disk gets @nr keys while there is no space for new nodes. */
static void grow(struct btree_rig *rig, unsigned nr)
{
	for (unsigned i = 0; i < nr; i += OLD)
		put(rig, i, 0);
	assert_true(ter_btrees_flush(rig->bt) > 0);
	atomic_store(&rig->fail_alloc, ENOSPC);
	for (unsigned i = 0; i < nr; i++)
		if (goes(i))
			assert_int_equal(btree_rig_del(rig, TER_TRANS_RECLAIM, pos_of(i), NULL), 0);
		else if (version_of(i))
			put(rig, i, 1);
}

static int flush_all(struct btree_rig *rig)
{
	int r;

	for (unsigned i = 0, clean = 0; clean < 2; i++) {
		r = ter_btrees_flush(rig->bt);
		if (r < 0)
			return r;
		assert_true(i < 100);
		clean = r ? 0 : clean + 1;
	}
	return 0;
}

static void run_grown(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = btree_rig_tiny;
	struct btree_rig *rig;
	uint64_t seq;

	config.journal_buckets = 200;
	config.no_tasks = *(bool *)arg;
	rig = btree_rig_new(exec, 1, &config);
	assert_int_equal(btree_rig_open(rig, true), 0);
	grow(rig, KEYS);
	assert_int_equal(flush_all(rig), -ENOSPC);
	/* Faults between the steps: some succeed, the next has no space or cannot be written. */
	rig->fail_alloc_after = 50;
	assert_int_equal(flush_all(rig), -ENOSPC);
	check_keys(rig, KEYS);
	/* What is left to be cut is in the journal alone, and an entry written now says that the old ones are needed. */
	put(rig, 1, 1);
	assert_int_equal(ter_journal_flush(rig->journal, ter_journal_open_seq(rig->journal)), 0);
	btree_rig_crash(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	check_keys(rig, KEYS);
	seq = ter_journal_open_seq(rig->journal);
	atomic_store(&rig->fail_alloc, 0);
	assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
	assert_int_equal(ter_sim_fail(rig->sim, btree_rig_path(0), TER_BIO_WRITE, 25, false), 0);
	assert_int_equal(flush_all(rig), -EIO);
	ter_sim_fail_none(rig->sim);
	check_keys(rig, KEYS);
	/* Going read-only, then a clean stop. */
	assert_int_equal(flush_all(rig), 0);
	if (!config.no_tasks)
		assert_int_equal(ter_journal_reclaim_to(rig->journal, seq), 0);
	btree_rig_close(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	check_keys(rig, KEYS);
	btree_rig_close(rig);
	btree_rig_free(rig);
}

static void a_leaf_of_a_hundred_nodes_is_written_in_steps(void **state)
{
	bool no_tasks = true;

	btree_rig_run(true, btree_rig_seed(), run_grown, &no_tasks);
}

static void the_same_beside_tasks(void **state)
{
	bool no_tasks = false;

	btree_rig_run(true, btree_rig_seed(), run_grown, &no_tasks);
}

static int count_level_1(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	*(unsigned *)arg += level == 1;
	return 0;
}

/*
 * The flush writes leaves before it comes to their parents, and there are no tasks: what splits the parent in the meantime is only that it must not get too big.
 * 3 pointers a node: with 120 bytes a child, 64 KiB of them (T5) are 546.
 */
static void run_parent(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = btree_rig_tiny;
	unsigned level_1 = 0;
	struct btree_rig *rig;

	config.devs = config.replicas = 3;
	config.journal_buckets = 500;
	config.slots = 3000;
	config.no_tasks = true;
	rig = btree_rig_new(exec, 1, &config);
	assert_int_equal(btree_rig_open(rig, true), 0);
	grow(rig, 6000);
	rig->fail_alloc_after = 700;
	assert_int_equal(flush_all(rig), -ENOSPC);
	assert_int_equal(ter_btree_walk_nodes(rig->bt, RIG_KEY, count_level_1, &level_1), 0);
	assert_true(level_1 > 1);
	check_keys(rig, 6000);
	atomic_store(&rig->fail_alloc, 0);
	btree_rig_close(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	check_keys(rig, 6000);
	btree_rig_close(rig);
	btree_rig_free(rig);
}

static void a_parent_is_split_before_it_gets_too_big_itself(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_parent, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_leaf_of_a_hundred_nodes_is_written_in_steps),
		cmocka_unit_test(the_same_beside_tasks),
		cmocka_unit_test(a_parent_is_split_before_it_gets_too_big_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
