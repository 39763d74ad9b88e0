/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block devices
 *
 * One backend (`struct ter_io`) serves all devices of a daemon; a device (`struct ter_bdev`) is a block device, a partition, a regular file or, in tests,
 * memory. Requests (`struct ter_bio`) are asynchronous: submit returns at once, `done` is called exactly once.
 *
 *   uring     io_uring with O_DIRECT, registered files and buffers, a bounded queue per device.
 *   threads   a few tasks doing pread/pwrite/fdatasync, where io_uring is not permitted. Chosen at run time.
 *   sim       in memory, recording every write and flush, with faults; runs under either exec backend.
 *
 * Invariants
 *   I1  `done` runs in the backend's completion context (a completion task, or the thread that polls its own context): it must not block, take a lock
 *       above rank BTREE_CACHE, or do I/O synchronously. It may submit. It may free the bio.
 *   I2  Two requests in flight have no order. A flush covers exactly the writes whose `done` had been called before the flush was submitted.
 *   I3  result is 0 or a negative errno; a short read or write is retried inside and then -EIO. Reads beyond the end are -EINVAL.
 *   I4  Offsets, lengths and memory of O_DIRECT requests are multiples of the device's logical block size; callers see to it.
 *   I5  A device is held exclusively: O_EXCL on a block device, an OFD write lock on a regular file, taken before anything on it is believed.
 *       Of a loop device the file behind it is locked too; a file behind a loop device is refused.
 */
#ifndef TER_IO_H
#define TER_IO_H

#include <sys/uio.h>

#include "util/base.h"
#include "util/error.h"
#include "util/exec.h"

enum ter_bio_op { TER_BIO_READ, TER_BIO_WRITE, TER_BIO_FLUSH, TER_BIO_DISCARD };
enum {
	TER_BIO_FUA = 1 << 0, /* WRITE: durable when done (write + flush where the device has no FUA) */
};

#define TER_BIO_IOV_MAX 1024
#define TER_IO_QUEUE_DEPTH 128 /* requests in flight per device; more wait in order */

struct ter_bdev;

struct ter_bio {
	enum ter_bio_op op;
	uint32_t flags;
	struct ter_bdev *bdev;
	uint64_t offset_bytes;
	uint64_t bytes;      /* the sum of @iov; DISCARD: the range */
	struct iovec *iov;   /* owned by the submitter, valid until done; not changed by the backend */
	unsigned iov_nr;     /* at most TER_BIO_IOV_MAX */
	void (*done)(struct ter_bio *bio);
	int result;
	void *priv;          /* the submitter's */
	/* backend's own */
	struct ter_list link;
	struct iovec iov1;   /* room for a one-part request: point iov here */
	uint64_t start_ns;
	uint64_t backend[4];
};

struct ter_bdev_info {
	uint64_t bytes;
	uint32_t logical_block_bytes;  /* 512..64 KiB */
	uint32_t physical_block_bytes;
	uint32_t optimal_io_bytes;     /* 0: unknown */
	bool is_file, rotational, can_discard, direct /* O_DIRECT in use */;
	dev_t disk;                    /* whole disk (or, for a file, the filesystem) this lies on: to warn of members on one disk */
	dev_t rdev;                    /* block device number, 0 for files */
	dev_t file_dev; ino_t file_ino; /* identity of the node opened */
};

struct ter_io;
struct ter_io_ops {
	void (*submit)(struct ter_bio *bio);
	void (*close)(struct ter_bdev *bdev); /* nothing in flight */
	void (*free)(struct ter_io *io);
	int (*open)(struct ter_io *io, const char *path, unsigned flags, struct ter_bdev **ret, struct ter_error *error);
};
struct ter_io {
	const struct ter_io_ops *ops;
	struct ter_exec *exec;
	const char *name; /* "uring", "threads", "sim" */
};
struct ter_bdev {
	struct ter_io *io;
	char *path;
	struct ter_bdev_info info;
};

enum {
	TER_OPEN_RDONLY = 1 << 0,  /* no write will be submitted; still exclusive */
	TER_OPEN_SHARED = 1 << 1,  /* read-only look without claiming (probe of a device in use) */
	TER_OPEN_BUFFERED = 1 << 2, /* never O_DIRECT */
};

/* The best backend this machine permits: io_uring, else threads. @prefer "uring", "threads" or NULL. Return: 0, -ENOMEM, -EOPNOTSUPP (preferred one not permitted). */
int ter_io_new(struct ter_exec *exec, const char *prefer, struct ter_io **ret_io, struct ter_error *error);
void ter_io_free(struct ter_io *io); /* all devices closed; NULL is fine */

/**
 * ter_bdev_open() - claim and open a device or file
 * @path: absolute
 * Errors, each explained naming the holder where there is one: NOT_FOUND, DEVICE_IN_USE (mounted, swap, md/lvm/dm holder, another daemon's lock,
 * a file on a Terrace mount or behind a loop device), INVALID_ARGUMENT (directory, fifo, character device, relative path), NOT_SUPPORTED, IO, NOT_AUTHORIZED.
 */
int ter_bdev_open(struct ter_io *io, const char *path, unsigned flags, struct ter_bdev **ret_bdev, struct ter_error *error);
void ter_bdev_close(struct ter_bdev *bdev); /* waits for nothing: the caller drained; NULL is fine */

/*
 * What a path names, to tell two names of one thing. A loop device is the file behind it: both hold the same bytes. Follows links; 0 or a negative errno.
 */
struct ter_bdev_node {
	dev_t rdev;      /* of a block device; 0: a file, which the rest names */
	dev_t dev;
	ino_t ino;
};
int ter_bdev_node_of(const char *path, struct ter_bdev_node *ret);
bool ter_bdev_node_same(const struct ter_bdev_node *a, const struct ter_bdev_node *b);

/* Submit; bio->done follows in the backend's completion context, possibly before this returns, never from inside this call. */
static inline void ter_bio_submit(struct ter_bio *bio)
{
	bio->bdev->io->ops->submit(bio);
}

/* Whole-request helpers that wait (not from a completion or a serving thread). 0 or a negative errno. */
int ter_bdev_read(struct ter_bdev *bdev, uint64_t offset_bytes, void *buf, size_t bytes);
int ter_bdev_write(struct ter_bdev *bdev, uint64_t offset_bytes, const void *buf, size_t bytes, unsigned bio_flags);
int ter_bdev_flush(struct ter_bdev *bdev);
int ter_bdev_discard(struct ter_bdev *bdev, uint64_t offset_bytes, uint64_t bytes);

/*
 * A serving thread may own a completion context: what it submits completes on it, inside ter_io_ctx_poll(), with no hand-over between CPUs.
 * Only the uring backend has them; others return NULL and complete in their own task.
 */
struct ter_io_ctx;
struct ter_io_ctx *ter_io_ctx_new(struct ter_io *io);
void ter_io_ctx_free(struct ter_io_ctx *ctx);
void ter_io_ctx_enter(struct ter_io_ctx *ctx); /* this thread's submissions go here from now on; NULL: back to the shared one */
int ter_io_ctx_fd(struct ter_io_ctx *ctx);     /* an eventfd that becomes readable when completions wait */
unsigned ter_io_ctx_poll(struct ter_io_ctx *ctx); /* runs what has completed; how many */

/*
 * Makes requests of one part that lie in this memory cheaper: it stays pinned, once for the backend and once for each context made later. One region a backend. Return: 0;
 * -EOPNOTSUPP (the backend has no use for it), -EBUSY (there is one), -EINVAL (larger than 16 GiB), -ENOMEM or -EPERM (more than the limit on locked memory). Failure
 * means no more than that requests cost what they did. The memory must outlive the backend, or be unregistered while no request lies in it.
 */
int ter_io_register_region(struct ter_io *io, void *base, size_t bytes);
void ter_io_unregister_region(struct ter_io *io, void *base); /* if it is the one that is registered */

/* --- simulated backend --- */
struct ter_sim; /* io/sim.h */

#endif
