/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing a running pool's options and label. */
#include <stdio.h>

#include "super/super_priv.h"

/* Only what differs is written: the rest is read by running work without the lock. */
static void store_options(struct ter_options *to, const struct ter_options *from)
{
	for (const struct ter_option_info *info = ter_option_table; info->name; info++) {
		void *dst = (char *)to + info->offset;
		const void *src = (const char *)from + info->offset;

		if (memcmp(dst, src, info->bytes) != 0)
			memcpy(dst, src, info->bytes);
	}
}

/* Checked in a copy, so that a refused value changes nothing. */
static int apply(struct ter_fs *fs, const struct ter_options *changed, bool persist, struct ter_error *error)
{
	struct ter_options before;
	int r;

	r = ter_options_check(changed, error);
	if (r < 0)
		return r;
	ter_lock_acquire(&fs->sb.lock);
	before = fs->sb.sb->options;
	store_options(&fs->sb.sb->options, changed);
	ter_lock_release(&fs->sb.lock);
	if (!persist || fs->access != TER_ACCESS_RW)
		return 0;
	r = ter_sb_write(&fs->sb, error);
	if (r < 0) {
		ter_lock_acquire(&fs->sb.lock);
		store_options(&fs->sb.sb->options, &before);
		ter_lock_release(&fs->sb.lock);
		return ter_fail_errno(error, r, "The superblock cannot be written; the option keeps its value.");
	}
	return 0;
}

/* As many copies as members that can take one, at most. */
static int check_replicas(struct ter_fs *fs, const struct ter_options *options, struct ter_error *error)
{
	const unsigned wanted = ter_max(options->data_replicas, options->metadata_replicas);
	unsigned rw = 0;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		rw += fs->members->dev[i].used && fs->members->dev[i].state == TER_DEV_RW;
	if (wanted > rw)
		return ter_fail(error, TER_ERR_INSUFFICIENT_DEVICES, "%u copies need %u members; the filesystem has %u that can be written.", wanted,
				wanted, rw);
	return 0;
}

/* The algorithm an option names gets its slot before anything is written with it. */
static int bind_algos(struct ter_fs *fs, const struct ter_options *options, struct ter_error *error)
{
	struct ter_compression_spec spec;
	int r;

	r = ter_compression_parse(fs->env.codecs, options->compression.s, &spec, error);
	if (r < 0)
		return r;
	ter_lock_acquire(&fs->sb.lock);
	r = ter_sb_algo_slot(fs->sb.sb, fs->env.codecs, TERRACE_COMPRESSION, spec.name);
	if (r >= 0)
		r = ter_sb_algo_slot(fs->sb.sb, fs->env.codecs, TERRACE_CHECKSUM, options->data_checksum.s);
	ter_lock_release(&fs->sb.lock);
	if (r < 0)
		return ter_fail_errno(error, r, "The filesystem's table of algorithms has no room for '%s'.", spec.name);
	return 0;
}

static int set_option(struct ter_fs *fs, const char *name, const char *text, bool persist, struct ter_error *error)
{
	struct ter_options changed;
	int r;

	ter_lock_acquire(&fs->sb.lock);
	changed = fs->sb.sb->options;
	ter_lock_release(&fs->sb.lock);
	r = ter_option_set_text(&changed, name, text, TER_OPT_RUNTIME, fs->env.codecs, error);
	if (r < 0)
		return r;
	r = ter_options_check(&changed, error);
	if (r < 0)
		return r;
	r = check_replicas(fs, &changed, error);
	if (r < 0)
		return r;
	if (fs->access == TER_ACCESS_RW) {
		r = bind_algos(fs, &changed, error);
		if (r < 0)
			return r;
		/* A new slot must be on disk before an extent names it, whether or not the option persists. */
		persist = persist || strcmp(name, "compression") == 0 || strcmp(name, "data_checksum") == 0;
	}
	return apply(fs, &changed, persist, error);
}

static int check_running(struct ter_fs *fs, struct ter_error *error)
{
	if (fs->state != TER_FS_RUNNING)
		return ter_fail(error, TER_ERR_WRONG_STATE, "The filesystem is not running.");
	if (fs->emergency)
		return ter_fail(error, TER_ERR_EMERGENCY_READ_ONLY, "The filesystem went read-only after an error; nothing can be changed.");
	return 0;
}

int ter_fs_set_option(struct ter_fs *fs, const char *name, const char *text, bool persist, struct ter_error *error)
{
	int r;

	ter_lock_acquire(&fs->life);
	r = check_running(fs, error);
	if (r >= 0)
		r = set_option(fs, name, text, persist, error);
	ter_lock_release(&fs->life);
	return r;
}

int ter_fs_reset_option(struct ter_fs *fs, const char *name, struct ter_error *error)
{
	const struct ter_option_info *info = ter_option_find(name);
	struct ter_options defaults;
	char text[TER_OPT_ALGO_MAX];
	int r;

	if (!info)
		return ter_fail(error, TER_ERR_INVALID_OPTION, "There is no option '%s'.", name);
	ter_options_default(&defaults);
	r = ter_option_get_text(&defaults, info, text, sizeof(text));
	if (r < 0)
		return r;
	return ter_fs_set_option(fs, name, text, true, error);
}

int ter_fs_set_label(struct ter_fs *fs, const char *label, struct ter_error *error)
{
	char before[TER_LABEL_MAX + 1];
	int r;

	if (!ter_label_valid(label, error))
		return -EINVAL;
	ter_lock_acquire(&fs->life);
	r = check_running(fs, error);
	if (r >= 0 && fs->access != TER_ACCESS_RW)
		r = ter_fail(error, TER_ERR_READ_ONLY, "The filesystem is read-only; its label cannot be changed.");
	if (r >= 0) {
		ter_lock_acquire(&fs->sb.lock);
		memcpy(before, fs->sb.sb->label, sizeof(before));
		snprintf(fs->sb.sb->label, sizeof(fs->sb.sb->label), "%s", label);
		ter_lock_release(&fs->sb.lock);
		r = ter_sb_write(&fs->sb, error);
		if (r < 0) {
			ter_lock_acquire(&fs->sb.lock);
			memcpy(fs->sb.sb->label, before, sizeof(before));
			ter_lock_release(&fs->sb.lock);
		}
	}
	ter_lock_release(&fs->life);
	return r;
}
