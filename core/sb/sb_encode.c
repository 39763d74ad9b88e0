/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The superblock from memory to bytes. */
#include "sb/sb_format.h"
#include "util/crc32c.h"

/* Where the next bytes go. The first call that does not fit sets `full`, and nothing is written from then on. */
struct out {
	uint8_t *buf; /* TER_SB_BYTES_MAX, zeroed */
	size_t used;
	bool full;
};

/* Room for @bytes, rounded up to 8; never NULL: once full, a place to write in vain. */
static void *put(struct out *out, size_t bytes)
{
	void *at = out->buf + out->used;

	bytes = ter_round_up(bytes, 8);
	if (bytes > TER_SB_BYTES_MAX - out->used)
		out->full = true;
	if (out->full)
		return out->buf;
	out->used += bytes;
	return at;
}

static size_t section_begin(struct out *out, enum ter_sb_section_type type)
{
	size_t at = out->used;
	struct ter_sb_section_disk *section = put(out, sizeof(*section));

	section->type = ter_le16_make(type);
	return at;
}

static void section_end(struct out *out, size_t at)
{
	struct ter_sb_section_disk *section = (void *)(out->buf + at);

	if (!out->full)
		section->bytes = ter_le32_make((uint32_t)(out->used - at));
}

/* --- sections --- */

static void put_member(struct out *out, const struct ter_dev *dev, bool clean)
{
	struct ter_sb_member_disk *disk = put(out, sizeof(*disk));

	memcpy(disk->uuid, dev->uuid, sizeof(disk->uuid));
	disk->idx = (uint8_t)dev->idx;
	disk->state = (uint8_t)dev->state;
	disk->durability = dev->durability;
	disk->flags = dev->discard ? TER_SB_MEMBER_DISCARD : 0;
	disk->bytes = ter_le64_make(dev->bytes);
	disk->buckets_nr = ter_le64_make(dev->buckets_nr);
	disk->first_bucket = ter_le64_make(dev->first_bucket);
	disk->last_mount_ns = ter_le64_make(dev->last_mount_ns);
	disk->seen_seq = ter_le64_make(dev->seen_seq);
	for (unsigned i = 0; i < TER_DEV_ERR_NR; i++)
		disk->errors[i] = ter_le64_make(atomic_load(&dev->errors[i]));
	disk->errors_since_ns = ter_le64_make(dev->errors_since_ns);
	memcpy(disk->label, dev->label, strnlen(dev->label, TER_LABEL_MAX));
	disk->journal_at = ter_le32_make(clean ? dev->journal_at : 0);
}

static void put_members(struct out *out, const struct ter_members *members, bool clean)
{
	size_t at = section_begin(out, TER_SB_SECTION_MEMBERS);

	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (members->dev[i].used)
			put_member(out, &members->dev[i], clean);
	section_end(out, at);
}

static void put_option_value(struct out *out, const struct ter_options *opts, const struct ter_option_info *info)
{
	struct ter_sb_option_disk *disk = put(out, sizeof(*disk));

	disk->id = ter_le16_make(info->id);
	if (info->type == TER_OPT_ALGO) {
		const char *text = (const char *)opts + info->offset;
		size_t bytes = strnlen(text, TER_OPT_ALGO_MAX - 1);

		disk->kind = TER_SB_OPTION_TEXT;
		disk->value_bytes = (uint8_t)bytes;
		memcpy(put(out, bytes), text, bytes);
	} else {
		ter_le64 value = ter_le64_make(ter_option_get_u64(opts, info));

		disk->kind = TER_SB_OPTION_NUMBER;
		disk->value_bytes = sizeof(value);
		memcpy(put(out, sizeof(value)), &value, sizeof(value));
	}
}

static void put_unknown_option(struct out *out, const struct ter_sb_unknown_option *opt)
{
	struct ter_sb_option_disk *disk = put(out, sizeof(*disk));

	disk->id = ter_le16_make(opt->id);
	disk->kind = opt->kind;
	disk->value_bytes = opt->value_bytes;
	memcpy(put(out, opt->value_bytes), opt->value, opt->value_bytes);
}

/* An absent option has its default. One that came later is left out then: superblocks stay as they were where nobody uses it. */
static bool is_left_out(const struct ter_options *opts, const struct ter_option_info *info)
{
	return info->id == TER_OPTION_fsck_memory && ter_option_get_u64(opts, info) == info->def;
}

static void put_options(struct out *out, const struct ter_sb *sb)
{
	size_t at = section_begin(out, TER_SB_SECTION_OPTIONS);

	for (unsigned id = 1; id < TER_OPTION_ID_MAX; id++) {
		const struct ter_option_info *info = ter_option_by_id(id);

		if (info && !is_left_out(&sb->options, info))
			put_option_value(out, &sb->options, info);
		for (unsigned i = 0; i < sb->unknown_options_nr; i++)
			if (!info && sb->unknown_options[i].id == id)
				put_unknown_option(out, &sb->unknown_options[i]);
	}
	section_end(out, at);
}

static void put_algos(struct out *out, const struct ter_algos *algos)
{
	size_t at = section_begin(out, TER_SB_SECTION_ALGOS);

	for (unsigned i = 1; i <= TER_ALGO_SLOTS_MAX; i++) {
		const struct ter_algo_slot *slot = &algos->slot[i];

		if (!slot->kind)
			continue;

		struct ter_sb_algo_disk *disk = put(out, sizeof(*disk));

		disk->slot = (uint8_t)i;
		disk->kind = slot->kind;
		disk->format = ter_le32_make(slot->format);
		memcpy(disk->uuid, slot->uuid, sizeof(disk->uuid));
		memcpy(disk->name, slot->name, strnlen(slot->name, TERRACE_NAME_MAX));
	}
	section_end(out, at);
}

static void put_replicas(struct out *out, const struct ter_sb *sb)
{
	size_t at = section_begin(out, TER_SB_SECTION_REPLICAS);

	for (unsigned i = 0; i < sb->replicas_nr; i++) {
		struct ter_sb_replicas_disk *disk = put(out, sizeof(*disk));

		disk->data_type = sb->replicas[i].data_type;
		disk->nr_devs = sb->replicas[i].nr_devs;
		disk->nr_required = sb->replicas[i].nr_required;
		memcpy(disk->devs, sb->replicas[i].devs, sizeof(disk->devs));
	}
	section_end(out, at);
}

static void put_journal(struct out *out, const struct ter_members *members)
{
	size_t at = section_begin(out, TER_SB_SECTION_JOURNAL);

	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct ter_dev *dev = &members->dev[i];

		for (unsigned j = 0; dev->used && j < TER_JOURNAL_RANGES_MAX && dev->journal[j].nr; j++) {
			struct ter_sb_journal_disk *disk = put(out, sizeof(*disk));

			disk->dev_idx = (uint8_t)i;
			disk->first = ter_le64_make(dev->journal[j].first);
			disk->nr = ter_le64_make(dev->journal[j].nr);
		}
	}
	section_end(out, at);
}

void ter_root_encode(const struct ter_root *root, struct ter_root_disk *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->btree = root->btree;
	if (!root->present)
		return;
	ret->flags = TER_ROOT_FLAG_PRESENT;
	ret->level = root->level;
	ret->nr_ptrs = root->nr_ptrs;
	ret->sectors_written = ter_le32_make(root->sectors_written);
	ret->node_seq = ter_le64_make(root->node_seq);
	for (unsigned i = 0; i < root->nr_ptrs && i < TER_BTREE_PTR_MAX; i++) {
		ret->ptr[i].sector = ter_le64_make(root->ptr[i].sector);
		ret->ptr[i].gen = ter_le32_make(root->ptr[i].gen);
		ret->ptr[i].dev = root->ptr[i].dev;
	}
}

static void put_clean(struct out *out, const struct ter_sb *sb)
{
	size_t at = section_begin(out, TER_SB_SECTION_CLEAN);
	struct ter_sb_clean_disk *disk = put(out, sizeof(*disk));

	disk->journal_seq = ter_le64_make(sb->journal_seq_clean);
	disk->next_node_seq = ter_le64_make(sb->next_node_seq);
	disk->next_inum = ter_le64_make(sb->next_inum);
	for (unsigned i = 0; i < TER_BTREE_ROOTS_MAX; i++)
		if (sb->roots[i].present)
			ter_root_encode(&sb->roots[i], put(out, sizeof(struct ter_root_disk)));
	section_end(out, at);
}

static void put_blacklist(struct out *out, const struct ter_sb *sb)
{
	size_t at = section_begin(out, TER_SB_SECTION_BLACKLIST);

	for (unsigned i = 0; i < sb->blacklist_nr; i++) {
		struct ter_sb_blacklist_disk *disk = put(out, sizeof(*disk));

		disk->first = ter_le64_make(sb->blacklist[i].first);
		disk->last = ter_le64_make(sb->blacklist[i].last);
	}
	section_end(out, at);
}

static void put_recovery(struct out *out, const struct ter_sb *sb)
{
	size_t at = section_begin(out, TER_SB_SECTION_RECOVERY);
	struct ter_sb_recovery_disk *disk = put(out, sizeof(*disk));

	disk->required = ter_le64_make(sb->passes_required);
	disk->unfixed = ter_le64_make(sb->passes_unfixed);
	section_end(out, at);
}

/* --- the whole --- */

uint32_t ter_sb_checksum(const void *buf)
{
	const struct ter_sb_disk *header = buf;
	const size_t after = offsetof(struct ter_sb_disk, crc32c) + sizeof(header->crc32c);
	static const uint8_t zero[sizeof(header->crc32c)];
	uint32_t crc = ter_crc32c(0, buf, offsetof(struct ter_sb_disk, crc32c));

	crc = ter_crc32c(crc, zero, sizeof(zero));
	return ter_crc32c(crc, (const uint8_t *)buf + after, ter_le32_get(header->bytes) - after);
}

void ter_sb_retarget(void *buf, unsigned dev_idx, uint64_t copy_offset_bytes)
{
	struct ter_sb_disk *header = buf;

	header->dev_idx = (uint8_t)dev_idx;
	header->copy_offset_bytes = ter_le64_make(copy_offset_bytes);
	header->crc32c = ter_le32_make(ter_sb_checksum(buf));
}

static void fill_header(struct ter_sb_disk *header, const struct ter_sb *sb, const struct ter_members *members, size_t bytes)
{
	memcpy(header->magic, TER_SB_MAGIC, sizeof(header->magic));
	header->bytes = ter_le32_make((uint32_t)bytes);
	header->version_major = ter_le16_make(sb->version_major);
	header->version_minor = ter_le16_make(sb->version_minor);
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		header->devs_nr += members->dev[i].used;
	header->flags = (sb->clean ? TER_SB_FLAG_CLEAN : 0) | (sb->initialized ? TER_SB_FLAG_INITIALIZED : 0);
	header->seq = ter_le64_make(sb->seq);
	header->features_incompat = ter_le64_make(sb->features_incompat);
	header->features_compat = ter_le64_make(sb->features_compat);
	header->created_ns = ter_le64_make(sb->created_ns);
	memcpy(header->uuid, sb->uuid, sizeof(header->uuid));
	memcpy(header->user_uuid, sb->user_uuid, sizeof(header->user_uuid));
	memcpy(header->hash_key, sb->hash_key, sizeof(header->hash_key));
	memcpy(header->label, sb->label, strnlen(sb->label, TER_LABEL_MAX));
}

int ter_sb_encode(const struct ter_sb *sb, const struct ter_members *members, unsigned dev_idx, void *buf)
{
	struct out out = { .buf = buf };

	assert(dev_idx < TER_DEVS_MAX);
	memset(buf, 0, TER_SB_BYTES_MAX);
	(void)put(&out, sizeof(struct ter_sb_disk)); /* filled last: while full, writes in vain land there */

	put_members(&out, members, sb->clean);
	put_options(&out, sb);
	put_algos(&out, &sb->algos);
	put_replicas(&out, sb);
	put_journal(&out, members);
	if (sb->clean)
		put_clean(&out, sb);
	put_blacklist(&out, sb);
	if (sb->passes_required | sb->passes_unfixed)
		put_recovery(&out, sb);
	if (sb->unknown_bytes > TER_SB_BYTES_MAX - out.used)
		out.full = true;
	if (out.full)
		return -E2BIG;
	if (sb->unknown_bytes)
		memcpy(put(&out, sb->unknown_bytes), sb->unknown, sb->unknown_bytes);

	fill_header(buf, sb, members, out.used);
	ter_sb_retarget(buf, dev_idx, TER_SB_SLOT0_BYTES);
	return (int)out.used;
}
