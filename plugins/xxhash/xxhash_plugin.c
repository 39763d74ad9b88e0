/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checksum `xxh3-64`: XXH3 with 64 bits and seed 0, eight bytes, little endian. */
#define XXH_STATIC_LINKING_ONLY /* XXH3_state_t on the stack */
#include <xxhash.h>

#include <errno.h>
#include <string.h>

#include "terrace-plugin.h"

#define DIGEST_BYTES 8

/* The parts' digest: the same as of one buffer with all of them, without copying them together. */
static uint64_t digest_parts(const struct iovec *iov, unsigned n)
{
	XXH3_state_t state;

	/* Neither call fails with a valid state: they check for NULL only. */
	XXH3_INITSTATE(&state);
	(void)XXH3_64bits_reset(&state);
	for (unsigned i = 0; i < n; i++)
		if (iov[i].iov_len > 0)
			(void)XXH3_64bits_update(&state, iov[i].iov_base, iov[i].iov_len);
	return XXH3_64bits_digest(&state);
}

static void xxh3_64_digest(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16)
{
	unsigned char *p = out;
	uint64_t hash;

	(void)key;
	(void)nonce16;
	hash = n == 1 ? XXH3_64bits(iov[0].iov_base, iov[0].iov_len) : digest_parts(iov, n);
	for (int i = 0; i < DIGEST_BYTES; i++)
		p[i] = (unsigned char)(hash >> (8 * i));
}

/* Known values for each of the algorithm's size classes that matter here, whole and in parts. */
static int xxh3_64_selftest(void)
{
	static const struct {
		size_t bytes;
		uint64_t hash;
	} known[] = { { 0, 0x2d06800538d394c2 }, { 9, 0x3688dcad730d826 }, { 200, 0x7c64f3b17285e96a }, { 3000, 0xf8b5749ec75008ab } };
	unsigned char buf[3000], whole[DIGEST_BYTES], parts[DIGEST_BYTES];

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (unsigned char)(i * 7 + (i >> 8));
	for (size_t k = 0; k < sizeof(known) / sizeof(*known); k++) {
		size_t first = known[k].bytes / 3;
		struct iovec iov[] = { { buf, known[k].bytes } };
		struct iovec split[] = { { buf, first }, { buf + first, known[k].bytes - first } };

		xxh3_64_digest(whole, iov, 1, NULL, NULL);
		xxh3_64_digest(parts, split, 2, NULL, NULL);
		for (int i = 0; i < DIGEST_BYTES; i++)
			if (whole[i] != (unsigned char)(known[k].hash >> (8 * i)) || parts[i] != whole[i])
				return -EBADMSG;
	}
	return 0;
}

static const struct terrace_checksum xxh3_64_checksum = {
	.algo = {
		.size = sizeof(struct terrace_checksum),
		.kind = TERRACE_CHECKSUM,
		/* 2365c76e-66ee-4c14-810b-07242c628eeb */
		.uuid = { 0x23, 0x65, 0xc7, 0x6e, 0x66, 0xee, 0x4c, 0x14, 0x81, 0x0b, 0x07, 0x24, 0x2c, 0x62, 0x8e, 0xeb },
		.name = "xxh3-64",
		.format = 1,
		.flags = TERRACE_F_DETERMINISTIC,
		.selftest = xxh3_64_selftest,
	},
	.digest_len = DIGEST_BYTES,
	.digest = xxh3_64_digest,
};

static const struct terrace_algo *const algos[] = { &xxh3_64_checksum.algo, NULL };

TERRACE_PLUGIN(.name = "xxhash", .version = TERRACE_VERSION, .licence = "LGPL-2.1-or-later",
	       .summary = "XXH3 checksums, 8 bytes", .impl = "libxxhash", .algos = algos);
