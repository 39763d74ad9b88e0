/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A pool of simulated devices. */
#include "alloc_pool.h"

#include "alloc/alloc_format.h"
#include "journal/journal_encode.h"
#include "util/crc32c.h"
#include "util/mem.h"

#define JOURNAL_BUCKETS 12
#define FIRST_BUCKET 4

static const char *const paths[POOL_DEVS] = { "/dev/pool0", "/dev/pool1", "/dev/pool2" };
static const uint64_t buckets[POOL_DEVS] = { 190, 140, 165 };

static void crc_digest(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16)
{
	uint32_t crc = 0;

	for (unsigned i = 0; i < n; i++)
		crc = ter_crc32c(crc, iov[i].iov_base, iov[i].iov_len);
	memcpy(out, &crc, sizeof(crc));
}
static const struct terrace_checksum crc_algo = {
	.algo = { .size = sizeof(crc_algo), .kind = TERRACE_CHECKSUM, .uuid = { 1 }, .name = "crc32c", .format = 1 },
	.digest_len = 4, .digest = crc_digest,
};

struct pool *pool_new(struct ter_exec *exec, uint64_t seed, unsigned replicas)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	assert_non_null(pool);
	pool->exec = exec;
	pool->replicas = replicas;
	pool->sim = ter_sim_new(exec, seed, &pool->io);
	assert_non_null(pool->sim);
	for (unsigned i = 0; i < POOL_DEVS; i++) {
		assert_int_equal(ter_sim_add(pool->sim, paths[i], buckets[i] * POOL_BUCKET_BYTES + 65536, 512), 0);
		assert_int_equal(ter_sim_latency(pool->sim, paths[i], 50000), 0); /* or time stands still, and tasks that wait for it with it */
	}
	return pool;
}

void pool_free(struct pool *pool)
{
	assert_null(pool->bt);
	ter_io_free(pool->io);
	free(pool);
}

static void know_all_sets(struct pool *pool)
{
	static const uint8_t types[] = { TER_DATA_JOURNAL, TER_DATA_BTREE, TER_DATA_USER };

	for (unsigned t = 0; t < ARRAY_SIZE(types); t++)
		for (unsigned mask = 1; mask < 1u << POOL_DEVS; mask++) {
			struct ter_replicas_entry entry = { .data_type = types[t], .nr_required = 1 };

			for (unsigned i = 0; i < POOL_DEVS; i++)
				if (mask >> i & 1)
					entry.devs[entry.nr_devs++] = (uint8_t)i;
			assert_int_equal(ter_sb_replicas_add(pool->sb, &entry), 0);
		}
}

static void copy_blacklist(struct pool *pool)
{
	for (unsigned i = 0; i < pool->blacklist_nr; i++) {
		pool->sb->blacklist[i].first = pool->blacklist[i].first;
		pool->sb->blacklist[i].last = pool->blacklist[i].last;
	}
	pool->sb->blacklist_nr = pool->blacklist_nr;
}

static void make_sb(struct pool *pool)
{
	struct ter_error error = { 0 };

	pool->sb = calloc(1, sizeof(*pool->sb));
	pool->members = calloc(1, sizeof(*pool->members));
	assert_true(pool->sb && pool->members);
	memcpy(pool->sb->uuid, "pool-uuid-bytes", 16);
	ter_options_default(&pool->sb->options);
	pool->sb->options.block_size = 512; /* a node has room for many appends: each rewrite dirties several leaves, and flushing all must come to an end */
	pool->sb->options.btree_node_size = 16384;
	pool->sb->options.bucket_size = POOL_BUCKET_BYTES;
	pool->sb->options.journal_flush_ms = 1; /* how long the discard worker lets empty buckets gather */
	pool->sb->options.metadata_replicas = (uint8_t)pool->replicas;
	pool->sb->options.data_replicas = (uint8_t)pool->replicas;
	pool->sb->algos.slot[1] = (struct ter_algo_slot){ .algo = &crc_algo.algo, .kind = TERRACE_CHECKSUM, .uuid = { 1 }, .name = "crc32c", .format = 1 };
	pool->handle = (struct ter_sb_handle){ .exec = pool->exec, .sb = pool->sb, .members = pool->members };
	ter_lock_init(&pool->handle.lock, TER_RANK_SB);
	ter_lock_init(&pool->handle.write_lock, TER_RANK_SB_WRITE);
	pool->members->nr_slots = POOL_DEVS;
	for (unsigned i = 0; i < POOL_DEVS; i++) {
		struct ter_dev *dev = &pool->members->dev[i];

		dev->idx = i;
		dev->used = true;
		dev->state = TER_DEV_RW;
		dev->durability = 1;
		dev->discard = true;
		if (ter_bdev_open(pool->io, paths[i], 0, &dev->bdev, &error) < 0)
			fail_msg("%s", error.text);
		dev->bytes = dev->bdev->info.bytes;
		dev->bucket_sectors = POOL_BUCKET_SECTORS;
		dev->buckets_nr = buckets[i];
		dev->first_bucket = FIRST_BUCKET;
		dev->journal[0] = (struct ter_bucket_range){ .first = FIRST_BUCKET, .nr = JOURNAL_BUCKETS };
	}
	know_all_sets(pool);
	copy_blacklist(pool);
}

/* --- callbacks between rooms --- */

static unsigned get_roots(void *arg, struct ter_root *roots, unsigned max)
{
	return ter_btrees_get_roots(((struct pool *)arg)->bt, roots, max);
}

static void get_clock(void *arg, uint64_t *ret_next_node_seq, uint64_t *ret_next_inum)
{
	*ret_next_node_seq = ter_btrees_next_node_seq(((struct pool *)arg)->bt);
	*ret_next_inum = 1;
}

static void on_error(void *arg, int r, const char *text)
{
	struct pool *pool = arg;

	atomic_fetch_add(&pool->errors, 1);
	if (getenv("TER_TEST_VERBOSE"))
		print_message("[%d] %s\n", r, text);
}

static void on_counters(void *arg, struct ter_pos pos, const int64_t *deltas, unsigned nr)
{
	ter_alloc_on_counters(((struct pool *)arg)->alloc, pos, deltas, nr);
}

/* --- replay --- */

static void replay_roots(struct pool *pool, const struct ter_journal_replay *replay)
{
	for (unsigned i = 0; i < replay->nr; i++) {
		struct ter_jrec rec;

		for (uint32_t pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);) {
			struct ter_root root;

			if (rec.type != TER_JREC_ROOT)
				continue;
			assert_int_equal(ter_jrec_root_decode(&rec, &root), 0);
			assert_int_equal(ter_btrees_set_root(pool->bt, &root), 0);
		}
	}
}

static void replay_level(struct pool *pool, const struct ter_journal_replay *replay, int level)
{
	for (unsigned i = 0; i < replay->nr; i++) {
		struct ter_jrec rec;

		for (uint32_t pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);) {
			if (rec.type != TER_JREC_KEY || rec.level != level)
				continue;
			assert_int_equal(ter_key_check(rec.payload, rec.bytes), rec.bytes);
			assert_int_equal(ter_btrees_replay_key(pool->bt, rec.btree, rec.level, rec.payload), 0);
		}
	}
}

static void start_journal(struct pool *pool, const struct ter_journal_replay *replay)
{
	struct ter_journal_config config = {
		.exec = pool->exec, .sb = &pool->handle, .members = pool->members,
		.region_bytes = ter_journal_region_bytes(pool->sb, pool->members),
		.get_roots = get_roots, .get_roots_arg = pool, .get_clock = get_clock, .get_clock_arg = pool,
		.on_error = on_error, .on_arg = pool, .replay = replay,
	};
	struct ter_error error = { 0 };

	pool->region = ter_malloc_aligned(config.region_bytes, 4096);
	config.region = pool->region;
	if (ter_journal_start(&config, replay ? replay->next_seq : 1, &pool->journal, &error) < 0)
		fail_msg("%s", error.text);
	ter_btrees_set_journal(pool->bt, pool->journal);
	ter_alloc_set_journal(pool->alloc, pool->journal);
}

/* As the superblock would: rows that have nothing to hide any more go, the new one comes. */
static void note_blacklist(struct pool *pool, const struct ter_journal_replay *replay)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < pool->blacklist_nr; i++)
		if (pool->blacklist[i].last >= replay->oldest_seen_seq)
			pool->blacklist[nr++] = pool->blacklist[i];
	if (replay->blacklist_first <= replay->blacklist_last) {
		assert_true(nr < TER_BLACKLIST_MAX);
		pool->blacklist[nr].first = replay->blacklist_first;
		pool->blacklist[nr++].last = replay->blacklist_last;
	}
	pool->blacklist_nr = nr;
	copy_blacklist(pool);
}

void pool_open(struct pool *pool, bool fresh)
{
	struct ter_btrees_config config = { .exec = pool->exec, .cache_bytes = 600 << 10, .on_counters = on_counters, .on_error = on_error, .on_arg = pool };
	struct ter_alloc_config alloc_config = { .exec = pool->exec, .sb = &pool->handle };
	struct ter_journal_replay *replay = NULL;
	struct ter_error error = { 0 };
	struct ter_btree_hooks hooks;

	atomic_store(&pool->errors, 0);
	make_sb(pool);
	config.sb = &pool->handle;
	config.members = alloc_config.members = pool->members;
	assert_int_equal(ter_alloc_new(&alloc_config, &pool->alloc), 0);
	assert_int_equal(ter_btrees_new(&config, &pool->bt), 0);
	ter_alloc_set_btrees(pool->alloc, pool->bt);
	ter_alloc_hooks(pool->alloc, &hooks);
	ter_btrees_set_hooks(pool->bt, &hooks);
	if (!fresh) {
		if (ter_journal_read(pool->exec, pool->sb, pool->members, &replay, &error) < 0)
			fail_msg("%s", error.text);
		note_blacklist(pool, replay);
		replay_roots(pool, replay);
		for (int level = TER_BTREE_DEPTH_MAX; level >= 0; level--)
			replay_level(pool, replay, level);
	}
	start_journal(pool, replay);
	if (replay) {
		if (replay->nr)
			ter_btrees_replay_done(pool->bt, replay->entry[0].seq);
		ter_journal_replay_done(pool->journal);
		assert_int_equal(ter_alloc_load(pool->alloc), 0);
	}
	ter_journal_replay_free(replay);
	for (unsigned i = 0; i < POOL_DEVS && fresh; i++)
		assert_int_equal(ter_alloc_init_member(pool->alloc, i), 0);
}

void pool_run(struct pool *pool)
{
	assert_int_equal(ter_btrees_start(pool->bt), 0);
	assert_int_equal(ter_alloc_start(pool->alloc), 0);
	pool->running = true;
}

static void drop(struct pool *pool)
{
	ter_alloc_stop(pool->alloc);
	ter_btrees_stop(pool->bt);
	ter_journal_free(TAKE_PTR(pool->journal));
	ter_btrees_free(TAKE_PTR(pool->bt));
	ter_alloc_free(TAKE_PTR(pool->alloc));
	for (unsigned i = 0; i < POOL_DEVS; i++)
		ter_bdev_close(pool->members->dev[i].bdev);
	ter_lock_destroy(&pool->handle.lock);
	ter_lock_destroy(&pool->handle.write_lock);
	free(TAKE_PTR(pool->region));
	free(TAKE_PTR(pool->sb));
	free(TAKE_PTR(pool->members));
	pool->running = false;
}

void pool_crash(struct pool *pool)
{
	ter_journal_halt(pool->journal, -EIO);
	drop(pool);
}

void pool_close(struct pool *pool)
{
	unsigned clean = 0;
	uint64_t seq;

	ter_alloc_stop(pool->alloc);
	for (unsigned i = 0; clean < 2; i++) {
		int r = ter_btrees_flush(pool->bt);

		assert_true(r >= 0 && i < 200);
		clean = r ? 0 : clean + 1;
	}
	ter_btrees_stop(pool->bt);
	assert_int_equal(ter_journal_stop(pool->journal, &seq), 0);
	drop(pool);
}

/* --- checking --- */

struct refs {
	struct pool *pool;
	unsigned pointers, missing, backs;
};

static void expect_back(struct refs *refs, unsigned dev_idx, uint64_t sector, uint32_t gen, uint8_t btree, uint8_t level, struct ter_pos pos)
{
	const struct ter_dev *dev = &refs->pool->members->dev[dev_idx];
	struct ter_bucket_value v = { 0 };
	struct ter_backpointer bp = { 0 };
	struct ter_trans trans;
	struct ter_key key;
	bool good;

	ter_trans_init(&trans, refs->pool->bt, 0);
	good = ter_trans_get(&trans, TER_BTREE_BACKPOINTERS, ter_backpointer_pos(dev_idx, sector, 0), &key) == 0 && ter_backpointer_decode(&key, dev, &bp) == 0;
	good = good && ter_trans_get(&trans, TER_BTREE_ALLOC, ter_bucket_pos(dev_idx, sector / dev->bucket_sectors), &key) == 0 &&
	       ter_bucket_decode(&key, dev, &v) == 0;
	ter_trans_exit(&trans);
	refs->pointers++;
	refs->missing += !good || bp.btree != btree || bp.level != level || ter_pos_cmp(bp.pos, pos) || v.gen != gen;
}

static int see_node(struct refs *refs, uint8_t btree, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	for (unsigned i = 0; i < ptrs->nr; i++)
		expect_back(refs, ptrs->ptr[i].dev, ptrs->ptr[i].sector, ptrs->ptr[i].gen, btree, (uint8_t)(level + 1), max);
	return 0;
}

struct nodes {
	unsigned nr;
	struct {
		unsigned level;
		struct ter_pos max;
		struct ter_node_ptrs ptrs;
	} node[2000];
};

static int note_node(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	struct nodes *nodes = arg;

	assert_true(nodes->nr < ARRAY_SIZE(nodes->node));
	nodes->node[nodes->nr].level = level;
	nodes->node[nodes->nr].max = max;
	nodes->node[nodes->nr++].ptrs = *ptrs;
	return 0;
}

static int count_key(void *arg, const struct ter_key *key)
{
	++*(unsigned *)arg;
	return 0;
}

static void see_extents(struct refs *refs)
{
	struct ter_pos from = TER_POS_MIN;
	struct ter_trans trans;
	struct ter_key key;

	for (;;) {
		struct pool_extent e;

		ter_trans_init(&trans, refs->pool->bt, 0);
		if (ter_trans_next(&trans, TER_BTREE_EXTENTS, from, TER_POS_MAX, &key) < 0)
			break;
		assert_int_equal(key.val_bytes, sizeof(e));
		memcpy(&e, key.val, sizeof(e));
		from = ter_pos_next(key.pos);
		for (unsigned i = 0; i < e.nr; i++)
			expect_back(refs, e.ptr[i].dev, e.ptr[i].sector, e.ptr[i].gen, TER_BTREE_EXTENTS, 0, key.pos);
		ter_trans_exit(&trans);
	}
	ter_trans_exit(&trans);
}

static void report(void *arg, const char *sentence)
{
	print_message("%s\n", sentence);
}

void pool_assert_sound(struct pool *pool)
{
	struct refs refs = { .pool = pool };
	struct nodes *nodes = malloc(sizeof(*nodes));

	assert_false(pool->running);
	assert_int_equal(ter_alloc_check(pool->alloc, report, NULL), 0);
	for (unsigned id = 0; id < TER_BTREE_NR; id++) {
		nodes->nr = 0;
		assert_int_equal(ter_btree_walk_nodes(pool->bt, (enum ter_btree_id)id, note_node, nodes), 0);
		for (unsigned i = 0; i < nodes->nr; i++)
			see_node(&refs, (uint8_t)id, nodes->node[i].level, nodes->node[i].max, &nodes->node[i].ptrs);
	}
	free(nodes);
	see_extents(&refs);
	assert_int_equal(ter_btree_scan(pool->bt, TER_BTREE_BACKPOINTERS, TER_POS_MIN, TER_POS_MAX, 0, count_key, &refs.backs, NULL), 0);
	if (refs.missing || refs.backs != refs.pointers)
		fail_msg("%u pointers, %u of them without their back reference; %u back references", refs.pointers, refs.missing, refs.backs);
}
