/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading: completion-based
 *
 *   1. Under file->lock, dirty bytes are copied out; what they leave are gaps. (Dirty first, extents second: a segment committed in between is in the extents by then.)
 *   2. A scan of the extents fills holes, inline data and reservations, and makes a piece of each extent's part in a gap.
 *   3. Pieces that lie one after the other on the chosen member become one device read, straight into the caller's buffer where it is aligned and the piece is whole
 *      checksum blocks; else into a bounce buffer.
 *   4. The completion verifies, decompresses, copies. What fails goes to the slow path (read_slow.c): there other copies are tried, and the extent is looked up again, since it may
 *      have been rewritten and its bucket reused meanwhile.
 * Without a checksum nothing would tell reuse: such pieces always pass the slow path's second look.
 */
#include "data/read_priv.h"

struct rd_bio {
	struct ter_dev_bio dbio;
	struct rd_op *op;
	unsigned first, nr; /* pieces */
};

void ter_rd_init_(struct rd_op *op, struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, void *buf, bool below)
{
	memset(op, 0, offsetof(struct rd_op, gaps_inline));
	op->data = data;
	op->file = file;
	op->from = from;
	op->to = to;
	op->buf = buf;
	op->below = below;
	op->gaps = op->gaps_inline;
	op->gaps_max = RD_INLINE_GAPS;
	op->pieces = op->pieces_inline;
	op->pieces_max = RD_INLINE_PIECES;
	op->csums = op->csums_inline;
	op->csums_max = RD_INLINE_CSUM_BYTES;
	op->bad_from = UINT64_MAX;
}

void ter_rd_exit_(struct rd_op *op)
{
	if (op->gaps != op->gaps_inline)
		free(op->gaps);
	if (op->pieces != op->pieces_inline)
		free(op->pieces);
	if (op->csums != op->csums_inline)
		free(op->csums);
	ter_bounce_put(op->data, op->bounce, op->bounce_bytes);
	free(op->bios);
}

/* Room for @need elements in an array that begins inside the op. */
static int grow(void **array, void *inside, size_t used, size_t *max, size_t need, size_t size)
{
	size_t more = *max;
	void *p;

	if (need <= *max)
		return 0;
	while (more < need)
		more *= 2;
	p = ter_realloc_array(*array == inside ? NULL : *array, more, size);
	if (!p)
		return -ENOMEM;
	if (*array == inside)
		memcpy(p, inside, used * size);
	*array = p;
	*max = more;
	return 0;
}

/* --- dirty segments --- */

static int add_gap(struct rd_op *op, uint64_t from, uint64_t to)
{
	size_t max = op->gaps_max;
	void *gaps = op->gaps;
	int r;

	r = grow(&gaps, op->gaps_inline, op->gaps_nr, &max, op->gaps_nr + 1, sizeof(*op->gaps));
	if (r < 0)
		return r;
	op->gaps = gaps;
	op->gaps_max = (unsigned)max;
	op->gaps[op->gaps_nr++] = (struct rd_gap){ from, to };
	return 0;
}

static uint64_t copy_seg(struct rd_op *op, const struct ter_seg *seg, uint64_t pos, uint64_t to)
{
	to = ter_min(seg->end, to);
	memcpy(op->buf + (pos - op->from), seg->mem + (pos - seg->base), to - pos);
	return to;
}

static int copy_dirty(struct rd_op *op)
{
	struct ter_file *file = op->file;
	uint64_t pos = op->from;

	while (pos < op->to) {
		const struct ter_seg *d = ter_segtree_first(file->segs, pos), *w = ter_segtree_first(file->wb, pos);
		uint64_t to = op->to;
		int r;

		if (d && d->start <= pos) {
			pos = copy_seg(op, d, pos, to);
			continue;
		}
		if (d)
			to = ter_min(to, d->start);
		if (w && w->start <= pos) {
			pos = copy_seg(op, w, pos, to);
			continue;
		}
		if (w)
			to = ter_min(to, w->start);
		r = add_gap(op, pos, to);
		if (r < 0)
			return r;
		pos = to;
	}
	return 0;
}

/* --- extents --- */

static void zero(struct rd_op *op, uint64_t from, uint64_t to)
{
	if (from < to)
		memset(op->buf + (from - op->from), 0, to - from);
}

static void note_bad(struct rd_op *op, uint64_t from, int r)
{
	if (from < op->bad_from) {
		op->bad_from = from;
		op->result = r;
	}
}

static int add_piece(struct rd_op *op, const struct ter_extent *e, uint64_t from, uint64_t to)
{
	uint64_t stored_bytes = (uint64_t)e->stored_sectors << TER_SECTOR_SHIFT;
	uint64_t at = from - (e->start << TER_SECTOR_SHIFT) + ((uint64_t)e->live_offset << TER_SECTOR_SHIFT), end = at + (to - from), unit;
	size_t max = op->pieces_max, csum_bytes;
	void *pieces = op->pieces, *csums = op->csums;
	struct rd_piece *p;
	int r;

	r = grow(&pieces, op->pieces_inline, op->pieces_nr, &max, op->pieces_nr + 1, sizeof(*p));
	if (r < 0)
		return r;
	op->pieces = pieces;
	op->pieces_max = (unsigned)max;
	p = &op->pieces[op->pieces_nr];
	*p = (struct rd_piece){ .extent = *e, .from = from, .to = to, .dst = op->buf + (from - op->from), .csum_at = (uint32_t)op->csums_used };
	if (e->compression_slot) {
		p->stored_bytes = (uint32_t)stored_bytes;
		csum_bytes = e->digest_bytes;
	} else {
		unit = ter_max(1ull << e->csum_block_log2, (uint64_t)op->data->block_bytes);
		p->stored_from = (uint32_t)ter_round_down(at, unit);
		p->stored_bytes = (uint32_t)(ter_min(ter_round_up(end, unit), stored_bytes) - p->stored_from);
		csum_bytes = e->csum_slot ? (((size_t)p->stored_bytes + (1u << e->csum_block_log2) - 1) >> e->csum_block_log2) * e->digest_bytes : 0;
		p->direct = at == p->stored_from && end == (uint64_t)p->stored_from + p->stored_bytes && (uintptr_t)p->dst % TER_SECTOR_BYTES == 0;
	}
	r = grow(&csums, op->csums_inline, op->csums_used, &op->csums_max, op->csums_used + csum_bytes, 1);
	if (r < 0)
		return r;
	op->csums = csums;
	if (csum_bytes)
		memcpy(op->csums + op->csums_used, e->csums + (size_t)(p->stored_from >> e->csum_block_log2) * e->digest_bytes, csum_bytes);
	op->csums_used += csum_bytes;
	op->pieces_nr++;
	return 0;
}

static int use_key(struct rd_op *op, const struct ter_key *key, const struct ter_extent *e, uint64_t from, uint64_t to)
{
	uint64_t at = from - (ter_key_start(key) << TER_SECTOR_SHIFT), have;

	switch (key->type) {
	case TER_KEY_EXTENT:
		return add_piece(op, e, from, to);
	case TER_KEY_INLINE_DATA:
		if (key->val_bytes > (uint64_t)key->size << TER_SECTOR_SHIFT)
			return -EUCLEAN;
		have = at < key->val_bytes ? ter_min((uint64_t)key->val_bytes - at, to - from) : 0;
		if (have)
			memcpy(op->buf + (from - op->from), (const uint8_t *)key->val + at, have);
		zero(op, from + have, to);
		return 0;
	case TER_KEY_RESERVATION:
		zero(op, from, to);
		return 0;
	case TER_KEY_ERROR:
		note_bad(op, from, -EIO);
		return 0;
	default:
		return -EUCLEAN;
	}
}

/* A key of the file, in order: what lies before it in the gaps is holes. 1: nothing more is wanted. */
static int scan_cb(void *arg, const struct ter_key *key)
{
	struct rd_op *op = arg;
	struct ter_extent extent = { 0 };
	uint64_t start, end;
	int r;

	if (key->pos.snapshot != op->file->snapshot)
		return 0;
	if (!key->size || key->pos.offset < key->size || key->pos.offset > UINT64_MAX >> TER_SECTOR_SHIFT)
		return -EUCLEAN;
	start = ter_key_start(key) << TER_SECTOR_SHIFT;
	end = key->pos.offset << TER_SECTOR_SHIFT;
	if (start >= op->gaps[op->gaps_nr - 1].to)
		return 1;
	if (key->type == TER_KEY_EXTENT) {
		r = ter_extent_decode(key, op->data->sb, &extent);
		if (r < 0)
			return r;
	}
	while (op->gap < op->gaps_nr) {
		const struct rd_gap *gap = &op->gaps[op->gap];
		uint64_t from = ter_max(op->filled_to, gap->from), to = ter_min(gap->to, end);

		if (start >= gap->to) {
			zero(op, from, gap->to);
			op->gap++;
			continue;
		}
		if (from < start) {
			zero(op, from, start);
			from = start;
		}
		if (from < to) {
			r = use_key(op, key, &extent, from, to);
			if (r < 0)
				return r;
			op->filled_to = to;
		}
		if (end < gap->to)
			return 0;
		op->gap++;
	}
	return 1;
}

static int scan_extents(struct rd_op *op, bool nowait)
{
	struct ter_file *file = op->file;
	struct ter_pos from = TER_POS(file->inum, (op->gaps[0].from >> TER_SECTOR_SHIFT) + 1, 0), to = TER_POS(file->inum, UINT64_MAX, UINT32_MAX);
	int r;

	r = ter_btree_scan(op->data->config.btrees, TER_BTREE_EXTENTS, from, to, nowait ? TER_TRANS_NOWAIT : 0, scan_cb, op, NULL);
	if (r < 0)
		return r;
	for (; op->gap < op->gaps_nr; op->gap++)
		zero(op, ter_max(op->filled_to, op->gaps[op->gap].from), op->gaps[op->gap].to);
	return 0;
}

int ter_rd_gather_(struct rd_op *op, bool nowait)
{
	int r;

	if (op->below) {
		r = add_gap(op, op->from, op->to);
	} else {
		ter_lock_acquire(&op->file->lock);
		r = copy_dirty(op);
		ter_lock_release(&op->file->lock);
	}
	if (r < 0 || !op->gaps_nr)
		return r;
	return scan_extents(op, nowait);
}

/* --- verifying --- */

static int verify(struct rd_op *op, const struct rd_piece *p, const uint8_t *mem)
{
	const struct ter_extent *e = &p->extent;
	uint32_t step = e->compression_slot ? p->stored_bytes : 1u << e->csum_block_log2;
	const uint8_t *want = op->csums + p->csum_at;
	uint8_t digest[TER_DIGEST_MAX];

	if (!e->csum_slot)
		return 0;
	for (uint32_t at = 0; at < p->stored_bytes; at += step, want += e->digest_bytes) {
		ter_algos_digest(&op->data->sb->algos, e->csum_slot, mem + at, ter_min(step, p->stored_bytes - at), digest);
		if (memcmp(digest, want, e->digest_bytes) != 0)
			return -EBADMSG;
	}
	return 0;
}

static int decompress(struct rd_op *op, const struct rd_piece *p, const uint8_t *mem)
{
	const struct ter_extent *e = &p->extent;
	const struct terrace_compression *algo = ter_algos_compression(&op->data->sb->algos, e->compression_slot);
	size_t raw_bytes = (size_t)e->raw_sectors << TER_SECTOR_SHIFT, scratch_bytes;
	uint64_t at = p->from - (e->start << TER_SECTOR_SHIFT) + ((uint64_t)e->live_offset << TER_SECTOR_SHIFT);
	bool whole = at == 0 && p->to - p->from == raw_bytes;
	uint8_t *raw = p->dst;
	void *scratch = NULL;
	int r = -ENOMEM;

	if (!algo)
		return -EUCLEAN;
	scratch_bytes = algo->scratch_bytes(algo->level_max, raw_bytes);
	if (scratch_bytes) {
		scratch = ter_bounce_get(op->data, scratch_bytes);
		if (!scratch)
			return -ENOMEM;
	}
	if (!whole)
		raw = ter_bounce_get(op->data, raw_bytes);
	if (raw) {
		r = ter_codec_decompress(algo, raw, raw_bytes, mem, p->stored_bytes, scratch);
		if (r < 0)
			r = -EBADMSG;
		else if (!whole)
			memcpy(p->dst, raw + at, p->to - p->from);
	}
	if (!whole)
		ter_bounce_put(op->data, raw, raw_bytes);
	ter_bounce_put(op->data, scratch, scratch_bytes);
	return r;
}

int ter_rd_finish_piece_(struct rd_op *op, struct rd_piece *p, uint8_t *mem)
{
	uint64_t at;
	int r;

	r = verify(op, p, mem);
	if (r < 0)
		return r;
	if (p->extent.compression_slot)
		return decompress(op, p, mem);
	if (mem == p->dst)
		return 0;
	at = p->from - (p->extent.start << TER_SECTOR_SHIFT) + ((uint64_t)p->extent.live_offset << TER_SECTOR_SHIFT) - p->stored_from;
	memcpy(p->dst, mem + at, p->to - p->from);
	return 0;
}

/* --- reading --- */

int ter_rd_choose_(struct ter_data *data, const struct ter_extent *e, unsigned tried)
{
	unsigned turn = e->nr_ptrs > 1 ? atomic_fetch_add_explicit(&data->spread, 1, memory_order_relaxed) : 0;
	uint64_t best_cost = UINT64_MAX;
	int best = -1;

	for (unsigned k = 0; k < e->nr_ptrs; k++) {
		unsigned i = (turn + k) % e->nr_ptrs;
		struct ter_dev *dev = ter_member(data->config.members, e->ptr[i].dev);
		uint64_t cost;

		if (tried & 1u << i || !dev || !ter_dev_online(dev) || dev->state == TER_DEV_FAILED)
			continue;
		/* What waits there already, at what one takes there; a floor keeps noise of fast devices from deciding. */
		cost = (atomic_load_explicit(&dev->read_latency_ns, memory_order_relaxed) + 20000) *
		       (atomic_load_explicit(&dev->inflight, memory_order_relaxed) + 1);
		if (cost < best_cost) {
			best_cost = cost;
			best = (int)i;
		}
	}
	return best;
}

static uint64_t piece_offset(const struct rd_piece *p)
{
	return (p->extent.ptr[p->copy].sector << TER_SECTOR_SHIFT) + p->stored_from;
}

/* Stay on the member of the piece before where this one follows it there. */
static void choose_copy(struct rd_op *op, struct rd_piece *p, const struct rd_piece *before)
{
	int best;

	if (before && before->result >= 0)
		for (unsigned i = 0; i < p->extent.nr_ptrs; i++)
			if (p->extent.ptr[i].dev == before->extent.ptr[before->copy].dev &&
			    (p->extent.ptr[i].sector << TER_SECTOR_SHIFT) + p->stored_from == piece_offset(before) + before->stored_bytes) {
				p->copy = (uint8_t)i;
				return;
			}
	best = ter_rd_choose_(op->data, &p->extent, 0);
	if (best < 0)
		p->result = -ENODEV;
	else
		p->copy = (uint8_t)best;
}

static void op_put(struct rd_op *op)
{
	if (atomic_fetch_sub(&op->pending, 1) != 1)
		return;
	if (atomic_load(&op->again))
		ter_workq_add(op->data->slow, &op->work);
	else
		op->done(op);
}

static void bio_done(struct ter_dev_bio *dbio)
{
	struct rd_bio *bio = dbio->priv;
	struct rd_op *op = bio->op;
	bool again = false;

	for (unsigned i = bio->first; i < bio->first + bio->nr; i++) {
		struct rd_piece *p = &op->pieces[i];

		p->result = dbio->bio.result;
		if (p->result >= 0)
			p->result = ter_rd_finish_piece_(op, p, p->direct ? p->dst : op->bounce + p->bounce_at);
		again |= p->result < 0 || !p->extent.csum_slot;
	}
	if (again)
		atomic_store(&op->again, true);
	op_put(op);
}

/* Does piece @i continue the device read that ends with the piece before it? */
static bool continues(const struct rd_op *op, unsigned i)
{
	const struct rd_piece *a = &op->pieces[i - 1], *b = &op->pieces[i];

	return a->result >= 0 && b->result >= 0 && a->extent.ptr[a->copy].dev == b->extent.ptr[b->copy].dev && piece_offset(a) + a->stored_bytes == piece_offset(b);
}

static int prepare(struct rd_op *op, unsigned *ret_bios)
{
	unsigned bios = 0, in_bio = 0;
	size_t bounce = 0;

	for (unsigned i = 0; i < op->pieces_nr; i++) {
		struct rd_piece *p = &op->pieces[i];
		const struct ter_dev *dev;

		choose_copy(op, p, i ? p - 1 : NULL);
		dev = p->result >= 0 ? ter_member(op->data->config.members, p->extent.ptr[p->copy].dev) : NULL;
		if (p->direct && dev && dev->bdev && (uintptr_t)p->dst % dev->bdev->info.logical_block_bytes)
			p->direct = false;
		if (!p->direct) {
			p->bounce_at = (uint32_t)bounce;
			bounce += ter_round_up(p->stored_bytes, TER_PAGE_BYTES);
		}
		if (i && in_bio < TER_BIO_IOV_MAX && continues(op, i)) {
			in_bio++;
		} else {
			bios++;
			in_bio = 1;
		}
	}
	if (bounce) {
		op->bounce = ter_bounce_get(op->data, bounce);
		op->bounce_bytes = bounce;
		if (!op->bounce)
			return -ENOMEM;
	}
	op->bios = ter_malloc(bios * sizeof(struct rd_bio) + op->pieces_nr * sizeof(struct iovec));
	*ret_bios = bios;
	return op->bios ? 0 : -ENOMEM;
}

static void submit(struct rd_op *op, unsigned bios_nr)
{
	struct rd_bio *bios = op->bios;
	struct iovec *iov = (struct iovec *)(bios + bios_nr);
	struct ter_data *data = op->data;
	unsigned b = 0;

	for (unsigned i = 0; i < op->pieces_nr; i++) {
		struct rd_piece *p = &op->pieces[i];

		iov[i] = (struct iovec){ .iov_base = p->direct ? p->dst : op->bounce + p->bounce_at, .iov_len = p->stored_bytes };
		if (i && bios[b - 1].nr < TER_BIO_IOV_MAX && continues(op, i)) {
			bios[b - 1].nr++;
			bios[b - 1].dbio.bio.iov_nr++;
			bios[b - 1].dbio.bio.bytes += p->stored_bytes;
			continue;
		}
		bios[b] = (struct rd_bio){ .op = op, .first = i, .nr = 1 };
		bios[b].dbio.bio.op = TER_BIO_READ;
		bios[b].dbio.bio.offset_bytes = piece_offset(p);
		bios[b].dbio.bio.bytes = p->stored_bytes;
		bios[b].dbio.bio.iov = &iov[i];
		bios[b].dbio.bio.iov_nr = 1;
		bios[b].dbio.done = bio_done;
		bios[b].dbio.priv = &bios[b];
		b++;
	}
	assert(b == bios_nr);
	atomic_store(&op->pending, bios_nr + 1);
	for (b = 0; b < bios_nr; b++) {
		struct rd_piece *p = &op->pieces[bios[b].first];
		uint64_t bytes = bios[b].dbio.bio.bytes;

		if (p->result < 0) { /* no member that has it is online */
			atomic_store(&op->again, true);
			op_put(op);
			continue;
		}
		atomic_fetch_add_explicit(&data->device_read_bytes, bytes, memory_order_relaxed);
		ter_dev_submit(ter_member(data->config.members, p->extent.ptr[p->copy].dev), &bios[b].dbio);
	}
	op_put(op);
}

/* Gather and go; on an error nothing was submitted and done is not called. */
static int start_op(struct rd_op *op, bool nowait)
{
	unsigned bios_nr;
	int r;

	r = ter_rd_gather_(op, nowait);
	if (r < 0)
		return r;
	if (!op->pieces_nr) {
		op->done(op);
		return 0;
	}
	r = prepare(op, &bios_nr);
	if (r < 0)
		return r;
	op->work.fn = ter_rd_slow_;
	submit(op, bios_nr);
	return 0;
}

static void read_op_done(struct rd_op *op)
{
	struct ter_read *read = op->arg;
	uint64_t end = read->offset + read->bytes_done;

	read->result = 0;
	if (op->bad_from < end) {
		read->result = op->result;
		read->bytes_done = op->bad_from - read->offset;
	}
	atomic_fetch_add_explicit(&op->data->read_bytes, read->bytes_done, memory_order_relaxed);
	ter_rd_exit_(op);
	free(op);
	read->done(read);
}

int ter_file_read(struct ter_data *data, struct ter_read *read)
{
	struct ter_file *file = read->file;
	struct rd_op *op;
	uint64_t size, to;
	int r;

	ter_lock_acquire(&file->lock);
	size = file->size;
	ter_lock_release(&file->lock);
	read->bytes_done = read->offset < size ? ter_min((uint64_t)read->bytes, size - read->offset) : 0;
	read->result = 0;
	if (!read->bytes_done) {
		read->done(read);
		return 0;
	}
	op = ter_malloc(sizeof(*op));
	if (!op)
		return -ENOMEM;
	/* The end of the last block, where the buffer has room for it: then it need not bounce. */
	to = ter_min(ter_file_block_up(data, read->offset + read->bytes_done), read->offset + read->bytes);
	ter_rd_init_(op, data, file, read->offset, to, read->buf, false);
	op->done = read_op_done;
	op->arg = read;
	r = start_op(op, read->nowait);
	if (r < 0) {
		ter_rd_exit_(op);
		free(op);
	}
	return r;
}

static void wait_done(struct ter_read *read)
{
	ter_event_set(read->priv, read->result);
}

int ter_file_read_wait(struct ter_data *data, struct ter_file *file, uint64_t offset, void *buf, size_t bytes, size_t *ret_bytes)
{
	struct ter_event event;
	struct ter_read read = { .file = file, .offset = offset, .bytes = bytes, .buf = buf, .done = wait_done, .priv = &event };
	int r;

	ter_event_init(&event);
	r = ter_file_read(data, &read);
	if (r >= 0)
		r = ter_event_wait(&event);
	ter_event_destroy(&event);
	if (r >= 0)
		*ret_bytes = read.bytes_done;
	return r;
}

static void below_op_done(struct rd_op *op)
{
	struct ter_below *below = op->arg;

	below->result = op->bad_from < UINT64_MAX ? op->result : 0;
	ter_rd_exit_(op);
	free(op);
	below->done(below);
}

int ter_read_below(struct ter_data *data, struct ter_file *file, struct ter_below *below)
{
	struct rd_op *op = ter_malloc(sizeof(*op));
	int r;

	if (!op)
		return -ENOMEM;
	ter_rd_init_(op, data, file, below->offset, below->offset + below->bytes, below->buf, true);
	op->done = below_op_done;
	op->arg = below;
	r = start_op(op, false);
	if (r < 0) {
		ter_rd_exit_(op);
		free(op);
	}
	return r;
}
