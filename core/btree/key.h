/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keys: positions, types, and their encoding on disk (also the encoding in memory and in the journal)
 *
 * Ids of btrees and key types are on disk for ever: never reused, rows may move. What a key type's value holds is defined by the room that owns it.
 */
#ifndef TER_KEY_H
#define TER_KEY_H

#include "util/base.h"

/* x(id, NAME, text, owner's room, what position and value mean) */
#define TER_BTREES(x)                                                                                                  \
	x(0, EXTENTS, "extents", data)             /* (inode, end sector, snapshot), size in sectors */                \
	x(1, INODES, "inodes", fs)                 /* (inode, 0, snapshot) */                                          \
	x(2, DIRENTS, "dirents", fs)               /* (directory, hash of name, snapshot) */                           \
	x(3, XATTRS, "xattrs", fs)                 /* (inode, hash of name, snapshot) */                               \
	x(4, ALLOC, "alloc", alloc)                /* (member, bucket, 0) */                                           \
	x(5, FREESPACE, "freespace", alloc)        /* (member, end bucket, 0), size in buckets: free ranges */         \
	x(6, NEED_DISCARD, "need_discard", alloc)  /* (member, bucket, 0) */                                           \
	x(7, BACKPOINTERS, "backpointers", alloc)  /* (member, sector, 0): who points there */                         \
	x(8, LRU, "lru", alloc)                                                                                        \
	x(9, REFLINK, "reflink", data)                                                                                 \
	x(10, STRIPES, "stripes", data)                                                                                \
	x(11, SNAPSHOTS, "snapshots", fs)                                                                              \
	x(12, SUBVOLUMES, "subvolumes", fs)                                                                            \
	x(13, QUOTAS, "quotas", fs)                                                                                    \
	x(14, REBALANCE_WORK, "rebalance_work", data)                                                                  \
	x(15, DELETED_INODES, "deleted_inodes", fs) /* (inode, 0, snapshot): unlinked, to be reaped */                 \
	x(16, ACCOUNTING, "accounting", alloc)     /* counters, see alloc/accounting.h */                               \
	x(17, DAMAGED, "damaged", fs)              /* (inode, 0, snapshot): data of this file is known to be lost */

enum ter_btree_id {
#define x(id, name, text, owner) TER_BTREE_##name = id,
	TER_BTREES(x)
#undef x
	TER_BTREE_NR = 18,
};
extern const char *const ter_btree_names[TER_BTREE_NR];

#define TER_KEY_TYPES(x)                                                                                               \
	x(0, DELETED, "deleted")          /* in bsets and journal: the key is gone */                                  \
	x(1, BTREE_PTR, "btree_ptr")      /* interior nodes: where a child is; its position is the child's greatest */ \
	x(2, EXTENT, "extent")                                                                                         \
	x(3, INLINE_DATA, "inline_data")                                                                               \
	x(4, RESERVATION, "reservation")  /* fallocate: space promised, reads as zeros */                              \
	x(5, INODE, "inode")                                                                                           \
	x(6, DIRENT, "dirent")                                                                                         \
	x(7, XATTR, "xattr")                                                                                           \
	x(8, ALLOC, "alloc")                                                                                           \
	x(9, FREE_RANGE, "free_range")                                                                                 \
	x(10, SET, "set")                 /* presence is all: need_discard, deleted inodes */                          \
	x(11, BACKPOINTER, "backpointer")                                                                              \
	x(12, COUNTERS, "counters")       /* 1..TER_COUNTERS_MAX le64, signed */                                       \
	x(13, ERROR, "error")             /* a range whose data is known to be lost: reads are EIO */                            \
	x(14, DAMAGE, "damage")           /* what is known of a damaged file */

enum ter_key_type {
#define x(id, name, text) TER_KEY_##name = id,
	TER_KEY_TYPES(x)
#undef x
	TER_KEY_TYPE_NR = 15,
};
extern const char *const ter_key_type_names[TER_KEY_TYPE_NR];

struct ter_pos {
	uint64_t inode, offset;
	uint32_t snapshot;
};
#define TER_SNAPSHOT_ROOT UINT32_MAX
#define TER_POS(i, o, s) ((struct ter_pos){ .inode = (i), .offset = (o), .snapshot = (s) })
#define TER_POS_MIN TER_POS(0, 0, 0)
#define TER_POS_MAX TER_POS(UINT64_MAX, UINT64_MAX, UINT32_MAX)

static inline int ter_pos_cmp(struct ter_pos a, struct ter_pos b)
{
	if (a.inode != b.inode)
		return a.inode < b.inode ? -1 : 1;
	if (a.offset != b.offset)
		return a.offset < b.offset ? -1 : 1;
	return a.snapshot == b.snapshot ? 0 : a.snapshot < b.snapshot ? -1 : 1;
}
/* The next greater position; TER_POS_MAX stays. */
struct ter_pos ter_pos_next(struct ter_pos pos);
struct ter_pos ter_pos_prev(struct ter_pos pos); /* TER_POS_MIN stays */

#define TER_VAL_BYTES_MAX 65535u

/* 32 bytes, then the value, padded with zeros to 8. */
struct ter_key_disk {
	ter_le64 inode;
	ter_le64 offset;
	ter_le32 snapshot;
	ter_le32 size;       /* extents: sectors or buckets before offset; else 0 */
	ter_le32 val_bytes;  /* at most TER_VAL_BYTES_MAX */
	uint8_t type;        /* enum ter_key_type */
	uint8_t val_version; /* of the value's encoding; 0 first */
	uint8_t zero[2];
};
TER_DISK_SIZE(struct ter_key_disk, 32);
TER_DISK_OFFSET(struct ter_key_disk, val_bytes, 24);

/* A key in host form; @val points to the encoded value (8-byte aligned). */
struct ter_key {
	struct ter_pos pos;
	uint32_t size;
	uint32_t val_bytes;
	uint8_t type, val_version;
	const void *val;
};
static inline uint32_t ter_key_disk_bytes(uint32_t val_bytes)
{
	return 32 + (uint32_t)ter_round_up(val_bytes, 8);
}
static inline struct ter_pos ter_key_disk_pos(const struct ter_key_disk *k)
{
	return TER_POS(ter_le64_get(k->inode), ter_le64_get(k->offset), ter_le32_get(k->snapshot));
}
/* Start of an extent-like key. */
static inline uint64_t ter_key_start(const struct ter_key *k)
{
	return k->pos.offset - k->size;
}
/* Encode into @dst (ter_key_disk_bytes() long, padding zeroed); decode a view into @disk (no copy). */
void ter_key_encode(const struct ter_key *key, void *dst);
void ter_key_decode(const struct ter_key_disk *disk, struct ter_key *ret);
/* Hostile bytes: header fits @bytes_max, type known, lengths in range. Return: whole length, or -EUCLEAN. */
int ter_key_check(const void *bytes, size_t bytes_max);
/* Format "(inode:offset:snapshot)". Returns @buf. */
const char *ter_pos_text(struct ter_pos pos, char buf[64]);

/* Value of BTREE_PTR (btree room). */
#define TER_NODE_PTRS_MAX 4
struct ter_btree_ptr_disk {
	ter_le64 node_seq;        /* also in the node: another number there means it is not this node */
	ter_le32 sectors_written; /* bsets beyond are not read */
	uint8_t nr_ptrs;          /* 1..4 */
	uint8_t zero[3];
	ter_le64 min_inode, min_offset; /* least position in the child */
	ter_le32 min_snapshot;
	ter_le32 zero2;
	struct {
		ter_le64 sector;  /* on the member */
		ter_le32 gen;     /* of the bucket */
		uint8_t dev;
		uint8_t zero[3];
	} ptr[TER_NODE_PTRS_MAX]; /* nr_ptrs of them are stored */
};
TER_DISK_SIZE(struct ter_btree_ptr_disk, 104);

/* In memory. */
struct ter_node_ptr {
	uint8_t dev;
	uint32_t gen;
	uint64_t sector;
};
struct ter_node_ptrs {
	uint64_t node_seq;
	uint32_t sectors_written;
	uint8_t nr;
	struct ter_pos min;
	struct ter_node_ptr ptr[TER_NODE_PTRS_MAX];
};

#endif
