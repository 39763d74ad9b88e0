/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Journal: what its files share
 *
 * Sequence numbers partition into, in order:
 *
 *     ... written_seq | sealed ... seal_seq | closed, reservations still out ... | open_seq
 *
 * An entry's buffer is bufs[seq % TER_JOURNAL_BUFS]; it is free again when the entry is written. The open entry changes only by its `state` word, without the
 * lock; everything else here is guarded by `lock` unless said otherwise. The writer task alone turns sealed entries into written and durable ones.
 *
 * Space is counted in whole buckets: an entry takes at most one new bucket, so `used + entries not yet written + 1 <= limit` when an entry opens (for
 * enough members) means that it and all before it fit wherever they go. Three limits, of a ring of nr buckets: nr / 2 (of a small one 3/8: J8) for everybody, nr - 2 for RECLAIM, nr - 1 for the
 * journal's own entries, which only carry roots and a newer last_seq. The last bucket is for the reclaim after a restart.
 */
#ifndef TER_JOURNAL_PRIV_H
#define TER_JOURNAL_PRIV_H

#include <stdatomic.h>

#include "journal/journal.h"
#include "journal/journal_encode.h"
#include "journal/journal_format.h"
#include "util/mem.h"

#define TER_JOURNAL_RING_MAX 65536        /* buckets; a superblock that says more is refused */
#define TER_JOURNAL_BLOCK_MAX 65536u       /* no member's logical block is larger */
#define TER_JOURNAL_RECLAIM_TRIES 10      /* failures of one owner in a row until the journal stops, when someone waits for space */
#define TER_JOURNAL_RETRY_NS (10 * TER_NS_PER_MS) /* reclaim that made no progress is tried again after this, doubled up to.. */
#define TER_JOURNAL_RETRY_MAX_NS TER_NS_PER_S     /* .. this */
#define TER_JOURNAL_SKIP_SEQS 1024 /* sequences left out when a member that may hold newer entries could not be read */
#define TER_JOURNAL_SEQ_MAX (1ull << 62)    /* an entry that claims more is damaged */
#define TER_JOURNAL_WINDOW_BYTES TER_MIB(4) /* one read of a ring */
#define TER_JOURNAL_FOUND_MAX (1u << 20)    /* entries of one ring remembered while it is read */
#define TER_JOURNAL_SCANS_AT_ONCE 8
#define TER_JOURNAL_HEADERS_AT_ONCE 64u     /* reads of bucket beginnings in flight on one member */
#define TER_JOURNAL_WORK_BYTES TER_KIB(32)  /* room for everybody that work begins with */
#define TER_JOURNAL_FIFO_NORMAL (TER_JOURNAL_FIFO_MAX / 2)
#define TER_JOURNAL_FIFO_RECLAIM (TER_JOURNAL_FIFO_MAX - 64)

/* The state word of a buffer: offset in bytes (24 bits), reservations out (16), low bits of the sequence (21, so that a word never repeats by chance), admission (2), closed (1). */
#define TER_JST_OFFSET_MASK 0xffffffull
#define TER_JST_REF (1ull << 24)
#define TER_JST_REFS_MASK (0xffffull << 24)
#define TER_JST_GEN_SHIFT 40
#define TER_JST_GEN_MASK (0x1fffffull << TER_JST_GEN_SHIFT)
#define TER_JST_ADMIT_SHIFT 61
#define TER_JST_ADMIT_MASK (3ull << TER_JST_ADMIT_SHIFT)
#define TER_JST_CLOSED (1ull << 63)
_Static_assert(TER_JOURNAL_ENTRY_MAX <= TER_JST_OFFSET_MASK, "an offset fits the state word");

enum { TER_JADMIT_OWN, TER_JADMIT_RECLAIM, TER_JADMIT_NORMAL, TER_JADMIT_NR };

static inline uint32_t ter_jst_offset(uint64_t state)
{
	return state & TER_JST_OFFSET_MASK;
}
static inline unsigned ter_jst_admit(uint64_t state)
{
	return (state & TER_JST_ADMIT_MASK) >> TER_JST_ADMIT_SHIFT;
}

struct ter_jbuf {
	_Alignas(64) _Atomic uint64_t state;
	uint64_t seq;         /* constant while a reservation is out */
	uint8_t *data;        /* entry_bytes of the region, from the header on */
	_Atomic bool has_data;
	bool roots;           /* carries all roots: appended when sealed */
	uint64_t last_seq;
	uint32_t bytes;       /* header and payload; from closing on */
};

/* One member's ring. */
struct ter_jring {
	struct ter_dev *dev;
	unsigned nr;           /* buckets */
	unsigned cur, tail;    /* in ring order: now written to; oldest that may hold needed entries */
	uint32_t offset_bytes; /* in cur: where the next entry goes; bucket size: full */
	uint64_t *bucket;      /* [nr] on the member */
	uint64_t *max_seq;     /* [nr] highest sequence in it */
};
static inline unsigned ter_jring_used(const struct ter_jring *ring)
{
	return (ring->cur + ring->nr - ring->tail) % ring->nr + 1;
}

static inline unsigned ter_jring_normal(unsigned nr)
{
	return nr < TER_JOURNAL_BUCKETS_SMALL ? nr * 3 / 8 : nr / 2;
}

/* A request of the writer task. */
struct ter_jio {
	struct ter_dev_bio dbio;
	unsigned dev_idx;
	int r;
};

struct ter_journal {
	struct ter_journal_config config;
	uint32_t entry_bytes;  /* size of a buffer */
	uint32_t room_bytes;   /* of it for header and reservations; roots and clock fit behind */
	uint32_t bucket_bytes, block_bytes;
	uint64_t magic;
	unsigned csum_slot;
	uint64_t first_seq;    /* of this run */

	/* hot: read without the lock */
	_Alignas(64) _Atomic uint32_t open_idx;
	_Atomic uint64_t open_seq, durable_seq;
	_Atomic int error;
	_Atomic uint32_t *pins;         /* [TER_JOURNAL_FIFO_MAX] by sequence, of first_seq and up */
	_Atomic uint32_t replay_pins;   /* of all sequences before */
	_Atomic bool reclaim_wants_unpin;
	_Atomic uint64_t pin_first;     /* oldest that may have a pin, >= first_seq; moved under the lock */

	struct ter_lock lock; /* rank JOURNAL */
	struct ter_waitq writer_wq, space_wq, durable_wq, reclaim_wq, reclaim_done_wq;
	struct ter_jbuf bufs[TER_JOURNAL_BUFS];
	bool is_open;
	uint64_t seal_seq;       /* first not sealed */
	uint64_t written_seq, last_seq_ondisk;
	uint64_t flush_first, flush_last; /* range of sequences someone wants durable; flush_last <= durable_seq: none */
	uint64_t last_flush_ns;
	unsigned space_waiters;
	_Atomic bool small;      /* a ring is; stays */
	bool working;            /* J8; only on a small ring */
	struct ter_list waiters; /* struct ter_journal_waiter, in order of arrival */

	/* roots */
	bool roots_wanted;
	uint64_t roots_seq;      /* newest entry that carries them, pinned; < first_seq: the pin is on what was replayed */
	struct ter_root roots[TER_BTREE_ROOTS_MAX];
	uint64_t replay_oldest;
	bool replay_hold;        /* until ter_journal_replay_done() */

	/* rings; the pointers are set by the writer task and stay */
	struct ter_jring *ring[TER_DEVS_MAX];

	/* reclaim */
	struct {
		const char *name;
		int (*fn)(void *arg, uint64_t seq);
		void *arg;
	} reclaimer[TER_JOURNAL_RECLAIMERS_MAX];
	unsigned reclaimers_nr;
	uint64_t reclaim_asked, reclaim_done; /* tickets of ter_journal_reclaim_to() */
	uint64_t reclaim_asked_seq;
	int reclaim_result;

	struct ter_task *writer, *reclaim;
	bool quit;
	struct ter_journal_stats stats;

	/* the writer task's own; jio_lock guards the count */
	struct ter_lock jio_lock; /* rank LEAF */
	struct ter_waitq jio_wq;
	unsigned jio_left;
	uint32_t pad_bytes; /* greatest block of a member */
	struct ter_jio jio[TER_DEVS_MAX];
};

static inline struct ter_jbuf *ter_jbuf(struct ter_journal *j, uint64_t seq)
{
	return &j->bufs[seq % TER_JOURNAL_BUFS];
}

/* What options say now. */
struct ter_jcopies {
	uint8_t meta, meta_required, data, data_required;
	uint32_t flush_ms;
};
void ter_jcopies_get(struct ter_journal *j, struct ter_jcopies *ret);

/* journal.c */
void ter_journal_fail_(struct ter_journal *j, int r, const char *text); /* J6; takes the lock */
/* journal_res.c; lock held */
void ter_journal_close_open_(struct ter_journal *j);
void ter_journal_advance_(struct ter_journal *j); /* seal what can be, open the next entry if it may, raise its admission, wake whom it concerns */
void ter_journal_want_(struct ter_journal *j, uint64_t seq);
bool ter_journal_open_empty_(struct ter_journal *j);
/* journal_pin.c; lock held */
uint64_t ter_journal_oldest_(struct ter_journal *j, bool skip_roots);
void ter_journal_move_roots_pin_(struct ter_journal *j, uint64_t seq);
/* journal_ring.c; lock held but for ring_new */
int ter_jring_new_(struct ter_journal *j, struct ter_dev *dev, struct ter_jring **ret_ring);
void ter_jring_free_(struct ter_jring *ring);
bool ter_jring_place_(struct ter_journal *j, struct ter_jring *ring, uint32_t bytes, uint64_t seq, uint64_t *ret_offset_bytes);
void ter_jring_set_last_(struct ter_journal *j, uint64_t last_seq);
int ter_jring_admission_(struct ter_journal *j); /* TER_JADMIT_*, or -1: nothing may open */
bool ter_jring_eligible_(const struct ter_jring *ring);
int ter_jring_resume_(struct ter_journal *j, struct ter_jring *ring, uint64_t next_seq); /* waits; before the tasks run */
uint32_t ter_jring_block_(struct ter_journal *j, const struct ter_jring *ring);
unsigned ter_jring_buckets_nr_(const struct ter_dev *dev);
/* journal_write.c, journal_reclaim.c */
void ter_journal_writer_(void *arg);
void ter_journal_reclaim_task_(void *arg);
bool ter_journal_needs_reclaim_(struct ter_journal *j);

/* journal_scan.c: finding entries */
uint64_t ter_journal_magic_(const struct ter_sb *sb);
struct ter_jfound {
	uint64_t seq, last_seq;
	uint64_t offset_bytes;   /* on the member */
	uint32_t payload_bytes;
	uint8_t dev_idx, flags;
	bool valid;              /* else only its header was legible */
	uint8_t csum[8];         /* its first bytes: to see that two copies are the same */
};
struct ter_jscan {
	struct ter_sb *sb;
	struct ter_dev *dev;
	uint32_t bucket_bytes, block_bytes; /* entries begin at multiples of the latter */
	/* results */
	struct ter_jfound *found;
	size_t found_nr, found_max;
	uint64_t best_last_seq;  /* last_seq of the newest flush entry so far: what is older need not be remembered */
	uint64_t best_seq, oldest_seen_seq;
	bool unreadable;         /* some of it was */
	bool end_unreadable;     /* where the ring goes on after the newest entry: there may be newer ones */
	unsigned crumbled;       /* pieces that were read bit by bit */
	unsigned bad_behind;     /* then: the last bucket with a part that could not be read, counted from the newest entry's */
	uint32_t failed_from, failed_to; /* bytes of the bucket read last that could not be read; failed_to 0: none */
	int r;                   /* -ENOMEM */
	struct ter_journal_ring_state *ring;
	uint64_t ring_newest_seq;
};
void ter_jscan_run_(void *scan);
/* Does a valid entry begin at @buf? Of it and its payload at most @bytes are there. -ENODATA: no header; -EBADMSG: one, with only ret->seq to go by. */
int ter_jentry_check_(const struct ter_sb *sb, const void *buf, uint32_t bytes, struct ter_jfound *ret);
bool ter_jblacklisted_(const struct ter_sb *sb, uint64_t seq);

#endif
