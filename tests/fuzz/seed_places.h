/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a seed pool carries what, found by magic; and changing it so that its checksum still matches
 *
 * An edit is EDIT_BYTES: kind of place (1 byte, enum seed_kind), operation (1: enum seed_op, SEED_EDIT_*), which place of the kind (2), offset in it (2), a number (4). Every number
 * is good for every field: it is taken modulo what there is.
 */
#ifndef FUZZ_SEED_PLACES_H
#define FUZZ_SEED_PLACES_H

#include "fuzz.h"
#include "seed_pool.h"

enum seed_kind {
	SEED_AT_SB,     /* a superblock copy; the same is done to all, see SEED_EDIT_ONE */
	SEED_AT_JENTRY, /* a journal entry */
	SEED_AT_JREC,   /* one record of it */
	SEED_AT_BSET,   /* a bset, with the node's header if it is the first */
	SEED_AT_KEY,    /* one key of it */
	SEED_AT_DATA,   /* a block of none of these */
	SEED_KIND_NR,
};
enum seed_op { SEED_XOR8, SEED_SET16, SEED_SET32, SEED_SET64, SEED_ADD32, SEED_ADD64, SEED_ZERO, SEED_COPY, SEED_OP_NR };
#define SEED_EDIT_UNSUMMED 0x40u /* the checksum is left as it was */
#define SEED_EDIT_ONE 0x80u      /* SB: one copy only */
#define SEED_EDIT_BYTES 10u

/* What one checksum is over. */
struct seed_sum {
	uint64_t offset_bytes;
	uint32_t bytes;
	uint8_t dev, kind; /* SB, JENTRY, BSET; DATA: no checksum */
	bool node_head;    /* BSET: the node's header comes first */
};
struct seed_place {
	unsigned sum;
	uint32_t at, bytes; /* in it */
	uint8_t btree, type; /* of KEY, and the type of JREC */
};
struct seed_places {
	struct seed_sum *sums;
	unsigned sums_nr;
	struct seed_place *place[SEED_KIND_NR];
	unsigned nr[SEED_KIND_NR];
};
const struct seed_places *seed_places(unsigned which);
const uint8_t *seed_bytes(unsigned which, const struct seed_sum *sum); /* a copy, for free() */
void seed_edit(struct seed_machine *m, unsigned which, struct fuzz_in *in);

#endif
