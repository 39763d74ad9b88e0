/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsck: a check of a running pool, and the repair of one that nobody uses. */
#include "recovery/fsck.h"

#include "alloc/alloc_repair.h"
#include "fs/vfs_repair.h"
#include "recovery/repair_copies.h"
#include "recovery/repair_ptrs.h"
#include "super/super_priv.h"

#define ROUNDS_MAX 3 /* one repair may show what another has to do */

static int settle(void *arg)
{
	struct ter_fs *fs = arg;

	return ter_vfs_sync(fs->vfs);
}

/* What a check tells, and which passes it is about. */
struct tell {
	void (*found)(void *arg, const char *pass, const char *sentence);
	void *arg;
	uint64_t passes;
};

static void on_found(void *arg, const char *pass, const char *sentence)
{
	struct tell *tell = arg;

	tell->passes |= ter_fsck_pass_of(pass);
	if (tell->found)
		tell->found(tell->arg, pass, sentence);
}

static uint64_t degraded_bytes(struct ter_fs *fs)
{
	const struct ter_fsck_config config = ter_super_fsck_config(fs);

	return ter_degraded_sectors(&config) << TER_SECTOR_SHIFT;
}

static int64_t run_check(struct ter_fs *fs, struct tell *tell, bool settled, const struct ter_job_ctl *job)
{
	struct ter_fsck_config config = ter_super_fsck_config(fs);

	config.settle = settled && fs->access == TER_ACCESS_RW ? settle : NULL;
	config.settle_arg = fs;
	return ter_fsck_run(&config, on_found, tell, job ? job->step : NULL, job ? job->arg : NULL);
}

static int failed(int64_t r, const char *what, struct ter_error *error)
{
	if (r == -ECANCELED)
		return ter_fail(error, TER_ERR_CANCELLED, "The %s was cancelled.", what);
	return ter_fail_errno(error, (int)r, "The %s could not read everything: %s.", what, strerror((int)-r));
}

int64_t ter_fs_fsck(struct ter_fs *fs, const struct ter_fsck_report *report, const struct ter_job_ctl *job, struct ter_error *error)
{
	struct tell tell = { .found = report ? report->found : NULL, .arg = report ? report->arg : NULL };
	uint64_t before;
	int64_t r;

	if (fs->state != TER_FS_RUNNING)
		return ter_fail(error, TER_ERR_WRONG_STATE, "The filesystem is not running: start it to check it.");
	r = run_check(fs, &tell, true, job);
	if (r < 0)
		return failed(r, "check", error);
	if (report && report->ret_degraded_bytes)
		*report->ret_degraded_bytes = degraded_bytes(fs);
	/* A check of all that finds nothing is what clears bits (passes.h, A2). What it finds is on the members before it is told. */
	if (fs->access != TER_ACCESS_RW)
		return r;
	before = fs->sb.sb->passes_required | fs->sb.sb->passes_unfixed;
	ter_super_note_passes(fs, ter_passes_with(TER_PASS_FSCK), tell.passes);
	if (before != tell.passes) {
		const int w = ter_sb_write(&fs->sb, error);

		if (w < 0)
			return w;
	}
	return r;
}

/* --- repair --- */

struct repairing {
	struct ter_fs *fs;
	const struct ter_fs_repair_params *params;
	const struct ter_job_ctl *job;
	struct ter_repair repair;
	struct ter_fsck_config config;
};

static int want(void *arg, const char *pass, const char *sentence)
{
	const struct repairing *p = arg;

	return p->params->want(p->params->arg, pass, sentence);
}

static int step(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	const struct repairing *p = arg;

	return p->job->step(p->job->arg, phase, done, total);
}

/* Btrees, so that all else can be read; then space, so that something can be written; then files. */
static int repair_round(struct repairing *p)
{
	int r;

	r = ter_repair_btrees(&p->config, &p->repair);
	if (r >= 0)
		r = ter_super_replay_late(p->fs);
	if (r >= 0)
		r = ter_alloc_load(p->fs->alloc);
	if (r == -EUCLEAN)
		r = 0; /* a counter that cannot be valid: with space */
	if (r >= 0)
		r = ter_repair_space(&p->config, &p->repair);
	if (r >= 0)
		r = ter_vfs_repair(p->fs->vfs, &p->repair);
	return r;
}

/* The last thing: nothing is wrong any more, but copies may be missing. 1: some were made. */
static int repair_copies(struct repairing *p, struct ter_fs_repaired *ret)
{
	struct ter_repaired_copies copies;
	int r;

	r = ter_repair_copies(&p->config, &p->repair, &copies);
	ret->copies_made = copies.made;
	return r < 0 ? r : copies.made > 0;
}

static int repair_all(struct repairing *p, struct ter_fs_repaired *ret, uint64_t *ret_passes)
{
	struct tell tell = { .found = p->params->found, .arg = p->params->arg };
	int64_t left;
	int r;

	left = run_check(p->fs, &tell, false, p->job);
	if (left < 0 && left != -EIO)
		return (int)left;
	ret->found = left < 0 ? 1 : (uint64_t)left;
	if (!left) {
		*ret_passes = 0;
		r = ter_alloc_repair_end(p->fs->alloc);
		return r < 0 ? r : ter_min(repair_copies(p, ret), 0);
	}
	for (unsigned i = 0; i < ROUNDS_MAX && left; i++) {
		const uint64_t before = p->repair.done_nr;

		r = repair_round(p);
		if (r < 0)
			return r;
		/* Only the last one is told. */
		tell = (struct tell){ 0 };
		left = run_check(p->fs, &tell, true, p->job);
		if (left < 0)
			return (int)left;
		if (p->repair.left_nr || p->repair.done_nr == before)
			break;
	}
	if (!left) {
		r = repair_copies(p, ret);
		if (r < 0)
			return r;
		tell = (struct tell){ 0 };
		left = r ? run_check(p->fs, &tell, true, p->job) : 0;
	}
	if (left > 0 && p->params->left) {
		tell = (struct tell){ .found = p->params->left, .arg = p->params->arg };
		left = run_check(p->fs, &tell, true, p->job);
	}
	ret->left = left > 0 ? (uint64_t)left : 0;
	*ret_passes = tell.passes;
	return left < 0 ? (int)left : 0;
}

/* Bits as they are now; deletions are finished when nothing stands in their way. */
static int settle_repaired(struct ter_fs *fs, uint64_t passes, struct ter_error *error)
{
	int r = 0;

	atomic_store(&fs->found_running, false);
	ter_super_note_passes(fs, ter_passes_with(TER_PASS_FSCK), passes);
	if (!passes)
		r = ter_vfs_reap_orphans(fs->vfs);
	if (r < 0)
		return ter_fail_errno(error, r, "Deleted files left by the last run cannot be removed: %s.", strerror(-r));
	return ter_sb_write(&fs->sb, error);
}

int ter_fs_repair(struct ter_fs *fs, const struct ter_fs_repair_params *params, const struct ter_job_ctl *job, struct ter_fs_repaired *ret, struct ter_error *error)
{
	static const struct ter_fs_repair_params all = { 0 };
	struct repairing p = { .fs = fs, .params = params ? params : &all, .job = job };
	struct ter_fs_repaired repaired = { 0 };
	uint64_t passes = ter_passes_with(TER_PASS_FSCK), started;
	int r;

	if (fs->state != TER_FS_OPENED)
		return ter_fail(error, TER_ERR_WRONG_STATE, "The filesystem runs: unmount and stop it to repair it.");
	if (fs->opened_read_only)
		return ter_fail(error, TER_ERR_READ_ONLY, "The filesystem's members were opened read-only: it cannot be repaired.");
	p.repair = (struct ter_repair){ .want = p.params->want ? want : NULL, .step = job ? step : NULL, .arg = &p };
	fs->repair = &p.repair;
	fs->repairing = true;
	r = ter_fs_start(fs, job, error);
	fs->repair = NULL;
	if (r < 0)
		return r;
	p.config = ter_super_fsck_config(fs);
	p.repair.memory_bytes = p.params->memory_bytes ? p.params->memory_bytes : p.config.memory_bytes;
	started = p.repair.done_nr;
	r = repair_all(&p, &repaired, &passes);
	repaired.found += started;
	repaired.done = p.repair.done_nr;
	repaired.refused = p.repair.left_nr;
	repaired.degraded_bytes = degraded_bytes(fs);
	if (ret)
		*ret = repaired;
	if (r < 0) {
		/* What was found is not known to be all: everything is required. */
		ter_super_note_passes(fs, ter_passes_with(TER_PASS_FSCK), ter_passes_with(TER_PASS_FSCK));
		return failed(r, "repair", error);
	}
	r = settle_repaired(fs, passes, error);
	fs->repairing = false;
	return r;
}
