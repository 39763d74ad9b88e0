/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-crash ace|mixes|lies: states after power cuts, until as many are distinct as were asked for
 *
 * TER_CRASH_STATES: how many (1000000: a night). TER_TEST_SEED. A violation prints TER_TEST_SEED=... TER_CRASH_REPLAY=..., which does that state alone and keeps
 * its devices as they were before it was opened in TER_CRASH_IMAGES (crash-images).
 */
#include "crash.h"

#include <stdio.h>
#include <time.h>

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	const double begin = seconds(CLOCK_MONOTONIC);
	double cpu;
	bool enough;
	struct crash c;

	crash_init(&c);
	if (c.one) {
		crash_ace(&c);
		crash_mixes(&c);
		crash_format(&c);
		crash_lies(&c);
		if (!c.tried)
			fprintf(stderr, "no workload has this name: %s\n", c.one_workload);
		fprintf(stderr, c.failures ? "as before\n" : "no violation\n");
		crash_done(&c);
		return c.failures || !c.tried;
	}
	if (!strcmp(what, "ace")) {
		crash_ace(&c);
	} else if (!strcmp(what, "mixes")) {
		crash_format(&c);
		crash_mixes(&c);
	} else if (!strcmp(what, "lies")) {
		crash_lies(&c);
	} else {
		fprintf(stderr, "usage: %s ace|mixes|lies\n", argv[0]);
		return 2;
	}
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	enough = c.images.nr >= c.goal;
	fprintf(stderr,
		"crash %s: %llu distinct states (%llu opened, %llu + %llu of them in a recovery and in its recovery, %llu cuts), %u violations, seed %llu; %.0f s, "
		"%.0f s of CPU, %.0f states a second\n",
		what, (unsigned long long)c.images.nr, (unsigned long long)(c.depth_nr[1] + c.depth_nr[2] + c.depth_nr[3]), (unsigned long long)c.depth_nr[2],
		(unsigned long long)c.depth_nr[3], (unsigned long long)c.tried, c.failures, (unsigned long long)c.seed, seconds(CLOCK_MONOTONIC) - begin, cpu,
		(double)c.judged.nr / cpu);
	if (!enough)
		fprintf(stderr, "fewer than the %llu that this test is to look at\n", (unsigned long long)c.goal);
	crash_done(&c);
	return c.failures || !enough;
}
