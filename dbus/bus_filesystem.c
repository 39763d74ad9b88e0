/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.terracefs.Terrace1.Filesystem: one filesystem, running or not. */
#include "dbus/bus_priv.h"

/* --- properties --- */

static int append_uuids_as_paths(sd_bus_message *m, const char (*uuid)[TER_UUID_TEXT_BYTES], unsigned nr)
{
	char path[TER_BUS_PATH_MAX];
	int r;

	r = sd_bus_message_open_container(m, 'a', "o");
	for (unsigned i = 0; i < nr && r >= 0; i++) {
		ter_bus_device_path(uuid[i], path);
		r = sd_bus_message_append(m, "o", path);
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static TER_BUS_GETTER(get_devices)
{
	const struct ter_bus_fs *fs = ter_container_of((__typeof__(((struct ter_bus_fs *)NULL)->devices) *)userdata, struct ter_bus_fs, devices);

	return append_uuids_as_paths(reply, fs->devices.uuid, fs->devices.nr);
}

static TER_BUS_GETTER(get_missing)
{
	const struct ter_bus_fs *fs = ter_container_of((__typeof__(((struct ter_bus_fs *)NULL)->missing) *)userdata, struct ter_bus_fs, missing);
	int r;

	r = sd_bus_message_open_container(reply, 'a', "s");
	for (unsigned i = 0; i < fs->missing.nr && r >= 0; i++)
		r = sd_bus_message_append(reply, "s", fs->missing.uuid[i]);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static TER_BUS_GETTER(get_plugins)
{
	const struct ter_bus_fs *fs = ter_container_of((__typeof__(((struct ter_bus_fs *)NULL)->plugins) *)userdata, struct ter_bus_fs, plugins);
	int r;

	r = sd_bus_message_open_container(reply, 'a', "(ssyb)");
	for (unsigned i = 0; i < fs->plugins.nr && r >= 0; i++) {
		const struct ter_bus_plugin_need *need = &fs->plugins.need[i];

		r = sd_bus_message_append(reply, "(ssyb)", need->kind, need->name, need->slot, (int)need->available);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static TER_BUS_GETTER(get_mount_points)
{
	const struct ter_bus_fs *fs = ter_container_of((__typeof__(((struct ter_bus_fs *)NULL)->mount) *)userdata, struct ter_bus_fs, mount);
	char where[PATH_MAX * 4];

	if (!fs->mount.mounted)
		return sd_bus_message_append(reply, "as", 0);
	ter_bus_utf8(fs->mount.where, where, sizeof(where));
	return sd_bus_message_append(reply, "as", 1, where);
}

static TER_BUS_GETTER(get_mounts)
{
	const struct ter_bus_fs *fs = ter_container_of((__typeof__(((struct ter_bus_fs *)NULL)->mount) *)userdata, struct ter_bus_fs, mount);
	char where[PATH_MAX * 4];

	if (!fs->mount.mounted)
		return sd_bus_message_append(reply, "a(sssb)", 0);
	ter_bus_utf8(fs->mount.where, where, sizeof(where));
	return sd_bus_message_append(reply, "a(sssb)", 1, where, "", fs->mount.options, (int)fs->mount.rw);
}

static TER_BUS_GETTER(get_passes)
{
	const struct ter_pass_row *rows = userdata;
	int r = sd_bus_message_open_container(reply, 'a', "(sst)");

	for (const struct ter_pass *p = ter_passes; p->name && r >= 0; p++)
		r = sd_bus_message_append(reply, "(sst)", p->name, ter_pass_state_names[rows[p->id].state], rows[p->id].us);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static TER_BUS_GETTER(get_alerts)
{
	const struct ter_bus_alerts *alerts = userdata;
	int r = sd_bus_message_open_container(reply, 'a', "(ssst)");

	for (unsigned i = 0; i < alerts->nr && r >= 0; i++) {
		const struct ter_bus_alert *alert = &alerts->alert[i];
		char text[TER_ERROR_TEXT_MAX];

		ter_bus_utf8(alert->message, text, sizeof(text));
		r = sd_bus_message_append(reply, "(ssst)", alert->id, alert->severity, text, alert->since_us);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* --- methods --- */

/* Every handler here: arguments, options, access; then one call of the host. */
struct request {
	struct ter_bus_object *fs;
	const struct ter_bus_host *host;
	const char *uuid;
	struct ter_bus_std std;
	struct ter_bus_who who;
};

/* Return: 1 go on; 0 return 1 from the handler (being asked, or a dry run that was answered); negative. @job: what a dry run answers. */
static int admit(struct request *rq, sd_bus_message *m, void *userdata, const struct ter_bus_opt *opts, enum ter_bus_action action, bool job,
		 sd_bus_error *error)
{
	struct ter_bus_about about;
	int r;

	rq->fs = userdata;
	rq->host = &rq->fs->bus->host;
	rq->uuid = rq->fs->view->fs.uuid;
	about = (struct ter_bus_about){ .fs_uuid = rq->uuid, .fs_label = rq->fs->view->fs.label };
	r = ter_bus_read_opts(m, opts, &rq->std, error);
	if (r < 0)
		return r;
	r = ter_bus_check_access(rq->fs->bus, m, action, &rq->std, &about, &rq->who, error);
	if (r <= 0)
		return r;
	if (!rq->std.dry_run)
		return 1;
	r = job ? ter_bus_reply_job(m, 0) : sd_bus_reply_method_return(m, NULL);
	return r < 0 ? r : 0;
}

static int parse_degraded(const char *word, int *ret, sd_bus_error *error)
{
	struct ter_options options;
	struct ter_error why = { 0 };

	if (!word)
		return 0;
	ter_options_default(&options);
	if (ter_option_set_text(&options, "degraded", word, TER_OPT_OPEN, NULL, &why) < 0)
		return ter_bus_set_error(error, &why);
	*ret = options.degraded;
	return 0;
}

static int method_start(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_start start = { .degraded = -1 };
	const char *degraded = NULL;
	const struct ter_bus_opt opts[] = {
		{ "degraded", 's', &degraded },
		{ "read-only", 'b', &start.read_only },
		{ "wait-missing", 'u', &start.wait_missing_s },
		{ "fsck", 'b', &start.check },
		{ "no-recovery", 'b', &start.no_recovery },
		{ 0 },
	};
	struct ter_error why = { 0 };
	uint64_t job = 0;
	struct request rq;
	int r;

	r = admit(&rq, m, userdata, opts, TER_BUS_MAY_START_STOP, true, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	r = parse_degraded(degraded, &start.degraded, error);
	if (r < 0)
		return r;
	r = rq.host->start(rq.host->arg, &rq.who, rq.uuid, &start, &job, &why);
	return r < 0 ? ter_bus_set_error(error, &why) : ter_bus_reply_job(m, job);
}

static int method_stop(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	bool force = false;
	const struct ter_bus_opt opts[] = { { "force", 'b', &force }, { 0 } };
	struct ter_error why = { 0 };
	uint64_t job = 0;
	struct request rq;
	int r;

	r = admit(&rq, m, userdata, opts, TER_BUS_MAY_START_STOP, true, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	r = rq.host->stop(rq.host->arg, &rq.who, rq.uuid, force, &job, &why);
	return r < 0 ? ter_bus_set_error(error, &why) : ter_bus_reply_job(m, job);
}

static int method_wait_ready(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *fs = userdata;
	struct ter_bus_call *call;
	struct ter_bus_std std;
	uint32_t timeout_s;
	int r;

	r = sd_bus_message_read(m, "u", &timeout_s);
	if (r >= 0)
		r = ter_bus_read_opts(m, NULL, &std, error);
	if (r < 0)
		return r;
	call = ter_bus_call_new(fs->bus, m, error);
	if (!call)
		return -ENOMEM;
	fs->bus->host.wait_ready(fs->bus->host.arg, fs->view->fs.uuid, timeout_s, call);
	return 1;
}

static int method_set_access_mode(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_error why = { 0 };
	uint64_t job = 0;
	struct request rq;
	const char *mode;
	int r;

	r = sd_bus_message_read(m, "s", &mode);
	if (r < 0)
		return r;
	if (strcmp(mode, "rw") != 0 && strcmp(mode, "ro") != 0)
		return ter_bus_fail(error, TER_ERR_INVALID_ARGUMENT, "The access mode is 'rw' or 'ro', not '%s'.", mode);
	r = admit(&rq, m, userdata, NULL, TER_BUS_MAY_SET_MODE, true, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	r = rq.host->set_access(rq.host->arg, &rq.who, rq.uuid, mode[1] == 'o', &job, &why);
	return r < 0 ? ter_bus_set_error(error, &why) : ter_bus_reply_job(m, job);
}

static int method_force_read_only(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_error why = { 0 };
	struct request rq;
	const char *reason;
	int r;

	r = sd_bus_message_read(m, "s", &reason);
	if (r < 0)
		return r;
	r = admit(&rq, m, userdata, NULL, TER_BUS_MAY_SET_MODE, false, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	r = rq.host->force_read_only(rq.host->arg, &rq.who, rq.uuid, reason, &why);
	return r < 0 ? ter_bus_set_error(error, &why) : sd_bus_reply_method_return(m, NULL);
}

static int method_sync(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *fs = userdata;
	struct ter_bus_call *call;
	struct ter_bus_std std;
	int r;

	r = ter_bus_read_opts(m, NULL, &std, error); /* as sync(2): everyone may */
	if (r < 0)
		return r;
	if (std.dry_run)
		return sd_bus_reply_method_return(m, NULL);
	call = ter_bus_call_new(fs->bus, m, error);
	if (!call)
		return -ENOMEM;
	fs->bus->host.sync(fs->bus->host.arg, fs->view->fs.uuid, call);
	return 1;
}

static int method_set_label(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_call *call;
	struct ter_error why = { 0 };
	struct request rq;
	const char *label;
	int r;

	r = sd_bus_message_read(m, "s", &label);
	if (r < 0)
		return r;
	if (!ter_label_valid(label, &why))
		return ter_bus_set_error(error, &why);
	r = admit(&rq, m, userdata, NULL, TER_BUS_MAY_SET_OPTIONS, false, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	call = ter_bus_call_new(rq.fs->bus, m, error);
	if (!call)
		return -ENOMEM;
	rq.host->set_label(rq.host->arg, rq.uuid, label, call);
	return 1;
}

static int check_where(const char *where, sd_bus_error *error)
{
	if (where[0] != '/')
		return ter_bus_fail(error, TER_ERR_INVALID_ARGUMENT, "The mount point '%s' is not an absolute path.", where);
	if (strlen(where) >= PATH_MAX)
		return ter_bus_fail(error, TER_ERR_INVALID_ARGUMENT, "The path of the mount point is too long.");
	return 0;
}

static int method_mount(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_strv options = { 0 };
	const struct ter_bus_opt opts[] = { { "options", 'a', &options }, { 0 } };
	struct ter_bus_call *call;
	struct request rq;
	const char *where;
	int r;

	r = sd_bus_message_read(m, "s", &where);
	if (r >= 0 && where[0])
		r = check_where(where, error);
	if (r < 0)
		return r;
	r = admit(&rq, m, userdata, opts, TER_BUS_MAY_MOUNT, false, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	call = ter_bus_call_new(rq.fs->bus, m, error);
	if (!call)
		return -ENOMEM;
	rq.host->mount(rq.host->arg, &rq.who, rq.uuid, &(struct ter_bus_mount){ .where = where, .options = options.s, .options_nr = options.nr }, call);
	return 1;
}

static int method_unmount(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *fs = userdata;
	bool lazy = false;
	const struct ter_bus_opt opts[] = { { "lazy", 'b', &lazy }, { 0 } };
	struct ter_bus_call *call;
	struct request rq;
	const char *where;
	int r;

	r = sd_bus_message_read(m, "s", &where);
	if (r >= 0)
		r = check_where(where, error);
	if (r < 0)
		return r;
	r = admit(&rq, m, userdata, opts, ter_bus_sender_uid(m) == fs->view->fs.mounted_by ? TER_BUS_MAY_MOUNT : TER_BUS_MAY_UNMOUNT_OTHERS, false, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	call = ter_bus_call_new(fs->bus, m, error);
	if (!call)
		return -ENOMEM;
	rq.host->unmount(rq.host->arg, rq.uuid, where, lazy, call);
	return 1;
}

static int method_attach(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_attach attach = { .transport = "auto" };
	const struct ter_bus_opt opts[] = {
		{ "read-only", 'b', &attach.read_only }, { "writeback-cache", 'b', &attach.writeback_cache }, { "transport", 's', &attach.transport }, { 0 },
	};
	struct ter_bus_call *call;
	struct request rq;
	int r;

	r = sd_bus_message_read(m, "hs", &attach.fuse_fd, &attach.where);
	if (r >= 0)
		r = check_where(attach.where, error);
	if (r < 0)
		return r;
	r = admit(&rq, m, userdata, opts, TER_BUS_MAY_ROOT, false, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	call = ter_bus_call_new(rq.fs->bus, m, error);
	if (!call)
		return -ENOMEM;
	rq.host->attach(rq.host->arg, &rq.who, rq.uuid, &attach, call);
	return 1;
}

static int method_detach(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *fs = userdata;
	const struct ter_bus_std std = { .reason = "" };
	struct ter_bus_call *call;
	struct ter_bus_who who;
	const char *where;
	int r;

	r = sd_bus_message_read(m, "s", &where);
	if (r < 0)
		return r;
	r = ter_bus_check_access(fs->bus, m, TER_BUS_MAY_ROOT, &std, NULL, &who, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	call = ter_bus_call_new(fs->bus, m, error);
	if (!call)
		return -ENOMEM;
	fs->bus->host.detach(fs->bus->host.arg, fs->view->fs.uuid, where, call);
	return 1;
}

static int method_read_superblock(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_call *call;
	struct request rq;
	int r;

	r = admit(&rq, m, userdata, NULL, TER_BUS_MAY_INSPECT, false, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	call = ter_bus_call_new(rq.fs->bus, m, error);
	if (!call)
		return -ENOMEM;
	rq.host->read_superblock(rq.host->arg, rq.uuid, call);
	return 1;
}

/* MountPoints and Mounts are two looks at one field. */
#define FIELD(field) TER_BUS_VIEW(offsetof(struct ter_bus_fs, field))
#define FS_PROPS(x)                                                                                                    \
	x("UUID", "s", ter_bus_get_str, uuid, P_CONST)                                                                 \
	x("Label", "s", ter_bus_get_path, label, P_EMITS)                                                              \
	x("State", "s", ter_bus_get_str, state, P_EMITS)                                                               \
	x("StateMessage", "s", ter_bus_get_path, state_message, P_EMITS)                                               \
	x("AccessMode", "s", ter_bus_get_str, access, P_EMITS)                                                         \
	x("AccessReason", "s", ter_bus_get_path, access_reason, P_EMITS)                                               \
	x("RequestedMode", "s", ter_bus_get_str, requested_mode, P_EMITS)                                              \
	x("Degraded", "b", ter_bus_get_bool, degraded, P_EMITS)                                                        \
	x("Clean", "b", ter_bus_get_bool, clean, P_EMITS)                                                              \
	x("Health", "s", ter_bus_get_str, health, P_EMITS)                                                             \
	x("FormatVersion", "s", ter_bus_get_str, format_version, P_CONST)                                              \
	x("CompatibleVersion", "s", ter_bus_get_str, compatible_version, P_EMITS)                                      \
	x("Created", "t", ter_bus_get_u64, created_us, P_CONST)                                                        \
	x("LastOpened", "t", ter_bus_get_u64, last_opened_us, P_EMITS)                                                 \
	x("OpenedBy", "u", ter_bus_get_u32, opened_by, P_EMITS)                                                        \
	x("Devices", "ao", get_devices, devices, P_EMITS)                                                              \
	x("NumDevicesExpected", "u", ter_bus_get_u32, devices_expected, P_EMITS)                                       \
	x("MissingDevices", "as", get_missing, missing, P_EMITS)                                                       \
	x("RequiredPlugins", "a(ssyb)", get_plugins, plugins, P_EMITS)                                                 \
	x("MountPoints", "as", get_mount_points, mount, P_EMITS)                                                       \
	x("Mounts", "a(sssb)", get_mounts, mount, P_EMITS)                                                             \
	x("RecoveryPhase", "s", ter_bus_get_path, recovery_phase, P_EMITS)                                             \
	x("RecoveryPasses", "a(sst)", get_passes, passes, P_EMITS)                                                     \
	x("ErrorCount", "t", ter_bus_get_u64, error_count, P_EMITS)                                                    \
	x("LastError", "s", ter_bus_get_path, last_error, P_EMITS)                                                     \
	x("Dropped", "t", ter_bus_get_u64, dropped, P_EMITS)                                                           \
	x("Alerts", "a(ssst)", get_alerts, alerts, P_EMITS)

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
#define x(name, sig, get, field, flags) SD_BUS_PROPERTY(name, sig, get, FIELD(field), flags),
	FS_PROPS(x)
#undef x
	SD_BUS_METHOD_WITH_ARGS("Start", SD_BUS_ARGS("a{sv}", opts), SD_BUS_RESULT("o", job), method_start, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Stop", SD_BUS_ARGS("a{sv}", opts), SD_BUS_RESULT("o", job), method_stop, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("WaitReady", SD_BUS_ARGS("u", timeout_s, "a{sv}", opts), SD_BUS_NO_RESULT, method_wait_ready, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("SetAccessMode", SD_BUS_ARGS("s", mode, "a{sv}", opts), SD_BUS_RESULT("o", job), method_set_access_mode,
				SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("ForceReadOnly", SD_BUS_ARGS("s", reason, "a{sv}", opts), SD_BUS_NO_RESULT, method_force_read_only,
				SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Sync", SD_BUS_ARGS("a{sv}", opts), SD_BUS_NO_RESULT, method_sync, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("SetLabel", SD_BUS_ARGS("s", label, "a{sv}", opts), SD_BUS_NO_RESULT, method_set_label, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Mount", SD_BUS_ARGS("s", where, "a{sv}", opts), SD_BUS_RESULT("s", mounted_at), method_mount, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Unmount", SD_BUS_ARGS("s", where, "a{sv}", opts), SD_BUS_NO_RESULT, method_unmount, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("AttachFuse", SD_BUS_ARGS("h", fuse_fd, "s", where, "a{sv}", opts), SD_BUS_NO_RESULT, method_attach,
				SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("DetachFuse", SD_BUS_ARGS("s", where), SD_BUS_NO_RESULT, method_detach, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("ReadSuperblock", SD_BUS_ARGS("a{sv}", opts), SD_BUS_RESULT("ay", superblock), method_read_superblock,
				SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_SIGNAL_WITH_ARGS("ErrorDetected", SD_BUS_ARGS("s", class, "s", object, "t", inode, "s", message), 0),
	SD_BUS_VTABLE_END,
};

static const struct ter_bus_prop props[] = {
#define x(name, sig, get, field, flags) { name, offsetof(struct ter_bus_fs, field), sizeof(((struct ter_bus_fs *)NULL)->field), flags },
	FS_PROPS(x)
#undef x
	{ 0 },
};

const struct ter_bus_iface ter_bus_fs_iface = { TER_BUS_PREFIX "Filesystem", vtable, props, 0 };
