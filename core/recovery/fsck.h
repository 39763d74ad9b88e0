/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsck: does every relation that the engine keeps hold? Read-only.
 *
 * Passes: nodes (structure of every btree; each node's backpointers), extents (decode, no overlap, backpointers, replicas and compression counters), alloc (alloc keys, free ranges,
 * need_discard, backpointers and member counters agree, in both directions), files (names, links, sizes, orphans).
 * Which row of passes.h a finding belongs to: ter_fsck_pass_of().
 *
 * The pool may be in use: a contradiction is reported only when a second look, after everything was committed, finds the same sentence again.
 */
#ifndef TER_FSCK_H
#define TER_FSCK_H

#include "alloc/alloc.h"
#include "data/data.h"
#include "fs/vfs.h"
#include "recovery/passes.h"

#define TER_FSCK_FINDINGS_MAX 10000u /* more are counted, not kept */

struct ter_fsck_config {
	struct ter_sb_handle *sb;
	struct ter_members *members;
	struct ter_btrees *btrees;
	struct ter_alloc *alloc;
	struct ter_data *data;
	struct ter_vfs *vfs;
	uint64_t passes;          /* bits of passes.h: nodes (with pointers), space, pointers, files; 0: all */
	uint64_t memory_bytes;    /* of tables; 0: a default */
	int (*settle)(void *arg); /* commits what is in memory; NULL when read-only */
	void *settle_arg;
};
typedef void (*ter_fsck_found_fn)(void *arg, const char *pass, const char *sentence);
typedef int (*ter_fsck_step_fn)(void *arg, const char *phase, uint64_t done, uint64_t total);

/* Return: how many contradictions; -ECANCELED; another negative errno when something could not be read at all. */
int64_t ter_fsck_run(const struct ter_fsck_config *config, ter_fsck_found_fn found, void *found_arg, ter_fsck_step_fn step, void *step_arg);

/* Of a finding's pass name: its bit in passes.h. */
uint64_t ter_fsck_pass_of(const char *pass);

#endif
