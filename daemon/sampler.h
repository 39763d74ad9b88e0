/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sampler: copies of what running filesystems say about themselves, taken on a thread of its own and posted to the main thread, which so never takes a lock of the engine
 *
 * Every TD_SAMPLE_MS, and soon after a kick. A job that starts or stops a filesystem adds and removes it around what it does: nothing is sampled half built.
 */
#ifndef TD_SAMPLER_H
#define TD_SAMPLER_H

#include "dbus/bus.h"
#include "main_queue.h"

#define TD_SAMPLE_MS 5000
#define TD_SAMPLES_PENDING_MAX 8 /* posted and not yet looked at; more are not taken */

struct td_sample {
	struct td_post post;
	struct td_sampler *sampler;
	struct ter_fs *fs; /* only to be compared */
	uint64_t taken_us;
	struct ter_fs_status status;
	unsigned devs_nr, replicas_nr, compression_nr;
	struct ter_fs_device dev[TER_DEVS_MAX];
	struct ter_fs_replicas_row replicas[TER_BUS_ROWS_MAX];
	struct ter_fs_compression_row compression[TER_BUS_COMPRESSIONS_MAX];
};

struct td_sampler;
/* @deliver: on the main thread; owns the sample (free()). */
int td_sampler_new(struct ter_exec *exec, struct td_main_queue *queue, void (*deliver)(void *arg, struct td_sample *sample), void *arg,
		   struct td_sampler **ret_sampler);
void td_sampler_free(struct td_sampler *sampler); /* NULL is fine; destroy the queue afterwards */
/* Job threads: both may wait for a sample being taken. */
int td_sampler_add(struct td_sampler *sampler, struct ter_fs *fs);
void td_sampler_remove(struct td_sampler *sampler, struct ter_fs *fs); /* nothing of @fs is looked at any more; harmless when it is not there */
void td_sampler_kick(struct td_sampler *sampler);                      /* any thread */
/* One now, for a job's end; NULL: no memory. */
struct td_sample *td_sample_take(struct ter_fs *fs);

#endif
