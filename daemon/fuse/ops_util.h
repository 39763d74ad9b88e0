/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the handlers share: from libfuse's terms to core's and back. */
#ifndef TD_OPS_UTIL_H
#define TD_OPS_UTIL_H

#include "fuse/fuse_priv.h"

static inline struct td_session *td_req_session(fuse_req_t req)
{
	return fuse_req_userdata(req);
}
/* The root is 1 on the wire. */
static inline uint64_t td_node(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? TER_NODE_ROOT : ino;
}
static inline fuse_ino_t td_wire(uint64_t node)
{
	return node == TER_NODE_ROOT ? FUSE_ROOT_ID : node;
}

void td_op_init(fuse_req_t req, struct ter_op *op);
int td_errno(int r);  /* positive errno for the kernel; internal codes become EIO */
void td_stat(const struct ter_attr *attr, struct stat *st);
static inline double td_attr_seconds(const struct ter_attr *attr) /* how long the kernel may keep them */
{
	return attr->dirty ? TD_DIRTY_CACHE_SECONDS : TD_CACHE_SECONDS;
}

/*
 * The end of a handler. td_again(): the call would wait: nothing is answered now, the pool does it again. td_reply_err(): 0 or an error.
 */
bool td_again(fuse_req_t req, int r);
void td_reply_err(fuse_req_t req, int r);
/* Counts the lookup, then answers with the entry; an answer that does not arrive gives the count back. */
void td_reply_entry(fuse_req_t req, const struct ter_attr *attr);
void td_entry(const struct ter_attr *attr, struct fuse_entry_param *ret);
/* @node lost its last link: reaped when the kernel does not know it. */
void td_orphan(struct td_session *s, uint64_t node);

/* ops_*.c */
void td_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void td_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void td_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void td_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void td_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void td_op_readlink(fuse_req_t req, fuse_ino_t ino);
void td_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void td_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void td_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void td_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void td_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void td_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void td_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags);
void td_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void td_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void td_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi);
void td_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void td_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi);
void td_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void td_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_bytes,
		 size_t out_bytes);
void td_op_statfs(fuse_req_t req, fuse_ino_t ino);
void td_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void td_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void td_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void td_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void td_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void td_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
bool td_raw_setxattr(struct td_session *s, const struct fuse_in_header *in, size_t bytes);
bool td_raw_statx(struct td_session *s, const struct fuse_in_header *in, size_t bytes);
bool td_raw_tmpfile(struct td_session *s, const struct fuse_in_header *in, size_t bytes);
bool td_raw_syncfs(struct td_session *s, const struct fuse_in_header *in, size_t bytes);

#endif
