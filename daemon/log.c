/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Logging to the systemd journal or to stderr. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#define TEXT_MAX 2048
#define FIELDS_MAX 10
#define FIELD_MAX 256

static _Atomic int max_level = LOG_INFO;
static bool to_journal;

/* systemd says in JOURNAL_STREAM which device and inode stderr is when it is the journal's. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void td_log_init(int max_priority)
{
	max_level = max_priority;
	to_journal = stderr_is_journal();
}

void td_log_set_priority(int max_priority)
{
	max_level = max_priority;
}

int td_log_priority(void)
{
	return max_level;
}

static void send_journal(int priority, const struct td_log_about *about, const char *text)
{
	char field[FIELDS_MAX][FIELD_MAX], message[TEXT_MAX + 16];
	struct iovec iov[FIELDS_MAX + 1];
	unsigned nr = 0;
	const struct { const char *name, *value; } fields[] = {
		{ "TERRACE_FS_UUID", about ? about->fs_uuid : NULL },     { "TERRACE_FS_LABEL", about ? about->fs_label : NULL },
		{ "TERRACE_DEVICE_UUID", about ? about->device_uuid : NULL }, { "TERRACE_JOB", about ? about->job : NULL },
		{ "TERRACE_ERROR", about ? about->error : NULL },         { "MESSAGE_ID", about ? about->message_id : NULL },
	};

	snprintf(message, sizeof(message), "MESSAGE=%s", text);
	iov[nr++] = (struct iovec){ message, strlen(message) };
	snprintf(field[0], FIELD_MAX, "PRIORITY=%d", priority);
	iov[nr++] = (struct iovec){ field[0], strlen(field[0]) };
	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (!fields[i].value)
			continue;
		snprintf(field[i + 1], FIELD_MAX, "%s=%s", fields[i].name, fields[i].value);
		iov[nr++] = (struct iovec){ field[i + 1], strlen(field[i + 1]) };
	}
	sd_journal_sendv(iov, (int)nr);
}

void td_log(int priority, const struct td_log_about *about, const char *fmt, ...)
{
	static const char *const names[] = { "emergency", "alert", "critical", "error", "warning", "notice", "info", "debug" };
	char text[TEXT_MAX];
	va_list ap;

	if (priority > max_level)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (to_journal)
		send_journal(priority, about, text);
	else
		fprintf(stderr, "terraced: %s%s%s\n", priority <= LOG_WARNING ? names[priority & 7] : "", priority <= LOG_WARNING ? ": " : "", text);
}
