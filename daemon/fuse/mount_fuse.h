/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mounting: /dev/fuse opened and attached to a directory, as mount.terrace and `terraced --once serve` do it. The daemon proper never mounts. */
#ifndef TD_MOUNT_FUSE_H
#define TD_MOUNT_FUSE_H

#include "util/error.h"

struct td_mount_options {
	const char *source;   /* shown in /proc/mounts, e.g. "terrace:media" */
	bool read_only, nosuid, nodev, noexec, noatime;
	bool owner_only;      /* no allow_other */
};
/* What td_mount() asks of @where, with its errors. For who has something to do before. */
int td_mount_check(const char *where, struct ter_error *error);
/*
 * @where: an absolute path of an existing empty directory at which nothing is mounted. Errors: NOT_FOUND, INVALID_ARGUMENT (a file, relative), BUSY (not empty),
 * ALREADY_MOUNTED, NOT_AUTHORIZED, NOT_SUPPORTED (no /dev/fuse). *ret_fd: the mounted descriptor.
 */
int td_mount(const char *where, const struct td_mount_options *options, int *ret_fd, struct ter_error *error);
/* Is the filesystem mounted at @where the one with this device number? False also where this process does not see the mount. */
bool td_mount_is(const char *where, unsigned dev_major, unsigned dev_minor);
int td_unmount(const char *where, bool lazy, struct ter_error *error);
/* Reads big: the mount's read_ahead_kb. Quietly does nothing where /sys is read-only. The mount itself is not touched. */
void td_raise_read_ahead(const char *where, unsigned kib);

#endif
