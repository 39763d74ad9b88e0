/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rig for tests of the allocator: members without data, and btrees and a journal that are a sorted array and two numbers
 *
 * The fake btrees compare `old` at commit (T3), one lock for all. The fake journal has an open and a durable sequence; each bucket remembers when it was emptied, and the rig asserts B2: nothing
 * becomes free, and no device is told to discard, before that is durable.
 */
#ifndef ALLOC_RIG_H
#define ALLOC_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "alloc/alloc_check.h"
#include "alloc/alloc_priv.h"

#define RIG_DEVS_MAX 4

struct fake_key {
	struct ter_key key;
	uint64_t val[8];
};
struct fake_btree {
	struct fake_key *keys; /* sorted */
	unsigned nr, max;
};

struct rig {
	struct ter_exec *exec;
	struct ter_sb *sb;
	struct ter_sb_handle handle;
	struct ter_members *members;
	struct ter_alloc *alloc;
	struct ter_btrees *bt; /* the rig itself */
	struct ter_lock lock;  /* rank BTREE_NODE; all btrees and the journal */
	struct fake_btree btree[TER_BTREE_NR];
	uint64_t open_seq, durable_seq;
	unsigned flushes, discards, commits, replicas_writes;
	bool journal_broken;
	unsigned restart_every; /* 0: never; every n-th commit is answered -ERESTART */
	uint64_t *emptied_seq[RIG_DEVS_MAX];
	uint32_t *seen_gen[RIG_DEVS_MAX];
	void (*before_read)(struct rig *rig, enum ter_btree_id btree); /* of ter_trans_get and _next: what another task does in between */
	void *before_read_arg;
	uint64_t seed;
	struct ter_io io;
	struct ter_bdev bdev[RIG_DEVS_MAX];
};

struct rig_params {
	unsigned nr;
	uint64_t buckets[RIG_DEVS_MAX];
	uint32_t bucket_sectors;
	unsigned data_replicas, metadata_replicas;
	bool no_worker;
};
struct rig *rig_new(const struct rig_params *params);
void rig_free(struct rig *rig);
uint64_t rig_random(struct rig *rig, uint64_t below);
/* Fails the test with the sentences if the check finds anything. */
void rig_assert_sound(struct rig *rig);
int rig_check(struct rig *rig, char *text, size_t bytes); /* sentences are collected in @text */
/* Straight into a fake btree. */
void rig_put(struct rig *rig, enum ter_btree_id btree, const struct ter_key *key);
void rig_delete(struct rig *rig, enum ter_btree_id btree, struct ter_pos pos);
const struct ter_key *rig_get(struct rig *rig, enum ter_btree_id btree, struct ter_pos pos);

#endif
