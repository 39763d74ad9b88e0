/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Assembling a pool: claim the members, believe the newest superblock, decide whether it may start. */
#include <stdio.h>
#include <unistd.h>

#include "super/super_priv.h"
#include "util/fault.h"
#include "util/mem.h"
#include "util/uuid.h"

TER_FAULT_POINT(fault_open, "super.open", EIO, "the opening of a filesystem, its members claimed")
TER_FAULT_POINT(fault_alloc, "super.alloc", ENOMEM, "the making of a filesystem's object")
TER_FAULT_POINT(fault_member, "super.member", EIO, "the taking in of one member")

/* One member as found, before it is known whether it belongs. */
struct found {
	struct ter_bdev *bdev;
	struct ter_sb_read_result read;
};

static void found_release(struct found *found, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		ter_sb_free(found[i].read.sb);
		free(found[i].read.members);
		ter_bdev_close(found[i].bdev);
	}
	free(found);
}

struct found_set {
	struct found *found;
	unsigned nr;
};

static void found_set_release(struct found_set *set)
{
	if (set->found)
		found_release(set->found, set->nr);
}

static bool same_node(const struct ter_bdev *a, const struct ter_bdev *b)
{
	if (a->info.rdev || b->info.rdev)
		return a->info.rdev == b->info.rdev;
	return (a->info.file_ino || a->info.file_dev) && a->info.file_dev == b->info.file_dev && a->info.file_ino == b->info.file_ino;
}

/* Two names of one node would fail to open the second time with a message about another daemon: say what it is instead. */
static int check_names(const char *const *paths, unsigned nr, struct ter_error *error)
{
	struct ter_bdev_node a, b;

	for (unsigned i = 0; i < nr; i++) {
		if (ter_bdev_node_of(paths[i], &a) < 0)
			continue; /* opening explains */
		for (unsigned k = 0; k < i; k++) {
			if (ter_bdev_node_of(paths[k], &b) == 0 && ter_bdev_node_same(&a, &b))
				return ter_fail(error, TER_ERR_INVALID_ARGUMENT, strcmp(paths[i], paths[k]) ?
						"'%s' and '%s' are the same device. Name each device once." :
						"The device '%s' is named twice ('%s'). Name each device once.", paths[k], paths[i]);
		}
	}
	return 0;
}

static int fail_no_member(const char *path, struct ter_error *error)
{
	ter_error_clear(error); /* reading explained it for those who look at any device */
	return ter_fail(error, TER_ERR_DEVICE_FOREIGN, "'%s' is not a member of a Terrace filesystem. If it was one, it has lost its beginning or "
			"became too small. Leave it out, or bring back what it held.", path);
}

static int claim_all(const struct ter_env *env, const struct ter_open_params *params, struct found_set *set, struct ter_error *error)
{
	int r;

	r = check_names(params->paths, params->paths_nr, error);
	if (r < 0)
		return r;
	set->found = ter_new_array(struct found, params->paths_nr);
	if (!set->found)
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to open the filesystem.");
	for (unsigned i = 0; i < params->paths_nr; i++) {
		struct found *f = &set->found[i];

		r = ter_bdev_open(env->io, params->paths[i], params->read_only ? TER_OPEN_RDONLY : 0, &f->bdev, error);
		if (r < 0)
			return r;
		set->nr = i + 1;
		r = ter_sb_read(env->exec, f->bdev, &f->read, error);
		if (r == -ENODATA)
			return fail_no_member(params->paths[i], error);
		if (r < 0)
			return ter_fail_errno(error, r, "'%s': the superblock cannot be read.", params->paths[i]);
	}
	return 0;
}

/* Which superblock is the truth; all others must be of the same pool. */
static int choose_newest(struct found_set *set, unsigned *ret_best, struct ter_error *error)
{
	unsigned best = 0;

	for (unsigned i = 1; i < set->nr; i++) {
		const struct ter_sb *a = set->found[i].read.sb, *b = set->found[0].read.sb;

		if (memcmp(a->uuid, b->uuid, 16))
			return ter_fail(error, TER_ERR_DEVICE_FOREIGN, "'%s' and '%s' are members of different filesystems.",
					set->found[0].bdev->path, set->found[i].bdev->path);
		if (a->options.block_size != b->options.block_size)
			return ter_fail(error, TER_ERR_BLOCK_SIZE_MISMATCH, "'%s' and '%s' disagree about the block size of their filesystem.",
					set->found[0].bdev->path, set->found[i].bdev->path);
		if (a->seq > set->found[best].read.sb->seq)
			best = i;
	}
	*ret_best = best;
	return 0;
}

/* The path of @i, whether or not its device is in its slot already. */
static const char *path_of(const struct found_set *set, unsigned i, const struct ter_members *members)
{
	return set->found[i].bdev ? set->found[i].bdev->path : members->dev[set->found[i].read.dev_idx].bdev->path;
}

/* Put each open device into its slot of the newest member table. Devices that have been removed from the pool are closed and left alone. */
static int attach_all(struct found_set *set, unsigned best, struct ter_members *members, const struct ter_sb *sb, struct ter_error *error)
{
	for (unsigned i = 0; i < set->nr; i++) {
		struct found *f = &set->found[i];
		const struct ter_dev *own = &f->read.members->dev[f->read.dev_idx];
		struct ter_dev *dev = ter_member(members, f->read.dev_idx);

		if (TER_FAULT(fault_member) < 0)
			return ter_fail(error, TER_ERR_FAULT_INJECTED, "'%s': taking the member in failed because a test asked for it.", f->bdev->path);
		if (!dev || memcmp(dev->uuid, own->uuid, 16)) {
			if (i == best || set->nr == 1)
				return ter_fail(error, TER_ERR_CORRUPTED, "'%s': the superblock does not list its own device.", f->bdev->path);
			return ter_fail(error, TER_ERR_DEVICE_REMOVED, "'%s' was a member of this filesystem and has been removed from it.",
					f->bdev->path);
		}
		if (dev->bdev)
			return ter_fail(error, TER_ERR_DEVICE_FOREIGN, same_node(dev->bdev, f->bdev) ? "'%s' and '%s' are the same device." :
					"'%s' and '%s' are copies of one member: only one of them can be used. Take the copy away.",
					dev->bdev->path, f->bdev->path);
		if (i != best && f->read.sb->seq > dev->seen_seq)
			return ter_fail(error, TER_ERR_SPLIT_BRAIN,
					"'%s' and '%s' were written separately since they were last together: they hold two histories. "
					"Start with the members of one side only.",
					path_of(set, best, members), f->bdev->path);
		if (f->bdev->info.bytes < dev->bytes)
			return ter_fail(error, TER_ERR_DEVICE_TOO_SMALL, "'%s' has %llu bytes, but the member was made with %llu: it shrank. "
					"Leave it out, or bring back what it held.",
					f->bdev->path, (unsigned long long)f->bdev->info.bytes, (unsigned long long)dev->bytes);
		if (f->bdev->info.logical_block_bytes > sb->options.block_size)
			return ter_fail(error, TER_ERR_BLOCK_SIZE_MISMATCH,
					"'%s' has blocks of %u bytes, larger than the filesystem's %u.", f->bdev->path,
					f->bdev->info.logical_block_bytes, sb->options.block_size);
		dev->written_seq = f->read.bad_copies & 1 ? 0 : f->read.sb->seq; /* slot 0 may be older: a write was cut off */
		dev->bdev = TAKE_PTR(f->bdev);
	}
	return 0;
}

uint64_t ter_super_online_mask(const struct ter_members *members)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (members->dev[i].used && members->dev[i].bdev)
			mask |= 1ull << i;
	return mask;
}

static void list_missing(const struct ter_members *members, char *buf, size_t bytes, unsigned *ret_nr)
{
	size_t used = 0;

	buf[0] = 0;
	*ret_nr = 0;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct ter_dev *dev = &members->dev[i];
		char uuid[40];
		int n;

		if (!dev->used || dev->bdev || dev->state == TER_DEV_FAILED || dev->state == TER_DEV_SPARE)
			continue;
		ter_uuid_format(dev->uuid, uuid);
		n = snprintf(buf + used, bytes - used, "%smember %u%s%s%s (%s)", *ret_nr ? ", " : "", i, dev->label[0] ? " '" : "", dev->label,
			     dev->label[0] ? "'" : "", uuid);
		(*ret_nr)++;
		if (n < 0 || (size_t)n >= bytes - used)
			break; /* the first few name enough */
		used += (size_t)n;
	}
}

/* The replicas gate: what is missing, what that means, and whether `degraded` allows it. */
static int check_members(struct ter_fs *fs, int degraded, struct ter_error *error)
{
	const char *name = fs->sb.sb->label[0] ? fs->sb.sb->label : "without a label";
	struct ter_replicas_answer answer;
	char missing[512];
	unsigned nr;

	list_missing(fs->members, missing, sizeof(missing), &nr);
	ter_sb_replicas_check(fs->sb.sb, fs->members, ter_super_online_mask(fs->members), &answer);
	fs->degraded = nr > 0;
	if (!nr)
		return 0;
	if (degraded == TER_DEGRADED_NO)
		return ter_fail(error, TER_ERR_INCOMPLETE, "Filesystem '%s': missing %s. It was asked not to start degraded.", name, missing);
	if (answer.metadata_lost)
		return ter_fail(error, TER_ERR_WOULD_LOSE_METADATA, "Filesystem '%s': missing %s. Metadata lies only there: it cannot start without.",
				name, missing);
	if (answer.data_lost && degraded != TER_DEGRADED_VERY)
		return ter_fail(error, TER_ERR_DEGRADED,
				"Filesystem '%s': missing %s. Some files lie only there and could not be read. To start all the same: "
				"--degraded=very.", name, missing);
	if (degraded == TER_DEGRADED_ASK)
		return ter_fail(error, TER_ERR_DEGRADED,
				"Filesystem '%s': missing %s. Everything can be read, but copies are missing. To start all the same: "
				"--degraded=yes.", name, missing);
	return 0;
}

struct ter_fs *ter_super_new(const struct ter_env *env, struct ter_sb *sb, struct ter_members *members)
{
	struct ter_fs *fs = TER_FAULT(fault_alloc) < 0 ? NULL : ter_new(struct ter_fs);

	if (!fs)
		return NULL;
	fs->env = *env;
	ter_lock_init(&fs->life, TER_RANK_FS_STATE);
	ter_lock_init(&fs->status, TER_RANK_LEAF);
	ter_list_init(&fs->late_keys);
	ter_lock_init(&fs->sb.lock, TER_RANK_SB);
	ter_lock_init(&fs->sb.write_lock, TER_RANK_SB_WRITE);
	fs->sb.exec = env->exec;
	fs->sb.sb = sb;
	fs->sb.members = fs->members = members;
	members->on_error = ter_super_on_dev_error;
	members->on_error_arg = fs;
	return fs;
}

/*
 * What a superblock says is no promise of this machine: the pool may come from a larger one, or from somebody who means harm. Tables are made for the whole limit at once. Who
 * wants more says so at open.
 */
static uint64_t memory_for_one(void)
{
	const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);

	return ter_max(pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes / 2 : 0, TER_MIB(64));
}

int ter_fs_open(const struct ter_env *env, const struct ter_open_params *params, ter_fs_event_fn on_event, void *event_arg, struct ter_fs **ret_fs,
		struct ter_error *error)
{
	_cleanup_(found_set_release) struct found_set set = { 0 };
	const struct ter_codecs *codecs = env->codecs;
	struct ter_fs *fs;
	unsigned best = 0;
	int r;

	if (!params->paths_nr)
		return ter_fail(error, TER_ERR_DEVICE_MISSING, "No member of the filesystem was named.");
	r = claim_all(env, params, &set, error);
	if (r < 0)
		return r;
	r = choose_newest(&set, &best, error);
	if (r < 0)
		return r;
	if (TER_FAULT(fault_open) < 0)
		return ter_fail(error, TER_ERR_FAULT_INJECTED, "Opening the filesystem failed because a test asked for it.");
	if (!set.found[best].read.sb->initialized)
		return ter_fail(error, TER_ERR_INCOMPLETE, "The format of this filesystem was interrupted. Format '%s' again with --force.",
				set.found[best].bdev->path);
	r = codecs ? 0 : env->codecs_get(env->codecs_arg, &codecs, error);
	if (r < 0)
		return r;
	r = ter_sb_bind_algos(set.found[best].read.sb, codecs, error);
	if (r < 0)
		return r;

	fs = ter_super_new(env, set.found[best].read.sb, set.found[best].read.members);
	if (!fs)
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to open the filesystem.");
	fs->env.codecs = codecs;
	r = attach_all(&set, best, fs->members, fs->sb.sb, error);
	set.found[best].read.sb = NULL; /* the pool's now, as are the member records below */
	if (r >= 0)
		r = check_members(fs, params->degraded >= 0 ? params->degraded : fs->sb.sb->options.degraded, error);
	/* Whoever still needs set.found[best].read.members through attach_all() is done. */
	set.found[best].read.members = NULL;
	if (r < 0) {
		ter_fs_close(fs);
		return r;
	}
	fs->on_event = on_event;
	fs->event_arg = event_arg;
	fs->read_only = fs->opened_read_only = params->read_only;
	fs->check_first = params->check;
	fs->fsck_memory = params->fsck_memory;
	fs->fsck_memory_most = memory_for_one();
	fs->memory_limit = params->memory_limit ? params->memory_limit : ter_min(fs->sb.sb->options.memory_limit, memory_for_one());
	*ret_fs = fs;
	return 0;
}
