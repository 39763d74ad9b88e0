/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.terracefs.Terrace1.Manager: what the daemon is and has, making filesystems, finding them by name. */
#include <stdio.h>

#include "dbus/bus_priv.h"

#define ALERTS_MAX 256u /* in the list of all filesystems */

/* What a client may rely on; a member of the interface that is not built is absent. */
static const char *const features[] = { "create", "mount", "attach-fuse", "options", "usage", "fsck", "plugins", "jobs", "alerts" };

static TER_BUS_GETTER(get_version)
{
	const struct ter_bus *bus = userdata;

	return sd_bus_message_append(reply, "s", bus->host.version);
}

static TER_BUS_GETTER(get_format_version)
{
	char text[32];

	snprintf(text, sizeof(text), "%d.%d", TER_FORMAT_MAJOR, TER_FORMAT_MINOR);
	return sd_bus_message_append(reply, "s", text);
}

static TER_BUS_GETTER(get_boot_id)
{
	const struct ter_bus *bus = userdata;

	return sd_bus_message_append(reply, "s", bus->boot_id);
}

static TER_BUS_GETTER(get_features)
{
	int r;

	r = sd_bus_message_open_container(reply, 'a', "s");
	for (size_t i = 0; i < ARRAY_SIZE(features) && r >= 0; i++)
		r = sd_bus_message_append(reply, "s", features[i]);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int append_codecs(sd_bus_message *m, const struct ter_codecs *codecs, enum terrace_kind kind)
{
	int r;

	r = sd_bus_message_open_container(m, 'a', "s");
	for (unsigned i = 0; i < codecs->nr && r >= 0; i++)
		if (codecs->algo[i]->kind == kind)
			r = sd_bus_message_append(m, "s", codecs->algo[i]->name);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static TER_BUS_GETTER(get_compression)
{
	const struct ter_bus *bus = userdata;

	return append_codecs(reply, bus->host.codecs, TERRACE_COMPRESSION);
}

static TER_BUS_GETTER(get_checksums)
{
	const struct ter_bus *bus = userdata;

	return append_codecs(reply, bus->host.codecs, TERRACE_CHECKSUM);
}

static TER_BUS_GETTER(get_default_options)
{
	struct ter_options defaults;
	int r;

	ter_options_default(&defaults);
	r = sd_bus_message_open_container(reply, 'a', "{sv}");
	for (const struct ter_option_info *info = ter_option_table; info->name && r >= 0; info++) {
		r = sd_bus_message_open_container(reply, 'e', "sv");
		if (r >= 0)
			r = sd_bus_message_append(reply, "s", info->name);
		if (r >= 0)
			r = ter_bus_append_option(reply, &defaults, info);
		if (r >= 0)
			r = sd_bus_message_close_container(reply);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static TER_BUS_GETTER(get_privileged)
{
	const struct ter_bus *bus = userdata;

	return sd_bus_message_append(reply, "b", bus->host.system);
}

static TER_BUS_GETTER(get_fault_injection)
{
	const struct ter_bus *bus = userdata;

	return sd_bus_message_append(reply, "b", bus->host.debug);
}

static TER_BUS_GETTER(get_retention)
{
	return sd_bus_message_append(reply, "t", (uint64_t)TER_BUS_RETENTION_US);
}

/* Of all filesystems, as one list: whoever watches the machine watches one property. */
static TER_BUS_GETTER(get_alerts)
{
	const struct ter_bus *bus = userdata;
	struct ter_bus_object *object;
	char text[TER_ERROR_TEXT_MAX];
	unsigned nr = 0;
	int r;

	r = sd_bus_message_open_container(reply, 'a', "(sssost)");
	ter_list_for_each(object, &bus->objects, link) {
		const struct ter_bus_alerts *alerts = &object->view->fs.alerts;

		for (unsigned i = 0; object->kind == TER_BUS_FS && i < alerts->nr && nr < ALERTS_MAX && r >= 0; i++, nr++) {
			const struct ter_bus_alert *alert = &alerts->alert[i];

			ter_bus_utf8(alert->message, text, sizeof(text));
			r = sd_bus_message_append(reply, "(sssost)", alert->id, alert->severity, text, object->path, object->view->fs.label, alert->since_us);
		}
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* --- CreateFilesystem --- */

struct create {
	struct ter_format_dev dev[TER_DEVS_MAX];
	unsigned nr;
	struct ter_options options;
	const char *label;
};

static int read_device_option(sd_bus_message *m, struct ter_format_dev *dev, sd_bus_error *error)
{
	struct ter_options checked;
	struct ter_error why = { 0 };
	char text[TER_OPT_ALGO_MAX];
	const char *key, *contents;
	int r;

	r = sd_bus_message_read_basic(m, 's', &key);
	if (r < 0)
		return r;
	if (strcmp(key, "label") == 0) {
		r = sd_bus_message_peek_type(m, NULL, &contents);
		if (r >= 0 && strcmp(contents, "s") != 0)
			return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "The device option 'label' takes a string (s), not the type '%s'.", contents);
		return r < 0 ? r : sd_bus_message_read(m, "v", "s", &dev->label);
	}
	r = ter_bus_read_value(m, text, sizeof(text), error, key);
	if (r < 0)
		return r;
	ter_options_default(&checked);
	if (strcmp(key, "bytes") == 0) {
		char *end;

		errno = 0;
		dev->bytes = strtoull(text, &end, 10);
		if (errno || end == text || *end)
			return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "The device option 'bytes' takes a number of bytes, not '%s'.", text);
		return 0;
	}
	if (strcmp(key, "durability") != 0 && strcmp(key, "discard") != 0)
		return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "There is no device option '%s'. There are: label, bytes, durability, discard.", key);
	r = ter_option_set_text(&checked, key, text, TER_OPT_FORMAT, NULL, &why);
	if (r < 0)
		return ter_bus_set_error(error, &why);
	if (strcmp(key, "durability") == 0)
		dev->durability = checked.durability;
	else
		dev->discard = checked.discard;
	return 0;
}

static int read_device(sd_bus_message *m, struct create *create, sd_bus_error *error)
{
	struct ter_format_dev *dev = &create->dev[create->nr];
	int r;

	if (create->nr == TER_DEVS_MAX)
		return ter_bus_fail(error, TER_ERR_LIMIT_EXCEEDED, "A filesystem has at most %u members.", TER_DEVS_MAX);
	*dev = (struct ter_format_dev){ .durability = -1, .discard = -1 };
	r = sd_bus_message_read_basic(m, 's', &dev->path);
	if (r < 0)
		return r;
	if (dev->path[0] != '/')
		return ter_bus_fail(error, TER_ERR_INVALID_ARGUMENT, "'%s' is not an absolute path.", dev->path);
	for (unsigned i = 0; i < create->nr; i++)
		if (strcmp(create->dev[i].path, dev->path) == 0)
			return ter_bus_fail(error, TER_ERR_INVALID_ARGUMENT, "'%s' is named twice. Name each device once.", dev->path);
	r = sd_bus_message_enter_container(m, 'a', "{sv}");
	if (r < 0)
		return r;
	while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		r = read_device_option(m, dev, error);
		if (r < 0)
			return r;
		r = sd_bus_message_exit_container(m);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	create->nr++;
	return sd_bus_message_exit_container(m);
}

static int read_devices(sd_bus_message *m, struct create *create, sd_bus_error *error)
{
	int r;

	r = sd_bus_message_enter_container(m, 'a', "(sa{sv})");
	if (r < 0)
		return r;
	while ((r = sd_bus_message_enter_container(m, 'r', "sa{sv}")) > 0) {
		r = read_device(m, create, error);
		if (r < 0)
			return r;
		r = sd_bus_message_exit_container(m);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int read_fs_options(sd_bus_message *m, struct create *create, const struct ter_codecs *codecs, sd_bus_error *error)
{
	struct ter_error why = { 0 };
	char text[TER_OPT_ALGO_MAX];
	const char *key;
	int r;

	ter_options_default(&create->options);
	r = sd_bus_message_enter_container(m, 'a', "{sv}");
	if (r < 0)
		return r;
	while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		r = sd_bus_message_read_basic(m, 's', &key);
		if (r < 0)
			return r;
		r = ter_bus_read_value(m, text, sizeof(text), error, key);
		if (r < 0)
			return r;
		r = ter_option_set_text(&create->options, key, text, TER_OPT_FORMAT, codecs, &why);
		if (r < 0)
			return ter_bus_set_error(error, &why);
		r = sd_bus_message_exit_container(m);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* What can be known without looking at the devices. */
static int check_create(const struct create *create, sd_bus_error *error)
{
	const unsigned replicas = ter_max(create->options.data_replicas, create->options.metadata_replicas);
	struct ter_error why = { 0 };

	if (!create->nr)
		return ter_bus_fail(error, TER_ERR_INSUFFICIENT_DEVICES, "Name at least one device or file to format.");
	if (!ter_label_valid(create->label, &why) || ter_options_check(&create->options, &why) < 0)
		return ter_bus_set_error(error, &why);
	for (unsigned i = 0; i < create->nr; i++)
		if (create->dev[i].label && !ter_label_valid(create->dev[i].label, &why))
			return ter_bus_set_error(error, &why);
	if (replicas > create->nr)
		return ter_bus_fail(error, TER_ERR_INSUFFICIENT_DEVICES, "%u copies need %u members; only %u were named.", replicas, replicas, create->nr);
	return 0;
}

static int method_create(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus *bus = userdata;
	struct create create = { 0 };
	bool force = false;
	const struct ter_bus_opt opts[] = { { "force", 'b', &force }, { 0 } };
	struct ter_error why = { 0 };
	struct ter_bus_std std;
	struct ter_bus_who who;
	uint64_t job = 0;
	int r;

	r = read_devices(m, &create, error);
	if (r >= 0)
		r = sd_bus_message_read(m, "s", &create.label);
	if (r >= 0)
		r = read_fs_options(m, &create, bus->host.codecs, error);
	if (r >= 0)
		r = ter_bus_read_opts(m, opts, &std, error);
	if (r >= 0)
		r = check_create(&create, error);
	if (r < 0)
		return r;
	r = ter_bus_check_access(bus, m, TER_BUS_MAY_CREATE, &std, &(struct ter_bus_about){ .fs_label = create.label, .device = create.dev[0].path }, &who, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	r = bus->host.create(bus->host.arg, &who,
			     &(struct ter_bus_create){ .devs = create.dev, .devs_nr = create.nr, .label = create.label, .options = &create.options,
						       .force = force, .dry_run = std.dry_run }, &job, &why);
	return r < 0 ? ter_bus_set_error(error, &why) : ter_bus_reply_job(m, job);
}

/* --- finding --- */

static int check_absolute(const char *path, sd_bus_error *error)
{
	return path[0] == '/' ? 0 : ter_bus_fail(error, TER_ERR_INVALID_ARGUMENT, "'%s' is not an absolute path.", path);
}

static int method_probe(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus *bus = userdata;
	struct ter_bus_call *call;
	struct ter_bus_std std;
	struct ter_bus_who who;
	const char *path;
	int r;

	r = sd_bus_message_read(m, "s", &path);
	if (r >= 0)
		r = ter_bus_read_opts(m, NULL, &std, error);
	if (r >= 0)
		r = check_absolute(path, error);
	if (r < 0)
		return r;
	r = ter_bus_check_access(bus, m, TER_BUS_MAY_INSPECT, &std, &(struct ter_bus_about){ .device = path }, &who, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	call = ter_bus_call_new(bus, m, error);
	if (!call)
		return -ENOMEM;
	bus->host.probe(bus->host.arg, path, call);
	return 1;
}

static int method_rescan(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus *bus = userdata;
	struct ter_bus_strv paths = { 0 };
	const struct ter_bus_opt opts[] = { { "paths", 'a', &paths }, { 0 } };
	struct ter_error why = { 0 };
	struct ter_bus_std std;
	struct ter_bus_who who;
	uint64_t job = 0;
	int r;

	r = ter_bus_read_opts(m, opts, &std, error);
	for (unsigned i = 0; i < paths.nr && r >= 0; i++)
		r = check_absolute(paths.s[i], error);
	if (r < 0)
		return r;
	r = ter_bus_check_access(bus, m, TER_BUS_MAY_MANAGE_DEVICES, &std, &(struct ter_bus_about){ .device = paths.nr ? paths.s[0] : NULL }, &who, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	if (!std.dry_run) {
		r = bus->host.rescan(bus->host.arg, &who, paths.s, paths.nr, &job, &why);
		if (r < 0)
			return ter_bus_set_error(error, &why);
	}
	return ter_bus_reply_job(m, job);
}

static int resolve(sd_bus_message *m, struct ter_bus *bus, void (*fn)(void *arg, const char *spec, struct ter_bus_call *call), sd_bus_error *error)
{
	struct ter_bus_call *call;
	struct ter_bus_std std;
	const char *spec;
	int r;

	r = sd_bus_message_read(m, "s", &spec);
	if (r >= 0)
		r = ter_bus_read_opts(m, NULL, &std, error);
	if (r < 0)
		return r;
	if (!spec[0])
		return ter_bus_fail(error, TER_ERR_INVALID_ARGUMENT, "Name a label, a UUID or a path.");
	call = ter_bus_call_new(bus, m, error);
	if (!call)
		return -ENOMEM;
	fn(bus->host.arg, spec, call);
	return 1;
}

static int method_resolve_fs(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus *bus = userdata;

	return resolve(m, bus, bus->host.resolve_fs, error);
}

static int method_resolve_device(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus *bus = userdata;

	return resolve(m, bus, bus->host.resolve_device, error);
}

/* --- lists --- */

static int append_plugins(sd_bus_message *m, struct ter_bus *bus)
{
	struct ter_bus_object *object;
	int r;

	r = sd_bus_message_open_container(m, 'a', "o");
	ter_list_for_each(object, &bus->objects, link)
		if (object->kind == TER_BUS_PLUGIN && r >= 0)
			r = sd_bus_message_append(m, "o", object->path);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static int method_list_plugins(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	sd_bus_message *reply = NULL;
	struct ter_bus_std std;
	int r;

	r = ter_bus_read_opts(m, NULL, &std, error);
	if (r >= 0)
		r = sd_bus_message_new_method_return(m, &reply);
	if (r >= 0)
		r = append_plugins(reply, userdata);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	sd_bus_message_unref(reply);
	return r;
}

static int method_list_error_names(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	sd_bus_message *reply = NULL;
	int r;

	r = sd_bus_message_new_method_return(m, &reply);
	if (r >= 0)
		r = ter_bus_append_error_names(reply);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	sd_bus_message_unref(reply);
	return r;
}

static int method_ping(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	return sd_bus_reply_method_return(m, NULL);
}

const sd_bus_vtable ter_bus_manager_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("Version", "s", get_version, 0, P_CONST),
	SD_BUS_PROPERTY("Features", "as", get_features, 0, P_CONST),
	SD_BUS_PROPERTY("EngineVersion", "s", get_format_version, 0, P_CONST),
	SD_BUS_PROPERTY("BootId", "s", get_boot_id, 0, P_CONST),
	SD_BUS_PROPERTY("SupportedCompression", "as", get_compression, 0, P_EMITS),
	SD_BUS_PROPERTY("SupportedChecksums", "as", get_checksums, 0, P_EMITS),
	SD_BUS_PROPERTY("DefaultOptions", "a{sv}", get_default_options, 0, P_EMITS),
	SD_BUS_PROPERTY("PrivilegedOnly", "b", get_privileged, 0, P_CONST),
	SD_BUS_PROPERTY("FaultInjection", "b", get_fault_injection, 0, P_CONST),
	SD_BUS_PROPERTY("JobRetention", "t", get_retention, 0, P_EMITS),
	SD_BUS_PROPERTY("Alerts", "a(sssost)", get_alerts, 0, P_EMITS),
	SD_BUS_PROPERTY("OptionSchema", "a{sa{sv}}", ter_bus_option_schema, 0, P_CONST | SD_BUS_VTABLE_PROPERTY_EXPLICIT),
	SD_BUS_METHOD_WITH_ARGS("CreateFilesystem", SD_BUS_ARGS("a(sa{sv})", devices, "s", label, "a{sv}", fs_options, "a{sv}", opts), SD_BUS_RESULT("o", job),
				method_create, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Probe", SD_BUS_ARGS("s", device, "a{sv}", opts), SD_BUS_RESULT("a{sv}", found), method_probe, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Rescan", SD_BUS_ARGS("a{sv}", opts), SD_BUS_RESULT("o", job), method_rescan, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("ResolveFilesystem", SD_BUS_ARGS("s", spec, "a{sv}", opts), SD_BUS_RESULT("o", filesystem), method_resolve_fs,
				SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("ResolveDevice", SD_BUS_ARGS("s", spec, "a{sv}", opts), SD_BUS_RESULT("o", device), method_resolve_device,
				SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("ListPlugins", SD_BUS_ARGS("a{sv}", opts), SD_BUS_RESULT("ao", plugins), method_list_plugins, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("ListErrorNames", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(ss)", names), method_list_error_names, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Ping", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_ping, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};
