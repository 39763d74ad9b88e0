/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The io_uring backend, inside io/
 *
 * There is one shared ring, whose completions a task of its own reaps, and one ring for each ter_io_ctx, reaped by its
 * owner. Any thread may submit to any ring.
 *
 *   U1  Only the ring's submitter of the moment (ring->submitting) touches the submission queue; all others leave their
 *       requests in ring->pending, and it takes them along. So requests of many threads become few system calls, and no
 *       lock is held during one.
 *   U2  No more requests are in the kernel than the completion queue holds: it never overflows.
 *   U3  A device has at most TER_IO_QUEUE_DEPTH requests in rings; the others wait in bdev->queue, in order of arrival.
 */
#ifndef TER_URING_PRIV_H
#define TER_URING_PRIV_H

#include <liburing.h>

#include "io/io_priv.h"

#define URING_DEVICES_MAX 256	   /* registered files; further devices work without */
#define URING_REGION_PART_SHIFT 30 /* the kernel's limit for one registered buffer: 1 GiB */
#define URING_REGION_PARTS_MAX 16

/* Words of bio->backend. */
enum { B_RING, B_DONE_BYTES, B_RESULT, B_STALLS };
#define RESULT_UNKNOWN 0
/* Done elsewhere, as a negative errno is: the ring only carries it to the right completion context. */
#define RESULT_GOOD 1

struct uring_io;

struct uring_ring {
	struct uring_io *io;
	struct ter_list link; /* io->rings */
	struct io_uring uring;
	unsigned in_kernel_max;
	bool files, region;	 /* registered */
	struct ter_lock lock;	 /* rank DEVICE; guards what follows */
	struct ter_list pending; /* of bios */
	unsigned in_kernel_nr;
	bool submitting;
	uint32_t published; /* orders what a submitter did with a request before what its completion does */
};

struct uring_io {
	struct ter_io io;
	struct uring_ring shared;
	struct ter_task *reaper;
	struct ter_bio stop_bio; /* its completion ends the reaper */
	struct ter_lock lock;	 /* rank DEVICE; guards what follows */
	struct ter_list rings;
	int slot_fd[URING_DEVICES_MAX]; /* -1: free */
	struct iovec region;
	/* discards on block devices, which the kernel has only as a call that waits */
	struct ter_task *discarder;
	struct ter_lock discard_lock; /* rank DEVICE */
	struct ter_waitq discard_more;
	struct ter_list discards;
	bool discard_stop;
};

struct uring_bdev {
	struct ter_bdev bdev;
	struct ter_member_fds fds;
	int slot; /* of the registered file; -1: none */
	bool read_only;
	struct ter_lock lock; /* rank DEVICE; guards what follows */
	struct ter_list queue;
	unsigned in_rings_nr;
};

static inline struct uring_bdev *uring_bdev_of(struct ter_bdev *bdev)
{
	return ter_container_of(bdev, struct uring_bdev, bdev);
}

/* uring_ring.c */
int uring_ring_init(struct uring_ring *ring, struct uring_io *io, unsigned entries, unsigned flags);
void uring_ring_exit(struct uring_ring *ring);
void uring_ring_push(struct uring_ring *ring, struct ter_bio *bio);
/* Reports what has completed, a bounded number of requests, which is returned. */
unsigned uring_ring_reap(struct uring_ring *ring, bool *ret_stop);
int uring_register_region(struct uring_ring *ring, const struct iovec *region);
void uring_unregister_region(struct uring_ring *ring);

/* uring.c */
void uring_bio_done(struct ter_bio *bio); /* result is set */

#endif
