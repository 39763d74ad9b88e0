/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a sync says is so though others sync, or the pool goes read-only, at the same time: the power goes off the moment that it says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_rig.h"
#include "fs/vfs_calls.h"

#define TEST_SECONDS 200
#define SEEDS 12
#define FILES 3
#define FILE_BYTES 200000u /* more than the journal takes: a write of its own each */
#define SYNCS 3
#define SPREAD_NS 100000

struct race {
	struct eng *e;
	uint64_t node[FILES];
	bool said, read_only; /* said: a sync did, and the power went off */
};
static struct race race;

static void name_of(unsigned i, char name[16])
{
	snprintf(name, 16, "file-%u", i);
}

static void fill(unsigned i, unsigned version, uint8_t *buf)
{
	memset(buf, (int)(i * 16 + version), FILE_BYTES);
}

static bool write_files(struct eng *e, unsigned version)
{
	uint8_t *buf = malloc(FILE_BYTES);
	int r = 0;

	for (unsigned i = 0; i < FILES && r >= 0; i++) {
		fill(i, version, buf);
		r = write_at(e->vfs, race.node[i], 0, buf, FILE_BYTES);
	}
	free(buf);
	ENG_CHECK(e, r >= 0);
	return true;
}

static bool prepare(struct eng *e)
{
	char name[16];

	MUST(e, eng_format(e));
	MUST(e, eng_start(e, false, -1));
	for (unsigned i = 0; i < FILES; i++) {
		name_of(i, name);
		race.node[i] = must_create(e->vfs, TER_NODE_ROOT, name, S_IFREG | 0644);
	}
	SAY(write_files(e, 1));
	ENG_CHECK(e, ter_vfs_sync(e->vfs) == 0);
	return true;
}

static void sync_task(void *arg)
{
	const struct ter_sim_cut cut = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_NONE };
	struct eng *e = race.e;

	ter_sleep_ns(e->exec, *(uint64_t *)arg);
	if (race.said || ter_vfs_sync(e->vfs) < 0 || race.said)
		return;
	race.said = true;
	ter_sim_cut(e->sim, &cut);
}

static void read_only_task(void *arg)
{
	struct ter_error error = { 0 };

	(void)arg;
	(void)ter_fs_set_read_only(race.e->fs, true, &error); /* fails where the power goes off before */
	ter_error_clear(&error);
}

/* A write takes twice as long as it may be from the first of them to the last. */
static bool syncs_race(struct eng *e)
{
	struct ter_task *task[SYNCS + 1] = { NULL };
	uint64_t after_ns[SYNCS];

	for (unsigned i = 0; i < SYNCS; i++) {
		after_ns[i] = eng_below(e, SPREAD_NS);
		MUST(e, e->exec->ops->spawn(e->exec, "sync", sync_task, &after_ns[i], &task[i]));
	}
	if (race.read_only)
		MUST(e, e->exec->ops->spawn(e->exec, "read-only", read_only_task, NULL, &task[SYNCS]));
	for (unsigned i = 0; i < ARRAY_SIZE(task); i++)
		e->exec->ops->join(e->exec, task[i]);
	ENG_CHECK(e, race.said);
	return true;
}

static bool data_race(struct eng *e)
{
	SAY(prepare(e));
	ter_sim_record(e->sim, true);
	return write_files(e, 2) && syncs_race(e);
}

static bool data_is_there(struct eng *e)
{
	uint8_t *buf = malloc(FILE_BYTES), *want = malloc(FILE_BYTES);
	struct ter_attr attr;
	bool same = true;
	char name[16];

	MUST(e, eng_start(e, false, -1));
	for (unsigned i = 0; i < FILES; i++) {
		fill(i, 2, want);
		name_of(i, name);
		same = same && ter_vfs_lookup(e->vfs, &root_op, TER_NODE_ROOT, name, &attr) == 0 && read_all(e->vfs, attr.node, buf, FILE_BYTES) == FILE_BYTES && !memcmp(buf, want, FILE_BYTES);
	}
	free(buf);
	free(want);
	ENG_CHECK(e, same);
	return eng_fsck_clean(e);
}

/* --- a test is a list of runs on one rig --- */

static void test_main(struct eng *e, void *arg)
{
	bool (*const *fn)(struct eng *) = arg;

	(void)(*fn)(e);
	eng_close(e);
}

static void run(struct eng *e, bool (*fn)(struct eng *e))
{
	eng_run(e, test_main, &fn);
	if (e->failed)
		fail_msg("seed %llu: %s", (unsigned long long)e->seed, e->why);
}

static void many_seeds(const char *name, bool read_only, bool (*before)(struct eng *e), bool (*after)(struct eng *e))
{
	const uint64_t seed = eng_seed();

	for (unsigned i = 0; i < SEEDS; i++) {
		struct eng *e = eng_new(&eng_layouts[0], seed + i);

		eng_guard(name, TEST_SECONDS);
		race = (struct race){ .e = e, .read_only = read_only };
		run(e, before);
		run(e, after);
		eng_guard("", 0);
		eng_free(e);
	}
}

static void of_two_syncs_none_is_done_before_the_data_is(void **state)
{
	(void)state;
	many_seeds("of_two_syncs_none_is_done_before_the_data_is", false, data_race, data_is_there);
}

static void a_sync_while_the_pool_goes_read_only_waits_for_what_is_written_then(void **state)
{
	(void)state;
	many_seeds("a_sync_while_the_pool_goes_read_only_waits_for_what_is_written_then", true, data_race, data_is_there);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_two_syncs_none_is_done_before_the_data_is),
		cmocka_unit_test(a_sync_while_the_pool_goes_read_only_waits_for_what_is_written_then),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
