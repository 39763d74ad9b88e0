/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bus values as JSON. */
#include "ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define DEPTH_MAX 16

void ctl_json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		const unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static int print_basic(sd_bus_message *m, char type)
{
	union {
		uint8_t y;
		int b;
		int16_t n;
		uint16_t q;
		int32_t i;
		uint32_t u;
		int64_t x;
		uint64_t t;
		double d;
		const char *s;
	} v;
	int r = sd_bus_message_read_basic(m, type, &v);

	if (r < 0)
		return r;
	switch (type) {
	case 'y':
		printf("%u", v.y);
		break;
	case 'b':
		printf("%s", v.b ? "true" : "false");
		break;
	case 'n':
		printf("%d", v.n);
		break;
	case 'q':
		printf("%u", v.q);
		break;
	case 'i':
		printf("%" PRIi32, v.i);
		break;
	case 'u':
		printf("%" PRIu32, v.u);
		break;
	case 'x':
		printf("%" PRIi64, v.x);
		break;
	case 't':
		printf("%" PRIu64, v.t);
		break;
	case 'd':
		if (isfinite(v.d))
			printf("%.17g", v.d);
		else
			printf("null");
		break;
	case 's':
	case 'o':
	case 'g':
		ctl_json_string(v.s);
		break;
	default:
		return -EOPNOTSUPP;
	}
	return 0;
}

static int print_value(sd_bus_message *m, unsigned depth);

/* The elements of an open container, with @separator between them. */
static int print_elements(sd_bus_message *m, unsigned depth)
{
	bool first = true;
	int r;

	while ((r = sd_bus_message_at_end(m, 0)) == 0) {
		if (!first)
			putchar(',');
		first = false;
		r = print_value(m, depth);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : 0;
}

static int print_entry(sd_bus_message *m, const char *contents, unsigned depth)
{
	int r = sd_bus_message_enter_container(m, 'e', contents);

	if (r < 0)
		return r;
	if (contents[0] == 's' || contents[0] == 'o') {
		r = print_basic(m, contents[0]);
	} else { /* JSON's names are strings */
		putchar('"');
		r = print_basic(m, contents[0]);
		putchar('"');
	}
	if (r < 0)
		return r;
	putchar(':');
	r = print_value(m, depth);
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int print_container(sd_bus_message *m, char type, const char *contents, unsigned depth)
{
	const bool object = type == 'a' && contents[0] == '{';
	int r;

	if (type == 'e')
		return print_entry(m, contents, depth);
	r = sd_bus_message_enter_container(m, type, contents);
	if (r < 0)
		return r;
	if (type == 'v') {
		r = print_value(m, depth);
	} else {
		putchar(object ? '{' : '[');
		r = print_elements(m, depth);
		putchar(object ? '}' : ']');
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int print_value(sd_bus_message *m, unsigned depth)
{
	const char *contents;
	char type;
	int r = sd_bus_message_peek_type(m, &type, &contents);

	if (r <= 0)
		return r < 0 ? r : -ENODATA;
	if (depth >= DEPTH_MAX)
		return -E2BIG;
	return contents ? print_container(m, type, contents, depth + 1) : print_basic(m, type);
}

int ctl_json_value(sd_bus_message *m)
{
	return print_value(m, 0);
}
