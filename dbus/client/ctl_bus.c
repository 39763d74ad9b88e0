/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Talking to the daemon: connection, calls, errors, jobs. */
#include "ctl.h"
#include "util/utf8.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALL_TIMEOUT_US (120 * 1000000ull) /* calls that answer when something has settled */
#define WAIT_SECONDS 1u                    /* of a job, between two looks at its progress */
#define ERROR_PREFIX CTL_NAME ".Error."

/* One line, whatever names are in it: what would move the cursor, or is no text, is shown as \xNN. */
static void print_line(const char *prefix, const char *text)
{
	const bool utf8 = ter_utf8_valid(text, strlen(text));

	fprintf(stderr, "terracectl: %s", prefix);
	for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
		if (*s < 0x20 || *s == 0x7f || (*s >= 0x80 && !utf8))
			fprintf(stderr, "\\x%02x", *s);
		else
			fputc(*s, stderr);
	}
	fputc('\n', stderr);
}

static void print_formatted(const char *prefix, const char *fmt, va_list ap)
{
	char *text = NULL;

	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	print_line(prefix, text ? text : strerror(ENOMEM));
	free(text);
}

int ctl_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_formatted("", fmt, ap);
	va_end(ap);
	return CTL_FAILED;
}

void ctl_warn(const char *text)
{
	print_line(_("warning: "), text);
}

int ctl_check_text(const char *text)
{
	if (ter_utf8_valid(text, strlen(text)))
		return CTL_OK;
	return ctl_fail(_("'%s' is not valid UTF-8, and the bus carries no other names. Choose another name, or a link that has one."), text);
}

int ctl_error(const sd_bus_error *error, int r)
{
	const char *name = error && error->name ? error->name : "";

	if (strcmp(name, SD_BUS_ERROR_SERVICE_UNKNOWN) == 0 || strcmp(name, SD_BUS_ERROR_NAME_HAS_NO_OWNER) == 0)
		return ctl_fail(_("The daemon terraced is not running on this bus."));
	if (error && error->message)
		print_line("", error->message);
	else
		print_line("", strerror(r < 0 ? -r : r));
	if (strncmp(name, ERROR_PREFIX "NotAuthorized", strlen(ERROR_PREFIX "NotAuthorized")) == 0 || strcmp(name, SD_BUS_ERROR_ACCESS_DENIED) == 0)
		return CTL_NOT_AUTHORISED;
	return CTL_FAILED;
}

static bool has_daemon(sd_bus *bus)
{
	_cleanup_(sd_bus_creds_unrefp) sd_bus_creds *creds = NULL;

	return sd_bus_get_name_creds(bus, CTL_NAME, 0, &creds) >= 0;
}

static int open_address(const char *address, sd_bus **ret_bus)
{
	_cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
	int r = sd_bus_new(&bus);

	if (r >= 0)
		r = sd_bus_set_address(bus, address);
	if (r >= 0)
		r = sd_bus_set_bus_client(bus, 1);
	if (r >= 0)
		r = sd_bus_start(bus);
	if (r < 0)
		return r;
	*ret_bus = bus;
	bus = NULL;
	return 0;
}

/* Left to us: the system's daemon, or the user's own when only that one runs. */
static int open_auto(sd_bus **ret_bus)
{
	int r = sd_bus_open_system(ret_bus);

	if (r >= 0 && has_daemon(*ret_bus))
		return 0;
	if (r >= 0) {
		sd_bus *session = NULL;

		if (sd_bus_open_user(&session) >= 0) {
			if (has_daemon(session)) {
				sd_bus_flush_close_unref(*ret_bus);
				*ret_bus = session;
			} else {
				sd_bus_flush_close_unref(session);
			}
		}
		return 0; /* with no daemon anywhere the first call says so, or starts it */
	}
	return sd_bus_open_user(ret_bus);
}

int ctl_connect(struct ctl *ctl, enum ctl_bus_choice choice, const char *address)
{
	int r;

	if (address)
		r = open_address(address, &ctl->bus);
	else if (choice == CTL_BUS_SYSTEM)
		r = sd_bus_open_system(&ctl->bus);
	else if (choice == CTL_BUS_SESSION)
		r = sd_bus_open_user(&ctl->bus);
	else
		r = open_auto(&ctl->bus);
	if (r < 0)
		return ctl_fail(_("The bus cannot be reached: %s."), strerror(-r));
	sd_bus_set_method_call_timeout(ctl->bus, CALL_TIMEOUT_US);
	return CTL_OK;
}

int ctl_append_opts(sd_bus_message *m, const struct ctl *ctl)
{
	int r = sd_bus_message_open_container(m, 'a', "{sv}");

	if (r >= 0 && ctl->no_ask)
		r = sd_bus_message_append(m, "{sv}", "auth.no_user_interaction", "b", 1);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

int ctl_new_call(struct ctl *ctl, const char *path, const char *interface, const char *member, sd_bus_message **ret_message)
{
	int r = sd_bus_message_new_method_call(ctl->bus, ret_message, CTL_NAME, path, interface, member);

	if (r < 0)
		return ctl_error(NULL, r);
	if (!ctl->no_ask)
		(void)sd_bus_message_set_allow_interactive_authorization(*ret_message, 1);
	return CTL_OK;
}

int ctl_call_message(struct ctl *ctl, sd_bus_message *message, sd_bus_message **ret_reply)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_call(ctl->bus, message, 0, &error, ret_reply);

	return r < 0 ? ctl_error(&error, r) : CTL_OK;
}

int ctl_call(struct ctl *ctl, const char *path, const char *interface, const char *member, sd_bus_message **ret_reply, const char *types, ...)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
	va_list ap;
	int code, r = 0;

	code = ctl_new_call(ctl, path, interface, member, &m);
	if (code != CTL_OK)
		return code;
	if (types && *types) {
		va_start(ap, types);
		r = sd_bus_message_appendv(m, types, ap);
		va_end(ap);
	}
	if (r >= 0)
		r = ctl_append_opts(m, ctl);
	if (r < 0)
		return ctl_error(NULL, r);
	code = ctl_call_message(ctl, m, &reply);
	if (code == CTL_OK && ret_reply)
		*ret_reply = sd_bus_message_ref(reply);
	return code;
}

/* --- jobs --- */

static void show_progress(struct ctl *ctl, const char *job)
{
	double progress = 0;
	char *phase = NULL;
	int valid = 0;

	if (ctl->quiet || ctl->json || !isatty(STDERR_FILENO))
		return;
	if (sd_bus_get_property_trivial(ctl->bus, CTL_NAME, job, CTL_IFACE("Job"), "ProgressValid", NULL, 'b', &valid) < 0)
		return;
	if (valid)
		(void)sd_bus_get_property_trivial(ctl->bus, CTL_NAME, job, CTL_IFACE("Job"), "Progress", NULL, 'd', &progress);
	if (sd_bus_get_property_string(ctl->bus, CTL_NAME, job, CTL_IFACE("Job"), "Phase", NULL, &phase) < 0)
		phase = NULL;
	if (valid)
		fprintf(stderr, "\r\033[K%s %3.0f %%", phase ? phase : "", progress * 100);
	else
		fprintf(stderr, "\r\033[K%s …", phase ? phase : "");
	free(phase);
}

static void end_progress(struct ctl *ctl)
{
	if (!ctl->quiet && !ctl->json && isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
}

static int job_error(struct ctl *ctl, const char *job)
{
	char *text = NULL, *name = NULL;
	int code = CTL_FAILED;

	if (sd_bus_get_property_string(ctl->bus, CTL_NAME, job, CTL_IFACE("Job"), "ErrorMessage", NULL, &text) >= 0 && *text)
		ctl_fail("%s", text);
	else
		ctl_fail(_("The job did not succeed."));
	if (sd_bus_get_property_string(ctl->bus, CTL_NAME, job, CTL_IFACE("Job"), "Error", NULL, &name) >= 0 && strstr(name, "NotAuthorized"))
		code = CTL_NOT_AUTHORISED;
	free(text);
	free(name);
	return code;
}

int ctl_wait_job(struct ctl *ctl, const char *job, sd_bus_message **ret_result)
{
	for (;;) {
		_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
		_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
		const char *state;
		int r;

		r = sd_bus_call_method(ctl->bus, CTL_NAME, job, CTL_IFACE("Job"), "Wait", &error, &reply, "ua{sv}", WAIT_SECONDS, 0);
		if (r < 0 && sd_bus_error_has_name(&error, ERROR_PREFIX "TimedOut")) {
			show_progress(ctl, job);
			continue;
		}
		if (r < 0) {
			end_progress(ctl);
			return ctl_error(&error, r);
		}
		r = sd_bus_message_read(reply, "s", &state);
		if (r < 0)
			return ctl_error(NULL, r);
		if (strcmp(state, "succeeded") == 0) {
			end_progress(ctl);
			if (ret_result)
				*ret_result = sd_bus_message_ref(reply);
			return CTL_OK;
		}
		if (strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0 || strcmp(state, "interrupted") == 0) {
			end_progress(ctl);
			return job_error(ctl, job);
		}
		show_progress(ctl, job);
	}
}

int ctl_call_job(struct ctl *ctl, sd_bus_message *message, sd_bus_message **ret_result)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	const char *job;
	int code, r;

	code = ctl_call_message(ctl, message, &reply);
	if (code != CTL_OK)
		return code;
	r = sd_bus_message_read(reply, "o", &job);
	return r < 0 ? ctl_error(NULL, r) : ctl_wait_job(ctl, job, ret_result);
}

/* --- names --- */

char *ctl_absolute(const char *path)
{
	char *full = realpath(path, NULL), *cwd = NULL;

	if (full || path[0] == '/' || !path[0])
		return full ? full : strdup(path);
	cwd = getcwd(NULL, 0);
	if (cwd && asprintf(&full, "%s/%s", cwd, path) < 0)
		full = NULL;
	free(cwd);
	return full ? full : strdup(path);
}

int ctl_resolve(struct ctl *ctl, const char *pool, char **ret_path)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	/* A relative path names a member only if it is there; a label may look like one. */
	char *spec = strchr(pool, '/') ? ctl_absolute(pool) : strdup(pool);
	const char *path;
	int code, r;

	if (!spec)
		return ctl_error(NULL, -ENOMEM);
	code = ctl_call(ctl, CTL_MANAGER, CTL_IFACE("Manager"), "ResolveFilesystem", &reply, "s", spec);
	free(spec);
	if (code != CTL_OK)
		return code;
	r = sd_bus_message_read(reply, "o", &path);
	if (r < 0)
		return ctl_error(NULL, r);
	*ret_path = strdup(path);
	return *ret_path ? CTL_OK : ctl_error(NULL, -ENOMEM);
}

int ctl_get_string(struct ctl *ctl, const char *path, const char *interface, const char *property, char **ret)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_get_property_string(ctl->bus, CTL_NAME, path, interface, property, &error, ret);

	return r < 0 ? ctl_error(&error, r) : CTL_OK;
}
