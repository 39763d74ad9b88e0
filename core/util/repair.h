/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair: how a pass tells what it is about to change, and learns whether it may
 *
 * A check only looks (fsck.h), a repair pass makes one relation true. It is idempotent: cut off anywhere it is run again, and what is right it leaves alone. Passes run while the pool is
 * started but serves nobody.
 */
#ifndef TER_REPAIR_H
#define TER_REPAIR_H

#include "util/base.h"

#define TER_REPAIR_MEMORY_DEFAULT TER_MIB(128) /* a pool of a million files is repaired in 512 MiB, caches included */
#define TER_REPAIR_MEMORY_MIN TER_KIB(8)
#define TER_REPAIR_SENTENCE_MAX 512

struct ter_repair {
	/* @sentence says what is wrong and what will be done. >0: do it; 0: leave it; negative errno: stop. NULL: do everything. */
	int (*want)(void *arg, const char *pass, const char *sentence);
	int (*step)(void *arg, const char *phase, uint64_t done, uint64_t total); /* NULL is fine; -ECANCELED: stop */
	void *arg;
	uint64_t memory_bytes; /* bound on tables (0: TER_REPAIR_MEMORY_DEFAULT) */
	uint64_t wanted_nr, done_nr, left_nr;
};

/* Asks, and counts: 1 do it, 0 leave it, or what stopped it. */
int ter_repair_want(struct ter_repair *repair, const char *pass, const char *fmt, ...) TER_PRINTF(3, 4);
int ter_repair_step(struct ter_repair *repair, const char *phase, uint64_t done, uint64_t total); /* 0 or negative */
uint64_t ter_repair_memory(const struct ter_repair *repair);

#endif
