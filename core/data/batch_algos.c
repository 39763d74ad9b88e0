/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which algorithms a batch uses: what the options say now, as slots that stand in the superblock on disk. */
#include "data/batch_priv.h"

static unsigned find_slot(const struct ter_sb *sb, enum terrace_kind kind, const char *name)
{
	for (unsigned i = 1; i <= TER_ALGO_SLOTS_MAX; i++)
		if (sb->algos.slot[i].algo && sb->algos.slot[i].kind == kind && strcmp(sb->algos.slot[i].name, name) == 0)
			return i;
	return 0;
}

/* The slot of @name; one that is new is on disk before anybody uses it (K1). */
static int get_slot(struct ter_data *data, enum terrace_kind kind, const char *name)
{
	struct ter_sb_handle *handle = data->config.sb;
	int slot, r = 0;

	if (strcmp(name, "none") == 0)
		return 0;
	ter_lock_acquire(&data->algo_lock);
	ter_lock_acquire(&handle->lock);
	slot = (int)find_slot(handle->sb, kind, name);
	if (!slot) {
		slot = ter_sb_algo_slot(handle->sb, data->config.codecs, kind, name);
		if (slot > 0)
			data->algos_unsaved = true;
	}
	ter_lock_release(&handle->lock);
	if (slot > 0 && data->algos_unsaved) {
		r = ter_sb_write(handle, NULL);
		if (r >= 0)
			data->algos_unsaved = false;
	}
	ter_lock_release(&data->algo_lock);
	return r < 0 ? r : slot;
}

static int resolve_checksum(struct ter_batch_ctx *ctx, struct batch_algos *a)
{
	const struct terrace_checksum *sum;
	int r = get_slot(ctx->data, TERRACE_CHECKSUM, a->checksum_text);

	if (r < 0)
		return r;
	a->csum_slot = (uint8_t)r;
	sum = ter_algos_checksum(&ctx->data->sb->algos, a->csum_slot);
	a->digest_bytes = sum ? (uint8_t)sum->digest_len : 0;
	a->csum_block_log2 = (uint8_t)ter_log2(sum ? ctx->data->sb->options.checksum_block : ctx->data->block_bytes);
	return 0;
}

static int resolve_compression(struct ter_batch_ctx *ctx, struct batch_algos *a)
{
	struct ter_compression_spec spec;
	size_t scratch_bytes;
	int r;

	r = ter_compression_parse(ctx->data->config.codecs, a->compression_text, &spec, NULL);
	if (r < 0)
		return r;
	r = get_slot(ctx->data, TERRACE_COMPRESSION, spec.name);
	if (r < 0)
		return r;
	a->compression_slot = (uint8_t)r;
	a->level = spec.level;
	a->compression = ter_algos_compression(&ctx->data->sb->algos, a->compression_slot);
	if (!a->compression)
		return 0;
	scratch_bytes = a->compression->scratch_bytes(a->level, TER_EXTENT_SECTORS_MAX * TER_SECTOR_BYTES);
	if (scratch_bytes > ctx->scratch_bytes) {
		void *scratch = ter_malloc_aligned(ter_round_up(scratch_bytes, TER_PAGE_BYTES), TER_PAGE_BYTES);

		if (!scratch)
			return -ENOMEM;
		free(ctx->scratch);
		ctx->scratch = scratch;
		ctx->scratch_bytes = scratch_bytes;
	}
	return 0;
}

int ter_batch_algos_(struct ter_batch_ctx *ctx)
{
	struct ter_sb_handle *handle = ctx->data->config.sb;
	struct batch_algos a = { .valid = true };
	int r;

	ter_lock_acquire(&handle->lock);
	memcpy(a.checksum_text, handle->sb->options.data_checksum.s, sizeof(a.checksum_text));
	memcpy(a.compression_text, handle->sb->options.compression.s, sizeof(a.compression_text));
	ter_lock_release(&handle->lock);
	if (ctx->algos.valid && memcmp(a.checksum_text, ctx->algos.checksum_text, sizeof(a.checksum_text)) == 0 &&
	    memcmp(a.compression_text, ctx->algos.compression_text, sizeof(a.compression_text)) == 0)
		return 0;
	r = resolve_checksum(ctx, &a);
	if (r < 0)
		return r;
	r = resolve_compression(ctx, &a);
	if (r < 0)
		return r;
	ctx->algos = a;
	return 0;
}
