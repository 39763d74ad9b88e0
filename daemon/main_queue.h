/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Other threads tell the main thread: a queue with one eventfd, emptied on the GLib main loop in order of arrival. */
#ifndef TD_MAIN_QUEUE_H
#define TD_MAIN_QUEUE_H

#include <glib.h>
#include <pthread.h>

/* Embedded in what is told, so that telling cannot fail. */
struct td_post {
	struct td_post *next;
	void (*fn)(struct td_post *post); /* on the main thread; may free what @post is part of */
};

struct td_main_queue {
	pthread_mutex_t lock; /* a leaf; guards head and tail */
	struct td_post *head, **tail;
	int fd;
	guint source;
};
int td_main_queue_init(struct td_main_queue *queue);
void td_main_queue_destroy(struct td_main_queue *queue); /* what is still queued is run first */
void td_main_queue_post(struct td_main_queue *queue, struct td_post *post); /* any thread */

#endif
