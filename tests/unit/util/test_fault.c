/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fault points and memory: the rule's calls fail and no others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/fault.h"
#include "util/mem.h"

TER_FAULT_POINT(fault_one, "test.one", ENOSPC, "a place of this test")
TER_FAULT_POINT(fault_two, "test.two", EIO, "another place of this test")

static int disarm(void **state)
{
	ter_fault_disarm_all();
	return 0;
}

static void nothing_fails_unless_armed(void **state)
{
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(TER_FAULT(fault_one), 0);
	assert_int_equal(ter_fault_armed_nr, 0);
	assert_int_equal(ter_fault_calls("test.one"), 0); /* not even counted */
}

static void the_nth_call_fails_so_often(void **state)
{
	for (uint64_t nth = 1; nth < 5; nth++) {
		for (uint64_t times = 1; times < 4; times++) {
			struct ter_fault_rule rule = {.nth = nth, .times = times};

			assert_return_code(ter_fault_arm("test.one", &rule), 0);
			for (uint64_t call = 1; call < 10; call++) {
				assert_int_equal(TER_FAULT(fault_one), call >= nth && call < nth + times ? -ENOSPC : 0);
				assert_int_equal(TER_FAULT(fault_two), 0);
			}
			assert_int_equal(ter_fault_calls("test.one"), 9);
			assert_int_equal(ter_fault_fired("test.one"), times);
		}
	}
	ter_fault_disarm_all();
	assert_int_equal(TER_FAULT(fault_one), 0);
	assert_int_equal(ter_fault_calls("test.one"), 9); /* kept */
}

static void a_rule_may_take_each_third_call(void **state)
{
	struct ter_fault_rule rule = {.nth = 2, .interval = 3, .times = 3};

	assert_return_code(ter_fault_arm("test.one", &rule), 0);
	for (uint64_t call = 1; call < 20; call++)
		assert_int_equal(TER_FAULT(fault_one), call == 2 || call == 5 || call == 8 ? -ENOSPC : 0);
	assert_int_equal(ter_fault_fired("test.one"), 3);
}

static void a_rule_may_go_on_and_name_its_error(void **state)
{
	struct ter_fault_rule rule = {.nth = 3, .err = ETIMEDOUT};

	assert_return_code(ter_fault_arm("test.two", &rule), 0);
	assert_int_equal(TER_FAULT(fault_two), 0);
	assert_int_equal(TER_FAULT(fault_two), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(TER_FAULT(fault_two), -ETIMEDOUT);
	assert_return_code(ter_fault_disarm("test.two"), 0);
	assert_return_code(ter_fault_disarm("test.two"), 0);
	assert_int_equal(TER_FAULT(fault_two), 0);
	assert_int_equal(ter_fault_armed_nr, 0);
}

static unsigned failures(uint64_t seed, uint32_t ppm, uint64_t *ret_pattern)
{
	struct ter_fault_rule rule = {.probability_ppm = ppm, .seed = seed};
	unsigned nr = 0;

	assert_return_code(ter_fault_arm("test.one", &rule), 0);
	*ret_pattern = 0;
	for (unsigned i = 0; i < 1000; i++) {
		bool failed = TER_FAULT(fault_one) < 0;

		nr += failed;
		*ret_pattern = *ret_pattern * 3 + failed;
	}
	return nr;
}

static void probability_draws_by_the_seed(void **state)
{
	uint64_t one, two, other;
	unsigned nr = failures(1, 250000, &one);

	assert_in_range(nr, 150, 350);
	assert_int_equal(failures(1, 250000, &two), nr);
	assert_true(one == two);
	failures(2, 250000, &other);
	assert_true(one != other);
	assert_int_equal(failures(1, 1000000, &one), 1000);
}

static void bad_rules_and_names_are_refused(void **state)
{
	struct ter_fault_rule rule = {.nth = 1};

	assert_int_equal(ter_fault_arm("test.none", &rule), -ENOENT);
	assert_int_equal(ter_fault_disarm("test.none"), -ENOENT);
	assert_int_equal(ter_fault_calls("test.none"), 0);
	assert_int_equal(ter_fault_fired("test.none"), 0);
	rule.probability_ppm = 1000001;
	assert_int_equal(ter_fault_arm("test.one", &rule), -EINVAL);
	rule = (struct ter_fault_rule){.err = -EIO};
	assert_int_equal(ter_fault_arm("test.one", &rule), -EINVAL);
}

struct listing {
	const char *last;
	unsigned nr, mine;
};

static void note_point(void *arg, const struct ter_fault_point *point)
{
	struct listing *listing = arg;

	if (listing->last)
		assert_true(strcmp(listing->last, point->name) < 0);
	listing->last = point->name;
	listing->nr++;
	listing->mine += !strcmp(point->name, "test.one") || !strcmp(point->name, "test.two") ||
			 !strcmp(point->name, "mem.alloc");
	assert_non_null(point->help);
}

static void all_points_are_listed_in_order(void **state)
{
	struct listing listing = {0};

	ter_fault_each(note_point, &listing);
	assert_int_equal(listing.mine, 3);
	assert_true(listing.nr >= 3);
}

static void every_allocation_can_fail(void **state)
{
	struct ter_fault_rule rule = {.nth = 1};

	assert_return_code(ter_fault_arm("mem.alloc", &rule), 0);
	assert_null(ter_malloc(1));
	assert_null(ter_zalloc(1));
	assert_null(ter_calloc(1, 1));
	assert_null(ter_realloc_array(NULL, 1, 1));
	assert_null(ter_memdup("x", 1));
	assert_null(ter_strdup("x"));
	assert_null(ter_malloc_aligned(512, 512));
	assert_null(ter_new(int));
	assert_null(ter_new_array(int, 3));
	assert_int_equal(ter_fault_fired("mem.alloc"), 9);
}

static void allocations_are_what_they_say(void **state)
{
	uint8_t *zeros = ter_zalloc(1000), zero[1000] = {0};
	char *copy = ter_strdup("terrace");
	void *aligned = ter_malloc_aligned(100, 4096), *none = ter_malloc(0), *none2 = ter_calloc(0, 8);
	uint8_t *grown;

	assert_memory_equal(zeros, zero, 1000);
	assert_string_equal(copy, "terrace");
	assert_int_equal((uintptr_t)aligned % 4096, 0);
	assert_non_null(none);
	assert_non_null(none2);
	zeros[999] = 5;
	grown = ter_realloc_array(zeros, 500, 4);
	assert_int_equal(grown[999], 5);
	assert_null(ter_calloc(SIZE_MAX / 2, 3));
	assert_null(ter_realloc_array(NULL, SIZE_MAX / 2, 3));
	free(grown);
	free(copy);
	free(aligned);
	free(none);
	free(none2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(nothing_fails_unless_armed, disarm),
		cmocka_unit_test_teardown(the_nth_call_fails_so_often, disarm),
		cmocka_unit_test_teardown(a_rule_may_take_each_third_call, disarm),
		cmocka_unit_test_teardown(a_rule_may_go_on_and_name_its_error, disarm),
		cmocka_unit_test_teardown(probability_draws_by_the_seed, disarm),
		cmocka_unit_test_teardown(bad_rules_and_names_are_refused, disarm),
		cmocka_unit_test_teardown(all_points_are_listed_in_order, disarm),
		cmocka_unit_test_teardown(every_allocation_can_fail, disarm),
		cmocka_unit_test_teardown(allocations_are_what_they_say, disarm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
