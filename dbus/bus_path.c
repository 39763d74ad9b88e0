/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Object paths, from what is stable: UUIDs and job numbers. The same before and after a restart, a rename, a reboot. */
#include <inttypes.h>
#include <stdio.h>

#include "dbus/bus_priv.h"
#include "util/utf8.h"

static void uuid_path(const char *folder, const char *uuid, char ret[TER_BUS_PATH_MAX])
{
	int n = snprintf(ret, TER_BUS_PATH_MAX, TER_BUS_ROOT "/%s/%s", folder, uuid);

	for (int i = 0; i < n && i < TER_BUS_PATH_MAX; i++)
		if (ret[i] == '-')
			ret[i] = '_';
}

void ter_bus_fs_path(const char *uuid, char ret[TER_BUS_PATH_MAX])
{
	uuid_path("filesystems", uuid, ret);
}

void ter_bus_device_path(const char *uuid, char ret[TER_BUS_PATH_MAX])
{
	uuid_path("devices", uuid, ret);
}

void ter_bus_job_path(uint64_t id, char ret[TER_BUS_PATH_MAX])
{
	snprintf(ret, TER_BUS_PATH_MAX, TER_BUS_ROOT "/jobs/%" PRIu64, id);
}

/* How long the UTF-8 character at @s claims to be. */
static size_t sequence_bytes(unsigned char c)
{
	return c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
}

void ter_bus_utf8(const char *text, char *ret, size_t ret_bytes)
{
	size_t used = 0;

	while (*text) {
		const size_t n = sequence_bytes((unsigned char)*text);

		if (strnlen(text, n) == n && ter_utf8_valid(text, n)) {
			if (used + n >= ret_bytes)
				break;
			memcpy(ret + used, text, n);
			used += n;
			text += n;
			continue;
		}
		if (used + 4 >= ret_bytes)
			break;
		used += (size_t)snprintf(ret + used, ret_bytes - used, "\\x%02x", (unsigned char)*text++);
	}
	ret[used] = 0;
}
