/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Algorithms for tests of the data room. */
#include "fake_algos.h"

#include <errno.h>
#include <string.h>

#include "util/crc32c.h"

static void crc_digest(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16)
{
	uint32_t crc = 0;

	for (unsigned i = 0; i < n; i++)
		crc = ter_crc32c(crc, iov[i].iov_base, iov[i].iov_len);
	memcpy(out, &crc, sizeof(crc));
}

const struct terrace_checksum fake_crc = {
	.algo = { .size = sizeof(fake_crc), .kind = TERRACE_CHECKSUM, .uuid = { 1 }, .name = "crc32c", .format = 1 },
	.digest_len = 4,
	.digest = crc_digest,
};

/* 32 bytes, as cryptographic ones have. */
static void wide_digest(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16)
{
	uint32_t words[8] = { 0 };

	for (unsigned w = 0; w < 8; w++) {
		words[w] = w * 77;
		for (unsigned i = 0; i < n; i++)
			words[w] = ter_crc32c(words[w], iov[i].iov_base, iov[i].iov_len);
	}
	memcpy(out, words, sizeof(words));
}

const struct terrace_checksum fake_wide = {
	.algo = { .size = sizeof(fake_wide), .kind = TERRACE_CHECKSUM, .uuid = { 2 }, .name = "wide", .format = 1 },
	.digest_len = 32,
	.digest = wide_digest,
};

static size_t rle_scratch(int level, size_t max_in)
{
	return 100;
}

static size_t rle_compress(void *dst, size_t cap, const void *src, size_t n, int level, void *scratch)
{
	const uint8_t *s = src;
	uint8_t *d = dst;
	size_t out = 0;

	memset(scratch, level, 100);
	for (size_t i = 0; i < n;) {
		size_t run = 1;

		while (i + run < n && run < 255 && s[i + run] == s[i])
			run++;
		if (out + 2 > cap)
			return 0;
		d[out++] = (uint8_t)run;
		d[out++] = s[i];
		i += run;
	}
	return out;
}

static int rle_decompress(void *dst, size_t exact, const void *src, size_t n, void *scratch)
{
	const uint8_t *s = src;
	uint8_t *d = dst;
	size_t out = 0;

	memset(scratch, 1, 100);
	for (size_t i = 0; out < exact; i += 2) {
		if (i + 2 > n || !s[i] || s[i] > exact - out)
			return -EBADMSG;
		memset(d + out, s[i + 1], s[i]);
		out += s[i];
	}
	return 0;
}

const struct terrace_compression fake_rle = {
	.algo = { .size = sizeof(fake_rle), .kind = TERRACE_COMPRESSION, .uuid = { 3 }, .name = "rle", .format = 1 },
	.level_min = 1, .level_def = 2, .level_max = 9,
	.scratch_bytes = rle_scratch,
	.compress = rle_compress,
	.decompress = rle_decompress,
};
