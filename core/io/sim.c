/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated backend: devices in memory, a queue, and one task that completes requests in an order of the seed's
 * choice. */
#include "io/sim.h"

#include <stdio.h>
#include <sys/sysmacros.h>

#include "io/sim_priv.h"

#define WINDOW 64 /* ready requests among which the next one is drawn */
#define SIM_MAJOR 240

/* Words of bio->backend. */
enum { B_TICKET, B_SUBMIT_NS, B_EPOCH, B_RESULT };
#define RESULT_PARTIAL (1ull << 32) /* beside the errno in B_RESULT: some of the data may arrive */

static struct ter_sim *sim_of(struct ter_io *io)
{
	return ter_container_of(io, struct ter_sim, io);
}

static struct sim_bdev *bdev_of(struct ter_bdev *bdev)
{
	return ter_container_of(bdev, struct sim_bdev, bdev);
}

/* --- submission --- */

static int check_alignment(const struct ter_bio *bio)
{
	uint64_t mask = bio->bdev->info.logical_block_bytes - 1;

	if (bio->op == TER_BIO_FLUSH)
		return 0;
	if ((bio->offset_bytes | bio->bytes) & mask)
		return -EINVAL;
	if (bio->op == TER_BIO_DISCARD)
		return 0;
	for (unsigned i = 0; i < bio->iov_nr; i++)
		if (((uintptr_t)bio->iov[i].iov_base | bio->iov[i].iov_len) & mask)
			return -EINVAL;
	return 0;
}

static bool fault_fires(struct sim_fault *fault)
{
	if (!fault->nth)
		return false;
	if (fault->nth > 1) {
		fault->nth--;
		return false;
	}
	if (!fault->persistent)
		fault->nth = 0;
	return true;
}

/* What is known of the result before the device sees the request: as B_RESULT. */
static uint64_t result_at_submit(struct ter_sim *sim, struct ter_bio *bio)
{
	struct sim_bdev *bdev = bdev_of(bio->bdev);
	int r;

	r = ter_bio_check(bio);
	if (r == 0)
		r = check_alignment(bio);
	if (r == 0 && (bio->op == TER_BIO_WRITE || bio->op == TER_BIO_DISCARD) && (bdev->flags & TER_OPEN_RDONLY))
		r = -EROFS;
	if (r == 0 && (sim->power_off || bdev->epoch != bdev->dev->epoch))
		r = -EIO;
	if (r == 0)
		r = ter_bio_fault(bio);
	if (r < 0)
		return (uint64_t)-r;
	if ((bio->op == TER_BIO_READ || bio->op == TER_BIO_WRITE) && bio->offset_bytes < bdev->dev->bad_to && bio->offset_bytes + bio->bytes > bdev->dev->bad_from)
		return EIO;
	return fault_fires(&bdev->dev->fault[bio->op]) ? EIO | RESULT_PARTIAL : 0;
}

static void count(struct ter_sim_stats *stats, const struct ter_bio *bio)
{
	switch (bio->op) {
	case TER_BIO_READ:
		stats->reads++;
		stats->read_bytes += bio->bytes;
		break;
	case TER_BIO_WRITE:
		stats->writes++;
		stats->write_bytes += bio->bytes;
		break;
	case TER_BIO_FLUSH:
		stats->flushes++;
		break;
	case TER_BIO_DISCARD:
		stats->discards++;
		break;
	}
}

static void count_down_to_power_off(struct ter_sim *sim, const struct ter_bio *bio)
{
	if (bio->op == TER_BIO_READ || sim->off_after == UINT64_MAX)
		return;
	if (!--sim->off_after) {
		sim->power_off = true;
		sim->off_after = UINT64_MAX;
	}
}

static void sim_submit(struct ter_bio *bio)
{
	struct ter_sim *sim = sim_of(bio->bdev->io);
	struct sim_bdev *bdev = bdev_of(bio->bdev);

	bio->start_ns = bio->backend[B_SUBMIT_NS] = ter_mono_ns(sim->io.exec);
	ter_lock_acquire(&sim->lock);
	count(&sim->stats, bio);
	bio->backend[B_EPOCH] = bdev->epoch;
	bio->backend[B_RESULT] = result_at_submit(sim, bio);
	bio->backend[B_TICKET] = 0;
	if (!bio->backend[B_RESULT] || (bio->backend[B_RESULT] & RESULT_PARTIAL)) {
		sim->stats.events++;
		bio->backend[B_TICKET] = sim_trace_submit(sim, bio);
		count_down_to_power_off(sim, bio);
	}
	ter_list_add_tail(&sim->queue, &bio->link);
	ter_waitq_wake_one(&sim->more);
	ter_lock_release(&sim->lock);
}

/* --- completion --- */

static bool is_dead(const struct ter_bio *bio)
{
	return bio->backend[B_EPOCH] != bdev_of(bio->bdev)->dev->epoch;
}

static uint64_t due_ns(struct ter_sim *sim, const struct ter_bio *bio)
{
	uint64_t latency_ns = bdev_of(bio->bdev)->dev->latency_ns;

	if (is_dead(bio) || sim->power_off || sim->stop)
		return 0;
	return latency_ns == UINT64_MAX ? UINT64_MAX : bio->backend[B_SUBMIT_NS] + latency_ns;
}

/* One of the requests that are due, or NULL and when the first will be. */
static struct ter_bio *pick(struct ter_sim *sim, uint64_t *ret_due_ns)
{
	uint64_t now = ter_mono_ns(sim->io.exec), next = UINT64_MAX;
	struct ter_bio *bio, *chosen = NULL;
	unsigned ready = 0;

	ter_list_for_each (bio, &sim->queue, link) {
		uint64_t due = due_ns(sim, bio);

		if (due > now) {
			next = ter_min(next, due);
			continue;
		}
		if (!ter_sim_draw(&sim->dice, ++ready))
			chosen = bio;
		if (ready == WINDOW)
			break;
	}
	*ret_due_ns = next;
	return chosen;
}

static void transfer(struct ter_bio *bio, uint64_t bytes)
{
	struct ter_sim_image *image = bdev_of(bio->bdev)->dev->image;
	uint64_t offset = bio->offset_bytes;

	for (unsigned i = 0; i < bio->iov_nr && bytes; i++) {
		uint64_t n = ter_min(bytes, bio->iov[i].iov_len);

		if (bio->op == TER_BIO_READ)
			ter_sim_image_read(image, offset, bio->iov[i].iov_base, n);
		else
			ter_sim_image_write(image, offset, bio->iov[i].iov_base, n);
		offset += n;
		bytes -= n;
	}
}

static void execute(struct ter_sim *sim, struct ter_bio *bio)
{
	switch (bio->op) {
	case TER_BIO_READ:
	case TER_BIO_WRITE:
		transfer(bio, bio->bytes);
		break;
	case TER_BIO_DISCARD:
		ter_sim_image_zero(bdev_of(bio->bdev)->dev->image, bio->offset_bytes, bio->bytes);
		break;
	case TER_BIO_FLUSH:
		break; /* what a flush makes durable is worked out at a cut */
	}
}

/* A write that fails may have arrived up to any sector. */
static void execute_partly(struct ter_sim *sim, struct ter_bio *bio)
{
	uint64_t blocks = bio->bytes / bio->bdev->info.logical_block_bytes;

	if (bio->op == TER_BIO_WRITE)
		transfer(bio, ter_sim_draw(&sim->dice, blocks + 1) * bio->bdev->info.logical_block_bytes);
}

static int complete(struct ter_sim *sim, struct ter_bio *bio)
{
	uint64_t known = bio->backend[B_RESULT];

	if (known && !(known & RESULT_PARTIAL))
		return -(int)known;
	if (is_dead(bio) || sim->power_off)
		return -EIO;
	if (known)
		execute_partly(sim, bio);
	else
		execute(sim, bio);
	sim->stats.events++;
	sim_trace_complete(sim, bio, bio->backend[B_TICKET], -(int)(uint32_t)known);
	return -(int)(uint32_t)known;
}

static void worker(void *arg)
{
	struct ter_sim *sim = arg;

	ter_lock_acquire(&sim->lock);
	while (!sim->stop || !ter_list_empty(&sim->queue)) {
		uint64_t due = UINT64_MAX;
		struct ter_bio *bio = pick(sim, &due);

		if (!bio) {
			(void)ter_waitq_wait_until(&sim->more, &sim->lock, due); /* looped */
			continue;
		}
		ter_list_del(&bio->link);
		bio->result = complete(sim, bio);
		ter_lock_release(&sim->lock);
		bio->done(bio);
		ter_lock_acquire(&sim->lock);
	}
	ter_lock_release(&sim->lock);
}

/* --- opening --- */

struct sim_dev *sim_dev_find(struct ter_sim *sim, const char *path)
{
	for (unsigned i = 0; i < sim->dev_nr; i++)
		if (!strcmp(sim->dev[i]->path, path))
			return sim->dev[i];
	return NULL;
}

static int claim(struct ter_sim *sim, const char *path, unsigned flags, struct sim_bdev *bdev, struct ter_error *error)
{
	struct sim_dev *dev = sim_dev_find(sim, path);

	if (!dev || dev->vanished)
		return ter_fail(error, TER_ERR_NOT_FOUND, "There is no device '%s'.", path);
	if (sim->power_off)
		return ter_fail(error, TER_ERR_IO, "Device '%s' has no power.", path);
	if (!(flags & TER_OPEN_SHARED)) {
		if (dev->claimed)
			return ter_fail(error, TER_ERR_DEVICE_IN_USE, "Device '%s' is in use already.", path);
		dev->claimed = true;
	}
	bdev->dev = dev;
	bdev->epoch = dev->epoch;
	bdev->bdev.info = dev->info;
	return 0;
}

static int sim_open(struct ter_io *io, const char *path, unsigned flags, struct ter_bdev **ret_bdev,
		    struct ter_error *error)
{
	struct ter_sim *sim = sim_of(io);
	struct sim_bdev *bdev = ter_sim_alloc(sizeof(*bdev));
	int r;

	ter_lock_acquire(&sim->lock);
	r = claim(sim, path, flags, bdev, error);
	ter_lock_release(&sim->lock);
	if (r < 0) {
		free(bdev);
		return r;
	}
	bdev->flags = flags;
	bdev->bdev.io = io;
	bdev->bdev.path = strcpy(ter_sim_alloc(strlen(path) + 1), path);
	*ret_bdev = &bdev->bdev;
	return 0;
}

static void sim_close(struct ter_bdev *opaque)
{
	struct sim_bdev *bdev = bdev_of(opaque);
	struct ter_sim *sim = sim_of(opaque->io);

	ter_lock_acquire(&sim->lock);
	if (!(bdev->flags & TER_OPEN_SHARED) && bdev->epoch == bdev->dev->epoch)
		bdev->dev->claimed = false;
	ter_lock_release(&sim->lock);
	free(bdev->bdev.path);
	free(bdev);
}

/* --- life --- */

static void free_dev(struct sim_dev *dev)
{
	ter_sim_image_free(dev->image);
	free(dev->path);
	free(dev);
}

static void stop_worker(void *arg)
{
	struct ter_sim *sim = arg;

	ter_lock_acquire(&sim->lock);
	sim->stop = true;
	ter_waitq_wake_all(&sim->more);
	ter_lock_release(&sim->lock);
	sim->io.exec->ops->join(sim->io.exec, sim->worker);
	sim->worker = NULL;
}

static void sim_free(struct ter_io *io)
{
	struct ter_sim *sim = sim_of(io);

	/* Under the cooperative scheduler only one of its tasks can let the worker run to its end. */
	if (sim->worker && io->exec->coop && !ter_coop_inside(io->exec))
		(void)ter_coop_run(io->exec, stop_worker, sim); /* -EDEADLK is about tasks that hung before */
	else if (sim->worker)
		stop_worker(sim);
	ter_sim_trace_free(sim->trace);
	for (unsigned i = 0; i < sim->dev_nr; i++)
		free_dev(sim->dev[i]);
	ter_waitq_destroy(&sim->more);
	ter_lock_destroy(&sim->lock);
	free(sim);
}

static const struct ter_io_ops sim_ops = {
	.submit = sim_submit,
	.close = sim_close,
	.free = sim_free,
	.open = sim_open,
};

struct ter_sim *ter_sim_new(struct ter_exec *exec, uint64_t seed, struct ter_io **ret_io)
{
	struct ter_sim *sim = ter_sim_alloc(sizeof(*sim));

	sim->io = (struct ter_io){.ops = &sim_ops, .exec = exec, .name = "sim"};
	sim->dice = seed;
	sim->off_after = UINT64_MAX;
	ter_lock_init(&sim->lock, TER_RANK_DEVICE);
	ter_waitq_init(&sim->more);
	ter_list_init(&sim->queue);
	if (exec->ops->spawn(exec, "sim", worker, sim, &sim->worker) < 0) {
		sim_free(&sim->io);
		return NULL;
	}
	if (exec->coop)
		ter_coop_set_background(exec, sim->worker);
	*ret_io = &sim->io;
	return sim;
}

int ter_sim_add(struct ter_sim *sim, const char *path, uint64_t bytes, uint32_t logical_block_bytes)
{
	struct sim_dev *dev;
	int r = 0;

	if (!ter_is_pow2(logical_block_bytes) || logical_block_bytes < TER_SECTOR_BYTES ||
	    logical_block_bytes > TER_KIB(64) || !bytes || bytes % logical_block_bytes)
		return -EINVAL;
	ter_lock_acquire(&sim->lock);
	if (sim_dev_find(sim, path))
		r = -EEXIST;
	else if (sim->dev_nr == TER_SIM_DEVICES_MAX)
		r = -E2BIG;
	if (r == 0) {
		dev = ter_sim_alloc(sizeof(*dev));
		dev->idx = sim->dev_nr;
		dev->path = strcpy(ter_sim_alloc(strlen(path) + 1), path);
		dev->image = ter_sim_image_new(bytes);
		dev->info = (struct ter_bdev_info){
			.bytes = bytes,
			.logical_block_bytes = logical_block_bytes,
			.physical_block_bytes = logical_block_bytes,
			.can_discard = true,
			.direct = true,
			.disk = makedev(SIM_MAJOR, dev->idx),
			.rdev = makedev(SIM_MAJOR, dev->idx),
			.file_dev = makedev(0, SIM_MAJOR),
			.file_ino = dev->idx + 1,
		};
		sim->dev[sim->dev_nr++] = dev;
		if (sim->trace)
			sim->trace->base->image[sim->trace->base->nr++] = ter_sim_image_clone(dev->image);
	}
	ter_lock_release(&sim->lock);
	return r;
}
