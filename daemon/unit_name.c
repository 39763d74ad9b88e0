/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How systemd names the unit of a mount point. */
#include "unit_name.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int td_mount_unit_name(const char *where, char *ret, size_t bytes)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.";
	size_t used = 0;
	bool slash = false;

	for (const char *p = where; *p; p++) {
		int n;

		if (*p == '/') {
			slash = used > 0;
			continue;
		}
		if (slash && used + 1 < bytes)
			ret[used++] = '-';
		if (strchr(plain, *p) && !(*p == '.' && used == 0))
			n = snprintf(ret + used, bytes - used, "%c", *p);
		else
			n = snprintf(ret + used, bytes - used, "\\x%02x", (unsigned char)*p);
		slash = false;
		if (n < 0 || (size_t)n >= bytes - used)
			return -ENAMETOOLONG;
		used += (size_t)n;
	}
	if ((size_t)snprintf(ret + used, bytes - used, "%s.mount", used ? "" : "-") >= bytes - used)
		return -ENAMETOOLONG;
	return 0;
}
