/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of files: each field of each record is damaged, each record dropped or there twice; the check finds it, the repair makes it true, and what does not depend on it is as it was
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "alloc/accounting.h"
#include "data/extent.h"
#include "engine_damage.h"
#include "fs/damage_format.h"
#include "fs/dirent_value.h"
#include "fs/inode_format.h"
#include "fs/vfs_calls.h"
#include "fs/vfs_priv.h"
#include "fs/vfs_repair_priv.h"
#include "super/super_priv.h"

#define CASE_SECONDS 120
#define BIG_BYTES 60000
#define LIST_MAX 64

/* --- the pool --- */

enum { ROOT, DIR, SUB, DEEP, SMALL, BIG, LINK, FIFO, HOLES, OTHER, NODES_NR };
static const char *const node_names[] = { "root", "dir", "sub", "deep", "small", "big", "link", "fifo", "holes", "other" };
static uint64_t nodes[NODES_NR];

static uint64_t make(struct eng *e, int parent, const char *name, uint32_t mode, const char *target)
{
	struct ter_attr attr = { 0 };

	if (ter_vfs_create(e->vfs, &root_op, nodes[parent], name, mode, 0, target, &attr) < 0)
		eng_fail(e, "'%s' cannot be made", name);
	return attr.node;
}

static void sound_main(struct eng *e, void *arg)
{
	static uint8_t data[BIG_BYTES];

	(void)arg;
	if (eng_format(e) < 0 || eng_start(e, false, -1) < 0) {
		eng_fail(e, "%s", e->error.text);
		return;
	}
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = eng_byte(i, i * 61);
	nodes[ROOT] = TER_NODE_ROOT;
	nodes[DIR] = make(e, ROOT, "dir", S_IFDIR | 0755, NULL);
	nodes[SUB] = make(e, DIR, "sub", S_IFDIR | 0750, NULL);
	nodes[DEEP] = make(e, SUB, "deep", S_IFREG | 0644, NULL);
	nodes[SMALL] = make(e, DIR, "small", S_IFREG | 0644, NULL);
	nodes[BIG] = make(e, DIR, "big", S_IFREG | 0600, NULL);
	nodes[LINK] = make(e, DIR, "link", S_IFLNK | 0777, "where/to");
	nodes[FIFO] = make(e, DIR, "fifo", S_IFIFO | 0600, NULL);
	nodes[HOLES] = make(e, SUB, "holes", S_IFREG | 0644, NULL);
	nodes[OTHER] = make(e, ROOT, "other", S_IFDIR | 0711, NULL);
	if (write_at(e->vfs, nodes[DEEP], 0, data, 100) < 0 || write_at(e->vfs, nodes[SMALL], 0, data, 777) < 0 ||
	    write_at(e->vfs, nodes[BIG], 0, data, BIG_BYTES) < 0 || write_at(e->vfs, nodes[HOLES], 0, data, 10000) < 0 ||
	    write_at(e->vfs, nodes[HOLES], 40960, data, 10000) < 0 || ter_vfs_setxattr(e->vfs, &root_op, nodes[DIR], "user.x", "value", 5, 0) < 0 ||
	    ter_vfs_setxattr(e->vfs, &root_op, nodes[BIG], "user.y", "other", 5, 0) < 0 ||
	    ter_vfs_link(e->vfs, &root_op, nodes[BIG], nodes[OTHER], "hard", NULL) < 0)
		eng_fail(e, "the files cannot be written");
	(void)eng_fsck_clean(e);
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
}

/* --- what is there --- */

struct seen {
	uint64_t node, parent, hash; /* of attributes and content; of directories: attributes only */
	char name[64];
};
struct list {
	struct seen seen[LIST_MAX];
	unsigned nr;
	struct eng *e;
	uint64_t parent;
};

static int list_cb(void *arg, const struct ter_dirent *dirent)
{
	struct list *l = arg;

	if (strcmp(dirent->name, ".") && strcmp(dirent->name, "..") && l->nr < LIST_MAX) {
		l->seen[l->nr] = (struct seen){ .node = dirent->node, .parent = l->parent };
		snprintf(l->seen[l->nr++].name, sizeof(l->seen[0].name), "%s", dirent->name);
	}
	return 0;
}

static uint64_t hash_node(struct eng *e, uint64_t node)
{
	static uint8_t data[TER_KIB(128)];
	char value[64], text[TER_SYMLINK_MAX + 1] = "";
	struct ter_attr a;
	uint64_t h = 7;
	ssize_t n;

	if (ter_vfs_getattr(e->vfs, &root_op, node, &a) < 0)
		return 0;
	h = eng_hash_bytes(h, (uint32_t[]){ a.mode, a.uid, a.gid, a.rdev, S_ISDIR(a.mode) ? 0 : a.nlink }, 20);
	h = eng_hash_bytes(h, &a.mtime, sizeof(a.mtime));
	n = ter_vfs_listxattr(e->vfs, &root_op, node, value, sizeof(value));
	h = eng_hash_bytes(h, value, n > 0 ? (size_t)n : 0);
	if (S_ISREG(a.mode)) {
		const int64_t bytes = read_all(e->vfs, node, data, sizeof(data));

		h = eng_hash_bytes(h, &a.size, sizeof(a.size));
		h = bytes < 0 ? 0 : eng_hash_bytes(h, data, (size_t)bytes);
	} else if (S_ISLNK(a.mode)) {
		h = ter_vfs_readlink(e->vfs, &root_op, node, text) < 0 ? 0 : eng_hash_bytes(h, text, strlen(text));
	}
	return h;
}

static void list_all(struct eng *e, struct list *l)
{
	*l = (struct list){ .e = e };
	l->seen[l->nr++] = (struct seen){ .node = TER_NODE_ROOT, .name = "/" };
	for (unsigned i = 0; i < l->nr; i++) {
		struct ter_attr a;

		l->seen[i].hash = hash_node(e, l->seen[i].node);
		l->parent = l->seen[i].node;
		if (ter_vfs_getattr(e->vfs, &root_op, l->parent, &a) >= 0 && S_ISDIR(a.mode) &&
		    ter_vfs_readdir(e->vfs, &root_op, l->parent, 0, false, list_cb, l) < 0)
			eng_fail(e, "'%s' cannot be listed", l->seen[i].name);
	}
}

static const struct seen *find_seen(const struct list *l, uint64_t node)
{
	for (unsigned i = 0; i < l->nr; i++)
		if (l->seen[i].node == node)
			return &l->seen[i];
	return NULL;
}

static bool same_place(const struct list *l, const struct seen *s)
{
	for (unsigned i = 0; i < l->nr; i++)
		if (l->seen[i].node == s->node && l->seen[i].parent == s->parent && !strcmp(l->seen[i].name, s->name))
			return true;
	return false;
}

/* Every inode but the victim is there with the same content, and at the same place unless it stands in the victim (@moved: or anywhere). */
static void compare(struct eng *e, const struct list *before, const struct list *after, uint64_t victim, bool moved)
{
	for (unsigned i = 0; i < before->nr; i++) {
		const struct seen *s = &before->seen[i], *now = find_seen(after, s->node);

		if (s->node == victim)
			continue;
		if (!now)
			eng_fail(e, "'%s' is gone", s->name);
		else if (now->hash != s->hash)
			eng_fail(e, "'%s' has changed", s->name);
		else if (s->parent != victim && !moved && !same_place(after, s))
			eng_fail(e, "'%s' is not where it was", s->name);
	}
}

/* --- one case --- */

struct damage {
	const char *name;
	void (*plant)(struct eng *e, const struct damage *d);
	int node;                 /* the victim */
	unsigned at, bytes;       /* a field of its inode */
	uint64_t value, xor;      /* becomes value ^ xor; xor alone with keep */
	bool keep;
	bool may_be_fine;         /* a value that nothing contradicts */
	bool moved;               /* others may get another place */
	bool kept;                /* the victim comes back as it was, too */
};

static uint64_t inum_of(int node)
{
	return nodes[node] & TER_INUM_MAX;
}

static const enum ter_btree_id file_btrees[] = { TER_BTREE_EXTENTS, TER_BTREE_INODES, TER_BTREE_DIRENTS, TER_BTREE_XATTRS, TER_BTREE_DELETED_INODES,
						 TER_BTREE_ACCOUNTING };

static uint64_t hash_files(struct eng *e)
{
	uint64_t h = 3;

	for (unsigned i = 0; i < ARRAY_SIZE(file_btrees); i++) {
		const uint64_t one = eng_hash_btree(e, file_btrees[i]);

		h = eng_hash_bytes(h, &one, sizeof(one));
	}
	return h;
}

static int say_no(void *arg, const char *pass, const char *sentence)
{
	(void)arg;
	(void)pass;
	(void)sentence;
	return 0;
}

static int say_yes(void *arg, const char *pass, const char *sentence)
{
	char *text = arg;
	const size_t used = strlen(text);

	snprintf(text + used, 2048 - used, "\n  %s: %s", pass, sentence);
	return 1;
}

static void add_sentence(void *arg, const char *pass, const char *sentence)
{
	uint64_t *sum = arg;

	*sum += eng_hash_bytes(eng_hash_bytes(1, pass, strlen(pass)), sentence, strlen(sentence));
	if (getenv("TER_TEST_VERBOSE"))
		fprintf(stderr, "  (%s: %s)\n", pass, sentence);
}

/* A check that has memory for four inodes at a time says the same as one that has it for all; of an entry with a wrong type perhaps what follows from it, too. */
static void check_in_turns(struct eng *e)
{
	uint64_t all = 0, turns = 0;
	const int64_t nr_all = ter_vfs_check(e->vfs, 0, add_sentence, &all, NULL, NULL), nr_turns = ter_vfs_check(e->vfs, 1, add_sentence, &turns, NULL, NULL);

	if (nr_all < 0 || nr_turns < nr_all || nr_turns > nr_all + (nr_all > 0) || (nr_all == nr_turns && all != turns))
		eng_fail(e, "at once the check finds %lld, in turns %lld", (long long)nr_all, (long long)nr_turns);
}

static void repair_and_compare(struct eng *e, const struct damage *d, const struct list *before)
{
	char fixed[2048] = "";
	struct ter_repair no = { .want = say_no }, yes = { .want = say_yes, .arg = fixed };
	static struct eng_report found, left;
	static struct list after;
	uint64_t hash;
	int r;

	if (eng_check(e, &found) < 0) {
		eng_fail(e, "the check says %d", (int)found.nr);
		return;
	}
	if (getenv("TER_TEST_VERBOSE"))
		fprintf(stderr, "%s:\n  %s\n", d->name, found.text);
	if (!found.nr && !d->may_be_fine)
		eng_fail(e, "the check finds nothing");
	check_in_turns(e);
	hash = hash_files(e);
	r = ter_vfs_repair(e->vfs, &no);
	if (r < 0 || (found.nr && !no.left_nr) || hash_files(e) != hash)
		eng_fail(e, "a repair that may do nothing: %d, %llu left%s\n  %s", r, (unsigned long long)no.left_nr,
			 hash_files(e) != hash ? ", something changed" : "", found.text);
	r = ter_vfs_repair(e->vfs, &yes);
	if (getenv("TER_TEST_VERBOSE"))
		fprintf(stderr, "repair: %d%s\n", r, fixed);
	if (r < 0)
		eng_fail(e, "repair: %d\n  %s\nrepaired:%s", r, found.text, fixed);
	else if (eng_check(e, &left))
		eng_fail(e, "%lld left:\n  %s\nof:\n  %s\nrepaired:%s", (long long)left.nr, left.text, found.text, fixed);
	check_in_turns(e);
	if (e->failed)
		return;
	list_all(e, &after);
	compare(e, before, &after, d->kept ? 0 : nodes[d->node], d->moved);
	if (e->failed) {
		const size_t used = strlen(e->why);

		snprintf(e->why + used, sizeof(e->why) - used, "\nfound:\n  %s\nrepaired:%s", found.text, fixed);
	}
	yes = (struct ter_repair){ .want = say_yes, .arg = fixed };
	fixed[0] = 0;
	if (!e->failed && (ter_vfs_repair(e->vfs, &yes) < 0 || yes.wanted_nr))
		eng_fail(e, "a second repair finds something:%s", fixed);
}

static void case_main(struct eng *e, void *arg)
{
	const struct damage *d = arg;
	static struct list before;

	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	list_all(e, &before);
	if (ter_vfs_sync(e->vfs) < 0)
		eng_fail(e, "sync");
	ter_inodes_drop(e->vfs);
	d->plant(e, d);
	if (!e->failed)
		repair_and_compare(e, d, &before);
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
	else if (!e->failed && eng_start(e, false, -1) < 0)
		eng_fail(e, "start: %s", e->error.text);
	else if (!e->failed) {
		(void)eng_fsck_clean(e);
		eng_close(e);
	}
}

/* --- damages --- */

static bool of_inode(const struct ter_key *key, void *arg)
{
	return key->pos.inode == *(const uint64_t *)arg;
}

static struct eng_key found;

static bool find_of(struct eng *e, enum ter_btree_id btree, int node)
{
	uint64_t inum = inum_of(node);

	return eng_find_key(e, btree, of_inode, &inum, &found) || eng_fail(e, "there is no key of btree '%s' for '%s'", ter_btree_names[btree], node_names[node]);
}

static void put(struct eng *e, enum ter_btree_id btree, const struct ter_key *key)
{
	if (eng_put_key(e, btree, key->pos, key) < 0)
		eng_fail(e, "the damage cannot be done");
}

static void delete(struct eng *e, enum ter_btree_id btree, struct ter_pos pos)
{
	if (eng_put_key(e, btree, pos, NULL) < 0)
		eng_fail(e, "the damage cannot be done");
}

static void plant_field(struct eng *e, const struct damage *d)
{
	uint64_t value = d->value;

	if (!find_of(e, TER_BTREE_INODES, d->node))
		return;
	if (d->keep)
		memcpy(&value, (uint8_t *)found.val + d->at, d->bytes);
	value ^= d->xor;
	memcpy((uint8_t *)found.val + d->at, &value, d->bytes);
	put(e, TER_BTREE_INODES, &found.key);
}

static void plant_no_inode(struct eng *e, const struct damage *d)
{
	if (find_of(e, TER_BTREE_INODES, d->node))
		delete(e, TER_BTREE_INODES, found.key.pos);
}

static void plant_short_inode(struct eng *e, const struct damage *d)
{
	if (!find_of(e, TER_BTREE_INODES, d->node))
		return;
	found.key.val_bytes = 40;
	put(e, TER_BTREE_INODES, &found.key);
}

static void plant_inode_elsewhere(struct eng *e, const struct damage *d)
{
	if (!find_of(e, TER_BTREE_INODES, d->node))
		return;
	found.key.pos.offset = 8;
	put(e, TER_BTREE_INODES, &found.key);
}

static void plant_inode_in_snapshot(struct eng *e, const struct damage *d)
{
	if (!find_of(e, TER_BTREE_INODES, d->node))
		return;
	found.key.pos.snapshot = 5;
	put(e, TER_BTREE_INODES, &found.key);
}

static void plant_inode_twice(struct eng *e, const struct damage *d)
{
	if (!find_of(e, TER_BTREE_INODES, d->node))
		return;
	found.key.pos.inode += 1000000; /* and beyond what was given out */
	put(e, TER_BTREE_INODES, &found.key);
}

/* The key with the entry of d->node in its parent. */
static bool entry_of(const struct ter_key *key, void *arg)
{
	struct ter_dent dent;
	uint32_t at = 0;

	while (ter_dirents_next(key->val, key->val_bytes, &at, &dent) > 0)
		if (dent.inum == *(const uint64_t *)arg)
			return true;
	return false;
}

static bool find_entry(struct eng *e, int node)
{
	uint64_t inum = inum_of(node);

	return eng_find_key(e, TER_BTREE_DIRENTS, entry_of, &inum, &found) || eng_fail(e, "no entry");
}

static void plant_no_entry(struct eng *e, const struct damage *d)
{
	if (find_entry(e, d->node))
		delete(e, TER_BTREE_DIRENTS, found.key.pos);
}

static void plant_entry_byte(struct eng *e, const struct damage *d)
{
	if (!find_entry(e, d->node))
		return;
	((uint8_t *)found.val)[d->at] = (uint8_t)((d->keep ? ((uint8_t *)found.val)[d->at] : d->value) ^ d->xor);
	put(e, TER_BTREE_DIRENTS, &found.key);
}

static void plant_entry_short(struct eng *e, const struct damage *d)
{
	if (!find_entry(e, d->node))
		return;
	found.key.val_bytes--;
	put(e, TER_BTREE_DIRENTS, &found.key);
}

static void plant_entry_moved(struct eng *e, const struct damage *d)
{
	if (!find_entry(e, d->node))
		return;
	delete(e, TER_BTREE_DIRENTS, found.key.pos);
	found.key.pos.offset ^= 1u << 20;
	put(e, TER_BTREE_DIRENTS, &found.key);
}

static void plant_entry_in_snapshot(struct eng *e, const struct damage *d)
{
	if (!find_entry(e, d->node))
		return;
	delete(e, TER_BTREE_DIRENTS, found.key.pos);
	found.key.pos.snapshot = 5;
	put(e, TER_BTREE_DIRENTS, &found.key);
}

/* The same entry in another directory, at its place there: d->value is that directory. */
static void plant_entry_twice(struct eng *e, const struct damage *d)
{
	if (!find_entry(e, d->node))
		return;
	found.key.pos.inode = inum_of((int)d->value);
	put(e, TER_BTREE_DIRENTS, &found.key);
}

/* ...and not where it was: a circle, when the other is below. */
static void plant_entry_away(struct eng *e, const struct damage *d)
{
	const uint64_t to = inum_of((int)d->value);
	struct ter_pos was;

	if (!find_entry(e, d->node))
		return;
	was = found.key.pos;
	plant_entry_twice(e, d);
	delete(e, TER_BTREE_DIRENTS, was);
	if (!find_of(e, TER_BTREE_INODES, d->node))
		return;
	memcpy((uint8_t *)found.val + offsetof(struct ter_inode_disk, parent_inum), &to, 8);
	put(e, TER_BTREE_INODES, &found.key);
}

static void plant_name_twice(struct eng *e, const struct damage *d)
{
	struct ter_dent dent;
	uint32_t at = 0, bytes;

	if (!find_entry(e, d->node) || ter_dirents_next(found.val, found.key.val_bytes, &at, &dent) <= 0)
		return;
	bytes = found.key.val_bytes;
	memcpy((uint8_t *)found.val + bytes, found.val, bytes);
	((struct ter_dirent_disk *)((uint8_t *)found.val + bytes))->slot = 9;
	found.key.val_bytes = 2 * bytes;
	put(e, TER_BTREE_DIRENTS, &found.key);
	if (d->node != SMALL)
		return;
	/* And counted twice: nothing else is wrong. */
	plant_field(e, &(struct damage){ .node = SMALL, .at = offsetof(struct ter_inode_disk, nlink), .bytes = 4, .value = 2 });
	plant_field(e, &(struct damage){ .node = DIR, .at = offsetof(struct ter_inode_disk, size), .bytes = 8, .value = 6 });
}

/* No entry, and no links: but it is not in the list of deleted ones. */
static void plant_nameless(struct eng *e, const struct damage *d)
{
	plant_no_entry(e, d);
	plant_field(e, &(struct damage){ .node = d->node, .at = offsetof(struct ter_inode_disk, nlink), .bytes = 4 });
}

static void plant_mark(struct eng *e, const struct damage *d)
{
	const struct ter_key key = { .pos = TER_POS(d->node ? inum_of(d->node) : 123456, 0, TER_SNAPSHOT_ROOT), .type = TER_KEY_SET };

	put(e, TER_BTREE_DELETED_INODES, &key);
}

/* A note of damage; @at, @value: a byte of it that is other than it should be. */
static void plant_note(struct eng *e, const struct damage *d)
{
	uint8_t val[sizeof(struct ter_damage_disk)] = { [offsetof(struct ter_damage_disk, times)] = 1 };
	const struct ter_key key = { .pos = TER_POS(d->node ? inum_of(d->node) : 123456, d->bytes, TER_SNAPSHOT_ROOT), .type = TER_KEY_DAMAGE, .val_bytes = sizeof(val), .val = val };

	if (d->at)
		val[d->at] = (uint8_t)d->value;
	put(e, TER_BTREE_DAMAGED, &key);
}

static void plant_xattr_of_none(struct eng *e, const struct damage *d)
{
	if (!find_of(e, TER_BTREE_XATTRS, d->node))
		return;
	found.key.pos.inode += 100000;
	put(e, TER_BTREE_XATTRS, &found.key);
}

static void plant_xattr_moved(struct eng *e, const struct damage *d)
{
	if (!find_of(e, TER_BTREE_XATTRS, d->node))
		return;
	delete(e, TER_BTREE_XATTRS, found.key.pos);
	found.key.pos.offset ^= 1u << 20;
	put(e, TER_BTREE_XATTRS, &found.key);
}

static void plant_xattr_twice(struct eng *e, const struct damage *d)
{
	if (!find_of(e, TER_BTREE_XATTRS, d->node))
		return;
	found.key.pos.offset ^= 1u << 20;
	put(e, TER_BTREE_XATTRS, &found.key);
}

static void plant_xattr_byte(struct eng *e, const struct damage *d)
{
	if (!find_of(e, TER_BTREE_XATTRS, d->node))
		return;
	((uint8_t *)found.val)[d->at] ^= (uint8_t)d->xor;
	put(e, TER_BTREE_XATTRS, &found.key);
}

static void plant_xattr_on(struct eng *e, const struct damage *d)
{
	if (!find_of(e, TER_BTREE_XATTRS, DIR))
		return;
	found.key.pos.inode = inum_of(d->node);
	put(e, TER_BTREE_XATTRS, &found.key);
}

static void plant_no_text(struct eng *e, const struct damage *d)
{
	if (find_of(e, TER_BTREE_EXTENTS, d->node))
		delete(e, TER_BTREE_EXTENTS, found.key.pos);
}

static void plant_text(struct eng *e, const struct damage *d)
{
	if (!find_of(e, TER_BTREE_EXTENTS, d->node))
		return;
	found.key.val_bytes += (uint32_t)d->value;
	if (d->xor)
		((uint8_t *)found.val)[2] = 0;
	put(e, TER_BTREE_EXTENTS, &found.key);
}

/* An inline key, of whatever type d->value says, for d->node. */
static void plant_key(struct eng *e, const struct damage *d)
{
	const uint64_t val = 0x41;
	const struct ter_key key = { .pos = TER_POS(d->node ? inum_of(d->node) : 700000, 8 + d->at, TER_SNAPSHOT_ROOT), .size = 8, .type = (uint8_t)d->value,
				     .val_bytes = d->bytes, .val = &val };

	put(e, TER_BTREE_EXTENTS, &key);
}

/* A promise of space, counted. */
static void plant_promise(struct eng *e, const struct damage *d)
{
	struct damage key = *d;

	key.value = TER_KEY_RESERVATION;
	plant_key(e, &key);
	if (eng_add_counter(e, ter_counter_reserved(), 8) < 0)
		eng_fail(e, "the damage cannot be done");
}

static void plant_counter(struct eng *e, const struct damage *d)
{
	if (eng_add_counter(e, ter_counter_inodes(), (int64_t)d->value) < 0)
		eng_fail(e, "the damage cannot be done");
}

static void plant_no_root(struct eng *e, const struct damage *d)
{
	plant_no_inode(e, d);
}

static const struct damage damages[] = {
	{ "the root's inode is gone", plant_no_root, ROOT },
	{ "a directory's inode is gone", plant_no_inode, DIR },
	{ "a directory's inode within is gone", plant_no_inode, SUB },
	{ "an empty directory's inode is gone", plant_no_inode, OTHER, .moved = true },
	{ "a file's inode is gone", plant_no_inode, BIG },
	{ "a small file's inode is gone", plant_no_inode, SMALL },
	{ "a file's inode with holes is gone", plant_no_inode, HOLES },
	{ "a symbolic link's inode is gone", plant_no_inode, LINK },
	{ "a fifo's inode is gone", plant_no_inode, FIFO },
	{ "the root's inode is cut", plant_short_inode, ROOT },
	{ "a directory's inode is cut", plant_short_inode, DIR },
	{ "a file's inode is cut", plant_short_inode, BIG },
	{ "a symbolic link's inode is cut", plant_short_inode, LINK },
	{ "a fifo's inode is cut", plant_short_inode, FIFO },
	{ "an inode at an offset", plant_inode_elsewhere, SMALL, .kept = true },
	{ "an inode in a snapshot", plant_inode_in_snapshot, SMALL, .kept = true },
	{ "a file's inode is there twice", plant_inode_twice, SMALL, .kept = true },
	{ "a directory's inode is there twice", plant_inode_twice, OTHER, .kept = true },
	{ "a symbolic link's inode is there twice", plant_inode_twice, LINK, .kept = true },

	{ "a file's entry is gone", plant_no_entry, DEEP, .kept = true, .moved = true },
	{ "one of two entries is gone", plant_no_entry, BIG },
	{ "a directory's entry is gone", plant_no_entry, SUB, .kept = true, .moved = true },
	{ "a symbolic link's entry is gone", plant_no_entry, LINK, .kept = true, .moved = true },
	{ "an entry leads to an inode that is none", plant_entry_byte, SMALL, .at = 4, .xor = 1, .keep = true, .kept = true, .moved = true },
	{ "an entry leads to inode 0", plant_entry_byte, SMALL, .at = 0, .xor = 0xff, .keep = true, .kept = true, .moved = true },
	{ "an entry is of another type", plant_entry_byte, SMALL, .at = 8, .value = 4, .kept = true },
	{ "a directory's entry is of another type", plant_entry_byte, SUB, .at = 8, .value = 8, .kept = true },
	{ "an entry is of no type", plant_entry_byte, SMALL, .at = 8, .value = 99, .kept = true },
	{ "an entry in no slot", plant_entry_byte, SMALL, .at = 9, .value = 77, .kept = true },
	{ "an entry with a byte that is zero", plant_entry_byte, SMALL, .at = 11, .value = 1, .kept = true },
	{ "an entry's name is longer", plant_entry_byte, SMALL, .at = 10, .value = 200, .kept = true, .moved = true },
	{ "an entry's name is shorter", plant_entry_byte, SMALL, .at = 10, .value = 2, .kept = true, .moved = true },
	{ "an entry's name has a slash", plant_entry_byte, SMALL, .at = 13, .value = '/', .kept = true, .moved = true },
	{ "an entry's name is another", plant_entry_byte, SMALL, .at = 13, .value = 'Q', .kept = true, .moved = true },
	{ "a directory's entry's name is another", plant_entry_byte, SUB, .at = 13, .value = 'Q', .kept = true, .moved = true },
	{ "entries are cut", plant_entry_short, SMALL, .kept = true, .moved = true },
	{ "a directory's entry is cut", plant_entry_short, DIR, .kept = true, .moved = true },
	{ "an entry has the wrong hash", plant_entry_moved, SMALL, .kept = true },
	{ "a directory's entry has the wrong hash", plant_entry_moved, SUB, .kept = true },
	{ "an entry in a snapshot", plant_entry_in_snapshot, SMALL, .kept = true },
	{ "a file's entry is there twice", plant_entry_twice, SMALL, .value = OTHER },
	{ "a directory's entry is there twice", plant_entry_twice, SUB, .value = OTHER, .kept = true },
	{ "an entry in a file", plant_entry_twice, DEEP, .value = SMALL },
	{ "an entry in a directory that is none", plant_entry_twice, DEEP, .value = FIFO },
	{ "a directory in itself", plant_entry_away, DIR, .value = DIR, .kept = true, .moved = true },
	{ "a directory below itself", plant_entry_away, DIR, .value = SUB, .kept = true, .moved = true },
	{ "a name is there twice", plant_name_twice, SMALL, .kept = true },
	{ "a directory's name is there twice", plant_name_twice, SUB, .kept = true },

	{ "a directory without a name or links", plant_nameless, OTHER, .kept = true, .moved = true },
	{ "a file without a name or links", plant_nameless, SMALL, .kept = true, .moved = true },
	{ "a mark without an inode", plant_mark, ROOT, .kept = true },
	{ "a directory's mark", plant_mark, OTHER, .kept = true },
	{ "a symbolic link's mark", plant_mark, LINK, .kept = true },

	{ "a note of damage of no inode", plant_note, ROOT, .kept = true },
	{ "a note of damage of a directory", plant_note, SUB, .kept = true },
	{ "a note of damage at an offset", plant_note, BIG, .bytes = 1, .kept = true },
	{ "a note of damage, found never", plant_note, BIG, .at = offsetof(struct ter_damage_disk, times), .value = 0, .kept = true },
	{ "a note of damage, beyond any file's end", plant_note, BIG, .at = 7, .value = 0x80, .kept = true },
	{ "a note of damage with a byte that is zero", plant_note, BIG, .at = offsetof(struct ter_damage_disk, zero), .value = 4, .kept = true },

	{ "an attribute of no inode", plant_xattr_of_none, DIR, .kept = true },
	{ "an attribute has the wrong hash", plant_xattr_moved, DIR, .kept = true },
	{ "an attribute is there twice", plant_xattr_twice, BIG, .kept = true },
	{ "an attribute's namespace is none", plant_xattr_byte, DIR, .at = 0, .xor = 0x80 },
	{ "an attribute's name is longer", plant_xattr_byte, DIR, .at = 1, .xor = 0x80 },
	{ "an attribute's zero is none", plant_xattr_byte, DIR, .at = 2, .xor = 1 },
	{ "an attribute's value is longer", plant_xattr_byte, BIG, .at = 4, .xor = 0x40 },
	{ "an attribute's name is another", plant_xattr_byte, DIR, .at = 8, .xor = 1 },
	{ "an attribute of one that says it has none", plant_xattr_on, SMALL },

	{ "a symbolic link's target is gone", plant_no_text, LINK },
	{ "a symbolic link's target is cut", plant_text, LINK, .value = (uint64_t)-3 },
	{ "a symbolic link's target has a NUL", plant_text, LINK, .xor = 1 },
	{ "a symbolic link has two targets", plant_key, LINK, .at = 16, .bytes = 8, .value = TER_KEY_INLINE_DATA, .kept = true },
	{ "a directory has data", plant_key, SUB, .bytes = 8, .value = TER_KEY_INLINE_DATA, .kept = true },
	{ "a fifo has data", plant_key, FIFO, .bytes = 8, .value = TER_KEY_INLINE_DATA },
	{ "data without an inode", plant_key, ROOT, .bytes = 8, .value = TER_KEY_INLINE_DATA, .kept = true },
	{ "data of a kind that is none", plant_key, HOLES, .at = 32, .bytes = 8, .value = TER_KEY_SET, .kept = true },
	{ "inline data without bytes", plant_key, HOLES, .at = 32, .value = TER_KEY_INLINE_DATA, .kept = true },
	{ "data within a block", plant_key, HOLES, .at = 35, .bytes = 8, .value = TER_KEY_INLINE_DATA, .kept = true },
	{ "inline data within a block over an extent", plant_key, BIG, .at = 4, .bytes = 8, .value = TER_KEY_INLINE_DATA, .kept = true },
	{ "inline data over an extent", plant_key, BIG, .at = 8, .bytes = 8, .value = TER_KEY_INLINE_DATA },
	{ "lost data over an extent", plant_key, BIG, .at = 8, .value = TER_KEY_ERROR, .kept = true },
	{ "lost data over an extent with holes before", plant_key, HOLES, .at = 88, .value = TER_KEY_ERROR, .kept = true },
	{ "a promise within a block", plant_promise, HOLES, .at = 35, .kept = true },
	{ "a promise of a directory", plant_promise, SUB, .kept = true },
	{ "a promise of no inode", plant_promise, ROOT, .kept = true },
	{ "a promise over an extent", plant_promise, BIG, .at = 4, .kept = true },
	{ "data beyond the end", plant_key, DEEP, .at = 4096, .bytes = 8, .value = TER_KEY_INLINE_DATA },

	{ "the number of inodes is wrong", plant_counter, ROOT, .value = 3, .kept = true },
};

static struct eng *e_now;
static struct ter_sim_snapshot *snapshot;

static unsigned run_case(const struct damage *d, unsigned nr)
{
	struct eng_machine before;
	struct eng *e = e_now;
	const char *only = getenv("TER_TEST_ONLY");
	unsigned missed;

	if (only && !strstr(d->name, only))
		return 0;
	eng_guard(d->name, CASE_SECONDS);
	eng_machine_enter(e, e->seed + nr, &before);
	ter_sim_restore(e->sim, snapshot, NULL);
	eng_run(e, case_main, (void *)(uintptr_t)d);
	eng_machine_leave(e, &before);
	if (e->failed)
		fprintf(stderr, "%s: %s\n", d->name, e->why);
	missed = e->failed;
	e->failed = false;
	return missed;
}

static void begin(unsigned layout)
{
	e_now = eng_new(&eng_layouts[layout], eng_seed() + layout);
	eng_guard("a sound pool", CASE_SECONDS);
	eng_run(e_now, sound_main, NULL);
	if (e_now->failed)
		fail_msg("%s", e_now->why);
	snapshot = ter_sim_snapshot_take(e_now->sim);
}

static void end(unsigned missed)
{
	eng_guard("", 0);
	ter_sim_snapshot_free(snapshot);
	eng_free(e_now);
	assert_int_equal(missed, 0);
}

static void each_record_is_repaired(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 2; layout++) {
		unsigned missed = 0;

		begin(layout);
		for (unsigned i = 0; i < ARRAY_SIZE(damages); i++)
			missed += run_case(&damages[i], i);
		end(missed);
	}
}

/* --- each field of an inode --- */

#define FIELD(name, bytes) { #name, offsetof(struct ter_inode_disk, name), bytes }
static const struct field {
	const char *name;
	size_t at;
	unsigned bytes;
} fields[] = {
	FIELD(mode, 4), FIELD(uid, 4), FIELD(gid, 4), FIELD(nlink, 4), FIELD(rdev, 4), FIELD(generation, 4), FIELD(flags, 4), FIELD(project, 4), FIELD(size, 8),
	FIELD(sectors, 8), FIELD(atime_ns, 8), FIELD(mtime_ns, 8), FIELD(ctime_ns, 8), FIELD(btime_ns, 8), FIELD(parent_inum, 8), FIELD(parent_offset, 8),
	FIELD(zero, 8), { "zero's end", 0x7e, 2 },
};

/* Values that nothing contradicts: whatever a user might have set, and a greater size. */
static bool may_be_fine(const char *field, int node, unsigned how)
{
	const bool dir = node == ROOT || node == DIR || node == SUB || node == OTHER;

	if (!strcmp(field, "mode"))
		return how == 3;
	if (!strcmp(field, "nlink"))
		return false;
	if (!strcmp(field, "flags"))
		return how == 0 || how == 3;
	if (!strcmp(field, "size"))
		return !dir && (how == 3 || (how == 0 && node != BIG && node != LINK));
	if (!strcmp(field, "sectors"))
		return how == 0;
	if (!strcmp(field, "parent_inum"))
		return node == ROOT || (!dir && how != 1 && how != 2);
	return strncmp(field, "zero", 4) != 0 || how == 0;
}

static void each_field_of_an_inode_is_repaired(void **state)
{
	static const int victims[] = { ROOT, DIR, OTHER, SMALL, BIG, LINK, FIFO };
	unsigned missed = 0, nr = 0;

	(void)state;
	begin(0);
	for (unsigned v = 0; v < ARRAY_SIZE(victims); v++) {
		for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
			for (unsigned how = 0; how < 4; how++) { /* zero, ones, the highest bit, the lowest bit */
				char name[80];
				struct damage d = {
					.name = name, .plant = plant_field, .node = victims[v], .at = (unsigned)fields[i].at, .bytes = fields[i].bytes,
					.value = how == 1 ? UINT64_MAX : 0, .keep = how >= 2,
					.xor = how == 2 ? 1ull << (fields[i].bytes * 8 - 1) : how == 3 ? 1 : 0,
					.may_be_fine = may_be_fine(fields[i].name, victims[v], how),
				};

				snprintf(name, sizeof(name), "%s of '%s', %u", fields[i].name, node_names[victims[v]], how);
				missed += run_case(&d, nr++);
			}
		}
	}
	end(missed);
}

/* --- many damages at once --- */

static void plant_many(struct eng *e)
{
	static const int gone[] = { DIR, SUB, SMALL, BIG, HOLES, LINK, DEEP };
	struct damage d = { .value = OTHER };

	for (unsigned i = 0; i < ARRAY_SIZE(gone) && !e->failed; i++) {
		d.node = gone[i];
		plant_no_inode(e, &d);
	}
	d.node = FIFO;
	plant_no_entry(e, &d);
	plant_counter(e, &(struct damage){ .value = 5 });
	plant_xattr_of_none(e, &(struct damage){ .node = BIG });
	plant_entry_twice(e, &(struct damage){ .node = HOLES, .value = OTHER });
}

/* Names of nodes may be others; each has what it held. */
static void all_content_is_there(struct eng *e, const struct list *before)
{
	static struct list after;
	static uint8_t data[2][TER_KIB(128)];

	list_all(e, &after);
	for (unsigned i = 0; i < before->nr && !e->failed; i++) {
		const struct seen *s = &before->seen[i], *now = find_seen(&after, s->node);
		const int64_t bytes = now ? read_all(e->vfs, now->node, data[0], sizeof(data[0])) : -1;

		if (!now)
			eng_fail(e, "'%s' is gone", s->name);
		for (size_t b = 0; b < sizeof(data[1]) && i == 0; b++)
			data[1][b] = eng_byte(b, b * 61);
		if (now && now->node == nodes[BIG] && (bytes < BIG_BYTES || memcmp(data[0], data[1], BIG_BYTES)))
			eng_fail(e, "the big file has other bytes");
		if (now && now->node == nodes[SMALL] && (bytes < 777 || memcmp(data[0], data[1], 777)))
			eng_fail(e, "the small file has other bytes");
	}
}

static void repaired_now(struct eng *e, const char *when)
{
	static struct eng_report left;
	struct ter_repair yes = { 0 };
	const int r = ter_vfs_repair(e->vfs, &yes);

	if (r < 0)
		eng_fail(e, "%s: repair %d", when, r);
	else if (eng_check(e, &left))
		eng_fail(e, "%s: %lld left:\n  %s", when, (long long)left.nr, left.text);
}

static void turns_main(struct eng *e, void *arg)
{
	static struct list before;
	struct ter_repair yes = { 0 };
	struct ter_fixer f = { .repair = &yes };
	int (*const steps[])(struct ter_fixer *f) = { ter_fix_names, ter_fix_inodes, ter_fix_entries, ter_fix_tree, ter_fix_links };
	uint64_t done;
	int r = 0;

	(void)arg;
	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	list_all(e, &before);
	(void)ter_vfs_sync(e->vfs);
	ter_inodes_drop(e->vfs);
	plant_many(e);
	f.vfs = e->vfs; /* no memory: as few at once as can be */
	for (unsigned i = 0; i < ARRAY_SIZE(steps) && r >= 0; i++)
		r = steps[i](&f);
	done = yes.done_nr;
	if (r < 0)
		eng_fail(e, "a step says %d", r);
	/* With all memory, these steps have nothing to add. */
	f.memory_bytes = TER_MIB(1);
	for (unsigned i = 0; i < ARRAY_SIZE(steps) && r >= 0; i++)
		r = steps[i](&f);
	if (r < 0 || yes.done_nr != done)
		eng_fail(e, "%llu repairs in turns, then %llu more", (unsigned long long)done, (unsigned long long)(yes.done_nr - done));
	repaired_now(e, "after turns");
	all_content_is_there(e, &before);
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
}

static void a_repair_takes_turns_when_memory_is_short(void **state)
{
	(void)state;
	begin(0);
	eng_run(e_now, turns_main, NULL);
	if (e_now->failed)
		fail_msg("%s", e_now->why);
	end(0);
}

/* --- cuts --- */

static struct list cut_before;

static void cut_run_main(struct eng *e, void *arg)
{
	struct ter_repair yes = { 0 };

	(void)arg;
	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	list_all(e, &cut_before);
	(void)ter_vfs_sync(e->vfs);
	ter_inodes_drop(e->vfs);
	plant_many(e);
	if (ter_journal_flush(e->fs->journal, ter_journal_open_seq(e->fs->journal)) < 0)
		eng_fail(e, "the damage cannot be made durable");
	ter_sim_record(e->sim, true);
	if (ter_vfs_repair(e->vfs, &yes) < 0 || !yes.done_nr)
		eng_fail(e, "the repair cannot be done");
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
}

static void after_cut_main(struct eng *e, void *arg)
{
	(void)arg;
	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	repaired_now(e, "after the cut");
	all_content_is_there(e, &cut_before);
	eng_close(e);
}

#define CUTS_MAX 60

static void a_repair_that_is_cut_is_done_again(void **state)
{
	struct ter_sim_trace *trace;
	unsigned missed = 0, tried = 0;

	(void)state;
	begin(0);
	eng_run(e_now, cut_run_main, NULL);
	if (e_now->failed)
		fail_msg("%s", e_now->why);
	trace = ter_sim_trace_take(e_now->sim);
	for (uint64_t at = trace->first_event, step = ter_max((trace->last_event - at) / CUTS_MAX, 1ull); at <= trace->last_event + 1; at += step) {
		const struct ter_sim_cut cut = { .at = at, .keep = TER_SIM_KEEP_RANDOM, .seed = at };
		struct eng_machine before;
		char line[64];

		snprintf(line, sizeof(line), "a cut at %llu", (unsigned long long)at);
		eng_guard(line, CASE_SECONDS);
		eng_machine_enter(e_now, at, &before);
		ter_sim_apply(e_now->sim, trace, &cut);
		eng_run(e_now, after_cut_main, NULL);
		eng_machine_leave(e_now, &before);
		if (e_now->failed)
			fprintf(stderr, "cut at %llu: %s\n", (unsigned long long)at, e_now->why);
		missed += e_now->failed;
		e_now->failed = false;
		tried++;
	}
	assert_true(tried > CUTS_MAX / 4);
	ter_sim_trace_free(trace);
	end(missed);
}

/* --- extents: with the repair of btrees and space before that of files --- */

struct extent_damage {
	const char *name;
	int node;
	unsigned at, bytes; /* of the first EXTENT key's value; bytes 0: the key as `plant` says */
	uint64_t xor;
	void (*plant)(struct eng *e, struct eng_key *key);
	bool late;          /* not the first one */
	bool whole;         /* the file is as it was */
};

static void shift_extent(struct eng *e, struct eng_key *key)
{
	key->key.pos.offset -= 8;
	put(e, TER_BTREE_EXTENTS, &key->key);
}

static void shift_extent_on(struct eng *e, struct eng_key *key)
{
	key->key.pos.offset += 8;
	put(e, TER_BTREE_EXTENTS, &key->key);
}

static void copy_extent_to_other(struct eng *e, struct eng_key *key)
{
	key->key.pos.inode = inum_of(HOLES);
	key->key.pos.offset += 8 * 1000;
	put(e, TER_BTREE_EXTENTS, &key->key);
}

static void drop_extent(struct eng *e, struct eng_key *key)
{
	delete(e, TER_BTREE_EXTENTS, key->key.pos);
}

static void extent_in_snapshot(struct eng *e, struct eng_key *key)
{
	key->key.pos.snapshot = 9;
	put(e, TER_BTREE_EXTENTS, &key->key);
}

static void extent_of_directory(struct eng *e, struct eng_key *key)
{
	delete(e, TER_BTREE_EXTENTS, key->key.pos);
	key->key.pos.inode = inum_of(OTHER);
	put(e, TER_BTREE_EXTENTS, &key->key);
}

static void longer_extent(struct eng *e, struct eng_key *key)
{
	key->key.size += 8;
	put(e, TER_BTREE_EXTENTS, &key->key);
}

static void empty_extent(struct eng *e, struct eng_key *key)
{
	key->key.size = 0;
	put(e, TER_BTREE_EXTENTS, &key->key);
}

#define EXTENT(field) offsetof(struct ter_extent_disk, field), sizeof(((struct ter_extent_disk *)0)->field)
#define PTR(field) sizeof(struct ter_extent_disk) + offsetof(struct ter_extent_ptr_disk, field), sizeof(((struct ter_extent_ptr_disk *)0)->field)
static const struct extent_damage extent_damages[] = {
	{ "an extent is there twice, a block away", BIG, .plant = shift_extent, .whole = true },
	{ "an extent within the file is there twice, a block before", HOLES, .plant = shift_extent, .late = true },
	{ "an extent within the file is there twice, a block after", HOLES, .plant = shift_extent_on, .late = true, .whole = true },
	{ "an extent is another file's, too", BIG, .plant = copy_extent_to_other, .whole = true },
	{ "an extent is gone", BIG, .plant = drop_extent },
	{ "an extent in a snapshot", BIG, .plant = extent_in_snapshot, .whole = true },
	{ "an extent is a directory's", BIG, .plant = extent_of_directory },
	{ "an extent is longer", BIG, .plant = longer_extent },
	{ "an extent is empty", BIG, .plant = empty_extent },
	{ "number of pointers", BIG, EXTENT(nr_ptrs), 7 },
	{ "required", BIG, EXTENT(nr_required), 0x80 },
	{ "checksum", BIG, EXTENT(csum_slot), 0x40 },
	{ "compression", BIG, EXTENT(compression_slot), 0x20 },
	{ "checksum block", BIG, EXTENT(csum_block_log2), 0x20 },
	{ "digest", BIG, EXTENT(digest_bytes), 0x10 },
	{ "number of checksums", BIG, EXTENT(csums_nr), 0x100 },
	{ "stored sectors", BIG, EXTENT(stored_sectors), 8 },
	{ "raw sectors", BIG, EXTENT(raw_sectors), 8 },
	{ "live offset", BIG, EXTENT(live_offset), 0x1000 },
	{ "zero", BIG, EXTENT(zero), 1 },
	{ "a pointer's sector", BIG, PTR(sector), 1ull << 40 },
	{ "a pointer's sector, elsewhere", BIG, PTR(sector), 1ull << 10 },
	{ "a pointer's generation", BIG, PTR(gen), 1 << 20 },
	{ "a pointer's member", BIG, PTR(dev), 9 },
	{ "a pointer's flags", BIG, PTR(flags), 0x80 },
	{ "a pointer's zero", BIG, PTR(zero), 1 },
};

/* Not at the file's start: it can be moved towards it. */
static bool is_late_extent_of(const struct ter_key *key, void *arg)
{
	return key->type == TER_KEY_EXTENT && key->pos.inode == *(const uint64_t *)arg && ter_key_start(key) >= 16;
}

static bool is_extent_of(const struct ter_key *key, void *arg)
{
	return key->type == TER_KEY_EXTENT && key->pos.inode == *(const uint64_t *)arg;
}

static struct list extents_before;

static void plant_extent_main(struct eng *e, void *arg)
{
	const struct extent_damage *d = arg;
	uint64_t inum = inum_of(d->node), value = 0;
	static struct eng_report report;

	if (eng_start(e, false, -1) < 0) {
		eng_fail(e, "start: %s", e->error.text);
		return;
	}
	list_all(e, &extents_before);
	(void)ter_vfs_sync(e->vfs);
	ter_inodes_drop(e->vfs);
	if (!eng_find_key(e, TER_BTREE_EXTENTS, d->late ? is_late_extent_of : is_extent_of, &inum, &found)) {
		eng_fail(e, "no extent");
	} else if (d->plant) {
		d->plant(e, &found);
	} else {
		memcpy(&value, (uint8_t *)found.val + d->at, d->bytes);
		value ^= d->xor;
		memcpy((uint8_t *)found.val + d->at, &value, d->bytes);
		put(e, TER_BTREE_EXTENTS, &found.key);
	}
	if (!e->failed && eng_check(e, &report) <= 0)
		eng_fail(e, "the check says %lld", (long long)report.nr);
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
}

static void say_left(void *arg, const char *pass, const char *sentence)
{
	(void)say_yes(arg, pass, sentence);
}

static void repair_extent_main(struct eng *e, void *arg)
{
	const struct extent_damage *d = arg;
	char fixed[2048] = "";
	const struct ter_fs_repair_params params = { .want = say_yes, .left = say_left, .arg = fixed };
	struct ter_fs_repaired repaired = { 0 };
	static struct list after;

	if (eng_open(e, false, -1) < 0) {
		eng_fail(e, "open: %s", e->error.text);
		return;
	}
	if (ter_fs_repair(e->fs, &params, NULL, &repaired, &e->error) < 0)
		eng_fail(e, "repair: %s%s", e->error.text, fixed);
	else if (!repaired.found || !repaired.done || repaired.left)
		eng_fail(e, "%llu found, %llu done, %llu left:%s", (unsigned long long)repaired.found, (unsigned long long)repaired.done,
			 (unsigned long long)repaired.left, fixed);
	if (getenv("TER_TEST_VERBOSE"))
		fprintf(stderr, "%s:%s\n", d->name, fixed);
	e->vfs = ter_fs_vfs(e->fs);
	if (!e->failed) {
		list_all(e, &after);
		compare(e, &extents_before, &after, d->whole ? 0 : nodes[d->node], false);
	}
	if (eng_stop(e) < 0)
		eng_fail(e, "stop: %s", e->error.text);
	else if (!e->failed && eng_start(e, false, -1) < 0)
		eng_fail(e, "start: %s", e->error.text);
	else if (!e->failed) {
		if (e->fs->access != TER_ACCESS_RW)
			eng_fail(e, "it is not writable: %s", e->fs->why_read_only);
		(void)eng_fsck_clean(e);
		eng_close(e);
	}
}

static void each_extent_is_repaired(void **state)
{
	(void)state;
	for (unsigned layout = 0; layout < 2; layout++) {
		unsigned missed = 0;

		begin(layout);
		for (unsigned i = 0; i < ARRAY_SIZE(extent_damages); i++) {
			const struct extent_damage *d = &extent_damages[i];
			struct eng_machine before;

			eng_guard(d->name, CASE_SECONDS);
			eng_machine_enter(e_now, e_now->seed + i, &before);
			ter_sim_restore(e_now->sim, snapshot, NULL);
			eng_run(e_now, plant_extent_main, (void *)(uintptr_t)d);
			if (!e_now->failed)
				eng_run(e_now, repair_extent_main, (void *)(uintptr_t)d);
			eng_machine_leave(e_now, &before);
			if (e_now->failed)
				fprintf(stderr, "%s: %s: %s\n", e_now->layout.name, d->name, e_now->why);
			missed += e_now->failed;
			e_now->failed = false;
		}
		end(missed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_record_is_repaired),
		cmocka_unit_test(each_field_of_an_inode_is_repaired),
		cmocka_unit_test(each_extent_is_repaired),
		cmocka_unit_test(a_repair_takes_turns_when_memory_is_short),
		cmocka_unit_test(a_repair_that_is_cut_is_done_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
