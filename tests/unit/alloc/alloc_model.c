/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A model of what users of the allocator hold. */
#include "alloc_model.h"

#include <stdlib.h>

void model_init(struct model *m, struct rig *rig)
{
	*m = (struct model){ .rig = rig, .next_id = 1 };
	for (unsigned i = 0; i < rig->members->nr_slots; i++) {
		m->owner[i] = calloc(rig->members->dev[i].buckets_nr * rig->members->dev[i].bucket_sectors, sizeof(uint64_t));
		assert_non_null(m->owner[i]);
	}
}

void model_free(struct model *m)
{
	for (unsigned i = 0; i < RIG_DEVS_MAX; i++)
		free(m->owner[i]);
	free(m->extent);
}

void model_assert_space_dead(struct model *m, const struct ter_space *space)
{
	uint64_t devs = 0;

	for (unsigned i = 0; i < space->nr; i++) {
		const struct ter_space_ptr *p = &space->ptr[i];
		uint32_t bucket_sectors = m->rig->members->dev[p->dev].bucket_sectors;

		assert_false(devs >> p->dev & 1); /* B7 */
		devs |= 1ull << p->dev;
		assert_true(p->sector % bucket_sectors + space->sectors <= bucket_sectors);
		assert_true(p->sector / bucket_sectors < m->rig->members->dev[p->dev].buckets_nr);
		for (uint32_t s = 0; s < space->sectors; s++)
			assert_int_equal(m->owner[p->dev][p->sector + s], 0);
	}
}

struct link_arg {
	struct model *m;
	const struct model_extent *e;
	int sign;
};

static int link_fn(struct ter_trans *trans, void *arg)
{
	struct link_arg *a = arg;
	struct ter_bp_target who = { .btree = TER_BTREE_EXTENTS, .pos = TER_POS(a->e->id, 8, TER_SNAPSHOT_ROOT) };
	int r;

	for (unsigned i = 0; i < a->e->nr; i++) {
		r = ter_alloc_stage_ptr(a->m->rig->alloc, trans, &who, &a->e->ptr[i], TER_DATA_USER, a->sign);
		if (r < 0)
			return r;
	}
	return ter_alloc_stage_replicas(a->m->rig->alloc, trans, &a->e->entry, a->sign * (int64_t)a->e->sectors);
}

int model_link(struct model *m, const struct ter_space *space, uint32_t at, uint32_t sectors)
{
	struct model_extent e = { .id = m->next_id++, .nr = space->nr, .sectors = sectors };
	struct link_arg arg = { .m = m, .e = &e, .sign = 1 };
	int r;

	ter_space_replicas(space, TER_DATA_USER, 1, &e.entry);
	for (unsigned i = 0; i < space->nr; i++)
		e.ptr[i] = (struct ter_ptr_ref){ .dev = space->ptr[i].dev, .gen = space->ptr[i].gen, .sector = space->ptr[i].sector + at, .sectors = sectors };
	r = ter_trans_run(m->rig->bt, 0, link_fn, &arg, NULL);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < e.nr; i++)
		for (uint32_t s = 0; s < sectors; s++)
			m->owner[e.ptr[i].dev][e.ptr[i].sector + s] = e.id;
	if (m->nr == m->max) {
		m->max = m->max ? m->max * 2 : 64;
		m->extent = realloc(m->extent, m->max * sizeof(e));
		assert_non_null(m->extent);
	}
	m->extent[m->nr++] = e;
	return 0;
}

int model_write(struct model *m, uint32_t sectors_min, uint32_t sectors_want, unsigned replicas, bool nowait)
{
	struct ter_alloc_request request = {
		.write_point = m->wp, .watermark = TER_WATERMARK_USER, .replicas = replicas, .replicas_required = 1, .sectors_min = sectors_min,
		.sectors_want = sectors_want, .nowait = nowait,
	};
	struct ter_space space;
	int r = ter_alloc_get(m->rig->alloc, &request, &space);

	if (r < 0)
		return r;
	assert_true(space.sectors >= sectors_min && space.sectors <= sectors_want);
	model_assert_space_dead(m, &space);
	r = model_link(m, &space, 0, space.sectors);
	ter_alloc_put(m->rig->alloc, &space);
	return r < 0 ? r : (int)m->extent[m->nr - 1].sectors;
}

int model_delete(struct model *m, unsigned idx)
{
	struct model_extent e = m->extent[idx];
	struct link_arg arg = { .m = m, .e = &e, .sign = -1 };
	int r = ter_trans_run(m->rig->bt, TER_TRANS_RECLAIM, link_fn, &arg, NULL);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < e.nr; i++)
		for (uint32_t s = 0; s < e.sectors; s++)
			m->owner[e.ptr[i].dev][e.ptr[i].sector + s] = 0;
	m->extent[idx] = m->extent[--m->nr];
	return 0;
}

uint64_t model_used(struct model *m, unsigned dev_idx)
{
	struct ter_dev_usage u;

	assert_int_equal(ter_alloc_dev_usage(m->rig->alloc, dev_idx, &u), 0);
	return u.buckets[TER_DATA_USER];
}

void model_assert_equal(struct model *m)
{
	unsigned pointers = 0;
	uint64_t logical = 0;
	struct ter_fs_usage usage;

	rig_assert_sound(m->rig);
	for (unsigned i = 0; i < m->nr; i++) {
		const struct model_extent *e = &m->extent[i];

		logical += e->sectors;
		for (unsigned j = 0; j < e->nr; j++, pointers++) {
			const struct ter_dev *dev = &m->rig->members->dev[e->ptr[j].dev];
			const struct ter_key *key = rig_get(m->rig, TER_BTREE_BACKPOINTERS, ter_backpointer_pos(dev->idx, e->ptr[j].sector, 0));
			struct ter_backpointer bp;
			struct ter_bucket_value v;

			assert_non_null(key);
			assert_int_equal(ter_backpointer_decode(key, dev, &bp), 0);
			assert_int_equal(bp.pos.inode, e->id);
			assert_int_equal(bp.sectors, e->sectors);
			key = rig_get(m->rig, TER_BTREE_ALLOC, ter_bucket_pos(dev->idx, e->ptr[j].sector / dev->bucket_sectors));
			assert_non_null(key);
			assert_int_equal(ter_bucket_decode(key, dev, &v), 0);
			assert_int_equal(v.gen, e->ptr[j].gen);
		}
	}
	assert_int_equal(m->rig->btree[TER_BTREE_BACKPOINTERS].nr, pointers);
	ter_alloc_fs_usage(m->rig->alloc, &usage);
	assert_int_equal(usage.used_logical, logical);
	assert_int_equal(usage.capacity, usage.used + usage.reserved + usage.available);
}
