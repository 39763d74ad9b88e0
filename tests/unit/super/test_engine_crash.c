/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts at any moment of a workload, and again during the recovery: what is found is what the oracle allows, and the pool goes on
 *
 * TER_TEST_SEED, TER_CRASH_STATES (per layout), TER_CRASH_OPS. A failure prints TER_CRASH_CUT=layout:event:variant[:event:variant], which with the seed does that state alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_rig.h"

#define OPS 700
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STATES 150 /* each is ten times as slow */
#else
#define STATES 350
#endif
#define STATE_SECONDS 60 /* of real time; one that takes longer hangs */
#define FAILURES_MAX 5
#define SECOND_CUT_ONE_IN 6
#define VARIANTS 12

struct cut_id {
	unsigned layout, variant, variant2;
	uint64_t at, at2; /* at2 0: no second cut */
};

/* --- the workload --- */

static void format_main(struct eng *e, void *arg)
{
	(void)arg;
	if (eng_format(e) < 0)
		eng_fail(e, "format: %s", e->error.text);
}

static void workload_main(struct eng *e, void *arg)
{
	const unsigned ops = *(const unsigned *)arg;

	for (unsigned life = 0; life < 2 && !e->failed; life++) {
		if (eng_start(e, false, -1) < 0) {
			eng_fail(e, "start: %s", e->error.text);
			return;
		}
		for (unsigned i = 0; i < ops / 2 && eng_step(e); i++)
			;
		if (!e->failed)
			(void)(eng_compare(e) && eng_fsck_clean(e));
		if (eng_stop(e) < 0)
			eng_fail(e, "stop: %s", e->error.text);
		eng_stopped(e);
	}
}

static struct ter_sim_trace *run_workload(struct eng *e)
{
	const char *text = getenv("TER_CRASH_OPS");
	unsigned ops = text ? (unsigned)strtoul(text, NULL, 0) : OPS;

	eng_guard("the workload", 600);
	eng_run(e, format_main, NULL);
	eng_model_new(e);
	ter_sim_record(e->sim, true);
	if (!e->failed)
		eng_run(e, workload_main, &ops);
	eng_guard("", 0);
	return ter_sim_trace_take(e->sim);
}

/* --- one state --- */

static struct ter_sim_cut cut_of(uint64_t at, unsigned variant)
{
	static const struct {
		enum ter_sim_keep keep;
		uint32_t torn;
	} variants[VARIANTS] = {
		{ TER_SIM_KEEP_NONE, 0 }, { TER_SIM_KEEP_ALL, 0 }, { TER_SIM_KEEP_ALL, 512 }, { TER_SIM_KEEP_RANDOM, 0 }, { TER_SIM_KEEP_RANDOM, 0 },
		{ TER_SIM_KEEP_RANDOM, 0 }, { TER_SIM_KEEP_RANDOM, 0 }, { TER_SIM_KEEP_RANDOM, 512 }, { TER_SIM_KEEP_RANDOM, 512 },
		{ TER_SIM_KEEP_RANDOM, 4096 }, { TER_SIM_KEEP_ALL, 4096 }, { TER_SIM_KEEP_RANDOM, 512 },
	};

	return (struct ter_sim_cut){
		.at = at, .keep = variants[variant % VARIANTS].keep, .torn_bytes = variants[variant % VARIANTS].torn, .seed = at * 1000003 + variant,
	};
}

struct state_arg {
	uint64_t at;      /* of the workload's trace */
	bool judge_only;  /* a recovery that will be cut itself */
	int degraded;
};

static bool recover(struct eng *e, const struct state_arg *a)
{
	if (eng_start(e, false, a->degraded) < 0)
		return eng_fail(e, "start after the cut: %s", e->error.text);
	if (!eng_fsck_clean(e) || !eng_judge(e, a->at))
		return false;
	if (a->judge_only)
		return true;
	if (!eng_goes_on(e, 20))
		return false;
	if (eng_stop(e) < 0)
		return eng_fail(e, "stop after recovery: %s", e->error.text);
	if (eng_start(e, false, a->degraded) < 0)
		return eng_fail(e, "start after a clean stop after recovery: %s", e->error.text);
	if (!eng_fsck_clean(e))
		return false;
	if (eng_stop(e) < 0)
		return eng_fail(e, "second stop after recovery: %s", e->error.text);
	return true;
}

static void state_main(struct eng *e, void *arg)
{
	(void)recover(e, arg);
	eng_close(e);
}

static void lose_member(struct eng *e)
{
	e->absent = e->layout.lost;
	if (e->absent >= 0)
		(void)ter_sim_vanish(e->sim, e->path[e->absent]);
}

static void say_cut(struct eng *e, const struct cut_id *id, char *text, size_t bytes)
{
	int n = snprintf(text, bytes, "TER_TEST_SEED=%llu TER_CRASH_CUT=%u:%llu:%u", (unsigned long long)e->seed, id->layout,
			 (unsigned long long)id->at, id->variant);

	if (id->at2)
		snprintf(text + n, bytes - (size_t)n, ":%llu:%u", (unsigned long long)id->at2, id->variant2);
}

static bool try_state(struct eng *e, const struct ter_sim_trace *trace, const struct cut_id *id, bool *ret_seen);

/* The same cut, then others in the middle of what the recovery writes. */
static bool try_second_cut(struct eng *e, const struct ter_sim_trace *trace, const struct cut_id *id)
{
	struct state_arg a = { .at = id->at, .judge_only = true, .degraded = e->layout.lost >= 0 ? TER_DEGRADED_YES : -1 };
	struct ter_sim_cut cut = cut_of(id->at, id->variant);
	struct ter_sim_trace *recovery;
	struct eng_machine before;
	struct cut_id second = *id;
	char line[200];
	bool ok, seen;

	say_cut(e, id, line, sizeof(line));
	eng_guard(line, STATE_SECONDS);
	eng_machine_enter(e, e->seed ^ id->at << 8 ^ id->variant, &before);
	ter_sim_apply(e->sim, trace, &cut);
	lose_member(e);
	ter_sim_record(e->sim, true);
	eng_run(e, state_main, &a);
	recovery = ter_sim_trace_take(e->sim);
	e->absent = -1;
	eng_machine_leave(e, &before);
	eng_guard("", 0);
	ok = !e->failed;
	if (!ok)
		fprintf(stderr, "%s: %s, first recovery: %s\n", line, e->layout.name, e->why);
	if (ok) {
		if (!second.at2) {
			second.at2 = recovery->first_event + eng_rnd(e) % (recovery->last_event - recovery->first_event + 2);
			second.variant2 = (unsigned)(eng_rnd(e) % VARIANTS);
		}
		ok = try_state(e, recovery, &second, &seen);
	}
	ter_sim_trace_free(recovery);
	return ok;
}

#define SEEN_MAX (1u << 18)
static uint64_t seen_hash[SEEN_MAX];

/* The same bytes with no more to be found in them need no second look. */
static bool seen_before(uint64_t hash)
{
	unsigned i = (unsigned)(hash % SEEN_MAX);

	for (unsigned n = 0; n < SEEN_MAX / 2 && seen_hash[i]; n++, i = (i + 1) % SEEN_MAX)
		if (seen_hash[i] == hash)
			return true;
	seen_hash[i] = hash;
	return false;
}

static bool try_state(struct eng *e, const struct ter_sim_trace *trace, const struct cut_id *id, bool *ret_seen)
{
	struct state_arg a = { .at = id->at, .degraded = e->layout.lost >= 0 ? TER_DEGRADED_YES : -1 };
	struct ter_sim_cut cut = id->at2 ? cut_of(id->at2, id->variant2) : cut_of(id->at, id->variant);
	struct eng_machine before;
	char line[200];

	say_cut(e, id, line, sizeof(line));
	eng_guard(line, STATE_SECONDS);
	eng_machine_enter(e, e->seed ^ id->at << 8 ^ id->variant ^ id->at2 << 20 ^ id->variant2 << 4, &before);
	ter_sim_apply(e->sim, trace, &cut);
	*ret_seen = seen_before((ter_sim_hash(e->sim) ^ (uint64_t)eng_floor_at(e, id->at) << 32 ^ (uint64_t)id->layout << 56) | 1);
	if (!*ret_seen) {
		lose_member(e);
		eng_run(e, state_main, &a);
		e->absent = -1;
	}
	eng_machine_leave(e, &before);
	eng_guard("", 0);
	if (!e->failed)
		return true;
	fprintf(stderr, "%s: %s: %s\n", line, e->layout.name, e->why);
	return false;
}

/* --- all of them --- */

static bool asked_for(struct cut_id *id)
{
	const char *text = getenv("TER_CRASH_CUT");
	unsigned long long at = 0, at2 = 0;

	*id = (struct cut_id){ 0 };
	if (!text || sscanf(text, "%u:%llu:%u:%llu:%u", &id->layout, &at, &id->variant, &at2, &id->variant2) < 3)
		return false;
	id->at = at;
	id->at2 = at2;
	return true;
}

static void crash_layout(unsigned layout)
{
	const char *text = getenv("TER_CRASH_STATES");
	const unsigned states = text ? (unsigned)strtoul(text, NULL, 0) : STATES;
	struct eng *e = eng_new(&eng_layouts[layout], eng_seed() + layout);
	unsigned distinct = 0, second = 0, failures = 0;
	struct ter_sim_trace *trace;
	struct cut_id id;
	const bool one = asked_for(&id);

	e->seed -= layout; /* what is printed is what was given */
	if (one && id.layout != layout) {
		eng_free(e);
		return;
	}
	trace = run_workload(e);
	if (e->failed)
		fail_msg("%s: workload, op %u (%s): %s", e->layout.name, e->ops_nr, e->last_op, e->why);
	for (unsigned i = 0; i < (one ? 1 : states) && failures < FAILURES_MAX; i++) {
		const uint64_t events = trace->last_event - trace->first_event + 2;
		bool seen = false, ok;

		if (!one) {
			/* Spread over the whole run, each part with every variant. */
			id = (struct cut_id){ .layout = layout, .variant = i % VARIANTS };
			id.at = trace->first_event + events * i / states + eng_rnd(e) % (events / states + 1);
			id.at = ter_min(id.at, trace->last_event + 1);
		}
		if (id.at2 || (!one && i % SECOND_CUT_ONE_IN == SECOND_CUT_ONE_IN - 1)) {
			ok = try_second_cut(e, trace, &id);
			second++;
		} else {
			ok = try_state(e, trace, &id, &seen);
		}
		distinct += !seen;
		if (!ok) {
			failures++;
			e->failed = false;
		}
	}
	fprintf(stderr, "%s: %u operations, %u events, %u crash states (%u in a recovery), seed %llu\n", e->layout.name, e->ops_nr,
		(unsigned)(trace->last_event - trace->first_event + 1), distinct, second, (unsigned long long)e->seed);
	ter_sim_trace_free(trace);
	eng_free(e);
	assert_int_equal(failures, 0);
}

static void crashes_of_one_member(void **state)
{
	(void)state;
	crash_layout(0);
}

static void crashes_of_two_copies(void **state)
{
	(void)state;
	crash_layout(1);
}

static void crashes_of_three_unequal_members(void **state)
{
	(void)state;
	crash_layout(2);
}

static void crashes_with_one_of_two_lost(void **state)
{
	(void)state;
	crash_layout(4);
}

static void crashes_with_little_space(void **state)
{
	(void)state;
	crash_layout(3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crashes_of_one_member),
		cmocka_unit_test(crashes_of_two_copies),
		cmocka_unit_test(crashes_of_three_unequal_members),
		cmocka_unit_test(crashes_with_little_space),
		cmocka_unit_test(crashes_with_one_of_two_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
