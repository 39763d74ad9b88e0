/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.terracefs.Terrace1.Job: long work, with the properties of a UDisks job. */
#include <stdio.h>

#include "dbus/bus_priv.h"

const char *const ter_bus_job_states[] = {
	[TER_BUS_JOB_QUEUED] = "queued",       [TER_BUS_JOB_RUNNING] = "running", [TER_BUS_JOB_CANCELLING] = "cancelling",
	[TER_BUS_JOB_SUCCEEDED] = "succeeded", [TER_BUS_JOB_FAILED] = "failed",   [TER_BUS_JOB_CANCELLED] = "cancelled",
};

static TER_BUS_GETTER(get_state)
{
	return sd_bus_message_append(reply, "s", ter_bus_job_states[*(enum ter_bus_job_state *)userdata]);
}

static TER_BUS_GETTER(get_objects)
{
	const char *fs = userdata;
	char object[TER_BUS_PATH_MAX];

	if (!fs[0])
		return sd_bus_message_append(reply, "ao", 0);
	ter_bus_fs_path(fs, object);
	return sd_bus_message_append(reply, "ao", 1, object);
}

static TER_BUS_GETTER(get_error)
{
	const enum ter_error_kind kind = *(enum ter_error_kind *)userdata;
	char name[128] = "";

	if (kind != TER_ERR_NONE)
		snprintf(name, sizeof(name), TER_BUS_ERROR_PREFIX "%s", ter_error_name(kind));
	return sd_bus_message_append(reply, "s", name);
}

static TER_BUS_GETTER(get_error_message)
{
	char text[TER_ERROR_TEXT_MAX];

	ter_bus_utf8(userdata, text, sizeof(text));
	return sd_bus_message_append(reply, "s", text);
}

static int append_lines(sd_bus_message *m, const struct ter_bus_job_result *result)
{
	char text[TER_BUS_LINE_MAX];
	int r;

	r = sd_bus_message_open_container(m, 'e', "sv");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", result->lines_key);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'v', "as");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "s");
	for (unsigned i = 0; i < result->lines_nr && r >= 0; i++) {
		ter_bus_utf8(result->line[i], text, sizeof(text));
		r = sd_bus_message_append(m, "s", text);
	}
	for (unsigned depth = 0; depth < 3 && r >= 0; depth++)
		r = sd_bus_message_close_container(m);
	return r;
}

int ter_bus_append_result(sd_bus_message *m, const struct ter_bus_job *job)
{
	const struct ter_bus_job_result *result = &job->result;
	char object[TER_BUS_PATH_MAX];
	int r;

	r = sd_bus_message_open_container(m, 'a', "{sv}");
	if (r >= 0 && result->fs[0]) {
		ter_bus_fs_path(result->fs, object);
		r = ter_bus_append_pair(m, "filesystem", "o", object);
	}
	if (r >= 0 && result->has_found)
		r = ter_bus_append_pair(m, "errors", "t", result->found);
	if (r >= 0 && result->lines_nr)
		r = append_lines(m, result);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static TER_BUS_GETTER(get_result)
{
	return ter_bus_append_result(reply, ter_container_of((struct ter_bus_job_result *)userdata, struct ter_bus_job, result));
}

static int append_strings(sd_bus_message *m, const char *key, const char (*s)[TER_UUID_TEXT_BYTES], unsigned nr)
{
	int r;

	r = sd_bus_message_open_container(m, 'e', "sv");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", key);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'v', "as");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "s");
	for (unsigned i = 0; i < nr && r >= 0; i++)
		r = sd_bus_message_append(m, "s", s[i]);
	for (unsigned depth = 0; depth < 3 && r >= 0; depth++)
		r = sd_bus_message_close_container(m);
	return r;
}

static TER_BUS_GETTER(get_details)
{
	const struct ter_bus_job *job = ter_container_of((__typeof__(((struct ter_bus_job *)NULL)->details) *)userdata, struct ter_bus_job, details);
	int r;

	r = sd_bus_message_open_container(reply, 'a', "{sv}");
	if (r >= 0 && job->details.missing_nr)
		r = append_strings(reply, "missing", job->details.missing, job->details.missing_nr);
	if (r >= 0 && job->details.option[0])
		r = ter_bus_append_pair(reply, "option", "s", job->details.option);
	if (r >= 0 && job->details.value[0])
		r = ter_bus_append_pair(reply, "value", "s", job->details.value);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static TER_BUS_GETTER(get_counters)
{
	const struct ter_bus_job *job = ter_container_of((__typeof__(((struct ter_bus_job *)NULL)->counters) *)userdata, struct ter_bus_job, counters);
	int r;

	r = sd_bus_message_open_container(reply, 'a', "{st}");
	if (r >= 0 && job->counters.done)
		r = sd_bus_message_append(reply, "{st}", "done", job->counters.done);
	if (r >= 0 && job->counters.has_errors)
		r = sd_bus_message_append(reply, "{st}", "errors", job->counters.errors);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* --- methods --- */

static int check_job_access(struct ter_bus_object *job, sd_bus_message *m, const struct ter_bus_std *std, sd_bus_error *error)
{
	const bool own = ter_bus_sender_uid(m) == job->view->job.uid;
	const struct ter_bus_about about = { .fs_uuid = job->view->job.fs };
	struct ter_bus_who who;

	return ter_bus_check_access(job->bus, m, own ? TER_BUS_MAY_CANCEL_OWN_JOB : TER_BUS_MAY_CANCEL_OTHER_JOB, std, &about, &who, error);
}

static int method_cancel(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *job = userdata;
	struct ter_error why = { 0 };
	struct ter_bus_std std;
	int r;

	r = ter_bus_read_opts(m, NULL, &std, error);
	if (r < 0)
		return r;
	r = check_job_access(job, m, &std, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	if (!std.dry_run) {
		r = job->bus->host.job_cancel(job->bus->host.arg, job->view->job.id, &why);
		if (r < 0)
			return ter_bus_set_error(error, &why);
	}
	return sd_bus_reply_method_return(m, NULL);
}

static int method_dismiss(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *job = userdata;
	struct ter_error why = { 0 };
	struct ter_bus_std std;
	int r;

	r = ter_bus_read_opts(m, NULL, &std, error);
	if (r < 0)
		return r;
	r = check_job_access(job, m, &std, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	if (!std.dry_run) {
		r = job->bus->host.job_dismiss(job->bus->host.arg, job->view->job.id, &why);
		if (r < 0)
			return ter_bus_set_error(error, &why);
	}
	return sd_bus_reply_method_return(m, NULL); /* @job is gone */
}

static int method_wait(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *job = userdata;
	struct ter_bus_call *call;
	struct ter_bus_std std;
	uint32_t timeout_s;
	int r;

	r = sd_bus_message_read(m, "u", &timeout_s);
	if (r < 0)
		return r;
	r = ter_bus_read_opts(m, NULL, &std, error);
	if (r < 0)
		return r;
	call = ter_bus_call_new(job->bus, m, error);
	if (!call)
		return -ENOMEM;
	job->bus->host.wait_job(job->bus->host.arg, job->view->job.id, timeout_s, call);
	return 1;
}

#define FIELD(field) TER_BUS_VIEW(offsetof(struct ter_bus_job, field))
#define JOB_PROPS(x)                                                                                                   \
	x("Operation", "s", ter_bus_get_str, operation, P_CONST)                                                       \
	x("Progress", "d", ter_bus_get_double, progress, P_EMITS)                                                      \
	x("ProgressValid", "b", ter_bus_get_bool, progress_valid, P_EMITS)                                             \
	x("StartTime", "t", ter_bus_get_u64, start_us, P_CONST)                                                        \
	x("Objects", "ao", get_objects, fs, P_CONST)                                                                   \
	x("StartedByUID", "u", ter_bus_get_u32, uid, P_CONST)                                                          \
	x("Cancelable", "b", ter_bus_get_bool, cancelable, P_EMITS)                                                    \
	x("State", "s", get_state, state, P_EMITS)                                                                     \
	x("Description", "s", ter_bus_get_str, description, P_CONST)                                                   \
	x("Phase", "s", ter_bus_get_str, phase, P_EMITS)                                                               \
	x("Counters", "a{st}", get_counters, counters, P_EMITS)                                                        \
	x("EndTime", "t", ter_bus_get_u64, end_us, P_EMITS)                                                            \
	x("ExpectedEndTime", "t", ter_bus_get_u64, expected_end_us, P_EMITS)                                           \
	x("Result", "a{sv}", get_result, result, P_EMITS)                                                              \
	x("Error", "s", get_error, error_kind, P_EMITS)                                                                \
	x("ErrorMessage", "s", get_error_message, error_message, P_EMITS)                                              \
	x("ErrorDetails", "a{sv}", get_details, details, P_EXPLICIT_INVALIDATES)

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
#define x(name, sig, get, field, flags) SD_BUS_PROPERTY(name, sig, get, FIELD(field), flags),
	JOB_PROPS(x)
#undef x
	/* 0 means unknown: no job counts bytes; what fsck counts is in Counters. */
	SD_BUS_PROPERTY("Bytes", "t", ter_bus_get_zero_u64, 0, P_EMITS),
	SD_BUS_PROPERTY("Rate", "t", ter_bus_get_zero_u64, 0, P_EMITS),
	SD_BUS_PROPERTY("Pausable", "b", ter_bus_get_zero, 0, P_EMITS),
	SD_BUS_PROPERTY("Resumable", "b", ter_bus_get_zero, 0, P_CONST),
	SD_BUS_METHOD_WITH_ARGS("Cancel", SD_BUS_ARGS("a{sv}", opts), SD_BUS_NO_RESULT, method_cancel, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Dismiss", SD_BUS_ARGS("a{sv}", opts), SD_BUS_NO_RESULT, method_dismiss, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Wait", SD_BUS_ARGS("u", timeout_s, "a{sv}", opts), SD_BUS_RESULT("s", state, "a{sv}", result), method_wait,
				SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_SIGNAL_WITH_ARGS("Completed", SD_BUS_ARGS("b", success, "s", message), 0),
	SD_BUS_VTABLE_END,
};

static const struct ter_bus_prop props[] = {
#define x(name, sig, get, field, flags) { name, offsetof(struct ter_bus_job, field), sizeof(((struct ter_bus_job *)NULL)->field), flags },
	JOB_PROPS(x)
#undef x
	{ 0 },
};

const struct ter_bus_iface ter_bus_job_iface = { TER_BUS_PREFIX "Job", vtable, props, 0 };
