/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File data: dirty buffer, write-back, reading
 *
 * `struct ter_file` is one inode's data; the room above embeds it in its inode and says how to stage the inode's own key. A write is copied into dirty *segments* (byte ranges in buffers
 * from one pool in the region that survives a daemon restart) and is done. Write-back turns segments into extents. fsync puts a little data into the journal.
 *
 *     dirty -> (journaled at seq) -> in write-back -> committed, gone
 *
 *   D1  Segments of a file do not overlap; they are newer than the extents below.
 *   D2  A segment in write-back is not changed: a write over it makes a new segment above (layered: newest wins on read), which is not written before the older one is committed.
 *   D3  A committed write-back transaction holds: extents, alloc keys, counters, the inode (size, times), and DATA_DONE for the ranges.
 *   D4  Size on disk never exceeds what was written or set by truncate; bytes between are zeros, never stale.
 *   D5  Dirty bytes stay under dirty_bytes_max; a writer beyond waits for write-back (nowait: -EAGAIN), and write-back always can finish (its memory is set aside).
 *   D6  A segment that stands in the journal at S pins S until its extent is committed.
 *   D7  A write that was accepted has its space reserved.
 *   D9  Segments that share a block are written back in one batch, and none of it while another batch with that block is in flight.
 *   D8  When write-back of a segment fails for good (EIO on all members), the file's error is reported once to the next sync of the file and the segment stays readable until dropped.
 *       A sync of the file tries it again; so does, once a second, a writer that is refused (EIO) because half of the buffer failed.
 */
#ifndef TER_DATA_H
#define TER_DATA_H

#include <stdatomic.h>

#include "alloc/alloc.h"
#include "data/extent.h"
#include "journal/journal.h"

struct ter_data;
struct ter_file;

struct ter_file_ops {
	/*
	 * Stage the inode's key with its current attributes: size on disk becomes at least @size_to (not more than the file's size), allocated sectors change by @sectors. Called inside
	 * transactions of write-back, sync and punch, with no lock held; may be repeated on restart. @committed (after success) tells the inode its on-disk size.
	 */
	int (*stage)(struct ter_file *file, struct ter_trans *trans, uint64_t size_to, int64_t sectors);
	void (*committed)(struct ter_file *file, uint64_t size_to, int64_t sectors, uint64_t seq);
	/* The file is dirty: keep it in memory; called with +1 when the first segment appears and -1 when the last is gone (no lock of rank DIRTY or above held). */
	void (*ref)(struct ter_file *file, int delta);
};

struct ter_seg; /* data_priv.h */
struct ter_file {
	const struct ter_file_ops *ops;
	uint64_t inum;
	uint32_t snapshot;
	struct ter_lock lock;   /* rank DIRTY; guards all up to `error` */
	struct ter_waitq wq;    /* write-back progress */
	struct ter_seg *segs;   /* dirty segments that may change: balanced tree by offset (segtree.c) */
	struct ter_seg *wb;     /* segments in write-back, or whose write-back failed: older than those in `segs` where they overlap (D2) */
	struct ter_list unsynced; /* segments of `segs` with bytes that are in no journal entry */
	uint64_t unsynced_bytes;
	uint64_t dirty_bytes;
	unsigned writeback_nr;  /* segments in flight */
	unsigned wb_unsynced_nr; /* segments of `wb` with bytes that are in no journal entry */
	unsigned wb_failed_nr;  /* segments of `wb` whose write-back failed */
	uint64_t size;          /* as seen by readers: kept by the room above, under its inode lock and this lock */
	uint64_t last_seq;      /* newest journal sequence that changed this file's keys */
	uint64_t wb_cursor;     /* where the next batch begins */
	uint64_t failures;      /* batches that failed */
	int failure, error;     /* of the newest one; D8: not yet reported */
	bool journaling;        /* a sync is being committed: segments stay where they are */
	bool punching;          /* a sync waits */
	unsigned no_take;       /* write-back takes nothing */
	/* guarded by the data room's pool lock */
	uint64_t first_dirty_ns;
	struct ter_list dirty_link; /* in one of the lists of what to write back, oldest first */
	_Atomic uint8_t dirty_list; /* changed under both locks but for asking for write-back */
	bool has_segs;              /* and so a hold */
	struct ter_list all_link;   /* in the list of all files with segments */
	uint64_t all_gen, wanted_gen;
	_Atomic uint32_t holds;     /* 1 for having segments, 1 for each operation that uses the file without being called from above */
	_Atomic bool not_inline;    /* a hint: has extents */
	_Atomic uint8_t compress_skip, compress_misses; /* how often to leave out trying, and how often in a row it did not help */
	void *priv;
};
void ter_file_init(struct ter_file *file, const struct ter_file_ops *ops, uint64_t inum, uint32_t snapshot, uint64_t size);
void ter_file_destroy(struct ter_file *file); /* nothing dirty */

struct ter_data_config {
	struct ter_exec *exec;
	struct ter_sb_handle *sb;       /* options are read from sb->sb->options at each use */
	struct ter_members *members;
	struct ter_btrees *btrees;
	struct ter_alloc *alloc;
	struct ter_journal *journal;
	const struct ter_codecs *codecs;
	void *region; size_t region_bytes; /* buffers for dirty data; page-aligned, may be a shared mapping */
	/* A corrupt or unreadable copy was met: member, inode, byte offset; repaired tells whether another copy served. Must not block. */
	void (*on_damage)(void *arg, unsigned dev_idx, uint64_t inum, uint64_t offset_bytes, bool repaired);
	void *on_arg;
};
int ter_data_new(const struct ter_data_config *config, struct ter_data **ret_data);
void ter_data_set_journal(struct ter_data *data, struct ter_journal *journal); /* config's may be NULL until replay is over; a later one replaces it */
int ter_data_start(struct ter_data *data); /* write-back tasks; registers with journal reclaim */
void ter_data_stop(struct ter_data *data); /* before the files' owner goes, started or not: what is still dirty is dropped */
void ter_data_free(struct ter_data *data);
int ter_data_flush_all(struct ter_data *data); /* every dirty segment of every file is committed (not yet durable) */

/*
 * Write. The caller holds the inode's write lock and updates times (and its own size) on success; file->size is moved here, before write-back can see the bytes. 0: all copied.
 * -ENOSPC (nothing copied), -EAGAIN (nowait: dirty limit), -EROFS, -EIO (all memory holds what cannot be written back).
 */
int ter_file_write(struct ter_data *data, struct ter_file *file, uint64_t offset, const struct iovec *iov, unsigned iov_nr, bool nowait);

/* Read, completed later or at once. Bytes beyond file->size are not delivered: bytes_done says how many were. Buffers need no alignment. */
struct ter_read {
	struct ter_file *file;
	uint64_t offset;
	size_t bytes;
	void *buf;
	bool nowait;             /* -EAGAIN from ter_file_read() where a btree node is not cached (done is not called then) */
	void (*done)(struct ter_read *read); /* exactly once if ter_file_read() returned 0; perhaps before it returns. Context as bio->done: may reply, must not block */
	int result;              /* 0 or -EIO … */
	size_t bytes_done;
	void *priv;
	void (*outer_done)(struct ter_read *read); /* ter_vfs_read()'s own: the caller's done while the file is referenced */
};
/* The inode's read lock is held across the call only (not until done). */
int ter_file_read(struct ter_data *data, struct ter_read *read);
int ter_file_read_wait(struct ter_data *data, struct ter_file *file, uint64_t offset, void *buf, size_t bytes, size_t *ret_bytes);

/*
 * Make the file durable (contents and inode): journal data or write-back, then a journal flush. 0: waiter->fn is told, once. Negative: it is not; -EAGAIN (nowait) where write-back or a
 * journal wait were needed, else D8 or what stopped the journal.
 */
int ter_file_sync_async(struct ter_data *data, struct ter_file *file, bool nowait, struct ter_journal_waiter *waiter);
int ter_file_sync(struct ter_data *data, struct ter_file *file);
int ter_file_writeback(struct ter_data *data, struct ter_file *file); /* commit all dirty segments now; waits */

/*
 * Truncation and holes. The caller holds the inode's write lock. Drops dirty bytes in [from, to), waits for write-back there, zeroes the partial blocks at both edges (through the dirty buffer, needs
 * reading: may wait), then deletes extents of the whole blocks in as many transactions as needed. @first, if not NULL, is called to stage into the first transaction (inode with the new size and a
 * DELETED_INODES mark), @last into the last one. Without @first, a size that only the dropped bytes would have made durable is staged here.
 * @to of 2^63 or more is a truncation: file->size becomes @from with the first commit.
 */
int ter_file_punch(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, int (*first)(struct ter_trans *trans, void *arg),
		   int (*last)(struct ter_trans *trans, void *arg), void *arg);
/* fallocate: promise space for the holes in the range. A write there that finds no other space (and may wait) draws on it. */
int ter_file_reserve_range(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to);
/* SEEK_DATA / SEEK_HOLE: dirty segments count as data, RESERVATION as hole. -ENXIO. */
int ter_file_seek(struct ter_data *data, struct ter_file *file, uint64_t offset, bool hole, uint64_t *ret_offset);

/* Recovery: file data found in the journal at @seq, and its undoing. @file comes from the room above. Pins are taken by ter_data_start(). */
int ter_file_replay_data(struct ter_data *data, struct ter_file *file, uint64_t seq, uint64_t offset, const void *bytes, size_t nr);
void ter_file_replay_done(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, uint64_t upto_seq);

/*
 * An extent with fewer than @wanted copies gets the missing ones, on members that have none of it, from one that verifies; in one transaction. Waits. Return: how many good ones there are now;
 * -ENOENT: it is no such extent any more; -EIO: none verifies; -ENODEV: none of those whose members are here; -ENOSPC: no room that is not promised; -EROFS: no member can be written.
 */
int ter_data_add_copies(struct ter_data *data, struct ter_pos pos, unsigned wanted);

struct ter_data_stats {
	uint64_t dirty_bytes, written_bytes, stored_bytes, read_bytes, device_read_bytes, repaired, failed;
	uint64_t degraded; /* batches written with fewer copies than asked for */
};
void ter_data_get_stats(struct ter_data *data, struct ter_data_stats *ret);

#endif
