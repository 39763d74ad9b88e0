/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.terracefs.Terrace1.Plugin: an algorithm, or a file that could not be used and why. */
#include "dbus/bus_priv.h"

static TER_BUS_GETTER(get_levels)
{
	const struct ter_bus_plugin *p = ter_container_of((int32_t *)userdata, struct ter_bus_plugin, level_min);

	return sd_bus_message_append(reply, "(ii)", p->level_min, p->level_max);
}

static TER_BUS_GETTER(get_used_by)
{
	const struct ter_bus_plugin *p = ter_container_of((__typeof__(((struct ter_bus_plugin *)NULL)->used_by) *)userdata, struct ter_bus_plugin, used_by);
	char object[TER_BUS_PATH_MAX];
	int r;

	r = sd_bus_message_open_container(reply, 'a', "o");
	for (unsigned i = 0; i < p->used_by.nr && r >= 0; i++) {
		ter_bus_fs_path(p->used_by.fs[i], object);
		r = sd_bus_message_append(reply, "o", object);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

#define FIELD(field) TER_BUS_VIEW(offsetof(struct ter_bus_plugin, field))
#define PLUGIN_PROPS(x)                                                                                                \
	x("Kind", "s", ter_bus_get_str, kind, P_CONST)                                                                 \
	x("Name", "s", ter_bus_get_path, name, P_CONST)                                                                \
	x("Uuid", "s", ter_bus_get_str, uuid, P_CONST)                                                                 \
	x("Version", "s", ter_bus_get_path, version, P_EMITS)                                                          \
	x("State", "s", ter_bus_get_str, state, P_EMITS)                                                               \
	x("Error", "s", ter_bus_get_path, error, P_EMITS)                                                              \
	x("File", "s", ter_bus_get_path, file, P_EMITS)                                                                \
	x("Licence", "s", ter_bus_get_path, licence, P_CONST)                                                          \
	x("AbiMajor", "u", ter_bus_get_u32, abi_major, P_CONST)                                                        \
	x("Levels", "(ii)", get_levels, level_min, P_CONST)                                                            \
	x("SelfTest", "s", ter_bus_get_str, self_test, P_EMITS)                                                        \
	x("Implementation", "s", ter_bus_get_path, implementation, P_EMITS)                                            \
	x("UsedBy", "ao", get_used_by, used_by, P_EMITS)

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
#define x(name, sig, get, field, flags) SD_BUS_PROPERTY(name, sig, get, FIELD(field), flags),
	PLUGIN_PROPS(x)
#undef x
	SD_BUS_VTABLE_END,
};

static const struct ter_bus_prop props[] = {
#define x(name, sig, get, field, flags) { name, offsetof(struct ter_bus_plugin, field), sizeof(((struct ter_bus_plugin *)NULL)->field), flags },
	PLUGIN_PROPS(x)
#undef x
	{ 0 },
};

const struct ter_bus_iface ter_bus_plugin_iface = { TER_BUS_PREFIX "Plugin", vtable, props, 0 };
