/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Format: check everything, write superblocks that say "not initialised", run the empty pool once, stop it cleanly. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "super/format_undo.h"
#include "super/super_priv.h"
#include "util/fault.h"
#include "util/mem.h"
#include "util/uuid.h"

#define BUCKET_BYTES_DEFAULT_MIN TER_KIB(256)
#define BUCKET_BYTES_SMALL_MIN TER_KIB(64)
#define BUCKET_BYTES_MAX TER_MIB(16)
#define BUCKETS_PER_MEMBER_MAX (1ull << 20)
#define NODE_BYTES_SMALL TER_KIB(64)
#define NODE_BYTES_MAX (512u << 10)
#define NODE_BLOCKS_MIN 8u /* a node takes several writes before it must be rewritten: else writing nodes makes more nodes to write */
#define LOGICAL_BLOCK_MAX 4096u /* superblock copies lie at multiples of it */
#define JOURNAL_SHARE 128 /* of a member */
#define JOURNAL_BYTES_MAX TER_MIB(256)
#define JOURNAL_SHARE_MAX 16 /* of a member that is so small that the share above is a small ring (J8) */

TER_FAULT_POINT(fault_format, "super.format", EIO, "a format, its members checked and nothing written")

struct format_dev {
	const struct ter_format_dev *param;
	struct ter_bdev *bdev;
	uint64_t grown_from; /* a file made larger: its size before; UINT64_MAX: not */
	struct ter_undo *undo; /* L2: what is written is put back if the format fails */
};

struct format {
	const struct ter_env *env;
	const struct ter_format_params *params;
	struct ter_options options;
	struct format_dev dev[TER_DEVS_MAX];
	unsigned nr;
};

static int check_params(struct format *f, struct ter_error *error)
{
	const struct ter_format_params *p = f->params;
	const unsigned replicas = ter_max(p->options->data_replicas, p->options->metadata_replicas);
	int r;

	if (!p->devs_nr)
		return ter_fail(error, TER_ERR_INSUFFICIENT_DEVICES, "Name at least one device or file to format.");
	if (p->devs_nr > TER_DEVS_MAX)
		return ter_fail(error, TER_ERR_LIMIT_EXCEEDED, "A filesystem has at most %u members; %u were named.", TER_DEVS_MAX, p->devs_nr);
	if (p->label && !ter_label_valid(p->label, error))
		return -EINVAL;
	/* What depends on the block follows it, unless that was given too. */
	f->options.checksum_block = ter_max(f->options.checksum_block, f->options.block_size);
	f->options.btree_node_size = ter_max(f->options.btree_node_size, ter_min(NODE_BLOCKS_MIN * f->options.block_size, NODE_BYTES_MAX));
	r = ter_options_check(&f->options, error);
	if (r < 0)
		return r;
	if (replicas > p->devs_nr)
		return ter_fail(error, TER_ERR_INSUFFICIENT_DEVICES, "%u copies need %u members; only %u were named.", replicas, replicas, p->devs_nr);
	for (unsigned i = 0; i < p->devs_nr; i++) {
		struct ter_bdev_node a, b;

		if (p->devs[i].label && !ter_label_valid(p->devs[i].label, error))
			return -EINVAL;
		for (unsigned k = 0; k < i; k++)
			if (ter_bdev_node_of(p->devs[i].path, &a) == 0 && ter_bdev_node_of(p->devs[k].path, &b) == 0 && ter_bdev_node_same(&a, &b))
				return ter_fail(error, TER_ERR_INVALID_ARGUMENT, "'%s' and '%s' are the same device. Name each device once.",
						p->devs[k].path, p->devs[i].path);
	}
	return 0;
}

/* Only once it is ours and may be overwritten. */
static int grow_file(struct format_dev *d, bool dry_run, struct ter_error *error)
{
	const uint64_t bytes = d->param->bytes;
	struct ter_bdev_info *info = &d->bdev->info;

	if (bytes <= info->bytes)
		return 0;
	if (!info->is_file)
		return ter_fail(error, TER_ERR_DEVICE_TOO_SMALL, "'%s' has %llu bytes, fewer than the %llu that were asked for.", d->param->path,
				(unsigned long long)info->bytes, (unsigned long long)bytes);
	if (!dry_run && truncate(d->param->path, (off_t)bytes) < 0)
		return ter_fail_errno(error, -errno, "'%s' cannot be made %llu bytes long: %s.", d->param->path, (unsigned long long)bytes,
				      strerror(errno));
	if (!dry_run)
		d->grown_from = info->bytes;
	info->bytes = bytes;
	return 0;
}

/* A superblock of ours that libblkid does not know: where there may be one and it cannot be read, that is said instead. */
static int look_for_member(struct format *f, struct format_dev *d, char *signature, size_t bytes, struct ter_error *error)
{
	struct ter_sb_read_result read = { 0 };
	struct ter_error why = { 0 };
	int r;

	r = ter_sb_read(f->env->exec, d->bdev, &read, &why);
	if (r >= 0) {
		ter_sb_free(read.sb);
		free(read.members);
	}
	if (r == -ENODATA || r == -EINVAL)
		return 0;
	if (r == -ENOMEM || (r == -EIO && !f->params->force))
		return ter_fail(error, why.kind, "%s", why.text);
	snprintf(signature, bytes, "a Terrace filesystem");
	return 0;
}

static int open_devs(struct format *f, struct ter_error *error)
{
	int r;

	for (unsigned i = 0; i < f->params->devs_nr; i++) {
		struct format_dev *d = &f->dev[i];
		char signature[64];

		d->param = &f->params->devs[i];
		d->grown_from = UINT64_MAX;
		f->nr = i + 1;
		if (d->param->path[0] != '/')
			return ter_fail(error, TER_ERR_INVALID_ARGUMENT, "'%s' is not an absolute path.", d->param->path);
		r = ter_bdev_open(f->env->io, d->param->path, 0, &d->bdev, error);
		if (r < 0)
			return r;
		r = ter_super_signature(d->param->path, signature, sizeof(signature), error);
		if (r < 0)
			return r;
		if (!signature[0]) {
			r = look_for_member(f, d, signature, sizeof(signature), error);
			if (r < 0)
				return r;
		}
		if (signature[0] && !f->params->force)
			return ter_fail(error, TER_ERR_DEVICE_IN_USE, "'%s' already holds %s. To overwrite it: --force.", d->param->path, signature);
		r = grow_file(d, f->params->dry_run, error);
		if (r < 0)
			return r;
	}
	return 0;
}

static uint64_t member_bytes(const struct format_dev *d)
{
	const uint64_t bytes = d->param->bytes ? ter_min(d->param->bytes, d->bdev->info.bytes) : d->bdev->info.bytes;

	return ter_round_down(bytes, TER_KIB(4));
}

/* bucket_size, btree_node_size and block_size where they were left to us. */
static int choose_sizes(struct format *f, struct ter_error *error)
{
	uint64_t largest = 0, smallest = UINT64_MAX, bucket;

	for (unsigned i = 0; i < f->nr; i++) {
		largest = ter_max(largest, member_bytes(&f->dev[i]));
		smallest = ter_min(smallest, member_bytes(&f->dev[i]));
		if (f->dev[i].bdev->info.logical_block_bytes > LOGICAL_BLOCK_MAX)
			return ter_fail(error, TER_ERR_NOT_SUPPORTED, "'%s' has blocks of %u bytes; members with blocks above %u bytes are not supported.",
					f->dev[i].param->path, f->dev[i].bdev->info.logical_block_bytes, LOGICAL_BLOCK_MAX);
		if (f->dev[i].bdev->info.logical_block_bytes > f->options.block_size)
			return ter_fail(error, TER_ERR_BLOCK_SIZE_MISMATCH, "'%s' has blocks of %u bytes, larger than the filesystem's %u. "
					"Choose a larger block_size.", f->dev[i].param->path, f->dev[i].bdev->info.logical_block_bytes,
					f->options.block_size);
	}
	bucket = f->options.bucket_size;
	if (!bucket) {
		bucket = BUCKET_BYTES_DEFAULT_MIN;
		while (bucket > BUCKET_BYTES_SMALL_MIN && smallest < bucket * TER_MEMBER_BUCKETS_MIN + TER_SB_TAIL_BYTES)
			bucket /= 2;
		while (bucket < BUCKET_BYTES_MAX && largest / bucket > BUCKETS_PER_MEMBER_MAX)
			bucket *= 2;
	}
	if (bucket < BUCKET_BYTES_SMALL_MIN || bucket > BUCKET_BYTES_MAX)
		return ter_fail(error, TER_ERR_INVALID_OPTION, "bucket_size %llu is out of range: 65536 to 16777216.", (unsigned long long)bucket);
	f->options.bucket_size = (uint32_t)bucket;
	if (bucket < BUCKET_BYTES_DEFAULT_MIN && f->options.btree_node_size > NODE_BYTES_SMALL)
		f->options.btree_node_size = NODE_BYTES_SMALL;
	if (f->options.btree_node_size > bucket)
		f->options.btree_node_size = (uint32_t)bucket;

	for (unsigned i = 0; i < f->nr; i++) {
		const uint64_t min = bucket * TER_MEMBER_BUCKETS_MIN + TER_SB_TAIL_BYTES;

		if (member_bytes(&f->dev[i]) < min)
			return ter_fail(error, TER_ERR_DEVICE_TOO_SMALL, "'%s' has %llu bytes; a member needs at least %llu.", f->dev[i].param->path,
					(unsigned long long)member_bytes(&f->dev[i]), (unsigned long long)min);
		if (member_bytes(&f->dev[i]) / bucket > UINT32_MAX)
			return ter_fail(error, TER_ERR_LIMIT_EXCEEDED, "'%s' is too large for buckets of %llu bytes.", f->dev[i].param->path,
					(unsigned long long)bucket);
	}
	return 0;
}

static void warn_same_disk(struct format *f, void (*warn)(void *arg, const char *sentence), void *warn_arg)
{
	if (!warn || ter_max(f->options.data_replicas, f->options.metadata_replicas) < 2)
		return;
	for (unsigned i = 0; i < f->nr; i++)
		for (unsigned k = 0; k < i; k++)
			if (f->dev[i].bdev->info.disk && f->dev[i].bdev->info.disk == f->dev[k].bdev->info.disk) {
				char text[TER_EVENT_TEXT_MAX * 2];

				snprintf(text, sizeof(text), "'%s' and '%s' lie on one physical disk: copies on both are lost together when it fails.",
					 f->dev[k].param->path, f->dev[i].param->path);
				warn(warn_arg, text);
				return; /* one warning says it */
			}
}

static void fill_member(struct format *f, unsigned i, struct ter_members *members)
{
	const struct ter_format_dev *p = f->dev[i].param;
	const uint64_t bucket = f->options.bucket_size;
	struct ter_dev *dev = &members->dev[i];
	uint64_t journal;

	dev->idx = i;
	dev->used = true;
	ter_uuid_random(f->env->exec, dev->uuid);
	dev->state = TER_DEV_RW;
	dev->durability = (uint8_t)(p->durability >= 0 ? p->durability : f->options.durability);
	dev->discard = p->discard >= 0 ? p->discard : f->options.discard;
	snprintf(dev->label, sizeof(dev->label), "%s", p->label ? p->label : "");
	dev->bytes = member_bytes(&f->dev[i]);
	dev->bucket_sectors = (uint32_t)(bucket >> TER_SECTOR_SHIFT);
	dev->buckets_nr = (dev->bytes - TER_SB_TAIL_BYTES) / bucket;
	dev->first_bucket = (TER_SB_AREA_BYTES + bucket - 1) / bucket;

	if (f->options.journal_size)
		journal = f->options.journal_size / bucket;
	else
		journal = ter_max(ter_min(dev->bytes / JOURNAL_SHARE, JOURNAL_BYTES_MAX) / bucket,
				  ter_min((uint64_t)TER_JOURNAL_BUCKETS_SMALL, dev->buckets_nr / JOURNAL_SHARE_MAX));
	journal = ter_max(journal, (uint64_t)TER_JOURNAL_BUCKETS_MIN);
	journal = ter_min(journal, dev->buckets_nr / 4); /* not fewer than that: TER_MEMBER_BUCKETS_MIN */
	_Static_assert(TER_MEMBER_BUCKETS_MIN / 4 >= TER_JOURNAL_BUCKETS_MIN, "each member has a ring that takes part");
	dev->journal[0] = (struct ter_bucket_range){ .first = dev->first_bucket, .nr = journal };
	members->nr_slots = ter_max(members->nr_slots, i + 1);
}

static int make_sb(struct format *f, struct ter_sb **ret_sb, struct ter_members **ret_members, struct ter_error *error)
{
	struct ter_sb *sb = ter_new(struct ter_sb);
	struct ter_members *members = ter_new(struct ter_members);
	struct ter_compression_spec spec;
	const int64_t now = ter_real_ns(f->env->exec);
	int r = 0;

	if (!sb || !members) {
		r = ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to format.");
		goto out;
	}
	ter_uuid_random(f->env->exec, sb->uuid);
	if (ter_uuid_is_null(f->params->uuid))
		ter_uuid_random(f->env->exec, sb->user_uuid);
	else
		memcpy(sb->user_uuid, f->params->uuid, 16);
	snprintf(sb->label, sizeof(sb->label), "%s", f->params->label ? f->params->label : "");
	sb->version_major = TER_FORMAT_MAJOR;
	sb->version_minor = TER_FORMAT_MINOR;
	sb->created_ns = now > 0 ? (uint64_t)now : 0;
	f->env->exec->ops->random(f->env->exec, sb->hash_key, sizeof(sb->hash_key));
	sb->options = f->options;
	sb->next_node_seq = 1;
	sb->next_inum = TER_INUM_FIRST;
	for (unsigned i = 0; i < f->nr; i++)
		fill_member(f, i, members);

	r = ter_sb_algo_slot(sb, f->env->codecs, TERRACE_CHECKSUM, f->options.metadata_checksum.s);
	if (r >= 0)
		r = ter_sb_algo_slot(sb, f->env->codecs, TERRACE_CHECKSUM, f->options.data_checksum.s);
	if (r < 0) {
		r = ter_fail(error, TER_ERR_PLUGIN_MISSING, "No loaded plugin provides the checksum '%s' or '%s'.", f->options.metadata_checksum.s,
			     f->options.data_checksum.s);
		goto out;
	}
	r = ter_compression_parse(f->env->codecs, f->options.compression.s, &spec, error);
	if (r < 0)
		goto out;
	r = ter_sb_algo_slot(sb, f->env->codecs, TERRACE_COMPRESSION, spec.name);
	if (r < 0)
		r = ter_fail(error, TER_ERR_PLUGIN_MISSING, "No loaded plugin provides the compression '%s'.", spec.name);
out:
	if (r < 0) {
		ter_sb_free(sb);
		free(members);
		return r;
	}
	*ret_sb = sb;
	*ret_members = members;
	return 0;
}

/* Old superblock copies and signatures go first: a format cut off in the middle is nothing that anybody takes for a filesystem. */
static int wipe(struct format_dev *d, struct ter_error *error)
{
	const uint64_t tail = member_bytes(d) - TER_SB_TAIL_BYTES;
	_cleanup_free_ void *zeros = ter_malloc_aligned(TER_SB_AREA_BYTES, TER_KIB(4));
	int r;

	d->undo = ter_undo_new(d->bdev);
	if (!zeros || !d->undo)
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to format.");
	memset(zeros, 0, TER_SB_AREA_BYTES);
	r = ter_bdev_write(ter_undo_bdev(d->undo), 0, zeros, TER_SB_AREA_BYTES, 0);
	if (r >= 0)
		r = ter_bdev_write(ter_undo_bdev(d->undo), tail, zeros, TER_SB_TAIL_BYTES, 0);
	return r < 0 ? ter_fail_errno(error, r, "'%s' cannot be written: %s.", d->param->path, strerror(-r)) : 0;
}

static void put_back(struct format *f)
{
	for (unsigned i = 0; i < f->nr; i++) {
		struct format_dev *d = &f->dev[i];
		const int grown = d->grown_from != UINT64_MAX;

		/* The device failed once already perhaps: nothing more can be done about a second failure. */
		if (d->undo)
			(void)ter_undo_put_back(d->undo);
		if (grown && truncate(d->param->path, (off_t)d->grown_from) < 0)
			continue; /* longer than it was, with nothing in it */
	}
}

static void release(struct format *f)
{
	for (unsigned i = 0; i < f->nr; i++) {
		ter_undo_free(f->dev[i].undo);
		ter_bdev_close(f->dev[i].bdev);
	}
}

/* The pool runs once: members get their keys, the root directory is made, a clean stop writes the truth. */
static int run_once(struct format *f, struct ter_sb *sb, struct ter_members *members, const struct ter_job_ctl *job, struct ter_error *error)
{
	struct ter_fs *fs = ter_super_new(f->env, sb, members);
	int r;

	if (!fs) {
		ter_sb_free(sb);
		free(members);
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to format.");
	}
	for (unsigned i = 0; i < f->nr; i++)
		members->dev[i].bdev = ter_undo_bdev(f->dev[i].undo);
	fs->format = true;
	fs->memory_limit = sb->options.memory_limit;
	r = ter_fs_start(fs, job, error);
	if (r >= 0)
		r = ter_fs_stop(fs, error);
	for (unsigned i = 0; i < f->nr; i++)
		members->dev[i].bdev = NULL; /* ours still: closed, or put back, by the caller */
	ter_fs_close(fs);
	return r;
}

int ter_fs_format(const struct ter_env *env, const struct ter_format_params *params, const struct ter_job_ctl *job,
		  void (*warn)(void *arg, const char *sentence), void *warn_arg, uint8_t ret_uuid[16], struct ter_error *error)
{
	struct format f = { .env = env, .params = params, .options = *params->options };
	struct ter_members *members = NULL;
	struct ter_sb *sb = NULL;
	uint8_t uuid[16] = { 0 };
	int r;

	r = check_params(&f, error);
	if (r < 0)
		return r;
	r = open_devs(&f, error);
	if (r >= 0)
		r = choose_sizes(&f, error);
	if (r >= 0)
		r = ter_options_check(&f.options, error);
	if (r >= 0 && TER_FAULT(fault_format) < 0)
		r = ter_fail(error, TER_ERR_FAULT_INJECTED, "The format failed because a test asked for it.");
	if (r >= 0)
		r = make_sb(&f, &sb, &members, error);
	if (r < 0)
		goto out;
	warn_same_disk(&f, warn, warn_arg);
	memcpy(uuid, sb->user_uuid, 16);
	if (params->dry_run) {
		ter_sb_free(sb);
		free(members);
		goto out;
	}
	for (unsigned i = 0; i < f.nr && r >= 0; i++) {
		if (job)
			r = job->step(job->arg, "wipe", i, f.nr);
		if (r >= 0)
			r = wipe(&f.dev[i], error);
	}
	if (r < 0) {
		ter_sb_free(sb);
		free(members);
	} else {
		r = run_once(&f, sb, members, job, error);
	}
out:
	if (r < 0)
		put_back(&f);
	release(&f);
	if (r >= 0)
		memcpy(ret_uuid, uuid, 16);
	return r < 0 ? ter_fail_errno(error, r, "The format failed: %s.", strerror(-r)) : 0;
}
