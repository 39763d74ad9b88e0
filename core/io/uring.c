/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The io_uring backend: devices with their queues, the shared ring's reaper, contexts of serving threads. */
#include <sys/eventfd.h>
#include <unistd.h>

#include "io/uring_priv.h"
#include "util/mem.h"

#define SHARED_ENTRIES 256
#define CTX_ENTRIES 64
#define POLL_ROUNDS_MAX 8 /* reapings in one ter_io_ctx_poll(), so that the caller gets to its other work */

struct ter_io_ctx {
	struct uring_ring ring;
	int event_fd;
};

static __thread struct ter_io_ctx *entered_ctx;

static const struct ter_io_ops uring_ops;

static struct uring_io *io_of(struct ter_io *io)
{
	return ter_container_of(io, struct uring_io, io);
}

/* --- requests --- */

static int known_at_submit(const struct uring_bdev *bdev, const struct ter_bio *bio)
{
	int r;

	r = ter_bio_check(bio);
	if (r < 0)
		return r;
	if (bdev->read_only && (bio->op == TER_BIO_WRITE || bio->op == TER_BIO_DISCARD))
		return -EROFS;
	return ter_bio_fault(bio);
}

static struct uring_ring *ring_here(struct uring_io *io)
{
	return entered_ctx && entered_ctx->ring.io == io ? &entered_ctx->ring : &io->shared;
}

static void start_discard(struct uring_io *io, struct ter_bio *bio)
{
	ter_lock_acquire(&io->discard_lock);
	ter_list_add_tail(&io->discards, &bio->link);
	ter_waitq_wake_one(&io->discard_more);
	ter_lock_release(&io->discard_lock);
}

static void start(struct ter_bio *bio)
{
	if (bio->op == TER_BIO_DISCARD && !bio->bdev->info.is_file && bio->backend[B_RESULT] == RESULT_UNKNOWN)
		start_discard(io_of(bio->bdev->io), bio);
	else
		uring_ring_push((struct uring_ring *)(uintptr_t)bio->backend[B_RING], bio);
}

static void uring_submit(struct ter_bio *bio)
{
	struct uring_bdev *bdev = uring_bdev_of(bio->bdev);
	struct uring_io *io = io_of(bio->bdev->io);
	bool full;

	bio->start_ns = ter_mono_ns(io->io.exec);
	bio->backend[B_RING] = (uintptr_t)ring_here(io);
	bio->backend[B_DONE_BYTES] = 0;
	bio->backend[B_STALLS] = 0;
	bio->backend[B_RESULT] = (uint64_t)(int64_t)known_at_submit(bdev, bio);

	ter_lock_acquire(&bdev->lock);
	full = bdev->in_rings_nr >= TER_IO_QUEUE_DEPTH;
	if (full)
		ter_list_add_tail(&bdev->queue, &bio->link);
	else
		bdev->in_rings_nr++;
	ter_lock_release(&bdev->lock);
	if (!full)
		start(bio);
}

/* The device is let go before the request is reported: whoever hears of the last one may close it. */
void uring_bio_done(struct ter_bio *bio)
{
	struct uring_bdev *bdev = uring_bdev_of(bio->bdev);
	struct ter_bio *next = NULL;

	ter_lock_acquire(&bdev->lock);
	if (ter_list_empty(&bdev->queue)) {
		bdev->in_rings_nr--;
	} else {
		next = ter_list_first(&bdev->queue, struct ter_bio, link);
		ter_list_del(&next->link);
	}
	ter_lock_release(&bdev->lock);
	if (next)
		start(next);
	bio->done(bio);
}

static void reaper(void *arg)
{
	struct uring_io *io = arg;
	struct io_uring_cqe *cqe;
	bool stop = false;

	while (!stop)
		if (!uring_ring_reap(&io->shared, &stop))
			(void)io_uring_wait_cqe(&io->shared.uring, &cqe); /* interrupted: looked again */
}

static void discarder(void *arg)
{
	struct uring_io *io = arg;

	ter_lock_acquire(&io->discard_lock);
	for (;;) {
		struct ter_bio *bio;
		int r;

		while (ter_list_empty(&io->discards) && !io->discard_stop)
			ter_waitq_wait(&io->discard_more, &io->discard_lock);
		if (ter_list_empty(&io->discards))
			break;
		bio = ter_list_first(&io->discards, struct ter_bio, link);
		ter_list_del(&bio->link);
		ter_lock_release(&io->discard_lock);
		r = ter_discard_syscall(uring_bdev_of(bio->bdev)->fds.io_fd, false, bio->offset_bytes, bio->bytes);
		bio->backend[B_RESULT] = r < 0 ? (uint64_t)(int64_t)r : RESULT_GOOD;
		uring_ring_push((struct uring_ring *)(uintptr_t)bio->backend[B_RING], bio);
		ter_lock_acquire(&io->discard_lock);
	}
	ter_lock_release(&io->discard_lock);
}

/* --- registered files --- */

static void set_slot(struct uring_io *io, int slot, int fd)
{
	struct uring_ring *ring;

	io->slot_fd[slot] = fd;
	ter_list_for_each (ring, &io->rings, link)
		if (ring->files)
			/* To -1: cannot fail. */
			(void)io_uring_register_files_update(&ring->uring, (unsigned)slot, &fd, 1);
}

static bool slot_works(struct uring_io *io, int slot, int fd)
{
	struct uring_ring *ring;

	ter_list_for_each (ring, &io->rings, link)
		if (ring->files && io_uring_register_files_update(&ring->uring, (unsigned)slot, &fd, 1) != 1)
			return false;
	io->slot_fd[slot] = fd;
	return true;
}

static int take_slot(struct uring_io *io, int fd)
{
	int slot = -1;

	ter_lock_acquire(&io->lock);
	for (int i = 0; i < URING_DEVICES_MAX && slot < 0; i++)
		if (io->slot_fd[i] < 0)
			slot = i;
	if (slot >= 0 && !slot_works(io, slot, fd)) {
		set_slot(io, slot, -1);
		slot = -1;
	}
	ter_lock_release(&io->lock);
	return slot;
}

static void put_slot(struct uring_io *io, int slot)
{
	if (slot < 0)
		return;
	ter_lock_acquire(&io->lock);
	set_slot(io, slot, -1);
	ter_lock_release(&io->lock);
}

/* A ring takes part in what is registered; one that cannot hold all files does without. */
static void add_ring(struct uring_io *io, struct uring_ring *ring)
{
	ter_lock_acquire(&io->lock);
	if (ring->files &&
	    io_uring_register_files_update(&ring->uring, 0, io->slot_fd, URING_DEVICES_MAX) != URING_DEVICES_MAX)
		ring->files = false;
	if (io->region.iov_len)
		(void)uring_register_region(ring, &io->region); /* else its requests cost a little more */
	ter_list_add_tail(&io->rings, &ring->link);
	ter_lock_release(&io->lock);
}

static void remove_ring(struct uring_io *io, struct uring_ring *ring)
{
	ter_lock_acquire(&io->lock);
	ter_list_del(&ring->link);
	ter_lock_release(&io->lock);
}

int ter_uring_register_region(struct ter_io *opaque, void *base, size_t bytes)
{
	struct uring_io *io = io_of(opaque);
	struct uring_ring *ring;
	int r;

	if (!bytes || bytes > (uint64_t)URING_REGION_PARTS_MAX << URING_REGION_PART_SHIFT)
		return -EINVAL;
	ter_lock_acquire(&io->lock);
	if (io->region.iov_len) {
		ter_lock_release(&io->lock);
		return -EBUSY;
	}
	io->region = (struct iovec){base, bytes};
	r = uring_register_region(&io->shared, &io->region);
	if (r < 0)
		io->region = (struct iovec){0};
	ter_list_for_each (ring, &io->rings, link)
		if (r == 0 && ring != &io->shared)
			(void)uring_register_region(ring, &io->region); /* else its requests cost a little more */
	ter_lock_release(&io->lock);
	return r;
}

void ter_uring_unregister_region(struct ter_io *opaque, void *base)
{
	struct uring_io *io = io_of(opaque);
	struct uring_ring *ring;

	ter_lock_acquire(&io->lock);
	if (io->region.iov_len && io->region.iov_base == base) {
		ter_list_for_each (ring, &io->rings, link)
			uring_unregister_region(ring);
		io->region = (struct iovec){0};
	}
	ter_lock_release(&io->lock);
}

/* --- devices --- */

static int uring_open(struct ter_io *io, const char *path, unsigned flags, struct ter_bdev **ret_bdev,
		      struct ter_error *error)
{
	struct uring_bdev *bdev = ter_new(struct uring_bdev);
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
	ter_lock_init(&bdev->lock, TER_RANK_DEVICE);
	ter_list_init(&bdev->queue);
	bdev->slot = take_slot(io_of(io), bdev->fds.io_fd);
	*ret_bdev = &bdev->bdev;
	return 0;
}

static void uring_close(struct ter_bdev *opaque)
{
	struct uring_bdev *bdev = uring_bdev_of(opaque);

	assert(ter_list_empty(&bdev->queue) && !bdev->in_rings_nr);
	put_slot(io_of(opaque->io), bdev->slot);
	ter_member_close(&bdev->fds);
	ter_lock_destroy(&bdev->lock);
	free(bdev->bdev.path);
	free(bdev);
}

/* --- the backend's life --- */

static void stop_reaper(struct uring_io *io)
{
	if (!io->reaper)
		return;
	io->stop_bio.backend[B_RESULT] = RESULT_GOOD;
	uring_ring_push(&io->shared, &io->stop_bio);
	io->io.exec->ops->join(io->io.exec, io->reaper);
}

static void stop_discarder(struct uring_io *io)
{
	ter_lock_acquire(&io->discard_lock);
	io->discard_stop = true;
	ter_waitq_wake_all(&io->discard_more);
	ter_lock_release(&io->discard_lock);
	io->io.exec->ops->join(io->io.exec, io->discarder);
}

static void uring_free(struct ter_io *opaque)
{
	struct uring_io *io = io_of(opaque);

	stop_discarder(io);
	stop_reaper(io);
	remove_ring(io, &io->shared);
	assert(ter_list_empty(&io->rings)); /* contexts are freed first */
	uring_ring_exit(&io->shared);
	ter_waitq_destroy(&io->discard_more);
	ter_lock_destroy(&io->discard_lock);
	ter_lock_destroy(&io->lock);
	free(io);
}

static const struct ter_io_ops uring_ops = {
	.submit = uring_submit,
	.close = uring_close,
	.free = uring_free,
	.open = uring_open,
};

int ter_uring_new(struct ter_exec *exec, struct ter_io **ret_io)
{
	struct uring_io *io = ter_new(struct uring_io);
	int r;

	if (!io)
		return -ENOMEM;
	io->io = (struct ter_io){.ops = &uring_ops, .exec = exec, .name = "uring"};
	r = uring_ring_init(&io->shared, io, SHARED_ENTRIES, 0);
	if (r < 0) {
		free(io);
		return r;
	}
	for (unsigned i = 0; i < URING_DEVICES_MAX; i++)
		io->slot_fd[i] = -1;
	ter_lock_init(&io->lock, TER_RANK_DEVICE);
	ter_lock_init(&io->discard_lock, TER_RANK_DEVICE);
	ter_waitq_init(&io->discard_more);
	ter_list_init(&io->discards);
	ter_list_init(&io->rings);
	add_ring(io, &io->shared);
	r = exec->ops->spawn(exec, "io-done", reaper, io, &io->reaper);
	if (r == 0)
		r = exec->ops->spawn(exec, "io-discard", discarder, io, &io->discarder);
	if (r < 0) {
		uring_free(&io->io);
		return r;
	}
	*ret_io = &io->io;
	return 0;
}

/* --- contexts --- */

struct ter_io_ctx *ter_io_ctx_new(struct ter_io *opaque)
{
	struct ter_io_ctx *ctx;

	if (opaque->ops != &uring_ops)
		return NULL;
	ctx = ter_new(struct ter_io_ctx);
	if (!ctx)
		return NULL;
	ctx->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (ctx->event_fd < 0) {
		free(ctx);
		return NULL;
	}
	/* The owner enters the kernel all the time: no need to interrupt it for a completion. */
	if (uring_ring_init(&ctx->ring, io_of(opaque), CTX_ENTRIES,
			    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG) < 0) {
		(void)close(ctx->event_fd); /* nothing to lose */
		free(ctx);
		return NULL;
	}
	if (io_uring_register_eventfd(&ctx->ring.uring, ctx->event_fd) < 0) {
		uring_ring_exit(&ctx->ring);
		(void)close(ctx->event_fd); /* nothing to lose */
		free(ctx);
		return NULL;
	}
	add_ring(io_of(opaque), &ctx->ring);
	return ctx;
}

void ter_io_ctx_free(struct ter_io_ctx *ctx)
{
	if (!ctx)
		return;
	assert(entered_ctx != ctx);
	remove_ring(ctx->ring.io, &ctx->ring);
	uring_ring_exit(&ctx->ring);
	(void)close(ctx->event_fd); /* nothing to lose */
	free(ctx);
}

void ter_io_ctx_enter(struct ter_io_ctx *ctx)
{
	entered_ctx = ctx;
}

int ter_io_ctx_fd(struct ter_io_ctx *ctx)
{
	return ctx->event_fd;
}

unsigned ter_io_ctx_poll(struct ter_io_ctx *ctx)
{
	unsigned total = 0, nr = 1;
	uint64_t events;
	bool stop = false;

	(void)!read(
		ctx->event_fd, &events,
		sizeof(events)); /* empty is fine; before the look, so that what comes after it is announced again */
	for (unsigned round = 0; nr && round < POLL_ROUNDS_MAX; round++)
		total += nr = uring_ring_reap(&ctx->ring, &stop);
	if (nr)
		(void)eventfd_write(ctx->event_fd, 1); /* there may be more: come again */
	return total;
}

int ter_io_register_region(struct ter_io *io, void *base, size_t bytes)
{
	return io->ops == &uring_ops ? ter_uring_register_region(io, base, bytes) : -EOPNOTSUPP;
}

void ter_io_unregister_region(struct ter_io *io, void *base)
{
	if (io->ops == &uring_ops)
		ter_uring_unregister_region(io, base);
}
