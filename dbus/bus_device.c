/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.terracefs.Terrace1.Device: one member, present or missing. */
#include "dbus/bus_priv.h"

static TER_BUS_GETTER(get_symlinks)
{
	const struct ter_bus_hardware *hw = ter_container_of((__typeof__(((struct ter_bus_hardware *)NULL)->symlinks) *)userdata, struct ter_bus_hardware, symlinks);
	char text[TER_BUS_SYMLINK_MAX * 4];
	int r;

	r = sd_bus_message_open_container(reply, 'a', "s");
	for (unsigned i = 0; i < hw->symlinks.nr && r >= 0; i++) {
		ter_bus_utf8(hw->symlinks.path[i], text, sizeof(text));
		r = sd_bus_message_append(reply, "s", text);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

#define FIELD(field) TER_BUS_VIEW(offsetof(struct ter_bus_device, field))
#define DEVICE_PROPS(x)                                                                                                \
	x("UUID", "s", ter_bus_get_str, uuid, P_CONST)                                                                 \
	x("Index", "u", ter_bus_get_u32, index, P_CONST)                                                               \
	x("Filesystem", "o", ter_bus_get_fs, fs, P_CONST)                                                              \
	x("Path", "s", ter_bus_get_path, path, P_EMITS)                                                                \
	x("State", "s", ter_bus_get_str, state, P_EMITS)                                                               \
	x("Online", "b", ter_bus_get_bool, online, P_EMITS)                                                            \
	x("Present", "b", ter_bus_get_bool, present, P_EMITS)                                                          \
	x("Label", "s", ter_bus_get_str, label, P_EMITS)                                                               \
	x("Durability", "y", ter_bus_get_u8, durability, P_EMITS)                                                      \
	x("Rotational", "b", ter_bus_get_bool, hardware.rotational, P_EMITS)                                         \
	x("Discard", "b", ter_bus_get_bool, discard, P_EMITS)                                                          \
	x("Size", "t", ter_bus_get_u64, size, P_EMITS)                                                                 \
	x("BucketSize", "t", ter_bus_get_u64, bucket_size, P_CONST)                                                    \
	x("Buckets", "t", ter_bus_get_u64, buckets, P_EMITS)                                                           \
	x("JournalBuckets", "t", ter_bus_get_u64, journal_buckets, P_EMITS)                                            \
	x("LastSeen", "t", ter_bus_get_u64, last_seen_us, P_EMITS)                                                     \
	x("ReadErrors", "t", ter_bus_get_u64, read_errors, P_EMITS)                                                    \
	x("WriteErrors", "t", ter_bus_get_u64, write_errors, P_EMITS)                                                  \
	x("ChecksumErrors", "t", ter_bus_get_u64, checksum_errors, P_EMITS)                                            \
	x("FlushErrors", "t", ter_bus_get_u64, flush_errors, P_EMITS)                                                  \
	x("ErrorsSince", "t", ter_bus_get_u64, errors_since_us, P_EMITS)                                               \
	x("DataAtRisk", "t", ter_bus_get_u64, data_at_risk, P_EMITS)                                                   \
	x("Symlinks", "as", get_symlinks, hardware.symlinks, P_EMITS)                                                  \
	x("Model", "s", ter_bus_get_path, hardware.model, P_EMITS)                                                     \
	x("Serial", "s", ter_bus_get_path, hardware.serial, P_EMITS)

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
#define x(name, sig, get, field, flags) SD_BUS_PROPERTY(name, sig, get, FIELD(field), flags),
	DEVICE_PROPS(x)
#undef x
	SD_BUS_VTABLE_END,
};

static const struct ter_bus_prop props[] = {
#define x(name, sig, get, field, flags) { name, offsetof(struct ter_bus_device, field), sizeof(((struct ter_bus_device *)NULL)->field), flags },
	DEVICE_PROPS(x)
#undef x
	{ 0 },
};

const struct ter_bus_iface ter_bus_device_iface = { TER_BUS_PREFIX "Device", vtable, props, 0 };
