/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Btrees on simulated devices, with a real journal and an allocator so small that it can be checked
 *
 * Each device is: 256 KiB for superblocks, the journal's ring, then slots of one node each. The allocator gives slots away in order, never one twice in a life; a new
 * life (rig_open()) takes those as used that have a key in ALLOC. node_stage keeps that key, and counts nodes in ACCOUNTING: so structure changes
 * make updates in btrees that change structure themselves.
 */
#ifndef BTREE_RIG_H
#define BTREE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include <cmocka.h>

#include "btree/btree.h"
#include "io/sim.h"

#define RIG_DEVS_MAX 3
#define RIG_KEY TER_BTREE_XATTRS /* where tests keep their keys */

struct btree_rig_config {
	unsigned devs, replicas;
	uint32_t node_bytes, block_bytes;
	uint32_t bucket_bytes, journal_buckets;
	size_t cache_bytes;
	unsigned slots; /* nodes a device has room for */
	bool no_tasks;  /* ter_btrees_start() is not called */
};
extern const struct btree_rig_config btree_rig_tiny; /* nodes of 16 KiB, cache of a few */

struct btree_rig {
	struct btree_rig_config config;
	struct ter_exec *exec;
	struct ter_sim *sim;
	struct ter_io *io;
	/* while open */
	struct ter_sb *sb;
	struct ter_sb_handle handle;
	struct ter_members *members;
	void *region;
	struct ter_journal *journal;
	struct ter_btrees *bt;
	struct ter_lock lock;
	unsigned next_slot[RIG_DEVS_MAX];
	uint8_t *slot_used[RIG_DEVS_MAX];
	unsigned next_dev;
	_Atomic int errors;
	_Atomic int fail_alloc; /* errno that node_alloc gives */
	unsigned fail_alloc_after; /* but not to the next so many */
	int64_t nodes_seen; /* sum of what on_counters told of the node counter */
	char last_error[512];
	/* What a superblock would remember from life to life. */
	struct { uint64_t first, last; } blacklist[TER_BLACKLIST_MAX];
	unsigned blacklist_nr;
};

struct btree_rig *btree_rig_new(struct ter_exec *exec, uint64_t seed, const struct btree_rig_config *config);
void btree_rig_free(struct btree_rig *rig);
/* Start as from what the devices hold (@fresh: nothing): read the journal, replay, go on. */
int btree_rig_open(struct btree_rig *rig, bool fresh);
void btree_rig_replay_only(struct btree_rig *rig); /* open without tasks, for looking */
void btree_rig_close(struct btree_rig *rig);       /* stop cleanly: all nodes written */
void btree_rig_renew_journal(struct btree_rig *rig); /* all nodes are written, another journal goes on: as from read-write to read-only and back */
void btree_rig_crash(struct btree_rig *rig);       /* drop all that is in memory; the devices are left as they are */
/* Structure of all btrees, and that exactly the nodes linked are those accounted for. Returns how many there are. */
unsigned btree_rig_check(struct btree_rig *rig);
const char *btree_rig_path(unsigned dev);

uint64_t btree_rig_random(uint64_t *state);
uint64_t btree_rig_seed(void);
/* Runs @fn(@arg) as the main task of a coop scheduler, or on this thread with the threads backend. */
void btree_rig_run(bool coop, uint64_t seed, void (*fn)(struct ter_exec *exec, void *arg), void *arg);

/* A transaction of one update. */
int btree_rig_put(struct btree_rig *rig, unsigned flags, struct ter_pos pos, const void *val, uint32_t bytes, uint64_t *ret_seq);
int btree_rig_del(struct btree_rig *rig, unsigned flags, struct ter_pos pos, uint64_t *ret_seq);

#endif
