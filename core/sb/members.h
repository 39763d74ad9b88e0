/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Members of an open pool
 *
 * `struct ter_dev` is one member slot: its record in the superblock, and its open device when online. A slot's index is stored in every pointer to the
 * member and is not given to another member while pointers may exist.
 *
 *   M1  bdev != NULL exactly while the member is online; I/O goes through ter_dev_submit() only, which counts, times and notes what needs a flush.
 *   M2  writes_done counts completed writes that were not FUA; writes_flushed is what a *completed, successful* flush covered, i.e. the count when it was submitted.
 *       ter_dev_unflushed() compares the two. Not a flag cleared when a flush is submitted: whoever read it while that flush was in flight (a superblock write beside a
 *       journal commit) would take data for durable that is not yet.
 *   M3  error counters only grow, and are saved with the superblock.
 *   M4  a struct ter_dev is always element [idx] of the `dev` of a struct ter_members: errors are told to that one's on_error.
 */
#ifndef TER_MEMBERS_H
#define TER_MEMBERS_H

#include <stdatomic.h>

#include "io/io.h"
#include "util/base.h"
#include "util/timestats.h"

#define TER_DEVS_MAX 64
#define TER_LABEL_MAX 32

enum ter_dev_state { TER_DEV_RW, TER_DEV_RO, TER_DEV_FAILED, TER_DEV_SPARE, TER_DEV_STATE_NR };
extern const char *const ter_dev_state_names[TER_DEV_STATE_NR]; /* "rw", "ro", "failed", "spare" */

/* What a bucket, a replicas entry or an accounting row holds. On disk: ids are fixed. */
#define TER_DATA_TYPES(x)                                                                                              \
	x(0, FREE, "free")                                                                                             \
	x(1, SB, "sb")                                                                                                 \
	x(2, JOURNAL, "journal")                                                                                       \
	x(3, BTREE, "btree")                                                                                           \
	x(4, USER, "user")                                                                                             \
	x(5, CACHED, "cached")                                                                                         \
	x(6, PARITY, "parity")                                                                                         \
	x(7, STRIPE, "stripe")                                                                                         \
	x(8, NEED_DISCARD, "need_discard")
enum ter_data_type {
#define x(id, name, text) TER_DATA_##name = id,
	TER_DATA_TYPES(x)
#undef x
	TER_DATA_NR,
};
extern const char *const ter_data_type_names[TER_DATA_NR];

enum ter_dev_errkind { TER_DEV_ERR_READ, TER_DEV_ERR_WRITE, TER_DEV_ERR_CHECKSUM, TER_DEV_ERR_FLUSH, TER_DEV_ERR_NR };

/* A run of buckets. */
struct ter_bucket_range {
	uint64_t first, nr;
};
#define TER_JOURNAL_RANGES_MAX 16

struct ter_dev {
	unsigned idx;
	bool used;      /* slot belongs to a member */
	uint8_t uuid[16];
	enum ter_dev_state state;
	uint8_t durability;
	bool discard;
	char label[TER_LABEL_MAX + 1];
	uint64_t bytes;          /* size when formatted or resized; the device may not be smaller */
	uint32_t bucket_sectors; /* the pool's */
	uint64_t buckets_nr;
	uint64_t first_bucket;   /* below: superblock copies */
	struct ter_bucket_range journal[TER_JOURNAL_RANGES_MAX]; /* in ring order; ends with nr == 0 */
	uint32_t journal_at;     /* place in the ring, from 1, of the bucket that a clean stop wrote last; 0: not known */
	uint64_t last_mount_ns;  /* real time */
	uint64_t seen_seq;       /* superblock seq this pool last saw of that member (split brain) */
	_Atomic uint64_t errors[TER_DEV_ERR_NR];
	uint64_t errors_since_ns;

	/* while online */
	struct ter_bdev *bdev;
	_Atomic uint64_t writes_done, writes_flushed; /* M2 */
	_Atomic uint32_t inflight;                    /* requests the device has; callbacks of the last may still run when it is 0 */
	uint64_t written_seq; /* superblock seq that slot 0 is known to hold since we wrote or read it; 0: not known. Set it when the member goes online. */
	_Atomic uint64_t read_bytes, write_bytes, flushes;
	_Atomic uint64_t read_latency_ns; /* EWMA; the read path prefers the lower */
	struct ter_timestats read_times, write_times, flush_times;
};

struct ter_members {
	struct ter_dev dev[TER_DEVS_MAX];
	unsigned nr_slots; /* highest used index + 1 */
	/* Told of each I/O error (rank LEAF context: must not block); may be NULL. */
	void (*on_error)(void *arg, struct ter_dev *dev, enum ter_dev_errkind kind, int r);
	void *on_error_arg;
};

static inline struct ter_dev *ter_member(struct ter_members *members, unsigned idx)
{
	return idx < TER_DEVS_MAX && members->dev[idx].used ? &members->dev[idx] : NULL;
}
static inline bool ter_dev_online(const struct ter_dev *dev)
{
	return dev->bdev != NULL;
}
/* Some completed write may not be durable: a flush is needed (M2). */
static inline bool ter_dev_unflushed(const struct ter_dev *dev)
{
	/* In this order: writes_flushed never passes writes_done, so an older pair can only err towards one flush too many. */
	uint64_t flushed = atomic_load(&dev->writes_flushed);

	return atomic_load(&dev->writes_done) != flushed;
}
static inline bool ter_dev_writable(const struct ter_dev *dev)
{
	return dev->bdev && dev->state == TER_DEV_RW;
}

/*
 * Submit to a member. Fills bio->bdev; bio->done sees the result as usual. A request wraps its completion: struct ter_dev_bio is what callers embed.
 */
struct ter_dev_bio {
	struct ter_bio bio;
	struct ter_dev *dev;
	void (*done)(struct ter_dev_bio *dbio); /* context as bio->done */
	void *priv;
	/* filled by ter_dev_submit() */
	uint64_t start_ns;
	uint64_t flush_covers; /* writes_done when the flush was submitted */
};
/* Set bio.op, flags, offset_bytes, bytes, iov, iov_nr, done, priv; then submit. For one part, iov may be &bio.iov1. -ENODEV is
 * delivered through done when the member is offline (and is not counted as an error). */
void ter_dev_submit(struct ter_dev *dev, struct ter_dev_bio *dbio);
/* Waiting helpers, counted likewise. */
int ter_dev_read(struct ter_dev *dev, uint64_t offset_bytes, void *buf, size_t bytes);
int ter_dev_write(struct ter_dev *dev, uint64_t offset_bytes, const void *buf, size_t bytes, unsigned bio_flags);
int ter_dev_flush(struct ter_dev *dev);
/* Count an error that the caller found (a bad checksum), and tell. */
void ter_dev_error(struct ter_members *members, struct ter_dev *dev, enum ter_dev_errkind kind, int r);

#endif
