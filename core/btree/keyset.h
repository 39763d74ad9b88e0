/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The content of a node in memory: a sorted array of slots over an arena of encoded keys
 *
 *   A1  Slots are in ascending order of position, none twice. A slot caches 64 bits of the position (its tag): a map from positions that never falls, so that most
 *       comparisons of a search stay within the array.
 *   A2  A value of the same length overwrites in place. Otherwise the new key goes to the end of the arena and the old bytes are garbage, which is squeezed
 *       out when it is more than half.
 *   A3  WHITEOUT: the key is gone, but a bset on disk holds it (or will: ONDISK is set when a snapshot is taken). Its slot stays until the deletion is written.
 *       A key that no bset holds is removed outright.
 *   A4  DIRTY: changed since the last snapshot. WRITING: was dirty when the snapshot was taken, and that is not on disk yet.
 *   A5  After ter_keyset_reserve(nr, bytes), puts of at most nr keys of together at most bytes cannot fail.
 * Knows nothing of locks, journals or disks.
 */
#ifndef TER_KEYSET_H
#define TER_KEYSET_H

#include "btree/key.h"

struct ter_node;

enum {
	TER_SLOT_DIRTY = 1 << 0,
	TER_SLOT_WHITEOUT = 1 << 1,
	TER_SLOT_ONDISK = 1 << 2,
	TER_SLOT_WRITING = 1 << 3,
};
struct ter_slot {
	uint64_t tag;
	uint32_t off; /* of the key in the arena */
	uint32_t flags;
};

struct ter_keyset {
	struct ter_slot *slots;
	struct ter_node **children; /* of interior nodes, one a slot: the child if it is cached. Read and set with __atomic under a read lock */
	uint8_t *arena;
	uint32_t nr, max;
	uint32_t used, bytes, garbage; /* of the arena */
	uint32_t live_nr, live_bytes;  /* keys that are there, encoded */
	uint32_t dirty_nr, dirty_bytes; /* what a snapshot of the dirty keys would hold */
	bool interior;
	/* The map of tags (A1): bits of (inode - base_inode) above inode_shift, below them of (offset >> offset_shift); what does not fit is cut off at the end of its range. */
	uint8_t inode_shift, offset_shift;
	uint64_t base_inode;
};

void ter_keyset_init(struct ter_keyset *ks, bool interior);
void ter_keyset_free(struct ter_keyset *ks);
size_t ter_keyset_memory(const struct ter_keyset *ks);

static inline const struct ter_key_disk *ter_keyset_at(const struct ter_keyset *ks, uint32_t idx)
{
	return (const struct ter_key_disk *)(ks->arena + ks->slots[idx].off);
}
static inline struct ter_pos ter_keyset_pos(const struct ter_keyset *ks, uint32_t idx)
{
	return ter_key_disk_pos(ter_keyset_at(ks, idx));
}
static inline uint32_t ter_key_whole_bytes(const struct ter_key_disk *key)
{
	return ter_key_disk_bytes(ter_le32_get(key->val_bytes));
}
static inline bool ter_keyset_live(const struct ter_keyset *ks, uint32_t idx)
{
	return !(ks->slots[idx].flags & TER_SLOT_WHITEOUT);
}
/* The first slot at or after @pos, whiteouts included; ks->nr if none. */
uint32_t ter_keyset_lower(const struct ter_keyset *ks, struct ter_pos pos);
/* Is slot @idx (from ter_keyset_lower()) exactly at @pos? */
static inline bool ter_keyset_is(const struct ter_keyset *ks, uint32_t idx, struct ter_pos pos)
{
	return idx < ks->nr && ter_pos_cmp(ter_keyset_pos(ks, idx), pos) == 0;
}
/* The first key that is there at or after slot @idx; ks->nr if none. */
static inline uint32_t ter_keyset_skip(const struct ter_keyset *ks, uint32_t idx)
{
	while (idx < ks->nr && !ter_keyset_live(ks, idx))
		idx++;
	return idx;
}

/* -ENOMEM with nothing changed. */
int ter_keyset_reserve(struct ter_keyset *ks, uint32_t nr, uint32_t bytes);
/* Set the key at @idx: @found says that the slot there has that position. Becomes dirty. Room was reserved. */
void ter_keyset_put(struct ter_keyset *ks, uint32_t idx, bool found, const struct ter_key_disk *key);
/* Take the key at @idx away; true: its slot is gone, false: it stays as a whiteout. */
bool ter_keyset_remove(struct ter_keyset *ks, uint32_t idx);

/*
 * Merge checked, ordered keys (a bset, or the whole content when empty) over what is there, as read from disk: clean. -ENOMEM.
 */
int ter_keyset_merge(struct ter_keyset *ks, const void *keys, uint32_t bytes, uint32_t nr);

/* Snapshots: encode into @dst (dirty_bytes, or live_bytes long); what was dirty is now WRITING. Returns how many keys. */
uint32_t ter_keyset_snap_dirty(struct ter_keyset *ks, uint8_t *dst);
uint32_t ter_keyset_snap_live(struct ter_keyset *ks, uint8_t *dst);
/* The same of the slots before @end only; those behind stay as they are. */
uint32_t ter_keyset_snap_before(struct ter_keyset *ks, uint32_t end, uint8_t *dst);
/* The first slot that does not fit any more when @bytes_max of keys are taken from the front (*ret_bytes: what is taken). */
uint32_t ter_keyset_fitting(const struct ter_keyset *ks, uint32_t bytes_max, uint32_t *ret_bytes);
/* What bsets on disk hold of the slots from @from on and is still so. @dst may be NULL: only count. Returns how many keys. */
uint32_t ter_keyset_copy_clean(const struct ter_keyset *ks, uint32_t from, uint8_t *dst, uint32_t *ret_bytes);
/* The snapshot is on disk: written whiteouts go. Or it is not: what it held is dirty again. */
void ter_keyset_snap_end(struct ter_keyset *ks, bool written);

/* Invariants, for tests: 0 or -EUCLEAN. */
int ter_keyset_verify(const struct ter_keyset *ks);

#endif
