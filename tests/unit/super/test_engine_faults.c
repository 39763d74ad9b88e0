/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every fault point under whole-engine workloads: the n-th call fails, once or from then on, and nothing is lost, damaged, leaked or stuck
 *
 * A workload is prepared once; each run of it is a child process, so that one that dies or hangs is a line and not the end. A run: arm, work, disarm, look, tear down (in turn a clean
 * stop and a power cut), open the same members, compare with the oracle, check, go on working.
 *
 * TER_TEST_SEED; TER_FAULTS=all walks every n, else a number of runs a walk; TER_FAULT_WORKLOAD and TER_FAULT_POINT choose one;
 * TER_FAULT_RUN=workload:point:nth:times does that run alone, in this process.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include <cmocka.h>

#include "data/fake_algos.h"
#include "engine_rig.h"
#include "fs/vfs_calls.h"
#include "io/io.h"
#include "util/fault.h"

#define NEVER UINT64_MAX
#define POINTS_MAX 64
#define FAILURES_MAX 8
#define JOBS_MAX 2
#define MIX_STEPS 150
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RUNS 2 /* of one walk; each is ten times as slow */
#define RUN_SECONDS 120
#else
#define RUNS 5
#define RUN_SECONDS 60 /* of real time, however busy the machine; one that takes longer hangs */
#endif

/* Two members small enough to be compared as a whole. */
static const struct eng_layout small_layout = { "small", 2, { TER_MIB(9), TER_MIB(11) }, 2, "rle", -1 };

struct run {
	const struct workload *workload;
	const char *point;
	uint64_t nth, times;
	/* what became of it, told to the parent */
	uint64_t calls, fired;
	char text[1200];
};

struct workload {
	const char *name;
	const struct eng_layout *layout;
	void (*prepare)(struct eng *e);
	bool behind; /* the model is ahead of the members: they crashed */
	bool (*work)(struct eng *e, struct run *run);  /* arms and disarms */
	bool (*after)(struct eng *e, struct run *run); /* a scheduler run of its own */
};

static void arm(struct eng *e, const struct run *run)
{
	const struct ter_fault_rule rule = { .nth = run->nth, .times = run->times };

	e->faulty = true;
	if (ter_fault_arm(run->point, &rule) < 0)
		abort();
}

static void disarm(struct run *run)
{
	run->calls = ter_fault_calls(run->point);
	run->fired = ter_fault_fired(run->point);
	ter_fault_disarm_all();
}

static bool short_of_memory(const struct run *run)
{
	return !strncmp(run->point, "mem.", 4) || !strcmp(run->point, "super.alloc");
}

/* A refusal says why, and the code fits what was made to fail. */
static bool explained(struct eng *e, const struct run *run, int r)
{
	if (!run->fired)
		return eng_fail(e, "nothing was made to fail, and it failed: %d, %s", r, e->error.text);
	if (e->error.kind == TER_ERR_NONE || !e->error.text[0])
		return eng_fail(e, "%d, and not a word why", r);
	if (e->error.err != r)
		return eng_fail(e, "%d, but the explanation is of %d: %s", r, e->error.err, e->error.text);
	/* A format's writes need memory for what they replace; then the device is what fails. */
	if (short_of_memory(run) && r != -ENOMEM && r != -EROFS && !(r == -EIO && !strcmp(run->workload->name, "format")))
		return eng_fail(e, "memory was short, and the answer is %d: %s", r, e->error.text);
	if (!strncmp(run->point, "io.", 3) && r != -EIO && r != -EROFS)
		return eng_fail(e, "a device failed, and the answer is %d: %s", r, e->error.text);
	return true;
}

static bool steps(struct eng *e, unsigned nr)
{
	for (unsigned i = 0; i < nr && !e->unsettled; i++)
		SAY(eng_step(e));
	return true;
}

/* --- what every run ends with --- */

/* A pool that still takes writes has everything, and works; one that does not says so. */
static bool sound(struct eng *e)
{
	struct ter_fs_status status;

	ter_sleep_ns(e->exec, 100000000); /* who waited is told before everybody is */
	ter_fs_get_status(e->fs, &status);
	if (status.access == TER_ACCESS_EMERGENCY_RO) {
		struct ter_attr attr;
		int r;

		ENG_CHECK(e, status.last_error[0] && e->events[TER_EVENT_EMERGENCY]);
		r = ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, "never", S_IFREG | 0600, 0, NULL, &attr);
		return r == -EROFS ? true : eng_fail(e, "read-only after an error, and a file is made: %d (%s)", r, status.last_error);
	}
	ENG_CHECK(e, status.access == TER_ACCESS_RW || status.access == TER_ACCESS_RO);
	if (status.access == TER_ACCESS_RW) {
		/* A failure that was not told yet is told here, once. */
		if (ter_fs_sync(e->fs) < 0) {
			const int r = ter_fs_sync(e->fs);

			if (r < 0)
				return eng_fail(e, "sync fails twice, the second time without a fault: %d", r);
		}
		if (!e->unsettled) /* else the model does not know what is durable now */
			SAY(eng_compare(e) && eng_sync_all(e));
	} else if (!e->unsettled) {
		SAY(eng_compare(e));
	}
	return eng_fsck_clean(e);
}

static bool take_down(struct eng *e, const struct run *run)
{
	const struct ter_sim_cut cut = { .at = TER_SIM_NOW, .keep = run->nth % 4 ? TER_SIM_KEEP_RANDOM : TER_SIM_KEEP_NONE, .seed = run->nth };
	struct ter_fs_status status;

	if (!e->fs)
		return true;
	if (run->nth % 2 == 0) {
		eng_settle(e);
		ter_sim_power_off_after(e->sim, 0);
		eng_close(e); /* whatever it would write: the power is off */
		ter_sim_cut(e->sim, &cut);
		return true;
	}
	ter_fs_get_status(e->fs, &status);
	MUST(e, eng_stop(e));
	return run->workload->behind || e->unsettled || status.access == TER_ACCESS_EMERGENCY_RO || eng_stopped(e);
}

static bool good_as_ever(struct eng *e, struct run *run)
{
	MUST(e, eng_start(e, false, e->absent >= 0 ? TER_DEGRADED_YES : -1));
	SAY(eng_fsck_clean(e) && eng_judge(e, UINT64_MAX) && eng_goes_on(e, 10) && eng_fsck_clean(e));
	MUST(e, eng_stop(e));
	if (run->nth % 4 == 1) {
		MUST(e, eng_start(e, false, e->absent >= 0 ? TER_DEGRADED_YES : -1));
		SAY(eng_fsck_clean(e));
		MUST(e, eng_stop(e));
	}
	return true;
}

/* --- preparing --- */

static bool format_and_use(struct eng *e)
{
	MUST(e, eng_format(e));
	MUST(e, eng_start(e, false, -1));
	SAY(steps(e, 50) && eng_compare(e));
	MUST(e, eng_stop(e));
	return eng_stopped(e);
}

static bool use_and_die(struct eng *e)
{
	const struct ter_sim_cut cut = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .seed = 5 };

	SAY(format_and_use(e));
	ter_sim_record(e->sim, true);
	MUST(e, eng_start(e, false, -1));
	SAY(steps(e, 40) && eng_sync_all(e) && steps(e, 15));
	eng_settle(e);
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
	ter_sim_cut(e->sim, &cut);
	ter_sim_record(e->sim, false);
	return true;
}

struct simple {
	struct eng *e;
	bool (*fn)(struct eng *e);
};

static void simple_main(struct eng *e, void *arg)
{
	const struct simple *s = arg;

	if (!s->fn(e))
		eng_fail(e, "no reason");
}

static void in_a_run(struct eng *e, bool (*fn)(struct eng *e))
{
	struct simple s = { e, fn };

	eng_run(e, simple_main, &s);
	if (e->failed)
		fail_msg("preparing: %s", e->why);
}

static void prepare_used(struct eng *e)
{
	in_a_run(e, format_and_use);
}

static void prepare_crashed(struct eng *e)
{
	in_a_run(e, use_and_die);
}

static void prepare_degraded(struct eng *e)
{
	in_a_run(e, format_and_use);
	e->absent = 1;
	assert_int_equal(ter_sim_vanish(e->sim, e->path[1]), 0);
}

static uint64_t junk_hash;

static void prepare_junk(struct eng *e)
{
	static uint8_t junk[TER_KIB(64)];

	for (unsigned d = 0; d < e->layout.devs; d++)
		for (uint64_t at = 0; at < e->layout.dev_bytes[d]; at += sizeof(junk)) {
			for (size_t i = 0; i < sizeof(junk); i += 8) {
				const uint64_t x = eng_rnd(e);

				memcpy(junk + i, &x, 8);
			}
			assert_int_equal(ter_sim_poke(e->sim, e->path[d], at, junk, ter_min(sizeof(junk), e->layout.dev_bytes[d] - at)), 0);
		}
	junk_hash = ter_sim_hash(e->sim);
}

/* --- format --- */

static bool formatted;

static bool work_format(struct eng *e, struct run *run)
{
	int r;

	arm(e, run);
	r = eng_format(e);
	disarm(run);
	formatted = r >= 0;
	if (formatted)
		return true;
	SAY(explained(e, run, r));
	/* Where no write works any more, none puts back what was there. */
	if (run->times == 0 && !strcmp(run->point, "io.write"))
		return true;
	ENG_CHECK(e, ter_sim_hash(e->sim) == junk_hash);
	return true;
}

static bool after_format(struct eng *e, struct run *run)
{
	e->force = run->times == 0 && !strcmp(run->point, "io.write"); /* then there may be a part of a filesystem */
	if (!formatted)
		MUST(e, eng_format(e));
	return good_as_ever(e, run);
}

/* --- starting --- */

static bool started(struct eng *e, struct run *run, bool read_only)
{
	int r;

	arm(e, run);
	r = eng_start(e, read_only, e->absent >= 0 ? TER_DEGRADED_YES : -1);
	disarm(run);
	return r >= 0 || explained(e, run, r);
}

static bool work_start(struct eng *e, struct run *run)
{
	SAY(started(e, run, false));
	if (!e->fs)
		return true;
	SAY(eng_judge(e, UINT64_MAX) && eng_fsck_clean(e));
	return true;
}

static bool work_start_read_only(struct eng *e, struct run *run)
{
	const uint64_t hash = ter_sim_hash(e->sim);

	SAY(started(e, run, true));
	if (e->fs) {
		SAY(eng_judge(e, UINT64_MAX) && eng_fsck_clean(e));
		MUST(e, eng_stop(e));
	}
	ENG_CHECK(e, ter_sim_hash(e->sim) == hash);
	return true;
}

/* --- at work --- */

/* Bytes, or an error; never others. */
static bool read_some(struct eng *e, const struct run *run)
{
	static uint8_t data[TM_FILE_MAX + 1];

	for (unsigned i = 0; i < TM_NODES_MAX; i++) {
		const struct tm_node *n = &e->tm->nodes[i];
		int64_t r;

		if (!n->used || !n->nlink || !S_ISREG(n->mode) || eng_below(e, 3))
			continue;
		r = read_all(e->vfs, n->node, data, sizeof(data));
		if (r < 0 && !ter_fault_fired(run->point))
			return eng_fail(e, "a read fails, but nothing was made to: %d", (int)r);
		if (r >= 0 && (uint64_t)r != n->size)
			return eng_fail(e, "a read of file %llx gives %lld bytes, not %llu", (unsigned long long)n->node, (long long)r, (unsigned long long)n->size);
		for (int64_t at = 0; at < r; at++)
			if (data[at] != n->data[at])
				return eng_fail(e, "a read of file %llx: byte %lld of %lld is %02x, not %02x", (unsigned long long)n->node, (long long)at,
						(long long)r, data[at], n->data[at]);
	}
	return true;
}

static bool mixed_steps(struct eng *e, const struct run *run)
{
	for (unsigned i = 0; i < MIX_STEPS && !e->unsettled; i++) {
		SAY(eng_step(e));
		if (i % 10 == 9)
			SAY(read_some(e, run));
		if (i % 30 == 29)
			ter_sleep_ns(e->exec, 5000000000ull); /* everything is due */
	}
	return true;
}

static bool work_mix(struct eng *e, struct run *run)
{
	bool ok;

	MUST(e, eng_start(e, false, e->absent >= 0 ? TER_DEGRADED_YES : -1));
	e->rnd = e->seed + 77;
	arm(e, run);
	ok = mixed_steps(e, run);
	eng_settle(e);
	disarm(run);
	return ok && sound(e);
}

static bool work_sync(struct eng *e, struct run *run)
{
	bool ok;

	MUST(e, eng_start(e, false, -1));
	SAY(steps(e, 40));
	arm(e, run);
	ok = eng_sync_all(e);
	disarm(run);
	return ok && sound(e);
}

static bool work_remount(struct eng *e, struct run *run)
{
	int r;

	MUST(e, eng_start(e, false, -1));
	SAY(steps(e, 30));
	arm(e, run);
	ter_error_clear(&e->error);
	r = ter_fs_set_read_only(e->fs, true, &e->error);
	if (r >= 0) {
		ter_error_clear(&e->error);
		r = ter_fs_set_read_only(e->fs, false, &e->error);
	}
	disarm(run);
	if (r < 0)
		SAY(explained(e, run, r));
	SAY(sound(e));
	if (r >= 0)
		SAY(steps(e, 10));
	return true;
}

static bool work_stop(struct eng *e, struct run *run)
{
	struct ter_fs_status status;
	int r;

	MUST(e, eng_start(e, false, -1));
	SAY(steps(e, 40));
	eng_settle(e);
	arm(e, run);
	ter_error_clear(&e->error);
	r = ter_fs_stop(e->fs, &e->error);
	disarm(run);
	ter_fs_get_status(e->fs, &status);
	eng_close(e);
	if (r < 0)
		return explained(e, run, r);
	return e->unsettled || e->events[TER_EVENT_EMERGENCY] > 0 || eng_stopped(e);
}

static bool work_fsck(struct eng *e, struct run *run)
{
	int64_t r;

	MUST(e, eng_start(e, false, -1));
	SAY(steps(e, 30));
	arm(e, run);
	ter_error_clear(&e->error);
	r = ter_fs_fsck(e->fs, NULL, NULL, &e->error);
	disarm(run);
	if (r > 0)
		return eng_fail(e, "fsck finds %lld contradictions where there are none", (long long)r);
	if (r < 0)
		SAY(explained(e, run, (int)r));
	return sound(e);
}

static bool work_options(struct eng *e, struct run *run)
{
	static const struct { const char *name, *text; } set[] = { { "compression", "rle" }, { "data_checksum", "none" }, { "inline_data_max", "0" } };
	struct ter_fs_status before, after;
	int r = 0;

	MUST(e, eng_start(e, false, -1));
	arm(e, run);
	for (unsigned i = 0; i <= ARRAY_SIZE(set) && r >= 0; i++) {
		ter_fs_get_status(e->fs, &before);
		ter_error_clear(&e->error);
		r = i < ARRAY_SIZE(set) ? ter_fs_set_option(e->fs, set[i].name, set[i].text, true, &e->error) :
					  ter_fs_set_label(e->fs, "another", &e->error);
		ter_fs_get_status(e->fs, &after);
	}
	disarm(run);
	if (r < 0) {
		SAY(explained(e, run, r));
		ENG_CHECK(e, !memcmp(&before.options, &after.options, sizeof(before.options)) && !strcmp(before.label, after.label));
	}
	SAY(steps(e, 10));
	return sound(e);
}

static const struct workload workloads[] = {
	{ "format", &small_layout, prepare_junk, false, work_format, after_format },
	{ "start", &small_layout, prepare_used, false, work_start, good_as_ever },
	{ "start-crashed", &small_layout, prepare_crashed, true, work_start, good_as_ever },
	{ "start-crashed-one", &eng_layouts[3], prepare_crashed, true, work_start, good_as_ever },
	{ "start-read-only", &small_layout, prepare_crashed, true, work_start_read_only, good_as_ever },
	{ "start-degraded", &small_layout, prepare_degraded, false, work_start, good_as_ever },
	{ "mix", &small_layout, prepare_used, false, work_mix, good_as_ever },
	{ "mix-one", &eng_layouts[3], prepare_used, false, work_mix, good_as_ever },
	{ "mix-degraded", &small_layout, prepare_degraded, false, work_mix, good_as_ever },
	{ "sync", &small_layout, prepare_used, false, work_sync, good_as_ever },
	{ "remount", &small_layout, prepare_used, false, work_remount, good_as_ever },
	{ "stop", &small_layout, prepare_used, false, work_stop, good_as_ever },
	{ "fsck", &small_layout, prepare_used, false, work_fsck, good_as_ever },
	{ "options", &small_layout, prepare_used, false, work_options, good_as_ever },
};

/* --- one run --- */

static void work_main(struct eng *e, void *arg)
{
	struct run *run = arg;

	(void)(run->workload->work(e, run) && take_down(e, run));
	ter_fault_disarm_all();
	eng_close(e);
}

static void after_main(struct eng *e, void *arg)
{
	struct run *run = arg;

	(void)run->workload->after(e, run);
	eng_close(e);
}

static void do_run(struct eng *e, struct run *run)
{
	char line[200];

	snprintf(line, sizeof(line), "TER_TEST_SEED=%llu TER_FAULT_RUN=%s:%s:%lld:%llu", (unsigned long long)e->seed, run->workload->name, run->point,
		 (long long)run->nth, (unsigned long long)run->times);
	eng_guard(line, RUN_SECONDS);
	ter_sim_record(e->sim, true);
	eng_run(e, work_main, run);
	ter_sim_record(e->sim, false);
	e->faulty = false;
	if (!e->failed)
		eng_run(e, after_main, run);
	eng_guard("", 0);
	if (e->failed) {
		snprintf(run->text, sizeof(run->text), "%s: op %u (%s): %.900s", line, e->ops_nr, e->last_op ? e->last_op : "none", e->why);
		fprintf(stderr, "%s\n", run->text);
	}
}

/* --- children --- */

static struct {
	struct run *run; /* JOBS_MAX + 1, shared with the children */
	pid_t pid[JOBS_MAX];
	unsigned running, runs, fired, failures;
} jobs;

static void reap_one(void)
{
	int status;
	pid_t pid = wait(&status);

	for (unsigned i = 0; i < JOBS_MAX; i++) {
		if (jobs.pid[i] != pid)
			continue;
		jobs.pid[i] = 0;
		jobs.running--;
		jobs.fired += jobs.run[i].fired > 0;
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			jobs.failures++; /* it has said so */
		return;
	}
	fail_msg("a child that is not ours: %d", (int)pid);
}

static void child(struct eng *e, struct run *run)
{
#ifdef __SANITIZE_ADDRESS__
	__lsan_enable();
#endif
	do_run(e, run);
	if (e->tm)
		eng_model_free(e);
#ifdef __SANITIZE_ADDRESS__
	exit(e->failed ? 1 : 0); /* looks for leaks */
#else
	_exit(e->failed ? 1 : 0);
#endif
}

static struct run *fork_run(struct eng *e, const struct run *run)
{
	unsigned i = 0;

	while (jobs.running == JOBS_MAX)
		reap_one();
	while (jobs.pid[i])
		i++;
	jobs.run[i] = *run;
	jobs.runs++;
	fflush(NULL); /* not twice */
	jobs.pid[i] = fork();
	if (jobs.pid[i] < 0)
		fail_msg("no child");
	if (jobs.pid[i] == 0)
		child(e, &jobs.run[i]);
	jobs.running++;
	return &jobs.run[i];
}

static void reap_all(void)
{
	while (jobs.running)
		reap_one();
}

/* --- walks --- */

static struct {
	const char *name;
	uint64_t calls;
} points[POINTS_MAX];
static unsigned points_nr;

static void note_point(void *arg, const struct ter_fault_point *point)
{
	(void)arg;
	if (points_nr < POINTS_MAX)
		points[points_nr++].name = point->name;
}

static uint64_t runs_per_walk(void)
{
	const char *text = getenv("TER_FAULTS");

	return !text ? RUNS : !strcmp(text, "all") ? NEVER : strtoull(text, NULL, 0);
}

/* All n up to what is allowed, else one of each stride, the strides growing. */
static void walk(struct eng *e, const struct workload *w, const char *point, uint64_t times, uint64_t calls)
{
	uint64_t max = runs_per_walk(), from = 1;

	if (!strcmp(point, "mem.alloc") && max < NEVER / 4)
		max *= 4;
	for (uint64_t i = 0; i < ter_min(max, calls) && jobs.failures < FAILURES_MAX; i++) {
		const double share = (double)(i + 1) / (double)max;
		const uint64_t to = calls <= max ? i + 1 : ter_max(i + 1, (uint64_t)((double)calls * share * share));
		const struct run run = { .workload = w, .point = point, .times = times, .nth = from + eng_rnd(e) % (to - from + 1) };

		(void)fork_run(e, &run);
		from = to + 1;
	}
}

static uint64_t count_calls(struct eng *e, const struct workload *w, const char *point)
{
	const struct run run = { .workload = w, .point = point, .nth = NEVER, .times = 1 };
	struct run *ret = fork_run(e, &run);

	reap_all();
	return ret->calls;
}

static struct eng *prepared(const struct workload *w)
{
	struct eng *e = eng_new(w->layout, eng_seed());

	eng_guard(w->name, 100);
	eng_model_new(e);
	w->prepare(e);
	eng_guard("", 0);
	return e;
}

static void walk_workload(void **state)
{
	const struct workload *w = *state;
	const char *only = getenv("TER_FAULT_POINT");
	struct eng *e = prepared(w);
	const unsigned runs = jobs.runs, fired = jobs.fired, failures = jobs.failures;
	unsigned reached = 0;

	for (unsigned i = 0; i < points_nr; i++) {
		const uint64_t calls = only && strcmp(only, points[i].name) ? 0 : count_calls(e, w, points[i].name);

		points[i].calls += calls;
		reached += calls > 0;
		for (uint64_t times = 0; times < 3; times++) /* 2: what is tried again fails again, and later does not */
			walk(e, w, points[i].name, times, calls);
		reap_all();
	}
	fprintf(stderr, "%s: %u points, %u runs, %u in which a call failed, %u failures\n", w->name, reached, jobs.runs - runs, jobs.fired - fired,
		jobs.failures - failures);
	eng_free(e);
	assert_int_equal(jobs.failures, failures);
}

/* --- points that no workload reaches --- */

static void an_algorithm_that_cannot_be_added(void **state)
{
	const struct ter_fault_rule rule = { .times = 1 };
	static struct ter_codecs codecs;

	(void)state;
	assert_int_equal(ter_fault_arm("codec.add", &rule), 0);
	assert_int_equal(ter_codecs_add(&codecs, &fake_rle.algo), -ELIBBAD);
	ter_fault_disarm_all();
	assert_int_equal(codecs.nr, 0);
	assert_int_equal(ter_codecs_add(&codecs, &fake_rle.algo), 0);
}

static void a_backend_that_cannot_be_set_up(void **state)
{
	const struct ter_fault_rule rule = { .times = 1 };
	struct ter_exec *exec = ter_exec_new_threads();
	struct ter_error error = { 0 };
	struct ter_io *io;

	(void)state;
	assert_int_equal(ter_fault_arm("io.setup", &rule), 0);
	assert_true(ter_io_new(exec, NULL, &io, &error) < 0);
	ter_fault_disarm_all();
	assert_true(error.kind == TER_ERR_FAULT_INJECTED && error.text[0]);
	ter_exec_free(exec);
}

/* Those of a real backend only, and the two above. */
static void no_point_is_left_out(void **state)
{
	static const char *const elsewhere[] = { "codec.add", "io.setup", "io.short" };

	(void)state;
	for (unsigned i = 0; i < points_nr; i++) {
		bool known = points[i].calls > 0;

		for (unsigned k = 0; k < ARRAY_SIZE(elsewhere); k++)
			known |= !strcmp(points[i].name, elsewhere[k]);
		if (!known)
			fail_msg("no workload comes to the fault point %s", points[i].name);
	}
}

static int set_up(void **state)
{
	(void)state;
	ter_fault_each(note_point, NULL);
	jobs.run = mmap(NULL, JOBS_MAX * sizeof(jobs.run[0]), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return jobs.run == MAP_FAILED ? -1 : 0;
}

static int one_run(const char *text)
{
	char name[32], point[32];
	long long nth;
	unsigned long long times;

	if (sscanf(text, "%31[^:]:%31[^:]:%lld:%llu", name, point, &nth, &times) != 4)
		return 2;
	for (unsigned i = 0; i < ARRAY_SIZE(workloads); i++) {
		struct run run = { .workload = &workloads[i], .point = point, .nth = (uint64_t)nth, .times = times };
		struct eng *e;
		int r;

		if (strcmp(workloads[i].name, name) != 0)
			continue;
		e = prepared(&workloads[i]);
		do_run(e, &run);
		fprintf(stderr, "%llu calls, %llu failed; operations that failed: %u (%d)\n", (unsigned long long)run.calls, (unsigned long long)run.fired,
			e->failures, e->fault_r);
		r = e->failed;
		eng_free(e);
		return r;
	}
	return 2;
}

int main(void)
{
	const char *only = getenv("TER_FAULT_RUN"), *workload = getenv("TER_FAULT_WORKLOAD");
	struct CMUnitTest tests[ARRAY_SIZE(workloads) + 3];
	unsigned nr = 0;

	if (only)
		return one_run(only);
#ifdef __SANITIZE_ADDRESS__
	__lsan_disable(); /* what this process has is no leak of its children */
#endif
	for (unsigned i = 0; i < ARRAY_SIZE(workloads); i++)
		if (!workload || !strcmp(workload, workloads[i].name))
			tests[nr++] = (struct CMUnitTest){ .name = workloads[i].name, .test_func = walk_workload, .initial_state = (void *)&workloads[i] };
	if (!workload && !getenv("TER_FAULT_POINT")) {
		tests[nr++] = (struct CMUnitTest)cmocka_unit_test(an_algorithm_that_cannot_be_added);
		tests[nr++] = (struct CMUnitTest)cmocka_unit_test(a_backend_that_cannot_be_set_up);
		tests[nr++] = (struct CMUnitTest)cmocka_unit_test(no_point_is_left_out);
	}
	return _cmocka_run_group_tests("faults", tests, nr, set_up, NULL);
}
