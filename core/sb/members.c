/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests to a member: counted, timed, and noted for the next flush. */
#include "sb/members.h"

#include "util/exec.h"

/* read_latency_ns = 7/8 old + 1/8 new: a slow spell shows within about 20 requests, one slow request does not move readers away. */
#define LATENCY_EWMA_SHIFT 3

const char *const ter_dev_state_names[TER_DEV_STATE_NR] = { "rw", "ro", "failed", "spare" };

const char *const ter_data_type_names[TER_DATA_NR] = {
#define x(id, name, text) [id] = text,
	TER_DATA_TYPES(x)
#undef x
};

void ter_dev_error(struct ter_members *members, struct ter_dev *dev, enum ter_dev_errkind kind, int r)
{
	atomic_fetch_add(&dev->errors[kind], 1);
	if (members->on_error)
		members->on_error(members->on_error_arg, dev, kind, r);
}

static struct ter_members *members_of(struct ter_dev *dev)
{
	assert(dev->idx < TER_DEVS_MAX); /* M4 */
	return ter_container_of(dev - dev->idx, struct ter_members, dev[0]);
}

static void note_latency(struct ter_dev *dev, uint64_t ns)
{
	uint64_t old = atomic_load_explicit(&dev->read_latency_ns, memory_order_relaxed);

	/* Two readers may lose one another's sample; it is a hint. 0 is kept for "never read". */
	ns = old ? old - (old >> LATENCY_EWMA_SHIFT) + (ns >> LATENCY_EWMA_SHIFT) : ns;
	atomic_store_explicit(&dev->read_latency_ns, ns ? ns : 1, memory_order_relaxed);
}

static void note_flushed(struct ter_dev *dev, uint64_t covers)
{
	uint64_t old = atomic_load(&dev->writes_flushed);

	/* Flushes may complete out of order. */
	while (old < covers && !atomic_compare_exchange_weak(&dev->writes_flushed, &old, covers))
		;
}

static void note_completion(struct ter_dev *dev, struct ter_dev_bio *dbio)
{
	const struct ter_bio *bio = &dbio->bio;
	uint64_t ns = ter_mono_ns(dev->bdev->io->exec) - dbio->start_ns;

	switch (bio->op) {
	case TER_BIO_READ:
		ter_timestats_record(&dev->read_times, ns);
		note_latency(dev, ns);
		if (bio->result < 0)
			ter_dev_error(members_of(dev), dev, TER_DEV_ERR_READ, bio->result);
		else
			atomic_fetch_add_explicit(&dev->read_bytes, bio->bytes, memory_order_relaxed);
		break;
	case TER_BIO_WRITE:
		ter_timestats_record(&dev->write_times, ns);
		/* Also a failed one: part of it may have reached the device. */
		if (!(bio->flags & TER_BIO_FUA) || bio->result < 0)
			atomic_fetch_add(&dev->writes_done, 1); /* M2 */
		if (bio->result < 0)
			ter_dev_error(members_of(dev), dev, TER_DEV_ERR_WRITE, bio->result);
		else
			atomic_fetch_add_explicit(&dev->write_bytes, bio->bytes, memory_order_relaxed);
		break;
	case TER_BIO_FLUSH:
		ter_timestats_record(&dev->flush_times, ns);
		atomic_fetch_add_explicit(&dev->flushes, 1, memory_order_relaxed);
		if (bio->result < 0)
			ter_dev_error(members_of(dev), dev, TER_DEV_ERR_FLUSH, bio->result);
		else
			note_flushed(dev, dbio->flush_covers); /* M2 */
		break;
	case TER_BIO_DISCARD:
		break; /* a hint: its failure is no error of the device */
	}
}

static void dev_bio_done(struct ter_bio *bio)
{
	struct ter_dev_bio *dbio = ter_container_of(bio, struct ter_dev_bio, bio);
	struct ter_dev *dev = dbio->dev;

	note_completion(dev, dbio);
	atomic_fetch_sub(&dev->inflight, 1);
	dbio->done(dbio); /* may free dbio */
}

void ter_dev_submit(struct ter_dev *dev, struct ter_dev_bio *dbio)
{
	dbio->dev = dev;
	if (!dev->bdev) {
		dbio->bio.result = -ENODEV;
		dbio->done(dbio);
		return;
	}

	dbio->bio.bdev = dev->bdev;
	dbio->bio.done = dev_bio_done;
	dbio->start_ns = ter_mono_ns(dev->bdev->io->exec);
	atomic_fetch_add(&dev->inflight, 1);
	dbio->flush_covers = atomic_load(&dev->writes_done); /* before the submit: I2 */
	ter_bio_submit(&dbio->bio);
}

/* --- waiting helpers --- */

struct waiting_bio {
	struct ter_dev_bio dbio;
	struct ter_event event;
};

static void waiting_done(struct ter_dev_bio *dbio)
{
	struct waiting_bio *wait = ter_container_of(dbio, struct waiting_bio, dbio);

	ter_event_set(&wait->event, dbio->bio.result);
}

static int submit_and_wait(struct ter_dev *dev, enum ter_bio_op op, unsigned flags, uint64_t offset_bytes, void *buf, size_t bytes)
{
	struct waiting_bio wait = {
		.dbio.bio = { .op = op, .flags = flags, .offset_bytes = offset_bytes, .bytes = bytes },
		.dbio.done = waiting_done,
	};
	int r;

	if (bytes) {
		wait.dbio.bio.iov1 = (struct iovec){ .iov_base = buf, .iov_len = bytes };
		wait.dbio.bio.iov = &wait.dbio.bio.iov1;
		wait.dbio.bio.iov_nr = 1;
	}
	ter_event_init(&wait.event);
	ter_dev_submit(dev, &wait.dbio);
	r = ter_event_wait(&wait.event);
	ter_event_destroy(&wait.event);
	return r;
}

int ter_dev_read(struct ter_dev *dev, uint64_t offset_bytes, void *buf, size_t bytes)
{
	return submit_and_wait(dev, TER_BIO_READ, 0, offset_bytes, buf, bytes);
}

int ter_dev_write(struct ter_dev *dev, uint64_t offset_bytes, const void *buf, size_t bytes, unsigned bio_flags)
{
	return submit_and_wait(dev, TER_BIO_WRITE, bio_flags, offset_bytes, (void *)buf, bytes);
}

int ter_dev_flush(struct ter_dev *dev)
{
	return submit_and_wait(dev, TER_BIO_FLUSH, 0, 0, NULL, 0);
}
