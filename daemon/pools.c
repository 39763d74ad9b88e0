/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The registry of pools: what was found, put in its place; and names. */
#include "pools.h"

#include <stdio.h>

#include "log.h"

const char *const td_pool_states[] = { "incomplete", "stopped", "starting", "running", "stopping", "failed" };

int td_pools_init(struct td_pools *pools)
{
	ter_list_init(&pools->list);
	ter_list_init(&pools->settles);
	return 0;
}

void td_member_clear(struct td_member *member)
{
	free(member->path);
	free(member->other);
	free(member->hardware);
	*member = (struct td_member){ 0 };
}

static void pool_free(struct td_pool *pool)
{
	ter_list_del(&pool->link);
	pool->pools->nr--;
	td_pool_forget_damage(pool);
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		td_member_clear(&pool->member[i]);
	ter_sb_free(pool->sb);
	free(pool->table);
	free(pool->sample);
	pthread_cond_destroy(&pool->users_cond);
	pthread_mutex_destroy(&pool->users_lock);
	free(pool);
}

void td_pools_destroy(struct td_pools *pools)
{
	while (!ter_list_empty(&pools->list))
		pool_free(ter_list_first(&pools->list, struct td_pool, link));
}

struct td_pool *td_pools_by_text(struct td_pools *pools, const char *uuid)
{
	struct td_pool *pool;

	ter_list_for_each(pool, &pools->list, link)
		if (strcmp(pool->text, uuid) == 0)
			return pool;
	return NULL;
}

const char *td_pool_label(const struct td_pool *pool)
{
	return pool->sample ? pool->sample->status.label : pool->sb ? pool->sb->label : "";
}

static bool active(const struct td_pool *pool)
{
	return pool->fs || pool->life || pool->mount;
}

bool td_pool_complete(const struct td_pool *pool)
{
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct ter_dev *dev = &pool->table->dev[i];

		if (dev->used && (dev->state == TER_DEV_RW || dev->state == TER_DEV_RO) && (!pool->member[i].path || pool->member[i].conflict))
			return false;
	}
	return true;
}

void td_pool_set_state(struct td_pool *pool, enum td_pool_state state, const char *message)
{
	pool->state = state;
	snprintf(pool->message, sizeof(pool->message), "%s", message);
}

void td_pool_settled_state(struct td_pool *pool, const char *message)
{
	td_pool_set_state(pool, td_pool_complete(pool) ? TD_POOL_STOPPED : TD_POOL_INCOMPLETE, message);
}

/* --- merging --- */

static struct td_pool *pool_new(struct td_pools *pools, const struct ter_probe *probe)
{
	struct td_pool *pool;
	char text[TER_UUID_TEXT_BYTES];

	ter_uuid_format(probe->user_uuid, text);
	if (td_pools_by_text(pools, text)) {
		td_log(LOG_WARNING, &(struct td_log_about){ .fs_uuid = text }, "Two filesystems have the UUID %s; the one found second is not shown.", text);
		return NULL;
	}
	if (pools->nr == TD_POOLS_MAX) {
		td_log(LOG_WARNING, NULL, "There are more than %u filesystems; the rest is not shown.", TD_POOLS_MAX);
		return NULL;
	}
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return NULL;
	pool->pools = pools;
	memcpy(pool->uuid, probe->uuid, 16);
	memcpy(pool->text, text, sizeof(text));
	pool->opened_by = UINT32_MAX;
	pthread_mutex_init(&pool->users_lock, NULL);
	pthread_cond_init(&pool->users_cond, NULL);
	ter_list_add_tail(&pools->list, &pool->link);
	pools->nr++;
	return pool;
}

static struct td_pool *by_uuid(struct td_pools *pools, const uint8_t uuid[16])
{
	struct td_pool *pool;

	ter_list_for_each(pool, &pools->list, link)
		if (memcmp(pool->uuid, uuid, 16) == 0)
			return pool;
	return NULL;
}

/* What was known of a path that was looked at again. */
static void forget_path(struct td_pools *pools, const char *path)
{
	struct td_pool *pool;

	ter_list_for_each(pool, &pools->list, link) {
		if (active(pool))
			continue;
		for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
			struct td_member *member = &pool->member[i];

			if ((member->path && strcmp(member->path, path) == 0) || (member->other && strcmp(member->other, path) == 0))
				td_member_clear(member);
		}
	}
}

static void place(struct td_pool *pool, struct td_found *found)
{
	struct td_member *member = &pool->member[found->probe.dev_idx];

	if (member->path && ter_bdev_node_same(&member->node, &found->node))
		return; /* another name of the same device: the first one stays */
	if (member->path) {
		member->conflict = true; /* W5 */
		free(member->other);
		member->other = strdup(found->path);
		return;
	}
	member->path = strdup(found->path);
	member->node = found->node;
	member->seq = found->probe.seq;
	free(member->hardware);
	member->hardware = TAKE_PTR(found->hardware);
	if (!pool->sb || found->probe.seq >= pool->sb->seq) {
		ter_sb_free(pool->sb);
		free(pool->table);
		pool->sb = TAKE_PTR(found->probe.sb);
		pool->table = TAKE_PTR(found->probe.members);
	}
}

/* Found by an earlier life of the member: the newest table does not list it any more. */
static void drop_strangers(struct td_pool *pool)
{
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (pool->member[i].path && !pool->table->dev[i].used)
			td_member_clear(&pool->member[i]);
}

static void tell_conflicts(struct td_pool *pool)
{
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct td_member *member = &pool->member[i];

		if (!member->conflict)
			continue;
		pool->conflict = true;
		td_pool_set_state(pool, TD_POOL_INCOMPLETE, "");
		snprintf(pool->message, sizeof(pool->message), "'%s' and '%s' both claim to be member %u: one is a copy. Take the copy away, then rescan.",
			 member->path, member->other ? member->other : "?", i);
		td_log(LOG_WARNING, &(struct td_log_about){ .fs_uuid = pool->text, .fs_label = td_pool_label(pool) }, "%s", pool->message);
	}
}

static bool has_members(const struct td_pool *pool)
{
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (pool->member[i].path)
			return true;
	return false;
}

static void settle_all(struct td_pools *pools)
{
	struct td_pool *pool, *tmp;

	ter_list_for_each_safe(pool, tmp, &pools->list, link) {
		if (active(pool))
			continue;
		if (!has_members(pool)) {
			td_pool_unpublish(pool);
			pool_free(pool);
			continue;
		}
		drop_strangers(pool);
		if (pool->conflict)
			pool->message[0] = 0; /* told again below if it still is so */
		pool->conflict = false;
		if (pool->state != TD_POOL_FAILED)
			pool->state = td_pool_complete(pool) ? TD_POOL_STOPPED : TD_POOL_INCOMPLETE; /* the message still says why it did not start */
		tell_conflicts(pool);
		td_pool_publish(pool);
	}
}

void td_pools_merge(struct td_pools *pools, struct td_scan *scan)
{
	for (unsigned i = 0; i < scan->nr; i++)
		forget_path(pools, scan->found[i].path);
	for (unsigned i = 0; i < scan->nr; i++) {
		struct td_found *found = &scan->found[i];
		struct td_pool *pool;

		if (found->r < 0 || !found->probe.is_member || found->probe.why_not[0])
			continue;
		pool = by_uuid(pools, found->probe.uuid);
		if (!pool)
			pool = pool_new(pools, &found->probe);
		if (pool && !active(pool))
			place(pool, found);
	}
	settle_all(pools);
	td_pools_publish_plugins(pools);
}

/* --- names --- */

static struct td_pool *by_path(struct td_pools *pools, const char *path)
{
	struct td_pool *pool;

	ter_list_for_each(pool, &pools->list, link) {
		if (pool->mount && strcmp(pool->mount->where, path) == 0)
			return pool;
		for (unsigned i = 0; i < TER_DEVS_MAX; i++)
			if (pool->member[i].path && strcmp(pool->member[i].path, path) == 0)
				return pool;
	}
	return NULL;
}

static int by_label(struct td_pools *pools, const char *label, struct td_pool **ret, struct ter_error *error)
{
	struct td_pool *pool, *found = NULL;
	char list[512] = "";
	size_t used = 0;
	unsigned nr = 0;

	ter_list_for_each(pool, &pools->list, link) {
		if (strcmp(td_pool_label(pool), label) != 0)
			continue;
		found = pool;
		nr++;
		if (used + TER_UUID_TEXT_BYTES + 2 < sizeof(list))
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "", pool->text);
	}
	if (!nr || !label[0])
		return ter_fail(error, TER_ERR_NOT_FOUND, "There is no filesystem '%s'. Is one of its members missing from the list? Rescan with its path.", label);
	if (nr > 1)
		return ter_fail(error, TER_ERR_AMBIGUOUS_NAME, "%u filesystems are called '%s'. Name one by its UUID: %s.", nr, label, list);
	*ret = found;
	return 0;
}

static int by_uuid_text(struct td_pools *pools, const char *text, struct td_pool **ret, struct ter_error *error)
{
	char lower[TER_UUID_TEXT_BYTES];
	uint8_t uuid[16];

	if (ter_uuid_parse(text, uuid) < 0)
		return ter_fail(error, TER_ERR_INVALID_ARGUMENT, "'%s' is not a UUID.", text);
	ter_uuid_format(uuid, lower);
	*ret = td_pools_by_text(pools, lower);
	return *ret ? 0 : ter_fail(error, TER_ERR_NOT_FOUND, "There is no filesystem with the UUID %s.", lower);
}

static struct td_pool *by_object(struct td_pools *pools, const char *object)
{
	char path[TER_BUS_PATH_MAX];
	struct td_pool *pool;

	ter_list_for_each(pool, &pools->list, link) {
		ter_bus_fs_path(pool->text, path);
		if (strcmp(path, object) == 0)
			return pool;
	}
	return NULL;
}

int td_pools_resolve(struct td_pools *pools, const char *spec, struct td_pool **ret_pool, struct ter_error *error)
{
	uint8_t uuid[16];

	if (strncmp(spec, "terrace:", 8) == 0)
		spec += 8;
	if (strncmp(spec, "UUID=", 5) == 0)
		return by_uuid_text(pools, spec + 5, ret_pool, error);
	if (strncmp(spec, "LABEL=", 6) == 0)
		return by_label(pools, spec + 6, ret_pool, error);
	if (spec[0] == '/') {
		*ret_pool = by_path(pools, spec);
		if (!*ret_pool)
			*ret_pool = by_object(pools, spec);
		return *ret_pool ? 0 : ter_fail(error, TER_ERR_NOT_FOUND, "'%s' is neither a member nor the mount point of a known filesystem.", spec);
	}
	if (ter_uuid_parse(spec, uuid) >= 0)
		return by_uuid_text(pools, spec, ret_pool, error);
	return by_label(pools, spec, ret_pool, error);
}

static bool device_is(const struct ter_dev *dev, const char *uuid_text, const char *label)
{
	char text[TER_UUID_TEXT_BYTES];

	ter_uuid_format(dev->uuid, text);
	return (uuid_text && strcasecmp(text, uuid_text) == 0) || (label && label[0] && strcmp(dev->label, label) == 0);
}

int td_pools_resolve_device(struct td_pools *pools, const char *spec, char ret_uuid[TER_UUID_TEXT_BYTES], struct ter_error *error)
{
	const char *uuid = strncmp(spec, "UUID=", 5) == 0 ? spec + 5 : strncmp(spec, "LABEL=", 6) != 0 ? spec : NULL;
	const char *label = strncmp(spec, "LABEL=", 6) == 0 ? spec + 6 : strncmp(spec, "UUID=", 5) != 0 ? spec : NULL;
	struct td_pool *pool;
	unsigned nr = 0;

	ter_list_for_each(pool, &pools->list, link)
		for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
			const struct ter_dev *dev = &pool->table->dev[i];

			if (!dev->used || !(device_is(dev, uuid, label) || (pool->member[i].path && strcmp(pool->member[i].path, spec) == 0)))
				continue;
			ter_uuid_format(dev->uuid, ret_uuid);
			nr++;
		}
	if (!nr)
		return ter_fail(error, TER_ERR_NOT_FOUND, "There is no member '%s'.", spec);
	if (nr > 1)
		return ter_fail(error, TER_ERR_AMBIGUOUS_NAME, "%u members are called '%s'. Name one by its UUID or path.", nr, spec);
	return 0;
}

bool td_pools_below_mount(struct td_pools *pools, const char *path)
{
	struct td_pool *pool;

	ter_list_for_each(pool, &pools->list, link) {
		const size_t n = pool->mount ? strlen(pool->mount->where) : 0;

		if (n && strncmp(path, pool->mount->where, n) == 0 && (path[n] == '/' || path[n] == 0))
			return true;
	}
	return false;
}
