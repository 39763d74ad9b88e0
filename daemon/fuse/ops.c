/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The handlers' table, and what they share. */
#include "fuse/ops_util.h"

void td_op_init(fuse_req_t req, struct ter_op *op)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	*op = (struct ter_op){
		.uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask, .nowait = td_call->nowait, .noatime = td_req_session(req)->config.noatime,
	};
}

int td_errno(int r)
{
	switch (-r) {
	case EUCLEAN:
	case EBADMSG:
	case ERESTART:
	case ESHUTDOWN:
	case ENOTRECOVERABLE:
		return EIO; /* internal: users know it as an I/O error */
	case EAGAIN:
		return EBUSY; /* bounded retries ran out */
	default:
		return -r;
	}
}

void td_stat(const struct ter_attr *attr, struct stat *st)
{
	*st = (struct stat){
		.st_ino = attr->node, .st_mode = attr->mode, .st_nlink = attr->nlink, .st_uid = attr->uid, .st_gid = attr->gid,
		.st_rdev = attr->rdev, .st_size = (off_t)attr->size, .st_blksize = (blksize_t)attr->blksize, .st_blocks = (blkcnt_t)attr->blocks,
		.st_atim = attr->atime, .st_mtim = attr->mtime, .st_ctim = attr->ctime,
	};
}

bool td_again(fuse_req_t req, int r)
{
	if (r != -EAGAIN || !td_call->nowait)
		return false;
	td_call->deferred = true;
	fuse_reply_none(req);
	return true;
}

void td_reply_err(fuse_req_t req, int r)
{
	if (!td_again(req, r))
		fuse_reply_err(req, r < 0 ? td_errno(r) : 0);
}

void td_entry(const struct ter_attr *attr, struct fuse_entry_param *ret)
{
	*ret = (struct fuse_entry_param){
		.ino = td_wire(attr->node), .generation = attr->generation, .attr_timeout = td_attr_seconds(attr), .entry_timeout = TD_CACHE_SECONDS,
	};
	td_stat(attr, &ret->attr);
}

void td_reply_entry(fuse_req_t req, const struct ter_attr *attr)
{
	struct td_session *s = td_req_session(req);
	struct fuse_entry_param entry;

	if (!td_lookups_add(&s->lookups, attr->node)) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	td_entry(attr, &entry);
	if (fuse_reply_entry(req, &entry) == -ENOENT && td_lookups_forget(&s->lookups, attr->node, 1))
		ter_vfs_forget(s->vfs, attr->node);
}

void td_orphan(struct td_session *s, uint64_t node)
{
	if (node && !td_lookups_known(&s->lookups, node))
		ter_vfs_forget(s->vfs, node);
}

/* OPEN, OPENDIR, FLUSH: the kernel shall not ask. Handles are stateless, FORGET ends an orphan. */
static void op_nosys_file(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, ENOSYS);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0); /* files created before the first OPEN was refused */
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = TER_MIB(1);
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

const struct fuse_lowlevel_ops td_ops = {
	.init = op_init,
	.lookup = td_op_lookup,
	.forget = td_op_forget,
	.forget_multi = td_op_forget_multi,
	.getattr = td_op_getattr,
	.setattr = td_op_setattr,
	.readlink = td_op_readlink,
	.mknod = td_op_mknod,
	.mkdir = td_op_mkdir,
	.symlink = td_op_symlink,
	.create = td_op_create,
	.unlink = td_op_unlink,
	.rmdir = td_op_rmdir,
	.rename = td_op_rename,
	.link = td_op_link,
	.open = op_nosys_file,
	.opendir = op_nosys_file,
	.flush = op_nosys_file,
	.release = op_release,
	.releasedir = op_release,
	.read = td_op_read,
	.write = td_op_write,
	.fsync = td_op_fsync,
	.fsyncdir = td_op_fsync,
	.fallocate = td_op_fallocate,
	.lseek = td_op_lseek,
	.ioctl = td_op_ioctl,
	.statfs = td_op_statfs,
	.readdir = td_op_readdir,
	.readdirplus = td_op_readdirplus,
	.setxattr = td_op_setxattr,
	.getxattr = td_op_getxattr,
	.listxattr = td_op_listxattr,
	.removexattr = td_op_removexattr,
};

bool td_ops_raw(struct td_session *s, const struct fuse_in_header *in, size_t bytes)
{
	switch (in->opcode) {
	case FUSE_SETXATTR:
		return td_raw_setxattr(s, in, bytes);
	case TD_FUSE_STATX:
		return td_raw_statx(s, in, bytes);
	case FUSE_TMPFILE:
		return td_raw_tmpfile(s, in, bytes);
	case FUSE_SYNCFS:
		return td_raw_syncfs(s, in, bytes);
	case FUSE_INTERRUPT:    /* nothing of ours can be interrupted; libfuse would keep it, also for a request that was answered, and never free it */
	case FUSE_NOTIFY_REPLY: /* nothing was asked; libfuse would lose the memory */
		return true;
	default:
		return false;
	}
}
