/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options table, its texts, its ranges and its relations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "sb_random.h"

static unsigned any_when(const struct ter_option_info *info)
{
	for (unsigned when = TER_OPT_FORMAT; when <= TER_OPT_RUNTIME; when <<= 1)
		if (info->settable & when)
			return when;
	fail_msg("%s can never be set", info->name);
	return 0;
}

static void the_table_is_sound(void **state)
{
	for (const struct ter_option_info *a = ter_option_table; a->name; a++) {
		assert_ptr_equal(ter_option_find(a->name), a);
		assert_ptr_equal(ter_option_by_id(a->id), a);
		assert_true(a->scope == TER_OPT_FS || a->scope == TER_OPT_DEV);
		assert_true(a->offset + a->bytes <= sizeof(struct ter_options));
		assert_true(a->help && *a->help && a->unit);
		for (const struct ter_option_info *b = ter_option_table; b < a; b++) {
			assert_int_not_equal(a->id, b->id);
			assert_true(a->offset >= b->offset + b->bytes || b->offset >= a->offset + a->bytes);
		}
		if (a->type == TER_OPT_ALGO) {
			assert_non_null(a->def_text);
			assert_true(ter_option_valid_text(a, a->def_text));
			assert_int_equal(a->bytes, sizeof(ter_opt_algo));
		} else {
			assert_null(a->def_text);
			assert_true(a->min <= a->def && a->def <= a->max);
			assert_true(ter_option_valid_u64(a, a->def));
			assert_true(a->bytes == 8 || a->max < UINT64_C(1) << (8 * a->bytes));
		}
	}
	assert_null(ter_option_find("no_such_option"));
	assert_null(ter_option_find(""));
	assert_null(ter_option_by_id(0));
	assert_null(ter_option_by_id(TER_OPTION_ID_MAX));
}

static void ids_are_what_is_on_disk(void **state)
{
	static const struct { unsigned id; const char *name; } rows[] = {
		{ 1, "block_size" }, { 2, "bucket_size" }, { 3, "btree_node_size" }, { 4, "metadata_replicas" }, { 5, "data_replicas" },
		{ 6, "metadata_replicas_required" }, { 7, "data_replicas_required" }, { 8, "metadata_checksum" }, { 9, "data_checksum" },
		{ 10, "compression" }, { 11, "extent_max" }, { 12, "checksum_block" }, { 13, "inline_data_max" }, { 14, "journal_flush_ms" },
		{ 15, "journal_data_max" }, { 16, "memory_limit" }, { 17, "gc_reserve_percent" }, { 18, "errors" }, { 19, "degraded" },
		{ 20, "journal_size" }, { 21, "fsck_memory" }, { 32, "discard" }, { 33, "durability" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_non_null(ter_option_by_id(rows[i].id));
		assert_string_equal(ter_option_by_id(rows[i].id)->name, rows[i].name);
	}
}

static void defaults_are_the_table_s_and_fit_together(void **state)
{
	struct ter_options opts;
	char text[TER_OPT_ALGO_MAX];

	memset(&opts, 0xff, sizeof(opts));
	ter_options_default(&opts);
	for (const struct ter_option_info *info = ter_option_table; info->name; info++) {
		assert_int_equal(ter_option_get_text(&opts, info, text, sizeof(text)), 0);
		if (info->type == TER_OPT_ALGO)
			assert_string_equal(text, info->def_text);
		else
			assert_int_equal(ter_option_get_u64(&opts, info), info->def);
	}
	assert_int_equal(ter_options_check(&opts, NULL), 0);
	assert_int_equal(opts.block_size, 4096);
	assert_int_equal(opts.memory_limit, TER_MIB(256));
	assert_int_equal(opts.errors, TER_ERRORS_FIX_SAFE);
	assert_int_equal(opts.degraded, TER_DEGRADED_ASK);
	assert_string_equal(opts.data_checksum.s, "crc32c");
	assert_string_equal(opts.compression.s, "none");
}

static void round_trip_u64(const struct ter_option_info *info, uint64_t value)
{
	struct ter_options opts, back;
	char text[TER_OPT_ALGO_MAX];
	unsigned when = any_when(info);

	ter_options_default(&opts);
	ter_options_default(&back);
	assert_int_equal(ter_option_set_u64(&opts, info->name, value, when, NULL), 0);
	assert_int_equal(ter_option_get_u64(&opts, info), value);
	assert_int_equal(ter_option_get_text(&opts, info, text, sizeof(text)), 0);
	assert_int_equal(ter_option_set_text(&back, info->name, text, when, NULL, NULL), 0);
	assert_memory_equal(&opts, &back, sizeof(opts)); /* the value, and no other */
}

static void round_trip_text(const struct ter_option_info *info, const char *value)
{
	struct ter_options opts;
	char text[TER_OPT_ALGO_MAX];

	ter_options_default(&opts);
	assert_int_equal(ter_option_set_text(&opts, info->name, value, any_when(info), NULL, NULL), 0);
	assert_int_equal(ter_option_get_text(&opts, info, text, sizeof(text)), 0);
	assert_string_equal(text, value);
}

static void every_row_is_parsed_and_printed_alike(void **state)
{
	struct sb_rng rng = { sb_test_seed() };

	for (const struct ter_option_info *info = ter_option_table; info->name; info++) {
		if (info->type == TER_OPT_ALGO) {
			round_trip_text(info, "none");
			round_trip_text(info, "crc32c");
			round_trip_text(info, "a-31-letter-name-0123456789abcd");
			continue;
		}
		round_trip_u64(info, info->min);
		round_trip_u64(info, info->max);
		round_trip_u64(info, info->def);
		for (unsigned i = 0; i < 200; i++) {
			uint64_t value = info->min + sb_rng_below(&rng, info->max - info->min + 1);

			if (info->settable & TER_OPT_POW2)
				value = value ? UINT64_C(1) << ter_log2(value) : 0;
			if (value >= info->min)
				round_trip_u64(info, value);
		}
	}
	round_trip_text(ter_option_find("compression"), "zstd:3");
	round_trip_text(ter_option_find("compression"), "zstd:-22");
	round_trip_text(ter_option_find("degraded"), "very");
}

static void expect_refused(const char *name, const char *text, unsigned when, const char *named)
{
	struct ter_options opts, before;
	struct ter_error error = { 0 };

	ter_options_default(&opts);
	before = opts;
	assert_int_equal(ter_option_set_text(&opts, name, text, when, NULL, &error), -EINVAL);
	assert_int_equal(error.kind, TER_ERR_INVALID_OPTION);
	if (!strstr(error.text, name) || !strstr(error.text, named))
		fail_msg("'%s' does not name '%s' and '%s'", error.text, name, named);
	assert_memory_equal(&opts, &before, sizeof(opts));
}

static void values_outside_the_range_are_refused(void **state)
{
	char text[32];

	for (const struct ter_option_info *info = ter_option_table; info->name; info++) {
		struct ter_options opts, before;
		unsigned when = any_when(info);

		ter_options_default(&opts);
		before = opts;
		if (info->type == TER_OPT_ALGO) {
			assert_int_equal(ter_option_set_u64(&opts, info->name, 0, when, NULL), -EINVAL);
			continue;
		}
		assert_int_equal(ter_option_set_u64(&opts, info->name, info->max + 1, when, NULL), -EINVAL);
		assert_int_equal(ter_option_set_u64(&opts, info->name, UINT64_MAX, when, NULL), -EINVAL);
		if (info->min)
			assert_int_equal(ter_option_set_u64(&opts, info->name, info->min - 1, when, NULL), -EINVAL);
		if (info->settable & TER_OPT_POW2)
			assert_int_equal(ter_option_set_u64(&opts, info->name, info->max - 1, when, NULL), -EINVAL);
		assert_memory_equal(&opts, &before, sizeof(opts));

		(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)info->max + 1);
		expect_refused(info->name, text, when, text);
		expect_refused(info->name, "", when, "cannot be");
		expect_refused(info->name, "-1", when, "-1");
		expect_refused(info->name, "1x", when, "1x");
		expect_refused(info->name, " 1", when, " 1");
		expect_refused(info->name, "18446744073709551616", when, "18446744073709551616"); /* 2^64 is not 0 */
		expect_refused(info->name, "18446744073709551617", when, "18446744073709551617");
		expect_refused(info->name, "18446744073709551620", when, "18446744073709551620"); /* nor is this 4 */
	}
	expect_refused("errors", "panic", TER_OPT_FORMAT, "continue,fix_safe,ro");
	expect_refused("errors", "r", TER_OPT_FORMAT, "r");
	expect_refused("degraded", "yes,very", TER_OPT_FORMAT, "yes,very");
	expect_refused("discard", "maybe", TER_OPT_FORMAT, "yes or no");
	expect_refused("no_such", "1", TER_OPT_FORMAT, "no_such");
}

static void sizes_take_suffixes(void **state)
{
	static const struct { const char *text; int r; uint64_t value; } cases[] = {
		{ "64M", 0, TER_MIB(64) }, { "64m", 0, TER_MIB(64) }, { "64MiB", 0, TER_MIB(64) }, { "1G", 0, TER_GIB(1) }, { "1T", 0, UINT64_C(1) << 40 },
		{ "67108864", 0, TER_MIB(64) }, { "65536K", 0, TER_MIB(64) }, { "64MB", -EINVAL, 0 }, { "64Mi", -EINVAL, 0 }, { "M", -EINVAL, 0 },
		{ "64 M", -EINVAL, 0 }, { "64MM", -EINVAL, 0 }, { "2T", -EINVAL, 0 }, { "16777217T", -EINVAL, 0 } /* wraps to 1T */, { "64X", -EINVAL, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ter_options opts;

		ter_options_default(&opts);
		assert_int_equal(ter_option_set_text(&opts, "memory_limit", cases[i].text, TER_OPT_OPEN, NULL, NULL), cases[i].r);
		assert_int_equal(opts.memory_limit, cases[i].r ? TER_MIB(256) : cases[i].value);
	}
}

static void an_option_is_set_only_when_it_may_be(void **state)
{
	for (const struct ter_option_info *info = ter_option_table; info->name; info++)
		for (unsigned when = TER_OPT_FORMAT; when <= TER_OPT_RUNTIME; when <<= 1) {
			struct ter_options opts;
			char text[TER_OPT_ALGO_MAX];

			ter_options_default(&opts);
			assert_int_equal(ter_option_get_text(&opts, info, text, sizeof(text)), 0);
			assert_int_equal(ter_option_set_text(&opts, info->name, text, when, NULL, NULL), info->settable & when ? 0 : -EINVAL);
			if (info->type != TER_OPT_ALGO)
				assert_int_equal(ter_option_set_u64(&opts, info->name, info->def, when, NULL), info->settable & when ? 0 : -EINVAL);
		}
	expect_refused("block_size", "4K", TER_OPT_RUNTIME, "at format");
	expect_refused("memory_limit", "64M", TER_OPT_RUNTIME, "at start");
	expect_refused("discard", "no", TER_OPT_OPEN, "while it runs");
}

static void algorithm_names_are_checked(void **state)
{
	static const char *const wrong[] = { "", "ZSTD", "zstd ", "zstd:", "zstd:x", "zstd:3 ", "zstd:--3", "zstd:+3", "zstd:3:3", "zstd:12345", "none:1", ":3", "zs/td",
					     "a-32-letter-name-0123456789abcde", "a-very-long-name-that-does-not-fit-into-the-option-at-all" };
	const struct ter_option_info *compression = ter_option_find("compression");

	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_false(ter_option_valid_text(compression, wrong[i]));
		expect_refused("compression", wrong[i], TER_OPT_RUNTIME, "compression");
	}
	expect_refused("data_checksum", "crc32c:1", TER_OPT_RUNTIME, "checksum"); /* checksums have no level */
}

static const struct terrace_checksum known_checksum = {
	.algo = { .size = sizeof(known_checksum), .kind = TERRACE_CHECKSUM, .uuid = { 1 }, .name = "known", .format = 1 }, .digest_len = 4
};
static const struct terrace_compression known_compression = {
	.algo = { .size = sizeof(known_compression), .kind = TERRACE_COMPRESSION, .uuid = { 2 }, .name = "squeeze", .format = 1 },
	.level_min = 1, .level_def = 2, .level_max = 3,
};

static void algorithms_must_be_loaded(void **state)
{
	struct ter_codecs codecs = { .nr = 2, .algo = { &known_checksum.algo, &known_compression.algo } };
	static const struct { const char *name, *value; enum ter_error_kind kind; } cases[] = {
		{ "data_checksum", "known", TER_ERR_NONE }, { "data_checksum", "none", TER_ERR_NONE }, { "data_checksum", "squeeze", TER_ERR_PLUGIN_MISSING },
		{ "data_checksum", "other", TER_ERR_PLUGIN_MISSING }, { "compression", "squeeze", TER_ERR_NONE }, { "compression", "squeeze:3", TER_ERR_NONE },
		{ "compression", "none", TER_ERR_NONE }, { "compression", "squeeze:4", TER_ERR_INVALID_OPTION }, { "compression", "known", TER_ERR_PLUGIN_MISSING },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ter_options opts;
		struct ter_error error = { 0 };

		ter_options_default(&opts);
		int r = ter_option_set_text(&opts, cases[i].name, cases[i].value, TER_OPT_FORMAT, &codecs, &error);

		assert_int_equal(error.kind, cases[i].kind);
		assert_int_equal(r < 0, cases[i].kind != TER_ERR_NONE);
	}
}

static void relations_are_checked(void **state)
{
	for (unsigned i = 0;; i++) {
		struct ter_options opts;
		struct ter_error error = { 0 };
		const char *named[2] = { "", "" };

		ter_options_default(&opts);
		switch (i) {
		case 0:
			opts.metadata_replicas_required = 2;
			named[0] = "metadata_replicas_required", named[1] = "'metadata_replicas'";
			break;
		case 1:
			opts.data_replicas = 2, opts.data_replicas_required = 3;
			named[0] = "data_replicas_required", named[1] = "'data_replicas'";
			break;
		case 2:
			opts.bucket_size = 131072;
			named[0] = "btree_node_size", named[1] = "bucket_size";
			break;
		case 3:
			opts.block_size = 65536, opts.btree_node_size = 32768, opts.checksum_block = 65536;
			named[0] = "block_size", named[1] = "btree_node_size";
			break;
		case 4:
			opts.block_size = 8192;
			named[0] = "block_size", named[1] = "checksum_block";
			break;
		case 5:
			opts.checksum_block = 65536, opts.extent_max = 32768;
			named[0] = "checksum_block", named[1] = "extent_max";
			break;
		case 6:
			opts.bucket_size = 32768, opts.btree_node_size = 16384;
			named[0] = "bucket_size";
			break;
		case 7:
			strcpy(opts.metadata_checksum.s, "none");
			named[0] = "metadata_checksum";
			break;
		default:
			assert_int_equal(i, 8);
			return;
		}
		assert_int_equal(ter_options_check(&opts, &error), -EINVAL);
		assert_int_equal(error.kind, TER_ERR_INVALID_OPTION);
		if (!strstr(error.text, named[0]) || !strstr(error.text, named[1]))
			fail_msg("%u: %s", i, error.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_is_sound),
		cmocka_unit_test(ids_are_what_is_on_disk),
		cmocka_unit_test(defaults_are_the_table_s_and_fit_together),
		cmocka_unit_test(every_row_is_parsed_and_printed_alike),
		cmocka_unit_test(values_outside_the_range_are_refused),
		cmocka_unit_test(sizes_take_suffixes),
		cmocka_unit_test(an_option_is_set_only_when_it_may_be),
		cmocka_unit_test(algorithm_names_are_checked),
		cmocka_unit_test(algorithms_must_be_loaded),
		cmocka_unit_test(relations_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
