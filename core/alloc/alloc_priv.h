/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The allocator's inside: what its files share. */
#ifndef TER_ALLOC_PRIV_H
#define TER_ALLOC_PRIV_H

#include <stdatomic.h>

#include "alloc/accounting.h"
#include "alloc/alloc.h"
#include "alloc/alloc_format.h"
#include "util/exec.h"
#include "util/mem.h"

#define TER_FREE_BATCH_MAX 64  /* free buckets known by name, per member */
#define TER_RUN_MAX 16         /* buckets set aside for one write point on one member */
#define TER_RUN_SECTORS 8192u  /* 4 MiB: as long as a request gets */
#define TER_STICKY_SECTORS 2048u /* a write point stays on its members for 1 MiB, so that long writes stay contiguous */
#define TER_OPEN_HASH_NR 256
#define TER_REPLICAS_COUNTS_NR (2 * TER_REPLICAS_ENTRIES_MAX)
#define TER_DISCARD_BATCH_MAX 256 /* empty buckets freed after one journal flush */
#define TER_DISCARD_TRANS_MAX 16  /* of these in one transaction */
#define TER_ALLOC_ROUNDS_MAX 1000 /* attempts of one ter_alloc_get() */

struct ter_free_bucket {
	uint64_t bucket;
	uint32_t gen;
};

/* All guarded by ter_alloc.lock. */
struct ter_open_bucket {
	struct ter_open_bucket *next; /* in the hash chain or the list of unused ones */
	uint64_t bucket;
	uint32_t gen;
	uint32_t filled_sectors;
	uint32_t refs;  /* one by the write point that fills it, one by each space */
	uint8_t dev;
	bool settled;   /* some space was put back: its pointer, if there is one, is in the btree and the bucket not counted free any more */
};

struct ter_run {
	uint64_t first; /* next bucket to open; when nr == 0: the one that would follow */
	unsigned nr;
	uint32_t gen[TER_RUN_MAX];
};

struct ter_wp {
	struct ter_open_bucket *open[TER_DEVS_MAX];
	struct ter_run run[TER_DEVS_MAX];
	uint64_t stride[TER_DEVS_MAX]; /* B7: the members with the least are next */
	uint64_t sticky_devs;
	unsigned sticky_left_sectors;
};

struct ter_dev_counts {
	_Atomic int64_t buckets, sectors, fragmented;
};

struct ter_alloc_dev {
	struct ter_dev_counts counts[TER_DATA_NR];
	/* ter_alloc.lock */
	struct ter_free_bucket batch[TER_FREE_BATCH_MAX]; /* ascending; neither open nor in a run */
	unsigned batch_nr;
	unsigned unsettled_nr; /* open buckets that are still counted free */
	uint64_t cursor;       /* where the search for free ones goes on */
	bool refilling;
};

/* While a repair runs (alloc_repair.h). */
struct ter_alloc_guard {
	bool open;                        /* ter_alloc.lock */
	uint64_t *used[TER_DEVS_MAX];     /* a bit for each bucket below covered[]: not to be given out */
	uint64_t covered[TER_DEVS_MAX];
	int64_t free_nr[TER_DEVS_MAX];    /* when it was opened */
};

struct ter_alloc {
	struct ter_exec *exec;
	struct ter_sb_handle *sb;
	struct ter_members *members;
	struct ter_btrees *btrees;
	_Atomic(struct ter_journal *) journal;

	struct ter_lock lock;  /* rank ALLOC; guards open buckets, write points, batches. Never held across a btree call. */
	struct ter_waitq wq;   /* a refill or a discard ended, or an open bucket was freed */
	struct ter_alloc_dev dev[TER_DEVS_MAX];
	struct ter_wp wp[TER_WP_NR];
	struct ter_open_bucket open_pool[TER_OPEN_BUCKETS_MAX], *open_unused;
	struct ter_open_bucket *open_hash[TER_OPEN_HASH_NR];
	bool discarding;       /* one task frees empty buckets at a time */
	uint64_t discard_cursor[TER_DEVS_MAX]; /* guarded by @discarding */

	/* reserve.c: demand and what there is for it, both by how many of the largest members are left out */
	_Atomic int64_t reserved[TER_REPLICAS_MAX], cap[TER_REPLICAS_MAX];
	_Atomic int64_t tight_sectors;
	_Atomic unsigned cap_members;
	_Atomic bool cap_stale;

	_Atomic int64_t inodes;
	struct {
		_Atomic int64_t extents, raw, stored;
	} compression[TER_ALGO_SLOTS_MAX + 1];
	/* Open addressing by position; a row once taken stays. The superblock's table allows half as many sets. */
	struct ter_replicas_count {
		_Atomic uint64_t pos_inode; /* 0: unused */
		_Atomic int64_t sectors;
	} replicas[TER_REPLICAS_COUNTS_NR];
	_Atomic uint64_t reuse_epoch;
	_Atomic(struct ter_alloc_guard *) guard; /* NULL: no repair runs */

	struct ter_lock kick_lock; /* rank LEAF; guards the four below */
	struct ter_waitq kick_wq;
	bool kick, urgent, stop, running;
	struct ter_task *worker;
};

/* Whether new data may be put on a member. */
static inline bool ter_alloc_dev_present(const struct ter_dev *dev)
{
	return dev->used && ter_dev_writable(dev) && dev->durability > 0;
}

/* Buckets kept for btree nodes alone, and for moving data. */
static inline uint64_t ter_reserve_nodes(const struct ter_dev *dev)
{
	return dev->buckets_nr / 64 + 8;
}
static inline uint64_t ter_reserve_move(const struct ter_alloc *alloc, const struct ter_dev *dev)
{
	return dev->buckets_nr * alloc->sb->sb->options.gc_reserve_percent / 100;
}
/* While a repair runs nothing is discarded. */
static inline int64_t ter_alloc_need_discard_nr(struct ter_alloc *alloc, unsigned dev_idx)
{
	if (ter_unlikely(atomic_load_explicit(&alloc->guard, memory_order_relaxed) != NULL))
		return 0;
	return atomic_load_explicit(&alloc->dev[dev_idx].counts[TER_DATA_NEED_DISCARD].buckets, memory_order_relaxed);
}
int64_t ter_alloc_free_nr(struct ter_alloc *alloc, unsigned dev_idx); /* counted free: also those open that nothing points to yet */

/* open_bucket.c; lock held */
bool ter_open_find(struct ter_alloc *alloc, unsigned dev_idx, uint64_t bucket, struct ter_open_bucket **ret);
/* Opens the next bucket of a write point; @steal: if need be one that others set aside. 0; -ENODATA: none known, refill; -EBUSY: too many open. */
int ter_open_next(struct ter_alloc *alloc, struct ter_wp *wp, unsigned dev_idx, bool steal);
unsigned ter_open_set_aside(const struct ter_alloc *alloc, unsigned dev_idx); /* by all write points */
void ter_open_get(struct ter_open_bucket *bucket);
void ter_open_put(struct ter_alloc *alloc, struct ter_open_bucket *bucket);
void ter_open_close(struct ter_alloc *alloc, struct ter_wp *wp, unsigned dev_idx); /* nothing open is fine */
void ter_open_close_all(struct ter_alloc *alloc);
/* Looks for free buckets; drops the lock meanwhile. How many became known (or another did it: 1), or a negative errno. */
int ter_open_refill(struct ter_alloc *alloc, unsigned dev_idx, bool nowait);

/* discard.c */
int ter_discard_run(struct ter_alloc *alloc); /* one batch now; how many became free, or a negative errno. No lock held. */
void ter_discard_kick(struct ter_alloc *alloc, bool urgent); /* any context */
int ter_discard_start(struct ter_alloc *alloc);
void ter_discard_stop(struct ter_alloc *alloc);

/* alloc_repair.c: of a key that cannot be decoded, too; 0: it has none. */
uint32_t ter_bucket_raw_gen_(const struct ter_key *key);

/* alloc_guard.c */
void ter_alloc_guard_free_(struct ter_alloc *alloc);
/* Buckets of [from, to) that nothing points to; each is named once. Lock held. */
unsigned ter_alloc_guard_find_(struct ter_alloc *alloc, unsigned dev_idx, uint64_t from, uint64_t to, struct ter_free_bucket *ret, unsigned max);

/* reserve.c */
bool ter_reserve_tight(struct ter_alloc *alloc); /* the choice of members decides whether all promises can be kept */
uint64_t ter_reserve_available(struct ter_alloc *alloc, unsigned replicas);

/* stage.c */
int ter_bucket_get(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket, struct ter_key *ret_key, const struct ter_key **ret_old,
		   struct ter_bucket_value *ret);
/* Alloc key, its indexes and the member's counters. -ERESTART: it changed meanwhile. */
int ter_bucket_stage(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket, const struct ter_key *old,
		     const struct ter_bucket_value *from, const struct ter_bucket_value *to);

/* The member's counters alone. */
int ter_stage_dev_counters_(struct ter_trans *trans, const struct ter_dev *dev, const struct ter_bucket_value *from, const struct ter_bucket_value *to);

/* While a repair runs: that came of a node that cannot be read. What it held is made anew, so nothing has to be changed there. */
static inline bool ter_alloc_lost_(int r)
{
	return r == -EUCLEAN || r == -EBADMSG || r == -EIO;
}
/* Can a counter be added to? Always, unless a repair runs. */
bool ter_counter_writable_(struct ter_alloc *alloc, struct ter_trans *trans, struct ter_pos pos);

/* stage_anyhow.c: ter_alloc_stage_ptr() while a repair runs: what contradicts is left to the repair, nothing fails for it. */
int ter_stage_ptr_anyhow_(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_bp_target *who, const struct ter_ptr_ref *ptr, enum ter_data_type data_type,
			  int sign);

#endif
