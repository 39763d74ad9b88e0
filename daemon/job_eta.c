/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When a job will be over. */
#include "job_eta.h"

#include <math.h>

#define SAMPLES_MIN 5
#define MEMORY_US 30e6   /* of the mean */
#define SAME_US 1000000  /* an estimate that moved by less is the same */
#define FAR_US (366 * 86400e6) /* farther away than this is not known */

uint64_t td_job_eta_add(struct td_job_eta *eta, uint64_t now_us, double progress)
{
	const double us = (double)(now_us - eta->at_us);
	double weight, left;
	uint64_t end;

	if (eta->samples && (now_us <= eta->at_us || progress < eta->progress))
		*eta = (struct td_job_eta){ 0 }; /* the clock was set, or it began again */
	if (eta->samples == 1)
		eta->speed = (progress - eta->progress) / us;
	else if (eta->samples) {
		weight = 1 - exp(-us / MEMORY_US);
		eta->speed += weight * ((progress - eta->progress) / us - eta->speed);
	}
	eta->at_us = now_us;
	eta->progress = progress;
	if (++eta->samples < SAMPLES_MIN || eta->speed <= 0)
		return eta->end_us = 0;
	left = (1 - progress) / eta->speed;
	if (left > FAR_US)
		return eta->end_us = 0;
	end = now_us + (uint64_t)left;
	if (!eta->end_us || end > eta->end_us + SAME_US || end + SAME_US < eta->end_us)
		eta->end_us = end;
	return eta->end_us;
}
