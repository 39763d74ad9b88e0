/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* I/O errors: one member of two that fails is carried by the other and counted; a sync after a write that failed says so, and claims nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_rig.h"
#include "fs/vfs_calls.h"
#include "util/fault.h"

#define TEST_SECONDS 200
#define JOURNAL_BYTES 16384u
#define BIG_BYTES 60000u /* more than the journal takes: goes into an extent, with one write */
#define SMALL_BYTES 300u

struct test {
	bool (*fn)(struct eng *e);
};

static void test_main(struct eng *e, void *arg)
{
	const struct test *t = arg;

	(void)t->fn(e);
	ter_fault_disarm_all();
	eng_close(e);
}

static void run(struct eng *e, bool (*fn)(struct eng *e))
{
	struct test t = { fn };

	eng_run(e, test_main, &t);
	if (e->failed)
		fail_msg("seed %llu, op %u (%s): %s", (unsigned long long)e->seed, e->ops_nr, e->last_op ? e->last_op : "none", e->why);
}

static struct eng *fresh(const struct eng_layout *layout, const char *name)
{
	struct eng *e = eng_new(layout, eng_seed());

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

static bool format_and_use(struct eng *e)
{
	MUST(e, eng_format(e));
	MUST(e, eng_start(e, false, -1));
	SAY(steps(e, 60) && eng_compare(e));
	MUST(e, eng_stop(e));
	return eng_stopped(e);
}

/* --- one member of two --- */

static struct {
	enum ter_bio_op op;
	unsigned member;
	uint64_t nth;
	bool persistent;
	uint64_t counted; /* on the member that failed */
} failing;

static unsigned errkind(void)
{
	return failing.op == TER_BIO_READ ? TER_DEV_ERR_READ : failing.op == TER_BIO_WRITE ? TER_DEV_ERR_WRITE : TER_DEV_ERR_FLUSH;
}

/* Errors are on the member that failed, of the kind that failed, and nowhere else. */
static bool counted(struct eng *e)
{
	struct ter_fs_device dev[ENG_DEVS_MAX];
	const unsigned nr = ter_fs_get_devices(e->fs, dev, ENG_DEVS_MAX);

	for (unsigned i = 0; i < nr; i++)
		for (unsigned k = 0; k < TER_DEV_ERR_NR; k++) {
			if (i != failing.member || k != errkind())
				ENG_CHECK(e, dev[i].errors[k] == 0);
			else
				failing.counted = dev[i].errors[k];
		}
	return true;
}

/* Every operation succeeds, and what it said is so: the model is compared at every step. */
static bool works_all_the_same(struct eng *e)
{
	struct ter_fs_status status;

	MUST(e, eng_open(e, false, -1));
	MUST(e, ter_sim_fail(e->sim, e->path[failing.member], failing.op, failing.nth, failing.persistent));
	MUST(e, ter_fs_start(e->fs, NULL, &e->error));
	e->vfs = ter_fs_vfs(e->fs);
	SAY(eng_compare(e) && steps(e, 60) && eng_compare(e));
	SAY(eng_sync_all(e));
	ter_fs_get_status(e->fs, &status);
	ENG_CHECK(e, status.access == TER_ACCESS_RW);
	SAY(counted(e));
	ENG_CHECK(e, failing.counted == 0 || e->events[TER_EVENT_DEVICE_ERROR] > 0);
	if (failing.persistent && failing.counted && failing.op != TER_BIO_READ)
		ENG_CHECK(e, e->events[TER_EVENT_DEGRADED_WRITE] > 0 && strstr(e->last_event, "member"));
	ter_sim_fail_none(e->sim);
	SAY(eng_fsck_clean(e) && steps(e, 20) && eng_compare(e));
	MUST(e, eng_stop(e));
	return eng_stopped(e);
}

static bool still_there(struct eng *e)
{
	const uint64_t before = failing.counted;

	MUST(e, eng_start(e, false, -1));
	SAY(eng_compare(e) && eng_fsck_clean(e));
	SAY(counted(e)); /* the counters are in the superblock */
	ENG_CHECK(e, failing.counted >= before);
	SAY(eng_goes_on(e, 20));
	MUST(e, eng_stop(e));
	return true;
}

static void one_member_of_two_that_fails_is_carried_and_counted(void **state)
{
	static const enum ter_bio_op ops[] = { TER_BIO_READ, TER_BIO_WRITE, TER_BIO_FLUSH };
	unsigned met = 0;

	(void)state;
	for (unsigned op = 0; op < ARRAY_SIZE(ops); op++)
		for (unsigned persistent = 0; persistent < 2; persistent++)
			for (unsigned member = 0; member < 2; member++)
				for (uint64_t nth = 1; nth < 60; nth += 1 + nth / 2) {
					struct eng *e = fresh(&eng_layouts[1], "one_member_of_two_that_fails_is_carried_and_counted");

					run(e, format_and_use);
					failing.op = ops[op];
					failing.member = member;
					failing.nth = nth;
					failing.persistent = persistent;
					failing.counted = 0;
					run(e, works_all_the_same);
					met += failing.counted > 0;
					run(e, still_there);
					done(e);
				}
	assert_true(met > 50);
}

/* --- a sync after a write that failed --- */

static uint64_t victim;

static bool fill(struct eng *e, unsigned bytes, uint64_t pattern)
{
	static uint8_t data[BIG_BYTES];

	for (unsigned i = 0; i < bytes; i++)
		data[i] = eng_byte(pattern, i);
	MUST(e, write_at(e->vfs, victim, 0, data, bytes));
	return true;
}

static bool holds(struct eng *e, unsigned bytes, uint64_t pattern)
{
	static uint8_t data[BIG_BYTES + 1];

	ENG_CHECK(e, read_all(e->vfs, victim, data, sizeof(data)) == (int64_t)bytes);
	for (unsigned i = 0; i < bytes; i++)
		ENG_CHECK(e, data[i] == eng_byte(pattern, i));
	return true;
}

static bool a_file(struct eng *e)
{
	struct ter_attr attr;

	e->options.journal_data_max = JOURNAL_BYTES;
	e->options.bucket_size = TER_KIB(128);
	MUST(e, eng_format(e));
	MUST(e, eng_start(e, false, -1));
	MUST(e, ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, "victim", S_IFREG | 0600, 0, NULL, &attr));
	victim = attr.node;
	SAY(fill(e, BIG_BYTES, 1));
	MUST(e, fsync_wait(e->vfs, &root_op, victim));
	MUST(e, eng_stop(e));
	return true;
}

static void fail_writes(uint64_t times)
{
	const struct ter_fault_rule rule = { .nth = 1, .times = times };

	assert_int_equal(ter_fault_arm("io.write", &rule), 0);
}

static void power_off(struct eng *e)
{
	const struct ter_sim_cut cut = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_NONE };

	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
	ter_sim_cut(e->sim, &cut);
}

/* The write and the second try elsewhere fail; the journal is well. Told once; then the data is written, not called clean. */
static bool fsync_tells_and_tries_again(struct eng *e)
{
	struct ter_fs_status status;

	MUST(e, eng_start(e, false, -1));
	MUST(e, ter_fs_sync(e->fs)); /* the journal has nothing to write */
	SAY(fill(e, BIG_BYTES, 2));
	fail_writes(2);
	ENG_CHECK(e, fsync_wait(e->vfs, &root_op, victim) == -EIO);
	ENG_CHECK(e, ter_fault_fired("io.write") == 2);
	ter_fault_disarm_all();
	SAY(holds(e, BIG_BYTES, 2)); /* readable until it is written */
	ter_fs_get_status(e->fs, &status);
	ENG_CHECK(e, status.access == TER_ACCESS_RW && status.data.failed == 1 && status.data.dirty_bytes >= BIG_BYTES);
	MUST(e, fsync_wait(e->vfs, &root_op, victim));
	power_off(e);
	return true;
}

/* Nobody waited for the write that failed: the next sync of the file tells it, and only that. */
static bool a_failure_in_the_background_is_told_later(struct eng *e)
{
	struct ter_attr other;
	struct ter_fs_status status;

	MUST(e, eng_start(e, false, -1));
	MUST(e, ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, "other", S_IFREG | 0600, 0, NULL, &other));
	MUST(e, ter_fs_sync(e->fs));
	SAY(fill(e, BIG_BYTES, 2));
	fail_writes(2);
	do {
		ter_sleep_ns(e->exec, 10000000);
		ter_fs_get_status(e->fs, &status);
	} while (!status.data.failed);
	ter_fault_disarm_all();
	ENG_CHECK(e, status.access == TER_ACCESS_RW);
	MUST(e, write_at(e->vfs, other.node, 0, "hello", 5));
	MUST(e, fsync_wait(e->vfs, &root_op, other.node));
	ENG_CHECK(e, fsync_wait(e->vfs, &root_op, victim) == -EIO);
	SAY(holds(e, BIG_BYTES, 2));
	MUST(e, fsync_wait(e->vfs, &root_op, victim));
	power_off(e);
	return true;
}

static bool sync_tells_and_tries_again(struct eng *e)
{
	MUST(e, eng_start(e, false, -1));
	MUST(e, ter_fs_sync(e->fs)); /* the journal has nothing to write */
	SAY(fill(e, BIG_BYTES, 2));
	fail_writes(2);
	ENG_CHECK(e, ter_fs_sync(e->fs) == -EIO);
	ter_fault_disarm_all();
	SAY(holds(e, BIG_BYTES, 2));
	MUST(e, ter_fs_sync(e->fs));
	power_off(e);
	return true;
}

/* A clean stop does not call the pool clean over data that it could not write. */
static bool stop_tells_and_is_not_clean(struct eng *e)
{
	MUST(e, eng_start(e, false, -1));
	MUST(e, ter_fs_sync(e->fs)); /* the journal has nothing to write */
	SAY(fill(e, BIG_BYTES, 2));
	fail_writes(2);
	ter_error_clear(&e->error);
	ENG_CHECK(e, ter_fs_stop(e->fs, &e->error) == -EIO && e->error.text[0]);
	ter_fault_disarm_all();
	eng_close(e);
	return true;
}

static bool has_the_new(struct eng *e)
{
	MUST(e, eng_start(e, false, -1));
	SAY(holds(e, BIG_BYTES, 2) && eng_fsck_clean(e));
	MUST(e, eng_stop(e));
	return true;
}

static bool has_the_old(struct eng *e)
{
	struct ter_fs_status status;

	MUST(e, eng_start(e, false, -1));
	ter_fs_get_status(e->fs, &status);
	ENG_CHECK(e, strstr(status.recovery, "replayed"));
	SAY(holds(e, BIG_BYTES, 1) && eng_fsck_clean(e));
	MUST(e, eng_stop(e));
	return true;
}

/* The journal cannot be written: who waits is told why, all others that nothing is written any more. */
static bool a_journal_that_fails_ends_it(struct eng *e)
{
	struct ter_fs_status status;
	struct ter_attr attr;

	MUST(e, eng_start(e, false, -1));
	SAY(fill(e, SMALL_BYTES, 3));
	fail_writes(0);
	ENG_CHECK(e, fsync_wait(e->vfs, &root_op, victim) == -EIO);
	ter_fault_disarm_all();
	ter_sleep_ns(e->exec, 100000000);
	ter_fs_get_status(e->fs, &status);
	ENG_CHECK(e, status.access == TER_ACCESS_EMERGENCY_RO && strstr(status.last_error, "read-only"));
	ENG_CHECK(e, fsync_wait(e->vfs, &root_op, victim) == -EROFS);
	ENG_CHECK(e, ter_fs_sync(e->fs) == -EROFS);
	ENG_CHECK(e, write_at(e->vfs, victim, 0, "hello", 5) == -EROFS);
	ENG_CHECK(e, truncate_to(e->vfs, victim, 0) == -EROFS);
	ENG_CHECK(e, ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, "never", S_IFREG | 0600, 0, NULL, &attr) == -EROFS);
	ENG_CHECK(e, ter_vfs_lookup(e->vfs, &root_op, TER_NODE_ROOT, "victim", &attr) == 0); /* reading goes on */
	eng_close(e);
	return true;
}

static void a_sync_after_a_write_that_failed(void **state)
{
	static const struct {
		const char *name;
		bool (*fails)(struct eng *e), (*then)(struct eng *e);
	} cases[] = {
		{ "fsync", fsync_tells_and_tries_again, has_the_new },
		{ "in the background", a_failure_in_the_background_is_told_later, has_the_new },
		{ "sync", sync_tells_and_tries_again, has_the_new },
		{ "stop", stop_tells_and_is_not_clean, has_the_old },
		{ "journal", a_journal_that_fails_ends_it, has_the_old },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct eng *e = fresh(&eng_layouts[0], cases[i].name);

		run(e, a_file);
		ter_sim_record(e->sim, true);
		run(e, cases[i].fails);
		ter_sim_record(e->sim, false);
		run(e, cases[i].then);
		done(e);
	}
}

/* --- a read that cannot be had --- */

static bool a_read_fails_and_is_not_remembered(struct eng *e)
{
	static uint8_t data[BIG_BYTES];

	MUST(e, eng_start(e, false, -1));
	SAY(fill(e, BIG_BYTES, 2));
	MUST(e, ter_fs_sync(e->fs));
	MUST(e, eng_stop(e));
	MUST(e, eng_start(e, false, -1));
	MUST(e, ter_vfs_lookup(e->vfs, &root_op, TER_NODE_ROOT, "victim", &(struct ter_attr){ 0 }));
	ENG_CHECK(e, read_all(e->vfs, victim, data, 1) == 1); /* the nodes are in memory now */
	MUST(e, ter_sim_fail(e->sim, e->path[0], TER_BIO_READ, 1, true));
	ENG_CHECK(e, read_all(e->vfs, victim, data, sizeof(data)) == -EIO);
	ENG_CHECK(e, e->events[TER_EVENT_DEVICE_ERROR] > 0);
	ter_sim_fail_none(e->sim);
	SAY(holds(e, BIG_BYTES, 2) && eng_fsck_clean(e));
	MUST(e, eng_stop(e));
	return true;
}

static void a_read_of_the_only_copy_fails_alone(void **state)
{
	struct eng *e = fresh(&eng_layouts[0], "a_read_of_the_only_copy_fails_alone");

	(void)state;
	run(e, a_file);
	run(e, a_read_fails_and_is_not_remembered);
	done(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_member_of_two_that_fails_is_carried_and_counted),
		cmocka_unit_test(a_sync_after_a_write_that_failed),
		cmocka_unit_test(a_read_of_the_only_copy_fails_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
