/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The registry of algorithms, slots, digests, and the option "compression". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "util/codec.h"
#include "util/crc32c.h"

static size_t scratch_bytes(int level, size_t max_in)
{
	return 0;
}

static size_t compress(void *dst, size_t cap, const void *src, size_t n, int level, void *scratch)
{
	return 0;
}

static int decompress(void *dst, size_t exact, const void *src, size_t n, void *scratch)
{
	return -EBADMSG;
}

static void digest(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16)
{
	uint32_t crc = 0;

	for (unsigned i = 0; i < n; i++)
		crc = ter_crc32c(crc, iov[i].iov_base, iov[i].iov_len);
	memcpy(out, &crc, sizeof(crc));
}

static const struct terrace_compression fast = {
	.algo = {.size = sizeof(fast), .kind = TERRACE_COMPRESSION, .uuid = {1}, .name = "fast", .format = 1},
	.level_min = -5,
	.level_def = 1,
	.level_max = 9,
	.scratch_bytes = scratch_bytes,
	.compress = compress,
	.decompress = decompress,
};

static const struct terrace_checksum sum = {
	.algo = {.size = sizeof(sum), .kind = TERRACE_CHECKSUM, .uuid = {2}, .name = "sum", .format = 1},
	.digest_len = 4,
	.digest = digest,
};

static int setup(void **state)
{
	static struct ter_codecs codecs;

	codecs = (struct ter_codecs){0};
	assert_return_code(ter_codecs_add(&codecs, &fast.algo), 0);
	assert_return_code(ter_codecs_add(&codecs, &sum.algo), 0);
	*state = &codecs;
	return 0;
}

static void algorithms_are_found_by_kind_and_name_or_uuid(void **state)
{
	struct ter_codecs *codecs = *state;

	assert_ptr_equal(ter_codecs_by_name(codecs, TERRACE_COMPRESSION, "fast"), &fast.algo);
	assert_ptr_equal(ter_codecs_by_uuid(codecs, TERRACE_CHECKSUM, sum.algo.uuid), &sum.algo);
	assert_null(ter_codecs_by_name(codecs, TERRACE_CHECKSUM, "fast"));
	assert_null(ter_codecs_by_uuid(codecs, TERRACE_COMPRESSION, sum.algo.uuid));
	assert_null(ter_codecs_by_name(codecs, TERRACE_COMPRESSION, "fas"));
}

static void doubles_and_malformed_ones_are_refused(void **state)
{
	struct ter_codecs *codecs = *state;
	struct terrace_compression c = fast;
	struct terrace_checksum s = sum;

	assert_int_equal(ter_codecs_add(codecs, &fast.algo), -EEXIST);
	c.algo.name = "other";
	assert_int_equal(ter_codecs_add(codecs, &c.algo), -EEXIST); /* same UUID */
	c.algo.name = "fast";
	c.algo.uuid[0] = 7;
	assert_int_equal(ter_codecs_add(codecs, &c.algo), -EEXIST); /* same name */

#define REFUSED(var, change)                                                                                           \
	do {                                                                                                           \
		var.algo.name = "new";                                                                                 \
		var.algo.uuid[0] = 9;                                                                                  \
		change;                                                                                                \
		assert_int_equal(ter_codecs_add(codecs, &var.algo), -EINVAL);                                          \
		c = fast;                                                                                              \
		s = sum;                                                                                               \
	} while (0)
	REFUSED(c, c.algo.name = NULL);
	REFUSED(c, c.algo.name = "");
	REFUSED(c, c.algo.name = "Upper");
	REFUSED(c, c.algo.name = "co:lon");
	REFUSED(c, c.algo.name = "none");
	REFUSED(c, c.algo.name = "abcdefghijklmnopqrstuvwxyz-01234");
	REFUSED(c, c.algo.kind = 0);
	REFUSED(c, c.algo.kind = 77);
	REFUSED(c, c.algo.size = sizeof(c) - 1);
	REFUSED(c, c.algo.size = 3);
	REFUSED(c, c.compress = NULL);
	REFUSED(c, c.decompress = NULL);
	REFUSED(c, c.scratch_bytes = NULL);
	REFUSED(c, c.level_min = 2);
	REFUSED(c, c.level_max = 0);
	REFUSED(s, s.digest = NULL);
	REFUSED(s, s.digest_len = 0);
	REFUSED(s, s.digest_len = TER_DIGEST_MAX + 1);
	assert_int_equal(ter_codecs_add(codecs, NULL), -EINVAL);
	assert_int_equal(codecs->nr, 2);
}

static void the_registry_is_bounded(void **state)
{
	static struct terrace_checksum many[TER_CODECS_MAX];
	static char name[TER_CODECS_MAX][8];
	struct ter_codecs *codecs = *state;

	for (unsigned i = 0; i < TER_CODECS_MAX; i++) {
		many[i] = sum;
		many[i].algo.uuid[0] = (uint8_t)(100 + i);
		many[i].algo.name = name[i];
		snprintf(name[i], sizeof(name[i]), "n%u", i);
		assert_int_equal(ter_codecs_add(codecs, &many[i].algo), i + 2 < TER_CODECS_MAX ? 0 : -E2BIG);
	}
}

static void a_slot_gives_its_algorithm_for_its_kind(void **state)
{
	static struct ter_algos algos;

	algos.slot[3].algo = &fast.algo;
	algos.slot[TER_ALGO_SLOTS_MAX].algo = &sum.algo;
	assert_ptr_equal(ter_algos_compression(&algos, 3), &fast);
	assert_ptr_equal(ter_algos_checksum(&algos, TER_ALGO_SLOTS_MAX), &sum);
	assert_null(ter_algos_checksum(&algos, 3));
	assert_null(ter_algos_compression(&algos, TER_ALGO_SLOTS_MAX));
	for (unsigned slot = 0; slot < 3; slot++)
		assert_null(ter_algos_compression(&algos, slot));
	assert_null(ter_algos_checksum(&algos, TER_ALGO_SLOTS_MAX + 1));
	assert_null(ter_algos_checksum(&algos, UINT32_MAX));
}

static void a_digest_is_padded_and_does_not_depend_on_the_parts(void **state)
{
	static struct ter_algos algos;
	uint8_t one[TER_DIGEST_MAX], parts[TER_DIGEST_MAX], zero[TER_DIGEST_MAX] = {0};
	struct iovec iov[3] = {{(void *)"12345", 5}, {(void *)"", 0}, {(void *)"6789", 4}};
	uint32_t crc;

	algos.slot[1].algo = &sum.algo;
	memset(one, 0xff, sizeof(one));
	ter_algos_digest(&algos, 1, "123456789", 9, one);
	memcpy(&crc, one, sizeof(crc));
	assert_int_equal(crc, 0xe3069283u);
	assert_memory_equal(one + 4, zero, TER_DIGEST_MAX - 4);
	ter_algos_digestv(&algos, 1, iov, 3, parts);
	assert_memory_equal(one, parts, TER_DIGEST_MAX);
	ter_algos_digest(&algos, 0, "123456789", 9, one);
	assert_memory_equal(one, zero, TER_DIGEST_MAX);
}

static void compression_options_are_read_and_explained(void **state)
{
	static const struct {
		const char *text, *name;
		int level;
		enum ter_error_kind kind;
	} cases[] = {
		{"none", "none", 0},
		{"fast", "fast", 1},
		{"fast:9", "fast", 9},
		{"fast:-5", "fast", -5},
		{"fast:0", "fast", 0},
		{"fast:10", NULL, 0, TER_ERR_INVALID_OPTION},
		{"fast:-6", NULL, 0, TER_ERR_INVALID_OPTION},
		{"fast:", NULL, 0, TER_ERR_INVALID_OPTION},
		{"fast:-", NULL, 0, TER_ERR_INVALID_OPTION},
		{"fast:3x", NULL, 0, TER_ERR_INVALID_OPTION},
		{"fast: 3", NULL, 0, TER_ERR_INVALID_OPTION},
		{"fast:3:4", NULL, 0, TER_ERR_INVALID_OPTION},
		{"fast:99999999999999999999", NULL, 0, TER_ERR_INVALID_OPTION},
		{"none:1", NULL, 0, TER_ERR_INVALID_OPTION},
		{"", NULL, 0, TER_ERR_INVALID_OPTION},
		{":3", NULL, 0, TER_ERR_INVALID_OPTION},
		{"Fast", NULL, 0, TER_ERR_INVALID_OPTION},
		{"abcdefghijklmnopqrstuvwxyz-0123456789", NULL, 0, TER_ERR_INVALID_OPTION},
		{"zippy", NULL, 0, TER_ERR_PLUGIN_MISSING},
		{"sum", NULL, 0, TER_ERR_PLUGIN_MISSING},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ter_compression_spec spec = {.level = 77};
		struct ter_error error = {0};
		int r = ter_compression_parse(*state, cases[i].text, &spec, &error);

		if (cases[i].name) {
			assert_return_code(r, 0);
			assert_string_equal(spec.name, cases[i].name);
			assert_int_equal(spec.level, cases[i].level);
			continue;
		}
		assert_true(r < 0 && r == error.err);
		assert_string_equal(ter_error_name(error.kind), ter_error_name(cases[i].kind));
		assert_int_equal(spec.level, 77);
		if (cases[i].kind == TER_ERR_PLUGIN_MISSING)
			assert_non_null(strstr(error.text, "none, fast"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(algorithms_are_found_by_kind_and_name_or_uuid, setup),
		cmocka_unit_test_setup(doubles_and_malformed_ones_are_refused, setup),
		cmocka_unit_test_setup(the_registry_is_bounded, setup),
		cmocka_unit_test(a_slot_gives_its_algorithm_for_its_kind),
		cmocka_unit_test(a_digest_is_padded_and_does_not_depend_on_the_parts),
		cmocka_unit_test_setup(compression_options_are_read_and_explained, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
