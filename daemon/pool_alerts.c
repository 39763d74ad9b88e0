/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Alerts: what somebody should know of a pool and do something about, derived from what the bus shows of it anyway
 *
 * Nothing is kept but since when each stands. A sentence says nothing that changes while the alert stands (no counts), so it is told once. The worst come first, and no file is named.
 */
#include <stdarg.h>
#include <stdio.h>

#include "pools.h"

#define MEMBERS_NAMED_MAX 4     /* in one sentence */
#define MEMBERS_ALERTED_MAX 8   /* alerts of their own; the rest shares one */
#define LIST_BYTES 512

static void add(struct ter_bus_alerts *alerts, const char *severity, const char *id, const char *fmt, ...) TER_PRINTF(4, 5);
static void add(struct ter_bus_alerts *alerts, const char *severity, const char *id, const char *fmt, ...)
{
	struct ter_bus_alert *alert = &alerts->alert[alerts->nr];
	va_list ap;

	if (alerts->nr == TER_BUS_ALERTS_MAX)
		return; /* the worst stand already */
	alerts->nr++;
	snprintf(alert->severity, sizeof(alert->severity), "%s", severity);
	snprintf(alert->id, sizeof(alert->id), "%s", id);
	va_start(ap, fmt);
	vsnprintf(alert->message, sizeof(alert->message), fmt, ap);
	va_end(ap);
}

/* As a person types it behind terracectl. */
static const char *name_of(const struct td_pool *pool)
{
	return td_pool_label(pool)[0] ? td_pool_label(pool) : pool->text;
}

static void add_errors(const struct td_pool *pool, struct ter_bus_alerts *alerts)
{
	const struct ter_fs_status *status = pool->sample ? &pool->sample->status : NULL;
	const uint64_t passes = status ? status->passes_required | status->passes_unfixed : pool->sb->passes_required | pool->sb->passes_unfixed;
	const char *name = name_of(pool);
	char text[128];

	if (status && status->access == TER_ACCESS_EMERGENCY_RO)
		add(alerts, "critical", "emergency-read-only", "Filesystem '%s': %s To write to it again: terracectl stop %s, then terracectl start %s.", name,
		    status->emergency_reason, name, name);
	if (pool->state == TD_POOL_FAILED)
		add(alerts, "critical", "failed", "Filesystem '%s' failed: %s", name, pool->message);
	if (pool->conflict)
		add(alerts, "critical", "conflict", "Filesystem '%s' cannot be started: %s", name, pool->message);
	if (status && status->why_read_only[0])
		add(alerts, "critical", "errors-unrepaired", "Filesystem '%s': %s", name, status->why_read_only);
	else if (passes)
		add(alerts, "warning", "checks-required", "Errors were met in filesystem '%s': its next start checks %s before anything is written. To repair it: "
		    "terracectl stop %s, then terracectl fsck --repair %s.", name, ter_passes_text(passes, text, sizeof(text)), name, name);
	if (pool->damaged)
		add(alerts, "critical", "damaged-files", "Files of filesystem '%s' have lost data. Which ones: terracectl damaged %s. Put them back from a backup.",
		    name, name);
}

static void add_plugins(const struct td_pool *pool, const struct ter_bus_fs *view, struct ter_bus_alerts *alerts)
{
	char id[TER_BUS_ALERT_ID_MAX];

	for (unsigned i = 0; i < view->plugins.nr; i++) {
		const struct ter_bus_plugin_need *need = &view->plugins.need[i];

		if (need->available)
			continue;
		snprintf(id, sizeof(id), "plugin-%s", need->name);
		add(alerts, "critical", id, "Filesystem '%s' needs %s '%s', and no plugin that was found has it. Install it and restart the daemon.", name_of(pool),
		    need->kind, need->name);
	}
}

/* "member 1 (UUID), member 2 'ssd' (UUID) and 3 more" */
static void list_missing(const struct td_pool *pool, const struct ter_bus_fs *view, char ret[LIST_BYTES])
{
	size_t used = 0;

	for (unsigned i = 0, nr = 0; i < TER_DEVS_MAX && nr < ter_min(view->missing.nr, MEMBERS_NAMED_MAX); i++) {
		const struct ter_dev *dev = &pool->table->dev[i];
		char uuid[TER_UUID_TEXT_BYTES];

		ter_uuid_format(dev->uuid, uuid);
		if (!dev->used || strcmp(uuid, view->missing.uuid[nr]) != 0)
			continue;
		used += (size_t)snprintf(ret + used, LIST_BYTES - used, "%smember %u%s%s%s (%s)", nr ? ", " : "", i, dev->label[0] ? " '" : "", dev->label,
					 dev->label[0] ? "'" : "", uuid);
		nr++;
	}
	if (view->missing.nr > MEMBERS_NAMED_MAX)
		snprintf(ret + used, LIST_BYTES - used, " and %u more", view->missing.nr - MEMBERS_NAMED_MAX);
}

static void add_missing(const struct td_pool *pool, const struct ter_bus_fs *view, struct ter_bus_alerts *alerts)
{
	const char *name = name_of(pool);
	char list[LIST_BYTES] = "";

	if (!view->missing.nr || pool->conflict)
		return;
	list_missing(pool, view, list);
	if (pool->sample)
		add(alerts, "warning", "missing-members", "Filesystem '%s' runs without %s: what lies there has fewer copies. Bring it back, then: terracectl stop %s, "
		    "and terracectl start %s.", name, list, name, name);
	else
		add(alerts, "warning", "missing-members", "Filesystem '%s' misses %s. Bring it back, or go on without it: terracectl start --degraded=yes %s.", name,
		    list, name);
}

static const char *const error_words[TER_DEV_ERR_NR] = {
	[TER_DEV_ERR_READ] = "failed reads", [TER_DEV_ERR_WRITE] = "failed writes", [TER_DEV_ERR_CHECKSUM] = "wrong checksums", [TER_DEV_ERR_FLUSH] = "failed flushes",
};

/* What happened since the start: the table is as it was found then. */
static bool list_errors(const struct td_pool *pool, const struct ter_fs_device *dev, char *ret, size_t bytes)
{
	size_t used = 0;

	for (unsigned kind = 0; kind < TER_DEV_ERR_NR; kind++)
		if (dev->errors[kind] > pool->table->dev[dev->idx].errors[kind])
			used += (size_t)snprintf(ret + used, bytes - used, "%s%s", used ? ", " : "", error_words[kind]);
	return used > 0;
}

static void add_device_errors(const struct td_pool *pool, struct ter_bus_alerts *alerts)
{
	unsigned nr = 0;

	for (unsigned i = 0; pool->sample && i < pool->sample->devs_nr; i++) {
		const struct ter_fs_device *dev = &pool->sample->dev[i];
		char uuid[TER_UUID_TEXT_BYTES], id[TER_BUS_ALERT_ID_MAX], list[128];

		if (!list_errors(pool, dev, list, sizeof(list)) || ++nr > MEMBERS_ALERTED_MAX)
			continue;
		ter_uuid_format(dev->uuid, uuid);
		snprintf(id, sizeof(id), "device-errors-%s", uuid);
		add(alerts, dev->state == TER_DEV_FAILED ? "critical" : "warning", id,
		    "Member %u of filesystem '%s' (%s) had errors since the start: %s. Look at its cable and its health; if this repeats, replace it.", dev->idx,
		    name_of(pool), dev->online ? dev->path : uuid, list);
	}
	if (nr > MEMBERS_ALERTED_MAX)
		add(alerts, "warning", "device-errors-more", "More members of filesystem '%s' had errors since the start. All are shown by: terracectl status %s.",
		    name_of(pool), name_of(pool));
}

static uint64_t since(const struct ter_bus_alerts *known, const char *id, uint64_t now)
{
	for (unsigned i = 0; i < known->nr; i++)
		if (strcmp(known->alert[i].id, id) == 0)
			return known->alert[i].since_us;
	return now;
}

void td_pool_fill_alerts(struct td_pool *pool, struct ter_bus_fs *view)
{
	struct ter_bus_alerts *alerts = &view->alerts;

	add_errors(pool, alerts);
	add_plugins(pool, view, alerts);
	add_missing(pool, view, alerts);
	add_device_errors(pool, alerts);
	for (unsigned i = 0; i < alerts->nr; i++)
		alerts->alert[i].since_us = since(&pool->alerts, alerts->alert[i].id, td_real_us());
	pool->alerts = *alerts;
}
