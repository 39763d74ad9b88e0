/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair of files: the steps in order, and what they share: reading btrees by the buffer, staging inodes, /lost+found. */
#include "fs/vfs_repair_priv.h"

#include <stdio.h>

#include "data/extent.h"

#define KEYS_BYTES TER_KIB(128) /* of keys between two steps; the longest key fits */
#define LOST_NAME "lost+found"
#define NAME_TRIES_MAX 100
#define RESTARTS_MAX 1000

/* --- reading --- */

struct batch {
	uint8_t *keys;
	size_t used;
};

static void batch_release(struct batch *b)
{
	free(b->keys);
}

static int copy_key(void *arg, const struct ter_key *key)
{
	struct batch *b = arg;
	const uint32_t bytes = ter_key_disk_bytes(key->val_bytes);

	if (bytes > KEYS_BYTES - b->used)
		return 1;
	ter_key_encode(key, b->keys + b->used);
	b->used += bytes;
	return 0;
}

int ter_fix_each(struct ter_fixer *f, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, int (*fn)(struct ter_fixer *f, const struct ter_key *key, void *arg),
		 void *arg)
{
	_cleanup_(batch_release) struct batch b = { .keys = ter_malloc(KEYS_BYTES) };
	unsigned restarts = 0;
	uint64_t done = 0;
	int r, more;

	if (!b.keys)
		return -ENOMEM;
	do {
		b.used = 0;
		more = ter_btree_scan(f->vfs->config.btrees, btree, from, to, 0, copy_key, &b, NULL);
		if (more == -ERESTART && (b.used || restarts++ < RESTARTS_MAX))
			more = 1; /* the btree changed its height: go on from where it was */
		if (more < 0)
			return more;
		for (size_t at = 0; at < b.used;) {
			struct ter_key key;

			ter_key_decode((const struct ter_key_disk *)(b.keys + at), &key);
			at += ter_key_disk_bytes(key.val_bytes);
			from = ter_pos_next(key.pos);
			done++;
			r = fn(f, &key, arg);
			if (r)
				return r;
		}
		r = ter_repair_step(f->repair, ter_btree_names[btree], done, 0);
		if (r < 0)
			return r;
	} while (more == 1);
	return 0;
}

int ter_fix_read_inode(struct ter_fixer *f, uint64_t inum, struct ter_inode_attr *ret)
{
	if (f->seen_inum != inum || !inum) {
		f->seen_inum = inum;
		f->seen_r = ter_inode_read_key(f->vfs, ter_fix_pos(inum), 0, &f->seen_attr);
	}
	if (f->seen_r >= 0)
		*ret = f->seen_attr;
	return f->seen_r;
}

int ter_fix_run(struct ter_fixer *f, int (*fn)(struct ter_trans *trans, void *arg), void *arg)
{
	f->seen_inum = 0;
	return ter_trans_run(f->vfs->config.btrees, 0, fn, arg, NULL);
}

static int is_there(void *arg, const struct ter_key *key)
{
	(void)arg;
	(void)key;
	return 1;
}

int ter_fix_has_keys(struct ter_fixer *f, enum ter_btree_id btree, uint64_t inum)
{
	return ter_btree_scan(f->vfs->config.btrees, btree, TER_POS(inum, 0, 0), TER_POS(inum, UINT64_MAX, UINT32_MAX), 0, is_there, NULL, NULL);
}

int ter_fix_is_marked(struct ter_fixer *f, uint64_t inum)
{
	return ter_btree_scan(f->vfs->config.btrees, TER_BTREE_DELETED_INODES, ter_fix_pos(inum), ter_fix_pos(inum), 0, is_there, NULL, NULL);
}

struct leads {
	uint64_t inum;
};

static int leads_cb(void *arg, const struct ter_key *key)
{
	const struct leads *l = arg;
	struct ter_dent dent;
	uint32_t at = 0;

	if (ter_dirents_check(key) < 0)
		return 0;
	while (ter_dirents_next(key->val, key->val_bytes, &at, &dent) > 0)
		if (dent.inum == l->inum)
			return 1;
	return 0;
}

int ter_fix_leads_to(struct ter_fixer *f, uint64_t dir, uint64_t offset, uint64_t inum)
{
	const struct ter_pos pos = TER_POS(dir, offset, TER_SNAPSHOT_ROOT);
	struct leads l = { inum };
	struct ter_inode_attr attr;
	int r;

	if (!ter_fix_inum_valid(dir))
		return 0;
	r = ter_inode_read_key(f->vfs, ter_fix_pos(dir), 0, &attr);
	if (r == -ESTALE || r == -EUCLEAN || (r >= 0 && !ter_attr_is_dir(&attr)))
		return 0;
	return r < 0 ? r : ter_btree_scan(f->vfs->config.btrees, TER_BTREE_DIRENTS, pos, pos, 0, leads_cb, &l, NULL);
}

/* --- staging --- */

struct delete_key {
	enum ter_btree_id btree;
	struct ter_pos pos;
};

static int delete_fn(struct ter_trans *trans, void *arg)
{
	const struct delete_key *d = arg;
	struct ter_key old;
	int r;

	r = ter_trans_get(trans, d->btree, d->pos, &old);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return ter_trans_update(trans, d->btree, d->pos, &old, NULL);
}

int ter_fix_delete_key(struct ter_fixer *f, enum ter_btree_id btree, struct ter_pos pos)
{
	struct delete_key d = { btree, pos };

	return ter_fix_run(f, delete_fn, &d);
}

static int stage_attr(struct ter_trans *trans, uint64_t inum, const struct ter_key *old, const struct ter_inode_attr *attr)
{
	struct ter_inode_disk disk;
	const struct ter_key key = { .pos = ter_fix_pos(inum), .type = TER_KEY_INODE, .val_bytes = sizeof(disk), .val = &disk };

	ter_inode_encode(attr, &disk);
	return ter_trans_update(trans, TER_BTREE_INODES, key.pos, old, &key);
}

int ter_fix_stage_inode(struct ter_trans *trans, uint64_t inum, void (*change)(struct ter_inode_attr *attr, void *arg), void *arg)
{
	struct ter_inode_attr attr;
	struct ter_key old;
	int r;

	r = ter_trans_get(trans, TER_BTREE_INODES, ter_fix_pos(inum), &old);
	if (r >= 0)
		r = ter_inode_decode(&old, &attr);
	if (r < 0)
		return r;
	change(&attr, arg);
	return stage_attr(trans, inum, &old, &attr);
}

int ter_fix_stage_new(struct ter_trans *trans, uint64_t inum, const struct ter_inode_attr *attr)
{
	struct ter_key old;
	int r;

	r = ter_trans_get(trans, TER_BTREE_INODES, ter_fix_pos(inum), &old);
	if (r < 0 && r != -ENOENT)
		return r;
	return stage_attr(trans, inum, r < 0 ? TER_KEY_ABSENT : &old, attr);
}

int ter_fix_stage_unmark(struct ter_trans *trans, uint64_t inum)
{
	struct delete_key d = { TER_BTREE_DELETED_INODES, ter_fix_pos(inum) };

	return delete_fn(trans, &d);
}

struct count {
	bool is_dir;
	int sign;
};

static void change_counts(struct ter_inode_attr *attr, void *arg)
{
	const struct count *c = arg;

	if (c->sign > 0 || attr->size)
		attr->size += (uint64_t)(int64_t)c->sign;
	if (c->is_dir && (c->sign > 0 || attr->nlink > 2))
		attr->nlink += (uint32_t)c->sign;
}

int ter_fix_stage_count(struct ter_trans *trans, uint64_t dir, bool is_dir, int sign)
{
	struct count c = { is_dir, sign };
	const int r = ter_fix_stage_inode(trans, dir, change_counts, &c);

	return r == -ENOENT || r == -EUCLEAN ? 0 : r; /* of no directory: its entries are judged by themselves */
}

/* --- /lost+found --- */

static int find_name(struct ter_fixer *f, uint64_t dir, const char *name, uint64_t *ret_inum, uint8_t *ret_type)
{
	const struct ter_pos pos = TER_POS(dir, ter_dirent_hash(f->vfs->config.sb->sb->hash_key, name, strlen(name)), TER_SNAPSHOT_ROOT);
	struct ter_trans trans;
	int r;

	ter_trans_init(&trans, f->vfs->config.btrees, 0);
	r = ter_dirent_find(&trans, pos, name, strlen(name), ret_inum, ret_type);
	ter_trans_exit(&trans);
	return r;
}

struct make {
	struct ter_fixer *f;
	const char *name;
	uint64_t inum;
	struct ter_inode_attr attr;
	struct ter_inum_stage bound;
	struct ter_pos pos;
};

static int make_fn(struct ter_trans *trans, void *arg)
{
	const int64_t one = 1;
	struct make *m = arg;
	int r;

	r = ter_inum_stage(m->f->vfs, trans, m->inum, &m->bound);
	if (r >= 0)
		r = ter_fix_stage_new(trans, m->inum, &m->attr);
	if (r >= 0)
		r = ter_trans_add(trans, ter_counter_inodes(), &one, 1);
	if (r >= 0)
		r = ter_dirent_add(trans, m->pos, m->name, strlen(m->name), m->inum, ter_mode_type(S_IFDIR));
	return r < 0 ? r : ter_fix_stage_count(trans, m->pos.inode, true, +1);
}

static int make_lost_found(struct ter_fixer *f, const char *name)
{
	const int64_t now = ter_vfs_now(f->vfs);
	struct make m = {
		.f = f, .name = name, .inum = atomic_fetch_add(&f->vfs->next_inum, 1),
		.pos = TER_POS(TER_ROOT_INUM, ter_dirent_hash(f->vfs->config.sb->sb->hash_key, name, strlen(name)), TER_SNAPSHOT_ROOT),
	};
	int r;

	if (m.inum > TER_INUM_MAX)
		return -ENOSPC;
	m.attr = (struct ter_inode_attr){
		.mode = S_IFDIR | 0700, .nlink = 2, .parent_inum = m.pos.inode, .parent_offset = m.pos.offset,
		.atime_ns = now, .mtime_ns = now, .ctime_ns = now, .btime_ns = now,
	};
	r = ter_fix_run(f, make_fn, &m);
	if (r < 0)
		return r;
	ter_inum_committed(f->vfs, &m.bound);
	f->lost_found = m.inum;
	return 0;
}

/* "lost+found" may be taken by something that is no directory: then "lost+found.1", and so on. */
static int need_lost_found(struct ter_fixer *f)
{
	char name[32] = LOST_NAME;
	int r = 0;

	for (unsigned i = 1; !f->lost_found && i <= NAME_TRIES_MAX; i++) {
		struct ter_inode_attr attr;
		uint64_t inum = 0;
		uint8_t type = 0;

		r = find_name(f, TER_ROOT_INUM, name, &inum, &type);
		if (r == -ENOENT)
			return make_lost_found(f, name);
		if (r < 0)
			return r;
		r = ter_inode_read_key(f->vfs, ter_fix_pos(inum), 0, &attr);
		if (r >= 0 && ter_attr_is_dir(&attr) && attr.nlink)
			f->lost_found = inum;
		snprintf(name, sizeof(name), LOST_NAME ".%u", i);
	}
	return f->lost_found ? 0 : r < 0 ? r : -EEXIST;
}

struct connect {
	struct ter_fixer *f;
	uint64_t inum, dir;
	char name[48];
	struct ter_pos pos;
};

static void change_connected(struct ter_inode_attr *attr, void *arg)
{
	const struct connect *c = arg;

	attr->nlink = ter_attr_is_dir(attr) ? ter_max(attr->nlink, 2u) : 1;
	attr->parent_inum = c->pos.inode;
	attr->parent_offset = c->pos.offset;
	attr->flags &= ~(uint32_t)TER_IFLAG_LINKABLE;
}

static int connect_fn(struct ter_trans *trans, void *arg)
{
	struct connect *c = arg;
	struct ter_inode_attr attr;
	struct ter_key key;
	int r;

	r = ter_trans_get(trans, TER_BTREE_INODES, ter_fix_pos(c->inum), &key);
	if (r >= 0)
		r = ter_inode_decode(&key, &attr);
	if (r >= 0)
		r = ter_dirent_add(trans, c->pos, c->name, strlen(c->name), c->inum, ter_mode_type(attr.mode));
	if (r >= 0)
		r = ter_fix_stage_inode(trans, c->inum, change_connected, c);
	if (r >= 0)
		r = ter_fix_stage_unmark(trans, c->inum);
	return r < 0 ? r : ter_fix_stage_count(trans, c->dir, ter_attr_is_dir(&attr), +1);
}

int ter_fix_connect(struct ter_fixer *f, uint64_t inum)
{
	struct connect c = { .f = f, .inum = inum };
	int r;

	r = need_lost_found(f);
	if (r < 0)
		return r;
	c.dir = f->lost_found;
	for (unsigned i = 0; i < NAME_TRIES_MAX; i++) {
		if (i)
			snprintf(c.name, sizeof(c.name), "#%" PRIu64 ".%u", inum, i);
		else
			snprintf(c.name, sizeof(c.name), "#%" PRIu64, inum);
		c.pos = TER_POS(c.dir, ter_dirent_hash(f->vfs->config.sb->sb->hash_key, c.name, strlen(c.name)), TER_SNAPSHOT_ROOT);
		r = ter_fix_run(f, connect_fn, &c);
		if (r != -EEXIST)
			return r;
	}
	return r;
}

/* --- the whole --- */

/* Numbers of inodes lie below the bound: found by the last key of each btree that has them. */
static int fix_next_inum(struct ter_fixer *f)
{
	struct ter_trans trans;
	struct ter_key key;
	int r;

	ter_trans_init(&trans, f->vfs->config.btrees, 0);
	r = ter_trans_prev(&trans, TER_BTREE_INODES, TER_POS(TER_INUM_MAX, UINT64_MAX, UINT32_MAX), TER_POS_MIN, &key);
	ter_trans_exit(&trans);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (key.pos.inode < ter_vfs_next_inum(f->vfs))
		return 0;
	r = ter_repair_want(f->repair, "inodes", "Inode %" PRIu64 " has a number that was not given out yet: numbers up to it count as given out.",
			    key.pos.inode);
	if (r > 0)
		ter_inum_raise(f->vfs, key.pos.inode);
	return r < 0 ? r : 0;
}

int ter_vfs_repair(struct ter_vfs *vfs, struct ter_repair *repair)
{
	static int (*const steps[])(struct ter_fixer *f) = {
		fix_next_inum,  ter_fix_names, ter_fix_inodes, ter_fix_entries, ter_fix_tree,
		ter_fix_links, ter_fix_xattrs, ter_fix_extents, ter_fix_sizes, ter_fix_damaged, ter_fix_counts,
	};
	struct ter_fixer f = {
		.vfs = vfs, .repair = repair, .memory_bytes = (size_t)ter_repair_memory(repair),
	};
	int r;

	r = ter_vfs_sync(vfs); /* what memory holds is in the btrees then, and no inode is needed in memory */
	for (unsigned i = 0; r >= 0 && i < ARRAY_SIZE(steps); i++)
		r = steps[i](&f);
	ter_inodes_drop(vfs); /* also after a failure: what was changed is not what the cache says */
	return r < 0 ? r : 0;
}
