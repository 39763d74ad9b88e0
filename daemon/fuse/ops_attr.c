/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attributes: getattr, statx, setattr, statfs, extended attributes. */
#include <sys/sysmacros.h>

#include "fuse/ops_util.h"

#define XATTR_LIST_MAX 65536u

/* FATTR_KILL_SUIDGID, which libfuse 3.14 passes on without a name of its own. */
#define SET_ATTR_KILL_SUIDGID (1 << 11)

void td_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct ter_attr attr;
	struct ter_op op;
	struct stat st;
	int r;

	(void)fi;
	td_op_init(req, &op);
	r = ter_vfs_getattr(td_req_session(req)->vfs, &op, td_node(ino), &attr);
	if (r < 0) {
		td_reply_err(req, r);
		return;
	}
	td_stat(&attr, &st);
	fuse_reply_attr(req, &st, td_attr_seconds(&attr));
}

static unsigned valid_from(int to_set)
{
	static const struct { int fuse; unsigned ter; } map[] = {
		{ FUSE_SET_ATTR_MODE, TER_SET_MODE },   { FUSE_SET_ATTR_UID, TER_SET_UID },
		{ FUSE_SET_ATTR_GID, TER_SET_GID },     { FUSE_SET_ATTR_SIZE, TER_SET_SIZE },
		{ FUSE_SET_ATTR_ATIME, TER_SET_ATIME }, { FUSE_SET_ATTR_MTIME, TER_SET_MTIME },
		{ FUSE_SET_ATTR_ATIME_NOW, TER_SET_ATIME | TER_SET_ATIME_NOW },
		{ FUSE_SET_ATTR_MTIME_NOW, TER_SET_MTIME | TER_SET_MTIME_NOW },
		{ FUSE_SET_ATTR_CTIME, TER_SET_CTIME },
	};
	unsigned valid = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(map); i++)
		if (to_set & map[i].fuse)
			valid |= map[i].ter;
	return valid;
}

void td_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct ter_attr attr = {
		.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid, .size = (uint64_t)st->st_size,
		.atime = st->st_atim, .mtime = st->st_mtim, .ctime = st->st_ctim,
	};
	const unsigned valid = valid_from(to_set);
	struct ter_op op;
	struct stat out;
	int r;

	(void)fi;
	td_op_init(req, &op);
	/* Nothing to set (but, with the writeback cache, ctime): what the kernel says of an fallocate, or of a chown to the same, that must clear set-id bits. */
	op.kill_priv = to_set & SET_ATTR_KILL_SUIDGID || !(valid & ~(unsigned)TER_SET_CTIME);
	r = ter_vfs_setattr(td_req_session(req)->vfs, &op, td_node(ino), &attr, valid, &attr);
	if (r < 0) {
		td_reply_err(req, r);
		return;
	}
	td_stat(&attr, &out);
	fuse_reply_attr(req, &out, td_attr_seconds(&attr));
}

bool td_raw_statx(struct td_session *s, const struct fuse_in_header *in, size_t bytes)
{
	struct td_fuse_statx_out out = { 0 };
	const struct ter_op op = { .uid = in->uid, .gid = in->gid, .nowait = td_call->nowait };
	struct ter_attr a;
	int r;

	if (bytes < sizeof(*in) + sizeof(struct td_fuse_statx_in)) {
		td_reply_raw(s, in->unique, EINVAL, NULL, 0);
		return true;
	}
	r = ter_vfs_getattr(s->vfs, &op, td_node(in->nodeid), &a);
	if (r == -EAGAIN && td_call->nowait) {
		td_call->deferred = true;
		return true;
	}
	if (r < 0) {
		td_reply_raw(s, in->unique, td_errno(r), NULL, 0);
		return true;
	}
	out.attr_valid = (uint64_t)td_attr_seconds(&a);
#define TIME(t) { .tv_sec = (t).tv_sec, .tv_nsec = (uint32_t)(t).tv_nsec }
	out.stat = (struct td_fuse_statx){
		.mask = STATX_BASIC_STATS | STATX_BTIME, .blksize = a.blksize, .nlink = a.nlink, .uid = a.uid, .gid = a.gid,
		.mode = (uint16_t)a.mode, .ino = a.node, .size = a.size, .blocks = a.blocks,
		.atime = TIME(a.atime), .btime = TIME(a.btime), .ctime = TIME(a.ctime), .mtime = TIME(a.mtime),
		.rdev_major = major(a.rdev), .rdev_minor = minor(a.rdev),
	};
#undef TIME
	td_reply_raw(s, in->unique, 0, &out, sizeof(out));
	return true;
}

bool td_raw_syncfs(struct td_session *s, const struct fuse_in_header *in, size_t bytes)
{
	int r;

	(void)bytes;
	if (td_call->nowait) {
		td_call->deferred = true;
		return true;
	}
	r = ter_vfs_sync(s->vfs);
	td_reply_raw(s, in->unique, r < 0 ? td_errno(r) : 0, NULL, 0);
	return true;
}

void td_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct td_session *s = td_req_session(req);
	struct ter_fs_status status;
	struct statvfs st = { 0 };
	uint64_t block, total_inodes;

	(void)ino;
	ter_fs_get_status(s->fs, &status);
	block = status.block_bytes >> TER_SECTOR_SHIFT;
	/* Blocks as a user counts them: what is used and what can still be written, at the number of copies in force. */
	st.f_bsize = st.f_frsize = status.block_bytes;
	st.f_blocks = (status.usage.used_logical + status.usage.available + status.usage.reserved) / block;
	/* What waits to be written, or was promised by fallocate, is not free. */
	st.f_bfree = st.f_bavail = status.usage.available / block;
	/* Inodes take what space there is: as many more as would fit with an inode and a name each. */
	total_inodes = status.usage.inodes + st.f_bavail;
	st.f_files = total_inodes;
	st.f_ffree = st.f_favail = st.f_bavail;
	st.f_namemax = TER_NAME_MAX;
	fuse_reply_statfs(req, &st);
}

/* --- extended attributes --- */

void td_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct ter_op op;
	int r;

	td_op_init(req, &op);
	r = ter_vfs_setxattr(td_req_session(req)->vfs, &op, td_node(ino), name, value, size, flags);
	td_reply_err(req, r);
}

/* With SETXATTR_EXT the header is longer than libfuse 3.14 knows: taken apart here. */
bool td_raw_setxattr(struct td_session *s, const struct fuse_in_header *in, size_t bytes)
{
	const struct fuse_setxattr_in *arg = (const void *)(in + 1);
	const size_t head = sizeof(*in) + sizeof(*arg);
	struct ter_op op = { .uid = in->uid, .gid = in->gid, .nowait = td_call->nowait };
	const char *name, *end = (const char *)in + bytes;
	size_t name_bytes;
	int r;

	if (!(s->init_flags & FUSE_SETXATTR_EXT))
		return false;
	name = (const char *)in + head;
	name_bytes = bytes > head ? strnlen(name, (size_t)(end - name)) : 0;
	if (bytes <= head || name + name_bytes >= end || (size_t)(end - name) - name_bytes - 1 < arg->size) {
		td_reply_raw(s, in->unique, EINVAL, NULL, 0);
		return true;
	}
	op.kill_priv = arg->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID;
	r = ter_vfs_setxattr(s->vfs, &op, td_node(in->nodeid), name, name + name_bytes + 1, arg->size, (int)arg->flags);
	if (r == -EAGAIN && td_call->nowait)
		td_call->deferred = true;
	else
		td_reply_raw(s, in->unique, r < 0 ? td_errno(r) : 0, NULL, 0);
	return true;
}

static void reply_value(fuse_req_t req, ssize_t n, const void *value, size_t size)
{
	if (n < 0)
		td_reply_err(req, (int)n);
	else if (size == 0)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, value, (size_t)n);
}

void td_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	_cleanup_free_ void *value = NULL;
	struct ter_op op;

	td_op_init(req, &op);
	size = ter_min(size, (size_t)XATTR_LIST_MAX);
	if (size && !(value = malloc(size))) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	reply_value(req, ter_vfs_getxattr(td_req_session(req)->vfs, &op, td_node(ino), name, value, size), value, size);
}

void td_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	_cleanup_free_ char *list = NULL;
	struct ter_op op;

	td_op_init(req, &op);
	size = ter_min(size, (size_t)XATTR_LIST_MAX);
	if (size && !(list = malloc(size))) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	reply_value(req, ter_vfs_listxattr(td_req_session(req)->vfs, &op, td_node(ino), list, size), list, size);
}

void td_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct ter_op op;

	td_op_init(req, &op);
	td_reply_err(req, ter_vfs_removexattr(td_req_session(req)->vfs, &op, td_node(ino), name));
}
