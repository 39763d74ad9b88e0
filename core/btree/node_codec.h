/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes of a node to content in memory and back; hostile bytes are refused here. No I/O, no locks. */
#ifndef TER_NODE_CODEC_H
#define TER_NODE_CODEC_H

#include "btree/keyset.h"
#include "btree/node_format.h"
#include "sb/sb.h"

/* What holds for all nodes of a pool. */
struct ter_node_geo {
	const struct ter_sb *sb; /* algorithms, blacklist, uuid */
	uint64_t uuid_xor;
	uint32_t block_bytes, node_bytes;
	uint8_t csum_slot; /* for what is written */
};
int ter_node_geo_init(struct ter_node_geo *geo, const struct ter_sb *sb); /* -EINVAL: sizes that no pool has */

/* Which node it is to be. */
struct ter_node_id {
	uint8_t btree, level;
	struct ter_pos min, max;
	uint64_t node_seq;
};

static inline uint32_t ter_bset_sectors(const struct ter_node_geo *geo, bool first, uint32_t keys_bytes)
{
	uint32_t head = first ? TER_NODE_HEAD_BYTES : (uint32_t)sizeof(struct ter_bset_disk);

	return (uint32_t)ter_round_up(head + keys_bytes, geo->block_bytes) >> TER_SECTOR_SHIFT;
}
/* Keys of one bset that fills the node; and the longest key that is let in, so that any mix of keys can be cut into nodes. */
static inline uint32_t ter_node_capacity(const struct ter_node_geo *geo)
{
	return geo->node_bytes - TER_NODE_HEAD_BYTES;
}
static inline uint32_t ter_node_key_bytes_max(const struct ter_node_geo *geo)
{
	return geo->node_bytes / 4 * 3 - TER_NODE_HEAD_BYTES;
}

/*
 * Fill in headers, checksum and zero padding of a bset in @buf of ter_bset_sectors() sectors, whose keys already stand behind the header(s). @id is given for the first.
 */
void ter_bset_finish(const struct ter_node_geo *geo, void *buf, const struct ter_node_id *id, uint64_t node_seq, uint64_t journal_seq, uint32_t keys_bytes,
		     uint32_t keys_nr);

struct ter_node_content {
	struct ter_keyset keys;
	uint64_t newest_seq; /* greatest journal_seq of the bsets */
	bool truncated;      /* blacklisted bsets were left out: rewrite, do not append */
};
/*
 * @buf (changed by us) holds the node's written sectors. @seq_max: journal sequences beyond cannot be (UINT64_MAX: not known). *ret_why: what is wrong, in words.
 * -EUCLEAN, -EBADMSG (a checksum), -ENOMEM. Sure to end and to stay within @bytes whatever they hold.
 */
int ter_node_decode(const struct ter_node_geo *geo, void *buf, uint32_t bytes, const struct ter_node_id *id, uint64_t seq_max, struct ter_node_content *ret,
		    const char **ret_why);

/*
 * The same of a node that nothing points to: @buf of node_bytes. What it is to be is what its header says (*ret_id); as many bsets as are good are taken, the first at least
 * (*ret_bytes: up to their end). Ranges of an interior node's children are not looked at.
 */
int ter_node_decode_found(const struct ter_node_geo *geo, void *buf, uint64_t seq_max, struct ter_node_id *ret_id, uint32_t *ret_bytes, struct ter_node_content *ret);

/* Value of BTREE_PTR. Decode: hostile; -EUCLEAN. */
#define TER_BTREE_PTR_BYTES_MAX ((uint32_t)sizeof(struct ter_btree_ptr_disk))
uint32_t ter_node_ptrs_encode(const struct ter_node_ptrs *ptrs, struct ter_btree_ptr_disk *disk); /* returns val_bytes */
int ter_node_ptrs_decode(const struct ter_node_geo *geo, const struct ter_key_disk *key, struct ter_node_ptrs *ret);

#endif
