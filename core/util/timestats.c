/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Time statistics: relaxed counters and a logarithmic histogram. */
#include "util/timestats.h"

#define SUB_NR (1u << TER_TIMESTATS_SUB_SHIFT)

static inline uint64_t get(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/* The power of two, then the next two bits; values below 4 have a bucket each. */
static unsigned bucket_of(uint64_t ns)
{
	unsigned log;

	if (ns < SUB_NR)
		return (unsigned)ns;
	log = ter_log2(ns);
	return (log << TER_TIMESTATS_SUB_SHIFT) | ((ns >> (log - TER_TIMESTATS_SUB_SHIFT)) & (SUB_NR - 1));
}

/* The largest value in the bucket. */
static uint64_t bucket_end(unsigned bucket)
{
	unsigned log = bucket >> TER_TIMESTATS_SUB_SHIFT;
	uint64_t step;

	if (bucket < SUB_NR)
		return bucket;
	step = 1ull << (log - TER_TIMESTATS_SUB_SHIFT);
	/* Wraps to 2^64 - 1 in the last bucket, as it should. */
	return (1ull << log) + ((bucket & (SUB_NR - 1)) + 1) * step - 1;
}

static void raise_to(uint64_t *p, uint64_t value)
{
	uint64_t old = get(p);

	while (old < value && !__atomic_compare_exchange_n(p, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static void lower_to_plus1(uint64_t *p, uint64_t value)
{
	uint64_t old = get(p), want = value == UINT64_MAX ? value : value + 1;

	while ((!old || old > want) &&
	       !__atomic_compare_exchange_n(p, &old, want, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

void ter_timestats_record(struct ter_timestats *stats, uint64_t ns)
{
	uint64_t ewma = get(&stats->ewma_ns);

	if (!__atomic_fetch_add(&stats->count, 1, __ATOMIC_RELAXED))
		ewma = ns; /* the average begins at the first value, not at 0 */
	else
		ewma = ewma - (ewma >> TER_TIMESTATS_EWMA_SHIFT) + (ns >> TER_TIMESTATS_EWMA_SHIFT);
	__atomic_store_n(&stats->ewma_ns, ewma, __ATOMIC_RELAXED);
	__atomic_fetch_add(&stats->sum_ns, ns, __ATOMIC_RELAXED);
	__atomic_fetch_add(&stats->bucket[bucket_of(ns)], 1, __ATOMIC_RELAXED);
	raise_to(&stats->max_ns, ns);
	lower_to_plus1(&stats->min_plus1_ns, ns);
}

void ter_timestats_read(const struct ter_timestats *stats, struct ter_timestats_summary *ret)
{
	uint64_t count = get(&stats->count), min = get(&stats->min_plus1_ns);

	*ret = (struct ter_timestats_summary){
		.count = count,
		.min_ns = min ? min - 1 : 0,
		.max_ns = get(&stats->max_ns),
		.mean_ns = count ? get(&stats->sum_ns) / count : 0,
		.ewma_ns = get(&stats->ewma_ns),
	};
}

uint64_t ter_timestats_quantile(const struct ter_timestats *stats, unsigned permille)
{
	uint64_t total = 0, below = 0, want;
	uint32_t copy[TER_TIMESTATS_BUCKETS];

	for (unsigned i = 0; i < TER_TIMESTATS_BUCKETS; i++)
		total += copy[i] = __atomic_load_n(&stats->bucket[i], __ATOMIC_RELAXED);
	if (!total)
		return 0;

	want = (total * ter_min(permille, 1000u) + 999) / 1000;
	for (unsigned i = 0; i < TER_TIMESTATS_BUCKETS; i++) {
		below += copy[i];
		if (below >= want && below)
			return ter_min(bucket_end(i), get(&stats->max_ns));
	}
	return get(&stats->max_ns);
}

void ter_timestats_reset(struct ter_timestats *stats)
{
	uint64_t *const words[] = {&stats->count, &stats->sum_ns, &stats->min_plus1_ns, &stats->max_ns,
				   &stats->ewma_ns};

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		__atomic_store_n(words[i], 0, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < TER_TIMESTATS_BUCKETS; i++)
		__atomic_store_n(&stats->bucket[i], 0, __ATOMIC_RELAXED);
}
