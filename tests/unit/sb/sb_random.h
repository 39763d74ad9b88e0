/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Valid superblocks for tests: random ones from a seed, and one known sample with something in every section. */
#ifndef SB_RANDOM_H
#define SB_RANDOM_H

#include "sb/sb_format.h"

/* Prints the seed and returns it; TER_TEST_SEED= chooses it. */
uint64_t sb_test_seed(void);

struct sb_rng {
	uint64_t state;
};
uint64_t sb_rng_u64(struct sb_rng *rng);
uint64_t sb_rng_below(struct sb_rng *rng, uint64_t n); /* 0..n-1; n of 1 and up */

struct sb_pair {
	struct ter_sb *sb;
	struct ter_members *members;
	unsigned dev_idx; /* a member in use */
};
/* @devs_max: members at most. */
struct sb_pair sb_random_new(struct sb_rng *rng, unsigned devs_max);
struct sb_pair sb_sample_new(void); /* members 0, 1 and 5 */
void sb_pair_free(struct sb_pair *pair);

/* Asserts equality of all that is on disk. */
void sb_assert_equal(const struct sb_pair *a, const struct sb_pair *b);

/* The section's header in an encoded copy; NULL: none. */
struct ter_sb_section_disk *sb_section(void *buf, unsigned type);

#endif
