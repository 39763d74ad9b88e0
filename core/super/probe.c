/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking at a path without claiming it. */
#include <stdio.h>

#include "super/super_priv.h"

static unsigned count_members(const struct ter_members *members)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		nr += members->dev[i].used;
	return nr;
}

int ter_fs_probe(const struct ter_env *env, const char *path, struct ter_probe *ret, struct ter_error *error)
{
	struct ter_sb_read_result read = { 0 };
	struct ter_bdev *bdev = NULL;
	struct ter_error why = { 0 };
	int r;

	r = ter_bdev_open(env->io, path, TER_OPEN_RDONLY | TER_OPEN_SHARED | TER_OPEN_BUFFERED, &bdev, error);
	if (r < 0)
		return r;
	*ret = (struct ter_probe){ 0 };
	r = ter_sb_read(env->exec, bdev, &read, &why);
	ter_bdev_close(bdev);
	if (r < 0) {
		if (r != -ENODATA)
			snprintf(ret->why_not, sizeof(ret->why_not), "%s", why.text);
		if (ter_super_signature(path, ret->signature, sizeof(ret->signature), NULL) < 0)
			ret->signature[0] = 0; /* a look only: what cannot be read has no signature to show */
		return 0;
	}

	ret->is_member = true;
	ret->sb = read.sb;
	ret->members = read.members;
	ret->dev_idx = read.dev_idx;
	ret->devs_nr = count_members(read.members);
	ret->seq = read.sb->seq;
	ret->clean = read.sb->clean;
	memcpy(ret->uuid, read.sb->uuid, 16);
	memcpy(ret->user_uuid, read.sb->user_uuid, 16);
	memcpy(ret->dev_uuid, read.members->dev[read.dev_idx].uuid, 16);
	snprintf(ret->label, sizeof(ret->label), "%s", read.sb->label);
	snprintf(ret->signature, sizeof(ret->signature), "terrace");
	if (!read.sb->initialized)
		snprintf(ret->why_not, sizeof(ret->why_not), "The format of this filesystem was interrupted. Format it again with --force.");
	return 0;
}

void ter_probe_free(struct ter_probe *probe)
{
	ter_sb_free(probe->sb);
	free(probe->members);
	probe->sb = NULL;
	probe->members = NULL;
}
