/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The superblock to bytes and back, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "sb_random.h"
#include "util/crc32c.h"
#include "util/fault.h"

#define ROUND_TRIPS 400
#define MUTATIONS 100000

static int decode_pair(const void *buf, size_t bytes, struct sb_pair *ret)
{
	return ter_sb_decode(buf, bytes, &ret->sb, &ret->members, &ret->dev_idx, NULL);
}

static void sum_again(void *buf)
{
	struct ter_sb_disk *header = buf;

	header->crc32c = ter_le32_make(ter_sb_checksum(buf));
}

static void what_was_encoded_is_decoded(void **state)
{
	struct sb_rng rng = { sb_test_seed() };
	uint8_t *buf = malloc(TER_SB_BYTES_MAX), *again = malloc(TER_SB_BYTES_MAX);
	int largest = 0;

	for (unsigned i = 0; i < ROUND_TRIPS; i++) {
		struct sb_pair pair = sb_random_new(&rng, i % 4 ? 6 : TER_DEVS_MAX), back = { 0 };
		int n = ter_sb_encode(pair.sb, pair.members, pair.dev_idx, buf);
		struct ter_error error = { 0 };

		assert_true(n >= (int)sizeof(struct ter_sb_disk) && n % 8 == 0);
		if (ter_sb_decode(buf, (size_t)n, &back.sb, &back.members, &back.dev_idx, &error) < 0)
			fail_msg("%s", error.text);
		sb_assert_equal(&pair, &back);
		assert_int_equal(ter_sb_encode(back.sb, back.members, back.dev_idx, again), n);
		assert_memory_equal(buf, again, TER_SB_BYTES_MAX);
		largest = ter_max(largest, n);
		sb_pair_free(&pair);
		sb_pair_free(&back);
	}
	print_message("largest: %d bytes\n", largest);
	assert_true(largest > 30000);
	free(buf);
	free(again);
}

static void unknown_sections_beyond_the_room_are_refused_when_encoding(void **state)
{
	struct sb_pair pair = sb_sample_new();
	uint8_t *buf = malloc(TER_SB_BYTES_MAX);

	pair.sb->unknown_bytes = TER_SB_BYTES_MAX - 512;
	pair.sb->unknown = calloc(1, pair.sb->unknown_bytes);
	assert_int_equal(ter_sb_encode(pair.sb, pair.members, 1, buf), -E2BIG);
	pair.sb->unknown_bytes = UINT32_MAX & ~7u; /* not touched when it cannot fit */
	assert_int_equal(ter_sb_encode(pair.sb, pair.members, 1, buf), -E2BIG);
	sb_pair_free(&pair);
	free(buf);
}

static void every_flipped_bit_is_noticed(void **state)
{
	struct sb_pair pair = sb_sample_new(), back;
	uint8_t *buf = malloc(TER_SB_BYTES_MAX);
	int n = ter_sb_encode(pair.sb, pair.members, pair.dev_idx, buf);

	for (int bit = 0; bit < n * 8; bit++) {
		int r;

		buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
		r = decode_pair(buf, (size_t)n, &back);
		assert_true(r < 0);
		assert_int_equal(r, bit < 16 * 8 ? -ENODATA : bit >= 0x10 * 8 && bit < 0x14 * 8 && r == -EUCLEAN ? -EUCLEAN : -EBADMSG);
		buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (int bytes = 0; bytes < n; bytes++) {
		uint8_t *cut = malloc((size_t)bytes + 1);

		memcpy(cut, buf, (size_t)bytes);
		assert_true(decode_pair(cut, (size_t)bytes, &back) < 0);
		free(cut);
	}
	assert_int_equal(decode_pair(buf, (size_t)n, &back), 0);
	sb_pair_free(&back);
	sb_pair_free(&pair);
	free(buf);
}

/* One field, one value that it must not have; the checksum is right. Section 0 is the header; offsets in a section count from after its header. */
struct damage {
	unsigned section;
	size_t at, width;
	uint64_t value;
	int r;
	const char *what;
};
#define HEADER(field) 0, offsetof(struct ter_sb_disk, field), sizeof(((struct ter_sb_disk *)0)->field)
#define IN(type, nth, disk, field)                                                                                     \
	TER_SB_SECTION_##type, (nth) * sizeof(struct disk) + offsetof(struct disk, field), sizeof(((struct disk *)0)->field)
#define MEMBER(nth, field) IN(MEMBERS, nth, ter_sb_member_disk, field)
#define ROOT(nth, field)                                                                                               \
	TER_SB_SECTION_CLEAN, sizeof(struct ter_sb_clean_disk) + (nth) * sizeof(struct ter_root_disk) + offsetof(struct ter_root_disk, field), \
		sizeof(((struct ter_root_disk *)0)->field)

static const struct damage damages[] = {
	{ HEADER(version_major), 2, -EPROTONOSUPPORT, "another major version" },
	{ HEADER(version_major), 0, -EPROTONOSUPPORT, "major version 0" },
	{ HEADER(features_incompat), 1, -EPROTONOSUPPORT, "unknown feature" },
	{ HEADER(features_incompat), UINT64_C(1) << 63, -EPROTONOSUPPORT, "unknown feature" },
	{ HEADER(dev_idx), 2, -EUCLEAN, "copy of a slot that is free" },
	{ HEADER(dev_idx), 64, -EUCLEAN, "copy of a slot out of range" },
	{ HEADER(devs_nr), 2, -EUCLEAN, "count of members" },
	{ HEADER(flags), TER_SB_FLAG_CLEAN | 4, -EUCLEAN, "unknown flag" },
	{ HEADER(flags), 0, -EUCLEAN, "clean section without the flag" },
	{ HEADER(zero1), 1, -EUCLEAN, "zero" },
	{ HEADER(seq), 0, -EUCLEAN, "seq 0" },
	{ 0, 0x48, 16, 0, -EUCLEAN, "no UUID" },
	{ 0, 0x78, 1, 0xff, -EUCLEAN, "label not UTF-8" },
	{ 0, 0x78, 1, '/', -EUCLEAN, "label with a slash" },
	{ 0, 0x78, 1, 7, -EUCLEAN, "label with a bell" },
	{ 0, 0x78, 1, 0, -EUCLEAN, "label with something after its end" },
	{ 0, 0x98, 1, 1, -EUCLEAN, "zero" },
	{ 0, 0xff, 1, 1, -EUCLEAN, "zero" },
	{ 0, 0x100, 2, 0, -EUCLEAN, "section type 0" },
	{ 0, 0x100, 2, 99, -EUCLEAN, "members section missing" },
	{ 0, 0x100, 2, TER_SB_SECTION_OPTIONS, -EUCLEAN, "options section twice" },
	{ 0, 0x102, 2, 1, -EUCLEAN, "section's zero" },
	{ 0, 0x104, 4, 0, -EUCLEAN, "section of size 0" },
	{ 0, 0x104, 4, 4, -EUCLEAN, "section of size 4" },
	{ 0, 0x104, 4, 0xfffffff8, -EUCLEAN, "section beyond the end" },
	{ 0, 0x104, 4, 8 + 3 * 0x90 + 8, -EUCLEAN, "members section of an odd size" },
	{ MEMBER(0, uuid), 0, -EUCLEAN, "member without UUID" },
	{ MEMBER(0, idx), 64, -EUCLEAN, "slot out of range" },
	{ MEMBER(1, idx), 0, -EUCLEAN, "slot twice" },
	{ MEMBER(2, idx), 1, -EUCLEAN, "slot twice" },
	{ MEMBER(2, idx), 9, -EUCLEAN, "slot that others do not know" },
	{ MEMBER(1, state), TER_DEV_STATE_NR, -EUCLEAN, "state" },
	{ MEMBER(1, durability), TER_REPLICAS_MAX + 1, -EUCLEAN, "durability" },
	{ MEMBER(1, flags), 2, -EUCLEAN, "unknown flag" },
	{ MEMBER(1, zero1), 1, -EUCLEAN, "zero" },
	{ MEMBER(1, bytes), 0, -EUCLEAN, "size 0" },
	{ MEMBER(1, bytes), UINT64_MAX, -EUCLEAN, "size" },
	{ MEMBER(1, bytes), UINT64_C(255) * 262144 + 65535, -EUCLEAN, "last bucket in the third copy" },
	{ MEMBER(1, buckets_nr), 256, -EUCLEAN, "last bucket in the third copy" },
	{ MEMBER(1, buckets_nr), UINT64_MAX, -EUCLEAN, "buckets" },
	{ MEMBER(1, buckets_nr), TER_MEMBER_BUCKETS_MIN - 1, -EUCLEAN, "too few buckets" },
	{ MEMBER(1, first_bucket), 0, -EUCLEAN, "first bucket in the first copies" },
	{ MEMBER(1, first_bucket), 2, -EUCLEAN, "journal before the first bucket" },
	{ MEMBER(1, first_bucket), 255, -EUCLEAN, "no bucket" },
	{ MEMBER(1, label), 0xff, -EUCLEAN, "label" },
	{ MEMBER(1, zero2), 1u << 31, -EUCLEAN, "zero" },
	{ TER_SB_SECTION_OPTIONS, 0, 2, 0, -EUCLEAN, "option 0" },
	{ TER_SB_SECTION_OPTIONS, 0, 2, 2, -EUCLEAN, "option twice" },
	{ TER_SB_SECTION_OPTIONS, 0, 2, 64, -EUCLEAN, "option out of range" },
	{ TER_SB_SECTION_OPTIONS, 2, 1, 1, -EUCLEAN, "number as text" },
	{ TER_SB_SECTION_OPTIONS, 2, 1, 2, -EUCLEAN, "kind" },
	{ TER_SB_SECTION_OPTIONS, 3, 1, 7, -EUCLEAN, "width of a number" },
	{ TER_SB_SECTION_OPTIONS, 3, 1, 0, -EUCLEAN, "no value" },
	{ TER_SB_SECTION_OPTIONS, 3, 1, 255, -EUCLEAN, "long value" },
	{ TER_SB_SECTION_OPTIONS, 4, 4, 1, -EUCLEAN, "zero" },
	{ TER_SB_SECTION_OPTIONS, 8, 8, 256, -EUCLEAN, "block_size below its range" },
	{ TER_SB_SECTION_OPTIONS, 8, 8, 131072, -EUCLEAN, "block_size above its range" },
	{ TER_SB_SECTION_OPTIONS, 8, 8, 4097, -EUCLEAN, "block_size not a power of two" },
	{ TER_SB_SECTION_OPTIONS, 8, 8, 8192, -EUCLEAN, "block_size above checksum_block" },
	{ TER_SB_SECTION_OPTIONS, 24, 8, 0, -EUCLEAN, "no bucket_size" },
	{ TER_SB_SECTION_OPTIONS, 24, 8, 131072, -EUCLEAN, "node larger than a bucket" },
	{ TER_SB_SECTION_OPTIONS, 24, 8, 524288, -EUCLEAN, "buckets beyond the end" },
	{ TER_SB_SECTION_OPTIONS, 40, 8, 0, -EUCLEAN, "no node size" },
	{ IN(ALGOS, 0, ter_sb_algo_disk, slot), 0, -EUCLEAN, "slot 0" },
	{ IN(ALGOS, 0, ter_sb_algo_disk, slot), 2, -EUCLEAN, "slot twice" },
	{ IN(ALGOS, 1, ter_sb_algo_disk, slot), 32, -EUCLEAN, "slot out of range" },
	{ IN(ALGOS, 0, ter_sb_algo_disk, kind), 0, -EUCLEAN, "kind" },
	{ IN(ALGOS, 0, ter_sb_algo_disk, kind), 5, -EUCLEAN, "kind" },
	{ IN(ALGOS, 0, ter_sb_algo_disk, zero), 1, -EUCLEAN, "zero" },
	{ IN(ALGOS, 0, ter_sb_algo_disk, uuid), 0, -EUCLEAN, "no UUID" },
	{ IN(ALGOS, 0, ter_sb_algo_disk, name), 0, -EUCLEAN, "no name" },
	{ TER_SB_SECTION_ALGOS, 0x18, 1, 'A', -EUCLEAN, "name" },
	{ TER_SB_SECTION_ALGOS, 0x18, 1, 0, -EUCLEAN, "something after the name's end" },
	{ TER_SB_SECTION_ALGOS, 0x37, 1, 'a', -EUCLEAN, "something after the name's end" },
	{ IN(REPLICAS, 0, ter_sb_replicas_disk, data_type), TER_DATA_FREE, -EUCLEAN, "type" },
	{ IN(REPLICAS, 0, ter_sb_replicas_disk, data_type), TER_DATA_NEED_DISCARD, -EUCLEAN, "type" },
	{ IN(REPLICAS, 0, ter_sb_replicas_disk, data_type), TER_DATA_STRIPE, -EUCLEAN, "order" },
	{ IN(REPLICAS, 0, ter_sb_replicas_disk, nr_devs), 0, -EUCLEAN, "no members" },
	{ IN(REPLICAS, 0, ter_sb_replicas_disk, nr_devs), 1, -EUCLEAN, "a member too many" },
	{ IN(REPLICAS, 1, ter_sb_replicas_disk, nr_devs), 5, -EUCLEAN, "members" },
	{ IN(REPLICAS, 0, ter_sb_replicas_disk, nr_required), 0, -EUCLEAN, "required" },
	{ IN(REPLICAS, 0, ter_sb_replicas_disk, nr_required), 3, -EUCLEAN, "required" },
	{ TER_SB_SECTION_REPLICAS, 4, 1, 0, -EUCLEAN, "a member twice" },
	{ TER_SB_SECTION_REPLICAS, 4, 1, 2, -EUCLEAN, "a member that there is not" },
	{ TER_SB_SECTION_REPLICAS, 4, 1, 200, -EUCLEAN, "a member out of range" },
	{ TER_SB_SECTION_REPLICAS, 7, 1, 1, -EUCLEAN, "zero" },
	{ IN(JOURNAL, 0, ter_sb_journal_disk, dev_idx), 3, -EUCLEAN, "order" },
	{ IN(JOURNAL, 5, ter_sb_journal_disk, dev_idx), 6, -EUCLEAN, "a member that there is not" },
	{ IN(JOURNAL, 5, ter_sb_journal_disk, dev_idx), 64, -EUCLEAN, "a member out of range" },
	{ TER_SB_SECTION_JOURNAL, 1, 1, 1, -EUCLEAN, "zero" },
	{ IN(JOURNAL, 1, ter_sb_journal_disk, first), 0, -EUCLEAN, "in the first copies" },
	{ IN(JOURNAL, 1, ter_sb_journal_disk, first), 4, -EUCLEAN, "overlap" },
	{ IN(JOURNAL, 1, ter_sb_journal_disk, first), 254, -EUCLEAN, "beyond the end" },
	{ IN(JOURNAL, 1, ter_sb_journal_disk, first), UINT64_MAX, -EUCLEAN, "beyond the end" },
	{ IN(JOURNAL, 1, ter_sb_journal_disk, nr), 0, -EUCLEAN, "empty" },
	{ IN(JOURNAL, 1, ter_sb_journal_disk, nr), UINT64_MAX, -EUCLEAN, "beyond the end" },
	{ IN(JOURNAL, 1, ter_sb_journal_disk, nr), UINT64_MAX - 9, -EUCLEAN, "wraps around" },
	{ ROOT(0, btree), TER_BTREE_ROOTS_MAX, -EUCLEAN, "btree out of range" },
	{ ROOT(1, btree), 0, -EUCLEAN, "btree twice" },
	{ ROOT(1, level), TER_ROOT_LEVEL_MAX + 1, -EUCLEAN, "level" },
	{ ROOT(1, nr_ptrs), 0, -EUCLEAN, "no pointer" },
	{ ROOT(1, nr_ptrs), 1, -EUCLEAN, "a pointer too many" },
	{ ROOT(1, nr_ptrs), 5, -EUCLEAN, "pointers" },
	{ ROOT(1, flags), 0, -EUCLEAN, "not present" },
	{ ROOT(1, flags), 3, -EUCLEAN, "unknown flag" },
	{ ROOT(1, sectors_written), 513, -EUCLEAN, "longer than a node" },
	{ ROOT(1, ptr[0].dev), 2, -EUCLEAN, "a member that there is not" },
	{ ROOT(1, ptr[0].dev), 64, -EUCLEAN, "a member out of range" },
	{ ROOT(1, ptr[0].dev), 5, -EUCLEAN, "a member twice" },
	{ ROOT(1, ptr[0].zero[0]), 1, -EUCLEAN, "zero" },
	{ ROOT(1, ptr[0].sector), 0, -EUCLEAN, "in the first copies" },
	{ ROOT(1, ptr[0].sector), 512 * 20 + 1, -EUCLEAN, "across the bucket's end" },
	{ ROOT(1, ptr[0].sector), 512 * 255, -EUCLEAN, "beyond the end" },
	{ ROOT(1, ptr[0].sector), UINT64_MAX, -EUCLEAN, "beyond the end" },
	{ ROOT(1, ptr[2].gen), 1, -EUCLEAN, "unused pointer" },
	{ IN(BLACKLIST, 0, ter_sb_blacklist_disk, first), 0, -EUCLEAN, "sequence 0" },
	{ IN(BLACKLIST, 0, ter_sb_blacklist_disk, last), 9, -EUCLEAN, "ends before it begins" },
	{ IN(BLACKLIST, 0, ter_sb_blacklist_disk, last), 30, -EUCLEAN, "overlap" },
	{ IN(RECOVERY, 0, ter_sb_recovery_disk, zero[0]), 1, -EUCLEAN, "zero" },
	{ IN(RECOVERY, 0, ter_sb_recovery_disk, zero[47]), 1, -EUCLEAN, "zero" },
};

static void set_field(uint8_t *at, size_t width, uint64_t value)
{
	memset(at, 0, width);
	for (size_t i = 0; i < ter_min(width, sizeof(value)); i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static void a_field_with_a_wrong_value_is_refused(void **state)
{
	struct sb_pair pair = sb_sample_new(), back;
	uint8_t *good = malloc(TER_SB_BYTES_MAX), *buf = malloc(TER_SB_BYTES_MAX);
	int n = ter_sb_encode(pair.sb, pair.members, pair.dev_idx, good);

	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		const struct damage *damage = &damages[i];
		uint8_t *base = buf;
		int r;

		memcpy(buf, good, (size_t)n);
		if (damage->section)
			base = (uint8_t *)(sb_section(buf, damage->section) + 1);
		set_field(base + damage->at, damage->width, damage->value);
		assert_memory_not_equal(buf, good, (size_t)n);
		sum_again(buf);
		r = decode_pair(buf, (size_t)n, &back);
		if (r != damage->r)
			fail_msg("section %u, byte 0x%zx (%s): %d", damage->section, damage->at, damage->what, r);
	}
	assert_int_equal(decode_pair(good, (size_t)n, &back), 0);
	sb_pair_free(&back);
	sb_pair_free(&pair);
	free(good);
	free(buf);
}

/* What needs two fields at once. */
static void contradictions_are_refused(void **state)
{
	uint8_t *buf = malloc(TER_SB_BYTES_MAX);
	struct sb_pair back;

	for (unsigned i = 0;; i++) {
		struct sb_pair pair = sb_sample_new();
		struct ter_sb *sb = pair.sb;
		struct ter_dev *dev = pair.members->dev;
		int n, r;

		switch (i) {
		case 0:
			memcpy(dev[1].uuid, dev[0].uuid, 16);
			break;
		case 1:
			memcpy(sb->algos.slot[2].uuid, sb->algos.slot[1].uuid, 16);
			sb->algos.slot[2].kind = sb->algos.slot[1].kind;
			break;
		case 2:
			strcpy(sb->algos.slot[2].name, "crc32c");
			sb->algos.slot[2].kind = sb->algos.slot[1].kind;
			break;
		case 3:
			strcpy(sb->algos.slot[2].name, "none");
			break;
		case 4:
			strcpy(sb->options.metadata_checksum.s, "none");
			break;
		case 5:
			strcpy(sb->options.data_checksum.s, "CRC");
			break;
		case 6:
			strcpy(sb->options.compression.s, "zstd:");
			break;
		case 7:
			sb->options.data_replicas_required = 2;
			break;
		case 8:
			sb->replicas[0].devs[1] = 7;
			break;
		case 9:
			sb->replicas[1] = sb->replicas[0];
			break;
		case 10:
			dev[1].journal[1] = dev[1].journal[0];
			break;
		case 11:
			memset(dev[1].journal, 0, sizeof(dev[1].journal));
			dev[1].first_bucket = dev[1].buckets_nr;
			break;
		case 12:
			sb->roots[1].nr_ptrs = 0;
			break;
		default:
			sb_pair_free(&pair);
			free(buf);
			assert_int_equal(i, 13);
			return;
		}
		n = ter_sb_encode(sb, pair.members, pair.dev_idx, buf);
		assert_true(n > 0);
		r = decode_pair(buf, (size_t)n, &back);
		if (r != -EUCLEAN)
			fail_msg("contradiction %u: %d", i, r);
		sb_pair_free(&pair);
	}
}

/* In section @type, @at bytes after its header: takes @cut bytes out and puts @insert of @bytes in their place. */
static void splice(uint8_t *buf, unsigned type, size_t at, size_t cut, const void *insert, size_t bytes)
{
	struct ter_sb_disk *header = (void *)buf;
	struct ter_sb_section_disk *section = sb_section(buf, type);
	uint8_t *place = (uint8_t *)(section + 1) + at;
	size_t end = ter_le32_get(header->bytes);

	memmove(place + bytes, place + cut, (size_t)(buf + end - (place + cut)));
	if (bytes)
		memcpy(place, insert, bytes);
	section->bytes = ter_le32_make((uint32_t)(ter_le32_get(section->bytes) + bytes - cut));
	header->bytes = ter_le32_make((uint32_t)(end + bytes - cut));
}

static int decode_spliced(uint8_t *buf)
{
	size_t bytes = ter_le32_get(((struct ter_sb_disk *)buf)->bytes);
	uint8_t *exact = malloc(bytes); /* reads beyond it are seen by the sanitizer */
	struct sb_pair back;
	int r;

	sum_again(buf);
	memcpy(exact, buf, bytes);
	r = decode_pair(exact, bytes, &back);
	free(exact);
	if (r == 0)
		sb_pair_free(&back);
	return r;
}

static void sections_of_a_wrong_size_are_refused(void **state)
{
	struct sb_pair pair = sb_sample_new();
	uint8_t *buf = calloc(2, TER_SB_BYTES_MAX);
	static const uint8_t zero[8];

	for (unsigned type = 1; type < TER_SB_SECTION_NR; type++) {
		size_t bytes;

		assert_true(ter_sb_encode(pair.sb, pair.members, pair.dev_idx, buf) > 0);
		assert_int_equal(decode_spliced(buf), 0);
		bytes = ter_le32_get(sb_section(buf, type)->bytes) - sizeof(struct ter_sb_section_disk);
		splice(buf, type, bytes, 0, zero, 8);
		if (decode_spliced(buf) != -EUCLEAN)
			fail_msg("section %u is longer", type);
		/* The same, if the records were all valid: for options and clean, which do not consist of records of one size, cut to nothing. */
		for (size_t cut = 8; cut <= bytes; cut += 8) {
			static const size_t record[TER_SB_SECTION_NR] = { 0, 0x90, 0, 0x38, 8, 0x18, 0x50, 0x10, 0x40 };
			int r;

			assert_true(ter_sb_encode(pair.sb, pair.members, pair.dev_idx, buf) > 0);
			splice(buf, type, bytes - cut, cut, NULL, 0);
			r = decode_spliced(buf);
			/* Without a member, or without options that are needed, it is not valid; other sections may have fewer records. */
			if (type == TER_SB_SECTION_MEMBERS || (record[type] && cut % record[type]) || bytes - cut < (type == TER_SB_SECTION_CLEAN ? 0x18 : 0))
				assert_int_equal(r, -EUCLEAN);
			else if (type != TER_SB_SECTION_OPTIONS)
				assert_int_equal(r, 0);
			else if (cut % 16 && cut < 8 * 16) /* a number's value is missing */
				assert_int_equal(r, -EUCLEAN);
		}
	}
	sb_pair_free(&pair);
	free(buf);
}

static void more_records_than_there_may_be_are_refused(void **state)
{
	struct sb_pair pair = sb_sample_new();
	uint8_t *buf = calloc(2, TER_SB_BYTES_MAX);

	/* In each case one less is fine. */
	for (unsigned less = 0; less < 2; less++) {
		int want = less ? 0 : -EUCLEAN;

		assert_true(ter_sb_encode(pair.sb, pair.members, pair.dev_idx, buf) > 0);
		for (unsigned i = 0; i + 2 + less < TER_BLACKLIST_MAX + 1; i++) {
			struct ter_sb_blacklist_disk entry = { ter_le64_make(1000 - i), ter_le64_make(1000 - i) };

			splice(buf, TER_SB_SECTION_BLACKLIST, 0x20, 0, &entry, sizeof(entry));
		}
		assert_int_equal(decode_spliced(buf), want);

		assert_true(ter_sb_encode(pair.sb, pair.members, pair.dev_idx, buf) > 0);
		for (unsigned i = 0; i + 2 + less < TER_JOURNAL_RANGES_MAX + 1; i++) {
			struct ter_sb_journal_disk entry = { .dev_idx = 0, .first = ter_le64_make(20 + i), .nr = ter_le64_make(1) };

			splice(buf, TER_SB_SECTION_JOURNAL, 0, 0, &entry, sizeof(entry));
		}
		assert_int_equal(decode_spliced(buf), want);
	}
	sb_pair_free(&pair);
	free(buf);
}

static void a_replicas_table_beyond_its_bound_is_refused(void **state)
{
	struct sb_pair pair = sb_sample_new();
	uint8_t *buf = calloc(2, TER_SB_BYTES_MAX);

	for (unsigned idx = 0; idx < TER_DEVS_MAX; idx++) { /* all members, for as many sets */
		struct ter_dev *dev = &pair.members->dev[idx];

		if (dev->used)
			continue;
		*dev = pair.members->dev[0];
		dev->idx = idx;
		memset(dev->uuid, 0x10 + (int)idx, sizeof(dev->uuid));
	}
	pair.sb->replicas_nr = 0;
	for (unsigned less = 0; less < 2; less++) {
		unsigned nr = 0;

		assert_true(ter_sb_encode(pair.sb, pair.members, pair.dev_idx, buf) > 0);
		for (uint8_t a = 32; a-- > 0;) /* each goes before those that are there */
			for (uint8_t b = TER_DEVS_MAX; b-- > 31;) {
				struct ter_sb_replicas_disk entry = { TER_DATA_USER, 2, 1, { a, b }, 0 };

				if (a < b && nr < TER_REPLICAS_ENTRIES_MAX + 1 - less) {
					splice(buf, TER_SB_SECTION_REPLICAS, 0, 0, &entry, sizeof(entry));
					nr++;
				}
			}
		assert_int_equal(nr, TER_REPLICAS_ENTRIES_MAX + 1 - less);
		assert_int_equal(decode_spliced(buf), less ? 0 : -EUCLEAN);
	}
	sb_pair_free(&pair);
	free(buf);
}

/* A record of the options section: where it begins, from the end of the section's header. */
static size_t option_at(uint8_t *buf, unsigned id)
{
	uint8_t *body = (uint8_t *)(sb_section(buf, TER_SB_SECTION_OPTIONS) + 1);
	size_t at = 0;

	for (;;) {
		const struct ter_sb_option_disk *disk = (void *)(body + at);

		if (ter_le16_get(disk->id) == id)
			return at;
		at += sizeof(*disk) + ter_round_up(disk->value_bytes, 8);
	}
}

static void records_out_of_place_are_refused(void **state)
{
	struct sb_pair pair = sb_sample_new();
	uint8_t *buf = calloc(2, TER_SB_BYTES_MAX);

	for (unsigned i = 0;; i++) {
		uint8_t record[0x90];
		uint8_t *body;
		struct ter_sb_disk *header = (void *)buf;
		size_t at;
		int n = ter_sb_encode(pair.sb, pair.members, pair.dev_idx, buf);

		switch (i) {
		case 0: /* members not ascending */
			body = (uint8_t *)(sb_section(buf, TER_SB_SECTION_MEMBERS) + 1);
			memcpy(record, body, 0x90);
			memcpy(body, body + 0x90, 0x90);
			memcpy(body + 0x90, record, 0x90);
			break;
		case 1: /* the journal's members not ascending */
			body = (uint8_t *)(sb_section(buf, TER_SB_SECTION_JOURNAL) + 1);
			memcpy(record, body, 0x30);
			memcpy(body, body + 0x30, 0x30);
			memcpy(body + 0x30, record, 0x30);
			break;
		case 2: /* a section twice */
			body = (uint8_t *)sb_section(buf, TER_SB_SECTION_BLACKLIST);
			memcpy(buf + n, body, ter_le32_get(((struct ter_sb_section_disk *)body)->bytes));
			header->bytes = ter_le32_make((uint32_t)n + ter_le32_get(((struct ter_sb_section_disk *)body)->bytes));
			break;
		case 3: /* no options at all */
		case 4: /* no members at all */
			body = (uint8_t *)sb_section(buf, i == 3 ? TER_SB_SECTION_OPTIONS : TER_SB_SECTION_MEMBERS);
			at = ter_le32_get(((struct ter_sb_section_disk *)body)->bytes);
			memmove(body, body + at, (size_t)(buf + n - body) - at);
			header->bytes = ter_le32_make((uint32_t)(n - (int)at));
			break;
		case 5: /* text that ends early */
			at = option_at(buf, TER_OPTION_compression);
			((uint8_t *)(sb_section(buf, TER_SB_SECTION_OPTIONS) + 1))[at + 8 + 3] = 0;
			break;
		case 6: /* something after the text */
			at = option_at(buf, TER_OPTION_compression);
			((uint8_t *)(sb_section(buf, TER_SB_SECTION_OPTIONS) + 1))[at + 8 + 7] = 'x';
			break;
		case 7: /* text where a number belongs */
			((struct ter_sb_option_disk *)((uint8_t *)(sb_section(buf, TER_SB_SECTION_OPTIONS) + 1) + option_at(buf, TER_OPTION_errors)))->kind =
				TER_SB_OPTION_TEXT;
			break;
		case 8: /* a number where text belongs */
			at = option_at(buf, TER_OPTION_compression);
			body = (uint8_t *)(sb_section(buf, TER_SB_SECTION_OPTIONS) + 1) + at;
			((struct ter_sb_option_disk *)body)->kind = TER_SB_OPTION_NUMBER;
			((struct ter_sb_option_disk *)body)->value_bytes = 8;
			break;
		case 9: /* text of no bytes */
			at = option_at(buf, TER_OPTION_compression);
			splice(buf, TER_SB_SECTION_OPTIONS, at + 8, 8, NULL, 0);
			((struct ter_sb_option_disk *)((uint8_t *)(sb_section(buf, TER_SB_SECTION_OPTIONS) + 1) + at))->value_bytes = 0;
			break;
		case 10: /* block_size, bucket_size, btree_node_size missing */
		case 11:
		case 12:
			splice(buf, TER_SB_SECTION_OPTIONS, option_at(buf, i - 9), 16, NULL, 0);
			break;
		case 13: /* a root that is not present, though well-formed */
			body = (uint8_t *)(sb_section(buf, TER_SB_SECTION_CLEAN) + 1) + 0x18;
			memset(body, 0, 0x50);
			break;
		default:
			assert_int_equal(i, 14);
			sb_pair_free(&pair);
			free(buf);
			return;
		}
		if (decode_spliced(buf) != -EUCLEAN)
			fail_msg("case %u", i);
	}
}

static void mutate(struct sb_rng *rng, uint8_t *buf, size_t n)
{
	static const uint64_t interesting[] = { 0, 1, 2, 7, 8, 63, 64, 127, 128, 255, 256, 4096, 65535, 65536, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX };

	for (unsigned times = 1 + (unsigned)sb_rng_below(rng, 4); times > 0; times--) {
		size_t at = sb_rng_below(rng, 4) ? 16 + sb_rng_below(rng, n - 16) : sizeof(struct ter_sb_disk) + sb_rng_below(rng, n - sizeof(struct ter_sb_disk));
		size_t width = ter_min((size_t)1 << sb_rng_below(rng, 4), n - at);

		switch (sb_rng_below(rng, 4)) {
		case 0:
			buf[at] ^= (uint8_t)(1u << sb_rng_below(rng, 8));
			break;
		case 1:
			set_field(buf + at, width, interesting[sb_rng_below(rng, ARRAY_SIZE(interesting))]);
			break;
		case 2: /* an earlier part over this one */
			at &= ~(size_t)7;
			memmove(buf + at, buf + sizeof(struct ter_sb_disk), ter_min(8 * (1 + sb_rng_below(rng, 20)), n - at));
			break;
		case 3:
			set_field(buf + at, width, sb_rng_u64(rng));
			break;
		}
	}
}

static void mutated_superblocks_never_crash_and_what_is_accepted_can_be_written_again(void **state)
{
	struct sb_rng rng = { sb_test_seed() };
	uint8_t *base = malloc(TER_SB_BYTES_MAX), *again = malloc(TER_SB_BYTES_MAX);
	unsigned accepted = 0;
	int n = 0;

	for (unsigned i = 0; i < MUTATIONS; i++) {
		struct sb_pair back = { 0 }, twice = { 0 };
		uint8_t *buf;

		if (i % 1000 == 0) {
			struct sb_pair pair = i % 2000 ? sb_sample_new() : sb_random_new(&rng, 4);

			n = ter_sb_encode(pair.sb, pair.members, pair.dev_idx, base);
			assert_true(n > 0);
			sb_pair_free(&pair);
		}
		buf = malloc((size_t)n); /* exactly: reads beyond it are seen by the sanitizer */
		memcpy(buf, base, (size_t)n);
		mutate(&rng, buf, (size_t)n);
		if (ter_le32_get(((struct ter_sb_disk *)buf)->bytes) <= (size_t)n && ter_le32_get(((struct ter_sb_disk *)buf)->bytes) >= sizeof(struct ter_sb_disk))
			sum_again(buf);
		if (decode_pair(buf, (size_t)n, &back) == 0) {
			int m = ter_sb_encode(back.sb, back.members, back.dev_idx, again);

			accepted++;
			assert_true(m > 0);
			assert_int_equal(decode_pair(again, (size_t)m, &twice), 0);
			sb_assert_equal(&back, &twice);
			sb_pair_free(&back);
			sb_pair_free(&twice);
		}
		free(buf);
	}
	print_message("%u of %u mutations are valid superblocks\n", accepted, MUTATIONS);
	assert_in_range(accepted, MUTATIONS / 100, MUTATIONS * 9 / 10);
	free(base);
	free(again);
}

static void without_memory_nothing_is_left_behind(void **state)
{
	struct sb_pair pair, back;
	uint8_t *buf = malloc(TER_SB_BYTES_MAX);
	struct sb_rng rng = { 3 };
	uint64_t nth;
	int n, r = -ENOMEM;

	do { /* one with unknown sections: they take memory of their own */
		pair = sb_random_new(&rng, 4);
		if (pair.sb->unknown_bytes)
			break;
		sb_pair_free(&pair);
	} while (true);
	n = ter_sb_encode(pair.sb, pair.members, pair.dev_idx, buf);
	for (nth = 1; r < 0; nth++) {
		assert_int_equal(ter_fault_arm("mem.alloc", &(struct ter_fault_rule){ .nth = nth, .times = 1 }), 0);
		r = decode_pair(buf, (size_t)n, &back);
		assert_true(r == 0 || r == -ENOMEM);
	}
	ter_fault_disarm_all();
	assert_int_equal(nth - 1, 4); /* three allocations, then none fails */
	sb_pair_free(&back);
	sb_pair_free(&pair);
	free(buf);
}

/* Bytes on disk stay what they are: who changes this number changes the format (../../../core/FORMAT.md), and pools that exist must still be read. */
static void the_sample_has_the_bytes_it_always_had(void **state)
{
	struct sb_pair pair = sb_sample_new();
	uint8_t *buf = malloc(TER_SB_BYTES_MAX);
	int n;

	pair.sb->passes_required = pair.sb->passes_unfixed = 0; /* without a bit there is no section: as before there was one */
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		pair.members->dev[i].journal_at = 0; /* as before that field was one */
	n = ter_sb_encode(pair.sb, pair.members, pair.dev_idx, buf);
	assert_int_equal(n, 1584);
	assert_int_equal(ter_crc32c(0, buf, (size_t)n), 0xc55bb5eb);
	sb_pair_free(&pair);
	free(buf);
}

static void roots_keep_their_bytes(void **state)
{
	struct ter_root root = { .btree = 3, .level = 2, .present = true, .node_seq = 9, .sectors_written = 16, .nr_ptrs = 1, .ptr = { { 7, 8, 99 } } }, back;
	struct ter_root_disk disk;

	ter_root_encode(&root, &disk);
	assert_int_equal(ter_root_decode(&disk, &back), 0);
	assert_int_equal(back.ptr[0].sector, 99);
	assert_int_equal(back.ptr[0].gen, 8);
	assert_int_equal(back.ptr[0].dev, 7);
	assert_true(back.present && back.level == 2 && back.node_seq == 9 && back.sectors_written == 16);

	root.present = false; /* an empty btree: nothing but its id */
	ter_root_encode(&root, &disk);
	assert_int_equal(ter_root_decode(&disk, &back), 0);
	assert_true(!back.present && back.btree == 3 && back.nr_ptrs == 0);
	disk.level = 1;
	assert_int_equal(ter_root_decode(&disk, &back), -EUCLEAN);

	root = (struct ter_root){ .present = true, .nr_ptrs = 4, .ptr = { { 0, 0, 1 }, { 1, 0, 1 }, { 2, 0, 1 }, { 3, 0, 1 } } };
	ter_root_encode(&root, &disk);
	assert_int_equal(ter_root_decode(&disk, &back), 0);
	disk.nr_ptrs = 5;
	assert_int_equal(ter_root_decode(&disk, &back), -EUCLEAN);
	disk.nr_ptrs = 4;
	disk.ptr[3].dev = TER_DEVS_MAX + 3;
	assert_int_equal(ter_root_decode(&disk, &back), -EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_encoded_is_decoded),
		cmocka_unit_test(unknown_sections_beyond_the_room_are_refused_when_encoding),
		cmocka_unit_test(every_flipped_bit_is_noticed),
		cmocka_unit_test(a_field_with_a_wrong_value_is_refused),
		cmocka_unit_test(contradictions_are_refused),
		cmocka_unit_test(sections_of_a_wrong_size_are_refused),
		cmocka_unit_test(more_records_than_there_may_be_are_refused),
		cmocka_unit_test(a_replicas_table_beyond_its_bound_is_refused),
		cmocka_unit_test(records_out_of_place_are_refused),
		cmocka_unit_test(mutated_superblocks_never_crash_and_what_is_accepted_can_be_written_again),
		cmocka_unit_test(without_memory_nothing_is_left_behind),
		cmocka_unit_test(the_sample_has_the_bytes_it_always_had),
		cmocka_unit_test(roots_keep_their_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
