/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A batch's pieces onto the devices, and committed
 *
 * In rounds: take space, assign pieces to it (first fit; a raw piece is cut where a space ends, a compressed one is not), write all copies in parallel, commit what has enough good
 * copies. A piece with too few is tried once more, away from the members that failed. Usually there is one round with one space.
 */
#include "data/batch_priv.h"

static uint32_t raw_unit_sectors(const struct ter_batch_ctx *ctx)
{
	return ter_max(1u << (ctx->algos.csum_block_log2 - TER_SECTOR_SHIFT), ctx->data->block_sectors);
}

/* --- space --- */

static int get_space(struct ter_batch_ctx *ctx, uint32_t sectors_min, uint32_t sectors_want, uint64_t avoid_devs, struct ter_space *ret)
{
	struct ter_data *data = ctx->data;
	struct ter_alloc_request request = {
		.write_point = TER_WP_USER_FIRST + ctx->idx % TER_WRITE_POINTS_USER,
		.watermark = TER_WATERMARK_USER,
		.replicas = ter_data_opt(data, data_replicas),
		.replicas_required = ter_data_opt(data, data_replicas_required),
		.sectors_min = sectors_min,
		.sectors_want = sectors_want,
		.avoid_devs = avoid_devs,
	};
	int r;

	request.replicas_required = ter_min(request.replicas_required, request.replicas);
	r = ter_alloc_get(data->config.alloc, &request, ret);
	if (r < 0 && avoid_devs) {
		/* Too few others: elsewhere on the same members. */
		request.avoid_devs = 0;
		r = ter_alloc_get(data->config.alloc, &request, ret);
	}
	if (r == -ENOSPC) {
		/* The data was accepted and must not be lost; what moving reserves is the last that can be had. */
		request.watermark = TER_WATERMARK_MOVE;
		r = ter_alloc_get(data->config.alloc, &request, ret);
	}
	return r;
}

static void put_spaces(struct ter_batch_ctx *ctx)
{
	for (unsigned i = 0; i < ctx->spaces_nr; i++)
		ter_alloc_put(ctx->data->config.alloc, &ctx->spaces[i].space);
	ctx->spaces_nr = 0;
}

/* Cut a raw piece after @sectors (a multiple of its unit); the rest is a new piece at the end. */
static bool cut_piece(struct ter_batch_ctx *ctx, unsigned idx, uint32_t sectors)
{
	struct piece *piece = &ctx->pieces[idx], *rest;
	uint32_t csum_sectors = 1u << (ctx->algos.csum_block_log2 - TER_SECTOR_SHIFT);

	if (ctx->pieces_nr == TER_BATCH_PIECES_MAX)
		return false;
	rest = &ctx->pieces[ctx->pieces_nr++];
	*rest = *piece;
	rest->start += sectors;
	rest->raw_sectors = rest->stored_sectors = piece->raw_sectors - sectors;
	if (piece->csums) {
		unsigned head = sectors / csum_sectors;

		rest->csums += (size_t)head * ctx->algos.digest_bytes;
		rest->csums_nr -= (uint16_t)head;
		piece->csums_nr = (uint16_t)head;
	}
	piece->raw_sectors = piece->stored_sectors = sectors;
	return true;
}

/* Give as much of the space as possible to pieces that have none. */
static void fill_space(struct ter_batch_ctx *ctx, struct write_space *ws)
{
	uint32_t unit = raw_unit_sectors(ctx);

	ws->first = ctx->order_nr;
	for (unsigned i = 0; i < ctx->pieces_nr && ws->used_sectors < ws->space.sectors; i++) {
		struct piece *piece = &ctx->pieces[i];
		uint32_t left = ws->space.sectors - ws->used_sectors;

		if (piece->done || piece->space != SPACE_NONE)
			continue;
		if (piece->stored_sectors > left) {
			left = (uint32_t)ter_round_down(left, unit);
			if (piece->out || !left || !cut_piece(ctx, i, left))
				continue;
		}
		piece->space = (uint16_t)(ws - ctx->spaces);
		piece->space_offset = ws->used_sectors;
		ws->used_sectors += piece->stored_sectors;
		ctx->order[ctx->order_nr++] = i;
	}
	ws->nr = ctx->order_nr - ws->first;
}

/* Spaces for all pieces that are not written yet, or for as many as one round takes. */
static int assign(struct ter_batch_ctx *ctx, uint64_t avoid_devs)
{
	ctx->order_nr = 0;
	while (ctx->spaces_nr < TER_BATCH_SPACES_MAX) {
		struct write_space *ws = &ctx->spaces[ctx->spaces_nr];
		uint32_t min = 0;
		uint64_t want = 0;
		int r;

		for (unsigned i = 0; i < ctx->pieces_nr; i++) {
			const struct piece *piece = &ctx->pieces[i];

			if (piece->done || piece->space != SPACE_NONE)
				continue;
			if (!want)
				min = piece->out ? piece->stored_sectors : ter_min(piece->stored_sectors, raw_unit_sectors(ctx));
			want += piece->stored_sectors;
		}
		if (!want)
			return 0;
		*ws = (struct write_space){ 0 };
		r = get_space(ctx, min, (uint32_t)want, avoid_devs, &ws->space);
		if (r < 0)
			return ctx->spaces_nr ? 0 : r;
		ctx->spaces_nr++;
		fill_space(ctx, ws);
		assert(ws->nr); /* at least min was given */
	}
	return 0;
}

/* --- writing --- */

static void write_done(struct ter_dev_bio *dbio)
{
	struct write_bio *bio = dbio->priv;
	struct ter_batch_ctx *ctx = bio->ctx;

	if (dbio->bio.result < 0)
		atomic_fetch_or(&bio->space->failed, 1u << bio->copy);
	if (atomic_fetch_sub(&ctx->pending, 1) == 1)
		ter_event_set(&ctx->event, 0);
}

static void submit_part(struct ter_batch_ctx *ctx, struct write_space *ws, uint64_t skip_bytes, struct iovec *iov, unsigned iov_nr, uint64_t bytes)
{
	for (unsigned c = 0; c < ws->space.nr; c++) {
		struct write_bio *bio = &ctx->bios[ctx->bios_nr++];

		assert(ctx->bios_nr <= ctx->bios_max);
		*bio = (struct write_bio){ .ctx = ctx, .space = ws, .copy = c };
		bio->dbio.bio.op = TER_BIO_WRITE;
		bio->dbio.bio.offset_bytes = (ws->space.ptr[c].sector << TER_SECTOR_SHIFT) + skip_bytes;
		bio->dbio.bio.bytes = bytes;
		bio->dbio.bio.iov = iov;
		bio->dbio.bio.iov_nr = iov_nr;
		bio->dbio.done = write_done;
		bio->dbio.priv = bio;
		atomic_fetch_add(&ctx->pending, 1);
		ter_dev_submit(ter_member(ctx->data->config.members, ws->space.ptr[c].dev), &bio->dbio);
	}
}

static void submit_space(struct ter_batch_ctx *ctx, struct write_space *ws)
{
	unsigned first = ctx->iov_nr;
	uint64_t skip = 0, bytes = 0;

	for (unsigned i = 0; i < ws->nr; i++) {
		const struct piece *piece = &ctx->pieces[ctx->order[ws->first + i]];
		uint64_t piece_bytes = (uint64_t)piece->stored_sectors << TER_SECTOR_SHIFT;
		unsigned nr = ter_piece_iov_(ctx, piece, 0, piece_bytes, &ctx->iov[ctx->iov_nr]);

		assert(ctx->iov_nr + nr <= ctx->iov_max && nr <= TER_BIO_IOV_MAX);
		if (ctx->iov_nr - first + nr > TER_BIO_IOV_MAX) {
			submit_part(ctx, ws, skip, &ctx->iov[first], ctx->iov_nr - first, bytes);
			first = ctx->iov_nr;
			skip += bytes;
			bytes = 0;
		}
		ctx->iov_nr += nr;
		bytes += piece_bytes;
	}
	submit_part(ctx, ws, skip, &ctx->iov[first], ctx->iov_nr - first, bytes);
}

static void write_all(struct ter_batch_ctx *ctx)
{
	uint64_t bytes = 0;

	ctx->iov_nr = ctx->bios_nr = 0;
	ter_ctx_begin_(ctx);
	for (unsigned i = 0; i < ctx->spaces_nr; i++) {
		submit_space(ctx, &ctx->spaces[i]);
		bytes += ((uint64_t)ctx->spaces[i].used_sectors << TER_SECTOR_SHIFT) * ctx->spaces[i].space.nr;
	}
	ter_ctx_wait_(ctx);
	atomic_fetch_add_explicit(&ctx->data->stored_bytes, bytes, memory_order_relaxed);
}

/* --- what came of it --- */

static bool enough_copies(struct ter_batch_ctx *ctx, struct write_space *ws)
{
	unsigned wanted = ter_data_opt(ctx->data, data_replicas), required = ter_min(ter_data_opt(ctx->data, data_replicas_required), ter_data_opt(ctx->data, data_replicas));

	ws->good = ws->space.nr - (unsigned)__builtin_popcount(atomic_load(&ws->failed));
	if (ws->good < wanted)
		atomic_fetch_add_explicit(&ctx->data->degraded, 1, memory_order_relaxed);
	return ws->good >= ter_max(required, 1u);
}

/* Pieces of spaces that failed wait for the next round; -EIO when they had theirs. */
static int sort_out_failed(struct ter_batch_ctx *ctx, uint64_t *avoid_devs)
{
	for (unsigned s = 0; s < ctx->spaces_nr; s++) {
		struct write_space *ws = &ctx->spaces[s];

		if (enough_copies(ctx, ws))
			continue;
		for (unsigned c = 0; c < ws->space.nr; c++)
			if (atomic_load(&ws->failed) & 1u << c)
				*avoid_devs |= 1ull << ws->space.ptr[c].dev;
		for (unsigned i = 0; i < ws->nr; i++) {
			struct piece *piece = &ctx->pieces[ctx->order[ws->first + i]];

			piece->space = SPACE_NONE;
			if (++piece->attempts >= WRITE_ATTEMPTS_MAX)
				return -EIO;
		}
	}
	return 0;
}

static void make_extent(const struct ter_batch_ctx *ctx, const struct piece *piece, struct ter_extent *e)
{
	const struct write_space *ws = &ctx->spaces[piece->space];

	*e = (struct ter_extent){
		.start = piece->start,
		.sectors = piece->raw_sectors,
		.nr_required = 1,
		.csum_slot = ctx->algos.csum_slot,
		.compression_slot = piece->out ? ctx->algos.compression_slot : 0,
		.csum_block_log2 = ctx->algos.csum_block_log2,
		.digest_bytes = ctx->algos.digest_bytes,
		.csums_nr = piece->csums_nr,
		.stored_sectors = piece->stored_sectors,
		.raw_sectors = piece->raw_sectors,
		.csums = piece->csums,
	};
	for (unsigned c = 0; c < ws->space.nr; c++) {
		if (atomic_load(&ws->failed) & 1u << c)
			continue;
		e->ptr[e->nr_ptrs].sector = ws->space.ptr[c].sector + piece->space_offset;
		e->ptr[e->nr_ptrs].gen = ws->space.ptr[c].gen;
		e->ptr[e->nr_ptrs].dev = ws->space.ptr[c].dev;
		e->nr_ptrs++;
	}
}

static int by_start(const void *a, const void *b)
{
	uint64_t x = ((const struct ter_extent *)a)->start, y = ((const struct ter_extent *)b)->start;

	return x < y ? -1 : x > y;
}

/* The device sets are in the superblock before the commit that needs them (S5). */
static int ensure_replicas(struct ter_batch_ctx *ctx, unsigned nr)
{
	struct ter_replicas_entry last = { 0 }, entry;

	for (unsigned i = 0; i < nr; i++) {
		int r;

		ter_extent_replicas(&ctx->extents[i], &entry);
		if (i && memcmp(&entry, &last, sizeof(entry)) == 0)
			continue;
		r = ter_sb_replicas_ensure(ctx->data->config.sb, &entry, false);
		if (r < 0)
			return r;
		last = entry;
	}
	return 0;
}

static int commit_written(struct ter_batch_ctx *ctx, struct ter_batch *batch)
{
	unsigned nr = 0;
	uint64_t raw_bytes = 0;
	bool sorted = true;
	int r;

	for (unsigned i = 0; i < ctx->order_nr; i++) {
		struct piece *piece = &ctx->pieces[ctx->order[i]];

		if (piece->space == SPACE_NONE)
			continue;
		make_extent(ctx, piece, &ctx->extents[nr]);
		raw_bytes += (uint64_t)piece->raw_sectors << TER_SECTOR_SHIFT;
		sorted = sorted && (!nr || ctx->extents[nr - 1].start < ctx->extents[nr].start);
		piece->done = true;
		nr++;
	}
	if (!sorted)
		qsort(ctx->extents, nr, sizeof(ctx->extents[0]), by_start);
	r = ensure_replicas(ctx, nr);
	if (r < 0)
		return r;
	r = ter_batch_commit(ctx->data, batch, ctx->extents, nr, ctx->commit);
	if (r >= 0)
		atomic_fetch_add_explicit(&ctx->data->written_bytes, raw_bytes, memory_order_relaxed);
	return r;
}

static bool all_done(const struct ter_batch_ctx *ctx)
{
	for (unsigned i = 0; i < ctx->pieces_nr; i++)
		if (!ctx->pieces[i].done)
			return false;
	return true;
}

int ter_batch_write_(struct ter_batch_ctx *ctx, struct ter_batch *batch)
{
	uint64_t avoid_devs = 0;
	int r = 0;

	ctx->spaces_nr = 0;
	while (r >= 0 && !all_done(ctx)) {
		r = assign(ctx, avoid_devs);
		if (r >= 0) {
			write_all(ctx);
			r = sort_out_failed(ctx, &avoid_devs);
		}
		if (r >= 0)
			r = commit_written(ctx, batch);
		put_spaces(ctx);
	}
	return r;
}
