/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rig of the real rooms, on simulated members. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "alloc/alloc_check.h"
#include "data/fake_algos.h"
#include "fs_rig.h"
#include "io/sim.h"
#include "journal/journal_encode.h"
#include "util/mem.h"

#define DEVS 2
#define DEV_BYTES TER_MIB(512)
#define BUCKET_BYTES TER_KIB(256)
#define JOURNAL_BUCKETS 32
#define REGION_BYTES TER_MIB(8)
#define FLUSH_PASSES_MAX 1000

const bool rig_is_real = true;

struct real {
	struct rig rig;
	struct ter_sim *sim;
	struct ter_io *io;
	struct ter_sb *sb;
	struct ter_sb_handle handle;
	struct ter_members *members;
	struct ter_codecs codecs;
	struct ter_journal *journal;
	struct ter_alloc *alloc;
	struct ter_data *data;
	void *journal_region, *data_region;
	bool formatted, clean;
	uint64_t next_seq;
	uint64_t cut_seed;
	void (*fn)(struct rig *rig, void *arg);
	void *arg;
};

static struct real *real_of(struct rig *rig)
{
	return ter_container_of(rig, struct real, rig);
}

/* --- callbacks --- */

static unsigned get_roots(void *arg, struct ter_root *roots, unsigned max)
{
	return ter_btrees_get_roots(((struct real *)arg)->rig.btrees, roots, max);
}

static void get_clock(void *arg, uint64_t *ret_next_node_seq, uint64_t *ret_next_inum)
{
	struct real *r = arg;

	*ret_next_node_seq = ter_btrees_next_node_seq(r->rig.btrees);
	*ret_next_inum = ter_vfs_next_inum(r->rig.vfs);
}

static void on_error(void *arg, int r, const char *text)
{
	if (r != -ESHUTDOWN && !ter_sim_power_is_off(((struct real *)arg)->sim))
		print_error("error %d: %s\n", r, text);
}

static void on_damage(void *arg, unsigned dev_idx, uint64_t inum, uint64_t offset_bytes, bool repaired)
{
	(void)arg;
	print_error("damage on member %u, inode %llu, byte %llu, repaired %d\n", dev_idx, (unsigned long long)inum, (unsigned long long)offset_bytes, repaired);
}

/* --- members --- */

static void make_members(struct real *r)
{
	r->members->nr_slots = DEVS;
	for (unsigned i = 0; i < DEVS; i++) {
		struct ter_dev *dev = &r->members->dev[i];
		char path[16];

		snprintf(path, sizeof(path), "/dev%u", i);
		assert_int_equal(ter_sim_add(r->sim, path, DEV_BYTES, 512), 0);
		*dev = (struct ter_dev){
			.idx = i, .used = true, .uuid[0] = (uint8_t)(i + 1), .state = TER_DEV_RW, .durability = 1, .discard = true, .bytes = DEV_BYTES,
			.bucket_sectors = BUCKET_BYTES / 512, .first_bucket = (TER_SB_AREA_BYTES + BUCKET_BYTES - 1) / BUCKET_BYTES,
			.buckets_nr = (DEV_BYTES - TER_SB_TAIL_BYTES) / BUCKET_BYTES,
		};
		dev->journal[0] = (struct ter_bucket_range){ dev->first_bucket, JOURNAL_BUCKETS };
	}
}

static void open_members(struct real *r)
{
	for (unsigned i = 0; i < DEVS; i++) {
		char path[16];

		snprintf(path, sizeof(path), "/dev%u", i);
		assert_int_equal(ter_bdev_open(r->io, path, 0, &r->members->dev[i].bdev, NULL), 0);
	}
}

static void close_members(struct real *r)
{
	for (unsigned i = 0; i < DEVS; i++)
		ter_bdev_close(TAKE_PTR(r->members->dev[i].bdev));
}

/* --- start --- */

static void replay_keys(struct real *r, const struct ter_journal_replay *replay)
{
	struct ter_root roots[TER_BTREE_NR];
	bool seen[TER_BTREE_NR] = { 0 };
	struct ter_jrec rec;

	for (unsigned i = 0; i < replay->nr; i++)
		for (uint32_t pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);)
			if (rec.type == TER_JREC_ROOT) {
				struct ter_root root;

				assert_int_equal(ter_jrec_root_decode(&rec, &root), 0);
				roots[root.btree] = root;
				seen[root.btree] = true;
			}
	for (unsigned b = 0; b < TER_BTREE_NR; b++)
		if (seen[b])
			assert_int_equal(ter_btrees_set_root(r->rig.btrees, &roots[b]), 0);
	for (int level = TER_BTREE_DEPTH_MAX; level >= 0; level--)
		for (unsigned i = 0; i < replay->nr; i++)
			for (uint32_t pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);)
				if (rec.type == TER_JREC_KEY && rec.level == level)
					assert_int_equal(ter_btrees_replay_key(r->rig.btrees, rec.btree, rec.level, rec.payload), 0);
}

static void replay_one(struct real *r, uint64_t seq, const struct ter_jrec *rec)
{
	struct ter_jrec_data_done done;
	struct ter_jrec_data d;
	struct ter_file *file;
	int q;

	if (rec->type == TER_JREC_DATA) {
		assert_int_equal(ter_jrec_data_decode(rec, &d), 0);
		q = ter_vfs_replay_file(r->rig.vfs, d.inum, TER_SNAPSHOT_ROOT, &file);
		if (q == -ENOENT)
			return;
		assert_int_equal(q, 0);
		assert_int_equal(ter_file_replay_data(r->data, file, seq, d.offset_bytes, d.data, d.bytes), 0);
		ter_vfs_replay_put(r->rig.vfs, file);
	} else if (rec->type == TER_JREC_DATA_DONE) {
		assert_int_equal(ter_jrec_data_done_decode(rec, &done), 0);
		q = ter_vfs_replay_file(r->rig.vfs, done.inum, TER_SNAPSHOT_ROOT, &file);
		if (q == -ENOENT)
			return;
		assert_int_equal(q, 0);
		ter_file_replay_done(r->data, file, done.from_bytes, done.to_bytes, done.upto_seq);
		ter_vfs_replay_put(r->rig.vfs, file);
	}
}

static struct ter_jrec_clock read_clock(const struct real *r, const struct ter_journal_replay *replay)
{
	struct ter_jrec_clock clock, max = { .next_node_seq = ter_max(r->sb->next_node_seq, (uint64_t)1), .next_inum = r->sb->next_inum };
	struct ter_jrec rec;

	for (unsigned i = 0; replay && i < replay->nr; i++)
		for (uint32_t pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);)
			if (rec.type == TER_JREC_CLOCK && ter_jrec_clock_decode(&rec, &clock) == 0) {
				max.next_node_seq = ter_max(max.next_node_seq, clock.next_node_seq);
				max.next_inum = ter_max(max.next_inum, clock.next_inum);
			}
	return max;
}

static void build(struct real *r, const struct ter_jrec_clock *clock)
{
	const struct ter_alloc_config alloc = { .exec = r->rig.exec, .sb = &r->handle, .members = r->members };
	struct ter_btrees_config bt = {
		.exec = r->rig.exec, .sb = &r->handle, .members = r->members, .cache_bytes = 32 << 20, .next_node_seq = clock->next_node_seq,
		.on_counters = ter_alloc_on_counters, .on_error = on_error,
	};
	struct ter_btree_hooks hooks;

	assert_int_equal(ter_alloc_new(&alloc, &r->alloc), 0);
	bt.on_arg = r->alloc;
	bt.on_error = NULL;
	assert_int_equal(ter_btrees_new(&bt, &r->rig.btrees), 0);
	ter_alloc_set_btrees(r->alloc, r->rig.btrees);
	ter_alloc_hooks(r->alloc, &hooks);
	ter_btrees_set_hooks(r->rig.btrees, &hooks);
}

static void build_upper(struct real *r, const struct ter_jrec_clock *clock)
{
	const struct ter_data_config data = {
		.exec = r->rig.exec, .sb = &r->handle, .members = r->members, .btrees = r->rig.btrees, .alloc = r->alloc, .codecs = &r->codecs,
		.region = r->data_region, .region_bytes = REGION_BYTES, .on_damage = on_damage, .on_arg = r,
	};

	assert_int_equal(ter_data_new(&data, &r->data), 0);
	assert_int_equal(ter_vfs_new(&(struct ter_vfs_config){
				 .exec = r->rig.exec, .sb = &r->handle, .btrees = r->rig.btrees, .alloc = r->alloc, .data = r->data,
				 .next_inum = clock->next_inum, .cache_bytes = r->rig.cache_bytes,
			 }, &r->rig.vfs), 0);
}

static void start_journal(struct real *r, const struct ter_journal_replay *replay)
{
	size_t bytes = ter_journal_region_bytes(r->sb, r->members);
	struct ter_error error = { 0 };
	struct ter_journal_config config = {
		.exec = r->rig.exec, .sb = &r->handle, .members = r->members, .region_bytes = bytes, .get_roots = get_roots, .get_roots_arg = r,
		.get_clock = get_clock, .get_clock_arg = r, .on_error = on_error, .on_arg = r, .replay = replay,
	};

	r->journal_region = aligned_alloc(4096, ter_round_up(bytes, 4096));
	config.region = r->journal_region;
	if (ter_journal_start(&config, replay ? replay->next_seq : r->next_seq, &r->journal, &error) < 0)
		fail_msg("%s", error.text);
	ter_btrees_set_journal(r->rig.btrees, r->journal);
	ter_alloc_set_journal(r->alloc, r->journal);
	ter_data_set_journal(r->data, r->journal);
	ter_vfs_set_journal(r->rig.vfs, r->journal, false);
}

static struct ter_journal_replay *read_journal(struct real *r)
{
	struct ter_journal_replay *replay = NULL;
	struct ter_error error = { 0 };

	if (!r->formatted || r->clean)
		return NULL;
	if (ter_journal_read(r->rig.exec, r->sb, r->members, &replay, &error) < 0)
		fail_msg("%s", error.text);
	assert_true(replay->nr > 0);
	return replay;
}

static void start_tasks(struct real *r)
{
	assert_int_equal(ter_btrees_start(r->rig.btrees), 0);
	assert_int_equal(ter_alloc_start(r->alloc), 0);
	assert_int_equal(ter_data_start(r->data), 0);
}

static void start(struct real *r)
{
	struct ter_journal_replay *replay;
	struct ter_jrec_clock clock;

	open_members(r);
	replay = read_journal(r);
	clock = read_clock(r, replay);
	build(r, &clock);
	if (replay)
		replay_keys(r, replay);
	for (unsigned i = 0; r->clean && i < TER_BTREE_ROOTS_MAX; i++)
		if (r->sb->roots[i].present)
			assert_int_equal(ter_btrees_set_root(r->rig.btrees, &r->sb->roots[i]), 0);
	r->clean = false;
	build_upper(r, &clock);
	for (unsigned i = 0; replay && i < replay->nr; i++) {
		struct ter_jrec rec;

		for (uint32_t pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);)
			replay_one(r, replay->entry[i].seq, &rec);
	}
	if (replay && replay->blacklist_first <= replay->blacklist_last) {
		r->sb->blacklist[r->sb->blacklist_nr].first = replay->blacklist_first;
		r->sb->blacklist[r->sb->blacklist_nr++].last = replay->blacklist_last;
	}
	assert_int_equal(ter_alloc_load(r->alloc), 0);
	start_journal(r, replay);
	ter_journal_want_roots(r->journal);
	if (replay)
		ter_btrees_replay_done(r->rig.btrees, replay->entry[0].seq);
	start_tasks(r);
	if (replay)
		ter_journal_replay_done(r->journal);
	ter_journal_replay_free(replay);
	if (r->formatted) {
		assert_int_equal(ter_vfs_reap_orphans(r->rig.vfs), 0);
		return;
	}
	for (unsigned i = 0; i < DEVS; i++)
		assert_int_equal(ter_alloc_init_member(r->alloc, i), 0);
	assert_int_equal(ter_vfs_format(r->rig.vfs), 0);
	assert_int_equal(ter_journal_flush(r->journal, ter_journal_open_seq(r->journal)), 0);
	r->formatted = true;
}

/* --- stop --- */

static void free_rooms(struct real *r)
{
	ter_vfs_set_journal(r->rig.vfs, NULL, true);
	ter_data_free(TAKE_PTR(r->data));
	ter_vfs_free(TAKE_PTR(r->rig.vfs));
	ter_alloc_free(TAKE_PTR(r->alloc));
	ter_btrees_free(TAKE_PTR(r->rig.btrees));
	ter_journal_free(TAKE_PTR(r->journal));
	free(TAKE_PTR(r->journal_region));
	close_members(r);
}

static void flush_everything(struct real *r)
{
	unsigned idle = 0;

	for (unsigned pass = 0; pass < FLUSH_PASSES_MAX && idle < 2; pass++) {
		int q;

		assert_int_equal(ter_data_flush_all(r->data), 0);
		assert_int_equal(ter_vfs_write_inodes(r->rig.vfs), 0);
		q = ter_btrees_flush(r->rig.btrees);
		assert_true(q >= 0);
		idle = q ? 0 : idle + 1;
	}
	assert_int_equal(idle, 2);
}

static void stop(struct real *r)
{
	uint64_t last_seq;

	ter_vfs_set_journal(r->rig.vfs, r->journal, true);
	flush_everything(r);
	ter_data_stop(r->data);
	ter_alloc_stop(r->alloc);
	flush_everything(r);
	ter_btrees_stop(r->rig.btrees);
	assert_int_equal(ter_journal_stop(r->journal, &last_seq), 0);
	memset(r->sb->roots, 0, sizeof(r->sb->roots));
	(void)ter_btrees_get_roots(r->rig.btrees, r->sb->roots, TER_BTREE_ROOTS_MAX);
	r->next_seq = last_seq + 1;
	r->sb->next_node_seq = ter_btrees_next_node_seq(r->rig.btrees);
	r->sb->next_inum = ter_vfs_next_inum(r->rig.vfs);
	r->clean = true;
	free_rooms(r);
}

void rig_remount(struct rig *rig)
{
	stop(real_of(rig));
	start(real_of(rig));
}

void rig_crash(struct rig *rig)
{
	struct real *r = real_of(rig);
	const struct ter_sim_cut cut = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .seed = rnd(&r->cut_seed) };

	ter_sim_power_off_after(r->sim, 0);
	ter_journal_halt(r->journal, -ESHUTDOWN);
	ter_data_stop(r->data);
	ter_alloc_stop(r->alloc);
	ter_btrees_stop(r->rig.btrees);
	free_rooms(r);
	ter_sim_cut(r->sim, &cut);
	start(r);
}

void rig_unfreeze(struct rig *rig)
{
	ter_vfs_set_journal(rig->vfs, real_of(rig)->journal, false);
}

void rig_restarts(struct rig *rig, unsigned every)
{
	(void)rig;
	(void)every;
}

/* --- a run --- */

static void tell(void *arg, const char *sentence)
{
	(void)arg;
	print_error("%s\n", sentence);
}

static void run(void *arg)
{
	struct real *r = arg;

	r->sim = ter_sim_new(r->rig.exec, r->rig.seed, &r->io);
	assert_non_null(r->sim);
	make_members(r);
	ter_sim_record(r->sim, true);
	start(r);
	r->fn(&r->rig, r->arg);
	assert_int_equal(rig_check(&r->rig), 0);
	stop(r);
	start(r);
	assert_int_equal(rig_check(&r->rig), 0);
	assert_int_equal(ter_alloc_check(r->alloc, tell, NULL), 0);
	stop(r);
	ter_io_free(r->io);
}

static void run_in(struct ter_exec *exec, uint64_t seed, size_t cache_bytes, void (*fn)(struct rig *rig, void *arg), void *arg)
{
	struct real *r = calloc(1, sizeof(*r));

	printf("seed: TER_TEST_SEED=%llu\n", (unsigned long long)seed);
	r->rig = (struct rig){ .exec = exec, .seed = seed, .cache_bytes = cache_bytes };
	r->fn = fn;
	r->arg = arg;
	r->next_seq = 1;
	r->cut_seed = seed | 1;
	r->sb = ter_zalloc(sizeof(*r->sb));
	r->members = ter_zalloc(sizeof(*r->members));
	ter_options_default(&r->sb->options);
	r->sb->options.bucket_size = BUCKET_BYTES;
	r->sb->options.btree_node_size = TER_KIB(64);
	r->sb->options.data_replicas = r->sb->options.metadata_replicas = 2;
	r->sb->version_major = TER_FORMAT_MAJOR;
	r->sb->uuid[0] = r->sb->user_uuid[0] = 9;
	memcpy(r->sb->hash_key, "0123456789abcdef", 16);
	r->sb->initialized = true;
	assert_int_equal(ter_codecs_add(&r->codecs, &fake_crc.algo), 0);
	assert_true(ter_sb_algo_slot(r->sb, &r->codecs, TERRACE_CHECKSUM, "crc32c") > 0);
	r->handle = (struct ter_sb_handle){ .exec = exec, .sb = r->sb, .members = r->members };
	ter_lock_init(&r->handle.lock, TER_RANK_SB);
	ter_lock_init(&r->handle.write_lock, TER_RANK_SB_WRITE);
	r->data_region = aligned_alloc(4096, REGION_BYTES);
	if (exec->coop)
		assert_int_equal(ter_coop_run(exec, run, r), 0);
	else
		run(r);
	free(r->data_region);
	ter_lock_destroy(&r->handle.lock);
	ter_lock_destroy(&r->handle.write_lock);
	free(r->members);
	ter_sb_free(r->sb);
	free(r);
	ter_exec_free(exec);
}

void rig_run(uint64_t seed, size_t cache_bytes, void (*fn)(struct rig *rig, void *arg), void *arg)
{
	run_in(ter_exec_new_coop(seed), seed, cache_bytes, fn, arg);
}

void rig_run_threads(uint64_t seed, size_t cache_bytes, void (*fn)(struct rig *rig, void *arg), void *arg)
{
	run_in(ter_exec_new_threads(), seed, cache_bytes, fn, arg);
}
