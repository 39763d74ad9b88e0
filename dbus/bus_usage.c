/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.terracefs.Terrace1.Usage: where the space went, of a filesystem and of a member. */
#include "dbus/bus_priv.h"

static TER_BUS_GETTER(get_by_type)
{
	const struct ter_bus_usage *u = ter_container_of((__typeof__(((struct ter_bus_usage *)NULL)->by_type) *)userdata, struct ter_bus_usage, by_type);
	int r;

	r = sd_bus_message_open_container(reply, 'a', "(sttt)");
	for (unsigned t = 0; t < TER_DATA_NR && r >= 0; t++)
		r = sd_bus_message_append(reply, "(sttt)", ter_data_type_names[t], u->by_type.buckets[t], u->by_type.live[t], u->by_type.fragmented[t]);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int append_replicas_row(sd_bus_message *m, const struct ter_bus_usage *u, const struct ter_fs_replicas_row *row)
{
	char path[TER_BUS_PATH_MAX];
	int r;

	r = sd_bus_message_open_container(m, 'r', "syyaottt");
	if (r >= 0)
		r = sd_bus_message_append(m, "syy", ter_data_type_names[row->entry.data_type], row->entry.nr_devs, row->entry.nr_required);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "o");
	for (unsigned i = 0; i < row->entry.nr_devs && r >= 0; i++) {
		const char *uuid = u->by_replicas.device[row->entry.devs[i]];

		if (!uuid[0])
			continue;
		ter_bus_device_path(uuid, path);
		r = sd_bus_message_append(m, "o", path);
	}
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	if (r >= 0)
		r = sd_bus_message_append(m, "ttt", row->bytes, row->degraded_bytes, UINT64_C(0));
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static TER_BUS_GETTER(get_by_replicas)
{
	const struct ter_bus_usage *u =
		ter_container_of((__typeof__(((struct ter_bus_usage *)NULL)->by_replicas) *)userdata, struct ter_bus_usage, by_replicas);
	int r;

	r = sd_bus_message_open_container(reply, 'a', "(syyaottt)");
	for (unsigned i = 0; i < u->by_replicas.nr && r >= 0; i++)
		r = append_replicas_row(reply, u, &u->by_replicas.row[i]);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static TER_BUS_GETTER(get_by_compression)
{
	const struct ter_bus_usage *u =
		ter_container_of((__typeof__(((struct ter_bus_usage *)NULL)->by_compression) *)userdata, struct ter_bus_usage, by_compression);
	int r;

	r = sd_bus_message_open_container(reply, 'a', "(sttt)");
	for (unsigned i = 0; i < u->by_compression.nr && r >= 0; i++) {
		const struct ter_fs_compression_row *row = &u->by_compression.row[i];

		r = sd_bus_message_append(reply, "(sttt)", row->name, row->extents, row->raw_bytes, row->stored_bytes);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

#define USAGE_PROPS(x)                                                                                                 \
	x("Capacity", "t", ter_bus_get_u64, capacity, P_EMITS)                                                         \
	x("Used", "t", ter_bus_get_u64, used, P_EMITS)                                                                 \
	x("Available", "t", ter_bus_get_u64, available, P_EMITS)                                                       \
	x("Reserved", "t", ter_bus_get_u64, reserved, P_EMITS)                                                         \
	x("Inodes", "t", ter_bus_get_u64, inodes, P_EMITS)                                                             \
	x("Hidden", "t", ter_bus_get_u64, hidden, P_EMITS)                                                             \
	x("Cached", "t", ter_bus_get_u64, cached, P_EMITS)                                                             \
	x("CompressionRatio", "d", ter_bus_get_double, compression_ratio, P_EMITS)                                     \
	x("Updated", "t", ter_bus_get_u64, updated_us, P_EMITS)                                                        \
	x("ByDataType", "a(sttt)", get_by_type, by_type, P_EMITS)                                                      \
	x("ByReplicas", "a(syyaottt)", get_by_replicas, by_replicas, P_EXPLICIT_INVALIDATES)                           \
	x("ByCompression", "a(sttt)", get_by_compression, by_compression, P_EXPLICIT_INVALIDATES)

#define PROPERTY(view, name, sig, get, field, flags)                                                                   \
	SD_BUS_PROPERTY(name, sig, get, TER_BUS_VIEW(offsetof(view, usage) + offsetof(struct ter_bus_usage, field)), flags),

static const sd_bus_vtable fs_vtable[] = {
	SD_BUS_VTABLE_START(0),
#define x(...) PROPERTY(struct ter_bus_fs, __VA_ARGS__)
	USAGE_PROPS(x)
#undef x
	SD_BUS_VTABLE_END,
};

static const sd_bus_vtable device_vtable[] = {
	SD_BUS_VTABLE_START(0),
#define x(...) PROPERTY(struct ter_bus_device, __VA_ARGS__)
	USAGE_PROPS(x)
#undef x
	SD_BUS_VTABLE_END,
};

static const struct ter_bus_prop props[] = {
#define x(name, sig, get, field, flags) { name, offsetof(struct ter_bus_usage, field), sizeof(((struct ter_bus_usage *)NULL)->field), flags },
	USAGE_PROPS(x)
#undef x
	{ 0 },
};

const struct ter_bus_iface ter_bus_fs_usage_iface = { TER_BUS_PREFIX "Usage", fs_vtable, props, offsetof(struct ter_bus_fs, usage) };
const struct ter_bus_iface ter_bus_device_usage_iface = { TER_BUS_PREFIX "Usage", device_vtable, props, offsetof(struct ter_bus_device, usage) };
