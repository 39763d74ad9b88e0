/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The fast CRC-32C and its plain twin say the same about random input, at any alignment and however it is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "plugins/crc32c/crc32c_plain.h"
#include "plugins/terrace-plugin.h"

#define ROUNDS 4000
#define BYTES_MAX 9000

extern const struct terrace_plugin terrace_plugin_1;

static const struct terrace_checksum *crc32c(void)
{
	return (const struct terrace_checksum *)terrace_plugin_1.algos[0];
}

static uint32_t fast(const struct iovec *iov, unsigned n)
{
	uint8_t d[4];

	crc32c()->digest(d, iov, n, NULL, NULL);
	return (uint32_t)d[0] | (uint32_t)d[1] << 8 | (uint32_t)d[2] << 16 | (uint32_t)d[3] << 24;
}

static void the_check_value_is_the_standards(void **state)
{
	struct iovec iov = { (void *)"123456789", 9 };

	assert_int_equal(fast(&iov, 1), 0xe3069283);
	assert_int_equal(~crc32c_plain(~0u, "123456789", 9), 0xe3069283);
	assert_int_equal(fast(NULL, 0), 0);
}

static void both_agree_on_random_input(void **state)
{
	static uint8_t buf[BYTES_MAX + 64];
	const char *given = getenv("TER_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);

	print_message("TER_TEST_SEED=%u\n", seed);
	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t shift = (size_t)rand_r(&seed) % 64, bytes = (size_t)rand_r(&seed) % BYTES_MAX;
		size_t first = bytes ? (size_t)rand_r(&seed) % bytes : 0;
		uint8_t *at = buf + shift;
		struct iovec iov[] = { { at, first }, { at + first, bytes - first } };

		for (unsigned i = 0; i < 16; i++)
			buf[(size_t)rand_r(&seed) % sizeof(buf)] = (uint8_t)rand_r(&seed);
		assert_int_equal(fast(iov, 2), ~crc32c_plain(~0u, at, bytes));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_check_value_is_the_standards),
		cmocka_unit_test(both_agree_on_random_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
