/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.terracefs.Terrace1.Maintenance: checking and repairing; what was lost stands in bus_damage.c. */
#include "dbus/bus_priv.h"

static int method_fsck(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *fs = userdata;
	const char *fix = "no";
	const struct ter_bus_opt opts[] = { { "fix", 's', &fix }, { 0 } };
	const struct ter_bus_about about = { .fs_uuid = fs->view->fs.uuid, .fs_label = fs->view->fs.label };
	struct ter_error why = { 0 };
	struct ter_bus_std std;
	struct ter_bus_who who;
	uint64_t job = 0;
	int r;

	r = ter_bus_read_opts(m, opts, &std, error);
	if (r < 0)
		return r;
	if (strcmp(fix, "safe") == 0 || strcmp(fix, "ask") == 0)
		return ter_bus_fail(error, TER_ERR_REPAIR_UNSUPPORTED, "This version does not ask over the bus: fix is 'no' or 'yes'. Stopped, it can be asked for with: terraced --once fsck --ask.");
	if (strcmp(fix, "no") != 0 && strcmp(fix, "yes") != 0)
		return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "The option 'fix' is 'no' or 'yes', not '%s'.", fix);
	r = ter_bus_check_access(fs->bus, m, TER_BUS_MAY_MAINTENANCE, &std, &about, &who, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	if (!std.dry_run) {
		r = fs->bus->host.fsck(fs->bus->host.arg, &who, fs->view->fs.uuid, strcmp(fix, "yes") == 0, &job, &why);
		if (r < 0)
			return ter_bus_set_error(error, &why);
	}
	return ter_bus_reply_job(m, job);
}

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD_WITH_ARGS("Fsck", SD_BUS_ARGS("a{sv}", opts), SD_BUS_RESULT("o", job), method_fsck, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("ListDamaged", SD_BUS_ARGS("a{sv}", opts), SD_BUS_RESULT("a(tsas)", files, "s", cursor), ter_bus_method_list_damaged,
				SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("ClearDamage", SD_BUS_ARGS("h", file, "a{sv}", opts), SD_BUS_NO_RESULT, ter_bus_method_clear_damage,
				SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

const struct ter_bus_iface ter_bus_maintenance_iface = { TER_BUS_PREFIX "Maintenance", vtable, NULL, 0 };
