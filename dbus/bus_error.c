/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Core's errors as D-Bus errors: one table, in util/error.h. */
#include <stdarg.h>
#include <stdio.h>

#include "dbus/bus_priv.h"

int ter_bus_set_error(sd_bus_error *sd_error, const struct ter_error *error)
{
	char name[128], text[TER_ERROR_TEXT_MAX];

	snprintf(name, sizeof(name), TER_BUS_ERROR_PREFIX "%s", ter_error_name(error->kind));
	ter_bus_utf8(error->text, text, sizeof(text));
	(void)sd_bus_error_set(sd_error, name, text); /* returns the errno of a name that it does not know */
	return error->err < 0 ? error->err : -EIO;
}

int ter_bus_fail(sd_bus_error *sd_error, enum ter_error_kind kind, const char *fmt, ...)
{
	struct ter_error error = { 0 };
	char text[TER_ERROR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ter_fail(&error, kind, "%s", text);
	return ter_bus_set_error(sd_error, &error);
}

int ter_bus_append_error_names(sd_bus_message *m)
{
	static const struct {
		const char *name;
		int err;
	} rows[] = {
#define x(id, errno_, bus) { TER_BUS_ERROR_PREFIX bus, errno_ },
		TER_ERRORS(x)
#undef x
	};
	int r;

	r = sd_bus_message_open_container(m, 'a', "(ss)");
	for (size_t i = 0; i < ARRAY_SIZE(rows) && r >= 0; i++)
		r = sd_bus_message_append(m, "(ss)", rows[i].name, strerrorname_np(rows[i].err));
	return r < 0 ? r : sd_bus_message_close_container(m);
}
