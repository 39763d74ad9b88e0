/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of directory entries against inodes: each leads to an inode of its type, and a directory has one entry
 *
 * Values can be read here, and inodes were rebuilt. A directory says itself where its entry is (parent_inum, parent_offset): if an entry for it is there, others go; if not, the first that is
 * found is taken.
 */
#include "fs/vfs_repair_priv.h"

struct entry_fix {
	struct ter_fixer *f;
	struct ter_pos pos;
	const char *name;
	unsigned name_bytes;
	uint64_t inum;
	uint8_t type;   /* as the entry says; new_type: as the inode is */
	uint8_t new_type;
	bool remove;
};

static void change_parent(struct ter_inode_attr *attr, void *arg)
{
	const struct entry_fix *e = arg;

	attr->parent_inum = e->pos.inode;
	attr->parent_offset = e->pos.offset;
}

/* The first entry with this name and inode goes: names may be there twice where nobody wanted that repaired. */
static int entry_fn(struct ter_trans *trans, void *arg)
{
	const struct entry_fix *e = arg;
	const uint8_t dir_type = ter_mode_type(S_IFDIR);
	int r;

	if (e->remove) {
		r = ter_dirent_remove(trans, e->pos, e->name, e->name_bytes);
		return r < 0 ? r : ter_fix_stage_count(trans, e->pos.inode, e->type == dir_type, -1);
	}
	if (e->new_type == e->type)
		return 0;
	return ter_dirent_replace(trans, e->pos, e->name, e->name_bytes, e->inum, e->new_type);
}

static int parent_fn(struct ter_trans *trans, void *arg)
{
	const struct entry_fix *e = arg;

	return ter_fix_stage_inode(trans, e->inum, change_parent, arg);
}

static int remove_entry(struct ter_fixer *f, struct entry_fix *e, int want)
{
	e->remove = true;
	return want <= 0 ? want : ter_fix_run(f, entry_fn, e);
}

static int fix_type(struct ter_fixer *f, struct entry_fix *e, uint8_t type)
{
	const int r = ter_repair_want(f->repair, "dirents", "Entry '%.*s' in directory %" PRIu64 " says that inode %" PRIu64 " is of type %u, but it is of type %u: "
				      "the entry is changed.", (int)e->name_bytes, e->name, e->pos.inode, e->inum, e->type, type);

	e->new_type = type;
	return r <= 0 ? r : ter_fix_run(f, entry_fn, e);
}

/* @nth: how many entries of the same key lead to the directory before this one. */
static int fix_dir_entry(struct ter_fixer *f, struct entry_fix *e, const struct ter_inode_attr *target, unsigned nth)
{
	const bool own = target->parent_inum == e->pos.inode && target->parent_offset == e->pos.offset;
	int r;

	if (e->inum == TER_ROOT_INUM) {
		r = ter_repair_want(f->repair, "dirents", "Entry '%.*s' in directory %" PRIu64 " leads to the root directory: it is removed.", (int)e->name_bytes,
				    e->name, e->pos.inode);
		return remove_entry(f, e, r);
	}
	if (own && !nth)
		return 0;
	r = own ? 1 : ter_fix_leads_to(f, target->parent_inum, target->parent_offset, e->inum);
	if (r < 0)
		return r;
	if (r == 1) {
		r = ter_repair_want(f->repair, "dirents", "Directory %" PRIu64 " has more than one entry: '%.*s' in directory %" PRIu64 " is removed.", e->inum,
				    (int)e->name_bytes, e->name, e->pos.inode);
		return remove_entry(f, e, r);
	}
	r = ter_repair_want(f->repair, "dirents", "Directory %" PRIu64 " stands in directory %" PRIu64 ", but does not say so: it is told.", e->inum, e->pos.inode);
	return r <= 0 ? r : ter_fix_run(f, parent_fn, e);
}

static int fix_entry(struct ter_fixer *f, struct entry_fix *e, unsigned nth)
{
	struct ter_inode_attr target;
	int r;

	r = ter_fix_read_inode(f, e->inum, &target);
	if (r == -ESTALE) {
		r = ter_repair_want(f->repair, "dirents", "Entry '%.*s' in directory %" PRIu64 " leads to inode %" PRIu64 ", which does not exist: it is removed.",
				    (int)e->name_bytes, e->name, e->pos.inode, e->inum);
		return remove_entry(f, e, r);
	}
	if (r == -EUCLEAN)
		return 0; /* left as it is */
	if (r < 0)
		return r;
	if (ter_mode_type(target.mode) != e->type) {
		r = fix_type(f, e, ter_mode_type(target.mode));
		if (r <= 0)
			return r < 0 ? r : 0;
		e->type = ter_mode_type(target.mode);
	}
	return ter_attr_is_dir(&target) ? fix_dir_entry(f, e, &target, nth) : 0;
}

static int fix_entries_of_key(struct ter_fixer *f, const struct ter_key *key)
{
	uint64_t dirs[TER_DIRENT_SLOTS];
	unsigned dirs_nr = 0;
	struct ter_dent dent;
	uint32_t at = 0;
	int r = 0;

	while (r >= 0 && ter_dirents_next(key->val, key->val_bytes, &at, &dent) > 0) {
		struct entry_fix e = {
			.f = f, .pos = key->pos, .name = dent.name, .name_bytes = dent.name_bytes, .inum = dent.inum, .type = dent.type,
		};
		unsigned nth = 0;

		for (unsigned i = 0; i < dirs_nr; i++)
			nth += dirs[i] == dent.inum;
		dirs[dirs_nr++] = dent.inum; /* a checked value has at most TER_DIRENT_SLOTS entries */
		r = fix_entry(f, &e, nth);
	}
	return r < 0 ? r : 0;
}

static int fix_key(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct ter_inode_attr dir;
	int r;

	(void)arg;
	if (!ter_fix_pos_valid(key->pos) || ter_dirents_check(key) < 0)
		return 0;
	r = ter_fix_read_inode(f, key->pos.inode, &dir);
	if (r == -ESTALE || r == -EUCLEAN)
		return 0;
	if (r < 0)
		return r;
	if (ter_attr_is_dir(&dir))
		return fix_entries_of_key(f, key);
	r = ter_repair_want(f->repair, "dirents", "Inode %" PRIu64 " has directory entries, but is not a directory: they are removed.", key->pos.inode);
	if (r > 0)
		r = ter_fix_delete_key(f, TER_BTREE_DIRENTS, key->pos);
	return r < 0 ? r : 0;
}

int ter_fix_entries(struct ter_fixer *f)
{
	return ter_fix_each(f, TER_BTREE_DIRENTS, TER_POS_MIN, TER_POS_MAX, fix_key, NULL);
}
