/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that lost data: Maintenance.ListDamaged and ClearDamage. Names are for who may inspect; the bus's signals have none. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "dbus/bus_priv.h"

#define LIMIT_DEFAULT 100u
#define NODE_INUM ((1ull << 40) - 1) /* st_ino: subvolume << 40 | inode number */

static int admit(struct ter_bus_object *fs, sd_bus_message *m, const struct ter_bus_opt *opts, enum ter_bus_action action, struct ter_bus_call **ret_call,
		 sd_bus_error *error)
{
	const struct ter_bus_about about = { .fs_uuid = fs->view->fs.uuid, .fs_label = fs->view->fs.label };
	struct ter_bus_std std;
	struct ter_bus_who who;
	int r;

	r = ter_bus_read_opts(m, opts, &std, error);
	if (r >= 0 && std.dry_run)
		r = ter_bus_fail(error, TER_ERR_INVALID_OPTION, "There is no dry run of this.");
	if (r < 0)
		return r;
	r = ter_bus_check_access(fs->bus, m, action, &std, &about, &who, error);
	if (r <= 0)
		return r;
	*ret_call = ter_bus_call_new(fs->bus, m, error);
	return *ret_call ? 1 : -ENOMEM;
}

int ter_bus_method_list_damaged(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *fs = userdata;
	const char *cursor = "";
	uint32_t limit = LIMIT_DEFAULT;
	const struct ter_bus_opt opts[] = { { "cursor", 's', &cursor }, { "limit", 'u', &limit }, { 0 } };
	struct ter_bus_call *call;
	uint64_t from = 0;
	char *end;
	int r;

	r = admit(fs, m, opts, TER_BUS_MAY_INSPECT, &call, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	if (cursor[0]) {
		from = strtoull(cursor, &end, 10);
		if (*end || cursor[0] < '0' || cursor[0] > '9') {
			struct ter_error bad = { 0 };

			ter_fail(&bad, TER_ERR_INVALID_OPTION, "The cursor '%s' is not one that ListDamaged returned.", cursor);
			ter_bus_answer(call, &bad);
			return 1;
		}
	}
	fs->bus->host.list_damaged(fs->bus->host.arg, fs->view->fs.uuid, from, ter_min(ter_max(limit, 1u), TER_BUS_DAMAGED_MAX), call);
	return 1;
}

int ter_bus_method_clear_damage(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct ter_bus_object *fs = userdata;
	struct ter_bus_call *call;
	struct statx st;
	int fd, r;

	r = sd_bus_message_read(m, "h", &fd);
	if (r < 0)
		return r;
	/* What the kernel knows by itself: the bus must not wait for the very filesystem that it serves. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) < 0)
		return ter_bus_fail(error, TER_ERR_INVALID_ARGUMENT, "The descriptor is not one of a file: %m.");
	r = admit(fs, m, NULL, TER_BUS_MAY_MAINTENANCE, &call, error);
	if (r <= 0)
		return r < 0 ? r : 1;
	fs->bus->host.clear_damage(fs->bus->host.arg, fs->view->fs.uuid, st.stx_dev_major, st.stx_dev_minor, st.stx_ino & NODE_INUM, call);
	return 1;
}

static int append_damaged(sd_bus_message *m, const struct ter_bus_damaged *row)
{
	char path[PATH_MAX * 4];
	int r;

	ter_bus_utf8(row->path, path, sizeof(path));
	r = sd_bus_message_open_container(m, 'r', "tsas");
	if (r >= 0)
		r = sd_bus_message_append(m, "ts", row->node, path);
	if (r >= 0)
		r = sd_bus_message_append(m, "as", 1, row->what);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

void ter_bus_answer_damaged(struct ter_bus_call *call, const struct ter_bus_damaged *rows, unsigned nr, uint64_t next)
{
	char cursor[24] = "";
	sd_bus_message *reply = NULL;
	int r;

	if (next)
		snprintf(cursor, sizeof(cursor), "%llu", (unsigned long long)next);
	r = sd_bus_message_new_method_return(call->m, &reply);
	if (r >= 0)
		r = sd_bus_message_open_container(reply, 'a', "(tsas)");
	for (unsigned i = 0; i < nr && r >= 0; i++)
		r = append_damaged(reply, &rows[i]);
	if (r >= 0)
		r = sd_bus_message_close_container(reply);
	if (r >= 0)
		r = sd_bus_message_append(reply, "s", cursor);
	ter_bus_call_reply(call, reply, r);
}
