/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair: bad copies of an extent are replaced, and missing ones made, from a good one written elsewhere
 *
 * One transaction switches the pointers; it holds only if the extent is still what was read. At most TER_REPAIRS_MAX wait; more are left to scrub.
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
	unsigned bad;    /* bits of pointers that go */
	unsigned wanted; /* copies there shall be */
	enum ter_watermark watermark;
	unsigned good;   /* copies in the end */
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
	return r;
}

static int find_bad(struct repair *rp)
{
	for (unsigned i = 0; i < rp->extent.nr_ptrs; i++)
		if (rp->extent.ptr[i].dev == rp->bad_dev && rp->extent.ptr[i].gen == rp->bad_gen && rp->extent.ptr[i].sector <= rp->bad_sector &&
		    rp->bad_sector < rp->extent.ptr[i].sector + rp->extent.stored_sectors) {
			rp->bad = 1u << i;
			rp->wanted = rp->extent.nr_ptrs;
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

/* What does not verify on the way is bad, too. */
static int read_good(struct repair *rp, uint8_t *mem)
{
	struct ter_data *data = rp->data;
	unsigned tried = rp->bad;
	int copy;

	while ((copy = ter_rd_choose_(data, &rp->extent, tried)) >= 0) {
		struct ter_dev *dev = ter_member(data->config.members, rp->extent.ptr[copy].dev);
		const int r = ter_dev_read(dev, rp->extent.ptr[copy].sector << TER_SECTOR_SHIFT, mem, (size_t)rp->extent.stored_sectors << TER_SECTOR_SHIFT);

		tried |= 1u << copy;
		if (r >= 0 && stored_valid(rp, mem))
			return 0;
		if (r != -EIO && r < 0)
			return r;
		if (r >= 0)
			ter_dev_error(data->config.members, dev, TER_DEV_ERR_CHECKSUM, -EBADMSG); /* failed reads were counted where they failed */
		rp->bad |= 1u << copy;
	}
	return tried == (1u << rp->extent.nr_ptrs) - 1 ? -EIO : -ENODEV; /* a copy may be good on a member that is away */
}

static unsigned copies_kept(const struct repair *rp)
{
	return rp->extent.nr_ptrs - (unsigned)__builtin_popcount(rp->bad);
}

static int get_space(struct repair *rp)
{
	struct ter_alloc_request request = {
		.write_point = TER_WP_MOVE,
		.watermark = rp->watermark,
		.replicas = rp->wanted - copies_kept(rp),
		.replicas_required = 1,
		.sectors_min = rp->extent.stored_sectors,
		.sectors_want = rp->extent.stored_sectors,
	};

	for (unsigned i = 0; i < rp->extent.nr_ptrs; i++)
		if (!(rp->bad >> i & 1))
			request.avoid_devs |= 1ull << rp->extent.ptr[i].dev; /* B7 */
	return ter_alloc_get(rp->data->config.alloc, &request, &rp->space);
}

/* The extent with the copies that are kept and the new ones. A bad one that nothing takes the place of stays: part of it may be all that is left one day. */
static struct ter_extent new_extent(const struct repair *rp)
{
	struct ter_extent e = rp->extent;
	uint64_t new_devs = 0;

	e.nr_ptrs = 0;
	for (unsigned i = 0; i < rp->extent.nr_ptrs; i++)
		if (!(rp->bad >> i & 1))
			e.ptr[e.nr_ptrs++] = rp->extent.ptr[i];
	for (unsigned i = 0; i < rp->space.nr; i++) {
		e.ptr[e.nr_ptrs].sector = rp->space.ptr[i].sector;
		e.ptr[e.nr_ptrs].gen = rp->space.ptr[i].gen;
		e.ptr[e.nr_ptrs].flags = 0;
		e.ptr[e.nr_ptrs++].dev = rp->space.ptr[i].dev;
		new_devs |= 1ull << rp->space.ptr[i].dev;
	}
	for (unsigned i = 0; i < rp->extent.nr_ptrs && e.nr_ptrs < rp->wanted; i++)
		if (rp->bad >> i & 1 && !(new_devs >> rp->extent.ptr[i].dev & 1))
			e.ptr[e.nr_ptrs++] = rp->extent.ptr[i];
	return e;
}

static int switch_fn(struct ter_trans *trans, void *arg)
{
	struct repair *rp = arg;
	struct ter_data *data = rp->data;
	const struct ter_extent e = new_extent(rp);
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
	const struct ter_extent e = new_extent(rp);
	struct ter_replicas_entry entry;
	int r;

	for (unsigned i = 0; i < rp->space.nr; i++) {
		r = ter_dev_write(ter_member(data->config.members, rp->space.ptr[i].dev), rp->space.ptr[i].sector << TER_SECTOR_SHIFT, mem,
				  (size_t)e.stored_sectors << TER_SECTOR_SHIFT, 0);
		if (r < 0)
			return r;
	}
	ter_extent_replicas(&e, &entry);
	r = ter_sb_replicas_ensure(data->config.sb, &entry, false);
	if (r < 0)
		return r;
	return ter_trans_run(data->config.btrees, 0, switch_fn, rp, NULL);
}

static int make_copies(struct repair *rp)
{
	struct ter_data *data = rp->data;
	const size_t bytes = (size_t)rp->extent.stored_sectors << TER_SECTOR_SHIFT;
	uint8_t *mem = ter_bounce_get(data, bytes);
	int r;

	r = mem ? read_good(rp, mem) : -ENOMEM;
	if (r >= 0)
		r = get_space(rp);
	if (r >= 0) {
		r = rewrite(rp, mem);
		rp->good = copies_kept(rp) + rp->space.nr;
		ter_alloc_put(data->config.alloc, &rp->space);
	}
	ter_bounce_put(data, mem, bytes);
	return r;
}

static void repair_work(struct ter_work *work)
{
	struct repair *rp = ter_container_of(work, struct repair, work);
	struct ter_data *data = rp->data;
	int r;

	rp->watermark = TER_WATERMARK_MOVE;
	r = load_extent(rp);
	if (r >= 0)
		r = find_bad(rp);
	if (r >= 0)
		r = make_copies(rp);
	if (r >= 0)
		atomic_fetch_add_explicit(&data->repaired, 1, memory_order_relaxed);
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

/* Space that others were promised is not for this. */
static int reserve_and_make(struct repair *rp)
{
	const uint64_t sectors = rp->extent.stored_sectors;
	const unsigned missing = rp->wanted - rp->extent.nr_ptrs;
	int r;

	r = ter_alloc_reserve(rp->data->config.alloc, sectors, missing);
	if (r < 0)
		return r;
	r = make_copies(rp);
	ter_alloc_unreserve(rp->data->config.alloc, sectors, missing);
	return r;
}

int ter_data_add_copies(struct ter_data *data, struct ter_pos pos, unsigned wanted)
{
	struct repair *rp = ter_new(struct repair);
	int r;

	if (!rp)
		return -ENOMEM;
	assert(wanted <= TER_REPLICAS_MAX);
	rp->data = data;
	rp->inum = pos.inode;
	rp->snapshot = pos.snapshot;
	rp->end = pos.offset;
	rp->wanted = wanted;
	rp->watermark = TER_WATERMARK_USER;
	r = load_extent(rp);
	rp->good = rp->extent.nr_ptrs;
	if (r >= 0 && rp->good < wanted)
		r = reserve_and_make(rp);
	r = r >= 0 ? (int)rp->good : r;
	free(rp);
	return r;
}
