/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* terracectl options: show or set. */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char OPTIONS[] = CTL_IFACE("Options");

/* A variant of a basic type as a person reads it. */
static int print_variant(sd_bus_message *m, bool json)
{
	const char *contents, *s;
	char type;
	int r;

	if (json)
		return ctl_json_value(m);
	r = sd_bus_message_peek_type(m, &type, &contents);
	if (r >= 0 && strcmp(contents, "s") == 0) {
		r = sd_bus_message_read(m, "v", "s", &s);
		if (r >= 0)
			fputs(s, stdout);
		return r;
	}
	return ctl_json_value(m);
}

/* All, or those named in @names. */
static int show(struct ctl *ctl, const char *path, int argc, char **argv)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	bool first = true;
	int found = 0, r;

	r = sd_bus_get_property(ctl->bus, CTL_NAME, path, OPTIONS, "Values", &error, &reply, "a{sv}");
	if (r < 0)
		return ctl_error(&error, r);
	if (ctl->json)
		putchar('{');
	r = sd_bus_message_enter_container(reply, 'a', "{sv}");
	while (r >= 0 && (r = sd_bus_message_enter_container(reply, 'e', "sv")) > 0) {
		bool wanted = argc == 0;
		const char *name;

		r = sd_bus_message_read(reply, "s", &name);
		for (int i = 0; i < argc && r >= 0; i++)
			wanted = wanted || strcmp(argv[i], name) == 0;
		if (r >= 0 && wanted) {
			found++;
			if (ctl->json) {
				printf("%s", first ? "" : ",");
				ctl_json_string(name);
				putchar(':');
			} else {
				printf("%s=", name);
			}
			r = print_variant(reply, ctl->json);
			if (!ctl->json)
				putchar('\n');
			first = false;
		} else if (r >= 0) {
			r = sd_bus_message_skip(reply, "v");
		}
		if (r >= 0)
			r = sd_bus_message_exit_container(reply);
	}
	if (ctl->json)
		printf("}\n");
	if (r < 0)
		return ctl_error(NULL, r);
	return found < argc ? ctl_fail(_("There is no such option; 'terracectl options POOL' lists all.")) : CTL_OK;
}

static int set(struct ctl *ctl, const char *path, int argc, char **argv)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
	int code, r;

	code = ctl_new_call(ctl, path, OPTIONS, "Set", &m);
	if (code != CTL_OK)
		return code;
	r = sd_bus_message_open_container(m, 'a', "{sv}");
	for (int i = 0; i < argc && r >= 0; i++) {
		char *eq = strchr(argv[i], '=');

		if (!eq)
			return ctl_fail(_("'%s': either show options or set them, as NAME=VALUE."), argv[i]);
		*eq = 0;
		r = sd_bus_message_append(m, "{sv}", argv[i], "s", eq + 1);
	}
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	if (r >= 0)
		r = sd_bus_message_append(m, "a{sv}", 1, "persist", "b", 1);
	return r < 0 ? ctl_error(NULL, r) : ctl_call_message(ctl, m, &reply);
}

int ctl_cmd_options(struct ctl *ctl, int argc, char **argv)
{
	char *path = NULL;
	int code = ctl_resolve(ctl, argv[0], &path);

	if (code == CTL_OK)
		code = argc > 1 && strchr(argv[1], '=') ? set(ctl, path, argc - 1, argv + 1) : show(ctl, path, argc - 1, argv + 1);
	free(path);
	return code;
}
