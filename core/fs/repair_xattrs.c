/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair of extended attributes: of an inode that has some, readable, each at its name's hash. */
#include <stdio.h>

#include "fs/vfs_repair_priv.h"
#include "fs/xattr_value.h"

struct fix {
	struct ter_fixer *f;
	struct ter_pos pos;
};

static uint64_t hash_of(struct ter_fixer *f, const struct ter_xattr *x)
{
	char name[TER_NAME_MAX + 1];

	snprintf(name, sizeof(name), "%s%.*s", ter_xattr_prefix(x->ns), (int)x->name_bytes, x->name);
	return ter_xattr_hash(f->vfs->config.sb->sb->hash_key, name);
}

static int add_list(struct ter_trans *trans, struct ter_pos pos, const struct ter_xattr *x)
{
	_cleanup_free_ void *dst = NULL;
	struct ter_key key = { .pos = pos, .type = TER_KEY_XATTR }, old = { 0 };
	struct ter_xattr found;
	int r;

	r = ter_trans_get(trans, TER_BTREE_XATTRS, pos, &old);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r >= 0 && (ter_xattrs_check(&old) < 0 || ter_xattrs_find(old.val, old.val_bytes, x, &found) == 0))
		return 0; /* damaged, and comes later; or its own is there */
	if (ter_xattr_bytes(x) > TER_VAL_BYTES_MAX - old.val_bytes)
		return 0;
	dst = ter_malloc(old.val_bytes + ter_xattr_bytes(x));
	if (!dst)
		return -ENOMEM;
	key.val_bytes = (uint32_t)ter_xattrs_set(old.val, old.val_bytes, x, x, dst);
	key.val = dst;
	return ter_trans_update(trans, TER_BTREE_XATTRS, pos, r == -ENOENT ? TER_KEY_ABSENT : &old, &key);
}

/* What can be read of the value goes to the places of the names; the key was deleted before. */
static int move_fn(struct ter_trans *trans, void *arg)
{
	const struct fix *x = arg;
	struct ter_xattr attr;
	struct ter_key old;
	uint32_t at = 0;
	int r;

	r = ter_trans_get(trans, TER_BTREE_XATTRS, x->pos, &old);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = ter_trans_update(trans, TER_BTREE_XATTRS, x->pos, &old, NULL);
	if (old.type != TER_KEY_XATTR || old.val_version || !ter_fix_inum_valid(x->pos.inode))
		return r;
	while (r >= 0 && ter_xattrs_next(old.val, old.val_bytes, &at, &attr) > 0)
		r = add_list(trans, TER_POS(x->pos.inode, hash_of(x->f, &attr), TER_SNAPSHOT_ROOT), &attr);
	return r;
}

static void change_flag(struct ter_inode_attr *attr, void *arg)
{
	(void)arg;
	attr->flags |= TER_IFLAG_XATTRS;
}

static int flag_fn(struct ter_trans *trans, void *arg)
{
	const struct fix *x = arg;

	return ter_fix_stage_inode(trans, x->pos.inode, change_flag, NULL);
}

static int fix_value(struct ter_fixer *f, const struct ter_key *key)
{
	struct fix x = { f, key->pos };
	bool broken = !ter_fix_pos_valid(key->pos) || ter_xattrs_check(key) < 0, stray = false;
	struct ter_xattr attr;
	uint32_t at = 0;
	int r;

	while (!broken && ter_xattrs_next(key->val, key->val_bytes, &at, &attr) > 0)
		stray |= hash_of(f, &attr) != key->pos.offset;
	if (!broken && !stray)
		return 0;
	r = ter_repair_want(f->repair, "xattrs", broken ? "Inode %" PRIu64 " has damaged attributes: those that can still be read are kept." :
			    "Inode %" PRIu64 " has attributes at the place of another name: they are put where they belong.", key->pos.inode);
	return r <= 0 ? r : ter_fix_run(f, move_fn, &x);
}

static int fix_key(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct fix x = { f, key->pos };
	struct ter_inode_attr attr;
	int r;

	(void)arg;
	r = ter_fix_inum_valid(key->pos.inode) ? ter_fix_read_inode(f, key->pos.inode, &attr) : -ESTALE;
	if (r == -EUCLEAN)
		return 0;
	if (r < 0 && r != -ESTALE)
		return r;
	if (r == -ESTALE) {
		r = ter_repair_want(f->repair, "xattrs", "Inode %" PRIu64 " has attributes, but does not exist: they are removed.", key->pos.inode);
		if (r > 0)
			r = ter_fix_delete_key(f, TER_BTREE_XATTRS, key->pos);
		return r < 0 ? r : 0;
	}
	r = fix_value(f, key);
	if (r < 0 || attr.flags & TER_IFLAG_XATTRS)
		return r < 0 ? r : 0;
	r = ter_fix_has_keys(f, TER_BTREE_XATTRS, key->pos.inode);
	if (r <= 0)
		return r;
	r = ter_repair_want(f->repair, "xattrs", "Inode %" PRIu64 " has attributes, but says that it has none: it is told.", key->pos.inode);
	if (r > 0)
		r = ter_fix_run(f, flag_fn, &x);
	return r < 0 ? r : 0;
}

int ter_fix_xattrs(struct ter_fixer *f)
{
	return ter_fix_each(f, TER_BTREE_XATTRS, TER_POS_MIN, TER_POS_MAX, fix_key, NULL);
}
