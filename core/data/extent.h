/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extents: the values in the extents btree, and cutting them
 *
 * The key's position is the extent's end (sector of the file), its size the length. Kinds: EXTENT (below), INLINE_DATA (the bytes themselves, from the key's start; the rest of
 * the last block reads as zeros), RESERVATION (zeros, space promised), ERROR (EIO).
 *
 *   E1  Extents of one inode do not overlap. Starts and ends are multiples of the pool's block, except INLINE_DATA's file end, which is rounded up to it.
 *   E2  An uncompressed extent can be cut at any multiple of its checksum block: pointers move, checksums are divided. Cut elsewhere, it keeps whole checksum blocks:
 *       live_offset and raw_sectors say which part is meant.
 *   E3  A compressed extent is cut by live_offset and key size only; what is stored stays whole.
 *   E4  Copies of an extent hold the same bytes.
 */
#ifndef TER_EXTENT_H
#define TER_EXTENT_H

#include "alloc/accounting.h"
#include "alloc/alloc.h"
#include "btree/key.h"

#define TER_EXTENT_SECTORS_MAX 4096u /* 2 MiB */
#define TER_EXTENT_CSUMS_MAX 512u

struct ter_extent_ptr_disk {
	ter_le64 sector; /* on the member */
	ter_le32 gen;    /* of the bucket */
	uint8_t dev;
	uint8_t flags;   /* TER_PTR_* */
	uint8_t zero[2];
};
TER_DISK_SIZE(struct ter_extent_ptr_disk, 16);
#define TER_PTR_CACHED 1u

/* Value of EXTENT: this, nr_ptrs pointers, then the checksums, digest_bytes each. */
struct ter_extent_disk {
	uint8_t nr_ptrs;          /* 1..4 */
	uint8_t nr_required;
	uint8_t csum_slot;        /* 0: none */
	uint8_t compression_slot; /* 0: none */
	uint8_t csum_block_log2;  /* bytes under one checksum (uncompressed) */
	uint8_t digest_bytes;     /* 0..32 */
	ter_le16 csums_nr;        /* compressed: 1; else stored / csum block */
	ter_le32 stored_sectors;  /* on each member; a multiple of the block */
	ter_le32 raw_sectors;     /* before compression; uncompressed: equals stored */
	ter_le32 live_offset;     /* sectors from the start of the raw data to the key's start */
	ter_le32 zero;
};
TER_DISK_SIZE(struct ter_extent_disk, 24);

/* Decoded; csums points into the key's value. */
struct ter_extent {
	uint64_t start;   /* sector of the file */
	uint32_t sectors; /* live: the key's size */
	uint8_t nr_ptrs, nr_required, csum_slot, compression_slot, csum_block_log2, digest_bytes;
	uint16_t csums_nr;
	uint32_t stored_sectors, raw_sectors, live_offset;
	struct { uint64_t sector; uint32_t gen; uint8_t dev, flags; } ptr[TER_REPLICAS_MAX];
	const uint8_t *csums;
};
#define TER_EXTENT_VAL_MAX (24 + 4 * 16 + TER_EXTENT_CSUMS_MAX * 32)

/* Hostile input: everything is checked against the pool's limits. -EUCLEAN. */
int ter_extent_decode(const struct ter_key *key, const struct ter_sb *sb, struct ter_extent *ret);
/* Into @val (TER_EXTENT_VAL_MAX); returns bytes. */
uint32_t ter_extent_encode(const struct ter_extent *extent, void *val);
/* Keep only [start, end) (sectors of the file, inside the extent): E2, E3. csums may be moved along in place. */
void ter_extent_cut(struct ter_extent *extent, uint64_t start, uint64_t end);
/* What each pointer counts as in its bucket: ceil(stored * live / raw) for compressed, stored for uncompressed. */
uint32_t ter_extent_ptr_sectors(const struct ter_extent *extent);

/*
 * Stage replacing whatever the range [start, end) of a file holds (whole keys deleted, edge keys cut, all derived keys and counters) by nothing. At most @keys_max keys are
 * touched: *ret_done_to says how far it came (from the front), == end when complete. *ret_sectors: change of the inode's allocated sectors (negative).
 */
int ter_extents_stage_punch(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_sb *sb, uint64_t inum, uint32_t snapshot, uint64_t start,
			    uint64_t end, unsigned keys_max, uint64_t *ret_done_to, int64_t *ret_sectors);
/* Where the sectors promised by RESERVATION keys are counted (alloc/accounting.h). */
static inline struct ter_pos ter_counter_reserved(void)
{
	return TER_POS((uint64_t)TER_COUNT_RESERVED << 56, 0, 0);
}
/* What a key in the extents btree counts as in its inode's allocated sectors: its size, but for ERROR. */
uint32_t ter_extent_key_sectors(const struct ter_key *key);
/* The device set of an extent, as a replicas entry (devs sorted; cached pointers do not count). */
void ter_extent_replicas(const struct ter_extent *extent, struct ter_replicas_entry *ret);
/* Repair: of this one key, whatever overlaps it, only what begins at @start stays (nothing, if that is its end), with derived keys and counters. -EUCLEAN: these contradict it. */
int ter_extents_stage_trim(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_sb *sb, const struct ter_key *key, uint64_t start);
/* Stage inserting one extent (or other kind) into an empty range, with derived keys and counters. */
int ter_extents_stage_insert(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_sb *sb, const struct ter_key *key, int64_t *ret_sectors);

#endif
