/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Samples of running filesystems. */
#include "sampler.h"

#include <stdatomic.h>
#include <time.h>

#include "job.h"

#define KICK_PAUSE_MS 200 /* after a kick: what comes in bursts is sampled once */

struct entry {
	struct ter_list link;
	struct ter_fs *fs;
};
struct td_sampler {
	struct ter_exec *exec;
	struct td_main_queue *queue;
	void (*deliver)(void *arg, struct td_sample *sample);
	void *arg;
	struct ter_task *task;
	pthread_mutex_t list_lock; /* held while sampling: outside every lock of the engine */
	struct ter_list list;
	pthread_mutex_t lock; /* a leaf; guards kicked and stop */
	pthread_cond_t cond;
	bool kicked, stop;
	_Atomic unsigned pending;
};

struct td_sample *td_sample_take(struct ter_fs *fs)
{
	struct td_sample *sample = calloc(1, sizeof(*sample));

	if (!sample)
		return NULL;
	sample->fs = fs;
	sample->taken_us = td_real_us();
	ter_fs_get_status(fs, &sample->status);
	sample->devs_nr = ter_fs_get_devices(fs, sample->dev, ARRAY_SIZE(sample->dev));
	sample->replicas_nr = ter_fs_get_replicas(fs, sample->replicas, ARRAY_SIZE(sample->replicas));
	sample->compression_nr = ter_fs_get_compression(fs, sample->compression, ARRAY_SIZE(sample->compression));
	return sample;
}

static void on_delivery(struct td_post *post)
{
	struct td_sample *sample = ter_container_of(post, struct td_sample, post);
	struct td_sampler *sampler = sample->sampler;

	atomic_fetch_sub(&sampler->pending, 1);
	sampler->deliver(sampler->arg, sample);
}

static void sample_all(struct td_sampler *sampler)
{
	struct entry *entry;

	pthread_mutex_lock(&sampler->list_lock);
	ter_list_for_each(entry, &sampler->list, link) {
		struct td_sample *sample;

		if (atomic_load(&sampler->pending) >= TD_SAMPLES_PENDING_MAX)
			break;
		sample = td_sample_take(entry->fs);
		if (!sample)
			break; /* the next round tries again */
		sample->sampler = sampler;
		sample->post.fn = on_delivery;
		atomic_fetch_add(&sampler->pending, 1);
		td_main_queue_post(sampler->queue, &sample->post);
	}
	pthread_mutex_unlock(&sampler->list_lock);
}

static struct timespec in_ms(unsigned ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (long)(ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return ts;
}

/* Until the period is over, somebody kicked, or it is time to end. */
static bool wait_for_work(struct td_sampler *sampler)
{
	struct timespec until = in_ms(TD_SAMPLE_MS);
	bool stop;

	pthread_mutex_lock(&sampler->lock);
	while (!sampler->stop && !sampler->kicked)
		if (pthread_cond_timedwait(&sampler->cond, &sampler->lock, &until) == ETIMEDOUT)
			break;
	if (sampler->kicked) {
		until = in_ms(KICK_PAUSE_MS);
		while (!sampler->stop && pthread_cond_timedwait(&sampler->cond, &sampler->lock, &until) != ETIMEDOUT)
			continue;
	}
	sampler->kicked = false;
	stop = sampler->stop;
	pthread_mutex_unlock(&sampler->lock);
	return !stop;
}

static void thread_main(void *arg)
{
	struct td_sampler *sampler = arg;

	while (wait_for_work(sampler))
		sample_all(sampler);
}

int td_sampler_new(struct ter_exec *exec, struct td_main_queue *queue, void (*deliver)(void *arg, struct td_sample *sample), void *arg,
		   struct td_sampler **ret_sampler)
{
	struct td_sampler *sampler = calloc(1, sizeof(*sampler));
	pthread_condattr_t attr;
	int r;

	if (!sampler)
		return -ENOMEM;
	sampler->exec = exec;
	sampler->queue = queue;
	sampler->deliver = deliver;
	sampler->arg = arg;
	ter_list_init(&sampler->list);
	pthread_mutex_init(&sampler->list_lock, NULL);
	pthread_mutex_init(&sampler->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&sampler->cond, &attr);
	pthread_condattr_destroy(&attr);
	r = exec->ops->spawn(exec, "td-sampler", thread_main, sampler, &sampler->task);
	if (r < 0) {
		free(sampler);
		return r;
	}
	*ret_sampler = sampler;
	return 0;
}

void td_sampler_free(struct td_sampler *sampler)
{
	if (!sampler)
		return;
	pthread_mutex_lock(&sampler->lock);
	sampler->stop = true;
	pthread_cond_broadcast(&sampler->cond);
	pthread_mutex_unlock(&sampler->lock);
	sampler->exec->ops->join(sampler->exec, sampler->task);
	while (!ter_list_empty(&sampler->list)) {
		struct entry *entry = ter_list_first(&sampler->list, struct entry, link);

		ter_list_del(&entry->link);
		free(entry);
	}
	pthread_cond_destroy(&sampler->cond);
	pthread_mutex_destroy(&sampler->lock);
	pthread_mutex_destroy(&sampler->list_lock);
	free(sampler);
}

int td_sampler_add(struct td_sampler *sampler, struct ter_fs *fs)
{
	struct entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return -ENOMEM;
	entry->fs = fs;
	pthread_mutex_lock(&sampler->list_lock);
	ter_list_add_tail(&sampler->list, &entry->link);
	pthread_mutex_unlock(&sampler->list_lock);
	return 0;
}

void td_sampler_remove(struct td_sampler *sampler, struct ter_fs *fs)
{
	struct entry *entry, *tmp;

	pthread_mutex_lock(&sampler->list_lock);
	ter_list_for_each_safe(entry, tmp, &sampler->list, link)
		if (entry->fs == fs) {
			ter_list_del(&entry->link);
			free(entry);
		}
	pthread_mutex_unlock(&sampler->list_lock);
}

void td_sampler_kick(struct td_sampler *sampler)
{
	pthread_mutex_lock(&sampler->lock);
	sampler->kicked = true;
	pthread_cond_broadcast(&sampler->cond);
	pthread_mutex_unlock(&sampler->lock);
}
