/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Btrees: transactions over log-structured nodes
 *
 * One `struct ter_btrees` holds all btrees of a pool, their node cache, write-back and structure changes. ARCHITECTURE.md section 3 is the theory. On disk: node_format.h.
 *
 *   T1  A transaction's updates become visible together, and are in one journal entry.
 *   T2  For every key the order of journal records is the order of changes (the reservation is taken under the locks of all touched leaves).
 *   T3  An update carries what its author believed to be there; a difference at commit is -ERESTART and nothing is changed.
 *   T4  A node lock is never held across I/O, a journal wait, or a lock of a rank before BTREE_NODE. Parent before child; leaves of a commit by try-lock.
 *   T5  An insertion never fails for space: a node in memory may exceed its size on disk, up to TER_NODE_OVERFLOW times. Beyond, committers wait (nowait: -EAGAIN)
 *       except structure changes and TER_TRANS_RECLAIM. So a leaf may get as big as memory and the journal allow (T10).
 *   T6  The tree in memory is the journaled one: new nodes are on disk before the transaction that links them.
 *   T7  A node write contains only changes whose journal sequence is durable (WAL rule). A bset with a blacklisted or a future sequence is not read.
 *   T8  A dirty node holds one pin: on the sequence that first dirtied it since its last write began.
 *   T9  Bytes of cached nodes stay under cache_bytes, but for nodes that cannot be dropped at the moment (dirty, locked).
 *   T10 However big a node is, it can be written: it is replaced by as many as it takes, in steps of a bounded size, and each step leaves a right tree. The last new node
 *       of a step takes the rest of a leaf: on disk what lay there of it before, which fits one node; in memory all of it, what is dirty with the pin it had. An interior
 *       node needs no such rest: no node is replaced while one above it is over the limit of T5.
 */
#ifndef TER_BTREE_H
#define TER_BTREE_H

#include "btree/key.h"
#include "journal/journal.h"
#include "sb/sb.h"
#include "util/exec.h"

#define TER_BTREE_DEPTH_MAX 5
#define TER_NODE_OVERFLOW 4
#define TER_COUNTERS_MAX 4
#define TER_TRANS_UPDATES_MAX 4096
#define TER_TRANS_RESTARTS_MAX 1000

struct ter_btrees;
struct ter_trans;

/* What the btree needs of the allocator above it. */
struct ter_btree_hooks {
	/* Space for one node on metadata_replicas members. -ENOSPC; -EAGAIN if it would wait and @nowait. */
	int (*node_alloc)(void *arg, bool nowait, struct ter_node_ptrs *ret_ptrs);
	/* The node is linked (its space accounted by node_stage in a committed transaction), or given up (!linked). */
	void (*node_alloc_done)(void *arg, const struct ter_node_ptrs *ptrs, bool linked);
	/* Stage alloc, backpointer and counter updates for a node coming (+1) or going (-1); @pos is the node's greatest position. */
	int (*node_stage)(void *arg, struct ter_trans *trans, enum ter_btree_id btree, unsigned level, struct ter_pos pos,
			  const struct ter_node_ptrs *ptrs, int sign);
	void *arg;
};

struct ter_btrees_config {
	struct ter_exec *exec;
	struct ter_sb_handle *sb;
	struct ter_members *members;
	struct ter_journal *journal; /* may be set later by ter_btrees_set_journal(): replay happens before the journal starts */
	struct ter_btree_hooks hooks; /* likewise ter_btrees_set_hooks() */
	size_t cache_bytes;
	uint64_t next_node_seq;
	/* Counter deltas as they are committed (under a leaf lock: only adds to in-memory totals). */
	void (*on_counters)(void *arg, struct ter_pos pos, const int64_t *deltas, unsigned nr);
	/* Damage or I/O failure found; @r negative errno; text names btree, level, position, member. Must not block. */
	void (*on_error)(void *arg, int r, const char *text);
	void *on_arg;
};
int ter_btrees_new(const struct ter_btrees_config *config, struct ter_btrees **ret_btrees);
void ter_btrees_free(struct ter_btrees *bt); /* stopped; drops what is dirty; NULL is fine */
void ter_btrees_set_journal(struct ter_btrees *bt, struct ter_journal *journal);
/* Until then: nodes that claim changes of a journal entry beyond @seq are damaged. Before the roots are read. */
void ter_btrees_set_seq_max(struct ter_btrees *bt, uint64_t seq);
void ter_btrees_set_hooks(struct ter_btrees *bt, const struct ter_btree_hooks *hooks);

/* Roots: from the superblock or the journal, before anything is read. A btree without a root is empty. */
int ter_btrees_set_root(struct ter_btrees *bt, const struct ter_root *root);
/* Has the roots that were set read, all at once: a start waits for one read instead of one a btree. What fails is left to whoever needs it, and told then. */
void ter_btrees_read_roots(struct ter_btrees *bt);
unsigned ter_btrees_get_roots(struct ter_btrees *bt, struct ter_root *roots, unsigned max); /* rank JOURNAL may be held: copies a snapshot under a LEAF lock */
uint64_t ter_btrees_next_node_seq(struct ter_btrees *bt);

/* Write-back and split tasks; registers with the journal's reclaim. */
int ter_btrees_start(struct ter_btrees *bt);
void ter_btrees_stop(struct ter_btrees *bt);
/* Write every dirty node, leaves first, parents after. Returns how many were written, or a negative errno: call until it returns 0 twice. */
int ter_btrees_flush(struct ter_btrees *bt);

/* --- replay (single task, before start): apply one record without journaling; the node is pinned at @pin_seq once the journal is there. --- */
int ter_btrees_replay_key(struct ter_btrees *bt, enum ter_btree_id btree, unsigned level, const struct ter_key_disk *key);
/* After the last replayed key, with the journal set: every dirty node takes its pin on @pin_seq. */
void ter_btrees_replay_done(struct ter_btrees *bt, uint64_t pin_seq);

/* --- transactions --- */
enum {
	TER_TRANS_NOWAIT = 1 << 0,  /* -EAGAIN with nothing changed where I/O or a journal wait were needed */
	TER_TRANS_RECLAIM = 1 << 1, /* frees journal or disk space: may use reserves (J5), passes T5 */
};
struct ter_update; /* trans.c */
struct ter_trans_log;
struct ter_structure;
#define TER_TRANS_ARENA_INLINE 4096
struct ter_trans {
	struct ter_btrees *bt;
	unsigned flags;
	struct ter_update *updates;
	unsigned updates_nr, updates_max;
	/* bump memory for keys read and staged; grows by blocks, reset by ter_trans_reset() */
	uint8_t *arena;
	size_t arena_used, arena_bytes;
	void *arena_more;
	/* Called once, under the journal reservation, when the commit cannot fail any more: to take pins. Must not block. */
	void (*on_commit)(void *arg, struct ter_journal *journal, uint64_t seq);
	void *on_commit_arg;
	uint64_t seq; /* after commit: the journal sequence */
	/* the room's own */
	struct ter_trans_log *logs, **logs_tail;
	struct ter_structure *structure;
	uint64_t arena_inline[TER_TRANS_ARENA_INLINE / 8];
};
void ter_trans_init(struct ter_trans *trans, struct ter_btrees *bt, unsigned flags);
void ter_trans_reset(struct ter_trans *trans); /* forget what was read and staged */
void ter_trans_exit(struct ter_trans *trans);

/*
 * Reads: what the transaction has staged, else what is in the tree. *ret points into the transaction until reset. -ENOENT: no such key. -EAGAIN (nowait), -EIO,
 * -EUCLEAN, -EBADMSG.
 */
int ter_trans_get(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos pos, struct ter_key *ret);
/* First key with from <= position <= to. For extents overlapping [start, …) begin at start + 1. */
int ter_trans_next(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, struct ter_key *ret);
/* Last key with to <= position <= from. */
int ter_trans_prev(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, struct ter_key *ret);

/*
 * Stage. @old: the key as this transaction read it, or TER_KEY_ABSENT (nothing there), or TER_KEY_ANY (unchecked: only where one owner exists). @new_key NULL: delete. The
 * key's bytes are copied. A key staged twice keeps its first @old. -ENOMEM, -E2BIG (more than TER_TRANS_UPDATES_MAX).
 */
extern const struct ter_key ter_key_absent_, ter_key_any_;
#define TER_KEY_ABSENT (&ter_key_absent_)
#define TER_KEY_ANY (&ter_key_any_)
int ter_trans_update(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos pos, const struct ter_key *old, const struct ter_key *new_key);
/* Add to counters in ACCOUNTING; several adds to one position are summed. Counters that all reach 0 delete the key. */
int ter_trans_add(struct ter_trans *trans, struct ter_pos pos, const int64_t *deltas, unsigned nr);
/* One more record for the journal entry; @iov's memory stays valid until commit. */
int ter_trans_log(struct ter_trans *trans, enum ter_jrec_type type, const struct iovec *iov, unsigned iov_nr);

/* 0; -ERESTART: do everything again (reset first); -EAGAIN (nowait); -EROFS or what stopped the journal. Nothing staged: 0 and trans->seq = open sequence. */
int ter_trans_commit(struct ter_trans *trans);

/* init, fn, commit; again on -ERESTART (bounded; then -EBUSY). fn stages; a negative return ends it uncommitted. *ret_seq may be NULL. */
int ter_trans_run(struct ter_btrees *bt, unsigned flags, int (*fn)(struct ter_trans *trans, void *arg), void *arg, uint64_t *ret_seq);

/*
 * Bulk reading without a transaction: cb sees each key of from..to in order, under the leaf's read lock (must not block or call back in): 0 go on, 1 stop, < 0 fail.
 * Return: 0 reached @to, 1 stopped, negative errno. Keys of one leaf are seen as of one moment. *ret_resume (may be NULL): where -EAGAIN struck.
 */
int ter_btree_scan(struct ter_btrees *bt, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, unsigned flags,
		   int (*cb)(void *arg, const struct ter_key *key), void *arg, struct ter_pos *ret_resume);

/* Bring the leaves of a range into the cache (read-ahead for cold listings); returns at once, errors are left to who reads. */
void ter_btree_prefetch(struct ter_btrees *bt, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to);

/* --- checking and numbers --- */
/* Every node of a btree top-down, read from disk if need be; cb sees its pointers (level, greatest position). Also checks structure: ranges, order, child min/max. */
int ter_btree_walk_nodes(struct ter_btrees *bt, enum ter_btree_id btree,
			 int (*cb)(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs), void *arg);
struct ter_btree_stats {
	uint64_t cached_nodes, cached_bytes, dirty_nodes, hits, misses, writes, write_bytes, splits, merges, rewrites, commits, restarts;
};
void ter_btrees_get_stats(struct ter_btrees *bt, struct ter_btree_stats *ret);

#endif
