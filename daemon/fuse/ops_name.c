/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names: lookup, forget, creating, linking, removing, renaming. */
#include "fuse/ops_util.h"

void td_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct td_session *s = td_req_session(req);
	struct ter_attr attr;
	struct ter_op op;
	int r;

	td_op_init(req, &op);
	r = ter_vfs_lookup(s->vfs, &op, td_node(parent), name, &attr);
	if (r == -ENOENT) {
		/* A negative entry: the kernel need not ask again until the name is made here. */
		const struct fuse_entry_param none = { .entry_timeout = TD_CACHE_SECONDS };

		fuse_reply_entry(req, &none);
		return;
	}
	if (r < 0)
		td_reply_err(req, r);
	else
		td_reply_entry(req, &attr);
}

static void forget(struct td_session *s, fuse_ino_t ino, uint64_t nlookup)
{
	const uint64_t node = td_node(ino);

	if (td_lookups_forget(&s->lookups, node, nlookup))
		ter_vfs_forget(s->vfs, node);
}

void td_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	forget(td_req_session(req), ino, nlookup);
	fuse_reply_none(req);
}

void td_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget(td_req_session(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev, const char *target)
{
	struct td_session *s = td_req_session(req);
	struct ter_attr attr;
	struct ter_op op;
	int r;

	td_op_init(req, &op);
	r = ter_vfs_create(s->vfs, &op, td_node(parent), name, mode, (uint32_t)rdev, target, &attr);
	if (r < 0)
		td_reply_err(req, r);
	else
		td_reply_entry(req, &attr);
}

void td_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	create(req, parent, name, mode, rdev, NULL);
}

void td_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	create(req, parent, name, S_IFDIR | (mode & ~(mode_t)S_IFMT), 0, NULL);
}

void td_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	create(req, parent, name, S_IFLNK | 0777, 0, target);
}

void td_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct td_session *s = td_req_session(req);
	struct fuse_entry_param entry;
	struct ter_attr attr;
	struct ter_op op;
	int r;

	td_op_init(req, &op);
	r = ter_vfs_create(s->vfs, &op, td_node(parent), name, S_IFREG | (mode & ~(mode_t)S_IFMT), 0, NULL, &attr);
	if (r < 0) {
		td_reply_err(req, r);
		return;
	}
	if (!td_lookups_add(&s->lookups, attr.node)) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	td_entry(&attr, &entry);
	fi->fh = 0;
	fi->keep_cache = 1;
	if (fuse_reply_create(req, &entry, fi) == -ENOENT && td_lookups_forget(&s->lookups, attr.node, 1))
		ter_vfs_forget(s->vfs, attr.node);
}

static void removed(fuse_req_t req, int r, uint64_t orphan)
{
	struct td_session *s = td_req_session(req);

	td_reply_err(req, r);
	if (r >= 0)
		td_orphan(s, orphan);
}

void td_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	uint64_t orphan = 0;
	struct ter_op op;
	int r;

	td_op_init(req, &op);
	r = ter_vfs_unlink(td_req_session(req)->vfs, &op, td_node(parent), name, &orphan);
	removed(req, r, orphan);
}

void td_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	uint64_t orphan = 0;
	struct ter_op op;
	int r;

	td_op_init(req, &op);
	r = ter_vfs_rmdir(td_req_session(req)->vfs, &op, td_node(parent), name, &orphan);
	removed(req, r, orphan);
}

void td_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags)
{
	uint64_t orphan = 0;
	struct ter_op op;
	int r;

	td_op_init(req, &op);
	r = ter_vfs_rename(td_req_session(req)->vfs, &op, td_node(parent), name, td_node(newparent), newname, flags, &orphan);
	removed(req, r, orphan);
}

void td_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct ter_attr attr;
	struct ter_op op;
	int r;

	td_op_init(req, &op);
	r = ter_vfs_link(td_req_session(req)->vfs, &op, td_node(ino), td_node(newparent), newname, &attr);
	if (r < 0)
		td_reply_err(req, r);
	else
		td_reply_entry(req, &attr);
}

void td_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[TER_SYMLINK_MAX + 1];
	struct ter_op op;
	int r;

	td_op_init(req, &op);
	r = ter_vfs_readlink(td_req_session(req)->vfs, &op, td_node(ino), target);
	if (r < 0)
		td_reply_err(req, r);
	else
		fuse_reply_readlink(req, target);
}

bool td_raw_tmpfile(struct td_session *s, const struct fuse_in_header *in, size_t bytes)
{
	const struct fuse_create_in *arg = (const void *)(in + 1);
	struct { struct fuse_entry_out entry; struct fuse_open_out open; } out = { 0 };
	struct fuse_entry_param entry;
	struct ter_attr attr;
	int r;

	if (bytes < sizeof(*in) + sizeof(*arg)) {
		td_reply_raw(s, in->unique, EINVAL, NULL, 0);
		return true;
	}
	const struct ter_op op = { .uid = in->uid, .gid = in->gid, .umask = arg->umask, .nowait = td_call->nowait };

	r = ter_vfs_tmpfile(s->vfs, &op, td_node(in->nodeid), S_IFREG | (arg->mode & ~(uint32_t)S_IFMT), &attr);
	if (r == -EAGAIN && td_call->nowait) {
		td_call->deferred = true;
		return true;
	}
	if (r >= 0 && !td_lookups_add(&s->lookups, attr.node)) {
		ter_vfs_forget(s->vfs, attr.node);
		r = -ENOMEM;
	}
	if (r < 0) {
		td_reply_raw(s, in->unique, td_errno(r), NULL, 0);
		return true;
	}
	td_entry(&attr, &entry);
	out.entry = (struct fuse_entry_out){
		.nodeid = entry.ino, .generation = entry.generation, .entry_valid = (uint64_t)TD_CACHE_SECONDS, .attr_valid = (uint64_t)TD_CACHE_SECONDS,
		.attr = {
			.ino = attr.node, .size = attr.size, .blocks = attr.blocks, .mode = attr.mode, .nlink = attr.nlink, .uid = attr.uid,
			.gid = attr.gid, .blksize = attr.blksize,
			.atime = (uint64_t)attr.atime.tv_sec, .atimensec = (uint32_t)attr.atime.tv_nsec,
			.mtime = (uint64_t)attr.mtime.tv_sec, .mtimensec = (uint32_t)attr.mtime.tv_nsec,
			.ctime = (uint64_t)attr.ctime.tv_sec, .ctimensec = (uint32_t)attr.ctime.tv_nsec,
		},
	};
	out.open.open_flags = FOPEN_KEEP_CACHE;
	td_reply_raw(s, in->unique, 0, &out, sizeof(out));
	return true;
}
