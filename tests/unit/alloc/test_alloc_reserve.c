/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reservations: never more than can be written, never less than the arithmetic allows. */
#include "alloc_model.h"

#include <stdio.h>

#define BUCKET 128u

static uint64_t cap_of(struct rig *rig, unsigned dev_idx)
{
	const struct ter_dev *dev = &rig->members->dev[dev_idx];
	int64_t nr = ter_alloc_free_nr(rig->alloc, dev_idx) + ter_alloc_need_discard_nr(rig->alloc, dev_idx) -
		     (int64_t)(ter_reserve_nodes(dev) + ter_reserve_move(rig->alloc, dev));

	return nr > 0 ? (uint64_t)nr * dev->bucket_sectors : 0;
}

/* The greatest x with sum(min(cap, x)) >= r * x, by trying. */
static uint64_t greatest(struct rig *rig, unsigned replicas)
{
	uint64_t low = 0, high = 1 << 20;

	while (low < high) {
		uint64_t mid = (low + high + 1) / 2, sum = 0;

		for (unsigned i = 0; i < rig->members->nr_slots; i++)
			sum += ter_min(cap_of(rig, i), mid);
		if (sum >= replicas * mid)
			low = mid;
		else
			high = mid - 1;
	}
	return low;
}

static struct rig *random_rig(uint64_t round, unsigned nr)
{
	struct rig_params params = { .nr = nr, .bucket_sectors = BUCKET, .data_replicas = 1, .metadata_replicas = 1, .no_worker = true };
	uint64_t z = round * 0x9e3779b97f4a7c15ull;

	for (unsigned i = 0; i < nr; i++, z = z * 6364136223846793005ull + 1442695040888963407ull)
		params.buckets[i] = 128 + (z >> 33) % 400;
	return rig_new(&params);
}

static void available_is_what_the_arithmetic_says(void **state)
{
	for (unsigned round = 0; round < 40; round++) {
		struct rig *rig = random_rig(round, 1 + round % 4);

		for (unsigned replicas = 1; replicas <= rig->members->nr_slots; replicas++) {
			uint64_t x = greatest(rig, replicas);

			assert_int_equal(ter_reserve_available(rig->alloc, replicas), x);
			assert_int_equal(ter_alloc_reserve(rig->alloc, x + 1, replicas), -ENOSPC);
			assert_int_equal(ter_alloc_reserve(rig->alloc, x, replicas), 0);
			assert_int_equal(ter_reserve_available(rig->alloc, replicas), 0);
			assert_int_equal(ter_alloc_reserve(rig->alloc, 1, replicas), -ENOSPC);
			ter_alloc_unreserve(rig->alloc, x, replicas);
			assert_int_equal(ter_reserve_available(rig->alloc, replicas), x); /* what failed left nothing behind */
		}
		rig_free(rig);
	}
}

/* B6: whatever was promised, in any mix of copies, is written; from several write points, in pieces, in any order. */
static void what_was_reserved_is_written(void **state)
{
	for (unsigned round = 0; round < 40; round++) {
		struct rig *rig = random_rig(round * 7 + 1, 1 + round % 4);
		struct ter_fs_usage usage;
		unsigned replicas_max = ter_min(rig->members->nr_slots, 3u);
		uint64_t left[4] = { 0 }, total = 0;
		struct model m;

		model_init(&m, rig);
		/* Some of the space is in use, so that caps are not those of a fresh pool. */
		for (unsigned n = 0; n < 60; n++)
			assert_true(model_write(&m, 8, BUCKET, 1, false) > 0);
		for (unsigned misses = 0; misses < 20;) {
			unsigned replicas = 1 + (unsigned)rig_random(rig, replicas_max);
			uint64_t sectors = 8 * (1 + rig_random(rig, 200));

			if (ter_alloc_reserve(rig->alloc, sectors, replicas) < 0) {
				misses++;
				continue;
			}
			left[replicas] += sectors;
			total += sectors;
		}
		assert_true(total > 0);
		ter_alloc_fs_usage(rig->alloc, &usage);
		assert_int_equal(usage.capacity, usage.used + usage.reserved + usage.available);
		while (total) {
			unsigned replicas = 1 + (unsigned)rig_random(rig, replicas_max);
			uint32_t want = (uint32_t)ter_min(left[replicas], 8 * (1 + rig_random(rig, 16)));
			int r;

			if (!want)
				continue;
			m.wp = (unsigned)rig_random(rig, TER_WRITE_POINTS_USER);
			r = model_write(&m, 8, want, replicas, false);
			if (r < 0)
				fail_msg("round %u: %d with %llu sectors promised", round, r, (unsigned long long)total);
			ter_alloc_unreserve(rig->alloc, (uint64_t)r, replicas);
			left[replicas] -= (uint64_t)r;
			total -= (uint64_t)r;
		}
		rig_assert_sound(rig);
		model_free(&m);
		rig_free(rig);
	}
}

static void with_members_missing_fewer_copies_are_promised(void **state)
{
	struct rig *rig = random_rig(3, 2);

	rig->members->dev[1].state = TER_DEV_RO;
	ter_alloc_members_changed(rig->alloc);
	assert_int_equal(ter_alloc_reserve(rig->alloc, 64, 2), 0);
	ter_alloc_unreserve(rig->alloc, 64, 2);
	rig->members->dev[0].state = TER_DEV_RO;
	ter_alloc_members_changed(rig->alloc);
	assert_int_equal(ter_alloc_reserve(rig->alloc, 64, 2), -ENOSPC);
	assert_int_equal(ter_alloc_reserve(rig->alloc, UINT64_MAX, 1), -ENOSPC);
	rig_free(rig);
}

/* --- counters' positions --- */

static void counters_are_told_apart(void **state)
{
	/* kind 1, type 4, 3 members, 1 required, then the members sorted, 0xff beyond */
	struct ter_replicas_entry e = { .data_type = TER_DATA_USER, .nr_devs = 3, .nr_required = 1, .devs = { 9, 3, 63 } }, back;
	struct ter_pos pos = ter_counter_replicas(&e);

	assert_int_equal(pos.inode, 0x0104030103093fff);
	assert_true(ter_counter_parse_replicas(pos, &back));
	assert_int_equal(back.nr_devs, 3);
	assert_int_equal(back.devs[0], 3);
	assert_int_equal(back.devs[2], 63);
	assert_int_equal(back.devs[3], 0);
	assert_int_equal(ter_counter_dev(TER_DATA_NEED_DISCARD, 5).inode, 0x0208050000000000);
	assert_int_equal(ter_counter_compression(7).inode, 0x0307000000000000);
	assert_int_equal(ter_counter_inodes().inode, 0x0400000000000000);
	assert_int_equal(ter_counter_btree(TER_BTREE_ACCOUNTING).inode, 0x0510000000000000);
	assert_int_equal(ter_counter_kind(ter_counter_dev(TER_DATA_USER, 63)), TER_COUNT_DEV);
	assert_int_equal(ter_counter_kind(ter_counter_inodes()), TER_COUNT_INODES);
	assert_int_equal(ter_counter_kind(TER_POS(0x0204400000000000, 0, 0)), 0); /* member 64 */
	assert_int_equal(ter_counter_kind(TER_POS(0x0209000000000000, 0, 0)), 0); /* no such type */
	assert_int_equal(ter_counter_kind(TER_POS(0x0204000000000001, 0, 0)), 0);
	assert_int_equal(ter_counter_kind(TER_POS(0x0400000000000000, 1, 0)), 0);
	assert_int_equal(ter_counter_kind(TER_POS(0x0500000000000000 | (uint64_t)TER_BTREE_NR << 48, 0, 0)), 0);
	assert_int_equal(ter_counter_kind(TER_POS(0x0700000000000000, 0, 0)), 0);
	assert_false(ter_counter_parse_replicas(TER_POS(0x01040301030900ff, 0, 0), &back)); /* not ascending */
	assert_false(ter_counter_parse_replicas(TER_POS(0x0104030103093f40, 0, 0), &back)); /* one too many */
	assert_false(ter_counter_parse_replicas(TER_POS(0x0104030403093fff, 0, 0), &back)); /* more required than there are */
	assert_false(ter_counter_parse_replicas(TER_POS(0x0104000103ffffff, 0, 0), &back));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(available_is_what_the_arithmetic_says),
		cmocka_unit_test(what_was_reserved_is_written),
		cmocka_unit_test(with_members_missing_fewer_copies_are_promised),
		cmocka_unit_test(counters_are_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
