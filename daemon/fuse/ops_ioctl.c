/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ioctls: flags of inodes (chattr), the pool's label, trimming
 *
 * For flags the kernel asks the right of the caller (owner; root for immutable and append-only) before it asks us; for the label and trimming it does not, so we do.
 */
#include <linux/fs.h>
#include <stdio.h>

#include "fuse/ops_util.h"

static const struct { uint32_t inode, x; } xflags[] = {
	{ TER_INODE_SYNC, FS_XFLAG_SYNC },
	{ TER_INODE_IMMUTABLE, FS_XFLAG_IMMUTABLE },
	{ TER_INODE_APPEND, FS_XFLAG_APPEND },
	{ TER_INODE_NODUMP, FS_XFLAG_NODUMP },
	{ TER_INODE_NOATIME, FS_XFLAG_NOATIME },
};

static uint32_t to_xflags(uint32_t flags)
{
	uint32_t x = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(xflags); i++)
		if (flags & xflags[i].inode)
			x |= xflags[i].x;
	return x;
}

/* False: one that we do not keep. */
static bool from_xflags(uint32_t x, uint32_t *ret)
{
	uint32_t flags = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(xflags); i++)
		if (x & xflags[i].x) {
			flags |= xflags[i].inode;
			x &= ~xflags[i].x;
		}
	*ret = flags;
	return !x;
}

static void get_flags(fuse_req_t req, fuse_ino_t ino, bool extended)
{
	struct fsxattr x = { 0 };
	struct ter_attr attr;
	struct ter_op op;
	uint32_t flags;
	int r;

	td_op_init(req, &op);
	r = ter_vfs_getattr(td_req_session(req)->vfs, &op, td_node(ino), &attr);
	if (r < 0) {
		td_reply_err(req, r);
		return;
	}
	flags = attr.flags;
	x.fsx_xflags = to_xflags(flags);
	if (extended)
		fuse_reply_ioctl(req, 0, &x, sizeof(x));
	else
		fuse_reply_ioctl(req, 0, &flags, sizeof(flags));
}

static void set_flags(fuse_req_t req, fuse_ino_t ino, uint32_t flags)
{
	const struct ter_attr set = { .flags = flags };
	struct ter_op op;
	int r;

	td_op_init(req, &op);
	r = flags & ~(uint32_t)TER_INODE_FLAGS_SETTABLE ? -EOPNOTSUPP :
							  ter_vfs_setattr(td_req_session(req)->vfs, &op, td_node(ino), &set, TER_SET_FLAGS, NULL);
	if (r < 0)
		td_reply_err(req, r);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void set_xflags(fuse_req_t req, fuse_ino_t ino, const struct fsxattr *x)
{
	uint32_t flags;

	if (!from_xflags(x->fsx_xflags & ~(uint32_t)FS_XFLAG_HASATTR, &flags) || x->fsx_projid || x->fsx_extsize || x->fsx_cowextsize)
		fuse_reply_err(req, EOPNOTSUPP);
	else
		set_flags(req, ino, flags);
}

static void get_label(fuse_req_t req)
{
	char label[FSLABEL_MAX] = { 0 };
	struct ter_fs_status status;

	ter_fs_get_status(td_req_session(req)->fs, &status);
	snprintf(label, sizeof(label), "%s", status.label);
	fuse_reply_ioctl(req, 0, label, sizeof(label));
}

static void set_label(fuse_req_t req, const char *label, size_t bytes)
{
	struct ter_error error = { 0 };
	int r;

	if (fuse_req_ctx(req)->uid != 0) {
		fuse_reply_err(req, EPERM);
	} else if (strnlen(label, bytes) >= bytes) {
		fuse_reply_err(req, EINVAL);
	} else if (!td_again(req, td_call->nowait ? -EAGAIN : 0)) { /* writes superblocks */
		r = ter_fs_set_label(td_req_session(req)->fs, label, &error);
		if (r < 0)
			td_reply_err(req, r);
		else
			fuse_reply_ioctl(req, 0, NULL, 0);
	}
}

/* What a bucket held is discarded as soon as it is free: nothing is left to trim, and it is told so. */
static void trim(fuse_req_t req, struct fstrim_range range)
{
	struct ter_fs_device devs[TER_DEVS_MAX];
	struct td_session *s = td_req_session(req);
	struct ter_fs_status status;
	bool discards = false;
	unsigned nr;

	if (fuse_req_ctx(req)->uid != 0) {
		fuse_reply_err(req, EPERM);
		return;
	}
	nr = ter_fs_get_devices(s->fs, devs, TER_DEVS_MAX);
	for (unsigned i = 0; i < nr; i++)
		discards |= devs[i].online && devs[i].discard;
	ter_fs_get_status(s->fs, &status);
	if (!discards) {
		fuse_reply_err(req, EOPNOTSUPP);
	} else if (range.start >> TER_SECTOR_SHIFT >= status.usage.capacity || range.len < status.block_bytes) {
		fuse_reply_err(req, EINVAL);
	} else {
		range.len = 0;
		fuse_reply_ioctl(req, 0, &range, sizeof(range));
	}
}

void td_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_bytes,
		 size_t out_bytes)
{
	struct fstrim_range range;
	struct fsxattr x;
	uint32_t set;

	(void)arg;
	(void)fi;
	(void)flags;
	/* The kernel gives and takes what the command's number says; who does not is no kernel. */
	if ((_IOC_DIR(cmd) & _IOC_WRITE && in_bytes < _IOC_SIZE(cmd) && cmd != FS_IOC_SETFLAGS) ||
	    (_IOC_DIR(cmd) & _IOC_READ && out_bytes < _IOC_SIZE(cmd) && cmd != FS_IOC_GETFLAGS)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	switch (cmd) {
	case FS_IOC_GETFLAGS: /* its number says long, its users and the kernel say int */
		if (out_bytes < sizeof(set))
			fuse_reply_err(req, EINVAL);
		else
			get_flags(req, ino, false);
		break;
	case FS_IOC_SETFLAGS:
		if (in_bytes < sizeof(set)) {
			fuse_reply_err(req, EINVAL);
			break;
		}
		memcpy(&set, in, sizeof(set));
		set_flags(req, ino, set);
		break;
	case FS_IOC_FSGETXATTR:
		get_flags(req, ino, true);
		break;
	case FS_IOC_FSSETXATTR:
		memcpy(&x, in, sizeof(x));
		set_xflags(req, ino, &x);
		break;
	case FS_IOC_GETFSLABEL:
		get_label(req);
		break;
	case FS_IOC_SETFSLABEL:
		set_label(req, in, in_bytes);
		break;
	case FITRIM:
		memcpy(&range, in, sizeof(range));
		trim(req, range);
		break;
	default:
		fuse_reply_err(req, ENOTTY);
	}
}
