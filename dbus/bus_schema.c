/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* OptionSchema: the table of options as clients see it, so that none has a list of its own. */
#include "dbus/bus_priv.h"

static const char *const type_names[] = {
	[TER_OPT_UINT] = "uint", [TER_OPT_SIZE] = "size", [TER_OPT_BOOL] = "bool", [TER_OPT_ENUM] = "enum", [TER_OPT_ALGO] = "algorithm",
};

/* {s v(as)} of those words whose bit is set. */
static int append_bits(sd_bus_message *m, const char *key, unsigned bits, const char *const *words, unsigned nr)
{
	int r;

	r = sd_bus_message_open_container(m, 'e', "sv");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", key);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'v', "as");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "s");
	for (unsigned i = 0; i < nr && r >= 0; i++)
		if (bits & 1u << i)
			r = sd_bus_message_append(m, "s", words[i]);
	for (unsigned depth = 0; depth < 3 && r >= 0; depth++)
		r = sd_bus_message_close_container(m);
	return r;
}

static int append_words(sd_bus_message *m, const char *words)
{
	int r = 0;

	while (*words && r >= 0) {
		const size_t n = strcspn(words, ",");
		char word[TER_OPT_ALGO_MAX];

		if (n >= sizeof(word))
			return -E2BIG;
		memcpy(word, words, n);
		word[n] = 0;
		r = sd_bus_message_append(m, "s", word);
		words += n + (words[n] == ',');
	}
	return r;
}

/* Algorithms: what is loaded, and "none" where that is a choice. */
static int append_algorithms(sd_bus_message *m, const struct ter_codecs *codecs, const char *kind_name)
{
	const enum terrace_kind kind = strcmp(kind_name, "compression") == 0 ? TERRACE_COMPRESSION : TERRACE_CHECKSUM;
	int r;

	r = sd_bus_message_append(m, "s", "none");
	for (unsigned i = 0; i < codecs->nr && r >= 0; i++)
		if (codecs->algo[i]->kind == kind)
			r = sd_bus_message_append(m, "s", codecs->algo[i]->name);
	return r;
}

static int append_choices(sd_bus_message *m, const struct ter_option_info *info, const struct ter_codecs *codecs)
{
	int r;

	r = sd_bus_message_open_container(m, 'e', "sv");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", "choices");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'v', "as");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "s");
	if (r >= 0)
		r = info->type == TER_OPT_ALGO ? append_algorithms(m, codecs, info->choices) : append_words(m, info->choices);
	for (unsigned depth = 0; depth < 3 && r >= 0; depth++)
		r = sd_bus_message_close_container(m);
	return r;
}

static int append_default(sd_bus_message *m, const struct ter_option_info *info, const struct ter_options *defaults)
{
	int r;

	r = sd_bus_message_open_container(m, 'e', "sv");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", "default");
	if (r >= 0)
		r = ter_bus_append_option(m, defaults, info);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static int append_row(sd_bus_message *m, const struct ter_option_info *info, const struct ter_options *defaults, const struct ter_codecs *codecs)
{
	static const char *const scopes[] = { "fs", "device", "inode" };
	static const char *const whens[] = { "format", "open", "runtime" };
	int r;

	r = ter_bus_append_pair(m, "type", "s", type_names[info->type]);
	if (r >= 0)
		r = append_bits(m, "scope", info->scope, scopes, ARRAY_SIZE(scopes));
	if (r >= 0)
		r = append_bits(m, "settable", info->settable, whens, ARRAY_SIZE(whens));
	if (r >= 0)
		r = append_default(m, info, defaults);
	if (r >= 0 && (info->type == TER_OPT_UINT || info->type == TER_OPT_SIZE)) {
		r = ter_bus_append_pair(m, "min", "t", info->min);
		if (r >= 0)
			r = ter_bus_append_pair(m, "max", "t", info->max);
		if (r >= 0)
			r = ter_bus_append_pair(m, "pow2", "b", !!(info->settable & TER_OPT_POW2));
	}
	if (r >= 0 && info->choices)
		r = append_choices(m, info, codecs);
	if (r >= 0 && info->unit[0])
		r = ter_bus_append_pair(m, "unit", "s", info->unit);
	return r < 0 ? r : ter_bus_append_pair(m, "summary", "s", info->help);
}

TER_BUS_GETTER(ter_bus_option_schema)
{
	const struct ter_bus *bus = userdata;
	struct ter_options defaults;
	int r;

	ter_options_default(&defaults);
	r = sd_bus_message_open_container(reply, 'a', "{sa{sv}}");
	for (const struct ter_option_info *info = ter_option_table; info->name && r >= 0; info++) {
		r = sd_bus_message_open_container(reply, 'e', "sa{sv}");
		if (r >= 0)
			r = sd_bus_message_append(reply, "s", info->name);
		if (r >= 0)
			r = sd_bus_message_open_container(reply, 'a', "{sv}");
		if (r >= 0)
			r = append_row(reply, info, &defaults, bus->host.codecs);
		for (unsigned depth = 0; depth < 2 && r >= 0; depth++)
			r = sd_bus_message_close_container(reply);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}
