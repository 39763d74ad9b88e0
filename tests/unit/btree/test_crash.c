/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Power cuts at every event: what comes back is what some number of transactions left, no fewer than were flushed. */
#include "btree_rig.h"

#define SPACE 500 /* positions */
#define TX_MAX 4000
#define CHANGES_MAX 6
#define VAL_MAX 4096
#define SERIAL TER_POS(1000000, 0, 0)

struct one_change {
	uint16_t idx;
	uint16_t bytes; /* 0: deleted */
	uint8_t fill;
};
struct tx {
	struct one_change change[CHANGES_MAX];
	unsigned nr;
};
struct acked {
	uint64_t event;
	unsigned serial;
};
struct history {
	struct tx tx[TX_MAX + 1]; /* from 1 */
	unsigned nr;
	struct acked acked[TX_MAX];
	unsigned acked_nr;
	unsigned flags, val_max;
};

static struct ter_pos pos_of(unsigned idx)
{
	return TER_POS(idx / 100, idx % 100, 1);
}

/* --- making history --- */

static void value_of(const struct one_change *c, uint8_t *val)
{
	memset(val, c->fill, c->bytes);
	memcpy(val, &c->idx, sizeof(c->idx));
}

struct commit_arg {
	const struct tx *tx;
	uint64_t serial;
};

static int commit_tx(struct ter_trans *trans, void *arg)
{
	const struct commit_arg *c = arg;
	struct ter_key key = { .type = TER_KEY_XATTR, .val = &c->serial, .val_bytes = 8 };
	uint8_t val[VAL_MAX];
	int r;

	r = ter_trans_update(trans, RIG_KEY, SERIAL, TER_KEY_ANY, &key);
	for (unsigned i = 0; i < c->tx->nr && r == 0; i++) {
		value_of(&c->tx->change[i], val);
		key.val = val;
		key.val_bytes = c->tx->change[i].bytes;
		r = ter_trans_update(trans, RIG_KEY, pos_of(c->tx->change[i].idx), TER_KEY_ANY, key.val_bytes ? &key : NULL);
	}
	return r;
}

/* Grows for a while, then is swept empty, so that nodes merge and the tree gets lower. */
static void random_tx(struct tx *tx, unsigned val_max, uint64_t *seed, unsigned serial)
{
	unsigned phase = serial % 300;
	bool grow = phase < 160;

	tx->nr = grow ? (unsigned)(btree_rig_random(seed) % CHANGES_MAX) + 1 : CHANGES_MAX;
	for (unsigned i = 0; i < tx->nr; i++) {
		struct one_change *c = &tx->change[i];

		c->idx = (uint16_t)(grow ? btree_rig_random(seed) % SPACE : ((phase - 160) * 4 + i) % SPACE);
		c->bytes = btree_rig_random(seed) % 16 < (grow ? 15 : 0) ? (uint16_t)(8 + btree_rig_random(seed) % val_max) : 0;
		c->fill = (uint8_t)btree_rig_random(seed);
	}
}

static uint64_t event_now(struct btree_rig *rig)
{
	struct ter_sim_stats stats;

	ter_sim_get_stats(rig->sim, &stats);
	return stats.events;
}

static void make_history(struct btree_rig *rig, struct history *h, uint64_t *seed, unsigned txs, bool write)
{
	uint64_t seq;

	for (unsigned i = 0; i < txs; i++) {
		struct commit_arg arg;

		h->nr++;
		random_tx(&h->tx[h->nr], h->val_max, seed, h->nr);
		arg = (struct commit_arg){ .tx = &h->tx[h->nr], .serial = h->nr };
		assert_int_equal(ter_trans_run(rig->bt, h->flags, commit_tx, &arg, &seq), 0);
		if (write && btree_rig_random(seed) % 40 == 0)
			assert_true(ter_btrees_flush(rig->bt) >= 0);
		if (write && btree_rig_random(seed) % 60 == 0)
			assert_int_equal(ter_journal_reclaim_to(rig->journal, seq), 0);
		if (btree_rig_random(seed) % 10 == 0) {
			assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
			h->acked[h->acked_nr++] = (struct acked){ .event = event_now(rig), .serial = h->nr };
		}
	}
}

/* --- looking at what is left --- */

struct state {
	struct one_change at[SPACE];
};

static void state_after(const struct history *h, unsigned serial, struct state *s)
{
	memset(s, 0, sizeof(*s));
	for (unsigned t = 1; t <= serial; t++)
		for (unsigned i = 0; i < h->tx[t].nr; i++)
			s->at[h->tx[t].change[i].idx] = h->tx[t].change[i];
}

struct look {
	const struct state *s;
	unsigned next;
};

static int look_at(void *arg, const struct ter_key *key)
{
	struct look *l = arg;
	uint8_t val[VAL_MAX];

	if (!ter_pos_cmp(key->pos, SERIAL))
		return 0;
	while (l->next < SPACE && !l->s->at[l->next].bytes)
		l->next++;
	assert_true(l->next < SPACE);
	assert_int_equal(ter_pos_cmp(key->pos, pos_of(l->next)), 0);
	assert_int_equal(key->val_bytes, l->s->at[l->next].bytes);
	value_of(&l->s->at[l->next], val);
	assert_memory_equal(key->val, val, key->val_bytes);
	l->next++;
	return 0;
}

static unsigned serial_of(struct btree_rig *rig)
{
	struct ter_trans trans;
	struct ter_key key;
	uint64_t serial = 0;
	int r;

	ter_trans_init(&trans, rig->bt, 0);
	r = ter_trans_get(&trans, RIG_KEY, SERIAL, &key);
	if (r == 0)
		memcpy(&serial, key.val, 8);
	ter_trans_exit(&trans);
	assert_true(r == 0 || r == -ENOENT);
	return (unsigned)serial;
}

static unsigned acked_at(const struct history *h, uint64_t event)
{
	unsigned serial = 0;

	for (unsigned i = 0; i < h->acked_nr && h->acked[i].event <= event; i++)
		serial = h->acked[i].serial;
	return serial;
}

static void check_state(struct btree_rig *rig, const struct history *h, unsigned serial)
{
	struct state *s = malloc(sizeof(*s));
	struct look l = { .s = s };

	state_after(h, serial, s);
	assert_int_equal(ter_btree_scan(rig->bt, RIG_KEY, TER_POS_MIN, TER_POS_MAX, 0, look_at, &l, NULL), 0);
	while (l.next < SPACE && !s->at[l.next].bytes)
		l.next++;
	assert_int_equal(l.next, SPACE);
	free(s);
	(void)btree_rig_check(rig);
}

/* What the devices hold now opens, and is a prefix of history. */
static void check_recovered(struct btree_rig *rig, struct history *h, unsigned at_least, uint64_t *seed, bool go_on)
{
	struct history *copy;
	unsigned serial;

	assert_int_equal(btree_rig_open(rig, false), 0);
	serial = serial_of(rig);
	if (serial < at_least || serial > h->nr)
		fail_msg("%u transactions came back, %u were acknowledged, %u made", serial, at_least, h->nr);
	check_state(rig, h, serial);
	assert_int_equal(rig->errors, 0);
	if (!go_on) {
		btree_rig_crash(rig);
		return;
	}
	/* Life goes on from there. */
	copy = malloc(sizeof(*copy));
	*copy = *h;
	copy->nr = serial;
	copy->acked_nr = 0;
	make_history(rig, copy, seed, 60, true);
	check_state(rig, copy, copy->nr);
	btree_rig_close(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	check_state(rig, copy, copy->nr);
	btree_rig_crash(rig);
	free(copy);
}

struct args {
	struct btree_rig_config config;
	uint64_t seed;
	unsigned txs, cuts;
	unsigned grow; /* transactions while no node can be had, by one who frees space: one leaf takes them all */
};

static struct history *history_new(void)
{
	struct history *h = calloc(1, sizeof(*h));

	h->val_max = 400;
	return h;
}

static void make_grown_history(struct btree_rig *rig, struct history *h, uint64_t *seed, const struct args *args)
{
	h->val_max = VAL_MAX - 8;
	make_history(rig, h, seed, 10, true); /* something is on disk before */
	assert_true(ter_btrees_flush(rig->bt) >= 0);
	atomic_store(&rig->fail_alloc, ENOSPC);
	h->flags = TER_TRANS_RECLAIM;
	make_history(rig, h, seed, args->grow, false);
	atomic_store(&rig->fail_alloc, 0);
}

static void run_cuts(struct ter_exec *exec, void *arg)
{
	struct args *args = arg;
	struct btree_rig *rig = btree_rig_new(exec, args->seed, &args->config);
	struct history *h = history_new();
	struct ter_btree_stats stats;
	struct ter_sim_trace *trace;
	uint64_t seed = args->seed, step;
	unsigned n = 0;

	ter_sim_record(rig->sim, true);
	assert_int_equal(btree_rig_open(rig, true), 0);
	if (args->grow)
		make_grown_history(rig, h, &seed, args);
	make_history(rig, h, &seed, args->txs, true);
	ter_btrees_get_stats(rig->bt, &stats);
	print_message("%llu splits, %llu merges, %llu rewrites, %llu writes\n", (unsigned long long)stats.splits, (unsigned long long)stats.merges,
		      (unsigned long long)stats.rewrites, (unsigned long long)stats.writes);
	assert_true(stats.splits >= 3 && (args->grow || stats.merges >= 3) && stats.writes > 20);
	btree_rig_crash(rig);
	trace = ter_sim_trace_take(rig->sim);
	assert_non_null(trace);
	step = ter_max((trace->last_event - trace->first_event) / args->cuts, 1ull);
	for (uint64_t at = trace->first_event + btree_rig_random(&seed) % step; at <= trace->last_event + 1; at += step, n++) {
		struct ter_sim_cut cut = { .at = at, .keep = (enum ter_sim_keep)(n % 3), .seed = btree_rig_random(&seed), .torn_bytes = n % 2 ? 512 : 0 };

		ter_sim_apply(rig->sim, trace, &cut);
		rig->blacklist_nr = 0;
		check_recovered(rig, h, acked_at(h, at - 1), &seed, n % 8 == 0);
	}
	print_message("%u cuts of %u transactions, %llu events\n", n, h->nr, (unsigned long long)(trace->last_event - trace->first_event));
	ter_sim_trace_free(trace);
	btree_rig_free(rig);
	free(h);
}

static unsigned cuts_wanted(unsigned normally)
{
	const char *text = getenv("TER_TEST_CUTS");

	return text ? (unsigned)strtoul(text, NULL, 0) : normally;
}

static void a_cut_at_any_event_leaves_a_prefix_that_holds_what_was_flushed(void **state)
{
	struct args args = { .config = btree_rig_tiny, .seed = btree_rig_seed(), .txs = 600, .cuts = cuts_wanted(250) };

	args.config.journal_buckets = 12;
	args.config.slots = 3000;
	for (unsigned i = 0; i < 2; i++, args.seed++)
		btree_rig_run(true, args.seed, run_cuts, &args);
}

static void the_same_with_two_replicas_and_bigger_blocks(void **state)
{
	struct args args = { .config = btree_rig_tiny, .seed = btree_rig_seed(), .txs = 600, .cuts = cuts_wanted(150) };

	args.config.journal_buckets = 12;
	args.config.slots = 3000;
	args.config.devs = 3;
	args.config.replicas = 2;
	args.config.block_bytes = 4096;
	btree_rig_run(true, args.seed, run_cuts, &args);
}

static void the_same_while_a_leaf_is_cut_in_steps(void **state)
{
	struct args args = { .config = btree_rig_tiny, .seed = btree_rig_seed(), .txs = 40, .cuts = cuts_wanted(250), .grow = 150 };

	args.config.journal_buckets = 64;
	args.config.slots = 3000;
	for (unsigned i = 0; i < 2; i++, args.seed++)
		btree_rig_run(true, args.seed, run_cuts, &args);
}

/* A life after a cut after a life after a cut. */
static void run_lives(struct ter_exec *exec, void *arg)
{
	struct args *args = arg;
	struct btree_rig *rig = btree_rig_new(exec, args->seed, &args->config);
	struct history *h = history_new();
	uint64_t seed = args->seed;

	ter_sim_record(rig->sim, true);
	assert_int_equal(btree_rig_open(rig, true), 0);
	for (unsigned life = 0; life < args->cuts; life++) {
		struct ter_sim_cut cut = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .torn_bytes = 512 };
		unsigned acked;

		make_history(rig, h, &seed, (unsigned)(btree_rig_random(&seed) % 150), true);
		acked = h->acked_nr ? h->acked[h->acked_nr - 1].serial : 0;
		cut.seed = btree_rig_random(&seed);
		ter_sim_cut(rig->sim, &cut);
		btree_rig_crash(rig);
		assert_int_equal(btree_rig_open(rig, false), 0);
		h->nr = serial_of(rig);
		if (h->nr < acked)
			fail_msg("life %u: %u of %u came back", life, h->nr, acked);
		check_state(rig, h, h->nr);
		h->acked_nr = 0;
		h->acked[h->acked_nr++] = (struct acked){ .serial = h->nr }; /* it was recovered: it stays */
	}
	btree_rig_crash(rig);
	btree_rig_free(rig);
	free(h);
}

static void lives_and_cuts_follow_each_other(void **state)
{
	struct args args = { .config = btree_rig_tiny, .seed = btree_rig_seed(), .cuts = 40 };

	args.config.journal_buckets = 12;
	for (unsigned i = 0; i < 3; i++, args.seed++)
		btree_rig_run(true, args.seed, run_lives, &args);
}

static int note_height(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	*(unsigned *)arg = ter_max(*(unsigned *)arg, level);
	return 0;
}

/* The tree gets high and low again and again within what is replayed: old records of interior keys meet new roots. */
static void run_heights(struct ter_exec *exec, void *arg)
{
	struct args *args = arg;
	struct btree_rig *rig = btree_rig_new(exec, args->seed, &args->config);
	struct history *h = history_new();
	unsigned height, last = 0, grown = 0;
	uint64_t seed = args->seed;

	assert_int_equal(btree_rig_open(rig, true), 0);
	for (unsigned i = 0; i < 1800; i++) { /* six times growing, then shrinking */
		make_history(rig, h, &seed, 1, false);
		height = 0;
		assert_int_equal(ter_btree_walk_nodes(rig->bt, RIG_KEY, note_height, &height), 0);
		if (height == last && i % 100)
			continue;
		grown += height > last;
		last = height;
		assert_int_equal(ter_journal_flush(rig->journal, ter_journal_open_seq(rig->journal)), 0);
		btree_rig_crash(rig);
		assert_int_equal(btree_rig_open(rig, false), 0);
		assert_int_equal(serial_of(rig), h->nr);
		check_state(rig, h, h->nr);
	}
	print_message("grew %u times\n", grown);
	assert_true(grown >= 4);
	btree_rig_crash(rig);
	btree_rig_free(rig);
	free(h);
}

static void replay_over_roots_that_came_and_went(void **state)
{
	struct args args = { .config = btree_rig_tiny, .seed = btree_rig_seed() };

	args.config.no_tasks = true;
	args.config.journal_buckets = 500; /* nothing is reclaimed: all of history is replayed */
	for (unsigned i = 0; i < 4; i++, args.seed++)
		btree_rig_run(true, args.seed, run_heights, &args);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cut_at_any_event_leaves_a_prefix_that_holds_what_was_flushed),
		cmocka_unit_test(the_same_with_two_replicas_and_bigger_blocks),
		cmocka_unit_test(the_same_while_a_leaf_is_cut_in_steps),
		cmocka_unit_test(replay_over_roots_that_came_and_went),
		cmocka_unit_test(lives_and_cuts_follow_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
