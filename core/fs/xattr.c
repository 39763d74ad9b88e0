/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Extended attributes of an inode: reading, setting, listing, removing. */
#include <sys/xattr.h>

#include "fs/acl.h"
#include "fs/vfs_priv.h"
#include "fs/xattr_value.h"

#define XATTR_BYTES_MAX 65536u /* Linux' XATTR_SIZE_MAX: beyond, -E2BIG */

/* Longest value of an XATTR key: several must fit a node. */
static size_t val_bytes_max(struct ter_vfs *vfs)
{
	return ter_min((size_t)TER_VAL_BYTES_MAX, (size_t)vfs->config.sb->sb->options.btree_node_size / 4);
}

static struct ter_pos xattr_pos(struct ter_inode *inode, const char *name)
{
	return TER_POS(inode->file.inum, ter_xattr_hash(inode->vfs->config.sb->sb->hash_key, name), inode->file.snapshot);
}

static int get_key(struct ter_trans *trans, struct ter_pos pos, struct ter_key *ret)
{
	int r = ter_trans_get(trans, TER_BTREE_XATTRS, pos, ret);

	return r < 0 ? r : ter_xattrs_check(ret);
}

int ter_xattr_read(struct ter_trans *trans, struct ter_inode *inode, const char *name, const void **ret_value, size_t *ret_bytes)
{
	struct ter_xattr parsed, x;
	struct ter_key key;
	int r;

	r = ter_xattr_name_parse(name, &parsed);
	if (r < 0)
		return r;
	r = get_key(trans, xattr_pos(inode, name), &key);
	if (r < 0)
		return r == -ENOENT ? -ENODATA : r;
	r = ter_xattrs_find(key.val, key.val_bytes, &parsed, &x);
	if (r < 0)
		return r;
	*ret_value = x.value;
	*ret_bytes = x.value_bytes;
	return 0;
}

static int stage_list(struct ter_trans *trans, struct ter_pos pos, const struct ter_key *old, const struct ter_xattr *name, const struct ter_xattr *x)
{
	_cleanup_free_ void *dst = NULL;
	const bool absent = old == TER_KEY_ABSENT;
	struct ter_key key = { .pos = pos, .type = TER_KEY_XATTR };
	int r;

	dst = ter_malloc((absent ? 0 : old->val_bytes) + (x ? ter_xattr_bytes(x) : 0) + 1);
	if (!dst)
		return -ENOMEM;
	r = ter_xattrs_set(absent ? NULL : old->val, absent ? 0 : old->val_bytes, name, x, dst);
	if (r < 0)
		return r;
	key.val = dst;
	key.val_bytes = (uint32_t)r;
	return ter_trans_update(trans, TER_BTREE_XATTRS, pos, old, key.val_bytes ? &key : NULL);
}

int ter_xattr_stage(struct ter_trans *trans, struct ter_inode *inode, const char *name, const void *value, size_t bytes, int flags)
{
	struct ter_pos pos = xattr_pos(inode, name);
	struct ter_xattr x, found;
	const struct ter_key *old;
	struct ter_key key;
	size_t rest = 0;
	bool exists;
	int r;

	r = ter_xattr_name_parse(name, &x);
	if (r < 0)
		return r;
	r = get_key(trans, pos, &key);
	if (r < 0 && r != -ENOENT)
		return r;
	old = r == -ENOENT ? TER_KEY_ABSENT : &key;
	r = r == -ENOENT ? -ENODATA : ter_xattrs_find(key.val, key.val_bytes, &x, &found);
	if (r < 0 && r != -ENODATA)
		return r;
	exists = r >= 0;
	if (!exists && (!value || flags & XATTR_REPLACE))
		return -ENODATA;
	if (exists && value && flags & XATTR_CREATE)
		return -EEXIST;
	if (!value)
		return stage_list(trans, pos, old, &x, NULL);

	if (old != TER_KEY_ABSENT)
		rest = key.val_bytes - (exists ? ter_xattr_bytes(&found) : 0);
	x.value = value;
	x.value_bytes = (uint32_t)bytes;
	if (rest + ter_xattr_bytes(&x) > val_bytes_max(inode->vfs))
		return -ENOSPC;
	return stage_list(trans, pos, old, &x, &x);
}

int ter_xattrs_stage_delete(struct ter_trans *trans, struct ter_pos inode, unsigned max)
{
	const struct ter_pos to = TER_POS(inode.inode, UINT64_MAX, inode.snapshot);
	struct ter_pos from = TER_POS(inode.inode, 0, inode.snapshot);
	struct ter_key key;
	unsigned nr = 0;
	int r;

	while (nr < max) {
		r = ter_trans_next(trans, TER_BTREE_XATTRS, from, to, &key);
		if (r == -ENOENT)
			break;
		if (r < 0)
			return r;
		r = ter_trans_update(trans, TER_BTREE_XATTRS, key.pos, &key, NULL);
		if (r < 0)
			return r;
		nr++;
		if (key.pos.offset == UINT64_MAX)
			break;
		from.offset = key.pos.offset + 1;
	}
	return (int)nr;
}

/* --- setting and removing --- */

struct set_xattr {
	struct ter_inode *inode;
	const struct ter_op *op;
	const char *name;
	const void *value; /* NULL: remove */
	size_t bytes;
	int flags;
	int64_t now;
	struct ter_inode_attr attr; /* result */
	struct ter_request_stage request;
};

/* The access list moves permission bits; one that says no more than they do is not kept. *ret_value becomes NULL then. */
static int apply_access_acl(const struct set_xattr *s, struct ter_inode_attr *attr, const void **ret_value)
{
	uint32_t perm;
	int r;

	r = ter_acl_to_mode(s->value, s->bytes, &perm);
	if (r < 0)
		return r;
	attr->mode = (attr->mode & ~0777u) | perm;
	/* As Linux: setting the list drops set-gid when the caller is not of the group. Whom we cannot judge, the kernel does; kill_priv is its word. */
	if (s->op->kill_priv)
		attr->mode &= ~(uint32_t)S_ISGID;
	if (r == 1)
		*ret_value = NULL;
	return 0;
}

static int set_fn(struct ter_trans *trans, void *arg)
{
	struct set_xattr *s = arg;
	const void *value = s->value;
	struct ter_key old;
	int r;

	r = ter_inode_stage_begin(trans, s->inode, &old, &s->attr);
	if (r < 0)
		return r;
	if (s->attr.flags & (TER_INODE_IMMUTABLE | TER_INODE_APPEND))
		return -EPERM;
	if (value && !strcmp(s->name, TER_ACL_ACCESS)) {
		r = apply_access_acl(s, &s->attr, &value);
		if (r < 0)
			return r;
	}
	r = ter_xattr_stage(trans, s->inode, s->name, value, s->bytes, s->flags);
	if (r == -ENODATA && s->value && !value)
		r = 0; /* the list became permission bits, and there was none to remove */
	if (r < 0)
		return r;
	if (value)
		s->attr.flags |= TER_IFLAG_XATTRS;
	s->attr.ctime_ns = s->now;
	r = ter_request_stage(trans, s->op, &s->request);
	return r < 0 ? r : ter_inode_stage_end(trans, s->inode, &old, &s->attr);
}

static bool is_acl(const char *name)
{
	return !strcmp(name, TER_ACL_ACCESS) || !strcmp(name, TER_ACL_DEFAULT);
}

static int check_acl_set(const struct ter_inode *inode, const struct set_xattr *s)
{
	const bool access = !strcmp(s->name, TER_ACL_ACCESS), def = !strcmp(s->name, TER_ACL_DEFAULT);

	if (!access && !def)
		return 0;
	if (S_ISLNK(inode->type))
		return -EOPNOTSUPP;
	if (!s->value)
		return 0;
	if (def && !S_ISDIR(inode->type))
		return -EACCES;
	return ter_acl_check(s->value, s->bytes);
}

static int change_xattr(struct ter_vfs *vfs, uint64_t node, struct set_xattr *s)
{
	_cleanup_(ter_inode_putp) struct ter_inode *inode = NULL;
	struct ter_xattr parsed;
	uint64_t seq;
	int r;

	TER_VFS_ENTER(vfs);
	r = ter_xattr_name_parse(s->name, &parsed);
	if (r < 0)
		return r;
	r = ter_inode_get_node(vfs, node, s->op->nowait, &inode);
	if (r < 0)
		return r;
	r = check_acl_set(inode, s);
	if (r < 0)
		return r;
	r = ter_inode_lock(inode, s->op->nowait);
	if (r < 0)
		return r;
	s->inode = inode;
	s->now = ter_vfs_now(vfs);
	r = ter_trans_run(vfs->config.btrees, ter_op_trans_flags(s->op), set_fn, s, &seq);
	if (r >= 0)
		ter_inode_committed(inode, &s->attr, false, seq);
	ter_inode_unlock(inode);
	return r < 0 ? r : 0;
}

int ter_vfs_setxattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, const char *name, const void *value, size_t size, int flags)
{
	struct set_xattr s = { .op = op, .name = name, .value = size ? value : "", .bytes = size, .flags = flags };

	if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	if (size > XATTR_BYTES_MAX)
		return -E2BIG;
	if (!size && is_acl(name))
		return ter_vfs_removexattr(vfs, op, node, name); /* an empty list is none */
	return change_xattr(vfs, node, &s);
}

int ter_vfs_removexattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, const char *name)
{
	struct set_xattr s = { .op = op, .name = name };
	int r = change_xattr(vfs, node, &s);

	return r == -ENODATA && is_acl(name) ? 0 : r;
}

/* --- reading --- */

ssize_t ter_vfs_getxattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, const char *name, void *value, size_t size)
{
	_cleanup_(ter_inode_putp) struct ter_inode *inode = NULL;
	struct ter_xattr parsed;
	struct ter_trans trans;
	const void *found;
	size_t bytes = 0;
	int r;

	r = ter_xattr_name_parse(name, &parsed);
	if (r < 0)
		return r;
	r = ter_inode_get_node(vfs, node, op->nowait, &inode);
	if (r < 0)
		return r;
	if (!(ter_inode_attr(inode).flags & TER_IFLAG_XATTRS))
		return -ENODATA;
	ter_trans_init(&trans, vfs->config.btrees, ter_op_trans_flags(op));
	r = ter_xattr_read(&trans, inode, name, &found, &bytes);
	if (r >= 0 && size) {
		if (bytes > size)
			r = -ERANGE;
		else if (bytes)
			memcpy(value, found, bytes);
	}
	ter_trans_exit(&trans);
	return r < 0 ? r : (ssize_t)bytes;
}

struct list_xattrs {
	char *list;
	size_t size, used;
	bool trusted;
};

static int list_one(struct list_xattrs *l, const struct ter_xattr *x)
{
	const char *prefix = ter_xattr_prefix(x->ns);
	size_t prefix_bytes = strlen(prefix), bytes = prefix_bytes + x->name_bytes + 1;

	if (!strcmp(prefix, "trusted.") && !l->trusted)
		return 0;
	if (l->size) {
		if (bytes > l->size - l->used)
			return -ERANGE;
		memcpy(l->list + l->used, prefix, prefix_bytes);
		memcpy(l->list + l->used + prefix_bytes, x->name, x->name_bytes);
		l->list[l->used + bytes - 1] = '\0';
	}
	l->used += bytes;
	return 0;
}

static int list_key(void *arg, const struct ter_key *key)
{
	struct ter_xattr x;
	uint32_t pos = 0;
	int r;

	r = ter_xattrs_check(key);
	if (r < 0)
		return r;
	while ((r = ter_xattrs_next(key->val, key->val_bytes, &pos, &x)) > 0) {
		r = list_one(arg, &x);
		if (r < 0)
			return r;
	}
	return r;
}

ssize_t ter_vfs_listxattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, char *list, size_t size)
{
	_cleanup_(ter_inode_putp) struct ter_inode *inode = NULL;
	struct list_xattrs l = { .list = list, .size = size, .trusted = op->uid == 0 };
	const struct ter_file *f;
	int r;

	r = ter_inode_get_node(vfs, node, op->nowait, &inode);
	if (r < 0)
		return r;
	if (!(ter_inode_attr(inode).flags & TER_IFLAG_XATTRS))
		return 0;
	/* One picture of all: no change between two leaves. */
	r = ter_inode_lock_shared(inode, op->nowait);
	if (r < 0)
		return r;
	f = &inode->file;
	r = ter_btree_scan(vfs->config.btrees, TER_BTREE_XATTRS, TER_POS(f->inum, 0, f->snapshot), TER_POS(f->inum, UINT64_MAX, f->snapshot),
			   ter_op_trans_flags(op), list_key, &l, NULL);
	ter_inode_unlock_shared(inode);
	return r < 0 ? r : (ssize_t)l.used;
}
