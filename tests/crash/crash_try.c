/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One state after the other: opened, judged, cut again while it recovers. */
#include "crash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_SECONDS 60 /* of real time; one that takes longer hangs */
#define TRIES_PER_EVENT 24 /* while only some states of a workload are asked for */
#define AGAIN_ONE_IN 10    /* states of which the recovery is cut too */
#define AGAIN_CUTS 2       /* of each such recovery */
#define READ_ONLY_ONE_IN 8
#define CUT_AFTER_ONE_IN 4
#define COMES_BACK_ONE_IN 2
#define MANY_STEPS_ONE_IN 8
#define KEEP_BYTES 65536

uint64_t crash_draw(uint64_t *state, uint64_t below)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % below;
}

/* --- what was seen --- */

static bool insert(uint64_t *table, uint64_t max, uint64_t hash)
{
	uint64_t i = hash % max;

	for (; table[i]; i = (i + 1) % max)
		if (table[i] == hash)
			return false;
	table[i] = hash;
	return true;
}

bool crash_set_add(struct crash_set *set, uint64_t hash)
{
	hash += !hash;
	if (set->nr * 2 >= set->max) {
		const uint64_t max = set->max ? set->max * 2 : 1u << 16;
		uint64_t *table = calloc(max, sizeof(*table));

		if (!table)
			abort();
		for (uint64_t i = 0; i < set->max; i++)
			if (set->hash[i])
				insert(table, max, set->hash[i]);
		free(set->hash);
		set->hash = table;
		set->max = max;
	}
	if (!insert(set->hash, set->max, hash))
		return false;
	set->nr++;
	return true;
}

/* --- asked for --- */

static bool parse_path(const char *text, struct crash_path *ret)
{
	*ret = (struct crash_path){ 0 };
	while (*text == '@') {
		struct crash_point *p = &ret->point[ret->nr];
		unsigned long long at;
		int n = 0;

		if (ret->nr == CRASH_DEPTH_MAX || sscanf(text, "@%llu:%n", &at, &n) < 1 || !n)
			return false;
		text += n;
		p->at = at;
		if (!crash_state_parse(&text, &p->state))
			return false;
		ret->nr++;
	}
	return ret->nr && !*text;
}

void crash_init(struct crash *c)
{
	const char *replay = getenv("TER_CRASH_REPLAY"), *goal = getenv("TER_CRASH_STATES"), *path = replay ? strchr(replay, '@') : NULL,
		   *failures = getenv("TER_CRASH_FAILURES");

	*c = (struct crash){ .failures_max = failures ? (unsigned)strtoul(failures, NULL, 0) : CRASH_FAILURES_MAX, .seed = eng_seed(), .goal = goal ? strtoull(goal, NULL, 0) : 0, .images_dir = getenv("TER_CRASH_IMAGES") };
	if (!replay)
		return;
	if (!path || !parse_path(path, &c->one_path) || (size_t)(path - replay) >= sizeof(c->one_workload)) {
		fprintf(stderr, "TER_CRASH_REPLAY is no state's id: %s\n", replay);
		exit(2);
	}
	c->one = true;
	memcpy(c->one_workload, replay, (size_t)(path - replay));
	if (!c->images_dir)
		c->images_dir = "crash-images";
}

void crash_done(struct crash *c)
{
	free(c->images.hash);
	free(c->judged.hash);
}

bool crash_wanted(const struct crash *c, const char *workload)
{
	return !c->one || !strcmp(c->one_workload, workload);
}

bool crash_enough(const struct crash *c)
{
	return c->failures >= c->failures_max || (!c->one && c->images.nr >= c->goal);
}

static void say(const struct crash_run *run, const struct crash_path *path, char *text, size_t bytes)
{
	int n = snprintf(text, bytes, "TER_TEST_SEED=%llu TER_CRASH_REPLAY=%s", (unsigned long long)run->c->seed, run->name);

	for (unsigned i = 0; i < path->nr; i++) {
		n += snprintf(text + n, bytes - (size_t)n, "@%llu:", (unsigned long long)path->point[i].at);
		n += crash_state_say(&path->point[i].state, text + n, bytes - (size_t)n);
	}
}

static void keep_images(const struct crash_run *run)
{
	static uint8_t buf[KEEP_BYTES];
	static const uint8_t zeros[KEEP_BYTES];
	struct eng *e = run->e;

	if (mkdir(run->c->images_dir, 0777) < 0 && errno != EEXIST)
		return;
	for (unsigned d = 0; d < e->layout.devs; d++) {
		char name[512];
		int fd;

		snprintf(name, sizeof(name), "%s/%s-member%u.img", run->c->images_dir, e->layout.name, d);
		fd = open(name, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
		if (fd < 0 || ftruncate(fd, (off_t)e->layout.dev_bytes[d]) < 0)
			fprintf(stderr, "cannot keep %s: %m\n", name);
		for (uint64_t at = 0; fd >= 0 && at < e->layout.dev_bytes[d]; at += KEEP_BYTES) {
			const size_t bytes = (size_t)ter_min((uint64_t)KEEP_BYTES, e->layout.dev_bytes[d] - at);

			if (ter_sim_peek(e->sim, e->path[d], at, buf, bytes) == 0 && memcmp(buf, zeros, bytes) &&
			    pwrite(fd, buf, bytes, (off_t)at) != (ssize_t)bytes)
				fprintf(stderr, "cannot keep %s: %m\n", name);
		}
		if (fd >= 0) {
			close(fd);
			fprintf(stderr, "the state before it was opened: %s\n", name);
		}
	}
}

/* --- one state --- */

struct state_arg {
	struct crash_run *run;
	uint64_t at; /* of the workload's trace */
	bool only_judge, read_only_first;
	bool cut_after;  /* the power is cut once more while the recovered pool is worked on */
	bool comes_back; /* the lost member is there again at the last start, as the first cut left it */
	unsigned steps;
	uint64_t dice;
};

static int degraded(const struct eng *e)
{
	return e->layout.lost >= 0 ? TER_DEGRADED_YES : -1;
}

/* A read-only start sees the same and writes nothing. */
static bool look_only(struct eng *e, uint64_t at)
{
	struct ter_sim_stats before, after;

	ter_sim_get_stats(e->sim, &before);
	if (eng_start(e, true, degraded(e)) < 0)
		return eng_fail(e, "read-only start after the cut: %s", e->error.text);
	if (!eng_fsck_clean(e) || !eng_judge(e, at))
		return false;
	if (eng_stop(e) < 0)
		return eng_fail(e, "stop after a read-only start: %s", e->error.text);
	ter_sim_get_stats(e->sim, &after);
	if (after.writes != before.writes || after.discards != before.discards)
		return eng_fail(e, "read-only, and %llu writes", (unsigned long long)(after.writes - before.writes));
	return true;
}

/* Work on the recovered pool, then a clean stop, or none: a cut at some moment of that work. */
static bool go_on(struct eng *e, struct state_arg *a)
{
	static const uint32_t torn[] = { 0, 512, 4096 };
	struct ter_sim_cut cut = { .keep = TER_SIM_KEEP_RANDOM };
	const uint64_t from = a->cut_after ? ter_sim_trace(e->sim)->last_event + 1 : 0;

	if (!eng_goes_on(e, a->steps))
		return false;
	if (!a->cut_after)
		return eng_stop(e) < 0 ? eng_fail(e, "stop after recovery: %s", e->error.text) : true;
	cut.at = from + crash_draw(&a->dice, ter_sim_trace(e->sim)->last_event + 2 - from);
	cut.seed = crash_draw(&a->dice, UINT64_MAX);
	cut.torn_bytes = torn[crash_draw(&a->dice, ARRAY_SIZE(torn))];
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
	ter_sim_cut(e->sim, &cut);
	return true;
}

static void come_back(struct eng *e, const struct crash_run *run)
{
	ter_sim_restore(e->sim, run->stale, e->path[e->absent]);
	(void)ter_sim_come_back(e->sim, e->path[e->absent]);
	e->absent = -1;
}

/* What was there before that work is there after it, whoever wrote it and whoever missed it. */
static bool recover(struct eng *e, struct state_arg *a)
{
	const char *when = a->cut_after ? "a cut in the work after recovery" : "a clean stop after recovery";
	uint64_t before, after;
	int r;

	if (a->read_only_first && !look_only(e, a->at))
		return false;
	if (a->cut_after)
		ter_sim_record(e->sim, true);
	if (eng_start(e, false, degraded(e)) < 0)
		return eng_fail(e, "start after the cut: %s", e->error.text);
	if (!eng_fsck_clean(e) || !eng_judge(e, a->at))
		return false;
	if (a->only_judge)
		return true;
	if (!eng_digest(e, &before) || !go_on(e, a))
		return false;
	if (a->comes_back)
		come_back(e, a->run);
	r = eng_start(e, false, a->comes_back ? -1 : degraded(e));
	if (r < 0 && a->comes_back && a->run->stale_ahead && e->error.kind == TER_ERR_SPLIT_BRAIN) {
		/* Rightly so: a superblock that reached only that member cannot be told from one that it wrote alone. The others go on. */
		(void)ter_sim_vanish(e->sim, e->path[e->layout.lost]);
		e->absent = e->layout.lost;
		r = eng_start(e, false, degraded(e));
	}
	if (r < 0)
		return eng_fail(e, "start after %s: %s", when, e->error.text);
	if (!eng_fsck_clean(e) || !eng_digest(e, &after))
		return false;
	if (before != after)
		return eng_fail(e, "%s%s changed what was there before that work", when, a->comes_back ? ", and a member that came back," : "");
	if ((a->cut_after || a->comes_back) && !eng_goes_on(e, a->steps))
		return false;
	return eng_stop(e) < 0 ? eng_fail(e, "second stop after recovery: %s", e->error.text) : true;
}

/* Nothing is promised but that it ends, and that what opens can be looked at. */
static void survive(struct eng *e)
{
	struct ter_fsck_report report = { 0 };

	if (eng_start(e, false, degraded(e)) < 0)
		return;
	(void)ter_fs_fsck(e->fs, &report, NULL, &e->error);
	(void)eng_goes_on(e, 6);
	(void)eng_stop(e);
	e->failed = false;
}

static void state_main(struct eng *e, void *arg)
{
	struct state_arg *a = arg;

	if (a->run->lies)
		survive(e);
	else if (a->run->judge)
		(void)a->run->judge(a->run, a->at, a->only_judge);
	else
		(void)recover(e, a);
	eng_close(e);
}

/* Of the newest valid superblock on a member; 0: there is none. */
static uint64_t newest_sb(const struct eng *e, unsigned d)
{
	static uint8_t buf[TER_SB_BYTES_MAX];
	uint64_t offset[TER_SB_COPIES], newest = 0;

	ter_sb_copy_offsets(e->layout.dev_bytes[d], offset);
	for (unsigned i = 0; i < TER_SB_COPIES; i++) {
		struct ter_members *members;
		struct ter_sb *sb;
		unsigned idx;

		if (ter_sim_peek(e->sim, e->path[d], offset[i], buf, sizeof(buf)) < 0 || ter_sb_decode(buf, sizeof(buf), &sb, &members, &idx, NULL) < 0)
			continue;
		newest = ter_max(newest, sb->seq);
		ter_sb_free(sb);
		free(members);
	}
	return newest;
}

/* On a machine just entered. */
static void cut_power(struct crash_run *run, const struct ter_sim_trace *trace, const struct crash_point *p)
{
	struct eng *e = run->e;
	struct ter_sim_snapshot *blank = ter_sim_snapshot_take(e->sim);

	crash_state_apply(e->sim, trace, p->at, &p->state);
	e->absent = e->layout.lost;
	if (e->absent >= 0) {
		run->stale = ter_sim_snapshot_take(e->sim);
		run->stale_ahead = true;
		for (unsigned d = 0; d < e->layout.devs; d++)
			run->stale_ahead &= (int)d == e->absent || newest_sb(e, d) < newest_sb(e, (unsigned)e->absent);
		ter_sim_restore(e->sim, blank, e->path[e->absent]); /* what a lost member holds makes no other state */
		(void)ter_sim_vanish(e->sim, e->path[e->absent]);
	}
	ter_sim_snapshot_free(blank);
}

/* How much had been acknowledged: with more of it the same bytes are another question. */
static uint64_t acknowledged(const struct eng *e, uint64_t at)
{
	uint64_t nr = 0;

	for (unsigned i = 0; i < e->floors_nr; i++)
		nr += e->floors[i].event < at;
	return nr;
}

/* Leaves the machine that cut_power() was for. */
static void leave(struct crash_run *run, const struct eng_machine *before)
{
	ter_sim_snapshot_free(run->stale);
	run->stale = NULL;
	run->e->absent = -1;
	eng_machine_leave(run->e, before);
	eng_guard("", 0);
}

static void try_again(struct crash_run *run, const struct ter_sim_trace *trace, const struct crash_path *path, uint64_t seed);

/* Returns true when there was something new to judge. */
static bool try_state(struct crash_run *run, const struct ter_sim_trace *trace, const struct crash_path *path)
{
	const struct crash_point *last = &path->point[path->nr - 1];
	struct crash *c = run->c;
	struct eng *e = run->e;
	struct state_arg a = { .run = run, .at = path->point[0].at };
	struct eng_machine before;
	char line[CRASH_TEXT_MAX * 2];
	uint64_t hash, seed;
	bool fresh, again;

	say(run, path, line, sizeof(line));
	seed = run->salt ^ eng_hash_bytes(path->nr, line, strlen(line));
	eng_guard(line, STATE_SECONDS);
	eng_machine_enter(e, seed, &before);
	cut_power(run, trace, last);
	c->tried++;
	hash = ter_sim_hash(e->sim);
	crash_set_add(&c->images, hash);
	fresh = crash_set_add(&c->judged, hash ^ (run->salt + acknowledged(e, a.at)) * 0x9e3779b97f4a7c15ull);
	if (fresh) {
		a.read_only_first = hash % READ_ONLY_ONE_IN == 1;
		a.steps = hash % MANY_STEPS_ONE_IN == 2 ? 20 : 6;
		a.cut_after = (hash >> 16) % CUT_AFTER_ONE_IN == 0;
		/* A cut in a recovery without the member adds its history to what the trace of that recovery knows: not when one is cut again. */
		a.comes_back = path->nr == 1 && e->absent >= 0 && (hash >> 24) % COMES_BACK_ONE_IN == 0;
		a.dice = hash;
		if (c->one)
			keep_images(run);
		eng_run(e, state_main, &a);
		c->depth_nr[path->nr]++;
	}
	leave(run, &before);
	if (e->failed) {
		fprintf(stderr, "%s\n\t%s: %s\n", line, e->layout.name, e->why);
		e->failed = false;
		c->failures++;
		return fresh;
	}
	again = (hash >> 8) % AGAIN_ONE_IN == 0;
	if (fresh && again && !c->one && !run->lies && path->nr < CRASH_DEPTH_MAX)
		try_again(run, trace, path, seed);
	return fresh;
}

/* The recovery that starts at @path, with a clean stop at its end. NULL: it failed, as noted. */
static struct ter_sim_trace *record_recovery(struct crash_run *run, const struct ter_sim_trace *trace, const struct crash_path *path)
{
	const struct crash_point *last = &path->point[path->nr - 1];
	struct state_arg a = { .run = run, .at = path->point[0].at, .only_judge = true };
	struct eng *e = run->e;
	struct ter_sim_trace *recovery;
	struct eng_machine before;
	char line[CRASH_TEXT_MAX * 2];

	say(run, path, line, sizeof(line));
	eng_guard(line, STATE_SECONDS);
	eng_machine_enter(e, run->salt ^ eng_hash_bytes(path->nr, line, strlen(line)), &before);
	cut_power(run, trace, last);
	ter_sim_record(e->sim, true);
	eng_run(e, state_main, &a);
	recovery = ter_sim_trace_take(e->sim);
	leave(run, &before);
	if (!e->failed)
		return recovery;
	fprintf(stderr, "%s\n\t%s, first recovery: %s\n", line, e->layout.name, e->why);
	e->failed = false;
	run->c->failures++;
	ter_sim_trace_free(recovery);
	return NULL;
}

static struct crash_state state_list[CRASH_STATES_MAX];

static void try_again(struct crash_run *run, const struct ter_sim_trace *trace, const struct crash_path *path, uint64_t seed)
{
	struct ter_sim_trace *recovery = record_recovery(run, trace, path);
	struct crash_path more = *path;
	struct crash_point *p = &more.point[more.nr++];

	for (unsigned i = 0; recovery && i < AGAIN_CUTS; i++) {
		static struct crash_state list[CRASH_STATES_MAX];

		p->at = recovery->first_event + crash_draw(&seed, recovery->last_event - recovery->first_event + 2);
		p->state = list[crash_draw(&seed, crash_states(recovery, p->at, list, CRASH_STATES_MAX))];
		try_state(run, recovery, &more);
	}
	ter_sim_trace_free(recovery);
}

static void try_one(struct crash_run *run)
{
	const struct crash_path *want = &run->c->one_path;
	const struct ter_sim_trace *trace = run->trace;
	struct ter_sim_trace *recovery[CRASH_DEPTH_MAX] = { NULL };
	struct crash_path path = *want;

	for (path.nr = 1; path.nr < want->nr && trace; path.nr++)
		trace = recovery[path.nr] = record_recovery(run, trace, &path);
	if (trace)
		try_state(run, trace, &path);
	for (unsigned i = 0; i < CRASH_DEPTH_MAX; i++)
		ter_sim_trace_free(recovery[i]);
}

void crash_try_all(struct crash_run *run, uint64_t budget)
{
	struct crash *c = run->c;
	struct ter_sim_trace *trace = run->trace;
	const uint64_t before = c->images.nr, events = trace->last_event + 2 - trace->first_event;
	uint64_t dice = run->salt ^ 0xc0ffee;

	if (c->one) {
		if (!run->lies)
			ter_sim_trace_fold(trace, c->one_path.point[0].at);
		try_one(run);
		return;
	}
	for (uint64_t at = trace->first_event; at <= trace->last_event + 1 && c->failures < c->failures_max; at++) {
		const uint64_t due = budget == UINT64_MAX ? UINT64_MAX : budget * (at + 1 - trace->first_event) / events;
		struct crash_path path = { .nr = 1, .point[0].at = at };
		unsigned nr;

		if (c->images.nr - before >= due)
			continue;
		if (!run->lies)
			ter_sim_trace_fold(trace, at);
		nr = crash_states(trace, at, state_list, CRASH_STATES_MAX);
		for (unsigned i = 0; i < nr && (budget == UINT64_MAX || i < TRIES_PER_EVENT) && c->images.nr - before < due; i++) {
			const unsigned k = i + (unsigned)crash_draw(&dice, nr - i);

			path.point[0].state = state_list[k];
			state_list[k] = state_list[i];
			path.point[0].state.lies = run->lies;
			try_state(run, trace, &path);
			if (c->failures >= c->failures_max)
				break;
		}
	}
}
