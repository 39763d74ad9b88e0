/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The trailing a{sv} of every method: keys that nobody knows are refused by name, so that a misspelt one is not silently ignored. */
#include "dbus/bus_priv.h"

static const char *const type_names[256] = {
	['b'] = "a boolean (b)", ['u'] = "an unsigned number (u)", ['d'] = "a real number (d)", ['s'] = "a string (s)", ['a'] = "an array of strings (as)",
};

static int read_strv(sd_bus_message *m, struct ter_bus_strv *ret, const char *key, sd_bus_error *error)
{
	const char *s;
	int r;

	r = sd_bus_message_enter_container(m, 'a', "s");
	if (r < 0)
		return r;
	ret->nr = 0;
	while ((r = sd_bus_message_read_basic(m, 's', &s)) > 0) {
		if (ret->nr == TER_BUS_STRV_MAX)
			return ter_bus_fail(error, TER_ERR_LIMIT_EXCEEDED, "The option '%s' takes at most %u strings.", key, TER_BUS_STRV_MAX);
		ret->s[ret->nr++] = s;
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* The message stands inside the variant. */
static int read_one(sd_bus_message *m, const struct ter_bus_opt *opt, sd_bus_error *error)
{
	int flag, r;

	switch (opt->type) {
	case 'b':
		r = sd_bus_message_read_basic(m, 'b', &flag);
		if (r >= 0)
			*(bool *)opt->ret = flag;
		return r;
	case 'u':
	case 'd':
	case 's':
		return sd_bus_message_read_basic(m, opt->type, opt->ret);
	default:
		return read_strv(m, opt->ret, opt->key, error);
	}
}

static int read_variant(sd_bus_message *m, const struct ter_bus_opt *opt, sd_bus_error *error)
{
	const char want[3] = { opt->type, opt->type == 'a' ? 's' : 0, 0 };
	const char *contents;
	char type;
	int r;

	r = sd_bus_message_peek_type(m, &type, &contents);
	if (r < 0)
		return r;
	if (strcmp(contents, want) != 0)
		return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "The option '%s' takes %s, not the type '%s'.", opt->key,
				    type_names[(unsigned char)opt->type], contents);
	r = sd_bus_message_enter_container(m, 'v', contents);
	if (r < 0)
		return r;
	r = read_one(m, opt, error);
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static const struct ter_bus_opt *find(const struct ter_bus_opt *opts, const char *key)
{
	for (; opts && opts->key; opts++)
		if (strcmp(opts->key, key) == 0)
			return opts;
	return NULL;
}

int ter_bus_read_opts(sd_bus_message *m, const struct ter_bus_opt *opts, struct ter_bus_std *ret, sd_bus_error *error)
{
	struct ter_bus_std std = { .reason = "" };
	const struct ter_bus_opt standard[] = {
		{ "auth.no_user_interaction", 'b', &std.no_interaction }, { "dry-run", 'b', &std.dry_run }, { "reason", 's', &std.reason }, { 0 },
	};
	const char *key;
	int r;

	r = sd_bus_message_enter_container(m, 'a', "{sv}");
	if (r < 0)
		return r;
	while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		const struct ter_bus_opt *opt;

		r = sd_bus_message_read_basic(m, 's', &key);
		if (r < 0)
			return r;
		opt = find(opts, key);
		if (!opt)
			opt = find(standard, key);
		if (!opt)
			return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "%s does not know the option '%s'.", sd_bus_message_get_member(m), key);
		r = read_variant(m, opt, error);
		if (r < 0)
			return r;
		r = sd_bus_message_exit_container(m);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	*ret = std;
	return sd_bus_message_exit_container(m);
}
