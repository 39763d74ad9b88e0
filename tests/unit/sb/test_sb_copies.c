/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copies of the superblock on devices: which one counts, and what a write leaves at any cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "fake_disk.h"
#include "util/fault.h"

#define BUCKET_BYTES 65536u
#define DISK_BYTES (160ull * BUCKET_BYTES)
#define ALL_COPIES 7u

/* A pool of as many members as there are disks; member i is slot 2 * i. */
struct pool {
	struct ter_exec *exec;
	struct fake_machine *fm;
	struct ter_sb_handle handle;
	struct ter_sb *sb;
	struct ter_members *members;
	uint64_t offset[TER_SB_COPIES];
};

static struct ter_dev *member(struct pool *pool, unsigned i)
{
	return &pool->members->dev[2 * i];
}

static struct pool *pool_new(unsigned disks_nr)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	pool->exec = ter_exec_new_threads();
	pool->fm = fake_machine_new(pool->exec, disks_nr, DISK_BYTES);
	pool->sb = calloc(1, sizeof(*pool->sb));
	pool->members = calloc(1, sizeof(*pool->members));
	ter_sb_copy_offsets(DISK_BYTES, pool->offset);

	pool->sb->version_major = TER_FORMAT_MAJOR;
	memset(pool->sb->uuid, 0xaa, sizeof(pool->sb->uuid));
	pool->sb->created_ns = 1000;
	ter_options_default(&pool->sb->options);
	pool->sb->options.bucket_size = BUCKET_BYTES;
	pool->sb->options.btree_node_size = 16384;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		pool->members->dev[i].idx = i;
	for (unsigned i = 0; i < disks_nr; i++) {
		struct ter_dev *dev = member(pool, i);

		dev->used = true;
		memset(dev->uuid, (int)i + 1, sizeof(dev->uuid));
		dev->bytes = DISK_BYTES;
		dev->bucket_sectors = BUCKET_BYTES / 512;
		dev->buckets_nr = pool->offset[2] / BUCKET_BYTES;
		dev->first_bucket = 4;
		dev->bdev = &pool->fm->disk[i].bdev;
		pool->members->nr_slots = dev->idx + 1;
	}
	pool->handle = (struct ter_sb_handle){ .exec = pool->exec, .sb = pool->sb, .members = pool->members };
	ter_lock_init(&pool->handle.lock, TER_RANK_SB);
	ter_lock_init(&pool->handle.write_lock, TER_RANK_SB_WRITE);
	return pool;
}

static void pool_free(struct pool *pool)
{
	ter_lock_destroy(&pool->handle.lock);
	ter_lock_destroy(&pool->handle.write_lock);
	fake_machine_free(pool->fm);
	ter_exec_free(pool->exec);
	ter_sb_free(pool->sb);
	free(pool->members);
	free(pool);
}

static int pool_write(struct pool *pool, struct ter_error *error)
{
	struct ter_error why = { 0 };
	int r = ter_sb_write(&pool->handle, &why);

	assert_int_equal(r, why.err); /* an error is explained, and only an error */
	if (error)
		*error = why;
	return r;
}

static int pool_read(struct pool *pool, unsigned disk, struct ter_sb_read_result *ret)
{
	struct ter_error why = { 0 };
	int r;

	*ret = (struct ter_sb_read_result){ 0 };
	r = ter_sb_read(pool->exec, &pool->fm->disk[disk].bdev, ret, &why);
	assert_int_equal(r, why.err);
	return r;
}

static void result_free(struct ter_sb_read_result *result)
{
	ter_sb_free(result->sb);
	free(result->members);
}

/* seq of the newest valid copy, or a negative errno. */
static int64_t seq_on(struct pool *pool, unsigned disk, unsigned *ret_bad)
{
	struct ter_sb_read_result result;
	int r = pool_read(pool, disk, &result);
	int64_t seq;

	if (r < 0)
		return r;
	seq = (int64_t)result.sb->seq;
	assert_int_equal(result.dev_idx, 2 * disk);
	if (ret_bad)
		*ret_bad = result.bad_copies;
	result_free(&result);
	return seq;
}

/* Puts a copy with any seq at any place, as if it had been written. */
static void place_copy_of(struct pool *pool, const struct ter_sb *sb, unsigned disk, uint64_t offset_bytes, uint64_t says_offset)
{
	uint8_t *buf = malloc(TER_SB_BYTES_MAX);
	int n = ter_sb_encode(sb, pool->members, 2 * disk, buf);

	assert_true(n > 0);
	ter_sb_retarget(buf, 2 * disk, says_offset);
	memcpy(pool->fm->disk[disk].data + offset_bytes, buf, TER_SB_BYTES_MAX);
	memcpy(pool->fm->disk[disk].stable + offset_bytes, buf, TER_SB_BYTES_MAX);
	free(buf);
}

static void place_copy(struct pool *pool, unsigned disk, unsigned idx, uint64_t seq)
{
	uint64_t keep = pool->sb->seq;

	pool->sb->seq = seq;
	place_copy_of(pool, pool->sb, disk, pool->offset[idx], pool->offset[idx]);
	pool->sb->seq = keep;
}

static void spoil_copy(struct pool *pool, unsigned disk, unsigned idx)
{
	pool->fm->disk[disk].data[pool->offset[idx] + 0x30] ^= 1;
	pool->fm->disk[disk].stable[pool->offset[idx] + 0x30] ^= 1;
}

/* --- reading --- */

static void what_is_written_is_found_on_every_member(void **state)
{
	struct pool *pool = pool_new(3);
	unsigned bad;

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(seq_on(pool, i, NULL), -ENODATA);
	for (unsigned seq = 1; seq <= 3; seq++) {
		assert_int_equal(pool_write(pool, NULL), 0);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(seq_on(pool, i, &bad), seq);
			assert_int_equal(bad, 0);
			assert_int_equal(member(pool, i)->seen_seq, seq);
			assert_false(ter_dev_unflushed(member(pool, i)));
		}
	}
	pool_free(pool);
}

static void the_newest_valid_copy_wins_in_any_order(void **state)
{
	struct pool *pool = pool_new(1);

	/* Each copy is bad (0) or has one of three ages. */
	for (unsigned n = 0; n < 64; n++) {
		unsigned age[3] = { n & 3, n >> 2 & 3, n >> 4 & 3 }, best = 0, want_bad = 0, bad;

		for (unsigned idx = 0; idx < 3; idx++) {
			place_copy(pool, 0, idx, age[idx] ? age[idx] : 99);
			if (!age[idx])
				spoil_copy(pool, 0, idx);
			best = ter_max(best, age[idx]);
		}
		for (unsigned idx = 0; idx < 3; idx++)
			want_bad |= (unsigned)(age[idx] != best) << idx;
		if (!best) {
			assert_int_equal(seq_on(pool, 0, NULL), -EBADMSG);
			continue;
		}
		assert_int_equal(seq_on(pool, 0, &bad), best);
		assert_int_equal(bad, want_bad);
	}
	pool_free(pool);
}

static void an_unreadable_copy_is_a_bad_copy(void **state)
{
	struct pool *pool = pool_new(1);
	unsigned bad;

	assert_int_equal(pool_write(pool, NULL), 0);
	pool->fm->disk[0].fail_read[0] = pool->offset[0];
	assert_int_equal(seq_on(pool, 0, &bad), 1);
	assert_int_equal(bad, 1);
	pool->fm->disk[0].fail_read[1] = pool->offset[1];
	pool->fm->disk[0].fail_read[2] = pool->offset[2];
	assert_int_equal(seq_on(pool, 0, NULL), -EIO);
	pool_free(pool);
}

static void a_copy_is_not_valid_where_it_does_not_belong(void **state)
{
	struct pool *pool = pool_new(1);

	/* A partition's last copy, seen at the end of the disk. */
	place_copy_of(pool, pool->sb, 0, pool->offset[2], pool->offset[2] - TER_MIB(1));
	assert_int_equal(seq_on(pool, 0, NULL), -ENODATA);
	/* Even one of a version that nobody here can read does not concern this device. */
	((struct ter_sb_disk *)(pool->fm->disk[0].data + pool->offset[2]))->version_major = ter_le16_make(9);
	ter_sb_retarget(pool->fm->disk[0].data + pool->offset[2], 0, pool->offset[2] - TER_MIB(1));
	assert_int_equal(seq_on(pool, 0, NULL), -ENODATA);
	ter_sb_retarget(pool->fm->disk[0].data + pool->offset[2], 0, pool->offset[2]);
	assert_int_equal(seq_on(pool, 0, NULL), -EPROTONOSUPPORT);
	pool_free(pool);
}

static void the_last_copy_is_found_on_a_device_that_has_grown(void **state)
{
	struct pool *pool = pool_new(1);
	unsigned bad;

	member(pool, 0)->bytes = DISK_BYTES - 8 * BUCKET_BYTES;
	member(pool, 0)->buckets_nr = 140;
	assert_int_equal(pool_write(pool, NULL), 0);
	assert_int_equal(seq_on(pool, 0, &bad), 1);
	assert_int_equal(bad, 0);
	spoil_copy(pool, 0, 0);
	assert_int_equal(seq_on(pool, 0, &bad), 1);
	assert_int_equal(bad, 1);
	pool_free(pool);
}

static void a_copy_of_a_later_version_refuses_the_device(void **state)
{
	struct pool *pool = pool_new(1);

	assert_int_equal(pool_write(pool, NULL), 0);
	pool->sb->version_major = TER_FORMAT_MAJOR + 1;
	place_copy(pool, 0, 1, 2);
	assert_int_equal(seq_on(pool, 0, NULL), -EPROTONOSUPPORT);
	spoil_copy(pool, 0, 1); /* without a right checksum it says nothing */
	assert_int_equal(seq_on(pool, 0, NULL), 1);
	pool_free(pool);
}

static void of_two_pools_the_one_formatted_last_counts(void **state)
{
	for (unsigned place = 0; place < 3; place++) {
		struct pool *pool = pool_new(1);
		unsigned bad;

		place_copy(pool, 0, 0, 500);
		place_copy(pool, 0, 1, 500);
		place_copy(pool, 0, 2, 500);
		memset(pool->sb->uuid, 0xbb, sizeof(pool->sb->uuid));
		pool->sb->created_ns++;
		place_copy(pool, 0, place, 1); /* the format was cut off */
		assert_int_equal(seq_on(pool, 0, &bad), 1);
		assert_int_equal(bad, ALL_COPIES & ~(1u << place));
		pool_free(pool);
	}
}

static void devices_that_cannot_be_members_are_refused(void **state)
{
	struct pool *pool = pool_new(1);
	struct ter_bdev_info *info = &pool->fm->disk[0].bdev.info;

	info->bytes = TER_SB_AREA_BYTES + TER_SB_TAIL_BYTES;
	assert_int_equal(seq_on(pool, 0, NULL), -ENODATA);
	info->bytes = 0;
	assert_int_equal(seq_on(pool, 0, NULL), -ENODATA);
	info->bytes = DISK_BYTES;
	info->logical_block_bytes = 16384;
	assert_int_equal(seq_on(pool, 0, NULL), -EOPNOTSUPP);
	pool_free(pool);
}

/* --- writing --- */

/* @spoilt: bit per copy of member 1 that is bad beforehand. */
static bool cut_once(unsigned ops, unsigned spoilt, struct sb_rng *rng)
{
	struct pool *pool = pool_new(2);
	int64_t seq[2];
	int r;

	assert_int_equal(pool_write(pool, NULL), 0);
	pool->sb->created_ns = 2000; /* both differ beyond their seq, so that half of one and half of the other has a wrong checksum */
	memset(pool->sb->label, 'x', 20);
	pool->sb->blacklist_nr = 1;
	pool->sb->blacklist[0].first = pool->sb->blacklist[0].last = 5;
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(ter_sb_replicas_add(pool->sb, &(struct ter_replicas_entry){ TER_DATA_USER, 1 + i % 2, 1, { 0, i % 2 ? 2 : 0 } }), 0);
	for (unsigned idx = 0; idx < 3; idx++)
		if (spoilt >> idx & 1)
			spoil_copy(pool, 1, idx);

	fake_cut_after(pool->fm, ops);
	r = pool_write(pool, NULL);
	fake_power_on(pool->fm, rng);
	for (unsigned i = 0; i < 2; i++) {
		seq[i] = seq_on(pool, i, NULL);
		if (seq[i] != 1 && seq[i] != 2)
			fail_msg("cut after %u, spoilt %u: member %u has %lld", ops, spoilt, i, (long long)seq[i]);
	}
	if (r == 0)
		assert_true(seq[0] == 2 || seq[1] == 2); /* what was acknowledged is there */
	if (ops == 0)
		assert_true(r < 0);
	pool_free(pool);
	return ops >= 12; /* 3 copies x 2 members x (write, flush) */
}

static void a_cut_at_any_write_leaves_a_valid_copy_on_every_member(void **state)
{
	struct sb_rng rng = { sb_test_seed() };

	for (unsigned spoilt = 0; spoilt < ALL_COPIES; spoilt++) /* not all three */
		for (unsigned times = 0; times < 6; times++)
			for (unsigned ops = 0; !cut_once(ops, spoilt, &rng); ops++)
				;
}

static void bad_copies_are_healed(void **state)
{
	for (unsigned spoilt = 0; spoilt <= ALL_COPIES; spoilt++) {
		struct pool *pool = pool_new(2);
		unsigned bad;

		assert_int_equal(pool_write(pool, NULL), 0);
		for (unsigned idx = 0; idx < 3; idx++)
			if (spoilt >> idx & 1)
				spoil_copy(pool, 1, idx);
		assert_int_equal(pool_write(pool, NULL), 0);
		assert_int_equal(seq_on(pool, 1, &bad), 2);
		assert_int_equal(bad, 0);
		pool_free(pool);
	}
}

static void the_last_good_copy_is_not_risked(void **state)
{
	struct pool *pool = pool_new(2);
	struct fake_disk *disk = &pool->fm->disk[1];

	assert_int_equal(pool_write(pool, NULL), 0);
	spoil_copy(pool, 1, 1);
	spoil_copy(pool, 1, 2);
	disk->fail_write[0] = pool->offset[1];
	disk->fail_write[1] = pool->offset[2];
	disk->lose_write[0] = pool->offset[0]; /* were it tried, it would be seen as written */
	assert_int_equal(pool_write(pool, NULL), 0); /* the other member takes it */
	assert_int_equal(seq_on(pool, 0, NULL), 2);
	assert_int_equal(seq_on(pool, 1, NULL), 1);
	assert_int_equal(disk->writes, 3 + 2);
	assert_int_equal(member(pool, 1)->written_seq, 1);
	pool_free(pool);
}

static void after_two_failed_copies_the_third_is_left_alone(void **state)
{
	struct pool *pool = pool_new(2);
	struct fake_disk *disk = &pool->fm->disk[1];

	assert_int_equal(pool_write(pool, NULL), 0);
	disk->fail_write[0] = pool->offset[0]; /* either may have been torn */
	disk->fail_write[1] = pool->offset[1];
	assert_int_equal(pool_write(pool, NULL), 0);
	assert_int_equal(disk->writes, 3 + 2);
	spoil_copy(pool, 1, 0);
	spoil_copy(pool, 1, 1);
	assert_int_equal(seq_on(pool, 1, NULL), 1);
	pool_free(pool);
}

static void a_newer_superblock_on_disk_stops_all_writing(void **state)
{
	for (unsigned idx = 0; idx < 3; idx++) {
		struct pool *pool = pool_new(2);
		struct ter_error error;
		unsigned writes;

		assert_int_equal(pool_write(pool, NULL), 0);
		place_copy(pool, 1, idx, 2);
		writes = pool->fm->disk[0].writes + pool->fm->disk[1].writes;
		assert_int_equal(pool_write(pool, &error), -EUCLEAN);
		assert_non_null(strstr(error.text, "/dev/fake1"));
		assert_true(pool->handle.emergency);
		assert_int_equal(pool->sb->seq, 1);
		assert_int_equal(pool_write(pool, &error), -EROFS);
		assert_int_equal(error.kind, TER_ERR_EMERGENCY_READ_ONLY);
		assert_int_equal(ter_sb_replicas_ensure(&pool->handle, &(struct ter_replicas_entry){ TER_DATA_USER, 1, 1, { 0 } }, false), -EROFS);
		assert_int_equal(pool->fm->disk[0].writes + pool->fm->disk[1].writes, writes);
		pool_free(pool);
	}
}

static void a_lost_write_is_noticed(void **state)
{
	struct pool *pool = pool_new(2);
	struct ter_error error;

	assert_int_equal(pool_write(pool, NULL), 0);
	pool->fm->disk[1].lose_write[0] = pool->offset[0];
	assert_int_equal(pool_write(pool, NULL), 0); /* the device said so */
	assert_int_equal(pool_write(pool, &error), -EUCLEAN);
	assert_non_null(strstr(error.text, "/dev/fake1: the device has lost a write"));
	assert_true(pool->handle.emergency);
	pool_free(pool);
}

static void an_older_superblock_of_a_member_that_was_away_is_no_error(void **state)
{
	struct pool *pool = pool_new(2);

	assert_int_equal(pool_write(pool, NULL), 0);
	member(pool, 1)->bdev = NULL;
	assert_int_equal(pool_write(pool, NULL), 0);
	assert_int_equal(pool_write(pool, NULL), 0);
	assert_int_equal(member(pool, 1)->seen_seq, 1); /* what it was last seen with */
	member(pool, 1)->bdev = &pool->fm->disk[1].bdev;
	assert_int_equal(pool_write(pool, NULL), 0);
	assert_int_equal(seq_on(pool, 1, NULL), 4);
	pool_free(pool);
}

static void another_pool_or_version_in_our_place_stops_all_writing(void **state)
{
	for (unsigned what = 0; what < 2; what++) {
		struct pool *pool = pool_new(2);
		struct ter_sb *other = malloc(sizeof(*other));

		*other = *pool->sb;
		other->seq = 1;
		if (what)
			other->version_major = 2;
		else
			memset(other->uuid, 0xcc, sizeof(other->uuid));
		place_copy_of(pool, other, 1, pool->offset[0], pool->offset[0]);
		assert_int_equal(pool_write(pool, NULL), 0); /* a new member: what was on it before is of no concern */
		assert_int_equal(seq_on(pool, 1, NULL), 1);
		place_copy_of(pool, other, 1, pool->offset[0], pool->offset[0]);
		assert_int_equal(pool_write(pool, NULL), -EUCLEAN);
		assert_true(pool->handle.emergency);
		free(other);
		pool_free(pool);
	}
}

static void one_member_is_enough_and_errors_are_counted(void **state)
{
	struct pool *pool = pool_new(3);

	assert_int_equal(pool_write(pool, NULL), 0);
	pool->fm->disk[0].fail_all_writes = true;
	pool->fm->disk[2].fail_flush = true;
	assert_int_equal(pool_write(pool, NULL), 0);
	assert_int_equal(seq_on(pool, 1, NULL), 2);
	assert_int_equal(seq_on(pool, 0, NULL), 1);
	assert_true(atomic_load(&member(pool, 0)->errors[TER_DEV_ERR_WRITE]) > 0);
	assert_true(atomic_load(&member(pool, 2)->errors[TER_DEV_ERR_FLUSH]) > 0);
	assert_int_equal(atomic_load(&member(pool, 1)->errors[TER_DEV_ERR_WRITE]), 0);
	pool_free(pool);
}

static void no_rw_member_is_not_enough(void **state)
{
	struct pool *pool = pool_new(2);

	assert_int_equal(pool_write(pool, NULL), 0);
	member(pool, 1)->state = TER_DEV_RO;
	pool->fm->disk[0].fail_all_writes = true;
	assert_int_equal(pool_write(pool, NULL), -EIO);
	assert_int_equal(seq_on(pool, 1, NULL), 2); /* it was written, it does not count */

	pool->fm->disk[0].fail_all_writes = false;
	assert_int_equal(pool_write(pool, NULL), 0); /* what that attempt left is not taken for somebody else's */
	assert_int_equal(seq_on(pool, 0, NULL), 3);
	assert_int_equal(seq_on(pool, 1, NULL), 3);

	member(pool, 0)->bdev = member(pool, 1)->bdev = NULL;
	assert_int_equal(pool_write(pool, NULL), -EIO);
	pool_free(pool);
}

static void what_could_not_be_read_back_is_not_written(void **state)
{
	struct pool *pool = pool_new(1);
	struct ter_error error;

	assert_int_equal(pool_write(pool, NULL), 0);
	pool->members->dev[0].buckets_nr++; /* our own mistake */
	assert_int_equal(pool_write(pool, &error), -ENOTRECOVERABLE);
	assert_int_equal(error.kind, TER_ERR_INTERNAL);
	assert_int_equal(pool->fm->disk[0].writes, 3);
	assert_int_equal(pool->sb->seq, 1);
	assert_int_equal(member(pool, 0)->seen_seq, 1);
	pool->members->dev[0].buckets_nr--;
	assert_int_equal(pool_write(pool, NULL), 0);
	pool_free(pool);
}

static void without_memory_nothing_is_written(void **state)
{
	struct pool *pool = pool_new(2);
	int r = -ENOMEM;
	uint64_t nth;

	assert_int_equal(pool_write(pool, NULL), 0);
	for (nth = 1; r < 0; nth++) {
		assert_int_equal(ter_fault_arm("mem.alloc", &(struct ter_fault_rule){ .nth = nth, .times = 1 }), 0);
		r = ter_sb_write(&pool->handle, NULL);
		if (r < 0) {
			assert_int_equal(r, -ENOMEM);
			assert_int_equal(pool->sb->seq, 1);
			assert_int_equal(pool->fm->disk[0].writes, 3);
		}
	}
	ter_fault_disarm_all();
	assert_true(nth > 20); /* image, table, buffers, and two for each copy that is read or checked */
	assert_int_equal(seq_on(pool, 0, NULL), 2);
	pool_free(pool);
}

/* --- replicas entries --- */

static bool entry_on_disk(struct pool *pool, unsigned disk, const struct ter_replicas_entry *entry)
{
	struct ter_sb_read_result result;
	bool has;

	assert_int_equal(pool_read(pool, disk, &result), 0);
	has = ter_sb_replicas_has(result.sb, entry);
	result_free(&result);
	return has;
}

static void an_entry_is_durable_before_it_is_used(void **state)
{
	const struct ter_replicas_entry entry = { TER_DATA_USER, 2, 1, { 0, 2 } }, malformed = { TER_DATA_USER, 2, 1, { 2, 0 } };
	struct pool *pool = pool_new(2);
	unsigned writes;

	assert_int_equal(pool_write(pool, NULL), 0);
	assert_int_equal(ter_sb_replicas_ensure(&pool->handle, &malformed, false), -EINVAL);
	assert_int_equal(ter_sb_replicas_ensure(&pool->handle, &entry, true), -EAGAIN);
	assert_false(entry_on_disk(pool, 0, &entry));
	assert_int_equal(pool->fm->disk[0].writes, 3);

	pool->fm->disk[0].fail_all_writes = pool->fm->disk[1].fail_all_writes = true;
	assert_int_equal(ter_sb_replicas_ensure(&pool->handle, &entry, false), -EIO);
	assert_false(ter_sb_replicas_has(pool->sb, &entry)); /* or the next one would believe it */
	pool->fm->disk[0].fail_all_writes = pool->fm->disk[1].fail_all_writes = false;

	assert_int_equal(ter_sb_replicas_ensure(&pool->handle, &entry, false), 0);
	assert_true(ter_sb_replicas_has(pool->sb, &entry));
	assert_true(entry_on_disk(pool, 0, &entry) && entry_on_disk(pool, 1, &entry));
	writes = pool->fm->disk[0].writes;
	assert_int_equal(ter_sb_replicas_ensure(&pool->handle, &entry, true), 0);
	assert_int_equal(ter_sb_replicas_ensure(&pool->handle, &entry, false), 0);
	assert_int_equal(pool->fm->disk[0].writes, writes);
	assert_int_equal(pool_write(pool, NULL), 0);
	assert_true(entry_on_disk(pool, 0, &entry)); /* and stays */
	pool_free(pool);
}

static void a_full_table_says_so(void **state)
{
	struct pool *pool = pool_new(2);
	const struct ter_replicas_entry entry = { TER_DATA_STRIPE, 1, 1, { 0 } };

	assert_int_equal(pool_write(pool, NULL), 0);
	for (unsigned i = 0; i < TER_REPLICAS_ENTRIES_MAX; i++) {
		pool->sb->replicas[i] = (struct ter_replicas_entry){ TER_DATA_USER, 4, 1, { 0, (uint8_t)(1 + i / 64), (uint8_t)(20 + i % 64 / 8), (uint8_t)(40 + i % 8) } };
		pool->sb->replicas_nr++;
	}
	assert_int_equal(ter_sb_replicas_ensure(&pool->handle, &entry, false), -ENOSPC);
	assert_int_equal(pool->sb->seq, 1);
	pool_free(pool);
}

struct ensurer {
	struct pool *pool;
	struct sb_rng rng;
	struct ter_task *task;
};

static void ensure_some(void *arg)
{
	struct ensurer *e = arg;

	for (unsigned i = 0; i < 12; i++) {
		struct ter_replicas_entry entry = { (uint8_t)(TER_DATA_JOURNAL + sb_rng_below(&e->rng, 3)), 1, 1, { 0 } };

		if (sb_rng_below(&e->rng, 2))
			entry.devs[0] = 2;
		else if (sb_rng_below(&e->rng, 2)) {
			entry.nr_devs = 2;
			entry.devs[1] = 2;
			entry.nr_required = (uint8_t)(1 + sb_rng_below(&e->rng, 2));
		}
		assert_int_equal(ter_sb_replicas_ensure(&e->pool->handle, &entry, false), 0);
		/* On disk already; with the lock, since reading a copy while it is written would see half of it. */
		ter_lock_acquire(&e->pool->handle.write_lock);
		assert_true(entry_on_disk(e->pool, 0, &entry));
		ter_lock_release(&e->pool->handle.write_lock);
	}
}

static void threads_that_need_the_same_entries_all_find_them_durable(void **state)
{
	struct pool *pool = pool_new(2);
	struct ensurer e[4];
	uint64_t seed = sb_test_seed();

	assert_int_equal(pool_write(pool, NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(e); i++) {
		e[i] = (struct ensurer){ .pool = pool, .rng = { seed + i / 2 } }; /* two and two want the same */
		assert_int_equal(pool->exec->ops->spawn(pool->exec, "ensure", ensure_some, &e[i], &e[i].task), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(e); i++)
		pool->exec->ops->join(pool->exec, e[i].task);
	assert_int_equal(pool->sb->seq, 1 + pool->sb->replicas_nr); /* one write an entry */
	pool_free(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_found_on_every_member),
		cmocka_unit_test(the_newest_valid_copy_wins_in_any_order),
		cmocka_unit_test(an_unreadable_copy_is_a_bad_copy),
		cmocka_unit_test(a_copy_is_not_valid_where_it_does_not_belong),
		cmocka_unit_test(the_last_copy_is_found_on_a_device_that_has_grown),
		cmocka_unit_test(a_copy_of_a_later_version_refuses_the_device),
		cmocka_unit_test(of_two_pools_the_one_formatted_last_counts),
		cmocka_unit_test(devices_that_cannot_be_members_are_refused),
		cmocka_unit_test(a_cut_at_any_write_leaves_a_valid_copy_on_every_member),
		cmocka_unit_test(bad_copies_are_healed),
		cmocka_unit_test(the_last_good_copy_is_not_risked),
		cmocka_unit_test(after_two_failed_copies_the_third_is_left_alone),
		cmocka_unit_test(a_newer_superblock_on_disk_stops_all_writing),
		cmocka_unit_test(a_lost_write_is_noticed),
		cmocka_unit_test(an_older_superblock_of_a_member_that_was_away_is_no_error),
		cmocka_unit_test(another_pool_or_version_in_our_place_stops_all_writing),
		cmocka_unit_test(one_member_is_enough_and_errors_are_counted),
		cmocka_unit_test(no_rw_member_is_not_enough),
		cmocka_unit_test(what_could_not_be_read_back_is_not_written),
		cmocka_unit_test(without_memory_nothing_is_written),
		cmocka_unit_test(an_entry_is_durable_before_it_is_used),
		cmocka_unit_test(a_full_table_says_so),
		cmocka_unit_test(threads_that_need_the_same_entries_all_find_them_durable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
