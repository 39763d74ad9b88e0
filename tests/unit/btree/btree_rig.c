/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Btrees on simulated devices: see btree_rig.h. */
#include "btree_rig.h"

#include "btree/node_format.h"
#include "journal/journal_encode.h"
#include "sb/sb_format.h"
#include "util/crc32c.h"
#include "util/mem.h"

#define SB_BYTES 262144u
#define NODES_COUNTER TER_POS(1, 0, 0)

const struct btree_rig_config btree_rig_tiny = {
	.devs = 1, .replicas = 1, .node_bytes = 16384, .block_bytes = 512, .bucket_bytes = 65536, .journal_buckets = 32, .cache_bytes = 600 << 10, .slots = 60000,
};

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

uint64_t btree_rig_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t btree_rig_seed(void)
{
	const char *text = getenv("TER_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 20241125;

	print_message("TER_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

const char *btree_rig_path(unsigned dev)
{
	static const char *const path[RIG_DEVS_MAX] = { "/dev/rig0", "/dev/rig1", "/dev/rig2" };

	return path[dev];
}

/* --- the allocator --- */

static uint64_t first_node_byte(const struct btree_rig *rig)
{
	return SB_BYTES + (uint64_t)rig->config.journal_buckets * rig->config.bucket_bytes;
}

static unsigned slot_of(const struct btree_rig *rig, uint64_t sector)
{
	return (unsigned)((sector * 512 - first_node_byte(rig)) / rig->config.node_bytes);
}

static int node_alloc(void *arg, bool nowait, struct ter_node_ptrs *ret_ptrs)
{
	struct btree_rig *rig = arg;
	int r = -atomic_load(&rig->fail_alloc);
	unsigned dev, slot;

	memset(ret_ptrs, 0, sizeof(*ret_ptrs));
	ter_lock_acquire(&rig->lock);
	if (r < 0 && rig->fail_alloc_after) {
		rig->fail_alloc_after--;
		r = 0;
	}
	for (unsigned i = 0; i < rig->config.replicas && r == 0; i++) {
		dev = rig->next_dev++ % rig->config.devs;
		while (rig->next_slot[dev] < rig->config.slots && rig->slot_used[dev][rig->next_slot[dev]])
			rig->next_slot[dev]++;
		if (rig->next_slot[dev] == rig->config.slots)
			r = -ENOSPC;
		slot = rig->next_slot[dev]++;
		ret_ptrs->ptr[i] = (struct ter_node_ptr){ .dev = (uint8_t)dev, .sector = (first_node_byte(rig) + (uint64_t)slot * rig->config.node_bytes) / 512 };
		ret_ptrs->nr++;
	}
	ter_lock_release(&rig->lock);
	return r;
}

static void node_alloc_done(void *arg, const struct ter_node_ptrs *ptrs, bool linked)
{
}

struct alloc_val {
	uint64_t node_seq;
	uint8_t btree, level, pad[222]; /* long, so that a leaf of ALLOC splits while nodes are made for it */
};

static int node_stage(void *arg, struct ter_trans *trans, enum ter_btree_id btree, unsigned level, struct ter_pos pos, const struct ter_node_ptrs *ptrs, int sign)
{
	struct btree_rig *rig = arg;
	struct alloc_val val = { .node_seq = ptrs->node_seq, .btree = btree, .level = (uint8_t)level };
	struct ter_key key = { .type = TER_KEY_ALLOC, .val = &val, .val_bytes = sizeof(val) }, old;
	int64_t delta = sign;
	int r;

	for (unsigned i = 0; i < ptrs->nr; i++) {
		key.pos = TER_POS(ptrs->ptr[i].dev, slot_of(rig, ptrs->ptr[i].sector), 0);
		r = ter_trans_get(trans, TER_BTREE_ALLOC, key.pos, &old);
		if (sign > 0 ? r != -ENOENT : r != 0)
			return r < 0 ? r : -EUCLEAN;
		r = ter_trans_update(trans, TER_BTREE_ALLOC, key.pos, sign > 0 ? TER_KEY_ABSENT : &old, sign > 0 ? &key : NULL);
		if (r < 0)
			return r;
	}
	return ter_trans_add(trans, NODES_COUNTER, &delta, 1);
}

static void on_counters(void *arg, struct ter_pos pos, const int64_t *deltas, unsigned nr)
{
	struct btree_rig *rig = arg;

	if (!ter_pos_cmp(pos, NODES_COUNTER))
		rig->nodes_seen += deltas[0]; /* one leaf: its lock guards this */
}

static void on_error(void *arg, int r, const char *text)
{
	struct btree_rig *rig = arg;

	atomic_fetch_add(&rig->errors, 1);
	ter_lock_acquire(&rig->lock);
	snprintf(rig->last_error, sizeof(rig->last_error), "%s", text);
	ter_lock_release(&rig->lock);
	if (getenv("TER_TEST_VERBOSE"))
		print_message("[%d] %s\n", r, text);
}

/* --- T7, watched at the door of the devices --- */

static struct ter_io_ops watching_ops;
static void (*real_submit)(struct ter_bio *bio);
static struct btree_rig *watching;

static void watch_write(struct btree_rig *rig, const struct ter_bio *bio)
{
	uint64_t uuid, magic;
	const struct ter_bset_disk *bset = bio->iov[0].iov_base;

	memcpy(&uuid, "pool-uui", 8);
	magic = ter_le64_get(bset->magic);
	if (magic == (TER_NODE_MAGIC ^ uuid))
		bset = (const struct ter_bset_disk *)((const struct ter_node_disk *)bio->iov[0].iov_base + 1);
	magic = ter_le64_get(bset->magic);
	if (magic != (TER_BSET_MAGIC ^ uuid) || ter_le64_get(bset->journal_seq) > ter_journal_durable_seq(rig->journal))
		abort(); /* may be on any task: not cmocka's to catch */
}

static void watching_submit(struct ter_bio *bio)
{
	if (bio->op == TER_BIO_WRITE && bio->offset_bytes >= first_node_byte(watching))
		watch_write(watching, bio);
	real_submit(bio);
}

/* --- life --- */

struct btree_rig *btree_rig_new(struct ter_exec *exec, uint64_t seed, const struct btree_rig_config *config)
{
	struct btree_rig *rig = calloc(1, sizeof(*rig));
	uint64_t bytes;

	rig->config = *config;
	rig->exec = exec;
	ter_lock_init(&rig->lock, TER_RANK_LEAF);
	rig->sim = ter_sim_new(exec, seed, &rig->io);
	assert_non_null(rig->sim);
	watching = rig;
	real_submit = rig->io->ops->submit;
	watching_ops = *rig->io->ops;
	watching_ops.submit = watching_submit;
	rig->io->ops = &watching_ops;
	bytes = first_node_byte(rig) + (uint64_t)config->slots * config->node_bytes + 65536;
	for (unsigned i = 0; i < config->devs; i++)
		assert_int_equal(ter_sim_add(rig->sim, btree_rig_path(i), bytes, 512), 0);
	return rig;
}

void btree_rig_free(struct btree_rig *rig)
{
	assert_null(rig->bt);
	ter_io_free(rig->io);
	ter_lock_destroy(&rig->lock);
	free(rig);
}

static void know_all_sets(struct btree_rig *rig)
{
	for (unsigned mask = 1; mask < 1u << rig->config.devs; mask++) {
		struct ter_replicas_entry entry = { .data_type = TER_DATA_JOURNAL, .nr_required = 1 };

		for (unsigned i = 0; i < rig->config.devs; i++)
			if (mask >> i & 1)
				entry.devs[entry.nr_devs++] = (uint8_t)i;
		assert_int_equal(ter_sb_replicas_add(rig->sb, &entry), 0);
	}
}

static void make_sb(struct btree_rig *rig)
{
	struct ter_error error = { 0 };

	rig->sb = calloc(1, sizeof(*rig->sb));
	rig->members = calloc(1, sizeof(*rig->members));
	memcpy(rig->sb->uuid, "pool-uuid-bytes", 16);
	ter_options_default(&rig->sb->options);
	rig->sb->options.block_size = rig->config.block_bytes;
	rig->sb->options.btree_node_size = rig->config.node_bytes;
	rig->sb->options.bucket_size = rig->config.bucket_bytes;
	rig->sb->options.metadata_replicas = (uint8_t)rig->config.replicas;
	rig->sb->algos.slot[1] = (struct ter_algo_slot){ .algo = &crc_algo.algo, .kind = TERRACE_CHECKSUM, .uuid = { 1 }, .name = "crc32c", .format = 1 };
	rig->handle = (struct ter_sb_handle){ .exec = rig->exec, .sb = rig->sb, .members = rig->members };
	ter_lock_init(&rig->handle.lock, TER_RANK_SB);
	ter_lock_init(&rig->handle.write_lock, TER_RANK_SB_WRITE);
	rig->members->nr_slots = rig->config.devs;
	for (unsigned i = 0; i < rig->config.devs; i++) {
		struct ter_dev *dev = &rig->members->dev[i];

		dev->idx = i;
		dev->used = true;
		dev->state = TER_DEV_RW;
		dev->durability = 1;
		if (ter_bdev_open(rig->io, btree_rig_path(i), 0, &dev->bdev, &error) < 0)
			fail_msg("%s", error.text);
		dev->bytes = dev->bdev->info.bytes;
		dev->bucket_sectors = rig->config.bucket_bytes / 512;
		dev->buckets_nr = dev->bytes / rig->config.bucket_bytes;
		dev->first_bucket = SB_BYTES / rig->config.bucket_bytes;
		dev->journal[0] = (struct ter_bucket_range){ .first = dev->first_bucket, .nr = rig->config.journal_buckets };
		rig->slot_used[i] = calloc(1, rig->config.slots);
		rig->next_slot[i] = 0;
	}
	know_all_sets(rig);
}

static unsigned get_roots(void *arg, struct ter_root *roots, unsigned max)
{
	struct btree_rig *rig = arg;

	return ter_btrees_get_roots(rig->bt, roots, max);
}

static void get_clock(void *arg, uint64_t *ret_next_node_seq, uint64_t *ret_next_inum)
{
	struct btree_rig *rig = arg;

	*ret_next_node_seq = ter_btrees_next_node_seq(rig->bt);
	*ret_next_inum = 1;
}

/* Roots of the newest entry that has any, then keys, higher levels first, each level in order of the journal. */
static int replay_all(struct btree_rig *rig, const struct ter_journal_replay *replay)
{
	struct ter_jrec rec;
	uint32_t pos;
	int r;

	for (unsigned i = 0; i < replay->nr; i++)
		for (pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);) {
			struct ter_root root;

			if (rec.type != TER_JREC_ROOT)
				continue;
			r = ter_jrec_root_decode(&rec, &root);
			if (r == 0)
				r = ter_btrees_set_root(rig->bt, &root);
			if (r < 0)
				return r;
		}
	for (int level = TER_BTREE_DEPTH_MAX; level >= 0; level--)
		for (unsigned i = 0; i < replay->nr; i++)
			for (pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);) {
				if (rec.type != TER_JREC_KEY || rec.level != level)
					continue;
				assert_true(ter_key_check(rec.payload, rec.bytes) == (int)rec.bytes);
				r = ter_btrees_replay_key(rig->bt, rec.btree, rec.level, rec.payload);
				if (r < 0)
					return r;
			}
	return 0;
}

static int note_used(void *arg, const struct ter_key *key)
{
	struct btree_rig *rig = arg;

	assert_true(key->pos.inode < rig->config.devs && key->pos.offset < rig->config.slots);
	rig->slot_used[key->pos.inode][key->pos.offset] = 1;
	return 0;
}

static int start_journal(struct btree_rig *rig, const struct ter_journal_replay *replay, uint64_t next_seq)
{
	struct ter_journal_config config = {
		.exec = rig->exec, .sb = &rig->handle, .members = rig->members,
		.region_bytes = ter_journal_region_bytes(rig->sb, rig->members),
		.get_roots = get_roots, .get_roots_arg = rig, .get_clock = get_clock, .get_clock_arg = rig,
		.on_error = on_error, .on_arg = rig, .replay = replay,
	};
	struct ter_error error = { 0 };
	int r;

	free(rig->region);
	rig->region = ter_malloc_aligned(config.region_bytes, 4096);
	config.region = rig->region;
	r = ter_journal_start(&config, next_seq, &rig->journal, &error);
	if (r < 0)
		fail_msg("%s", error.text);
	return r;
}

static void set_blacklist(struct btree_rig *rig)
{
	for (unsigned i = 0; i < rig->blacklist_nr; i++) {
		rig->sb->blacklist[i].first = rig->blacklist[i].first;
		rig->sb->blacklist[i].last = rig->blacklist[i].last;
	}
	rig->sb->blacklist_nr = rig->blacklist_nr;
}

int btree_rig_open(struct btree_rig *rig, bool fresh)
{
	struct ter_btrees_config config = { .exec = rig->exec, .cache_bytes = rig->config.cache_bytes, .on_counters = on_counters, .on_error = on_error, .on_arg = rig };
	const struct ter_btree_hooks hooks = { .node_alloc = node_alloc, .node_alloc_done = node_alloc_done, .node_stage = node_stage, .arg = rig };
	struct ter_journal_replay *replay = NULL;
	struct ter_error error = { 0 };
	int r = 0;

	atomic_store(&rig->errors, 0);
	make_sb(rig);
	set_blacklist(rig);
	config.sb = &rig->handle;
	config.members = rig->members;
	assert_int_equal(ter_btrees_new(&config, &rig->bt), 0);
	if (!fresh) {
		r = ter_journal_read(rig->exec, rig->sb, rig->members, &replay, &error);
		if (r < 0) {
			print_message("%s\n", error.text);
			return r;
		}
		if (replay->blacklist_first <= replay->blacklist_last) {
			assert_true(rig->blacklist_nr < TER_BLACKLIST_MAX);
			rig->blacklist[rig->blacklist_nr].first = replay->blacklist_first;
			rig->blacklist[rig->blacklist_nr++].last = replay->blacklist_last;
			set_blacklist(rig);
		}
		r = replay_all(rig, replay);
		if (r < 0) {
			ter_journal_replay_free(replay);
			return r;
		}
	}
	(void)start_journal(rig, replay, replay ? replay->next_seq : 1);
	ter_btrees_set_journal(rig->bt, rig->journal);
	if (replay) {
		if (replay->nr)
			ter_btrees_replay_done(rig->bt, replay->entry[0].seq);
		ter_journal_replay_done(rig->journal);
		r = ter_btree_scan(rig->bt, TER_BTREE_ALLOC, TER_POS_MIN, TER_POS_MAX, 0, note_used, rig, NULL);
	}
	ter_journal_replay_free(replay);
	if (r < 0)
		return r;
	ter_btrees_set_hooks(rig->bt, &hooks);
	if (!rig->config.no_tasks)
		assert_int_equal(ter_btrees_start(rig->bt), 0);
	return 0;
}

static void drop(struct btree_rig *rig)
{
	if (rig->bt)
		ter_btrees_stop(rig->bt);
	ter_journal_free(TAKE_PTR(rig->journal));
	ter_btrees_free(TAKE_PTR(rig->bt));
	for (unsigned i = 0; i < rig->config.devs; i++) {
		ter_bdev_close(rig->members->dev[i].bdev);
		free(TAKE_PTR(rig->slot_used[i]));
	}
	ter_lock_destroy(&rig->handle.lock);
	ter_lock_destroy(&rig->handle.write_lock);
	free(TAKE_PTR(rig->region));
	free(TAKE_PTR(rig->sb));
	free(TAKE_PTR(rig->members));
	rig->nodes_seen = 0;
}

void btree_rig_crash(struct btree_rig *rig)
{
	if (rig->journal)
		ter_journal_halt(rig->journal, -EIO);
	drop(rig);
}

/* Returns the last sequence. */
static uint64_t stop(struct btree_rig *rig)
{
	unsigned clean = 0;
	uint64_t seq;
	int r;

	for (unsigned i = 0; clean < 2; i++) {
		r = ter_btrees_flush(rig->bt);
		assert_true(r >= 0 && i < 100);
		clean = r ? 0 : clean + 1;
	}
	ter_btrees_stop(rig->bt);
	assert_int_equal(ter_journal_stop(rig->journal, &seq), 0);
	return seq;
}

void btree_rig_renew_journal(struct btree_rig *rig)
{
	const uint64_t seq = stop(rig);

	ter_journal_free(TAKE_PTR(rig->journal));
	(void)start_journal(rig, NULL, seq + 1);
	ter_btrees_set_journal(rig->bt, rig->journal);
	assert_int_equal(ter_btrees_start(rig->bt), 0);
}

void btree_rig_close(struct btree_rig *rig)
{
	(void)stop(rig);
	drop(rig);
}

/* --- checking --- */

struct linked {
	struct btree_rig *rig;
	uint8_t *seen[RIG_DEVS_MAX];
	unsigned nodes, ptrs, accounted, wrong;
	uint64_t counted;
};

static int see_node(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	struct linked *l = arg;

	l->nodes++;
	for (unsigned i = 0; i < ptrs->nr; i++) {
		unsigned slot = slot_of(l->rig, ptrs->ptr[i].sector);

		assert_true(ptrs->ptr[i].dev < l->rig->config.devs && slot < l->rig->config.slots);
		l->wrong += l->seen[ptrs->ptr[i].dev][slot];
		l->seen[ptrs->ptr[i].dev][slot] = 1;
		l->ptrs++;
	}
	return 0;
}

static int see_alloc(void *arg, const struct ter_key *key)
{
	struct linked *l = arg;

	l->wrong += !l->seen[key->pos.inode][key->pos.offset];
	l->accounted++;
	return 0;
}

static int see_counter(void *arg, const struct ter_key *key)
{
	struct linked *l = arg;
	ter_le64 val;

	if (ter_pos_cmp(key->pos, NODES_COUNTER))
		return 0;
	memcpy(&val, key->val, 8);
	l->counted = ter_le64_get(val);
	return 0;
}

static uint64_t changes_nr(struct btree_rig *rig)
{
	struct ter_btree_stats stats;

	ter_btrees_get_stats(rig->bt, &stats);
	return stats.splits + stats.merges + stats.rewrites;
}

static int look(struct btree_rig *rig, struct linked *l)
{
	int r = 0;

	for (unsigned i = 0; i < rig->config.devs; i++)
		l->seen[i] = calloc(1, rig->config.slots);
	for (unsigned id = 0; id < TER_BTREE_NR && r == 0; id++)
		r = ter_btree_walk_nodes(rig->bt, id, see_node, l);
	if (r == 0)
		r = ter_btree_scan(rig->bt, TER_BTREE_ALLOC, TER_POS_MIN, TER_POS_MAX, 0, see_alloc, l, NULL);
	if (r == 0)
		r = ter_btree_scan(rig->bt, TER_BTREE_ACCOUNTING, TER_POS_MIN, TER_POS_MAX, 0, see_counter, l, NULL);
	for (unsigned i = 0; i < rig->config.devs; i++)
		free(l->seen[i]);
	return r;
}

unsigned btree_rig_check(struct btree_rig *rig)
{
	for (unsigned tries = 0; tries < 1000; tries++) {
		struct linked l = { .rig = rig };
		uint64_t before = changes_nr(rig);
		int r = look(rig, &l);

		if (changes_nr(rig) != before)
			continue; /* tasks changed the structure meanwhile: no one moment was seen */
		if (r == -ERESTART)
			continue;
		assert_int_equal(r, 0);
		if (l.wrong || l.accounted != l.ptrs || l.counted != l.nodes) {
			if (tries < 10)
				continue; /* the numbers are told a moment after the change */
			fail_msg("%u nodes, counted %llu; %u pointers, accounted %u; %u wrong", l.nodes, (unsigned long long)l.counted, l.ptrs, l.accounted, l.wrong);
		}
		return l.nodes;
	}
	fail_msg("the structure is never at rest");
	return 0;
}

/* --- helpers --- */

struct one {
	struct ter_pos pos;
	const void *val;
	uint32_t bytes;
};

static int put_one(struct ter_trans *trans, void *arg)
{
	const struct one *one = arg;
	struct ter_key key = { .pos = one->pos, .type = TER_KEY_XATTR, .val = one->val, .val_bytes = one->bytes };

	return ter_trans_update(trans, RIG_KEY, one->pos, TER_KEY_ANY, one->val ? &key : NULL);
}

int btree_rig_put(struct btree_rig *rig, unsigned flags, struct ter_pos pos, const void *val, uint32_t bytes, uint64_t *ret_seq)
{
	struct one one = { .pos = pos, .val = val, .bytes = bytes };

	return ter_trans_run(rig->bt, flags, put_one, &one, ret_seq);
}

int btree_rig_del(struct btree_rig *rig, unsigned flags, struct ter_pos pos, uint64_t *ret_seq)
{
	return btree_rig_put(rig, flags, pos, NULL, 0, ret_seq);
}

struct run {
	struct ter_exec *exec;
	void (*fn)(struct ter_exec *exec, void *arg);
	void *arg;
};

static void run_main(void *arg)
{
	struct run *run = arg;

	run->fn(run->exec, run->arg);
}

void btree_rig_run(bool coop, uint64_t seed, void (*fn)(struct ter_exec *exec, void *arg), void *arg)
{
	struct run run = { .exec = coop ? ter_exec_new_coop(seed) : ter_exec_new_threads(), .fn = fn, .arg = arg };

	assert_non_null(run.exec);
	if (coop)
		assert_int_equal(ter_coop_run(run.exec, run_main, &run), 0);
	else
		fn(run.exec, arg);
	ter_exec_free(run.exec);
}
