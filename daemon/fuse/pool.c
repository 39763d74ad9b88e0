/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The blocking pool: requests that would have waited on a serving thread are decoded again from a copy and done here, waiting. */
#include "fuse/fuse_priv.h"

static void run_job(struct td_pool_job *job)
{
	bool deferred;

	td_process(job->session, job->request, job->bytes, job->entry, false, &deferred);
	assert(!deferred); /* only nowait calls are deferred */
	free(job->request);
	free(job);
}

static void *pool_thread(void *arg)
{
	struct td_session *s = arg;
	struct td_pool *pool = &s->pool;

	pthread_mutex_lock(&pool->mutex);
	for (;;) {
		struct td_pool_job *job;

		while (ter_list_empty(&pool->jobs) && !pool->stop)
			pthread_cond_wait(&pool->cond, &pool->mutex);
		if (ter_list_empty(&pool->jobs))
			break;
		job = ter_list_first(&pool->jobs, struct td_pool_job, link);
		ter_list_del(&job->link);
		pthread_mutex_unlock(&pool->mutex);
		run_job(job);
		pthread_mutex_lock(&pool->mutex);
	}
	pthread_mutex_unlock(&pool->mutex);
	return NULL;
}

int td_pool_start(struct td_session *s)
{
	struct td_pool *pool = &s->pool;
	int r = 0;

	pthread_mutex_init(&pool->mutex, NULL);
	pthread_cond_init(&pool->cond, NULL);
	ter_list_init(&pool->jobs);
	while (pool->threads < TD_POOL_THREADS) {
		r = -pthread_create(&pool->thread[pool->threads], NULL, pool_thread, s);
		if (r < 0)
			break;
		pool->threads++;
	}
	return pool->threads ? 0 : r;
}

void td_pool_stop(struct td_session *s)
{
	struct td_pool *pool = &s->pool;

	pthread_mutex_lock(&pool->mutex);
	pool->stop = true;
	pthread_cond_broadcast(&pool->cond);
	pthread_mutex_unlock(&pool->mutex);
	while (pool->threads)
		pthread_join(pool->thread[--pool->threads], NULL);
	pthread_cond_destroy(&pool->cond);
	pthread_mutex_destroy(&pool->mutex);
}

int td_pool_add(struct td_session *s, const void *request, size_t bytes, struct td_ring_entry *entry)
{
	struct td_pool_job *job = calloc(1, sizeof(*job));

	if (!job)
		return -ENOMEM;
	job->request = malloc(bytes);
	if (!job->request) {
		free(job);
		return -ENOMEM;
	}
	memcpy(job->request, request, bytes);
	job->session = s;
	job->bytes = bytes;
	job->entry = entry;
	pthread_mutex_lock(&s->pool.mutex);
	ter_list_add_tail(&s->pool.jobs, &job->link);
	pthread_cond_signal(&s->pool.cond);
	pthread_mutex_unlock(&s->pool.mutex);
	return 0;
}
