/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs that find pools: rescan, and create, whose result is found like any other. */
#include <limits.h>
#include <stdio.h>

#include "pools.h"

int td_pools_known_paths(struct td_pools *pools, struct td_paths *paths)
{
	struct td_pool *pool;
	int r = 0;

	ter_list_for_each(pool, &pools->list, link) {
		if (pool->fs || pool->life)
			continue; /* its members are its own business now */
		for (unsigned i = 0; i < TER_DEVS_MAX && r >= 0; i++) {
			if (pool->member[i].path)
				r = td_paths_add(paths, pool->member[i].path);
			if (r >= 0 && pool->member[i].other)
				r = td_paths_add(paths, pool->member[i].other);
		}
	}
	return r;
}

int td_scan_more_paths(struct td_members_file *members, bool system, struct td_paths *paths)
{
	char **list = NULL;
	int nr = td_members_file_list(members, &list), r = nr < 0 ? nr : 0;

	for (int i = 0; i < nr; i++) {
		if (r >= 0)
			r = td_paths_add(paths, list[i]);
		free(list[i]);
	}
	free(list);
	if (r >= 0 && system)
		r = td_paths_add_partitions(paths);
	return r;
}

void td_scan_remember(struct td_members_file *members, const struct td_scan *scan)
{
	const char **add = calloc(scan->nr + 1, sizeof(*add)), **drop = calloc(scan->nr + 1, sizeof(*drop));
	unsigned add_nr = 0, drop_nr = 0;

	for (unsigned i = 0; add && drop && i < scan->nr; i++) {
		const struct td_found *found = &scan->found[i];

		if (found->r >= 0 && found->probe.is_member)
			add[add_nr++] = found->path;
		else if (found->r >= 0 && !found->probe.why_not[0])
			drop[drop_nr++] = found->path; /* readable, and something else */
	}
	/* Hints: without them the members are found again by their paths only. It was logged when the file was opened that it can be read. */
	if (add && drop)
		(void)td_members_file_update(members, add, add_nr, drop, drop_nr, NULL);
	free(add);
	free(drop);
}

/* --- rescan --- */

struct rescan {
	struct td_pools *pools;
	struct td_paths paths;
	struct td_scan scan;
};

static int rescan_run(struct td_job *job, struct ter_error *error)
{
	struct rescan *rescan = job->arg;
	struct td_pools *pools = rescan->pools;
	int r;

	r = td_scan_more_paths(pools->members, pools->system, &rescan->paths);
	if (r >= 0)
		r = td_scan_run(&pools->engine->env, &rescan->paths, &job->ctl, &rescan->scan);
	if (r < 0)
		return ter_fail_errno(error, r, "The search for members failed: %s.", strerror(-r));
	td_scan_remember(pools->members, &rescan->scan);
	return 0;
}

static void rescan_done(struct td_job *job)
{
	struct rescan *rescan = job->arg;

	td_pools_merge(rescan->pools, &rescan->scan);
	rescan->pools->scanned = true;
	td_scan_free(&rescan->scan);
	td_paths_free(&rescan->paths);
	free(rescan);
}

int td_pools_rescan(struct td_pools *pools, uint32_t uid, const char *const *paths, unsigned nr, bool hidden, uint64_t *ret_job, struct ter_error *error)
{
	struct rescan *rescan;
	struct td_job *job;
	int r;

	if (pools->quitting)
		return ter_fail(error, TER_ERR_CANCELLED, "The daemon is ending.");
	rescan = calloc(1, sizeof(*rescan));
	if (!rescan)
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to search.");
	rescan->pools = pools;
	r = td_pools_known_paths(pools, &rescan->paths);
	for (unsigned i = 0; i < nr && r >= 0; i++) {
		if (td_pools_below_mount(pools, paths[i])) {
			r = ter_fail(error, TER_ERR_INVALID_ARGUMENT, "'%s' lies on a mounted Terrace filesystem, which cannot hold members.", paths[i]);
			break;
		}
		r = td_paths_add(&rescan->paths, paths[i]);
	}
	if (r >= 0)
		r = td_job_start(pools->jobs,
				 &(struct td_job_spec){ .operation = "rescan", .description = "Searching for members", .uid = uid, .hidden = hidden,
							.cancelable = true, .one_phase = true, .run = rescan_run, .done = rescan_done, .arg = rescan }, &job, error);
	if (r < 0) {
		td_paths_free(&rescan->paths);
		free(rescan);
		return ter_fail_errno(error, r, "The search for members cannot begin: %s.", strerror(-r));
	}
	if (ret_job)
		*ret_job = job->view.id;
	return 0;
}

/* --- create --- */

struct create {
	struct td_pools *pools;
	struct ter_format_dev dev[TER_DEVS_MAX];
	unsigned nr;
	struct ter_options options;
	char label[TER_LABEL_MAX + 1];
	bool force, dry_run;
	uint8_t uuid[16];
	struct td_scan scan;
};

static void create_free(struct create *create)
{
	for (unsigned i = 0; i < create->nr; i++) {
		free((char *)create->dev[i].path);
		free((char *)create->dev[i].label);
	}
	td_scan_free(&create->scan);
	free(create);
}

static void on_warning(void *arg, const char *sentence)
{
	td_job_line(arg, "warnings", sentence);
}

static int create_run(struct td_job *job, struct ter_error *error)
{
	struct create *create = job->arg;
	const struct ter_env *env = &create->pools->engine->env;
	const struct ter_format_params params = {
		.label = create->label, .options = &create->options, .devs = create->dev, .devs_nr = create->nr, .force = create->force,
		.dry_run = create->dry_run,
	};
	struct td_paths paths = { 0 };
	int r;

	r = ter_fs_format(env, &params, &job->ctl, on_warning, job, create->uuid, error);
	if (r < 0 || create->dry_run)
		return r;
	for (unsigned i = 0; i < create->nr && r >= 0; i++)
		r = td_paths_add(&paths, create->dev[i].path);
	if (r >= 0)
		r = td_scan_run(env, &paths, NULL, &create->scan);
	td_paths_free(&paths);
	if (r < 0)
		return ter_fail_errno(error, r, "The filesystem was made, but looking for it failed: %s. Rescan.", strerror(-r));
	td_scan_remember(create->pools->members, &create->scan);
	return 0;
}

static void create_done(struct td_job *job)
{
	struct create *create = job->arg;

	td_pools_merge(create->pools, &create->scan);
	if (job->r >= 0 && !create->dry_run)
		ter_uuid_format(create->uuid, job->view.result.fs);
	create_free(create);
}

static int copy_devs(struct create *create, const struct ter_bus_create *from)
{
	for (unsigned i = 0; i < from->devs_nr; i++) {
		struct ter_format_dev *dev = &create->dev[i];

		*dev = from->devs[i];
		dev->path = strdup(from->devs[i].path);
		dev->label = from->devs[i].label ? strdup(from->devs[i].label) : NULL;
		create->nr = i + 1;
		if (!dev->path || (from->devs[i].label && !dev->label))
			return -ENOMEM;
	}
	return 0;
}

int td_pools_create(struct td_pools *pools, uint32_t uid, const struct ter_bus_create *params, uint64_t *ret_job, struct ter_error *error)
{
	struct create *create;
	struct td_job *job;
	int r;

	if (pools->quitting)
		return ter_fail(error, TER_ERR_CANCELLED, "The daemon is ending.");
	for (unsigned i = 0; i < params->devs_nr; i++)
		if (td_pools_below_mount(pools, params->devs[i].path))
			return ter_fail(error, TER_ERR_INVALID_ARGUMENT, "'%s' lies on a mounted Terrace filesystem, which cannot hold members.",
					params->devs[i].path);
	create = calloc(1, sizeof(*create));
	if (!create || copy_devs(create, params) < 0) {
		if (create)
			create_free(create);
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to format.");
	}
	create->pools = pools;
	create->options = *params->options;
	create->force = params->force;
	create->dry_run = params->dry_run;
	snprintf(create->label, sizeof(create->label), "%s", params->label);
	r = td_job_start(pools->jobs,
			 &(struct td_job_spec){ .operation = "create", .description = "Making a filesystem", .uid = uid, .cancelable = true, .one_phase = true,
						.run = create_run, .done = create_done, .arg = create }, &job, error);
	if (r < 0) {
		create_free(create);
		return r;
	}
	*ret_job = job->view.id;
	return 0;
}
