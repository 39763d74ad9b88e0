/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One life of a pool: open, judge, check, work on while the control thread changes what can be changed, until told to stop or killed. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/plugins/plugins.h"
#include "stress.h"
#include "util/fault.h"

struct child {
	struct ter_plugins *plugins;
	struct ter_env env;
	struct ter_fs *fs;
	struct ter_vfs *vfs;
	struct ter_error error;
	uint64_t rnd;
};

static void on_event(void *arg, struct ter_fs *fs, const struct ter_fs_event *event)
{
	(void)arg;
	(void)fs;
	if (event->kind == TER_EVENT_EMERGENCY && !atomic_load(&st->faulty) && atomic_load(&st->request) != ST_EMERGENCY)
		st_finding("emergency read-only with no fault armed: %s", event->text);
	if (event->kind == TER_EVENT_DEGRADED_WRITE)
		atomic_fetch_add(&st->degraded, 1);
}

static int step(void *arg, const char *phase, uint64_t nr, uint64_t total)
{
	(void)arg;
	(void)phase;
	(void)nr;
	(void)total;
	atomic_fetch_add(&st->ticks, 1);
	return 0;
}
static const struct ter_job_ctl job = { .step = step };

/* --- tasks that can be asked where they are --- */

struct start {
	void (*fn)(void *arg);
	void *arg;
};
static const struct ter_exec_ops *plain_ops;
static struct ter_exec_ops ops;

static void start_task(void *arg)
{
	const struct start s = *(struct start *)arg;
	sigset_t set;

	free(arg);
	sigemptyset(&set);
	sigaddset(&set, ST_DUMP_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	s.fn(s.arg);
}

static int spawn(struct ter_exec *exec, const char *name, void (*fn)(void *arg), void *arg, struct ter_task **ret_task)
{
	struct start *s = malloc(sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct start){ fn, arg };
	r = plain_ops->spawn(exec, name, start_task, s, ret_task);
	if (r < 0)
		free(s);
	return r;
}

static struct ter_exec *new_exec(void)
{
	struct ter_exec *exec = ter_exec_new_threads();

	if (!exec)
		abort();
	plain_ops = exec->ops;
	ops = *plain_ops;
	ops.spawn = spawn;
	exec->ops = &ops;
	return exec;
}

/* --- the engine's environment --- */

static void begin(struct child *c)
{
	char **dirs;

	c->rnd = st->round.seed;
	if (ter_plugins_default_dirs(true, &dirs) < 0 || ter_plugins_load(&c->plugins, (const char *const *)dirs, NULL, NULL) < 0)
		abort();
	ter_plugins_free_dirs(dirs);
	c->env.exec = new_exec();
	c->env.codecs = ter_plugins_codecs(c->plugins);
	if (!ter_codecs_by_name(c->env.codecs, TERRACE_CHECKSUM, "crc32c"))
		st_finding("there is no plugin for crc32c: TERRACE_PLUGIN_PATH says where they are");
	if (ter_io_new(c->env.exec, st->round.uring ? NULL : "threads", &c->env.io, &c->error) < 0)
		st_finding("I/O cannot begin: %s", c->error.text);
}

static bool has(const struct child *c, enum terrace_kind kind, const char *name)
{
	return ter_codecs_by_name(c->env.codecs, kind, name) != NULL;
}

/* --- format --- */

static void format(struct child *c)
{
	const struct st_pool *p = &st->pool;
	struct ter_format_dev devs[ST_MEMBERS_MAX] = { 0 };
	struct ter_options o;
	struct ter_format_params params = { .label = "stress", .options = &o, .devs = devs, .devs_nr = p->members, .force = true };
	uint8_t uuid[16];

	ter_options_default(&o);
	o.block_size = p->block;
	o.bucket_size = p->bucket;
	o.btree_node_size = p->node;
	o.journal_size = p->journal;
	o.journal_flush_ms = p->journal_ms;
	o.metadata_replicas = o.data_replicas = 2;
	o.memory_limit = TER_MIB(64);
	for (unsigned i = 0; i < p->members; i++)
		devs[i] = (struct ter_format_dev){ .path = p->path[i], .durability = -1, .discard = -1 };
	if (ter_fs_format(&c->env, &params, &job, NULL, NULL, uuid, &c->error) < 0)
		st_finding("format: %s", c->error.text);
}

static void open_and_start(struct child *c, bool read_only)
{
	const char *paths[ST_MEMBERS_MAX];
	struct ter_open_params params = { .paths = paths, .degraded = st->round.absent ? TER_DEGRADED_YES : -1, .read_only = read_only };

	for (unsigned i = 0; i < st->pool.members; i++)
		if (!st->round.absent || i != st->pool.victim)
			paths[params.paths_nr++] = st->pool.path[i];
	st_doing("open");
	if (ter_fs_open(&c->env, &params, on_event, NULL, &c->fs, &c->error) < 0)
		st_finding("open: %s", c->error.text);
	st_doing("start");
	if (ter_fs_start(c->fs, &job, &c->error) < 0)
		st_finding("start: %s", c->error.text);
	c->vfs = ter_fs_vfs(c->fs);
}

static void make_dirs(struct child *c)
{
	char name[16];
	struct ter_attr attr;

	for (unsigned i = 0; i < st->pool.threads + ST_SHARED_DIRS; i++) {
		const bool own = i < st->pool.threads;

		snprintf(name, sizeof(name), own ? "t%u" : "s%u", own ? i : i - st->pool.threads);
		if (ter_vfs_create(c->vfs, &st_root, TER_NODE_ROOT, name, S_IFDIR | 0755, 0, NULL, &attr) < 0)
			st_finding("mkdir in a fresh pool");
		if (own) {
			struct st_thread *t = &st->thread[i];

			t->m.obj[0] = (struct st_obj){ .node = attr.node, .kind = ST_DIR, .mode = 0755 };
			t->first_hash = st_model_hash(&t->m);
		}
	}
	if (ter_fs_sync(c->fs) < 0)
		st_finding("sync of a fresh pool");
}

/* --- checks --- */

/* While others work, a sentence counts when a second check says it again (vfs.h). */
#define SENTENCES_MAX 64
struct sentences {
	char text[SENTENCES_MAX][200];
	unsigned nr, again;
	struct sentences *before;
};

static void on_found(void *arg, const char *pass, const char *sentence)
{
	struct sentences *s = arg;
	char text[200];

	snprintf(text, sizeof(text), "%s: %s", pass, sentence);
	for (unsigned i = 0; s->before && i < s->before->nr; i++)
		if (!strcmp(s->before->text[i], text) && ++s->again < 20)
			fprintf(stderr, "  %s\n", text);
	if (s->nr < SENTENCES_MAX)
		memcpy(s->text[s->nr++], text, sizeof(text));
}

static void check(struct child *c, const char *when)
{
	struct sentences *s = calloc(2, sizeof(*s));
	int64_t r = 1;

	if (!s)
		abort();
	s[1].before = &s[0];
	for (unsigned i = 0; i < 2 && r > 0; i++) {
		const struct ter_fsck_report report = { .found = on_found, .arg = &s[i] };

		st_doing("check %s", when);
		r = ter_fs_fsck(c->fs, &report, &job, &c->error);
	}
	if (r < 0 && !atomic_load(&st->faulty))
		st_finding("check %s: %s", when, c->error.text);
	if (s[1].again)
		st_finding("check %s: %u contradictions, twice", when, s[1].again);
	if (s[0].nr && (atomic_load(&st->quiet) || !atomic_load(&st->running)))
		st_finding("check %s: '%s', with nobody at work", when, s[0].text[0]);
	free(s);
	atomic_fetch_add(&st->fscks, 1);
}

static enum ter_access access_now(struct child *c)
{
	struct ter_fs_status *s = malloc(sizeof(*s));
	enum ter_access a;

	if (!s)
		abort();
	ter_fs_get_status(c->fs, s);
	a = s->access;
	free(s);
	return a;
}

static void judge(struct child *c)
{
	struct ter_fs_status *s = malloc(sizeof(*s));

	if (!s)
		abort();
	ter_fs_get_status(c->fs, s);
	if (s->access != TER_ACCESS_RW)
		st_finding("started %s: %s %s", ter_access_names[s->access], s->why_read_only, s->emergency_reason);
	if (strstr(s->recovery, "replayed"))
		atomic_fetch_add(&st->replays, 1);
	free(s);
	st_doing("judging");
	st_judge_all(c->vfs);
	st_wild_check(c->vfs);
	st_filler_check(c->vfs);
}

/* --- threads --- */

struct worker {
	pthread_t thread;
	struct st_thread *t;
	struct child *c;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&st->quiet)) {
		atomic_fetch_add(&w->t->attempts, 1);
		if (st_chance(&w->t->rnd, 20))
			st_wild_step(w->t, w->c->vfs);
		else
			st_own_step(w->t, w->c->vfs);
		if (atomic_load(&st->ro))
			st_sleep_ms(1);
	}
	snprintf(w->t->doing, sizeof(w->t->doing), "nothing: ended");
	return NULL;
}

/* --- control --- */

static void disarm(void)
{
	static const char *const points[] = { "io.read", "io.write", "io.flush", "io.short", "mem.alloc", "exec.spawn" };

	for (unsigned i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		atomic_fetch_add(&st->faults, ter_fault_fired(points[i]));
		(void)ter_fault_arm(points[i], &(struct ter_fault_rule){ .nth = UINT64_MAX }); /* its counts begin anew */
		(void)ter_fault_disarm(points[i]);
	}
}

static void arm(struct child *c)
{
	static const struct {
		const char *name;
		uint32_t most_ppm;
	} points[] = { { "io.read", 3000 }, { "io.write", 1000 }, { "io.flush", 1000 }, { "io.short", 20000 }, { "mem.alloc", 2000 }, { "exec.spawn", 50000 } };

	disarm();
	atomic_store(&st->faulty, true);
	for (unsigned i = 0; i < sizeof(points) / sizeof(points[0]); i++)
		if (st_chance(&c->rnd, 40))
			(void)ter_fault_arm(points[i].name,
					    &(struct ter_fault_rule){ .probability_ppm = 1 + st_below(&c->rnd, points[i].most_ppm), .seed = st_rnd(&c->rnd) });
}

static void flip(struct child *c)
{
	int r;

	st_doing("going read-only");
	atomic_store(&st->ro, true);
	r = ter_fs_set_read_only(c->fs, true, &c->error);
	if (r < 0 && !atomic_load(&st->faulty))
		st_finding("going read-only: %s", c->error.text);
	if (st_chance(&c->rnd, 30))
		check(c, "while read-only");
	st_sleep_ms(st_below(&c->rnd, 10));
	st_doing("going read-write");
	ter_error_clear(&c->error);
	if (r >= 0)
		r = ter_fs_set_read_only(c->fs, false, &c->error);
	if (r < 0 && !atomic_load(&st->faulty) && !(c->error.kind == TER_ERR_FSCK_REQUIRED && st->pool.mode != ST_PLAIN))
		st_finding("going read-write: %s", c->error.text);
	if (r < 0)
		atomic_store(&st->request, ST_STOP); /* metadata was found damaged: the next start checks, and goes on */
	atomic_store(&st->ro, r < 0);
	atomic_fetch_add(&st->flips, 1);
}

static void set(struct child *c, const char *name, const char *text)
{
	st_doing("option %s=%s", name, text);
	ter_error_clear(&c->error);
	if (ter_fs_set_option(c->fs, name, text, st_below(&c->rnd, 2), &c->error) < 0 && !atomic_load(&st->faulty))
		st_finding("option %s=%s: %s", name, text, c->error.text);
}

static void change_option(struct child *c)
{
	static const char *const compressions[] = { "none", "lz4", "zstd:1" }, *const checksums[] = { "crc32c", "xxh3" };
	static const char *const extents[] = { "4K", "16K", "128K", "1M" }, *const inlines[] = { "0", "512", "4096" }, *const in_journal[] = { "0", "4096", "64K" };
	const char *const copies = st_below(&c->rnd, 2) ? "1" : "2";
	const unsigned algo = st_below(&c->rnd, 3);

	switch (st_below(&c->rnd, st->pool.mode == ST_DAMAGE || st->pool.mode == ST_ABSENT ? 5 : 7)) {
	case 0:
		if (!algo || has(c, TERRACE_COMPRESSION, algo == 1 ? "lz4" : "zstd"))
			set(c, "compression", compressions[algo]);
		break;
	case 1:
		if (has(c, TERRACE_CHECKSUM, checksums[algo & 1]))
			set(c, "data_checksum", checksums[algo & 1]);
		break;
	case 2:
		set(c, "extent_max", extents[st->pool.block > 4096 ? 1 + st_below(&c->rnd, 3) : st_below(&c->rnd, 4)]); /* at least a block */
		break;
	case 3:
		set(c, "inline_data_max", inlines[st_below(&c->rnd, 3)]);
		break;
	case 4:
		set(c, "journal_data_max", in_journal[st_below(&c->rnd, 3)]);
		break;
	case 5:
		set(c, "data_replicas", copies);
		break;
	default:
		set(c, "metadata_replicas", copies);
		break;
	}
}

static void control_step(struct child *c)
{
	const unsigned what = st_below(&c->rnd, 100);

	ter_error_clear(&c->error);
	if (what < 45)
		st_filler_step(&c->rnd, c->vfs);
	else if (what < 52)
		flip(c);
	else if (what < 62)
		change_option(c);
	else if (what < 68)
		check(c, "while in use");
	else if (what < 75 && st->pool.mode == ST_FAULTS)
		arm(c);
	else if (what < 80 && st->pool.mode == ST_FAULTS)
		disarm();
	else
		st_sleep_ms(st_below(&c->rnd, 20));
	atomic_fetch_add(&st->ticks, 1);
}

/* Its memory is kept by the parent: nobody may be in the middle of a change. */
static void leave(int code) __attribute__((noreturn));
static void leave(int code)
{
	disarm();
	for (unsigned i = 0; i < st->pool.threads; i++)
		pthread_mutex_lock(&st->thread[i].lock);
	_exit(code);
}

static void count_up(struct child *c)
{
	struct ter_fs_status *s = malloc(sizeof(*s));

	if (!s)
		abort();
	ter_fs_get_status(c->fs, s);
	atomic_fetch_add(&st->repaired, s->data.repaired);
	free(s);
}

static void stop(struct child *c) __attribute__((noreturn));
static void stop(struct child *c)
{
	int r;

	disarm();
	count_up(c);
	if (access_now(c) == TER_ACCESS_EMERGENCY_RO) {
		st_doing("close after an emergency");
		ter_fs_close(c->fs);
		leave(ST_EXIT_EMERGENCY);
	}
	if (st_chance(&c->rnd, 50))
		check(c, "before the stop");
	st_doing("stop");
	ter_error_clear(&c->error);
	r = ter_fs_stop(c->fs, &c->error);
	if (r < 0 && !atomic_load(&st->faulty))
		st_finding("stop: %s", c->error.text);
	if (r >= 0 && !atomic_load(&st->faulty)) {
		/* All that was acknowledged is durable. */
		for (unsigned i = 0; i < st->pool.threads; i++) {
			struct st_thread *t = &st->thread[i];

			pthread_mutex_lock(&t->lock);
			t->floor = t->nr;
			st_forget_log(t);
			pthread_mutex_unlock(&t->lock);
		}
	}
	st_doing("close");
	ter_fs_close(c->fs);
	ter_io_free(c->env.io);
	ter_exec_free(c->env.exec);
	ter_plugins_free(c->plugins);
	_exit(ST_EXIT_OK);
}

static void load(struct child *c)
{
	struct worker w[ST_THREADS_MAX];

	atomic_store(&st->running, true);
	for (unsigned i = 0; i < st->pool.threads; i++) {
		w[i] = (struct worker){ .t = &st->thread[i], .c = c };
		w[i].t->rnd = st_rnd(&c->rnd);
		if (pthread_create(&w[i].thread, NULL, work, &w[i]))
			abort();
	}
	while (atomic_load(&st->request) == ST_GO && access_now(c) != TER_ACCESS_EMERGENCY_RO)
		control_step(c);
	if (atomic_load(&st->request) == ST_EXIT_NOW)
		leave(ST_EXIT_OK);
	if (atomic_load(&st->request) == ST_EMERGENCY) {
		atomic_store(&st->faulty, true);
		ter_fs_emergency(c->fs, "the stress test wants it");
	}
	atomic_store(&st->quiet, true);
	for (unsigned i = 0; i < st->pool.threads; i++) {
		st_doing("waiting for thread %u to end", i);
		pthread_join(w[i].thread, NULL);
	}
}

void st_child(void)
{
	static struct child c;

	st_install_dump();
	begin(&c);
	if (st->round.format) {
		format(&c);
		open_and_start(&c, false);
		make_dirs(&c);
		stop(&c);
	}
	if (st->round.look_first) {
		open_and_start(&c, true);
		check(&c, "read-only, before anything is written");
		ter_fs_close(c.fs);
	}
	open_and_start(&c, false);
	judge(&c);
	check(&c, "after the start");
	if (st->round.load)
		load(&c);
	stop(&c);
}
