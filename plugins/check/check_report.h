/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What terrace-plugin-check found: one line a step, and the reason of each failure
 *
 * A step is a named group of checks. A plugin that crashes or does not return ends the tool in the middle of a step; then the step, the input and
 * the seed are printed, so that it can be repeated.
 */
#ifndef TER_CHECK_REPORT_H
#define TER_CHECK_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#define CHECK_STEP_SECONDS_MAX 300 /* a step that takes longer counts as hanging */

void check_report_start(uint64_t seed);
void check_step_begin(const char *step);
/* Prints "ok" and how many checks there were; returns false if one of them failed. */
bool check_step_end(void);
/* What the plugin is doing right now, for the message in case it crashes. */
__attribute__((format(printf, 1, 2))) void check_doing(const char *format, ...);
/* Counts one check. When @ok is false the sentence is printed; of each step only the first few, for one cause often shows a thousand times. */
__attribute__((format(printf, 2, 3))) bool check(bool ok, const char *format, ...);
unsigned check_failures(void);

#endif
