/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compression `zstd`: one frame per buffer, behind its length
 *
 * Contexts are placed in the host's scratch for each call, so libzstd never allocates and nothing stays behind between calls. The static placement also
 * keeps libzstd from its decoders of formats before 1.0.
 */
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_initStatic*, ZSTD_estimate* */
#include <zstd.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "length_prefix.h"
#include "terrace-plugin.h"

#define LEVEL_MIN (-7)
#define LEVEL_DEFAULT 3
#define LEVEL_MAX 19
#define INPUT_BYTES_MAX (1u << 30) /* the compressed size then fits the prefix whatever the input */
#define MAGIC_BYTES 4

/* libzstd has a table of parameters for inputs up to each of these sizes; within one of them, a smaller input never needs more memory. */
static const size_t tier_bytes[] = { 16 << 10, 128 << 10, 256 << 10 };

static size_t cctx_bytes(int level, size_t input_bytes)
{
	return ZSTD_estimateCCtxSize_usingCParams(ZSTD_getCParams(level, input_bytes ? input_bytes : 1, 0));
}

/* Grows with @max_in, so that scratch made for the largest input serves all smaller ones. */
static size_t zstd_scratch_bytes(int level, size_t max_in)
{
	size_t need = ZSTD_estimateDCtxSize();
	size_t bytes = cctx_bytes(level, max_in);

	if (bytes > need)
		need = bytes;
	for (size_t i = 0; i < sizeof(tier_bytes) / sizeof(*tier_bytes) && tier_bytes[i] < max_in; i++) {
		bytes = cctx_bytes(level, tier_bytes[i]);
		if (bytes > need)
			need = bytes;
	}
	return (need + 7) & ~(size_t)7; /* libzstd wants multiples of 8 */
}

static size_t zstd_compress(void *dst, size_t cap, const void *src, size_t n, int level, void *scratch)
{
	ZSTD_CCtx *cctx;
	size_t bytes;

	if (n == 0 || n > INPUT_BYTES_MAX || cap <= LENGTH_PREFIX_BYTES)
		return 0;

	cctx = ZSTD_initStaticCCtx(scratch, zstd_scratch_bytes(level, n));
	if (!cctx)
		return 0;
	bytes = ZSTD_compressCCtx(cctx, (char *)dst + LENGTH_PREFIX_BYTES, cap - LENGTH_PREFIX_BYTES, src, n, level);
	if (ZSTD_isError(bytes))
		return 0;

	length_prefix_put(dst, (uint32_t)bytes);
	return LENGTH_PREFIX_BYTES + bytes;
}

static int zstd_decompress(void *dst, size_t exact, const void *src, size_t n, void *scratch)
{
	static const unsigned char magic[MAGIC_BYTES] = { 0x28, 0xb5, 0x2f, 0xfd };
	size_t stream_bytes = length_prefix_get(src, n);
	const char *stream = (const char *)src + LENGTH_PREFIX_BYTES;
	ZSTD_DCtx *dctx;

	/* Only what zstd_compress() writes: no skippable frames, no older formats. */
	if (stream_bytes < MAGIC_BYTES || memcmp(stream, magic, MAGIC_BYTES) != 0)
		return -EBADMSG;

	dctx = ZSTD_initStaticDCtx(scratch, ZSTD_estimateDCtxSize());
	if (!dctx)
		return -EBADMSG;
	/* An error code is never equal to a size that exists: errors are the topmost values of size_t. */
	if (ZSTD_decompressDCtx(dctx, dst, exact, stream, stream_bytes) != exact)
		return -EBADMSG;
	return 0;
}

/* A frame that libzstd 1.5.4 wrote must decode for ever, and what this one writes must come back. Called once, outside the engine: may allocate. */
static int zstd_selftest(void)
{
	static const unsigned char frame[] = { 30, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 0xc8, 0xad, 0x00, 0x00, 0x70, 0x74, 0x65, 0x72,
		0x72, 0x61, 0x63, 0x65, 0x20, 0x6b, 0x65, 0x65, 0x70, 0x73, 0x20, 0x01, 0x00, 0xb7, 0xa0, 0xa6, 0x12, 0, 0 };
	char text[200], out[200], packed[200];
	void *scratch;
	size_t bytes;
	int r = 0;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = "terrace keeps "[i % 14];
	scratch = malloc(zstd_scratch_bytes(LEVEL_DEFAULT, sizeof(text)));
	if (!scratch)
		return -ENOMEM;

	memset(out, 0, sizeof(out));
	if (zstd_decompress(out, sizeof(out), frame, sizeof(frame), scratch) < 0 || memcmp(out, text, sizeof(text)) != 0)
		r = -EBADMSG;
	if (zstd_decompress(out, sizeof(out) - 1, frame, sizeof(frame), scratch) != -EBADMSG)
		r = -EBADMSG;

	memset(out, 0, sizeof(out));
	bytes = zstd_compress(packed, sizeof(packed), text, sizeof(text), LEVEL_DEFAULT, scratch);
	if (bytes == 0 || zstd_decompress(out, sizeof(out), packed, bytes, scratch) < 0 || memcmp(out, text, sizeof(text)) != 0)
		r = -EBADMSG;

	free(scratch);
	return r;
}

static const struct terrace_compression zstd_compression = {
	.algo = {
		.size = sizeof(struct terrace_compression),
		.kind = TERRACE_COMPRESSION,
		/* a4a47bfb-129e-45ad-9403-c388fa6b0a42 */
		.uuid = { 0xa4, 0xa4, 0x7b, 0xfb, 0x12, 0x9e, 0x45, 0xad, 0x94, 0x03, 0xc3, 0x88, 0xfa, 0x6b, 0x0a, 0x42 },
		.name = "zstd",
		.format = 1,
		.selftest = zstd_selftest,
	},
	.level_min = LEVEL_MIN,
	.level_def = LEVEL_DEFAULT,
	.level_max = LEVEL_MAX,
	.scratch_bytes = zstd_scratch_bytes,
	.compress = zstd_compress,
	.decompress = zstd_decompress,
};

static const struct terrace_algo *const algos[] = { &zstd_compression.algo, NULL };

TERRACE_PLUGIN(.name = "zstd", .version = TERRACE_VERSION, .licence = "LGPL-2.1-or-later",
	       .summary = "Zstandard compression, levels -7 (fast) to 19 (small)", .impl = "libzstd", .algos = algos);
