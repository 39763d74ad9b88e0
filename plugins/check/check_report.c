/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts checks, prints what failed, and explains crashes and hangs. */
#include "check_report.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAILURES_SHOWN 5 /* of one step */

static struct {
	char step[64];
	char doing[160];
	char seed[32];
	unsigned checks_nr, failures_nr; /* of this step */
	unsigned failures_all_nr;
} report;

/* In a signal handler only write() is safe. */
static void put(const char *text)
{
	ssize_t r = write(STDERR_FILENO, text, strlen(text));

	(void)r; /* there is nobody left to tell */
}

static void on_signal(int sig)
{
	put("\nFAILED: ");
	put(report.step);
	put(sig == SIGALRM  ? ": the plugin does not return"
	    : sig == SIGABRT ? ": the plugin aborted"
	    : sig == SIGFPE || sig == SIGILL ? ": the plugin executed something impossible"
					     : ": the plugin touched memory outside its buffers");
	put(" (");
	put(report.doing);
	put("; seed ");
	put(report.seed);
	put(")\n");
	_exit(1);
}

void check_report_start(uint64_t seed)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM };
	struct sigaction action = { .sa_handler = on_signal };

	(void)snprintf(report.seed, sizeof(report.seed), "%" PRIu64, seed);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		if (sigaction(signals[i], &action, NULL) < 0)
			abort(); /* cannot fail: valid signals, valid action */
	/* Lines appear at once and in order with what goes to stderr. */
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
}

void check_step_begin(const char *step)
{
	(void)snprintf(report.step, sizeof(report.step), "%s", step);
	(void)snprintf(report.doing, sizeof(report.doing), "starting");
	report.checks_nr = report.failures_nr = 0;
	(void)alarm(CHECK_STEP_SECONDS_MAX);
}

bool check_step_end(void)
{
	(void)alarm(0);
	if (report.failures_nr == 0)
		printf("    %-20s ok (%u checks)\n", report.step, report.checks_nr);
	else
		printf("    %-20s FAILED (%u of %u checks)\n", report.step, report.failures_nr, report.checks_nr);
	return report.failures_nr == 0;
}

void check_doing(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(report.doing, sizeof(report.doing), format, args);
	va_end(args);
}

bool check(bool ok, const char *format, ...)
{
	va_list args;

	report.checks_nr++;
	if (ok)
		return true;
	report.failures_nr++;
	report.failures_all_nr++;
	if (report.failures_nr <= FAILURES_SHOWN) {
		fprintf(stderr, "FAILED: %s: ", report.step);
		va_start(args, format);
		vfprintf(stderr, format, args);
		va_end(args);
		fprintf(stderr, " (%s; seed %s)\n", report.doing, report.seed);
	}
	return false;
}

unsigned check_failures(void)
{
	return report.failures_all_nr;
}
