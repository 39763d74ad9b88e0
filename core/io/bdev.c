/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Block devices: choosing a backend, opening through it, checks of a request, and helpers that wait. */
#include "io/io_priv.h"
#include "util/fault.h"
#include "util/mem.h"

TER_FAULT_POINT(fault_setup, "io.setup", ENOMEM, "the setting up of an I/O backend")
TER_FAULT_POINT(fault_open, "io.open", EIO, "the opening of a device")
TER_FAULT_POINT(fault_read, "io.read", EIO, "a read from a device")
TER_FAULT_POINT(fault_write, "io.write", EIO, "a write to a device")
TER_FAULT_POINT(fault_flush, "io.flush", EIO, "a flush of a device")
TER_FAULT_POINT(fault_discard, "io.discard", EIO, "a discard on a device")
TER_FAULT_POINT(fault_short, "io.short", EAGAIN,
		"a part of a transfer: what came is halved, or with an error of its own nothing came")

/* --- backends --- */

int ter_io_new(struct ter_exec *exec, const char *prefer, struct ter_io **ret_io, struct ter_error *error)
{
	bool want_uring = !prefer || !strcmp(prefer, "uring"), want_threads = !prefer || !strcmp(prefer, "threads");
	int r = -EOPNOTSUPP;

	if (TER_FAULT(fault_setup) < 0)
		return ter_fail(error, TER_ERR_FAULT_INJECTED, "Using devices could not begin because a test asked for it.");
	/* The completion task of io_uring blocks its thread, which is every task's under the cooperative scheduler. */
	if (want_uring && !exec->coop) {
		r = ter_uring_new(exec, ret_io);
		if (r == 0)
			return 0;
	}
	if (want_threads) {
		r = ter_threads_new(exec, ret_io);
		if (r == 0)
			return 0;
	}
	if (r == -ENOMEM)
		return ter_fail(error, TER_ERR_NO_MEMORY, "There is not enough memory to begin using devices.");
	if (want_threads)
		return ter_fail_errno(error, r, "Using devices could not begin: %s.", strerror(-r));
	return ter_fail(error, TER_ERR_NOT_SUPPORTED,
			"The I/O backend '%s' is not permitted on this machine. Leave the choice to Terrace.", prefer);
}

void ter_io_free(struct ter_io *io)
{
	if (io)
		io->ops->free(io);
}

int ter_bdev_open(struct ter_io *io, const char *path, unsigned flags, struct ter_bdev **ret_bdev,
		  struct ter_error *error)
{
	int r;

	if (path[0] != '/')
		return ter_fail(error, TER_ERR_INVALID_ARGUMENT,
				"'%s' is not an absolute path. Give the path of a device or file from '/' on.", path);
	r = TER_FAULT(fault_open);
	if (r < 0)
		return ter_fail(error, TER_ERR_FAULT_INJECTED, "Opening '%s' failed because a test asked for it.",
				path);
	return io->ops->open(io, path, flags, ret_bdev, error);
}

void ter_bdev_close(struct ter_bdev *bdev)
{
	if (bdev)
		bdev->io->ops->close(bdev);
}

/* --- requests --- */

int ter_bio_fault(const struct ter_bio *bio)
{
	switch (bio->op) {
	case TER_BIO_READ:
		return TER_FAULT(fault_read);
	case TER_BIO_WRITE:
		return TER_FAULT(fault_write);
	case TER_BIO_FLUSH:
		return TER_FAULT(fault_flush);
	case TER_BIO_DISCARD:
		return TER_FAULT(fault_discard);
	}
	return 0;
}

int64_t ter_bio_cut_short(const struct ter_bio *bio, int64_t moved)
{
	int r;

	r = TER_FAULT(fault_short);
	if (r == 0 || moved <= 0)
		return moved;
	moved = (int64_t)ter_round_down((uint64_t)moved / 2, bio->bdev->info.logical_block_bytes);
	return r == -EAGAIN && moved ? moved : r;
}

int ter_bio_check(const struct ter_bio *bio)
{
	uint64_t sum = 0;

	if (bio->op == TER_BIO_FLUSH)
		return 0;
	if (!bio->bytes || bio->offset_bytes > bio->bdev->info.bytes ||
	    bio->bytes > bio->bdev->info.bytes - bio->offset_bytes)
		return -EINVAL;
	if (bio->op == TER_BIO_DISCARD)
		return 0;
	if (!bio->iov_nr || bio->iov_nr > TER_BIO_IOV_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < bio->iov_nr; i++)
		sum += bio->iov[i].iov_len;
	return sum == bio->bytes ? 0 : -EINVAL;
}

/* --- waiting for one --- */

static void wake_waiter(struct ter_bio *bio)
{
	ter_event_set(bio->priv, bio->result);
}

static int submit_and_wait(struct ter_bio *bio)
{
	struct ter_event event;
	int r;

	ter_event_init(&event);
	bio->done = wake_waiter;
	bio->priv = &event;
	ter_bio_submit(bio);
	r = ter_event_wait(&event);
	ter_event_destroy(&event);
	return r;
}

static int transfer(struct ter_bdev *bdev, enum ter_bio_op op, uint64_t offset_bytes, void *buf, size_t bytes,
		    unsigned flags)
{
	struct ter_bio bio = {
		.op = op,
		.flags = flags,
		.bdev = bdev,
		.offset_bytes = offset_bytes,
		.bytes = bytes,
		.iov1 = {.iov_base = buf, .iov_len = bytes},
		.iov_nr = 1,
	};

	bio.iov = &bio.iov1;
	return submit_and_wait(&bio);
}

int ter_bdev_read(struct ter_bdev *bdev, uint64_t offset_bytes, void *buf, size_t bytes)
{
	return transfer(bdev, TER_BIO_READ, offset_bytes, buf, bytes, 0);
}

int ter_bdev_write(struct ter_bdev *bdev, uint64_t offset_bytes, const void *buf, size_t bytes, unsigned bio_flags)
{
	return transfer(bdev, TER_BIO_WRITE, offset_bytes, (void *)buf, bytes, bio_flags);
}

int ter_bdev_flush(struct ter_bdev *bdev)
{
	struct ter_bio bio = {.op = TER_BIO_FLUSH, .bdev = bdev};

	return submit_and_wait(&bio);
}

int ter_bdev_discard(struct ter_bdev *bdev, uint64_t offset_bytes, uint64_t bytes)
{
	struct ter_bio bio = {.op = TER_BIO_DISCARD, .bdev = bdev, .offset_bytes = offset_bytes, .bytes = bytes};

	return submit_and_wait(&bio);
}
