/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The queue to the main thread. */
#include "main_queue.h"

#include <errno.h>
#include <glib-unix.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void run_all(struct td_main_queue *queue)
{
	struct td_post *post;

	pthread_mutex_lock(&queue->lock);
	post = queue->head;
	queue->head = NULL;
	queue->tail = &queue->head;
	pthread_mutex_unlock(&queue->lock);
	while (post) {
		struct td_post *next = post->next;

		post->fn(post);
		post = next;
	}
}

static gboolean on_ready(gint fd, GIOCondition condition, gpointer data)
{
	uint64_t count;

	/* Before the queue is taken: what is posted after it wakes us again. */
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return G_SOURCE_CONTINUE;
	run_all(data);
	return G_SOURCE_CONTINUE;
}

int td_main_queue_init(struct td_main_queue *queue)
{
	*queue = (struct td_main_queue){ .tail = &queue->head };
	pthread_mutex_init(&queue->lock, NULL);
	queue->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->fd < 0)
		return -errno;
	queue->source = g_unix_fd_add(queue->fd, G_IO_IN, on_ready, queue);
	return 0;
}

void td_main_queue_destroy(struct td_main_queue *queue)
{
	if (!queue->source)
		return;
	run_all(queue);
	g_source_remove(queue->source);
	close(queue->fd);
	pthread_mutex_destroy(&queue->lock);
	queue->source = 0;
}

void td_main_queue_post(struct td_main_queue *queue, struct td_post *post)
{
	const uint64_t one = 1;

	post->next = NULL;
	pthread_mutex_lock(&queue->lock);
	*queue->tail = post;
	queue->tail = &post->next;
	pthread_mutex_unlock(&queue->lock);
	/* Fails only when the counter is full, and then the loop is awake. */
	if (write(queue->fd, &one, sizeof(one)) < 0)
		return;
}
