/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vfs with everything below it, for tests: of memory (fs_rig_fake.c), or the real rooms on simulated devices (fs_rig_real.c). A test program links one of the two.
 */
#ifndef FS_RIG_H
#define FS_RIG_H

#include "fs/vfs.h"

struct rig {
	struct ter_exec *exec;
	struct ter_vfs *vfs;
	struct ter_btrees *btrees;
	uint64_t seed;
	size_t cache_bytes;
};

/* Runs @fn with a fresh pool, in the rig's exec. The seed is printed. */
void rig_run(uint64_t seed, size_t cache_bytes, void (*fn)(struct rig *rig, void *arg), void *arg);
void rig_run_threads(uint64_t seed, size_t cache_bytes, void (*fn)(struct rig *rig, void *arg), void *arg); /* where the rig runs coop else */
void rig_remount(struct rig *rig); /* stop cleanly, start again */
void rig_crash(struct rig *rig);   /* what was synced is there, orphans are reaped by the start */
void rig_unfreeze(struct rig *rig); /* read-write again, after ter_vfs_set_journal(vfs, NULL, true) */
void rig_restarts(struct rig *rig, unsigned every); /* each nth commit is made to restart, where the rig can */
int64_t rig_check(struct rig *rig); /* fsck's pass; sentences are printed. Commits what is in memory first. */
uint64_t rig_seed(void);           /* TER_TEST_SEED, or one of now */

extern const bool rig_is_real;

/* Random numbers of a test: xorshift. */
static inline uint64_t rnd(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 0x2545f4914f6cdd1dull >> 16;
}
static inline unsigned rnd_below(uint64_t *state, unsigned n)
{
	return (unsigned)(rnd(state) % n);
}

#endif
