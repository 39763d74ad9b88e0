/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The threads backend: a few tasks that do one request each with plain system calls.
 *
 * Each device has a queue in order of arrival. A device with queued requests and fewer than DEVICE_TASKS_MAX of them
 * running stands in the ring of ready devices, from which tasks take turns; so a slow device never has all tasks.
 */
#include "io/io_priv.h"
#include "util/mem.h"

#define TASKS 8
#define DEVICE_TASKS_MAX 4

struct threads_io {
	struct ter_io io;
	struct ter_lock lock; /* rank DEVICE; guards all below and every device's part */
	struct ter_waitq more;
	struct ter_list ready; /* of devices */
	bool stop;
	unsigned task_nr;
	struct ter_task *task[TASKS];
};

struct threads_bdev {
	struct ter_bdev bdev;
	struct ter_member_fds fds;
	bool read_only;
	struct ter_list ready; /* in the ring, or an empty head */
	struct ter_list queue;
	unsigned running_nr;
};

enum { B_RESULT }; /* bio->backend: negative errno known at submission */

static struct threads_io *io_of(struct ter_io *io)
{
	return ter_container_of(io, struct threads_io, io);
}

static struct threads_bdev *bdev_of(struct ter_bdev *bdev)
{
	return ter_container_of(bdev, struct threads_bdev, bdev);
}

static void update_ready(struct threads_io *io, struct threads_bdev *bdev)
{
	bool want = !ter_list_empty(&bdev->queue) && bdev->running_nr < DEVICE_TASKS_MAX;

	ter_list_del(&bdev->ready);
	if (want)
		ter_list_add_tail(&io->ready, &bdev->ready);
}

static int result_at_submit(const struct threads_bdev *bdev, const struct ter_bio *bio)
{
	int r;

	r = ter_bio_check(bio);
	if (r < 0)
		return r;
	if (bdev->read_only && (bio->op == TER_BIO_WRITE || bio->op == TER_BIO_DISCARD))
		return -EROFS;
	return ter_bio_fault(bio);
}

static void threads_submit(struct ter_bio *bio)
{
	struct threads_bdev *bdev = bdev_of(bio->bdev);
	struct threads_io *io = io_of(bio->bdev->io);

	bio->start_ns = ter_mono_ns(io->io.exec);
	bio->backend[B_RESULT] = (uint64_t)(int64_t)result_at_submit(bdev, bio);
	ter_lock_acquire(&io->lock);
	ter_list_add_tail(&bdev->queue, &bio->link);
	if (ter_list_empty(&bdev->ready))
		update_ready(io, bdev);
	ter_waitq_wake_one(&io->more);
	ter_lock_release(&io->lock);
}

static struct ter_bio *take(struct threads_io *io)
{
	struct threads_bdev *bdev = ter_list_first(&io->ready, struct threads_bdev, ready);
	struct ter_bio *bio = ter_list_first(&bdev->queue, struct ter_bio, link);

	ter_list_del(&bio->link);
	bdev->running_nr++;
	update_ready(io, bdev);
	return bio;
}

static void io_task(void *arg)
{
	struct threads_io *io = arg;

	ter_lock_acquire(&io->lock);
	for (;;) {
		struct threads_bdev *bdev;
		struct ter_bio *bio;
		int r;

		while (ter_list_empty(&io->ready) && !io->stop)
			ter_waitq_wait(&io->more, &io->lock);
		if (ter_list_empty(&io->ready))
			break;
		bio = take(io);
		bdev = bdev_of(bio->bdev);
		ter_lock_release(&io->lock);
		r = (int)(int64_t)bio->backend[B_RESULT];
		if (r == 0)
			r = ter_bio_syscall(bio, bdev->fds.io_fd);
		bio->result = r;

		/* The device is let go before the request is reported: whoever hears of the last one may close it. */
		ter_lock_acquire(&io->lock);
		bdev->running_nr--;
		if (ter_list_empty(&bdev->ready))
			update_ready(io, bdev);
		ter_lock_release(&io->lock);
		bio->done(bio);
		ter_lock_acquire(&io->lock);
	}
	ter_lock_release(&io->lock);
}

static int threads_open(struct ter_io *io, const char *path, unsigned flags, struct ter_bdev **ret_bdev,
			struct ter_error *error)
{
	struct threads_bdev *bdev = ter_new(struct threads_bdev);
	char *copy = ter_strdup(path);
	int r;

	if (!bdev || !copy)
		r = ter_fail(error, TER_ERR_NO_MEMORY, "There is not enough memory to open '%s'.", path);
	else
		r = ter_member_open(path, flags, &bdev->fds, &bdev->bdev.info, error);
	if (r < 0) {
		free(bdev);
		free(copy);
		return r;
	}
	bdev->bdev.io = io;
	bdev->bdev.path = copy;
	bdev->read_only = flags & (TER_OPEN_RDONLY | TER_OPEN_SHARED);
	ter_list_init(&bdev->ready);
	ter_list_init(&bdev->queue);
	*ret_bdev = &bdev->bdev;
	return 0;
}

static void threads_close(struct ter_bdev *opaque)
{
	struct threads_bdev *bdev = bdev_of(opaque);

	assert(ter_list_empty(&bdev->queue) && !bdev->running_nr);
	ter_member_close(&bdev->fds);
	free(bdev->bdev.path);
	free(bdev);
}

static void stop_tasks(void *arg)
{
	struct threads_io *io = arg;

	ter_lock_acquire(&io->lock);
	io->stop = true;
	ter_waitq_wake_all(&io->more);
	ter_lock_release(&io->lock);
	for (unsigned i = 0; i < io->task_nr; i++)
		io->io.exec->ops->join(io->io.exec, io->task[i]);
	io->task_nr = 0;
}

static void threads_free(struct ter_io *opaque)
{
	struct threads_io *io = io_of(opaque);

	if (opaque->exec->coop && !ter_coop_inside(opaque->exec))
		(void)ter_coop_run(opaque->exec, stop_tasks, io); /* -EDEADLK is about tasks that hung before */
	else
		stop_tasks(io);
	ter_waitq_destroy(&io->more);
	ter_lock_destroy(&io->lock);
	free(io);
}

static const struct ter_io_ops threads_ops = {
	.submit = threads_submit,
	.close = threads_close,
	.free = threads_free,
	.open = threads_open,
};

int ter_threads_new(struct ter_exec *exec, struct ter_io **ret_io)
{
	struct threads_io *io = ter_new(struct threads_io);

	if (!io)
		return -ENOMEM;
	io->io = (struct ter_io){.ops = &threads_ops, .exec = exec, .name = "threads"};
	ter_lock_init(&io->lock, TER_RANK_DEVICE);
	ter_waitq_init(&io->more);
	ter_list_init(&io->ready);
	for (; io->task_nr < TASKS; io->task_nr++) {
		int r = exec->ops->spawn(exec, "io", io_task, io, &io->task[io->task_nr]);

		if (r < 0) {
			threads_free(&io->io);
			return r;
		}
		if (exec->coop)
			ter_coop_set_background(exec, io->task[io->task_nr]);
	}
	*ret_io = &io->io;
	return 0;
}
