/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values of properties and of options, to messages and from them. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "dbus/bus_priv.h"

TER_BUS_GETTER(ter_bus_get_str)
{
	return sd_bus_message_append(reply, "s", (const char *)userdata);
}

TER_BUS_GETTER(ter_bus_get_path)
{
	char text[PATH_MAX * 4]; /* each byte may become \xNN */

	ter_bus_utf8(userdata, text, sizeof(text));
	return sd_bus_message_append(reply, "s", text);
}

TER_BUS_GETTER(ter_bus_get_bool)
{
	return sd_bus_message_append(reply, "b", *(const bool *)userdata);
}

TER_BUS_GETTER(ter_bus_get_u8)
{
	return sd_bus_message_append(reply, "y", *(const uint8_t *)userdata);
}

TER_BUS_GETTER(ter_bus_get_u32)
{
	return sd_bus_message_append(reply, "u", *(const uint32_t *)userdata);
}

TER_BUS_GETTER(ter_bus_get_u64)
{
	return sd_bus_message_append(reply, "t", *(const uint64_t *)userdata);
}

TER_BUS_GETTER(ter_bus_get_double)
{
	return sd_bus_message_append(reply, "d", *(const double *)userdata);
}

TER_BUS_GETTER(ter_bus_get_fs)
{
	const char *uuid = userdata;
	char object[TER_BUS_PATH_MAX] = "/";

	if (uuid[0])
		ter_bus_fs_path(uuid, object);
	return sd_bus_message_append(reply, "o", object);
}

TER_BUS_GETTER(ter_bus_get_zero)
{
	return sd_bus_message_append(reply, "b", false);
}

TER_BUS_GETTER(ter_bus_get_zero_u64)
{
	return sd_bus_message_append(reply, "t", UINT64_C(0));
}

int ter_bus_append_pair(sd_bus_message *m, const char *key, const char *type, ...)
{
	va_list ap;
	int r;

	r = sd_bus_message_open_container(m, 'e', "sv");
	if (r < 0)
		return r;
	r = sd_bus_message_append(m, "s", key);
	if (r < 0)
		return r;
	r = sd_bus_message_open_container(m, 'v', type);
	if (r < 0)
		return r;
	va_start(ap, type);
	r = sd_bus_message_appendv(m, type, ap);
	va_end(ap);
	if (r < 0)
		return r;
	r = sd_bus_message_close_container(m);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

int ter_bus_append_option(sd_bus_message *m, const struct ter_options *options, const struct ter_option_info *info)
{
	const uint64_t value = ter_option_get_u64(options, info);
	char text[TER_OPT_ALGO_MAX];
	int r;

	switch (info->type) {
	case TER_OPT_BOOL:
		return sd_bus_message_append(m, "v", "b", (int)value);
	case TER_OPT_UINT:
	case TER_OPT_SIZE:
		return info->bytes == 8 ? sd_bus_message_append(m, "v", "t", value) : sd_bus_message_append(m, "v", "u", (uint32_t)value);
	default:
		r = ter_option_get_text(options, info, text, sizeof(text));
		return r < 0 ? r : sd_bus_message_append(m, "v", "s", text);
	}
}

/* An integer of any width, as text. */
static int read_integer(sd_bus_message *m, char type, char *text, size_t bytes)
{
	union {
		uint8_t y;
		int16_t n;
		uint16_t q;
		int32_t i;
		uint32_t u;
		int64_t x;
		uint64_t t;
	} value;
	int r;

	r = sd_bus_message_read_basic(m, type, &value);
	if (r < 0)
		return r;
	switch (type) {
	case 'n':
		snprintf(text, bytes, "%d", value.n);
		break;
	case 'i':
		snprintf(text, bytes, "%" PRId32, value.i);
		break;
	case 'x':
		snprintf(text, bytes, "%" PRId64, value.x);
		break;
	case 'y':
		snprintf(text, bytes, "%u", value.y);
		break;
	case 'q':
		snprintf(text, bytes, "%u", value.q);
		break;
	case 'u':
		snprintf(text, bytes, "%" PRIu32, value.u);
		break;
	default:
		snprintf(text, bytes, "%" PRIu64, value.t);
	}
	return 0;
}

int ter_bus_read_value(sd_bus_message *m, char *text, size_t bytes, sd_bus_error *error, const char *key)
{
	const char *contents, *string;
	int flag, r;
	char type;

	r = sd_bus_message_peek_type(m, &type, &contents);
	if (r < 0)
		return r;
	r = sd_bus_message_enter_container(m, 'v', contents);
	if (r < 0)
		return r;
	if (strlen(contents) == 1 && strchr("ynqiuxt", contents[0])) {
		r = read_integer(m, contents[0], text, bytes);
	} else if (strcmp(contents, "b") == 0) {
		r = sd_bus_message_read_basic(m, 'b', &flag);
		if (r >= 0)
			snprintf(text, bytes, "%s", flag ? "yes" : "no");
	} else if (strcmp(contents, "s") == 0) {
		r = sd_bus_message_read_basic(m, 's', &string);
		if (r >= 0 && strlen(string) >= bytes)
			return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "The value of '%s' is too long: at most %zu bytes.", key, bytes - 1);
		if (r >= 0)
			snprintf(text, bytes, "%s", string);
	} else {
		return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "The option '%s' takes a number, a switch or a word, not the type '%s'.", key, contents);
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}
