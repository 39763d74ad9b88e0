/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Valid superblocks for tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "sb_random.h"

uint64_t sb_test_seed(void)
{
	const char *text = getenv("TER_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 0x7e22ace;

	print_message("TER_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

uint64_t sb_rng_u64(struct sb_rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

uint64_t sb_rng_below(struct sb_rng *rng, uint64_t n)
{
	return sb_rng_u64(rng) % n;
}

static void random_bytes(struct sb_rng *rng, void *buf, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		((uint8_t *)buf)[i] = (uint8_t)sb_rng_u64(rng);
}

static uint64_t random_pow2(struct sb_rng *rng, uint64_t min, uint64_t max)
{
	return UINT64_C(1) << (ter_log2(min) + sb_rng_below(rng, ter_log2(max) - ter_log2(min) + 1));
}

static void random_label(struct sb_rng *rng, char label[TER_LABEL_MAX + 1])
{
	static const char *const labels[] = { "", "media", "Fotos & Töne", "写真", "hdd.a", "0123456789abcdef0123456789abcdef", "\xf0\x9f\x92\xbe" };

	memset(label, 0, TER_LABEL_MAX + 1);
	strcpy(label, labels[sb_rng_below(rng, ARRAY_SIZE(labels))]);
}

static void random_options(struct sb_rng *rng, struct ter_options *opts)
{
	static const char *const checksums[] = { "crc32c", "xxh3", "a-31-letter-name-0123456789abcd" };
	static const char *const compressions[] = { "none", "lz4", "zstd:3", "zstd:-7", "a-31-letter-name-0123456789abcd:1234" };

	ter_options_default(opts);
	for (const struct ter_option_info *info = ter_option_table; info->name; info++) {
		if (info->type == TER_OPT_ALGO)
			continue;
		if (info->settable & TER_OPT_POW2)
			ter_option_store_u64(opts, info, random_pow2(rng, info->min ? info->min : TER_BUCKET_BYTES_MIN, info->max));
		else
			ter_option_store_u64(opts, info, info->min + sb_rng_below(rng, info->max - info->min + 1));
	}
	memset(&opts->metadata_checksum, 0, sizeof(opts->metadata_checksum));
	memset(&opts->data_checksum, 0, sizeof(opts->data_checksum));
	memset(&opts->compression, 0, sizeof(opts->compression));
	strcpy(opts->metadata_checksum.s, checksums[sb_rng_below(rng, ARRAY_SIZE(checksums))]);
	strcpy(opts->data_checksum.s, checksums[sb_rng_below(rng, ARRAY_SIZE(checksums))]);
	strcpy(opts->compression.s, compressions[sb_rng_below(rng, ARRAY_SIZE(compressions))]);

	opts->btree_node_size = ter_min(opts->btree_node_size, opts->bucket_size);
	opts->checksum_block = ter_min(opts->checksum_block, opts->extent_max);
	opts->block_size = ter_min(opts->block_size, opts->checksum_block);
	opts->block_size = ter_min(opts->block_size, opts->btree_node_size);
	opts->metadata_replicas_required = ter_min(opts->metadata_replicas_required, opts->metadata_replicas);
	opts->data_replicas_required = ter_min(opts->data_replicas_required, opts->data_replicas);
	assert_int_equal(ter_options_check(opts, NULL), 0);
}

static void random_journal(struct sb_rng *rng, struct ter_dev *dev)
{
	unsigned nr = (unsigned)sb_rng_below(rng, TER_JOURNAL_RANGES_MAX + 1);
	uint64_t at = dev->first_bucket, room = (dev->buckets_nr - at) / TER_JOURNAL_RANGES_MAX;

	for (unsigned i = 0; i < nr; i++) {
		dev->journal[i].first = at + sb_rng_below(rng, room);
		dev->journal[i].nr = 1 + sb_rng_below(rng, at + room - dev->journal[i].first);
		at += room;
	}
	/* The ring's order is free. */
	for (unsigned i = 0; i + 1 < nr; i++) {
		unsigned j = i + (unsigned)sb_rng_below(rng, nr - i);
		struct ter_bucket_range swap = dev->journal[i];

		dev->journal[i] = dev->journal[j];
		dev->journal[j] = swap;
	}
}

static void random_member(struct sb_rng *rng, struct ter_dev *dev, uint64_t bucket_bytes)
{
	uint64_t offset[TER_SB_COPIES];

	dev->used = true;
	random_bytes(rng, dev->uuid, sizeof(dev->uuid));
	dev->state = (enum ter_dev_state)sb_rng_below(rng, TER_DEV_STATE_NR);
	dev->durability = (uint8_t)sb_rng_below(rng, TER_REPLICAS_MAX + 1);
	dev->discard = sb_rng_below(rng, 2);
	random_label(rng, dev->label);
	dev->bytes = (TER_MEMBER_BUCKETS_MIN + 8) * bucket_bytes + sb_rng_below(rng, UINT64_C(1) << 44);
	dev->bucket_sectors = (uint32_t)(bucket_bytes / TER_SECTOR_BYTES);
	ter_sb_copy_offsets(dev->bytes, offset);
	dev->buckets_nr = offset[2] / bucket_bytes;
	dev->first_bucket = (TER_SB_AREA_BYTES + bucket_bytes - 1) / bucket_bytes;
	dev->last_mount_ns = sb_rng_u64(rng);
	dev->seen_seq = sb_rng_u64(rng);
	dev->errors_since_ns = sb_rng_u64(rng);
	dev->journal_at = (uint32_t)(dev->seen_seq % 100);
	for (unsigned i = 0; i < TER_DEV_ERR_NR; i++)
		atomic_store(&dev->errors[i], sb_rng_u64(rng));
	random_journal(rng, dev);
}

static unsigned random_used(struct sb_rng *rng, const struct ter_members *members)
{
	unsigned idx;

	do
		idx = (unsigned)sb_rng_below(rng, members->nr_slots);
	while (!members->dev[idx].used);
	return idx;
}

static void random_replicas(struct sb_rng *rng, struct sb_pair *pair)
{
	unsigned tries = (unsigned)sb_rng_below(rng, sb_rng_below(rng, 4) ? 20 : 3000);

	while (tries-- > 0) {
		struct ter_replicas_entry entry = { .data_type = (uint8_t)(1 + sb_rng_below(rng, TER_DATA_STRIPE)) };

		for (unsigned idx = 0; idx < TER_DEVS_MAX && entry.nr_devs < TER_REPLICAS_MAX; idx++)
			if (pair->members->dev[idx].used && sb_rng_below(rng, 3) == 0)
				entry.devs[entry.nr_devs++] = (uint8_t)idx;
		if (!entry.nr_devs)
			continue;
		entry.nr_required = (uint8_t)(1 + sb_rng_below(rng, entry.nr_devs));
		if (pair->sb->replicas_nr < TER_REPLICAS_ENTRIES_MAX)
			assert_int_equal(ter_sb_replicas_add(pair->sb, &entry), 0);
		else if (!ter_sb_replicas_has(pair->sb, &entry))
			assert_int_equal(ter_sb_replicas_add(pair->sb, &entry), -ENOSPC);
	}
}

static void random_algos(struct sb_rng *rng, struct ter_algos *algos)
{
	for (unsigned i = 1; i <= TER_ALGO_SLOTS_MAX; i++) {
		struct ter_algo_slot *slot = &algos->slot[i];

		if (sb_rng_below(rng, 3))
			continue;
		slot->kind = (uint8_t)(1 + sb_rng_below(rng, TERRACE_ERASURE));
		random_bytes(rng, slot->uuid, sizeof(slot->uuid));
		slot->format = (uint32_t)sb_rng_u64(rng);
		(void)snprintf(slot->name, sizeof(slot->name), i % 2 ? "algo-%u" : "algo-%026u", i);
	}
}

static void random_roots(struct sb_rng *rng, struct sb_pair *pair)
{
	struct ter_sb *sb = pair->sb;
	uint64_t node_sectors = sb->options.btree_node_size / TER_SECTOR_BYTES;

	for (unsigned i = 0; i < TER_BTREE_ROOTS_MAX; i++) {
		struct ter_root *root = &sb->roots[i];
		unsigned idx = random_used(rng, pair->members);

		if (sb_rng_below(rng, 4) == 0)
			continue;
		root->btree = (uint8_t)i;
		root->present = true;
		root->level = (uint8_t)sb_rng_below(rng, TER_ROOT_LEVEL_MAX + 1);
		root->node_seq = sb_rng_u64(rng);
		root->sectors_written = (uint32_t)sb_rng_below(rng, node_sectors + 1);
		for (; idx < TER_DEVS_MAX && root->nr_ptrs < TER_BTREE_PTR_MAX; idx++) {
			const struct ter_dev *dev = &pair->members->dev[idx];
			uint64_t bucket;

			if (!dev->used)
				continue;
			bucket = dev->first_bucket + sb_rng_below(rng, dev->buckets_nr - dev->first_bucket);
			root->ptr[root->nr_ptrs].dev = (uint8_t)idx;
			root->ptr[root->nr_ptrs].gen = (uint32_t)sb_rng_u64(rng);
			root->ptr[root->nr_ptrs++].sector =
				bucket * dev->bucket_sectors + sb_rng_below(rng, dev->bucket_sectors / node_sectors) * node_sectors;
		}
	}
}

static void random_blacklist(struct sb_rng *rng, struct ter_sb *sb)
{
	uint64_t at = 0;

	sb->blacklist_nr = (unsigned)sb_rng_below(rng, TER_BLACKLIST_MAX + 1);
	for (unsigned i = 0; i < sb->blacklist_nr; i++) {
		at = sb->blacklist[i].first = at + 1 + sb_rng_below(rng, 1000);
		at = sb->blacklist[i].last = at + sb_rng_below(rng, 1000);
	}
}

/* What a later minor version may have added. */
static void random_unknown(struct sb_rng *rng, struct ter_sb *sb)
{
	unsigned sections = (unsigned)sb_rng_below(rng, 4);

	sb->version_minor = (uint16_t)sb_rng_u64(rng);
	sb->features_compat = sb_rng_u64(rng);
	for (unsigned id = 40; id < TER_OPTION_ID_MAX; id++) {
		struct ter_sb_unknown_option *opt = &sb->unknown_options[sb->unknown_options_nr];

		if (sb_rng_below(rng, 4))
			continue;
		opt->id = (uint16_t)id;
		opt->kind = (uint8_t)sb_rng_below(rng, 2);
		opt->value_bytes = opt->kind == TER_SB_OPTION_NUMBER ? 8 : (uint8_t)(1 + sb_rng_below(rng, TER_OPT_ALGO_MAX - 1));
		random_bytes(rng, opt->value, opt->value_bytes);
		sb->unknown_options_nr++;
	}
	if (!sections)
		return;
	sb->unknown = calloc(sections, 128);
	for (unsigned i = 0; i < sections; i++) {
		struct ter_sb_section_disk *section = (void *)((uint8_t *)sb->unknown + sb->unknown_bytes);
		size_t bytes = 8 + 8 * sb_rng_below(rng, 15);

		section->type = ter_le16_make((uint16_t)(TER_SB_SECTION_NR + sb_rng_below(rng, 60000)));
		section->bytes = ter_le32_make((uint32_t)bytes);
		random_bytes(rng, section + 1, bytes - 8);
		sb->unknown_bytes += bytes;
	}
}

static struct sb_pair pair_new(void)
{
	struct sb_pair pair = { .sb = calloc(1, sizeof(*pair.sb)), .members = calloc(1, sizeof(*pair.members)) };

	assert_non_null(pair.sb);
	assert_non_null(pair.members);
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		pair.members->dev[i].idx = i;
	pair.sb->version_major = TER_FORMAT_MAJOR;
	pair.sb->version_minor = TER_FORMAT_MINOR;
	return pair;
}

void sb_pair_free(struct sb_pair *pair)
{
	ter_sb_free(pair->sb);
	free(pair->members);
	*pair = (struct sb_pair){ 0 };
}

struct sb_pair sb_random_new(struct sb_rng *rng, unsigned devs_max)
{
	struct sb_pair pair = pair_new();
	struct ter_sb *sb = pair.sb;
	unsigned devs_nr = 1 + (unsigned)sb_rng_below(rng, devs_max);

	random_bytes(rng, sb->uuid, sizeof(sb->uuid));
	random_bytes(rng, sb->user_uuid, sizeof(sb->user_uuid));
	random_bytes(rng, sb->hash_key, sizeof(sb->hash_key));
	random_label(rng, sb->label);
	sb->seq = 1 + sb_rng_u64(rng) / 2;
	sb->created_ns = sb_rng_u64(rng);
	sb->initialized = sb_rng_below(rng, 2);
	random_options(rng, &sb->options);
	while (devs_nr > 0) {
		struct ter_dev *dev = &pair.members->dev[sb_rng_below(rng, TER_DEVS_MAX)];

		if (dev->used)
			continue;
		random_member(rng, dev, sb->options.bucket_size);
		pair.members->nr_slots = ter_max(pair.members->nr_slots, dev->idx + 1);
		devs_nr--;
	}
	pair.dev_idx = random_used(rng, pair.members);
	random_algos(rng, &sb->algos);
	random_replicas(rng, &pair);
	random_blacklist(rng, sb);
	random_unknown(rng, sb);
	if (sb_rng_below(rng, 2)) {
		sb->passes_required = sb_rng_u64(rng);
		sb->passes_unfixed = sb_rng_u64(rng);
	}
	if (sb_rng_below(rng, 2)) {
		sb->clean = true;
		sb->journal_seq_clean = sb_rng_u64(rng);
		sb->next_node_seq = sb_rng_u64(rng);
		sb->next_inum = sb_rng_u64(rng);
		random_roots(rng, &pair);
	}
	return pair;
}

struct sb_pair sb_sample_new(void)
{
	static const unsigned used[] = { 0, 1, 5 };
	struct sb_pair pair = pair_new();
	struct ter_sb *sb = pair.sb;
	struct sb_rng rng = { 1 };

	random_bytes(&rng, sb->uuid, sizeof(sb->uuid));
	random_bytes(&rng, sb->user_uuid, sizeof(sb->user_uuid));
	strcpy(sb->label, "media");
	sb->seq = 7;
	sb->created_ns = 1;
	ter_options_default(&sb->options);
	sb->options.bucket_size = 262144;
	strcpy(sb->options.compression.s, "zstd:3");
	for (unsigned i = 0; i < ARRAY_SIZE(used); i++) {
		struct ter_dev *dev = &pair.members->dev[used[i]];

		random_member(&rng, dev, sb->options.bucket_size);
		dev->state = TER_DEV_RW;
		dev->bytes = TER_MIB(64);
		dev->buckets_nr = 255;
		dev->first_bucket = 1;
		strcpy(dev->label, "hdd");
		memset(dev->journal, 0, sizeof(dev->journal));
		dev->journal[0] = (struct ter_bucket_range){ 1, 4 };
		dev->journal[1] = (struct ter_bucket_range){ 10, 2 };
	}
	pair.members->nr_slots = 6;
	pair.dev_idx = 1;
	for (unsigned i = 1; i <= 2; i++) {
		struct ter_algo_slot *slot = &sb->algos.slot[i];

		slot->kind = i == 1 ? TERRACE_CHECKSUM : TERRACE_COMPRESSION;
		slot->format = 1;
		strcpy(slot->name, i == 1 ? "crc32c" : "zstd");
		memset(slot->uuid, (int)i, sizeof(slot->uuid));
	}
	assert_int_equal(ter_sb_replicas_add(sb, &(struct ter_replicas_entry){ TER_DATA_BTREE, 2, 1, { 0, 1 } }), 0);
	assert_int_equal(ter_sb_replicas_add(sb, &(struct ter_replicas_entry){ TER_DATA_USER, 3, 2, { 0, 1, 5 } }), 0);
	sb->blacklist_nr = 2;
	sb->blacklist[0].first = 10, sb->blacklist[0].last = 20;
	sb->blacklist[1].first = 30, sb->blacklist[1].last = 30;
	sb->passes_required = 0x700;
	sb->passes_unfixed = 0x100;
	sb->clean = true;
	sb->journal_seq_clean = 40;
	for (unsigned i = 0; i < 2; i++)
		sb->roots[i] = (struct ter_root){ .btree = (uint8_t)i, .level = 1, .present = true, .node_seq = 3, .sectors_written = 8, .nr_ptrs = 2,
						  .ptr = { { 0, 1, 512 * 20 }, { 5, 2, 512 * 21 } } };
	return pair;
}

/* --- comparing --- */

static void assert_members_equal(const struct ter_members *a, const struct ter_members *b, bool clean)
{
	assert_int_equal(a->nr_slots, b->nr_slots);
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct ter_dev *x = &a->dev[i], *y = &b->dev[i];

		assert_int_equal(x->used, y->used);
		assert_int_equal(x->idx, y->idx);
		if (!x->used)
			continue;
		assert_memory_equal(x->uuid, y->uuid, sizeof(x->uuid));
		assert_int_equal(x->state, y->state);
		assert_int_equal(x->durability, y->durability);
		assert_int_equal(x->discard, y->discard);
		assert_string_equal(x->label, y->label);
		assert_int_equal(x->bytes, y->bytes);
		assert_int_equal(x->bucket_sectors, y->bucket_sectors);
		assert_int_equal(x->buckets_nr, y->buckets_nr);
		assert_int_equal(x->first_bucket, y->first_bucket);
		assert_int_equal(x->last_mount_ns, y->last_mount_ns);
		assert_int_equal(x->seen_seq, y->seen_seq);
		assert_int_equal(x->errors_since_ns, y->errors_since_ns);
		assert_int_equal(clean ? x->journal_at : 0, y->journal_at);
		assert_memory_equal(x->journal, y->journal, sizeof(x->journal));
		for (unsigned j = 0; j < TER_DEV_ERR_NR; j++)
			assert_int_equal(atomic_load(&x->errors[j]), atomic_load(&y->errors[j]));
	}
}

static void assert_root_equal(const struct ter_root *a, const struct ter_root *b)
{
	assert_int_equal(a->present, b->present);
	if (!a->present)
		return;
	assert_int_equal(a->btree, b->btree);
	assert_int_equal(a->level, b->level);
	assert_int_equal(a->node_seq, b->node_seq);
	assert_int_equal(a->sectors_written, b->sectors_written);
	assert_int_equal(a->nr_ptrs, b->nr_ptrs);
	for (unsigned i = 0; i < a->nr_ptrs; i++) {
		assert_int_equal(a->ptr[i].dev, b->ptr[i].dev);
		assert_int_equal(a->ptr[i].gen, b->ptr[i].gen);
		assert_int_equal(a->ptr[i].sector, b->ptr[i].sector);
	}
}

static void assert_sections_equal(const struct ter_sb *a, const struct ter_sb *b)
{
	for (unsigned i = 0; i <= TER_ALGO_SLOTS_MAX; i++) {
		assert_int_equal(a->algos.slot[i].kind, b->algos.slot[i].kind);
		assert_int_equal(a->algos.slot[i].format, b->algos.slot[i].format);
		assert_string_equal(a->algos.slot[i].name, b->algos.slot[i].name);
		assert_memory_equal(a->algos.slot[i].uuid, b->algos.slot[i].uuid, 16);
	}
	assert_int_equal(a->replicas_nr, b->replicas_nr);
	assert_memory_equal(a->replicas, b->replicas, a->replicas_nr * sizeof(a->replicas[0]));
	assert_int_equal(a->blacklist_nr, b->blacklist_nr);
	assert_memory_equal(a->blacklist, b->blacklist, a->blacklist_nr * sizeof(a->blacklist[0]));
	for (unsigned i = 0; i < TER_BTREE_ROOTS_MAX; i++)
		assert_root_equal(&a->roots[i], &b->roots[i]);
	assert_int_equal(a->passes_required, b->passes_required);
	assert_int_equal(a->passes_unfixed, b->passes_unfixed);
	assert_int_equal(a->unknown_bytes, b->unknown_bytes);
	if (a->unknown_bytes)
		assert_memory_equal(a->unknown, b->unknown, a->unknown_bytes);
	assert_int_equal(a->unknown_options_nr, b->unknown_options_nr);
	for (unsigned i = 0; i < a->unknown_options_nr; i++) {
		assert_int_equal(a->unknown_options[i].id, b->unknown_options[i].id);
		assert_int_equal(a->unknown_options[i].kind, b->unknown_options[i].kind);
		assert_int_equal(a->unknown_options[i].value_bytes, b->unknown_options[i].value_bytes);
		assert_memory_equal(a->unknown_options[i].value, b->unknown_options[i].value, a->unknown_options[i].value_bytes);
	}
}

void sb_assert_equal(const struct sb_pair *pair_a, const struct sb_pair *pair_b)
{
	const struct ter_sb *a = pair_a->sb, *b = pair_b->sb;

	assert_int_equal(pair_a->dev_idx, pair_b->dev_idx);
	assert_memory_equal(a->uuid, b->uuid, 16);
	assert_memory_equal(a->user_uuid, b->user_uuid, 16);
	assert_memory_equal(a->hash_key, b->hash_key, 16);
	assert_string_equal(a->label, b->label);
	assert_int_equal(a->version_major, b->version_major);
	assert_int_equal(a->version_minor, b->version_minor);
	assert_int_equal(a->seq, b->seq);
	assert_int_equal(a->features_incompat, b->features_incompat);
	assert_int_equal(a->features_compat, b->features_compat);
	assert_int_equal(a->created_ns, b->created_ns);
	assert_int_equal(a->clean, b->clean);
	assert_int_equal(a->initialized, b->initialized);
	assert_int_equal(a->journal_seq_clean, b->journal_seq_clean);
	assert_int_equal(a->next_node_seq, b->next_node_seq);
	assert_int_equal(a->next_inum, b->next_inum);
	for (const struct ter_option_info *info = ter_option_table; info->name; info++) {
		char text_a[TER_OPT_ALGO_MAX], text_b[TER_OPT_ALGO_MAX];

		assert_int_equal(ter_option_get_u64(&a->options, info), ter_option_get_u64(&b->options, info));
		assert_int_equal(ter_option_get_text(&a->options, info, text_a, sizeof(text_a)), 0);
		assert_int_equal(ter_option_get_text(&b->options, info, text_b, sizeof(text_b)), 0);
		assert_string_equal(text_a, text_b);
	}
	assert_sections_equal(a, b);
	assert_members_equal(pair_a->members, pair_b->members, a->clean);
}

struct ter_sb_section_disk *sb_section(void *buf, unsigned type)
{
	const struct ter_sb_disk *header = buf;

	for (size_t at = sizeof(*header); at < ter_le32_get(header->bytes);) {
		struct ter_sb_section_disk *section = (void *)((uint8_t *)buf + at);

		if (ter_le16_get(section->type) == type)
			return section;
		at += ter_le32_get(section->bytes);
	}
	return NULL;
}
