/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A pool's life: clean cycles, read-only, degraded, split, stale and failing members, and everything that can fail on the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_rig.h"
#include "fs/vfs_calls.h"
#include "sb/sb_format.h"
#include "util/fault.h"

#define TEST_SECONDS 250
#define FILE_BYTES 30000

/* --- a test is a list of runs on one rig --- */

struct test {
	struct eng *e;
	bool (*fn)(struct eng *e);
};

static void test_main(struct eng *e, void *arg)
{
	const struct test *t = arg;

	(void)t->fn(e);
	eng_close(e);
}

/* In a run of its own. Asserts outside of it. */
static void run(struct eng *e, bool (*fn)(struct eng *e))
{
	struct test t = { e, fn };

	eng_run(e, test_main, &t);
	if (e->failed)
		fail_msg("seed %llu, op %u (%s): %s", (unsigned long long)e->seed, e->ops_nr, e->last_op ? e->last_op : "none", e->why);
}

static struct eng *fresh(unsigned layout, const char *name)
{
	struct eng *e = eng_new(&eng_layouts[layout], eng_seed());

	eng_guard(name, TEST_SECONDS);
	eng_model_new(e);
	return e;
}

static void done(struct eng *e)
{
	eng_guard("", 0);
	eng_free(e);
}

static bool steps(struct eng *e, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		SAY(eng_step(e));
	return true;
}

static bool just_format(struct eng *e)
{
	MUST(e, eng_format(e));
	return true;
}

static bool start_steps_stop(struct eng *e)
{
	MUST(e, eng_start(e, false, -1));
	SAY(eng_compare(e) && steps(e, 60) && eng_compare(e) && eng_fsck_clean(e));
	MUST(e, eng_stop(e));
	return eng_stopped(e);
}

static bool all_as_it_was(struct eng *e)
{
	MUST(e, eng_start(e, false, e->absent >= 0 ? TER_DEGRADED_YES : -1));
	SAY(eng_compare(e) && eng_fsck_clean(e));
	MUST(e, eng_stop(e));
	return true;
}

/* --- clean cycles --- */

static bool start_and_stop(struct eng *e)
{
	struct ter_fs_status status;

	MUST(e, eng_start(e, false, -1));
	ter_fs_get_status(e->fs, &status);
	ENG_CHECK(e, strstr(status.recovery, "clean"));
	ENG_CHECK(e, status.state == TER_FS_RUNNING && status.access == TER_ACCESS_RW && !status.degraded);
	MUST(e, eng_stop(e));
	return true;
}

static bool start_twice(struct eng *e)
{
	struct ter_error error = { 0 };
	struct ter_fs *second;
	const char *paths[] = { e->path[0] };
	const struct ter_open_params params = { .paths = paths, .paths_nr = 1, .degraded = -1 };

	MUST(e, eng_start(e, false, -1));
	ENG_CHECK(e, ter_fs_start(e->fs, NULL, &error) < 0 && error.kind == TER_ERR_ALREADY_RUNNING);
	ter_error_clear(&error);
	ENG_CHECK(e, ter_fs_open(&e->env, &params, NULL, NULL, &second, &error) < 0 && error.kind == TER_ERR_DEVICE_IN_USE);
	MUST(e, eng_stop(e));
	return true;
}

static void clean_cycles(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 3; layout++) {
		struct eng *e = fresh(layout, "clean_cycles");

		run(e, just_format);
		run(e, start_and_stop);
		for (unsigned i = 0; i < 5; i++) {
			run(e, start_steps_stop);
			run(e, start_and_stop);
			run(e, all_as_it_was);
		}
		run(e, start_twice);
		done(e);
	}
}

/* --- read-only --- */

static bool work_and_die(struct eng *e)
{
	const struct ter_sim_cut cut = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .seed = 5 };

	MUST(e, eng_start(e, false, -1));
	SAY(steps(e, 80) && eng_sync_all(e) && steps(e, 20));
	eng_settle(e);
	ter_sim_power_off_after(e->sim, 0);
	ter_fs_close(e->fs); /* whatever it would write: the power is off */
	e->fs = NULL;
	ter_sim_cut(e->sim, &cut);
	return true;
}

static bool read_only_writes_nothing(struct eng *e)
{
	struct ter_sim_stats before, after;
	struct ter_error error = { 0 };
	struct ter_attr attr;
	uint64_t hash = ter_sim_hash(e->sim);

	ter_sim_get_stats(e->sim, &before);
	MUST(e, eng_start(e, true, -1));
	SAY(eng_fsck_clean(e) && eng_judge(e, UINT64_MAX));
	ENG_CHECK(e, ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, "never", S_IFREG | 0600, 0, NULL, &attr) == -EROFS);
	ENG_CHECK(e, ter_fs_set_read_only(e->fs, false, &error) < 0);
	MUST(e, ter_fs_sync(e->fs));
	ter_sleep_ns(e->exec, 10000000000ull);
	MUST(e, eng_stop(e));
	ter_sim_get_stats(e->sim, &after);
	ENG_CHECK(e, after.writes == before.writes && after.discards == before.discards && after.flushes == before.flushes);
	ENG_CHECK(e, ter_sim_hash(e->sim) == hash);
	return true;
}

static bool recovered_read_write(struct eng *e)
{
	struct ter_fs_status status;

	MUST(e, eng_start(e, false, -1));
	ter_fs_get_status(e->fs, &status);
	ENG_CHECK(e, strstr(status.recovery, "replayed"));
	SAY(eng_fsck_clean(e) && eng_judge(e, UINT64_MAX) && eng_goes_on(e, 30) && eng_fsck_clean(e));
	MUST(e, eng_stop(e));
	return true;
}

static void a_read_only_start_after_a_crash_changes_nothing(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 3; layout++) {
		struct eng *e = fresh(layout, "a_read_only_start_after_a_crash_changes_nothing");

		run(e, just_format);
		ter_sim_record(e->sim, true);
		run(e, work_and_die);
		ter_sim_record(e->sim, false);
		run(e, read_only_writes_nothing);
		run(e, recovered_read_write);
		done(e);
	}
}

static bool to_and_fro(struct eng *e)
{
	struct ter_attr attr;

	MUST(e, eng_start(e, false, -1));
	for (unsigned i = 0; i < 4; i++) {
		uint64_t hash;

		SAY(steps(e, 40));
		MUST(e, ter_fs_set_read_only(e->fs, true, &e->error));
		hash = ter_sim_hash(e->sim);
		SAY(eng_compare(e) && eng_fsck_clean(e));
		ENG_CHECK(e, ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, "never", S_IFREG | 0600, 0, NULL, &attr) == -EROFS);
		MUST(e, ter_fs_set_read_only(e->fs, true, &e->error)); /* as it is */
		ter_sleep_ns(e->exec, 5000000000ull);
		ENG_CHECK(e, ter_sim_hash(e->sim) == hash);
		MUST(e, ter_fs_set_read_only(e->fs, false, &e->error));
		SAY(eng_compare(e));
	}
	SAY(steps(e, 40) && eng_compare(e) && eng_fsck_clean(e));
	MUST(e, eng_stop(e));
	return eng_stopped(e);
}

static void read_only_and_back(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 3; layout++) {
		struct eng *e = fresh(layout, "read_only_and_back");

		run(e, just_format);
		run(e, to_and_fro);
		run(e, all_as_it_was);
		done(e);
	}
}

/* --- members missing, stale, split --- */

static bool degraded_answers(struct eng *e)
{
	struct ter_fs_status status;

	ENG_CHECK(e, eng_open(e, false, TER_DEGRADED_NO) < 0 && e->error.kind == TER_ERR_INCOMPLETE);
	ENG_CHECK(e, eng_open(e, false, TER_DEGRADED_ASK) < 0 && e->error.kind == TER_ERR_DEGRADED && strstr(e->error.text, "--degraded=yes"));
	MUST(e, eng_start(e, false, TER_DEGRADED_YES));
	ter_fs_get_status(e->fs, &status);
	ENG_CHECK(e, status.degraded && status.devs_online == 1 && status.devs_nr == 2);
	SAY(eng_compare(e) && eng_fsck_clean(e) && steps(e, 60) && eng_compare(e) && eng_fsck_clean(e));
	MUST(e, eng_stop(e));
	return eng_stopped(e);
}

static void without(struct eng *e, int member)
{
	if (e->absent >= 0)
		assert_int_equal(ter_sim_come_back(e->sim, e->path[e->absent]), 0);
	e->absent = member;
	if (member >= 0)
		assert_int_equal(ter_sim_vanish(e->sim, e->path[member]), 0);
}

static bool refused_without(struct eng *e)
{
	ENG_CHECK(e, eng_open(e, false, TER_DEGRADED_YES) < 0);
	ENG_CHECK(e, e->error.kind == TER_ERR_DEGRADED || e->error.kind == TER_ERR_WOULD_LOSE_METADATA);
	return true;
}

static void a_lost_member_is_asked_about_and_may_return(void **state)
{
	(void)state;
	for (int lost = 1; lost >= 0; lost--) {
		struct eng *e = fresh(1, "a_lost_member_is_asked_about_and_may_return");

		run(e, just_format);
		run(e, start_steps_stop);
		without(e, lost);
		run(e, degraded_answers);
		run(e, all_as_it_was);
		without(e, -1);
		run(e, all_as_it_was);
		run(e, start_steps_stop);
		run(e, all_as_it_was);
		/* What was written meanwhile has its only copy on the other one. */
		without(e, !lost);
		run(e, refused_without);
		without(e, -1);
		run(e, all_as_it_was);
		done(e);
	}
}

static void what_has_one_copy_needs_its_member(void **state)
{
	struct eng_layout layout = eng_layouts[1];
	struct eng *e;

	(void)state;
	layout.replicas = 1;
	e = eng_new(&layout, eng_seed());
	eng_guard("what_has_one_copy_needs_its_member", TEST_SECONDS);
	eng_model_new(e);
	run(e, just_format);
	run(e, start_steps_stop);
	run(e, start_steps_stop);
	for (int lost = 0; lost < 2; lost++) {
		without(e, lost);
		run(e, refused_without);
	}
	without(e, -1);
	run(e, all_as_it_was);
	done(e);
}

static bool some_degraded_work(struct eng *e)
{
	MUST(e, eng_start(e, false, TER_DEGRADED_YES));
	SAY(eng_goes_on(e, 10));
	MUST(e, eng_stop(e));
	return true;
}

static bool split_brain(struct eng *e)
{
	ENG_CHECK(e, eng_open(e, false, TER_DEGRADED_VERY) < 0 && e->error.kind == TER_ERR_SPLIT_BRAIN);
	return true;
}

static void two_histories_are_not_merged(void **state)
{
	struct eng *e = fresh(1, "two_histories_are_not_merged");

	(void)state;
	run(e, just_format);
	run(e, start_steps_stop);
	without(e, 0);
	run(e, some_degraded_work);
	without(e, 1);
	run(e, some_degraded_work);
	without(e, -1);
	run(e, split_brain);
	without(e, 1); /* either side is good on its own */
	run(e, some_degraded_work);
	without(e, 0);
	run(e, some_degraded_work);
	done(e);
}

/* --- damage to superblocks --- */

static void a_damaged_superblock_copy_is_healed(void **state)
{
	struct eng *e = fresh(0, "a_damaged_superblock_copy_is_healed");
	uint64_t at[TER_SB_COPIES];

	(void)state;
	run(e, just_format);
	run(e, start_steps_stop);
	ter_sb_copy_offsets(e->layout.dev_bytes[0], at);
	for (unsigned good = 0; good < TER_SB_COPIES; good++) {
		/* Only one is left; after a start and stop each of the others will do. */
		for (unsigned i = 0; i < TER_SB_COPIES; i++)
			if (i != good)
				assert_int_equal(ter_sim_corrupt(e->sim, e->path[0], at[i] + 8, 2000), 0);
		run(e, all_as_it_was);
	}
	done(e);
}

/* --- devices that fail at work --- */

static int keep_busy(struct eng *e, unsigned nr)
{
	static uint8_t data[FILE_BYTES];
	int r = 0;

	for (unsigned i = 0; i < nr && r >= 0; i++) {
		struct ter_attr attr;
		char name[32];

		snprintf(name, sizeof(name), "file %llx", (unsigned long long)eng_rnd(e));
		r = ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, name, S_IFREG | 0600, 0, NULL, &attr);
		if (r >= 0)
			r = write_at(e->vfs, attr.node, 0, data, sizeof(data));
		if (r >= 0 && i % 4 == 0)
			r = fsync_wait(e->vfs, &root_op, attr.node);
		if (r >= 0 && i % 7 == 0)
			ter_sleep_ns(e->exec, 1000000000);
	}
	return r;
}

static enum ter_bio_op failing_op;
static unsigned failing_member;

static bool goes_on_or_stops(struct eng *e)
{
	struct ter_fs_status status;
	int r;

	MUST(e, eng_start(e, false, -1));
	SAY(steps(e, 40) && eng_sync_all(e) && eng_compare(e));
	MUST(e, ter_sim_fail(e->sim, e->path[failing_member], failing_op, 3, true));
	r = keep_busy(e, 60);
	if (r >= 0)
		r = ter_fs_sync(e->fs);
	ter_fs_get_status(e->fs, &status);
	/* Writes that are refused, and nothing of it said, would be the worst. */
	ENG_CHECK(e, r >= 0 || status.access == TER_ACCESS_EMERGENCY_RO);
	ENG_CHECK(e, e->events[TER_EVENT_DEVICE_ERROR] > 0 || e->events[TER_EVENT_EMERGENCY] > 0);
	if (status.access == TER_ACCESS_RW) {
		struct ter_error error = { 0 };

		(void)ter_fs_stop(e->fs, &error); /* may say that the superblock is not on all */
	}
	return true;
}

static bool what_was_synced_is_there(struct eng *e)
{
	struct ter_attr attr;

	MUST(e, eng_start(e, false, -1));
	SAY(eng_fsck_clean(e));
	for (unsigned i = 0; i < e->tm->root->entries_nr; i++) {
		MUST(e, ter_vfs_lookup(e->vfs, &root_op, TER_NODE_ROOT, e->tm->root->entry[i].name, &attr));
		ENG_CHECK(e, attr.node == e->tm->root->entry[i].node->node);
		if (S_ISREG(attr.mode)) {
			static uint8_t data[TM_FILE_MAX];

			ENG_CHECK(e, read_all(e->vfs, attr.node, data, sizeof(data)) == (int64_t)e->tm->root->entry[i].node->size);
			ENG_CHECK(e, !memcmp(data, e->tm->root->entry[i].node->data, e->tm->root->entry[i].node->size));
		}
	}
	MUST(e, eng_stop(e));
	return true;
}

static void a_member_that_fails_does_not_hang_the_pool(void **state)
{
	static const enum ter_bio_op ops[] = { TER_BIO_WRITE, TER_BIO_FLUSH };

	(void)state;
	for (unsigned layout = 0; layout < 3; layout++)
		for (unsigned op = 0; op < ARRAY_SIZE(ops); op++)
			for (failing_member = 0; failing_member < eng_layouts[layout].devs; failing_member++) {
				struct eng *e = fresh(layout, "a_member_that_fails_does_not_hang_the_pool");

				failing_op = ops[op];
				run(e, just_format);
				run(e, goes_on_or_stops);
				ter_sim_fail_none(e->sim);
				run(e, what_was_synced_is_there);
				done(e);
			}
}

static size_t write_bytes; /* of each write */

/* More than the dirty buffer holds, and nothing of it can be written back. */
static bool writes_until_an_error(struct eng *e)
{
	static uint8_t data[TER_KIB(256)];
	uint64_t written = 0;
	struct ter_attr attr;
	char name[32];
	int r = 0;

	MUST(e, eng_start(e, false, -1));
	for (unsigned i = 0; i < e->layout.devs; i++)
		MUST(e, ter_sim_fail(e->sim, e->path[i], TER_BIO_WRITE, 20, true));
	for (unsigned i = 0; r >= 0 && written < TER_MIB(64); i++, written += write_bytes) {
		snprintf(name, sizeof(name), "file %u", i / 8);
		r = i % 8 ? 0 : ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, name, S_IFREG | 0600, 0, NULL, &attr);
		if (r >= 0)
			r = write_at(e->vfs, attr.node, i % 8 * write_bytes, data, write_bytes);
	}
	ENG_CHECK(e, r == -EIO || r == -ENOSPC || r == -EROFS);
	return true;
}

static void a_writer_is_told_when_nothing_can_be_written_back(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 3; layout++)
		for (write_bytes = 4096; write_bytes <= TER_KIB(256); write_bytes *= 8) {
			struct eng *e = fresh(layout, "a_writer_is_told_when_nothing_can_be_written_back");

			run(e, just_format);
			run(e, writes_until_an_error);
			done(e);
		}
}

/* --- every single failure on the way up --- */

static void scribble(struct eng *e)
{
	static uint8_t junk[TER_KIB(256)];

	for (unsigned d = 0; d < e->layout.devs; d++)
		for (uint64_t at = 0; at < e->layout.dev_bytes[d]; at += sizeof(junk)) {
			const uint64_t bytes = ter_min((uint64_t)sizeof(junk), e->layout.dev_bytes[d] - at);

			for (size_t i = 0; i < bytes; i += 8) {
				const uint64_t x = eng_rnd(e);

				memcpy(junk + i, &x, 8);
			}
			assert_int_equal(ter_sim_poke(e->sim, e->path[d], at, junk, bytes), 0);
		}
}

static int format_result;

static bool try_format(struct eng *e)
{
	format_result = eng_format(e);
	return true;
}

static void a_format_that_fails_leaves_the_members_as_they_were(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 2; layout++)
		for (unsigned d = 0; d < eng_layouts[layout].devs; d++) {
			struct eng *e = fresh(layout, "a_format_that_fails_leaves_the_members_as_they_were");
			struct ter_sim_snapshot *snapshot;
			unsigned nth = 1, failed = 0;
			uint64_t hash;

			scribble(e);
			hash = ter_sim_hash(e->sim);
			snapshot = ter_sim_snapshot_take(e->sim);
			for (;; nth++) {
				assert_int_equal(ter_sim_fail(e->sim, e->path[d], TER_BIO_WRITE, nth, false), 0);
				run(e, try_format);
				ter_sim_fail_none(e->sim);
				/* With two copies one that fails need not matter: none of the writes did for a while. */
				if (format_result >= 0 && nth > failed + 40)
					break;
				if (format_result < 0) {
					failed = nth;
					if (ter_sim_hash(e->sim) != hash)
						fail_msg("write %u failed on member %u: bytes are not as they were before", nth, d);
				}
				ter_sim_restore(e->sim, snapshot, NULL);
			}
			assert_true(failed >= (layout ? 2 : 9));
			ter_sim_snapshot_free(snapshot);
			done(e);
		}
}

static bool try_start(struct eng *e)
{
	if (eng_start(e, false, -1) < 0) {
		ENG_CHECK(e, e->error.kind != TER_ERR_NONE && e->error.text[0]);
		format_result = -1;
		return true;
	}
	format_result = 0;
	/* With one copy a read that failed fails its caller; what is there can be read the next time. */
	if (e->layout.replicas == 1)
		ter_sim_fail_none(e->sim);
	SAY(eng_judge(e, UINT64_MAX));
	return true;
}

/* The members as a crash left them, for starts that fail. */
static struct eng *crashed(unsigned layout, const char *name, struct ter_sim_snapshot **ret_snapshot)
{
	struct eng *e = fresh(layout, name);

	run(e, just_format);
	ter_sim_record(e->sim, true);
	run(e, work_and_die);
	ter_sim_record(e->sim, false);
	*ret_snapshot = ter_sim_snapshot_take(e->sim);
	return e;
}

static void a_start_whose_nth_read_fails(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 2; layout++) {
		struct ter_sim_snapshot *snapshot;
		struct eng *e = crashed(layout, "a_start_whose_nth_read_fails", &snapshot);
		unsigned passed = 0, failed = 0;

		for (unsigned nth = 1; passed < 25 && nth < 400; nth += 1 + nth / 30) {
			assert_int_equal(ter_sim_fail(e->sim, e->path[0], TER_BIO_READ, nth, false), 0);
			run(e, try_start);
			ter_sim_fail_none(e->sim);
			passed = format_result < 0 ? 0 : passed + 1;
			failed += format_result < 0;
			ter_sim_restore(e->sim, snapshot, NULL);
		}
		/* A second copy serves for everything. */
		if (layout == 1)
			assert_int_equal(failed, 0);
		run(e, recovered_read_write);
		ter_sim_snapshot_free(snapshot);
		done(e);
	}
}

static uint64_t fail_at;

static bool start_short_of_memory(struct eng *e)
{
	const struct ter_fault_rule rule = { .nth = fail_at, .times = 1 };
	int r;

	MUST(e, ter_fault_arm("mem.alloc", &rule));
	r = eng_start(e, false, -1);
	ter_fault_disarm_all();
	format_result = r;
	if (r < 0) {
		ENG_CHECK(e, e->error.text[0]);
		return true;
	}
	return eng_judge(e, UINT64_MAX);
}

static void a_start_whose_nth_allocation_fails(void **state)
{
	struct ter_sim_snapshot *snapshot;
	struct eng *e = crashed(1, "a_start_whose_nth_allocation_fails", &snapshot);
	unsigned failed = 0;

	(void)state;
	for (fail_at = 1; fail_at < 20000; fail_at += 1 + fail_at / 60) {
		run(e, start_short_of_memory);
		failed += format_result < 0;
		if (!ter_fault_fired("mem.alloc"))
			break;
		ter_sim_restore(e->sim, snapshot, NULL);
	}
	assert_true(failed > 10);
	ter_sim_restore(e->sim, snapshot, NULL);
	run(e, recovered_read_write);
	ter_sim_snapshot_free(snapshot);
	done(e);
}

static bool format_short_of_memory(struct eng *e)
{
	const struct ter_fault_rule rule = { .nth = fail_at, .times = 1 };

	MUST(e, ter_fault_arm("mem.alloc", &rule));
	format_result = eng_format(e);
	ter_fault_disarm_all();
	return true;
}

static void a_format_whose_nth_allocation_fails(void **state)
{
	struct eng *e = fresh(0, "a_format_whose_nth_allocation_fails");
	struct ter_sim_snapshot *snapshot = ter_sim_snapshot_take(e->sim);
	unsigned failed = 0;

	(void)state;
	for (fail_at = 1; fail_at < 20000; fail_at += 1 + fail_at / 60) {
		run(e, format_short_of_memory);
		failed += format_result < 0;
		if (!ter_fault_fired("mem.alloc"))
			break;
		if (format_result >= 0)
			run(e, all_as_it_was);
		ter_sim_restore(e->sim, snapshot, NULL);
	}
	assert_true(failed > 10);
	ter_sim_snapshot_free(snapshot);
	done(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clean_cycles),
		cmocka_unit_test(a_read_only_start_after_a_crash_changes_nothing),
		cmocka_unit_test(read_only_and_back),
		cmocka_unit_test(a_lost_member_is_asked_about_and_may_return),
		cmocka_unit_test(what_has_one_copy_needs_its_member),
		cmocka_unit_test(two_histories_are_not_merged),
		cmocka_unit_test(a_damaged_superblock_copy_is_healed),
		cmocka_unit_test(a_member_that_fails_does_not_hang_the_pool),
		cmocka_unit_test(a_writer_is_told_when_nothing_can_be_written_back),
		cmocka_unit_test(a_format_that_fails_leaves_the_members_as_they_were),
		cmocka_unit_test(a_start_whose_nth_read_fails),
		cmocka_unit_test(a_start_whose_nth_allocation_fails),
		cmocka_unit_test(a_format_whose_nth_allocation_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
