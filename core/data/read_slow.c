/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading, the slow path: other copies, a second look at the extent, block by block
 *
 * A copy that does not verify is damage only if the extent is still what it was when the read began; else its space may have been reused, and the range is read anew.
 */
#include "data/read_priv.h"

#define CHANGED (-ESTALE) /* internal: the extent is not there any more */

struct key_check {
	const struct ter_extent *extent;
	bool same;
};

static int check_cb(void *arg, const struct ter_key *key)
{
	struct key_check *c = arg;
	const struct ter_extent_disk *disk = key->val;
	const struct ter_extent_ptr_disk *ptr;

	if (key->type != TER_KEY_EXTENT || key->val_bytes < sizeof(*disk) + c->extent->nr_ptrs * sizeof(*ptr) || disk->nr_ptrs != c->extent->nr_ptrs)
		return 1;
	c->same = key->size == c->extent->sectors && ter_le32_get(disk->live_offset) == c->extent->live_offset &&
		  ter_le32_get(disk->stored_sectors) == c->extent->stored_sectors;
	ptr = (const void *)((const uint8_t *)key->val + sizeof(*disk));
	for (unsigned i = 0; i < c->extent->nr_ptrs; i++)
		c->same = c->same && ptr[i].dev == c->extent->ptr[i].dev && ter_le32_get(ptr[i].gen) == c->extent->ptr[i].gen &&
			  ter_le64_get(ptr[i].sector) == c->extent->ptr[i].sector;
	return 1;
}

/* 1: the extent is there as it was; 0: it changed. */
static int still_there(struct rd_op *op, const struct ter_extent *e)
{
	struct ter_pos pos = TER_POS(op->file->inum, e->start + e->sectors, op->file->snapshot);
	struct key_check c = { .extent = e };
	int r;

	r = ter_btree_scan(op->data->config.btrees, TER_BTREE_EXTENTS, pos, pos, 0, check_cb, &c, NULL);
	return r < 0 ? r : c.same;
}

static void tell_damage(struct rd_op *op, const struct rd_piece *p, unsigned copy, int r, bool repaired)
{
	struct ter_data *data = op->data;
	struct ter_dev *dev = ter_member(data->config.members, p->extent.ptr[copy].dev);

	if (r == -EBADMSG && dev)
		ter_dev_error(data->config.members, dev, TER_DEV_ERR_CHECKSUM, r); /* failed reads were counted where they failed */
	if (data->config.on_damage)
		data->config.on_damage(data->config.on_arg, p->extent.ptr[copy].dev, op->file->inum, p->from, repaired);
	if (repaired && (r == -EBADMSG || r == -EIO))
		ter_repair_queue_(data, op->file, &p->extent, copy);
}

static int read_copy(struct rd_op *op, struct rd_piece *p, unsigned copy, uint8_t *mem)
{
	struct ter_dev *dev = ter_member(op->data->config.members, p->extent.ptr[copy].dev);
	int r;

	if (!dev)
		return -ENODEV;
	atomic_fetch_add_explicit(&op->data->device_read_bytes, p->stored_bytes, memory_order_relaxed);
	r = ter_dev_read(dev, (p->extent.ptr[copy].sector << TER_SECTOR_SHIFT) + p->stored_from, mem, p->stored_bytes);
	return r < 0 ? r : ter_rd_finish_piece_(op, p, mem);
}

/* Try every copy not tried yet. @results: of each copy; > 0 not tried. */
static int try_copies(struct rd_op *op, struct rd_piece *p, int results[TER_REPLICAS_MAX])
{
	uint8_t *mem = ter_bounce_get(op->data, p->stored_bytes);
	unsigned tried = 0;
	int copy, r = -EIO;

	if (!mem)
		return -ENOMEM;
	for (unsigned i = 0; i < p->extent.nr_ptrs; i++)
		tried |= (results[i] <= 0) << i;
	while (r < 0 && r != -ENOMEM && (copy = ter_rd_choose_(op->data, &p->extent, tried)) >= 0) {
		r = results[copy] = read_copy(op, p, (unsigned)copy, mem);
		tried |= 1u << copy;
	}
	ter_bounce_put(op->data, mem, p->stored_bytes);
	return r < 0 && r != -ENOMEM ? -EIO : r; /* short of memory: nothing is known of the copies */
}

static int read_piece(struct rd_op *op, struct rd_piece *p, int first_result);

/* No copy is good as a whole, but each block may be in one of them. */
static int read_blocks(struct rd_op *op, struct rd_piece *p)
{
	uint64_t unit = ter_max(1ull << p->extent.csum_block_log2, (uint64_t)op->data->block_bytes), live_from;
	uint64_t pos = p->from, bad_from = UINT64_MAX;
	size_t digests = 0;
	int r = 0;

	live_from = (p->extent.start << TER_SECTOR_SHIFT) - ((uint64_t)p->extent.live_offset << TER_SECTOR_SHIFT);
	while (pos < p->to) {
		struct rd_piece part = *p;
		uint64_t at = ter_round_down(pos - live_from, unit);
		int one;

		part.from = pos;
		part.to = ter_min(p->to, live_from + at + unit);
		part.dst = p->dst + (pos - p->from);
		part.stored_from = (uint32_t)at;
		part.stored_bytes = (uint32_t)ter_min(unit, ((uint64_t)p->extent.stored_sectors << TER_SECTOR_SHIFT) - at);
		part.csum_at = p->csum_at + (uint32_t)digests;
		digests += (size_t)((part.stored_bytes + (1u << p->extent.csum_block_log2) - 1) >> p->extent.csum_block_log2) * p->extent.digest_bytes;
		one = read_piece(op, &part, 1);
		if (one == CHANGED)
			return CHANGED;
		if (one < 0 && bad_from == UINT64_MAX) {
			bad_from = pos;
			r = one;
		}
		pos = part.to;
	}
	if (bad_from < op->bad_from)
		op->bad_from = bad_from;
	return r;
}

/* @first_result: what the chosen copy gave already; 1: nothing was tried. CHANGED: read the range anew. Sets op->bad_from where bytes cannot be had. */
static int read_piece(struct rd_op *op, struct rd_piece *p, int first_result)
{
	uint32_t unit = 1u << p->extent.csum_block_log2;
	int results[TER_REPLICAS_MAX] = { 1, 1, 1, 1 }, r, same;

	if (first_result <= 0 && first_result != -ENODEV && first_result != -ENOMEM)
		results[p->copy] = first_result;
	r = first_result == 0 ? 0 : try_copies(op, p, results);
	if (r == -ENOMEM)
		return r;
	same = still_there(op, &p->extent);
	if (same <= 0)
		return same < 0 ? same : CHANGED;
	if (r < 0 && !p->extent.compression_slot && p->stored_bytes > ter_max(unit, op->data->block_bytes))
		return read_blocks(op, p); /* which tells of the damage, block by block */
	for (unsigned i = 0; i < p->extent.nr_ptrs; i++)
		if (results[i] < 0 && results[i] != -ENODEV)
			tell_damage(op, p, i, results[i], r >= 0);
	if (r < 0)
		op->bad_from = ter_min(op->bad_from, p->from);
	return r;
}

static void note_bad_from(struct rd_op *op, uint64_t from)
{
	op->bad_from = ter_min(op->bad_from, from);
}

/* The range of a piece whose extent changed, from the beginning. */
static int read_anew(struct rd_op *op, const struct rd_piece *p)
{
	int r = CHANGED;

	for (unsigned i = 0; i < TER_RELOOK_MAX && r == CHANGED; i++) {
		struct rd_op *sub = ter_malloc(sizeof(*sub));

		if (!sub)
			return -ENOMEM;
		ter_rd_init_(sub, op->data, op->file, p->from, p->to, p->dst, op->below);
		r = ter_rd_gather_(sub, false);
		for (unsigned k = 0; k < sub->pieces_nr && r >= 0; k++)
			r = read_piece(sub, &sub->pieces[k], 1);
		if (r >= 0 && sub->bad_from < UINT64_MAX)
			r = sub->result;
		if (r < 0 && r != CHANGED)
			note_bad_from(op, sub->bad_from < p->to ? sub->bad_from : p->from);
		ter_rd_exit_(sub);
		free(sub);
	}
	return r == CHANGED ? -EIO : r;
}

void ter_rd_slow_(struct ter_work *work)
{
	struct rd_op *op = ter_container_of(work, struct rd_op, work);

	for (unsigned i = 0; i < op->pieces_nr; i++) {
		struct rd_piece *p = &op->pieces[i];
		uint64_t bad_before = op->bad_from;
		int r;

		if (p->result >= 0 && p->extent.csum_slot)
			continue;
		r = read_piece(op, p, p->result);
		if (r == CHANGED)
			r = read_anew(op, p);
		if (r >= 0)
			continue;
		if (op->bad_from == bad_before)
			note_bad_from(op, p->from); /* nothing more exact is known: none of it was read */
		if (op->bad_from < bad_before)
			op->result = r == -ENOMEM ? r : -EIO;
	}
	op->done(op);
}
