/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The superblock from bytes to memory. The bytes are hostile: a matching checksum says only that somebody computed it.
 *
 * Each section is parsed on its own (shape, ranges), in any order; what relates sections to one another is checked when all are there.
 */
#include "sb/sb_format.h"
#include "util/mem.h"
#include "util/uuid.h"

#define TER_MEMBER_BYTES_MAX INT64_MAX /* an off_t can address it */

struct decoder {
	struct ter_sb *sb;
	struct ter_members *members;
	struct ter_error *error;
	size_t bytes;         /* of the whole copy */
	uint32_t seen;        /* bit per known section type */
	uint64_t options_seen; /* bit per option id */
	unsigned devs_nr;
};

/* What is wrong is for whoever debugs an image; the person gets the same first half. */
#define bad(dec, fmt, ...) ter_fail((dec)->error, TER_ERR_CORRUPTED, "The superblock is damaged: " fmt ".", ##__VA_ARGS__)

static bool is_zero(const uint8_t *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (p[i])
			return false;
	return true;
}

/* A string padded with NULs to the end of its field. @ret has room for @bytes + 1. */
static bool get_string(const uint8_t *field, size_t bytes, char *ret)
{
	size_t used = strnlen((const char *)field, bytes);

	if (!is_zero(field + used, bytes - used))
		return false;
	memcpy(ret, field, used);
	memset(ret + used, 0, bytes + 1 - used);
	return true;
}

static bool get_label(const uint8_t field[TER_LABEL_MAX], char *ret)
{
	return get_string(field, TER_LABEL_MAX, ret) && ter_label_valid(ret, NULL);
}

/* --- members --- */

static int parse_member(struct decoder *dec, const struct ter_sb_member_disk *disk, int *last_idx)
{
	struct ter_dev *dev;

	if (disk->idx >= TER_DEVS_MAX || (int)disk->idx <= *last_idx)
		return bad(dec, "member slot %u is out of range or order", disk->idx);
	if (!is_zero(disk->zero1, sizeof(disk->zero1)) || !is_zero(disk->zero2, sizeof(disk->zero2)))
		return bad(dec, "member %u has unused bytes that are not 0", disk->idx);
	if (ter_uuid_is_null(disk->uuid))
		return bad(dec, "member %u has no UUID", disk->idx);
	if (disk->state >= TER_DEV_STATE_NR || disk->durability > TER_REPLICAS_MAX || disk->flags & ~TER_SB_MEMBER_FLAGS_KNOWN)
		return bad(dec, "state, durability or flags of member %u are out of range", disk->idx);

	dev = &dec->members->dev[disk->idx];
	if (!get_label(disk->label, dev->label))
		return bad(dec, "the label of member %u is not valid", disk->idx);
	dev->used = true;
	memcpy(dev->uuid, disk->uuid, sizeof(dev->uuid));
	dev->state = disk->state;
	dev->durability = disk->durability;
	dev->discard = disk->flags & TER_SB_MEMBER_DISCARD;
	dev->bytes = ter_le64_get(disk->bytes);
	dev->buckets_nr = ter_le64_get(disk->buckets_nr);
	dev->first_bucket = ter_le64_get(disk->first_bucket);
	dev->last_mount_ns = ter_le64_get(disk->last_mount_ns);
	dev->seen_seq = ter_le64_get(disk->seen_seq);
	for (unsigned i = 0; i < TER_DEV_ERR_NR; i++)
		atomic_init(&dev->errors[i], ter_le64_get(disk->errors[i]));
	dev->errors_since_ns = ter_le64_get(disk->errors_since_ns);
	dev->journal_at = dec->sb->clean ? ter_le32_get(disk->journal_at) : 0;

	*last_idx = disk->idx;
	dec->members->nr_slots = disk->idx + 1u;
	dec->devs_nr++;
	return 0;
}

static int parse_members(struct decoder *dec, const uint8_t *body, size_t bytes)
{
	const struct ter_sb_member_disk *disk = (const void *)body;
	int last_idx = -1, r;

	if (bytes % sizeof(*disk))
		return bad(dec, "the members section has an odd size");
	for (size_t i = 0; i < bytes / sizeof(*disk); i++) {
		r = parse_member(dec, &disk[i], &last_idx);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- options --- */

static int keep_unknown_option(struct decoder *dec, const struct ter_sb_option_disk *disk, const uint8_t *value)
{
	struct ter_sb *sb = dec->sb;

	assert(sb->unknown_options_nr < TER_OPTION_ID_MAX); /* ids are below that, and ascend */
	struct ter_sb_unknown_option *opt = &sb->unknown_options[sb->unknown_options_nr++];

	opt->id = ter_le16_get(disk->id);
	opt->kind = disk->kind;
	opt->value_bytes = disk->value_bytes;
	memcpy(opt->value, value, disk->value_bytes);
	return 0;
}

static int parse_option_value(struct decoder *dec, const struct ter_option_info *info, const struct ter_sb_option_disk *disk, const uint8_t *value)
{
	if ((disk->kind == TER_SB_OPTION_TEXT) != (info->type == TER_OPT_ALGO))
		return bad(dec, "option %s has a value of the wrong kind", info->name);

	if (disk->kind == TER_SB_OPTION_TEXT) {
		ter_opt_algo text = { 0 };

		memcpy(text.s, value, disk->value_bytes);
		if (strlen(text.s) != disk->value_bytes || !ter_option_valid_text(info, text.s))
			return bad(dec, "option %s has a value that is not valid", info->name);
		memcpy((char *)&dec->sb->options + info->offset, &text, sizeof(text));
	} else {
		ter_le64 number;

		memcpy(&number, value, sizeof(number));
		if (!ter_option_valid_u64(info, ter_le64_get(number)))
			return bad(dec, "option %s has a value out of range", info->name);
		ter_option_store_u64(&dec->sb->options, info, ter_le64_get(number));
	}
	return 0;
}

static int parse_options(struct decoder *dec, const uint8_t *body, size_t bytes)
{
	unsigned last_id = 0;
	size_t at = 0;
	int r;

	while (at < bytes) {
		const struct ter_sb_option_disk *disk = (const void *)(body + at);
		unsigned id;
		size_t value_bytes;

		if (bytes - at < sizeof(*disk))
			return bad(dec, "the options section is cut short");
		id = ter_le16_get(disk->id);
		if (id <= last_id || id >= TER_OPTION_ID_MAX)
			return bad(dec, "option %u is out of range or order", id);
		if (!is_zero(disk->zero, sizeof(disk->zero)))
			return bad(dec, "option %u has unused bytes that are not 0", id);
		if (disk->kind > TER_SB_OPTION_TEXT || (disk->kind == TER_SB_OPTION_NUMBER && disk->value_bytes != 8) || disk->value_bytes == 0 ||
		    disk->value_bytes > TER_OPT_ALGO_MAX - 1)
			return bad(dec, "option %u has a value of no known kind", id);
		at += sizeof(*disk);
		value_bytes = ter_round_up(disk->value_bytes, 8);
		if (bytes - at < value_bytes)
			return bad(dec, "the options section is cut short");
		if (!is_zero(body + at + disk->value_bytes, value_bytes - disk->value_bytes))
			return bad(dec, "option %u has unused bytes that are not 0", id);

		const struct ter_option_info *info = ter_option_by_id(id);

		r = info ? parse_option_value(dec, info, disk, body + at) : keep_unknown_option(dec, disk, body + at);
		if (r < 0)
			return r;
		dec->options_seen |= UINT64_C(1) << id;
		last_id = id;
		at += value_bytes;
	}
	return 0;
}
_Static_assert(TER_OPTION_ID_MAX <= 64, "bits of options_seen");

/* --- algorithms --- */

static bool algo_name_valid(const char *name)
{
	size_t bytes = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return bytes >= 1 && !name[bytes] && strcmp(name, "none") != 0;
}

static bool algo_taken(const struct ter_algos *algos, const struct ter_algo_slot *one)
{
	for (unsigned i = 1; i <= TER_ALGO_SLOTS_MAX; i++) {
		const struct ter_algo_slot *slot = &algos->slot[i];

		if (slot->kind == one->kind && (!memcmp(slot->uuid, one->uuid, sizeof(one->uuid)) || !strcmp(slot->name, one->name)))
			return true;
	}
	return false;
}

static int parse_algos(struct decoder *dec, const uint8_t *body, size_t bytes)
{
	const struct ter_sb_algo_disk *disk = (const void *)body;
	unsigned last = 0;

	if (bytes % sizeof(*disk))
		return bad(dec, "the algorithms section has an odd size");
	for (; bytes; disk++, bytes -= sizeof(*disk)) {
		struct ter_algo_slot slot = { .kind = disk->kind, .format = ter_le32_get(disk->format) };

		if (disk->slot <= last || disk->slot > TER_ALGO_SLOTS_MAX)
			return bad(dec, "algorithm slot %u is out of range or order", disk->slot);
		if (disk->kind < TERRACE_COMPRESSION || disk->kind > TERRACE_ERASURE || !is_zero(disk->zero, sizeof(disk->zero)))
			return bad(dec, "algorithm slot %u is of no known kind", disk->slot);
		memcpy(slot.uuid, disk->uuid, sizeof(slot.uuid));
		if (ter_uuid_is_null(slot.uuid) || disk->name[TERRACE_NAME_MAX] || !get_string(disk->name, TERRACE_NAME_MAX, slot.name) ||
		    !algo_name_valid(slot.name))
			return bad(dec, "algorithm slot %u has no valid name or UUID", disk->slot);
		if (algo_taken(&dec->sb->algos, &slot))
			return bad(dec, "algorithm slot %u repeats another one", disk->slot);
		last = disk->slot;
		dec->sb->algos.slot[last] = slot;
	}
	return 0;
}

/* --- replicas --- */

static int parse_replicas(struct decoder *dec, const uint8_t *body, size_t bytes)
{
	const struct ter_sb_replicas_disk *disk = (const void *)body;
	struct ter_sb *sb = dec->sb;
	size_t nr = bytes / sizeof(*disk);

	/* Sections are multiples of 8, as is an entry. */
	if (nr > TER_REPLICAS_ENTRIES_MAX)
		return bad(dec, "there are %zu replicas entries", nr);
	for (size_t i = 0; i < nr; i++) {
		struct ter_replicas_entry *entry = &sb->replicas[i];

		*entry = (struct ter_replicas_entry){ disk[i].data_type, disk[i].nr_devs, disk[i].nr_required, { 0 } };
		memcpy(entry->devs, disk[i].devs, sizeof(entry->devs));
		if (disk[i].zero || !ter_replicas_entry_valid(entry))
			return bad(dec, "replicas entry %zu is malformed", i);
		if (i && memcmp(&sb->replicas[i - 1], entry, sizeof(*entry)) >= 0)
			return bad(dec, "replicas entry %zu is out of order", i);
	}
	sb->replicas_nr = (unsigned)nr;
	return 0;
}
_Static_assert(sizeof(struct ter_sb_replicas_disk) == 8, "divides every section");

/* --- journal --- */

static int parse_journal(struct decoder *dec, const uint8_t *body, size_t bytes)
{
	const struct ter_sb_journal_disk *disk = (const void *)body;
	unsigned idx = 0, nr = 0; /* member, its ranges so far */

	if (bytes % sizeof(*disk))
		return bad(dec, "the journal section has an odd size");
	for (; bytes; disk++, bytes -= sizeof(*disk)) {
		struct ter_bucket_range range = { ter_le64_get(disk->first), ter_le64_get(disk->nr) };

		if (disk->dev_idx < idx || disk->dev_idx >= TER_DEVS_MAX || !is_zero(disk->zero, sizeof(disk->zero)))
			return bad(dec, "a journal range of member %u is out of order", disk->dev_idx);
		if (disk->dev_idx != idx) {
			idx = disk->dev_idx;
			nr = 0;
		}
		if (nr >= TER_JOURNAL_RANGES_MAX)
			return bad(dec, "member %u has too many journal ranges", idx);
		if (range.nr == 0)
			return bad(dec, "member %u has an empty journal range", idx);
		dec->members->dev[idx].journal[nr++] = range;
	}
	return 0;
}

/* --- clean --- */

int ter_root_decode(const struct ter_root_disk *disk, struct ter_root *ret)
{
	struct ter_root root = { .btree = disk->btree };
	uint64_t devs = 0;

	if (disk->btree >= TER_BTREE_ROOTS_MAX || disk->flags & ~TER_ROOT_FLAG_PRESENT)
		return -EUCLEAN;
	if (!(disk->flags & TER_ROOT_FLAG_PRESENT)) {
		if (!is_zero(&disk->level, sizeof(*disk) - offsetof(struct ter_root_disk, level)))
			return -EUCLEAN;
		*ret = root;
		return 0;
	}
	root.present = true;
	root.level = disk->level;
	root.nr_ptrs = disk->nr_ptrs;
	root.sectors_written = ter_le32_get(disk->sectors_written);
	root.node_seq = ter_le64_get(disk->node_seq);
	if (root.level > TER_ROOT_LEVEL_MAX || root.nr_ptrs == 0 || root.nr_ptrs > TER_BTREE_PTR_MAX)
		return -EUCLEAN;
	for (unsigned i = 0; i < TER_BTREE_PTR_MAX; i++) {
		const struct ter_root_ptr_disk *ptr = &disk->ptr[i];

		if (i >= root.nr_ptrs) {
			if (!is_zero((const uint8_t *)ptr, sizeof(*ptr)))
				return -EUCLEAN;
			continue;
		}
		if (ptr->dev >= TER_DEVS_MAX || devs >> ptr->dev & 1 || !is_zero(ptr->zero, sizeof(ptr->zero)))
			return -EUCLEAN;
		devs |= UINT64_C(1) << ptr->dev;
		root.ptr[i].dev = ptr->dev;
		root.ptr[i].gen = ter_le32_get(ptr->gen);
		root.ptr[i].sector = ter_le64_get(ptr->sector);
	}
	*ret = root;
	return 0;
}
_Static_assert(TER_DEVS_MAX <= 64, "bits of a member mask");

static int parse_clean(struct decoder *dec, const uint8_t *body, size_t bytes)
{
	const struct ter_sb_clean_disk *disk = (const void *)body;
	const struct ter_root_disk *root_disk = (const void *)(disk + 1);
	struct ter_sb *sb = dec->sb;
	int last = -1, r;

	if (bytes < sizeof(*disk) || (bytes - sizeof(*disk)) % sizeof(*root_disk))
		return bad(dec, "the clean section has an odd size");
	sb->journal_seq_clean = ter_le64_get(disk->journal_seq);
	sb->next_node_seq = ter_le64_get(disk->next_node_seq);
	sb->next_inum = ter_le64_get(disk->next_inum);
	for (bytes -= sizeof(*disk); bytes; root_disk++, bytes -= sizeof(*root_disk)) {
		struct ter_root root;

		r = ter_root_decode(root_disk, &root);
		if (r < 0 || !root.present || (int)root.btree <= last)
			return bad(dec, "the root of btree %u is malformed or out of order", root_disk->btree);
		last = root.btree;
		sb->roots[root.btree] = root;
	}
	return 0;
}

/* --- blacklist --- */

static int parse_blacklist(struct decoder *dec, const uint8_t *body, size_t bytes)
{
	const struct ter_sb_blacklist_disk *disk = (const void *)body;
	struct ter_sb *sb = dec->sb;
	uint64_t last = 0;

	if (bytes % sizeof(*disk) || bytes / sizeof(*disk) > TER_BLACKLIST_MAX)
		return bad(dec, "the blacklist has an odd size");
	for (; bytes; disk++, bytes -= sizeof(*disk)) {
		uint64_t first = ter_le64_get(disk->first), end = ter_le64_get(disk->last);

		if (first <= last || end < first)
			return bad(dec, "blacklist entry %u is out of order", sb->blacklist_nr);
		sb->blacklist[sb->blacklist_nr].first = first;
		sb->blacklist[sb->blacklist_nr++].last = end;
		last = end;
	}
	return 0;
}

/* --- recovery --- */

static int parse_recovery(struct decoder *dec, const uint8_t *body, size_t bytes)
{
	const struct ter_sb_recovery_disk *disk = (const void *)body;

	if (!bytes)
		return 0;
	if (bytes != sizeof(*disk) || !is_zero(disk->zero, sizeof(disk->zero)))
		return bad(dec, "the recovery section is malformed");
	dec->sb->passes_required = ter_le64_get(disk->required);
	dec->sb->passes_unfixed = ter_le64_get(disk->unfixed);
	return 0;
}

/* --- walking the sections --- */

static int keep_unknown_section(struct decoder *dec, const struct ter_sb_section_disk *section, size_t bytes)
{
	struct ter_sb *sb = dec->sb;

	if (!sb->unknown)
		sb->unknown = ter_malloc(dec->bytes); /* all of them fit */
	if (!sb->unknown)
		return -ENOMEM;
	memcpy((uint8_t *)sb->unknown + sb->unknown_bytes, section, bytes);
	sb->unknown_bytes += bytes;
	return 0;
}

static int parse_section(struct decoder *dec, const struct ter_sb_section_disk *section, size_t bytes)
{
	static int (*const parse[TER_SB_SECTION_NR])(struct decoder *dec, const uint8_t *body, size_t bytes) = {
		[TER_SB_SECTION_MEMBERS] = parse_members,   [TER_SB_SECTION_OPTIONS] = parse_options,     [TER_SB_SECTION_ALGOS] = parse_algos,
		[TER_SB_SECTION_REPLICAS] = parse_replicas, [TER_SB_SECTION_JOURNAL] = parse_journal,     [TER_SB_SECTION_CLEAN] = parse_clean,
		[TER_SB_SECTION_BLACKLIST] = parse_blacklist, [TER_SB_SECTION_RECOVERY] = parse_recovery,
	};
	unsigned type = ter_le16_get(section->type);

	if (type == 0 || ter_le16_get(section->zero))
		return bad(dec, "a section has no type");
	if (type >= TER_SB_SECTION_NR)
		return keep_unknown_section(dec, section, bytes); /* S6 */
	if (dec->seen >> type & 1)
		return bad(dec, "section %u is there twice", type);
	dec->seen |= 1u << type;
	return parse[type](dec, (const uint8_t *)(section + 1), bytes - sizeof(*section));
}

static int parse_sections(struct decoder *dec, const uint8_t *buf)
{
	size_t at = sizeof(struct ter_sb_disk);
	int r;

	while (at < dec->bytes) {
		const struct ter_sb_section_disk *section = (const void *)(buf + at);
		size_t bytes = ter_le32_get(section->bytes); /* both multiples of 8: the section's header is within */

		if (bytes < sizeof(*section) || bytes % 8 || bytes > dec->bytes - at)
			return bad(dec, "the section at byte %zu has a size of %zu", at, bytes);
		r = parse_section(dec, section, bytes);
		if (r < 0)
			return r;
		at += bytes;
	}
	return 0;
}

/* --- the header --- */

static int check_head(const struct ter_sb_disk *header, size_t bytes, struct ter_error *error)
{
	size_t used;

	if (bytes < sizeof(*header) || memcmp(header->magic, TER_SB_MAGIC, sizeof(header->magic)) != 0)
		return ter_fail_errno(error, -ENODATA, "There is no Terrace superblock.");
	used = ter_le32_get(header->bytes);
	if (used < sizeof(*header) || used > ter_min(bytes, (size_t)TER_SB_BYTES_MAX) || used % 8)
		return ter_fail(error, TER_ERR_CORRUPTED, "The superblock is damaged: its size is %zu.", used);
	if (ter_le32_get(header->crc32c) != ter_sb_checksum(header))
		return ter_fail(error, TER_ERR_CHECKSUM_MISMATCH, "The superblock is damaged: its checksum does not match.");
	if (ter_le16_get(header->version_major) != TER_FORMAT_MAJOR)
		return ter_fail(error, TER_ERR_INCOMPATIBLE_VERSION,
				"The pool has format %u.%u, this version of Terrace reads format %u only. Use the version that wrote it.",
				ter_le16_get(header->version_major), ter_le16_get(header->version_minor), TER_FORMAT_MAJOR);
	if (ter_le64_get(header->features_incompat) & ~TER_SB_FEATURES_INCOMPAT_KNOWN)
		return ter_fail(error, TER_ERR_INCOMPATIBLE_VERSION,
				"The pool uses features that this version of Terrace does not know (bits 0x%llx). Use the version that wrote it.",
				(unsigned long long)(ter_le64_get(header->features_incompat) & ~TER_SB_FEATURES_INCOMPAT_KNOWN));
	return 0;
}

static int parse_header(struct decoder *dec, const struct ter_sb_disk *header)
{
	struct ter_sb *sb = dec->sb;

	if (header->zero1 || !is_zero(header->zero2, sizeof(header->zero2)) || header->flags & ~TER_SB_FLAGS_KNOWN)
		return bad(dec, "unused bytes of its header are not 0");
	if (ter_uuid_is_null(header->uuid) || !get_label(header->label, sb->label))
		return bad(dec, "UUID or label are not valid");
	memcpy(sb->uuid, header->uuid, sizeof(sb->uuid));
	memcpy(sb->user_uuid, header->user_uuid, sizeof(sb->user_uuid));
	memcpy(sb->hash_key, header->hash_key, sizeof(sb->hash_key));
	sb->version_major = ter_le16_get(header->version_major);
	sb->version_minor = ter_le16_get(header->version_minor);
	sb->seq = ter_le64_get(header->seq);
	sb->features_incompat = ter_le64_get(header->features_incompat);
	sb->features_compat = ter_le64_get(header->features_compat);
	sb->created_ns = ter_le64_get(header->created_ns);
	sb->clean = header->flags & TER_SB_FLAG_CLEAN;
	sb->initialized = header->flags & TER_SB_FLAG_INITIALIZED;
	if (sb->seq == 0)
		return bad(dec, "its sequence number is 0");
	return 0;
}

/* --- relations between sections --- */

static int check_presence(struct decoder *dec, const struct ter_sb_disk *header)
{
	const uint64_t geometry = UINT64_C(1) << TER_OPTION_block_size | UINT64_C(1) << TER_OPTION_bucket_size | UINT64_C(1) << TER_OPTION_btree_node_size;
	const struct ter_options *opts = &dec->sb->options;
	struct ter_error why = { 0 };

	if (!(dec->seen >> TER_SB_SECTION_MEMBERS & 1) || !(dec->seen >> TER_SB_SECTION_OPTIONS & 1))
		return bad(dec, "a section is missing");
	if (dec->sb->clean != (dec->seen >> TER_SB_SECTION_CLEAN & 1))
		return bad(dec, "its clean flag and its clean section disagree");
	if (header->devs_nr != dec->devs_nr || !ter_member(dec->members, header->dev_idx))
		return bad(dec, "its header and its members disagree");
	if ((dec->options_seen & geometry) != geometry || !opts->bucket_size)
		return bad(dec, "its block, bucket or node size is missing");
	if (ter_options_check(opts, &why) < 0)
		return bad(dec, "its options contradict one another (%s)", why.text);
	return 0;
}

/* -1 for members that cannot hold three copies. */
static int64_t tail_offset(const struct ter_dev *dev)
{
	uint64_t offset[TER_SB_COPIES];

	if (dev->bytes > TER_MEMBER_BYTES_MAX || dev->bytes < TER_SB_AREA_BYTES + TER_SB_TAIL_BYTES + TER_SB_ALIGN)
		return -1;
	ter_sb_copy_offsets(dev->bytes, offset);
	return (int64_t)offset[TER_SB_COPIES - 1];
}

static int check_geometry(struct decoder *dec, struct ter_dev *dev)
{
	uint64_t bucket_bytes = dec->sb->options.bucket_size;
	int64_t tail = tail_offset(dev);

	dev->bucket_sectors = (uint32_t)(bucket_bytes >> TER_SECTOR_SHIFT);
	if (tail < 0 || dev->buckets_nr < TER_MEMBER_BUCKETS_MIN || dev->buckets_nr > (uint64_t)tail / bucket_bytes)
		return bad(dec, "member %u of %llu bytes cannot have %llu buckets", dev->idx, (unsigned long long)dev->bytes,
			   (unsigned long long)dev->buckets_nr);
	if (dev->first_bucket >= dev->buckets_nr || dev->first_bucket < (TER_SB_AREA_BYTES + bucket_bytes - 1) / bucket_bytes)
		return bad(dec, "the first bucket of member %u is out of range", dev->idx);
	return 0;
}

static int check_journal_ranges(struct decoder *dec, const struct ter_dev *dev)
{
	for (unsigned i = 0; i < TER_JOURNAL_RANGES_MAX && dev->journal[i].nr; i++) {
		const struct ter_bucket_range *a = &dev->journal[i];

		if (a->first < dev->first_bucket || a->first >= dev->buckets_nr || a->nr > dev->buckets_nr - a->first)
			return bad(dec, "a journal range of member %u is not within it", dev->idx);
		for (unsigned j = 0; j < i; j++) {
			const struct ter_bucket_range *b = &dev->journal[j];

			if (a->first < b->first + b->nr && b->first < a->first + a->nr)
				return bad(dec, "journal ranges of member %u overlap", dev->idx);
		}
	}
	return 0;
}

static int check_members(struct decoder *dec)
{
	struct ter_members *members = dec->members;
	int r;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		struct ter_dev *dev = &members->dev[i];

		if (!dev->used) {
			if (dev->journal[0].nr)
				return bad(dec, "there is a journal range of member %u, which there is not", i);
			continue;
		}
		for (unsigned j = 0; j < i; j++)
			if (members->dev[j].used && !memcmp(members->dev[j].uuid, dev->uuid, sizeof(dev->uuid)))
				return bad(dec, "members %u and %u have the same UUID", j, i);
		r = check_geometry(dec, dev);
		if (r < 0)
			return r;
		r = check_journal_ranges(dec, dev);
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_replicas(struct decoder *dec)
{
	for (unsigned i = 0; i < dec->sb->replicas_nr; i++)
		for (unsigned j = 0; j < dec->sb->replicas[i].nr_devs; j++)
			if (!ter_member(dec->members, dec->sb->replicas[i].devs[j]))
				return bad(dec, "replicas entry %u names a member that there is not", i);
	return 0;
}

static int check_root(struct decoder *dec, const struct ter_root *root)
{
	uint64_t node_sectors = dec->sb->options.btree_node_size >> TER_SECTOR_SHIFT;

	if (root->sectors_written > node_sectors)
		return bad(dec, "the root of btree %u is longer than a node", root->btree);
	for (unsigned i = 0; i < root->nr_ptrs; i++) {
		const struct ter_dev *dev = ter_member(dec->members, root->ptr[i].dev);
		uint64_t sector = root->ptr[i].sector, bucket;

		if (!dev)
			return bad(dec, "the root of btree %u is on a member that there is not", root->btree);
		bucket = sector / dev->bucket_sectors;
		if (bucket < dev->first_bucket || bucket >= dev->buckets_nr || sector % dev->bucket_sectors + node_sectors > dev->bucket_sectors)
			return bad(dec, "the root of btree %u is not within a bucket", root->btree);
	}
	return 0;
}

static int check_relations(struct decoder *dec, const struct ter_sb_disk *header)
{
	int r;

	r = check_presence(dec, header);
	if (r < 0)
		return r;
	r = check_members(dec);
	if (r < 0)
		return r;
	r = check_replicas(dec);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < TER_BTREE_ROOTS_MAX; i++) {
		if (!dec->sb->roots[i].present)
			continue;
		r = check_root(dec, &dec->sb->roots[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- the whole --- */

void ter_sb_free(struct ter_sb *sb)
{
	if (!sb)
		return;
	free(sb->unknown);
	free(sb);
}

static int decode_into(struct decoder *dec, const void *buf)
{
	int r;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		dec->members->dev[i].idx = i;
	ter_options_default(&dec->sb->options);
	r = parse_header(dec, buf);
	if (r < 0)
		return r;
	r = parse_sections(dec, buf);
	if (r < 0)
		return r;
	return check_relations(dec, buf);
}

int ter_sb_decode(const void *buf, size_t bytes, struct ter_sb **ret_sb, struct ter_members **ret_members, unsigned *ret_dev_idx, struct ter_error *error)
{
	const struct ter_sb_disk *header = buf;
	struct decoder dec = { .error = error };
	int r;

	r = check_head(header, bytes, error);
	if (r < 0)
		return r;

	dec.bytes = ter_le32_get(header->bytes);
	dec.sb = ter_new(struct ter_sb);
	dec.members = ter_new(struct ter_members);
	r = dec.sb && dec.members ? decode_into(&dec, buf) : -ENOMEM;
	if (r < 0) {
		ter_sb_free(dec.sb);
		free(dec.members);
		return r == -ENOMEM ? ter_fail_errno(error, r, "There is not enough memory to read the superblock.") : r;
	}
	*ret_sb = dec.sb;
	*ret_members = dec.members;
	*ret_dev_idx = header->dev_idx;
	return 0;
}
