/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs: threads, progress, ends, retention. */
#include "job.h"

#include <stdio.h>
#include <time.h>

#include "log.h"

#define PROGRESS_MS 1000 /* progress is published at most so often, a job's state at once */
#define IDLE_MS 60000    /* while nothing runs, only retention is looked after */

struct wait {
	struct ter_list link;
	struct td_jobs *jobs;
	uint64_t id;
	struct ter_bus_call *call;
	guint timer;
};

uint64_t td_real_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void publish(struct td_job *job)
{
	int r;

	if (job->hidden)
		return;
	r = ter_bus_publish_job(job->jobs->bus, &job->view);
	if (r < 0 && r != -ENOTCONN)
		td_log(LOG_WARNING, NULL, "Job %llu cannot be shown on the bus: %s.", (unsigned long long)job->view.id, strerror(-r));
}

/* --- its thread --- */

static int step(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct td_job *job = arg;

	if (atomic_load(&job->cancel))
		return -ECANCELED;
	pthread_mutex_lock(&job->lock);
	if (strcmp(job->phase, phase) != 0 || done < job->step_done)
		job->done_before += job->step_done; /* another phase, or another round of it */
	if (strcmp(job->phase, phase) != 0)
		snprintf(job->phase, sizeof(job->phase), "%s", phase);
	job->step_done = done;
	job->step_total = total;
	pthread_mutex_unlock(&job->lock);
	return 0;
}

static void thread_main(void *arg)
{
	struct td_job *job = arg;

	job->r = job->run(job, &job->error);
	td_main_queue_post(job->jobs->queue, &job->post);
}

void td_job_line(struct td_job *job, const char *key, const char *sentence)
{
	struct ter_bus_job_result *result = &job->result;

	snprintf(result->lines_key, sizeof(result->lines_key), "%s", key);
	if (result->lines_nr < TER_BUS_LINES_MAX)
		snprintf(result->line[result->lines_nr++], TER_BUS_LINE_MAX, "%s", sentence);
}

/* --- the main thread --- */

static void copy_progress(struct td_job *job)
{
	pthread_mutex_lock(&job->lock);
	snprintf(job->view.phase, sizeof(job->view.phase), "%s", job->phase);
	job->view.progress_valid = job->step_total > 0;
	job->view.progress = job->step_total ? ter_min(1.0, (double)job->step_done / (double)job->step_total) : 0;
	job->view.counters.done = job->done_before + job->step_done;
	pthread_mutex_unlock(&job->lock);
}

static void job_free(struct td_job *job)
{
	ter_list_del(&job->link);
	pthread_mutex_destroy(&job->lock);
	free(job);
}

static void drop_kept(struct td_jobs *jobs, struct td_job *job)
{
	ter_bus_remove_job(jobs->bus, job->view.id);
	jobs->kept_nr--;
	job_free(job);
}

static void expire(struct td_jobs *jobs)
{
	const uint64_t now = td_real_us();
	struct td_job *job, *tmp;

	ter_list_for_each_safe(job, tmp, &jobs->kept, link) {
		const uint64_t keep = job->view.state == TER_BUS_JOB_FAILED ? TD_JOB_FAILED_KEPT_US : TER_BUS_RETENTION_US;

		if (jobs->kept_nr > TD_JOBS_KEPT_MAX || now - job->view.end_us > keep)
			drop_kept(jobs, job);
	}
}

static gboolean on_tick(gpointer data)
{
	struct td_jobs *jobs = data;
	struct td_job *job;

	ter_list_for_each(job, &jobs->running, link) {
		copy_progress(job);
		job->view.expected_end_us = job->one_phase && job->view.progress_valid ? td_job_eta_add(&job->eta, td_real_us(), job->view.progress) : 0;
		publish(job);
	}
	expire(jobs);
	return G_SOURCE_CONTINUE;
}

static void set_tick(struct td_jobs *jobs, unsigned ms)
{
	if (jobs->tick)
		g_source_remove(jobs->tick);
	jobs->tick = g_timeout_add(ms, on_tick, jobs);
}

static void wait_free(struct wait *wait)
{
	ter_list_del(&wait->link);
	if (wait->timer)
		g_source_remove(wait->timer);
	free(wait);
}

static void answer_waits(struct td_jobs *jobs, uint64_t id)
{
	struct wait *wait, *tmp;

	ter_list_for_each_safe(wait, tmp, &jobs->waits, link)
		if (wait->id == id) {
			ter_bus_answer_job(wait->call, id);
			wait_free(wait);
		}
}

static void fill_end(struct td_job *job)
{
	struct ter_bus_job *view = &job->view;

	copy_progress(job);
	view->end_us = td_real_us();
	view->cancelable = false;
	view->expected_end_us = 0;
	view->result = job->result;
	view->counters.has_errors = job->result.has_found;
	view->counters.errors = job->result.found;
	if (job->r >= 0) {
		view->state = TER_BUS_JOB_SUCCEEDED;
		view->progress = 1;
		return;
	}
	if (job->error.kind == TER_ERR_NONE)
		ter_fail_errno(&job->error, job->r, "It failed: %s.", strerror(-job->r));
	/* Whatever a layer said about being stopped, it was asked to. */
	view->state = job->r == -ECANCELED && atomic_load(&job->cancel) ? TER_BUS_JOB_CANCELLED : TER_BUS_JOB_FAILED;
	view->error_kind = view->state == TER_BUS_JOB_CANCELLED ? TER_ERR_CANCELLED : job->error.kind;
	snprintf(view->error_message, sizeof(view->error_message), "%s", view->state == TER_BUS_JOB_CANCELLED ? "The job was cancelled." : job->error.text);
}

static void log_end(const struct td_job *job)
{
	char id[24];

	if (job->hidden)
		return;
	snprintf(id, sizeof(id), "%llu", (unsigned long long)job->view.id);
	td_log(job->view.state == TER_BUS_JOB_FAILED ? LOG_WARNING : LOG_INFO,
	       &(struct td_log_about){ .job = id, .fs_uuid = job->view.fs, .error = job->view.error_kind ? ter_error_name(job->view.error_kind) : NULL },
	       "Job %s (%s): %s%s%s", id, job->view.operation, ter_bus_job_states[job->view.state], job->view.error_message[0] ? ": " : ".",
	       job->view.error_message);
}

static void on_done(struct td_post *post)
{
	struct td_job *job = ter_container_of(post, struct td_job, post);
	struct td_jobs *jobs = job->jobs;

	jobs->exec->ops->join(jobs->exec, job->task);
	fill_end(job);
	job->done(job); /* J2 */
	job->arg = NULL;
	publish(job);
	log_end(job);
	ter_list_del(&job->link);
	if (!--jobs->running_nr)
		set_tick(jobs, IDLE_MS);
	if (job->hidden) {
		job_free(job);
	} else {
		ter_list_add_tail(&jobs->kept, &job->link);
		jobs->kept_nr++;
		answer_waits(jobs, job->view.id);
		expire(jobs);
	}
	if (jobs->on_end)
		jobs->on_end(jobs->on_end_arg);
}

int td_job_start(struct td_jobs *jobs, const struct td_job_spec *spec, struct td_job **ret_job, struct ter_error *error)
{
	struct td_job *job;
	int r;

	if (jobs->running_nr >= TD_JOBS_RUNNING_MAX)
		return ter_fail(error, TER_ERR_LIMIT_EXCEEDED, "%u jobs are running already. Try again when one has ended.", TD_JOBS_RUNNING_MAX);
	job = calloc(1, sizeof(*job));
	if (!job)
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory for a job.");
	pthread_mutex_init(&job->lock, NULL);
	job->post.fn = on_done;
	job->jobs = jobs;
	job->run = spec->run;
	job->done = spec->done;
	job->arg = spec->arg;
	job->hidden = spec->hidden;
	job->one_phase = spec->one_phase;
	job->ctl = (struct ter_job_ctl){ .step = step, .arg = job };
	job->view = (struct ter_bus_job){ .id = ++jobs->last_id, .state = TER_BUS_JOB_RUNNING, .cancelable = spec->cancelable, .start_us = td_real_us(),
					  .uid = spec->uid };
	snprintf(job->view.operation, sizeof(job->view.operation), "%s", spec->operation);
	snprintf(job->view.description, sizeof(job->view.description), "%s", spec->description ? spec->description : "");
	snprintf(job->view.fs, sizeof(job->view.fs), "%s", spec->fs ? spec->fs : "");
	ter_list_add_tail(&jobs->running, &job->link);
	if (!jobs->running_nr++)
		set_tick(jobs, PROGRESS_MS);
	r = jobs->exec->ops->spawn(jobs->exec, "td-job", thread_main, job, &job->task);
	if (r < 0) {
		jobs->running_nr--;
		job_free(job);
		return ter_fail_errno(error, r, "A thread for the job cannot be started: %s.", strerror(-r));
	}
	publish(job);
	if (ret_job)
		*ret_job = job;
	return 0;
}

void td_job_ask_cancel(struct td_job *job)
{
	if (!job->view.cancelable)
		return;
	atomic_store(&job->cancel, true);
	if (job->view.state == TER_BUS_JOB_RUNNING) {
		job->view.state = TER_BUS_JOB_CANCELLING;
		publish(job);
	}
}

void td_jobs_cancel_all(struct td_jobs *jobs)
{
	struct td_job *job;

	ter_list_for_each(job, &jobs->running, link)
		td_job_ask_cancel(job);
}

static struct td_job *find(struct ter_list *list, uint64_t id)
{
	struct td_job *job;

	ter_list_for_each(job, list, link)
		if (!job->hidden && job->view.id == id)
			return job;
	return NULL;
}

int td_jobs_cancel(struct td_jobs *jobs, uint64_t id, struct ter_error *error)
{
	struct td_job *job = find(&jobs->running, id);

	if (!job)
		return ter_fail(error, TER_ERR_NOT_CANCELABLE, "The job is over.");
	if (!job->view.cancelable)
		return ter_fail(error, TER_ERR_NOT_CANCELABLE, "The job cannot be stopped half way.");
	if (atomic_load(&job->cancel))
		return ter_fail(error, TER_ERR_ALREADY_CANCELLED, "The job is being cancelled already.");
	td_job_ask_cancel(job);
	return 0;
}

int td_jobs_dismiss(struct td_jobs *jobs, uint64_t id, struct ter_error *error)
{
	struct td_job *job = find(&jobs->kept, id);

	if (!job)
		return ter_fail(error, TER_ERR_WRONG_STATE, "The job still runs; cancel it first.");
	drop_kept(jobs, job);
	return 0;
}

static gboolean on_wait_over(gpointer data)
{
	struct wait *wait = data;
	struct ter_error late = { 0 };

	wait->timer = 0;
	ter_fail(&late, TER_ERR_TIMED_OUT, "The job still runs.");
	ter_bus_answer(wait->call, &late);
	wait_free(wait);
	return G_SOURCE_REMOVE;
}

void td_jobs_wait(struct td_jobs *jobs, uint64_t id, uint32_t timeout_s, struct ter_bus_call *call)
{
	struct ter_error no_memory = { 0 };
	struct wait *wait;

	if (!find(&jobs->running, id)) {
		ter_bus_answer_job(call, id);
		return;
	}
	wait = calloc(1, sizeof(*wait));
	if (!wait) {
		ter_fail(&no_memory, TER_ERR_NO_MEMORY, "Not enough memory to wait.");
		ter_bus_answer(call, &no_memory);
		return;
	}
	*wait = (struct wait){ .jobs = jobs, .id = id, .call = call };
	wait->timer = g_timeout_add_seconds(timeout_s, on_wait_over, wait);
	ter_list_add_tail(&jobs->waits, &wait->link);
}

int td_jobs_init(struct td_jobs *jobs, struct ter_exec *exec, struct td_main_queue *queue)
{
	*jobs = (struct td_jobs){ .exec = exec, .queue = queue };
	ter_list_init(&jobs->running);
	ter_list_init(&jobs->kept);
	ter_list_init(&jobs->waits);
	set_tick(jobs, IDLE_MS);
	return 0;
}

/* Waits of jobs that ended were answered; the calls of others are answered by the bus's end. */
void td_jobs_destroy(struct td_jobs *jobs)
{
	if (!jobs->tick)
		return;
	g_source_remove(jobs->tick);
	while (!ter_list_empty(&jobs->waits))
		wait_free(ter_list_first(&jobs->waits, struct wait, link));
	while (!ter_list_empty(&jobs->kept))
		job_free(ter_list_first(&jobs->kept, struct td_job, link));
	jobs->tick = 0;
}
