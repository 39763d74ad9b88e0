/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Damaged copies, failing devices and failing memory. */
#include "btree_rig.h"

#include "btree/btree_priv.h"
#include "util/fault.h"

#define KEYS 700
#define NODES_MAX 400

static void value_of(unsigned i, uint8_t val[100])
{
	memset(val, (int)(i * 7), 100);
	memcpy(val, &i, sizeof(i));
}

static void put_keys(struct btree_rig *rig, unsigned from, unsigned to)
{
	uint8_t val[100];

	for (unsigned i = from; i < to; i++) {
		value_of(i, val);
		assert_int_equal(btree_rig_put(rig, 0, TER_POS(i, 0, 0), val, sizeof(val), NULL), 0);
	}
}

static int get_key(struct btree_rig *rig, unsigned i)
{
	struct ter_trans trans;
	struct ter_key key;
	uint8_t val[100];
	int r;

	ter_trans_init(&trans, rig->bt, 0);
	r = ter_trans_get(&trans, RIG_KEY, TER_POS(i, 0, 0), &key);
	if (r == 0) {
		value_of(i, val);
		assert_int_equal(key.val_bytes, sizeof(val));
		assert_memory_equal(key.val, val, sizeof(val));
	}
	ter_trans_exit(&trans);
	return r;
}

static void check_keys(struct btree_rig *rig)
{
	for (unsigned i = 0; i < KEYS; i++)
		assert_int_equal(get_key(rig, i), 0);
}

struct nodes {
	struct {
		unsigned level;
		struct ter_pos max;
		struct ter_node_ptrs ptrs;
	} node[NODES_MAX];
	unsigned nr;
};

static int note_node(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	struct nodes *n = arg;

	assert_true(n->nr < NODES_MAX);
	n->node[n->nr].level = level;
	n->node[n->nr].max = max;
	n->node[n->nr++].ptrs = *ptrs;
	return 0;
}

static void all_nodes(struct btree_rig *rig, struct nodes *n)
{
	n->nr = 0;
	for (unsigned id = 0; id < TER_BTREE_NR; id++)
		assert_int_equal(ter_btree_walk_nodes(rig->bt, id, note_node, n), 0);
}

/* A pool with some nodes of two bsets and more; closed. */
static struct btree_rig *make_pool(struct ter_exec *exec, const struct btree_rig_config *config, struct nodes *n)
{
	struct btree_rig *rig = btree_rig_new(exec, 1, config);

	assert_int_equal(btree_rig_open(rig, true), 0);
	put_keys(rig, 0, KEYS);
	while (ter_btrees_flush(rig->bt) > 0)
		;
	put_keys(rig, 0, KEYS / 2);
	while (ter_btrees_flush(rig->bt) > 0)
		;
	put_keys(rig, 0, KEYS / 4);
	btree_rig_close(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	all_nodes(rig, n);
	btree_rig_close(rig);
	return rig;
}

static void flip(struct btree_rig *rig, const struct ter_node_ptr *ptr, uint32_t offset)
{
	uint8_t byte;

	assert_int_equal(ter_sim_peek(rig->sim, btree_rig_path(ptr->dev), ptr->sector * 512 + offset, &byte, 1), 0);
	byte ^= 0x10;
	assert_int_equal(ter_sim_poke(rig->sim, btree_rig_path(ptr->dev), ptr->sector * 512 + offset, &byte, 1), 0);
}

static uint64_t checksum_errors(struct btree_rig *rig, unsigned dev)
{
	return atomic_load(&rig->members->dev[dev].errors[TER_DEV_ERR_CHECKSUM]);
}

/* --- two copies --- */

/* Where to damage a node: its header, the first bset's, a key, and the last bset's. */
static uint32_t place_in(const struct ter_node_ptrs *ptrs, unsigned how, uint32_t block_bytes)
{
	switch (how % 4) {
	case 0:
		return 8; /* node_seq */
	case 1:
		return sizeof(struct ter_node_disk) + 0x18; /* keys_bytes */
	case 2:
		return TER_NODE_HEAD_BYTES + 40;
	default:
		return ptrs->sectors_written * 512 - block_bytes;
	}
}

static void wait_for_rewrites(struct btree_rig *rig, uint64_t nr)
{
	struct ter_btree_stats stats;

	for (unsigned i = 0; i < 10000; i++) {
		ter_btrees_get_stats(rig->bt, &stats);
		if (stats.rewrites + stats.merges + stats.splits >= nr)
			return;
		ter_sleep_ns(rig->exec, 1000000);
	}
	fail_msg("%llu of %llu nodes were written anew", (unsigned long long)stats.rewrites, (unsigned long long)nr);
}

static void run_two_copies(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = btree_rig_tiny;
	struct nodes *n = malloc(sizeof(*n));
	struct btree_rig *rig;

	config.devs = config.replicas = 2;
	config.cache_bytes = 4 << 20;
	rig = make_pool(exec, &config, n);
	assert_true(n->nr > 15);
	for (unsigned i = 0; i < n->nr; i++)
		for (unsigned p = 0; p < 2; p++)
			if (n->node[i].ptrs.ptr[p].dev == 0)
				flip(rig, &n->node[i].ptrs.ptr[p], place_in(&n->node[i].ptrs, i, config.block_bytes));
	assert_int_equal(btree_rig_open(rig, false), 0);
	/* The slower one is asked only if need be. */
	atomic_store(&rig->members->dev[1].read_latency_ns, UINT64_MAX / 2);
	check_keys(rig);
	(void)btree_rig_check(rig);
	assert_true(checksum_errors(rig, 0) >= n->nr && checksum_errors(rig, 1) == 0);
	assert_true((unsigned)rig->errors >= n->nr);
	/* They heal by themselves: soon the other copies can go. */
	wait_for_rewrites(rig, n->nr);
	btree_rig_close(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	all_nodes(rig, n);
	btree_rig_close(rig);
	for (unsigned i = 0; i < n->nr; i++)
		for (unsigned p = 0; p < 2; p++)
			if (n->node[i].ptrs.ptr[p].dev == 1)
				flip(rig, &n->node[i].ptrs.ptr[p], place_in(&n->node[i].ptrs, i + 1, config.block_bytes));
	assert_int_equal(btree_rig_open(rig, false), 0);
	check_keys(rig);
	assert_int_equal(checksum_errors(rig, 0), 0);
	btree_rig_close(rig);
	btree_rig_free(rig);
	free(n);
}

static void a_damaged_copy_is_replaced_from_the_other(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_two_copies, NULL);
}

/* --- one copy --- */

static void damage_one(struct btree_rig *rig, const struct ter_node_ptrs *ptrs, unsigned level, struct ter_pos max, unsigned how)
{
	unsigned bad = 0;
	int r;

	flip(rig, &ptrs->ptr[0], place_in(ptrs, how, rig->config.block_bytes));
	r = btree_rig_open(rig, false);
	if (r < 0) { /* already what recovery reads is bad */
		assert_int_equal(r, -EUCLEAN);
		bad++;
	}
	for (unsigned i = 0; i < KEYS && r == 0; i++) {
		struct ter_pos pos = TER_POS(i, 0, 0);
		bool inside = level || (ter_pos_cmp(ptrs->min, pos) <= 0 && ter_pos_cmp(pos, max) <= 0);
		int got = get_key(rig, i);

		if (got < 0) {
			assert_true(inside);
			assert_int_equal(got, -EUCLEAN);
			bad++;
		}
		if (!level && inside)
			assert_int_equal(got, -EUCLEAN);
	}
	assert_true(bad > 0 && rig->errors > 0);
	assert_true(strstr(rig->last_error, "xattrs") && strstr(rig->last_error, "no good copy"));
	btree_rig_crash(rig);
	flip(rig, &ptrs->ptr[0], place_in(ptrs, how, rig->config.block_bytes)); /* as it was */
}

/* Who does not wait is told, too, and not put off for ever. */
static void damage_nowait(struct btree_rig *rig, const struct ter_node_ptrs *ptrs)
{
	struct ter_trans trans;
	struct ter_key key;
	unsigned tries;
	int r = -EAGAIN;

	flip(rig, &ptrs->ptr[0], place_in(ptrs, 2, rig->config.block_bytes));
	assert_int_equal(btree_rig_open(rig, false), 0);
	ter_trans_init(&trans, rig->bt, TER_TRANS_NOWAIT);
	for (tries = 0; tries < 1000 && r == -EAGAIN; tries++) {
		r = ter_trans_get(&trans, RIG_KEY, ptrs->min, &key);
		ter_sleep_ns(rig->exec, 1000000);
	}
	assert_int_equal(r, -EUCLEAN);
	ter_trans_exit(&trans);
	btree_rig_crash(rig);
	flip(rig, &ptrs->ptr[0], place_in(ptrs, 2, rig->config.block_bytes));
}

static void run_one_copy(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = btree_rig_tiny;
	struct nodes *n = malloc(sizeof(*n)), *mine = malloc(sizeof(*mine));
	struct btree_rig *rig = make_pool(exec, &config, n);

	assert_int_equal(btree_rig_open(rig, false), 0);
	mine->nr = 0;
	assert_int_equal(ter_btree_walk_nodes(rig->bt, RIG_KEY, note_node, mine), 0);
	btree_rig_crash(rig);
	assert_true(mine->nr > 5 && mine->node[0].level == 1);
	for (unsigned i = 0; i < mine->nr; i++)
		damage_one(rig, &mine->node[i].ptrs, mine->node[i].level, mine->node[i].max, i);
	damage_nowait(rig, &mine->node[2].ptrs);
	for (unsigned how = 0; how < 4; how++)
		damage_one(rig, &mine->node[0].ptrs, 1, mine->node[0].max, how);
	assert_int_equal(btree_rig_open(rig, false), 0);
	check_keys(rig);
	btree_rig_close(rig);
	btree_rig_free(rig);
	free(n);
	free(mine);
}

static void the_only_copy_damaged_is_an_error_that_names_it(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_one_copy, NULL);
}

/* --- devices that fail --- */

static void run_failing_writes(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = btree_rig_tiny;
	struct nodes *n = malloc(sizeof(*n));
	struct ter_btree_stats stats;
	struct btree_rig *rig;
	int r = 0;

	config.no_tasks = true; /* node writes only when asked for */
	config.journal_buckets = 400;
	config.devs = 2;
	rig = btree_rig_new(exec, 1, &config);
	assert_int_equal(btree_rig_open(rig, true), 0);
	put_keys(rig, 0, KEYS);
	assert_true(ter_btrees_flush(rig->bt) > 0);
	put_keys(rig, 0, KEYS / 2);
	assert_int_equal(ter_journal_flush(rig->journal, ter_journal_open_seq(rig->journal)), 0);
	/* With one copy a node, none lands on this one. */
	for (unsigned i = 0; i < 40 && r >= 0; i++) {
		assert_int_equal(ter_sim_fail(rig->sim, btree_rig_path(0), TER_BIO_WRITE, 1, true), 0);
		r = ter_btrees_flush(rig->bt);
		ter_sim_fail_none(rig->sim);
		put_keys(rig, i * 2, i * 2 + 2);
	}
	assert_true(r < 0);
	assert_true(rig->errors > 0);
	check_keys(rig);
	ter_btrees_get_stats(rig->bt, &stats);
	assert_true(stats.dirty_nodes > 0);
	while ((r = ter_btrees_flush(rig->bt)) > 0)
		;
	assert_int_equal(r, 0);
	btree_rig_close(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	check_keys(rig);
	(void)btree_rig_check(rig);
	btree_rig_close(rig);
	btree_rig_free(rig);
	free(n);
}

static void a_node_that_cannot_be_written_stays_dirty(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_failing_writes, NULL);
}

static void run_one_replica_fails(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = btree_rig_tiny;
	struct btree_rig *rig;

	config.devs = config.replicas = 2;
	rig = btree_rig_new(exec, 1, &config);
	assert_int_equal(btree_rig_open(rig, true), 0);
	put_keys(rig, 0, KEYS / 2);
	assert_int_equal(ter_sim_fail(rig->sim, btree_rig_path(1), TER_BIO_WRITE, 3, true), 0);
	put_keys(rig, KEYS / 2, KEYS);
	while (ter_btrees_flush(rig->bt) > 0)
		;
	ter_sim_fail_none(rig->sim);
	check_keys(rig);
	put_keys(rig, 0, KEYS);
	btree_rig_close(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	check_keys(rig);
	(void)btree_rig_check(rig);
	btree_rig_close(rig);
	btree_rig_free(rig);
}

static void with_one_of_two_replicas_failing_work_goes_on(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_one_replica_fails, NULL);
}

/* A bset behind what @ptrs tells of, on one member: what a crash between an append and telling of it leaves. It says that key 0 is key 1's. */
static void leave_untold_bset(struct btree_rig *rig, const struct ter_node_ptrs *ptrs, const struct ter_node_ptr *where)
{
	const struct ter_node_geo *geo = &rig->bt->geo;
	uint8_t val[100], buf[8192] __attribute__((aligned(8))) = { 0 };
	struct ter_key key = { .pos = TER_POS(0, 0, 0), .type = TER_KEY_XATTR, .val = val, .val_bytes = sizeof(val) };
	uint32_t bytes = ter_key_disk_bytes(sizeof(val)), sectors = ter_bset_sectors(geo, false, bytes);

	assert_true(sectors * 512 <= sizeof(buf));
	value_of(1, val);
	ter_key_encode(&key, buf + sizeof(struct ter_bset_disk));
	ter_bset_finish(geo, buf, NULL, ptrs->node_seq, 1, bytes, 1);
	assert_int_equal(ter_sim_poke(rig->sim, btree_rig_path(where->dev), (where->sector + ptrs->sectors_written) * 512, buf, sectors * 512), 0);
}

/* An append that member 1 misses, while an untold bset of the run before lies in its place there. */
static void run_missed_append(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = btree_rig_tiny;
	struct nodes *n = calloc(1, sizeof(*n));
	struct btree_rig *rig;
	unsigned first = 0;

	config.no_tasks = true; /* node writes only when asked for */
	config.journal_buckets = 400;
	config.devs = config.replicas = 2;
	rig = btree_rig_new(exec, 1, &config);
	assert_int_equal(btree_rig_open(rig, true), 0);
	put_keys(rig, 0, KEYS);
	while (ter_btrees_flush(rig->bt) > 0)
		;
	assert_int_equal(ter_btree_walk_nodes(rig->bt, RIG_KEY, note_node, n), 0);
	while (n->node[first].level)
		first++;
	assert_int_equal(ter_pos_cmp(n->node[first].ptrs.min, TER_POS_MIN), 0);
	assert_int_equal(ter_journal_flush(rig->journal, ter_journal_open_seq(rig->journal)), 0);
	btree_rig_crash(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	put_keys(rig, 0, 1);
	assert_int_equal(ter_sim_fail(rig->sim, btree_rig_path(1), TER_BIO_WRITE, 1, true), 0);
	assert_true(ter_btrees_flush(rig->bt) > 0);
	ter_sim_fail_none(rig->sim);
	/* Only now, as a failed write may arrive for all that. */
	for (unsigned p = 0; p < 2; p++)
		if (n->node[first].ptrs.ptr[p].dev == 1)
			leave_untold_bset(rig, &n->node[first].ptrs, &n->node[first].ptrs.ptr[p]);
	btree_rig_close(rig);
	for (unsigned p = 0; p < 2; p++) /* whoever still reads the node there reads the copy that missed it */
		if (n->node[first].ptrs.ptr[p].dev == 0)
			flip(rig, &n->node[first].ptrs.ptr[p], 8);
	assert_int_equal(btree_rig_open(rig, false), 0);
	check_keys(rig);
	(void)btree_rig_check(rig);
	btree_rig_close(rig);
	btree_rig_free(rig);
	free(n);
}

static void a_copy_that_missed_an_append_does_not_pass_for_whole(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_missed_append, NULL);
}

/* --- memory --- */

static void run_memory(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = btree_rig_tiny;
	struct btree_rig *rig;
	unsigned failed = 0;

	config.no_tasks = true;
	config.journal_buckets = 400;
	rig = btree_rig_new(exec, 1, &config);
	assert_int_equal(btree_rig_open(rig, true), 0);
	put_keys(rig, 0, KEYS);
	/* Each allocation of each of these steps fails once; nothing of it may be half done. */
	for (unsigned nth = 1; nth < 500; nth++) {
		struct ter_fault_rule rule = { .nth = 1 + nth % 25, .times = 1 };
		uint8_t val[100];
		int r, r2;

		value_of(nth % KEYS, val);
		assert_int_equal(ter_fault_arm("mem.alloc", &rule), 0);
		r = btree_rig_put(rig, 0, TER_POS(nth % KEYS, 0, 0), val, sizeof(val), NULL);
		r2 = ter_btrees_flush(rig->bt);
		ter_fault_disarm_all();
		assert_true(r == 0 || r == -ENOMEM);
		assert_true(r2 >= 0 || r2 == -ENOMEM);
		failed += r < 0 || r2 < 0;
		value_of(nth % KEYS, val);
		for (unsigned i = 0; i < 40; i++) /* so that there is something to write, and nodes fill up */
			assert_int_equal(btree_rig_put(rig, 0, TER_POS(KEYS + nth * 40 + i, 0, 0), val, sizeof(val), NULL), 0);
	}
	assert_true(failed > 50);
	check_keys(rig);
	(void)btree_rig_check(rig);
	btree_rig_close(rig);
	assert_int_equal(btree_rig_open(rig, false), 0);
	check_keys(rig);
	(void)btree_rig_check(rig);
	btree_rig_close(rig);
	btree_rig_free(rig);
	print_message("%u allocations were failed\n", failed);
}

static void short_memory_leaves_nothing_half_done(void **state)
{
	btree_rig_run(true, btree_rig_seed(), run_memory, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_damaged_copy_is_replaced_from_the_other),
		cmocka_unit_test(the_only_copy_damaged_is_an_error_that_names_it),
		cmocka_unit_test(a_node_that_cannot_be_written_stays_dirty),
		cmocka_unit_test(with_one_of_two_replicas_failing_work_goes_on),
		cmocka_unit_test(a_copy_that_missed_an_append_does_not_pass_for_whole),
		cmocka_unit_test(short_memory_leaves_nothing_half_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
