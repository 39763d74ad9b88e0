/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Btree nodes on disk
 *
 * A node has a space of btree_node_size bytes on each of its replicas, which hold the same bytes. The space begins with struct ter_node_disk, and right after it the first
 * bset. A bset is struct ter_bset_disk and its keys (struct ter_key_disk, ascending positions, none twice). Each further bset begins at the next multiple of
 * block_size. The pointer to the node (struct ter_btree_ptr_disk, or struct ter_root for the root) says how many sectors are written: a multiple of
 * block_size which ends exactly where a bset does, rounded up. What lies beyond is not read.
 *
 * The content of the node is the merge of its bsets, the later one winning; keys of type DELETED take away. Interior nodes (level > 0) hold BTREE_PTR keys only,
 * whose ranges (min of the value .. position of the key) follow each other without a gap from the node's min to its max.
 *
 * A bset's checksum is computed with the algorithm in slot csum_slot over its header and keys, csum being 0; that of the first bset over the node's header, too.
 * A bset whose journal_seq is blacklisted in the superblock is ignored, as are those after it.
 */
#ifndef TER_NODE_FORMAT_H
#define TER_NODE_FORMAT_H

#include "btree/key.h"

#define TER_NODE_MAGIC 0x65646f6e72657474ull /* "tternode", xor the first 8 bytes of the pool's internal UUID */
#define TER_BSET_MAGIC 0x7465736272657474ull /* "tterbset", likewise */
#define TER_NODE_CSUM_BYTES 32

struct ter_pos_disk {
	ter_le64 inode;
	ter_le64 offset;
	ter_le32 snapshot;
	ter_le32 zero;
};
TER_DISK_SIZE(struct ter_pos_disk, 24);

struct ter_node_disk {
	ter_le64 magic;          /* 0x00 */
	ter_le64 node_seq;       /* 0x08 as in the pointer */
	uint8_t btree;           /* 0x10 enum ter_btree_id */
	uint8_t level;           /* 0x11 0: leaf */
	uint8_t flags[2];        /* 0x12 none known: written 0, checked 0 */
	uint8_t zero[4];         /* 0x14 */
	struct ter_pos_disk min; /* 0x18 least position that may be in the node */
	struct ter_pos_disk max; /* 0x30 greatest; the position of the pointer's key */
};
TER_DISK_SIZE(struct ter_node_disk, 0x48);
TER_DISK_OFFSET(struct ter_node_disk, max, 0x30);

struct ter_bset_disk {
	ter_le64 magic;                    /* 0x00 */
	ter_le64 node_seq;                 /* 0x08 as in the node's header */
	ter_le64 journal_seq;              /* 0x10 newest journal sequence among the changes within; 0: none later than the replay that made it */
	ter_le32 keys_bytes;               /* 0x18 */
	ter_le32 keys_nr;                  /* 0x1c */
	uint8_t csum_slot;                 /* 0x20 of the superblock's table of algorithms, not 0 */
	uint8_t zero[7];                   /* 0x21 */
	uint8_t csum[TER_NODE_CSUM_BYTES]; /* 0x28 the digest, padded with zeros */
};
TER_DISK_SIZE(struct ter_bset_disk, 0x48);
TER_DISK_OFFSET(struct ter_bset_disk, csum, 0x28);

#define TER_NODE_HEAD_BYTES ((uint32_t)(sizeof(struct ter_node_disk) + sizeof(struct ter_bset_disk)))

#endif
