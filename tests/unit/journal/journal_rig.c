/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A journal on members in memory that record all that reaches them. */
#include "journal_rig.h"

#include "sb/sb_format.h"
#include "util/crc32c.h"
#include "util/mem.h"

/* --- checksum, randomness --- */

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

uint64_t rig_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t rig_seed(void)
{
	const char *text = getenv("TER_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 20240229;

	print_message("TER_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

uint64_t rig_tick(struct rig *rig)
{
	return atomic_load(&rig->tick);
}

/* --- a device --- */

static void dev_submit(struct ter_bio *bio)
{
	struct rig_dev *dev = ter_container_of(bio->bdev, struct rig_dev, bdev);
	struct rig_op op = { .op = bio->op, .offset_bytes = bio->offset_bytes, .bytes = bio->bytes };

	ter_lock_acquire(&dev->lock);
	if (bio->op != TER_BIO_READ) {
		if (dev->ops_nr == dev->ops_max) {
			dev->ops_max = dev->ops_max ? dev->ops_max * 2 : 64;
			dev->ops = realloc(dev->ops, dev->ops_max * sizeof(op));
			assert_non_null(dev->ops);
		}
		if (bio->op == TER_BIO_WRITE) {
			uint64_t at = 0;

			assert_true(bio->offset_bytes % 512 == 0 && bio->bytes % 512 == 0);
			assert_true(bio->offset_bytes + bio->bytes <= dev->bdev.info.bytes);
			op.data = malloc(bio->bytes);
			for (unsigned i = 0; i < bio->iov_nr; at += bio->iov[i++].iov_len)
				memcpy(op.data + at, bio->iov[i].iov_base, bio->iov[i].iov_len);
			assert_true(at == bio->bytes);
		}
		op.submitted = atomic_fetch_add(&dev->rig->tick, 1) + 1;
		bio->backend[0] = dev->ops_nr;
		dev->ops[dev->ops_nr++] = op;
	}
	ter_list_add_tail(&dev->queue, &bio->link);
	ter_waitq_wake_one(&dev->wq);
	ter_lock_release(&dev->lock);
}

static int dev_do(struct rig_dev *dev, struct ter_bio *bio)
{
	uint64_t at = bio->offset_bytes;

	switch (bio->op) {
	case TER_BIO_READ:
		atomic_fetch_add(&dev->reads, 1);
		for (unsigned i = 0; i < bio->iov_nr; at += bio->iov[i++].iov_len)
			memcpy(bio->iov[i].iov_base, dev->image + at, bio->iov[i].iov_len);
		return 0;
	case TER_BIO_WRITE:
		atomic_fetch_add(&dev->writes, 1);
		if (atomic_load(&dev->fail_writes))
			return -EIO;
		for (unsigned i = 0; i < bio->iov_nr; at += bio->iov[i++].iov_len)
			memcpy(dev->image + at, bio->iov[i].iov_base, bio->iov[i].iov_len);
		return 0;
	default:
		atomic_fetch_add(&dev->flushes, 1);
		return atomic_load(&dev->fail_flushes) ? -EIO : 0;
	}
}

static void dev_task(void *arg)
{
	struct rig_dev *dev = arg;

	ter_lock_acquire(&dev->lock);
	while (!dev->quit || !ter_list_empty(&dev->queue)) {
		struct ter_bio *bio;
		unsigned idx;
		int r;

		if (ter_list_empty(&dev->queue)) {
			ter_waitq_wait(&dev->wq, &dev->lock);
			continue;
		}
		bio = ter_list_first(&dev->queue, struct ter_bio, link);
		ter_list_del(&bio->link);
		ter_lock_release(&dev->lock);
		if (dev->rig->latency_ns && bio->op != TER_BIO_READ)
			ter_sleep_ns(dev->rig->exec, dev->rig->latency_ns);
		idx = (unsigned)bio->backend[0];
		r = dev_do(dev, bio);
		ter_lock_acquire(&dev->lock);
		if (bio->op != TER_BIO_READ) {
			dev->ops[idx].completed = atomic_fetch_add(&dev->rig->tick, 1) + 1;
			dev->ops[idx].r = r;
		}
		ter_lock_release(&dev->lock);
		bio->result = r;
		bio->done(bio);
		ter_lock_acquire(&dev->lock);
	}
	ter_lock_release(&dev->lock);
}

static const struct ter_io_ops dev_ops = { .submit = dev_submit };

/* --- power cuts --- */

static bool is_durable(const struct rig_dev *dev, const struct rig_op *write, uint64_t tick)
{
	for (unsigned i = 0; i < dev->ops_nr; i++) {
		const struct rig_op *op = &dev->ops[i];

		if (op->op == TER_BIO_FLUSH && op->completed && op->completed <= tick && !op->r && write->completed && write->completed < op->submitted)
			return true;
	}
	return false;
}

static void apply(struct rig_dev *dev, uint8_t *image, const struct rig_op *op, bool whole, uint64_t *random)
{
	unsigned how = whole ? 0 : rig_random(random) % 4;

	if (how == 1)
		return; /* nothing of it */
	for (uint64_t at = 0; at < op->bytes; at += 512)
		if (how == 0 || (how == 2 && at < op->bytes / 2) || (how == 3 && rig_random(random) % 2))
			memcpy(image + op->offset_bytes + at, op->data + at, 512);
}

static uint8_t *image_at(struct rig_dev *dev, uint64_t tick, uint64_t seed)
{
	uint8_t *image = calloc(1, dev->bdev.info.bytes);

	assert_non_null(image);
	for (unsigned i = 0; i < dev->ops_nr; i++)
		if (dev->ops[i].op == TER_BIO_WRITE && dev->ops[i].submitted <= tick)
			apply(dev, image, &dev->ops[i], is_durable(dev, &dev->ops[i], tick), &seed);
	return image;
}

void rig_cut_try(struct rig *rig, uint64_t tick, uint64_t seed, uint8_t *saved[RIG_DEVS_MAX])
{
	for (unsigned i = 0; i < rig->nr; i++) {
		saved[i] = rig->dev[i].image;
		rig->dev[i].image = image_at(&rig->dev[i], tick, seed + i);
	}
}

void rig_uncut(struct rig *rig, uint8_t *saved[RIG_DEVS_MAX])
{
	for (unsigned i = 0; i < rig->nr; i++) {
		free(rig->dev[i].image);
		rig->dev[i].image = saved[i];
	}
}

static void forget_ops(struct rig_dev *dev)
{
	for (unsigned i = 0; i < dev->ops_nr; i++)
		free(dev->ops[i].data);
	dev->ops_nr = 0;
}

void rig_cut(struct rig *rig, uint64_t tick, uint64_t seed)
{
	for (unsigned i = 0; i < rig->nr; i++) {
		struct rig_dev *dev = &rig->dev[i];
		uint8_t *image = image_at(dev, tick, seed + i);
		struct rig_op all = { .op = TER_BIO_WRITE, .bytes = dev->bdev.info.bytes, .submitted = 1, .completed = 1 };
		struct rig_op flush = { .op = TER_BIO_FLUSH, .submitted = 2, .completed = 2 };

		forget_ops(dev);
		free(dev->image);
		dev->image = image;
		/* What is there is the beginning of the new record. */
		all.data = malloc(all.bytes);
		memcpy(all.data, image, all.bytes);
		dev->ops[dev->ops_nr++] = all;
		dev->ops[dev->ops_nr++] = flush;
	}
	if (rig_tick(rig) < 2)
		atomic_store(&rig->tick, 2);
}

/* --- the pool --- */

static void make_dev(struct rig *rig, unsigned i)
{
	struct rig_dev *dev = &rig->dev[i];
	struct ter_dev *member = &rig->members->dev[i];

	dev->rig = rig;
	dev->io = (struct ter_io){ .ops = &dev_ops, .exec = rig->exec, .name = "rig" };
	dev->bdev = (struct ter_bdev){ .io = &dev->io };
	dev->bdev.info.bytes = (uint64_t)(RIG_FIRST_BUCKET + rig->buckets + 2) * rig->bucket_bytes;
	dev->bdev.info.logical_block_bytes = 512;
	dev->image = calloc(1, dev->bdev.info.bytes);
	dev->ops_max = 64;
	dev->ops = calloc(dev->ops_max, sizeof(*dev->ops));
	ter_lock_init(&dev->lock, TER_RANK_DEVICE);
	ter_waitq_init(&dev->wq);
	ter_list_init(&dev->queue);
	member->idx = i;
	member->used = true;
	member->state = TER_DEV_RW;
	member->durability = 1;
	member->bytes = dev->bdev.info.bytes;
	member->bucket_sectors = rig->bucket_bytes / 512;
	member->buckets_nr = RIG_FIRST_BUCKET + rig->buckets + 2;
	member->first_bucket = RIG_FIRST_BUCKET;
	/* Two ranges: a ring need not be contiguous. */
	member->journal[0] = (struct ter_bucket_range){ .first = RIG_FIRST_BUCKET, .nr = rig->buckets / 2 };
	member->journal[1] = (struct ter_bucket_range){ .first = RIG_FIRST_BUCKET + 1 + rig->buckets / 2, .nr = rig->buckets - rig->buckets / 2 };
	member->bdev = &dev->bdev;
}

static void know_all_sets(struct rig *rig)
{
	for (unsigned mask = 1; mask < 1u << rig->nr; mask++) {
		struct ter_replicas_entry entry = { .data_type = TER_DATA_JOURNAL, .nr_required = 1 };

		for (unsigned i = 0; i < rig->nr; i++)
			if (mask >> i & 1)
				entry.devs[entry.nr_devs++] = (uint8_t)i;
		assert_int_equal(ter_sb_replicas_add(rig->sb, &entry), 0);
	}
}

static unsigned get_roots(void *arg, struct ter_root *roots, unsigned max)
{
	struct rig *rig = arg;

	roots[0] = (struct ter_root){ .btree = 3, .level = 1, .present = true, .node_seq = atomic_load(&rig->root_node_seq), .nr_ptrs = 1 };
	roots[0].ptr[0].sector = 4096;
	return 1;
}

static void get_clock(void *arg, uint64_t *ret_next_node_seq, uint64_t *ret_next_inum)
{
	*ret_next_node_seq = 77;
	*ret_next_inum = 88;
}

static void on_error(void *arg, int r, const char *text)
{
	atomic_fetch_add(&((struct rig *)arg)->errors, 1);
}

static void on_degraded(void *arg, uint64_t seq, unsigned copies, unsigned wanted)
{
	atomic_fetch_add(&((struct rig *)arg)->degraded, 1);
}

struct rig *rig_new(struct ter_exec *exec, unsigned nr, unsigned buckets, uint32_t bucket_bytes)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->exec = exec;
	rig->nr = nr;
	rig->buckets = buckets;
	rig->bucket_bytes = bucket_bytes;
	rig->sb = calloc(1, sizeof(*rig->sb));
	rig->members = calloc(1, sizeof(*rig->members));
	rig->members->nr_slots = nr;
	memcpy(rig->sb->uuid, "pool-uuid-bytes", 16);
	ter_options_default(&rig->sb->options);
	rig->sb->algos.slot[1] = (struct ter_algo_slot){ .algo = &crc_algo.algo, .kind = TERRACE_CHECKSUM, .uuid = { 1 }, .name = "crc32c", .format = 1 };
	rig->handle = (struct ter_sb_handle){ .exec = exec, .sb = rig->sb, .members = rig->members };
	ter_lock_init(&rig->handle.lock, TER_RANK_SB);
	ter_lock_init(&rig->handle.write_lock, TER_RANK_SB_WRITE);
	for (unsigned i = 0; i < nr; i++)
		make_dev(rig, i);
	know_all_sets(rig);
	rig->region = ter_malloc_aligned(ter_journal_region_bytes(rig->sb, rig->members), 4096);
	rig_devs_start(rig);
	return rig;
}

void rig_devs_start(struct rig *rig)
{
	for (unsigned i = 0; i < rig->nr; i++) {
		rig->dev[i].quit = false;
		assert_int_equal(rig->exec->ops->spawn(rig->exec, "rig-dev", dev_task, &rig->dev[i], &rig->dev[i].task), 0);
	}
}

void rig_devs_stop(struct rig *rig)
{
	for (unsigned i = 0; i < rig->nr; i++) {
		struct rig_dev *dev = &rig->dev[i];

		ter_lock_acquire(&dev->lock);
		dev->quit = true;
		ter_waitq_wake_all(&dev->wq);
		ter_lock_release(&dev->lock);
		rig->exec->ops->join(rig->exec, TAKE_PTR(dev->task));
	}
}

void rig_free(struct rig *rig)
{
	assert_null(rig->journal);
	rig_devs_stop(rig);
	for (unsigned i = 0; i < rig->nr; i++) {
		forget_ops(&rig->dev[i]);
		free(rig->dev[i].ops);
		free(rig->dev[i].image);
		ter_waitq_destroy(&rig->dev[i].wq);
		ter_lock_destroy(&rig->dev[i].lock);
	}
	ter_lock_destroy(&rig->handle.lock);
	ter_lock_destroy(&rig->handle.write_lock);
	free(rig->region);
	free(rig->sb);
	free(rig->members);
	free(rig);
}

void rig_start(struct rig *rig, uint64_t next_seq, const struct ter_journal_replay *replay)
{
	struct ter_error error = { 0 };

	rig->config = (struct ter_journal_config){
		.exec = rig->exec, .sb = &rig->handle, .members = rig->members,
		.region = rig->region, .region_bytes = ter_journal_region_bytes(rig->sb, rig->members),
		.on_error = on_error, .on_degraded = on_degraded, .on_arg = rig, .replay = replay,
	};
	if (rig->roots) {
		rig->config.get_roots = get_roots;
		rig->config.get_roots_arg = rig;
		rig->config.get_clock = get_clock;
	}
	if (ter_journal_start(&rig->config, next_seq, &rig->journal, &error) < 0)
		fail_msg("%s", error.text);
}

void rig_free_journal(struct rig *rig)
{
	ter_journal_free(rig->journal); /* owners of pins use it until it is gone */
	rig->journal = NULL;
}

int rig_read(struct rig *rig, struct ter_journal_replay **ret_replay, struct ter_error *error)
{
	return ter_journal_read(rig->exec, rig->sb, rig->members, ret_replay, error);
}

/* --- transactions --- */

int rig_tx(struct rig *rig, uint64_t id, uint32_t bytes, unsigned flags, bool pin, uint64_t *ret_seq, uint32_t *ret_offset)
{
	struct ter_journal_res res;
	uint8_t *at;
	int r;

	assert(bytes >= 8);
	r = ter_journal_reserve(rig->journal, ter_jrec_bytes(bytes) + (id % 3 ? 0 : 24), flags, &res); /* some reserve too much */
	if (r < 0)
		return r;
	*ret_seq = res.seq;
	if (ret_offset)
		*ret_offset = res.offset;
	at = ter_journal_add(&res, TER_JREC_LOG, 0, 0, bytes);
	memcpy(at, &id, 8);
	for (uint32_t i = 8; i < bytes; i++)
		at[i] = (uint8_t)(id * 31 + i);
	if (pin)
		ter_journal_pin(rig->journal, res.seq);
	ter_journal_put(&res);
	return 0;
}

uint64_t rig_tx_id(const struct ter_jrec *rec)
{
	const uint8_t *at = rec->payload;
	uint64_t id;

	assert_int_equal(rec->type, TER_JREC_LOG);
	assert_true(rec->bytes >= 8);
	memcpy(&id, at, 8);
	for (uint32_t i = 8; i < rec->bytes; i++)
		assert_int_equal(at[i], (uint8_t)(id * 31 + i));
	return id;
}

/* --- backends --- */

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

void rig_run(bool coop, uint64_t seed, void (*fn)(struct ter_exec *exec, void *arg), void *arg)
{
	struct run run = { .exec = coop ? ter_exec_new_coop(seed) : ter_exec_new_threads(), .fn = fn, .arg = arg };

	assert_non_null(run.exec);
	if (coop)
		assert_int_equal(ter_coop_run(run.exec, run_main, &run), 0);
	else
		fn(run.exec, arg);
	ter_exec_free(run.exec);
}
