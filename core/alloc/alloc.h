/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Allocation of buckets, back references, counters and reservations
 *
 * A member is cut into buckets. A write point fills an open bucket from front to back; nothing in a bucket is overwritten; its space returns when all of it is dead.
 *
 *     free -> open (in memory only) -> used -> empty -> discarded -> free
 *
 * The alloc key (member, bucket, 0) holds {gen, data type, live sectors, need_discard}; absent means free with generation 0. State is derived:
 *     live > 0: used.   live == 0 and need_discard: empty.   else: free.
 *   B1  A generation only grows; it grows when an empty bucket is made free. A pointer with an older generation is stale.
 *   B2  An empty bucket is discarded and made free only after the journal entry that emptied it is durable, and while it is not open.
 *   B3  FREESPACE holds exactly the free buckets, as maximal ranges (key at the end bucket, size = length; never two that touch). NEED_DISCARD holds exactly the empty ones.
 *       Both are staged with the alloc key's change, in the same transaction.
 *   B4  Every pointer on disk (extent or node) has one backpointer and is counted in its bucket's live sectors, in the member's and the replicas counters.
 *   B5  User writes stop while reserves for btree nodes and for moving remain (watermarks): deletes and reclaim always work. Per member buckets / 64 + 8 are for nodes alone;
 *       gc_reserve_percent is for moving. Reservations are promised above both, user space is given out down to half of the latter.
 *   B6  Sum of reservations <= what can still be written. A reservation is turned into use by the transaction that uses it.
 *   B7  Copies of one extent lie on different members. Members with more free space are chosen more often (a deterministic stride by free space).
 * Nothing in memory is sized by the number of buckets: open buckets (at most TER_OPEN_BUCKETS_MAX) and a small batch of free ones per member.
 */
#ifndef TER_ALLOC_H
#define TER_ALLOC_H

#include "btree/btree.h"
#include "sb/sb.h"

#define TER_OPEN_BUCKETS_MAX 512
#define TER_WRITE_POINTS_USER 8

enum ter_write_point { TER_WP_USER_FIRST = 0, TER_WP_BTREE = TER_WRITE_POINTS_USER, TER_WP_MOVE, TER_WP_NR };
enum ter_watermark { TER_WATERMARK_USER, TER_WATERMARK_MOVE, TER_WATERMARK_BTREE };

struct ter_alloc;
struct ter_alloc_config {
	struct ter_exec *exec;
	struct ter_sb_handle *sb;
	struct ter_members *members;
	struct ter_btrees *btrees;
	struct ter_journal *journal; /* may be set later by ter_alloc_set_journal() */
};
int ter_alloc_new(const struct ter_alloc_config *config, struct ter_alloc **ret_alloc);
void ter_alloc_free(struct ter_alloc *alloc); /* NULL is fine */
void ter_alloc_set_journal(struct ter_alloc *alloc, struct ter_journal *journal);
void ter_alloc_set_btrees(struct ter_alloc *alloc, struct ter_btrees *btrees); /* where they are made after the allocator; before anything else is called */
void ter_alloc_members_changed(struct ter_alloc *alloc); /* a member's state, durability or size changed */
void ter_alloc_hooks(struct ter_alloc *alloc, struct ter_btree_hooks *ret_hooks);             /* for ter_btrees_set_hooks() */
void ter_alloc_on_counters(void *alloc, struct ter_pos pos, const int64_t *deltas, unsigned nr); /* for ter_btrees_config.on_counters */

/*
 * A fresh pool or a new member: give member @dev_idx its first alloc keys (sb and journal buckets), its free range and its counters. Commits by itself. The first leaves of
 * fresh btrees live in memory only, so nothing needs to be allocated before the first node is written.
 */
int ter_alloc_init_member(struct ter_alloc *alloc, unsigned dev_idx);
/* Read the counters into memory. Before start, after replay. */
int ter_alloc_load(struct ter_alloc *alloc);
int ter_alloc_start(struct ter_alloc *alloc); /* discard worker */
void ter_alloc_stop(struct ter_alloc *alloc); /* closes write points, ends the worker */

/* --- space for writing --- */
struct ter_open_bucket;
struct ter_space {
	unsigned nr;      /* copies */
	uint32_t sectors; /* contiguous on each */
	struct ter_space_ptr {
		uint8_t dev;
		uint32_t gen;
		uint64_t sector;
		struct ter_open_bucket *bucket; /* a reference, dropped by ter_alloc_put() */
	} ptr[TER_REPLICAS_MAX];
};
struct ter_alloc_request {
	unsigned write_point;      /* user ones are chosen by the caller: 0..TER_WRITE_POINTS_USER-1 */
	enum ter_watermark watermark;
	unsigned replicas;         /* wanted */
	unsigned replicas_required; /* accept so few when members are missing or read-only (not when full: that is -ENOSPC) */
	uint32_t sectors_min, sectors_want; /* multiples of the block; gives at least min, at most want */
	uint64_t avoid_devs;       /* bit per member */
	bool nowait;
};
/* Return: 0; -ENOSPC; -EAGAIN (nowait and a btree node must be read, or everything free waits for the journal); -EROFS no rw member. May flush the journal and discard when short. */
int ter_alloc_get(struct ter_alloc *alloc, const struct ter_alloc_request *request, struct ter_space *ret_space);
/* The space was committed, or given up. What was not used is lost to the bucket until that is empty. */
void ter_alloc_put(struct ter_alloc *alloc, struct ter_space *space);
/* The device set of @space, sorted: what the caller gives to ter_sb_replicas_ensure() before its commit, and to ter_alloc_stage_replicas(). @nr_required is cut to the copies there are. */
void ter_space_replicas(const struct ter_space *space, enum ter_data_type type, unsigned nr_required, struct ter_replicas_entry *ret);
/*
 * Changes before any bucket that was seen in use becomes writable again. A read that took its pointers when the epoch was another than at its completion may have read what was written later: it
 * looks the extent up again.
 */
uint64_t ter_alloc_reuse_epoch(struct ter_alloc *alloc);

/* --- staging, in the transaction that links or unlinks a pointer --- */
struct ter_bp_target { /* who points */
	enum ter_btree_id btree;
	uint8_t level;
	struct ter_pos pos;
};
struct ter_ptr_ref { /* to where */
	uint8_t dev;
	uint32_t gen;
	uint64_t sector;       /* first of the stored copy */
	uint32_t sectors;      /* what it counts as in the bucket (extent.h: ter_extent_ptr_sectors()) */
	uint32_t live_offset;  /* compressed extents cut in pieces: distinguishes them, sectors, < 4096 */
};
/*
 * @sign +1 or -1. Alloc key, free space, need_discard, backpointer, the member's counters. -EUCLEAN: what is there contradicts it. -ERESTART as from a commit. A pointer that is replaced is
 * unlinked before its successor is linked.
 */
int ter_alloc_stage_ptr(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_bp_target *who, const struct ter_ptr_ref *ptr,
			enum ter_data_type data_type, int sign);
/* The replicas counters: @sectors of logical size stored on the device set (order does not matter). */
int ter_alloc_stage_replicas(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_replicas_entry *entry, int64_t sectors);

/*
 * --- reservations (of space for data, in sectors before replication) ---
 * The caller rounds to blocks, and gives back what it took. A request for USER space with reservations behind it gets space down to half of the reserve for moving, other open buckets included;
 * -ENOSPC is still possible where sectors_min is larger than what is left of each open bucket: ask again with a block.
 */
int ter_alloc_reserve(struct ter_alloc *alloc, uint64_t sectors, unsigned replicas); /* -ENOSPC. Never waits. */
void ter_alloc_unreserve(struct ter_alloc *alloc, uint64_t sectors, unsigned replicas);

/* --- numbers --- */
struct ter_dev_usage {
	uint64_t buckets[TER_DATA_NR];   /* by type; FREE and NEED_DISCARD filled in */
	uint64_t sectors[TER_DATA_NR];   /* live */
	uint64_t fragmented[TER_DATA_NR]; /* dead or never written, in used buckets */
};
int ter_alloc_dev_usage(struct ter_alloc *alloc, unsigned dev_idx, struct ter_dev_usage *ret);
struct ter_fs_usage {
	/* Sectors at data_replicas: capacity == used + reserved + available. Used counts buckets whole. */
	uint64_t capacity, used, reserved, available;
	uint64_t hidden; /* on the members: superblocks, journal, reserves, what unequal members cannot mirror */
	uint64_t used_logical;                                /* sectors of data and nodes, each counted once however many copies */
	uint64_t inodes;
	uint64_t compressed_raw, compressed_stored;           /* sectors of compressed extents before and after */
};
/* Logical sectors on exactly this device set; 0 when none. */
uint64_t ter_alloc_replicas_sectors(struct ter_alloc *alloc, const struct ter_replicas_entry *entry);
void ter_alloc_compression(struct ter_alloc *alloc, unsigned slot, uint64_t *ret_extents, uint64_t *ret_raw_sectors, uint64_t *ret_stored_sectors);
void ter_alloc_fs_usage(struct ter_alloc *alloc, struct ter_fs_usage *ret);

#endif
