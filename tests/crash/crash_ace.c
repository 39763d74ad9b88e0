/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Short workloads, all of them: one operation and two, and a seeded sample of three, on a small tree, each with something that makes it durable at its end
 *
 * (What ACE of CrashMonkey does; three operations on a few files are enough to show most bugs that crashes ever showed.)
 */
#include "crash.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>

#define GOAL 24000
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ONE_IN 12 /* of the workloads; each is ten times as slow */
#else
#define ONE_IN 1
#endif
#define THREES 250      /* of three operations, each round */
#define ROUNDS_MAX 1000 /* each with other dice */
#define STOP_ONE_IN 4   /* the recording goes on through a clean stop */
#define BETWEEN_ONE_IN 4

/* Root holds A, B, foo; A holds bar. NULL: not there at the moment. */
static struct tm_node *at_path(struct eng *e, const char *path)
{
	struct tm_node *node = e->tm->root;
	char part[64];

	for (const char *p = path; node && *p; p += *p == '/') {
		size_t n = strcspn(p, "/");

		snprintf(part, sizeof(part), "%.*s", (int)n, p);
		node = S_ISDIR(node->mode) ? tm_lookup(node, part) : NULL;
		p += n;
	}
	return node;
}

static struct tm_node *parent_of(struct eng *e, const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	char dir[64];
	struct tm_node *node;

	*ret_name = slash ? slash + 1 : path;
	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 0, path);
	node = at_path(e, dir);
	return node && S_ISDIR(node->mode) ? node : NULL;
}

enum ace_kind {
	ACE_CREATE, ACE_MKDIR, ACE_SYMLINK, ACE_WRITE, ACE_APPEND, ACE_SYNC_WRITE, ACE_TRUNCATE, ACE_LINK, ACE_UNLINK, ACE_RMDIR, ACE_RENAME, ACE_EXCHANGE,
	ACE_SETXATTR, ACE_REMOVEXATTR, ACE_ALLOC, ACE_ALLOC_GROW, ACE_PUNCH, ACE_ZERO, ACE_CHMOD, ACE_FSYNC, ACE_FDATASYNC, ACE_SYNC, ACE_WAIT, ACE_READ_ONLY,
};
static const struct ace_op {
	const char *name;
	enum ace_kind kind;
	const char *path, *to;
	uint64_t from, bytes;
} ace_ops[] = {
	{ "create", ACE_CREATE, "bar" },
	{ "create in a directory", ACE_CREATE, "A/foo" },
	{ "mkdir", ACE_MKDIR, "C" },
	{ "mkdir in a directory", ACE_MKDIR, "A/D" },
	{ "symlink", ACE_SYMLINK, "sym", "foo" },
	{ "overwrite, not aligned", ACE_WRITE, "foo", NULL, 100, 3000 },
	{ "overwrite and extend", ACE_WRITE, "foo", NULL, 4096, 8192 },
	{ "write the new", ACE_WRITE, "bar", NULL, 0, 5000 },
	{ "write beyond the end", ACE_WRITE, "foo", NULL, 60000, 1000 },
	{ "write much", ACE_WRITE, "A/bar", NULL, 0, 70000 },
	{ "append", ACE_APPEND, "foo", NULL, 0, 5000 },
	{ "append a little", ACE_APPEND, "A/bar", NULL, 0, 100 },
	{ "O_SYNC write", ACE_SYNC_WRITE, "foo", NULL, 2000, 4000 },
	{ "truncate to nothing", ACE_TRUNCATE, "foo", NULL, 0 },
	{ "truncate", ACE_TRUNCATE, "foo", NULL, 3333 },
	{ "truncate upwards", ACE_TRUNCATE, "foo", NULL, 20000 },
	{ "link", ACE_LINK, "foo", "bar" },
	{ "link into a directory", ACE_LINK, "A/bar", "B/bar" },
	{ "unlink", ACE_UNLINK, "foo" },
	{ "unlink in a directory", ACE_UNLINK, "A/bar" },
	{ "rename", ACE_RENAME, "foo", "bar" },
	{ "rename over", ACE_RENAME, "foo", "A/bar" },
	{ "rename over, upwards", ACE_RENAME, "A/bar", "foo" },
	{ "rename across", ACE_RENAME, "A/bar", "B/bar" },
	{ "rename a directory over an empty one", ACE_RENAME, "A", "B" },
	{ "rename a directory", ACE_RENAME, "A", "C" },
	{ "rename a directory into another", ACE_RENAME, "B", "A/B" },
	{ "exchange", ACE_EXCHANGE, "foo", "A/bar" },
	{ "rmdir", ACE_RMDIR, "B" },
	{ "rmdir of a full one", ACE_RMDIR, "A" },
	{ "setxattr", ACE_SETXATTR, "foo", NULL, 0, 20 },
	{ "setxattr of a directory", ACE_SETXATTR, "A", NULL, 1, 1500 },
	{ "removexattr", ACE_REMOVEXATTR, "foo", NULL, 0 },
	{ "allocate beyond the end", ACE_ALLOC, "foo", NULL, 8000, 22000 },
	{ "allocate and extend", ACE_ALLOC_GROW, "foo", NULL, 8000, 22000 },
	{ "punch", ACE_PUNCH, "foo", NULL, 2000, 7000 },
	{ "zero", ACE_ZERO, "foo", NULL, 4096, 4096 },
	{ "chmod", ACE_CHMOD, "foo" },
	{ "fsync", ACE_FSYNC, "foo" },
	{ "fdatasync", ACE_FDATASYNC, "foo" },
	{ "fsync of a directory", ACE_FSYNC, "A" },
	{ "fsync of the root", ACE_FSYNC, "" },
	{ "sync", ACE_SYNC, "" },
	{ "write-back's time", ACE_WAIT, "", NULL, 700 },
	{ "the commit interval", ACE_WAIT, "", NULL, 3000 },
	{ "read-only and back", ACE_READ_ONLY, "" },
};
#define OPS_NR ((unsigned)ARRAY_SIZE(ace_ops))

/* What may be between and has to be at the end. */
enum ace_point { POINT_FSYNC, POINT_FDATASYNC, POINT_FSYNC_DIR, POINT_SYNC, POINTS_NR, POINT_NONE };

static bool do_op(struct eng *e, const struct ace_op *op)
{
	const char *name, *to_name = NULL;
	struct tm_node *node = at_path(e, op->path), *dir = parent_of(e, op->path, &name), *to = op->to ? parent_of(e, op->to, &to_name) : NULL;
	const bool regular = node && S_ISREG(node->mode);
	const uint64_t end = ter_min(op->from + op->bytes, (uint64_t)TM_FILE_MAX);

	switch (op->kind) {
	case ACE_CREATE:
		return !dir || eng_do_create(e, dir, name, S_IFREG | 0644, NULL, NULL);
	case ACE_MKDIR:
		return !dir || eng_do_create(e, dir, name, S_IFDIR | 0755, NULL, NULL);
	case ACE_SYMLINK:
		return !dir || eng_do_create(e, dir, name, S_IFLNK | 0777, op->to, NULL);
	case ACE_WRITE:
		return !regular || eng_do_write(e, node, op->from, (unsigned)(end - op->from), false);
	case ACE_APPEND:
		return !regular || node->size + op->bytes > TM_FILE_MAX || eng_do_write(e, node, node->size, (unsigned)op->bytes, true);
	case ACE_SYNC_WRITE:
		return !regular || (eng_do_write(e, node, op->from, (unsigned)op->bytes, false) && eng_do_fsync(e, node, false));
	case ACE_TRUNCATE:
		return !regular || eng_do_truncate(e, node, op->from);
	case ACE_LINK:
		return !regular || !to || eng_do_link(e, node, to, to_name);
	case ACE_UNLINK:
		return !dir || eng_do_unlink(e, dir, name, false);
	case ACE_RMDIR:
		return !dir || eng_do_unlink(e, dir, name, true);
	case ACE_RENAME:
	case ACE_EXCHANGE:
		return !dir || !to || eng_do_rename(e, dir, name, to, to_name, op->kind == ACE_EXCHANGE ? RENAME_EXCHANGE : 0);
	case ACE_SETXATTR:
		return !node || eng_do_setxattr(e, node, (unsigned)op->from, op->bytes, 4711);
	case ACE_REMOVEXATTR:
		return !node || eng_do_removexattr(e, node, (unsigned)op->from);
	case ACE_ALLOC:
		return !regular || eng_do_fallocate(e, node, FALLOC_FL_KEEP_SIZE, op->from, end);
	case ACE_ALLOC_GROW:
		return !regular || eng_do_fallocate(e, node, 0, op->from, end);
	case ACE_PUNCH:
		return !regular || eng_do_fallocate(e, node, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, op->from, end);
	case ACE_ZERO:
		return !regular || eng_do_fallocate(e, node, FALLOC_FL_ZERO_RANGE, op->from, end);
	case ACE_CHMOD:
		return !node || eng_do_chmod(e, node, 0600, 7);
	case ACE_FSYNC:
		return !node || eng_do_fsync(e, node, false);
	case ACE_FDATASYNC:
		return !node || eng_do_fsync(e, node, true);
	case ACE_SYNC:
		return eng_do_sync(e);
	case ACE_WAIT:
		return eng_do_wait(e, op->from);
	case ACE_READ_ONLY:
		return eng_do_read_only(e);
	}
	return false;
}

static bool do_point(struct eng *e, const struct ace_op *op, enum ace_point point)
{
	static const char *const anybody[] = { "foo", "A/bar", "bar", "A", "" };
	struct tm_node *node = op->to ? at_path(e, op->to) : NULL, *dir;
	const char *name;

	node = node ? node : at_path(e, op->path);
	for (unsigned i = 0; !node && i < ARRAY_SIZE(anybody); i++)
		node = at_path(e, anybody[i]);
	if (S_ISLNK(node->mode))
		node = e->tm->root;
	dir = parent_of(e, op->to && at_path(e, op->to) ? op->to : op->path, &name);
	switch (point) {
	case POINT_FSYNC:
	case POINT_FDATASYNC:
		return eng_do_fsync(e, node, point == POINT_FDATASYNC);
	case POINT_FSYNC_DIR:
		return eng_do_fsync(e, dir ? dir : e->tm->root, false);
	case POINT_SYNC:
		return eng_do_sync(e);
	default:
		return true;
	}
}

/* --- a workload --- */

struct workload {
	unsigned nr, op[3];
	enum ace_point point[3]; /* after each */
	bool stop;
};

static bool prepare(struct eng *e)
{
	struct tm_node *root = e->tm->root, *a, *b, *foo, *bar;

	return eng_op_begin(e, "preparing") && eng_do_create(e, root, "A", S_IFDIR | 0755, NULL, &a) && eng_do_create(e, root, "B", S_IFDIR | 0755, NULL, &b) &&
	       eng_do_create(e, root, "foo", S_IFREG | 0644, NULL, &foo) && eng_do_create(e, a, "bar", S_IFREG | 0644, NULL, &bar) &&
	       eng_do_write(e, foo, 0, 10000, false) && eng_do_write(e, bar, 0, 300, false) && eng_do_setxattr(e, foo, 0, 30, 1) &&
	       eng_op_end(e, true) && eng_sync_all(e);
}

static void format_main(struct eng *e, void *arg)
{
	(void)arg;
	if (eng_format(e) < 0)
		eng_fail(e, "format: %s", e->error.text);
}

static bool do_all(struct eng *e, const struct workload *w)
{
	for (unsigned i = 0; i < w->nr; i++) {
		const struct ace_op *op = &ace_ops[w->op[i]];

		if (!eng_op_begin(e, op->name) || !eng_op_end(e, do_op(e, op)))
			return false;
		if (w->point[i] != POINT_NONE && (!eng_op_begin(e, "making durable") || !eng_op_end(e, do_point(e, op, w->point[i]))))
			return false;
	}
	return true;
}

struct ace_run {
	const struct workload *w;
	struct ter_sim_trace *trace;
};

static void workload_main(struct eng *e, void *arg)
{
	struct ace_run *a = arg;

	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	if (eng_model_root(e) && prepare(e)) {
		ter_sim_record(e->sim, true);
		if (do_all(e, a->w) && eng_compare(e) && !a->w->stop)
			a->trace = ter_sim_trace_take(e->sim);
	}
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
	if (!e->failed)
		eng_stopped(e);
	if (!a->trace)
		a->trace = ter_sim_trace_take(e->sim);
}

struct layout_rig {
	struct eng *e;
	struct ter_sim_snapshot *fresh; /* just made */
};

static void run_workload(struct crash *c, struct layout_rig *rig, const struct workload *w, uint64_t budget, uint64_t salt, const char *name)
{
	struct crash_run run = { .c = c, .e = rig->e, .salt = salt };
	struct ace_run a = { .w = w };
	struct eng_machine before;
	struct eng *e = rig->e;

	snprintf(run.name, sizeof(run.name), "%s", name);
	e->seed = c->seed;
	e->rnd = salt;
	eng_guard(name, 60);
	eng_machine_enter(e, salt, &before);
	ter_sim_restore(e->sim, rig->fresh, NULL);
	eng_model_new(e);
	eng_run(e, workload_main, &a);
	eng_guard("", 0);
	if (e->failed) {
		fprintf(stderr, "TER_TEST_SEED=%llu %s: the workload itself, %s: %s\n", (unsigned long long)c->seed, name, e->last_op, e->why);
		e->failed = false;
		c->failures++;
	} else {
		run.trace = a.trace;
		crash_try_all(&run, budget);
	}
	ter_sim_trace_free(a.trace);
	eng_model_free(e);
	e->judge_times = false;
	eng_machine_leave(e, &before);
}

static uint64_t id_of(const struct workload *w)
{
	uint64_t id = w->stop;

	for (unsigned i = 0; i < w->nr; i++)
		id = (id * (OPS_NR + 1) + w->op[i]) * 8 + w->point[i];
	return id * 4 + w->nr;
}

static void one_workload(struct crash *c, struct layout_rig *rigs, unsigned layout, unsigned round, const struct workload *w, uint64_t budget)
{
	struct layout_rig *rig = &rigs[layout];
	char name[CRASH_TEXT_MAX];
	int n = snprintf(name, sizeof(name), "ace,%u,%u,%u", layout, round, w->stop);
	uint64_t salt = (c->seed + round) * 1000003 + id_of(w) * 8 + layout;

	for (unsigned i = 0; i < w->nr; i++)
		n += snprintf(name + n, sizeof(name) - (size_t)n, ",%u.%u", w->op[i], w->point[i]);
	if (!crash_wanted(c, name))
		return;
	if (!rig->e) {
		rig->e = eng_new(&eng_layouts[layout], c->seed + layout);
		eng_run(rig->e, format_main, NULL);
		if (rig->e->failed) {
			fprintf(stderr, "%s\n", rig->e->why);
			exit(1);
		}
		rig->fresh = ter_sim_snapshot_take(rig->e->sim);
	}
	run_workload(c, rig, w, budget, salt, name);
}

static enum ace_point between(uint64_t *dice)
{
	return crash_draw(dice, BETWEEN_ONE_IN) ? POINT_NONE : (enum ace_point)crash_draw(dice, POINTS_NR);
}

/* Every workload once, on one layout after the other. */
static void one_round(struct crash *c, struct layout_rig *rigs, unsigned round)
{
	const unsigned ones = OPS_NR * POINTS_NR, twos = OPS_NR * OPS_NR, all = ones + twos + THREES;
	const uint64_t before = c->images.nr;
	uint64_t dice = c->seed * 31 + round;

	for (unsigned i = 0; i < all && c->failures < c->failures_max; i++) {
		const unsigned layout = (unsigned)((i + i / OPS_NR + round + c->seed) % eng_layouts_nr);
		struct workload w = { .stop = crash_draw(&dice, STOP_ONE_IN) == 0 };
		uint64_t due = c->goal - before, budget;

		if (i < ones) {
			w.nr = 1;
			w.op[0] = i % OPS_NR;
			w.point[0] = (enum ace_point)(i / OPS_NR);
		} else if (i < ones + twos) {
			w.nr = 2;
			w.op[0] = (i - ones) % OPS_NR;
			w.op[1] = (i - ones) / OPS_NR;
			w.point[0] = between(&dice);
			w.point[1] = (enum ace_point)crash_draw(&dice, POINTS_NR);
		} else {
			w.nr = 3;
			for (unsigned k = 0; k < 3; k++) {
				w.op[k] = (unsigned)crash_draw(&dice, OPS_NR);
				w.point[k] = k < 2 ? between(&dice) : (enum ace_point)crash_draw(&dice, POINTS_NR);
			}
		}
		if (!c->one && (i + round) % ONE_IN)
			continue;
		budget = due * (i + 1) / all;
		budget = budget > c->images.nr - before ? budget - (c->images.nr - before) : 0;
		one_workload(c, rigs, layout, round, &w, ter_max(budget, (uint64_t)2));
	}
}

void crash_ace(struct crash *c)
{
	struct layout_rig rigs[16] = { 0 };

	assert(eng_layouts_nr <= ARRAY_SIZE(rigs));
	if (!c->goal)
		c->goal = GOAL / ONE_IN;
	if (c->one) { /* ace,layout,round,stop,op.point... */
		struct workload w = { 0 };
		unsigned layout, round, stop, point;
		int n = 0;

		if (sscanf(c->one_workload, "ace,%u,%u,%u%n", &layout, &round, &stop, &n) >= 3 && layout < eng_layouts_nr) {
			const char *p = c->one_workload + n;

			w.stop = stop;
			for (; w.nr < 3 && sscanf(p, ",%u.%u%n", &w.op[w.nr], &point, &n) >= 2 && w.op[w.nr] < OPS_NR; p += n)
				w.point[w.nr++] = (enum ace_point)point;
			one_workload(c, rigs, layout, round, &w, 0);
		}
	} else {
		for (unsigned round = 0; (!round || !crash_enough(c)) && round < ROUNDS_MAX; round++)
			one_round(c, rigs, round);
	}
	for (unsigned i = 0; i < eng_layouts_nr; i++) {
		ter_sim_snapshot_free(rigs[i].fresh);
		if (rigs[i].e)
			eng_free(rigs[i].e);
	}
}
