/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Missing copies of data
 *
 * An extent with fewer copies than option data_replicas asks is *degraded*, which is no contradiction: members were missing when it was written, or a repair gave up a copy that could not be right. The
 * counters of device sets tell how much of it there is. Repair makes the missing copies, last of all: when space can be given out again and everything else is true.
 *
 *   C1  A copy is made from one that verifies, into new space, and is pointed to in one transaction: a cut leaves extents with the copies they had, and the next repair makes the rest.
 *   C2  Where there is no room the extent stays as it is, counted as degraded.
 */
#ifndef TER_REPAIR_COPIES_H
#define TER_REPAIR_COPIES_H

#include "recovery/fsck.h"
#include "util/repair.h"

/* Sectors of data, each counted once, that have fewer copies than asked. */
uint64_t ter_degraded_sectors(const struct ter_fsck_config *config);

struct ter_repaired_copies {
	uint64_t made;   /* extents that have all their copies now */
	uint64_t bad;    /* extents without a good copy: their files are noted as damaged */
	bool no_room;    /* it ended for that */
};
/* The pool runs read-write and is sound. One question for all of them. 0; -ECANCELED; another negative errno. */
int ter_repair_copies(const struct ter_fsck_config *config, struct ter_repair *repair, struct ter_repaired_copies *ret);

#endif
