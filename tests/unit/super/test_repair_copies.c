/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copies of data that a repair gave up, or that were never written, are made again; what has none left is listed; where there is no room it is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "data/extent.h"
#include "engine_damage.h"
#include "fs/vfs_calls.h"
#include "super/super_priv.h"

#define CASE_SECONDS 120
#define FILE_BYTES 600000u
#define FILES 3u

static const struct eng_layout unequal = { "one-small", 2, { TER_MIB(64), TER_MIB(12) }, 2, "none", -1 };

static uint64_t file[FILES];
static uint8_t content[FILES][FILE_BYTES], got[FILE_BYTES];

static uint64_t inum_of(uint64_t node)
{
	return node & ((1ull << 40) - 1);
}

/* Some of it compresses, none of it is inline. */
static bool make_files(struct eng *e)
{
	for (unsigned f = 0; f < FILES; f++) {
		char name[16];

		for (unsigned i = 0; i < FILE_BYTES; i++)
			content[f][i] = f == 1 && i % 200000 < 100000 ? 7 : eng_byte(f, i);
		snprintf(name, sizeof(name), "file%u", f);
		file[f] = must_create(e->vfs, TER_NODE_ROOT, name, S_IFREG | 0644);
		MUST(e, write_at(e->vfs, file[f], 0, content[f], FILE_BYTES));
	}
	MUST(e, ter_fs_sync(e->fs));
	return true;
}

static bool reads_as_written(struct eng *e, unsigned f)
{
	ENG_CHECK(e, read_all(e->vfs, file[f], got, FILE_BYTES) == FILE_BYTES && !memcmp(got, content[f], FILE_BYTES));
	return true;
}

/* --- extents, with their pointers --- */

#define EXTENTS_MAX 256
static struct { struct ter_pos pos; struct ter_extent e; } extent[EXTENTS_MAX];
static unsigned extents_nr;

static int take_extent(void *arg, const struct ter_key *key)
{
	struct eng *e = arg;

	if (key->type != TER_KEY_EXTENT || extents_nr == EXTENTS_MAX)
		return 0;
	extent[extents_nr].pos = key->pos;
	return ter_extent_decode(key, e->fs->sb.sb, &extent[extents_nr++].e);
}

static bool look_at_extents(struct eng *e)
{
	extents_nr = 0;
	MUST(e, ter_btree_scan(e->fs->btrees, TER_BTREE_EXTENTS, TER_POS_MIN, TER_POS_MAX, 0, take_extent, e, NULL));
	return extents_nr > 0 || eng_fail(e, "no extents");
}

/* Each on members of its own. */
static bool all_have(struct eng *e, unsigned copies)
{
	if (!look_at_extents(e))
		return false;
	for (unsigned i = 0; i < extents_nr; i++) {
		uint64_t devs = 0;

		for (unsigned c = 0; c < extent[i].e.nr_ptrs; c++)
			devs |= 1ull << extent[i].e.ptr[c].dev;
		if (extent[i].e.nr_ptrs != copies || (unsigned)__builtin_popcountll(devs) != copies)
			return eng_fail(e, "extent %u has %u copies on %d members", i, extent[i].e.nr_ptrs, __builtin_popcountll(devs));
	}
	return true;
}

static bool wants_pos(const struct ter_key *key, void *arg)
{
	return !ter_pos_cmp(key->pos, *(const struct ter_pos *)arg);
}

/* The pointer leads into the superblock. */
static bool spoil_ptr(struct eng *e, unsigned i, unsigned copy)
{
	static struct eng_key k;

	if (!eng_find_key(e, TER_BTREE_EXTENTS, wants_pos, &extent[i].pos, &k))
		return eng_fail(e, "the extent is gone");
	((struct ter_extent_ptr_disk *)((uint8_t *)k.val + sizeof(struct ter_extent_disk)))[copy].sector = ter_le64_make(8);
	MUST(e, eng_put_key(e, TER_BTREE_EXTENTS, k.key.pos, &k.key));
	return true;
}

static bool spoil_one_of_each(struct eng *e)
{
	SAY(look_at_extents(e));
	for (unsigned i = 0; i < extents_nr; i++)
		SAY(spoil_ptr(e, i, i % 2));
	return true;
}

static bool repair(struct eng *e, const struct ter_fs_repair_params *params, struct ter_fs_repaired *ret)
{
	MUST(e, eng_open(e, false, TER_DEGRADED_YES));
	MUST(e, ter_fs_repair(e->fs, params, NULL, ret, &e->error));
	e->vfs = ter_fs_vfs(e->fs);
	return true;
}

/* The check: how many contradictions, and bytes that have too few copies. */
static bool looks(struct eng *e, int64_t wrong, bool degraded)
{
	uint64_t bytes = 99;
	const struct ter_fsck_report report = { .ret_degraded_bytes = &bytes };
	const int64_t r = ter_fs_fsck(e->fs, &report, NULL, &e->error);

	if (r != wrong || !bytes == degraded)
		return eng_fail(e, "the check says %lld contradictions, %llu bytes degraded", (long long)r, (unsigned long long)bytes);
	return true;
}

static bool listed(struct eng *e, unsigned f, bool is)
{
	struct ter_damage damage;
	const int r = ter_vfs_next_damaged(e->vfs, inum_of(file[f]), &damage);

	if ((r == 0 && damage.inum == inum_of(file[f])) != is)
		return eng_fail(e, "file %u is %slisted as damaged", f, is ? "not " : "");
	return true;
}

/* The new copies, each for itself: the old ones are spoilt. */
static bool new_copies_are_good(struct eng *e)
{
	MUST(e, eng_start(e, false, -1));
	SAY(look_at_extents(e));
	for (unsigned i = 0; i < extents_nr; i++)
		MUST(e, ter_sim_corrupt(e->sim, e->path[extent[i].e.ptr[0].dev], extent[i].e.ptr[0].sector << TER_SECTOR_SHIFT, (uint64_t)extent[i].e.stored_sectors << TER_SECTOR_SHIFT));
	for (unsigned f = 0; f < FILES; f++)
		SAY(reads_as_written(e, f) && listed(e, f, false));
	MUST(e, eng_stop(e));
	return true;
}

/* --- cases --- */

static bool given_up(struct eng *e, uint64_t unused)
{
	struct ter_fs_repaired repaired = { 0 };

	(void)unused;
	MUST(e, eng_start(e, false, -1));
	SAY(make_files(e) && all_have(e, 2) && spoil_one_of_each(e));
	MUST(e, eng_stop(e));
	SAY(repair(e, NULL, &repaired));
	ENG_CHECK(e, repaired.found && !repaired.left && repaired.copies_made == extents_nr && !repaired.degraded_bytes);
	SAY(all_have(e, 2) && looks(e, 0, false));
	MUST(e, eng_stop(e));
	return new_copies_are_good(e);
}

static int not_copies(void *arg, const char *pass, const char *sentence)
{
	(void)sentence;
	++*(unsigned *)arg;
	return strcmp(pass, "copies") != 0;
}

static bool asked(struct eng *e, uint64_t unused)
{
	unsigned questions = 0;
	const struct ter_fs_repair_params params = { .want = not_copies, .arg = &questions };
	struct ter_fs_repaired repaired = { 0 };

	(void)unused;
	MUST(e, eng_start(e, false, -1));
	SAY(make_files(e) && spoil_one_of_each(e));
	MUST(e, eng_stop(e));
	SAY(repair(e, &params, &repaired));
	ENG_CHECK(e, questions && repaired.refused == 1 && !repaired.left && !repaired.copies_made && repaired.degraded_bytes >= FILES * FILE_BYTES);
	SAY(all_have(e, 1) && looks(e, 0, true));
	MUST(e, eng_stop(e));
	/* Nothing else is wrong any more: that is enough to be asked again. */
	questions = 0;
	SAY(repair(e, &params, &repaired));
	ENG_CHECK(e, questions == 1 && !repaired.found && repaired.degraded_bytes);
	MUST(e, eng_stop(e));
	return true;
}

/* The power goes after so many writes of the repair. */
static bool cut_off(struct eng *e, uint64_t writes)
{
	struct ter_fs_repaired repaired = { 0 };

	MUST(e, eng_start(e, false, -1));
	SAY(make_files(e) && spoil_one_of_each(e));
	MUST(e, eng_stop(e));
	ter_sim_record(e->sim, true);
	MUST(e, eng_open(e, false, -1));
	ter_sim_power_off_after(e->sim, writes);
	(void)ter_fs_repair(e->fs, NULL, NULL, NULL, NULL);
	ter_sim_power_off_after(e->sim, UINT64_MAX);
	eng_close(e);
	ter_sim_cut(e->sim, &(struct ter_sim_cut){ .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .seed = writes });
	ter_sim_record(e->sim, false);
	SAY(repair(e, NULL, &repaired));
	ENG_CHECK(e, !repaired.left && !repaired.degraded_bytes);
	SAY(all_have(e, 2) && looks(e, 0, false));
	for (unsigned f = 0; f < FILES; f++)
		SAY(reads_as_written(e, f));
	MUST(e, eng_stop(e));
	return true;
}

/* Written while a member was away: degraded, and no error. */
static bool written_degraded(struct eng *e, uint64_t unused)
{
	struct ter_fs_repaired repaired = { 0 };

	(void)unused;
	e->absent = 1;
	MUST(e, eng_start(e, false, TER_DEGRADED_YES));
	SAY(make_files(e) && looks(e, 0, true));
	MUST(e, eng_stop(e));
	SAY(repair(e, NULL, &repaired)); /* there is no member for them */
	ENG_CHECK(e, !repaired.found && !repaired.copies_made && repaired.degraded_bytes >= FILES * FILE_BYTES);
	SAY(all_have(e, 1));
	MUST(e, eng_stop(e));
	e->absent = -1;
	SAY(repair(e, NULL, &repaired));
	ENG_CHECK(e, !repaired.found && repaired.copies_made && !repaired.degraded_bytes);
	SAY(all_have(e, 2) && looks(e, 0, false));
	MUST(e, eng_stop(e));
	return new_copies_are_good(e);
}

static bool no_room(struct eng *e, uint64_t unused)
{
	static uint8_t filler[TER_MIB(1)];
	struct ter_fs_repaired repaired = { 0 };
	struct ter_fs_status status;
	uint64_t big, many;

	(void)unused;
	e->absent = 1;
	MUST(e, eng_start(e, false, TER_DEGRADED_YES));
	big = must_create(e->vfs, TER_NODE_ROOT, "big", S_IFREG | 0644);
	for (unsigned i = 0; i < 14; i++) {
		for (unsigned k = 0; k < sizeof(filler); k++)
			filler[k] = eng_byte(i, k);
		MUST(e, write_at(e->vfs, big, i * sizeof(filler), filler, sizeof(filler)));
	}
	MUST(e, eng_stop(e));
	e->absent = -1;
	SAY(repair(e, NULL, &repaired));
	many = 14 * sizeof(filler);
	ENG_CHECK(e, !repaired.found && !repaired.left && repaired.copies_made && repaired.degraded_bytes > TER_MIB(2) && repaired.degraded_bytes < many);
	SAY(looks(e, 0, true));
	ter_fs_get_status(e->fs, &status);
	ENG_CHECK(e, !status.passes_required && !status.passes_unfixed);
	MUST(e, eng_stop(e));
	MUST(e, eng_start(e, false, -1));
	for (unsigned f = 0; f < 14; f++) {
		static uint8_t all[14 * sizeof(filler)];

		ENG_CHECK(e, read_all(e->vfs, big, all, sizeof(all)) == sizeof(all));
		for (unsigned k = 0; k < sizeof(filler); k++)
			ENG_CHECK(e, all[f * sizeof(filler) + k] == eng_byte(f, k));
	}
	MUST(e, eng_stop(e));
	return true;
}

/* The one copy that is left does not verify: nothing is made of it, and the file is listed. */
static bool no_good_copy(struct eng *e, uint64_t unused)
{
	struct ter_fs_repaired repaired = { 0 };

	(void)unused;
	MUST(e, eng_start(e, false, -1));
	SAY(make_files(e) && look_at_extents(e));
	for (unsigned i = 0; i < extents_nr; i++) {
		SAY(spoil_ptr(e, i, 0));
		if (extent[i].pos.inode == inum_of(file[0]))
			MUST(e, ter_sim_corrupt(e->sim, e->path[extent[i].e.ptr[1].dev], extent[i].e.ptr[1].sector << TER_SECTOR_SHIFT, (uint64_t)extent[i].e.stored_sectors << TER_SECTOR_SHIFT));
	}
	MUST(e, eng_stop(e));
	SAY(repair(e, NULL, &repaired));
	ENG_CHECK(e, !repaired.left && repaired.copies_made && repaired.degraded_bytes > FILE_BYTES / 2 && repaired.degraded_bytes < 2 * FILE_BYTES);
	MUST(e, eng_stop(e));
	MUST(e, eng_start(e, false, -1));
	SAY(listed(e, 0, true) && listed(e, 1, false) && listed(e, 2, false) && reads_as_written(e, 1) && reads_as_written(e, 2));
	ENG_CHECK(e, read_all(e->vfs, file[0], got, FILE_BYTES) == -EIO);
	SAY(looks(e, 0, true));
	MUST(e, eng_stop(e));
	return true;
}

/* No pointer of one extent is left: that range reads as an error, and the file is listed. */
static bool no_pointer(struct eng *e, uint64_t unused)
{
	struct ter_fs_repaired repaired = { 0 };
	struct ter_damage damage;
	unsigned lost;

	(void)unused;
	MUST(e, eng_start(e, false, -1));
	SAY(make_files(e) && look_at_extents(e));
	for (lost = 0; extent[lost].pos.inode != inum_of(file[1]) || extent[lost].e.start == 0; lost++)
		ENG_CHECK(e, lost + 1 < extents_nr);
	SAY(spoil_ptr(e, lost, 0) && spoil_ptr(e, lost, 1));
	MUST(e, eng_stop(e));
	SAY(repair(e, NULL, &repaired));
	ENG_CHECK(e, repaired.found && !repaired.left);
	SAY(listed(e, 1, true) && listed(e, 0, false) && listed(e, 2, false));
	MUST(e, ter_vfs_next_damaged(e->vfs, 0, &damage));
	ENG_CHECK(e, damage.offset_bytes == extent[lost].e.start << TER_SECTOR_SHIFT && damage.times == 1);
	MUST(e, eng_stop(e));
	MUST(e, eng_start(e, true, -1));
	SAY(listed(e, 1, true) && looks(e, 0, false));
	ENG_CHECK(e, read_all(e->vfs, file[1], got, FILE_BYTES) == -EIO);
	SAY(reads_as_written(e, 0));
	eng_close(e);
	return true;
}

/* --- running them --- */

struct test {
	bool (*fn)(struct eng *e, uint64_t arg);
	uint64_t arg;
};

static void test_main(struct eng *e, void *arg)
{
	const struct test *t = arg;

	if (eng_format(e) < 0)
		eng_fail(e, "format: %s", e->error.text);
	else
		(void)t->fn(e, t->arg);
	ter_sim_power_off_after(e->sim, UINT64_MAX);
	if (e->fs)
		eng_close(e);
}

static void run(const struct eng_layout *layout, bool (*fn)(struct eng *e, uint64_t arg), uint64_t arg)
{
	struct eng *e = eng_new(layout, eng_seed() + arg);
	char line[96];

	snprintf(line, sizeof(line), "%s, %llu", layout->name, (unsigned long long)arg);
	eng_guard(line, CASE_SECONDS);
	eng_run(e, test_main, &(struct test){ fn, arg });
	eng_guard("", 0);
	if (e->failed)
		fail_msg("%s: %s", line, e->why);
	eng_free(e);
}

static void copies_that_are_given_up_are_made_again(void **state)
{
	(void)state;
	run(&eng_layouts[1], given_up, 0);
	run(&eng_layouts[2], given_up, 0);
	run(&eng_layouts[1], asked, 0);
}

static void a_cut_in_the_middle_is_made_good_by_the_next_repair(void **state)
{
	(void)state;
	for (uint64_t writes = 1; writes < 160; writes += 9)
		run(&eng_layouts[1], cut_off, writes);
}

static void data_written_while_a_member_was_away_is_degraded_and_no_error(void **state)
{
	(void)state;
	run(&eng_layouts[1], written_degraded, 0);
}

static void where_there_is_no_room_it_is_said(void **state)
{
	(void)state;
	run(&unequal, no_room, 0);
}

static void lost_data_is_listed(void **state)
{
	(void)state;
	run(&eng_layouts[1], no_good_copy, 0);
	run(&eng_layouts[1], no_pointer, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copies_that_are_given_up_are_made_again),
		cmocka_unit_test(a_cut_in_the_middle_is_made_good_by_the_next_repair),
		cmocka_unit_test(data_written_while_a_member_was_away_is_degraded_and_no_error),
		cmocka_unit_test(where_there_is_no_room_it_is_said),
		cmocka_unit_test(lost_data_is_listed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
