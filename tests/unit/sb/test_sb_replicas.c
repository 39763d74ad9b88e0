/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The replicas gate against a brute-force model; the table's order; labels; the algorithms' table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "sb_random.h"

/* The rule, told another way: walk over members, ask each entry. */
static struct ter_replicas_answer model(const struct sb_pair *pair, uint64_t online)
{
	struct ter_replicas_answer answer = { 0 };

	for (unsigned i = 0; i < pair->sb->replicas_nr; i++) {
		const struct ter_replicas_entry *entry = &pair->sb->replicas[i];
		unsigned there = 0, not_failed = 0;
		bool lost, degraded;

		for (unsigned idx = 0; idx < TER_DEVS_MAX; idx++)
			for (unsigned j = 0; j < entry->nr_devs; j++)
				if (entry->devs[j] == idx) {
					there += (online & UINT64_C(1) << idx) != 0;
					not_failed += pair->members->dev[idx].state != TER_DEV_FAILED;
				}
		lost = there < entry->nr_required;
		degraded = there < entry->nr_devs;
		if (!not_failed || entry->data_type == TER_DATA_CACHED)
			continue;
		if (entry->data_type == TER_DATA_SB || entry->data_type == TER_DATA_JOURNAL || entry->data_type == TER_DATA_BTREE) {
			answer.metadata_lost = answer.metadata_lost || lost;
			answer.metadata_degraded = answer.metadata_degraded || degraded;
		} else {
			answer.data_lost = answer.data_lost || lost;
			answer.data_degraded = answer.data_degraded || degraded;
		}
	}
	return answer;
}

static void the_gate_answers_as_the_model_does(void **state)
{
	struct sb_rng rng = { sb_test_seed() };
	unsigned seen[16] = { 0 }, kinds = 0;

	for (unsigned i = 0; i < 300; i++) {
		struct sb_pair pair = sb_random_new(&rng, i % 3 ? 5 : TER_DEVS_MAX);

		for (unsigned j = 0; j < 50; j++) {
			/* few missing, many missing, none missing */
			uint64_t online = sb_rng_u64(&rng) | (j % 3 ? sb_rng_u64(&rng) | sb_rng_u64(&rng) : 0) | (j ? 0 : UINT64_MAX);
			struct ter_replicas_answer want = model(&pair, online), got;

			ter_sb_replicas_check(pair.sb, pair.members, online, &got);
			assert_int_equal(got.metadata_degraded, want.metadata_degraded);
			assert_int_equal(got.data_degraded, want.data_degraded);
			assert_int_equal(got.metadata_lost, want.metadata_lost);
			assert_int_equal(got.data_lost, want.data_lost);
			if (j == 0)
				assert_false(got.metadata_degraded || got.data_degraded || got.metadata_lost || got.data_lost);
			seen[got.metadata_degraded | got.data_degraded << 1 | got.metadata_lost << 2 | got.data_lost << 3]++;
		}
		sb_pair_free(&pair);
	}
	for (unsigned i = 0; i < 16; i++)
		kinds += seen[i] != 0;
	assert_int_equal(kinds, 9); /* {nothing, degraded, degraded and lost} of each kind: all were met */
}

static struct ter_replicas_answer ask(const struct sb_pair *pair, uint64_t online)
{
	struct ter_replicas_answer answer;

	ter_sb_replicas_check(pair->sb, pair->members, online, &answer);
	return answer;
}

static void the_gate_in_plain_cases(void **state)
{
	struct sb_pair pair = sb_sample_new(); /* btree on 0 and 1, one needed; user on 0, 1 and 5, two needed */

	assert_true(ask(&pair, 1 << 1 | 1 << 5).metadata_degraded);
	assert_false(ask(&pair, 1 << 1 | 1 << 5).metadata_lost);
	assert_true(ask(&pair, 1 << 1 | 1 << 5).data_degraded);
	assert_false(ask(&pair, 1 << 1 | 1 << 5).data_lost);
	assert_true(ask(&pair, 1 << 5).metadata_lost);
	assert_true(ask(&pair, 1 << 5).data_lost);

	pair.members->dev[0].state = TER_DEV_FAILED;
	assert_true(ask(&pair, 1 << 5).metadata_lost); /* one of the set is not failed */
	pair.members->dev[1].state = TER_DEV_FAILED;
	assert_false(ask(&pair, 1 << 5).metadata_lost); /* all of the set were given up */
	assert_true(ask(&pair, 1 << 5).data_lost);
	sb_pair_free(&pair);
}

static void cached_copies_do_not_count(void **state)
{
	struct sb_pair pair = sb_sample_new();

	pair.sb->replicas_nr = 0;
	assert_int_equal(ter_sb_replicas_add(pair.sb, &(struct ter_replicas_entry){ TER_DATA_CACHED, 1, 1, { 5 } }), 0);
	assert_false(ask(&pair, 0).data_lost || ask(&pair, 0).data_degraded);
	sb_pair_free(&pair);
}

static void the_table_stays_sorted_and_has_each_entry_once(void **state)
{
	struct sb_rng rng = { sb_test_seed() };
	struct sb_pair pair = sb_random_new(&rng, TER_DEVS_MAX);
	static const struct ter_replicas_entry wrong[] = {
		{ TER_DATA_FREE, 1, 1, { 0 } }, { TER_DATA_NEED_DISCARD, 1, 1, { 0 } }, { TER_DATA_NR, 1, 1, { 0 } }, { TER_DATA_USER, 0, 0, { 0 } },
		{ TER_DATA_USER, 5, 1, { 0, 1, 2, 3 } }, { TER_DATA_USER, 1, 0, { 0 } }, { TER_DATA_USER, 1, 2, { 0 } }, { TER_DATA_USER, 2, 1, { 1, 0 } },
		{ TER_DATA_USER, 2, 1, { 1, 1 } }, { TER_DATA_USER, 1, 1, { 64 } }, { TER_DATA_USER, 1, 1, { 0, 1 } },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(ter_sb_replicas_add(pair.sb, &wrong[i]), -EINVAL);
	pair.sb->replicas_nr = 0;
	for (unsigned i = 0; i < 3000; i++) {
		struct ter_replicas_entry entry = { TER_DATA_USER, 2, 1, { (uint8_t)sb_rng_below(&rng, 20), (uint8_t)(20 + sb_rng_below(&rng, 40)) } };
		unsigned before = pair.sb->replicas_nr;
		bool had = false;

		for (unsigned j = 0; j < before; j++)
			had = had || !memcmp(&pair.sb->replicas[j], &entry, sizeof(entry));
		assert_int_equal(ter_sb_replicas_has(pair.sb, &entry), had);
		assert_int_equal(ter_sb_replicas_add(pair.sb, &entry), 0);
		assert_true(ter_sb_replicas_has(pair.sb, &entry));
		assert_int_equal(pair.sb->replicas_nr, before + !had);
		for (unsigned j = 1; j < pair.sb->replicas_nr; j++)
			assert_true(memcmp(&pair.sb->replicas[j - 1], &pair.sb->replicas[j], sizeof(entry)) < 0);
	}
	assert_in_range(pair.sb->replicas_nr, 700, 800); /* most of the 800 there are */
	sb_pair_free(&pair);
}

static void labels(void **state)
{
	static const char *const valid[] = { "", "media", "Fotos & Töne", "写真", "hdd.a", "0123456789abcdef0123456789abcdef", "\xf0\x9f\x92\xbe", "\xc2\xa0", "~",
					     "\xf4\x8f\xbf\xbf" };
	static const char *const invalid[] = {
		"0123456789abcdef0123456789abcdef0", "a/b", "/", "a\nb", "\x7f", "\x01", "\xc2\x80", "\xc2\x9f" /* C1 controls */, "\xff", "\x80",
		"\xc0\xaf" /* '/' in two bytes */, "\xe0\x80\xaf", "\xed\xa0\x80" /* a surrogate */, "\xf4\x90\x80\x80" /* beyond U+10FFFF */, "a\xe5\x86" /* cut short */,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(valid); i++) {
		struct ter_error error = { 0 };

		if (!ter_label_valid(valid[i], &error))
			fail_msg("%u: %s", i, error.text);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(invalid); i++) {
		struct ter_error error = { 0 };

		if (ter_label_valid(invalid[i], &error))
			fail_msg("%u is taken for a label", i);
		assert_int_equal(error.kind, TER_ERR_INVALID_ARGUMENT);
	}
}

/* --- algorithms --- */

static const struct terrace_checksum sum = {
	.algo = { .size = sizeof(sum), .kind = TERRACE_CHECKSUM, .uuid = { 1 }, .name = "sum", .format = 2 }, .digest_len = 4
};
static const struct terrace_checksum other_sum = {
	.algo = { .size = sizeof(sum), .kind = TERRACE_CHECKSUM, .uuid = { 2 }, .name = "other", .format = 1 }, .digest_len = 4
};
static const struct terrace_compression squeeze = {
	.algo = { .size = sizeof(squeeze), .kind = TERRACE_COMPRESSION, .uuid = { 1 }, .name = "sum", .format = 1 }, .level_max = 1
};

static void algorithms_get_slots_and_keep_them(void **state)
{
	struct ter_codecs codecs = { .nr = 3, .algo = { &sum.algo, &other_sum.algo, &squeeze.algo } };
	struct ter_sb *sb = calloc(1, sizeof(*sb));

	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_CHECKSUM, "none"), 0);
	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_CHECKSUM, "missing"), -ENOPKG);
	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_COMPRESSION, "other"), -ENOPKG);
	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_CHECKSUM, "sum"), 1);
	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_COMPRESSION, "sum"), 2); /* a kind of its own */
	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_CHECKSUM, "sum"), 1);
	assert_ptr_equal(sb->algos.slot[1].algo, &sum.algo);
	assert_int_equal(sb->algos.slot[1].format, 2);

	for (unsigned i = 3; i <= TER_ALGO_SLOTS_MAX; i++) {
		sb->algos.slot[i].kind = TERRACE_CHECKSUM;
		memset(sb->algos.slot[i].uuid, 0x80 + (int)i, 16);
	}
	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_CHECKSUM, "other"), -ENOSPC);
	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_CHECKSUM, "sum"), 1);
	ter_sb_free(sb);
}

static void a_pool_opens_only_with_all_its_algorithms(void **state)
{
	struct ter_codecs codecs = { .nr = 2, .algo = { &sum.algo, &squeeze.algo } };
	struct ter_sb *sb = calloc(1, sizeof(*sb));
	struct ter_error error = { 0 };

	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_CHECKSUM, "sum"), 1);
	sb->algos.slot[1].algo = NULL; /* as decoded */
	assert_int_equal(ter_sb_bind_algos(sb, &codecs, &error), 0);
	assert_ptr_equal(sb->algos.slot[1].algo, &sum.algo);

	sb->algos.slot[1].format = 3; /* written by a newer plugin */
	assert_int_equal(ter_sb_bind_algos(sb, &codecs, &error), -ENOPKG);
	assert_int_equal(error.kind, TER_ERR_PLUGIN_MISSING);

	sb->algos.slot[1].format = 2;
	codecs.nr = 1;
	codecs.algo[0] = &other_sum.algo;
	ter_error_clear(&error);
	assert_int_equal(ter_sb_bind_algos(sb, &codecs, &error), -ENOPKG);
	assert_non_null(strstr(error.text, "'sum'"));
	assert_non_null(strstr(error.text, "other")); /* what there is */
	ter_sb_free(sb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_gate_answers_as_the_model_does),
		cmocka_unit_test(the_gate_in_plain_cases),
		cmocka_unit_test(cached_copies_do_not_count),
		cmocka_unit_test(the_table_stays_sorted_and_has_each_entry_once),
		cmocka_unit_test(labels),
		cmocka_unit_test(algorithms_get_slots_and_keep_them),
		cmocka_unit_test(a_pool_opens_only_with_all_its_algorithms),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
