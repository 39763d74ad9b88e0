/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repairing the allocator's relations (B1, B3, B4)
 *
 * What is derived (ALLOC, FREESPACE, NEED_DISCARD, BACKPOINTERS, the members' counters) is compared with what points into the buckets, and made equal. Structure changes and write-back go on
 * meanwhile and need space, so the first thing is to make that safe:
 *
 *   begin      nothing is given out and nothing discarded. What is staged does not mind contradictions any more: a relation that is wrong is left for the passes.
 *   mark, open what is pointed to is marked, one bit a bucket. Space is given out from buckets that are not marked and free by their keys, whatever FREESPACE and the counters say.
 *   end        back to normal; the counters are read anew
 *
 * Fixes are found first and applied afterwards: each only where the key is still what it was (what changed meanwhile is looked at again in the next round).
 */
#ifndef TER_ALLOC_REPAIR_H
#define TER_ALLOC_REPAIR_H

#include "alloc/alloc.h"
#include "alloc/alloc_format.h"
#include "util/repair.h"

/* --- guard --- */
int ter_alloc_repair_begin(struct ter_alloc *alloc); /* best before ter_alloc_start(); again is fine */
bool ter_alloc_repairing(struct ter_alloc *alloc);
/* At most @memory_bytes of bits; buckets beyond are not given out until the end. Superblock and journal are marked, and what is not free by its key. */
int ter_alloc_repair_mark_begin(struct ter_alloc *alloc, uint64_t memory_bytes);
void ter_alloc_repair_mark(struct ter_alloc *alloc, unsigned dev_idx, uint64_t sector, uint64_t sectors); /* any numbers */
void ter_alloc_repair_open(struct ter_alloc *alloc);
bool ter_alloc_repair_is_open(struct ter_alloc *alloc);
int ter_alloc_repair_end(struct ter_alloc *alloc);

/* What the superblock says of a bucket: TER_DATA_SB, TER_DATA_JOURNAL, or TER_DATA_FREE: neither. */
uint8_t ter_bucket_fixed_type(const struct ter_dev *dev, uint64_t bucket);

/* --- fixes --- */
#define TER_FIX_VAL_MAX 32
struct ter_fix {
	struct ter_pos pos;
	uint64_t old_hash; /* of the key that is to be there; 0: none */
	uint32_t size;
	uint8_t btree, type, val_bytes; /* type DELETED: the key goes */
	bool add;                       /* the value is deltas of counters */
	uint64_t val[TER_FIX_VAL_MAX / 8];
};
struct ter_fixes {
	struct ter_btrees *bt;
	struct ter_repair *repair;
	struct ter_fix *fix;
	size_t nr, max;
	bool full;  /* there is more to be found: another round */
	bool raced; /* something changed meanwhile: likewise */
	uint64_t applied_nr;
};
int ter_fixes_init(struct ter_fixes *fixes, struct ter_btrees *bt, struct ter_repair *repair, uint64_t memory_bytes);
void ter_fixes_release(struct ter_fixes *fixes);
static inline bool ter_fixes_full(struct ter_fixes *f)
{
	return f->nr == f->max ? (f->full = true) : false;
}
/* There is room. @old NULL: nothing is there. @new_key NULL: delete. */
void ter_fixes_set(struct ter_fixes *fixes, enum ter_btree_id btree, struct ter_pos pos, const struct ter_key *old, const struct ter_key *new_key);
void ter_fixes_add(struct ter_fixes *fixes, struct ter_pos pos, const int64_t *deltas, unsigned nr);
int ter_fixes_apply(struct ter_fixes *fixes);
uint64_t ter_key_hash(const struct ter_key *key); /* never 0 */
/* Deltas that make the counters at @pos @right; @what for the sentence. */
int ter_fixes_counters(struct ter_fixes *fixes, struct ter_pos pos, const int64_t *right, unsigned nr, const char *what);

/* --- passes: find --- */
/* One pointer of an extent or to a node. */
struct ter_space_ref {
	uint64_t sector;
	struct ter_pos pos; /* who points */
	uint32_t gen;
	uint32_t counts;    /* sectors, in its bucket */
	uint32_t stored_sectors, raw_sectors, live_sectors, live_offset;
	uint8_t dev, btree, level, data_type, ptr_idx;
	uint8_t verdict; /* of who judges (repair_ptrs.c) */
};
/* ALLOC and BACKPOINTERS of buckets [from, to) of a member; @refs: all that point there, in order of sector and live_offset. */
int ter_alloc_repair_buckets(struct ter_alloc *alloc, struct ter_fixes *fixes, const struct ter_dev *dev, uint64_t from, uint64_t to, const struct ter_space_ref *refs,
			     size_t nr);
/* FREESPACE, NEED_DISCARD and the counters of members, from ALLOC; keys of members that do not exist. */
int ter_alloc_repair_indexes(struct ter_alloc *alloc, struct ter_fixes *fixes);
/* Counters that cannot be valid, first of all: adding to one would fail. */
int ter_alloc_repair_counter_keys(struct ter_alloc *alloc, struct ter_fixes *fixes);

#endif
