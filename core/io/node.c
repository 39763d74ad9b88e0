/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a path names, whatever its name: device, file, or the file behind a loop device. */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "io/io_priv.h"

#define SYSFS_PATH_MAX 512
#define BLOCK_DEVICES_MAX 65536 /* looked at in /sys/block */

static bool read_backing(const char *sysfs_path, char out[PATH_MAX])
{
	FILE *f = fopen(sysfs_path, "re");
	bool ok;

	if (!f)
		return false;
	ok = fgets(out, PATH_MAX, f);
	fclose(f);
	if (ok)
		out[strcspn(out, "\n")] = 0;
	return ok && out[0] == '/';
}

bool ter_loop_backing(dev_t rdev, char out[PATH_MAX])
{
	char path[SYSFS_PATH_MAX];

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/loop/backing_file", major(rdev), minor(rdev));
	return read_backing(path, out);
}

bool ter_file_find_loop(const struct stat *file, char *out, size_t bytes)
{
	char path[SYSFS_PATH_MAX], backing[PATH_MAX];
	struct dirent *entry;
	bool found = false;
	struct stat st;
	DIR *dir;

	dir = opendir("/sys/block");
	if (!dir)
		return false;
	for (unsigned n = 0; !found && n < BLOCK_DEVICES_MAX && (entry = readdir(dir)); n++) {
		if (strncmp(entry->d_name, "loop", 4) != 0)
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", entry->d_name);
		found = read_backing(path, backing) && stat(backing, &st) == 0 && st.st_dev == file->st_dev && st.st_ino == file->st_ino;
		if (found)
			snprintf(out, bytes, "/dev/%s", entry->d_name);
	}
	closedir(dir);
	return found;
}

/* A loop device on a file that cannot be reached by its name any more is itself. */
static bool node_of_backing(dev_t rdev, struct ter_bdev_node *ret)
{
	char path[PATH_MAX];
	struct stat st;

	if (!ter_loop_backing(rdev, path) || stat(path, &st) < 0)
		return false;
	*ret = (struct ter_bdev_node){.dev = st.st_dev, .ino = st.st_ino};
	return true;
}

int ter_bdev_node_of(const char *path, struct ter_bdev_node *ret)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISBLK(st.st_mode))
		*ret = (struct ter_bdev_node){.dev = st.st_dev, .ino = st.st_ino};
	else if (!node_of_backing(st.st_rdev, ret))
		*ret = (struct ter_bdev_node){.rdev = st.st_rdev};
	return 0;
}

bool ter_bdev_node_same(const struct ter_bdev_node *a, const struct ter_bdev_node *b)
{
	return a->rdev == b->rdev && a->dev == b->dev && a->ino == b->ino;
}
