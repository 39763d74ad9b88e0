/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Space and staging against a model: every relation holds after every step. */
#include "alloc_model.h"

#include <stdio.h>

#define BLOCK 8u

static struct rig_params three_members(void)
{
	return (struct rig_params){ .nr = 3, .buckets = { 150, 190, 131 }, .bucket_sectors = 128, .data_replicas = 2, .metadata_replicas = 2, .no_worker = true };
}

/* --- random steps --- */

static void step_write(struct model *m)
{
	struct rig *rig = m->rig;
	uint32_t want = BLOCK * (1 + (uint32_t)rig_random(rig, 32));
	struct ter_alloc_request request = {
		.write_point = (unsigned)rig_random(rig, TER_WRITE_POINTS_USER), .watermark = TER_WATERMARK_USER, .replicas = 1 + (unsigned)rig_random(rig, 3),
		.replicas_required = 1, .sectors_min = rig_random(rig, 2) ? BLOCK : ter_min(want, 128u), .sectors_want = want,
		.nowait = rig_random(rig, 4) == 0,
	};
	struct ter_space space;
	int r = ter_alloc_get(rig->alloc, &request, &space);
	uint32_t at = 0;

	if (r < 0) {
		assert_true(r == -ENOSPC || (r == -EAGAIN && request.nowait));
		return;
	}
	assert_int_equal(space.nr, request.replicas);
	model_assert_space_dead(m, &space);
	/* One to a few extents, perhaps not all of it, perhaps none. */
	while (at < space.sectors && rig_random(rig, 8)) {
		uint32_t sectors = BLOCK * (1 + (uint32_t)rig_random(rig, (space.sectors - at) / BLOCK));

		assert_int_equal(model_link(m, &space, at, sectors), 0);
		at += sectors;
	}
	ter_alloc_put(rig->alloc, &space);
}

static void relations_hold_after_every_step(void **state)
{
	struct rig_params params = three_members();
	struct rig *rig = rig_new(&params);
	struct model m;
	unsigned gens = 0;

	rig->restart_every = 7;
	model_init(&m, rig);
	for (unsigned step = 0; step < 4000; step++) {
		bool shrink = step / 1000 % 2;

		if (m.nr && rig_random(rig, 10) < (shrink ? 7u : 4u))
			assert_int_equal(model_delete(&m, (unsigned)rig_random(rig, m.nr)), 0);
		else
			step_write(&m);
		if (rig_random(rig, 50) == 0)
			assert_true(ter_discard_run(rig->alloc) >= 0);
		if (step % 10 == 0)
			model_assert_equal(&m);
		else
			rig_assert_sound(rig);
	}
	while (m.nr)
		assert_int_equal(model_delete(&m, m.nr - 1), 0);
	ter_alloc_stop(rig->alloc);
	while (ter_discard_run(rig->alloc) > 0)
		;
	model_assert_equal(&m);
	for (unsigned i = 0; i < 3; i++) {
		struct ter_dev_usage u;

		assert_int_equal(ter_alloc_dev_usage(rig->alloc, i, &u), 0);
		assert_int_equal(u.buckets[TER_DATA_FREE], rig->members->dev[i].buckets_nr - 9); /* 2 superblock, 7 journal */
		for (uint64_t b = 0; b < rig->members->dev[i].buckets_nr; b++)
			gens += rig->seen_gen[i][b];
	}
	assert_true(gens > 0); /* buckets were used again */
	assert_true(rig->discards > 0);

	/* What was loaded is what was followed. */
	assert_int_equal(ter_alloc_load(rig->alloc), 0);
	model_assert_equal(&m);
	model_free(&m);
	rig_free(rig);
}

struct node_arg {
	const struct ter_btree_hooks *hooks;
	const struct ter_node_ptrs *ptrs;
	int sign;
};

static int node_fn(struct ter_trans *trans, void *arg)
{
	struct node_arg *a = arg;

	return a->hooks->node_stage(a->hooks->arg, trans, TER_BTREE_INODES, 1, TER_POS(77, 0, 0), a->ptrs, a->sign);
}

/* --- full --- */

static uint64_t fill(struct model *m, unsigned replicas)
{
	uint64_t sectors = 0;
	int r;

	while ((r = model_write(m, BLOCK, 128, replicas, false)) > 0)
		sectors += (uint64_t)r;
	assert_int_equal(r, -ENOSPC);
	return sectors;
}

static void a_full_pool_says_so_and_deletes_still_work(void **state)
{
	struct rig_params params = three_members();
	struct rig *rig = rig_new(&params);
	struct ter_btree_hooks hooks;
	struct ter_fs_usage usage;
	struct ter_dev_usage before[3];
	struct model m;
	uint64_t first, second;
	unsigned nodes = 0;

	model_init(&m, rig);
	ter_alloc_fs_usage(rig->alloc, &usage);
	first = fill(&m, 2);
	assert_true(first >= usage.available); /* what was promised */
	ter_alloc_fs_usage(rig->alloc, &usage);
	assert_int_equal(usage.available, 0);
	rig_assert_sound(rig);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(ter_alloc_dev_usage(rig->alloc, i, &before[i]), 0);
		assert_true(before[i].buckets[TER_DATA_FREE] >= ter_reserve_nodes(&rig->members->dev[i])); /* B5 */
	}

	/* Deleting half, in whatever order, gives half back, waiting for journal and discard inside. */
	for (unsigned n = m.nr / 2; n > 0; n--)
		assert_int_equal(model_delete(&m, (unsigned)rig_random(rig, m.nr)), 0);
	while (m.nr)
		assert_int_equal(model_delete(&m, m.nr - 1), 0);
	second = fill(&m, 2);
	if (second * 100 < first * 99)
		fail_msg("%llu sectors, then %llu", (unsigned long long)first, (unsigned long long)second);
	rig_assert_sound(rig);

	/* Nodes find the reserve that users left. */
	ter_alloc_hooks(rig->alloc, &hooks);
	for (;;) {
		struct ter_node_ptrs ptrs;
		struct node_arg arg = { .hooks = &hooks, .ptrs = &ptrs, .sign = 1 };
		int r = hooks.node_alloc(hooks.arg, false, &ptrs);

		if (r == -ENOSPC)
			break;
		assert_int_equal(r, 0);
		assert_int_equal(ter_trans_run(rig->bt, 0, node_fn, &arg, NULL), 0);
		hooks.node_alloc_done(hooks.arg, &ptrs, true);
		nodes++;
	}
	assert_true(nodes * 32 / 128 >= 10);
	rig_assert_sound(rig);
	model_free(&m);
	rig_free(rig);
}

static void nowait_never_flushes(void **state)
{
	struct rig_params params = three_members();
	struct rig *rig = rig_new(&params);
	struct model m;
	unsigned flushes;
	int r;

	model_init(&m, rig);
	fill(&m, 1);
	while (m.nr)
		assert_int_equal(model_delete(&m, m.nr - 1), 0);
	flushes = rig->flushes;
	ter_alloc_stop(rig->alloc); /* open buckets are full or closed */
	while ((r = model_write(&m, 128, 128, 1, true)) == 128)
		; /* what users had to leave while nothing was to be discarded */
	assert_int_equal(r, -EAGAIN);
	assert_int_equal(rig->flushes, flushes);
	rig->journal_broken = true;
	assert_int_equal(model_write(&m, 128, 128, 1, false), -EIO);
	rig->journal_broken = false;
	assert_int_equal(model_write(&m, 128, 128, 1, false), 128);
	assert_true(rig->flushes > flushes);
	model_free(&m);
	rig_free(rig);
}

static void the_worker_frees_what_became_empty(void **state)
{
	struct rig_params params = three_members();
	struct rig *rig;
	struct ter_dev_usage u;
	struct model m;

	params.no_worker = false;
	rig = rig_new(&params);
	model_init(&m, rig);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(model_write(&m, 128, 128, 1, false), 128);
	while (m.nr)
		assert_int_equal(model_delete(&m, m.nr - 1), 0);
	/* It ends: nothing but the worker makes them free. */
	for (unsigned i = 0; i < 3;) {
		assert_int_equal(ter_alloc_dev_usage(rig->alloc, i, &u), 0);
		if (u.buckets[TER_DATA_NEED_DISCARD])
			rig->exec->ops->yield(rig->exec);
		else
			i++;
	}
	ter_alloc_stop(rig->alloc);
	model_assert_equal(&m);
	model_free(&m);
	rig_free(rig);
}

/* --- choice of members --- */

static void members_fill_evenly(void **state)
{
	struct rig_params params = { .nr = 3, .buckets = { 5000, 3000, 1000 }, .bucket_sectors = 128, .data_replicas = 1, .metadata_replicas = 1, .no_worker = true };

	for (unsigned replicas = 1; replicas <= 2; replicas++) {
		struct rig *rig = rig_new(&params);
		double share[3];
		struct model m;

		model_init(&m, rig);
		/* With two copies the largest member takes part in every one: 4 of 9 parts each time is all it can. */
		for (unsigned n = 0; n < 3600 / replicas; n++) {
			m.wp = n % 2;
			assert_int_equal(model_write(&m, 128, 128, replicas, false), 128);
		}
		for (unsigned i = 0; i < 3; i++)
			share[i] = (double)model_used(&m, i) / (double)params.buckets[i];
		for (unsigned i = 0; i < 3; i++) {
			double want = replicas == 1 ? 0.4 : i == 0 ? 0.36 : 0.45;

			if (share[i] < want * 0.93 || share[i] > want * 1.07)
				fail_msg("%u copies: shares are %f %f %f", replicas, share[0], share[1], share[2]);
		}
		rig_assert_sound(rig);
		model_free(&m);
		rig_free(rig);
	}
}

static void unequal_members_hold_all_that_can_be_mirrored(void **state)
{
	struct rig_params params = { .nr = 3, .buckets = { 700, 420, 160 }, .bucket_sectors = 128, .data_replicas = 2, .metadata_replicas = 1, .no_worker = true };
	struct rig *rig = rig_new(&params);
	struct ter_fs_usage usage;
	struct model m;

	model_init(&m, rig);
	ter_alloc_fs_usage(rig->alloc, &usage);
	assert_true(fill(&m, 2) >= usage.available);
	rig_assert_sound(rig);
	model_free(&m);
	rig_free(rig);
}

static void long_writes_are_contiguous(void **state)
{
	struct rig_params params = { .nr = 2, .buckets = { 2000, 2000 }, .bucket_sectors = 512, .data_replicas = 1, .metadata_replicas = 1, .no_worker = true };
	struct rig *rig = rig_new(&params);
	uint64_t end[2] = { 0 };
	unsigned breaks = 0, spaces = 0;

	/* Two streams by turns, bucket by bucket: each must find the bucket that follows its own last one. */
	for (unsigned n = 0; n < 512; n++) {
		unsigned wp = n % 2;
		struct ter_alloc_request request = { .write_point = wp, .replicas = 1, .replicas_required = 1, .sectors_min = 8, .sectors_want = 8192 };
		struct ter_space space;

		assert_int_equal(ter_alloc_get(rig->alloc, &request, &space), 0);
		assert_int_equal(space.sectors, 512);
		spaces++;
		breaks += end[wp] != ((uint64_t)space.ptr[0].dev << 48 | space.ptr[0].sector);
		end[wp] = (uint64_t)space.ptr[0].dev << 48 | (space.ptr[0].sector + space.sectors);
		ter_alloc_put(rig->alloc, &space);
	}
	if (breaks * 4 > spaces + 64)
		fail_msg("%u breaks in %u", breaks, spaces);
	/* A break each 1 MiB, when the members take turns, and around superblock and journal where the disk begins. */
	rig_free(rig);
}

static void missing_members_are_done_without(void **state)
{
	struct rig_params params = three_members();
	struct rig *rig = rig_new(&params);
	struct ter_alloc_request request = { .replicas = 3, .replicas_required = 2, .sectors_min = 8, .sectors_want = 8 };
	struct ter_replicas_entry entry;
	struct ter_space space;

	rig->members->dev[1].state = TER_DEV_RO;
	assert_int_equal(ter_alloc_get(rig->alloc, &request, &space), 0);
	assert_int_equal(space.nr, 2);
	ter_space_replicas(&space, TER_DATA_USER, 1, &entry);
	assert_int_equal(entry.nr_devs, 2);
	assert_int_equal(entry.devs[0], 0);
	assert_int_equal(entry.devs[1], 2);
	ter_alloc_put(rig->alloc, &space);

	rig->members->dev[2].durability = 0;
	assert_int_equal(ter_alloc_get(rig->alloc, &request, &space), -EROFS);
	request.replicas_required = 1;
	assert_int_equal(ter_alloc_get(rig->alloc, &request, &space), 0);
	assert_int_equal(space.nr, 1);
	assert_int_equal(space.ptr[0].dev, 0);
	ter_alloc_put(rig->alloc, &space);
	request.avoid_devs = 1;
	assert_int_equal(ter_alloc_get(rig->alloc, &request, &space), -EROFS);
	rig_free(rig);
}

/* --- open buckets --- */

static void what_one_write_point_set_aside_is_not_given_to_others(void **state)
{
	struct rig_params params = three_members();
	struct rig *rig = rig_new(&params);
	struct model m;

	model_init(&m, rig);
	assert_int_equal(model_write(&m, 8, 8, 3, false), 8); /* sets aside a run on each */
	m.wp = 1;
	for (unsigned round = 0; round < 16; round++) {
		/* Round the members, so that the search comes by that run again. */
		for (unsigned n = 0; n < 60; n++)
			assert_int_equal(model_write(&m, 128, 128, 1, false), 128);
		while (m.nr > 1)
			assert_int_equal(model_delete(&m, m.nr - 1), 0);
		while (ter_discard_run(rig->alloc) > 0)
			;
	}
	for (unsigned n = 0; n < 40; n++) {
		assert_int_equal(model_write(&m, 128, 128, 1, false), 128);
		m.wp = !m.wp;
	}
	model_assert_equal(&m);
	model_free(&m);
	rig_free(rig);
}

static void the_last_sectors_are_found_in_buckets_of_other_write_points(void **state)
{
	struct rig_params params = three_members();
	struct rig *rig = rig_new(&params);
	struct ter_dev_usage u;
	struct model m;

	model_init(&m, rig);
	for (; m.wp < TER_WRITE_POINTS_USER; m.wp++)
		assert_int_equal(model_write(&m, 8, 8, 3, false), 8);
	m.wp = 0;
	fill(&m, 1);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(ter_alloc_dev_usage(rig->alloc, i, &u), 0);
		assert_int_equal(u.fragmented[TER_DATA_USER], 0);
	}
	model_free(&m);
	rig_free(rig);
}

/* Two first pointers into one open bucket at once: the second reader sees an alloc key of before and a free range of after. That is no corruption. */
struct race {
	struct model *m;
	struct ter_space *space;
	unsigned times;
};

static void other_task_links(struct rig *rig, enum ter_btree_id btree)
{
	struct race *race = rig->before_read_arg;

	if (btree != TER_BTREE_FREESPACE || race->times)
		return;
	race->times++;
	assert_int_equal(model_link(race->m, race->space, 0, 8), 0);
}

static void what_is_read_between_two_commits_is_no_contradiction(void **state)
{
	struct rig_params params = three_members();
	struct rig *rig = rig_new(&params);
	struct ter_alloc_request request = { .replicas = 1, .replicas_required = 1, .sectors_min = 64, .sectors_want = 64 };
	struct ter_space space;
	struct model m;
	struct race race = { .m = &m, .space = &space };

	model_init(&m, rig);
	assert_int_equal(ter_alloc_get(rig->alloc, &request, &space), 0);
	rig->before_read_arg = &race;
	rig->before_read = other_task_links;
	assert_int_equal(model_link(&m, &space, 8, 8), 0);
	assert_int_equal(race.times, 1);
	rig->before_read = NULL;
	ter_alloc_put(rig->alloc, &space);
	model_assert_equal(&m);
	model_free(&m);
	rig_free(rig);
}

static void an_open_bucket_is_not_discarded(void **state)
{
	struct rig_params params = three_members();
	struct rig *rig = rig_new(&params);
	struct ter_alloc_request request = { .replicas = 1, .replicas_required = 1, .sectors_min = 64, .sectors_want = 64 };
	struct ter_space space;
	struct model m;

	model_init(&m, rig);
	assert_int_equal(ter_alloc_get(rig->alloc, &request, &space), 0);
	assert_int_equal(model_link(&m, &space, 0, 8), 0);
	assert_int_equal(model_delete(&m, 0), 0);
	assert_int_equal(ter_discard_run(rig->alloc), 0); /* empty, but somebody still writes there */
	assert_int_equal(model_link(&m, &space, 8, 8), 0); /* same generation */
	rig_assert_sound(rig);
	ter_alloc_put(rig->alloc, &space);
	assert_int_equal(model_delete(&m, 0), 0);
	assert_int_equal(ter_discard_run(rig->alloc), 0); /* the write point goes on in it */
	ter_alloc_stop(rig->alloc);
	assert_int_equal(ter_discard_run(rig->alloc), 1);
	model_assert_equal(&m);
	model_free(&m);
	rig_free(rig);
}

static void too_many_open_buckets_wait(void **state)
{
	struct rig_params params = { .nr = 1, .buckets = { 2000 }, .bucket_sectors = 128, .data_replicas = 1, .metadata_replicas = 1, .no_worker = true };
	struct rig *rig = rig_new(&params);
	struct ter_alloc_request request = { .replicas = 1, .replicas_required = 1, .sectors_min = 128, .sectors_want = 128, .nowait = true };
	static struct ter_space space[TER_OPEN_BUCKETS_MAX + 1];
	unsigned nr = 0;
	int r;

	while (!(r = ter_alloc_get(rig->alloc, &request, &space[nr])))
		assert_true(++nr <= TER_OPEN_BUCKETS_MAX);
	assert_int_equal(r, -EAGAIN);
	assert_int_equal(nr, TER_OPEN_BUCKETS_MAX);
	while (nr)
		ter_alloc_put(rig->alloc, &space[--nr]);
	assert_int_equal(ter_alloc_get(rig->alloc, &request, &space[0]), 0);
	ter_alloc_put(rig->alloc, &space[0]);
	rig_free(rig);
}

/* --- nodes --- */

static void nodes_share_buckets_and_are_counted(void **state)
{
	struct rig_params params = three_members();
	struct rig *rig;
	struct ter_btree_hooks hooks;
	struct ter_node_ptrs ptrs[8], other;
	struct node_arg arg = { .hooks = &hooks, .sign = 1 };
	struct ter_dev_usage u;
	unsigned buckets = 0;
	const struct ter_key *key;

	params.no_worker = false;
	rig = rig_new(&params);
	ter_alloc_hooks(rig->alloc, &hooks);
	assert_int_equal(hooks.node_alloc(hooks.arg, true, &other), -EAGAIN); /* the superblock does not know the set yet */
	for (unsigned i = 0; i < 8; i++) {
		struct ter_replicas_entry e = { .data_type = TER_DATA_BTREE, .nr_devs = 2, .nr_required = 1 };

		assert_int_equal(hooks.node_alloc(hooks.arg, false, &ptrs[i]), 0);
		assert_int_equal(ptrs[i].nr, 2);
		e.devs[0] = ter_min(ptrs[i].ptr[0].dev, ptrs[i].ptr[1].dev);
		e.devs[1] = ter_max(ptrs[i].ptr[0].dev, ptrs[i].ptr[1].dev);
		assert_true(ter_sb_replicas_has(rig->sb, &e)); /* S5 */
		arg.ptrs = &ptrs[i];
		assert_int_equal(ter_trans_run(rig->bt, 0, node_fn, &arg, NULL), 0);
		hooks.node_alloc_done(hooks.arg, &ptrs[i], true);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(ter_alloc_dev_usage(rig->alloc, i, &u), 0);
		buckets += (unsigned)u.buckets[TER_DATA_BTREE];
	}
	assert_true(buckets <= 6); /* 16 copies, 4 to a bucket, up to a partly filled one on each member */
	key = rig_get(rig, TER_BTREE_ACCOUNTING, ter_counter_btree(TER_BTREE_INODES));
	assert_non_null(key);
	assert_int_equal(ter_le64_get(((const ter_le64 *)key->val)[0]), 8);
	assert_int_equal(ter_le64_get(((const ter_le64 *)key->val)[1]), 8 * 32);

	/* Given up: the next one gets the same place. */
	assert_int_equal(hooks.node_alloc(hooks.arg, false, &ptrs[0]), 0);
	hooks.node_alloc_done(hooks.arg, &ptrs[0], false);
	rig_assert_sound(rig);

	arg.sign = -1;
	for (unsigned i = 1; i < 8; i++) {
		arg.ptrs = &ptrs[i];
		assert_int_equal(ter_trans_run(rig->bt, 0, node_fn, &arg, NULL), 0);
		assert_int_equal(ter_trans_run(rig->bt, 0, node_fn, &arg, NULL), -EUCLEAN); /* it is gone */
	}
	rig_assert_sound(rig);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(relations_hold_after_every_step),
		cmocka_unit_test(a_full_pool_says_so_and_deletes_still_work),
		cmocka_unit_test(nowait_never_flushes),
		cmocka_unit_test(the_worker_frees_what_became_empty),
		cmocka_unit_test(members_fill_evenly),
		cmocka_unit_test(unequal_members_hold_all_that_can_be_mirrored),
		cmocka_unit_test(long_writes_are_contiguous),
		cmocka_unit_test(missing_members_are_done_without),
		cmocka_unit_test(what_one_write_point_set_aside_is_not_given_to_others),
		cmocka_unit_test(the_last_sectors_are_found_in_buckets_of_other_write_points),
		cmocka_unit_test(what_is_read_between_two_commits_is_no_contradiction),
		cmocka_unit_test(an_open_bucket_is_not_discarded),
		cmocka_unit_test(too_many_open_buckets_wait),
		cmocka_unit_test(nodes_share_buckets_and_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
