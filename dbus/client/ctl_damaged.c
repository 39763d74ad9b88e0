/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* terracectl damaged: which files lost data, and that one of them was put back. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl.h"

static int print_files(struct ctl *ctl, sd_bus_message *reply, unsigned *nr)
{
	int r = sd_bus_message_enter_container(reply, 'a', "(tsas)");

	while (r >= 0 && (r = sd_bus_message_enter_container(reply, 'r', "tsas")) > 0) {
		const char *path, *what;
		uint64_t inode;

		r = sd_bus_message_read(reply, "ts", &inode, &path);
		if (r >= 0)
			r = sd_bus_message_enter_container(reply, 'a', "s");
		if (r < 0)
			break;
		if (ctl->json) {
			printf("%s{\"inode\": %llu, \"path\": ", *nr ? ", " : "", (unsigned long long)inode);
			ctl_json_string(path);
			printf(", \"errors\": [");
			for (unsigned i = 0; (r = sd_bus_message_read(reply, "s", &what)) > 0; i++) {
				printf("%s", i ? ", " : "");
				ctl_json_string(what);
			}
			printf("]}");
		} else {
			if (path[0])
				printf("%s", path + (path[1] ? 1 : 0)); /* relative to the mount */
			else
				printf(_("(inode %llu, name not known)"), (unsigned long long)inode);
			while ((r = sd_bus_message_read(reply, "s", &what)) > 0)
				printf(": %s", what);
			printf("\n");
		}
		(*nr)++;
		if (r >= 0)
			r = sd_bus_message_exit_container(reply);
		if (r >= 0)
			r = sd_bus_message_exit_container(reply);
	}
	return r < 0 ? r : sd_bus_message_exit_container(reply);
}

static int list(struct ctl *ctl, const char *pool)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	char cursor[32] = "";
	unsigned nr = 0;

	if (ctl->json)
		printf("[");
	do {
		_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
		const char *next;
		int code, r;

		code = ctl_new_call(ctl, pool, CTL_IFACE("Maintenance"), "ListDamaged", &m);
		if (code != CTL_OK)
			return code;
		r = sd_bus_message_append(m, "a{sv}", 1, "cursor", "s", cursor);
		if (r < 0)
			return ctl_error(NULL, r);
		sd_bus_message_unrefp(&reply);
		reply = NULL;
		code = ctl_call_message(ctl, m, &reply);
		if (code != CTL_OK)
			return code;
		r = print_files(ctl, reply, &nr);
		if (r >= 0)
			r = sd_bus_message_read(reply, "s", &next);
		if (r < 0)
			return ctl_error(NULL, r);
		snprintf(cursor, sizeof(cursor), "%s", next);
	} while (cursor[0]);
	if (ctl->json)
		printf("]\n");
	else if (!nr && !ctl->quiet)
		printf(_("No file is known to be damaged.\n"));
	return CTL_OK;
}

static int clear(struct ctl *ctl, const char *pool, const char *file)
{
	const int fd = open(file, O_PATH | O_CLOEXEC | O_NOFOLLOW);
	int code;

	if (fd < 0)
		return ctl_fail(_("'%s' cannot be opened: %m."), file);
	code = ctl_call(ctl, pool, CTL_IFACE("Maintenance"), "ClearDamage", NULL, "h", fd);
	close(fd);
	return code;
}

int ctl_cmd_damaged(struct ctl *ctl, int argc, char **argv)
{
	char *pool = NULL;
	int code = ctl_resolve(ctl, argv[0], &pool);

	if (code == CTL_OK && argc == 1)
		code = list(ctl, pool);
	for (int i = 1; i < argc && code == CTL_OK; i++)
		code = clear(ctl, pool, argv[i]);
	free(pool);
	return code;
}
