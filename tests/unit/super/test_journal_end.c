/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A journal that cannot be read behind its newest entry, on the only member: a start refuses, a repair may say that it ends there, and then it goes on beyond the bad place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_damage.h"
#include "fs/vfs_calls.h"
#include "super/super_priv.h"

#define CASE_SECONDS 60
#define BLOCK 4096u
#define MORE_SYNCS 40 /* entries in more than one bucket */

static uint64_t file;

static bool crash(struct eng *e)
{
	MUST(e, eng_format(e));
	MUST(e, eng_start(e, false, -1));
	file = must_create(e->vfs, TER_NODE_ROOT, "file", S_IFREG | 0644);
	MUST(e, write_at(e->vfs, file, 0, "hello", 5));
	MUST(e, fsync_wait(e->vfs, &root_op, file));
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
	return true;
}

/* Where the newest entry ends. */
static bool find_end(struct eng *e, uint64_t *ret_bucket_bytes, uint64_t *ret_end)
{
	struct ter_journal_replay *replay;
	const struct ter_dev *dev;

	MUST(e, eng_open(e, false, -1));
	MUST(e, ter_journal_read(e->exec, e->fs->sb.sb, e->fs->members, &replay, &e->error));
	dev = &e->fs->members->dev[0];
	*ret_bucket_bytes = (uint64_t)dev->bucket_sectors << TER_SECTOR_SHIFT;
	*ret_end = (dev->journal[0].first + replay->ring[0].cur) * *ret_bucket_bytes + ter_round_up(replay->ring[0].cur_end_bytes, BLOCK);
	ENG_CHECK(e, replay->unread_dev == -1 && replay->ring[0].cur + 2 < dev->journal[0].nr);
	ter_journal_replay_free(replay);
	eng_close(e);
	return true;
}

static int answer(void *arg, const char *pass, const char *sentence)
{
	int *want = arg;

	if (strcmp(pass, "journal") || !strstr(sentence, "taken to end there"))
		return 1;
	return (*want)++;
}

/* @behind: which bucket, counted from that of the newest entry. */
static bool end_it(struct eng *e, unsigned behind)
{
	int want = 0;
	const struct ter_fs_repair_params params = { .want = answer, .arg = &want };
	struct ter_fs_repaired repaired = { 0 };
	uint64_t bucket_bytes = 0, end = 0, bad;
	char buf[8];

	SAY(find_end(e, &bucket_bytes, &end));
	bad = behind ? ter_round_down(end - 1, bucket_bytes) + behind * bucket_bytes : end;
	MUST(e, ter_sim_bad_range(e->sim, e->path[0], bad, 512));
	for (int read_only = 0; read_only < 2; read_only++) {
		ENG_CHECK(e, eng_start(e, read_only, -1) < 0 && strstr(e->error.text, "cannot be read to its end"));
	}
	/* Not wanted: as before. */
	MUST(e, eng_open(e, false, -1));
	ENG_CHECK(e, ter_fs_repair(e->fs, &params, NULL, &repaired, &e->error) < 0 && want == 1 && strstr(e->error.text, "cannot be read to its end"));
	eng_close(e);
	/* Wanted. */
	MUST(e, eng_open(e, false, -1));
	MUST(e, ter_fs_repair(e->fs, &params, NULL, &repaired, &e->error));
	ENG_CHECK(e, want == 2 && repaired.found == 1 && repaired.done == 1 && !repaired.left);
	e->vfs = ter_fs_vfs(e->fs);
	ENG_CHECK(e, read_all(e->vfs, file, buf, sizeof(buf)) == 5 && !memcmp(buf, "hello", 5));
	for (unsigned i = 0; i < MORE_SYNCS; i++) {
		MUST(e, write_at(e->vfs, file, 0, "other", 5));
		MUST(e, fsync_wait(e->vfs, &root_op, file));
	}
	/* The place is bad still, and the next crash is one like any other. */
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
	ter_sim_cut(e->sim, &(struct ter_sim_cut){ .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ALL });
	MUST(e, eng_start(e, false, -1));
	ENG_CHECK(e, read_all(e->vfs, file, buf, sizeof(buf)) == 5 && !memcmp(buf, "other", 5));
	SAY(eng_fsck_clean(e));
	MUST(e, eng_stop(e));
	return true;
}

static void crash_main(struct eng *e, void *arg)
{
	(void)arg;
	(void)crash(e);
	if (e->fs)
		eng_close(e);
}

static void end_main(struct eng *e, void *arg)
{
	(void)end_it(e, *(const unsigned *)arg);
	ter_sim_power_off_after(e->sim, UINT64_MAX);
	if (e->fs)
		eng_close(e);
}

static void a_journal_may_be_declared_to_end(void **state)
{
	(void)state;
	for (unsigned behind = 0; behind < 3; behind++) {
		struct eng *e = eng_new(&eng_layouts[0], eng_seed());

		eng_guard("a journal's end", CASE_SECONDS);
		ter_sim_record(e->sim, true);
		eng_run(e, crash_main, NULL);
		ter_sim_cut(e->sim, &(struct ter_sim_cut){ .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ALL });
		if (!e->failed)
			eng_run(e, end_main, &behind);
		eng_guard("", 0);
		if (e->failed)
			fail_msg("%u buckets behind: %s", behind, e->why);
		eng_free(e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_journal_may_be_declared_to_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
