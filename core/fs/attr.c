/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attributes: telling and setting them, truncation among them. */
#include "fs/acl.h"
#include "fs/vfs_priv.h"

#define CAPABILITY "security.capability"

int ter_vfs_getattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, struct ter_attr *ret_attr)
{
	struct ter_inode *inode;
	int r;

	r = ter_inode_get_node(vfs, node, op->nowait, &inode);
	if (r < 0)
		return r;
	if (ret_attr)
		ter_inode_fill(inode, ret_attr);
	ter_inode_put(inode);
	return 0;
}

/* --- set-id bits and capabilities --- */

static uint32_t without_priv(uint32_t mode)
{
	mode &= ~(uint32_t)S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~(uint32_t)S_ISGID; /* without it set-gid means mandatory locking, of old */
	return mode;
}

bool ter_inode_has_priv(const struct ter_inode_attr *attr)
{
	return !S_ISDIR(attr->mode) && (attr->mode != without_priv(attr->mode) || attr->flags & TER_IFLAG_XATTRS);
}

static int stage_kill_priv(struct ter_trans *trans, struct ter_inode *inode, struct ter_inode_attr *attr)
{
	int r;

	if (!ter_inode_has_priv(attr))
		return 0;
	attr->mode = without_priv(attr->mode);
	if (!(attr->flags & TER_IFLAG_XATTRS))
		return 0;
	r = ter_xattr_stage(trans, inode, CAPABILITY, NULL, 0, 0);
	return r == -ENODATA ? 0 : r;
}

struct kill_priv {
	struct ter_inode *inode;
	struct ter_inode_attr attr;
};

static int kill_priv_fn(struct ter_trans *trans, void *arg)
{
	struct kill_priv *k = arg;
	struct ter_key old;
	int r;

	r = ter_inode_stage_begin(trans, k->inode, &old, &k->attr);
	if (r >= 0)
		r = stage_kill_priv(trans, k->inode, &k->attr);
	return r < 0 ? r : ter_inode_stage_end(trans, k->inode, &old, &k->attr);
}

int ter_inode_kill_priv(struct ter_inode *inode, unsigned flags)
{
	struct kill_priv k = { .inode = inode };
	uint64_t seq;
	int r;

	r = ter_trans_run(inode->vfs->config.btrees, flags, kill_priv_fn, &k, &seq);
	if (r >= 0)
		ter_inode_committed(inode, &k.attr, false, seq);
	return r;
}

/* --- setattr --- */

struct setattr {
	struct ter_inode *inode;
	const struct ter_op *op;
	const struct ter_attr *set;
	unsigned valid;
	int64_t now;
	bool truncate;              /* the size shrinks: extents go, in several transactions */
	struct ter_inode_attr attr; /* result */
	uint64_t size_before;
	struct ter_request_stage request;
};

static int check_flags(const struct ter_inode_attr *attr, unsigned valid)
{
	const unsigned now_only = TER_SET_ATIME | TER_SET_MTIME | TER_SET_ATIME_NOW | TER_SET_MTIME_NOW | TER_SET_CTIME;

	if (valid == TER_SET_FLAGS || !(attr->flags & (TER_INODE_IMMUTABLE | TER_INODE_APPEND)))
		return 0; /* whether the caller may change the flags is judged above us */
	if (attr->flags & TER_INODE_IMMUTABLE)
		return -EPERM;
	if (valid & ~now_only)
		return -EPERM;
	/* Append-only: times may become now, not anything. */
	return (valid & TER_SET_ATIME && !(valid & TER_SET_ATIME_NOW)) || (valid & TER_SET_MTIME && !(valid & TER_SET_MTIME_NOW)) ? -EPERM : 0;
}

static int stage_chmod_acl(struct ter_trans *trans, struct ter_inode *inode, uint32_t mode)
{
	_cleanup_free_ void *acl = NULL;
	const void *value;
	size_t bytes;
	int r;

	r = ter_xattr_read(trans, inode, TER_ACL_ACCESS, &value, &bytes);
	if (r < 0)
		return r == -ENODATA ? 0 : r;
	acl = ter_memdup(value, bytes);
	if (!acl)
		return -ENOMEM;
	r = ter_acl_chmod(acl, bytes, mode);
	if (r < 0)
		return -EUCLEAN;
	return ter_xattr_stage(trans, inode, TER_ACL_ACCESS, acl, bytes, 0);
}

static void change_times(const struct setattr *s, struct ter_inode_attr *a)
{
	if (s->valid & TER_SET_ATIME_NOW)
		a->atime_ns = s->now;
	else if (s->valid & TER_SET_ATIME)
		a->atime_ns = ter_ns_of(s->set->atime);
	if (s->valid & TER_SET_MTIME_NOW)
		a->mtime_ns = s->now;
	else if (s->valid & TER_SET_MTIME)
		a->mtime_ns = ter_ns_of(s->set->mtime);
	else if (s->valid & TER_SET_SIZE)
		a->mtime_ns = s->now;
	a->ctime_ns = s->valid & TER_SET_CTIME ? ter_ns_of(s->set->ctime) : s->now;
}

static int change_attrs(struct ter_trans *trans, struct setattr *s)
{
	struct ter_inode_attr *a = &s->attr;
	int r;

	r = check_flags(a, s->valid);
	if (r < 0)
		return r;
	if (s->op->kill_priv && (!(s->valid & ~(unsigned)TER_SET_CTIME) || s->valid & (TER_SET_UID | TER_SET_GID | TER_SET_SIZE))) {
		r = stage_kill_priv(trans, s->inode, a);
		if (r < 0)
			return r;
	}
	if (s->valid & TER_SET_UID)
		a->uid = s->set->uid;
	if (s->valid & TER_SET_GID)
		a->gid = s->set->gid;
	if (s->valid & TER_SET_MODE) {
		a->mode = (a->mode & S_IFMT) | (s->set->mode & 07777);
		if (a->flags & TER_IFLAG_XATTRS) {
			r = stage_chmod_acl(trans, s->inode, a->mode);
			if (r < 0)
				return r;
		}
	}
	if (s->valid & TER_SET_FLAGS)
		a->flags = (a->flags & ~(uint32_t)TER_INODE_FLAGS_SETTABLE) | (s->set->flags & TER_INODE_FLAGS_SETTABLE);
	if (s->valid & TER_SET_SIZE)
		a->size = s->set->size;
	change_times(s, a);
	return 0;
}

static int setattr_fn(struct ter_trans *trans, void *arg)
{
	struct setattr *s = arg;
	struct ter_key old;
	int r;

	r = ter_inode_stage_begin(trans, s->inode, &old, &s->attr);
	if (r >= 0)
		r = change_attrs(trans, s);
	if (r >= 0 && s->truncate)
		r = ter_orphan_stage(trans, s->inode, true);
	if (r >= 0)
		r = ter_request_stage(trans, s->op, &s->request);
	if (r < 0)
		return r;
	/* From here on write-back may not put a size beyond the new one on disk. */
	if (s->truncate)
		ter_inode_set_size(s->inode, s->attr.size);
	return ter_inode_stage_end(trans, s->inode, &old, &s->attr);
}

static int truncated_fn(struct ter_trans *trans, void *arg)
{
	struct setattr *s = arg;

	/* The mark of an inode without a name stays. */
	return s->attr.nlink ? ter_orphan_stage(trans, s->inode, false) : 0;
}

/* Several transactions; the first sets the size, and a mark by which the rest is done after a crash. */
static int truncate_down(struct ter_vfs *vfs, struct setattr *s)
{
	struct ter_inode *inode = s->inode;
	struct ter_inode_attr key;
	int r;

	s->truncate = true;
	r = ter_file_punch(vfs->config.data, &inode->file, s->set->size, TER_FILE_END, setattr_fn, truncated_fn, s);
	if (r >= 0) {
		ter_inode_committed(inode, &s->attr, true, 0);
		return 0;
	}
	/* How far did it come? The key knows. */
	if (ter_inode_read_key(vfs, ter_inode_pos(inode), 0, &key) >= 0 && key.size == s->set->size && key.ctime_ns == s->attr.ctime_ns) {
		ter_inode_committed(inode, &key, true, 0);
		return r;
	}
	ter_inode_set_size(inode, s->size_before);
	return r;
}

static int check_size(const struct ter_inode *inode, const struct ter_attr *set)
{
	if (S_ISDIR(inode->type))
		return -EISDIR;
	if (!S_ISREG(inode->type))
		return -EINVAL;
	return set->size > (uint64_t)TER_FILE_SIZE_MAX ? -EFBIG : 0;
}

static int setattr_locked(struct ter_vfs *vfs, struct setattr *s)
{
	struct ter_inode *inode = s->inode;
	const struct ter_inode_attr now = ter_inode_attr(inode);
	uint64_t seq;
	int r;

	s->size_before = now.size;
	r = check_flags(&now, s->valid);
	if (r < 0)
		return r;
	if (s->valid & TER_SET_SIZE && s->set->size < now.size) {
		if (s->op->nowait)
			return -EAGAIN;
		return truncate_down(vfs, s);
	}
	r = ter_trans_run(vfs->config.btrees, ter_op_trans_flags(s->op), setattr_fn, s, &seq);
	if (r >= 0)
		ter_inode_committed(inode, &s->attr, s->valid & TER_SET_SIZE, seq);
	return r;
}

int ter_vfs_setattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, const struct ter_attr *attr, unsigned valid, struct ter_attr *ret_attr)
{
	_cleanup_(ter_inode_putp) struct ter_inode *inode = NULL;
	struct setattr s = { .op = op, .set = attr, .valid = valid };
	int r;

	TER_VFS_ENTER(vfs);
	r = ter_inode_get_node(vfs, node, op->nowait, &inode);
	if (r < 0)
		return r;
	if (valid & TER_SET_SIZE) {
		r = check_size(inode, attr);
		if (r < 0)
			return r;
	}
	if (valid & TER_SET_MODE && S_ISLNK(inode->type))
		return -EOPNOTSUPP;
	r = ter_inode_lock(inode, op->nowait);
	if (r < 0)
		return r;
	s.inode = inode;
	s.now = ter_vfs_now(vfs);
	r = valid || op->kill_priv ? setattr_locked(vfs, &s) : 0;
	if (r >= 0 && ret_attr)
		ter_inode_fill(inode, ret_attr);
	ter_inode_unlock(inode);
	return r < 0 ? r : 0;
}
