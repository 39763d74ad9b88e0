/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of btrees: each node of each btree is lost on all copies (leaves, interior nodes, roots), or does not fit its parent. The pool is repaired, checks clean, and every file that the lost leaf did
 * not hold reads as before; behind a lost interior node all leaves are found again
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "btree/btree_priv.h"
#include "btree/salvage.h"
#include "engine_damage.h"
#include "fs/vfs_calls.h"
#include "recovery/node_scan.h"
#include "recovery/repair_ptrs.h"
#include "super/super_priv.h"

#define CASE_SECONDS 120
#define FILES 260
#define NODES_MAX 512
#define FILES_MAX (FILES + 64)

/* --- the pool --- */

static uint64_t pattern_of(unsigned i)
{
	return 1000 + i * 7;
}

static void sound_main(struct eng *e, void *arg)
{
	static uint8_t data[12000];
	char name[64];
	uint64_t dir;

	(void)arg;
	if (eng_format(e) < 0 || eng_start(e, false, -1) < 0) {
		eng_fail(e, "%s", e->error.text);
		return;
	}
	dir = must_create(e->vfs, TER_NODE_ROOT, "a directory", S_IFDIR | 0755);
	for (unsigned i = 0; i < FILES; i++) {
		uint64_t node;

		snprintf(name, sizeof(name), "a name of some length for file number %u", i);
		node = must_create(e->vfs, dir, name, S_IFREG | 0644);
		for (unsigned k = 0; k < sizeof(data); k++)
			data[k] = eng_byte(pattern_of(i), k);
		if (write_at(e->vfs, node, 0, data, 4096 + 4096 * (i % 2)) < 0 || ter_vfs_setxattr(e->vfs, &root_op, node, "user.attribute", data, 60, 0) < 0)
			eng_fail(e, "a file cannot be written");
		if (i % 3 == 0 && write_at(e->vfs, node, 65536, data, 4096) < 0)
			eng_fail(e, "a file cannot be written");
		if (i % 64 == 63 && ter_fs_sync(e->fs) < 0)
			eng_fail(e, "sync fails");
	}
	(void)eng_fsck_clean(e);
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
}

/* --- nodes and files of it --- */

struct node {
	uint8_t btree, level;
	bool is_root;
	struct ter_pos max;
	struct ter_node_ptrs ptrs;
};
struct picture {
	struct node node[NODES_MAX];
	unsigned nr;
	struct { uint64_t inum, hash; } file[FILES_MAX];
	unsigned files;
	enum ter_btree_id btree;
};

static int add_node(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	struct picture *p = arg;

	if (p->nr < NODES_MAX)
		p->node[p->nr++] = (struct node){ (uint8_t)p->btree, (uint8_t)level, false, max, *ptrs };
	return 0;
}

static int add_file(void *arg, const struct ter_key *key)
{
	struct picture *p = arg;

	if (p->files < FILES_MAX)
		p->file[p->files++].inum = key->pos.inode;
	return 0;
}

static uint64_t hash_file(struct eng *e, uint64_t inum)
{
	static uint8_t buf[TER_KIB(128)];
	struct ter_attr a;
	int64_t bytes;

	if (ter_vfs_getattr(e->vfs, &root_op, TER_NODE(1, inum), &a) < 0)
		return 0;
	if (!S_ISREG(a.mode))
		return 1;
	bytes = read_all(e->vfs, TER_NODE(1, inum), buf, sizeof(buf));
	return bytes < 0 ? (uint64_t)bytes : eng_hash_bytes(2, buf, (size_t)bytes);
}

static struct picture picture;

static void picture_main(struct eng *e, void *arg)
{
	struct picture *p = arg;

	p->nr = p->files = 0;
	if (eng_start(e, true, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	for (unsigned b = 0; b < TER_BTREE_NR; b++) {
		const unsigned first = p->nr;

		p->btree = (enum ter_btree_id)b;
		if (ter_btree_walk_nodes(e->fs->btrees, p->btree, add_node, p) < 0)
			eng_fail(e, "btree %u cannot be walked", b);
		if (p->nr > first)
			p->node[first].is_root = true;
	}
	(void)ter_btree_scan(e->fs->btrees, TER_BTREE_INODES, TER_POS_MIN, TER_POS_MAX, 0, add_file, p, NULL);
	for (unsigned i = 0; i < p->files; i++)
		p->file[i].hash = hash_file(e, p->file[i].inum);
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
}

/* --- damage --- */

enum how { ALL, LAST_BSET, RANGE };
static const char *const hows[] = { "all of it", "its end", "its range" };

/* Its greatest position is another, its checksum right. */
static bool shift_range(struct eng *e, const struct node *n, unsigned copy)
{
	const struct ter_sb *sb = e->fs->sb.sb;
	static uint8_t buf[TER_KIB(64)] __attribute__((aligned(8))); /* a bucket: no node is larger */
	struct ter_node_disk *head = (struct ter_node_disk *)buf;
	struct ter_bset_disk *bset = (struct ter_bset_disk *)(head + 1);
	uint8_t csum[TER_DIGEST_MAX];
	const char *path = e->path[n->ptrs.ptr[copy].dev];
	const uint64_t offset = n->ptrs.ptr[copy].sector << TER_SECTOR_SHIFT;

	if (ter_sim_peek(e->sim, path, offset, buf, sb->options.btree_node_size) < 0)
		return false;
	if (ter_le64_get(head->node_seq) != n->ptrs.node_seq || TER_NODE_HEAD_BYTES + ter_le32_get(bset->keys_bytes) > sb->options.btree_node_size)
		return eng_fail(e, "the node is not there");
	head->max.offset = ter_le64_make(ter_le64_get(head->max.offset) - 1);
	memset(bset->csum, 0, sizeof(bset->csum));
	ter_algos_digest(&sb->algos, bset->csum_slot, buf, TER_NODE_HEAD_BYTES + ter_le32_get(bset->keys_bytes), csum);
	memcpy(bset->csum, csum, sizeof(bset->csum));
	return ter_sim_poke(e->sim, path, offset, buf, sb->options.btree_node_size) == 0;
}

/* The pool is open, not started. */
static bool damage(struct eng *e, const struct node *n, enum how how)
{
	const uint32_t block = e->fs->sb.sb->options.block_size, written = n->ptrs.sectors_written << TER_SECTOR_SHIFT;

	for (unsigned i = 0; i < n->ptrs.nr; i++) {
		const uint64_t offset = n->ptrs.ptr[i].sector << TER_SECTOR_SHIFT;
		const char *path = e->path[n->ptrs.ptr[i].dev];

		if (how == RANGE ? !shift_range(e, n, i) : ter_sim_corrupt(e->sim, path, how == ALL ? offset : offset + written - block, how == ALL ? written : block) < 0)
			return eng_fail(e, "the damage cannot be done");
	}
	return true;
}

/* --- one case --- */

static const struct node *now_node, *now_other;
static enum how now_how;
static unsigned nr_lost, nr_same, nr_differ, nr_cuts;
static bool now_refuse, now_cut;

static int tell(void *arg, const char *pass, const char *sentence)
{
	(void)arg;
	fprintf(stderr, "    %s: %s\n", pass, sentence);
	return 1;
}

static int refuse(void *arg, const char *pass, const char *sentence)
{
	(void)arg;
	(void)pass;
	(void)sentence;
	return 0;
}

static int count_lost(void *arg, const struct ter_lost_node *lost)
{
	(void)lost;
	++*(unsigned *)arg;
	return 0;
}

static unsigned still_lost(struct eng *e)
{
	unsigned nr = 0;
	const struct ter_node_walk walk = { .lost = count_lost, .arg = &nr };

	return ter_btree_walk_lost(e->fs->btrees, (enum ter_btree_id)now_node->btree, &walk) < 0 ? 0 : nr;
}

static void on_left(void *arg, const char *pass, const char *sentence)
{
	struct eng *e = arg;

	(void)eng_fail(e, "left: %s: %s", pass, sentence);
}

/* The lost leaf held (some of) it. */
static bool depends(const struct node *n, uint64_t inum)
{
	if (!n || n->level || (n->btree != TER_BTREE_EXTENTS && n->btree != TER_BTREE_INODES))
		return false;
	return inum >= n->ptrs.min.inode && inum <= n->max.inode;
}

static bool compare_files(struct eng *e)
{
	for (unsigned i = 0; i < picture.files; i++) {
		const uint64_t hash = hash_file(e, picture.file[i].inum);

		nr_same += hash == picture.file[i].hash;
		if (hash == picture.file[i].hash)
			continue;
		nr_differ++;
		if (!depends(now_node, picture.file[i].inum) && !depends(now_other, picture.file[i].inum))
			return eng_fail(e, "file %llu reads differently", (unsigned long long)picture.file[i].inum);
	}
	return true;
}

static bool open_repair(struct eng *e, const struct ter_fs_repair_params *params, struct ter_fs_repaired *ret)
{
	int r;

	if (eng_open(e, false, -1) < 0)
		return eng_fail(e, "open: %s", e->error.text);
	r = ter_fs_repair(e->fs, params, NULL, ret, &e->error);
	if (r < 0)
		return eng_fail(e, "repair: %d %s", r, e->error.text);
	e->vfs = ter_fs_vfs(e->fs);
	return true;
}

static void cut_repair(struct eng *e)
{
	struct ter_fs_repaired repaired;

	if (eng_open(e, false, -1) < 0) {
		eng_fail(e, "open: %s", e->error.text);
		return;
	}
	ter_sim_power_off_after(e->sim, eng_below(e, 60));
	(void)ter_fs_repair(e->fs, NULL, NULL, &repaired, NULL);
	nr_cuts += ter_sim_power_is_off(e->sim);
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
	ter_sim_cut(e->sim, &(struct ter_sim_cut){ .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .seed = eng_rnd(e) });
	ter_error_clear(&e->error);
}

static void case_main(struct eng *e, void *arg)
{
	struct ter_fs_repair_params params = { .want = getenv("TER_TEST_VERBOSE") ? tell : NULL, .left = on_left, .arg = e };
	struct ter_fs_repaired repaired = { 0 };

	(void)arg;
	if (eng_open(e, true, -1) < 0 || !damage(e, now_node, now_how) || (now_other && !damage(e, now_other, ALL))) {
		eng_fail(e, "open: %s", e->error.text);
		return;
	}
	eng_close(e);
	nr_lost++;
	if (now_refuse) {
		params.want = refuse;
		params.left = NULL;
		if (eng_open(e, false, -1) < 0)
			return;
		(void)ter_fs_repair(e->fs, &params, NULL, &repaired, NULL);
		if (!still_lost(e))
			(void)eng_fail(e, "a repair that may do nothing replaced it");
		if (repaired.done || !repaired.refused)
			(void)eng_fail(e, "a repair that may do nothing did %llu and refused %llu", (unsigned long long)repaired.done, (unsigned long long)repaired.refused);
		ter_sim_power_off_after(e->sim, 0);
		eng_close(e);
		return;
	}
	if (now_cut) {
		ter_sim_record(e->sim, true);
		cut_repair(e);
		ter_sim_record(e->sim, false);
		if (e->failed)
			return;
	}
	if (open_repair(e, &params, &repaired)) {
		if ((!repaired.found && !now_cut) || repaired.left || repaired.refused)
			(void)eng_fail(e, "found %llu, left %llu", (unsigned long long)repaired.found, (unsigned long long)repaired.left);
		(void)compare_files(e);
		if (eng_stop(e) < 0)
			eng_fail(e, "stop: %s", e->error.text);
		if (!e->failed && eng_start(e, false, -1) < 0)
			eng_fail(e, "start: %s", e->error.text);
	}
	if (!e->failed) {
		(void)eng_fsck_clean(e);
		(void)compare_files(e);
	}
	ter_sim_power_off_after(e->sim, 0);
	if (e->fs)
		eng_close(e);
}

static unsigned run_case(struct eng *e, const struct ter_sim_snapshot *snapshot, const struct node *node, enum how how, const struct node *other, uint64_t seed)
{
	struct eng_machine before;
	char name[160], max[64];
	unsigned missed = 0;

	snprintf(name, sizeof(name), "btree %s%s, level %u%s, up to %s, %s", ter_btree_names[node->btree], other ? " and another" : "", node->level, node->is_root ? " (root)" : "",
		 ter_pos_text(node->max, max), hows[how]);
	if (getenv("TER_TEST_VERBOSE"))
		fprintf(stderr, "%s: %s\n", e->layout.name, name);
	eng_guard(name, CASE_SECONDS);
	eng_machine_enter(e, seed, &before);
	ter_sim_restore(e->sim, snapshot, NULL);
	now_node = node;
	now_other = other;
	now_how = how;
	eng_run(e, case_main, NULL);
	eng_machine_leave(e, &before);
	if (e->failed) {
		fprintf(stderr, "%s: %s: %s\n", e->layout.name, name, e->why);
		e->failed = false;
		missed++;
	}
	return missed;
}

static struct eng *sound(unsigned layout, struct ter_sim_snapshot **ret)
{
	struct eng *e = eng_new(&eng_layouts[layout], eng_seed() + layout);

	eng_guard("a sound pool", CASE_SECONDS);
	eng_run(e, sound_main, NULL);
	if (!e->failed)
		eng_run(e, picture_main, &picture);
	if (e->failed)
		fail_msg("%s: %s", e->layout.name, e->why);
	*ret = ter_sim_snapshot_take(e->sim);
	return e;
}

static void finish(struct eng *e, struct ter_sim_snapshot *snapshot, unsigned missed)
{
	eng_guard("", 0);
	ter_sim_snapshot_free(snapshot);
	eng_free(e);
	fprintf(stderr, "%u nodes lost of %u, %u power cuts; %u files as before, %u not\n", nr_lost, picture.nr, nr_cuts, nr_same, nr_differ);
	nr_lost = nr_same = nr_differ = nr_cuts = 0;
	assert_int_equal(missed, 0);
}

static void each_lost_node_is_replaced(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 2; layout++) {
		struct ter_sim_snapshot *snapshot;
		struct eng *e = sound(layout, &snapshot);
		unsigned missed = 0, interior = 0;

		for (unsigned i = 0; i < picture.nr; i++) {
			interior += picture.node[i].level > 0;
			missed += run_case(e, snapshot, &picture.node[i], ALL, NULL, e->seed + i);
		}
		assert_true(interior >= 3);
		finish(e, snapshot, missed);
	}
}

static void nodes_damaged_in_part_give_what_they_have(void **state)
{
	struct ter_sim_snapshot *snapshot;
	struct eng *e = sound(0, &snapshot);
	unsigned missed = 0;

	(void)state;
	for (unsigned i = 0; i < picture.nr; i++)
		missed += run_case(e, snapshot, &picture.node[i], i % 2 ? LAST_BSET : RANGE, NULL, e->seed + i);
	finish(e, snapshot, missed);
}

static void several_lost_nodes_are_replaced(void **state)
{
	struct ter_sim_snapshot *snapshot;
	struct eng *e = sound(1, &snapshot);
	unsigned missed = 0;

	(void)state;
	for (unsigned i = 0; i < picture.nr; i += 2)
		missed += run_case(e, snapshot, &picture.node[i], ALL, &picture.node[eng_below(e, picture.nr)], e->seed + i);
	for (unsigned i = 0; i + 1 < picture.nr; i += 3) /* neighbours */
		missed += run_case(e, snapshot, &picture.node[i], ALL, &picture.node[i + 1], e->seed + i);
	finish(e, snapshot, missed);
}

static void a_repair_that_is_cut_off_is_done_again(void **state)
{
	(void)state;
	now_cut = true;
	for (unsigned layout = 0; layout < 2; layout++) {
		struct ter_sim_snapshot *snapshot;
		struct eng *e = sound(layout, &snapshot);
		unsigned missed = 0;

		for (unsigned i = 0; i < picture.nr; i++)
			missed += run_case(e, snapshot, &picture.node[i], ALL, NULL, e->seed + i);
		assert_true(nr_cuts > nr_lost / 4);
		finish(e, snapshot, missed);
	}
	now_cut = false;
}

static void nothing_is_replaced_when_it_may_not(void **state)
{
	struct ter_sim_snapshot *snapshot;
	struct eng *e = sound(0, &snapshot);
	unsigned missed = 0;

	(void)state;
	now_refuse = true;
	for (unsigned i = 0; i < picture.nr; i++)
		missed += run_case(e, snapshot, &picture.node[i], ALL, NULL, e->seed + i);
	now_refuse = false;
	finish(e, snapshot, missed);
}

/* --- the search reads in runs --- */

#define RUN_BYTES TER_MIB(1)

static bool is_found(const struct ter_node_scan *scan, const struct ter_found_node *node)
{
	for (size_t i = 0; i < scan->nr; i++)
		if (scan->found[i].dev == node->dev && scan->found[i].sector == node->sector)
			return scan->found[i].node_seq == node->node_seq && scan->found[i].written_bytes == node->written_bytes;
	return false;
}

/* What a look at each place finds. */
static size_t found_one_by_one(struct eng *e, const struct ter_node_scan *scan)
{
	const uint32_t node_sectors = e->options.btree_node_size >> TER_SECTOR_SHIFT;
	size_t nr = 0;

	for (unsigned d = 0; d < e->layout.devs; d++)
		for (uint64_t at = 0; at + node_sectors <= e->fs->members->dev[d].buckets_nr * e->fs->members->dev[d].bucket_sectors; at += node_sectors) {
			struct ter_found_node node;

			if (ter_btree_look_for_node(e->fs->btrees, d, at, &node) < 0 || node.btree != TER_BTREE_INODES)
				continue;
			if (!is_found(scan, &node))
				eng_fail(e, "the leaf at sector %llu of member %u was not found", (unsigned long long)at, d);
			nr++;
		}
	return nr;
}

static bool search_once(struct eng *e, const struct ter_fsck_config *config, size_t *ret_nr, uint64_t *ret_reads)
{
	const struct ter_lost_node all = { .btree = TER_BTREE_INODES, .min = TER_POS_MIN, .max = TER_POS_MAX };
	struct ter_repair repair = { 0 };
	struct ter_node_scan scan = { .config = config, .repair = &repair, .lost = &all, .lost_nr = 1 };
	struct ter_sim_stats before, after;

	ter_sim_get_stats(e->sim, &before);
	MUST(e, ter_node_scan_run(&scan, TER_MIB(1)));
	ter_sim_get_stats(e->sim, &after);
	*ret_reads = after.reads - before.reads;
	*ret_nr = scan.nr;
	if (found_one_by_one(e, &scan) != scan.nr)
		eng_fail(e, "%zu leaves were found, one by one %zu", scan.nr, found_one_by_one(e, &scan));
	ter_node_scan_release(&scan);
	return !e->failed;
}

static bool search(struct eng *e)
{
	struct ter_fsck_config config;
	uint64_t reads, reads_bad;
	size_t nr, nr_bad;

	MUST(e, eng_start(e, true, -1));
	config = ter_super_fsck_config(e->fs);
	for (unsigned warm = 0; warm < 2; warm++) /* the second one finds nodes of btree ALLOC in memory */
		SAY(search_once(e, &config, &nr, &reads));
	ENG_CHECK(e, nr > 1);
	if (reads > e->layout.devs * (e->layout.dev_bytes[0] / RUN_BYTES + 8))
		return eng_fail(e, "%llu reads", (unsigned long long)reads);
	/* A run that cannot be read hides no leaf. */
	MUST(e, ter_sim_fail(e->sim, e->path[0], TER_BIO_READ, 1, false));
	SAY(search_once(e, &config, &nr_bad, &reads_bad));
	ENG_CHECK(e, nr_bad == nr && reads_bad > reads);
	ter_sim_fail_none(e->sim);
	return true;
}

static void search_main(struct eng *e, void *arg)
{
	(void)arg;
	(void)search(e);
	if (e->fs)
		eng_close(e);
}

static void the_members_are_searched_in_runs(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 2; layout++) {
		struct ter_sim_snapshot *snapshot;
		struct eng *e = sound(layout, &snapshot);

		eng_guard("a search", CASE_SECONDS);
		eng_run(e, search_main, NULL);
		eng_guard("", 0);
		if (e->failed)
			fail_msg("%s: %s", e->layout.name, e->why);
		ter_sim_snapshot_free(snapshot);
		eng_free(e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_lost_node_is_replaced),
		cmocka_unit_test(nodes_damaged_in_part_give_what_they_have),
		cmocka_unit_test(several_lost_nodes_are_replaced),
		cmocka_unit_test(a_repair_that_is_cut_off_is_done_again),
		cmocka_unit_test(nothing_is_replaced_when_it_may_not),
		cmocka_unit_test(the_members_are_searched_in_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
