/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several tasks write, delete and reserve at once, with the discard worker: nothing is given out twice, and all relations hold at the end. */
#include "alloc_model.h"

#include <stdio.h>

#define TASKS 4
#define STEPS 1500
#define HELD_MAX 100

struct shared {
	struct rig *rig;
	_Atomic uint8_t *live[RIG_DEVS_MAX]; /* by sector: who writes or holds it */
	_Atomic unsigned errors;
	_Atomic unsigned done;
};
struct task {
	struct shared *shared;
	unsigned idx;
	uint64_t seed;
	struct model_extent held[HELD_MAX];
	unsigned nr;
	struct ter_task *task;
	uint64_t serial;
};

static uint64_t next_random(struct task *t, uint64_t below)
{
	t->seed = t->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (t->seed >> 33) % below;
}

struct stage_arg {
	struct rig *rig;
	struct model_extent *e;
	int sign;
};

static int stage_fn(struct ter_trans *trans, void *arg)
{
	struct stage_arg *a = arg;
	struct ter_bp_target who = { .btree = TER_BTREE_EXTENTS, .pos = TER_POS(a->e->id, 8, 1) };

	for (unsigned i = 0; i < a->e->nr; i++) {
		int r = ter_alloc_stage_ptr(a->rig->alloc, trans, &who, &a->e->ptr[i], TER_DATA_USER, a->sign);

		if (r < 0)
			return r;
	}
	return ter_alloc_stage_replicas(a->rig->alloc, trans, &a->e->entry, a->sign * (int64_t)a->e->sectors);
}

static void mark(struct task *t, const struct model_extent *e, uint8_t from, uint8_t to)
{
	for (unsigned i = 0; i < e->nr; i++)
		for (uint32_t s = 0; s < e->sectors; s++) {
			uint8_t was = from;

			if (!atomic_compare_exchange_strong(&t->shared->live[e->ptr[i].dev][e->ptr[i].sector + s], &was, to))
				atomic_fetch_add(&t->shared->errors, 1);
		}
}

static int write_one(struct task *t)
{
	struct rig *rig = t->shared->rig;
	uint32_t want = 8 * (1 + (uint32_t)next_random(t, 16));
	struct ter_alloc_request request = { .write_point = t->idx % 2, .replicas = 1 + (unsigned)next_random(t, 2), .replicas_required = 1, .sectors_min = 8,
					     .sectors_want = want };
	struct model_extent *e = &t->held[t->nr];
	struct stage_arg arg = { .rig = rig, .e = e, .sign = 1 };
	struct ter_space space;
	int r;

	r = ter_alloc_reserve(rig->alloc, want, request.replicas);
	if (r < 0)
		return r;
	r = ter_alloc_get(rig->alloc, &request, &space);
	if (r < 0) {
		ter_alloc_unreserve(rig->alloc, want, request.replicas);
		return r;
	}
	*e = (struct model_extent){ .id = (uint64_t)t->idx << 32 | ++t->serial, .nr = space.nr, .sectors = space.sectors };
	for (unsigned i = 0; i < space.nr; i++)
		e->ptr[i] = (struct ter_ptr_ref){ .dev = space.ptr[i].dev, .gen = space.ptr[i].gen, .sector = space.ptr[i].sector, .sectors = space.sectors };
	ter_space_replicas(&space, TER_DATA_USER, 1, &e->entry);
	mark(t, e, 0, 1);
	if (next_random(t, 10) == 0) {
		mark(t, e, 1, 0); /* given up */
	} else {
		r = ter_trans_run(rig->bt, 0, stage_fn, &arg, NULL);
		t->nr += r == 0;
	}
	ter_alloc_put(rig->alloc, &space);
	ter_alloc_unreserve(rig->alloc, want, request.replicas);
	return r;
}

static int delete_one(struct task *t)
{
	unsigned idx = (unsigned)next_random(t, t->nr);
	struct model_extent e = t->held[idx];
	struct stage_arg arg = { .rig = t->shared->rig, .e = &e, .sign = -1 };

	mark(t, &e, 1, 0); /* before it can be given out again */
	t->held[idx] = t->held[--t->nr];
	return ter_trans_run(t->shared->rig->bt, TER_TRANS_RECLAIM, stage_fn, &arg, NULL);
}

static void task_main(void *arg)
{
	struct task *t = arg;

	for (unsigned n = 0; n < STEPS; n++) {
		int r = t->nr == HELD_MAX || (t->nr && next_random(t, 5) < 2) ? delete_one(t) : write_one(t);

		if (r < 0 && r != -ENOSPC) {
			fprintf(stderr, "task %u: %d\n", t->idx, r);
			atomic_fetch_add(&t->shared->errors, 1);
		}
	}
	while (t->nr > 20)
		if (delete_one(t) < 0)
			atomic_fetch_add(&t->shared->errors, 1);
}

static void nothing_is_given_out_twice(void **state)
{
	struct rig_params params = { .nr = 2, .buckets = { 140, 160 }, .bucket_sectors = 64, .data_replicas = 1, .metadata_replicas = 1 };
	struct shared shared = { .rig = rig_new(&params) };
	static struct task tasks[TASKS];
	uint64_t sectors = 0, stored = 0;
	struct ter_fs_usage usage;

	for (unsigned i = 0; i < params.nr; i++) {
		shared.live[i] = calloc(params.buckets[i] * params.bucket_sectors, 1);
		assert_non_null(shared.live[i]);
	}
	for (unsigned i = 0; i < TASKS; i++) {
		tasks[i] = (struct task){ .shared = &shared, .idx = i, .seed = shared.rig->seed + i };
		assert_int_equal(shared.rig->exec->ops->spawn(shared.rig->exec, "writer", task_main, &tasks[i], &tasks[i].task), 0);
	}
	for (unsigned i = 0; i < TASKS; i++) {
		shared.rig->exec->ops->join(shared.rig->exec, tasks[i].task);
		for (unsigned n = 0; n < tasks[i].nr; n++) {
			sectors += tasks[i].held[n].sectors;
			stored += tasks[i].held[n].sectors * tasks[i].held[n].nr;
		}
	}
	assert_int_equal(atomic_load(&shared.errors), 0);
	ter_alloc_stop(shared.rig->alloc);
	rig_assert_sound(shared.rig);
	ter_alloc_fs_usage(shared.rig->alloc, &usage);
	assert_int_equal(usage.used_logical, sectors);
	assert_int_equal(usage.reserved, 0);
	for (unsigned i = 0; i < params.nr; i++) {
		struct ter_dev_usage u;

		assert_int_equal(ter_alloc_dev_usage(shared.rig->alloc, i, &u), 0);
		stored -= u.sectors[TER_DATA_USER];
		assert_int_equal(shared.rig->alloc->dev[i].unsettled_nr, 0);
		free((void *)shared.live[i]);
	}
	assert_int_equal(stored, 0);
	assert_true(shared.rig->discards > 0);
	rig_free(shared.rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(nothing_is_given_out_twice) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
