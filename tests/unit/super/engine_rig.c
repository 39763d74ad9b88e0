/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Members, pools and scheduler runs. */
#include "engine_rig.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "data/fake_algos.h"

#define DEVICE_NS 200000 /* a request takes so long: others come meanwhile */

const struct eng_layout eng_layouts[] = {
	{ "one", 1, { TER_MIB(32) }, 1, "none", -1, TER_JOURNAL_BUCKETS_SMALL },
	{ "two-copies", 2, { TER_MIB(24), TER_MIB(24) }, 2, "rle", -1, TER_JOURNAL_BUCKETS_SMALL },
	{ "three-unequal", 3, { TER_MIB(12), TER_MIB(20), TER_MIB(33) }, 2, "none", -1, TER_JOURNAL_BUCKETS_SMALL },
	{ "tight", 1, { 8650752 }, 1, "none", -1, 0 }, /* buckets are used again and again */
	{ "two-one-lost", 2, { TER_MIB(24), TER_MIB(24) }, 2, "none", 1, TER_JOURNAL_BUCKETS_SMALL },
	{ "three-one-lost", 3, { TER_MIB(12), TER_MIB(16), TER_MIB(16) }, 2, "none", 2, 0 },
};
const unsigned eng_layouts_nr = ARRAY_SIZE(eng_layouts);

uint64_t eng_seed(void)
{
	const char *text = getenv("TER_TEST_SEED");
	const uint64_t seed = text ? strtoull(text, NULL, 0) : 20250711;

	fprintf(stderr, "TER_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

uint64_t eng_rnd(struct eng *e)
{
	uint64_t z = (e->rnd += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

unsigned eng_below(struct eng *e, unsigned n)
{
	return (unsigned)(eng_rnd(e) % n);
}

bool eng_fail(struct eng *e, const char *fmt, ...)
{
	va_list ap;

	if (e->failed)
		return false;
	e->failed = true;
	va_start(ap, fmt);
	vsnprintf(e->why, sizeof(e->why), fmt, ap);
	va_end(ap);
	return false;
}

/* --- a process that dies says where --- */

static char guard_line[256];
static struct ter_exec *guard_exec; /* of the run that goes on; NULL: none */

static void died(int sig)
{
	const char *what = sig == SIGALRM ? "hangs: " : "dies: ";
	static char text[8192];

	if (guard_line[0]) {
		(void)!write(2, what, strlen(what));
		(void)!write(2, guard_line, strlen(guard_line));
		(void)!write(2, "\n", 1);
	}
	if (sig == SIGALRM && guard_exec)
		(void)!write(2, text, ter_coop_describe(guard_exec, text, sizeof(text))); /* not safe in a handler; the process ends anyway */
	signal(SIGABRT, SIG_DFL);
	abort();
}

void eng_guard(const char *line, unsigned seconds)
{
	snprintf(guard_line, sizeof(guard_line), "%s", line);
	signal(SIGABRT, line[0] ? died : SIG_DFL);
	signal(SIGALRM, line[0] ? died : SIG_DFL);
	alarm(line[0] ? seconds : 0);
}

/* --- rig --- */

/* The devices are simulated, but whether a path is a file that holds something is asked of the system: empty files say no. */
static void make_paths(struct eng *e)
{
	snprintf(e->dir, sizeof(e->dir), "/tmp/ter-engine-XXXXXX");
	if (!mkdtemp(e->dir))
		abort();
	for (unsigned i = 0; i < e->layout.devs; i++) {
		int fd;

		snprintf(e->path[i], sizeof(e->path[i]), "%.60s/member%u", e->dir, i);
		fd = open(e->path[i], O_CREAT | O_RDWR | O_CLOEXEC, 0600);
		if (fd < 0)
			abort();
		close(fd);
	}
}

static void set_options(struct eng *e)
{
	struct ter_options *o = &e->options;

	ter_options_default(o);
	o->bucket_size = TER_KIB(64);
	o->journal_size = (uint64_t)e->layout.journal_buckets * o->bucket_size;
	o->btree_node_size = TER_KIB(16);
	o->metadata_replicas = o->data_replicas = (uint8_t)e->layout.replicas;
	o->memory_limit = TER_MIB(64);
	snprintf(o->compression.s, sizeof(o->compression.s), "%s", e->layout.compression);
}

static void make_machine(struct eng *e, uint64_t seed)
{
	e->exec = ter_exec_new_coop(seed);
	e->sim = e->exec ? ter_sim_new(e->exec, seed ^ 0x5a5a, &e->io) : NULL;
	if (!e->sim)
		abort();
	e->env = (struct ter_env){ .exec = e->exec, .io = e->io, .codecs = &e->codecs };
	for (unsigned i = 0; i < e->layout.devs; i++)
		if (ter_sim_add(e->sim, e->path[i], e->layout.dev_bytes[i], 512) < 0 ||
		    ter_sim_latency(e->sim, e->path[i], DEVICE_NS + i * DEVICE_NS / 3) < 0)
			abort();
}

struct eng *eng_new(const struct eng_layout *layout, uint64_t seed)
{
	struct eng *e = calloc(1, sizeof(*e));

	if (!e)
		abort();
	e->layout = *layout;
	e->seed = e->rnd = seed;
	e->absent = -1;
	if (ter_codecs_add(&e->codecs, &fake_crc.algo) < 0 || ter_codecs_add(&e->codecs, &fake_wide.algo) < 0 ||
	    ter_codecs_add(&e->codecs, &fake_rle.algo) < 0)
		abort();
	make_paths(e);
	make_machine(e, seed);
	set_options(e);
	return e;
}

void eng_machine_enter(struct eng *e, uint64_t seed, struct eng_machine *ret_before)
{
	*ret_before = (struct eng_machine){ e->exec, e->io, e->sim };
	make_machine(e, seed);
}

static void free_machine(struct eng *e)
{
	ter_io_free(e->io);
	ter_exec_free(e->exec);
}

void eng_machine_leave(struct eng *e, const struct eng_machine *before)
{
	free_machine(e);
	e->exec = before->exec;
	e->io = before->io;
	e->sim = before->sim;
	e->env.exec = e->exec;
	e->env.io = e->io;
}

void eng_free(struct eng *e)
{
	if (e->tm)
		eng_model_free(e);
	free_machine(e);
	for (unsigned i = 0; i < e->layout.devs; i++)
		unlink(e->path[i]);
	rmdir(e->dir);
	free(e);
}

struct run_arg {
	struct eng *e;
	void (*fn)(struct eng *e, void *arg);
	void *arg;
};

static void run_main(void *arg)
{
	struct run_arg *a = arg;

	a->fn(a->e, a->arg);
}

void eng_run(struct eng *e, void (*fn)(struct eng *e, void *arg), void *arg)
{
	struct run_arg a = { e, fn, arg };
	int r;

	guard_exec = e->exec;
	r = ter_coop_run(e->exec, run_main, &a);
	guard_exec = NULL;
	if (r < 0) {
		char text[8192];

		ter_coop_describe(e->exec, text, sizeof(text));
		fprintf(stderr, "deadlock after %s:\n%s\n", e->last_op ? e->last_op : "start", text);
		abort(); /* tasks that wait for ever cannot be taken down */
	}
}

static void on_event(void *arg, struct ter_fs *fs, const struct ter_fs_event *event)
{
	struct eng *e = arg;

	(void)fs;
	e->events[event->kind]++;
	snprintf(e->last_event, sizeof(e->last_event), "%s", event->text ? event->text : "");
}

int eng_format(struct eng *e)
{
	struct ter_format_dev devs[ENG_DEVS_MAX];
	uint8_t uuid[16];
	const struct ter_format_params params = { .label = "engine", .options = &e->options, .devs = devs, .devs_nr = e->layout.devs,
						   .force = e->force };

	ter_error_clear(&e->error);
	for (unsigned i = 0; i < e->layout.devs; i++)
		devs[i] = (struct ter_format_dev){ .path = e->path[i], .durability = -1, .discard = -1 };
	return ter_fs_format(&e->env, &params, NULL, NULL, NULL, uuid, &e->error);
}

int eng_open(struct eng *e, bool read_only, int degraded)
{
	const char *paths[ENG_DEVS_MAX];
	struct ter_open_params params = { .paths = paths, .degraded = degraded, .read_only = read_only };

	ter_error_clear(&e->error);
	for (unsigned i = 0; i < e->layout.devs; i++)
		if ((int)i != e->absent)
			paths[params.paths_nr++] = e->path[i];
	return ter_fs_open(&e->env, &params, on_event, e, &e->fs, &e->error);
}

int eng_start(struct eng *e, bool read_only, int degraded)
{
	int r = eng_open(e, read_only, degraded);

	if (r < 0)
		return r;
	r = ter_fs_start(e->fs, NULL, &e->error);
	if (r < 0) {
		eng_close(e);
		return r;
	}
	e->vfs = ter_fs_vfs(e->fs);
	return 0;
}

void eng_close(struct eng *e)
{
	ter_fs_close(e->fs);
	e->fs = NULL;
	e->vfs = NULL;
}

int eng_stop(struct eng *e)
{
	int r;

	eng_settle(e);
	ter_error_clear(&e->error);
	r = ter_fs_stop(e->fs, &e->error);
	eng_close(e);
	return r;
}

struct found {
	unsigned nr;
	char first[512];
};

static void on_found(void *arg, const char *pass, const char *sentence)
{
	struct found *found = arg;

	if (!found->nr++)
		snprintf(found->first, sizeof(found->first), "%s: %s", pass, sentence);
}

bool eng_fsck_clean(struct eng *e)
{
	struct found found = { 0 };
	const struct ter_fsck_report report = { .found = on_found, .arg = &found };
	int64_t r;

	ter_error_clear(&e->error);
	r = ter_fs_fsck(e->fs, &report, NULL, &e->error);
	if (r < 0)
		return eng_fail(e, "fsck cannot run: %d, %s", (int)r, e->error.text);
	if (r > 0)
		return eng_fail(e, "fsck finds %lld contradictions, first: %s", (long long)r, found.first);
	return true;
}
