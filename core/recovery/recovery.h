/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Recovery: from what the journal holds to btrees, dirty data and counters as they were at the newest durable entry
 *
 * Passes, in this order; each is idempotent, so a cut during recovery only means that it is done again:
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

/* Passes roots, interior and leaves. */
int ter_recovery_replay_keys(struct ter_btrees *btrees, const struct ter_journal_replay *replay, struct ter_recovery_numbers *numbers,
			     struct ter_error *error);
/* Pass data. Files stay referenced by their dirty data only. */
int ter_recovery_replay_data(struct ter_vfs *vfs, struct ter_data *data, const struct ter_journal_replay *replay, struct ter_recovery_numbers *numbers,
			     struct ter_error *error);
/* CLOCK records only: the numbers are needed before the btrees exist. */
int ter_recovery_read_clock(const struct ter_journal_replay *replay, struct ter_recovery_numbers *numbers, struct ter_error *error);

#endif
