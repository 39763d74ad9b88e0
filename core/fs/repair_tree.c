/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair of the tree of directories: each is reached from the root; and of what each counts. Takes no memory: parents are walked once a directory. */
#include "fs/vfs_repair_priv.h"

/* --- reaching --- */

static int parent_of(struct ter_fixer *f, uint64_t inum, uint64_t *ret)
{
	struct ter_inode_attr attr;
	int r;

	r = ter_inode_read_key(f->vfs, ter_fix_pos(inum), 0, &attr);
	if (r == -ESTALE || r == -EUCLEAN)
		*ret = 0;
	else if (r >= 0)
		*ret = attr.parent_inum;
	return r == -ESTALE || r == -EUCLEAN ? 0 : r;
}

/* 1: parents of @inum lead back to it, and it is the least of the circle. Brent's: the mark moves up in steps of twice the length. */
static int heads_circle(struct ter_fixer *f, uint64_t inum)
{
	uint64_t mark = inum, at = inum, steps = 0, until = 1, least;
	int r;

	do {
		r = parent_of(f, at, &at);
		if (r < 0)
			return r;
		if (!at || at == TER_ROOT_INUM)
			return 0; /* the root, or a gap that is told by itself */
		if (at == mark)
			break;
		if (++steps == until) {
			mark = at;
			until *= 2;
		}
	} while (steps < TER_INUM_MAX);
	least = mark;
	do {
		least = ter_min(least, at);
		r = parent_of(f, at, &at);
		if (r < 0)
			return r;
	} while (at != mark);
	return least == inum;
}

struct cut {
	struct ter_fixer *f;
	uint64_t inum, dir, offset;
};

/* Its entry goes. */
static int cut_fn(struct ter_trans *trans, void *arg)
{
	const struct cut *c = arg;
	const struct ter_pos pos = TER_POS(c->dir, c->offset, TER_SNAPSHOT_ROOT);
	struct ter_dent dent;
	struct ter_key key;
	uint32_t at = 0;
	int r;

	r = ter_trans_get(trans, TER_BTREE_DIRENTS, pos, &key);
	if (r >= 0)
		r = ter_dirents_check(&key);
	while (r >= 0 && ter_dirents_next(key.val, key.val_bytes, &at, &dent) > 0) {
		if (dent.inum != c->inum)
			continue;
		r = ter_dirent_remove(trans, pos, dent.name, dent.name_bytes);
		return r < 0 ? r : ter_fix_stage_count(trans, c->dir, true, -1);
	}
	return r == -ENOENT ? 0 : r;
}

static int fix_reach(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct ter_inode_attr attr;
	int r, entries;

	(void)arg;
	if (!ter_fix_pos_valid(key->pos) || ter_inode_decode(key, &attr) < 0 || !ter_attr_is_dir(&attr) || key->pos.inode == TER_ROOT_INUM)
		return 0;
	/* As it is now: an earlier repair of this step may have moved it. */
	r = ter_fix_read_inode(f, key->pos.inode, &attr);
	if (r < 0)
		return r == -ESTALE || r == -EUCLEAN ? 0 : r;
	r = ter_fix_leads_to(f, attr.parent_inum, attr.parent_offset, key->pos.inode);
	if (r < 0)
		return r;
	if (r == 0) {
		entries = ter_fix_has_keys(f, TER_BTREE_DIRENTS, key->pos.inode);
		if (entries < 0)
			return entries;
		r = ter_fix_is_marked(f, key->pos.inode);
		if (r < 0)
			return r;
		if (!attr.nlink && r == 1 && !entries)
			return 0; /* is being deleted */
		r = ter_repair_want(f->repair, "inodes", "Directory %" PRIu64 " stands in no directory: it is put into /lost+found.", key->pos.inode);
		return r <= 0 ? r : ter_fix_connect(f, key->pos.inode);
	}
	r = heads_circle(f, key->pos.inode);
	if (r <= 0)
		return r;
	r = ter_repair_want(f->repair, "dirents", "Directory %" PRIu64 " is below itself: it is put into /lost+found.", key->pos.inode);
	if (r > 0) {
		struct cut cut = { f, key->pos.inode, attr.parent_inum, attr.parent_offset };

		r = ter_fix_run(f, cut_fn, &cut);
		if (r >= 0)
			r = ter_fix_connect(f, key->pos.inode);
	}
	return r < 0 ? r : 0;
}

int ter_fix_tree(struct ter_fixer *f)
{
	return ter_fix_each(f, TER_BTREE_INODES, TER_POS_MIN, TER_POS_MAX, fix_reach, NULL);
}

/* --- counting --- */

struct totals {
	uint64_t entries;
	uint32_t dirs;
};

static int take_totals(void *arg, const struct ter_key *key)
{
	struct totals *t = arg;
	struct ter_dent dent;
	uint32_t at = 0;

	if (key->pos.snapshot != TER_SNAPSHOT_ROOT || ter_dirents_check(key) < 0)
		return 0;
	while (ter_dirents_next(key->val, key->val_bytes, &at, &dent) > 0) {
		t->entries++;
		t->dirs += dent.type == ter_mode_type(S_IFDIR);
	}
	return 0;
}

static void change_totals(struct ter_inode_attr *attr, void *arg)
{
	const struct totals *t = arg;

	attr->size = t->entries;
	attr->nlink = 2 + t->dirs;
}

struct counts_arg {
	uint64_t inum;
	struct totals totals;
};

static int counts_fn(struct ter_trans *trans, void *arg)
{
	struct counts_arg *c = arg;
	const int r = ter_fix_stage_inode(trans, c->inum, change_totals, &c->totals);

	return r < 0 ? r : ter_fix_stage_unmark(trans, c->inum);
}

static int fix_dir_counts(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct counts_arg c = { .inum = key->pos.inode };
	struct ter_inode_attr attr;
	bool marked;
	int r;

	(*(int64_t *)arg)++;
	if (!ter_fix_pos_valid(key->pos) || ter_inode_decode(key, &attr) < 0 || !ter_attr_is_dir(&attr))
		return 0;
	r = ter_btree_scan(f->vfs->config.btrees, TER_BTREE_DIRENTS, TER_POS(c.inum, 0, 0), TER_POS(c.inum, UINT64_MAX, UINT32_MAX), 0, take_totals, &c.totals,
			   NULL);
	if (r < 0)
		return r;
	r = ter_fix_is_marked(f, c.inum);
	if (r < 0)
		return r;
	marked = r;
	if (!attr.nlink && marked && !c.totals.entries && !attr.size) {
		r = ter_fix_leads_to(f, attr.parent_inum, attr.parent_offset, c.inum);
		if (r <= 0)
			return r; /* is being deleted */
	}
	if (attr.size == c.totals.entries && attr.nlink == 2 + c.totals.dirs && !marked)
		return 0;
	if (attr.size == c.totals.entries && attr.nlink == 2 + c.totals.dirs)
		r = ter_repair_want(f->repair, "inodes", "Directory %" PRIu64 " has a name, and is in the list of deleted inodes: it is taken off.", c.inum);
	else
		r = ter_repair_want(f->repair, "dirents", "Directory %" PRIu64 " counts %" PRIu64 " entries and %" PRIu32 " links, but has %" PRIu64 " and %" PRIu32
				    ": it is told.", c.inum, attr.size, attr.nlink, c.totals.entries, 2 + c.totals.dirs);
	return r <= 0 ? r : ter_fix_run(f, counts_fn, &c);
}

struct add_arg {
	int64_t delta;
};

static int add_fn(struct ter_trans *trans, void *arg)
{
	const struct add_arg *a = arg;

	return ter_trans_add(trans, ter_counter_inodes(), &a->delta, 1);
}

static int fix_inodes_counter(struct ter_fixer *f, int64_t found)
{
	int64_t counted = 0;
	struct ter_trans trans;
	struct ter_key key;
	int r;

	ter_trans_init(&trans, f->vfs->config.btrees, 0);
	r = ter_trans_get(&trans, TER_BTREE_ACCOUNTING, ter_counter_inodes(), &key);
	if (r >= 0 && key.type == TER_KEY_COUNTERS && key.val_bytes >= 8)
		counted = (int64_t)ter_le64_get(*(const ter_le64 *)key.val);
	ter_trans_exit(&trans);
	if ((r < 0 && r != -ENOENT) || counted == found)
		return r == -ENOENT ? 0 : r;
	r = ter_repair_want(f->repair, "inodes", "The pool counts %" PRId64 " inodes, but has %" PRId64 ": it is told.", counted, found);
	if (r > 0)
		r = ter_fix_run(f, add_fn, &(struct add_arg){ found - counted });
	return r < 0 ? r : 0;
}

int ter_fix_counts(struct ter_fixer *f)
{
	int64_t inodes = 0;
	int r;

	r = ter_fix_each(f, TER_BTREE_INODES, TER_POS_MIN, TER_POS_MAX, fix_dir_counts, &inodes);
	return r < 0 ? r : fix_inodes_counter(f, inodes);
}
