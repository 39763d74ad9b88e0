/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may do what
 *
 * On the system bus uid 0 may do everything and others what polkit says, which is asked without waiting: the handler returns, and is called again with the same message once the answer is
 * there. Where there is no polkit, only root may. On another bus its owner (and root) may do everything.
 *
 * A sender that leaves while being asked is forgotten, and polkit is told.
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "dbus/bus_priv.h"
#include "util/mem.h"

#define QUERIES_MAX 64
#define POLKIT "org.freedesktop.PolicyKit1"
#define POLKIT_PATH "/org/freedesktop/PolicyKit1/Authority"
#define POLKIT_IFACE "org.freedesktop.PolicyKit1.Authority"
#define POLKIT_ALLOW_INTERACTION 1u

enum answer { ASKING, ALLOWED, DENIED, CHALLENGE, DISMISSED, NO_POLKIT };

struct ter_bus_query {
	struct ter_list link;
	struct ter_bus *bus;
	sd_bus_message *m;
	sd_bus_slot *call, *vanish;
	enum ter_bus_action action;
	enum answer answer;
	char cancel_id[32];
};

static const char *const action_names[] = {
#define x(id, name) [TER_BUS_MAY_##id] = TER_BUS_PREFIX name,
	TER_BUS_ACTIONS(x)
#undef x
};

uint32_t ter_bus_sender_uid(sd_bus_message *m)
{
	sd_bus_creds *creds = NULL;
	uid_t uid;
	int r;

	r = sd_bus_query_sender_creds(m, SD_BUS_CREDS_EUID, &creds);
	if (r >= 0)
		r = sd_bus_creds_get_euid(creds, &uid);
	sd_bus_creds_unref(creds);
	return r < 0 ? UINT32_MAX : uid;
}

static void query_free(struct ter_bus_query *query)
{
	ter_list_del(&query->link);
	query->bus->queries_nr--;
	sd_bus_slot_unref(query->call);
	sd_bus_slot_unref(query->vanish);
	sd_bus_message_unref(query->m);
	free(query);
}

void ter_bus_free_queries(struct ter_bus *bus)
{
	while (!ter_list_empty(&bus->queries))
		query_free(ter_list_first(&bus->queries, struct ter_bus_query, link));
}

static struct ter_bus_query *query_of(struct ter_bus *bus, sd_bus_message *m)
{
	struct ter_bus_query *query;

	ter_list_for_each(query, &bus->queries, link)
		if (query->m == m)
			return query;
	return NULL;
}

static enum answer parse_answer(sd_bus_message *reply)
{
	int authorized, challenge;
	enum answer answer;

	if (sd_bus_message_is_method_error(reply, NULL))
		return NO_POLKIT;
	if (sd_bus_message_enter_container(reply, 'r', "bba{ss}") < 0 || sd_bus_message_read(reply, "bb", &authorized, &challenge) < 0)
		return NO_POLKIT;
	if (authorized)
		return ALLOWED;
	answer = challenge ? CHALLENGE : DENIED;
	if (sd_bus_message_enter_container(reply, 'a', "{ss}") < 0)
		return answer;
	while (sd_bus_message_enter_container(reply, 'e', "ss") > 0) {
		const char *key, *value;

		if (sd_bus_message_read(reply, "ss", &key, &value) < 0)
			break;
		if (strcmp(key, "polkit.dismissed") == 0 && value[0])
			answer = DISMISSED;
		if (sd_bus_message_exit_container(reply) < 0)
			break;
	}
	return answer;
}

static int on_answer(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	struct ter_bus_query *query = userdata;
	int r;

	query->answer = parse_answer(reply);
	query->vanish = sd_bus_slot_unref(query->vanish);
	r = sd_bus_message_rewind(query->m, true);
	if (r >= 0)
		r = sd_bus_enqueue_for_read(query->bus->sd, query->m);
	if (r < 0) {
		(void)sd_bus_reply_method_errno(query->m, r, NULL); /* memory is short: the caller's timeout tells it otherwise */
		query_free(query);
	}
	return 1;
}

static int on_vanish(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_query *query = userdata;

	/* Nobody is left to hear of a failure. */
	(void)sd_bus_call_method_async(query->bus->sd, NULL, POLKIT, POLKIT_PATH, POLKIT_IFACE, "CancelCheckAuthorization", NULL, NULL, "s", query->cancel_id);
	query_free(query);
	return 0;
}

static int append_details(sd_bus_message *m, const struct ter_bus_about *about)
{
	const struct {
		const char *key, *value;
	} rows[] = { { "filesystem.uuid", about ? about->fs_uuid : NULL }, { "filesystem.label", about ? about->fs_label : NULL },
		     { "device", about ? about->device : NULL } };
	int r;

	r = sd_bus_message_open_container(m, 'a', "{ss}");
	for (size_t i = 0; i < ARRAY_SIZE(rows) && r >= 0; i++)
		if (rows[i].value && rows[i].value[0])
			r = sd_bus_message_append(m, "{ss}", rows[i].key, rows[i].value);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static int send_question(struct ter_bus_query *query, const struct ter_bus_std *std, const struct ter_bus_about *about)
{
	sd_bus_message *m = NULL;
	int r;

	r = sd_bus_message_new_method_call(query->bus->sd, &m, POLKIT, POLKIT_PATH, POLKIT_IFACE, "CheckAuthorization");
	if (r >= 0)
		r = sd_bus_message_append(m, "(sa{sv})s", "system-bus-name", 1, "name", "s", sd_bus_message_get_sender(query->m), action_names[query->action]);
	if (r >= 0)
		r = append_details(m, about);
	if (r >= 0)
		r = sd_bus_message_append(m, "us", std->no_interaction ? 0u : POLKIT_ALLOW_INTERACTION, query->cancel_id);
	/* A person takes their time: no timeout. */
	if (r >= 0)
		r = sd_bus_call_async(query->bus->sd, &query->call, m, on_answer, query, UINT64_MAX);
	sd_bus_message_unref(m);
	return r;
}

/* Answers whose message found no handler any more (its object went away meanwhile). */
static void drop_stale(struct ter_bus *bus)
{
	struct ter_bus_query *query, *tmp;

	ter_list_for_each_safe(query, tmp, &bus->queries, link)
		if (query->answer != ASKING)
			query_free(query);
}

static int ask(struct ter_bus *bus, sd_bus_message *m, enum ter_bus_action action, const struct ter_bus_std *std, const struct ter_bus_about *about,
	       sd_bus_error *error)
{
	static uint64_t last_id;
	struct ter_bus_query *query;
	char match[256];
	int r;

	if (bus->queries_nr >= QUERIES_MAX)
		drop_stale(bus);
	if (bus->queries_nr >= QUERIES_MAX)
		return ter_bus_fail(error, TER_ERR_LIMIT_EXCEEDED, "Too many callers are being asked for their authorisation. Try again later.");
	query = ter_new(struct ter_bus_query);
	if (!query)
		return -ENOMEM;
	query->bus = bus;
	query->m = sd_bus_message_ref(m);
	query->action = action;
	snprintf(query->cancel_id, sizeof(query->cancel_id), "terrace%" PRIu64, ++last_id);
	ter_list_add_tail(&bus->queries, &query->link);
	bus->queries_nr++;
	snprintf(match, sizeof(match),
		 "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='%s',arg2=''",
		 sd_bus_message_get_sender(m));
	r = sd_bus_add_match_async(bus->sd, &query->vanish, match, on_vanish, NULL, query);
	if (r >= 0)
		r = send_question(query, std, about);
	if (r < 0)
		query_free(query);
	return r < 0 ? r : 0;
}

static int tell(enum answer answer, enum ter_bus_action action, sd_bus_error *error)
{
	switch (answer) {
	case ALLOWED:
		return 1;
	case CHALLENGE:
		return ter_bus_fail(error, TER_ERR_NOT_AUTHORIZED_CAN_OBTAIN, "This needs authentication (%s), and nobody could be asked.", action_names[action]);
	case DISMISSED:
		return ter_bus_fail(error, TER_ERR_NOT_AUTHORIZED_DISMISSED, "The authentication for %s was dismissed.", action_names[action]);
	case NO_POLKIT:
		return ter_bus_fail(error, TER_ERR_NOT_AUTHORIZED, "Only root may do this: polkit, which could permit it to others, does not answer.");
	default:
		return ter_bus_fail(error, TER_ERR_NOT_AUTHORIZED, "You are not permitted to do this (%s).", action_names[action]);
	}
}

int ter_bus_check_access(struct ter_bus *bus, sd_bus_message *m, enum ter_bus_action action, const struct ter_bus_std *std, const struct ter_bus_about *about,
			 struct ter_bus_who *ret_who, sd_bus_error *error)
{
	struct ter_bus_query *query = query_of(bus, m);
	const uint32_t uid = ter_bus_sender_uid(m);

	*ret_who = (struct ter_bus_who){ .uid = uid, .reason = std->reason };
	if (query) {
		const enum answer answer = query->answer;
		const bool same = query->action == action;

		query_free(query);
		if (same)
			return tell(answer, action, error);
	}
	if (uid == 0 || (!bus->host.system && uid == geteuid()))
		return 1;
	if (uid == UINT32_MAX)
		return ter_bus_fail(error, TER_ERR_NOT_AUTHORIZED, "The caller left the bus before it was known who it is.");
	if (!bus->host.system || action == TER_BUS_MAY_ROOT)
		return ter_bus_fail(error, TER_ERR_NOT_AUTHORIZED, bus->host.system ? "Only root may do this." : "Only the owner of this bus may do this.");
	return ask(bus, m, action, std, about, error);
}
