/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Extents: values survive encoding, hostile ones are refused field by field, cuts keep every byte where it was. */
#include "data_rig.h"

#include "fake_algos.h"

static struct ter_sb *make_sb(void)
{
	struct ter_sb *sb = calloc(1, sizeof(*sb));
	struct ter_codecs codecs = { 0 };

	assert_int_equal(ter_codecs_add(&codecs, &fake_crc.algo), 0);
	assert_int_equal(ter_codecs_add(&codecs, &fake_rle.algo), 0);
	ter_options_default(&sb->options);
	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_CHECKSUM, "crc32c"), 1);
	assert_int_equal(ter_sb_algo_slot(sb, &codecs, TERRACE_COMPRESSION, "rle"), 2);
	return sb;
}

static struct ter_extent make_extent(uint8_t *csums)
{
	struct ter_extent e = {
		.start = 800, .sectors = 64, .nr_ptrs = 2, .nr_required = 1, .csum_slot = 1, .csum_block_log2 = 12, .digest_bytes = 4, .csums_nr = 8,
		.stored_sectors = 64, .raw_sectors = 64, .csums = csums,
		.ptr = { { .sector = 4096, .gen = 3, .dev = 5 }, { .sector = 8, .gen = 1, .dev = 0 } },
	};

	for (unsigned i = 0; i < 32; i++)
		csums[i] = (uint8_t)i;
	return e;
}

static struct ter_key make_key(const struct ter_extent *e, void *val)
{
	return (struct ter_key){ .pos = TER_POS(77, e->start + e->sectors, TER_SNAPSHOT_ROOT), .size = e->sectors, .type = TER_KEY_EXTENT, .val = val,
				 .val_bytes = ter_extent_encode(e, val) };
}

static void what_was_encoded_is_decoded(void **state)
{
	struct ter_sb *sb = make_sb();
	uint64_t val[TER_EXTENT_VAL_MAX / 8];
	uint8_t csums[32];
	struct ter_extent e = make_extent(csums), got;
	struct ter_key key = make_key(&e, val);

	assert_int_equal(ter_extent_decode(&key, sb, &got), 0);
	assert_int_equal(got.start, 800);
	assert_int_equal(got.sectors, 64);
	assert_memory_equal(got.ptr, e.ptr, sizeof(e.ptr[0]) * 2);
	assert_memory_equal(got.csums, csums, 32);
	assert_int_equal(ter_extent_ptr_sectors(&got), 64);
	free(sb);
}

/* Every byte of the value changed to every other value is either refused or harmless: what is decoded keeps to the limits. */
static void hostile_values_are_refused_or_harmless(void **state)
{
	struct ter_sb *sb = make_sb();
	uint64_t val[TER_EXTENT_VAL_MAX / 8], bad[TER_EXTENT_VAL_MAX / 8];
	uint8_t csums[32];
	struct ter_extent e = make_extent(csums), got;
	struct ter_key key = make_key(&e, val);
	unsigned refused = 0;

	for (uint32_t at = 0; at < 24 + 32; at++)
		for (unsigned x = 1; x < 256; x++) {
			memcpy(bad, val, key.val_bytes);
			((uint8_t *)bad)[at] ^= (uint8_t)x;
			key.val = bad;
			if (ter_extent_decode(&key, sb, &got) < 0) {
				refused++;
				continue;
			}
			assert_true(got.nr_ptrs >= 1 && got.nr_ptrs <= TER_REPLICAS_MAX);
			assert_true(got.live_offset + got.sectors <= got.raw_sectors && got.raw_sectors <= TER_EXTENT_SECTORS_MAX);
			assert_true((const uint8_t *)got.csums + got.csums_nr * got.digest_bytes <= (const uint8_t *)bad + key.val_bytes);
		}
	assert_true(refused > 24 * 255);
	free(sb);
}

static void refuse(const struct ter_sb *sb, struct ter_extent e, struct ter_key (*change)(struct ter_key key))
{
	uint64_t val[TER_EXTENT_VAL_MAX / 8];
	struct ter_key key = make_key(&e, val);
	struct ter_extent got;

	if (change)
		key = change(key);
	assert_int_equal(ter_extent_decode(&key, sb, &got), -EUCLEAN);
}

static struct ter_key change_size(struct ter_key key)
{
	key.size += 8;
	return key;
}
static struct ter_key change_offset(struct ter_key key)
{
	key.pos.offset = key.size - 8;
	return key;
}
static struct ter_key change_unaligned(struct ter_key key)
{
	key.pos.offset += 1;
	return key;
}
static struct ter_key change_short(struct ter_key key)
{
	key.val_bytes -= 4;
	return key;
}
static struct ter_key change_tiny(struct ter_key key)
{
	key.val_bytes = 20;
	return key;
}

static void each_limit_is_checked(void **state)
{
	struct ter_sb *sb = make_sb();
	uint8_t csums[32];
	const struct ter_extent good = make_extent(csums);
	struct ter_extent e;

	refuse(sb, good, change_size);
	refuse(sb, good, change_offset);
	refuse(sb, good, change_unaligned);
	refuse(sb, good, change_short);
	refuse(sb, good, change_tiny);
#define BAD(assignment)                                                                                                                                \
	do {                                                                                                                                           \
		e = good;                                                                                                                              \
		assignment;                                                                                                                            \
		refuse(sb, e, NULL);                                                                                                                   \
	} while (0)
	BAD(e.ptr[1].dev = 5);
	BAD(e.ptr[1].dev = TER_DEVS_MAX);
	BAD(e.ptr[1].sector = 9);
	BAD(e.ptr[1].sector = 1ull << 60);
	BAD(e.ptr[1].flags = 2);
	BAD(e.nr_required = 3);
	BAD(e.nr_required = 0);
	BAD(e.csum_slot = 3);
	BAD(e.csum_slot = 2);
	BAD(e.digest_bytes = 3);
	BAD(e.csums_nr = 7);
	BAD(e.compression_slot = 1);
	BAD(e.compression_slot = 2);
	BAD(e.stored_sectors = 56);
	BAD(e.raw_sectors = 72);
	BAD(e.live_offset = 8);
	BAD(e.csum_block_log2 = 22);
	BAD(e.csum_block_log2 = 8);
#undef BAD
	free(sb);
}

/* Byte b of the raw data is at the same place of the same member after any cut, and has the same checksum. */
static void cuts_keep_bytes_where_they_are(void **state)
{
	struct ter_sb *sb = make_sb();
	uint64_t val[TER_EXTENT_VAL_MAX / 8];

	for (unsigned log2 = 12; log2 <= 15; log2++)
		for (uint32_t from = 0; from < 64; from += 8)
			for (uint32_t to = from + 8; to <= 64; to += 8) {
				uint8_t csums[32];
				struct ter_extent e = make_extent(csums), cut, got;
				uint32_t per = 1u << (log2 - 9);
				struct ter_key key;

				e.csum_block_log2 = (uint8_t)log2;
				e.csums_nr = (uint16_t)((64 + per - 1) / per);
				cut = e;
				ter_extent_cut(&cut, e.start + from, e.start + to);
				assert_int_equal(cut.ptr[0].sector + cut.live_offset, e.ptr[0].sector + from);
				assert_int_equal(cut.ptr[1].sector + cut.live_offset, e.ptr[1].sector + from);
				assert_true(cut.live_offset < per && cut.stored_sectors < cut.sectors + 2 * per);
				assert_int_equal(cut.csums - csums, (from / per) * 4);
				key = make_key(&cut, val);
				assert_int_equal(ter_extent_decode(&key, sb, &got), 0);
				/* again, from the middle of what is left */
				if (got.sectors > 16) {
					ter_extent_cut(&got, got.start + 8, got.start + got.sectors - 8);
					assert_int_equal(got.ptr[0].sector + got.live_offset, e.ptr[0].sector + from + 8);
				}
			}
	free(sb);
}

static void compressed_extents_stay_whole(void **state)
{
	struct ter_sb *sb = make_sb();
	uint64_t val[TER_EXTENT_VAL_MAX / 8];
	uint8_t csums[32];
	struct ter_extent e = make_extent(csums), got;
	struct ter_key key;

	e.compression_slot = 2;
	e.stored_sectors = 16;
	e.csums_nr = 1;
	ter_extent_cut(&e, 808, 816);
	assert_int_equal(e.ptr[0].sector, 4096);
	assert_int_equal(e.live_offset, 8);
	assert_int_equal(e.stored_sectors, 16);
	assert_int_equal(ter_extent_ptr_sectors(&e), 2);
	key = make_key(&e, val);
	assert_int_equal(ter_extent_decode(&key, sb, &got), 0);
	free(sb);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_encoded_is_decoded),
		cmocka_unit_test(hostile_values_are_refused_or_harmless),
		cmocka_unit_test(each_limit_is_checked),
		cmocka_unit_test(cuts_keep_bytes_where_they_are),
		cmocka_unit_test(compressed_extents_stay_whole),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
