/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's log: to the journal with fields when it is there, else to stderr, one sentence a line
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
void td_log_init(int max_priority); /* LOG_INFO …; picks the journal if stderr is connected to it */
void td_log_set_priority(int max_priority);
int td_log_priority(void);
void td_log(int priority, const struct td_log_about *about, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
