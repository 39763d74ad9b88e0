/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking at paths, one after the other. */
#include "scan.h"

#include <limits.h>
#include <stdio.h>

#include "device_info.h"

bool td_paths_has(const struct td_paths *paths, const char *path)
{
	for (unsigned i = 0; i < paths->nr; i++)
		if (strcmp(paths->path[i], path) == 0)
			return true;
	return false;
}

int td_paths_add(struct td_paths *paths, const char *path)
{
	if (td_paths_has(paths, path))
		return 0;
	if (paths->nr == TD_SCAN_MAX)
		return -E2BIG;
	if (paths->nr == paths->room) {
		const unsigned room = paths->room ? paths->room * 2 : 16;
		char **more = reallocarray(paths->path, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		paths->path = more;
		paths->room = room;
	}
	paths->path[paths->nr] = strdup(path);
	if (!paths->path[paths->nr])
		return -ENOMEM;
	paths->nr++;
	return 0;
}

void td_paths_free(struct td_paths *paths)
{
	for (unsigned i = 0; i < paths->nr; i++)
		free(paths->path[i]);
	free(paths->path);
	*paths = (struct td_paths){ 0 };
}

/* Optical drives and floppies spin up when looked at; memory disks hold swap. */
static bool passed_over(const char *name)
{
	return strncmp(name, "sr", 2) == 0 || strncmp(name, "fd", 2) == 0 || strncmp(name, "ram", 3) == 0 || strncmp(name, "zram", 4) == 0;
}

int td_paths_add_partitions(struct td_paths *paths)
{
	FILE *f = fopen("/proc/partitions", "re");
	char line[256], name[128], path[256];
	int r = 0;

	if (!f)
		return -errno;
	while (r >= 0 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, " %*u %*u %*u %127s", name) != 1 || passed_over(name))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", name);
		for (char *p = path + 5; *p; p++)
			if (*p == '!')
				*p = '/'; /* as the kernel writes it, e.g. cciss!c0d0 */
		r = td_paths_add(paths, path);
	}
	fclose(f);
	return r;
}

static void look(const struct ter_env *env, struct td_found *found)
{
	found->r = ter_fs_probe(env, found->path, &found->probe, NULL);
	if (found->r >= 0)
		found->r = ter_bdev_node_of(found->path, &found->node);
	if (found->r >= 0 && found->probe.is_member)
		found->hardware = td_device_info(found->path); /* without memory it is not known */
}

int td_scan_run(const struct ter_env *env, const struct td_paths *paths, const struct ter_job_ctl *job, struct td_scan *scan)
{
	int r = 0;

	*scan = (struct td_scan){ .found = calloc(paths->nr + 1, sizeof(*scan->found)) };
	if (!scan->found)
		return -ENOMEM;
	for (unsigned i = 0; i < paths->nr && r >= 0; i++) {
		struct td_found *found = &scan->found[scan->nr];

		if (job)
			r = job->step(job->arg, "probe", i, paths->nr);
		if (r < 0)
			break;
		found->path = strdup(paths->path[i]);
		if (!found->path)
			return -ENOMEM;
		scan->nr++;
		look(env, found);
	}
	return r;
}

void td_scan_free(struct td_scan *scan)
{
	for (unsigned i = 0; i < scan->nr; i++) {
		ter_probe_free(&scan->found[i].probe);
		free(scan->found[i].path);
		free(scan->found[i].hardware);
	}
	free(scan->found);
	*scan = (struct td_scan){ 0 };
}
