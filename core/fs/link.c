/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Links: one more name for an inode, and one less. */
#include "fs/vfs_priv.h"

/* --- link --- */

struct link {
	const struct ter_op *op;
	struct ter_inode *dir, *inode;
	struct ter_pos pos;
	const char *name;
	size_t name_bytes;
	int64_t now;
	struct ter_inode_attr dir_attr, attr; /* results */
	struct ter_request_stage request;
};

static int may_link(const struct ter_inode_attr *attr)
{
	if (attr->flags & (TER_INODE_IMMUTABLE | TER_INODE_APPEND))
		return -EPERM;
	if (!attr->nlink && !(attr->flags & TER_IFLAG_LINKABLE))
		return -ENOENT;
	return attr->nlink >= TER_LINK_MAX ? -EMLINK : 0;
}

static int link_fn(struct ter_trans *trans, void *arg)
{
	struct link *l = arg;
	struct ter_key old_dir, old;
	int r;

	r = ter_inode_stage_begin(trans, l->dir, &old_dir, &l->dir_attr);
	if (r >= 0)
		r = ter_inode_stage_begin(trans, l->inode, &old, &l->attr);
	if (r >= 0)
		r = ter_dir_may_change(&l->dir_attr, false);
	if (r < 0)
		return r;
	/* As Linux: a name that exists is told before what is wrong with the inode. */
	r = ter_dirent_add(trans, l->pos, l->name, l->name_bytes, l->inode->file.inum, ter_mode_type(l->attr.mode));
	if (r >= 0)
		r = may_link(&l->attr);
	if (r >= 0 && !l->attr.nlink)
		r = ter_orphan_stage(trans, l->inode, false);
	if (r < 0)
		return r;
	l->attr.nlink++;
	l->attr.flags &= ~(uint32_t)TER_IFLAG_LINKABLE;
	l->attr.ctime_ns = l->now;
	l->attr.parent_inum = l->dir->file.inum;
	l->attr.parent_offset = l->pos.offset;
	l->dir_attr.size++;
	l->dir_attr.mtime_ns = l->dir_attr.ctime_ns = l->now;
	r = ter_inode_stage_end(trans, l->dir, &old_dir, &l->dir_attr);
	if (r >= 0)
		r = ter_inode_stage_end(trans, l->inode, &old, &l->attr);
	return r < 0 ? r : ter_request_stage(trans, l->op, &l->request);
}

int ter_vfs_link(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, uint64_t parent, const char *name, struct ter_attr *ret_attr)
{
	_cleanup_(ter_inode_putp) struct ter_inode *dir = NULL;
	_cleanup_(ter_inode_putp) struct ter_inode *inode = NULL;
	struct link l = { .op = op, .name = name };
	struct ter_inode *locked[2];
	unsigned locked_nr = 2;
	uint64_t seq;
	int r;

	TER_VFS_ENTER(vfs);
	r = ter_name_check(name, &l.name_bytes);
	if (r < 0)
		return r;
	r = ter_inode_get_node(vfs, parent, op->nowait, &dir);
	if (r >= 0)
		r = ter_inode_get_node(vfs, node, op->nowait, &inode);
	if (r < 0)
		return r;
	if (!S_ISDIR(dir->type))
		return -ENOTDIR;
	if (S_ISDIR(inode->type))
		return -EPERM;
	locked[0] = l.dir = dir;
	locked[1] = l.inode = inode;
	r = ter_inodes_lock(locked, &locked_nr, op->nowait);
	if (r < 0)
		return r;
	l.pos = ter_dirent_pos(vfs, dir, name, l.name_bytes);
	l.now = ter_vfs_now(vfs);
	r = ter_trans_run(vfs->config.btrees, ter_op_trans_flags(op), link_fn, &l, &seq);
	if (r >= 0) {
		ter_inode_committed(dir, &l.dir_attr, false, seq);
		ter_inode_committed(inode, &l.attr, false, seq);
		if (l.attr.nlink == 1)
			ter_orphan_unpin(inode);
		if (ret_attr)
			ter_inode_fill(inode, ret_attr);
	}
	ter_inodes_unlock(locked, locked_nr);
	return r < 0 ? r : 0;
}

/* --- unlink, rmdir --- */

struct unlink {
	const struct ter_op *op;
	struct ter_inode *dir, *inode;
	struct ter_pos pos;
	const char *name;
	size_t name_bytes;
	int64_t now;
	struct ter_inode_attr dir_attr, attr; /* results */
	struct ter_request_stage request;
};

static int stage_gone_dir(struct ter_trans *trans, struct unlink *u)
{
	int r = ter_dir_is_empty(trans, u->inode);

	if (r < 0)
		return r;
	if (!r)
		return -ENOTEMPTY;
	if (u->dir_attr.nlink <= 2)
		return -EUCLEAN;
	u->dir_attr.nlink--;
	u->attr.nlink = 0;
	return 0;
}

static int unlink_fn(struct ter_trans *trans, void *arg)
{
	struct unlink *u = arg;
	struct ter_key old_dir, old;
	uint64_t inum;
	uint8_t type;
	int r;

	r = ter_inode_stage_begin(trans, u->dir, &old_dir, &u->dir_attr);
	if (r >= 0)
		r = ter_dir_may_change(&u->dir_attr, true);
	if (r >= 0)
		r = ter_dirent_find(trans, u->pos, u->name, u->name_bytes, &inum, &type);
	if (r < 0)
		return r;
	if (inum != u->inode->file.inum)
		return TER_NAMES_CHANGED;
	r = ter_inode_stage_begin(trans, u->inode, &old, &u->attr);
	if (r < 0)
		return r == -ESTALE ? -EUCLEAN : r;
	if (u->attr.flags & (TER_INODE_IMMUTABLE | TER_INODE_APPEND))
		return -EPERM;
	if (!u->attr.nlink || !u->dir_attr.size)
		return -EUCLEAN;
	if (S_ISDIR(u->attr.mode)) {
		r = stage_gone_dir(trans, u);
		if (r < 0)
			return r;
	} else {
		u->attr.nlink--;
	}
	r = ter_dirent_remove(trans, u->pos, u->name, u->name_bytes);
	if (r >= 0 && !u->attr.nlink)
		r = ter_orphan_stage(trans, u->inode, true);
	if (r < 0)
		return r;
	u->attr.ctime_ns = u->now;
	if (u->attr.parent_inum == u->pos.inode && u->attr.parent_offset == u->pos.offset && !S_ISDIR(u->attr.mode))
		u->attr.parent_inum = u->attr.parent_offset = 0;
	u->dir_attr.size--;
	u->dir_attr.mtime_ns = u->dir_attr.ctime_ns = u->now;
	r = ter_inode_stage_end(trans, u->dir, &old_dir, &u->dir_attr);
	if (r >= 0)
		r = ter_inode_stage_end(trans, u->inode, &old, &u->attr);
	return r < 0 ? r : ter_request_stage(trans, u->op, &u->request);
}

static int unlink_locked(struct ter_vfs *vfs, struct unlink *u, uint64_t *ret_orphan)
{
	uint64_t seq;
	int r;

	u->now = ter_vfs_now(vfs);
	r = ter_trans_run(vfs->config.btrees, ter_op_trans_flags(u->op), unlink_fn, u, &seq);
	if (r < 0)
		return r;
	ter_inode_committed(u->dir, &u->dir_attr, false, seq);
	ter_inode_committed(u->inode, &u->attr, false, seq);
	if (!u->attr.nlink) {
		ter_orphan_pin(u->inode);
		if (ret_orphan)
			*ret_orphan = ter_inode_node(u->inode);
	}
	return 0;
}

/* One try: the name leads somewhere, lock that and the directory, and see whether it still does. */
static int unlink_once(struct ter_vfs *vfs, struct unlink *u, bool want_dir, uint64_t *ret_orphan)
{
	_cleanup_(ter_inode_putp) struct ter_inode *inode = NULL;
	struct ter_inode *locked[2];
	unsigned locked_nr = 2;
	uint64_t inum;
	uint8_t type;
	int r;

	r = ter_dir_lookup(vfs, u->op, u->dir, u->name, u->name_bytes, &inum, &type);
	if (r < 0)
		return r;
	r = ter_inode_get(vfs, inum, u->dir->file.snapshot, u->op->nowait, &inode);
	if (r < 0)
		return r == -ESTALE ? TER_NAMES_CHANGED : r;
	if (want_dir != S_ISDIR(inode->type))
		return want_dir ? -ENOTDIR : -EISDIR;
	u->inode = inode;
	locked[0] = u->dir;
	locked[1] = inode;
	r = ter_inodes_lock(locked, &locked_nr, u->op->nowait);
	if (r < 0)
		return r == -ESTALE ? TER_NAMES_CHANGED : r;
	r = unlink_locked(vfs, u, ret_orphan);
	ter_inodes_unlock(locked, locked_nr);
	return r;
}

static int remove_name(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, const char *name, bool want_dir, uint64_t *ret_orphan)
{
	_cleanup_(ter_inode_putp) struct ter_inode *dir = NULL;
	struct unlink u = { .op = op, .name = name };
	int r;

	if (ret_orphan)
		*ret_orphan = 0;
	TER_VFS_ENTER(vfs);
	r = ter_name_check(name, &u.name_bytes);
	if (r == -EEXIST)
		return want_dir ? name[1] ? -ENOTEMPTY : -EINVAL : -EISDIR;
	if (r < 0)
		return r;
	r = ter_inode_get_node(vfs, parent, op->nowait, &dir);
	if (r < 0)
		return r;
	if (!S_ISDIR(dir->type))
		return -ENOTDIR;
	u.dir = dir;
	u.pos = ter_dirent_pos(vfs, dir, name, u.name_bytes);
	for (unsigned i = 0; i < TER_NAMES_RETRIES_MAX; i++) {
		r = unlink_once(vfs, &u, want_dir, ret_orphan);
		if (r != TER_NAMES_CHANGED)
			return r;
	}
	return -EUCLEAN; /* an entry whose inode does not exist: fsck tells which */
}

int ter_vfs_unlink(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, const char *name, uint64_t *ret_orphan)
{
	return remove_name(vfs, op, parent, name, false, ret_orphan);
}

int ter_vfs_rmdir(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, const char *name, uint64_t *ret_orphan)
{
	return remove_name(vfs, op, parent, name, true, ret_orphan);
}
