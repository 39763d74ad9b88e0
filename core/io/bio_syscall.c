/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One request with plain system calls. */
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io/io_priv.h"

#define STALLS_MAX 16  /* interruptions in a row without a byte transferred */
#define IOV_AT_ONCE 64 /* of a request continued in its middle */

/* Fills @part with what of @bio lies behind the first @done bytes, as far as it fits. */
static unsigned rest_of(const struct ter_bio *bio, uint64_t done, struct iovec part[IOV_AT_ONCE])
{
	unsigned nr = 0;

	for (unsigned i = 0; i < bio->iov_nr && nr < IOV_AT_ONCE; i++) {
		const struct iovec *iov = &bio->iov[i];

		if (done >= iov->iov_len) {
			done -= iov->iov_len;
			continue;
		}
		part[nr++] = (struct iovec){(char *)iov->iov_base + done, iov->iov_len - done};
		done = 0;
	}
	return nr;
}

static ssize_t transfer_some(const struct ter_bio *bio, int fd, uint64_t done)
{
	int rw_flags = bio->op == TER_BIO_WRITE && (bio->flags & TER_BIO_FUA) ? RWF_DSYNC : 0;
	struct iovec part[IOV_AT_ONCE];
	const struct iovec *iov = bio->iov;
	int nr = (int)bio->iov_nr;

	if (done) {
		iov = part;
		nr = (int)rest_of(bio, done, part);
	}
	if (bio->op == TER_BIO_READ)
		return preadv2(fd, iov, nr, (off_t)(bio->offset_bytes + done), 0);
	return pwritev2(fd, iov, nr, (off_t)(bio->offset_bytes + done), rw_flags);
}

/* O_DIRECT goes on at block boundaries only; 0 bytes are the end of a file that shrank. */
static int transfer(const struct ter_bio *bio, int fd)
{
	uint64_t block_bytes = bio->bdev->info.logical_block_bytes, done = 0;
	unsigned stalls = 0;

	while (done < bio->bytes) {
		ssize_t n = transfer_some(bio, fd, done);
		int r;

		n = ter_bio_cut_short(bio, n < 0 ? -errno : n);
		r = (int)ter_min(n, (ssize_t)0);
		if (r == -EINTR || r == -EAGAIN) {
			if (++stalls > STALLS_MAX)
				return -EIO;
			continue;
		}
		if (r < 0)
			return r;
		if (done + (uint64_t)n < bio->bytes)
			n = (ssize_t)ter_round_down((uint64_t)n, block_bytes);
		if (!n)
			return -EIO;
		done += (uint64_t)n;
		stalls = 0;
	}
	return 0;
}

int ter_discard_syscall(int fd, bool is_file, uint64_t offset_bytes, uint64_t bytes)
{
	uint64_t range[2] = {offset_bytes, bytes};
	int r;

	do {
		if (is_file)
			r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset_bytes,
				      (off_t)bytes);
		else
			r = ioctl(fd, BLKDISCARD, range);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

int ter_bio_syscall(const struct ter_bio *bio, int fd)
{
	switch (bio->op) {
	case TER_BIO_READ:
	case TER_BIO_WRITE:
		return transfer(bio, fd);
	case TER_BIO_FLUSH:
		return fdatasync(fd) < 0 ? -errno
					 : 0; /* not repeated: a second one would not tell of what the first one lost */
	case TER_BIO_DISCARD:
		return ter_discard_syscall(fd, bio->bdev->info.is_file, bio->offset_bytes, bio->bytes);
	}
	return -EINVAL;
}
