/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the bus shows of a pool, from its newest sample or, when it does not run, from its members' superblocks. */
#include <stdio.h>

#include "log.h"
#include "pools.h"

static uint64_t bytes_of(uint64_t sectors)
{
	return sectors << TER_SECTOR_SHIFT;
}

static uint64_t us_of(uint64_t ns)
{
	return ns / 1000;
}

/* --- the filesystem --- */

static void fill_identity(const struct td_pool *pool, struct ter_bus_fs *view)
{
	const struct ter_fs_status *status = pool->sample ? &pool->sample->status : NULL;

	snprintf(view->uuid, sizeof(view->uuid), "%s", pool->text);
	snprintf(view->label, sizeof(view->label), "%s", td_pool_label(pool));
	snprintf(view->format_version, sizeof(view->format_version), "%u.%u", pool->sb->version_major, pool->sb->version_minor);
	snprintf(view->compatible_version, sizeof(view->compatible_version), "%u.%u", pool->sb->version_major, TER_FORMAT_MINOR);
	view->created_us = us_of(pool->sb->created_ns);
	view->clean = status ? status->clean : pool->sb->clean;
	view->opened_by = pool->opened_by;
	view->options = status ? status->options : pool->sb->options;
}

static void fill_state(const struct td_pool *pool, struct ter_bus_fs *view)
{
	const struct ter_fs_status *status = pool->sample ? &pool->sample->status : NULL;
	const bool emergency = status && status->access == TER_ACCESS_EMERGENCY_RO;

	snprintf(view->state, sizeof(view->state), "%s", td_pool_states[pool->state]);
	snprintf(view->state_message, sizeof(view->state_message), "%s", pool->message);
	snprintf(view->access, sizeof(view->access), "%s", ter_access_names[status ? status->access : TER_ACCESS_NONE]);
	snprintf(view->requested_mode, sizeof(view->requested_mode), "%s", !pool->fs ? "none" : pool->asked_read_only ? "ro" : "rw");
	if (emergency)
		snprintf(view->access_reason, sizeof(view->access_reason), "%s", status->emergency_reason);
	else if (status && status->access == TER_ACCESS_RO)
		snprintf(view->access_reason, sizeof(view->access_reason), "%s", status->why_read_only[0] ? status->why_read_only : "It was asked for.");
	view->degraded = status && status->degraded;
	snprintf(view->health, sizeof(view->health), "%s",
		 pool->state == TD_POOL_FAILED || emergency ? "failed" : view->degraded || pool->state == TD_POOL_INCOMPLETE ? "degraded" :
		 status && status->errors		     ? "at-risk" : "ok");
	if (status) {
		snprintf(view->recovery_phase, sizeof(view->recovery_phase), "%s", status->why_read_only[0] ? status->why_read_only : status->recovery);
		memcpy(view->passes.row, status->pass, sizeof(view->passes.row));
		view->error_count = status->errors;
		snprintf(view->last_error, sizeof(view->last_error), "%s", status->last_error);
	}
	view->dropped = atomic_load(&pool->events_dropped);
}

static void fill_sources(const struct td_pool *pool, struct ter_bus_fs *view)
{
	struct ter_options defaults;

	ter_options_default(&defaults);
	for (const struct ter_option_info *info = ter_option_table; info->name; info++) {
		const bool same = memcmp((const char *)&defaults + info->offset, (const char *)&view->options + info->offset, info->bytes) == 0;

		snprintf(view->sources.word[info->id], sizeof(view->sources.word[0]), "%s",
			 pool->runtime_options >> info->id & 1 ? "runtime" : same ? "default" : "superblock");
	}
}

static void fill_plugins(const struct td_pool *pool, struct ter_bus_fs *view)
{
	const struct ter_codecs *codecs = pool->pools->engine->env.codecs;

	for (unsigned slot = 1; slot <= TER_ALGO_SLOTS_MAX; slot++) {
		const struct ter_algo_slot *algo = &pool->sb->algos.slot[slot];
		struct ter_bus_plugin_need *need = &view->plugins.need[view->plugins.nr];

		if (!algo->name[0])
			continue;
		snprintf(need->kind, sizeof(need->kind), "%s", ter_plugin_kind_name(algo->kind));
		snprintf(need->name, sizeof(need->name), "%s", algo->name);
		need->slot = (uint8_t)slot;
		need->available = ter_codecs_by_uuid(codecs, algo->kind, algo->uuid) != NULL;
		view->plugins.nr++;
	}
}

static bool online(const struct td_pool *pool, unsigned idx)
{
	if (!pool->sample)
		return false;
	for (unsigned i = 0; i < pool->sample->devs_nr; i++)
		if (pool->sample->dev[i].idx == idx)
			return pool->sample->dev[i].online;
	return false;
}

static bool present(const struct td_pool *pool, unsigned idx)
{
	return online(pool, idx) || (pool->member[idx].path && !pool->member[idx].conflict);
}

static void fill_members(const struct td_pool *pool, struct ter_bus_fs *view)
{
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct ter_dev *dev = &pool->table->dev[i];

		if (!dev->used)
			continue;
		ter_uuid_format(dev->uuid, view->devices.uuid[view->devices.nr++]);
		if (pool->sample ? !online(pool, i) : !present(pool, i))
			ter_uuid_format(dev->uuid, view->missing.uuid[view->missing.nr++]);
		view->last_opened_us = ter_max(view->last_opened_us, us_of(dev->last_mount_ns));
	}
	view->devices_expected = view->devices.nr;
}

static void fill_mount(const struct td_pool *pool, struct ter_bus_fs *view)
{
	view->mounted_by = UINT32_MAX;
	if (!pool->mount)
		return;
	view->mount.mounted = true;
	snprintf(view->mount.where, sizeof(view->mount.where), "%s", pool->mount->where);
	snprintf(view->mount.options, sizeof(view->mount.options), "%s", pool->mount->options);
	view->mount.rw = !pool->mount->read_only && pool->sample && pool->sample->status.access == TER_ACCESS_RW;
	view->mounted_by = pool->mount->uid;
}

static void add_types(const struct ter_dev_usage *from, uint64_t bucket_bytes, struct ter_bus_usage *usage)
{
	for (unsigned t = 0; t < TER_DATA_NR; t++) {
		usage->by_type.buckets[t] += from->buckets[t];
		/* Free buckets have no live sectors; their size says more. */
		usage->by_type.live[t] += t == TER_DATA_FREE || t == TER_DATA_NEED_DISCARD ? from->buckets[t] * bucket_bytes : bytes_of(from->sectors[t]);
		usage->by_type.fragmented[t] += bytes_of(from->fragmented[t]);
	}
	usage->cached += bytes_of(from->sectors[TER_DATA_CACHED]);
}

static void fill_replicas(const struct td_pool *pool, int only_dev, struct ter_bus_usage *usage)
{
	const struct td_sample *sample = pool->sample;

	for (unsigned i = 0; i < sample->devs_nr; i++)
		ter_uuid_format(sample->dev[i].uuid, usage->by_replicas.device[sample->dev[i].idx]);
	for (unsigned i = 0; i < sample->replicas_nr; i++) {
		const struct ter_replicas_entry *entry = &sample->replicas[i].entry;
		bool there = only_dev < 0;

		for (unsigned d = 0; d < entry->nr_devs; d++)
			there |= entry->devs[d] == only_dev;
		if (there)
			usage->by_replicas.row[usage->by_replicas.nr++] = sample->replicas[i];
	}
}

static void fill_usage(const struct td_pool *pool, struct ter_bus_usage *usage)
{
	const struct td_sample *sample = pool->sample;
	const struct ter_fs_usage *u;

	usage->compression_ratio = 1;
	if (!sample)
		return;
	u = &sample->status.usage;
	usage->capacity = bytes_of(u->capacity);
	usage->used = bytes_of(u->used);
	usage->available = bytes_of(u->available);
	usage->reserved = bytes_of(u->reserved);
	usage->hidden = bytes_of(u->hidden);
	usage->inodes = u->inodes;
	usage->updated_us = sample->taken_us;
	if (u->compressed_stored)
		usage->compression_ratio = (double)u->compressed_raw / (double)u->compressed_stored;
	for (unsigned i = 0; i < sample->devs_nr; i++)
		add_types(&sample->dev[i].usage, sample->dev[i].bucket_bytes, usage);
	fill_replicas(pool, -1, usage);
	usage->by_compression.nr = sample->compression_nr;
	memcpy(usage->by_compression.row, sample->compression, sample->compression_nr * sizeof(sample->compression[0]));
}

/* --- its members --- */

static void fill_device_usage(const struct td_pool *pool, const struct ter_fs_device *dev, struct ter_bus_usage *usage)
{
	const struct ter_dev_usage *u = &dev->usage;

	usage->updated_us = pool->sample->taken_us;
	usage->capacity = dev->buckets_nr * dev->bucket_bytes;
	add_types(u, dev->bucket_bytes, usage);
	usage->available = (u->buckets[TER_DATA_FREE] + u->buckets[TER_DATA_NEED_DISCARD]) * dev->bucket_bytes;
	usage->hidden = (u->buckets[TER_DATA_SB] + u->buckets[TER_DATA_JOURNAL]) * dev->bucket_bytes;
	usage->used = usage->capacity - ter_min(usage->capacity, usage->available + usage->hidden);
	fill_replicas(pool, (int)dev->idx, usage);
}

static const struct ter_fs_device *sampled(const struct td_pool *pool, unsigned idx)
{
	for (unsigned i = 0; pool->sample && i < pool->sample->devs_nr; i++)
		if (pool->sample->dev[i].idx == idx)
			return &pool->sample->dev[i];
	return NULL;
}

static void fill_device(const struct td_pool *pool, unsigned idx, struct ter_bus_device *view)
{
	const struct ter_fs_device *now = sampled(pool, idx);
	const struct ter_dev *dev = &pool->table->dev[idx];

	ter_uuid_format(dev->uuid, view->uuid);
	snprintf(view->fs, sizeof(view->fs), "%s", pool->text);
	view->index = idx;
	snprintf(view->path, sizeof(view->path), "%s", now && now->online ? now->path : pool->member[idx].path ? pool->member[idx].path : "");
	snprintf(view->state, sizeof(view->state), "%s", ter_dev_state_names[now ? now->state : dev->state]);
	view->online = now && now->online;
	view->present = present(pool, idx);
	if (view->present && pool->member[idx].hardware)
		view->hardware = *pool->member[idx].hardware;
	if (now && now->online)
		view->hardware.rotational = now->rotational; /* it knows of files, too */
	view->discard = now ? now->discard : dev->discard;
	snprintf(view->label, sizeof(view->label), "%s", dev->label);
	view->durability = now ? now->durability : dev->durability;
	view->size = dev->bytes;
	view->bucket_size = bytes_of(dev->bucket_sectors);
	view->buckets = dev->buckets_nr;
	for (unsigned i = 0; i < TER_JOURNAL_RANGES_MAX && dev->journal[i].nr; i++)
		view->journal_buckets += dev->journal[i].nr;
	view->last_seen_us = us_of(now ? now->last_mount_ns : dev->last_mount_ns);
	view->read_errors = now ? now->errors[TER_DEV_ERR_READ] : dev->errors[TER_DEV_ERR_READ];
	view->write_errors = now ? now->errors[TER_DEV_ERR_WRITE] : dev->errors[TER_DEV_ERR_WRITE];
	view->checksum_errors = now ? now->errors[TER_DEV_ERR_CHECKSUM] : dev->errors[TER_DEV_ERR_CHECKSUM];
	view->flush_errors = now ? now->errors[TER_DEV_ERR_FLUSH] : dev->errors[TER_DEV_ERR_FLUSH];
	view->errors_since_us = us_of(now ? now->errors_since_ns : dev->errors_since_ns);
	view->data_at_risk = now ? now->data_at_risk : 0;
	view->usage.compression_ratio = 1;
	if (now)
		fill_device_usage(pool, now, &view->usage);
}

static void complain(int r, const char *uuid)
{
	if (r < 0 && r != -ENOTCONN)
		td_log(LOG_WARNING, &(struct td_log_about){ .fs_uuid = uuid }, "Filesystem %s cannot be shown on the bus: %s.", uuid, strerror(-r));
}

static void publish_devices(const struct td_pool *pool)
{
	struct ter_bus_device *view = malloc(sizeof(*view));

	for (unsigned i = 0; view && i < TER_DEVS_MAX; i++) {
		if (!pool->table->dev[i].used)
			continue;
		memset(view, 0, sizeof(*view)); /* D4 */
		fill_device(pool, i, view);
		complain(ter_bus_publish_device(pool->pools->bus, view), pool->text);
	}
	free(view);
}

void td_pool_publish(struct td_pool *pool)
{
	struct ter_bus_fs *view = calloc(1, sizeof(*view));

	if (!view) {
		complain(-ENOMEM, pool->text);
		return;
	}
	/* Members first, so that the paths that a new filesystem names are there. */
	publish_devices(pool);
	fill_identity(pool, view);
	fill_state(pool, view);
	fill_sources(pool, view);
	fill_plugins(pool, view);
	fill_members(pool, view);
	fill_mount(pool, view);
	fill_usage(pool, &view->usage);
	td_pool_fill_alerts(pool, view);
	complain(ter_bus_publish_fs(pool->pools->bus, view), pool->text);
	free(view);
}

void td_pool_unpublish(struct td_pool *pool)
{
	char uuid[TER_UUID_TEXT_BYTES];

	ter_bus_remove_fs(pool->pools->bus, pool->text);
	for (unsigned i = 0; pool->table && i < TER_DEVS_MAX; i++) {
		if (!pool->table->dev[i].used)
			continue;
		ter_uuid_format(pool->table->dev[i].uuid, uuid);
		ter_bus_remove_device(pool->pools->bus, uuid);
	}
}

void td_pools_deliver(void *arg, struct td_sample *sample)
{
	struct td_pools *pools = arg;
	struct td_pool *pool;

	ter_list_for_each(pool, &pools->list, link) {
		if (!pool->fs || pool->fs != sample->fs)
			continue;
		/* Between two periods a kick brings news of state and errors; usage keeps its own, slower pace. */
		if (pool->sample && sample->taken_us - pool->sample->taken_us < TD_SAMPLE_MS * 900ull) {
			sample->status.usage = pool->sample->status.usage;
			for (unsigned i = 0; i < sample->devs_nr && i < pool->sample->devs_nr; i++)
				sample->dev[i].usage = pool->sample->dev[i].usage;
			sample->replicas_nr = pool->sample->replicas_nr;
			memcpy(sample->replicas, pool->sample->replicas, sizeof(sample->replicas));
			sample->compression_nr = pool->sample->compression_nr;
			memcpy(sample->compression, pool->sample->compression, sizeof(sample->compression));
			sample->taken_us = pool->sample->taken_us;
		}
		free(pool->sample);
		pool->sample = sample;
		td_pool_publish(pool);
		return;
	}
	free(sample);
}

/* --- plugins --- */

static bool uses(const struct td_pool *pool, const struct ter_plugin_entry *entry)
{
	for (unsigned slot = 1; slot <= TER_ALGO_SLOTS_MAX; slot++) {
		const struct ter_algo_slot *algo = &pool->sb->algos.slot[slot];

		if (algo->name[0] && algo->kind == entry->kind && memcmp(algo->uuid, entry->uuid, 16) == 0)
			return true;
	}
	return false;
}

static void fill_plugin(struct td_pools *pools, const struct ter_plugin_entry *entry, struct ter_bus_plugin *view)
{
	static const uint8_t none[16];
	const struct td_pool *pool;

	snprintf(view->kind, sizeof(view->kind), "%s", ter_plugin_kind_name(entry->kind));
	snprintf(view->name, sizeof(view->name), "%s", entry->name);
	if (memcmp(entry->uuid, none, 16) != 0)
		ter_uuid_format(entry->uuid, view->uuid);
	snprintf(view->version, sizeof(view->version), "%s", entry->version);
	snprintf(view->state, sizeof(view->state), "%s", ter_plugin_state_name(entry->state));
	snprintf(view->error, sizeof(view->error), "%s", entry->error);
	snprintf(view->file, sizeof(view->file), "%s", entry->file);
	snprintf(view->licence, sizeof(view->licence), "%s", entry->licence);
	view->abi_major = TERRACE_PLUGIN_ABI_MAJOR;
	view->level_min = entry->level_min;
	view->level_max = entry->level_max;
	/* A plugin is loaded, or shadowed by a better one, only after its self-test passed. */
	snprintf(view->self_test, sizeof(view->self_test), "%s", entry->state != TER_PLUGIN_FAILED ? "passed" : entry->kind ? "failed" : "not-run");
	snprintf(view->implementation, sizeof(view->implementation), "%s", entry->impl);
	ter_list_for_each(pool, &pools->list, link)
		if (entry->state == TER_PLUGIN_LOADED && uses(pool, entry) && view->used_by.nr < TER_BUS_ROWS_MAX)
			snprintf(view->used_by.fs[view->used_by.nr++], TER_UUID_TEXT_BYTES, "%s", pool->text);
}

void td_pools_publish_plugins(struct td_pools *pools)
{
	const struct ter_plugins *plugins = pools->engine->plugins;
	struct ter_bus_plugin *view = malloc(sizeof(*view));

	for (unsigned i = 0; view && i < ter_plugins_nr(plugins); i++) {
		memset(view, 0, sizeof(*view)); /* D4 */
		fill_plugin(pools, ter_plugins_entry(plugins, i), view);
		complain(ter_bus_publish_plugin(pools->bus, i, view), view->name);
	}
	free(view);
}
