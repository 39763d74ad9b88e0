/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The prober: which of many paths are members. Waits for devices: for job threads only. */
#ifndef TD_SCAN_H
#define TD_SCAN_H

#include "dbus/bus.h"
#include "io/io.h"
#include "super/fs.h"

#define TD_SCAN_MAX 4096 /* paths looked at in one scan */

/* Paths, each once. */
struct td_paths {
	char **path;
	unsigned nr, room;
};
int td_paths_add(struct td_paths *paths, const char *path); /* -ENOMEM, -E2BIG */
bool td_paths_has(const struct td_paths *paths, const char *path);
void td_paths_free(struct td_paths *paths);
/* Block devices of /proc/partitions that can be members. */
int td_paths_add_partitions(struct td_paths *paths);

struct td_found {
	char *path;
	struct ter_bdev_node node;
	int r; /* negative: it could not be looked at */
	struct ter_probe probe;
	struct ter_bus_hardware *hardware; /* of a member; NULL otherwise */
};
struct td_scan {
	struct td_found *found;
	unsigned nr;
};
/* Every path of @paths has its row. Stops early with -ECANCELED when @job says so; what was found until then stands in @scan. */
int td_scan_run(const struct ter_env *env, const struct td_paths *paths, const struct ter_job_ctl *job, struct td_scan *scan);
void td_scan_free(struct td_scan *scan);

#endif
