/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Time statistics: how long something takes, in nanoseconds
 *
 * Any number of threads record, without a lock. A reader sees each number whole, but numbers of slightly different
 * moments; of two records at the same instant the moving average may forget one. Good enough to show to people, not to
 * account with.
 */
#ifndef TER_TIMESTATS_H
#define TER_TIMESTATS_H

#include "util/base.h"

#define TER_TIMESTATS_SUB_SHIFT 2 /* four buckets a power of two: a quantile is exact to 25 % */
#define TER_TIMESTATS_BUCKETS (64 << TER_TIMESTATS_SUB_SHIFT)
#define TER_TIMESTATS_EWMA_SHIFT 4 /* a new value weighs 1/16 */

/* All zero is empty and valid. */
struct ter_timestats {
	uint64_t count, sum_ns, min_plus1_ns /* 0: none yet */, max_ns, ewma_ns;
	uint32_t bucket[TER_TIMESTATS_BUCKETS];
};

void ter_timestats_record(struct ter_timestats *stats, uint64_t ns);

struct ter_timestats_summary {
	uint64_t count, min_ns, max_ns, mean_ns, ewma_ns; /* all 0 when nothing was recorded */
};
void ter_timestats_read(const struct ter_timestats *stats, struct ter_timestats_summary *ret);

/* The time that @permille of the records did not exceed, rounded up to its bucket's end and never above the largest
 * record; 0 when empty. */
uint64_t ter_timestats_quantile(const struct ter_timestats *stats, unsigned permille);
void ter_timestats_reset(struct ter_timestats *stats);

#endif
