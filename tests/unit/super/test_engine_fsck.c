/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsck finds each kind of contradiction that is planted in a sound pool, and none in a sound one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "alloc/accounting.h"
#include "alloc/alloc_format.h"
#include "data/extent.h"
#include "engine_rig.h"
#include "fs/dirent_format.h"
#include "fs/inode_format.h"
#include "fs/vfs_calls.h"
#include "super/super_priv.h"

#define DAMAGE_SECONDS 120
#define VAL_MAX 4096

/* --- damages --- */

enum how {
	REMOVE, /* the key */
	ADD,    /* to the le32 at byte @at of its value */
	SET8,   /* the byte at @at to @by */
	SHIFT,  /* a copy of the key, @by further on */
	INSERT, /* a key of @type without a value at the position of the one found, in btree @into */
	COUNT,  /* @by to the first counter of the key */
};

struct damage {
	const char *name;
	enum ter_btree_id btree;
	bool (*is)(struct ter_sb *sb, const struct ter_key *key); /* NULL: any */
	enum how how;
	unsigned at;
	int by;
	enum ter_btree_id into;
};

static bool is_user_extent(struct ter_sb *sb, const struct ter_key *key)
{
	(void)sb;
	return key->type == TER_KEY_EXTENT;
}

static bool is_late_extent(struct ter_sb *sb, const struct ter_key *key)
{
	return is_user_extent(sb, key) && ter_key_start(key) >= 8;
}

static uint32_t inode_field(const struct ter_key *key, size_t offset)
{
	return ter_le32_get(*(const ter_le32 *)((const uint8_t *)key->val + offset));
}

static bool is_file(struct ter_sb *sb, const struct ter_key *key)
{
	(void)sb;
	return S_ISREG(inode_field(key, offsetof(struct ter_inode_disk, mode))) && inode_field(key, offsetof(struct ter_inode_disk, nlink)) == 1;
}

static bool is_directory(struct ter_sb *sb, const struct ter_key *key)
{
	(void)sb;
	return key->pos.inode != TER_ROOT_INUM && S_ISDIR(inode_field(key, offsetof(struct ter_inode_disk, mode)));
}

static bool is_big_file(struct ter_sb *sb, const struct ter_key *key)
{
	return is_file(sb, key) && inode_field(key, offsetof(struct ter_inode_disk, sectors)) > 8;
}

static bool of_data(struct ter_sb *sb, const struct ter_key *key)
{
	const struct ter_alloc_disk *disk = key->val;

	(void)sb;
	return disk->data_type == TER_DATA_USER && ter_le32_get(disk->live_sectors) > 0; /* an empty one may be made free meanwhile */
}

static bool of_node(struct ter_sb *sb, const struct ter_key *key)
{
	(void)sb;
	return ((const struct ter_backpointer_disk *)key->val)->level > 0;
}

static bool of_extent(struct ter_sb *sb, const struct ter_key *key)
{
	return !of_node(sb, key);
}

static bool counts_copies(struct ter_sb *sb, const struct ter_key *key)
{
	(void)sb;
	return ter_counter_kind(key->pos) == TER_COUNT_REPLICAS;
}

static bool counts_members(struct ter_sb *sb, const struct ter_key *key)
{
	(void)sb;
	return ter_counter_kind(key->pos) == TER_COUNT_DEV;
}

static bool counts_inodes(struct ter_sb *sb, const struct ter_key *key)
{
	(void)sb;
	return ter_counter_kind(key->pos) == TER_COUNT_INODES;
}

static bool counts_compressed(struct ter_sb *sb, const struct ter_key *key)
{
	(void)sb;
	return ter_counter_kind(key->pos) == TER_COUNT_COMPRESSION;
}

static const struct damage damages[] = {
	{ "an extent's back reference is gone", TER_BTREE_BACKPOINTERS, of_extent, REMOVE },
	{ "a node's back reference is gone", TER_BTREE_BACKPOINTERS, of_node, REMOVE },
	{ "a back reference leads elsewhere", TER_BTREE_BACKPOINTERS, of_extent, ADD, offsetof(struct ter_backpointer_disk, offset), 8 },
	{ "a back reference too many", TER_BTREE_BACKPOINTERS, of_extent, SHIFT, 0, 1 },
	{ "a bucket's live count is wrong", TER_BTREE_ALLOC, of_data, ADD, offsetof(struct ter_alloc_disk, live_sectors), 8 },
	{ "a bucket's generation is wrong", TER_BTREE_ALLOC, of_data, ADD, offsetof(struct ter_alloc_disk, gen), 1 },
	{ "a bucket's type is wrong", TER_BTREE_ALLOC, of_data, SET8, offsetof(struct ter_alloc_disk, data_type), TER_DATA_BTREE },
	{ "an alloc key is gone", TER_BTREE_ALLOC, of_data, REMOVE },
	{ "a free range is gone", TER_BTREE_FREESPACE, NULL, REMOVE },
	{ "a free range is too short", TER_BTREE_FREESPACE, NULL, SHIFT, 0, -1 },
	{ "a bucket in use is to be discarded", TER_BTREE_ALLOC, of_data, INSERT, 0, 0, TER_BTREE_NEED_DISCARD },
	{ "an extent is gone", TER_BTREE_EXTENTS, is_user_extent, REMOVE },
	{ "an extent overlaps another", TER_BTREE_EXTENTS, is_late_extent, SHIFT, 0, -8 },
	{ "an inode's link count is too high", TER_BTREE_INODES, is_file, ADD, offsetof(struct ter_inode_disk, nlink), 1 },
	{ "a directory's link count is too high", TER_BTREE_INODES, is_directory, ADD, offsetof(struct ter_inode_disk, nlink), 1 },
	{ "a directory's number of entries is wrong", TER_BTREE_INODES, is_directory, ADD, offsetof(struct ter_inode_disk, size), 1 },
	{ "an inode without links is not to be deleted", TER_BTREE_INODES, is_file, ADD, offsetof(struct ter_inode_disk, nlink), -1 },
	{ "an inode is of another type than its entry", TER_BTREE_INODES, is_directory, SET8, offsetof(struct ter_inode_disk, mode) + 1, (S_IFREG | 0755) >> 8 },
	{ "an inode's allocated sectors are wrong", TER_BTREE_INODES, is_big_file, ADD, offsetof(struct ter_inode_disk, sectors), 8 },
	{ "a file's inode is gone", TER_BTREE_INODES, is_file, REMOVE },
	{ "a directory's inode is gone", TER_BTREE_INODES, is_directory, REMOVE },
	{ "a directory entry is gone", TER_BTREE_DIRENTS, NULL, REMOVE },
	{ "a directory entry leads to another inode", TER_BTREE_DIRENTS, NULL, ADD, offsetof(struct ter_dirent_disk, inum), 100000 },
	{ "a directory entry has the wrong hash", TER_BTREE_DIRENTS, NULL, SHIFT, 0, 16 },
	{ "an attribute of no inode", TER_BTREE_XATTRS, NULL, SHIFT, 1, 100000 },
	{ "an inode with a name is to be deleted", TER_BTREE_INODES, is_directory, INSERT, 0, 0, TER_BTREE_DELETED_INODES },
	{ "the sum of copies is wrong", TER_BTREE_ACCOUNTING, counts_copies, COUNT, 0, 8 },
	{ "a member's sum is wrong", TER_BTREE_ACCOUNTING, counts_members, COUNT, 0, 1 },
	{ "the number of inodes is wrong", TER_BTREE_ACCOUNTING, counts_inodes, COUNT, 0, 1 },
	{ "the sum of compressed extents is wrong", TER_BTREE_ACCOUNTING, counts_compressed, COUNT, 0, 1 },
};

/* --- planting one --- */

struct planting {
	struct ter_sb *sb;
	const struct damage *damage;
	struct ter_key key;
	uint64_t val[VAL_MAX / 8];
	bool found;
};

static int find_victim(void *arg, const struct ter_key *key)
{
	struct planting *p = arg;

	if (key->val_bytes > VAL_MAX || (p->damage->is && !p->damage->is(p->sb, key)))
		return 0;
	p->key = *key;
	if (key->val_bytes)
		memcpy(p->val, key->val, key->val_bytes);
	p->key.val = p->val;
	p->found = true;
	return 1;
}

static int plant_fn(struct ter_trans *trans, void *arg)
{
	struct planting *p = arg;
	const struct damage *d = p->damage;
	struct ter_key key = p->key;
	uint64_t val[VAL_MAX / 8];
	const int64_t delta = d->by;
	ter_le32 *word = (ter_le32 *)((uint8_t *)val + d->at);

	memcpy(val, p->val, sizeof(val));
	key.val = val;
	switch (d->how) {
	case REMOVE:
		return ter_trans_update(trans, d->btree, key.pos, TER_KEY_ANY, NULL);
	case ADD:
		*word = ter_le32_make((uint32_t)((int64_t)ter_le32_get(*word) + d->by));
		break;
	case SET8:
		((uint8_t *)val)[d->at] = (uint8_t)d->by;
		break;
	case SHIFT:
		if (d->at)
			key.pos.inode += (uint64_t)(int64_t)d->by;
		else
			key.pos.offset += (uint64_t)(int64_t)d->by;
		break;
	case INSERT:
		key = (struct ter_key){ .pos = p->key.pos, .type = TER_KEY_SET };
		return ter_trans_update(trans, d->into, key.pos, TER_KEY_ANY, &key);
	case COUNT:
		return ter_trans_add(trans, key.pos, &delta, 1);
	}
	return ter_trans_update(trans, d->btree, key.pos, TER_KEY_ANY, &key);
}

struct report {
	unsigned nr;
	char first[400];
};

static void on_found(void *arg, const char *pass, const char *sentence)
{
	struct report *r = arg;

	if (!r->nr++)
		snprintf(r->first, sizeof(r->first), "%s: %s", pass, sentence);
}

static const struct damage *now_damage;

static void damage_main(struct eng *e, void *arg)
{
	struct planting p = { .damage = now_damage };
	struct report report = { 0 };
	const struct ter_fsck_report cb = { on_found, &report };
	int64_t r;

	(void)arg;
	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	p.sb = e->fs->sb.sb;
	r = ter_btree_scan(e->fs->btrees, p.damage->btree, TER_POS_MIN, TER_POS_MAX, 0, find_victim, &p, NULL);
	if (r < 0 || !p.found)
		eng_fail(e, "no key to damage");
	else if (ter_trans_run(e->fs->btrees, 0, plant_fn, &p, NULL) < 0)
		eng_fail(e, "the damage cannot be done");
	else {
		r = ter_fs_fsck(e->fs, &cb, NULL, &e->error);
		if (r <= 0)
			eng_fail(e, "fsck says %lld", (long long)r);
		else if (report.nr != (uint64_t)r || !report.first[0])
			eng_fail(e, "fsck says %lld, but told %u", (long long)r, report.nr);
		else if (getenv("TER_TEST_VERBOSE"))
			fprintf(stderr, "%s: %lld, %s\n", p.damage->name, (long long)r, report.first);
	}
	ter_sim_power_off_after(e->sim, 0); /* a damaged pool's last work is of no interest */
	eng_close(e);
}

/* --- the sound pool --- */

static void sound_main(struct eng *e, void *arg)
{
	(void)arg;
	if (eng_format(e) < 0) {
		eng_fail(e, "format: %s", e->error.text);
		return;
	}
	eng_model_new(e);
	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	(void)eng_fsck_clean(e);
	for (unsigned i = 0; i < 300 && eng_step(e); i++)
		if (i % 60 == 0)
			(void)eng_fsck_clean(e);
	/* So that there is one of everything. */
	if (!e->failed) {
		struct ter_attr attr;
		static uint8_t data[60000];
		uint64_t dir = must_create(e->vfs, TER_NODE_ROOT, "a directory", S_IFDIR | 0755);

		(void)must_create(e->vfs, dir, "an entry", S_IFREG | 0644);
		for (size_t i = 0; i < sizeof(data) / 2; i++)
			data[i] = eng_byte(i, i * 61); /* half of it compresses */
		attr.node = must_create(e->vfs, dir, "big", S_IFREG | 0644);
		if (write_at(e->vfs, attr.node, 0, data, sizeof(data)) < 0 || ter_vfs_setxattr(e->vfs, &root_op, dir, "user.x", "x", 1, 0) < 0)
			eng_fail(e, "the last files cannot be written");
	}
	(void)eng_fsck_clean(e);
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
	if (eng_start(e, true, -1) < 0) {
		eng_fail(e, "read-only start: %s", e->error.text);
		return;
	}
	(void)eng_fsck_clean(e);
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
}

static void each_damage_is_found(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 3; layout++) {
		struct eng *e = eng_new(&eng_layouts[layout], eng_seed() + layout);
		struct ter_sim_snapshot *snapshot;
		unsigned missed = 0;

		eng_guard("a sound pool", DAMAGE_SECONDS);
		eng_run(e, sound_main, NULL);
		if (e->failed)
			fail_msg("%s, op %u: %s", e->layout.name, e->ops_nr, e->why);
		snapshot = ter_sim_snapshot_take(e->sim);
		for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
			struct eng_machine before;

			if (damages[i].is == counts_compressed && !strcmp(e->layout.compression, "none"))
				continue;
			eng_guard(damages[i].name, DAMAGE_SECONDS);
			eng_machine_enter(e, e->seed + i, &before);
			ter_sim_restore(e->sim, snapshot, NULL);
			now_damage = &damages[i];
			eng_run(e, damage_main, NULL);
			eng_machine_leave(e, &before);
			if (e->failed) {
				fprintf(stderr, "%s: %s: %s\n", e->layout.name, damages[i].name, e->why);
				e->failed = false;
				missed++;
			}
		}
		eng_guard("", 0);
		ter_sim_snapshot_free(snapshot);
		eng_free(e);
		assert_int_equal(missed, 0);
	}
}

static unsigned steps_left;

static int stop_after(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	(void)arg;
	(void)phase;
	(void)done;
	(void)total;
	return steps_left-- ? 0 : -ECANCELED;
}

static void cancel_main(struct eng *e, void *arg)
{
	const struct ter_job_ctl job = { .step = stop_after };

	(void)arg;
	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	for (unsigned n = 0;; n++) {
		int64_t r;

		steps_left = n;
		ter_error_clear(&e->error);
		r = ter_fs_fsck(e->fs, NULL, &job, &e->error);
		if (r == 0 && n)
			break;
		if (r != -ECANCELED || e->error.kind != TER_ERR_CANCELLED)
			eng_fail(e, "after %u steps: %lld, %s", n, (long long)r, e->error.text);
		if (e->failed)
			break;
	}
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
}

static void a_check_can_be_cancelled_anywhere(void **state)
{
	struct eng *e = eng_new(&eng_layouts[0], eng_seed());

	(void)state;
	eng_guard("a_check_can_be_cancelled_anywhere", DAMAGE_SECONDS);
	eng_run(e, sound_main, NULL);
	if (!e->failed)
		eng_run(e, cancel_main, NULL);
	eng_guard("", 0);
	if (e->failed)
		fail_msg("%s", e->why);
	eng_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_damage_is_found),
		cmocka_unit_test(a_check_can_be_cancelled_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
