/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts with the real journal and btrees: after each cut and replay the allocator's relations hold, and every extent that came back has its data
 *
 * Each extent's copies begin with its id, written before the commit that links it. Were a bucket used again before the entry that emptied it was durable (B2), a cut would bring back an
 * extent whose place holds another id.
 */
#include "alloc_pool.h"
#include "util/mem.h"

#define HELD_MAX 400
#define SERIAL TER_POS(1, 0, 0)
#define TX_MAX 4000

struct history {
	struct pool_extent held[HELD_MAX];
	unsigned nr;
	uint64_t serial; /* of the last transaction; also ids */
	uint64_t seed;
	struct { uint64_t event, serial; } acked[TX_MAX];
	unsigned acked_nr;
};

static uint64_t draw(struct history *h, uint64_t below)
{
	uint64_t z = (h->seed += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % below;
}

static uint64_t test_seed(void)
{
	const char *text = getenv("TER_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 20241125;

	print_message("TER_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static struct ter_pos pos_of(uint64_t id)
{
	return TER_POS(4096 + id % 37, id, 1); /* spread, so that many leaves are touched */
}

/* --- making history --- */

struct tx {
	struct pool *pool;
	struct history *h;
	const struct pool_extent *add, *remove;
};

static int stage_extent(struct ter_trans *trans, struct pool *pool, const struct pool_extent *e, int sign)
{
	struct ter_bp_target who = { .btree = TER_BTREE_EXTENTS, .pos = pos_of(e->id) };
	struct ter_key key = { .pos = who.pos, .type = TER_KEY_INLINE_DATA, .val = e, .val_bytes = sizeof(*e) };
	struct ter_replicas_entry entry = { .data_type = TER_DATA_USER, .nr_devs = (uint8_t)e->nr, .nr_required = 1 };
	int r;

	for (unsigned i = 0; i < e->nr; i++) {
		struct ter_ptr_ref ref = { .dev = (uint8_t)e->ptr[i].dev, .gen = e->ptr[i].gen, .sector = e->ptr[i].sector, .sectors = e->sectors };

		entry.devs[i] = ref.dev;
		r = ter_alloc_stage_ptr(pool->alloc, trans, &who, &ref, TER_DATA_USER, sign);
		if (r < 0)
			return r;
	}
	r = ter_alloc_stage_replicas(pool->alloc, trans, &entry, sign * (int64_t)e->sectors);
	if (r < 0)
		return r;
	return ter_trans_update(trans, TER_BTREE_EXTENTS, key.pos, TER_KEY_ANY, sign > 0 ? &key : NULL);
}

static int stage_tx(struct ter_trans *trans, void *arg)
{
	struct tx *tx = arg;
	struct ter_key serial = { .pos = SERIAL, .type = TER_KEY_XATTR, .val = &tx->h->serial, .val_bytes = 8 };
	int r = tx->remove ? stage_extent(trans, tx->pool, tx->remove, -1) : 0;

	if (!r && tx->add)
		r = stage_extent(trans, tx->pool, tx->add, 1);
	return r ? r : ter_trans_update(trans, TER_BTREE_XATTRS, SERIAL, TER_KEY_ANY, &serial);
}

static void stamp(struct pool *pool, const struct pool_extent *e)
{
	uint64_t *block = ter_malloc_aligned(4096, 4096);

	memset(block, 0, 4096);
	block[0] = block[511] = e->id;
	for (unsigned i = 0; i < e->nr; i++)
		assert_int_equal(ter_dev_write(&pool->members->dev[e->ptr[i].dev], e->ptr[i].sector * 512, block, 4096, 0), 0);
	free(block);
}

static bool write_extent(struct pool *pool, struct history *h)
{
	struct ter_alloc_request request = { .write_point = (unsigned)draw(h, 3), .replicas = pool->replicas, .replicas_required = 1, .sectors_min = 8,
					     .sectors_want = 8 * (1 + (uint32_t)draw(h, 16)) };
	struct pool_extent *e = &h->held[h->nr];
	struct tx tx = { .pool = pool, .h = h, .add = e };
	struct ter_space space;
	int r = ter_alloc_get(pool->alloc, &request, &space);

	if (r == -ENOSPC)
		return false;
	assert_int_equal(r, 0);
	*e = (struct pool_extent){ .id = ++h->serial, .sectors = space.sectors, .nr = space.nr };
	for (unsigned i = 0; i < space.nr; i++) {
		e->ptr[i].sector = space.ptr[i].sector;
		e->ptr[i].gen = space.ptr[i].gen;
		e->ptr[i].dev = space.ptr[i].dev;
	}
	stamp(pool, e);
	assert_int_equal(ter_trans_run(pool->bt, 0, stage_tx, &tx, NULL), 0);
	ter_alloc_put(pool->alloc, &space);
	h->nr++;
	return true;
}

static void remove_extent(struct pool *pool, struct history *h, unsigned idx)
{
	struct pool_extent e = h->held[idx];
	struct tx tx = { .pool = pool, .h = h, .remove = &e };

	h->serial++;
	assert_int_equal(ter_trans_run(pool->bt, TER_TRANS_RECLAIM, stage_tx, &tx, NULL), 0);
	memmove(&h->held[idx], &h->held[idx + 1], (--h->nr - idx) * sizeof(h->held[0])); /* stays in order of age: the oldest are neighbours */
}

static uint64_t event_now(struct pool *pool)
{
	struct ter_sim_stats stats;

	ter_sim_get_stats(pool->sim, &stats);
	return stats.events;
}

static void make_history(struct pool *pool, struct history *h, unsigned txs)
{
	for (unsigned n = 0; n < txs; n++) {
		bool grow = n / 150 % 2 == 0;
		bool full = h->nr == HELD_MAX;

		/* Growing until there is no space, then shrinking; what is removed are neighbours, so that buckets become empty. */
		if (!full && draw(h, 10) < (grow ? 8u : 3u))
			full = !write_extent(pool, h);
		else
			full = true;
		if (full && h->nr)
			remove_extent(pool, h, draw(h, 3) ? 0 : (unsigned)draw(h, h->nr));
		if (draw(h, 60) == 0)
			assert_true(ter_btrees_flush(pool->bt) >= 0);
		if (draw(h, 12) == 0) {
			assert_int_equal(ter_journal_flush(pool->journal, ter_journal_open_seq(pool->journal)), 0);
			assert_true(h->acked_nr < TX_MAX);
			h->acked[h->acked_nr].event = event_now(pool);
			h->acked[h->acked_nr++].serial = h->serial;
		}
	}
}

/* --- looking at what is left --- */

static uint64_t serial_of(struct pool *pool)
{
	struct ter_trans trans;
	struct ter_key key;
	uint64_t serial = 0;
	int r;

	ter_trans_init(&trans, pool->bt, 0);
	r = ter_trans_get(&trans, TER_BTREE_XATTRS, SERIAL, &key);
	if (!r)
		memcpy(&serial, key.val, 8);
	ter_trans_exit(&trans);
	assert_true(!r || r == -ENOENT);
	return serial;
}

static int note_held(void *arg, const struct ter_key *key)
{
	struct history *h = arg;

	assert_true(h->nr < HELD_MAX);
	memcpy(&h->held[h->nr++], key->val, sizeof(h->held[0]));
	return 0;
}

/* @h becomes what came back. */
static void look(struct pool *pool, struct history *h, uint64_t at_least)
{
	uint64_t *block = ter_malloc_aligned(4096, 4096), serial = serial_of(pool);

	if (serial < at_least || serial > h->serial)
		fail_msg("%llu came back, %llu were acknowledged, %llu made", (unsigned long long)serial, (unsigned long long)at_least, (unsigned long long)h->serial);
	pool_assert_sound(pool);
	h->serial = serial;
	h->nr = 0;
	assert_int_equal(ter_btree_scan(pool->bt, TER_BTREE_EXTENTS, TER_POS_MIN, TER_POS_MAX, 0, note_held, h, NULL), 0);
	for (unsigned i = 0; i < h->nr; i++)
		for (unsigned c = 0; c < h->held[i].nr; c++) {
			assert_int_equal(ter_dev_read(&pool->members->dev[h->held[i].ptr[c].dev], h->held[i].ptr[c].sector * 512, block, 4096), 0);
			assert_int_equal(block[0], h->held[i].id);
			assert_int_equal(block[511], h->held[i].id);
		}
	free(block);
	assert_int_equal(atomic_load(&pool->errors), 0);
}

struct args {
	uint64_t seed;
	unsigned replicas, txs, cuts;
};

static unsigned generations(struct pool *pool)
{
	struct ter_dev_usage u;
	unsigned used = 0;

	for (unsigned i = 0; i < POOL_DEVS; i++) {
		assert_int_equal(ter_alloc_dev_usage(pool->alloc, i, &u), 0);
		used += (unsigned)(u.buckets[TER_DATA_USER] + u.buckets[TER_DATA_BTREE]);
	}
	return used;
}

static void run_cuts(struct ter_exec *exec, void *arg)
{
	struct args *args = arg;
	struct pool *pool = pool_new(exec, args->seed, args->replicas);
	struct history *h = calloc(1, sizeof(*h)), *left = malloc(sizeof(*left));
	struct ter_sim_stats stats;
	struct ter_sim_trace *trace;
	uint64_t step, first_event;
	unsigned n = 0;

	h->seed = args->seed;
	ter_sim_record(pool->sim, true);
	pool_open(pool, true);
	pool_run(pool);
	assert_int_equal(ter_journal_flush(pool->journal, ter_journal_open_seq(pool->journal)), 0);
	first_event = event_now(pool) + 1; /* before it there is no pool */
	make_history(pool, h, args->txs);
	ter_sim_get_stats(pool->sim, &stats);
	print_message("%u buckets in use, %llu discards, %llu transactions\n", generations(pool), (unsigned long long)stats.discards, (unsigned long long)h->serial);
	assert_true(stats.discards > 10);
	pool_crash(pool);
	trace = ter_sim_trace_take(pool->sim);
	assert_non_null(trace);
	step = ter_max((trace->last_event - first_event) / args->cuts, 1ull);
	for (uint64_t at = first_event + draw(h, step); at <= trace->last_event + 1; at += step, n++) {
		struct ter_sim_cut cut = { .at = at, .keep = (enum ter_sim_keep)(n % 3), .seed = draw(h, UINT64_MAX), .torn_bytes = n % 2 ? 512 : 0 };
		uint64_t at_least = 0;

		for (unsigned i = 0; i < h->acked_nr && h->acked[i].event < at; i++)
			at_least = h->acked[i].serial;
		ter_sim_apply(pool->sim, trace, &cut);
		pool->blacklist_nr = 0;
		*left = *h;
		left->acked_nr = 0;
		pool_open(pool, false);
		look(pool, left, at_least);
		if (n % 8 == 0) {
			/* Life goes on from there. */
			pool_run(pool);
			make_history(pool, left, 80);
			pool_close(pool);
			pool_open(pool, false);
			look(pool, left, left->serial);
		}
		pool_crash(pool);
	}
	print_message("%u cuts\n", n);
	ter_sim_trace_free(trace);
	pool_free(pool);
	free(left);
	free(h);
}

static void run_lives(struct ter_exec *exec, void *arg)
{
	struct args *args = arg;
	struct pool *pool = pool_new(exec, args->seed, args->replicas);
	struct history *h = calloc(1, sizeof(*h));

	h->seed = args->seed;
	ter_sim_record(pool->sim, true);
	pool_open(pool, true);
	assert_int_equal(ter_journal_flush(pool->journal, ter_journal_open_seq(pool->journal)), 0);
	for (unsigned life = 0; life < args->cuts; life++) {
		struct ter_sim_cut cut = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .torn_bytes = 512 };

		pool_run(pool);
		h->acked_nr = 0;
		make_history(pool, h, (unsigned)draw(h, 300));
		cut.seed = draw(h, UINT64_MAX);
		ter_sim_cut(pool->sim, &cut);
		pool_crash(pool);
		pool_open(pool, false);
		look(pool, h, h->acked_nr ? h->acked[h->acked_nr - 1].serial : 0);
	}
	pool_crash(pool);
	pool_free(pool);
	free(h);
}

/* --- under the cooperative scheduler --- */

struct run {
	void (*fn)(struct ter_exec *exec, void *arg);
	struct args *args;
	struct ter_exec *exec;
};

static void run_main(void *arg)
{
	struct run *run = arg;

	run->fn(run->exec, run->args);
}

static void coop(void (*fn)(struct ter_exec *exec, void *arg), struct args *args)
{
	struct run run = { .fn = fn, .args = args, .exec = ter_exec_new_coop(args->seed) };

	assert_non_null(run.exec);
	assert_int_equal(ter_coop_run(run.exec, run_main, &run), 0);
	ter_exec_free(run.exec);
}

static unsigned cuts_wanted(unsigned normally)
{
	const char *text = getenv("TER_TEST_CUTS");

	return text ? (unsigned)strtoul(text, NULL, 0) : normally;
}

static void after_any_cut_all_relations_hold(void **state)
{
	struct args args = { .seed = test_seed(), .replicas = 1, .txs = 1500, .cuts = cuts_wanted(120) };

	coop(run_cuts, &args);
}

static void after_any_cut_all_relations_hold_with_two_copies(void **state)
{
	struct args args = { .seed = test_seed(), .replicas = 2, .txs = 1200, .cuts = cuts_wanted(120) };

	coop(run_cuts, &args);
}

static void lives_and_cuts_follow_each_other(void **state)
{
	struct args args = { .seed = test_seed(), .replicas = 2, .cuts = cuts_wanted(40) };

	for (unsigned i = 0; i < 2; i++, args.seed++)
		coop(run_lives, &args);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_any_cut_all_relations_hold),
		cmocka_unit_test(after_any_cut_all_relations_hold_with_two_copies),
		cmocka_unit_test(lives_and_cuts_follow_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
