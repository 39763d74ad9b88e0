/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A one-shot event. Set and woken under its lock, so that the waiter may destroy it as soon as its wait returns. */
#include "util/exec.h"

void ter_event_init(struct ter_event *event)
{
	ter_lock_init(&event->lock, TER_RANK_LEAF);
	ter_waitq_init(&event->wq);
	event->set = false;
	event->result = 0;
}

void ter_event_destroy(struct ter_event *event)
{
	ter_waitq_destroy(&event->wq);
	ter_lock_destroy(&event->lock);
}

void ter_event_set(struct ter_event *event, int result)
{
	ter_lock_acquire(&event->lock);
	event->set = true;
	event->result = result;
	ter_waitq_wake_all(&event->wq);
	ter_lock_release(&event->lock);
}

int ter_event_wait(struct ter_event *event)
{
	int result;

	ter_lock_acquire(&event->lock);
	while (!event->set)
		ter_waitq_wait(&event->wq, &event->lock);
	result = event->result;
	ter_lock_release(&event->lock);
	return result;
}
