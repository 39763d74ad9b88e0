/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Recovery: from what the journal holds to btrees, dirty data and counters as they were at the newest durable entry
 *
 * Passes that replay (all passes: passes.h), in this order; each is idempotent, so a cut during recovery only means that it is done again:
 *
 *   roots     the newest ROOT record of each btree, in order of entries
 *   interior  keys of levels above 0, highest level first: after it every node that is reached is one of the final structure
 *   leaves    keys of level 0, the newest of each position only, in key order (so each leaf is touched once)
 *   data      DATA and DATA_DONE records in order: the dirty buffer as it was
 *
 *   R1  Nothing is written by these passes: a read-only start after a crash leaves the members as they are.
 *   R2  Memory is bounded by the journal: keys are sorted by reference, not copied.
 */
#ifndef TER_RECOVERY_H
#define TER_RECOVERY_H

#include "btree/btree.h"
#include "fs/vfs.h"
#include "journal/journal.h"

struct ter_recovery_numbers {
	uint64_t entries, keys, data_records, bytes;
	uint64_t next_node_seq, next_inum; /* from CLOCK records; 0: none seen */
};

/* Pass roots. *ret_keys: what the passes after it replay, sorted; references into @replay. */
struct ter_recovery_keys;
int ter_recovery_replay_roots(struct ter_btrees *btrees, const struct ter_journal_replay *replay, struct ter_recovery_numbers *numbers,
			      struct ter_recovery_keys **ret_keys, struct ter_error *error);
/* Pass interior (@least_level 1), then leaves (0). */
typedef int (*ter_recovery_skipped)(void *arg, unsigned btree, unsigned level, const struct ter_key_disk *key);
/* @skipped: told of a change whose node is damaged, which is then left out; NULL: that is an error. */
int ter_recovery_replay_keys(struct ter_btrees *btrees, struct ter_recovery_keys *keys, unsigned least_level, ter_recovery_skipped skipped, void *arg,
			     struct ter_error *error);
void ter_recovery_keys_free(struct ter_recovery_keys *keys); /* NULL is fine */
/* Pass data. Files stay referenced by their dirty data only. @lost: told of data whose inode is damaged, which is left out; NULL: that is an error. */
int ter_recovery_replay_data(struct ter_vfs *vfs, struct ter_data *data, const struct ter_journal_replay *replay, struct ter_recovery_numbers *numbers,
			     void (*lost)(void *arg, uint64_t inum, int r), void *arg, struct ter_error *error);
/* CLOCK records only: the numbers are needed before the btrees exist. */
int ter_recovery_read_clock(const struct ter_journal_replay *replay, struct ter_recovery_numbers *numbers, struct ter_error *error);

#endif
