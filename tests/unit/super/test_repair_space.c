/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of space: each field of each record is damaged, each record dropped or there twice; the check finds it, the repair makes it true, a second check finds nothing, and every file reads as before
 * unless it was its own extent that was damaged and had no other copy
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "alloc/accounting.h"
#include "alloc/alloc_format.h"
#include "alloc/alloc_repair.h"
#include "btree/salvage.h"
#include "data/extent.h"
#include "engine_damage.h"
#include "fs/vfs_calls.h"
#include "recovery/repair_ptrs.h"
#include "super/super_priv.h"

#define CASE_SECONDS 120
#define STEPS 150
#define SCATTERED 200 /* extents: more than fit into the smallest table of a repair at once */

/* --- the pool --- */

static void sound_main(struct eng *e, void *arg)
{
	static uint8_t data[200000];
	struct ter_attr attr = { 0 };
	uint64_t dir;

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
	for (unsigned i = 0; i < STEPS && eng_step(e); i++)
		;
	(void)eng_sync_all(e);
	/* So that there is one of everything; the model does not know of it. */
	dir = must_create(e->vfs, TER_NODE_ROOT, "a directory", S_IFDIR | 0755);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i < sizeof(data) / 2 ? eng_byte(i, i * 61) : 0x11; /* half of it compresses */
	attr.node = must_create(e->vfs, dir, "big", S_IFREG | 0644);
	if (write_at(e->vfs, attr.node, 0, data, sizeof(data)) < 0)
		eng_fail(e, "the last file cannot be written");
	attr.node = must_create(e->vfs, dir, "scattered", S_IFREG | 0644);
	for (unsigned i = 0; i < SCATTERED; i++)
		if (write_at(e->vfs, attr.node, i * 8192ull, data + i * 11, 4096) < 0)
			eng_fail(e, "the scattered file cannot be written");
	attr.node = must_create(e->vfs, dir, "promised", S_IFREG | 0644);
	if (ter_vfs_fallocate(e->vfs, &root_op, attr.node, 0, 0, 65536) < 0)
		eng_fail(e, "nothing can be promised");
	(void)eng_fsck_clean(e);
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
}

/* --- what files hold --- */

#define FILES_MAX 512
struct files {
	struct { uint64_t inum, hash; } file[FILES_MAX];
	unsigned nr;
};

static int list_inode(void *arg, const struct ter_key *key)
{
	struct files *f = arg;

	if (f->nr < FILES_MAX)
		f->file[f->nr++].inum = key->pos.inode;
	return 0;
}

static bool read_files(struct eng *e, struct files *f)
{
	static uint8_t buf[TER_MIB(2)];

	f->nr = 0;
	if (ter_btree_scan(e->fs->btrees, TER_BTREE_INODES, TER_POS_MIN, TER_POS_MAX, 0, list_inode, f, NULL) < 0)
		return eng_fail(e, "inodes cannot be read");
	for (unsigned i = 0; i < f->nr; i++) {
		struct ter_attr a;
		int64_t bytes;

		f->file[i].hash = 1;
		if (ter_vfs_getattr(e->vfs, &root_op, TER_NODE(1, f->file[i].inum), &a) < 0 || !S_ISREG(a.mode))
			continue;
		bytes = read_all(e->vfs, TER_NODE(1, f->file[i].inum), buf, sizeof(buf));
		f->file[i].hash = bytes < 0 ? (uint64_t)bytes : eng_hash_bytes(2, buf, (size_t)bytes);
	}
	return true;
}

/* --- damages --- */

enum how { FLIP, PLUS, ZERO, REMOVE, COPY };
struct damage {
	const char *name;
	enum ter_btree_id btree;
	bool (*is)(const struct ter_key *key, void *arg);
	enum how how;
	unsigned at, bytes;
	int64_t by;
	bool of_file;   /* that file may differ afterwards */
	bool harmless;  /* nothing that a check could see */
};

static bool of_type(const struct ter_key *key, uint8_t type, bool live)
{
	const struct ter_alloc_disk *d = key->val;

	return d->data_type == type && (ter_le32_get(d->live_sectors) > 0) == live;
}
static bool of_sb(const struct ter_key *key, void *arg) { (void)arg; return of_type(key, TER_DATA_SB, true); }
static bool of_journal(const struct ter_key *key, void *arg) { (void)arg; return of_type(key, TER_DATA_JOURNAL, true); }
static bool of_nodes(const struct ter_key *key, void *arg) { (void)arg; return of_type(key, TER_DATA_BTREE, true); }
static bool of_user(const struct ter_key *key, void *arg) { (void)arg; return of_type(key, TER_DATA_USER, true); }
static bool back_of_node(const struct ter_key *key, void *arg) { (void)arg; return ((const struct ter_backpointer_disk *)key->val)->level > 0; }
static bool back_of_extent(const struct ter_key *key, void *arg) { return !back_of_node(key, arg); }
static bool counts(const struct ter_key *key, enum ter_counter_kind kind) { return ter_counter_kind(key->pos) == kind; }
static bool counts_sets(const struct ter_key *key, void *arg) { (void)arg; return counts(key, TER_COUNT_REPLICAS); }
static bool counts_dev(const struct ter_key *key, void *arg) { (void)arg; return counts(key, TER_COUNT_DEV) && (key->pos.inode >> 48 & 0xff) == TER_DATA_USER; }
static bool counts_packed(const struct ter_key *key, void *arg) { (void)arg; return counts(key, TER_COUNT_COMPRESSION); }
static bool counts_inodes(const struct ter_key *key, void *arg) { (void)arg; return counts(key, TER_COUNT_INODES); }
static bool counts_btree(const struct ter_key *key, void *arg) { (void)arg; return counts(key, TER_COUNT_BTREE); }
static bool counts_reserved(const struct ter_key *key, void *arg) { (void)arg; return counts(key, TER_COUNT_RESERVED); }
static bool is_extent(const struct ter_key *key, void *arg) { (void)arg; return key->type == TER_KEY_EXTENT; }

static bool is_late_extent(const struct ter_key *key, void *arg) { return is_extent(key, arg) && ter_key_start(key) >= 8; }

#define PTR0 24 /* in the value of an extent */
#define FIELD(text, btree, is, at, bytes)                                                                              \
	{ text ": bits flipped", btree, is, FLIP, at, bytes, 0, false, false }, { text ": one more", btree, is, PLUS, at, bytes, 1, false, false },          \
	{ text ": one less", btree, is, PLUS, at, bytes, -1, false, false }, { text ": zero", btree, is, ZERO, at, bytes, 0, false, false }
#define WHOLE(text, btree, is, further)                                                                                \
	{ text ": gone", btree, is, REMOVE, 0, 0, 0, false, false }, { text ": twice", btree, is, COPY, 0, 0, further, false, false }
#define ALLOC_KEY(text, is) FIELD(text ", generation", TER_BTREE_ALLOC, is, 0, 4), FIXED_KEY(text, is)
/* Nothing points into a bucket of superblock or journal: its generation means nothing. */
#define FIXED_KEY(text, is)                                                                                            \
	FIELD(text ", type", TER_BTREE_ALLOC, is, 4, 1), FIELD(text ", flags", TER_BTREE_ALLOC, is, 5, 1),        \
	FIELD(text ", zero bytes", TER_BTREE_ALLOC, is, 6, 2), FIELD(text ", live sectors", TER_BTREE_ALLOC, is, 8, 4), FIELD(text ", zero word", TER_BTREE_ALLOC, is, 12, 4),   \
	WHOLE(text, TER_BTREE_ALLOC, is, 1000000)
#define BACK_KEY(text, is)                                                                                             \
	FIELD(text ", inode", TER_BTREE_BACKPOINTERS, is, 0, 8), FIELD(text ", offset", TER_BTREE_BACKPOINTERS, is, 8, 8), FIELD(text ", snapshot", TER_BTREE_BACKPOINTERS, is, 16, 4),   \
	FIELD(text ", sectors", TER_BTREE_BACKPOINTERS, is, 20, 4), FIELD(text ", btree", TER_BTREE_BACKPOINTERS, is, 24, 1), FIELD(text ", level", TER_BTREE_BACKPOINTERS, is, 25, 1),  \
	FIELD(text ", zero bytes", TER_BTREE_BACKPOINTERS, is, 26, 6), WHOLE(text, TER_BTREE_BACKPOINTERS, is, 4096)
#define COUNTER_KEY(text, is)                                                                                          \
	FIELD(text ", first", TER_BTREE_ACCOUNTING, is, 0, 8), WHOLE(text, TER_BTREE_ACCOUNTING, is, 0)

static const struct damage damages[] = {
	FIXED_KEY("a superblock bucket", of_sb), FIXED_KEY("a journal bucket", of_journal), ALLOC_KEY("a bucket of nodes", of_nodes), ALLOC_KEY("a bucket of data", of_user),
	BACK_KEY("an extent's back reference", back_of_extent), BACK_KEY("a node's back reference", back_of_node),
	COUNTER_KEY("the counter of a set", counts_sets), COUNTER_KEY("a member's counters", counts_dev), COUNTER_KEY("the counters of compression", counts_packed),
	COUNTER_KEY("the counter of inodes", counts_inodes), COUNTER_KEY("the counters of a btree", counts_btree), COUNTER_KEY("the counter of promises", counts_reserved),
	WHOLE("a free range", TER_BTREE_FREESPACE, NULL, -1), WHOLE("an empty bucket", TER_BTREE_NEED_DISCARD, NULL, 1),
	{ "a pointer's sector: far beyond", TER_BTREE_EXTENTS, is_extent, FLIP, PTR0 + 3, 3, 0, true, false },
	{ "a pointer's sector: the superblock", TER_BTREE_EXTENTS, is_extent, ZERO, PTR0, 8, 0, true, false },
	{ "a pointer's sector: a block further", TER_BTREE_EXTENTS, is_extent, PLUS, PTR0, 8, 8, true, false },
	{ "a pointer's generation: one more", TER_BTREE_EXTENTS, is_extent, PLUS, PTR0 + 8, 4, 1, true, false },
	{ "a pointer's generation: bits flipped", TER_BTREE_EXTENTS, is_extent, FLIP, PTR0 + 8, 4, 0, true, false },
	{ "a pointer's member: another", TER_BTREE_EXTENTS, is_extent, PLUS, PTR0 + 12, 1, 40, true, false },
	{ "an extent: gone", TER_BTREE_EXTENTS, is_extent, REMOVE, 0, 0, 0, true, false },
	{ "an extent: a second one for the same data", TER_BTREE_EXTENTS, is_extent, COPY, 0, 0, 100000, true, false },
	{ "an extent: a second one for the same data, before it and over it", TER_BTREE_EXTENTS, is_late_extent, COPY, 0, 0, -8, true, false },
};

enum mode { DO, REFUSE, CUT, TIGHT };
static enum mode now_mode;

/* The last of those that a damage is about: what lies in a repair's later windows. */
struct last {
	const struct damage *d;
	unsigned nr, want;
};

static bool is_last(const struct ter_key *key, void *arg)
{
	struct last *l = arg;

	return (!l->d->is || l->d->is(key, NULL)) && ++l->nr == l->want;
}

static bool find_victim(struct eng *e, const struct damage *d, struct eng_key *ret)
{
	struct last l = { .d = d };

	if (now_mode != TIGHT)
		return eng_find_key(e, d->btree, d->is, NULL, ret);
	(void)eng_find_key(e, d->btree, is_last, &l, ret);
	l.want = l.nr;
	l.nr = 0;
	return eng_find_key(e, d->btree, is_last, &l, ret);
}

static struct eng_key original; /* of which a copy was made */

static bool is_original(const struct ter_key *key, void *arg)
{
	(void)arg;
	return !ter_pos_cmp(key->pos, original.key.pos) && ter_key_hash(key) == ter_key_hash(&original.key);
}

/* False: there is no such key, or it would be the same. */
static bool plant(struct eng *e, const struct damage *d, uint64_t *ret_inum)
{
	static struct eng_key k;
	uint8_t *val = (uint8_t *)k.val + d->at;
	uint64_t word = 0, before;

	if (!find_victim(e, d, &k))
		return false;
	*ret_inum = d->btree == TER_BTREE_EXTENTS ? k.key.pos.inode : 0;
	original = k;
	original.key.val = original.val;
	memcpy(&word, val, ter_min(d->bytes, 8u));
	before = word;
	switch (d->how) {
	case FLIP:
		word ^= 0x5a5a5a5a5a5a5a5aull >> (64 - 8 * d->bytes) % 64;
		break;
	case PLUS:
		word = htole64(le64toh(word) + (uint64_t)d->by);
		break;
	case ZERO:
		word = 0;
		break;
	case REMOVE:
		return eng_put_key(e, d->btree, k.key.pos, NULL) == 0;
	case COPY:
		if (!d->by)
			k.key.pos.offset++; /* no counter is there */
		else
			k.key.pos.offset += (uint64_t)d->by;
		return eng_put_key(e, d->btree, k.key.pos, &k.key) == 0;
	}
	memcpy(val, &word, d->bytes);
	memcpy(&word, val, ter_min(d->bytes, 8u));
	if (d->bytes < 8)
		before &= (1ull << 8 * d->bytes) - 1, word &= (1ull << 8 * d->bytes) - 1;
	if (word == before)
		return false;
	return eng_put_key(e, d->btree, k.key.pos, &k.key) == 0;
}

/* --- one case --- */

static const struct damage *now_damage;
static unsigned nr_damaged, nr_lost, nr_cuts;

static int refuse(void *arg, const char *pass, const char *sentence)
{
	(void)arg;
	(void)pass;
	(void)sentence;
	return 0;
}

static int tell(void *arg, const char *pass, const char *sentence)
{
	(void)arg;
	fprintf(stderr, "    %s: %s\n", pass, sentence);
	return 1;
}

static bool refused(struct eng *e, const struct ter_fsck_config *config, int64_t found)
{
	struct ter_repair repair = { .want = refuse };
	uint64_t hash[TER_BTREE_NR];
	struct eng_report report;
	int r;

	for (unsigned b = 0; b < TER_BTREE_NR; b++)
		hash[b] = eng_hash_btree(e, (enum ter_btree_id)b);
	(void)found;
	r = ter_repair_space(config, &repair);
	if (r < 0)
		return eng_fail(e, "a repair that may do nothing says %d", r);
	if (!repair.left_nr || repair.done_nr)
		return eng_fail(e, "a repair that may do nothing left %llu and did %llu", (unsigned long long)repair.left_nr, (unsigned long long)repair.done_nr);
	for (unsigned b = 0; b < TER_BTREE_NR; b++)
		if (b != TER_BTREE_ALLOC && b != TER_BTREE_FREESPACE && b != TER_BTREE_NEED_DISCARD && b != TER_BTREE_ACCOUNTING && b != TER_BTREE_BACKPOINTERS &&
		    hash[b] != eng_hash_btree(e, (enum ter_btree_id)b))
			return eng_fail(e, "a repair that may do nothing changed btree '%s'", ter_btree_names[b]);
	return eng_check(e, &report) != 0 || eng_fail(e, "a repair that may do nothing repaired");
}

static bool repaired(struct eng *e, const struct ter_fsck_config *config, const struct files *before, uint64_t inum)
{
	struct ter_repair repair = { .want = getenv("TER_TEST_VERBOSE") ? tell : NULL, .memory_bytes = now_mode == TIGHT };
	struct eng_report report;
	static struct files after;
	static struct eng_key found;
	int r;

	r = ter_repair_space(config, &repair);
	if (r < 0)
		return eng_fail(e, "the repair says %d", r);
	if ((!repair.done_nr && now_mode != CUT) || repair.left_nr)
		return eng_fail(e, "the repair did %llu and left %llu", (unsigned long long)repair.done_nr, (unsigned long long)repair.left_nr);
	/* What the file says of its sectors is the repair of files' business. */
	if (eng_check(e, &report) != 0 && !(inum && !strstr(report.text, "alloc:") && !strstr(report.text, "pointers:") && !strstr(report.text, "nodes:")))
		return eng_fail(e, "after the repair the check says %lld: %s", (long long)report.nr, report.text);
	if (!read_files(e, &after))
		return false;
	if (after.nr != before->nr)
		return eng_fail(e, "%u files are left of %u", after.nr, before->nr);
	for (unsigned i = 0; i < after.nr; i++) {
		if (after.file[i].hash == before->file[i].hash)
			continue;
		if (after.file[i].inum != inum)
			return eng_fail(e, "file %llu reads differently", (unsigned long long)after.file[i].inum);
		if (now_damage->how != REMOVE && after.file[i].hash != (uint64_t)-EIO)
			return eng_fail(e, "lost data of file %llu does not read as lost", (unsigned long long)inum);
		nr_lost++;
	}
	if (now_damage->how == COPY && now_damage->of_file && !eng_find_key(e, now_damage->btree, is_original, NULL, &found))
		return eng_fail(e, "the copy was kept, and not the original");
	repair = (struct ter_repair){ 0 };
	r = ter_repair_space(config, &repair);
	if (r < 0 || repair.wanted_nr)
		return eng_fail(e, "a second repair says %d and wants %llu", r, (unsigned long long)repair.wanted_nr);
	return true;
}

/* The power goes at some write of the repair; what is found then is repaired again. */
static void cut_main(struct eng *e, void *arg)
{
	const uint64_t cut_after = *(const uint64_t *)arg;
	static struct files before;
	struct ter_fsck_config config;
	struct ter_repair repair = { 0 };
	uint64_t inum;

	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	config = ter_super_fsck_config(e->fs);
	if (!read_files(e, &before) || !plant(e, now_damage, &inum) || ter_fs_sync(e->fs) < 0) {
		eng_close(e);
		return;
	}
	nr_damaged++;
	ter_sim_power_off_after(e->sim, cut_after);
	(void)ter_repair_space(&config, &repair);
	if (ter_sim_power_is_off(e->sim))
		nr_cuts++;
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
	ter_sim_cut(e->sim, &(struct ter_sim_cut){ .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .seed = eng_rnd(e) });
	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start after a cut after %llu: %s", (unsigned long long)cut_after, e->error.text);
		return;
	}
	config = ter_super_fsck_config(e->fs);
	(void)repaired(e, &config, &before, now_damage->of_file ? inum : 0);
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
}

static void each_cut(struct eng *e, void *arg)
{
	uint64_t cut_after = eng_below(e, 24);

	(void)arg;
	ter_sim_record(e->sim, true);
	cut_main(e, &cut_after);
	ter_sim_record(e->sim, false);
}

static void case_main(struct eng *e, void *arg)
{
	static struct files before;
	struct ter_fsck_config config;
	struct eng_report report;
	uint64_t inum;

	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	config = ter_super_fsck_config(e->fs);
	*(bool *)arg = read_files(e, &before) && plant(e, now_damage, &inum);
	if (*(bool *)arg) {
		nr_damaged++;
		if (eng_check(e, &report) <= 0)
			(void)eng_fail(e, "the check says %lld", (long long)report.nr);
		else if (now_mode == REFUSE)
			(void)refused(e, &config, report.nr);
		else
			(void)repaired(e, &config, &before, now_damage->of_file ? inum : 0);
	}
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
}

/* --- nothing in use is given out --- */

static int drop_user_keys(struct ter_trans *trans, void *arg)
{
	struct eng *e = arg;
	struct ter_pos from = TER_POS_MIN;
	struct ter_key key, all;
	int r;

	for (;;) {
		r = ter_trans_next(trans, TER_BTREE_ALLOC, from, TER_POS_MAX, &key);
		if (r < 0)
			break;
		from = ter_pos_next(key.pos);
		if (of_type(&key, TER_DATA_USER, true))
			r = ter_trans_update(trans, TER_BTREE_ALLOC, key.pos, &key, NULL);
		if (r < 0)
			return r;
	}
	/* All of each member is said to be free, and by what is left of their keys so are the buckets of data. */
	for (unsigned i = 0; i < e->layout.devs && (r == -ENOENT || r >= 0); i++) {
		const struct ter_dev *dev = &e->fs->members->dev[i];

		all = (struct ter_key){ .pos = TER_POS(i, dev->buckets_nr, 0), .size = (uint32_t)dev->buckets_nr, .type = TER_KEY_FREE_RANGE };
		r = ter_trans_update(trans, TER_BTREE_FREESPACE, all.pos, TER_KEY_ANY, &all);
	}
	return r;
}

/* Nodes move to new space while the repair runs, and what it found changes under it. */
static unsigned moves;

static int move_nodes(void *arg, const char *pass, const char *sentence)
{
	struct eng *e = arg;

	(void)pass;
	(void)sentence;
	for (unsigned i = 0; i < 8 && moves < 400; i++)
		if (moves++, ter_btree_rewrite_node(e->fs->btrees, (enum ter_btree_id)(moves % TER_BTREE_NR), 0, TER_POS_MIN) < 0)
			eng_fail(e, "a node cannot be moved");
	return 1;
}

static void overwrite_main(struct eng *e, void *arg)
{
	static struct files before, after;
	struct ter_fsck_config config;
	struct ter_repair repair = { .want = move_nodes, .arg = e };

	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	config = ter_super_fsck_config(e->fs);
	(void)read_files(e, &before);
	if (ter_trans_run(e->fs->btrees, 0, drop_user_keys, e, NULL) < 0)
		eng_fail(e, "the damage cannot be done");
	moves = 0;
	if (!e->failed && *(const bool *)arg && ter_repair_btrees(&config, &repair) < 0)
		eng_fail(e, "the repair of btrees fails");
	if (!e->failed && ter_repair_space(&config, &repair) < 0)
		eng_fail(e, "the repair fails");
	if (moves < 20)
		eng_fail(e, "only %u nodes were moved", moves);
	if (!e->failed)
		(void)eng_fsck_clean(e);
	if (!e->failed && read_files(e, &after) && (after.nr != before.nr || memcmp(after.file, before.file, before.nr * sizeof(before.file[0]))))
		eng_fail(e, "files read differently");
	ter_sim_power_off_after(e->sim, 0);
	eng_close(e);
}

static void nothing_in_use_is_overwritten_meanwhile(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct eng *e = eng_new(&eng_layouts[i / 2], eng_seed() + i / 2);
		bool btrees_first = i % 2;

		eng_guard("nothing_in_use_is_overwritten_meanwhile", CASE_SECONDS);
		eng_run(e, sound_main, NULL);
		if (!e->failed)
			eng_run(e, overwrite_main, &btrees_first);
		eng_guard("", 0);
		if (e->failed)
			fail_msg("%s: %s", e->layout.name, e->why);
		eng_free(e);
	}
}

static void each(void (*fn)(struct eng *e, void *arg), enum mode mode, unsigned layouts, unsigned step)
{
	unsigned missed = 0;

	now_mode = mode;
	nr_damaged = nr_lost = nr_cuts = 0;
	for (unsigned layout = 0; layout < layouts; layout++) {
		struct eng *e = eng_new(&eng_layouts[layout], eng_seed() + layout);
		struct ter_sim_snapshot *snapshot;

		eng_guard("a sound pool", CASE_SECONDS);
		eng_run(e, sound_main, NULL);
		if (e->failed)
			fail_msg("%s, op %u: %s", e->layout.name, e->ops_nr, e->why);
		snapshot = ter_sim_snapshot_take(e->sim);
		for (unsigned i = 0; i < ARRAY_SIZE(damages); i += step) {
			struct eng_machine before;
			bool planted = false;

			eng_guard(damages[i].name, CASE_SECONDS);
			eng_machine_enter(e, e->seed + i, &before);
			ter_sim_restore(e->sim, snapshot, NULL);
			now_damage = &damages[i];
			if (getenv("TER_TEST_VERBOSE"))
				fprintf(stderr, "%s, %s\n", e->layout.name, now_damage->name);
			eng_run(e, fn, &planted);
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
	}
	fprintf(stderr, "%u records damaged, %u files with lost data, %u power cuts\n", nr_damaged, nr_lost, nr_cuts);
	assert_int_equal(missed, 0);
	assert_true(nr_damaged > 0);
}

static void each_damaged_record_is_repaired(void **state)
{
	(void)state;
	each(case_main, DO, 3, 1);
}

static void nothing_is_changed_when_it_may_not(void **state)
{
	(void)state;
	each(case_main, REFUSE, 2, 3);
}

static void a_repair_that_is_cut_off_is_done_again(void **state)
{
	(void)state;
	each(each_cut, CUT, 3, 2);
	assert_true(nr_cuts > nr_damaged / 4);
}

static void little_memory_is_enough(void **state)
{
	(void)state;
	each(case_main, TIGHT, 3, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_damaged_record_is_repaired),
		cmocka_unit_test(nothing_is_changed_when_it_may_not),
		cmocka_unit_test(a_repair_that_is_cut_off_is_done_again),
		cmocka_unit_test(little_memory_is_enough),
		cmocka_unit_test(nothing_in_use_is_overwritten_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
