/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Time statistics: exact where they promise it, within a bucket where not, and complete with many threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "util/timestats.h"

static void nothing_recorded_is_all_zero(void **state)
{
	static struct ter_timestats stats;
	struct ter_timestats_summary s;

	ter_timestats_read(&stats, &s);
	assert_int_equal(s.count | s.min_ns | s.max_ns | s.mean_ns | s.ewma_ns, 0);
	assert_int_equal(ter_timestats_quantile(&stats, 500), 0);
}

static void sums_are_exact(void **state)
{
	static struct ter_timestats stats;
	struct ter_timestats_summary s;

	ter_timestats_record(&stats, 1000);
	ter_timestats_read(&stats, &s);
	assert_int_equal(s.ewma_ns, 1000);
	for (uint64_t ns = 1001; ns <= 2000; ns++)
		ter_timestats_record(&stats, ns);
	ter_timestats_read(&stats, &s);
	assert_int_equal(s.count, 1001);
	assert_int_equal(s.min_ns, 1000);
	assert_int_equal(s.max_ns, 2000);
	assert_int_equal(s.mean_ns, 1500);
	assert_in_range(s.ewma_ns, 1900, 2000); /* follows */
	ter_timestats_record(&stats, 0);
	ter_timestats_read(&stats, &s);
	assert_int_equal(s.min_ns, 0);
	ter_timestats_reset(&stats);
	ter_timestats_read(&stats, &s);
	assert_int_equal(s.count | s.min_ns | s.max_ns, 0);
	assert_int_equal(ter_timestats_quantile(&stats, 1000), 0);
}

static void quantiles_are_within_a_quarter(void **state)
{
	static struct ter_timestats stats;

	for (uint64_t ns = 1; ns <= 100000; ns++)
		ter_timestats_record(&stats, ns);
	for (unsigned permille = 1; permille <= 1000; permille++) {
		uint64_t q = ter_timestats_quantile(&stats, permille), exact = permille * 100;

		assert_true(q >= exact && q <= exact + exact / 4);
	}
	assert_int_equal(ter_timestats_quantile(&stats, 1000), 100000);
	assert_int_equal(ter_timestats_quantile(&stats, 5000), 100000);
	assert_int_equal(ter_timestats_quantile(&stats, 0), 1);

	ter_timestats_reset(&stats);
	ter_timestats_record(&stats, 1);
	ter_timestats_record(&stats, 2);
	ter_timestats_record(&stats, 3);
	assert_int_equal(ter_timestats_quantile(&stats, 333), 1);
	assert_int_equal(ter_timestats_quantile(&stats, 334), 2); /* one record is less than so many of three */
	assert_int_equal(ter_timestats_quantile(&stats, 700), 3);
}

static void every_time_has_a_bucket(void **state)
{
	for (unsigned bit = 0; bit < 64; bit++) {
		for (int d = -1; d <= 1; d++) {
			static struct ter_timestats stats;
			uint64_t ns = (1ull << bit) + (uint64_t)(int64_t)d;

			ter_timestats_reset(&stats);
			ter_timestats_record(&stats, ns);
			assert_true(ter_timestats_quantile(&stats, 500) ==
				    ns); /* never above the largest, so exact for one */
		}
	}
}

static void *record_many(void *arg)
{
	for (uint64_t i = 0; i < 10000; i++)
		ter_timestats_record(arg, 100 + i);
	return NULL;
}

static void threads_lose_no_record(void **state)
{
	static struct ter_timestats stats;
	struct ter_timestats_summary s;
	pthread_t thread[4];

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, record_many, &stats), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	ter_timestats_read(&stats, &s);
	assert_int_equal(s.count, 40000);
	assert_int_equal(s.min_ns, 100);
	assert_int_equal(s.max_ns, 10099);
	assert_int_equal(s.mean_ns, 5099);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_recorded_is_all_zero),	  cmocka_unit_test(sums_are_exact),
		cmocka_unit_test(quantiles_are_within_a_quarter), cmocka_unit_test(every_time_has_a_bucket),
		cmocka_unit_test(threads_lose_no_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
