/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the btrees need of the allocator: space for nodes, and what follows from linking them. */
#include "alloc/alloc_priv.h"

static uint32_t node_sectors(const struct ter_alloc *alloc)
{
	return alloc->sb->sb->options.btree_node_size >> TER_SECTOR_SHIFT;
}

/* --- hooks --- */

/* Not linked, and nothing was given out behind it: the bucket takes it back. What was written there is no node of any tree. */
static void give_up(struct ter_alloc *alloc, struct ter_open_bucket *bucket, uint64_t sector)
{
	uint32_t bucket_sectors = alloc->members->dev[bucket->dev].bucket_sectors;
	uint32_t at = (uint32_t)(sector % bucket_sectors);

	if (at + node_sectors(alloc) == bucket->filled_sectors && alloc->wp[TER_WP_BTREE].open[bucket->dev] == bucket)
		bucket->filled_sectors = at;
}

static void node_alloc_done(void *arg, const struct ter_node_ptrs *ptrs, bool linked)
{
	struct ter_alloc *alloc = arg;

	ter_lock_acquire(&alloc->lock);
	for (unsigned i = 0; i < ptrs->nr; i++) {
		unsigned dev_idx = ptrs->ptr[i].dev;
		struct ter_open_bucket *b;

		if (!ter_open_find(alloc, dev_idx, ptrs->ptr[i].sector / alloc->members->dev[dev_idx].bucket_sectors, &b)) {
			assert(false); /* node_alloc() took a reference */
			continue;
		}
		if (!linked) {
			give_up(alloc, b, ptrs->ptr[i].sector);
		} else if (!b->settled) {
			b->settled = true;
			alloc->dev[dev_idx].unsettled_nr--;
		}
		ter_open_put(alloc, b);
	}
	ter_lock_release(&alloc->lock);
}

static int node_alloc(void *arg, bool nowait, struct ter_node_ptrs *ret_ptrs)
{
	struct ter_alloc *alloc = arg;
	const struct ter_options *opts = &alloc->sb->sb->options;
	struct ter_alloc_request request = {
		.write_point = TER_WP_BTREE,
		.watermark = TER_WATERMARK_BTREE,
		.replicas = opts->metadata_replicas,
		.replicas_required = ter_min(opts->metadata_replicas_required, opts->metadata_replicas),
		.sectors_min = node_sectors(alloc),
		.sectors_want = node_sectors(alloc),
		.nowait = nowait,
	};
	struct ter_node_ptrs ptrs = { 0 };
	struct ter_replicas_entry entry;
	struct ter_space space;
	int r = ter_alloc_get(alloc, &request, &space);

	if (r < 0)
		return r;
	ptrs.nr = (uint8_t)space.nr;
	for (unsigned i = 0; i < space.nr; i++)
		ptrs.ptr[i] = (struct ter_node_ptr){ .dev = space.ptr[i].dev, .gen = space.ptr[i].gen, .sector = space.ptr[i].sector };
	ter_space_replicas(&space, TER_DATA_BTREE, 1, &entry);
	r = ter_sb_replicas_ensure(alloc->sb, &entry, nowait);
	if (r < 0) {
		node_alloc_done(alloc, &ptrs, false);
		return r;
	}
	*ret_ptrs = ptrs; /* the references go along */
	return 0;
}

static int node_stage(void *arg, struct ter_trans *trans, enum ter_btree_id btree, unsigned level, struct ter_pos pos, const struct ter_node_ptrs *ptrs,
		      int sign)
{
	struct ter_alloc *alloc = arg;
	struct ter_bp_target who = { .btree = btree, .level = (uint8_t)(level + 1), .pos = pos };
	struct ter_replicas_entry entry = { .data_type = TER_DATA_BTREE, .nr_devs = ptrs->nr, .nr_required = 1 };
	int64_t counters[2] = { sign, sign * (int64_t)node_sectors(alloc) };
	int r;

	assert(ptrs->nr && ptrs->nr <= TER_NODE_PTRS_MAX);
	for (unsigned i = 0; i < ptrs->nr; i++) {
		struct ter_ptr_ref ref = { .dev = ptrs->ptr[i].dev, .gen = ptrs->ptr[i].gen, .sector = ptrs->ptr[i].sector, .sectors = node_sectors(alloc) };

		entry.devs[i] = ref.dev;
		r = ter_alloc_stage_ptr(alloc, trans, &who, &ref, TER_DATA_BTREE, sign);
		if (r < 0)
			return r;
	}
	if (ter_counter_writable_(alloc, trans, ter_counter_btree(btree))) {
		r = ter_trans_add(trans, ter_counter_btree(btree), counters, 2);
		if (r < 0)
			return r;
	}
	return ter_alloc_stage_replicas(alloc, trans, &entry, counters[1]);
}

void ter_alloc_hooks(struct ter_alloc *alloc, struct ter_btree_hooks *ret_hooks)
{
	*ret_hooks = (struct ter_btree_hooks){
		.node_alloc = node_alloc,
		.node_alloc_done = node_alloc_done,
		.node_stage = node_stage,
		.arg = alloc,
	};
}
