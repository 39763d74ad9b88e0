/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The threads backend: a task is a thread, time and randomness are the machine's. */
#include <sched.h>
#include <signal.h>
#include <sys/random.h>
#include <time.h>

#include "util/exec_priv.h"
#include "util/fault.h"
#include "util/mem.h"

#define TASK_NAME_BYTES 16 /* what pthread_setname_np() takes, with the final 0 */

TER_FAULT_POINT(fault_spawn, "exec.spawn", EAGAIN, "the start of a task")

struct ter_task {
	pthread_t thread;
	char name[TASK_NAME_BYTES];
	void (*fn)(void *arg);
	void *arg;
};

int ter_exec_spawn_fault(void)
{
	return TER_FAULT(fault_spawn);
}

static void *task_main(void *arg)
{
	struct ter_task *task = arg;

	(void)pthread_setname_np(pthread_self(), task->name); /* only for people who look */
	task->fn(task->arg);
	return NULL;
}

static int threads_spawn(struct ter_exec *exec, const char *name, void (*fn)(void *arg), void *arg,
			 struct ter_task **ret_task)
{
	_cleanup_free_ struct ter_task *task = NULL;
	sigset_t all, old;
	int r;

	r = ter_exec_spawn_fault();
	if (r < 0)
		return r;
	task = ter_new(struct ter_task);
	if (!task)
		return -ENOMEM;
	task->fn = fn;
	task->arg = arg;
	strncpy(task->name, name, sizeof(task->name) - 1);

	/* Signals belong to the daemon's main loop; a task begins with all of them blocked. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&task->thread, NULL, task_main, task);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r < 0)
		return r == -ENOMEM ? -ENOMEM : -EAGAIN;

	*ret_task = TAKE_PTR(task);
	return 0;
}

static void threads_join(struct ter_exec *exec, struct ter_task *task)
{
	if (!task)
		return;
	if (pthread_join(task->thread, NULL))
		abort(); /* a task that joins itself, or one joined twice */
	free(task);
}

static uint64_t threads_mono_ns(struct ter_exec *exec)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * TER_NS_PER_S + (uint64_t)now.tv_nsec;
}

static int64_t threads_real_ns(struct ter_exec *exec)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * (int64_t)TER_NS_PER_S + now.tv_nsec;
}

static void threads_random(struct ter_exec *exec, void *buf, size_t bytes)
{
	uint8_t *p = buf;

	while (bytes) {
		ssize_t n = getrandom(p, bytes, 0);

		if (n < 0) {
			if (errno != EINTR)
				abort(); /* present since Linux 3.17; nothing here may run on guessable numbers */
			continue;
		}
		p += n;
		bytes -= (size_t)n;
	}
}

static void threads_yield(struct ter_exec *exec)
{
	sched_yield();
}

static const struct ter_exec_ops threads_ops = {
	.spawn = threads_spawn,
	.join = threads_join,
	.mono_ns = threads_mono_ns,
	.real_ns = threads_real_ns,
	.random = threads_random,
	.yield = threads_yield,
};

struct ter_exec *ter_exec_new_threads(void)
{
	struct ter_exec *exec = ter_new(struct ter_exec);
	cpu_set_t set;

	if (!exec)
		return NULL;
	exec->ops = &threads_ops;
	exec->cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
	return exec;
}
