/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Recovery passes: the table, the bits in the superblock, and what a start does about errors that are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_damage.h"
#include "fs/vfs_calls.h"
#include "super/super_priv.h"

#define CASE_SECONDS 60

/* --- the table --- */

static void rows_depend_on_rows_above_only(void **state)
{
	uint64_t above = 0;

	(void)state;
	for (const struct ter_pass *p = ter_passes; p->name; p++) {
		assert_true(p->id < TER_PASS_NR);
		assert_false(above >> p->id & 1); /* ids are unique */
		assert_int_equal(p->depends & ~above, 0);
		assert_true(p->flags != 0 && p->name[0] && p->sentence[0]);
		for (const struct ter_pass *q = ter_passes; q != p; q++)
			assert_string_not_equal(p->name, q->name);
		above |= 1ull << p->id;
	}
	assert_int_equal(above, (1ull << TER_PASS_NR) - 1);
	assert_int_equal(ter_passes_with(TER_PASS_FSCK), TER_PASS_BIT(NODES) | TER_PASS_BIT(SPACE) | TER_PASS_BIT(POINTERS) | TER_PASS_BIT(FILES));
}

static void ids_are_what_is_on_disk(void **state)
{
	char text[64];

	(void)state;
	assert_int_equal(TER_PASS_NODES, 8);
	assert_int_equal(TER_PASS_SPACE, 9);
	assert_int_equal(TER_PASS_POINTERS, 10);
	assert_int_equal(TER_PASS_FILES, 11);
	assert_string_equal(ter_passes_text(TER_PASS_BIT(NODES) | TER_PASS_BIT(FILES) | 1ull << 40, text, sizeof(text)), "nodes, files, 40");
	assert_string_equal(ter_passes_text(TER_PASS_BIT(NODES) | TER_PASS_BIT(FILES), text, 8), "nodes, "); /* cut, not overrun */
}

struct fake {
	char order[256];
	int fails, finds;
	uint64_t ns;
};

static int64_t fake_run(void *arg, enum ter_pass_id id, struct ter_error *error)
{
	struct fake *f = arg;
	const size_t used = strlen(f->order);

	(void)error;
	snprintf(f->order + used, sizeof(f->order) - used, "%s ", ter_pass_by_id(id)->name);
	return (int)id == f->fails ? -EIO : (int)id == f->finds ? 3 : 0;
}

static uint64_t fake_now(void *arg)
{
	return ((struct fake *)arg)->ns += 5000;
}

static void passes_run_in_order_and_say_so(void **state)
{
	struct fake f = { .fails = -1, .finds = TER_PASS_SPACE };
	struct ter_pass_run run = { .run = fake_run, .now_ns = fake_now, .arg = &f };
	uint64_t found = 0;

	(void)state;
	assert_int_equal(ter_passes_run(&run, TER_PASS_BIT(ORPHANS) | TER_PASS_BIT(FILES) | TER_PASS_BIT(SPACE) | TER_PASS_BIT(ROOTS), &found, NULL), 0);
	assert_string_equal(f.order, "roots space files orphans ");
	assert_int_equal(found, TER_PASS_BIT(SPACE));
	assert_int_equal(run.row[TER_PASS_SPACE].state, TER_PASS_FOUND_ERRORS);
	assert_int_equal(run.row[TER_PASS_FILES].state, TER_PASS_DONE);
	assert_int_equal(run.row[TER_PASS_FILES].us, 5);
	assert_int_equal(run.row[TER_PASS_NODES].state, TER_PASS_NOT_NEEDED);
	f = (struct fake){ .fails = TER_PASS_FILES, .finds = -1 };
	assert_int_equal(ter_passes_run(&run, TER_PASS_BIT(FILES) | TER_PASS_BIT(ORPHANS), NULL, NULL), -EIO);
	assert_string_equal(f.order, "files ");
	assert_int_equal(run.row[TER_PASS_FILES].state, TER_PASS_FAILED);
	assert_int_equal(run.row[TER_PASS_ORPHANS].state, TER_PASS_WAITING);
}

/* --- a pool with errors --- */

static uint64_t file;

static void make(struct eng *e, uint8_t errors)
{
	uint64_t dir;

	e->options.errors = errors;
	if (eng_format(e) < 0 || eng_start(e, false, -1) < 0) {
		eng_fail(e, "%s", e->error.text);
		return;
	}
	dir = must_create(e->vfs, TER_NODE_ROOT, "dir", S_IFDIR | 0755);
	file = must_create(e->vfs, dir, "file", S_IFREG | 0644);
	if (write_at(e->vfs, file, 0, "hello", 5) < 0 || ter_vfs_sync(e->vfs) < 0)
		eng_fail(e, "the file cannot be written");
}

static bool not_of_root(const struct ter_key *key, void *arg)
{
	(void)arg;
	return key->pos.inode != TER_ROOT_INUM;
}

/* Nothing leads to the file any more. */
static void lose_entry(struct eng *e)
{
	static struct eng_key key;

	if (!eng_find_key(e, TER_BTREE_DIRENTS, not_of_root, NULL, &key))
		eng_fail(e, "no entry");
	if (eng_put_key(e, TER_BTREE_DIRENTS, key.key.pos, NULL) < 0)
		eng_fail(e, "the damage cannot be done");
}

/* The last bucket of a free range is in none. */
static void shorten_free_range(struct eng *e)
{
	static struct eng_key key;
	struct ter_pos pos;

	if (!eng_find_key(e, TER_BTREE_FREESPACE, NULL, NULL, &key)) {
		eng_fail(e, "no free range");
		return;
	}
	pos = key.key.pos;
	key.key.pos.offset--;
	key.key.size--;
	if (eng_put_key(e, TER_BTREE_FREESPACE, pos, NULL) < 0 || eng_put_key(e, TER_BTREE_FREESPACE, key.key.pos, &key.key) < 0)
		eng_fail(e, "the damage cannot be done");
}

static struct ter_fs_status status_of(struct eng *e)
{
	struct ter_fs_status status;

	ter_fs_get_status(e->fs, &status);
	return status;
}

static void stop(struct eng *e)
{
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
}

static bool start(struct eng *e)
{
	if (eng_start(e, false, -1) < 0)
		return eng_fail(e, "start: %s", e->error.text);
	return true;
}

static bool check(struct eng *e, bool clean)
{
	static struct eng_report report;
	const int64_t r = eng_check(e, &report);

	if (r < 0 || (r == 0) != clean)
		return eng_fail(e, "the check says %lld: %s", (long long)r, report.text);
	return true;
}

#define WANT(e, condition)                                                                                             \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			eng_fail(e, "%s:%d: %s", __FILE__, __LINE__, #condition);                                      \
			return;                                                                                        \
		}                                                                                                      \
	} while (0)

static void read_only_until_repaired(struct eng *e, void *arg)
{
	const uint8_t *errors = arg;
	struct ter_fs_repaired repaired = { 0 };
	struct ter_fs_status s;
	char buf[8];

	make(e, *errors);
	lose_entry(e);
	WANT(e, check(e, false));
	WANT(e, status_of(e).passes_unfixed == TER_PASS_BIT(FILES));
	stop(e);

	/* Twice: the bits stay. */
	for (unsigned i = 0; i < 2; i++) {
		WANT(e, start(e));
		s = status_of(e);
		WANT(e, s.access == TER_ACCESS_RO && !s.clean);
		WANT(e, s.passes_required & TER_PASS_BIT(FILES) && s.passes_unfixed == TER_PASS_BIT(FILES));
		WANT(e, strstr(s.why_read_only, "terracectl fsck --repair engine") && strstr(s.why_read_only, "files"));
		WANT(e, s.pass[TER_PASS_FILES].state == TER_PASS_FOUND_ERRORS && s.pass[TER_PASS_SPACE].state == TER_PASS_DONE);
		WANT(e, s.pass[TER_PASS_ORPHANS].state == TER_PASS_NOT_NEEDED);
		WANT(e, read_all(e->vfs, file, buf, sizeof(buf)) == 5);
		WANT(e, ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, "x", S_IFREG | 0644, 0, NULL, NULL) == -EROFS);
		WANT(e, ter_fs_set_read_only(e->fs, false, &e->error) < 0 && e->error.kind == TER_ERR_FSCK_REQUIRED);
		ter_error_clear(&e->error);
		WANT(e, ter_fs_repair(e->fs, NULL, NULL, NULL, &e->error) < 0 && e->error.kind == TER_ERR_WRONG_STATE);
		stop(e);
	}

	WANT(e, eng_open(e, false, -1) >= 0);
	WANT(e, ter_fs_repair(e->fs, NULL, NULL, &repaired, &e->error) >= 0);
	WANT(e, repaired.found && repaired.done && !repaired.left);
	stop(e);
	WANT(e, start(e));
	s = status_of(e);
	WANT(e, s.access == TER_ACCESS_RW && !s.passes_required && !s.passes_unfixed && !s.why_read_only[0]);
	WANT(e, !strcmp(s.recovery, "was stopped cleanly"));
	WANT(e, check(e, true));
	WANT(e, read_all(e->vfs, file, buf, sizeof(buf)) == 5);
	stop(e);
}

static int refuse(void *arg, const char *pass, const char *sentence)
{
	(void)pass;
	(void)sentence;
	(*(unsigned *)arg)++;
	return 0;
}

static void refused_repairs_leave_bits(struct eng *e, void *arg)
{
	unsigned asked = 0;
	const struct ter_fs_repair_params params = { .want = refuse, .arg = &asked };
	struct ter_fs_repaired repaired = { 0 };

	(void)arg;
	make(e, TER_ERRORS_FIX_SAFE);
	lose_entry(e);
	stop(e);
	WANT(e, eng_open(e, false, -1) >= 0);
	WANT(e, ter_fs_repair(e->fs, &params, NULL, &repaired, &e->error) >= 0);
	WANT(e, asked && repaired.refused == asked && !repaired.done && repaired.left);
	stop(e);
	WANT(e, start(e));
	WANT(e, status_of(e).access == TER_ACCESS_RO);
	stop(e);
}

static void safe_errors(struct eng *e, void *arg)
{
	const uint8_t *errors = arg;
	struct ter_fs_status s;

	make(e, *errors);
	shorten_free_range(e);
	WANT(e, check(e, false));
	WANT(e, status_of(e).passes_unfixed == TER_PASS_BIT(SPACE));
	stop(e);
	WANT(e, start(e));
	s = status_of(e);
	if (*errors == TER_ERRORS_FIX_SAFE) {
		WANT(e, s.access == TER_ACCESS_RW && !s.passes_required && !s.passes_unfixed);
		WANT(e, check(e, true));
		WANT(e, ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, "x", S_IFREG | 0644, 0, NULL, NULL) == 0);
	} else {
		WANT(e, s.access == TER_ACCESS_RO && s.passes_unfixed == TER_PASS_BIT(SPACE));
	}
	stop(e);
	WANT(e, start(e));
	s = status_of(e);
	WANT(e, (s.access == TER_ACCESS_RW) == (*errors == TER_ERRORS_FIX_SAFE));
	WANT(e, *errors != TER_ERRORS_FIX_SAFE || !strcmp(s.recovery, "was stopped cleanly"));
	stop(e);
}

/* Damage that was met while running: the next start looks at everything; when it finds nothing, all is well. */
static void errors_of_a_run(struct eng *e, void *arg)
{
	struct ter_fs_status s;

	(void)arg;
	make(e, TER_ERRORS_CONTINUE);
	ter_super_on_btree_error(e->fs, -EBADMSG, "A node is said to be damaged.");
	WANT(e, status_of(e).access == TER_ACCESS_RW);
	stop(e);
	WANT(e, start(e));
	s = status_of(e);
	WANT(e, s.access == TER_ACCESS_RW && !s.passes_required);
	WANT(e, strncmp(s.recovery, "replayed", 8) == 0); /* it was not called clean */
	WANT(e, s.pass[TER_PASS_NODES].state == TER_PASS_DONE && s.pass[TER_PASS_FILES].state == TER_PASS_DONE);
	stop(e);
	WANT(e, start(e));
	s = status_of(e);
	WANT(e, !strcmp(s.recovery, "was stopped cleanly") && s.pass[TER_PASS_FILES].state == TER_PASS_NOT_NEEDED);
	WANT(e, s.pass[TER_PASS_ROOTS].state == TER_PASS_DONE && s.pass[TER_PASS_JOURNAL].state == TER_PASS_NOT_NEEDED);
	WANT(e, s.pass[TER_PASS_ORPHANS].state == TER_PASS_DONE);
	stop(e);
}

/* Nothing is known to be wrong, but somebody wants it checked. */
static void checked_on_request(struct eng *e, void *arg)
{
	struct ter_fs_status s;
	char text[256];

	(void)arg;
	make(e, TER_ERRORS_RO);
	WANT(e, strstr(ter_fs_describe(e->fs, text, sizeof(text)), "format 1.0, ") && strstr(text, ", errors=ro") && !strstr(text, "degraded"));
	WANT(e, strlen(ter_fs_describe(e->fs, text, 16)) == 15);
	stop(e);
	WANT(e, eng_open(e, false, -1) >= 0);
	e->fs->check_first = true;
	WANT(e, ter_fs_start(e->fs, NULL, &e->error) >= 0);
	s = status_of(e);
	WANT(e, s.access == TER_ACCESS_RW && s.pass[TER_PASS_NODES].state == TER_PASS_DONE && s.pass[TER_PASS_POINTERS].state == TER_PASS_DONE);
	stop(e);
}

/* errors=ro: the first damage that is met ends writing. */
static void errors_ro(struct eng *e, void *arg)
{
	(void)arg;
	make(e, TER_ERRORS_RO);
	ter_super_on_btree_error(e->fs, -EBADMSG, "A node is said to be damaged.");
	WANT(e, status_of(e).access == TER_ACCESS_EMERGENCY_RO);
	eng_close(e);
}

#define NOTE_WAITS_MAX 1000

/* Damage is met, over and over, and the power goes before anybody stops the pool. */
static void meet_and_cut(struct eng *e, void *arg)
{
	const uint8_t *errors = arg;
	struct ter_sim_stats before, after;

	make(e, *errors);
	ter_sim_get_stats(e->sim, &before);
	for (unsigned i = 0; i < NOTE_WAITS_MAX && !e->failed; i++) {
		ter_super_on_btree_error(e->fs, -EBADMSG, "A node is said to be damaged.");
		ter_sleep_ns(e->exec, TER_NS_PER_MS);
	}
	ter_sim_get_stats(e->sim, &after);
	/* All three copies of one writing, with a few flushes; not a thousand of them. */
	WANT(e, after.writes > before.writes && after.writes < before.writes + 40);
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
}

static void checks_after_cut(struct eng *e, void *arg)
{
	struct ter_fs_status s;

	(void)arg;
	WANT(e, start(e));
	s = status_of(e);
	WANT(e, s.access == TER_ACCESS_RW && !s.passes_required);
	WANT(e, s.pass[TER_PASS_NODES].state == TER_PASS_DONE && s.pass[TER_PASS_FILES].state == TER_PASS_DONE);
	stop(e);
	WANT(e, start(e));
	WANT(e, status_of(e).pass[TER_PASS_NODES].state == TER_PASS_NOT_NEEDED);
	stop(e);
}

struct test_case {
	void (*fn)(struct eng *e, void *arg);
	void *arg;
};

/* One that failed leaves its pool open. */
static void case_main(struct eng *e, void *arg)
{
	const struct test_case *c = arg;

	c->fn(e, c->arg);
	if (e->fs)
		eng_close(e);
}

static void run_case(void (*fn)(struct eng *e, void *arg), uint8_t errors, unsigned layout)
{
	struct eng *e = eng_new(&eng_layouts[layout], eng_seed());

	eng_guard("a case", CASE_SECONDS);
	eng_run(e, case_main, &(struct test_case){ fn, &errors });
	eng_guard("", 0);
	if (e->failed)
		fail_msg("errors=%u: %s", errors, e->why);
	eng_free(e);
}

static void known_errors_keep_it_read_only_until_they_are_repaired(void **state)
{
	(void)state;
	for (uint8_t errors = 0; errors < 3; errors++)
		run_case(read_only_until_repaired, errors, 0);
	run_case(read_only_until_repaired, TER_ERRORS_FIX_SAFE, 1);
}

static void what_was_not_wanted_is_still_known(void **state)
{
	(void)state;
	run_case(refused_repairs_leave_bits, 0, 0);
}

static void safe_errors_are_repaired_by_a_start_if_the_option_says_so(void **state)
{
	(void)state;
	for (uint8_t errors = 0; errors < 3; errors++)
		run_case(safe_errors, errors, 0);
}

static void damage_met_while_running_requires_passes(void **state)
{
	(void)state;
	run_case(errors_of_a_run, 0, 0);
	run_case(errors_ro, 0, 0);
	run_case(checked_on_request, 0, 0);
}

static void damage_is_known_after_a_cut(void **state)
{
	const struct ter_sim_cut none = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_NONE };

	(void)state;
	for (uint8_t errors = 0; errors < 3; errors++) {
		struct eng *e = eng_new(&eng_layouts[errors % 2], eng_seed());

		eng_guard("damage, and a cut", CASE_SECONDS);
		ter_sim_record(e->sim, true);
		eng_run(e, case_main, &(struct test_case){ meet_and_cut, &errors });
		ter_sim_cut(e->sim, &none);
		if (!e->failed)
			eng_run(e, case_main, &(struct test_case){ checks_after_cut, &errors });
		eng_guard("", 0);
		if (e->failed)
			fail_msg("errors=%u: %s", errors, e->why);
		eng_free(e);
	}
}

static void this_build_computes_what_the_format_says(void **state)
{
	struct ter_error error = { 0 };

	(void)state;
	assert_int_equal(ter_self_test(&error), 0);
}

/* --- a dry start --- */

static void crash(struct eng *e, void *arg)
{
	uint64_t late;

	(void)arg;
	make(e, TER_ERRORS_FIX_SAFE);
	late = must_create(e->vfs, TER_NODE_ROOT, "late", S_IFREG | 0644);
	if (fsync_wait(e->vfs, &root_op, late) < 0)
		eng_fail(e, "sync");
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
}

static void dry(struct eng *e, void *arg)
{
	uint64_t before = ter_sim_hash(e->sim);
	struct ter_attr attr;
	char buf[8];

	(void)arg;
	WANT(e, eng_start(e, true, -1) >= 0);
	WANT(e, status_of(e).access == TER_ACCESS_RO && !strncmp(status_of(e).recovery, "replayed", 8));
	WANT(e, read_all(e->vfs, file, buf, sizeof(buf)) == 5);
	WANT(e, ter_vfs_lookup(e->vfs, &root_op, TER_NODE_ROOT, "late", &attr) == 0);
	WANT(e, check(e, true));
	stop(e);
	WANT(e, ter_sim_hash(e->sim) == before);
	/* And one that writes still can. */
	WANT(e, start(e));
	WANT(e, status_of(e).access == TER_ACCESS_RW);
	stop(e);
	WANT(e, ter_sim_hash(e->sim) != before);
}

static void a_dry_start_leaves_every_byte_of_a_crashed_pool(void **state)
{
	struct eng *e = eng_new(&eng_layouts[1], eng_seed());
	const struct ter_sim_cut all = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ALL };

	(void)state;
	eng_guard("a dry start", CASE_SECONDS);
	ter_sim_record(e->sim, true);
	eng_run(e, crash, NULL);
	ter_sim_cut(e->sim, &all);
	if (!e->failed)
		eng_run(e, case_main, &(struct test_case){ dry, NULL });
	eng_guard("", 0);
	if (e->failed)
		fail_msg("%s", e->why);
	eng_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_depend_on_rows_above_only),
		cmocka_unit_test(ids_are_what_is_on_disk),
		cmocka_unit_test(passes_run_in_order_and_say_so),
		cmocka_unit_test(known_errors_keep_it_read_only_until_they_are_repaired),
		cmocka_unit_test(what_was_not_wanted_is_still_known),
		cmocka_unit_test(safe_errors_are_repaired_by_a_start_if_the_option_says_so),
		cmocka_unit_test(damage_met_while_running_requires_passes),
		cmocka_unit_test(damage_is_known_after_a_cut),
		cmocka_unit_test(this_build_computes_what_the_format_says),
		cmocka_unit_test(a_dry_start_leaves_every_byte_of_a_crashed_pool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
