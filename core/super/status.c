/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Snapshots for whoever looks: copied under short locks, never waiting for I/O. */
#include <stdio.h>

#include "alloc/accounting.h"
#include "super/super_priv.h"

struct ter_vfs *ter_fs_vfs(struct ter_fs *fs)
{
	return fs->vfs;
}

static bool rooms_stand(const struct ter_fs *fs)
{
	return fs->state == TER_FS_RUNNING || fs->state == TER_FS_STOPPING;
}

void ter_fs_get_status(struct ter_fs *fs, struct ter_fs_status *ret)
{
	*ret = (struct ter_fs_status){ 0 };
	ter_lock_acquire(&fs->sb.lock);
	memcpy(ret->uuid, fs->sb.sb->uuid, 16);
	memcpy(ret->user_uuid, fs->sb.sb->user_uuid, 16);
	snprintf(ret->label, sizeof(ret->label), "%s", fs->sb.sb->label);
	ret->clean = fs->sb.sb->clean;
	ret->passes_required = fs->sb.sb->passes_required;
	ret->passes_unfixed = fs->sb.sb->passes_unfixed;
	ret->version_major = fs->sb.sb->version_major;
	ret->version_minor = fs->sb.sb->version_minor;
	ret->created_ns = fs->sb.sb->created_ns;
	ret->options = fs->sb.sb->options;
	ret->block_bytes = fs->sb.sb->options.block_size;
	ret->bucket_bytes = fs->sb.sb->options.bucket_size;
	ter_lock_release(&fs->sb.lock);
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		ret->devs_nr += fs->members->dev[i].used;
		ret->devs_online += fs->members->dev[i].used && fs->members->dev[i].bdev;
	}

	ter_lock_acquire(&fs->status);
	ret->state = fs->state;
	ret->access = fs->access;
	ret->degraded = fs->degraded;
	ret->errors = fs->errors;
	snprintf(ret->last_error, sizeof(ret->last_error), "%s", fs->last_error);
	snprintf(ret->emergency_reason, sizeof(ret->emergency_reason), "%s", fs->emergency_reason);
	snprintf(ret->why_read_only, sizeof(ret->why_read_only), "%s", fs->why_read_only);
	memcpy(ret->pass, fs->pass, sizeof(ret->pass));
	snprintf(ret->recovery, sizeof(ret->recovery), "%s", fs->recovery);
	ter_lock_release(&fs->status);

	if (!rooms_stand(fs))
		return;
	ter_alloc_fs_usage(fs->alloc, &ret->usage);
	ter_btrees_get_stats(fs->btrees, &ret->btree);
	ter_data_get_stats(fs->data, &ret->data);
	if (fs->journal)
		ter_journal_get_stats(fs->journal, &ret->journal);
}

const char *ter_fs_describe(struct ter_fs *fs, char *buf, size_t bytes)
{
	struct ter_options options, defaults;
	size_t used;

	ter_lock_acquire(&fs->sb.lock);
	options = fs->sb.sb->options;
	used = (size_t)snprintf(buf, bytes, "format %u.%u", fs->sb.sb->version_major, fs->sb.sb->version_minor);
	ter_lock_release(&fs->sb.lock);
	ter_options_default(&defaults);
	for (const struct ter_option_info *info = ter_option_table; info->name && used < bytes; info++) {
		char text[TER_OPT_ALGO_MAX], def[TER_OPT_ALGO_MAX];

		if (ter_option_get_text(&options, info, text, sizeof(text)) < 0 || ter_option_get_text(&defaults, info, def, sizeof(def)) < 0 || !strcmp(text, def))
			continue;
		used += (size_t)snprintf(buf + used, bytes - used, ", %s=%s", info->name, text);
	}
	return buf;
}

static void fill_device(struct ter_fs *fs, const struct ter_dev *dev, struct ter_fs_device *ret)
{
	*ret = (struct ter_fs_device){
		.idx = dev->idx, .state = dev->state, .online = dev->bdev != NULL, .discard = dev->discard, .durability = dev->durability,
		.bytes = dev->bytes, .bucket_bytes = (uint64_t)dev->bucket_sectors << TER_SECTOR_SHIFT, .buckets_nr = dev->buckets_nr,
		.last_mount_ns = dev->last_mount_ns, .errors_since_ns = dev->errors_since_ns,
	};
	memcpy(ret->uuid, dev->uuid, 16);
	snprintf(ret->label, sizeof(ret->label), "%s", dev->label);
	if (dev->bdev) {
		snprintf(ret->path, sizeof(ret->path), "%s", dev->bdev->path);
		ret->rotational = dev->bdev->info.rotational;
		ret->direct = dev->bdev->info.direct;
		ret->is_file = dev->bdev->info.is_file;
	}
	for (unsigned i = 0; i < TER_JOURNAL_RANGES_MAX && dev->journal[i].nr; i++)
		ret->journal_buckets += dev->journal[i].nr;
	for (unsigned i = 0; i < TER_DEV_ERR_NR; i++)
		ret->errors[i] = dev->errors[i];
	if (rooms_stand(fs))
		(void)ter_alloc_dev_usage(fs->alloc, dev->idx, &ret->usage); /* stays zero for a member the allocator does not know */
}

/* Bytes in device sets whose only online member is @dev_idx. */
static uint64_t at_risk(const struct ter_fs_replicas_row *rows, unsigned nr, unsigned dev_idx, uint64_t online)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < nr; i++) {
		uint64_t mask = 0;

		for (unsigned d = 0; d < rows[i].entry.nr_devs; d++)
			mask |= 1ull << rows[i].entry.devs[d];
		if ((mask & online) == 1ull << dev_idx && rows[i].entry.data_type != TER_DATA_CACHED)
			bytes += rows[i].bytes;
	}
	return bytes;
}

static unsigned get_devices(struct ter_fs *fs, struct ter_fs_device *ret, unsigned max, bool missing_only)
{
	struct ter_fs_replicas_row rows[64];
	const unsigned rows_nr = ter_fs_get_replicas(fs, rows, ARRAY_SIZE(rows));
	const uint64_t online = ter_super_online_mask(fs->members);
	unsigned nr = 0;

	for (unsigned i = 0; i < TER_DEVS_MAX && nr < max; i++) {
		const struct ter_dev *dev = &fs->members->dev[i];

		if (!dev->used || (missing_only && dev->bdev))
			continue;
		fill_device(fs, dev, &ret[nr]);
		if (dev->bdev)
			ret[nr].data_at_risk = at_risk(rows, rows_nr, i, online);
		nr++;
	}
	return nr;
}

unsigned ter_fs_get_devices(struct ter_fs *fs, struct ter_fs_device *ret, unsigned max)
{
	return get_devices(fs, ret, max, false);
}

unsigned ter_fs_get_missing(struct ter_fs *fs, struct ter_fs_device *ret, unsigned max)
{
	return get_devices(fs, ret, max, true);
}

unsigned ter_fs_get_replicas(struct ter_fs *fs, struct ter_fs_replicas_row *ret, unsigned max)
{
	const uint64_t online = ter_super_online_mask(fs->members);
	unsigned nr = 0;

	if (!rooms_stand(fs))
		return 0;
	ter_lock_acquire(&fs->sb.lock);
	for (unsigned i = 0; i < fs->sb.sb->replicas_nr && nr < max; i++) {
		const struct ter_replicas_entry *e = &fs->sb.sb->replicas[i];
		unsigned here = 0;

		if (e->data_type != TER_DATA_USER && e->data_type != TER_DATA_BTREE && e->data_type != TER_DATA_CACHED)
			continue;
		ret[nr] = (struct ter_fs_replicas_row){ .entry = *e };
		ret[nr].bytes = ter_alloc_replicas_sectors(fs->alloc, e) << TER_SECTOR_SHIFT;
		for (unsigned d = 0; d < e->nr_devs; d++)
			here += online >> e->devs[d] & 1;
		if (here < e->nr_devs)
			ret[nr].degraded_bytes = ret[nr].bytes;
		if (ret[nr].bytes)
			nr++;
	}
	ter_lock_release(&fs->sb.lock);
	return nr;
}

unsigned ter_fs_get_compression(struct ter_fs *fs, struct ter_fs_compression_row *ret, unsigned max)
{
	unsigned nr = 0;

	if (!rooms_stand(fs))
		return 0;
	for (unsigned slot = 1; slot <= TER_ALGO_SLOTS_MAX && nr < max; slot++) {
		struct ter_fs_compression_row row = { 0 };
		uint64_t extents, raw, stored;

		if (!ter_algos_compression(&fs->sb.sb->algos, slot))
			continue;
		ter_alloc_compression(fs->alloc, slot, &extents, &raw, &stored);
		snprintf(row.name, sizeof(row.name), "%s", fs->sb.sb->algos.slot[slot].name);
		row.extents = extents;
		row.raw_bytes = raw << TER_SECTOR_SHIFT;
		row.stored_bytes = stored << TER_SECTOR_SHIFT;
		ret[nr++] = row;
	}
	return nr;
}
