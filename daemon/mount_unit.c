/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mounting through systemd: transient .mount units, so that a mount is visible, ordered, and unmounted at shutdown. The daemon on the system bus may not mount. */
#include <stdio.h>

#include "log.h"
#include "pools.h"
#include "unit_name.h"

#define SYSTEMD "org.freedesktop.systemd1"
#define SYSTEMD_PATH "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER "org.freedesktop.systemd1.Manager"
#define UNIT_NAME_MAX 256 /* systemd's own bound */

struct unit_call {
	struct td_pools *pools;
	sd_bus *sd;
	char uuid[TER_UUID_TEXT_BYTES];
	struct ter_bus_call *call;
	sd_bus_slot *method, *signal;
	char where[PATH_MAX], unit[UNIT_NAME_MAX], job[TER_BUS_PATH_MAX];
	bool start;
};

static void finish(struct unit_call *u, const struct ter_error *error)
{
	if (error)
		ter_bus_answer(u->call, error);
	else if (u->start)
		ter_bus_answer_text(u->call, u->where);
	else
		td_pools_answer_unmounted(u->pools, u->uuid, u->where, u->call);
	sd_bus_slot_unref(u->method);
	sd_bus_slot_unref(u->signal);
	sd_bus_unref(u->sd);
	free(u);
}

static int on_job_removed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	struct unit_call *u = userdata;
	const char *job, *unit, *result;
	struct ter_error error = { 0 };
	uint32_t id;

	(void)ret_error;
	if (sd_bus_message_read(m, "uoss", &id, &job, &unit, &result) < 0 || strcmp(job, u->job) != 0)
		return 0;
	if (strcmp(result, "done") == 0) {
		finish(u, NULL);
		return 0;
	}
	ter_fail(&error, TER_ERR_FAILED, "systemd could not %s '%s' (%s). What went wrong is in its log: journalctl -u '%s'.", u->start ? "mount" : "unmount",
		 u->where, result, u->unit);
	finish(u, &error);
	return 0;
}

static int on_method_reply(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	const sd_bus_error *failure = sd_bus_message_get_error(m);
	struct unit_call *u = userdata;
	struct ter_error error = { 0 };
	const char *job;

	(void)ret_error;
	if (failure) {
		ter_fail(&error, sd_bus_error_has_name(failure, SYSTEMD ".UnitExists") ? TER_ERR_ALREADY_MOUNTED : TER_ERR_FAILED,
			 "systemd does not %s '%s': %s", u->start ? "mount" : "unmount", u->where, failure->message ? failure->message : failure->name);
		finish(u, &error);
	} else if (sd_bus_message_read(m, "o", &job) < 0) {
		ter_fail(&error, TER_ERR_FAILED, "systemd gave an answer that is not understood.");
		finish(u, &error);
	} else {
		snprintf(u->job, sizeof(u->job), "%s", job);
	}
	return 0;
}

static int append_start(sd_bus_message *m, const struct unit_call *u, const char *source, const char *options, const char *label)
{
	int r;

	r = sd_bus_message_append(m, "ss", u->unit, "fail");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "(sv)");
	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)(sv)(sv)", "What", "s", source, "Type", "s", "terrace", "Options", "s", options);
	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)", "Description", "s", label);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	return r < 0 ? r : sd_bus_message_append(m, "a(sa(sv))", 0);
}

static struct unit_call *unit_call_new(struct td_pool *pool, const char *where, bool start, struct ter_bus_call *call, struct ter_error *error)
{
	struct unit_call *u = calloc(1, sizeof(*u));
	int r;

	if (!u) {
		ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory for this call.");
		return NULL;
	}
	u->pools = pool->pools;
	snprintf(u->uuid, sizeof(u->uuid), "%s", pool->text);
	u->sd = sd_bus_ref(ter_bus_sd(pool->pools->bus));
	u->call = call;
	u->start = start;
	snprintf(u->where, sizeof(u->where), "%s", where);
	r = td_mount_unit_name(where, u->unit, sizeof(u->unit));
	if (r < 0)
		ter_fail(error, TER_ERR_INVALID_ARGUMENT, "The path '%s' is too long for a unit of systemd.", where);
	if (r >= 0) {
		r = sd_bus_match_signal_async(u->sd, &u->signal, SYSTEMD, SYSTEMD_PATH, SYSTEMD_MANAGER, "JobRemoved", on_job_removed, NULL, u);
		if (r < 0)
			ter_fail_errno(error, r, "systemd cannot be asked: %s.", strerror(-r));
	}
	if (r < 0) {
		sd_bus_unref(u->sd);
		free(u);
		return NULL;
	}
	return u;
}

static void send_call(struct unit_call *u, sd_bus_message *m, int r)
{
	struct ter_error error = { 0 };

	if (r >= 0)
		r = sd_bus_call_async(u->sd, &u->method, m, on_method_reply, u, 0);
	if (r < 0) {
		ter_fail_errno(&error, r, "systemd cannot be asked: %s.", strerror(-r));
		finish(u, &error);
	}
	sd_bus_message_unref(m);
}

void td_mount_unit_start(struct td_pool *pool, const char *where, const char *options, struct ter_bus_call *call)
{
	char source[64], label[128];
	struct ter_error error = { 0 };
	sd_bus_message *m = NULL;
	struct unit_call *u;
	int r;

	u = unit_call_new(pool, where, true, call, &error);
	if (!u) {
		ter_bus_answer(call, &error);
		return;
	}
	snprintf(source, sizeof(source), "terrace:%s", pool->text);
	snprintf(label, sizeof(label), "Terrace filesystem %s", td_pool_label(pool)[0] ? td_pool_label(pool) : pool->text);
	r = sd_bus_message_new_method_call(u->sd, &m, SYSTEMD, SYSTEMD_PATH, SYSTEMD_MANAGER, "StartTransientUnit");
	if (r >= 0)
		r = append_start(m, u, source, options, label);
	send_call(u, m, r);
}

void td_mount_unit_stop(struct td_pool *pool, const char *where, struct ter_bus_call *call)
{
	struct ter_error error = { 0 };
	sd_bus_message *m = NULL;
	struct unit_call *u;
	int r;

	u = unit_call_new(pool, where, false, call, &error);
	if (!u) {
		ter_bus_answer(call, &error);
		return;
	}
	r = sd_bus_message_new_method_call(u->sd, &m, SYSTEMD, SYSTEMD_PATH, SYSTEMD_MANAGER, "StopUnit");
	if (r >= 0)
		r = sd_bus_message_append(m, "ss", u->unit, "replace");
	send_call(u, m, r);
}
