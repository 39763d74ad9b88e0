/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Work on a running pool that waits for devices: sync, label, options, checking; and what the engine tells. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "pools.h"

/* One call's work. */
struct work {
	struct td_pool *pool;
	struct ter_fs *fs;
	struct ter_bus_call *call;
	int (*fn)(struct work *work, struct ter_error *error);
	struct td_sample *sample; /* after a change */
	char label[TER_LABEL_MAX + 1];
	struct ter_bus_option option[TER_OPTION_ID_MAX];
	const struct ter_option_info *reset[TER_OPTION_ID_MAX];
	unsigned nr, done_nr;
	bool persist;
};

static int work_run(struct td_job *job, struct ter_error *error)
{
	struct work *work = job->arg;
	const int r = work->fn(work, error);

	if (work->label[0] || work->nr || work->persist)
		work->sample = td_sample_take(work->fs);
	td_pool_unuse(work->pool);
	return r;
}

static void work_done(struct td_job *job)
{
	struct work *work = job->arg;
	struct td_pool *pool = work->pool;

	for (unsigned i = 0; i < work->done_nr; i++) {
		const struct ter_option_info *info = work->option[i].info ? work->option[i].info : work->reset[i];

		pool->runtime_options &= ~(1ull << info->id);
		if (work->option[i].info && !work->persist)
			pool->runtime_options |= 1ull << info->id;
	}
	if (work->sample && pool->fs == work->fs) {
		free(pool->sample);
		pool->sample = work->sample;
		td_pool_publish(pool); /* before the answer */
	} else {
		free(work->sample);
	}
	ter_bus_answer(work->call, &job->error);
	free(work);
}

static void start_work(struct work *work, const char *what)
{
	struct ter_error error = { 0 };
	int r;

	r = td_pool_use(work->pool, &error);
	if (r >= 0) {
		work->fs = work->pool->fs;
		r = td_job_start(work->pool->pools->jobs,
				 &(struct td_job_spec){ .operation = what, .fs = work->pool->text, .hidden = true, .run = work_run, .done = work_done,
							.arg = work }, NULL, &error);
		if (r < 0)
			td_pool_unuse(work->pool);
	}
	if (r < 0) {
		ter_bus_answer(work->call, &error);
		free(work);
	}
}

static struct work *new_work(struct td_pool *pool, struct ter_bus_call *call, int (*fn)(struct work *work, struct ter_error *error))
{
	struct ter_error error = { 0 };
	struct work *work = calloc(1, sizeof(*work));

	if (!work) {
		ter_fail(&error, TER_ERR_NO_MEMORY, "Not enough memory for this call.");
		ter_bus_answer(call, &error);
		return NULL;
	}
	work->pool = pool;
	work->call = call;
	work->fn = fn;
	return work;
}

static int do_sync(struct work *work, struct ter_error *error)
{
	const int r = ter_fs_sync(work->fs);

	if (r == -EROFS)
		return ter_fail(error, TER_ERR_EMERGENCY_READ_ONLY, "The filesystem went read-only after an error: what was not yet written is lost.");
	return r < 0 ? ter_fail_errno(error, r, "The filesystem could not be synced: %s.", strerror(-r)) : 0;
}

void td_pool_sync(struct td_pool *pool, struct ter_bus_call *call)
{
	struct work *work = new_work(pool, call, do_sync);

	if (work)
		start_work(work, "sync");
}

static int do_set_label(struct work *work, struct ter_error *error)
{
	return ter_fs_set_label(work->fs, work->label, error);
}

void td_pool_set_label(struct td_pool *pool, const char *label, struct ter_bus_call *call)
{
	struct work *work = new_work(pool, call, do_set_label);

	if (!work)
		return;
	snprintf(work->label, sizeof(work->label), "%s", label);
	work->persist = true; /* also for an empty label: something changes */
	start_work(work, "set-label");
}

static int do_set_options(struct work *work, struct ter_error *error)
{
	int r = 0;

	for (; work->done_nr < work->nr && r >= 0; work->done_nr += r >= 0)
		r = ter_fs_set_option(work->fs, work->option[work->done_nr].info->name, work->option[work->done_nr].text, work->persist, error);
	return r;
}

void td_pool_set_options(struct td_pool *pool, const struct ter_bus_option *options, unsigned nr, bool persist, struct ter_bus_call *call)
{
	struct work *work = new_work(pool, call, do_set_options);

	if (!work)
		return;
	memcpy(work->option, options, nr * sizeof(*options));
	work->nr = nr;
	work->persist = persist;
	start_work(work, "set-options");
}

static int do_reset_options(struct work *work, struct ter_error *error)
{
	int r = 0;

	for (; work->done_nr < work->nr && r >= 0; work->done_nr += r >= 0)
		r = ter_fs_reset_option(work->fs, work->reset[work->done_nr]->name, error);
	return r;
}

void td_pool_reset_options(struct td_pool *pool, const struct ter_option_info *const *options, unsigned nr, struct ter_bus_call *call)
{
	struct work *work = new_work(pool, call, do_reset_options);

	if (!work)
		return;
	memcpy(work->reset, options, nr * sizeof(options[0]));
	work->nr = nr;
	start_work(work, "reset-options");
}

/* --- the superblock as it stands on a member --- */

struct read_sb {
	struct ter_bus_call *call;
	char path[PATH_MAX];
	uint8_t bytes[TER_SB_BYTES_MAX];
	size_t nr;
};

static int read_sb_run(struct td_job *job, struct ter_error *error)
{
	struct read_sb *read_sb = job->arg;
	const int fd = open(read_sb->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n;

	if (fd < 0)
		return ter_fail_errno(error, -errno, "'%s' cannot be opened: %s.", read_sb->path, strerror(errno));
	n = pread(fd, read_sb->bytes, sizeof(read_sb->bytes), TER_SB_SLOT0_BYTES);
	if (n < 0)
		ter_fail_errno(error, -errno, "'%s' cannot be read: %s.", read_sb->path, strerror(errno));
	close(fd);
	if (n < 0)
		return error->err;
	read_sb->nr = (size_t)n;
	return 0;
}

static void read_sb_done(struct td_job *job)
{
	struct read_sb *read_sb = job->arg;

	if (job->r < 0)
		ter_bus_answer(read_sb->call, &job->error);
	else
		ter_bus_answer_bytes(read_sb->call, read_sb->bytes, read_sb->nr);
	free(read_sb);
}

static const char *some_member(const struct td_pool *pool)
{
	for (unsigned i = 0; pool->sample && i < pool->sample->devs_nr; i++)
		if (pool->sample->dev[i].online)
			return pool->sample->dev[i].path;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (pool->member[i].path)
			return pool->member[i].path;
	return NULL;
}

void td_pool_read_superblock(struct td_pool *pool, struct ter_bus_call *call)
{
	struct read_sb *read_sb = calloc(1, sizeof(*read_sb));
	const char *path = some_member(pool);
	struct ter_error error = { 0 };
	int r;

	if (!read_sb)
		r = ter_fail(&error, TER_ERR_NO_MEMORY, "Not enough memory for this call.");
	else if (!path)
		r = ter_fail(&error, TER_ERR_DEVICE_MISSING, "No member of filesystem '%s' is there.", td_pool_label(pool));
	else {
		read_sb->call = call;
		snprintf(read_sb->path, sizeof(read_sb->path), "%s", path);
		r = td_job_start(pool->pools->jobs,
				 &(struct td_job_spec){ .operation = "read-superblock", .hidden = true, .run = read_sb_run, .done = read_sb_done,
							.arg = read_sb }, NULL, &error);
	}
	if (r < 0) {
		ter_bus_answer(call, &error);
		free(read_sb);
	}
}

/* --- fsck --- */

struct check {
	struct td_pool *pool;
	struct ter_fs *fs;      /* running; else it is opened for the check alone */
	bool repair;
	struct td_paths paths;
};

static void on_found(void *arg, const char *pass, const char *sentence)
{
	char line[TER_BUS_LINE_MAX];

	snprintf(line, sizeof(line), "%s: %s", pass, sentence);
	td_job_line(arg, "messages", line);
}

static int check_fs(struct td_job *job, struct ter_fs *fs, struct ter_error *error)
{
	const struct ter_fsck_report report = { .found = on_found, .arg = job };
	const int64_t found = ter_fs_fsck(fs, &report, &job->ctl, error);

	if (found < 0)
		return (int)found;
	job->result.has_found = true;
	job->result.found = (uint64_t)found;
	return 0;
}

/* Opened read-only, so that nothing is changed; replayed in memory if it was not stopped cleanly. */
static int check_stopped(struct td_job *job, const struct check *check, struct ter_error *error)
{
	const struct ter_open_params open = {
		.paths = (const char *const *)check->paths.path, .paths_nr = check->paths.nr, .degraded = -1, .read_only = true,
	};
	struct ter_fs *fs;
	int r;

	r = ter_fs_open(&check->pool->pools->engine->env, &open, NULL, NULL, &fs, error);
	if (r < 0)
		return r;
	r = ter_fs_start(fs, &job->ctl, error);
	if (r >= 0)
		r = check_fs(job, fs, error);
	ter_fs_close(fs);
	return r;
}

static int want_repair(void *arg, const char *pass, const char *sentence)
{
	on_found(arg, pass, sentence);
	return 1;
}

/* Each repair, then what is left, is a line of the result. */
static int repair_stopped(struct td_job *job, const struct check *check, struct ter_error *error)
{
	const struct ter_open_params open = {
		.paths = (const char *const *)check->paths.path, .paths_nr = check->paths.nr, .degraded = -1,
	};
	const struct ter_fs_repair_params params = { .want = want_repair, .left = on_found, .arg = job };
	struct ter_fs_repaired repaired = { 0 };
	struct ter_fs *fs;
	int r;

	r = ter_fs_open(&check->pool->pools->engine->env, &open, NULL, NULL, &fs, error);
	if (r < 0)
		return r;
	r = ter_fs_repair(fs, &params, &job->ctl, &repaired, error);
	if (r >= 0)
		r = ter_fs_stop(fs, error);
	else
		(void)ter_fs_stop(fs, NULL); /* the first error is the one to tell */
	ter_fs_close(fs);
	job->result.has_found = r >= 0;
	job->result.found = repaired.left;
	return r;
}

/* A repair needs the filesystem for itself. */
static int check_unused(struct td_pool *pool, struct ter_error *error)
{
	const char *name = td_pool_label(pool)[0] ? td_pool_label(pool) : pool->text;

	if (!pool->fs)
		return 0;
	if (pool->mount)
		return ter_fail(error, TER_ERR_BUSY, "Filesystem '%s' is mounted: it can be checked, but not repaired. First: terracectl unmount %s, then "
				"terracectl stop %s.", name, pool->mount->where, name);
	return ter_fail(error, TER_ERR_WRONG_STATE, "Filesystem '%s' is started: it can be checked, but not repaired. First: terracectl stop %s.", name, name);
}

static int check_run(struct td_job *job, struct ter_error *error)
{
	struct check *check = job->arg;
	int r;

	if (check->repair)
		return repair_stopped(job, check, error);
	if (!check->fs)
		return check_stopped(job, check, error);
	r = check_fs(job, check->fs, error);
	td_pool_unuse(check->pool);
	return r;
}

static void check_done(struct td_job *job)
{
	struct check *check = job->arg;
	struct td_pool *pool = check->pool;

	if (check->fs)
		pool->check = NULL;
	else
		pool->life = NULL;
	td_pool_publish(pool);
	td_paths_free(&check->paths);
	free(check);
}

int td_pool_fsck(struct td_pool *pool, uint32_t uid, bool repair, uint64_t *ret_job, struct ter_error *error)
{
	struct td_job *job;
	struct check *check;
	int r = 0;

	if (pool->check)
		return ter_fail(error, TER_ERR_JOB_CONFLICT, "Filesystem '%s' is being checked already.", td_pool_label(pool));
	if (repair) {
		r = check_unused(pool, error);
		if (r < 0)
			return r;
	}
	if (pool->pools->quitting || pool->life || pool->fs) {
		r = td_pool_use(pool, error);
		if (r < 0)
			return r;
	}
	check = calloc(1, sizeof(*check));
	if (!check) {
		r = ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to check.");
		goto out;
	}
	check->pool = pool;
	check->fs = pool->fs;
	check->repair = repair;
	for (unsigned i = 0; !pool->fs && i < TER_DEVS_MAX && r >= 0; i++)
		if (pool->member[i].path && !pool->member[i].conflict)
			r = td_paths_add(&check->paths, pool->member[i].path);
	if (r >= 0)
		r = td_job_start(pool->pools->jobs,
				 &(struct td_job_spec){ .operation = "fsck", .description = repair ? "Repairing a filesystem" : "Checking a filesystem", .fs = pool->text, .uid = uid,
							.cancelable = true, .run = check_run, .done = check_done, .arg = check }, &job, error);
	if (r < 0) {
		td_paths_free(&check->paths);
		free(check);
		ter_fail_errno(error, r, "The check cannot begin: %s.", strerror(-r));
	}
out:
	if (r < 0) {
		if (pool->fs)
			td_pool_unuse(pool);
		return r;
	}
	*(pool->fs ? &pool->check : &pool->life) = job;
	*ret_job = job->view.id;
	return 0;
}

/* --- what the engine tells --- */

struct event {
	struct td_post post;
	struct td_pool *pool;
	enum ter_event_kind kind;
	int dev_idx, err;
	uint64_t inum;
	char text[TER_ERROR_TEXT_MAX];
};

static const char *const event_classes[] = {
	[TER_EVENT_STATE] = "state",
	[TER_EVENT_DEVICE_ERROR] = "device-error",
	[TER_EVENT_DAMAGE] = "damage",
	[TER_EVENT_DEGRADED_WRITE] = "degraded-write",
	[TER_EVENT_EMERGENCY] = "emergency-read-only",
};

static bool within_rate(struct td_pool *pool)
{
	const uint64_t now = td_real_us() / 1000000;

	if (pool->events_second != now) {
		pool->events_second = now;
		pool->events_this_second = 0;
	}
	return pool->events_this_second++ < TD_EVENTS_PER_S;
}

static void tell_event(const struct event *event)
{
	struct td_pool *pool = event->pool;
	char device[TER_UUID_TEXT_BYTES] = "";

	if (event->dev_idx >= 0 && event->dev_idx < TER_DEVS_MAX)
		ter_uuid_format(pool->table->dev[event->dev_idx].uuid, device);
	td_log(event->kind == TER_EVENT_EMERGENCY ? LOG_CRIT : LOG_WARNING,
	       &(struct td_log_about){ .fs_uuid = pool->text, .fs_label = td_pool_label(pool), .device_uuid = device[0] ? device : NULL,
				       .error = event_classes[event->kind] },
	       "Filesystem '%s': %s", td_pool_label(pool)[0] ? td_pool_label(pool) : pool->text, event->text);
	ter_bus_error_detected(pool->pools->bus, pool->text, event_classes[event->kind], device, event->inum, event->text);
}

static void on_event_main(struct td_post *post)
{
	struct event *event = ter_container_of(post, struct event, post);
	struct td_pool *pool = event->pool;

	atomic_fetch_sub(&pool->events_pending, 1);
	if (event->kind == TER_EVENT_DAMAGE && event->inum && event->err < 0)
		td_pool_damage_told(pool);
	if (event->kind == TER_EVENT_EMERGENCY || within_rate(pool)) /* the one comes once in a run, and is what matters */
		tell_event(event);
	else
		atomic_fetch_add(&pool->events_dropped, 1);
	free(event);
}

void td_pool_on_event(void *arg, struct ter_fs *fs, const struct ter_fs_event *told)
{
	struct td_pool *pool = arg;
	struct event *event = NULL;

	(void)fs;
	if (told->kind != TER_EVENT_STATE) { /* state comes with the sample */
		if (atomic_fetch_add(&pool->events_pending, 1) < TD_EVENTS_PENDING_MAX || told->kind == TER_EVENT_EMERGENCY)
			event = malloc(sizeof(*event));
		if (event) {
			*event = (struct event){ .post.fn = on_event_main, .pool = pool, .kind = told->kind, .dev_idx = told->dev_idx, .err = told->err,
						   .inum = told->inum };
			snprintf(event->text, sizeof(event->text), "%s", told->text);
			td_main_queue_post(pool->pools->queue, &event->post);
		} else {
			atomic_fetch_sub(&pool->events_pending, 1);
			atomic_fetch_add(&pool->events_dropped, 1);
		}
	}
	td_sampler_kick(pool->pools->sampler);
}
