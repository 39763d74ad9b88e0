/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Objects on the bus: added, changed, removed as the host publishes views. */
#include "dbus/bus.h"

#include <stdio.h>
#include <systemd/sd-id128.h>

#include "dbus/bus_priv.h"
#include "util/mem.h"

static const struct ter_bus_iface *const fs_ifaces[] = {
	&ter_bus_fs_iface, &ter_bus_fs_usage_iface, &ter_bus_options_iface, &ter_bus_maintenance_iface, NULL,
};
#ifdef TERRACE_DEBUG_INTERFACE
static const struct ter_bus_iface *const fs_debug_ifaces[] = {
	&ter_bus_fs_iface, &ter_bus_fs_usage_iface, &ter_bus_options_iface, &ter_bus_maintenance_iface, &ter_bus_debug_iface, NULL,
};
#endif
static const struct ter_bus_iface *const device_ifaces[] = { &ter_bus_device_iface, &ter_bus_device_usage_iface, NULL };
static const struct ter_bus_iface *const plugin_ifaces[] = { &ter_bus_plugin_iface, NULL };
static const struct ter_bus_iface *const job_ifaces[] = { &ter_bus_job_iface, NULL };

static const struct ter_bus_kind_info {
	const struct ter_bus_iface *const *ifaces;
	size_t view_bytes;
} kinds[] = {
	[TER_BUS_FS] = { fs_ifaces, sizeof(struct ter_bus_fs) },
	[TER_BUS_DEVICE] = { device_ifaces, sizeof(struct ter_bus_device) },
	[TER_BUS_PLUGIN] = { plugin_ifaces, sizeof(struct ter_bus_plugin) },
	[TER_BUS_JOB] = { job_ifaces, sizeof(struct ter_bus_job) },
};

struct ter_bus_object *ter_bus_find(struct ter_bus *bus, const char *path)
{
	struct ter_bus_object *object;

	ter_list_for_each(object, &bus->objects, link)
		if (strcmp(object->path, path) == 0)
			return object;
	return NULL;
}

static void object_free(struct ter_bus_object *object)
{
	ter_list_del(&object->link);
	for (unsigned i = 0; i < TER_BUS_SLOTS_MAX; i++)
		sd_bus_slot_unref(object->slot[i]);
	free(object);
}

static int object_add(struct ter_bus *bus, enum ter_bus_kind kind, const char *path, const void *view)
{
	struct ter_bus_object *object = ter_zalloc(sizeof(*object) + kinds[kind].view_bytes);
	int r = 0;

	if (!object)
		return -ENOMEM;
	object->bus = bus;
	object->kind = kind;
	object->ifaces = kinds[kind].ifaces;
#ifdef TERRACE_DEBUG_INTERFACE
	if (kind == TER_BUS_FS && bus->host.debug)
		object->ifaces = fs_debug_ifaces;
#endif
	object->view_bytes = kinds[kind].view_bytes;
	snprintf(object->path, sizeof(object->path), "%s", path);
	memcpy(object->view, view, object->view_bytes);
	ter_list_add_tail(&bus->objects, &object->link);
	for (unsigned i = 0; object->ifaces[i] && r >= 0; i++)
		r = sd_bus_add_object_vtable(bus->sd, &object->slot[i], path, object->ifaces[i]->name, object->ifaces[i]->vtable, object);
	if (r >= 0)
		r = sd_bus_emit_object_added(bus->sd, path);
	/* Before the connection stands nobody listens. */
	if (r < 0 && r != -ENOTCONN) {
		object_free(object);
		return r;
	}
	return 0;
}

/* One signal an interface, with what differs and nothing else. */
static int emit_changes(struct ter_bus_object *object, const struct ter_bus_iface *iface, const void *old_view, const void *new_view)
{
	char *names[TER_BUS_PROPS_MAX + 1];
	unsigned nr = 0;

	for (const struct ter_bus_prop *p = iface->props; p && p->name; p++) {
		const size_t at = iface->view_offset + p->offset;

		if (!(p->flags & (P_EMITS | SD_BUS_VTABLE_PROPERTY_EMITS_INVALIDATION)) || !p->bytes)
			continue;
		if (memcmp((const char *)old_view + at, (const char *)new_view + at, p->bytes) != 0) {
			assert(nr < TER_BUS_PROPS_MAX);
			names[nr++] = (char *)p->name;
		}
	}
	names[nr] = NULL;
	return nr ? sd_bus_emit_properties_changed_strv(object->bus->sd, object->path, iface->name, names) : 0;
}

static int publish(struct ter_bus *bus, enum ter_bus_kind kind, const char *path, const void *view)
{
	struct ter_bus_object *object = ter_bus_find(bus, path);
	_cleanup_free_ void *old = NULL;
	int r = 0;

	if (!object)
		return object_add(bus, kind, path, view);
	if (memcmp(object->view, view, object->view_bytes) == 0)
		return 0;
	old = ter_memdup(object->view, object->view_bytes);
	if (!old)
		return -ENOMEM;
	memcpy(object->view, view, object->view_bytes);
	for (unsigned i = 0; object->ifaces[i] && r >= 0; i++)
		r = emit_changes(object, object->ifaces[i], old, object->view);
	return r;
}

static void remove_object(struct ter_bus *bus, const char *path)
{
	struct ter_bus_object *object = ter_bus_find(bus, path);

	if (!object)
		return;
	/* While the vtables still stand: the signal lists their interfaces. Without a connection nobody listens. */
	(void)sd_bus_emit_object_removed(bus->sd, path);
	object_free(object);
}

/* Whoever is not connected reads them later. */
static void tell_alerts(struct ter_bus *bus)
{
	(void)sd_bus_emit_properties_changed(bus->sd, TER_BUS_ROOT "/Manager", TER_BUS_PREFIX "Manager", "Alerts", NULL);
}

int ter_bus_publish_fs(struct ter_bus *bus, const struct ter_bus_fs *view)
{
	char path[TER_BUS_PATH_MAX];
	const struct ter_bus_object *object;
	bool news;
	int r;

	ter_bus_fs_path(view->uuid, path);
	object = ter_bus_find(bus, path);
	news = !object ? view->alerts.nr > 0 : memcmp(&object->view->fs.alerts, &view->alerts, sizeof(view->alerts)) != 0 ||
	       (view->alerts.nr && strcmp(object->view->fs.label, view->label) != 0);
	r = publish(bus, TER_BUS_FS, path, view);
	if (r >= 0 && news)
		tell_alerts(bus);
	return r;
}

int ter_bus_publish_device(struct ter_bus *bus, const struct ter_bus_device *view)
{
	char path[TER_BUS_PATH_MAX];

	ter_bus_device_path(view->uuid, path);
	return publish(bus, TER_BUS_DEVICE, path, view);
}

void ter_bus_remove_fs(struct ter_bus *bus, const char *uuid)
{
	char path[TER_BUS_PATH_MAX];

	const struct ter_bus_object *object;
	bool news;

	ter_bus_fs_path(uuid, path);
	object = ter_bus_find(bus, path);
	news = object && object->view->fs.alerts.nr;
	remove_object(bus, path);
	if (news)
		tell_alerts(bus);
}

void ter_bus_remove_device(struct ter_bus *bus, const char *uuid)
{
	char path[TER_BUS_PATH_MAX];

	ter_bus_device_path(uuid, path);
	remove_object(bus, path);
}

/* <kind>_<name> in the characters that a path may have; a number behind it where that would not be unique. */
int ter_bus_publish_plugin(struct ter_bus *bus, unsigned idx, const struct ter_bus_plugin *view)
{
	char path[TER_BUS_PATH_MAX], base[TER_BUS_PATH_MAX - 16];
	struct ter_bus_object *object;
	int n = snprintf(base, sizeof(base), TER_BUS_ROOT "/plugins/%s_%s", view->kind, view->name[0] ? view->name : "file");

	for (int i = (int)strlen(TER_BUS_ROOT "/plugins/"); i < n && base[i]; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", base[i]))
			base[i] = '_';
	snprintf(path, sizeof(path), "%s", base);
	object = ter_bus_find(bus, path);
	if (object && (strcmp(object->view->plugin.uuid, view->uuid) != 0 || strcmp(object->view->plugin.file, view->file) != 0))
		snprintf(path, sizeof(path), "%s_%u", base, idx);
	return publish(bus, TER_BUS_PLUGIN, path, view);
}

static bool job_over(const struct ter_bus_job *job)
{
	return job->state >= TER_BUS_JOB_SUCCEEDED;
}

int ter_bus_publish_job(struct ter_bus *bus, const struct ter_bus_job *view)
{
	char path[TER_BUS_PATH_MAX];
	struct ter_bus_object *object;
	bool was_over;
	int r;

	ter_bus_job_path(view->id, path);
	object = ter_bus_find(bus, path);
	was_over = object && job_over(&object->view->job);
	r = publish(bus, TER_BUS_JOB, path, view);
	if (r >= 0 && job_over(view) && !was_over)
		r = sd_bus_emit_signal(bus->sd, path, ter_bus_job_iface.name, "Completed", "bs", view->state == TER_BUS_JOB_SUCCEEDED, view->error_message);
	return r;
}

void ter_bus_remove_job(struct ter_bus *bus, uint64_t id)
{
	char path[TER_BUS_PATH_MAX];

	ter_bus_job_path(id, path);
	remove_object(bus, path);
}

void ter_bus_error_detected(struct ter_bus *bus, const char *fs, const char *class, const char *device, uint64_t inum, const char *message)
{
	char path[TER_BUS_PATH_MAX], object[TER_BUS_PATH_MAX], text[TER_ERROR_TEXT_MAX];

	ter_bus_fs_path(fs, path);
	ter_bus_utf8(message, text, sizeof(text));
	snprintf(object, sizeof(object), "%s", path);
	if (device[0])
		ter_bus_device_path(device, object);
	/* Whoever is not connected reads LastError later. */
	(void)sd_bus_emit_signal(bus->sd, path, ter_bus_fs_iface.name, "ErrorDetected", "ssts", class, object, inum, text);
}

sd_bus *ter_bus_sd(struct ter_bus *bus)
{
	return bus->sd;
}

int ter_bus_new(sd_bus *sd_bus, const struct ter_bus_host *host, struct ter_bus **ret_bus)
{
	struct ter_bus *bus = ter_new(struct ter_bus);
	sd_id128_t boot;
	int r;

	if (!bus)
		return -ENOMEM;
	bus->sd = sd_bus_ref(sd_bus);
	bus->host = *host;
	ter_list_init(&bus->objects);
	ter_list_init(&bus->calls);
	ter_list_init(&bus->queries);
	if (sd_id128_get_boot(&boot) >= 0)
		sd_id128_to_string(boot, bus->boot_id);
	r = sd_bus_add_object_manager(bus->sd, &bus->object_manager_slot, TER_BUS_ROOT);
	if (r >= 0)
		r = sd_bus_add_object_vtable(bus->sd, &bus->manager_slot, TER_BUS_ROOT "/Manager", TER_BUS_PREFIX "Manager", ter_bus_manager_vtable, bus);
	if (r < 0) {
		ter_bus_free(bus);
		return r;
	}
	*ret_bus = bus;
	return 0;
}

void ter_bus_free(struct ter_bus *bus)
{
	struct ter_error ending = { 0 };

	if (!bus)
		return;
	ter_fail(&ending, TER_ERR_CANCELLED, "The daemon is ending.");
	while (!ter_list_empty(&bus->calls))
		ter_bus_answer(ter_list_first(&bus->calls, struct ter_bus_call, link), &ending);
	ter_bus_free_queries(bus);
	while (!ter_list_empty(&bus->objects))
		object_free(ter_list_first(&bus->objects, struct ter_bus_object, link));
	sd_bus_slot_unref(bus->manager_slot);
	sd_bus_slot_unref(bus->object_manager_slot);
	sd_bus_unref(bus->sd);
	free(bus);
}
