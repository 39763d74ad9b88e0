/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A pool of simulated devices with the real journal, btrees and allocator; the superblock stays in memory and knows all device sets. */
#ifndef ALLOC_POOL_H
#define ALLOC_POOL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include <cmocka.h>

#include "alloc/alloc_check.h"
#include "btree/btree.h"
#include "io/sim.h"

#define POOL_DEVS 3
#define POOL_BUCKET_BYTES 65536u
#define POOL_BUCKET_SECTORS (POOL_BUCKET_BYTES / 512)

struct pool {
	struct ter_exec *exec;
	struct ter_sim *sim;
	struct ter_io *io;
	unsigned replicas;
	struct { uint64_t first, last; } blacklist[TER_BLACKLIST_MAX]; /* what the superblock on disk would say; a test that goes back in time empties it */
	unsigned blacklist_nr;
	/* while open */
	struct ter_sb *sb;
	struct ter_sb_handle handle;
	struct ter_members *members;
	void *region;
	struct ter_journal *journal;
	struct ter_btrees *bt;
	struct ter_alloc *alloc;
	bool running; /* tasks were started */
	_Atomic int errors;
};

struct pool *pool_new(struct ter_exec *exec, uint64_t seed, unsigned replicas);
void pool_free(struct pool *pool);
void pool_open(struct pool *pool, bool fresh); /* replay; no task of btrees and allocator runs yet, so that nothing changes */
void pool_run(struct pool *pool);              /* start them */
void pool_close(struct pool *pool);            /* all nodes written, journal stopped */
void pool_crash(struct pool *pool);            /* memory is lost */
/* The check finds nothing, and back references are exactly the pointers of nodes and of keys in EXTENTS. Only before pool_run(). */
void pool_assert_sound(struct pool *pool);

/* Value of the keys that tests keep in EXTENTS. */
struct pool_extent {
	uint64_t id;
	uint32_t sectors, nr;
	struct { uint64_t sector; uint32_t gen, dev; } ptr[TER_REPLICAS_MAX];
};

#endif
