/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One io_uring: turning requests into entries, submitting in batches, reaping, going on where a transfer fell short. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/uio.h>

#include "io/uring_priv.h"

#define BATCH 32 /* requests in one submission, completions in one reaping */
#define COMPLETIONS_PER_ENTRY 16
#define STALLS_MAX 16 /* interruptions in a row without a byte transferred */
/* Of one entry of one part; the kernel takes little more. What is left goes on as a short transfer does. */
#define PART_BYTES_MAX (1u << 30)
#define RETRY_NS TER_NS_PER_MS

/* --- life --- */

static int setup(struct uring_ring *ring, unsigned entries, unsigned flags)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | flags,
		.cq_entries = entries * COMPLETIONS_PER_ENTRY,
	};
	int r;

	r = io_uring_queue_init_params(entries, &ring->uring, &params);
	if (r < 0)
		return r;
	/* Without this (before Linux 5.5) completions can be lost. */
	if (!(params.features & IORING_FEAT_NODROP)) {
		io_uring_queue_exit(&ring->uring);
		return -EOPNOTSUPP;
	}
	ring->in_kernel_max = params.cq_entries;
	return 0;
}

int uring_ring_init(struct uring_ring *ring, struct uring_io *io, unsigned entries, unsigned flags)
{
	int r;

	assert(entries >= BATCH);
	*ring = (struct uring_ring){.io = io};
	r = setup(ring, entries, flags);
	if (r == -EINVAL)
		r = setup(ring, entries, 0); /* a kernel that does not know the flags, all of which only save time */
	if (r < 0)
		return r == -ENOMEM ? -ENOMEM : -EOPNOTSUPP;
	ring->files = io_uring_register_files_sparse(&ring->uring, URING_DEVICES_MAX) == 0;
	ter_lock_init(&ring->lock, TER_RANK_DEVICE);
	ter_list_init(&ring->pending);
	ter_list_init(&ring->link);
	return 0;
}

void uring_ring_exit(struct uring_ring *ring)
{
	assert(ter_list_empty(&ring->pending) && !ring->in_kernel_nr);
	io_uring_queue_exit(&ring->uring);
	ter_lock_destroy(&ring->lock);
}

int uring_register_region(struct uring_ring *ring, const struct iovec *region)
{
	struct iovec part[URING_REGION_PARTS_MAX];
	uint64_t step = 1ull << URING_REGION_PART_SHIFT;
	unsigned nr = 0;
	int r;

	for (uint64_t at = 0; at < region->iov_len; at += step)
		part[nr++] = (struct iovec){(char *)region->iov_base + at, ter_min(step, region->iov_len - at)};
	r = io_uring_register_buffers(&ring->uring, part, nr);
	__atomic_store_n(&ring->region, r == 0, __ATOMIC_RELEASE);
	return r;
}

void uring_unregister_region(struct uring_ring *ring)
{
	if (__atomic_exchange_n(&ring->region, false, __ATOMIC_ACQ_REL))
		(void)io_uring_unregister_buffers(&ring->uring); /* it was registered: nothing can fail */
}

/* --- an entry for a request --- */

/* Which registered buffer holds the part as a whole; -1: none. */
static int region_part(const struct uring_ring *ring, const struct iovec *part)
{
	uint64_t from, last;

	if (!__atomic_load_n(&ring->region, __ATOMIC_ACQUIRE) ||
	    (char *)part->iov_base < (char *)ring->io->region.iov_base)
		return -1;
	from = (uint64_t)((char *)part->iov_base - (char *)ring->io->region.iov_base);
	last = from + part->iov_len - 1;
	if (last >= ring->io->region.iov_len || from >> URING_REGION_PART_SHIFT != last >> URING_REGION_PART_SHIFT)
		return -1;
	return (int)(from >> URING_REGION_PART_SHIFT);
}

static void prepare_part(const struct uring_ring *ring, struct io_uring_sqe *sqe, int fd, const struct ter_bio *bio,
			 const struct iovec *part, uint64_t offset)
{
	unsigned bytes = (unsigned)ter_min(part->iov_len, (size_t)PART_BYTES_MAX);
	int idx = region_part(ring, part);

	if (bio->op == TER_BIO_READ) {
		if (idx >= 0)
			io_uring_prep_read_fixed(sqe, fd, part->iov_base, bytes, offset, idx);
		else
			io_uring_prep_read(sqe, fd, part->iov_base, bytes, offset);
	} else {
		if (idx >= 0)
			io_uring_prep_write_fixed(sqe, fd, part->iov_base, bytes, offset, idx);
		else
			io_uring_prep_write(sqe, fd, part->iov_base, bytes, offset);
	}
}

/* The first part behind @done bytes. */
static struct iovec part_after(const struct ter_bio *bio, uint64_t done)
{
	unsigned i;

	for (i = 0; done >= bio->iov[i].iov_len; i++)
		done -= bio->iov[i].iov_len;
	return (struct iovec){(char *)bio->iov[i].iov_base + done, bio->iov[i].iov_len - done};
}

static void prepare_transfer(const struct uring_ring *ring, struct io_uring_sqe *sqe, int fd, const struct ter_bio *bio)
{
	uint64_t done = bio->backend[B_DONE_BYTES];
	struct iovec part;

	if (bio->iov_nr == 1 || done) {
		part = part_after(bio, done);
		prepare_part(ring, sqe, fd, bio, &part, bio->offset_bytes + done);
	} else if (bio->op == TER_BIO_READ) {
		io_uring_prep_readv(sqe, fd, bio->iov, bio->iov_nr, bio->offset_bytes);
	} else {
		io_uring_prep_writev(sqe, fd, bio->iov, bio->iov_nr, bio->offset_bytes);
	}
	if (bio->op == TER_BIO_WRITE && (bio->flags & TER_BIO_FUA))
		sqe->rw_flags |= RWF_DSYNC;
}

static void prepare(struct uring_ring *ring, struct io_uring_sqe *sqe, struct ter_bio *bio)
{
	const struct uring_bdev *bdev;
	bool registered;
	int fd;

	if (bio->backend[B_RESULT] != RESULT_UNKNOWN) {
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data(sqe, bio);
		return;
	}
	bdev = uring_bdev_of(bio->bdev);
	registered = ring->files && bdev->slot >= 0;
	fd = registered ? bdev->slot : bdev->fds.io_fd;
	switch (bio->op) {
	case TER_BIO_READ:
	case TER_BIO_WRITE:
		prepare_transfer(ring, sqe, fd, bio);
		break;
	case TER_BIO_FLUSH:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	case TER_BIO_DISCARD:
		io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)bio->offset_bytes,
					(off_t)bio->bytes);
		break;
	}
	if (registered)
		sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, bio);
}

/* --- submission --- */

/* All that stands in the submission queue. What the kernel refuses for want of memory stays there and is offered again.
 */
static void submit_all(struct uring_ring *ring)
{
	__atomic_fetch_add(&ring->published, 1, __ATOMIC_ACQ_REL);
	while (io_uring_sq_ready(&ring->uring)) {
		int r = io_uring_submit(&ring->uring);

		if (r >= 0 || r == -EINTR)
			continue;
		if (r != -EAGAIN && r != -EBUSY && r != -ENOMEM)
			abort(); /* our own ring, misused: requests would never be answered */
		ter_sleep_ns(ring->io->io.exec, RETRY_NS);
	}
}

static unsigned take_batch(struct uring_ring *ring, struct ter_bio *batch[BATCH])
{
	unsigned nr = 0;

	while (nr < BATCH && !ter_list_empty(&ring->pending) && ring->in_kernel_nr < ring->in_kernel_max) {
		batch[nr] = ter_list_first(&ring->pending, struct ter_bio, link);
		ter_list_del(&batch[nr]->link);
		ring->in_kernel_nr++;
		nr++;
	}
	return nr;
}

/* With the lock held, which is dropped while the kernel is called (U1). */
static void pump(struct uring_ring *ring)
{
	struct ter_bio *batch[BATCH];
	unsigned nr;

	if (ring->submitting)
		return;
	ring->submitting = true;
	while ((nr = take_batch(ring, batch))) {
		ter_lock_release(&ring->lock);
		for (unsigned i = 0; i < nr; i++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

			assert(sqe); /* the queue was empty, and is no shorter than a batch */
			prepare(ring, sqe, batch[i]);
		}
		submit_all(ring);
		ter_lock_acquire(&ring->lock);
	}
	ring->submitting = false;
}

void uring_ring_push(struct uring_ring *ring, struct ter_bio *bio)
{
	ter_lock_acquire(&ring->lock);
	ter_list_add_tail(&ring->pending, &bio->link);
	pump(ring);
	ter_lock_release(&ring->lock);
}

/* --- completion --- */

/* Whether the request must go to the kernel once more; if not, the result is set. */
static bool must_repeat(struct ter_bio *bio)
{
	if (bio->backend[B_STALLS]++ < STALLS_MAX)
		return true;
	bio->result = -EIO;
	return false;
}

static bool goes_on(struct ter_bio *bio, int res)
{
	uint64_t left = bio->bytes - bio->backend[B_DONE_BYTES], moved = (uint64_t)res;

	if (moved < left)
		moved = ter_round_down(
			moved, bio->bdev->info.logical_block_bytes); /* O_DIRECT goes on at block boundaries only */
	if (!moved) {
		bio->result = -EIO; /* the end of a file that shrank */
		return false;
	}
	bio->backend[B_DONE_BYTES] += moved;
	bio->backend[B_STALLS] = 0;
	bio->result = 0;
	return moved < left;
}

/* Judges @res; true: there is more to do. */
static bool unfinished(struct ter_bio *bio, int res)
{
	int known = (int)(int64_t)bio->backend[B_RESULT];

	if (known != RESULT_UNKNOWN) {
		bio->result = known == RESULT_GOOD ? 0 : known;
		return false;
	}
	if (bio->op == TER_BIO_READ || bio->op == TER_BIO_WRITE)
		res = (int)ter_bio_cut_short(bio, res);
	/* -ECANCELED: the thread that submitted it has ended. Doing a request twice does no harm. */
	if (res == -EINTR || res == -EAGAIN || res == -ECANCELED)
		return must_repeat(bio);
	if (res < 0 || bio->op == TER_BIO_FLUSH || bio->op == TER_BIO_DISCARD) {
		bio->result = ter_min(res, 0);
		return false;
	}
	return goes_on(bio, res);
}

unsigned uring_ring_reap(struct uring_ring *ring, bool *ret_stop)
{
	struct io_uring_cqe *cqe[BATCH];
	struct ter_bio *bio[BATCH];
	int res[BATCH];
	unsigned nr;

	nr = io_uring_peek_batch_cqe(&ring->uring, cqe, BATCH);
	if (!nr)
		return 0;
	for (unsigned i = 0; i < nr; i++) {
		bio[i] = io_uring_cqe_get_data(cqe[i]);
		res[i] = cqe[i]->res;
	}
	io_uring_cq_advance(&ring->uring, nr);
	(void)__atomic_load_n(&ring->published, __ATOMIC_ACQUIRE); /* orders only */

	ter_lock_acquire(&ring->lock);
	ring->in_kernel_nr -= nr;
	pump(ring);
	ter_lock_release(&ring->lock);

	for (unsigned i = 0; i < nr; i++) {
		if (bio[i] == &ring->io->stop_bio)
			*ret_stop = true;
		else if (unfinished(bio[i], res[i]))
			uring_ring_push(ring, bio[i]);
		else
			uring_bio_done(bio[i]);
	}
	return nr;
}
