/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty buffer's memory and the tree of segments, against arrays. */
#include "data_rig.h"

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	return z ^ (z >> 31);
}

#define PAGES 1000u

static void buffers_never_overlap_and_all_come_back(void **state)
{
	uint64_t seed = rig_seed();
	void *region = aligned_alloc(4096, PAGES * 4096);
	uint32_t owner[PAGES] = { 0 }, have[PAGES], order_of[PAGES], nr = 0;
	struct ter_pool pool;

	assert_int_equal(ter_pool_init(&pool, region, PAGES * 4096), 0);
	for (unsigned step = 1; step < 20000; step++) {
		if (next_random(&seed) % 2 || !nr) {
			unsigned want = next_random(&seed) % TER_BUF_ORDERS, order;
			uint32_t p = ter_pool_get(&pool, want, &order);

			if (p == TER_PAGE_NONE) {
				assert_int_equal(pool.free_pages, 0);
				continue;
			}
			assert_true(order <= want && p % (1u << order) == 0 && p + (1u << order) <= PAGES);
			for (uint32_t i = p; i < p + (1u << order); i++) {
				assert_int_equal(owner[i], 0);
				owner[i] = step;
			}
			order_of[nr] = order;
			have[nr++] = p;
		} else {
			unsigned i = next_random(&seed) % nr;

			ter_pool_ref(&pool, have[i]);
			assert_false(ter_pool_put(&pool, have[i]));
			assert_true(ter_pool_put(&pool, have[i]));
			memset(&owner[have[i]], 0, sizeof(owner[0]) << order_of[i]);
			have[i] = have[--nr];
			order_of[i] = order_of[nr];
		}
		if (step % 64 == 0)
			assert_true(ter_pool_check(&pool));
	}
	while (nr)
		assert_true(ter_pool_put(&pool, have[--nr]));
	assert_true(ter_pool_check(&pool));
	assert_int_equal(pool.free_pages, PAGES);
	ter_pool_destroy(&pool);
	free(region);
}

#define SLOTS 512u

static void the_tree_finds_what_an_array_finds(void **state)
{
	uint64_t seed = rig_seed();
	struct ter_seg *segs = calloc(SLOTS, sizeof(*segs)), *root = NULL;
	bool in[SLOTS] = { 0 };

	for (unsigned step = 0; step < 20000; step++) {
		unsigned i = next_random(&seed) % SLOTS;
		uint64_t pos = next_random(&seed) % (SLOTS * 10 + 20);
		struct ter_seg *first = NULL, *prev = NULL;

		if (in[i]) {
			ter_segtree_remove(&root, &segs[i]);
		} else {
			segs[i].start = i * 10 + next_random(&seed) % 5;
			segs[i].end = segs[i].start + 1 + next_random(&seed) % 5;
			ter_segtree_insert(&root, &segs[i]);
		}
		in[i] = !in[i];
		for (unsigned k = 0; k < SLOTS; k++) {
			if (in[k] && segs[k].end > pos && !first)
				first = &segs[k];
			if (in[k] && segs[k].end <= pos)
				prev = &segs[k];
		}
		assert_ptr_equal(ter_segtree_first(root, pos), first);
		assert_ptr_equal(ter_segtree_prev(root, pos), prev);
	}
	free(segs);
}

static unsigned depth(const struct ter_seg *seg)
{
	return seg ? 1 + ter_max(depth(seg->left), depth(seg->right)) : 0;
}

static void the_tree_stays_low_in_any_order(void **state)
{
	enum { NR = 65536 };
	struct ter_seg *segs = calloc(NR, sizeof(*segs)), *root = NULL;

	for (unsigned i = 0; i < NR; i++) {
		segs[i].start = i;
		segs[i].end = i + 1;
		ter_segtree_insert(&root, &segs[i]);
	}
	assert_true(depth(root) < 64); /* log2 is 16 */
	free(segs);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_never_overlap_and_all_come_back),
		cmocka_unit_test(the_tree_finds_what_an_array_finds),
		cmocka_unit_test(the_tree_stays_low_in_any_order),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
