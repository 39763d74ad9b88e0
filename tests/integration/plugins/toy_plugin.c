/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A toy compression (runs of bytes) and a toy checksum, sound or broken in one way, for the test of terrace-plugin-check.
 *
 * TOY says in which way; 0 is sound, and shows that the others are refused for what is broken and not for being toys.
 * A stream is its length in four bytes, then pairs of a count (1 to 255) and a byte.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/length_prefix.h"
#include "plugins/terrace-plugin.h"

#define SCRATCH_BYTES 64

static size_t toy_scratch_bytes(int level, size_t max_in)
{
	return SCRATCH_BYTES;
}

static size_t toy_compress(void *dst, size_t cap, const void *src, size_t n, int level, void *scratch)
{
	const unsigned char *in = src;
	unsigned char *out = dst;
	size_t used = LENGTH_PREFIX_BYTES;

	if (n == 0)
		return 0;
	memset(scratch, 0, SCRATCH_BYTES);
#if TOY == 2 /* ignores-room: looks only after it wrote */
	cap += 2;
#endif
#if TOY == 5 /* wants-more-scratch */
	memset(scratch, 0, SCRATCH_BYTES + 4096);
#endif
	if (cap < LENGTH_PREFIX_BYTES)
		return 0;
	for (size_t at = 0; at < n;) {
		size_t run = 1;

		while (at + run < n && run < 255 && in[at + run] == in[at])
			run++;
		if (cap - used < 2)
			return 0;
		out[used++] = (unsigned char)run;
		out[used++] = in[at];
		at += run;
	}
	length_prefix_put(dst, (uint32_t)(used - LENGTH_PREFIX_BYTES));
	return used;
}

static int toy_decompress(void *dst, size_t exact, const void *src, size_t n, void *scratch)
{
	const unsigned char *in = src;
	unsigned char *out = dst;
	size_t stream_bytes = length_prefix_get(src, n), done = 0;

#if TOY == 1 /* overread: believes the length */
	if (n >= LENGTH_PREFIX_BYTES)
		stream_bytes = (size_t)in[0] | (size_t)in[1] << 8 | (size_t)in[2] << 16;
#endif
#if TOY == 4 /* dislikes-padding */
	if (stream_bytes != n - LENGTH_PREFIX_BYTES)
		return -EBADMSG;
#endif
#if TOY == 7 /* odd-answer */
	if (stream_bytes == 0)
		return -EINVAL;
#endif
#if TOY == 10 /* aborts */
	if (stream_bytes == 0)
		abort();
#endif
	if (stream_bytes == 0 || stream_bytes % 2 != 0)
		return -EBADMSG;
	for (size_t at = LENGTH_PREFIX_BYTES; at < LENGTH_PREFIX_BYTES + stream_bytes; at += 2) {
		size_t run = in[at];

		if (run == 0)
			return -EBADMSG;
		if (run > exact - done) {
#if TOY == 6 /* any-size */
			memset(out + done, in[at + 1], exact - done);
			return 0;
#endif
			return -EBADMSG;
		}
		memset(out + done, in[at + 1], run);
		done += run;
	}
#if TOY == 3 /* loses-a-byte */
	if (exact % 2 != 0)
		out[exact - 1] ^= 1;
#endif
	return done == exact ? 0 : -EBADMSG;
}

static void toy_digest(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (unsigned part = 0; part < n; part++) {
#if TOY == 8 /* sum-of-parts: where it is cut shows */
		hash = (hash ^ part) * 0x100000001b3;
#endif
		for (size_t i = 0; i < iov[part].iov_len; i++) {
#if TOY == 9 /* deaf: to the lowest bit */
			hash = (hash ^ (((const unsigned char *)iov[part].iov_base)[i] & 0xfe)) * 0x100000001b3;
#else
			hash = (hash ^ ((const unsigned char *)iov[part].iov_base)[i]) * 0x100000001b3;
#endif
		}
	}
	for (int i = 0; i < 8; i++)
		((unsigned char *)out)[i] = (unsigned char)(hash >> 8 * i);
}

static int nothing_to_test(void)
{
	return 0;
}

static const struct terrace_compression compression = {
	.algo = {
		.size = sizeof(struct terrace_compression),
		.kind = TERRACE_COMPRESSION,
		.uuid = { 0xdd, 0xaa, 0xf0, 0xed, 0xb6, 0xf8, 0x47, 0xfb, 0xba, 0x2b, 0x8c, 0x2c, 0x87, 0x9f, 0x52, 0xe8 },
		.name = "toy-runs",
		.format = 1,
		.flags = TERRACE_F_DETERMINISTIC,
		.selftest = nothing_to_test,
	},
	.level_min = 1, .level_def = 1, .level_max = 1,
	.scratch_bytes = toy_scratch_bytes, .compress = toy_compress, .decompress = toy_decompress,
};

static const struct terrace_checksum checksum = {
	.algo = {
		.size = sizeof(struct terrace_checksum),
		.kind = TERRACE_CHECKSUM,
		.uuid = { 0xe3, 0xdc, 0x85, 0xe8, 0xa8, 0x35, 0x45, 0x76, 0xb6, 0x83, 0xe2, 0x0d, 0x10, 0x7e, 0x1d, 0x73 },
		.name = "toy-fnv",
		.format = 1,
		.flags = TERRACE_F_DETERMINISTIC,
		.selftest = nothing_to_test,
	},
	.digest_len = 8, .digest = toy_digest,
};

static const struct terrace_algo *const algos[] = { &compression.algo, &checksum.algo, NULL };

TERRACE_PLUGIN(.name = TOY_NAME, .version = "1", .licence = "LGPL-2.1-or-later", .summary = "for tests", .algos = algos);
