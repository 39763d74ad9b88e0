/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compression `lz4`: one LZ4 block per buffer, behind its length
 *
 * Level 1 is LZ4's own speed; each level below trades size for more speed (LZ4's "acceleration", which is 2 minus the level).
 */
#include <lz4.h>

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "length_prefix.h"
#include "terrace-plugin.h"

#define LEVEL_MIN (-8)
#define LEVEL_MAX 1

static int acceleration(int level)
{
	return 2 - level;
}

static size_t lz4_scratch_bytes(int level, size_t max_in)
{
	(void)level;
	(void)max_in;
	return (size_t)LZ4_sizeofState();
}

static size_t lz4_compress(void *dst, size_t cap, const void *src, size_t n, int level, void *scratch)
{
	size_t room;
	int bytes;

	if (n == 0 || n > LZ4_MAX_INPUT_SIZE || cap <= LENGTH_PREFIX_BYTES)
		return 0;

	room = cap - LENGTH_PREFIX_BYTES;
	bytes = LZ4_compress_fast_extState(scratch, src, (char *)dst + LENGTH_PREFIX_BYTES, (int)n, room > INT_MAX ? INT_MAX : (int)room,
					   acceleration(level));
	if (bytes <= 0)
		return 0;

	length_prefix_put(dst, (uint32_t)bytes);
	return LENGTH_PREFIX_BYTES + (size_t)bytes;
}

static int lz4_decompress(void *dst, size_t exact, const void *src, size_t n, void *scratch)
{
	size_t stream_bytes = length_prefix_get(src, n);

	(void)scratch;
	if (stream_bytes == 0 || stream_bytes > INT_MAX || exact > LZ4_MAX_INPUT_SIZE)
		return -EBADMSG;
	if (LZ4_decompress_safe((const char *)src + LENGTH_PREFIX_BYTES, dst, (int)stream_bytes, (int)exact) != (int)exact)
		return -EBADMSG;
	return 0;
}

/* A block that liblz4 1.9.4 wrote must decode for ever, and what this one writes must come back. Called once, outside the engine: may allocate. */
static int lz4_selftest(void)
{
	static const unsigned char block[] = { 24, 0, 0, 0, 0xef, 0x74, 0x65, 0x72, 0x72, 0x61, 0x63, 0x65, 0x20, 0x6b, 0x65, 0x65, 0x70,
		0x73, 0x20, 0x0e, 0x00, 0xa2, 0x50, 0x20, 0x74, 0x65, 0x72, 0x72, 0, 0 };
	char text[200], out[200], packed[200];
	void *scratch;
	size_t bytes;
	int r = 0;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = "terrace keeps "[i % 14];
	scratch = malloc(lz4_scratch_bytes(LEVEL_MAX, sizeof(text)));
	if (!scratch)
		return -ENOMEM;

	memset(out, 0, sizeof(out));
	if (lz4_decompress(out, sizeof(out), block, sizeof(block), scratch) < 0 || memcmp(out, text, sizeof(text)) != 0)
		r = -EBADMSG;
	if (lz4_decompress(out, sizeof(out) - 1, block, sizeof(block), scratch) != -EBADMSG)
		r = -EBADMSG;

	memset(out, 0, sizeof(out));
	bytes = lz4_compress(packed, sizeof(packed), text, sizeof(text), LEVEL_MAX, scratch);
	if (bytes == 0 || lz4_decompress(out, sizeof(out), packed, bytes, scratch) < 0 || memcmp(out, text, sizeof(text)) != 0)
		r = -EBADMSG;

	free(scratch);
	return r;
}

static const struct terrace_compression lz4_compression = {
	.algo = {
		.size = sizeof(struct terrace_compression),
		.kind = TERRACE_COMPRESSION,
		/* d5211771-f114-40ba-8bcc-9166bfda6e20 */
		.uuid = { 0xd5, 0x21, 0x17, 0x71, 0xf1, 0x14, 0x40, 0xba, 0x8b, 0xcc, 0x91, 0x66, 0xbf, 0xda, 0x6e, 0x20 },
		.name = "lz4",
		.format = 1,
		.selftest = lz4_selftest,
	},
	.level_min = LEVEL_MIN,
	.level_def = LEVEL_MAX,
	.level_max = LEVEL_MAX,
	.scratch_bytes = lz4_scratch_bytes,
	.compress = lz4_compress,
	.decompress = lz4_decompress,
};

static const struct terrace_algo *const algos[] = { &lz4_compression.algo, NULL };

TERRACE_PLUGIN(.name = "lz4", .version = TERRACE_VERSION, .licence = "LGPL-2.1-or-later",
	       .summary = "LZ4 compression, levels -8 (fastest) to 1", .impl = "liblz4", .algos = algos);
