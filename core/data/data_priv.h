/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The data room inside: segments, the buffer pool, batches, bounce buffers
 *
 * Locks: file->lock (DIRTY) > … ALLOC > JOURNAL > SB > … > data->lock (DIRTY_POOL). The pool lock guards buffers, free segments, the lists of files and of pinned segments,
 * and calls nothing. Journal pins and space reservations are taken and dropped outside of it.
 *
 * Life of a file here: `holds` counts; its first hold calls ops->ref(+1) before anything of it can be seen, its last one ops->ref(-1) as the very last act.
 */
#ifndef TER_DATA_PRIV_H
#define TER_DATA_PRIV_H

#include "data/data.h"
#include "journal/journal_encode.h"
#include "util/mem.h"

#define TER_PAGE_BYTES 4096u
#define TER_PAGE_SHIFT 12
#define TER_BUF_ORDERS 9                     /* 4 KiB .. 1 MiB */
#define TER_BUF_BYTES_MAX (TER_PAGE_BYTES << (TER_BUF_ORDERS - 1))
#define TER_PAGE_NONE UINT32_MAX

#define TER_WB_TASKS 4
#define TER_BATCH_BYTES_MAX TER_MIB(4)       /* a batch takes no more segments beyond this */
#define TER_FAILED_RETRY_NS TER_NS_PER_S     /* what could not be written is tried again for refused writers at most so often */
#define TER_BATCH_RUNS_MAX 1024u
#define TER_BATCH_PIECES_MAX 4096u
#define TER_BATCH_SPACES_MAX 256u
#define TER_BATCH_TRANS_PIECES 128u          /* extents in one transaction, at first */
#define TER_INLINE_FILES_MAX 64u             /* files of which one transaction carries inline data */
#define TER_INLINE_BYTES_MAX TER_KIB(64)     /* and how much */
/* Of a small journal (J8): about 32 KiB of keys. */
#define TER_BATCH_RUNS_SMALL 32u
#define TER_BATCH_BYTES_SMALL TER_KIB(256)
#define TER_INLINE_BYTES_SMALL TER_KIB(16)
#define TER_INLINE_FILE_MAX 8192u            /* greatest inline_data_max */
#define TER_JOURNALED_AGE_FACTOR 16u         /* what stands in the journal is written back that much later */
#define TER_STREAM_BYTES TER_MIB(8)          /* so much of one file is written back at once */
#define TER_PUNCH_KEYS 64u                   /* keys one punch transaction touches */
#define TER_SYNC_TRIES 16u
#define TER_REPAIRS_MAX 64u
#define TER_RELOOK_MAX 16u                   /* how often a read looks again because extents changed under it */

enum { TER_LIST_NONE, TER_LIST_UNSYNCED, TER_LIST_JOURNALED, TER_LIST_WANTED, TER_LIST_NR };

/* A buffer made of heap memory, for what replay finds beyond the region. */
struct ter_loose {
	uint32_t refs;
	void *mem;
};

/* A dirty byte range. In file->segs: changed under file->lock only. In file->wb: only its links change. */
struct ter_seg {
	struct ter_file *file;
	struct ter_seg *left, *right;
	uint32_t prio;
	uint32_t page;             /* of the region; TER_PAGE_NONE: loose */
	uint64_t start, end;       /* bytes of the file */
	uint64_t base;             /* file offset of mem[0]; a multiple of cap, or of the page */
	uint8_t *mem;
	uint32_t cap;              /* bytes in the buffer */
	uint32_t reserved_sectors; /* D7 */
	struct ter_loose *loose;
	uint8_t replicas;          /* of the reservation */
	bool heap;                 /* this struct is from the heap */
	bool shared;               /* the buffer was cut in two: not to be grown in */
	bool in_flight, failed;
	uint64_t gen;              /* age, by flush requests */
	uint64_t new_from, new_to; /* within: bytes that are in no journal entry; equal: none */
	struct ter_list new_link;  /* file->unsynced */
	uint64_t pin_seq;          /* oldest journal entry with bytes of it; 0: none */
	uint64_t seq;              /* newest one */
	struct ter_list pin_link;  /* data->pinned, by pin_seq */
	struct ter_seg *next;      /* in a batch or a list of dropped ones */
};

/* --- buffer.c --- */
struct ter_page {
	uint32_t next, prev;
	uint16_t refs;
	uint8_t order;
	bool free;
};
struct ter_pool {
	uint8_t *mem;
	uint32_t pages_nr, free_pages;
	struct ter_page *page;
	uint32_t free[TER_BUF_ORDERS]; /* first page of each list */
	struct ter_seg *segs, *free_segs;
	uint32_t segs_nr, free_segs_nr, segs_begun; /* from segs_begun on none was used yet: they are not in free_segs, and their memory is not touched */
	unsigned order_max;
};

struct ter_batch_ctx;

struct ter_data {
	struct ter_data_config config;
	struct ter_exec *exec;
	const struct ter_sb *sb;
	_Atomic(struct ter_journal *) journal;
	uint32_t block_bytes, block_sectors;
	struct ter_lock flush_lock;  /* rank RENAME: one ter_data_flush_all() at a time; held while it waits */
	uint64_t batch_bytes;        /* most bytes one batch covers, rounded to blocks */

	struct ter_lock lock;        /* rank DIRTY_POOL */
	struct ter_waitq wb_wq;      /* work for write-back */
	struct ter_waitq space_wq;   /* buffers became free */
	struct ter_pool pool;
	struct ter_list lists[TER_LIST_NR];
	struct ter_list all;
	struct ter_list pinned;
	unsigned space_waiters, flushers;
	_Atomic unsigned idle_tasks;
	uint64_t deadline_ns;        /* until when the idle ones sleep at most */
	uint64_t frees;              /* counts what became free */
	uint64_t failed_bytes;       /* buffer bytes of segments whose write-back failed */
	uint64_t failed_retry_ns;    /* not before this time are they tried again because a writer was refused */
	uint64_t gen;                /* of the newest flush request */
	_Atomic bool stopping, started;
	bool replay_failed;
	bool reclaiming;             /* the reclaim task is in here */
	struct ter_journal *registered; /* with whose reclaim */
	unsigned tasks_nr;
	struct ter_task *tasks[TER_WB_TASKS];
	struct ter_batch_ctx *ctx[TER_WB_TASKS + 1]; /* the last one is the reclaim task's */
	struct ter_lock algo_lock;   /* rank FS_STATE: one at a time gives algorithms their slots */
	bool algos_unsaved;          /* algo_lock: a slot is not in the superblock on disk yet */

	/* space promised by RESERVATION keys */
	_Atomic uint64_t promised_sectors;
	uint8_t promise_replicas;

	struct ter_workq *slow;      /* read retries, repairs */
	_Atomic unsigned repairs_nr;
	struct ter_lock bounce_lock; /* rank LEAF */
	void *bounce_free[12];       /* 4 KiB .. 8 MiB */
	unsigned bounce_nr[12];
	uint64_t bounce_bytes;
	_Atomic unsigned spread;
	_Atomic unsigned reads_nr;   /* in flight */

	_Atomic uint64_t dirty_bytes, written_bytes, stored_bytes, read_bytes, device_read_bytes, repaired, failed, degraded;
};

/* Numbers of the options, read at each use while someone may be setting them. */
#define ter_data_opt(data, name) __atomic_load_n(&(data)->sb->options.name, __ATOMIC_RELAXED)

static inline struct ter_journal *ter_data_journal(struct ter_data *data)
{
	return atomic_load_explicit(&data->journal, memory_order_relaxed);
}

/* --- buffer.c; the pool lock is held --- */
int ter_pool_init(struct ter_pool *pool, void *region, size_t bytes);
void ter_pool_destroy(struct ter_pool *pool);
/* A buffer of 4096 << order bytes, or the largest smaller one; TER_PAGE_NONE: nothing is free. */
uint32_t ter_pool_get(struct ter_pool *pool, unsigned order, unsigned *ret_order);
void ter_pool_ref(struct ter_pool *pool, uint32_t page);
bool ter_pool_put(struct ter_pool *pool, uint32_t page); /* true: freed */
struct ter_seg *ter_pool_seg_get(struct ter_pool *pool);
void ter_pool_seg_put(struct ter_pool *pool, struct ter_seg *seg);
bool ter_pool_check(const struct ter_pool *pool); /* for tests: free lists and counts agree */

/* --- segtree.c: treap by start; segments in one tree do not overlap --- */
void ter_segtree_insert(struct ter_seg **root, struct ter_seg *seg);
void ter_segtree_remove(struct ter_seg **root, struct ter_seg *seg);
struct ter_seg *ter_segtree_first(struct ter_seg *root, uint64_t pos); /* the first with end > pos */
struct ter_seg *ter_segtree_prev(struct ter_seg *root, uint64_t pos);  /* the last with end <= pos */
struct ter_seg *ter_segtree_next(struct ter_seg *root, const struct ter_seg *seg);

/* --- file.c: holds and lists --- */
void ter_file_hold(struct ter_file *file);
void ter_file_release(struct ter_file *file); /* with no lock held; the file may be gone afterwards */
/* The pool lock is held. */
void ter_file_list_(struct ter_data *data, struct ter_file *file, unsigned list);
void ter_file_relist_(struct ter_data *data, struct ter_file *file); /* file->lock is held: into the list that fits */
/* After segments came or went, file->lock held; true: the caller releases the hold for having segments once no lock is held. */
bool ter_file_account(struct ter_data *data, struct ter_file *file);
uint64_t ter_file_due_ns_(struct ter_data *data, const struct ter_file *file); /* when it is to be written back; the pool lock is held */

/* --- dirty.c --- */
static inline uint64_t ter_file_block_down(const struct ter_data *data, uint64_t x)
{
	return ter_round_down(x, data->block_bytes);
}
static inline uint64_t ter_file_block_up(const struct ter_data *data, uint64_t x)
{
	return ter_round_up(x, data->block_bytes);
}
enum {
	TER_WRITE_NOWAIT = 1 << 0,
	TER_WRITE_FORCE = 1 << 1,   /* without a reservation where space is short */
	TER_WRITE_NO_SIZE = 1 << 2, /* file->size stays */
};
/* @iov NULL: zeros. The file is held. */
int ter_file_write_(struct ter_data *data, struct ter_file *file, uint64_t offset, const struct iovec *iov, unsigned iov_nr, size_t bytes, unsigned flags);
/*
 * A write for which nothing is left: what fallocate promised for its range becomes its reservation, of @need sectors in all. Keys go, the space that they held is handed on. -ENOSPC: nothing, or
 * too little, was promised there; then nothing was changed. As ter_file_reserve_range() it waits for write-back of the file.
 */
int ter_file_draw_promise_(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, uint8_t replicas, uint64_t need, uint64_t *ret_sectors);
/*
 * Take [from, to) out of a tree (file->lock held): whole segments go to *dropped (through seg->next), others are cut. Segments in flight stay. Only those with seq <= @upto.
 * -EAGAIN: no free segment to split one (nothing of that one was changed; call again).
 */
int ter_segs_cut(struct ter_data *data, struct ter_file *file, struct ter_seg **root, uint64_t from, uint64_t to, uint64_t upto, struct ter_seg **dropped);
/* Take [from, to), where nothing but what was written since is (file->lock held): it lies at the edges of segments, none of which needs to be cut in two. */
void ter_segs_trim(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, struct ter_seg **dropped);
/* What ter_segs_cut() took is there again; nothing was written there meanwhile. file->lock is held. */
void ter_segs_put_back(struct ter_data *data, struct ter_file *file, struct ter_seg *list);
/* Free segments that are in no tree: buffers, pins, reservations. file->lock may be held. */
void ter_segs_free(struct ter_data *data, struct ter_seg *list);
void ter_seg_mark_new(struct ter_seg *seg, uint64_t from, uint64_t to);
void ter_seg_clear_new(struct ter_seg *seg);
void ter_seg_set_pin(struct ter_data *data, struct ter_seg *seg, uint64_t seq, bool whole); /* a pin on @seq is held by the caller */
uint32_t ter_seg_span_sectors(const struct ter_data *data, const struct ter_seg *seg);

/* --- extent_stage.c --- */
struct ter_punch_result {
	uint64_t done_to;
	int64_t sectors;
	uint64_t promised_sectors; /* of RESERVATION keys that went */
	unsigned keys;
};
int ter_extents_stage_punch_(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_sb *sb, uint64_t inum, uint32_t snapshot, uint64_t start, uint64_t end,
			     unsigned keys_max, struct ter_punch_result *ret);
/*
 * What a transaction reads is not of one moment: a key and what is derived from it may be read on both sides of another's commit, and look like a contradiction. So -EUCLEAN begins
 * anew a few times before it is believed.
 */
#define TER_STALE_TRIES 16u
static inline int ter_maybe_stale(int r, unsigned *tries)
{
	return r == -EUCLEAN && ++*tries < TER_STALE_TRIES ? -ERESTART : r;
}
/* The first key of a file that ends after @start; -ENOENT. */
int ter_extents_next(struct ter_trans *trans, uint64_t inum, uint32_t snapshot, uint64_t start, struct ter_key *ret);
void ter_data_unpromise(struct ter_data *data, uint64_t sectors);

/* --- writeback.c, batch.c, commit.c --- */
struct ter_batch { /* what is taken of one file */
	struct ter_file *file;
	struct ter_seg *segs, **tail; /* ascending, through seg->next */
	uint64_t bytes;               /* rounded to blocks */
	unsigned runs;
	uint64_t eof;                 /* the file's size when it was taken */
	bool pinned, retried;
	bool exclusive;               /* of a small file: nothing else of it is in flight */
	uint64_t seq;                 /* newest journal entry with bytes of it */
};
/* Take segments into flight. @gen_max: none younger needs to go; @retry: also those that failed. false: nothing to take. file->lock is held. */
bool ter_batch_take(struct ter_data *data, struct ter_file *file, uint64_t gen_max, bool retry, struct ter_batch *batch);
int ter_batch_ctx_new(struct ter_data *data, struct ter_batch_ctx **ret);
void ter_batch_ctx_free(struct ter_batch_ctx *ctx);
/* Write what was taken into extents of its own and commit. Then call ter_batch_end(). */
int ter_batch_run(struct ter_data *data, struct ter_batch_ctx *ctx, struct ter_batch *batch);
/* Try to commit batches of small whole files inline; done[i] tells for which that was right. */
int ter_batch_run_inline(struct ter_data *data, struct ter_batch_ctx *ctx, struct ter_batch *batches, unsigned nr, bool *done);
bool ter_batch_may_inline(struct ter_data *data, const struct ter_batch *batch);
void ter_batch_end(struct ter_data *data, struct ter_batch *batch, int r); /* segments are dropped or marked failed; the hold is released */
int ter_file_writeback_gen(struct ter_data *data, struct ter_file *file, uint64_t gen);
uint64_t ter_data_next_gen(struct ter_data *data);
void ter_writeback_stream(struct ter_data *data, struct ter_file *file); /* it has much to write: due now; file->lock is held */
int ter_writeback_start(struct ter_data *data);
void ter_writeback_stop(struct ter_data *data);

/* Commit extents with one file's batch in as few transactions as they need. */
struct ter_commit_mem {       /* set aside */
	uint64_t val[TER_EXTENT_VAL_MAX / 8];
	struct ter_jrec_data_done_disk done[TER_BATCH_PIECES_MAX];
	uint8_t content[TER_INLINE_FILE_MAX];
};
int ter_batch_commit(struct ter_data *data, const struct ter_batch *batch, const struct ter_extent *extents, unsigned nr, struct ter_commit_mem *mem);
int ter_batch_commit_inline(struct ter_data *data, struct ter_batch *batches, unsigned nr, bool *done, struct ter_commit_mem *mem);

/* --- read.c, read_slow.c --- */
/* What lies on the devices (dirty data apart), zeros in holes; completes like a read. */
void *ter_bounce_get(struct ter_data *data, size_t bytes);
void ter_bounce_put(struct ter_data *data, void *mem, size_t bytes);
void ter_bounce_drain(struct ter_data *data);
struct ter_below {
	uint64_t offset;
	uint32_t bytes;
	void *buf;
	int result;
	void (*done)(struct ter_below *below);
	void *priv;
};
int ter_read_below(struct ter_data *data, struct ter_file *file, struct ter_below *below);

#endif
