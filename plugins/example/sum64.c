/* SPDX-License-Identifier: MIT */
/*
 * Checksum `sum64`: a toy that shows what a plugin looks like. Do not keep data with it.
 *
 * Two running sums, as in Fletcher's checksum: one of the bytes, one of the first sum, so that the order of the bytes counts. Each byte counts one more
 * than its value, so that zeros at the end count too.
 */
#include <errno.h>
#include <string.h>

#include <terrace-plugin.h>

#define DIGEST_BYTES 8

/* All state is on the stack: any number of threads may be in here. */
static void sum64_digest(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16)
{
	uint32_t sum = 0, sum_of_sums = 0;
	unsigned char *digest = out;

	(void)key; /* key_len is 0 */
	(void)nonce16;
	for (unsigned part = 0; part < n; part++) {
		const unsigned char *bytes = iov[part].iov_base;

		for (size_t i = 0; i < iov[part].iov_len; i++) {
			sum += bytes[i] + 1u;
			sum_of_sums += sum;
		}
	}
	/* The digest lies on disk: its bytes are in the same order on every machine. */
	for (unsigned i = 0; i < 4; i++) {
		digest[i] = (unsigned char)(sum >> 8 * i);
		digest[4 + i] = (unsigned char)(sum_of_sums >> 8 * i);
	}
}

/* Worked out by hand: the bytes 1, 2, 3 count 2, 3, 4; the sums are 2, 5, 9; the sum of the sums is 16. */
static int sum64_selftest(void)
{
	static const unsigned char known[DIGEST_BYTES] = { 9, 0, 0, 0, 16, 0, 0, 0 };
	unsigned char input[] = { 1, 2, 3 }, digest[DIGEST_BYTES];
	struct iovec iov[] = { { input, 1 }, { input + 1, 2 } };

	sum64_digest(digest, iov, 2, NULL, NULL);
	return memcmp(digest, known, sizeof(known)) == 0 ? 0 : -EBADMSG;
}

static const struct terrace_checksum sum64 = {
	.algo = {
		.size = sizeof(struct terrace_checksum),
		.kind = TERRACE_CHECKSUM,
		/* 4eaf7e0a-870f-4a38-b62f-7df7670da1e8: make your own with uuidgen, once, and never change it */
		.uuid = { 0x4e, 0xaf, 0x7e, 0x0a, 0x87, 0x0f, 0x4a, 0x38, 0xb6, 0x2f, 0x7d, 0xf7, 0x67, 0x0d, 0xa1, 0xe8 },
		.name = "sum64",
		.format = 1,
		.flags = TERRACE_F_DETERMINISTIC,
		.selftest = sum64_selftest,
	},
	.digest_len = DIGEST_BYTES,
	.digest = sum64_digest,
};

static const struct terrace_algo *const algos[] = { &sum64.algo, NULL };

TERRACE_PLUGIN(.name = "sum64", .version = "1.0", .licence = "MIT", .summary = "a toy checksum, as an example", .algos = algos);
