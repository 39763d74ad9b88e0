/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The log's messages as entries of the systemd journal. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include "log_journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "log.h"

#define FIELDS_MAX 10
#define FIELD_MAX 256

/* systemd says in JOURNAL_STREAM which device and inode stderr is when it is the journal's. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

static void send_journal(int priority, const struct td_log_about *about, const char *text)
{
	char field[FIELDS_MAX][FIELD_MAX], message[TD_LOG_TEXT_MAX + 16];
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

void td_log_journal_init(void)
{
	if (stderr_is_journal())
		td_log_set_sink(send_journal);
}
