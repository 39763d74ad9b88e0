/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checksum `crc32c`: the standard CRC-32C (iSCSI, RFC 3720), four bytes, little endian
 *
 * ISA-L's crc32_iscsi() is the bare register: it inverts neither its seed nor its result. The standard begins with all ones and inverts the end.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include <isa-l/crc.h>

#include "crc32c_plain.h"
#include "terrace-plugin.h"

#define DIGEST_BYTES 4
#define STEP_BYTES_MAX (1u << 30) /* crc32_iscsi() takes an int */
_Static_assert(STEP_BYTES_MAX <= INT_MAX, "a step fits crc32_iscsi()");

static uint32_t update(uint32_t crc, const void *buf, size_t bytes)
{
	unsigned char *p = (unsigned char *)buf; /* not written to: ISA-L's prototype lacks the const */

	while (bytes > 0) {
		size_t step = bytes < STEP_BYTES_MAX ? bytes : STEP_BYTES_MAX;

		crc = crc32_iscsi(p, (int)step, crc);
		p += step;
		bytes -= step;
	}
	return crc;
}

static void crc32c_digest(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16)
{
	unsigned char *p = out;
	uint32_t crc = ~0u;

	(void)key;
	(void)nonce16;
	for (unsigned i = 0; i < n; i++)
		crc = update(crc, iov[i].iov_base, iov[i].iov_len);
	crc = ~crc;

	p[0] = (unsigned char)crc;
	p[1] = (unsigned char)(crc >> 8);
	p[2] = (unsigned char)(crc >> 16);
	p[3] = (unsigned char)(crc >> 24);
}

/* The published check value, the vectors of RFC 3720 B.4, and the plain twin on lengths around the steps of the fast one. */
static int crc32c_selftest(void)
{
	static const unsigned char check[DIGEST_BYTES] = { 0x83, 0x92, 0x06, 0xe3 };
	static const unsigned char zeros32[DIGEST_BYTES] = { 0xaa, 0x36, 0x91, 0x8a };
	static const unsigned char ones32[DIGEST_BYTES] = { 0x43, 0xab, 0xa8, 0x62 };
	unsigned char buf[600], out[DIGEST_BYTES];
	struct iovec iov = { .iov_base = (void *)"123456789", .iov_len = 9 };

	crc32c_digest(out, &iov, 1, NULL, NULL);
	if (memcmp(out, check, sizeof(out)) != 0)
		return -EBADMSG;

	iov = (struct iovec){ .iov_base = buf, .iov_len = 32 };
	memset(buf, 0, 32);
	crc32c_digest(out, &iov, 1, NULL, NULL);
	if (memcmp(out, zeros32, sizeof(out)) != 0)
		return -EBADMSG;
	memset(buf, 0xff, 32);
	crc32c_digest(out, &iov, 1, NULL, NULL);
	if (memcmp(out, ones32, sizeof(out)) != 0)
		return -EBADMSG;

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (unsigned char)(i * 31 + (i >> 3));
	for (size_t bytes = 0; bytes + 8 <= sizeof(buf); bytes++) {
		const unsigned char *at = buf + (bytes & 7);

		if (update(~0u, at, bytes) != crc32c_plain(~0u, at, bytes))
			return -EBADMSG;
	}
	return 0;
}

static const struct terrace_checksum crc32c_checksum = {
	.algo = {
		.size = sizeof(struct terrace_checksum),
		.kind = TERRACE_CHECKSUM,
		/* 80b2ae4a-e537-4ea2-9b71-d557a99be828 */
		.uuid = { 0x80, 0xb2, 0xae, 0x4a, 0xe5, 0x37, 0x4e, 0xa2, 0x9b, 0x71, 0xd5, 0x57, 0xa9, 0x9b, 0xe8, 0x28 },
		.name = "crc32c",
		.format = 1,
		.flags = TERRACE_F_DETERMINISTIC,
		.selftest = crc32c_selftest,
	},
	.digest_len = DIGEST_BYTES,
	.digest = crc32c_digest,
};

static const struct terrace_algo *const algos[] = { &crc32c_checksum.algo, NULL };

TERRACE_PLUGIN(.name = "crc32c", .version = TERRACE_VERSION, .licence = "LGPL-2.1-or-later",
	       .summary = "CRC-32C checksums, 4 bytes", .impl = "isa-l", .algos = algos);
