/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Transactions against a model, with nodes and a cache so small that everything splits, merges and is read again all the time. */
#include "btree_rig.h"

#define INODES 3
#define OFFSETS 1200
#define VAL_MAX 300

struct model_key {
	uint32_t bytes; /* 0: not there */
	uint8_t val[VAL_MAX];
};
struct model {
	struct model_key key[INODES][OFFSETS];
	unsigned nr;
};

static struct model_key *model_at(struct model *m, struct ter_pos pos)
{
	return &m->key[pos.inode][pos.offset];
}

static struct ter_pos pos_of(unsigned idx)
{
	return TER_POS(idx / OFFSETS, idx % OFFSETS, 9);
}

/* --- comparing --- */

struct compare {
	struct model *m;
	unsigned next, seen;
};

static int compare_key(void *arg, const struct ter_key *key)
{
	struct compare *c = arg;

	while (c->next < INODES * OFFSETS && !model_at(c->m, pos_of(c->next))->bytes)
		c->next++;
	assert_true(c->next < INODES * OFFSETS);
	assert_int_equal(ter_pos_cmp(key->pos, pos_of(c->next)), 0);
	assert_int_equal(key->val_bytes, model_at(c->m, key->pos)->bytes);
	assert_memory_equal(key->val, model_at(c->m, key->pos)->val, key->val_bytes);
	c->next++;
	c->seen++;
	return 0;
}

static void check_all(struct btree_rig *rig, struct model *m)
{
	struct compare c = { .m = m };
	unsigned want = 0;

	for (unsigned i = 0; i < INODES * OFFSETS; i++)
		want += model_at(m, pos_of(i))->bytes != 0;
	assert_int_equal(ter_btree_scan(rig->bt, RIG_KEY, TER_POS_MIN, TER_POS_MAX, 0, compare_key, &c, NULL), 0);
	assert_int_equal(c.seen, want);
}

static void check_get(struct ter_trans *trans, struct model *m, struct ter_pos pos, struct ter_key *ret, bool *ret_there)
{
	struct model_key *mk = model_at(m, pos);
	int r = ter_trans_get(trans, RIG_KEY, pos, ret);

	assert_int_equal(r, mk->bytes ? 0 : -ENOENT);
	*ret_there = r == 0;
	if (r == 0) {
		assert_int_equal(ret->val_bytes, mk->bytes);
		assert_memory_equal(ret->val, mk->val, mk->bytes);
	}
}

static void check_step(struct ter_trans *trans, struct model *m, uint64_t *seed)
{
	unsigned a = (unsigned)(btree_rig_random(seed) % (INODES * OFFSETS)), b = (unsigned)(a + btree_rig_random(seed) % 200), i;
	struct ter_key key;
	int r;

	b = ter_min(b, INODES * OFFSETS - 1u);
	r = ter_trans_next(trans, RIG_KEY, pos_of(a), pos_of(b), &key);
	for (i = a; i <= b && !model_at(m, pos_of(i))->bytes;)
		i++;
	assert_int_equal(r, i <= b ? 0 : -ENOENT);
	if (r == 0)
		assert_int_equal(ter_pos_cmp(key.pos, pos_of(i)), 0);
	r = ter_trans_prev(trans, RIG_KEY, pos_of(b), pos_of(a), &key);
	for (i = b + 1; i > a && !model_at(m, pos_of(i - 1))->bytes;)
		i--;
	assert_int_equal(r, i > a ? 0 : -ENOENT);
	if (r == 0)
		assert_int_equal(ter_pos_cmp(key.pos, pos_of(i - 1)), 0);
}

/* --- changing --- */

static void stage_random(struct ter_trans *trans, struct model *m, uint64_t *seed, unsigned grow)
{
	struct ter_pos pos = pos_of((unsigned)(btree_rig_random(seed) % (INODES * OFFSETS)));
	struct model_key *mk = model_at(m, pos);
	struct ter_key key, old;
	bool there;

	check_get(trans, m, pos, &old, &there);
	if (btree_rig_random(seed) % 10 >= grow) {
		assert_int_equal(ter_trans_update(trans, RIG_KEY, pos, there ? &old : TER_KEY_ABSENT, NULL), 0);
		mk->bytes = 0;
	} else {
		mk->bytes = btree_rig_random(seed) % 2 ? 64 : (uint32_t)(btree_rig_random(seed) % VAL_MAX) + 1;
		for (unsigned i = 0; i < mk->bytes; i++)
			mk->val[i] = (uint8_t)btree_rig_random(seed);
		key = (struct ter_key){ .type = TER_KEY_XATTR, .val = mk->val, .val_bytes = mk->bytes };
		assert_int_equal(ter_trans_update(trans, RIG_KEY, pos, there ? &old : TER_KEY_ABSENT, &key), 0);
	}
	check_get(trans, m, pos, &key, &there);
}

static void random_transaction(struct btree_rig *rig, struct model *m, uint64_t *seed, unsigned grow)
{
	struct ter_trans trans;
	int r;

	ter_trans_init(&trans, rig->bt, 0);
	for (unsigned n = (unsigned)(btree_rig_random(seed) % 8); n--;)
		stage_random(&trans, m, seed, grow);
	check_step(&trans, m, seed);
	r = ter_trans_commit(&trans);
	assert_int_equal(r, 0); /* nobody else is here */
	check_step(&trans, m, seed);
	ter_trans_exit(&trans);
}

struct args {
	struct btree_rig_config config;
	uint64_t seed;
	unsigned rounds;
};

static void run_random(struct ter_exec *exec, void *arg)
{
	struct args *args = arg;
	struct btree_rig *rig = btree_rig_new(exec, args->seed, &args->config);
	struct model *m = calloc(1, sizeof(*m));
	struct ter_btree_stats stats, sum = { 0 };
	uint64_t seed = args->seed;

	assert_int_equal(btree_rig_open(rig, true), 0);
	for (unsigned i = 0; i < args->rounds; i++) {
		random_transaction(rig, m, &seed, i / 1500 % 2 ? 1 : 8); /* it grows, it shrinks */
		if (i % 500 == 499) {
			check_all(rig, m);
			(void)btree_rig_check(rig);
			ter_btrees_get_stats(rig->bt, &stats);
			/* T9: but for what is dirty or on the way. */
			assert_true(stats.cached_bytes < args->config.cache_bytes * 3);
		}
		if (i % 1100 == 1099) {
			ter_btrees_get_stats(rig->bt, &stats);
			sum.splits += stats.splits;
			sum.merges += stats.merges;
			sum.misses += stats.misses;
			sum.writes += stats.writes;
			sum.rewrites += stats.rewrites;
			if (btree_rig_random(&seed) % 2) {
				btree_rig_close(rig);
			} else {
				assert_int_equal(ter_journal_flush(rig->journal, ter_journal_open_seq(rig->journal)), 0);
				btree_rig_crash(rig);
			}
			assert_int_equal(btree_rig_open(rig, false), 0);
			check_all(rig, m);
			(void)btree_rig_check(rig);
		}
		assert_int_equal(rig->errors, 0);
	}
	print_message("splits %llu merges %llu rewrites %llu writes %llu misses %llu\n", (unsigned long long)sum.splits, (unsigned long long)sum.merges,
		      (unsigned long long)sum.rewrites, (unsigned long long)sum.writes, (unsigned long long)sum.misses);
	/* How much tasks get to do under threads is up to the machine. */
	assert_true(sum.splits > 5 && sum.misses > 5);
	assert_true(!exec->coop || (sum.splits > 20 && sum.merges > 5 && sum.misses > 50 && (sum.rewrites > 5 || args->config.no_tasks)));
	btree_rig_close(rig);
	btree_rig_free(rig);
	free(m);
}

static void random_transactions_equal_a_model_under_threads(void **state)
{
	struct args args = { .config = btree_rig_tiny, .seed = btree_rig_seed(), .rounds = 9000 };

	btree_rig_run(false, args.seed, run_random, &args);
}

static void random_transactions_equal_a_model_under_many_seeds(void **state)
{
	struct args args = { .config = btree_rig_tiny, .seed = btree_rig_seed(), .rounds = 6600 };

	args.config.devs = args.config.replicas = 2;
	for (unsigned i = 0; i < 3; i++, args.seed++)
		btree_rig_run(true, args.seed, run_random, &args);
}

static void random_transactions_equal_a_model_without_tasks(void **state)
{
	struct args args = { .config = btree_rig_tiny, .seed = btree_rig_seed(), .rounds = 6600 };

	args.config.no_tasks = true;
	args.config.journal_buckets = 400; /* nobody reclaims */
	btree_rig_run(true, args.seed, run_random, &args);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_transactions_equal_a_model_without_tasks),
		cmocka_unit_test(random_transactions_equal_a_model_under_many_seeds),
		cmocka_unit_test(random_transactions_equal_a_model_under_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
