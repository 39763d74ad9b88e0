/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsck of a running pool. */
#include "recovery/fsck.h"
#include "super/super_priv.h"

static int settle(void *arg)
{
	struct ter_fs *fs = arg;

	return ter_vfs_sync(fs->vfs);
}

int64_t ter_fs_fsck(struct ter_fs *fs, const struct ter_fsck_report *report, const struct ter_job_ctl *job, struct ter_error *error)
{
	const struct ter_fsck_config config = {
		.sb = &fs->sb, .members = fs->members, .btrees = fs->btrees, .alloc = fs->alloc, .data = fs->data, .vfs = fs->vfs,
		.settle = fs->access == TER_ACCESS_RW ? settle : NULL, .settle_arg = fs,
	};
	int64_t r;

	if (fs->state != TER_FS_RUNNING)
		return ter_fail(error, TER_ERR_WRONG_STATE, "The filesystem is not running: start it to check it.");
	r = ter_fsck_run(&config, report ? report->found : NULL, report ? report->arg : NULL, job ? job->step : NULL, job ? job->arg : NULL);
	if (r == -ECANCELED)
		return ter_fail(error, TER_ERR_CANCELLED, "The check was cancelled.");
	return r < 0 ? ter_fail_errno(error, (int)r, "The check could not read everything: %s.", strerror((int)-r)) : r;
}
