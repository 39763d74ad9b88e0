/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host of the bus: finds the pool that is meant, and hands on. */
#include "bus_host.h"

#include <stdio.h>

#include "log.h"

static struct td_pool *find(struct td_pools *pools, const char *uuid, struct ter_error *error)
{
	struct td_pool *pool = td_pools_by_text(pools, uuid);

	if (!pool)
		ter_fail(error, TER_ERR_NOT_FOUND, "The filesystem %s has gone.", uuid);
	return pool;
}

/* For calls: answers when it is not there. */
static struct td_pool *find_or_answer(struct td_pools *pools, const char *uuid, struct ter_bus_call *call)
{
	struct ter_error error = { 0 };
	struct td_pool *pool = find(pools, uuid, &error);

	if (!pool)
		ter_bus_answer(call, &error);
	return pool;
}

static void note(const struct ter_bus_who *who, const char *what, const char *fs)
{
	td_log(LOG_INFO, &(struct td_log_about){ .fs_uuid = fs }, "%s, asked by uid %u%s%s.", what, who->uid, who->reason[0] ? ": " : "", who->reason);
}

static int host_create(void *arg, const struct ter_bus_who *who, const struct ter_bus_create *create, uint64_t *ret_job, struct ter_error *error)
{
	note(who, "Making a filesystem", NULL);
	return td_pools_create(arg, who->uid, create, ret_job, error);
}

static int host_rescan(void *arg, const struct ter_bus_who *who, const char *const *paths, unsigned nr, uint64_t *ret_job, struct ter_error *error)
{
	return td_pools_rescan(arg, who->uid, paths, nr, false, ret_job, error);
}

static int host_start(void *arg, const struct ter_bus_who *who, const char *fs, const struct ter_bus_start *start, uint64_t *ret_job, struct ter_error *error)
{
	struct td_pool *pool = find(arg, fs, error);

	note(who, "Starting a filesystem", fs);
	return pool ? td_pool_start_job(pool, who->uid, start, ret_job, error) : -ENOENT;
}

static int host_stop(void *arg, const struct ter_bus_who *who, const char *fs, bool force, uint64_t *ret_job, struct ter_error *error)
{
	struct td_pool *pool = find(arg, fs, error);

	note(who, "Stopping a filesystem", fs);
	return pool ? td_pool_stop_job(pool, who->uid, force, ret_job, error) : -ENOENT;
}

static int host_set_access(void *arg, const struct ter_bus_who *who, const char *fs, bool read_only, uint64_t *ret_job, struct ter_error *error)
{
	struct td_pool *pool = find(arg, fs, error);

	note(who, read_only ? "Making a filesystem read-only" : "Making a filesystem writable", fs);
	return pool ? td_pool_set_access(pool, who->uid, read_only, ret_job, error) : -ENOENT;
}

static int host_fsck(void *arg, const struct ter_bus_who *who, const char *fs, bool repair, uint64_t *ret_job, struct ter_error *error)
{
	struct td_pool *pool = find(arg, fs, error);

	if (repair)
		note(who, "Repairing a filesystem", fs);
	return pool ? td_pool_fsck(pool, who->uid, repair, ret_job, error) : -ENOENT;
}

static int host_force_read_only(void *arg, const struct ter_bus_who *who, const char *fs, const char *reason, struct ter_error *error)
{
	struct td_pool *pool = find(arg, fs, error);

	if (!pool)
		return -ENOENT;
	if (!pool->fs)
		return ter_fail(error, TER_ERR_WRONG_STATE, "Filesystem '%s' is not running.", td_pool_label(pool));
	note(who, "Forcing a filesystem read-only", fs);
	ter_fs_emergency(pool->fs, reason[0] ? reason : "It was asked for.");
	return 0;
}

/* They are the process's, not one filesystem's. */
static int host_set_fault(void *arg, const struct ter_bus_who *who, const char *point, const struct ter_fault_rule *rule, struct ter_error *error)
{
	const int r = ter_fault_arm(point, rule);

	(void)arg;
	if (r == -ENOENT)
		return ter_fail(error, TER_ERR_NOT_FOUND, "There is no fault point '%s'; FaultPoints lists them.", point);
	if (r < 0)
		return ter_fail_errno(error, r, "The fault point '%s' cannot be set so: %s.", point, strerror(-r));
	td_log(LOG_WARNING, NULL, "Fault point '%s' was set, asked by uid %u: things fail on purpose from here on.", point, who->uid);
	return 0;
}

static void host_clear_faults(void *arg, const struct ter_bus_who *who)
{
	(void)arg;
	ter_fault_disarm_all();
	note(who, "Clearing all faults", NULL);
}

static int host_job_cancel(void *arg, uint64_t job, struct ter_error *error)
{
	return td_jobs_cancel(((struct td_pools *)arg)->jobs, job, error);
}

static int host_job_dismiss(void *arg, uint64_t job, struct ter_error *error)
{
	return td_jobs_dismiss(((struct td_pools *)arg)->jobs, job, error);
}

static void host_wait_job(void *arg, uint64_t job, uint32_t timeout_s, struct ter_bus_call *call)
{
	td_jobs_wait(((struct td_pools *)arg)->jobs, job, timeout_s, call);
}

/* --- probing and resolving: what is not known by name is looked at --- */

enum want { WANT_PROBE, WANT_FS, WANT_DEVICE };
struct probe {
	struct td_pools *pools;
	struct ter_bus_call *call;
	char path[PATH_MAX];
	enum want want;
	struct td_scan scan;
};

static int probe_run(struct td_job *job, struct ter_error *error)
{
	struct probe *probe = job->arg;
	struct td_paths paths = { 0 };
	int r;

	if (probe->want == WANT_PROBE) {
		/* By itself, for its own error. */
		probe->scan.found = calloc(1, sizeof(*probe->scan.found));
		if (!probe->scan.found)
			return -ENOMEM;
		probe->scan.nr = 1;
		return ter_fs_probe(&probe->pools->engine->env, probe->path, &probe->scan.found[0].probe, error);
	}
	r = td_paths_add(&paths, probe->path);
	if (r >= 0)
		r = td_scan_run(&probe->pools->engine->env, &paths, NULL, &probe->scan);
	td_paths_free(&paths);
	if (r >= 0)
		td_scan_remember(probe->pools->members, &probe->scan);
	return r;
}

static void probe_done(struct td_job *job)
{
	struct probe *probe = job->arg;
	struct ter_error error = { 0 };
	char uuid[TER_UUID_TEXT_BYTES], dev_uuid[TER_UUID_TEXT_BYTES];
	const struct ter_probe *found = probe->scan.nr ? &probe->scan.found[0].probe : NULL;

	if (job->r < 0) {
		ter_bus_answer(probe->call, &job->error);
	} else if (probe->want == WANT_PROBE) {
		ter_bus_answer_probe(probe->call, found);
	} else if (probe->scan.found[0].r < 0 || !found->is_member) {
		ter_fail(&error, TER_ERR_NOT_FOUND, "'%s' is not a member of a Terrace filesystem.", probe->path);
		ter_bus_answer(probe->call, &error);
	} else {
		ter_uuid_format(found->user_uuid, uuid);
		ter_uuid_format(found->dev_uuid, dev_uuid);
		td_pools_merge(probe->pools, &probe->scan);
		if (probe->want == WANT_FS)
			ter_bus_answer_fs(probe->call, uuid);
		else
			ter_bus_answer_device(probe->call, dev_uuid);
	}
	td_scan_free(&probe->scan);
	free(probe);
}

static void start_probe(struct td_pools *pools, const char *path, enum want want, struct ter_bus_call *call)
{
	struct ter_error error = { 0 };
	struct probe *probe;
	int r;

	if (td_pools_below_mount(pools, path) || strlen(path) >= PATH_MAX) {
		ter_fail(&error, TER_ERR_INVALID_ARGUMENT, "'%s' lies on a mounted Terrace filesystem, which cannot hold members.", path);
		ter_bus_answer(call, &error);
		return;
	}
	probe = calloc(1, sizeof(*probe));
	if (!probe) {
		ter_fail(&error, TER_ERR_NO_MEMORY, "Not enough memory to look at '%s'.", path);
		ter_bus_answer(call, &error);
		return;
	}
	*probe = (struct probe){ .pools = pools, .call = call, .want = want };
	snprintf(probe->path, sizeof(probe->path), "%s", path);
	r = td_job_start(pools->jobs,
			 &(struct td_job_spec){ .operation = "probe", .hidden = true, .run = probe_run, .done = probe_done, .arg = probe }, NULL, &error);
	if (r < 0) {
		ter_bus_answer(call, &error);
		free(probe);
	}
}

static void host_probe(void *arg, const char *path, struct ter_bus_call *call)
{
	start_probe(arg, path, WANT_PROBE, call);
}

static void host_resolve_fs(void *arg, const char *spec, struct ter_bus_call *call)
{
	struct ter_error error = { 0 };
	struct td_pool *pool;

	if (td_pools_resolve(arg, spec, &pool, &error) >= 0)
		ter_bus_answer_fs(call, pool->text);
	else if (spec[0] == '/' && strncmp(spec, TER_BUS_ROOT "/", strlen(TER_BUS_ROOT) + 1) != 0)
		start_probe(arg, spec, WANT_FS, call);
	else
		ter_bus_answer(call, &error);
}

static void host_resolve_device(void *arg, const char *spec, struct ter_bus_call *call)
{
	char uuid[TER_UUID_TEXT_BYTES];
	struct ter_error error = { 0 };

	if (td_pools_resolve_device(arg, spec, uuid, &error) >= 0)
		ter_bus_answer_device(call, uuid);
	else if (spec[0] == '/')
		start_probe(arg, spec, WANT_DEVICE, call);
	else
		ter_bus_answer(call, &error);
}

/* --- filesystems --- */

static void host_sync(void *arg, const char *fs, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_sync(pool, call);
}

static void host_set_label(void *arg, const char *fs, const char *label, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_set_label(pool, label, call);
}

static void host_set_options(void *arg, const char *fs, const struct ter_bus_option *options, unsigned nr, bool persist, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_set_options(pool, options, nr, persist, call);
}

static void host_reset_options(void *arg, const char *fs, const struct ter_option_info *const *options, unsigned nr, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_reset_options(pool, options, nr, call);
}

static void host_list_damaged(void *arg, const char *fs, uint64_t from_inum, unsigned limit, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_list_damaged(pool, from_inum, limit, call);
}

static void host_clear_damage(void *arg, const char *fs, unsigned dev_major, unsigned dev_minor, uint64_t inum, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_clear_damage(pool, dev_major, dev_minor, inum, call);
}

static void host_read_superblock(void *arg, const char *fs, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_read_superblock(pool, call);
}

static void on_ready(struct td_settle *settle, struct td_pool *pool)
{
	struct ter_bus_call *call = settle->arg;
	struct ter_error late = { 0 };

	free(settle);
	if (!pool)
		ter_fail(&late, TER_ERR_TIMED_OUT, "The filesystem is still starting or stopping.");
	ter_bus_answer(call, &late);
}

static void host_wait_ready(void *arg, const char *fs, uint32_t timeout_s, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);
	struct ter_error error = { 0 };

	if (pool && td_pool_when_settled(pool, ter_max(timeout_s, 1u), on_ready, call) < 0) {
		ter_fail(&error, TER_ERR_NO_MEMORY, "Not enough memory to wait.");
		ter_bus_answer(call, &error);
	}
}

static void host_mount(void *arg, const struct ter_bus_who *who, const char *fs, const struct ter_bus_mount *mount, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_mount(pool, who, mount, call);
}

static void host_unmount(void *arg, const char *fs, const char *where, bool lazy, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_unmount(pool, where, lazy, call);
}

static void host_attach(void *arg, const struct ter_bus_who *who, const char *fs, const struct ter_bus_attach *attach, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_attach(pool, who, attach, call);
}

static void host_detach(void *arg, const char *fs, const char *where, struct ter_bus_call *call)
{
	struct td_pool *pool = find_or_answer(arg, fs, call);

	if (pool)
		td_pool_detach(pool, where, call);
}

void td_bus_host_fill(struct td_pools *pools, struct ter_bus_host *host)
{
	*host = (struct ter_bus_host){
		.arg = pools,
		.system = pools->system,
		.debug = pools->debug_interface,
		.version = TERRACE_VERSION,
		.codecs = pools->engine->env.codecs,
		.create = host_create,
		.rescan = host_rescan,
		.start = host_start,
		.stop = host_stop,
		.set_access = host_set_access,
		.fsck = host_fsck,
		.list_damaged = host_list_damaged,
		.clear_damage = host_clear_damage,
		.force_read_only = host_force_read_only,
		.set_fault = host_set_fault,
		.clear_faults = host_clear_faults,
		.job_cancel = host_job_cancel,
		.job_dismiss = host_job_dismiss,
		.probe = host_probe,
		.resolve_fs = host_resolve_fs,
		.resolve_device = host_resolve_device,
		.sync = host_sync,
		.set_label = host_set_label,
		.set_options = host_set_options,
		.reset_options = host_reset_options,
		.read_superblock = host_read_superblock,
		.wait_ready = host_wait_ready,
		.wait_job = host_wait_job,
		.mount = host_mount,
		.unmount = host_unmount,
		.attach = host_attach,
		.detach = host_detach,
	};
}
