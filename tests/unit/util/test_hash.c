/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CRC-32C and SipHash against published answers; the instruction against the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/crc32c.h"
#include "util/siphash.h"

static void crc32c_gives_the_known_answers(void **state)
{
	uint8_t buf[32];

	assert_int_equal(ter_crc32c(0, "123456789", 9), 0xe3069283u);
	assert_int_equal(ter_crc32c(0, "", 0), 0);
	memset(buf, 0, sizeof(buf)); /* RFC 3720, B.4 */
	assert_int_equal(ter_crc32c(0, buf, sizeof(buf)), 0x8a9136aau);
	memset(buf, 0xff, sizeof(buf));
	assert_int_equal(ter_crc32c(0, buf, sizeof(buf)), 0x62a8ab43u);
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)i;
	assert_int_equal(ter_crc32c(0, buf, sizeof(buf)), 0x46dd794eu);
}

static void both_crc32c_agree_and_chain(void **state)
{
	uint8_t buf[300];
	uint32_t x = 1;

	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
	for (unsigned from = 0; from < 9; from++) {
		for (unsigned n = 0; n + from <= sizeof(buf); n++) {
			uint32_t crc = ter_crc32c(n, buf + from, n);

			assert_int_equal(crc, ter_crc32c_table(n, buf + from, n));
			assert_int_equal(crc,
					 ter_crc32c(ter_crc32c(n, buf + from, n / 3), buf + from + n / 3, n - n / 3));
		}
	}
}

/* The first and some more of the vectors in the reference implementation: key 00..0f, message 00, 01, .. of n bytes. */
static void siphash_gives_the_known_answers(void **state)
{
	static const struct {
		unsigned n;
		uint64_t hash;
	} known[] = {
		{0, 0x726fdb47dd0e0e31ull}, {1, 0x74f839c593dc67fdull}, {2, 0x0d6c8009d9a94f5aull},
		{7, 0xab0200f58b01d137ull}, {8, 0x93f5f5799a932462ull}, {15, 0xa129ca6149be45e5ull},
	};
	uint8_t key[16], message[16];

	for (unsigned i = 0; i < 16; i++)
		key[i] = message[i] = (uint8_t)i;
	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		assert_true(ter_siphash(key, message, known[i].n) == known[i].hash);
	key[15] ^= 1;
	assert_true(ter_siphash(key, message, 15) != known[5].hash);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc32c_gives_the_known_answers),
		cmocka_unit_test(both_crc32c_agree_and_chain),
		cmocka_unit_test(siphash_gives_the_known_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
