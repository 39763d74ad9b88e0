/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Many tasks at once: no update is lost, whatever splits and is evicted meanwhile; and calls that must not wait do not. */
#include "btree_rig.h"

#define TASKS 5
#define COUNTERS 40

struct shared {
	struct btree_rig *rig;
	unsigned rounds;
	_Atomic unsigned again, ended;
	uint64_t seed;
};
struct worker {
	struct shared *s;
	unsigned nr;
	uint64_t seed;
	struct ter_task *task;
};

/* --- conflicting increments --- */

static struct ter_pos counter_pos(unsigned i)
{
	return TER_POS(i * 7, 0, 0);
}

struct inc {
	struct worker *w;
	unsigned a, b;
	uint64_t filler;
};

static int add_one(struct ter_trans *trans, enum ter_btree_id btree, unsigned i)
{
	struct ter_pos pos = counter_pos(i);
	struct ter_key old, key;
	uint64_t val = 0;
	int r;

	r = ter_trans_get(trans, btree, pos, &old);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0)
		memcpy(&val, old.val, sizeof(val));
	val++;
	key = (struct ter_key){ .type = TER_KEY_XATTR, .val = &val, .val_bytes = sizeof(val) };
	return ter_trans_update(trans, btree, pos, r == 0 ? &old : TER_KEY_ABSENT, &key);
}

static int increment(struct ter_trans *trans, void *arg)
{
	struct inc *inc = arg;
	uint8_t junk[200] = { 0 };
	struct ter_key filler = { .type = TER_KEY_XATTR, .val = junk, .val_bytes = sizeof(junk) };
	struct ter_pos pos = TER_POS(inc->filler % 300, 1 + inc->filler % 50, inc->w->nr);
	int64_t deltas[2] = { 1, -1 };
	int r;

	r = add_one(trans, TER_BTREE_INODES, inc->a);
	if (r == 0)
		r = add_one(trans, RIG_KEY, inc->b);
	if (r == 0)
		r = ter_trans_add(trans, TER_POS(50 + inc->a % 3, 0, 0), deltas, 2);
	/* Makes leaves split and merge around the counters. */
	if (r == 0)
		r = ter_trans_update(trans, RIG_KEY, pos, TER_KEY_ANY, inc->filler % 3 ? &filler : NULL);
	return r;
}

static void worker_task(void *arg)
{
	struct worker *w = arg;
	struct shared *s = w->s;
	int r;

	for (unsigned i = 0; i < s->rounds; i++) {
		struct inc inc = { .w = w };
		unsigned flags = w->nr % 2 ? TER_TRANS_NOWAIT : 0;

		inc.a = (unsigned)(btree_rig_random(&w->seed) % COUNTERS);
		inc.b = (unsigned)(btree_rig_random(&w->seed) % COUNTERS);
		inc.filler = btree_rig_random(&w->seed);
		for (;;) {
			r = ter_trans_run(s->rig->bt, flags, increment, &inc, NULL);
			if (r != -EAGAIN && r != -EBUSY)
				break;
			atomic_fetch_add(&s->again, 1);
			ter_sleep_ns(s->rig->exec, 100000);
		}
		if (r)
			fail_msg("transaction: %d", r);
	}
	atomic_fetch_add(&s->ended, 1);
}

static int sum_up(void *arg, const struct ter_key *key)
{
	uint64_t val;

	if (key->pos.offset == 0) {
		memcpy(&val, key->val, sizeof(val));
		*(uint64_t *)arg += val;
	}
	return 0;
}

struct totals {
	int64_t up, down;
};

static int sum_counters(void *arg, const struct ter_key *key)
{
	struct totals *t = arg;
	ter_le64 val[2];

	if (key->pos.inode < 50)
		return 0;
	assert_int_equal(key->val_bytes, 16);
	memcpy(val, key->val, 16);
	t->up += (int64_t)ter_le64_get(val[0]);
	t->down += (int64_t)ter_le64_get(val[1]);
	return 0;
}

static void check_sums(struct btree_rig *rig, uint64_t want)
{
	uint64_t sum_a = 0, sum_b = 0;
	struct totals t = { 0 };

	assert_int_equal(ter_btree_scan(rig->bt, TER_BTREE_INODES, TER_POS_MIN, TER_POS_MAX, 0, sum_up, &sum_a, NULL), 0);
	assert_int_equal(ter_btree_scan(rig->bt, RIG_KEY, TER_POS_MIN, TER_POS_MAX, 0, sum_up, &sum_b, NULL), 0);
	assert_int_equal(ter_btree_scan(rig->bt, TER_BTREE_ACCOUNTING, TER_POS_MIN, TER_POS_MAX, 0, sum_counters, &t, NULL), 0);
	assert_true(sum_a == want && sum_b == want);
	assert_true(t.up == (int64_t)want && t.down == -(int64_t)want);
	(void)btree_rig_check(rig);
}

static void run_increments(struct ter_exec *exec, void *arg)
{
	struct shared *s = arg;
	struct btree_rig_config config = btree_rig_tiny;
	struct worker w[TASKS];
	uint64_t before;

	config.cache_bytes = 150 << 10;
	s->rig = btree_rig_new(exec, s->seed, &config);
	atomic_store(&s->ended, 0);
	assert_int_equal(btree_rig_open(s->rig, true), 0);
	before = (uint64_t)s->rig->nodes_seen;
	assert_true(before == 0);
	for (unsigned i = 0; i < TASKS; i++) {
		w[i] = (struct worker){ .s = s, .nr = i, .seed = s->seed + i };
		assert_int_equal(exec->ops->spawn(exec, "worker", worker_task, &w[i], &w[i].task), 0);
	}
	for (unsigned i = 0; i < TASKS; i++)
		exec->ops->join(exec, w[i].task);
	assert_int_equal(s->ended, TASKS);
	check_sums(s->rig, (uint64_t)TASKS * s->rounds);
	assert_int_equal(s->rig->errors, 0);
	btree_rig_close(s->rig);
	assert_int_equal(btree_rig_open(s->rig, false), 0);
	check_sums(s->rig, (uint64_t)TASKS * s->rounds);
	btree_rig_close(s->rig);
	btree_rig_free(s->rig);
}

static void no_increment_is_lost_under_threads(void **state)
{
	struct shared s = { .seed = btree_rig_seed(), .rounds = 1500 };

	btree_rig_run(false, s.seed, run_increments, &s);
}

static void no_increment_is_lost_under_many_seeds(void **state)
{
	struct shared s = { .seed = btree_rig_seed(), .rounds = 120 };

	for (unsigned i = 0; i < 30; i++, s.seed++)
		btree_rig_run(true, s.seed, run_increments, &s);
	print_message("nowait came back %u times\n", s.again);
}

/* --- conflicts between what was read and what is there --- */

static void run_conflict(struct ter_exec *exec, void *arg)
{
	struct btree_rig *rig = btree_rig_new(exec, 1, &btree_rig_tiny);
	struct ter_pos pos = TER_POS(1, 1, 1), other = TER_POS(2, 2, 2);
	struct ter_key key = { .type = TER_KEY_XATTR, .val = "12345678", .val_bytes = 8 }, old;
	struct ter_trans trans;

	assert_int_equal(btree_rig_open(rig, true), 0);
	assert_int_equal(btree_rig_put(rig, 0, pos, "aaaaaaaa", 8, NULL), 0);
	ter_trans_init(&trans, rig->bt, 0);
	assert_int_equal(ter_trans_get(&trans, RIG_KEY, pos, &old), 0);
	assert_int_equal(ter_trans_update(&trans, RIG_KEY, pos, &old, &key), 0);
	assert_int_equal(ter_trans_update(&trans, RIG_KEY, other, TER_KEY_ABSENT, &key), 0);
	assert_int_equal(btree_rig_put(rig, 0, pos, "bbbbbbbb", 8, NULL), 0);
	assert_int_equal(ter_trans_commit(&trans), -ERESTART);
	ter_trans_reset(&trans);
	assert_int_equal(ter_trans_get(&trans, RIG_KEY, other, &old), -ENOENT);
	assert_int_equal(ter_trans_get(&trans, RIG_KEY, pos, &old), 0);
	assert_memory_equal(old.val, "bbbbbbbb", 8);
	/* There although it should not be; gone although it should be there. */
	assert_int_equal(ter_trans_update(&trans, RIG_KEY, pos, TER_KEY_ABSENT, &key), 0);
	assert_int_equal(ter_trans_commit(&trans), -ERESTART);
	ter_trans_reset(&trans);
	assert_int_equal(ter_trans_get(&trans, RIG_KEY, pos, &old), 0);
	assert_int_equal(ter_trans_update(&trans, RIG_KEY, pos, &old, NULL), 0);
	assert_int_equal(btree_rig_del(rig, 0, pos, NULL), 0);
	assert_int_equal(ter_trans_commit(&trans), -ERESTART);
	/* A key staged twice keeps the first old. */
	ter_trans_reset(&trans);
	assert_int_equal(ter_trans_update(&trans, RIG_KEY, pos, TER_KEY_ABSENT, &key), 0);
	assert_int_equal(ter_trans_get(&trans, RIG_KEY, pos, &old), 0);
	assert_int_equal(ter_trans_update(&trans, RIG_KEY, pos, &old, NULL), 0);
	assert_int_equal(ter_trans_get(&trans, RIG_KEY, pos, &old), -ENOENT);
	assert_int_equal(ter_trans_commit(&trans), 0);
	/* Too long for any node. */
	key.val_bytes = 15000;
	assert_int_equal(ter_trans_update(&trans, RIG_KEY, pos, TER_KEY_ANY, &key), -E2BIG);
	ter_trans_exit(&trans);
	btree_rig_close(rig);
	btree_rig_free(rig);
}

static void a_commit_compares_what_its_author_believed(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_conflict, NULL);
}

/* --- not waiting --- */

static void fill_keys(struct btree_rig *rig, unsigned nr)
{
	uint8_t val[200] = { 0 };

	for (unsigned i = 0; i < nr; i++) {
		memcpy(val, &i, sizeof(i));
		assert_int_equal(btree_rig_put(rig, 0, TER_POS(i, 0, 0), val, sizeof(val), NULL), 0);
	}
}

static void run_nowait_cold(struct ter_exec *exec, void *arg)
{
	struct btree_rig *rig = btree_rig_new(exec, 1, &btree_rig_tiny);
	struct ter_pos resume = TER_POS_MAX;
	struct ter_trans trans;
	struct ter_key key;
	unsigned tries;
	uint64_t count = 0;

	assert_int_equal(btree_rig_open(rig, true), 0);
	fill_keys(rig, 300);
	btree_rig_close(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	/* Devices hang: whoever waits for one now waits for ever, and the scheduler says so. */
	assert_int_equal(ter_sim_latency(rig->sim, btree_rig_path(0), UINT64_MAX), 0);
	ter_trans_init(&trans, rig->bt, TER_TRANS_NOWAIT);
	assert_int_equal(ter_trans_get(&trans, RIG_KEY, TER_POS(123, 0, 0), &key), -EAGAIN);
	assert_int_equal(ter_trans_next(&trans, RIG_KEY, TER_POS(1, 0, 0), TER_POS_MAX, &key), -EAGAIN);
	assert_int_equal(ter_btree_scan(rig->bt, RIG_KEY, TER_POS(5, 0, 0), TER_POS_MAX, TER_TRANS_NOWAIT, sum_up, &count, &resume), -EAGAIN);
	assert_int_equal(ter_pos_cmp(resume, TER_POS(5, 0, 0)), 0);
	assert_int_equal(btree_rig_put(rig, TER_TRANS_NOWAIT, TER_POS(123, 0, 0), "changed!", 8, NULL), -EAGAIN);
	ter_btree_prefetch(rig->bt, RIG_KEY, TER_POS_MIN, TER_POS_MAX);
	/* They answer again: what was asked for comes by itself. */
	assert_int_equal(ter_sim_latency(rig->sim, btree_rig_path(0), 0), 0);
	for (tries = 0; tries < 1000 && ter_trans_get(&trans, RIG_KEY, TER_POS(123, 0, 0), &key) == -EAGAIN; tries++)
		ter_sleep_ns(exec, 1000000);
	assert_true(tries > 0 && tries < 1000);
	assert_int_equal(ter_trans_get(&trans, RIG_KEY, TER_POS(123, 0, 0), &key), 0);
	assert_int_equal(key.val_bytes, 200); /* not what was refused */
	ter_trans_exit(&trans);
	btree_rig_close(rig);
	btree_rig_free(rig);
}

static void a_read_that_must_not_wait_has_the_node_brought(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_nowait_cold, NULL);
}

static void run_nowait_full(struct ter_exec *exec, void *arg)
{
	struct btree_rig *rig = btree_rig_new(exec, 1, &btree_rig_tiny);
	struct ter_pos pos = TER_POS(1, 0, 0);
	struct ter_trans trans;
	struct ter_key key;
	uint64_t i, got;
	uint8_t val[4000] = { 0 };
	int r = 0;

	assert_int_equal(btree_rig_open(rig, true), 0);
	assert_int_equal(btree_rig_put(rig, 0, pos, val, sizeof(val), NULL), 0);
	assert_int_equal(ter_sim_latency(rig->sim, btree_rig_path(0), UINT64_MAX), 0);
	for (i = 1; i < 100000; i++) {
		memcpy(val, &i, sizeof(i));
		r = btree_rig_put(rig, TER_TRANS_NOWAIT, pos, val, sizeof(val), NULL);
		if (r < 0)
			break;
	}
	assert_int_equal(r, -EAGAIN); /* the journal has no buffer left */
	ter_trans_init(&trans, rig->bt, TER_TRANS_NOWAIT);
	assert_int_equal(ter_trans_get(&trans, RIG_KEY, pos, &key), 0);
	memcpy(&got, key.val, sizeof(got));
	assert_true(got == i - 1);
	ter_trans_exit(&trans);
	assert_int_equal(ter_sim_latency(rig->sim, btree_rig_path(0), 0), 0);
	assert_int_equal(btree_rig_put(rig, 0, pos, val, sizeof(val), NULL), 0);
	btree_rig_close(rig);
	btree_rig_free(rig);
}

static void a_commit_that_must_not_wait_changes_nothing_when_the_journal_is_full(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_nowait_full, NULL);
}

/*
 * Another journal is asked to reclaim again, also where its memory is that of the one before: else nothing is ever written back for it, and its ring fills. The address
 * cannot be asked for; with a few tries it comes (not with a sanitizer, which keeps freed memory for long).
 */
static void run_renewed(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = btree_rig_tiny;
	uint8_t val[1000] = { 0 };
	const struct ter_journal *before;
	struct btree_rig *rig;
	bool same = false;

	config.journal_buckets = 8;
	rig = btree_rig_new(exec, 1, &config);
	assert_int_equal(btree_rig_open(rig, true), 0);
	for (unsigned i = 0; i < 20 && !same; i++) {
		before = rig->journal;
		btree_rig_renew_journal(rig);
		same = rig->journal == before;
	}
	print_message("the journal's memory is %s\n", same ? "that of the one before" : "another");
	for (unsigned i = 0; i < 1500; i++) /* three times the ring */
		assert_int_equal(btree_rig_put(rig, 0, TER_POS(i % 100, 0, 0), val, sizeof(val), NULL), 0);
	(void)btree_rig_check(rig);
	btree_rig_close(rig);
	btree_rig_free(rig);
}

static void a_new_journal_is_reclaimed_for_as_the_old_one_was(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_renewed, NULL);
}

/* --- T5 --- */

static void run_overflow(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = btree_rig_tiny;
	struct btree_rig *rig;
	uint8_t val[1000] = { 0 };
	unsigned i, hit = 0;
	int r;

	config.journal_buckets = 128;
	rig = btree_rig_new(exec, 1, &config);
	assert_int_equal(btree_rig_open(rig, true), 0);
	atomic_store(&rig->fail_alloc, ENOSPC);
	for (i = 0; i < 200; i++) { /* 16 KiB times 4 is 64 of these */
		r = btree_rig_put(rig, i % 2 ? TER_TRANS_NOWAIT : 0, TER_POS(i, 0, 0), val, sizeof(val), NULL);
		if (r < 0) {
			assert_int_equal(r, i % 2 ? -EAGAIN : -ENOSPC);
			hit++;
		}
	}
	assert_true(hit > 100 && hit < 150);
	assert_true(rig->errors > 0);
	/* Who frees space is let through. */
	assert_int_equal(btree_rig_put(rig, TER_TRANS_RECLAIM, TER_POS(5000, 0, 0), val, sizeof(val), NULL), 0);
	atomic_store(&rig->fail_alloc, 0);
	do /* a change that began before may still tell that there was no space */
		r = btree_rig_put(rig, 0, TER_POS(0, 0, 0), val, sizeof(val), NULL);
	while (r == -ENOSPC && i++ < 210);
	for (i = 0; i < 200; i++)
		assert_int_equal(btree_rig_put(rig, 0, TER_POS(i, 0, 0), val, sizeof(val), NULL), 0);
	(void)btree_rig_check(rig);
	btree_rig_close(rig);
	btree_rig_free(rig);
}

static void a_node_without_space_to_split_stops_its_committers_with_the_reason(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_overflow, NULL);
	btree_rig_run(false, btree_rig_seed(), run_overflow, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_commit_compares_what_its_author_believed),
		cmocka_unit_test(a_read_that_must_not_wait_has_the_node_brought),
		cmocka_unit_test(a_commit_that_must_not_wait_changes_nothing_when_the_journal_is_full),
		cmocka_unit_test(a_new_journal_is_reclaimed_for_as_the_old_one_was),
		cmocka_unit_test(a_node_without_space_to_split_stops_its_committers_with_the_reason),
		cmocka_unit_test(no_increment_is_lost_under_many_seeds),
		cmocka_unit_test(no_increment_is_lost_under_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
