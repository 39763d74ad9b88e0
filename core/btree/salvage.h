/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Salvage: nodes that cannot be read are found and replaced
 *
 * A node of which no copy is good takes all that lies below it along. What is put in its place is built first, from the leaves up, in new space; then the node itself is exchanged like any node that is
 * written anew, in one transaction. A cut before leaves everything as it was, to be salvaged again.
 *
 *   V1  The content comes from whoever fills it, in order of keys. An empty range is an empty leaf, and above it nodes with one child.
 *   V2  Nothing older in the journal speaks of the new nodes: everything is written back and the journal's older entries are let go first.
 *   V3  The space of a new node is accounted for before anything points to it.
 */
#ifndef TER_SALVAGE_H
#define TER_SALVAGE_H

#include "btree/btree.h"

/* --- what there is --- */
struct ter_lost_node {
	uint8_t btree, level;
	bool is_root;
	struct ter_pos min, max;
	struct ter_node_ptrs ptrs;
};
struct ter_node_walk {
	int (*lost)(void *arg, const struct ter_lost_node *lost); /* what lies below it is not told of */
	/* Every pointer to a node there is, lost ones too; @level: of the node. May be NULL. */
	int (*ptrs)(void *arg, enum ter_btree_id btree, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs);
	void *arg;
};
/* All of a btree, from the root down. -EUCLEAN: children overlap in memory, which no read lets in. */
int ter_btree_walk_lost(struct ter_btrees *bt, enum ter_btree_id btree, const struct ter_node_walk *walk);

/* --- what lies on the members --- */
struct ter_found_node {
	uint64_t node_seq, sector;
	struct ter_pos min, max;
	uint32_t written_bytes; /* bsets that are good */
	uint8_t btree, level, dev;
};
/* Is there a leaf at this place, as far as its header and first bset say? -ENODATA: no. */
int ter_btree_look_for_node(struct ter_btrees *bt, unsigned dev_idx, uint64_t sector, struct ter_found_node *ret);
/* The same where a node's bytes were read from there already; they may be changed. */
int ter_btree_look_at_node(struct ter_btrees *bt, unsigned dev_idx, uint64_t sector, void *bytes, struct ter_found_node *ret);
/* Its keys, ascending, encoded one after the other; free() them. */
int ter_btree_load_found(struct ter_btrees *bt, const struct ter_found_node *found, uint8_t **ret_keys, uint32_t *ret_bytes);
/* Is a copy of this node (by its header) at this place? */
bool ter_btree_node_is_at(struct ter_btrees *bt, enum ter_btree_id btree, unsigned level, struct ter_pos max, unsigned dev_idx, uint64_t sector);

/* --- changing --- */
/* @next: 1 and a key within the node's range, after the one before; 0: no more. */
int ter_btree_replace_lost(struct ter_btrees *bt, const struct ter_lost_node *lost, int (*next)(void *arg, const struct ter_key_disk **ret), void *arg);
/* Write a node elsewhere. 0, or what came in the way. No lock held. */
int ter_btree_rewrite_node(struct ter_btrees *bt, enum ter_btree_id btree, unsigned level, struct ter_pos pos);

#endif
