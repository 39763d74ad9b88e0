/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rig for the data room: all rooms below it on simulated members, and files whose inode key holds size and allocated sectors
 *
 * rig_start() formats on first use and recovers from the journal afterwards, so a power cut is rig_crash(), rig_start().
 */
#ifndef DATA_RIG_H
#define DATA_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "data/data_priv.h"
#include "io/sim.h"

#define RIG_DEVS_MAX 4
#define RIG_FILES_MAX 256

struct rig_file {
	struct ter_file file; /* priv: the rig */
	_Atomic int refs;
	bool known;
};

struct rig_params {
	unsigned devs;
	uint64_t dev_bytes, region_bytes;
	uint32_t bucket_bytes, block_bytes, csum_block, extent_max, inline_max, journal_data_max, flush_ms;
	unsigned data_replicas, required;
	const char *checksum, *compression;
};
#define RIG_DEFAULTS                                                                                                                                   \
	{ .devs = 2, .dev_bytes = 64 << 20, .region_bytes = 4 << 20, .bucket_bytes = 256 << 10, .block_bytes = 4096, .csum_block = 4096,               \
	  .extent_max = 128 << 10, .inline_max = 4096, .journal_data_max = 65536, .flush_ms = 60000, .data_replicas = 2, .required = 1,                \
	  .checksum = "crc32c", .compression = "none" }

struct rig {
	struct rig_params params;
	struct ter_exec *exec;
	struct ter_sim *sim;
	struct ter_io *io;
	struct ter_sb *sb;
	struct ter_sb_handle handle;
	struct ter_members *members;
	struct ter_codecs codecs;
	struct ter_btrees *btrees;
	struct ter_journal *journal;
	struct ter_alloc *alloc;
	struct ter_data *data;
	void *journal_region, *data_region;
	bool formatted;
	struct rig_file files[RIG_FILES_MAX];
	_Atomic unsigned damaged, repaired;
	uint64_t seed;
};

struct rig *rig_new(struct ter_exec *exec, const struct rig_params *params, uint64_t seed);
void rig_start(struct rig *rig);
void rig_stop(struct rig *rig);  /* flushes everything; the pool can be started again by recovery */
void rig_crash(struct rig *rig); /* power off now; what is in flight or unflushed may be lost */
void rig_free(struct rig *rig);
struct ter_file *rig_file(struct rig *rig, unsigned i);
uint64_t rig_random(struct rig *rig, uint64_t below);
uint64_t rig_seed(void);

void rig_write(struct rig *rig, unsigned i, uint64_t offset, const void *buf, size_t bytes);
size_t rig_read(struct rig *rig, unsigned i, uint64_t offset, void *buf, size_t bytes); /* fails the test on an error */
int rig_truncate(struct rig *rig, unsigned i, uint64_t size);
/* E1 of every file, the inodes' sectors, no byte beyond the end, and each bucket's and counter's sums from the extents. */
void rig_check(struct rig *rig);
/* The nth extent key of a file; false: there are fewer. */
bool rig_extent(struct rig *rig, unsigned i, unsigned nth, struct ter_extent *ret, uint8_t *ret_type);
void rig_dump(struct rig *rig, unsigned i); /* a file's extents and segments, for who looks for a mistake */

#endif
