/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When a job will be over, foretold from its progress; and names of devices as udev encodes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "device_info.h"
#include "job_eta.h"

#define SECOND 1000000ull
#define BEGIN (1700000000 * SECOND)

static void a_steady_job_ends_when_it_says_and_says_so_once(void **state)
{
	struct td_job_eta eta = { 0 };
	uint64_t first = 0;

	for (unsigned s = 0; s < 100; s++) {
		const uint64_t end = td_job_eta_add(&eta, BEGIN + s * SECOND, s / 100.0 + (s % 2 ? 1e-5 : 0)); /* nothing is that steady */

		if (s < 4)
			assert_int_equal(end, 0); /* too few samples */
		else
			assert_in_range(end, BEGIN + 99 * SECOND, BEGIN + 101 * SECOND);
		first = s == 4 ? end : first;
		assert_int_equal(end, first);
	}
}

static void an_estimate_follows_a_job_that_gets_slower(void **state)
{
	struct td_job_eta eta = { 0 };
	double progress = 0;
	uint64_t end = 0;
	unsigned s;

	for (s = 0; s < 20; s++, progress += 0.01)
		end = td_job_eta_add(&eta, BEGIN + s * SECOND, progress);
	assert_in_range(end, BEGIN + 95 * SECOND, BEGIN + 105 * SECOND);
	/* A tenth of the speed: after two minutes the old one is forgotten. */
	for (unsigned i = 0; i < 120; i++, s++, progress += 0.001)
		end = td_job_eta_add(&eta, BEGIN + s * SECOND, progress);
	assert_in_range(end, BEGIN + s * SECOND + 500 * SECOND, BEGIN + s * SECOND + 700 * SECOND);
}

static void nothing_is_foretold_of_what_stands_still_or_begins_again(void **state)
{
	struct td_job_eta eta = { 0 };

	for (unsigned s = 0; s < 20; s++)
		assert_int_equal(td_job_eta_add(&eta, BEGIN + s * SECOND, 0.5), 0);
	eta = (struct td_job_eta){ 0 };
	for (unsigned s = 0; s < 20; s++)
		td_job_eta_add(&eta, BEGIN + s * SECOND, s / 100.0);
	assert_int_equal(td_job_eta_add(&eta, BEGIN + 20 * SECOND, 0.01), 0); /* another round */
	assert_int_equal(td_job_eta_add(&eta, BEGIN + 20 * SECOND, 0.02), 0); /* the clock stood */
	assert_int_equal(td_job_eta_add(&eta, BEGIN, 0.5), 0);                /* and was set back */
	for (unsigned s = 1; s < 10; s++)
		assert_int_equal(td_job_eta_add(&eta, BEGIN + s * SECOND, 0.5 + s * 1e-12), 0); /* a thousand years away */
}

static void names_are_decoded(void **state)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
		{ "", "" }, { "Disk", "Disk" }, { "\\x20\\x20Good\\x20Disk\\x20", "Good Disk" }, { "a\\x0ab\\x00c", "a b c" }, { "a\\xzz\\x2", "a\\xzz\\x2" }, { "  ", "" },
		{ "\\xc3\\xa4", "\xc3\xa4" },
	};
	char out[TER_BUS_HARDWARE_MAX], long_name[1000];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		td_device_decode(rows[i].in, out);
		assert_string_equal(out, rows[i].out);
	}
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = 0;
	td_device_decode(long_name, out);
	assert_int_equal(strlen(out), TER_BUS_HARDWARE_MAX - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_steady_job_ends_when_it_says_and_says_so_once),
		cmocka_unit_test(an_estimate_follows_a_job_that_gets_slower),
		cmocka_unit_test(nothing_is_foretold_of_what_stands_still_or_begins_again),
		cmocka_unit_test(names_are_decoded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
