/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Work queue: a few tasks that run closures in order of arrival
 *
 * The first task begins with the queue, so that what is added is always run; the others begin when work is added and nobody is free. A queue that is never busy
 * costs one task, and one that cannot have more of them is slower, not stuck.
 */
#include "util/exec.h"
#include "util/mem.h"

struct ter_workq {
	struct ter_exec *exec;
	const char *name;
	unsigned task_max;
	struct ter_lock lock; /* rank LEAF; guards all below */
	struct ter_waitq more, idle;
	struct ter_list queue;
	unsigned queued_nr, running_nr;
	bool stop;
	bool growing; /* somebody is starting task[task_nr] */
	unsigned task_nr;
	struct ter_task *task[];
};

static void workq_task(void *arg)
{
	struct ter_workq *wq = arg;

	ter_lock_acquire(&wq->lock);
	for (;;) {
		struct ter_work *work;

		while (ter_list_empty(&wq->queue) && !wq->stop)
			ter_waitq_wait(&wq->more, &wq->lock);
		if (ter_list_empty(&wq->queue))
			break;

		work = ter_list_first(&wq->queue, struct ter_work, link);
		ter_list_del(&work->link);
		wq->queued_nr--;
		wq->running_nr++;
		ter_lock_release(&wq->lock);
		work->fn(work); /* may free or add the work */
		ter_lock_acquire(&wq->lock);
		wq->running_nr--;
		if (!wq->running_nr && ter_list_empty(&wq->queue))
			ter_waitq_wake_all(&wq->idle);
	}
	ter_lock_release(&wq->lock);
}

int ter_workq_new(struct ter_exec *exec, const char *name, unsigned nr, struct ter_workq **ret_wq)
{
	struct ter_workq *wq;
	int r;

	assert(nr > 0);
	wq = ter_zalloc(sizeof(*wq) + nr * sizeof(wq->task[0]));
	if (!wq)
		return -ENOMEM;
	wq->exec = exec;
	wq->name = name;
	wq->task_max = nr;
	ter_lock_init(&wq->lock, TER_RANK_LEAF);
	ter_waitq_init(&wq->more);
	ter_waitq_init(&wq->idle);
	ter_list_init(&wq->queue);

	r = exec->ops->spawn(exec, name, workq_task, wq, &wq->task[0]);
	if (r < 0) {
		ter_workq_free(wq);
		return r;
	}
	wq->task_nr = 1;
	*ret_wq = wq;
	return 0;
}

/* One more task, if work waits that no task is free for. Without the lock: a start takes a while. */
static void grow(struct ter_workq *wq)
{
	struct ter_task *task;
	int r = wq->exec->ops->spawn(wq->exec, wq->name, workq_task, wq, &task);

	ter_lock_acquire(&wq->lock);
	if (r >= 0)
		wq->task[wq->task_nr++] = task;
	wq->growing = false;
	if (wq->stop)
		ter_waitq_wake_all(&wq->idle);
	ter_lock_release(&wq->lock);
}

void ter_workq_add(struct ter_workq *wq, struct ter_work *work)
{
	bool more;

	ter_lock_acquire(&wq->lock);
	ter_list_add_tail(&wq->queue, &work->link);
	wq->queued_nr++;
	more = !wq->growing && !wq->stop && wq->task_nr < wq->task_max && wq->running_nr + wq->queued_nr > wq->task_nr;
	wq->growing |= more;
	ter_waitq_wake_one(&wq->more);
	ter_lock_release(&wq->lock);
	if (more)
		grow(wq);
}

void ter_workq_drain(struct ter_workq *wq)
{
	ter_lock_acquire(&wq->lock);
	while (wq->running_nr || !ter_list_empty(&wq->queue))
		ter_waitq_wait(&wq->idle, &wq->lock);
	ter_lock_release(&wq->lock);
}

void ter_workq_free(struct ter_workq *wq)
{
	if (!wq)
		return;
	ter_lock_acquire(&wq->lock);
	wq->stop = true; /* each task first runs what is queued */
	ter_waitq_wake_all(&wq->more);
	while (wq->growing) /* by a work that added another */
		ter_waitq_wait(&wq->idle, &wq->lock);
	ter_lock_release(&wq->lock);
	for (unsigned i = 0; i < wq->task_nr; i++)
		wq->exec->ops->join(wq->exec, wq->task[i]);

	ter_waitq_destroy(&wq->idle);
	ter_waitq_destroy(&wq->more);
	ter_lock_destroy(&wq->lock);
	free(wq);
}
