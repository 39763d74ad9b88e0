/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that lost data, for the bus: listed from the pool's own record of them, and forgotten one at a time. */
#include <stdio.h>
#include <time.h>

#include "fs/vfs.h"
#include "fuse/mount_fuse.h"
#include "pools.h"

#define LOOK_AFTER_S 10 /* files met damaged have been noted by then */
#define LOOK_AGAIN_S 30

/* --- are there some? --- */

struct look {
	struct td_pools *pools;
	char uuid[TER_UUID_TEXT_BYTES];
	struct td_pool *pool;
	struct ter_fs *fs;
	bool found;
};

static gboolean on_look_timer(gpointer data)
{
	struct td_pool *pool = data;

	pool->look_timer = 0;
	td_pool_look_for_damage(pool);
	return G_SOURCE_REMOVE;
}

/* One that is there already comes sooner. */
static void look_after(struct td_pool *pool, unsigned seconds)
{
	if (!pool->look_timer)
		pool->look_timer = g_timeout_add_seconds(seconds, on_look_timer, pool);
}

static int look_run(struct td_job *job, struct ter_error *error)
{
	struct look *look = job->arg;
	struct ter_damage damage;
	const int r = ter_vfs_next_damaged(ter_fs_vfs(look->fs), 0, &damage);

	(void)error;
	look->found = r >= 0;
	td_pool_unuse(look->pool);
	return r == -ENOENT ? 0 : r;
}

static void look_done(struct td_job *job)
{
	struct look *look = job->arg;
	struct td_pool *pool = td_pools_by_text(look->pools, look->uuid); /* it may have been stopped, and have gone */

	if (pool)
		pool->looking = false;
	if (pool && pool->fs == look->fs && pool->sample) {
		/* A pool that is not written to keeps no record: what was met stays true. */
		if (job->r >= 0)
			pool->damaged = look->found || (pool->damaged && pool->sample->status.access != TER_ACCESS_RW);
		if (pool->damaged)
			look_after(pool, LOOK_AGAIN_S);
		td_pool_publish(pool);
	}
	free(look);
}

void td_pool_look_for_damage(struct td_pool *pool)
{
	struct look *look;

	if (pool->looking || !pool->fs)
		return;
	if (td_pool_use(pool, NULL) < 0) {
		look_after(pool, LOOK_AGAIN_S); /* its mode is being changed */
		return;
	}
	look = calloc(1, sizeof(*look));
	if (look) {
		*look = (struct look){ .pools = pool->pools, .pool = pool, .fs = pool->fs };
		snprintf(look->uuid, sizeof(look->uuid), "%s", pool->text);
		pool->looking = td_job_start(pool->pools->jobs,
					     &(struct td_job_spec){ .operation = "look-for-damage", .fs = pool->text, .hidden = true, .run = look_run,
								    .done = look_done, .arg = look }, NULL, NULL) >= 0;
	}
	if (pool->looking)
		return;
	free(look);
	td_pool_unuse(pool);
	look_after(pool, LOOK_AGAIN_S); /* memory or threads are short */
}

void td_pool_damage_told(struct td_pool *pool)
{
	if (!pool->fs)
		return;
	look_after(pool, LOOK_AFTER_S);
	if (pool->damaged)
		return;
	pool->damaged = true;
	td_pool_publish(pool);
}

void td_pool_forget_damage(struct td_pool *pool)
{
	if (pool->look_timer)
		g_source_remove(pool->look_timer);
	pool->look_timer = 0;
	pool->damaged = false;
}

/* --- which? --- */

struct asking {
	struct td_pools *pools;
	char uuid[TER_UUID_TEXT_BYTES];
	struct td_pool *pool;
	struct ter_fs *fs;
	struct ter_bus_call *call;
	uint64_t inum; /* list: from here on */
	bool clear;
	struct ter_bus_damaged *rows;
	unsigned limit, nr;
	uint64_t next_inum;
};

static void fill_row(struct asking *a, const struct ter_damage *damage)
{
	struct ter_bus_damaged *row = &a->rows[a->nr++];
	const time_t first = (time_t)(damage->first_ns / 1000000000);
	char when[32] = "";
	struct tm tm;

	row->node = TER_NODE(1, damage->inum);
	if (ter_vfs_path_of(ter_fs_vfs(a->fs), damage->inum, row->path, sizeof(row->path)) < 0)
		row->path[0] = 0;
	if (!damage->times) {
		snprintf(row->what, sizeof(row->what), "data was lost");
		return;
	}
	if (gmtime_r(&first, &tm))
		strftime(when, sizeof(when), ", first on %F %T UTC", &tm);
	snprintf(row->what, sizeof(row->what), "no good copy of byte %llu%s", (unsigned long long)damage->offset_bytes, when);
}

static int list(struct asking *a)
{
	struct ter_damage damage;
	int r;

	for (;;) {
		r = ter_vfs_next_damaged(ter_fs_vfs(a->fs), a->inum, &damage);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
		if (a->nr == a->limit) {
			a->next_inum = damage.inum;
			return 0;
		}
		fill_row(a, &damage);
		a->inum = damage.inum + 1;
	}
}

static int run(struct td_job *job, struct ter_error *error)
{
	struct asking *a = job->arg;
	int r;

	if (a->clear) {
		r = ter_vfs_clear_damage(ter_fs_vfs(a->fs), a->inum);
		if (r == -EROFS)
			ter_fail(error, TER_ERR_READ_ONLY, "The filesystem is read-only.");
		else if (r >= 0)
			r = ter_fs_sync(a->fs);
	} else {
		r = list(a);
	}
	td_pool_unuse(a->pool);
	return r < 0 ? ter_fail_errno(error, r, "The record of damaged files cannot be %s: %s.", a->clear ? "changed" : "read", strerror(-r)) : 0;
}

static void asking_free(struct asking *a)
{
	free(a->rows);
	free(a);
}

static void done(struct td_job *job)
{
	struct asking *a = job->arg;
	struct td_pool *pool = td_pools_by_text(a->pools, a->uuid); /* it may have been stopped, and have gone */

	if (a->clear || job->error.kind != TER_ERR_NONE)
		ter_bus_answer(a->call, &job->error);
	else
		ter_bus_answer_damaged(a->call, a->rows, a->nr, a->next_inum);
	if (a->clear && pool)
		td_pool_look_for_damage(pool);
	asking_free(a);
}

static void start(const struct asking *what)
{
	struct asking *a = malloc(sizeof(*a));
	struct ter_error error = { 0 };
	int r = 0;

	if (a) {
		*a = *what;
		a->rows = a->limit ? calloc(a->limit, sizeof(*a->rows)) : NULL;
	}
	if (!a || (a->limit && !a->rows))
		r = ter_fail(&error, TER_ERR_NO_MEMORY, "Not enough memory for this call.");
	if (r >= 0)
		r = td_pool_use(a->pool, &error);
	if (r >= 0) {
		a->fs = a->pool->fs;
		a->pools = a->pool->pools;
		snprintf(a->uuid, sizeof(a->uuid), "%s", a->pool->text);
		r = td_job_start(a->pool->pools->jobs,
				 &(struct td_job_spec){ .operation = "damaged", .fs = a->pool->text, .hidden = true, .run = run, .done = done, .arg = a },
				 NULL, &error);
		if (r < 0)
			td_pool_unuse(a->pool);
	}
	if (r < 0) {
		ter_bus_answer(what->call, &error);
		if (a)
			asking_free(a);
	}
}

void td_pool_list_damaged(struct td_pool *pool, uint64_t from_inum, unsigned limit, struct ter_bus_call *call)
{
	start(&(struct asking){ .pool = pool, .call = call, .inum = from_inum, .limit = limit });
}

void td_pool_clear_damage(struct td_pool *pool, unsigned dev_major, unsigned dev_minor, uint64_t inum, struct ter_bus_call *call)
{
	struct ter_error error = { 0 };

	if (!pool->mount || !td_mount_is(pool->mount->where, dev_major, dev_minor)) {
		ter_fail(&error, TER_ERR_INVALID_ARGUMENT, "The file is not one on this filesystem's mount.");
		ter_bus_answer(call, &error);
		return;
	}
	start(&(struct asking){ .pool = pool, .call = call, .inum = inum, .clear = true });
}
