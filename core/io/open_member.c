/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Claiming a block device or file for ourselves, opening it for requests, and finding out what it is like. */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "io/io_priv.h"
#include "util/mem.h"

#define BLOCK_BYTES_MAX (64u << 10)
#define SYSFS_PATH_MAX 256
#define FILE_PHYSICAL_BYTES 4096 /* of a file on a filesystem that does not say better */

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000u
#endif
/* Offsets in struct statx of what Linux 6.1 added, for a libc older than that. */
#define STATX_DIO_MEM_ALIGN_AT 0x98
#define STATX_DIO_OFFSET_ALIGN_AT 0x9c

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd); /* nothing is buffered in a descriptor; flushes were explicit */
	*fd = -1;
}

/* --- claiming --- */

static const char *type_name(mode_t mode)
{
	if (S_ISDIR(mode))
		return "a directory";
	if (S_ISCHR(mode))
		return "a character device";
	if (S_ISFIFO(mode))
		return "a pipe";
	if (S_ISSOCK(mode))
		return "a socket";
	return "of an unknown type";
}

static int fail_open(const char *path, int r, struct ter_error *error)
{
	switch (r) {
	case -ENOENT:
	case -ENOTDIR:
		return ter_fail(error, TER_ERR_NOT_FOUND, "There is no device or file '%s'.", path);
	case -EACCES:
	case -EPERM:
		return ter_fail(error, TER_ERR_NOT_AUTHORIZED,
				"Terrace is not permitted to open '%s'. Check its owner and mode.", path);
	case -EROFS:
		return ter_fail(error, TER_ERR_READ_ONLY, "'%s' is write-protected.", path);
	case -ETXTBSY:
	case -EBUSY:
		return ter_fail(error, TER_ERR_DEVICE_IN_USE, "'%s' is in use by another program.", path);
	case -ENXIO:
	case -ENODEV:
	case -ENOMEDIUM:
		return ter_fail(error, TER_ERR_IO, "Device '%s' does not answer or has no medium.", path);
	}
	return ter_fail_errno(error, r, "'%s' could not be opened: %s.", path, strerror(-r));
}

static int fail_held(const char *path, dev_t rdev, struct ter_error *error)
{
	char holder[768];

	ter_holder_describe(rdev, holder, sizeof(holder));
	return ter_fail(error, TER_ERR_DEVICE_IN_USE, "Device '%s' %s. Release it there first.", path, holder);
}

static int claim_block(const char *path, const struct stat *st, unsigned flags, struct ter_error *error)
{
	int fd, r;

	fd = open(path, (flags & TER_OPEN_RDONLY ? O_RDONLY : O_RDWR) | O_EXCL | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	r = -errno;
	if (r == -EBUSY)
		return fail_held(path, st->st_rdev, error);
	return fail_open(path, r, error);
}

static int lock_file(int fd, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* A write lock over the whole file. A file that is only to be read may also be one that cannot be written: a read lock
 * then still keeps writers away. */
static int claim_file(const char *path, const struct stat *st, unsigned flags, struct ter_error *error)
{
	short type = F_WRLCK;
	char loop[64];
	int fd, r;

	if (ter_dev_is_terrace_mount(st->st_dev))
		return ter_fail(
			error, TER_ERR_DEVICE_IN_USE,
			"'%s' lies on a Terrace filesystem, which cannot be made of itself. Choose a file elsewhere.",
			path);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && (flags & TER_OPEN_RDONLY) && (errno == EACCES || errno == EROFS || errno == EPERM)) {
		type = F_RDLCK;
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	}
	if (fd < 0)
		return fail_open(path, -errno, error);

	r = lock_file(fd, type);
	if (r < 0)
		close_fd(&fd);
	if (r == 0 && ter_file_find_loop(st, loop, sizeof(loop))) {
		close_fd(&fd);
		return ter_fail(error, TER_ERR_DEVICE_IN_USE,
				"'%s' is the file behind '%s'. Detach that first (losetup --detach %s), or name it instead.", path, loop,
				loop);
	}
	if (r == -EAGAIN || r == -EACCES)
		return ter_fail(error, TER_ERR_DEVICE_IN_USE,
				"'%s' is in use by another Terrace daemon, or locked by another program.", path);
	if (r < 0)
		return ter_fail(error, TER_ERR_NOT_SUPPORTED,
				"'%s' lies on a filesystem without locks (%s). Choose a file elsewhere.", path,
				strerror(-r));
	return fd;
}

/* A loop device and its file hold the same bytes: who has the one must not meet somebody who has the other. Where the file cannot be reached by its name
 * (another namespace, deleted), nobody else reaches it either. @ret_fd stays -1 then, and for other devices. */
static int claim_backing(const char *path, const struct stat *st, int *ret_fd, struct ter_error *error)
{
	char file[PATH_MAX];
	struct stat backing;
	short type = F_WRLCK;
	int fd;

	if (!ter_loop_backing(st->st_rdev, file) || stat(file, &backing) < 0 || !S_ISREG(backing.st_mode))
		return 0;
	if (ter_dev_is_terrace_mount(backing.st_dev))
		return ter_fail(error, TER_ERR_DEVICE_IN_USE,
				"Device '%s' is the file '%s' on a Terrace filesystem, which cannot be made of itself. Choose another.",
				path, file);
	fd = open(file, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		type = F_RDLCK;
		fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	}
	if (fd < 0)
		return 0;
	switch (lock_file(fd, type)) {
	case -EAGAIN:
	case -EACCES:
		close_fd(&fd);
		return ter_fail(error, TER_ERR_DEVICE_IN_USE,
				"Device '%s' is the file '%s', which is in use by another Terrace daemon, or locked by another program.",
				path, file);
	}
	*ret_fd = fd; /* also where its filesystem has no locks: O_EXCL on the device stands */
	return 0;
}

static int look(const char *path, struct ter_error *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	return fd >= 0 ? fd : fail_open(path, -errno, error);
}

/* A descriptor that holds the claim (or, shared, none), of the very node that @st then describes. */
static int claim(const char *path, unsigned flags, struct stat *st, struct ter_error *error)
{
	struct stat before;
	int fd;

	if (stat(path, &before) < 0)
		return fail_open(path, -errno, error);
	if (!S_ISBLK(before.st_mode) && !S_ISREG(before.st_mode))
		return ter_fail(error, TER_ERR_INVALID_ARGUMENT,
				"'%s' is %s. Terrace takes block devices, partitions and regular files.", path,
				type_name(before.st_mode));
	if (flags & TER_OPEN_SHARED)
		fd = look(path, error);
	else if (S_ISBLK(before.st_mode))
		fd = claim_block(path, &before, flags, error);
	else
		fd = claim_file(path, &before, flags, error);
	if (fd < 0)
		return fd;
	if (fstat(fd, st) < 0 || st->st_dev != before.st_dev || st->st_ino != before.st_ino ||
	    st->st_mode != before.st_mode) {
		close_fd(&fd);
		return ter_fail(error, TER_ERR_BUSY,
				"'%s' was replaced by something else while it was being opened. Try again.", path);
	}
	return fd;
}

/* --- opening for requests --- */

/* Through the claim's descriptor, so that it is the same node whatever happened to the path since. */
static int open_for_io(int claim_fd, unsigned flags, bool *direct)
{
	int open_flags = (flags & (TER_OPEN_RDONLY | TER_OPEN_SHARED) ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", claim_fd);
	if (*direct) {
		fd = open(path, open_flags | O_DIRECT);
		if (fd >= 0 || errno != EINVAL)
			return fd < 0 ? -errno : fd;
		*direct = false;
	}
	fd = open(path, open_flags);
	return fd < 0 ? -errno : fd;
}

/* --- what it is like --- */

static bool sysfs_read(dev_t rdev, const char *name, char *out, size_t bytes)
{
	char path[SYSFS_PATH_MAX];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(rdev), minor(rdev), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, out, bytes - 1);
	close_fd(&fd);
	if (n < 0)
		return false;
	out[n] = 0;
	return true;
}

/* A number of the queue of the disk that @rdev is or is a partition of; 0 when there is none. */
static uint64_t queue_number(dev_t rdev, const char *name)
{
	char path[64], text[64];

	snprintf(path, sizeof(path), "queue/%s", name);
	if (sysfs_read(rdev, path, text, sizeof(text)))
		return strtoull(text, NULL, 10);
	snprintf(path, sizeof(path), "../queue/%s", name);
	if (sysfs_read(rdev, path, text, sizeof(text)))
		return strtoull(text, NULL, 10);
	return 0;
}

static dev_t whole_disk(dev_t rdev)
{
	unsigned major_nr, minor_nr;
	char text[64];

	if (sysfs_read(rdev, "partition", text, sizeof(text)) && sysfs_read(rdev, "../dev", text, sizeof(text)) &&
	    sscanf(text, "%u:%u", &major_nr, &minor_nr) == 2)
		return makedev(major_nr, minor_nr);
	return rdev;
}

static int describe_block(int fd, const struct stat *st, struct ter_bdev_info *info)
{
	unsigned physical = 0, optimal = 0;
	int logical = 0;

	if (ioctl(fd, BLKGETSIZE64, &info->bytes) < 0 || ioctl(fd, BLKSSZGET, &logical) < 0)
		return -errno;
	if (logical < 0 || !ter_is_pow2((uint64_t)logical))
		return -EINVAL;
	(void)ioctl(fd, BLKPBSZGET, &physical); /* stays 0: as the logical one */
	(void)ioctl(fd, BLKIOOPT, &optimal);	/* stays 0: unknown */
	info->logical_block_bytes = (uint32_t)logical;
	info->physical_block_bytes = ter_is_pow2(physical) ? ter_max(physical, (unsigned)logical) : (uint32_t)logical;
	info->optimal_io_bytes = optimal;
	info->rotational = queue_number(st->st_rdev, "rotational");
	info->can_discard = queue_number(st->st_rdev, "discard_max_bytes");
	info->rdev = st->st_rdev;
	info->disk = whole_disk(st->st_rdev);
	return 0;
}

/* What the filesystem says that O_DIRECT needs; 0: it says nothing. */
static uint32_t dio_align_stated(int fd)
{
	uint32_t memory, offset;
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) < 0 || !(stx.stx_mask & STATX_DIOALIGN))
		return 0;
	memcpy(&memory, (const char *)&stx + STATX_DIO_MEM_ALIGN_AT, sizeof(memory));
	memcpy(&offset, (const char *)&stx + STATX_DIO_OFFSET_ALIGN_AT, sizeof(offset));
	return ter_max(memory, offset);
}

/* The smallest block with which a direct read works; 0: none does. */
static uint32_t dio_align_tried(int fd)
{
	_cleanup_free_ void *buf = ter_malloc_aligned(BLOCK_BYTES_MAX, BLOCK_BYTES_MAX);

	for (uint32_t bytes = TER_SECTOR_BYTES; buf && bytes <= BLOCK_BYTES_MAX; bytes *= 2)
		if (pread(fd, (char *)buf + bytes % BLOCK_BYTES_MAX, bytes, bytes) >= 0)
			return bytes;
	return 0;
}

static uint32_t dio_align(int fd)
{
	uint32_t align = dio_align_stated(fd);

	if (!align)
		align = dio_align_tried(fd);
	if (align && align < TER_SECTOR_BYTES)
		align = TER_SECTOR_BYTES;
	return ter_is_pow2(align) && align <= BLOCK_BYTES_MAX ? align : 0;
}

/* Punches a hole beyond the end, which changes nothing where it works. */
static bool can_punch(int fd, uint64_t bytes)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)ter_round_up(bytes, BLOCK_BYTES_MAX),
			 BLOCK_BYTES_MAX) == 0;
}

static void describe_file(int fd, const struct stat *st, struct ter_bdev_info *info)
{
	info->is_file = true;
	info->bytes = (uint64_t)st->st_size;
	if (!info->direct)
		info->logical_block_bytes = TER_SECTOR_BYTES;
	info->physical_block_bytes = ter_max(info->logical_block_bytes, (uint32_t)FILE_PHYSICAL_BYTES);
	info->rotational = queue_number(st->st_dev, "rotational");
	info->can_discard = can_punch(fd, info->bytes);
	info->disk = st->st_dev;
}

/* A file for which no alignment works is opened again, buffered. */
static int settle_file_align(int claim_fd, unsigned flags, int *fd, struct ter_bdev_info *info)
{
	info->logical_block_bytes = info->direct ? dio_align(*fd) : 0;
	if (!info->direct || info->logical_block_bytes)
		return 0;
	info->direct = false;
	close_fd(fd);
	*fd = open_for_io(claim_fd, flags, &info->direct);
	return *fd < 0 ? *fd : 0;
}

static int open_and_describe(int claim_fd, unsigned flags, const struct stat *st, int *ret_fd,
			     struct ter_bdev_info *ret_info)
{
	struct ter_bdev_info info = {
		.direct = !(flags & TER_OPEN_BUFFERED), .file_dev = st->st_dev, .file_ino = st->st_ino};
	int fd, r = 0;

	fd = open_for_io(claim_fd, flags, &info.direct);
	if (fd < 0)
		return fd;
	if (S_ISBLK(st->st_mode)) {
		r = describe_block(fd, st, &info);
	} else {
		r = settle_file_align(claim_fd, flags, &fd, &info);
		if (r == 0)
			describe_file(fd, st, &info);
	}
	if (r < 0) {
		close_fd(&fd);
		return r;
	}
	*ret_fd = fd;
	*ret_info = info;
	return 0;
}

int ter_member_open(const char *path, unsigned flags, struct ter_member_fds *ret_fds, struct ter_bdev_info *ret_info,
		    struct ter_error *error)
{
	struct ter_bdev_info info;
	int claim_fd, io_fd, backing_fd = -1, r = 0;
	struct stat st;

	claim_fd = claim(path, flags, &st, error);
	if (claim_fd < 0)
		return claim_fd;
	if (S_ISBLK(st.st_mode) && !(flags & TER_OPEN_SHARED))
		r = claim_backing(path, &st, &backing_fd, error);
	if (r < 0) {
		close_fd(&claim_fd);
		return r;
	}
	r = open_and_describe(claim_fd, flags, &st, &io_fd, &info);
	if (r == 0 && (!info.logical_block_bytes || info.logical_block_bytes > BLOCK_BYTES_MAX)) {
		close_fd(&io_fd);
		r = -EOPNOTSUPP;
	}
	if (r < 0) {
		close_fd(&backing_fd);
		close_fd(&claim_fd);
		if (r == -EOPNOTSUPP || r == -EINVAL)
			return ter_fail(error, TER_ERR_NOT_SUPPORTED, "'%s' has a block size that Terrace cannot use.",
					path);
		return fail_open(path, r, error);
	}
	if (flags & TER_OPEN_SHARED)
		close_fd(&claim_fd);
	*ret_fds = (struct ter_member_fds){.io_fd = io_fd, .claim_fd = claim_fd, .backing_fd = backing_fd};
	*ret_info = info;
	return 0;
}

void ter_member_close(struct ter_member_fds *fds)
{
	close_fd(&fds->io_fd);
	close_fd(&fds->backing_fd);
	close_fd(&fds->claim_fd);
}
