/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Btrees: what the files of this room share
 *
 * Locks, outermost first:
 *   interior (one a btree)  one structure change at a time; held across I/O.
 *   root_lock (one a btree) guards which node is the root; is to the root what a parent is to its child.
 *   turnstile               commits that had to begin again often; before any node's lock.
 *   node->lock              content, ptrs, newest_seq, must_rewrite. Who waits for one holds nothing but nodes above it in the same btree; all else is by try.
 *   cache_lock              lists, parent pointers, claims, pins, fills in flight.
 *   roots_lock (LEAF)       the copy of the roots that the journal takes.
 *
 * A pointer to a node is valid while its lock or its parent's lock is held, or while the node is claimed. Eviction and replacement hold the parent's lock for
 * writing, so nobody can be waiting for the lock of a node that goes.
 *
 * Claim: the exclusive right to write a node to disk or to replace it. It keeps the node in memory and lets readers and commits go on. Who holds claims waits for
 * another one only while he holds `interior` of that btree; a batch of node writes never does.
 *
 * `owner` of a node or root_lock is the transaction that holds it for writing: only that one ever finds its own address there.
 */
#ifndef TER_BTREE_PRIV_H
#define TER_BTREE_PRIV_H

#include <stdatomic.h>

#include "btree/btree.h"
#include "btree/node_codec.h"
#include "util/mem.h"

#define TER_NODE_SPLIT_MAX 64    /* new nodes of one structure change */
#define TER_NODE_STEP_HALVES 15  /* half nodes that a step cuts off a leaf (T10): at most 31 new nodes and the rest, so that their space is within what one commit takes */
#define TER_WRITE_BATCH_MAX 16   /* nodes of one batch of appends */
#define TER_COMMIT_NODES_MAX 480 /* nodes one commit locks */
#define TER_FILLS_ASYNC_MAX 64   /* reads in flight that nobody waits for */
#define TER_FILLS_FAILED_MAX 16
#define TER_PREFETCH_MAX 32      /* leaves of one read-ahead */
#define TER_READ_WORKERS 3
#define TER_CHANGE_WORKERS 2
#define TER_DESCEND_TRIES_MAX 1000 /* reads of missing nodes in one search; more means that the cache is too small for what runs at once */

struct ter_btree {
	struct ter_btrees *bt;
	uint8_t id;
	struct ter_lock interior;
	struct ter_rwlock root_lock;
	_Atomic(const void *) root_owner;
	struct ter_node *root;          /* NULL: not read yet */
	struct ter_node_ptrs root_ptrs; /* where it is, when root is NULL */
	uint8_t root_level;
	/* cache_lock */
	uint64_t changes;  /* structure changes tried: who waits for one looks here */
	int change_result; /* of the last one */
};

struct ter_node {
	struct ter_rwlock lock;
	_Atomic(const void *) owner;
	struct ter_btree *tree;
	uint8_t level;
	struct ter_pos min, max; /* for its whole life */
	struct ter_keyset keys;
	struct ter_node_ptrs ptrs; /* nr == 0: has no space on disk yet */
	uint64_t newest_seq;       /* newest journal sequence among its changes */
	bool must_rewrite;         /* appending would not do: a replica is bad, or bsets were left out */
	uint32_t merge_below;      /* look for a neighbour to merge with when fewer bytes than this remain */
	_Atomic bool accessed;
	_Atomic uint32_t hits;     /* a number for people: lossy */

	/* cache_lock */
	struct ter_node *parent; /* NULL: root */
	uint32_t children_nr;    /* cached ones */
	struct ter_list lru_link, dirty_link, change_link, write_link;
	bool claimed;
	bool dead;               /* replaced */
	bool dirty;              /* changed under lock and cache_lock */
	bool pinned, writing_pinned;
	uint64_t pin_seq, writing_pin_seq;
	size_t memory, dirty_charge; /* as counted in cached_bytes, dirty_bytes */
};

/* A node being read from disk. */
struct ter_fill {
	struct ter_list link;
	struct ter_work work;
	struct ter_btree *tree;
	struct ter_node_id id;
	struct ter_node_ptrs ptrs;
	struct ter_pos pos; /* the search that wanted it */
	unsigned refs;
	bool done, async;
	int r;
};

/*
 * After a replay numbers of nodes go on behind these many: the last run may have written nodes that it did not come to link, and a replica that misses the write of
 * a new node in the same space must not show one of those.
 */
#define TER_NODE_SEQ_SKIP (1ull << 32)

struct ter_kick {
	struct ter_work work;
	struct ter_btrees *bt;
	bool busy;
};

struct ter_btrees {
	struct ter_btrees_config config;
	struct ter_node_geo geo;
	struct ter_journal *journal;
	struct ter_journal *registered; /* whose reclaim knows us */
	struct ter_btree_hooks hooks;
	struct ter_btree tree[TER_BTREE_NR];
	uint32_t split_bytes, overflow_bytes, merge_bytes;
	_Atomic uint64_t next_node_seq;
	uint64_t seq_max; /* of the journal, while there is no journal */
	uint64_t sure_node_seq; /* nodes from here on are of this run (all, after a clean stop): nothing unknown lies behind what was written of them */
	_Atomic uint32_t no_evict; /* searches and commits that lost their nodes again and again before they could use them */

	struct ter_lock turnstile; /* rank BTREE_NODE, taken before any node: see commit.c */
	struct ter_lock cache_lock;
	struct ter_waitq claim_wq;  /* a claim ended, a structure change ended */
	struct ter_waitq fill_wq;
	struct ter_waitq writer_wq; /* the write-back task's */
	struct ter_list lru, dirty, changes, fills, writing;
	struct ter_list failed; /* fills that nobody waited for and that came to nothing: the next who asks is told */
	unsigned fills_async, failed_nr;
	bool started, stopping;
	struct ter_workq *read_wq, *change_wq;
	struct ter_kick kick[TER_CHANGE_WORKERS];
	struct ter_task *writer;
	_Atomic bool writer_asked;

	_Atomic size_t cached_bytes, dirty_bytes;
	_Atomic uint64_t cached_nodes, dirty_nodes, misses, hits_gone, writes, write_bytes, splits, merges, rewrites, commits, restarts;

	struct ter_lock roots_lock; /* LEAF */
	struct ter_root roots[TER_BTREE_NR];
};

static inline bool ter_node_covers(const struct ter_node *node, struct ter_pos pos)
{
	return ter_pos_cmp(node->min, pos) <= 0 && ter_pos_cmp(pos, node->max) <= 0;
}

/* --- cache.c: nodes and their memory --- */
struct ter_node *ter_node_new(struct ter_btree *tree, unsigned level, struct ter_pos min, struct ter_pos max); /* NULL: no memory. In no list, not counted */
void ter_node_free(struct ter_node *node);                         /* in no list */
void ter_cache_insert(struct ter_node *node, struct ter_node *parent); /* cache_lock held */
void ter_cache_remove(struct ter_node *node);                      /* cache_lock held; out of all lists, parent's count */
void ter_cache_account(struct ter_node *node);                     /* node->lock held for writing: its memory may have changed */
void ter_cache_evict(struct ter_btrees *bt);                       /* no lock held; down to cache_bytes as far as possible */
/* node->lock held for writing. @seq 0: replay, no pin yet. Otherwise a reservation of @seq, or a pin on it, is held. */
void ter_node_set_dirty(struct ter_node *node, uint64_t seq);
/* node->lock and cache_lock held, claimed: what is dirty is being written; its pin is kept as writing_pin. */
void ter_node_snap_begin(struct ter_node *node);
/* node->lock held for writing: the write ended. */
void ter_node_snap_end(struct ter_node *node, bool written);
void ter_node_unclaim(struct ter_node *node); /* may hold node->lock */
bool ter_node_pinned_to(const struct ter_node *node, uint64_t seq); /* cache_lock held */

/* --- descend.c: search, and reading of what is missing --- */
enum {
	TER_DESCEND_WRITE = 1 << 0,  /* lock the node found for writing */
	TER_DESCEND_TRY = 1 << 1,    /* wait for nothing: -EDEADLK */
	TER_DESCEND_NOWAIT = 1 << 2, /* -EAGAIN where a node has to be read, and have it read */
	TER_DESCEND_CACHED = 1 << 3, /* -EDEADLK where a node has to be read */
};
/*
 * The node at @level that covers @pos, locked. Nodes whose owner is @owner count as locked already and stay so: *ret_held (may be NULL when @owner is) says that the one
 * found is such. -ENOENT: the btree is not that high. -EAGAIN, -EDEADLK, -EIO, -EUCLEAN, -ENOMEM, -EBUSY.
 */
int ter_descend(struct ter_btree *tree, unsigned level, struct ter_pos pos, unsigned flags, const void *owner, struct ter_node **ret_node, bool *ret_held);
/* The same from @from, which @owner holds and which covers @pos; waits for locks, the one found is for writing. -EDEADLK: a node is not in memory. */
int ter_descend_below(struct ter_node *from, unsigned level, struct ter_pos pos, const void *owner, struct ter_node **ret_node, bool *ret_held);
void ter_node_unlock_read(struct ter_node *node);
void ter_node_unlock_write(struct ter_node *node);
/* Have the child of slot @idx of @parent (read-locked) read if it is not there; errors are left to who reads. */
void ter_fill_ahead(struct ter_node *parent, uint32_t idx);
/* Puts a node that was read into its slot; takes over the content's keys. @heal: a copy of it was bad. -ESTALE: it is there already, or is not what is wanted now. */
int ter_node_install(struct ter_btree *tree, const struct ter_node_id *id, const struct ter_node_ptrs *ptrs, struct ter_node_content *content, bool heal);
int ter_root_lock_write(struct ter_btree *tree, const void *owner, bool try); /* -EDEADLK */
void ter_root_unlock_write(struct ter_btree *tree);

/* --- node_io.c --- */
/* The online copy with least latency, if it lies within its member; NULL: none. */
const struct ter_node_ptr *ter_node_best_replica(struct ter_btrees *bt, const struct ter_node_ptrs *ptrs);
int ter_node_read(struct ter_btrees *bt, const struct ter_node_id *id, const struct ter_node_ptrs *ptrs, struct ter_node_content *ret, bool *ret_heal);
struct ter_node_write_io {
	const struct ter_node_ptrs *ptrs;
	uint32_t offset_sectors, sectors; /* within the node's space */
	void *buf;                        /* aligned */
	unsigned landed;                  /* out: replicas that have it */
};
int ter_node_write_all(struct ter_btrees *bt, struct ter_node_write_io *ios, unsigned nr); /* in parallel; waits. -ENOMEM, or 0: see landed */
bool ter_node_landed(struct ter_btrees *bt, const struct ter_node_write_io *io); /* enough to go on */
void ter_btrees_error(struct ter_btrees *bt, int r, const char *fmt, ...) TER_PRINTF(3, 4);
size_t ter_node_buf_align(struct ter_btrees *bt);

/* --- trans.c and commit.c --- */
enum ter_update_kind { TER_UPDATE_SET, TER_UPDATE_DELETE, TER_UPDATE_ADD, TER_UPDATE_LOCK /* only lock the node */ };
enum ter_old_kind { TER_OLD_ANY, TER_OLD_ABSENT, TER_OLD_KEY };
struct ter_update {
	struct ter_pos pos;
	uint8_t btree, level, kind, old_kind;
	uint8_t deltas_nr;
	bool locked; /* committing: this update took the node's lock */
	bool found, skip;
	uint32_t idx;
	struct ter_node *node;
	union {
		const struct ter_key_disk *old;
		int64_t *deltas; /* ADD: TER_COUNTERS_MAX of them */
	};
	struct ter_key_disk *key; /* what is journaled; for ADD room for it */
};
struct ter_trans_log {
	struct ter_trans_log *next;
	enum ter_jrec_type type;
	uint8_t btree, level;
	uint32_t bytes;
	unsigned iov_nr;
	struct iovec iov[];
};
void *ter_trans_alloc(struct ter_trans *trans, size_t bytes); /* 8-byte aligned; NULL: no memory */
int ter_trans_stage(struct ter_trans *trans, unsigned btree, unsigned level, struct ter_pos pos, const struct ter_key *old, const struct ter_key *new_key);
int ter_trans_stage_lock(struct ter_trans *trans, unsigned btree, unsigned level, struct ter_pos pos);
int ter_trans_stage_ptrs(struct ter_trans *trans, unsigned btree, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs); /* @level: of the parent */
/* A key record that is journaled but changes nothing here: a key of a new root. @key stays valid. */
int ter_trans_log_key(struct ter_trans *trans, unsigned btree, unsigned level, const struct ter_key_disk *key);
unsigned ter_trans_find(const struct ter_trans *trans, unsigned btree, unsigned level, struct ter_pos pos, bool *ret_found);

/* --- interior.c: what a commit does for a structure change --- */
struct ter_structure {
	struct ter_btree *tree;
	struct ter_node *old[2]; /* in order; claimed. SHRINK: the root that goes */
	unsigned old_nr;
	struct ter_node *fresh[TER_NODE_SPLIT_MAX]; /* in order; written */
	unsigned fresh_nr;
	bool rest; /* the last of fresh is what remains to be cut */
	struct ter_node *root; /* what becomes the root; NULL: the root stays */
	bool shrink;
};
int ter_structure_reserve(struct ter_structure *st, const struct ter_trans *trans); /* memory for the keys that move */
void ter_structure_unlink(struct ter_structure *st);                                /* before the parent's keys change */
void ter_structure_switch(struct ter_structure *st, uint64_t seq);                  /* after all keys changed */

enum { TER_CHANGE_REWRITE = 1 << 0 /* even if there is nothing to split or merge */ };
/* Split, merge, rewrite or shrink as the node at @level that covers @pos needs it. Waits; no lock held. 0: nothing was needed, 1: done. */
int ter_node_change(struct ter_btree *tree, unsigned level, struct ter_pos pos, unsigned flags);
void ter_root_publish(struct ter_btree *tree); /* root_lock held for writing: copies the root's place for the journal */

/* --- roots.c --- */
void ter_node_seq_seen(struct ter_btrees *bt, uint64_t seq); /* a new node gets a higher one */

/* --- node_write.c --- */
struct ter_node_ref {
	struct ter_btree *tree;
	uint8_t level;
	struct ter_pos pos;
};
/* The node at @level that covers @pos, locked for writing and claimed; waits while someone else has it claimed. */
int ter_node_claim(struct ter_btree *tree, unsigned level, struct ter_pos pos, struct ter_node **ret_node);
bool ter_node_is_root(struct ter_node *node); /* claimed */
/* Write these dirty nodes (those that are claimed by someone are left out). Returns how many were written, or a negative errno. */
int ter_node_write_batch(struct ter_btrees *bt, const struct ter_node_ref *refs, unsigned nr);

/* --- writeback.c --- */
void ter_change_init(struct ter_btrees *bt);
void ter_change_queue(struct ter_node *node); /* node->lock or its parent's held: have its structure looked at */
void ter_change_run_pending(struct ter_btrees *bt);         /* here and now; no lock held */
bool ter_node_wants_change(const struct ter_node *node);    /* node->lock held */
void ter_writeback_wake(struct ter_btrees *bt);             /* when the cache or what is dirty in it is too much */

#endif
