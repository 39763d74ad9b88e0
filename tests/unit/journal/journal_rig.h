/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A journal on members in memory
 *
 * Every write and flush is recorded with the ticks at which it was submitted and completed, so that what a power cut at any tick leaves can be built afterwards: writes that a
 * completed flush covers for certain, of the others any part. Runs under the threads and the coop backend.
 */
#ifndef JOURNAL_RIG_H
#define JOURNAL_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include <cmocka.h>

#include "journal/journal.h"
#include "journal/journal_encode.h"

#define RIG_DEVS_MAX 4
#define RIG_FIRST_BUCKET 2

struct rig_op {
	enum ter_bio_op op;
	uint64_t offset_bytes, bytes;
	uint8_t *data;               /* of a write */
	uint64_t submitted, completed; /* ticks; completed 0: not */
	int r;
};

struct rig;
struct rig_dev {
	struct ter_bdev bdev;
	struct ter_io io;
	struct rig *rig;
	uint8_t *image;
	struct rig_op *ops;
	unsigned ops_nr, ops_max;
	/* requests queued for the completion task */
	struct ter_lock lock;
	struct ter_waitq wq;
	struct ter_list queue;
	struct ter_task *task;
	bool quit;
	_Atomic unsigned flushes, writes, reads;
	_Atomic bool fail_writes, fail_flushes;
};

struct rig {
	struct ter_exec *exec;
	struct ter_sb *sb;
	struct ter_sb_handle handle;
	struct ter_members *members;
	unsigned nr, buckets;
	uint32_t bucket_bytes;
	struct rig_dev dev[RIG_DEVS_MAX];
	void *region;
	_Atomic uint64_t tick;
	uint64_t latency_ns; /* of writes and flushes; coop only: its time is not real */
	struct ter_journal_config config;
	struct ter_journal *journal;
	_Atomic int errors, degraded;
	_Atomic uint64_t root_node_seq; /* what get_roots hands out */
	bool roots;
};

struct rig *rig_new(struct ter_exec *exec, unsigned nr, unsigned buckets, uint32_t bucket_bytes);
void rig_free(struct rig *rig); /* journal freed before */
void rig_devs_start(struct rig *rig);
void rig_devs_stop(struct rig *rig);
void rig_start(struct rig *rig, uint64_t next_seq, const struct ter_journal_replay *replay);
void rig_free_journal(struct rig *rig);
/* Images become what a cut at @tick leaves; the records are forgotten. */
void rig_cut(struct rig *rig, uint64_t tick, uint64_t seed);
/* As rig_cut() but into fresh images, the record kept; rig_uncut() puts things back. */
void rig_cut_try(struct rig *rig, uint64_t tick, uint64_t seed, uint8_t *saved[RIG_DEVS_MAX]);
void rig_uncut(struct rig *rig, uint8_t *saved[RIG_DEVS_MAX]);
int rig_read(struct rig *rig, struct ter_journal_replay **ret_replay, struct ter_error *error);
uint64_t rig_tick(struct rig *rig);

/* One transaction: a record with @id and @bytes of a pattern. Returns its sequence. Pins it if asked to. */
int rig_tx(struct rig *rig, uint64_t id, uint32_t bytes, unsigned flags, bool pin, uint64_t *ret_seq, uint32_t *ret_offset);
/* The id of a record of rig_tx(), whose pattern is checked. */
uint64_t rig_tx_id(const struct ter_jrec *rec);

uint64_t rig_random(uint64_t *state);
uint64_t rig_seed(void); /* TER_TEST_SEED or a fixed one; printed */

/* Runs @fn(@arg) as the main task of a coop scheduler, or on this thread; deadlock fails the test. */
void rig_run(bool coop, uint64_t seed, void (*fn)(struct ter_exec *exec, void *arg), void *arg);

#endif
