/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Method calls that are answered later. */
#include <stdio.h>

#include "dbus/bus_priv.h"
#include "util/mem.h"

struct ter_bus_call *ter_bus_call_new(struct ter_bus *bus, sd_bus_message *m, sd_bus_error *error)
{
	struct ter_bus_call *call;

	if (bus->calls_nr >= TER_BUS_CALLS_MAX) {
		ter_bus_fail(error, TER_ERR_LIMIT_EXCEEDED, "%u calls wait for an answer already. Try again later.", TER_BUS_CALLS_MAX);
		return NULL;
	}
	call = ter_new(struct ter_bus_call);
	if (!call) {
		ter_bus_fail(error, TER_ERR_NO_MEMORY, "Not enough memory for this call.");
		return NULL;
	}
	call->bus = bus;
	call->m = sd_bus_message_ref(m);
	ter_list_add_tail(&bus->calls, &call->link);
	bus->calls_nr++;
	return call;
}

static void call_free(struct ter_bus_call *call)
{
	ter_list_del(&call->link);
	call->bus->calls_nr--;
	sd_bus_message_unref(call->m);
	free(call);
}

void ter_bus_call_reply(struct ter_bus_call *call, sd_bus_message *reply, int r)
{
	if (r >= 0)
		r = sd_bus_send(call->bus->sd, reply, NULL);
	if (r < 0 && r != -ENOTCONN)
		(void)sd_bus_reply_method_errno(call->m, r, NULL);
	sd_bus_message_unref(reply);
	call_free(call);
}

void ter_bus_answer(struct ter_bus_call *call, const struct ter_error *error)
{
	sd_bus_error sd_error = SD_BUS_ERROR_NULL;

	if (error && error->kind != TER_ERR_NONE) {
		(void)ter_bus_set_error(&sd_error, error);
		(void)sd_bus_reply_method_error(call->m, &sd_error); /* the caller may have gone */
		sd_bus_error_free(&sd_error);
	} else {
		(void)sd_bus_reply_method_return(call->m, NULL);
	}
	call_free(call);
}

void ter_bus_answer_text(struct ter_bus_call *call, const char *text)
{
	char utf8[PATH_MAX * 4];

	ter_bus_utf8(text, utf8, sizeof(utf8));
	(void)sd_bus_reply_method_return(call->m, "s", utf8); /* the caller may have gone */
	call_free(call);
}

static void answer_object(struct ter_bus_call *call, const char *path)
{
	(void)sd_bus_reply_method_return(call->m, "o", path); /* the caller may have gone */
	call_free(call);
}

void ter_bus_answer_fs(struct ter_bus_call *call, const char *uuid)
{
	char path[TER_BUS_PATH_MAX];

	ter_bus_fs_path(uuid, path);
	answer_object(call, path);
}

void ter_bus_answer_device(struct ter_bus_call *call, const char *uuid)
{
	char path[TER_BUS_PATH_MAX];

	ter_bus_device_path(uuid, path);
	answer_object(call, path);
}

void ter_bus_answer_bytes(struct ter_bus_call *call, const void *bytes, size_t nr)
{
	sd_bus_message *reply = NULL;
	int r;

	r = sd_bus_message_new_method_return(call->m, &reply);
	if (r >= 0)
		r = sd_bus_message_append_array(reply, 'y', bytes, nr);
	ter_bus_call_reply(call, reply, r);
}

static int append_probe(sd_bus_message *m, const struct ter_probe *probe)
{
	char text[TER_ERROR_TEXT_MAX], uuid[TER_UUID_TEXT_BYTES], user_uuid[TER_UUID_TEXT_BYTES], dev_uuid[TER_UUID_TEXT_BYTES];
	int r;

	r = sd_bus_message_open_container(m, 'a', "{sv}");
	if (r >= 0)
		r = ter_bus_append_pair(m, "member", "b", (int)probe->is_member);
	if (r >= 0)
		r = ter_bus_append_pair(m, "signature", "s", probe->signature);
	if (r >= 0 && probe->why_not[0]) {
		ter_bus_utf8(probe->why_not, text, sizeof(text));
		r = ter_bus_append_pair(m, "why-not", "s", text);
	}
	if (r >= 0 && probe->is_member) {
		ter_uuid_format(probe->uuid, uuid);
		ter_uuid_format(probe->user_uuid, user_uuid);
		ter_uuid_format(probe->dev_uuid, dev_uuid);
		r = ter_bus_append_pair(m, "uuid", "s", user_uuid);
		if (r >= 0)
			r = ter_bus_append_pair(m, "internal-uuid", "s", uuid);
		if (r >= 0)
			r = ter_bus_append_pair(m, "device-uuid", "s", dev_uuid);
		if (r >= 0)
			r = ter_bus_append_pair(m, "label", "s", probe->label);
		if (r >= 0)
			r = ter_bus_append_pair(m, "index", "u", (uint32_t)probe->dev_idx);
		if (r >= 0)
			r = ter_bus_append_pair(m, "devices", "u", (uint32_t)probe->devs_nr);
		if (r >= 0)
			r = ter_bus_append_pair(m, "sequence", "t", probe->seq);
		if (r >= 0)
			r = ter_bus_append_pair(m, "clean", "b", (int)probe->clean);
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

void ter_bus_answer_probe(struct ter_bus_call *call, const struct ter_probe *probe)
{
	sd_bus_message *reply = NULL;
	int r;

	r = sd_bus_message_new_method_return(call->m, &reply);
	if (r >= 0)
		r = append_probe(reply, probe);
	ter_bus_call_reply(call, reply, r);
}

void ter_bus_answer_job(struct ter_bus_call *call, uint64_t job)
{
	char path[TER_BUS_PATH_MAX];
	struct ter_error gone = { 0 };
	struct ter_bus_object *object;
	sd_bus_message *reply = NULL;
	int r;

	ter_bus_job_path(job, path);
	object = ter_bus_find(call->bus, path);
	if (!object) {
		ter_fail(&gone, TER_ERR_NOT_FOUND, "The job was dismissed.");
		ter_bus_answer(call, &gone);
		return;
	}
	r = sd_bus_message_new_method_return(call->m, &reply);
	if (r >= 0)
		r = sd_bus_message_append(reply, "s", ter_bus_job_states[object->view->job.state]);
	if (r >= 0)
		r = ter_bus_append_result(reply, &object->view->job);
	ter_bus_call_reply(call, reply, r);
}

int ter_bus_reply_job(sd_bus_message *m, uint64_t job)
{
	char path[TER_BUS_PATH_MAX] = "/";

	if (job)
		ter_bus_job_path(job, path);
	return sd_bus_reply_method_return(m, "o", path);
}
