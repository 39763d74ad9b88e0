/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names: looking up, and making new inodes of every kind. */
#include "fs/acl.h"
#include "fs/vfs_priv.h"

/* --- lookup --- */

static int lookup_dots(struct ter_vfs *vfs, const struct ter_op *op, struct ter_inode *dir, bool up, struct ter_attr *ret_attr)
{
	_cleanup_(ter_inode_putp) struct ter_inode *parent = NULL;
	struct ter_inode_attr attr = ter_inode_attr(dir);
	int r;

	if (up && !ter_attr_is_dir(&attr))
		return -ENOTDIR;
	if (!up && !attr.nlink)
		return -ESTALE; /* the kernel knows what somebody has open, and does not ask */
	if (up) {
		r = ter_inode_get(vfs, attr.parent_inum, dir->file.snapshot, op->nowait, &parent);
		if (r < 0)
			return r;
	}
	if (ret_attr)
		ter_inode_fill(parent ? parent : dir, ret_attr);
	return 0;
}

int ter_vfs_lookup(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, const char *name, struct ter_attr *ret_attr)
{
	_cleanup_(ter_inode_putp) struct ter_inode *dir = NULL;
	_cleanup_(ter_inode_putp) struct ter_inode *inode = NULL;
	uint64_t inum;
	uint8_t type;
	size_t bytes;
	int r;

	r = ter_inode_get_node(vfs, parent, op->nowait, &dir);
	if (r < 0)
		return r;
	r = ter_name_check(name, &bytes);
	if (r == -EEXIST)
		return lookup_dots(vfs, op, dir, name[1] == '.', ret_attr);
	if (r < 0)
		return r == -EINVAL ? -ENOENT : r; /* a name with a slash: no such one */
	r = ter_dir_lookup(vfs, op, dir, name, bytes, &inum, &type);
	if (r < 0)
		return r;
	r = ter_inode_get(vfs, inum, dir->file.snapshot, op->nowait, &inode);
	if (r < 0)
		return r == -ESTALE ? -ENOENT : r; /* reaped since */
	if (ret_attr)
		ter_inode_fill(inode, ret_attr);
	return 0;
}

int ter_vfs_readlink(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, char buf[TER_SYMLINK_MAX + 1])
{
	_cleanup_(ter_inode_putp) struct ter_inode *inode = NULL;
	const struct ter_file *f;
	struct ter_trans trans;
	struct ter_key key;
	uint64_t size;
	int r;

	r = ter_inode_get_node(vfs, node, op->nowait, &inode);
	if (r < 0)
		return r;
	if (!S_ISLNK(inode->type))
		return -EINVAL;
	size = ter_inode_attr(inode).size;
	f = &inode->file;
	ter_trans_init(&trans, vfs->config.btrees, ter_op_trans_flags(op));
	r = ter_trans_next(&trans, TER_BTREE_EXTENTS, TER_POS(f->inum, 0, f->snapshot), TER_POS(f->inum, UINT64_MAX, f->snapshot), &key);
	if (r == -ENOENT || (r >= 0 && (key.type != TER_KEY_INLINE_DATA || key.val_bytes != size || size > TER_SYMLINK_MAX || memchr(key.val, '\0', size))))
		r = -EUCLEAN;
	if (r >= 0) {
		memcpy(buf, key.val, size);
		buf[size] = '\0';
	}
	ter_trans_exit(&trans);
	if (r < 0)
		return r;
	if (!op->noatime)
		ter_inode_touch_atime(inode);
	return 0;
}

/* --- new inodes --- */

int ter_new_inode_init(struct ter_inode *dir, const struct ter_op *op, uint32_t mode, uint32_t rdev, int64_t now, struct ter_new_inode *ret)
{
	struct ter_vfs *vfs = dir->vfs;
	const struct ter_inode_attr parent = ter_inode_attr(dir);
	const bool setgid = parent.mode & S_ISGID;
	uint64_t inum;

	inum = ter_inum_take(dir);
	if (!inum)
		return -ENOSPC;
	*ret = (struct ter_new_inode){
		.inode = ter_inode_new(vfs, inum, dir->file.snapshot),
		.attr = {
			.mode = mode | (setgid && S_ISDIR(mode) ? S_ISGID : 0),
			.uid = op->uid,
			.gid = setgid ? parent.gid : op->gid,
			.nlink = S_ISDIR(mode) ? 2 : 1,
			.rdev = S_ISCHR(mode) || S_ISBLK(mode) ? rdev : 0,
			.project = parent.project,
			.flags = parent.flags & (TER_INODE_SYNC | TER_INODE_NODUMP | TER_INODE_NOATIME),
			.atime_ns = now, .mtime_ns = now, .ctime_ns = now, .btime_ns = now,
		},
	};
	return ret->inode ? 0 : -ENOMEM;
}

int ter_new_inode_stage(struct ter_trans *trans, struct ter_new_inode *new_inode)
{
	struct ter_inode *inode = new_inode->inode;
	struct ter_inode_disk disk;
	struct ter_key key = { .pos = ter_inode_pos(inode), .type = TER_KEY_INODE, .val_bytes = sizeof(disk), .val = &disk };
	const int64_t one = 1;
	int r;

	ter_inode_encode(&new_inode->attr, &disk);
	r = ter_trans_update(trans, TER_BTREE_INODES, key.pos, TER_KEY_ABSENT, &key);
	if (r < 0)
		return r;
	r = ter_trans_add(trans, ter_counter_inodes(), &one, 1);
	if (r < 0)
		return r;
	return ter_inum_stage(inode->vfs, trans, inode->file.inum, &new_inode->inum);
}

/* After the commit: into the cache. Returns the inode to use and put. */
static struct ter_inode *new_inode_committed(struct ter_new_inode *new_inode, uint64_t seq)
{
	struct ter_inode *inode = TAKE_PTR(new_inode->inode);

	ter_inum_committed(inode->vfs, &new_inode->inum);
	inode->attr = new_inode->attr;
	inode->type = inode->attr.mode & S_IFMT;
	inode->file.size = inode->attr.size;
	inode->file.last_seq = seq;
	return ter_inode_publish(inode);
}

static void new_inode_release(struct ter_new_inode *new_inode)
{
	if (new_inode->inode) {
		new_inode->inode->unhashed = true; /* nobody ever saw it */
		ter_inode_put(new_inode->inode);
	}
}

/* --- create --- */

struct create {
	struct ter_vfs *vfs;
	const struct ter_op *op;
	struct ter_inode *dir;
	struct ter_pos pos; /* of the entry; unused for a file without a name */
	const char *name;   /* NULL: O_TMPFILE */
	size_t name_bytes;
	uint32_t mode;      /* as asked for */
	const char *target;
	size_t target_bytes;
	int64_t now;
	struct ter_new_inode fresh;
	struct ter_inode_attr dir_attr; /* result */
	struct ter_request_stage request;
};

/* The parent's default list: goes to the new inode, and takes the place of the umask. */
static int inherit_acl(struct ter_trans *trans, struct create *c, uint32_t *mode)
{
	_cleanup_free_ void *acl = NULL;
	const void *value;
	size_t bytes;
	int r;

	r = ter_xattr_read(trans, c->dir, TER_ACL_DEFAULT, &value, &bytes);
	if (r == -ENODATA) {
		*mode &= ~(c->op->umask & 0777u);
		return 0;
	}
	if (r < 0)
		return r;
	acl = ter_memdup(value, bytes);
	if (!acl)
		return -ENOMEM;
	if (S_ISDIR(*mode)) {
		r = ter_xattr_stage(trans, c->fresh.inode, TER_ACL_DEFAULT, acl, bytes, 0);
		if (r < 0)
			return r;
		c->fresh.attr.flags |= TER_IFLAG_XATTRS;
	}
	r = ter_acl_inherit(acl, bytes, mode);
	if (r < 0)
		return r == -EINVAL || r == -EOPNOTSUPP ? -EUCLEAN : r;
	if (r == 1)
		return 0;
	c->fresh.attr.flags |= TER_IFLAG_XATTRS;
	return ter_xattr_stage(trans, c->fresh.inode, TER_ACL_ACCESS, acl, bytes, 0);
}

static int stage_mode(struct ter_trans *trans, struct create *c)
{
	uint32_t *mode = &c->fresh.attr.mode;
	const uint32_t setgid = *mode & S_ISGID;
	int r = 0;

	*mode = c->mode | setgid;
	c->fresh.attr.flags &= ~(uint32_t)TER_IFLAG_XATTRS; /* a restart begins afresh */
	if (S_ISLNK(*mode))
		return 0;
	if (c->dir_attr.flags & TER_IFLAG_XATTRS)
		r = inherit_acl(trans, c, mode);
	else
		*mode &= ~(c->op->umask & 0777u);
	return r;
}

static int stage_target(struct ter_trans *trans, struct create *c)
{
	const struct ter_file *f = &c->fresh.inode->file;
	const uint64_t sectors = ter_round_up(c->target_bytes, c->vfs->config.sb->sb->options.block_size) / TER_SECTOR_BYTES;
	const struct ter_key key = {
		.pos = TER_POS(f->inum, sectors, f->snapshot), .size = (uint32_t)sectors, .type = TER_KEY_INLINE_DATA,
		.val = c->target, .val_bytes = (uint32_t)c->target_bytes,
	};

	return ter_trans_update(trans, TER_BTREE_EXTENTS, key.pos, TER_KEY_ABSENT, &key);
}

static int stage_entry(struct ter_trans *trans, struct create *c)
{
	const struct ter_inode *inode = c->fresh.inode;
	struct ter_inode_attr *dir = &c->dir_attr;
	int r;

	r = ter_dirent_add(trans, c->pos, c->name, c->name_bytes, inode->file.inum, ter_mode_type(c->mode));
	if (r < 0)
		return r;
	c->fresh.attr.parent_inum = c->dir->file.inum;
	c->fresh.attr.parent_offset = c->pos.offset;
	dir->size++;
	dir->mtime_ns = dir->ctime_ns = c->now;
	if (S_ISDIR(c->mode)) {
		if (dir->nlink >= TER_LINK_MAX)
			return -EMLINK;
		dir->nlink++;
	}
	return 0;
}

static int create_fn(struct ter_trans *trans, void *arg)
{
	struct create *c = arg;
	struct ter_key old;
	int r;

	r = ter_inode_stage_begin(trans, c->dir, &old, &c->dir_attr);
	if (r < 0)
		return r;
	r = ter_dir_may_change(&c->dir_attr, false);
	if (r < 0)
		return r;
	if (c->name) {
		r = stage_entry(trans, c);
	} else {
		c->fresh.attr.nlink = 0;
		r = ter_orphan_stage(trans, c->fresh.inode, true);
	}
	if (r < 0)
		return r;
	r = stage_mode(trans, c);
	if (r < 0)
		return r;
	if (!c->name)
		c->fresh.attr.flags |= TER_IFLAG_LINKABLE;
	if (c->target) {
		r = stage_target(trans, c);
		if (r < 0)
			return r;
		c->fresh.attr.size = c->target_bytes;
	}
	r = ter_new_inode_stage(trans, &c->fresh);
	if (r < 0)
		return r;
	r = ter_request_stage(trans, c->op, &c->request);
	return r < 0 || !c->name ? r : ter_inode_stage_end(trans, c->dir, &old, &c->dir_attr);
}

static int create_locked(struct create *c, uint32_t rdev, struct ter_attr *ret_attr)
{
	struct ter_inode *inode;
	uint64_t seq;
	int r;

	c->now = ter_vfs_now(c->vfs);
	r = ter_new_inode_init(c->dir, c->op, c->mode, rdev, c->now, &c->fresh);
	if (r >= 0)
		r = ter_trans_run(c->vfs->config.btrees, ter_op_trans_flags(c->op), create_fn, c, &seq);
	if (r < 0) {
		new_inode_release(&c->fresh);
		return r;
	}
	inode = new_inode_committed(&c->fresh, seq);
	if (c->name)
		ter_inode_committed(c->dir, &c->dir_attr, false, seq);
	else
		ter_orphan_pin(inode);
	if (ret_attr)
		ter_inode_fill(inode, ret_attr);
	ter_inode_put(inode);
	return 0;
}

static int create(struct create *c, uint64_t parent, uint32_t rdev, struct ter_attr *ret_attr)
{
	_cleanup_(ter_inode_putp) struct ter_inode *dir = NULL;
	int r;

	r = ter_inode_get_node(c->vfs, parent, c->op->nowait, &dir);
	if (r < 0)
		return r;
	r = ter_inode_lock(dir, c->op->nowait);
	if (r < 0)
		return r;
	c->dir = dir;
	if (c->name)
		c->pos = ter_dirent_pos(c->vfs, dir, c->name, c->name_bytes);
	{
		const struct ter_inode_attr attr = ter_inode_attr(dir);

		r = ter_dir_may_change(&attr, false);
	}
	if (r >= 0)
		r = create_locked(c, rdev, ret_attr);
	ter_inode_unlock(dir);
	return r;
}

static int check_kind(uint32_t mode, const char *target, size_t *ret_target_bytes)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		return target || mode & ~(uint32_t)(S_IFMT | 07777) ? -EINVAL : 0;
	case S_IFLNK:
		if (!target)
			return -EINVAL;
		*ret_target_bytes = strnlen(target, TER_SYMLINK_MAX + 1);
		if (!*ret_target_bytes)
			return -ENOENT;
		return *ret_target_bytes > TER_SYMLINK_MAX ? -ENAMETOOLONG : 0;
	default:
		return -EINVAL;
	}
}

int ter_vfs_create(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, const char *name, uint32_t mode, uint32_t rdev, const char *target,
		   struct ter_attr *ret_attr)
{
	struct create c = { .vfs = vfs, .op = op, .name = name, .target = target };
	int r;

	TER_VFS_ENTER(vfs);
	if (!(mode & S_IFMT))
		mode |= S_IFREG;
	r = check_kind(mode, target, &c.target_bytes);
	if (r < 0)
		return r;
	r = ter_name_check(name, &c.name_bytes);
	if (r < 0)
		return r;
	c.mode = S_ISLNK(mode) ? S_IFLNK | 0777 : mode;
	return create(&c, parent, rdev, ret_attr);
}

int ter_vfs_tmpfile(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, uint32_t mode, struct ter_attr *ret_attr)
{
	struct create c = { .vfs = vfs, .op = op, .mode = S_IFREG | (mode & 07777) };

	TER_VFS_ENTER(vfs);
	if (mode & S_IFMT && !S_ISREG(mode))
		return -EINVAL;
	return create(&c, parent, 0, ret_attr);
}
