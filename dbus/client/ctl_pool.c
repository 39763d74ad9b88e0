/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that change a filesystem's state: format, start, stop, mount, unmount, sync, fsck. */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void freep(void *p)
{
	free(*(char **)p);
}
#define _cleanup_str_ __attribute__((cleanup(freep)))

static const char FS[] = CTL_IFACE("Filesystem");

/* --- format --- */

static int append_pair(sd_bus_message *m, const char *name, const char *value)
{
	return sd_bus_message_append(m, "{sv}", name, "s", value);
}

/* "a=b,c=d" */
static int append_list(sd_bus_message *m, const char *list)
{
	char *copy = strdup(list), *at = NULL, *item;
	int r = copy ? 0 : -ENOMEM;

	for (item = copy ? strtok_r(copy, ",", &at) : NULL; item && r >= 0; item = strtok_r(NULL, ",", &at)) {
		char *eq = strchr(item, '=');

		if (!eq) {
			r = -EINVAL;
			break;
		}
		*eq = 0;
		r = append_pair(m, item, eq + 1);
	}
	free(copy);
	return r;
}

static int append_fs_options(sd_bus_message *m, const struct ctl *ctl)
{
	int r = sd_bus_message_open_container(m, 'a', "{sv}");

	if (r >= 0 && ctl->replicas)
		r = sd_bus_message_append(m, "{sv}{sv}", "data_replicas", "u", ctl->replicas, "metadata_replicas", "u", ctl->replicas);
	if (r >= 0 && ctl->compression)
		r = append_pair(m, "compression", ctl->compression);
	if (r >= 0 && ctl->checksum)
		r = append_pair(m, "data_checksum", ctl->checksum);
	if (r >= 0 && ctl->checksum && strcmp(ctl->checksum, "none") != 0)
		r = append_pair(m, "metadata_checksum", ctl->checksum);
	if (r >= 0 && ctl->options)
		r = append_list(m, ctl->options);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static int append_devices(sd_bus_message *m, int argc, char **argv)
{
	int r = sd_bus_message_open_container(m, 'a', "(sa{sv})");

	for (int i = 0; i < argc && r >= 0; i++) {
		_cleanup_str_ char *path = ctl_absolute(argv[i]);

		r = path ? sd_bus_message_append(m, "(sa{sv})", path, 0) : -ENOMEM;
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static int check_paths(int argc, char **argv)
{
	int code = CTL_OK;

	for (int i = 0; i < argc && code == CTL_OK; i++) {
		_cleanup_str_ char *path = ctl_absolute(argv[i]);

		code = path ? ctl_check_text(path) : ctl_error(NULL, -ENOMEM); /* behind a link, or below this directory, it may be anything */
	}
	return code;
}

/* A variant of "as", which the message stands before. */
static int each_sentence(sd_bus_message *m, void (*fn)(const char *text))
{
	const char *text;
	int r = sd_bus_message_enter_container(m, 'v', "as");

	if (r >= 0)
		r = sd_bus_message_enter_container(m, 'a', "s");
	while (r >= 0 && (r = sd_bus_message_read(m, "s", &text)) > 0)
		fn(text);
	if (r >= 0)
		r = sd_bus_message_exit_container(m);
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* The result's "warnings" (as). */
static int print_warnings(sd_bus_message *result)
{
	const char *key;
	int r = sd_bus_message_enter_container(result, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(result, 'e', "sv")) > 0) {
		r = sd_bus_message_read(result, "s", &key);
		if (r >= 0 && strcmp(key, "warnings") == 0) {
			r = each_sentence(result, ctl_warn);
		} else if (r >= 0) {
			r = sd_bus_message_skip(result, "v");
		}
		if (r >= 0)
			r = sd_bus_message_exit_container(result);
	}
	return r;
}

int ctl_cmd_format(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *result = NULL;
	int code, r;

	code = check_paths(argc, argv);
	if (code == CTL_OK)
		code = ctl_new_call(ctl, CTL_MANAGER, CTL_IFACE("Manager"), "CreateFilesystem", &m);
	if (code != CTL_OK)
		return code;
	r = append_devices(m, argc, argv);
	if (r >= 0)
		r = sd_bus_message_append(m, "s", ctl->label ? ctl->label : "");
	if (r >= 0)
		r = append_fs_options(m, ctl);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "{sv}");
	if (r >= 0 && ctl->force)
		r = sd_bus_message_append(m, "{sv}", "force", "b", 1);
	if (r >= 0 && ctl->no_ask)
		r = sd_bus_message_append(m, "{sv}", "auth.no_user_interaction", "b", 1);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	if (r == -EINVAL && ctl->options)
		return ctl_fail(_("--options=%s: write it as NAME=VALUE,NAME=VALUE."), ctl->options);
	if (r < 0)
		return ctl_error(NULL, r);
	code = ctl_call_job(ctl, m, &result);
	if (code == CTL_OK && (r = print_warnings(result)) < 0)
		return ctl_error(NULL, r);
	if (code == CTL_OK && !ctl->quiet)
		printf(ctl->label && *ctl->label ? _("Filesystem '%s' is ready on %d members.\n") : _("The filesystem%s is ready on %d members.\n"),
		       ctl->label ? ctl->label : "", argc);
	return code;
}

/* --- start, stop --- */

int ctl_start_pool(struct ctl *ctl, const char *path)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
	_cleanup_str_ char *state = NULL;
	int code, r;

	code = ctl_get_string(ctl, path, FS, "State", &state);
	if (code != CTL_OK)
		return code;
	if (strcmp(state, "running") == 0)
		return ctl->check || ctl->dry ? ctl_fail(_("The filesystem is running already: --check and --dry are for its start. Stop it first.")) : CTL_OK;
	code = ctl_new_call(ctl, path, FS, "Start", &m);
	if (code != CTL_OK)
		return code;
	r = sd_bus_message_open_container(m, 'a', "{sv}");
	if (r >= 0 && ctl->degraded)
		r = append_pair(m, "degraded", ctl->degraded);
	if (r >= 0 && ctl->read_only)
		r = sd_bus_message_append(m, "{sv}", "read-only", "b", 1);
	if (r >= 0 && ctl->check)
		r = sd_bus_message_append(m, "{sv}", "fsck", "b", 1);
	if (r >= 0 && ctl->dry)
		r = sd_bus_message_append(m, "{sv}", "no-recovery", "b", 1);
	if (r >= 0 && ctl->no_ask)
		r = sd_bus_message_append(m, "{sv}", "auth.no_user_interaction", "b", 1);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	return r < 0 ? ctl_error(NULL, r) : ctl_call_job(ctl, m, NULL);
}

int ctl_cmd_start(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_str_ char *path = NULL;
	int code = ctl_resolve(ctl, argv[0], &path);

	(void)argc;
	return code == CTL_OK ? ctl_start_pool(ctl, path) : code;
}

int ctl_cmd_stop(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
	_cleanup_str_ char *path = NULL;
	int code, r;

	(void)argc;
	code = ctl_resolve(ctl, argv[0], &path);
	if (code == CTL_OK)
		code = ctl_new_call(ctl, path, FS, "Stop", &m);
	if (code != CTL_OK)
		return code;
	r = ctl_append_opts(m, ctl);
	return r < 0 ? ctl_error(NULL, r) : ctl_call_job(ctl, m, NULL);
}

/* --- mount, unmount --- */

/* Nothing is started for a place that cannot be mounted on. */
static int check_where(const char *where)
{
	struct stat st;

	if (where[0] == '/' && stat(where, &st) < 0)
		return ctl_fail(_("The mount point '%s' cannot be used: %s."), where, strerror(errno));
	if (where[0] == '/' && !S_ISDIR(st.st_mode))
		return ctl_fail(_("The mount point '%s' is not a directory."), where);
	return ctl_check_text(where);
}

int ctl_cmd_mount(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_str_ char *path = NULL, *where = ctl_absolute(argv[1]);
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
	int code, r;

	(void)argc;
	if (!where)
		return ctl_error(NULL, -ENOMEM);
	code = ctl_resolve(ctl, argv[0], &path);
	if (code == CTL_OK)
		code = check_where(where);
	if (code == CTL_OK)
		code = ctl_start_pool(ctl, path);
	if (code == CTL_OK)
		code = ctl_new_call(ctl, path, FS, "Mount", &m);
	if (code != CTL_OK)
		return code;
	r = sd_bus_message_append(m, "s", where);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "{sv}");
	if (r >= 0 && (ctl->read_only || ctl->dry))
		r = sd_bus_message_append(m, "{sv}", "options", "as", 1, "ro");
	if (r >= 0 && ctl->no_ask)
		r = sd_bus_message_append(m, "{sv}", "auth.no_user_interaction", "b", 1);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	return r < 0 ? ctl_error(NULL, r) : ctl_call_message(ctl, m, &reply);
}

/* Which filesystem is mounted at @where: the one whose MountPoints name it. */
static int find_mounted(struct ctl *ctl, const char *where, char **ret_path)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	const char *path;
	int r;

	r = sd_bus_call_method(ctl->bus, CTL_NAME, CTL_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &error, &reply, "");
	if (r < 0)
		return ctl_error(&error, r);
	r = sd_bus_message_enter_container(reply, 'a', "{oa{sa{sv}}}");
	while (r >= 0 && (r = sd_bus_message_enter_container(reply, 'e', "oa{sa{sv}}")) > 0) {
		r = sd_bus_message_read(reply, "o", &path);
		if (r >= 0)
			r = sd_bus_message_skip(reply, "a{sa{sv}}");
		if (r >= 0)
			r = sd_bus_message_exit_container(reply);
		if (r >= 0 && strncmp(path, CTL_ROOT "/filesystems/", strlen(CTL_ROOT "/filesystems/")) == 0) {
			char **points = NULL;
			bool found = false;

			if (sd_bus_get_property_strv(ctl->bus, CTL_NAME, path, FS, "MountPoints", NULL, &points) < 0)
				continue; /* gone meanwhile */
			for (char **p = points; p && *p; p++) {
				found = found || strcmp(*p, where) == 0;
				free(*p);
			}
			free(points);
			if (found) {
				*ret_path = strdup(path);
				return *ret_path ? CTL_OK : ctl_error(NULL, -ENOMEM);
			}
		}
	}
	return r < 0 ? ctl_error(NULL, r) : ctl_fail(_("No Terrace filesystem is mounted at '%s'."), where);
}

int ctl_cmd_unmount(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_str_ char *path = NULL, *where = ctl_absolute(argv[0]);
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
	int code, r;

	(void)argc;
	if (!where)
		return ctl_error(NULL, -ENOMEM);
	code = find_mounted(ctl, where, &path);
	if (code == CTL_OK)
		code = ctl_new_call(ctl, path, FS, "Unmount", &m);
	if (code != CTL_OK)
		return code;
	r = sd_bus_message_append(m, "s", where);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "{sv}");
	if (r >= 0 && ctl->lazy)
		r = sd_bus_message_append(m, "{sv}", "lazy", "b", 1);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	return r < 0 ? ctl_error(NULL, r) : ctl_call_message(ctl, m, &reply);
}

/* --- sync, fsck --- */

int ctl_cmd_sync(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_str_ char *path = NULL;
	int code = ctl_resolve(ctl, argv[0], &path);

	(void)argc;
	return code == CTL_OK ? ctl_call(ctl, path, FS, "Sync", NULL, "") : code;
}

static void print_line(const char *text)
{
	printf("%s\n", text);
}

/* The result's "errors" (t) and "messages" (as). */
static int print_findings(sd_bus_message *result, uint64_t *ret_errors)
{
	int r = sd_bus_message_enter_container(result, 'a', "{sv}");

	*ret_errors = 0;
	while (r >= 0 && (r = sd_bus_message_enter_container(result, 'e', "sv")) > 0) {
		const char *key;

		r = sd_bus_message_read(result, "s", &key);
		if (r >= 0 && strcmp(key, "errors") == 0) {
			r = sd_bus_message_read(result, "v", "t", ret_errors);
		} else if (r >= 0 && strcmp(key, "messages") == 0) {
			r = each_sentence(result, print_line);
		} else if (r >= 0) {
			r = sd_bus_message_skip(result, "v");
		}
		if (r >= 0)
			r = sd_bus_message_exit_container(result);
	}
	return r;
}

int ctl_cmd_fsck(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *result = NULL;
	_cleanup_str_ char *path = NULL;
	uint64_t errors;
	int code, r;

	(void)argc;
	code = ctl_resolve(ctl, argv[0], &path);
	if (code == CTL_OK && !ctl->repair)
		code = ctl_start_pool(ctl, path);
	if (code == CTL_OK)
		code = ctl_new_call(ctl, path, CTL_IFACE("Maintenance"), "Fsck", &m);
	if (code != CTL_OK)
		return code;
	r = sd_bus_message_append(m, "a{sv}", 1, "fix", "s", ctl->repair ? "yes" : "no");
	if (r < 0)
		return ctl_error(NULL, r);
	code = ctl_call_job(ctl, m, &result);
	if (code != CTL_OK)
		return code;
	r = print_findings(result, &errors);
	if (r < 0)
		return ctl_error(NULL, r);
	if (errors)
		return ctl_fail(ngettext("%llu contradiction was found.", "%llu contradictions were found.", (unsigned long)errors),
				(unsigned long long)errors);
	if (!ctl->quiet)
		printf(_("Nothing wrong was found.\n"));
	return CTL_OK;
}
