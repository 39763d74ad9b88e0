/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who holds a block device: mounts, swap, and devices stacked on it, as the kernel tells in /proc and /sys. */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "io/io_priv.h"

#define SYSFS_PATH_MAX 512
#define LINE_BYTES 4096	   /* of mountinfo: a longer line is cut, and only its first fields matter */
#define PARTITIONS_MAX 256 /* looked at below a whole disk */

/* Where the kernel tells: "/proc" and "/sys", or a test's. */
struct told {
	const char *proc, *sys;
};
static const struct told kernel = {"/proc", "/sys"};

/* --- mounts --- */

struct mount {
	dev_t dev;
	char point[1024], type[64], source[1024];
};

/* The octal escapes (\040 for a blank) that the kernel writes. */
static void unescape(char *text)
{
	char *to = text;

	for (char *from = text; *from; to++) {
		unsigned code;

		if (from[0] == '\\' && sscanf(from + 1, "%3o", &code) == 1 && strlen(from) >= 4) {
			*to = (char)code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = 0;
}

static bool parse_mount(const char *line, struct mount *ret)
{
	unsigned major_nr, minor_nr;
	const char *tail = strstr(line, " - ");

	if (!tail || sscanf(line, "%*d %*d %u:%u %*s %1023s", &major_nr, &minor_nr, ret->point) != 3 ||
	    sscanf(tail, " - %63s %1023s", ret->type, ret->source) != 2)
		return false;
	ret->dev = makedev(major_nr, minor_nr);
	unescape(ret->point);
	unescape(ret->source);
	return true;
}

/* The first mount for which @match says yes. */
static bool find_mount(const struct told *told, bool (*match)(const struct mount *mount, dev_t dev), dev_t dev,
		       struct mount *ret)
{
	char line[LINE_BYTES], path[SYSFS_PATH_MAX];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/self/mountinfo", told->proc);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		found = parse_mount(line, ret) && match(ret, dev);
	fclose(f);
	return found;
}

static bool is_rdev(const char *path, dev_t rdev)
{
	struct stat st;

	return path[0] == '/' && stat(path, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == rdev;
}

/* Some filesystems have a device number of their own; then the source says it. */
static bool mounts_device(const struct mount *mount, dev_t rdev)
{
	return mount->dev == rdev || is_rdev(mount->source, rdev);
}

static bool is_terrace(const struct mount *mount, dev_t dev)
{
	return mount->dev == dev && !strcmp(mount->type, "fuse.terrace");
}

bool ter_dev_is_terrace_mount(dev_t dev)
{
	struct mount mount;

	return find_mount(&kernel, is_terrace, dev, &mount);
}

/* --- swap and stacked devices --- */

static bool is_swap(const struct told *told, dev_t rdev)
{
	char line[LINE_BYTES], path[1024];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/swaps", told->proc);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%1023s", path) != 1)
			continue;
		unescape(path);
		found = is_rdev(path, rdev);
	}
	fclose(f);
	return found;
}

static bool read_line(const char *path, char *out, size_t bytes)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (!f)
		return false;
	ok = fgets(out, (int)bytes, f);
	fclose(f);
	if (ok)
		out[strcspn(out, "\n")] = 0;
	return ok;
}

/* The first entry of /sys/dev/block/<rdev>/holders, with its name for people where it has one. */
static bool find_stacked(const struct told *told, dev_t rdev, char *out, size_t bytes)
{
	char path[SYSFS_PATH_MAX], name[128];
	struct dirent *entry = NULL;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/dev/block/%u:%u/holders", told->sys, major(rdev), minor(rdev));
	dir = opendir(path);
	if (!dir)
		return false;
	do
		entry = readdir(dir);
	while (entry && entry->d_name[0] == '.');
	if (entry) {
		snprintf(path, sizeof(path), "%s/class/block/%s/dm/name", told->sys, entry->d_name);
		if (read_line(path, name, sizeof(name)))
			snprintf(out, bytes, "is part of '/dev/mapper/%s'", name);
		else
			snprintf(out, bytes, "is part of '/dev/%s'", entry->d_name);
	}
	closedir(dir);
	return entry;
}

/* --- all of it --- */

static bool find_holder(const struct told *told, dev_t rdev, char *out, size_t bytes)
{
	struct mount mount;

	if (find_mount(told, mounts_device, rdev, &mount)) {
		snprintf(out, bytes, "is mounted on '%s'", mount.point);
		return true;
	}
	if (is_swap(told, rdev)) {
		snprintf(out, bytes, "is used as swap space");
		return true;
	}
	return find_stacked(told, rdev, out, bytes);
}

/* A whole disk is also held by whoever holds one of its partitions. */
static bool find_partition_holder(const struct told *told, dev_t rdev, char *out, size_t bytes)
{
	char path[SYSFS_PATH_MAX], text[64], holder[512];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/dev/block/%u:%u", told->sys, major(rdev), minor(rdev));
	dir = opendir(path);
	if (!dir)
		return false;
	for (unsigned n = 0; !found && n < PARTITIONS_MAX && (entry = readdir(dir)); n++) {
		unsigned major_nr, minor_nr;

		snprintf(path, sizeof(path), "%s/dev/block/%u:%u/%s/partition", told->sys, major(rdev), minor(rdev),
			 entry->d_name);
		if (entry->d_name[0] == '.' || !read_line(path, text, sizeof(text)))
			continue;
		snprintf(path, sizeof(path), "%s/dev/block/%u:%u/%s/dev", told->sys, major(rdev), minor(rdev),
			 entry->d_name);
		if (!read_line(path, text, sizeof(text)) || sscanf(text, "%u:%u", &major_nr, &minor_nr) != 2)
			continue;
		found = find_holder(told, makedev(major_nr, minor_nr), holder, sizeof(holder));
		if (found)
			snprintf(out, bytes, "has the partition '/dev/%s', which %s", entry->d_name, holder);
	}
	closedir(dir);
	return found;
}

static void describe(const struct told *told, dev_t rdev, char *out, size_t bytes)
{
	if (!find_holder(told, rdev, out, bytes) && !find_partition_holder(told, rdev, out, bytes))
		snprintf(out, bytes, "is held by another program, perhaps another Terrace daemon");
}

void ter_holder_describe(dev_t rdev, char *out, size_t bytes)
{
	describe(&kernel, rdev, out, bytes);
}

void ter_holder_describe_in(const char *proc, const char *sys, dev_t rdev, char *out, size_t bytes)
{
	describe(&(struct told){proc, sys}, rdev, out, bytes);
}
