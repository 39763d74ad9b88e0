/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mounting and unmounting by mount(2), without libfuse's helper. */
#include "fuse/mount_fuse.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define TYPE "fuse.terrace"
#define DEAD_MAX 8 /* dead mounts one above the other that are removed at once */
#define MOUNT_LINE_MAX (16 * PATH_MAX) /* root and mount point, each byte of which may be written as four, and options */

/* A path as mountinfo writes it: space, tab, newline and backslash are \NNN there. In place. */
static void unescape(char *path)
{
	char *to = path;

	for (const char *from = path; *from; to++) {
		unsigned code;

		if (from[0] == '\\' && sscanf(from + 1, "%3o", &code) == 1 && code > 0 && code <= 0377 && strspn(from + 1, "01234567") >= 3) {
			*to = (char)code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = 0;
}

/* One line of /proc/self/mountinfo whose mount point is @where: its major:minor and type. */
static bool find_mount(const char *where, char dev[32], char type[64])
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[MOUNT_LINE_MAX];
	bool found = false;

	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		char point[4 * PATH_MAX], d[32];
		const char *dash = strstr(line, " - ");

		if (!dash || sscanf(line, "%*d %*d %31s %*s %16383s", d, point) != 2)
			continue;
		unescape(point);
		if (strcmp(point, where) != 0)
			continue;
		snprintf(dev, 32, "%s", d); /* the last one is the topmost */
		if (sscanf(dash + 3, "%63s", type) == 1)
			found = true;
	}
	fclose(f);
	return found;
}

bool td_mount_is(const char *where, unsigned dev_major, unsigned dev_minor)
{
	char dev[32], type[64], wanted[32];

	snprintf(wanted, sizeof(wanted), "%u:%u", dev_major, dev_minor);
	return find_mount(where, dev, type) && strcmp(dev, wanted) == 0;
}

/* One of ours whose daemon has gone without unmounting it: nobody can use it any more. statfs() always asks the server, where stat() may know by itself. */
static bool remove_dead(const char *where, const char *type)
{
	struct statfs st;

	return strcmp(type, TYPE) == 0 && statfs(where, &st) < 0 && errno == ENOTCONN && umount2(where, MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
}

static int check_mounted(const char *where, struct ter_error *error)
{
	char dev[32], type[64];

	for (unsigned i = 0; i < DEAD_MAX; i++)
		if (!find_mount(where, dev, type) || !remove_dead(where, type))
			break;
	if (!find_mount(where, dev, type))
		return 0;
	return ter_fail(error, TER_ERR_ALREADY_MOUNTED, "Something is mounted at '%s' already (%s). Unmount it or choose another directory.", where, type);
}

int td_mount_check(const char *where, struct ter_error *error)
{
	char real[PATH_MAX];
	struct dirent *e;
	struct stat st;
	bool empty = true;
	DIR *dir;
	int r;

	if (where[0] != '/')
		return ter_fail(error, TER_ERR_INVALID_ARGUMENT, "'%s' is not an absolute path.", where);
	/* Looked up before the directory is touched: a mount there whose daemon is gone would answer with an error of its own. */
	r = check_mounted(where, error);
	if (r < 0)
		return r;
	if (!realpath(where, real) || stat(real, &st) < 0)
		return ter_fail_errno(error, -errno, "The mount point '%s' cannot be used: %s.", where, strerror(errno));
	r = check_mounted(real, error); /* which mount(2) takes, whatever links lead there */
	if (r < 0)
		return r;
	if (!S_ISDIR(st.st_mode))
		return ter_fail(error, TER_ERR_INVALID_ARGUMENT, "The mount point '%s' is not a directory.", where);
	dir = opendir(where);
	if (!dir)
		return ter_fail_errno(error, -errno, "The mount point '%s' cannot be read: %s.", where, strerror(errno));
	while (empty && (e = readdir(dir)))
		empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
	closedir(dir);
	if (!empty)
		return ter_fail(error, TER_ERR_BUSY, "The mount point '%s' is not empty. Choose an empty directory.", where);
	return 0;
}

int td_mount(const char *where, const struct td_mount_options *options, int *ret_fd, struct ter_error *error)
{
	unsigned long flags = 0;
	char data[256];
	int fd, r;

	r = td_mount_check(where, error);
	if (r < 0)
		return r;
	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENODEV ?
			       ter_fail(error, TER_ERR_NOT_SUPPORTED, "This system has no /dev/fuse; load the module 'fuse'.") :
			       ter_fail_errno(error, -errno, "/dev/fuse cannot be opened: %s.", strerror(errno));
	flags |= options->read_only ? MS_RDONLY : 0;
	flags |= options->nosuid ? MS_NOSUID : 0;
	flags |= options->nodev ? MS_NODEV : 0;
	flags |= options->noexec ? MS_NOEXEC : 0;
	flags |= options->noatime ? MS_NOATIME : 0;
	snprintf(data, sizeof(data), "fd=%d,rootmode=40000,user_id=%u,group_id=%u,default_permissions%s", fd, geteuid(), getegid(),
		 options->owner_only ? "" : ",allow_other");
	if (mount(options->source, where, TYPE, flags, data) < 0) {
		r = -errno;
		close(fd);
		return r == -EPERM ? ter_fail(error, TER_ERR_NOT_AUTHORIZED, "Mounting at '%s' needs root.", where) :
				     ter_fail_errno(error, r, "Mounting at '%s' failed: %s.", where, strerror(-r));
	}
	*ret_fd = fd;
	return 0;
}

int td_unmount(const char *where, bool lazy, struct ter_error *error)
{
	if (umount2(where, (lazy ? MNT_DETACH : 0) | UMOUNT_NOFOLLOW) == 0)
		return 0;
	switch (errno) {
	case EBUSY:
		return ter_fail(error, TER_ERR_BUSY, "'%s' is in use: close what is open there, or unmount with --lazy.", where);
	case EINVAL:
		return ter_fail(error, TER_ERR_NOT_MOUNTED, "Nothing is mounted at '%s'.", where);
	case EPERM:
		return ter_fail(error, TER_ERR_NOT_AUTHORIZED, "Unmounting '%s' needs root.", where);
	default:
		return ter_fail_errno(error, -errno, "Unmounting '%s' failed: %s.", where, strerror(errno));
	}
}

void td_raise_read_ahead(const char *where, unsigned kib)
{
	char dev[32], type[64], path[128];
	FILE *f;

	if (!find_mount(where, dev, type))
		return;
	snprintf(path, sizeof(path), "/sys/class/bdi/%s/read_ahead_kb", dev);
	f = fopen(path, "we");
	if (!f)
		return;
	fprintf(f, "%u\n", kib);
	fclose(f);
}
