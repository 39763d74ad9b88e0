/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bus, for the files of this folder only: objects, options of methods, access. */
#ifndef TER_BUS_PRIV_H
#define TER_BUS_PRIV_H

#include "dbus/bus.h"

#define TER_BUS_PREFIX TER_BUS_NAME "."
#define TER_BUS_ERROR_PREFIX TER_BUS_NAME ".Error."
#define TER_BUS_SLOTS_MAX 5 /* interfaces of one object */
#define TER_BUS_PROPS_MAX 48

/* How a property tells of changes, as flags of sd-bus. */
#define P_CONST SD_BUS_VTABLE_PROPERTY_CONST
#define P_EMITS SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE
#define P_EXPLICIT_INVALIDATES (SD_BUS_VTABLE_PROPERTY_EXPLICIT | SD_BUS_VTABLE_PROPERTY_EMITS_INVALIDATION)

/* One row of an interface's properties, beside its vtable: which bytes of the view decide whether it changed. */
struct ter_bus_prop {
	const char *name;
	size_t offset, bytes; /* in the view */
	uint64_t flags;
};
struct ter_bus_iface {
	const char *name;
	const sd_bus_vtable *vtable;
	const struct ter_bus_prop *props; /* ends with name == NULL; may be NULL */
	size_t view_offset;               /* where the view that props speak of begins within the object's */
};

enum ter_bus_kind { TER_BUS_FS, TER_BUS_DEVICE, TER_BUS_PLUGIN, TER_BUS_JOB };
struct ter_bus_object {
	struct ter_list link;
	struct ter_bus *bus;
	enum ter_bus_kind kind;
	char path[TER_BUS_PATH_MAX];
	const struct ter_bus_iface *const *ifaces; /* ends with NULL */
	sd_bus_slot *slot[TER_BUS_SLOTS_MAX];
	size_t view_bytes;
	union {
		struct ter_bus_fs fs;
		struct ter_bus_device device;
		struct ter_bus_plugin plugin;
		struct ter_bus_job job;
	} view[]; /* one, of which view_bytes are allocated */
};
#define TER_BUS_VIEW(member) (offsetof(struct ter_bus_object, view) + (member))

struct ter_bus_query; /* a question to polkit */
struct ter_bus {
	sd_bus *sd;
	struct ter_bus_host host;
	char boot_id[33];
	sd_bus_slot *manager_slot, *object_manager_slot;
	struct ter_list objects;
	struct ter_list calls;
	unsigned calls_nr;
	struct ter_list queries;
	unsigned queries_nr;
};

struct ter_bus_call {
	struct ter_list link;
	struct ter_bus *bus;
	sd_bus_message *m;
};
/* NULL: too many wait already, and @error says so. */
struct ter_bus_call *ter_bus_call_new(struct ter_bus *bus, sd_bus_message *m, sd_bus_error *error);
/* Takes the reply, or the errno of making it; frees @call. The caller may have gone: that is no error of ours. */
void ter_bus_call_reply(struct ter_bus_call *call, sd_bus_message *reply, int r);

struct ter_bus_object *ter_bus_find(struct ter_bus *bus, const char *path);

/* --- interfaces, one file each --- */
extern const struct ter_bus_iface ter_bus_fs_iface, ter_bus_fs_usage_iface, ter_bus_device_usage_iface, ter_bus_device_iface, ter_bus_options_iface,
	ter_bus_maintenance_iface, ter_bus_plugin_iface, ter_bus_job_iface, ter_bus_debug_iface;
extern const sd_bus_vtable ter_bus_manager_vtable[];
int ter_bus_option_schema(sd_bus *sd, const char *path, const char *interface, const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error);

/* of org.terracefs.Terrace1.Maintenance (bus_damage.c) */
int ter_bus_method_list_damaged(sd_bus_message *m, void *userdata, sd_bus_error *error);
int ter_bus_method_clear_damage(sd_bus_message *m, void *userdata, sd_bus_error *error);

/* --- values (bus_value.c): getters for fields of views; @userdata is the field --- */
#define TER_BUS_GETTER(name)                                                                                           \
	int name(sd_bus *sd, const char *path, const char *interface, const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error)
TER_BUS_GETTER(ter_bus_get_str);      /* char[] */
TER_BUS_GETTER(ter_bus_get_path);     /* char[], maybe not UTF-8 */
TER_BUS_GETTER(ter_bus_get_bool);     /* bool */
TER_BUS_GETTER(ter_bus_get_u8);
TER_BUS_GETTER(ter_bus_get_u32);
TER_BUS_GETTER(ter_bus_get_u64);
TER_BUS_GETTER(ter_bus_get_double);
TER_BUS_GETTER(ter_bus_get_fs);       /* a UUID as the filesystem's object path; "/" for "" */
TER_BUS_GETTER(ter_bus_get_zero);     /* b: false */
TER_BUS_GETTER(ter_bus_get_zero_u64); /* t: 0 */
/* An option's value as a typed variant: u, t, b or s. */
int ter_bus_append_option(sd_bus_message *m, const struct ter_options *options, const struct ter_option_info *info);
/* A variant (the message stands before it) as the text that the options table parses. */
int ter_bus_read_value(sd_bus_message *m, char *text, size_t bytes, sd_bus_error *error, const char *key);
int ter_bus_append_pair(sd_bus_message *m, const char *key, const char *type, ...); /* {sv} */

/* --- errors (bus_error.c): set @sd_error from @error; return a negative errno as handlers do --- */
int ter_bus_set_error(sd_bus_error *sd_error, const struct ter_error *error);
int ter_bus_fail(sd_bus_error *sd_error, enum ter_error_kind kind, const char *fmt, ...) TER_PRINTF(3, 4);
int ter_bus_append_error_names(sd_bus_message *m);

/* --- a method's trailing a{sv} (bus_opts.c) --- */
struct ter_bus_opt {
	const char *key;
	char type; /* 'b' bool, 'u' uint32_t, 'd' double, 's' const char *, 'a' struct ter_bus_strv */
	void *ret; /* set only when given */
};
#define TER_BUS_STRV_MAX 64
struct ter_bus_strv {
	unsigned nr;
	const char *s[TER_BUS_STRV_MAX];
};
struct ter_bus_std {
	bool no_interaction, dry_run;
	const char *reason;
};
/* @opts ends with key == NULL, or is NULL: the standard keys only. Strings belong to the message. */
int ter_bus_read_opts(sd_bus_message *m, const struct ter_bus_opt *opts, struct ter_bus_std *ret, sd_bus_error *error);

/* --- access (bus_access.c) --- */
/* x(id, name in polkit without the prefix) */
#define TER_BUS_ACTIONS(x)                                                                                             \
	x(MOUNT, "mount")                                                                                              \
	x(UNMOUNT_OTHERS, "unmount-others")                                                                            \
	x(START_STOP, "start-stop")                                                                                    \
	x(SET_MODE, "set-mode")                                                                                        \
	x(MANAGE_DEVICES, "manage-devices")                                                                            \
	x(CREATE, "create")                                                                                            \
	x(SET_OPTIONS, "set-options")                                                                                  \
	x(MAINTENANCE, "maintenance")                                                                                  \
	x(INSPECT, "inspect")                                                                                          \
	x(DEBUG, "debug")                                                                                              \
	x(CANCEL_OWN_JOB, "cancel-own-job")                                                                            \
	x(CANCEL_OTHER_JOB, "cancel-other-job")                                                                        \
	x(ROOT, "") /* root alone, whatever polkit thinks */
enum ter_bus_action {
#define x(id, name) TER_BUS_MAY_##id,
	TER_BUS_ACTIONS(x)
#undef x
};
struct ter_bus_about {
	const char *fs_uuid, *fs_label, *device; /* each may be NULL */
};
/*
 * Return: 1 allowed; 0 being asked: return 1 from the handler, which is called again with the same message; negative: refused, @error is set.
 * *ret_who is valid after 1.
 */
int ter_bus_check_access(struct ter_bus *bus, sd_bus_message *m, enum ter_bus_action action, const struct ter_bus_std *std, const struct ter_bus_about *about,
			 struct ter_bus_who *ret_who, sd_bus_error *error);
/* The sender's uid without a question; UINT32_MAX when it has gone. */
uint32_t ter_bus_sender_uid(sd_bus_message *m);
void ter_bus_free_queries(struct ter_bus *bus);

/* A job's Result: a{sv}. */
int ter_bus_append_result(sd_bus_message *m, const struct ter_bus_job *job);

/* Replies with a job's path, "/" for none. */
int ter_bus_reply_job(sd_bus_message *m, uint64_t job);

#endif
