/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starting, stopping, read-only and back: one job of a pool at a time. */
#include <stdio.h>

#include "device_info.h"
#include "fuse/mount_fuse.h"
#include "log.h"
#include "pools.h"

#define WAIT_STEP_NS (500 * TER_NS_PER_MS) /* between two looks for missing members */

/* --- who uses it (W3) --- */

static int check_life(struct td_pool *pool, struct ter_error *error)
{
	if (pool->pools->quitting)
		return ter_fail(error, TER_ERR_CANCELLED, "The daemon is ending.");
	if (pool->life)
		return ter_fail(error, TER_ERR_JOB_CONFLICT, "Filesystem '%s' is busy: %s. Wait until that is done.", td_pool_label(pool),
				pool->life->view.operation);
	return 0;
}

int td_pool_use(struct td_pool *pool, struct ter_error *error)
{
	int r = check_life(pool, error);

	if (r < 0)
		return r;
	if (!pool->fs)
		return ter_fail(error, TER_ERR_WRONG_STATE, "Filesystem '%s' is not running (%s). Start it first.", td_pool_label(pool),
				td_pool_states[pool->state]);
	td_pool_hold(pool);
	return 0;
}

void td_pool_hold(struct td_pool *pool)
{
	pthread_mutex_lock(&pool->users_lock);
	pool->users++;
	pthread_mutex_unlock(&pool->users_lock);
}

void td_pool_unuse(struct td_pool *pool)
{
	pthread_mutex_lock(&pool->users_lock);
	pool->users--;
	pthread_cond_broadcast(&pool->users_cond);
	pthread_mutex_unlock(&pool->users_lock);
}

void td_pool_wait_unused(struct td_pool *pool)
{
	pthread_mutex_lock(&pool->users_lock);
	while (pool->users)
		pthread_cond_wait(&pool->users_cond, &pool->users_lock);
	pthread_mutex_unlock(&pool->users_lock);
}

/* --- settling --- */

static void settle_run(struct td_settle *settle, struct td_pool *pool)
{
	ter_list_del(&settle->link);
	if (settle->timer)
		g_source_remove(settle->timer);
	settle->timer = 0;
	settle->fn(settle, pool);
}

static gboolean on_settle_late(gpointer data)
{
	struct td_settle *settle = data;

	settle->timer = 0;
	settle_run(settle, NULL);
	return G_SOURCE_REMOVE;
}

static bool settled(const struct td_pool *pool)
{
	return !pool->life || (pool->state != TD_POOL_STARTING && pool->state != TD_POOL_STOPPING);
}

int td_pool_when_settled(struct td_pool *pool, uint32_t timeout_s, void (*fn)(struct td_settle *settle, struct td_pool *pool), void *arg)
{
	struct td_settle *settle = calloc(1, sizeof(*settle));

	if (!settle)
		return -ENOMEM;
	*settle = (struct td_settle){ .pool = pool, .fn = fn, .arg = arg };
	ter_list_init(&settle->link);
	if (settled(pool)) {
		fn(settle, pool);
		return 0;
	}
	if (timeout_s)
		settle->timer = g_timeout_add_seconds(timeout_s, on_settle_late, settle);
	ter_list_add_tail(&pool->pools->settles, &settle->link);
	return 0;
}

void td_pool_run_settles(struct td_pool *pool)
{
	struct td_settle *settle, *tmp;

	ter_list_for_each_safe(settle, tmp, &pool->pools->settles, link)
		if (settle->pool == pool)
			settle_run(settle, pool);
}

/* --- start --- */

struct start {
	struct td_pool *pool;
	struct ter_bus_start params;
	uint8_t uuid[16];
	unsigned wanted;          /* members that the newest superblock lists */
	const char *where[TER_DEVS_MAX]; /* a path of members[], by index; NULL: not found, or gone */
	struct td_paths members;  /* all that were found, also those that went again */
	struct td_paths known;    /* other places to look while waiting */
	/* what came of it */
	bool opened;
	struct ter_fs *fs;
	struct td_sample *sample;
	struct ter_bus_hardware *hardware[TER_DEVS_MAX]; /* of members that are online */
};

static void start_free(struct start *start)
{
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		free(start->hardware[i]);
	td_paths_free(&start->members);
	td_paths_free(&start->known);
	free(start);
}

static int take_member(struct start *start, unsigned idx, const char *path)
{
	const int r = td_paths_add(&start->members, path);

	for (unsigned i = 0; i < start->members.nr && r >= 0; i++)
		if (strcmp(start->members.path[i], path) == 0)
			start->where[idx] = start->members.path[i];
	return r;
}

static unsigned members_nr(const struct start *start)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		nr += start->where[i] != NULL;
	return nr;
}

/* What was found by the last scan may have been pulled since: then it is missing, as if it had never been found. One that is there and cannot be opened is told of. */
static void forget_gone(struct start *start)
{
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (start->where[i] && access(start->where[i], F_OK) < 0 && errno == ENOENT && members_nr(start) > 1)
			start->where[i] = NULL;
}

static int take_found(struct start *start, const struct td_scan *scan)
{
	int r = 0;

	for (unsigned i = 0; i < scan->nr && r >= 0; i++) {
		const struct ter_probe *probe = &scan->found[i].probe;

		if (scan->found[i].r < 0 || !probe->is_member || memcmp(probe->uuid, start->uuid, 16) != 0 || start->where[probe->dev_idx])
			continue;
		r = take_member(start, probe->dev_idx, scan->found[i].path);
	}
	return r;
}

/* Once more where members may be: one that was pulled may be back, there or elsewhere. */
static int look_again(struct start *start)
{
	struct td_pools *pools = start->pool->pools;
	struct td_paths look = { 0 };
	struct td_scan scan;
	int r = 0;

	for (unsigned i = 0; i < start->known.nr && r >= 0; i++)
		r = td_paths_add(&look, start->known.path[i]);
	if (r >= 0)
		r = td_scan_more_paths(pools->members, pools->system, &look);
	if (r >= 0) {
		r = td_scan_run(&pools->engine->env, &look, NULL, &scan);
		if (r >= 0)
			r = take_found(start, &scan);
		td_scan_free(&scan);
	}
	td_paths_free(&look);
	return r;
}

/* Until all members are there, time is up, or somebody cancels; without time to wait once. */
static int look_for_missing(struct start *start, struct td_job *job)
{
	struct ter_exec *exec = start->pool->pools->engine->exec;
	const uint64_t until = ter_mono_ns(exec) + start->params.wait_missing_s * TER_NS_PER_S;
	int r;

	while (members_nr(start) < start->wanted) {
		r = job->ctl.step(job->ctl.arg, "wait", members_nr(start), start->wanted);
		if (r >= 0)
			r = look_again(start);
		if (r < 0)
			return r;
		if (members_nr(start) == start->wanted || ter_mono_ns(exec) >= until)
			break;
		ter_sleep_ns(exec, WAIT_STEP_NS);
	}
	return 0;
}

static int start_run(struct td_job *job, struct ter_error *error)
{
	struct start *start = job->arg;
	struct td_pools *pools = start->pool->pools;
	struct ter_open_params open = { .degraded = start->params.degraded, .read_only = start->params.read_only, .check = start->params.check };
	const char *paths[TER_DEVS_MAX];
	int r;

	forget_gone(start);
	r = look_for_missing(start, job);
	if (r < 0)
		return r;
	open.paths = paths;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (start->where[i])
			paths[open.paths_nr++] = start->where[i];
	r = ter_fs_open(&pools->engine->env, &open, td_pool_on_event, start->pool, &start->fs, error);
	if (r < 0)
		return r;
	start->opened = true;
	r = ter_fs_start(start->fs, &job->ctl, error);
	if (r >= 0) {
		td_log_started(start->fs);
		start->sample = td_sample_take(start->fs);
		r = start->sample ? td_sampler_add(pools->sampler, start->fs) : -ENOMEM;
	}
	if (r < 0)
		ter_fs_close(TAKE_PTR(start->fs));
	for (unsigned i = 0; r >= 0 && i < start->sample->devs_nr; i++)
		if (start->sample->dev[i].online)
			start->hardware[start->sample->dev[i].idx] = td_device_info(start->sample->dev[i].path);
	return r;
}

/* What a refusal names: members, and what to pass to go on without them. */
static void fill_details(struct td_pool *pool, struct td_job *job)
{
	const struct start *start = job->arg;
	struct ter_replicas_answer answer;
	uint64_t there = 0;

	if (job->error.kind != TER_ERR_DEGRADED && job->error.kind != TER_ERR_INCOMPLETE && job->error.kind != TER_ERR_WOULD_LOSE_METADATA)
		return;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct ter_dev *dev = &pool->table->dev[i];

		if (start->where[i])
			there |= 1ull << i;
		else if (dev->used)
			ter_uuid_format(dev->uuid, job->view.details.missing[job->view.details.missing_nr++]);
	}
	if (job->error.kind != TER_ERR_DEGRADED)
		return;
	ter_sb_replicas_check(pool->sb, pool->table, there, &answer);
	snprintf(job->view.details.option, sizeof(job->view.details.option), "degraded");
	snprintf(job->view.details.value, sizeof(job->view.details.value), "%s", answer.data_lost ? "very" : "yes");
}

static void start_done(struct td_job *job)
{
	struct start *start = job->arg;
	struct td_pool *pool = start->pool;

	pool->life = NULL;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (pool->member[i].path && !pool->member[i].conflict && !start->where[i])
			td_member_clear(&pool->member[i]);
	if (job->r >= 0) {
		pool->fs = start->fs;
		free(pool->sample);
		pool->sample = start->sample;
		pool->opened_by = job->view.uid;
		pool->asked_read_only = start->params.read_only;
		pool->runtime_options = 0;
		ter_error_clear(&pool->error);
		for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
			if (!start->hardware[i])
				continue;
			free(pool->member[i].hardware);
			pool->member[i].hardware = TAKE_PTR(start->hardware[i]);
		}
		td_pool_set_state(pool, TD_POOL_RUNNING, "");
		td_pool_look_for_damage(pool);
	} else {
		fill_details(pool, job);
		pool->error = job->error;
		/* A refusal leaves the pool as it was; what failed on the way needs a look. */
		if (start->opened && job->view.state == TER_BUS_JOB_FAILED)
			td_pool_set_state(pool, TD_POOL_FAILED, job->error.text);
		else
			td_pool_settled_state(pool, job->view.state == TER_BUS_JOB_FAILED ? job->error.text : "");
	}
	td_pool_publish(pool);
	td_pool_run_settles(pool);
	start_free(start);
}

static int fill_start(struct td_pool *pool, struct start *start)
{
	int r = 0;

	memcpy(start->uuid, pool->uuid, 16);
	for (unsigned i = 0; i < TER_DEVS_MAX && r >= 0; i++) {
		start->wanted += pool->table->dev[i].used;
		if (pool->member[i].path && !pool->member[i].conflict)
			r = take_member(start, i, pool->member[i].path);
	}
	return r < 0 ? r : td_pools_known_paths(pool->pools, &start->known);
}

int td_pool_start_job(struct td_pool *pool, uint32_t uid, const struct ter_bus_start *params, uint64_t *ret_job, struct ter_error *error)
{
	struct start *start;
	int r;

	if (pool->fs)
		return ter_fail(error, TER_ERR_ALREADY_RUNNING, "Filesystem '%s' is running already.", td_pool_label(pool));
	r = check_life(pool, error);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (pool->member[i].conflict)
			return ter_fail(error, TER_ERR_DEVICE_FOREIGN, "%s", pool->message);
	start = calloc(1, sizeof(*start));
	if (!start || fill_start(pool, start) < 0) {
		if (start)
			start_free(start);
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to start.");
	}
	start->pool = pool;
	start->params = *params;
	start->params.read_only |= params->no_recovery; /* which is what a read-only start does */
	r = td_job_start(pool->pools->jobs,
			 &(struct td_job_spec){ .operation = "start", .description = "Starting a filesystem", .fs = pool->text, .uid = uid, .cancelable = true,
						.run = start_run, .done = start_done, .arg = start }, &pool->life, error);
	if (r < 0) {
		start_free(start);
		return r;
	}
	td_pool_set_state(pool, TD_POOL_STARTING, "");
	td_pool_publish(pool);
	if (ret_job)
		*ret_job = pool->life->view.id;
	return 0;
}

/* --- stop --- */

struct stop {
	struct td_pool *pool;
	struct ter_fs *fs;
	struct td_mount *mount; /* forced: ended first */
	struct td_paths paths;
	struct td_scan scan;    /* how the members are now */
};

static int stop_run(struct td_job *job, struct ter_error *error)
{
	struct stop *stop = job->arg;
	struct td_pools *pools = stop->pool->pools;
	int r;

	if (stop->mount) {
		/* Where that is not permitted (systemd mounts, not we), closing the connection below ends it too. */
		(void)td_unmount(stop->mount->where, true, NULL);
		td_session_stop(TAKE_PTR(stop->mount->session));
	}
	td_pool_wait_unused(stop->pool);
	td_sampler_remove(pools->sampler, stop->fs);
	r = ter_fs_stop(stop->fs, error);
	ter_fs_close(TAKE_PTR(stop->fs));
	/* What the superblocks say now. A member that cannot be read is then shown as missing. */
	(void)td_scan_run(&pools->engine->env, &stop->paths, NULL, &stop->scan);
	return r;
}

static void stop_done(struct td_job *job)
{
	struct stop *stop = job->arg;
	struct td_pool *pool = stop->pool;

	pool->life = NULL;
	free(pool->sample);
	pool->sample = NULL;
	pool->runtime_options = 0;
	if (stop->mount) {
		pool->mount = NULL;
		td_mount_free(stop->mount); /* its end_post, if there was one, was queued before this job's end */
	}
	td_pool_set_state(pool, job->r < 0 ? TD_POOL_FAILED : TD_POOL_STOPPED, job->r < 0 ? job->error.text : "");
	/* Settles may look at it, and merging may free it: nothing of @pool is used afterwards. */
	td_pool_run_settles(pool);
	td_pools_merge(pool->pools, &stop->scan);
	td_scan_free(&stop->scan);
	td_paths_free(&stop->paths);
	free(stop);
}

static int check_stop(struct td_pool *pool, bool force, struct ter_error *error)
{
	if (pool->life && pool->pools->quitting)
		return ter_fail(error, TER_ERR_CANCELLED, "The daemon is ending.");
	if (pool->life)
		return ter_fail(error, TER_ERR_JOB_CONFLICT, "Filesystem '%s' is busy: %s. Wait until that is done.", td_pool_label(pool),
				pool->life->view.operation);
	if (!pool->fs)
		return ter_fail(error, TER_ERR_WRONG_STATE, "Filesystem '%s' is not running.", td_pool_label(pool));
	if (pool->attaching)
		return ter_fail(error, TER_ERR_BUSY, "Filesystem '%s' is being mounted.", td_pool_label(pool));
	if (pool->mount && !pool->mount->ending && !force)
		return ter_fail(error, TER_ERR_BUSY, "Filesystem '%s' is mounted at '%s'. Unmount it first.", td_pool_label(pool), pool->mount->where);
	if (pool->check && !force)
		return ter_fail(error, TER_ERR_JOB_CONFLICT, "Filesystem '%s' is being checked. Cancel the check or wait for it.", td_pool_label(pool));
	return 0;
}

int td_pool_stop_job(struct td_pool *pool, uint32_t uid, bool force, uint64_t *ret_job, struct ter_error *error)
{
	struct stop *stop;
	int r;

	r = check_stop(pool, force, error);
	if (r < 0)
		return r;
	stop = calloc(1, sizeof(*stop));
	if (!stop)
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to stop.");
	for (unsigned i = 0; i < pool->sample->devs_nr && r >= 0; i++)
		if (pool->sample->dev[i].online)
			r = td_paths_add(&stop->paths, pool->sample->dev[i].path);
	for (unsigned i = 0; i < TER_DEVS_MAX && r >= 0; i++)
		if (pool->member[i].path)
			r = td_paths_add(&stop->paths, pool->member[i].path);
	stop->pool = pool;
	stop->fs = pool->fs;
	if (pool->mount && !pool->mount->ending) {
		stop->mount = pool->mount;
		stop->mount->ending = true;
	}
	if (r >= 0)
		r = td_job_start(pool->pools->jobs,
				 &(struct td_job_spec){ .operation = "stop", .description = "Stopping a filesystem", .fs = pool->text, .uid = uid,
							.run = stop_run, .done = stop_done, .arg = stop }, &pool->life, error);
	if (r < 0) {
		if (stop->mount)
			stop->mount->ending = false;
		td_paths_free(&stop->paths);
		free(stop);
		return ter_fail_errno(error, r, "Stopping cannot begin: %s.", strerror(-r));
	}
	if (pool->check)
		td_job_ask_cancel(pool->check);
	pool->fs = NULL; /* W2 */
	td_pool_forget_damage(pool);
	td_pool_set_state(pool, TD_POOL_STOPPING, "");
	td_pool_publish(pool);
	if (ret_job)
		*ret_job = pool->life->view.id;
	return 0;
}

/* --- access mode --- */

struct access {
	struct td_pool *pool;
	struct ter_fs *fs;
	bool read_only;
	struct td_sample *sample;
};

static int access_run(struct td_job *job, struct ter_error *error)
{
	struct access *access = job->arg;
	struct td_sampler *sampler = access->pool->pools->sampler;
	int r;

	td_pool_wait_unused(access->pool);
	td_sampler_remove(sampler, access->fs);
	r = ter_fs_set_read_only(access->fs, access->read_only, error);
	access->sample = td_sample_take(access->fs);
	/* Without memory for it the pool runs unsampled until the next change. */
	(void)td_sampler_add(sampler, access->fs);
	return r;
}

static void access_done(struct td_job *job)
{
	struct access *access = job->arg;
	struct td_pool *pool = access->pool;

	pool->life = NULL;
	if (access->sample) {
		free(pool->sample);
		pool->sample = access->sample;
	}
	if (job->r >= 0)
		pool->asked_read_only = access->read_only;
	td_pool_publish(pool);
	td_pool_run_settles(pool);
	free(access);
}

int td_pool_set_access(struct td_pool *pool, uint32_t uid, bool read_only, uint64_t *ret_job, struct ter_error *error)
{
	struct access *access;
	int r;

	r = check_life(pool, error);
	if (r < 0)
		return r;
	if (!pool->fs)
		return ter_fail(error, TER_ERR_WRONG_STATE, "Filesystem '%s' is not running.", td_pool_label(pool));
	if (pool->check || pool->attaching)
		return ter_fail(error, TER_ERR_JOB_CONFLICT, "Filesystem '%s' is being %s. Wait until that is done.", td_pool_label(pool),
				pool->check ? "checked" : "mounted");
	access = calloc(1, sizeof(*access));
	if (!access)
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory.");
	*access = (struct access){ .pool = pool, .fs = pool->fs, .read_only = read_only };
	r = td_job_start(pool->pools->jobs,
			 &(struct td_job_spec){ .operation = "set-access-mode", .description = "Changing the access mode", .fs = pool->text, .uid = uid,
						.run = access_run, .done = access_done, .arg = access }, &pool->life, error);
	if (r < 0) {
		free(access);
		return r;
	}
	*ret_job = pool->life->view.id;
	return 0;
}
