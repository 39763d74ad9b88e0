/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CRC-32C with the SSE 4.2 instruction where the CPU has it, else by a table a byte at a time. */
#include "util/crc32c.h"

#include <pthread.h>

#define CRC32C_POLY_REVERSED 0x82f63b78u

static uint32_t crc_table[256];
static pthread_once_t crc_table_once = PTHREAD_ONCE_INIT;

static void make_table(void)
{
	for (uint32_t i = 0; i < ARRAY_SIZE(crc_table); i++) {
		uint32_t crc = i;

		for (unsigned bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? CRC32C_POLY_REVERSED : 0);
		crc_table[i] = crc;
	}
}

uint32_t ter_crc32c_table(uint32_t seed, const void *buf, size_t n)
{
	const uint8_t *p = buf;
	uint32_t crc = ~seed;

	(void)pthread_once(&crc_table_once, make_table); /* fails only for a bad control word */
	for (size_t i = 0; i < n; i++)
		crc = crc_table[(crc ^ p[i]) & 0xff] ^ (crc >> 8);
	return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t seed, const void *buf, size_t n)
{
	const uint8_t *p = buf;
	uint64_t crc = (uint32_t)~seed;
	uint64_t word;

	for (; n >= sizeof(word); n -= sizeof(word), p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		crc = __builtin_ia32_crc32di(crc, word);
	}
	for (; n; n--, p++)
		crc = __builtin_ia32_crc32qi((uint32_t)crc, *p);
	return ~(uint32_t)crc;
}

uint32_t ter_crc32c(uint32_t seed, const void *buf, size_t n)
{
	if (__builtin_cpu_supports("sse4.2"))
		return crc32c_sse42(seed, buf, n);
	return ter_crc32c_table(seed, buf, n);
}
#else
uint32_t ter_crc32c(uint32_t seed, const void *buf, size_t n)
{
	return ter_crc32c_table(seed, buf, n);
}
#endif
