/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small real pools to begin from, made by the engine itself when a target first asks, always the same
 *
 * Kept as the blocks that are not zero. seed_machine_new() puts one on simulated devices of its own: an input finds what every other input found, whatever the ones before did.
 */
#ifndef FUZZ_SEED_POOL_H
#define FUZZ_SEED_POOL_H

#include "io/sim.h"
#include "super/fs.h"

#define SEED_DEVS_MAX 2
#define SEED_DEV_BYTES TER_MIB(16)
#define SEED_BLOCK_BYTES 4096u
#define SEED_NODE_BYTES 16384u

enum {
	SEED_CLEAN,    /* one member, stopped cleanly */
	SEED_CRASHED,  /* one member, the power went off: the journal is read */
	SEED_MIRROR,   /* two members and copies, likewise */
	SEED_UNSUMMED, /* one member, clean; compressed data without checksums: a decompressor gets what is there */
	SEED_NR,
};

struct seed_block {
	uint64_t offset_bytes;
	unsigned dev;
	uint8_t *bytes; /* SEED_BLOCK_BYTES */
};
struct seed_pool {
	unsigned devs;
	struct seed_block *blocks;
	unsigned blocks_nr;
	struct ter_sb *sb; /* the superblock, algorithms bound */
};
const struct seed_pool *seed_pool(unsigned which);
const char *seed_path(unsigned dev);

struct seed_machine {
	unsigned devs;
	struct ter_exec *exec;
	struct ter_io *io;
	struct ter_sim *sim;
	struct ter_env env;
};
void seed_machine_new(const struct seed_pool *pool, struct seed_machine *ret);
void seed_machine_free(struct seed_machine *m);
/* One run of the scheduler. A deadlock is found. */
void seed_run(struct seed_machine *m, void (*fn)(void *arg), void *arg);

/* Inside a run: opens and starts; 0, or the error, explained. Events without a sentence are found. */
int seed_start(struct seed_machine *m, bool read_only, struct ter_fs **ret_fs);
/* ter_vfs_read() that waits. */
int seed_read(struct ter_vfs *vfs, uint64_t node, uint64_t offset, void *buf, size_t bytes);

#endif
