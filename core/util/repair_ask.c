/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair: asking before a change, and counting. */
#include "util/repair.h"

#include <stdarg.h>
#include <stdio.h>

int ter_repair_want(struct ter_repair *repair, const char *pass, const char *fmt, ...)
{
	char sentence[TER_REPAIR_SENTENCE_MAX];
	va_list ap;
	int r = 1;

	repair->wanted_nr++;
	if (repair->want) {
		va_start(ap, fmt);
		vsnprintf(sentence, sizeof(sentence), fmt, ap);
		va_end(ap);
		r = repair->want(repair->arg, pass, sentence);
		if (r < 0)
			return r;
	}
	if (r)
		repair->done_nr++;
	else
		repair->left_nr++;
	return r > 0;
}

int ter_repair_step(struct ter_repair *repair, const char *phase, uint64_t done, uint64_t total)
{
	return repair->step ? ter_min(repair->step(repair->arg, phase, done, total), 0) : 0;
}

uint64_t ter_repair_memory(const struct ter_repair *repair)
{
	return ter_max(repair->memory_bytes ? repair->memory_bytes : TER_REPAIR_MEMORY_DEFAULT, TER_REPAIR_MEMORY_MIN);
}
