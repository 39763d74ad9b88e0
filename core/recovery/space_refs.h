/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair: all pointers there are, a window of buckets at a time, and what they add up to. */
#ifndef TER_SPACE_REFS_H
#define TER_SPACE_REFS_H

#include "alloc/alloc_repair.h"
#include "recovery/fsck.h"

/* Sectors per device set; as many sets as a superblock can name. */
struct ter_set_sum {
	struct ter_pos pos;
	struct ter_replicas_entry entry;
	int64_t sectors;
};
struct ter_space_sums {
	struct ter_set_sum set[TER_REPLICAS_ENTRIES_MAX];
	unsigned sets_nr;
	int64_t compression[TER_ALGO_SLOTS_MAX + 1][3];
	int64_t btree[TER_BTREE_NR][2];
	int64_t reserved, inodes;
};

struct ter_bucket_at {
	unsigned dev;
	uint64_t bucket;
};

struct ter_space_refs {
	const struct ter_fsck_config *config;
	struct ter_space_ref *ref;
	size_t nr, max;
	/* The window: [from, to). A scan that finds more than fits ends it earlier. */
	struct ter_bucket_at from, to;
	struct ter_space_sums *sums; /* may be NULL */
	bool mark;                   /* tell the guard (all of them, no window) */
	/* Pointers that can lead to no bucket; may be NULL. Under a leaf's lock. Return: 0 or negative. */
	int (*stray)(void *arg, const struct ter_space_ref *ref, const char *why);
	void *arg;
};
int ter_space_refs_init(struct ter_space_refs *refs, const struct ter_fsck_config *config, uint64_t memory_bytes);
void ter_space_refs_release(struct ter_space_refs *refs);
/* Before the first window; then next as long as it is true. */
void ter_space_refs_first(struct ter_space_refs *refs);
bool ter_space_refs_next(struct ter_space_refs *refs);
/* Reads everything, sorts what lies in the window. -EUCLEAN: a node cannot be read. */
int ter_space_refs_collect(struct ter_space_refs *refs);
/* NULL: it leads to a bucket; else why not. */
const char *ter_space_ref_stray(const struct ter_members *members, const struct ter_space_ref *ref);

/* Write everything that is dirty, so that nothing changes by itself for a while. */
int ter_repair_settle_btrees(struct ter_btrees *btrees);

#endif
