/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Simulated devices
 *
 * A backend of io.h for tests: devices of memory, sparse (64 KiB pages, copied on write), whose requests complete in an
 * order drawn from a seed, never inside the submission. It records what is written, cuts the power, and fails on
 * request. It completes in one task of the exec it was made with. Its own memory does not pass the fault point
 * "mem.alloc", and it aborts when it gets none. A misaligned request (I4) is -EINVAL; a write whose memory changes
 * while in flight is an abort as long as the recording is on.
 *
 * Power cut. Every submission and completion is an *event*, numbered from 1. For a cut at event t, on each device:
 *
 *   durable   writes and discards that completed without an error before the submission of a flush that completed
 *             without an error before t; and FUA writes that completed without an error before t
 *   pending   all others submitted before t
 *
 * The state after the cut is what is durable plus any subset of what is pending. Writes that had completed are applied
 * in the order of their completion, which is the order in which the device saw them; one that was in flight at t takes
 * any place after its submission.
 */
#ifndef TER_SIM_H
#define TER_SIM_H

#include "io/io.h"

#define TER_SIM_DEVICES_MAX 256
#define TER_SIM_NOW UINT64_MAX

struct ter_sim;

/* @exec: either backend. The seed orders completions. The io is freed with ter_io_free(), which frees the sim. NULL: no
 * memory. */
struct ter_sim *ter_sim_new(struct ter_exec *exec, uint64_t seed, struct ter_io **ret_io);

/* Makes a device of zeros that ter_bdev_open(io, path) finds. -EEXIST, -E2BIG, -EINVAL (block size no power of two of
 * 512 to 64 KiB, or bytes no multiple of it). */
int ter_sim_add(struct ter_sim *sim, const char *path, uint64_t bytes, uint32_t logical_block_bytes);
/* What later openings of the device report: the test may change it. NULL: no such device. */
struct ter_bdev_info *ter_sim_info(struct ter_sim *sim, const char *path);

/* Its content, past all faults and records. -ENOENT, -EINVAL (range). */
int ter_sim_peek(struct ter_sim *sim, const char *path, uint64_t offset_bytes, void *buf, size_t bytes);
int ter_sim_poke(struct ter_sim *sim, const char *path, uint64_t offset_bytes, const void *buf, size_t bytes);
/* A number that tells the contents of all devices apart, to skip states seen before. Zeros never written count as zeros
 * written. */
uint64_t ter_sim_hash(struct ter_sim *sim);

struct ter_sim_stats {
	uint64_t reads, writes, flushes, discards; /* submitted since ter_sim_new(), those failed included */
	uint64_t read_bytes, write_bytes;
	uint64_t events;
};
void ter_sim_get_stats(struct ter_sim *sim, struct ter_sim_stats *ret);

/* --- snapshots: content of all devices, at a cost of what changes afterwards --- */

struct ter_sim_snapshot;
struct ter_sim_snapshot *ter_sim_snapshot_take(struct ter_sim *sim);
/* Devices added since keep their content. @path NULL: all; else this device only (it becomes stale). A recording begins
 * anew. Requests in flight fail with -EIO. */
void ter_sim_restore(struct ter_sim *sim, const struct ter_sim_snapshot *snapshot, const char *path);
void ter_sim_snapshot_free(struct ter_sim_snapshot *snapshot); /* NULL is fine */

/* --- recording --- */

struct ter_sim_entry {
	unsigned device_idx; /* in order of ter_sim_add() */
	enum ter_bio_op op;  /* all but READ */
	uint32_t flags;	     /* TER_BIO_* */
	uint64_t offset_bytes, bytes;
	void *data;		   /* of a WRITE */
	uint64_t submit, complete; /* events; complete 0: in flight */
	int result;
};

struct ter_sim_trace {
	struct ter_sim_snapshot *base; /* before the first entry */
	struct ter_sim_entry *entry;
	unsigned entry_nr;
	uint64_t first_event, last_event; /* events that lie in it; a cut at last_event + 1 is one after all */
};

/* On: from now on, in place of an earlier recording; waits until nothing is in flight. Off: forgets it. */
void ter_sim_record(struct ter_sim *sim, bool on);
const struct ter_sim_trace *
ter_sim_trace(struct ter_sim *sim); /* what there is so far, the sim's own; NULL: not recording */
/* The recording so far, to the caller; recording goes on from here. NULL: not recording. With nothing in flight that
 * should appear completed. */
struct ter_sim_trace *ter_sim_trace_take(struct ter_sim *sim);
void ter_sim_trace_free(struct ter_sim_trace *trace); /* NULL is fine */

/* --- power --- */

enum ter_sim_keep {
	TER_SIM_KEEP_NONE, /* of what is pending */
	TER_SIM_KEEP_ALL,
	TER_SIM_KEEP_RANDOM, /* by the seed: mostly, half or rarely, for each device; discards may leave garbage */
	TER_SIM_KEEP_ASK,    /* what keep_fn says */
};

struct ter_sim_cut {
	uint64_t at; /* the event before which the power fails; TER_SIM_NOW: after all that happened */
	enum ter_sim_keep keep;
	uint64_t seed;
	/*
	 * 0: writes are whole. Else a power of two from 512: of the last pending write kept on each device (RANDOM: of
	 * others now and then) only some units of this size arrive: a prefix, or any.
	 */
	uint32_t torn_bytes;
	uint32_t torn_prefix; /* 0: which ones arrive is drawn by the seed; else exactly the first so many of the last */
	bool flush_lies; /* flushes and FUA did nothing: all that is not folded away is pending */
	/* Asked once for each pending entry, in order of submission. */
	bool (*keep_fn)(void *arg, const struct ter_sim_entry *entry);
	void *arg;
};

/*
 * Cuts the power now: devices take a state that is legal for the recording up to cut->at, requests in flight and later
 * ones through openings from before fail with -EIO, the devices can be opened again, and recording begins anew.
 * Recording must be on.
 */
void ter_sim_cut(struct ter_sim *sim, const struct ter_sim_cut *cut);
/* The same from a recording taken earlier: for trying every cut of one run. */
void ter_sim_apply(struct ter_sim *sim, const struct ter_sim_trace *trace, const struct ter_sim_cut *cut);
/* How many entries are pending for a cut at @at: sizes the choice. */
unsigned ter_sim_pending_nr(const struct ter_sim_trace *trace, uint64_t at);
/* Which: indexes into trace->entry in order of submission, the first @max of them. Returns how many there are. */
unsigned ter_sim_pending(const struct ter_sim_trace *trace, uint64_t at, unsigned *ret_index, unsigned max);
/*
 * What a flush had made durable at event @at moves from the recording into its base, where no cut undoes it: cuts at @at and later give the same states as
 * before, at a lower price; there must be no earlier ones any more.
 */
void ter_sim_trace_fold(struct ter_sim_trace *trace, uint64_t at);

/*
 * The power goes off by itself at the moment that @nth more writes, flushes and discards have been submitted (the nth
 * is the last that is pending). Reads and writes then fail with -EIO, those in flight too, until ter_sim_cut() or
 * ter_sim_apply(). 0: at once. UINT64_MAX: not any more.
 */
void ter_sim_power_off_after(struct ter_sim *sim, uint64_t nth);
bool ter_sim_power_is_off(struct ter_sim *sim);

/* --- faults --- */

/* The @nth (1: the next) request of kind @op on the device fails with -EIO, and if @persistent all later ones. A failed
 * write may have arrived in part. -ENOENT */
int ter_sim_fail(struct ter_sim *sim, const char *path, enum ter_bio_op op, uint64_t nth, bool persistent);
void ter_sim_fail_none(struct ter_sim *sim);
/* Every read and write that touches the range fails with -EIO; 0 bytes: none does any more. -ENOENT, -EINVAL (range). */
int ter_sim_bad_range(struct ter_sim *sim, const char *path, uint64_t offset_bytes, uint64_t bytes);
/* Changes every byte of the range, by the seed. -ENOENT, -EINVAL (range). */
int ter_sim_corrupt(struct ter_sim *sim, const char *path, uint64_t offset_bytes, uint64_t bytes);
/* Every request fails with -EIO, opening is NOT_FOUND; until it comes back as it was. Openings from before stay dead.
 */
int ter_sim_vanish(struct ter_sim *sim, const char *path);
int ter_sim_come_back(struct ter_sim *sim, const char *path);
/* Requests take this long on exec's clock (0: the default); UINT64_MAX: they hang until this is called again. */
int ter_sim_latency(struct ter_sim *sim, const char *path, uint64_t ns);

#endif
