/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Btree nodes
 *
 * Input: flags (1 byte: bit 0 magics, sequence numbers and checksums are made right; bit 1 the newest journal sequence is 100), then the node's bytes. The node asked for is the one that its
 * header says it is. What is accepted is a set of keys in order, each is read, and it comes back the same when written and read again.
 */
#include "btree/node_codec.h"
#include "fuzz.h"
#include "real_codecs.h"
#include "values.h"

const size_t fuzz_memory_max = 16 << 20;

#define NODE_BYTES 16384u

static struct ter_pos pos_get(const struct ter_pos_disk *disk)
{
	return TER_POS(ter_le64_get(disk->inode), ter_le64_get(disk->offset), ter_le32_get(disk->snapshot));
}

/* Bsets one after the other, as their lengths say, for as long as they fit. */
static void make_right(const struct ter_node_geo *geo, uint8_t *buf, uint32_t bytes)
{
	struct ter_node_disk *node = (void *)buf;
	uint32_t at = 0;

	node->magic = ter_le64_make(TER_NODE_MAGIC ^ geo->uuid_xor);
	while (at < bytes) {
		const uint32_t skip = at ? 0 : (uint32_t)sizeof(*node);
		const uint32_t head = skip + (uint32_t)sizeof(struct ter_bset_disk);
		struct ter_bset_disk *bset = (void *)(buf + at + skip);
		uint32_t keys_bytes;

		if (bytes - at < head)
			return;
		bset->magic = ter_le64_make(TER_BSET_MAGIC ^ geo->uuid_xor);
		bset->node_seq = node->node_seq;
		keys_bytes = ter_le32_get(bset->keys_bytes);
		if (keys_bytes > bytes - at - head)
			return;
		if (!ter_algos_checksum(&geo->sb->algos, bset->csum_slot))
			bset->csum_slot = geo->csum_slot;
		memset(bset->csum, 0, sizeof(bset->csum));
		ter_algos_digest(&geo->sb->algos, bset->csum_slot, buf + at, head + keys_bytes, bset->csum);
		at += (uint32_t)ter_round_up(head + keys_bytes, geo->block_bytes);
	}
}

static void again(const struct ter_node_geo *geo, const struct ter_node_id *id, struct ter_keyset *keys)
{
	const uint32_t live = keys->live_bytes, nr = keys->live_nr;
	const uint32_t bytes = ter_bset_sectors(geo, true, live) << TER_SECTOR_SHIFT;
	struct ter_node_content content;
	const char *why = NULL;
	uint8_t *buf;

	if (bytes > geo->node_bytes)
		return;
	buf = calloc(1, bytes);
	if (!buf)
		abort();
	fuzz_check(ter_keyset_snap_live(keys, buf + TER_NODE_HEAD_BYTES) == nr);
	ter_bset_finish(geo, buf, id, id->node_seq, 7, live, nr);
	fuzz_check(ter_node_decode(geo, buf, bytes, id, UINT64_MAX, &content, &why) == 0);
	fuzz_check(content.keys.live_nr == nr && content.keys.live_bytes == live);
	ter_keyset_free(&content.keys);
	free(buf);
}

static void decode(const struct ter_node_geo *geo, uint8_t *buf, uint32_t bytes, uint64_t seq_max)
{
	const struct ter_node_disk *node = (const void *)buf;
	struct ter_node_id id = { 0 };
	struct ter_node_content content;
	const char *why = NULL;

	if (bytes >= sizeof(*node))
		id = (struct ter_node_id){ node->btree, node->level, pos_get(&node->min), pos_get(&node->max), ter_le64_get(node->node_seq) };
	if (ter_node_decode(geo, buf, bytes, &id, seq_max, &content, &why) < 0) {
		fuzz_check(why && why[0]);
		return;
	}
	fuzz_check(ter_keyset_verify(&content.keys) == 0);
	for (uint32_t i = ter_keyset_skip(&content.keys, 0); i < content.keys.nr; i = ter_keyset_skip(&content.keys, i + 1)) {
		fuzz_check(ter_keyset_lower(&content.keys, ter_keyset_pos(&content.keys, i)) == i);
		fuzz_value(ter_keyset_at(&content.keys, i));
	}
	again(geo, &id, &content.keys);
	ter_keyset_free(&content.keys);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = { data, size };
	const unsigned flags = (unsigned)fuzz_take(&in, 1);
	struct ter_node_geo geo;
	uint8_t *buf = fuzz_dup(&in, NODE_BYTES, &size);

	fuzz_check(ter_node_geo_init(&geo, fuzz_sb()) == 0 && geo.csum_slot);
	if ((flags & 1) && size >= TER_NODE_HEAD_BYTES)
		make_right(&geo, buf, (uint32_t)size);
	decode(&geo, buf, (uint32_t)size, flags & 2 ? 100 : UINT64_MAX);
	free(buf);
	return 0;
}
