/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keys: neighbours of a position, encoding, and the check of hostile bytes. */
#include <inttypes.h>
#include <stdio.h>

#include "btree/key.h"

const char *const ter_btree_names[TER_BTREE_NR] = {
#define x(id, name, text, owner) [id] = text,
	TER_BTREES(x)
#undef x
};

const char *const ter_key_type_names[TER_KEY_TYPE_NR] = {
#define x(id, name, text) [id] = text,
	TER_KEY_TYPES(x)
#undef x
};

struct ter_pos ter_pos_next(struct ter_pos pos)
{
	if (++pos.snapshot)
		return pos;
	if (++pos.offset)
		return pos;
	if (++pos.inode)
		return pos;
	return TER_POS_MAX;
}

struct ter_pos ter_pos_prev(struct ter_pos pos)
{
	if (pos.snapshot--)
		return pos;
	if (pos.offset--)
		return pos;
	if (pos.inode--)
		return pos;
	return TER_POS_MIN;
}

void ter_key_encode(const struct ter_key *key, void *dst)
{
	struct ter_key_disk *disk = dst;
	uint32_t padded = (uint32_t)ter_round_up(key->val_bytes, 8);

	*disk = (struct ter_key_disk){
		.inode = ter_le64_make(key->pos.inode),
		.offset = ter_le64_make(key->pos.offset),
		.snapshot = ter_le32_make(key->pos.snapshot),
		.size = ter_le32_make(key->size),
		.val_bytes = ter_le32_make(key->val_bytes),
		.type = key->type,
		.val_version = key->val_version,
	};
	if (!key->val_bytes)
		return;
	memcpy(disk + 1, key->val, key->val_bytes);
	memset((uint8_t *)(disk + 1) + key->val_bytes, 0, padded - key->val_bytes);
}

void ter_key_decode(const struct ter_key_disk *disk, struct ter_key *ret)
{
	*ret = (struct ter_key){
		.pos = ter_key_disk_pos(disk),
		.size = ter_le32_get(disk->size),
		.val_bytes = ter_le32_get(disk->val_bytes),
		.type = disk->type,
		.val_version = disk->val_version,
		.val = disk + 1,
	};
}

int ter_key_check(const void *bytes, size_t bytes_max)
{
	const struct ter_key_disk *disk = bytes;
	const uint8_t *val = (const uint8_t *)(disk + 1);
	uint32_t val_bytes, whole;

	if (bytes_max < sizeof(*disk))
		return -EUCLEAN;
	val_bytes = ter_le32_get(disk->val_bytes);
	if (val_bytes > TER_VAL_BYTES_MAX || disk->type >= TER_KEY_TYPE_NR)
		return -EUCLEAN;
	whole = ter_key_disk_bytes(val_bytes);
	if (whole > bytes_max || disk->zero[0] || disk->zero[1])
		return -EUCLEAN;
	if (disk->type == TER_KEY_DELETED && (val_bytes || ter_le32_get(disk->size)))
		return -EUCLEAN;
	for (uint32_t i = val_bytes; i < whole - sizeof(*disk); i++)
		if (val[i])
			return -EUCLEAN;
	return (int)whole;
}

const char *ter_pos_text(struct ter_pos pos, char buf[64])
{
	snprintf(buf, 64, "(%" PRIu64 ":%" PRIu64 ":%" PRIu32 ")", pos.inode, pos.offset, pos.snapshot);
	return buf;
}
