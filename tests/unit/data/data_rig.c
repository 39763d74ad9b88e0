/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rig for the data room. */
#include "data_rig.h"

#include "alloc/alloc_check.h"
#include "fake_algos.h"

struct fake_inode_disk {
	ter_le64 size, sectors;
};

uint64_t rig_seed(void)
{
	const char *text = getenv("TER_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 20240807;

	print_message("TER_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

uint64_t rig_random(struct rig *rig, uint64_t below)
{
	uint64_t z = (rig->seed += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % below;
}

/* --- inodes --- */

static int read_inode(struct ter_trans *trans, struct ter_file *file, struct ter_key *ret_key, uint64_t *ret_size, int64_t *ret_sectors)
{
	int r = ter_trans_get(trans, TER_BTREE_INODES, TER_POS(file->inum, 0, file->snapshot), ret_key);

	*ret_size = 0;
	*ret_sectors = 0;
	if (r < 0)
		return r;
	*ret_size = ter_le64_get(((const struct fake_inode_disk *)ret_key->val)->size);
	*ret_sectors = (int64_t)ter_le64_get(((const struct fake_inode_disk *)ret_key->val)->sectors);
	return 0;
}

static int write_inode(struct ter_trans *trans, struct ter_file *file, uint64_t size_to, bool exactly, int64_t more)
{
	struct fake_inode_disk disk;
	struct ter_key old, key;
	uint64_t size, limit;
	int64_t sectors;
	int r;

	r = read_inode(trans, file, &old, &size, &sectors);
	if (r < 0 && r != -ENOENT)
		return r;
	ter_lock_acquire(&file->lock);
	limit = file->size;
	ter_lock_release(&file->lock);
	limit = ter_min(size_to, limit);
	size = exactly ? size_to : ter_max(size, limit);
	disk = (struct fake_inode_disk){ ter_le64_make(size), ter_le64_make((uint64_t)(sectors + more)) };
	key = (struct ter_key){ .pos = TER_POS(file->inum, 0, file->snapshot), .type = TER_KEY_INODE, .val = &disk, .val_bytes = sizeof(disk) };
	return ter_trans_update(trans, TER_BTREE_INODES, key.pos, r == -ENOENT ? TER_KEY_ABSENT : &old, &key);
}

static int op_stage(struct ter_file *file, struct ter_trans *trans, uint64_t size_to, int64_t sectors)
{
	return write_inode(trans, file, size_to, false, sectors);
}

static void op_committed(struct ter_file *file, uint64_t size_to, int64_t sectors, uint64_t seq)
{
	assert_true(seq > 0 && size_to <= (1ull << 40));
}

static void op_ref(struct ter_file *file, int delta)
{
	struct rig_file *f = ter_container_of(file, struct rig_file, file);
	int now = atomic_fetch_add(&f->refs, delta) + delta;

	assert_true(now >= 0 && now <= 1);
}

static const struct ter_file_ops file_ops = { .stage = op_stage, .committed = op_committed, .ref = op_ref };

struct ter_file *rig_file(struct rig *rig, unsigned i)
{
	struct rig_file *f = &rig->files[i];

	assert_true(i < RIG_FILES_MAX);
	if (!f->known) {
		struct ter_trans trans;
		struct ter_key key;
		uint64_t size;
		int64_t sectors;
		int r;

		ter_file_init(&f->file, &file_ops, 4096 + i, TER_SNAPSHOT_ROOT, 0);
		ter_trans_init(&trans, rig->btrees, 0);
		r = read_inode(&trans, &f->file, &key, &size, &sectors);
		assert_true(r == 0 || r == -ENOENT);
		ter_trans_exit(&trans);
		f->file.size = size;
		f->file.priv = rig;
		f->known = true;
	}
	return &f->file;
}

static void forget_files(struct rig *rig)
{
	for (unsigned i = 0; i < RIG_FILES_MAX; i++) {
		if (!rig->files[i].known)
			continue;
		assert_int_equal(atomic_load(&rig->files[i].refs), 0);
		ter_file_destroy(&rig->files[i].file);
		rig->files[i].known = false;
	}
}

/* --- the pool --- */

static unsigned get_roots(void *arg, struct ter_root *roots, unsigned max)
{
	struct rig *rig = arg;

	return ter_btrees_get_roots(rig->btrees, roots, max);
}

static void get_clock(void *arg, uint64_t *ret_next_node_seq, uint64_t *ret_next_inum)
{
	struct rig *rig = arg;

	*ret_next_node_seq = ter_btrees_next_node_seq(rig->btrees);
	*ret_next_inum = 1 << 20;
}

static void on_error(void *arg, int r, const char *text)
{
	if (r != -ESHUTDOWN && !ter_sim_power_is_off(((struct rig *)arg)->sim))
		print_error("error %d: %s\n", r, text);
}

static void on_damage(void *arg, unsigned dev_idx, uint64_t inum, uint64_t offset_bytes, bool repaired)
{
	struct rig *rig = arg;

	atomic_fetch_add(&rig->damaged, 1);
	atomic_fetch_add(&rig->repaired, repaired);
}

static void dev_path(unsigned i, char path[16])
{
	snprintf(path, 16, "/dev%u", i);
}

static void make_members(struct rig *rig)
{
	const struct rig_params *p = &rig->params;

	rig->members->nr_slots = p->devs;
	for (unsigned i = 0; i < p->devs; i++) {
		struct ter_dev *dev = &rig->members->dev[i];
		char path[16];

		dev_path(i, path);
		assert_int_equal(ter_sim_add(rig->sim, path, p->dev_bytes, 512), 0);
		dev->idx = i;
		dev->used = true;
		dev->uuid[0] = (uint8_t)(i + 1);
		dev->state = TER_DEV_RW;
		dev->durability = 1;
		dev->discard = true;
		dev->bytes = p->dev_bytes;
		dev->bucket_sectors = p->bucket_bytes / 512;
		dev->first_bucket = (TER_SB_AREA_BYTES + p->bucket_bytes - 1) / p->bucket_bytes;
		dev->buckets_nr = (p->dev_bytes - TER_SB_TAIL_BYTES) / p->bucket_bytes;
		dev->journal[0] = (struct ter_bucket_range){ dev->first_bucket, TER_JOURNAL_BUCKETS_SMALL };
	}
}

static void open_members(struct rig *rig)
{
	struct ter_error error = { 0 };

	for (unsigned i = 0; i < rig->params.devs; i++) {
		char path[16];

		dev_path(i, path);
		if (ter_bdev_open(rig->io, path, 0, &rig->members->dev[i].bdev, &error) < 0)
			fail_msg("%s", error.text);
	}
}

static void close_members(struct rig *rig)
{
	for (unsigned i = 0; i < rig->params.devs; i++)
		ter_bdev_close(TAKE_PTR(rig->members->dev[i].bdev));
}

static void set_options(struct rig *rig)
{
	const struct rig_params *p = &rig->params;
	struct ter_options *o = &rig->sb->options;

	ter_options_default(o);
	o->block_size = p->block_bytes;
	o->bucket_size = p->bucket_bytes;
	o->btree_node_size = ter_max(65536u, 4 * p->block_bytes); /* room for several writes into one */
	o->metadata_replicas = (uint8_t)p->data_replicas;
	o->data_replicas = (uint8_t)p->data_replicas;
	o->data_replicas_required = (uint8_t)p->required;
	o->extent_max = p->extent_max;
	o->checksum_block = p->csum_block;
	o->inline_data_max = p->inline_max;
	o->journal_data_max = p->journal_data_max;
	o->journal_flush_ms = p->flush_ms;
	snprintf(o->data_checksum.s, sizeof(o->data_checksum.s), "%s", p->checksum);
	snprintf(o->compression.s, sizeof(o->compression.s), "%s", p->compression);
}

struct rig *rig_new(struct ter_exec *exec, const struct rig_params *params, uint64_t seed)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	rig->params = *params;
	rig->exec = exec;
	rig->seed = seed;
	rig->sim = ter_sim_new(exec, seed, &rig->io);
	rig->sb = ter_zalloc(sizeof(*rig->sb));
	rig->members = ter_zalloc(sizeof(*rig->members));
	assert_true(rig->sim && rig->sb && rig->members);
	assert_int_equal(ter_codecs_add(&rig->codecs, &fake_crc.algo), 0);
	assert_int_equal(ter_codecs_add(&rig->codecs, &fake_wide.algo), 0);
	assert_int_equal(ter_codecs_add(&rig->codecs, &fake_rle.algo), 0);
	rig->sb->version_major = TER_FORMAT_MAJOR;
	rig->sb->uuid[0] = rig->sb->user_uuid[0] = 7;
	rig->sb->initialized = true;
	set_options(rig);
	for (unsigned i = 0; i < 3; i++)
		(void)ter_sb_algo_slot(rig->sb, &rig->codecs, i < 2 ? TERRACE_CHECKSUM : TERRACE_COMPRESSION, i == 0 ? "crc32c" : i == 1 ? "wide" : "rle");
	make_members(rig);
	rig->handle = (struct ter_sb_handle){ .exec = exec, .sb = rig->sb, .members = rig->members };
	ter_lock_init(&rig->handle.lock, TER_RANK_SB);
	ter_lock_init(&rig->handle.write_lock, TER_RANK_SB_WRITE);
	rig->data_region = aligned_alloc(4096, params->region_bytes);
	return rig;
}

static void replay_keys(struct rig *rig, const struct ter_journal_replay *replay)
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
			assert_int_equal(ter_btrees_set_root(rig->btrees, &roots[b]), 0);
	for (int level = TER_BTREE_DEPTH_MAX; level >= 0; level--)
		for (unsigned i = 0; i < replay->nr; i++)
			for (uint32_t pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);)
				if (rec.type == TER_JREC_KEY && rec.level == level)
					assert_int_equal(ter_btrees_replay_key(rig->btrees, rec.btree, rec.level, rec.payload), 0);
}

static void replay_data(struct rig *rig, const struct ter_journal_replay *replay)
{
	struct ter_jrec rec;

	for (unsigned i = 0; i < replay->nr; i++)
		for (uint32_t pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);) {
			struct ter_jrec_data d;
			struct ter_jrec_data_done done;

			if (rec.type == TER_JREC_DATA) {
				assert_int_equal(ter_jrec_data_decode(&rec, &d), 0);
				assert_int_equal(ter_file_replay_data(rig->data, rig_file(rig, (unsigned)(d.inum - 4096)), replay->entry[i].seq, d.offset_bytes,
								      d.data, d.bytes), 0);
			} else if (rec.type == TER_JREC_DATA_DONE) {
				assert_int_equal(ter_jrec_data_done_decode(&rec, &done), 0);
				ter_file_replay_done(rig->data, rig_file(rig, (unsigned)(done.inum - 4096)), done.from_bytes, done.to_bytes, done.upto_seq);
			}
		}
}

static uint64_t next_node_seq(const struct ter_journal_replay *replay)
{
	uint64_t next = 1;
	struct ter_jrec rec;

	for (unsigned i = 0; replay && i < replay->nr; i++)
		for (uint32_t pos = 0; ter_jrec_next(&replay->entry[i], &pos, &rec);) {
			struct ter_jrec_clock clock;

			if (rec.type == TER_JREC_CLOCK && ter_jrec_clock_decode(&rec, &clock) == 0)
				next = ter_max(next, clock.next_node_seq);
		}
	return next;
}

static void build(struct rig *rig, const struct ter_journal_replay *replay)
{
	struct ter_btree_hooks hooks;
	struct ter_btrees_config bt = {
		.exec = rig->exec, .sb = &rig->handle, .members = rig->members, .cache_bytes = 32 << 20, .next_node_seq = next_node_seq(replay),
		.on_counters = ter_alloc_on_counters,
	};
	struct ter_alloc_config alloc = { .exec = rig->exec, .sb = &rig->handle, .members = rig->members };

	/* The allocator is made first: the btrees tell it of counters. */
	assert_int_equal(ter_alloc_new(&alloc, &rig->alloc), 0);
	bt.on_arg = rig->alloc;
	assert_int_equal(ter_btrees_new(&bt, &rig->btrees), 0);
	ter_alloc_set_btrees(rig->alloc, rig->btrees);
	ter_alloc_hooks(rig->alloc, &hooks);
	ter_btrees_set_hooks(rig->btrees, &hooks);
}

static void build_data(struct rig *rig)
{
	const struct ter_data_config config = {
		.exec = rig->exec, .sb = &rig->handle, .members = rig->members, .btrees = rig->btrees, .alloc = rig->alloc, .codecs = &rig->codecs,
		.region = rig->data_region, .region_bytes = rig->params.region_bytes, .on_damage = on_damage, .on_arg = rig,
	};

	assert_int_equal(ter_data_new(&config, &rig->data), 0);
}

static void start_journal(struct rig *rig, const struct ter_journal_replay *replay)
{
	size_t bytes = ter_journal_region_bytes(rig->sb, rig->members);
	struct ter_error error = { 0 };
	struct ter_journal_config config = {
		.exec = rig->exec, .sb = &rig->handle, .members = rig->members, .region_bytes = bytes,
		.get_roots = get_roots, .get_roots_arg = rig, .get_clock = get_clock, .get_clock_arg = rig,
		.on_error = on_error, .on_arg = rig, .replay = replay,
	};

	rig->journal_region = aligned_alloc(4096, ter_round_up(bytes, 4096));
	config.region = rig->journal_region;
	if (ter_journal_start(&config, replay ? replay->next_seq : 1, &rig->journal, &error) < 0)
		fail_msg("%s", error.text);
	ter_btrees_set_journal(rig->btrees, rig->journal);
	ter_alloc_set_journal(rig->alloc, rig->journal);
	ter_data_set_journal(rig->data, rig->journal);
}

void rig_start(struct rig *rig)
{
	struct ter_journal_replay *replay = NULL;
	struct ter_error error = { 0 };

	open_members(rig);
	if (rig->formatted) {
		if (ter_journal_read(rig->exec, rig->sb, rig->members, &replay, &error) < 0)
			fail_msg("%s", error.text);
		assert_true(replay->nr > 0);
	}
	build(rig, replay);
	if (replay)
		replay_keys(rig, replay);
	build_data(rig);
	if (replay) {
		replay_data(rig, replay);
		if (replay->blacklist_first <= replay->blacklist_last) {
			rig->sb->blacklist[rig->sb->blacklist_nr].first = replay->blacklist_first;
			rig->sb->blacklist[rig->sb->blacklist_nr++].last = replay->blacklist_last;
		}
	}
	assert_int_equal(ter_alloc_load(rig->alloc), 0);
	start_journal(rig, replay);
	ter_journal_want_roots(rig->journal);
	if (replay)
		ter_btrees_replay_done(rig->btrees, replay->entry[0].seq);
	assert_int_equal(ter_btrees_start(rig->btrees), 0);
	assert_int_equal(ter_alloc_start(rig->alloc), 0);
	assert_int_equal(ter_data_start(rig->data), 0);
	if (replay)
		ter_journal_replay_done(rig->journal);
	ter_journal_replay_free(replay);
	if (!rig->formatted) {
		for (unsigned i = 0; i < rig->params.devs; i++)
			assert_int_equal(ter_alloc_init_member(rig->alloc, i), 0);
		assert_int_equal(ter_journal_flush(rig->journal, ter_journal_open_seq(rig->journal)), 0);
		rig->formatted = true;
	}
}

static void tear_down(struct rig *rig)
{
	ter_data_stop(rig->data);
	ter_alloc_stop(rig->alloc);
	ter_btrees_stop(rig->btrees);
	forget_files(rig);
	ter_data_free(TAKE_PTR(rig->data));
	ter_alloc_free(TAKE_PTR(rig->alloc));
	ter_btrees_free(TAKE_PTR(rig->btrees));
	ter_journal_free(TAKE_PTR(rig->journal));
	free(TAKE_PTR(rig->journal_region));
}

void rig_stop(struct rig *rig)
{
	assert_int_equal(ter_data_flush_all(rig->data), 0);
	assert_int_equal(ter_journal_flush(rig->journal, ter_journal_open_seq(rig->journal)), 0);
	ter_journal_halt(rig->journal, -ESHUTDOWN);
	tear_down(rig);
	close_members(rig);
}

void rig_crash(struct rig *rig)
{
	const struct ter_sim_cut cut = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .seed = rig_random(rig, UINT64_MAX) };

	ter_sim_power_off_after(rig->sim, 0);
	ter_journal_halt(rig->journal, -ESHUTDOWN);
	tear_down(rig);
	ter_sim_cut(rig->sim, &cut);
	close_members(rig);
}

void rig_free(struct rig *rig)
{
	ter_lock_destroy(&rig->handle.lock);
	ter_lock_destroy(&rig->handle.write_lock);
	ter_io_free(rig->io);
	free(rig->members);
	ter_sb_free(rig->sb);
	free(rig->data_region);
	free(rig);
}

/* --- files --- */

void rig_write(struct rig *rig, unsigned i, uint64_t offset, const void *buf, size_t bytes)
{
	struct iovec iov[2] = { { (void *)buf, bytes / 3 }, { (uint8_t *)buf + bytes / 3, bytes - bytes / 3 } };

	assert_int_equal(ter_file_write(rig->data, rig_file(rig, i), offset, iov, 2, false), 0);
}

size_t rig_read(struct rig *rig, unsigned i, uint64_t offset, void *buf, size_t bytes)
{
	size_t got = 0;

	assert_int_equal(ter_file_read_wait(rig->data, rig_file(rig, i), offset, buf, bytes, &got), 0);
	return got;
}

struct truncate_arg {
	struct ter_file *file;
	uint64_t size;
};

static int stage_size(struct ter_trans *trans, void *p)
{
	struct truncate_arg *arg = p;

	return write_inode(trans, arg->file, arg->size, true, 0);
}

int rig_truncate(struct rig *rig, unsigned i, uint64_t size)
{
	struct ter_file *file = rig_file(rig, i);
	struct truncate_arg arg = { file, size };
	uint64_t old;
	int r;

	ter_lock_acquire(&file->lock);
	old = file->size;
	ter_lock_release(&file->lock);
	r = ter_file_punch(rig->data, file, ter_min(size, old), size < old ? UINT64_MAX : ter_min(size, old), stage_size, NULL, &arg);
	if (r < 0)
		return r;
	ter_lock_acquire(&file->lock);
	file->size = size;
	ter_lock_release(&file->lock);
	return 0;
}

/* --- checking --- */

struct check {
	struct rig *rig;
	uint64_t inum, end, sectors;
	uint64_t per_file[RIG_FILES_MAX];
	uint64_t live[RIG_DEVS_MAX], promised;
};

static int check_key(void *arg, const struct ter_key *key)
{
	struct check *c = arg;
	struct ter_extent e;
	uint64_t block = c->rig->params.block_bytes / 512;

	assert_true(key->pos.inode >= 4096 && key->pos.inode < 4096 + RIG_FILES_MAX);
	if (key->pos.inode != c->inum)
		c->end = 0;
	c->inum = key->pos.inode;
	assert_true(key->size > 0 && ter_key_start(key) >= c->end);
	assert_int_equal(ter_key_start(key) % block, 0);
	assert_int_equal(key->pos.offset % block, 0);
	c->end = key->pos.offset;
	c->per_file[key->pos.inode - 4096] += ter_extent_key_sectors(key);
	if (key->type == TER_KEY_RESERVATION)
		c->promised += key->size;
	if (key->type != TER_KEY_EXTENT)
		return 0;
	assert_int_equal(ter_extent_decode(key, c->rig->sb, &e), 0);
	for (unsigned i = 0; i < e.nr_ptrs; i++)
		c->live[e.ptr[i].dev] += ter_extent_ptr_sectors(&e);
	return 0;
}

static void check_inodes(struct rig *rig, struct check *c)
{
	for (unsigned i = 0; i < RIG_FILES_MAX; i++) {
		struct ter_trans trans;
		struct ter_key key;
		uint64_t size;
		int64_t sectors;

		if (!c->per_file[i])
			continue;
		ter_trans_init(&trans, rig->btrees, 0);
		assert_int_equal(read_inode(&trans, rig_file(rig, i), &key, &size, &sectors), 0);
		assert_int_equal(sectors, c->per_file[i]);
		ter_trans_exit(&trans);
	}
}

static void tell(void *arg, const char *sentence)
{
	print_error("%s\n", sentence);
}

static void tell_nobody(void *arg, const char *sentence)
{
}

/* It wants nothing to be committed meanwhile; nodes may still be written and buckets discarded. A contradiction that stays is one. */
static void check_alloc(struct rig *rig)
{
	int r = 1;

	for (unsigned i = 0; i < 50 && r; i++) {
		assert_true(ter_btrees_flush(rig->btrees) >= 0);
		assert_int_equal(ter_journal_flush(rig->journal, ter_journal_open_seq(rig->journal)), 0);
		r = ter_alloc_check(rig->alloc, i < 49 ? tell_nobody : tell, NULL);
	}
	assert_int_equal(r, 0);
}

void rig_check(struct rig *rig)
{
	struct check c = { .rig = rig };
	struct ter_data_stats stats;

	assert_int_equal(ter_btree_scan(rig->btrees, TER_BTREE_EXTENTS, TER_POS_MIN, TER_POS_MAX, 0, check_key, &c, NULL), 0);
	check_inodes(rig, &c);
	for (unsigned i = 0; i < rig->params.devs; i++) {
		struct ter_dev_usage usage;

		assert_int_equal(ter_alloc_dev_usage(rig->alloc, i, &usage), 0);
		assert_int_equal(usage.sectors[TER_DATA_USER], c.live[i]);
	}
	assert_int_equal(atomic_load(&rig->data->promised_sectors), c.promised);
	check_alloc(rig);
	assert_true(ter_pool_check(&rig->data->pool));
	ter_data_get_stats(rig->data, &stats);
	if (!stats.dirty_bytes) {
		struct ter_fs_usage usage;

		assert_int_equal(rig->data->pool.free_pages, rig->data->pool.pages_nr);
		assert_int_equal(rig->data->pool.free_segs_nr, rig->data->pool.segs_nr);
		assert_true(ter_list_empty(&rig->data->pinned));
		ter_alloc_fs_usage(rig->alloc, &usage);
		(void)usage;
	}
}

struct nth {
	unsigned nth;
	struct rig *rig;
	struct ter_extent *ret;
	uint8_t *ret_type;
	bool found;
};

static int nth_key(void *arg, const struct ter_key *key)
{
	struct nth *n = arg;

	if (n->nth-- > 0)
		return 0;
	n->found = true;
	*n->ret_type = key->type;
	if (key->type == TER_KEY_EXTENT) {
		assert_int_equal(ter_extent_decode(key, n->rig->sb, n->ret), 0);
	} else {
		n->ret->start = ter_key_start(key);
		n->ret->sectors = key->size;
	}
	return 1;
}

bool rig_extent(struct rig *rig, unsigned i, unsigned nth, struct ter_extent *ret, uint8_t *ret_type)
{
	struct nth n = { .nth = nth, .rig = rig, .ret = ret, .ret_type = ret_type };
	int r;

	r = ter_btree_scan(rig->btrees, TER_BTREE_EXTENTS, TER_POS(4096 + i, 1, 0), TER_POS(4096 + i, UINT64_MAX, UINT32_MAX), 0, nth_key, &n, NULL);
	assert_true(r >= 0);
	return n.found;
}

static void dump_segs(const char *name, struct ter_seg *root)
{
	for (struct ter_seg *seg = ter_segtree_first(root, 0); seg; seg = ter_segtree_next(root, seg))
		print_error("  %s %llu..%llu pin %llu seq %llu new %llu..%llu\n", name, (unsigned long long)seg->start, (unsigned long long)seg->end,
			    (unsigned long long)seg->pin_seq, (unsigned long long)seg->seq, (unsigned long long)seg->new_from, (unsigned long long)seg->new_to);
}

void rig_dump(struct rig *rig, unsigned i)
{
	struct ter_file *file = rig_file(rig, i);
	struct ter_extent e;
	uint8_t type;

	for (unsigned nth = 0; rig_extent(rig, i, nth, &e, &type); nth++)
		print_error("  %s %llu..%llu stored %u raw %u live_offset %u at %llu on %u (%u copies)\n", ter_key_type_names[type], (unsigned long long)e.start * 512,
			    (unsigned long long)(e.start + e.sectors) * 512, e.stored_sectors, e.raw_sectors, e.live_offset,
			    (unsigned long long)e.ptr[0].sector, e.ptr[0].dev, e.nr_ptrs);
	ter_lock_acquire(&file->lock);
	dump_segs("dirty", file->segs);
	dump_segs("write-back", file->wb);
	ter_lock_release(&file->lock);
}
