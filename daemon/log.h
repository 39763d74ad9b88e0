/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's log: to stderr, one sentence a line, or, from the program on the bus, to the systemd journal with fields (log_journal.h)
 *
 * Core explains, this logs, once, at the top. Any thread.
 */
#ifndef TD_LOG_H
#define TD_LOG_H

#include <stdbool.h>
#include <syslog.h>

/* What a message is about; members may be NULL. */
struct td_log_about {
	const char *fs_uuid, *fs_label, *device_uuid, *job, *error, *message_id;
};
#define TD_LOG_TEXT_MAX 2048 /* a longer message is cut */
typedef void (*td_log_sink)(int priority, const struct td_log_about *about, const char *text);

void td_log_init(int max_priority); /* LOG_INFO …; to stderr */
void td_log_set_sink(td_log_sink sink); /* instead of stderr; while there is one thread */
void td_log_set_priority(int max_priority);
int td_log_priority(void);
void td_log(int priority, const struct td_log_about *about, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
