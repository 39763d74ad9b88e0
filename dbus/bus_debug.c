/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * org.terracefs.Terrace1.Debug: failures on purpose, for tests
 *
 * Only in builds that have it, of daemons that were run with --debug-interface. The fault points are the process's: a fault set here may meet any filesystem.
 */
#include "dbus/bus_priv.h"

#define PPM 1000000u
#define ERRNO_MAX 133 /* names end there */

static int append_fault(sd_bus_message *m, const struct ter_fault_point *point)
{
	const struct ter_fault_rule *rule = &point->rule;
	int r;

	r = sd_bus_message_open_container(m, 'e', "sa{sv}");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", point->name);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "{sv}");
	if (r >= 0)
		r = ter_bus_append_pair(m, "probability", "d", rule->probability_ppm ? (double)rule->probability_ppm / PPM : 1.0);
	if (r >= 0)
		r = ter_bus_append_pair(m, "interval", "u", (uint32_t)ter_max(rule->interval, (uint64_t)1));
	if (r >= 0)
		r = ter_bus_append_pair(m, "times", "u", (uint32_t)rule->times);
	if (r >= 0)
		r = ter_bus_append_pair(m, "errno", "s", strerrorname_np(rule->err ? rule->err : point->err));
	if (r >= 0)
		r = ter_bus_append_pair(m, "calls", "t", point->calls);
	if (r >= 0)
		r = ter_bus_append_pair(m, "fired", "t", point->fired);
	for (unsigned depth = 0; depth < 2 && r >= 0; depth++)
		r = sd_bus_message_close_container(m);
	return r;
}

struct appending {
	sd_bus_message *m;
	int r;
};

static void append_name(void *arg, const struct ter_fault_point *point)
{
	struct appending *a = arg;

	if (a->r >= 0)
		a->r = sd_bus_message_append(a->m, "s", point->name);
}

static void append_armed(void *arg, const struct ter_fault_point *point)
{
	struct appending *a = arg;

	if (a->r >= 0 && point->armed)
		a->r = append_fault(a->m, point);
}

static int append_each(sd_bus_message *m, const char *type, void (*fn)(void *arg, const struct ter_fault_point *point))
{
	struct appending a = { .m = m };

	a.r = sd_bus_message_open_container(m, 'a', type);
	ter_fault_each(fn, &a);
	return a.r < 0 ? a.r : sd_bus_message_close_container(m);
}

static TER_BUS_GETTER(get_points)
{
	return append_each(reply, "s", append_name);
}

static TER_BUS_GETTER(get_faults)
{
	return append_each(reply, "{sa{sv}}", append_armed);
}

static int parse_errno(const char *name, int *ret, sd_bus_error *error)
{
	for (int e = 1; e <= ERRNO_MAX; e++) {
		const char *known = strerrorname_np(e);

		if (known && strcmp(known, name) == 0) {
			*ret = e;
			return 0;
		}
	}
	return ter_bus_fail(error, TER_ERR_INVALID_OPTION, "There is no errno '%s'. It is a name like EIO.", name);
}

static int admit(struct ter_bus_object *fs, sd_bus_message *m, const struct ter_bus_std *std, struct ter_bus_who *who, sd_bus_error *error)
{
	const struct ter_bus_about about = { .fs_uuid = fs->view->fs.uuid, .fs_label = fs->view->fs.label };

	return ter_bus_check_access(fs->bus, m, TER_BUS_MAY_DEBUG, std, &about, who, error);
}

static int method_set_fault(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *fs = userdata;
	struct ter_fault_rule rule = { 0 };
	double probability = 1;
	uint32_t interval = 1, times = 0;
	const char *point, *err = NULL;
	const struct ter_bus_opt opts[] = {
		{ "probability", 'd', &probability }, { "interval", 'u', &interval }, { "times", 'u', &times }, { "errno", 's', &err }, { 0 },
	};
	struct ter_error why = { 0 };
	struct ter_bus_std std;
	struct ter_bus_who who;
	int r;

	r = sd_bus_message_read(m, "s", &point);
	if (r >= 0)
		r = ter_bus_read_opts(m, opts, &std, error);
	if (r >= 0 && !(probability > 0 && probability <= 1))
		r = ter_bus_fail(error, TER_ERR_INVALID_OPTION, "The option 'probability' is more than 0 and at most 1.");
	if (r >= 0 && err)
		r = parse_errno(err, &rule.err, error);
	if (r < 0)
		return r;
	rule.interval = interval;
	rule.times = times;
	rule.probability_ppm = ter_max((uint32_t)(probability * PPM), 1u);
	r = admit(fs, m, &std, &who, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	if (!std.dry_run) {
		r = fs->bus->host.set_fault(fs->bus->host.arg, &who, point, &rule, &why);
		if (r < 0)
			return ter_bus_set_error(error, &why);
	}
	return sd_bus_reply_method_return(m, NULL);
}

static int method_clear_faults(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	const struct ter_bus_std std = { .reason = "" };
	struct ter_bus_object *fs = userdata;
	struct ter_bus_who who;
	int r;

	r = admit(fs, m, &std, &who, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	fs->bus->host.clear_faults(fs->bus->host.arg, &who);
	return sd_bus_reply_method_return(m, NULL);
}

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("FaultPoints", "as", get_points, 0, P_CONST),
	SD_BUS_PROPERTY("Faults", "a{sa{sv}}", get_faults, 0, 0),
	SD_BUS_METHOD_WITH_ARGS("SetFault", SD_BUS_ARGS("s", point, "a{sv}", rule), SD_BUS_NO_RESULT, method_set_fault, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("ClearFaults", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_clear_faults, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

const struct ter_bus_iface ter_bus_debug_iface = { TER_BUS_PREFIX "Debug", vtable, NULL, 0 };
