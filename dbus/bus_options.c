/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.terracefs.Terrace1.Options: a filesystem's options, where their values come from, and changing them. */
#include <stdio.h>

#include "dbus/bus_priv.h"

static TER_BUS_GETTER(get_values)
{
	const struct ter_options *options = userdata;
	int r;

	r = sd_bus_message_open_container(reply, 'a', "{sv}");
	for (const struct ter_option_info *info = ter_option_table; info->name && r >= 0; info++) {
		if (!(info->scope & TER_OPT_FS))
			continue;
		r = sd_bus_message_open_container(reply, 'e', "sv");
		if (r >= 0)
			r = sd_bus_message_append(reply, "s", info->name);
		if (r >= 0)
			r = ter_bus_append_option(reply, options, info);
		if (r >= 0)
			r = sd_bus_message_close_container(reply);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static TER_BUS_GETTER(get_sources)
{
	const struct ter_bus_fs *fs = ter_container_of((__typeof__(((struct ter_bus_fs *)NULL)->sources) *)userdata, struct ter_bus_fs, sources);
	int r;

	r = sd_bus_message_open_container(reply, 'a', "{ss}");
	for (const struct ter_option_info *info = ter_option_table; info->name && r >= 0; info++)
		if (info->scope & TER_OPT_FS)
			r = sd_bus_message_append(reply, "{ss}", info->name, fs->sources.word[info->id]);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int find_option(const char *key, const struct ter_option_info **ret, sd_bus_error *error)
{
	const struct ter_option_info *info = ter_option_find(key);

	if (!info || !(info->scope & TER_OPT_FS))
		return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "A filesystem has no option '%s'.", key);
	if (!(info->settable & TER_OPT_RUNTIME))
		return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "The option '%s' cannot be changed while the filesystem runs.", key);
	*ret = info;
	return 0;
}

/* All are checked, in a copy, before the first is set. */
static int read_options(sd_bus_message *m, struct ter_bus_object *fs, struct ter_bus_option *options, unsigned *ret_nr, sd_bus_error *error)
{
	struct ter_options changed = fs->view->fs.options;
	struct ter_error why = { 0 };
	unsigned nr = 0;
	const char *key;
	int r;

	r = sd_bus_message_enter_container(m, 'a', "{sv}");
	if (r < 0)
		return r;
	while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		struct ter_bus_option *option = &options[nr];

		r = sd_bus_message_read_basic(m, 's', &key);
		if (r < 0)
			return r;
		if (nr == TER_OPTION_ID_MAX)
			return ter_bus_fail(error, TER_ERR_LIMIT_EXCEEDED, "At most %d options can be set at once.", TER_OPTION_ID_MAX);
		r = find_option(key, &option->info, error);
		if (r >= 0)
			r = ter_bus_read_value(m, option->text, sizeof(option->text), error, key);
		if (r < 0)
			return r;
		if (ter_option_set_text(&changed, key, option->text, TER_OPT_RUNTIME, fs->bus->host.codecs, &why) < 0)
			return ter_bus_set_error(error, &why);
		nr++;
		r = sd_bus_message_exit_container(m);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	if (ter_options_check(&changed, &why) < 0)
		return ter_bus_set_error(error, &why);
	*ret_nr = nr;
	return sd_bus_message_exit_container(m);
}

static int method_set(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *fs = userdata;
	struct ter_bus_option options[TER_OPTION_ID_MAX];
	bool persist = true;
	const struct ter_bus_opt opts[] = { { "persist", 'b', &persist }, { 0 } };
	const struct ter_bus_about about = { .fs_uuid = fs->view->fs.uuid, .fs_label = fs->view->fs.label };
	struct ter_bus_call *call;
	struct ter_bus_std std;
	struct ter_bus_who who;
	unsigned nr = 0;
	int r;

	r = read_options(m, fs, options, &nr, error);
	if (r >= 0)
		r = ter_bus_read_opts(m, opts, &std, error);
	if (r < 0)
		return r;
	r = ter_bus_check_access(fs->bus, m, TER_BUS_MAY_SET_OPTIONS, &std, &about, &who, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	if (std.dry_run || !nr)
		return sd_bus_reply_method_return(m, NULL);
	call = ter_bus_call_new(fs->bus, m, error);
	if (!call)
		return -ENOMEM;
	fs->bus->host.set_options(fs->bus->host.arg, fs->view->fs.uuid, options, nr, persist, call);
	return 1;
}

static int read_names(sd_bus_message *m, const struct ter_option_info **infos, unsigned *ret_nr, sd_bus_error *error)
{
	unsigned nr = 0;
	const char *key;
	int r;

	r = sd_bus_message_enter_container(m, 'a', "s");
	if (r < 0)
		return r;
	while ((r = sd_bus_message_read_basic(m, 's', &key)) > 0) {
		if (nr == TER_OPTION_ID_MAX)
			return ter_bus_fail(error, TER_ERR_LIMIT_EXCEEDED, "At most %d options can be reset at once.", TER_OPTION_ID_MAX);
		r = find_option(key, &infos[nr++], error);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	*ret_nr = nr;
	return sd_bus_message_exit_container(m);
}

static int method_reset(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *fs = userdata;
	const struct ter_option_info *infos[TER_OPTION_ID_MAX];
	const struct ter_bus_about about = { .fs_uuid = fs->view->fs.uuid, .fs_label = fs->view->fs.label };
	struct ter_bus_call *call;
	struct ter_bus_std std;
	struct ter_bus_who who;
	unsigned nr = 0;
	int r;

	r = read_names(m, infos, &nr, error);
	if (r >= 0)
		r = ter_bus_read_opts(m, NULL, &std, error);
	if (r < 0)
		return r;
	r = ter_bus_check_access(fs->bus, m, TER_BUS_MAY_SET_OPTIONS, &std, &about, &who, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	if (std.dry_run || !nr)
		return sd_bus_reply_method_return(m, NULL);
	call = ter_bus_call_new(fs->bus, m, error);
	if (!call)
		return -ENOMEM;
	fs->bus->host.reset_options(fs->bus->host.arg, fs->view->fs.uuid, infos, nr, call);
	return 1;
}

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("Values", "a{sv}", get_values, TER_BUS_VIEW(offsetof(struct ter_bus_fs, options)), P_EMITS),
	SD_BUS_PROPERTY("Sources", "a{ss}", get_sources, TER_BUS_VIEW(offsetof(struct ter_bus_fs, sources)), P_EMITS),
	SD_BUS_METHOD_WITH_ARGS("Set", SD_BUS_ARGS("a{sv}", values, "a{sv}", opts), SD_BUS_NO_RESULT, method_set, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Reset", SD_BUS_ARGS("as", names, "a{sv}", opts), SD_BUS_NO_RESULT, method_reset, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

static const struct ter_bus_prop props[] = {
	{ "Values", offsetof(struct ter_bus_fs, options), sizeof(struct ter_options), P_EMITS },
	{ "Sources", offsetof(struct ter_bus_fs, sources), sizeof(((struct ter_bus_fs *)NULL)->sources), P_EMITS },
	{ 0 },
};

const struct ter_bus_iface ter_bus_options_iface = { TER_BUS_PREFIX "Options", vtable, props, 0 };
