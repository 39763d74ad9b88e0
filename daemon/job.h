/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs: work that may wait, each on a thread of its own
 *
 *     start (main thread) -> run (its thread) -> done (main thread) -> kept as an object for a while -> dismissed
 *
 *   J1  run() sees only its own argument; what it found is applied in done(), on the main thread, which owns everything else.
 *   J2  done() publishes what changed; only then is the job itself published as over, and Completed said (D3 of dbus/bus.h).
 *   J3  A job outlives who started it: nothing here looks at the caller again.
 * A hidden job has no object: the work behind a method call that is answered later.
 */
#ifndef TD_JOB_H
#define TD_JOB_H

#include <stdatomic.h>

#include "dbus/bus.h"
#include "job_eta.h"
#include "main_queue.h"

#define TD_JOBS_RUNNING_MAX 64
#define TD_JOBS_KEPT_MAX 64
#define TD_JOB_FAILED_KEPT_US (24 * 3600 * 1000000ull)

struct td_jobs {
	struct ter_exec *exec;
	struct td_main_queue *queue;
	struct ter_bus *bus;
	struct ter_list running, kept, waits;
	unsigned running_nr, kept_nr;
	uint64_t last_id;
	guint tick;
	void (*on_end)(void *arg); /* after each job, when nothing of it is left to do */
	void *on_end_arg;
};

struct td_job {
	struct td_post post;
	struct ter_list link;
	struct td_jobs *jobs;
	struct ter_task *task;
	int (*run)(struct td_job *job, struct ter_error *error);
	void (*done)(struct td_job *job);
	void *arg;              /* freed by done() */
	bool hidden;
	_Atomic bool cancel;
	struct ter_job_ctl ctl; /* for core */
	pthread_mutex_t lock;   /* a leaf; guards phase and what was done */
	char phase[TER_BUS_WORD_MAX];
	uint64_t step_done, step_total, done_before;
	bool one_phase;
	struct td_job_eta eta;  /* main thread */
	int r;                  /* what run() returned */
	struct ter_error error;
	struct ter_bus_job_result result; /* run() fills it */
	struct ter_bus_job view;          /* main thread */
};

struct td_job_spec {
	const char *operation, *description;
	const char *fs; /* UUID as text; NULL: none yet */
	uint32_t uid;
	bool hidden, cancelable;
	bool one_phase; /* what follows the phase that has a progress takes no time: its end can be foretold */
	int (*run)(struct td_job *job, struct ter_error *error);
	void (*done)(struct td_job *job);
	void *arg;
};

int td_jobs_init(struct td_jobs *jobs, struct ter_exec *exec, struct td_main_queue *queue);
void td_jobs_destroy(struct td_jobs *jobs); /* none runs */
/* Published at once unless hidden. On failure @arg is still the caller's. */
int td_job_start(struct td_jobs *jobs, const struct td_job_spec *spec, struct td_job **ret_job, struct ter_error *error);
void td_job_line(struct td_job *job, const char *key, const char *sentence); /* from run(): a sentence of the result; beyond TER_BUS_LINES_MAX they are dropped */
void td_job_ask_cancel(struct td_job *job); /* main thread; harmless when it cannot be cancelled */
void td_jobs_cancel_all(struct td_jobs *jobs);

/* For the bus. */
int td_jobs_cancel(struct td_jobs *jobs, uint64_t id, struct ter_error *error);
int td_jobs_dismiss(struct td_jobs *jobs, uint64_t id, struct ter_error *error);
void td_jobs_wait(struct td_jobs *jobs, uint64_t id, uint32_t timeout_s, struct ter_bus_call *call);

uint64_t td_real_us(void);

#endif
