/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Block devices, inside io/: what the backends share. */
#ifndef TER_IO_PRIV_H
#define TER_IO_PRIV_H

#include <limits.h>
#include <sys/stat.h>

#include "io/io.h"

/* The fault point of the request's kind ("io.read", "io.write", "io.flush", "io.discard"): 0 or a negative errno. */
int ter_bio_fault(const struct ter_bio *bio);

/*
 * Fault point "io.short": what a transfer of @moved bytes (or a negative errno) of the request is to be taken for:
 * itself; when the point fires, half of it, rounded down to blocks; or the point's errno, when that leaves nothing or
 * was armed to be another than EAGAIN.
 */
int64_t ter_bio_cut_short(const struct ter_bio *bio, int64_t moved);

/* Is the request well-formed and inside the device? 0 or -EINVAL. */
int ter_bio_check(const struct ter_bio *bio);

/* --- claiming and opening (open_member.c) --- */

struct ter_member_fds {
	int io_fd;    /* for requests; O_DIRECT when info.direct */
	int claim_fd; /* holds the claim and does nothing else, so that closing it gives the claim up at once; -1:
			 TER_OPEN_SHARED */
	int backing_fd; /* of a loop device: holds the file behind it; -1: not one, or its file cannot be reached */
};
int ter_member_open(const char *path, unsigned flags, struct ter_member_fds *ret_fds, struct ter_bdev_info *ret_info,
		    struct ter_error *error);
void ter_member_close(struct ter_member_fds *fds);

/* Who holds block device @rdev, as the end of a sentence ("is mounted on '/mnt'"); writes a general phrase when it
 * cannot tell (open_holder.c). */
void ter_holder_describe(dev_t rdev, char *out, size_t bytes);
/* The same for other places than /proc and /sys, for tests. */
void ter_holder_describe_in(const char *proc, const char *sys, dev_t rdev, char *out, size_t bytes);
/* Does a mount of type fuse.terrace have this st_dev? */
bool ter_dev_is_terrace_mount(dev_t dev);

/* --- loop devices (node.c) --- */

/* The file behind loop device @rdev, as the kernel tells its path. false: none, or no loop device. */
bool ter_loop_backing(dev_t rdev, char out[PATH_MAX]);
/* The loop device ("/dev/loop3") that @file is behind. */
bool ter_file_find_loop(const struct stat *file, char *out, size_t bytes);

/* --- what a request does with plain system calls (bio_syscall.c) --- */

/* Whole request, short transfers continued. 0 or a negative errno. */
int ter_bio_syscall(const struct ter_bio *bio, int fd);
/* Discards by ioctl on a block device, by punching a hole in a file. */
int ter_discard_syscall(int fd, bool is_file, uint64_t offset_bytes, uint64_t bytes);

/* --- backends --- */

int ter_uring_new(struct ter_exec *exec, struct ter_io **ret_io);
int ter_threads_new(struct ter_exec *exec, struct ter_io **ret_io);

int ter_uring_register_region(struct ter_io *io, void *base, size_t bytes);
void ter_uring_unregister_region(struct ter_io *io, void *base);

#endif
