/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values of ALLOC and BACKPOINTER keys on disk, and their checked decoding. Keys of FREE_RANGE and SET have no value. */
#ifndef TER_ALLOC_FORMAT_H
#define TER_ALLOC_FORMAT_H

#include "btree/key.h"
#include "sb/members.h"

/* ALLOC at (member, bucket, 0), size 0, version 0. No key: all zero. */
enum { TER_ALLOC_NEED_DISCARD = 1 << 0 }; /* written to since it was last made free */
struct ter_alloc_disk {
	ter_le32 gen;          /* 0x00  generation that valid pointers into the bucket carry */
	uint8_t data_type;     /* 0x04  enum ter_data_type: sb, journal, btree, user, cached, parity, stripe; free when live_sectors is 0 and no flag is set */
	uint8_t flags;         /* 0x05  TER_ALLOC_*; an unknown bit is corruption */
	uint8_t zero[2];       /* 0x06 */
	ter_le32 live_sectors; /* 0x08  sum of `sectors` of the back references; sb and journal: the bucket's size. At most TER_ALLOC_LIVE_MAX() */
	ter_le32 zero2;        /* 0x0c */
};
TER_DISK_SIZE(struct ter_alloc_disk, 0x10);
TER_DISK_OFFSET(struct ter_alloc_disk, data_type, 4);
TER_DISK_OFFSET(struct ter_alloc_disk, flags, 5);
TER_DISK_OFFSET(struct ter_alloc_disk, live_sectors, 8);

/* Each stored sector may be shared by so many pieces of a cut extent, and each piece counts at least one sector. */
#define TER_LIVE_OFFSET_MAX 4096u
#define TER_ALLOC_LIVE_MAX(bucket_sectors) ((uint64_t)(bucket_sectors) * TER_LIVE_OFFSET_MAX)

/* BACKPOINTER at (member, sector << 12 | live_offset, 0), size 0, version 0. */
#define TER_BACKPOINTER_SHIFT 12
struct ter_backpointer_disk {
	ter_le64 inode, offset; /* 0x00  position of the key that points here; of a node: its greatest position */
	ter_le32 snapshot;      /* 0x10 */
	ter_le32 sectors;       /* 0x14  what it counts as in the bucket, 1..bucket */
	uint8_t btree;          /* 0x18  enum ter_btree_id */
	uint8_t level;          /* 0x19  0: a key in a leaf points here; n: a node of level n - 1 is here */
	uint8_t zero[6];        /* 0x1a */
};
TER_DISK_SIZE(struct ter_backpointer_disk, 0x20);
TER_DISK_OFFSET(struct ter_backpointer_disk, snapshot, 0x10);
TER_DISK_OFFSET(struct ter_backpointer_disk, sectors, 0x14);
TER_DISK_OFFSET(struct ter_backpointer_disk, btree, 0x18);
TER_DISK_OFFSET(struct ter_backpointer_disk, level, 0x19);

/* In memory. */
struct ter_bucket_value {
	uint32_t gen, live_sectors;
	uint8_t data_type;
	bool need_discard;
};
enum ter_bucket_state { TER_BUCKET_FREE, TER_BUCKET_USED, TER_BUCKET_EMPTY };
static inline enum ter_bucket_state ter_bucket_state(const struct ter_bucket_value *value)
{
	return value->live_sectors ? TER_BUCKET_USED : value->need_discard ? TER_BUCKET_EMPTY : TER_BUCKET_FREE;
}

struct ter_backpointer {
	struct ter_pos pos;
	uint32_t sectors;
	uint8_t btree, level;
};

static inline struct ter_pos ter_bucket_pos(unsigned dev_idx, uint64_t bucket)
{
	return TER_POS(dev_idx, bucket, 0);
}
static inline struct ter_pos ter_backpointer_pos(unsigned dev_idx, uint64_t sector, uint32_t live_offset)
{
	return TER_POS(dev_idx, sector << TER_BACKPOINTER_SHIFT | live_offset, 0);
}

/* Hostile keys: -EUCLEAN. @dev: the member that the position names. */
int ter_bucket_decode(const struct ter_key *key, const struct ter_dev *dev, struct ter_bucket_value *ret);
int ter_backpointer_decode(const struct ter_key *key, const struct ter_dev *dev, struct ter_backpointer *ret);
int ter_free_range_check(const struct ter_key *key, const struct ter_dev *dev);
int ter_need_discard_check(const struct ter_key *key, const struct ter_dev *dev);

void ter_bucket_encode(const struct ter_bucket_value *value, struct ter_alloc_disk *ret);
void ter_backpointer_encode(const struct ter_backpointer *bp, struct ter_backpointer_disk *ret);

#endif
