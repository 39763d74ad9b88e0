/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * terracectl: a client of the bus and nothing else
 *
 * Each command is a function of a table (ctl_main.c). Calls print what went wrong themselves, once, as one line; commands only pass the exit code on.
 */
#ifndef CTL_H
#define CTL_H

#include <libintl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#ifndef _cleanup_
#define _cleanup_(fn) __attribute__((cleanup(fn)))
#endif

#define _(s) gettext(s)
#define N_(s) s

#define CTL_NAME "org.terracefs.Terrace1"
#define CTL_ROOT "/org/terracefs/Terrace1"
#define CTL_MANAGER CTL_ROOT "/Manager"
#define CTL_IFACE(x) CTL_NAME "." x
#define CTL_PATHS_MAX 256

/* Exit codes, documented in --help. */
enum { CTL_OK, CTL_FAILED, CTL_USAGE, CTL_NOT_AUTHORISED, CTL_DEGRADED };

struct ctl {
	sd_bus *bus;
	bool json, quiet, force, lazy, no_ask, repair;
	const char *label, *degraded, *compression, *checksum, *options; /* NULL: not given */
	unsigned replicas;
	bool read_only, check, dry;
};

/* --- ctl_bus.c --- */
enum ctl_bus_choice { CTL_BUS_AUTO, CTL_BUS_SYSTEM, CTL_BUS_SESSION };
int ctl_connect(struct ctl *ctl, enum ctl_bus_choice choice, const char *address); /* an exit code */
int ctl_error(const sd_bus_error *error, int r);                                   /* prints one line; returns the exit code */
int ctl_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));          /* prints; CTL_FAILED */
void ctl_warn(const char *text);                                                   /* prints one line */
int ctl_check_text(const char *text);                                              /* CTL_OK, or prints why the bus cannot carry it */
/* A method call that may take long. *ret_reply is the caller's. Return: an exit code. */
int ctl_call(struct ctl *ctl, const char *path, const char *interface, const char *member, sd_bus_message **ret_reply, const char *types, ...);
int ctl_call_message(struct ctl *ctl, sd_bus_message *message, sd_bus_message **ret_reply);
int ctl_new_call(struct ctl *ctl, const char *path, const char *interface, const char *member, sd_bus_message **ret_message);
int ctl_append_opts(sd_bus_message *m, const struct ctl *ctl); /* the trailing a{sv} with what every call passes */
/* A job: shows progress on a terminal, waits for its end, prints its error. *ret_result (may be NULL): the reply of Wait, positioned at the result's a{sv}. */
int ctl_wait_job(struct ctl *ctl, const char *job, sd_bus_message **ret_result);
int ctl_call_job(struct ctl *ctl, sd_bus_message *message, sd_bus_message **ret_result);
/* "label", UUID, member's path -> object path (the caller frees). */
int ctl_resolve(struct ctl *ctl, const char *pool, char **ret_path);
int ctl_get_string(struct ctl *ctl, const char *path, const char *interface, const char *property, char **ret);
char *ctl_absolute(const char *path); /* without links where it exists. The caller frees */

/* --- commands: argv without the command's name; an exit code --- */
int ctl_cmd_format(struct ctl *ctl, int argc, char **argv);
int ctl_cmd_mount(struct ctl *ctl, int argc, char **argv);
int ctl_cmd_unmount(struct ctl *ctl, int argc, char **argv);
int ctl_cmd_start(struct ctl *ctl, int argc, char **argv);
int ctl_cmd_stop(struct ctl *ctl, int argc, char **argv);
int ctl_cmd_status(struct ctl *ctl, int argc, char **argv);
int ctl_cmd_sync(struct ctl *ctl, int argc, char **argv);
int ctl_cmd_fsck(struct ctl *ctl, int argc, char **argv);
int ctl_cmd_damaged(struct ctl *ctl, int argc, char **argv);
int ctl_cmd_options(struct ctl *ctl, int argc, char **argv);
int ctl_start_pool(struct ctl *ctl, const char *path); /* unless it runs; waits */

/* --- ctl_json.c: a bus value as JSON; a{sv} and a{s*} are objects, variants their content --- */
int ctl_json_value(sd_bus_message *m);
void ctl_json_string(const char *s);

#endif
