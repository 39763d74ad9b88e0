/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Logging to stderr, or to what was put in its place. */
#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

static _Atomic int max_level = LOG_INFO;
static td_log_sink log_sink; /* set before any thread is there */

void td_log_init(int max_priority)
{
	max_level = max_priority;
}

void td_log_set_priority(int max_priority)
{
	max_level = max_priority;
}

void td_log_set_sink(td_log_sink sink)
{
	log_sink = sink;
}

int td_log_priority(void)
{
	return max_level;
}

void td_log(int priority, const struct td_log_about *about, const char *fmt, ...)
{
	static const char *const names[] = { "emergency", "alert", "critical", "error", "warning", "notice", "info", "debug" };
	char text[TD_LOG_TEXT_MAX];
	va_list ap;

	if (priority > max_level)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (log_sink)
		log_sink(priority, about, text);
	else
		fprintf(stderr, "terraced: %s%s%s\n", priority <= LOG_WARNING ? names[priority & 7] : "", priority <= LOG_WARNING ? ": " : "", text);
}
