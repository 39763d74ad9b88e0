/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One seed, one run: the whole engine writes the same bytes to the same places in the same order, twice; and another seed does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_rig.h"

#define STEPS 300
#define TEST_SECONDS 100

static void format_main(struct eng *e, void *arg)
{
	if (eng_format(e) < 0)
		eng_fail(e, "format: %s", e->error.text);
}

static bool work(struct eng *e)
{
	for (unsigned cycle = 0; cycle < 2; cycle++) {
		if (eng_start(e, false, -1) < 0)
			return eng_fail(e, "start: %s", e->error.text);
		for (unsigned i = 0; i < STEPS / 2; i++) {
			if (!eng_step(e))
				return false;
			if (i % 50 == 49 && !eng_sync_all(e))
				return false;
		}
		eng_settle(e);
		if (eng_stop(e) < 0)
			return eng_fail(e, "stop: %s", e->error.text);
		if (!eng_stopped(e))
			return false;
	}
	return true;
}

static void work_main(struct eng *e, void *arg)
{
	(void)work(e);
	eng_close(e);
}

/* Everything that was submitted, with its bytes, and when it was and was done, in the simulator's count of events. */
static uint64_t hash_of(const struct ter_sim_trace *trace)
{
	uint64_t h = 1469598103934665603ull;

	for (unsigned i = 0; i < trace->entry_nr; i++) {
		const struct ter_sim_entry *entry = &trace->entry[i];
		const uint64_t what[] = { entry->device_idx, entry->op, entry->flags, entry->offset_bytes, entry->bytes, entry->submit, entry->complete };

		h = eng_hash_bytes(h, what, sizeof(what));
		if (entry->op == TER_BIO_WRITE)
			h = eng_hash_bytes(h, entry->data, entry->bytes);
	}
	return h;
}

static uint64_t one_run(unsigned layout, uint64_t seed, unsigned *ret_entries)
{
	struct eng *e = eng_new(&eng_layouts[layout], seed);
	struct ter_sim_trace *trace;
	uint64_t hash;

	eng_guard(e->layout.name, TEST_SECONDS);
	ter_sim_record(e->sim, true);
	eng_run(e, format_main, NULL);
	eng_model_new(e);
	if (!e->failed)
		eng_run(e, work_main, NULL);
	if (e->failed)
		fail_msg("%s, seed %llu: %s", e->layout.name, (unsigned long long)seed, e->why);
	trace = ter_sim_trace_take(e->sim);
	*ret_entries = trace->entry_nr;
	hash = hash_of(trace);
	ter_sim_trace_free(trace);
	eng_guard("", 0);
	eng_free(e);
	return hash;
}

static void one_seed_is_one_run(void **state)
{
	const uint64_t seed = eng_seed();

	(void)state;
	for (unsigned layout = 0; layout < eng_layouts_nr; layout++) {
		unsigned entries, again, others;
		const uint64_t hash = one_run(layout, seed, &entries);

		assert_true(entries > STEPS / 4);
		assert_true(one_run(layout, seed, &again) == hash);
		assert_int_equal(again, entries);
		assert_true(one_run(layout, seed + 1, &others) != hash);
		printf("%s: %u requests, %016llx twice\n", eng_layouts[layout].name, entries, (unsigned long long)hash);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_seed_is_one_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
