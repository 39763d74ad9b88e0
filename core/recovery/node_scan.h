/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Searching the members for leaves
 *
 * Where a node is lost its content is what leaves on the members hold: for each position the newest node (by its number) that covers it, whether it has a key there or not. Nodes lie at multiples of their
 * size in buckets; those of superblock and journal, and those that hold data by their alloc keys, are left out.
 */
#ifndef TER_NODE_SCAN_H
#define TER_NODE_SCAN_H

#include "btree/salvage.h"
#include "recovery/fsck.h"
#include "util/repair.h"

struct ter_node_scan {
	const struct ter_fsck_config *config;
	struct ter_repair *repair;
	const struct ter_lost_node *lost; /* what is looked for */
	size_t lost_nr;
	struct ter_found_node *found; /* the newest first */
	size_t nr, max;
	bool alloc_lost; /* alloc keys do not tell where data is */
};
int ter_node_scan_run(struct ter_node_scan *scan, uint64_t memory_bytes); /* -E2BIG: more leaves than fit */
void ter_node_scan_release(struct ter_node_scan *scan);

/* The keys of one range, from the newest leaves: for ter_btree_replace_lost(). */
struct ter_scan_piece {
	struct ter_pos min, max;
	const struct ter_found_node *node;
};
struct ter_scan_keys {
	struct ter_btrees *bt;
	struct ter_scan_piece *piece; /* in order */
	size_t nr, max, at;
	uint8_t *keys;
	uint32_t bytes, off;
	uint64_t keys_nr;
};
int ter_scan_keys_init(struct ter_scan_keys *keys, const struct ter_node_scan *scan, unsigned btree, struct ter_pos min, struct ter_pos max);
int ter_scan_keys_next(void *arg, const struct ter_key_disk **ret); /* @arg: the struct ter_scan_keys */
void ter_scan_keys_release(struct ter_scan_keys *keys);

#endif
