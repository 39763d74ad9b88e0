/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One batch: from segments to extents on the devices
 *
 *     segments -> fragments (whole blocks, in the segments' buffers or completed ones in `bounce`) -> pieces (at most extent_max; compressed, checksummed)
 *       -> spaces (contiguous on each copy) -> one vectored write per copy -> extents, committed
 *
 * All memory is set aside when the task starts (D5), most of it never touched where nothing is compressed and blocks are whole.
 */
#include "data/batch_priv.h"

static void below_done(struct ter_below *below)
{
	struct ter_batch_ctx *ctx = below->priv;

	if (atomic_fetch_sub(&ctx->pending, 1) == 1)
		ter_event_set(&ctx->event, 0);
}

void ter_ctx_begin_(struct ter_batch_ctx *ctx)
{
	ter_lock_acquire(&ctx->event.lock);
	ctx->event.set = false;
	ter_lock_release(&ctx->event.lock);
	atomic_store(&ctx->pending, 1);
}

void ter_ctx_wait_(struct ter_batch_ctx *ctx)
{
	if (atomic_fetch_sub(&ctx->pending, 1) != 1)
		(void)ter_event_wait(&ctx->event); /* results are where the requests are */
}

/* --- fragments --- */

static int add_frag(struct ter_batch_ctx *ctx, uint64_t pos, uint8_t *mem, uint64_t bytes)
{
	struct frag *last = ctx->frags_nr ? &ctx->frags[ctx->frags_nr - 1] : NULL;

	if (last && last->pos + last->bytes == pos && last->mem + last->bytes == mem) {
		last->bytes += (uint32_t)bytes;
		return 0;
	}
	if (ctx->frags_nr == ctx->blocks_max)
		return -E2BIG;
	ctx->frags[ctx->frags_nr++] = (struct frag){ .pos = pos, .bytes = (uint32_t)bytes, .mem = mem };
	return 0;
}

/* Bytes of the block at @pos that no segment from @seg on covers and that lie before the end of the file. */
static bool has_hole(const struct ter_seg *seg, uint64_t pos, uint64_t end, uint64_t eof)
{
	for (; seg && seg->start < end; seg = seg->next) {
		if (seg->start > pos)
			break;
		pos = ter_max(pos, seg->end);
	}
	return pos < ter_min(end, eof);
}

/* A block that is not whole in one buffer: completed in `bounce`, from below where segments do not cover it. */
static int add_partial(struct ter_batch_ctx *ctx, const struct ter_batch *batch, const struct ter_seg *seg, uint64_t pos)
{
	uint32_t block = ctx->data->block_bytes;
	uint8_t *mem = ctx->bounce + (size_t)ctx->partials_nr * block;
	struct partial *partial;

	if (ctx->partials_nr == ctx->blocks_max)
		return -E2BIG;
	partial = &ctx->partials[ctx->partials_nr++];
	*partial = (struct partial){ .pos = pos, .seg = seg, .mem = mem, .read = has_hole(seg, pos, pos + block, batch->eof) };
	if (!partial->read)
		memset(mem, 0, block);
	return add_frag(ctx, pos, mem, block);
}

static int build_frags(struct ter_batch_ctx *ctx, const struct ter_batch *batch)
{
	struct ter_data *data = ctx->data;
	uint32_t block = data->block_bytes;
	uint64_t pos = 0;
	int r;

	ctx->frags_nr = ctx->partials_nr = 0;
	for (const struct ter_seg *seg = batch->segs; seg; seg = seg->next) {
		pos = ter_max(pos, ter_file_block_down(data, seg->start));
		while (pos < seg->end) {
			uint64_t whole = block;

			if (seg->start <= pos && seg->end - pos >= block) {
				whole = ter_file_block_down(data, seg->end) - pos;
				r = add_frag(ctx, pos, seg->mem + (pos - seg->base), whole);
			} else {
				r = add_partial(ctx, batch, seg, pos);
			}
			if (r < 0)
				return r;
			pos += whole;
		}
	}
	return 0;
}

static int read_partials(struct ter_batch_ctx *ctx, const struct ter_batch *batch)
{
	uint32_t block = ctx->data->block_bytes;
	int r;

	ter_ctx_begin_(ctx);
	for (unsigned i = 0; i < ctx->partials_nr; i++) {
		struct partial *p = &ctx->partials[i];

		if (!p->read)
			continue;
		p->below = (struct ter_below){ .offset = p->pos, .bytes = block, .buf = p->mem, .done = below_done, .priv = ctx };
		atomic_fetch_add(&ctx->pending, 1);
		r = ter_read_below(ctx->data, batch->file, &p->below);
		if (r < 0) {
			p->below.result = r;
			below_done(&p->below);
		}
	}
	ter_ctx_wait_(ctx);
	for (unsigned i = 0; i < ctx->partials_nr; i++)
		if (ctx->partials[i].read && ctx->partials[i].below.result < 0)
			return ctx->partials[i].below.result;
	return 0;
}

static void fill_partials(struct ter_batch_ctx *ctx)
{
	uint32_t block = ctx->data->block_bytes;

	for (unsigned i = 0; i < ctx->partials_nr; i++) {
		struct partial *p = &ctx->partials[i];

		for (const struct ter_seg *seg = p->seg; seg && seg->start < p->pos + block; seg = seg->next) {
			uint64_t from = ter_max(seg->start, p->pos), to = ter_min(seg->end, p->pos + block);

			if (from < to)
				memcpy(p->mem + (from - p->pos), seg->mem + (from - seg->base), to - from);
		}
	}
}

/* --- pieces --- */

/* The fragments of [start, start + bytes) as an iovec; how many parts. @frag: one at or before the start. */
unsigned ter_piece_iov_(const struct ter_batch_ctx *ctx, const struct piece *piece, uint64_t skip_bytes, uint64_t bytes, struct iovec *iov)
{
	uint64_t pos = (piece->start << TER_SECTOR_SHIFT) + skip_bytes, end = pos + bytes;
	const struct frag *f = &ctx->frags[piece->frag];
	unsigned nr = 0;

	if (piece->out) {
		iov[0] = (struct iovec){ .iov_base = (void *)(piece->out + skip_bytes), .iov_len = bytes };
		return 1;
	}
	while (f->pos + f->bytes <= pos)
		f++;
	while (pos < end) {
		uint64_t n = ter_min(f->pos + f->bytes, end) - pos;

		iov[nr++] = (struct iovec){ .iov_base = f->mem + (pos - f->pos), .iov_len = n };
		pos += n;
		f++;
	}
	return nr;
}

/* Longest piece. What is compressed is not cut any more and must fit into one bucket, whose size is the same everywhere. */
static uint64_t piece_bytes_max(const struct ter_batch_ctx *ctx)
{
	const struct ter_members *members = ctx->data->config.members;
	uint64_t max_bytes = ter_max(ter_data_opt(ctx->data, extent_max), ctx->data->block_bytes);

	for (unsigned i = 0; ctx->algos.compression && i < members->nr_slots; i++)
		if (members->dev[i].used)
			return ter_min(max_bytes, (uint64_t)members->dev[i].bucket_sectors << TER_SECTOR_SHIFT);
	return max_bytes;
}

static int build_pieces(struct ter_batch_ctx *ctx)
{
	uint64_t max_bytes = piece_bytes_max(ctx);
	unsigned i = 0;

	ctx->pieces_nr = 0;
	while (i < ctx->frags_nr) {
		uint64_t pos = ctx->frags[i].pos, end = pos + ctx->frags[i].bytes;
		unsigned frag = i;

		for (i++; i < ctx->frags_nr && ctx->frags[i].pos == end; i++)
			end += ctx->frags[i].bytes;
		/* Cut at multiples of extent_max in the file, so that a later rewrite replaces whole extents. */
		while (pos < end) {
			uint64_t to = ter_min(end, ter_round_down(pos, max_bytes) + max_bytes);

			if (ctx->pieces_nr == TER_BATCH_PIECES_MAX)
				return -E2BIG;
			while (ctx->frags[frag].pos + ctx->frags[frag].bytes <= pos)
				frag++;
			ctx->pieces[ctx->pieces_nr++] = (struct piece){
				.start = pos >> TER_SECTOR_SHIFT,
				.raw_sectors = (uint32_t)((to - pos) >> TER_SECTOR_SHIFT),
				.stored_sectors = (uint32_t)((to - pos) >> TER_SECTOR_SHIFT),
				.frag = frag,
				.space = SPACE_NONE,
			};
			pos = to;
		}
	}
	return 0;
}

static const uint8_t *contiguous(struct ter_batch_ctx *ctx, const struct piece *piece)
{
	uint64_t bytes = (uint64_t)piece->raw_sectors << TER_SECTOR_SHIFT;
	unsigned nr = ter_piece_iov_(ctx, piece, 0, bytes, ctx->iov);
	uint8_t *dst = ctx->gather;

	if (nr == 1)
		return ctx->iov[0].iov_base;
	for (unsigned i = 0; i < nr; i++) {
		memcpy(dst, ctx->iov[i].iov_base, ctx->iov[i].iov_len);
		dst += ctx->iov[i].iov_len;
	}
	return ctx->gather;
}

/* What did not shrink several times in a row is tried ever less often, up to one in eight pieces. */
static bool worth_trying(struct ter_file *file)
{
	uint8_t skip = atomic_load_explicit(&file->compress_skip, memory_order_relaxed);

	if (!skip)
		return true;
	atomic_store_explicit(&file->compress_skip, skip - 1, memory_order_relaxed);
	return false;
}

static void note_shrunk(struct ter_file *file, bool shrunk)
{
	uint8_t misses = atomic_load_explicit(&file->compress_misses, memory_order_relaxed);

	misses = shrunk ? 0 : ter_min(misses + 1, 5);
	atomic_store_explicit(&file->compress_misses, misses, memory_order_relaxed);
	atomic_store_explicit(&file->compress_skip, misses > 2 ? (uint8_t)((1 << (misses - 2)) - 1) : 0, memory_order_relaxed);
}

static void compress_piece(struct ter_batch_ctx *ctx, struct ter_file *file, struct piece *piece)
{
	const struct terrace_compression *algo = ctx->algos.compression;
	uint32_t block = ctx->data->block_bytes;
	size_t raw = (size_t)piece->raw_sectors << TER_SECTOR_SHIFT, n, stored;

	if (!algo || raw <= block || !worth_trying(file))
		return;
	n = ter_codec_compress(algo, ctx->out + ctx->out_used, raw - block, contiguous(ctx, piece), raw, ctx->algos.level, ctx->scratch);
	note_shrunk(file, n != 0);
	if (!n || n > raw - block)
		return;
	stored = ter_round_up(n, block);
	piece->out = ctx->out + ctx->out_used;
	memset(ctx->out + ctx->out_used + n, 0, stored - n);
	piece->stored_sectors = (uint32_t)(stored >> TER_SECTOR_SHIFT);
	ctx->out_used += stored;
}

static void checksum_piece(struct ter_batch_ctx *ctx, struct piece *piece)
{
	uint64_t bytes = (uint64_t)piece->stored_sectors << TER_SECTOR_SHIFT, step = piece->out ? bytes : 1ull << ctx->algos.csum_block_log2;
	uint8_t digest[TER_DIGEST_MAX];

	if (!ctx->algos.csum_slot)
		return;
	piece->csums = ctx->csums + ctx->csums_used;
	for (uint64_t at = 0; at < bytes; at += step) {
		unsigned nr = ter_piece_iov_(ctx, piece, at, ter_min(step, bytes - at), ctx->iov);

		ter_algos_digestv(&ctx->data->sb->algos, ctx->algos.csum_slot, ctx->iov, nr, digest);
		memcpy(ctx->csums + ctx->csums_used, digest, ctx->algos.digest_bytes);
		ctx->csums_used += ctx->algos.digest_bytes;
		piece->csums_nr++;
	}
}

static void encode_pieces(struct ter_batch_ctx *ctx, struct ter_file *file)
{
	ctx->out_used = ctx->csums_used = 0;
	for (unsigned i = 0; i < ctx->pieces_nr; i++) {
		compress_piece(ctx, file, &ctx->pieces[i]);
		checksum_piece(ctx, &ctx->pieces[i]);
	}
}

int ter_batch_run(struct ter_data *data, struct ter_batch_ctx *ctx, struct ter_batch *batch)
{
	int r;

	r = ter_batch_algos_(ctx);
	if (r < 0)
		return r;
	r = build_frags(ctx, batch);
	if (r < 0)
		return r;
	r = read_partials(ctx, batch);
	if (r < 0)
		return r;
	fill_partials(ctx);
	r = build_pieces(ctx);
	if (r < 0)
		return r;
	encode_pieces(ctx, batch->file);
	return ter_batch_write_(ctx, batch);
}

bool ter_batch_may_inline(struct ter_data *data, const struct ter_batch *batch)
{
	return batch->exclusive && batch->eof <= ter_data_opt(data, inline_data_max) && !atomic_load_explicit(&batch->file->not_inline, memory_order_relaxed);
}

int ter_batch_run_inline(struct ter_data *data, struct ter_batch_ctx *ctx, struct ter_batch *batches, unsigned nr, bool *done)
{
	return ter_batch_commit_inline(data, batches, nr, done, ctx->commit);
}

/* --- life --- */

int ter_batch_ctx_new(struct ter_data *data, struct ter_batch_ctx **ret)
{
	struct ter_batch_ctx *ctx = ter_new(struct ter_batch_ctx);
	/* A group may be larger than a batch: one buffer and what shares its first and last blocks. */
	size_t bytes = data->batch_bytes + 2 * (TER_PAGE_BYTES << data->pool.order_max) + 8ull * data->block_bytes;

	if (!ctx)
		return -ENOMEM;
	ctx->data = data;
	for (ctx->idx = 0; ctx->idx < TER_WB_TASKS && data->ctx[ctx->idx]; ctx->idx++)
		;
	ter_event_init(&ctx->event);
	ctx->blocks_max = (unsigned)(bytes / data->block_bytes);
	ctx->bounce = ter_malloc_aligned(bytes, TER_PAGE_BYTES);
	ctx->out = ter_malloc_aligned(bytes, TER_PAGE_BYTES);
	ctx->gather = ter_malloc_aligned(TER_EXTENT_SECTORS_MAX * TER_SECTOR_BYTES, TER_PAGE_BYTES);
	ctx->frags = ter_malloc(ctx->blocks_max * sizeof(*ctx->frags));
	ctx->partials = ter_malloc(ctx->blocks_max * sizeof(*ctx->partials));
	ctx->iov_max = 2 * ctx->blocks_max + TER_BATCH_PIECES_MAX;
	ctx->iov = ter_malloc(ctx->iov_max * sizeof(*ctx->iov));
	ctx->csums = ter_malloc((size_t)ctx->blocks_max * TER_DIGEST_MAX);
	ctx->pieces = ter_malloc(TER_BATCH_PIECES_MAX * sizeof(*ctx->pieces));
	ctx->order = ter_malloc(TER_BATCH_PIECES_MAX * sizeof(*ctx->order));
	ctx->extents = ter_malloc(TER_BATCH_PIECES_MAX * sizeof(*ctx->extents));
	ctx->spaces = ter_malloc(TER_BATCH_SPACES_MAX * sizeof(*ctx->spaces));
	ctx->bios_max = TER_BATCH_SPACES_MAX * TER_REPLICAS_MAX + TER_REPLICAS_MAX * (ctx->iov_max / TER_BIO_IOV_MAX + 1);
	ctx->bios = ter_malloc(ctx->bios_max * sizeof(*ctx->bios));
	ctx->commit = ter_malloc(sizeof(*ctx->commit));
	if (!ctx->bounce || !ctx->out || !ctx->gather || !ctx->frags || !ctx->partials || !ctx->iov || !ctx->csums || !ctx->pieces || !ctx->order ||
	    !ctx->extents || !ctx->spaces || !ctx->bios || !ctx->commit) {
		ter_batch_ctx_free(ctx);
		return -ENOMEM;
	}
	*ret = ctx;
	return 0;
}

void ter_batch_ctx_free(struct ter_batch_ctx *ctx)
{
	if (!ctx)
		return;
	ter_event_destroy(&ctx->event);
	free(ctx->bounce);
	free(ctx->out);
	free(ctx->gather);
	free(ctx->scratch);
	free(ctx->frags);
	free(ctx->partials);
	free(ctx->iov);
	free(ctx->csums);
	free(ctx->pieces);
	free(ctx->order);
	free(ctx->extents);
	free(ctx->spaces);
	free(ctx->bios);
	free(ctx->commit);
	free(ctx);
}
