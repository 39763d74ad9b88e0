/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The checks of one algorithm, by kind. Findings go to check_report.h. */
#ifndef TER_CHECK_ALGOS_H
#define TER_CHECK_ALGOS_H

#include <stdbool.h>
#include <stdint.h>

#include "plugins/terrace-plugin.h"

#define CHECK_THREADS 4

struct check_settings {
	uint64_t seed;
	bool quick; /* fewer rounds, shorter measurements: for a test run */
};

void check_compression(const struct terrace_compression *compression, const struct check_settings *settings);
void check_checksum(const struct terrace_checksum *checksum, const struct check_settings *settings);

#endif
