/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes of a node to content in memory and back. */
#include "btree/node_codec.h"

int ter_node_geo_init(struct ter_node_geo *geo, const struct ter_sb *sb)
{
	uint64_t uuid;

	*geo = (struct ter_node_geo){ .sb = sb, .block_bytes = sb->options.block_size, .node_bytes = sb->options.btree_node_size };
	if (!ter_is_pow2(geo->block_bytes) || geo->block_bytes < TER_SECTOR_BYTES || geo->node_bytes < 16384 || geo->node_bytes % geo->block_bytes)
		return -EINVAL;
	memcpy(&uuid, sb->uuid, sizeof(uuid));
	geo->uuid_xor = le64toh(uuid);
	for (unsigned i = 1; i <= TER_ALGO_SLOTS_MAX; i++)
		if (ter_algos_checksum(&sb->algos, i) && !strcmp(sb->algos.slot[i].name, sb->options.metadata_checksum.s))
			geo->csum_slot = (uint8_t)i;
	return 0;
}

/* --- pointers --- */

uint32_t ter_node_ptrs_encode(const struct ter_node_ptrs *ptrs, struct ter_btree_ptr_disk *disk)
{
	memset(disk, 0, sizeof(*disk));
	disk->node_seq = ter_le64_make(ptrs->node_seq);
	disk->sectors_written = ter_le32_make(ptrs->sectors_written);
	disk->nr_ptrs = ptrs->nr;
	disk->min_inode = ter_le64_make(ptrs->min.inode);
	disk->min_offset = ter_le64_make(ptrs->min.offset);
	disk->min_snapshot = ter_le32_make(ptrs->min.snapshot);
	for (unsigned i = 0; i < ptrs->nr; i++) {
		disk->ptr[i].sector = ter_le64_make(ptrs->ptr[i].sector);
		disk->ptr[i].gen = ter_le32_make(ptrs->ptr[i].gen);
		disk->ptr[i].dev = ptrs->ptr[i].dev;
	}
	return (uint32_t)offsetof(struct ter_btree_ptr_disk, ptr) + ptrs->nr * (uint32_t)sizeof(disk->ptr[0]);
}

int ter_node_ptrs_decode(const struct ter_node_geo *geo, const struct ter_key_disk *key, struct ter_node_ptrs *ret)
{
	const struct ter_btree_ptr_disk *disk = (const struct ter_btree_ptr_disk *)(key + 1);
	uint32_t val_bytes = ter_le32_get(key->val_bytes);
	struct ter_node_ptrs ptrs = { 0 };

	if (key->type != TER_KEY_BTREE_PTR || key->val_version || ter_le32_get(key->size) || val_bytes < offsetof(struct ter_btree_ptr_disk, ptr))
		return -EUCLEAN;
	ptrs.node_seq = ter_le64_get(disk->node_seq);
	ptrs.sectors_written = ter_le32_get(disk->sectors_written);
	ptrs.nr = disk->nr_ptrs;
	ptrs.min = TER_POS(ter_le64_get(disk->min_inode), ter_le64_get(disk->min_offset), ter_le32_get(disk->min_snapshot));
	if (!ptrs.nr || ptrs.nr > TER_NODE_PTRS_MAX || val_bytes != offsetof(struct ter_btree_ptr_disk, ptr) + ptrs.nr * sizeof(disk->ptr[0]))
		return -EUCLEAN;
	if (!ptrs.sectors_written || ptrs.sectors_written > geo->node_bytes >> TER_SECTOR_SHIFT ||
	    ptrs.sectors_written % (geo->block_bytes >> TER_SECTOR_SHIFT))
		return -EUCLEAN;
	if (ter_pos_cmp(ptrs.min, ter_key_disk_pos(key)) > 0)
		return -EUCLEAN;
	for (unsigned i = 0; i < ptrs.nr; i++) {
		ptrs.ptr[i].sector = ter_le64_get(disk->ptr[i].sector);
		ptrs.ptr[i].gen = ter_le32_get(disk->ptr[i].gen);
		ptrs.ptr[i].dev = disk->ptr[i].dev;
		if (ptrs.ptr[i].dev >= TER_DEVS_MAX || ptrs.ptr[i].sector > UINT64_MAX / TER_SECTOR_BYTES - TER_MIB(1))
			return -EUCLEAN;
	}
	*ret = ptrs;
	return 0;
}

/* --- writing --- */

static struct ter_pos_disk pos_make(struct ter_pos pos)
{
	return (struct ter_pos_disk){
		.inode = ter_le64_make(pos.inode), .offset = ter_le64_make(pos.offset), .snapshot = ter_le32_make(pos.snapshot)
	};
}

void ter_bset_finish(const struct ter_node_geo *geo, void *buf, const struct ter_node_id *id, uint64_t node_seq, uint64_t journal_seq, uint32_t keys_bytes,
		     uint32_t keys_nr)
{
	uint32_t head = (id ? TER_NODE_HEAD_BYTES : (uint32_t)sizeof(struct ter_bset_disk)) + keys_bytes;
	struct ter_bset_disk *bset = buf;
	struct ter_node_disk *node = buf;
	uint8_t csum[TER_DIGEST_MAX];

	if (id) {
		*node = (struct ter_node_disk){
			.magic = ter_le64_make(TER_NODE_MAGIC ^ geo->uuid_xor),
			.node_seq = ter_le64_make(id->node_seq),
			.btree = id->btree,
			.level = id->level,
			.min = pos_make(id->min),
			.max = pos_make(id->max),
		};
		bset = (struct ter_bset_disk *)(node + 1);
	}
	*bset = (struct ter_bset_disk){
		.magic = ter_le64_make(TER_BSET_MAGIC ^ geo->uuid_xor),
		.node_seq = ter_le64_make(node_seq),
		.journal_seq = ter_le64_make(journal_seq),
		.keys_bytes = ter_le32_make(keys_bytes),
		.keys_nr = ter_le32_make(keys_nr),
		.csum_slot = geo->csum_slot,
	};
	ter_algos_digest(&geo->sb->algos, geo->csum_slot, buf, head, csum);
	memcpy(bset->csum, csum, sizeof(bset->csum));
	memset((uint8_t *)buf + head, 0, ter_round_up(head, geo->block_bytes) - head);
}

/* --- reading --- */

static bool pos_is(const struct ter_pos_disk *disk, struct ter_pos pos)
{
	return ter_pos_cmp(TER_POS(ter_le64_get(disk->inode), ter_le64_get(disk->offset), ter_le32_get(disk->snapshot)), pos) == 0 &&
	       !ter_le32_get(disk->zero);
}

static bool all_zero(const uint8_t *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (p[i])
			return false;
	return true;
}

static int check_node_head(const struct ter_node_geo *geo, const struct ter_node_disk *node, const struct ter_node_id *id, const char **ret_why)
{
	*ret_why = "its header is not that of the node pointed to";
	if (ter_le64_get(node->magic) != (TER_NODE_MAGIC ^ geo->uuid_xor) || ter_le64_get(node->node_seq) != id->node_seq)
		return -EUCLEAN;
	if (node->btree != id->btree || node->level != id->level || !pos_is(&node->min, id->min) || !pos_is(&node->max, id->max))
		return -EUCLEAN;
	if (!all_zero(node->flags, sizeof(node->flags) + sizeof(node->zero)))
		return -EUCLEAN;
	return 0;
}

/* Keys of one bset: each well formed, of a type for the level, ascending, within the node. */
static int check_keys(const struct ter_node_geo *geo, const struct ter_node_id *id, const uint8_t *keys, uint32_t bytes, uint32_t keys_nr, const char **ret_why)
{
	const struct ter_key_disk *key;
	struct ter_pos last = id->min, pos;
	struct ter_node_ptrs ptrs;
	uint32_t nr = 0;
	int r;

	*ret_why = "a key in it is malformed";
	for (uint32_t at = 0; at < bytes; at += (uint32_t)r, nr++) {
		r = ter_key_check(keys + at, bytes - at);
		if (r < 0)
			return r;
		if ((uint32_t)r > ter_node_capacity(geo))
			return -EUCLEAN;
		key = (const struct ter_key_disk *)(keys + at);
		pos = ter_key_disk_pos(key);
		if (ter_pos_cmp(pos, last) < (nr ? 1 : 0) || ter_pos_cmp(pos, id->max) > 0) {
			*ret_why = "its keys are out of order or out of its range";
			return -EUCLEAN;
		}
		last = pos;
		if (key->type == TER_KEY_DELETED)
			continue;
		if (!id->level && key->type == TER_KEY_BTREE_PTR)
			return -EUCLEAN;
		if (id->level && (ter_node_ptrs_decode(geo, key, &ptrs) < 0 || ter_pos_cmp(ptrs.min, id->min) < 0))
			return -EUCLEAN;
	}
	return nr == keys_nr ? 0 : -EUCLEAN;
}

static bool blacklisted(const struct ter_sb *sb, uint64_t seq)
{
	for (unsigned i = 0; i < sb->blacklist_nr; i++)
		if (seq >= sb->blacklist[i].first && seq <= sb->blacklist[i].last)
			return true;
	return false;
}

/* The bset at @at: its length in *ret_bytes, and its keys merged into @ret. */
static int decode_bset(const struct ter_node_geo *geo, uint8_t *buf, uint32_t bytes, uint32_t at, const struct ter_node_id *id, uint64_t seq_max,
		       struct ter_node_content *ret, uint32_t *ret_bytes, const char **ret_why)
{
	uint32_t skip = at ? 0 : (uint32_t)sizeof(struct ter_node_disk), head = skip + (uint32_t)sizeof(struct ter_bset_disk), keys_bytes;
	struct ter_bset_disk *bset = (struct ter_bset_disk *)(buf + at + skip);
	uint8_t stored[TER_NODE_CSUM_BYTES], csum[TER_DIGEST_MAX];
	uint64_t seq;
	int r;

	*ret_why = "a bset's header is not where it should be";
	if (bytes - at < head || ter_le64_get(bset->magic) != (TER_BSET_MAGIC ^ geo->uuid_xor) || ter_le64_get(bset->node_seq) != id->node_seq)
		return -EUCLEAN;
	keys_bytes = ter_le32_get(bset->keys_bytes);
	if (keys_bytes > bytes - at - head || keys_bytes % 8 || !all_zero(bset->zero, sizeof(bset->zero)))
		return -EUCLEAN;
	*ret_why = "a bset has no checksum that this pool knows";
	if (!ter_algos_checksum(&geo->sb->algos, bset->csum_slot)) /* slot 0, too: its digest of zeros would let anything pass */
		return -EUCLEAN;
	*ret_why = "its checksum does not match";
	memcpy(stored, bset->csum, sizeof(stored));
	memset(bset->csum, 0, sizeof(bset->csum));
	ter_algos_digest(&geo->sb->algos, bset->csum_slot, buf + at, head + keys_bytes, csum);
	if (memcmp(stored, csum, sizeof(stored)))
		return -EBADMSG;
	*ret_bytes = (uint32_t)ter_round_up(head + keys_bytes, geo->block_bytes);
	seq = ter_le64_get(bset->journal_seq);
	if (blacklisted(geo->sb, seq)) {
		ret->truncated = true;
		return 0;
	}
	*ret_why = "it is newer than the journal";
	if (seq > seq_max)
		return -EUCLEAN;
	r = check_keys(geo, id, buf + at + head, keys_bytes, ter_le32_get(bset->keys_nr), ret_why);
	if (r < 0)
		return r;
	if (ret->newest_seq < seq)
		ret->newest_seq = seq;
	return ter_keyset_merge(&ret->keys, buf + at + head, keys_bytes, ter_le32_get(bset->keys_nr));
}

/* The children of an interior node follow each other without a gap. */
static int check_tiling(const struct ter_node_geo *geo, const struct ter_node_id *id, const struct ter_keyset *keys, const char **ret_why)
{
	struct ter_pos next = id->min;
	struct ter_node_ptrs ptrs;
	int r;

	*ret_why = "the ranges of its children do not fit together";
	for (uint32_t i = 0; i < keys->nr; i++) {
		r = ter_node_ptrs_decode(geo, ter_keyset_at(keys, i), &ptrs);
		if (r < 0)
			return r;
		if (ter_pos_cmp(ptrs.min, next) != 0)
			return -EUCLEAN;
		next = ter_pos_next(ter_keyset_pos(keys, i));
	}
	if (!keys->nr || ter_pos_cmp(ter_keyset_pos(keys, keys->nr - 1), id->max) != 0)
		return -EUCLEAN;
	return 0;
}

static int decode_all(const struct ter_node_geo *geo, uint8_t *buf, uint32_t bytes, const struct ter_node_id *id, uint64_t seq_max, struct ter_node_content *content,
		      const char **ret_why)
{
	uint32_t at = 0, len = 0;
	int r;

	*ret_why = "it is too short";
	if (bytes < TER_NODE_HEAD_BYTES || bytes > geo->node_bytes)
		return -EUCLEAN;
	r = check_node_head(geo, (const struct ter_node_disk *)buf, id, ret_why);
	if (r < 0)
		return r;
	while (at < bytes && !content->truncated) {
		r = decode_bset(geo, buf, bytes, at, id, seq_max, content, &len, ret_why);
		if (r < 0)
			return r;
		if (len > bytes - at) {
			*ret_why = "a bset goes on beyond what was written";
			return -EUCLEAN;
		}
		at += len;
	}
	return id->level ? check_tiling(geo, id, &content->keys, ret_why) : 0;
}

int ter_node_decode(const struct ter_node_geo *geo, void *buf, uint32_t bytes, const struct ter_node_id *id, uint64_t seq_max, struct ter_node_content *ret,
		    const char **ret_why)
{
	struct ter_node_content content = { 0 };
	int r;

	ter_keyset_init(&content.keys, id->level > 0);
	r = decode_all(geo, buf, bytes, id, seq_max, &content, ret_why);
	if (r < 0) {
		ter_keyset_free(&content.keys);
		return r;
	}
	*ret = content;
	return 0;
}

static struct ter_pos pos_get(const struct ter_pos_disk *disk)
{
	return TER_POS(ter_le64_get(disk->inode), ter_le64_get(disk->offset), ter_le32_get(disk->snapshot));
}

int ter_node_decode_found(const struct ter_node_geo *geo, void *buf, uint64_t seq_max, struct ter_node_id *ret_id, uint32_t *ret_bytes, struct ter_node_content *ret)
{
	const struct ter_node_disk *node = buf;
	const struct ter_node_id id = {
		.btree = node->btree, .level = node->level, .min = pos_get(&node->min), .max = pos_get(&node->max), .node_seq = ter_le64_get(node->node_seq),
	};
	struct ter_node_content content = { 0 };
	uint32_t at = 0, len = 0;
	const char *why;
	int r;

	if (id.btree >= TER_BTREE_NR || ter_pos_cmp(id.min, id.max) > 0)
		return -EUCLEAN;
	r = check_node_head(geo, node, &id, &why);
	if (r < 0)
		return r;
	ter_keyset_init(&content.keys, id.level > 0);
	while (at < geo->node_bytes) {
		r = decode_bset(geo, buf, geo->node_bytes, at, &id, seq_max, &content, &len, &why);
		if (r < 0 || len > geo->node_bytes - at || content.truncated)
			break;
		at += len;
	}
	if (r == -ENOMEM || !at) {
		ter_keyset_free(&content.keys);
		return r < 0 ? r : -EUCLEAN;
	}
	*ret_id = id;
	*ret_bytes = at;
	*ret = content;
	return 0;
}
