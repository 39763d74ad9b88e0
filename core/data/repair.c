/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair: a bad copy of an extent is replaced by a good one written elsewhere
 *
 * One transaction switches the pointer; it holds only if the extent is still what was read. At most TER_REPAIRS_MAX wait; more are left to scrub.
 */
#include "data/read_priv.h"

struct repair {
	struct ter_work work;
	struct ter_data *data;
	uint64_t inum;
	uint32_t snapshot;
	uint64_t end; /* position of the key */
	uint8_t bad_dev;
	uint32_t bad_gen;
	uint64_t bad_sector;

	/* in use */
	struct ter_extent extent;
	uint64_t old_val[TER_EXTENT_VAL_MAX / 8], new_val[TER_EXTENT_VAL_MAX / 8];
	uint32_t old_bytes;
	struct ter_space space;
	unsigned bad; /* index of the pointer */
	unsigned stale_tries;
};

static int load_extent(struct repair *rp)
{
	struct ter_trans trans;
	struct ter_key key;
	int r;

	ter_trans_init(&trans, rp->data->config.btrees, 0);
	r = ter_trans_get(&trans, TER_BTREE_EXTENTS, TER_POS(rp->inum, rp->end, rp->snapshot), &key);
	if (r >= 0 && key.val_bytes > sizeof(rp->old_val))
		r = -EUCLEAN;
	if (r >= 0) {
		memcpy(rp->old_val, key.val, key.val_bytes);
		rp->old_bytes = key.val_bytes;
		key.val = rp->old_val;
		r = ter_extent_decode(&key, rp->data->sb, &rp->extent);
	}
	ter_trans_exit(&trans);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < rp->extent.nr_ptrs; i++)
		if (rp->extent.ptr[i].dev == rp->bad_dev && rp->extent.ptr[i].gen == rp->bad_gen && rp->extent.ptr[i].sector <= rp->bad_sector &&
		    rp->bad_sector < rp->extent.ptr[i].sector + rp->extent.stored_sectors) {
			rp->bad = i;
			return 0;
		}
	return -ENOENT; /* somebody else was faster */
}

static bool stored_valid(struct repair *rp, const uint8_t *mem)
{
	const struct ter_extent *e = &rp->extent;
	size_t bytes = (size_t)e->stored_sectors << TER_SECTOR_SHIFT, step = e->compression_slot ? bytes : 1ull << e->csum_block_log2;
	const uint8_t *want = e->csums;
	uint8_t digest[TER_DIGEST_MAX];

	if (!e->csum_slot)
		return true; /* what was read without error is all there is to go by */
	for (size_t at = 0; at < bytes; at += step, want += e->digest_bytes) {
		ter_algos_digest(&rp->data->sb->algos, e->csum_slot, mem + at, ter_min(step, bytes - at), digest);
		if (memcmp(digest, want, e->digest_bytes) != 0)
			return false;
	}
	return true;
}

static int read_good(struct repair *rp, uint8_t *mem)
{
	struct ter_data *data = rp->data;
	unsigned tried = 1u << rp->bad;
	int copy;

	while ((copy = ter_rd_choose_(data, &rp->extent, tried)) >= 0) {
		struct ter_dev *dev = ter_member(data->config.members, rp->extent.ptr[copy].dev);

		tried |= 1u << copy;
		if (ter_dev_read(dev, rp->extent.ptr[copy].sector << TER_SECTOR_SHIFT, mem, (size_t)rp->extent.stored_sectors << TER_SECTOR_SHIFT) >= 0 &&
		    stored_valid(rp, mem))
			return 0;
	}
	return -EIO;
}

static int get_space(struct repair *rp)
{
	struct ter_alloc_request request = {
		.write_point = TER_WP_MOVE,
		.watermark = TER_WATERMARK_MOVE,
		.replicas = 1,
		.replicas_required = 1,
		.sectors_min = rp->extent.stored_sectors,
		.sectors_want = rp->extent.stored_sectors,
	};

	for (unsigned i = 0; i < rp->extent.nr_ptrs; i++)
		if (i != rp->bad)
			request.avoid_devs |= 1ull << rp->extent.ptr[i].dev; /* B7 */
	return ter_alloc_get(rp->data->config.alloc, &request, &rp->space);
}

static int switch_fn(struct ter_trans *trans, void *arg)
{
	struct repair *rp = arg;
	struct ter_data *data = rp->data;
	struct ter_extent e = rp->extent;
	struct ter_punch_result punched;
	struct ter_key key, new_key;
	int64_t sectors;
	int r;

	r = ter_trans_get(trans, TER_BTREE_EXTENTS, TER_POS(rp->inum, rp->end, rp->snapshot), &key);
	if (r < 0)
		return r;
	if (key.type != TER_KEY_EXTENT || key.val_bytes != rp->old_bytes || memcmp(key.val, rp->old_val, rp->old_bytes) != 0)
		return -ENOENT;
	new_key = key;
	e.ptr[rp->bad].sector = rp->space.ptr[0].sector;
	e.ptr[rp->bad].gen = rp->space.ptr[0].gen;
	e.ptr[rp->bad].dev = rp->space.ptr[0].dev;
	new_key.val_bytes = ter_extent_encode(&e, rp->new_val);
	new_key.val = rp->new_val;
	/* The same range goes and comes: nothing changes for the inode. */
	r = ter_extents_stage_punch_(data->config.alloc, trans, data->sb, rp->inum, rp->snapshot, rp->end - e.sectors, rp->end, UINT32_MAX, &punched);
	if (r < 0)
		return ter_maybe_stale(r, &rp->stale_tries);
	return ter_extents_stage_insert(data->config.alloc, trans, data->sb, &new_key, &sectors);
}

static int rewrite(struct repair *rp, uint8_t *mem)
{
	struct ter_data *data = rp->data;
	struct ter_dev *dev = ter_member(data->config.members, rp->space.ptr[0].dev);
	struct ter_extent e = rp->extent;
	struct ter_replicas_entry entry;
	int r;

	r = ter_dev_write(dev, rp->space.ptr[0].sector << TER_SECTOR_SHIFT, mem, (size_t)e.stored_sectors << TER_SECTOR_SHIFT, 0);
	if (r < 0)
		return r;
	e.ptr[rp->bad].dev = rp->space.ptr[0].dev;
	ter_extent_replicas(&e, &entry);
	r = ter_sb_replicas_ensure(data->config.sb, &entry, false);
	if (r < 0)
		return r;
	return ter_trans_run(data->config.btrees, 0, switch_fn, rp, NULL);
}

static void repair_work(struct ter_work *work)
{
	struct repair *rp = ter_container_of(work, struct repair, work);
	struct ter_data *data = rp->data;
	uint8_t *mem = NULL;
	size_t bytes = 0;
	int r;

	r = load_extent(rp);
	if (r >= 0) {
		bytes = (size_t)rp->extent.stored_sectors << TER_SECTOR_SHIFT;
		mem = ter_bounce_get(data, bytes);
		r = mem ? read_good(rp, mem) : -ENOMEM;
	}
	if (r >= 0)
		r = get_space(rp);
	if (r >= 0) {
		r = rewrite(rp, mem);
		ter_alloc_put(data->config.alloc, &rp->space);
	}
	if (r >= 0)
		atomic_fetch_add_explicit(&data->repaired, 1, memory_order_relaxed);
	ter_bounce_put(data, mem, bytes);
	atomic_fetch_sub(&data->repairs_nr, 1);
	free(rp);
}

void ter_repair_queue_(struct ter_data *data, struct ter_file *file, const struct ter_extent *extent, unsigned bad_copy)
{
	struct repair *rp;

	if (!data->started || data->stopping)
		return;
	if (atomic_fetch_add(&data->repairs_nr, 1) >= TER_REPAIRS_MAX || !(rp = ter_new(struct repair))) {
		atomic_fetch_sub(&data->repairs_nr, 1);
		return;
	}
	rp->data = data;
	rp->inum = file->inum;
	rp->snapshot = file->snapshot;
	rp->end = extent->start + extent->sectors;
	rp->bad_dev = extent->ptr[bad_copy].dev;
	rp->bad_gen = extent->ptr[bad_copy].gen;
	rp->bad_sector = extent->ptr[bad_copy].sector;
	rp->work.fn = repair_work;
	ter_workq_add(data->slow, &rp->work);
}
