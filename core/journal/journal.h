/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Journal
 *
 * A ring of entries on every rw member. An entry has a sequence number; it is written to several members (as many as metadata_replicas, or data_replicas if that is more and it
 * holds data), each at that member's own ring position (its journal buckets in order; an entry never spans buckets). Bytes: journal_format.h.
 *
 *     open -> closed -> writing -> written -> durable -> (pins gone, newer flush entry says last_seq > it) -> space reusable
 *
 *   J1  Entries are written and become durable in order of sequence; waiters of a sequence are told only when it and all before are durable.
 *   J2  Commit rule: before a flush entry is submitted, every member whose `unflushed` is set is flushed; after it is written its members are flushed; then waiters run.
 *       Nothing of the two flushes runs in parallel with the write between them. Members with nothing unflushed are not flushed.
 *   J3  A reservation, once got, always fits its entry, and its entry is not closed for writing until it is put.
 *   J4  last_seq of an entry is the oldest sequence with a pin when it was closed; a ring position is reused only when its entry is older than the last_seq
 *       of a durable flush entry.
 *   J5  At most TER_JOURNAL_FIFO_MAX sequences are live, and pinned entries fill at most half of the ring; reclaim runs before that, reservations wait after it.
 *       Reservations marked RECLAIM are admitted into the other half, so that reclaim can always finish.
 *   J8  What RECLAIM holders may need until one round of reclaim is over fits into the part that only they are admitted to. On a ring of normal size that part is many times what all of
 *       them use. On a small one (TER_JOURNAL_BUCKETS_SMALL) it is a few buckets, so there: everybody else is admitted to three eighths only; who works with RECLAIM and is not
 *       reclaim itself begins when there is room for everybody, tasks one at a time (ter_journal_begin_work()), callers before each transaction (ter_journal_pace()), and
 *       a batch of data is small. So while reclaim runs only one task and what callers had begun stand beside it, and none of them begins again before it has freed space.
 *   J6  Copies fewer than metadata_replicas_required (or data_replicas_required for entries with data): the journal stops with an error, which every later call returns.
 *   J7  Read back: the newest valid flush entry, all entries from its last_seq to it (a gap is corruption and named), from any one good copy each. What lies
 *       beyond is blacklisted; new entries begin after it.
 *
 * Memory: TER_JOURNAL_BUFS buffers of entry_bytes_max (the bucket size, at most 1 MiB) in the region that survives a daemon restart.
 */
#ifndef TER_JOURNAL_H
#define TER_JOURNAL_H

#include "sb/sb.h"
#include "util/base.h"
#include "util/exec.h"

#define TER_JOURNAL_BUFS 4
#define TER_JOURNAL_FIFO_MAX 16384
#define TER_JOURNAL_ENTRY_MAX TER_MIB(1)
#define TER_JOURNAL_BUCKETS_SMALL 32 /* a ring of fewer: J8 */
#define TER_JOURNAL_BUCKETS_MIN 8 /* of a ring: J5 needs room on both sides of the half; a member with fewer takes no part */

struct ter_journal;

/* Records within an entry. */
enum ter_jrec_type {
	TER_JREC_PAD = 0,   /* what a reservation left unused; ter_jrec_next() skips it */
	TER_JREC_KEY = 1,   /* btree, level, then the key in its disk encoding (a deleted key: type 0) */
	TER_JREC_ROOT = 2,  /* struct ter_root, encoded */
	TER_JREC_DATA = 3,  /* inode number, byte offset, bytes: file data that is not yet in an extent */
	TER_JREC_DATA_DONE = 4, /* inode number, byte range, upto_seq: data records of the range with seq <= upto_seq are obsolete */
	TER_JREC_CLOCK = 5, /* real time, next_node_seq, next_inum */
	TER_JREC_LOG = 6,   /* text, for people */
	TER_JREC_REQUEST = 7, /* the request this transaction answered: mount incarnation, unique, result */
};

/* --- life --- */
struct ter_journal_config {
	struct ter_exec *exec;
	struct ter_sb_handle *sb;
	struct ter_members *members;
	void *region; size_t region_bytes; /* at least TER_JOURNAL_BUFS * entry_bytes_max, page-aligned */
	/* Fills the records that every entry with `roots` carries: called when an entry is closed, rank JOURNAL held: must only copy. */
	unsigned (*get_roots)(void *arg, struct ter_root *roots, unsigned max);
	void *get_roots_arg;
	/* The journal stopped (J6) or an entry was written with fewer copies than asked. Must not block. */
	void (*on_error)(void *arg, int r, const char *text);
	void (*on_degraded)(void *arg, uint64_t seq, unsigned copies, unsigned wanted);
	void *on_arg;
	/* Values of the CLOCK record that goes with the roots; as get_roots: only copies. NULL: no CLOCK record. */
	void (*get_clock)(void *arg, uint64_t *ret_next_node_seq, uint64_t *ret_next_inum);
	void *get_clock_arg;
	/* What ter_journal_read() found: its entries stay pinned until ter_journal_replay_done(). NULL: nothing in the rings is needed (fresh or stopped cleanly). */
	const struct ter_journal_replay *replay;
};
size_t ter_journal_region_bytes(const struct ter_sb *sb, const struct ter_members *members);
/* @next_seq: the first sequence to use. Starts its writer and reclaim tasks. */
int ter_journal_start(const struct ter_journal_config *config, uint64_t next_seq, struct ter_journal **ret_journal, struct ter_error *error);
/*
 * Everything replayed has pins of its own (or is written): drops the hold that start took on the replayed entries. Sequences before the first of this run share one
 * count: ter_journal_pin() and ter_journal_unpin() take any of them, and all are needed until the last pin and this hold are gone. Nothing
 * replayed (replay->nr == 0): nothing held, and no pins may be taken on it.
 */
void ter_journal_replay_done(struct ter_journal *journal);
/* All pins are gone (caller flushed everything); writes a last flush entry, waits, ends the tasks. Returns the last sequence written in *ret_seq. */
int ter_journal_stop(struct ter_journal *journal, uint64_t *ret_seq);
bool ter_journal_stopped(struct ter_journal *journal); /* stopped, halted or failed: takes nothing any more */
void ter_journal_halt(struct ter_journal *journal, int r); /* emergency: nothing more is written; everybody gets @r */
void ter_journal_free(struct ter_journal *journal);        /* ends tasks if they run; NULL is fine */

/* --- reservations --- */
enum {
	TER_JOURNAL_NOWAIT = 1 << 0,  /* -EAGAIN instead of waiting */
	TER_JOURNAL_RECLAIM = 1 << 1, /* J5 */
	/*
	 * The transaction changes a btree root in memory before it puts the reservation: its very entry carries all roots, taken after all of its reservations were put and
	 * before the next entry opens, so that roots and keys on disk are of one moment.
	 */
	TER_JOURNAL_ROOTS = 1 << 2,
};
/* A task holds at most one reservation, and only copies while it holds it. */
struct ter_journal_res {
	struct ter_journal *journal;
	uint64_t seq;
	uint32_t buf_idx, offset, bytes; /* what is left of the reservation in the entry's buffer */
};
/* Room for @bytes of records (payload with their headers: sum of ter_jrec_bytes()). Never waits with NOWAIT. Errors: -EAGAIN, -E2BIG, or what stopped the journal. */
int ter_journal_reserve(struct ter_journal *journal, uint32_t bytes, unsigned flags, struct ter_journal_res *ret_res);
/* Waits, with no lock held, until a reservation of @bytes can succeed (it may still lose a race). */
int ter_journal_wait_space(struct ter_journal *journal, uint32_t bytes, unsigned flags);
/*
 * J8. Before work that commits with RECLAIM, by who holds nothing that reclaim may wait for: on a small ring it waits until everybody is admitted and no other work goes on.
 * Work is what a task does between these two; it must not begin other work. An error of the journal is nothing to care for here: the commit meets it, too; end_work() follows in any case.
 */
void ter_journal_begin_work(struct ter_journal *journal);
void ter_journal_end_work(struct ter_journal *journal);
void ter_journal_pace(struct ter_journal *journal); /* without a turn of its own; on a small ring it waits until everybody is admitted */
bool ter_journal_is_small(struct ter_journal *journal); /* has a small ring */
static inline uint32_t ter_jrec_bytes(uint32_t payload_bytes)
{
	return 8 + (uint32_t)ter_round_up(payload_bytes, 8);
}
/* Adds a record of @payload_bytes to the reservation; returns where to write the payload (8-byte aligned). The reservation must have room. */
void *ter_journal_add(struct ter_journal_res *res, enum ter_jrec_type type, uint8_t btree, uint8_t level, uint32_t payload_bytes);
/* Marks that the entry carries file data: it goes to max(metadata_replicas, data_replicas) members. */
void ter_journal_mark_data(struct ter_journal_res *res);
void ter_journal_put(struct ter_journal_res *res); /* done copying; pins must have been taken before */

/* --- durability --- */
uint64_t ter_journal_open_seq(struct ter_journal *journal);    /* the entry now being filled */
void ter_journal_close_entry(struct ter_journal *journal, uint64_t seq); /* what is reserved from now on has a greater sequence; cheap unless @seq is open */
uint64_t ter_journal_durable_seq(struct ter_journal *journal); /* everything up to here is durable */
struct ter_journal_waiter {
	struct ter_list link;
	uint64_t seq;
	void (*fn)(struct ter_journal_waiter *waiter, int r); /* from the journal's task: must not block long */
};
/* Ask that @seq become durable; waiter->fn is called once, maybe before this returns. */
void ter_journal_flush_async(struct ter_journal *journal, uint64_t seq, struct ter_journal_waiter *waiter);
int ter_journal_flush(struct ter_journal *journal, uint64_t seq); /* waits */
int ter_journal_error(struct ter_journal *journal);               /* 0, or what stopped it */
/* The entry now open carries all roots. A transaction that changes a root reserves with TER_JOURNAL_ROOTS instead: by now its own entry may be closed. */
void ter_journal_want_roots(struct ter_journal *journal);

/* --- pins --- */
/* A count on a sequence. Taking: while holding a reservation of that very seq, or another pin on it. */
void ter_journal_pin(struct ter_journal *journal, uint64_t seq);
void ter_journal_unpin(struct ter_journal *journal, uint64_t seq);
uint64_t ter_journal_last_pinned(struct ter_journal *journal); /* oldest pinned; open_seq when none */
/* Owners of pins. fn must drop all its pins on sequences <= @seq, or return an error; it may block; called from the reclaim task, one at a time, in order of registration. */
#define TER_JOURNAL_RECLAIMERS_MAX 4
int ter_journal_register_reclaimer(struct ter_journal *journal, const char *name, int (*fn)(void *arg, uint64_t seq), void *arg);
/* Ask reclaim to run up to @seq now and wait for it (going read-only). */
int ter_journal_reclaim_to(struct ter_journal *journal, uint64_t seq);

/* --- reading back, before start --- */
struct ter_journal_entry {
	uint64_t seq, last_seq;
	bool flush;
	uint32_t bytes;      /* of records */
	const uint8_t *recs; /* in @replay's memory */
};
struct ter_journal_replay {
	struct ter_journal_entry *entry; /* ascending seq, from last_seq to the newest flush entry */
	unsigned nr;
	uint64_t next_seq;               /* first to use: beyond everything seen, valid or not */
	uint64_t blacklist_first, blacklist_last; /* to be recorded in the superblock before start; first > last: none */
	void *memory;
	uint64_t oldest_seen_seq;        /* of valid entries; blacklist rows that end before it have nothing to hide any more (all members being there) */
	unsigned bad_copies;             /* of needed entries; another copy served */
	int unread_dev;                  /* a member whose ring may hold newer entries where it cannot be read; -1: none */
	/* By member index, for ter_journal_start(): where its ring stands. nr == 0: was not read. */
	struct ter_journal_ring_state {
		unsigned nr;             /* buckets of the ring */
		unsigned cur;            /* bucket (in ring order) of the newest entry; nr when there was none */
		uint32_t cur_end_bytes;  /* end of the newest entry in it */
		uint64_t *max_seq;       /* [nr] highest sequence of a valid entry in each, 0: none */
	} ring[TER_DEVS_MAX];
};
/* Reads all rings. An entry that only a missing member may hold is CORRUPTED/DEGRADED as the case is, named. No valid entry at all: nr == 0, next_seq from what was seen (1 for a fresh pool). */
int ter_journal_read(struct ter_exec *exec, struct ter_sb *sb, struct ter_members *members, struct ter_journal_replay **ret_replay, struct ter_error *error);
/* Where a ring cannot be read behind its newest entry, so that ter_journal_read() refuses (TER_ERR_IO): it is taken to end there, for somebody says so, and goes on beyond the bad place. */
int ter_journal_read_to_newest(struct ter_exec *exec, struct ter_sb *sb, struct ter_members *members, struct ter_journal_replay **ret_replay, struct ter_error *error);
void ter_journal_replay_free(struct ter_journal_replay *replay);
/* Iterate records: start with *pos = 0; false at the end. Bounds were validated by ter_journal_read(). */
struct ter_jrec {
	enum ter_jrec_type type;
	uint8_t btree, level;
	uint32_t bytes;
	const void *payload;
};
bool ter_jrec_next(const struct ter_journal_entry *entry, uint32_t *pos, struct ter_jrec *ret);

/* Numbers for people. */
struct ter_journal_stats {
	uint64_t entries, flush_entries, bytes, waits, ring_bytes, ring_used_bytes, reclaims;
};
void ter_journal_get_stats(struct ter_journal *journal, struct ter_journal_stats *ret);

#endif
