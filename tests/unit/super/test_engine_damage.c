/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lost data: the file says EIO, is remembered by name through renames and restarts, and the rest goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "data/extent.h"
#include "engine_rig.h"
#include "fs/vfs_calls.h"
#include "super/super_priv.h"

#define FILE_BYTES 40000
#define TEST_SECONDS 100
#define EXTENTS_MAX 64
#define NOTED_WAITS_MAX 100

static uint8_t content[FILE_BYTES], got[FILE_BYTES];

/* --- every copy of a file's data is spoilt --- */

struct copies {
	struct eng *e;
	unsigned nr;
	struct {
		unsigned dev;
		uint64_t sector;
		uint32_t sectors;
	} copy[EXTENTS_MAX];
};

static int note_copies(void *arg, const struct ter_key *key)
{
	struct copies *c = arg;
	struct ter_extent extent;

	if (key->type != TER_KEY_EXTENT || ter_extent_decode(key, c->e->fs->sb.sb, &extent) < 0)
		return -EUCLEAN;
	for (unsigned i = 0; i < extent.nr_ptrs && c->nr < EXTENTS_MAX; i++) {
		c->copy[c->nr].dev = extent.ptr[i].dev;
		c->copy[c->nr].sector = extent.ptr[i].sector;
		c->copy[c->nr++].sectors = extent.stored_sectors;
	}
	return 0;
}

static bool spoil(struct eng *e, uint64_t node)
{
	const uint64_t inum = node & ((1ull << 40) - 1);
	struct copies c = { .e = e };

	MUST(e, ter_btree_scan(e->fs->btrees, TER_BTREE_EXTENTS, TER_POS(inum, 0, 0), TER_POS(inum, UINT64_MAX, UINT32_MAX), 0, note_copies, &c, NULL));
	ENG_CHECK(e, c.nr >= e->layout.replicas);
	for (unsigned i = 0; i < c.nr; i++)
		MUST(e, ter_sim_corrupt(e->sim, e->path[c.copy[i].dev], c.copy[i].sector << TER_SECTOR_SHIFT, (uint64_t)c.copy[i].sectors << TER_SECTOR_SHIFT));
	return true;
}

/* --- what is listed --- */

static bool listed(struct eng *e, uint64_t node, const char *path)
{
	const uint64_t inum = node & ((1ull << 40) - 1);
	struct ter_damage damage;
	char text[4096];

	MUST(e, ter_vfs_next_damaged(e->vfs, inum, &damage));
	ENG_CHECK(e, damage.inum == inum && damage.times >= 1 && damage.offset_bytes < FILE_BYTES && damage.first_ns <= damage.last_ns);
	MUST(e, ter_vfs_path_of(e->vfs, inum, text, sizeof(text)));
	if (strcmp(text, path) != 0)
		return eng_fail(e, "'%s' instead of '%s'", text, path);
	return true;
}

static bool none_listed(struct eng *e)
{
	struct ter_damage damage;

	ENG_CHECK(e, ter_vfs_next_damaged(e->vfs, 0, &damage) == -ENOENT);
	return true;
}

/* Notes are made in the background. */
static bool noted(struct eng *e, uint64_t node)
{
	const uint64_t inum = node & ((1ull << 40) - 1);
	struct ter_damage damage;

	for (unsigned i = 0; i < NOTED_WAITS_MAX; i++) {
		if (ter_vfs_next_damaged(e->vfs, inum, &damage) == 0 && damage.inum == inum)
			return true;
		ter_sleep_ns(e->exec, TER_NS_PER_MS);
	}
	return eng_fail(e, "the file was not noted");
}

/* --- the story --- */

static uint64_t dir, lost, good;

static bool lose_a_file(struct eng *e)
{
	MUST(e, eng_start(e, false, -1));
	dir = must_create(e->vfs, TER_NODE_ROOT, "photos", S_IFDIR | 0755);
	lost = must_create(e->vfs, dir, "a.jpg", S_IFREG | 0644);
	good = must_create(e->vfs, dir, "b.jpg", S_IFREG | 0644);
	MUST(e, write_at(e->vfs, lost, 0, content, sizeof(content)));
	MUST(e, write_at(e->vfs, good, 0, content, sizeof(content)));
	MUST(e, ter_fs_sync(e->fs));
	if (!none_listed(e) || !spoil(e, lost))
		return false;
	ENG_CHECK(e, read_all(e->vfs, lost, got, sizeof(got)) == -EIO);
	ENG_CHECK(e, e->events[TER_EVENT_DAMAGE] > 0);
	if (!noted(e, lost) || !listed(e, lost, "/photos/a.jpg"))
		return false;
	/* The rest goes on. */
	ENG_CHECK(e, read_all(e->vfs, good, got, sizeof(got)) == sizeof(content) && memcmp(got, content, sizeof(content)) == 0);
	MUST(e, ter_vfs_rename(e->vfs, &root_op, dir, "a.jpg", TER_NODE_ROOT, "moved.jpg", 0, NULL));
	if (!listed(e, lost, "/moved.jpg"))
		return false;
	MUST(e, eng_stop(e));
	return true;
}

static bool still_listed(struct eng *e)
{
	for (int read_only = 1; read_only >= 0; read_only--) {
		MUST(e, eng_start(e, read_only, -1));
		if (!listed(e, lost, "/moved.jpg"))
			return false;
		ENG_CHECK(e, read_all(e->vfs, lost, got, sizeof(got)) == -EIO);
		ENG_CHECK(e, read_only == 0 || ter_vfs_clear_damage(e->vfs, lost & ((1ull << 40) - 1)) == -EROFS);
		if (!eng_fsck_clean(e))
			return false;
		MUST(e, eng_stop(e));
	}
	return true;
}

static bool goes_with_its_file(struct eng *e)
{
	uint64_t orphan = 0;

	MUST(e, eng_start(e, false, -1));
	if (!listed(e, lost, "/moved.jpg"))
		return false;
	MUST(e, ter_vfs_unlink(e->vfs, &root_op, TER_NODE_ROOT, "moved.jpg", &orphan));
	ter_vfs_forget(e->vfs, orphan);
	MUST(e, eng_stop(e)); /* reaped by now */
	MUST(e, eng_start(e, false, -1));
	if (!none_listed(e) || !eng_fsck_clean(e))
		return false;
	MUST(e, eng_stop(e));
	return true;
}

static bool can_be_cleared(struct eng *e)
{
	const uint64_t inum = good & ((1ull << 40) - 1);

	MUST(e, eng_start(e, false, -1));
	if (!spoil(e, good))
		return false;
	ENG_CHECK(e, read_all(e->vfs, good, got, sizeof(got)) == -EIO);
	if (!noted(e, good) || !listed(e, good, "/photos/b.jpg"))
		return false;
	/* Its owner has another copy. */
	MUST(e, truncate_to(e->vfs, good, 0));
	MUST(e, write_at(e->vfs, good, 0, content, sizeof(content)));
	MUST(e, ter_vfs_clear_damage(e->vfs, inum));
	MUST(e, ter_vfs_clear_damage(e->vfs, inum));
	MUST(e, ter_fs_sync(e->fs));
	ENG_CHECK(e, read_all(e->vfs, good, got, sizeof(got)) == sizeof(content) && memcmp(got, content, sizeof(content)) == 0);
	if (!none_listed(e) || !eng_fsck_clean(e))
		return false;
	MUST(e, eng_stop(e));
	return true;
}

/* --- running it --- */

struct test {
	bool (*fn)(struct eng *e);
};

static void test_main(struct eng *e, void *arg)
{
	const struct test *t = arg;

	(void)t->fn(e);
	eng_close(e);
}

static bool just_format(struct eng *e)
{
	MUST(e, eng_format(e));
	return true;
}

static void lost_data_is_remembered_by_file(void **state)
{
	static const struct test tests[] = { { just_format }, { lose_a_file }, { still_listed }, { goes_with_its_file }, { can_be_cleared } };

	(void)state;
	for (unsigned layout = 0; layout < eng_layouts_nr; layout++) {
		struct eng *e;

		if (eng_layouts[layout].lost >= 0)
			continue; /* the same members at every start */
		eng_guard(eng_layouts[layout].name, TEST_SECONDS);
		e = eng_new(&eng_layouts[layout], eng_seed());
		for (unsigned i = 0; i < sizeof(content); i++)
			content[i] = (uint8_t)eng_rnd(e); /* nothing that compresses or lies inline */
		for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
			struct test t = tests[i];

			eng_run(e, test_main, &t);
			if (e->failed)
				fail_msg("%s: part %u: %s", e->layout.name, i, e->why);
		}
		eng_guard("", 0);
		eng_free(e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lost_data_is_remembered_by_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
