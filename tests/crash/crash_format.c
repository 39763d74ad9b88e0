/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Power cuts while a pool is made: afterwards it is not there and can be made, or it is there and whole. On members that were empty, and on those of an older pool. */
#include "crash.h"

#include <stdio.h>

#include "fs/vfs_calls.h"

#define GOAL 300
#define FORMATS 3 /* of each layout and kind, while states are wanted */

struct format_run {
	struct crash_run run; /* first: what the oracle is handed */
	bool over;            /* an older pool, of this uuid */
	uint8_t old_uuid[16];
	uint64_t done;        /* event after which format had said yes */
};

static void format_main(struct eng *e, void *arg)
{
	(void)arg;
	if (eng_format(e) < 0)
		eng_fail(e, "format: %s", e->error.text);
}

static void old_pool_main(struct eng *e, void *arg)
{
	struct format_run *f = arg;
	static struct ter_fs_status status; /* more than a task of the scheduler has stack for */

	format_main(e, NULL);
	if (e->failed || eng_start(e, false, -1) < 0) {
		eng_fail(e, "the older pool: %s", e->error.text);
		return;
	}
	ter_fs_get_status(e->fs, &status);
	memcpy(f->old_uuid, status.uuid, sizeof(f->old_uuid));
	if (!eng_goes_on(e, 12))
		eng_fail(e, "the older pool cannot be written");
	if (eng_stop(e) < 0)
		eng_fail(e, "the older pool: %s", e->error.text);
}

static int count_entry(void *arg, const struct ter_dirent *d)
{
	*(unsigned *)arg += strcmp(d->name, ".") && strcmp(d->name, "..");
	return 0;
}

static bool whole(struct eng *e, bool is_old, bool only_judge)
{
	unsigned entries = 0;

	if (!eng_fsck_clean(e))
		return false;
	if (ter_vfs_readdir(e->vfs, &root_op, TER_NODE_ROOT, 0, false, count_entry, &entries) < 0)
		return eng_fail(e, "the root cannot be read");
	if (entries != is_old)
		return eng_fail(e, "%u entries in the root of %s pool", entries, is_old ? "an older" : "a fresh");
	if (only_judge)
		return true;
	if (!eng_goes_on(e, 6))
		return false;
	if (eng_stop(e) < 0)
		return eng_fail(e, "stop: %s", e->error.text);
	if (eng_start(e, false, -1) < 0)
		return eng_fail(e, "start after a clean stop: %s", e->error.text);
	return eng_fsck_clean(e);
}

static bool judge(struct crash_run *run, uint64_t at, bool only_judge)
{
	struct format_run *f = (struct format_run *)run;
	struct eng *e = run->e;
	static struct ter_fs_status status; /* more than a task of the scheduler has stack for */

	if (eng_start(e, false, -1) < 0) {
		if (at > f->done)
			return eng_fail(e, "the pool was made, and does not start: %s", e->error.text);
		e->force = true;
		if (eng_format(e) < 0)
			return eng_fail(e, "format once more: %s", e->error.text);
		e->force = false;
		if (eng_start(e, false, -1) < 0)
			return eng_fail(e, "made once more, and does not start: %s", e->error.text);
		return whole(e, false, only_judge);
	}
	ter_fs_get_status(e->fs, &status);
	return whole(e, f->over && !memcmp(status.uuid, f->old_uuid, sizeof(f->old_uuid)), only_judge);
}

static void one_format(struct crash *c, unsigned layout, bool over, unsigned nr, uint64_t budget)
{
	struct format_run f = { .over = over, .run = { .c = c, .judge = judge, .salt = (c->seed * 64 + layout) * 1000003 + nr * 2 + over } };
	struct ter_sim_stats stats;
	struct eng *e;

	snprintf(f.run.name, sizeof(f.run.name), "format,%u,%u,%u", layout, over, nr);
	if (!crash_wanted(c, f.run.name))
		return;
	e = f.run.e = eng_new(&eng_layouts[layout], f.run.salt);
	eng_guard(f.run.name, 60);
	if (over)
		eng_run(e, old_pool_main, &f);
	ter_sim_record(e->sim, true);
	e->force = over;
	if (!e->failed)
		eng_run(e, format_main, NULL);
	e->force = false;
	eng_guard("", 0);
	ter_sim_get_stats(e->sim, &stats);
	f.done = stats.events;
	f.run.trace = ter_sim_trace_take(e->sim);
	if (e->failed) {
		fprintf(stderr, "%s: %s\n", f.run.name, e->why);
		c->failures++;
	} else {
		crash_try_all(&f.run, budget);
	}
	ter_sim_trace_free(f.run.trace);
	eng_free(e);
}

void crash_format(struct crash *c)
{
	const uint64_t before = c->images.nr, goal = c->goal ? c->goal / 50 : GOAL;
	unsigned layout, over, nr;

	if (c->one) {
		if (sscanf(c->one_workload, "format,%u,%u,%u", &layout, &over, &nr) == 3 && layout < eng_layouts_nr)
			one_format(c, layout, over, nr, 0);
		return;
	}
	for (nr = 0; nr < FORMATS && c->images.nr - before < goal; nr++)
		for (layout = 0; layout < eng_layouts_nr; layout++)
			for (over = 0; over < 2 && eng_layouts[layout].lost < 0 && c->failures < c->failures_max; over++)
				one_format(c, layout, over, nr, goal / eng_layouts_nr / 2 + 2);
}
