/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When a job will be over, from how fast its progress has grown
 *
 * One phase only: how long the next one takes nobody knows. The speed is a mean that forgets within about half a minute; a few samples must be there before it is believed.
 */
#ifndef TD_JOB_ETA_H
#define TD_JOB_ETA_H

#include <stdbool.h>
#include <stdint.h>

struct td_job_eta {
	uint64_t at_us, end_us;
	double progress, speed; /* speed: of progress, in a microsecond */
	unsigned samples;
};
/* Of now: @progress from 0 to 1. Returns the expected end, in the same microseconds; 0: not known. An estimate that moved by less than a second stays what it was. */
uint64_t td_job_eta_add(struct td_job_eta *eta, uint64_t now_us, double progress);

#endif
